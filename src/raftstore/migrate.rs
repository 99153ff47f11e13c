//! Entries of a raftdb written before there were append families: moved once, by the first open.
//!
//! They stand in the plain family `log`, under the same keys. As long as it is there it is the only truth, and nothing
//! writes to it; what `entries` has of its regions is an attempt that did not end. It is dropped when everything is
//! copied, compared and synced, by one edit of the manifest. So a crash at any moment leaves one of the two whole
//! (docs/adr/0012).
//!
//! A region that the old family does not have is left alone.

use basalt_engine::{ColumnFamily, Db, ReadOptions, WriteBatch, WriteOptions};

use crate::{
    Error, Result,
    faults::{Fault, Faults},
    keys::{self, Key},
};

/// The family of before.
const OLD: &str = "log";
/// Bytes of entries that are copied with one write; one entry may have more.
const BATCH_BYTES: usize = 1 << 20;

/// Moves what `raft` has in the family of before, if it has one, to `log`.
///
/// # Errors
///
/// [`Error::Corruption`] for a log with a hole, and for what is none; [`Error::Engine`]. The family of before is whole
/// then, and another try begins anew.
pub(crate) fn entries(raft: &Db, log: &ColumnFamily, faults: Faults) -> Result<()> {
    let Ok(old) = raft.cf(OLD) else {
        return Ok(());
    };
    let mut copy = Copy {
        raft,
        log,
        batch: WriteBatch::new(),
        region: None,
        run: Vec::new(),
        bytes: 0,
    };
    let mut iter = raft.iter(&old, &ReadOptions::default())?;
    iter.seek_to_first()?;
    while iter.valid() {
        let key = Key::decode(iter.key());
        // The last index there can be has no range behind it.
        let is_below = |key: &Key| {
            !matches!(
                key,
                Key::Log {
                    index: u64::MAX,
                    ..
                }
            )
        };
        let Some(Key::Log { region, index }) = key.filter(is_below) else {
            let what = format!(
                "the key \"{}\" in the family {OLD:?} of raftdb is that of no entry",
                iter.key().escape_ascii()
            );
            return Err(Error::corruption(0, what));
        };
        copy.take(region, index, iter.value())?;
        iter.next()?;
    }
    copy.end_region()?;
    // The edit that drops the family may not be durable before what it makes the only copy.
    if !faults.is(Fault::MigrationUnsynced) {
        raft.sync()?;
    }
    raft.drop_cf(&old)?;
    Ok(())
}

/// Entries on their way to the append family.
struct Copy<'a> {
    raft: &'a Db,
    log: &'a ColumnFamily,
    batch: WriteBatch,
    /// The region that is being copied, and the indexes that were taken.
    region: Option<(u64, std::ops::Range<u64>)>,
    /// Its last entries, which are not in a batch yet.
    run: Vec<Vec<u8>>,
    /// Bytes in the batch and the run.
    bytes: usize,
}

impl Copy<'_> {
    fn take(&mut self, region: u64, index: u64, entry: &[u8]) -> Result<()> {
        match &mut self.region {
            Some((known, range)) if *known == region => {
                if index != range.end {
                    let what = format!("no entry at index {} of the log", range.end);
                    return Err(Error::corruption(region, what));
                }
                range.end += 1;
            }
            _ => {
                self.end_region()?;
                // What an attempt before has left.
                self.batch
                    .truncate_back(self.log, &keys::log_prefix(region), 0);
                self.region = Some((region, index..index + 1));
            }
        }
        self.run.push(entry.to_vec());
        self.bytes += entry.len();
        if self.bytes >= BATCH_BYTES {
            self.write()?;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        if let Some((region, range)) = &self.region
            && !self.run.is_empty()
        {
            let prefix = keys::log_prefix(*region);
            let first = range.end - self.run.len() as u64;
            self.batch.append(self.log, &prefix, first, &self.run);
            self.run.clear();
        }
        self.bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        self.raft.write(batch, WriteOptions::NO_SYNC)?;
        Ok(())
    }

    /// Writes the last of a region, and demands that all of it is there.
    fn end_region(&mut self) -> Result<()> {
        self.write()?;
        let Some((region, taken)) = self.region.take() else {
            return Ok(());
        };
        let there = self
            .raft
            .append_range(self.log, &keys::log_prefix(region))?;
        if there.as_ref() == Some(&taken) {
            return Ok(());
        }
        let what = format!("of the entries {taken:?} of before, {there:?} are there");
        Err(Error::corruption(region, what))
    }
}
