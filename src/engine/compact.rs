//! Compaction as the database runs it: picked, run, installed; and the table of a flush.
//!
//! Not here: what to compact (`compaction::picker`) and the merge itself (`compaction::job`).

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    ops::Bound,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    batch::FamilyId,
    column_family::{ColumnFamily, Slot},
    compaction::{
        Compaction, Cursors, JobContext, Kind, ManualPick, PickContext, RowRules, Target,
        flush_to_table, ingest_level, pick, pick_range, run,
    },
    compaction_filter::{CompactionFilter, FilterSetting},
    db::{Db, DbInner},
    error::{Error, Result},
    events::Event,
    key::{RangeTombstone, SequenceNumber},
    limiter::IoPriority,
    memtable::MemtableIter,
    options::{CfOptions, LEVELS},
    progress::Pacing,
    snapshot::Readers,
    tombstones::Tombstones,
    version::{KeySpan, TableMeta, TableOpener, TableRecord, Version},
};

/// What runs, and where the last ones took place, by family.
#[derive(Default)]
pub(crate) struct Compactions {
    families: Mutex<HashMap<FamilyId, Places>>,
    /// How often those who compact by hand were told to give up.
    cancelled: AtomicU64,
}

#[derive(Default)]
struct Places {
    cursors: Cursors,
    running: Vec<Target>,
}

impl Places {
    fn release(&mut self, target: Option<&Target>) {
        if let Some(at) = self.running.iter().position(|held| Some(held) == target) {
            self.running.remove(at);
        }
    }
}

/// A place in a level that no compaction puts tables into, until this is dropped.
pub(crate) struct Reserved<'a> {
    db: &'a DbInner,
    family: FamilyId,
    target: Target,
}

impl Reserved<'_> {
    /// The level of the place.
    pub(crate) fn level(&self) -> usize {
        self.target.level
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if let Some(places) = self.db.compactions.lock().get_mut(&self.family) {
            places.release(Some(&self.target));
        }
        self.db.background.notify();
    }
}

/// A claimed compaction; its tables and its place are free again when this is dropped, however that comes.
struct Running<'a> {
    db: &'a DbInner,
    family: FamilyId,
    compaction: Compaction,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        {
            let mut families = self.db.compactions.lock();
            if let Some(places) = families.get_mut(&self.family) {
                places.release(self.compaction.target().as_ref());
            }
            self.compaction.release();
        }
        self.db.background.notify();
    }
}

impl Compactions {
    fn lock(&self) -> MutexGuard<'_, HashMap<FamilyId, Places>> {
        self.families.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes that compacting `span` down to the last level reads: what overlaps it comes down level by level.
fn manual_bytes(version: &Version, span: KeySpan<'_>) -> u64 {
    let bytes = |level| {
        let tables = version.tables_overlapping(level, span);
        tables.iter().map(|table| table.info.size).sum::<u64>()
    };
    let (mut above, mut total) = (0, 0);
    for level in 0..LEVELS - 1 {
        above += bytes(level);
        if above > 0 {
            total += above + bytes(level + 1);
        }
    }
    total
}

/// What a manual compaction is at, for those who are told.
const LEVEL_NAMES: [&str; LEVELS] = [
    "level 0", "level 1", "level 2", "level 3", "level 4", "level 5", "level 6",
];

/// What a look for manual work came to.
enum Step {
    Run(Compaction),
    Wait,
    Done,
}

impl Db {
    /// As [`Db::compact_range`], and tells of its progress about every MiB, in bytes of the tables it takes; what is written
    /// to a level above is taken again there, so the total may grow. A rate holds for what is read, beside that of
    /// [`Options::rate_limiter`](crate::Options::rate_limiter) for what is written.
    ///
    /// # Errors
    ///
    /// As for [`Db::compact_range`]; `Cancelled`, also by [`Db::cancel_compact_range`]. What was compacted by then stays so.
    pub fn compact_range_with(
        &self,
        cf: &ColumnFamily,
        start: Option<&[u8]>,
        end: Option<&[u8]>,
        pacing: &Pacing,
    ) -> Result<()> {
        self.inner.check_family(cf)?;
        self.inner.compact_range(cf, start, end, pacing)
    }
}

impl DbInner {
    /// Does one compaction, if there is one to do.
    pub(crate) fn compact_once(self: &Arc<Self>) -> Result<bool> {
        // Families take turns at being asked first, so that a busy one does not starve the others.
        let mut families = self.families();
        let turn = self
            .counters
            .compaction_turns
            .fetch_add(1, Ordering::Relaxed);
        let first = usize::try_from(turn % families.len() as u64).expect("less than their number");
        families.rotate_left(first);
        for family in families {
            if let Some(compaction) = self.pick(&family) {
                self.compact(&family, compaction, &|_| Ok(()))?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Picks and claims the family's most urgent compaction.
    fn pick(&self, family: &ColumnFamily) -> Option<Compaction> {
        self.with_context(family, |context, options| {
            // The version is taken under the lock under which inputs are claimed.
            pick(&family.inner.peek().version, options, context)
        })
    }

    fn with_context(
        &self,
        family: &ColumnFamily,
        choose: impl FnOnce(&PickContext<'_>, &CfOptions) -> Option<Compaction>,
    ) -> Option<Compaction> {
        let readers = self.snapshots.readers(|| self.commit.visible());
        let tombstones = |meta: &TableMeta| {
            meta.table(&*self.tables)
                .ok()
                .map(|table| Arc::clone(table.tombstones()))
        };
        let mut families = self.compactions.lock();
        let places = families.entry(family.id()).or_default();
        let context = PickContext {
            boundaries: &readers.boundaries,
            oldest_time: readers.times.first().copied().unwrap_or(0),
            faults: self.options.faults,
            running: &places.running,
            cursors: &places.cursors,
            tombstones: &tombstones,
        };
        let mut compaction = choose(&context, &family.inner.options())?;
        compaction.claim();
        places.cursors.advance(&compaction);
        places.running.extend(compaction.target());
        Some(compaction)
    }

    /// Runs a claimed compaction and installs what it made.
    fn compact(
        self: &Arc<Self>,
        family: &ColumnFamily,
        compaction: Compaction,
        pause: &dyn Fn(u64) -> Result<()>,
    ) -> Result<()> {
        let running = Running {
            db: self,
            family: family.id(),
            compaction,
        };
        self.run_and_install(family, &running.compaction, pause)
    }

    fn run_and_install(
        self: &Arc<Self>,
        family: &ColumnFamily,
        compaction: &Compaction,
        pause: &dyn Fn(u64) -> Result<()>,
    ) -> Result<()> {
        let begun = self.options.executor.now();
        let inputs = || compaction.inputs.iter().map(|(_, table)| table.number);
        self.tell(|| Event::CompactionBegin {
            family: family.name().to_owned(),
            level: compaction.level,
            output_level: compaction.output_level,
            inputs: inputs().collect(),
            bytes: compaction.input_bytes(),
        });
        let filter = family.inner.options().compaction_filter.clone();
        let filter = filter.filter(|_| compaction.kind == Kind::Merge);
        let visible = || self.commit.visible();
        let (readers, filtering) = if filter.is_some() {
            let (readers, filtering) = self.snapshots.begin_filtering(family, visible);
            (readers, Some(filtering))
        } else {
            (self.snapshots.readers(visible), None)
        };
        let filter = filter.as_ref().map(FilterSetting::get);
        let io = (IoPriority::Compaction, pause);
        let output = self.in_job(family, io, &readers, filter, |context| {
            run(compaction, context)
        })?;
        let mut manifest = self.manifest.lock();
        if manifest.state.family(family.id()).is_none() {
            // Dropped meanwhile, and its tables with it.
            drop(manifest);
            let numbers: Vec<u64> = output.tables.iter().map(|table| table.number).collect();
            let fs = &*self.options.fs;
            crate::manifest::remove_tables(fs, &self.dir, &numbers)?;
            return crate::manifest::remove_value_files(fs, &self.dir, &output.values);
        }
        for table in &output.tables {
            let (number, bytes) = (table.number, table.info.size);
            self.tell(|| Event::TableCreated { number, bytes });
        }
        let edit = compaction.edit(family.id(), output.tables);
        let outputs: Vec<u64> = edit.added.iter().map(|added| added.table.number).collect();
        self.apply_locked(&mut manifest, edit)?;
        let state = manifest.state.family(family.id()).expect("just looked up");
        let put_in_place = || family.inner.install(Arc::clone(&state.version), &[]);
        match filtering {
            Some(filtering) => filtering.install(put_in_place),
            None => put_in_place(),
        }
        drop(manifest);
        let count = |counter: &std::sync::atomic::AtomicU64, by: u64| {
            counter.fetch_add(by, Ordering::Relaxed);
        };
        let counters = &self.counters;
        match compaction.kind {
            Kind::Merge => {
                count(&counters.compactions, 1);
                count(&counters.compacted_bytes_read, output.stats.bytes_read);
                count(
                    &counters.compacted_bytes_written,
                    output.stats.bytes_written,
                );
                count(&counters.compactions_into[compaction.output_level], 1);
            }
            Kind::Move => {
                count(&counters.trivial_moves, 1);
                count(&counters.compactions_into[compaction.output_level], 1);
            }
            Kind::Drop => count(&counters.dropped_whole, compaction.inputs.len() as u64),
        }
        let took = self.options.executor.now().saturating_sub(begun);
        if compaction.kind == Kind::Merge {
            let of_family = &family.inner.counters;
            count(&of_family.compactions, 1);
            count(&of_family.compacted_bytes_read, output.stats.bytes_read);
            count(
                &of_family.compacted_bytes_written,
                output.stats.bytes_written,
            );
            of_family.compaction_time.add(took);
            self.timers.compaction.record(took);
        }
        self.tell(|| Event::CompactionEnd {
            family: family.name().to_owned(),
            output_level: compaction.output_level,
            inputs: inputs().collect(),
            outputs,
            bytes: output.stats.bytes_written,
            took,
        });
        self.schedule_file_work();
        Ok(())
    }

    /// Runs `work` with what a table-writing job needs.
    pub(crate) fn in_job<T>(
        &self,
        family: &ColumnFamily,
        (priority, pause): (IoPriority, &dyn Fn(u64) -> Result<()>),
        readers: &Readers,
        filter: Option<&dyn CompactionFilter>,
        work: impl FnOnce(&JobContext<'_>) -> Result<T>,
    ) -> Result<T> {
        let opener: Arc<dyn TableOpener> = Arc::clone(&self.tables) as _;
        let merger = family.inner.merger();
        work(&JobContext {
            fs: &*self.options.fs,
            dir: &self.dir,
            options: &family.inner.options(),
            executor: &*self.options.executor,
            opener: &opener,
            new_file_number: &|| self.numbers.next(),
            boundaries: &readers.boundaries,
            rows: RowRules {
                ttl: family.inner.ttl(),
                times: &readers.times,
                filter,
                newest_snapshot: readers.newest_snapshot,
                faults: self.options.faults,
            },
            faults: self.options.faults,
            merger: merger.as_ref(),
            merge_failures: &self.counters.merge_failures,
            stop: &self.closing,
            pace: &self.pace(priority),
            pause,
        })
    }

    /// Makes one L0 table of frozen memtables (newest first); `None` when nothing in them is needed.
    pub(crate) fn write_flush_table(
        &self,
        family: &ColumnFamily,
        slots: &[Arc<Slot>],
    ) -> Result<Option<TableRecord>> {
        let sources: Vec<MemtableIter> = slots.iter().map(|slot| slot.memtable.iter()).collect();
        let deletes = slots.iter().flat_map(|slot| slot.memtable.range_deletes());
        let deletes: Vec<RangeTombstone> = deletes.collect();
        let readers = self.snapshots.readers(|| self.commit.visible());
        let io: (IoPriority, &dyn Fn(u64) -> Result<()>) = (IoPriority::Flush, &|_| Ok(()));
        self.in_job(family, io, &readers, None, |context| {
            let tombstones = Tombstones::new_for(deletes, context.boundaries);
            flush_to_table(sources, &tombstones, context)
        })
    }

    /// Flushes and then compacts `start..end` of a family down to the last level.
    pub(crate) fn compact_range(
        self: &Arc<Self>,
        family: &ColumnFamily,
        start: Option<&[u8]>,
        end: Option<&[u8]>,
        pacing: &Pacing,
    ) -> Result<()> {
        let orders = self.compactions.cancelled.load(Ordering::Acquire);
        // Writes that come in meanwhile are left to the next compaction.
        let upto = SequenceNumber(self.commit.lock().next_seq().0 - 1);
        self.flush_families(std::slice::from_ref(family))?;
        let span = KeySpan {
            start: start.unwrap_or_default(),
            end: end.map_or(Bound::Unbounded, Bound::Excluded),
        };
        if end.is_some_and(|end| end <= span.start) {
            return Ok(());
        }
        let total = manual_bytes(&family.inner.peek().version, span);
        let work = RefCell::new(pacing.begin(&*self.options.executor, total));
        let is_cancelled = || self.compactions.cancelled.load(Ordering::Acquire) != orders;
        for (level, name) in LEVEL_NAMES.into_iter().enumerate() {
            work.borrow_mut().turn_to(name)?;
            loop {
                if is_cancelled() {
                    return Err(Error::Cancelled);
                }
                if let Some(cause) = self.read_only_cause() {
                    return Err(Error::ReadOnly { cause });
                }
                if self.is_closing() {
                    return Err(Error::Closed);
                }
                self.check_family(family)?;
                match self.pick_manual(family, span, upto, level) {
                    Step::Run(compaction) => {
                        let bytes = compaction.input_bytes();
                        // What this step has told of.
                        let told = Cell::new(0);
                        let advance = |read: u64| {
                            let read = read.min(bytes).max(told.get());
                            let more = read - told.replace(read);
                            work.borrow_mut().advance(more)
                        };
                        let pause = |read: u64| {
                            if is_cancelled() {
                                return Err(Error::Cancelled);
                            }
                            advance(read)
                        };
                        self.compact(family, compaction, &pause)
                            .map_err(|error| self.note_failure(error))?;
                        advance(bytes)?;
                    }
                    Step::Wait => self.wait_for_one_compaction(&is_cancelled),
                    Step::Done => break,
                }
            }
        }
        work.into_inner().end();
        Ok(())
    }

    /// Has those who compact by hand give up.
    pub(crate) fn cancel_manual(&self) {
        self.compactions.cancelled.fetch_add(1, Ordering::AcqRel);
        self.background.notify();
    }

    fn pick_manual(
        &self,
        family: &ColumnFamily,
        span: KeySpan<'_>,
        upto: SequenceNumber,
        level: usize,
    ) -> Step {
        let mut busy = false;
        let picked = self.with_context(family, |context, options| {
            let version = &family.inner.peek().version;
            match pick_range(version, options, context, span, upto, level) {
                ManualPick::Work(compaction) => Some(compaction),
                ManualPick::Busy => {
                    busy = true;
                    None
                }
                ManualPick::Done => None,
            }
        });
        match picked {
            Some(compaction) => Step::Run(compaction),
            None if busy => Step::Wait,
            None => Step::Done,
        }
    }

    fn wait_for_one_compaction(&self, give_up: &dyn Fn() -> bool) {
        let ended = || self.compactions_ended();
        let before = ended();
        let running = || {
            self.compactions
                .lock()
                .values()
                .any(|places| !places.running.is_empty())
        };
        self.wait_for_background(|| ended() != before || !running() || give_up());
    }

    /// The levels that running compactions, and ingests, of a family put tables into.
    pub(crate) fn running_into(&self, family: FamilyId) -> Vec<usize> {
        let families = self.compactions.lock();
        let places = families.get(&family).into_iter();
        let running = places.flat_map(|places| &places.running);
        running.map(|target| target.level).collect()
    }

    fn compactions_ended(&self) -> u64 {
        let get = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        get(&self.counters.compactions)
            + get(&self.counters.trivial_moves)
            + get(&self.counters.dropped_whole)
    }

    /// Reserves the lowest place for an ingested table with the keys of `span`. Whoever picks a
    /// compaction before the table is installed keeps out of it.
    pub(crate) fn reserve_place(&self, family: &ColumnFamily, span: KeySpan<'_>) -> Reserved<'_> {
        let mut families = self.compactions.lock();
        let places = families.entry(family.id()).or_default();
        // Under the lock: what ended before is in the version, the rest is in `running`.
        let level = ingest_level(&family.inner.peek().version, &places.running, span);
        let target = Target {
            level,
            range: span.to_range(),
        };
        places.running.push(target.clone());
        Reserved {
            db: self,
            family: family.id(),
            target,
        }
    }
}
