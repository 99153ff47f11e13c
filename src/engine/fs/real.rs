//! `RealFs`: the operating system's files behind [`Fs`].
//!
//! Promises: errors are the system's own; a sync is the strongest one there is (`fdatasync` on Linux,
//! a full flush of the drive on macOS, which the standard library asks for); a damaged sector or a file
//! cut short under a map is an error of [`ReadableFile::populate`], as far as a kernel can tell before
//! the touch. Log files are in [`log`]. Not here: buffering (the writers above buffer), retries.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use memmap2::Mmap;

use super::{FileLock, Fs, LogFile, ReadMode, ReadableFile, WritableFile};

mod log;
#[cfg(test)]
mod tests;

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
compile_error!("what a sync promises is known for Linux and macOS only");

/// The operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFs;

impl Fs for RealFs {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn list_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            // A name that is not Unicode is nobody's file of ours; the lossy form matches none either.
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn file_len(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(path)?.len())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(RealLock { _file: file })),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn lock_shared(&self, path: &Path) -> io::Result<Option<Box<dyn FileLock>>> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(Some(Box::new(RealLock { _file: file }))),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WritableFile>> {
        Ok(Box::new(RealWriter {
            file: File::create(path)?,
        }))
    }

    fn open(&self, path: &Path, mode: ReadMode) -> io::Result<Arc<dyn ReadableFile>> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        let map = match mode {
            ReadMode::Mapped => map_file(&file, len),
            ReadMode::Pread => None,
        };
        Ok(Arc::new(RealReader { file, len, map }))
    }

    fn open_log(&self, path: &Path, capacity: u64) -> io::Result<Arc<dyn LogFile>> {
        Ok(Arc::new(log::RealLog::open(path, capacity)?))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }
}

/// Holds the lock as long as the file is open: the system frees it with the last handle, also when
/// the process dies.
#[derive(Debug)]
struct RealLock {
    _file: File,
}

impl FileLock for RealLock {}

#[derive(Debug)]
struct RealWriter {
    file: File,
}

impl WritableFile for RealWriter {
    fn append(&mut self, data: &[u8]) -> io::Result<()> {
        self.file.write_all(data)
    }

    fn sync(&mut self) -> io::Result<()> {
        // The length is part of what fdatasync makes durable; times are not, and nobody reads them.
        self.file.sync_data()
    }
}

/// A finished file: its handle for read calls, and its map where there is one.
#[derive(Debug)]
struct RealReader {
    file: File,
    len: u64,
    map: Option<Mmap>,
}

/// Maps a finished file; `None` (then reads go through calls) where the system refuses, for example
/// because the process has too many maps, and for an empty file.
///
/// The map keeps the system's default advice: read-ahead then follows the hit rate by itself, which
/// suits gets and scans, while "random" would make each page of a scan a read of its own.
fn map_file(file: &File, len: u64) -> Option<Mmap> {
    if len == 0 {
        return None;
    }
    #[expect(
        unsafe_code,
        reason = "a map is how tables are read without a call and a copy"
    )]
    // SAFETY: the bytes behind a shared map must not change while it is borrowed as `&[u8]`. Callers of
    // `Fs::open` promise that: the engine writes a table from start to end before anyone opens it, never
    // again afterwards, and removes it only by name, which leaves the map whole. A log segment is opened
    // with a map once it is full and durable, and its file is written again, as another segment, only when
    // nobody holds that map (`LogFiles::release_retired`). Other processes are kept out by the exclusive lock
    // of the directory.
    let map = unsafe { Mmap::map(file) };
    // A file cut between the two calls would have a map shorter than `len`, or pages behind its end.
    map.ok().filter(|map| map.len() as u64 == len)
}

impl ReadableFile for RealReader {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn map(&self) -> Option<&[u8]> {
        self.map.as_deref()
    }

    fn populate(&self, offset: u64, len: usize) -> io::Result<()> {
        let Some(map) = &self.map else { return Ok(()) };
        match offset.checked_add(len as u64) {
            Some(end) if end <= self.len => {}
            _ => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        let start = usize::try_from(offset).expect("within the map, which fits the address space");
        populate(&self.file, start, len, &POPULATE_UNKNOWN, |start, len| {
            populate_advice(map, start, len)
        })
    }

    fn is_resident(&self, offset: u64, len: usize) -> bool {
        is_resident(&self.file, offset, len)
    }
}

/// Bytes of a page, or of less than one: what is in memory is so by whole pages.
const PAGE: u64 = 4096;

/// Whether the page cache has a range: a read that may not wait gets a byte of each page.
#[cfg(target_os = "linux")]
fn is_resident(file: &File, offset: u64, len: usize) -> bool {
    use rustix::io::{ReadWriteFlags, preadv2};
    let Some(end) = offset.checked_add(len as u64) else {
        return false;
    };
    let first = offset - offset % PAGE;
    (first..end)
        .step_by(usize::try_from(PAGE).unwrap_or(usize::MAX))
        .all(|page| {
            let mut byte = [0];
            let mut into = [io::IoSliceMut::new(&mut byte)];
            preadv2(file, &mut into, page.max(offset), ReadWriteFlags::NOWAIT) == Ok(1)
        })
}

/// No such call here.
#[cfg(not(target_os = "linux"))]
fn is_resident(_: &File, _: u64, _: usize) -> bool {
    false
}

/// Asks the kernel to bring pages of a map in, and to say so where it cannot.
#[cfg(target_os = "linux")]
fn populate_advice(map: &Mmap, start: usize, len: usize) -> io::Result<()> {
    map.advise_range(memmap2::Advice::PopulateRead, start, len)
}

/// No such call here: the range is read instead.
#[cfg(not(target_os = "linux"))]
fn populate_advice(_: &Mmap, _: usize, _: usize) -> io::Result<()> {
    Err(io::ErrorKind::InvalidInput.into())
}

/// Set once the kernel has said that it does not know how to populate (Linux before 5.14).
static POPULATE_UNKNOWN: AtomicBool = AtomicBool::new(false);

/// Makes sure that `len` bytes from `start` can be touched in a map of `file`, by `advise` or, where
/// the kernel does not know that (`unknown` remembers), by reading them, which brings them into the page cache that backs
/// the map.
fn populate(
    file: &File,
    start: usize,
    len: usize,
    unknown: &AtomicBool,
    advise: impl Fn(usize, usize) -> io::Result<()>,
) -> io::Result<()> {
    if len == 0 {
        return Ok(());
    }
    if unknown.load(Ordering::Relaxed) {
        return read_through(file, start as u64, len);
    }
    match advise(start, len) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            // The range is sound (checked above), so it is the advice that is not known.
            unknown.store(true, Ordering::Relaxed);
            read_through(file, start as u64, len)
        }
        Err(_) => {
            // The kernel says only "bad address". Reading the range gives the reason (EIO, or the end
            // of a file that was cut short); where it reads well after all, the pages are here now.
            read_through(file, start as u64, len)?;
            advise(start, len)
        }
    }
}

/// Reads a range for its side effects.
fn read_through(file: &File, mut offset: u64, mut len: usize) -> io::Result<()> {
    const STEP: usize = 16 << 10;
    let mut scratch = [0; STEP];
    while len > 0 {
        let step = len.min(STEP);
        file.read_exact_at(&mut scratch[..step], offset)?;
        offset += step as u64;
        len -= step;
    }
    Ok(())
}
