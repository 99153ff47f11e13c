//! The cache of blocks that cannot be used where they lie: decompressed ones, and all of tables that are
//! read through read calls.
//!
//! An open table has a slot for each of its blocks, so that a block in the cache is found without a search, a lock or
//! a store to memory that other readers read. Blocks are shared: one that is evicted lives on while a reader holds it.
//! The cache is bounded in bytes, in shards, and of a kind that one scan does not flush: a block that was used once
//! waits in a small queue, and only one that is used again there comes into the large one.
//!
//! Not here: verification. What is put in has been verified.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
};

use arc_swap::{ArcSwapAny, Guard};
use triomphe::ThinArc;

use crate::{
    memory::{Charge, Gauge},
    slice::PinLedger,
};

/// Bytes charged for an entry beside its block: its slot, its place in a queue, and what the allocator adds.
const ENTRY_OVERHEAD: usize = 96;
/// Shards of the cache; a shard is the unit of locking and holds its part of the capacity.
const SHARDS: usize = 16;
/// The part of a shard's bytes from which on the small queue is emptied first.
const SMALL_SHARE: usize = 10;
/// Most uses of a block that are remembered: so often it goes through the large queue again.
const MAX_USES: u8 = 2;

/// The bytes of a block, shared by the cache and by readers.
pub(crate) type BlockBytes = ThinArc<(), u8>;

/// A block for a short look, or none.
pub(crate) type Glance = Guard<Option<BlockBytes>>;

/// Shares the bytes of a block.
pub(crate) fn share(bytes: &[u8]) -> BlockBytes {
    ThinArc::from_header_and_slice((), bytes)
}

/// What is in memory of one open table.
pub(crate) struct Slots {
    owner: u64,
    slots: Box<[Slot]>,
    _charge: Charge,
}

#[derive(Default)]
struct Slot {
    block: ArcSwapAny<Option<BlockBytes>>,
    /// Uses since it came, or since it last was the oldest of its queue.
    uses: AtomicU8,
}

impl Slots {
    /// The block of that number, if it is here.
    #[inline]
    pub(crate) fn get(&self, ordinal: usize) -> Glance {
        let slot = &self.slots[ordinal];
        let block = slot.block.load();
        if block.is_some() {
            // Written at the first uses only, so that readers share the line. Which of two at a time counts is all one.
            let uses = slot.uses.load(Ordering::Relaxed);
            if uses < MAX_USES {
                slot.uses.store(uses + 1, Ordering::Relaxed);
            }
        }
        block
    }
}

/// Blocks in memory, bounded in bytes.
pub(crate) struct BlockCache {
    shards: Box<[Mutex<Shard>]>,
    /// Changed while it is used: what is larger is shrunk by who changes it, and by the next inserts.
    capacity: AtomicUsize,
    next_owner: AtomicU64,
    /// Memory of open tables beside their blocks here.
    tables: Gauge,
    /// Blocks put here since it was made, and their bytes.
    inserted: AtomicU64,
    inserted_bytes: AtomicU64,
    /// What values read from the same tables hold in place.
    pins: Arc<PinLedger>,
}

/// Blocks by age. A block is in one queue, from when its slot was filled until it is emptied.
#[derive(Default)]
struct Shard {
    small: VecDeque<Entry>,
    large: VecDeque<Entry>,
    small_bytes: usize,
    bytes: usize,
}

/// A block in a queue. Those of a closed table are counted until their turn comes.
struct Entry {
    slots: Weak<Slots>,
    ordinal: usize,
    bytes: usize,
}

/// What is in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockCacheStats {
    /// Blocks held.
    pub(crate) blocks: usize,
    /// Bytes charged.
    pub(crate) bytes: u64,
    /// Most bytes held.
    pub(crate) capacity: u64,
    /// Blocks that were to be put here.
    pub(crate) inserted: u64,
    /// Their bytes.
    pub(crate) inserted_bytes: u64,
}

impl BlockCache {
    /// An empty cache for `capacity` bytes, beside which nothing is held in place.
    pub(crate) fn new(capacity: usize) -> Arc<Self> {
        Self::with_pins(capacity, 0)
    }

    /// An empty cache for `capacity` bytes; values may hold `max_pinned` bytes in place.
    pub(crate) fn with_pins(capacity: usize, max_pinned: usize) -> Arc<Self> {
        Arc::new(Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            capacity: AtomicUsize::new(capacity),
            next_owner: AtomicU64::new(1),
            tables: Gauge::default(),
            inserted: AtomicU64::new(0),
            inserted_bytes: AtomicU64::new(0),
            pins: PinLedger::new(max_pinned),
        })
    }

    /// Counts what values hold in place.
    pub(crate) fn pins(&self) -> &Arc<PinLedger> {
        &self.pins
    }

    /// Counts what open tables hold beside their blocks here.
    pub(crate) fn tables(&self) -> &Gauge {
        &self.tables
    }

    /// Bytes it may hold.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity.load(Ordering::Relaxed)
    }

    /// Changes the bytes it may hold, and gives up what it holds beyond.
    pub(crate) fn set_capacity(&self, capacity: usize) {
        if self.capacity.swap(capacity, Ordering::Relaxed) <= capacity {
            return;
        }
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            while shard.bytes > capacity / SHARDS {
                shard.make_room(capacity / SHARDS);
            }
        }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        let shards = self.shards.iter();
        shards
            .map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).bytes)
            .sum()
    }

    /// Empty slots for an open table of `blocks` blocks. Those of a closed table are never found again.
    pub(crate) fn slots(&self, blocks: usize) -> Arc<Slots> {
        Arc::new(Slots {
            owner: self.next_owner.fetch_add(1, Ordering::Relaxed),
            slots: (0..blocks).map(|_| Slot::default()).collect(),
            _charge: self.tables.charge(blocks * size_of::<Slot>()),
        })
    }

    /// Keeps a block. One larger than a shard is not kept.
    pub(crate) fn insert(&self, slots: &Arc<Slots>, ordinal: usize, block: BlockBytes) {
        self.inserted.fetch_add(1, Ordering::Relaxed);
        self.inserted_bytes
            .fetch_add(block.slice.len() as u64, Ordering::Relaxed);
        let capacity = self.capacity() / SHARDS;
        let bytes = block.slice.len() + ENTRY_OVERHEAD;
        if bytes > capacity {
            return;
        }
        let mut shard = self.shard(slots.owner, ordinal);
        let slot = &slots.slots[ordinal];
        if slot.block.load().is_some() {
            // Another reader was first.
            return;
        }
        slot.uses.store(0, Ordering::Relaxed);
        slot.block.store(Some(block));
        shard.small.push_back(Entry {
            slots: Arc::downgrade(slots),
            ordinal,
            bytes,
        });
        shard.small_bytes += bytes;
        shard.bytes += bytes;
        while shard.bytes > capacity {
            shard.make_room(capacity);
        }
    }

    fn shard(&self, owner: u64, ordinal: usize) -> std::sync::MutexGuard<'_, Shard> {
        // Neighbours are in different shards.
        let at = owner.wrapping_mul(7).wrapping_add(ordinal as u64) % SHARDS as u64;
        let at = usize::try_from(at).expect("below the number of shards");
        self.shards[at]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What is in the cache now.
    pub(crate) fn stats(&self) -> BlockCacheStats {
        let mut stats = BlockCacheStats {
            blocks: 0,
            bytes: 0,
            capacity: self.capacity() as u64,
            inserted: self.inserted.load(Ordering::Relaxed),
            inserted_bytes: self.inserted_bytes.load(Ordering::Relaxed),
        };
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            stats.blocks += shard.small.len() + shard.large.len();
            stats.bytes += shard.bytes as u64;
        }
        stats
    }
}

impl Shard {
    /// Looks at the oldest block of one queue, of which there is one: evicts it, or lets it stay for its uses.
    fn make_room(&mut self, capacity: usize) {
        let from_small = self.small_bytes > capacity / SMALL_SHARE || self.large.is_empty();
        let queue = if from_small {
            &mut self.small
        } else {
            &mut self.large
        };
        let Some(entry) = queue.pop_front() else {
            return;
        };
        if from_small {
            self.small_bytes -= entry.bytes;
        }
        if let Some(slots) = entry.slots.upgrade() {
            let slot = &slots.slots[entry.ordinal];
            let uses = slot.uses.load(Ordering::Relaxed);
            if uses > 0 {
                let left = if from_small { 0 } else { uses - 1 };
                slot.uses.store(left, Ordering::Relaxed);
                self.large.push_back(entry);
                return;
            }
            slot.block.store(None);
        }
        self.bytes -= entry.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_in(slots: &Slots, ordinal: usize) -> bool {
        slots.get(ordinal).is_some()
    }

    #[test]
    fn a_block_is_found_in_its_slot_alone() {
        let cache = BlockCache::new(1 << 20);
        let (one, two) = (cache.slots(9), cache.slots(9));
        cache.insert(&one, 7, share(b"block"));
        assert_eq!(
            one.get(7).as_ref().map(|block| &block.slice),
            Some(&b"block"[..])
        );
        assert!(!is_in(&one, 8) && !is_in(&two, 7));
        assert_eq!(cache.stats().blocks, 1);
        cache.insert(&one, 7, share(b"block"));
        assert_eq!(
            cache.stats().blocks,
            1,
            "one that is there already is kept once"
        );
    }

    #[test]
    fn the_cache_stays_within_its_bytes() {
        let cache = BlockCache::new(1 << 20);
        let slots = cache.slots(100_000);
        for ordinal in 0..10_000 {
            cache.insert(&slots, ordinal, share(&[0; 1000]));
            assert!(cache.stats().bytes <= 1 << 20);
        }
        let held = (0..10_000)
            .filter(|&ordinal| is_in(&slots, ordinal))
            .count();
        assert!(held > 700 && held == cache.stats().blocks, "{held}");
        cache.insert(&slots, 99_999, share(&vec![0; 2 << 20]));
        assert!(
            !is_in(&slots, 99_999),
            "a block larger than a shard is not kept"
        );
    }

    #[test]
    fn blocks_of_a_closed_table_make_room() {
        let cache = BlockCache::new(1 << 20);
        let closed = cache.slots(900);
        (0..900).for_each(|ordinal| cache.insert(&closed, ordinal, share(&[0; 1000])));
        drop(closed);
        let slots = cache.slots(900);
        (0..900).for_each(|ordinal| cache.insert(&slots, ordinal, share(&[0; 1000])));
        assert!((0..900).filter(|&ordinal| is_in(&slots, ordinal)).count() > 700);
    }

    #[test]
    fn one_scan_does_not_flush_what_is_used_again_and_again() {
        let cache = BlockCache::new(1 << 20);
        let (hot, cold) = (cache.slots(400), cache.slots(10_000));
        (0..400).for_each(|ordinal| cache.insert(&hot, ordinal, share(&[0; 1000])));
        for ordinal in 0..10_000 {
            assert!((0..400).all(|ordinal| ordinal % 50 != 0 || is_in(&hot, ordinal)));
            cache.insert(&cold, ordinal, share(&[0; 1000]));
        }
        let block = hot.get(0).as_ref().cloned();
        assert_eq!(block.map(|block| block.slice.len()), Some(1000));
    }

    #[test]
    fn a_cache_of_no_bytes_keeps_nothing() {
        let cache = BlockCache::new(0);
        let slots = cache.slots(1);
        cache.insert(&slots, 0, share(&[0; 10]));
        assert!(!is_in(&slots, 0));
    }
}
