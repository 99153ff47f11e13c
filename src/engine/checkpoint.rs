//! A checkpoint: a copy of the database at one point of the write order, in a directory of its own.
//!
//! Tables are hard-linked (copied where the file system cannot), log segments are copied. Unlogged families are
//! flushed first. Writers wait only while the point is taken, not while files are copied.

use std::{path::Path, sync::Arc};

use crate::{
    commit::{Entry, Queue},
    db::DbInner,
    error::{Error, Result},
    filename,
    fs::Fs,
    ingest::{COPY_BYTES, link_or_copy},
    key::SequenceNumber,
    limiter::IoPriority,
    log_files::LiveSegment,
    values::needed_by,
    version::ManifestState,
    wal::{
        current,
        manifest_file::ManifestWriter,
        mark::{MARK_LEN, Mark},
        segment::HEADER_LEN,
    },
};

/// The database at one point.
pub(crate) struct Point {
    pub(crate) state: ManifestState,
    pub(crate) segments: Vec<LiveSegment>,
    /// Log position behind the last record.
    pub(crate) end: u64,
    pub(crate) seq: SequenceNumber,
}

impl Point {
    /// Bytes of segment `at` that count.
    pub(crate) fn len(&self, at: usize) -> u64 {
        let end = self.segments.get(at + 1).map_or(self.end, |next| next.base);
        HEADER_LEN as u64 + end - self.segments[at].base
    }
}

impl DbInner {
    /// Takes a point at which log and manifest agree; everything in it is durable.
    pub(crate) fn take_point(&self) -> Result<Point> {
        if self.is_opened_read_only() {
            // Nothing moves.
            return Ok(Point {
                state: self.manifest.lock().state.clone(),
                segments: self.logs.live(),
                end: self.commit.lock().end_pos(),
                seq: self.commit.visible(),
            });
        }
        let prepare = |queue: &mut Queue, _: &Entry| Ok((queue.end_pos(), queue.segment_number()));
        self.commit.exclusively(0, prepare, |(end, newest), entry| {
            let state = self.manifest.lock().state.clone();
            let oldest = state.log.map_or(0, |start| start.segment);
            let segments = self
                .logs
                .live()
                .into_iter()
                // A batch that waits behind this point may have begun a segment: it begins at `end`, and not
                // even its header is written.
                .filter(|s| (oldest..=newest).contains(&s.number));
            Ok(Point {
                segments: segments.collect(),
                end,
                seq: entry.last_seq(),
                state,
            })
        })
    }

    /// Flushes the families that are not logged, for a point that is taken next.
    pub(crate) fn flush_unlogged(self: &Arc<Self>) -> Result<()> {
        let mut unlogged = self.families();
        unlogged.retain(|family| !family.is_logged());
        if unlogged.is_empty() || self.is_opened_read_only() {
            return Ok(());
        }
        self.flush_families(&unlogged)
    }

    pub(crate) fn checkpoint(self: &Arc<Self>, path: &Path) -> Result<()> {
        let fs = &*self.options.fs;
        self.flush_unlogged()?;
        crate::recovery::create_directory(fs, path)?;
        let there = fs
            .list_dir(path)
            .map_err(|e| Error::io("list directory", path, e))?;
        if !there.is_empty() {
            return Err(Error::invalid(format!("{} is not empty", path.display())));
        }
        // So that those who only read the copy have something to lock.
        drop(crate::recovery::lock_directory(fs, path)?);
        let _pin = self.logs.pin();
        // The state keeps its tables from being removed until the end of this call.
        let point = self
            .take_point()
            .map_err(|error| self.note_failure(error))?;
        self.copy_point(&point, path)
    }

    fn copy_point(&self, point: &Point, path: &Path) -> Result<()> {
        let fs = &*self.options.fs;
        for (_, family) in point.state.families() {
            for (_, table) in family.version.tables() {
                let from = filename::table(&self.dir, table.number);
                link_or_copy(fs, &from, &filename::table(path, table.number))?;
            }
        }
        for &number in needed_by(&point.state).keys() {
            let from = filename::values(&self.dir, number);
            link_or_copy(fs, &from, &filename::values(path, number))?;
        }
        for (at, segment) in point.segments.iter().enumerate() {
            let from = filename::log(&self.dir, segment.number);
            let bytes = fs.read(&from).map_err(|e| Error::io("read", &from, e))?;
            let len = usize::try_from(point.len(at)).unwrap_or(usize::MAX);
            let Some(bytes) = bytes.get(..len) else {
                let what = format!("the segment ends before its {len} bytes");
                return Err(Error::corruption(from, bytes.len() as u64, what));
            };
            let to = filename::log(path, segment.number);
            let copy = fs.create(&to).map_err(|e| Error::io("create", &to, e))?;
            let mut copy = self.pace(IoPriority::Backup).wrap(copy);
            // In pieces, so that what is more urgent comes in between.
            for piece in bytes.chunks(COPY_BYTES) {
                copy.append(piece).map_err(|e| Error::io("write", &to, e))?;
            }
            copy.sync().map_err(|e| Error::io("sync", &to, e))?;
        }
        let mut state = point.state.clone();
        let number = state.next_file_number.max(self.numbers.peek());
        state.next_file_number = number + 1;
        let mut writer =
            ManifestWriter::create(fs, path, number, self.id, state.format, self.options.faults)?;
        writer.append(&state.to_edit().encode())?;
        let mark = Mark {
            db: self.id,
            sync_failed: false,
            segment: point.segments.last().map_or(0, |segment| segment.number),
            position: point.end,
            seq: point.seq,
            manifest: number,
            manifest_offset: writer.synced(),
        };
        write_mark(fs, path, mark)?;
        fs.sync_dir(path)
            .map_err(|e| Error::io("sync directory", path, e))?;
        current::write(fs, path, number)
    }
}

/// Writes the mark of a directory that nobody has open, durably but for its name.
pub(crate) fn write_mark(fs: &dyn Fs, dir: &Path, mark: Mark) -> Result<()> {
    let path = dir.join(filename::MARK);
    let file = fs
        .open_log(&path, MARK_LEN as u64)
        .map_err(|e| Error::io("create", &path, e))?;
    file.write_at(0, &mark.encode())
        .map_err(|e| Error::io("write", &path, e))?;
    file.sync().map_err(|e| Error::io("sync", &path, e))
}
