//! Compaction: merging tables downwards so that reads look into few of them and garbage goes.
//!
//! [`picker`] chooses what to do from a version alone, [`filter`] says which entries are still needed,
//! and [`job`] merges the inputs into new tables; flushing a memtable is the same job with other
//! sources. Not here: when to run it, and installing the result (the manifest edit).

mod filter;
mod fold;
mod job;
mod levels;
mod picker;
mod rows;
mod separation;

pub(crate) use filter::Stripes;
pub(crate) use job::{JobContext, flush_to_table, run};
pub(crate) use levels::pending_bytes;
pub(crate) use picker::{Cursors, ManualPick, PickContext, ingest_level, pick, pick_range};
pub(crate) use rows::RowRules;

use std::sync::Arc;

use crate::{
    batch::FamilyId,
    key::SequenceNumber,
    options::CfOptions,
    version::{
        KeyRange, KeySpan, TableAdded, TableMeta, TableRecord, TableRemoved, Version, VersionEdit,
    },
};

/// How a compaction is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Its inputs are merged into new tables.
    Merge,
    /// Its inputs go one level down as they are; only the manifest changes.
    Move,
    /// Its inputs go away as they are: everything in them is under a newer range delete.
    Drop,
}

/// Why a compaction is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// L0 has too many tables, or too many bytes.
    L0Full,
    /// A level is larger than its target.
    LevelFull,
    /// Tables hold deletes that have nothing left to do, or little else than deletes.
    Garbage,
    /// Tables lie under a range delete.
    RangeDelete,
    /// Tables need value files that are mostly garbage.
    Values,
    /// Rows of tables are past their time.
    Expired,
    /// The caller asked for it.
    Manual,
}

/// One piece of work on the tables of a family.
///
/// The picker only describes it. [`claim`](Self::claim) marks the inputs, and the marks go when the value is
/// dropped: keep it until the result is installed or given up.
#[derive(Debug)]
pub(crate) struct Compaction {
    pub(crate) kind: Kind,
    #[cfg_attr(not(test), expect(dead_code, reason = "for those who print it"))]
    pub(crate) reason: Reason,
    /// Level of the first inputs.
    pub(crate) level: usize,
    /// Level of the outputs; inputs of this level too are rewritten. Of no meaning for a drop.
    pub(crate) output_level: usize,
    /// Tables consumed, with their levels.
    pub(crate) inputs: Vec<(usize, Arc<TableMeta>)>,
    /// The version it was picked from: says what lies below the outputs.
    pub(crate) version: Arc<Version>,
    claimed: bool,
}

/// Where a running compaction puts its outputs: nothing else may put a table there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) level: usize,
    pub(crate) range: KeyRange,
}

impl Compaction {
    /// The keys of all inputs and all outputs.
    pub(crate) fn span(&self) -> KeySpan<'_> {
        KeySpan::hull(self.inputs.iter().map(|(_, table)| table.span()))
            .expect("a compaction has an input")
    }

    /// What to put into [`PickContext::running`] while it runs; `None` for a drop, which puts nothing anywhere.
    pub(crate) fn target(&self) -> Option<Target> {
        (self.kind != Kind::Drop).then(|| Target {
            level: self.output_level,
            range: self.span().to_range(),
        })
    }

    /// Bytes of the inputs.
    pub(crate) fn input_bytes(&self) -> u64 {
        self.inputs.iter().map(|(_, table)| table.info.size).sum()
    }

    /// Marks the inputs as being compacted, until this value is dropped. To be called under the lock
    /// under which it was picked.
    pub(crate) fn claim(&mut self) {
        assert!(!self.claimed, "a compaction is claimed once");
        for (_, table) in &self.inputs {
            assert!(
                !table.is_being_compacted(),
                "{table:?} is input of two compactions"
            );
            table.set_being_compacted(true);
        }
        self.claimed = true;
    }

    /// The change of `family`'s tables, where `outputs` are the tables made (none unless it is a merge).
    pub(crate) fn edit(&self, family: FamilyId, outputs: Vec<TableRecord>) -> VersionEdit {
        let removed = self.inputs.iter().map(|(level, table)| TableRemoved {
            family,
            level: *level,
            number: table.number,
        });
        let moved = self.inputs.iter().map(|(_, table)| table.record());
        let tables = match self.kind {
            Kind::Merge => outputs,
            Kind::Move => moved.collect(),
            Kind::Drop => Vec::new(),
        };
        let level = self.output_level;
        VersionEdit {
            removed: removed.collect(),
            added: tables
                .into_iter()
                .map(|table| TableAdded {
                    family,
                    level,
                    table,
                })
                .collect(),
            ..VersionEdit::default()
        }
    }

    /// Tables of the level below the outputs that overlap them.
    pub(crate) fn grandparents(&self) -> &[Arc<TableMeta>] {
        if self.output_level + 1 >= crate::options::LEVELS {
            return &[];
        }
        self.version.run(self.output_level + 1, self.span())
    }
}

impl Compaction {
    /// Takes the marks off the inputs again.
    pub(crate) fn release(&mut self) {
        if std::mem::take(&mut self.claimed) {
            for (_, table) in &self.inputs {
                table.set_being_compacted(false);
            }
        }
    }
}

impl Drop for Compaction {
    fn drop(&mut self) {
        self.release();
    }
}

/// Entries and range tombstones that a rewrite at the bottom may leave out once no snapshot needs them.
fn garbage(table: &TableMeta) -> u64 {
    table
        .info
        .deletes
        .saturating_add(table.info.tombstones)
        .saturating_add(table.hidden)
}

/// True where no level below `level` has a table that overlaps `span`.
fn is_bottom(version: &Version, level: usize, span: KeySpan<'_>) -> bool {
    (level + 1..crate::options::LEVELS).all(|below| !version.overlaps(below, span))
}

/// True where every reader, now and later, sees all of the table: its deletes and range tombstones need
/// not be kept for what lies beside them.
fn is_settled(table: &TableMeta, boundaries: &[SequenceNumber]) -> bool {
    boundaries
        .first()
        .is_some_and(|&oldest| table.max_seq() <= oldest)
}

/// Bytes of the next level that one output may overlap, so that its own compaction stays small.
fn overlap_limit(options: &CfOptions) -> u64 {
    options.table_bytes.saturating_mul(10)
}
