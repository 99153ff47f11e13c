//! Joint consensus: many members change at once, through a configuration that needs both majorities.

use basalt_raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, Entry, EntryType,
    Message, MessageType,
};
use basalt_raft::{Config, MemStorage, Role};

use crate::network::{Network, Peer};
use crate::parts::message;

use ConfChangeTransition::{TransitionAuto, TransitionJointExplicit, TransitionJointImplicit};
use ConfChangeType::{AddLearnerNode, AddNode, RemoveNode};

/// Several members at once.
fn changes(transition: ConfChangeTransition, singles: &[(ConfChangeType, u64)]) -> ConfChangeV2 {
    let single = |(change_type, node_id): &(ConfChangeType, u64)| ConfChangeSingle {
        change_type: (*change_type).into(),
        node_id: *node_id,
    };
    ConfChangeV2 {
        transition: transition.into(),
        changes: singles.iter().map(single).collect(),
        ..ConfChangeV2::default()
    }
}

/// The end of a joint configuration.
fn leave() -> ConfChangeV2 {
    ConfChangeV2::default()
}

/// Nodes 1 to 6, of which 1, 2 and 3 are members and 1 leads.
fn six_of_which_three_are_members() -> Network {
    let voters = MemStorage::with_voters(&[1, 2, 3]);
    let node = |id| {
        let storage = if id <= 3 {
            voters.clone()
        } else {
            MemStorage::new()
        };
        Peer::new(Config::new(id), storage)
    };
    let mut network = Network::of((1..=6).map(node));
    network.campaign(1);
    // Nodes that join are not told how it began: they get a snapshot.
    for id in 1..=3 {
        network.peer_mut(id).compact();
    }
    network
}

/// The entry at this index, behind the one that is compacted.
fn entry_at(network: &Network, id: u64, index: u64) -> Entry {
    let log = network.peer(id).log();
    let found = log.into_iter().find(|entry| entry.index == index);
    found.unwrap_or_else(|| panic!("node {id} has no entry {index}"))
}

#[track_caller]
fn has_all_of_1(network: &Network, id: u64) {
    assert_eq!(network.peer(id).log().last(), network.peer(1).log().last());
    assert_eq!(network.peer(id).committed(), network.peer(1).committed());
}

/// How a node sees the membership.
fn seen(network: &Network, id: u64) -> String {
    network.peer(id).raft().configuration().to_string()
}

/// 2 and 3 make room for 4 and 5.
const SWAP: [(ConfChangeType, u64); 4] =
    [(RemoveNode, 2), (RemoveNode, 3), (AddNode, 4), (AddNode, 5)];

#[test]
fn an_explicit_joint_configuration_stays_until_it_is_left() {
    let mut network = six_of_which_three_are_members();
    network.change(1, changes(TransitionJointExplicit, &SWAP));
    network.pass(3);
    for id in 1..=5 {
        assert_eq!(seen(&network, id), "voters=(1 4 5)&&(1 2 3)");
    }
    network.change(1, leave());
    network.pass(1);
    for id in [1, 4, 5] {
        assert_eq!(seen(&network, id), "voters=(1 4 5)");
    }
    network.propose(1, "data");
    assert_eq!(network.peer(1).raft().progress().len(), 3);
    has_all_of_1(&network, 4);
}

#[test]
fn an_implicit_joint_configuration_is_left_by_its_leader() {
    let mut network = six_of_which_three_are_members();
    network.change(1, changes(TransitionJointImplicit, &SWAP));
    network.pass(3);
    for id in [1, 4, 5] {
        assert_eq!(seen(&network, id), "voters=(1 4 5)");
    }
}

#[test]
fn an_automatic_change_of_one_voter_is_simple_and_of_more_is_joint() {
    let mut network = six_of_which_three_are_members();
    network.change(1, changes(TransitionAuto, &[(AddNode, 4)]));
    assert_eq!(seen(&network, 1), "voters=(1 2 3 4)");
    assert_eq!(network.peer(1).raft().log().last_index(), 2);
    network.change(
        1,
        changes(TransitionAuto, &[(RemoveNode, 4), (AddLearnerNode, 5)]),
    );
    network.pass(2);
    assert_eq!(seen(&network, 1), "voters=(1 2 3) learners=(5)");
    // Here one entry went in and one went out.
    let kinds = [2, 3, 4].map(|index| entry_at(&network, 1, index).entry_type());
    assert_eq!(kinds, [EntryType::EntryConfChangeV2; 3]);
    assert!(entry_at(&network, 1, 4).data.is_empty());
}

#[test]
fn in_a_joint_configuration_other_changes_are_refused() {
    let mut network = six_of_which_three_are_members();
    network.change(1, changes(TransitionJointExplicit, &SWAP));
    network.pass(1);
    network.change(1, changes(TransitionAuto, &[(AddNode, 6)]));
    assert_eq!(
        entry_at(&network, 1, 3).entry_type(),
        EntryType::EntryNormal
    );
    assert_eq!(seen(&network, 1), "voters=(1 4 5)&&(1 2 3)");
    // And outside of one there is nothing to leave.
    network.change(1, leave());
    network.change(1, leave());
    let kinds = [4, 5].map(|index| entry_at(&network, 1, index).entry_type());
    assert_eq!(
        kinds,
        [EntryType::EntryConfChangeV2, EntryType::EntryNormal]
    );
    assert_eq!(seen(&network, 1), "voters=(1 4 5)");
}

#[test]
fn in_a_joint_configuration_both_majorities_commit() {
    for (silent, commits) in [
        ([2, 3], false),
        ([4, 5], false),
        ([2, 4], true),
        ([3, 5], true),
    ] {
        let mut network = six_of_which_three_are_members();
        network.change(1, changes(TransitionJointExplicit, &SWAP));
        network.pass(1);
        let committed = network.peer(1).committed();
        for id in silent {
            network.isolate(id);
        }
        network.propose(1, "data");
        let more = network.peer(1).committed() > committed;
        assert_eq!(more, commits, "{silent:?} are silent");
    }
}

#[test]
fn in_a_joint_configuration_both_majorities_elect() {
    // The leader is gone, and somebody else.
    for (silent, elects) in [(6, true), (2, false), (3, false), (4, false), (5, false)] {
        let mut network = six_of_which_three_are_members();
        network.change(1, changes(TransitionJointExplicit, &SWAP));
        network.pass(1);
        for id in [1, silent] {
            network.isolate(id);
        }
        for id in 1..=6 {
            network.peer_mut(id).raw.forget_leader().expect("a call");
        }
        let candidate = if silent == 2 { 3 } else { 2 };
        network.campaign(candidate);
        let leads = network.peer(candidate).raft().role() == Role::Leader;
        assert_eq!(leads, elects, "{silent} is gone");
    }
}

#[test]
fn a_demoted_voter_votes_until_the_joint_configuration_is_left() {
    let mut network = six_of_which_three_are_members();
    let swap = [(AddLearnerNode, 2), (AddNode, 4)];
    network.change(1, changes(TransitionJointExplicit, &swap));
    network.pass(1);
    assert_eq!(
        seen(&network, 1),
        "voters=(1 3 4)&&(1 2 3) learners_next=(2)"
    );
    assert!(!network.peer(2).raft().is_learner());
    // With 3 silent, the outgoing side commits by 1 and 2.
    network.isolate(3);
    network.propose(1, "data");
    assert_eq!(network.peer(1).committed(), 3);
    network.change(1, leave());
    assert_eq!(seen(&network, 1), "voters=(1 3 4) learners=(2)");
    assert!(network.peer(2).raft().is_learner());
    network.isolate(4);
    let committed = network.peer(1).committed();
    network.propose(1, "not by 1 and 2");
    assert_eq!(network.peer(1).committed(), committed);
}

#[test]
fn a_new_leader_leaves_the_joint_configuration_that_its_predecessor_entered() {
    let mut network = six_of_which_three_are_members();
    let grow = [(AddNode, 4), (AddNode, 5)];
    network
        .peer_mut(1)
        .change(changes(TransitionJointImplicit, &grow));
    // The entry reaches the others, and what follows from it does not.
    let sent = network.peer_mut(1).take_sent();
    for append in sent {
        network.peer_mut(append.to).step(append);
    }
    for id in [2, 3] {
        for answer in network.peer_mut(id).take_sent() {
            network.peer_mut(1).step(answer);
        }
    }
    network.peer_mut(1).take_sent();
    assert_eq!(seen(&network, 1), "voters=(1 2 3 4 5)&&(1 2 3) autoleave");
    assert_eq!(seen(&network, 2), "voters=(1 2 3)");

    network.isolate(1);
    for id in [2, 3] {
        network
            .peer_mut(id)
            .raw
            .forget_leader()
            .expect("a follower");
    }
    network.campaign(2);
    assert_eq!(network.peer(2).raft().role(), Role::Leader);
    network.pass(3);
    for id in 2..=5 {
        assert_eq!(seen(&network, id), "voters=(1 2 3 4 5)", "node {id}");
    }
    network.recover();
    network.pass(3);
    assert_eq!(seen(&network, 1), "voters=(1 2 3 4 5)");
    assert_eq!(network.leader(), 2);
}

#[test]
fn a_transfer_does_not_lose_the_end_of_a_joint_configuration() {
    let mut network = six_of_which_three_are_members();
    let grow = [(AddNode, 4), (AddNode, 5)];
    // While leadership is handed over the leader proposes nothing, not even this end.
    network.isolate(3);
    network
        .peer_mut(1)
        .change(changes(TransitionJointImplicit, &grow));
    network
        .peer_mut(1)
        .raw
        .transfer_leader(3)
        .expect("a member");
    network.deliver();
    assert_eq!(seen(&network, 1), "voters=(1 2 3 4 5)&&(1 2 3) autoleave");
    network.recover();
    network.pass(1);
    assert_eq!(network.leader(), 3);
    network.pass(3);
    for id in 1..=5 {
        assert_eq!(seen(&network, id), "voters=(1 2 3 4 5)", "node {id}");
    }
}

#[test]
fn a_leader_that_a_joint_change_removes_leads_until_the_end() {
    let mut network = six_of_which_three_are_members();
    let replace = [(RemoveNode, 1), (AddNode, 4)];
    network.change(1, changes(TransitionJointExplicit, &replace));
    network.pass(1);
    assert_eq!(seen(&network, 1), "voters=(2 3 4)&&(1 2 3)");
    assert_eq!(network.leader(), 1);
    network.propose(1, "data");
    has_all_of_1(&network, 4);
    network.change(1, leave());
    assert_eq!(network.peer(1).state(), (Role::Follower, 1, 0));
    network.pass(40);
    assert_ne!(network.leader(), 1);
    assert_eq!(seen(&network, 4), "voters=(2 3 4)");
}

#[test]
fn votes_of_one_side_alone_elect_nobody() {
    let mut node = Peer::new(Config::new(1), MemStorage::with_voters(&[1, 2, 3]));
    let enter = changes(TransitionJointExplicit, &SWAP);
    node.raw
        .apply_conf_change(enter)
        .expect("a change that fits");
    node.campaign();
    let yes = |from| message(MessageType::MsgPreVoteResp, from, 1, 1);
    for voter in [4, 5] {
        node.step(yes(voter));
    }
    assert_eq!(node.raft().role(), Role::PreCandidate);
    node.step(yes(3));
    assert_eq!(node.raft().role(), Role::Candidate);
    // One side that refuses is enough to lose.
    for voter in [2, 3] {
        node.step(Message {
            reject: true,
            ..message(MessageType::MsgRequestVoteResponse, voter, 1, 1)
        });
    }
    assert_eq!(node.state(), (Role::Follower, 1, 0));
}
