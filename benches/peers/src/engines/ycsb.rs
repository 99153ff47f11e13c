//! The mixes of YCSB: reads, overwrites, inserts and walks in their shares, some entries asked for much more often than
//! others.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    data::{Chance, Key, Values, Zipf, scattered},
    store::Store,
    work::YCSB_VALUE,
};

/// The mixes of YCSB over one store.
pub struct Ycsb<'a> {
    store: &'a dyn Store,
    values: &'a Values,
    zipf: Zipf,
    next: AtomicU64,
    /// All below are there.
    there: AtomicU64,
    /// Those above that are there already.
    late: Mutex<BTreeSet<u64>>,
}

impl<'a> Ycsb<'a> {
    /// Over a store that has the entries below `entries`.
    pub fn new(store: &'a dyn Store, values: &'a Values, entries: u64) -> Self {
        Self {
            store,
            values,
            zipf: Zipf::new(entries),
            next: AtomicU64::new(entries),
            there: AtomicU64::new(entries),
            late: Mutex::default(),
        }
    }

    /// One operation of a mix.
    pub fn turn(&self, mix: u8, chance: &mut Chance, value: &mut Vec<u8>) {
        let luck = chance.share();
        match mix {
            b'A' | b'B' => {
                let index = self.zipf.scattered(chance);
                if luck < if mix == b'A' { 0.5 } else { 0.95 } {
                    self.read(index);
                } else {
                    self.put(index, 1, value);
                }
            }
            b'C' => self.read(self.zipf.scattered(chance)),
            b'F' => {
                let index = self.zipf.scattered(chance);
                self.read(index);
                if luck < 0.5 {
                    self.put(index, 2, value);
                }
            }
            b'D' if luck < 0.95 => {
                let there = self.there.load(Ordering::Acquire);
                self.read(there - 1 - self.zipf.rank(chance));
            }
            b'E' if luck < 0.95 => self.walk(chance),
            _ => self.insert(value),
        }
    }

    fn read(&self, index: u64) {
        let mut right = false;
        let found = self.store.get(&scattered(index), &mut |value| {
            right = self.values.version(index, YCSB_VALUE, value).is_some();
        });
        assert!(found && right, "entry {index}");
    }

    fn put(&self, index: u64, version: u32, value: &mut Vec<u8>) {
        self.values.make(index, version, YCSB_VALUE, value);
        self.store.put(&scattered(index), value, false);
    }

    fn insert(&self, value: &mut Vec<u8>) {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        self.put(index, 0, value);
        let mut late = self.late.lock().expect("the late ones");
        late.insert(index);
        let mut there = self.there.load(Ordering::Relaxed);
        while late.remove(&there) {
            there += 1;
        }
        self.there.store(there, Ordering::Release);
    }

    fn walk(&self, chance: &mut Chance) {
        let from = scattered(self.zipf.scattered(chance));
        let count = 1 + chance.below(100);
        let (mut seen, mut last) = (0, from);
        self.store.walk(Some(&from), false, &mut |key, value| {
            let key: Key = key.try_into().expect("a key of ours");
            let follows = if seen == 0 { key == from } else { key > last };
            assert!(follows && value.len() == YCSB_VALUE, "a walk");
            (seen, last) = (seen + 1, key);
            seen < count
        });
        assert!(
            seen == count || from[0] == 0xff || seen > 0,
            "a walk of {seen}"
        );
    }
}
