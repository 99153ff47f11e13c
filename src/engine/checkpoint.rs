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
    ingest::link_or_copy,
    key::SequenceNumber,
    log_files::LiveSegment,
    version::ManifestState,
    wal::{
        current,
        manifest_file::ManifestWriter,
        mark::{MARK_LEN, Mark, MarkFile},
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

    pub(crate) fn checkpoint(self: &Arc<Self>, path: &Path) -> Result<()> {
        let fs = &*self.options.fs;
        let unlogged: Vec<_> = self
            .families()
            .into_iter()
            .filter(|f| !f.is_logged())
            .collect();
        if !unlogged.is_empty() {
            self.flush_families(&unlogged)?;
        }
        crate::recovery::create_directory(fs, path)?;
        let there = fs
            .list_dir(path)
            .map_err(|e| Error::io("list directory", path, e))?;
        if !there.is_empty() {
            return Err(Error::invalid(format!("{} is not empty", path.display())));
        }
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
        for (at, segment) in point.segments.iter().enumerate() {
            let from = filename::log(&self.dir, segment.number);
            let bytes = fs.read(&from).map_err(|e| Error::io("read", &from, e))?;
            let len = usize::try_from(point.len(at)).unwrap_or(usize::MAX);
            let Some(bytes) = bytes.get(..len) else {
                let what = format!("the segment ends before its {len} bytes");
                return Err(Error::corruption(from, bytes.len() as u64, what));
            };
            let to = filename::log(path, segment.number);
            let mut copy = fs.create(&to).map_err(|e| Error::io("create", &to, e))?;
            copy.append(bytes).map_err(|e| Error::io("write", &to, e))?;
            copy.sync().map_err(|e| Error::io("sync", &to, e))?;
        }
        let mut state = point.state.clone();
        let number = state.next_file_number.max(self.numbers.peek());
        state.next_file_number = number + 1;
        let mut writer =
            ManifestWriter::create(fs, path, number, self.id, state.format, self.options.faults)?;
        writer.append(&state.to_edit().encode())?;
        self.mark_point(point, path, &writer)?;
        fs.sync_dir(path)
            .map_err(|e| Error::io("sync directory", path, e))?;
        current::write(fs, path, number)
    }

    fn mark_point(&self, point: &Point, path: &Path, manifest: &ManifestWriter) -> Result<()> {
        let mark_path = path.join(filename::MARK);
        let file = self
            .options
            .fs
            .open_log(&mark_path, MARK_LEN as u64)
            .map_err(|e| Error::io("create", &mark_path, e))?;
        let mark = MarkFile::new(
            file,
            &mark_path,
            Mark {
                db: self.id,
                ..Mark::default()
            },
        );
        let last = point.segments.last().map_or(0, |segment| segment.number);
        mark.log_synced(last, point.end, point.seq)?;
        mark.manifest_synced(manifest.number(), manifest.synced())?;
        mark.sync()
    }
}
