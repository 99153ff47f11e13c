//! What can go wrong, sorted by what the caller can do next.
//!
//! Every variant names its object. Texts are lower case, without a full stop, and fit in one line.

use std::{fmt, io, path::PathBuf, sync::Arc};

/// The engine's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call was not done.
///
/// Clones are cheap: an error kept as the cause of a read-only database is handed to many callers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused `op` on `path`. Trying again may help.
    Io {
        /// What was tried: `open`, `read`, `write`, `sync` ...
        op: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's own reason.
        source: Arc<io::Error>,
    },
    /// Bytes that were durable are not what was written. Trying again cannot help: restore, or repair.
    Corruption {
        /// The damaged file.
        path: PathBuf,
        /// Byte offset of the damaged structure in it.
        offset: u64,
        /// Which structure, and what is wrong with it.
        what: String,
    },
    /// The call was wrong and nothing was changed. The text names the limit or the rule.
    InvalidArgument(String),
    /// The database takes no writes since `cause`; reads go on. See `Db::resume`.
    ReadOnly {
        /// The failure that closed it for writing.
        cause: Arc<Error>,
    },
    /// A call would have to wait and was asked not to (`submit`, `try_get`). Try again; the text says what for.
    Busy(String),
    /// Another process or another handle has the directory open.
    Locked {
        /// The database directory.
        path: PathBuf,
    },
    /// The path holds something that is not a database of this engine, or of a format it does not know.
    NotADatabase {
        /// The directory or file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// No column family has this name, or it was dropped.
    NoSuchColumnFamily(String),
    /// A snapshot or iterator was given up, because it held more than it may. Take a new one; the text
    /// names the limit.
    Expired(String),
    /// The cause under which a database that was opened read-only refuses writes.
    OpenedReadOnly {
        /// The database directory.
        path: PathBuf,
    },
    /// The caller gave up what it had begun: whoever was told of the progress said so, or
    /// [`Db::cancel_compact_range`](crate::Db::cancel_compact_range). What was done of it stays, and is whole.
    Cancelled,
    /// The family's merge operator could not make a value of `key` out of its operands. They are kept: another version of
    /// the operator may, and a put or a delete of the key ends it.
    Merge {
        /// The key.
        key: Vec<u8>,
        /// Which operator, and what it says.
        what: String,
    },
    /// The database was closed.
    Closed,
}

impl Error {
    /// Wraps a failure of the operating system with what was tried and where.
    pub fn io(op: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io {
            op,
            path: path.into(),
            source: Arc::new(source),
        }
    }

    /// Damage at `offset` of `path`.
    pub fn corruption(path: impl Into<PathBuf>, offset: u64, what: impl Into<String>) -> Self {
        Self::Corruption {
            path: path.into(),
            offset,
            what: what.into(),
        }
    }

    /// A call that breaks a stated rule or limit.
    pub fn invalid(what: impl Into<String>) -> Self {
        Self::InvalidArgument(what.into())
    }

    /// True where durable bytes were found damaged.
    #[must_use]
    pub fn is_corruption(&self) -> bool {
        match self {
            Self::Corruption { .. } => true,
            Self::ReadOnly { cause } => cause.is_corruption(),
            _ => false,
        }
    }

    /// True where the disk had no room.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => {
                matches!(
                    source.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                )
            }
            Self::ReadOnly { cause } => cause.is_disk_full(),
            _ => false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { op, path, source } => write!(f, "{op} {}: {source}", path.display()),
            Self::Corruption { path, offset, what } => {
                write!(
                    f,
                    "corruption in {} at byte {offset}: {what}",
                    path.display()
                )
            }
            Self::InvalidArgument(what) => write!(f, "invalid argument: {what}"),
            Self::ReadOnly { cause } => write!(f, "read-only since: {cause}"),
            Self::Busy(what) => write!(f, "busy: {what}"),
            Self::Locked { path } => {
                write!(
                    f,
                    "{} is in use by another process or handle",
                    path.display()
                )
            }
            Self::NotADatabase { path, what } => {
                write!(
                    f,
                    "{} is not a database this version can open: {what}",
                    path.display()
                )
            }
            Self::NoSuchColumnFamily(name) => write!(f, "no column family {name:?}"),
            Self::Expired(what) => write!(f, "given up: {what}"),
            Self::OpenedReadOnly { path } => {
                write!(f, "{} was opened read-only", path.display())
            }
            Self::Cancelled => write!(f, "cancelled by the caller"),
            Self::Merge { key, what } => {
                write!(f, "merge of key \"{}\": {what}", key.escape_ascii())
            }
            Self::Closed => write!(f, "the database is closed"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source.as_ref()),
            Self::ReadOnly { cause } => Some(cause.as_ref()),
            _ => None,
        }
    }
}
