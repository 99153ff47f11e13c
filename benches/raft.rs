//! The Raft core alone: three nodes on one thread, logs in memory, messages handed over as values.
//!
//! A round of proposals is n of them to the leader and then messages until all three nodes have applied all of them and
//! nothing is left to do. Beside it: an election (pre-vote, vote, the empty entry on all nodes), and reads confirmed by a
//! round of heartbeats. No tick passes. What is applied is compared across the nodes.
//!
//! `benches/peers` holds the same rounds against other implementations.

#![allow(missing_docs, reason = "criterion's macro makes the functions")]

use std::mem::take;

use basalt_raft::{
    Config, MemStorage, NO_LIMIT, RawNode, Role, Storage,
    eraftpb::{Entry, Message},
};
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Ids of the nodes.
const IDS: [u64; 3] = [1, 2, 3];

/// A log is compacted once it has this many applied entries more than `KEPT`.
const COMPACTED_AT_ONCE: u64 = 4096;
const KEPT: u64 = 1024;

/// A node with its storage, and what it has applied.
struct Node {
    raft: RawNode<MemStorage>,
    applied: u64,
    /// Over index, length and first bytes of what was applied.
    hash: u64,
    /// Reads that may be answered.
    reads: u64,
    inbox: Vec<Message>,
}

impl Node {
    fn new(id: u64, check_quorum: bool) -> Self {
        let config = Config {
            max_inflight_bytes: NO_LIMIT,
            max_uncommitted_size: NO_LIMIT,
            max_committed_size_per_ready: NO_LIMIT,
            check_quorum,
            ..Config::new(id)
        };
        let storage = MemStorage::with_voters(&IDS);
        Self {
            raft: RawNode::new(config, storage).expect("a sound configuration"),
            applied: 0,
            hash: 0,
            reads: 0,
            inbox: Vec::new(),
        }
    }

    fn apply(&mut self, entries: &[Entry]) {
        for entry in entries {
            assert_eq!(entry.index, self.applied + 1, "entries come in order");
            self.applied = entry.index;
            let mut word = [0; 8];
            let len = entry.data.len().min(word.len());
            word[..len].copy_from_slice(&entry.data[..len]);
            let mixed = self.hash.rotate_left(23) ^ u64::from_le_bytes(word) ^ entry.index;
            self.hash = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ entry.data.len() as u64;
        }
    }

    /// Does what there is to do once; true if there was anything.
    fn work(&mut self, sent: &mut Vec<Message>) -> bool {
        for message in take(&mut self.inbox) {
            self.raft.step(message).expect("a sound message");
        }
        if !self.raft.has_ready() {
            return false;
        }
        let ready = self.raft.ready().expect("a readable log");
        let storage = self.raft.storage_mut();
        if let Some(state) = ready.hard_state {
            storage.set_hard_state(state);
        }
        storage.append(ready.entries);
        sent.extend(ready.messages);
        self.apply(&ready.committed_entries);
        self.reads += ready.read_states.len() as u64;
        self.raft.advance().expect("a readable log");
        true
    }

    /// Keeps the log short, as a store does.
    fn compact(&mut self) {
        let storage = self.raft.storage_mut();
        let first = storage.first_index().expect("a log in memory");
        if self.applied >= first + KEPT + COMPACTED_AT_ONCE {
            let index = self.applied - KEPT;
            storage.compact(index).expect("applied entries");
        }
    }
}

struct Cluster {
    nodes: [Node; 3],
    proposals: u64,
}

impl Cluster {
    /// A cluster that node 1 leads.
    fn new(check_quorum: bool) -> Self {
        let mut cluster = Self {
            nodes: IDS.map(|id| Node::new(id, check_quorum)),
            proposals: 0,
        };
        cluster.elect(0);
        cluster
    }

    /// Lets nodes take turns until no message is on the way and nobody has anything to do.
    fn settle(&mut self) {
        let mut sent = Vec::new();
        loop {
            let mut idle = true;
            for place in 0..self.nodes.len() {
                idle &= !self.nodes[place].work(&mut sent);
                for message in sent.drain(..) {
                    let to = IDS.iter().position(|id| *id == message.to);
                    self.nodes[to.expect("a member")].inbox.push(message);
                }
            }
            if idle && self.nodes.iter().all(|node| node.inbox.is_empty()) {
                return;
            }
        }
    }

    /// Makes the node at `place` leader, with an entry of its term on all nodes.
    fn elect(&mut self, place: usize) {
        self.nodes[place].raft.campaign().expect("a voter");
        self.settle();
        assert_eq!(
            self.nodes[place].raft.raft().role(),
            Role::Leader,
            "node {} was not elected",
            IDS[place]
        );
        self.check();
    }

    /// Proposes `count` payloads like `template` to node 1, which leads.
    fn propose(&mut self, template: &[u8], count: u64) {
        for _ in 0..count {
            let mut payload = template.to_vec();
            payload[..8].copy_from_slice(&self.proposals.to_le_bytes());
            self.proposals += 1;
            let proposed = self.nodes[0].raft.propose(Bytes::from(payload));
            proposed.expect("a leader takes proposals");
        }
        self.settle();
        for node in &mut self.nodes {
            node.compact();
        }
    }

    /// Asks node 1, which leads, for `count` reads and waits until they may be answered.
    fn read(&mut self, count: u64) {
        let before = self.nodes[0].reads;
        for read in 0..count {
            let context = Bytes::copy_from_slice(&read.to_le_bytes());
            let asked = self.nodes[0].raft.read_index(context);
            asked.expect("room for reads");
        }
        self.settle();
        assert_eq!(self.nodes[0].reads - before, count, "reads confirmed");
    }

    /// All nodes have applied the same.
    fn check(&self) {
        let states = self.nodes.each_ref().map(|node| (node.applied, node.hash));
        assert_eq!(states, [states[0]; 3], "applied by the nodes");
    }
}

fn proposals(c: &mut Criterion) {
    for len in [64, 256] {
        let template: Vec<u8> = (0..251_u8).cycle().take(len).collect();
        let mut group = c.benchmark_group(format!("raft, proposals of {len} B"));
        for count in [1, 16, 256, 1024] {
            let mut cluster = Cluster::new(true);
            group.throughput(Throughput::Elements(count));
            group.bench_function(format!("{count} a round"), |b| {
                b.iter(|| cluster.propose(&template, count));
            });
            cluster.check();
            // One entry more than proposals: the election's.
            assert_eq!(cluster.nodes[2].applied, cluster.proposals + 1, "applied");
        }
        group.finish();
    }
}

fn election(c: &mut Criterion) {
    // Without check-quorum: its leases would hold until ticks have passed.
    let mut cluster = Cluster::new(false);
    let mut place = 0;
    c.bench_function("raft, election", |b| {
        b.iter(|| {
            place = (place + 1) % IDS.len();
            cluster.elect(place);
        });
    });
}

fn reads(c: &mut Criterion) {
    let mut group = c.benchmark_group("raft, reads");
    for count in [1, 256] {
        let mut cluster = Cluster::new(true);
        group.throughput(Throughput::Elements(count));
        group.bench_function(format!("{count} a round of heartbeats"), |b| {
            b.iter(|| cluster.read(count));
        });
    }
    group.finish();
}

criterion_group!(benches, proposals, election, reads);
criterion_main!(benches);
