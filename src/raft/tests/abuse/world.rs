//! The node, whoever drives it, and what must never change.

use std::collections::{BTreeMap, VecDeque};

use basalt_raft::{
    Config, Error, LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD, MAX_INDEX, MAX_TERM, MemStorage,
    MembershipChange, RawNode, ReadMode, Ready, Role, SnapshotStatus, Storage,
    eraftpb::{ConfState, Entry, EntryType, HardState, Message, MessageType, Snapshot},
};
use basalt_testkit::Rng;
use bytes::Bytes;

use crate::{
    messages::{self, Aim},
    storage::Unreliable,
};

/// What all runs did together.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) taken: u64,
    pub(crate) refused: u64,
    pub(crate) storage_errors: u64,
    pub(crate) led: u64,
    pub(crate) applied: u64,
    pub(crate) snapshots: u64,
    pub(crate) crashes: u64,
    pub(crate) changes: u64,
    pub(crate) reads: u64,
}

/// A node with its driver.
pub(crate) struct World {
    rng: Rng,
    config: Config,
    node: RawNode<Unreliable>,
    /// Handed out and not done: with `advance`, at most one.
    ready: Option<Ready>,
    to_append: VecDeque<Message>,
    to_apply: VecDeque<Message>,
    /// What was sent lately.
    sent: Vec<Message>,
    /// Membership and index of the state machine, which is durable at each step.
    members: ConfState,
    applied: u64,
    /// What was handed out to be applied, for ever.
    log: BTreeMap<u64, Entry>,
    /// Term and vote as promised, and the commit index of this life.
    promised: HardState,
    committed: u64,
}

fn config(rng: &mut Rng) -> Config {
    let mut config = Config::new(1);
    config.seed = rng.next_u64();
    config.election_tick = 4;
    config.check_quorum = !rng.one_in(3);
    config.pre_vote = rng.one_in(2);
    config.batch_appends = rng.one_in(2);
    config.async_storage_writes = rng.one_in(2);
    if config.check_quorum && rng.one_in(2) {
        config.read_mode = ReadMode::LeaseBased;
    }
    config.step_down_on_removal = rng.one_in(2);
    config.disable_conf_change_validation = rng.one_in(4);
    config.disable_proposal_forwarding = rng.one_in(4);
    config.quarantine_ticks = *rng.pick(&[0, 0, 4]);
    config.max_size_per_msg = *rng.pick(&[0, 100, 1 << 20]);
    config.max_committed_size_per_ready = *rng.pick(&[1, 100, 1 << 20]);
    config.max_uncommitted_size = *rng.pick(&[1, 100, 1 << 20]);
    config.max_inflight_msgs = rng.len(1..4);
    config.max_inflight_bytes = config.max_size_per_msg.max(200);
    config.max_pending_reads = rng.len(0..4);
    config
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let config = config(&mut rng);
        let members = ConfState {
            nodes: vec![1, 2, 3],
            learners: vec![4],
            ..ConfState::default()
        };
        let mut log = MemStorage::new();
        log.set_conf_state(members.clone());
        let node = RawNode::new(config.clone(), Unreliable::new(log, rng.next_u64()));
        Self {
            node: node.expect("a new log"),
            rng,
            config,
            ready: None,
            to_append: VecDeque::new(),
            to_apply: VecDeque::new(),
            sent: Vec::new(),
            members,
            applied: 0,
            log: BTreeMap::new(),
            promised: HardState::default(),
            committed: 0,
        }
    }

    fn aim(&self) -> Aim {
        let (raft, log) = (self.node.raft(), self.node.raft().log());
        Aim {
            id: 1,
            role: raft.role(),
            leader: raft.leader(),
            has_threads: self.config.async_storage_writes,
            term: raft.term(),
            first: self.node.storage().log.first_index().expect("memory"),
            committed: log.committed(),
            last: log.last_index(),
            last_term: log.last_term(),
        }
    }

    /// Whatever happens next.
    pub(crate) fn event(&mut self, counts: &mut Counts) {
        self.sent.clear();
        let fails = [0, 0, 0, 30, 3];
        self.node.storage().one_in.set(*self.rng.pick(&fails));
        match self.rng.below(100) {
            0..40 => {
                let aim = self.aim();
                let message = if self.rng.one_in(2) {
                    messages::honest(&mut self.rng, &aim)
                } else {
                    messages::message(&mut self.rng, &aim)
                };
                let result = self.node.step(message);
                count(result, counts);
            }
            40..50 => {
                let result = self.node.tick();
                count(result, counts);
            }
            50..58 => self.request(counts),
            58..62 => self.compact(),
            62 => {
                self.node.storage().one_in.set(0);
                if self.crash() {
                    counts.crashes += 1;
                }
            }
            _ => self.drive(counts),
        }
        self.node.storage().one_in.set(0);
        counts.led += u64::from(self.node.raft().role() == Role::Leader);
        self.check();
    }

    fn request(&mut self, counts: &mut Counts) {
        let to = self.rng.below(6);
        let data = Bytes::from(vec![b'p'; self.rng.len(0..80)]);
        let result = match self.rng.below(9) {
            0 => self.node.campaign(),
            1..4 => self.node.propose(data),
            4 => {
                let change = messages::change(&mut self.rng);
                self.node.propose_conf_change(change)
            }
            5 => self.node.transfer_leader(to),
            6 => self.node.read_index(data),
            7 if self.rng.one_in(2) => self.node.forget_leader(),
            7 => self.node.report_unreachable(to),
            _ => {
                let outcome = [SnapshotStatus::Delivered, SnapshotStatus::Failed];
                let outcome = *self.rng.pick(&outcome);
                self.node.report_snapshot(to, outcome)
            }
        };
        count(result, counts);
    }

    /// Compacts what is applied, up to a snapshot.
    fn compact(&mut self) {
        let log = &mut self.node.storage_mut().log;
        let (first, applied) = (log.first_index().expect("memory"), self.applied);
        if applied < first || applied > log.last_index().expect("memory") {
            return;
        }
        let made = log.create_snapshot(applied, Some(self.members.clone()), Bytes::new());
        if made.is_ok() {
            let index = first + self.rng.below(applied - first + 1);
            log.compact(index).expect("within the snapshot");
        }
    }

    /// Does some of the work that is there.
    fn drive(&mut self, counts: &mut Counts) {
        if self.config.async_storage_writes {
            match self.rng.below(3) {
                0 => self.take_messages(counts),
                1 => self.append(counts),
                _ => self.apply(counts),
            }
        } else if let Some(ready) = self.ready.take() {
            self.finish(&ready, counts);
        } else if self.node.has_ready() {
            match self.node.ready() {
                Ok(ready) => {
                    counts.reads += ready.read_states.len() as u64;
                    let (state, snapshot) = (ready.hard_state, ready.snapshot.as_deref());
                    self.persist(state, snapshot, &ready.entries, counts);
                    self.ready = Some(ready);
                }
                error => count(error.map(|_| ()), counts),
            }
        }
    }

    fn finish(&mut self, ready: &Ready, counts: &mut Counts) {
        self.sent.extend_from_slice(&ready.messages);
        self.run(&ready.committed_entries, counts);
        let result = self.node.advance();
        count(result, counts);
    }

    fn persist(
        &mut self,
        state: Option<HardState>,
        snapshot: Option<&Snapshot>,
        entries: &[Entry],
        counts: &mut Counts,
    ) {
        let log = &mut self.node.storage_mut().log;
        if let Some(state) = state {
            let HardState { term, vote, commit } = self.promised;
            assert!(
                state.term >= term && state.commit >= commit,
                "{state:?} after {:?}",
                self.promised
            );
            assert!(
                state.term > term || vote == 0 || state.vote == vote,
                "{state:?} after {:?}",
                self.promised
            );
            log.set_hard_state(state);
            self.promised = state;
        }
        if let Some(snapshot) = snapshot {
            log.apply_snapshot(snapshot.clone()).expect("a newer one");
            self.install(snapshot, counts);
        }
        let log = &mut self.node.storage_mut().log;
        log.append(entries.to_vec());
        let last = log.last_index().expect("memory");
        assert!(
            self.promised.commit <= last,
            "{:?} beyond {last}",
            self.promised
        );
    }

    fn install(&mut self, snapshot: &Snapshot, counts: &mut Counts) {
        let metadata = snapshot.metadata.clone().expect("a place in the log");
        assert!(
            metadata.index > self.applied,
            "a snapshot from before what is applied"
        );
        self.applied = metadata.index;
        self.members = metadata.conf_state.expect("members");
        counts.snapshots += 1;
    }

    fn run(&mut self, entries: &[Entry], counts: &mut Counts) {
        for entry in entries {
            assert_eq!(entry.index, self.applied + 1, "entries to be applied");
            self.applied = entry.index;
            counts.applied += 1;
            let before = self.log.entry(entry.index).or_insert_with(|| entry.clone());
            assert_eq!(before, entry, "applied once, and again as another");
            let kind = EntryType::try_from(entry.entry_type).expect("a known kind");
            if kind == EntryType::EntryNormal {
                continue;
            }
            let Ok(change) = MembershipChange::decode(kind, entry.data.clone()) else {
                continue;
            };
            if let Ok(members) = self.node.apply_conf_change(change) {
                self.members = members;
                counts.changes += 1;
            }
        }
    }

    fn take_messages(&mut self, counts: &mut Counts) {
        if !self.node.has_ready() {
            return;
        }
        let ready = match self.node.ready() {
            Ok(ready) => ready,
            error => return count(error.map(|_| ()), counts),
        };
        counts.reads += ready.read_states.len() as u64;
        for message in ready.messages {
            match message.to {
                LOCAL_APPEND_THREAD => self.to_append.push_back(message),
                LOCAL_APPLY_THREAD => self.to_apply.push_back(message),
                _ => self.sent.push(message),
            }
        }
    }

    fn append(&mut self, counts: &mut Counts) {
        let Some(m) = self.to_append.pop_front() else {
            return;
        };
        let state = (m.term > 0).then_some(HardState {
            term: m.term,
            vote: m.vote,
            commit: m.commit,
        });
        self.persist(state, m.snapshot.as_deref(), &m.entries, counts);
        self.respond(m.responses, counts);
    }

    fn apply(&mut self, counts: &mut Counts) {
        let Some(m) = self.to_apply.pop_front() else {
            return;
        };
        // A snapshot may have come in between.
        let new = m.entries.iter().filter(|entry| entry.index > self.applied);
        let new: Vec<Entry> = new.cloned().collect();
        self.run(&new, counts);
        self.respond(m.responses, counts);
    }

    fn respond(&mut self, responses: Vec<Message>, counts: &mut Counts) {
        for response in responses {
            if response.to != 1 {
                self.sent.push(response);
                continue;
            }
            let result = self.node.step(response.clone());
            count(result, counts);
            if self.rng.one_in(10) {
                let again = self.node.step(response);
                count(again, counts);
            }
        }
    }

    /// Everything that was not written is lost.
    fn crash(&mut self) -> bool {
        let mut log = self.node.storage().log.clone();
        let last = log.last_index().expect("memory");
        if self.applied > last {
            return false;
        }
        // The membership is kept by the state machine.
        let _ = log.create_snapshot(self.applied, Some(self.members.clone()), Bytes::new());
        let mut config = self.config.clone();
        config.applied = self.applied;
        config.seed = self.rng.next_u64();
        let storage = Unreliable::new(log, self.rng.next_u64());
        let node = RawNode::new(config, storage);
        self.node = node.unwrap_or_else(|error| panic!("a node does not start again: {error}"));
        self.ready = None;
        self.to_append.clear();
        self.to_apply.clear();
        self.committed = self.applied;
        true
    }

    /// Storage works again, and everybody is correct: the node comes to rest, and follows whoever
    /// is elected next.
    pub(crate) fn recovers(&mut self, counts: &mut Counts) {
        /// Steps of the driver until there must be nothing left to do.
        const STEPS: u64 = 2_000;
        self.come_to_rest(STEPS, counts);
        let mut aim = self.aim();
        if aim.term >= MAX_TERM || aim.last >= MAX_INDEX {
            // It has done what it could, and leaves no room for more.
            return;
        }
        (aim.role, aim.leader, aim.term) = (Role::Follower, 2, aim.term + 1);
        let append = messages::append(&aim);
        self.node.step(append).expect("a correct append");
        let messages = self.come_to_rest(STEPS, counts);
        let acknowledges = |m: &Message| {
            m.msg_type() == MessageType::MsgAppendResponse && m.index == aim.last + 1 && !m.reject
        };
        assert!(messages.iter().any(acknowledges), "{messages:?}");
        let storage = &self.node.storage().log;
        assert_eq!(storage.last_index().expect("memory"), aim.last + 1);
        assert_eq!(storage.term(aim.last + 1).expect("memory"), aim.term);
    }

    /// Does everything that there is to do; what was sent.
    fn come_to_rest(&mut self, steps: u64, counts: &mut Counts) -> Vec<Message> {
        self.sent.clear();
        for _ in 0..steps {
            let idle =
                self.ready.is_none() && self.to_append.is_empty() && self.to_apply.is_empty();
            if idle && !self.node.has_ready() {
                return std::mem::take(&mut self.sent);
            }
            self.drive(counts);
            self.check();
        }
        panic!("still busy after {steps} steps");
    }

    fn check(&mut self) {
        let raft = self.node.raft();
        let committed = raft.log().committed();
        assert!(
            committed >= self.committed,
            "{committed} after {}",
            self.committed
        );
        self.committed = committed;
        assert!(raft.term() >= self.promised.term, "a term goes back");
    }
}

fn count(result: Result<(), Error>, counts: &mut Counts) {
    match result {
        Ok(()) => counts.taken += 1,
        Err(Error::Storage(_)) => counts.storage_errors += 1,
        Err(_) => counts.refused += 1,
    }
}
