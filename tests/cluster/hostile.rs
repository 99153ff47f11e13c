//! Streams between stores that no store of the cluster would send.

use std::{collections::BTreeMap, time::Duration};

use basalt_testkit::{Replay, Rng, Seeds};
use basaltkv::{
    proto::{
        eraftpb::{Entry, Message, Snapshot},
        metapb::{Peer, RegionEpoch},
        raft_serverpb::{RaftMessage, SnapshotChunk},
    },
    server::stubs::tinykvpb::tiny_kv_client::TinyKvClient,
};
use tonic::{Code, Request, Status};

use crate::processes::{Cluster, done};

/// The facts of a store's `MODE` file.
fn facts(cluster: &Cluster, id: usize) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(cluster.dir(id).join("MODE")).unwrap();
    let facts = text.lines().filter_map(|line| line.split_once(' '));
    facts
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Sends messages to the store 1 as somebody with these metadata; what it is answered.
async fn raft(
    cluster: &Cluster,
    card: &[(&'static str, String)],
    messages: Vec<RaftMessage>,
) -> Result<(), Status> {
    let addr = format!("http://{}", cluster.addr(1));
    let mut client = TinyKvClient::connect(addr).await.unwrap();
    let mut request = Request::new(tokio_stream::iter(messages));
    for (name, value) in card {
        request.metadata_mut().insert(*name, value.parse().unwrap());
    }
    let answer = tokio::time::timeout(Duration::from_secs(10), client.raft(request)).await;
    answer.unwrap().map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_let_in_only_from_a_store_of_the_cluster_with_its_first_disk() {
    let cluster = tokio::task::spawn_blocking(Cluster::start).await.unwrap();
    let second = facts(&cluster, 2);
    let (id, disk) = (second["cluster"].clone(), second["incarnation"].clone());
    let hex = |number: u64| format!("{number:016x}");
    let card = |cluster: &str, store: &str, disk: &str, target: &str| {
        vec![
            ("basalt-cluster", cluster.to_owned()),
            ("basalt-store", store.to_owned()),
            ("basalt-incarnation", disk.to_owned()),
            ("basalt-target", target.to_owned()),
        ]
    };
    for (card, words) in [
        (vec![], "says of which cluster"),
        (card("12", "2", &disk, "1"), "says of which cluster"),
        (card(&hex(7), "2", &disk, "1"), "the cluster here is"),
        (card(&id, "2", &hex(7), "1"), "known with another disk"),
        (card(&id, "2", &disk, "3"), "this is store 1, not store 3"),
        (card(&id, "1", &disk, "1"), "makes no sense"),
    ] {
        let status = raft(&cluster, &card, vec![]).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
        assert!(status.message().contains(words), "{words:?}: {status}");
    }
    let status = raft(&cluster, &card(&id, "77", &hex(7), "1"), vec![]).await;
    assert_eq!(
        status.unwrap_err().code(),
        Code::Unavailable,
        "not known yet"
    );
    raft(&cluster, &card(&id, "2", &disk, "1"), vec![])
        .await
        .unwrap();
}

/// A message of any kind from the peer on store 2 to that on store 1, or to and from nobody. What it claims of logs
/// and terms is small. (Other names would be lies that a member is believed: a higher id of a peer means that the one
/// that is there was replaced.)
fn message(rng: &mut Rng) -> RaftMessage {
    let small = |rng: &mut Rng| rng.below(4);
    let maybe = |rng: &mut Rng, id: u64| if rng.below(8) == 0 { 0 } else { id };
    let entry = |rng: &mut Rng| Entry {
        entry_type: i32::try_from(rng.below(5)).unwrap(),
        term: small(rng),
        index: small(rng),
        data: vec![rng.byte(); 3].into(),
    };
    let count = rng.below(3);
    let entries = (0..count).map(|_| entry(rng)).collect();
    let inner = Message {
        msg_type: i32::try_from(rng.below(30)).unwrap(),
        from: small(rng),
        to: small(rng),
        term: small(rng),
        index: small(rng),
        log_term: small(rng),
        commit: small(rng),
        entries,
        snapshot: (rng.below(4) == 0).then(|| Snapshot::default().into()),
        ..Message::default()
    };
    RaftMessage {
        region_id: small(rng),
        from_peer: (rng.below(8) > 0).then(|| Peer {
            id: maybe(rng, 2),
            store_id: maybe(rng, 2),
        }),
        to_peer: (rng.below(8) > 0).then(|| Peer {
            id: maybe(rng, 1),
            store_id: maybe(rng, 1),
        }),
        message: (rng.below(8) > 0).then_some(inner),
        region_epoch: (rng.below(8) > 0).then(|| RegionEpoch {
            conf_ver: small(rng),
            version: small(rng),
        }),
        ..RaftMessage::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_any_kind_from_a_member_harm_nobody() {
    let cluster = tokio::task::spawn_blocking(Cluster::start).await.unwrap();
    let all = cluster.all();
    done(&["put", "before", "v", "--addr", &all]);
    let second = facts(&cluster, 2);
    let card = vec![
        ("basalt-cluster", second["cluster"].clone()),
        ("basalt-store", "2".to_owned()),
        ("basalt-incarnation", second["incarnation"].clone()),
        ("basalt-target", "1".to_owned()),
    ];
    for seed in Seeds::new("hostile messages", 1) {
        let _replay = Replay::new("--test cluster", "messages_of_any_kind", seed);
        let mut rng = Rng::new(seed);
        for _ in 0..10 {
            let messages = (0..1000).map(|_| message(&mut rng)).collect();
            raft(&cluster, &card, messages).await.unwrap();
        }
        let addr = format!("http://{}", cluster.addr(1));
        let mut client = TinyKvClient::connect(addr).await.unwrap();
        for _ in 0..50 {
            let count = rng.below(4);
            let chunks: Vec<SnapshotChunk> = (0..count)
                .map(|_| SnapshotChunk {
                    message: (rng.below(2) == 0).then(|| message(&mut rng)),
                    data: vec![7; rng.len(0..100)].into(),
                })
                .collect();
            let mut request = Request::new(tokio_stream::iter(chunks));
            for (name, value) in &card {
                request.metadata_mut().insert(*name, value.parse().unwrap());
            }
            let status = client.snapshot(request).await.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        }
    }
    tokio::task::block_in_place(|| {
        assert_eq!(done(&["get", "before", "--addr", &all]), "v\n");
        done(&["put", "after", "v", "--addr", &all]);
        for id in 1..=3 {
            let status = cluster.status(id).unwrap();
            assert_eq!(status.reason, "", "store {id}");
        }
    });
}
