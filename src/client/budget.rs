//! [`Budget`]: how many retries a client allows itself.
//!
//! Retries help while few requests fail; while most do, each only adds to what is too much already. So a retry takes a
//! token, and tokens come back with requests that go well, and slowly with time.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// A bucket of tokens: a retry takes one, a success gives a tenth back, a second one, up to [`Budget::SIZE`].
///
/// A client that sends much and whose requests all fail so sends little more than one retry a second; one of whose
/// requests a tenth fails may retry all of them.
#[derive(Debug)]
pub struct Budget(Mutex<Bucket>);

#[derive(Debug)]
struct Bucket {
    /// Tenths of tokens.
    tenths: u64,
    /// Up to when time has given.
    filled: Instant,
}

impl Budget {
    /// Tokens of a full bucket.
    pub const SIZE: u64 = 20;

    /// A full bucket.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self(Mutex::new(Bucket {
            tenths: 10 * Self::SIZE,
            filled: now,
        }))
    }

    /// Whether a request that failed may be sent again; takes a token if so.
    pub fn take(&self, now: Instant) -> bool {
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_duration_since(bucket.filled);
        let given = u64::try_from(passed.as_millis() / 100).unwrap_or(u64::MAX);
        bucket.filled = match u32::try_from(given) {
            Ok(given) if u64::from(given) < 10 * Self::SIZE => {
                bucket.filled + Duration::from_millis(100) * given
            }
            // More than a bucket holds: what is over is lost.
            _ => now,
        };
        bucket.tenths = bucket.tenths.saturating_add(given).min(10 * Self::SIZE);
        match bucket.tenths.checked_sub(10) {
            Some(left) => {
                bucket.tenths = left;
                true
            }
            None => false,
        }
    }

    /// A request went well.
    pub fn give(&self) {
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.tenths = (bucket.tenths + 1).min(10 * Self::SIZE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_bucket_fills_with_successes_and_with_time() {
        let now = Instant::now();
        let budget = Budget::new(now);
        let taken = (0..100).filter(|_| budget.take(now)).count() as u64;
        assert_eq!(taken, Budget::SIZE);
        for _ in 0..9 {
            budget.give();
        }
        assert!(!budget.take(now));
        budget.give();
        assert!(budget.take(now) && !budget.take(now));

        let later = now + Duration::from_millis(2_500);
        assert!(budget.take(later) && budget.take(later) && !budget.take(later));
        assert!(!budget.take(later + Duration::from_millis(499)));
        assert!(budget.take(later + Duration::from_millis(500)));
        let much_later = later + Duration::from_secs(1 << 40);
        let taken = (0..100).filter(|_| budget.take(much_later)).count() as u64;
        assert_eq!(taken, Budget::SIZE, "it never holds more");
    }
}
