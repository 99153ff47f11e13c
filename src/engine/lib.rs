//! Basalt's storage engine: an embeddable, log-structured, ordered key-value store.

mod background;
pub mod batch;
mod cache;
mod checkpoint;
pub mod coding;
mod column_family;
mod commit;
mod compaction;
mod db;
mod error;
pub mod executor;
mod faults;
mod filename;
mod flush;
pub mod fs;
mod ingest;
mod iter;
pub mod key;
mod memtable;
mod options;
mod read;
mod recovery;
mod slice;
mod snapshot;
mod stats;
mod table;
mod tombstones;
mod version;
mod wal;

pub use batch::WriteBatch;
pub use column_family::ColumnFamily;
pub use error::{Error, Result};
pub use options::{CfOptions, Compression, LEVELS, Options, ReadOptions, WriteOptions, prefix_end};
pub use slice::{PIN_MIN_LEN, PinnedSlice};
pub use snapshot::Snapshot;
#[doc(hidden)]
pub use faults::{Fault, Faults};

/// Seams for the tests of the format; no promise to anyone.
#[doc(hidden)]
pub mod testing {
    pub use crate::wal::testing as wal;
}
