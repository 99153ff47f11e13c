//! The test of the test: one fault of the engine after the other is turned on, and found.
//!
//! One is found by a test of its own, beside the code: a rewrite under another sequence number, which no read shows.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Mutex,
    thread,
};

use basalt_engine::{Fault, Faults};
use basalt_testkit::Seeds;

use crate::world::{Effort, World};

/// Faults that break a rule of append families, or one that they lean on, and the work that meets them.
const PLANTED: &[(Fault, Effort)] = &[
    (Fault::ReleaseBeforeKillSync, Effort::CRASH),
    (Fault::DeleteLogBeforeEdit, Effort::CRASH),
    (Fault::ReleaseUnflushed, Effort::CRASH),
    (Fault::ReleaseLive, Effort::MODEL),
    (Fault::ResumeUnfenced, Effort::MODEL),
    (Fault::IgnoreSyncError, Effort::MODEL),
    (Fault::RewriteUnchecked, Effort::MEETINGS),
    (Fault::FloorAbovePending, Effort::MEETINGS),
    (Fault::ReuseHeldSegment, Effort::MODEL),
];

/// Cases until a fault must be found.
const CASES: u64 = 60;

/// The first case that finds a fault, and what it says.
fn find(fault: Fault, effort: Effort) -> Result<String, String> {
    for (at, seed) in (1..).zip(Seeds::new(&format!("append {fault:?}"), CASES)) {
        let run = || World::new(seed, Faults(fault), effort).run();
        let what = match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Ok(_)) => continue,
            Ok(Err(broken)) => broken,
            Err(_) => "a panic".into(),
        };
        let what: String = what.chars().take(200).collect();
        return Ok(format!("{fault:?} is found in case {at}: {what}"));
    }
    Err(format!("{fault:?} was not found in {CASES} cases"))
}

#[test]
fn planted_bugs_are_found() {
    let left = Mutex::new(PLANTED.iter());
    let missed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let next = left.lock().expect("no panic holds it").next();
                    let Some(&(fault, effort)) = next else { return };
                    match find(fault, effort) {
                        Ok(found) => println!("{found}"),
                        Err(error) => missed.lock().expect("no panic holds it").push(error),
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().expect("no panic holds it");
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}
