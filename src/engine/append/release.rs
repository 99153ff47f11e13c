//! How the log gets shorter: where append families still need it, once that is durable, and who says so.
//!
//! The *floor* is the log position below which no append family has a live entry, in the order of the log.
//! It only ever rises. It may be used for the manifest once the log is synced past everything that made it
//! so: the records that killed entries, and the rewrites that saved some.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use crate::{
    column_family::ColumnFamily, commit::Queue, db::DbInner, error::Result, faults::Fault,
    key::SequenceNumber, log_files::LogFiles, manifest::Current, version::VersionEdit,
    wal::segment::VERSION_APPEND,
};

/// What a database knows of its append families together.
#[derive(Debug)]
pub(crate) struct Appends {
    /// There are some, or were in this life.
    exist: AtomicBool,
    /// The floor, as far as it is durable; `u64::MAX` without append families.
    floor: AtomicU64,
    /// Held by whoever writes entries forward.
    pub(super) rewriting: Mutex<()>,
}

impl Appends {
    pub(crate) fn new() -> Self {
        Self {
            exist: AtomicBool::new(false),
            floor: AtomicU64::new(u64::MAX),
            rewriting: Mutex::default(),
        }
    }

    /// What the recovered log comes to; everything in it is durable, and it ends at `end`.
    pub(crate) fn recovered(
        families: &[ColumnFamily],
        logs: &LogFiles,
        end: u64,
    ) -> Result<Self, String> {
        let appends = Self::new();
        let segments = logs.segments();
        for append in families.iter().filter_map(|f| f.inner.append.as_ref()) {
            append.recovered(&segments)?;
            appends.begin(end);
        }
        if let Some(first) = segments.0.iter().find(|s| s.live_entries() > 0) {
            appends.floor.store(first.base, Ordering::Release);
        }
        Ok(appends)
    }

    /// True where there are append families, or were in this life.
    pub(crate) fn exist(&self) -> bool {
        self.exist.load(Ordering::Acquire)
    }

    /// There is one from now on, whose entries stand at `position` and after.
    pub(crate) fn begin(&self, position: u64) {
        if !self.exist() {
            self.floor.store(position, Ordering::Release);
            self.exist.store(true, Ordering::Release);
        }
    }

    /// The log position from which on recovery needs the log because of append families.
    pub(crate) fn floor(&self) -> u64 {
        self.floor.load(Ordering::Acquire)
    }
}

impl DbInner {
    /// The floor in the order of the log: where a segment begins.
    fn floor_now(&self, queue: &Queue) -> u64 {
        // What is not published is not counted yet: nothing above it may be given up.
        let published = if self.options.faults.is(Fault::FloorAbovePending) {
            queue.end_pos()
        } else {
            queue.published_pos()
        };
        published.min(self.first_live_base())
    }

    /// Where the first segment with a live entry begins; the last one where there is none.
    fn first_live_base(&self) -> u64 {
        let segments = self.logs.segments();
        let mut live = segments.0.iter().filter(|s| s.live_entries() > 0);
        if self.options.faults.is(Fault::ReleaseLive) {
            live.next();
        }
        let live = live.next();
        live.or(segments.0.last()).map_or(0, |segment| segment.base)
    }

    /// True where segments could be given up that the manifest still names because of append families.
    pub(crate) fn is_floor_behind(&self) -> bool {
        self.first_live_base() > self.appends.floor()
    }

    /// Raises the durable floor to what the floor is now, with a sync of the log where that is needed.
    pub(crate) fn raise_floor(&self) -> Result<()> {
        let (floor, published) = {
            let queue = self.commit.lock();
            (self.floor_now(&queue), queue.published_pos())
        };
        if !self.appends.exist() || floor <= self.appends.floor() {
            return Ok(());
        }
        if !self.options.faults.is(Fault::ReleaseBeforeKillSync) {
            self.commit.sync_up_to(published, SequenceNumber::ZERO)?;
        }
        self.appends.floor.fetch_max(floor, Ordering::AcqRel);
        Ok(())
    }

    /// The first append family is about to be created: only engines that know such may read the manifest from
    /// here on, and the log is needed from here on.
    pub(crate) fn begin_appends(&self, manifest: &mut Current) -> Result<()> {
        self.raise_format(manifest, VERSION_APPEND)?;
        let queue = self.commit.lock();
        self.appends.begin(queue.published_pos());
        Ok(())
    }

    /// Prepares the next segment, of at least so many bytes. On a full disk what truncations have left may be the
    /// room that is missing.
    pub(crate) fn prepare_segment(&self, bytes: u64) -> Result<()> {
        match self.logs.prepare(bytes) {
            Err(error) if error.is_disk_full() && self.appends.exist() => {
                self.release_log()?;
                self.logs.prepare(bytes)
            }
            prepared => prepared,
        }
    }

    /// Gives up the segments that nobody needs any more, and files that nobody holds any more.
    pub(crate) fn release_log(&self) -> Result<()> {
        if !self.appends.exist() {
            return Ok(());
        }
        self.raise_floor()?;
        let mut manifest = self.manifest.lock();
        let start = self.log_start(&[]);
        let is_later = manifest
            .state
            .log
            .is_none_or(|old| start.segment > old.segment);
        if is_later {
            if self.options.faults.is(Fault::DeleteLogBeforeEdit) {
                self.logs.release_before(start.segment)?;
            }
            let edit = VersionEdit {
                log: Some(start),
                ..VersionEdit::default()
            };
            self.apply_locked(&mut manifest, edit)?;
        }
        drop(manifest);
        self.logs.release_before(start.segment)?;
        if self
            .read_only_cause()
            .is_some_and(|cause| cause.is_disk_full())
        {
            // Room is what is missing: no file is kept for later.
            self.logs.bound_recyclable(0)?;
        }
        Ok(())
    }
}
