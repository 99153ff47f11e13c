//! Files of Raft snapshots: made, read for sending, received, opened for installing, removed.
//!
//! Who calls it: a background worker makes and sends, the transport's receiving side pushes chunks, the
//! store loop takes the tables of a pending snapshot and gives them to `PeerStorage::install`.
//!
//! # What is promised
//!
//! - A snapshot is one moment of kvdb: apply state, region state and data of one engine snapshot.
//! - What is received is durable, whole, and within the region when [`Receiver::finish`] returns. A
//!   loss of power leaves a received set complete or not at all, once the store is opened again.
//! - A complete set stays until it is released or removed as stale; one in use is never removed.
//! - What fails removes its own files and harms nothing else. Sizes that a peer announces are compared
//!   with what comes, and never allocated.
//!
//! # Limits
//!
//! Named below. Beside them those of the engine hold, as one family is one table: an index below 4 GiB
//! (with blocks of 4 KiB a table of some hundred GiB) and a filter of at most 1 GiB (some 800 million keys).
//!
//! # What it is not
//!
//! No thread, clock or rate limit: [`SnapshotStore::generate`] asks its caller after each piece, and who
//! sends or pushes chunks chooses when. Which sets are stale is the caller's to say. Whether a region
//! overlaps others of the store is not looked at.

mod description;
mod error;
pub(crate) mod fuzz;
mod generate;
mod names;
mod receive;
mod send;
mod tables;

use std::{
    collections::BTreeMap,
    io::ErrorKind::NotFound,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use basalt_engine::{ColumnFamily, TableFile, fs::Fs};
use basalt_proto::eraftpb::Snapshot;

use crate::{DATA_FAMILIES, Engines};
use description::Description;
pub use description::SnapshotKey;
pub use error::SnapshotError;
use error::{Result, io};
use names::Name;
pub use receive::{Incoming, Receiver};
pub use send::ChunkReader;

/// Bytes of the largest chunk that [`SnapshotStore::chunks`] gives, and how many bytes of rows
/// [`SnapshotStore::generate`] reads between two questions to its caller.
pub const SNAPSHOT_CHUNK: usize = 1 << 20;
/// Bytes of the files of the largest snapshot: 1 TiB.
pub const MAX_SNAPSHOT_BYTES: u64 = 1 << 40;
/// Snapshots made here that there may be at a time, those in the making included.
pub const MAX_GENERATED: usize = 32;
/// Snapshots being received at a time.
pub const MAX_RECEIVING: usize = 4;
/// Snapshots that are received and neither released nor removed.
pub const MAX_RECEIVED: usize = 64;

/// Where the files of a snapshot come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// Made here, for others.
    Generated,
    /// From another store.
    Received,
}

/// What is being done with the files of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotState {
    /// Being made; its key has no checksum yet.
    Generating,
    /// Coming in.
    Receiving,
    /// Complete, and not in use.
    Ready,
    /// Being read by so many senders.
    Sending(usize),
    /// Its tables were given out, and it is not released.
    Installing,
    /// Being removed, or left so by a disk that refused.
    Removing,
}

/// A snapshot whose files are here, or are coming to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Which one.
    pub key: SnapshotKey,
    /// Made here or received.
    pub origin: Origin,
    /// What is done with it.
    pub state: SnapshotState,
    /// Bytes of its files; 0 while they are being made.
    pub bytes: u64,
}

/// The directory of a store's snapshot files. Cheap to clone; clones are the same store.
#[derive(Clone, Debug)]
pub struct SnapshotStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    engines: Engines,
    entries: Mutex<Entries>,
    /// Held while files are removed, so that no two remove the same ones, with new ones in between.
    removing: Mutex<()>,
}

type Entries = BTreeMap<(Origin, SnapshotKey), Entry>;

#[derive(Debug)]
struct Entry {
    state: SnapshotState,
    /// `None` while it is being made.
    description: Option<Arc<Description>>,
    /// The verified tables of a received one, by family; `None` where they were not opened in this life.
    tables: Option<Vec<(usize, TableFile)>>,
}

impl Entry {
    fn new(state: SnapshotState, description: Option<Arc<Description>>) -> Self {
        Self {
            state,
            description,
            tables: None,
        }
    }
}

impl SnapshotStore {
    /// Opens the directory `dir`, made where it is missing, on the disk `fs` that kvdb is on. Nobody else
    /// may use it. Removes what an earlier life made for others or left unfinished; complete received
    /// snapshots stay, because an intent may need them: [`SnapshotStore::remove_stale`] the others once
    /// the peers are open.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Engine`].
    pub fn open(fs: Arc<dyn Fs>, dir: impl Into<PathBuf>, engines: Engines) -> Result<Self> {
        let dir = dir.into();
        fs.create_dir_all(&dir).map_err(io("create", &dir))?;
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs.sync_dir(parent).map_err(io("sync directory", parent))?;
        }
        let names = fs.list_dir(&dir).map_err(io("list", &dir))?;
        let mut entries = Entries::new();
        for name in &names {
            if let Some(Name::Meta(key)) = Name::parse(name)
                && let Some(description) = receive::complete(&*fs, &dir, key)?
            {
                let entry = Entry::new(SnapshotState::Ready, Some(Arc::new(description)));
                entries.insert((Origin::Received, key), entry);
            }
        }
        for name in &names {
            let kept = match Name::parse(name) {
                None => true, // not a name of ours
                Some(Name::Temporary) => false,
                Some(Name::Meta(key)) => entries.contains_key(&(Origin::Received, key)),
                Some(Name::Table(origin, key, family)) => entries
                    .get(&(origin, key))
                    .and_then(|entry| entry.description.as_ref())
                    .is_some_and(|description| description.files[family].bytes > 0),
            };
            if !kept {
                let path = dir.join(name);
                fs.remove_file(&path).map_err(io("remove", &path))?;
            }
        }
        // A set whose names a power cut kept by chance is relied on from here on.
        fs.sync_dir(&dir).map_err(io("sync directory", &dir))?;
        Ok(Self {
            inner: Arc::new(Inner {
                fs,
                dir,
                engines,
                entries: Mutex::new(entries),
                removing: Mutex::new(()),
            }),
        })
    }

    /// The tables of a received snapshot, verified, for `PeerStorage::install`. From now on the files stay
    /// until [`SnapshotStore::release`]; asked again, it answers again.
    ///
    /// It reads all files where they were received in an earlier life.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Missing`] where the files are not here, and [`SnapshotError::Damaged`] where they
    /// are not what was received, and then they are removed: the peer has to wait until this snapshot, or
    /// a later one, is received. [`SnapshotError::Refused`], [`SnapshotError::Engine`].
    pub fn tables(&self, snapshot: &Snapshot) -> Result<Vec<(ColumnFamily, TableFile)>> {
        let wanted = Description::of(snapshot)?;
        let id = (Origin::Received, wanted.key);
        let known = {
            let mut entries = self.entries();
            let entry = entries.get_mut(&id).filter(|entry| {
                matches!(
                    entry.state,
                    SnapshotState::Ready | SnapshotState::Installing
                )
            });
            let missing =
                || SnapshotError::Missing(format!("the files of {} are not here", wanted.key));
            let entry = entry.ok_or_else(missing)?;
            entry.state = SnapshotState::Installing;
            entry.tables.clone()
        };
        let tables = match known {
            Some(tables) => tables,
            None => self.reopen(&wanted)?,
        };
        let family = |at: usize| self.inner.engines.data[at].clone();
        Ok(tables
            .into_iter()
            .map(|(at, table)| (family(at), table))
            .collect())
    }

    /// Opens the tables of a snapshot that was received in an earlier life.
    fn reopen(&self, wanted: &Description) -> Result<Vec<(usize, TableFile)>> {
        let id = (Origin::Received, wanted.key);
        let mut tables = Vec::new();
        for (at, sum) in wanted.present() {
            let path = self.table_path(Origin::Received, &wanted.key, at);
            let opened = tables::checksum(&*self.inner.fs, &path)
                .and_then(|found| tables::demand(&path, &found, sum))
                .and_then(|()| tables::open(&self.inner.fs, &path, &wanted.region));
            match opened {
                Ok(table) => tables.push((at, table)),
                Err(error) => {
                    if matches!(error, SnapshotError::Missing(_) | SnapshotError::Damaged(_)) {
                        // Else the same snapshot, sent again, would be taken for present.
                        self.remove(id, |state| state == SnapshotState::Installing)?;
                    }
                    return Err(error);
                }
            }
        }
        if let Some(entry) = self.entries().get_mut(&id) {
            entry.tables = Some(tables.clone());
        }
        Ok(tables)
    }

    /// Removes the files of a received snapshot, if they are here. To be called when it is installed and
    /// the end of its intent is synced, or when its peer is destroyed.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Engine`]: what is left goes with the next [`SnapshotStore::remove_stale`] or open.
    pub fn release(&self, snapshot: &Snapshot) -> Result<()> {
        let id = (Origin::Received, SnapshotKey::of(snapshot)?);
        let free = |state| state != SnapshotState::Receiving;
        self.remove(id, free).map(drop)
    }

    /// Removes snapshots that are not in use and that `keep` does not want; answers how many.
    ///
    /// A received one may be on its way to its peer in a message: keep those above the applied index
    /// of the region, and those of a pending snapshot. One that was made is not needed once the log is truncated above it.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Engine`]: the last failure; all were tried.
    pub fn remove_stale(&self, keep: impl Fn(&SnapshotInfo) -> bool) -> Result<usize> {
        let idle = |state| matches!(state, SnapshotState::Ready | SnapshotState::Removing);
        let mut removed = 0;
        let mut result = Ok(());
        for info in self.list() {
            let left = info.state == SnapshotState::Removing;
            if !idle(info.state) || (!left && keep(&info)) {
                continue;
            }
            match self.remove((info.origin, info.key), idle) {
                Ok(done) => removed += usize::from(done),
                Err(error) => result = Err(error),
            }
        }
        result.map(|()| removed)
    }

    /// All snapshots, in order.
    #[must_use]
    pub fn list(&self) -> Vec<SnapshotInfo> {
        let entries = self.entries();
        let info = |(&(origin, key), entry): (&(Origin, SnapshotKey), &Entry)| SnapshotInfo {
            key,
            origin,
            state: entry.state,
            bytes: entry
                .description
                .as_ref()
                .map_or(0, |description| description.bytes()),
        };
        entries.iter().map(info).collect()
    }

    /// Removes the files of a snapshot if its state is one that `may` go; true if they were here.
    fn remove(
        &self,
        id: (Origin, SnapshotKey),
        may: impl Fn(SnapshotState) -> bool,
    ) -> Result<bool> {
        let _one = self
            .inner
            .removing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match self.entries().get_mut(&id) {
            Some(entry) if may(entry.state) => entry.state = SnapshotState::Removing,
            _ => return Ok(false),
        }
        let (origin, key) = id;
        let mut paths = Vec::new();
        if origin == Origin::Received {
            // First, so that what is left is known to be incomplete.
            paths.push(self.path(&Name::Meta(key)));
        }
        paths.extend((0..DATA_FAMILIES.len()).map(|at| self.table_path(origin, &key, at)));
        let mut result = Ok(());
        for path in paths {
            match self.inner.fs.remove_file(&path) {
                Err(error) if error.kind() != NotFound => result = Err(io("remove", &path)(error)),
                _ => {}
            }
        }
        result?;
        self.entries().remove(&id);
        Ok(true)
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        // What is done under it does not leave an entry half changed.
        self.inner
            .entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, name: &Name) -> PathBuf {
        self.inner.dir.join(name.to_string())
    }

    fn table_path(&self, origin: Origin, key: &SnapshotKey, family: usize) -> PathBuf {
        self.path(&Name::Table(origin, *key, family))
    }
}

/// Files that are being written under an entry of the registry: dropped before they are complete, both go.
#[derive(Debug)]
struct Unfinished {
    store: SnapshotStore,
    id: (Origin, SnapshotKey),
    /// What was created, or is about to be.
    paths: Vec<PathBuf>,
}

impl Unfinished {
    fn new(store: &SnapshotStore, id: (Origin, SnapshotKey)) -> Self {
        Self {
            store: store.clone(),
            id,
            paths: Vec::new(),
        }
    }

    fn fs(&self) -> &dyn Fs {
        &*self.store.inner.fs
    }

    /// The path for what becomes `path`; both are removed if it comes to nothing.
    fn temporary(&mut self, path: &Path) -> PathBuf {
        let temporary = names::temporary(path);
        self.paths.push(temporary.clone());
        temporary
    }

    /// Gives a finished file its name.
    fn rename(&mut self, temporary: &Path, path: &Path) -> Result<()> {
        self.paths.push(path.to_owned());
        let renamed = self.fs().rename(temporary, path);
        renamed.map_err(io("rename", temporary))
    }

    /// It is complete: the entry becomes `entry` under `key`, and the files stay.
    fn complete(mut self, key: SnapshotKey, entry: Entry) {
        self.paths.clear();
        let mut entries = self.store.entries();
        entries.remove(&self.id);
        self.id.1 = key;
        entries.insert(self.id, entry);
        drop(entries);
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // The last ones first: without its meta file a received set is known to be incomplete.
        for path in self.paths.drain(..).rev() {
            // What a disk refuses to remove, the next open removes.
            let _ = self.store.inner.fs.remove_file(&path);
        }
        let mut entries = self.store.entries();
        let unfinished =
            |state| matches!(state, SnapshotState::Generating | SnapshotState::Receiving);
        if entries
            .get(&self.id)
            .is_some_and(|entry| unfinished(entry.state))
        {
            entries.remove(&self.id);
        }
    }
}
