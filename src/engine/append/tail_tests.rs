//! What the tail answers, what it does not, and what reads cost behind it: counted on the simulated disk.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::{
    CfOptions, ColumnFamily, Db, Options, ReadOptions, SharedMemory, WriteBatch, WriteOptions,
    executor::SimExecutor,
    fs::{
        SimFs,
        sim::{Failure, Op, OpKind},
    },
};

fn open(fs: &Arc<SimFs>, tail_bytes: usize) -> (Db, ColumnFamily) {
    let mut options = Options::with(Arc::clone(fs) as _, Arc::new(SimExecutor::new(7)));
    options.reserve_bytes = 0;
    options.append_tail_bytes = tail_bytes;
    let db = Db::open("db", options).expect("opened");
    let cf = db.open_cf("log", CfOptions::append(1)).expect("a family");
    (db, cf)
}

/// The value at an index: half of it compresses.
fn value(index: u64, len: usize) -> Vec<u8> {
    let mut noise = index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut value = vec![0; len];
    for piece in value[..len / 2].chunks_mut(8) {
        piece.copy_from_slice(&noise.to_le_bytes()[..piece.len()]);
        noise = noise.rotate_left(23) ^ index;
    }
    value
}

/// Appends `count` entries to prefix `a` in batches of `each`, from 1 on.
fn fill(db: &Db, cf: &ColumnFamily, count: u64, each: u64, len: usize) {
    for first in (1..=count).step_by(usize::try_from(each).expect("few")) {
        let values: Vec<_> = (first..first + each).map(|at| value(at, len)).collect();
        db.append(cf, b"a", first, &values, WriteOptions::NO_SYNC)
            .expect("appended");
    }
}

/// Counts what is read of files from now on; `fails`: and lets none of it succeed.
fn watch_reads(fs: &SimFs, fails: bool) -> Arc<AtomicU64> {
    let reads = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&reads);
    fs.set_fault_rule(Some(Arc::new(move |op: &Op| {
        if !matches!(op.kind, OpKind::Read | OpKind::Open | OpKind::Populate) {
            return None;
        }
        count.fetch_add(1, Ordering::Relaxed);
        fails.then(Failure::device)
    })));
    reads
}

/// Every entry of prefix `a` from `from` to `to`, forward, backward and by gets, is what was appended.
fn check(db: &Db, cf: &ColumnFamily, from: u64, to: u64, len: usize) {
    let key = |index: u64| [&b"a"[..], &index.to_be_bytes()].concat();
    let bounds = ReadOptions {
        lower: Some(key(from)),
        upper: Some(key(to + 1)),
        ..ReadOptions::default()
    };
    let mut cursor = db.iter(cf, &bounds).expect("a cursor");
    cursor.seek_to_first().expect("read");
    for index in from..=to {
        assert!(cursor.valid(), "entry {index}");
        assert_eq!(cursor.key(), key(index));
        assert!(cursor.value() == value(index, len), "entry {index}");
        cursor.next().expect("read");
    }
    assert!(!cursor.valid());
    cursor.seek_to_last().expect("read");
    for index in (from..=to).rev() {
        assert!(cursor.value() == value(index, len), "entry {index}");
        cursor.prev().expect("read");
    }
    assert!(!cursor.valid());
    for index in from..=to {
        let got = db.get(cf, &key(index)).expect("read").expect("there");
        assert!(*got == value(index, len), "entry {index}");
    }
}

#[test]
fn the_newest_entries_are_read_without_a_file() {
    // Single ones, several in a record, and packed ones.
    for (each, len) in [(1, 40), (16, 40), (1, 5000), (64, 256)] {
        let fs = SimFs::new();
        let (db, cf) = open(&fs, 64 << 20);
        fill(&db, &cf, 640, each, len);
        let reads = watch_reads(&fs, true);
        check(&db, &cf, 1, 640, len);
        assert_eq!(reads.load(Ordering::Relaxed), 0, "{each} of {len}");
        fs.set_fault_rule(None);
    }
}

#[test]
fn the_tail_has_a_bound_and_what_left_it_is_read_from_the_log() {
    const BOUND: usize = 100_000;
    for (each, len) in [(1, 40), (16, 40), (64, 256), (1, 5000)] {
        let fs = SimFs::new();
        let (db, cf) = open(&fs, BOUND);
        for round in 0..4 {
            let mut cut = WriteBatch::new();
            cut.truncate_back(&cf, b"a", 0);
            db.write(cut, WriteOptions::NO_SYNC).expect("cut");
            fill(&db, &cf, 1280, each, len);
            let bytes = db.stats().append_tail_bytes;
            // A block is an eighth, and over by one batch.
            let most = BOUND + BOUND / 8 + 40_000;
            assert!(
                (BOUND / 2..most).contains(&bytes),
                "{bytes} bytes, round {round}"
            );
        }
        check(&db, &cf, 1, 1280, len);
        let reads = watch_reads(&fs, true);
        check(&db, &cf, 1280, 1280, len);
        assert_eq!(reads.load(Ordering::Relaxed), 0, "the last is there");
        let first = db.get(&cf, &[&b"a"[..], &1_u64.to_be_bytes()].concat());
        first.expect_err("the first is not");
        fs.set_fault_rule(None);
    }
}

#[test]
fn a_cursor_in_the_segment_that_is_written_reads_ahead() {
    for (each, len) in [(1, 100), (64, 256)] {
        let fs = SimFs::new();
        let (db, cf) = open(&fs, 0);
        fill(&db, &cf, 1280, each, len);
        let key = |index: u64| [&b"a"[..], &index.to_be_bytes()].concat();
        let mut cursor = db.iter(&cf, &ReadOptions::default()).expect("a cursor");
        for backward in [false, true] {
            let reads = watch_reads(&fs, false);
            if backward {
                cursor.seek_to_last().expect("read");
            } else {
                cursor.seek_to_first().expect("read");
            }
            let mut seen = 0;
            while cursor.valid() {
                seen += 1;
                let index = if backward { 1281 - seen } else { seen };
                assert_eq!(cursor.key(), key(index));
                assert!(cursor.value() == value(index, len), "entry {index}");
                if backward {
                    cursor.prev().expect("read");
                } else {
                    cursor.next().expect("read");
                }
            }
            assert_eq!(seen, 1280);
            let reads = reads.load(Ordering::Relaxed);
            assert!(
                reads <= 60,
                "{reads} reads, backward: {backward}, {each} of {len}"
            );
        }
        fs.set_fault_rule(None);
    }
}

#[test]
fn what_a_failed_sync_left_is_not_in_the_tail_and_what_was_acknowledged_is() {
    let fs = SimFs::new();
    let (db, cf) = open(&fs, 64 << 20);
    fill(&db, &cf, 16, 16, 40);
    fs.set_fault_rule(Some(Arc::new(|op: &Op| {
        (op.kind == OpKind::Sync).then(Failure::device)
    })));
    let lost = [value(17, 40)];
    db.append(&cf, b"a", 17, &lost, WriteOptions::SYNC)
        .expect_err("it cannot be synced");
    fs.set_fault_rule(None);
    check(&db, &cf, 1, 16, 40);
    assert_eq!(db.append_range(&cf, b"a").expect("asked"), Some(1..17));
    let key = [&b"a"[..], &17_u64.to_be_bytes()].concat();
    assert!(db.get(&cf, &key).expect("read").is_none());
}

#[test]
fn large_values_of_the_tail_are_handed_out_in_place_and_outlive_it() {
    let fs = SimFs::new();
    let (db, cf) = open(&fs, 60_000);
    fill(&db, &cf, 4, 4, 2000);
    let get = |index: u64| {
        let key = [&b"a"[..], &index.to_be_bytes()].concat();
        db.get(&cf, &key).expect("read").expect("there")
    };
    let held: Vec<_> = (1..=4).map(get).collect();
    assert!(
        db.stats().pinned_bytes >= 8000,
        "{:?}",
        db.stats().pinned_bytes
    );
    fill(&db, &cf, 200, 4, 2000);
    for (index, held) in (1..).zip(&held) {
        assert!(**held == value(index, 2000), "entry {index}");
    }
    drop(held);
    assert_eq!(db.stats().pinned_bytes, 0);
}

#[test]
fn the_tail_takes_a_sixteenth_of_the_memory_that_is_shared_whatever_becomes_of_that() {
    const MIB: usize = 1 << 20;
    // A block is filled beyond its end by one batch.
    const BATCH: usize = 200_000;
    let fs = SimFs::new();
    let memory = SharedMemory::new(64 * MIB, 0, 0);
    let mut options = Options::with(Arc::clone(&fs) as _, Arc::new(SimExecutor::new(7)));
    options.shared_memory = Some(memory.clone());
    let db = Db::open("db", options).expect("opened");
    let cf = db.open_cf("log", CfOptions::append(1)).expect("a family");
    fill(&db, &cf, 6400, 64, 1000);
    let held = || db.memory_stats().append_tails;
    assert!(
        (3 * MIB..4 * MIB + MIB / 2 + BATCH).contains(&held()),
        "{}",
        held()
    );
    memory.set_budget_bytes(16 * MIB);
    assert!((MIB / 4..=MIB + BATCH).contains(&held()), "{}", held());
    check(&db, &cf, 1, 6400, 1000);
    memory.set_budget_bytes(usize::MAX);
    fill(&db, &cf, 6400, 64, 1000);
    // What was written before is in it too: it is not known to be dead.
    assert!(held() > 6 * MIB, "{}", held());
    check(&db, &cf, 1, 6400, 1000);
}
