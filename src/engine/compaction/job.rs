//! Running a compaction or a flush: inputs in one order, what is needed of them, outputs cut to size.
//!
//! Outputs are whole and synced, and so is their directory, when a job returns; on an error its files are
//! removed again. Versions of one user key never part, so outputs of a level never overlap. A range
//! tombstone is cut where the outputs are: the piece in each output ends at the first key of the next.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use super::{
    Compaction, Kind, RowRules, Stripes,
    filter::needed_tombstones,
    fold::{Folder, Kept, Sink},
    is_bottom, overlap_limit,
    rows::{Judged, Rows},
    separation::{Placed, Separation},
};
use crate::{
    error::{Error, Result},
    executor::Executor,
    faults::{Fault, Faults},
    filename,
    fs::{Fs, WritableFile},
    iter::{BoxedIter, InternalIterator, LevelIter, MergingIter, RunSource},
    key::{InternalKey, RangeTombstone, SequenceNumber, ValueKind, pack_trailer},
    merge::Merger,
    options::{CfOptions, LEVELS},
    paced::WritePace,
    table::{TableBuilder, TableIter},
    tombstones::Tombstones,
    version::{TableMeta, TableOpener, TableRecord, Version},
};

/// Bytes of values between two looks at the stop flag, where each entry counts for `ENTRY_WORK` more.
const WORK_PER_PAUSE: usize = 1 << 20;
const ENTRY_WORK: usize = 1 << 10;

/// What a job needs of the database.
pub(crate) struct JobContext<'a> {
    pub(crate) fs: &'a dyn Fs,
    pub(crate) dir: &'a Path,
    pub(crate) options: &'a CfOptions,
    pub(crate) executor: &'a dyn Executor,
    pub(crate) opener: &'a Arc<dyn TableOpener>,
    /// A file number never given out before.
    pub(crate) new_file_number: &'a dyn Fn() -> u64,
    /// Sequence numbers in use by snapshots, ascending, and at the end the one visible now.
    pub(crate) boundaries: &'a [SequenceNumber],
    pub(crate) faults: Faults,
    /// Who folds operands, where the family takes merges.
    pub(crate) merger: Option<&'a Arc<Merger>>,
    /// What compactions do to rows; flushes leave them.
    pub(crate) rows: RowRules<'a>,
    /// Counts operands that could not be put together.
    pub(crate) merge_failures: &'a AtomicU64,
    /// Once true, the job ends with [`Error::Closed`].
    pub(crate) stop: &'a AtomicBool,
    /// How fast tables are written.
    pub(crate) pace: &'a WritePace,
    /// Called every now and then, so that more urgent work can go first on this thread.
    /// (bytes of entries read so far). An error ends the job.
    pub(crate) pause: &'a dyn Fn(u64) -> Result<()>,
}

/// What a job did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct JobStats {
    pub(crate) entries_read: u64,
    pub(crate) entries_written: u64,
    pub(crate) bytes_read: u64,
    pub(crate) bytes_written: u64,
}

/// The tables made, in key order, and what it took.
#[derive(Debug, Default)]
pub(crate) struct JobOutput {
    pub(crate) tables: Vec<TableRecord>,
    /// Numbers of the value files made.
    pub(crate) values: Vec<u64>,
    pub(crate) stats: JobStats,
}

/// Merges the inputs of `compaction` into new tables; a move or a drop makes none.
///
/// # Errors
///
/// What reading, writing or syncing failed with; [`Error::Closed`] when it was told to stop.
pub(crate) fn run(compaction: &Compaction, context: &JobContext<'_>) -> Result<JobOutput> {
    if compaction.kind != Kind::Merge {
        return Ok(JobOutput::default());
    }
    let (version, level) = (compaction.version.as_ref(), compaction.output_level);
    let mut sets = Vec::new();
    for (_, table) in compaction
        .inputs
        .iter()
        .filter(|(_, table)| table.info.tombstones > 0)
    {
        sets.push(Arc::clone(table.table(&**context.opener)?.tombstones()));
    }
    let tombstones = Tombstones::merge_for(sets.iter().map(Arc::as_ref), context.boundaries);
    let stripes = Stripes::new(context.boundaries);
    let kept = needed_tombstones(&tombstones, &stripes, |span| {
        is_bottom(version, level, span)
    });
    let mut below = Below::new(version, level);
    let mut input = MergingIter::new(input_runs(compaction, context)?);
    let grandparents = compaction.grandparents();
    let mut outputs = Outputs::new(
        context,
        level,
        context.options.table_bytes,
        grandparents,
        kept,
        Separation::of_compaction(context, compaction),
    );
    outputs.rows = Rows::new(context.rows, level, context.dir);
    let folder = Folder::new(
        &stripes,
        &tombstones,
        context.merger.cloned(),
        context.faults,
    )
    .reading(&**context.opener);
    let mut output = merge(&mut input, folder, |key| below.is_bottom(key), outputs)?;
    output.stats.bytes_read += compaction.input_bytes();
    Ok(output)
}

/// Writes memtables into one table of L0. Deletes and range tombstones are kept, since tables may
/// hold what they hide. `None` where nothing is left to write.
///
/// # Errors
///
/// As [`run`].
pub(crate) fn flush_to_table<I: InternalIterator>(
    sources: Vec<I>,
    tombstones: &Tombstones,
    context: &JobContext<'_>,
) -> Result<Option<TableRecord>> {
    let stripes = Stripes::new(context.boundaries);
    let kept = needed_tombstones(tombstones, &stripes, |_| false);
    let values = Separation::of_flush(context);
    let outputs = Outputs::new(context, 0, u64::MAX, &[], kept, values);
    let folder = Folder::new(
        &stripes,
        tombstones,
        context.merger.cloned(),
        context.faults,
    );
    let mut output = merge(&mut MergingIter::new(sources), folder, |_| false, outputs)?;
    assert!(output.tables.len() <= 1, "a flush is never cut");
    Ok(output.tables.pop())
}

/// The loop of both: takes what is needed of `input` into `outputs`.
fn merge(
    input: &mut impl InternalIterator,
    folder: Folder<'_>,
    is_bottom: impl FnMut(&[u8]) -> bool,
    mut outputs: Outputs<'_>,
) -> Result<JobOutput> {
    let mut stats = JobStats::default();
    match fill(input, folder, is_bottom, &mut outputs, &mut stats).and_then(|()| outputs.finish()) {
        Ok(()) => {
            let tables = outputs.finished;
            stats.bytes_read = outputs.values.bytes_read;
            stats.bytes_written = tables.iter().map(|table| table.info.size).sum();
            stats.bytes_written += outputs.values.bytes_written();
            let values = outputs.values.made();
            Ok(JobOutput {
                tables,
                values,
                stats,
            })
        }
        Err(error) => {
            outputs.remove_files();
            Err(error)
        }
    }
}

fn fill(
    input: &mut impl InternalIterator,
    mut folder: Folder<'_>,
    mut is_bottom: impl FnMut(&[u8]) -> bool,
    outputs: &mut Outputs<'_>,
    stats: &mut JobStats,
) -> Result<()> {
    input.seek_to_first()?;
    // What may be done until the next pause.
    let mut work = 0;
    let mut bytes = 0;
    while input.valid() {
        if work == 0 {
            (outputs.context.pause)(bytes)?;
            if outputs.context.stop.load(Ordering::Acquire) {
                return Err(Error::Closed);
            }
            work = WORK_PER_PAUSE;
        }
        work = work.saturating_sub(ENTRY_WORK + input.value().len());
        stats.entries_read += 1;
        bytes += (input.key().user_key.len() + input.value().len()) as u64;
        folder.take(input.key(), input.value(), &mut is_bottom, outputs)?;
        input.next()?;
    }
    folder.end_key(&mut is_bottom, outputs)?;
    stats.entries_written = outputs.entries;
    let failures = outputs.context.merge_failures;
    failures.fetch_add(folder.failures, Ordering::Relaxed);
    Ok(())
}

impl Sink for Outputs<'_> {
    fn new_key(&mut self) {
        self.may_cut = true;
    }

    fn keep(&mut self, entry: Kept<'_>, is_bottom: &mut dyn FnMut(&[u8]) -> bool) -> Result<()> {
        let Some(mut rows) = self.rows.take() else {
            return self.write(&entry);
        };
        // A filter that is asked sees the value, wherever it lies; what it keeps stays there.
        let pointed = if entry.key.kind() == Some(ValueKind::Pointer) && rows.asks(&entry) {
            Some(self.context.opener.value(entry.value)?)
        } else {
            None
        };
        let seen = match &pointed {
            Some(value) => Kept {
                key: entry.key.with_kind(ValueKind::Put),
                value,
                ..entry
            },
            None => Kept { ..entry },
        };
        let kept = match rows.judge(&seen) {
            Ok(Judged::Keep) => self.write(&entry),
            Ok(Judged::Change(value)) => self.write(&Kept {
                key: seen.key,
                value,
                ..entry
            }),
            Ok(Judged::Remove) => {
                let gone = entry.stripe == Some(0) && is_bottom(entry.key.user_key);
                if gone || self.context.faults.is(Fault::RemoveWithoutDelete) {
                    Ok(())
                } else {
                    let key = InternalKey {
                        trailer: pack_trailer(entry.key.seq(), ValueKind::Delete),
                        ..entry.key
                    };
                    self.write(&Kept {
                        key,
                        value: &[],
                        ..entry
                    })
                }
            }
            Err(error) => Err(error),
        };
        self.rows = Some(rows);
        kept
    }
}

impl Outputs<'_> {
    /// Writes an entry into the current output, or the next.
    fn write(&mut self, entry: &Kept<'_>) -> Result<()> {
        // An output may end only before the first entry kept of a user key.
        if std::mem::take(&mut self.may_cut) {
            self.cut_before(entry.key.user_key)?;
        } else if entry.may_go {
            self.hidden += 1;
        }
        self.entries += 1;
        self.add(entry.key, entry.value)
    }
}

/// The tables being written.
struct Outputs<'a> {
    context: &'a JobContext<'a>,
    level: usize,
    table_bytes: u64,
    /// Tables of the next level, those that end before the current key taken off.
    grandparents: &'a [Arc<TableMeta>],
    /// Bytes of those taken off since the current output began.
    overlapped: u64,
    /// Range tombstones not yet wholly written; fragments ascend.
    tombstones: Vec<RangeTombstone>,
    next_tombstone: usize,
    /// First key that may be in the current output.
    start: Vec<u8>,
    current: Option<(u64, TableBuilder)>,
    /// What is done to rows, if anything.
    rows: Option<Rows<'a>>,
    /// The next entry is the first one kept of its user key.
    may_cut: bool,
    /// Entries of all outputs.
    entries: u64,
    /// Entries of the current output behind a newer one of their key, but for operands that cannot be folded.
    hidden: u64,
    finished: Vec<TableRecord>,
    created: Vec<PathBuf>,
    /// What the entries of the tables point to.
    values: Separation<'a>,
}

impl<'a> Outputs<'a> {
    fn new(
        context: &'a JobContext<'a>,
        level: usize,
        table_bytes: u64,
        grandparents: &'a [Arc<TableMeta>],
        tombstones: Vec<RangeTombstone>,
        values: Separation<'a>,
    ) -> Self {
        Self {
            context,
            level,
            table_bytes,
            grandparents,
            overlapped: 0,
            tombstones,
            next_tombstone: 0,
            start: Vec::new(),
            current: None,
            rows: None,
            may_cut: true,
            entries: 0,
            hidden: 0,
            finished: Vec::new(),
            created: Vec::new(),
            values,
        }
    }

    fn add(&mut self, key: InternalKey<'_>, value: &[u8]) -> Result<()> {
        let dir = self.context.dir;
        let placed = self.values.place(key, value)?;
        let (key, value) = match &placed {
            Placed::AsIs => (key, value),
            Placed::Pointer(pointer) => (key.with_kind(ValueKind::Pointer), pointer.as_slice()),
            Placed::Value(value) => (key.with_kind(ValueKind::Put), &**value),
        };
        let builder = self.builder()?;
        if !builder.may_follow(key) {
            let what =
                format!("tables that are merged hold {key:?} out of order; `verify` tells which");
            return Err(Error::corruption(dir, 0, what));
        }
        builder.add(key, value)
    }

    /// Ends the current output before `user_key`, the next to be written, where that is due: it is
    /// large enough, or half so and at an end of a table below, or below it lies too much.
    fn cut_before(&mut self, user_key: &[u8]) -> Result<()> {
        let mut at_end_of_one = false;
        while let Some((first, rest)) = self.grandparents.split_first()
            && first.span().ends_before(user_key)
        {
            self.overlapped = self.overlapped.saturating_add(first.info.size);
            self.grandparents = rest;
            at_end_of_one = true;
        }
        let size = self
            .current
            .as_ref()
            .map_or(0, |(_, builder)| builder.size_so_far());
        let is_due = size >= self.table_bytes
            || (at_end_of_one && size >= self.table_bytes / 2)
            || self.overlapped > overlap_limit(self.context.options);
        if is_due {
            self.end_output(Some(user_key))?;
            self.start = user_key.to_vec();
            self.overlapped = 0;
        }
        Ok(())
    }

    /// Finishes the current output with its pieces of the range tombstones before `end`.
    fn end_output(&mut self, end: Option<&[u8]>) -> Result<()> {
        let mut at = self.next_tombstone;
        while let Some(tombstone) = self.tombstones.get(at)
            && end.is_none_or(|end| tombstone.start.as_slice() < end)
        {
            let start = tombstone.start.as_slice().max(&self.start).to_vec();
            let whole = tombstone.end.as_slice();
            let piece_end = end.map_or(whole, |end| whole.min(end)).to_vec();
            let ends_here = end.is_none_or(|end| whole <= end);
            let piece = RangeTombstone {
                start,
                end: piece_end,
                seq: tombstone.seq,
            };
            self.builder()?.add_tombstone(&piece);
            at += 1;
            // Fragments do not overlap: those before one that goes on are done.
            if ends_here {
                self.next_tombstone = at;
            }
        }
        if let Some((number, builder)) = self.current.take() {
            let (info, hidden) = (builder.finish()?, std::mem::take(&mut self.hidden));
            self.finished.push(TableRecord {
                number,
                info,
                hidden,
                global_seq: None,
                // Known once the value files are finished.
                values: Vec::new(),
            });
            self.values.end_table();
        }
        Ok(())
    }

    /// Finishes the last output, and makes the names of all durable.
    fn finish(&mut self) -> Result<()> {
        self.end_output(None)?;
        self.values.finish(&mut self.finished)?;
        if self.finished.is_empty() || self.context.faults.is(Fault::NoDirSyncForTable) {
            return Ok(());
        }
        let dir = self.context.dir;
        self.context
            .fs
            .sync_dir(dir)
            .map_err(|error| Error::io("sync directory", dir, error))
    }

    /// The current output, begun if there is none.
    fn builder(&mut self) -> Result<&mut TableBuilder> {
        if self.current.is_none() {
            let number = (self.context.new_file_number)();
            let path = filename::table(self.context.dir, number);
            let file = self
                .context
                .fs
                .create(&path)
                .map_err(|e| Error::io("create", &path, e))?;
            self.created.push(path.clone());
            let file = self.context.pace.wrap(file);
            let file = if self.context.faults.is(Fault::EditBeforeTable) {
                Box::new(NeverSynced(file))
            } else {
                file
            };
            let id = self.context.executor.random();
            let builder = TableBuilder::new(file, path, id, self.context.options, self.level);
            self.current = Some((number, builder));
        }
        let (_, builder) = self.current.as_mut().expect("made above");
        Ok(builder)
    }

    /// Removes what was written. A file that cannot be removed is an orphan, and goes at the next open.
    fn remove_files(mut self) {
        self.current = None;
        for path in self.created.iter().chain(&self.values.created) {
            let _ = self.context.fs.remove_file(path);
        }
    }
}

/// The file of a table whose edit the planted fault lets go before its bytes.
#[derive(Debug)]
pub(super) struct NeverSynced(pub(super) Box<dyn WritableFile>);

impl WritableFile for NeverSynced {
    fn append(&mut self, data: &[u8]) -> io::Result<()> {
        self.0.append(data)
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Answers for ascending keys whether a level below the outputs may hold them.
struct Below<'a> {
    /// For each level below, the tables that do not end before the last key asked for.
    levels: Vec<&'a [Arc<TableMeta>]>,
}

impl<'a> Below<'a> {
    fn new(version: &'a Version, output_level: usize) -> Self {
        Self {
            levels: (output_level + 1..LEVELS)
                .map(|level| version.level(level))
                .collect(),
        }
    }

    fn is_bottom(&mut self, user_key: &[u8]) -> bool {
        self.levels.iter_mut().all(|tables| {
            while tables
                .first()
                .is_some_and(|table| table.span().ends_before(user_key))
            {
                *tables = &tables[1..];
            }
            tables
                .first()
                .is_none_or(|table| !table.span().contains(user_key))
        })
    }
}

/// One cursor for each table of L0, one for the tables of each other level.
fn input_runs(compaction: &Compaction, context: &JobContext<'_>) -> Result<Vec<BoxedIter>> {
    let mut runs: Vec<BoxedIter> = Vec::new();
    let inputs = compaction.inputs.as_slice();
    // Inputs of one level stand together.
    for of_level in inputs.chunk_by(|(a, _), (b, _)| a == b) {
        let tables: Vec<_> = of_level
            .iter()
            .map(|(_, table)| Arc::clone(table))
            .collect();
        if of_level[0].0 > 0 {
            runs.push(Box::new(LevelIter::new(Run {
                tables,
                opener: Arc::clone(context.opener),
            })));
            continue;
        }
        for table in tables {
            runs.push(Box::new(table.table(&**context.opener)?.iter_once()));
        }
    }
    Ok(runs)
}

/// Inputs of one level below L0.
struct Run {
    tables: Vec<Arc<TableMeta>>,
    opener: Arc<dyn TableOpener>,
}

impl RunSource for Run {
    type Iter = TableIter;

    fn len(&self) -> usize {
        self.tables.len()
    }

    fn smallest(&self, index: usize) -> &[u8] {
        &self.tables[index].info.smallest
    }

    fn largest(&self, index: usize) -> &[u8] {
        &self.tables[index].info.largest
    }

    fn open(&self, index: usize) -> Result<TableIter> {
        Ok(self.tables[index].table(&*self.opener)?.iter_once())
    }
}

#[cfg(test)]
#[path = "job_tests.rs"]
mod tests;
