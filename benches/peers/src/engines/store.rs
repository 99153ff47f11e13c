//! What a store has to offer to be measured, and the stores there are.
//!
//! A store that answers wrongly or fails ends the run: adapters panic where an engine gives an error.

use std::path::Path;

use crate::data::Key;

/// Settings that each adapter maps onto its engine as closely as the engine allows.
#[derive(Clone, Copy)]
pub struct Settings {
    /// Bytes of the engine's own cache.
    pub cache: usize,
    /// Bytes of a memtable.
    pub memtable: usize,
    /// Every write will be durable: for engines that choose when they are opened.
    pub durable: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cache: 512 << 20,
            memtable: 64 << 20,
            durable: false,
        }
    }
}

/// A key and its value.
pub type Pair = (Key, Vec<u8>);

/// An open store.
pub trait Store: Send + Sync {
    /// Sets one key. `durable`: it survives power loss once this returns; else, where the engine has a log, it
    /// survives the death of the process.
    fn put(&self, key: &Key, value: &[u8], durable: bool);
    /// Sets several keys together.
    fn put_all(&self, pairs: &[Pair], durable: bool);
    /// Shows the value to `see`; false where there is none.
    fn get(&self, key: &Key, see: &mut dyn FnMut(&[u8])) -> bool;
    /// Shows entries, until `see` says false: from the first at or after `from` on, or backward from the last
    /// at or before it; from the end where there is no `from`.
    fn walk(&self, from: Option<&Key>, backward: bool, see: &mut dyn FnMut(&[u8], &[u8]) -> bool);
    /// Removes every key from one on and below another.
    fn remove(&self, from: &Key, to: &Key);
    /// Brings memory into files, and waits until nothing goes on in the background.
    fn settle(&self);
    /// Closes the store.
    fn close(self: Box<Self>);
}

/// The engines of this build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Basalt,
    /// Basalt with Raft logs in a plain family.
    BasaltPlain,
    RaftEngine,
    Fjall,
    RocksDb,
    Redb,
    Lmdb,
}

impl Kind {
    pub const ALL: &[Self] = &[
        Self::Basalt,
        Self::Fjall,
        #[cfg(feature = "rocksdb")]
        Self::RocksDb,
        Self::Redb,
        Self::Lmdb,
        Self::RaftEngine,
        Self::BasaltPlain,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Basalt => "Basalt",
            Self::BasaltPlain => "Basalt-plain",
            Self::RaftEngine => "raft-engine",
            Self::Fjall => "fjall",
            Self::RocksDb => "RocksDB",
            Self::Redb => "redb",
            Self::Lmdb => "LMDB",
        }
    }

    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }

    /// Log-structured, as Basalt is: what its aims are set against.
    pub fn is_lsm(self) -> bool {
        matches!(self, Self::Fjall | Self::RocksDb)
    }

    /// Keeps Raft logs and nothing else, or is another way to keep them.
    pub fn is_for_logs_only(self) -> bool {
        matches!(self, Self::RaftEngine | Self::BasaltPlain)
    }

    /// Opens the store in `dir`, or makes one there.
    pub fn open(self, dir: &Path, settings: Settings) -> Box<dyn Store> {
        std::fs::create_dir_all(dir).expect("a directory");
        match self {
            Self::Basalt | Self::BasaltPlain => {
                Box::new(crate::basalt::Basalt::open(dir, settings))
            }
            Self::RaftEngine => panic!("raft-engine keeps logs only"),
            Self::Fjall => Box::new(crate::fjall::Fjall::open(dir, settings)),
            #[cfg(feature = "rocksdb")]
            Self::RocksDb => Box::new(crate::rocks::Rocks::open(dir, settings)),
            #[cfg(not(feature = "rocksdb"))]
            Self::RocksDb => panic!("a build without RocksDB"),
            Self::Redb => Box::new(crate::redb::Redb::open(dir, settings)),
            Self::Lmdb => Box::new(crate::lmdb::Lmdb::open(dir, settings)),
        }
    }
}

/// Waits until what `look` answers has not changed for a while.
pub fn wait_until_still<T: PartialEq>(mut look: impl FnMut() -> T) {
    use std::{
        thread::sleep,
        time::{Duration, Instant},
    };
    const STILL: Duration = Duration::from_millis(400);
    let (mut last, mut since) = (look(), Instant::now());
    while since.elapsed() < STILL {
        sleep(Duration::from_millis(20));
        let now = look();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
}
