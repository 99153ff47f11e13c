//! Reads by lease: answered at once while a quorum is bound to this leader, and never while somebody
//! else may lead.

use basalt_raft::eraftpb::{ConfChangeType, Message, MessageType};
use basalt_raft::{Config, Error, MemStorage, RawNode, ReadMode, Role};

use crate::network::{Network, Peer};
use crate::parts::{change, message};

/// An election timeout of [`Config::new`]; a lease is three quarters of it.
const TIMEOUT: u64 = 10;
const LEASE: u64 = (TIMEOUT - 1) * 3 / 4;

fn config(id: u64) -> Config {
    Config {
        read_mode: ReadMode::LeaseBased,
        ..Config::new(id)
    }
}

/// Three nodes led by the first, which has a lease from now on.
fn with_lease() -> Network {
    let mut network = Network::with_config(3, config);
    network.campaign(1);
    network.tick(1);
    network
}

/// Whether the leader answers a read by itself.
fn answers_alone(leader: &mut Peer) -> bool {
    leader.read("x");
    !leader.take_reads().is_empty()
}

fn others_lead(network: &Network) -> bool {
    let leads = |id: &u64| network.peer(*id).raft().role() == Role::Leader;
    [2, 3].iter().any(leads)
}

#[test]
fn a_lease_needs_check_quorum() {
    let wrong = Config {
        check_quorum: false,
        ..config(1)
    };
    let node = RawNode::new(wrong, MemStorage::with_voters(&[1]));
    assert!(matches!(node.err(), Some(Error::InvalidConfig(_))));
}

#[test]
fn with_a_lease_a_read_is_answered_at_once() {
    let mut network = with_lease();
    network.propose(1, "data");
    let leader = network.peer_mut(1);
    leader.read("x");
    let reads = leader.take_reads();
    assert_eq!(reads.len(), 1);
    assert_eq!(reads[0].index, 2);
    assert_eq!(leader.take_sent(), []);
}

#[test]
fn a_new_leader_has_no_lease_before_a_quorum_has_answered_it() {
    let mut network = Network::with_config(3, config);
    network.campaign(1);
    assert_eq!(network.peer(1).committed(), 1);
    assert!(!answers_alone(network.peer_mut(1)));
    network.deliver();
    assert_eq!(network.peer_mut(1).take_reads().len(), 1);
    assert!(answers_alone(network.peer_mut(1)));
}

#[test]
fn a_lease_runs_out_three_quarters_of_a_timeout_less_a_tick_after_its_heartbeat_was_sent() {
    let mut network = with_lease();
    network.isolate(1);
    for _ in 1..LEASE {
        network.tick(1);
        assert!(answers_alone(network.peer_mut(1)));
    }
    network.tick(1);
    assert!(!answers_alone(network.peer_mut(1)));
}

#[test]
fn a_leader_that_stood_still_has_no_lease_and_leads_on_once_it_is_answered() {
    let mut network = with_lease();
    let leader = network.peer_mut(1);
    leader.raw.pass_time(50);
    leader.tick();
    assert_eq!(leader.raft().role(), Role::Leader);
    assert!(!answers_alone(leader));
    network.deliver();
    assert_eq!(network.peer_mut(1).take_reads().len(), 1);
    assert!(answers_alone(network.peer_mut(1)));
}

#[test]
fn a_follower_that_stood_still_does_not_campaign_for_it() {
    let mut network = with_lease();
    let follower = network.peer_mut(2);
    follower.raw.pass_time(50);
    follower.tick();
    assert_eq!(follower.raft().role(), Role::Follower);
    assert_eq!(follower.take_sent(), []);
}

#[test]
fn a_late_answer_extends_the_lease_only_from_when_the_question_was_sent() {
    let mut network = with_lease();
    network.isolate(1);
    network.tick(1);
    network.recover();
    let leader = network.peer_mut(1);
    leader.tick();
    let question = leader.take_sent();
    let follower = network.peer_mut(2);
    for heartbeat in question.into_iter().filter(|m| m.to == 2) {
        follower.step(heartbeat);
    }
    let answer = follower.take_sent();
    let leader = network.peer_mut(1);
    for _ in 0..LEASE - 1 {
        leader.tick();
    }
    leader.take_sent();
    for heartbeat in answer {
        leader.step(heartbeat);
    }
    assert!(answers_alone(leader));
    leader.tick();
    assert!(!answers_alone(leader));
}

#[test]
fn where_the_lease_has_run_out_a_quorum_is_asked() {
    let mut network = with_lease();
    network.isolate(1);
    for _ in 0..LEASE {
        network.tick(1);
    }
    network.recover();
    assert!(!answers_alone(network.peer_mut(1)));
    network.deliver();
    assert_eq!(network.peer_mut(1).take_reads().len(), 1);
}

#[test]
fn nobody_else_is_elected_within_a_lease_even_where_clocks_run_a_third_faster() {
    let mut network = with_lease();
    network.isolate(1);
    // The earliest that an election may start.
    let impatient = network.peer_mut(2).raw.raft_mut();
    impatient.set_randomized_election_timeout(TIMEOUT);
    let mut answered = 0;
    for tick in 1..2 * TIMEOUT {
        for _ in 0..1 + u64::from(tick % 3 == 0) {
            network.tick(2);
            network.tick(3);
        }
        let other_leads = others_lead(&network);
        if answers_alone(network.peer_mut(1)) {
            assert!(!other_leads, "two leaders answer after {tick} ticks");
            answered += 1;
        }
        network.tick(1);
    }
    assert_eq!(answered, LEASE);
    assert!(others_lead(&network));
}

#[test]
fn the_caller_cannot_campaign_against_a_lease() {
    let mut network = with_lease();
    network.campaign(2);
    assert_eq!(network.peer(2).state(), (Role::Follower, 1, 1));
    assert_eq!(network.leader(), 1);
}

#[test]
fn a_follower_that_gave_its_lease_does_not_forget_its_leader() {
    let mut network = with_lease();
    network.peer_mut(2).raw.forget_leader().expect("a call");
    assert_eq!(network.peer(2).raft().leader(), 1);
}

#[test]
fn a_promise_to_a_leader_outlives_its_term() {
    // Node 2 has answered the round that gives node 1 its lease. Then it hears of a higher term from
    // somebody who does not lead, say a late refusal of a pre-vote, and of its leader no more.
    let mut network = with_lease();
    let follower = network.peer_mut(2);
    follower.step(Message {
        reject: true,
        ..message(MessageType::MsgPreVoteResp, 3, 2, 9)
    });
    assert_eq!(follower.state(), (Role::Follower, 9, 0));
    let request = |kind, term| Message {
        index: 100,
        log_term: 9,
        ..message(kind, 3, 2, term)
    };
    for kind in [MessageType::MsgRequestVote, MessageType::MsgPreVote] {
        for term in [9, 10] {
            follower.step(request(kind, term));
            let granted = |m: &Message| !m.reject;
            assert!(!follower.take_sent().iter().any(granted), "{kind:?} {term}");
        }
    }
    follower.raw.campaign().expect("a call");
    assert_eq!(follower.state(), (Role::Follower, 9, 0));
    // It was for an election timeout.
    let timeout = follower.raw.raft_mut();
    timeout.set_randomized_election_timeout(2 * TIMEOUT);
    for _ in 0..TIMEOUT {
        follower.tick();
    }
    follower.step(request(MessageType::MsgRequestVote, 10));
    let granted = message(MessageType::MsgRequestVoteResponse, 2, 3, 10);
    assert_eq!(follower.take_sent(), [granted]);
}

/// The leader wants node 2 to take over; the message that says so is on its way, and the leader has
/// given up waiting.
fn abandoned_transfer() -> (Network, Message) {
    let mut network = with_lease();
    let leader = network.peer_mut(1);
    leader.raw.transfer_leader(2).expect("a member");
    leader.sync();
    let mut sent = leader.take_sent();
    let now = sent.pop().expect("a message to node 2");
    assert_eq!((now.to, now.msg_type()), (2, MessageType::MsgTimeoutNow));
    assert!(
        !answers_alone(leader),
        "a lease while leadership is handed over"
    );
    network.deliver();
    network.pass(TIMEOUT);
    assert_eq!(network.peer(1).state(), (Role::Leader, 1, 1));
    assert_eq!(network.peer(1).raft().transferee(), 0);
    network.peer_mut(1).take_reads();
    (network, now)
}

#[test]
fn there_is_no_lease_while_an_abandoned_transfer_may_still_happen() {
    let (mut network, now) = abandoned_transfer();
    assert!(!answers_alone(network.peer_mut(1)));
    network.peer_mut(1).take_sent();
    // It happens: nobody's lease stands in its way.
    network.isolate(1);
    network.send(now);
    assert_eq!(network.peer(2).state(), (Role::Leader, 2, 2));
    assert_eq!(network.peer(1).raft().role(), Role::Leader);
    assert!(!answers_alone(network.peer_mut(1)));
}

#[test]
fn the_lease_comes_back_once_the_transferee_has_more_than_the_transfer_was_for() {
    let (mut network, now) = abandoned_transfer();
    network.propose(1, "after it");
    assert_eq!(network.peer(2).raft().log().last_index(), 2);
    assert!(answers_alone(network.peer_mut(1)));
    network.send(now);
    assert_eq!(network.peer(2).state(), (Role::Follower, 1, 1));
    assert!(answers_alone(network.peer_mut(1)));
}

#[test]
fn what_others_acknowledge_after_an_abandoned_transfer_brings_no_lease_back() {
    let (mut network, now) = abandoned_transfer();
    network.isolate(2);
    network.propose(1, "after it");
    network.tick(1);
    assert_eq!(network.peer(1).committed(), 2);
    assert!(!answers_alone(network.peer_mut(1)));
    // Nor what the target had already.
    network.peer_mut(1).step(Message {
        index: 1,
        session: 1,
        ..message(MessageType::MsgAppendResponse, 2, 1, 1)
    });
    assert!(!answers_alone(network.peer_mut(1)));
    // Rightly: the target would still obey.
    network.peer_mut(2).step(now);
    assert_eq!(network.peer(2).state(), (Role::Candidate, 2, 0));
}

#[test]
fn a_change_of_members_takes_the_lease_of_the_new_quorum() {
    // Two new voters that have confirmed nothing: the leader and one other are no quorum any more.
    let mut network = with_lease();
    let leader = network.peer_mut(1);
    for id in [4, 5] {
        let add = change(ConfChangeType::AddNode, id);
        leader
            .raw
            .apply_conf_change(add)
            .expect("a change that fits");
    }
    leader.sync();
    network.isolate(3);
    for _ in 0..LEASE {
        network.tick(1);
    }
    assert!(!answers_alone(network.peer_mut(1)));
}
