//! The test of the test: one fault of the engine after the other is turned on, and found.

use std::{sync::Mutex, time::Instant};

use basalt_engine::{Fault, Faults};
use basalt_testkit::Seeds;

use crate::{
    check::Counts,
    runner::{effort, on_threads, replayed, run},
    shared::Images,
    workloads::{ALL, named},
};

/// Each planted bug of the engine, and the workloads that meet it soonest.
const PLANTED: &[(Fault, &[&str])] = &[
    (Fault::NoDirSyncForTable, &["deletes", "no-recycling"]),
    (Fault::NoDirSyncForLog, &["rotation"]),
    (Fault::EarlyAck, &["synced-puts"]),
    (Fault::EditBeforeTable, &["synced-puts"]),
    (Fault::EditBeforeValues, &["large-values"]),
    (Fault::ReplayStaleRecord, &["recycling", "no-recycling"]),
    (Fault::NoSealOfCut, &["unsynced-puts", "power-cuts"]),
    (Fault::DeleteLogBeforeEdit, &["no-recycling", "recycling"]),
    (Fault::UnsyncedManifest, &["reopen"]),
    (Fault::SkipOlderSegmentSync, &["rotation", "tickets"]),
    (Fault::FlushBeforeLogSync, &["mixed-sync"]),
    (Fault::IgnoreSyncError, &["failed-syncs"]),
    (Fault::CutBelowSynced, &["synced-puts", "rotation"]),
];

#[test]
fn planted_engine_bugs_are_found() {
    if replayed().is_some() {
        return;
    }
    let seeds: Vec<u64> = Seeds::new("planted", PLANTED.len() as u64).collect();
    let missed = Mutex::new(Vec::new());
    on_threads(PLANTED.len(), |at| {
        let (fault, soonest) = PLANTED[at];
        let others = ALL.iter().map(|workload| workload.name);
        let others = others.filter(|name| !soonest.contains(name));
        let mut tried = 0;
        let started = Instant::now();
        for name in soonest.iter().copied().chain(others) {
            let outcome = run(named(name), seeds[at], Faults(fault), effort(), Images::All);
            tried += Counts::get(&outcome.checker.counts.distinct);
            if let Some(broken) = outcome.broken {
                let text: String = broken.to_string().chars().take(260).collect();
                println!(
                    "{fault:?} is found in {name} after {tried} distinct states, {:.1} s: {text}",
                    started.elapsed().as_secs_f64()
                );
                return;
            }
            println!("{fault:?} is not found in {name}");
        }
        missed
            .lock()
            .expect("no thread panics under it")
            .push(format!(
                "{fault:?} was not found in {tried} distinct states"
            ));
    });
    let missed = missed.into_inner().expect("no thread panicked");
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}
