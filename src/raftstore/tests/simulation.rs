//! Whole stores, with their disks, in one thread under one clock, from one seed.
//!
//! Three to five stores with clients, on disks that lose what was not synced, over a network that loses,
//! doubles, delays and cuts; crashes, pauses, clocks that differ, failing disks, changes of members,
//! transfers. Each run ends with everybody kind: then all must come to have the same. What clients saw must
//! be linearizable. A failure prints the seed and the line that replays it.
//!
//! `BASALT_LONG=N` runs N times as many seeds.

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

use std::time::Instant;

use basalt_raftstore::faults::{Fault, Faults};
use basalt_testkit::{Replay, Seeds, long_factor};
use counts::Counts;
use invariants::Violation;
use plan::Plan;
use world::{SECOND, World};

/// Runs of the normal mode.
const RUNS: u64 = 20;

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

#[test]
fn whole_stores_keep_every_promise_whatever_happens() {
    let test = "whole_stores_keep_every_promise_whatever_happens";
    let began = Instant::now();
    let mut all = Counts::default();
    let seeds = Seeds::new(test, RUNS * long_factor());
    let is_replay = seeds.is_replay();
    for seed in seeds {
        let _replay = Replay::new("-p basalt-raftstore --test simulation", test, seed);
        match run(seed, Faults::default(), is_replay) {
            Ok((counts, _)) => all.add(&counts),
            Err(Violation { invariant, what }) => panic!("{invariant}: {what}"),
        }
    }
    println!("{all}in {:?}", began.elapsed());
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 1..3 {
        let one = run(seed, Faults::default(), false).expect("a sound run");
        let other = run(seed, Faults::default(), false).expect("a sound run");
        assert_eq!(one.1, other.1, "seed {seed}");
    }
}

#[test]
fn planted_faults_have_names() {
    let _ = Fault::AckBeforeSync;
}
