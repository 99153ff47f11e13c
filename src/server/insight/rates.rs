//! Samples: what happened in each of the last seconds.
//!
//! A sample is the difference of two looks at counters; whoever is late takes one of a longer span, and says so.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{BUCKETS, Insight, Kind, now_ms, upper};
use crate::{metrics::Metrics, storage::Storage};

/// Requests of one kind within a sample. Times are in microseconds, at most a quarter too long; 0 where there was no request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KindSample {
    /// Requests answered.
    pub count: u32,
    /// Those that were answered with a status other than `OK`.
    pub failed: u32,
    /// Half of them took at most this.
    pub p50_us: u64,
    /// 99 of 100 took at most this.
    pub p99_us: u64,
    /// All of them did.
    pub max_us: u64,
}

/// What happened in a second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// When it ended, in milliseconds since 1970.
    pub at_ms: u64,
    /// Milliseconds it covers.
    pub span_ms: u64,
    /// Gets and scans.
    pub read: KindSample,
    /// Puts and deletes.
    pub write: KindSample,
    /// All else.
    pub other: KindSample,
    /// Requests being worked on at its end.
    pub in_flight: u64,
    /// Bytes that flushes wrote, in all engines.
    pub flushed_bytes: u64,
    /// Bytes that compactions wrote.
    pub compacted_bytes: u64,
    /// Writers had to wait at its end.
    pub stalled: bool,
}

/// Counters of one kind at one moment.
#[derive(Clone, Copy, Debug)]
struct Look {
    buckets: [u32; BUCKETS],
    failed: u32,
}

impl Look {
    const ZERO: Self = Self {
        buckets: [0; BUCKETS],
        failed: 0,
    };

    fn since(&self, before: &Self) -> KindSample {
        let mut counts = [0_u32; BUCKETS];
        for (count, (is, was)) in counts
            .iter_mut()
            .zip(self.buckets.iter().zip(&before.buckets))
        {
            *count = is.wrapping_sub(*was);
        }
        let count = counts
            .iter()
            .fold(0_u32, |sum, one| sum.saturating_add(*one));
        let within = |percent: u64| {
            let wanted = (u64::from(count) * percent).div_ceil(100);
            let mut seen = 0;
            let found = counts.iter().position(|one| {
                seen += u64::from(*one);
                seen >= wanted && wanted > 0
            });
            found.map_or(0, upper)
        };
        KindSample {
            count,
            failed: self.failed.wrapping_sub(before.failed),
            p50_us: within(50),
            p99_us: within(99),
            max_us: within(100),
        }
    }
}

impl Insight {
    fn look(&self, kind: Kind) -> Look {
        let counted = &self.counted[kind as usize];
        let mut look = Look::ZERO;
        for (is, bucket) in look.buckets.iter_mut().zip(&counted.buckets) {
            *is = bucket.load(Ordering::Relaxed);
        }
        look.failed = counted.failed.load(Ordering::Relaxed);
        look
    }
}

/// Takes samples.
pub struct Sampler {
    metrics: Arc<Metrics>,
    storage: Arc<dyn Storage>,
    looks: [Look; 3],
    /// Bytes of flushes and of compactions.
    written: (u64, u64),
    at: Instant,
}

impl Sampler {
    /// Takes them from `metrics`, into its [`Insight`].
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, storage: Arc<dyn Storage>) -> Self {
        let looks = [Look::ZERO; 3];
        let mut sampler = Self {
            metrics,
            storage,
            looks,
            written: (0, 0),
            at: Instant::now(),
        };
        sampler.written = sampler.engines().0;
        sampler
    }

    fn engines(&self) -> ((u64, u64), bool) {
        let mut told = ((0, 0), false);
        self.storage.engines(&mut |view| {
            let stats = view.db.stats();
            told.0.0 += stats.flushed_bytes;
            told.0.1 += stats.compacted_bytes_written;
            told.1 |= stats.stall.is_some();
        });
        told
    }

    /// Takes one, of the time since the last.
    pub fn take(&mut self) {
        let now = Instant::now();
        let span = now - self.at;
        let insight = &self.metrics.insight;
        let looks = Kind::ALL.map(|kind| insight.look(kind));
        let [read, write, other] = [0, 1, 2].map(|kind| looks[kind].since(&self.looks[kind]));
        let (written, stalled) = self.engines();
        insight.keep(Sample {
            at_ms: now_ms(),
            span_ms: millis(span),
            read,
            write,
            other,
            in_flight: u64::try_from(self.metrics.in_flight.get()).unwrap_or(0),
            flushed_bytes: written.0.saturating_sub(self.written.0),
            compacted_bytes: written.1.saturating_sub(self.written.1),
            stalled,
        });
        (self.looks, self.written, self.at) = (looks, written, now);
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{insight::MAX_SAMPLES, storage::MemStorage};

    fn sampler() -> Sampler {
        let storage: Arc<dyn Storage> = Arc::new(MemStorage::default());
        let metrics = Arc::new(Metrics::new(&storage, None));
        Sampler::new(metrics, storage)
    }

    #[test]
    fn a_sample_is_what_came_in_since_the_last() {
        let mut sampler = sampler();
        let metrics = Arc::clone(&sampler.metrics);
        let insight = &metrics.insight;
        for micros in 1..=100 {
            insight.on_request("RawGet", true, Duration::from_micros(micros * 10));
        }
        insight.on_request("RawPut", false, Duration::from_millis(3));
        insight.on_request("Status", true, Duration::ZERO);
        sampler.take();
        insight.on_request("RawScan", true, Duration::from_millis(50));
        sampler.take();
        let samples = insight.samples_after(0);
        assert_eq!(samples.len(), 2);
        let read = samples[0].read;
        assert_eq!((read.count, read.failed), (100, 0));
        assert!((500..=625).contains(&read.p50_us), "{read:?}");
        assert!((990..=1250).contains(&read.p99_us), "{read:?}");
        assert_eq!((samples[0].write.count, samples[0].write.failed), (1, 1));
        assert_eq!(samples[0].other.count, 1);
        assert_eq!((samples[1].read.count, samples[1].write.count), (1, 0));
        assert_eq!(samples[1].write, KindSample::default());
        assert!(insight.samples_after(samples[1].at_ms).is_empty());
    }

    #[test]
    fn only_the_newest_samples_are_kept() {
        let mut sampler = sampler();
        for _ in 0..MAX_SAMPLES + 3 {
            sampler.take();
        }
        assert_eq!(sampler.metrics.insight.samples_after(0).len(), MAX_SAMPLES);
    }
}
