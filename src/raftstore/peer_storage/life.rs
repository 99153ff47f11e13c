//! How a peer's storage begins and ends: created, opened from what the engines hold, destroyed.
//!
//! Whatever raftdb relies on is flushed in kvdb before.

use std::{cell::Cell, collections::VecDeque};

use basalt_engine::{SequenceNumber, WriteBatch, WriteOptions};
use basalt_proto::{
    metapb::Region,
    raft_serverpb::{PeerState, RaftLocalState, RegionLocalState},
};

use super::{Membership, PeerStorage, Pending, install::data_ranges};
use crate::{Engines, Error, Result, SaveNumber, cache::EntryCache, keys, states};

impl PeerStorage {
    /// Makes the peer `peer_id` of a region that has peers and a range, at bootstrap. It is durable when
    /// this returns; then [`PeerStorage::open`] it.
    ///
    /// # Errors
    ///
    /// As for [`PeerStorage::create_in`]; [`Error::Engine`].
    pub fn create(engines: &Engines, membership: &Membership, peer_id: u64) -> Result<()> {
        let mut batch = WriteBatch::new();
        Self::create_in(engines, membership, peer_id, &mut batch)?;
        engines.kv.write(batch, WriteOptions::NO_SYNC)?;
        engines.flush_kv()
    }

    /// As [`PeerStorage::create`], by a split: into the kvdb batch that takes the range from the region it
    /// was split from, for a crash must not part them. Flush kvdb behind it, then open the peer. One that a
    /// message has made meanwhile keeps its term and vote: its saves must be published, and it closed.
    ///
    /// # Errors
    ///
    /// [`Error::Misuse`] where the region is on this store, or `peer_id` is none of its peers;
    /// [`Error::Tombstone`]; [`Error::OtherPeer`] where a message has made a later one.
    pub fn create_in(
        engines: &Engines,
        membership: &Membership,
        peer_id: u64,
        batch: &mut WriteBatch,
    ) -> Result<()> {
        let Membership { region, conf_state } = membership;
        if !region.peers.iter().any(|peer| peer.id == peer_id) {
            let what = format!("peer {peer_id} is none of its peers");
            return Err(Error::misuse(region.id, what));
        }
        if living(engines, region.id, peer_id)?.is_some() {
            return Err(Error::misuse(region.id, "it is on this store already"));
        }
        let present = states::raft_state(engines, region.id)?.map_or(0, |state| state.peer_id);
        if present > peer_id {
            return Err(Error::OtherPeer {
                region: region.id,
                asked: peer_id,
                present,
            });
        }
        let state = states::normal(region, conf_state, peer_id);
        states::put_region_state(engines, batch, region.id, &state);
        let applied = states::initial_apply_state(true);
        states::put_apply_state(engines, batch, region.id, &applied);
        Ok(())
    }

    /// The peer `peer_id` of a region, as the engines have it; where they know nothing of the region, a
    /// peer that waits for its first snapshot. Keeps up to `cache_bytes` of its newest entries in memory.
    ///
    /// What an older peer of the region has left in raftdb is removed, durably, first.
    ///
    /// # Errors
    ///
    /// [`Error::Tombstone`] and [`Error::OtherPeer`] for a peer that is not to be here;
    /// [`Error::Corruption`] for records that do not fit together; [`Error::Engine`].
    pub fn open(
        engines: Engines,
        region_id: u64,
        peer_id: u64,
        cache_bytes: usize,
    ) -> Result<Self> {
        let region_state = living(&engines, region_id, peer_id)?;
        let apply_state = states::apply_state(&engines, region_id)?;
        // An older peer has left its own beside its tombstone.
        let is_new = region_state.is_none() && states::region_state(&engines, region_id)?.is_some();
        let apply_state = apply_state.filter(|_| !is_new);
        let wrong = |what: &str| Error::corruption(region_id, what);
        let initialized = region_state.is_some();
        if apply_state.is_some() != initialized {
            return Err(wrong("of apply state and region state only one is there"));
        }
        let initial = states::initial_apply_state(initialized);
        let apply_state = apply_state.unwrap_or(initial);
        let membership = region_state.map(|state| membership(region_id, state));
        let membership = membership.transpose()?;
        let unused = apply_state == initial;
        let raft_state = own_raft_state(&engines, region_id, peer_id, unused)?;
        if raft_state.is_none() && !unused {
            return Err(wrong("it has applied entries, and has no raft state"));
        }
        let fresh = states::initial_raft_state(peer_id, initialized);
        let raft_state = raft_state.map(|state| match state.last_index {
            0 if initialized && unused => with_promises_of(&state, fresh),
            _ => state,
        });
        let mut storage = Self {
            region_id,
            peer_id,
            membership,
            raft_state: raft_state.unwrap_or(fresh),
            apply_state,
            pending: None,
            cache: EntryCache::new(cache_bytes),
            first_stored: 0,
            last_save: SaveNumber(0),
            in_flight: VecDeque::new(),
            unflushed: VecDeque::new(),
            flushed_truncated: 0,
            last_seq: SequenceNumber::ZERO,
            applied_at: VecDeque::new(),
            offered: None,
            wanted: Cell::new(None),
            reads: Cell::default(),
            engines,
        };
        let truncated = states::truncated(&storage.apply_state).index;
        let seq = storage.engines.kv.last_seq();
        storage.unflushed.push_back((seq, truncated));
        storage.last_seq = seq;
        let applied = storage.apply_state.applied_index;
        storage.applied_at.push_back((seq, applied));
        storage.resume_snapshot()?;
        storage.check_log()?;
        let mut hard_state = storage.hard_state();
        // What is applied was committed; a commit index alone is not synced.
        hard_state.commit = hard_state.commit.max(storage.apply_state.applied_index);
        storage.raft_state.hard_state = Some(hard_state);
        Ok(storage)
    }

    /// Takes up the snapshot that was being installed, or clears what is left of it.
    fn resume_snapshot(&mut self) -> Result<()> {
        let Some(intent) = states::intent(&self.engines, self.region_id)? else {
            return Ok(());
        };
        if intent.peer_id != self.peer_id {
            // Both are written and removed in the same steps.
            let what = format!("its snapshot intent is that of peer {}", intent.peer_id);
            return Err(self.corruption(what));
        }
        let snapshot = intent.snapshot.unwrap_or_default();
        let metadata = snapshot.metadata.clone().unwrap_or_default();
        if metadata.index > self.apply_state.applied_index {
            self.pending = Some(Pending {
                truncated: states::truncated_at(metadata.index, metadata.term),
                membership: self.membership_of(&snapshot)?,
                snapshot,
                save: None,
            });
            return Ok(());
        }
        let mut batch = WriteBatch::new();
        batch.delete(&self.engines.states, &keys::intent(self.region_id));
        self.engines.raft.write(batch, WriteOptions::SYNC)?;
        Ok(())
    }

    /// Demands that the log has the entries from the truncated index to the last, as far as its ends show.
    fn check_log(&mut self) -> Result<()> {
        let truncated = self.truncated();
        let applied = self.apply_state.applied_index.max(truncated.index);
        let (last, last_term) = (self.raft_state.last_index, self.raft_state.last_term);
        if last < applied {
            return Err(
                self.corruption(format!("applied up to {applied}, with a log up to {last}"))
            );
        }
        if states::truncated(&self.apply_state).index > self.apply_state.applied_index {
            return Err(self.corruption("truncated above what is applied"));
        }
        let (first_stored, last_stored) = self.stored_ends()?.unwrap_or((last + 1, last));
        if first_stored > truncated.index + 1 {
            return Err(self.corruption(format!(
                "truncated at {}, and the log begins at {first_stored}",
                truncated.index
            )));
        }
        if last_stored != last {
            return Err(self.corruption(format!("a log up to {last} ends at {last_stored}")));
        }
        let term = if last == truncated.index {
            truncated.term
        } else {
            self.stored_entry(last)?.term
        };
        if term != last_term {
            return Err(self.corruption(format!(
                "the last entry is of term {term}, the raft state says {last_term}"
            )));
        }
        self.first_stored = first_stored;
        Ok(())
    }

    /// The first and the last index that raftdb has an entry of.
    fn stored_ends(&self) -> Result<Option<(u64, u64)>> {
        let Engines { raft, log, .. } = &self.engines;
        let range = raft.append_range(log, &keys::log_prefix(self.region_id))?;
        Ok(range.map(|range| (range.start, range.end - 1)))
    }

    /// Removes the peer from this store for good. Its data in kvdb is gone, durably, and of its states only
    /// a tombstone and the last entry that it applied are left, when this returns; the removal of its log and states in raftdb is in `batch`. That must be written behind all
    /// saves of this peer, also those that are collected and not submitted yet, and before any of a later
    /// one; where a crash comes between, the next start or the next peer of the region does it. `region` is
    /// what the tombstone says of the region. Nothing of the region may be on its way to be applied.
    ///
    /// # Errors
    ///
    /// [`Error::Engine`]; what was done then is finished by the next peer of the region.
    pub fn destroy(self, region: &Region, batch: &mut WriteBatch) -> Result<()> {
        let engines = &self.engines;
        let mut removal = WriteBatch::new();
        if let Some(membership) = &self.membership {
            for (family, start, end) in data_ranges(engines, &membership.region)? {
                removal.delete_range(&family, &start, &end);
            }
        }
        // What is applied is committed, and the others may not know it: then they ask for the vote of a peer
        // that is no more, and may need to be told.
        let applied = self.apply_state.applied_index;
        match self.read_term(applied) {
            Ok(term) if applied > 0 => {
                let last = states::installed(states::truncated_at(applied, term));
                states::put_apply_state(engines, &mut removal, self.region_id, &last);
            }
            _ => removal.delete(&engines.local, &keys::apply_state(self.region_id)),
        }
        let tombstone = states::tombstone(region, self.peer_id);
        states::put_region_state(engines, &mut removal, self.region_id, &tombstone);
        engines.kv.write(removal, WriteOptions::NO_SYNC)?;
        engines.flush_kv()?;
        put_clearing(engines, self.region_id, batch);
        Ok(())
    }
}

/// The region state of a peer that lives here; `None` where the store has none, or only the tombstone
/// of an older one.
pub(super) fn living(
    engines: &Engines,
    region: u64,
    peer: u64,
) -> Result<Option<RegionLocalState>> {
    let Some(state) = states::region_state(engines, region)? else {
        return Ok(None);
    };
    let present = state.peer_id;
    match state.state() {
        PeerState::Tombstone if present >= peer => Err(Error::Tombstone { region, peer }),
        PeerState::Tombstone => Ok(None),
        PeerState::Normal if present == peer => Ok(Some(state)),
        PeerState::Normal => Err(Error::OtherPeer {
            region,
            asked: peer,
            present,
        }),
    }
}

fn membership(region_id: u64, state: RegionLocalState) -> Result<Membership> {
    let region = state.region.unwrap_or_default();
    if region.id != region_id {
        let what = format!("its region state is that of region {}", region.id);
        return Err(Error::corruption(region_id, what));
    }
    let conf_state = state
        .conf_state
        .unwrap_or_else(|| states::all_vote(&region));
    Ok(Membership { region, conf_state })
}

/// The raft state of this peer. What an older one has left is cleared, if this one is `unused`.
fn own_raft_state(
    engines: &Engines,
    region: u64,
    peer: u64,
    unused: bool,
) -> Result<Option<RaftLocalState>> {
    let state = states::raft_state(engines, region)?;
    match state {
        Some(state) if state.peer_id == peer => Ok(Some(state)),
        Some(state) if state.peer_id > peer => Err(Error::OtherPeer {
            region,
            asked: peer,
            present: state.peer_id,
        }),
        Some(_) if unused => clear_raft(engines, region).map(|()| None),
        Some(state) => {
            let what = format!(
                "it has applied entries, and its raft state is that of peer {}",
                state.peer_id
            );
            Err(Error::corruption(region, what))
        }
        None => Ok(None),
    }
}

/// The raft state of a new peer of a region with peers, which a message had made before the split that
/// makes it was applied: what it has promised meanwhile holds.
fn with_promises_of(made_by_message: &RaftLocalState, fresh: RaftLocalState) -> RaftLocalState {
    let promised = made_by_message.hard_state.unwrap_or_default();
    let start = fresh.hard_state.unwrap_or_default();
    let mut hard_state = start;
    if promised.term >= start.term {
        (hard_state.term, hard_state.vote) = (promised.term, promised.vote);
    }
    RaftLocalState {
        hard_state: Some(hard_state),
        ..fresh
    }
}

/// Removes all that raftdb has of a region, durably.
fn clear_raft(engines: &Engines, region: u64) -> Result<()> {
    let mut batch = WriteBatch::new();
    put_clearing(engines, region, &mut batch);
    engines.raft.write(batch, WriteOptions::SYNC)?;
    Ok(())
}

/// Puts the removal of all that raftdb has of a region into a batch for it.
pub(crate) fn put_clearing(engines: &Engines, region: u64, batch: &mut WriteBatch) {
    batch.truncate_back(&engines.log, &keys::log_prefix(region), 0);
    batch.delete(&engines.states, &keys::raft_state(region));
    batch.delete(&engines.states, &keys::intent(region));
}
