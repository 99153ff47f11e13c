//! The memtable: what was written since the last flush, in memory and in order.
//!
//! Small handles, kept in order by a tree or a skip list, over an arena that holds keys and values. Any number
//! of threads may insert and read at a time; an entry is never changed nor taken out. The order is that of
//! internal keys: user keys ascend, and of one key the newest version comes first.
//!
//! What a reader at a sequence number sees stays still, because the number was published after all
//! entries up to it were in. Entries above it may appear or not.
//!
//! Not here: when a memtable is full, frozen and flushed; the log.

#![expect(
    unsafe_code,
    reason = "handles in their order point into the arena beside it"
)]

use std::{
    cmp::Ordering,
    ptr::NonNull,
    slice,
    sync::{Arc, Mutex, PoisonError, atomic},
};

use arc_swap::ArcSwap;

#[cfg(test)]
use crate::tombstones::Tombstones;
use crate::{
    key::{InternalKey, RangeTombstone, SequenceNumber},
    options::MemtableKind,
    tombstones::{Skyline, Skylines},
};

mod arena;
mod iter;
mod leaf;
mod order;
mod skip_list;
mod tree;

use arena::Arena;
pub(crate) use iter::MemtableIter;
use order::Order;

/// An ordered buffer of entries and range deletes.
pub(crate) struct Memtable {
    /// Declared before `arena`, and so dropped before it: see the `SAFETY` text at [`Handle`].
    order: Order,
    arena: Arena,
    ranges: ArcSwap<Skylines>,
    /// Number of range deletes: readers ask nothing else of a memtable without.
    range_count: atomic::AtomicUsize,
    range_bytes: atomic::AtomicUsize,
    /// Held while `ranges` is replaced.
    range_writer: Mutex<()>,
}

/// A key and its value by their place in the arena, or a key to look up by its place anywhere.
///
/// SAFETY of every read through a handle: `key_len + value_len` bytes from `data` on are initialised
/// and do not change while the handle is used. Handles are made in two places.
/// - `Memtable::insert` points into the arena, whose bytes stay as stored until it is dropped. These
///   handles live in `order`, in copies inside a call that borrows the memtable, and in a
///   [`MemtableIter`], which owns an `Arc` of it. `Memtable` drops `order` before `arena`, which compares no keys.
///   Nodes of a tree that were replaced may be freed later than the arena: that looks at no handle in them, and a
///   handle has no destructor. Nodes of a skip list are not: nothing is taken out of it.
/// - `Handle::lookup` points at the caller's key, and `Handle::least` at nothing. The former is private to a call that
///   borrows that key, and is only passed by reference as a search bound, which the order does not keep.
#[derive(Clone, Copy, Debug)]
struct Handle {
    data: NonNull<u8>,
    key_len: u32,
    value_len: u32,
    trailer: u64,
}

// SAFETY: what `data` points at is never changed while the handle is used (see `Handle`).
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Handle {
    fn new(key: InternalKey<'_>, data: NonNull<u8>, value_len: usize) -> Self {
        let len = |len| u32::try_from(len).expect("keys and values are below 4 GiB");
        Self {
            data,
            key_len: len(key.user_key.len()),
            value_len: len(value_len),
            trailer: key.trailer,
        }
    }

    /// A handle of no entry, to search with. It must not outlive `key`.
    fn lookup(key: InternalKey<'_>) -> Self {
        Self::new(key, NonNull::from(key.user_key).cast(), 0)
    }

    /// A handle of no entry that is before all.
    const fn least() -> Self {
        Self {
            data: NonNull::dangling(),
            key_len: 0,
            value_len: 0,
            trailer: u64::MAX,
        }
    }

    /// The user key, while the handle is used.
    #[inline]
    fn user_key(&self) -> &[u8] {
        // SAFETY: the bytes stay while the handle is used (see `Handle`).
        unsafe { self.key() }.user_key
    }

    /// The key.
    ///
    /// # Safety
    ///
    /// The bytes must stay for `'a`.
    #[inline]
    unsafe fn key<'a>(self) -> InternalKey<'a> {
        // SAFETY: initialised and unchanged (see `Handle`); the caller vouches for the lifetime.
        let user_key = unsafe { slice::from_raw_parts(self.data.as_ptr(), self.key_len as usize) };
        InternalKey {
            user_key,
            trailer: self.trailer,
        }
    }

    /// The value.
    ///
    /// # Safety
    ///
    /// The bytes must stay for `'a`.
    unsafe fn value<'a>(self) -> &'a [u8] {
        // SAFETY: the value lies behind the key; else as for the key.
        unsafe {
            let data = self.data.as_ptr().add(self.key_len as usize);
            slice::from_raw_parts(data, self.value_len as usize)
        }
    }
}

impl Ord for Handle {
    fn cmp(&self, other: &Self) -> Ordering {
        self.user_key()
            .cmp(other.user_key())
            .then_with(|| other.trailer.cmp(&self.trailer))
    }
}

impl PartialOrd for Handle {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Handle {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Handle {}

impl Memtable {
    /// An empty memtable; it takes memory with its first entry.
    pub(crate) fn new(kind: MemtableKind) -> Self {
        Self {
            order: Order::new(kind),
            arena: Arena::new(),
            ranges: ArcSwap::default(),
            range_count: atomic::AtomicUsize::new(0),
            range_bytes: atomic::AtomicUsize::new(0),
            range_writer: Mutex::new(()),
        }
    }

    /// Adds an entry. No two entries of one key have the same sequence number.
    pub(crate) fn insert(&self, key: InternalKey<'_>, value: &[u8]) {
        let handle = Handle::new(key, self.arena.store(key.user_key, value), value.len());
        self.order.insert(handle);
    }

    /// Adds a range delete.
    pub(crate) fn insert_range_tombstone(&self, start: &[u8], end: &[u8], seq: SequenceNumber) {
        let _alone = self
            .range_writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (ranges, bytes) = self.ranges.load().with(start, end, seq);
        self.ranges.store(Arc::new(ranges));
        self.range_bytes.fetch_add(bytes, atomic::Ordering::Relaxed);
        // Release: who sees the count sees the set.
        self.range_count.fetch_add(1, atomic::Ordering::Release);
    }

    /// The first entry at or after `seek` if it is of the same user key, as trailer and value: for
    /// [`InternalKey::seek_to`], the newest version visible there. Range deletes are not looked at.
    pub(crate) fn get(&self, seek: InternalKey<'_>) -> Option<(u64, &[u8])> {
        let found = self.order.first_version(&Handle::lookup(seek))?;
        // SAFETY: the handle was in `order`, so that its bytes are in the arena, which `self` keeps.
        Some((found.trailer, unsafe { found.value() }))
    }

    /// The largest number at or below `at` of a range delete over `user_key`; zero if there is none.
    /// Writes no shared memory.
    pub(crate) fn covering_seq(&self, user_key: &[u8], at: SequenceNumber) -> SequenceNumber {
        if !self.has_tombstones() {
            return SequenceNumber::ZERO;
        }
        let ranges = self.ranges.load();
        let cover = ranges.at(at).and_then(|line| line.cover(user_key));
        cover.map_or(SequenceNumber::ZERO, |cover| cover.seq)
    }

    /// True once a range delete is in.
    pub(crate) fn has_tombstones(&self) -> bool {
        self.range_count.load(atomic::Ordering::Acquire) > 0
    }

    /// What a reader at `at` sees of the range deletes; `None` where there is none.
    pub(crate) fn skyline(&self, at: SequenceNumber) -> Option<Skyline> {
        if !self.has_tombstones() {
            return None;
        }
        self.ranges.load().at(at).cloned()
    }

    /// All range deletes so far, in order of their numbers.
    pub(crate) fn range_deletes(&self) -> Vec<RangeTombstone> {
        self.ranges.load().all().collect()
    }

    /// All range deletes so far as one set.
    #[cfg(test)]
    pub(crate) fn tombstones(&self) -> Tombstones {
        Tombstones::new(self.range_deletes())
    }

    /// A cursor over the entries.
    pub(crate) fn iter(self: &Arc<Self>) -> MemtableIter {
        MemtableIter::new(Arc::clone(self))
    }

    /// What keeps the entries in order.
    #[cfg(test)]
    pub(crate) fn kind(&self) -> MemtableKind {
        match self.order {
            Order::Tree(_) => MemtableKind::Tree,
            Order::SkipList(_) => MemtableKind::SkipList,
        }
    }

    /// Memory in use: keys, values, and an estimate of what keeps them in order.
    pub(crate) fn bytes(&self) -> usize {
        let ranges = self.range_bytes.load(atomic::Ordering::Relaxed);
        self.arena.bytes() + self.order.bytes() + ranges
    }

    /// Memory allocated, with room that is not used yet and nodes that wait to be freed.
    pub(crate) fn allocated(&self) -> usize {
        let ranges = self.range_bytes.load(atomic::Ordering::Relaxed);
        self.arena.allocated() + self.order.allocated() + ranges
    }

    /// Number of entries and range deletes.
    pub(crate) fn len(&self) -> usize {
        self.order.len() + self.range_count.load(atomic::Ordering::Relaxed)
    }

    /// True before the first entry or range delete.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod thread_tests;
