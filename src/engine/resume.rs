//! Taking writes again after a failure.
//!
//! Without append families nothing of the old log or manifest is trusted: every memtable becomes a table, a new segment and a new
//! manifest are begun, and `CURRENT` is switched, in this order. Until that switch is durable the next
//! open finds the old state. A database with append families goes on only where its log has not failed.

use std::sync::{Arc, PoisonError};

use crate::{
    background::is_in_a_job,
    column_family::Slot,
    commit::Segment,
    db::DbInner,
    error::{Error, Result},
    events::Event,
    faults::Fault,
    filename,
    flush::FlushWork,
    key::SequenceNumber,
    log_files::LiveSegment,
    version::{LogStart, TableAdded, VersionEdit},
    wal::segment::{SegmentHeader, SegmentKind},
};

impl DbInner {
    pub(crate) fn resume(self: &Arc<Self>) -> Result<()> {
        if is_in_a_job() {
            return Err(Error::invalid(
                "resume waits for background work, which called it",
            ));
        }
        if self.is_closing() {
            return Err(Error::Closed);
        }
        self.check_opened_to_write()?;
        // The second of two callers finds it done.
        let _resuming = self.resuming.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(cause) = self.read_only_cause() else {
            return Ok(());
        };
        if cause.is_corruption() {
            // What is damaged stays damaged: only a repair or a restore helps.
            return Err(Error::ReadOnly { cause });
        }
        if self.appends.exist() && !self.options.faults.is(Fault::ResumeUnfenced) {
            return self.resume_beside_appends();
        }
        // Files that nobody needs make room for what follows.
        self.remove_spare_segments();
        if self.may_free_space(&cause) && !self.manifest.lock().writer.has_failed() {
            // Log and manifest are whole. Where the disk is still full it ends here, and deletes and
            // compactions go on as before.
            self.freeze_all();
            self.flush_frozen()?;
        }
        // From here on nothing gets a place in the log.
        self.commit.fail(Error::clone(&cause));
        self.wait_for_jobs();
        let _flushing = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        let (seq, position, previous) = self.commit.wait_for_inserts();
        self.freeze_all();
        let work: Vec<FlushWork> = self
            .families()
            .into_iter()
            .map(|family| FlushWork {
                slots: family.inner.peek().frozen.clone(),
                family,
                upto: seq,
            })
            .collect();
        let tables = self.write_tables(&work)?;
        self.remove_spare_segments();
        let segment = self
            .begin_segment(position, previous)
            .inspect_err(|_| self.remove_unused(&tables))?;
        self.switch_manifest(&work, tables, &segment, seq)?;
        self.commit.restart(segment, seq);
        self.read_only.store(None);
        self.tell(|| Event::Resumed);
        // The segments of before: what a sync has failed for is not used again.
        self.remove_spare_segments();
        crate::recovery::make_reserve(&*self.options.fs, &self.dir, self.options.reserve_bytes);
        self.background.notify();
        self.schedule_compaction();
        self.schedule_file_work();
        Ok(())
    }

    /// The same with append families, whose only copy is the log: after a failure of the log it is not known
    /// which of its bytes will be there, so only the next open may say; after any other, the log goes on as it is.
    fn resume_beside_appends(self: &Arc<Self>) -> Result<()> {
        if let Some(cause) = self.commit.failure() {
            return Err(Error::ReadOnly { cause });
        }
        self.remove_spare_segments();
        {
            let mut manifest = self.manifest.lock();
            if manifest.writer.has_failed() {
                self.begin_manifest(&mut manifest)?;
            }
        }
        self.release_log()?;
        self.freeze_all();
        self.flush_frozen()?;
        if let Some(cause) = self.commit.failure() {
            return Err(Error::ReadOnly { cause });
        }
        self.read_only.store(None);
        self.tell(|| Event::Resumed);
        crate::recovery::make_reserve(&*self.options.fs, &self.dir, self.options.reserve_bytes);
        self.background.notify();
        self.schedule_compaction();
        self.schedule_file_work();
        Ok(())
    }

    /// Freezes every memtable that holds something, at one point of the write order.
    fn freeze_all(&self) {
        let queue = self.commit.lock();
        for family in self.families() {
            self.freeze_only(&queue, &family);
        }
    }

    /// Removes the segments kept for reuse and the one prepared: after a failure nothing is known of them. What cannot
    /// be removed now goes at the next open.
    fn remove_spare_segments(&self) {
        for number in self.logs.forget_files() {
            let _ = self
                .options
                .fs
                .remove_file(&filename::log(&self.dir, number));
        }
    }

    /// A new segment that begins at `position`, with a durable header.
    fn begin_segment(&self, position: u64, previous: u64) -> Result<Segment> {
        self.logs.prepare(0)?;
        let (number, file) = self.logs.take_prepared(0).expect("just prepared");
        let path = filename::log(&self.dir, number);
        let header = SegmentHeader {
            db: self.id,
            number,
            base: position,
            previous,
            // Not `position`: until the manifest is switched, what failed below it is still the log.
            synced: 0,
        };
        file.write_at(0, &header.encode(SegmentKind::Log))
            .map_err(|e| Error::io("write", &path, e))?;
        file.sync().map_err(|e| Error::io("sync", &path, e))?;
        Ok(Segment::new(number, position, file))
    }

    /// Begins a manifest that holds the state with the new tables, and installs it.
    fn switch_manifest(
        self: &Arc<Self>,
        work: &[FlushWork],
        tables: Vec<TableAdded>,
        segment: &Segment,
        seq: SequenceNumber,
    ) -> Result<()> {
        let mut manifest = self.manifest.lock();
        let edit = VersionEdit {
            next_file_number: Some(self.numbers.peek()),
            last_seq: Some(seq.max(manifest.state.last_seq)),
            log: Some(LogStart {
                segment: segment.number,
                base: segment.base,
            }),
            flushed: work
                .iter()
                .filter(|w| !w.family.is_append())
                .map(|w| (w.family.id(), w.upto))
                .collect(),
            added: tables,
            ..VersionEdit::default()
        };
        let before = manifest.state.clone();
        manifest.state.apply(&edit).map_err(|why| {
            Error::io(
                "edit the manifest of",
                &self.dir,
                std::io::Error::other(why),
            )
        })?;
        if let Err(error) = self.begin_manifest(&mut manifest) {
            manifest.state = before;
            return Err(error);
        }
        let live = LiveSegment {
            number: segment.number,
            base: segment.base,
            file: Some(Arc::clone(&segment.file)),
        };
        self.logs.push_live(live);
        for FlushWork {
            family,
            slots,
            upto,
        } in work
        {
            if let Some(family_state) = manifest.state.family(family.id()) {
                family
                    .inner
                    .flushed_seq
                    .fetch_max(upto.0, std::sync::atomic::Ordering::AcqRel);
                let slots: &[Arc<Slot>] = slots;
                family
                    .inner
                    .install(Arc::clone(&family_state.version), slots);
            }
        }
        // In place it is; a mark that cannot be written, or a segment that cannot be removed, is a failure of its own.
        self.mark.log_synced(segment.number, segment.base, seq)?;
        self.logs.release_before(segment.number)
    }
}
