//! A log in memory: for tests, benches, and as the model of what a storage does.

use basalt_proto::eraftpb::{ConfState, Entry, HardState, Snapshot, SnapshotMetadata};
use bytes::Bytes;

use super::{InitialState, Storage};
use crate::{StorageError, message::limit_size};

/// A log in memory. Cloning copies it (payloads are shared).
#[derive(Clone, Debug, Default)]
pub struct MemStorage {
    hard_state: HardState,
    snapshot: Snapshot,
    /// Index and term of the last compacted entry.
    compacted: (u64, u64),
    /// Contiguous, from `compacted.0 + 1` on.
    entries: Vec<Entry>,
}

impl MemStorage {
    /// A new log.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A new log of a group whose voters are `ids`.
    #[must_use]
    pub fn with_voters(ids: &[u64]) -> Self {
        let mut storage = Self::new();
        storage.set_conf_state(ConfState {
            nodes: ids.to_vec(),
            ..ConfState::default()
        });
        storage
    }

    fn metadata(&self) -> SnapshotMetadata {
        self.snapshot.metadata.clone().unwrap_or_default()
    }

    fn last(&self) -> u64 {
        self.compacted.0 + self.entries.len() as u64
    }

    /// Where the entry at `index`, which is there, lies.
    fn place(&self, index: u64) -> usize {
        usize::try_from(index - self.compacted.0 - 1).expect("entries in memory")
    }

    /// Sets the membership without a change of index: only for a log that was not used.
    pub fn set_conf_state(&mut self, conf_state: ConfState) {
        let mut metadata = self.metadata();
        metadata.conf_state = Some(conf_state);
        self.snapshot.metadata = Some(metadata);
    }

    /// Replaces term, vote and commit index.
    pub fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    /// Term, vote and commit index.
    #[must_use]
    pub fn hard_state(&self) -> &HardState {
        &self.hard_state
    }

    /// Appends entries, which replace everything from the first one's index on. Those that are
    /// compacted are skipped.
    ///
    /// # Panics
    ///
    /// Where the entries would leave a gap behind the log.
    pub fn append(&mut self, mut entries: Vec<Entry>) {
        let Some(first) = entries.first().map(|entry| entry.index) else {
            return;
        };
        assert!(
            first <= self.last() + 1,
            "entries from {first} on leave a gap behind {}",
            self.last()
        );
        if first <= self.compacted.0 {
            entries.retain(|entry| entry.index > self.compacted.0);
            let Some(first) = entries.first() else {
                return;
            };
            debug_assert_eq!(first.index, self.compacted.0 + 1);
            self.entries.clear();
        } else {
            self.entries.truncate(self.place(first));
        }
        if self.entries.is_empty() {
            self.entries = entries;
        } else {
            self.entries.append(&mut entries);
        }
    }

    /// Replaces the log by a snapshot.
    ///
    /// # Errors
    ///
    /// [`StorageError::SnapshotOutOfDate`] where the present one is not older, or the log is
    /// compacted further.
    pub fn apply_snapshot(&mut self, snapshot: Snapshot) -> Result<(), StorageError> {
        let metadata = snapshot.metadata.clone().unwrap_or_default();
        if metadata.index <= self.metadata().index || metadata.index < self.compacted.0 {
            return Err(StorageError::SnapshotOutOfDate);
        }
        self.compacted = (metadata.index, metadata.term);
        self.entries.clear();
        self.snapshot = snapshot;
        Ok(())
    }

    /// Makes a snapshot at `index`, an applied one, without compacting. The membership stays that of
    /// the snapshot before where `conf_state` is `None`.
    ///
    /// # Errors
    ///
    /// [`StorageError::SnapshotOutOfDate`] where the present one is not older, and what `term` says
    /// for `index`.
    pub fn create_snapshot(
        &mut self,
        index: u64,
        conf_state: Option<ConfState>,
        data: Bytes,
    ) -> Result<Snapshot, StorageError> {
        let present = self.metadata();
        if index <= present.index {
            return Err(StorageError::SnapshotOutOfDate);
        }
        let metadata = SnapshotMetadata {
            conf_state: conf_state.or(present.conf_state),
            index,
            term: self.term(index)?,
        };
        self.snapshot = Snapshot {
            data,
            metadata: Some(metadata),
        };
        Ok(self.snapshot.clone())
    }

    /// Drops the entries up to `index`, an applied one.
    ///
    /// # Errors
    ///
    /// [`StorageError::Compacted`] where they are dropped already, [`StorageError::Unavailable`]
    /// where the log does not reach that far.
    pub fn compact(&mut self, index: u64) -> Result<(), StorageError> {
        if index <= self.compacted.0 {
            return Err(StorageError::Compacted);
        }
        let term = self.term(index)?;
        self.entries.drain(..=self.place(index));
        self.compacted = (index, term);
        Ok(())
    }
}

impl Storage for MemStorage {
    fn initial_state(&self) -> Result<InitialState, StorageError> {
        Ok(InitialState {
            hard_state: self.hard_state,
            conf_state: self.metadata().conf_state.unwrap_or_default(),
        })
    }

    fn entries(&self, low: u64, high: u64, max_bytes: u64) -> Result<Vec<Entry>, StorageError> {
        if low <= self.compacted.0 {
            return Err(StorageError::Compacted);
        }
        if high > self.last() + 1 {
            return Err(StorageError::Unavailable);
        }
        if low >= high {
            return Ok(Vec::new());
        }
        let range = &self.entries[self.place(low)..=self.place(high - 1)];
        let mut entries = range.to_vec();
        limit_size(&mut entries, max_bytes);
        Ok(entries)
    }

    fn term(&self, index: u64) -> Result<u64, StorageError> {
        if index == self.compacted.0 {
            Ok(self.compacted.1)
        } else if index < self.compacted.0 {
            Err(StorageError::Compacted)
        } else if index > self.last() {
            Err(StorageError::Unavailable)
        } else {
            Ok(self.entries[self.place(index)].term)
        }
    }

    fn first_index(&self) -> Result<u64, StorageError> {
        Ok(self.compacted.0 + 1)
    }

    fn last_index(&self) -> Result<u64, StorageError> {
        Ok(self.last())
    }

    fn snapshot(&self, _to: u64) -> Result<Snapshot, StorageError> {
        if self.metadata().index < self.compacted.0 {
            // The log does not go on behind it: whoever compacts has to make a newer one.
            return Err(StorageError::SnapshotTemporarilyUnavailable);
        }
        Ok(self.snapshot.clone())
    }
}
