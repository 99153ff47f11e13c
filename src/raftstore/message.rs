//! What the loops of a store say to each other, and what others say to the store.

use std::time::Duration;

use basalt_engine::SequenceNumber;
use basalt_proto::{
    metapb::{Peer, Region},
    raft_cmdpb::{RaftCmdRequest, RaftCmdResponse},
    raft_serverpb::{RaftApplyState, RaftMessage},
};
use basalt_raft::{
    MembershipChange,
    eraftpb::{Entry, Snapshot},
};

use crate::{Callback, Installation, Installed, Membership, RegionSnapshot, Target};

/// For the store loop.
#[derive(Debug)]
pub enum StoreMessage {
    /// From another store. A snapshot's files are complete and durable here.
    Raft(Box<RaftMessage>),
    /// A write or an admin command; without a region id in its header it is routed by its first key.
    Propose(Box<Proposal>),
    /// A read.
    Read(Box<Read>),
    /// Asks how the store fares.
    Status(Callback<StoreStatus>),
    /// A message to this peer could not be delivered.
    Unreachable {
        /// The region.
        region_id: u64,
        /// To whom.
        peer_id: u64,
    },
    /// What became of a snapshot.
    SnapshotSent {
        /// The region.
        region_id: u64,
        /// To whom.
        peer_id: u64,
        /// Whether it has arrived.
        delivered: bool,
    },
    /// Whether the store of a peer would take a snapshot now.
    Room {
        /// The region.
        region_id: u64,
        /// For whom.
        peer_id: u64,
        /// Whether it would.
        granted: bool,
    },
    /// The store is about to stop: leadership is handed to others, as far as it can be.
    HandOver,
    /// Nothing more will be done: everybody who waits is told so.
    Stop,
    /// A write of raftdb has ended.
    Persisted {
        /// Which turn's.
        turn: u64,
        /// Why it failed.
        result: Result<(), basalt_engine::Error>,
    },
    /// Entries are applied, and what they did is visible.
    Applied(Vec<AppliedEntries>),
    /// A worker has failed: the store must stop.
    Failed(String),
    /// A snapshot of a region was made, or not.
    Generated {
        /// The region.
        region_id: u64,
        /// It.
        result: Result<Box<Snapshot>, String>,
    },
    /// A snapshot is in kvdb.
    Installed {
        /// The region.
        region_id: u64,
        /// The peer.
        peer_id: u64,
        /// What to take note of.
        installed: Box<Installed>,
    },
    /// kvdb was flushed.
    Flushed,
}

/// A write or an admin command.
#[derive(Debug)]
pub struct Proposal {
    /// What to do.
    pub request: RaftCmdRequest,
    /// When it was asked for, by the store's clock.
    pub since: Duration,
    /// When its caller stops waiting, by the store's clock.
    pub deadline: Duration,
    /// Who waits.
    pub callback: Callback<RaftCmdResponse>,
}

/// A read.
#[derive(Debug)]
pub struct Read {
    /// Of which region.
    pub target: Target,
    /// When its caller stops waiting, by the store's clock.
    pub deadline: Duration,
    /// Who waits.
    pub callback: Callback<RegionSnapshot>,
}

/// For the apply loop.
#[derive(Debug)]
pub enum ApplyTask {
    /// A peer's state machine as it is now.
    Register {
        /// The peer.
        peer_id: u64,
        /// How far it is.
        state: RaftApplyState,
        /// Of which region.
        membership: Box<Membership>,
    },
    /// Committed entries of a peer, durable here.
    Entries {
        /// The region.
        region_id: u64,
        /// The peer.
        peer_id: u64,
        /// When they were handed out, by the store's clock.
        since: Duration,
        /// In order.
        entries: Vec<Entry>,
        /// Who waits for which index.
        callbacks: Vec<(u64, Callback<RaftCmdResponse>)>,
    },
    /// A snapshot that is saved takes the place of a peer's data.
    Install {
        /// The region.
        region_id: u64,
        /// The peer.
        peer_id: u64,
        /// What to do.
        installation: Box<Installation>,
    },
    /// A peer is gone.
    Forget {
        /// The region.
        region_id: u64,
    },
}

/// What one [`ApplyTask::Entries`] has led to.
#[derive(Debug)]
pub struct AppliedEntries {
    /// The region.
    pub region_id: u64,
    /// The peer.
    pub peer_id: u64,
    /// The apply state now.
    pub state: RaftApplyState,
    /// The region, where it changed.
    pub membership: Option<Membership>,
    /// For the node, index and change of each entry that changes the membership, in order; those that were
    /// refused name nobody.
    pub changes: Vec<(u64, MembershipChange)>,
    /// The last write of it.
    pub seq: SequenceNumber,
}

/// For a background worker.
#[derive(Debug)]
pub enum WorkTask {
    /// Make a snapshot of a region.
    Generate {
        /// The region.
        region_id: u64,
    },
    /// Make durable what kvdb has, so that logs can be deleted.
    FlushKv,
}

/// How a store fares.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoreStatus {
    /// The store.
    pub store_id: u64,
    /// Why it has stopped serving.
    pub fenced: Option<String>,
    /// Its regions, by id.
    pub regions: Vec<RegionStatus>,
}

/// How a peer fares.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RegionStatus {
    /// Range, epoch and peers as applied here; only the id in a peer that waits for its first snapshot.
    pub region: Region,
    /// The peer of this store.
    pub peer: Peer,
    /// Who leads, if known.
    pub leader: Option<Peer>,
    /// `leader`, `follower`, `candidate` or `pre-candidate`.
    pub role: &'static str,
    /// Whether the peer is a learner.
    pub is_learner: bool,
    /// Term.
    pub term: u64,
    /// Up to where the log is committed.
    pub committed: u64,
    /// Up to where it is applied.
    pub applied: u64,
    /// Up to where the log may be deleted: what is truncated in a flushed apply state.
    pub flushed_truncated: u64,
    /// Up to where the log is truncated.
    pub truncated: u64,
    /// The last index of the log.
    pub last_index: u64,
    /// Bytes of the log, about.
    pub log_bytes: u64,
    /// Up to where what is applied is known to survive a loss of power without the log.
    pub flushed_applied: u64,
    /// The last snapshot that the peer had to do with in this life of the store.
    pub last_snapshot: Option<LastSnapshot>,
    /// On a leader: the other members.
    pub followers: Vec<FollowerStatus>,
    /// What is not as it should be, in sentences.
    pub reasons: Vec<String>,
}

/// A snapshot that was made, sent or received.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LastSnapshot {
    /// `made`, `sent` or `received`: in kvdb, then.
    pub what: &'static str,
    /// Up to where it goes.
    pub index: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// To whom it was sent.
    pub to: Option<Peer>,
    /// How long ago.
    pub age: Duration,
}

/// A member as its leader sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FollowerStatus {
    /// The member.
    pub peer: Peer,
    /// Up to where its log is known to agree.
    pub matched: u64,
    /// `probe`, `replicate` or `snapshot`.
    pub state: &'static str,
    /// Whether it was heard from lately.
    pub active: bool,
    /// Whether it is a learner.
    pub is_learner: bool,
}
