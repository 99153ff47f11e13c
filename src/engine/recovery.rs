//! Opening: from a directory to a running database (FORMAT.md 3.4, docs/adr/0002).
//!
//! ```text
//! CURRENT -> manifest -> families and tables
//!                     -> oldest log segment -> chain -> records -> memtables
//! then, before open returns: tail copied and sealed, next segment, new manifest, CURRENT, mark
//! ```
//! Promises: a plain crash always opens; damage of what was durable is an error; nothing is removed before
//! everything above has succeeded; a crash at any point in here leaves a directory that opens to the same.

use std::{
    io,
    path::Path,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::{ArcSwap, ArcSwapOption};

use crate::{
    append::Appends,
    batch::{Operation, Operations},
    clock::{Time, split_time},
    column_family::{ColumnFamily, Family, Frozen},
    commit::{Commit, Segment},
    compact::Compactions,
    db::{DEFAULT_CF, DbInner, next_instance},
    error::{Error, Result},
    events::Events,
    faults::Fault,
    filename::{self, FileKind},
    fs::{FileLock, Fs},
    key::SequenceNumber,
    log_files::{LiveSegment, LogFiles},
    manifest::Manifest,
    memory::{MemoryShare, SharedMemory},
    numbers::FileNumbers,
    options::{NO_ZSTD, Options},
    snapshot::SnapshotList,
    stats::Counters,
    tables::Tables,
    timing::Timers,
    version::{LogStart, ManifestState, VersionEdit},
    wal::{
        chain::{self, DirSegments, RecoveredLog, Wanted},
        current,
        manifest_file::{self, ManifestWriter},
        mark::{self, MARK_LEN, Mark, MarkFile, MarkFound},
        record::{HEADER_LEN as RECORD_HEADER_LEN, Record},
        segment::{HEADER_LEN, SegmentHeader, SegmentKind, VERSION_TABLES},
        tail,
    },
    write::insert_one,
};

mod create;
mod leftovers;
mod read_only;

pub(crate) use leftovers::make_reserve;
use leftovers::remove_orphans;

pub(crate) use create::{check_restored, create_directory, lock_directory, share_directory};
use create::{create, list, prepare_directory};

/// Sequence numbers, file numbers and log positions above are damage: no database lives long enough to give them out,
/// and arithmetic on those below cannot overflow.
const PLAUSIBLE: u64 = SequenceNumber::MAX.0 / 2;

/// What an open found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// True where the database was made by this open.
    pub created: bool,
    /// Records of the log that were applied.
    pub records: u64,
    /// Operations of them that no table had.
    pub operations: u64,
    /// Bytes of records recognised behind the end of the log: torn or unsynced, and dropped.
    pub log_bytes_dropped: u64,
    /// Bytes behind the last edit of the manifest that counts.
    pub manifest_bytes_dropped: u64,
    /// Bytes of records that were copied because nothing proved them durable.
    pub log_bytes_copied: u64,
    /// How the mark was: `good`, `absent` or `unreadable`.
    pub mark: &'static str,
}

/// What is read before anything is changed.
pub(crate) struct Found {
    pub(crate) manifest_number: u64,
    /// Edits of the manifest that count, and its bytes up to the last of them.
    pub(crate) edits: u64,
    pub(crate) manifest_bytes: u64,
    pub(crate) state: ManifestState,
    pub(crate) log: RecoveredLog,
    pub(crate) files: Vec<(String, Option<FileKind>)>,
    pub(crate) report: RecoveryReport,
}

impl Found {
    /// Number of the segment from which on the log is needed.
    pub(crate) fn log_start(&self) -> u64 {
        self.state.log.map_or(0, |start| start.segment)
    }
}

/// Opens the database in `dir`.
pub(crate) fn open(dir: &Path, options: Options) -> Result<Arc<DbInner>> {
    options.validate()?;
    let fs = Arc::clone(&options.fs);
    let lock = prepare_directory(&*fs, dir, &options)?;
    check_restored(&*fs, dir)?;
    let mut created = false;
    let number = match current::read(&*fs, dir)? {
        Some(_) if options.error_if_exists => {
            return Err(Error::invalid(format!(
                "a database exists in {}",
                dir.display()
            )));
        }
        Some(number) => number,
        None => {
            created = true;
            create(dir, &options)?
        }
    };
    let mut found = read(&*fs, dir, number, &options)?;
    found.report.created = created;
    start(dir, options, lock, found)
}

/// Reads manifest and log and plans the recovery; changes nothing.
pub(crate) fn read(fs: &dyn Fs, dir: &Path, number: u64, options: &Options) -> Result<Found> {
    let path = filename::manifest(dir, number);
    let bytes = fs.read(&path).map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            Error::corruption(&path, 0, "missing, and CURRENT names it")
        } else {
            Error::io("read", &path, error)
        }
    })?;
    let mark_path = dir.join(filename::MARK);
    let mark = match fs.read(&mark_path) {
        Ok(bytes) if mark::is_a_segment(&bytes) => {
            return Err(Error::corruption(mark_path, 0, "it is a log segment"));
        }
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(Error::io("read", mark_path, error)),
    };
    let manifest =
        manifest_file::Manifest::read(&path, &bytes, number, mark.as_deref(), options.faults)?;
    let state = manifest_state(&path, &manifest)?;
    let edits = manifest.payloads().count() as u64;
    let db = manifest.db;
    let start = state.log.expect("checked with the state");
    let wanted = Wanted {
        db,
        oldest: start.segment,
        base: start.base,
        mark: manifest.mark,
        faults: options.faults,
    };
    let log = chain::plan(&DirSegments { fs, dir }, &wanted)?;
    let report = RecoveryReport {
        log_bytes_dropped: log.dropped_bytes,
        manifest_bytes_dropped: manifest.dropped_bytes,
        mark: match manifest.mark {
            MarkFound::Good(_) => "good",
            MarkFound::Absent => "absent",
            MarkFound::Unreadable => "unreadable",
        },
        ..RecoveryReport::default()
    };
    Ok(Found {
        manifest_number: number,
        edits,
        manifest_bytes: bytes.len() as u64 - manifest.dropped_bytes,
        state,
        log,
        files: list(fs, dir)?,
        report,
    })
}

/// What the records of a manifest add up to, checked.
pub(crate) fn manifest_state(
    path: &Path,
    manifest: &manifest_file::Manifest<'_>,
) -> Result<ManifestState> {
    let mut state = ManifestState::default();
    state.format = manifest.format;
    for (offset, payload) in manifest.payloads() {
        let edit = VersionEdit::decode(payload)
            .map_err(|why| Error::corruption(path, offset, format!("version edit: {why}")))?;
        state
            .apply(&edit)
            .map_err(|why| Error::corruption(path, offset, format!("version edit: {why}")))?;
    }
    let damage = |what| Error::corruption(path, 0, what);
    match (state.db_id, state.log) {
        (Some(db), Some(_)) if db == manifest.db => {}
        (Some(_), Some(_)) => {
            return Err(damage("the header names another database than the edits"));
        }
        _ => return Err(damage("the first version edit lacks the database's id")),
    }
    check_state(&state).map_err(damage)?;
    if let Some((_, family)) = state
        .families()
        .find(|(_, family)| family.options.uses_zstd() && !cfg!(feature = "zstd"))
    {
        return Err(Error::NotADatabase {
            path: path.to_path_buf(),
            what: format!("column family {:?}: {NO_ZSTD}", family.name),
        });
    }
    Ok(state)
}

/// Checks what every database holds to, and no single edit shows.
fn check_state(state: &ManifestState) -> Result<(), &'static str> {
    if !state
        .families()
        .any(|(_, family)| family.name == DEFAULT_CF)
    {
        return Err("there is no default column family");
    }
    if state
        .families()
        .any(|(_, family)| family.options.validate().is_err())
    {
        return Err("a column family has options out of range");
    }
    if state
        .families()
        .any(|(_, family)| family.options.least_format() > state.format)
    {
        return Err("a column family of a kind that the manifest's format version lacks");
    }
    if state.format < VERSION_TABLES
        && state
            .families()
            .any(|(_, family)| family.options.uses_zstd())
    {
        return Err("a column family with zstd in a manifest of format version 1 or 2");
    }
    let positions = state.log.map_or(0, |log| log.base);
    if state.last_seq.0.max(state.next_file_number).max(positions) > PLAUSIBLE {
        return Err("an implausible number");
    }
    Ok(())
}

/// Applies the records of the log to the memtables of `families`; answers the last sequence number. Each record is told of
/// by its length.
pub(crate) fn replay(
    fs: &dyn Fs,
    dir: &Path,
    found: &mut Found,
    families: &[ColumnFamily],
    tell: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<SequenceNumber> {
    let source = DirSegments { fs, dir };
    let mut last = found.state.last_seq;
    let believes_stale = found.log.believes_stale();
    let mut newest = SequenceNumber::ZERO;
    let Found {
        log, report, state, ..
    } = found;
    for segment in &log.segments {
        let path = filename::log(dir, segment.number);
        log.replay(&source, segment, |position, record| {
            report.records += 1;
            tell(record.header.record_len())?;
            let damaged = |what: &str| Error::corruption(&path, record.offset, what);
            let end = position + record.header.record_len();
            let mut record = *record;
            if believes_stale && record.header.seq <= newest {
                // The planted fault: what a former life wrote takes part as if it came now.
                record.header.seq = SequenceNumber(last.0 + 1);
            }
            let (count, applied) =
                apply_record(&record, position, end, families, state.next_family_id)
                    .map_err(|what| damaged(&what))?;
            report.operations += applied;
            newest = newest.max(record.header.seq);
            if count > 0 {
                last = last.max(SequenceNumber(record.header.seq.0 + count - 1));
            }
            if last.0.max(end) > PLAUSIBLE {
                return Err(damaged("an implausible sequence number or position"));
            }
            Ok(())
        })?;
    }
    Ok(last)
}

/// Applies one record; answers its operations, and how many of them no table had.
fn apply_record(
    record: &Record<'_>,
    position: u64,
    end: u64,
    families: &[ColumnFamily],
    next_family_id: u32,
) -> Result<(u64, u64), String> {
    let operations = Operations::new(record.payload).ok_or("a batch shorter than its header")?;
    let count = u64::from(operations.remaining());
    let mut applied = 0;
    for (seq, operation) in (record.header.seq.0..).zip(operations) {
        let (id, operation) = operation?;
        let Some(family) = families.iter().find(|family| family.id() == id) else {
            if id >= next_family_id {
                return Err(format!("column family {id} was never created"));
            }
            continue;
        };
        if !family.is_logged() {
            return Err(format!(
                "a write to column family {id}, which is not logged"
            ));
        }
        if let Some(append) = &family.inner.append {
            append.replay(
                &operation,
                SequenceNumber(seq),
                position + RECORD_HEADER_LEN as u64,
            )?;
            applied += 1;
            continue;
        }
        if operation.is_append() {
            return Err(format!(
                "an append to column family {id}, which is a plain one"
            ));
        }
        // An operand is taken without an operator too: a repair without a manifest knows of none, and `open_cf` may give it.
        if let Operation::Put { key, value } = operation
            && family.inner.ttl().is_some()
        {
            let (_, time) = split_time(value).ok_or_else(|| {
                let key = key.escape_ascii();
                format!("the value of \"{key}\" in column family {id} has no time")
            })?;
            family.inner.newest_time.fetch_max(time, Ordering::Relaxed);
        }
        if seq <= family.inner.flushed() {
            continue;
        }
        applied += 1;
        let state = family.inner.peek();
        state.active.touch(Some(position));
        insert_one(&state.active, operation, SequenceNumber(seq));
    }
    for family in families {
        let bytes = family.inner.peek().active.memtable.bytes();
        if bytes >= family.inner.options().write_buffer_bytes {
            family.inner.freeze(Frozen {
                seq: SequenceNumber(record.header.seq.0 + count.saturating_sub(1)),
                pos: end,
            });
        }
    }
    Ok((count, applied))
}

/// The families of `state`, with empty memtables.
pub(crate) fn make_families(state: &ManifestState, instance: u64) -> Vec<ColumnFamily> {
    state
        .families()
        .map(|(id, family)| {
            ColumnFamily::new(Family::new(
                id,
                family.name.clone(),
                family.options.clone(),
                instance,
                Arc::clone(&family.version),
                family.flushed_seq,
            ))
        })
        .collect()
}

/// Everything that changes the directory, and the running database.
fn start(
    dir: &Path,
    options: Options,
    lock: Box<dyn FileLock>,
    mut found: Found,
) -> Result<Arc<DbInner>> {
    let fs = Arc::clone(&options.fs);
    let db = found
        .state
        .db_id
        .expect("checked when the manifest was read");
    let instance = next_instance();
    let families = make_families(&found.state, instance);
    let last_seq = replay(&*fs, dir, &mut found, &families, &mut |_| Ok(()))?;
    let numbers = Arc::new(FileNumbers::new(first_free_number(dir, &found)?));
    let logs = Arc::new(LogFiles::new(dir, &options, Arc::clone(&numbers)));
    let previous = seal(dir, &options, &numbers, &logs, &mut found)?;
    let segment = first_segment(dir, &options, db, &logs, &found, previous)?;

    let appends = Appends::recovered(&families, &logs, segment.base)
        .map_err(|what| Error::corruption(filename::log(dir, found.log_start()), 0, what))?;
    let oldest = families
        .iter()
        .filter_map(|family| family.inner.peek().oldest_pos())
        .chain(appends.exist().then(|| appends.floor()))
        .min();
    let start = oldest.map_or((segment.number, segment.base), |position| {
        logs.segment_of(position, segment.number)
    });
    let number = numbers.next();
    found.state.next_file_number = found.state.next_file_number.max(numbers.peek());
    found.state.log = Some(LogStart {
        segment: start.0,
        base: start.1,
    });
    found.state.last_seq = found.state.last_seq.max(last_seq);
    let mut writer =
        ManifestWriter::create(&*fs, dir, number, db, found.state.format, options.faults)?;
    writer.append(&found.state.to_edit().encode())?;
    fs.sync_dir(dir)
        .map_err(|e| Error::io("sync directory", dir, e))?;
    current::write(&*fs, dir, number)?;

    let mark_path = dir.join(filename::MARK);
    let mark_file = fs
        .open_log(&mark_path, MARK_LEN as u64)
        .map_err(|e| Error::io("open", &mark_path, e))?;
    fs.sync_dir(dir)
        .map_err(|e| Error::io("sync directory", dir, e))?;
    let mark = Arc::new(MarkFile::new(
        mark_file,
        &mark_path,
        Mark {
            db,
            ..Mark::default()
        },
    ));
    mark.log_synced(segment.number, segment.base, last_seq)?;
    mark.manifest_synced(number, writer.synced())?;
    if found.log.needs_seal() {
        // What was copied is durable now, and so is the evidence that it was.
        mark.sync()?;
    }

    logs.release_before(start.0)?;
    remove_orphans(&*fs, dir, &found, number, &logs)?;
    make_reserve(&*fs, dir, options.reserve_bytes);

    let commit = Arc::new(Commit::new(
        db,
        segment,
        HEADER_LEN as u64,
        last_seq,
        Arc::clone(&mark),
        Arc::clone(&options.executor),
        options.faults,
        logs.synced_mirror(),
    ));
    let time = time_behind(&options, &families, &found.state);
    Ok(assemble(
        dir,
        options,
        db,
        Opened {
            instance,
            families,
            lock: Some(lock),
            commit,
            logs,
            mark,
            manifest: Manifest::new(found.state, writer),
            numbers,
            appends,
            read_only: None,
            report: found.report,
            time,
        },
    ))
}

/// The time of a database with these families: a clock that was set back does not bring back what is gone.
fn time_behind(options: &Options, families: &[ColumnFamily], state: &ManifestState) -> Time {
    let newest = families
        .iter()
        .map(|family| family.inner.newest_time.load(Ordering::Relaxed))
        .chain(state.newest_time())
        .max();
    Time::new(Arc::clone(&options.clock), newest.unwrap_or(0))
}

/// What an open has made.
struct Opened {
    instance: u64,
    families: Vec<ColumnFamily>,
    lock: Option<Box<dyn FileLock>>,
    commit: Arc<Commit>,
    logs: Arc<LogFiles>,
    mark: Arc<MarkFile>,
    manifest: Manifest,
    numbers: Arc<FileNumbers>,
    appends: Appends,
    /// Why writes are refused.
    read_only: Option<Arc<Error>>,
    report: RecoveryReport,
    /// What rows with a time to live are measured by.
    time: Time,
}

/// The running database.
fn assemble(dir: &Path, options: Options, db: u64, opened: Opened) -> Arc<DbInner> {
    let memory = options.shared_memory.clone().unwrap_or_else(|| {
        let Options {
            memory_budget_bytes,
            block_cache_bytes,
            max_pinned_bytes,
            ..
        } = options;
        SharedMemory::new(memory_budget_bytes, block_cache_bytes, max_pinned_bytes)
    });
    let cache = Arc::clone(&memory.pool.cache);
    let values = Arc::clone(&opened.manifest.lock().state.values);
    let tables = Arc::new(Tables {
        values,
        dir: dir.to_path_buf(),
        fs: Arc::clone(&options.fs),
        mode: options.read_mode,
        cache,
    });
    Arc::new(DbInner {
        live: ArcSwap::from_pointee(options.clone()),
        dir: dir.to_path_buf(),
        id: db,
        instance: opened.instance,
        commit: opened.commit,
        logs: opened.logs,
        mark: opened.mark,
        manifest: opened.manifest,
        numbers: opened.numbers,
        tables,
        snapshots: Arc::new(SnapshotList::new(opened.time)),
        appends: opened.appends,
        background: Arc::default(),
        counters: Counters::default(),
        compactions: Compactions::default(),
        flushing: Mutex::default(),
        resuming: Mutex::default(),
        read_only: ArcSwapOption::new(opened.read_only),
        memory_over: AtomicBool::new(false),
        memory: MemoryShare::new(memory),
        closing: Arc::default(),
        recovery: opened.report,
        listeners: RwLock::default(),
        events: Events::default(),
        timers: Timers::default(),
        families: RwLock::new(opened.families),
        options,
        _lock: opened.lock,
    })
}

/// A number above all that the manifest, the mark and the directory know.
fn first_free_number(dir: &Path, found: &Found) -> Result<u64> {
    let numbers = found.files.iter().filter_map(|(_, kind)| match kind {
        Some(FileKind::Manifest(n) | FileKind::Log(n) | FileKind::Table(n)) => Some(*n),
        _ => None,
    });
    let mark = found
        .log
        .mark
        .good()
        .map_or(0, |mark| mark.segment.max(mark.manifest));
    numbers
        .max()
        .unwrap_or(0)
        .max(mark)
        .max(found.manifest_number)
        .max(found.state.next_file_number.saturating_sub(1))
        .checked_add(1)
        .filter(|&next| next <= PLAUSIBLE)
        .ok_or_else(|| Error::corruption(dir, 0, "a file has an implausible number"))
}

/// Copies what nothing proves durable into a segment that appears whole; answers the number of the segment that the
/// next one follows. The live segments are noted in `logs`.
fn seal(
    dir: &Path,
    options: &Options,
    numbers: &FileNumbers,
    logs: &LogFiles,
    found: &mut Found,
) -> Result<u64> {
    let log = &found.log;
    let left_open = log.needs_seal() && options.faults.is(Fault::NoSealOfCut);
    // A segment after `previous` holds no byte that counts here, and its header may not be durable: a
    // chain that leaned on it could break at the next power cut.
    let last = match log.segments.last() {
        Some(last) if left_open => last.number,
        _ => log.previous,
    };
    for segment in log.segments.iter().filter(|segment| segment.number <= last) {
        logs.push_live(LiveSegment {
            number: segment.number,
            base: segment.base,
            file: None,
        });
    }
    if left_open || !log.needs_seal() {
        return Ok(last);
    }
    let fs = &*options.fs;
    let number = numbers.next();
    let path = filename::log(dir, number);
    let temporary = filename::temporary(&path);
    let mut file = fs
        .create(&temporary)
        .map_err(|e| Error::io("create", &temporary, e))?;
    let sealed = tail::copy_tail(log, &DirSegments { fs, dir }, number, |bytes| {
        file.append(bytes)
            .map_err(|e| Error::io("write", &temporary, e))
    })?;
    file.sync().map_err(|e| Error::io("sync", &temporary, e))?;
    drop(file);
    fs.rename(&temporary, &path)
        .map_err(|e| Error::io("rename", &temporary, e))?;
    fs.sync_dir(dir).map_err(|e| {
        // A second sync would prove nothing for the name, so the next open must not find and believe it.
        let _ = fs.remove_file(&path);
        Error::io("sync directory", dir, e)
    })?;
    logs.push_live(LiveSegment {
        number,
        base: sealed.base,
        file: None,
    });
    found.report.log_bytes_copied = sealed.end - HEADER_LEN as u64;
    Ok(number)
}

/// The segment that takes the first record of this life; its header is durable.
fn first_segment(
    dir: &Path,
    options: &Options,
    db: u64,
    logs: &LogFiles,
    found: &Found,
    previous: u64,
) -> Result<Segment> {
    logs.prepare(0)?;
    let (number, file) = logs.take_prepared(0).expect("just prepared");
    let path = filename::log(dir, number);
    let base = found.log.end;
    let header = SegmentHeader {
        db,
        number,
        base,
        previous,
        synced: base,
    };
    file.write_at(0, &header.encode(SegmentKind::Log))
        .map_err(|e| Error::io("write", &path, e))?;
    file.sync().map_err(|e| Error::io("sync", &path, e))?;
    logs.push_live(LiveSegment {
        number,
        base,
        file: Some(Arc::clone(&file)),
    });
    debug_assert!(options.log_segment_bytes.0 >= HEADER_LEN as u64);
    Ok(Segment::new(number, base, file))
}
