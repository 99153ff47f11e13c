//! Project 2C: snapshots in the place of a log that is gone.

use basalt_raft::eraftpb::{HardState, Message, MessageType, Snapshot};
use basalt_raft::{MemStorage, Role};

use crate::network::{Network, Peer};
use crate::parts::{accept, in_term, message, snapshot, stored, tinykv_config};

/// A leader of term 11, node `from`, sends `snapshot` to `follower`.
fn install(follower: &mut Peer, from: u64, snapshot: Snapshot) {
    let to = follower.raft().id();
    follower.step(Message {
        snapshot: Some(Box::new(snapshot)),
        session: 1,
        ..message(MessageType::MsgSnapshot, from, to, 11)
    });
}

#[test]
fn a_snapshot_sets_the_last_entry_and_the_members() {
    let mut follower = Peer::of(1, &[1, 2]);
    install(&mut follower, 2, snapshot(11, 11, &[1, 2, 3]));
    let log = follower.raft().log();
    assert_eq!((log.last_index(), log.last_term()), (11, 11));
    assert_eq!(log.term(11).expect("the snapshot's"), 11);
    assert_eq!((log.committed(), log.applied()), (11, 11));
    assert_eq!(log.first_index().expect("storage in memory"), 12);
    assert_eq!(follower.raft().configuration().members().ids(), [1, 2, 3]);
    let taken = Message {
        index: 11,
        session: 1,
        ..message(MessageType::MsgAppendResponse, 1, 2, 11)
    };
    assert_eq!(follower.take_sent(), [taken]);
}

#[test]
fn a_snapshot_at_or_below_the_commit_index_is_ignored() {
    for index in 1..=3 {
        let promised = HardState {
            commit: 3,
            ..in_term(1)
        };
        let storage = stored(&[1, 2], &[1, 1, 1], promised);
        let mut follower = Peer::new(tinykv_config(1), storage);
        let applied = follower.take_applied();
        install(&mut follower, 2, snapshot(index, 1, &[1, 2]));
        assert_eq!(follower.committed(), 3);
        assert_eq!(follower.log(), applied);
        assert_eq!(follower.take_applied(), []);
        let known = Message {
            index: 3,
            session: 1,
            ..message(MessageType::MsgAppendResponse, 1, 2, 11)
        };
        assert_eq!(follower.take_sent(), [known]);
    }
}

#[test]
fn a_follower_that_needs_compacted_entries_gets_one_snapshot_and_no_append() {
    let mut storage = MemStorage::new();
    let start = snapshot(11, 11, &[1, 2, 3]);
    storage.apply_snapshot(start).expect("a first snapshot");
    storage.set_hard_state(HardState {
        commit: 11,
        ..in_term(11)
    });
    let mut leader = Peer::new(tinykv_config(1), storage);
    leader.elect();
    // Node 2 takes the first entry and is not heard from again; node 3 takes all.
    let mut lost = Vec::new();
    for round in 0..4 {
        for append in leader.take_sent() {
            if append.to == 3 || round == 0 {
                leader.step(accept(&append));
            } else {
                lost.push(append);
            }
        }
        leader.propose("somedata");
    }
    assert!(!lost.is_empty());
    while let Some(append) = leader.take_sent().into_iter().find(|m| m.to == 3) {
        leader.step(accept(&append));
    }
    leader.compact();
    leader.raw.report_unreachable(2).expect("a member");
    leader.take_sent();
    let progress = leader.raft().progress().get(2).expect("a member");
    let first = leader
        .raft()
        .log()
        .first_index()
        .expect("storage in memory");
    assert!(
        progress.next < first,
        "next {}, first {first}",
        progress.next
    );

    leader.propose("somedata");
    let to_2 = |m: &Message| m.to == 2;
    let sent: Vec<Message> = leader.take_sent().into_iter().filter(to_2).collect();
    let [message] = sent.as_slice() else {
        panic!("{sent:?}");
    };
    assert_eq!(message.msg_type(), MessageType::MsgSnapshot);
    let snapshot = message
        .snapshot
        .as_deref()
        .and_then(|s| s.metadata.as_ref());
    assert_eq!(snapshot.map(|metadata| metadata.index), Some(first - 1));
    leader.propose("somedata");
    assert!(!leader.take_sent().iter().any(to_2));
}

#[test]
fn a_snapshot_tells_who_leads() {
    let mut follower = Peer::of(2, &[1, 2]);
    install(&mut follower, 1, snapshot(11, 11, &[1, 2]));
    assert_eq!(follower.state(), (Role::Follower, 11, 1));
}

#[test]
fn a_snapshot_replaces_the_members_by_its_own() {
    let mut follower = Peer::of(2, &[1, 2, 3]);
    // Also where its leader is not one of them.
    install(&mut follower, 1, snapshot(11, 11, &[2, 3, 4]));
    assert_eq!(follower.state(), (Role::Follower, 11, 1));
    assert_eq!(follower.raft().configuration().members().ids(), [2, 3, 4]);
    let tracked: Vec<u64> = follower
        .raft()
        .progress()
        .iter()
        .map(|(id, _)| id)
        .collect();
    assert_eq!(tracked, [2, 3, 4]);
}

#[test]
fn a_node_that_slept_through_a_compaction_catches_up_by_a_snapshot() {
    let mut network = Network::new(3);
    network.campaign(1);
    network.isolate(3);
    for _ in 0..=100 {
        network.propose(1, "");
    }
    network.peer_mut(1).compact();
    network.recover();
    network.tick(1);
    network.propose(1, "");
    network.propose(1, "");
    let committed = network.peer(1).committed();
    assert_eq!(committed, 1 + 101 + 2);
    assert_eq!(network.peer(3).committed(), committed);
    let snapshot_at = network.peer(3).raft().log().first_index();
    assert_eq!(snapshot_at.expect("storage in memory"), 1 + 101 + 1);
}
