//! Log files: preallocated, written at given offsets, through a shared map where that is sound.
//!
//! A copy into a mapped page costs a small part of a write call and keeps the same promise when the
//! process dies: the page belongs to the system's page cache, not to the process. It has one
//! weakness: a copy cannot return an error. What could go wrong at the copy is therefore ruled out
//! before:
//! - no room: only a file whose every byte has real space behind it is mapped (`fallocate` succeeded
//!   over the whole capacity, on a file system that overwrites blocks in place), so the fault of the
//!   page allocates nothing;
//! - a bad sector under a page that is not in memory (a recycled segment): each chunk is populated
//!   before its first write, which reports the failure as an error of `write_at`;
//! - a file cut short under the map: nobody else writes in a locked directory.
//!
//! What remains, a page evicted between populate and copy whose sector has failed since, kills the
//! process as a power cut would. A failing *write-back* is an error of the next `sync`, as with write calls.
//!
//! Everything else (copy-on-write or unknown file systems, no real preallocation) uses write calls.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
    sync::{Mutex, PoisonError},
};

use memmap2::MmapMut;

use crate::fs::LogFile;

/// Bytes that are brought into memory at a time, ahead of the writes, ready to be written: a fault for each page costs
/// more than the copy. They are dirty from then on, so a sync may write up to this much that nobody has written yet, once.
const CHUNK: usize = 64 << 10;

/// Writes of this size and more go by call also where there is a map: the kernel need not clear pages that a
/// call fills whole, which outweighs the call from about here on (measured on ext4). Both reach the same pages.
const CALL_FROM: usize = 32 << 10;

/// A log segment or a mark on the real disk.
#[derive(Debug)]
pub(super) struct RealLog {
    file: File,
    capacity: u64,
    /// One writer at a time is the engine's rule, so this is never contended; it is what makes the
    /// copy sound whoever calls. `None` where the file is not to be mapped.
    map: Option<Mutex<MapState>>,
}

/// The map of a file that may be mapped: made when something is written.
#[derive(Debug)]
enum MapState {
    Not,
    /// The system refused it once, so write calls have to do.
    Refused,
    Mapped(LogMap),
}

impl MapState {
    /// The map, if there can be one.
    fn get(&mut self, file: &File, capacity: u64) -> Option<&mut LogMap> {
        if matches!(self, Self::Not) {
            *self = LogMap::new(file, capacity).map_or(Self::Refused, Self::Mapped);
        }
        match self {
            Self::Mapped(map) => Some(map),
            Self::Not | Self::Refused => None,
        }
    }
}

impl RealLog {
    /// Opens or creates `path` with at least `capacity` bytes.
    pub(super) fn open(path: &Path, capacity: u64) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let old_len = file.metadata()?.len();
        let capacity = capacity.max(old_len);
        let space = preallocate(&file, old_len, capacity)?;
        let map = match space {
            Space::InPlace => Some(Mutex::new(MapState::Not)),
            Space::Unknown => None,
        };
        Ok(Self {
            file,
            capacity,
            map,
        })
    }

    /// The same file without its map, as on a file system that copies on write.
    #[cfg(test)]
    pub(super) fn open_unmapped(path: &Path, capacity: u64) -> io::Result<Self> {
        let mut log = Self::open(path, capacity)?;
        log.map = None;
        Ok(log)
    }

    #[cfg(test)]
    pub(super) fn is_mapped(&self) -> bool {
        let is_mapped = |map: &Mutex<MapState>| {
            let state = map.lock().unwrap_or_else(PoisonError::into_inner);
            matches!(*state, MapState::Mapped(_))
        };
        self.map.as_ref().is_some_and(is_mapped)
    }
}

impl RealLog {
    fn check_room(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        match offset.checked_add(data.len() as u64) {
            Some(end) if end <= self.capacity => Ok(()),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "write beyond capacity",
            )),
        }
    }
}

impl LogFile for RealLog {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check_room(offset, data)?;
        if let Some(map) = &self.map
            && data.len() < CALL_FROM
        {
            let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(map) = map.get(&self.file, self.capacity) {
                return map.write(&self.file, offset, data);
            }
        }
        self.file.write_all_at(data, offset)
    }

    fn write_before_sync(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        // A store to the map would fault, since the last sync has left the page clean, and have the next one take the
        // page from the map again, on all processors. A call does neither, and reaches the same page.
        self.check_room(offset, data)?;
        self.file.write_all_at(data, offset)
    }

    fn sync(&self) -> io::Result<()> {
        // Also right for bytes that came through the map. On Linux a shared map and write calls use the
        // same pages; the first store to a clean page faults and marks it dirty, and write-back
        // makes it clean and write-protected again, so the kernel knows every dirty page without
        // looking at page tables. fdatasync writes all dirty pages of the file and waits, then the
        // metadata needed to read them (such as extents turned from preallocated to written). An
        // msync would do no more. Other systems promise less and never get a map.
        self.file.sync_data()
    }

    fn rest(&self) {
        // While a page is mapped for writing, its write-back takes it from the map first, and each time interrupts every
        // processor that runs a thread of ours. All at once that is one interruption.
        if let Some(map) = &self.map {
            let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
            if matches!(*map, MapState::Mapped(_)) {
                *map = MapState::Not;
            }
        }
    }

    fn capacity(&self) -> u64 {
        self.capacity
    }
}

/// What stands behind the bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Space {
    /// Blocks of its own, overwritten in place: a store to a mapped page needs no new space.
    InPlace,
    /// Anything else.
    Unknown,
}

/// Grows `file` to `capacity` bytes with real space behind all of them, where the system can.
fn preallocate(file: &File, old_len: u64, capacity: u64) -> io::Result<Space> {
    if capacity == 0 {
        return Ok(Space::Unknown);
    }
    // From offset 0, not from the old end: a file that was copied may have holes.
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, capacity) {
        Ok(()) => {
            if file.metadata()?.len() < capacity {
                file.set_len(capacity)?;
            }
            Ok(space_of(file, old_len))
        }
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS | rustix::io::Errno::INVAL) => {
            if old_len < capacity {
                file.set_len(capacity)?;
            }
            Ok(Space::Unknown)
        }
        Err(error) => Err(error.into()),
    }
}

/// Tells by the kind of file system whether preallocated blocks are overwritten in place.
#[cfg(target_os = "linux")]
fn space_of(file: &File, old_len: u64) -> Space {
    const EXT4: u32 = 0xEF53;
    const XFS: u32 = 0x5846_5342;
    const TMPFS: u32 = 0x0102_1994;
    let Ok(stat) = rustix::fs::fstatfs(file) else {
        return Space::Unknown;
    };
    // The field's type differs between processors; the magic numbers have 32 bits.
    match u32::try_from(stat.f_type) {
        Ok(EXT4 | TMPFS) => Space::InPlace,
        // XFS can share blocks between copies of a file, and then copies them on write. A new file
        // shares none; an old one is given blocks of its own first.
        Ok(XFS) if old_len == 0 => Space::InPlace,
        Ok(XFS) => {
            let flags = rustix::fs::FallocateFlags::UNSHARE_RANGE;
            match rustix::fs::fallocate(file, flags, 0, old_len) {
                Ok(()) => Space::InPlace,
                Err(_) => Space::Unknown,
            }
        }
        _ => Space::Unknown,
    }
}

#[cfg(not(target_os = "linux"))]
fn space_of(_: &File, _: u64) -> Space {
    Space::Unknown
}

/// A writable map of a whole log file.
struct LogMap {
    map: MmapMut,
    /// For each chunk: it was brought into memory, to be written.
    populated: Vec<bool>,
}

impl fmt::Debug for LogMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogMap")
            .field("len", &self.map.len())
            .finish_non_exhaustive()
    }
}

impl LogMap {
    /// `None` where the system refuses the map: write calls do as well.
    fn new(file: &File, capacity: u64) -> Option<Self> {
        let len = usize::try_from(capacity).ok()?;
        #[expect(
            unsafe_code,
            reason = "a map is how the log is written without a call per record"
        )]
        // SAFETY: the bytes are only ever reached through `&mut self`, and no reference to them leaves
        // this type. What else could change them is another map or writer of the same file: the
        // engine opens a segment for writing once at a time, and the exclusive lock of the directory
        // keeps other processes out. They are plain bytes that this type stores to and never loads, so
        // even a second writer could not make it misbehave beyond the file's content. The file does not
        // shrink: no call of `Fs` cuts a file but `create`, which the engine calls for new names only.
        let map = unsafe { MmapMut::map_mut(file) }.ok()?;
        if map.len() != len {
            return None;
        }
        Some(Self {
            map,
            populated: vec![false; len.div_ceil(CHUNK)],
        })
    }

    /// Copies `data` to `offset`, which the caller has checked against the capacity.
    fn write(&mut self, file: &File, offset: u64, data: &[u8]) -> io::Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        let start = usize::try_from(offset).expect("below the capacity, which fits a usize");
        let end = start + data.len();
        for chunk in start / CHUNK..=(end - 1) / CHUNK {
            if !self.populated[chunk] {
                let from = chunk * CHUNK;
                let len = CHUNK.min(self.map.len() - from);
                super::populate(file, from, len, &super::POPULATE_UNKNOWN, |from, len| {
                    self.advise(from, len)
                })?;
                self.populated[chunk] = true;
            }
        }
        self.map[start..end].copy_from_slice(data);
        Ok(())
    }

    #[cfg(target_os = "linux")]
    fn advise(&self, from: usize, len: usize) -> io::Result<()> {
        self.map
            .advise_range(memmap2::Advice::PopulateWrite, from, len)
    }

    #[cfg(not(target_os = "linux"))]
    fn advise(&self, _: usize, _: usize) -> io::Result<()> {
        Err(io::ErrorKind::InvalidInput.into())
    }
}
