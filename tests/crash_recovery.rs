//! Crash recovery: a simulated disk is cut at every boundary between two changes, and what is left must open to
//! what was promised (README, what survives what).
//!
//! Each workload (`crash_recovery/workloads.rs`) runs once on a simulated disk. Before every write, sync,
//! rename, create, grow, link, removal and directory sync, images are taken as a crash there could leave them: all
//! unsynced data lost, all kept, the process dead and the system alive, and random torn subsets of sectors, lengths
//! and directory entries. Each image not met before (by the hash of the disk) is opened and checked:
//! - it opens, and `verify` finds nothing;
//! - the logged families are together one prefix of the write order, which holds every write that was
//!   acknowledged as durable by then, and after the death of the process every acknowledged write; the
//!   unlogged ones are one prefix that holds everything up to the last flush; the families are a state of the
//!   order of the manifest;
//! - writing goes on, what was shown survives the next crash, a clean close leaves nothing to copy and no file
//!   that nobody needs;
//! - for a share of images: crashes at every boundary inside that reopening, and inside the reopening after that.
//!
//! Replay: a failure prints `BASALT_CRASH=workload/seed/boundary/survival`, which runs just that image.
//! `BASALT_TRACE=1` prints every change of the disk on the way there.
//! `BASALT_BASE=n` draws other seeds, `BASALT_LONG=n` takes n times as many torn images.

#[path = "crash_recovery/check.rs"]
mod check;
#[path = "crash_recovery/expect.rs"]
mod expect;
#[path = "crash_recovery/failing.rs"]
mod failing;
#[path = "crash_recovery/model.rs"]
mod model;
#[path = "crash_recovery/operations.rs"]
mod operations;
#[path = "crash_recovery/planted.rs"]
mod planted;
#[path = "crash_recovery/programs.rs"]
mod programs;
#[path = "crash_recovery/programs_of_failure.rs"]
mod programs_of_failure;
#[path = "crash_recovery/repair.rs"]
mod repair;
#[path = "crash_recovery/runner.rs"]
mod runner;
#[path = "crash_recovery/shared.rs"]
mod shared;
#[path = "crash_recovery/workloads.rs"]
mod workloads;
#[path = "crash_recovery/world.rs"]
mod world;

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use basalt_engine::Faults;
use basalt_testkit::Seeds;

use check::Counts;
use runner::{Outcome, effort, on_threads, replayed, replayed_images, run};
use shared::{Event, Images};
use workloads::{ALL, named};

/// Distinct crash states that a run of all workloads must reach.
const STATES: u64 = 100_000;

/// Broken promises after which no more are looked for.
const ENOUGH: usize = 3;

#[test]
fn every_crash_state_opens_to_what_was_promised() {
    if let Some((name, seed, rest)) = replayed() {
        if name.contains('@') {
            return;
        }
        let images = replayed_images(&rest).unwrap_or(Images::All);
        let outcome = run(named(&name), seed, Faults::default(), effort(), images);
        if let Some(broken) = outcome.broken {
            panic!("{broken}");
        }
        return;
    }
    let begun = Instant::now();
    let seeds: Vec<u64> = Seeds::new("crash_recovery", ALL.len() as u64).collect();
    let outcomes: Vec<Mutex<Option<Outcome>>> = ALL.iter().map(|_| Mutex::default()).collect();
    let all_hashes = Mutex::new(HashSet::new());
    let broken = AtomicUsize::new(0);
    on_threads(ALL.len(), |at| {
        if broken.load(Ordering::Relaxed) >= ENOUGH {
            return;
        }
        let workload = &ALL[at];
        let started = Instant::now();
        let outcome = run(
            workload,
            seeds[at],
            Faults::default(),
            effort(),
            Images::All,
        );
        let get = Counts::get;
        let counts = &outcome.checker.counts;
        println!(
            "{:22} {:5} boundaries, {:6} states, {:6} distinct, {:6} nested, {:5} nested twice, {:7} opened, {:5.1} s",
            workload.name,
            outcome.boundaries,
            get(&counts.states),
            get(&counts.distinct),
            get(&counts.nested),
            get(&counts.nested_again),
            get(&counts.opened),
            started.elapsed().as_secs_f64()
        );
        all_hashes
            .lock()
            .expect("no thread panics under it")
            .extend(outcome.checker.hashes());
        broken.fetch_add(usize::from(outcome.broken.is_some()), Ordering::Relaxed);
        *outcomes[at].lock().expect("no thread panics under it") = Some(outcome);
    });
    let outcomes: Vec<Outcome> = outcomes
        .into_iter()
        .filter_map(|outcome| outcome.into_inner().expect("no thread panicked"))
        .collect();
    let broken: Vec<String> = outcomes
        .iter()
        .filter_map(|outcome| outcome.broken.as_ref().map(ToString::to_string))
        .collect();
    assert!(
        broken.is_empty(),
        "{} broken promises:\n{}",
        broken.len(),
        broken.join("\n")
    );
    let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
    let distinct = all_hashes.into_inner().expect("no thread panicked").len() as u64;
    println!(
        "{} workloads, {} boundaries, {} states, {distinct} distinct, {} reopenings, {} nested, {} nested twice, {} flips, {} checkpoints opened, {:.1} s",
        outcomes.len(),
        sum(|o| o.boundaries),
        sum(|o| Counts::get(&o.checker.counts.states)),
        sum(|o| Counts::get(&o.checker.counts.opened)),
        sum(|o| Counts::get(&o.checker.counts.nested)),
        sum(|o| Counts::get(&o.checker.counts.nested_again)),
        sum(|o| Counts::get(&o.checker.counts.flips)),
        sum(|o| Counts::get(&o.checker.counts.checkpoints)),
        begun.elapsed().as_secs_f64()
    );
    let mut missed = Vec::new();
    let mut total: BTreeMap<Event, u64> = BTreeMap::new();
    for (workload, outcome) in ALL.iter().zip(&outcomes) {
        for (&event, &count) in &outcome.events {
            *total.entry(event).or_default() += count;
        }
        // Every workload gets to tables, and through a change of the manifest; the rest is its own.
        let everywhere = [(Event::Flush, 1), (Event::ManifestSwitch, 1)];
        for &(event, least) in everywhere.iter().chain(workload.reaches) {
            let reached = outcome.events.get(&event).copied().unwrap_or(0);
            if reached < least {
                let name = workload.name;
                missed.push(format!(
                    "{name} reached {event:?} {reached} times, not {least}"
                ));
            }
        }
    }
    println!("reached: {total:?}");
    assert!(missed.is_empty(), "{}", missed.join("\n"));
    assert!(outcomes.len() >= 20, "at least 20 workloads");
    assert!(
        distinct >= STATES,
        "{distinct} distinct crash states, not {STATES}"
    );
}
