//! `TableMeta`: one table of a version, opened when it is first read, and its file's end.

use std::{
    fmt,
    ops::Bound,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{KeySpan, TableRecord};
use crate::{
    error::Result,
    key::SequenceNumber,
    slice::PinnedSlice,
    table::{Table, TableInfo},
    values::{ValueFile, ValueFiles, ValueUse},
};

/// Opens tables for versions: knows the directory, the disk and the cache.
pub(crate) trait TableOpener: Send + Sync {
    /// Opens the file of `table`.
    ///
    /// # Errors
    ///
    /// The disk's, and what is damaged in the file.
    fn open(&self, table: &TableMeta) -> Result<Arc<Table>>;
    /// The value that the encoded `pointer` of an entry stands for. The caller holds the table of the entry.
    ///
    /// # Errors
    ///
    /// The disk's, and what is damaged in the value file.
    fn value(&self, pointer: &[u8]) -> Result<PinnedSlice>;
}

/// A table of one or more versions. Whoever reads it holds it (through a version), and its file is
/// removed no sooner than the last holder is gone.
pub(crate) struct TableMeta {
    /// Number of its file.
    pub(crate) number: u64,
    /// What its builder said of it.
    pub(crate) info: TableInfo,
    /// Entries kept only for snapshots.
    pub(crate) hidden: u64,
    /// Ingested tables: the sequence number that stands for all of its entries' own.
    pub(crate) global_seq: Option<SequenceNumber>,
    /// Set once. To close tables that are not used, a later version would hold new metas without it.
    table: OnceLock<Arc<Table>>,
    /// The value files its entries point into, by number, each with the bytes they need of it.
    pub(crate) values: Vec<(Arc<ValueFile>, u64)>,
    being_compacted: AtomicBool,
    obsolete: OnceLock<Arc<ObsoleteTables>>,
}

impl TableMeta {
    /// A table that is not open and points nowhere.
    pub(crate) fn new(record: TableRecord) -> Self {
        let alone = Arc::default();
        Self::of(record, &alone).expect("nobody else has files there")
    }

    /// A table that is not open; `files` has those that others hold.
    ///
    /// # Errors
    ///
    /// Where the record says of a value file what others do not.
    pub(crate) fn of(record: TableRecord, files: &Arc<ValueFiles>) -> Result<Self, String> {
        let TableRecord {
            number,
            info,
            hidden,
            global_seq,
            values,
        } = record;
        let share = |used: ValueUse| Ok::<_, String>((files.share(used.file)?, used.bytes));
        Ok(Self {
            values: values.into_iter().map(share).collect::<Result<_, _>>()?,
            number,
            info,
            hidden,
            global_seq,
            table: OnceLock::new(),
            being_compacted: AtomicBool::new(false),
            obsolete: OnceLock::new(),
        })
    }

    /// What the manifest keeps of it.
    pub(crate) fn record(&self) -> TableRecord {
        TableRecord {
            number: self.number,
            info: self.info.clone(),
            hidden: self.hidden,
            global_seq: self.global_seq,
            values: (self.values.iter())
                .map(|(file, bytes)| ValueUse {
                    file: file.record,
                    bytes: *bytes,
                })
                .collect(),
        }
    }

    /// The open table. Two readers that come first together may both open it; one handle is kept.
    ///
    /// # Errors
    ///
    /// What `opener` says.
    pub(crate) fn table(&self, opener: &dyn TableOpener) -> Result<&Arc<Table>> {
        if let Some(table) = self.table.get() {
            return Ok(table);
        }
        let opened = opener.open(self)?;
        Ok(self.table.get_or_init(|| opened))
    }

    /// The table, where it is open.
    pub(crate) fn open_table(&self) -> Option<&Arc<Table>> {
        self.table.get()
    }

    /// Smallest sequence number a reader sees in it.
    pub(crate) fn min_seq(&self) -> SequenceNumber {
        self.global_seq.unwrap_or(self.info.min_seq)
    }

    /// Largest sequence number a reader sees in it.
    pub(crate) fn max_seq(&self) -> SequenceNumber {
        self.global_seq.unwrap_or(self.info.max_seq)
    }

    /// The user keys its entries and range tombstones lie in.
    pub(crate) fn span(&self) -> KeySpan<'_> {
        let largest = self.info.largest.as_slice();
        let end = if self.info.largest_exclusive {
            Bound::Excluded(largest)
        } else {
            Bound::Included(largest)
        };
        KeySpan {
            start: &self.info.smallest,
            end,
        }
    }

    /// True while a compaction has it as input.
    pub(crate) fn is_being_compacted(&self) -> bool {
        self.being_compacted.load(Ordering::Acquire)
    }

    /// Marks it as input of a compaction, or as free again.
    pub(crate) fn set_being_compacted(&self, busy: bool) {
        self.being_compacted.store(busy, Ordering::Release);
    }

    /// Says that no later version has it: once the last holder drops it, its number goes to `queue`.
    /// To be called only when the edit that removes it is durable.
    pub(crate) fn mark_obsolete(&self, queue: &Arc<ObsoleteTables>) {
        self.obsolete.get_or_init(|| Arc::clone(queue));
    }
}

impl Drop for TableMeta {
    fn drop(&mut self) {
        if let Some(queue) = self.obsolete.get() {
            queue.push(self.number);
            for (file, _) in &self.values {
                file.mark_obsolete(queue);
            }
        }
    }
}

impl fmt::Debug for TableMeta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let close = if self.info.largest_exclusive {
            ')'
        } else {
            ']'
        };
        let (from, to) = (
            self.info.smallest.escape_ascii(),
            self.info.largest.escape_ascii(),
        );
        write!(f, "{}[{from}..{to}{close}", self.number)
    }
}

/// Numbers of tables and value files that nobody uses any more: the background removes their files.
#[derive(Debug, Default)]
pub(crate) struct ObsoleteTables {
    numbers: Mutex<Vec<u64>>,
    values: Mutex<Vec<u64>>,
}

impl ObsoleteTables {
    /// Takes all numbers collected so far.
    pub(crate) fn take(&self) -> Vec<u64> {
        std::mem::take(&mut *self.numbers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes all numbers of value files collected so far.
    pub(crate) fn take_values(&self) -> Vec<u64> {
        std::mem::take(&mut *self.values.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds a value file.
    pub(crate) fn push_values(&self, number: u64) {
        self.values
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(number);
    }

    fn push(&self, number: u64) {
        self.numbers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(number);
    }
}
