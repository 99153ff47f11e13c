//! Messages of other stores: whether they concern a peer here, make one, or end one.

use std::ops::Bound;

use basalt_proto::{
    metapb::{self, Region, RegionEpoch},
    raft_serverpb::{PeerState, RaftMessage, RaftSnapshotData},
};
use basalt_raft::{
    NONE,
    eraftpb::{Message, MessageType},
};
use prost::Message as _;

use super::{Store, raft_failed, ready::send};
use crate::{
    Result,
    command::contains,
    snapshot::{Origin, SnapshotKey},
    states,
};

/// Questions, with nothing but refusals since, after which a peer without its first snapshot is forgotten.
const MAX_UNANSWERED: u32 = 3;

/// Ticks without a leader after which a learner asks whether it was removed.
const SILENT_TICKS: u32 = 100;

impl Store {
    pub(super) fn handle_raft_message(&mut self, message: RaftMessage) -> Result<()> {
        let (Some(from), Some(to)) = (message.from_peer, message.to_peer) else {
            return Ok(());
        };
        let Some(epoch) = message.region_epoch else {
            return Ok(());
        };
        if to.store_id != self.config.store_id || !is_peer_id(to.id) || !is_peer_id(from.id) {
            return Ok(());
        }
        let region_id = message.region_id;
        if message.is_tombstone {
            return self.take_tombstone(region_id, to, epoch);
        }
        let Some(peer) = self.peers.get_mut(&region_id) else {
            return self.make_peer(from, to, epoch, message);
        };
        if to.id > peer.meta.id {
            // This one was removed and does not know it yet; the newer one is made by a later message.
            let region = peer.region().cloned();
            let region = region.unwrap_or_else(|| bare_region(region_id, epoch));
            peer.leaving.get_or_insert(region);
            peer.is_dirty = true;
            return Ok(());
        }
        if peer.leaving.is_some() {
            return Ok(());
        }
        let stranger = peer.region().is_some_and(|region| {
            let ours = region.region_epoch.unwrap_or_default();
            let is_member = region.peers.iter().any(|member| member.id == from.id);
            // Of one epoch there is one membership: who knows this one, and is not in it, was removed.
            epoch.conf_ver <= ours.conf_ver && !is_member
        });
        if stranger {
            let epoch = peer.region().and_then(|region| region.region_epoch);
            // What it is told it acts upon, so it must be durable here; until then it asks again.
            if peer.settled_with <= self.persisted {
                self.tell_removed(region_id, from, to, epoch, &message);
            }
            return Ok(());
        }
        if to.id < peer.meta.id {
            // Meant for a peer that was here before this one.
            return Ok(());
        }
        let Some(inner) = message.message else {
            return Ok(());
        };
        if inner.msg_type() == MessageType::MsgSnapshot && !self.takes_snapshot(region_id, &inner) {
            return Ok(());
        }
        let Some(peer) = self.peers.get_mut(&region_id) else {
            return Ok(());
        };
        peer.learn(from);
        for member in message.members {
            peer.learn(member);
        }
        if epoch.conf_ver > peer.told.conf_ver {
            peer.told = epoch;
        }
        peer.is_dirty = true;
        // A refusal is no sign that it is wanted: peers that are gone themselves refuse, too.
        if inner.msg_type() != MessageType::MsgPreVoteResp {
            peer.unanswered = 0;
        }
        if from.id == peer.raw.raft().leader() {
            peer.heard = self.now;
        }
        match peer.raw.step(inner) {
            Ok(()) => Ok(()),
            Err(basalt_raft::Error::Storage(error)) => Err(raft_failed(error.into())),
            // Whoever says such a thing is faulty, or late; what is here stays as it is.
            Err(error) => {
                self.log(
                    basalt_raft::Level::Warn,
                    format_args!("region {region_id}: refused a message: {error}"),
                );
                Ok(())
            }
        }
    }

    /// A learner never campaigns, nor does a peer without its first snapshot, so one that was removed while it
    /// was away would wait for ever: one that has heard nothing for long asks. So does a voter whose fellow members have all been
    /// removed before it, of those whom it has heard of from them. The question is that of a candidate with an empty log, for whom nobody
    /// votes; members who know that it was removed say so.
    pub(super) fn ask_whether_removed(&mut self) {
        let patience = self.config.tick * SILENT_TICKS;
        for peer in self.peers.values_mut() {
            let raft = peer.raw.raft();
            let never_campaigns = raft.is_learner() || peer.region().is_none();
            let waits = peer.leaving.is_none() && (never_campaigns || raft.leader() == NONE);
            if !waits || self.now.saturating_sub(peer.heard) < patience {
                continue;
            }
            let members = peer.region().map_or(&[][..], |region| &region.peers);
            let is_member = |id: u64| members.iter().any(|member| member.id == id);
            let mut asked = peer.others();
            if !never_campaigns {
                // Members hear from it when it campaigns.
                asked.retain(|to| !is_member(to.id));
            }
            if asked.is_empty() {
                continue;
            }
            peer.heard = self.now;
            peer.unanswered += 1;
            let term = peer.raw.raft().term() + 1;
            for to in asked {
                let question = Message {
                    msg_type: MessageType::MsgPreVote.into(),
                    to: to.id,
                    from: peer.meta.id,
                    term,
                    ..Message::default()
                };
                send(&mut *self.transport, peer, to, question);
            }
        }
        // One that has nothing yet, and whom all that it knew are gone from, is forgotten, as by a restart:
        // what it has promised is in raftdb, and the next message makes it again.
        self.peers.retain(|_, peer| {
            let is_lost = peer.region().is_none() && peer.unanswered > MAX_UNANSWERED;
            !(is_lost && peer.is_at_rest())
        });
    }

    /// Says to a candidate that it was removed: it would ask for ever.
    fn tell_removed(
        &mut self,
        region_id: u64,
        from: metapb::Peer,
        to: metapb::Peer,
        epoch: Option<RegionEpoch>,
        message: &RaftMessage,
    ) {
        let kind = message.message.as_ref().map(Message::msg_type);
        let asks = matches!(
            kind,
            Some(MessageType::MsgRequestVote | MessageType::MsgPreVote)
        );
        if asks {
            self.transport.send(RaftMessage {
                region_id,
                from_peer: Some(to),
                to_peer: Some(from),
                region_epoch: epoch,
                is_tombstone: true,
                ..RaftMessage::default()
            });
        }
    }

    /// Somebody says that the peer here was removed.
    fn take_tombstone(
        &mut self,
        region_id: u64,
        to: metapb::Peer,
        epoch: RegionEpoch,
    ) -> Result<()> {
        let Some(peer) = self.peers.get_mut(&region_id) else {
            return Ok(());
        };
        let ours = peer.epoch().conf_ver;
        // What a peer without a region was told may be of the moment when it was removed.
        let is_newer = epoch.conf_ver > ours || (peer.region().is_none() && epoch.conf_ver == ours);
        if to.id == peer.meta.id && is_newer {
            // What stays is what was known here: the members of that epoch. Of the one that was told they are not.
            let region = peer.region().cloned();
            let region = region.unwrap_or_else(|| bare_region(region_id, epoch));
            peer.leaving.get_or_insert(region);
            peer.is_dirty = true;
        }
        Ok(())
    }

    /// A message for a peer that is not here: it may be how the store learns that it has one.
    fn make_peer(
        &mut self,
        from: metapb::Peer,
        to: metapb::Peer,
        epoch: RegionEpoch,
        message: RaftMessage,
    ) -> Result<()> {
        let region_id = message.region_id;
        let Some(inner) = &message.message else {
            return Ok(());
        };
        if let Some(state) = states::region_state(&self.engines, region_id)? {
            let region = state.region.unwrap_or_default();
            let known = region.region_epoch.unwrap_or_default();
            let is_tombstone = PeerState::try_from(state.state) == Ok(PeerState::Tombstone);
            if is_tombstone && to.id <= state.peer_id {
                // The sender may be a member that does not know yet that this one was removed; it may
                // also be one that was removed itself.
                let is_member = region.peers.iter().any(|member| member.id == from.id);
                if is_member {
                    return self.tell_last_applied(region_id, from, to, inner, region.peers);
                }
                // A peer that was removed before its first snapshot has left nobody's name.
                if !region.peers.is_empty() && epoch.conf_ver < known.conf_ver {
                    self.tell_removed(region_id, from, to, Some(known), &message);
                }
                return Ok(());
            }
        }
        let may_make = match inner.msg_type() {
            MessageType::MsgRequestVote | MessageType::MsgPreVote => true,
            MessageType::MsgHeartbeat => inner.commit == 0,
            _ => false,
        };
        if !may_make || inner.from != from.id || inner.to != to.id {
            return Ok(());
        }
        if self.overlaps(region_id, &message.start_key, &message.end_key) {
            return Ok(());
        }
        if !self.add_waiting_peer(region_id, to)? {
            return Ok(());
        }
        self.handle_raft_message(message)
    }

    /// A member asks a peer that was removed for its vote: it does not know that the removal is committed,
    /// and may have nobody else to learn it from. There is no vote; what was applied here is committed, and
    /// a refusal tells that, and who was a member then, for the candidate may have been removed since.
    fn tell_last_applied(
        &mut self,
        region_id: u64,
        from: metapb::Peer,
        to: metapb::Peer,
        asked: &Message,
        members: Vec<metapb::Peer>,
    ) -> Result<()> {
        let (kind, term) = match asked.msg_type() {
            MessageType::MsgRequestVote => (MessageType::MsgRequestVoteResponse, asked.term),
            // It asks for the term after its own.
            MessageType::MsgPreVote => (MessageType::MsgPreVoteResp, asked.term.saturating_sub(1)),
            _ => return Ok(()),
        };
        let last = states::apply_state(&self.engines, region_id)?.unwrap_or_default();
        let last = states::truncated(&last);
        self.transport.send(RaftMessage {
            region_id,
            from_peer: Some(to),
            to_peer: Some(from),
            region_epoch: Some(RegionEpoch::default()),
            message: Some(Message {
                msg_type: kind.into(),
                from: to.id,
                to: from.id,
                term,
                reject: true,
                known_commit: last.index,
                known_commit_term: last.term,
                ..Message::default()
            }),
            members,
            ..RaftMessage::default()
        });
        Ok(())
    }

    /// Whether a range shares keys with another region's here.
    pub(super) fn overlaps(&self, region_id: u64, start: &[u8], end: &[u8]) -> bool {
        let others = self.peers.iter().filter(|(id, _)| **id != region_id);
        let mut regions = others.filter_map(|(_, peer)| peer.region());
        regions.any(|region| {
            let begins_before_its_end = region.end_key.is_empty() || start < &region.end_key[..];
            let ends_behind_its_start = end.is_empty() || end > &region.start_key[..];
            begins_before_its_end && ends_behind_its_start
        })
    }

    /// Whether a snapshot is one for the peer here, and its files are.
    fn takes_snapshot(&self, region_id: u64, inner: &Message) -> bool {
        let Some(snapshot) = &inner.snapshot else {
            return false;
        };
        let Some(peer) = self.peers.get(&region_id) else {
            return false;
        };
        let data = RaftSnapshotData::decode(snapshot.data.clone());
        let Some(region) = data.ok().and_then(|data| data.region) else {
            return false;
        };
        let is_member = region.peers.iter().any(|member| member.id == peer.meta.id);
        is_member
            && region.id == region_id
            && !self.overlaps(region_id, &region.start_key, &region.end_key)
            && SnapshotKey::of(snapshot).is_ok_and(|key| self.has_files(key))
    }

    fn has_files(&self, key: SnapshotKey) -> bool {
        let files = self.snapshots.list();
        let mut files = files.iter();
        files.any(|info| info.key == key && info.origin == Origin::Received)
    }

    /// The region of this store that has a key.
    pub(super) fn region_with(&self, key: &[u8]) -> Option<u64> {
        let up_to = (Bound::Unbounded, Bound::Included(key));
        let (_, region_id) = self.ranges.range::<[u8], _>(up_to).next_back()?;
        let region = self.peers.get(region_id)?.region()?;
        contains(region, key).then_some(*region_id)
    }
}

/// What is known of the region of a peer that never got one.
fn bare_region(id: u64, epoch: RegionEpoch) -> Region {
    Region {
        id,
        region_epoch: Some(epoch),
        ..Region::default()
    }
}

/// Whether a node can have this id.
fn is_peer_id(id: u64) -> bool {
    id != 0 && !basalt_raft::is_local_thread(id)
}
