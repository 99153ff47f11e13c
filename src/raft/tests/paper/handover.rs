//! Handing leadership over, beyond what TinyKV's tests pin.

use basalt_raft::eraftpb::{ConfChangeType, ConfState, Message, MessageType};
use basalt_raft::{Config, DropReason, Error, MemStorage, Role};

use crate::network::{Network, Peer};
use crate::parts::{change, entries, message};

/// An election timeout of [`Config::new`].
const TIMEOUT: u64 = 10;

fn led_by_first() -> Network {
    let mut network = Network::with_config(3, Config::new);
    network.campaign(1);
    network
}

/// A follower of node 1 in term 1 with two entries.
fn follower() -> Peer {
    let mut follower = Peer::new(Config::new(2), MemStorage::with_voters(&[1, 2, 3]));
    follower.step(Message {
        entries: entries(&[1, 1]),
        ..message(MessageType::MsgAppend, 1, 2, 1)
    });
    follower.take_sent();
    follower
}

#[test]
fn the_leaders_wish_names_its_term_and_last_index() {
    let mut network = led_by_first();
    let leader = network.peer_mut(1);
    leader.raw.transfer_leader(2).expect("a member");
    leader.sync();
    let wish = Message {
        last_index: 1,
        ..message(MessageType::MsgTimeoutNow, 1, 2, 1)
    };
    assert_eq!(leader.take_sent(), [wish]);
}

#[test]
fn a_wish_at_another_last_index_is_ignored() {
    for last_index in [1, 3] {
        let mut follower = follower();
        follower.step(Message {
            last_index,
            ..message(MessageType::MsgTimeoutNow, 1, 2, 1)
        });
        assert_eq!(follower.state(), (Role::Follower, 1, 1));
        assert_eq!(follower.take_sent(), []);
    }
}

#[test]
fn a_wish_of_an_earlier_term_is_ignored() {
    let mut follower = follower();
    follower.step(message(MessageType::MsgHeartbeat, 3, 2, 2));
    follower.take_sent();
    follower.step(Message {
        last_index: 2,
        ..message(MessageType::MsgTimeoutNow, 1, 2, 1)
    });
    assert_eq!(follower.state(), (Role::Follower, 2, 3));
}

#[test]
fn a_wish_at_the_own_last_index_starts_an_election_without_a_pre_vote() {
    // 0 comes from a leader without this rule.
    for last_index in [2, 0] {
        let mut follower = follower();
        follower.step(Message {
            last_index,
            ..message(MessageType::MsgTimeoutNow, 1, 2, 1)
        });
        assert_eq!(follower.state(), (Role::Candidate, 2, 0));
        let request = |to| Message {
            index: 2,
            log_term: 1,
            context: "CampaignTransfer".into(),
            ..message(MessageType::MsgRequestVote, 2, to, 2)
        };
        assert_eq!(follower.take_sent(), [request(1), request(3)]);
    }
}

#[test]
fn proposals_are_refused_during_a_transfer_and_taken_after_it_failed() {
    let mut network = led_by_first();
    // However long the leader has led.
    network.pass(TIMEOUT - 1);
    network.isolate(2);
    network.transfer(1, 2);
    let leader = network.peer_mut(1);
    let refused = leader.raw.propose("data".into());
    assert!(matches!(
        refused,
        Err(Error::ProposalDropped(DropReason::Transferring))
    ));
    assert_eq!(leader.raft().log().last_index(), 1);
    for _ in 0..TIMEOUT {
        assert_eq!(network.peer(1).raft().transferee(), 2);
        network.tick(1);
    }
    assert_eq!(network.peer(1).raft().transferee(), 0);
    network.propose(1, "data");
    assert_eq!(network.peer(1).committed(), 2);
}

#[test]
fn the_same_wish_again_does_not_prolong_a_transfer() {
    let mut network = led_by_first();
    network.isolate(2);
    network.transfer(1, 2);
    for _ in 0..TIMEOUT / 2 {
        network.tick(1);
    }
    network.transfer(1, 2);
    for _ in 0..TIMEOUT / 2 {
        network.tick(1);
    }
    assert_eq!(network.peer(1).raft().transferee(), 0);
}

#[test]
fn leadership_is_not_handed_to_a_learner() {
    let mut storage = MemStorage::new();
    storage.set_conf_state(ConfState {
        nodes: vec![1, 2],
        learners: vec![3],
        ..ConfState::default()
    });
    let mut network = Network::of((1..=3).map(|id| Peer::new(Config::new(id), storage.clone())));
    network.campaign(1);
    network.transfer(1, 3);
    assert_eq!(network.leader(), 1);
    assert_eq!(network.peer(1).raft().transferee(), 0);
}

#[test]
fn a_transfer_needs_no_election_timeout_and_takes_the_log_along() {
    let mut network = led_by_first();
    network.isolate(3);
    for data in ["a", "b", "c"] {
        network.propose(1, data);
    }
    network.recover();
    network.transfer(1, 3);
    assert_eq!(network.leader(), 3);
    for peer in network.peers() {
        assert_eq!(peer.log_terms(), [1, 1, 1, 1, 2]);
        assert_eq!(peer.committed(), 5);
    }
}

#[test]
fn a_transfer_ends_when_its_target_is_no_voter_any_more() {
    for kind in [ConfChangeType::RemoveNode, ConfChangeType::AddLearnerNode] {
        let mut network = led_by_first();
        network.isolate(2);
        network.transfer(1, 2);
        let leader = network.peer_mut(1);
        assert_eq!(leader.raft().transferee(), 2);
        leader
            .raw
            .apply_conf_change(change(kind, 2))
            .expect("voters stay");
        assert_eq!(leader.raft().transferee(), 0);
        network.propose(1, "data");
        assert_eq!(network.peer(1).committed(), 2);
    }
}
