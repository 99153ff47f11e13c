//! What can go wrong with a peer's storage, sorted by what the caller can do next.

use std::fmt;

use basalt_raft::StorageError;

/// The result of this crate's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call was not done. Nothing of it was, unless said.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// An engine failed. After a write failed, what is in memory may be ahead of the disk: the store
    /// must stop.
    Engine(basalt_engine::Error),
    /// A turn's write of raftdb failed: the store must stop.
    Raftdb(basalt_engine::Error),
    /// What the two engines hold cannot be what was written. Trying again cannot help.
    Corruption {
        /// The region whose records they are; 0 where they are the store's own.
        region: u64,
        /// What does not fit.
        what: String,
    },
    /// The store has another peer of the region, or had a later one.
    OtherPeer {
        /// The region.
        region: u64,
        /// Who was asked for.
        asked: u64,
        /// Who is there, or was.
        present: u64,
    },
    /// The peer was removed from this store for good.
    Tombstone {
        /// The region.
        region: u64,
        /// The peer.
        peer: u64,
    },
    /// A snapshot that is not newer than what is applied.
    SnapshotOutOfDate,
    /// The caller broke a rule of the call.
    Misuse {
        /// The region; 0 where it is the whole store.
        region: u64,
        /// Which rule.
        what: String,
    },
}

impl Error {
    pub(crate) fn corruption(region: u64, what: impl Into<String>) -> Self {
        Self::Corruption {
            region,
            what: what.into(),
        }
    }

    pub(crate) fn misuse(region: u64, what: impl Into<String>) -> Self {
        Self::Misuse {
            region,
            what: what.into(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine(error) => write!(f, "{error}"),
            Self::Raftdb(error) => write!(f, "raftdb: {error}"),
            Self::Corruption { region: 0, what } => write!(f, "corruption: {what}"),
            Self::Corruption { region, what } => write!(f, "corruption in region {region}: {what}"),
            Self::OtherPeer {
                region,
                asked,
                present,
            } => write!(
                f,
                "region {region} has peer {present} on this store, not {asked}"
            ),
            Self::Tombstone { region, peer } => {
                write!(f, "peer {peer} of region {region} was removed")
            }
            Self::SnapshotOutOfDate => {
                f.write_str("the snapshot is not newer than what is applied")
            }
            Self::Misuse { region: 0, what } => f.write_str(what),
            Self::Misuse { region, what } => write!(f, "region {region}: {what}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Engine(error) | Self::Raftdb(error) => Some(error),
            _ => None,
        }
    }
}

impl From<basalt_engine::Error> for Error {
    fn from(error: basalt_engine::Error) -> Self {
        Self::Engine(error)
    }
}

impl From<crate::snapshot::SnapshotError> for Error {
    fn from(error: crate::snapshot::SnapshotError) -> Self {
        use crate::snapshot::SnapshotError;
        match error {
            SnapshotError::Engine(error) => Self::Engine(error),
            SnapshotError::Corruption { region, what } => Self::Corruption { region, what },
            error => Self::corruption(0, format!("files of a snapshot: {error}")),
        }
    }
}

impl From<Error> for StorageError {
    fn from(error: Error) -> Self {
        match error {
            Error::SnapshotOutOfDate => Self::SnapshotOutOfDate,
            error => Self::Other(Box::new(error)),
        }
    }
}
