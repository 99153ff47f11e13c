//! Tables made elsewhere, taken in whole: `TableWriter`, `TableFile`, and `ingest`.
//!
//! An ingest is one step of the write order and one manifest edit: range deletes first, then the tables,
//! then the batch. The log is held still meanwhile (`Commit::exclusively`), so that no later write can be
//! durable without it; everything slow and possible beforehand is done before that.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
};

use crate::{
    batch::{Operations, WriteBatch},
    cache::BlockCache,
    clock::TIME_LEN,
    column_family::{ColumnFamily, Slot},
    compact::Reserved,
    db::DbInner,
    error::{Error, Result},
    events::Event,
    filename,
    flush::FlushWork,
    fs::{Fs, ReadMode},
    key::{InternalKey, MAX_KEY_LEN, MAX_VALUE_LEN, SequenceNumber, ValueKind},
    paced::WritePace,
    table::{Table, TableBuilder, TableIdentity, TableInfo, file_crc},
    version::{TableAdded, TableRecord, VersionEdit},
    wal::segment::VERSION_TABLES,
    write::insert_one,
};

/// Writes a table file outside the database, to be ingested later. Keys ascend strictly.
pub struct TableWriter {
    builder: TableBuilder,
    path: PathBuf,
    last: Option<Vec<u8>>,
    /// Time of its rows, where they have one, and where a value with it is put together.
    time: Option<u64>,
    value: Vec<u8>,
}

/// A finished table file outside the database.
#[derive(Clone, Debug)]
pub struct TableFile {
    path: PathBuf,
    info: TableInfo,
    /// Some blocks may be of zstd.
    zstd: bool,
}

/// What one ingest takes in; see [`Db::ingest`](crate::Db::ingest).
#[derive(Clone, Debug, Default)]
pub struct Ingest {
    tables: Vec<(ColumnFamily, TableFile)>,
    range_deletes: Vec<(ColumnFamily, Vec<u8>, Vec<u8>)>,
    batch: WriteBatch,
}

impl TableWriter {
    pub(crate) fn create(
        fs: &dyn Fs,
        path: &Path,
        family: &ColumnFamily,
        table_id: u64,
        now: impl FnOnce() -> u64,
        pace: &WritePace,
    ) -> Result<Self> {
        let file = fs.create(path).map_err(|e| Error::io("create", path, e))?;
        let file = pace.wrap(file);
        let options = family.inner.options();
        // Ingested tables mostly stay where they are put, so they are stored as the last level is.
        let level = crate::options::LEVELS - 1;
        let builder = TableBuilder::new(file, path.to_path_buf(), table_id, &options, level);
        Ok(Self {
            builder,
            path: path.to_path_buf(),
            last: None,
            time: family.inner.ttl().map(|_| now()),
            value: Vec::new(),
        })
    }

    /// Adds `key` with `value`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for a key that is not above the last one, or over a limit; `Io`.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let limit = MAX_VALUE_LEN - self.time.map_or(0, |_| TIME_LEN);
        if value.len() > limit {
            let what = format!("value of {} bytes, limit {limit}", value.len());
            return Err(Error::invalid(what));
        }
        let Some(time) = self.time else {
            return self.add(key, ValueKind::Put, value);
        };
        let mut with_time = std::mem::take(&mut self.value);
        with_time.clear();
        with_time.extend_from_slice(value);
        with_time.extend_from_slice(&time.to_le_bytes());
        let added = self.add(key, ValueKind::Put, &with_time);
        self.value = with_time;
        added
    }

    /// Adds a delete of `key`.
    ///
    /// # Errors
    ///
    /// As for [`TableWriter::put`].
    pub fn delete(&mut self, key: &[u8]) -> Result<()> {
        self.add(key, ValueKind::Delete, &[])
    }

    fn add(&mut self, key: &[u8], kind: ValueKind, value: &[u8]) -> Result<()> {
        if key.len() > MAX_KEY_LEN {
            return Err(Error::invalid(format!(
                "key of {} bytes, limit {MAX_KEY_LEN}",
                key.len()
            )));
        }
        if self.last.as_deref().is_some_and(|last| last >= key) {
            return Err(Error::invalid("keys of a table must ascend"));
        }
        self.builder
            .add(InternalKey::new(key, SequenceNumber::ZERO, kind), value)?;
        self.last.get_or_insert_default().clear();
        self.last.get_or_insert_default().extend_from_slice(key);
        Ok(())
    }

    /// Bytes written so far, about.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.builder.size_so_far()
    }

    /// Completes and syncs the file.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for a table without entries, which cannot be ingested; `Io`.
    pub fn finish(self) -> Result<TableFile> {
        if self.last.is_none() {
            return Err(Error::invalid("a table without entries"));
        }
        Ok(TableFile {
            zstd: self.builder.may_use_zstd(),
            info: self.builder.finish()?,
            path: self.path,
        })
    }
}

impl DbInner {
    /// A table file of a family of tables, written at some pace.
    pub(crate) fn table_writer(
        &self,
        cf: &ColumnFamily,
        path: &Path,
        pace: &WritePace,
    ) -> Result<TableWriter> {
        let options = &self.options;
        let now = || self.snapshots.time.now();
        let id = options.executor.random();
        TableWriter::create(&*options.fs, path, cf, id, now, pace)
    }
}

impl std::fmt::Debug for TableWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TableWriter")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl TableFile {
    /// Opens a table file made by a [`TableWriter`] earlier, or on another machine, and verifies all of it.
    ///
    /// # Errors
    ///
    /// `Corruption` for a damaged file or one that is no table; `InvalidArgument` for a table that a database
    /// wrote for itself; `Io`.
    pub fn open(fs: &Arc<dyn Fs>, path: &Path) -> Result<Self> {
        let file = fs
            .open(path, ReadMode::Pread)
            .map_err(|e| Error::io("open", path, e))?;
        let crc = file_crc(&*file, path)?;
        let identity = TableIdentity::read(&*file, path)?;
        let table = Table::open(file, path, 0, &identity, None, BlockCache::new(0))?;
        table.verify(crc)?;
        let zstd = table.has_zstd();
        let info = table.info(crc);
        if info.max_seq > SequenceNumber::ZERO || info.tombstones > 0 {
            return Err(Error::invalid(format!(
                "{} is a database's own table, and not one of a table writer",
                path.display()
            )));
        }
        Ok(Self {
            info,
            path: path.to_path_buf(),
            zstd,
        })
    }

    /// The same table, whose file was renamed.
    pub(crate) fn moved_to(self, path: PathBuf) -> Self {
        Self { path, ..self }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.info.size
    }

    /// Entries in it.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.info.entries
    }
}

impl Ingest {
    /// Takes in nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in `table` into `cf`. Tables of one family must not overlap.
    pub fn table(&mut self, cf: &ColumnFamily, table: TableFile) -> &mut Self {
        self.tables.push((cf.clone(), table));
        self
    }

    /// Removes every key in `start..end` of `cf` first.
    pub fn delete_range(&mut self, cf: &ColumnFamily, start: &[u8], end: &[u8]) -> &mut Self {
        if start < end {
            self.range_deletes
                .push((cf.clone(), start.to_vec(), end.to_vec()));
        }
        self
    }

    /// Applies `batch` last.
    pub fn batch(&mut self, batch: WriteBatch) -> &mut Self {
        self.batch = batch;
        self
    }

    /// The families named, each once.
    fn families(&self) -> Vec<ColumnFamily> {
        let mut all: Vec<ColumnFamily> = Vec::new();
        let named = self.tables.iter().map(|(cf, _)| cf);
        let named = named.chain(self.range_deletes.iter().map(|(cf, ..)| cf));
        for cf in named.chain(self.batch.families()) {
            if !all.iter().any(|known| known.same(cf)) {
                all.push(cf.clone());
            }
        }
        all
    }
}

/// What an ingest adds, with the sequence numbers it got.
struct Parts<'a> {
    work: Vec<FlushWork>,
    added: Vec<TableAdded>,
    /// Where the tables go: kept free until they are installed.
    _reserved: Vec<Reserved<'a>>,
}

impl DbInner {
    /// Takes in tables, range deletes and a batch in one step; answers its last sequence number.
    pub(crate) fn ingest(self: &Arc<Self>, mut request: Ingest) -> Result<SequenceNumber> {
        request.batch.validate()?;
        request.batch.stamp(|| self.snapshots.time.now());
        request.batch.finish();
        let families = request.families();
        self.check_ingest(&request, &families)?;
        if families.is_empty() {
            return Ok(self.commit.visible());
        }
        let zstd = request.tables.iter().any(|(_, table)| table.zstd);
        if zstd {
            self.raise_format(&mut self.manifest.lock(), VERSION_TABLES)?;
        }
        // What is in memory now is flushed while writers go on, and again what came in between: the log is held still
        // only for a rest that is small.
        self.flush_families(&families)?;
        let tables = self.link_tables(&request)?;
        let result = self
            .flush_rest(&families)
            .and_then(|()| self.ingest_linked(&request, &families, &tables));
        if result.is_err() && self.read_only.load().is_none() {
            let numbers: Vec<u64> = tables.iter().map(|(_, table)| table.number).collect();
            crate::manifest::remove_tables(&*self.options.fs, &self.dir, &numbers)?;
        }
        self.schedule_compaction();
        self.schedule_file_work();
        if let Ok(seq) = result {
            self.tell(|| Event::Ingested {
                families: families.iter().map(|f| f.name().to_owned()).collect(),
                bytes: tables.iter().map(|(_, table)| table.info.size).sum(),
                seq,
            });
        }
        result.map_err(|error| self.note_failure(error))
    }

    /// Flushes `families` while writers go on, until what is in memory of them can be flushed with the log held still.
    fn flush_rest(self: &Arc<Self>, families: &[ColumnFamily]) -> Result<()> {
        let covered = self.covered_by(families);
        for _ in 0..MAX_ROUNDS {
            let bytes: usize = covered
                .iter()
                .map(|family| family.inner.peek().memory_bytes())
                .sum();
            let small = MAX_HELD_BYTES.min(self.options.memtable_budget_bytes / 8);
            if bytes <= small {
                break;
            }
            self.flush_families(families)?;
        }
        Ok(())
    }

    /// The families whose memtables an ingest into `families` takes along.
    fn covered_by(&self, families: &[ColumnFamily]) -> Vec<ColumnFamily> {
        if families[0].is_logged() {
            return families.to_vec();
        }
        let mut all = self.families();
        all.retain(|family| !family.is_logged());
        all
    }

    fn check_ingest(&self, request: &Ingest, families: &[ColumnFamily]) -> Result<()> {
        self.check_families(families)?;
        if let Some(family) = families.iter().find(|family| family.is_append()) {
            return Err(Error::invalid(format!(
                "column family {:?} is an append family and takes no ingest",
                family.name()
            )));
        }
        for (family, table) in &request.tables {
            let has_values = table.info.entries > table.info.deletes;
            if has_values && table.info.times.is_some() != family.inner.ttl().is_some() {
                return Err(Error::invalid(format!(
                    "{} was made for a family with a time to live and column family {:?} has none, or the other way round",
                    table.path.display(),
                    family.name()
                )));
            }
        }
        self.check_writable(false)?;
        for (_, start, end) in &request.range_deletes {
            if start.len().max(end.len()) > MAX_KEY_LEN {
                return Err(Error::invalid(format!(
                    "a key over the limit of {MAX_KEY_LEN} bytes"
                )));
            }
        }
        for family in families {
            let mut spans: Vec<(&[u8], &[u8])> = request
                .tables
                .iter()
                .filter(|(cf, _)| cf.same(family))
                .map(|(_, table)| {
                    (
                        table.info.smallest.as_slice(),
                        table.info.largest.as_slice(),
                    )
                })
                .collect();
            spans.sort_unstable();
            if spans.windows(2).any(|pair| pair[0].1 >= pair[1].0) {
                return Err(Error::invalid(format!(
                    "tables for column family {:?} overlap",
                    family.name()
                )));
            }
        }
        Ok(())
    }

    /// Gives the files numbers in the directory, durably. The sources stay.
    fn link_tables(&self, request: &Ingest) -> Result<Vec<(ColumnFamily, TableRecord)>> {
        let fs = &*self.options.fs;
        let mut linked = Vec::new();
        for (family, table) in &request.tables {
            check_unchanged(fs, table)?;
            // Whoever brought the file may not have synced it.
            let source = fs
                .open_log(&table.path, 0)
                .map_err(|e| Error::io("open", &table.path, e))?;
            source
                .sync()
                .map_err(|e| Error::io("sync", &table.path, e))?;
            let number = self.numbers.next();
            let path = filename::table(&self.dir, number);
            link_or_copy(fs, &table.path, &path)?;
            let record = TableRecord {
                number,
                info: table.info.clone(),
                hidden: 0, // a table from outside has each key once
                global_seq: None,
                values: Vec::new(),
            };
            linked.push((family.clone(), record));
        }
        fs.sync_dir(&self.dir)
            .map_err(|e| Error::io("sync directory", &self.dir, e))?;
        Ok(linked)
    }

    fn ingest_linked(
        self: &Arc<Self>,
        request: &Ingest,
        families: &[ColumnFamily],
        tables: &[(ColumnFamily, TableRecord)],
    ) -> Result<SequenceNumber> {
        let logged = families[0].is_logged();
        let deletes = u32::try_from(request.range_deletes.len())
            .map_err(|_| Error::invalid("more range deletes than 32 bits count"))?;
        let operations = u32::try_from(request.batch.len()).expect("a batch counts in 32 bits");
        let count = deletes
            .checked_add(operations)
            .and_then(|count| count.checked_add(1))
            .ok_or_else(|| Error::invalid("more operations than 32 bits count"))?;
        // Before the log is held still: a running flush waits for the log.
        let _flushing = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        let freeze = |queue: &mut crate::commit::Queue, _: &crate::commit::Entry| {
            for family in families.iter().filter(|_| logged) {
                self.freeze(queue, family);
            }
            if !logged {
                self.freeze_unlogged(queue);
            }
            Ok(())
        };
        let (seq, work) = self.commit.exclusively(count, freeze, |(), entry| {
            let parts = self.ingest_parts(request, families, tables, entry.first_seq(), deletes)?;
            let mut manifest = self.manifest.lock();
            let edit = VersionEdit {
                added: parts.added,
                ..VersionEdit::default()
            };
            self.install_flush(&mut manifest, &parts.work, edit)?;
            Ok((entry.last_seq(), parts.work))
        })?;
        self.tell_listeners(&work);
        Ok(seq)
    }

    /// Makes the tables of what is in memory and of the request.
    fn ingest_parts(
        &self,
        request: &Ingest,
        families: &[ColumnFamily],
        tables: &[(ColumnFamily, TableRecord)],
        first: SequenceNumber,
        deletes: u32,
    ) -> Result<Parts<'_>> {
        let table_seq = SequenceNumber(first.0 + u64::from(deletes));
        let last = SequenceNumber(table_seq.0 + request.batch.len() as u64);
        let covered = self.covered_by(families);
        let work: Vec<FlushWork> = covered
            .into_iter()
            .map(|family| FlushWork {
                slots: family.inner.peek().frozen.clone(),
                family,
                upto: last,
            })
            .collect();
        let mut added = self.write_tables(&work)?;
        added.extend(self.memory_tables(families, |family, slot| {
            let ranges = request.range_deletes.iter().enumerate();
            for (at, (_, start, end)) in ranges.filter(|(_, (cf, ..))| cf.same(family)) {
                let seq = SequenceNumber(first.0 + at as u64);
                slot.memtable.insert_range_tombstone(start, end, seq);
            }
        })?);
        let mut reserved = Vec::new();
        let touched: Vec<u32> = added.iter().map(|added| added.family).collect();
        for (family, record) in tables {
            let mut table = record.clone();
            table.global_seq = Some(table_seq);
            // Below what is there only where nothing of this step or of memory overlaps.
            let alone = !touched.contains(&family.id());
            let level = if alone {
                let meta = crate::version::TableMeta::new(table.clone());
                reserved.push(self.reserve_place(family, meta.span()));
                reserved.last().map_or(0, Reserved::level)
            } else {
                0
            };
            added.push(TableAdded {
                family: family.id(),
                level,
                table,
            });
        }
        added.extend(self.memory_tables(families, |family, slot| {
            let operations = Operations::new(request.batch.encoded()).expect("made here");
            for (seq, operation) in (table_seq.0 + 1..).zip(operations) {
                let (id, operation) = operation.expect("made here");
                if id == family.id() {
                    insert_one(slot, operation, SequenceNumber(seq));
                }
            }
        })?);
        Ok(Parts {
            work,
            added,
            _reserved: reserved,
        })
    }

    /// One L0 table a family of what `fill` puts into a memtable, where it puts something.
    fn memory_tables(
        &self,
        families: &[ColumnFamily],
        fill: impl Fn(&ColumnFamily, &Slot),
    ) -> Result<Vec<TableAdded>> {
        let mut added = Vec::new();
        for family in families {
            let slot = Slot::new(family.inner.options().memtable);
            fill(family, &slot);
            if slot.memtable.is_empty() && !slot.memtable.has_tombstones() {
                continue;
            }
            if let Some(table) = self.write_flush_table(family, std::slice::from_ref(&slot))? {
                added.push(TableAdded {
                    family: family.id(),
                    level: 0,
                    table,
                });
            }
        }
        Ok(added)
    }
}

/// Checks that the file is still there and looks as it did, before anything durable names it.
fn check_unchanged(fs: &dyn Fs, table: &TableFile) -> Result<()> {
    let path = &table.path;
    let file = fs
        .open(path, ReadMode::Pread)
        .map_err(|e| Error::io("open", path, e))
        .map_err(as_refused)?;
    let identity = TableIdentity::read(&*file, path).map_err(as_refused)?;
    if identity.table_id != table.info.table_id || identity.size != table.info.size {
        return Err(Error::invalid(format!(
            "{} is not the table it was when it was finished or opened",
            path.display()
        )));
    }
    Ok(())
}

/// A file of the caller that is missing or no table is a wrong call, and no damage of the database. A disk that
/// fails stays what it is.
fn as_refused(error: Error) -> Error {
    use std::io::ErrorKind::{NotFound, UnexpectedEof};
    match error {
        Error::Io { ref source, .. } if !matches!(source.kind(), NotFound | UnexpectedEof) => error,
        error => Error::invalid(format!("table to ingest: {error}")),
    }
}

/// Gives the file `from` a second name, or copies it where the file system cannot.
pub(crate) fn link_or_copy(fs: &dyn Fs, from: &Path, to: &Path) -> Result<()> {
    if fs.hard_link(from, to).is_ok() {
        return Ok(());
    }
    let file = fs
        .open(from, ReadMode::Pread)
        .map_err(|e| Error::io("open", from, e))?;
    let mut copy = fs.create(to).map_err(|e| Error::io("create", to, e))?;
    let mut buffer = vec![0; COPY_BYTES];
    let mut offset = 0;
    while offset < file.len() {
        let len = usize::try_from(file.len() - offset)
            .unwrap_or(COPY_BYTES)
            .min(COPY_BYTES);
        let part = &mut buffer[..len];
        file.read_at(offset, part)
            .map_err(|e| Error::io("read", from, e))?;
        copy.append(part).map_err(|e| Error::io("write", to, e))?;
        offset += len as u64;
    }
    copy.sync().map_err(|e| Error::io("sync", to, e))
}

/// Bytes of memtables that may be written to tables while an ingest holds the log still.
const MAX_HELD_BYTES: usize = 1 << 20;
/// How often what came in between is flushed before that. Writers that are faster than this flushes are held up then.
const MAX_ROUNDS: usize = 8;

/// Bytes copied at a time.
pub(crate) const COPY_BYTES: usize = 1 << 20;
