//! Campaigns that must not disturb, leaders that must give up, and who votes.

use basalt_raft::eraftpb::{ConfChangeType, ConfState, Entry, HardState, Message, MessageType};
use basalt_raft::{Config, MemStorage, MembershipChange, Role};

use crate::network::{Network, Peer};
use crate::parts::{change, in_term, message, stored};

/// An election timeout of [`Config::new`].
const TIMEOUT: u64 = 10;

/// A group of three after an election that node 1 won.
fn led_by_first(config: impl Fn(u64) -> Config) -> Network {
    let mut network = Network::with_config(3, config);
    network.campaign(1);
    assert_eq!(network.leader(), 1);
    network
}

fn without_pre_vote(id: u64) -> Config {
    Config {
        pre_vote: false,
        ..Config::new(id)
    }
}

/// A request for a vote with the best of logs.
fn request(kind: MessageType, from: u64, to: u64, term: u64) -> Message {
    Message {
        index: 100,
        log_term: term - 1,
        ..message(kind, from, to, term)
    }
}

#[test]
fn a_follower_that_hears_its_leader_takes_no_part_in_an_election() {
    for kind in [MessageType::MsgRequestVote, MessageType::MsgPreVote] {
        let mut network = led_by_first(without_pre_vote);
        for _ in 1..TIMEOUT {
            network.peer_mut(2).tick();
        }
        let follower = network.peer_mut(2);
        follower.step(request(kind, 3, 2, 2));
        assert_eq!(follower.state(), (Role::Follower, 1, 1), "{kind:?}");
        assert_eq!(follower.take_sent(), [], "{kind:?}");
    }
}

#[test]
fn a_follower_that_heard_nothing_for_an_election_timeout_votes_again() {
    let mut network = led_by_first(without_pre_vote);
    let follower = network.peer_mut(2);
    follower
        .raw
        .raft_mut()
        .set_randomized_election_timeout(2 * TIMEOUT - 1);
    for _ in 0..TIMEOUT {
        follower.tick();
    }
    follower.step(request(MessageType::MsgRequestVote, 3, 2, 2));
    let granted = message(MessageType::MsgRequestVoteResponse, 2, 3, 2);
    assert_eq!(follower.take_sent(), [granted]);
    assert_eq!(follower.raft().vote(), 3);
}

#[test]
fn whoever_votes_waits_for_another_election_timeout() {
    let storage = stored(&[1, 2, 3], &[1], in_term(2));
    let mut voter = Peer::new(Config::new(1), storage);
    voter
        .raw
        .raft_mut()
        .set_randomized_election_timeout(TIMEOUT);
    for _ in 1..TIMEOUT {
        voter.tick();
    }
    // In its own term, so that no change of the term sets its clock.
    voter.step(request(MessageType::MsgRequestVote, 2, 1, 2));
    assert_eq!(voter.raft().vote(), 2);
    for _ in 1..TIMEOUT {
        voter.tick();
        assert_eq!(voter.raft().role(), Role::Follower);
    }
    voter.tick();
    assert_eq!(voter.raft().role(), Role::PreCandidate);
}

#[test]
fn nobody_votes_in_a_term_whose_leader_it_knows() {
    let mut follower = Peer::new(Config::new(1), MemStorage::with_voters(&[1, 2, 3]));
    follower.step(message(MessageType::MsgHeartbeat, 2, 1, 4));
    follower.take_sent();
    assert_eq!(follower.raft().vote(), 0);
    follower.step(request(MessageType::MsgRequestVote, 3, 1, 4));
    assert!(follower.take_sent()[0].reject);
    assert_eq!(follower.state(), (Role::Follower, 4, 2));
}

#[test]
fn a_leader_with_a_quorum_is_not_deposed_by_a_vote_request() {
    let mut network = led_by_first(without_pre_vote);
    let leader = network.peer_mut(1);
    leader.step(request(MessageType::MsgRequestVote, 3, 1, 5));
    assert_eq!(leader.state(), (Role::Leader, 1, 1));
    assert_eq!(leader.take_sent(), []);
}

#[test]
fn a_vote_that_the_leader_asked_for_is_given_whoever_was_heard() {
    let mut network = led_by_first(without_pre_vote);
    let follower = network.peer_mut(2);
    follower.step(Message {
        context: "CampaignTransfer".into(),
        ..request(MessageType::MsgRequestVote, 3, 2, 2)
    });
    let granted = message(MessageType::MsgRequestVoteResponse, 2, 3, 2);
    assert_eq!(follower.take_sent(), [granted]);
}

#[test]
fn a_follower_that_forgets_its_leader_votes_at_once() {
    let mut network = led_by_first(Config::new);
    let follower = network.peer_mut(2);
    follower.raw.forget_leader().expect("a follower");
    assert_eq!(follower.state(), (Role::Follower, 1, 0));
    follower.step(request(MessageType::MsgPreVote, 3, 2, 2));
    let granted = message(MessageType::MsgPreVoteResp, 2, 3, 2);
    assert_eq!(follower.take_sent(), [granted]);
    // The leader's next message makes it a follower as before.
    follower.step(message(MessageType::MsgHeartbeat, 1, 2, 1));
    assert_eq!(follower.state(), (Role::Follower, 1, 1));
}

#[test]
fn a_leader_that_hears_no_quorum_steps_down_within_two_election_timeouts() {
    let mut network = led_by_first(Config::new);
    network.isolate(1);
    let leader = network.peer_mut(1);
    for _ in 0..2 * TIMEOUT {
        assert!(leader.raft().term() == 1);
        leader.tick();
    }
    assert_ne!(leader.raft().role(), Role::Leader);
    assert_eq!(leader.raft().term(), 1);
}

#[test]
fn a_leader_that_hears_a_quorum_leads_on() {
    let mut network = led_by_first(Config::new);
    network.isolate(3);
    network.pass(10 * TIMEOUT);
    assert_eq!(network.peer(1).state(), (Role::Leader, 1, 1));
    assert_eq!(network.peer(2).state(), (Role::Follower, 1, 1));
}

#[test]
fn without_check_quorum_a_leader_leads_on_alone() {
    let mut network = led_by_first(|id| Config {
        check_quorum: false,
        ..Config::new(id)
    });
    network.isolate(1);
    for _ in 0..10 * TIMEOUT {
        network.peer_mut(1).tick();
    }
    assert_eq!(network.peer(1).state(), (Role::Leader, 1, 1));
}

#[test]
fn with_check_quorum_a_candidate_ahead_in_term_is_taken_back_in() {
    let mut network = led_by_first(without_pre_vote);
    network.isolate(3);
    network.propose(1, "meanwhile");
    for _ in 0..2 {
        network.campaign(3);
    }
    assert_eq!(network.peer(3).state(), (Role::Candidate, 3, 0));
    network.recover();
    // Its request is ignored by followers that hear a leader; what it answers to the leader's
    // heartbeat is not.
    network.campaign(3);
    assert_eq!(network.leader(), 1);
    network.tick(1);
    assert_eq!(network.peer(1).raft().role(), Role::Follower);
    assert_eq!(network.peer(1).raft().term(), 4);
    network.campaign(1);
    assert_eq!(
        network.states(),
        [
            (Role::Leader, 5, 1),
            (Role::Follower, 5, 1),
            (Role::Follower, 5, 1)
        ]
    );
    assert_eq!(network.peer(3).log(), network.peer(1).log());
}

#[test]
fn with_pre_vote_a_node_that_was_cut_off_comes_back_without_an_election() {
    let mut network = led_by_first(Config::new);
    network.isolate(3);
    network.pass(10 * TIMEOUT);
    assert_eq!(network.peer(3).state(), (Role::PreCandidate, 1, 0));
    network.recover();
    for _ in 0..2 * TIMEOUT {
        network.peer_mut(3).tick();
    }
    network.deliver();
    network.pass(1);
    assert_eq!(
        network.states(),
        [
            (Role::Leader, 1, 1),
            (Role::Follower, 1, 1),
            (Role::Follower, 1, 1)
        ]
    );
}

#[test]
fn a_pre_vote_promises_nothing() {
    let storage = stored(&[1, 2, 3], &[1], in_term(1));
    let mut voter = Peer::new(Config::new(1), storage);
    for candidate in [2, 3] {
        voter.step(request(MessageType::MsgPreVote, candidate, 1, 2));
        let granted = message(MessageType::MsgPreVoteResp, 1, candidate, 2);
        assert_eq!(voter.take_sent(), [granted]);
    }
    assert_eq!(voter.raw.storage().hard_state(), &in_term(1));
    // Not to a log that is behind.
    voter.step(Message {
        index: 0,
        log_term: 0,
        ..request(MessageType::MsgPreVote, 2, 1, 2)
    });
    let refused = Message {
        reject: true,
        ..message(MessageType::MsgPreVoteResp, 1, 2, 1)
    };
    assert_eq!(voter.take_sent(), [refused]);
}

#[test]
fn a_refused_pre_vote_teaches_the_higher_term() {
    let storage = stored(&[1, 2, 3], &[1], in_term(1));
    let mut behind = Peer::new(Config::new(1), storage.clone());
    let mut ahead = Peer::new(Config::new(2), storage);
    ahead.step(message(MessageType::MsgHeartbeat, 3, 2, 7));
    ahead.take_sent();
    behind.campaign();
    assert_eq!(behind.state(), (Role::PreCandidate, 1, 0));
    for question in behind.take_sent() {
        if question.to == 2 {
            ahead.step(question);
        }
    }
    for answer in ahead.take_sent() {
        behind.step(answer);
    }
    assert_eq!(behind.state(), (Role::Follower, 7, 0));
}

#[test]
fn late_pre_votes_start_no_election_on_a_leader() {
    let mut leader = Peer::new(Config::new(1), MemStorage::with_voters(&[1, 2, 3]));
    leader.elect();
    for voter in [2, 3] {
        leader.step(message(MessageType::MsgPreVoteResp, voter, 1, 2));
    }
    assert_eq!(leader.state(), (Role::Leader, 1, 1));
}

/// Voters 1 to 3 and the learner 4, or the voter 1 and learners.
fn with_learners(voters: &[u64], learners: &[u64]) -> MemStorage {
    let mut storage = MemStorage::new();
    storage.set_conf_state(ConfState {
        nodes: voters.to_vec(),
        learners: learners.to_vec(),
        ..ConfState::default()
    });
    storage
}

#[test]
fn a_learner_never_campaigns() {
    let mut learner = Peer::new(Config::new(4), with_learners(&[1, 2, 3], &[4]));
    for _ in 0..10 * TIMEOUT {
        learner.tick();
    }
    learner.campaign();
    learner.step(message(MessageType::MsgTimeoutNow, 1, 4, 1));
    assert_eq!(learner.state(), (Role::Follower, 1, 0));
    assert_eq!(learner.take_sent(), []);
}

#[test]
fn a_learner_votes_when_it_is_asked() {
    // The candidate may know of its promotion before the learner does.
    let mut learner = Peer::new(Config::new(4), with_learners(&[1, 2, 3], &[4]));
    learner.step(request(MessageType::MsgRequestVote, 1, 4, 2));
    let granted = message(MessageType::MsgRequestVoteResponse, 4, 1, 2);
    assert_eq!(learner.take_sent(), [granted]);
    assert_eq!(learner.raw.storage().hard_state().vote, 1);
}

#[test]
fn learners_count_neither_in_elections_nor_for_commits_nor_as_contact() {
    let storage = with_learners(&[1, 2, 3], &[4, 5]);
    let node = |id| Peer::new(Config::new(id), storage.clone());
    let mut network = Network::of((1..=5).map(node));
    network.isolate(2);
    network.isolate(3);
    network.campaign(1);
    assert_eq!(network.peer(1).state(), (Role::PreCandidate, 0, 0));
    network.recover();
    network.campaign(1);
    network.isolate(2);
    network.isolate(3);
    let committed = network.peer(1).committed();
    network.propose(1, "not by learners");
    for learner in [4, 5] {
        assert_eq!(network.peer(learner).log(), network.peer(1).log());
    }
    assert_eq!(network.peer(1).committed(), committed);
    network.pass(2 * TIMEOUT);
    assert_ne!(network.peer(1).raft().role(), Role::Leader);
}

#[test]
fn a_lone_voter_commits_without_its_learners() {
    let mut leader = Peer::new(Config::new(1), with_learners(&[1], &[2, 3]));
    leader.campaign();
    leader.propose("alone");
    assert_eq!(leader.state(), (Role::Leader, 1, 1));
    assert_eq!(leader.committed(), 2);
}

#[test]
fn nobody_campaigns_with_a_committed_membership_change_to_apply() {
    let mut node = Peer::new(without_pre_vote(1), MemStorage::with_voters(&[1, 2, 3]));
    let add = MembershipChange::from(change(ConfChangeType::AddNode, 4));
    let (entry_type, data) = add.encode();
    let append = Message {
        entries: vec![Entry {
            entry_type: entry_type.into(),
            term: 1,
            index: 1,
            data,
        }],
        commit: 1,
        ..message(MessageType::MsgAppend, 2, 1, 1)
    };
    node.raw.step(append).expect("a leader's append");
    let ready = node.raw.ready().expect("storage in memory");
    assert_eq!(ready.committed_entries.len(), 1);
    node.raw.storage_mut().append(ready.entries);

    for _ in 0..2 * TIMEOUT {
        node.raw.tick().expect("a tick");
    }
    node.raw.campaign().expect("a call");
    let now = message(MessageType::MsgTimeoutNow, 2, 1, 1);
    node.raw.step(now).expect("a leader's wish");
    assert_eq!(node.state(), (Role::Follower, 1, 2));

    node.raw.apply_conf_change(add).expect("a change that fits");
    node.raw.advance().expect("storage in memory");
    node.campaign();
    assert_eq!(node.state(), (Role::Candidate, 2, 0));
    assert_eq!(node.take_sent().iter().filter(|m| m.term == 2).count(), 3);
}

#[test]
fn a_restarted_voter_keeps_its_vote() {
    let mut voter = Peer::new(Config::new(1), MemStorage::with_voters(&[1, 2, 3]));
    voter.step(request(MessageType::MsgRequestVote, 2, 1, 4));
    voter.restart();
    voter.take_sent();
    voter.step(request(MessageType::MsgRequestVote, 3, 1, 4));
    let refused = Message {
        reject: true,
        ..message(MessageType::MsgRequestVoteResponse, 1, 3, 4)
    };
    assert_eq!(voter.take_sent(), [refused]);
    let kept = HardState {
        vote: 2,
        ..in_term(4)
    };
    assert_eq!(voter.raw.storage().hard_state(), &kept);
}

#[test]
fn a_voter_in_quarantine_votes_only_where_the_leader_wants_it() {
    let mut voter = Peer::new(
        Config {
            quarantine_ticks: TIMEOUT,
            ..Config::new(1)
        },
        stored(&[1, 2, 3], &[1], in_term(1)),
    );
    for _ in 1..TIMEOUT {
        voter.tick();
    }
    for kind in [MessageType::MsgRequestVote, MessageType::MsgPreVote] {
        voter.step(request(kind, 2, 1, 2));
    }
    assert_eq!(voter.take_sent(), []);
    assert_eq!(voter.raft().term(), 1);
    voter
        .raw
        .raft_mut()
        .set_randomized_election_timeout(2 * TIMEOUT - 1);
    voter.tick();
    voter.step(request(MessageType::MsgRequestVote, 2, 1, 2));
    let granted = message(MessageType::MsgRequestVoteResponse, 1, 2, 2);
    assert_eq!(voter.take_sent(), [granted]);
}

#[test]
fn a_leader_of_an_earlier_term_is_answered_by_nodes_with_pre_vote_or_check_quorum() {
    for (pre_vote, check_quorum) in [(true, false), (false, true), (true, true), (false, false)] {
        let config = Config {
            pre_vote,
            check_quorum,
            ..Config::new(1)
        };
        let mut node = Peer::new(config, stored(&[1, 2, 3], &[], in_term(5)));
        for kind in [MessageType::MsgHeartbeat, MessageType::MsgAppend] {
            node.step(message(kind, 2, 1, 4));
            let mut answers = Vec::new();
            if pre_vote || check_quorum {
                answers.push(message(MessageType::MsgAppendResponse, 1, 2, 5));
            }
            assert_eq!(
                node.take_sent(),
                answers,
                "{pre_vote} {check_quorum} {kind:?}"
            );
        }
    }
}
