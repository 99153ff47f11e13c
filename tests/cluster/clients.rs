//! Clients under whose load stores are lost, and the history of what they saw.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use basalt_testkit::history::{History, Limits, Operation, Outcome, check};
use basaltkv::{
    proto::{
        errorpb,
        kvrpcpb::{RawDeleteRequest, RawGetRequest, RawPutRequest},
    },
    server::stubs::tinykvpb::tiny_kv_client::TinyKvClient,
};
use tonic::{Code, Request, Status, transport::Channel};

/// Clients at a time.
const CLIENTS: u64 = 6;
/// Keys that they share.
const KEYS: u64 = 5;
/// Time that an operation has.
const DEADLINE: Duration = Duration::from_secs(2);

/// What all clients share.
struct Shared {
    addrs: Vec<String>,
    began: Instant,
    history: Mutex<History>,
    /// When writes were acknowledged that had begun then.
    written: Mutex<Vec<(Instant, Instant)>>,
    over: AtomicBool,
}

impl Shared {
    fn record<T>(&self, event: impl FnOnce(&mut History, u64) -> T) -> T {
        let mut history = self.history.lock().unwrap();
        // Taken under the lock: the order of events is the order of their times.
        let now = u64::try_from(self.began.elapsed().as_nanos()).unwrap();
        event(&mut history, now)
    }
}

/// Clients at work.
pub(crate) struct Load {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl Load {
    /// Begins to put, delete and get a few keys, wherever they are served.
    pub(crate) fn begin(addrs: &[String]) -> Self {
        let shared = Arc::new(Shared {
            addrs: addrs.to_vec(),
            began: Instant::now(),
            history: Mutex::new(History::new()),
            written: Mutex::default(),
            over: AtomicBool::new(false),
        });
        let ours = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let clients: Vec<_> = (0..CLIENTS)
                    .map(|id| tokio::spawn(Client::new(id, Arc::clone(&ours)).run()))
                    .collect();
                for client in clients {
                    client.await.unwrap();
                }
            });
        });
        Self { shared, thread }
    }

    /// Time from `then` to the first acknowledged write that began after it; `None` while there is none.
    pub(crate) fn back_after(&self, then: Instant) -> Option<Duration> {
        let written = self.shared.written.lock().unwrap();
        let later = written.iter().filter(|(began, _)| *began >= then);
        later.map(|(_, ended)| ended.duration_since(then)).min()
    }

    /// Acknowledged writes that began after `then`.
    pub(crate) fn written_after(&self, then: Instant) -> usize {
        let written = self.shared.written.lock().unwrap();
        written.iter().filter(|(began, _)| *began >= then).count()
    }

    /// Ends the load, and demands that what was seen has an order that explains it.
    #[track_caller]
    pub(crate) fn end(self) {
        self.shared.over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        let history = self.shared.history.lock().unwrap();
        let tally = history.tally();
        println!("history of {} operations: {tally:?}", history.len());
        assert!(tally.written > 200 && tally.read > 100, "{tally:?}");
        check(&history, Limits::default()).assert_linearizable();
    }
}

struct Client {
    id: u64,
    shared: Arc<Shared>,
    /// Which store it asks.
    at: usize,
    channel: Option<TinyKvClient<Channel>>,
    state: u64,
    count: u64,
}

impl Client {
    fn new(id: u64, shared: Arc<Shared>) -> Self {
        Self {
            id,
            at: usize::try_from(id).unwrap() % shared.addrs.len(),
            shared,
            channel: None,
            state: id + 1,
            count: 0,
        }
    }

    /// xorshift64.
    fn draw(&mut self, below: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % below
    }

    async fn run(mut self) {
        while !self.shared.over.load(Ordering::Relaxed) {
            let Some(channel) = self.connected().await else {
                continue;
            };
            self.operate(channel).await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// A connection; where there is none it goes to the next store.
    async fn connected(&mut self) -> Option<TinyKvClient<Channel>> {
        if self.channel.is_none() {
            let addr = format!("http://{}", self.shared.addrs[self.at]);
            let connecting = TinyKvClient::connect(addr);
            match tokio::time::timeout(DEADLINE, connecting).await {
                Ok(Ok(channel)) => self.channel = Some(channel),
                _ => self.turn_away(None).await,
            }
        }
        self.channel.clone()
    }

    /// Goes to the store that is named, or else to the next one.
    async fn turn_away(&mut self, leader: Option<u64>) {
        let named = leader.and_then(|store| usize::try_from(store).ok()?.checked_sub(1));
        let next = (self.at + 1) % self.shared.addrs.len();
        self.at = named
            .filter(|at| *at < self.shared.addrs.len())
            .unwrap_or(next);
        self.channel = None;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    async fn operate(&mut self, mut channel: TinyKvClient<Channel>) {
        let key = format!("key-{}", self.draw(KEYS));
        self.count += 1;
        // Each put has a value of its own, so that it is clear which one a read saw.
        let value = format!("{}/{}", self.id, self.count);
        let kind = self.draw(10);
        let operation = match kind {
            0..5 => Operation::get(key.clone()),
            5..9 => Operation::put(key.clone(), value.clone()),
            _ => Operation::delete(key.clone()),
        };
        let is_write = operation.is_write();
        let began = Instant::now();
        let id = self
            .shared
            .record(|history, now| history.invoke(self.id, now, operation));
        let answer = match kind {
            0..5 => {
                let request = timed(RawGetRequest {
                    key: key.into(),
                    ..RawGetRequest::default()
                });
                let answer = channel.raw_get(request).await;
                answer.map(tonic::Response::into_inner).map(|answer| {
                    let value = (!answer.not_found).then(|| answer.value.to_vec());
                    (answer.region_error, answer.error, Outcome::Value(value))
                })
            }
            5..9 => {
                let request = timed(RawPutRequest {
                    key: key.into(),
                    value: value.into(),
                    ..RawPutRequest::default()
                });
                let answer = channel.raw_put(request).await;
                answer
                    .map(tonic::Response::into_inner)
                    .map(|answer| (answer.region_error, answer.error, Outcome::Written))
            }
            _ => {
                let request = timed(RawDeleteRequest {
                    key: key.into(),
                    ..RawDeleteRequest::default()
                });
                let answer = channel.raw_delete(request).await;
                answer
                    .map(tonic::Response::into_inner)
                    .map(|answer| (answer.region_error, answer.error, Outcome::Written))
            }
        };
        let (outcome, away) = outcome(answer);
        if is_write && outcome == Outcome::Written {
            let mut written = self.shared.written.lock().unwrap();
            written.push((began, Instant::now()));
        }
        self.shared
            .record(|history, now| history.complete(id, now, outcome));
        if let Some(leader) = away {
            self.turn_away(leader).await;
        }
    }
}

fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    request
}

type Answer = Result<(Option<errorpb::Error>, String, Outcome), Status>;

/// How an operation ended, and whether to go elsewhere, and to whom.
fn outcome(answer: Answer) -> (Outcome, Option<Option<u64>>) {
    match answer {
        Ok((None, error, outcome)) if error.is_empty() => (outcome, None),
        Ok((Some(error), ..)) if error.stale_command.is_some() => (Outcome::Unknown, Some(None)),
        Ok((Some(error), ..)) => {
            let leader = error.not_leader.and_then(|error| error.leader);
            (Outcome::Failed, Some(leader.map(|leader| leader.store_id)))
        }
        Ok((None, ..)) => (Outcome::Unknown, Some(None)),
        // Refused for want of room; everything else may have been done.
        Err(status) if status.code() == Code::ResourceExhausted => (Outcome::Failed, None),
        Err(_) => (Outcome::Unknown, Some(None)),
    }
}
