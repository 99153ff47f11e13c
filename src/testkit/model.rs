//! `Model`: what a database should hold, as plainly as it can be said: one `BTreeMap` a column family.
//!
//! A clone is a snapshot, and cheap: maps are shared until they change. `History` keeps the order of writes, so
//! that the state after any of them can be asked for.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

/// Number of a column family; a family created again under an old name has a new one.
pub type FamilyId = u32;
/// A value, shared between all states that hold it.
pub type Value = Arc<[u8]>;
/// The entries of a family.
pub type Map = BTreeMap<Vec<u8>, Value>;

/// One operation of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Sets a key.
    Put(FamilyId, Vec<u8>, Value),
    /// Appends to the value of a key, behind a comma where there is one.
    Merge(FamilyId, Vec<u8>, Value),
    /// Removes a key.
    Delete(FamilyId, Vec<u8>),
    /// Removes the keys from the first to before the second.
    DeleteRange(FamilyId, Vec<u8>, Vec<u8>),
}

/// A column family.
#[derive(Clone, Debug)]
pub struct ModelFamily {
    /// Its name.
    pub name: String,
    /// Its class.
    pub logged: bool,
    /// Its entries.
    pub map: Arc<Map>,
}

/// All column families at one moment.
#[derive(Clone, Debug, Default)]
pub struct Model {
    families: BTreeMap<FamilyId, ModelFamily>,
}

impl Model {
    /// No families.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an empty family.
    pub fn create(&mut self, id: FamilyId, name: &str, logged: bool) {
        let family = ModelFamily {
            name: name.to_owned(),
            logged,
            map: Arc::default(),
        };
        let before = self.families.insert(id, family);
        assert!(before.is_none(), "family {id} was created twice");
    }

    /// Removes a family with all it holds.
    pub fn drop_family(&mut self, id: FamilyId) {
        let gone = self.families.remove(&id);
        assert!(gone.is_some(), "family {id} was dropped and is not there");
    }

    /// The families, by id.
    pub fn families(&self) -> impl Iterator<Item = (FamilyId, &ModelFamily)> {
        self.families.iter().map(|(id, family)| (*id, family))
    }

    /// The entries of a family; `None` when there is none with this id.
    #[must_use]
    pub fn map(&self, id: FamilyId) -> Option<&Arc<Map>> {
        self.families.get(&id).map(|family| &family.map)
    }

    /// Replaces the entries of a family, if it is there.
    pub fn set_map(&mut self, id: FamilyId, map: Arc<Map>) {
        if let Some(family) = self.families.get_mut(&id) {
            family.map = map;
        }
    }

    /// Applies one operation. One on a family that is not there does nothing: it was dropped meanwhile.
    pub fn apply(&mut self, change: &Change) {
        let (Change::Put(id, ..)
        | Change::Merge(id, ..)
        | Change::Delete(id, _)
        | Change::DeleteRange(id, ..)) = change;
        let Some(family) = self.families.get_mut(id) else {
            return;
        };
        match change {
            Change::Put(_, key, value) => {
                Arc::make_mut(&mut family.map).insert(key.clone(), Arc::clone(value));
            }
            Change::Merge(_, key, operand) => {
                let map = Arc::make_mut(&mut family.map);
                let value = match map.get(key) {
                    Some(before) => [before, &b","[..], operand].concat().into(),
                    None => Arc::clone(operand),
                };
                map.insert(key.clone(), value);
            }
            Change::Delete(_, key) => {
                if family.map.contains_key(key) {
                    Arc::make_mut(&mut family.map).remove(key);
                }
            }
            Change::DeleteRange(_, start, end) => {
                if start >= end {
                    return;
                }
                let doomed: Vec<Vec<u8>> = family
                    .map
                    .range(start.clone()..end.clone())
                    .map(|(key, _)| key.clone())
                    .collect();
                if !doomed.is_empty() {
                    let map = Arc::make_mut(&mut family.map);
                    for key in doomed {
                        map.remove(&key);
                    }
                }
            }
        }
    }
}

/// The order of writes since some state.
#[derive(Clone, Debug, Default)]
pub struct History {
    base: Model,
    batches: VecDeque<(u64, Vec<Change>)>,
}

impl History {
    /// Nothing since `base`.
    #[must_use]
    pub fn new(base: Model) -> Self {
        Self {
            base,
            batches: VecDeque::new(),
        }
    }

    /// Appends a batch whose last operation has the sequence number `seq`.
    pub fn push(&mut self, seq: u64, changes: Vec<Change>) {
        let last = self.batches.back().map_or(0, |(seq, _)| *seq);
        assert!(
            last < seq,
            "batches have their places in order: {seq} after {last}"
        );
        self.batches.push_back((seq, changes));
    }

    /// The state with every batch up to `seq` and none after it.
    #[must_use]
    pub fn at(&self, seq: u64) -> Model {
        let mut model = self.base.clone();
        for (_, changes) in self.batches.iter().take_while(|(last, _)| *last <= seq) {
            for change in changes {
                model.apply(change);
            }
        }
        model
    }

    /// Sequence number of the last batch up to `seq`; `None` when that is in the base.
    #[must_use]
    pub fn last_up_to(&self, seq: u64) -> Option<u64> {
        let all = self.batches.iter().map(|(last, _)| *last);
        all.take_while(|last| *last <= seq).last()
    }

    /// The batches after `seq`, in order.
    pub fn after(&self, seq: u64) -> impl Iterator<Item = &[Change]> {
        let later = self.batches.iter().filter(move |(last, _)| *last > seq);
        later.map(|(_, changes)| changes.as_slice())
    }

    /// Makes the state at `seq` the base.
    pub fn forget_before(&mut self, seq: u64) {
        while self.batches.front().is_some_and(|(last, _)| *last <= seq) {
            for change in self.batches.pop_front().map_or(Vec::new(), |(_, c)| c) {
                self.base.apply(&change);
            }
        }
    }

    /// Adds an empty family: to the base, because families come and go beside the order of writes.
    pub fn create(&mut self, id: FamilyId, name: &str, logged: bool) {
        self.base.create(id, name, logged);
    }

    /// Removes a family, from now on and before.
    pub fn drop_family(&mut self, id: FamilyId) {
        self.base.drop_family(id);
    }

    /// Number of batches since the base.
    #[must_use]
    pub fn len(&self) -> usize {
        self.batches.len()
    }

    /// True without batches since the base.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, value: &str) -> Change {
        Change::Put(1, key.into(), value.as_bytes().into())
    }

    fn keys(model: &Model) -> Vec<&[u8]> {
        let map = model.map(1).expect("created");
        map.keys().map(Vec::as_slice).collect()
    }

    #[test]
    fn a_clone_does_not_see_later_changes() {
        let mut model = Model::new();
        model.create(1, "a", true);
        model.apply(&put("k", "1"));
        let before = model.clone();
        model.apply(&Change::Delete(1, b"k".to_vec()));
        assert_eq!(keys(&before), [b"k"]);
        assert!(keys(&model).is_empty());
    }

    #[test]
    fn a_range_delete_takes_its_start_and_spares_its_end() {
        let mut model = Model::new();
        model.create(1, "a", true);
        for key in ["a", "b", "c"] {
            model.apply(&put(key, ""));
        }
        model.apply(&Change::DeleteRange(1, b"a".to_vec(), b"c".to_vec()));
        assert_eq!(keys(&model), [b"c"]);
        model.apply(&Change::DeleteRange(1, b"z".to_vec(), b"a".to_vec()));
        assert_eq!(keys(&model), [b"c"]);
    }

    #[test]
    fn history_answers_the_state_after_any_batch_and_forgets_none_that_is_asked_for() {
        let mut base = Model::new();
        base.create(1, "a", true);
        let mut history = History::new(base);
        history.push(3, vec![put("a", ""), put("b", "")]);
        history.push(5, vec![put("c", "")]);
        assert!(keys(&history.at(2)).is_empty());
        assert_eq!(keys(&history.at(4)), [b"a", b"b"]);
        assert_eq!(history.after(3).count(), 1);
        assert_eq!(history.last_up_to(4), Some(3));
        assert_eq!(history.last_up_to(2), None);
        history.forget_before(4);
        assert_eq!(history.len(), 1);
        assert_eq!(keys(&history.at(5)), [b"a", b"b", b"c"]);
    }
}
