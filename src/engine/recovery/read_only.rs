//! Opening only to read: of a checkpoint, a backup that was restored, a directory that a crash has left.
//!
//! Promises: nothing in the directory is created, written, synced or removed; several such opens stand beside each other,
//! and none beside a writer; reads see what an open to write would show.

use std::{
    io,
    path::Path,
    sync::{Arc, atomic::AtomicU64},
};

use super::{
    Found, Opened, assemble, check_restored, make_families, read, replay, share_directory,
    time_behind,
};
use crate::{
    append::Appends,
    commit::{Commit, Segment},
    db::{Db, DbInner, next_instance},
    error::{Error, Result},
    filename,
    fs::{LogFile, ReadMode, WritableFile},
    log_files::{LiveSegment, LogFiles},
    manifest::Manifest,
    numbers::FileNumbers,
    options::Options,
    wal::{
        current,
        manifest_file::ManifestWriter,
        mark::{Mark, MarkFile},
        segment::HEADER_LEN,
    },
};

impl Db {
    /// Opens the database in directory `path` only to read it: a checkpoint, a copy, or what a crash has left. Nothing in
    /// the directory is changed, which may be read-only itself; what the log has and no table is replayed into memory,
    /// whatever that takes. All reads, snapshots, iterators, [`Db::verify`], [`Db::checkpoint`] and [`Db::backup`] work;
    /// what writes answers `ReadOnly` with the cause `OpenedReadOnly`. Of families that are not logged there is what was flushed.
    ///
    /// Several may have a directory open so. Beside a writer it is refused, and so is a writer beside it: the copy to read of
    /// a running database is its checkpoint. The lock is that of the file `LOCK`. Where there is none (a copy by other
    /// hands) nobody is kept out, and tables are read by calls whatever `read_mode` says: a writer that comes makes reads fail, and never wrong.
    ///
    /// # Errors
    ///
    /// `Locked` while a writer has it open, `NotADatabase` where there is none or a restore was not finished; else as for
    /// [`Db::open`].
    pub fn open_read_only(path: impl AsRef<Path>, options: Options) -> Result<Self> {
        open(path.as_ref(), options).map(Self::over)
    }
}

fn open(dir: &Path, mut options: Options) -> Result<Arc<DbInner>> {
    options.validate()?;
    let fs = Arc::clone(&options.fs);
    let lock = share_directory(&*fs, dir)?;
    if lock.is_none() {
        options.read_mode = ReadMode::Pread;
    }
    check_restored(&*fs, dir)?;
    let number = current::read(&*fs, dir)?.ok_or_else(|| Error::NotADatabase {
        path: dir.to_path_buf(),
        what: "it holds no CURRENT".into(),
    })?;
    let mut found = read(&*fs, dir, number, &options)?;
    let db = found
        .state
        .db_id
        .expect("checked when the manifest was read");
    let instance = next_instance();
    let families = make_families(&found.state, instance);
    let last_seq = replay(&*fs, dir, &mut found, &families, &mut |_| Ok(()))?;
    let last_seq = last_seq.max(found.state.last_seq);
    let numbers = Arc::new(FileNumbers::new(super::first_free_number(dir, &found)?));
    let logs = Arc::new(LogFiles::new(dir, &options, Arc::clone(&numbers)));
    for segment in &found.log.segments {
        logs.push_live(LiveSegment {
            number: segment.number,
            base: segment.base,
            file: None,
        });
    }
    let appends = Appends::recovered(&families, &logs, found.log.end)
        .map_err(|what| Error::corruption(filename::log(dir, found.log_start()), 0, what))?;
    let cause = Error::OpenedReadOnly {
        path: dir.to_path_buf(),
    };
    let mark = Arc::new(MarkFile::new(
        Arc::new(Nowhere),
        &dir.join(filename::MARK),
        Mark {
            db,
            ..Mark::default()
        },
    ));
    let time = time_behind(&options, &families, &found.state);
    let commit = stand_in(&options, db, &found, last_seq, &mark, &logs);
    let path = filename::manifest(dir, number);
    let (nowhere, bytes) = (Box::new(Nowhere), found.manifest_bytes);
    let writer = ManifestWriter::closed(nowhere, &path, number, db, bytes, &cause);
    Ok(assemble(
        dir,
        options,
        db,
        Opened {
            instance,
            families,
            lock,
            commit,
            logs,
            mark,
            manifest: Manifest::new(found.state, writer),
            numbers,
            appends,
            read_only: Some(Arc::new(cause)),
            report: found.report,
            time,
        },
    ))
}

/// A commit queue that stands at the end of the log and takes nothing.
fn stand_in(
    options: &Options,
    db: u64,
    found: &Found,
    last_seq: crate::key::SequenceNumber,
    mark: &Arc<MarkFile>,
    logs: &LogFiles,
) -> Arc<Commit> {
    let segment = Segment::new(found.log.previous, found.log.end, Arc::new(Nowhere));
    let synced: Arc<AtomicU64> = logs.synced_mirror();
    Arc::new(Commit::new(
        db,
        segment,
        HEADER_LEN as u64,
        last_seq,
        Arc::clone(mark),
        Arc::clone(&options.executor),
        options.faults,
        synced,
    ))
}

/// A file that is not there: what nobody may write to.
#[derive(Debug)]
struct Nowhere;

fn refused<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl LogFile for Nowhere {
    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        refused()
    }

    fn sync(&self) -> io::Result<()> {
        refused()
    }

    fn capacity(&self) -> u64 {
        0
    }
}

impl WritableFile for Nowhere {
    fn append(&mut self, _: &[u8]) -> io::Result<()> {
        refused()
    }

    fn sync(&mut self) -> io::Result<()> {
        refused()
    }
}
