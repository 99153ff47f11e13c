//! `Insight`: what a server remembers of its last minutes: how many requests and how long they took, second by second, and
//! the slow ones.
//!
//! Promises: bounded ([`MAX_SAMPLES`], [`MAX_SLOW`]); counting a request is one addition; nothing of it is user data.
//!
//! Not here: what is counted since the start (`metrics`), the log (`logging`).

pub mod rates;

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use serde::Serialize;

use self::rates::Sample;

/// Time between two samples.
pub const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// Samples that are kept: ten minutes of them, some 60 KiB.
pub const MAX_SAMPLES: usize = 600;
/// Slow requests that are kept, the newest.
pub const MAX_SLOW: usize = 200;

/// Buckets of times: four for each power of two of microseconds, up to a minute and some.
const BUCKETS: usize = 112;

/// What a request does, as far as charts care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Gets and scans.
    Read,
    /// Puts, deletes, and the steps of transactions.
    Write,
    /// The administration and all else.
    Other,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Other];

    /// The kind of a method, by the name that admission has for it.
    #[must_use]
    pub fn of(method: &str) -> Self {
        match method {
            "RawGet" | "RawScan" | "KvGet" | "KvScan" | "Coprocessor" => Self::Read,
            "RawPut" | "RawDelete" | "KvPrewrite" | "KvCommit" | "KvCheckTxnStatus"
            | "KvBatchRollback" | "KvResolveLock" => Self::Write,
            _ => Self::Other,
        }
    }
}

/// The bucket of a time.
fn bucket(time: Duration) -> usize {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let power = 63 - (micros | 1).leading_zeros() as usize;
    let at = match power {
        0 | 1 => usize::try_from(micros).expect("below four"),
        _ => 4 * (power - 1) + usize::try_from(micros >> (power - 2) & 3).expect("two bits"),
    };
    at.min(BUCKETS - 1)
}

/// The longest time of a bucket, in microseconds.
fn upper(bucket: usize) -> u64 {
    let (power, quarter) = (bucket / 4 + 1, (bucket % 4) as u64);
    match bucket {
        0..4 => bucket as u64,
        _ => ((4 + quarter + 1) << (power - 2)) - 1,
    }
}

/// Requests of one kind, as they are counted; the numbers wrap.
#[derive(Debug)]
struct Counted {
    buckets: [AtomicU32; BUCKETS],
    failed: AtomicU32,
}

impl Default for Counted {
    fn default() -> Self {
        Self {
            buckets: [const { AtomicU32::new(0) }; BUCKETS],
            failed: AtomicU32::new(0),
        }
    }
}

/// A request that took longer than the setting says.
#[derive(Clone, Debug, Serialize)]
pub struct SlowRequest {
    /// When it ended, in milliseconds since 1970.
    pub at_ms: u64,
    /// A name of our own.
    pub method: &'static str,
    /// How it ended.
    pub code: &'static str,
    /// Milliseconds in all.
    pub took_ms: u64,
    /// Until its message was there, whole.
    pub arriving_ms: u64,
    /// From then on.
    pub working_ms: u64,
    /// Bytes it was counted for.
    pub request_bytes: usize,
    /// Bytes of an answer of some size.
    pub answer_bytes: usize,
}

/// What a server remembers.
#[derive(Debug, Default)]
pub struct Insight {
    counted: [Counted; 3],
    slow: Mutex<(u64, VecDeque<SlowRequest>)>,
    samples: Mutex<VecDeque<Sample>>,
}

/// Milliseconds since 1970; 0 before.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let since = since.unwrap_or_default().as_millis();
    u64::try_from(since).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Insight {
    /// Counts a request that was answered.
    pub fn on_request(&self, method: &str, is_ok: bool, took: Duration) {
        let counted = &self.counted[Kind::of(method) as usize];
        counted.buckets[bucket(took)].fetch_add(1, Ordering::Relaxed);
        if !is_ok {
            counted.failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Keeps a slow request.
    pub fn on_slow(&self, request: SlowRequest) {
        let (seen, slow) = &mut *lock(&self.slow);
        *seen += 1;
        if slow.len() == MAX_SLOW {
            slow.pop_front();
        }
        slow.push_back(request);
    }

    /// How many slow requests there were, and those kept, the newest first.
    #[must_use]
    pub fn slow(&self) -> (u64, Vec<SlowRequest>) {
        let (seen, slow) = &*lock(&self.slow);
        (*seen, slow.iter().rev().cloned().collect())
    }

    /// The samples that ended after a moment, the oldest first.
    #[must_use]
    pub fn samples_after(&self, at_ms: u64) -> Vec<Sample> {
        let samples = lock(&self.samples);
        let after = samples.iter().filter(|sample| sample.at_ms > at_ms);
        after.cloned().collect()
    }

    fn keep(&self, sample: Sample) {
        let mut samples = lock(&self.samples);
        if samples.len() == MAX_SAMPLES {
            samples.pop_front();
        }
        samples.push_back(sample);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_in_a_bucket_that_ends_at_most_a_quarter_above_it() {
        for micros in (0..5000).chain((5000..60_000_000).step_by(7919)) {
            let end = upper(bucket(Duration::from_micros(micros)));
            assert!(
                end >= micros && end - micros <= micros / 4,
                "{micros}: {end}"
            );
        }
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn the_newest_slow_requests_are_kept_and_all_are_counted() {
        let insight = Insight::default();
        for number in 0..300 {
            insight.on_slow(SlowRequest {
                at_ms: number,
                method: "RawPut",
                code: "OK",
                took_ms: number,
                arriving_ms: 0,
                working_ms: number,
                request_bytes: 1,
                answer_bytes: 0,
            });
        }
        let (seen, slow) = insight.slow();
        assert_eq!((seen, slow.len()), (300, MAX_SLOW));
        assert_eq!((slow[0].at_ms, slow[MAX_SLOW - 1].at_ms), (299, 100));
    }
}
