//! Which tables a column family consists of: `Version`, and the rooms of this folder.
//!
//! A version is immutable. Two rules hold for the tables of one family, and reads stand on them:
//! 1. for one user key, what a level says is newer than what the levels below say; in L0 the tables
//!    come newest first, and tables that overlap there have sequence numbers that do not;
//! 2. `[smallest, largest]` of a table covers its entries and its range tombstones, and the tables of
//!    a level below L0 are in key order and do not overlap (an exclusive end may touch the next start).
//!
//! `check` sees all of this but rule 1 across levels, which no list of tables can show.

mod edit;
mod meta;
mod span;
mod state;
pub mod testing;

pub(crate) use edit::{
    FamilyCreated, LogStart, TableAdded, TableRecord, TableRemoved, VersionEdit,
};
pub(crate) use meta::{ObsoleteTables, TableMeta, TableOpener};
pub(crate) use span::{KeyRange, KeySpan};
pub(crate) use state::ManifestState;

use std::{cmp::Reverse, collections::HashSet, fmt, sync::Arc};

use crate::{
    key::{SequenceNumber, key_prefix},
    options::LEVELS,
};

/// The tables of one column family at one moment.
#[derive(Clone, Default)]
pub(crate) struct Version {
    levels: [Arc<[Arc<TableMeta>]>; LEVELS],
    bytes: [u64; LEVELS],
    bounds: [Arc<Bounds>; LEVELS],
}

/// What readers ask of the tables of a level, without a look at each.
#[derive(Default)]
pub(crate) struct Bounds {
    /// [`key_prefix`] of the smallest and the largest key of each table, in the order of the level.
    smallest: Box<[u64]>,
    largest: Box<[u64]>,
    /// No entry of the level has a larger number.
    max_seq: SequenceNumber,
    /// A table has range tombstones.
    has_tombstones: bool,
}

impl Bounds {
    fn of(tables: &[Arc<TableMeta>]) -> Self {
        Self {
            smallest: tables
                .iter()
                .map(|table| key_prefix(&table.info.smallest))
                .collect(),
            largest: tables
                .iter()
                .map(|table| key_prefix(&table.info.largest))
                .collect(),
            max_seq: tables
                .iter()
                .map(|table| table.max_seq())
                .max()
                .unwrap_or_default(),
            has_tombstones: tables.iter().any(|table| table.info.tombstones > 0),
        }
    }

    /// Number of tables of a level below L0 that end before `user_key`; `tables` are those of the level.
    pub(crate) fn ending_before(&self, tables: &[Arc<TableMeta>], user_key: &[u8]) -> usize {
        let wanted = key_prefix(user_key);
        let from = self.largest.partition_point(|&prefix| prefix < wanted);
        let equal = self.largest[from..].partition_point(|&prefix| prefix == wanted);
        let same = &tables[from..from + equal];
        from + same.partition_point(|table| table.span().ends_before(user_key))
    }

    /// Number of tables of a level below L0 that start at or before `user_key`; `tables` are those of the level.
    pub(crate) fn starting_by(&self, tables: &[Arc<TableMeta>], user_key: &[u8]) -> usize {
        let wanted = key_prefix(user_key);
        let from = self.smallest.partition_point(|&prefix| prefix < wanted);
        let equal = self.smallest[from..].partition_point(|&prefix| prefix == wanted);
        let same = &tables[from..from + equal];
        from + same.partition_point(|table| table.info.smallest.as_slice() <= user_key)
    }

    /// True where the table at `at`, which is `table`, may hold `user_key`, whose prefix is `wanted`.
    fn holds(&self, at: usize, table: &TableMeta, user_key: &[u8], wanted: u64) -> bool {
        let (smallest, largest) = (self.smallest[at], self.largest[at]);
        if smallest < wanted && wanted < largest {
            return true;
        }
        smallest <= wanted && wanted <= largest && table.span().contains(user_key)
    }
}

impl Version {
    /// Tables of a level: L0 newest first, the others in key order.
    pub(crate) fn level(&self, level: usize) -> &[Arc<TableMeta>] {
        &self.levels[level]
    }

    /// Bytes of the tables of a level.
    pub(crate) fn level_bytes(&self, level: usize) -> u64 {
        self.bytes[level]
    }

    /// Every table with its level, from the top.
    pub(crate) fn tables(&self) -> impl Iterator<Item = (usize, &Arc<TableMeta>)> {
        self.levels
            .iter()
            .enumerate()
            .flat_map(|(level, tables)| tables.iter().map(move |t| (level, t)))
    }

    /// The one table of a level below L0 whose range holds `user_key`.
    #[inline]
    pub(crate) fn find(&self, level: usize, user_key: &[u8]) -> Option<&Arc<TableMeta>> {
        debug_assert!(level > 0, "tables of L0 overlap");
        let (tables, bounds) = (&self.levels[level], &self.bounds[level]);
        if tables.is_empty() {
            return None;
        }
        let at = bounds.ending_before(tables, user_key);
        let wanted = key_prefix(user_key);
        tables
            .get(at)
            .filter(|table| bounds.holds(at, table, user_key, wanted))
    }

    /// The tables of L0 whose range holds `user_key`, newest first.
    pub(crate) fn newest_with(&self, user_key: &[u8]) -> impl Iterator<Item = &Arc<TableMeta>> {
        let (wanted, bounds) = (key_prefix(user_key), &self.bounds[0]);
        let tables = self.levels[0].iter().enumerate();
        let holds = move |(at, table): &(usize, &Arc<TableMeta>)| {
            bounds.holds(*at, table, user_key, wanted)
        };
        tables.filter(holds).map(|(_, table)| table)
    }

    /// No entry of a level has a larger number.
    pub(crate) fn level_max_seq(&self, level: usize) -> SequenceNumber {
        self.bounds[level].max_seq
    }

    /// True where a table of a level has range tombstones.
    pub(crate) fn level_has_tombstones(&self, level: usize) -> bool {
        self.bounds[level].has_tombstones
    }

    /// The tables of a level and what is known of their bounds, to keep.
    pub(crate) fn share_level(&self, level: usize) -> (Arc<[Arc<TableMeta>]>, Arc<Bounds>) {
        (
            Arc::clone(&self.levels[level]),
            Arc::clone(&self.bounds[level]),
        )
    }

    /// Where in a level below L0 the tables stand that overlap `span`.
    pub(crate) fn run_range(&self, level: usize, span: KeySpan<'_>) -> std::ops::Range<usize> {
        debug_assert!(level > 0, "tables of L0 overlap");
        let (tables, bounds) = (&self.levels[level], &self.bounds[level]);
        let from = if span.start.is_empty() {
            0
        } else {
            bounds.ending_before(tables, span.start)
        };
        let len = if span.end == std::ops::Bound::Unbounded {
            tables.len() - from
        } else {
            tables[from..].partition_point(|table| !span.ends_before(&table.info.smallest))
        };
        from..from + len
    }

    /// The tables of a level below L0 that overlap `span`: neighbours, in key order.
    pub(crate) fn run(&self, level: usize, span: KeySpan<'_>) -> &[Arc<TableMeta>] {
        &self.levels[level][self.run_range(level, span)]
    }

    /// The tables of any level that overlap `span`, in the order of the level.
    pub(crate) fn tables_overlapping(
        &self,
        level: usize,
        span: KeySpan<'_>,
    ) -> Vec<Arc<TableMeta>> {
        if level > 0 {
            return self.run(level, span).to_vec();
        }
        self.level(0)
            .iter()
            .filter(|table| table.span().overlaps(span))
            .cloned()
            .collect()
    }

    /// True where a table of `level` overlaps `span`.
    pub(crate) fn overlaps(&self, level: usize, span: KeySpan<'_>) -> bool {
        if level > 0 {
            return !self.run(level, span).is_empty();
        }
        self.level(0)
            .iter()
            .any(|table| table.span().overlaps(span))
    }

    /// This version without the tables `removed` (level, number) and with `added` (level, table).
    ///
    /// # Errors
    ///
    /// The rule that the result would break.
    pub(crate) fn with_changes(
        &self,
        added: &[(usize, Arc<TableMeta>)],
        removed: &[(usize, u64)],
    ) -> Result<Self, String> {
        let mut result = self.clone();
        for level in 0..LEVELS {
            let gone: HashSet<u64> = removed
                .iter()
                .filter(|&&(l, _)| l == level)
                .map(|&(_, number)| number)
                .collect();
            let mut fresh: Vec<_> = added
                .iter()
                .filter(|(l, _)| *l == level)
                .map(|(_, table)| Arc::clone(table))
                .collect();
            if gone.is_empty() && fresh.is_empty() {
                continue;
            }
            let old = &self.levels[level];
            let mut tables: Vec<_> = old
                .iter()
                .filter(|table| !gone.contains(&table.number))
                .cloned()
                .collect();
            if old.len() - tables.len() != gone.len() {
                let known: HashSet<u64> = old.iter().map(|table| table.number).collect();
                let missing: Vec<_> = gone.difference(&known).collect();
                return Err(format!(
                    "removed tables {missing:?} are not in level {level}"
                ));
            }
            tables.append(&mut fresh);
            if level == 0 {
                tables.sort_by_key(|table| Reverse((table.max_seq(), table.number)));
            } else {
                tables.sort_by(|a, b| a.info.smallest.cmp(&b.info.smallest));
            }
            // Sizes may come from a damaged manifest.
            result.bytes[level] = tables
                .iter()
                .fold(0, |sum: u64, table| sum.saturating_add(table.info.size));
            result.bounds[level] = Arc::new(Bounds::of(&tables));
            result.levels[level] = tables.into();
            result.check_level(level)?;
        }
        Ok(result)
    }

    /// Tests the rules of this module, which [`with_changes`](Self::with_changes) keeps one level at a time.
    ///
    /// # Errors
    ///
    /// The rule that is broken, and by which tables.
    #[cfg(test)]
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut seen = std::collections::BTreeMap::new();
        for (level, table) in self.tables() {
            if let Some(other) = seen.insert(table.number, level) {
                return Err(format!(
                    "table {} is in levels {other} and {level}",
                    table.number
                ));
            }
        }
        (0..LEVELS).try_for_each(|level| self.check_level(level))
    }

    fn check_level(&self, level: usize) -> Result<(), String> {
        let tables = self.level(level);
        if level == 0 {
            return check_l0(tables);
        }
        for pair in tables.windows(2) {
            if !pair[0].span().ends_before(&pair[1].info.smallest) {
                return Err(format!(
                    "tables {} and {} of level {level} overlap",
                    pair[0].number, pair[1].number
                ));
            }
        }
        Ok(())
    }
}

fn check_l0(tables: &[Arc<TableMeta>]) -> Result<(), String> {
    for (at, newer) in tables.iter().enumerate() {
        for older in &tables[at + 1..] {
            if newer.max_seq() < older.max_seq() {
                return Err(format!(
                    "table {} of L0 stands before a newer one",
                    newer.number
                ));
            }
            if newer.min_seq() <= older.max_seq() && newer.span().overlaps(older.span()) {
                return Err(format!(
                    "tables {} and {} of L0 overlap in keys and in sequence numbers",
                    newer.number, older.number
                ));
            }
        }
    }
    Ok(())
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (level, tables) in self
            .levels
            .iter()
            .enumerate()
            .filter(|(_, t)| !t.is_empty())
        {
            write!(f, "L{level}:")?;
            for table in tables.iter() {
                write!(f, " {table:?}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests;
