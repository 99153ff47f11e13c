//! `ThreadPool`: background work on threads.
//!
//! Two queues, served in order of arrival, the high one first. One thread is always left to high
//! jobs: at most `threads - 1` low ones run at a time. A job that panics ends itself and nothing else.
//! Threads start with the first job, so that a pool that is only an option's default costs none.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, RandomState},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle, ThreadId},
    time::{Duration, Instant},
};

use super::{Executor, Job, Priority};

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;

/// Threads, the system's clock, and random numbers nobody can guess.
///
/// Dropping the pool drops the jobs that have not started and waits for those that run; dropped by one
/// of its own jobs, it waits for none, and the threads end by themselves.
#[derive(Debug)]
pub struct ThreadPool {
    shared: Arc<Shared>,
    threads: usize,
    workers: Mutex<Vec<JoinHandle<()>>>,
    start: Instant,
    /// Keyed by the system's random source, so that hashes of a counter cannot be guessed.
    random: RandomState,
    drawn: AtomicU64,
}

impl ThreadPool {
    /// A pool of `threads` threads; of two, where fewer are asked for, so that long low jobs and
    /// short high ones never share one.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        Self {
            shared: Arc::default(),
            threads: threads.max(2),
            workers: Mutex::default(),
            start: Instant::now(),
            random: RandomState::new(),
            drawn: AtomicU64::new(0),
        }
    }

    /// Starts what is missing of the threads; true when at least one runs. The system may refuse
    /// some: the pool works with fewer, and asks again at the next job.
    fn start_workers(&self) -> bool {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        while workers.len() < self.threads {
            let shared = Arc::clone(&self.shared);
            let builder = thread::Builder::new().name(format!("basalt-bg-{}", workers.len()));
            match builder.spawn(move || shared.work()) {
                Ok(worker) => workers.push(worker),
                Err(_) => break,
            }
            self.shared.queues().low_limit = workers.len().saturating_sub(1).max(1);
        }
        !workers.is_empty()
    }
}

impl Executor for ThreadPool {
    fn spawn(&self, priority: Priority, job: Job) {
        {
            let mut queues = self.shared.queues();
            match priority {
                Priority::High => queues.high.push_back(job),
                Priority::Low => queues.low.push_back(job),
            }
        }
        self.start_workers();
        self.shared.changed.notify_one();
    }

    fn help(&self) -> bool {
        if self.start_workers() {
            return false;
        }
        // The system gives no thread at all: whoever waits for a job runs it.
        let job = self.shared.queues().take();
        let Some((priority, job)) = job else {
            return false;
        };
        self.shared.run(priority, job);
        true
    }

    fn is_simulated(&self) -> bool {
        false
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, duration: Duration) {
        thread::sleep(duration);
    }

    fn random(&self) -> u64 {
        self.random
            .hash_one(self.drawn.fetch_add(1, Ordering::Relaxed))
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        let unrun = {
            let mut queues = self.shared.queues();
            queues.closing = true;
            (
                std::mem::take(&mut queues.high),
                std::mem::take(&mut queues.low),
            )
        };
        self.shared.changed.notify_all();
        // Outside the lock: what a job owns may come back to this pool as it is dropped.
        drop(unrun);
        let workers = self
            .workers
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        let me: ThreadId = thread::current().id();
        if workers.iter().any(|worker| worker.thread().id() == me) {
            // A job let go of the last handle. It cannot wait for itself, and another job may wait
            // for it.
            return;
        }
        for worker in workers.drain(..) {
            // Jobs' panics are caught, so an error here has nothing more to say.
            let _ = worker.join();
        }
    }
}

/// What the threads share.
#[derive(Debug, Default)]
struct Shared {
    queues: Mutex<Queues>,
    /// Signalled at each new job and at the end.
    changed: Condvar,
}

#[derive(Default)]
struct Queues {
    high: VecDeque<Job>,
    low: VecDeque<Job>,
    running_low: usize,
    /// Most low jobs at a time.
    low_limit: usize,
    closing: bool,
}

impl std::fmt::Debug for Queues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queues")
            .field("high", &self.high.len())
            .field("low", &self.low.len())
            .field("running_low", &self.running_low)
            .field("closing", &self.closing)
            .finish_non_exhaustive()
    }
}

impl Queues {
    /// The next job that may start now.
    fn take(&mut self) -> Option<(Priority, Job)> {
        if let Some(job) = self.high.pop_front() {
            return Some((Priority::High, job));
        }
        if self.running_low >= self.low_limit.max(1) {
            return None;
        }
        let job = self.low.pop_front()?;
        self.running_low += 1;
        Some((Priority::Low, job))
    }
}

impl Shared {
    fn queues(&self) -> MutexGuard<'_, Queues> {
        // No code of others runs under this lock, so a poisoned one holds sound queues.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of a thread. One that finishes a low job looks for the next one itself, so a low job
    /// that met the limit needs no signal of its own.
    fn work(&self) {
        let mut queues = self.queues();
        while !queues.closing {
            if let Some((priority, job)) = queues.take() {
                drop(queues);
                self.run(priority, job);
                queues = self.queues();
            } else {
                queues = self
                    .changed
                    .wait(queues)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn run(&self, priority: Priority, job: Job) {
        // The engine turns panics into errors inside its jobs; this keeps the thread for the others.
        let _ = catch_unwind(AssertUnwindSafe(job));
        if priority == Priority::Low {
            self.queues().running_low -= 1;
        }
    }
}
