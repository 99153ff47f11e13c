//! What the benches share: keys, values, and stores. Stores in a known shape are in `runs`.
//!
//! Keys are 16 bytes, a bijective mix of their index, so that index order is random key order. Values are 100 bytes,
//! half of them compressible. Every read that a bench times is checked.

use basalt_engine::{CfOptions, ColumnFamily, Db, Options, Result};
use tempfile::TempDir;

/// Bytes of a value.
pub(crate) const VALUE_LEN: usize = 100;

/// The key of an index: 16 bytes, spread over the whole key space.
pub(crate) fn key(index: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&mix(index).to_be_bytes());
    key[8..].copy_from_slice(&index.to_be_bytes());
    key
}

/// The value of an index: its first half is noise, its second half repeats it.
pub(crate) fn value(index: u64) -> [u8; VALUE_LEN] {
    let mut value = [0; VALUE_LEN];
    let (noise, rest) = value.split_at_mut(VALUE_LEN / 2);
    for (at, chunk) in noise.chunks_mut(8).enumerate() {
        let bytes = mix(index ^ (at as u64) << 56).to_le_bytes();
        chunk.copy_from_slice(&bytes[..chunk.len()]);
    }
    rest.copy_from_slice(noise);
    value
}

/// A bijection of 64 bits (the finaliser of SplitMix64).
pub(crate) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// An open database in a directory of its own.
pub(crate) struct Store {
    pub(crate) db: Db,
    pub(crate) cf: ColumnFamily,
    _dir: TempDir,
}

impl Store {
    /// An empty store. Compaction waits, so that the shape stays as it is made.
    pub(crate) fn empty(options: CfOptions) -> Result<Self> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let db = Db::open(dir.path(), Options::default())?;
        let cf = db.open_cf("bench", options)?;
        Ok(Self { db, cf, _dir: dir })
    }
}
