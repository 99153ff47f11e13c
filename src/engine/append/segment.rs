//! Log segments as the store of append families: who has live entries in them, and reading those.
//!
//! A full segment that is durable is read through a map, any other by calls: bytes that are still written
//! to, or that a failed write-back may take back, must not be borrowed. Every value is verified at each read.

use std::{
    ops::{Deref, Range},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use crate::{
    batch::FamilyId,
    cache::BlockBytes,
    error::{Error, Result},
    fs::{Fs, ReadMode, ReadableFile},
    wal::segment::HEADER_LEN as SEGMENT_HEADER_LEN,
};
use arc_swap::ArcSwapOption;

use super::{Entry, Kept};

/// Bytes of a map that are brought into memory together before the first touch.
const POPULATE: usize = 256 << 10;

/// The start of a value's checksum: the key it stands for.
#[derive(Clone)]
pub(crate) struct ValueCrc(crc32fast::Hasher);

impl ValueCrc {
    pub(crate) fn new(family: FamilyId, prefix: &[u8]) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&family.to_le_bytes());
        hasher.update(prefix);
        Self(hasher)
    }

    /// The checksum of the value at `index`.
    pub(crate) fn of(&self, index: u64, value: &[u8]) -> u32 {
        let mut hasher = self.0.clone();
        hasher.update(&index.to_le_bytes());
        hasher.update(value);
        hasher.finalize()
    }
}

/// A segment of the log.
#[derive(Debug)]
pub(crate) struct LogSegment {
    pub(crate) number: u64,
    /// Log position of its first record.
    pub(crate) base: u64,
    path: PathBuf,
    fs: Arc<dyn Fs>,
    mode: ReadMode,
    /// Entries of append families that stand here, and the bytes they take; under the commit lock.
    live_entries: AtomicU64,
    live_bytes: AtomicU64,
    /// What holds it holds more than it may: it is read no more.
    given_up: AtomicBool,
    calls: Mutex<Option<Arc<dyn ReadableFile>>>,
    map: ArcSwapOption<Mapped>,
}

#[derive(Debug)]
struct Mapped {
    file: Arc<dyn ReadableFile>,
    /// For each [`POPULATE`] bytes: they were brought into memory.
    populated: Box<[AtomicBool]>,
}

impl LogSegment {
    pub(crate) fn new(
        number: u64,
        base: u64,
        path: PathBuf,
        fs: Arc<dyn Fs>,
        mode: ReadMode,
    ) -> Self {
        Self {
            number,
            base,
            path,
            fs,
            mode,
            live_entries: AtomicU64::new(0),
            live_bytes: AtomicU64::new(0),
            given_up: AtomicBool::new(false),
            calls: Mutex::default(),
            map: ArcSwapOption::empty(),
        }
    }

    /// Entries that stand here.
    pub(crate) fn live_entries(&self) -> u64 {
        self.live_entries.load(Ordering::Relaxed)
    }

    /// Bytes of the log that they take, about.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.live_bytes.load(Ordering::Relaxed)
    }

    /// True while a slice of its map is held by somebody.
    pub(crate) fn is_mapped_by_others(&self) -> bool {
        self.map
            .load()
            .as_ref()
            .is_some_and(|map| Arc::strong_count(&map.file) > 1)
    }

    /// From now on reads answer `Expired`, and nothing but slices handed out holds its file.
    pub(crate) fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
        self.map.store(None);
        *self.lock_calls() = None;
    }

    fn lock_calls(&self) -> MutexGuard<'_, Option<Arc<dyn ReadableFile>>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `len` bytes from a log position on.
    pub(super) fn read(&self, position: u64, len: usize, is_durable: bool) -> Result<LogBytes> {
        self.unless_expired(|| self.read_held(position, len, is_durable))
    }

    /// What `read` gives, if its file may be read.
    fn unless_expired<T>(&self, read: impl FnOnce() -> Result<T>) -> Result<T> {
        let expired = || {
            let given_up = self.given_up.load(Ordering::Acquire);
            given_up.then(|| Error::Expired("it held log beyond max_pinned_log_bytes".into()))
        };
        match expired() {
            Some(error) => Err(error),
            // It may have been given up, and removed, meanwhile.
            None => read().map_err(|error| expired().unwrap_or(error)),
        }
    }

    /// True where its bytes are read by calls, whether a read is of one entry or of many.
    pub(super) fn is_called(&self, is_durable: bool) -> bool {
        !is_durable || self.mode == ReadMode::Pread
    }

    /// Log position behind the last byte that its file has room for.
    pub(super) fn room_end(&self) -> Result<u64> {
        let len = self.unless_expired(|| Ok(self.calls()?.len()))?;
        let room = len.saturating_sub(SEGMENT_HEADER_LEN as u64);
        Ok(self.base.saturating_add(room))
    }

    fn read_held(&self, position: u64, len: usize, is_durable: bool) -> Result<LogBytes> {
        let offset = position - self.base + SEGMENT_HEADER_LEN as u64;
        let failed = |error| Error::io("read", &self.path, error);
        if is_durable && self.mode == ReadMode::Mapped {
            let map = self.map()?;
            if let (Some(bytes), Ok(start)) = (map.file.map(), usize::try_from(offset)) {
                let range = start..start.saturating_add(len);
                if range.end > bytes.len() {
                    return Err(failed(std::io::ErrorKind::UnexpectedEof.into()));
                }
                map.populate(&range, bytes.len()).map_err(failed)?;
                return Ok(LogBytes::Mapped(Arc::clone(&map.file), range));
            }
        }
        let mut bytes = vec![0; len];
        self.calls()?.read_at(offset, &mut bytes).map_err(failed)?;
        Ok(LogBytes::Owned(bytes))
    }

    fn open(&self, mode: ReadMode) -> Result<Arc<dyn ReadableFile>> {
        self.fs
            .open(&self.path, mode)
            .map_err(|error| Error::io("open", &self.path, error))
    }

    fn calls(&self) -> Result<Arc<dyn ReadableFile>> {
        let mut calls = self.lock_calls();
        if let Some(file) = &*calls {
            return Ok(Arc::clone(file));
        }
        let file = self.open(ReadMode::Pread)?;
        Ok(Arc::clone(calls.insert(file)))
    }

    fn map(&self) -> Result<Arc<Mapped>> {
        if let Some(map) = self.map.load_full() {
            return Ok(map);
        }
        // Under the lock, so that there is one map.
        let _calls = self.lock_calls();
        if let Some(map) = self.map.load_full() {
            return Ok(map);
        }
        let file = self.open(ReadMode::Mapped)?;
        let len = usize::try_from(file.len()).unwrap_or(usize::MAX);
        let populated = (0..len.div_ceil(POPULATE)).map(|_| AtomicBool::new(false));
        let populated = populated.collect();
        let map = Arc::new(Mapped { file, populated });
        self.map.store(Some(Arc::clone(&map)));
        Ok(map)
    }

    /// Damage at a log position.
    pub(super) fn damage(&self, position: u64, what: &str) -> Error {
        Error::corruption(
            &self.path,
            position - self.base + SEGMENT_HEADER_LEN as u64,
            what,
        )
    }
}

impl Mapped {
    /// Brings a range of the map into memory, so that a bad sector is an error and no signal.
    fn populate(&self, range: &Range<usize>, len: usize) -> std::io::Result<()> {
        for chunk in range.start / POPULATE..range.end.div_ceil(POPULATE) {
            let Some(done) = self.populated.get(chunk) else {
                continue;
            };
            if !done.load(Ordering::Relaxed) {
                let start = chunk * POPULATE;
                self.file
                    .populate(start as u64, POPULATE.min(len - start))?;
                done.store(true, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

/// Bytes of the log.
#[derive(Clone, Debug)]
pub(crate) enum LogBytes {
    /// In place.
    Mapped(Arc<dyn ReadableFile>, Range<usize>),
    /// In a block that was decompressed.
    Block(BlockBytes, Range<usize>),
    /// In a batch of the tail.
    Kept(Arc<Kept>, Range<usize>),
    /// A copy.
    Owned(Vec<u8>),
}

impl Default for LogBytes {
    fn default() -> Self {
        Self::Owned(Vec::new())
    }
}

impl LogBytes {
    /// Without the first `len` bytes.
    pub(super) fn behind(self, len: usize) -> Self {
        match self {
            Self::Mapped(file, range) => Self::Mapped(file, range.start + len..range.end),
            Self::Block(block, range) => Self::Block(block, range.start + len..range.end),
            Self::Kept(kept, range) => Self::Kept(kept, range.start + len..range.end),
            Self::Owned(mut bytes) => {
                bytes.drain(..len);
                Self::Owned(bytes)
            }
        }
    }
}

impl Deref for LogBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(file, range) => {
                let map = file.map().expect("a map never goes away");
                &map[range.clone()]
            }
            Self::Block(block, range) => &block.slice[range.clone()],
            Self::Kept(kept, range) => &kept.bytes()[range.clone()],
            Self::Owned(bytes) => bytes,
        }
    }
}

/// The segments at one moment, ascending; held, they are neither reused nor removed.
#[derive(Debug, Default)]
pub(crate) struct Segments(pub(crate) Vec<Arc<LogSegment>>);

impl Segments {
    /// The segment that holds a log position, and which one it is.
    pub(crate) fn find(&self, position: u64) -> Option<(usize, &Arc<LogSegment>)> {
        let behind = self.0.partition_point(|segment| segment.base <= position);
        let at = behind.checked_sub(1)?;
        Some((at, &self.0[at]))
    }
}

/// Counts entries into and out of their segments.
pub(crate) struct Ledger<'a> {
    segments: &'a Segments,
    /// Where the last entry stood: the next one mostly stands there too.
    last: Option<(&'a LogSegment, Range<u64>)>,
}

impl<'a> Ledger<'a> {
    pub(crate) fn new(segments: &'a Segments) -> Self {
        Self {
            segments,
            last: None,
        }
    }

    fn of(&mut self, entry: Entry) -> Option<&'a LogSegment> {
        let pos = entry.pos();
        if let Some((segment, range)) = &self.last
            && range.contains(&pos)
        {
            return Some(segment);
        }
        let (at, segment) = self.segments.find(pos)?;
        let end = self.segments.0.get(at + 1).map_or(u64::MAX, |s| s.base);
        self.last = Some((segment, segment.base..end));
        Some(segment)
    }

    pub(crate) fn add(&mut self, entry: Entry) {
        if let Some(segment) = self.of(entry) {
            segment.live_entries.fetch_add(1, Ordering::Relaxed);
            segment
                .live_bytes
                .fetch_add(entry.log_bytes(), Ordering::Relaxed);
        }
    }

    pub(crate) fn remove(&mut self, entry: Entry) {
        if let Some(segment) = self.of(entry) {
            let before = segment.live_entries.fetch_sub(1, Ordering::Relaxed);
            debug_assert!(before > 0, "an entry is counted where it stands");
            segment
                .live_bytes
                .fetch_sub(entry.log_bytes(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_binds_family_prefix_index_and_value() {
        let good = ValueCrc::new(1, b"pre").of(7, b"value");
        assert_eq!(ValueCrc::new(1, b"pre").of(7, b"value"), good);
        let others = [
            ValueCrc::new(2, b"pre").of(7, b"value"),
            ValueCrc::new(1, b"prf").of(7, b"value"),
            ValueCrc::new(1, b"pre").of(8, b"value"),
            ValueCrc::new(1, b"pre").of(7, b"valuf"),
        ];
        assert!(others.iter().all(|&other| other != good));
    }
}
