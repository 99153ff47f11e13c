//! A storage in memory whose power can be cut, right or with one mistake.
//!
//! It keeps the state of the last sync and what was done since; a loss of power keeps a prefix of
//! that, of writes and of steps of the state machine apart.

use std::ops::Range;

use bytes::Bytes;

use super::{
    super::{
        conformance::{PowerLoss, Subject, Write},
        *,
    },
    parts::{Parts, index_of},
};
use crate::NO_LIMIT;

/// What is wrong with a storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mistake {
    // Reading.
    EntriesStartOneLate,
    EntriesGoOneFurther,
    LimitIgnored,
    LimitExcluded,
    LimitMayGiveNothing,
    BaseTermForgotten,
    BaseTermZero,
    AboveIsCompacted,
    BelowIsUnavailable,
    BelowIsServed,
    EmptyLogEndsAtZero,
    SnapshotNeverRenewed,
    LearnersForgotten,
    KindForgotten,
    PayloadCut,
    NeverReady,
    // Writing.
    TailKept,
    TruncatesOneMore,
    OldWriteMovesTheStart,
    SnapshotKeepsWhatIsBehind,
    OldSnapshotTaken,
    RefusedWriteHalfDone,
    MembershipNotTaken,
    VoteResetByEntries,
    CommitForgotten,
    CompactsOneMore,
    CompactsTwice,
    // Losing power.
    HardStateNeverSynced,
    EntriesNeverSynced,
    SnapshotNeverSynced,
    CompactionNeverSynced,
    SyncComesLate,
    HoleLeft,
    WriteHalfLeft,
    VoteOfAnotherTerm,
    ReplacedTailReturns,
    FoundAndLost,
}

use Mistake as M;

/// What was done since the last sync.
#[derive(Clone)]
enum Done {
    Write(Write),
    Snapshot(u64, ConfState, Bytes),
    Compaction(u64),
}

/// A log that answers, perhaps wrongly.
#[derive(Clone)]
pub(super) struct Reader {
    log: MemStorage,
    mistake: Option<Mistake>,
}

impl Reader {
    fn is(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }

    fn range(&self) -> Range<u64> {
        let first = self.log.first_index().expect("memory");
        first..self.log.last_index().expect("memory") + 1
    }
}

impl Storage for Reader {
    fn initial_state(&self) -> Result<InitialState, StorageError> {
        let mut state = self.log.initial_state()?;
        if self.is(M::LearnersForgotten) {
            state.conf_state.learners.clear();
        }
        Ok(state)
    }

    fn entries(&self, low: u64, high: u64, max_bytes: u64) -> Result<Vec<Entry>, StorageError> {
        let Range { start, end } = self.range();
        let entries = match self.mistake {
            Some(M::EntriesStartOneLate) if start <= low && low + 1 < high => {
                self.log.entries(low + 1, high, max_bytes)
            }
            Some(M::EntriesGoOneFurther) if high < end => {
                self.log.entries(low, high + 1, max_bytes)
            }
            Some(M::LimitIgnored) => self.log.entries(low, high, NO_LIMIT),
            Some(M::LimitExcluded) => self.log.entries(low, high, max_bytes.saturating_sub(1)),
            Some(M::AboveIsCompacted) if high > end => Err(StorageError::Compacted),
            Some(M::BelowIsUnavailable) if low < start => Err(StorageError::Unavailable),
            Some(M::BelowIsServed) if low < start && high <= end => {
                self.log.entries(start, high.max(start), max_bytes)
            }
            Some(M::NeverReady) if start <= low && low < high && high <= end => {
                Err(StorageError::LogTemporarilyUnavailable)
            }
            _ => self.log.entries(low, high, max_bytes),
        };
        let mut entries = entries?;
        let too_large = |entry: &Entry| crate::entry_size(entry) > max_bytes;
        if self.is(M::LimitMayGiveNothing) && entries.first().is_some_and(too_large) {
            entries.clear();
        }
        for entry in &mut entries {
            if self.is(M::KindForgotten) {
                entry.entry_type = 0;
            }
            if self.is(M::PayloadCut) {
                entry.data.truncate(1 << 16);
            }
        }
        Ok(entries)
    }

    fn term(&self, index: u64) -> Result<u64, StorageError> {
        let Range { start, end } = self.range();
        match self.mistake {
            Some(M::BaseTermForgotten) if index > 0 && index == start - 1 => {
                Err(StorageError::Compacted)
            }
            Some(M::BaseTermZero) if index == start - 1 => Ok(0),
            Some(M::AboveIsCompacted) if index >= end => Err(StorageError::Compacted),
            Some(M::BelowIsUnavailable) if index < start - 1 => Err(StorageError::Unavailable),
            _ => self.log.term(index),
        }
    }

    fn first_index(&self) -> Result<u64, StorageError> {
        self.log.first_index()
    }

    fn last_index(&self) -> Result<u64, StorageError> {
        if self.is(M::EmptyLogEndsAtZero) && self.range().is_empty() {
            return Ok(0);
        }
        self.log.last_index()
    }

    fn snapshot(&self, to: u64) -> Result<Snapshot, StorageError> {
        if self.is(M::SnapshotNeverRenewed) {
            return Ok(Snapshot::default());
        }
        self.log.snapshot(to)
    }
}

/// A storage whose power can be cut.
pub(super) struct Disk {
    pub(super) reader: Reader,
    /// As of the last sync.
    synced: MemStorage,
    /// As of the sync before.
    synced_before: MemStorage,
    since: Vec<Done>,
}

impl Disk {
    pub(super) fn new(conf_state: &ConfState, mistake: Option<Mistake>) -> Self {
        let mut log = MemStorage::new();
        log.set_conf_state(conf_state.clone());
        Self {
            synced: log.clone(),
            synced_before: log.clone(),
            reader: Reader { log, mistake },
            since: Vec::new(),
        }
    }

    pub(super) fn log(&mut self) -> &mut MemStorage {
        &mut self.reader.log
    }

    /// Changes the log part by part.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut Parts)) {
        let mut parts = Parts::of(&self.reader.log);
        change(&mut parts);
        self.reader.log = parts.build();
    }

    fn write_snapshot(&mut self, write: &Write) -> Result<(), StorageError> {
        let Some(snapshot) = write.snapshot.clone() else {
            return Ok(());
        };
        let before = Parts::of(&self.reader.log);
        let index = index_of(&snapshot);
        let result = self.log().apply_snapshot(snapshot.clone());
        match self.reader.mistake {
            Some(M::OldSnapshotTaken) if result.is_err() => {
                let metadata = snapshot.metadata.unwrap_or_default();
                self.change(|parts| {
                    parts.base = (metadata.index, metadata.term);
                    parts.entries.clear();
                });
                return Ok(());
            }
            Some(M::RefusedWriteHalfDone) if result.is_err() => {
                self.log()
                    .set_hard_state(write.hard_state.unwrap_or_default());
            }
            Some(M::SnapshotKeepsWhatIsBehind) if result.is_ok() => {
                let behind = before.entries.into_iter().filter(|e| e.index > index);
                self.log().append(behind.collect());
            }
            Some(M::MembershipNotTaken) if result.is_ok() => {
                self.change(|parts| parts.conf_state = before.conf_state);
            }
            _ => {}
        }
        result
    }

    fn write_hard_state(&mut self, write: &Write) {
        let present = *self.reader.log.hard_state();
        let mut hard_state = write.hard_state.unwrap_or(present);
        match self.reader.mistake {
            Some(M::CommitForgotten) => hard_state.commit = 0,
            Some(M::VoteResetByEntries) if write.hard_state.is_none() => hard_state.vote = 0,
            _ => {}
        }
        self.log().set_hard_state(hard_state);
    }

    fn write_entries(&mut self, mut entries: Vec<Entry>) {
        let Some(first) = entries.first().map(|entry| entry.index) else {
            return;
        };
        let Range { start, end } = self.reader.range();
        match self.reader.mistake {
            Some(M::TailKept) => {
                let last = first + entries.len() as u64 - 1;
                let tail = self
                    .reader
                    .log
                    .entries((last + 1).max(start), end, NO_LIMIT);
                entries.extend(tail.unwrap_or_default());
            }
            Some(M::TruncatesOneMore) if first > start && first < end => {
                self.change(|parts| parts.entries.retain(|entry| entry.index + 1 < first));
                // A log without a gap, in which one entry is a copy of the one behind it.
                let mut copy = entries[0].clone();
                copy.index -= 1;
                entries.insert(0, copy);
            }
            Some(M::OldWriteMovesTheStart) if first < start && first > 1 => {
                let term = entries[0].term;
                self.change(|parts| {
                    parts.base = (first - 1, term);
                    parts.entries.clear();
                });
            }
            _ => {}
        }
        self.log().append(entries);
    }

    fn do_again(&mut self, done: Done) {
        let result = match done {
            Done::Write(write) => {
                self.write_hard_state(&write);
                let result = self.write_snapshot(&write);
                self.write_entries(write.entries);
                result
            }
            Done::Snapshot(index, conf_state, data) => {
                let made = self.log().create_snapshot(index, Some(conf_state), data);
                made.map(|_| ())
            }
            Done::Compaction(index) => self.log().compact(index),
        };
        // With a mistake it need not go well again.
        assert!(result.is_ok() || self.reader.mistake.is_some());
    }
}

impl Subject for Disk {
    type Storage = Reader;

    fn storage(&self) -> &Reader {
        &self.reader
    }

    fn write(&mut self, write: Write) -> Result<(), StorageError> {
        self.write_snapshot(&write)?;
        self.write_hard_state(&write);
        self.write_entries(write.entries.clone());
        self.since.push(Done::Write(write));
        Ok(())
    }

    fn make_snapshot(
        &mut self,
        index: u64,
        conf_state: &ConfState,
        data: Bytes,
    ) -> Result<(), StorageError> {
        self.log()
            .create_snapshot(index, Some(conf_state.clone()), data.clone())?;
        self.since
            .push(Done::Snapshot(index, conf_state.clone(), data));
        Ok(())
    }

    fn compact(&mut self, index: u64) -> Result<(), StorageError> {
        match self.log().compact(index) {
            Err(StorageError::Compacted) if self.reader.is(M::CompactsTwice) => return Ok(()),
            result => result?,
        }
        let snapshot = self.reader.log.snapshot(1)?;
        if self.reader.is(M::CompactsOneMore) && index < index_of(&snapshot) {
            self.log().compact(index + 1)?;
        }
        self.since.push(Done::Compaction(index));
        Ok(())
    }
}

impl PowerLoss for Disk {
    fn sync(&mut self) {
        let latest = self.reader.log.clone();
        self.synced_before = std::mem::replace(&mut self.synced, latest);
        self.since.clear();
    }

    fn lose_power(&mut self, fate: u64) {
        let since = std::mem::take(&mut self.since);
        let is_write = |done: &&Done| matches!(done, Done::Write(_));
        let writes = since.iter().filter(is_write).count() as u64;
        let others = since.len() as u64 - writes;
        let mut left = (fate % (writes + 1), (fate >> 32) % (others + 1));
        let before = Parts::of(&self.reader.log);
        self.reader.log = self.synced.clone();
        for done in since {
            let kept = match &done {
                Done::Write(_) => &mut left.0,
                Done::Snapshot(..) | Done::Compaction(_) => &mut left.1,
            };
            let keeps = *kept > 0;
            *kept = kept.saturating_sub(1);
            match done {
                done if keeps => self.do_again(done),
                // The write after the last one that is kept.
                Done::Write(write) if self.reader.is(M::WriteHalfLeft) => {
                    self.write_hard_state(&write);
                }
                Done::Write(write) if self.reader.is(M::HoleLeft) => {
                    let next = self.reader.range().end;
                    let first = write.entries.first().map_or(next, |entry| entry.index);
                    if first <= next && write.snapshot.is_none() && !fate.is_multiple_of(3) {
                        self.write_entries(write.entries);
                    }
                }
                _ => {}
            }
        }
        self.break_on_loss(&before, fate);
        if !self.reader.is(M::FoundAndLost) {
            self.synced = self.reader.log.clone();
        }
    }
}

impl Disk {
    /// What mistakes do when the power is lost.
    fn break_on_loss(&mut self, before: &Parts, fate: u64) {
        let synced = Parts::of(&self.synced);
        match self.reader.mistake {
            Some(M::HardStateNeverSynced) => self.log().set_hard_state(HardState::default()),
            Some(M::EntriesNeverSynced) => self.change(|parts| {
                let half = parts.entries.len() / 2;
                parts.entries.truncate(half);
            }),
            Some(M::SnapshotNeverSynced) => self.change(|parts| {
                if let Some(snapshot) = &mut parts.snapshot {
                    snapshot.data = Bytes::new();
                }
            }),
            Some(M::CompactionNeverSynced) => self.change(|parts| {
                if parts.base.0 > 1
                    && parts
                        .snapshot
                        .as_ref()
                        .is_some_and(|s| index_of(s) > parts.base.0)
                {
                    let entry = Entry {
                        index: parts.base.0,
                        term: parts.base.1,
                        ..Entry::default()
                    };
                    parts.entries.insert(0, entry);
                    parts.base.0 -= 1;
                }
            }),
            Some(M::SyncComesLate) if fate.is_multiple_of(2) => {
                self.reader.log = self.synced_before.clone();
            }
            Some(M::VoteOfAnotherTerm) => {
                let mut hard_state = synced.hard_state;
                hard_state.term = before.hard_state.term;
                self.log().set_hard_state(hard_state);
            }
            Some(M::ReplacedTailReturns) => {
                let end = self.reader.range().end;
                let tail = synced.entries.into_iter().filter(|e| e.index >= end);
                let tail: Vec<Entry> = tail.collect();
                if tail.first().is_some_and(|first| first.index == end) {
                    self.log().append(tail);
                }
            }
            _ => {}
        }
    }
}
