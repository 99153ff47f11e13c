//! Append families against a plain model, through crashes of a simulated disk (docs/adr/0009).
//!
//! A case is a database with two append families and a plain one, driven by random batches over all of them. Reads,
//! cursors, ranges and snapshots are compared with maps. At boundaries between two changes of the disk, images are
//! taken as a crash there could leave them; each must open to the state after some batch: not before the last one
//! that was acknowledged as durable by then, and after the death of the process not before the last acknowledged.
//!
//! One planted fault after the other is turned on, and found.
//!
//! Replay: `BASALT_SEED=0x...` runs one case. `BASALT_LONG=n` runs n times as many.

#[path = "append_family/faults.rs"]
mod faults;
#[path = "append_family/image.rs"]
mod image;
#[path = "append_family/model.rs"]
mod model;
#[path = "append_family/world.rs"]
mod world;

use std::{sync::Mutex, thread, time::Instant};

use basalt_engine::Faults;
use basalt_testkit::{Replay, Seeds, long_factor};
use world::{Counts, Effort, World};

/// Cases with crash images, and without.
const CRASH_CASES: u64 = 40;
const MODEL_CASES: u64 = 120;
/// Cases in which most batches are only submitted.
const MEETING_CASES: u64 = 40;

/// Runs every case of `seeds` on two threads, and adds up what happened.
fn run_all(test: &str, seeds: Seeds, effort: Effort) -> Counts {
    let begun = Instant::now();
    let seeds = Mutex::new(seeds);
    let total = Mutex::new(Counts::default());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let next = seeds.lock().expect("no panic holds it").next();
                    let Some(seed) = next else { return };
                    let _replay = Replay::new("--test append_family", test, seed);
                    let counts = World::new(seed, Faults::default(), effort)
                        .run()
                        .unwrap_or_else(|broken| panic!("{broken}"));
                    total.lock().expect("no panic holds it").add(&counts);
                }
            });
        }
    });
    let total = total.into_inner().expect("no panic holds it");
    println!("{total:?}, {:.1} s", begun.elapsed().as_secs_f64());
    total
}

#[test]
fn random_batches_agree_with_the_model_through_reopenings() {
    let seeds = Seeds::new("append model", MODEL_CASES * long_factor());
    let is_replay = seeds.is_replay();
    let test = "random_batches_agree_with_the_model_through_reopenings";
    let counts = run_all(test, seeds, Effort::MODEL);
    if is_replay {
        return;
    }
    assert!(
        counts.rewritten > 0,
        "entries were written forward: {counts:?}"
    );
    assert!(counts.refused >= 500, "gaps were refused: {counts:?}");
    assert!(counts.released >= 500, "segments were given up: {counts:?}");
    assert!(counts.snapshots >= 500, "snapshots were read: {counts:?}");
    assert!(counts.reopened >= 300, "it was opened again: {counts:?}");
    assert!(counts.fenced >= 100, "syncs have failed: {counts:?}");
}

#[test]
fn batches_on_their_way_meet_background_work() {
    let seeds = Seeds::new("append meetings", MEETING_CASES * long_factor());
    let is_replay = seeds.is_replay();
    let test = "batches_on_their_way_meet_background_work";
    let counts = run_all(test, seeds, Effort::MEETINGS);
    if is_replay {
        return;
    }
    assert!(
        counts.rewritten > 0,
        "entries were written forward: {counts:?}"
    );
    assert!(counts.released >= 100, "segments were given up: {counts:?}");
}

#[test]
fn every_crash_state_opens_to_a_state_that_was_promised() {
    let seeds = Seeds::new("append crash", CRASH_CASES * long_factor());
    let is_replay = seeds.is_replay();
    let test = "every_crash_state_opens_to_a_state_that_was_promised";
    let counts = run_all(test, seeds, Effort::CRASH);
    if is_replay {
        return;
    }
    assert!(
        counts.rewritten > 0,
        "entries were written forward: {counts:?}"
    );
    assert!(counts.images >= 10_000, "images were opened: {counts:?}");
    assert!(counts.released >= 60, "segments were given up: {counts:?}");
}
