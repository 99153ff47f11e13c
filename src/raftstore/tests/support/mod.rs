//! What the tests share: both engines of a store on one simulated disk, and regions to put there.

use std::{path::Path, sync::Arc};

use basalt_engine::{
    Db, Options, TableFile, WriteBatch, WriteOptions,
    executor::SimExecutor,
    fs::{Fs, SimFs, sim::Survival},
};
use basalt_proto::{
    metapb::{Peer, Region, RegionEpoch},
    raft_serverpb::{KeyValue, RaftSnapshotData},
};
use basalt_raft::{
    Storage, StorageError,
    eraftpb::{ConfState, Entry, HardState, Snapshot, SnapshotMetadata},
};
use basalt_raftstore::{Applied, Engines, Membership, PeerStorage, states};
use bytes::Bytes;
use prost::Message;

/// The key of a region's only row, in the first of the users' families.
pub(crate) const ROW: &[u8] = b"content";
pub(crate) const CACHE: usize = 300;

/// A store that can lose its power.
pub(crate) struct Store {
    pub(crate) fs: Arc<SimFs>,
    pub(crate) executor: Arc<SimExecutor>,
    pub(crate) engines: Engines,
}

impl Store {
    pub(crate) fn new() -> Self {
        Self::on(SimFs::new())
    }

    pub(crate) fn on(fs: Arc<SimFs>) -> Self {
        let executor = Arc::new(SimExecutor::new(7));
        let open = |path| {
            let options = Options {
                log_segment_bytes: (16 << 10, 256 << 10),
                // Small, so that states are flushed and entries written forward.
                max_log_bytes: 64 << 10,
                max_log_garbage_bytes: 64 << 10,
                block_cache_bytes: 1 << 20,
                reserve_bytes: 0,
                ..Options::with(fs.clone(), executor.clone())
            };
            Db::open(path, options).expect("a sound disk")
        };
        let engines = Engines::new(open("/kv"), open("/raft")).expect("a sound disk");
        Self {
            fs,
            executor,
            engines,
        }
    }

    /// The store that a crash at this moment leaves.
    pub(crate) fn crash(&self, how: Survival) -> Self {
        Self::on(self.fs.crash(how))
    }

    pub(crate) fn open(&self, region: u64, peer: u64) -> PeerStorage {
        let opened = PeerStorage::open(self.engines.clone(), region, peer, CACHE);
        opened.expect("a peer of this store")
    }

    /// A new peer 1 of a region of three voters.
    pub(crate) fn create(&self, region: u64) -> PeerStorage {
        let members = membership(region, &voters(&[1, 2, 3]));
        PeerStorage::create(&self.engines, &members, 1).expect("a new region");
        self.open(region, 1)
    }

    pub(crate) fn write_raft(&self, batch: WriteBatch, options: WriteOptions) {
        self.engines
            .raft
            .write(batch, options)
            .expect("a sound disk");
    }

    /// The content of the only row there is.
    pub(crate) fn row(&self) -> Option<Bytes> {
        let row = self.engines.kv.get(&self.engines.data[0], ROW);
        let row = row.expect("a sound disk")?;
        Some(Bytes::copy_from_slice(&row))
    }
}

pub(crate) fn voters(ids: &[u64]) -> ConfState {
    ConfState {
        nodes: ids.to_vec(),
        ..ConfState::default()
    }
}

/// A region of the whole key space with these members, each on the store of its own number.
pub(crate) fn membership(region: u64, conf_state: &ConfState) -> Membership {
    let all = [
        &conf_state.nodes,
        &conf_state.learners,
        &conf_state.voters_outgoing,
    ];
    let mut ids: Vec<u64> = all.into_iter().flatten().copied().collect();
    ids.sort_unstable();
    ids.dedup();
    let peer = |id| Peer { id, store_id: id };
    Membership {
        region: Region {
            id: region,
            region_epoch: Some(RegionEpoch {
                conf_ver: 1,
                version: 1,
            }),
            peers: ids.into_iter().map(peer).collect(),
            ..Region::default()
        },
        conf_state: conf_state.clone(),
    }
}

pub(crate) fn entries(indexes: std::ops::Range<u64>, term: u64) -> Vec<Entry> {
    let entry = |index| Entry {
        index,
        term,
        data: format!("{index} of {term}").into(),
        ..Entry::default()
    };
    indexes.map(entry).collect()
}

pub(crate) fn hard_state(term: u64, vote: u64, commit: u64) -> Option<HardState> {
    Some(HardState { term, vote, commit })
}

/// What a snapshot of a region with this row carries. (A real one names files instead.)
pub(crate) fn pack(region: u64, content: Bytes) -> Bytes {
    let row = KeyValue {
        key: Bytes::from_static(ROW),
        value: content,
    };
    let data = RaftSnapshotData {
        region: Some(membership(region, &voters(&[1, 2, 3])).region),
        data: vec![row],
        ..RaftSnapshotData::default()
    };
    data.encode_to_vec().into()
}

pub(crate) fn unpack(carried: &Bytes) -> RaftSnapshotData {
    RaftSnapshotData::decode(carried.clone()).expect("packed by this kind of store")
}

pub(crate) fn snapshot(region: u64, index: u64, term: u64, content: &str) -> Snapshot {
    Snapshot {
        data: pack(region, content.to_owned().into()),
        metadata: Some(SnapshotMetadata {
            conf_state: Some(voters(&[1, 2])),
            index,
            term,
        }),
    }
}

/// A snapshot of what the peer has applied.
pub(crate) fn make_snapshot(store: &Store, storage: &PeerStorage) -> Snapshot {
    let index = storage.apply_state().applied_index;
    Snapshot {
        data: pack(storage.region_id(), store.row().unwrap_or_default()),
        metadata: Some(SnapshotMetadata {
            conf_state: storage.membership().map(|m| m.conf_state.clone()),
            index,
            term: storage.term(index).expect("an applied entry"),
        }),
    }
}

/// Brings the tables of the pending snapshot and installs them; its end is not synced.
pub(crate) fn install(store: &Store, storage: &mut PeerStorage) {
    let snapshot = storage.pending_snapshot().expect("one is pending");
    let family = &store.engines.data[0];
    let tables = unpack(&snapshot.data).data.into_iter().map(|row| {
        // A crash may have left one.
        let _ = store.fs.remove_file(Path::new("/incoming.table"));
        let writer = store.engines.kv.table_writer(family, "/incoming.table");
        let mut writer = writer.expect("a sound disk");
        writer.put(&row.key, &row.value).expect("a sound disk");
        let table: TableFile = writer.finish().expect("a sound disk");
        (family.clone(), table)
    });
    let tables = tables.collect();
    let mut batch = WriteBatch::new();
    storage.install(tables, &mut batch).expect("a sound disk");
    store.write_raft(batch, WriteOptions::NO_SYNC);
}

/// Applies up to `index`: the row becomes `content`.
pub(crate) fn apply(store: &Store, storage: &mut PeerStorage, index: u64, content: &[u8]) {
    let state = basalt_proto::raft_serverpb::RaftApplyState {
        applied_index: index,
        ..*storage.apply_state()
    };
    let mut batch = WriteBatch::new();
    batch.put(&store.engines.data[0], ROW, content);
    write_applied(store, storage, batch, state, None);
}

/// Truncates the log at `index`, which is applied.
pub(crate) fn truncate(
    store: &Store,
    storage: &mut PeerStorage,
    index: u64,
) -> Result<(), StorageError> {
    let state = basalt_proto::raft_serverpb::RaftApplyState {
        truncated_state: Some(storage.truncation_at(index)?),
        ..*storage.apply_state()
    };
    write_applied(store, storage, WriteBatch::new(), state, None);
    Ok(())
}

/// Writes a kvdb batch with the apply state in it, and the membership if there is a new one.
pub(crate) fn write_applied(
    store: &Store,
    storage: &mut PeerStorage,
    mut batch: WriteBatch,
    state: basalt_proto::raft_serverpb::RaftApplyState,
    membership: Option<Membership>,
) {
    let (engines, region) = (&store.engines, storage.region_id());
    states::put_apply_state(engines, &mut batch, region, &state);
    if let Some(Membership { region, conf_state }) = &membership {
        let state = states::normal(region, conf_state, storage.peer_id());
        states::put_region_state(engines, &mut batch, region.id, &state);
    }
    let seq = engines.kv.write(batch, WriteOptions::NO_SYNC);
    let applied = Applied {
        state,
        membership,
        seq: seq.expect("a sound disk"),
    };
    storage.applied(applied).expect("committed entries");
}
