//! `Progress`: how long work tells how far it is, and is asked to end; and the pace of work that must leave room.
//!
//! One trait for all that reads or writes much: backup, restore, export, verify, repair, manual compaction.

use std::{fmt, ops::ControlFlow, sync::Arc, time::Duration};

use crate::{
    error::{Error, Result},
    executor::Executor,
};

/// How far some work is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProgressStep {
    /// What is being done, in a word or two: `tables`, `log`.
    pub what: &'static str,
    /// Bytes done.
    pub done: u64,
    /// Bytes there are, as far as is known now.
    pub total: u64,
}

/// Is told how far some work is, from the thread that does it, at least after each file and each megabyte (a repair, of what
/// it writes, after each family, and of the log not at all).
///
/// `Break` ends the work, which then answers [`Error::Cancelled`] and leaves what it would leave at a failure.
pub trait Progress: Send + Sync {
    /// The work is at `step`.
    fn at(&self, step: ProgressStep) -> ControlFlow<()>;
}

impl<F: Fn(ProgressStep) -> ControlFlow<()> + Send + Sync> Progress for F {
    fn at(&self, step: ProgressStep) -> ControlFlow<()> {
        self(step)
    }
}

/// Nobody is told.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Untold;

impl Progress for Untold {
    fn at(&self, _: ProgressStep) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// Whom to tell, and how fast the work may go; the part that options of such work have in common.
///
/// This rate is that of one piece of work, of what it reads or copies; [`RateLimiter`](crate::RateLimiter) bounds what a
/// database writes in all. Where both are given, both hold.
#[derive(Clone, Default)]
pub struct Pacing {
    /// Is told how far the work is (default: nobody).
    pub progress: Option<Arc<dyn Progress>>,
    /// Most bytes a second (default `None`: as fast as it goes).
    pub bytes_per_second: Option<u64>,
}

impl fmt::Debug for Pacing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pacing")
            .field("progress", &self.progress.is_some())
            .field("bytes_per_second", &self.bytes_per_second)
            .finish()
    }
}

impl Pacing {
    /// Tells `progress`.
    #[must_use]
    pub fn told(progress: Arc<dyn Progress>) -> Self {
        Self {
            progress: Some(progress),
            bytes_per_second: None,
        }
    }

    /// Begins work of `total` bytes.
    pub(crate) fn begin<'a>(&'a self, executor: &'a dyn Executor, total: u64) -> Pace<'a> {
        Pace {
            progress: self.progress.as_deref().unwrap_or(&Untold),
            executor,
            rate: self.bytes_per_second.map(|rate| rate.max(1)),
            began: executor.now(),
            paid: 0,
            what: "",
            done: 0,
            small: 0,
            total,
        }
    }
}

/// Most bytes that work does at a time, between two calls of [`Pace::advance`].
pub(crate) const STEP_BYTES: usize = 1 << 20;
/// Steps in each second of work whose rate is limited, so that it comes evenly.
const STEPS_PER_SECOND: u64 = 20;

/// Work that goes on.
pub(crate) struct Pace<'a> {
    progress: &'a dyn Progress,
    executor: &'a dyn Executor,
    rate: Option<u64>,
    began: Duration,
    /// Bytes that count for the rate.
    paid: u64,
    what: &'static str,
    done: u64,
    /// Bytes done that are not told of.
    small: u64,
    total: u64,
}

impl<'a> Pace<'a> {
    /// Goes on to something else.
    pub(crate) fn turn_to(&mut self, what: &'static str) -> Result<()> {
        self.what = what;
        self.tell()
    }

    /// There is more to do than was known.
    pub(crate) fn expect(&mut self, bytes: u64) {
        self.total += bytes;
    }

    /// Bytes to do before the next [`Pace::advance`].
    pub(crate) fn step_bytes(&self) -> usize {
        let even = self.rate.map_or(u64::MAX, |rate| rate / STEPS_PER_SECOND);
        usize::try_from(even).map_or(STEP_BYTES, |even| even.clamp(512, STEP_BYTES))
    }

    /// As [`Pace::advance`], of steps however small: they are told of together.
    pub(crate) fn creep(&mut self, bytes: u64) -> Result<()> {
        self.small += bytes;
        match self.small < self.step_bytes() as u64 {
            true => Ok(()),
            false => self.advance(0),
        }
    }

    /// So many bytes more are done. Waits where the rate asks for it.
    ///
    /// # Errors
    ///
    /// `Cancelled`.
    pub(crate) fn advance(&mut self, bytes: u64) -> Result<()> {
        let bytes = bytes + std::mem::take(&mut self.small);
        self.done += bytes;
        self.total = self.total.max(self.done);
        if let Some(rate) = self.rate {
            self.paid += bytes;
            let due = Duration::from_secs_f64(self.paid as f64 / rate as f64);
            let spent = self.executor.now().saturating_sub(self.began);
            if let Some(early) = due.checked_sub(spent).filter(|early| !early.is_zero()) {
                self.executor.sleep(early);
            } else {
                // Time that was not used is not made up for: that would be a burst.
                self.began = self.executor.now();
                self.paid = 0;
            }
        }
        self.tell()
    }

    /// The last bytes are done; what was expected and did not come counts too.
    pub(crate) fn finish(&mut self, bytes: u64) -> Result<()> {
        self.total = self.done + self.small + bytes;
        self.advance(bytes)
    }

    /// All of it is done, so that there is nothing to cancel.
    pub(crate) fn end(mut self) {
        self.done = self.total;
        let _ = self.tell();
    }

    fn tell(&self) -> Result<()> {
        let step = ProgressStep {
            what: self.what,
            done: self.done,
            total: self.total,
        };
        match self.progress.at(step) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Cancelled),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::executor::SimExecutor;

    #[test]
    fn work_takes_the_time_its_rate_asks_for_and_no_more() {
        let executor = SimExecutor::new(1);
        let pacing = Pacing {
            bytes_per_second: Some(1 << 20),
            ..Pacing::default()
        };
        let begun = executor.now();
        let mut pace = pacing.begin(&executor, 4 << 20);
        while pace.done < pace.total {
            let step = pace.step_bytes() as u64;
            assert!(step <= (1 << 20) / STEPS_PER_SECOND);
            pace.advance(step.min(pace.total - pace.done)).expect("on");
        }
        let took = executor.now() - begun;
        let seconds = took.as_secs_f64();
        assert!((3.9..4.2).contains(&seconds), "4 MiB at 1 MiB/s: {took:?}");
    }

    #[test]
    fn a_break_ends_the_work_and_steps_never_go_back() {
        let executor = SimExecutor::new(1);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::clone(&seen);
        let pacing = Pacing::told(Arc::new(move |step: ProgressStep| {
            list.lock()
                .expect("sound")
                .push((step.what, step.done, step.total));
            if step.done < 20 {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        }));
        let mut pace = pacing.begin(&executor, 15);
        pace.turn_to("log").expect("on");
        pace.advance(10).expect("on");
        assert!(matches!(pace.advance(10), Err(Error::Cancelled)));
        assert_eq!(
            *seen.lock().expect("sound"),
            [("log", 0, 15), ("log", 10, 15), ("log", 20, 20)]
        );
    }
}
