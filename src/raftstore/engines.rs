//! `Engines`: the two databases of a store, and their families.
//!
//! Whoever opens them chooses directories, disk and threads. Not here: what is in them; how a raftdb of before comes
//! to have an append family (`migrate`).

use basalt_engine::{CfOptions, ColumnFamily, Compression, Db, Options};

use crate::{Result, faults::Faults, keys::STATE_KEY_LEN, migrate};

/// Names of the users' families. In kvdb each is prefixed: its `default` is the engine's own, which is
/// always logged, and stays empty.
pub const DATA_FAMILIES: [&str; 3] = ["default", "write", "lock"];

/// Prefix of the users' families in kvdb.
const DATA: &str = "data-";
const LOCAL: &str = "local";
const ENTRIES: &str = "entries";
const STATES: &str = "states";

/// Bytes of the memtable of raftdb's states: they are few, and overwritten all the time.
const STATES_BUFFER_BYTES: usize = 8 << 20;
/// Bytes of raftdb's log that those may hold back before they are flushed: an open reads them.
const RAFT_LOG_BYTES: u64 = 64 << 20;
/// Largest segment of raftdb's log in bytes: of a log of 64 MiB the half that is truncated is given up soon.
const RAFT_SEGMENT_BYTES: u64 = 32 << 20;
/// Dead bytes of raftdb's log above which the entries of regions that rest are written forward. An open reads these too.
const RAFT_GARBAGE_BYTES: u64 = 128 << 20;
/// Newest batches that raftdb keeps in memory: the store has a cache of entries of its own.
const RAFT_TAIL_BYTES: usize = 8 << 20;

/// Both databases of a store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Engines {
    /// State machines: users' data and how far it goes. All families that are used are unlogged.
    pub kv: Db,
    /// Raft logs and hard states, logged.
    pub raft: Db,
    /// kvdb: apply states and region states.
    pub local: ColumnFamily,
    /// kvdb: users' data, in the order of [`DATA_FAMILIES`].
    pub data: [ColumnFamily; 3],
    /// raftdb: entries, an append family (docs/adr/0012).
    pub log: ColumnFamily,
    /// raftdb: RaftLocalStates and intents.
    pub states: ColumnFamily,
}

impl Engines {
    /// What raftdb is to be opened with: `options`, but for what its use says about its log.
    #[must_use]
    pub fn raft_options(options: Options) -> Options {
        Options {
            log_segment_bytes: (
                options.log_segment_bytes.0.min(RAFT_SEGMENT_BYTES),
                RAFT_SEGMENT_BYTES,
            ),
            max_log_bytes: RAFT_LOG_BYTES,
            max_log_garbage_bytes: RAFT_GARBAGE_BYTES,
            append_tail_bytes: options.append_tail_bytes.min(RAFT_TAIL_BYTES),
            ..options
        }
    }

    /// Takes two open databases, and makes the families that are missing in them; those that are there keep
    /// their options. The entries of a raftdb written before there were append families are moved first, which takes
    /// as long as reading and writing them.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Engine`], also for databases whose families are of the other class;
    /// [`crate::Error::Corruption`] for entries of before that are no logs.
    pub fn new(kv: Db, raft: Db) -> Result<Self> {
        let known = kv
            .cf(LOCAL)
            .map(|family| family.options().write_buffer_bytes);
        let write_buffer_bytes = known.unwrap_or_else(|_| CfOptions::unlogged().write_buffer_bytes);
        Self::with_write_buffer(kv, raft, write_buffer_bytes)
    }

    /// The same with memtables of so many bytes in each family of kvdb, also in those that are there.
    ///
    /// # Errors
    ///
    /// As for [`Engines::new`].
    pub fn with_write_buffer(kv: Db, raft: Db, write_buffer_bytes: usize) -> Result<Self> {
        Self::with_faults(kv, raft, write_buffer_bytes, Faults::default())
    }

    /// The same with a rule to break, for tests of the tests.
    ///
    /// # Errors
    ///
    /// As for [`Engines::new`].
    #[doc(hidden)]
    pub fn with_faults(
        kv: Db,
        raft: Db,
        write_buffer_bytes: usize,
        faults: Faults,
    ) -> Result<Self> {
        let options = CfOptions {
            write_buffer_bytes,
            ..CfOptions::unlogged()
        };
        let open = |name: &str| kv.open_cf(name, options.clone());
        let data = |name| open(&format!("{DATA}{name}"));
        let [default, write, lock] = DATA_FAMILIES;
        let states = CfOptions {
            write_buffer_bytes: STATES_BUFFER_BYTES,
            ..CfOptions::default()
        };
        let states = raft.open_cf(STATES, states)?;
        let mut entries = CfOptions::append(STATE_KEY_LEN);
        // It would be done by the store loop, for bytes that are dead soon.
        entries.compression[0] = Compression::None;
        let log = raft.open_cf(ENTRIES, entries)?;
        migrate::entries(&raft, &log, faults)?;
        Ok(Self {
            local: open(LOCAL)?,
            data: [data(default)?, data(write)?, data(lock)?],
            log,
            states,
            kv,
            raft,
        })
    }

    /// Makes durable all that kvdb holds, as one moment of its order of writes.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Engine`].
    pub fn flush_kv(&self) -> Result<()> {
        // A flush of one unlogged family takes all of them along.
        Ok(self.kv.flush(&self.local)?)
    }
}
