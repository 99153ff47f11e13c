//! How a leader sends: within a window, without a stall, and back to where the logs agree in few steps.

use basalt_raft::eraftpb::{ConfChangeType, Message, MessageType};
use basalt_raft::tracker::{Progress, ProgressState};
use basalt_raft::{Config, MemStorage, entry_size};

use crate::network::{Network, Peer};
use crate::parts::{accept, change, entry_with, in_term, message, stored};

/// A leader of term 1 of two with these settings, which replicates to the other; its log has one
/// entry.
fn replicating(config: Config) -> Peer {
    let mut leader = Peer::new(config, MemStorage::with_voters(&[1, 2]));
    leader.elect();
    leader.acknowledge_all();
    assert_eq!(follower_of(&leader).state, ProgressState::Replicate);
    leader
}

fn follower_of(leader: &Peer) -> &Progress {
    leader.raft().progress().get(2).expect("a member")
}

/// The heartbeat response of the follower.
fn alive() -> Message {
    message(MessageType::MsgHeartbeatResponse, 2, 1, 1)
}

/// From, and how many, entries each of the appends has.
fn shape(sent: &[Message]) -> Vec<(u64, usize)> {
    let shape = |append: &Message| {
        assert_eq!(append.msg_type(), MessageType::MsgAppend);
        (append.index, append.entries.len())
    };
    sent.iter().map(shape).collect()
}

#[test]
fn a_batch_is_one_append_for_all_proposals_of_a_ready() {
    let mut leader = replicating(Config::new(1));
    for data in ["a", "b", "c"] {
        leader.raw.propose(data.into()).expect("a leader");
    }
    leader.sync();
    let sent = leader.take_sent();
    assert_eq!(shape(&sent), [(1, 3)]);
    let proposed = [
        entry_with(2, 1, "a"),
        entry_with(3, 1, "b"),
        entry_with(4, 1, "c"),
    ];
    assert_eq!(sent[0].entries, proposed);
}

#[test]
fn lazy_commits_go_with_the_next_append_or_heartbeat_and_changes_of_members_at_once() {
    let mut leader = replicating(Config {
        lazy_commits: true,
        ..Config::new(1)
    });
    let commits = |sent: &[Message]| -> Vec<u64> { sent.iter().map(|m| m.commit).collect() };
    leader.raw.propose("a".into()).expect("a leader");
    leader.sync();
    let first = leader.take_sent();
    assert_eq!(commits(&first), [1]);
    leader.step(accept(&first[0]));
    assert_eq!(leader.raft().log().committed(), 2);
    assert_eq!(commits(&leader.take_sent()), [0; 0], "nobody is told of it");
    leader.raw.propose("b".into()).expect("a leader");
    leader.sync();
    let second = leader.take_sent();
    assert_eq!(commits(&second), [2], "the next append does");
    leader.step(accept(&second[0]));
    assert_eq!(commits(&leader.take_sent()), [0; 0]);
    leader.raw.tick().expect("a tick");
    leader.sync();
    let sent = leader.take_sent();
    let kinds: Vec<_> = sent.iter().map(|m| (m.msg_type(), m.commit)).collect();
    assert_eq!(kinds, [(MessageType::MsgHeartbeat, 3)], "or a heartbeat");
    let change = change(ConfChangeType::AddLearnerNode, 3);
    leader.raw.propose_conf_change(change).expect("a leader");
    leader.sync();
    let third = leader.take_sent();
    leader.step(accept(&third[0]));
    let told: Vec<_> = leader.take_sent();
    let told = told.iter().find(|m| m.to == 2).map(|m| m.commit);
    assert_eq!(told, Some(4), "a change of members is told at once");
}

#[test]
fn without_batching_each_proposal_is_an_append() {
    let mut leader = replicating(Config {
        batch_appends: false,
        ..Config::new(1)
    });
    for data in ["a", "b", "c"] {
        leader.raw.propose(data.into()).expect("a leader");
    }
    leader.sync();
    assert_eq!(shape(&leader.take_sent()), [(1, 1), (2, 1), (3, 1)]);
}

#[test]
fn a_batch_carries_the_latest_commit_index() {
    let mut leader = replicating(Config::new(1));
    leader.propose("a");
    let first = leader.take_sent();
    leader.raw.propose("b".into()).expect("a leader");
    leader.raw.step(accept(&first[0])).expect("an answer");
    leader.sync();
    let sent = leader.take_sent();
    assert_eq!(shape(&sent), [(2, 1)]);
    assert_eq!(sent[0].commit, 2);
}

#[test]
fn an_append_that_only_commits_needs_no_answer_and_gets_none_but_a_refusal() {
    let mut leader = replicating(Config::new(1));
    leader.propose("a");
    let proposal = leader.take_sent();
    assert!(!proposal[0].needs_no_answer);
    leader.step(accept(&proposal[0]));
    let commit = leader.take_sent();
    assert_eq!(shape(&commit), [(2, 0)]);
    assert!(commit[0].needs_no_answer);

    let log = stored(&[1, 2], &[1, 1], in_term(1));
    let mut follower = Peer::new(Config::new(2), log);
    follower.step(commit[0].clone());
    assert_eq!(follower.committed(), 2);
    assert_eq!(follower.take_sent(), []);
    let mut behind = Peer::new(Config::new(2), stored(&[1, 2], &[1], in_term(1)));
    behind.step(commit[0].clone());
    let answers = behind.take_sent();
    assert_eq!((answers.len(), answers[0].reject), (1, true));
}

#[test]
fn an_append_has_no_more_bytes_than_allowed_but_always_one_entry() {
    let size = entry_size(&entry_with(1, 1, "data"));
    for (max_size_per_msg, count) in [(0, 1), (size, 1), (2 * size - 1, 1), (2 * size, 2)] {
        let mut leader = replicating(Config {
            max_size_per_msg,
            ..Config::new(1)
        });
        for _ in 0..4 {
            leader.raw.propose("data".into()).expect("a leader");
        }
        leader.sync();
        let sent = leader.take_sent();
        assert!(sent.iter().all(|m| m.entries.len() == count), "{sent:?}");
        assert_eq!(sent.len(), 4 / count);
    }
}

#[test]
fn no_more_appends_are_on_their_way_than_the_window_has_messages() {
    let mut leader = replicating(Config {
        max_inflight_msgs: 3,
        ..Config::new(1)
    });
    for _ in 0..5 {
        leader.propose("data");
    }
    let sent = leader.take_sent();
    assert_eq!(shape(&sent), [(1, 1), (2, 1), (3, 1)]);
    assert!(follower_of(&leader).inflights.is_full());
    // One is acknowledged: one goes, with everything that has waited.
    leader.step(accept(&sent[0]));
    assert_eq!(shape(&leader.take_sent()), [(4, 2)]);
    // An acknowledgement stands for all before it.
    leader.step(accept(&sent[2]));
    assert_eq!(follower_of(&leader).inflights.count(), 1);
}

#[test]
fn no_more_bytes_are_on_their_way_than_the_window_has() {
    let size = entry_size(&entry_with(1, 1, "data"));
    let mut leader = replicating(Config {
        max_size_per_msg: size,
        max_inflight_bytes: 2 * size,
        ..Config::new(1)
    });
    for _ in 0..4 {
        leader.propose("data");
    }
    let sent = leader.take_sent();
    assert_eq!(shape(&sent), [(1, 1), (2, 1)]);
    assert_eq!(follower_of(&leader).inflights.bytes(), 2 * size);
    leader.step(accept(&sent[0]));
    assert_eq!(shape(&leader.take_sent()), [(3, 1)]);
}

#[test]
fn a_probe_waits_for_its_answer() {
    let mut leader = Peer::new(Config::new(1), MemStorage::with_voters(&[1, 2]));
    leader.elect();
    leader.propose("a");
    leader.propose("b");
    let probe = leader.take_sent();
    assert_eq!(shape(&probe), [(0, 1)]);
    // A follower that lives but did not answer is probed again.
    leader.step(alive());
    assert_eq!(shape(&leader.take_sent()), [(0, 3)]);
    leader.propose("c");
    assert_eq!(leader.take_sent(), []);
    leader.step(accept(&probe[0]));
    assert_eq!(follower_of(&leader).state, ProgressState::Replicate);
    assert_eq!(shape(&leader.take_sent()), [(1, 3)]);
}

#[test]
fn an_empty_append_passes_a_full_window_when_the_follower_lives() {
    let config = |id| Config {
        max_inflight_msgs: 2,
        ..Config::new(id)
    };
    let mut leader = replicating(config(1));
    for _ in 0..4 {
        leader.propose("lost");
    }
    leader.take_sent();
    assert!(follower_of(&leader).inflights.is_full());
    leader.step(alive());
    assert_eq!(shape(&leader.take_sent()), [(3, 0)]);
    // And a group that lost a whole window goes on after a heartbeat.
    let mut network = Network::with_config(2, config);
    network.campaign(1);
    network.isolate(2);
    for _ in 0..4 {
        network.propose(1, "lost");
    }
    network.recover();
    network.tick(1);
    assert_eq!(network.peer(2).log().len(), 5);
    assert_eq!(network.peer(1).committed(), 5);
}

#[test]
fn an_unreachable_follower_is_probed_from_what_it_has() {
    let mut leader = replicating(Config::new(1));
    leader.propose("lost");
    leader.take_sent();
    leader.raw.report_unreachable(2).expect("a member");
    let progress = follower_of(&leader);
    assert_eq!(
        (progress.state, progress.matched, progress.next),
        (ProgressState::Probe, 1, 2)
    );
    leader.propose("next");
    assert_eq!(shape(&leader.take_sent()), [(1, 2)]);
    leader.propose("waits");
    assert_eq!(leader.take_sent(), []);
}

#[test]
fn a_follower_that_has_everything_is_probed_once_and_replicated_to_again() {
    let mut leader = replicating(Config::new(1));
    leader.raw.report_unreachable(2).expect("a member");
    assert_eq!(follower_of(&leader).state, ProgressState::Probe);
    leader.step(alive());
    let probe = leader.take_sent();
    assert_eq!(shape(&probe), [(1, 0)]);
    leader.step(accept(&probe[0]));
    assert_eq!(follower_of(&leader).state, ProgressState::Replicate);
}

#[test]
fn a_late_acknowledgement_does_not_answer_a_probe() {
    let mut leader = replicating(Config::new(1));
    leader.propose("data");
    leader.acknowledge_all();
    leader.raw.report_unreachable(2).expect("a member");
    leader.step(Message {
        index: 1,
        session: 1,
        ..message(MessageType::MsgAppendResponse, 2, 1, 1)
    });
    let progress = follower_of(&leader);
    assert_eq!(
        (progress.state, progress.matched),
        (ProgressState::Probe, 2)
    );
}

#[test]
fn a_follower_that_lost_appends_catches_up_within_one_heartbeat() {
    let mut network = Network::with_config(3, Config::new);
    network.campaign(1);
    network.isolate(3);
    for _ in 0..50 {
        network.propose(1, "data");
    }
    network.recover();
    network.tick(1);
    assert_eq!(network.peer(3).log(), network.peer(1).log());
    assert_eq!(network.peer(3).committed(), 51);
}

/// Elects node 1 with `leading` over node 2 with `following` and counts the appends that node 2
/// refuses until the logs are equal.
fn refusals(leading: &[u64], following: &[u64]) -> usize {
    let term = leading.iter().chain(following).max().copied().unwrap_or(0);
    let mut leader = Peer::new(Config::new(1), stored(&[1, 2, 3], leading, in_term(term)));
    let mut follower = Peer::new(Config::new(2), stored(&[1, 2, 3], following, in_term(term)));
    leader.elect();
    let mut refusals = 0;
    loop {
        let sent = leader.take_sent();
        let to_follower = sent.into_iter().filter(|m| m.to == 2);
        for append in to_follower {
            follower.step(append);
        }
        let answers = follower.take_sent();
        if answers.is_empty() {
            break;
        }
        for answer in answers {
            refusals += usize::from(answer.reject);
            leader.step(answer);
        }
    }
    assert_eq!(follower.log(), leader.log());
    refusals
}

fn runs(runs: &[(u64, usize)]) -> Vec<u64> {
    let run = |(term, count): &(u64, usize)| std::iter::repeat_n(*term, *count);
    runs.iter().flat_map(run).collect()
}

#[test]
fn a_follower_skips_all_terms_above_the_one_it_was_asked_for() {
    // The leader's entries of term 2 are not on the follower, which has many of terms 3 to 6.
    let leading = runs(&[(1, 10), (2, 100)]);
    let following = runs(&[(1, 10), (3, 20), (4, 20), (5, 30), (6, 50)]);
    assert_eq!(refusals(&leading, &following), 1);
}

#[test]
fn a_leader_skips_all_terms_above_the_one_it_was_told_of() {
    // The other way round: the follower's many entries are of a low term.
    let leading = runs(&[(1, 10), (3, 20), (4, 20), (5, 30), (6, 30)]);
    let following = runs(&[(1, 10), (2, 100)]);
    assert_eq!(refusals(&leading, &following), 1);
}

#[test]
fn logs_that_differ_in_many_terms_cost_a_step_a_term_and_not_a_step_an_entry() {
    // Terms alternate, so both sides have to skip: five terms on each, ten entries in each.
    let leading = runs(&[(1, 10), (2, 10), (4, 10), (6, 10), (8, 10), (10, 10)]);
    let following = runs(&[(1, 10), (3, 10), (5, 10), (7, 10), (9, 10)]);
    let count = refusals(&leading, &following);
    assert!(count <= 5, "{count} refusals");
}

#[test]
fn a_short_log_is_found_in_one_step() {
    let leading = runs(&[(1, 1000)]);
    assert_eq!(refusals(&leading, &[]), 1);
    assert_eq!(refusals(&leading, &leading[..400]), 1);
    assert_eq!(refusals(&leading, &leading), 0);
}

#[test]
fn what_a_member_acknowledged_in_an_earlier_life_does_not_count() {
    let mut leader = Peer::new(Config::new(1), MemStorage::with_voters(&[1, 2, 3]));
    leader.elect();
    leader.acknowledge_all();
    leader.propose("data");
    let appends = leader.take_sent();
    let late = accept(appends.iter().find(|m| m.to == 3).expect("an append to 3"));
    for kind in [ConfChangeType::RemoveNode, ConfChangeType::AddNode] {
        let of_3 = change(kind, 3);
        leader
            .raw
            .apply_conf_change(of_3)
            .expect("a change that fits");
        leader.sync();
    }
    // Node 3 is a new one with the same name, and an answer of the old one arrives.
    leader.take_sent();
    leader.step(late.clone());
    let progress = leader.raft().progress().get(3).expect("a member");
    assert_eq!(progress.matched, 0);
    assert_ne!(progress.session, late.session);
    assert_eq!(leader.committed(), 1);
    // A refusal of the old one does not count either.
    let next = progress.next;
    leader.step(Message {
        reject: true,
        reject_hint: 0,
        index: next - 1,
        ..late.clone()
    });
    let progress = leader.raft().progress().get(3).expect("a member");
    assert_eq!(progress.next, next);
    // What the new one says does; and so does what a peer without sessions says.
    for (session, matched) in [(progress.session, 1), (0, 2)] {
        leader.step(Message {
            session,
            index: matched,
            ..late.clone()
        });
        let progress = leader.raft().progress().get(3).expect("a member");
        assert_eq!(progress.matched, matched);
    }
    assert_eq!(leader.committed(), 2);
}
