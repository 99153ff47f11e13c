//! raft-rs 0.7 with its batching of appends.

use raft::{
    Config, GetEntriesContext, RaftState, RawNode, StateRole, Storage, StorageError,
    eraftpb::{ConfState, Entry, HardState, Message, Snapshot},
    storage::MemStorage,
};

use crate::{
    cluster::{MAX_INFLIGHT_MSGS, MAX_SIZE_PER_MSG, Node},
    state_machine::StateMachine,
};

/// A log in memory that is written by whoever drives the node.
pub trait WritableLog: Storage {
    /// The name of an engine that uses it.
    const NAME: &str;

    fn empty() -> Self;
    fn append(&mut self, entries: Vec<Entry>);
    fn set_hard_state(&mut self, state: HardState);
    fn set_commit(&mut self, index: u64);
    /// Drops what is below `first`.
    fn compact(&mut self, first: u64);
}

/// The membership of all clusters here.
fn membership() -> ConfState {
    ConfState::from((vec![1, 2, 3], Vec::new()))
}

/// The log that comes with raft-rs: a lock for each call, and each entry is copied into it.
impl WritableLog for MemStorage {
    const NAME: &str = "raft-rs, MemStorage";

    fn empty() -> Self {
        Self::new_with_conf_state(membership())
    }

    fn append(&mut self, entries: Vec<Entry>) {
        self.wl().append(&entries).expect("a log without gaps");
    }

    fn set_hard_state(&mut self, state: HardState) {
        self.wl().set_hardstate(state);
    }

    fn set_commit(&mut self, index: u64) {
        self.wl().mut_hard_state().commit = index;
    }

    fn compact(&mut self, first: u64) {
        self.wl().compact(first).expect("applied entries");
    }
}

/// A log that takes entries as they are handed out, without lock and copy: what Basalt's does.
pub struct Log {
    hard_state: HardState,
    /// From `first` on.
    entries: Vec<Entry>,
    first: u64,
    /// The term of the entry before `first`.
    term_before: u64,
}

impl Log {
    fn place(&self, index: u64) -> usize {
        usize::try_from(index - self.first).expect("entries in memory")
    }

    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }
}

impl WritableLog for Log {
    const NAME: &str = "raft-rs";

    fn empty() -> Self {
        Self {
            hard_state: HardState::default(),
            entries: Vec::new(),
            first: 1,
            term_before: 0,
        }
    }

    fn append(&mut self, entries: Vec<Entry>) {
        let Some(first) = entries.first() else { return };
        let place = self.place(first.index);
        self.entries.truncate(place);
        self.entries.extend(entries);
    }

    fn set_hard_state(&mut self, state: HardState) {
        self.hard_state = state;
    }

    fn set_commit(&mut self, index: u64) {
        self.hard_state.commit = index;
    }

    fn compact(&mut self, first: u64) {
        let place = self.place(first);
        self.term_before = self.entries[place - 1].term;
        self.entries.drain(..place);
        self.first = first;
    }
}

impl Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), membership()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low < self.first {
            return Err(StorageError::Compacted.into());
        }
        let mut entries = self.entries[self.place(low)..self.place(high)].to_vec();
        raft::util::limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index + 1 == self.first {
            Ok(self.term_before)
        } else if index < self.first {
            Err(StorageError::Compacted.into())
        } else if index >= self.end() {
            Err(StorageError::Unavailable.into())
        } else {
            Ok(self.entries[self.place(index)].term)
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.end() - 1)
    }

    fn snapshot(&self, _request_index: u64, to: u64) -> raft::Result<Snapshot> {
        panic!("node {to} needs a snapshot, and no log is compacted so far")
    }
}

pub struct RaftRs<S: Storage> {
    node: RawNode<S>,
    state_machine: StateMachine,
}

impl<S: Storage> RaftRs<S> {
    fn apply(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            self.state_machine.apply(entry.index, &entry.data);
        }
    }
}

impl<S: WritableLog> Node for RaftRs<S> {
    const NAME: &str = S::NAME;

    type Message = Message;
    type Payload = Vec<u8>;

    fn target(message: &Message) -> u64 {
        message.to
    }

    fn new(id: u64) -> Self {
        let config = Config {
            id,
            max_size_per_msg: MAX_SIZE_PER_MSG,
            max_inflight_msgs: MAX_INFLIGHT_MSGS,
            check_quorum: true,
            pre_vote: true,
            batch_append: true,
            ..Config::default()
        };
        let silent = slog::Logger::root(slog::Discard, slog::o!());
        Self {
            node: RawNode::new(&config, S::empty(), &silent).expect("a sound configuration"),
            state_machine: StateMachine::default(),
        }
    }

    fn campaign(&mut self) {
        self.node.campaign().expect("a voter");
    }

    fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    fn payload(bytes: Vec<u8>) -> Vec<u8> {
        bytes
    }

    fn propose(&mut self, payload: Vec<u8>) {
        self.node
            .propose(Vec::new(), payload)
            .expect("a leader takes proposals");
    }

    fn step(&mut self, message: Message) {
        self.node.step(message).expect("a sound message");
    }

    fn is_idle(&self) -> bool {
        !self.node.has_ready()
    }

    fn work(&mut self, sent: &mut Vec<Vec<Message>>) {
        let mut ready = self.node.ready();
        sent.push(ready.take_messages());
        let committed = ready.take_committed_entries();
        self.apply(committed);
        let entries = ready.take_entries();
        let log = self.node.mut_store();
        log.append(entries);
        if let Some(state) = ready.hs() {
            log.set_hard_state(state.clone());
        }
        sent.push(ready.take_persisted_messages());
        let mut light = self.node.advance(ready);
        if let Some(commit) = light.commit_index() {
            self.node.mut_store().set_commit(commit);
        }
        sent.push(light.take_messages());
        self.apply(light.take_committed_entries());
        self.node.advance_apply();
    }

    fn state_machine(&mut self) -> &mut StateMachine {
        &mut self.state_machine
    }

    fn first_index(&self) -> u64 {
        self.node.store().first_index().expect("a log in memory")
    }

    fn compact(&mut self, first: u64) {
        self.node.mut_store().compact(first);
    }
}
