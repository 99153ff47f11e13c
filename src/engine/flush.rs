//! Flush: frozen memtables become L0 tables, in one edit for what must be durable together.
//!
//! A logged family is flushed alone. Unlogged families are frozen and flushed together, so that what is
//! recovered of them is one point of the write order. The edit is written only after the log is durable
//! up to the last sequence number in it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, PoisonError, atomic::Ordering},
};

use crate::{
    column_family::{ColumnFamily, Frozen, Slot},
    db::DbInner,
    error::{Error, Result},
    events::Event,
    faults::Fault,
    filename,
    key::SequenceNumber,
    manifest::Current,
    version::{LogStart, ManifestState, TableAdded, VersionEdit},
    wal::{current, manifest_file::ManifestWriter, segment::VERSION_TABLES},
};

/// Memtables of one family to be flushed together, newest first.
pub(crate) struct FlushWork {
    pub(crate) family: ColumnFamily,
    pub(crate) slots: Vec<Arc<Slot>>,
    /// Every write of the family up to here is in tables once this is flushed.
    pub(crate) upto: SequenceNumber,
}

impl FlushWork {
    fn name(&self) -> String {
        self.family.name().to_owned()
    }
}

impl DbInner {
    /// Flushes all memtables that are frozen by now.
    pub(crate) fn flush_frozen(self: &Arc<Self>) -> Result<()> {
        let _flushing = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        for family in self.families().into_iter().filter(ColumnFamily::is_logged) {
            let slots = family.inner.peek().frozen.clone();
            if let Some(newest) = slots.first() {
                let upto = newest.frozen().expect("it is among the frozen");
                self.flush_work(
                    vec![FlushWork {
                        family,
                        slots,
                        upto: upto.seq,
                    }],
                    upto,
                )?;
            }
        }
        if let Some((work, upto)) = self.unlogged_work() {
            self.flush_work(work, upto)?;
        }
        Ok(())
    }

    /// The frozen memtables of all unlogged families, and the point of the write order they reach.
    fn unlogged_work(&self) -> Option<(Vec<FlushWork>, Frozen)> {
        // Under the commit lock no family can be frozen while its siblings are not.
        let queue = self.commit.lock();
        let families: Vec<_> = self
            .families()
            .into_iter()
            .filter(|f| !f.is_logged())
            .collect();
        let slots = |family: &ColumnFamily| family.inner.peek().frozen.clone();
        let upto = families
            .iter()
            .filter_map(|family| slots(family).first().and_then(|slot| slot.frozen()))
            .max_by_key(|frozen| frozen.seq)?;
        let work = families
            .into_iter()
            .map(|family| FlushWork {
                slots: slots(&family),
                family,
                upto: upto.seq,
            })
            .collect();
        drop(queue);
        Some((work, upto))
    }

    /// Writes the tables and the edit.
    fn flush_work(self: &Arc<Self>, work: Vec<FlushWork>, upto: Frozen) -> Result<()> {
        if !self.options.faults.is(Fault::FlushBeforeLogSync) {
            self.commit.sync_beside_writers(upto.pos);
            self.commit.sync_up_to(upto.pos, upto.seq)?;
        }
        self.raise_floor()?;
        let begun = self.options.executor.now();
        let names = || {
            work.iter()
                .filter(|w| !w.slots.is_empty())
                .map(FlushWork::name)
        };
        self.tell(|| Event::FlushBegin {
            families: names().collect(),
        });
        let tables = self.write_tables(&work)?;
        let numbers: Vec<u64> = tables.iter().map(|added| added.table.number).collect();
        let bytes = tables.iter().map(|added| added.table.info.size).sum();
        let mut manifest = self.manifest.lock();
        let edit = VersionEdit {
            added: tables,
            ..VersionEdit::default()
        };
        self.install_flush(&mut manifest, &work, edit)?;
        drop(manifest);
        let took = self.options.executor.now().saturating_sub(begun);
        self.timers.flush.record(took);
        self.tell(|| Event::FlushEnd {
            families: names().collect(),
            tables: numbers,
            bytes,
            took,
        });
        self.tell_listeners(&work);
        Ok(())
    }

    /// Makes one L0 table of each family's memtables; their directory entries are durable. On a failure none is left.
    pub(crate) fn write_tables(&self, work: &[FlushWork]) -> Result<Vec<TableAdded>> {
        let mut added = Vec::new();
        for FlushWork { family, slots, .. } in work {
            if slots.is_empty() || family.is_dropped() {
                continue;
            }
            let begun = self.options.executor.now();
            let written = self.write_flush_table(family, slots);
            let counters = &family.inner.counters;
            counters
                .flush_time
                .add(self.options.executor.now().saturating_sub(begun));
            match written {
                Ok(Some(table)) => {
                    let bytes = table.info.size;
                    counters.flushes.fetch_add(1, Ordering::Relaxed);
                    counters.flushed_bytes.fetch_add(bytes, Ordering::Relaxed);
                    self.tell(|| Event::TableCreated {
                        number: table.number,
                        bytes,
                    });
                    self.counters
                        .flushed_bytes
                        .fetch_add(table.info.size, Ordering::Relaxed);
                    added.push(TableAdded {
                        family: family.id(),
                        level: 0,
                        table,
                    });
                }
                Ok(None) => {}
                Err(error) => {
                    self.remove_unused(&added);
                    return Err(error);
                }
            }
        }
        Ok(added)
    }

    /// Removes tables that no edit names. One that cannot be removed goes at the next open.
    pub(crate) fn remove_unused(&self, tables: &[TableAdded]) {
        let numbers: Vec<u64> = tables.iter().map(|added| added.table.number).collect();
        let _ = crate::manifest::remove_tables(&*self.options.fs, &self.dir, &numbers);
        // What a flush or an ingest makes points only into what it has made.
        let values = tables.iter().flat_map(|added| &added.table.values);
        let numbers: Vec<u64> = values.map(|used| used.file.number).collect();
        let _ = crate::manifest::remove_value_files(&*self.options.fs, &self.dir, &numbers);
    }

    /// Makes `edit` durable, which adds the tables of `work` (and perhaps more), and puts it in place. After an
    /// error it is not in place; whether the next open finds it is then unknown.
    pub(crate) fn install_flush(
        self: &Arc<Self>,
        manifest: &mut Current,
        work: &[FlushWork],
        mut edit: VersionEdit,
    ) -> Result<()> {
        let alive = |family: &ColumnFamily| !family.is_dropped();
        // A family dropped since its table was begun takes the table along.
        let (added, orphans): (Vec<_>, Vec<_>) = std::mem::take(&mut edit.added)
            .into_iter()
            .partition(|added| self.family_by_id(added.family).is_some());
        edit.added = added;
        self.remove_unused(&orphans);
        edit.flushed.extend(
            work.iter()
                .filter(|w| alive(&w.family))
                .map(|w| (w.family.id(), w.upto)),
        );
        let slots: Vec<Arc<Slot>> = work.iter().flat_map(|w| w.slots.iter().cloned()).collect();
        let start = self.log_start(&slots);
        edit.log = Some(start);
        if self.options.faults.is(Fault::DeleteLogBeforeEdit) {
            self.logs.release_before(start.segment)?;
        }
        self.apply_locked(manifest, edit)?;
        for FlushWork {
            family,
            slots,
            upto,
        } in work
        {
            if let Some(state) = manifest.state.family(family.id()) {
                family.inner.flushed_seq.fetch_max(upto.0, Ordering::AcqRel);
                family.inner.install(Arc::clone(&state.version), slots);
            }
        }
        self.memory.flushed(&slots);
        drop(slots);
        self.balance_memory();
        self.counters.flushes.fetch_add(1, Ordering::Relaxed);
        // The edit counts, whatever becomes of old segments.
        if let Err(error) = self.logs.release_before(start.segment) {
            self.note_failure(error);
        }
        self.background.notify();
        Ok(())
    }

    /// Tells the listeners of a flush. They are called without a lock of the manifest or the log.
    pub(crate) fn tell_listeners(&self, work: &[FlushWork]) {
        let listeners = self
            .listeners
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for FlushWork { family, upto, .. } in work.iter().filter(|w| !w.family.is_dropped()) {
            for listener in &listeners {
                // A panic of the caller's code ends that call, not the flush.
                let _ = catch_unwind(AssertUnwindSafe(|| listener(family, *upto)));
            }
        }
    }

    /// Where recovery has to start once `flushing` are in tables.
    pub(crate) fn log_start(&self, flushing: &[Arc<Slot>]) -> LogStart {
        let queue = self.commit.lock();
        let flushed = |slot: &Arc<Slot>| flushing.iter().any(|gone| Arc::ptr_eq(gone, slot));
        let is_needed = |family: &&ColumnFamily| {
            family.is_logged() && !self.options.faults.is(Fault::ReleaseUnflushed)
        };
        let oldest = self
            .families()
            .iter()
            .filter(is_needed)
            .flat_map(|family| {
                let state = family.inner.peek();
                state
                    .memtables()
                    .filter(|slot| !flushed(slot))
                    .filter_map(|slot| slot.first_pos())
                    .collect::<Vec<_>>()
            })
            .min()
            .unwrap_or_else(|| queue.end_pos())
            .min(self.appends.floor());
        let (segment, base) = self.logs.segment_of(oldest, queue.synced_segment());
        LogStart { segment, base }
    }

    /// Writes an edit with the numbers every edit carries.
    pub(crate) fn apply_locked(&self, manifest: &mut Current, mut edit: VersionEdit) -> Result<()> {
        let needs_values = edit
            .added
            .iter()
            .any(|added| !added.table.values.is_empty());
        if needs_values {
            self.raise_format(manifest, VERSION_TABLES)?;
        }
        edit.next_file_number = Some(self.numbers.peek().max(manifest.state.next_file_number));
        let last = SequenceNumber(self.commit.lock().next_seq().0 - 1);
        edit.last_seq = Some(last.max(manifest.state.last_seq));
        manifest
            .apply(&edit, self.manifest.obsolete())
            .map_err(|error| self.note_failure(error))?;
        // The edit counts, whatever becomes of the mark.
        let (number, synced) = (manifest.writer.number(), manifest.writer.synced());
        if let Err(error) = self.mark.manifest_synced(number, synced) {
            self.note_failure(error);
        }
        Ok(())
    }

    /// Begins a new manifest when this one has grown too large.
    pub(crate) fn bound_manifest(&self) -> Result<()> {
        let mut manifest = self.manifest.lock();
        if manifest.writer.synced() < self.live.load().max_manifest_bytes {
            return Ok(());
        }
        self.begin_manifest(&mut manifest)
    }

    /// Goes on in a manifest of at least version `format`: only engines that know it may read the database from here on.
    pub(crate) fn raise_format(&self, manifest: &mut Current, format: u32) -> Result<()> {
        let before = manifest.state.format;
        if format > before {
            manifest.state.format = format;
            if let Err(error) = self.begin_manifest(manifest) {
                manifest.state.format = before;
                return Err(self.note_failure(error));
            }
        }
        Ok(())
    }

    /// Goes on in a new manifest that begins with the whole state.
    pub(crate) fn begin_manifest(&self, manifest: &mut Current) -> Result<()> {
        let fs = &*self.options.fs;
        let (old, number) = (manifest.writer.number(), self.numbers.next());
        manifest.state.next_file_number = self.numbers.peek();
        let writer = match self.write_manifest(number, &manifest.state) {
            Ok(writer) => writer,
            Err(error) => {
                // Nothing names it: the old one is as good as before.
                let _ = fs.remove_file(&filename::manifest(&self.dir, number));
                return Err(error);
            }
        };
        if let Err(error) = current::write(fs, &self.dir, number) {
            // It is not known which one the next open will find, so the old one takes no more edits.
            manifest.writer.fail(&error);
            return Err(error);
        }
        manifest.writer = writer;
        // From here on the new one counts, whatever becomes of the mark; and what cannot be removed goes at the next open.
        if let Err(error) = self.mark.manifest_synced(number, manifest.writer.synced()) {
            self.note_failure(error);
        }
        let _ = fs.remove_file(&filename::manifest(&self.dir, old));
        Ok(())
    }

    /// Writes manifest `number`, durable with its name.
    fn write_manifest(&self, number: u64, state: &ManifestState) -> Result<ManifestWriter> {
        let fs = &*self.options.fs;
        let mut writer = ManifestWriter::create(
            fs,
            &self.dir,
            number,
            self.id,
            state.format,
            self.options.faults,
        )?;
        writer.append(&state.to_edit().encode())?;
        fs.sync_dir(&self.dir)
            .map_err(|e| Error::io("sync directory", &self.dir, e))?;
        Ok(writer)
    }

    /// Freezes the memtables of `families` and waits until they are in tables.
    pub(crate) fn flush_families(self: &Arc<Self>, families: &[ColumnFamily]) -> Result<()> {
        self.check_writable(true)?;
        {
            let queue = self.commit.lock();
            for family in families.iter().filter(|family| family.is_logged()) {
                self.freeze(&queue, family);
            }
            if families.iter().any(|family| !family.is_logged()) {
                self.freeze_unlogged(&queue);
            }
        }
        let waiting: Vec<(ColumnFamily, Vec<Arc<Slot>>)> = families
            .iter()
            .map(|f| (f.clone(), f.inner.peek().frozen.clone()))
            .collect();
        self.schedule_flush();
        self.wait_for_background(|| {
            waiting.iter().all(|(family, slots)| {
                let state = family.inner.peek();
                family.is_dropped()
                    || !state
                        .frozen
                        .iter()
                        .any(|f| slots.iter().any(|slot| Arc::ptr_eq(slot, f)))
            })
        });
        match self.read_only_cause() {
            Some(cause) => Err(Error::ReadOnly { cause }),
            None if self.is_closing() => Err(Error::Closed),
            None => Ok(()),
        }
    }
}
