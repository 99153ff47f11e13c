//! Messages that must not be: each is an error with a name, and changes nothing.

use basalt_raft::eraftpb::{ConfState, Entry, HardState, Message, MessageType, Snapshot};
use basalt_raft::{
    Config, Error, LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD, MemStorage, Role, is_local, is_response,
};

use crate::network::Peer;
use crate::parts::{entry, message, snapshot, stored};

/// Everything about a node that a message could change.
#[derive(Debug, PartialEq)]
struct State {
    role: (Role, u64, u64),
    vote: u64,
    log: Vec<Entry>,
    committed: u64,
    applied: u64,
    members: ConfState,
    progress: Vec<String>,
    written: HardState,
}

fn state(peer: &Peer) -> State {
    let raft = peer.raft();
    let progress = raft
        .progress()
        .iter()
        .map(|(id, one)| format!("{id}: {one}"));
    State {
        role: peer.state(),
        vote: raft.vote(),
        log: peer.log(),
        committed: raft.log().committed(),
        applied: raft.log().applied(),
        members: raft.configuration().to_conf_state(),
        progress: progress.collect(),
        written: *peer.raw.storage().hard_state(),
    }
}

/// Node 2 of three, which follows node 1 in term 3.
fn follower() -> Peer {
    let promised = HardState {
        term: 3,
        vote: 1,
        commit: 2,
    };
    let storage = stored(&[1, 2, 3], &[1, 1, 2, 3], promised);
    let mut follower = Peer::new(Config::new(2), storage);
    follower.step(message(MessageType::MsgHeartbeat, 1, 2, 3));
    follower.take_sent();
    follower
}

/// Node 1 of three, which leads term 1.
fn leader() -> Peer {
    let mut leader = Peer::new(Config::new(1), MemStorage::with_voters(&[1, 2, 3]));
    leader.elect();
    leader.acknowledge_all();
    leader
}

/// Gives `peer` the message; the error, which is all that comes of it.
#[track_caller]
fn refused(peer: &mut Peer, message: Message) -> Error {
    let what = format!("{message:?}");
    let before = state(peer);
    let Err(error) = peer.try_step(message) else {
        panic!("taken: {what}");
    };
    assert_eq!(state(peer), before, "{what}");
    assert_eq!(peer.take_sent(), [], "{what}");
    error
}

#[track_caller]
fn is_invalid(error: &Error, sender: u64) {
    let named = matches!(error, Error::InvalidMessage { from, .. } if *from == sender);
    assert!(named, "{error}");
}

fn all_kinds() -> impl Iterator<Item = MessageType> {
    (0..100).filter_map(|number| MessageType::try_from(number).ok())
}

#[test]
fn local_messages_from_outside_are_refused() {
    let mut count = 0;
    for kind in all_kinds().filter(|kind| is_local(*kind)) {
        count += 1;
        for peer in [&mut follower(), &mut leader()] {
            let id = peer.raft().id();
            for from in [0, 1, 2, 3, 9] {
                for term in [0, 1, 3, 7] {
                    let error = refused(peer, message(kind, from, id, term));
                    assert!(matches!(error, Error::LocalMessage), "{kind:?}: {error}");
                }
            }
        }
    }
    assert_eq!(count, 10);
}

#[test]
fn storage_threads_say_nothing_to_a_node_that_has_none() {
    for thread in [LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD] {
        for kind in all_kinds() {
            let acknowledges = Message {
                index: 4,
                log_term: 3,
                entries: vec![entry(3, 2)],
                ..message(kind, thread, 2, 3)
            };
            let error = refused(&mut follower(), acknowledges);
            assert!(matches!(error, Error::LocalMessage), "{kind:?}: {error}");
        }
    }
}

#[test]
fn kinds_that_nobody_knows_are_refused() {
    for number in [10, 13, 14, 27, 1000, -1] {
        let unknown = Message {
            msg_type: number,
            from: 1,
            to: 2,
            term: 3,
            ..Message::default()
        };
        is_invalid(&refused(&mut follower(), unknown), 1);
    }
}

#[test]
fn responses_of_strangers_are_refused() {
    let responses = all_kinds().filter(|kind| is_response(*kind) && !is_local(*kind));
    let mut count = 0;
    for kind in responses {
        count += 1;
        for peer in [&mut follower(), &mut leader()] {
            let id = peer.raft().id();
            for term in [1, 3, 9] {
                let error = refused(peer, message(kind, 9, id, term));
                assert!(matches!(error, Error::PeerNotFound), "{kind:?}: {error}");
            }
        }
    }
    assert_eq!(count, 5);
}

#[test]
fn messages_without_a_term_or_a_sender_or_with_the_last_of_terms_are_refused() {
    let of_no_term = [
        MessageType::MsgPropose,
        MessageType::MsgReadIndex,
        MessageType::MsgTransferLeader,
    ];
    let with_terms = all_kinds().filter(|kind| !is_local(*kind) && !of_no_term.contains(kind));
    for kind in with_terms {
        is_invalid(&refused(&mut follower(), message(kind, 1, 2, 0)), 1);
        is_invalid(&refused(&mut follower(), message(kind, 1, 2, u64::MAX)), 1);
        if !is_response(kind) {
            is_invalid(&refused(&mut follower(), message(kind, 0, 2, 3)), 0);
        }
    }
}

#[test]
fn an_append_whose_entries_do_not_follow_each_other_is_refused() {
    let wrong: [(u64, u64, Vec<Entry>); 9] = [
        (4, 3, vec![entry(6, 3)]),
        (4, 3, vec![entry(4, 3)]),
        (4, 3, vec![entry(5, 3), entry(7, 3)]),
        (4, 3, vec![entry(5, 3), entry(5, 3)]),
        (4, 3, vec![entry(5, 3), entry(4, 3)]),
        // Terms that go back, or above the leader's.
        (4, 3, vec![entry(5, 2)]),
        (2, 1, vec![entry(3, 3), entry(4, 2)]),
        (4, 3, vec![entry(5, 4)]),
        (u64::MAX, 3, vec![entry(0, 3)]),
    ];
    for (index, log_term, entries) in wrong {
        let append = Message {
            index,
            log_term,
            entries,
            commit: 4,
            ..message(MessageType::MsgAppend, 1, 2, 3)
        };
        is_invalid(&refused(&mut follower(), append), 1);
    }
    let unknown_type = Message {
        index: 4,
        log_term: 3,
        entries: vec![Entry {
            entry_type: 77,
            ..entry(5, 3)
        }],
        ..message(MessageType::MsgAppend, 1, 2, 3)
    };
    is_invalid(&refused(&mut follower(), unknown_type), 1);
}

#[track_caller]
fn diverges(message: Message, at: u64) {
    let error = refused(&mut follower(), message);
    let expected = matches!(
        error,
        Error::Divergence {
            from: 1,
            index,
            committed: 2
        } if index == at
    );
    assert!(expected, "{error}");
}

#[test]
fn an_append_against_committed_entries_is_a_divergence() {
    // Entries 1 and 2, both of term 1, are committed.
    let append = |index, log_term, entries| Message {
        index,
        log_term,
        entries,
        ..message(MessageType::MsgAppend, 1, 2, 3)
    };
    diverges(append(2, 2, vec![]), 2);
    diverges(append(1, 2, vec![]), 1);
    diverges(append(0, 0, vec![entry(1, 1), entry(2, 2)]), 2);
    diverges(append(1, 1, vec![entry(2, 3), entry(3, 3)]), 2);
}

#[test]
fn a_heartbeat_that_commits_what_is_not_there_is_a_divergence() {
    let heartbeat = |commit| Message {
        commit,
        ..message(MessageType::MsgHeartbeat, 1, 2, 3)
    };
    diverges(heartbeat(5), 5);
    let mut follower = follower();
    follower.step(heartbeat(4));
    assert_eq!(follower.committed(), 4);
}

#[test]
fn a_heartbeat_of_another_session_that_commits_what_is_not_there_is_only_a_sign_of_life() {
    let heartbeat = |session| Message {
        commit: 5,
        session,
        ..message(MessageType::MsgHeartbeat, 1, 2, 3)
    };
    let answered = |follower: &mut Peer, session| {
        let before = state(follower);
        follower.step(heartbeat(session));
        let answer = message(MessageType::MsgHeartbeatResponse, 2, 1, 3);
        assert_eq!(follower.take_sent(), [answer], "session {session}");
        assert_eq!(state(follower), before, "session {session}");
    };
    let mut follower = follower();
    answered(&mut follower, 6);
    // An append names the session that counts from now on; this one is even rejected.
    follower.step(Message {
        index: 9,
        log_term: 3,
        session: 6,
        ..message(MessageType::MsgAppend, 1, 2, 3)
    });
    follower.take_sent();
    answered(&mut follower, 5);
    let error = refused(&mut follower, heartbeat(6));
    assert!(
        matches!(error, Error::Divergence { index: 5, .. }),
        "{error}"
    );

    // A member that gave its log back and has not heard of the group since: the heartbeat is from
    // before, whatever it names.
    let promised = HardState {
        term: 3,
        vote: 1,
        commit: 0,
    };
    let mut blank = Peer::new(Config::new(2), stored(&[], &[], promised));
    blank.step(message(MessageType::MsgHeartbeat, 1, 2, 3));
    blank.take_sent();
    answered(&mut blank, 0);
    answered(&mut blank, 6);
}

#[test]
fn an_append_from_before_the_commit_index_is_told_how_far_this_node_is() {
    let mut follower = follower();
    follower.step(Message {
        entries: vec![entry(1, 1)],
        session: 6,
        ..message(MessageType::MsgAppend, 1, 2, 3)
    });
    let answer = Message {
        index: 2,
        session: 6,
        ..message(MessageType::MsgAppendResponse, 2, 1, 3)
    };
    assert_eq!(follower.take_sent(), [answer]);
}

#[test]
fn an_append_commits_no_further_than_it_reaches() {
    let mut follower = follower();
    follower.step(Message {
        index: 3,
        log_term: 2,
        commit: 1_000_000,
        ..message(MessageType::MsgAppend, 1, 2, 3)
    });
    assert_eq!(follower.committed(), 3);
}

#[test]
fn an_append_far_above_the_log_is_rejected_and_its_commit_index_is_not_believed() {
    let mut follower = follower();
    follower.step(Message {
        index: 1_000_000,
        log_term: 3,
        commit: 4,
        ..message(MessageType::MsgAppend, 1, 2, 3)
    });
    let answers = follower.take_sent();
    assert!(answers[0].reject);
    assert_eq!(answers[0].reject_hint, 4);
    assert_eq!(follower.committed(), 2);
}

#[test]
fn a_snapshot_without_a_place_in_the_log_is_refused() {
    let install = |snapshot| Message {
        snapshot,
        ..message(MessageType::MsgSnapshot, 1, 2, 3)
    };
    let wrong = [
        None,
        Some(Snapshot::default()),
        // A term above the leader's; a place without a term; a term without a place.
        Some(snapshot(9, 4, &[1, 2, 3])),
        Some(snapshot(9, 0, &[1, 2, 3])),
        Some(snapshot(0, 3, &[1, 2, 3])),
    ];
    for snapshot in wrong {
        let install = install(snapshot.map(Box::new));
        is_invalid(&refused(&mut follower(), install), 1);
    }
}

#[test]
fn a_snapshot_of_an_earlier_term_than_what_is_committed_is_a_divergence() {
    let commit_all = Message {
        commit: 4,
        ..message(MessageType::MsgHeartbeat, 1, 2, 3)
    };
    let mut follower = follower();
    follower.step(commit_all);
    follower.take_sent();
    // Entry 4 is of term 3, so nothing behind it can be of term 2.
    let install = Message {
        snapshot: Some(Box::new(snapshot(9, 2, &[1, 2, 3]))),
        ..message(MessageType::MsgSnapshot, 1, 2, 3)
    };
    let error = refused(&mut follower, install);
    let expected = matches!(
        error,
        Error::Divergence {
            from: 1,
            index: 9,
            committed: 4
        }
    );
    assert!(expected, "{error}");
}

#[test]
fn a_snapshot_with_a_membership_that_contradicts_itself_is_refused() {
    let both = ConfState {
        nodes: vec![1, 2, 3],
        learners: vec![3],
        ..ConfState::default()
    };
    let nobody = ConfState {
        learners: vec![2],
        ..ConfState::default()
    };
    let nothing_to_leave = ConfState {
        nodes: vec![1, 2],
        auto_leave: true,
        ..ConfState::default()
    };
    let zero = ConfState {
        nodes: vec![0, 1, 2],
        ..ConfState::default()
    };
    for members in [both, nobody, nothing_to_leave, zero] {
        let mut wrong = snapshot(9, 3, &[]);
        wrong.metadata.as_mut().expect("a place").conf_state = Some(members);
        let install = Message {
            snapshot: Some(Box::new(wrong)),
            ..message(MessageType::MsgSnapshot, 1, 2, 3)
        };
        let error = refused(&mut follower(), install);
        assert!(matches!(error, Error::ConfChange(_)), "{error}");
    }
}

#[test]
fn a_leader_does_not_believe_answers_to_what_it_never_sent() {
    let beyond = Message {
        index: 2,
        session: 1,
        ..message(MessageType::MsgAppendResponse, 2, 1, 1)
    };
    is_invalid(&refused(&mut leader(), beyond), 2);
    let answer = |context: &[u8]| Message {
        context: context.to_vec().into(),
        ..message(MessageType::MsgHeartbeatResponse, 2, 1, 1)
    };
    is_invalid(&refused(&mut leader(), answer(&1_u64.to_be_bytes())), 2);
    // What is no number of a round confirms none.
    let mut leader = leader();
    leader.read("x");
    leader.step(answer(b"odd"));
    assert_eq!(leader.take_reads(), []);
    leader.step(answer(&1_u64.to_be_bytes()));
    assert_eq!(leader.take_reads().len(), 1);
}

#[test]
fn a_leader_refuses_proposals_and_reads_that_are_none() {
    let proposal = |entries| Message {
        entries,
        ..message(MessageType::MsgPropose, 2, 1, 0)
    };
    let typed = |entry_type, data: &'static str| Entry {
        entry_type,
        data: data.into(),
        ..Entry::default()
    };
    let empty = refused(&mut leader(), proposal(vec![]));
    assert!(matches!(empty, Error::InvalidMessage { .. }), "{empty}");
    is_invalid(&refused(&mut leader(), proposal(vec![typed(9, "")])), 2);
    for entry_type in [1, 2] {
        let broken = vec![typed(0, "good"), typed(entry_type, "broken")];
        let error = refused(&mut leader(), proposal(broken));
        assert!(matches!(error, Error::ConfChange(_)), "{error}");
    }
    for count in [0, 2] {
        let read = Message {
            entries: vec![Entry::default(); count],
            ..message(MessageType::MsgReadIndex, 2, 1, 0)
        };
        is_invalid(&refused(&mut leader(), read), 2);
    }
}

#[test]
fn a_second_leader_of_the_own_term_is_refused() {
    for kind in [
        MessageType::MsgAppend,
        MessageType::MsgHeartbeat,
        MessageType::MsgSnapshot,
    ] {
        for (peer, term) in [(&mut leader(), 1), (&mut follower(), 3)] {
            let second = Message {
                snapshot: Some(Box::new(snapshot(9, 1, &[1, 2, 3]))),
                ..message(kind, 3, peer.raft().id(), term)
            };
            is_invalid(&refused(peer, second), 3);
        }
    }
}

#[test]
fn messages_for_another_node_or_from_the_node_itself_are_refused() {
    for kind in [
        MessageType::MsgAppend,
        MessageType::MsgHeartbeat,
        MessageType::MsgRequestVote,
        MessageType::MsgRequestVoteResponse,
        MessageType::MsgTimeoutNow,
    ] {
        is_invalid(&refused(&mut follower(), message(kind, 1, 3, 4)), 1);
    }
    for kind in [
        MessageType::MsgAppend,
        MessageType::MsgHeartbeat,
        MessageType::MsgHeartbeatResponse,
        MessageType::MsgSnapshot,
        MessageType::MsgRequestVote,
        MessageType::MsgTimeoutNow,
    ] {
        is_invalid(&refused(&mut follower(), message(kind, 2, 2, 4)), 2);
    }
}

#[test]
fn terms_and_indexes_that_leave_no_room_for_more_are_refused() {
    let last = u64::MAX / 2;
    let append = |index, commit, term| Message {
        index,
        commit,
        ..message(MessageType::MsgAppend, 1, 2, term)
    };
    for (index, commit, term) in [(last + 1, 0, 3), (3, last + 1, 3), (3, 0, last + 1)] {
        is_invalid(&refused(&mut follower(), append(index, commit, term)), 1);
    }
    let install = Message {
        snapshot: Some(Box::new(snapshot(last + 1, 3, &[1, 2, 3]))),
        ..message(MessageType::MsgSnapshot, 1, 2, 3)
    };
    is_invalid(&refused(&mut follower(), install), 1);
    let mut follower = follower();
    follower.step(append(last, last, last));
    assert_eq!(follower.state(), (Role::Follower, last, 1));
    follower.campaign();
    assert_eq!(follower.state(), (Role::PreCandidate, last, 0));
}

#[test]
fn a_read_answer_without_its_context_answers_nothing() {
    for count in [0, 2] {
        let mut follower = follower();
        let before = state(&follower);
        follower.step(Message {
            index: 4,
            entries: vec![Entry::default(); count],
            ..message(MessageType::MsgReadIndexResp, 1, 2, 3)
        });
        assert_eq!(follower.take_reads(), []);
        assert_eq!(state(&follower), before);
    }
}

#[test]
fn a_node_refuses_a_storage_that_has_lost_entries() {
    for (config, commit) in [
        (Config::new(1), 3),
        (
            Config {
                applied: 3,
                ..Config::new(1)
            },
            1,
        ),
    ] {
        let promised = HardState {
            term: 1,
            vote: 0,
            commit,
        };
        let storage = stored(&[1], &[1, 1], promised);
        let node = basalt_raft::RawNode::new(config, storage);
        assert!(matches!(node.err(), Some(Error::InvalidConfig(_))));
    }
}
