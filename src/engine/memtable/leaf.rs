//! A leaf of the memtable's tree: entries in the order they came in, which are put in order when they are read.
//!
//! Writers take turns by the leaf's lock; readers look at no more than `len` says is there.

#![expect(
    unsafe_code,
    reason = "slots are written by who holds the lock while others read those before"
)]

use std::{
    cell::UnsafeCell,
    cmp::Ordering as Cmp,
    mem::MaybeUninit,
    slice,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use super::Handle;
use crate::key::key_prefix;

/// Most entries of a leaf. Few in tests, for trees of some height.
pub(super) const LEAF: usize = if cfg!(test) { 6 } else { 64 };
/// Bytes that all keys have in common, and that a new leaf skips no more than its predecessor did: what is left of a
/// head tells keys apart well enough, and is copied instead of being read from the keys again.
const LAZY: usize = 4;

/// Entries in the order they came in.
pub(super) struct Leaf {
    /// Held by who adds an entry or replaces the leaf; true once it was replaced and takes no more entries.
    dead: Mutex<bool>,
    /// It stayed as it was at a split. Changed under the lock.
    kept: AtomicBool,
    /// Bytes that all keys have in common.
    pub(super) skip: usize,
    len: AtomicUsize,
    /// So many at the start are in order.
    ordered: AtomicUsize,
    /// `head` of each entry.
    heads: UnsafeCell<[MaybeUninit<u64>; LEAF]>,
    handles: UnsafeCell<[MaybeUninit<Handle>; LEAF]>,
}

/// What became of an entry that was to be put into a leaf.
pub(super) enum Pushed {
    Done,
    Full,
    Dead,
}

/// Some entries of a leaf: from or up to one, which is among them unless the flag says "strictly".
#[derive(Clone, Copy)]
pub(super) enum Part<'a> {
    All,
    From(&'a Handle, bool),
    UpTo(&'a Handle, bool),
}

/// The eight bytes of a key behind the first `skip`, as a number that orders as they do, with zeros behind a shorter key.
#[inline]
pub(super) fn head(handle: &Handle, skip: usize) -> u64 {
    let key = handle.user_key();
    match key.len().checked_sub(skip) {
        Some(1..8) if key.len() >= 8 => {
            // The last eight bytes, less those that are before `skip`.
            let behind = key.len() - skip;
            key_prefix(&key[key.len() - 8..]) << (64 - 8 * behind)
        }
        Some(_) => key_prefix(&key[skip..]),
        None => 0,
    }
}

impl Leaf {
    /// A leaf of ascending entries, on the heap: with their heads behind `skipped` bytes, while all keys have `skip` in
    /// common.
    pub(super) fn new(entries: &[(u64, Handle)], skipped: usize, skip: usize) -> *mut Self {
        let keep = !entries.is_empty() && skip < skipped + LAZY;
        let skip = if keep { skipped } else { skip };
        let mut leaf = Box::new(Self {
            dead: Mutex::new(false),
            kept: AtomicBool::new(false),
            skip,
            len: AtomicUsize::new(entries.len()),
            ordered: AtomicUsize::new(entries.len()),
            heads: UnsafeCell::new([const { MaybeUninit::uninit() }; LEAF]),
            handles: UnsafeCell::new([const { MaybeUninit::uninit() }; LEAF]),
        });
        for (at, &(old, handle)) in entries.iter().enumerate() {
            let head = if keep { old } else { head(&handle, skip) };
            leaf.heads.get_mut()[at].write(head);
            leaf.handles.get_mut()[at].write(handle);
        }
        Box::into_raw(leaf)
    }

    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// Heads and handles of the entries so far.
    #[inline]
    pub(super) fn entries(&self) -> (&[u64], &[Handle]) {
        let len = self.len();
        // SAFETY: the slots below `len` were written before it was raised to it, and are never written again.
        unsafe {
            (
                slice::from_raw_parts(self.heads.get().cast(), len),
                slice::from_raw_parts(self.handles.get().cast(), len),
            )
        }
    }

    /// True the first time, for who holds the lock. Once is enough: were a full leaf kept for each entry that comes
    /// between its last and the next leaf, each of them would get a leaf of its own.
    pub(super) fn may_keep(&self) -> bool {
        !self.kept.swap(true, Ordering::Relaxed)
    }

    /// Keeps others from changing the leaf; tells whether it was replaced.
    pub(super) fn lock(&self) -> MutexGuard<'_, bool> {
        // An entry is counted last, so that a panic leaves the leaf as it was.
        self.dead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an entry at the end.
    pub(super) fn push(&self, handle: Handle) -> Pushed {
        let head = head(&handle, self.skip);
        let dead = self.lock();
        if *dead {
            return Pushed::Dead;
        }
        let (heads, handles) = self.entries();
        let len = handles.len();
        if len == LEAF {
            return Pushed::Full;
        }
        debug_assert!(
            !heads
                .iter()
                .zip(handles)
                .any(|(&other, entry)| other == head && *entry == handle),
            "an entry that is in already"
        );
        let follows = match (heads.last(), handles.last()) {
            (Some(&before), Some(last)) => before < head || before == head && *last < handle,
            _ => true,
        };
        if follows && self.ordered.load(Ordering::Relaxed) == len {
            self.ordered.store(len + 1, Ordering::Relaxed);
        }
        // SAFETY: who holds the lock is the only one to write, and nobody reads slots from `len` on.
        unsafe {
            self.heads.get().cast::<u64>().add(len).write(head);
            self.handles.get().cast::<Handle>().add(len).write(handle);
        }
        self.len.store(len + 1, Ordering::Release);
        Pushed::Done
    }

    /// The first entry at or after `target` of its user key.
    #[inline]
    pub(super) fn first_version(&self, target: &Handle) -> Option<Handle> {
        let wanted = head(target, self.skip);
        let (heads, handles) = self.entries();
        let mut found: Option<Handle> = None;
        for (&head, handle) in heads.iter().zip(handles) {
            if head == wanted
                && handle.user_key() == target.user_key()
                && handle.trailer <= target.trailer
                && found.is_none_or(|found| found.trailer < handle.trailer)
            {
                found = Some(*handle);
            }
        }
        found
    }

    /// Appends a part of the entries to `into`, in order.
    pub(super) fn copy(&self, into: &mut Vec<Handle>, part: Part<'_>) {
        let (heads, handles) = self.entries();
        let all = 0..handles.len();
        let push = |_, handle| into.push(handle);
        let (Part::From(target, strictly) | Part::UpTo(target, strictly)) = part else {
            return self.in_order(heads, handles, all, push);
        };
        let wanted = head(target, self.skip);
        let order = |at: &usize| {
            let order = heads[*at].cmp(&wanted);
            order.then_with(|| handles[*at].cmp(target))
        };
        if matches!(part, Part::From(..)) {
            let least = if strictly { Cmp::Greater } else { Cmp::Equal };
            self.in_order(heads, handles, all.filter(|at| order(at) >= least), push);
        } else {
            let most = if strictly { Cmp::Less } else { Cmp::Equal };
            self.in_order(heads, handles, all.filter(|at| order(at) <= most), push);
        }
    }

    /// Gives some of the entries in order, with their heads.
    #[inline]
    pub(super) fn in_order(
        &self,
        heads: &[u64],
        handles: &[Handle],
        wanted: impl Iterator<Item = usize>,
        mut give: impl FnMut(u64, Handle),
    ) {
        if self.ordered.load(Ordering::Relaxed) >= handles.len() {
            return wanted.for_each(|at| give(heads[at], handles[at]));
        }
        let mut order = [(0_u64, 0_usize); LEAF];
        let mut len = 0;
        for at in wanted {
            order[len] = (heads[at], at);
            len += 1;
        }
        // Stable: that sort makes use of the part that is in order already.
        order[..len].sort_by(|a, b| {
            let heads = a.0.cmp(&b.0);
            heads.then_with(|| handles[a.1].cmp(&handles[b.1]))
        });
        for &(head, at) in &order[..len] {
            give(head, handles[at]);
        }
    }
}
