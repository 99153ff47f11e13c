//! Operations that read.

use std::sync::Arc;

use basalt_engine::{DbIter, ReadOptions};
use basalt_testkit::{FamilyId, Map, ModelCursor, Rng};

use crate::{choose::Keys, world::World};

/// An iterator with its model, and what has happened since it was made.
pub(crate) struct LiveIter {
    pub(crate) iter: DbIter,
    pub(crate) cursor: ModelCursor,
    pub(crate) family: FamilyId,
    pub(crate) family_dropped: bool,
    /// Flushes and compactions at its creation.
    born: (u64, u64),
}

impl LiveIter {
    /// Moves both and compares where they stand.
    pub(crate) fn step(&mut self, rng: &mut Rng, keys: &Keys) {
        let Self { iter, cursor, .. } = self;
        let moved = match rng.below(16) {
            0 => {
                cursor.seek_to_first();
                iter.seek_to_first()
            }
            1 => {
                cursor.seek_to_last();
                iter.seek_to_last()
            }
            2 | 3 => {
                let key = keys.any(rng);
                cursor.seek(&key);
                iter.seek(&key)
            }
            4 | 5 => {
                let key = keys.any(rng);
                cursor.seek_for_prev(&key);
                iter.seek_for_prev(&key)
            }
            6..=11 => {
                cursor.next();
                iter.next()
            }
            _ => {
                cursor.prev();
                iter.prev()
            }
        };
        moved.expect("a good disk");
        check_at(iter, cursor, "a living iterator");
    }
}

/// Compares where an iterator stands with where it should.
pub(crate) fn check_at(iter: &DbIter, cursor: &ModelCursor, what: &str) {
    let found = iter.valid().then(|| (iter.key(), iter.value()));
    let wanted = cursor.entry().map(|(key, value)| (key, &**value));
    if found != wanted {
        let show = |entry: Option<(&[u8], &[u8])>| {
            entry.map(|(key, value)| {
                format!(
                    "{} = {} ({})",
                    key.escape_ascii(),
                    value[..value.len().min(16)].escape_ascii(),
                    value.len()
                )
            })
        };
        panic!("{what}: found {:?}, wanted {:?}", show(found), show(wanted));
    }
}

impl World {
    pub(crate) fn get(&mut self) {
        self.catch_up();
        let cf = self.any_family();
        let key = self.keys.any(&mut self.rng);
        let map = self.map(cf.id());
        let wanted = map.get(&key).map(|value| &**value);
        if self.rng.one_in(3) {
            let mut value = b"old".to_vec();
            let found = self
                .db
                .get_into(&cf, &key, &mut value)
                .expect("a good disk");
            assert_eq!(
                found.then_some(&*value),
                wanted,
                "get_into of {}",
                key.escape_ascii()
            );
        } else {
            let found = self.db.get(&cf, &key).expect("a good disk");
            assert_eq!(found.as_deref(), wanted, "get of {}", key.escape_ascii());
        }
        self.counts.gets += 1;
    }

    /// What to read at: a snapshot or now, and what a family holds then.
    fn moment(&mut self) -> (ReadOptions, basalt_testkit::Model) {
        if !self.snapshots.is_empty() && self.rng.one_in(2) {
            let (snapshot, model) = self.rng.pick(&self.snapshots);
            return (ReadOptions::at(snapshot), model.clone());
        }
        self.catch_up();
        (ReadOptions::default(), self.published.clone())
    }

    /// A family that is alive now, and what it holds in `model`: nothing before its creation.
    fn family_in(
        &mut self,
        model: &basalt_testkit::Model,
    ) -> (basalt_engine::ColumnFamily, Arc<Map>) {
        let cf = self.any_family();
        let map = model.map(cf.id()).cloned().unwrap_or_default();
        (cf, map)
    }

    pub(crate) fn get_at(&mut self) {
        let (options, model) = self.moment();
        let (cf, map) = self.family_in(&model);
        let key = self.keys.any(&mut self.rng);
        let found = self.db.get_with(&cf, &key, &options).expect("a good disk");
        assert_eq!(
            found.as_deref(),
            map.get(&key).map(|value| &**value),
            "get_with of {}",
            key.escape_ascii()
        );
        self.counts.gets += 1;
    }

    pub(crate) fn multi_get(&mut self) {
        let (options, model) = self.moment();
        let (cf, map) = self.family_in(&model);
        let count = self.rng.index(12);
        let keys: Vec<_> = (0..count).map(|_| self.keys.any(&mut self.rng)).collect();
        let found = self
            .db
            .multi_get(&cf, &keys, &options)
            .expect("a good disk");
        assert_eq!(found.len(), keys.len());
        for (key, found) in keys.iter().zip(&found) {
            assert_eq!(
                found.as_deref(),
                map.get(key).map(|value| &**value),
                "multi_get of {}",
                key.escape_ascii()
            );
        }
        self.counts.multi_gets += 1;
    }

    pub(crate) fn range(&mut self) {
        let (at, model) = self.moment();
        let (cf, map) = self.family_in(&model);
        let (bounds, options) = self.keys.bounds(&mut self.rng);
        let options = ReadOptions {
            snapshot: at.snapshot,
            ..options
        };
        let cursor = ModelCursor::new(map, bounds);
        let mut wanted = cursor.entries();
        let mut found = self.db.range(&cf, &options).expect("a range");
        let mostly_front = self.rng.one_in(2);
        let most = *self.rng.pick(&[5, 40, 2000]);
        for _ in 0..most {
            let (wanted, found) = if self.rng.one_in(6) == mostly_front {
                (wanted.next_back(), found.next_back())
            } else {
                (wanted.next(), found.next())
            };
            let found = found.map(|entry| entry.expect("a good disk"));
            let shown = found
                .as_ref()
                .map(|(key, value)| (key.as_slice(), &**value));
            assert_eq!(
                shown,
                wanted.map(|(key, value)| (key.as_slice(), &**value)),
                "a range"
            );
            if shown.is_none() {
                break;
            }
        }
        self.counts.ranges += 1;
    }

    /// Takes a snapshot, or lets one go.
    pub(crate) fn snapshot(&mut self) {
        if self.snapshots.len() >= 4 || (!self.snapshots.is_empty() && self.rng.one_in(3)) {
            let at = self.rng.index(self.snapshots.len());
            let (snapshot, model) = self.snapshots.swap_remove(at);
            if self.rng.one_in(4) {
                crate::world::compare(&self.db, &model, Some(&snapshot), self.rng.one_in(2));
            }
            return;
        }
        let snapshot = self.db.snapshot();
        self.catch_up_to(snapshot.seq().0);
        self.snapshots.push((snapshot, self.published.clone()));
        self.counts.snapshots += 1;
    }

    /// Makes an iterator, or retires one.
    pub(crate) fn iterator(&mut self) {
        if self.iters.len() >= 6 {
            let at = self.rng.index(self.iters.len());
            let iter = self.iters.swap_remove(at);
            self.retire(iter, false);
            return;
        }
        let (at, model) = self.moment();
        let (cf, map) = self.family_in(&model);
        let (bounds, options) = self.keys.bounds(&mut self.rng);
        let options = ReadOptions {
            snapshot: at.snapshot,
            ..options
        };
        let iter = self.db.iter(&cf, &options).expect("an iterator");
        self.iters.push(LiveIter {
            iter,
            cursor: ModelCursor::new(map, bounds),
            family: cf.id(),
            family_dropped: false,
            born: (self.flushes_heard(), self.db.stats().compactions),
        });
        self.counts.iterators += 1;
    }

    pub(crate) fn move_iterator(&mut self) {
        if self.iters.is_empty() {
            self.iterator();
        }
        let at = self.rng.index(self.iters.len());
        for _ in 0..=self.rng.index(6) {
            self.iters[at].step(&mut self.rng, &self.keys);
            self.counts.iterator_moves += 1;
        }
    }

    /// Walks an iterator over all it sees and takes note of what it has lived through.
    pub(crate) fn retire(&mut self, mut live: LiveIter, closed: bool) {
        for _ in 0..4 {
            live.step(&mut self.rng, &self.keys);
        }
        live.iter.seek_to_first().expect("a good disk");
        live.cursor.seek_to_first();
        loop {
            check_at(&live.iter, &live.cursor, "a retiring iterator");
            if !live.iter.valid() {
                break;
            }
            live.iter.next().expect("a good disk");
            live.cursor.next();
        }
        let (flushes, compactions) = live.born;
        self.counts.iterators_across_flush += u64::from(self.flushes_heard() > flushes);
        self.counts.iterators_across_compaction +=
            u64::from(self.db.stats().compactions > compactions);
        self.counts.iterators_across_drop += u64::from(live.family_dropped);
        self.counts.iterators_across_close += u64::from(closed);
    }
}
