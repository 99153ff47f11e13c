//! The memory budget, held against what the allocator really gave out.
//!
//! One test, alone in its process, because the allocator counts for all. Maps of files are no part of it.

#![expect(unsafe_code, reason = "a counting allocator is made of unsafe calls")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
};

use basalt_engine::{
    CfOptions, ColumnFamily, Db, Options, SharedMemory, WriteBatch, WriteOptions, fs::ReadMode,
};

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, counted.
struct Counting;

fn grown(bytes: usize) {
    let now = NOW.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(now, Ordering::Relaxed);
}

// SAFETY: every call is handed on as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: the caller keeps the rules of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the rules of `dealloc`.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The bound of the databases under test.
const BUDGET: usize = 48 << 20;
/// Bytes of each value, of which half repeats.
const VALUE: usize = 400;
/// Rounds of writes and reads; a round writes about 2 MiB.
const ROUNDS: u64 = 60;

fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 31)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    n ^ (n >> 29)
}

fn value(n: u64) -> [u8; VALUE] {
    let mut value = [7; VALUE];
    for (at, byte) in value[..VALUE / 2].iter_mut().enumerate() {
        *byte = mix(n + at as u64).to_le_bytes()[0];
    }
    value
}

/// Writes in random order, downwards and as a log, and reads what was written before.
fn work(db: &Db, families: &[ColumnFamily; 3], rounds: u64) {
    let [random, down, log] = families;
    let write = |batch| db.write(batch, WriteOptions::NO_SYNC).expect("written");
    for round in 0..rounds {
        for step in 0..2_000 {
            let n = round * 2_000 + step;
            let mut batch = WriteBatch::new();
            batch.put(random, &mix(n).to_be_bytes(), &value(n));
            batch.put(down, &(u64::MAX - n).to_be_bytes(), &value(n)[..100]);
            write(batch);
        }
        let mut batch = WriteBatch::new();
        let entries = vec![vec![3; 20]; 2_000];
        batch.append(log, b"", round * 2_000 + 1, &entries);
        write(batch);
        for step in 0..1_000 {
            let n = mix(round * 1_000 + step) % ((round + 1) * 2_000);
            let found = db.get(random, &mix(n).to_be_bytes()).expect("readable");
            assert_eq!(found.as_deref(), Some(&value(n)[..]));
        }
    }
}

fn families(db: &Db) -> [ColumnFamily; 3] {
    let options = CfOptions {
        write_buffer_bytes: 64 << 20,
        compression: [basalt_engine::Compression::Lz4; basalt_engine::LEVELS],
        ..CfOptions::default()
    };
    [
        db.open_cf("random", options.clone()).expect("created"),
        db.open_cf("down", options).expect("created"),
        db.open_cf("log", CfOptions::append(0)).expect("created"),
    ]
}

/// The most that was allocated during the work, beyond what was before.
fn peak_of(options: &Options, rounds: u64) -> usize {
    let dir = tempfile::tempdir().expect("a directory");
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let db = Db::open(dir.path(), options.clone()).expect("opened");
    work(&db, &families(&db), rounds);
    let memory = db.memory_stats();
    println!("{memory:?}, {} stalls", db.stats().stalls);
    db.close().expect("closed");
    PEAK.load(Ordering::Relaxed) - before
}

#[test]
fn the_budget_holds_within_a_tenth_and_is_what_holds() {
    let base = Options {
        read_mode: ReadMode::Pread,
        block_cache_bytes: 32 << 20,
        ..Options::default()
    };
    let bounded = Options {
        memory_budget_bytes: BUDGET,
        ..base.clone()
    };
    let peak = peak_of(&bounded, ROUNDS);
    println!("peak {peak} of {BUDGET}");
    assert!(peak <= BUDGET / 10 * 11, "{peak} bytes, budget {BUDGET}");
    assert!(peak >= BUDGET / 2, "{peak} bytes: nothing was at stake");
    // The same work without: the test sees what the budget is for.
    let unbounded = peak_of(&base, ROUNDS);
    println!("peak {unbounded} without");
    assert!(
        unbounded > BUDGET / 10 * 13,
        "{unbounded} bytes without a budget"
    );

    // Two databases, of which one is filled and then rests, within one budget.
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let shared = Options {
        shared_memory: Some(SharedMemory::new(BUDGET, 32 << 20, 1 << 20)),
        ..base
    };
    let dirs = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let [one, two] = dirs
        .each_ref()
        .map(|dir| Db::open(dir.path(), shared.clone()).expect("opened"));
    work(&one, &families(&one), 6);
    let resting = one.memory_stats().memtables;
    assert!(resting > 1 << 20, "{resting}");
    work(&two, &families(&two), ROUNDS / 2);
    let peak = PEAK.load(Ordering::Relaxed) - before;
    println!("{:?}, peak {peak} of two", two.memory_stats());
    assert!(peak <= BUDGET / 10 * 11, "{peak} bytes, budget {BUDGET}");
}
