//! The cache of blocks that cannot be used where they lie: decompressed ones, and all of tables that are
//! read through read calls.
//!
//! Sharded, bounded in bytes, and of a kind that one scan does not flush. Blocks are shared: one that is
//! evicted lives on while a reader holds it.
//!
//! Not here: verification. What is put in has been verified.

use std::{
    hash::{BuildHasherDefault, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::slice::PinLedger;
use quick_cache::{
    OptionsBuilder, Weighter,
    sync::{Cache, DefaultLifecycle},
};

/// Bytes charged for an entry beside its block.
const ENTRY_OVERHEAD: usize = 96;
/// Shards of the cache; a shard is the unit of locking and holds its part of the capacity.
const SHARDS: usize = 16;
/// Typical bytes of a block, for sizing the cache's own memory.
const TYPICAL_BLOCK: usize = 4096;

/// A block's place: number of the open table, offset in the file.
type Key = (u64, u64);

/// Blocks in memory, bounded in bytes.
pub(crate) struct BlockCache {
    blocks: Cache<Key, Arc<[u8]>, Bytes, BuildHasherDefault<PlaceHasher>>,
    next_owner: AtomicU64,
    /// What values read from the same tables hold in place.
    pins: Arc<PinLedger>,
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
}

impl BlockCache {
    /// An empty cache for `capacity` bytes, beside which nothing is held in place.
    pub(crate) fn new(capacity: usize) -> Arc<Self> {
        Self::with_pins(capacity, 0)
    }

    /// An empty cache for `capacity` bytes; values may hold `max_pinned` bytes in place.
    pub(crate) fn with_pins(capacity: usize, max_pinned: usize) -> Arc<Self> {
        let options = OptionsBuilder::new()
            .shards(SHARDS)
            .estimated_items_capacity((capacity / TYPICAL_BLOCK).max(16))
            .weight_capacity(capacity as u64)
            .build()
            .expect("both capacities are given");
        let blocks = Cache::with_options(
            options,
            Bytes,
            BuildHasherDefault::default(),
            DefaultLifecycle::default(),
        );
        Arc::new(Self {
            blocks,
            next_owner: AtomicU64::new(1),
            pins: PinLedger::new(max_pinned),
        })
    }

    /// Counts what values hold in place.
    pub(crate) fn pins(&self) -> &Arc<PinLedger> {
        &self.pins
    }

    /// A number for a table that is being opened, never given twice: blocks of a closed table are never
    /// found again, and leave by age.
    pub(crate) fn new_owner(&self) -> u64 {
        self.next_owner.fetch_add(1, Ordering::Relaxed)
    }

    /// The block of `owner` at `offset`.
    pub(crate) fn get(&self, owner: u64, offset: u64) -> Option<Arc<[u8]>> {
        self.blocks.get(&(owner, offset))
    }

    /// Keeps a block. One larger than a shard is not kept.
    pub(crate) fn insert(&self, owner: u64, offset: u64, block: Arc<[u8]>) {
        self.blocks.insert((owner, offset), block);
    }

    /// What is in the cache now.
    pub(crate) fn stats(&self) -> BlockCacheStats {
        BlockCacheStats {
            blocks: self.blocks.len(),
            bytes: self.blocks.weight(),
            capacity: self.blocks.capacity(),
        }
    }
}

/// Weighs a block.
#[derive(Clone)]
struct Bytes;

impl Weighter<Key, Arc<[u8]>> for Bytes {
    fn weight(&self, _: &Key, block: &Arc<[u8]>) -> u64 {
        (block.len() + ENTRY_OVERHEAD) as u64
    }
}

/// Mixes two numbers that no adversary chooses; without a random seed, so that a simulated run repeats.
#[derive(Default)]
struct PlaceHasher(u64);

impl Hasher for PlaceHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // Multiply, and fold the upper half in: the cache uses the low and the high bits.
        let product = u128::from(self.0 ^ number ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93;
        let folded = (product >> 64) ^ (product & u128::from(u64::MAX));
        self.0 = u64::try_from(folded).expect("64 bits");
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_found_under_its_owner_and_offset_alone() {
        let cache = BlockCache::new(1 << 20);
        let (one, two) = (cache.new_owner(), cache.new_owner());
        cache.insert(one, 7, Arc::from(&b"block"[..]));
        assert_eq!(cache.get(one, 7).as_deref(), Some(&b"block"[..]));
        assert_eq!(cache.get(one, 8), None);
        assert_eq!(cache.get(two, 7), None);
        assert_eq!(cache.stats().blocks, 1);
    }

    #[test]
    fn the_cache_stays_within_its_bytes() {
        let cache = BlockCache::new(1 << 20);
        let owner = cache.new_owner();
        for offset in 0..10_000 {
            cache.insert(owner, offset, Arc::from(vec![0; 1000]));
            assert!(cache.stats().bytes <= 1 << 20);
        }
        assert!(cache.stats().blocks > 700, "{:?}", cache.stats());
        cache.insert(owner, 99_999, Arc::from(vec![0; 2 << 20]));
        assert!(
            cache.stats().bytes <= 1 << 20,
            "a block larger than the cache is not kept"
        );
    }

    #[test]
    fn a_cache_of_no_bytes_keeps_nothing() {
        let cache = BlockCache::new(0);
        cache.insert(1, 1, Arc::from(vec![0; 10]));
        assert_eq!(cache.get(1, 1), None);
    }
}
