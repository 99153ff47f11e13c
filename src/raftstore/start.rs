//! Which peers a store starts with, and what ends first that a crash has cut short.

use basalt_engine::{ColumnFamily, Db, ReadOptions, WriteBatch, WriteOptions};
use basalt_proto::raft_serverpb::PeerState;

use crate::{
    Engines, Error, Result,
    keys::{self, Key},
    peer_storage::life::put_clearing,
    states,
};

/// A peer of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerAt {
    /// Its region.
    pub region: u64,
    /// The peer.
    pub peer: u64,
}

/// The peers to be opened when a store starts, by region: those of kvdb, and those that only raftdb
/// knows, as their first snapshot is not installed. A peer that a message made, and that has no snapshot
/// yet, is not among them: the next message opens it, with its vote.
///
/// What removed peers have left in raftdb is cleared, durably, so that the files of their snapshots may
/// go after that.
///
/// # Errors
///
/// [`Error::Engine`], [`Error::Corruption`].
pub fn peers(engines: &Engines) -> Result<Vec<PeerAt>> {
    let mut peers = Vec::new();
    for region in regions(&engines.kv, &engines.local, &keys::region_states())? {
        let state = states::region_state(engines, region)?;
        if let Some(state) = state.filter(|state| state.state() == PeerState::Normal) {
            let peer = state.peer_id;
            peers.push(PeerAt { region, peer });
        }
    }
    let mut leftovers = WriteBatch::new();
    for region in regions(&engines.raft, &engines.states, &keys::local())? {
        let there = states::region_state(engines, region)?;
        let here = states::raft_state(engines, region)?.map(|state| state.peer_id);
        let intent = states::intent(engines, region)?.map(|intent| intent.peer_id);
        let Some(peer) = here.filter(|_| intent.is_none_or(|owner| Some(owner) == here)) else {
            let what = "its snapshot intent is not that of the peer of its raft state";
            return Err(Error::corruption(region, what));
        };
        match there.map(|state| (state.state(), state.peer_id)) {
            Some((PeerState::Tombstone, last)) if last >= peer => {
                put_clearing(engines, region, &mut leftovers);
            }
            Some((PeerState::Normal, _)) => {}
            Some((PeerState::Tombstone, _)) | None if intent.is_some() => {
                peers.push(PeerAt { region, peer });
            }
            Some((PeerState::Tombstone, _)) | None => {}
        }
    }
    if !leftovers.is_empty() {
        engines.raft.write(leftovers, WriteOptions::SYNC)?;
    }
    peers.sort_unstable();
    Ok(peers)
}

/// The regions that have a state of their own in `range` of a family, ascending.
fn regions<B: AsRef<[u8]>>(
    db: &Db,
    family: &ColumnFamily,
    range: &std::ops::Range<B>,
) -> Result<Vec<u64>> {
    let options = ReadOptions {
        lower: Some(range.start.as_ref().to_vec()),
        upper: Some(range.end.as_ref().to_vec()),
        ..ReadOptions::default()
    };
    let mut regions = Vec::new();
    let mut iter = db.iter(family, &options)?;
    iter.seek_to_first()?;
    while iter.valid() {
        match Key::decode(iter.key()) {
            Some(Key::RegionState(region) | Key::RaftState(region) | Key::Intent(region)) => {
                regions.push(region);
            }
            _ => {
                return Err(Error::corruption(
                    0,
                    "a key among the states is none of theirs",
                ));
            }
        }
        iter.next()?;
    }
    // A raft state and an intent of one region stand side by side.
    regions.dedup();
    Ok(regions)
}
