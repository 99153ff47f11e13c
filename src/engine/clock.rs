//! The time that rows with a time to live are measured by: a parameter, so that tests run on a clock of theirs.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

mod system;

pub use system::SystemClock;

/// Bytes of the time behind a value of a family with a time to live.
pub(crate) const TIME_LEN: usize = 8;

/// Tells the time.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Milliseconds since 1970, or since any other fixed moment that all opens of a database agree on.
    fn now_millis(&self) -> u64;
}

/// A clock that is set by hand.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// Stands at `millis`.
    #[must_use]
    pub fn new(millis: u64) -> Self {
        Self(AtomicU64::new(millis))
    }

    /// Sets it, forward or back.
    pub fn set(&self, millis: u64) {
        self.0.store(millis, Ordering::SeqCst);
    }

    /// Moves it forward.
    pub fn advance(&self, millis: u64) {
        self.0.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_millis(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// The time of an open database: its clock's, but never behind what it said before.
#[derive(Debug)]
pub(crate) struct Time {
    clock: Arc<dyn Clock>,
    latest: AtomicU64,
}

impl Time {
    /// Never behind `latest`.
    pub(crate) fn new(clock: Arc<dyn Clock>, latest: u64) -> Self {
        Self {
            clock,
            latest: AtomicU64::new(latest),
        }
    }

    /// Milliseconds now.
    pub(crate) fn now(&self) -> u64 {
        let now = self.clock.now_millis();
        let latest = self.latest.load(Ordering::Acquire);
        // Readers of one millisecond write nothing.
        if now <= latest {
            return latest;
        }
        self.latest.fetch_max(now, Ordering::AcqRel).max(now)
    }
}

/// Which rows of a family with a time to live are past it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    /// Rows written up to then are; `None`: none yet.
    dead_upto: Option<u64>,
}

impl Life {
    /// At `now`, where rows live for `ttl` milliseconds.
    pub(crate) fn at(now: u64, ttl: u64) -> Self {
        Self {
            dead_upto: now.checked_sub(ttl),
        }
    }

    /// True where a row of `time` is past it.
    pub(crate) fn is_over(self, time: u64) -> bool {
        self.dead_upto.is_some_and(|upto| time <= upto)
    }
}

/// Value and time of a stored value; `None` where it is too short for one.
pub(crate) fn split_time(stored: &[u8]) -> Option<(&[u8], u64)> {
    let (value, time) = stored.split_last_chunk::<TIME_LEN>()?;
    Some((value, u64::from_le_bytes(*time)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_database_never_goes_back_and_begins_no_earlier_than_told() {
        let clock = Arc::new(ManualClock::new(50));
        let time = Time::new(Arc::clone(&clock) as _, 100);
        assert_eq!(time.now(), 100);
        clock.set(120);
        assert_eq!(time.now(), 120);
        clock.set(7);
        assert_eq!(time.now(), 120);
        clock.advance(200);
        assert_eq!(time.now(), 207);
    }

    #[test]
    fn a_row_is_past_its_life_once_its_time_and_its_length_are_reached() {
        let life = |now| Life::at(now, 10).is_over(5);
        assert_eq!(
            [life(5), life(14), life(15), life(16)],
            [false, false, true, true]
        );
        assert!(
            !Life::at(9, 10).is_over(0),
            "before its length has passed at all"
        );
        assert_eq!(split_time(b"v\x01\0\0\0\0\0\0\0"), Some((&b"v"[..], 1)));
        assert_eq!(split_time(b"short"), None);
    }
}
