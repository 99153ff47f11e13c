//! Basalt's storage engine: an embeddable, log-structured, ordered key-value store.

mod background;
pub mod batch;
mod cache;
mod checkpoint;
pub mod coding;
mod column_family;
mod commit;
mod compact;
mod compaction;
mod db;
mod db_iter;
mod error;
pub mod executor;
mod faults;
mod filename;
mod flush;
pub mod fs;
mod ingest;
mod iter;
pub mod key;
mod log_files;
mod manifest;
mod memtable;
mod numbers;
mod options;
mod read;
mod recovery;
mod resume;
mod slice;
mod snapshot;
mod stats;
mod table;
mod tables;
mod tombstones;
mod verify;
mod version;
mod wal;
mod write;

pub use batch::WriteBatch;
pub use column_family::ColumnFamily;
pub use db::{DEFAULT_CF, Db, FlushListener, MAX_CF_NAME_LEN, MAX_CFS, Ticket};
pub use db_iter::{DbIter, DbRange, KeyValue};
pub use error::{Error, Result};
#[doc(hidden)]
pub use faults::{Fault, Faults};
pub use ingest::{Ingest, TableFile, TableWriter};
pub use key::{MAX_KEY_LEN, MAX_VALUE_LEN, SequenceNumber};
pub use options::{CfOptions, Compression, LEVELS, Options, ReadOptions, WriteOptions, prefix_end};
pub use recovery::RecoveryReport;
pub use slice::{PIN_MIN_LEN, PinnedSlice};
pub use snapshot::Snapshot;
pub use stats::{CacheStats, FamilyStats, LevelStats, Stats};
pub use verify::{VerifyReport, verify_dir};

/// Seams for the tests of the format; no promise to anyone.
#[doc(hidden)]
pub mod testing {
    pub use crate::{table::testing as table, wal::testing as wal};
}
