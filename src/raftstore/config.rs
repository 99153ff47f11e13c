//! `StoreConfig`: settings of a store, each with its unit and what it is for.

use std::time::Duration;

use crate::{Error, Result};

/// Settings of a store. Timers are the same on all stores of a cluster: leases rely on it.
#[derive(Clone, Debug, PartialEq)]
pub struct StoreConfig {
    /// This store; not 0.
    pub store_id: u64,
    /// Length of a tick. Default 50 ms.
    pub tick: Duration,
    /// Ticks without a leader before a follower campaigns, up to twice as many; at least 10. Default 20.
    pub election_ticks: u64,
    /// Ticks between heartbeats. Default 2.
    pub heartbeat_ticks: u64,
    /// How long a request may wait for its answer. Default 10 s.
    pub request_timeout: Duration,
    /// Between looks at whether logs can be shortened. Default 1 s.
    pub log_gc_interval: Duration,
    /// Applied entries that a log keeps; beyond it is truncated. Default 100,000.
    pub log_gc_entries: u64,
    /// Bytes of applied entries that a log keeps. Default 64 MiB.
    pub log_gc_bytes: u64,
    /// Bytes of the newest entries of each region that stay in memory. Default 32 MiB.
    pub entry_cache_bytes: usize,
    /// Bytes that one batch of applied entries may have before it is written. Default 4 MiB.
    pub apply_batch_bytes: usize,
    /// The store loop applies entries itself while that cannot take long. Default true.
    pub apply_on_loop: bool,
    /// Followers learn of commits with the next append or heartbeat. Default true.
    pub lazy_commits: bool,
    /// The store loop waits for raftdb's syncs itself while the disk is quick. Default true.
    pub sync_on_loop: bool,
    /// Requests and messages that may wait for the store loop. Default 65,536.
    pub inbox_limit: usize,
    /// Bytes of the requests and messages that may wait for the store loop; other stores' messages have as
    /// much again. Default 64 MiB.
    pub inbox_bytes: usize,
    /// The store was formatted in this run, so it has promised nothing to anybody; else its peers vote for
    /// nobody during their first election timeout.
    pub freshly_formatted: bool,
    /// Where randomness of elections comes from.
    pub seed: u64,
    /// Rules to break on purpose, for tests of the tests. Default none.
    pub faults: crate::faults::Faults,
}

impl StoreConfig {
    /// The defaults for a store.
    #[must_use]
    pub fn new(store_id: u64) -> Self {
        Self {
            store_id,
            tick: Duration::from_millis(50),
            election_ticks: 20,
            heartbeat_ticks: 2,
            request_timeout: Duration::from_secs(10),
            log_gc_interval: Duration::from_secs(1),
            log_gc_entries: 100_000,
            log_gc_bytes: 64 << 20,
            entry_cache_bytes: 32 << 20,
            apply_batch_bytes: 4 << 20,
            apply_on_loop: true,
            lazy_commits: true,
            sync_on_loop: true,
            inbox_limit: 65_536,
            inbox_bytes: 64 << 20,
            freshly_formatted: false,
            seed: 0,
            faults: crate::faults::Faults::default(),
        }
    }

    /// Whether the settings make sense together.
    ///
    /// # Errors
    ///
    /// [`Error::Misuse`] with the setting and its bound.
    pub fn validate(&self) -> Result<()> {
        let wrong = |what: &str| Err(Error::misuse(0, what));
        if self.store_id == 0 {
            return wrong("store_id must not be 0");
        }
        if self.tick.is_zero() {
            return wrong("tick must be more than nothing");
        }
        if self.election_ticks < 10 {
            return wrong("election_ticks must be at least 10");
        }
        if self.heartbeat_ticks == 0 || self.heartbeat_ticks * 3 > self.election_ticks {
            return wrong(
                "heartbeat_ticks must be at least 1 and at most a third of election_ticks",
            );
        }
        if self.log_gc_entries == 0 {
            return wrong("log_gc_entries must be at least 1");
        }
        Ok(())
    }
}
