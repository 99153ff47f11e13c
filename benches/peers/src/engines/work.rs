//! The work: what each group of rows does with a store, checking every answer.
//!
//! A group is done by one process with one store, which it makes and leaves behind in its directory.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    data::{Chance, KEY, Key, Values, absent, ordered, scattered},
    files,
    measure::{Done, Figure, bytes_written, drive},
    store::{Kind, Pair, Settings, Store},
    ycsb::Ycsb,
};

/// Bytes of a value, but where a row says otherwise.
pub const VALUE: usize = 100;
/// Entries of a batch.
const BATCH: u64 = 100;
/// Overwrites a second beside readers.
const PACE: f64 = 20_000.0;
const READERS: usize = 3;
/// Bytes of a value of YCSB.
pub const YCSB_VALUE: usize = 1024;
const YCSB_THREADS: usize = 2;

/// How much work.
pub struct Size {
    pub entries: u64,
    /// Seconds of a row that has no end of its own.
    pub seconds: f64,
}

/// A group and what it needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// One random fill, and everything that reads what it leaves.
    Core,
    FillFour,
    FillSequential,
    FillBatches,
    Synced,
    SmallCache,
    Ycsb,
    Reopen,
    Space,
    /// Raft logs.
    Logs,
}

impl Group {
    pub const ALL: [Self; 10] = [
        Self::Core,
        Self::FillFour,
        Self::FillSequential,
        Self::FillBatches,
        Self::Synced,
        Self::SmallCache,
        Self::Ycsb,
        Self::Reopen,
        Self::Space,
        Self::Logs,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::FillFour => "fill-four",
            Self::FillSequential => "fill-sequential",
            Self::FillBatches => "fill-batches",
            Self::Synced => "synced",
            Self::SmallCache => "small-cache",
            Self::Ycsb => "ycsb",
            Self::Reopen => "reopen",
            Self::Space => "space",
            Self::Logs => "logs",
        }
    }

    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|group| group.name() == name)
    }

    /// Rows that hang on the disk vary, and are measured more often.
    pub fn rounds(self, rounds: usize) -> usize {
        if self == Self::Synced {
            3 * rounds
        } else {
            rounds
        }
    }

    /// Processes one after the other over the same files.
    pub fn stages(self) -> &'static [usize] {
        match self {
            // A process opens a store once: LMDB wants it so.
            Self::SmallCache | Self::Reopen => &[0, 1, 2],
            _ => &[0],
        }
    }
}

/// A group at work.
pub struct Work<'a> {
    pub kind: Kind,
    pub dir: &'a Path,
    pub size: &'a Size,
    pub values: Values,
    pub tell: &'a (dyn Fn(Figure) + Sync),
}

impl Work<'_> {
    pub fn run(&self, group: Group, stage: usize) {
        match (group, stage) {
            (Group::Core, _) => self.core(),
            (Group::FillFour, _) => self.fill_four(),
            (Group::FillSequential, _) => self.fill_sequential(),
            (Group::FillBatches, _) => self.fill_batches(),
            (Group::Synced, _) => self.synced(),
            (Group::SmallCache, 0) => self.small_cache_load(),
            (Group::SmallCache, stage) => self.small_cache(stage == 1),
            (Group::Ycsb, _) => self.ycsb(),
            (Group::Reopen, 0) => self.reopen_load(),
            (Group::Reopen, stage) => self.reopen(stage == 1),
            (Group::Space, _) => self.space(),
            (Group::Logs, _) => self.logs(),
        }
    }

    fn open(&self, settings: Settings) -> Box<dyn Store> {
        self.kind.open(self.dir, settings)
    }

    pub fn tell(&self, row: &str, done: &Done) {
        (self.tell)(Figure::new(row, done.rate()).times(&done.times));
    }

    fn tell_fill(&self, row: &str, done: &Done) {
        let figure = Figure::new(row, done.rate()).times(&done.times);
        (self.tell)(figure.written(done.bytes, done.units * (KEY + VALUE) as u64));
    }

    /// Seconds after which a fill is cut short, and its rate taken over what it did.
    fn patience(&self) -> f64 {
        self.size.seconds * 8.0
    }

    /// Puts the entries `from..to` in batches, in the order that `index` gives.
    fn load(
        &self,
        store: &dyn Store,
        from: u64,
        to: u64,
        len: usize,
        index: impl Fn(u64) -> (u64, u32),
    ) {
        let mut pairs: Vec<Pair> = Vec::new();
        for start in (from..to).step_by(BATCH as usize) {
            let end = (start + BATCH).min(to);
            pairs.resize((end - start) as usize, ([0; KEY], Vec::new()));
            for (pair, at) in pairs.iter_mut().zip(start..) {
                let (index, version) = index(at);
                pair.0 = scattered(index);
                self.values.make(index, version, len, &mut pair.1);
            }
            store.put_all(&pairs, false);
        }
    }

    /// Puts single entries in `threads` threads; the key of an index is `key`'s.
    fn fill(&self, store: &dyn Store, threads: u64, key: impl Fn(u64) -> Key + Sync) -> Done {
        drive(threads as usize, self.patience(), |thread| {
            let (mut value, key) = (Vec::new(), &key);
            move |turn| {
                let index = turn * threads + thread as u64;
                if index >= self.size.entries {
                    return None;
                }
                self.values.make(index, 0, VALUE, &mut value);
                store.put(&key(index), &value, false);
                Some(1)
            }
        })
    }

    fn check(&self, store: &dyn Store, key: &Key, index: u64, len: usize) -> u32 {
        let mut version = None;
        let found = store.get(key, &mut |value| {
            version = self.values.version(index, len, value);
        });
        assert!(found, "entry {index} is missing");
        version.unwrap_or_else(|| panic!("entry {index} has another value"))
    }

    fn gets(
        &self,
        store: &dyn Store,
        entries: u64,
        len: usize,
        threads: usize,
        seconds: f64,
    ) -> Done {
        drive(threads, seconds, |thread| {
            let mut chance = Chance::new(5 + thread as u64);
            move |_| {
                let index = chance.below(entries);
                self.check(store, &scattered(index), index, len);
                Some(1)
            }
        })
    }

    fn core(&self) {
        let store = self.open(Settings::default());
        let (store, entries) = (&*store, self.size.entries);
        let done = self.fill(store, 1, scattered);
        self.tell_fill("fill random, one writer", &done);
        self.load(store, done.units, entries, VALUE, |at| (at, 0));
        store.settle();

        let seconds = self.size.seconds;
        self.gets(store, entries, VALUE, 2, seconds / 2.0);
        for (threads, row) in [(1, "get, one thread"), (4, "get, four threads")] {
            let done = self.gets(store, entries, VALUE, threads, seconds);
            self.tell(row, &done);
        }
        let done = drive(1, seconds, |_| {
            let mut chance = Chance::new(8);
            move |_| {
                let found = store.get(&absent(&mut chance), &mut |_| ());
                assert!(!found, "an absent key was found");
                Some(1)
            }
        });
        self.tell("get of absent keys", &done);
        for backward in [false, true] {
            for count in [10, 100, 1000] {
                let done = self.seeks(store, count, backward);
                let step = if backward { "previous" } else { "next" };
                self.tell(&format!("seek and {count} {step}"), &done);
            }
        }
        for backward in [false, true] {
            let rate = self.scan(store, backward);
            let way = if backward { "backward" } else { "forward" };
            (self.tell)(Figure::new(&format!("full scan, {way}"), rate));
        }
        self.beside_a_writer(store);
    }

    /// Seeks anywhere and walks on; counts entries.
    fn seeks(&self, store: &dyn Store, count: u64, backward: bool) -> Done {
        drive(1, self.size.seconds, |_| {
            let mut chance = Chance::new(count);
            move |_| {
                let from = absent(&mut chance);
                let (mut seen, mut last) = (0, from);
                store.walk(Some(&from), backward, &mut |key, value| {
                    let key: Key = key.try_into().expect("a key of ours");
                    assert!(if backward { key < last } else { key > last }, "order");
                    if seen % 16 == 0 {
                        let index = Values::index(value).expect("a value of ours");
                        assert_eq!(key, scattered(index), "whose value this is");
                        assert!(self.values.version(index, VALUE, value).is_some(), "value");
                    }
                    (seen, last) = (seen + 1, key);
                    seen < count
                });
                let at_the_end = if backward {
                    from[0] == 0
                } else {
                    from[0] == 0xff
                };
                assert!(
                    seen == count || at_the_end || self.size.entries < 100_000,
                    "{seen} entries"
                );
                Some(seen)
            }
        })
    }

    /// Walks over everything; entries a second.
    fn scan(&self, store: &dyn Store, backward: bool) -> f64 {
        let sum = |sum: u64, key: &Key| {
            sum.wrapping_add(u64::from_be_bytes(key[8..].try_into().expect("eight")))
        };
        let wanted = (0..self.size.entries).fold(0, |all, index| sum(all, &scattered(index)));
        let start = Instant::now();
        let (mut seen, mut all, mut bytes) = (0, 0, 0);
        let mut last: Option<Key> = None;
        store.walk(None, backward, &mut |key, value| {
            let key: Key = key.try_into().expect("a key of ours");
            let in_order = last.is_none_or(|last| if backward { key < last } else { key > last });
            assert!(in_order, "order");
            last = Some(key);
            all = sum(all, &key);
            bytes += value.len();
            seen += 1;
            true
        });
        let seconds = start.elapsed().as_secs_f64();
        let complete =
            seen == self.size.entries && all == wanted && bytes as u64 == seen * VALUE as u64;
        assert!(
            complete,
            "a scan of {seen} of {} entries",
            self.size.entries
        );
        seen as f64 / seconds
    }

    fn beside_a_writer(&self, store: &dyn Store) {
        let (stop, entries) = (AtomicBool::new(false), self.size.entries);
        let this = self;
        let (reads, writes) = thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut chance = Chance::new(11);
                let (mut value, mut written) = (Vec::new(), 0);
                let start = Instant::now();
                while !stop.load(Ordering::Relaxed) {
                    let due = (start.elapsed().as_secs_f64() * PACE) as u64;
                    while written < due && !stop.load(Ordering::Relaxed) {
                        let index = chance.below(entries);
                        this.values.make(index, 1, VALUE, &mut value);
                        store.put(&scattered(index), &value, false);
                        written += 1;
                    }
                    thread::sleep(Duration::from_millis(1));
                }
                written as f64 / start.elapsed().as_secs_f64()
            });
            let reads = this.gets(store, entries, VALUE, READERS, 2.0 * this.size.seconds);
            stop.store(true, Ordering::Relaxed);
            (reads, writer.join().expect("the writer"))
        });
        self.tell("readers beside a writer: gets", &reads);
        let high = reads.times.micros(0.99);
        (self.tell)(Figure::new("readers beside a writer: p99 of a get", high));
        (self.tell)(Figure::new("readers beside a writer: puts", writes));
    }

    fn fill_four(&self) {
        let store = self.open(Settings::default());
        let done = self.fill(&*store, 4, scattered);
        self.tell_fill("fill random, four writers", &done);
        self.check(&*store, &scattered(0), 0, VALUE);
    }

    fn fill_sequential(&self) {
        let store = self.open(Settings::default());
        let done = self.fill(&*store, 1, ordered);
        self.tell_fill("fill sequential", &done);
        let middle = done.units / 2;
        self.check(&*store, &ordered(middle), middle, VALUE);
    }

    fn fill_batches(&self) {
        let store = self.open(Settings::default());
        let (this, entries) = (self, self.size.entries);
        let done = drive(1, self.patience(), |_| {
            let store = &*store;
            move |turn| {
                let start = turn * BATCH;
                if start >= entries {
                    return None;
                }
                let end = (start + BATCH).min(entries);
                this.load(store, start, end, VALUE, |at| (at, 0));
                Some(end - start)
            }
        });
        self.tell_fill("fill in batches of 100", &done);
        self.check(&*store, &scattered(7), 7, VALUE);
    }

    fn synced(&self) {
        let rows = [
            (1, 1, "one synced writer"),
            (16, 1, "16 synced writers"),
            (1, BATCH, "batches of 100, synced"),
        ];
        for (threads, batch, row) in rows {
            let settings = Settings {
                durable: true,
                ..Settings::default()
            };
            let store = self
                .kind
                .open(&self.dir.join(format!("{threads}-{batch}")), settings);
            let (this, store, next) = (self, &*store, &AtomicU64::new(0));
            let done = drive(threads, self.size.seconds, |_| {
                let mut pairs: Vec<Pair> = vec![([0; KEY], Vec::new()); batch as usize];
                move |_| {
                    let first = next.fetch_add(batch, Ordering::Relaxed);
                    for (pair, index) in pairs.iter_mut().zip(first..) {
                        pair.0 = scattered(index);
                        this.values.make(index, 0, VALUE, &mut pair.1);
                    }
                    match pairs.as_slice() {
                        [(key, value)] => store.put(key, value, true),
                        pairs => store.put_all(pairs, true),
                    }
                    Some(batch)
                }
            });
            let put = next.load(Ordering::Relaxed);
            for index in (0..put).step_by(put as usize / 200 + 1) {
                self.check(store, &scattered(index), index, VALUE);
            }
            self.tell_fill(row, &done);
        }
    }

    fn small_cache_settings(&self) -> Settings {
        Settings {
            cache: (self.size.entries as usize * (KEY + VALUE)) / 10,
            ..Settings::default()
        }
    }

    fn small_cache_load(&self) {
        let store = self.open(self.small_cache_settings());
        self.load(&*store, 0, self.size.entries, VALUE, |at| (at, 0));
        store.settle();
        store.close();
    }

    /// In a process of its own, whose maps are new; where it is `cold`, the system has nothing of the files in memory.
    fn small_cache(&self, cold: bool) {
        let entries = self.size.entries;
        if cold {
            files::forget(self.dir);
        } else {
            files::remember(self.dir);
        }
        let store = self.open(self.small_cache_settings());
        if cold {
            let done = self.gets(&*store, entries, VALUE, 4, self.size.seconds);
            self.tell("get, small cache, files on the disk only", &done);
        } else {
            self.gets(&*store, entries, VALUE, 2, self.size.seconds / 2.0);
            let done = self.gets(&*store, entries, VALUE, 1, self.size.seconds);
            self.tell("get, small cache, files in the system's", &done);
        }
        store.close();
    }

    fn ycsb(&self) {
        let entries = self.size.entries / 7;
        let store = self.open(Settings::default());
        let store = &*store;
        self.load(store, 0, entries, YCSB_VALUE, |at| (at, 0));
        store.settle();
        self.gets(store, entries, YCSB_VALUE, 2, self.size.seconds / 2.0);
        let work = Ycsb::new(store, &self.values, entries);
        for mix in *b"ABCFDE" {
            let done = drive(YCSB_THREADS, self.size.seconds, |thread| {
                let mut chance = Chance::new(u64::from(mix) * 100 + thread as u64);
                let (mut value, work) = (Vec::new(), &work);
                move |_| {
                    work.turn(mix, &mut chance, &mut value);
                    Some(1)
                }
            });
            self.tell(&format!("YCSB {}", char::from(mix)), &done);
            // Who has written more in this mix has no more to do in the background of the next.
            store.settle();
        }
    }

    fn reopen_settings(&self) -> Settings {
        Settings {
            memtable: 1 << 30,
            ..Settings::default()
        }
    }

    fn reopen_load(&self) {
        let entries = self.size.entries;
        let store = self.open(self.reopen_settings());
        self.load(&*store, 0, entries, VALUE, |at| (at, 0));
        let mut value = Vec::new();
        self.values.make(entries, 0, VALUE, &mut value);
        store.put(&scattered(entries), &value, true);
        // Nothing is closed, as after a kill.
        std::process::abort();
    }

    fn reopen(&self, killed: bool) {
        let entries = self.size.entries;
        let start = Instant::now();
        let store = self.open(self.reopen_settings());
        self.check(&*store, &scattered(entries), entries, VALUE);
        let seconds = start.elapsed().as_secs_f64();
        let way = if killed { "kill" } else { "close" };
        (self.tell)(Figure::new(&format!("reopen after a {way}"), seconds));
        for index in (0..entries).step_by(entries as usize / 5000 + 1) {
            self.check(&*store, &scattered(index), index, VALUE);
        }
        store.settle();
        store.close();
    }

    fn space(&self) {
        const LEN: usize = 400;
        let entries = self.size.entries / 4;
        let payload = entries * (KEY + LEN) as u64;
        let settings = Settings {
            cache: 128 << 20,
            ..Settings::default()
        };
        let (before, peak) = (bytes_written(), files::Peak::begin());
        let store = self.open(settings);
        self.load(&*store, 0, entries, LEN, |at| (at, 0));
        // Odd and not a multiple of the count's factors in the runs there are: each index comes once.
        for (version, stride) in [(1, 7919), (2, 104_729), (3, 1_299_709)] {
            self.load(&*store, 0, entries, LEN, |at| {
                (at * stride % entries, version)
            });
        }
        store.settle();
        let mut chance = Chance::new(4);
        for _ in 0..10_000 {
            let index = chance.below(entries);
            let version = self.check(&*store, &scattered(index), index, LEN);
            assert_eq!(version, 3, "entry {index}");
        }
        let size = files::bytes(self.dir) as f64 / payload as f64;
        (self.tell)(Figure::new("disk space after overwrites", size));
        store.close();
        let written = (bytes_written() - before) as f64 / (4 * payload) as f64;
        (self.tell)(Figure::new("write amplification", written));
        (self.tell)(Figure::new("peak memory of its own", peak.end()));
    }
}
