//! `PeerStorage`: what one peer keeps, over both engines; the log that its Raft node reads.
//!
//! Memory follows each call at once; the disk follows when the caller writes the batches it has
//! collected. Duties of the caller, who drives a node:
//!
//! 1. [`PeerStorage::save`] puts a node's writes into a batch for raftdb. Collect those of all
//!    regions, submit once with sync, then send what waits for it, and call
//!    [`PeerStorage::published`]. If the write fails the store stops: memory is ahead of the disk.
//! 2. Apply committed entries that are durable here: data, apply state and a new region state in one
//!    kvdb batch; then [`PeerStorage::applied`].
//! 3. Now and then [`PeerStorage::compact_log`], into any batch for raftdb.
//! 4. While [`PeerStorage::pending_snapshot`] is there: wait for what was handed out to be applied
//!    before it, then bring its tables and [`PeerStorage::install`] it. After an open this comes before
//!    a node is made, whose applied index may not be below the log.
//!
//! Batches are written in the order in which they were filled.
//!
//! Not here: who drives, making and sending snapshots, and the data itself.

mod install;
pub(crate) mod life;
mod log;

pub use install::{Installation, Installed};

use std::{cell::Cell, collections::VecDeque};

use basalt_engine::{SequenceNumber, WriteBatch};
use basalt_raft::{
    InitialState, Storage, StorageError,
    eraftpb::{ConfState, Entry, HardState, Snapshot},
    tracker::Configuration,
};

use basalt_proto::{
    metapb::Region,
    raft_serverpb::{RaftApplyState, RaftLocalState, RaftTruncatedState},
};

use crate::{Engines, Error, Result, SaveNumber, cache::EntryCache, keys, states};

/// A region and the roles of its peers.
#[derive(Clone, Debug, PartialEq)]
pub struct Membership {
    /// Range, epoch and peers.
    pub region: Region,
    /// Who votes, who learns.
    pub conf_state: ConfState,
}

/// What was written to kvdb for entries that were applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The apply state that the batch had in it.
    pub state: RaftApplyState,
    /// The region, if the batch had a new region state in it.
    pub membership: Option<Membership>,
    /// What the write of the batch answered.
    pub seq: SequenceNumber,
}

/// What one peer keeps. See the module's text for the duties of its caller.
#[derive(Debug)]
pub struct PeerStorage {
    engines: Engines,
    region_id: u64,
    peer_id: u64,
    /// `None` in a peer that a message made, until its first snapshot is saved.
    membership: Option<Membership>,
    raft_state: RaftLocalState,
    apply_state: RaftApplyState,
    /// Saved, and not installed yet: the log and the membership are its, the data is older.
    pending: Option<Pending>,
    cache: EntryCache,
    /// The first index that raftdb may have an entry of.
    first_stored: u64,
    last_save: SaveNumber,
    /// Saves that are not published, and the first index that each touched.
    in_flight: VecDeque<(SaveNumber, u64)>,
    /// Truncated indexes whose apply state is not known to be flushed, by their kv writes.
    unflushed: VecDeque<(SequenceNumber, u64)>,
    /// Up to where the log may be deleted.
    flushed_truncated: u64,
    /// The last write that applied something.
    last_seq: SequenceNumber,
    /// Applied indexes and their kv writes, a sample.
    applied_at: VecDeque<(SequenceNumber, u64)>,
    /// A snapshot of this peer, for others.
    offered: Option<Snapshot>,
    /// Whom a snapshot is wanted for.
    wanted: Cell<Option<u64>>,
    reads: Cell<LogReads>,
}

/// Where entries came from that were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogReads {
    /// From memory.
    pub(crate) cached: u64,
    /// From raftdb.
    pub(crate) stored: u64,
}

/// Applied indexes that are remembered until they are flushed.
const MAX_APPLIED_SAMPLES: usize = 64;

/// A snapshot on its way into kvdb.
#[derive(Clone, Debug)]
struct Pending {
    snapshot: Snapshot,
    truncated: RaftTruncatedState,
    membership: Membership,
    /// The save that has it; `None` where it was found on disk.
    save: Option<SaveNumber>,
}

impl PeerStorage {
    /// The region.
    #[must_use]
    pub fn region_id(&self) -> u64 {
        self.region_id
    }

    /// The peer.
    #[must_use]
    pub fn peer_id(&self) -> u64 {
        self.peer_id
    }

    /// The region and its members, as the log's start says; `None` in a peer that waits for its first
    /// snapshot.
    #[must_use]
    pub fn membership(&self) -> Option<&Membership> {
        let pending = self.pending.as_ref().map(|pending| &pending.membership);
        pending.or(self.membership.as_ref())
    }

    /// How far the data is.
    #[must_use]
    pub fn apply_state(&self) -> &RaftApplyState {
        &self.apply_state
    }

    /// Term, vote and commit index.
    #[must_use]
    pub fn hard_state(&self) -> HardState {
        self.raft_state.hard_state.unwrap_or_default()
    }

    /// Bytes of entries in memory.
    #[must_use]
    pub fn cached_bytes(&self) -> usize {
        self.cache.bytes()
    }

    /// Index and term of what the log starts behind.
    fn truncated(&self) -> RaftTruncatedState {
        let pending = self.pending.as_ref().map(|pending| pending.truncated);
        pending.unwrap_or_else(|| states::truncated(&self.apply_state))
    }

    /// Up to where the log may be deleted: what a flushed apply state has truncated.
    #[must_use]
    pub fn flushed_truncated(&self) -> u64 {
        self.flushed_truncated
    }

    /// Up to where what is applied is known to be flushed: of the indexes that
    /// [`PeerStorage::compact_log`] has seen.
    #[must_use]
    pub fn flushed_applied(&self) -> u64 {
        let flushed = self.engines.kv.flushed_seq(&self.engines.local);
        let durable = self
            .applied_at
            .iter()
            .take_while(|(seq, _)| *seq <= flushed);
        durable.last().map_or(0, |(_, index)| *index)
    }

    /// Remembers what is applied now, to see later whether it is flushed. What is known to be flushed stays
    /// at the front.
    fn sample_applied(&mut self, flushed: SequenceNumber) {
        while self
            .applied_at
            .get(1)
            .is_some_and(|(seq, _)| *seq <= flushed)
        {
            self.applied_at.pop_front();
        }
        let now = (self.last_seq, self.apply_state.applied_index);
        if self.applied_at.back().is_some_and(|last| *last == now) {
            return;
        }
        if self.applied_at.len() >= MAX_APPLIED_SAMPLES {
            self.applied_at.pop_back();
        }
        self.applied_at.push_back(now);
    }

    /// Takes what is truncated for flushed: for tests that must notice it.
    #[doc(hidden)]
    pub fn pretend_flushed(&mut self) {
        self.flushed_truncated = states::truncated(&self.apply_state).index;
    }

    /// Takes note of saves up to `number`: reads of raftdb show them now. (A synced write is published
    /// when it is durable.)
    pub fn published(&mut self, number: SaveNumber) {
        while self
            .in_flight
            .pop_front_if(|(save, _)| *save <= number)
            .is_some()
        {}
        self.cache.shrink(self.unpublished());
    }

    /// The first index that raftdb may not show as it is.
    fn unpublished(&self) -> u64 {
        let touched = self.in_flight.iter().map(|(_, first)| *first);
        touched.min().unwrap_or(u64::MAX)
    }

    /// Takes note of entries that were applied.
    ///
    /// # Errors
    ///
    /// [`Error::Misuse`] for a state that moves back or beyond the log, or up to a pending snapshot.
    pub fn applied(&mut self, applied: Applied) -> Result<()> {
        let before = states::truncated(&self.apply_state);
        let now = states::truncated(&applied.state);
        let (from, to) = (self.apply_state.applied_index, applied.state.applied_index);
        // Entries that were handed out before a snapshot came are applied behind its save.
        if let Some(pending) = &self.pending
            && to >= pending.truncated.index
        {
            return Err(self.misuse(format!(
                "applied up to {to} before the snapshot at {} is installed",
                pending.truncated.index
            )));
        }
        if to < from || now.index < before.index || to > self.raft_state.last_index {
            return Err(self.misuse(format!(
                "applied from {from} to {to} of a log up to {}",
                self.raft_state.last_index
            )));
        }
        if now.index > to {
            return Err(self.misuse(format!("truncated at {}, applied up to {to}", now.index)));
        }
        self.apply_state = applied.state;
        self.last_seq = applied.seq;
        if let Some(membership) = applied.membership {
            self.membership = Some(membership);
            // Who asked may not be in the old one.
            self.offered = None;
        }
        if now.index > before.index {
            self.unflushed.push_back((applied.seq, now.index));
            self.cache.compact(now.index);
        }
        Ok(())
    }

    /// Index and term for the entry that is to truncate the log at `index`. Who applies it puts them into
    /// the apply state of its own batch, which is ahead of what is known here.
    ///
    /// # Errors
    ///
    /// [`StorageError::Compacted`] where that was done, [`StorageError::Unavailable`] for an index that
    /// is not applied.
    pub fn truncation_at(&self, index: u64) -> Result<RaftTruncatedState, StorageError> {
        if index <= self.truncated().index {
            return Err(StorageError::Compacted);
        }
        if index > self.apply_state.applied_index {
            return Err(StorageError::Unavailable);
        }
        let term = self.term(index)?;
        Ok(RaftTruncatedState { index, term })
    }

    /// How many entries are truncated and not deleted yet: kvdb is to be flushed where they grow many.
    #[must_use]
    pub fn held_back(&self) -> u64 {
        (self.truncated().index + 1).saturating_sub(self.first_stored)
    }

    /// Deletes entries that a flushed apply state has truncated; true if there were any. The batch is
    /// for raftdb and needs no sync.
    pub fn compact_log(&mut self, batch: &mut WriteBatch) -> bool {
        let flushed = self.engines.kv.flushed_seq(&self.engines.local);
        self.sample_applied(flushed);
        while let Some((_, index)) = self.unflushed.pop_front_if(|(seq, _)| *seq <= flushed) {
            self.flushed_truncated = index;
        }
        let end = self.flushed_truncated + 1;
        if self.first_stored >= end {
            return false;
        }
        batch.truncate_front(&self.engines.log, &keys::log_prefix(self.region_id), end);
        self.first_stored = end;
        true
    }

    /// Whom the node has asked a snapshot for since the last call, where there was none that fits: make
    /// one of the applied state, and [`PeerStorage::offer_snapshot`] it.
    pub fn take_snapshot_request(&self) -> Option<u64> {
        self.wanted.take()
    }

    /// Gives a snapshot of this peer's state, for others. It is handed out until the log is truncated
    /// above it, the membership changes, or it is withdrawn; to none who is not a member in it.
    pub fn offer_snapshot(&mut self, snapshot: Snapshot) {
        self.offered = Some(snapshot);
    }

    /// What is handed out.
    #[must_use]
    pub fn offered_snapshot(&self) -> Option<&Snapshot> {
        self.offered.as_ref()
    }

    /// The snapshot is not handed out any more: its files are to go.
    pub fn withdraw_snapshot(&mut self) {
        self.offered = None;
    }

    /// Where the entries came from that were read since the last call.
    pub(crate) fn take_log_reads(&self) -> LogReads {
        self.reads.take()
    }

    fn misuse(&self, what: impl Into<String>) -> Error {
        Error::misuse(self.region_id, what)
    }

    fn corruption(&self, what: impl Into<String>) -> Error {
        Error::corruption(self.region_id, what)
    }
}

impl Storage for PeerStorage {
    fn initial_state(&self) -> Result<InitialState, StorageError> {
        let conf_state = self.membership().map(|m| m.conf_state.clone());
        Ok(InitialState {
            hard_state: self.hard_state(),
            conf_state: conf_state.unwrap_or_default(),
        })
    }

    fn entries(&self, low: u64, high: u64, max_bytes: u64) -> Result<Vec<Entry>, StorageError> {
        self.read_entries(low, high, max_bytes)
    }

    fn term(&self, index: u64) -> Result<u64, StorageError> {
        self.read_term(index)
    }

    fn first_index(&self) -> Result<u64, StorageError> {
        Ok(self.truncated().index + 1)
    }

    fn last_index(&self) -> Result<u64, StorageError> {
        Ok(self.raft_state.last_index)
    }

    fn snapshot(&self, to: u64) -> Result<Snapshot, StorageError> {
        let has = |members: &ConfState| Configuration::members_of(members).contains(to);
        // A snapshot that was begun before a member was added is never sent to it: another one is wanted.
        // For who is no member yet there can be none.
        let known = self.membership().is_some_and(|m| has(&m.conf_state));
        let fits = |snapshot: &&Snapshot| {
            let Some(metadata) = &snapshot.metadata else {
                return false;
            };
            metadata.index >= self.truncated().index
                && (metadata.conf_state.as_ref().is_none_or(has) || !known)
        };
        match self.offered.as_ref().filter(fits) {
            Some(snapshot) if self.pending.is_none() => Ok(snapshot.clone()),
            _ => {
                self.wanted.set(Some(to));
                Err(StorageError::SnapshotTemporarilyUnavailable)
            }
        }
    }
}
