//! Many threads on one database, and power cuts and failing disks in the midst of it.
//!
//! Writers of both kinds (waiting, and by ticket with a callback), flushes, ingests, checkpoints, compactions,
//! families that come and go, readers and snapshots meet on real threads over the simulated disk, with
//! segments, memtables and tables so small that everything happens often. What is checked:
//! - nothing hangs: every call and every callback comes back within patience;
//! - an acknowledged write is seen at once, and a batch as a whole;
//! - after a power cut at any moment, the recovered writes are a prefix of the write order that holds every
//!   acknowledged synced write, and none in half; after the death of the process, and in a checkpoint, it
//!   holds every acknowledged write;
//! - all of this also where writes and syncs fail now and then, and `resume` is called.
//!
//! `BASALT_LONG=n` lets it run n times as long.

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use basalt_testkit::long_factor;

use basalt_engine::{
    CfOptions, Db, Error, Ingest, MemtableKind, Options, ReadOptions, SequenceNumber, WriteBatch,
    WriteOptions,
    executor::ThreadPool,
    fs::{
        SimFs,
        sim::{Failure, Op, OpKind, Survival, fail_range},
    },
};

/// How long the threads run.
const DURATION: Duration = Duration::from_secs(4);
/// More than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// Threads that wait for each write, and threads that take tickets.
const WAITING: usize = 3;
const TICKETS: usize = 2;
const WRITERS: usize = WAITING + TICKETS;
/// Tickets of one thread under way at a time.
const IN_FLIGHT: usize = 16;
/// The two families that each batch of a writer goes to.
const FAMILIES: [&str; 2] = ["left", "right"];

/// What one writer knows of its writes: write `i` (from 1) has `seqs[i - 1]`, once it is known.
#[derive(Default)]
struct History {
    seqs: Mutex<Vec<Option<SequenceNumber>>>,
    /// Last write that was acknowledged, and the last one as durable.
    acknowledged: AtomicU64,
    durable: AtomicU64,
}

struct World {
    fs: Arc<SimFs>,
    db: Db,
    histories: Vec<History>,
    over: AtomicBool,
    /// The disk fails now and then.
    breaks: bool,
    cuts: AtomicU64,
    resumed: AtomicU64,
}

fn small(fs: &Arc<SimFs>) -> Options {
    let mut options = Options::with(Arc::clone(fs) as _, Arc::new(ThreadPool::new(4)));
    options.log_segment_bytes = (2 << 10, 8 << 10);
    options.max_log_bytes = 64 << 10;
    options.max_manifest_bytes = 4 << 10;
    options.memtable_budget_bytes = 256 << 10;
    options
}

fn small_family() -> CfOptions {
    CfOptions {
        write_buffer_bytes: 16 << 10,
        table_bytes: 8 << 10,
        base_level_bytes: 32 << 10,
        l0_compaction_trigger: 2,
        l0_slowdown_trigger: 6,
        l0_stop_trigger: 8,
        ..CfOptions::default()
    }
}

fn key(writer: usize) -> Vec<u8> {
    format!("writer {writer}").into_bytes()
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"))
}

/// Write `i` of a writer: its counter in both families, and some bytes to fill them.
fn batch(db: &Db, writer: usize, i: u64) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for name in FAMILIES {
        let cf = db.cf(name).expect("never dropped");
        let mut value = i.to_le_bytes().to_vec();
        batch.put(&cf, &key(writer), &value);
        value.resize(8 + usize::try_from(i * 7919 % 300).expect("small"), 7);
        batch.put(
            &cf,
            &[key(writer), i.to_be_bytes().to_vec()].concat(),
            &value,
        );
        if i.is_multiple_of(50) {
            let from = [key(writer), 0_u64.to_be_bytes().to_vec()].concat();
            let to = [key(writer), (i - 25).to_be_bytes().to_vec()].concat();
            batch.delete_range(&cf, &from, &to);
        }
    }
    batch
}

impl World {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// What came of a call; on a disk that fails it may be nothing.
    fn sound<T>(&self, result: Result<T, Error>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(Error::Io { .. } | Error::ReadOnly { .. }) if self.breaks => {
                thread::yield_now();
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn acknowledged(&self, writer: usize, i: u64, seq: SequenceNumber, durable: bool) {
        let history = &self.histories[writer];
        let at = usize::try_from(i - 1).expect("small");
        history.seqs.lock().expect("not poisoned")[at] = Some(seq);
        history.acknowledged.fetch_max(i, Ordering::SeqCst);
        if durable {
            history.durable.fetch_max(i, Ordering::SeqCst);
        }
    }

    fn begin(&self, writer: usize) -> u64 {
        let mut seqs = self.histories[writer].seqs.lock().expect("not poisoned");
        seqs.push(None);
        seqs.len() as u64
    }

    /// Writes and waits.
    fn write(&self, writer: usize) {
        while !self.is_over() {
            let i = self.begin(writer);
            let sync = i.is_multiple_of(3);
            let batch = batch(&self.db, writer, i);
            let written = self.db.write(batch, WriteOptions { sync });
            let Some(seq) = self.sound(written) else {
                continue;
            };
            self.acknowledged(writer, i, seq, sync);
            for name in FAMILIES {
                let cf = self.db.cf(name).expect("never dropped");
                let value = self.db.get(&cf, &key(writer)).expect("read");
                assert_eq!(
                    number(&value.expect("there")),
                    i,
                    "what was written is seen"
                );
            }
        }
    }

    /// Takes tickets, and lets callbacks tell.
    fn submit(self: &Arc<Self>, writer: usize) {
        let (done, dones): (Sender<()>, Receiver<()>) = channel();
        let mut under_way = 0;
        while !self.is_over() || under_way > 0 {
            if self.is_over() || under_way == IN_FLIGHT {
                dones.recv_timeout(PATIENCE).expect("a callback is called");
                under_way -= 1;
                continue;
            }
            let i = self.begin(writer);
            let sync = !i.is_multiple_of(4);
            let taken = loop {
                let batch = batch(&self.db, writer, i);
                match self.db.submit(batch, WriteOptions { sync }) {
                    Err(Error::Busy(_)) => thread::yield_now(),
                    taken => break taken,
                }
            };
            let Some(ticket) = self.sound(taken) else {
                continue;
            };
            let (world, done) = (Arc::clone(self), done.clone());
            ticket.on_done(move |result| {
                if let Some(seq) = world.sound(result) {
                    world.acknowledged(writer, i, seq, sync);
                }
                done.send(()).expect("the writer waits");
            });
            under_way += 1;
        }
    }

    /// Reads at snapshots: both families agree at each.
    fn read(&self) {
        while !self.is_over() {
            let snapshot = self.db.snapshot();
            for writer in 0..WRITERS {
                let [left, right] = FAMILIES.map(|name| {
                    let cf = self.db.cf(name).expect("never dropped");
                    let options = ReadOptions::at(&snapshot);
                    let value = self.db.get_with(&cf, &key(writer), &options);
                    value.expect("read").map(|value| number(&value))
                });
                assert_eq!(left, right, "a batch is seen as a whole");
            }
        }
    }

    /// Flushes, compacts, ingests, and lets families come and go.
    fn disturb(&self) {
        let mut round = 0_u32;
        while !self.is_over() {
            round += 1;
            let left = self.db.cf(FAMILIES[0]).expect("never dropped");
            match round % 4 {
                0 => drop(self.sound(self.db.flush_all())),
                1 => drop(self.sound(self.db.compact_range(&left, None, Some(b"writer 2")))),
                2 => {
                    let path = format!("outside {round}");
                    if self.sound(self.ingest(&path, round)).is_some() {
                        let value = self.db.get(&left, b"ingested").expect("read");
                        assert_eq!(value.as_deref(), Some(&round.to_le_bytes()[..]));
                    }
                }
                _ => drop(self.sound(self.guest())),
            }
        }
    }

    fn ingest(&self, path: &str, value: u32) -> Result<SequenceNumber, Error> {
        let left = self.db.cf(FAMILIES[0])?;
        let mut table = self.db.table_writer(&left, path)?;
        table.put(b"ingested", &value.to_le_bytes())?;
        let mut request = Ingest::new();
        request.table(&left, table.finish()?);
        self.db.ingest(request)
    }

    fn guest(&self) -> Result<(), Error> {
        let guest = self.db.open_cf("guest", small_family())?;
        for i in 0..20_u8 {
            self.db
                .put(&guest, &[i], &[i; 500], WriteOptions::NO_SYNC)?;
        }
        self.db.drop_cf(&guest)
    }

    /// Lets an operation of the disk fail, and resumes.
    fn break_and_resume(&self) {
        let mut round = 0_u64;
        while !self.is_over() {
            round += 1;
            let kinds = [OpKind::Sync, OpKind::Write, OpKind::SyncDir];
            let kind = kinds[usize::try_from(round % 3).expect("below three")];
            let matches = move |op: &Op| op.kind == kind && op.path.starts_with("db");
            let rule = fail_range(matches, round * 31 % 200, u64::MAX, Failure::device);
            self.fs.set_fault_rule(Some(rule));
            while self.db.read_only_cause().is_none() && !self.is_over() {
                thread::yield_now();
            }
            self.fs.set_fault_rule(None);
            let begun = Instant::now();
            while self.db.read_only_cause().is_some() {
                if self.sound(self.db.resume()).is_some() {
                    self.resumed.fetch_add(1, Ordering::Relaxed);
                }
                assert!(
                    begun.elapsed() < PATIENCE,
                    "{:?}",
                    self.db.read_only_cause()
                );
            }
        }
    }

    /// Cuts the power of a copy of the disk again and again, and opens checkpoints.
    fn cut(&self) {
        while !self.is_over() {
            let round = self.cuts.fetch_add(1, Ordering::Relaxed) + 1;
            let how = match round % 3 {
                0 => Survival::LoseUnsynced,
                1 => Survival::ProcessDeath,
                _ => Survival::Random { seed: round },
            };
            let promised = match how {
                Survival::ProcessDeath => self.of_each(|history| &history.acknowledged),
                _ => self.of_each(|history| &history.durable),
            };
            self.check(&self.fs.crash(how), "db", &promised);
            let promised = self.of_each(|history| &history.acknowledged);
            let copy = format!("copy {round}");
            if self.sound(self.db.checkpoint(&copy)).is_some() {
                self.check(&self.fs.crash(Survival::LoseUnsynced), &copy, &promised);
            }
        }
    }

    fn of_each(&self, of: impl Fn(&History) -> &AtomicU64) -> Vec<u64> {
        let writers = self.histories.iter();
        writers.map(|w| of(w).load(Ordering::SeqCst)).collect()
    }

    /// Opens what is left and compares it with what the writers know.
    fn check(&self, image: &Arc<SimFs>, path: &str, promised: &[u64]) {
        let db = Db::open(Path::new(path), small(image)).expect("a plain crash opens");
        let mut last = SequenceNumber::ZERO;
        let mut found = Vec::new();
        for (writer, &promised) in promised.iter().enumerate() {
            let [left, right] = FAMILIES.map(|name| {
                let cf = db.cf(name).expect("created with a durable edit");
                let value = db.get(&cf, &key(writer)).expect("read");
                value.map_or(0, |value| number(&value))
            });
            assert_eq!(left, right, "half a batch of writer {writer}");
            assert!(
                left >= promised,
                "writer {writer}: {promised} was promised, {left} is there"
            );
            found.push(left);
            let seqs = self.histories[writer].seqs.lock().expect("not poisoned");
            let at = usize::try_from(left).expect("small");
            let known = at.checked_sub(1).and_then(|at| seqs[at]);
            last = last.max(known.unwrap_or_default());
        }
        for (writer, &found) in found.iter().enumerate() {
            let seqs = self.histories[writer].seqs.lock().expect("not poisoned");
            let lost = seqs.iter().skip(usize::try_from(found).expect("small"));
            if let Some(&next) = lost.flatten().next() {
                assert!(
                    next > last,
                    "a hole: {next:?} of writer {writer} below {last:?}"
                );
            }
        }
        let report = db.verify().expect("read");
        assert!(report.damage.is_empty(), "{:?}", report.damage);
    }
}

#[test]
fn threads_and_power_cuts_meet_without_a_hang_a_hole_or_half_a_batch() {
    run(false);
}

#[test]
fn threads_power_cuts_and_failing_disks_meet_without_a_hang_a_hole_or_half_a_batch() {
    run(true);
}

fn run(breaks: bool) {
    let fs = SimFs::new();
    let db = Db::open("db", small(&fs)).expect("opened");
    for (name, memtable) in FAMILIES
        .into_iter()
        .zip([MemtableKind::Tree, MemtableKind::SkipList])
    {
        let options = CfOptions {
            memtable,
            ..small_family()
        };
        db.create_cf(name, options).expect("created");
    }
    let world = Arc::new(World {
        fs,
        db,
        histories: (0..WRITERS).map(|_| History::default()).collect(),
        over: AtomicBool::new(false),
        breaks,
        cuts: AtomicU64::new(0),
        resumed: AtomicU64::new(0),
    });
    let (ended, ends) = channel();
    let mut threads = 0;
    let mut start = |work: Box<dyn FnOnce(Arc<World>) + Send>| {
        let (world, ended) = (Arc::clone(&world), ended.clone());
        threads += 1;
        thread::spawn(move || {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(world)));
            let _ = ended.send(outcome.is_ok());
        });
    };
    for writer in 0..WAITING {
        start(Box::new(move |world| world.write(writer)));
    }
    for writer in WAITING..WRITERS {
        start(Box::new(move |world| world.submit(writer)));
    }
    start(Box::new(|world| world.read()));
    start(Box::new(|world| world.disturb()));
    start(Box::new(|world| world.cut()));
    if breaks {
        start(Box::new(|world| world.break_and_resume()));
    }
    let begun = Instant::now();
    let duration = DURATION * u32::try_from(long_factor()).expect("a small number");
    let mut left = threads;
    while left > 0 {
        let wait = duration.saturating_sub(begun.elapsed());
        match ends.recv_timeout(if world.is_over() { PATIENCE } else { wait }) {
            Ok(sound) => {
                world.over.store(true, Ordering::Relaxed);
                assert!(sound, "a thread has panicked: see above");
                left -= 1;
            }
            Err(_) if !world.is_over() => world.over.store(true, Ordering::Relaxed),
            Err(_) => panic!("{left} of {threads} threads hang"),
        }
    }
    let written: u64 = world
        .histories
        .iter()
        .map(|history| history.seqs.lock().expect("not poisoned").len() as u64)
        .sum();
    let cuts = world.cuts.load(Ordering::Relaxed);
    let resumed = world.resumed.load(Ordering::Relaxed);
    println!("{written} writes, {cuts} power cuts, {resumed} times resumed");
    assert!(
        written >= 500 && cuts >= 3,
        "only {written} writes and {cuts} power cuts"
    );
    assert!(!breaks || resumed >= 3, "only {resumed} failures");
    world.db.clone().close().expect("closed");
}
