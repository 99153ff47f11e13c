//! Merges, compaction filters and times to live against a model, through crashes of a simulated disk (docs/adr/0013).
//!
//! A case is a database with three families, small enough that few writes reach every level: one that takes merges, with an
//! operator that fails at some operands; one with a compaction filter; one whose rows live for a time of a clock that the case
//! moves. Gets, cursors both ways and snapshots are compared with maps. Crashes must leave a state after some batch.
//!
//! One planted fault after the other is turned on, and found.
//!
//! Replay: `BASALT_SEED=0x...` runs one case. `BASALT_LONG=n` runs n times as many.

#[path = "rows/model.rs"]
mod model;
#[path = "rows/ranges.rs"]
mod ranges;
#[path = "rows/single.rs"]
mod single;
#[path = "rows/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use basalt_engine::{Fault, Faults};
use basalt_testkit::{Replay, Seeds, long_factor};
use world::{Counts, World};

/// Cases, and operations of each.
const CASES: u64 = 60;
const OPERATIONS: u64 = 900;
/// Cases until a planted fault must be found.
const FAULT_CASES: u64 = 60;

#[test]
fn random_operations_agree_with_the_model_through_crashes() {
    let seeds = Seeds::new("rows", CASES * long_factor());
    let is_replay = seeds.is_replay();
    let mut total = Counts::default();
    for seed in seeds {
        let test = "random_operations_agree_with_the_model_through_crashes";
        let _replay = Replay::new("-p basalt-engine --test rows", test, seed);
        let counts = World::new(seed, Faults::default()).run(OPERATIONS);
        total.add(&counts.unwrap_or_else(|broken| panic!("{broken}")));
    }
    println!("{total:?}");
    if is_replay {
        return;
    }
    let least = Counts {
        merges: 5_000,
        bad_operands: 100,
        failures: 50,
        filtered: 100,
        changed: 100,
        expired: 500,
        dropped_whole: 20,
        snapshots: 500,
        scans: 3_000,
        crashes: 200,
        lost: 10,
        compactions: 2_000,
        value_files: 200,
        refreshed: 2_000,
    };
    assert!(total.reaches(&least), "{total:?} does not reach {least:?}");
}

/// The first case that finds a fault, and what it says.
fn find(fault: Fault) -> Result<String, String> {
    for (at, seed) in (1..).zip(Seeds::new(&format!("rows {fault:?}"), FAULT_CASES)) {
        let run = || World::new(seed, Faults(fault)).run(OPERATIONS);
        let what = match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Ok(_)) => continue,
            Ok(Err(broken)) => broken,
            Err(_) => "a panic".into(),
        };
        let what: String = what.chars().take(200).collect();
        return Ok(format!("{fault:?} is found in case {at}: {what}"));
    }
    Err(format!("{fault:?} was not found in {FAULT_CASES} cases"))
}

#[test]
fn planted_faults_are_found() {
    let planted = [
        Fault::FoldAcrossSnapshot,
        Fault::FilterSeenBySnapshot,
        Fault::RemoveWithoutDelete,
        Fault::DropSeenBySnapshot,
        Fault::ForgetValueUse,
        Fault::RefreshInPlace,
    ];
    let mut missed = Vec::new();
    for fault in planted {
        match find(fault) {
            Ok(found) => println!("{found}"),
            Err(error) => missed.push(error),
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}
