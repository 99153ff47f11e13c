//! Times of calls as histograms, and the choice of the few calls that are timed.
//!
//! Syncs, flushes and compactions are all timed. Of gets, seeks and writes every `stats_sampling`th of a thread is: counting
//! to it costs a handful of instructions and no memory that threads share. Buckets are quarters of powers of two, so that
//! a percentile is right within a fifth.

use std::{
    cell::Cell,
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Buckets: four for each power of two of nanoseconds.
const BUCKETS: usize = 256;

/// Time in nanoseconds, added up.
#[derive(Debug, Default)]
pub(crate) struct Nanos(AtomicU64);

impl Nanos {
    pub(crate) fn add(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.0.fetch_add(nanos, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

/// A histogram that is being counted.
pub(crate) struct Timer {
    buckets: [AtomicU64; BUCKETS],
    sum: Nanos,
}

impl Default for Timer {
    fn default() -> Self {
        Self {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            sum: Nanos::default(),
        }
    }
}

/// The bucket of a time.
fn bucket(nanos: u64) -> usize {
    let power = 63 - (nanos | 1).leading_zeros() as usize;
    if power < 2 {
        return usize::try_from(nanos).expect("below four");
    }
    let quarter = usize::try_from(nanos >> (power - 2) & 3).expect("two bits");
    4 * (power - 1) + quarter
}

/// The longest time of a bucket.
fn upper(bucket: usize) -> u64 {
    if bucket < 4 {
        return bucket as u64;
    }
    let (power, quarter) = (bucket / 4 + 1, (bucket % 4) as u64);
    let next = u128::from(4 + quarter + 1) << (power - 2);
    u64::try_from(next - 1).unwrap_or(u64::MAX)
}

impl Timer {
    pub(crate) fn record(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(nanos)].fetch_add(1, Ordering::Relaxed);
        self.sum.add(time);
    }

    pub(crate) fn histogram(&self) -> Histogram {
        let buckets = self.buckets.iter();
        Histogram {
            buckets: buckets.map(|count| count.load(Ordering::Relaxed)).collect(),
            sum: self.sum.get(),
        }
    }
}

/// How long calls took.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    buckets: Vec<u64>,
    sum: Duration,
}

impl Histogram {
    /// Calls that were timed.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Time they took together.
    #[must_use]
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// Mean time; zero where none was timed.
    #[must_use]
    pub fn mean(&self) -> Duration {
        let count = u32::try_from(self.count()).unwrap_or(u32::MAX);
        self.sum.checked_div(count).unwrap_or_default()
    }

    /// The time within which a share of them (0.0 to 1.0) was done, at most a fifth too long; zero where none was timed.
    #[must_use]
    pub fn percentile(&self, share: f64) -> Duration {
        let count = self.count();
        let mut seen = 0;
        for (bucket, &calls) in self.buckets.iter().enumerate() {
            seen += calls;
            if calls > 0 && seen as f64 >= share * count as f64 {
                return Duration::from_nanos(upper(bucket));
            }
        }
        Duration::ZERO
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram")
            .field("count", &self.count())
            .field("mean", &self.mean())
            .field("p50", &self.percentile(0.5))
            .field("p99", &self.percentile(0.99))
            .field("max", &self.percentile(1.0))
            .finish()
    }
}

/// Calls of which some are timed. Each kind is counted for itself, so that a loop of several has samples of all.
#[derive(Clone, Copy)]
pub(crate) enum Sampled {
    Get,
    Write,
    Seek,
}

thread_local! {
    /// Calls of this thread until one is timed, by kind.
    static LEFT: [Cell<u32>; 3] = const { [Cell::new(0), Cell::new(0), Cell::new(0)] };
}

/// Calls of a thread between two looks at the setting of a database that wants no samples.
const NO_SAMPLES: u32 = 1024;

/// True for one in `every` calls of the kind on this thread; never for 0.
#[inline]
pub(crate) fn is_sample(kind: Sampled, every: u32) -> bool {
    LEFT.with(|left| {
        let left = &left[kind as usize];
        match left.get().checked_sub(1) {
            Some(fewer) => {
                left.set(fewer);
                false
            }
            None => begin_count(left, every),
        }
    })
}

/// Begins to count to the next sample.
#[cold]
fn begin_count(left: &Cell<u32>, every: u32) -> bool {
    left.set(every.checked_sub(1).unwrap_or(NO_SAMPLES));
    every > 0
}

/// The timers of one open database.
#[derive(Default)]
pub(crate) struct Timers {
    pub(crate) get: Timer,
    pub(crate) write: Timer,
    pub(crate) seek: Timer,
    pub(crate) flush: Timer,
    pub(crate) compaction: Timer,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_in_a_bucket_that_ends_at_most_a_quarter_above_it() {
        let mut last = 0;
        for shift in 0..64 {
            for offset in [0, 1, 2, 3, 5, 100] {
                let nanos = (1_u64 << shift).wrapping_add(offset << shift >> 3);
                let end = upper(bucket(nanos));
                assert!(end >= nanos && end - nanos <= nanos / 4, "{nanos}: {end}");
                assert!(bucket(nanos) < BUCKETS);
                last = last.max(bucket(nanos));
            }
        }
        assert!((1..BUCKETS).all(|at| bucket(upper(at)) == at || at > last));
        assert!((1..last).all(|at| bucket(upper(at - 1) + 1) == at));
    }

    #[test]
    fn percentiles_and_means_are_those_of_what_was_recorded() {
        let timer = Timer::default();
        assert_eq!(timer.histogram().percentile(0.5), Duration::ZERO);
        for micros in 1..=1000 {
            timer.record(Duration::from_micros(micros));
        }
        let histogram = timer.histogram();
        assert_eq!(histogram.count(), 1000);
        assert_eq!(histogram.mean(), Duration::from_nanos(500_500));
        for (share, micros) in [(0.5, 500), (0.99, 990), (1.0, 1000)] {
            let is = histogram.percentile(share).as_nanos();
            assert!(
                (micros * 1000..micros * 1250).contains(&is),
                "{share}: {is}"
            );
        }
    }

    #[test]
    fn one_call_in_so_many_is_a_sample() {
        std::thread::spawn(|| {
            let samples = (0..1000).filter(|_| is_sample(Sampled::Get, 10)).count();
            assert_eq!(samples, 100);
            assert_eq!(
                (0..1000).filter(|_| is_sample(Sampled::Get, 1)).count(),
                1000
            );
            assert_eq!((0..5000).filter(|_| is_sample(Sampled::Get, 0)).count(), 0);
            let mixed =
                (0..1000).map(|_| (is_sample(Sampled::Write, 2), is_sample(Sampled::Seek, 2)));
            let (writes, seeks): (Vec<_>, Vec<_>) = mixed.unzip();
            let count = |samples: Vec<bool>| samples.into_iter().filter(|&is| is).count();
            assert_eq!(
                (count(writes), count(seeks)),
                (500, 500),
                "each kind has its own"
            );
        })
        .join()
        .expect("no panic");
    }
}
