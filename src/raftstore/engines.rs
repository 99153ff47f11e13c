//! `Engines`: the two databases of a store, and their families.
//!
//! Whoever opens them chooses directories, disk and threads. Not here: what is in them.

use basalt_engine::{CfOptions, ColumnFamily, Db};

use crate::Result;

/// Names of the users' families. In kvdb each is prefixed: its `default` is the engine's own, which is
/// always logged, and stays empty.
pub const DATA_FAMILIES: [&str; 3] = ["default", "write", "lock"];

/// Prefix of the users' families in kvdb.
const DATA: &str = "data-";
const LOCAL: &str = "local";
const LOG: &str = "log";
const STATES: &str = "states";

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
    /// raftdb: entries.
    pub log: ColumnFamily,
    /// raftdb: RaftLocalStates and intents.
    pub states: ColumnFamily,
}

impl Engines {
    /// Takes two open databases, and makes the families that are missing in them; those that are there keep
    /// their options.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Engine`], also for databases whose families are of the other class.
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
        let options = CfOptions {
            write_buffer_bytes,
            ..CfOptions::unlogged()
        };
        let open = |name: &str| kv.open_cf(name, options.clone());
        let data = |name| open(&format!("{DATA}{name}"));
        let [default, write, lock] = DATA_FAMILIES;
        Ok(Self {
            local: open(LOCAL)?,
            data: [data(default)?, data(write)?, data(lock)?],
            log: raft.open_cf(LOG, CfOptions::default())?,
            states: raft.open_cf(STATES, CfOptions::default())?,
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
