//! One case: a database on a simulated disk, the history of its states, and what is done with it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use basalt_engine::{
    CfOptions, ColumnFamily, Db, DbIter, Error, Faults, ManualClock, Options, ReadOptions,
    Snapshot, WriteBatch, WriteOptions,
    executor::{Executor, SimExecutor},
    fs::{ReadMode, SimFs, sim::Survival},
};
use basalt_testkit::Rng;

use crate::model::{Join, Merged, Sieve, State, Step, TTL, sieved};

type Rows = BTreeMap<Vec<u8>, Merged>;
type Done<T = ()> = Result<T, String>;

/// What happened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) merges: u64,
    pub(crate) bad_operands: u64,
    /// Chains that compaction could not fold.
    pub(crate) failures: u64,
    /// Rows that were seen removed, and changed, by the filter.
    pub(crate) filtered: u64,
    pub(crate) changed: u64,
    /// Rows that were seen to be past their time.
    pub(crate) expired: u64,
    pub(crate) dropped_whole: u64,
    pub(crate) snapshots: u64,
    pub(crate) scans: u64,
    pub(crate) crashes: u64,
    /// Crashes that lost something.
    pub(crate) lost: u64,
    pub(crate) compactions: u64,
    /// Value files that there were when a life ended.
    pub(crate) value_files: u64,
    /// Scans by a cursor that was there before.
    pub(crate) refreshed: u64,
}

impl Counts {
    fn all(&self) -> [u64; 14] {
        [
            self.merges,
            self.bad_operands,
            self.failures,
            self.filtered,
            self.changed,
            self.expired,
            self.dropped_whole,
            self.snapshots,
            self.scans,
            self.crashes,
            self.lost,
            self.compactions,
            self.value_files,
            self.refreshed,
        ]
    }

    pub(crate) fn add(&mut self, other: &Self) {
        let sum = |at: usize| self.all()[at] + other.all()[at];
        let [merges, bad_operands, failures, filtered, changed, expired] = std::array::from_fn(sum);
        let [
            dropped_whole,
            snapshots,
            scans,
            crashes,
            lost,
            compactions,
            value_files,
            refreshed,
        ] = std::array::from_fn(|at| sum(at + 6));
        *self = Self {
            merges,
            bad_operands,
            failures,
            filtered,
            changed,
            expired,
            dropped_whole,
            snapshots,
            scans,
            crashes,
            lost,
            compactions,
            value_files,
            refreshed,
        };
    }

    pub(crate) fn reaches(&self, least: &Self) -> bool {
        self.all()
            .iter()
            .zip(least.all())
            .all(|(have, want)| *have >= want)
    }
}

/// A snapshot and what each family showed when it was taken.
struct Held {
    snapshot: Snapshot,
    rows: [Rows; 3],
}

pub(crate) struct World {
    rng: Rng,
    faults: Faults,
    family: CfOptions,
    fs: Arc<SimFs>,
    clock: Arc<ManualClock>,
    executor: Arc<SimExecutor>,
    now: u64,
    db: Db,
    cfs: Vec<ColumnFamily>,
    /// The state after each batch; the first is empty.
    history: Vec<State>,
    /// The last batch that survives a power cut.
    durable: usize,
    /// Rows of the second family as they were last seen: what the filter did is not taken back.
    seen: Rows,
    held: Vec<Held>,
    /// One for each family, made long ago.
    cursors: [Option<DbIter>; 3],
    copies: u64,
    counts: Counts,
}

fn text(error: Error) -> String {
    error.to_string()
}

fn keys() -> impl Iterator<Item = Vec<u8>> {
    (0..30).map(|at| format!("k{at:02}").into_bytes())
}

impl World {
    pub(crate) fn new(seed: u64, faults: Faults) -> Self {
        let mut rng = Rng::new(seed);
        let family = CfOptions {
            logged: true,
            write_buffer_bytes: *rng.pick(&[1 << 10, 2 << 10, 8 << 10]),
            block_bytes: *rng.pick(&[64, 256]),
            restart_interval: *rng.pick(&[1, 4]),
            table_bytes: 1 << 10,
            base_level_bytes: *rng.pick(&[1 << 10, 4 << 10]),
            level_multiplier: 2,
            l0_compaction_trigger: 1 + rng.index(4),
            large_value_bytes: *rng.pick(&[None, Some(64), Some(100)]),
            ..CfOptions::default()
        };
        let fs = SimFs::new();
        let clock = Arc::new(ManualClock::new(1));
        let executor = Arc::new(SimExecutor::new(rng.next_u64()));
        let (db, cfs) = open(&fs, &clock, faults, &family, &executor).expect("a new database");
        Self {
            rng,
            faults,
            family,
            fs,
            clock,
            executor,
            now: 1,
            db,
            cfs,
            history: vec![State::default()],
            durable: 0,
            seen: Rows::new(),
            held: Vec::new(),
            cursors: [const { None }; 3],
            copies: 0,
            counts: Counts::default(),
        }
    }

    /// Runs the case; `Err` is a broken promise.
    pub(crate) fn run(mut self, operations: u64) -> Done<Counts> {
        for _ in 0..operations {
            self.step()?;
        }
        self.compare_all()?;
        self.harvest();
        let report = self.db.verify().map_err(text)?;
        if let Some(damage) = report.damage.first() {
            return Err(format!("verify: {damage}"));
        }
        Ok(self.counts)
    }

    fn state(&self) -> &State {
        self.history.last().expect("it begins with the empty one")
    }

    fn step(&mut self) -> Done {
        match self.rng.below(100) {
            0..50 => self.write(),
            50..58 => self.get(),
            58..66 => self.compare_all(),
            66..72 => self.look_back(),
            72..78 => self.hold(),
            78..88 => {
                self.now += self.rng.below(TTL / 4);
                self.clock.set(self.now);
                Ok(())
            }
            88..90 => self.db.flush_all().map_err(text),
            90 | 91 => {
                let cf = self.rng.pick(&self.cfs).clone();
                self.db.compact_range(&cf, None, None).map_err(text)
            }
            92 => self.crash(),
            93 if self.rng.one_in(3) => self.checkpoint(),
            _ => {
                for _ in 0..self.rng.index(6) {
                    self.executor.help();
                }
                Ok(())
            }
        }
    }

    fn draw(&mut self) -> Step {
        let all: Vec<Vec<u8>> = keys().collect();
        let key = self.rng.pick(&all).clone();
        let family = self.rng.index(3);
        match self.rng.below(20) {
            0 | 1 => Step::Delete(family, key),
            2 => {
                let other = self.rng.pick(&all).clone();
                let (start, end) = if key < other {
                    (key, other)
                } else {
                    (other, key)
                };
                Step::DeleteRange(family, start, end)
            }
            _ if family == 0 && !self.rng.one_in(4) => {
                let operand = match self.rng.below(100) {
                    0 | 1 => b"bad".to_vec(),
                    2..20 => b"x1".to_vec(),
                    _ => format!("{}", self.rng.below(100)).into_bytes(),
                };
                self.counts.merges += 1;
                self.counts.bad_operands += u64::from(operand == b"bad");
                Step::Merge(key, operand)
            }
            _ => {
                let first = *self.rng.pick(b"rckp");
                let mut value = format!("{}{}", char::from(first), self.history.len()).into_bytes();
                // Some of the filtered ones are large.
                let most = if family == 1 { 140 } else { 40 };
                value.resize(value.len() + self.rng.index(most), b'.');
                Step::Put(family, key, value)
            }
        }
    }

    fn write(&mut self) -> Done {
        let count = if self.rng.one_in(4) {
            self.rng.range(1..6)
        } else {
            1
        };
        let steps: Vec<Step> = (0..count).map(|_| self.draw()).collect();
        let mut batch = WriteBatch::new();
        let mut next = self.state().clone();
        for step in &steps {
            next.apply(step, self.now);
            match step {
                Step::Put(family, key, value) => batch.put(&self.cfs[*family], key, value),
                Step::Merge(key, operand) => batch.merge(&self.cfs[0], key, operand),
                Step::Delete(family, key) => batch.delete(&self.cfs[*family], key),
                Step::DeleteRange(family, start, end) => {
                    batch.delete_range(&self.cfs[*family], start, end);
                }
            }
            // What is written anew is as it was written.
            if let Step::Put(1, key, _) | Step::Delete(1, key) = step {
                self.seen.remove(key);
            }
            if let Step::DeleteRange(1, start, end) = step {
                self.seen.retain(|key, _| key < start || key >= end);
            }
        }
        let options = WriteOptions {
            sync: self.rng.one_in(5),
        };
        self.history.push(next);
        self.db.write(batch, options).map_err(text)?;
        if options.sync {
            self.durable = self.history.len() - 1;
        }
        Ok(())
    }

    fn get(&mut self) -> Done {
        let all: Vec<Vec<u8>> = keys().collect();
        let key = self.rng.pick(&all).clone();
        for family in 0..3 {
            let cf = &self.cfs[family];
            let found = match self.rng.below(4) {
                0 => {
                    let mut value = b"old".to_vec();
                    let there = self.db.get_into(cf, &key, &mut value);
                    there.map(|there| there.then_some(value))
                }
                1 => {
                    let found = self.db.multi_get(cf, &[&key], &ReadOptions::default());
                    found.map(|mut found| found.remove(0).map(|value| value.to_vec()))
                }
                2 => match self.db.try_get(cf, &key, &ReadOptions::default()) {
                    Err(Error::Busy(_)) => continue,
                    found => found.map(|value| value.map(|value| value.to_vec())),
                },
                _ => self
                    .db
                    .get(cf, &key)
                    .map(|value| value.map(|value| value.to_vec())),
            };
            let found: Option<Merged> = match found {
                Ok(value) => value.map(Some),
                Err(Error::Merge { key: of, .. }) if of == key => Some(None),
                Err(error) => return Err(error.to_string()),
            };
            self.check(family, &key, found.as_ref())?;
        }
        Ok(())
    }

    /// Checks one row as it is now.
    fn check(&mut self, family: usize, key: &[u8], found: Option<&Merged>) -> Done {
        let state = self.history.last().expect("one at least");
        let wanted = match family {
            0 => state.merge.get(key).cloned(),
            1 => return self.check_filtered(key, found),
            _ => {
                let wanted = state.alive(self.now).remove(key);
                self.counts.expired += u64::from(wanted.is_none() && state.ttl.contains_key(key));
                wanted
            }
        };
        if found != wanted.as_ref() {
            let key = key.escape_ascii();
            return Err(format!("family {family}, {key}: {found:?}, not {wanted:?}"));
        }
        Ok(())
    }

    /// A row that the filter may have come across: what it did once stays.
    fn check_filtered(&mut self, key: &[u8], found: Option<&Merged>) -> Done {
        let found = found.cloned().flatten();
        let written = self.state().filter.get(key).cloned();
        let allowed: Vec<Option<Vec<u8>>> = match (&written, self.seen.get(key)) {
            (_, Some(seen)) => vec![seen.clone()],
            (None, None) => vec![None],
            (Some(value), None) => match value[0] {
                b'r' => vec![written.clone(), None],
                b'c' => vec![written.clone(), Some(sieved(value))],
                _ => vec![written.clone()],
            },
        };
        if !allowed.contains(&found) {
            let key = key.escape_ascii();
            return Err(format!("filtered {key}: {found:?}, of {allowed:?}"));
        }
        if found != written && !self.seen.contains_key(key) {
            self.counts.filtered += u64::from(found.is_none());
            self.counts.changed += u64::from(found.is_some());
            self.seen.insert(key.to_vec(), found);
        }
        Ok(())
    }

    fn compare_all(&mut self) -> Done {
        for family in 0..3 {
            let rows = self.scan(family, None)?;
            for key in keys() {
                self.check(family, &key, rows.get(&key))?;
            }
        }
        Ok(())
    }

    /// All rows of a family, forward or backward.
    fn scan(&mut self, family: usize, snapshot: Option<&Snapshot>) -> Done<Rows> {
        self.counts.scans += 1;
        let backward = self.rng.one_in(2);
        if snapshot.is_some() || self.rng.one_in(2) {
            return scan(&self.db, &self.cfs[family], snapshot, backward);
        }
        if let Some(cursor) = &mut self.cursors[family] {
            self.counts.refreshed += 1;
            cursor.refresh().map_err(text)?;
            return walk(cursor, backward);
        }
        let made = self.db.iter(&self.cfs[family], &ReadOptions::default());
        walk(self.cursors[family].insert(made.map_err(text)?), backward)
    }

    /// Takes a snapshot with what it shows, or lets one go.
    fn hold(&mut self) -> Done {
        if self.held.len() >= 3 {
            let at = self.rng.index(self.held.len());
            self.held.remove(at);
            return Ok(());
        }
        let snapshot = self.db.snapshot();
        let mut rows = [Rows::new(), Rows::new(), Rows::new()];
        for (family, rows) in rows.iter_mut().enumerate() {
            *rows = self.scan(family, Some(&snapshot))?;
        }
        let (state, now) = (self.state().clone(), self.now);
        if rows[0] != state.merge || rows[2] != state.alive(now) {
            return Err(format!("a new snapshot shows {rows:?}, not {state:?}"));
        }
        self.held.push(Held { snapshot, rows });
        self.counts.snapshots += 1;
        Ok(())
    }

    /// A snapshot shows what it showed.
    fn look_back(&mut self) -> Done {
        if self.held.is_empty() {
            return Ok(());
        }
        let at = self.rng.index(self.held.len());
        let snapshot = self.held[at].snapshot.clone();
        for family in 0..3 {
            let rows = self.scan(family, Some(&snapshot))?;
            let before = &self.held[at].rows[family];
            if rows != *before {
                return Err(format!(
                    "family {family} of a snapshot: {rows:?}, was {before:?}"
                ));
            }
        }
        Ok(())
    }

    fn harvest(&mut self) {
        let stats = self.db.stats();
        self.counts.failures += stats.merge_failures;
        self.counts.dropped_whole += stats.tables_dropped;
        self.counts.compactions += stats.compactions;
        let families = stats.families.iter();
        let files = families.map(|family| family.values.files as u64);
        self.counts.value_files += files.sum::<u64>();
    }

    /// Ends the database, and opens what is left.
    fn crash(&mut self) -> Done {
        self.harvest();
        self.held.clear();
        self.cursors = [const { None }; 3];
        let survival = match self.rng.below(4) {
            0 | 1 => Survival::ProcessDeath,
            2 => Survival::LoseUnsynced,
            _ => Survival::Random {
                seed: self.rng.next_u64(),
            },
        };
        let last = self.history.len() - 1;
        let least = if survival == Survival::ProcessDeath {
            last
        } else {
            self.durable
        };
        let image = self.fs.crash(survival);
        let executor = Arc::new(SimExecutor::new(self.rng.next_u64()));
        let opened = open(&image, &self.clock, self.faults, &self.family, &executor);
        let (db, cfs) = opened.map_err(|what| format!("open: {what}"))?;
        self.fs = image;
        self.executor = executor;
        self.db = db;
        self.cfs = cfs;
        let there = [self.scan(0, None)?, self.scan(2, None)?];
        let now = self.now;
        let fits = |state: &State| there[0] == state.merge && there[1] == state.alive(now);
        // The filtered family has no say: what the filter did may be lost or not.
        let found = (least..=last).rev().find(|&at| fits(&self.history[at]));
        let Some(found) = found else {
            let (first, last) = (&self.history[least], &self.history[last]);
            return Err(format!("{there:?} is no state from {first:?} to {last:?}"));
        };
        self.counts.crashes += 1;
        self.counts.lost += u64::from(found < last);
        // Of states that look the same in two families the third may differ: begin anew from what is there.
        let filter = self.scan(1, None)?;
        self.history.truncate(found + 1);
        let mut state = self.state().clone();
        state.filter = filter
            .into_iter()
            .map(|(key, value)| (key, value.expect("no merges there")))
            .collect();
        self.history.push(state);
        self.durable = self.history.len() - 1;
        self.seen.clear();
        self.db.sync().map_err(text)
    }

    fn checkpoint(&mut self) -> Done {
        self.copies += 1;
        let path = format!("/copy-{}", self.copies);
        self.db.checkpoint(&path).map_err(text)?;
        let executor = Arc::new(SimExecutor::new(0));
        let mut options = Options::with(Arc::clone(&self.fs) as _, executor);
        options.clock = Arc::clone(&self.clock) as _;
        let copy = Db::open(&path, options).map_err(text)?;
        let merge = copy.cf("merge").map_err(text)?;
        let ttl = copy.cf("ttl").map_err(text)?;
        let refused = copy.merge(&merge, b"k", b"v", WriteOptions::NO_SYNC);
        if !matches!(refused, Err(Error::InvalidArgument(_))) {
            return Err(format!("a merge without the operator: {refused:?}"));
        }
        let given = self.family.clone().merge_operator(Arc::new(Join));
        copy.open_cf("merge", given).map_err(text)?;
        let (rows, state) = (scan(&copy, &merge, None, false)?, self.state());
        if rows != state.merge || scan(&copy, &ttl, None, true)? != state.alive(self.now) {
            return Err("a checkpoint differs".to_owned());
        }
        copy.close().map_err(text)
    }
}

/// All rows of a family, at a snapshot or now. Backward only where no operand is bad.
fn scan(db: &Db, cf: &ColumnFamily, snapshot: Option<&Snapshot>, backward: bool) -> Done<Rows> {
    let options = snapshot.map_or_else(ReadOptions::default, ReadOptions::at);
    walk(&mut db.iter(cf, &options).map_err(text)?, backward)
}

fn walk(iter: &mut DbIter, backward: bool) -> Done<Rows> {
    let mut rows = Rows::new();
    let mut moved = iter.seek_to_first();
    loop {
        match moved {
            Ok(()) if !iter.valid() => break,
            Ok(()) => {
                rows.insert(iter.key().to_vec(), Some(iter.value().to_vec()));
                moved = iter.next();
            }
            Err(Error::Merge { key, .. }) => {
                rows.insert(key.clone(), None);
                moved = iter.seek(&[&key, &b"\0"[..]].concat());
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    if !backward || rows.values().any(Option::is_none) {
        return Ok(rows);
    }
    let mut again = Rows::new();
    iter.seek_to_last().map_err(text)?;
    while iter.valid() {
        again.insert(iter.key().to_vec(), Some(iter.value().to_vec()));
        iter.prev().map_err(text)?;
    }
    if rows != again {
        return Err(format!("forward {rows:?}, backward {again:?}"));
    }
    Ok(rows)
}

/// Opens the database with its three families.
fn open(
    fs: &Arc<SimFs>,
    clock: &Arc<ManualClock>,
    faults: Faults,
    family: &CfOptions,
    executor: &Arc<SimExecutor>,
) -> Done<(Db, Vec<ColumnFamily>)> {
    let mut options = Options::with(Arc::clone(fs) as _, Arc::clone(executor) as _);
    options.clock = Arc::clone(clock) as _;
    options.log_segment_bytes = (4096, 4096);
    options.reserve_bytes = 0;
    options.faults = faults;
    if family.restart_interval == 1 {
        options.read_mode = ReadMode::Pread;
    }
    let db = Db::open("/db", options).map_err(text)?;
    let kinds = [
        ("merge", family.clone().merge_operator(Arc::new(Join))),
        ("filter", family.clone().compaction_filter(Arc::new(Sieve))),
        ("ttl", family.clone().ttl(Duration::from_millis(TTL))),
    ];
    let cfs = kinds.map(|(name, options)| db.open_cf(name, options).map_err(text));
    let cfs = cfs.into_iter().collect::<Result<_, _>>()?;
    Ok((db, cfs))
}
