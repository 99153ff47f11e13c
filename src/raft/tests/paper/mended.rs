//! Mistakes that were made once: each is told as the claim that it broke.

use basalt_raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, Entry, HardState,
    Message, MessageType,
};
use basalt_raft::tracker::{Progress, ProgressState};
use basalt_raft::{
    Config, Error, LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD, MemStorage, MembershipChange, RawNode,
    ReadMode, Role,
};

use crate::network::{Network, Peer};
use crate::parts::{accept, change, entries, entry, in_term, message, snapshot, stored};

/// An election timeout of [`Config::new`].
const TIMEOUT: u64 = 10;

/// Node 1 of three, which leads term 2 with five entries of term 1, all committed, and its first own.
fn leader() -> Peer {
    let known = HardState {
        commit: 5,
        ..in_term(1)
    };
    let storage = stored(&[1, 2, 3], &[1; 5], known);
    let mut leader = Peer::new(Config::new(1), storage);
    leader.elect();
    assert_eq!(leader.state(), (Role::Leader, 2, 1));
    leader
}

/// What the leader knows of node 3.
fn third(leader: &Peer) -> &Progress {
    leader.raft().progress().get(3).expect("a member")
}

/// What was sent to node 3 since the last call.
fn sent_to_third(leader: &mut Peer) -> Vec<Message> {
    let mut sent = leader.take_sent();
    sent.retain(|message| message.to == 3);
    sent
}

#[test]
fn a_joiner_that_gets_entries_instead_of_a_snapshot_refuses_changes_and_never_campaigns() {
    let add = MembershipChange::from(change(ConfChangeType::AddNode, 4));
    let (entry_type, data) = add.encode();
    let joining = Entry {
        entry_type: entry_type.into(),
        data,
        ..entry(2, 1)
    };
    let mut joiner = Peer::new(Config::new(4), MemStorage::new());
    let append = Message {
        entries: vec![entry(1, 1), joining.clone()],
        commit: 2,
        ..message(MessageType::MsgAppend, 1, 4, 1)
    };
    joiner.raw.step(append).expect("a leader's append");
    let ready = joiner.raw.ready().expect("storage in memory");
    let storage = joiner.raw.storage_mut();
    storage.append(ready.entries);
    storage.set_hard_state(ready.hard_state.expect("a new term"));
    assert_eq!(ready.committed_entries, [entry(1, 1), joining]);
    // On top of nothing it would be a group of one, and elect itself.
    let refused = joiner.raw.apply_conf_change(add);
    assert!(matches!(refused, Err(Error::ConfChange(_))), "{refused:?}");
    joiner.raw.advance().expect("storage in memory");
    joiner.sync();
    joiner.take_sent();
    for _ in 0..10 * TIMEOUT {
        joiner.tick();
    }
    joiner.campaign();
    assert_eq!(joiner.state(), (Role::Follower, 1, 1));
    assert_eq!(joiner.take_sent(), []);
    // It is one of four when it is told of the others.
    joiner.step(Message {
        snapshot: Some(Box::new(snapshot(5, 1, &[1, 2, 3, 4]))),
        ..message(MessageType::MsgSnapshot, 1, 4, 1)
    });
    let members = &joiner.raft().configuration().voters.incoming;
    assert_eq!(members.ids(), [1, 2, 3, 4]);
}

/// Three nodes that are to become two and a learner. A transfer to that one, which cannot be reached,
/// began before the joint configuration was applied, and has refused its end.
fn joint_during_a_transfer() -> Network {
    let mut network = Network::with_config(3, Config::new);
    network.campaign(1);
    let demotion = ConfChangeV2 {
        transition: ConfChangeTransition::TransitionJointImplicit.into(),
        changes: vec![ConfChangeSingle {
            change_type: ConfChangeType::AddLearnerNode.into(),
            node_id: 3,
        }],
        ..ConfChangeV2::default()
    };
    network.peer_mut(1).change(demotion);
    network.isolate(3);
    network.transfer(1, 3);
    assert_eq!(network.peer(1).raft().transferee(), 3);
    assert!(is_joint(&network));
    network
}

fn is_joint(network: &Network) -> bool {
    let leader = network.peer(1);
    assert_eq!(leader.state(), (Role::Leader, 1, 1));
    leader.raft().configuration().voters.is_joint()
}

#[test]
fn a_joint_configuration_is_left_after_a_transfer_failed() {
    // Nobody proposes anything, so nothing else is applied that would remind the leader.
    let mut network = joint_during_a_transfer();
    network.pass(TIMEOUT - 1);
    assert!(is_joint(&network));
    network.pass(1);
    assert!(!is_joint(&network));
    // Or it was called off.
    let mut network = joint_during_a_transfer();
    network.transfer(1, 1);
    assert!(!is_joint(&network));
}

#[test]
fn where_timeouts_are_short_a_lease_is_over_before_another_leader_can_commit() {
    for election_tick in [2, 3, 4] {
        let mut network = Network::with_config(3, |id| Config {
            election_tick,
            read_mode: ReadMode::LeaseBased,
            ..Config::new(id)
        });
        network.campaign(1);
        // The followers hear of this round just before they tick.
        network.tick(1);
        network.isolate(1);
        for (id, timeout) in [(2, election_tick), (3, 2 * election_tick)] {
            let raft = network.peer_mut(id).raw.raft_mut();
            raft.set_randomized_election_timeout(timeout);
        }
        let answers_alone = |network: &mut Network| {
            let leader = network.peer_mut(1);
            assert_eq!(leader.state(), (Role::Leader, 1, 1));
            leader.read("x");
            !leader.take_reads().is_empty()
        };
        let mut answered = 0;
        for round in 1..=election_tick {
            answered += u64::from(round < election_tick && answers_alone(&mut network));
            network.tick(3);
            network.tick(2);
            // The leader's clock is a moment behind in the last round.
            if round + 1 < election_tick {
                network.tick(1);
            }
        }
        assert_eq!(network.peer(2).state(), (Role::Leader, 2, 2));
        network.propose(2, "new");
        assert_eq!(network.peer(2).committed(), 3);
        assert!(
            !answers_alone(&mut network),
            "an old read where a timeout has {election_tick} ticks"
        );
        assert_eq!(answered, (election_tick - 1) * 3 / 4);
    }
}

#[test]
fn an_answer_to_a_stale_append_is_no_answer_to_a_probe() {
    for compacted in [false, true] {
        let mut leader = leader();
        if compacted {
            leader.compact();
        }
        let probes = sent_to_third(&mut leader);
        assert_eq!((probes.len(), probes[0].index), (1, 5));
        // A heartbeat from when the leader led term 1 reaches node 3 first.
        let mut follower = Peer::new(Config::new(3), stored(&[1, 2, 3], &[1; 5], in_term(2)));
        follower.step(message(MessageType::MsgHeartbeat, 1, 3, 1));
        let answers = follower.take_sent();
        assert_eq!(answers, [message(MessageType::MsgAppendResponse, 3, 1, 2)]);
        leader.step(answers[0].clone());
        // It has everything, and is not sent it again, let alone the state machine.
        assert_eq!(sent_to_third(&mut leader), []);
        let progress = third(&leader);
        let (state, next) = (progress.state, progress.next);
        assert_eq!((state, next), (ProgressState::Probe, 6));
        leader.step(accept(&probes[0]));
        let progress = third(&leader);
        let (state, matched) = (progress.state, progress.matched);
        assert_eq!((state, matched), (ProgressState::Replicate, 6));
    }
}

#[test]
fn a_follower_that_lost_its_log_makes_no_storm() {
    let mut leader = leader();
    leader.acknowledge_all();
    assert_eq!(third(&leader).matched, 6);
    let mut lost = Peer::new(Config::new(3), stored(&[1, 2, 3], &[], in_term(2)));
    leader.raw.report_unreachable(3).expect("a member");
    leader.propose("data");
    // It is asked once for each sign of life, and not for each refusal.
    for round in 0..3 {
        let mut appends = 0;
        let mut to_lost = sent_to_third(&mut leader);
        while let Some(append) = to_lost.pop() {
            appends += 1;
            assert!(appends < 2, "a storm in round {round}");
            lost.step(append);
            let refusals = lost.take_sent();
            assert!(refusals.len() == 1 && refusals[0].reject);
            leader.step(refusals[0].clone());
            to_lost.extend(sent_to_third(&mut leader));
        }
        assert_eq!(appends, 1, "round {round}");
        assert_eq!(third(&leader).matched, 6);
        leader.step(message(MessageType::MsgHeartbeatResponse, 3, 1, 2));
    }
}

/// Does what an asynchronous node wants appended; what it wants applied is returned.
fn appended(node: &mut RawNode<MemStorage>) -> Vec<Message> {
    let mut to_apply = Vec::new();
    while node.has_ready() {
        for task in node.ready().expect("storage in memory").messages {
            if task.to == LOCAL_APPLY_THREAD {
                to_apply.push(task);
            } else if task.to == LOCAL_APPEND_THREAD {
                let storage = node.storage_mut();
                if let Some(snapshot) = task.snapshot {
                    storage.apply_snapshot(*snapshot).expect("a newer snapshot");
                }
                storage.append(task.entries);
                for response in task.responses.into_iter().filter(|m| m.to == 1) {
                    node.step(response).expect("an acknowledgement");
                }
            }
        }
    }
    to_apply
}

#[test]
fn applies_that_a_snapshot_has_overtaken_do_not_count_for_ever() {
    for acknowledged in [false, true] {
        let config = Config {
            async_storage_writes: true,
            // One entry at a time.
            max_committed_size_per_ready: 1,
            ..Config::new(1)
        };
        let storage = MemStorage::with_voters(&[1, 2]);
        let mut node = RawNode::new(config, storage).expect("a node that can start");
        let from_leader = |kind| message(kind, 2, 1, 1);
        let step = |node: &mut RawNode<MemStorage>, message| {
            node.step(message).expect("a message like any other");
            appended(node)
        };
        let append = Message {
            entries: entries(&[1, 1]),
            commit: 2,
            ..from_leader(MessageType::MsgAppend)
        };
        let mut overtaken = step(&mut node, append);
        assert_eq!(overtaken.len(), 1);
        assert_eq!(overtaken[0].entries, [entry(1, 1)]);
        let newer = Message {
            snapshot: Some(Box::new(snapshot(20, 1, &[1, 2]))),
            ..from_leader(MessageType::MsgSnapshot)
        };
        assert_eq!(step(&mut node, newer), []);
        if acknowledged {
            for late in std::mem::take(&mut overtaken[0].responses) {
                assert_eq!(step(&mut node, late), []);
            }
        }
        assert_eq!(node.raft().log().applied(), 20);
        let append = Message {
            index: 20,
            log_term: 1,
            entries: vec![entry(21, 1)],
            commit: 21,
            ..from_leader(MessageType::MsgAppend)
        };
        let to_apply = step(&mut node, append);
        assert_eq!(to_apply.len(), 1, "acknowledged: {acknowledged}");
        assert_eq!(to_apply[0].entries, [entry(21, 1)]);
    }
}

#[test]
fn a_rejection_without_a_hint_by_a_peer_without_sessions_steps_back_by_one() {
    let rejection = |index, session| Message {
        reject: true,
        index,
        session,
        ..message(MessageType::MsgAppendResponse, 3, 1, 2)
    };
    let mut leader = leader();
    sent_to_third(&mut leader);
    for rejected in [5, 4, 3] {
        leader.step(rejection(rejected, 0));
        let probes = sent_to_third(&mut leader);
        assert_eq!((probes.len(), probes[0].index), (1, rejected - 1));
    }
    // A peer that knows hints, and says that it has nothing, means it.
    let session = third(&leader).session;
    leader.step(rejection(2, session));
    assert_eq!(sent_to_third(&mut leader)[0].index, 0);
}

#[test]
fn transfers_do_not_keep_a_leader_without_a_quorum_in_office() {
    let mut leader = leader();
    leader.acknowledge_all();
    // Nobody is heard from any more, and somebody tries one after the other.
    for tick in 0..2 * TIMEOUT {
        if tick % (TIMEOUT - 2) == 0 {
            let target = 2 + tick / (TIMEOUT - 2) % 2;
            leader.raw.transfer_leader(target).expect("a request");
            assert_eq!(leader.raft().transferee(), target);
        }
        leader.tick();
    }
    assert_eq!(leader.state(), (Role::Follower, 2, 0));
}

#[test]
fn an_append_that_contradicts_what_is_committed_leaves_term_and_leader_as_they_were() {
    let known = HardState {
        commit: 5,
        ..in_term(1)
    };
    let behind = |index, log_term, entries| Message {
        index,
        log_term,
        entries,
        ..message(MessageType::MsgAppend, 3, 1, 9)
    };
    for wrong in [behind(4, 8, vec![]), behind(4, 1, vec![entry(5, 9)])] {
        let storage = stored(&[1, 2, 3], &[1; 5], known);
        let mut follower = Peer::new(Config::new(1), storage);
        follower.step(message(MessageType::MsgHeartbeat, 2, 1, 1));
        follower.take_sent();
        let result = follower.try_step(wrong.clone());
        assert!(
            matches!(result, Err(Error::Divergence { from: 3, .. })),
            "{result:?}"
        );
        assert_eq!(follower.state(), (Role::Follower, 1, 2));
        assert_eq!(follower.take_sent(), []);
        // Nor does it pass for a sign of life.
        for _ in 0..2 * TIMEOUT {
            assert!(follower.try_step(wrong.clone()).is_err());
            follower.tick();
        }
        assert_eq!(follower.state(), (Role::PreCandidate, 1, 0));
    }
}
