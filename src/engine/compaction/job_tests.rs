//! Jobs against a model: a family that is written, flushed, ingested into and compacted at random,
//! with several compactions under way at a time, must read at every snapshot as a map would.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
};

use super::*;
use crate::{
    cache::BlockCache,
    compaction::{
        Cursors, ManualPick, PickContext, Reason, Target, ingest_level, pick, pick_range,
    },
    executor::{SimExecutor, SplitMix64},
    fs::{ReadMode, SimFs, sim::OpKind, sim::fail_nth},
    key::{ValueKind, trailer_kind, trailer_seq},
    memtable::Memtable,
    options::{Compression, MemtableKind},
    table::key_hash,
    tables::Tables,
    values::live_bytes,
    version::{
        FamilyCreated, KeySpan, LogStart, ManifestState, ObsoleteTables, TableAdded, VersionEdit,
    },
};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// Keys `k000` to `k119`.
const KEYS: u64 = 120;

/// Small enough that a few hundred writes reach several levels.
fn options(rng: &mut SplitMix64) -> CfOptions {
    let mut compression = [Compression::None; LEVELS];
    if rng.below(2) == 0 {
        compression[4..].fill(Compression::Lz4);
    }
    let large = 5 + usize::try_from(rng.below(35)).expect("small");
    CfOptions {
        block_bytes: 128,
        table_bytes: 700 + rng.below(1500),
        base_level_bytes: 2000 + rng.below(4000),
        level_multiplier: 2 + rng.below(3),
        l0_compaction_trigger: 2 + usize::try_from(rng.below(4)).expect("small"),
        compression,
        large_value_bytes: (rng.below(3) > 0).then_some(large),
        ..CfOptions::default()
    }
}

/// What happened, over all runs: a test that reaches too little of it fails.
#[derive(Debug, Default)]
struct Counts {
    merges: usize,
    moves: usize,
    drops: usize,
    cut: usize,
    deep: usize,
    together: usize,
    ingested_below: usize,
    split_tombstones: usize,
    pointers: usize,
    values_removed: usize,
    values_left: usize,
}

struct World {
    fs: Arc<SimFs>,
    executor: SimExecutor,
    opener: Arc<dyn TableOpener>,
    options: CfOptions,
    state: ManifestState,
    obsolete: Arc<ObsoleteTables>,
    next_file: Cell<u64>,
    rng: SplitMix64,
    /// What is readable at each sequence number.
    history: Vec<Model>,
    visible: u64,
    snapshots: BTreeSet<u64>,
    cursors: Cursors,
    /// Done, but not installed.
    running: Vec<(Compaction, JobOutput)>,
    stop: AtomicBool,
    counts: Counts,
    faults: Faults,
}

fn dir() -> &'static Path {
    Path::new("/db")
}

impl World {
    fn new(seed: u64) -> Self {
        let fs = SimFs::new();
        fs.create_dir_all(dir()).expect("no faults");
        let mut rng = SplitMix64(seed);
        let options = options(&mut rng);
        let mut state = ManifestState::default();
        let first = VersionEdit {
            db_id: Some(1),
            next_file_number: Some(2),
            last_seq: Some(SequenceNumber::ZERO),
            log: Some(LogStart {
                segment: 1,
                base: 0,
            }),
            next_family_id: Some(1),
            created: vec![FamilyCreated {
                id: 0,
                name: "default".into(),
                options: options.clone(),
            }],
            ..VersionEdit::default()
        };
        state.apply(&first).expect("a good first edit");
        let mode = if rng.below(2) == 0 {
            ReadMode::Mapped
        } else {
            ReadMode::Pread
        };
        let cache = BlockCache::new(1 << 20);
        let files = Tables {
            dir: dir().into(),
            fs: Arc::clone(&fs) as _,
            mode,
            cache,
            values: Arc::clone(&state.values),
        };
        Self {
            fs,
            executor: SimExecutor::new(seed),
            opener: Arc::new(files),
            options,
            state,
            obsolete: Arc::default(),
            next_file: Cell::new(2),
            rng,
            history: vec![Model::new()],
            visible: 0,
            snapshots: BTreeSet::new(),
            cursors: Cursors::default(),
            running: Vec::new(),
            stop: AtomicBool::new(false),
            counts: Counts::default(),
            faults: Faults::default(),
        }
    }

    fn version(&self) -> Arc<Version> {
        Arc::clone(&self.state.family(0).expect("never dropped").version)
    }

    fn last_seq(&self) -> u64 {
        self.history.len() as u64 - 1
    }

    fn boundaries(&self) -> Vec<SequenceNumber> {
        let mut all = self.snapshots.clone();
        all.insert(self.visible);
        all.into_iter().map(SequenceNumber).collect()
    }

    fn with_job<R>(&self, job: impl FnOnce(&JobContext<'_>) -> R) -> R {
        job(&JobContext {
            fs: &*self.fs,
            dir: dir(),
            options: &self.options,
            executor: &self.executor,
            opener: &self.opener,
            new_file_number: &|| self.next_file.replace(self.next_file.get() + 1),
            boundaries: &self.boundaries(),
            merger: None,
            merge_failures: &AtomicU64::new(0),
            rows: RowRules {
                ttl: None,
                times: &[],
                filter: None,
                newest_snapshot: SequenceNumber::ZERO,
                faults: Faults::default(),
            },
            faults: self.faults,
            stop: &self.stop,
            pace: &crate::paced::WritePace::default(),
            pause: &|_| Ok(()),
        })
    }

    fn with_pick<R>(&self, ask: impl FnOnce(&Arc<Version>, &PickContext<'_>) -> R) -> R {
        let running: Vec<Target> = self
            .running
            .iter()
            .filter_map(|(compaction, _)| compaction.target())
            .collect();
        let context = PickContext {
            oldest_time: 0,
            faults: Faults::default(),
            boundaries: &self.boundaries(),
            running: &running,
            cursors: &self.cursors,
            tombstones: &|table| {
                Some(Arc::clone(
                    table.table(&*self.opener).expect("no faults").tombstones(),
                ))
            },
        };
        ask(&self.version(), &context)
    }

    fn apply(&mut self, mut edit: VersionEdit) {
        edit.next_file_number = Some(self.next_file.get());
        edit.last_seq = Some(SequenceNumber(self.last_seq()));
        for table in self.state.apply(&edit).expect("own edits fit") {
            table.mark_obsolete(&self.obsolete);
        }
        self.version().check().expect("every version is good");
        self.remove_obsolete();
    }

    /// Removes what no version has any more.
    fn remove_obsolete(&mut self) {
        for number in self.obsolete.take() {
            assert!(!self.state.has_table(number), "{number} is in use");
            self.fs
                .remove_file(&filename::table(dir(), number))
                .expect("removed once");
        }
        for number in self.obsolete.take_values() {
            assert!(
                self.state.values.get(number).is_none(),
                "{number} is in use"
            );
            self.fs
                .remove_file(&filename::values(dir(), number))
                .expect("removed once");
            self.counts.values_removed += 1;
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.rng.below(bound as u64)).expect("below a usize")
    }

    fn random_key(&mut self) -> Vec<u8> {
        format!("k{:03}", self.rng.below(KEYS)).into_bytes()
    }

    /// A put, a delete or a range delete; the readable state after it is noted.
    fn write(&mut self, memtable: &Memtable) {
        let mut model = self.history.last().expect("never empty").clone();
        let seq = SequenceNumber(self.history.len() as u64);
        let key = self.random_key();
        match self.rng.below(20) {
            0..3 => {
                memtable.insert(InternalKey::new(&key, seq, ValueKind::Delete), b"");
                model.remove(&key);
            }
            3 => {
                let end = self.random_key();
                let (start, end) = (key.clone().min(end.clone()), key.max(end));
                if start < end {
                    memtable.insert_range_tombstone(&start, &end, seq);
                    model.retain(|key, _| *key < start || *key >= end);
                }
            }
            _ => {
                let value = format!("{}:{}", seq.0, "v".repeat(self.below(40)));
                memtable.insert(
                    InternalKey::new(&key, seq, ValueKind::Put),
                    value.as_bytes(),
                );
                model.insert(key, value.into_bytes());
            }
        }
        self.history.push(model);
    }

    /// Some writes, flushed into L0 at a moment when only a part of them is visible.
    fn flush(&mut self) {
        let memtable = Arc::new(Memtable::new(MemtableKind::default()));
        for _ in 0..1 + self.rng.below(40) {
            self.write(&memtable);
        }
        let hidden = self.last_seq() - self.visible;
        self.visible += self.rng.below(hidden + 1);
        let made = self
            .with_job(|job| flush_to_table(vec![memtable.iter()], &memtable.tombstones(), job))
            .expect("no faults");
        let added = made.map(|table| TableAdded {
            family: 0,
            level: 0,
            table,
        });
        let flushed = vec![(0, SequenceNumber(self.last_seq()))];
        let added = added.into_iter().collect();
        self.apply(VersionEdit {
            added,
            flushed,
            ..VersionEdit::default()
        });
        self.check();
        self.visible = self.last_seq();
    }

    /// A table from outside, all of it one write, as deep as it may go.
    fn ingest(&mut self) {
        let seq = SequenceNumber(self.history.len() as u64);
        let mut model = self.history.last().expect("never empty").clone();
        let number = self.next_file.replace(self.next_file.get() + 1);
        let path = filename::table(dir(), number);
        let file = self.fs.create(&path).expect("no faults");
        let mut builder = TableBuilder::new(file, path, number, &self.options, 0);
        let first = self.rng.below(KEYS);
        let keys: Vec<Vec<u8>> = (first..(first + 1 + self.rng.below(5)).min(KEYS))
            .map(|number| format!("k{number:03}").into_bytes())
            .collect();
        if self.rng.below(3) == 0 {
            let end = [keys.last().expect("one at least"), &b"5"[..]].concat();
            builder.add_tombstone(&RangeTombstone {
                start: keys[0].clone(),
                end: end.clone(),
                seq: SequenceNumber::ZERO,
            });
            model.retain(|key, _| *key < keys[0] || *key >= end);
        }
        for key in keys {
            let value = format!("ingested at {}", seq.0).into_bytes();
            let internal = InternalKey::new(&key, SequenceNumber::ZERO, ValueKind::Put);
            builder.add(internal, &value).expect("no faults");
            model.insert(key, value);
        }
        let info = builder.finish().expect("no faults");
        let table = TableRecord {
            number,
            info,
            hidden: 0,
            global_seq: Some(seq),
            values: Vec::new(),
        };
        let meta = TableMeta::new(table.clone());
        let level = self.with_pick(|version, c| ingest_level(version, c.running, meta.span()));
        self.counts.ingested_below += usize::from(level > 0);
        self.history.push(model);
        let added = vec![TableAdded {
            family: 0,
            level,
            table,
        }];
        self.apply(VersionEdit {
            added,
            ..VersionEdit::default()
        });
        self.visible = self.last_seq();
        self.check();
    }

    /// Runs a compaction, to be installed later.
    fn start(&mut self, mut compaction: Compaction) {
        compaction.claim();
        self.cursors.advance(&compaction);
        let output = self
            .with_job(|job| run(&compaction, job))
            .expect("no faults");
        match compaction.kind {
            Kind::Merge => self.counts.merges += 1,
            Kind::Move => self.counts.moves += 1,
            Kind::Drop => self.counts.drops += 1,
        }
        let made = &output.tables;
        self.counts.cut += usize::from(made.len() > 1);
        self.counts.pointers += usize::from(made.iter().any(|table| !table.values.is_empty()));
        self.counts.values_left += usize::from(compaction.reason == Reason::Values);
        self.counts.deep += usize::from((1..LEVELS - 1).contains(&compaction.level));
        let cut_tombstone = |table: &TableRecord| {
            table.info.largest_exclusive
                && made
                    .iter()
                    .any(|next| next.info.smallest == table.info.largest)
        };
        self.counts.split_tombstones += made.iter().filter(|table| cut_tombstone(table)).count();
        self.running.push((compaction, output));
        self.counts.together = self.counts.together.max(self.running.len());
    }

    fn install_one(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let at = self.below(self.running.len());
        let (compaction, output) = self.running.swap_remove(at);
        self.apply(compaction.edit(0, output.tables));
        drop(compaction);
        self.check();
    }

    fn start_picked(&mut self) -> bool {
        let picked = self.with_pick(|version, context| pick(version, &self.options, context));
        let found = picked.is_some();
        if let Some(compaction) = picked {
            self.start(compaction);
        }
        found
    }

    fn start_manual(&mut self) {
        let (a, b) = (self.random_key(), self.random_key());
        let level = self.below(LEVELS);
        let span = KeySpan {
            start: (&a).min(&b),
            end: std::ops::Bound::Included((&a).max(&b)),
        };
        let step = self.with_pick(|version, context| {
            pick_range(
                version,
                &self.options,
                context,
                span,
                SequenceNumber::MAX,
                level,
            )
        });
        if let ManualPick::Work(compaction) = step {
            self.start(compaction);
        }
    }

    fn compact_everything(&mut self) {
        for level in 0..LEVELS {
            loop {
                let step = self.with_pick(|version, context| {
                    pick_range(
                        version,
                        &self.options,
                        context,
                        KeySpan::ALL,
                        SequenceNumber::MAX,
                        level,
                    )
                });
                match step {
                    ManualPick::Work(compaction) => self.start(compaction),
                    ManualPick::Busy => panic!("nothing runs"),
                    ManualPick::Done => break,
                }
                self.install_one();
            }
        }
    }

    /// What a reader at `at` sees, found as a reader does: newest first, until one says something.
    fn get(&self, version: &Version, key: &[u8], at: u64) -> Option<Vec<u8>> {
        let at = SequenceNumber(at);
        let l0 = version
            .level(0)
            .iter()
            .filter(|table| table.span().contains(key));
        let below = (1..LEVELS).filter_map(|level| version.find(level, key));
        for meta in l0.chain(below) {
            let table = meta.table(&*self.opener).expect("no faults");
            let covered = table.tombstones().covering_seq(key, at);
            let found = table
                .get(InternalKey::seek_to(key, at), key_hash(key))
                .expect("no faults");
            if let Some((trailer, value)) = found
                && trailer_seq(trailer) >= covered
            {
                return match trailer_kind(trailer).expect("of a known kind") {
                    ValueKind::Put => Some(value.to_vec()),
                    ValueKind::Delete => None,
                    ValueKind::Merge => unreachable!("nobody merges here"),
                    ValueKind::Pointer => {
                        Some(self.opener.value(&value).expect("no faults").to_vec())
                    }
                };
            }
            if covered > SequenceNumber::ZERO {
                return None;
            }
        }
        None
    }

    /// Every key reads at every boundary as the model says.
    fn check(&self) {
        let version = self.version();
        for at in self.boundaries() {
            let model = &self.history[usize::try_from(at.0).expect("small")];
            for number in 0..KEYS {
                let key = format!("k{number:03}").into_bytes();
                let got = self.get(&version, &key, at.0);
                assert_eq!(
                    got.as_ref(),
                    model.get(&key),
                    "{} at {at:?} in\n{version:?}",
                    key.escape_ascii()
                );
            }
        }
    }

    /// Every table is sound, and holds its entries and range tombstones within its bounds.
    fn check_tables(&self) {
        let version = self.version();
        for (_, meta) in version.tables() {
            let table = meta.table(&*self.opener).expect("no faults");
            table.verify(meta.info.crc).expect("sound");
            let mut iter = table.iter();
            iter.seek_to_first().expect("no faults");
            while iter.valid() {
                assert!(meta.span().contains(iter.key().user_key), "{meta:?}");
                assert!(
                    (meta.min_seq()..=meta.max_seq()).contains(&iter.key().seq()),
                    "{meta:?}"
                );
                iter.next().expect("no faults");
            }
            for tombstone in table.tombstones().all() {
                assert!(
                    meta.info.smallest <= tombstone.start && tombstone.end <= meta.info.largest
                );
            }
        }
    }

    /// The value files there are, are those that tables need, and none is mostly garbage.
    fn check_values(&mut self) {
        self.remove_obsolete();
        let needed = live_bytes(&self.version());
        let there: Vec<u64> = (self.fs.list_dir(dir()).expect("no faults").iter())
            .filter_map(|name| match filename::parse(name) {
                Some(filename::FileKind::Values(number)) => Some(number),
                _ => None,
            })
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        assert_eq!(there, needed.keys().copied().collect::<Vec<_>>());
        for (file, live) in needed.values() {
            assert!(
                *live * 2 >= file.record.records(),
                "{file:?} has {live} live bytes"
            );
        }
    }

    /// Entries of all tables together.
    fn entries(&self) -> u64 {
        self.version()
            .tables()
            .map(|(_, table)| table.info.entries)
            .sum()
    }

    fn step(&mut self) {
        match self.rng.below(12) {
            0..3 => self.flush(),
            3 => self.ingest(),
            4 => {
                self.snapshots.insert(self.visible);
            }
            5 | 6 => {
                let all: Vec<_> = self.snapshots.iter().copied().collect();
                if !all.is_empty() {
                    let at = self.below(all.len());
                    self.snapshots.remove(&all[at]);
                }
            }
            7..9 => {
                self.start_picked();
            }
            9 => self.start_manual(),
            _ => self.install_one(),
        }
    }
}

#[path = "job_cases.rs"]
mod cases;
