//! Nodes with different settings in one group: with or without pre-vote, with or without
//! check-quorum. Whatever happened, once all can talk again they settle.
//!
//! For that, nodes that have neither must answer stale leaders ([`Config::answer_stale_leader`]), as
//! those do that have one of them.

use basalt_raft::{Config, MemStorage, Role};

use crate::network::{Network, Peer};

/// Pre-vote and check-quorum.
type Settings = (bool, bool);

const SETTINGS: [Settings; 4] = [(false, false), (false, true), (true, false), (true, true)];

/// Election timeouts within which a group must have settled. Two candidates may tie a few times; a
/// node that must first learn of a term takes one more.
const PATIENCE: u64 = 20;

fn config(id: u64, (pre_vote, check_quorum): Settings) -> Config {
    Config {
        pre_vote,
        check_quorum,
        answer_stale_leader: true,
        ..Config::new(id)
    }
}

/// Three nodes with these settings, after the first election.
fn group(settings: [Settings; 3]) -> Network {
    let storage = MemStorage::with_voters(&[1, 2, 3]);
    let nodes = (1..).zip(settings);
    let mut network = Network::of(nodes.map(|(id, of)| Peer::new(config(id, of), storage.clone())));
    settle(&mut network, &format!("{settings:?} at the start"));
    network
}

/// The leader, if all agree on it.
fn agreed(network: &Network) -> Option<u64> {
    let states = network.states();
    let (_, term, leader) = states[0];
    let same = states
        .iter()
        .all(|state| (state.1, state.2) == (term, leader));
    (same && leader != 0).then_some(leader)
}

/// Ticks until all follow one leader that can commit.
#[track_caller]
fn settle(network: &mut Network, what: &str) {
    let mut ticks = 0;
    while agreed(network).is_none() {
        assert!(ticks < PATIENCE * 10, "{what}: {:?}", network.states());
        network.pass(1);
        ticks += 1;
    }
    let leader = network.leader();
    network.propose(leader, "settled");
    network.pass(1);
    let committed = network.peer(leader).committed();
    for peer in network.peers() {
        assert_eq!(
            peer.log().last().map(|entry| &entry.data[..]),
            Some(&b"settled"[..])
        );
        assert_eq!(peer.committed(), committed, "{what}");
    }
}

fn leaders(network: &Network) -> Vec<u64> {
    let leads = |peer: &&Peer| peer.raft().role() == Role::Leader;
    network
        .peers()
        .filter(leads)
        .map(|peer| peer.raft().id())
        .collect()
}

/// All 64 groups of three.
fn groups() -> impl Iterator<Item = [Settings; 3]> {
    SETTINGS.into_iter().flat_map(|one| {
        let two = move |two| SETTINGS.into_iter().map(move |three| [one, two, three]);
        SETTINGS.into_iter().flat_map(two)
    })
}

#[test]
fn any_mixture_of_pre_vote_and_check_quorum_settles_after_a_node_was_cut_off() {
    for settings in groups() {
        for cut_off in 1..=3 {
            let what = format!("{settings:?}, {cut_off} cut off");
            let mut network = group(settings);
            network.isolate(cut_off);
            network.pass(60);
            // The others go on, and their log gets longer.
            for leader in leaders(&network) {
                network.propose(leader, "meanwhile");
            }
            network.recover();
            settle(&mut network, &what);
        }
    }
}

#[test]
fn any_mixture_of_pre_vote_and_check_quorum_settles_after_two_nodes_lost_each_other() {
    for settings in groups() {
        for (one, other) in [(1, 2), (1, 3), (2, 3)] {
            let what = format!("{settings:?}, {one} and {other} apart");
            let mut network = group(settings);
            network.cut(one, other);
            network.pass(60);
            network.recover();
            settle(&mut network, &what);
        }
    }
}

#[test]
fn any_mixture_of_pre_vote_and_check_quorum_settles_after_one_way_was_closed() {
    for settings in groups() {
        for (from, to) in [(1, 2), (2, 1), (1, 3), (3, 1), (2, 3), (3, 2)] {
            let what = format!("{settings:?}, nothing from {from} to {to}");
            let mut network = group(settings);
            network.cut_one_way(from, to);
            network.pass(60);
            network.recover();
            settle(&mut network, &what);
        }
    }
}

#[test]
fn any_mixture_of_pre_vote_and_check_quorum_settles_when_nobody_heard_anybody() {
    for settings in groups() {
        let mut network = group(settings);
        for id in 1..=3 {
            network.isolate(id);
        }
        network.pass(60);
        network.recover();
        settle(&mut network, &format!("{settings:?}, all apart"));
    }
}

#[test]
fn a_node_that_is_ahead_in_term_and_gets_pre_vote_is_not_stuck() {
    // The last of three to be switched over was cut off, and campaigned in term after term.
    for check_quorum in [false, true] {
        let mut network = group([(false, check_quorum); 3]);
        let behind = if agreed(&network) == Some(3) { 2 } else { 3 };
        network.isolate(behind);
        network.pass(60);
        let leader = leaders(&network)[0];
        network.propose(leader, "meanwhile");
        let ahead = network.peer(behind).raft().term();
        assert!(ahead > network.peer(leader).raft().term());
        for id in 1..=3 {
            let peer = network.peer_mut(id);
            peer.config.pre_vote = true;
            peer.restart();
        }
        network.recover();
        settle(&mut network, &format!("check-quorum {check_quorum}"));
        assert!(
            network.peer(behind).raft().term() >= ahead,
            "a term was lost"
        );
    }
}

#[test]
fn a_node_that_has_neither_and_answers_no_stale_leader_stays_out() {
    // As in the reference implementation: the others ignore its campaigns, and it ignores them. They
    // go on without it.
    for answers in [false, true] {
        let mut network = group([(false, false), (false, true), (false, true)]);
        let peer = network.peer_mut(1);
        peer.config.answer_stale_leader = answers;
        peer.restart();
        network.isolate(1);
        network.pass(60);
        let term = network.peer(2).raft().term();
        assert!(network.peer(1).raft().term() > term);
        network.recover();
        network.pass(PATIENCE * 10);
        assert_eq!(agreed(&network).is_some(), answers);
        if !answers {
            assert_eq!(network.peer(2).raft().term(), term);
            let leader = leaders(&network)[0];
            let committed = network.peer(leader).committed();
            network.propose(leader, "without 1");
            assert_eq!(network.peer(leader).committed(), committed + 1);
        }
    }
}
