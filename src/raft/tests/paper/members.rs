//! Members that come, go, and change their role, one at a time; and what becomes of a leader that goes.

use basalt_raft::eraftpb::{ConfChangeType, ConfState, HardState, Message, MessageType};
use basalt_raft::{Config, Error, MemStorage, Role};

use crate::network::{Network, Peer};
use crate::parts::{accept, change, in_term, message, stored};

fn led_by_first(size: u64, config: impl Fn(u64) -> Config) -> Network {
    let mut network = Network::with_config(size, config);
    network.campaign(1);
    assert_eq!(network.leader(), 1);
    network
}

fn remove(id: u64) -> basalt_raft::eraftpb::ConfChange {
    change(ConfChangeType::RemoveNode, id)
}

fn members(peer: &Peer) -> &[u64] {
    peer.raft().configuration().voters.incoming.ids()
}

#[test]
fn a_leader_that_applies_its_removal_follows_and_the_others_go_on() {
    let mut network = led_by_first(3, Config::new);
    network.change(1, remove(1));
    assert_eq!(network.peer(1).state(), (Role::Follower, 1, 0));
    for id in [2, 3] {
        assert_eq!(members(network.peer(id)), [2, 3]);
    }
    network.pass(40);
    let leader = network.leader();
    assert_ne!(leader, 1);
    network.propose(leader, "without 1");
    assert_eq!(network.peer(5 - leader).log(), network.peer(leader).log());
    // The removed one knows that it is, and disturbs nobody.
    assert_eq!(network.peer(1).raft().role(), Role::Follower);
    let term = network.peer(leader).raft().term();
    network.pass(40);
    assert_eq!(network.peer(leader).raft().term(), term);
}

#[test]
fn without_stepping_down_a_removed_leader_leads_on_without_counting_itself() {
    let mut network = led_by_first(3, |id| Config {
        step_down_on_removal: false,
        ..Config::new(id)
    });
    network.change(1, remove(1));
    assert_eq!(network.peer(1).state(), (Role::Leader, 1, 1));
    assert_eq!(network.peer(1).raft().progress().iter().count(), 2);
    // It still repeats what the others may have missed, and hands over when it is told to.
    network.pass(1);
    assert_eq!(network.peer(2).state(), (Role::Follower, 1, 1));
    network.transfer(1, 2);
    assert_eq!(network.peer(2).raft().role(), Role::Leader);
    network.propose(2, "without 1");
    assert_eq!(network.peer(3).log(), network.peer(2).log());
    assert_eq!(network.peer(2).committed(), 4);
}

#[test]
fn of_two_members_the_one_that_stays_learns_of_the_leaders_removal() {
    let mut network = led_by_first(2, Config::new);
    network.change(1, remove(1));
    assert_eq!(members(network.peer(2)), [2]);
    network.pass(20);
    assert_eq!(network.peer(2).raft().role(), Role::Leader);
    network.propose(2, "alone");
    assert_eq!(network.peer(2).committed(), 4);
}

#[test]
fn a_leader_that_becomes_a_learner_follows() {
    let mut network = led_by_first(3, Config::new);
    network.change(1, change(ConfChangeType::AddLearnerNode, 1));
    assert_eq!(network.peer(1).state(), (Role::Follower, 1, 0));
    assert!(network.peer(1).raft().is_learner());
    network.pass(40);
    let leader = network.leader();
    assert_ne!(leader, 1);
    network.propose(leader, "data");
    assert_eq!(network.peer(1).log(), network.peer(leader).log());
}

#[test]
fn a_new_member_gets_the_whole_log() {
    let mut network = led_by_first(3, Config::new);
    for _ in 0..10 {
        network.propose(1, "data");
    }
    let first_members = MemStorage::with_voters(&[1, 2, 3]);
    network.add(Peer::new(Config::new(4), first_members));
    network.change(1, change(ConfChangeType::AddNode, 4));
    network.pass(1);
    assert_eq!(network.peer(4).log(), network.peer(1).log());
    assert_eq!(members(network.peer(4)), [1, 2, 3, 4]);
    // It counts: three of four are needed now.
    network.isolate(3);
    network.propose(1, "by 4");
    assert_eq!(network.peer(1).committed(), 13);
    network.isolate(4);
    network.propose(1, "by nobody");
    assert_eq!(network.peer(1).committed(), 13);
}

#[test]
fn a_promoted_learner_counts_and_campaigns() {
    let mut storage = MemStorage::new();
    storage.set_conf_state(ConfState {
        nodes: vec![1],
        learners: vec![2],
        ..ConfState::default()
    });
    let mut network = Network::of((1..=2).map(|id| Peer::new(Config::new(id), storage.clone())));
    network.campaign(1);
    network.change(1, change(ConfChangeType::AddNode, 2));
    assert!(!network.peer(2).raft().is_learner());
    network.isolate(2);
    let committed = network.peer(1).committed();
    network.propose(1, "not by 1 alone");
    assert_eq!(network.peer(1).committed(), committed);
    network.recover();
    network.pass(1);
    network.transfer(1, 2);
    assert_eq!(network.leader(), 2);
}

#[test]
fn a_change_takes_effect_when_it_is_applied_and_not_before() {
    let mut leader = Peer::new(Config::new(1), MemStorage::with_voters(&[1, 2]));
    leader.elect();
    leader.acknowledge_all();
    leader.change(change(ConfChangeType::AddNode, 3));
    assert_eq!(members(&leader), [1, 2]);
    let sent = leader.take_sent();
    leader.raw.step(accept(&sent[0])).expect("an answer");
    assert_eq!(leader.committed(), 2);
    assert_eq!(members(&leader), [1, 2]);
    leader.sync();
    assert_eq!(members(&leader), [1, 2, 3]);
}

#[test]
fn a_change_is_refused_until_the_one_before_it_is_applied() {
    let mut leader = Peer::new(Config::new(1), MemStorage::with_voters(&[1, 2, 3]));
    leader.elect();
    leader.acknowledge_all();
    let first = change(ConfChangeType::AddNode, 4);
    let second = change(ConfChangeType::AddNode, 5);
    leader.change(first);
    leader.change(second.clone());
    leader.acknowledge_all();
    assert_eq!(members(&leader), [1, 2, 3, 4]);
    leader.change(second);
    leader.acknowledge_all();
    assert_eq!(members(&leader), [1, 2, 3, 4, 5]);
}

#[test]
fn a_new_leader_takes_no_change_before_it_has_applied_what_its_log_had() {
    // There may be a change among the entries that it does not know to be committed.
    let storage = stored(&[1, 2, 3], &[1, 1], in_term(1));
    let mut leader = Peer::new(Config::new(1), storage);
    leader.elect();
    leader.change(change(ConfChangeType::AddNode, 4));
    leader.acknowledge_all();
    assert_eq!(leader.committed(), 4);
    assert_eq!(members(&leader), [1, 2, 3]);
    leader.change(change(ConfChangeType::AddNode, 4));
    leader.acknowledge_all();
    assert_eq!(members(&leader), [1, 2, 3, 4]);
}

#[test]
fn the_vote_of_a_removed_member_is_no_vote() {
    let mut candidate = Peer::new(Config::new(1), MemStorage::with_voters(&[1, 2, 3, 4]));
    candidate
        .raw
        .apply_conf_change(remove(4))
        .expect("voters stay");
    candidate.campaign();
    let yes = message(MessageType::MsgPreVoteResp, 4, 1, 1);
    let refused = candidate.try_step(yes);
    assert!(matches!(refused, Err(Error::PeerNotFound)), "{refused:?}");
    assert_eq!(candidate.state(), (Role::PreCandidate, 0, 0));
}

#[test]
fn a_node_that_was_removed_while_it_slept_disturbs_nobody() {
    let mut network = led_by_first(4, Config::new);
    network.isolate(4);
    network.change(1, remove(4));
    network.recover();
    for _ in 0..100 {
        network.tick(4);
        network.tick(1);
    }
    assert_eq!(network.peer(1).state(), (Role::Leader, 1, 1));
    assert_eq!(members(network.peer(4)), [1, 2, 3, 4]);
}

#[test]
fn a_change_that_its_caller_refuses_changes_nothing() {
    let mut node = Peer::new(Config::new(1), MemStorage::with_voters(&[1, 2]));
    for kind in [
        ConfChangeType::AddNode,
        ConfChangeType::RemoveNode,
        ConfChangeType::AddLearnerNode,
        ConfChangeType::UpdateNode,
    ] {
        let state = node
            .raw
            .apply_conf_change(change(kind, 0))
            .expect("a no-op");
        assert_eq!(state.nodes, [1, 2]);
    }
}

#[test]
fn a_removed_node_that_restarts_does_not_campaign() {
    let mut network = led_by_first(3, Config::new);
    network.change(1, remove(3));
    let removed = network.peer_mut(3);
    assert_eq!(members(removed), [1, 2]);
    removed.restart();
    for _ in 0..50 {
        removed.tick();
    }
    removed.campaign();
    assert_eq!(removed.raft().role(), Role::Follower);
    assert_eq!(removed.take_sent(), []);
    let commit = |peer: &Peer| {
        let HardState { commit, .. } = *peer.raw.storage().hard_state();
        commit
    };
    assert_eq!(commit(removed), 2);
}

#[test]
fn a_member_that_was_added_does_not_make_the_leader_step_down_before_it_could_speak() {
    let mut leader = Peer::new(Config::new(1), MemStorage::with_voters(&[1]));
    leader.campaign();
    leader.change(change(ConfChangeType::AddNode, 2));
    assert_eq!(members(&leader), [1, 2]);
    for _ in 0..10 {
        leader.tick();
    }
    assert_eq!(leader.state(), (Role::Leader, 1, 1));
    // But it must speak some time.
    for _ in 0..10 {
        leader.tick();
    }
    assert_eq!(leader.raft().role(), Role::Follower);
    let beats = |m: &Message| m.msg_type() == MessageType::MsgHeartbeat;
    assert!(leader.take_sent().iter().any(beats));
}

/// Two nodes. The first led, and has committed its own removal by the other's acknowledgement, and
/// proposed more by then; the other never learned that it is committed.
fn left_behind(commit_by_vote: bool) -> Network {
    let mut network = led_by_first(2, |id| Config {
        commit_by_vote,
        ..Config::new(id)
    });
    let leader = network.peer_mut(1);
    leader.change(remove(1));
    let removal = leader.take_sent();
    leader.propose("more");
    leader.step(accept(&removal[0]));
    assert_eq!(leader.state(), (Role::Follower, 1, 0));
    assert_eq!(members(leader), [2]);
    assert_eq!((leader.committed(), leader.log().len()), (2, 3));
    leader.take_sent();
    let other = network.peer_mut(2);
    for append in removal {
        other.step(append);
    }
    other.take_sent();
    assert_eq!((other.committed(), other.log().len()), (1, 2));
    network
}

#[test]
fn a_refused_vote_tells_of_the_removal_that_the_candidate_does_not_know_to_be_committed() {
    let mut network = left_behind(true);
    network.pass(60);
    assert_eq!(members(network.peer(2)), [2]);
    assert_eq!(network.peer(2).raft().role(), Role::Leader);
    network.propose(2, "alone");
    assert_eq!(network.peer(2).committed(), 4);

    // As in the reference implementation: the longer log refuses its vote, and does not campaign.
    let mut network = left_behind(false);
    network.pass(200);
    assert_ne!(network.peer(2).raft().role(), Role::Leader);
    assert_eq!(network.peer(2).committed(), 1);
}

#[test]
fn what_a_vote_request_tells_is_committed_only_where_the_entry_is_the_same() {
    for (index, term, committed) in [(2, 1, 2), (2, 2, 0), (3, 2, 3), (4, 2, 0), (0, 0, 0)] {
        let mut voter = Peer::new(Config::new(1), stored(&[1, 2, 3], &[1, 1, 2], in_term(2)));
        voter.step(Message {
            known_commit: index,
            known_commit_term: term,
            ..message(MessageType::MsgRequestVote, 2, 1, 3)
        });
        assert_eq!(voter.committed(), committed, "({term}, {index})");
        let answers = voter.take_sent();
        assert!(answers[0].reject);
        let told = (answers[0].known_commit, answers[0].known_commit_term);
        let terms = [0, 1, 1, 2];
        let of_committed = terms[usize::try_from(committed).expect("few")];
        assert_eq!(told, (committed, of_committed));
    }
}
