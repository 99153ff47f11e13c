//! What a store tells about itself.

use basalt_raft::{Role, tracker::ProgressState};

use super::{Peer, Store};
use crate::{FollowerStatus, LastSnapshot, RegionStatus, StoreStatus};

/// Entries that a peer may be behind before that is worth a word.
const MAX_USUAL_LAG: u64 = 10_000;
/// Ticks that an engine may take to answer before that is worth a word.
const MAX_USUAL_SILENCE: u32 = 10;

impl Store {
    /// How the store fares.
    #[must_use]
    pub fn status(&self) -> StoreStatus {
        StoreStatus {
            store_id: self.config.store_id,
            fenced: self.fenced.clone(),
            regions: self
                .peers
                .values()
                .map(|peer| self.region_status(peer))
                .collect(),
        }
    }

    fn region_status(&self, peer: &Peer) -> RegionStatus {
        let raft = peer.raw.raft();
        let storage = peer.raw.storage();
        let mut region = peer.region().cloned().unwrap_or_default();
        region.id = peer.region_id();
        let followers = if peer.leads() {
            let others = raft.progress().iter().filter(|(id, _)| *id != peer.meta.id);
            let follower =
                |(id, progress): (u64, &basalt_raft::tracker::Progress)| FollowerStatus {
                    peer: peer.whereabouts(id).unwrap_or_default(),
                    matched: progress.matched,
                    state: match progress.state {
                        ProgressState::Probe => "probe",
                        ProgressState::Replicate => "replicate",
                        ProgressState::Snapshot => "snapshot",
                    },
                    active: progress.recent_active,
                    is_learner: progress.is_learner,
                };
            others.map(follower).collect()
        } else {
            Vec::new()
        };
        let truncated = basalt_raft::Storage::first_index(storage).map_or(0, |first| first - 1);
        let mut status = RegionStatus {
            region,
            peer: peer.meta,
            leader: peer.leader(),
            role: match raft.role() {
                Role::Leader => "leader",
                Role::Follower => "follower",
                Role::Candidate => "candidate",
                Role::PreCandidate => "pre-candidate",
            },
            is_learner: raft.is_learner(),
            term: raft.term(),
            committed: raft.log().committed(),
            applied: peer.applied(),
            flushed_truncated: storage.flushed_truncated(),
            flushed_applied: storage.flushed_applied(),
            last_snapshot: peer.last_snapshot.map(|(snapshot, at)| LastSnapshot {
                age: self.now.saturating_sub(at),
                ..snapshot
            }),
            truncated,
            last_index: raft.log().last_index(),
            log_bytes: peer.log_bytes,
            followers,
            reasons: Vec::new(),
        };
        status.reasons = self.reasons(peer, &status);
        status
    }

    /// What is not as it should be.
    fn reasons(&self, peer: &Peer, status: &RegionStatus) -> Vec<String> {
        let mut reasons = Vec::new();
        if status.leader.is_none() {
            reasons.push("no leader is known".to_owned());
        }
        if peer.region().is_none() {
            reasons.push("it waits for its first snapshot".to_owned());
        }
        if peer.leaving.is_some() {
            reasons.push("it was removed and is about to go".to_owned());
        }
        if peer.raw.storage().pending_snapshot().is_some() {
            reasons.push("a snapshot is being installed".to_owned());
        }
        if peer.generating.is_some() {
            reasons.push("a snapshot is being made".to_owned());
        }
        if let Some(why) = &peer.not_made {
            reasons.push(format!("the last snapshot could not be made: {why}"));
        }
        let lag = status.committed.saturating_sub(status.applied);
        if lag >= MAX_USUAL_LAG {
            reasons.push(format!("{lag} committed entries are not applied yet"));
        }
        let held_back = peer.raw.storage().held_back();
        if held_back >= self.config.log_gc_entries.saturating_mul(2) {
            reasons.push(format!(
                "{held_back} truncated entries wait for kvdb to be flushed"
            ));
        }
        for (engine, silent) in [
            ("raftdb", self.raftdb_silent()),
            ("kvdb", self.kvdb_silent()),
        ] {
            if silent > self.config.tick * MAX_USUAL_SILENCE {
                let millis = silent.as_millis();
                reasons.push(format!("{engine} has not answered for {millis} ms"));
            }
        }
        if let Some(cause) = self.engines.kv.read_only_cause() {
            reasons.push(format!("kvdb takes no writes: {cause}"));
        }
        for follower in &status.followers {
            let (id, store) = (follower.peer.id, follower.peer.store_id);
            if !follower.active {
                reasons.push(format!(
                    "peer {id} on store {store} has not been heard from"
                ));
            } else if follower.state == "snapshot" {
                reasons.push(format!(
                    "peer {id} on store {store} is being sent a snapshot"
                ));
            } else if status.last_index.saturating_sub(follower.matched) >= MAX_USUAL_LAG {
                let behind = status.last_index - follower.matched;
                reasons.push(format!(
                    "peer {id} on store {store} is {behind} entries behind"
                ));
            }
        }
        reasons
    }
}
