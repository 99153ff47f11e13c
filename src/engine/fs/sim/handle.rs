//! Open files of the simulated disk. A handle keeps its file alive after its name is gone.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{SimFs, fault::OpKind, tree::Id};
use crate::fs::{FileLock, LogFile, ReadableFile, WritableFile};

/// An open file.
#[derive(Debug)]
pub(super) struct Handle {
    fs: SimFs,
    id: Id,
    path: PathBuf,
}

impl Handle {
    /// A handle on `id`, whose count of handles the caller has raised.
    pub(super) fn new(fs: &SimFs, id: Id, path: &Path) -> Self {
        Self {
            fs: fs.clone(),
            id,
            path: path.to_owned(),
        }
    }

    /// Grows the file with zeros.
    pub(super) fn grow(&self, len: usize) -> io::Result<()> {
        self.fs.disk().grow(self.id, len)
    }

    fn write(&self, offset: usize, data: &[u8]) -> io::Result<()> {
        let (op, failure) = self
            .fs
            .begin(OpKind::Write, &self.path, None, offset, data.len());
        let mut disk = self.fs.disk();
        match failure {
            None => disk.write(self.id, offset, data),
            Some(failure) => {
                let written = usize::try_from(failure.written.min(op.len)).unwrap_or(0);
                // Whatever comes of the part, the caller is told of the planted failure.
                let _ = disk.write(self.id, offset, &data[..written]);
                Err(failure.error)
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        let (_, failure) = self.fs.begin(OpKind::Sync, &self.path, None, 0, 0);
        let mut disk = self.fs.disk();
        let file = disk.file_mut(self.id);
        match failure {
            None => {
                file.sync();
                Ok(())
            }
            Some(failure) => {
                file.fail_sync();
                Err(failure.error)
            }
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.fs.disk().close(self.id);
    }
}

#[derive(Debug)]
pub(super) struct SimLock(Handle);

impl SimLock {
    /// `None` when the file is locked already.
    pub(super) fn take(handle: Handle) -> Option<Self> {
        let free = handle.fs.disk().lock(handle.id);
        free.then(|| Self(handle))
    }

    /// `None` when somebody holds the file for himself.
    pub(super) fn share(handle: Handle) -> Option<Self> {
        let free = handle.fs.disk().lock_shared(handle.id);
        free.then(|| Self(handle))
    }
}

impl FileLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.0.fs.disk().unlock(self.0.id);
    }
}

#[derive(Debug)]
pub(super) struct SimWriter {
    pub(super) handle: Handle,
    /// Where the next bytes go.
    pub(super) end: usize,
}

impl WritableFile for SimWriter {
    fn append(&mut self, data: &[u8]) -> io::Result<()> {
        let offset = self.end;
        self.end += data.len();
        self.handle.write(offset, data)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.handle.sync()
    }
}

#[derive(Debug)]
pub(super) struct SimLog {
    pub(super) handle: Handle,
    pub(super) capacity: usize,
}

impl LogFile for SimLog {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        if offset
            .checked_add(data.len())
            .is_none_or(|end| end > self.capacity)
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "write beyond capacity",
            ));
        }
        self.handle.write(offset, data)
    }

    fn sync(&self) -> io::Result<()> {
        self.handle.sync()
    }

    fn capacity(&self) -> u64 {
        self.capacity as u64
    }
}

#[derive(Debug)]
pub(super) struct SimReader {
    pub(super) handle: Handle,
    pub(super) len: usize,
    /// The bytes as they were at open, for mapped reading.
    pub(super) map: Option<Arc<[u8]>>,
}

impl ReadableFile for SimReader {
    fn len(&self) -> u64 {
        self.len as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        self.handle
            .fs
            .check(OpKind::Read, &self.handle.path, offset, buf.len())?;
        let disk = self.handle.fs.disk();
        disk.file(self.handle.id).live().read(offset, buf)
    }

    fn map(&self) -> Option<&[u8]> {
        self.map.as_deref()
    }

    fn populate(&self, offset: u64, len: usize) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        if self.map.is_some() && offset.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.handle
            .fs
            .check(OpKind::Populate, &self.handle.path, offset, len)
    }

    fn is_resident(&self, _: u64, _: usize) -> bool {
        // Nothing here takes time.
        self.map.is_some()
    }
}
