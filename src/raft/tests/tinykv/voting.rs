//! Project 2AB, of elections: whose log is good enough for a vote, and who gives way to whom.

use basalt_raft::eraftpb::{HardState, Message, MessageType};
use basalt_raft::{Error, Role};

use crate::network::{Network, Peer};
use crate::parts::{entries, entry, entry_with, in_term, message, stored, tinykv_config};

const THREE: [u64; 3] = [1, 2, 3];

#[test]
fn a_vote_request_names_the_candidates_last_entry() {
    for (terms, term) in [(vec![1], 2), (vec![1, 2], 3)] {
        let mut node = Peer::of(1, &THREE);
        node.step(Message {
            entries: entries(&terms),
            ..message(MessageType::MsgAppend, 2, 1, term - 1)
        });
        node.take_sent();
        while node.raft().role() != Role::Candidate {
            node.tick();
        }
        let request = |to| Message {
            index: terms.len() as u64,
            log_term: terms[terms.len() - 1],
            ..message(MessageType::MsgRequestVote, 1, to, term)
        };
        assert_eq!(node.take_sent(), [request(2), request(3)]);
    }
}

#[test]
fn a_voter_refuses_candidates_whose_log_is_behind_its_own() {
    // The voter's log; last term and index of the candidate's; whether it is refused.
    let cases: [(&[u64], u64, u64, bool); 9] = [
        (&[1], 1, 1, false),
        (&[1], 1, 2, false),
        (&[1, 1], 1, 1, true),
        (&[1], 2, 1, false),
        (&[1], 2, 2, false),
        (&[1, 1], 2, 1, false),
        (&[2], 1, 1, true),
        (&[2], 1, 2, true),
        // No leader writes such a log, but it is upstream's case.
        (&[2, 1], 1, 1, true),
    ];
    for (terms, log_term, index, reject) in cases {
        let storage = stored(&[1, 2], terms, HardState::default());
        let mut voter = Peer::new(tinykv_config(1), storage);
        voter.step(Message {
            log_term,
            index,
            ..message(MessageType::MsgRequestVote, 2, 1, 3)
        });
        let answer = Message {
            reject,
            ..message(MessageType::MsgRequestVoteResponse, 1, 2, 3)
        };
        assert_eq!(
            voter.take_sent(),
            [answer],
            "{terms:?}, ({log_term}, {index})"
        );
    }
}

/// A node of three whose log has two entries of term 2.
fn voter(vote: u64, term: u64) -> Peer {
    let promised = HardState {
        vote,
        ..in_term(term)
    };
    Peer::new(tinykv_config(1), stored(&THREE, &[2, 2], promised))
}

#[test]
fn a_vote_needs_a_log_that_is_good_enough_and_a_vote_that_is_still_there() {
    // Last index and term of the candidate, node 2; whom the voter has voted for; whether it refuses.
    let followers = [
        (0, 0, 0, true),
        (0, 1, 0, true),
        (0, 2, 0, true),
        (0, 3, 0, false),
        (1, 0, 0, true),
        (1, 1, 0, true),
        (1, 2, 0, true),
        (1, 3, 0, false),
        (2, 0, 0, true),
        (2, 1, 0, true),
        (2, 2, 0, false),
        (2, 3, 0, false),
        (3, 0, 0, true),
        (3, 1, 0, true),
        (3, 2, 0, false),
        (3, 3, 0, false),
        (3, 2, 2, false),
        (3, 2, 1, true),
    ];
    let mut cases = Vec::new();
    for (index, log_term, vote, reject) in followers {
        let term = log_term.max(2);
        cases.push((voter(vote, term), index, log_term, reject));
    }
    // In term 3 these two have voted for themselves.
    let mut leader = voter(0, 2);
    leader.elect();
    cases.push((leader, 3, 3, true));
    let mut candidate = voter(0, 2);
    candidate.campaign();
    cases.push((candidate, 3, 3, true));

    assert_eq!(cases.len(), 20);
    for (mut node, index, log_term, reject) in cases {
        let (role, term, _) = node.state();
        node.take_sent();
        node.step(Message {
            index,
            log_term,
            ..message(MessageType::MsgRequestVote, 2, 1, term)
        });
        let answer = Message {
            reject,
            ..message(MessageType::MsgRequestVoteResponse, 1, 2, term)
        };
        assert_eq!(node.take_sent(), [answer], "{role}, ({log_term}, {index})");
        assert_eq!(node.raft().role(), role);
    }
}

#[test]
fn every_role_steps_down_to_a_higher_term_and_knows_its_leader_by_an_append_only() {
    for (role, entries) in [(Role::Follower, 0), (Role::Candidate, 0), (Role::Leader, 1)] {
        for kind in [MessageType::MsgRequestVote, MessageType::MsgAppend] {
            let mut node = Peer::new(tinykv_config(1), stored(&THREE, &[], in_term(0)));
            match role {
                Role::Candidate => node.campaign(),
                Role::Leader => node.elect(),
                _ => node.step(message(MessageType::MsgRequestVote, 3, 1, 1)),
            }
            assert_eq!((node.raft().role(), node.raft().term()), (role, 1));
            // Nobody here has an entry of term 3, so the append is refused.
            node.step(Message {
                index: 1,
                log_term: 3,
                ..message(kind, 2, 1, 3)
            });
            let leader = if kind == MessageType::MsgAppend { 2 } else { 0 };
            assert_eq!(
                node.state(),
                (Role::Follower, 3, leader),
                "{role}, {kind:?}"
            );
            assert_eq!(node.raft().log().last_index(), entries);
            assert_eq!(node.log().len() as u64, entries);
        }
    }
}

#[test]
fn a_candidate_that_most_refuse_follows_and_later_overwrites_an_uncommitted_newer_entry() {
    // Node 1 led term 1 and its entry reached node 2. Nodes 4 and 5 made node 3 the leader of term
    // 2, and its entry reached nobody.
    let voters = [1, 2, 3, 4, 5];
    let voted = HardState {
        vote: 3,
        ..in_term(2)
    };
    let node = |(id, terms, promised): (u64, &[u64], HardState)| {
        let mut config = tinykv_config(id);
        config.election_tick = 5;
        Peer::new(config, stored(&voters, terms, promised))
    };
    let mut network = Network::of(
        [
            (1, [1].as_slice(), in_term(1)),
            (2, [1].as_slice(), in_term(1)),
            (3, [2].as_slice(), voted),
            (4, [].as_slice(), voted),
            (5, [].as_slice(), voted),
        ]
        .map(node),
    );
    network.campaign(1);
    assert_eq!(network.peer(1).state(), (Role::Follower, 2, 0));
    network.campaign(1);
    assert_eq!(network.peer(1).state(), (Role::Leader, 3, 1));
    for peer in network.peers() {
        assert_eq!(peer.log_terms(), [1, 3], "node {}", peer.raft().id());
    }
}

#[test]
fn a_candidate_with_a_short_log_deposes_the_leader_and_wins_nothing() {
    let mut network = Network::new(3);
    network.cut(1, 3);
    network.campaign(1);
    network.campaign(3);
    assert_eq!(network.peer(1).state(), (Role::Leader, 1, 1));
    assert_eq!(network.peer(3).state(), (Role::Candidate, 1, 0));

    network.recover();
    network.campaign(3);
    assert_eq!(network.states(), [(Role::Follower, 2, 0); 3]);
    for id in [1, 2] {
        assert_eq!(network.peer(id).log(), [entry(1, 1)]);
        assert_eq!(network.peer(id).committed(), 1);
    }
    assert_eq!(network.peer(3).log(), []);
    assert_eq!(network.peer(3).committed(), 0);
}

#[test]
fn an_isolated_candidate_concedes_to_the_leader_of_its_term_and_takes_its_log() {
    let mut network = Network::new(3);
    network.isolate(1);
    network.campaign(1);
    network.campaign(3);
    assert_eq!(network.peer(1).state(), (Role::Candidate, 1, 0));

    network.recover();
    network.tick(3);
    network.propose(3, "force follower");
    network.tick(3);
    assert_eq!(network.peer(1).state(), (Role::Follower, 1, 3));
    let log = [entry(1, 1), entry_with(2, 1, "force follower")];
    for peer in network.peers() {
        assert_eq!(peer.log(), log);
        assert_eq!(peer.committed(), 2);
    }
}

#[test]
fn a_candidate_drops_proposals_and_keeps_nothing_of_them() {
    let shapes: [(u64, &[u64], bool); 5] = [
        (3, &[], true),
        (3, &[3], true),
        (3, &[2, 3], false),
        (4, &[2, 3], false),
        (5, &[2, 3], true),
    ];
    for (size, dead, elected) in shapes {
        let mut network = Network::with_dead(size, dead);
        network.campaign(1);
        let proposed = network.peer_mut(1).raw.propose("somedata".into());
        let mut log = Vec::new();
        if elected {
            proposed.expect("a leader takes proposals");
            network.peer_mut(1).sync();
            log.extend([entry(1, 1), entry_with(2, 1, "somedata")]);
        } else {
            let dropped = matches!(proposed, Err(Error::ProposalDropped(_)));
            assert!(dropped, "{proposed:?}");
        }
        network.deliver();
        for peer in network.peers() {
            assert_eq!(peer.log(), log, "{size} nodes, dead {dead:?}");
            assert_eq!(peer.committed(), log.len() as u64);
        }
        assert_eq!(network.peer(1).raft().term(), 1);
    }
}
