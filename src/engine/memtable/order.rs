//! What keeps the entries of a memtable in order: one of the two kinds, chosen when the memtable is made.
//!
//! Both promise the same: any number of threads insert and read at a time, readers take no lock, and an entry is there
//! for every search that begins after its insert has come back.

use std::ops::Bound;

use super::{Handle, skip_list::SkipList, tree::Tree};
use crate::options::MemtableKind;

/// Handles in order.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one in a memtable, which is on the heap; a box would cost each search a step"
)]
pub(super) enum Order {
    Tree(Tree),
    SkipList(SkipList),
}

impl Order {
    /// An empty one, which has allocated nothing.
    pub(super) fn new(kind: MemtableKind) -> Self {
        match kind {
            MemtableKind::Tree => Self::Tree(Tree::new()),
            MemtableKind::SkipList => Self::SkipList(SkipList::new()),
        }
    }

    /// Number of entries.
    #[inline]
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Tree(tree) => tree.len(),
            Self::SkipList(list) => list.len(),
        }
    }

    /// Memory in use beside keys and values, as an estimate.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Tree(tree) => tree.bytes(),
            Self::SkipList(list) => list.len() * SkipList::NODE_BYTES,
        }
    }

    /// Memory allocated beside keys and values; an estimate for a skip list.
    pub(super) fn allocated(&self) -> usize {
        match self {
            Self::Tree(tree) => tree.allocated(),
            Self::SkipList(list) => list.len() * SkipList::NODE_BYTES,
        }
    }

    /// Adds an entry, which is not in yet. What it points at must stay until this is dropped.
    #[inline]
    pub(super) fn insert(&self, handle: Handle) {
        match self {
            Self::Tree(tree) => tree.insert(handle),
            Self::SkipList(list) => list.insert(handle),
        }
    }

    /// The first entry at or after `target`, if it is of the same user key.
    #[inline]
    pub(super) fn first_version(&self, target: &Handle) -> Option<Handle> {
        match self {
            Self::Tree(tree) => tree.first_version(target),
            Self::SkipList(list) => list.first_version(target),
        }
    }

    /// Puts some neighbours into `into`, in order, from the first entry within `bound` on; none where there is none.
    /// A cursor leaves its last neighbours in `into`, and goes on from an excluded bound.
    pub(super) fn copy_forward(&self, bound: Bound<&Handle>, into: &mut Vec<Handle>) {
        match self {
            Self::Tree(tree) => tree.copy_forward(bound, into),
            Self::SkipList(list) => list.copy_forward(bound, into),
        }
    }

    /// Puts some neighbours into `into`, in order, up to the last entry within `bound`; none where there is none. `into`
    /// comes as for [`copy_forward`](Self::copy_forward).
    pub(super) fn copy_backward(&self, bound: Bound<&Handle>, into: &mut Vec<Handle>) {
        match self {
            Self::Tree(tree) => tree.copy_backward(bound, into),
            Self::SkipList(list) => list.copy_backward(bound, into),
        }
    }
}
