//! A store in the simulation: a disk that outlives it, and in each life the engines and the loops.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use basalt_engine::{
    Db, Options,
    executor::{Executor as _, SimExecutor},
    fs::{SimFs, sim::Survival},
};
use basalt_proto::{
    metapb,
    raft_serverpb::{RaftMessage, StoreIdent},
};
use basalt_raftstore::{
    Applier, Clock, Engines, Membership, Parts, Store, StoreConfig, StoreHandle, Transport,
    Workers, bootstrap, snapshot::SnapshotStore,
};

/// The cluster that all stores are of.
pub(crate) const CLUSTER: u64 = 77;

/// The world's time as one store's clock shows it: a little fast or slow.
#[derive(Debug)]
pub(crate) struct SkewedClock {
    pub(crate) world: Arc<AtomicU64>,
    /// Per mille by which it runs fast; the bias keeps it positive.
    pub(crate) rate: u64,
}

impl Clock for SkewedClock {
    fn now(&self) -> Duration {
        let now = self.world.load(Ordering::Relaxed);
        Duration::from_nanos(now / 1_000 * self.rate)
    }
}

/// What left a store.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Message(RaftMessage),
    Question(RaftMessage),
    Snapshot(RaftMessage),
}

type Outbox = Arc<Mutex<Vec<Outgoing>>>;

struct SimTransport(Outbox);

impl SimTransport {
    fn push(&self, outgoing: Outgoing) {
        let mut outbox = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        outbox.push(outgoing);
    }
}

impl Transport for SimTransport {
    fn send(&mut self, message: RaftMessage) {
        self.push(Outgoing::Message(message));
    }

    fn ask_for_room(&mut self, message: RaftMessage) {
        self.push(Outgoing::Question(message));
    }

    fn send_snapshot(&mut self, message: RaftMessage) {
        self.push(Outgoing::Snapshot(message));
    }

    fn flush(&mut self) {}
}

/// Which of a store's events are on their way.
#[derive(Debug, Default)]
pub(crate) struct Scheduled {
    pub(crate) store: bool,
    pub(crate) apply: bool,
    pub(crate) work: bool,
    pub(crate) flush: bool,
    pub(crate) disk: bool,
}

/// Takes an image of a disk before one of its next changes: as power cut in the middle of something would
/// leave it.
pub(crate) struct Trap {
    left: AtomicU64,
    how: Survival,
    image: Mutex<Option<Arc<SimFs>>>,
}

impl Trap {
    /// Sets one on a disk; it springs before the change that is `left` changes away.
    pub(crate) fn set(fs: &SimFs, left: u64, how: Survival) -> Arc<Self> {
        let trap = Arc::new(Self {
            left: AtomicU64::new(left),
            how,
            image: Mutex::new(None),
        });
        let watched = Arc::clone(&trap);
        fs.set_observer(Some(Arc::new(move |fs, _, _| {
            let left = watched.left.fetch_sub(1, Ordering::Relaxed);
            if left == 0 {
                let image = fs.crash(watched.how);
                *watched.image.lock().unwrap_or_else(PoisonError::into_inner) = Some(image);
            }
        })));
        trap
    }

    fn take(&self) -> Option<Arc<SimFs>> {
        self.image
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// A store that runs.
pub(crate) struct Running {
    pub(crate) executor: Arc<SimExecutor>,
    pub(crate) engines: Engines,
    pub(crate) store: Store,
    pub(crate) applier: Applier,
    pub(crate) workers: Workers,
    pub(crate) handle: StoreHandle,
    pub(crate) snapshots: Arc<SnapshotStore>,
    outbox: Outbox,
    pub(crate) scheduled: Scheduled,
}

impl Running {
    pub(crate) fn take_outgoing(&self) -> Vec<Outgoing> {
        let mut outbox = self.outbox.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *outbox)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // On their old disk, which nobody will see again.
        let _ = self.engines.kv.clone().close();
        let _ = self.engines.raft.clone().close();
        // Jobs hold the databases that hold the executor.
        self.executor.abandon();
    }
}

/// A store and its disk.
pub(crate) struct Node {
    pub(crate) id: u64,
    pub(crate) fs: Arc<SimFs>,
    pub(crate) clock: Arc<SkewedClock>,
    pub(crate) life: u32,
    pub(crate) running: Option<Box<Running>>,
    /// Nothing of it happens until then.
    pub(crate) paused_until: u64,
    /// Each of its disk's jobs takes longer until then.
    pub(crate) slow_until: u64,
    /// Its disk was made to fail: it may stop serving.
    pub(crate) disk_fails: bool,
    /// It was wiped, and must not come back.
    pub(crate) wiped: bool,
    pub(crate) trap: Option<Arc<Trap>>,
}

impl Node {
    pub(crate) fn new(id: u64, world: &Arc<AtomicU64>, rate: u64) -> Self {
        Self {
            id,
            fs: SimFs::new(),
            clock: Arc::new(SkewedClock {
                world: Arc::clone(world),
                rate,
            }),
            life: 0,
            running: None,
            paused_until: 0,
            slow_until: 0,
            disk_fails: false,
            wiped: false,
            trap: None,
        }
    }

    /// Opens what the disk has; a founding member's first time with its peer.
    pub(crate) fn start(
        &mut self,
        mut config: StoreConfig,
        founding: Option<&Membership>,
        seed: u64,
    ) -> Result<(), String> {
        let executor = Arc::new(SimExecutor::new(seed));
        let open = |path: &str| {
            let options = Options {
                log_segment_bytes: (16 << 10, 256 << 10),
                // Small, so that states are flushed and entries written forward.
                max_log_bytes: 64 << 10,
                max_log_garbage_bytes: 64 << 10,
                block_cache_bytes: 1 << 20,
                reserve_bytes: 0,
                ..Options::with(self.fs.clone(), executor.clone())
            };
            Db::open(path, options).map_err(|error| error.to_string())
        };
        let engines = Engines::new(open("/kv")?, open("/raft")?);
        let engines = engines.map_err(|error| error.to_string())?;
        let ident = StoreIdent {
            cluster_id: CLUSTER,
            store_id: self.id,
        };
        let known = basalt_raftstore::store_ident(&engines).map_err(|error| error.to_string())?;
        if known.is_none() {
            bootstrap(&engines, &ident, founding).map_err(|error| error.to_string())?;
            config.freshly_formatted = true;
        }
        let snapshots =
            SnapshotStore::open(self.fs.clone(), PathBuf::from("/snap"), engines.clone());
        let snapshots = Arc::new(snapshots.map_err(|error| error.to_string())?);
        let outbox = Outbox::default();
        let parts = Parts {
            config,
            engines: engines.clone(),
            clock: self.clock.clone(),
            transport: Box::new(SimTransport(Arc::clone(&outbox))),
            snapshots: Arc::clone(&snapshots),
            logger: None,
        };
        let (store, applier, workers) = Store::open(parts).map_err(|error| error.to_string())?;
        self.life += 1;
        self.running = Some(Box::new(Running {
            handle: store.handle(),
            executor,
            engines,
            store,
            applier,
            workers,
            snapshots,
            outbox,
            scheduled: Scheduled::default(),
        }));
        Ok(())
    }

    /// What a trap that has sprung has left.
    pub(crate) fn sprung(&mut self) -> Option<Arc<SimFs>> {
        let left = self.trap.as_ref()?.take()?;
        self.trap = None;
        Some(left)
    }

    /// Runs one of the disk's jobs; whether more wait.
    pub(crate) fn help(&mut self) -> bool {
        let Some(running) = &self.running else {
            return false;
        };
        running.executor.help();
        running.executor.queued() > 0
    }
}

/// Where a peer is: founders have the id of their store.
pub(crate) fn peer(id: u64, store_id: u64) -> metapb::Peer {
    metapb::Peer { id, store_id }
}
