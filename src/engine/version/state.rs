//! `ManifestState`: what the records of a manifest add up to.
//!
//! It serves both directions: replaying a manifest at open (a refused edit is then corruption of the
//! file), and keeping the live state while edits are written (a refused edit is then our own mistake).

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use super::{FamilyCreated, LogStart, TableAdded, TableMeta, TableRemoved, Version, VersionEdit};
use crate::{batch::FamilyId, key::SequenceNumber, options::CfOptions, values::ValueFiles};

/// One column family as the manifest knows it.
#[derive(Clone, Debug)]
pub(crate) struct FamilyState {
    pub(crate) name: String,
    pub(crate) options: CfOptions,
    /// Every write of the family up to this number is in tables.
    pub(crate) flushed_seq: SequenceNumber,
    pub(crate) version: Arc<Version>,
}

/// The state of a database after the edits applied so far. Clones share the tables.
#[derive(Clone, Debug, Default)]
pub(crate) struct ManifestState {
    /// The database's random id; `None` until the first edit.
    pub(crate) db_id: Option<u64>,
    /// Above every file number given out.
    pub(crate) next_file_number: u64,
    /// Not below any sequence number in the tables.
    pub(crate) last_seq: SequenceNumber,
    /// Where a recovery starts; `None` until the first edit.
    pub(crate) log: Option<LogStart>,
    /// Above every family id given out.
    pub(crate) next_family_id: FamilyId,
    /// Format version of the manifest: what stands in it, or has stood, only engines that know that version can read.
    pub(crate) format: u32,
    /// The value files that tables need.
    pub(crate) values: Arc<ValueFiles>,
    families: BTreeMap<FamilyId, Arc<FamilyState>>,
    /// Numbers of all tables, of all families.
    numbers: HashSet<u64>,
}

impl ManifestState {
    /// The families that exist, by id.
    pub(crate) fn families(&self) -> impl Iterator<Item = (FamilyId, &Arc<FamilyState>)> {
        self.families.iter().map(|(&id, family)| (id, family))
    }

    /// One family; `None` when it does not exist or was dropped.
    pub(crate) fn family(&self, id: FamilyId) -> Option<&Arc<FamilyState>> {
        self.families.get(&id)
    }

    /// The newest time behind a value of any table.
    pub(crate) fn newest_time(&self) -> Option<u64> {
        let families = self.families.values();
        let tables = families.flat_map(|family| family.version.tables());
        let times = tables.filter_map(|(_, table)| table.info.times);
        times.map(|(_, newest)| newest).max()
    }

    /// True for the number of a table that some family has.
    pub(crate) fn has_table(&self, number: u64) -> bool {
        self.numbers.contains(&number)
    }

    /// Applies `edit` whole, or not at all. Answers the tables that no family has any more; the
    /// caller marks them obsolete once the edit is durable.
    ///
    /// # Errors
    ///
    /// Why the edit does not fit this state.
    pub(crate) fn apply(&mut self, edit: &VersionEdit) -> Result<Vec<Arc<TableMeta>>, String> {
        let mut next = self.with_numbers(edit)?;
        let mut gone = Vec::new();
        for &id in &edit.dropped {
            let family = next.families.remove(&id).ok_or_else(|| unknown(id))?;
            gone.extend(family.version.tables().map(|(_, table)| Arc::clone(table)));
        }
        for created in &edit.created {
            next.create(created, self.next_family_id)?;
        }
        for (id, options) in &edit.options {
            let family = next.family_mut(*id)?;
            if family.options.logged != options.logged
                || family.options.append_prefix_bytes != options.append_prefix_bytes
                || family.options.ttl.is_some() != options.ttl.is_some()
            {
                return Err(format!("family {id} cannot change its class"));
            }
            let operator = |options: &CfOptions| options.merge_operator.clone();
            if family.options.merge_operator.is_some()
                && operator(&family.options) != operator(options)
            {
                return Err(format!("family {id} cannot change its merge operator"));
            }
            family.options = options.clone();
        }
        for &(id, seq) in &edit.flushed {
            let last_seq = next.last_seq;
            let family = next.family_mut(id)?;
            if family.options.append_prefix_bytes.is_some() && seq > SequenceNumber::ZERO {
                return Err(format!("append family {id} is said to be flushed"));
            }
            if seq < family.flushed_seq || seq > last_seq {
                return Err(format!(
                    "family {id} flushed up to {seq:?}, was {:?}, last is {last_seq:?}",
                    family.flushed_seq
                ));
            }
            family.flushed_seq = seq;
        }
        for id in touched(edit) {
            gone.append(&mut next.change_tables(id, edit)?);
        }
        // The set is moved, not copied: it has a number for every table of the database.
        next.numbers = std::mem::take(&mut self.numbers);
        if let Err(reason) = next.renumber(edit, &gone) {
            self.numbers = next.numbers;
            return Err(reason);
        }
        *self = next;
        Ok(gone)
    }

    /// The edit that makes this state out of nothing: the first record of a manifest.
    pub(crate) fn to_edit(&self) -> VersionEdit {
        let mut edit = VersionEdit {
            db_id: self.db_id,
            next_file_number: Some(self.next_file_number),
            last_seq: Some(self.last_seq),
            log: self.log,
            next_family_id: Some(self.next_family_id),
            ..VersionEdit::default()
        };
        for (id, family) in self.families() {
            edit.created.push(FamilyCreated {
                id,
                name: family.name.clone(),
                options: family.options.clone(),
            });
            edit.flushed.push((id, family.flushed_seq));
            edit.added
                .extend(family.version.tables().map(|(level, table)| TableAdded {
                    family: id,
                    level,
                    table: table.record(),
                }));
        }
        edit
    }

    /// This state with the edit's plain numbers, which only ever grow, and without `numbers`.
    fn with_numbers(&self, edit: &VersionEdit) -> Result<Self, String> {
        if self.db_id.is_some() == edit.db_id.is_some() {
            return Err("the database id stands in the first edit, and only there".into());
        }
        if self.db_id.is_none()
            && (edit.next_file_number.is_none()
                || edit.last_seq.is_none()
                || edit.log.is_none()
                || edit.next_family_id.is_none())
        {
            return Err("the first edit does not hold the whole state".into());
        }
        let next = Self {
            db_id: edit.db_id.or(self.db_id),
            next_file_number: edit.next_file_number.unwrap_or(self.next_file_number),
            last_seq: edit.last_seq.unwrap_or(self.last_seq),
            log: edit.log.or(self.log),
            next_family_id: edit.next_family_id.unwrap_or(self.next_family_id),
            format: self.format,
            values: Arc::clone(&self.values),
            families: self.families.clone(),
            numbers: HashSet::new(),
        };
        let segment = |state: &Self| state.log.map_or(0, |log| log.segment);
        for (what, old, new) in [
            (
                "next file number",
                self.next_file_number,
                next.next_file_number,
            ),
            ("last sequence number", self.last_seq.0, next.last_seq.0),
            ("oldest log segment", segment(self), segment(&next)),
            (
                "next family id",
                u64::from(self.next_family_id),
                u64::from(next.next_family_id),
            ),
        ] {
            if new < old {
                return Err(format!("{what} goes back from {old} to {new}"));
            }
        }
        if segment(&next) >= next.next_file_number {
            return Err(format!(
                "log segment {} was never given out",
                segment(&next)
            ));
        }
        Ok(next)
    }

    /// Adds a family; ids below `first_free` were given out by earlier edits.
    fn create(&mut self, created: &FamilyCreated, first_free: FamilyId) -> Result<(), String> {
        let FamilyCreated { id, name, options } = created;
        if *id < first_free || self.families.contains_key(id) {
            return Err(format!("family id {id} is used again"));
        }
        if *id >= self.next_family_id {
            return Err(format!("family id {id} is not below the next one"));
        }
        if self.families.values().any(|family| family.name == *name) {
            return Err(format!("two families are named {name:?}"));
        }
        let family = FamilyState {
            name: name.clone(),
            options: options.clone(),
            flushed_seq: SequenceNumber::ZERO,
            version: Arc::default(),
        };
        self.families.insert(*id, Arc::new(family));
        Ok(())
    }

    /// Gives family `id` the edit's tables, and answers those it has no more.
    fn change_tables(
        &mut self,
        id: FamilyId,
        edit: &VersionEdit,
    ) -> Result<Vec<Arc<TableMeta>>, String> {
        let last_seq = self.last_seq;
        let values = Arc::clone(&self.values);
        let family = self.family_mut(id)?;
        let removed: Vec<(usize, u64)> = edit
            .removed
            .iter()
            .filter(|table| table.family == id)
            .map(|&TableRemoved { level, number, .. }| (level, number))
            .collect();
        let mut leaving = BTreeMap::new();
        for &(level, number) in &removed {
            let table = family
                .version
                .level(level)
                .iter()
                .find(|table| table.number == number);
            let table = table.ok_or_else(|| {
                format!("table {number}, removed from level {level} of family {id}, is not there")
            })?;
            if leaving.insert(number, Arc::clone(table)).is_some() {
                return Err(format!("table {number} is removed twice"));
            }
        }
        let mut added = Vec::new();
        for TableAdded { level, table, .. } in edit.added.iter().filter(|t| t.family == id) {
            let meta = match leaving.remove(&table.number) {
                Some(moved) if moved.record() == *table => moved,
                Some(_) => return Err(format!("table {} changes as it moves", table.number)),
                None => Arc::new(TableMeta::of(table.clone(), &values)?),
            };
            if meta.max_seq() > last_seq {
                return Err(format!("table {} is newer than {last_seq:?}", table.number));
            }
            added.push((*level, meta));
        }
        family.version = Arc::new(
            family
                .version
                .with_changes(&added, &removed)
                .map_err(|reason| format!("family {id}: {reason}"))?,
        );
        Ok(leaving.into_values().collect())
    }

    /// Brings `numbers` up to date; on error it is as before.
    fn renumber(&mut self, edit: &VersionEdit, gone: &[Arc<TableMeta>]) -> Result<(), String> {
        let moved: HashSet<_> = edit.removed.iter().map(|t| (t.family, t.number)).collect();
        let mut fresh = HashSet::new();
        for TableAdded { family, table, .. } in &edit.added {
            let number = table.number;
            if number >= self.next_file_number {
                return Err(format!("table number {number} was never given out"));
            }
            if table
                .values
                .iter()
                .any(|used| used.file.number >= self.next_file_number)
            {
                return Err(format!(
                    "table {number} points into a file that was never given out"
                ));
            }
            let in_use = self.numbers.contains(&number) && !moved.contains(&(*family, number));
            if in_use || !fresh.insert(number) {
                return Err(format!("table {number} is added twice"));
            }
        }
        for table in gone {
            self.numbers.remove(&table.number);
        }
        self.numbers.extend(fresh);
        Ok(())
    }

    fn family_mut(&mut self, id: FamilyId) -> Result<&mut FamilyState, String> {
        self.families
            .get_mut(&id)
            .map(Arc::make_mut)
            .ok_or_else(|| unknown(id))
    }
}

fn unknown(id: FamilyId) -> String {
    format!("family {id} does not exist")
}

/// Families whose tables the edit changes, ascending.
fn touched(edit: &VersionEdit) -> Vec<FamilyId> {
    let removed = edit.removed.iter().map(|table| table.family);
    let mut ids: Vec<_> = removed
        .chain(edit.added.iter().map(|table| table.family))
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
