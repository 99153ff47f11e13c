//! `Plan`: what kind of run a seed makes: how many stores and clients, how fast, and what goes wrong.

use std::time::Duration;

use basalt_raftstore::{
    StoreConfig,
    faults::{Fault, Faults},
};
use basalt_testkit::Rng;

use super::world::{MICRO, MILLI, SECOND};

/// The longest that things take, in nanoseconds.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    pub(crate) turn: u64,
    pub(crate) apply: u64,
    pub(crate) work: u64,
    pub(crate) disk: u64,
}

/// How often what goes wrong does, out of a hundred looks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mischief {
    pub(crate) wipe: u64,
    pub(crate) crash: u64,
    pub(crate) pause: u64,
    pub(crate) partition: u64,
    pub(crate) weather: u64,
    pub(crate) slow_disk: u64,
    pub(crate) bad_disk: u64,
    pub(crate) transfer: u64,
    pub(crate) member: u64,
    pub(crate) flush: u64,
}

/// What a run is like.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) stores: usize,
    /// The first of the stores: those whose peers found the region.
    pub(crate) founders: usize,
    pub(crate) clients: usize,
    /// Keys that the clients share at a time.
    pub(crate) keys: u64,
    /// The longest that a client thinks between two requests.
    pub(crate) think: u64,
    /// How long things go wrong.
    pub(crate) chaos: u64,
    /// Between two looks of mischief.
    pub(crate) every: u64,
    pub(crate) pace: Pace,
    pub(crate) mischief: Mischief,
    pub(crate) config: StoreConfig,
}

impl Plan {
    /// Draws a run.
    pub(crate) fn draw(seed: u64, faults: Faults) -> Self {
        let rng = &mut Rng::new(seed ^ 0x5EED);
        let stores = usize::try_from(3 + rng.below(3)).unwrap_or(3);
        let founders = if rng.one_in(3) { 3 } else { stores };
        let mut some = |most: u64| {
            if rng.one_in(3) {
                0
            } else {
                rng.below(most) + 1
            }
        };
        let mischief = Mischief {
            // The server keeps such a store out for good.
            wipe: if faults.is(Fault::WipedStoreVotes) {
                10
            } else {
                0
            },
            crash: some(12),
            pause: some(8),
            partition: some(12),
            weather: some(10),
            slow_disk: some(6),
            bad_disk: some(3),
            transfer: some(8),
            member: some(12),
            flush: some(10),
        };
        let log_gc_entries = *rng.pick(&[10, 30, 100, 1_000]);
        let config = StoreConfig {
            tick: Duration::from_millis(50),
            election_ticks: 10 + rng.below(10),
            heartbeat_ticks: 1 + rng.below(3),
            request_timeout: Duration::from_secs(5),
            log_gc_interval: Duration::from_millis(100 + rng.below(900)),
            log_gc_entries,
            log_gc_bytes: *rng.pick(&[2_000, 20_000, 1 << 20]),
            entry_cache_bytes: *rng.pick(&[0, 1_000, 1 << 20]),
            apply_batch_bytes: *rng.pick(&[1, 500, 1 << 20]),
            apply_on_loop: rng.one_in(2),
            sync_on_loop: rng.one_in(2),
            lazy_commits: rng.one_in(2),
            faults,
            ..StoreConfig::new(1)
        };
        Self {
            stores,
            founders,
            clients: usize::try_from(2 + rng.below(6)).unwrap_or(2),
            keys: 3 + rng.below(8),
            think: *rng.pick(&[50 * MILLI, 150 * MILLI, 400 * MILLI]),
            chaos: 45 * SECOND + rng.below(30 * SECOND),
            every: 100 * MILLI,
            pace: Pace {
                turn: *rng.pick(&[50 * MICRO, 500 * MICRO]),
                apply: *rng.pick(&[50 * MICRO, 500 * MICRO, 5 * MILLI]),
                work: *rng.pick(&[MILLI, 20 * MILLI]),
                disk: *rng.pick(&[200 * MICRO, 2 * MILLI, 10 * MILLI]),
            },
            mischief,
            config,
        }
    }
}
