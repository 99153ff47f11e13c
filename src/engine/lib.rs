//! Basalt's storage engine: an embeddable, log-structured, ordered key-value store.
//!
//! ```
//! use basalt_engine::{CfOptions, Db, Options, ReadOptions, WriteBatch, WriteOptions};
//!
//! # let dir = tempfile::tempdir().expect("a directory");
//! # let path = dir.path();
//! let db = Db::open(path, Options::default())?;
//! let users = db.open_cf("users", CfOptions::default())?;
//!
//! db.put(&users, b"ada", b"1815", WriteOptions::SYNC)?;
//! let mut batch = WriteBatch::new();
//! batch.put(&users, b"grace", b"1906");
//! batch.delete(&users, b"nobody");
//! db.write(batch, WriteOptions::NO_SYNC)?;
//!
//! assert_eq!(db.get(&users, b"ada")?.as_deref(), Some(&b"1815"[..]));
//! let names: Vec<_> = db.range(&users, &ReadOptions::default())?.collect::<Result<_, _>>()?;
//! assert_eq!(names.len(), 2);
//! db.close()?;
//! # Ok::<(), basalt_engine::Error>(())
//! ```
//!
//! # What there is
//!
//! - [`Db`]: open, families, reads, writes, flush, compaction, checkpoint, backup, ingest, export, verify. Handles ([`Db`],
//!   [`ColumnFamily`], [`Snapshot`]) are cheap clones without lifetimes, `Send + Sync`.
//! - [`WriteBatch`]: atomic over any families of one class; [`Db::submit`] answers a [`Ticket`] at once.
//! - [`CfOptions::append`]: the class of family for logs that are appended and cut at both ends; the log is its store,
//!   and nothing of it is written twice ([`WriteBatch::append`], [`Db::append_range`]).
//! - [`CfOptions::large_value_bytes`]: larger values live beside the tables and are not moved by compactions.
//! - [`CfOptions::merge_operator`] ([`Db::merge`]: changes without reading), [`CfOptions::compaction_filter`] and
//!   [`CfOptions::ttl`]: rows that change or go by themselves.
//! - [`Db::open_read_only`], [`Db::backup`] and [`restore_backup`], [`repair_dir`]: the day after; with [`Progress`].
//! - [`DbIter`] and [`DbRange`]: one moment, forward and backward, within bounds.
//! - [`Options`], [`CfOptions`]: unit, default and effect of each.
//! - Memory and bandwidth: [`Options::memory_budget_bytes`], [`SharedMemory`], [`RateLimiter`]; options that change while it is
//!   open: [`Db::set_options`], [`Db::set_cf_options`].
//! - What it tells: [`Db::stats`], [`Db::layout`], [`Db::explain`], [`Db::explain_range`], [`Db::add_listener`].
//! - [`inspect`]: what one file says, whatever state it is in.
//! - [`fs`] and [`executor`]: all the engine asks of the world; with [`fs::SimFs`] and
//!   [`executor::SimExecutor`] a whole database runs on one thread from a seed, and its disk can lose power.
//!
//! # What is promised
//!
//! A write acknowledged with `sync: true` survives power loss; one with `sync: false` survives the death of the process, in a family
//! that is logged. A family that is not logged survives from its flush on. What is recovered is a prefix
//! of the write order, never half a batch, never a hole. Damage in what was durable is an error that names file and offset, never a
//! wrong or missing row. A failing disk makes the database read-only with the cause kept; see [`Db::resume`].
//!
//! # What it is not
//!
//! No transactions beyond batches and snapshots, one process at a time for a directory.
//! Each open table holds a file descriptor: a database of thousands of tables needs a limit to match.

mod append;
mod background;
mod backup;
pub mod batch;
mod cache;
mod checkpoint;
mod clock;
pub mod coding;
mod column_family;
mod commit;
mod compact;
mod compaction;
mod compaction_filter;
mod db;
mod db_iter;
mod error;
mod events;
pub mod executor;
mod explain;
mod export;
mod faults;
mod filename;
mod flush;
pub mod fs;
mod fuzz;
mod ingest;
pub mod inspect;
mod iter;
pub mod key;
mod layout;
mod limiter;
mod log_files;
mod manifest;
mod memory;
mod memtable;
mod merge;
mod numbers;
mod online;
mod options;
mod paced;
mod progress;
mod read;
mod recovery;
mod repair;
mod resume;
mod slice;
mod snapshot;
mod stats;
mod table;
mod tables;
mod ticket;
mod timing;
mod tombstones;
mod values;
mod verify;
mod version;
mod wal;
mod write;

pub use backup::{
    BackupInfo, BackupList, BackupOptions, BackupReport, MAX_BACKUP_DESCRIPTION_LEN, delete_backup,
    list_backups, purge_backups, restore_backup, verify_backups,
};
pub use batch::WriteBatch;
pub use clock::{Clock, ManualClock, SystemClock};
pub use column_family::ColumnFamily;
pub use compaction_filter::{CompactionFilter, FilterDecision, FilterRow, FilterSetting};
pub use db::{DEFAULT_CF, Db, FlushListener, MAX_CF_NAME_LEN, MAX_CFS};
pub use db_iter::{DbIter, DbRange, KeyValue};
pub use error::{Error, Result};
pub use events::{Event, EventListener};
pub use explain::{
    BlockSource, Explanation, Met, Outcome, Place, RangeExplanation, RangeTable, Step,
};
pub use export::{ExportOptions, exported_files};
#[doc(hidden)]
pub use faults::{Fault, Faults};
pub use ingest::{Ingest, TableFile, TableWriter};
pub use key::{MAX_KEY_LEN, MAX_VALUE_LEN, SequenceNumber};
pub use layout::{Layout, TablePlace};
pub use limiter::{IoPriority, RateLimiter, RateStats};
pub use memory::{MemoryStats, SharedMemory};
pub use merge::{
    AppendWithDelimiter, ByteOrderOf, MAX_MERGE_OPERATOR_NAME_LEN, MergeOperator, MergeResult,
    MergeSetting, U64Add,
};
pub use options::{
    CfOptions, Compression, LEVELS, MAX_APPEND_PREFIX_BYTES, MemtableKind, Options, ReadOptions,
    WriteOptions, prefix_end,
};
pub use progress::{Pacing, Progress, ProgressStep};
pub use recovery::RecoveryReport;
pub use repair::{Fate, FileReport, LOST, RepairOptions, RepairReport, repair_dir};
pub use slice::{PIN_MIN_LEN, PinnedSlice};
pub use snapshot::Snapshot;
pub use stats::{
    AppendStats, CacheStats, FamilyStats, LevelStats, SampledReads, Stats, TimeStats, ValueStats,
};
pub use ticket::Ticket;
pub use timing::Histogram;
pub use verify::{VerifyReport, verify_dir, verify_dir_with};

/// Seams for the tests of the format; no promise to anyone.
#[doc(hidden)]
pub mod testing {
    /// Bodies of the fuzz targets.
    pub mod fuzz {
        pub use crate::fuzz::{Body, TARGETS};
    }
    pub use crate::{
        append::testing as append, backup::testing as backup, table::testing as table,
        values::testing as values, version::testing as version, wal::testing as wal,
    };
}
