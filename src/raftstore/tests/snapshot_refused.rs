//! What a receiver of snapshot files refuses: bytes, messages, tables.

#[expect(dead_code, reason = "each test takes its part of what they share")]
mod support;
#[expect(dead_code, reason = "each test takes its part of what they share")]
#[path = "snapshot/transfer.rs"]
mod transfer;

use basalt_proto::{
    eraftpb::{MessageType, Snapshot},
    metapb::Peer,
    raft_serverpb::{KeyValue, RaftMessage, RaftSnapshotData},
};
use basalt_raftstore::snapshot::{
    Incoming, MAX_SNAPSHOT_BYTES, SNAPSHOT_CHUNK, SnapshotError, SnapshotKey,
};
use prost::Message;
use transfer::{Side, chunks, incompressible, message, receive, unhurried};

#[test]
fn bytes_that_are_not_those_announced_are_refused_and_leave_nothing() {
    let sender = Side::with_region(1);
    let mut peer = sender.store.open(1, 1);
    let value = incompressible(SNAPSHOT_CHUNK);
    sender.apply_bytes(
        &mut peer,
        8,
        &[
            ("default", "b", &value),
            ("write", "w", &value),
            ("lock", "k", b"8"),
        ],
    );
    let snapshot = sender.files.generate(1, &mut unhurried).unwrap();
    let good: Vec<Vec<u8>> = chunks(&sender, &snapshot);
    assert_eq!(good.len(), 5);
    let receiver = Side::with_region(2);
    let check = |what: &str, chunks: &[Vec<u8>], refused: bool| {
        let result = receive(&receiver, &snapshot, chunks);
        let expected = match &result {
            Err(SnapshotError::Refused(_)) => refused,
            Err(SnapshotError::Damaged(_)) => !refused,
            _ => false,
        };
        assert!(expected, "{what}: {result:?}");
        assert!(
            receiver.names().is_empty(),
            "{what}: {:?}",
            receiver.names()
        );
        assert!(receiver.files.list().is_empty(), "{what}");
        let tables = receiver.files.tables(&snapshot);
        assert!(matches!(tables, Err(SnapshotError::Missing(_))), "{what}");
    };
    for at in 0..good.len() {
        let mut damaged = good.clone();
        let middle = damaged[at].len() / 2;
        damaged[at][middle] ^= 1;
        check("damaged", &damaged, false);
        let mut lacking = good.clone();
        lacking.remove(at);
        check("missing", &lacking, false);
        let mut short = good.clone();
        short[at].pop();
        check("a byte short", &short, false);
    }
    check("nothing", &[], false);
    check("extra", &[&good[..], &[vec![0]]].concat(), false);
    let mut swapped = good.clone();
    swapped.swap(0, 2);
    check("wrong order", &swapped, false);
    check(
        "an empty chunk",
        &[&good[..1], &[vec![]], &good[1..]].concat(),
        true,
    );
    // Boundaries do not matter.
    let halves: Vec<Vec<u8>> = good.concat().chunks(700_001).map(<[u8]>::to_vec).collect();
    receive(&receiver, &snapshot, &halves).unwrap();
}

#[test]
fn after_an_error_a_receiver_takes_nothing_more() {
    let sender = Side::with_region(1);
    let mut peer = sender.store.open(1, 1);
    sender.apply(&mut peer, 8, &[("default", "b", "v")]);
    let snapshot = sender.files.generate(1, &mut unhurried).unwrap();
    let receiver = Side::with_region(2);
    let Incoming::Wanted(mut incoming) = receiver.files.receive(&message(&snapshot, 2)).unwrap()
    else {
        panic!("it is nowhere");
    };
    assert_eq!(incoming.key(), SnapshotKey::of(&snapshot).unwrap());
    let whole = chunks(&sender, &snapshot).concat();
    assert_eq!(incoming.missing(), whole.len() as u64);
    incoming.push(&[]).unwrap_err();
    assert!(matches!(
        incoming.push(&whole),
        Err(SnapshotError::Refused(_))
    ));
    assert!(matches!(incoming.finish(), Err(SnapshotError::Refused(_))));
}

#[test]
fn messages_that_are_no_snapshots_of_files_are_refused() {
    let sender = Side::with_region(1);
    let mut peer = sender.store.open(1, 1);
    sender.apply(&mut peer, 8, &[("default", "b", "v")]);
    let snapshot = sender.files.generate(1, &mut unhurried).unwrap();
    let receiver = Side::new();
    let refused = |message: &RaftMessage, what: &str| {
        let result = receiver.files.receive(message);
        assert!(
            matches!(result, Err(SnapshotError::Refused(_))),
            "{what}: {result:?}"
        );
    };
    let good = message(&snapshot, 2);
    let with = |change: fn(&mut RaftMessage)| {
        let mut message = good.clone();
        change(&mut message);
        message
    };
    refused(&with(|m| m.message = None), "no Raft message");
    refused(
        &with(|m| m.message.as_mut().unwrap().snapshot = None),
        "no snapshot",
    );
    refused(
        &with(|m| {
            m.message
                .as_mut()
                .unwrap()
                .set_msg_type(MessageType::MsgAppend);
        }),
        "another type",
    );
    refused(&with(|m| m.region_id = 2), "another region");
    refused(&with(|m| m.to_peer = None), "to nobody");
    refused(
        &with(|m| m.to_peer = Some(Peer { id: 9, store_id: 9 })),
        "to a stranger",
    );

    let forged = |change: &dyn Fn(&mut RaftSnapshotData)| {
        let mut data = RaftSnapshotData::decode(&snapshot.data[..]).unwrap();
        change(&mut data);
        message(
            &Snapshot {
                data: data.encode_to_vec().into(),
                ..snapshot.clone()
            },
            2,
        )
    };
    fn files(data: &mut RaftSnapshotData) -> &mut Vec<basalt_proto::raft_serverpb::SnapshotCfFile> {
        &mut data.meta.as_mut().unwrap().cf_files
    }
    refused(&forged(&|data| data.meta = None), "no files");
    refused(&forged(&|data| drop(files(data).pop())), "two files");
    refused(&forged(&|data| files(data).swap(1, 2)), "another order");
    refused(
        &forged(&|data| files(data)[1].cf = "lock".into()),
        "another name",
    );
    refused(&forged(&|data| files(data)[1].size = 7), "another sum");
    refused(
        &forged(&|data| files(data)[1].checksum = 7),
        "a checksum of nothing",
    );
    refused(
        &forged(&|data| files(data)[1].size = u64::MAX),
        "an overflow",
    );
    let large = |data: &mut RaftSnapshotData| {
        files(data)[0].size = MAX_SNAPSHOT_BYTES + 1;
        data.file_size = MAX_SNAPSHOT_BYTES + 1;
    };
    refused(&forged(&large), "too large");
    refused(
        &forged(&|data| data.data.push(KeyValue::default())),
        "pairs",
    );
    refused(&forged(&|data| data.region = None), "no region");
    refused(
        &forged(&|data| data.region.as_mut().unwrap().id = 0),
        "region 0",
    );
    refused(
        &forged(&|data| data.region.as_mut().unwrap().peers.clear()),
        "no peers",
    );
    let region = |start: &'static [u8], end: &'static [u8]| {
        forged(&move |data| {
            let region = data.region.as_mut().unwrap();
            (region.start_key, region.end_key) = (start.into(), end.into());
        })
    };
    refused(&region(b"y", b"b"), "an inverted range");
    refused(&region(b"b", b"b"), "an empty range");
    static LONG: [u8; 70_000] = [b'k'; 70_000];
    refused(&region(b"b", &LONG), "a long key");

    let noise = Snapshot {
        data: vec![0xff; 9].into(),
        ..snapshot.clone()
    };
    refused(&message(&noise, 2), "noise");
    for metadata in [None, Some((0, 6)), Some((8, 0))] {
        let mut bare = snapshot.clone();
        match (metadata, bare.metadata.as_mut()) {
            (Some((index, term)), Some(metadata)) => {
                (metadata.index, metadata.term) = (index, term);
            }
            _ => bare.metadata = None,
        }
        refused(&message(&bare, 2), "no place in the log");
    }
    // The announced size of an honest-looking message is not allocated.
    let huge = forged(&|data| {
        files(data)[0].size = MAX_SNAPSHOT_BYTES;
        data.file_size = MAX_SNAPSHOT_BYTES;
    });
    assert!(matches!(
        receiver.files.receive(&huge),
        Ok(Incoming::Wanted(_))
    ));
    assert!(receiver.files.list().is_empty() && receiver.names().is_empty());
}

#[test]
fn tables_with_keys_outside_the_region_and_files_that_are_no_tables_are_refused() {
    let sender = Side::with_region(1);
    let mut peer = sender.store.open(1, 1);
    sender.apply(
        &mut peer,
        8,
        &[("default", "c", "v"), ("default", "w", "v")],
    );
    let snapshot = sender.files.generate(1, &mut unhurried).unwrap();
    let bytes = chunks(&sender, &snapshot);
    let receiver = Side::with_region(2);
    let ranged = |start: &'static [u8], end: &'static [u8]| {
        let mut data = RaftSnapshotData::decode(&snapshot.data[..]).unwrap();
        let region = data.region.as_mut().unwrap();
        (region.start_key, region.end_key) = (start.into(), end.into());
        Snapshot {
            data: data.encode_to_vec().into(),
            ..snapshot.clone()
        }
    };
    for (start, end) in [
        (&b"d"[..], &b""[..]),
        (b"c\0", b"x"),
        (b"", b"w"),
        (b"x", b"y"),
    ] {
        let result = receive(&receiver, &ranged(start, end), &bytes);
        assert!(
            matches!(result, Err(SnapshotError::Damaged(_))),
            "{start:?} {end:?}: {result:?}"
        );
        assert!(receiver.names().is_empty());
    }
    for (start, end) in [(&b"c"[..], &b"w\0"[..]), (b"", b"")] {
        let snapshot = ranged(start, end);
        receive(&receiver, &snapshot, &bytes).unwrap();
        receiver.files.release(&snapshot).unwrap();
    }
    let of_file = |content: &[u8]| {
        let mut data = RaftSnapshotData::decode(&snapshot.data[..]).unwrap();
        let file = &mut data.meta.as_mut().unwrap().cf_files[0];
        (file.size, file.checksum) = (content.len() as u64, crc32fast::hash(content));
        data.file_size = file.size;
        Snapshot {
            data: data.encode_to_vec().into(),
            ..snapshot.clone()
        }
    };
    sender.store.engines.flush_kv().unwrap();
    let own =
        sender.store.fs.files().into_iter().find(|path| {
            path.starts_with("/kv") && path.extension().is_some_and(|kind| kind == "sst")
        });
    let own = sender.store.fs.read_raw(own.unwrap()).unwrap();
    let mut damaged = bytes.concat();
    damaged[20] ^= 1;
    for content in [vec![7], vec![7; 4000], damaged, own] {
        let result = receive(&receiver, &of_file(&content), &[content]);
        assert!(
            matches!(result, Err(SnapshotError::Damaged(_))),
            "{result:?}"
        );
        assert!(receiver.names().is_empty());
    }
    // Good tables, and not the ones that are announced.
    let mut data = RaftSnapshotData::decode(&snapshot.data[..]).unwrap();
    data.meta.as_mut().unwrap().cf_files[0].checksum ^= 1;
    let other = Snapshot {
        data: data.encode_to_vec().into(),
        ..snapshot.clone()
    };
    let result = receive(&receiver, &other, &bytes);
    assert!(
        matches!(result, Err(SnapshotError::Damaged(_))),
        "{result:?}"
    );
}
