//! Project 2AB, of replication: what a leader sends, what a follower takes, and what is committed.

use basalt_raft::eraftpb::{Entry, HardState, Message, MessageType};
use basalt_raft::{MemStorage, Role};

use crate::network::{Network, Peer};
use crate::parts::{accept, entries, entry, entry_with, in_term, message, stored, tinykv_config};

const THREE: [u64; 3] = [1, 2, 3];

/// A leader of term 1 of these voters, whose first entry everybody has.
fn leader_of(voters: &[u64]) -> Peer {
    let mut leader = Peer::of(1, voters);
    leader.elect();
    leader.acknowledge_all();
    leader.take_applied();
    leader
}

fn commits(sent: &[Message]) -> Vec<(u64, MessageType, u64)> {
    let mut commits: Vec<_> = sent
        .iter()
        .map(|m| (m.to, m.msg_type(), m.commit))
        .collect();
    commits.sort_unstable();
    commits
}

#[test]
fn a_proposal_is_sent_to_each_follower_with_the_place_before_it_and_is_not_committed() {
    let mut leader = leader_of(&THREE);
    let last = leader.raft().log().last_index();
    leader.raw.propose("some data".into()).expect("a leader");
    assert_eq!(leader.raft().log().last_index(), last + 1);
    assert_eq!(leader.committed(), last);

    let ready = leader.raw.ready().expect("storage in memory");
    let proposed = entry_with(last + 1, 1, "some data");
    let append = |to| Message {
        index: last,
        log_term: 1,
        entries: vec![proposed.clone()],
        commit: last,
        session: 1,
        ..message(MessageType::MsgAppend, 1, to, 1)
    };
    assert_eq!(ready.messages, [append(2), append(3)]);
    assert_eq!(ready.entries, [proposed]);
    assert_eq!(ready.committed_entries, []);
}

#[test]
fn a_majority_commits_an_entry_and_each_follower_hears_of_it_in_one_append() {
    let mut leader = leader_of(&THREE);
    let last = leader.raft().log().last_index();
    leader.propose("some data");
    for append in leader.take_sent() {
        leader.step(accept(&append));
    }
    assert_eq!(leader.committed(), last + 1);
    assert_eq!(
        leader.take_applied(),
        [entry_with(last + 1, 1, "some data")]
    );
    let told = |to| (to, MessageType::MsgAppend, last + 1);
    assert_eq!(commits(&leader.take_sent()), [told(2), told(3)]);
}

#[test]
fn an_entry_is_committed_exactly_when_a_majority_has_it() {
    let cases: [(u64, &[u64], bool); 9] = [
        (1, &[], true),
        (3, &[], false),
        (3, &[2], true),
        (3, &[2, 3], true),
        (5, &[], false),
        (5, &[2], false),
        (5, &[2, 3], true),
        (5, &[2, 3, 4], true),
        (5, &[2, 3, 4, 5], true),
    ];
    for (size, acceptors, committed) in cases {
        let voters: Vec<u64> = (1..=size).collect();
        let mut leader = leader_of(&voters);
        let last = leader.raft().log().last_index();
        leader.propose("some data");
        for append in leader.take_sent() {
            if acceptors.contains(&append.to) {
                leader.step(accept(&append));
            }
        }
        let more = leader.committed() > last;
        assert_eq!(more, committed, "{size} voters, accepted by {acceptors:?}");
    }
}

#[test]
fn entries_of_earlier_leaders_are_committed_with_the_first_of_the_own_term() {
    for terms in [vec![], vec![2], vec![1, 2], vec![1]] {
        let storage = stored(&THREE, &terms, in_term(2));
        let mut leader = Peer::new(tinykv_config(1), storage);
        leader.elect();
        leader.propose("some data");
        leader.acknowledge_all();
        let last = terms.len() as u64;
        let mut applied = entries(&terms);
        applied.extend([entry(last + 1, 3), entry_with(last + 2, 3, "some data")]);
        assert_eq!(leader.take_applied(), applied);
    }
}

#[test]
fn a_follower_applies_in_order_what_its_leader_says_is_committed() {
    let cases: [(&[&'static str], usize); 4] = [
        (&["some data"], 1),
        (&["some data", "some data2"], 2),
        (&["some data2", "some data"], 2),
        (&["some data", "some data2"], 1),
    ];
    for (data, commit) in cases {
        let numbered = (1..).zip(data);
        let log: Vec<Entry> = numbered.map(|(at, data)| entry_with(at, 1, data)).collect();
        let mut follower = Peer::of(1, &THREE);
        follower.step(Message {
            entries: log.clone(),
            commit: commit as u64,
            ..message(MessageType::MsgAppend, 2, 1, 1)
        });
        assert_eq!(follower.committed(), commit as u64);
        assert_eq!(follower.take_applied(), log[..commit]);
    }
}

/// Node 1 of three, with entries of terms 1 and 2.
fn follower(commit: u64) -> Peer {
    let promised = HardState {
        commit,
        ..in_term(2)
    };
    Peer::new(tinykv_config(1), stored(&THREE, &[1, 2], promised))
}

#[test]
fn an_append_is_refused_exactly_where_the_entry_before_it_is_missing() {
    // Index and term of the entry before; whether the follower refuses.
    let cases = [
        (0, 0, false),
        (1, 1, false),
        (2, 2, false),
        (2, 1, true),
        (3, 3, true),
    ];
    for (index, log_term, reject) in cases {
        let mut follower = follower(1);
        follower.step(Message {
            index,
            log_term,
            ..message(MessageType::MsgAppend, 2, 1, 3)
        });
        let answers = follower.take_sent();
        let [answer] = answers.as_slice() else {
            panic!("({log_term}, {index}): {answers:?}");
        };
        assert_eq!(answer.msg_type(), MessageType::MsgAppendResponse);
        assert_eq!((answer.to, answer.term), (2, 3));
        assert_eq!(answer.reject, reject, "({log_term}, {index})");
    }
}

#[test]
fn a_follower_cuts_what_conflicts_keeps_what_agrees_and_writes_what_is_new() {
    // Index and term of the entry before, the entries, the log, what is to be written.
    let cases = [
        (2, 2, vec![entry(3, 3)], vec![1, 2, 3], vec![entry(3, 3)]),
        (
            1,
            1,
            vec![entry(2, 3), entry(3, 4)],
            vec![1, 3, 4],
            vec![entry(2, 3), entry(3, 4)],
        ),
        (0, 0, vec![entry(1, 1)], vec![1, 2], vec![]),
        (0, 0, vec![entry(1, 3)], vec![3], vec![entry(1, 3)]),
    ];
    for (index, log_term, entries, terms, written) in cases {
        let mut follower = follower(0);
        let append = Message {
            index,
            log_term,
            entries,
            ..message(MessageType::MsgAppend, 2, 1, 4)
        };
        follower.raw.step(append).expect("a leader's append");
        let ready = follower.raw.ready().expect("storage in memory");
        assert_eq!(follower.log_terms(), terms);
        assert_eq!(ready.entries, written);
    }
}

#[test]
fn a_leader_repairs_the_six_logs_of_figure_7() {
    let leaders: &[u64] = &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6];
    let divergent: [&[u64]; 6] = [
        &[1, 1, 1, 4, 4, 5, 5, 6, 6],
        &[1, 1, 1, 4],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
        &[1, 1, 1, 4, 4, 4, 4],
        &[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
    ];
    for terms in divergent {
        let all_committed = HardState {
            commit: 10,
            ..in_term(8)
        };
        let leader = Peer::new(tinykv_config(1), stored(&THREE, leaders, all_committed));
        let follower = Peer::new(tinykv_config(2), stored(&THREE, terms, in_term(7)));
        // The follower may refuse its vote, so the third voter, of which there is nothing else, gives
        // one.
        let mut network = Network::of([leader, follower]);
        network.campaign(1);
        network.send(message(MessageType::MsgRequestVoteResponse, 3, 1, 9));
        assert_eq!(network.leader(), 1);
        network.propose(1, "");
        assert_eq!(network.peer(1).log().len(), 12);
        assert_eq!(network.peer(2).log(), network.peer(1).log(), "{terms:?}");
        assert_eq!(network.peer(1).committed(), 12);
        assert_eq!(network.peer(2).committed(), 12);
    }
}

#[test]
fn a_leader_commits_by_counting_only_entries_of_its_own_term() {
    for (acknowledged, committed) in [(1, 0), (2, 0), (3, 3)] {
        let storage = stored(&[1, 2], &[1, 2], in_term(2));
        let mut leader = Peer::new(tinykv_config(1), storage);
        leader.elect();
        assert_eq!(leader.raft().term(), 3);
        leader.propose("");
        leader.step(Message {
            index: acknowledged,
            session: 1,
            ..message(MessageType::MsgAppendResponse, 2, 1, 3)
        });
        assert_eq!(leader.committed(), committed);
    }
}

#[test]
fn a_leaders_own_progress_follows_its_log() {
    let mut config = tinykv_config(1);
    config.election_tick = 5;
    let mut leader = Peer::new(config, MemStorage::with_voters(&[1, 2]));
    leader.elect();
    for index in 1..=5 {
        let own = leader.raft().progress().get(1).expect("a member");
        assert_eq!((own.matched, own.next), (index, index + 1));
        leader.propose("foo");
    }
}

#[test]
fn all_nodes_commit_the_same_entries_also_over_a_change_of_leader() {
    // Who campaigns first and proposes.
    let cases: [(&[u64], u64); 2] = [(&[1], 2), (&[1, 2], 4)];
    for (proposers, committed) in cases {
        let mut network = Network::new(3);
        for proposer in proposers {
            network.campaign(*proposer);
            network.propose(*proposer, "somedata");
        }
        for peer in network.peers() {
            assert_eq!(peer.committed(), committed);
        }
        for id in THREE {
            let mut applied = network.peer_mut(id).take_applied();
            applied.retain(|entry| !entry.data.is_empty());
            let data: Vec<_> = applied.iter().map(|entry| &entry.data[..]).collect();
            assert_eq!(data, vec![b"somedata".as_slice(); proposers.len()]);
        }
    }
}

#[test]
fn a_lone_leader_commits_proposals_at_once() {
    let mut network = Network::new(1);
    network.campaign(1);
    network.propose(1, "some data");
    network.propose(1, "some data");
    assert_eq!(network.peer(1).committed(), 3);
}

#[test]
fn a_new_leaders_empty_entry_commits_what_the_old_one_could_not() {
    let mut network = Network::new(5);
    network.campaign(1);
    for other in [3, 4, 5] {
        network.cut(1, other);
    }
    network.propose(1, "some data");
    network.propose(1, "some data");
    assert_eq!(network.peer(1).committed(), 1);
    network.recover();
    network.campaign(2);
    assert_eq!(network.peer(1).committed(), 4);
}

#[test]
fn the_answer_to_a_heartbeat_makes_a_lagging_follower_catch_up() {
    let mut network = Network::new(5);
    network.campaign(1);
    network.isolate(5);
    network.propose(1, "some data");
    network.propose(1, "some data");
    assert_eq!(network.peer(1).committed(), 3);
    assert_eq!(network.peer(5).committed(), 1);
    network.recover();
    network.tick(1);
    assert_eq!(network.peer(5).committed(), 3);
}

#[test]
fn an_append_of_an_old_term_is_ignored() {
    let mut network = Network::new(3);
    for campaigner in [1, 2, 1] {
        network.campaign(campaigner);
    }
    network.send(Message {
        index: 2,
        log_term: 2,
        entries: vec![entry(3, 2)],
        ..message(MessageType::MsgAppend, 2, 1, 2)
    });
    network.propose(1, "somedata");
    let log = [
        entry(1, 1),
        entry(2, 2),
        entry(3, 3),
        entry_with(4, 3, "somedata"),
    ];
    for peer in network.peers() {
        assert_eq!(peer.log(), log);
        assert_eq!(peer.committed(), 4);
    }
}

/// An append of term 3, and what becomes of a log with entries of terms 1 and 2.
struct Case {
    before: (u64, u64),
    entries: Vec<Entry>,
    commit: u64,
    last: u64,
    committed: u64,
    reject: bool,
}

#[test]
fn an_append_rejects_truncates_and_commits_no_further_than_what_it_brings() {
    // The entry before as (index, term), what follows, the leader's commit index; then the last index,
    // the commit index, and whether it is refused.
    let case = |before, entries, commit, last, committed, reject| Case {
        before,
        entries,
        commit,
        last,
        committed,
        reject,
    };
    let cases = [
        case((2, 3), vec![], 3, 2, 0, true),
        case((3, 3), vec![], 3, 2, 0, true),
        case((1, 1), vec![], 1, 2, 1, false),
        case((0, 0), vec![entry(1, 2)], 1, 1, 1, false),
        case((2, 2), vec![entry(3, 2), entry(4, 2)], 3, 4, 3, false),
        case((2, 2), vec![entry(3, 2)], 4, 3, 3, false),
        case((1, 1), vec![entry(2, 2)], 4, 2, 2, false),
        case((1, 1), vec![], 3, 2, 1, false),
        case((1, 1), vec![entry(2, 2)], 3, 2, 2, false),
        case((2, 2), vec![], 3, 2, 2, false),
        case((2, 2), vec![], 4, 2, 2, false),
    ];
    for (number, case) in cases.into_iter().enumerate() {
        let mut follower = follower(0);
        let last_new = case.before.0 + case.entries.len() as u64;
        follower.step(Message {
            index: case.before.0,
            log_term: case.before.1,
            entries: case.entries,
            commit: case.commit,
            ..message(MessageType::MsgAppend, 2, 1, 3)
        });
        assert_eq!(follower.raft().log().last_index(), case.last, "{number}");
        assert_eq!(follower.committed(), case.committed, "{number}");
        let answers = follower.take_sent();
        assert_eq!(answers.len(), 1, "{number}: {answers:?}");
        assert_eq!(answers[0].reject, case.reject, "{number}");
        if !case.reject {
            assert_eq!(answers[0].index, last_new, "{number}");
        }
    }
}

#[test]
fn a_heartbeat_commits_nothing_of_a_log_that_may_differ() {
    for (lost, kept) in [(1, 1), (5, 3), (5, 10)] {
        let mut network = Network::new(3);
        network.campaign(1);
        network.isolate(1);
        for _ in 0..lost {
            network.propose(1, "");
        }
        assert_eq!(network.peer(1).committed(), 1);
        network.campaign(2);
        for _ in 0..kept {
            network.propose(2, "");
        }
        for id in [2, 3] {
            assert_eq!(network.peer(id).committed(), 2 + kept);
        }
        network.recover();
        network.ignore(MessageType::MsgAppend);
        network.tick(2);
        assert_eq!(network.peer(1).state(), (Role::Follower, 2, 2));
        assert_eq!(network.peer(1).committed(), 1);
    }
}

#[test]
fn next_is_behind_the_last_entry_once_it_is_acknowledged() {
    let first = Peer::new(tinykv_config(1), stored(&THREE, &[1, 1, 1], in_term(1)));
    let mut network = Network::of([first, Peer::of(2, &THREE), Peer::of(3, &THREE)]);
    network.campaign(1);
    network.propose(1, "somedata");
    // Three entries, the leader's empty one, the proposal.
    let progress = network.peer(1).raft().progress().get(2).expect("a member");
    assert_eq!(progress.next, 3 + 1 + 1 + 1);
}
