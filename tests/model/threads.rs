//! Threads let loose on one database: writers on keys of their own, readers, and one that flushes, compacts and copies.
//!
//! Every write sets the keys of a group, in two families, to one version, versions ascending. So a reader knows
//! what it may see: no version below the last one acknowledged before it looked or seen by it earlier, none
//! above the last one begun, and within a moment the same version on every key of a group.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use basalt_engine::{
    CfOptions, ColumnFamily, Db, Ingest, Options, ReadOptions, Snapshot, WriteBatch, WriteOptions,
    executor::ThreadPool, fs::RealFs,
};
use basalt_testkit::Rng;

use crate::choose;

const WRITERS: usize = 3;
const READERS: usize = 2;
/// Groups of a writer, and keys of a group in each family.
const GROUPS: usize = 24;
const KEYS: usize = 3;

/// What a run of threads did.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) writes: u64,
    pub(crate) reads: u64,
    pub(crate) snapshots: u64,
    pub(crate) iterators: u64,
    pub(crate) copies: u64,
    pub(crate) drops: u64,
    pub(crate) flushes: u64,
    pub(crate) compactions: u64,
}

impl Report {
    pub(crate) fn add(&mut self, other: &Self) {
        self.writes += other.writes;
        self.reads += other.reads;
        self.snapshots += other.snapshots;
        self.iterators += other.iterators;
        self.copies += other.copies;
        self.drops += other.drops;
        self.flushes += other.flushes;
        self.compactions += other.compactions;
    }
}

/// Versions of one group.
#[derive(Default)]
struct Group {
    begun: AtomicU64,
    acknowledged: AtomicU64,
}

/// Keys and values, copied.
type Entries = Vec<(Vec<u8>, Vec<u8>)>;

struct Shared {
    db: Db,
    /// Two families of one class: a group's keys are in both.
    pair: [ColumnFamily; 2],
    groups: Vec<Group>,
    writers_left: AtomicU64,
    failed: AtomicBool,
}

/// Ends the others when a thread panics.
struct Alarm<'a>(&'a Shared);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.failed.store(true, Ordering::Release);
        }
    }
}

/// One database under all threads until each writer has made `writes` writes.
pub(crate) fn run(seed: u64, logged: bool, writes: u64) -> Report {
    let mut rng = Rng::new(seed);
    let root = tempfile::tempdir().expect("a temporary directory");
    let dir = root.path().join("db");
    let options = options(&mut rng);
    let db = Db::open(&dir, options.clone()).expect("a new database");
    let pair = ["left", "right"].map(|name| {
        let options = family_options(&mut rng, logged);
        db.create_cf(name, options).expect("a new family")
    });
    let shared = Shared {
        db,
        pair,
        groups: (0..WRITERS * GROUPS).map(|_| Group::default()).collect(),
        writers_left: AtomicU64::new(WRITERS as u64),
        failed: AtomicBool::new(false),
    };
    let mut report = Report::default();
    let mut seeds = || rng.next_u64();
    thread::scope(|scope| {
        let shared = &shared;
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| (writer, seeds()))
            .map(|(writer, seed)| scope.spawn(move || shared.write(writer, seed, writes)))
            .collect();
        let mut others: Vec<_> = (0..READERS)
            .map(|_| seeds())
            .map(|seed| scope.spawn(move || shared.read(seed)))
            .collect();
        let (seed, root) = (seeds(), root.path());
        others.push(scope.spawn(move || shared.maintain(seed, root)));
        for writer in writers {
            report.writes += writer.join().expect("a writer");
        }
        for other in others {
            report.add(&other.join().expect("a reader"));
        }
    });
    let stats = shared.db.stats();
    report.flushes = stats.flushes;
    report.compactions = stats.compactions;
    shared.check_end(&dir, options);
    report
}

fn options(rng: &mut Rng) -> Options {
    choose::options(rng, Arc::new(RealFs), Arc::new(ThreadPool::new(3)))
}

/// Small buffers, but not so small that every write waits for a flush.
fn family_options(rng: &mut Rng, logged: bool) -> CfOptions {
    CfOptions {
        write_buffer_bytes: 16 << 10,
        max_immutable_memtables: 3,
        merge_operator: None,
        ..choose::cf_options(rng, logged)
    }
}

fn key(group: usize, at: usize) -> Vec<u8> {
    format!("{group:03}/{at}").into_bytes()
}

fn version(value: &[u8]) -> u64 {
    let digits = value
        .split(|&byte| byte == b' ')
        .next()
        .expect("there is a first");
    std::str::from_utf8(digits)
        .expect("digits")
        .parse()
        .expect("digits")
}

impl Shared {
    /// Sets groups of one writer to ascending versions; answers how often.
    fn write(&self, writer: usize, seed: u64, writes: u64) -> u64 {
        let _alarm = Alarm(self);
        let mut rng = Rng::new(seed);
        let mut written = 0;
        let logged = self.pair[0].is_logged();
        let mut tickets = Vec::new();
        while written < writes && !self.failed.load(Ordering::Acquire) {
            let at = writer * GROUPS + rng.index(GROUPS);
            let group = &self.groups[at];
            let next = group.begun.load(Ordering::Relaxed) + 1;
            group.begun.store(next, Ordering::SeqCst);
            let mut batch = WriteBatch::new();
            let value = format!("{next} {}", "x".repeat(rng.index(60)));
            for cf in &self.pair {
                if rng.one_in(8) {
                    batch.delete_range(cf, &key(at, 0), &key(at, KEYS));
                }
                for key in (0..KEYS).map(|n| key(at, n)) {
                    if rng.one_in(8) {
                        batch.delete(cf, &key);
                    }
                    batch.put(cf, &key, value.as_bytes());
                }
            }
            let sync = logged && rng.one_in(40);
            written += 1;
            if rng.one_in(4) {
                match self.db.submit(batch.clone(), WriteOptions { sync }) {
                    Ok(ticket) => {
                        tickets.push((ticket, at, next));
                        continue;
                    }
                    Err(basalt_engine::Error::Busy(_)) => {}
                    Err(error) => panic!("submit: {error}"),
                }
            }
            self.db
                .write(batch, WriteOptions { sync })
                .expect("a write");
            group.acknowledged.fetch_max(next, Ordering::SeqCst);
            for (ticket, at, version) in tickets.drain(..) {
                // An earlier batch is published before a later one.
                let done = ticket.poll().expect("a later batch is acknowledged");
                done.expect("a good disk");
                self.groups[at]
                    .acknowledged
                    .fetch_max(version, Ordering::SeqCst);
            }
        }
        for (ticket, at, version) in tickets {
            ticket.wait().expect("a good disk");
            self.groups[at]
                .acknowledged
                .fetch_max(version, Ordering::SeqCst);
        }
        self.writers_left.fetch_sub(1, Ordering::SeqCst);
        written
    }

    fn goes_on(&self) -> bool {
        self.writers_left.load(Ordering::SeqCst) > 0 && !self.failed.load(Ordering::Acquire)
    }

    fn read(&self, seed: u64) -> Report {
        let _alarm = Alarm(self);
        let mut rng = Rng::new(seed);
        let mut report = Report::default();
        // Versions seen of each key of each family: they never go back.
        let mut seen = vec![[[0_u64; KEYS]; 2]; self.groups.len()];
        let mut held: Vec<(Snapshot, usize, Entries)> = Vec::new();
        while self.goes_on() {
            let (at, side, n) = (rng.index(self.groups.len()), rng.index(2), rng.index(KEYS));
            let least = self.groups[at].acknowledged.load(Ordering::SeqCst);
            let found = self
                .db
                .get(&self.pair[side], &key(at, n))
                .expect("a good disk");
            let found = found.map_or(0, |value| version(&value));
            let most = self.groups[at].begun.load(Ordering::SeqCst);
            let last = &mut seen[at][side][n];
            assert!(
                found >= least && found >= *last && found <= most,
                "group {at}: found {found}, acknowledged {least}, seen {last}, begun {most}"
            );
            *last = found;
            report.reads += 1;
            match rng.below(40) {
                0 => {
                    let snapshot = self.db.snapshot();
                    self.check_moment(&self.db, &self.pair, Some(&snapshot));
                    let side = rng.index(2);
                    let entries = self.entries(side, &snapshot, false);
                    held.push((snapshot, side, entries));
                    report.snapshots += 1;
                }
                1 if !held.is_empty() => {
                    let chosen = rng.index(held.len());
                    let (snapshot, side, entries) = &held[chosen];
                    let mut again = self.entries(*side, snapshot, true);
                    again.reverse();
                    assert!(again == *entries, "a snapshot moved");
                    if held.len() > 3 {
                        held.swap_remove(chosen);
                    }
                }
                2 => {
                    self.walk(&mut rng);
                    report.iterators += 1;
                }
                3 => self.check_group(at, side),
                _ => {}
            }
        }
        report
    }

    fn entries(&self, side: usize, at: &Snapshot, backward: bool) -> Entries {
        let range = self
            .db
            .range(&self.pair[side], &ReadOptions::at(at))
            .expect("a range");
        let owned = |entry: basalt_engine::Result<basalt_engine::KeyValue>| {
            let (key, value) = entry.expect("a good disk");
            (key, value.to_vec())
        };
        if backward {
            range.rev().map(owned).collect()
        } else {
            range.map(owned).collect()
        }
    }

    /// All keys of a group, at one moment, have one version.
    fn check_group(&self, at: usize, side: usize) {
        let keys: Vec<_> = (0..KEYS).map(|n| key(at, n)).collect();
        let options = ReadOptions::default();
        let values = self
            .db
            .multi_get(&self.pair[side], &keys, &options)
            .expect("a good disk");
        let versions: Vec<_> = values
            .iter()
            .map(|v| v.as_ref().map(|v| version(v)))
            .collect();
        assert!(
            versions.iter().all(|v| *v == versions[0]),
            "group {at}: {versions:?}"
        );
    }

    /// All keys of every group have one version in both families.
    fn check_moment(&self, db: &Db, pair: &[ColumnFamily; 2], at: Option<&Snapshot>) {
        let options = at.map_or_else(ReadOptions::default, ReadOptions::at);
        let sides = pair.each_ref().map(|cf| {
            let range = db.range(cf, &options).expect("a range");
            let entries = range.map(|entry| {
                let (key, value) = entry.expect("a good disk");
                (key, version(&value))
            });
            entries.collect::<Vec<_>>()
        });
        assert!(
            sides[0] == sides[1],
            "half a batch: {:?} and {:?}",
            sides[0],
            sides[1]
        );
        for group in sides[0].chunks(KEYS) {
            assert!(
                group.len() == KEYS && group.iter().all(|(_, v)| *v == group[0].1),
                "half a batch: {group:?}"
            );
        }
    }

    /// Walks an iterator to and fro while the database changes: what it has shown once, it shows again.
    fn walk(&self, rng: &mut Rng) {
        let side = rng.index(2);
        let mut iter = self
            .db
            .iter(&self.pair[side], &ReadOptions::default())
            .expect("an iterator");
        let mut shown = Vec::new();
        iter.seek_to_first().expect("a good disk");
        while iter.valid() {
            shown.push((iter.key().to_vec(), iter.value().to_vec()));
            iter.next().expect("a good disk");
        }
        for group in shown.chunks(KEYS) {
            let first = version(&group[0].1);
            assert!(
                group.len() == KEYS && group.iter().all(|(_, v)| version(v) == first),
                "half a batch"
            );
        }
        iter.seek_to_last().expect("a good disk");
        for entry in shown.iter().rev() {
            assert!(
                iter.valid() && (iter.key(), iter.value()) == (&entry.0, &entry.1),
                "an iterator moved"
            );
            iter.prev().expect("a good disk");
        }
        assert!(!iter.valid());
    }

    /// Does what goes on beside reads and writes in the life of a database.
    fn maintain(&self, seed: u64, root: &Path) -> Report {
        let _alarm = Alarm(self);
        let mut rng = Rng::new(seed);
        let mut report = Report::default();
        let mut number = 0;
        while self.goes_on() {
            number += 1;
            let cf = rng.pick(&self.pair).clone();
            match rng.below(8) {
                0..=2 => self.db.flush(&cf).expect("a flush"),
                3 => self.db.flush_all().expect("a flush"),
                4 => {
                    let (from, to) = (rng.index(self.groups.len()), rng.index(self.groups.len()));
                    let span = (key(from.min(to), 0), key(from.max(to), KEYS));
                    self.db
                        .compact_range(&cf, Some(&span.0), Some(&span.1))
                        .expect("a compaction");
                }
                5 => {
                    self.copy(&mut rng, &root.join(format!("copy-{number}")));
                    report.copies += 1;
                }
                6 => {
                    self.come_and_go(&mut rng, root, number);
                    report.drops += 1;
                }
                _ => {
                    let report = self.db.verify().expect("a good disk");
                    assert!(report.damage.is_empty(), "{:?}", report.damage);
                }
            }
        }
        report
    }

    /// A checkpoint is one moment, too.
    fn copy(&self, rng: &mut Rng, path: &Path) {
        self.db.checkpoint(path).expect("a checkpoint");
        let copy = Db::open(path, options(rng)).expect("a checkpoint opens");
        let pair = ["left", "right"].map(|name| copy.cf(name).expect("it is copied"));
        self.check_moment(&copy, &pair, None);
        copy.close().expect("a clean close");
        std::fs::remove_dir_all(path).expect("a directory");
    }

    /// A family that lives for a moment, with an iterator that outlives it.
    fn come_and_go(&self, rng: &mut Rng, root: &Path, number: u64) {
        let logged = self.pair[0].is_logged();
        let cf = self
            .db
            .create_cf("guest", family_options(rng, logged))
            .expect("a new family");
        let path = root.join(format!("table-{number}"));
        let mut writer = self.db.table_writer(&cf, &path).expect("a writer");
        let keys: Vec<_> = (0..50).map(|n| key(n, 0)).collect();
        for key in &keys {
            writer.put(key, b"ingested").expect("an entry");
        }
        let mut request = Ingest::new();
        request.table(&cf, writer.finish().expect("a table"));
        self.db.ingest(request).expect("an ingest");
        std::fs::remove_file(&path).expect("the source stays");
        self.db
            .delete(&cf, &keys[0], WriteOptions::NO_SYNC)
            .expect("a delete");
        let mut iter = self
            .db
            .iter(&cf, &ReadOptions::default())
            .expect("an iterator");
        self.db.drop_cf(&cf).expect("a drop");
        iter.seek_to_last().expect("a good disk");
        for key in keys[1..].iter().rev() {
            assert!(iter.valid() && iter.key() == key);
            iter.prev().expect("a good disk");
        }
        assert!(!iter.valid());
    }

    /// Everything written is there; after a restart too, where it must be.
    fn check_end(self, dir: &Path, options: Options) {
        let versions: Vec<u64> = self
            .groups
            .iter()
            .map(|group| group.begun.load(Ordering::SeqCst))
            .collect();
        self.check_versions(&self.db, &versions);
        let report = self.db.verify().expect("a good disk");
        assert!(report.damage.is_empty(), "{:?}", report.damage);
        if !self.pair[0].is_logged() {
            self.db.flush_all().expect("a flush");
        }
        let stats = {
            let db = self.db.clone();
            self.db.clone().close().expect("a clean close");
            db.stats()
        };
        crate::world::check_files(&RealFs, dir, &stats);
        drop(self);
        let db = Db::open(dir, options).expect("it opens");
        let again = Self {
            pair: ["left", "right"].map(|name| db.cf(name).expect("it is kept")),
            db: db.clone(),
            groups: Vec::new(),
            writers_left: AtomicU64::new(0),
            failed: AtomicBool::new(false),
        };
        again.check_versions(&db, &versions);
    }

    fn check_versions(&self, db: &Db, versions: &[u64]) {
        for (at, wanted) in versions.iter().enumerate() {
            for (cf, n) in self
                .pair
                .iter()
                .flat_map(|cf| (0..KEYS).map(move |n| (cf, n)))
            {
                let found = db.get(cf, &key(at, n)).expect("a good disk");
                assert_eq!(
                    found.map_or(0, |value| version(&value)),
                    *wanted,
                    "group {at}"
                );
            }
        }
    }
}
