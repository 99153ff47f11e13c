//! The test of the test: one fault of the engine after the other is turned on, and found.
//!
//! Faults that need a meeting which random batches seldom bring about are found by tests of their own, beside the
//! code: an unchecked rewrite, a `resume` after a failure of the log, a floor above what is not published, and
//! the reuse of a file that is held.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Mutex,
    thread,
};

use basalt_engine::{Fault, Faults};
use basalt_testkit::Seeds;

use crate::world::{Effort, World};

/// Faults that break a rule of append families, or one that they lean on.
const PLANTED: &[Fault] = &[
    Fault::ReleaseBeforeKillSync,
    Fault::DeleteLogBeforeEdit,
    Fault::ReleaseUnflushed,
];

/// Cases until a fault must be found.
const CASES: u64 = 60;

/// The first case that finds a fault, and what it says.
fn find(fault: Fault) -> Result<String, String> {
    for (at, seed) in (1..).zip(Seeds::new(&format!("append {fault:?}"), CASES)) {
        let run = || World::new(seed, Faults(fault), Effort::CRASH).run();
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
                    let Some(&fault) = next else { return };
                    match find(fault) {
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
