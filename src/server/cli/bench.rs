//! `basalt bench`: throughput and latency of a running server, as a client sees them.
//!
//! Each thread is a client with a connection of its own that sends one request after the other
//! (closed loop): latency is the time of one request, throughput what all of them get done.
//! With `--check` it also says whether what was read is what was written (`work`).
//!
//! Not here: the engine without a network (`/benches`).

mod report;
mod work;

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use basalt_client::Client;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinSet;

use super::{Done, Failure, ServerAddr, client::Target, output::OutputArgs};
use crate::limits::MAX_VALUE_LEN;
use report::{Figures, Second, lock};
use work::Plan;

/// Puts at a time and connection while keys are loaded.
const LOAD_DEPTH: u64 = 16;
/// Keys that can be checked: each takes memory here.
const MAX_CHECKED: u64 = 10_000_000;
/// Between two looks at the figures.
const LOOK: Duration = Duration::from_millis(100);

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
    /// Nineteen reads for each write
    Read,
}

impl Workload {
    /// Writes of twenty requests.
    fn writes(self) -> u64 {
        match self {
            Self::Put => 20,
            Self::Get | Self::Scan => 0,
            Self::Mixed => 10,
            Self::Read => 1,
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  basalt bench mixed --duration 10
  basalt bench put --threads 64 --value-size 1024
  basalt bench mixed --check                 whether what is read is what was written
  basalt bench get --svg get.svg --histogram get.hgrm")]
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
    /// Distinct keys; what get, scan, mixed and read miss of them is written first
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// Pairs of a scan
    #[arg(long, value_name = "N", default_value_t = 100)]
    scan_limit: u32,
    /// Begin of the random numbers
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Check each value that is read: that it is whole, and neither older than what was acknowledged before nor one that
    /// nobody wrote. All keys are written first; nobody else may write them
    #[arg(long)]
    check: bool,
    /// Write the latencies into a file, by percentile
    #[arg(long, value_name = "FILE")]
    histogram: Option<PathBuf>,
    /// Draw throughput and latency over time into a file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) fn run(args: &BenchArgs) -> Done {
    if args.check && (args.value_size < work::HEAD_LEN as u64 || args.keys > MAX_CHECKED) {
        return Err(Failure::usage(format!(
            "--check needs values of at least {} bytes and at most {MAX_CHECKED} keys",
            work::HEAD_LEN
        )));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| Failure::world(format!("cannot begin: {error}")))?;
    runtime.block_on(measure(args))
}

async fn measure(args: &BenchArgs) -> Done {
    let plan = Arc::new(Plan::new(args));
    let clients = connect(&plan, &args.addr.get()?, args.threads).await?;
    if args.workload != Workload::Put || args.check {
        load(&plan, &clients).await?;
    }

    let over = Arc::new(AtomicBool::new(false));
    let began = Instant::now();
    let mut running = JoinSet::new();
    let mut shared = Vec::new();
    for (number, client) in (0..).zip(clients) {
        let figures = Arc::new(Mutex::new(Figures::new()));
        shared.push(Arc::clone(&figures));
        let (plan, over) = (Arc::clone(&plan), Arc::clone(&over));
        running.spawn(async move {
            plan.work(&client, number, &over, &figures).await;
        });
    }
    let seconds = watch(args, began, &shared).await;
    over.store(true, Ordering::Relaxed);
    while let Some(one) = running.join_next().await {
        one.map_err(|error| Failure::world(format!("a client broke: {error}")))?;
    }
    let took = began.elapsed();
    let mut figures = Figures::new();
    for one in &shared {
        figures.add(&lock(one));
    }
    report::print(&figures, args, took)?;
    let write = |path: &Option<PathBuf>, text: &dyn Fn() -> String| match path {
        None => Ok(()),
        Some(path) => fs::write(path, text())
            .map_err(|error| Failure::world(format!("cannot write {}: {error}", path.display()))),
    };
    write(&args.histogram, &|| report::histogram(&figures))?;
    write(&args.svg, &|| report::svg(&seconds, args, &figures))?;
    if let Some(wrong) = figures.first_wrong {
        return Err(Failure::world(format!(
            "{} values are not what was written, the first: {wrong}",
            figures.wrong
        )));
    }
    match figures.first_error {
        Some(error) => Err(Failure::world(format!(
            "{} requests failed, the first: {error}",
            figures.errors
        ))),
        None => Ok(()),
    }
}

/// Shows how it goes until the time is over; what each second was like.
async fn watch(args: &BenchArgs, began: Instant, shared: &[Arc<Mutex<Figures>>]) -> Vec<Second> {
    let whole = Duration::from_secs(args.duration);
    let bar = bar(args.duration * 10, "{msg} {bar:20} {percent}%");
    let mut seconds = Vec::new();
    let mut before = Figures::new();
    let mut second_began = began;
    while began.elapsed() < whole {
        tokio::time::sleep(LOOK.min(whole.saturating_sub(began.elapsed()))).await;
        bar.set_position(u64::try_from(began.elapsed().as_millis() / 100).unwrap_or(u64::MAX));
        let is_over = began.elapsed() >= whole;
        if second_began.elapsed() >= Duration::from_secs(1) || is_over {
            let mut now = Figures::new();
            for one in shared {
                now.add(&lock(one));
            }
            let second = Second::between(&before, &now, second_began.elapsed());
            bar.set_message(second.to_string());
            seconds.push(second);
            before = now;
            second_began = Instant::now();
        }
    }
    bar.finish_and_clear();
    seconds
}

/// Clients of their own connections; of a cluster to the store that leads.
async fn connect(plan: &Plan, target: &Target, count: u64) -> Result<Vec<Client>, Failure> {
    let first = target.client()?.family(&plan.cf);
    // Whoever answers this leads.
    first.get(work::LOADED).await?;
    let leader = Target {
        addrs: vec![first.node().await?.addr().to_owned()],
        access: target.access.clone(),
    };
    let mut clients = Vec::new();
    for _ in 0..count {
        let client = leader.client()?.family(&plan.cf);
        client.node().await?;
        clients.push(client);
    }
    Ok(clients)
}

/// Writes the keys that reads expect, unless a bench before this one has.
async fn load(plan: &Arc<Plan>, clients: &[Client]) -> Done {
    let first = clients.first().expect("clap takes one thread at least");
    let loaded = first.get(work::LOADED).await?;
    let loaded = loaded.and_then(|count| std::str::from_utf8(&count).ok()?.parse().ok());
    if !plan.is_checked() && loaded.is_some_and(|count: u64| count >= plan.keys) {
        return Ok(());
    }
    let bar = bar(plan.keys, "loading {bar:40} {percent}%");
    let next = Arc::new(AtomicU64::new(0));
    let mut writers = JoinSet::new();
    for client in clients {
        for _ in 0..LOAD_DEPTH {
            let (plan, client) = (Arc::clone(plan), client.clone());
            let (next, bar) = (Arc::clone(&next), bar.clone());
            writers.spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= plan.keys {
                        return Ok(());
                    }
                    plan.put(&client, number).await?;
                    bar.inc(1);
                }
            });
        }
    }
    while let Some(one) = writers.join_next().await {
        one.map_err(|error| Failure::world(format!("a client broke: {error}")))?
            .map_err(|error: basalt_client::Error| Failure::from(error))?;
    }
    bar.finish_and_clear();
    Ok(first.put(work::LOADED, plan.keys.to_string()).await?)
}

/// A bar on a terminal, nothing in a pipe.
fn bar(len: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template);
    ProgressBar::new(len).with_style(style.expect("the template is well-formed"))
}
