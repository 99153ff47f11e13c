//! What the claims stand on: the network itself. Everything in `network.rs` is used here, so that
//! each crate that includes it does.

use basalt_raft::eraftpb::{ConfChangeType, Message, MessageType};
use basalt_raft::{MemStorage, Role};

use super::{Network, Peer};
use crate::parts::{change, entry, entry_with, in_term, message, snapshot, stored, tinykv_config};

#[test]
fn what_is_cut_or_ignored_does_not_arrive_until_the_network_recovers() {
    let mut network = Network::new(4);
    network.cut(1, 2);
    network.cut_one_way(1, 3);
    network.campaign(1);
    assert_eq!(network.peer(2).raft().term(), 0);
    assert_eq!(network.peer(3).raft().term(), 0);
    assert_eq!(network.peer(4).raft().vote(), 1);
    network.isolate(4);
    network.campaign(4);
    assert_eq!(network.peer(1).state(), (Role::Candidate, 1, 0));
    network.recover();
    network.ignore(MessageType::MsgRequestVote);
    network.campaign(2);
    assert_eq!(network.peer(1).raft().term(), 1);
    network.recover();
    network.campaign(4);
    assert_eq!(network.leader(), 4);
    assert_eq!(network.states()[0], (Role::Follower, 3, 4));
    assert_eq!(network.peers().count(), 4);
    assert_eq!(Network::with_dead(3, &[2]).peers().count(), 2);
}

#[test]
fn a_peer_writes_applies_and_acknowledges_all_that_it_is_told() {
    let mut leader = Peer::of(1, &[1, 2, 3]);
    leader.elect();
    leader.propose("a");
    leader.acknowledge_all();
    assert_eq!(leader.committed(), 2);
    assert_eq!(leader.log_terms(), [1, 1]);
    let both = [entry(1, 1), entry_with(2, 1, "a")];
    assert_eq!(leader.log(), both);
    assert_eq!(leader.take_applied(), both);
    leader.change(change(ConfChangeType::AddNode, 4));
    leader.acknowledge_all();
    assert!(leader.raft().configuration().members().contains(4));

    leader.propose("b");
    leader.acknowledge_all();
    leader.take_applied();

    leader.restart();
    assert_eq!(leader.state(), (Role::Follower, 1, 0));
    assert_eq!(leader.take_applied(), [entry_with(4, 1, "b")]);
    assert!(leader.raft().configuration().members().contains(4));
}

#[test]
fn a_lone_peer_answers_its_reads() {
    let mut leader = Peer::new(tinykv_config(1), MemStorage::with_voters(&[1]));
    leader.campaign();
    leader.read("now");
    let [read] = &leader.take_reads()[..] else {
        panic!("one read");
    };
    assert_eq!((read.index, &read.context[..]), (1, b"now".as_slice()));
}

#[test]
fn a_network_takes_nodes_in_and_hands_leadership_and_snapshots_on() {
    let storage = stored(&[1, 2], &[1, 1], in_term(1));
    let mut network = Network::of([
        Peer::new(tinykv_config(1), storage),
        Peer::new(tinykv_config(2), MemStorage::with_voters(&[1, 2])),
    ]);
    network.campaign(1);
    network.propose(1, "a");
    network.transfer(1, 2);
    assert_eq!(network.leader(), 2);
    network.change(2, change(ConfChangeType::AddNode, 3));
    network.peer_mut(2).compact();
    network.add(Peer::new(tinykv_config(3), MemStorage::new()));
    network.pass(1);
    assert_eq!(network.peer(3).committed(), network.peer(2).committed());

    network.send(message(MessageType::MsgHeartbeat, 2, 3, 9));
    assert_eq!(network.peer(2).state(), (Role::Follower, 9, 0));
    network.peer_mut(1).step(Message {
        snapshot: Some(Box::new(snapshot(9, 8, &[1, 2]))),
        ..message(MessageType::MsgSnapshot, 2, 1, 9)
    });
    assert_eq!(network.peer(1).raft().log().last_index(), 9);
}
