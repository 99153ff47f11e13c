//! `StoreMetrics`: what a store counts while it works, for whoever shows it.
//!
//! Counting is cheap enough for every proposal: a relaxed addition or three, no lock, no clock of its own (the
//! loops read theirs once a turn). What the nodes and logs count for themselves is taken over once a tick.
//! Promises: names are stable, and `/docs/metrics.md` has all of them. Not here: how they are shown.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::{Depth, Inbox};

/// Buckets of a [`Histogram`], the last one without a bound.
const BUCKETS: usize = 24;

/// The upper bound of the first bucket of durations, in nanoseconds.
const FIRST_DURATION: u64 = 16_000;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn count(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Relaxed);
    }

    /// How many.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
struct Gauge(AtomicU64);

impl Gauge {
    fn set(&self, now: u64) {
        self.0.store(now, Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// How often something took how long.
#[derive(Debug)]
pub struct Durations(Histogram);

impl Default for Durations {
    fn default() -> Self {
        Self(Histogram::new(FIRST_DURATION))
    }
}

impl Durations {
    /// Takes one in.
    pub fn observe(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.0.observe(nanos);
    }

    /// In nanoseconds, from 16 us to 67 s.
    #[must_use]
    pub fn nanos(&self) -> &Histogram {
        &self.0
    }
}

/// How often values were of which size, in buckets each twice as wide as the one before.
#[derive(Debug)]
pub struct Histogram {
    /// The upper bound of the first bucket.
    first: u64,
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

impl Histogram {
    fn new(first: u64) -> Self {
        Self {
            first,
            buckets: Default::default(),
            sum: AtomicU64::new(0),
        }
    }

    /// Of bytes: from 64 to 268 million.
    fn of_bytes() -> Self {
        Self::new(64)
    }

    /// Of counts: from 1 to 4 million.
    fn of_counts() -> Self {
        Self::new(1)
    }

    /// Takes a value in.
    pub fn observe(&self, value: u64) {
        let times = value.saturating_sub(1) / self.first;
        let place = (u64::BITS - times.leading_zeros()) as usize;
        self.buckets[place.min(BUCKETS - 1)].fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
    }

    /// How many values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Relaxed)).sum()
    }

    /// Their sum.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum.load(Relaxed)
    }

    /// Upper bound of each bucket and how many values are in it and in none before; the last one's is
    /// `u64::MAX`.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        let bound = |place: usize| match place {
            _ if place == BUCKETS - 1 => u64::MAX,
            place => self.first << place,
        };
        let counts = self.buckets.iter().enumerate();
        counts.map(move |(place, count)| (bound(place), count.load(Relaxed)))
    }
}

/// What a figure says.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// How often something has happened.
    Counter(u64),
    /// How much there is now.
    Gauge(u64),
    /// How often something was of which size.
    Sizes(&'a Histogram),
    /// How often something took how long, in nanoseconds.
    Durations(&'a Histogram),
}

/// One figure. Those of one name stand side by side.
#[derive(Clone, Copy, Debug)]
pub struct Figure<'a> {
    /// Stable; without the prefix that all of the program's have.
    pub name: &'static str,
    /// For people.
    pub help: &'static str,
    /// What tells it from others of its name.
    pub label: Option<(&'static str, &'static str)>,
    /// How much.
    pub value: Value<'a>,
}

/// An inbox, whatever is in it.
trait Waiting: Send + Sync {
    fn depth(&self) -> Depth;
}

impl<T: Send> Waiting for Inbox<T> {
    fn depth(&self) -> Depth {
        Inbox::depth(self)
    }
}

/// What a store counts. The fields are what [`StoreMetrics::figures`] names and explains.
pub struct StoreMetrics {
    queues: Vec<(&'static str, Arc<dyn Waiting>)>,
    pub(crate) turn_messages: Histogram,
    pub(crate) raftdb_batch: Histogram,
    pub(crate) raftdb_sync: Durations,
    pub(crate) apply_entries: Histogram,
    pub(crate) apply_batch: Histogram,
    pub(crate) propose_to_commit: Durations,
    pub(crate) commit_to_apply: Durations,
    pub(crate) campaigns: Counter,
    pub(crate) won: Counter,
    pub(crate) leader_changes: Counter,
    pub(crate) reads_by_lease: Counter,
    pub(crate) reads_by_round: Counter,
    /// Reads under a lease that the store loop was not asked for.
    pub(crate) reads_at_once: Counter,
    pub(crate) entries_cached: Counter,
    pub(crate) entries_stored: Counter,
    pub(crate) snapshots_not_made: Counter,
    pub(crate) snapshot_made_bytes: Counter,
    pub(crate) snapshot_making: Durations,
    pub(crate) snapshot_installing: Durations,
    pub(crate) truncations: Counter,
    pub(crate) entries_deleted: Counter,
    pub(crate) kvdb_flush: Durations,
    pub(crate) kvdb_not_flushed: Counter,
    pub(crate) gave_way_raftdb: Counter,
    pub(crate) gave_way_kvdb: Counter,
    pub(crate) now: Now,
}

/// What a store holds, as of the last tick.
#[derive(Debug, Default)]
pub(crate) struct Now {
    regions: Gauge,
    leading: Gauge,
    proposals: Gauge,
    reads: Gauge,
    apply_lag: Gauge,
    log_bytes: Gauge,
    cached_bytes: Gauge,
}

/// Sums over the peers of a store.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sums {
    pub(crate) regions: u64,
    pub(crate) leading: u64,
    pub(crate) proposals: u64,
    pub(crate) reads: u64,
    /// The largest, not the sum.
    pub(crate) apply_lag: u64,
    pub(crate) log_bytes: u64,
    pub(crate) cached_bytes: u64,
}

impl Now {
    pub(crate) fn set(&self, sums: Sums) {
        self.regions.set(sums.regions);
        self.leading.set(sums.leading);
        self.proposals.set(sums.proposals);
        self.reads.set(sums.reads);
        self.apply_lag.set(sums.apply_lag);
        self.log_bytes.set(sums.log_bytes);
        self.cached_bytes.set(sums.cached_bytes);
    }
}

impl StoreMetrics {
    pub(crate) fn new() -> Self {
        Self {
            queues: Vec::new(),
            turn_messages: Histogram::of_counts(),
            raftdb_batch: Histogram::of_bytes(),
            raftdb_sync: Durations::default(),
            apply_entries: Histogram::of_counts(),
            apply_batch: Histogram::of_bytes(),
            propose_to_commit: Durations::default(),
            commit_to_apply: Durations::default(),
            campaigns: Counter::default(),
            won: Counter::default(),
            leader_changes: Counter::default(),
            reads_by_lease: Counter::default(),
            reads_by_round: Counter::default(),
            reads_at_once: Counter::default(),
            entries_cached: Counter::default(),
            entries_stored: Counter::default(),
            snapshots_not_made: Counter::default(),
            snapshot_made_bytes: Counter::default(),
            snapshot_making: Durations::default(),
            snapshot_installing: Durations::default(),
            truncations: Counter::default(),
            entries_deleted: Counter::default(),
            kvdb_flush: Durations::default(),
            kvdb_not_flushed: Counter::default(),
            gave_way_raftdb: Counter::default(),
            gave_way_kvdb: Counter::default(),
            now: Now::default(),
        }
    }

    /// Shows an inbox too.
    pub(crate) fn watch<T: Send + 'static>(&mut self, name: &'static str, inbox: &Arc<Inbox<T>>) {
        let inbox: Arc<dyn Waiting> = Arc::<Inbox<T>>::clone(inbox);
        self.queues.push((name, inbox));
    }

    /// Every figure, those of one name side by side.
    #[must_use]
    pub fn figures(&self) -> Vec<Figure<'_>> {
        let mut figures = Vec::new();
        self.put_queues(&mut figures);
        self.put_write_path(&mut figures);
        self.put_nodes(&mut figures);
        self.put_snapshots_and_logs(&mut figures);
        self.put_now(&mut figures);
        figures
    }

    fn put_queues<'a>(&'a self, figures: &mut Vec<Figure<'a>>) {
        let depths = self.queues.iter();
        let depths: Vec<_> = depths.map(|(name, queue)| (*name, queue.depth())).collect();
        let mut each = |name, help, of: fn(Depth) -> Value<'static>| {
            for (queue, depth) in &depths {
                figures.push(Figure {
                    name,
                    help,
                    label: Some(("queue", queue)),
                    value: of(*depth),
                });
            }
        };
        each(
            "store_queue_waiting",
            "Items that wait for a loop of the store",
            |depth| Value::Gauge(depth.items as u64),
        );
        each(
            "store_queue_waiting_bytes",
            "Bytes of requests and messages that wait for a loop of the store",
            |depth| Value::Gauge(depth.bytes as u64),
        );
        each(
            "store_queue_refused",
            "Items that found no room in the queue of a loop",
            |depth| Value::Counter(depth.refused),
        );
    }

    fn put_write_path<'a>(&'a self, figures: &mut Vec<Figure<'a>>) {
        let mut sizes = |name, help, of| figures.push(plain(name, help, Value::Sizes(of)));
        sizes(
            "store_turn_messages",
            "Messages that one turn of the store loop takes",
            &self.turn_messages,
        );
        sizes(
            "store_raftdb_batch_bytes",
            "Bytes of what one turn writes to raftdb",
            &self.raftdb_batch,
        );
        sizes(
            "store_apply_batch_entries",
            "Entries that one write of kvdb applies",
            &self.apply_entries,
        );
        sizes(
            "store_apply_batch_bytes",
            "Bytes of one write of kvdb",
            &self.apply_batch,
        );
        let mut durations = |name, help, of: &'a Durations| {
            figures.push(plain(name, help, Value::Durations(of.nanos())));
        };
        durations(
            "store_raftdb_sync_seconds",
            "Time from giving a turn's write to raftdb until it is durable",
            &self.raftdb_sync,
        );
        durations(
            "store_propose_to_commit_seconds",
            "Time from a proposal's arrival until its entry is committed and durable here",
            &self.propose_to_commit,
        );
        durations(
            "store_commit_to_apply_seconds",
            "Time from handing committed entries out until kvdb has them",
            &self.commit_to_apply,
        );
    }

    fn put_nodes<'a>(&'a self, figures: &mut Vec<Figure<'a>>) {
        let mut counter = |name, help, of: &Counter| {
            figures.push(plain(name, help, Value::Counter(of.get())));
        };
        counter("store_campaigns", "Campaigns begun", &self.campaigns);
        counter("store_elections_won", "Elections won", &self.won);
        counter(
            "store_leader_changes",
            "Leaders seen that were another one before",
            &self.leader_changes,
        );
        let help = "Times that leadership was handed over as a disk did not answer, by engine";
        for (engine, of) in [
            ("raftdb", &self.gave_way_raftdb),
            ("kvdb", &self.gave_way_kvdb),
        ] {
            figures.push(labelled("store_gave_way", help, ("engine", engine), of));
        }
        let help = "Reads that were granted here, by the lease or by a round of heartbeats";
        for (by, of) in [
            ("lease", &self.reads_by_lease),
            ("round", &self.reads_by_round),
            ("at_once", &self.reads_at_once),
        ] {
            figures.push(labelled("store_reads", help, ("by", by), of));
        }
        let help = "Log entries that were read, from the entry cache or from raftdb";
        for (from, of) in [
            ("cache", &self.entries_cached),
            ("raftdb", &self.entries_stored),
        ] {
            figures.push(labelled("store_log_entries_read", help, ("from", from), of));
        }
    }

    fn put_snapshots_and_logs<'a>(&'a self, figures: &mut Vec<Figure<'a>>) {
        let mut durations = |name, help, of: &'a Durations| {
            figures.push(plain(name, help, Value::Durations(of.nanos())));
        };
        durations(
            "store_snapshot_making_seconds",
            "Time in which a snapshot was made",
            &self.snapshot_making,
        );
        durations(
            "store_snapshot_installing_seconds",
            "Time in which a received snapshot was put into kvdb",
            &self.snapshot_installing,
        );
        durations(
            "store_kvdb_flush_seconds",
            "Time of a flush of kvdb that log GC has asked for",
            &self.kvdb_flush,
        );
        let mut counter = |name, help, of: &Counter| {
            figures.push(plain(name, help, Value::Counter(of.get())));
        };
        counter(
            "store_snapshots_not_made",
            "Snapshots that could not be made",
            &self.snapshots_not_made,
        );
        counter(
            "store_snapshot_made_bytes",
            "Bytes of the snapshots that were made",
            &self.snapshot_made_bytes,
        );
        counter(
            "store_kvdb_flushes_failed",
            "Flushes of kvdb for log GC that failed",
            &self.kvdb_not_flushed,
        );
        counter(
            "store_log_truncations",
            "Truncations of logs that were proposed here",
            &self.truncations,
        );
        counter(
            "store_log_entries_deleted",
            "Log entries that were deleted, behind what is truncated and flushed",
            &self.entries_deleted,
        );
    }

    fn put_now<'a>(&'a self, figures: &mut Vec<Figure<'a>>) {
        let mut gauge = |name, help, of: &Gauge| {
            figures.push(plain(name, help, Value::Gauge(of.get())));
        };
        let now = &self.now;
        gauge("store_regions", "Regions with a peer here", &now.regions);
        gauge("store_leaders", "Regions that are led here", &now.leading);
        gauge(
            "store_proposals_waiting",
            "Proposals that are not committed yet",
            &now.proposals,
        );
        gauge(
            "store_reads_waiting",
            "Reads that wait to be granted, or for what they must show to be applied",
            &now.reads,
        );
        gauge(
            "store_apply_lag",
            "Committed entries that are not applied, in the region where they are most",
            &now.apply_lag,
        );
        gauge(
            "store_log_bytes",
            "Bytes of entries that are not truncated, about",
            &now.log_bytes,
        );
        gauge(
            "store_cached_entry_bytes",
            "Bytes of log entries in memory",
            &now.cached_bytes,
        );
    }
}

fn plain<'a>(name: &'static str, help: &'static str, value: Value<'a>) -> Figure<'a> {
    Figure {
        name,
        help,
        label: None,
        value,
    }
}

fn labelled(
    name: &'static str,
    help: &'static str,
    label: (&'static str, &'static str),
    of: &Counter,
) -> Figure<'static> {
    Figure {
        name,
        help,
        label: Some(label),
        value: Value::Counter(of.get()),
    }
}

impl fmt::Debug for StoreMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreMetrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_the_first_bucket_whose_bound_it_does_not_pass() {
        let sizes = Histogram::new(10);
        for value in [0, 1, 10, 11, 20, 21, 40, u64::MAX] {
            sizes.observe(value);
        }
        let buckets: Vec<_> = sizes.buckets().filter(|(_, count)| *count > 0).collect();
        assert_eq!(buckets, [(10, 3), (20, 2), (40, 2), (u64::MAX, 1)]);
        assert_eq!(sizes.buckets().count(), BUCKETS);
        assert_eq!(sizes.count(), 8);
    }

    #[test]
    fn figures_of_one_name_stand_side_by_side() {
        let mut metrics = StoreMetrics::new();
        let inbox = Arc::new(Inbox::<u8>::new(crate::InboxLimits::NONE));
        metrics.watch("one", &inbox);
        metrics.watch("other", &inbox);
        inbox.push(1);
        let figures = metrics.figures();
        let mut names: Vec<_> = figures.iter().map(|figure| figure.name).collect();
        names.dedup();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!((names.len(), count), (count, 31));
    }
}
