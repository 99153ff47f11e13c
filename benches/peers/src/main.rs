//! Basalt's Raft core and raft-rs at the same work in the same run.
//!
//! ```text
//! basalt-peers [--slices N] [--write FILE]     N slices a pass; all workloads on all engines, as a Markdown document
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
use bench::{Allocations, Bench, Cost, Workload, engine};
use raft::storage::MemStorage;
use raft_rs::RaftRs;
use report::{Figures, Row, Run};
use state_machine::Hashing;

const PAYLOADS: [usize; 2] = [64, 256];
const PER_ROUND: [u64; 4] = [1, 16, 256, 1024];

/// Seconds of a slice, about: most are over before a scheduler would let somebody else run.
const SLICE: f64 = 0.002;

/// How often all workloads are gone through; what disturbs the machine for a while hits one pass of a row.
const PASSES: usize = 5;

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
    let (mut slices, mut file) = (201, None);
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
            "prost, its slower codec"
        } else {
            "rust-protobuf, its default and faster codec"
        },
        passes: PASSES,
        slices,
    };
    let mut measured: Vec<Measured> = workloads().map(Measured::new).collect();
    for pass in 1..=PASSES {
        eprintln!("pass {pass} of {PASSES}");
        for measured in &mut measured {
            measured.measure(slices);
        }
    }
    let rows: Vec<Row> = measured.into_iter().map(Measured::row).collect();
    let document = report::document(&run, &rows);
    print!("{document}");
    if let Some(file) = file {
        std::fs::write(file, document).unwrap_or_else(|error| panic!("{file}: {error}"));
    }
    Some(())
}

fn workloads() -> impl Iterator<Item = Workload> {
    PAYLOADS
        .into_iter()
        .flat_map(|payload| PER_ROUND.map(|per_round| Workload { payload, per_round }))
}

/// A workload on all engines, as far as it is measured.
struct Measured {
    workload: Workload,
    names: Vec<&'static str>,
    allocations: Vec<Allocations>,
    /// Of each engine, slice by slice.
    costs: Vec<Vec<Cost>>,
}

impl Measured {
    /// Allocations are counted, time is not taken yet.
    fn new(workload: Workload) -> Self {
        let mut engines = engines(workload, Hashing::Whole);
        let rounds = COUNTED / workload.per_round;
        let allocations = engines.iter_mut().map(|engine| {
            // Whatever grows once has grown.
            engine.count(rounds);
            engine.count(rounds)
        });
        let allocations = allocations.collect();
        assert_same_state(&mut engines);
        Self {
            workload,
            names: engines.iter().map(|engine| engine.name()).collect(),
            allocations,
            costs: vec![Vec::new(); engines.len()],
        }
    }

    /// One pass: fresh clusters, `slices` slices of each engine in turn.
    fn measure(&mut self, slices: usize) {
        let mut engines = engines(self.workload, Hashing::Ends);
        let rounds = rounds_of_a_slice(&mut engines);
        let count = engines.len();
        for slice in 0..slices {
            for turn in 0..count {
                let place = (slice + turn) % count;
                self.costs[place].push(engines[place].slice(rounds));
            }
            assert_same_state(&mut engines);
        }
    }

    fn row(self) -> Row {
        let (ours, peers) = self.costs.split_last().expect("engines");
        let times = peers.iter().map(|peer| {
            let pairs = peer.iter().zip(ours);
            quartiles(pairs.map(|(peer, ours)| peer.wall / ours.wall).collect())
        });
        let engines = self.names.iter().zip(&self.costs).zip(&self.allocations);
        Row {
            workload: self.workload,
            times: times.collect(),
            engines: engines
                .map(|((name, costs), allocations)| Figures {
                    name,
                    wall: quartiles(costs.iter().map(|cost| cost.wall).collect())[1],
                    cpu: quartiles(costs.iter().map(|cost| cost.cpu).collect())[1],
                    allocations: *allocations,
                })
                .collect(),
        }
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
