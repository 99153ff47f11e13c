//! Which point of each region a backup of this store is of.
//!
//! A backup of kvdb is one moment of its order of writes, so of each region it has the log applied up to some index,
//! together with the apply state that says so. Promises: the indexes told are not above those in a backup that is begun
//! afterwards; a region is current only where a round of heartbeats, or the lease, has confirmed that nobody else leads
//! (`docs/adr/0019`).

use std::time::{Duration, Instant};

use basalt_proto::{basaltpb::BackedUpRegion, raft_cmdpb::RaftRequestHeader};
use basalt_raftstore::{RegionStatus, Target};

use super::Cluster;
use crate::storage::Error;

/// Time for a leader to be confirmed.
const CONFIRM: Duration = Duration::from_secs(3);

impl Cluster {
    /// The regions of a backup that is begun when this has answered.
    ///
    /// # Errors
    ///
    /// `Starting` where a peer has no data yet, or there is none.
    pub(crate) async fn regions_of_a_backup(&self) -> Result<Vec<BackedUpRegion>, Error> {
        let mut confirmed = Vec::new();
        for region in self.regions_now().await? {
            let leads = region.role == "leader";
            if leads && self.confirm(&region).await {
                confirmed.push(region.region.id);
            }
        }
        // Looked at again: what a confirmed leader had acknowledged is applied by now.
        let regions = self.regions_now().await?.into_iter();
        let regions = regions.map(|region| BackedUpRegion {
            region_id: region.region.id,
            applied: region.applied,
            is_current: confirmed.contains(&region.region.id),
            leader_store_id: region.leader.map_or(0, |leader| leader.store_id),
        });
        Ok(regions.collect())
    }

    async fn regions_now(&self) -> Result<Vec<RegionStatus>, Error> {
        let status = self.status().await;
        let status = status.ok_or_else(|| self.unable().unwrap_or(Error::Deadline))?;
        if status.regions.is_empty() {
            return Err(Error::Starting(
                "the store has no region, so there is nothing to back up".into(),
            ));
        }
        let empty = status
            .regions
            .iter()
            .find(|region| region.region.peers.is_empty());
        if let Some(region) = empty {
            return Err(Error::Starting(format!(
                "region {} waits for its first snapshot, so there is nothing of it to back up",
                region.region.id
            )));
        }
        Ok(status.regions)
    }

    async fn confirm(&self, region: &RegionStatus) -> bool {
        let target = Target::Region(RaftRequestHeader {
            region_id: region.region.id,
            peer: Some(region.peer),
            region_epoch: region.region.region_epoch,
            term: 0,
        });
        self.read(target, Instant::now() + CONFIRM).await.is_ok()
    }
}
