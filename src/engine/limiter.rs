//! `RateLimiter`: how many bytes a second background work may write, and who goes first.
//!
//! Tokens come in by the clock of an executor and are kept up to a tenth of a second's. Who writes takes them and may take
//! the balance below zero; who comes next waits until it is above. While somebody of a higher class waits nobody of a lower
//! one gets any: flushes go before compactions, and those before backups. Compactions that come too short for it stall
//! writers at last, which ends the flushes.
//!
//! Writes of callers (the log) are not limited, and neither are reads.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::executor::Executor;

/// Tokens kept at most, as a part of a second.
const BURST_PER_SECOND: u64 = 10;
/// Fewest tokens kept at most: a piece that a table writes at a time.
const LEAST_BURST: u64 = 256 << 10;
/// Longest and shortest sleep between two looks, so that changes of the rate and higher classes are noticed.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const NANOS: u128 = 1_000_000_000;

/// What a background write is for; the first goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IoPriority {
    /// Memtables to tables: writers wait for it.
    Flush,
    /// Tables to tables.
    Compaction,
    /// Copies for somebody outside: the log of a checkpoint, backups, exports.
    Backup,
}

/// Number of classes.
const CLASSES: usize = 3;

impl IoPriority {
    fn class(self) -> usize {
        match self {
            Self::Flush => 0,
            Self::Compaction => 1,
            Self::Backup => 2,
        }
    }
}

/// A bound on the bytes a second that background work writes, for one or several databases
/// (`Options::rate_limiter`). Cheap to clone; all clones are one limiter.
#[derive(Clone)]
pub struct RateLimiter {
    inner: Arc<Inner>,
}

struct Inner {
    executor: Arc<dyn Executor>,
    state: Mutex<State>,
}

/// What was written through a limiter, and waited for. The arrays are by class, in the order of [`IoPriority`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateStats {
    /// Bytes a second; 0: no bound.
    pub bytes_per_second: u64,
    /// Bytes written.
    pub bytes: [u64; CLASSES],
    /// Writes that had to wait.
    pub waits: [u64; CLASSES],
    /// Time they waited.
    pub waited: [Duration; CLASSES],
}

/// The limiter as a program of numbers: who asks, and at what time.
#[derive(Debug, Default)]
struct State {
    stats: RateStats,
    /// Tokens; negative while what was taken has not come in.
    balance: i128,
    /// Up to when tokens have come in.
    filled: Duration,
    /// Writes that wait.
    waiting: [usize; CLASSES],
}

impl State {
    fn burst(&self) -> i128 {
        i128::from((self.stats.bytes_per_second / BURST_PER_SECOND).max(LEAST_BURST))
    }

    /// Takes in what has come since the last look.
    fn fill(&mut self, now: Duration) {
        let rate = u128::from(self.stats.bytes_per_second);
        let passed = now.saturating_sub(self.filled).as_nanos();
        let tokens = passed * rate / NANOS;
        // What is less than a token counts with the next look.
        if tokens > 0 {
            self.filled = now;
            let tokens = i128::try_from(tokens).unwrap_or(i128::MAX);
            self.balance = self.balance.saturating_add(tokens).min(self.burst());
        }
    }

    /// Asks for `bytes`: `None` where they are given, else how long to wait before the next try.
    fn ask(&mut self, now: Duration, class: usize, bytes: u64) -> Option<Duration> {
        if self.stats.bytes_per_second > 0 {
            self.fill(now);
            let outranked = self.waiting[..class].iter().any(|&waiting| waiting > 0);
            if self.balance <= 0 || outranked {
                let missing = (1 - self.balance).max(0).unsigned_abs();
                let nanos = missing * NANOS / u128::from(self.stats.bytes_per_second);
                let pause = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
                return Some(pause.clamp(SHORTEST_PAUSE, LONGEST_PAUSE));
            }
            self.balance -= i128::from(bytes);
        }
        self.stats.bytes[class] += bytes;
        None
    }
}

impl RateLimiter {
    /// A limiter of `bytes_per_second` (0: no bound) by the clock of `executor`, on whose sleep waiting writes rest.
    #[must_use]
    pub fn new(executor: Arc<dyn Executor>, bytes_per_second: u64) -> Self {
        let mut state = State::default();
        state.stats.bytes_per_second = bytes_per_second;
        state.filled = executor.now();
        state.balance = state.burst();
        Self {
            inner: Arc::new(Inner {
                executor,
                state: Mutex::new(state),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code of others runs under it.
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the rate (0: no bound); what waits goes by it within 50 ms.
    pub fn set_bytes_per_second(&self, bytes: u64) {
        let now = self.inner.executor.now();
        let mut state = self.state();
        state.fill(now);
        state.filled = now;
        state.stats.bytes_per_second = bytes;
        // A debt from a high rate would be waited for long at a low one.
        state.balance = state.balance.clamp(-state.burst(), state.burst());
    }

    /// What was written and waited for.
    #[must_use]
    pub fn stats(&self) -> RateStats {
        self.state().stats
    }

    /// Waits until `bytes` may be written, at most a few MiB at a time. For whoever copies beside the engine.
    pub fn acquire(&self, priority: IoPriority, bytes: u64) {
        self.acquire_unless(priority, bytes, || false);
    }

    /// The same, but gives up waiting, and goes on without a bound, once `stop` says so.
    pub(crate) fn acquire_unless(&self, priority: IoPriority, bytes: u64, stop: impl Fn() -> bool) {
        let (class, executor) = (priority.class(), &self.inner.executor);
        let mut begun = None;
        loop {
            let now = executor.now();
            let mut state = self.state();
            let pause = state.ask(now, class, bytes);
            let Some(pause) = pause.filter(|_| !stop()) else {
                if let Some(begun) = begun {
                    state.waiting[class] -= 1;
                    state.stats.waited[class] += now.saturating_sub(begun);
                }
                return;
            };
            if begun.is_none() {
                begun = Some(now);
                state.waiting[class] += 1;
                state.stats.waits[class] += 1;
            }
            drop(state);
            executor.rest(pause);
        }
    }
}

impl fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RateLimiter({:?})", self.stats())
    }
}

#[cfg(test)]
#[path = "limiter_tests.rs"]
mod tests;
