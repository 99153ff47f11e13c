//! Operations of the simulated disk as tests see them: watched before they happen, and made to fail.

use std::{
    fmt, io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::SimFs;

/// What is done to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OpKind {
    /// A directory entry for a new directory.
    CreateDir,
    /// A directory entry for a new file, or an existing file emptied.
    Create,
    /// A log file grown to its capacity.
    Grow,
    /// Bytes written: appended or in place.
    Write,
    /// A file synced.
    Sync,
    /// A directory synced.
    SyncDir,
    /// A file or directory renamed.
    Rename,
    /// A file given a second name.
    Link,
    /// A file's name removed.
    Remove,
    /// A directory removed.
    RemoveDir,
    /// A lock taken; not a change, unless the file is missing, which is a `Create` of its own.
    Lock,
    /// A directory listed.
    List,
    /// A file's length asked for.
    Len,
    /// A file opened for reading.
    Open,
    /// Bytes read.
    Read,
    /// A part of a map brought into memory.
    Populate,
}

impl OpKind {
    /// True for what changes the disk: these have an index, and an observer sees them.
    #[must_use]
    pub fn is_change(self) -> bool {
        !matches!(
            self,
            Self::Lock | Self::List | Self::Len | Self::Open | Self::Read | Self::Populate
        )
    }
}

/// One operation, about to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// Number of the operation, from 0: changes and other operations are counted apart.
    pub index: u64,
    /// What is done.
    pub kind: OpKind,
    /// To which file or directory: the name that it was opened by.
    pub path: PathBuf,
    /// The other name of a rename or link.
    pub to: Option<PathBuf>,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{} {:?} {}", self.index, self.kind, self.path.display())?;
        if let Some(to) = &self.to {
            write!(f, " to {}", to.display())?;
        }
        if self.len > 0 {
            write!(f, " {}+{}", self.offset, self.len)?;
        }
        Ok(())
    }
}

/// Called before each change, with the disk, the change's index, and the change. It may take crash
/// images and read; it must not change the disk. No lock of the disk is held.
pub type Observer = Arc<dyn Fn(&SimFs, u64, &Op) + Send + Sync>;

/// Asked before each operation; an answer makes it fail. No lock of the disk is held.
pub type FaultRule = Arc<dyn Fn(&Op) -> Option<Failure> + Send + Sync>;

/// How an operation fails.
#[derive(Debug)]
pub struct Failure {
    /// What the caller gets.
    pub error: io::Error,
    /// Bytes of a write that are done all the same.
    pub written: u64,
}

impl Failure {
    /// The operation fails and does nothing. (A sync leaves what it should have made durable unknown.)
    #[must_use]
    pub fn of(error: impl Into<io::Error>) -> Self {
        Self {
            error: error.into(),
            written: 0,
        }
    }

    /// A damaged device: EIO.
    #[must_use]
    pub fn device() -> Self {
        const EIO: i32 = 5;
        Self::of(io::Error::from_raw_os_error(EIO))
    }

    /// The same, with the first `written` bytes of a write done.
    #[must_use]
    pub fn after(self, written: u64) -> Self {
        Self { written, ..self }
    }
}

/// A rule by which of the operations that `matches` picks, those numbered `first..end` (from 0) fail.
pub fn fail_range(
    matches: impl Fn(&Op) -> bool + Send + Sync + 'static,
    first: u64,
    end: u64,
    failure: impl Fn() -> Failure + Send + Sync + 'static,
) -> FaultRule {
    let seen = AtomicU64::new(0);
    Arc::new(move |op| {
        if !matches(op) {
            return None;
        }
        let number = seen.fetch_add(1, Ordering::Relaxed);
        (first..end).contains(&number).then(&failure)
    })
}

/// A rule by which the `n`th (from 0) operation of `kind` from now on fails as a damaged device does.
#[must_use]
pub fn fail_nth(kind: OpKind, n: u64) -> FaultRule {
    fail_range(move |op| op.kind == kind, n, n + 1, Failure::device)
}
