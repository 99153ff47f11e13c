//! Files in memory, a table's content as a list, and a random source, for the tests of this folder.

use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{Table, TableBuilder, TableIdentity, TableInfo};
use crate::{
    cache::BlockCache,
    error::Result,
    fs::{ReadableFile, WritableFile},
    key::{InternalKey, RangeTombstone, SequenceNumber},
    options::CfOptions,
};

/// Random id of the tables here.
pub(super) const TABLE_ID: u64 = 0x1122_3344_5566_7788;

/// A file in memory that knows what was asked of it.
#[derive(Debug)]
pub(super) struct MemFile {
    pub(super) bytes: Vec<u8>,
    pub(super) mapped: bool,
    /// Ranges brought into memory, or read where the file is not mapped.
    pub(super) asked: Mutex<Vec<Range<u64>>>,
    /// From now on the disk fails.
    pub(super) failing: AtomicBool,
    /// Its pages are in memory.
    pub(super) resident: AtomicBool,
}

impl MemFile {
    pub(super) fn new(bytes: Vec<u8>, mapped: bool) -> Self {
        Self {
            bytes,
            mapped,
            asked: Mutex::default(),
            failing: AtomicBool::new(false),
            resident: AtomicBool::new(true),
        }
    }

    fn ask(&self, offset: u64, len: usize) -> io::Result<()> {
        self.asked
            .lock()
            .expect("one thread")
            .push(offset..offset + len as u64);
        if self.failing.load(Ordering::Relaxed) {
            Err(io::Error::other("bad sector"))
        } else {
            Ok(())
        }
    }
}

impl ReadableFile for MemFile {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.ask(offset, buf.len())?;
        let at = usize::try_from(offset).expect("small file");
        let from = self
            .bytes
            .get(at..at + buf.len())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(from);
        Ok(())
    }

    fn map(&self) -> Option<&[u8]> {
        self.mapped.then_some(&*self.bytes)
    }

    fn populate(&self, offset: u64, len: usize) -> io::Result<()> {
        assert!(
            offset + len as u64 <= self.len(),
            "populate within the file"
        );
        self.ask(offset, len)
    }

    fn is_resident(&self, _: u64, _: usize) -> bool {
        self.resident.load(Ordering::Relaxed)
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Sink(pub(super) Arc<Mutex<Vec<u8>>>);

impl WritableFile for Sink {
    fn append(&mut self, data: &[u8]) -> io::Result<()> {
        self.0.lock().expect("one thread").extend_from_slice(data);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One entry: user key, trailer, value.
pub(super) type Row = (Vec<u8>, u64, Vec<u8>);

pub(super) fn key_of(row: &Row) -> InternalKey<'_> {
    InternalKey {
        user_key: &row.0,
        trailer: row.1,
    }
}

pub(super) fn path() -> PathBuf {
    PathBuf::from("/db/000007.sst")
}

/// Writes a table.
pub(super) fn build(
    rows: &[Row],
    tombstones: &[RangeTombstone],
    options: &CfOptions,
    level: usize,
) -> Result<(Vec<u8>, TableInfo)> {
    build_with(rows, tombstones, options, level, |_| {})
}

/// The same, with `change` done to the builder before the end.
pub(super) fn build_with(
    rows: &[Row],
    tombstones: &[RangeTombstone],
    options: &CfOptions,
    level: usize,
    change: impl FnOnce(&mut TableBuilder),
) -> Result<(Vec<u8>, TableInfo)> {
    let sink = Sink::default();
    let file = Box::new(sink.clone());
    let mut builder = TableBuilder::new(file, path(), TABLE_ID, options, level);
    tombstones
        .iter()
        .for_each(|tombstone| builder.add_tombstone(tombstone));
    for row in rows {
        builder.add(key_of(row), &row.2)?;
    }
    change(&mut builder);
    let info = builder.finish()?;
    let bytes = sink.0.lock().expect("one thread").clone();
    Ok((bytes, info))
}

/// Opens a table.
pub(super) fn open(
    bytes: Vec<u8>,
    identity: TableIdentity,
    mapped: bool,
    global_seq: Option<SequenceNumber>,
) -> Result<Arc<Table>> {
    let file = Arc::new(MemFile::new(bytes, mapped));
    let cache = BlockCache::with_pins(1 << 20, 1 << 20);
    Table::open(file, Path::new(&path()), 7, &identity, global_seq, cache).map(Arc::new)
}

impl TableInfo {
    pub(super) fn identity(&self) -> TableIdentity {
        TableIdentity {
            table_id: self.table_id,
            size: self.size,
        }
    }
}

/// A small random source (splitmix64).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub(super) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).expect("below n")
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    pub(super) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}
