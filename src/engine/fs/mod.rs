//! `Fs`: all that the engine asks of a disk.
//!
//! Two implementations: [`RealFs`], the operating system, and [`SimFs`], a disk in memory that knows
//! which bytes and which directory entries would survive a power cut, and that can be made to fail.
//!
//! The model of durability that callers must assume (and `SimFs` enforces):
//! - bytes written are readable at once, by every later open, and survive the death of the process;
//! - they survive a power cut only after `sync` of that file has returned without an error; before
//!   that, any subset of the 512-byte sectors written may be there (a sector itself is old or new);
//! - a failed `sync` leaves it unknown which of them are durable, and a later successful sync of the
//!   same file proves nothing about them;
//! - a created, renamed, linked or removed directory entry survives only after `sync_dir` of its
//!   directory; before that it may or may not.

use std::{fmt, io, path::Path, sync::Arc};

mod real;
pub mod sim;

pub use real::RealFs;
pub use sim::SimFs;

/// How table files are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadMode {
    /// Through a memory map; each block is verified at its first touch since the file was opened.
    #[default]
    Mapped,
    /// Through read calls; each read from the device is verified.
    Pread,
}

/// A file system, or a simulation of one. Paths are absolute or relative as the caller gave them.
///
/// # Errors
///
/// Every call passes on the system's error unchanged; the engine adds operation and path.
#[expect(clippy::missing_errors_doc, reason = "said once, for the trait")]
pub trait Fs: Send + Sync + fmt::Debug {
    /// Creates a directory and its parents; an existing one is fine.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Names (not paths) of the entries of a directory, in any order.
    fn list_dir(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Makes created, renamed, linked and removed entries of `path` durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Renames a file, replacing `to` in one step.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file; open handles and maps of it stay usable.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Gives `from` a second name; fails with `AlreadyExists` when `to` exists.
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Length of a file in bytes; `NotFound` when there is none.
    fn file_len(&self, path: &Path) -> io::Result<u64>;
    /// Takes the exclusive lock of `path` (created when missing) until the value is dropped.
    /// `WouldBlock` when another holder, in this or another process, has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>>;
    /// Takes a lock of `path` that others may share, until the value is dropped, and changes nothing; `None` when there
    /// is no such file. `WouldBlock` while somebody has it by [`Fs::lock`], who is kept out in turn.
    fn lock_shared(&self, path: &Path) -> io::Result<Option<Box<dyn FileLock>>>;
    /// Creates a file for writing from its start to its end; an existing one is emptied.
    fn create(&self, path: &Path) -> io::Result<Box<dyn WritableFile>>;
    /// Opens a file for reading. Its length must not change while it is open; opened [`ReadMode::Mapped`], none
    /// of its bytes may be written while it, or what was made of its map, is held.
    fn open(&self, path: &Path, mode: ReadMode) -> io::Result<Arc<dyn ReadableFile>>;
    /// Opens or creates a file that is written at given offsets within a fixed capacity: a log
    /// segment or a mark. Existing content is kept. The file is grown to at least `capacity` bytes,
    /// with real space behind it where the system can (so that writes within it find room), and
    /// the new part reads as zeros.
    fn open_log(&self, path: &Path, capacity: u64) -> io::Result<Arc<dyn LogFile>>;
    /// Whole content of a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
}

/// A held lock; dropped, it is free.
pub trait FileLock: Send + Sync + fmt::Debug {}

/// A file being written once, from start to end.
pub trait WritableFile: Send + fmt::Debug {
    /// Appends all of `data`.
    ///
    /// # Errors
    /// The system's. How much of `data` was written is then unknown.
    fn append(&mut self, data: &[u8]) -> io::Result<()>;
    /// Makes every byte appended so far, and the file's length, durable.
    ///
    /// # Errors
    /// The system's. The file's durable content is then unknown.
    fn sync(&mut self) -> io::Result<()>;
}

/// A preallocated file that is written at given offsets.
pub trait LogFile: Send + Sync + fmt::Debug {
    /// Writes all of `data` at `offset`; `offset + data.len()` lies within the capacity.
    ///
    /// # Errors
    /// The system's. How much of `data` was written is then unknown.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// As [`write_at`](Self::write_at), by whoever is going to sync right away.
    ///
    /// # Errors
    /// As for `write_at`.
    fn write_before_sync(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write_at(offset, data)
    }
    /// Makes every byte written before the call durable.
    ///
    /// # Errors
    /// The system's. Nothing written since the last good sync may be trusted from then on.
    fn sync(&self) -> io::Result<()>;
    /// Says that nothing will be written for a while: what makes the next write quick may go. A hint, before a sync
    /// of a file that is full.
    fn rest(&self) {}
    /// Bytes that may be written, from offset 0.
    fn capacity(&self) -> u64;
}

/// A finished file being read.
pub trait ReadableFile: Send + Sync + fmt::Debug {
    /// Length in bytes when it was opened.
    fn len(&self) -> u64;
    /// True for a file without bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Fills `buf` from `offset`; `UnexpectedEof` where the file ends before.
    ///
    /// # Errors
    /// The system's.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
    /// The whole file as memory, when it was opened [`ReadMode::Mapped`] and can be mapped.
    /// A range must have been through [`ReadableFile::populate`] before its first touch.
    fn map(&self) -> Option<&[u8]>;
    /// Brings a range of the map into memory, so that a bad sector is an error here and not a signal
    /// at the touch.
    ///
    /// # Errors
    /// The system's.
    fn populate(&self, offset: u64, len: usize) -> io::Result<()>;
    /// Whether a range of the map can be touched without waiting for the device; false where that cannot be
    /// told. Asks about each page, so it is for ranges of few.
    fn is_resident(&self, offset: u64, len: usize) -> bool;
}
