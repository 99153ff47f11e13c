//! Snapshot files by claims: one moment of a region, from one store to another; what a receiver refuses,
//! limits, cleaning up. What disks do to them is in `snapshot_disk.rs`.

#[expect(dead_code, reason = "each test takes its part of what they share")]
mod support;
#[path = "snapshot/transfer.rs"]
mod transfer;

use std::path::Path;

use basalt_engine::{
    WriteBatch, WriteOptions,
    fs::{Fs, sim::Survival},
};
use basalt_proto::raft_serverpb::{PeerState, RaftMessage, RaftSnapshotData};
use basalt_raft::Storage;
use basalt_raftstore::{
    keys,
    snapshot::{
        Incoming, MAX_GENERATED, MAX_RECEIVING, Origin, SNAPSHOT_CHUNK, SnapshotError, SnapshotKey,
        SnapshotState, SnapshotStore,
    },
    states,
};
use prost::Message;
use transfer::{Side, chunks, incompressible, message, receive, rows, transfer, unhurried};

#[test]
fn what_one_store_has_of_a_region_another_has_after_it_is_installed() {
    let sender = Side::with_region(1);
    let mut peer = sender.store.open(1, 1);
    let all: Vec<_> = ["b", "c", "x"].map(|key| ("write", key, "w")).into();
    sender.apply(
        &mut peer,
        9,
        &[("default", "b", "first"), ("lock", "k", "l")],
    );
    sender.apply(&mut peer, 10, &all);
    sender.store.engines.flush_kv().unwrap();
    // Overwritten and deleted, some of it in memory; and rows of other regions.
    let beside = [
        ("default", "a", "other"),
        ("default", "y", "other"),
        ("write", "z", "other"),
    ];
    sender.apply(
        &mut peer,
        11,
        &[("default", "b", "second"), ("default", "d", "")],
    );
    sender.put(&beside);
    sender.delete("write", "c");

    let receiver = Side::with_region(2);
    let mut old = receiver.store.open(1, 2);
    receiver.apply(
        &mut old,
        8,
        &[
            ("default", "b", "old"),
            ("default", "e", "old"),
            ("lock", "m", "old"),
        ],
    );
    receiver.put(&[("default", "a", "mine"), ("lock", "y", "mine")]);

    let snapshot = sender.files.generate(1, &mut unhurried).unwrap();
    let metadata = snapshot.metadata.clone().unwrap();
    assert_eq!((metadata.index, metadata.term), (11, 6));
    assert_eq!(
        metadata.conf_state,
        peer.initial_state().unwrap().conf_state.into()
    );
    transfer(&sender, &receiver, &snapshot).unwrap();
    receiver.install(&mut old, &snapshot);

    let expected = [
        rows(&[("a", "mine"), ("b", "second"), ("d", "")]),
        rows(&[("b", "w"), ("x", "w")]),
        rows(&[("k", "l"), ("y", "mine")]),
    ];
    assert_eq!(receiver.dump(), expected);
    assert_eq!(old.apply_state().applied_index, 11);
    assert!(receiver.files.list().is_empty());
    assert!(receiver.names().is_empty());
    // The data was linked, not moved: it is the database's own now.
    receiver.store.engines.kv.verify().unwrap();
}

#[test]
fn a_peer_that_a_message_made_starts_with_a_snapshot() {
    let sender = Side::with_region(1);
    let mut peer = sender.store.open(1, 1);
    sender.apply(&mut peer, 8, &[("default", "b", "v")]);
    let receiver = Side::new();
    let mut fresh = receiver.store.open(1, 3);
    let snapshot = sender.files.generate(1, &mut unhurried).unwrap();
    let to = message(&snapshot, 3);
    let Incoming::Wanted(mut incoming) = receiver.files.receive(&to).unwrap() else {
        panic!("it is nowhere");
    };
    for chunk in sender.files.chunks(&snapshot).unwrap() {
        incoming.push(&chunk.unwrap()).unwrap();
    }
    incoming.finish().unwrap();
    receiver.install(&mut fresh, &snapshot);
    assert_eq!(receiver.dump()[0], rows(&[("b", "v")]));
    assert_eq!(fresh.membership(), peer.membership());
}

#[test]
fn a_region_without_rows_has_a_snapshot_without_files() {
    let sender = Side::with_region(1);
    sender.put(&[("default", "a", "other"), ("lock", "y", "other")]);
    let receiver = Side::with_region(2);
    let mut old = receiver.store.open(1, 2);
    receiver.apply(&mut old, 8, &[("default", "b", "old")]);
    let mut peer = sender.store.open(1, 1);
    sender.apply(&mut peer, 9, &[]);
    let snapshot = sender.files.generate(1, &mut unhurried).unwrap();
    assert_eq!(chunks(&sender, &snapshot).len(), 0);
    assert!(sender.names().is_empty());
    let data = RaftSnapshotData::decode(&snapshot.data[..]).unwrap();
    let files = data.meta.unwrap().cf_files;
    let seen: Vec<_> = files
        .iter()
        .map(|file| (&*file.cf, file.size, file.checksum))
        .collect();
    assert_eq!(seen, [("default", 0, 0), ("write", 0, 0), ("lock", 0, 0)]);
    transfer(&sender, &receiver, &snapshot).unwrap();
    receiver.install(&mut old, &snapshot);
    assert_eq!(receiver.dump(), [rows(&[]), rows(&[]), rows(&[])]);
}

#[test]
fn the_files_are_what_the_data_says_and_chunks_are_bounded() {
    let sender = Side::with_region(1);
    let mut peer = sender.store.open(1, 1);
    let value = incompressible(3 * SNAPSHOT_CHUNK / 2);
    sender.apply_bytes(
        &mut peer,
        8,
        &[("default", "b", &value), ("lock", "c", b"l")],
    );
    let snapshot = sender.files.generate(1, &mut unhurried).unwrap();
    let data = RaftSnapshotData::decode(&snapshot.data[..]).unwrap();
    let files = data.meta.unwrap().cf_files;
    let key = SnapshotKey::of(&snapshot).unwrap();
    let stem = format!("gen_1_6_8_{:08x}", key.checksum);
    let expected = ["default", "lock"].map(|family| format!("{stem}_{family}.sst"));
    assert_eq!(sender.names(), expected);
    let mut bytes = Vec::new();
    for (name, file) in expected.iter().zip([&files[0], &files[2]]) {
        let content = sender.store.fs.read_raw(sender.path(name)).unwrap();
        assert_eq!(
            (content.len() as u64, crc32fast::hash(&content)),
            (file.size, file.checksum)
        );
        bytes.extend(content);
    }
    assert_eq!((files[1].size, files[1].checksum), (0, 0));
    assert_eq!(data.file_size, bytes.len() as u64);
    let reader = sender.files.chunks(&snapshot).unwrap();
    assert_eq!(reader.bytes(), data.file_size);
    let chunks: Vec<_> = reader.map(Result::unwrap).collect();
    assert!(
        chunks
            .iter()
            .all(|chunk| (1..=SNAPSHOT_CHUNK).contains(&chunk.len()))
    );
    assert_eq!(chunks.concat(), bytes);
}

#[test]
fn a_snapshot_is_one_moment_whatever_is_written_meanwhile() {
    let sender = Side::with_region(1);
    let mut peer = sender.store.open(1, 1);
    let value = incompressible(SNAPSHOT_CHUNK);
    sender.apply_bytes(
        &mut peer,
        8,
        &[
            ("default", "b", &value),
            ("default", "c", &value),
            ("lock", "k", b"8"),
        ],
    );
    let before = sender.dump();
    let mut paces = Vec::new();
    let snapshot = sender.files.generate(1, &mut |bytes| {
        paces.push(bytes);
        let index = 8 + paces.len() as u64;
        sender.delete("default", "c");
        sender.apply(
            &mut peer,
            index,
            &[("lock", "k", "later"), ("write", "w", "later")],
        );
        sender.store.engines.flush_kv().unwrap();
        true
    });
    let snapshot = snapshot.unwrap();
    assert_eq!(paces.len(), 2);
    assert_eq!(snapshot.metadata.as_ref().unwrap().index, 8);
    let receiver = Side::with_region(2);
    transfer(&sender, &receiver, &snapshot).unwrap();
    receiver.install(&mut receiver.store.open(1, 2), &snapshot);
    assert_eq!(receiver.dump(), before);
    assert_ne!(sender.dump(), before);
}

#[test]
fn a_snapshot_of_the_same_index_is_made_once_and_a_stopped_one_leaves_nothing() {
    let sender = Side::with_region(1);
    let mut peer = sender.store.open(1, 1);
    let value = incompressible(SNAPSHOT_CHUNK);
    sender.apply_bytes(&mut peer, 8, &[("default", "b", &value)]);
    let stopped = sender.files.generate(1, &mut |_| false);
    assert!(
        matches!(stopped, Err(SnapshotError::Busy(_))),
        "{stopped:?}"
    );
    assert!(sender.names().is_empty() && sender.files.list().is_empty());
    // No second one meanwhile.
    let mut second = None;
    let first = sender.files.generate(1, &mut |_| {
        let list = sender.files.list();
        assert_eq!(list[0].state, SnapshotState::Generating);
        assert_eq!(sender.files.remove_stale(|_| false).unwrap(), 0);
        second = Some(sender.files.generate(1, &mut unhurried));
        true
    });
    let first = first.unwrap();
    assert!(
        matches!(second, Some(Err(SnapshotError::Busy(_)))),
        "{second:?}"
    );
    let changes = sender.store.fs.op_count();
    assert_eq!(sender.files.generate(1, &mut unhurried).unwrap(), first);
    assert_eq!(sender.store.fs.op_count(), changes);
    sender.apply(&mut peer, 9, &[]);
    let later = sender.files.generate(1, &mut unhurried).unwrap();
    assert_eq!(later.metadata.unwrap().index, 9);
    assert_eq!(sender.files.list().len(), 2);
}

#[test]
fn only_regions_that_live_here_have_snapshots_and_only_so_many() {
    let sender = Side::with_region(1);
    let none = sender.files.generate(2, &mut unhurried);
    assert!(matches!(none, Err(SnapshotError::Refused(_))), "{none:?}");
    let region = sender.store.open(1, 1).membership().unwrap().region.clone();
    let mut batch = WriteBatch::new();
    states::put_region_state(
        &sender.store.engines,
        &mut batch,
        1,
        &states::tombstone(&region, 1),
    );
    let kv = &sender.store.engines.kv;
    kv.write(batch, WriteOptions::NO_SYNC).unwrap();
    let state = states::region_state(&sender.store.engines, 1)
        .unwrap()
        .unwrap();
    assert_eq!(state.state(), PeerState::Tombstone);
    let gone = sender.files.generate(1, &mut unhurried);
    assert!(matches!(gone, Err(SnapshotError::Refused(_))), "{gone:?}");
    for region in 2..2 + MAX_GENERATED as u64 {
        sender.store.create(region);
        sender.files.generate(region, &mut unhurried).unwrap();
    }
    sender.store.create(99);
    let more = sender.files.generate(99, &mut unhurried);
    assert!(matches!(more, Err(SnapshotError::Busy(_))), "{more:?}");
    assert_eq!(
        sender
            .files
            .remove_stale(|info| info.key.region > 2)
            .unwrap(),
        1
    );
    sender.files.generate(99, &mut unhurried).unwrap();
}

#[test]
fn the_term_is_that_of_the_applied_entry_and_a_log_that_lacks_it_is_waited_for() {
    let sender = Side::with_region(1);
    let generated = sender.files.generate(1, &mut unhurried).unwrap();
    assert_eq!(generated.metadata.unwrap().term, states::RAFT_INIT_LOG_TERM);
    let mut peer = sender.store.open(1, 1);
    sender.apply(&mut peer, 9, &[]);
    let mut batch = WriteBatch::new();
    batch.truncate_front(&sender.store.engines.log, &keys::log_prefix(1), 10);
    sender.store.write_raft(batch, WriteOptions::SYNC);
    let lost = sender.files.generate(1, &mut unhurried);
    assert!(matches!(lost, Err(SnapshotError::Busy(_))), "{lost:?}");
}

#[test]
fn one_receiver_of_a_region_and_so_many_of_all() {
    let sender = Side::with_region(1);
    let mut peer = sender.store.open(1, 1);
    sender.apply(&mut peer, 8, &[("default", "b", "v")]);
    let snapshot = sender.files.generate(1, &mut unhurried).unwrap();
    let to = message(&snapshot, 2);
    let receiver = Side::new();
    let begin = |to: &RaftMessage| receiver.files.receive(to);
    let Incoming::Wanted(mut first) = begin(&to).unwrap() else {
        panic!("it is nowhere");
    };
    first.push(&chunks(&sender, &snapshot).concat()).unwrap();
    assert!(matches!(begin(&to), Err(SnapshotError::Busy(_))));
    let mut later = snapshot.clone();
    later.metadata.as_mut().unwrap().index = 9;
    assert!(matches!(
        begin(&message(&later, 2)),
        Err(SnapshotError::Busy(_))
    ));
    let info = receiver.files.list()[0];
    assert_eq!(
        (info.origin, info.state),
        (Origin::Received, SnapshotState::Receiving)
    );
    assert!(matches!(
        receiver.files.tables(&snapshot),
        Err(SnapshotError::Missing(_))
    ));
    receiver.files.release(&snapshot).unwrap();
    assert_eq!(receiver.files.remove_stale(|_| false).unwrap(), 0);
    drop(first);
    assert!(receiver.names().is_empty());

    let other = Side::new();
    let of_region = |region| {
        other.store.create(region);
        let snapshot = other.files.generate(region, &mut unhurried).unwrap();
        message(&snapshot, 2)
    };
    let messages: Vec<_> = (1..=1 + MAX_RECEIVING as u64).map(of_region).collect();
    let has_room = |region| receiver.files.room_for(region).is_ok();
    let mut open = vec![begin(&messages[1]).unwrap()];
    assert!(has_room(1) && !has_room(2), "one of a region at a time");
    open.extend(messages[2..].iter().map(|to| begin(to).unwrap()));
    assert!(matches!(begin(&messages[0]), Err(SnapshotError::Busy(_))));
    assert!(!has_room(1));
    open.pop();
    assert!(has_room(1));
    let Incoming::Wanted(incoming) = begin(&messages[0]).unwrap() else {
        panic!("it is nowhere");
    };
    incoming.finish().unwrap();
    assert!(matches!(begin(&messages[0]), Ok(Incoming::Present)));
}

#[test]
fn what_is_stale_goes_and_what_is_in_use_stays() {
    let sender = Side::with_region(1);
    let mut peer = sender.store.open(1, 1);
    sender.apply(&mut peer, 8, &[("default", "b", "v")]);
    let snapshot = sender.files.generate(1, &mut unhurried).unwrap();
    let mut reader = sender.files.chunks(&snapshot).unwrap();
    let second = sender.files.chunks(&snapshot).unwrap();
    assert_eq!(sender.files.list()[0].state, SnapshotState::Sending(2));
    drop(second);
    assert_eq!(sender.files.remove_stale(|_| false).unwrap(), 0);
    let receiver = Side::with_region(2);
    receive(
        &receiver,
        &snapshot,
        &[reader.next().unwrap().unwrap().to_vec()],
    )
    .unwrap();
    assert!(reader.next().is_none());
    drop(reader);
    assert_eq!(sender.files.list()[0].state, SnapshotState::Ready);
    assert_eq!(
        sender
            .files
            .remove_stale(|info| info.key.index >= 8)
            .unwrap(),
        0
    );
    assert_eq!(
        sender
            .files
            .remove_stale(|info| info.key.index >= 9)
            .unwrap(),
        1
    );
    assert!(sender.names().is_empty());
    let gone = sender.files.chunks(&snapshot);
    assert!(matches!(gone, Err(SnapshotError::Missing(_))), "{gone:?}");

    let info = receiver.files.list()[0];
    assert_eq!(
        (info.state, info.key),
        (SnapshotState::Ready, SnapshotKey::of(&snapshot).unwrap())
    );
    assert_eq!(receiver.files.remove_stale(|_| true).unwrap(), 0);
    let first = receiver.files.tables(&snapshot).unwrap();
    assert_eq!(receiver.files.tables(&snapshot).unwrap().len(), first.len());
    assert_eq!(receiver.files.list()[0].state, SnapshotState::Installing);
    assert_eq!(receiver.files.remove_stale(|_| false).unwrap(), 0);
    receiver.files.release(&snapshot).unwrap();
    receiver.files.release(&snapshot).unwrap();
    assert!(receiver.names().is_empty() && receiver.files.list().is_empty());
}

#[test]
fn an_open_removes_what_is_of_no_use_and_touches_nothing_else() {
    let sender = Side::with_region(1);
    let mut peer = sender.store.open(1, 1);
    sender.apply(&mut peer, 8, &[("default", "b", "v")]);
    let snapshot = sender.files.generate(1, &mut unhurried).unwrap();
    let receiver = Side::with_region(2);
    transfer(&sender, &receiver, &snapshot).unwrap();
    let complete = receiver.names();
    assert_eq!(complete.len(), 2);
    let key = SnapshotKey::of(&snapshot).unwrap().checksum;
    let strangers = ["notes.txt", "rev_1_6_8.sst", "x.tmp"];
    let useless = [
        "gen_1_6_8_00000000_default.sst".to_owned(),
        "gen_1_6_8_00000000_default.sst.tmp".to_owned(),
        "rev_1_6_8_00000000_write.sst".to_owned(),
        "rev_1_6_9_00000000.meta".to_owned(),
        format!("rev_1_6_8_{key:08x}_write.sst"),
        format!("rev_1_6_8_{key:08x}.meta.tmp"),
    ];
    for name in strangers
        .into_iter()
        .chain(useless.iter().map(|name| &**name))
    {
        receiver
            .store
            .fs
            .write_raw(receiver.path(name), b"?")
            .unwrap();
    }
    let reopen = || {
        let (fs, engines) = (receiver.store.fs.clone(), receiver.store.engines.clone());
        SnapshotStore::open(fs, Path::new(transfer::DIR), engines).unwrap()
    };
    assert_eq!(reopen().list().len(), 1);
    let mut expected = [&complete[..], &strangers.map(str::to_owned)].concat();
    expected.sort();
    assert_eq!(receiver.names(), expected);
    // A meta file without its table, or with a shorter one, is none; nor is one that is not whole.
    for harm in [0, 1] {
        let side = Side::on(receiver.store.crash(Survival::KeepAll));
        let table = side.path(complete.iter().find(|name| name.ends_with(".sst")).unwrap());
        match harm {
            0 => side.store.fs.truncate(&table, 100).unwrap(),
            _ => side.store.fs.remove_file(&table).unwrap(),
        }
        let side = Side::on(side.store.crash(Survival::KeepAll));
        assert!(side.files.list().is_empty());
        assert_eq!(side.names(), strangers);
    }
    let meta = complete
        .iter()
        .find(|name| name.ends_with(".meta"))
        .unwrap();
    receiver
        .store
        .fs
        .corrupt(receiver.path(meta), 30, 4)
        .unwrap();
    assert!(reopen().list().is_empty());
    assert_eq!(receiver.names(), strangers);
}

#[test]
fn stores_are_shared_between_threads_and_both_ends_of_a_stream_may_move() {
    fn shared<T: Clone + Send + Sync + 'static>() {}
    fn moved<T: Send + 'static>() {}
    shared::<SnapshotStore>();
    moved::<basalt_raftstore::snapshot::ChunkReader>();
    moved::<basalt_raftstore::snapshot::Receiver>();
}
