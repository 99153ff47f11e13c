//! Clients: many tasks of one thread that ask one server, each the next thing as soon as it has its answer.
//!
//! Promises: a slice counts only what was answered between two looks at the clock, and the CPU between the same two. Not here: what the
//! figures of many slices come to (`report`).

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{task::LocalSet, time::sleep};

use crate::{
    servers::{Servers, cpu_of},
    wire::{Client, KEY, Op, VALUE},
};

/// Keys that are written and read.
pub const KEYS: u64 = 10_000;
/// Clients of a connection.
pub const PER_CONNECTION: usize = 32;
/// Time that a slice runs before it counts.
const WARM_UP: Duration = Duration::from_millis(300);

/// What one slice has shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slice {
    pub requests: u64,
    /// Asked of them and not done.
    pub failures: u64,
    pub seconds: f64,
    /// Seconds of CPU of the three servers.
    pub server_cpu: f64,
    /// Seconds of CPU of this process.
    pub client_cpu: f64,
    /// Seconds: median and 99 of 100.
    pub median: f64,
    pub high: f64,
    /// Syncs of the leader, and of the others together, where they are counted.
    pub syncs: (u64, u64),
}

impl Slice {
    pub fn rate(&self) -> f64 {
        self.requests as f64 / self.seconds
    }
}

#[derive(Default)]
struct Shared {
    ended: Cell<bool>,
    requests: Cell<u64>,
    failures: Cell<u64>,
    latencies: RefCell<Vec<f64>>,
    complaint: RefCell<Option<String>>,
}

/// `clients` ask for `op` for `seconds`.
pub async fn slice(
    servers: &mut Servers,
    op: Op,
    clients: usize,
    seconds: f64,
    count_syncs: bool,
) -> Slice {
    let (leader, channels) = servers.leader(clients.div_ceil(PER_CONNECTION)).await;
    let shared = Rc::new(Shared::default());
    let tasks = LocalSet::new();
    for number in 0..clients {
        let channel = channels[number % channels.len()].clone();
        let client = Client::new(servers.kind, channel);
        tasks.spawn_local(ask_on(client, op, number as u64, Rc::clone(&shared)));
    }
    let watched = tasks.run_until(watch(servers, &shared, seconds, count_syncs, leader));
    let mut slice = watched.await;
    shared.ended.set(true);
    tasks.await;
    if let Some(complaint) = shared.complaint.take() {
        let (name, op) = (servers.kind.name(), op.name());
        eprintln!("{name}, {op}, {clients} clients: {complaint}");
    }
    let mut latencies = shared.latencies.take();
    latencies.sort_by(f64::total_cmp);
    if let Some(last) = latencies.len().checked_sub(1) {
        slice.median = latencies[last / 2];
        slice.high = latencies[last * 99 / 100];
    }
    slice
}

async fn watch(
    servers: &Servers,
    shared: &Shared,
    seconds: f64,
    count_syncs: bool,
    leader: usize,
) -> Slice {
    let syncs = || {
        if count_syncs {
            servers.syncs()
        } else {
            vec![0; 3]
        }
    };
    sleep(WARM_UP).await;
    let own = std::process::id();
    let before = (servers.cpu(), cpu_of(own), syncs());
    let (done, failed) = (shared.requests.get(), shared.failures.get());
    shared.latencies.borrow_mut().clear();
    let start = Instant::now();
    sleep(Duration::from_secs_f64(seconds)).await;
    let elapsed = start.elapsed().as_secs_f64();
    let requests = shared.requests.get() - done;
    let begun: Vec<u64> = syncs();
    let begun: Vec<u64> = begun.iter().zip(&before.2).map(|(a, b)| a - b).collect();
    Slice {
        requests,
        failures: shared.failures.get() - failed,
        seconds: elapsed,
        server_cpu: servers.cpu() - before.0,
        client_cpu: cpu_of(own) - before.1,
        syncs: (begun[leader], begun.iter().sum::<u64>() - begun[leader]),
        ..Slice::default()
    }
}

async fn ask_on(mut client: Client, op: Op, number: u64, shared: Rc<Shared>) {
    // Any odd number starts the sequence; clients differ.
    let mut random = (number * 2 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    while !shared.ended.get() {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let start = Instant::now();
        let outcome = client.ask(op, key(random % KEYS), value(op, random)).await;
        let latency = start.elapsed().as_secs_f64();
        if shared.ended.get() {
            return;
        }
        match outcome {
            Ok(()) => {
                shared.requests.set(shared.requests.get() + 1);
                shared.latencies.borrow_mut().push(latency);
            }
            Err(complaint) => {
                shared.failures.set(shared.failures.get() + 1);
                *shared.complaint.borrow_mut() = Some(complaint);
                sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

fn key(number: u64) -> Bytes {
    let text = format!("{number:0KEY$}");
    Bytes::from(text)
}

/// Bytes that do not compress, other ones for each number.
fn value(op: Op, mut seed: u64) -> Bytes {
    if op != Op::Put {
        return Bytes::new();
    }
    let mut value = Vec::with_capacity(VALUE);
    while value.len() < VALUE {
        seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        value.extend_from_slice(&(seed ^ seed >> 29).to_le_bytes());
    }
    Bytes::from(value)
}

/// Writes every key once.
pub async fn fill(servers: &mut Servers) {
    let (_, channels) = servers.leader(1).await;
    let next = Rc::new(Cell::new(0));
    let tasks = LocalSet::new();
    for _ in 0..64 {
        let mut client = Client::new(servers.kind, channels[0].clone());
        let next = Rc::clone(&next);
        tasks.spawn_local(async move {
            while next.get() < KEYS {
                let number = next.get();
                next.set(number + 1);
                let asked = client.ask(Op::Put, key(number), value(Op::Put, number + 1));
                let outcome = asked.await;
                outcome.unwrap_or_else(|error| panic!("filling: {error}"));
            }
        });
    }
    tasks.await;
}
