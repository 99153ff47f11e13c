//! `Cluster`: one store of a replicated cluster at work, from its directory to its end.
//!
//! ```text
//! open --> (a founder: meet every other founder) --> start --> serve --> hand over --> shut down
//!                                                      |
//!                                                      +--> fenced: it answers everybody with the reason
//! ```
//! Promises: a founder takes part in no vote before every founder has durably seen its incarnation; a store that
//! is fenced has stopped its loops, and the process lives to say why.
//!
//! Not here: what flags mean (`setup`), who is let in (`incoming`), what is watched meanwhile (`watch`).

use std::{
    fmt, fs,
    path::Path,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock},
    time::Duration,
};

use basalt_engine::{Db, Options, fs::RealFs};
use basalt_proto::{
    metapb::{Peer, Region, RegionEpoch},
    raft_serverpb::StoreIdent,
};
use basalt_raft::Level;
use basalt_raftstore::{
    Engines, Membership, Node, Parts, StoreConfig, StoreLoop, bootstrap, snapshot::SnapshotStore,
    states, store_ident,
};
use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc, watch},
    task::yield_now,
    time::{Instant, sleep},
};

use super::{BootClock, Dialer, Directory, GrpcTransport, Links, Refusal, draw};
use crate::storage::{
    EngineSettings, Error, FAMILIES, Status, StoreCode,
    data_dir::{self, Identity, Layout, Mode, Phase},
    engine_status, explain_open, report_recovery,
};

/// Region that the founders begin with.
const FIRST_REGION: u64 = 1;
/// Bytes of blocks that raftdb keeps in memory: what it has in tables is little, and hardly read.
const RAFT_CACHE_BYTES: usize = 8 << 20;

/// What a store has open.
#[derive(Clone)]
pub(crate) struct Open {
    pub(crate) engines: Engines,
    pub(crate) snapshots: Arc<SnapshotStore>,
}

/// One store of a cluster.
pub struct Cluster {
    layout: Layout,
    settings: EngineSettings,
    identity: Mutex<Identity>,
    /// The directory was formatted in this run, or has never been served from.
    is_fresh: bool,
    /// Whom it knows.
    pub directory: Arc<Directory>,
    /// The ways to the other stores.
    pub links: Arc<Links>,
    open: RwLock<Option<Open>>,
    node: Mutex<Option<Node>>,
    /// Held by who stops the node: whoever comes second waits until it has stopped. Never taken on the async runtime.
    stopping_node: Mutex<()>,
    fence: OnceLock<String>,
    /// What it waits for before it serves; empty once it does.
    waits: Mutex<String>,
    /// Turns true when streams of other stores are to end.
    stop: watch::Sender<bool>,
    refused: Mutex<Option<mpsc::UnboundedReceiver<Refusal>>>,
}

impl Cluster {
    /// The store of `identity` in the directory of `layout`. `is_fresh` says that it was formatted in this run.
    #[must_use]
    pub fn new(
        layout: Layout,
        settings: EngineSettings,
        identity: Identity,
        is_fresh: bool,
        directory: Directory,
        (dialer, runtime): (Dialer, Handle),
    ) -> Arc<Self> {
        let directory = Arc::new(directory);
        let (tell, told) = mpsc::unbounded_channel();
        let who = (identity.cluster_id, identity.store_id, identity.incarnation);
        let links = Links::new(who, Arc::clone(&directory), dialer, runtime, tell);
        Arc::new(Self {
            layout,
            settings,
            is_fresh: is_fresh || identity.phase == Phase::Forming,
            identity: Mutex::new(identity),
            directory,
            links: Arc::new(links),
            open: RwLock::new(None),
            node: Mutex::new(None),
            stopping_node: Mutex::new(()),
            fence: OnceLock::new(),
            waits: Mutex::new("its engines are being opened".to_owned()),
            stop: watch::Sender::new(false),
            refused: Mutex::new(Some(told)),
        })
    }

    /// Who it is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.lock_identity().clone()
    }

    fn lock_identity(&self) -> MutexGuard<'_, Identity> {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its id.
    #[must_use]
    pub fn store_id(&self) -> u64 {
        self.lock_identity().store_id
    }

    /// Notes how far it has come; durable when this returns. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// The disk's.
    pub(super) fn enter(&self, phase: Phase) -> Result<(), String> {
        let mut identity = self.lock_identity();
        if identity.phase == phase {
            return Ok(());
        }
        let next = Identity {
            phase,
            ..identity.clone()
        };
        data_dir::write_mode(self.layout.dir(), &Mode::Replicated(next.clone()))?;
        *identity = next;
        Ok(())
    }

    /// Opens both engines and the snapshots, and makes a fresh directory those of this store. Blocks for as
    /// long as recovery takes.
    ///
    /// # Errors
    ///
    /// One sentence.
    pub fn open(&self) -> Result<(), String> {
        let identity = self.identity();
        if identity.phase == Phase::Removed {
            return Err(Refusal::removed(identity.store_id).text().to_owned());
        }
        let (kv, raft) = (self.layout.kv(), self.layout.raft());
        if identity.phase == Phase::Serving {
            demand(&kv, identity.store_id)?;
            demand(&raft, identity.store_id)?;
        }
        let defaults = Options::default();
        let buffers = self
            .settings
            .write_buffer_bytes
            .saturating_mul(2 * FAMILIES.len());
        let kv_options = Options {
            block_cache_bytes: self.settings.cache_bytes,
            memtable_budget_bytes: defaults.memtable_budget_bytes.max(buffers),
            ..defaults
        };
        let raft_options = Engines::raft_options(Options {
            block_cache_bytes: RAFT_CACHE_BYTES,
            ..Options::default()
        });
        let open = |path: &Path, options: Options| {
            Db::open(path, options).map_err(|error| explain_open(&error))
        };
        let kv = open(&kv, kv_options)?;
        report_recovery("kv", kv.recovery());
        let raft = open(&raft, raft_options)?;
        report_recovery("raft", raft.recovery());
        let engines = Engines::with_write_buffer(kv, raft, self.settings.write_buffer_bytes)
            .map_err(|error| error.to_string())?;
        let ident = StoreIdent {
            cluster_id: identity.cluster_id,
            store_id: identity.store_id,
        };
        let known = store_ident(&engines).map_err(|error| error.to_string())?;
        if identity.phase == Phase::Serving && known != Some(ident) {
            return Err(format!(
                "{} is not the engine of store {} that MODE speaks of",
                self.layout.kv().display(),
                identity.store_id
            ));
        }
        let founding = (identity.phase == Phase::Forming).then(|| self.first_region());
        bootstrap(&engines, &ident, founding.as_ref()).map_err(|error| error.to_string())?;
        let snapshots = SnapshotStore::open(Arc::new(RealFs), self.layout.snap(), engines.clone())
            .map_err(|error| error.to_string())?;
        let snapshots = Arc::new(snapshots);
        // A store is opened once.
        let _ = self.links.snapshots.set(Arc::clone(&snapshots));
        self.wait_for("its store loop is about to start");
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        *open = Some(Open { engines, snapshots });
        Ok(())
    }

    /// What the founders begin with: all of them vote, each with the peer of its own id.
    fn first_region(&self) -> Membership {
        let founders = self.directory.all().into_iter().map(|store| Peer {
            id: store.store_id,
            store_id: store.store_id,
        });
        let region = Region {
            id: FIRST_REGION,
            region_epoch: Some(RegionEpoch {
                conf_ver: 1,
                version: 1,
            }),
            peers: founders.collect(),
            ..Region::default()
        };
        Membership {
            conf_state: states::all_vote(&region),
            region,
        }
    }

    /// Takes part in the cluster: a founder meets the others first, however long that takes.
    ///
    /// # Errors
    ///
    /// One sentence: another founder refuses it, or its own disk does.
    pub async fn take_part(self: &Arc<Self>) -> Result<(), String> {
        if self.identity().phase == Phase::Forming {
            self.meet_founders().await?;
            self.blocking(|cluster| cluster.enter(Phase::Serving))
                .await?;
        }
        self.wait_for("its store loop is about to start");
        self.blocking(Self::start).await?;
        self.wait_for("");
        self.watch();
        Ok(())
    }

    /// Runs `work`, which may block, off the async runtime.
    pub(super) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let cluster = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || work(&cluster)).await;
        done.unwrap_or_else(|_| Err("the store met a defect of this program".to_owned()))
    }

    fn start(&self) -> Result<(), String> {
        let Some(Open { engines, snapshots }) = self.opened() else {
            return Err("the store is stopped".to_owned());
        };
        let config = StoreConfig {
            freshly_formatted: self.is_fresh,
            seed: draw()?,
            ..StoreConfig::new(self.store_id())
        };
        let parts = Parts {
            config,
            engines,
            clock: Arc::new(BootClock),
            transport: Box::new(GrpcTransport::new(Arc::clone(&self.links))),
            snapshots,
            logger: Some(Arc::new(RaftLog)),
        };
        let started = Node::start_but_store_loop(parts);
        let (node, store_loop) = started.map_err(|error| error.to_string())?;
        Handle::current().spawn(run(store_loop));
        self.links.connect(node.handle());
        let mut slot = self.node.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = Some(node);
        drop(slot);
        if self.fence.get().is_some() || *self.stop.borrow() {
            self.stop_node();
        }
        Ok(())
    }

    /// What it has open, between its start and its stop.
    pub(crate) fn opened(&self) -> Option<Open> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.clone()
    }

    /// What it has open, or what a client is told instead.
    pub(crate) fn engines(&self) -> Result<Engines, Error> {
        let open = self.opened().ok_or(Error::Stopped)?;
        Ok(open.engines)
    }

    /// Says what it waits for; nothing, once it serves.
    pub(super) fn wait_for(&self, what: impl Into<String>) {
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        *waits = what.into();
    }

    /// What it waits for before it serves; empty once it does.
    #[must_use]
    pub fn waits(&self) -> String {
        let waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        waits.clone()
    }

    /// Why it serves nothing until it is restarted, if then.
    #[must_use]
    pub fn fenced(&self) -> Option<String> {
        if let Some(why) = self.fence.get() {
            return Some(why.clone());
        }
        let node = self.node.lock().unwrap_or_else(PoisonError::into_inner);
        let why = node.as_ref().and_then(Node::fenced);
        why.filter(|_| !*self.stop.borrow()).map(str::to_owned)
    }

    /// Stops its loops, for good: it answers everybody with `why`. Blocks until they have ended.
    pub(super) fn fence(&self, why: String) {
        tracing::error!(why, "the store is fenced");
        self.fence.get_or_init(|| why);
        self.links.cut();
        self.stop_node();
    }

    fn stop_node(&self) {
        let alone = self.stopping_node.lock();
        let _alone = alone.unwrap_or_else(PoisonError::into_inner);
        let mut slot = self.node.lock().unwrap_or_else(PoisonError::into_inner);
        let node = slot.take();
        // Requests look at the slot on the threads that its store loop needs to end.
        drop(slot);
        if let Some(node) = node {
            node.stop();
        }
    }

    /// What a request is answered that cannot be done as the store is.
    pub(crate) fn unable(&self) -> Option<Error> {
        if let Some(what) = self.fenced() {
            let code = StoreCode::Fenced;
            return Some(Error::Store { code, what });
        }
        if self.links.handle().is_none() {
            return Some(Error::Starting(self.waits()));
        }
        None
    }

    /// Hears when streams of other stores are to end.
    pub(super) fn stopping(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    pub(super) fn refusals(&self) -> Option<mpsc::UnboundedReceiver<Refusal>> {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.take()
    }

    /// Ends the streams of other stores: nothing they say is taken in any more.
    pub fn end_streams(&self) {
        self.stop.send_replace(true);
    }

    /// Stops everything and closes the engines. Blocks until it is done.
    ///
    /// # Errors
    ///
    /// A failure to write what was still in memory.
    pub fn shut_down(&self) -> Result<(), Error> {
        self.end_streams();
        self.stop_node();
        self.links.cut();
        let open = self
            .open
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(Open { engines, .. }) = open {
            engines.kv.clone().close()?;
            engines.raft.clone().close()?;
        }
        Ok(())
    }

    /// What its engines hold, and what it can do.
    #[must_use]
    pub(crate) fn storage_status(&self) -> Status {
        let Some(Open { engines, .. }) = self.opened() else {
            return Status::default();
        };
        let (kv, raft) = (engines.kv.stats(), engines.raft.stats());
        let read_only = kv.read_only.as_ref().or(raft.read_only.as_ref());
        let read_only = read_only.map(ToString::to_string);
        let (mut kv, mut raft) = (engine_status(kv), engine_status(raft));
        for engine in [&mut kv, &mut raft] {
            engine.column_families.retain_mut(|family| {
                let word = family_word(&family.name).map(str::to_owned);
                word.is_some_and(|word| {
                    family.name = word;
                    true
                })
            });
        }
        Status {
            read_only,
            fenced: self.fenced(),
            starting: Some(self.waits()).filter(|what| !what.is_empty()),
            kv,
            raft: Some(raft),
        }
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("identity", &self.identity())
            .finish_non_exhaustive()
    }
}

/// What users call the family of an engine of a store. Those named so by an engine stay empty in a store; users
/// mean theirs.
pub(crate) fn family_word(name: &str) -> Option<&str> {
    match name.strip_prefix("data-") {
        Some(word) => Some(word),
        None => (name != "default").then_some(name),
    }
}

/// Runs the store loop as a task: what requests and streams hand it, it finds without a change of threads, and so
/// do they what it answers.
async fn run(mut store_loop: StoreLoop) {
    let work = Arc::new(Notify::new());
    let wake = Arc::clone(&work);
    store_loop.on_work(move || wake.notify_one());
    let mut rest = pin!(sleep(Duration::ZERO));
    while let Some(idle) = store_loop.turn() {
        let due = Instant::now() + idle;
        // Those whom it has answered first; and more may come in meanwhile, for one turn.
        yield_now().await;
        if idle.is_zero() {
            continue;
        }
        if rest.is_elapsed() || due < rest.deadline() {
            rest.as_mut().reset(due);
        }
        tokio::select! {
            () = work.notified() => {}
            () = &mut rest => {}
        }
    }
}

/// An error where a store that may have voted has lost an engine: its promises were in there.
fn demand(engine: &Path, store_id: u64) -> Result<(), String> {
    if fs::exists(engine.join("CURRENT")).unwrap_or(true) {
        return Ok(());
    }
    Err(format!(
        "{} is gone, and with it what store {store_id} has promised, so it must not vote again; start it with an empty \
         directory and --join, then run: basalt member replace {store_id} NEW-ID",
        engine.display()
    ))
}

/// What Raft nodes say, in the server's log.
struct RaftLog;

impl basalt_raft::Logger for RaftLog {
    fn log(&self, level: Level, line: fmt::Arguments<'_>) {
        match level {
            // Who leads is told when it changes (`watch`); how that came about is for those who look closer.
            Level::Debug => tracing::trace!("{line}"),
            Level::Info => tracing::debug!("{line}"),
            Level::Warn => tracing::warn!("{line}"),
            _ => tracing::error!("{line}"),
        }
    }
}
