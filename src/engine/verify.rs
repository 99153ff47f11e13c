//! `verify`: reads and checks every byte of a database, open or closed.
//!
//! It never stops at the first damage: the report names all that was found, by file and offset.

use std::{path::Path, sync::Arc};

use crate::{
    cache::BlockCache,
    checkpoint::Point,
    db::{Db, DbInner, next_instance},
    error::{Error, Result},
    filename,
    fs::Fs,
    key::SequenceNumber,
    options::Options,
    progress::{Pace, Pacing},
    recovery,
    tables::Tables,
    values::needed_by,
    version::{ManifestState, TableOpener},
    wal::{
        current,
        manifest_file::Manifest,
        reader::Records,
        record::{FileSeed, RecordKind},
        segment::{HEADER_LEN, SegmentHeader, SegmentKind},
    },
};

/// What `verify` read, and the damage it found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Table files read.
    pub tables: u64,
    /// Bytes of table files read.
    pub table_bytes: u64,
    /// Value files read.
    pub value_files: u64,
    /// Bytes of value files read.
    pub value_bytes: u64,
    /// Entries of tables.
    pub entries: u64,
    /// Entries of append families, of an open database.
    pub append_entries: u64,
    /// Log segments read.
    pub log_segments: u64,
    /// Records of the log.
    pub log_records: u64,
    /// Bytes of the log behind its end that look like records of an unfinished write: no damage.
    pub log_bytes_dropped: u64,
    /// Edits of the manifest.
    pub edits: u64,
    /// Everything that is not as it was written.
    pub damage: Vec<Error>,
}

/// Checks the closed database in `path` and changes nothing in it. Several may check it, and read it, at a time.
///
/// # Errors
///
/// `Locked` when it is open, `NotADatabase`, `Io`. Damage is in the report, not an error.
pub fn verify_dir(path: impl AsRef<Path>, options: &Options) -> Result<VerifyReport> {
    verify_dir_with(path, options, &Pacing::default())
}

/// As [`verify_dir`], and tells of its progress or keeps to a rate: bytes read, of all there are.
///
/// # Errors
///
/// As for [`verify_dir`]; `Cancelled`.
pub fn verify_dir_with(
    path: impl AsRef<Path>,
    options: &Options,
    pacing: &Pacing,
) -> Result<VerifyReport> {
    let (fs, dir) = (&*options.fs, path.as_ref());
    let _lock = recovery::share_directory(fs, dir)?;
    recovery::check_restored(fs, dir)?;
    verify_unlocked(dir, options, pacing)
}

/// The same, of a directory whose lock the caller holds.
pub(crate) fn verify_unlocked(
    dir: &Path,
    options: &Options,
    pacing: &Pacing,
) -> Result<VerifyReport> {
    let fs = &*options.fs;
    let mut report = VerifyReport::default();
    let number = match current::read(fs, dir) {
        Ok(Some(number)) => number,
        Ok(None) => {
            let what = "it holds no CURRENT".into();
            return Err(Error::NotADatabase {
                path: dir.to_path_buf(),
                what,
            });
        }
        Err(error) => return damaged(report, error),
    };
    let mut found = match recovery::read(fs, dir, number, options) {
        Ok(found) => found,
        Err(error) => return damaged(report, error),
    };
    report.log_bytes_dropped = found.report.log_bytes_dropped;
    report.log_segments = found.log.segments.len() as u64;
    let log_bytes: u64 = found.log.segments.iter().map(|segment| segment.end).sum();
    let total = table_bytes(&found.state) + log_bytes;
    let mut pace = pacing.begin(&*options.executor, total);
    pace.turn_to("log")?;
    let families = recovery::make_families(&found.state, next_instance());
    let mut told = 0;
    let mut tell = |bytes| {
        told += bytes;
        pace.creep(bytes)
    };
    if let Err(error) = recovery::replay(fs, dir, &mut found, &families, &mut tell) {
        note(&mut report, error)?;
    } else {
        let appends = families.iter().filter_map(|f| f.inner.append.as_ref());
        for what in appends.filter_map(|append| append.check().err()) {
            let path = filename::log(dir, found.log_start());
            report.damage.push(Error::corruption(path, 0, what));
        }
    }
    report.log_records = found.report.records;
    pace.advance(log_bytes.saturating_sub(told))?;
    let tables = Tables {
        dir: dir.to_path_buf(),
        fs: Arc::clone(&options.fs),
        mode: options.read_mode,
        cache: BlockCache::new(0),
        values: Arc::clone(&found.state.values),
    };
    verify_tables(&found.state, &tables, &mut report, &mut pace)?;
    report.edits = found.edits;
    Ok(report)
}

/// Keeps damage in the report; passes on everything else.
fn note(report: &mut VerifyReport, error: Error) -> Result<()> {
    match error {
        Error::Corruption { .. } => {
            report.damage.push(error);
            Ok(())
        }
        Error::Io { ref source, .. } if source.kind() == std::io::ErrorKind::UnexpectedEof => {
            report.damage.push(error);
            Ok(())
        }
        _ => Err(error),
    }
}

fn damaged(mut report: VerifyReport, error: Error) -> Result<VerifyReport> {
    note(&mut report, error)?;
    Ok(report)
}

/// Bytes of all tables and value files of `state`.
fn table_bytes(state: &ManifestState) -> u64 {
    let families = state.families();
    let tables = families.flat_map(|(_, family)| family.version.tables());
    let values = needed_by(state);
    let values = values.values().map(|file| file.record.size);
    tables.map(|(_, table)| table.info.size).chain(values).sum()
}

/// Reads every table and value file of `state` from the device.
fn verify_tables(
    state: &ManifestState,
    tables: &Tables,
    report: &mut VerifyReport,
    pace: &mut Pace<'_>,
) -> Result<()> {
    pace.turn_to("tables")?;
    for (_, family) in state.families() {
        for (_, meta) in family.version.tables() {
            let checked = tables
                .open(meta)
                .and_then(|table| table.verify_told(meta.info.crc, |bytes| pace.advance(bytes)));
            report.tables += 1;
            report.table_bytes += meta.info.size;
            report.entries += meta.info.entries;
            if let Err(error) = checked {
                note(report, error)?;
            }
        }
    }
    pace.turn_to("values")?;
    for file in needed_by(state).values() {
        report.value_files += 1;
        report.value_bytes += file.record.size;
        if let Err(error) = file.verify(&tables.place(), |bytes| pace.advance(bytes)) {
            note(report, error)?;
        }
    }
    Ok(())
}

impl Db {
    /// As [`Db::verify`], and tells of its progress or keeps to a rate: bytes read, of all there are.
    ///
    /// # Errors
    ///
    /// As for [`Db::verify`]; `Cancelled`.
    pub fn verify_with(&self, pacing: &Pacing) -> Result<VerifyReport> {
        self.inner.verify(pacing)
    }
}

impl DbInner {
    /// Checks every byte as of one point of the write order; writes go on meanwhile.
    pub(crate) fn verify(self: &Arc<Self>, pacing: &Pacing) -> Result<VerifyReport> {
        let fs = &*self.options.fs;
        let mut report = VerifyReport::default();
        let mut damage = VerifyReport::default();
        let _pin = self.logs.pin();
        let point = self
            .take_point()
            .map_err(|error| self.note_failure(error))?;
        let log_bytes: u64 = (0..point.segments.len()).map(|at| point.len(at)).sum();
        let total = log_bytes + table_bytes(&point.state);
        let mut pace = pacing.begin(&*self.options.executor, total);
        pace.turn_to("log")?;
        for at in 0..point.segments.len() {
            let mut told = 0;
            report.log_segments += 1;
            let records = &mut report.log_records;
            let checked = self.check_segment(fs, &point, at, |bytes| {
                *records += 1;
                told += bytes;
                pace.creep(bytes)
            });
            if let Err(error) = checked {
                note(&mut report, error)?;
            }
            pace.advance(point.len(at).saturating_sub(told))?;
        }
        report.append_entries = self.verify_appends(|error| note(&mut damage, error))?;
        report.damage.append(&mut damage.damage);
        let opened = Tables {
            dir: self.dir.clone(),
            fs: Arc::clone(&self.options.fs),
            mode: self.options.read_mode,
            cache: BlockCache::new(0),
            values: Arc::clone(&point.state.values),
        };
        verify_tables(&point.state, &opened, &mut report, &mut pace)?;
        if let Err(error) = self.verify_manifest(fs, &mut report) {
            note(&mut report, error)?;
        }
        Ok(report)
    }

    /// The bytes of a segment of the point that count, every record of them checked.
    pub(crate) fn checked_segment(&self, fs: &dyn Fs, point: &Point, at: usize) -> Result<Vec<u8>> {
        let mut bytes = self.check_segment(fs, point, at, |_| Ok(()))?;
        bytes.truncate(usize::try_from(point.len(at)).unwrap_or(usize::MAX));
        Ok(bytes)
    }

    /// All bytes of a segment, whose records up to the point check; each is told of by its length.
    fn check_segment(
        &self,
        fs: &dyn Fs,
        point: &Point,
        at: usize,
        mut tell: impl FnMut(u64) -> Result<()>,
    ) -> Result<Vec<u8>> {
        let segment = &point.segments[at];
        let path = filename::log(&self.dir, segment.number);
        let bytes = fs.read(&path).map_err(|e| Error::io("read", &path, e))?;
        let header =
            SegmentHeader::decode(&bytes, SegmentKind::Log).map_err(|bad| bad.error(&path))?;
        if header.number != segment.number || header.base != segment.base || header.db != self.id {
            return Err(Error::corruption(
                path,
                0,
                "the header is of another segment",
            ));
        }
        let seed = FileSeed::new(self.id, segment.number, self.options.faults);
        let (kind, end) = (RecordKind::Batch, Some(point.len(at)));
        let mut records = Records::new(&bytes, HEADER_LEN, seed, kind, end, SequenceNumber::ZERO);
        for record in records.by_ref() {
            tell(record.header.record_len())?;
        }
        let stop = records.stop();
        match stop.bad {
            Some(bad) => Err(Error::corruption(path, stop.offset as u64, bad.text())),
            None => Ok(bytes),
        }
    }

    fn verify_manifest(&self, fs: &dyn Fs, report: &mut VerifyReport) -> Result<()> {
        let manifest = self.manifest.lock();
        let number = manifest.writer.number();
        if current::read(fs, &self.dir)? != Some(number) {
            let what = format!("CURRENT does not name manifest {number}");
            return Err(Error::corruption(self.dir.join(filename::CURRENT), 0, what));
        }
        let path = filename::manifest(&self.dir, number);
        let bytes = fs.read(&path).map_err(|e| Error::io("read", &path, e))?;
        let read = Manifest::read(&path, &bytes, number, None, self.options.faults)?;
        // Only an open to write has put an end to what a crash left behind the last edit.
        let dropped = read.dropped_bytes > 0 && !self.is_opened_read_only();
        if (bytes.len() as u64) < manifest.writer.synced() || dropped {
            let what = "the manifest has lost durable edits";
            return Err(Error::corruption(path, bytes.len() as u64, what));
        }
        report.edits = read.payloads().count() as u64;
        Ok(())
    }
}
