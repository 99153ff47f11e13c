//! A small store of every class of family, with a model of what must be read.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use basalt_engine::{
    CfOptions, ColumnFamily, Compression, Db, Fault, Faults, LEVELS, Options, ReadOptions,
    WriteBatch, WriteOptions, executor::SimExecutor, fs::SimFs,
};
use basalt_testkit::Rng;

/// Where the store is.
pub(crate) const DIR: &str = "/db";

/// Rows of one family.
pub(crate) type Rows = BTreeMap<Vec<u8>, Vec<u8>>;
/// Rows by family.
pub(crate) type Truth = BTreeMap<String, Rows>;

/// Names of the families beside `default`: plain, unlogged, append, with values beside the tables.
pub(crate) const PACKED: &str = "packed";
pub(crate) const FREE: &str = "free";
pub(crate) const LOG: &str = "log";
pub(crate) const LARGE: &str = "large";

pub(crate) fn options(disk: &Arc<SimFs>, seed: u64, fault: Fault) -> Options {
    Options {
        block_cache_bytes: 16 << 10,
        log_segment_bytes: (1024, 4096),
        recycled_segments: 1,
        reserve_bytes: 256,
        faults: Faults(fault),
        ..Options::with(disk.clone(), Arc::new(SimExecutor::new(seed)))
    }
}

fn plain() -> CfOptions {
    CfOptions {
        write_buffer_bytes: 8 << 10,
        block_bytes: 256,
        restart_interval: 4,
        compression: [Compression::None; LEVELS],
        table_bytes: 2048,
        base_level_bytes: 16 << 10,
        ..CfOptions::default()
    }
}

/// Options of a family of the store.
pub(crate) fn family_options(name: &str) -> CfOptions {
    match name {
        PACKED => CfOptions {
            compression: [Compression::Lz4; LEVELS],
            ..plain()
        },
        FREE => CfOptions {
            logged: false,
            ..plain()
        },
        LOG => CfOptions::append(1),
        LARGE => CfOptions {
            large_value_bytes: Some(64),
            ..plain()
        },
        _ => plain(),
    }
}

/// A store that is written, and what it holds.
pub(crate) struct Store {
    pub(crate) disk: Arc<SimFs>,
    pub(crate) db: Db,
    pub(crate) truth: Truth,
    /// Every row that was ever written.
    pub(crate) written: BTreeSet<(String, Vec<u8>, Vec<u8>)>,
    pub(crate) rng: Rng,
    pub(crate) fault: Fault,
    seed: u64,
    /// Indexes of the prefixes of the append family.
    ends: BTreeMap<u8, u64>,
    counter: u64,
}

impl Store {
    pub(crate) fn new(seed: u64, fault: Fault) -> Self {
        Self::on(&SimFs::new(), seed, fault, &[PACKED, FREE, LOG, LARGE])
    }

    /// A store with the family `default` and these.
    pub(crate) fn on(disk: &Arc<SimFs>, seed: u64, fault: Fault, families: &[&str]) -> Self {
        let db = Db::open(DIR, options(disk, seed, fault)).expect("an empty disk");
        db.open_cf("default", plain()).expect("a sound disk");
        let mut truth = Truth::from([("default".to_owned(), Rows::new())]);
        for &name in families {
            db.open_cf(name, family_options(name))
                .expect("a sound disk");
            truth.insert(name.to_owned(), Rows::new());
        }
        Self {
            disk: Arc::clone(disk),
            db,
            truth,
            written: BTreeSet::new(),
            rng: Rng::new(seed),
            fault,
            seed,
            ends: BTreeMap::new(),
            counter: 0,
        }
    }

    pub(crate) fn options(&self) -> Options {
        options(&self.disk, self.seed ^ 1, self.fault)
    }

    pub(crate) fn family(&self, name: &str) -> ColumnFamily {
        self.db.cf(name).expect("created before")
    }

    fn value(&mut self) -> Vec<u8> {
        self.counter += 1;
        let len = 4 + self.rng.index(120);
        let text = format!("{}-", self.counter).into_bytes();
        text.into_iter().cycle().take(len).collect()
    }

    fn key(&mut self) -> Vec<u8> {
        format!("key{:03}", self.rng.below(300)).into_bytes()
    }

    /// One random write.
    pub(crate) fn step(&mut self) {
        let names: Vec<String> = self.truth.keys().cloned().collect();
        let name = names[self.rng.index(names.len())].clone();
        let family = self.family(&name);
        let mut batch = WriteBatch::new();
        if name == LOG {
            self.append(&family, &mut batch);
        } else {
            for _ in 0..=self.rng.below(4) {
                match self.rng.below(12) {
                    0 => {
                        let (a, b) = (self.key(), self.key());
                        let (start, end) = if a < b { (a, b) } else { (b, a) };
                        let end = end[..6].to_vec();
                        if start < end {
                            batch.delete_range(&family, &start, &end);
                            let rows = self.truth.get_mut(&name).expect("there");
                            rows.retain(|key, _| *key < start || *key >= end);
                        }
                    }
                    1 | 2 => {
                        let key = self.key();
                        batch.delete(&family, &key);
                        self.truth.get_mut(&name).expect("there").remove(&key);
                    }
                    _ => {
                        let (key, value) = (self.key(), self.value());
                        batch.put(&family, &key, &value);
                        self.written
                            .insert((name.clone(), key.clone(), value.clone()));
                        self.truth.get_mut(&name).expect("there").insert(key, value);
                    }
                }
            }
        }
        let sync = family.is_logged() && self.rng.one_in(3);
        self.db
            .write(batch, WriteOptions { sync })
            .expect("a sound disk");
    }

    fn append(&mut self, family: &ColumnFamily, batch: &mut WriteBatch) {
        let prefix = *self.rng.pick(b"abc");
        let end = self.ends.get(&prefix).copied().unwrap_or(1);
        if self.rng.one_in(8) && end > 10 {
            let keep = end - 5;
            batch.truncate_front(family, &[prefix], keep);
            let rows = self.truth.get_mut(LOG).expect("there");
            rows.retain(|key, _| key[0] != prefix || key[1..] >= keep.to_be_bytes()[..]);
            return;
        }
        // Now and then over the last entry.
        let held = self.truth[LOG].contains_key(&entry(prefix, end - 1));
        let first = end - u64::from(held && self.rng.one_in(5));
        let values: Vec<Vec<u8>> = (0..=self.rng.below(3)).map(|_| self.value()).collect();
        batch.append(family, &[prefix], first, &values);
        let rows = self.truth.get_mut(LOG).expect("there");
        rows.retain(|key, _| key[0] != prefix || key[1..] < first.to_be_bytes()[..]);
        for (index, value) in (first..).zip(&values) {
            rows.insert(entry(prefix, index), value.clone());
            let row = (LOG.to_owned(), entry(prefix, index), value.clone());
            self.written.insert(row);
        }
        self.ends.insert(prefix, first + values.len() as u64);
    }

    /// Random writes, flushes and compactions.
    pub(crate) fn work(&mut self, steps: usize) {
        for _ in 0..steps {
            self.step();
            if self.rng.one_in(40) {
                self.db.flush_all().expect("a sound disk");
            }
            if self.rng.one_in(150) {
                let default = self.db.default_cf();
                self.db
                    .compact_range(&default, None, None)
                    .expect("a sound disk");
            }
        }
    }

    /// Everything written is durable, and the model is what every open finds.
    pub(crate) fn settle(&self) {
        if self.truth.contains_key(FREE) {
            self.db.flush(&self.family(FREE)).expect("a sound disk");
        }
        self.db.sync().expect("a sound disk");
    }
}

/// Key of an entry of the append family.
pub(crate) fn entry(prefix: u8, index: u64) -> Vec<u8> {
    [&[prefix][..], &index.to_be_bytes()].concat()
}

/// Everything that a database shows, read in both directions and by gets.
pub(crate) fn contents(db: &Db) -> Truth {
    let mut all = Truth::new();
    for family in db.list_cfs() {
        let range = |_| db.range(&family, &ReadOptions::default()).expect("read");
        let rows: Rows = range(())
            .map(|row| row.map(|(key, value)| (key, value.to_vec())))
            .collect::<Result<_, _>>()
            .expect("read");
        let back = range(()).rev().map(|row| row.expect("read").0);
        assert!(back.eq(rows.keys().rev().cloned()), "{family:?} backward");
        for (key, value) in &rows {
            let got = db.get(&family, key).expect("read");
            assert_eq!(got.as_deref(), Some(&value[..]), "{family:?}");
        }
        all.insert(family.name().to_owned(), rows);
    }
    all
}

/// What the database in `dir` shows when it is opened to write, on a copy of the disk.
pub(crate) fn opened(disk: &Arc<SimFs>, dir: impl AsRef<Path>) -> Truth {
    let copy = disk.crash(basalt_engine::fs::sim::Survival::ProcessDeath);
    let db = Db::open(dir, options(&copy, 99, Fault::None)).expect("it opens");
    let damage = db.verify().expect("read").damage;
    assert!(damage.is_empty(), "{damage:?}");
    contents(&db)
}
