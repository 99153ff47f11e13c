//! A manifest as a file of records: the first holds the whole state, each further one an edit
//! (FORMAT.md, section 5). What the payloads mean belongs to `version`.
//!
//! Every record is synced before it counts. Reading follows the log's rule: a bad record below what is
//! known durable is `Corruption`, above it a torn edit that never counted.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    mark::MarkFound,
    reader::{Records, search_behind},
    record::{FileSeed, RecordKind, encode_record},
    segment::{HEADER_LEN, SegmentHeader, SegmentKind, VERSION},
};
use crate::{
    error::{Error, Result},
    faults::{Fault, Faults},
    filename,
    fs::{Fs, WritableFile},
    key::SequenceNumber,
};

/// Appends edits to a new manifest. After any failure the file's tail is unknown: every later call
/// gives that first failure again, and the caller must begin another manifest.
#[derive(Debug)]
pub(crate) struct ManifestWriter {
    file: Box<dyn WritableFile>,
    path: PathBuf,
    seed: FileSeed,
    number: u64,
    /// Bytes written.
    offset: u64,
    /// Bytes known durable.
    synced: u64,
    failed: Option<Arc<Error>>,
    faults: Faults,
}

impl ManifestWriter {
    /// Creates manifest `number` with its header, of the given format version. It is part of the database only once its first record
    /// is appended and `CURRENT` names it; the directory entry is made durable by that step.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn create(
        fs: &dyn Fs,
        dir: &Path,
        number: u64,
        db: u64,
        format: u32,
        faults: Faults,
    ) -> Result<Self> {
        let path = filename::manifest(dir, number);
        let file = fs
            .create(&path)
            .map_err(|e| Error::io("create", &path, e))?;
        Self::over(file, &path, number, db, format, faults)
    }

    /// The same over an empty file.
    pub(crate) fn over(
        mut file: Box<dyn WritableFile>,
        path: &Path,
        number: u64,
        db: u64,
        format: u32,
        faults: Faults,
    ) -> Result<Self> {
        let header = SegmentHeader {
            db,
            number,
            base: 0,
            previous: 0,
            synced: 0,
        };
        file.append(&header.encode_version(SegmentKind::Manifest, format.max(VERSION)))
            .map_err(|e| Error::io("write", path, e))?;
        Ok(Self {
            file,
            path: path.into(),
            seed: FileSeed::new(db, number, faults),
            number,
            offset: HEADER_LEN as u64,
            synced: 0,
            failed: None,
            faults,
        })
    }

    /// Stands for manifest `number`, of which `synced` bytes count, where nothing may be written because of `cause`.
    pub(crate) fn closed(
        file: Box<dyn WritableFile>,
        path: &Path,
        number: u64,
        db: u64,
        synced: u64,
        cause: &Error,
    ) -> Self {
        Self {
            file,
            path: path.into(),
            seed: FileSeed::new(db, number, Faults::default()),
            number,
            offset: synced,
            synced,
            failed: Some(Arc::new(cause.clone())),
            faults: Faults::default(),
        }
    }

    /// File number.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Bytes of the file known durable.
    pub(crate) fn synced(&self) -> u64 {
        self.synced
    }

    /// True where it takes no more edits.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// Takes no more edits, because of `cause`: for all this writer knows, another manifest is in use.
    pub(crate) fn fail(&mut self, cause: &Error) {
        self.failed.get_or_insert_with(|| Arc::new(cause.clone()));
    }

    /// Writes one record and syncs it. When this returns, the record counts.
    ///
    /// # Errors
    /// The system's; whether the record will be found by the next open is then unknown.
    pub(crate) fn append(&mut self, payload: &[u8]) -> Result<()> {
        if let Some(cause) = &self.failed {
            return Err(cause.as_ref().clone());
        }
        let result = self.try_append(payload);
        if let Err(error) = &result {
            self.failed = Some(Arc::new(error.clone()));
        }
        result
    }

    fn try_append(&mut self, payload: &[u8]) -> Result<()> {
        let mut bytes = Vec::new();
        let (synced, seq) = (self.synced, SequenceNumber::ZERO);
        let (offset, kind) = (self.offset, RecordKind::Edit);
        encode_record(
            &mut bytes, self.seed, offset, kind, true, synced, seq, payload,
        );
        self.file
            .append(&bytes)
            .map_err(|e| Error::io("write", &self.path, e))?;
        self.offset += bytes.len() as u64;
        let first = offset == HEADER_LEN as u64;
        if !(first && self.faults.is(Fault::UnsyncedManifest)) {
            match self.file.sync() {
                Err(_) if self.faults.is(Fault::IgnoreSyncError) => {}
                result => result.map_err(|e| Error::io("sync", &self.path, e))?,
            }
        }
        self.synced = self.offset;
        Ok(())
    }
}

/// What a manifest held.
#[derive(Debug)]
pub(crate) struct Manifest<'a> {
    bytes: &'a [u8],
    /// The database's id: its source for everything else in the directory.
    pub(crate) db: u64,
    /// The mark as judged by that id.
    pub(crate) mark: MarkFound,
    /// Its format version.
    pub(crate) format: u32,
    payloads: Vec<Range<usize>>,
    /// Bytes behind the last record that counts: a torn edit, which was never acknowledged.
    pub(crate) dropped_bytes: u64,
}

impl<'a> Manifest<'a> {
    /// Reads the manifest that `CURRENT` names. `mark` is the whole content of `MARK`, if there is one.
    ///
    /// # Errors
    /// `Corruption` where durable bytes are damaged, `NotADatabase` for an unknown format version.
    pub(crate) fn read(
        path: &Path,
        bytes: &'a [u8],
        number: u64,
        mark: Option<&[u8]>,
        faults: Faults,
    ) -> Result<Self> {
        let header =
            SegmentHeader::decode(bytes, SegmentKind::Manifest).map_err(|bad| bad.error(path))?;
        let format = bytes.first_chunk().map_or(VERSION, SegmentHeader::version);
        if header.number != number {
            let what = format!("header of manifest {}, not of {number}", header.number);
            return Err(Error::corruption(path, 0, what));
        }
        let mark = MarkFound::read(mark, header.db);
        if let Some(newer) = mark
            .good()
            .map(|mark| mark.manifest)
            .filter(|&newer| newer > number)
        {
            let what = format!("is an older manifest: the mark names {newer}");
            return Err(Error::corruption(path, 0, what));
        }
        let seed = FileSeed::new(header.db, number, faults);
        let zero = SequenceNumber::ZERO;
        let mut records = Records::new(bytes, HEADER_LEN, seed, RecordKind::Edit, None, zero);
        let mut payloads = Vec::new();
        for record in records.by_ref() {
            let end = usize::try_from(record.end()).expect("the record lies in memory");
            payloads.push(end - record.payload.len()..end);
        }
        let stop = records.stop();
        // A record taken claims what stands before it, which was taken too.
        let mut known = search_behind(bytes, stop.offset, seed).synced;
        if let Some(mark) = mark.good().filter(|mark| mark.manifest == number) {
            known = known.max(mark.manifest_offset);
        }
        let below_known = (stop.offset as u64) < known && !faults.is(Fault::CutBelowSynced);
        // CURRENT names a manifest only once its first record is durable.
        if below_known || payloads.is_empty() {
            let why = stop.bad.map_or("file ends", super::record::Bad::text);
            let what = format!("{why}, below {known} bytes known durable");
            return Err(Error::corruption(path, stop.offset as u64, what));
        }
        let dropped_bytes = (bytes.len() - stop.offset) as u64;
        Ok(Self {
            bytes,
            db: header.db,
            mark,
            format,
            payloads,
            dropped_bytes,
        })
    }

    /// The payloads in order, each with its offset in the file: the state, then the edits.
    pub(crate) fn payloads(&self) -> impl Iterator<Item = (u64, &'a [u8])> {
        self.payloads
            .iter()
            .map(|range| (range.start as u64, &self.bytes[range.clone()]))
    }
}
