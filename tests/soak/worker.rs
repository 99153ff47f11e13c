//! One thread's load and what its keys must hold.

use std::{collections::VecDeque, ops::Range};

use basalt_engine::{ColumnFamily, Db, ReadOptions, Snapshot, WriteBatch, WriteOptions};
use basalt_testkit::Rng;

use crate::figures::{Figures, Kind};

/// Keys of a worker in each of two families.
const KEYS: usize = 20_000;
/// Most entries of a worker's log before its front is cut.
const ENTRIES: u64 = 4_000;
/// Snapshots held at a time, and keys looked up at each.
const SNAPSHOTS: usize = 3;
const PROBES: usize = 16;
/// Rows of a scan.
const SCAN: usize = 100;

/// The families of the load.
#[derive(Clone)]
pub(crate) struct Families {
    pub(crate) logged: ColumnFamily,
    pub(crate) unlogged: ColumnFamily,
    pub(crate) log: ColumnFamily,
}

/// A snapshot, and what some keys held when it was made.
struct Held {
    snapshot: Snapshot,
    probes: Vec<(usize, u32)>,
}

/// A thread with keys of its own.
pub(crate) struct Worker {
    number: u8,
    pub(crate) families: Families,
    pub(crate) figures: Figures,
    rng: Rng,
    /// Number of the last write by key, logged and unlogged; 0: absent.
    rows: [Vec<u32>; 2],
    writes: u32,
    entries: Range<u64>,
    /// Numbers of the writes that appended what is in `entries`.
    appended: VecDeque<u32>,
    held: VecDeque<Held>,
}

fn key(number: u8, at: usize) -> Vec<u8> {
    let at = u32::try_from(at).expect("few keys");
    [&[number][..], &at.to_be_bytes(), b"-key"].concat()
}

/// The value of a write: its length and bytes follow from its number.
fn value(write: u32) -> Vec<u8> {
    let len = 20 + (write as usize).wrapping_mul(2_654_435_761) % 400;
    let mut value = write.to_le_bytes().to_vec();
    value.resize(len, u8::try_from(write % 251).expect("a byte"));
    value
}

impl Worker {
    pub(crate) fn new(number: u8, families: Families) -> Self {
        Self {
            number,
            families,
            figures: Figures::default(),
            rng: Rng::new(u64::from(number) + 1),
            rows: [vec![0; KEYS], vec![0; KEYS]],
            writes: 0,
            entries: 1..1,
            appended: VecDeque::new(),
            held: VecDeque::new(),
        }
    }

    fn family(&self, which: usize) -> &ColumnFamily {
        [&self.families.logged, &self.families.unlogged][which]
    }

    fn next_write(&mut self) -> u32 {
        self.writes += 1;
        self.writes
    }

    /// A key: mostly among the hot ones.
    fn any(&mut self) -> usize {
        if self.rng.one_in(3) {
            self.rng.index(KEYS)
        } else {
            self.rng.index(KEYS / 50)
        }
    }

    /// Draws an operation, does it, and checks what it answers.
    pub(crate) fn step(&mut self, db: &Db) {
        let which = self.rng.index(2);
        match self.rng.below(1000) {
            0..350 => self.put(db, which, false),
            350..353 => self.put(db, 0, true),
            353..430 => self.delete(db, which),
            430..434 => self.delete_range(db),
            434..460 => self.batch(db),
            460..800 => self.get(db, which),
            800..815 => self.scan(db, which, true),
            815..830 => self.scan(db, which, false),
            830..834 => self.snapshot(db),
            834..850 => self.read_snapshot(db),
            850..920 => self.append(db),
            920..928 => self.truncate_front(db),
            928..930 => self.truncate_back(db),
            _ => self.get_entry(db),
        }
    }

    fn put(&mut self, db: &Db, which: usize, sync: bool) {
        let (at, write) = (self.any(), self.next_write());
        let (key, value, cf) = (
            key(self.number, at),
            value(write),
            self.family(which).clone(),
        );
        let kind = if sync { Kind::SyncedPut } else { Kind::Put };
        self.figures
            .time(kind, || db.put(&cf, &key, &value, WriteOptions { sync }))
            .expect("a good disk");
        self.rows[which][at] = write;
    }

    fn delete(&mut self, db: &Db, which: usize) {
        let at = self.any();
        let (key, cf) = (key(self.number, at), self.family(which).clone());
        self.figures
            .time(Kind::Delete, || db.delete(&cf, &key, WriteOptions::NO_SYNC))
            .expect("a good disk");
        self.rows[which][at] = 0;
    }

    fn delete_range(&mut self, db: &Db) {
        let at = self.any();
        let end = (at + 1 + self.rng.index(60)).min(KEYS);
        let (from, to) = (key(self.number, at), key(self.number, end));
        let cf = self.families.logged.clone();
        self.figures
            .time(Kind::RangeDelete, || {
                db.delete_range(&cf, &from, &to, WriteOptions::NO_SYNC)
            })
            .expect("a good disk");
        self.rows[0][at..end].fill(0);
    }

    /// Rows and entries in one batch.
    fn batch(&mut self, db: &Db) {
        let mut batch = WriteBatch::new();
        for _ in 0..10 {
            let (at, write) = (self.any(), self.next_write());
            batch.put(&self.families.logged, &key(self.number, at), &value(write));
            self.rows[0][at] = write;
        }
        let write = self.next_write();
        batch.append(
            &self.families.log,
            &[self.number],
            self.entries.end,
            &[value(write)],
        );
        self.entries.end += 1;
        self.appended.push_back(write);
        self.figures
            .time(Kind::Batch, || db.write(batch, WriteOptions::NO_SYNC))
            .expect("a good disk");
    }

    fn get(&mut self, db: &Db, which: usize) {
        let at = self.any();
        let (key, cf) = (key(self.number, at), self.family(which).clone());
        let got = self.figures.time(Kind::Get, || db.get(&cf, &key));
        self.check(
            at,
            self.rows[which][at],
            got.expect("a good disk").as_deref(),
        );
    }

    fn check(&self, at: usize, write: u32, got: Option<&[u8]>) {
        let wanted = (write > 0).then(|| value(write));
        assert!(
            got == wanted.as_deref(),
            "key {at} of worker {} holds {got:?}, not write {write}",
            self.number
        );
    }

    fn scan(&mut self, db: &Db, which: usize, forward: bool) {
        let at = self.any();
        let (near, far) = if forward {
            (key(self.number, at), vec![self.number + 1])
        } else {
            (vec![self.number], key(self.number, at))
        };
        let options = ReadOptions {
            lower: Some(near),
            upper: Some(far),
            ..ReadOptions::default()
        };
        let kind = if forward {
            Kind::ScanForward
        } else {
            Kind::ScanBackward
        };
        let cf = self.family(which).clone();
        let rows: Vec<_> = self.figures.time(kind, || {
            let mut range = db.range(&cf, &options).expect("a good disk");
            let next = std::iter::from_fn(|| {
                if forward {
                    range.next()
                } else {
                    range.next_back()
                }
            });
            next.take(SCAN)
                .map(|row| row.expect("a good disk"))
                .map(|(key, value)| (key, value.to_vec()))
                .collect()
        });
        let present = |at: &usize| self.rows[which][*at] > 0;
        let expected: Vec<usize> = if forward {
            (at..KEYS).filter(present).take(SCAN).collect()
        } else {
            (0..at).rev().filter(present).take(SCAN).collect()
        };
        assert_eq!(rows.len(), expected.len(), "rows of a scan from {at}");
        for ((found, got), at) in rows.iter().zip(expected) {
            assert_eq!(*found, key(self.number, at), "a scan in order");
            self.check(at, self.rows[which][at], Some(got));
        }
    }

    fn snapshot(&mut self, db: &Db) {
        if self.held.len() == SNAPSHOTS {
            self.held.pop_front();
        }
        let snapshot = self.figures.time(Kind::Snapshot, || db.snapshot());
        let probes = (0..PROBES).map(|_| self.any()).collect::<Vec<_>>();
        let probes = probes.into_iter().map(|at| (at, self.rows[0][at]));
        let probes = probes.collect();
        self.held.push_back(Held { snapshot, probes });
    }

    fn read_snapshot(&mut self, db: &Db) {
        if self.held.is_empty() {
            return;
        }
        let held = &self.held[self.rng.index(self.held.len())];
        let (at, write) = held.probes[self.rng.index(PROBES)];
        let options = ReadOptions::at(&held.snapshot);
        let (key, cf) = (key(self.number, at), self.families.logged.clone());
        let got = self
            .figures
            .time(Kind::GetAtSnapshot, || db.get_with(&cf, &key, &options));
        self.check(at, write, got.expect("a good disk").as_deref());
    }

    /// Snapshots end before the database is closed.
    pub(crate) fn drop_snapshots(&mut self) {
        self.held.clear();
    }

    fn append(&mut self, db: &Db) {
        let count = 1 + self.rng.below(8);
        let writes: Vec<u32> = (0..count).map(|_| self.next_write()).collect();
        let values: Vec<_> = writes.iter().map(|&write| value(write)).collect();
        let (first, cf) = (self.entries.end, self.families.log.clone());
        self.figures
            .time(Kind::Append, || {
                db.append(&cf, &[self.number], first, &values, WriteOptions::NO_SYNC)
            })
            .expect("a good disk");
        self.entries.end += count;
        self.appended.extend(writes);
        if self.appended.len() as u64 > ENTRIES {
            self.truncate_front(db);
        }
    }

    fn truncate_front(&mut self, db: &Db) {
        let len = self.appended.len() as u64;
        if len < 2 {
            return;
        }
        // Mostly most of it, so that segments die; sometimes little, so that some lag behind.
        let cut = if self.rng.one_in(3) {
            1
        } else {
            len / 2 + self.rng.below(len / 2)
        };
        let index = self.entries.start + cut;
        let mut batch = WriteBatch::new();
        batch.truncate_front(&self.families.log, &[self.number], index);
        self.figures
            .time(Kind::TruncateFront, || {
                db.write(batch, WriteOptions::NO_SYNC)
            })
            .expect("a good disk");
        self.entries.start = index;
        self.appended.drain(..usize::try_from(cut).expect("few"));
    }

    fn truncate_back(&mut self, db: &Db) {
        let len = self.appended.len() as u64;
        if len < 2 {
            return;
        }
        let keep = len - 1 - self.rng.below((len - 1).min(50));
        let index = self.entries.start + keep;
        let mut batch = WriteBatch::new();
        batch.truncate_back(&self.families.log, &[self.number], index);
        self.figures
            .time(Kind::TruncateBack, || {
                db.write(batch, WriteOptions::NO_SYNC)
            })
            .expect("a good disk");
        // What is cut away is gone; an empty log may begin anywhere.
        self.entries.end = index;
        self.appended.truncate(usize::try_from(keep).expect("few"));
    }

    fn get_entry(&mut self, db: &Db) {
        let Some(at) = self.appended.len().checked_sub(1) else {
            return;
        };
        let at = self.rng.index(at + 1);
        let index = self.entries.start + at as u64;
        let key = [&[self.number][..], &index.to_be_bytes()].concat();
        let cf = self.families.log.clone();
        let got = self.figures.time(Kind::GetEntry, || db.get(&cf, &key));
        let wanted = value(self.appended[at]);
        assert_eq!(
            got.expect("a good disk").as_deref(),
            Some(&wanted[..]),
            "entry {index}"
        );
    }

    /// Compares all that the worker owns.
    pub(crate) fn check_all(&self, db: &Db, unlogged: bool) {
        for which in 0..=usize::from(unlogged) {
            let options = ReadOptions::default().prefix(&[self.number]);
            let range = db.range(self.family(which), &options).expect("a good disk");
            let mut seen = 0;
            for row in range {
                let (found, got) = row.expect("a good disk");
                let at = u32::from_be_bytes(found[1..5].try_into().expect("four bytes"));
                let at = at as usize;
                self.check(at, self.rows[which][at], Some(&got));
                seen += 1;
            }
            let wanted = self.rows[which].iter().filter(|&&write| write > 0).count();
            assert_eq!(seen, wanted, "rows of worker {}", self.number);
        }
        let range = db
            .append_range(&self.families.log, &[self.number])
            .expect("a good disk");
        let wanted = Some(self.entries.clone()).filter(|range| !range.is_empty());
        assert_eq!(range, wanted, "entries of worker {}", self.number);
    }
}
