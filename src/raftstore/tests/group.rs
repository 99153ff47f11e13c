//! A group of nodes on stores that lose power at any moment, each driven as a store drives it: saves of
//! many turns in flight, entries applied behind them and reported later, kvdb falling back to its last
//! flush, logs truncated and deleted, snapshots, and members that come and go.
//!
//! What must hold: an index has one entry, whoever applies it and however often; data, apply state and
//! membership are of one index wherever kvdb falls back to; and all converge once it is quiet.

#[expect(dead_code, reason = "each test takes its part of what they share")]
mod support;

use std::collections::{BTreeMap, VecDeque};

use basalt_engine::{Ticket, WriteBatch, WriteOptions, fs::sim::Survival};
use basalt_proto::raft_serverpb::{RaftApplyState, RaftTruncatedState};
use basalt_raft::{
    Config, LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD, MembershipChange, RawNode, Role,
    SnapshotStatus, Storage,
    confchange::next_conf_state,
    eraftpb::{
        ConfChange, ConfChangeType, ConfState, Entry, EntryType, Message, MessageType, Snapshot,
        SnapshotMetadata,
    },
};
use basalt_raftstore::{
    Applied, Installation, Installed, Membership, PeerStorage, Save, SaveNumber, peers, states,
};
use basalt_testkit::{Replay, Rng, Seeds, long_factor};
use prost::Message as _;
use support::{CACHE, ROW, Store, install, membership, pack, unpack, voters};

const REGION: u64 = 1;
const STEPS: u64 = 1_500;

#[derive(Debug, Default)]
struct Counts {
    applied: u64,
    crashes: u64,
    fell_back: u64,
    installed: u64,
    resumed: u64,
    deletions: u64,
    changes: u64,
}

/// A batch on its way, with what waits for it.
struct Flight {
    ticket: Ticket,
    number: Option<SaveNumber>,
    snapshot: bool,
    responses: Vec<Message>,
}

enum Work {
    Entries(Vec<Entry>, Vec<Message>),
    Install(Vec<Message>),
}

enum Report {
    Applied(Applied, Vec<Entry>, Vec<Message>),
    Installed(Installed, Vec<Message>),
}

struct Node {
    id: u64,
    store: Store,
    raw: RawNode<PeerStorage>,
    flights: VecDeque<Flight>,
    work: VecDeque<Work>,
    reports: VecDeque<Report>,
}

struct Group {
    nodes: Vec<Node>,
    net: Vec<Message>,
    /// The node that no message reaches, if there is one of that number.
    away: u64,
    rng: Rng,
    /// What each index has: term and payload; membership and content behind it.
    history: BTreeMap<u64, (Entry, ConfState, u64)>,
    counts: Counts,
}

fn raw(store: &Store, id: u64, counts: &mut Counts) -> RawNode<PeerStorage> {
    let found = peers(&store.engines).expect("a sound disk");
    assert!(found.len() <= 1);
    let mut storage = PeerStorage::open(store.engines.clone(), REGION, id, CACHE).expect("sound");
    if storage.pending_snapshot().is_some() {
        assert_eq!(found.len(), 1);
        counts.resumed += 1;
        install(store, &mut storage);
    }
    let mut config = Config::new(id);
    config.applied = storage.apply_state().applied_index;
    config.async_storage_writes = true;
    config.max_size_per_msg = 200;
    config.seed = id;
    RawNode::new(config, storage).expect("a good start")
}

/// The content behind an entry that was applied to `before`.
fn content(before: u64, entry: &Entry) -> u64 {
    let mut hash = before ^ entry.term.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ entry.index;
    for byte in &entry.data {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
    }
    hash
}

fn row(store: &Store) -> u64 {
    let row = store.row().map(|row| row.to_vec()).unwrap_or_default();
    row.try_into().map_or(0, u64::from_be_bytes)
}

impl Group {
    fn new(seed: u64) -> Self {
        let mut group = Self {
            nodes: Vec::new(),
            net: Vec::new(),
            away: 0,
            rng: Rng::new(seed),
            history: BTreeMap::new(),
            counts: Counts::default(),
        };
        for id in 1..=4 {
            let store = Store::new();
            if id < 4 {
                let members = membership(REGION, &voters(&[1, 2, 3]));
                PeerStorage::create(&store.engines, &members, id).expect("new");
            }
            let raw = raw(&store, id, &mut group.counts);
            group.nodes.push(Node {
                id,
                store,
                raw,
                flights: VecDeque::new(),
                work: VecDeque::new(),
                reports: VecDeque::new(),
            });
        }
        group
    }

    fn deliver(&mut self, at: usize, responses: Vec<Message>) {
        for response in responses {
            if response.to == self.nodes[at].id {
                let _ = self.nodes[at].raw.step(response);
            } else {
                self.net.push(response);
            }
        }
    }

    fn turn(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if !node.raw.has_ready() {
            return;
        }
        let ready = node.raw.ready().expect("a sound disk");
        let mut out = Vec::new();
        for message in ready.messages {
            match message.to {
                LOCAL_APPEND_THREAD => {
                    let mut batch = WriteBatch::new();
                    let save = Save::from(&message);
                    let storage = node.raw.storage_mut();
                    let number = storage.save(&save, &mut batch).expect("it fits");
                    self.counts.deletions += u64::from(storage.compact_log(&mut batch));
                    let ticket = node.store.engines.raft.submit(batch, WriteOptions::SYNC);
                    node.flights.push_back(Flight {
                        ticket: ticket.expect("a sound disk"),
                        number: Some(number),
                        snapshot: message.snapshot.is_some(),
                        responses: message.responses,
                    });
                }
                LOCAL_APPLY_THREAD => node
                    .work
                    .push_back(Work::Entries(message.entries, message.responses)),
                _ => out.push(message),
            }
        }
        if let Some(last) = node.flights.back_mut() {
            last.responses.extend(out);
        } else {
            self.net.extend(out);
        }
    }

    fn land(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let Some(flight) = node.flights.pop_front() else {
            return;
        };
        flight.ticket.wait().expect("a sound disk");
        if let Some(number) = flight.number {
            node.raw.storage_mut().published(number);
        }
        if flight.snapshot {
            node.work.push_back(Work::Install(flight.responses));
        } else {
            self.deliver(at, flight.responses);
        }
    }

    /// What the apply thread does: it looks at kvdb alone.
    fn work(&mut self, at: usize) {
        let Some(work) = self.nodes[at].work.pop_front() else {
            return;
        };
        let report = match work {
            Work::Entries(entries, responses) => {
                let Some(applied) = self.apply(at, &entries) else {
                    return;
                };
                Report::Applied(applied, entries, responses)
            }
            Work::Install(responses) => {
                let node = &mut self.nodes[at];
                let installation = node.raw.storage().installation().expect("published");
                let done = run(&node.store, &installation);
                self.counts.installed += 1;
                Report::Installed(done, responses)
            }
        };
        self.nodes[at].reports.push_back(report);
    }

    fn apply(&mut self, at: usize, entries: &[Entry]) -> Option<Applied> {
        let node = &self.nodes[at];
        let engines = &node.store.engines;
        let mut state = states::apply_state(engines, REGION)
            .expect("a sound disk")
            .expect("a sound disk");
        let region = states::region_state(engines, REGION)
            .expect("a sound disk")
            .expect("a sound disk");
        let mut members = region.conf_state.expect("a sound disk");
        let mut hash = row(&node.store);
        let mut changed = false;
        for entry in entries {
            assert_eq!(
                entry.index,
                state.applied_index + 1,
                "in order, without a hole"
            );
            state.applied_index = entry.index;
            hash = content(hash, entry);
            if entry.entry_type() == EntryType::EntryNormal {
                if let Some(truncated) = entry.data.strip_prefix(b"cut")
                    && let Ok(cut) = RaftTruncatedState::decode(truncated)
                    && cut.index > state.truncated_state.unwrap_or_default().index
                {
                    state.truncated_state = Some(cut);
                }
            } else {
                let change = MembershipChange::decode(entry.entry_type(), entry.data.clone());
                members =
                    next_conf_state(&members, &change.expect("a sound disk")).unwrap_or(members);
                changed = true;
            }
            let now = (entry.clone(), members.clone(), hash);
            let known = self
                .history
                .entry(entry.index)
                .or_insert_with(|| now.clone());
            assert_eq!(*known, now, "node {} applies {}", node.id, entry.index);
            self.counts.applied += 1;
        }
        let mut batch = WriteBatch::new();
        batch.put(&engines.data[0], ROW, &hash.to_be_bytes());
        states::put_apply_state(engines, &mut batch, REGION, &state);
        let members = changed.then(|| membership(REGION, &members));
        if let Some(Membership { region, conf_state }) = &members {
            let state = states::normal(region, conf_state, node.id);
            states::put_region_state(engines, &mut batch, REGION, &state);
        }
        let seq = engines
            .kv
            .write(batch, WriteOptions::NO_SYNC)
            .expect("a sound disk");
        Some(Applied {
            state,
            membership: members,
            seq,
        })
    }

    fn report(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let responses = match node.reports.pop_front() {
            None => return,
            Some(Report::Applied(applied, entries, responses)) => {
                let first = node.raw.raft().log().first_index().expect("a sound disk");
                node.raw.storage_mut().applied(applied).expect("in order");
                for entry in entries.iter().filter(|entry| entry.index >= first) {
                    if entry.entry_type() != EntryType::EntryNormal {
                        let change =
                            MembershipChange::decode(entry.entry_type(), entry.data.clone());
                        let state = node.raw.apply_conf_change(change.expect("a sound disk"));
                        self.counts.changes += 1;
                        let (_, wanted, _) = &self.history[&entry.index];
                        if let Ok(state) = state {
                            assert_eq!(state, *wanted, "at {}", entry.index);
                        }
                    }
                }
                responses
            }
            Some(Report::Installed(done, responses)) => {
                let mut batch = WriteBatch::new();
                let storage = node.raw.storage_mut();
                storage.installed(done, &mut batch).expect("pending");
                node.store.write_raft(batch, WriteOptions::NO_SYNC);
                responses
            }
        };
        self.deliver(at, responses);
    }

    fn offer(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let storage = node.raw.storage();
        if storage.take_snapshot_request().is_none() || storage.pending_snapshot().is_some() {
            return;
        }
        let engines = &node.store.engines;
        // kvdb may be ahead of what was reported.
        let applied: RaftApplyState = states::apply_state(engines, REGION)
            .expect("a sound disk")
            .expect("a sound disk");
        let index = applied.applied_index;
        let region = states::region_state(engines, REGION)
            .expect("a sound disk")
            .expect("a sound disk");
        let made = Snapshot {
            data: pack(REGION, row(&node.store).to_be_bytes().to_vec().into()),
            metadata: Some(SnapshotMetadata {
                conf_state: region.conf_state,
                index,
                term: storage.term(index).expect("an applied entry"),
            }),
        };
        node.raw.storage_mut().offer_snapshot(made);
    }

    fn crash(&mut self, at: usize) {
        let how = match self.rng.below(4) {
            0 => Survival::LoseUnsynced,
            1 => Survival::KeepAll,
            _ => Survival::Random {
                seed: self.rng.next_u64(),
            },
        };
        let node = &mut self.nodes[at];
        let before = states::apply_state(&node.store.engines, REGION).expect("a sound disk");
        let store = node.store.crash(how);
        let after = states::apply_state(&store.engines, REGION).expect("a sound disk");
        let index = |state: Option<RaftApplyState>| state.map_or(0, |state| state.applied_index);
        self.counts.fell_back += u64::from(index(after) < index(before));
        self.counts.crashes += 1;
        if let Some((_, members, hash)) = self.history.get(&index(after)) {
            assert_eq!(row(&store), *hash, "the data is of the applied index");
            let region = states::region_state(&store.engines, REGION)
                .expect("a sound disk")
                .expect("a sound disk");
            assert_eq!(
                region.conf_state.expect("a sound disk"),
                *members,
                "so is the membership"
            );
        }
        let id = node.id;
        let raw = raw(&store, id, &mut self.counts);
        (node.raw, node.store) = (raw, store);
        node.flights.clear();
        node.work.clear();
        node.reports.clear();
    }

    fn client(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if node.raw.raft().role() != Role::Leader {
            return;
        }
        match self.rng.below(12) {
            0 => {
                let id = 4;
                let members = node
                    .raw
                    .storage()
                    .membership()
                    .expect("a sound disk")
                    .conf_state
                    .clone();
                let there = members.nodes.contains(&id) || members.learners.contains(&id);
                let kind = match (there, self.rng.one_in(2)) {
                    (true, _) => ConfChangeType::RemoveNode,
                    (false, true) => ConfChangeType::AddNode,
                    (false, false) => ConfChangeType::AddLearnerNode,
                };
                // A removed peer stays what it is here: only additions of who was never removed.
                if kind == ConfChangeType::RemoveNode {
                    return;
                }
                let _ = node.raw.propose_conf_change(ConfChange {
                    change_type: kind.into(),
                    node_id: id,
                    ..ConfChange::default()
                });
            }
            1 => {
                let storage = node.raw.storage();
                let applied = storage.apply_state().applied_index;
                if let Ok(cut) = storage.truncation_at(applied.saturating_sub(self.rng.below(4))) {
                    let data = [b"cut".to_vec(), cut.encode_to_vec()].concat();
                    let _ = node.raw.propose(data.into());
                }
            }
            _ => {
                let data = self.rng.next_u64().to_be_bytes().to_vec();
                let _ = node.raw.propose(data.into());
            }
        }
    }

    fn receive(&mut self) {
        if self.net.is_empty() {
            return;
        }
        let at = self.rng.index(self.net.len());
        let message = self.net.swap_remove(at);
        let place = |id: u64| usize::try_from(id - 1).expect("few nodes");
        let (from, to) = (place(message.from), place(message.to));
        let lost = message.to == self.away || self.rng.one_in(20);
        if message.msg_type() == MessageType::MsgSnapshot {
            let status = if lost {
                SnapshotStatus::Failed
            } else {
                SnapshotStatus::Delivered
            };
            let _ = self.nodes[from].raw.report_snapshot(message.to, status);
        }
        if !lost {
            let _ = self.nodes[to].raw.step(message);
        }
    }

    fn step(&mut self, quiet: bool) {
        let at = self.rng.index(self.nodes.len());
        match self.rng.below(100) {
            0..5 => drop(self.nodes[at].raw.tick()),
            5..12 if !quiet => self.client(at),
            12..35 => self.turn(at),
            35..48 => self.land(at),
            48..58 => self.work(at),
            58..68 => self.report(at),
            68..70 => self.offer(at),
            70..71 if !quiet => self.nodes[at]
                .store
                .engines
                .flush_kv()
                .expect("a sound disk"),
            71..72 if !quiet => {
                // An installation that waits is a moment worth a crash.
                let waits = self.nodes[at].raw.storage().pending_snapshot().is_some();
                if waits || self.rng.one_in(8) {
                    self.crash(at);
                }
            }
            72.. => self.receive(),
            _ => {}
        }
    }
}

/// Brings the tables of a snapshot and installs them.
fn run(store: &Store, installation: &Installation) -> Installed {
    let family = &store.engines.data[0];
    let data = unpack(&installation.snapshot().data).data;
    let tables = data.into_iter().map(|row| {
        let _ =
            basalt_engine::fs::Fs::remove_file(&*store.fs, std::path::Path::new("/incoming.table"));
        let writer = store.engines.kv.table_writer(family, "/incoming.table");
        let mut writer = writer.expect("a sound disk");
        writer.put(&row.key, &row.value).expect("a sound disk");
        (family.clone(), writer.finish().expect("a sound disk"))
    });
    installation.run(tables.collect()).expect("a sound disk")
}

#[test]
fn a_group_whose_stores_lose_power_agrees_on_what_is_applied_and_converges() {
    let test = "a_group_whose_stores_lose_power_agrees_on_what_is_applied_and_converges";
    let seeds = Seeds::new(test, 10 * long_factor());
    let replays = seeds.is_replay();
    let mut total = Counts::default();
    for seed in seeds {
        let _replay = Replay::new("-p basalt-raftstore", test, seed);
        let mut group = Group::new(seed);
        for step in 0..STEPS * 20 {
            if step % STEPS == 0 {
                group.away = group.rng.below(7);
            }
            group.step(false);
        }
        group.away = 0;
        let mut rounds = 0;
        loop {
            for _ in 0..STEPS {
                group.step(true);
            }
            let applied: Vec<u64> = group.nodes[..3]
                .iter()
                .map(|node| node.raw.storage().apply_state().applied_index)
                .collect();
            let newest = *group.history.keys().last().unwrap_or(&0);
            if applied.iter().all(|&index| index == newest && index > 5) {
                break;
            }
            rounds += 1;
            assert!(rounds < 60, "applied {applied:?} of {newest}");
        }
        let counts = group.counts;
        total.applied += counts.applied;
        total.crashes += counts.crashes;
        total.fell_back += counts.fell_back;
        total.installed += counts.installed;
        total.resumed += counts.resumed;
        total.deletions += counts.deletions;
        total.changes += counts.changes;
    }
    println!("{total:?}");
    if replays {
        return;
    }
    assert!(total.crashes > 100 && total.fell_back > 50, "{total:?}");
    assert!(total.installed > 20 && total.resumed > 2, "{total:?}");
}
