//! What a `Ready` says must be done, and in which order it may be relied on.

use basalt_raft::eraftpb::{HardState, Message, MessageType};
use basalt_raft::{Config, MemStorage, RawNode, Ready, Role, SoftState};

use crate::network::Peer;
use crate::parts::{accept, entries, entry, in_term, message, stored};

/// Node 2 of three, with nothing to do.
fn follower() -> RawNode<MemStorage> {
    let storage = stored(&[1, 2, 3], &[1, 1], in_term(1));
    RawNode::new(Config::new(2), storage).expect("a node that can start")
}

fn ready_after(node: &mut RawNode<MemStorage>, step: Message) -> Ready {
    node.step(step).expect("a message like any other");
    node.ready().expect("storage in memory")
}

#[test]
fn entries_terms_and_votes_must_be_synced_and_commit_indexes_need_not() {
    let append = Message {
        index: 2,
        log_term: 1,
        entries: vec![entry(3, 1)],
        ..message(MessageType::MsgAppend, 1, 2, 1)
    };
    let commit = Message {
        commit: 2,
        ..message(MessageType::MsgHeartbeat, 1, 2, 1)
    };
    let vote = Message {
        index: 9,
        log_term: 1,
        ..message(MessageType::MsgRequestVote, 3, 2, 1)
    };
    let term = message(MessageType::MsgHeartbeat, 1, 2, 2);
    for (step, must_sync) in [(append, true), (vote, true), (term, true), (commit, false)] {
        let what = format!("{step:?}");
        let ready = ready_after(&mut follower(), step);
        assert_eq!(ready.must_sync, must_sync, "{what}");
    }
    // A heartbeat without news changes nothing to be written.
    let alive = ready_after(&mut follower(), message(MessageType::MsgHeartbeat, 1, 2, 1));
    assert_eq!((alive.must_sync, alive.hard_state), (false, None));
}

#[test]
fn what_a_message_promises_is_in_the_same_ready_or_in_one_before() {
    let mut node = follower();
    let ready = ready_after(
        &mut node,
        Message {
            index: 2,
            log_term: 1,
            entries: vec![entry(3, 1)],
            ..message(MessageType::MsgAppend, 1, 2, 1)
        },
    );
    assert_eq!(ready.entries, [entry(3, 1)]);
    assert_eq!((ready.messages.len(), ready.messages[0].index), (1, 3));
    node.storage_mut().append(ready.entries);
    node.advance().expect("storage in memory");

    let ready = ready_after(
        &mut node,
        Message {
            index: 9,
            log_term: 1,
            ..message(MessageType::MsgRequestVote, 3, 2, 2)
        },
    );
    // Check-quorum: it hears a leader.
    assert_eq!((ready.hard_state, ready.messages), (None, vec![]));
    node.advance().expect("storage in memory");
    node.forget_leader().expect("a follower");
    let ready = ready_after(
        &mut node,
        Message {
            index: 9,
            log_term: 1,
            ..message(MessageType::MsgRequestVote, 3, 2, 2)
        },
    );
    let promised = HardState {
        vote: 3,
        ..in_term(2)
    };
    assert_eq!(ready.hard_state, Some(promised));
    let vote = message(MessageType::MsgRequestVoteResponse, 2, 3, 2);
    assert_eq!(ready.messages, [vote]);
}

#[test]
fn leader_and_role_are_told_when_they_change() {
    let mut node = follower();
    let heartbeat = message(MessageType::MsgHeartbeat, 1, 2, 1);
    let ready = ready_after(&mut node, heartbeat.clone());
    let follows = SoftState {
        leader: 1,
        role: Role::Follower,
    };
    assert_eq!(ready.soft_state, Some(follows));
    node.advance().expect("storage in memory");
    let ready = ready_after(&mut node, heartbeat);
    assert_eq!(ready.soft_state, None);
    node.advance().expect("storage in memory");
    node.campaign().expect("a voter");
    let ready = node.ready().expect("storage in memory");
    let asks = SoftState {
        leader: 0,
        role: Role::PreCandidate,
    };
    assert_eq!(ready.soft_state, Some(asks));
}

#[test]
fn nothing_is_handed_out_twice() {
    let mut node = follower();
    let ready = ready_after(
        &mut node,
        Message {
            index: 2,
            log_term: 1,
            entries: vec![entry(3, 1)],
            commit: 2,
            ..message(MessageType::MsgAppend, 1, 2, 1)
        },
    );
    assert_eq!(ready.committed_entries, entries(&[1, 1]));
    assert!(!node.has_ready());
    node.storage_mut().append(ready.entries);
    node.advance().expect("storage in memory");
    assert!(!node.has_ready());
    assert!(node.ready().expect("storage in memory").is_empty());
}

#[test]
#[should_panic(expected = "without advance")]
fn a_ready_must_be_acknowledged_before_the_next() {
    let mut node = follower();
    ready_after(&mut node, message(MessageType::MsgHeartbeat, 1, 2, 1));
    let _ = node.ready();
}

#[test]
fn a_restarted_node_hands_out_again_what_was_not_applied() {
    let committed = HardState {
        commit: 4,
        ..in_term(1)
    };
    for (applied, rest) in [(0, 4), (1, 3), (4, 0)] {
        let config = Config {
            applied,
            ..Config::new(1)
        };
        let mut node = Peer::new(config, stored(&[1, 2, 3], &[1; 4], committed));
        assert_eq!(node.take_applied().len(), rest);
        assert_eq!(node.raft().log().applied(), 4);
    }
}

#[test]
fn an_applied_index_beyond_the_written_commit_index_is_committed() {
    // The commit index alone is not synced; what followed from it was.
    let config = Config {
        applied: 3,
        ..Config::new(1)
    };
    let mut node = Peer::new(config, stored(&[1, 2, 3], &[1; 4], in_term(1)));
    assert_eq!(node.committed(), 3);
    assert_eq!(node.take_applied(), []);
}

#[test]
fn a_leader_tells_how_its_members_are() {
    let mut leader = Peer::new(Config::new(1), MemStorage::with_voters(&[1, 2]));
    assert!(leader.raw.status().progress.is_empty());
    leader.elect();
    leader.propose("data");
    let sent = leader.take_sent();
    leader.step(accept(&sent[0]));
    let status = leader.raw.status();
    assert_eq!((status.id, status.last_index, status.applied), (1, 2, 1));
    assert_eq!(status.soft_state.role, Role::Leader);
    assert_eq!(status.hard_state.commit, 1);
    assert_eq!(status.config.voters.ids().ids(), [1, 2]);
    let matched: Vec<_> = status
        .progress
        .iter()
        .map(|(id, p)| (*id, p.matched))
        .collect();
    assert_eq!(matched, [(1, 2), (2, 1)]);
}
