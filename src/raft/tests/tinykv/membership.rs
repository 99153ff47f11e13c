//! Project 3A, of members: they come and go, and what is pending goes on.

use basalt_raft::Error;
use basalt_raft::eraftpb::{ConfChangeType, EntryType, MessageType};

use crate::network::Peer;
use crate::parts::{accept, change, entry_with};

#[test]
fn adding_a_node_makes_the_list_of_members_longer() {
    let mut node = Peer::of(1, &[1]);
    let add = change(ConfChangeType::AddNode, 2);
    let members = node.raw.apply_conf_change(add).expect("a change that fits");
    assert_eq!(members.nodes, [1, 2]);
    assert_eq!(node.raft().configuration().members().ids(), [1, 2]);
}

#[test]
fn removing_nodes_makes_the_list_of_members_shorter_but_the_last_voter_stays() {
    let mut node = Peer::of(1, &[1, 2]);
    let remove = |id| change(ConfChangeType::RemoveNode, id);
    let members = node
        .raw
        .apply_conf_change(remove(2))
        .expect("one voter stays");
    assert_eq!(members.nodes, [1]);
    assert_eq!(node.raft().configuration().members().ids(), [1]);
    // Upstream goes on down to nobody.
    let last = node.raw.apply_conf_change(remove(1));
    assert!(
        matches!(last, Err(Error::ConfChange("removed all voters"))),
        "{last:?}"
    );
    assert_eq!(node.raft().configuration().members().ids(), [1]);
}

#[test]
fn a_removal_commits_at_once_what_the_smaller_quorum_has() {
    let mut leader = Peer::of(1, &[1, 2]);
    leader.elect();
    leader.acknowledge_all();
    leader.take_applied();
    let remove = change(ConfChangeType::RemoveNode, 2);
    leader.change(remove.clone());
    let removal = leader.take_sent();
    leader.propose("hello");
    assert_eq!(leader.committed(), 1);

    // Node 2 has the removal and not what follows.
    assert_eq!(removal[0].msg_type(), MessageType::MsgAppend);
    leader.raw.step(accept(&removal[0])).expect("an answer");
    let ready = leader.raw.ready().expect("storage in memory");
    let [applied] = ready.committed_entries.as_slice() else {
        panic!("{:?}", ready.committed_entries);
    };
    assert_eq!(
        (applied.index, applied.entry_type()),
        (2, EntryType::EntryConfChange)
    );
    assert_eq!(leader.committed(), 2);
    leader
        .raw
        .apply_conf_change(remove)
        .expect("one voter stays");
    assert_eq!(leader.committed(), 3);
    leader.raw.advance().expect("storage in memory");
    leader.sync();
    assert_eq!(leader.take_applied(), [entry_with(3, 1, "hello")]);
}
