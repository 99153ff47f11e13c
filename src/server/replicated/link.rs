//! `Links`: the ways to the other stores, each a task with a queue and one gRPC stream.
//!
//! ```text
//! store loop --> GrpcTransport --> Queue --> task --> tinykvpb.TinyKv/Raft --> the other store
//!                      |                       |
//!                      |                 refused: `Refusal`; lost: `unreachable`
//!                      +--> `snapshot::send`, a stream and a connection for each
//! ```
//! Promises: nothing here blocks the store loop; a store that is down costs one attempt after a pause that grows
//! to [`PEER_BACKOFF`], and two lines of the log: when it is lost and when it is found again.
//!
//! Not here: what is in a message, who is let in (`incoming`).

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use basalt_proto::raft_serverpb::RaftMessage;
use basalt_raftstore::{StoreHandle, Transport, metrics::Durations, snapshot::SnapshotStore};
use tokio::{runtime::Handle, sync::mpsc, task::JoinSet};
use tonic::{
    Request, Status,
    transport::{Channel, Endpoint},
};

use super::{
    Card, Directory, Refusal, draw,
    queue::{Addressee, Outgoing, Queue},
    snapshot,
};
use crate::{
    limits::{
        CONNECTION_WINDOW_LEN, MAX_SNAPSHOTS_WAITING, PEER_BACKOFF, PEER_CONNECT_TIMEOUT,
        PEER_KEEPALIVE_INTERVAL, PEER_KEEPALIVE_TIMEOUT, STREAM_WINDOW_LEN,
    },
    stubs::tinykvpb::tiny_kv_client::TinyKvClient,
    tls::{Connector, Tls},
};

/// A link that stood for this long was a good one: the next attempt comes soon.
const GOOD: Duration = Duration::from_secs(5);

/// Counts of the traffic between stores.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Raft messages put on their way.
    pub sent: AtomicU64,
    /// Raft messages dropped for want of room, or of a store to send them to.
    pub dropped: AtomicU64,
    /// Raft messages taken in.
    pub received: AtomicU64,
    /// Snapshots sent whole.
    pub snapshots_sent: AtomicU64,
    /// Snapshots that could not be sent.
    pub snapshots_failed: AtomicU64,
    /// Snapshots received whole.
    pub snapshots_received: AtomicU64,
    /// Snapshots that were not taken in.
    pub snapshots_refused: AtomicU64,
    /// Snapshots that were taken in and did not come whole.
    pub snapshots_not_received: AtomicU64,
    /// Bytes of the files of those that were sent.
    pub snapshot_sent_bytes: AtomicU64,
    /// Bytes of the files of those that were received.
    pub snapshot_received_bytes: AtomicU64,
    /// How long each took that was sent.
    pub snapshot_sending: Durations,
    /// How long each took that was received.
    pub snapshot_receiving: Durations,
}

/// The ways to the other stores.
pub struct Links {
    cluster_id: u64,
    store_id: u64,
    incarnation: u64,
    /// Where the other stores are.
    pub directory: Arc<Directory>,
    /// How they are reached.
    pub(super) dialer: Dialer,
    /// What is counted.
    pub traffic: Traffic,
    runtime: Handle,
    /// The store loop; set once it runs.
    handle: OnceLock<StoreHandle>,
    pub(super) snapshots: OnceLock<Arc<SnapshotStore>>,
    pub(super) pace: snapshot::Pace,
    waiting_snapshots: AtomicUsize,
    /// Told when another store refuses this one.
    refused: mpsc::UnboundedSender<Refusal>,
    queues: Mutex<HashMap<u64, Arc<Queue>>>,
    /// `None` once the links were cut.
    tasks: Mutex<Option<JoinSet<()>>>,
}

impl Links {
    /// Links of a store that nobody has spoken to yet. Refusals by others go to `refused`.
    #[must_use]
    pub fn new(
        (cluster_id, store_id, incarnation): (u64, u64, u64),
        directory: Arc<Directory>,
        dialer: Dialer,
        runtime: Handle,
        refused: mpsc::UnboundedSender<Refusal>,
    ) -> Self {
        Self {
            cluster_id,
            store_id,
            incarnation,
            directory,
            dialer,
            traffic: Traffic::default(),
            runtime,
            handle: OnceLock::new(),
            snapshots: OnceLock::new(),
            pace: snapshot::Pace::default(),
            waiting_snapshots: AtomicUsize::new(0),
            refused,
            queues: Mutex::default(),
            tasks: Mutex::new(Some(JoinSet::new())),
        }
    }

    /// Connects them to the store loop that they serve.
    pub fn connect(&self, handle: StoreHandle) {
        // A store is started once.
        let _ = self.handle.set(handle);
    }

    /// The store loop, once it runs.
    #[must_use]
    pub fn handle(&self) -> Option<&StoreHandle> {
        self.handle.get()
    }

    /// Messages and bytes that wait for other stores.
    #[must_use]
    pub fn waiting(&self) -> (usize, usize) {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let sums = queues.values().map(|queue| queue.len());
        sums.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    /// Snapshots that are being sent, or wait for their turn.
    #[must_use]
    pub fn snapshots_waiting(&self) -> usize {
        self.waiting_snapshots.load(Ordering::Relaxed)
    }

    /// Tells that a store has been heard from: it is worth an attempt.
    pub fn nudge(&self, store_id: u64) {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queues.get(&store_id) {
            queue.nudge.notify_one();
        }
    }

    /// Ends every link.
    pub fn cut(&self) {
        drop(
            self.tasks
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> bool {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(tasks) = tasks.as_mut() else {
            return false;
        };
        // Those that have ended are let go here; nobody else looks.
        while tasks.try_join_next().is_some() {}
        tasks.spawn_on(task, &self.runtime);
        true
    }

    fn queue(self: &Arc<Self>, store_id: u64) -> Arc<Queue> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = queues.entry(store_id).or_insert_with(|| {
            let queue = Arc::new(Queue::default());
            self.spawn(run(Arc::clone(self), store_id, Arc::clone(&queue)));
            queue
        });
        Arc::clone(queue)
    }

    fn unreachable(&self, lost: impl IntoIterator<Item = Addressee>) {
        let Some(handle) = self.handle.get() else {
            return;
        };
        for (region_id, peer_id) in lost {
            handle.unreachable(region_id, peer_id);
        }
    }

    /// A request to another store that says who sends it.
    pub(super) fn sealed<T>(&self, target: u64, body: T) -> Request<T> {
        let card = Card {
            cluster_id: self.cluster_id,
            store_id: self.store_id,
            incarnation: self.incarnation,
            target,
        };
        let mut request = Request::new(body);
        card.write(request.metadata_mut());
        request
    }

    /// A new connection to another store.
    ///
    /// # Errors
    ///
    /// One sentence.
    pub(super) async fn dial(&self, store_id: u64) -> Result<Channel, String> {
        let Some(address) = self.directory.address(store_id) else {
            return Err(format!(
                "store {store_id} is not known here, or was removed"
            ));
        };
        self.dialer.dial(&address).await
    }

    /// Hears of a failure of another store to take a stream: whether it has refused this one.
    pub(super) fn note(&self, status: &Status) {
        if let Some(refusal) = Refusal::of_status(status) {
            // Whoever listens has ended only when everything has.
            let _ = self.refused.send(refusal);
        }
    }
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links")
            .field("store_id", &self.store_id)
            .finish_non_exhaustive()
    }
}

/// Makes connections to stores: in plain text, or over TLS with certificates on both ends.
#[derive(Clone, Debug, Default)]
pub struct Dialer(Option<Arc<Tls>>);

impl Dialer {
    /// Connections over TLS where there is some.
    #[must_use]
    pub fn new(tls: Option<Arc<Tls>>) -> Self {
        Self(tls)
    }

    /// A new connection to a store.
    ///
    /// # Errors
    ///
    /// One sentence with the address and the cause.
    pub(super) async fn dial(&self, address: &str) -> Result<Channel, String> {
        let scheme = if self.0.is_some() { "https" } else { "http" };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
            .map_err(|_| format!("{address:?} is not an address of the form HOST:PORT"))?;
        let endpoint = endpoint
            .connect_timeout(PEER_CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW_LEN)
            .initial_connection_window_size(CONNECTION_WINDOW_LEN)
            .http2_keep_alive_interval(PEER_KEEPALIVE_INTERVAL)
            .keep_alive_timeout(PEER_KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        let connecting = async {
            let Some(tls) = &self.0 else {
                return endpoint.connect().await;
            };
            // The certificates of this moment.
            let config = tls.to_peers();
            let connector = Connector::new(config, None);
            endpoint.connect_with_connector(connector).await
        };
        let connecting = tokio::time::timeout(PEER_CONNECT_TIMEOUT, connecting);
        let connected = connecting
            .await
            .map_err(|_| format!("{address} gives no answer"))?;
        connected.map_err(|error| format!("{address}: {}", root_cause(&error)))
    }
}

/// What lies at the bottom of an error: `Connection refused`, rather than `transport error`.
pub(crate) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// The life of one link.
async fn run(links: Arc<Links>, store_id: u64, queue: Arc<Queue>) {
    let mut pause = PEER_BACKOFF.0;
    let mut is_lost = false;
    loop {
        queue.filled().await;
        let began = Instant::now();
        let why = match links.dial(store_id).await {
            Ok(channel) => {
                if is_lost {
                    tracing::info!(store = store_id, "reached the store again");
                    is_lost = false;
                }
                speak(&links, store_id, channel, &queue).await
            }
            Err(why) => why,
        };
        if !is_lost {
            tracing::warn!(store = store_id, why, "lost the store; trying again");
            is_lost = true;
        }
        let lost = queue.clear();
        links.unreachable(lost);
        if began.elapsed() >= GOOD {
            pause = PEER_BACKOFF.0;
        }
        tokio::select! {
            () = tokio::time::sleep(jittered(pause)) => {}
            () = queue.nudge.notified() => {}
        }
        pause = (pause * 2).min(PEER_BACKOFF.1);
    }
}

/// Sends what the queue gives until the stream ends, which is a failure whatever the reason: it is given.
async fn speak(links: &Links, store_id: u64, channel: Channel, queue: &Arc<Queue>) -> String {
    let request = links.sealed(store_id, Outgoing(Arc::clone(queue)));
    let mut client = TinyKvClient::new(channel).max_encoding_message_size(usize::MAX);
    match client.raft(request).await {
        Ok(_) => "it has ended the stream".to_owned(),
        Err(status) => {
            links.note(&status);
            status.message().to_owned()
        }
    }
}

/// Between half of `pause` and one and a half: stores that were cut off together do not come back in step.
fn jittered(pause: Duration) -> Duration {
    // Where there is no randomness there is no jitter either.
    let drawn = draw().unwrap_or(u64::MAX / 2);
    let percent = u32::try_from(50 + drawn % 101).unwrap_or(100);
    pause * percent / 100
}

/// The store loop's end of the links.
#[derive(Debug)]
pub struct GrpcTransport {
    links: Arc<Links>,
    queues: HashMap<u64, Arc<Queue>>,
    /// To be flushed.
    touched: Vec<u64>,
}

impl GrpcTransport {
    /// An end of `links`.
    #[must_use]
    pub fn new(links: Arc<Links>) -> Self {
        Self {
            links,
            queues: HashMap::new(),
            touched: Vec::new(),
        }
    }
}

impl Transport for GrpcTransport {
    fn send(&mut self, message: RaftMessage) {
        let store_id = message.to_peer.map_or(0, |peer| peer.store_id);
        let links = &self.links;
        let queue = self
            .queues
            .entry(store_id)
            .or_insert_with(|| links.queue(store_id));
        match queue.offer(message) {
            Ok(()) => {
                links.traffic.sent.fetch_add(1, Ordering::Relaxed);
                if !self.touched.contains(&store_id) {
                    self.touched.push(store_id);
                }
            }
            Err(addressee) => {
                links.traffic.dropped.fetch_add(1, Ordering::Relaxed);
                links.unreachable(addressee);
            }
        }
    }

    fn ask_for_room(&mut self, message: RaftMessage) {
        let links = Arc::clone(&self.links);
        let asked = Asked {
            region_id: message.region_id,
            peer_id: message.to_peer.map_or(0, |peer| peer.id),
            links: Arc::clone(&links),
            is_granted: false,
        };
        // As for a snapshot: a task that is cut says no.
        let task = async move {
            let mut asked = asked;
            asked.is_granted = snapshot::ask_for_room(&asked.links, message).await;
        };
        links.spawn(task);
    }

    fn send_snapshot(&mut self, message: RaftMessage) {
        let links = Arc::clone(&self.links);
        let waiting = links.waiting_snapshots.fetch_add(1, Ordering::Relaxed);
        let region_id = message.region_id;
        let peer_id = message.to_peer.map_or(0, |peer| peer.id);
        let told = Told {
            links: Arc::clone(&links),
            region_id,
            peer_id,
            is_delivered: false,
        };
        if waiting >= MAX_SNAPSHOTS_WAITING {
            return drop(told);
        }
        // A task that is never run, or is cut, drops what it was to tell: that it was not delivered.
        let task = async move {
            let mut told = told;
            told.is_delivered = snapshot::send(&told.links, message).await;
        };
        links.spawn(task);
    }

    fn flush(&mut self) {
        for store_id in self.touched.drain(..) {
            if let Some(queue) = self.queues.get(&store_id) {
                queue.flush();
            }
        }
    }
}

/// Tells the store loop what another store has answered, or that it has not.
struct Asked {
    links: Arc<Links>,
    region_id: u64,
    peer_id: u64,
    is_granted: bool,
}

impl Drop for Asked {
    fn drop(&mut self) {
        if let Some(handle) = self.links.handle() {
            handle.room(self.region_id, self.peer_id, self.is_granted);
        }
    }
}

/// Tells the store loop what became of a snapshot, whatever that is.
struct Told {
    links: Arc<Links>,
    region_id: u64,
    peer_id: u64,
    is_delivered: bool,
}

impl Drop for Told {
    fn drop(&mut self) {
        let links = &self.links;
        links.waiting_snapshots.fetch_sub(1, Ordering::Relaxed);
        let count = if self.is_delivered {
            &links.traffic.snapshots_sent
        } else {
            &links.traffic.snapshots_failed
        };
        count.fetch_add(1, Ordering::Relaxed);
        if let Some(handle) = links.handle() {
            handle.snapshot_sent(self.region_id, self.peer_id, self.is_delivered);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_scattered_around_their_length() {
        let pause = Duration::from_secs(1);
        for _ in 0..100 {
            let one = jittered(pause);
            assert!(one >= pause / 2 && one <= pause * 3 / 2, "{one:?}");
        }
    }
}
