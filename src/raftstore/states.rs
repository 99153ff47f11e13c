//! The records of a peer: what a new one starts with, and how they are read and written.
//!
//! RaftLocalState is in raftdb; RaftApplyState and RegionLocalState are in kvdb and go into the same
//! batch as the data they speak of. Values are plain protobuf (FORMAT.md, section 9).

use basalt_engine::{ColumnFamily, Db, WriteBatch};
use basalt_proto::{
    eraftpb::{ConfState, HardState},
    metapb::Region,
    raft_serverpb::{
        PeerState, RaftApplyState, RaftLocalState, RaftTruncatedState, RegionLocalState,
        SnapshotIntent,
    },
};
use prost::Message;

use crate::{Engines, Error, Result, keys};

/// The index that the log of a bootstrapped region stands at: not 0, so that a peer which was made
/// by a message, and stands at 0, needs a snapshot.
pub const RAFT_INIT_LOG_INDEX: u64 = 5;
/// The term of it.
pub const RAFT_INIT_LOG_TERM: u64 = 5;

/// The Raft state of a new peer. A region that is `initialized` has peers and a range.
#[must_use]
pub fn initial_raft_state(peer_id: u64, initialized: bool) -> RaftLocalState {
    let (index, term) = initial_log(initialized);
    RaftLocalState {
        hard_state: Some(HardState {
            term,
            vote: 0,
            commit: index,
        }),
        last_index: index,
        last_term: term,
        peer_id,
    }
}

/// The apply state of a new peer.
#[must_use]
pub fn initial_apply_state(initialized: bool) -> RaftApplyState {
    let (index, term) = initial_log(initialized);
    RaftApplyState {
        applied_index: index,
        truncated_state: Some(RaftTruncatedState { index, term }),
    }
}

fn initial_log(initialized: bool) -> (u64, u64) {
    if initialized {
        (RAFT_INIT_LOG_INDEX, RAFT_INIT_LOG_TERM)
    } else {
        (0, 0)
    }
}

/// The membership in which all peers of `region` vote.
#[must_use]
pub fn all_vote(region: &Region) -> ConfState {
    ConfState {
        nodes: region.peers.iter().map(|peer| peer.id).collect(),
        ..ConfState::default()
    }
}

/// The region state of a living peer.
#[must_use]
pub fn normal(region: &Region, conf_state: &ConfState, peer_id: u64) -> RegionLocalState {
    RegionLocalState {
        state: PeerState::Normal.into(),
        region: Some(region.clone()),
        peer_id,
        conf_state: Some(conf_state.clone()),
    }
}

/// The region state that a removed peer leaves.
#[must_use]
pub fn tombstone(region: &Region, peer_id: u64) -> RegionLocalState {
    RegionLocalState {
        state: PeerState::Tombstone.into(),
        region: Some(region.clone()),
        peer_id,
        conf_state: None,
    }
}

/// The truncated state of an apply state.
pub(crate) fn truncated(state: &RaftApplyState) -> RaftTruncatedState {
    state.truncated_state.unwrap_or_default()
}

pub(crate) fn truncated_at(index: u64, term: u64) -> RaftTruncatedState {
    RaftTruncatedState { index, term }
}

/// The apply state behind an installed snapshot.
pub(crate) fn installed(truncated: RaftTruncatedState) -> RaftApplyState {
    RaftApplyState {
        applied_index: truncated.index,
        truncated_state: Some(truncated),
    }
}

/// Puts a region's apply state into a batch for kvdb, beside the data it speaks of.
pub fn put_apply_state(
    engines: &Engines,
    batch: &mut WriteBatch,
    region: u64,
    state: &RaftApplyState,
) {
    let key = keys::apply_state(region);
    batch.put(&engines.local, &key, &state.encode_to_vec());
}

/// Puts a region state into a batch for kvdb, beside the apply state at which it changed.
pub fn put_region_state(
    engines: &Engines,
    batch: &mut WriteBatch,
    region: u64,
    state: &RegionLocalState,
) {
    let key = keys::region_state(region);
    batch.put(&engines.local, &key, &state.encode_to_vec());
}

/// Puts a Raft state into a batch for raftdb.
pub fn put_raft_state(
    engines: &Engines,
    batch: &mut WriteBatch,
    region: u64,
    state: &RaftLocalState,
) {
    let key = keys::raft_state(region);
    batch.put(&engines.states, &key, &state.encode_to_vec());
}

/// A region's apply state.
///
/// # Errors
///
/// [`Error::Engine`]; [`Error::Corruption`] for bytes that are none. So for the others here.
pub fn apply_state(engines: &Engines, region: u64) -> Result<Option<RaftApplyState>> {
    let key = keys::apply_state(region);
    read(&engines.kv, &engines.local, region, &key, "apply state")
}

/// A region's state.
///
/// # Errors
///
/// As for [`apply_state`].
pub fn region_state(engines: &Engines, region: u64) -> Result<Option<RegionLocalState>> {
    let key = keys::region_state(region);
    read(&engines.kv, &engines.local, region, &key, "region state")
}

/// A region's Raft state.
///
/// # Errors
///
/// As for [`apply_state`].
pub fn raft_state(engines: &Engines, region: u64) -> Result<Option<RaftLocalState>> {
    let key = keys::raft_state(region);
    read(&engines.raft, &engines.states, region, &key, "raft state")
}

/// The snapshot that a region is about to install.
///
/// # Errors
///
/// As for [`apply_state`].
pub fn intent(engines: &Engines, region: u64) -> Result<Option<SnapshotIntent>> {
    let key = keys::intent(region);
    read(&engines.raft, &engines.states, region, &key, "intent")
}

fn read<M: Message + Default>(
    db: &Db,
    family: &ColumnFamily,
    region: u64,
    key: &[u8],
    name: &str,
) -> Result<Option<M>> {
    let Some(bytes) = db.get(family, key)? else {
        return Ok(None);
    };
    let decoded = M::decode(&bytes[..]);
    let wrong = |error| Error::corruption(region, format!("the {name} does not decode: {error}"));
    decoded.map(Some).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bootstrapped_peer_stands_at_index_five_of_term_five() {
        let raft = initial_raft_state(9, true);
        let hard_state = raft.hard_state.unwrap();
        let seen = (hard_state.term, hard_state.vote, hard_state.commit);
        assert_eq!(seen, (5, 0, 5));
        assert_eq!((raft.last_index, raft.last_term, raft.peer_id), (5, 5, 9));
        let apply = initial_apply_state(true);
        let truncated = apply.truncated_state.unwrap();
        let seen = (apply.applied_index, truncated.index, truncated.term);
        assert_eq!(seen, (5, 5, 5));
    }

    #[test]
    fn a_peer_made_by_a_message_stands_at_nothing() {
        let raft = initial_raft_state(9, false);
        assert_eq!(raft.hard_state, Some(HardState::default()));
        assert_eq!((raft.last_index, raft.last_term, raft.peer_id), (0, 0, 9));
        assert_eq!(initial_apply_state(false).applied_index, 0);
    }
}
