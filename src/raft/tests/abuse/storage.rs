//! A log in memory that can fail at any call.

use std::cell::{Cell, RefCell};

use basalt_raft::{
    InitialState, MemStorage, Storage, StorageError,
    eraftpb::{Entry, Snapshot},
};
use basalt_testkit::Rng;

/// Fails one in so many calls; never with 0.
pub(crate) struct Unreliable {
    pub(crate) log: MemStorage,
    pub(crate) one_in: Cell<u64>,
    rng: RefCell<Rng>,
}

impl Unreliable {
    pub(crate) fn new(log: MemStorage, seed: u64) -> Self {
        Self {
            log,
            one_in: Cell::new(0),
            rng: RefCell::new(Rng::new(seed)),
        }
    }

    fn fails(&self) -> bool {
        let one_in = self.one_in.get();
        one_in > 0 && self.rng.borrow_mut().one_in(one_in)
    }

    fn or<T>(
        &self,
        later: Option<StorageError>,
        answer: Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        if !self.fails() {
            return answer;
        }
        let is_later = self.rng.borrow_mut().one_in(2);
        let broken = StorageError::Other("a bad sector".into());
        Err(later.filter(|_| is_later).unwrap_or(broken))
    }
}

impl Storage for Unreliable {
    fn initial_state(&self) -> Result<InitialState, StorageError> {
        self.or(None, self.log.initial_state())
    }

    fn entries(&self, low: u64, high: u64, max_bytes: u64) -> Result<Vec<Entry>, StorageError> {
        let later = StorageError::LogTemporarilyUnavailable;
        self.or(Some(later), self.log.entries(low, high, max_bytes))
    }

    fn term(&self, index: u64) -> Result<u64, StorageError> {
        self.or(None, self.log.term(index))
    }

    fn first_index(&self) -> Result<u64, StorageError> {
        self.or(None, self.log.first_index())
    }

    fn last_index(&self) -> Result<u64, StorageError> {
        self.or(None, self.log.last_index())
    }

    fn snapshot(&self, to: u64) -> Result<Snapshot, StorageError> {
        let later = StorageError::SnapshotTemporarilyUnavailable;
        self.or(Some(later), self.log.snapshot(to))
    }
}
