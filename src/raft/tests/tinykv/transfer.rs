//! Project 3A, of leadership: it is handed over, or stays where it is.

use basalt_raft::Role;
use basalt_raft::eraftpb::{ConfChangeType, MessageType};

use crate::network::{Network, Peer};
use crate::parts::{change, message};

/// Three nodes, led by the first in term 1.
fn led_by_first() -> Network {
    let mut network = Network::new(3);
    network.campaign(1);
    assert_eq!(network.leader(), 1);
    network
}

#[track_caller]
fn follows(network: &Network, leader: u64) {
    let (role, _, known) = network.peer(1).state();
    assert_eq!((role, known), (Role::Follower, leader));
    assert_eq!(network.leader(), leader);
    assert_eq!(network.peer(leader).raft().transferee(), 0);
}

#[track_caller]
fn leads_on(network: &Network) {
    assert_eq!(network.peer(1).state(), (Role::Leader, 1, 1));
    assert_eq!(network.peer(1).raft().transferee(), 0);
}

#[test]
fn leadership_goes_to_a_follower_with_the_whole_log_and_back() {
    let mut network = led_by_first();
    network.transfer(1, 2);
    follows(&network, 2);
    network.propose(2, "");
    network.transfer(2, 1);
    assert_eq!(network.peer(1).state(), (Role::Leader, 3, 1));
}

#[test]
fn a_follower_passes_the_wish_for_a_transfer_on_to_its_leader() {
    let mut network = led_by_first();
    network.transfer(2, 2);
    follows(&network, 2);
    network.propose(2, "");
    network.transfer(1, 1);
    assert_eq!(network.peer(1).state(), (Role::Leader, 3, 1));
}

#[test]
fn a_follower_that_lacks_an_entry_gets_it_before_it_leads() {
    let mut network = led_by_first();
    network.isolate(3);
    network.propose(1, "");
    network.recover();
    let progress = network.peer(1).raft().progress().get(3);
    assert_eq!(progress.expect("a member").matched, 1);
    network.transfer(1, 3);
    follows(&network, 3);
    assert_eq!(network.peer(3).log_terms(), [1, 1, 2]);
}

#[test]
fn a_follower_that_needs_a_snapshot_gets_it_before_it_leads() {
    let mut network = led_by_first();
    network.isolate(3);
    network.propose(1, "");
    network.peer_mut(1).compact();
    network.recover();
    let progress = network.peer(1).raft().progress().get(3);
    assert_eq!(progress.expect("a member").matched, 1);
    network.transfer(1, 3);
    follows(&network, 3);
    let first = network.peer(3).raft().log().first_index();
    assert_eq!(first.expect("storage in memory"), 3);
}

#[test]
fn a_transfer_to_the_leader_itself_changes_nothing() {
    let mut network = led_by_first();
    network.transfer(1, 1);
    leads_on(&network);
}

#[test]
fn a_transfer_to_a_stranger_changes_nothing() {
    let mut network = led_by_first();
    network.transfer(1, 4);
    leads_on(&network);
}

#[test]
fn a_pending_transfer_ends_with_the_leaders_term() {
    let mut network = led_by_first();
    network.isolate(3);
    network.transfer(1, 3);
    assert_eq!(network.peer(1).raft().transferee(), 3);
    network.campaign(2);
    follows(&network, 2);
    assert_eq!(network.peer(1).raft().transferee(), 0);
}

#[test]
fn a_transfer_to_a_removed_node_changes_nothing() {
    let mut network = led_by_first();
    let remove = change(ConfChangeType::RemoveNode, 3);
    let leader = network.peer_mut(1);
    leader
        .raw
        .apply_conf_change(remove)
        .expect("two voters stay");
    network.transfer(1, 3);
    leads_on(&network);
}

#[test]
fn a_transfer_back_to_the_leader_itself_cancels_the_pending_one() {
    let mut network = led_by_first();
    network.isolate(3);
    network.transfer(1, 3);
    assert_eq!(network.peer(1).raft().transferee(), 3);
    network.transfer(1, 1);
    leads_on(&network);
    network.propose(1, "");
    assert_eq!(network.peer(1).committed(), 2);
}

#[test]
fn a_second_transfer_takes_the_place_of_the_pending_one() {
    let mut network = led_by_first();
    network.isolate(3);
    network.transfer(1, 3);
    network.transfer(1, 2);
    follows(&network, 2);
}

#[test]
fn a_node_that_is_no_member_is_not_made_to_campaign() {
    let mut node = Peer::of(1, &[2, 3, 4]);
    node.step(message(MessageType::MsgTimeoutNow, 2, 1, 1));
    for voter in [2, 3] {
        node.step(message(MessageType::MsgRequestVoteResponse, voter, 1, 1));
    }
    assert_eq!(node.state(), (Role::Follower, 1, 0));
    assert_eq!(node.take_sent(), []);
}
