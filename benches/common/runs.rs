//! Stores in a known shape, for the benches that read.

use basalt_engine::{CfOptions, Result, WriteBatch, WriteOptions};

use crate::common::{Store, key, value};

/// Entries of the stores; few with `--test`, which only checks that the benches run.
pub(crate) fn entries() -> u64 {
    if std::env::args().any(|arg| arg == "--test") {
        2_000
    } else {
        200_000
    }
}

impl Store {
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
