//! `Layout`: which tables a family has and how they lie to each other, for a picture of its levels.
//!
//! Promises: one version, taken without waiting for a disk; no key is in it: where a table begins and ends is told by its
//! rank among the ends of all tables shown.

use std::collections::BTreeMap;

use crate::{
    column_family::ColumnFamily,
    db::{Db, DbInner},
    error::Result,
};

/// One table of a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablePlace {
    /// Number of its file.
    pub number: u64,
    /// Its level.
    pub level: usize,
    /// Bytes of the file.
    pub bytes: u64,
    /// Entries in it.
    pub entries: u64,
    /// Rank of its smallest key among the smallest and largest keys of all tables of the layout; equal keys have one rank.
    pub first: usize,
    /// Rank of its largest key.
    pub last: usize,
    /// A compaction reads it now.
    pub compacting: bool,
}

/// The tables of a family at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// From the top: L0 newest first, other levels in key order.
    pub tables: Vec<TablePlace>,
    /// Tables that were too many to be told.
    pub left_out: usize,
    /// Ranks there are: each is below this.
    pub ranks: usize,
    /// The level that each running compaction, or ingest, puts tables into.
    pub running: Vec<usize>,
}

impl Db {
    /// Which tables `cf` has, at most `most` of them, from the top.
    ///
    /// # Errors
    ///
    /// `NoSuchColumnFamily` for a family that was dropped, or is of another database.
    pub fn layout(&self, cf: &ColumnFamily, most: usize) -> Result<Layout> {
        self.inner.check_family(cf)?;
        Ok(self.inner.layout(cf, most))
    }
}

impl DbInner {
    fn layout(&self, cf: &ColumnFamily, most: usize) -> Layout {
        // What ends in between is in the version, and still told to run: the other way round it would be in neither.
        let running = self.running_into(cf.id());
        let state = cf.inner.peek();
        let all = state.version.tables().count();
        let shown = || state.version.tables().take(most);
        let mut ranks: BTreeMap<&[u8], usize> = BTreeMap::new();
        for (_, table) in shown() {
            ranks.insert(&table.info.smallest, 0);
            ranks.insert(&table.info.largest, 0);
        }
        for (at, rank) in ranks.values_mut().enumerate() {
            *rank = at;
        }
        let place =
            |(level, table): (usize, &std::sync::Arc<crate::version::TableMeta>)| TablePlace {
                number: table.number,
                level,
                bytes: table.info.size,
                entries: table.info.entries,
                first: ranks[table.info.smallest.as_slice()],
                last: ranks[table.info.largest.as_slice()],
                compacting: table.is_being_compacted(),
            };
        Layout {
            tables: shown().map(place).collect(),
            left_out: all.saturating_sub(most),
            ranks: ranks.len(),
            running,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{CfOptions, Db, Options, WriteOptions};

    #[test]
    fn tables_are_told_with_ranks_in_place_of_keys() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(dir.path(), Options::default()).unwrap();
        let cf = db.open_cf("a", CfOptions::default()).unwrap();
        assert_eq!(db.layout(&cf, 10).unwrap(), super::Layout::default());
        for keys in [["b", "d"], ["a", "b"], ["c", "e"]] {
            for key in keys {
                db.put(&cf, key.as_bytes(), b"v", WriteOptions::NO_SYNC)
                    .unwrap();
            }
            db.flush(&cf).unwrap();
        }
        let layout = db.layout(&cf, 10).unwrap();
        let spans: Vec<_> = layout
            .tables
            .iter()
            .map(|one| (one.first, one.last))
            .collect();
        assert_eq!(spans, [(2, 4), (0, 1), (1, 3)], "newest first");
        assert!(
            layout
                .tables
                .iter()
                .all(|one| one.level == 0 && one.entries == 2 && one.bytes > 0)
        );
        assert_eq!((layout.ranks, layout.left_out), (5, 0));
        let few = db.layout(&cf, 2).unwrap();
        assert_eq!((few.tables.len(), few.left_out, few.ranks), (2, 1, 4));
        db.compact_range(&cf, None, None).unwrap();
        let after = db.layout(&cf, 10).unwrap();
        assert_eq!(after.tables.len(), 1);
        assert_eq!((after.tables[0].entries, after.running.len()), (5, 0));
        db.drop_cf(&cf).unwrap();
        assert!(db.layout(&cf, 10).is_err());
    }
}
