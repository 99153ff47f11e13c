//! A suite that any [`Storage`] can be run through: everything that a node relies on when it reads
//! its log back, also after a loss of power.
//!
//! Who implements a storage tells the suite how it is written ([`Subject`]) and how its power is
//! cut ([`PowerLoss`]). Then two tests are left to write: one calls [`check`], the other
//! [`check_power_loss`]. Both go through rules that are written out, then through random writes
//! beside a model that keeps its entries in a `BTreeMap`; the same seed gives the same writes. A
//! broken rule is a panic whose text opens with the rule.
//!
//! # What is read back
//!
//! 1. The methods answer as the last write left it, synced or not: terms, votes, entries, snapshots
//!    and memberships come back as they were written, to the byte.
//! 2. Entries replace everything from their first index on. Those that are compacted change
//!    nothing where they are.
//! 3. A snapshot replaces the whole log and the membership. One that is not newer than the present
//!    one is refused with [`StorageError::SnapshotOutOfDate`], and so is all of its write.
//! 4. Compaction moves the first index and nothing else; the term of the last compacted entry is
//!    kept.
//!
//! # What is left after a loss of power
//!
//! 1. *Whole*: a write is there with all its parts, or with none. A commit index without its
//!    entries, or entries of a term without that term, are states that no node was ever in.
//! 2. *In order*: what is left are the writes up to some point, and none after it.
//! 3. *Synced*: that point is not before the last sync that returned.
//! 4. *For good*: what was found after a loss of power is not lost in the next one. A node
//!    acknowledges what it finds without writing it again.
//! 5. Snapshots made by the state machine and compactions follow 1 to 4 among themselves; beside
//!    the writes of the log they may be lost earlier or kept longer. The suite asks for them only
//!    at indexes that are synced and committed, as a state machine does.
//!
//! # Example
//!
//! ```
//! use basalt_raft::{
//!     MemStorage, StorageError,
//!     eraftpb::ConfState,
//!     storage::conformance::{Subject, Write, check},
//! };
//! use bytes::Bytes;
//!
//! struct Memory(MemStorage);
//!
//! impl Subject for Memory {
//!     type Storage = MemStorage;
//!
//!     fn storage(&self) -> &MemStorage {
//!         &self.0
//!     }
//!
//!     fn write(&mut self, write: Write) -> Result<(), StorageError> {
//!         if let Some(snapshot) = write.snapshot {
//!             self.0.apply_snapshot(snapshot)?;
//!         }
//!         if let Some(hard_state) = write.hard_state {
//!             self.0.set_hard_state(hard_state);
//!         }
//!         self.0.append(write.entries);
//!         Ok(())
//!     }
//!
//!     fn make_snapshot(&mut self, index: u64, members: &ConfState, data: Bytes) -> Result<(), StorageError> {
//!         self.0.create_snapshot(index, Some(members.clone()), data)?;
//!         Ok(())
//!     }
//!
//!     fn compact(&mut self, index: u64) -> Result<(), StorageError> {
//!         self.0.compact(index)
//!     }
//! }
//!
//! let open = |members: &ConfState| {
//!     let mut log = MemStorage::new();
//!     log.set_conf_state(members.clone());
//!     Memory(log)
//! };
//! let counts = check(open, 1, 500);
//! assert!(counts.overwrites > 0);
//! ```
//!
//! Not here: what a storage does when the world below fails, and several threads at once.

mod model;
mod power;
mod random;
mod rules;
mod world;

use std::fmt;

use basalt_proto::eraftpb::{ConfState, Entry, HardState, Snapshot};
use bytes::Bytes;

use super::Storage;
use crate::StorageError;

pub(super) use power::{power_rules, random_power_losses};
pub(super) use random::random_writes;
pub(super) use rules::rules;

/// One write of a node: what a `Ready`, or a message to the append thread, asks to be persisted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Write {
    /// Replaces term, vote and commit index.
    pub hard_state: Option<HardState>,
    /// Replaces log and membership; before `entries`.
    pub snapshot: Option<Snapshot>,
    /// Contiguous; they replace everything from the first one's index on.
    pub entries: Vec<Entry>,
}

/// A storage under test, together with who writes it.
pub trait Subject {
    /// What a node reads.
    type Storage: Storage;

    /// The storage, as the writes so far have left it.
    fn storage(&self) -> &Self::Storage;

    /// Does a write, which a node could ask for.
    ///
    /// # Errors
    ///
    /// [`StorageError::SnapshotOutOfDate`] for a snapshot that is not newer than the present one;
    /// nothing of the write is done then.
    fn write(&mut self, write: Write) -> Result<(), StorageError>;

    /// The state machine has applied the log up to `index`; its membership then is `conf_state`, its
    /// content `data`. From now on that is the snapshot for others and the membership of the start.
    ///
    /// # Errors
    ///
    /// [`StorageError::SnapshotOutOfDate`] for an `index` not above that of the present snapshot,
    /// [`StorageError::Unavailable`] for one above the log.
    fn make_snapshot(
        &mut self,
        index: u64,
        conf_state: &ConfState,
        data: Bytes,
    ) -> Result<(), StorageError>;

    /// Drops the entries up to `index`, which a snapshot stands for.
    ///
    /// # Errors
    ///
    /// [`StorageError::Compacted`] where they are dropped already, [`StorageError::Unavailable`]
    /// for an `index` above the log.
    fn compact(&mut self, index: u64) -> Result<(), StorageError>;

    /// Index and term that a new log stands at, which are its hard state's commit index and term
    /// too. (0, 0) but for stores that begin with a snapshot.
    fn start(&self) -> (u64, u64) {
        (0, 0)
    }

    /// Whether memberships may have learners and be joint. A store that knows nothing but voters
    /// says no.
    fn keeps_roles(&self) -> bool {
        true
    }

    /// What a snapshot with the content `data` carries in its `data` field when another storage of
    /// this kind sends it.
    fn pack(&self, data: Bytes) -> Bytes {
        data
    }

    /// The content of a snapshot that carries `carried`.
    fn unpack(&self, carried: &Bytes) -> Bytes {
        carried.clone()
    }

    /// The storage has answered "ask again later": does what will end that.
    fn wait(&mut self) {}
}

/// A storage under test whose power can be cut.
pub trait PowerLoss: Subject {
    /// Makes everything durable that was written, as before a node's promises are sent.
    fn sync(&mut self);

    /// Cuts the power and opens the storage again. How much is kept of what was not synced follows
    /// from `fate`, a random number: over many of them each possible outcome should come up.
    fn lose_power(&mut self, fate: u64);
}

/// What the random part of a run has done, so that a test can demand that it did enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Writes of hard states and entries.
    pub writes: u64,
    /// Writes that replaced entries.
    pub overwrites: u64,
    /// Snapshots taken from others.
    pub snapshots_applied: u64,
    /// Snapshots made.
    pub snapshots_made: u64,
    /// Compactions.
    pub compactions: u64,
    /// Writes, snapshots and compactions that had to be refused.
    pub refusals: u64,
    /// Ranges of entries that a limit in bytes has cut.
    pub cuts: u64,
    /// Losses of power.
    pub power_losses: u64,
    /// Losses of power that took some write with them.
    pub losses_of_writes: u64,
    /// Losses of power that left some write which was not synced.
    pub unsynced_kept: u64,
}

/// Runs storages, which `open` makes new for a group with the given membership, through all rules
/// of reading back: the written-out ones, then `steps` random steps from `seed`.
///
/// # Panics
///
/// At the first broken rule, with its sentence and what was seen.
pub fn check<S: Subject>(mut open: impl FnMut(&ConfState) -> S, seed: u64, steps: u64) -> Counts {
    rules(&mut open);
    random_writes(&mut open, seed, steps)
}

/// As [`check`], for what is left after a loss of power.
///
/// # Panics
///
/// At the first broken rule, with its sentence and what was seen.
pub fn check_power_loss<S: PowerLoss>(
    mut open: impl FnMut(&ConfState) -> S,
    seed: u64,
    steps: u64,
) -> Counts {
    power_rules(&mut open, seed);
    random_power_losses(&mut open, seed, steps)
}

/// Panics where a rule is broken.
#[track_caller]
fn demand(holds: bool, rule: &str, seen: fmt::Arguments<'_>) {
    assert!(holds, "{rule}: {seen}");
}

/// Memberships that the suite uses; ids ascend.
fn voters(ids: &[u64]) -> ConfState {
    ConfState {
        nodes: ids.to_vec(),
        ..ConfState::default()
    }
}
