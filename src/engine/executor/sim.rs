//! `SimExecutor`: background work, time and chance as one deterministic program.
//!
//! Nothing runs by itself: jobs run inside [`Executor::help`] and [`Executor::sleep`], on the caller's
//! thread, in an order drawn from the seed. The clock moves by what is asked of it and by a
//! microsecond at each look. The same calls with the same seed give the same run.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{Executor, Job, Priority};

#[cfg(test)]
#[path = "sim_tests.rs"]
mod tests;

/// Jobs that may be running inside each other. Each waits for a job below it, so a deeper stack
/// means that jobs wait in a circle.
const MAX_DEPTH: usize = 64;

/// Depth above which `sleep` runs no job: a sleeper needs none to go on.
const MAX_SLEEP_DEPTH: usize = 4;

/// A single-threaded executor driven by a seed.
pub struct SimExecutor {
    state: Mutex<State>,
}

struct State {
    high: Vec<Job>,
    low: Vec<Job>,
    random: SplitMix64,
    now: Duration,
    depth: usize,
    ran: u64,
}

impl SimExecutor {
    /// An executor whose every choice follows from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            state: Mutex::new(State {
                high: Vec::new(),
                low: Vec::new(),
                random: SplitMix64(seed),
                now: Duration::ZERO,
                depth: 0,
                ran: 0,
            }),
        }
    }

    /// Runs jobs until none is queued, also those that they spawn; how many that were.
    pub fn run_until_idle(&self) -> usize {
        let mut ran = 0;
        while self.help() {
            ran += 1;
        }
        ran
    }

    /// Drops all queued jobs unrun, as when the process dies; how many there were. Jobs own parts of
    /// the database that owns this executor, so a database that is given up with jobs queued is
    /// freed only by this.
    pub fn abandon(&self) -> usize {
        let (high, low) = {
            let mut state = self.state();
            (
                std::mem::take(&mut state.high),
                std::mem::take(&mut state.low),
            )
        };
        // The lock is free again: what a job owns may call back as it is dropped.
        high.len() + low.len()
    }

    /// Jobs queued now.
    #[must_use]
    pub fn queued(&self) -> usize {
        let state = self.state();
        state.high.len() + state.low.len()
    }

    /// Jobs run so far.
    #[must_use]
    pub fn jobs_run(&self) -> u64 {
        self.state().ran
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No job runs under this lock, so a panic elsewhere leaves it sound.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, job: Job) {
        /// Counts the job as left also when it panics.
        struct Depth<'a>(&'a SimExecutor);
        impl Drop for Depth<'_> {
            fn drop(&mut self) {
                self.0.state().depth -= 1;
            }
        }
        {
            let mut state = self.state();
            assert!(
                state.depth < MAX_DEPTH,
                "{MAX_DEPTH} jobs wait for each other"
            );
            state.depth += 1;
            state.ran += 1;
        }
        let _depth = Depth(self);
        job();
    }
}

impl State {
    /// One of the queued jobs. Mostly a high one first, as real threads would have it; not always, as a
    /// low one may have started just before. Within a queue any may be the first to get anywhere.
    fn take(&mut self) -> Option<Job> {
        let high_first = self.random.below(4) != 0;
        let queue = match (self.high.is_empty(), self.low.is_empty()) {
            (true, true) => return None,
            (false, true) => &mut self.high,
            (true, false) => &mut self.low,
            (false, false) if high_first => &mut self.high,
            (false, false) => &mut self.low,
        };
        let index = self.random.below(queue.len() as u64);
        Some(queue.remove(usize::try_from(index).expect("below the length of a queue")))
    }
}

impl Executor for SimExecutor {
    fn spawn(&self, priority: Priority, job: Job) {
        let mut state = self.state();
        match priority {
            Priority::High => state.high.push(job),
            Priority::Low => state.low.push(job),
        }
    }

    /// # Panics
    ///
    /// When jobs wait for each other in a circle: 64 of them run inside each other.
    fn help(&self) -> bool {
        let job = self.state().take();
        let Some(job) = job else { return false };
        self.run(job);
        true
    }

    fn is_simulated(&self) -> bool {
        true
    }

    fn now(&self) -> Duration {
        let mut state = self.state();
        state.now += Duration::from_micros(1);
        state.now
    }

    fn sleep(&self, duration: Duration) {
        let job = {
            let mut state = self.state();
            state.now += duration;
            let lets_run = state.random.below(2) == 0 && state.depth < MAX_SLEEP_DEPTH;
            if lets_run { state.take() } else { None }
        };
        if let Some(job) = job {
            self.run(job);
        }
    }

    fn rest(&self, duration: Duration) {
        self.state().now += duration;
    }

    fn random(&self) -> u64 {
        self.state().random.next()
    }
}

impl fmt::Debug for SimExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("SimExecutor")
            .field("high", &state.high.len())
            .field("low", &state.low.len())
            .field("now", &state.now)
            .field("depth", &state.depth)
            .field("ran", &state.ran)
            .finish_non_exhaustive()
    }
}

/// The generator SplitMix64: a counter in steps of the golden ratio, then a mixing function.
#[derive(Clone, Debug)]
pub(crate) struct SplitMix64(pub(crate) u64);

impl SplitMix64 {
    /// The next number, any of 2^64.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        // The bias of the remainder is under bound / 2^64: nothing for a choice among jobs or sectors.
        self.next() % bound
    }
}
