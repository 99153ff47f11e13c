//! Messages that come late, to a store whose peer is gone: what it says then, and that it lives.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use basalt_proto::{
    metapb::{Peer, RegionEpoch},
    raft_serverpb::RaftMessage,
};
use basalt_raft::eraftpb::{ConfChangeType, Message, MessageType};

use crate::{
    cluster::{Cluster, kind},
    node::peer,
};

/// A candidate's question, of a term that nobody is in yet.
fn question(kind: MessageType, from: Peer, to: Peer, conf_ver: u64) -> RaftMessage {
    RaftMessage {
        region_id: 1,
        from_peer: Some(from),
        to_peer: Some(to),
        region_epoch: Some(RegionEpoch {
            conf_ver,
            version: 1,
        }),
        message: Some(Message {
            msg_type: kind.into(),
            from: from.id,
            to: to.id,
            term: 1_000,
            ..Message::default()
        }),
        ..RaftMessage::default()
    }
}

#[test]
fn a_peer_that_never_knew_the_members_tells_no_member_that_it_was_removed() {
    let mut cluster = Cluster::new(4, 3, |_| {});
    cluster.lead(0);
    cluster.lose(|message| kind(message) == MessageType::MsgSnapshot);
    let joiner = peer(1004, 4);
    cluster.change(0, ConfChangeType::AddNode, joiner);
    cluster.ticks(10);
    cluster.change(0, ConfChangeType::RemoveNode, joiner);
    cluster.ticks(200);
    assert_eq!(cluster.region(3), None, "it went");
    let told = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&told);
    cluster.lose(move |message| {
        seen.fetch_or(message.is_tombstone, Ordering::Relaxed);
        false
    });
    let members = cluster.region(2).expect("a member").region.peers;
    let member = *members
        .iter()
        .find(|member| member.store_id == 3)
        .expect("it is one");
    let late = question(MessageType::MsgPreVote, member, joiner, 1);
    let store = cluster.running(3).expect("it runs");
    assert!(store.handle.raft_message(late));
    cluster.settle();
    assert!(!told.load(Ordering::Relaxed));
    assert!(cluster.region(2).is_some());
}

#[test]
fn a_message_for_an_older_peer_than_one_that_was_forgotten_is_ignored() {
    let mut cluster = Cluster::new(4, 3, |_| {});
    cluster.lead(0);
    // Its vote is in raftdb, and nobody answers what it asks afterwards.
    cluster.lose(|message| message.to_peer.is_some_and(|peer| peer.store_id != 4));
    let vote = question(MessageType::MsgRequestVote, peer(2, 2), peer(1009, 4), 9);
    let store = cluster.running(3).expect("it runs");
    assert!(store.handle.raft_message(vote));
    cluster.ticks(3);
    assert!(cluster.region(3).is_some(), "it waits for a snapshot");
    cluster.ticks(700);
    assert_eq!(cluster.region(3), None, "it is forgotten");
    let late = question(MessageType::MsgPreVote, peer(2, 2), peer(1004, 4), 8);
    let store = cluster.running(3).expect("it runs");
    assert!(store.handle.raft_message(late));
    cluster.ticks(3);
    assert_eq!(cluster.region(3), None);
}
