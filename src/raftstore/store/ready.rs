//! What nodes hand out: saved, sent, applied; and what comes back when that is done.

use std::sync::Arc;

use basalt_engine::WriteBatch;
use basalt_proto::{metapb, raft_serverpb::RaftMessage};
use basalt_raft::{
    LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD, Ready, SnapshotStatus, entries_size,
    eraftpb::{Message, MessageType},
};

use super::{Peer, Store, peer::Saved, raft_failed};
use crate::{
    Applied, AppliedEntries, ApplyTask, Error, RegionSnapshot, Result, Save, WorkTask,
    faults::Fault,
};

impl Store {
    /// Takes the work of every node that has some.
    pub(super) fn collect(&mut self) -> Result<()> {
        let dirty = self.peers.iter().filter(|(_, peer)| peer.is_dirty);
        let dirty: Vec<u64> = dirty.map(|(region_id, _)| *region_id).collect();
        for region_id in dirty {
            self.collect_of(region_id)?;
            self.answer_reads(region_id);
            self.want_snapshot(region_id);
            self.remove_if_due(region_id)?;
        }
        Ok(())
    }

    pub(super) fn collect_of(&mut self, region_id: u64) -> Result<()> {
        let Some(peer) = self.peers.get_mut(&region_id) else {
            return Ok(());
        };
        peer.is_dirty = false;
        if !peer.raw.has_ready() {
            self.renew_lease(region_id);
            return Ok(());
        }
        let ready = peer.raw.ready().map_err(raft_failed)?;
        // Before anything leaves that ends it.
        self.renew_lease(region_id);
        let Some(peer) = self.peers.get_mut(&region_id) else {
            return Ok(());
        };
        if let Some(soft_state) = ready.soft_state {
            let leads = soft_state.role == basalt_raft::Role::Leader;
            if peer.was_leader && !leads {
                peer.deposed(self.config.faults.is(Fault::NotLeaderForPending));
            }
            peer.was_leader = leads;
            let leader = soft_state.leader;
            if leader != 0 && std::mem::replace(&mut peer.last_leader, leader) != leader {
                self.metrics.leader_changes.count();
            }
        }
        for read in &ready.read_states {
            peer.granted(&read.context, read.index);
        }
        // What is handed out once may be followed by more at once: acknowledgements of a group of one.
        peer.is_dirty = peer.raw.has_ready();
        self.take_messages(region_id, ready)
    }

    /// Says for how long the region may be read without asking this loop.
    fn renew_lease(&mut self, region_id: u64) {
        let Some(peer) = self.peers.get_mut(&region_id) else {
            return;
        };
        let mut lease = peer.lease.take();
        let mut left = peer.raw.raft().local_reads_left();
        if left > 0 && self.config.faults.is(Fault::LocalLeaseTooLong) {
            left += self.config.election_ticks * 2;
        }
        match peer.region().filter(|_| peer.leaving.is_none()) {
            Some(region) if left > 0 => {
                let left = u32::try_from(left).unwrap_or(u32::MAX);
                // The ticks up to then are counted, by this loop or, where it is late, by whoever reads.
                let until = self.ticked + self.config.tick.saturating_mul(left);
                let term = peer.raw.raft().term();
                self.leases
                    .grant(&mut lease, region, peer.meta, term, until);
            }
            _ if self.config.faults.is(Fault::LocalLeaseNotEnded) => {}
            _ => self.leases.end(&mut lease),
        }
        peer.lease = lease;
    }

    fn take_messages(&mut self, region_id: u64, ready: Ready) -> Result<()> {
        let Some(peer) = self.peers.get_mut(&region_id) else {
            return Ok(());
        };
        // First what makes a term durable, then what may have to wait for it.
        let (local, to_send): (Vec<_>, Vec<_>) = ready
            .messages
            .into_iter()
            .partition(|m| m.to == LOCAL_APPEND_THREAD || m.to == LOCAL_APPLY_THREAD);
        for mut message in local {
            if message.to == LOCAL_APPLY_THREAD {
                let by_index = self.config.faults.is(Fault::MatchByIndexOnly);
                let (now, waited) = (self.now, &self.metrics.propose_to_commit);
                let callbacks = peer.take_callbacks(&message.entries, by_index, |proposed| {
                    waited.observe(now.saturating_sub(proposed.since));
                });
                peer.applying.push_back(message.responses);
                let entries = ApplyTask::Entries {
                    region_id,
                    peer_id: peer.meta.id,
                    since: self.now,
                    entries: message.entries,
                    callbacks,
                };
                if self.config.apply_on_loop {
                    self.apply.push_quietly(entries);
                } else {
                    self.apply.push(entries);
                }
                continue;
            }
            let before = peer.raw.storage().hard_state();
            let save = Save::from(&message);
            let promises = save
                .hard_state
                .is_some_and(|after| (after.term, after.vote) != (before.term, before.vote));
            peer.log_bytes += entries_size(save.entries);
            // A commit index alone is worth no write: the next save has it, and after a crash the leader, or
            // what was applied, tells it again.
            let is_lazy = !promises && save.entries.is_empty() && save.snapshot.is_none();
            let mut later = WriteBatch::new();
            let batch = if is_lazy { &mut later } else { &mut self.batch };
            let number = peer.raw.storage_mut().save(&save, batch)?;
            if is_lazy && message.responses.is_empty() {
                continue;
            }
            peer.promised += u64::from(promises);
            peer.saving += 1;
            peer.snapshots_saving += usize::from(message.snapshot.is_some());
            self.saved.push(Saved {
                region_id,
                peer_id: peer.meta.id,
                save: number,
                is_snapshot: message.snapshot.is_some(),
                responses: std::mem::take(&mut message.responses),
                promises,
            });
        }
        let waits = peer.durable < peer.promised && !self.config.faults.is(Fault::TermBeforeSync);
        for message in to_send {
            let may_go = peer.may_send(&message, self.now);
            let Some(to) = peer.whereabouts(message.to).filter(|_| may_go) else {
                undeliverable(peer, &message)?;
                continue;
            };
            if waits {
                peer.held.push_back((peer.promised, to, message));
            } else {
                send(&mut *self.transport, peer, to, message);
            }
        }
        Ok(())
    }

    /// Responses that waited for storage: to the node itself, or to others.
    pub(super) fn deliver(&mut self, region_id: u64, responses: Vec<Message>) -> Result<()> {
        let Some(peer) = self.peers.get_mut(&region_id) else {
            return Ok(());
        };
        for message in responses {
            if message.to == peer.meta.id {
                match peer.raw.step(message) {
                    // Its own vote or acknowledgement, of a membership that it is not in any more.
                    Ok(()) | Err(basalt_raft::Error::PeerNotFound) => {}
                    Err(error) => return Err(raft_failed(error)),
                }
            } else if let Some(to) = peer.whereabouts(message.to) {
                send(&mut *self.transport, peer, to, message);
            }
        }
        Ok(())
    }

    /// Entries are applied.
    pub(super) fn applied(&mut self, done: AppliedEntries) -> Result<()> {
        let Some(peer) = self.peers.get_mut(&done.region_id) else {
            return Ok(());
        };
        if peer.meta.id != done.peer_id {
            return Ok(());
        }
        peer.is_dirty = true;
        peer.forget_handed(done.state.applied_index);
        let truncated_before = peer.raw.raft().log().first_index().map_err(log_failed)?;
        if !done.changes.is_empty() {
            // Who is told that it was removed may be the only other one who could say that this is committed:
            // so first it is durable here.
            peer.raw.storage().save_commit(&mut self.batch);
            peer.settled_with = self.turn + 1;
        }
        for (index, change) in done.changes {
            if index < truncated_before {
                // The node has taken a snapshot since, whose membership has this change in it and those
                // after it.
                continue;
            }
            match peer.raw.apply_conf_change(change) {
                // As on every other node.
                Ok(_) | Err(basalt_raft::Error::ConfChange(_)) => {}
                Err(error) => return Err(raft_failed(error)),
            }
        }
        let changed = done.membership.is_some();
        peer.raw.storage_mut().applied(Applied {
            state: done.state,
            membership: done.membership,
            seq: done.seq,
        })?;
        let first = peer.raw.raft().log().first_index().map_err(log_failed)?;
        let last = peer.raw.raft().log().last_index();
        if first > truncated_before {
            // What is left of the bytes, as if all entries were alike.
            let before = (last + 1).saturating_sub(truncated_before).max(1);
            let left = (last + 1).saturating_sub(first);
            let bytes = u128::from(peer.log_bytes) * u128::from(left) / u128::from(before);
            peer.log_bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        }
        // That of a snapshot which is still to be installed is the newer one.
        let membership = peer.raw.storage().membership().filter(|_| changed).cloned();
        if let Some(responses) = peer.applying.pop_front() {
            self.deliver(done.region_id, responses)?;
        }
        if let Some(membership) = membership {
            self.region_changed(done.region_id, &membership);
        }
        Ok(())
    }

    /// Answers reads whose index is applied.
    pub(super) fn answer_reads(&mut self, region_id: u64) {
        let early = self.config.faults.is(Fault::ReadBeforeApplied);
        let Some(peer) = self.peers.get_mut(&region_id) else {
            return;
        };
        let applied = peer.applied();
        let is_due = |index: Option<u64>| index.is_some_and(|index| early || index <= applied);
        if !peer.reads.iter().any(|read| is_due(read.index)) {
            return;
        }
        let Some(region) = peer.region().cloned() else {
            return;
        };
        let view = RegionSnapshot::new(Arc::new(region), self.engines.clone());
        for read in std::mem::take(&mut peer.reads) {
            if is_due(read.index) {
                read.callback.tell(Ok(view.clone()));
            } else {
                peer.reads.push(read);
            }
        }
    }

    /// Where a node wants a snapshot, asks whether there is room for it where it shall go.
    fn want_snapshot(&mut self, region_id: u64) {
        let Some(peer) = self.peers.get_mut(&region_id) else {
            return;
        };
        // Where one is being made already, whoever it is not for asks again.
        let to = peer.raw.storage().take_snapshot_request();
        let Some(to) = to.filter(|to| peer.may_send_to(*to, self.now)) else {
            return;
        };
        let is_idle = peer.generating.is_none() && peer.asking.is_none();
        if let Some(there) = peer.whereabouts(to).filter(|_| is_idle)
            && peer.makes.may_try(self.now)
        {
            peer.asking = Some(to);
            let question = Message {
                msg_type: MessageType::MsgSnapshot.into(),
                from: peer.meta.id,
                to,
                term: peer.raw.raft().term(),
                ..Message::default()
            };
            let question = envelope(peer, there, question);
            self.transport.ask_for_room(question);
        }
    }

    /// Has a snapshot made if there is room for it.
    pub(super) fn room(&mut self, region_id: u64, peer_id: u64, granted: bool) {
        let now = self.now;
        let peer = self.peers.get_mut(&region_id);
        let Some(peer) = peer.filter(|peer| peer.asking == Some(peer_id)) else {
            return;
        };
        peer.asking = None;
        if !granted {
            peer.sends.entry(peer_id).or_default().failed(now);
        } else if peer.leads()
            && peer.generating.is_none()
            && self.work.push(WorkTask::Generate { region_id })
        {
            peer.generating = Some(peer.applied());
        }
    }

    pub(super) fn snapshot_sent(
        &mut self,
        region_id: u64,
        peer_id: u64,
        delivered: bool,
    ) -> Result<()> {
        let Some(peer) = self.peers.get_mut(&region_id) else {
            return Ok(());
        };
        peer.is_dirty = true;
        if delivered {
            peer.sends.remove(&peer_id);
        } else {
            peer.sends.entry(peer_id).or_default().failed(self.now);
        }
        if delivered && let Some(snapshot) = peer.raw.storage().offered_snapshot().cloned() {
            let to = peer.whereabouts(peer_id);
            peer.note_snapshot("sent", &snapshot, to, self.now);
        }
        if !delivered && !super::gc::has_offered(&self.snapshots, peer) {
            // Its files were damaged or are gone: else the same one would fail for ever.
            peer.raw.storage_mut().withdraw_snapshot();
        }
        let status = match delivered {
            true => SnapshotStatus::Delivered,
            false => SnapshotStatus::Failed,
        };
        let told = peer.raw.report_snapshot(peer_id, status);
        told.map_err(raft_failed)
    }
}

/// Nobody knows where it should go, or it is too early: only a snapshot's sender waits for news.
fn undeliverable(peer: &mut Peer, message: &Message) -> Result<()> {
    if message.msg_type() != MessageType::MsgSnapshot {
        return Ok(());
    }
    let told = peer.raw.report_snapshot(message.to, SnapshotStatus::Failed);
    told.map_err(raft_failed)
}

/// Sends a node's message to another store.
pub(super) fn send(
    transport: &mut dyn crate::Transport,
    peer: &Peer,
    to: metapb::Peer,
    message: Message,
) {
    let kind = message.msg_type();
    let envelope = envelope(peer, to, message);
    if kind == MessageType::MsgSnapshot {
        transport.send_snapshot(envelope);
    } else {
        transport.send(envelope);
    }
}

/// A node's message with what the other store is told of the region.
fn envelope(peer: &Peer, to: metapb::Peer, message: Message) -> RaftMessage {
    let kind = message.msg_type();
    let mut envelope = RaftMessage {
        region_id: peer.region_id(),
        from_peer: Some(peer.meta),
        to_peer: Some(to),
        region_epoch: Some(peer.epoch()),
        ..RaftMessage::default()
    };
    if let Some(region) = peer.region() {
        // What may make a peer says of which range.
        let may_make = matches!(kind, MessageType::MsgRequestVote | MessageType::MsgPreVote)
            || (kind == MessageType::MsgHeartbeat && message.commit == 0);
        if may_make {
            envelope.start_key = region.start_key.clone();
            envelope.end_key = region.end_key.clone();
        }
    }
    envelope.message = Some(message);
    envelope
}

fn log_failed(error: basalt_raft::StorageError) -> Error {
    raft_failed(error.into())
}
