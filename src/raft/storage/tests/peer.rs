//! A storage as unlike [`MemStorage`] as may be, so that the suite does not only fit that one.

use std::cell::Cell;

use bytes::Bytes;

use super::{
    super::{
        conformance::{PowerLoss, Subject, Write},
        *,
    },
    disk::{Disk, Reader},
};

/// It begins behind a snapshot, knows voters alone,
/// carries its snapshots packed, and has to be asked twice.
pub(super) struct Peer {
    disk: Disk,
    reader: PeerReader,
}

/// How a packed snapshot begins.
const PACKED: &[u8] = b"packed: ";

pub(super) struct PeerReader {
    reader: Reader,
    /// Whether the next answer comes at once.
    awake: Cell<bool>,
}

impl PeerReader {
    fn later<T>(
        &self,
        error: StorageError,
        answer: Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        // What is wrong is said at once.
        if self.awake.take() || answer.is_err() {
            answer
        } else {
            Err(error)
        }
    }
}

impl Storage for PeerReader {
    fn initial_state(&self) -> Result<InitialState, StorageError> {
        self.reader.initial_state()
    }

    fn entries(&self, low: u64, high: u64, max_bytes: u64) -> Result<Vec<Entry>, StorageError> {
        let answer = self.reader.entries(low, high, max_bytes);
        self.later(StorageError::LogTemporarilyUnavailable, answer)
    }

    fn term(&self, index: u64) -> Result<u64, StorageError> {
        self.reader.term(index)
    }

    fn first_index(&self) -> Result<u64, StorageError> {
        self.reader.first_index()
    }

    fn last_index(&self) -> Result<u64, StorageError> {
        self.reader.last_index()
    }

    fn snapshot(&self, to: u64) -> Result<Snapshot, StorageError> {
        let answer = self.reader.snapshot(to);
        self.later(StorageError::SnapshotTemporarilyUnavailable, answer)
    }
}

impl Peer {
    const START: (u64, u64) = (5, 5);

    pub(super) fn new(conf_state: &ConfState) -> Self {
        let mut disk = Disk::new(conf_state, None);
        let (index, term) = Self::START;
        disk.change(|parts| parts.base = Self::START);
        disk.log().set_hard_state(HardState {
            term,
            vote: 0,
            commit: index,
        });
        Self {
            reader: PeerReader {
                reader: disk.reader.clone(),
                awake: Cell::new(false),
            },
            disk,
        }
    }

    /// Does something with the disk, and shows what it holds then.
    fn show<T>(&mut self, change: impl FnOnce(&mut Disk) -> T) -> T {
        let result = change(&mut self.disk);
        self.reader.reader = self.disk.reader.clone();
        result
    }
}

impl Subject for Peer {
    type Storage = PeerReader;

    fn storage(&self) -> &PeerReader {
        &self.reader
    }

    fn write(&mut self, write: Write) -> Result<(), StorageError> {
        self.show(|disk| disk.write(write))
    }

    fn make_snapshot(
        &mut self,
        index: u64,
        conf_state: &ConfState,
        data: Bytes,
    ) -> Result<(), StorageError> {
        let data = self.pack(data);
        self.show(|disk| disk.make_snapshot(index, conf_state, data))
    }

    fn compact(&mut self, index: u64) -> Result<(), StorageError> {
        self.show(|disk| disk.compact(index))
    }

    fn start(&self) -> (u64, u64) {
        Self::START
    }

    fn keeps_roles(&self) -> bool {
        false
    }

    fn pack(&self, data: Bytes) -> Bytes {
        [PACKED, &data].concat().into()
    }

    fn unpack(&self, carried: &Bytes) -> Bytes {
        let data = carried.strip_prefix(PACKED);
        Bytes::copy_from_slice(data.expect("packed by this kind of storage"))
    }

    fn wait(&mut self) {
        self.reader.awake.set(true);
    }
}

impl PowerLoss for Peer {
    fn sync(&mut self) {
        self.show(Disk::sync);
    }

    fn lose_power(&mut self, fate: u64) {
        self.show(|disk| disk.lose_power(fate));
    }
}
