//! Limits in bytes of what is proposed and of what is handed out, and who may propose.

use basalt_raft::eraftpb::{ConfChangeType, Message, MessageType};
use basalt_raft::{
    Config, DropReason, ENTRY_OVERHEAD, Error, MemStorage, RawNode, entries_size, entry_size,
};

use crate::network::{Network, Peer};
use crate::parts::{change, entry_with, message};

fn refused(proposed: &Result<(), Error>, reason: DropReason) -> bool {
    matches!(proposed, Err(Error::ProposalDropped(why)) if *why == reason)
}

/// A leader of two whose follower answers nothing.
fn unheard(config: Config) -> Peer {
    let mut leader = Peer::new(config, MemStorage::with_voters(&[1, 2]));
    leader.elect();
    leader
}

#[test]
fn proposals_beyond_the_quota_of_uncommitted_bytes_are_refused_and_leave_nothing() {
    let mut leader = unheard(Config {
        max_uncommitted_size: 10,
        ..Config::new(1)
    });
    leader.propose("12345");
    leader.propose("67890");
    assert_eq!(leader.raw.status().uncommitted_bytes, 10);
    let last = leader.raft().log().last_index();
    let proposed = leader.raw.propose("x".into());
    assert!(
        refused(&proposed, DropReason::QuotaExceeded),
        "{proposed:?}"
    );
    assert_eq!(leader.raft().log().last_index(), last);
    // Empty ones cost nothing.
    leader.propose("");
    // What is applied makes room.
    leader.acknowledge_all();
    assert_eq!(leader.raw.status().uncommitted_bytes, 0);
    leader.propose("1234567890");
    let proposed = leader.raw.propose("x".into());
    assert!(
        refused(&proposed, DropReason::QuotaExceeded),
        "{proposed:?}"
    );
}

#[test]
fn a_proposal_larger_than_the_quota_is_taken_when_nothing_else_is_out() {
    let mut leader = unheard(Config {
        max_uncommitted_size: 4,
        ..Config::new(1)
    });
    leader.propose("larger than that");
    let proposed = leader.raw.propose("x".into());
    assert!(
        refused(&proposed, DropReason::QuotaExceeded),
        "{proposed:?}"
    );
    // Empty ones always are: the end of a joint configuration is one.
    leader.propose("");
    leader.acknowledge_all();
    leader.propose("larger than that");
}

#[test]
fn each_leader_begins_with_an_empty_quota() {
    let mut leader = unheard(Config {
        max_uncommitted_size: 4,
        ..Config::new(1)
    });
    leader.propose("data");
    leader.step(message(MessageType::MsgHeartbeat, 2, 1, 2));
    assert_eq!(leader.raw.status().uncommitted_bytes, 0);
    leader.take_sent();
    leader.elect();
    assert_eq!(leader.raw.status().uncommitted_bytes, 0);
    leader.propose("more");
    leader.acknowledge_all();
    assert_eq!(leader.committed(), 4);
    assert_eq!(leader.raw.status().uncommitted_bytes, 0);
}

/// A lone node that starts with ten committed entries to hand out, and a limit for them.
fn backlog(limit: u64) -> RawNode<MemStorage> {
    let mut storage = MemStorage::with_voters(&[1]);
    storage.append((1..=10).map(|index| entry_with(index, 1, "data")).collect());
    storage.set_hard_state(basalt_raft::eraftpb::HardState {
        term: 1,
        vote: 1,
        commit: 10,
    });
    let config = Config {
        max_committed_size_per_ready: limit,
        ..Config::new(1)
    };
    RawNode::new(config, storage).expect("a node that can start")
}

#[test]
fn committed_entries_are_handed_out_in_pages_of_bytes() {
    let size = entry_size(&entry_with(1, 1, "data"));
    assert_eq!(size, 4 + ENTRY_OVERHEAD);
    for (limit, page) in [
        (1, 1),
        (size, 1),
        (3 * size, 3),
        (4 * size - 1, 3),
        (10 * size, 10),
    ] {
        let mut node = backlog(limit);
        let mut next = 1;
        while node.has_ready() {
            let ready = node.ready().expect("storage in memory");
            let entries = &ready.committed_entries;
            assert!(entries.len() <= page);
            assert!(entries_size(entries) <= limit.max(size));
            for entry in entries {
                assert_eq!(entry.index, next);
                next += 1;
            }
            assert_eq!(
                entries.len() as u64,
                (next - 1) - node.raft().log().applied()
            );
            node.advance().expect("storage in memory");
        }
        assert_eq!(next, 11, "limit {limit}");
        assert_eq!(node.raft().log().applied(), 10);
    }
}

#[test]
fn a_membership_change_that_does_not_fit_leaves_an_empty_entry() {
    let mut leader = unheard(Config::new(1));
    let add = change(ConfChangeType::AddNode, 3);
    leader.change(add.clone());
    leader.change(add);
    let log = leader.log();
    assert!(!log[1].data.is_empty());
    assert_eq!(log[2], entry_with(3, 1, ""));
}

#[test]
fn a_follower_passes_proposals_on_unless_it_may_not() {
    let mut network = Network::with_config(3, |id| Config {
        disable_proposal_forwarding: id == 3,
        ..Config::new(id)
    });
    let nobody = network.peer_mut(2).raw.propose("early".into());
    assert!(refused(&nobody, DropReason::NoLeader), "{nobody:?}");
    network.campaign(1);
    network.propose(2, "of node 2");
    let last = network.peer(1).log().pop().expect("an entry");
    assert_eq!(last, entry_with(2, 1, "of node 2"));
    let kept = network.peer_mut(3).raw.propose("of node 3".into());
    assert!(refused(&kept, DropReason::NotForwarding), "{kept:?}");
}

#[test]
fn a_leader_that_is_no_member_takes_no_proposals() {
    let mut leader = unheard(Config {
        step_down_on_removal: false,
        ..Config::new(1)
    });
    let remove = change(ConfChangeType::RemoveNode, 1);
    leader.raw.apply_conf_change(remove).expect("a voter stays");
    let proposed = leader.raw.propose("data".into());
    assert!(refused(&proposed, DropReason::NotMember), "{proposed:?}");
}

#[test]
fn a_proposal_of_several_entries_is_taken_whole_or_not_at_all() {
    let proposal = |data: &[&'static str]| Message {
        entries: data.iter().map(|data| entry_with(0, 0, data)).collect(),
        ..message(MessageType::MsgPropose, 2, 1, 0)
    };
    let mut leader = unheard(Config {
        max_uncommitted_size: 4,
        ..Config::new(1)
    });
    leader.step(proposal(&["ab", "cd"]));
    assert_eq!(
        leader.log()[1..],
        [entry_with(2, 1, "ab"), entry_with(3, 1, "cd")]
    );
    let proposed = leader.try_step(proposal(&["", "e"]));
    assert!(
        refused(&proposed, DropReason::QuotaExceeded),
        "{proposed:?}"
    );
    assert_eq!(leader.log().len(), 3);
}
