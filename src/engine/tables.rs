//! Opens table files for versions: knows the directory, the disk, the read mode and the cache.

use std::{ops::Range, path::PathBuf, sync::Arc};

use crate::{
    append::AppendIter,
    cache::BlockCache,
    error::{Error, Result},
    filename,
    fs::{Fs, ReadMode},
    iter::{
        InternalIterator,
        concat::{LevelIter, RunSource},
    },
    key::{InternalKey, SequenceNumber},
    memtable::MemtableIter,
    slice::PinnedSlice,
    table::{Table, TableIdentity, TableIter},
    tombstones::{Cover, TombstoneCursor},
    values::{Place, ValueFiles, ValuePointer},
    version::{Bounds, TableMeta, TableOpener, Version},
};

/// What it takes to open a table.
pub(crate) struct Tables {
    pub(crate) dir: PathBuf,
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) mode: ReadMode,
    pub(crate) cache: Arc<BlockCache>,
    pub(crate) values: Arc<ValueFiles>,
}

impl TableOpener for Tables {
    fn open(&self, meta: &TableMeta) -> Result<Arc<Table>> {
        let path = filename::table(&self.dir, meta.number);
        let file = self.fs.open(&path, self.mode).map_err(|error| {
            if error.kind() == std::io::ErrorKind::NotFound {
                Error::corruption(&path, 0, "a table that the manifest names is missing")
            } else {
                Error::io("open", &path, error)
            }
        })?;
        let identity = TableIdentity {
            table_id: meta.info.table_id,
            size: meta.info.size,
        };
        let cache = Arc::clone(&self.cache);
        let table = Table::open(file, &path, meta.number, &identity, meta.global_seq, cache)?;
        // Reads go by the bounds in the manifest; wrong ones would put rows out of order.
        if table.info(meta.info.crc) != meta.info {
            let what = "the table's properties are not what the manifest says of it";
            return Err(Error::corruption(&path, 0, what));
        }
        Ok(Arc::new(table))
    }

    fn value(&self, pointer: &[u8]) -> Result<PinnedSlice> {
        let damage = |what: &str| Error::corruption(&self.dir, 0, what);
        let pointer = ValuePointer::decode(pointer)
            .ok_or_else(|| damage("an entry points to no value: `verify` tells which table"))?;
        let file = self.values.get(pointer.file).ok_or_else(|| {
            let what = "a table points into a value file that it does not have";
            Error::corruption(
                filename::values(&self.dir, pointer.file),
                pointer.offset,
                what,
            )
        })?;
        file.read(&self.place(), pointer, self.cache.pins())
    }
}

/// Neighbouring tables of one level as a sorted run.
pub(crate) struct Run {
    level: Arc<[Arc<TableMeta>]>,
    bounds: Arc<Bounds>,
    range: Range<usize>,
    tables: Arc<Tables>,
}

impl Run {
    fn meta(&self, at: usize) -> &Arc<TableMeta> {
        &self.level[self.range.clone()][at]
    }

    /// A number of tables of the level, as a number of tables of the run.
    fn within(&self, count: usize) -> usize {
        count.clamp(self.range.start, self.range.end) - self.range.start
    }
}

impl RunSource for Run {
    type Iter = TableIter;

    fn len(&self) -> usize {
        self.range.len()
    }

    fn smallest(&self, at: usize) -> &[u8] {
        &self.meta(at).info.smallest
    }

    fn largest(&self, at: usize) -> &[u8] {
        &self.meta(at).info.largest
    }

    fn ending_below(&self, user_key: &[u8]) -> usize {
        self.within(self.bounds.ending_before(&self.level, user_key))
    }

    fn starting_by(&self, user_key: &[u8]) -> usize {
        self.within(self.bounds.starting_by(&self.level, user_key))
    }

    fn open(&self, at: usize) -> Result<TableIter> {
        Ok(self.meta(at).table(&*self.tables)?.iter())
    }
}

/// One source of a read.
pub(crate) enum Source {
    Memtable(MemtableIter),
    Table(TableIter),
    Run(LevelIter<Run>),
    /// An append family, which has nothing else.
    Append(Box<AppendIter>),
}

/// The range deletes of neighbouring tables of one level, for one reader. A table is opened when a key of it is
/// asked for.
pub(crate) struct LevelCovers {
    run: Run,
    at: SequenceNumber,
    /// The table asked last, with its range deletes where it has some.
    here: Option<(usize, Option<TombstoneCursor>)>,
}

impl LevelCovers {
    /// The newest visible range delete over `user_key`.
    ///
    /// # Errors
    ///
    /// From a table that had to be opened.
    pub(crate) fn covering(&mut self, user_key: &[u8]) -> Result<Option<Cover<'_>>> {
        let is_here = |at: usize| {
            let span = self.run.meta(at).span();
            span.contains(user_key)
        };
        if !self.here.as_ref().is_some_and(|(at, _)| is_here(*at)) {
            let at = self.run.ending_below(user_key);
            if at >= self.run.len() || !is_here(at) {
                return Ok(None);
            }
            let meta = self.run.meta(at);
            let cursor = if meta.info.tombstones == 0 {
                None
            } else {
                let table = meta.table(&*self.run.tables)?;
                Some(TombstoneCursor::new(
                    Arc::clone(table.tombstones()),
                    self.at,
                ))
            };
            self.here = Some((at, cursor));
        }
        let cursor = self.here.as_mut().and_then(|(_, cursor)| cursor.as_mut());
        Ok(cursor.and_then(|cursor| cursor.covering(user_key)))
    }
}

impl Tables {
    /// Where the value files are.
    pub(crate) fn place(&self) -> Place<'_> {
        Place {
            fs: &*self.fs,
            dir: &self.dir,
            mode: self.mode,
        }
    }

    /// The range deletes of a range of the tables of one level, as a reader at `at` sees them.
    pub(crate) fn covers(
        self: &Arc<Self>,
        version: &Version,
        level: usize,
        range: Range<usize>,
        at: SequenceNumber,
    ) -> LevelCovers {
        let (level, bounds) = version.share_level(level);
        let tables = Arc::clone(self);
        LevelCovers {
            run: Run {
                level,
                bounds,
                range,
                tables,
            },
            at,
            here: None,
        }
    }

    /// A cursor over a range of the tables of one level, which are opened as it comes to them.
    pub(crate) fn run(
        self: &Arc<Self>,
        version: &Version,
        level: usize,
        range: Range<usize>,
    ) -> Source {
        let (level, bounds) = version.share_level(level);
        Source::Run(LevelIter::new(Run {
            level,
            bounds,
            range,
            tables: Arc::clone(self),
        }))
    }
}

/// Hands a call on to the cursor within.
macro_rules! delegate {
    ($self:expr, $cursor:ident => $call:expr) => {
        match $self {
            Source::Memtable($cursor) => $call,
            Source::Table($cursor) => $call,
            Source::Run($cursor) => $call,
            Source::Append($cursor) => $call,
        }
    };
}

impl InternalIterator for Source {
    fn valid(&self) -> bool {
        delegate!(self, cursor => cursor.valid())
    }

    fn key(&self) -> InternalKey<'_> {
        delegate!(self, cursor => cursor.key())
    }

    fn value(&self) -> &[u8] {
        delegate!(self, cursor => cursor.value())
    }

    fn seek_to_first(&mut self) -> Result<()> {
        delegate!(self, cursor => cursor.seek_to_first())
    }

    fn seek_to_last(&mut self) -> Result<()> {
        delegate!(self, cursor => cursor.seek_to_last())
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        delegate!(self, cursor => cursor.seek(target))
    }

    fn seek_for_prev(&mut self, target: InternalKey<'_>) -> Result<()> {
        delegate!(self, cursor => cursor.seek_for_prev(target))
    }

    fn next(&mut self) -> Result<()> {
        delegate!(self, cursor => cursor.next())
    }

    fn prev(&mut self) -> Result<()> {
        delegate!(self, cursor => cursor.prev())
    }
}
