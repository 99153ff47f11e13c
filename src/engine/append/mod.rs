//! The append family: a family whose store is the log itself (docs/adr/0009).
//!
//! Here: the state of one such family. `batch` and `delta` are its operations before and after they have their
//! place in the log, `index` says where entries stand, `tail` has the newest in memory, `segment` and `fetch` read the others, `iter` and `read` are for readers,
//! `release` sees to it that the log gets shorter.
//!
//! There are two states. *Submitted*: the indexes of each prefix after everything that has a place in the log;
//! it is what gaps are checked against. *Published*: the index that readers see. Both change under the commit
//! queue's mutex, which comes before the locks in here.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use crate::{
    batch::{FamilyId, Operation},
    error::{Error, Result},
    key::SequenceNumber,
};

mod batch;
mod chunk;
mod delta;
mod fetch;
mod index;
mod iter;
pub(crate) mod pack;
mod read;
mod release;
mod rewrite;
mod segment;
mod tail;
pub mod testing;

pub(crate) use batch::{AppendKind, AppendOp, Span};
pub(crate) use delta::Delta;
pub(crate) use fetch::{LogReader, Place};
pub(crate) use index::{Entry, Form, Index, PrefixLog, Sizes, Tag};
pub(crate) use iter::AppendIter;
pub(crate) use read::View;
pub(crate) use release::Appends;
pub(crate) use segment::{Ledger, LogBytes, LogSegment, Segments, ValueCrc};
pub(crate) use tail::{Kept, Tail};

/// Bytes of the index at the end of a key.
pub(crate) const INDEX_LEN: usize = 8;

/// What an append family keeps in memory.
#[derive(Debug)]
pub(crate) struct AppendFamily {
    id: FamilyId,
    prefix_bytes: usize,
    submitted: Mutex<HashMap<Box<[u8]>, Submitted>>,
    published: RwLock<Published>,
}

#[derive(Debug, Default)]
pub(crate) struct Published {
    index: Index,
    /// The last operation in it. Until its batch is visible in every family, readers wait a moment.
    seq: SequenceNumber,
    /// The family was dropped: what is still on its way comes to nothing.
    closed: bool,
}

/// One prefix as everything that has a place in the log leaves it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Submitted {
    /// Indexes of its entries; 0..0 without any.
    range: Range<u64>,
    /// Operations that are not published yet.
    pending: u32,
    /// Lowest index that one of those cut off or replaced, with all above; `u64::MAX`: none.
    low: u64,
}

impl Default for Submitted {
    fn default() -> Self {
        Self {
            range: 0..0,
            pending: 0,
            low: u64::MAX,
        }
    }
}

impl Submitted {
    /// Moves on by one operation; `Err` where it would leave a gap.
    fn apply(&mut self, kind: AppendKind, first: u64, count: u64) -> Result<(), String> {
        let Range { start, end } = self.range;
        let is_empty = start == end;
        match kind {
            AppendKind::Append => {
                if !is_empty && first > end {
                    return Err(format!(
                        "an append from {first} on would leave a gap behind {}",
                        end - 1
                    ));
                }
                self.low = self.low.min(first);
                let start = if is_empty { first } else { start.min(first) };
                self.range = start..first + count;
            }
            AppendKind::TruncateFront if first > start => self.range.start = first.min(end),
            AppendKind::TruncateBack => {
                self.low = self.low.min(first);
                self.range.end = end.min(first.max(start));
            }
            AppendKind::TruncateFront | AppendKind::Rewrite => {}
        }
        if self.range.is_empty() {
            self.range = 0..0;
        }
        self.pending += 1;
        Ok(())
    }
}

impl AppendFamily {
    pub(crate) fn new(id: FamilyId, prefix_bytes: usize) -> Self {
        Self {
            id,
            prefix_bytes,
            submitted: Mutex::default(),
            published: RwLock::default(),
        }
    }

    /// Bytes of its keys before the index.
    pub(crate) fn prefix_bytes(&self) -> usize {
        self.prefix_bytes
    }

    /// The checksum that values under `prefix` begin with.
    pub(crate) fn value_crc(&self, prefix: &[u8]) -> ValueCrc {
        ValueCrc::new(self.id, prefix)
    }

    /// Prefix and index of a key; `None` for one that no entry can have.
    pub(crate) fn split<'k>(&self, key: &'k [u8]) -> Option<(&'k [u8], u64)> {
        let (prefix, index) = key.split_at_checked(self.prefix_bytes)?;
        Some((prefix, u64::from_be_bytes(index.try_into().ok()?)))
    }

    fn lock_submitted(&self) -> MutexGuard<'_, HashMap<Box<[u8]>, Submitted>> {
        self.submitted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> RwLockReadGuard<'_, Published> {
        self.published
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Published> {
        self.published
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the submitted state by one operation; under the commit lock. Answers what was before.
    fn submit(
        &self,
        prefix: &[u8],
        kind: AppendKind,
        first: u64,
        count: u64,
    ) -> Result<Option<Submitted>> {
        let mut submitted = self.lock_submitted();
        let refused = |what: String| {
            let prefix = prefix.escape_ascii();
            Error::invalid(format!("prefix \"{prefix}\": {what}"))
        };
        if let Some(state) = submitted.get_mut(prefix) {
            let before = state.clone();
            state.apply(kind, first, count).map_err(refused)?;
            return Ok(Some(before));
        }
        let mut state = Submitted::default();
        state.apply(kind, first, count).map_err(refused)?;
        submitted.insert(prefix.into(), state);
        Ok(None)
    }

    /// Takes an operation back that was the last one submitted under its prefix.
    fn unsubmit(&self, prefix: &[u8], before: Option<Submitted>) {
        let mut submitted = self.lock_submitted();
        match before {
            Some(before) => {
                submitted.insert(prefix.into(), before);
            }
            None => {
                submitted.remove(prefix);
            }
        }
    }

    /// An operation is published.
    fn settle(&self, prefix: &[u8]) {
        let mut submitted = self.lock_submitted();
        let Some(state) = submitted.get_mut(prefix) else {
            return;
        };
        state.pending -= 1;
        if state.pending == 0 {
            state.low = u64::MAX;
            if state.range.is_empty() {
                submitted.remove(prefix);
            }
        }
    }

    /// Takes an operation as the log has it, during recovery; `payload` is the log position of its batch.
    pub(crate) fn replay(
        &self,
        operation: &Operation<'_>,
        seq: SequenceNumber,
        payload: u64,
    ) -> Result<(), &'static str> {
        let (Operation::Append { prefix, .. }
        | Operation::AppendPacked { prefix, .. }
        | Operation::TruncateFront { prefix, .. }
        | Operation::TruncateBack { prefix, .. }
        | Operation::Rewrite { prefix, .. }) = *operation
        else {
            return Err("a plain write to an append family");
        };
        if prefix.len() != self.prefix_bytes {
            return Err("a prefix of another length than the family's");
        }
        let mut published = self.write();
        let nobody = &mut |_| {};
        published.index.change(prefix, |log| match *operation {
            Operation::Append { first, values, .. } => {
                log.cut_back(first, nobody);
                for (value, index) in values.iter().zip(first..) {
                    let pos = payload + value.at as u64;
                    log.push(index, Entry::new(seq, pos, Tag::plain(value.bytes.len())));
                }
            }
            Operation::AppendPacked { first, block, .. } => {
                log.cut_back(first, nobody);
                for (tag, index) in block.tags().zip(first..) {
                    log.push(index, Entry::new(seq, payload + block.at as u64, tag));
                }
            }
            Operation::Rewrite { first, values, .. } => {
                for (value, index) in values.iter().zip(first..) {
                    let pos = payload + value.at as u64;
                    let entry = Entry::new(value.seq, pos, Tag::plain(value.bytes.len()));
                    // What stands there and is newer wins; there is no such record of a right writer.
                    let _ = log.put(index, entry, |old| old.seq() <= value.seq);
                }
            }
            Operation::TruncateFront { index, .. } => log.cut_front(index, nobody),
            Operation::TruncateBack { index, .. } => log.cut_back(index, nobody),
            _ => {}
        });
        Ok(())
    }

    /// After replay: checks that nothing is missing, and counts the entries where they stand.
    pub(crate) fn recovered(&self, segments: &Segments) -> Result<(), String> {
        let published = self.read();
        let mut submitted = self.lock_submitted();
        let mut ledger = Ledger::new(segments);
        for (prefix, log) in published.index.items() {
            if !log.is_contiguous() {
                return Err(missing(prefix, log));
            }
            log.entries().for_each(|(_, entry)| ledger.add(entry));
            let state = Submitted {
                range: log.range(),
                ..Submitted::default()
            };
            submitted.insert(prefix.as_ref().into(), state);
        }
        Ok(())
    }

    /// After replay, for those who only check: that nothing is missing.
    pub(crate) fn check(&self) -> Result<(), String> {
        let published = self.read();
        let mut holed = published
            .index
            .items()
            .filter(|(_, log)| !log.is_contiguous());
        holed
            .next()
            .map_or(Ok(()), |(prefix, log)| Err(missing(prefix, log)))
    }

    /// After replay: each prefix that has entries missing, and where its last run of entries begins.
    pub(crate) fn broken(&self) -> Vec<(Box<[u8]>, u64)> {
        let published = self.read();
        let holed = published.index.items();
        let holed = holed.filter(|(_, log)| !log.is_contiguous());
        let last_run = |log: &PrefixLog| {
            let mut run = (0, None);
            for (index, _) in log.entries() {
                if run.1 != Some(index) {
                    run.0 = index;
                }
                run.1 = Some(index + 1);
            }
            run.0
        };
        holed
            .map(|(prefix, log)| (prefix.as_ref().into(), last_run(log)))
            .collect()
    }

    /// Lets go of everything, because the family was dropped; under the commit lock. Answers what there was.
    pub(crate) fn close(&self, segments: &Segments) -> Index {
        let mut published = self.write();
        published.closed = true;
        let index = std::mem::take(&mut published.index);
        let mut ledger = Ledger::new(segments);
        for (_, log) in index.items() {
            log.entries().for_each(|(_, entry)| ledger.remove(entry));
        }
        drop(published);
        self.lock_submitted().clear();
        index
    }

    /// Indexes under `prefix`, from the first to behind the last; and the last operation that this is after.
    pub(crate) fn range(&self, prefix: &[u8]) -> (Option<Range<u64>>, SequenceNumber) {
        let published = self.read();
        let range = published.index.get(prefix).map(PrefixLog::range);
        (range, published.seq)
    }

    /// Where an entry stands; and the last operation that this is after.
    pub(crate) fn entry(&self, prefix: &[u8], index: u64) -> (Option<Entry>, SequenceNumber) {
        let published = self.read();
        let log = published.index.get(prefix);
        (log.and_then(|log| log.get(index)), published.seq)
    }

    /// What the index holds.
    pub(crate) fn sizes(&self) -> Sizes {
        // Counted on a view: publication does not wait for it.
        let view = self.read().index.clone();
        view.sizes()
    }
}

fn missing(prefix: &[u8], log: &PrefixLog) -> String {
    let prefix = prefix.escape_ascii();
    format!(
        "entries are missing under prefix \"{prefix}\", whose indexes are {:?}",
        log.range()
    )
}

#[cfg(test)]
mod tail_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod thread_tests;
