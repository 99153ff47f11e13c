//! A peer's storage in the Raft crate's conformance suite, on a simulated disk that loses power: at
//! the moment it is asked to, or at some moment since the last sync, also within a step.

#[expect(dead_code, reason = "each test takes its part of what they share")]
mod support;

use std::sync::{Arc, Mutex, PoisonError};

use basalt_engine::{
    WriteBatch, WriteOptions,
    fs::{SimFs, sim::Survival},
};
use basalt_raft::{
    Storage, StorageError,
    eraftpb::ConfState,
    storage::conformance::{self, Counts, PowerLoss, Subject, Write},
};
use basalt_raftstore::{PeerStorage, Save, states};
use basalt_testkit::{Replay, Seeds, long_factor};
use bytes::Bytes;
use support::{Store, install, make_snapshot, membership, pack, truncate, unpack, write_applied};

const REGION: u64 = 1;
const SEEDS: u64 = 20;
const STEPS: u64 = 300;

/// An image of the disk at a random moment since the last sync.
#[derive(Default)]
struct Moment {
    image: Option<Arc<SimFs>>,
    seen: u64,
}

/// One peer of a store, with all that the suite asks of its writer.
struct Peer {
    store: Store,
    storage: PeerStorage,
    moment: Arc<Mutex<Moment>>,
    machine_steps: u64,
}

impl Peer {
    fn new(conf_state: &ConfState) -> Self {
        let store = Store::new();
        let members = membership(REGION, conf_state);
        let id = conf_state.nodes[0];
        PeerStorage::create(&store.engines, &members, id).expect("a new region");
        Self::on(store, id)
    }

    fn on(store: Store, id: u64) -> Self {
        let storage = store.open(REGION, id);
        let moment = Arc::new(Mutex::new(Moment::default()));
        let watched = Arc::clone(&moment);
        store
            .fs
            .set_observer(Some(Arc::new(move |fs: &SimFs, _, _: &_| {
                let mut moment = watched.lock().unwrap_or_else(PoisonError::into_inner);
                moment.seen += 1;
                // Each moment has the same chance to be the one that is kept.
                let draw = moment.seen.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
                if draw.is_multiple_of(moment.seen) {
                    moment.image = Some(fs.crash(Survival::Random { seed: draw }));
                }
            })));
        Self {
            store,
            storage,
            moment,
            machine_steps: 0,
        }
    }

    fn forget_moments(&self) {
        *self.moment.lock().unwrap_or_else(PoisonError::into_inner) = Moment::default();
    }

    /// The state machine's writes reach the disk at times of their own.
    fn machine_step(&mut self) {
        self.machine_steps += 1;
        if self.machine_steps.is_multiple_of(3) {
            self.store.engines.flush_kv().expect("a sound disk");
        }
        let mut batch = WriteBatch::new();
        self.storage.compact_log(&mut batch);
        self.store.write_raft(batch, WriteOptions::NO_SYNC);
    }
}

impl Subject for Peer {
    type Storage = PeerStorage;

    fn storage(&self) -> &PeerStorage {
        &self.storage
    }

    fn write(&mut self, write: Write) -> Result<(), StorageError> {
        let mut batch = WriteBatch::new();
        let save = Save {
            hard_state: write.hard_state,
            snapshot: write.snapshot.as_ref(),
            entries: &write.entries,
        };
        let number = self.storage.save(&save, &mut batch)?;
        self.store.write_raft(batch, WriteOptions::NO_SYNC);
        self.storage.published(number);
        Ok(())
    }

    fn make_snapshot(
        &mut self,
        index: u64,
        conf_state: &ConfState,
        data: Bytes,
    ) -> Result<(), StorageError> {
        if index <= self.storage.apply_state().applied_index {
            return Err(StorageError::SnapshotOutOfDate);
        }
        if index > self.storage.last_index()? {
            return Err(StorageError::Unavailable);
        }
        let mut state = *self.storage.apply_state();
        state.applied_index = index;
        let mut batch = WriteBatch::new();
        batch.put(&self.store.engines.data[0], support::ROW, &data);
        let members = membership(REGION, conf_state);
        write_applied(&self.store, &mut self.storage, batch, state, Some(members));
        self.machine_step();
        Ok(())
    }

    fn compact(&mut self, index: u64) -> Result<(), StorageError> {
        truncate(&self.store, &mut self.storage, index)?;
        self.machine_step();
        Ok(())
    }

    fn start(&self) -> (u64, u64) {
        (states::RAFT_INIT_LOG_INDEX, states::RAFT_INIT_LOG_TERM)
    }

    fn pack(&self, data: Bytes) -> Bytes {
        pack(REGION, data)
    }

    fn unpack(&self, carried: &Bytes) -> Bytes {
        unpack(carried).data.remove(0).value
    }

    fn wait(&mut self) {
        if self.storage.pending_snapshot().is_some() {
            install(&self.store, &mut self.storage);
        } else if self.storage.take_snapshot_request().is_some() {
            let made = make_snapshot(&self.store, &self.storage);
            self.storage.offer_snapshot(made);
        }
    }
}

impl PowerLoss for Peer {
    fn sync(&mut self) {
        self.store.engines.raft.sync().expect("a sound disk");
        self.store.engines.flush_kv().expect("a sound disk");
        self.forget_moments();
        let mut batch = WriteBatch::new();
        self.storage.compact_log(&mut batch);
        self.store.write_raft(batch, WriteOptions::NO_SYNC);
    }

    fn lose_power(&mut self, fate: u64) {
        let earlier = self
            .moment
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .image
            .take();
        let image = match (fate % 4, earlier) {
            (0 | 1, Some(image)) => image,
            (2, _) => self.store.fs.crash(Survival::LoseUnsynced),
            _ => self.store.fs.crash(Survival::Random { seed: fate }),
        };
        self.store.fs.set_observer(None);
        let id = self.storage.peer_id();
        *self = Self::on(Store::on(image), id);
        // What is shown from now on may not be lost again.
        self.forget_moments();
    }
}

fn over_seeds(test: &str, check: impl Fn(u64) -> Counts) -> Option<Vec<Counts>> {
    let seeds = Seeds::new(test, SEEDS * long_factor());
    let replays = seeds.is_replay();
    let run = |seed| {
        let _replay = Replay::new("-p basalt-raftstore", test, seed);
        check(seed)
    };
    let all: Vec<Counts> = seeds.map(run).collect();
    println!("{test}: {all:?}");
    (!replays).then_some(all)
}

fn sum(all: &[Counts], part: impl Fn(&Counts) -> u64) -> u64 {
    all.iter().map(part).sum()
}

#[test]
fn a_peer_reads_back_what_was_written() {
    let test = "a_peer_reads_back_what_was_written";
    let all = over_seeds(test, |seed| conformance::check(Peer::new, seed, STEPS));
    let Some(all) = all else { return };
    assert!(sum(&all, |c| c.writes) > 400, "writes");
    assert!(sum(&all, |c| c.overwrites) > 40, "overwrites");
    assert!(sum(&all, |c| c.snapshots_applied) > 40, "snapshots applied");
    assert!(sum(&all, |c| c.snapshots_made) > 40, "snapshots made");
    assert!(sum(&all, |c| c.compactions) > 20, "compactions");
    assert!(sum(&all, |c| c.cuts) > 100, "cuts");
}

#[test]
fn a_peer_keeps_a_prefix_of_its_writes_in_losses_of_power() {
    let test = "a_peer_keeps_a_prefix_of_its_writes_in_losses_of_power";
    let all = over_seeds(test, |seed| {
        conformance::check_power_loss(Peer::new, seed, STEPS)
    });
    let Some(all) = all else { return };
    assert!(sum(&all, |c| c.power_losses) > 100, "losses of power");
    assert!(sum(&all, |c| c.losses_of_writes) > 20, "losses of writes");
    assert!(sum(&all, |c| c.unsynced_kept) > 20, "unsynced writes kept");
    assert!(sum(&all, |c| c.snapshots_applied) > 20, "snapshots applied");
}
