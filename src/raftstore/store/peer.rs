//! `Peer`: one region's replica on this store: its Raft node, and who waits for it.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use basalt_proto::{
    metapb::{self, Region, RegionEpoch},
    raft_cmdpb::RaftCmdResponse,
    raft_serverpb::RaftSnapshotData,
};
use basalt_raft::{
    Counts, RawNode, Role,
    eraftpb::{Message, MessageType, Snapshot},
};
use bytes::Bytes;
use prost::Message as _;

use super::backoff::Backoff;
use crate::{
    Callback, CommandError, LastSnapshot, PeerStorage, RegionSnapshot, command::Expiry,
    leases::Lease,
};

/// A proposal that is in this node's log, or was.
#[derive(Debug)]
pub(super) struct Proposed {
    pub(super) index: u64,
    pub(super) term: u64,
    /// When it was asked for.
    pub(super) since: Duration,
    pub(super) deadline: Duration,
    pub(super) callback: Callback<RaftCmdResponse>,
}

/// A proposal that is being applied. Who applies it answers, if in time.
#[derive(Debug)]
pub(super) struct Handed {
    index: u64,
    deadline: Duration,
    expiry: Expiry<RaftCmdResponse>,
}

/// A read that waits for its index, or for that to be applied.
#[derive(Debug)]
pub(super) struct Reading {
    /// Names it to the node.
    pub(super) context: u64,
    /// What must be applied first; `None` until the node has said.
    pub(super) index: Option<u64>,
    pub(super) deadline: Duration,
    pub(super) callback: Callback<RegionSnapshot>,
}

/// What waits for a turn's write: a save, and what is to be delivered when it is durable.
#[derive(Debug)]
pub(super) struct Saved {
    pub(super) region_id: u64,
    pub(super) peer_id: u64,
    pub(super) save: crate::SaveNumber,
    pub(super) responses: Vec<Message>,
    pub(super) is_snapshot: bool,
    /// The hard state had a new term or vote.
    pub(super) promises: bool,
}

/// One region's replica here.
pub(super) struct Peer {
    pub(super) meta: metapb::Peer,
    pub(super) raw: RawNode<PeerStorage>,
    /// In the order of their indexes.
    pub(super) proposals: VecDeque<Proposed>,
    /// Those that are being applied, in order.
    pub(super) handed: VecDeque<Handed>,
    /// In the order of their contexts.
    pub(super) reads: Vec<Reading>,
    /// Other peers of the region, of the present and of messages: where they live.
    known: HashMap<u64, metapb::Peer>,
    /// Messages whose term may not be durable yet: they leave when this many promises are.
    pub(super) held: VecDeque<(u64, metapb::Peer, Message)>,
    /// Hard states with a new term or vote that were handed to raftdb, and how many are durable.
    pub(super) promised: u64,
    pub(super) durable: u64,
    /// Saves that are not durable.
    pub(super) saving: usize,
    /// Those of them that have a snapshot, and responses of such that a newer one has overtaken.
    pub(super) snapshots_saving: usize,
    pub(super) overtaken: Vec<Message>,
    /// Responses of what was handed to be applied, in order.
    pub(super) applying: VecDeque<Vec<Message>>,
    /// Snapshots that are saved and not installed, with the responses of their saves.
    pub(super) installing: VecDeque<(Snapshot, Vec<Message>)>,
    /// The region as it was when the peer was found to be no member any more.
    pub(super) leaving: Option<Region>,
    /// Questions whether it was removed since a message came.
    pub(super) unanswered: u32,
    /// The turn whose write makes the last change of members durable.
    pub(super) settled_with: u64,
    /// The last snapshot that was made, sent or received, and when.
    pub(super) last_snapshot: Option<(LastSnapshot, Duration)>,
    /// A snapshot is being made: what was applied when it was asked for, below which it cannot be.
    pub(super) generating: Option<u64>,
    /// For whom a snapshot is wanted that is to be made if there is room for it there.
    pub(super) asking: Option<u64>,
    /// Tries at making one, and why the last one failed.
    pub(super) makes: Backoff,
    pub(super) not_made: Option<String>,
    /// Tries at sending one, or at being granted room for it, by the peer it was for, where the last one failed.
    pub(super) sends: HashMap<u64, Backoff>,
    pub(super) was_leader: bool,
    /// What it may be read under, as it was said last.
    pub(super) lease: Option<Arc<Lease>>,
    /// The last leader that was known.
    pub(super) last_leader: u64,
    /// What of the node's counts is in the store's figures.
    pub(super) counted: Counts,
    /// Before the first snapshot: the newest epoch that a message named. Whoever writes to a peer has it
    /// among its members, or just had, so only who knows as much can say that it was removed.
    pub(super) told: RegionEpoch,
    /// When its leader was heard from, or it began, or it has asked whether it was removed.
    pub(super) heard: Duration,
    /// Bytes of entries that are not truncated, about.
    pub(super) log_bytes: u64,
    /// There is news for `collect`.
    pub(super) is_dirty: bool,
}

impl Peer {
    pub(super) fn new(meta: metapb::Peer, raw: RawNode<PeerStorage>, now: Duration) -> Self {
        let mut peer = Self {
            meta,
            raw,
            proposals: VecDeque::new(),
            handed: VecDeque::new(),
            reads: Vec::new(),
            known: HashMap::new(),
            held: VecDeque::new(),
            promised: 0,
            durable: 0,
            saving: 0,
            snapshots_saving: 0,
            overtaken: Vec::new(),
            applying: VecDeque::new(),
            installing: VecDeque::new(),
            leaving: None,
            unanswered: 0,
            settled_with: 0,
            last_snapshot: None,
            generating: None,
            asking: None,
            makes: Backoff::default(),
            not_made: None,
            sends: HashMap::new(),
            was_leader: false,
            lease: None,
            last_leader: 0,
            counted: Counts::default(),
            told: RegionEpoch::default(),
            heard: now,
            log_bytes: 0,
            is_dirty: true,
        };
        peer.learn_members();
        peer
    }

    pub(super) fn region_id(&self) -> u64 {
        self.raw.storage().region_id()
    }

    /// The region as applied here; `None` before the first snapshot.
    pub(super) fn region(&self) -> Option<&Region> {
        let membership = self.raw.storage().membership();
        membership.map(|membership| &membership.region)
    }

    /// The epoch that it knows of.
    pub(super) fn epoch(&self) -> RegionEpoch {
        let epoch = |region: &Region| region.region_epoch.unwrap_or_default();
        self.region().map_or(self.told, epoch)
    }

    pub(super) fn leads(&self) -> bool {
        self.raw.raft().role() == Role::Leader
    }

    pub(super) fn applied(&self) -> u64 {
        self.raw.storage().apply_state().applied_index
    }

    /// Takes the members' stores from the region.
    pub(super) fn learn_members(&mut self) {
        let peers = self.region().map(|region| region.peers.clone());
        for peer in peers.into_iter().flatten() {
            self.learn(peer);
        }
    }

    /// Takes note of where a peer lives.
    pub(super) fn learn(&mut self, peer: metapb::Peer) {
        self.known.insert(peer.id, peer);
    }

    /// All peers but this one that it has heard of.
    pub(super) fn others(&self) -> Vec<metapb::Peer> {
        let mut others: Vec<_> = self.known.values().copied().collect();
        others.retain(|other| other.id != self.meta.id);
        others.sort_unstable_by_key(|other| other.id);
        others
    }

    /// Where a peer lives, if known.
    pub(super) fn whereabouts(&self, id: u64) -> Option<metapb::Peer> {
        self.known.get(&id).copied()
    }

    /// Who leads, if known.
    pub(super) fn leader(&self) -> Option<metapb::Peer> {
        match self.raw.raft().leader() {
            0 => None,
            id if id == self.meta.id => Some(self.meta),
            id => self.whereabouts(id),
        }
    }

    pub(super) fn not_leader(&self) -> CommandError {
        CommandError::NotLeader {
            region_id: self.region_id(),
            leader: self.leader().filter(|leader| *leader != self.meta),
        }
    }

    /// A proposal has got its place. Older ones at or behind it are overwritten.
    pub(super) fn remember(&mut self, proposed: Proposed) {
        while self
            .proposals
            .pop_back_if(|older| older.index >= proposed.index)
            .is_some()
        {}
        self.proposals.push_back(proposed);
    }

    /// Who waits for the entries up to `last` that are about to be applied: those whose entry it is, which
    /// are shown to `committed`. The others learn that they were overtaken.
    pub(super) fn take_callbacks(
        &mut self,
        entries: &[basalt_raft::eraftpb::Entry],
        by_index_only: bool,
        committed: impl Fn(&Proposed),
    ) -> Vec<(u64, Callback<RaftCmdResponse>)> {
        let mut callbacks = Vec::new();
        let Some((first, last)) = entries.first().zip(entries.last()) else {
            return callbacks;
        };
        while let Some(proposed) = self.proposals.pop_front_if(|p| p.index <= last.index) {
            let place = proposed.index.checked_sub(first.index);
            let entry = place
                .and_then(|place| usize::try_from(place).ok())
                .and_then(|place| entries.get(place));
            let is_it = entry.is_some_and(|entry| by_index_only || entry.term == proposed.term);
            if is_it {
                committed(&proposed);
                let (callback, expiry) = proposed.callback.with_expiry();
                callbacks.push((proposed.index, callback));
                self.handed.push_back(Handed {
                    index: proposed.index,
                    deadline: proposed.deadline,
                    expiry,
                });
            } else {
                proposed.callback.fail(CommandError::StaleCommand);
            }
        }
        callbacks
    }

    /// Answers those whose time is over.
    pub(super) fn expire(&mut self, now: Duration) {
        let late = |deadline: Duration| deadline <= now;
        if self
            .proposals
            .iter()
            .any(|proposed| late(proposed.deadline))
        {
            for proposed in std::mem::take(&mut self.proposals) {
                if late(proposed.deadline) {
                    proposed.callback.fail(CommandError::DeadlineExceeded);
                } else {
                    self.proposals.push_back(proposed);
                }
            }
        }
        if self.handed.iter().any(|handed| late(handed.deadline)) {
            for handed in std::mem::take(&mut self.handed) {
                if late(handed.deadline) {
                    handed.expiry.fail(CommandError::DeadlineExceeded);
                } else {
                    self.handed.push_back(handed);
                }
            }
        }
        if self.reads.iter().any(|read| late(read.deadline)) {
            for read in std::mem::take(&mut self.reads) {
                if late(read.deadline) {
                    read.callback.fail(CommandError::DeadlineExceeded);
                } else {
                    self.reads.push(read);
                }
            }
        }
    }

    /// Entries up to `index` are applied, and who waited for them was answered.
    pub(super) fn forget_handed(&mut self, index: u64) {
        while self
            .handed
            .pop_front_if(|handed| handed.index <= index)
            .is_some()
        {}
    }

    /// Leadership is gone: who waits for an index asks elsewhere. Proposals wait on, for their entries may
    /// still be committed by the next leader.
    pub(super) fn deposed(&mut self, not_leader_for_pending: bool) {
        let error = self.not_leader();
        for read in std::mem::take(&mut self.reads) {
            if read.index.is_none() {
                read.callback.fail(error.clone());
            } else {
                self.reads.push(read);
            }
        }
        if not_leader_for_pending {
            for proposed in self.proposals.drain(..) {
                proposed.callback.fail(error.clone());
            }
        }
    }

    /// The node has said at which index a read may be answered.
    pub(super) fn granted(&mut self, context: &Bytes, index: u64) {
        let Ok(context) = <[u8; 8]>::try_from(&context[..]) else {
            return;
        };
        let context = u64::from_be_bytes(context);
        // They are in the order of their contexts: thousands may be granted in one turn.
        let place = self
            .reads
            .binary_search_by_key(&context, |read| read.context);
        if let Ok(place) = place {
            self.reads[place].index = Some(index);
        }
    }

    /// Whether a message may be sent now; a snapshot may have to wait, after those that did not arrive.
    pub(super) fn may_send(&self, message: &Message, now: Duration) -> bool {
        message.msg_type() != MessageType::MsgSnapshot || self.may_send_to(message.to, now)
    }

    /// Whether a snapshot for a peer is of use now.
    pub(super) fn may_send_to(&self, to: u64, now: Duration) -> bool {
        let sends = self.sends.get(&to);
        sends.is_none_or(|sends| sends.may_try(now))
    }

    /// Takes note of a snapshot that was made, sent or received.
    pub(super) fn note_snapshot(
        &mut self,
        what: &'static str,
        snapshot: &Snapshot,
        to: Option<metapb::Peer>,
        now: Duration,
    ) {
        let metadata = snapshot.metadata.as_ref();
        let data = RaftSnapshotData::decode(snapshot.data.clone());
        let noted = LastSnapshot {
            what,
            index: metadata.map_or(0, |metadata| metadata.index),
            bytes: data.map_or(0, |data| data.file_size),
            to,
            age: Duration::ZERO,
        };
        self.last_snapshot = Some((noted, now));
    }

    /// Nobody's answer is on its way any more, so the peer may be removed.
    pub(super) fn is_at_rest(&self) -> bool {
        self.saving == 0 && self.applying.is_empty() && self.installing.is_empty()
    }

    /// Everybody who waits learns `error`.
    pub(super) fn fail_all(&mut self, error: &CommandError) {
        for proposed in self.proposals.drain(..) {
            // It is in a log, and whoever has that may still commit it.
            proposed.callback.fail(CommandError::StaleCommand);
        }
        for read in self.reads.drain(..) {
            read.callback.fail(error.clone());
        }
    }

    /// Nobody may come to apply what was handed out.
    pub(super) fn fail_handed(&mut self) {
        for handed in self.handed.drain(..) {
            handed.expiry.fail(CommandError::StaleCommand);
        }
    }
}
