//! Random schedules: a group of up to seven nodes in one thread and virtual time, on a network that
//! loses, repeats, delays and reorders, over disks that lose what is not synced; with membership
//! changes, snapshots, transfers, reads, pauses, crashes, and both ways to persist. After every event
//! the invariants of `simulation/invariants` are checked; at the end the world is kind, and the group
//! must come to rest.
//!
//! A run follows from its seed (`simulation/plan.rs` draws everything that is decided before it):
//! the same seed gives the same hash over all events.
//!
//! The harness proves itself: the faults of `Fault` are found by these invariants within the seeds
//! of a normal run, in the same schedules; `simulation/planted.rs` names the two that are not.
//!
//! - `BASALT_SEED=0x...` runs one seed; `BASALT_FAULT=Name` with a planted fault.
//! - `BASALT_EVENTS=n` prints the last n events of a failure.
//! - `BASALT_LONG=50` runs 100,000 seeds.

#[path = "simulation/chain.rs"]
mod chain;
#[path = "simulation/counts.rs"]
mod counts;
#[path = "simulation/disk.rs"]
mod disk;
#[path = "simulation/driver.rs"]
mod driver;
#[path = "simulation/invariants/mod.rs"]
mod invariants;
#[path = "simulation/kindness.rs"]
mod kindness;
#[path = "simulation/machine.rs"]
mod machine;
#[path = "simulation/mischief.rs"]
mod mischief;
#[path = "simulation/network.rs"]
mod network;
#[path = "simulation/node.rs"]
mod node;
#[path = "simulation/plan.rs"]
mod plan;
#[path = "simulation/planted.rs"]
mod planted;
#[path = "simulation/requests.rs"]
mod requests;
#[path = "simulation/run.rs"]
mod run;
#[path = "simulation/storage_threads.rs"]
mod storage_threads;
#[path = "simulation/trace.rs"]
mod trace;
#[path = "simulation/world.rs"]
mod world;

use std::time::Instant;

use basalt_raft::Fault;
use basalt_testkit::{Replay, Seeds, long_factor};

use planted::{FAULTS, NOT_FOUND, names_in_source};
use run::{run, run_all, story};

/// Seeds of a normal run.
const RUNS: u64 = 2_000;

/// What must have happened in a normal run, at least.
const MINIMUM: [(&str, u64); 16] = [
    ("elections", 20_000),
    ("commits", 400_000),
    ("snapshots_restored", 5_000),
    ("snapshots_failed", 400),
    ("compactions", 40_000),
    ("membership_changes", 10_000),
    ("joint_configurations", 4_000),
    ("members_reborn", 1_500),
    ("crashes", 50_000),
    ("restarts_with_loss", 4_000),
    ("transfers", 5_000),
    ("reads", 150_000),
    ("lease_reads", 40_000),
    ("async_appends_in_flight", 400_000),
    ("held_messages", 150_000),
    ("partitions", 20_000),
];

fn seeds(count: u64) -> Seeds {
    Seeds::new("raft_simulation", count)
}

/// The fault that `BASALT_FAULT` names, or none.
fn named_fault() -> Fault {
    let Ok(name) = std::env::var("BASALT_FAULT") else {
        return Fault::None;
    };
    let named = FAULTS
        .into_iter()
        .find(|fault| format!("{fault:?}") == name);
    named.unwrap_or_else(|| panic!("BASALT_FAULT is {name:?}, which is no fault"))
}

#[test]
fn random_schedules_keep_every_invariant() {
    let began = Instant::now();
    let fault = named_fault();
    let seeds = seeds(RUNS * long_factor());
    let is_replay = seeds.is_replay();
    let seeds: Vec<u64> = seeds.collect();
    let (counts, found) = run_all(&seeds, fault);
    println!("{counts}in {:?}", began.elapsed());
    if let Some((place, _)) = found {
        let seed = seeds[place];
        let _replay = Replay::new(
            "-p basalt-raft --test simulation",
            "random_schedules_keep_every_invariant",
            seed,
        );
        panic!("{}", story(seed, fault));
    }
    if is_replay {
        return;
    }
    for (name, least) in MINIMUM {
        let all = counts.all();
        let happened = all.iter().find(|(other, _)| *other == name);
        let (_, happened) = happened.expect("a count of this name");
        assert!(
            *happened >= least,
            "{name}: {happened}, at least {least} are wanted"
        );
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in seeds(30) {
        let first = run(seed, Fault::None, 0);
        let again = run(seed, Fault::None, 5);
        assert_eq!(first.hash, again.hash, "seed {seed:#x}");
        assert_eq!(first.counts, again.counts, "seed {seed:#x}");
    }
}

#[test]
fn planted_faults_are_found() {
    let all = FAULTS.iter().chain(&NOT_FOUND).chain(&[Fault::None]);
    let mut listed: Vec<String> = all.map(|fault| format!("{fault:?}")).collect();
    let mut declared = names_in_source();
    listed.sort_unstable();
    declared.sort_unstable();
    assert_eq!(listed, declared, "the lists of faults are not the enum");
    let seeds = seeds(RUNS);
    if seeds.is_replay() {
        return;
    }
    let seeds: Vec<u64> = seeds.collect();
    let mut missed = Vec::new();
    for fault in FAULTS {
        let began = Instant::now();
        let (_, found) = run_all(&seeds, fault);
        let took = began.elapsed();
        match found {
            Some((place, violation)) => println!(
                "{:<26} after {:>4} seeds, {took:>8.1?}: {}",
                format!("{fault:?}"),
                place + 1,
                violation.invariant
            ),
            None => missed.push(fault),
        }
    }
    assert!(
        missed.is_empty(),
        "not found within {RUNS} seeds: {missed:?}"
    );
}
