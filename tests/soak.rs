//! A long mixed load on the real disk: the operations of plain and append families, from several threads, each answer checked, memory bounded,
//! and no operation held up for long.
//!
//! Each worker owns its keys, so that it knows what each must hold: the number of the last write, or nothing. In the normal
//! run it is a smoke of a few seconds that checks answers and memory. `BASALT_SOAK_MINUTES=30 cargo test --release -p
//! basaltkv --test soak -- --nocapture` is the long one; it prints its figures, and demands as well that nothing but flush,
//! compaction and checkpoint, which wait by contract, takes a second.

#[path = "soak/figures.rs"]
mod figures;
#[path = "soak/worker.rs"]
mod worker;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use basalt_engine::{
    CfOptions, Db, Options, WriteOptions,
    executor::ThreadPool,
    fs::{ReadMode, RealFs},
    verify_dir,
};
use basalt_testkit::Rng;
use figures::{Figures, Kind};
use worker::{Families, Worker};

/// Threads that write and read.
const WORKERS: u8 = 3;
/// Seconds of the smoke in the normal run; more on a machine that is slow, until so many operations are done.
const SMOKE_SECONDS: u64 = 4;
const SMOKE_OPERATIONS: u64 = 20_000;
/// Anonymous memory in bytes that the whole process may have: caches, memtables, log buffers, the workers' own tables.
const MOST_MEMORY: u64 = 320 << 20;
/// How much more it may have in the last quarter of a run than in the second, in bytes.
const GROWTH: u64 = 48 << 20;
/// No operation takes longer, but those that wait by contract.
const LONGEST: Duration = Duration::from_secs(1);
/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(500);

fn options() -> Options {
    Options {
        read_mode: ReadMode::Mapped,
        block_cache_bytes: 16 << 20,
        memtable_budget_bytes: 48 << 20,
        max_log_bytes: 128 << 20,
        max_log_garbage_bytes: 32 << 20,
        max_pinned_bytes: 32 << 20,
        log_segment_bytes: (1 << 20, 16 << 20),
        ..Options::with(Arc::new(RealFs), Arc::new(ThreadPool::new(3)))
    }
}

fn families(db: &Db) -> Families {
    let small = CfOptions {
        write_buffer_bytes: 4 << 20,
        table_bytes: 2 << 20,
        base_level_bytes: 8 << 20,
        ..CfOptions::default()
    };
    let unlogged = CfOptions {
        logged: false,
        ..small.clone()
    };
    let open = |name, options| db.open_cf(name, options).expect("a good disk");
    Families {
        logged: open("logged", small),
        unlogged: open("unlogged", unlogged),
        log: open("log", CfOptions::append(1)),
    }
}

/// Anonymous memory of this process in bytes; 0 where the system does not tell.
fn anonymous_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    number.unwrap_or(0) << 10
}

/// Flushes, compactions, checkpoints and looks at every byte, until told to stop.
fn maintain(db: &Db, root: &Path, rng: &mut Rng, stop: &AtomicBool) -> Figures {
    let mut figures = Figures::default();
    let families = families(db);
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(100 + rng.below(900)));
        match rng.below(6) {
            0 | 1 => figures.time(Kind::Flush, || db.flush_all().expect("a good disk")),
            2 => figures.time(Kind::Compact, || {
                let start = [u8::try_from(rng.below(u64::from(WORKERS))).expect("few")];
                db.compact_range(&families.logged, Some(&start), Some(&[start[0] + 1]))
                    .expect("a good disk");
            }),
            3 => figures.time(Kind::Compact, || {
                db.compact_range(&families.unlogged, None, None)
                    .expect("a good disk");
            }),
            4 => figures.time(Kind::Checkpoint, || {
                let path = root.join("checkpoint");
                db.checkpoint(&path).expect("a good disk");
                let report = verify_dir(&path, &options()).expect("a good disk");
                assert!(report.damage.is_empty(), "{:?}", report.damage);
                std::fs::remove_dir_all(&path).expect("a local file system");
            }),
            _ => figures.time(Kind::Verify, || {
                let report = db.verify().expect("a good disk");
                assert!(report.damage.is_empty(), "{:?}", report.damage);
            }),
        }
    }
    figures
}

#[test]
fn a_mixed_load_is_answered_right_in_bounded_memory_without_long_stalls() {
    let minutes = std::env::var("BASALT_SOAK_MINUTES").ok();
    let minutes: Option<f64> = minutes.map(|text| text.parse().expect("a number of minutes"));
    let smoke = Duration::from_secs(SMOKE_SECONDS);
    let length = minutes.map_or(smoke, |minutes| Duration::from_secs_f64(60.0 * minutes));
    let root = tempfile::tempdir().expect("a temporary directory");
    let dir = root.path().join("db");
    let db = Db::open(&dir, options()).expect("a new database");
    drop(families(&db));

    let (stop, steps) = (AtomicBool::new(false), AtomicU64::new(0));
    let begun = Instant::now();
    let mut samples = Vec::new();
    let mut figures = Figures::default();
    let workers: Vec<Worker> = thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|number| {
                let (db, stop, steps) = (&db, &stop, &steps);
                scope.spawn(move || {
                    let mut worker = Worker::new(number, families(db));
                    while !stop.load(Ordering::Relaxed) {
                        worker.step(db);
                        steps.fetch_add(1, Ordering::Relaxed);
                    }
                    worker.drop_snapshots();
                    worker
                })
            })
            .collect();
        let maintenance = {
            let (db, stop, root) = (&db, &stop, root.path());
            scope.spawn(move || maintain(db, root, &mut Rng::new(99), stop))
        };
        while begun.elapsed() < length || steps.load(Ordering::Relaxed) < SMOKE_OPERATIONS {
            let is_broken = workers.iter().any(thread::ScopedJoinHandle::is_finished);
            if is_broken || maintenance.is_finished() {
                break;
            }
            thread::sleep(LOOK);
            samples.push(anonymous_memory());
        }
        stop.store(true, Ordering::Relaxed);
        figures.add(&maintenance.join().expect("maintenance went well"));
        let joined = workers.into_iter();
        joined
            .map(|worker| worker.join().expect("a worker went well"))
            .collect()
    });
    for worker in &workers {
        figures.add(&worker.figures);
    }
    let took = begun.elapsed();
    let most = samples.iter().copied().max().unwrap_or(0);
    let quarter = samples.len() / 4;
    let peak = |range: std::ops::Range<usize>| samples[range].iter().copied().max().unwrap_or(0);
    let (second, last) = (peak(quarter..2 * quarter), peak(3 * quarter..samples.len()));
    println!(
        "{figures}{:.1} minutes; anonymous memory at most {} MiB: in the second quarter {}, in the last {}",
        took.as_secs_f64() / 60.0,
        most >> 20,
        second >> 20,
        last >> 20
    );
    let stats = db.stats();
    println!(
        "flushes {}, compactions {}, stalls {}, slowdowns {}, log {} MiB in {} segments, rewritten {} KiB",
        stats.flushes,
        stats.compactions,
        stats.stalls,
        stats.slowdowns,
        stats.log_bytes >> 20,
        stats.log_segments,
        stats.log_rewritten_bytes >> 10
    );

    for worker in &workers {
        worker.check_all(&db, true);
    }
    db.put(&db.default_cf(), b"end", b"", WriteOptions::SYNC)
        .expect("a good disk");
    db.flush_all().expect("a good disk");
    db.close().expect("a good disk");
    let db = Db::open(&dir, options()).expect("it opens again");
    let again = families(&db);
    for mut worker in workers {
        worker.families = again.clone();
        worker.check_all(&db, true);
    }
    db.close().expect("a good disk");

    let few = figures.too_few();
    assert!(few.is_empty(), "too little happened: {few:?}");
    assert!(
        most < MOST_MEMORY,
        "{most} bytes of anonymous memory, at most {MOST_MEMORY}"
    );
    if minutes.is_some() {
        assert!(
            last < second + GROWTH,
            "memory grows: {second} bytes in the second quarter, {last} in the last"
        );
        let longest = figures.longest();
        assert!(longest < LONGEST, "an operation took {longest:?}");
    }
}
