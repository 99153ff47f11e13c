//! Snapshots: when they are sent, what waits for them, and how sending goes on.

use std::cell::Cell;

use basalt_raft::eraftpb::{
    ConfChangeType, ConfState, Entry, HardState, Message, MessageType, Snapshot,
};
use basalt_raft::tracker::{Progress, ProgressState};
use basalt_raft::{
    Config, InitialState, MemStorage, RawNode, Role, SnapshotStatus, Storage, StorageError,
};

use crate::network::{Network, Peer};
use crate::parts::{accept, change, entries, in_term, message, snapshot, stored};

/// Where the log of [`behind`] is compacted, and its snapshot.
const FIRST: u64 = 6;
const SNAPSHOT: u64 = 8;

/// A leader of term 1 with ten entries, of which node 3 has all. Node 2 was never heard from.
fn behind() -> Peer {
    let mut leader = Peer::new(Config::new(1), MemStorage::with_voters(&[1, 2, 3]));
    leader.elect();
    for _ in 0..9 {
        leader.propose("data");
    }
    while let Some(append) = leader.take_sent().iter().find(|m| m.to == 3) {
        leader.step(accept(append));
    }
    assert_eq!(leader.committed(), 10);
    let storage = leader.raw.storage_mut();
    storage
        .create_snapshot(SNAPSHOT, None, "state".into())
        .expect("a first snapshot");
    storage.compact(FIRST - 1).expect("a first compaction");
    leader
}

/// The same with the snapshot on its way.
fn sending() -> Peer {
    let mut leader = behind();
    leader.step(alive());
    let sent = leader.take_sent();
    assert_eq!(sent.len(), 1);
    assert_eq!(
        (sent[0].to, sent[0].msg_type()),
        (2, MessageType::MsgSnapshot)
    );
    leader
}

fn alive() -> Message {
    message(MessageType::MsgHeartbeatResponse, 2, 1, 1)
}

/// Node 2 has everything up to this index.
fn has(index: u64) -> Message {
    Message {
        index,
        session: 1,
        ..message(MessageType::MsgAppendResponse, 2, 1, 1)
    }
}

fn receiver(leader: &Peer) -> &Progress {
    leader.raft().progress().get(2).expect("a member")
}

/// What node 2 is sent, heartbeats aside: kind, place before, count of entries.
fn sent_to_2(leader: &mut Peer) -> Vec<(MessageType, u64, usize)> {
    let mut sent = leader.take_sent();
    sent.retain(|m| m.to == 2 && m.msg_type() != MessageType::MsgHeartbeat);
    let shape = |m: &Message| (m.msg_type(), m.index, m.entries.len());
    sent.iter().map(shape).collect()
}

#[test]
fn a_snapshot_is_sent_only_to_a_member_that_is_heard_from() {
    // Node 2 has answered once, and has been silent for an election timeout.
    let mut leader = Peer::new(Config::new(1), MemStorage::with_voters(&[1, 2, 3]));
    leader.elect();
    leader.acknowledge_all();
    for _ in 0..20 {
        leader.propose("data");
        leader.tick();
        for sent in leader.take_sent().iter().filter(|m| m.to == 3) {
            match sent.msg_type() {
                MessageType::MsgAppend => leader.step(accept(sent)),
                _ => leader.step(message(MessageType::MsgHeartbeatResponse, 3, 1, 1)),
            }
        }
    }
    assert!(!receiver(&leader).recent_active);
    leader.compact();
    leader.raw.report_unreachable(2).expect("a member");
    leader.take_sent();
    leader.propose("data");
    assert_eq!(sent_to_2(&mut leader), []);
    leader.step(alive());
    assert_eq!(sent_to_2(&mut leader), [(MessageType::MsgSnapshot, 0, 0)]);
    let progress = receiver(&leader);
    assert_eq!(progress.state, ProgressState::Snapshot);
    let index = leader.raft().log().first_index().expect("in memory") - 1;
    assert_eq!(
        (progress.pending_snapshot, progress.next),
        (index, index + 1)
    );
}

#[test]
fn a_snapshot_is_sent_only_to_a_member_that_is_in_it() {
    // Node 4 was added after the snapshot was made, and would refuse it.
    let mut leader = behind();
    let add = change(ConfChangeType::AddNode, 4);
    let members = leader
        .raw
        .apply_conf_change(add)
        .expect("a change that fits");
    leader.sync();
    leader.take_sent();
    let alive = message(MessageType::MsgHeartbeatResponse, 4, 1, 1);
    leader.step(alive.clone());
    let probe = leader.take_sent();
    assert_eq!((probe[0].to, probe[0].index), (4, 9));
    leader.step(Message {
        reject: true,
        index: 9,
        session: probe[0].session,
        ..message(MessageType::MsgAppendResponse, 4, 1, 1)
    });
    assert_eq!(leader.take_sent(), []);
    leader.step(alive.clone());
    assert_eq!(leader.take_sent(), []);
    let storage = leader.raw.storage_mut();
    let made = storage.create_snapshot(10, Some(members), "newer".into());
    made.expect("an applied index");
    leader.step(alive);
    let sent = leader.take_sent();
    assert_eq!(
        (sent[0].to, sent[0].msg_type()),
        (4, MessageType::MsgSnapshot)
    );
}

#[test]
fn beside_a_snapshot_nothing_but_heartbeats_is_sent() {
    let mut leader = sending();
    leader.propose("data");
    leader.step(alive());
    assert_eq!(sent_to_2(&mut leader), []);
    leader.tick();
    let beats = |m: &Message| m.to == 2 && m.msg_type() == MessageType::MsgHeartbeat;
    assert!(leader.take_sent().iter().any(beats));
}

#[test]
fn after_a_failure_the_snapshot_is_sent_again_when_the_member_lives() {
    let mut leader = sending();
    leader
        .raw
        .report_snapshot(2, SnapshotStatus::Failed)
        .expect("a member");
    let progress = receiver(&leader);
    assert_eq!((progress.state, progress.next), (ProgressState::Probe, 1));
    leader.propose("data");
    assert_eq!(sent_to_2(&mut leader), []);
    leader.step(alive());
    assert_eq!(sent_to_2(&mut leader), [(MessageType::MsgSnapshot, 0, 0)]);
}

#[test]
fn after_a_delivery_the_log_goes_on_behind_the_snapshot() {
    let mut leader = sending();
    leader
        .raw
        .report_snapshot(2, SnapshotStatus::Delivered)
        .expect("a member");
    let progress = receiver(&leader);
    assert_eq!(
        (progress.state, progress.next),
        (ProgressState::Probe, SNAPSHOT + 1)
    );
    // The member's own answer is on its way.
    leader.propose("data");
    assert_eq!(sent_to_2(&mut leader), []);
    leader.step(has(SNAPSHOT));
    assert_eq!(receiver(&leader).state, ProgressState::Replicate);
    assert_eq!(
        sent_to_2(&mut leader),
        [(MessageType::MsgAppend, SNAPSHOT, 3)]
    );
}

#[test]
fn a_report_about_a_member_without_a_snapshot_changes_nothing() {
    for status in [SnapshotStatus::Delivered, SnapshotStatus::Failed] {
        let mut leader = behind();
        let before = receiver(&leader).to_string();
        leader.raw.report_snapshot(2, status).expect("a member");
        leader.raw.report_snapshot(9, status).expect("a stranger");
        assert_eq!(receiver(&leader).to_string(), before);
    }
}

#[test]
fn any_acknowledgement_that_reaches_the_log_ends_the_wait_for_a_snapshot() {
    // Somebody else's snapshot, older than this leader's, may have done it.
    for index in [FIRST - 1, FIRST, SNAPSHOT, SNAPSHOT + 1] {
        let mut leader = sending();
        leader.step(has(index));
        let progress = receiver(&leader);
        assert_eq!(
            (progress.state, progress.matched),
            (ProgressState::Replicate, index)
        );
        let rest = usize::try_from(10 - index).expect("few");
        assert_eq!(
            sent_to_2(&mut leader),
            [(MessageType::MsgAppend, index, rest)]
        );
    }
}

#[test]
fn an_acknowledgement_below_the_log_does_not_end_the_wait_for_a_snapshot() {
    let mut leader = sending();
    leader.step(has(FIRST - 2));
    assert_eq!(receiver(&leader).state, ProgressState::Snapshot);
    assert_eq!(sent_to_2(&mut leader), []);
}

/// Storage whose snapshot is still being made while the flag is set.
struct Slow {
    storage: MemStorage,
    making: Cell<bool>,
}

impl Storage for Slow {
    fn initial_state(&self) -> Result<InitialState, StorageError> {
        self.storage.initial_state()
    }

    fn entries(&self, low: u64, high: u64, max: u64) -> Result<Vec<Entry>, StorageError> {
        self.storage.entries(low, high, max)
    }

    fn term(&self, index: u64) -> Result<u64, StorageError> {
        self.storage.term(index)
    }

    fn first_index(&self) -> Result<u64, StorageError> {
        self.storage.first_index()
    }

    fn last_index(&self) -> Result<u64, StorageError> {
        self.storage.last_index()
    }

    fn snapshot(&self, to: u64) -> Result<Snapshot, StorageError> {
        if self.making.get() {
            return Err(StorageError::SnapshotTemporarilyUnavailable);
        }
        self.storage.snapshot(to)
    }
}

#[test]
fn while_a_snapshot_is_being_made_the_leader_asks_again_later() {
    let mut storage = MemStorage::new();
    storage
        .apply_snapshot(snapshot(5, 1, &[1, 2]))
        .expect("a first snapshot");
    storage.set_hard_state(HardState {
        commit: 5,
        ..in_term(1)
    });
    let slow = Slow {
        storage,
        making: Cell::new(true),
    };
    let config = Config {
        pre_vote: false,
        ..Config::new(1)
    };
    let mut leader = RawNode::new(config, slow).expect("a node that can start");
    leader.campaign().expect("a voter");
    leader
        .step(message(MessageType::MsgRequestVoteResponse, 2, 1, 2))
        .expect("a vote");
    let work = |leader: &mut RawNode<Slow>| {
        let mut sent = Vec::new();
        while leader.has_ready() {
            let ready = leader.ready().expect("storage that answers");
            leader.storage_mut().storage.append(ready.entries);
            sent.extend(ready.messages);
            leader.advance().expect("storage that answers");
        }
        sent.retain(|m| m.msg_type() != MessageType::MsgRequestVote);
        sent
    };
    // The vote of the leader itself is written only now.
    let probe = work(&mut leader);
    assert_eq!(leader.raft().role(), Role::Leader);
    let refusal = Message {
        reject: true,
        index: 5,
        ..message(MessageType::MsgAppendResponse, 2, 1, 2)
    };
    assert_eq!(probe[0].index, refusal.index);
    leader.step(refusal).expect("a refusal");
    assert_eq!(work(&mut leader), []);
    let alive = message(MessageType::MsgHeartbeatResponse, 2, 1, 2);
    leader.step(alive.clone()).expect("a sign of life");
    assert_eq!(work(&mut leader), []);
    leader.storage().making.set(false);
    leader.step(alive).expect("a sign of life");
    let sent = work(&mut leader);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].msg_type(), MessageType::MsgSnapshot);
}

/// A leader of term 5, node 1, sends node 2 a snapshot.
fn install(follower: &mut Peer, snapshot: Snapshot) -> Message {
    follower.take_sent();
    follower.step(Message {
        snapshot: Some(Box::new(snapshot)),
        session: 3,
        ..message(MessageType::MsgSnapshot, 1, 2, 5)
    });
    let mut answers = follower.take_sent();
    assert_eq!(answers.len(), 1);
    answers.remove(0)
}

#[test]
fn a_snapshot_that_the_log_already_has_moves_the_commit_index_and_keeps_the_log() {
    let storage = stored(&[1, 2, 3], &[1, 1, 2, 2, 2], in_term(2));
    let mut follower = Peer::new(Config::new(2), storage);
    let answer = install(&mut follower, snapshot(3, 2, &[1, 2, 3]));
    assert_eq!(follower.log(), entries(&[1, 1, 2, 2, 2]));
    assert_eq!(follower.committed(), 3);
    assert_eq!(follower.take_applied(), entries(&[1, 1, 2]));
    assert_eq!((answer.index, answer.session, answer.reject), (3, 3, false));
}

#[test]
fn a_snapshot_replaces_a_log_that_differs() {
    let storage = stored(&[1, 2, 3], &[1, 1, 1, 1, 1], in_term(2));
    let mut follower = Peer::new(Config::new(2), storage);
    let answer = install(&mut follower, snapshot(3, 2, &[1, 2, 3]));
    assert_eq!(follower.log(), []);
    assert_eq!(follower.raft().log().last_index(), 3);
    assert_eq!(follower.raw.storage().last_index().expect("in memory"), 3);
    assert_eq!((answer.index, answer.session), (3, 3));
}

#[test]
fn a_candidate_takes_the_leaders_snapshot() {
    let mut candidate = Peer::new(Config::new(2), MemStorage::with_voters(&[1, 2, 3]));
    candidate.campaign();
    install(&mut candidate, snapshot(3, 2, &[1, 2, 3]));
    assert_eq!(candidate.state(), (Role::Follower, 5, 1));
    assert_eq!(candidate.committed(), 3);
}

#[test]
fn a_snapshot_without_the_receiver_in_it_is_ignored() {
    let mut follower = Peer::new(Config::new(2), MemStorage::with_voters(&[1, 2, 3]));
    let answer = install(&mut follower, snapshot(3, 2, &[1, 3]));
    assert_eq!(follower.committed(), 0);
    assert_eq!(follower.raft().configuration().members().ids(), [1, 2, 3]);
    assert_eq!(answer.index, 0);
}

#[test]
fn a_snapshot_brings_the_roles_of_all_members() {
    let state = ConfState {
        nodes: vec![1, 3],
        learners: vec![2],
        voters_outgoing: vec![1, 3, 4],
        learners_next: vec![4],
        auto_leave: true,
    };
    let mut with_roles = snapshot(3, 2, &[]);
    let metadata = with_roles.metadata.as_mut().expect("a place in the log");
    metadata.conf_state = Some(state.clone());
    let mut follower = Peer::new(Config::new(2), MemStorage::with_voters(&[1, 2, 3]));
    install(&mut follower, with_roles);
    assert_eq!(follower.raft().configuration().to_conf_state(), state);
    assert!(follower.raft().is_learner());
    // What is written is what a restart finds.
    follower.restart();
    assert_eq!(follower.raft().configuration().to_conf_state(), state);
}

#[test]
fn nobody_campaigns_with_a_snapshot_to_apply() {
    let mut follower = Peer::new(Config::new(2), MemStorage::with_voters(&[1, 2, 3]));
    let install = Message {
        snapshot: Some(Box::new(snapshot(3, 2, &[1, 2, 3]))),
        ..message(MessageType::MsgSnapshot, 1, 2, 5)
    };
    follower.raw.step(install).expect("a leader's snapshot");
    assert!(!follower.raft().is_promotable());
    for _ in 0..50 {
        follower.raw.tick().expect("a tick");
    }
    assert_eq!(follower.state(), (Role::Follower, 5, 1));
    follower.sync();
    assert!(follower.raft().is_promotable());
    follower.campaign();
    assert_eq!(follower.raft().role(), Role::PreCandidate);
}

#[test]
fn a_group_goes_on_while_a_member_waits_for_its_snapshot() {
    let mut network = Network::with_config(3, Config::new);
    network.campaign(1);
    network.isolate(3);
    for _ in 0..20 {
        network.propose(1, "data");
    }
    network.peer_mut(1).compact();
    network.recover();
    network.ignore(MessageType::MsgSnapshot);
    network.pass(3);
    network.propose(1, "meanwhile");
    assert_eq!(network.peer(1).committed(), 22);
    assert_eq!(network.peer(3).committed(), 1);
    // The message was lost, which the caller finds out.
    network.recover();
    network.pass(3);
    assert_eq!(network.peer(3).committed(), 1);
    let leader = network.peer_mut(1);
    leader
        .raw
        .report_snapshot(3, SnapshotStatus::Failed)
        .expect("a member");
    network.pass(1);
    assert_eq!(network.peer(3).committed(), 22);
    assert_eq!(network.peer(3).log(), network.peer(1).log());
}
