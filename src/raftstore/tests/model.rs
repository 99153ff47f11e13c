//! Random saves of several regions, collected into shared batches whose tickets are out, beside logs
//! in memory: reads answer from what was saved, published or not, cached or not.

#[expect(dead_code, reason = "each test takes its part of what they share")]
mod support;

use std::collections::VecDeque;

use basalt_engine::{Ticket, WriteBatch, WriteOptions, fs::sim::Survival};
use basalt_raft::{
    MemStorage, NO_LIMIT, Ready, Storage,
    eraftpb::{ConfState, Entry, HardState, SnapshotMetadata},
};
use basalt_raftstore::{PeerStorage, Save, SaveNumber};
use basalt_testkit::{Replay, Rng, Seeds, long_factor};
use support::{Store, truncate, write_applied};

const REGIONS: usize = 3;
const STEPS: u64 = 250;

#[derive(Debug, Default)]
struct Counts {
    batches: u64,
    overwrites: u64,
    reads_in_flight: u64,
    disk_reads: u64,
    truncations: u64,
    deletions: u64,
    restarts: u64,
}

/// A batch on its way, and whose saves are in it.
struct Flight {
    ticket: Ticket,
    saves: Vec<(usize, SaveNumber)>,
    /// Last index of each region once it is durable.
    durable: Vec<(usize, u64)>,
}

struct World {
    store: Store,
    peers: Vec<PeerStorage>,
    models: Vec<MemStorage>,
    durable: Vec<u64>,
    flights: VecDeque<Flight>,
    rng: Rng,
    counts: Counts,
}

/// A log in memory that stands where a new region does.
fn model() -> MemStorage {
    let mut model = MemStorage::new();
    let snapshot = basalt_raft::eraftpb::Snapshot {
        metadata: Some(SnapshotMetadata {
            conf_state: Some(support::voters(&[1, 2, 3])),
            index: 5,
            term: 5,
        }),
        ..Default::default()
    };
    model.apply_snapshot(snapshot).expect("a sound disk");
    model.set_hard_state(support::hard_state(5, 0, 5).expect("a sound disk"));
    model
}

impl World {
    fn new(seed: u64) -> Self {
        let store = Store::new();
        let peers = (0..REGIONS).map(|n| store.create(1 + n as u64)).collect();
        Self {
            peers,
            models: vec![model(); REGIONS],
            durable: vec![5; REGIONS],
            flights: VecDeque::new(),
            rng: Rng::new(seed),
            counts: Counts::default(),
            store,
        }
    }

    /// What a node of this region could hand out.
    fn ready(&mut self, region: usize) -> Ready {
        let model = &self.models[region];
        let present = *model.hard_state();
        let last = model.last_index().expect("a sound disk");
        let mut ready = Ready::default();
        let term = present.term + self.rng.below(2);
        let first = if self.rng.one_in(3) {
            self.rng.range(present.commit + 1..last + 2)
        } else {
            last + 1
        };
        self.counts.overwrites += u64::from(first <= last);
        let entry = |index| Entry {
            index,
            term,
            data: vec![self.rng.byte(); self.rng.len(0..120)].into(),
            ..Entry::default()
        };
        let entries: Vec<Entry> = (first..first + 4).map(entry).collect();
        let count = self.rng.len(0..5);
        ready.entries = entries[..count].to_vec();
        // Committed is what is durable here; nothing below it is ever replaced.
        let top = self.durable[region].min(first - 1).max(present.commit);
        let commit = self.rng.range(present.commit..top + 1);
        ready.hard_state = (self.rng.one_in(2) || term > present.term).then_some(HardState {
            term,
            vote: self.rng.below(4),
            commit,
        });
        ready
    }

    fn save(&mut self) {
        let mut batch = WriteBatch::new();
        let (mut saves, mut durable) = (Vec::new(), Vec::new());
        for region in 0..REGIONS {
            if self.rng.one_in(3) {
                continue;
            }
            let ready = self.ready(region);
            let number = self.peers[region].save(&Save::from(&ready), &mut batch);
            saves.push((region, number.expect("a sound disk")));
            if let Some(hard_state) = ready.hard_state {
                self.models[region].set_hard_state(hard_state);
            }
            if let Some(first) = ready.entries.first() {
                self.durable[region] = self.durable[region].min(first.index - 1);
                for flight in &mut self.flights {
                    for (other, last) in &mut flight.durable {
                        *last = if *other == region {
                            (*last).min(first.index - 1)
                        } else {
                            *last
                        };
                    }
                }
            }
            self.models[region].append(ready.entries);
            durable.push((
                region,
                self.models[region].last_index().expect("a sound disk"),
            ));
        }
        let ticket = self.store.engines.raft.submit(batch, WriteOptions::SYNC);
        self.counts.batches += 1;
        self.flights.push_back(Flight {
            ticket: ticket.expect("a sound disk"),
            saves,
            durable,
        });
    }

    fn land(&mut self) {
        let Some(flight) = self.flights.pop_front() else {
            return;
        };
        flight.ticket.wait().expect("a sound disk");
        for (region, number) in flight.saves {
            self.peers[region].published(number);
        }
        for (region, last) in flight.durable {
            self.durable[region] = self.durable[region].max(last);
        }
    }

    /// Applies a part of what is committed and durable, and truncates a part of what is applied.
    fn machine(&mut self) {
        let region = self.rng.index(REGIONS);
        let (peer, model) = (&mut self.peers[region], &mut self.models[region]);
        let mut state = *peer.apply_state();
        let top = model.hard_state().commit.min(self.durable[region]);
        if state.applied_index < top {
            state.applied_index = self.rng.range(state.applied_index..top + 1);
            write_applied(&self.store, peer, WriteBatch::new(), state, None);
        }
        let (first, applied) = (
            model.first_index().expect("a sound disk"),
            state.applied_index,
        );
        if first <= applied && self.rng.one_in(2) {
            let index = self.rng.range(first..applied + 1);
            truncate(&self.store, peer, index).expect("a sound disk");
            model.compact(index).expect("a sound disk");
            self.counts.truncations += 1;
        }
        if self.rng.one_in(3) {
            self.store.engines.flush_kv().expect("a sound disk");
        }
        let mut batch = WriteBatch::new();
        self.counts.deletions += u64::from(peer.compact_log(&mut batch));
        self.store.write_raft(batch, WriteOptions::NO_SYNC);
    }

    fn restart(&mut self) {
        while !self.flights.is_empty() {
            self.land();
        }
        self.store.engines.flush_kv().expect("a sound disk");
        self.store = self.store.crash(Survival::LoseUnsynced);
        self.peers = (1..=REGIONS as u64)
            .map(|n| self.store.open(n, 1))
            .collect();
        self.counts.restarts += 1;
    }

    fn compare(&mut self) {
        for region in 0..REGIONS {
            let (peer, model) = (&self.peers[region], &self.models[region]);
            let (first, last) = (
                model.first_index().expect("a sound disk"),
                model.last_index().expect("a sound disk"),
            );
            assert_eq!(peer.first_index().expect("a sound disk"), first);
            assert_eq!(peer.last_index().expect("a sound disk"), last);
            assert_eq!(peer.hard_state(), *model.hard_state());
            let low = self.rng.range(first..last + 2);
            let high = self.rng.range(low..last + 2);
            let limit = if self.rng.one_in(2) {
                NO_LIMIT
            } else {
                self.rng.below(500)
            };
            let read = peer.entries(low, high, limit).expect("a sound disk");
            assert_eq!(
                read,
                model.entries(low, high, limit).expect("a sound disk"),
                "{low}..{high}, {limit}"
            );
            for index in first.saturating_sub(2)..last + 2 {
                let (got, wanted) = (peer.term(index), model.term(index));
                assert_eq!(got.as_ref().ok(), wanted.as_ref().ok(), "term({index})");
            }
            self.counts.reads_in_flight += u64::from(!self.flights.is_empty());
            self.counts.disk_reads += u64::from(peer.cached_bytes() == 0 && !read.is_empty());
            let ConfState { nodes, .. } = peer.initial_state().expect("a sound disk").conf_state;
            assert_eq!(nodes, [1, 2, 3]);
        }
    }
}

#[test]
fn reads_answer_from_what_was_saved_whether_it_is_on_disk_yet_or_not() {
    let test = "reads_answer_from_what_was_saved_whether_it_is_on_disk_yet_or_not";
    let seeds = Seeds::new(test, 30 * long_factor());
    let replays = seeds.is_replay();
    let mut total = Counts::default();
    for seed in seeds {
        let _replay = Replay::new("-p basalt-raftstore", test, seed);
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            match world.rng.below(20) {
                0..9 => world.save(),
                9..15 => world.land(),
                15..19 => world.machine(),
                _ => world.restart(),
            }
            world.compare();
        }
        let counts = world.counts;
        total.batches += counts.batches;
        total.overwrites += counts.overwrites;
        total.reads_in_flight += counts.reads_in_flight;
        total.disk_reads += counts.disk_reads;
        total.truncations += counts.truncations;
        total.deletions += counts.deletions;
        total.restarts += counts.restarts;
    }
    println!("{total:?}");
    if replays {
        return;
    }
    assert!(total.batches > 2_000, "{total:?}");
    assert!(total.overwrites > 500, "{total:?}");
    assert!(total.reads_in_flight > 5_000, "{total:?}");
    assert!(total.disk_reads > 100, "{total:?}");
    assert!(total.truncations > 200, "{total:?}");
    assert!(total.deletions > 50, "{total:?}");
    assert!(total.restarts > 100, "{total:?}");
}
