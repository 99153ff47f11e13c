//! How the members of a cluster change: what `basaltpb.Admin` asks for, done region by region on their leaders.
//!
//! ```text
//! add:     hello to the store --> learner --> caught up --> voter
//! remove:  (the leader hands over) --> gone --> noted, so that its id is not used again
//! ```
//! Promises: every step is one committed change of one member; a call that is given up, or whose leader is lost,
//! is asked again and goes on where it was; a removal that would leave too few living voters is refused unless
//! it is forced. What must be done by another leader is answered as `not_leader`.
//!
//! Not here: the changes themselves (`basalt_raftstore`), who follows `not_leader` (`cli`).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use basalt_proto::{
    basaltpb::{
        AddMemberRequest, ChangeMembersResponse, MembersResponse, RemoveMemberRequest, StoreInfo,
        TransferLeaderRequest,
    },
    eraftpb::ConfChangeType,
    errorpb,
    metapb::Peer,
    raft_cmdpb::{
        self, AdminCmdType, AdminRequest, ChangePeerRequest, RaftCmdRequest, RaftRequestHeader,
    },
};
use basalt_raftstore::{RegionStatus, StoreStatus};

use super::{Cluster, hello};
use crate::{
    limits::{MAX_PROMOTION_LAG, MEMBER_COMMAND_TIMEOUT},
    storage::{Error, Result},
};

/// Between two looks at whether something has come about.
const LOOK: Duration = Duration::from_millis(50);
/// Time for one change of a member to be applied.
const STEP: Duration = Duration::from_secs(10);
/// Bits of a peer's id that hold its store; those above hold the version of the membership it was added in.
const STORE_BITS: u32 = 20;

/// Ids of stores that can be added later lie below this, so that the ids of their peers are unique.
pub(super) const MAX_STORE_ID: u64 = (1 << STORE_BITS) - 1;

/// What a call has come to: sentences, or where to go on.
type Done = Result<ChangeMembersResponse>;

fn not_leader(region: &RegionStatus) -> ChangeMembersResponse {
    let message = match &region.leader {
        Some(leader) => format!(
            "region {} is led by store {}",
            region.region.id, leader.store_id
        ),
        None => format!("no leader of region {} is known", region.region.id),
    };
    ChangeMembersResponse {
        region_error: Some(errorpb::Error {
            message,
            not_leader: Some(errorpb::NotLeader {
                region_id: region.region.id,
                leader: region.leader,
            }),
            ..errorpb::Error::default()
        }),
        done: Vec::new(),
    }
}

fn is_leader(region: &RegionStatus) -> bool {
    region.role == "leader"
}

fn peer_on(region: &RegionStatus, store_id: u64) -> Option<Peer> {
    let peers = &region.region.peers;
    peers.iter().find(|peer| peer.store_id == store_id).copied()
}

/// A follower as its leader sees it.
fn is_learner(region: &RegionStatus, peer: &Peer) -> bool {
    let mut followers = region.followers.iter();
    followers.any(|follower| follower.peer.id == peer.id && follower.is_learner)
}

/// Whether a learner has nearly all that the leader has.
fn has_caught_up(region: &RegionStatus, peer: &Peer) -> bool {
    let mut followers = region.followers.iter();
    followers.any(|follower| {
        follower.peer.id == peer.id
            && follower.active
            && follower.state == "replicate"
            && follower.matched + MAX_PROMOTION_LAG >= region.last_index
    })
}

/// Whether the voters but the one on `without` have a majority that is alive.
fn keeps_quorum(region: &RegionStatus, without: u64) -> bool {
    let others = region.followers.iter().filter(|other| !other.is_learner);
    let others = others.filter(|other| other.peer.store_id != without);
    let (mut voters, mut alive) = (0, 0);
    for other in others {
        voters += 1;
        alive += usize::from(other.active);
    }
    if region.peer.store_id != without {
        (voters, alive) = (voters + 1, alive + 1);
    }
    alive > voters / 2
}

/// Whether somebody else could come to lead.
fn has_other_voters(region: &RegionStatus) -> bool {
    region.followers.iter().any(|other| !other.is_learner)
}

impl Cluster {
    /// Who belongs to the cluster, as far as this store knows.
    #[must_use]
    pub fn members(&self) -> MembersResponse {
        let identity = self.identity();
        MembersResponse {
            cluster_id: identity.cluster_id,
            cluster_name: identity.cluster_name,
            store_id: identity.store_id,
            stores: self.directory.all(),
        }
    }

    /// Makes a store a voter of every region that is led here.
    ///
    /// # Errors
    ///
    /// What keeps it from becoming one.
    pub async fn add_member(self: &Arc<Self>, request: AddMemberRequest) -> Done {
        let store_id = request.store_id;
        self.acquaint(store_id, request.address).await?;
        let mut done = Vec::new();
        for region_id in self.region_ids().await? {
            let mut region = self.region(region_id).await?;
            if peer_on(&region, store_id).is_none() {
                if !is_leader(&region) {
                    return Ok(not_leader(&region));
                }
                self.spread_the_word().await;
                let conf_ver = region.region.region_epoch.unwrap_or_default().conf_ver;
                let peer = Peer {
                    id: (conf_ver << STORE_BITS) | store_id,
                    store_id,
                };
                self.change(&region, ConfChangeType::AddLearnerNode, peer)
                    .await?;
                done.push(format!("region {region_id}: store {store_id} learns"));
            }
            let peer = loop {
                region = self.region(region_id).await?;
                let Some(peer) = peer_on(&region, store_id) else {
                    // The change is committed and not yet applied in what the status shows.
                    tokio::time::sleep(LOOK).await;
                    continue;
                };
                if !is_leader(&region) {
                    return Ok(not_leader(&region));
                }
                let is_due = !is_learner(&region, &peer) || has_caught_up(&region, &peer);
                if peer.store_id == region.peer.store_id || is_due {
                    break peer;
                }
                tokio::time::sleep(LOOK).await;
            };
            if is_learner(&region, &peer) {
                self.change(&region, ConfChangeType::AddNode, peer).await?;
                done.push(format!("region {region_id}: store {store_id} votes"));
            }
        }
        Ok(ChangeMembersResponse {
            region_error: None,
            done,
        })
    }

    /// Removes a store from every region that is led here.
    ///
    /// # Errors
    ///
    /// Why it is not removed.
    pub async fn remove_member(self: &Arc<Self>, request: RemoveMemberRequest) -> Done {
        let RemoveMemberRequest { store_id, force } = request;
        if self.directory.get(store_id).is_none() {
            return Err(Error::InvalidArgument(format!(
                "store {store_id} is not known"
            )));
        }
        let mut done = Vec::new();
        for region_id in self.region_ids().await? {
            let region = self.region(region_id).await?;
            let Some(peer) = peer_on(&region, store_id) else {
                continue;
            };
            if !is_leader(&region) {
                return Ok(not_leader(&region));
            }
            if region.region.peers.len() == 1 {
                return Err(Error::InvalidArgument(format!(
                    "store {store_id} has the last copy of region {region_id}"
                )));
            }
            if store_id == region.peer.store_id && !has_other_voters(&region) {
                return Err(Error::InvalidArgument(format!(
                    "store {store_id} is the only one that votes in region {region_id}, so nobody could lead after it; \
                     make another store a voter first (basalt member add)"
                )));
            }
            if !force && !keeps_quorum(&region, store_id) {
                return Err(Error::InvalidArgument(format!(
                    "without store {store_id} the stores of region {region_id} that are alive are no majority; add a \
                     store first, or use --force"
                )));
            }
            if store_id == region.peer.store_id {
                // The new leader goes on.
                return self.hand_region_over(&region).await;
            }
            self.change(&region, ConfChangeType::RemoveNode, peer)
                .await?;
            done.push(format!("region {region_id}: store {store_id} is removed"));
        }
        let noted = self.blocking(move |cluster| cluster.directory.remove(store_id));
        noted.await.map_err(Error::Busy)?;
        self.spread_the_word().await;
        Ok(ChangeMembersResponse {
            region_error: None,
            done,
        })
    }

    /// Hands regions that are led here to a store.
    ///
    /// # Errors
    ///
    /// Why it does not lead them.
    pub async fn transfer_leader(self: &Arc<Self>, request: TransferLeaderRequest) -> Done {
        let TransferLeaderRequest {
            region_id,
            store_id,
        } = request;
        let regions = match region_id {
            0 => self.region_ids().await?,
            one => vec![one],
        };
        let mut done = Vec::new();
        for region_id in regions {
            let region = self.region(region_id).await?;
            let has_it = |region: &RegionStatus| {
                region
                    .leader
                    .is_some_and(|leader| leader.store_id == store_id)
            };
            if has_it(&region) {
                done.push(format!(
                    "region {region_id}: store {store_id} leads already"
                ));
                continue;
            }
            if !is_leader(&region) {
                return Ok(not_leader(&region));
            }
            let peer = peer_on(&region, store_id).ok_or_else(|| {
                Error::InvalidArgument(format!(
                    "store {store_id} has no peer of region {region_id}"
                ))
            })?;
            self.hand_to(&region, peer).await?;
            let until = Instant::now() + STEP;
            while !has_it(&self.region(region_id).await?) {
                if Instant::now() >= until {
                    return Err(Error::Busy(format!(
                        "store {store_id} does not take region {region_id}"
                    )));
                }
                tokio::time::sleep(LOOK).await;
            }
            done.push(format!("region {region_id}: store {store_id} leads"));
        }
        Ok(ChangeMembersResponse {
            region_error: None,
            done,
        })
    }

    /// Has leadership of all regions go to other stores, as far as it does in time: before a stop.
    pub async fn hand_over(&self, limit: Duration) {
        let Ok(handle) = self.handle() else {
            return;
        };
        handle.hand_over();
        let until = Instant::now() + limit;
        while let Some(status) = self.status().await {
            let leads = |region: &RegionStatus| is_leader(region) && region.region.peers.len() > 1;
            if !status.regions.iter().any(leads) {
                return;
            }
            if Instant::now() >= until {
                tracing::warn!("leadership was not taken over in time");
                return;
            }
            tokio::time::sleep(LOOK / 5).await;
        }
    }

    /// Gets to know a store that is about to be added, and it this one.
    async fn acquaint(self: &Arc<Self>, store_id: u64, address: String) -> Result<()> {
        let refuse = |what: String| Err(Error::InvalidArgument(what));
        if store_id == 0 || store_id > MAX_STORE_ID {
            return refuse(format!(
                "{store_id} is no id of a store: 1 to {MAX_STORE_ID}"
            ));
        }
        if store_id == self.store_id() {
            return Ok(());
        }
        let known = self.directory.get(store_id);
        if known.as_ref().is_some_and(|known| known.removed) {
            return refuse(format!(
                "store {store_id} was removed; its id is not used again"
            ));
        }
        if known.is_none() {
            if address.is_empty() {
                return refuse(format!(
                    "store {store_id} has not said where it is; name its address"
                ));
            }
            let told = vec![StoreInfo {
                incarnation: 0,
                ..hello::introduction(store_id, &address, 0)
            }];
            let noted = self.blocking(move |cluster| cluster.directory.merge(&told));
            noted.await.map_err(Error::Busy)?;
        }
        let greeted = self.greet(store_id).await;
        greeted.or_else(|why| refuse(format!("store {store_id} cannot be added: {}", why.text())))
    }

    /// Tells all others whom this store knows, before it matters to them.
    async fn spread_the_word(self: &Arc<Self>) {
        let cluster = Arc::clone(self);
        // Whoever does not hear it now hears it with the next round.
        let _ = tokio::time::timeout(STEP, async move { cluster.gossip().await }).await;
    }

    async fn all_regions(&self) -> Result<StoreStatus> {
        if let Some(error) = self.unable() {
            return Err(error);
        }
        self.status().await.ok_or(Error::Deadline)
    }

    async fn region_ids(&self) -> Result<Vec<u64>> {
        let status = self.all_regions().await?;
        let ids: Vec<u64> = status.regions.iter().map(|one| one.region.id).collect();
        if ids.is_empty() {
            // Others have: the caller goes on to them.
            return Err(Error::Region(Box::new(errorpb::Error {
                message: format!("store {} has no region", status.store_id),
                region_not_found: Some(errorpb::RegionNotFound::default()),
                ..errorpb::Error::default()
            })));
        }
        Ok(ids)
    }

    async fn region(&self, region_id: u64) -> Result<RegionStatus> {
        let status = self.all_regions().await?;
        let mut regions = status.regions.into_iter();
        let found = regions.find(|region| region.region.id == region_id);
        found.ok_or_else(|| Error::InvalidArgument(format!("region {region_id} is not here")))
    }

    async fn change(
        &self,
        region: &RegionStatus,
        change_type: ConfChangeType,
        peer: Peer,
    ) -> Result<()> {
        let admin = AdminRequest {
            cmd_type: AdminCmdType::ChangePeer.into(),
            change_peer: Some(ChangePeerRequest {
                change_type: change_type.into(),
                peer: Some(peer),
            }),
            ..AdminRequest::default()
        };
        self.command(region, admin).await
    }

    async fn hand_to(&self, region: &RegionStatus, peer: Peer) -> Result<()> {
        let admin = AdminRequest {
            cmd_type: AdminCmdType::TransferLeader.into(),
            transfer_leader: Some(raft_cmdpb::TransferLeaderRequest { peer: Some(peer) }),
            ..AdminRequest::default()
        };
        self.command(region, admin).await
    }

    /// Hands a region to the voter whose log is closest, and answers who that is once it leads.
    async fn hand_region_over(&self, region: &RegionStatus) -> Done {
        let voters = region.followers.iter();
        let voters = voters.filter(|follower| follower.active && !follower.is_learner);
        let best = voters.max_by_key(|follower| follower.matched);
        let best = best.ok_or_else(|| {
            Error::Busy(format!("nobody can take region {} over", region.region.id))
        })?;
        self.hand_to(region, best.peer).await?;
        let until = Instant::now() + STEP;
        loop {
            let now = self.region(region.region.id).await?;
            if !is_leader(&now) && now.leader.is_some() {
                return Ok(not_leader(&now));
            }
            if Instant::now() >= until {
                let what = format!("store {} does not take over", best.peer.store_id);
                return Err(Error::Busy(what));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn command(&self, region: &RegionStatus, admin: AdminRequest) -> Result<()> {
        let request = RaftCmdRequest {
            header: Some(RaftRequestHeader {
                region_id: region.region.id,
                peer: Some(region.peer),
                region_epoch: region.region.region_epoch,
                term: 0,
            }),
            requests: Vec::new(),
            admin_request: Some(admin),
        };
        let deadline = Instant::now() + MEMBER_COMMAND_TIMEOUT;
        self.propose(request, deadline).await
    }
}

#[cfg(test)]
mod tests {
    use basalt_proto::metapb::Region;
    use basalt_raftstore::FollowerStatus;

    use super::*;

    fn region(others: &[(u64, bool, bool)]) -> RegionStatus {
        let follower = |&(store_id, active, is_learner): &(u64, bool, bool)| FollowerStatus {
            peer: Peer {
                id: store_id,
                store_id,
            },
            matched: 10,
            state: "replicate",
            active,
            is_learner,
        };
        let own = Peer { id: 1, store_id: 1 };
        let mut peers = vec![own];
        peers.extend(others.iter().map(|other| follower(other).peer));
        RegionStatus {
            region: Region {
                id: 1,
                peers,
                ..Region::default()
            },
            peer: own,
            role: "leader",
            last_index: 10,
            followers: others.iter().map(follower).collect(),
            ..RegionStatus::default()
        }
    }

    #[test]
    fn a_removal_counts_the_voters_that_are_left_and_alive() {
        for (others, without, expected) in [
            (&[(2, true, false), (3, true, false)][..], 3, true),
            (&[(2, false, false), (3, true, false)], 2, true),
            (&[(2, false, false), (3, true, false)], 3, false),
            (&[(2, true, false), (3, true, false)], 1, true),
            (&[(2, true, false), (3, false, false)], 1, false),
            (&[(2, false, false)], 2, true),
            (
                &[(2, false, false), (3, true, false), (4, true, true)],
                3,
                false,
            ),
        ] {
            assert_eq!(
                keeps_quorum(&region(others), without),
                expected,
                "{others:?} {without}"
            );
        }
    }

    #[test]
    fn learners_cannot_take_a_region_over() {
        for (others, expected) in [
            (&[][..], false),
            (&[(2, true, true), (3, true, true)], false),
            (&[(2, true, true), (3, false, false)], true),
        ] {
            assert_eq!(has_other_voters(&region(others)), expected, "{others:?}");
        }
    }

    #[test]
    fn a_learner_has_caught_up_when_its_log_is_near_the_leaders_and_it_is_alive() {
        let peer = Peer { id: 2, store_id: 2 };
        let mut region = region(&[(2, true, true)]);
        assert!(is_learner(&region, &peer) && has_caught_up(&region, &peer));
        region.last_index = 10 + MAX_PROMOTION_LAG;
        assert!(has_caught_up(&region, &peer));
        region.last_index += 1;
        assert!(!has_caught_up(&region, &peer));
        region.last_index = 10;
        region.followers[0].state = "snapshot";
        assert!(!has_caught_up(&region, &peer));
        region.followers[0].state = "replicate";
        region.followers[0].active = false;
        assert!(!has_caught_up(&region, &peer));
    }
}
