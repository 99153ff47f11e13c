//! What a node reads back of what it has told its caller to persist: the stable part of the log,
//! the newest snapshot, and the state of the start.
//!
//! A node only reads. The caller writes what `Ready` or the append messages say, in their order,
//! and then acknowledges. What the methods answer follows the writes at once, durable or not.
//!
//! [`conformance`] is a suite that any implementation can be run through.

pub mod conformance;
mod mem;
#[cfg(test)]
mod tests;

use basalt_proto::eraftpb::{ConfState, Entry, HardState, Snapshot};

pub use mem::MemStorage;

use crate::StorageError;

/// The durable state that a node starts from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InitialState {
    /// Term, vote and commit index; the default for a node that never ran.
    pub hard_state: HardState,
    /// The membership at the index that [`crate::Config::applied`] names.
    pub conf_state: ConfState,
}

/// The stable part of a node's log.
///
/// Indexes from `first_index` to `last_index` have entries. `first_index() - 1` is the index of the
/// snapshot that stands for everything before, 0 in a new log; its term is known too.
pub trait Storage {
    /// What the node was when it stopped.
    ///
    /// # Errors
    ///
    /// [`StorageError::Other`] where the state cannot be read.
    fn initial_state(&self) -> Result<InitialState, StorageError>;

    /// The entries of `low..high`, cut short so that their sizes ([`crate::entry_size`]) sum up to
    /// at most `max_bytes`; never empty where `low < high`.
    ///
    /// # Errors
    ///
    /// [`StorageError::Compacted`] for a `low` below the first index, [`StorageError::Unavailable`]
    /// for a `high` above the last index + 1, [`StorageError::LogTemporarilyUnavailable`] where the
    /// entries are on their way, [`StorageError::Other`] where they cannot be read.
    fn entries(&self, low: u64, high: u64, max_bytes: u64) -> Result<Vec<Entry>, StorageError>;

    /// The term of the entry at `index`, from `first_index() - 1` to `last_index()`.
    ///
    /// # Errors
    ///
    /// As for [`Storage::entries`].
    fn term(&self, index: u64) -> Result<u64, StorageError>;

    /// The index of the first entry that is not compacted; 1 in a new log.
    ///
    /// # Errors
    ///
    /// [`StorageError::Other`] where it cannot be read.
    fn first_index(&self) -> Result<u64, StorageError>;

    /// The index of the last entry, or of the snapshot where there is none; 0 in a new log.
    ///
    /// # Errors
    ///
    /// [`StorageError::Other`] where it cannot be read.
    fn last_index(&self) -> Result<u64, StorageError>;

    /// A snapshot for the node `to`, at an index not below `first_index() - 1`, of a membership that
    /// has `to`: another is not sent.
    ///
    /// # Errors
    ///
    /// [`StorageError::SnapshotTemporarilyUnavailable`] while it is being made: the node asks again
    /// later. [`StorageError::Other`] where it cannot be made.
    fn snapshot(&self, to: u64) -> Result<Snapshot, StorageError>;
}
