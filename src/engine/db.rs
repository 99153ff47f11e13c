//! `Db`: the front of the engine. Each call is short here and done in the room of its subject.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use arc_swap::{ArcSwap, ArcSwapOption};

use crate::{
    append::Appends,
    background::{Background, Closing, is_in_a_job},
    batch::WriteBatch,
    column_family::ColumnFamily,
    commit::Commit,
    compact::Compactions,
    db_iter::{DbIter, DbRange},
    error::{Error, Result},
    events::Events,
    executor::Priority,
    fs::FileLock,
    ingest::{Ingest, TableWriter},
    key::SequenceNumber,
    log_files::LogFiles,
    manifest::Manifest,
    memory::MemoryShare,
    numbers::FileNumbers,
    options::{CfOptions, Options, ReadOptions, WriteOptions},
    paced::WritePace,
    progress::Pacing,
    read::{CopyInto, Pin},
    recovery::RecoveryReport,
    slice::PinnedSlice,
    snapshot::{Snapshot, SnapshotList},
    stats::{Counters, Stats},
    tables::Tables,
    ticket::{Ticket, TicketState},
    timing::{Sampled, Timers, is_sample},
    verify::VerifyReport,
    wal::mark::MarkFile,
};

/// Name of the family every database has.
pub const DEFAULT_CF: &str = "default";
/// Longest name of a column family in bytes.
pub const MAX_CF_NAME_LEN: usize = 255;
/// Most column families alive at a time.
pub const MAX_CFS: usize = 4096;

/// Called after each flush with the family and the sequence number up to which it is in tables.
pub type FlushListener = Arc<dyn Fn(&ColumnFamily, SequenceNumber) + Send + Sync>;

/// An open database. Cheap to clone; the last handle dropped closes it.
#[derive(Clone)]
pub struct Db {
    pub(crate) inner: Arc<DbInner>,
    _closer: Arc<Closer>,
}

/// Everything of an open database, shared by handles, jobs and iterators.
pub(crate) struct DbInner {
    pub(crate) dir: PathBuf,
    /// As they were at the open: for what does not change while it is open.
    pub(crate) options: Options,
    /// As they are: for what does (`online`).
    pub(crate) live: ArcSwap<Options>,
    pub(crate) id: u64,
    /// Tells this open database from all others.
    pub(crate) instance: u64,
    pub(crate) commit: Arc<Commit>,
    pub(crate) logs: Arc<LogFiles>,
    pub(crate) mark: Arc<MarkFile>,
    pub(crate) manifest: Manifest,
    pub(crate) numbers: Arc<FileNumbers>,
    pub(crate) tables: Arc<Tables>,
    pub(crate) snapshots: Arc<SnapshotList>,
    pub(crate) appends: Appends,
    pub(crate) background: Arc<Background>,
    pub(crate) counters: Counters,
    pub(crate) compactions: Compactions,
    /// Held by whoever turns frozen memtables into tables. Taken before the log is held still.
    pub(crate) flushing: Mutex<()>,
    /// Held by `resume`. Taken before `flushing`.
    pub(crate) resuming: Mutex<()>,
    pub(crate) read_only: ArcSwapOption<Error>,
    /// The memtables were found to hold more than their budget.
    pub(crate) memory_over: AtomicBool,
    pub(crate) memory: MemoryShare,
    pub(crate) closing: Arc<AtomicBool>,
    pub(crate) recovery: RecoveryReport,
    pub(crate) listeners: RwLock<Vec<FlushListener>>,
    pub(crate) events: Events,
    pub(crate) timers: Timers,
    /// The families alive, by id.
    pub(crate) families: RwLock<Vec<ColumnFamily>>,
    /// Held until the last job and iterator is gone; none where a directory that is only read has no `LOCK`.
    pub(crate) _lock: Option<Box<dyn FileLock>>,
}

struct Closer {
    inner: Arc<DbInner>,
    closed: AtomicBool,
}

impl Db {
    /// Opens the database in directory `path`, or creates it there. It always has the family `default`.
    ///
    /// # Errors
    ///
    /// `Locked` when somebody has it open, `NotADatabase` for a foreign directory or an unknown format, `Corruption`
    /// for damage in what was durable, `Io` from the system. Nothing that was there is deleted then.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Self> {
        let db = Self::over(crate::recovery::open(path.as_ref(), options)?);
        db.inner.join_memory();
        db.inner.schedule_flush();
        db.inner.schedule_file_work();
        Ok(db)
    }

    /// The first handle.
    pub(crate) fn over(inner: Arc<DbInner>) -> Self {
        let closer = Arc::new(Closer {
            inner: Arc::clone(&inner),
            closed: AtomicBool::new(false),
        });
        Self {
            inner,
            _closer: closer,
        }
    }

    /// Creates a column family.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when the name is taken, empty or too long, or options are out of range.
    pub fn create_cf(&self, name: &str, options: CfOptions) -> Result<ColumnFamily> {
        self.inner.create_cf(name, &options)
    }

    /// The family `name` with `options`: created when missing, its options changed when they differ.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when the family exists and `logged` differs, which is fixed at creation, or
    /// as for [`Db::create_cf`].
    pub fn open_cf(&self, name: &str, options: CfOptions) -> Result<ColumnFamily> {
        self.inner.open_cf(name, &options)
    }

    /// The family `name`.
    ///
    /// # Errors
    ///
    /// `NoSuchColumnFamily`.
    pub fn cf(&self, name: &str) -> Result<ColumnFamily> {
        self.inner
            .find_family(name)
            .ok_or_else(|| Error::NoSuchColumnFamily(name.to_owned()))
    }

    /// The family every database has.
    ///
    /// # Panics
    ///
    /// Never: this family cannot be dropped.
    #[must_use]
    pub fn default_cf(&self) -> ColumnFamily {
        self.inner
            .find_family(DEFAULT_CF)
            .expect("the default family is never dropped")
    }

    /// The families alive, by id.
    #[must_use]
    pub fn list_cfs(&self) -> Vec<ColumnFamily> {
        self.inner.families()
    }

    /// Drops a family with all it holds. Iterators and slices of it stay readable.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for the default family, `NoSuchColumnFamily` for one dropped before.
    pub fn drop_cf(&self, cf: &ColumnFamily) -> Result<()> {
        self.inner.drop_cf(cf)
    }

    /// Sets `key` to `value`.
    ///
    /// # Errors
    ///
    /// As for [`Db::write`].
    pub fn put(
        &self,
        cf: &ColumnFamily,
        key: &[u8],
        value: &[u8],
        options: WriteOptions,
    ) -> Result<()> {
        let mut batch = WriteBatch::with_room(key.len() + value.len());
        batch.put(cf, key, value);
        self.write(batch, options).map(|_| ())
    }

    /// Removes `key`; an absent one is fine.
    ///
    /// # Errors
    ///
    /// As for [`Db::write`].
    pub fn delete(&self, cf: &ColumnFamily, key: &[u8], options: WriteOptions) -> Result<()> {
        let mut batch = WriteBatch::new();
        batch.delete(cf, key);
        self.write(batch, options).map(|_| ())
    }

    /// Removes every key in `start..end`.
    ///
    /// # Errors
    ///
    /// As for [`Db::write`].
    pub fn delete_range(
        &self,
        cf: &ColumnFamily,
        start: &[u8],
        end: &[u8],
        options: WriteOptions,
    ) -> Result<()> {
        let mut batch = WriteBatch::new();
        batch.delete_range(cf, start, end);
        self.write(batch, options).map(|_| ())
    }

    /// Applies a batch and waits until it is acknowledged as `options` asks; answers the sequence
    /// number of its last operation. Waits while writes are stalled.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` (nothing was changed): a limit, a handle of another database, a batch over
    /// both classes, `sync: true` on an unlogged one. `ReadOnly`, or the failure itself: whether the batch
    /// will be there after `resume` or the next open is then unknown, but never a part of it.
    pub fn write(&self, batch: WriteBatch, options: WriteOptions) -> Result<SequenceNumber> {
        if batch.is_empty() {
            return self.inner.write_nothing(&batch, options);
        }
        let inner = &self.inner;
        let begun = is_sample(Sampled::Write, inner.options.stats_sampling)
            .then(|| inner.options.executor.now());
        let entry = inner.submit_batch(batch, options, true)?;
        let result = inner.settle(inner.commit.wait(&entry));
        if let Some(begun) = begun {
            let took = inner.options.executor.now().saturating_sub(begun);
            inner.timers.write.record(took);
        }
        result
    }

    /// Gives a batch its place in the order of writes and returns at once; the ticket tells when it is
    /// acknowledged as `options` asks.
    ///
    /// # Errors
    ///
    /// As for [`Db::write`], and `Busy` while writes are stalled.
    pub fn submit(&self, batch: WriteBatch, options: WriteOptions) -> Result<Ticket> {
        self.submit_with(batch, options, false)
    }

    /// As [`Db::submit`], but waits while writes are stalled, as [`Db::write`] does.
    ///
    /// # Errors
    ///
    /// As for [`Db::write`].
    pub fn submit_waiting(&self, batch: WriteBatch, options: WriteOptions) -> Result<Ticket> {
        self.submit_with(batch, options, true)
    }

    fn submit_with(&self, batch: WriteBatch, options: WriteOptions, wait: bool) -> Result<Ticket> {
        if batch.is_empty() {
            let seq = self.inner.write_nothing(&batch, options)?;
            return Ok(Ticket {
                state: TicketState::Done(Ok(seq)),
                db: Arc::clone(&self.inner),
            });
        }
        let entry = self.inner.submit_batch(batch, options, wait)?;
        self.inner.commit.kick(options.sync);
        Ok(Ticket {
            state: TicketState::Queued(entry),
            db: Arc::clone(&self.inner),
        })
    }

    /// The value of `key` now, pinned where it lies.
    ///
    /// # Errors
    ///
    /// `Corruption` or `Io` from the table that had to be read; never a wrong value.
    pub fn get(&self, cf: &ColumnFamily, key: &[u8]) -> Result<Option<PinnedSlice>> {
        self.inner.get(cf, key, None, Pin::<true>)
    }

    /// The value of `key` as of `options` (its bounds do not matter).
    ///
    /// # Errors
    ///
    /// As for [`Db::get`]; `InvalidArgument` for a snapshot of another database.
    pub fn get_with(
        &self,
        cf: &ColumnFamily,
        key: &[u8],
        options: &ReadOptions,
    ) -> Result<Option<PinnedSlice>> {
        self.inner.get_as_of(cf, key, options, Pin::<true>)
    }

    /// Whether a write to `families` would be held up now, by a flush or a compaction that is behind, so that a
    /// caller that must not wait can leave it to one that may. What others write meanwhile may change it.
    #[must_use]
    pub fn would_wait(&self, families: &[ColumnFamily]) -> bool {
        self.inner.would_wait(families)
    }

    /// As [`Db::get_with`], for callers that must not wait for a disk, such as the thread of an event loop: what is
    /// not in a memtable, the block cache or the system's page cache is `Busy`, and another thread may get it.
    ///
    /// # Errors
    ///
    /// As for [`Db::get_with`]; `Busy`.
    pub fn try_get(
        &self,
        cf: &ColumnFamily,
        key: &[u8],
        options: &ReadOptions,
    ) -> Result<Option<PinnedSlice>> {
        self.inner.get_as_of(cf, key, options, Pin::<false>)
    }

    /// Copies the value of `key` into `value` (cleared first); false when it is absent. Writes to no
    /// memory that other readers share.
    ///
    /// # Errors
    ///
    /// As for [`Db::get`].
    pub fn get_into(&self, cf: &ColumnFamily, key: &[u8], value: &mut Vec<u8>) -> Result<bool> {
        value.clear();
        Ok(self.inner.get(cf, key, None, CopyInto(value))?.is_some())
    }

    /// The values of several keys of one family at one moment, in the order asked.
    ///
    /// # Errors
    ///
    /// As for [`Db::get_with`].
    pub fn multi_get<K: AsRef<[u8]>>(
        &self,
        cf: &ColumnFamily,
        keys: &[K],
        options: &ReadOptions,
    ) -> Result<Vec<Option<PinnedSlice>>> {
        self.inner.check_snapshot(options)?;
        self.inner.multi_get(cf, keys, options)
    }

    /// Holds this moment for reading, across all families.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.inner.snapshot()
    }

    /// A cursor over a family, not positioned yet. It sees one moment whatever happens meanwhile, the
    /// family's drop included.
    ///
    /// # Errors
    ///
    /// As for [`Db::get_with`].
    pub fn iter(&self, cf: &ColumnFamily, options: &ReadOptions) -> Result<DbIter> {
        self.inner.check_snapshot(options)?;
        DbIter::open(&self.inner, cf, options)
    }

    /// The entries within the bounds of `options`, as a Rust iterator that can be taken from both ends.
    ///
    /// # Errors
    ///
    /// As for [`Db::iter`]; each item may be an error too, which ends the iteration.
    pub fn range(&self, cf: &ColumnFamily, options: &ReadOptions) -> Result<DbRange> {
        self.inner.check_snapshot(options)?;
        let iter = self.inner.user_iter(cf, options)?;
        Ok(DbRange::new(iter, Arc::clone(&self.inner)))
    }

    /// Writes the memtable of `cf` to a table and waits for it. An unlogged family takes all unlogged families along.
    ///
    /// # Errors
    ///
    /// `ReadOnly` or the failure that made it so.
    pub fn flush(&self, cf: &ColumnFamily) -> Result<()> {
        self.inner.check_family(cf)?;
        self.inner.flush_families(std::slice::from_ref(cf))
    }

    /// Writes all memtables to tables and waits for it.
    ///
    /// # Errors
    ///
    /// As for [`Db::flush`].
    pub fn flush_all(&self) -> Result<()> {
        self.inner.flush_families(&self.inner.families())
    }

    /// Flushes `cf` and compacts its keys in `start..end` (`None`: no bound) down to the last level, so that
    /// nothing stays that no snapshot needs. Waits until it is done.
    ///
    /// # Errors
    ///
    /// As for [`Db::flush`].
    pub fn compact_range(
        &self,
        cf: &ColumnFamily,
        start: Option<&[u8]>,
        end: Option<&[u8]>,
    ) -> Result<()> {
        self.compact_range_with(cf, start, end, &Pacing::default())
    }

    /// Has every running `compact_range` of this database give up soon, with `Cancelled`.
    pub fn cancel_compact_range(&self) {
        self.inner.cancel_manual();
    }

    /// Copies the database at this moment into the directory `path`, which must be empty or absent and on the same
    /// file system for its tables to be linked instead of copied. The copy is durable and can be opened.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for a directory that is not empty; `Io`; `ReadOnly`.
    pub fn checkpoint(&self, path: impl AsRef<Path>) -> Result<()> {
        self.inner.checkpoint(path.as_ref())
    }

    /// Begins a table file at `path`, outside the database, to be ingested into `cf` later. As a write of the caller it is
    /// not bound by [`Options::rate_limiter`].
    ///
    /// # Errors
    ///
    /// `Io`, `NoSuchColumnFamily`.
    pub fn table_writer(&self, cf: &ColumnFamily, path: impl AsRef<Path>) -> Result<TableWriter> {
        self.inner.check_family(cf)?;
        if cf.is_append() {
            return Err(Error::invalid("an append family has no tables"));
        }
        self.inner
            .table_writer(cf, path.as_ref(), &WritePace::default())
    }

    /// Takes in tables, range deletes and a batch in one step: first the range deletes, then the tables, then
    /// the batch. All of it is visible and durable when this returns, or none of it. The families must be of
    /// one class. The table files are linked, so they must not be changed afterwards.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for tables of one family that overlap, or for a mix of classes; else as for [`Db::flush`].
    pub fn ingest(&self, request: Ingest) -> Result<SequenceNumber> {
        self.inner.ingest(request)
    }

    /// Reads and checks every byte: tables, log, manifest. Damage is in the report.
    ///
    /// # Errors
    ///
    /// What kept it from reading on, other than damage.
    pub fn verify(&self) -> Result<VerifyReport> {
        self.verify_with(&Pacing::default())
    }

    /// Takes writes again after a failure whose reason is gone (a full disk, say): writes every memtable to a
    /// table, begins a new manifest and a new log segment. Batches whose write had failed are then there, whole.
    ///
    /// # Errors
    ///
    /// What failed this time; the database stays read-only. `InvalidArgument` from a callback or a listener.
    pub fn resume(&self) -> Result<()> {
        self.inner.resume()
    }

    /// Every write of `cf` up to this sequence number is in tables.
    #[must_use]
    pub fn flushed_seq(&self, cf: &ColumnFamily) -> SequenceNumber {
        SequenceNumber(cf.inner.flushed_seq.load(Ordering::Acquire))
    }

    /// Calls `listener` after each flush, on a background thread; it must not block.
    pub fn on_flush(&self, listener: FlushListener) {
        self.inner
            .listeners
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .push(listener);
    }

    /// The sequence number of the last published write.
    #[must_use]
    pub fn last_seq(&self) -> SequenceNumber {
        self.inner.commit.visible()
    }

    /// Makes everything acknowledged so far durable in the log.
    ///
    /// # Errors
    ///
    /// As for [`Db::write`].
    pub fn sync(&self) -> Result<()> {
        self.inner.check_opened_to_write()?;
        self.inner.settle(self.inner.commit.sync_all())
    }

    /// What open found: records replayed, bytes dropped behind a torn end, how the mark was.
    #[must_use]
    pub fn recovery(&self) -> &RecoveryReport {
        &self.inner.recovery
    }

    /// Counters and sizes.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.inner.stats()
    }

    /// Why the database takes no writes; `None` while it takes them.
    #[must_use]
    pub fn read_only_cause(&self) -> Option<Error> {
        self.inner
            .read_only_cause()
            .map(|cause| Error::clone(&cause))
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.dir
    }

    /// Closes the database: waits for running background work, syncs the log and the mark, and frees the directory
    /// once iterators and other handles are gone too. Writes through other handles fail from then on. Called from a
    /// callback or a listener it is only begun.
    ///
    /// # Errors
    ///
    /// The sync's. Everything acknowledged with `sync: true` was durable before.
    pub fn close(self) -> Result<()> {
        self._closer.close()
    }
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Db({})", self.inner.dir.display())
    }
}

impl Closer {
    fn close(&self) -> Result<()> {
        if self.closed.swap(true, Ordering::AcqRel) {
            if !is_in_a_job() {
                // Another handle, or a callback, has begun it.
                self.inner.wait_until_closed();
            }
            return Ok(());
        }
        let closing = Closing(Arc::clone(&self.inner.background));
        if is_in_a_job() {
            // A callback or a listener closes, or lets go of the last handle: its job cannot wait for its own end.
            let inner = Arc::clone(&self.inner);
            let job = Box::new(move || {
                // Moved in, so that whoever waits for a job that is given up goes on too.
                let _closing = closing;
                let _ = inner.close();
                drop(inner);
            });
            self.inner.options.executor.spawn(Priority::High, job);
            return Ok(());
        }
        self.inner.close()
    }
}

impl Drop for Closer {
    fn drop(&mut self) {
        // Best effort: what was acknowledged with sync is durable already, and `close` reports errors.
        let _ = self.close();
    }
}

/// Gives each open database its own number.
pub(crate) fn next_instance() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

mod inner;

#[cfg(test)]
#[path = "db_tests.rs"]
mod tests;
