//! `Store`: the store loop. It owns the peers of all regions and does everything in turns.
//!
//! One turn: take what has come, count the ticks, step the nodes, put what all of them want persisted into
//! one batch for raftdb, synced, and send what may be sent before it is durable. The rest waits until it is, in
//! this turn, the next, or for a message of a later one (`persist`). What may leave when:
//!
//! - at once: whatever the node hands out to be sent, when its last new term and vote are durable; entries
//!   it sends need not be;
//! - behind the sync: votes, acknowledgements, and the node's own.
//!
//! Nothing here waits for a disk but syncs of raftdb while they are quick, and what is rare: a stalled raftdb, a
//! peer's removal, reads of entries that are not in the cache. Time comes from [`Clock`] and is read after the messages were
//! taken: a lease that was over before a request came must be seen to be over. Whatever fails fences the
//! store: it answers everybody, with the reason, and does nothing else.
//!
//! `peer` is one region's replica; `gather` says when a round begins, `propose` takes commands, `incoming` other stores'
//! messages, `ready` what nodes hand out, `persist` brings it into raftdb, `life` begins and ends peers, `gc` shortens
//! logs, `disks` sees whether disks answer, `status` and `figures` tell.

mod backoff;
mod disks;
mod figures;
mod gather;
mod gc;
mod incoming;
mod life;
mod peer;
mod persist;
mod propose;
mod ready;
mod status;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::Arc,
    time::Duration,
};

use basalt_engine::WriteBatch;
use basalt_raft::{Logger, StorageError, eraftpb::Snapshot};
use bytes::Bytes;

use self::{
    disks::Disks,
    gather::Gathering,
    peer::{Peer, Saved},
    persist::Writing,
};
use crate::{
    Applier, ApplyTask, Clock, CommandError, Engines, Error, Inbox, InboxLimits, Result,
    StoreConfig, StoreHandle, StoreMessage, Transport, WorkTask, Worker, Workers, faults::Fault,
    leases::Leases, metrics::StoreMetrics, snapshot::SnapshotStore,
};

pub use life::{FIRST_REGION, bootstrap, store_ident};
pub use propose::MAX_COMMAND_LEN;

pub(crate) use propose::{check_epoch, check_request, key_of};

use life::hand_over_to;

/// What a store is made of.
pub struct Parts {
    /// Its settings.
    pub config: StoreConfig,
    /// Its two databases.
    pub engines: Engines,
    /// Its time.
    pub clock: Arc<dyn Clock>,
    /// Its way to others.
    pub transport: Box<dyn Transport>,
    /// The files of snapshots.
    pub snapshots: Arc<SnapshotStore>,
    /// Who is told what the Raft nodes do.
    pub logger: Option<Arc<dyn Logger>>,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// What all loops of a store share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) engines: Engines,
    pub(crate) snapshots: Arc<SnapshotStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<StoreMetrics>,
    /// The store loop's.
    pub(crate) store: Arc<Inbox<StoreMessage>>,
}

/// How long a store that is fenced rests: it only answers.
const FENCED_IDLE: Duration = Duration::from_secs(1);

/// The store loop.
pub struct Store {
    config: StoreConfig,
    engines: Engines,
    clock: Arc<dyn Clock>,
    transport: Box<dyn Transport>,
    snapshots: Arc<SnapshotStore>,
    logger: Option<Arc<dyn Logger>>,
    inbox: Arc<Inbox<StoreMessage>>,
    apply: Arc<Inbox<ApplyTask>>,
    applier: Applier,
    /// Snapshots to be made.
    work: Arc<Inbox<WorkTask>>,
    /// Flushes to be done.
    flush: Arc<Inbox<WorkTask>>,
    metrics: Arc<StoreMetrics>,

    /// By region.
    peers: BTreeMap<u64, Peer>,
    /// Start key and region of each that has a range.
    ranges: BTreeMap<Bytes, u64>,
    /// What may be read without asking.
    leases: Arc<Leases>,

    /// When this turn's messages were taken, or later.
    now: Duration,
    /// Up to when ticks were counted.
    ticked: Duration,
    next_gc: Duration,
    flushing: bool,
    disks: Disks,
    gathering: Gathering,
    turn: u64,
    /// This turn's write.
    batch: WriteBatch,
    saved: Vec<Saved>,
    writing: VecDeque<Writing>,
    /// How long the last sync of raftdb took.
    last_sync: Duration,
    /// What this turn says must leave before anything more is made durable: it has synced, or removes a peer.
    says_first: bool,
    /// The write of the turn before, where it was left to this one.
    unsynced: Option<(u64, WriteBatch)>,
    /// The last turn whose write is durable, with all before it.
    persisted: u64,
    /// Snapshots that were installed, and the turn whose write ends their intent.
    ended: Vec<(u64, Snapshot)>,
    /// Names reads.
    last_context: u64,
    fenced: Option<String>,
    stopped: bool,
}

impl Store {
    /// Opens what the engines have, and the loops behind: who applies, and who work in the background.
    ///
    /// # Errors
    ///
    /// [`Error::Misuse`] for settings that make no sense, or engines that were never bootstrapped;
    /// [`Error::Corruption`] and [`Error::Engine`].
    pub fn open(parts: Parts) -> Result<(Self, Applier, Workers)> {
        let Parts {
            config,
            engines,
            clock,
            transport,
            snapshots,
            logger,
        } = parts;
        config.validate()?;
        let ident = store_ident(&engines)?;
        match ident {
            Some(ident) if ident.store_id == config.store_id => {}
            Some(ident) => {
                let what = format!("the directory is store {}'s", ident.store_id);
                return Err(Error::misuse(0, what));
            }
            None => return Err(Error::misuse(0, "the directory was not bootstrapped")),
        }
        let inbox = Arc::new(Inbox::new(InboxLimits {
            items: config.inbox_limit,
            bytes: config.inbox_bytes,
        }));
        let apply = Arc::new(Inbox::new(InboxLimits::NONE));
        let work = Arc::new(Inbox::new(InboxLimits::NONE));
        let flush = Arc::new(Inbox::new(InboxLimits::NONE));
        let mut metrics = StoreMetrics::new();
        metrics.watch("store", &inbox);
        metrics.watch("apply", &apply);
        metrics.watch("snapshot", &work);
        metrics.watch("flush", &flush);
        let shared = Shared {
            engines: engines.clone(),
            snapshots: Arc::clone(&snapshots),
            clock: Arc::clone(&clock),
            metrics: Arc::new(metrics),
            store: Arc::clone(&inbox),
        };
        let applier = Applier::new(&config, shared.clone(), Arc::clone(&apply));
        let workers = Workers {
            snapshots: Worker::new(shared.clone(), Arc::clone(&work)),
            flushes: Worker::new(shared.clone(), Arc::clone(&flush)),
        };
        let now = clock.now();
        let mut store = Self {
            next_gc: now + config.log_gc_interval,
            config,
            engines,
            clock,
            transport,
            snapshots,
            logger,
            inbox,
            apply,
            applier: applier.share(),
            work,
            flush,
            metrics: shared.metrics,
            peers: BTreeMap::new(),
            ranges: BTreeMap::new(),
            leases: Arc::default(),
            now,
            ticked: now,
            flushing: false,
            disks: Disks::default(),
            gathering: Gathering::default(),
            turn: 0,
            last_sync: Duration::ZERO,
            says_first: false,
            unsynced: None,
            batch: WriteBatch::new(),
            saved: Vec::new(),
            writing: VecDeque::new(),
            persisted: 0,
            ended: Vec::new(),
            last_context: 0,
            fenced: None,
            stopped: false,
        };
        store.load_peers()?;
        Ok((store, applier, workers))
    }

    /// Speaks to this store.
    #[must_use]
    pub fn handle(&self) -> StoreHandle {
        StoreHandle::new(
            Arc::clone(&self.inbox),
            Arc::clone(&self.clock),
            Arc::clone(&self.metrics),
            Arc::clone(&self.leases),
            self.engines.clone(),
        )
    }

    /// What wakes it.
    #[must_use]
    pub fn inbox(&self) -> Arc<Inbox<StoreMessage>> {
        Arc::clone(&self.inbox)
    }

    /// Why it has stopped serving, if it has.
    #[must_use]
    pub fn fenced(&self) -> Option<&str> {
        self.fenced.as_deref()
    }

    /// Whether it was told to stop, and has.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// When it wants its next turn, if nothing comes before.
    #[must_use]
    pub fn next_tick(&self) -> Duration {
        self.ticked + self.config.tick
    }

    /// Whether it wants a turn though nothing has come.
    #[must_use]
    pub fn wants_turn(&self) -> bool {
        self.fenced.is_none() && self.unsynced.is_some()
    }

    /// For how long it may rest if nothing comes before.
    #[must_use]
    pub fn idle(&self) -> Duration {
        if self.fenced.is_some() {
            // It counts no ticks any more. Whoever asks wakes it.
            return FENCED_IDLE;
        }
        if self.wants_turn() {
            return Duration::ZERO;
        }
        let now = self.clock.now();
        let tick = self.next_tick().saturating_sub(now);
        self.gathering.rest(now).map_or(tick, |rest| rest.min(tick))
    }

    /// One turn. Never blocks for long, never panics for what the world did.
    pub fn turn(&mut self) {
        self.says_first = false;
        let messages = self.inbox.take();
        self.now = self.clock.now();
        self.metrics.turn_messages.observe(messages.len() as u64);
        if self.fenced.is_some() {
            for message in messages {
                self.refuse(message);
            }
        } else if let Err(error) = self.work_through(messages) {
            self.fence(error.to_string());
        }
        if self.stopped {
            for message in self.inbox.close() {
                self.refuse(message);
            }
        }
    }

    fn work_through(&mut self, messages: VecDeque<StoreMessage>) -> Result<()> {
        if let Err(error) = self.count_ticks() {
            self.fence(error.to_string());
        }
        if self.fenced.is_none()
            && let Err(error) = self.sync_unsynced()
        {
            self.fence(error.to_string());
        }
        for message in messages {
            if self.fenced.is_some() {
                self.refuse(message);
            } else if let Err(error) = self.handle_message(message) {
                // At once: whoever is refused behind it is told why.
                self.fence(error.to_string());
            }
        }
        if self.fenced.is_some() {
            return Ok(());
        }
        // Behind the messages: where this process stood still, its disk has answered meanwhile.
        self.watch_raftdb();
        self.propose_gathered();
        loop {
            self.collect()?;
            let is_durable = self.submit()?;
            self.transport.flush();
            if self.config.apply_on_loop {
                // Behind what others wait for.
                self.applier.turn_at_once();
                self.apply.wake();
            }
            if !is_durable {
                return Ok(());
            }
        }
    }

    /// Stops serving, for good.
    fn fence(&mut self, why: String) {
        let level = match self.stopped {
            true => basalt_raft::Level::Info,
            false => basalt_raft::Level::Error,
        };
        self.log(level, format_args!("the store stops serving: {why}"));
        let error = CommandError::Fenced(why.clone());
        for peer in self.peers.values_mut() {
            self.leases.end(&mut peer.lease);
            peer.fail_all(&error);
            peer.fail_handed();
        }
        for proposal in self.gathering.waiting.drain(..) {
            proposal.callback.fail(error.clone());
        }
        self.fenced.get_or_insert(why);
        self.close_loops();
    }

    /// Ends the loops behind this one.
    fn close_loops(&self) {
        drop(self.apply.close());
        drop(self.work.close());
        drop(self.flush.close());
    }

    /// Tells whoever waits for `message` that the store has stopped.
    fn refuse(&mut self, message: StoreMessage) {
        let why = || CommandError::Fenced(self.fenced.clone().unwrap_or_default());
        match message {
            StoreMessage::Propose(proposal) => proposal.callback.fail(why()),
            StoreMessage::Read(read) => read.callback.fail(why()),
            StoreMessage::Status(callback) => callback.tell(Ok(self.status())),
            StoreMessage::Stop => self.stopped = true,
            _ => {}
        }
    }

    fn count_ticks(&mut self) -> Result<()> {
        let passed = self.now.saturating_sub(self.ticked).as_nanos() / self.config.tick.as_nanos();
        let ticks = u64::try_from(passed).unwrap_or(u64::MAX);
        if ticks == 0 {
            return Ok(());
        }
        let tick_nanos = u64::try_from(self.config.tick.as_nanos()).unwrap_or(u64::MAX);
        self.ticked += Duration::from_nanos(tick_nanos.saturating_mul(ticks));
        let counts_pause = !self.config.faults.is(Fault::LeaseOverPause);
        self.watch_kvdb();
        let (leaders_hold_still, all_do) = self.holds_still();
        for peer in self.peers.values_mut() {
            if all_do || (leaders_hold_still && peer.leads()) {
                peer.raw.pass_time(ticks);
                peer.expire(self.now);
                continue;
            }
            if ticks > 1 && counts_pause {
                peer.raw.pass_time(ticks - 1);
            }
            peer.raw.tick().map_err(raft_failed)?;
            peer.expire(self.now);
            peer.is_dirty = true;
        }
        self.ask_whether_removed();
        self.sample();
        if self.now >= self.next_gc {
            self.next_gc = self.now + self.config.log_gc_interval;
            self.watch_whether_kvdb_is_full();
            self.shorten_logs()?;
        }
        Ok(())
    }

    fn handle_message(&mut self, message: StoreMessage) -> Result<()> {
        match message {
            StoreMessage::Raft(message) => self.handle_raft_message(*message)?,
            StoreMessage::Propose(proposal) => self.gathering.waiting.push_back(proposal),
            StoreMessage::Read(read) => self.read(*read),
            StoreMessage::Status(callback) => callback.tell(Ok(self.status())),
            StoreMessage::Unreachable { region_id, peer_id } => {
                if let Some(peer) = self.peers.get_mut(&region_id) {
                    peer.raw.report_unreachable(peer_id).map_err(raft_failed)?;
                }
            }
            StoreMessage::SnapshotSent {
                region_id,
                peer_id,
                delivered,
            } => self.snapshot_sent(region_id, peer_id, delivered)?,
            StoreMessage::Room {
                region_id,
                peer_id,
                granted,
            } => self.room(region_id, peer_id, granted),
            StoreMessage::HandOver => drop(self.hand_over()),
            StoreMessage::Stop => {
                self.stopped = true;
                self.fence("it was told to stop".to_owned());
            }
            StoreMessage::Persisted { turn, result } => {
                let mut written = self.writing.iter().filter(|writing| writing.writes);
                if let Some(writing) = written.find(|writing| writing.turn <= turn) {
                    self.last_sync = self.now.saturating_sub(writing.since);
                }
                if result.is_err() {
                    self.give_way_at_last();
                }
                self.persisted(turn, result)?;
            }
            StoreMessage::Applied(applied) => {
                self.disks.has_applied = true;
                for entries in applied {
                    self.applied(entries)?;
                }
            }
            StoreMessage::Failed(why) => {
                self.give_way_at_last();
                self.fence(why);
            }
            StoreMessage::Generated { region_id, result } => self.generated(region_id, result),
            StoreMessage::Installed {
                region_id,
                peer_id,
                installed,
            } => {
                self.disks.has_applied = true;
                self.installed(region_id, peer_id, *installed)?;
            }
            StoreMessage::Flushed => self.flushing = false,
        }
        Ok(())
    }

    fn log(&self, level: basalt_raft::Level, line: fmt::Arguments<'_>) {
        if let Some(logger) = &self.logger {
            logger.log(level, line);
        }
    }
}

impl Drop for Store {
    /// Also where a panic has ended it: the loops behind would wait for ever.
    fn drop(&mut self) {
        for peer in self.peers.values_mut() {
            self.leases.end(&mut peer.lease);
        }
        self.close_loops();
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("store_id", &self.config.store_id)
            .field("regions", &self.peers.len())
            .field("turn", &self.turn)
            .field("fenced", &self.fenced)
            .finish_non_exhaustive()
    }
}

/// A node could not read its log, which is the store's failure; everything else that a node refuses is the
/// business of whoever said it.
fn raft_failed(error: basalt_raft::Error) -> Error {
    match error {
        basalt_raft::Error::Storage(StorageError::Other(error)) => {
            match error.downcast::<Error>() {
                Ok(error) => *error,
                Err(error) => Error::misuse(0, error.to_string()),
            }
        }
        error => Error::misuse(0, format!("raft: {error}")),
    }
}
