//! What a store looks after while it serves: refusals by others, its removal, the round of hellos.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use basalt_raftstore::RegionStatus;

use super::{Cluster, Refusal};
use crate::{limits::GOSSIP_INTERVAL, storage::data_dir::Phase};

/// Between two looks at the regions.
const LOOK: Duration = Duration::from_millis(500);
/// Looks in a row without a region after which a store was removed, and is not about to get a new peer.
const LOOKS_WITHOUT_REGION: u32 = 6;

impl Cluster {
    /// Begins to watch, until the store is dropped.
    pub(super) fn watch(self: &Arc<Self>) {
        tokio::spawn(greet_now_and_then(Arc::downgrade(self)));
        tokio::spawn(look_at_regions(Arc::downgrade(self)));
        if let Some(mut refusals) = self.refusals() {
            let cluster = Arc::downgrade(self);
            tokio::spawn(async move {
                while let Some(refusal) = refusals.recv().await {
                    let Some(cluster) = cluster.upgrade() else {
                        return;
                    };
                    cluster.refused_by_another(&refusal).await;
                }
            });
        }
    }

    fn is_over(&self) -> bool {
        *self.stopping().borrow() || self.fenced().is_some()
    }
}

async fn greet_now_and_then(cluster: Weak<Cluster>) {
    loop {
        let Some(cluster) = cluster.upgrade().filter(|cluster| !cluster.is_over()) else {
            return;
        };
        cluster.gossip().await;
        drop(cluster);
        tokio::time::sleep(GOSSIP_INTERVAL).await;
    }
}

/// Notes when a store that has joined gets its first region, and when a store has lost its last one.
async fn look_at_regions(cluster: Weak<Cluster>) {
    let mut without = 0;
    let mut leaders = BTreeMap::new();
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(cluster) = cluster.upgrade().filter(|cluster| !cluster.is_over()) else {
            return;
        };
        let Some(status) = cluster.status().await else {
            continue;
        };
        for region in &status.regions {
            let leads = (region.term, region.leader.map(|leader| leader.store_id));
            if leaders.insert(region.region.id, leads) != Some(leads) {
                tell_leader(region);
            }
        }
        let is_joining = cluster.identity().phase == Phase::Joining;
        let has_region = status
            .regions
            .iter()
            .any(|region| !region.region.peers.is_empty());
        if has_region && is_joining {
            let entered = cluster.blocking(|cluster| cluster.enter(Phase::Serving));
            if let Err(why) = entered.await {
                tracing::warn!(why, "could not note that the store serves");
            }
        }
        without = if status.regions.is_empty() && !is_joining {
            without + 1
        } else {
            0
        };
        if without >= LOOKS_WITHOUT_REGION {
            let refusal = Refusal::removed(status.store_id);
            cluster.refused_by_another(&refusal).await;
        }
    }
}

fn tell_leader(status: &RegionStatus) {
    let (region, term) = (status.region.id, status.term);
    match status.leader {
        Some(leader) => tracing::info!(region, term, store = leader.store_id, "the region is led"),
        None => tracing::info!(region, term, "the region has no leader"),
    }
}
