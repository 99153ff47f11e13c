//! What can go wrong with snapshot files, sorted by what the caller can do next.

use std::{fmt, io, path::Path};

/// The result of this module's calls.
pub(super) type Result<T, E = SnapshotError> = std::result::Result<T, E>;

/// Why a call was not done. Files that it had begun are removed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The disk or an engine failed, a full disk included. Trying again may help.
    Engine(basalt_engine::Error),
    /// Not now: a limit is reached, or the same is being done. Try again later.
    Busy(String),
    /// The message, the snapshot or the region is not one that this can be done with.
    Refused(String),
    /// Bytes are not the ones that were announced or written: another snapshot is needed.
    Damaged(String),
    /// The files are not here: another snapshot is needed.
    Missing(String),
    /// What the engines hold of the region cannot be what was written.
    Corruption {
        /// The region.
        region: u64,
        /// What does not fit.
        what: String,
    },
}

impl SnapshotError {
    /// True where the disk had no room.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Engine(error) if error.is_disk_full())
    }
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine(error) => write!(f, "snapshot files: {error}"),
            Self::Busy(what) => write!(f, "busy: {what}"),
            Self::Refused(what) => write!(f, "refused: {what}"),
            Self::Damaged(what) => write!(f, "damaged: {what}"),
            Self::Missing(what) => write!(f, "missing: {what}"),
            Self::Corruption { region, what } => write!(f, "corruption in region {region}: {what}"),
        }
    }
}

impl std::error::Error for SnapshotError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Engine(error) => Some(error),
            _ => None,
        }
    }
}

impl From<basalt_engine::Error> for SnapshotError {
    fn from(error: basalt_engine::Error) -> Self {
        Self::Engine(error)
    }
}

/// Says what was tried on which path.
pub(super) fn io(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SnapshotError {
    move |error| SnapshotError::Engine(basalt_engine::Error::io(op, path, error))
}
