//! What nodes and logs count for themselves, taken over into the store's figures once a tick.

use super::{Peer, Store};
use crate::metrics::{StoreMetrics, Sums};

impl Store {
    /// Takes over what was counted since the last tick, and shows what there is now.
    pub(super) fn sample(&mut self) {
        let mut sums = Sums::default();
        for peer in self.peers.values_mut() {
            take_counts(peer, &self.metrics);
            let (log, storage) = (peer.raw.raft().log(), peer.raw.storage());
            sums.regions += 1;
            sums.leading += u64::from(peer.leads());
            sums.proposals += peer.proposals.len() as u64;
            sums.reads += peer.reads.len() as u64;
            let lag = log.committed().saturating_sub(peer.applied());
            sums.apply_lag = sums.apply_lag.max(lag);
            sums.log_bytes += peer.log_bytes;
            sums.cached_bytes += storage.cached_bytes() as u64;
        }
        self.metrics.now.set(sums);
    }
}

/// Takes over what a peer has counted; also to be called before it goes.
pub(super) fn take_counts(peer: &mut Peer, metrics: &StoreMetrics) {
    let now = peer.raw.raft().counts();
    let before = std::mem::replace(&mut peer.counted, now);
    metrics.campaigns.add(now.campaigns - before.campaigns);
    metrics.won.add(now.won - before.won);
    metrics
        .reads_by_lease
        .add(now.reads_by_lease - before.reads_by_lease);
    metrics
        .reads_by_round
        .add(now.reads_by_round - before.reads_by_round);
    let read = peer.raw.storage().take_log_reads();
    metrics.entries_cached.add(read.cached);
    metrics.entries_stored.add(read.stored);
}
