//! Two stores with snapshot files, and the way of a snapshot from one to the other.

use std::path::{Path, PathBuf};

use basalt_engine::{ColumnFamily, ReadOptions, WriteBatch, WriteOptions};
use basalt_proto::{
    eraftpb::{Message as RaftMessageBody, MessageType, Snapshot},
    metapb::Peer,
    raft_serverpb::{RaftApplyState, RaftMessage, RaftSnapshotData},
};
use basalt_raftstore::{
    DATA_FAMILIES, Membership, PeerStorage, Save,
    snapshot::{Incoming, SnapshotError, SnapshotStore},
};
use basalt_testkit::Rng;
use prost::Message;

use crate::support::{Store, entries, hard_state, membership, voters, write_applied};

pub(crate) const DIR: &str = "/snap";

pub(crate) type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// A store and its snapshot files.
pub(crate) struct Side {
    pub(crate) store: Store,
    pub(crate) files: SnapshotStore,
}

impl Side {
    pub(crate) fn new() -> Self {
        Self::on(Store::new())
    }

    pub(crate) fn on(store: Store) -> Self {
        let files = SnapshotStore::open(store.fs.clone(), DIR, store.engines.clone());
        Self {
            files: files.expect("a sound disk"),
            store,
        }
    }

    /// A store with the peer `peer` of region 1, whose log goes from 6 to 11 and whose range is "b" to "y".
    pub(crate) fn with_region(peer: u64) -> Self {
        let side = Self::new();
        let mut members = membership(1, &voters(&[1, 2, 3]));
        members.region.start_key = "b".into();
        members.region.end_key = "y".into();
        PeerStorage::create(&side.store.engines, &members, peer).expect("a new region");
        let mut storage = side.store.open(1, peer);
        let entries = entries(6..12, 6);
        let save = Save {
            hard_state: hard_state(6, 1, 11),
            entries: &entries,
            ..Save::default()
        };
        side.save(&mut storage, &save);
        side
    }

    pub(crate) fn save(&self, storage: &mut PeerStorage, save: &Save<'_>) {
        let mut batch = WriteBatch::new();
        let number = storage.save(save, &mut batch).expect("it fits");
        self.store.write_raft(batch, WriteOptions::SYNC);
        storage.published(number);
    }

    fn family(&self, name: &str) -> &ColumnFamily {
        let at = DATA_FAMILIES.iter().position(|family| *family == name);
        &self.store.engines.data[at.expect("a family of users")]
    }

    /// Applies up to `index`, with these rows.
    pub(crate) fn apply(&self, storage: &mut PeerStorage, index: u64, rows: &[(&str, &str, &str)]) {
        let rows: Vec<_> = rows
            .iter()
            .map(|(family, key, value)| (*family, *key, value.as_bytes()))
            .collect();
        self.apply_bytes(storage, index, &rows);
    }

    pub(crate) fn apply_bytes(
        &self,
        storage: &mut PeerStorage,
        index: u64,
        rows: &[(&str, &str, &[u8])],
    ) {
        let state = RaftApplyState {
            applied_index: index,
            ..*storage.apply_state()
        };
        let mut batch = WriteBatch::new();
        for (family, key, value) in rows {
            batch.put(self.family(family), key.as_bytes(), value);
        }
        write_applied(&self.store, storage, batch, state, None::<Membership>);
    }

    /// Writes rows of other regions.
    pub(crate) fn put(&self, rows: &[(&str, &str, &str)]) {
        for (family, key, value) in rows {
            let put = self.store.engines.kv.put(
                self.family(family),
                key.as_bytes(),
                value.as_bytes(),
                WriteOptions::NO_SYNC,
            );
            put.expect("a sound disk");
        }
    }

    pub(crate) fn delete(&self, family: &str, key: &str) {
        let kv = &self.store.engines.kv;
        kv.delete(self.family(family), key.as_bytes(), WriteOptions::NO_SYNC)
            .expect("a sound disk");
    }

    /// All rows of the users' families.
    pub(crate) fn dump(&self) -> [Rows; 3] {
        [0, 1, 2].map(|at| {
            let family = &self.store.engines.data[at];
            let range = self.store.engines.kv.range(family, &ReadOptions::default());
            let rows = range.expect("a sound disk").map(|row| {
                let (key, value) = row.expect("a sound disk");
                (key, value.to_vec())
            });
            rows.collect()
        })
    }

    /// Names of the snapshot files, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        let files = self.store.fs.files();
        let names = files.iter().filter_map(|path| path.strip_prefix(DIR).ok());
        names.map(|name| name.display().to_string()).collect()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        Path::new(DIR).join(name)
    }

    /// Saves a received snapshot as a node would ask, and installs it.
    pub(crate) fn install(&self, storage: &mut PeerStorage, snapshot: &Snapshot) {
        let metadata = snapshot.metadata.as_ref().expect("it has some");
        let save = Save {
            hard_state: hard_state(metadata.term + 1, 0, metadata.index),
            snapshot: Some(snapshot),
            entries: &[],
        };
        self.save(storage, &save);
        self.resume(storage);
    }

    /// Installs the pending snapshot, and releases its files.
    pub(crate) fn resume(&self, storage: &mut PeerStorage) {
        let pending = storage.pending_snapshot().expect("one is pending").clone();
        let tables = self.files.tables(&pending).expect("they are here");
        let mut batch = WriteBatch::new();
        storage.install(tables, &mut batch).expect("a sound disk");
        self.store.write_raft(batch, WriteOptions::SYNC);
        self.files.release(&pending).expect("a sound disk");
    }
}

/// What `generate` asks is always granted.
pub(crate) fn unhurried(_: u64) -> bool {
    true
}

/// The envelope of a snapshot for a peer.
pub(crate) fn message(snapshot: &Snapshot, to: u64) -> RaftMessage {
    // Some tests have one whose data does not decode.
    let data = RaftSnapshotData::decode(&snapshot.data[..]).unwrap_or_default();
    let peer = |id| Some(Peer { id, store_id: id });
    RaftMessage {
        region_id: data.region.unwrap_or_default().id,
        from_peer: peer(1),
        to_peer: peer(to),
        message: Some(RaftMessageBody {
            msg_type: MessageType::MsgSnapshot.into(),
            from: 1,
            to,
            term: 6,
            snapshot: Some(Box::new(snapshot.clone())),
            ..RaftMessageBody::default()
        }),
        ..RaftMessage::default()
    }
}

/// The chunks of a snapshot.
pub(crate) fn chunks(sender: &Side, snapshot: &Snapshot) -> Vec<Vec<u8>> {
    let reader = sender.files.chunks(snapshot).expect("it is there");
    reader
        .map(|chunk| chunk.expect("a sound disk").to_vec())
        .collect()
}

/// Sends a snapshot from one store to peer 2 on another.
pub(crate) fn transfer(
    sender: &Side,
    receiver: &Side,
    snapshot: &Snapshot,
) -> Result<(), SnapshotError> {
    let Incoming::Wanted(mut incoming) = receiver.files.receive(&message(snapshot, 2))? else {
        return Ok(());
    };
    for chunk in sender.files.chunks(snapshot)? {
        incoming.push(&chunk?)?;
    }
    incoming.finish()
}

pub(crate) fn rows(rows: &[(&str, &str)]) -> Rows {
    let row = |(key, value): &(&str, &str)| (key.as_bytes().to_vec(), value.as_bytes().to_vec());
    rows.iter().map(row).collect()
}

/// Bytes that no compression shortens.
pub(crate) fn incompressible(len: usize) -> Vec<u8> {
    let mut random = Rng::new(1);
    let words = (0..len.div_ceil(8)).flat_map(|_| random.next_u64().to_le_bytes());
    words.take(len).collect()
}

/// Pushes these chunks to a store that waits for `snapshot`, and finishes.
pub(crate) fn receive(
    receiver: &Side,
    snapshot: &Snapshot,
    chunks: &[Vec<u8>],
) -> Result<(), SnapshotError> {
    let Incoming::Wanted(mut incoming) = receiver.files.receive(&message(snapshot, 2))? else {
        panic!("it is present");
    };
    for chunk in chunks {
        incoming.push(chunk)?;
    }
    incoming.finish()
}
