//! Log GC: which logs are shortened, and when what was truncated is deleted.
//!
//! A leader proposes to truncate when more is applied than it is to keep, by count or by bytes. It keeps
//! half of that, and what its live followers still need as long as it is within the limits: whoever is
//! further behind gets a snapshot. What follows a snapshot that is being made or sent is kept longer, within
//! wider bounds, or under load none would be of use when it arrives. Every peer deletes what a flushed apply state has truncated
//! (docs/adr/0006); where kvdb has not been flushed for long, it is now.

use basalt_proto::raft_cmdpb::{
    AdminCmdType, AdminRequest, CompactLogRequest, RaftCmdRequest, RaftRequestHeader,
};
use basalt_raft::{
    Storage as _,
    tracker::{Progress, ProgressState},
};
use bytes::Bytes;
use prost::Message as _;

use super::{Store, backoff::Backoff, peer::Peer};
use crate::{
    Result, StoreConfig, WorkTask,
    faults::Fault,
    snapshot::{Origin, SnapshotInfo, SnapshotKey, SnapshotState, SnapshotStore},
};

/// How many times the limits a log may grow to while a snapshot is being made or sent.
const SNAPSHOT_PATIENCE: u64 = 8;

impl Store {
    pub(super) fn shorten_logs(&mut self) -> Result<()> {
        let mut held_back = false;
        for peer in self.peers.values_mut() {
            if peer.leads()
                && let Some(index) = truncation(peer, &self.config)
            {
                propose_truncation(peer, index);
                self.metrics.truncations.count();
                peer.is_dirty = true;
            }
            if peer.leaving.is_none() {
                if self.config.faults.is(Fault::GcPastFlushed) {
                    peer.raw.storage_mut().pretend_flushed();
                }
                let held = peer.raw.storage().held_back();
                peer.raw.storage_mut().compact_log(&mut self.batch);
                let waits = peer.raw.storage().held_back();
                self.metrics.entries_deleted.add(held.saturating_sub(waits));
                held_back |= waits >= self.config.log_gc_entries
                    || (waits > 0 && peer.log_bytes >= self.config.log_gc_bytes);
            }
        }
        if held_back && !self.flushing {
            self.flushing = self.flush.push(WorkTask::FlushKv);
        }
        self.sweep_snapshots();
        Ok(())
    }

    /// Removes files of snapshots that nobody will ask for: received ones that are overtaken, and made ones
    /// that no member needs any more, as there is room for few.
    pub(super) fn sweep_snapshots(&mut self) {
        for peer in self.peers.values_mut() {
            if peer.generating.is_none() && !lagging(peer).any(|_| true) {
                peer.raw.storage_mut().withdraw_snapshot();
            }
            if !behind(peer).any(|_| true) {
                // Nobody needs one, dead or alive: what failed is over.
                (peer.makes, peer.not_made) = (Backoff::default(), None);
                peer.sends.clear();
            }
        }
        let needed = |info: &SnapshotInfo| {
            let Some(peer) = self.peers.get(&info.key.region) else {
                // It may be the first one of a peer that is still to be made.
                return info.origin == Origin::Received && info.state == SnapshotState::Receiving;
            };
            let storage = peer.raw.storage();
            match info.origin {
                Origin::Received => info.key.index > storage.apply_state().applied_index,
                // One that was just made is offered when the loop hears of it.
                Origin::Generated => peer.generating.is_some() || offers(peer, info),
            }
        };
        // What cannot be removed now is tried again by the next sweep.
        let _ = self.snapshots.remove_stale(needed);
    }
}

/// Whether the files of what a peer offers are here.
pub(super) fn has_offered(snapshots: &SnapshotStore, peer: &Peer) -> bool {
    let made = snapshots.list().into_iter();
    let mut made = made.filter(|info| info.origin == Origin::Generated);
    made.any(|info| info.state != SnapshotState::Removing && offers(peer, &info))
}

fn offers(peer: &Peer, info: &SnapshotInfo) -> bool {
    let offered = peer.raw.storage().offered_snapshot();
    offered.is_some_and(|offered| SnapshotKey::of(offered).is_ok_and(|key| key == info.key))
}

/// On a leader, the members that need a snapshot, or are being sent one, and live.
fn lagging(peer: &Peer) -> impl Iterator<Item = &Progress> {
    let is_reached =
        |progress: &&Progress| progress.state == ProgressState::Snapshot || progress.recent_active;
    behind(peer).filter(is_reached)
}

/// On a leader, the members that need a snapshot, or are being sent one.
fn behind(peer: &Peer) -> impl Iterator<Item = &Progress> {
    let first = peer.raw.storage().first_index().unwrap_or(0);
    let (own, leads) = (peer.meta.id, peer.leads());
    let members = peer.raw.raft().progress().iter();
    let members = members.filter(move |(id, _)| leads && *id != own);
    members
        .map(|(_, progress)| progress)
        .filter(move |progress| {
            progress.state == ProgressState::Snapshot || progress.matched + 1 < first
        })
}

/// The index above which a log is needed by who is getting a snapshot.
fn behind_snapshots(peer: &Peer) -> Option<u64> {
    let offered = peer.raw.storage().offered_snapshot();
    let offered = offered.and_then(|offered| offered.metadata.as_ref());
    let offered = offered.map(|metadata| metadata.index);
    let sent = lagging(peer).filter_map(|progress| match progress.pending_snapshot {
        0 => offered,
        sent => Some(sent),
    });
    sent.chain(peer.generating).min()
}

/// Up to where a leader's log is to be truncated now.
fn truncation(peer: &Peer, config: &StoreConfig) -> Option<u64> {
    let storage = peer.raw.storage();
    let applied = storage.apply_state().applied_index;
    let truncated = storage.first_index().ok()? - 1;
    let kept = applied.checked_sub(truncated)?;
    let by_count = kept >= config.log_gc_entries;
    let by_bytes = peer.log_bytes >= config.log_gc_bytes;
    if kept < 2 || !(by_count || by_bytes) {
        return None;
    }
    let own = peer.meta.id;
    let live = peer.raw.raft().progress().iter();
    let live = live.filter(|(id, progress)| *id != own && progress.recent_active);
    let needed = live.map(|(_, progress)| progress.matched).min();
    let forced = applied - kept / 2;
    let mut index = needed.unwrap_or(forced).max(forced).min(applied - 1);
    let is_patient = kept < config.log_gc_entries.saturating_mul(SNAPSHOT_PATIENCE)
        && peer.log_bytes < config.log_gc_bytes.saturating_mul(SNAPSHOT_PATIENCE);
    if is_patient && let Some(snapshot) = behind_snapshots(peer) {
        index = index.min(snapshot);
    }
    (index > truncated).then_some(index)
}

fn propose_truncation(peer: &mut Peer, compact_index: u64) {
    let Ok(compact_term) = peer.raw.storage().term(compact_index) else {
        return;
    };
    let epoch = peer.region().and_then(|region| region.region_epoch);
    let request = RaftCmdRequest {
        header: Some(RaftRequestHeader {
            region_id: peer.region_id(),
            peer: Some(peer.meta),
            region_epoch: epoch,
            term: peer.raw.raft().term(),
        }),
        admin_request: Some(AdminRequest {
            cmd_type: AdminCmdType::CompactLog.into(),
            compact_log: Some(CompactLogRequest {
                compact_index,
                compact_term,
            }),
            ..AdminRequest::default()
        }),
        ..RaftCmdRequest::default()
    };
    // Refused during a transfer, or where too much is uncommitted: the next look tries again.
    let _ = peer.raw.propose(Bytes::from(request.encode_to_vec()));
}
