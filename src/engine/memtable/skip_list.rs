//! The order of a memtable as a skip list: many threads insert and read at a time, and none waits for another.
//!
//! The list is `crossbeam-skiplist`, of which nothing is ever taken out. An entry is there for readers once `insert`
//! has come back, and perhaps sooner. There are no links back, so that each step backward is a search.

use std::{cmp::Ordering, ops::Bound};

use crossbeam_epoch as epoch;
use crossbeam_skiplist::base;

use super::Handle;
use crate::key::key_prefix;

/// Handles copied after a seek; each further copy is twice the last.
const FIRST_COPY: usize = 4;
/// Most handles copied forward at a time.
const LAST_COPY: usize = 64;
/// Most handles copied backward at a time: each takes a search.
const LAST_COPY_BACKWARD: usize = 8;

/// Handles in order.
pub(super) struct SkipList {
    list: base::SkipList<Entry, ()>,
}

/// A handle with what decides most comparisons without a look at the key.
#[derive(Clone, Copy)]
struct Entry {
    /// [`key_prefix`] of the key.
    prefix: u64,
    handle: Handle,
}

impl Entry {
    fn new(handle: Handle) -> Self {
        Self {
            prefix: key_prefix(handle.user_key()),
            handle,
        }
    }

    fn cmp_user_key(&self, other: &Self) -> Ordering {
        let prefixes = self.prefix.cmp(&other.prefix);
        prefixes.then_with(|| self.handle.user_key().cmp(other.handle.user_key()))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.cmp_user_key(other)
            .then_with(|| other.handle.trailer.cmp(&self.handle.trailer))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Entry {}

impl SkipList {
    /// Bytes of a node beside key and value: a handle and its prefix, a reference count, two links on average, and what
    /// the allocator adds.
    pub(super) const NODE_BYTES: usize = 72;

    /// An empty list, which has allocated nothing.
    pub(super) fn new() -> Self {
        Self {
            list: base::SkipList::new(epoch::default_collector().clone()),
        }
    }

    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Adds an entry, which is not in yet. What it points at must stay until the list is dropped: that frees the nodes
    /// there and then, and compares none of them.
    pub(super) fn insert(&self, handle: Handle) {
        let guard = epoch::pin();
        // Unlike `insert`, this never takes an entry out, so that no node is left to be freed after the list.
        let entry = self.list.get_or_insert(Entry::new(handle), (), &guard);
        debug_assert_eq!(
            entry.key().handle.data,
            handle.data,
            "an entry that is in already"
        );
        entry.release(&guard);
    }

    /// The first entry at or after `target`, if it is of the same user key.
    #[inline]
    pub(super) fn first_version(&self, target: &Handle) -> Option<Handle> {
        let guard = epoch::pin();
        let target = Entry::new(*target);
        let found = self.list.lower_bound(Bound::Included(&target), &guard)?;
        let same_key = found.key().cmp_user_key(&target).is_eq();
        same_key.then(|| found.key().handle)
    }

    /// Puts some neighbours into `into`, in order, from the first entry within `bound` on; none where there is none.
    /// Takes more of them where it goes on after the last that is in `into`.
    pub(super) fn copy_forward(&self, bound: Bound<&Handle>, into: &mut Vec<Handle>) {
        let guard = epoch::pin();
        let want = next_copy(bound, into.len());
        into.clear();
        let bound = bound.map(|handle| Entry::new(*handle));
        let mut entry = self.list.lower_bound(bound.as_ref(), &guard);
        while let Some(found) = entry {
            into.push(found.key().handle);
            if into.len() == want {
                break;
            }
            entry = found.next();
        }
    }

    /// Puts some neighbours into `into`, in order, up to the last entry within `bound`; none where there is none.
    pub(super) fn copy_backward(&self, bound: Bound<&Handle>, into: &mut Vec<Handle>) {
        let guard = epoch::pin();
        let want = next_copy(bound, into.len()).min(LAST_COPY_BACKWARD);
        into.clear();
        let bound = bound.map(|handle| Entry::new(*handle));
        let mut entry = self.list.upper_bound(bound.as_ref(), &guard);
        while let Some(found) = entry {
            into.push(found.key().handle);
            if into.len() == want {
                break;
            }
            entry = found.prev();
        }
        into.reverse();
    }
}

/// How many handles to copy from a bound on, where the copy before had `last`. A cursor that goes on excludes what it
/// stood on, and one that seeks does not.
fn next_copy(bound: Bound<&Handle>, last: usize) -> usize {
    match bound {
        Bound::Excluded(_) => (last * 2).clamp(FIRST_COPY, LAST_COPY),
        Bound::Included(_) | Bound::Unbounded => FIRST_COPY,
    }
}
