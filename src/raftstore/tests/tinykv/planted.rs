//! The tests of the tests: stores that break a rule on purpose fail the scenario that would notice.

use std::panic::{AssertUnwindSafe, catch_unwind};

use basalt_raftstore::faults::{Fault, Faults};
use basalt_testkit::Seeds;

use super::{scenario::Scenario, snapshots::one_snapshot};

/// A run fails with one of some seeds, for a reason that has to do with the rule.
fn is_found(fault: Fault, says: &[&str], run: impl Fn(u64, Faults)) {
    let faults = Faults::only(fault);
    for seed in Seeds::new("planted", 5) {
        let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(seed, faults))) else {
            continue;
        };
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.unwrap_or_else(|| "a panic without a text of its own".to_owned());
        println!("{fault:?}: {text}");
        assert!(
            says.iter().any(|what| text.contains(what)),
            "{fault:?}: {text}"
        );
        return;
    }
    panic!("{fault:?} is not noticed");
}

fn restarts(seed: u64, faults: Faults) {
    let scenario = Scenario {
        clients: 1,
        restarts: true,
        faults,
        ..Scenario::default()
    };
    scenario.run(seed);
}

fn everything(seed: u64, faults: Faults) -> String {
    let scenario = Scenario {
        clients: 5,
        unreliable: true,
        restarts: true,
        partitions: true,
        gc_limit: Some(100),
        faults,
    };
    format!("{:?}", scenario.run(seed))
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let one = everything(1, Faults::default());
    assert_eq!(one, everything(1, Faults::default()));
}

#[test]
fn an_answer_before_the_entry_is_committed_is_noticed() {
    is_found(Fault::AnswerBeforeCommit, &["and finds"], restarts);
}

#[test]
fn an_acknowledgement_before_the_sync_is_noticed() {
    is_found(Fault::AckBeforeSync, &["durable", "and finds"], restarts);
}

#[test]
fn an_apply_state_behind_its_data_is_noticed() {
    is_found(Fault::AppliedApart, &["and finds"], restarts);
}

#[test]
fn a_log_that_is_deleted_before_its_data_is_flushed_is_noticed() {
    is_found(Fault::GcPastFlushed, &["the log begins"], |seed, faults| {
        everything(seed, faults);
    });
}

#[test]
fn a_snapshot_that_leaves_old_keys_is_noticed() {
    is_found(
        Fault::SnapshotWithoutDelete,
        &["for \"k2\", not None"],
        one_snapshot,
    );
}
