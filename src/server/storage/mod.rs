//! `Storage`: what the gRPC services ask of whatever keeps the data, in the words of TinyKV.
//!
//! ```text
//! RawPut ----write(ctx, [Modify])----> Storage <----reader(ctx)---- RawGet, RawScan
//!                                         |
//!                  StandaloneStorage | RaftStorage | MemStorage
//! ```
//! Promises: a batch is applied whole or not at all; a write that answered `Ok` is durable (but for
//! [`MemStorage`]); everything one reader shows is of one moment. [`Storage::write`] and
//! [`Storage::reader`] never block the thread that polls them. What a reader does may block on a
//! disk, so callers move it off the async runtime (`service::blocking`).
//!
//! Not here: limits of keys and values, gRPC codes, deadlines of reads.

use std::{fmt, future::Future, pin::Pin, time::Instant};

use basalt_engine::{ColumnFamily, Db};
use basalt_proto::{basaltpb, errorpb, kvrpcpb};
use bytes::Bytes;

pub mod data_dir;
mod engine;
mod mem;
mod replicated;
mod standalone;

pub use engine::EngineSettings;
pub(crate) use engine::{engine_status, explain_open, report_recovery};
pub use mem::MemStorage;
pub use replicated::RaftStorage;
pub use standalone::StandaloneStorage;

/// The column families of a TinyKV store, in the order of TinyKV.
pub const FAMILIES: [&str; 3] = ["default", "write", "lock"];

/// The family that an empty name means.
pub const DEFAULT_FAMILY: &str = FAMILIES[0];

/// A future that may move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The result of a storage call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// On whose behalf a call is made.
#[derive(Clone, Debug)]
pub struct Context {
    /// The region the client means; a standalone store has none and ignores it, as TinyKV's does.
    pub region: Option<kvrpcpb::Context>,
    /// A key of the request: one without a region goes to the region that has it.
    pub key: Bytes,
    /// When the client stops waiting.
    pub deadline: Instant,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Modify {
    /// Sets `key` to `value`; an empty value is a value.
    Put {
        /// Column family by name.
        cf: &'static str,
        /// The key; may be empty.
        key: Bytes,
        /// The new value.
        value: Bytes,
    },
    /// Removes `key`; one that is absent is fine.
    Delete {
        /// Column family by name.
        cf: &'static str,
        /// The key.
        key: Bytes,
    },
    /// Removes every key from `start` on and before `end`.
    DeleteRange {
        /// Column family by name.
        cf: &'static str,
        /// First key that goes.
        start: Bytes,
        /// First key that stays; empty: none.
        end: Bytes,
    },
}

/// Why a call was not done, sorted by what the client is told.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// The request breaks a rule or a limit; the text names it.
    InvalidArgument(String),
    /// The store is behind; the write was not taken and may be tried again.
    Busy(String),
    /// The request is not for this store, or not any more: the client is told where to go, or that the
    /// outcome is open.
    Region(Box<errorpb::Error>),
    /// No answer in time; a write may be done or not, or may still be.
    Deadline,
    /// The store does not serve yet; the text says what it waits for.
    Starting(String),
    /// The store is stopping or stopped.
    Stopped,
    /// The store cannot: its disk, its files or its state forbid it.
    Store {
        /// First word of the text a client sees.
        code: StoreCode,
        /// What happened, with the file where there is one; never user data.
        what: String,
    },
}

/// The code word of an [`Error::Store`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreCode {
    /// The engine takes no writes since a failure; reads go on.
    ReadOnly,
    /// The disk has no room.
    DiskFull,
    /// Durable bytes are damaged.
    Corruption,
    /// The operating system refused something else.
    Io,
    /// The store serves nothing until it is restarted, if then.
    Fenced,
    /// A failure the engine has no better word for.
    Internal,
}

impl StoreCode {
    /// The word itself.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::ReadOnly => "READ_ONLY",
            Self::DiskFull => "DISK_FULL",
            Self::Corruption => "CORRUPTION",
            Self::Io => "IO",
            Self::Fenced => "FENCED",
            Self::Internal => "INTERNAL",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidArgument(what) => f.write_str(what),
            Self::Busy(what) => write!(f, "the store is behind: {what}"),
            Self::Region(error) => f.write_str(&error.message),
            Self::Deadline => f.write_str("no answer in time; whether a write was done is open"),
            Self::Starting(what) => write!(f, "the store does not serve yet: {what}"),
            Self::Stopped => f.write_str("the store is stopping"),
            Self::Store { code, what } => write!(f, "{}: {what}", code.word()),
        }
    }
}

impl std::error::Error for Error {}

/// What a storage can do at the moment, and what its engine holds.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Why the store takes no writes; `None` while it does.
    pub read_only: Option<String>,
    /// Why the store serves nothing until it is restarted; `None` while it does.
    pub fenced: Option<String>,
    /// What the store waits for before it serves; `None` once it does.
    pub starting: Option<String>,
    /// The engine of user data.
    pub kv: basaltpb::EngineStatus,
    /// The engine of Raft logs; a standalone store has none.
    pub raft: Option<basaltpb::EngineStatus>,
}

/// An open engine, for whoever looks into it.
#[derive(Clone, Copy, Debug)]
pub struct EngineView<'a> {
    /// What it is for: `kv` or `raft`.
    pub name: &'static str,
    /// The engine itself.
    pub db: &'a Db,
    /// What users call the family of a name; nothing for one that is not theirs.
    pub word: fn(&str) -> Option<&str>,
}

/// A place that keeps column families of keys and values.
pub trait Storage: Send + Sync + 'static {
    /// Opens it. May block for as long as recovery takes.
    ///
    /// # Errors
    ///
    /// Whatever keeps the data from being opened, in one sentence.
    fn start(&self) -> Result<(), String>;

    /// Closes it: what was acknowledged is on disk, calls that come later answer
    /// [`Error::Stopped`]. May block.
    ///
    /// # Errors
    ///
    /// A failure to write what was still in memory.
    fn stop(&self) -> Result<()>;

    /// Applies `batch` in order, whole or not at all; resolves when it is durable.
    ///
    /// A future dropped before it resolved leaves the outcome open.
    fn write(&self, ctx: Context, batch: Vec<Modify>) -> BoxFuture<'_, Result<()>>;

    /// The value of `key`, not older than any write acknowledged before the call, where it can be had at once;
    /// `None` where it cannot, then a [`Storage::reader`] gets it. Never blocks.
    fn get_at_once(
        &self,
        ctx: &Context,
        cf: &'static str,
        key: &[u8],
    ) -> Option<Result<Option<Bytes>>>;

    /// A view of one moment, not older than any write acknowledged before the call.
    fn reader(&self, ctx: Context) -> BoxFuture<'_, Result<Box<dyn StorageReader>>>;

    /// What the storage can do and what it holds. May wait shortly for a lock, never for a disk.
    fn status(&self) -> Status;

    /// Shows each open engine to `see`. May wait shortly for a lock, never for a disk.
    fn engines(&self, see: &mut dyn FnMut(EngineView<'_>)) {
        // Whatever has none has none to show.
        let _ = see;
    }

    /// Writes memtables to tables: of `cf`, or of every family. Blocks until they are durable.
    ///
    /// # Errors
    ///
    /// As [`Storage::write`].
    fn flush(&self, cf: Option<&'static str>) -> Result<()>;

    /// Compacts a range of keys of `cf`. Blocks until it is done.
    ///
    /// # Errors
    ///
    /// As [`Storage::write`].
    fn compact(&self, cf: &'static str, start: Option<&[u8]>, end: Option<&[u8]>) -> Result<()>;
}

/// An engine of a storage, held open.
#[derive(Clone, Debug)]
pub(crate) struct OpenEngine {
    /// `kv` or `raft`.
    pub(crate) name: &'static str,
    pub(crate) db: Db,
    /// The families of users that it has, by the names they know.
    families: Vec<(&'static str, ColumnFamily)>,
}

impl OpenEngine {
    /// A family of users by the name they know.
    pub(crate) fn family(&self, name: &str) -> Option<&ColumnFamily> {
        let found = self.families.iter().find(|(known, _)| *known == name);
        found.map(|(_, family)| family)
    }
}

/// The open engines of a storage, to work on them: that of user data first.
pub(crate) fn open_engines(storage: &dyn Storage) -> Vec<OpenEngine> {
    let mut engines = Vec::new();
    storage.engines(&mut |view| {
        let all = view.db.list_cfs();
        let family = |name: &'static str| {
            let found = all
                .iter()
                .find(|family| (view.word)(family.name()) == Some(name));
            found.map(|family| (name, family.clone()))
        };
        engines.push(OpenEngine {
            name: view.name,
            db: view.db.clone(),
            families: FAMILIES.into_iter().filter_map(family).collect(),
        });
    });
    engines
}

/// A view of one moment. Its calls may block on a disk.
pub trait StorageReader: Send {
    /// The value of `key`, `None` when the key is missing.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] when the disk fails or bytes are damaged.
    fn get_cf(&self, cf: &'static str, key: &[u8]) -> Result<Option<Bytes>>;

    /// A cursor over `cf`; it has no position until [`StorageIter::seek`].
    ///
    /// # Errors
    ///
    /// As [`StorageReader::get_cf`].
    fn iter_cf(&self, cf: &'static str) -> Result<Box<dyn StorageIter + '_>>;
}

/// A cursor in the order of keys.
pub trait StorageIter {
    /// Goes to the smallest key at or after `key`.
    ///
    /// # Errors
    ///
    /// As [`StorageReader::get_cf`].
    fn seek(&mut self, key: &[u8]) -> Result<()>;

    /// Goes to the largest key before `key`; to the last there is without one.
    ///
    /// # Errors
    ///
    /// As [`StorageReader::get_cf`].
    fn seek_before(&mut self, key: Option<&[u8]>) -> Result<()>;

    /// True while the cursor stands on a pair.
    fn valid(&self) -> bool;

    /// Goes to the next key. The cursor must be valid.
    ///
    /// # Errors
    ///
    /// As [`StorageReader::get_cf`].
    fn next(&mut self) -> Result<()>;

    /// Goes to the key before. The cursor must be valid.
    ///
    /// # Errors
    ///
    /// As [`StorageReader::get_cf`].
    fn prev(&mut self) -> Result<()>;

    /// The key under the cursor. The cursor must be valid.
    fn key(&self) -> &[u8];

    /// The value under the cursor. The cursor must be valid.
    fn value(&self) -> &[u8];
}

/// The family of this name; an empty name is the default family.
///
/// # Errors
///
/// [`Error::InvalidArgument`] that names the families there are.
pub fn family(name: &str) -> Result<&'static str> {
    if name.is_empty() {
        return Ok(DEFAULT_FAMILY);
    }
    FAMILIES
        .into_iter()
        .find(|known| *known == name)
        .ok_or_else(|| {
            let name = name.chars().take(64).collect::<String>();
            Error::InvalidArgument(format!(
                "unknown column family {name:?}; there are {}",
                FAMILIES.join(", ")
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_family_name_is_default_and_an_unknown_one_is_refused() {
        assert_eq!(family(""), Ok("default"));
        for name in FAMILIES {
            assert_eq!(family(name), Ok(name));
        }
        let refusal = family("Default").unwrap_err().to_string();
        assert_eq!(
            refusal,
            "unknown column family \"Default\"; there are default, write, lock"
        );
    }

    #[test]
    fn the_text_of_a_store_error_begins_with_its_code_word() {
        let error = Error::Store {
            code: StoreCode::ReadOnly,
            what: "disk gone".into(),
        };
        assert_eq!(error.to_string(), "READ_ONLY: disk gone");
    }
}
