//! Log GC: which logs are shortened, and when what was truncated is deleted.
//!
//! A leader proposes to truncate when more is applied than it is to keep, by count or by bytes. It keeps
//! half of that, and what its live followers still need as long as it is within the limits: whoever is
//! further behind gets a snapshot. Every peer deletes what a flushed apply state has truncated
//! (docs/adr/0006); where kvdb has not been flushed for long, it is now.

use basalt_proto::raft_cmdpb::{
    AdminCmdType, AdminRequest, CompactLogRequest, RaftCmdRequest, RaftRequestHeader,
};
use basalt_raft::Storage as _;
use bytes::Bytes;
use prost::Message as _;

use super::{Store, peer::Peer};
use crate::{
    Result, StoreConfig, WorkTask,
    faults::Fault,
    snapshot::{Origin, SnapshotInfo, SnapshotState},
};

impl Store {
    pub(super) fn shorten_logs(&mut self) -> Result<()> {
        let mut held_back = false;
        for peer in self.peers.values_mut() {
            if peer.leads()
                && let Some(index) = truncation(peer, &self.config)
            {
                propose_truncation(peer, index);
                peer.is_dirty = true;
            }
            if peer.leaving.is_none() {
                if self.config.faults.is(Fault::GcPastFlushed) {
                    peer.raw.storage_mut().pretend_flushed();
                }
                peer.raw.storage_mut().compact_log(&mut self.batch);
                let waits = peer.raw.storage().held_back();
                held_back |= waits >= self.config.log_gc_entries
                    || (waits > 0 && peer.log_bytes >= self.config.log_gc_bytes);
            }
        }
        if held_back && !self.flushing {
            self.flushing = self.work.push(WorkTask::FlushKv);
        }
        self.sweep_snapshots();
        Ok(())
    }

    /// Removes files of snapshots that nobody will ask for: received ones that are overtaken, and made ones
    /// that the log has left behind.
    pub(super) fn sweep_snapshots(&self) {
        let needed = |info: &SnapshotInfo| {
            let Some(peer) = self.peers.get(&info.key.region) else {
                // It may be the first one of a peer that is still to be made.
                return info.origin == Origin::Received && info.state == SnapshotState::Receiving;
            };
            let storage = peer.raw.storage();
            match info.origin {
                Origin::Received => info.key.index > storage.apply_state().applied_index,
                Origin::Generated => storage
                    .first_index()
                    .is_ok_and(|first| info.key.index + 1 >= first),
            }
        };
        // What cannot be removed now is tried again by the next sweep.
        let _ = self.snapshots.remove_stale(needed);
    }
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
    let index = needed.unwrap_or(forced).max(forced).min(applied - 1);
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
