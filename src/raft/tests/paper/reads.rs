//! Linearizable reads that write nothing: confirmed by a quorum after they were asked for.

use basalt_raft::eraftpb::{Entry, Message, MessageType};
use basalt_raft::{Config, Error, MemStorage, ReadState};

use crate::network::{Network, Peer};
use crate::parts::{accept, message};

fn answered(index: u64, context: &'static str) -> ReadState {
    ReadState {
        index,
        context: context.into(),
    }
}

/// A leader of term 1 with two followers that have everything, and nothing left to send.
fn leader(config: Config) -> Peer {
    let mut leader = Peer::new(config, MemStorage::with_voters(&[1, 2, 3]));
    leader.elect();
    leader.acknowledge_all();
    assert_eq!(leader.committed(), 1);
    leader
}

/// What a follower says to a heartbeat.
fn echo(heartbeat: &Message) -> Message {
    assert_eq!(heartbeat.msg_type(), MessageType::MsgHeartbeat);
    Message {
        context: heartbeat.context.clone(),
        ..message(
            MessageType::MsgHeartbeatResponse,
            heartbeat.to,
            heartbeat.from,
            heartbeat.term,
        )
    }
}

#[test]
fn a_read_is_answered_when_a_quorum_has_confirmed_the_leader_after_it() {
    let mut leader = leader(Config::new(1));
    leader.tick();
    let before = leader.take_sent();
    leader.read("x");
    assert_eq!(leader.take_reads(), []);
    let round = leader.take_sent();
    assert_eq!(round.len(), 2);
    // Answers to heartbeats that were sent before the read say nothing about it.
    for heartbeat in &before {
        leader.step(echo(heartbeat));
    }
    assert_eq!(leader.take_reads(), []);
    leader.step(echo(&round[0]));
    assert_eq!(leader.take_reads(), [answered(1, "x")]);
    leader.step(echo(&round[1]));
    assert_eq!(leader.take_reads(), []);
}

#[test]
fn a_read_names_the_commit_index_of_when_it_was_asked_for() {
    let mut leader = leader(Config::new(1));
    leader.propose("not committed yet");
    let append = leader.take_sent();
    leader.read("x");
    let round = leader.take_sent();
    leader.step(accept(&append[0]));
    assert_eq!(leader.committed(), 2);
    leader.step(echo(&round[0]));
    assert_eq!(leader.take_reads(), [answered(1, "x")]);
}

#[test]
fn a_late_answer_does_not_take_a_later_one_back() {
    let mut leader = Peer::new(Config::new(1), MemStorage::with_voters(&[1, 2, 3, 4, 5]));
    leader.elect();
    leader.acknowledge_all();
    leader.read("first");
    let first = leader.take_sent();
    leader.read("second");
    let second = leader.take_sent();
    leader.step(echo(&second[0]));
    leader.step(echo(&first[0]));
    assert_eq!(leader.take_reads(), []);
    leader.step(echo(&second[1]));
    assert_eq!(
        leader.take_reads(),
        [answered(1, "first"), answered(1, "second")]
    );
}

#[test]
fn a_later_confirmation_answers_all_earlier_reads_in_their_order() {
    let mut leader = leader(Config::new(1));
    leader.read("first");
    leader.take_sent();
    leader.read("second");
    let round = leader.take_sent();
    leader.read("third");
    leader.step(echo(&round[0]));
    assert_eq!(
        leader.take_reads(),
        [answered(1, "first"), answered(1, "second")]
    );
}

#[test]
fn a_read_with_the_context_of_an_earlier_one_waits_for_its_own_round() {
    // A client that tries again uses the same context; late answers to the first round must not
    // confirm the second read.
    let mut leader = leader(Config::new(1));
    leader.read("again");
    let first = leader.take_sent();
    leader.step(echo(&first[0]));
    assert_eq!(leader.take_reads(), [answered(1, "again")]);
    leader.read("again");
    leader.take_sent();
    leader.step(echo(&first[1]));
    assert_eq!(leader.take_reads(), []);
}

#[test]
fn reads_of_one_ready_share_one_round_of_heartbeats() {
    let mut leader = leader(Config::new(1));
    for context in ["a", "b", "c"] {
        leader
            .raw
            .read_index(context.into())
            .expect("room for reads");
    }
    leader.sync();
    let round = leader.take_sent();
    assert_eq!(round.len(), 2);
    leader.step(echo(&round[1]));
    let all = ["a", "b", "c"].map(|context| answered(1, context));
    assert_eq!(leader.take_reads(), all);
}

#[test]
fn without_batching_each_read_has_a_round_of_its_own() {
    let mut leader = leader(Config {
        batch_appends: false,
        ..Config::new(1)
    });
    for context in ["a", "b"] {
        leader
            .raw
            .read_index(context.into())
            .expect("room for reads");
    }
    leader.sync();
    let rounds = leader.take_sent();
    assert_eq!(rounds.len(), 4);
    assert_ne!(rounds[0].context, rounds[2].context);
    leader.step(echo(&rounds[0]));
    assert_eq!(leader.take_reads(), [answered(1, "a")]);
    leader.step(echo(&rounds[2]));
    assert_eq!(leader.take_reads(), [answered(1, "b")]);
}

#[test]
fn a_follower_passes_a_read_on_and_gets_the_leaders_answer() {
    let mut network = Network::with_config(3, Config::new);
    network.campaign(1);
    network.propose(1, "data");
    network.peer_mut(2).read("of node 2");
    network.deliver();
    assert_eq!(network.peer_mut(2).take_reads(), [answered(2, "of node 2")]);
    assert_eq!(network.peer_mut(1).take_reads(), []);
}

#[test]
fn a_read_without_a_leader_is_never_answered() {
    let mut network = Network::with_config(3, Config::new);
    network.peer_mut(2).read("of node 2");
    network.campaign(1);
    network.pass(5);
    assert_eq!(network.peer_mut(2).take_reads(), []);
}

#[test]
fn a_read_waits_for_the_first_commit_of_the_leaders_term() {
    let mut leader = Peer::new(Config::new(1), MemStorage::with_voters(&[1, 2, 3]));
    leader.elect();
    let first = leader.take_sent();
    leader.read("early");
    leader.tick();
    for heartbeat in leader.take_sent() {
        leader.step(echo(&heartbeat));
    }
    assert_eq!(leader.take_reads(), []);
    // Now it is committed, and the read begins its round.
    leader.take_sent();
    leader.step(accept(&first[0]));
    assert_eq!(leader.committed(), 1);
    assert_eq!(leader.take_reads(), []);
    let sent = leader.take_sent();
    let beats = |m: &&Message| m.msg_type() == MessageType::MsgHeartbeat;
    let round = sent.iter().find(beats).expect("a round of heartbeats");
    leader.step(echo(round));
    assert_eq!(leader.take_reads(), [answered(1, "early")]);
}

#[test]
fn a_lone_leader_too_holds_reads_until_its_first_entry_is_durable() {
    let mut leader = Peer::new(Config::new(1), MemStorage::with_voters(&[1]));
    leader.raw.campaign().expect("a voter");
    // The pre-vote needs no write; then the term and the vote do, and then the first entry.
    for _ in 0..2 {
        let ready = leader.raw.ready().expect("storage in memory");
        if let Some(hard_state) = ready.hard_state {
            leader.raw.storage_mut().set_hard_state(hard_state);
        }
        leader.raw.advance().expect("storage in memory");
    }
    assert_eq!(leader.raft().role(), basalt_raft::Role::Leader);
    leader
        .raw
        .read_index("early".into())
        .expect("room for reads");
    let ready = leader.raw.ready().expect("storage in memory");
    assert_eq!(ready.entries.len(), 1);
    assert_eq!(ready.read_states, []);
    leader.raw.storage_mut().append(ready.entries);
    leader.raw.advance().expect("storage in memory");
    leader.sync();
    assert_eq!(leader.take_reads(), [answered(1, "early")]);
    leader.read("now");
    assert_eq!(leader.take_reads(), [answered(1, "now")]);
}

#[test]
fn a_deposed_leader_answers_no_read() {
    let mut network = Network::with_config(3, Config::new);
    network.campaign(1);
    let old = network.peer_mut(1);
    old.tick();
    let early = old.take_sent();
    network.isolate(1);
    network.peer_mut(1).read("stale");
    network.deliver();
    // Nodes 2 and 3 have heard of no leader for long enough.
    for _ in 0..20 {
        network.tick(2);
        network.tick(3);
    }
    let new = if network.peer(2).raft().leader() == 2 {
        2
    } else {
        3
    };
    network.propose(new, "news");
    assert!(network.peer(new).committed() > network.peer(1).committed());
    // Answers of the old term, to what was sent before the read, arrive late.
    for heartbeat in &early {
        network.peer_mut(1).step(echo(heartbeat));
    }
    assert_eq!(network.peer_mut(1).take_reads(), []);
    network.recover();
    network.pass(5);
    assert_eq!(network.peer(1).raft().leader(), new);
    assert_eq!(network.peer_mut(1).take_reads(), []);
}

#[test]
fn reads_beyond_the_limit_are_refused() {
    let mut leader = leader(Config {
        max_pending_reads: 2,
        ..Config::new(1)
    });
    leader.read("first");
    leader.read("second");
    let round = leader.take_sent();
    let third = leader.raw.read_index("third".into());
    assert!(matches!(third, Err(Error::ReadsFull)), "{third:?}");
    leader.step(echo(&round[3]));
    assert_eq!(leader.take_reads().len(), 2);
    leader.read("third");
}

#[test]
fn a_read_is_confirmed_by_the_quorum_of_the_membership_that_is_applied() {
    // Of five, one has confirmed the read when two of the silent ones are removed.
    let mut network = Network::with_config(5, Config::new);
    network.campaign(1);
    for silent in [3, 4, 5] {
        network.isolate(silent);
    }
    network.peer_mut(1).read("x");
    network.deliver();
    assert_eq!(network.peer_mut(1).take_reads(), []);
    let leader = network.peer_mut(1);
    for silent in [4, 5] {
        let remove = crate::parts::change(basalt_raft::eraftpb::ConfChangeType::RemoveNode, silent);
        leader.raw.apply_conf_change(remove).expect("voters stay");
        leader.sync();
    }
    assert_eq!(leader.take_reads(), [answered(1, "x")]);
}

#[test]
fn reads_carry_their_context_as_the_only_entry() {
    let mut follower = Peer::new(Config::new(2), MemStorage::with_voters(&[1, 2, 3]));
    follower.step(message(MessageType::MsgHeartbeat, 1, 2, 1));
    follower.take_sent();
    follower.read("x");
    let asked = follower.take_sent();
    let context = |data: &'static str| Entry {
        data: data.into(),
        ..Entry::default()
    };
    assert_eq!(asked[0].msg_type(), MessageType::MsgReadIndex);
    assert_eq!(
        (asked[0].to, &asked[0].entries[..]),
        (1, &[context("x")][..])
    );

    follower.step(Message {
        index: 7,
        entries: vec![context("x")],
        ..message(MessageType::MsgReadIndexResp, 1, 2, 1)
    });
    assert_eq!(follower.take_reads(), [answered(7, "x")]);
}
