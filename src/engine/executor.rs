//! `Executor`: all that the engine asks of threads and time.
//!
//! The engine hands background work (log syncs for callers that do not wait, flush, compaction, file
//! removal) to an executor, and asks it for the time. [`ThreadPool`] is the real one. [`SimExecutor`]
//! runs everything on the caller's thread, in an order drawn from a seed, so that a whole database is
//! one deterministic program.

use std::{fmt, time::Duration};

mod pool;
mod sim;

pub use pool::ThreadPool;
pub use sim::SimExecutor;
pub(crate) use sim::SplitMix64;

/// A piece of background work. It runs once and must not panic; the engine contains panics itself.
pub type Job = Box<dyn FnOnce() + Send + 'static>;

/// Which work goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Somebody waits for it: log syncs and flushes.
    High,
    /// It pays off later: compaction, removal of files.
    Low,
}

/// Threads and time for one or more databases.
pub trait Executor: Send + Sync + fmt::Debug {
    /// Runs `job` some time later. High before low; a low job never keeps a high one from starting.
    fn spawn(&self, priority: Priority, job: Job);

    /// Called in a loop by a thread that waits for background work. A simulated executor runs one
    /// queued job on this thread and answers true; false means nothing is queued. A real one answers
    /// false at once, and the caller then blocks on its condition.
    fn help(&self) -> bool;

    /// True where waiting threads must call [`Executor::help`] and may never block.
    fn is_simulated(&self) -> bool;

    /// Time since some fixed start; never goes back.
    fn now(&self) -> Duration;

    /// Lets `duration` pass for this thread (a simulated one may run jobs meanwhile).
    fn sleep(&self, duration: Duration);

    /// As [`Executor::sleep`], by who may hold what others wait for: a simulated one runs no job meanwhile.
    fn rest(&self, duration: Duration) {
        self.sleep(duration);
    }

    /// A number that no caller can guess: table ids, database ids. Simulated ones draw it from the seed.
    fn random(&self) -> u64;
}
