//! The simulated executor: one seed, one run.

use std::sync::{Arc, Mutex};

use super::*;

type Log = Arc<Mutex<Vec<u64>>>;

fn noting(log: &Log, name: u64) -> Job {
    let log = Arc::clone(log);
    Box::new(move || log.lock().unwrap().push(name))
}

/// Jobs 0..10 low, 10..20 high, and what the executor made of them.
fn run(seed: u64) -> Vec<u64> {
    let executor = SimExecutor::new(seed);
    let log = Log::default();
    for name in 0..10 {
        executor.spawn(Priority::Low, noting(&log, name));
        executor.spawn(Priority::High, noting(&log, 10 + name));
    }
    executor.sleep(Duration::from_millis(3));
    executor.run_until_idle();
    assert_eq!((executor.queued(), executor.jobs_run()), (0, 20));
    let mut order = log.lock().unwrap().clone();
    order.push(executor.random());
    order.push(u64::try_from(executor.now().as_nanos()).unwrap());
    order
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_another() {
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
    let mut jobs = run(7);
    jobs.truncate(20);
    jobs.sort_unstable();
    assert_eq!(jobs, (0..20).collect::<Vec<_>>(), "each job ran once");
}

#[test]
fn high_jobs_come_mostly_but_not_always_first() {
    let firsts = (0..200).filter(|seed| run(*seed)[0] >= 10).count();
    assert!((110..200).contains(&firsts), "{firsts} of 200");
}

#[test]
fn nothing_runs_before_somebody_waits() {
    let executor = SimExecutor::new(1);
    let log = Log::default();
    executor.spawn(Priority::High, noting(&log, 1));
    assert!(log.lock().unwrap().is_empty());
    assert!(executor.help());
    assert_eq!(*log.lock().unwrap(), [1]);
    assert!(!executor.help(), "nothing is queued");
}

#[test]
fn a_job_may_wait_for_another_job() {
    let executor = Arc::new(SimExecutor::new(3));
    let log = Log::default();
    let (inner, inner_log) = (Arc::clone(&executor), Arc::clone(&log));
    executor.spawn(
        Priority::High,
        Box::new(move || {
            inner.spawn(Priority::Low, noting(&inner_log, 1));
            while inner_log.lock().unwrap().is_empty() {
                assert!(inner.help(), "the awaited job is queued");
            }
            inner_log.lock().unwrap().push(2);
        }),
    );
    assert_eq!(executor.run_until_idle(), 1, "the other one ran inside it");
    assert_eq!(*log.lock().unwrap(), [1, 2]);
    assert_eq!(executor.jobs_run(), 2);
}

#[test]
#[should_panic(expected = "64 jobs wait for each other")]
fn jobs_that_wait_in_a_circle_are_found() {
    fn wait_for_a_copy(executor: &Arc<SimExecutor>) {
        let inner = Arc::clone(executor);
        executor.spawn(Priority::High, Box::new(move || wait_for_a_copy(&inner)));
        while executor.help() {}
    }
    wait_for_a_copy(&Arc::new(SimExecutor::new(1)));
}

#[test]
fn the_clock_moves_by_what_is_slept_and_never_stands() {
    let executor = SimExecutor::new(1);
    let start = executor.now();
    executor.sleep(Duration::from_secs(5));
    let later = executor.now();
    assert!(later >= start + Duration::from_secs(5));
    assert!(later < start + Duration::from_secs(6));
    assert!(executor.now() > later);
    assert!(executor.is_simulated());
}

#[test]
fn abandoned_jobs_are_dropped_unrun() {
    let executor = Arc::new(SimExecutor::new(1));
    let log = Log::default();
    for name in 0..3 {
        executor.spawn(Priority::Low, noting(&log, name));
    }
    // A job that owns the executor: without `abandon`, neither would ever be freed.
    let owned = Arc::clone(&executor);
    executor.spawn(Priority::High, Box::new(move || drop(owned)));
    assert_eq!(executor.abandon(), 4);
    assert!(!executor.help());
    assert!(log.lock().unwrap().is_empty());
    assert_eq!(
        (Arc::strong_count(&executor), Arc::strong_count(&log)),
        (1, 1)
    );
}

#[test]
fn a_panicking_job_reaches_the_caller_and_leaves_the_executor_usable() {
    let executor = SimExecutor::new(1);
    executor.spawn(
        Priority::Low,
        Box::new(|| std::panic::resume_unwind(Box::new("defect"))),
    );
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| executor.help()));
    assert!(caught.is_err());
    assert_eq!(executor.state().depth, 0);
    assert!(!executor.help());
}
