//! What is measured: three nodes of one engine on one thread, their logs in memory, messages handed
//! over as values. Node 1 leads. No tick passes, so there are no heartbeats and no timeouts.
//!
//! The driver is the same for all engines: nodes take turns; a node in its turn does its duties once
//! (persist, send, apply), and each message is stepped by its target at once, which acts on it in its
//! own turn. A round is over when no node has anything to do.

use crate::state_machine::StateMachine;

/// Nodes of a cluster.
pub const NODES: usize = 3;

/// Limits that all engines get.
pub const MAX_SIZE_PER_MSG: u64 = 1 << 20;
/// raft-rs counts each proposal that it merges into a message; a smaller window would stop it in the
/// midst of a round.
pub const MAX_INFLIGHT_MSGS: usize = 4096;

/// A log is compacted once it has this many applied entries more than `KEPT`.
const COMPACTED_AT_ONCE: u64 = 4096;
const KEPT: u64 = 1024;

/// One node of an engine, with its storage and state machine.
pub trait Node: Sized {
    /// The engine's name in tables.
    const NAME: &str;

    type Message;
    type Payload;

    /// Who a message is for.
    fn target(message: &Self::Message) -> u64;

    fn new(id: u64) -> Self;

    fn campaign(&mut self);

    fn is_leader(&self) -> bool;

    /// What a proposal is made of: the buffer that a server would have decoded from a request.
    fn payload(bytes: Vec<u8>) -> Self::Payload;

    fn propose(&mut self, payload: Self::Payload);

    fn step(&mut self, message: Self::Message);

    fn is_idle(&self) -> bool;

    /// Does what the engine wants done, once; `sent` gets the messages in their order.
    fn work(&mut self, sent: &mut Vec<Vec<Self::Message>>);

    fn state_machine(&mut self) -> &mut StateMachine;

    /// The first index of the stored log.
    fn first_index(&self) -> u64;

    /// Drops the log below `first`.
    fn compact(&mut self, first: u64);
}

pub struct Cluster<N: Node> {
    nodes: [N; NODES],
    /// Empty between two turns, kept for its room.
    sent: Vec<Vec<N::Message>>,
}

impl<N: Node> Cluster<N> {
    /// A cluster whose node 1 has been elected.
    pub fn new() -> Self {
        let mut cluster = Self {
            nodes: [N::new(1), N::new(2), N::new(3)],
            sent: Vec::new(),
        };
        cluster.nodes[0].campaign();
        cluster.settle();
        assert!(cluster.nodes[0].is_leader(), "node 1 was not elected");
        cluster
    }

    /// Proposes all of `payloads`, each by itself, and returns when every node has applied them.
    pub fn round(&mut self, payloads: impl Iterator<Item = Vec<u8>>) {
        for payload in payloads {
            self.nodes[0].propose(N::payload(payload));
        }
        self.settle();
        for node in &mut self.nodes {
            let applied = node.state_machine().last_index();
            if applied >= node.first_index() + KEPT + COMPACTED_AT_ONCE {
                node.compact(applied - KEPT);
            }
        }
    }

    fn settle(&mut self) {
        loop {
            let mut idle = true;
            for place in 0..NODES {
                let node = &mut self.nodes[place];
                if node.is_idle() {
                    continue;
                }
                idle = false;
                node.work(&mut self.sent);
                for messages in self.sent.drain(..) {
                    for message in messages {
                        let to = usize::try_from(N::target(&message) - 1).expect("ids are 1 to 3");
                        self.nodes[to].step(message);
                    }
                }
            }
            if idle {
                return;
            }
        }
    }

    /// What the nodes have applied, in their order.
    pub fn state_machines(&mut self) -> [&mut StateMachine; NODES] {
        self.nodes.each_mut().map(Node::state_machine)
    }
}
