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

use arc_swap::ArcSwapOption;
use byteorder::{ByteOrder, LittleEndian};

use crate::{
    batch::FamilyId,
    cache::BlockBytes,
    error::{Error, Result},
    fs::{Fs, ReadMode, ReadableFile},
    log_files::LogFiles,
    wal::segment::HEADER_LEN as SEGMENT_HEADER_LEN,
};

use super::{
    Entry, Form,
    pack::{BODY_MAX, Block, HEAD_LEN},
};

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
    fn read(&self, position: u64, len: usize, is_durable: bool) -> Result<LogBytes> {
        let expired = || {
            let given_up = self.given_up.load(Ordering::Acquire);
            given_up.then(|| Error::Expired("it held log beyond max_pinned_log_bytes".into()))
        };
        match expired() {
            Some(error) => Err(error),
            // It may have been given up, and removed, meanwhile.
            None => self
                .read_held(position, len, is_durable)
                .map_err(|error| expired().unwrap_or(error)),
        }
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
    fn damage(&self, position: u64, what: &str) -> Error {
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
    fn behind(self, len: usize) -> Self {
        match self {
            Self::Mapped(file, range) => Self::Mapped(file, range.start + len..range.end),
            Self::Block(block, range) => Self::Block(block, range.start + len..range.end),
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

/// What it takes to read entries: the segments, and how far the log is durable.
#[derive(Debug)]
pub(crate) struct LogReader {
    segments: Arc<Segments>,
    logs: Arc<LogFiles>,
    /// The last block decompressed, and its log position: the next entry is mostly in it too.
    block: Mutex<Option<(u64, Arc<Block>)>>,
}

impl LogReader {
    pub(crate) fn new(segments: Arc<Segments>, logs: Arc<LogFiles>) -> Self {
        Self {
            segments,
            logs,
            block: Mutex::default(),
        }
    }

    /// The value of an entry, verified; `None` where these segments do not hold it.
    pub(crate) fn value(
        &self,
        crc: &ValueCrc,
        index: u64,
        entry: Entry,
    ) -> Result<Option<LogBytes>> {
        let Some((at, segment)) = self.segments.find(entry.pos()) else {
            return Ok(None);
        };
        // The next segment begins where this one ends: with everything before that durable, it stays as it is.
        let next = self.segments.0.get(at + 1);
        let is_durable = next.is_some_and(|next| next.base <= self.logs.synced());
        let pos = entry.pos();
        let len = match entry.tag().form() {
            Form::Plain { len } => len,
            Form::Packed { at, .. } => {
                let damage = || segment.damage(pos, "a block of values is not as it was written");
                let first = index.checked_sub(at as u64).ok_or_else(damage)?;
                let block = self.block(segment, pos, is_durable, |body| crc.of(first, body))?;
                let block = block.ok_or_else(damage)?;
                let (bytes, range) = block.value(at).ok_or_else(damage)?;
                return Ok(Some(LogBytes::Block(bytes.clone(), range)));
            }
        };
        let before = CRC_LEN + len_of_len(len);
        let bytes = segment.read(pos, before + len, is_durable)?;
        let stored = LittleEndian::read_u32(&bytes[..CRC_LEN]);
        let value = bytes.behind(before);
        if crc.of(index, &value) != stored {
            let what = format!("the value at index {index} fails its checksum");
            return Err(segment.damage(pos, &what));
        }
        Ok(Some(value))
    }

    /// The block at a log position; `None` where it is damaged.
    fn block(
        &self,
        segment: &LogSegment,
        pos: u64,
        is_durable: bool,
        crc: impl FnOnce(&[u8]) -> u32,
    ) -> Result<Option<Arc<Block>>> {
        let mut last = self.block.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, block)) = &*last
            && *at == pos
        {
            return Ok(Some(Arc::clone(block)));
        }
        let head = segment.read(pos, HEAD_LEN, is_durable)?;
        let size = usize::try_from(LittleEndian::read_u32(&head[CRC_LEN..])).unwrap_or(usize::MAX);
        if size > BODY_MAX {
            return Ok(None);
        }
        let body = segment.read(pos + HEAD_LEN as u64, size, is_durable)?;
        if crc(&body) != LittleEndian::read_u32(&head[..CRC_LEN]) {
            return Ok(None);
        }
        let block = Block::unpack(&body).map(Arc::new);
        *last = block.clone().map(|block| (pos, block));
        Ok(block)
    }
}

/// Bytes of a value's checksum.
const CRC_LEN: usize = 4;

/// Bytes of a length as it stands before a slice.
fn len_of_len(len: usize) -> usize {
    let bits = usize::BITS - (len | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coding::put_varint;

    #[test]
    fn a_length_takes_as_many_bytes_as_it_is_written_with() {
        for len in [
            0,
            1,
            127,
            128,
            16_383,
            16_384,
            2_097_151,
            2_097_152,
            512 << 20,
        ] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, len as u64);
            assert_eq!(len_of_len(len), bytes.len(), "{len}");
        }
    }

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
