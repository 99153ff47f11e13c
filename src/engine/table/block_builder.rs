//! Writing a data block: the counterpart of `block`.
//!
//! Keys share all they can with the entry before, but for those at restart points, which share nothing.
//! Readers rely on it.

use byteorder::{ByteOrder, LittleEndian};

use super::{
    KeyHash,
    block::{ABSENT, COLLISION, MAX_HASHED_RESTARTS, RESTART_LEN, TAIL_LEN, common_prefix},
    format::BLOCK_TRAILER_LEN,
    scale,
};
use crate::{
    coding::{put_u32, put_u64, put_varint},
    key::{InternalKey, TRAILER_LEN},
};

/// Most buckets of a hash index: their number has 16 bits.
const MAX_BUCKETS: usize = u16::MAX as usize;

/// Collects the entries of one block after the other.
pub(super) struct BlockBuilder {
    restart_interval: usize,
    /// Key parts of the entries so far.
    keys: Vec<u8>,
    /// Their values.
    values: Vec<u8>,
    /// Lengths of both at each restart point.
    restarts: Vec<(u32, u32)>,
    /// For each key: its hash and its restart interval.
    hashes: Vec<(u32, usize)>,
    /// User key of the last entry.
    last_key: Vec<u8>,
    count: usize,
}

impl BlockBuilder {
    pub(super) fn new(restart_interval: usize) -> Self {
        Self {
            restart_interval: restart_interval.max(1),
            keys: Vec::new(),
            values: Vec::new(),
            restarts: Vec::new(),
            hashes: Vec::new(),
            last_key: Vec::new(),
            count: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes the block would have now.
    pub(super) fn size(&self) -> usize {
        let hashed = if self.restarts.len() > 1 {
            self.hashes.len() * 4 / 3
        } else {
            0
        };
        self.keys.len() + self.values.len() + self.restarts.len() * RESTART_LEN + hashed + TAIL_LEN
    }

    /// Adds an entry, which is above the last one.
    pub(super) fn add(&mut self, key: InternalKey<'_>, hash: KeyHash, value: &[u8]) {
        let shared = if self.count.is_multiple_of(self.restart_interval) {
            self.restarts
                .push((len_u32(&self.keys), len_u32(&self.values)));
            0
        } else {
            common_prefix(&self.last_key, key.user_key)
        };
        let suffix = &key.user_key[shared..];
        put_varint(&mut self.keys, shared as u64);
        put_varint(&mut self.keys, suffix.len() as u64);
        put_varint(&mut self.keys, value.len() as u64);
        put_u64(&mut self.keys, key.trailer);
        self.keys.extend_from_slice(suffix);
        self.values.extend_from_slice(value);
        let interval = (hash.low(), self.restarts.len() - 1);
        if self.hashes.last() != Some(&interval) {
            self.hashes.push(interval);
        }
        self.last_key.truncate(shared);
        self.last_key.extend_from_slice(suffix);
        self.count += 1;
    }

    /// Appends the whole block to `out`; `clear` begins the next one.
    pub(super) fn finish(&self, out: &mut Vec<u8>) {
        let buckets = self.buckets();
        out.reserve(self.size() + BLOCK_TRAILER_LEN);
        out.extend_from_slice(&self.keys);
        out.extend_from_slice(&self.values);
        out.extend_from_slice(&buckets);
        for &(key, value) in &self.restarts {
            put_u32(out, key);
            put_u32(out, value);
        }
        put_u32(out, len_u32(&self.keys));
        put_u32(
            out,
            u32::try_from(self.restarts.len()).expect("fewer than bytes"),
        );
        let count = u16::try_from(buckets.len()).expect("bounded when they were made");
        let mut bytes = [0; 2];
        LittleEndian::write_u16(&mut bytes, count);
        out.extend_from_slice(&bytes);
    }

    /// Empties it for the next block.
    pub(super) fn clear(&mut self) {
        self.keys.clear();
        self.values.clear();
        self.restarts.clear();
        self.hashes.clear();
        self.last_key.clear();
        self.count = 0;
    }

    /// The hash index; empty where it would not save a search, or cannot name the restart points.
    fn buckets(&self) -> Vec<u8> {
        let count = self.hashes.len() * 4 / 3;
        if self.restarts.len() < 2
            || self.restarts.len() > MAX_HASHED_RESTARTS
            || count > MAX_BUCKETS
        {
            return Vec::new();
        }
        let count_u32 = u32::try_from(count).expect("at most MAX_BUCKETS");
        let mut buckets = vec![ABSENT; count];
        for &(hash, interval) in &self.hashes {
            let interval = u8::try_from(interval).expect("at most MAX_HASHED_RESTARTS");
            let bucket = &mut buckets[scale(hash, count_u32)];
            *bucket = if *bucket == ABSENT || *bucket == interval {
                interval
            } else {
                COLLISION
            };
        }
        buckets
    }
}

/// Most bytes an entry takes beyond its key and value.
pub(super) const ENTRY_OVERHEAD: usize = 3 * 5 + TRAILER_LEN;

fn len_u32(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("a block is shorter than 4 GiB")
}
