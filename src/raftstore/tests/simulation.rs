//! Whole stores, with their disks, in one thread under one clock, from one seed.
//!
//! Three to five stores with clients, on disks that lose what was not synced, over a network that loses,
//! doubles, delays and cuts; crashes, pauses, clocks that differ, failing disks, changes of members,
//! transfers. Each run ends with everybody kind: then all must come to have the same. What clients saw must
//! be linearizable. A failure prints the seed and the line that replays it.
//!
//! `BASALT_LONG=N` runs N times as many seeds; `BASALT_FAULT=NAME` plants only that fault.

#[path = "simulation/clients.rs"]
mod clients;
#[path = "simulation/counts.rs"]
mod counts;
#[path = "simulation/invariants.rs"]
mod invariants;
#[path = "simulation/mischief.rs"]
mod mischief;
#[path = "simulation/network.rs"]
mod network;
#[path = "simulation/node.rs"]
mod node;
#[path = "simulation/plan.rs"]
mod plan;
#[path = "simulation/world.rs"]
mod world;

use std::{
    num::NonZero,
    panic::resume_unwind,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Instant,
};

use basalt_raftstore::faults::{Fault, Faults};
use basalt_testkit::{Replay, Seeds, long_factor};
use counts::Counts;
use invariants::Violation;
use plan::Plan;
use world::{SECOND, World};

/// Runs of the normal mode: together more than ten simulated hours.
const RUNS: u64 = 640;

/// Runs within which each planted fault must be found.
const PATIENCE: u64 = RUNS;

/// One run; what happened, and the hash over it.
fn run(seed: u64, faults: Faults, verbose: bool) -> Result<(Counts, u64), Violation> {
    let plan = Plan::draw(seed, faults);
    let chaos = plan.chaos;
    if verbose {
        println!("{plan:#?}");
    }
    let mut world = World::new(seed, plan, verbose);
    world.run(chaos)?;
    world.be_kind();
    world.run(u64::MAX)?;
    world.check_history()?;
    world.counts.runs = 1;
    world.counts.simulated_seconds = chaos / SECOND;
    world.counts.terms = world.oracle.terms();
    Ok((world.counts, world.trace))
}

/// Runs seeds on as many threads as there are cores; stops at the first violation of each.
fn run_all(seeds: &[u64], faults: Faults) -> Result<Counts, (u64, Violation)> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut all = Counts::default();
        loop {
            let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) else {
                return Ok(all);
            };
            match run(*seed, faults, false) {
                Ok((counts, _)) => all.add(&counts),
                Err(violation) => {
                    next.store(seeds.len(), Ordering::Relaxed);
                    return Err((*seed, violation));
                }
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        let mut all = Counts::default();
        for worker in workers {
            all.add(&worker.join().unwrap_or_else(|panic| resume_unwind(panic))?);
        }
        Ok(all)
    })
}

/// Seeds under which longer runs have found something; what it was is over.
const FOUND: [u64; 3] = [
    // A member that had missed changes asked a peer that was removed before its first snapshot, which knew of no members
    // and told it that it was none; it went, and took the majority with it.
    0x525b_5410_0726_8d2b,
    // A late message for an older peer than one that had been here without a region was answered by making it, which
    // was refused, and taken again, without end.
    0x9e42_e3b9_c986_a4f1,
    // A voter that had slept through the removal of all its fellow members, and then its own, had nobody left to ask.
    0x60e6_7b0f_bc45_db36,
];

#[test]
fn whole_stores_keep_every_promise_whatever_happens() {
    let test = "whole_stores_keep_every_promise_whatever_happens";
    let began = Instant::now();
    let seeds = Seeds::new(test, RUNS * long_factor());
    if seeds.is_replay() {
        for seed in seeds {
            let outcome = run(seed, Faults::default(), true);
            outcome.unwrap_or_else(|Violation { invariant, what }| panic!("{invariant}: {what}"));
        }
        return;
    }
    let seeds: Vec<u64> = FOUND.into_iter().chain(seeds).collect();
    let all = run_all(&seeds, Faults::default()).unwrap_or_else(|(seed, violation)| {
        let _replay = Replay::new("-p basalt-raftstore --test simulation", test, seed);
        panic!("{}: {}", violation.invariant, violation.what)
    });
    println!("{all}in {:?}", began.elapsed());
    all.demand();
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 1..6 {
        let one = run(seed, Faults::default(), false).expect("a sound run");
        let other = run(seed, Faults::default(), false).expect("a sound run");
        assert_eq!(one.1, other.1, "seed {seed}");
    }
}

#[test]
fn planted_faults_are_found() {
    let seeds: Vec<u64> = Seeds::new("planted_faults_are_found", PATIENCE).collect();
    let mut missed = Vec::new();
    let only = std::env::var("BASALT_FAULT").ok();
    let is_named = |name: &String| FAULTS.iter().any(|fault| format!("{fault:?}") == *name);
    assert!(only.iter().all(is_named), "no such fault: {only:?}");
    for fault in FAULTS {
        let began = Instant::now();
        let name = format!("{fault:?}");
        if only.as_ref().is_some_and(|only| *only != name) {
            continue;
        }
        match run_all(&seeds, Faults::only(fault)) {
            Ok(_) => missed.push(fault),
            Err((seed, violation)) => {
                let place = seeds.iter().position(|one| *one == seed).unwrap_or(0) + 1;
                let what: String = violation.what.chars().take(100).collect();
                println!(
                    "{name:<22} after {place:>4} runs, {:>6.1?}, {seed:#x}: {}: {}",
                    began.elapsed(),
                    violation.invariant,
                    what.lines().next().unwrap_or_default()
                );
            }
        }
    }
    assert!(
        missed.is_empty(),
        "not found within {PATIENCE} runs: {missed:?}"
    );
}

/// What is planted, one at a time. `Fault::NoQuarantine` is not among them: these schedules do not find it
/// (a voter must restart within a lease and help another leader in while a client reads at the old one). The
/// Raft crate's schedules do, and its `tests/paper/leases.rs` claims it.
const FAULTS: [Fault; 15] = [
    Fault::AppliedApart,
    Fault::AckBeforeSync,
    Fault::GcPastFlushed,
    Fault::LeaseOverPause,
    Fault::LocalLeaseTooLong,
    Fault::LocalLeaseNotEnded,
    Fault::SnapshotInTwoSteps,
    Fault::NotLeaderForPending,
    Fault::ReadWithoutIndex,
    Fault::ReadBeforeApplied,
    Fault::AnswerBeforeCommit,
    Fault::MatchByIndexOnly,
    Fault::TermBeforeSync,
    Fault::SnapshotWithoutDelete,
    Fault::WipedStoreVotes,
];
