//! The limiter by a clock that the tests turn, and between threads.

use std::thread;

use super::*;
use crate::executor::{SimExecutor, ThreadPool};

const MB: u64 = 1_000_000;

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn state(rate: u64) -> State {
    let mut state = State::default();
    state.stats.bytes_per_second = rate;
    state
}

#[test]
fn tokens_come_with_time_and_are_kept_for_a_tenth_of_a_second() {
    let mut state = state(10 * MB);
    assert_eq!(state.ask(at(0), 1, MB), Some(SHORTEST_PAUSE));
    assert_eq!(
        state.ask(at(50), 1, MB),
        None,
        "half a megabyte has come, one is taken"
    );
    assert_eq!(
        state.ask(at(51), 1, MB),
        Some(Duration::from_nanos(49_000_100).min(LONGEST_PAUSE))
    );
    assert_eq!(state.ask(at(101), 1, MB), None);
    // However long nobody asks, no more than a burst is there.
    for (time, given) in [(5_000, true), (5_000, false), (5_001, true)] {
        assert_eq!(state.ask(at(time), 1, MB).is_none(), given, "{time}");
    }
    assert_eq!(state.stats.bytes, [0, 4 * MB, 0]);
}

#[test]
fn nobody_of_a_lower_class_gets_anything_while_a_higher_one_waits() {
    let mut state = state(10 * MB);
    state.fill(at(1_000));
    state.waiting = [1, 0, 0];
    assert!(state.ask(at(1_000), 1, 1).is_some() && state.ask(at(1_000), 2, 1).is_some());
    assert!(state.ask(at(1_000), 0, 1).is_none());
    state.waiting = [0, 1, 0];
    assert!(state.ask(at(1_000), 2, 1).is_some());
    assert!(state.ask(at(1_000), 1, 1).is_none() && state.ask(at(1_000), 0, 1).is_none());
}

#[test]
fn a_second_of_the_simulated_clock_lets_through_what_the_rate_says() {
    let executor = Arc::new(SimExecutor::new(3));
    let limiter = RateLimiter::new(Arc::clone(&executor) as _, MB);
    let begun = executor.now();
    for _ in 0..80 {
        limiter.acquire(IoPriority::Compaction, 100_000);
    }
    let took = (executor.now() - begun).as_secs_f64();
    assert!((7.2..8.2).contains(&took), "8 MB at 1 MB/s took {took} s");
    let stats = limiter.stats();
    assert_eq!(stats.bytes, [0, 8 * MB, 0]);
    assert!(
        stats.waits[1] > 60 && stats.waited[1] > at(6_000),
        "{stats:?}"
    );
    // Without a bound no time passes but the looks at the clock.
    limiter.set_bytes_per_second(0);
    let begun = executor.now();
    (0..1_000).for_each(|_| limiter.acquire(IoPriority::Backup, MB));
    assert!(executor.now() - begun < at(10));
}

#[test]
fn threads_of_a_higher_class_finish_first_and_a_new_rate_is_seen_while_waiting() {
    let limiter = RateLimiter::new(Arc::new(ThreadPool::new(2)), MB);
    // Uses up the burst, and the rest of it would be waited for for days.
    limiter.acquire(IoPriority::Flush, MB);
    limiter.set_bytes_per_second(1);
    thread::scope(|scope| {
        for priority in [
            IoPriority::Backup,
            IoPriority::Compaction,
            IoPriority::Flush,
        ] {
            let limiter = limiter.clone();
            scope.spawn(move || limiter.acquire(priority, 200_000));
        }
        while limiter.state().waiting != [1, 1, 1] {
            thread::yield_now();
        }
        limiter.set_bytes_per_second(20 * MB);
        loop {
            let waiting = limiter.state().waiting;
            assert!(
                waiting.is_sorted(),
                "{waiting:?} wait, the highest class first"
            );
            if waiting == [0, 0, 0] {
                break;
            }
            thread::yield_now();
        }
    });
    assert_eq!(limiter.stats().bytes, [1_200_000, 200_000, 200_000]);
}

#[test]
fn who_is_told_to_stop_waits_no_longer() {
    let executor = Arc::new(SimExecutor::new(3));
    let limiter = RateLimiter::new(Arc::clone(&executor) as _, 1);
    limiter.acquire(IoPriority::Flush, MB);
    limiter.acquire_unless(IoPriority::Flush, MB, || true);
    assert!(executor.now() < at(1_000));
    assert_eq!(limiter.state().waiting, [0; CLASSES]);
}
