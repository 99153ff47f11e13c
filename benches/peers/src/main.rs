//! Basalt's Raft core and raft-rs at the same work in the same run.
//!
//! ```text
//! basalt-peers [--slices N] [--write FILE]     all workloads on all engines, as a Markdown document
//! basalt-peers only ENGINE PAYLOAD PER_ROUND SECONDS     one of them, for a profiler
//! ```
//!
//! README.md says how it is built. Not here: anything with a disk or a network.

mod allocations;
mod basalt;
mod bench;
mod cluster;
mod raft_rs;
mod report;
mod state_machine;

use std::{process::ExitCode, time::Instant};

use basalt::Basalt;
use bench::{Bench, Cost, Workload, engine};
use raft::storage::MemStorage;
use raft_rs::RaftRs;
use report::{Figures, Row, Run};
use state_machine::Hashing;

const PAYLOADS: [usize; 2] = [64, 256];
const PER_ROUND: [u64; 4] = [1, 16, 256, 1024];

/// Seconds of a slice, about.
const SLICE: f64 = 0.01;

/// Proposals of the pass that counts allocations.
const COUNTED: u64 = 32_768;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["only", name, payload, per_round, seconds] => only(name, payload, per_round, seconds),
        _ => compare(&words),
    };
    if done.is_none() {
        eprintln!("usage: basalt-peers [--slices N] [--write FILE]");
        eprintln!("       basalt-peers only ENGINE PAYLOAD PER_ROUND SECONDS");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Every engine at `workload`, ours last.
fn engines(workload: Workload, hashing: Hashing) -> Vec<Box<dyn Bench>> {
    vec![
        engine::<RaftRs<raft_rs::Log>>(workload, hashing),
        engine::<RaftRs<MemStorage>>(workload, hashing),
        engine::<Basalt>(workload, hashing),
    ]
}

fn compare(words: &[&str]) -> Option<()> {
    let (mut slices, mut file) = (101, None);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--slices" => slices = words.next()?.parse().ok().filter(|slices| *slices >= 5)?,
            "--write" => file = Some(*words.next()?),
            _ => return None,
        }
    }
    let run = Run {
        command: "cd benches/peers && cargo run --release -- --write ../../docs/benchmarks/raft.md"
            .to_owned(),
        codec: if cfg!(feature = "prost-codec") {
            "prost"
        } else {
            "rust-protobuf (its default, and the faster one)"
        },
        slices,
    };
    let mut rows = Vec::new();
    for payload in PAYLOADS {
        for per_round in PER_ROUND {
            let workload = Workload { payload, per_round };
            eprintln!("{payload} bytes, {per_round} a round");
            rows.push(row(workload, slices));
        }
    }
    let document = report::document(&run, &rows);
    print!("{document}");
    if let Some(file) = file {
        std::fs::write(file, document).unwrap_or_else(|error| panic!("{file}: {error}"));
    }
    Some(())
}

fn row(workload: Workload, slices: usize) -> Row {
    let mut counted = engines(workload, Hashing::Whole);
    let rounds = COUNTED / workload.per_round;
    let allocations: Vec<_> = counted
        .iter_mut()
        .map(|engine| {
            // Whatever grows once has grown.
            engine.count(rounds);
            engine.count(rounds)
        })
        .collect();
    assert_same_state(&mut counted);

    let mut engines = engines(workload, Hashing::Ends);
    let rounds = rounds_of_a_slice(&mut engines);
    let mut costs: Vec<Vec<Cost>> = vec![Vec::new(); engines.len()];
    for slice in 0..slices {
        let count = engines.len();
        for turn in 0..count {
            let place = (slice + turn) % count;
            costs[place].push(engines[place].slice(rounds));
        }
        assert_same_state(&mut engines);
    }

    let (ours, peers) = costs.split_last().expect("engines");
    let times = peers.iter().map(|peer| {
        let pairs = peer.iter().zip(ours);
        quartiles(pairs.map(|(peer, ours)| peer.wall / ours.wall).collect())
    });
    Row {
        workload,
        times: times.collect(),
        engines: (engines.iter().zip(&costs).zip(allocations))
            .map(|((engine, costs), allocations)| Figures {
                name: engine.name(),
                wall: quartiles(costs.iter().map(|cost| cost.wall).collect())[1],
                cpu: quartiles(costs.iter().map(|cost| cost.cpu).collect())[1],
                allocations,
            })
            .collect(),
    }
}

/// Rounds that take the slowest engine about [`SLICE`]; all engines have warmed up after it.
fn rounds_of_a_slice(engines: &mut [Box<dyn Bench>]) -> u64 {
    let mut rounds = 1;
    loop {
        let start = Instant::now();
        let mut slowest: f64 = 0.0;
        for engine in engines.iter_mut() {
            let start = Instant::now();
            engine.slice(rounds);
            slowest = slowest.max(start.elapsed().as_secs_f64());
        }
        if slowest >= SLICE && start.elapsed().as_secs_f64() > 2.0 * SLICE {
            return rounds;
        }
        rounds *= 2;
    }
}

/// All nodes of all engines have applied the same.
fn assert_same_state(engines: &mut [Box<dyn Bench>]) {
    let mut states = engines
        .iter_mut()
        .map(|engine| (engine.name(), engine.state()));
    let (first, expected) = states.next().expect("engines");
    for (name, state) in states {
        assert_eq!(state, expected, "applied by {name} and by {first}");
    }
}

/// First quartile, median, third quartile.
fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    let last = values.len() - 1;
    [1, 2, 3].map(|quarter| values[last * quarter / 4])
}

fn only(name: &str, payload: &str, per_round: &str, seconds: &str) -> Option<()> {
    let workload = Workload {
        payload: payload.parse().ok().filter(|payload| *payload >= 8)?,
        per_round: per_round.parse().ok()?,
    };
    let seconds: f64 = seconds.parse().ok()?;
    let mut engines = engines(workload, Hashing::Ends);
    let engine = engines.iter_mut().find(|engine| engine.name() == name)?;
    let start = Instant::now();
    let mut costs = Vec::new();
    while start.elapsed().as_secs_f64() < seconds {
        costs.push(engine.slice(1.max(4096 / workload.per_round)).wall);
    }
    let median = quartiles(costs)[1];
    let proposals = engine.state().proposals();
    println!(
        "{name}: {:.3} us a proposal, {proposals} proposals",
        median * 1e6
    );
    Some(())
}
