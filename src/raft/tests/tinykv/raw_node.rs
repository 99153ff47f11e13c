//! Projects 2AC and 3A: what a node hands out when it starts, proposes and starts again.

use basalt_raft::eraftpb::{ConfChangeType, EntryType, HardState};
use basalt_raft::{MemStorage, MembershipChange, RawNode, Ready, Role, Storage};

use crate::network::Peer;
use crate::parts::{change, entry, entry_with, in_term, stored, tinykv_config};

#[test]
fn a_lone_node_hands_a_proposal_out_to_be_written_and_then_to_be_applied() {
    let mut node = Peer::of(1, &[1]);
    node.campaign();
    node.raw.propose("foo".into()).expect("a leader");
    let proposed = [entry_with(2, 1, "foo")];

    // Upstream's first Ready applies what it has not written yet.
    let written = node.raw.ready().expect("storage in memory");
    assert_eq!(written.entries, proposed);
    assert_eq!(written.committed_entries, []);
    node.raw.storage_mut().append(written.entries);
    node.raw.advance().expect("storage in memory");

    let applied = node.raw.ready().expect("storage in memory");
    assert_eq!(applied.entries, []);
    assert_eq!(applied.committed_entries, proposed);
    node.raw.advance().expect("storage in memory");
    assert!(!node.raw.has_ready());
}

#[test]
fn a_node_that_restarts_hands_out_what_was_committed_and_nothing_else() {
    let promised = HardState {
        commit: 1,
        ..in_term(1)
    };
    let mut storage = MemStorage::new();
    storage.append(vec![entry(1, 1), entry_with(2, 1, "foo")]);
    storage.set_hard_state(promised);
    let mut node = RawNode::new(tinykv_config(1), storage).expect("a node that can start");
    let expected = Ready {
        committed_entries: vec![entry(1, 1)],
        ..Ready::default()
    };
    assert_eq!(node.ready().expect("storage in memory"), expected);
    node.advance().expect("storage in memory");
    assert!(!node.has_ready());
    assert_eq!(node.raft().log().last_index(), 2);
}

#[test]
fn a_fresh_leader_takes_a_proposal_and_a_membership_change_unaltered() {
    let storage = stored(&[1], &[], HardState::default());
    let mut node = RawNode::new(tinykv_config(1), storage).expect("a node that can start");
    assert!(!node.has_ready());
    node.campaign().expect("a voter");
    let vote = node.ready().expect("storage in memory");
    node.storage_mut()
        .set_hard_state(vote.hard_state.expect("a new term"));
    node.advance().expect("storage in memory");
    assert_eq!(node.raft().role(), Role::Leader);

    // Its first entry is not even written yet.
    let add = change(ConfChangeType::AddNode, 1);
    node.propose("somedata".into()).expect("a leader");
    node.propose_conf_change(add.clone()).expect("a leader");
    let log = node
        .raft()
        .log()
        .entries(1, 4, u64::MAX)
        .expect("entries in memory");
    assert_eq!(log[..2], [entry(1, 1), entry_with(2, 1, "somedata")]);
    assert_eq!(log[2].entry_type(), EntryType::EntryConfChange);
    assert_eq!(log[2].data, MembershipChange::from(add).encode().1);
}

#[test]
fn adding_a_node_twice_does_not_stand_in_the_way_of_another() {
    let mut node = Peer::of(1, &[1]);
    node.campaign();
    let first = change(ConfChangeType::AddNode, 1);
    let second = change(ConfChangeType::AddNode, 2);
    let proposed = [first.clone(), first, second];
    for add in proposed.clone() {
        node.change(add);
    }
    let storage = node.raw.storage();
    let last = storage.last_index().expect("storage in memory");
    let written = storage
        .entries(last - 2, last + 1, u64::MAX)
        .expect("three entries");
    for (entry, add) in written.iter().zip(proposed) {
        assert_eq!(entry.entry_type(), EntryType::EntryConfChange);
        assert_eq!(entry.data, MembershipChange::from(add).encode().1);
    }
    assert_eq!(written.len(), 3);
    assert_eq!(node.raft().configuration().members().ids(), [1, 2]);
}

#[test]
fn a_node_that_restarts_from_a_snapshot_hands_out_only_what_is_behind_it() {
    let mut storage = MemStorage::new();
    let snapshot = crate::parts::snapshot(2, 1, &[1, 2]);
    storage.apply_snapshot(snapshot).expect("a first snapshot");
    storage.append(vec![entry_with(3, 1, "foo")]);
    storage.set_hard_state(HardState {
        commit: 3,
        ..in_term(1)
    });
    let mut node = RawNode::new(tinykv_config(1), storage).expect("a node that can start");
    let expected = Ready {
        committed_entries: vec![entry_with(3, 1, "foo")],
        ..Ready::default()
    };
    assert_eq!(node.ready().expect("storage in memory"), expected);
    node.advance().expect("storage in memory");
    assert!(!node.has_ready());
}
