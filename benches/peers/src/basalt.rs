//! Basalt's core with its batching of appends, in the mode with `ready` and `advance`.

use basalt_raft::{
    Config, MemStorage, NO_LIMIT, RawNode, Role, Storage,
    eraftpb::{Entry, Message},
};
use bytes::Bytes;

use crate::{
    cluster::{MAX_INFLIGHT_MSGS, MAX_SIZE_PER_MSG, Node},
    state_machine::StateMachine,
};

pub struct Basalt {
    node: RawNode<MemStorage>,
    state_machine: StateMachine,
}

impl Basalt {
    fn apply(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            self.state_machine.apply(entry.index, &entry.data);
        }
    }
}

impl Node for Basalt {
    const NAME: &str = "basalt-raft";

    type Message = Message;
    type Payload = Bytes;

    fn target(message: &Message) -> u64 {
        message.to
    }

    fn new(id: u64) -> Self {
        let config = Config {
            max_size_per_msg: MAX_SIZE_PER_MSG,
            max_inflight_msgs: MAX_INFLIGHT_MSGS,
            // The peer knows no such limit, or has none by default.
            max_inflight_bytes: NO_LIMIT,
            max_uncommitted_size: NO_LIMIT,
            max_committed_size_per_ready: NO_LIMIT,
            check_quorum: true,
            pre_vote: true,
            batch_appends: true,
            ..Config::new(id)
        };
        let storage = MemStorage::with_voters(&[1, 2, 3]);
        Self {
            node: RawNode::new(config, storage).expect("a sound configuration"),
            state_machine: StateMachine::default(),
        }
    }

    fn campaign(&mut self) {
        self.node.campaign().expect("a voter");
    }

    fn is_leader(&self) -> bool {
        self.node.raft().role() == Role::Leader
    }

    fn payload(bytes: Vec<u8>) -> Bytes {
        bytes.into()
    }

    fn propose(&mut self, payload: Bytes) {
        self.node
            .propose(payload)
            .expect("a leader takes proposals");
    }

    fn step(&mut self, message: Message) {
        self.node.step(message).expect("a sound message");
    }

    fn is_idle(&self) -> bool {
        !self.node.has_ready()
    }

    fn work(&mut self, sent: &mut Vec<Vec<Message>>) {
        let ready = self.node.ready().expect("a readable log");
        let storage = self.node.storage_mut();
        if let Some(state) = ready.hard_state {
            storage.set_hard_state(state);
        }
        storage.append(ready.entries);
        sent.push(ready.messages);
        self.apply(ready.committed_entries);
        self.node.advance().expect("a readable log");
    }

    fn state_machine(&mut self) -> &mut StateMachine {
        &mut self.state_machine
    }

    fn first_index(&self) -> u64 {
        self.node.storage().first_index().expect("a log in memory")
    }

    fn compact(&mut self, first: u64) {
        let storage = self.node.storage_mut();
        storage.compact(first - 1).expect("applied entries");
    }
}
