//! The pool: order, the thread kept for high jobs, panics, and its end.

use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;

const PATIENCE: Duration = Duration::from_secs(60);

/// A job that says that it has started and ends when it is told to.
fn blocking_job() -> (Job, Receiver<()>, Sender<()>) {
    let (started, has_started) = channel();
    let (end, ends) = channel::<()>();
    let job = Box::new(move || {
        started.send(()).unwrap();
        let _ = ends.recv();
    });
    (job, has_started, end)
}

#[test]
fn a_high_job_starts_while_low_jobs_hold_all_they_may() {
    let pool = ThreadPool::new(3);
    let mut running = Vec::new();
    for _ in 0..2 {
        let (job, started, end) = blocking_job();
        pool.spawn(Priority::Low, job);
        started.recv_timeout(PATIENCE).unwrap();
        running.push(end);
    }
    let (third, third_started, third_end) = blocking_job();
    pool.spawn(Priority::Low, third);
    let (high, high_started, high_end) = blocking_job();
    pool.spawn(Priority::High, high);
    high_started.recv_timeout(PATIENCE).unwrap();
    assert!(
        third_started.try_recv().is_err(),
        "the last thread is not for low jobs"
    );
    // Ending a low one makes room for the next low one.
    drop(running.pop());
    third_started.recv_timeout(PATIENCE).unwrap();
    drop((running, third_end, high_end));
}

#[test]
fn one_thread_asked_for_still_keeps_high_apart_from_low() {
    let pool = ThreadPool::new(1);
    let (low, low_started, _low_end) = blocking_job();
    pool.spawn(Priority::Low, low);
    low_started.recv_timeout(PATIENCE).unwrap();
    let (high, high_started, _high_end) = blocking_job();
    pool.spawn(Priority::High, high);
    high_started.recv_timeout(PATIENCE).unwrap();
    drop((_low_end, _high_end));
}

#[test]
fn queued_high_jobs_run_before_queued_low_ones_each_in_order() {
    let pool = ThreadPool::new(2);
    // Both threads busy, so that everything below is queued.
    let (low, low_started, low_end) = blocking_job();
    pool.spawn(Priority::Low, low);
    low_started.recv_timeout(PATIENCE).unwrap();
    let (high, high_started, high_end) = blocking_job();
    pool.spawn(Priority::High, high);
    high_started.recv_timeout(PATIENCE).unwrap();

    let (done, dones) = channel();
    for (priority, name) in [
        (Priority::Low, "low 1"),
        (Priority::High, "high 1"),
        (Priority::Low, "low 2"),
        (Priority::High, "high 2"),
    ] {
        let done = done.clone();
        pool.spawn(priority, Box::new(move || done.send(name).unwrap()));
    }
    // The low job still runs, so only the other thread works, and on high jobs only.
    drop(high_end);
    let mut order: Vec<_> = (0..2)
        .map(|_| dones.recv_timeout(PATIENCE).unwrap())
        .collect();
    drop(low_end);
    order.extend((0..2).map(|_| dones.recv_timeout(PATIENCE).unwrap()));
    assert_eq!(order, ["high 1", "high 2", "low 1", "low 2"]);
}

#[test]
fn threads_are_named_and_outlive_a_panicking_job() {
    let pool = ThreadPool::new(2);
    let (names, all_names) = channel();
    for _ in 0..20 {
        let names = names.clone();
        pool.spawn(
            Priority::Low,
            Box::new(move || {
                names
                    .send(thread::current().name().unwrap_or_default().to_owned())
                    .unwrap();
                std::panic::resume_unwind(Box::new("a job's own defect"));
            }),
        );
    }
    for _ in 0..20 {
        let name = all_names.recv_timeout(PATIENCE).unwrap();
        assert!(name == "basalt-bg-0" || name == "basalt-bg-1", "{name}");
    }
}

#[test]
fn dropping_the_pool_waits_for_what_runs_and_drops_what_is_queued() {
    let pool = ThreadPool::new(2);
    let (ended, has_ended) = channel();
    let (started, has_started) = channel();
    let (end, ends) = channel::<()>();
    pool.spawn(
        Priority::Low,
        Box::new(move || {
            started.send(()).unwrap();
            let _ = ends.recv();
            ended.send(()).unwrap();
        }),
    );
    has_started.recv_timeout(PATIENCE).unwrap();
    let (queued, queued_started, _queued_end) = blocking_job();
    pool.spawn(Priority::Low, queued);
    let waiter = thread::spawn(move || drop(pool));
    // The queued job goes first, unrun: its channel closes while the other still runs.
    assert!(queued_started.recv_timeout(PATIENCE).is_err());
    assert!(has_ended.try_recv().is_err());
    drop(end);
    waiter.join().unwrap();
    has_ended
        .try_recv()
        .expect("the drop waited for the running job");
}

#[test]
fn a_job_may_hold_the_last_handle_of_its_own_pool() {
    let pool = Arc::new(ThreadPool::new(2));
    let (go, goes) = channel::<()>();
    let (dropped, has_dropped) = channel();
    let inside = Arc::clone(&pool);
    pool.spawn(
        Priority::High,
        Box::new(move || {
            let _ = goes.recv();
            drop(inside);
            dropped.send(()).unwrap();
        }),
    );
    drop(pool);
    drop(go);
    has_dropped.recv_timeout(PATIENCE).unwrap();
}

#[test]
fn a_pool_without_jobs_starts_no_thread() {
    let pool = ThreadPool::new(4);
    assert!(pool.workers.lock().unwrap().is_empty());
    pool.spawn(Priority::Low, Box::new(|| ()));
    assert_eq!(pool.workers.lock().unwrap().len(), 4);
}

#[test]
fn time_does_not_go_back_and_random_numbers_do_not_repeat() {
    let (one, two) = (ThreadPool::new(2), ThreadPool::new(2));
    let mut seen = std::collections::HashSet::new();
    let mut before = Duration::ZERO;
    for _ in 0..1000 {
        assert!(seen.insert(one.random()));
        assert!(
            seen.insert(two.random()),
            "two pools draw different numbers"
        );
        let now = one.now();
        assert!(now >= before);
        before = now;
    }
    assert!(!one.is_simulated());
    assert!(!one.help());
}
