//! What the benches share: keys, values, and stores in a known shape.
//!
//! Keys are 16 bytes, a bijective mix of their index, so that index order is random key order. Values are 100 bytes,
//! half of them compressible. Every read that a bench times is checked.

use basalt_engine::{CfOptions, ColumnFamily, Db, Options, Result, WriteBatch, WriteOptions};
use tempfile::TempDir;

/// Bytes of a value.
pub(crate) const VALUE_LEN: usize = 100;

/// Entries of the stores; few with `--test`, which only checks that the benches run.
pub(crate) fn entries() -> u64 {
    if std::env::args().any(|arg| arg == "--test") {
        2_000
    } else {
        200_000
    }
}

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

    /// A store whose entries lie in `runs` sorted runs that all overlap: L0 tables.
    pub(crate) fn with_runs(runs: u64) -> Result<Self> {
        let never = usize::from(u16::MAX);
        let store = Self::empty(CfOptions {
            l0_compaction_trigger: never,
            l0_slowdown_trigger: never,
            l0_stop_trigger: never,
            ..CfOptions::default()
        })?;
        for run in 0..runs {
            store.load((0..entries()).filter(|index| index % runs == run))?;
            store.db.flush(&store.cf)?;
        }
        let levels = store
            .db
            .stats()
            .families
            .iter()
            .find(|f| f.name == "bench")
            .map(|f| f.levels);
        assert_eq!(
            levels.map(|levels| levels[0].tables as u64),
            Some(runs),
            "runs of the store"
        );
        Ok(store)
    }

    /// Writes the entries of `indexes` in batches.
    pub(crate) fn load(&self, indexes: impl Iterator<Item = u64>) -> Result<()> {
        let mut batch = WriteBatch::new();
        for index in indexes {
            batch.put(&self.cf, &key(index), &value(index));
            if batch.len() == 1000 {
                self.db
                    .write(std::mem::take(&mut batch), WriteOptions::NO_SYNC)?;
            }
        }
        self.db.write(batch, WriteOptions::NO_SYNC).map(|_| ())
    }
}
