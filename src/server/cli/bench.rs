//! `basalt bench`: throughput and latency of a running server, as a client sees them.
//!
//! Each thread is a client with a connection of its own that sends one request after the other
//! (closed loop): latency is the time of one request, throughput what all of them get done.
//!
//! Not here: the engine without a network (`/benches`).

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use basalt_proto::{
    errorpb,
    kvrpcpb::{RawGetRequest, RawGetResponse, RawPutRequest, RawScanRequest},
};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::task::JoinSet;

use super::{
    Done, Failure, ServerAddr,
    client::{Server, Target, check_answer},
    leader::{Kind, Leader},
    print,
};
use crate::limits::MAX_VALUE_LEN;

/// Longest latency that is told apart, in nanoseconds.
const MAX_LATENCY_NANOS: u64 = 60_000_000_000;
/// Puts at a time and connection while keys are loaded.
const LOAD_DEPTH: u64 = 16;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Workload {
    /// Writes of random keys
    Put,
    /// Reads of random keys that exist
    Get,
    /// Scans from random keys
    Scan,
    /// Half reads, half writes
    Mixed,
}

#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    /// What is measured
    workload: Workload,
    #[command(flatten)]
    addr: ServerAddr,
    /// Column family
    #[arg(long, value_name = "NAME", default_value = "default")]
    cf: String,
    /// Clients, each with a connection of its own
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=1024))]
    threads: u64,
    /// Bytes of a value
    #[arg(long, value_name = "BYTES", default_value_t = 128, value_parser = clap::value_parser!(u64).range(0..=MAX_VALUE_LEN as u64))]
    value_size: u64,
    /// Seconds to measure
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86400))]
    duration: u64,
    /// Distinct keys; what get, scan and mixed miss of them is written first
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// Pairs of a scan
    #[arg(long, value_name = "N", default_value_t = 100)]
    scan_limit: u32,
    /// Begin of the random numbers
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &BenchArgs) -> Done {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| Failure::world(format!("cannot begin: {error}")))?;
    runtime.block_on(measure(args))
}

async fn measure(args: &BenchArgs) -> Done {
    let plan = Arc::new(Plan {
        workload: args.workload,
        cf: args.cf.clone(),
        keys: args.keys,
        scan_limit: args.scan_limit,
        value: random_bytes(args.value_size, args.seed),
    });
    let target = args.addr.get()?;
    let leader = leader(&plan, &target).await?;
    let mut servers = Vec::new();
    for _ in 0..args.threads {
        servers.push(Server::connect(&leader, &target.access).await?);
    }
    if args.workload != Workload::Put {
        load(&plan, &servers).await?;
    }

    let over = Arc::new(AtomicBool::new(false));
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for (seed, server) in (args.seed..).zip(servers) {
        clients.spawn(client(Arc::clone(&plan), server, seed, Arc::clone(&over)));
    }
    let seconds = Duration::from_secs(args.duration);
    let bar = bar(args.duration * 10, "measuring");
    while began.elapsed() < seconds {
        tokio::time::sleep(Duration::from_millis(100).min(seconds - began.elapsed().min(seconds)))
            .await;
        bar.set_position(u64::try_from(began.elapsed().as_millis() / 100).unwrap_or(u64::MAX));
    }
    over.store(true, Ordering::Relaxed);
    let mut figures = Figures::new();
    while let Some(one) = clients.join_next().await {
        figures.add(one.map_err(|error| Failure::world(format!("a client broke: {error}")))?);
    }
    let took = began.elapsed();
    bar.finish_and_clear();
    print(figures.show(args, took).as_bytes())?;
    match figures.first_error {
        Some(error) => Err(Failure::world(format!(
            "{} requests failed, the first: {error}",
            figures.errors
        ))),
        None => Ok(()),
    }
}

/// Where the clients go: of a cluster to the store that leads. One that loses leadership while it is measured
/// gives errors, which are counted.
async fn leader(plan: &Plan, target: &Target) -> Result<String, Failure> {
    let mut leader = Leader::find(target).await?;
    let send = |server: &Server| {
        let mut client = server.tinykv();
        let request = RawGetRequest {
            context: None,
            key: Bytes::from_static(LOADED),
            cf: plan.cf.clone(),
        };
        async move { client.raw_get(request).await }
    };
    let asked = leader.ask_soon(Kind::Repeatable, send, |answer: &mut RawGetResponse| {
        answer.region_error.take()
    });
    asked.await?;
    Ok(leader.server().addr().to_owned())
}

/// What every client does.
#[derive(Debug)]
struct Plan {
    workload: Workload,
    cf: String,
    keys: u64,
    scan_limit: u32,
    value: Bytes,
}

impl Plan {
    fn key(number: u64) -> Bytes {
        // Neighbours in number are far apart in order, so that loading is no append either.
        format!("bench/{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).into()
    }

    async fn put(&self, server: &Server, number: u64) -> Done {
        self.write(server, Self::key(number), self.value.clone())
            .await
    }

    /// True when the key is there.
    async fn get(&self, server: &Server, number: u64) -> Result<bool, Failure> {
        Ok(self.read(server, Self::key(number)).await?.is_some())
    }

    async fn write(&self, server: &Server, key: Bytes, value: Bytes) -> Done {
        let request = RawPutRequest {
            context: None,
            key,
            value,
            cf: self.cf.clone(),
        };
        let answer = server.ask(server.tinykv().raw_put(request)).await?;
        check(answer.region_error, &answer.error)
    }

    async fn read(&self, server: &Server, key: Bytes) -> Result<Option<Bytes>, Failure> {
        let request = RawGetRequest {
            context: None,
            key,
            cf: self.cf.clone(),
        };
        let answer = server.ask(server.tinykv().raw_get(request)).await?;
        check(answer.region_error, &answer.error)?;
        Ok((!answer.not_found).then_some(answer.value))
    }

    async fn scan(&self, server: &Server, number: u64) -> Done {
        let request = RawScanRequest {
            context: None,
            start_key: Self::key(number),
            limit: self.scan_limit,
            cf: self.cf.clone(),
        };
        let answer = server.ask(server.tinykv().raw_scan(request)).await?;
        check(answer.region_error, &answer.error)
    }
}

/// The error of an answer, if any.
fn check(region_error: Option<errorpb::Error>, error: &str) -> Done {
    match region_error {
        Some(error) => Err(Failure::world(error.message)),
        None => check_answer(error),
    }
}

/// Key of the number of keys that were loaded.
const LOADED: &[u8] = b"bench/loaded";

/// Writes the keys that reads expect, unless a bench before this one has.
async fn load(plan: &Arc<Plan>, servers: &[Server]) -> Done {
    let first = servers.first().expect("clap takes one thread at least");
    let loaded = plan.read(first, Bytes::from_static(LOADED)).await?;
    let loaded = loaded.and_then(|count| std::str::from_utf8(&count).ok()?.parse().ok());
    if loaded.is_some_and(|count: u64| count >= plan.keys) {
        return Ok(());
    }
    let bar = bar(plan.keys, "loading");
    let next = Arc::new(AtomicU64::new(0));
    let mut writers = JoinSet::new();
    for server in servers {
        for _ in 0..LOAD_DEPTH {
            let (plan, server) = (Arc::clone(plan), server.clone());
            let (next, bar) = (Arc::clone(&next), bar.clone());
            writers.spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= plan.keys {
                        return Ok(());
                    }
                    plan.put(&server, number).await?;
                    bar.inc(1);
                }
            });
        }
    }
    while let Some(one) = writers.join_next().await {
        one.map_err(|error| Failure::world(format!("a client broke: {error}")))??;
    }
    bar.finish_and_clear();
    plan.write(
        first,
        Bytes::from_static(LOADED),
        plan.keys.to_string().into(),
    )
    .await
}

/// A bar on a terminal, nothing in a pipe.
fn bar(len: u64, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {bar:40} {percent}%");
    ProgressBar::new(len)
        .with_style(style.expect("the template is well-formed"))
        .with_message(what)
}

async fn client(plan: Arc<Plan>, server: Server, seed: u64, over: Arc<AtomicBool>) -> Figures {
    let mut random = Random::new(seed);
    let mut figures = Figures::new();
    while !over.load(Ordering::Relaxed) {
        let number = random.below(plan.keys);
        let is_put = match plan.workload {
            Workload::Put => true,
            Workload::Get | Workload::Scan => false,
            Workload::Mixed => random.below(2) == 0,
        };
        let began = Instant::now();
        let done = match (plan.workload, is_put) {
            (_, true) => plan.put(&server, number).await,
            (Workload::Scan, _) => plan.scan(&server, number).await,
            _ => plan.get(&server, number).await.and_then(|found| {
                found
                    .then_some(())
                    .ok_or_else(|| Failure::world("a loaded key is missing"))
            }),
        };
        match done {
            Ok(()) if is_put => record(&mut figures.puts, began.elapsed()),
            Ok(()) => record(&mut figures.reads, began.elapsed()),
            Err(failure) => {
                figures.errors += 1;
                figures.first_error.get_or_insert(failure.text);
                // A server that refuses is not asked in a tight loop.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
    figures
}

fn record(histogram: &mut Histogram<u64>, took: Duration) {
    histogram.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(MAX_LATENCY_NANOS));
}

/// Latencies in nanoseconds, and what failed.
struct Figures {
    puts: Histogram<u64>,
    reads: Histogram<u64>,
    errors: u64,
    first_error: Option<String>,
}

impl Figures {
    fn new() -> Self {
        let histogram =
            Histogram::new_with_bounds(1, MAX_LATENCY_NANOS, 3).expect("the bounds are in order");
        Self {
            puts: histogram.clone(),
            reads: histogram,
            errors: 0,
            first_error: None,
        }
    }

    fn add(&mut self, other: Self) {
        let same = "all histograms have the same bounds";
        self.puts.add(other.puts).expect(same);
        self.reads.add(other.reads).expect(same);
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
    }

    fn show(&self, args: &BenchArgs, took: Duration) -> String {
        let reads = if args.workload == Workload::Scan {
            "scan"
        } else {
            "get"
        };
        let rows = [("put", &self.puts), (reads, &self.reads)];
        let rows = rows
            .into_iter()
            .filter(|(_, histogram)| !histogram.is_empty());
        let micros = |nanos: u64| (nanos + 500) / 1000;
        let seconds = took.as_secs_f64();
        #[expect(
            clippy::cast_precision_loss,
            reason = "counts of a bench are far below 2^53"
        )]
        let rate = |count: u64| (count as f64 / seconds).round();
        let mut text = String::new();
        if !args.json {
            let names = [
                "op", "count", "ops/s", "p50 us", "p99 us", "p99.9 us", "max us",
            ];
            put_row(&mut text, &names.map(str::to_owned));
        }
        for (name, histogram) in rows {
            let at = |quantile: f64| micros(histogram.value_at_quantile(quantile));
            let (p50, p99, p999) = (at(0.5), at(0.99), at(0.999));
            let (count, max) = (histogram.len(), micros(histogram.max()));
            if args.json {
                let row = json!({
                    "op": name, "count": count, "ops_per_second": rate(count), "p50_us": p50,
                    "p99_us": p99, "p999_us": p999, "max_us": max, "errors": self.errors,
                    "threads": args.threads, "value_bytes": args.value_size, "seconds": seconds,
                });
                let _ = writeln!(text, "{row}");
            } else {
                let numbers = [count.to_string(), rate(count).to_string()];
                let latencies = [p50, p99, p999, max].map(|one| one.to_string());
                let cells = [name.to_owned()]
                    .into_iter()
                    .chain(numbers)
                    .chain(latencies);
                put_row(&mut text, &cells.collect::<Vec<_>>());
            }
        }
        text
    }
}

fn put_row(text: &mut String, cells: &[String]) {
    for (index, cell) in cells.iter().enumerate() {
        let _ = if index == 0 {
            write!(text, "{cell:<5}")
        } else {
            write!(text, " {cell:>10}")
        };
    }
    text.push('\n');
}

/// Small and fast random numbers (xorshift64*); nothing here is a secret.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Bytes that do not compress.
fn random_bytes(len: u64, seed: u64) -> Bytes {
    let mut random = Random::new(seed);
    (0..len).map(|_| random.next().to_be_bytes()[0]).collect()
}
