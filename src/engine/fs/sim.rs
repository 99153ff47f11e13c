//! `SimFs`: a disk in memory that knows what a power cut would leave of it.
//!
//! It keeps the model of durability that [`Fs`] states, as hard on the caller as the model allows.
//! Tests take images of it as after a crash ([`SimFs::crash`]) at every boundary between two changes
//! ([`SimFs::set_observer`]), make any operation fail ([`SimFs::set_fault_rule`]), fill it
//! ([`SimFs::set_capacity`]), and damage its bytes ([`SimFs::corrupt`]). Paths are absolute; a relative
//! one starts at `/`. The same calls give the same disk. Not here: time (nothing is slow).

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{FileLock, Fs, LogFile, ReadMode, ReadableFile, WritableFile};

mod content;
mod disk;
mod fault;
mod file;
mod handle;
mod survival;
#[cfg(test)]
mod tests;
mod tree;

use disk::Disk;
pub use fault::{Failure, FaultRule, Observer, Op, OpKind, fail_nth, fail_range};
use handle::{Handle, SimLock, SimLog, SimReader, SimWriter};
pub use survival::Survival;
use tree::Node;

/// A disk in memory. Clones are handles on the same disk.
#[derive(Clone)]
pub struct SimFs {
    shared: Arc<Shared>,
}

struct Shared {
    disk: Mutex<Disk>,
    hooks: Mutex<Hooks>,
    changes: AtomicU64,
    others: AtomicU64,
}

#[derive(Clone, Default)]
struct Hooks {
    observer: Option<Observer>,
    rule: Option<FaultRule>,
}

impl SimFs {
    /// An empty disk: it has the directory `/`.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Self::of(Disk::new())
    }

    fn of(disk: Disk) -> Arc<Self> {
        let shared = Shared {
            disk: Mutex::new(disk),
            hooks: Mutex::default(),
            changes: AtomicU64::new(0),
            others: AtomicU64::new(0),
        };
        Arc::new(Self {
            shared: Arc::new(shared),
        })
    }

    /// An independent disk as a crash at this moment would leave it: nothing open, nothing locked,
    /// no hooks, operations counted from 0, the same capacity.
    #[must_use]
    pub fn crash(&self, how: Survival) -> Arc<Self> {
        Self::of(self.disk().survivor(how))
    }

    /// A hash of all names and contents that readers see, to tell states apart.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.disk().hash()
    }

    /// Calls `observer` before each change from now on; `None` ends that.
    pub fn set_observer(&self, observer: Option<Observer>) {
        self.hooks().observer = observer;
    }

    /// Makes operations fail as `rule` says from now on; `None` ends that.
    pub fn set_fault_rule(&self, rule: Option<FaultRule>) {
        self.hooks().rule = rule;
    }

    /// Bytes that files may take together (their lengths); `None`: any number. Beyond, growing fails
    /// with `StorageFull`, and a write does as much of itself as fits.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.disk().capacity = bytes;
    }

    /// Bytes of all files that have a name or an open handle.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.disk().used()
    }

    /// Changes so far: the index of the next one.
    #[must_use]
    pub fn op_count(&self) -> u64 {
        self.shared.changes.load(Ordering::Relaxed)
    }

    /// Makes everything durable, as if every file and directory had been synced well.
    pub fn settle(&self) {
        self.disk().settle();
    }

    /// Paths of all files, in order.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        self.disk().tree.walk(&mut |path, node| {
            if let Node::File(_) = node {
                files.push(path.to_owned());
            }
        });
        files
    }

    /// Content of a file, past all hooks.
    ///
    /// # Errors
    /// `NotFound`, `IsADirectory`.
    pub fn read_raw(&self, path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
        let disk = self.disk();
        let id = disk.tree.find_file(path.as_ref())?;
        Ok(disk.file(id).live().flat().to_vec())
    }

    /// Puts a file with this content on the disk, past all hooks, durable with all else that is
    /// there; its directory exists.
    ///
    /// # Errors
    /// `NotFound` without the directory, `IsADirectory`.
    pub fn write_raw(&self, path: impl AsRef<Path>, content: &[u8]) -> io::Result<()> {
        let mut disk = self.disk();
        let id = disk.create(path.as_ref())?;
        let file = disk.file_mut(id);
        file.set_len(content.len());
        file.write(0, content);
        disk.settle();
        Ok(())
    }

    /// Flips the bits of `mask` in one stored byte, past all hooks. Maps opened before do not show it;
    /// read calls do.
    ///
    /// # Errors
    /// `NotFound`, `IsADirectory`; `UnexpectedEof` behind the end.
    pub fn corrupt(&self, path: impl AsRef<Path>, offset: u64, mask: u8) -> io::Result<()> {
        let mut disk = self.disk();
        let id = disk.tree.find_file(path.as_ref())?;
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        disk.file(id).live().read(offset, &mut [0])?;
        disk.file_mut(id).damage(|content| {
            let mut byte = [0];
            // The durable side may be shorter; then there is nothing to damage on it.
            if content.read(offset, &mut byte).is_ok() {
                content.write(offset, &[byte[0] ^ mask]);
            }
        });
        Ok(())
    }

    /// Cuts a stored file, past all hooks; a longer `len` changes nothing.
    ///
    /// # Errors
    /// `NotFound`, `IsADirectory`.
    pub fn truncate(&self, path: impl AsRef<Path>, len: u64) -> io::Result<()> {
        let mut disk = self.disk();
        let id = disk.tree.find_file(path.as_ref())?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        disk.file_mut(id)
            .damage(|content| content.set_len(len.min(content.len())));
        Ok(())
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        // Operations check before they change, so a panic under the lock (a failed assertion of a
        // test's own making) leaves no half-done one.
        self.shared
            .disk
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn hooks(&self) -> MutexGuard<'_, Hooks> {
        self.shared
            .hooks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What comes before every operation: its number, the observer, and the failure planted for it.
    fn begin(
        &self,
        kind: OpKind,
        path: &Path,
        to: Option<&Path>,
        offset: usize,
        len: usize,
    ) -> (Op, Option<Failure>) {
        let counter = if kind.is_change() {
            &self.shared.changes
        } else {
            &self.shared.others
        };
        let op = Op {
            index: counter.fetch_add(1, Ordering::Relaxed),
            kind,
            path: path.to_owned(),
            to: to.map(Path::to_owned),
            offset: offset as u64,
            len: len as u64,
        };
        let Hooks { observer, rule } = self.hooks().clone();
        if kind.is_change()
            && let Some(observer) = observer
        {
            observer(self, op.index, &op);
        }
        let failure = rule.and_then(|rule| rule(&op));
        (op, failure)
    }

    /// The same for an operation that a failure leaves undone.
    fn check(&self, kind: OpKind, path: &Path, offset: usize, len: usize) -> io::Result<()> {
        self.begin(kind, path, None, offset, len)
            .1
            .map_or(Ok(()), |failure| Err(failure.error))
    }

    /// Opens the file at `path`, made first when missing.
    fn open_or_create(&self, path: &Path) -> io::Result<(Handle, usize)> {
        let missing = self.disk().tree.find(path).is_err();
        if missing {
            self.check(OpKind::Create, path, 0, 0)?;
        }
        let mut disk = self.disk();
        let id = disk.create(path)?;
        let file = disk.file_mut(id);
        file.handles += 1;
        Ok((Handle::new(self, id, path), file.len()))
    }
}

impl fmt::Debug for SimFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFs")
            .field("op_count", &self.op_count())
            .finish_non_exhaustive()
    }
}

impl Fs for SimFs {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut parents: Vec<&Path> = path
            .ancestors()
            .filter(|p| !p.as_os_str().is_empty())
            .collect();
        parents.reverse();
        for dir in parents {
            let found = self.disk().tree.find(dir);
            match found {
                Ok(Node::Dir(_)) => {}
                Ok(Node::File(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.check(OpKind::CreateDir, dir, 0, 0)?;
                    self.disk().create_dir(dir)?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn list_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        self.check(OpKind::List, path, 0, 0)?;
        let disk = self.disk();
        Ok(disk.tree.list(disk.tree.find_dir(path)?))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let (_, failure) = self.begin(OpKind::SyncDir, path, None, 0, 0);
        let mut disk = self.disk();
        match failure {
            None => disk.sync_dir(path),
            Some(failure) => {
                disk.fail_sync_dir(path);
                Err(failure.error)
            }
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        match self.begin(OpKind::Rename, from, Some(to), 0, 0).1 {
            None => self.disk().rename(from, to),
            Some(failure) => Err(failure.error),
        }
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.check(OpKind::Remove, path, 0, 0)?;
        self.disk().remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.check(OpKind::RemoveDir, path, 0, 0)?;
        self.disk().remove_dir(path)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        match self.begin(OpKind::Link, from, Some(to), 0, 0).1 {
            None => self.disk().link(from, to),
            Some(failure) => Err(failure.error),
        }
    }

    fn file_len(&self, path: &Path) -> io::Result<u64> {
        self.check(OpKind::Len, path, 0, 0)?;
        let disk = self.disk();
        Ok(disk.file(disk.tree.find_file(path)?).len() as u64)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        self.check(OpKind::Lock, path, 0, 0)?;
        let (handle, _) = self.open_or_create(path)?;
        match SimLock::take(handle) {
            Some(lock) => Ok(Box::new(lock)),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn lock_shared(&self, path: &Path) -> io::Result<Option<Box<dyn FileLock>>> {
        self.check(OpKind::Lock, path, 0, 0)?;
        let handle = {
            let mut disk = self.disk();
            let id = match disk.tree.find_file(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                id => id?,
            };
            disk.file_mut(id).handles += 1;
            Handle::new(self, id, path)
        };
        match SimLock::share(handle) {
            Some(lock) => Ok(Some(Box::new(lock))),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WritableFile>> {
        self.check(OpKind::Create, path, 0, 0)?;
        let mut disk = self.disk();
        let id = disk.create(path)?;
        let file = disk.file_mut(id);
        file.set_len(0);
        file.handles += 1;
        Ok(Box::new(SimWriter {
            handle: Handle::new(self, id, path),
            end: 0,
        }))
    }

    fn open(&self, path: &Path, mode: ReadMode) -> io::Result<Arc<dyn ReadableFile>> {
        self.check(OpKind::Open, path, 0, 0)?;
        let mut disk = self.disk();
        let id = disk.tree.find_file(path)?;
        let file = disk.file_mut(id);
        file.handles += 1;
        let len = file.len();
        let map = (mode == ReadMode::Mapped && len > 0).then(|| file.live().flat());
        Ok(Arc::new(SimReader {
            handle: Handle::new(self, id, path),
            len,
            map,
        }))
    }

    fn open_log(&self, path: &Path, capacity: u64) -> io::Result<Arc<dyn LogFile>> {
        let (handle, len) = self.open_or_create(path)?;
        let capacity = usize::try_from(capacity)
            .map_err(|_| io::ErrorKind::StorageFull)?
            .max(len);
        if capacity > len {
            self.check(OpKind::Grow, path, len, capacity - len)?;
            handle.grow(capacity)?;
        }
        Ok(Arc::new(SimLog { handle, capacity }))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.check(OpKind::Read, path, 0, 0)?;
        self.read_raw(path)
    }
}
