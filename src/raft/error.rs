//! What can go wrong, sorted by what the caller can do about it.
//!
//! A broken invariant of this crate's own is a panic; what a peer, the storage or the caller did
//! is one of these. After any of them the node is as valid as before the call: the message or
//! request counts as lost, but that a node may have learned of a higher term from it, and nothing
//! that was promised is taken back.

use std::fmt;

/// The result of this crate's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call came to nothing.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The proposal is in nobody's log; propose it again, perhaps elsewhere.
    ProposalDropped(DropReason),
    /// Too many reads wait for a confirmation; try again later. The limit is
    /// [`crate::Config::max_pending_reads`].
    ReadsFull,
    /// A message that only a node sends to itself came from outside.
    LocalMessage,
    /// A response came from a node that is no member.
    PeerNotFound,
    /// A message breaks the protocol: `from` is faulty, or has lost what it promised.
    InvalidMessage {
        /// Who sent it.
        from: u64,
        /// Which rule it breaks.
        what: &'static str,
    },
    /// The leader's entry and a committed one of ours disagree: a node of the cluster has lost
    /// what it promised. Log and membership stay as they were, and the leader does not count as heard
    /// from; somebody has to look at both nodes.
    Divergence {
        /// Who leads.
        from: u64,
        /// Where the logs disagree, or what the leader thinks this node has.
        index: u64,
        /// Up to where this node's log is committed.
        committed: u64,
    },
    /// A membership change does not fit the present membership.
    ConfChange(&'static str),
    /// A setting makes no sense.
    InvalidConfig(String),
    /// The storage could not be read.
    Storage(StorageError),
}

/// Why a proposal was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DropReason {
    /// Nobody is known to lead.
    NoLeader,
    /// This node does not lead, and does not pass proposals on.
    NotForwarding,
    /// This node leads and is no member any more.
    NotMember,
    /// Leadership is being handed over.
    Transferring,
    /// Too many bytes are proposed and not applied yet.
    QuotaExceeded,
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoLeader => "no leader is known",
            Self::NotForwarding => "this node does not lead and does not forward",
            Self::NotMember => "the leader is no member any more",
            Self::Transferring => "leadership is being transferred",
            Self::QuotaExceeded => "too many bytes are uncommitted",
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ProposalDropped(reason) => write!(f, "proposal dropped: {reason}"),
            Self::ReadsFull => f.write_str("too many reads wait for the leader's confirmation"),
            Self::LocalMessage => f.write_str("a local message came from outside"),
            Self::PeerNotFound => f.write_str("a response came from a node that is no member"),
            Self::InvalidMessage { from, what } => write!(f, "message from node {from}: {what}"),
            Self::Divergence {
                from,
                index,
                committed,
            } => write!(
                f,
                "node {from} leads with another log at index {index}, this one is committed up to {committed}"
            ),
            Self::ConfChange(what) => write!(f, "membership change: {what}"),
            Self::InvalidConfig(what) => write!(f, "raft configuration: {what}"),
            Self::Storage(error) => write!(f, "raft storage: {error}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Storage(error) => Some(error),
            _ => None,
        }
    }
}

impl From<StorageError> for Error {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

/// Why [`crate::Storage`] has no answer.
#[derive(Debug)]
#[non_exhaustive]
pub enum StorageError {
    /// The index lies in the part of the log that a snapshot has replaced.
    Compacted,
    /// The index lies above the log.
    Unavailable,
    /// A snapshot is being made; ask again later.
    SnapshotTemporarilyUnavailable,
    /// The entries are being fetched; ask again later.
    LogTemporarilyUnavailable,
    /// The snapshot is older than the one that is there.
    SnapshotOutOfDate,
    /// The world below failed.
    Other(Box<dyn std::error::Error + Send + Sync>),
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compacted => f.write_str("the index is compacted"),
            Self::Unavailable => f.write_str("the index is above the log"),
            Self::SnapshotTemporarilyUnavailable => f.write_str("the snapshot is being made"),
            Self::LogTemporarilyUnavailable => f.write_str("the entries are being fetched"),
            Self::SnapshotOutOfDate => f.write_str("the snapshot is older than the present one"),
            Self::Other(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for StorageError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Other(error) => Some(error.as_ref()),
            _ => None,
        }
    }
}
