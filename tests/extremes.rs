//! The ends of what may be asked: options of zero and without bound, keys and indexes at their limits, bounds that contradict
//! each other, calls from callbacks, and orders of use that nobody means to use.
//!
//! On the simulated disk and executor: a wait that nothing can end is a panic there.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use basalt_engine::{
    CfOptions, ColumnFamily, Compression, Db, Error, Ingest, LEVELS, MAX_KEY_LEN, Options,
    ReadOptions, TableFile, WriteBatch, WriteOptions,
    executor::SimExecutor,
    fs::{Fs, ReadMode, SimFs, sim::Survival},
};

const DIR: &str = "/db";

fn options(disk: &Arc<SimFs>) -> Options {
    Options {
        log_segment_bytes: (512, 1024),
        reserve_bytes: 0,
        ..Options::with(disk.clone(), Arc::new(SimExecutor::new(1)))
    }
}

fn open(disk: &Arc<SimFs>) -> Db {
    Db::open(DIR, options(disk)).expect("a good disk")
}

fn rows(db: &Db, cf: &ColumnFamily, options: &ReadOptions) -> Vec<(Vec<u8>, Vec<u8>)> {
    let range = db.range(cf, options).expect("a good disk");
    range
        .map(|row| row.expect("a good disk"))
        .map(|(key, value)| (key, value.to_vec()))
        .collect()
}

fn invalid<T>(result: Result<T, Error>) {
    match result {
        Err(Error::InvalidArgument(_)) => {}
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("it was taken"),
    }
}

/// Writes, deletes, flushes and reads with some options; all is there at each step and after a reopening.
fn use_with(options: impl Fn(&Arc<SimFs>) -> Options, family: &CfOptions) {
    let disk = SimFs::new();
    let db = Db::open(DIR, options(&disk)).expect("a good disk");
    let cf = db.create_cf("cf", family.clone()).expect("a new name");
    let log = db
        .create_cf("log", CfOptions::append(1))
        .expect("a new name");
    for round in 0..6_u8 {
        for key in 0..60_u8 {
            let sync = WriteOptions {
                sync: key % 16 == 0,
            };
            db.put(&cf, &[key], &[round; 90], sync)
                .expect("a good disk");
        }
        db.delete_range(&cf, &[round], &[round + 1], WriteOptions::NO_SYNC)
            .expect("a good disk");
        let first = 1 + 4 * u64::from(round);
        db.append(&log, b"p", first, &[[round; 50]; 4], WriteOptions::NO_SYNC)
            .expect("a good disk");
        let mut batch = WriteBatch::new();
        batch.truncate_front(&log, b"p", first);
        db.write(batch, WriteOptions::NO_SYNC).expect("a good disk");
        if round == 3 {
            db.flush_all().expect("a good disk");
            db.compact_range(&cf, None, None).expect("a good disk");
        }
    }
    let check = |db: &Db| {
        let cf = db.cf("cf").expect("it is kept");
        let all = rows(db, &cf, &ReadOptions::default());
        assert_eq!(all.len(), 59, "one range delete came last");
        assert!(all.iter().all(|(key, value)| key[0] != 5 && value[0] == 5));
        let log = db.cf("log").expect("it is kept");
        assert_eq!(db.append_range(&log, b"p").expect("there"), Some(21..25));
        assert!(db.verify().expect("a good disk").damage.is_empty());
    };
    check(&db);
    db.sync().expect("a good disk");
    let image = disk.crash(Survival::LoseUnsynced);
    db.close().expect("a good disk");
    check(&Db::open(DIR, options(&disk)).expect("it opens again"));
    check(&Db::open(DIR, options(&image)).expect("it opens after a crash"));
}

#[test]
fn budgets_of_zero_and_without_bound_work() {
    let nothing = |disk: &Arc<SimFs>| Options {
        block_cache_bytes: 0,
        max_pinned_bytes: 0,
        max_log_bytes: 0,
        max_manifest_bytes: 0,
        recycled_segments: 0,
        max_compactions: 1,
        memtable_budget_bytes: 0,
        max_log_garbage_bytes: 0,
        max_pinned_log_bytes: 0,
        read_mode: ReadMode::Pread,
        log_segment_bytes: (512, 512),
        ..options(disk)
    };
    let endless = |disk: &Arc<SimFs>| Options {
        block_cache_bytes: usize::MAX,
        max_pinned_bytes: usize::MAX,
        max_log_bytes: u64::MAX,
        max_manifest_bytes: u64::MAX,
        recycled_segments: usize::MAX,
        max_compactions: 64,
        memtable_budget_bytes: usize::MAX,
        max_log_garbage_bytes: u64::MAX,
        max_pinned_log_bytes: u64::MAX,
        ..options(disk)
    };
    let least = CfOptions {
        write_buffer_bytes: 1 << 10,
        max_immutable_memtables: 1,
        block_bytes: 64,
        restart_interval: 1,
        filter_bits_per_key: 0,
        table_bytes: 1 << 10,
        base_level_bytes: 1 << 10,
        level_multiplier: 2,
        l0_compaction_trigger: 1,
        l0_slowdown_trigger: 1,
        l0_stop_trigger: 1,
        ..CfOptions::default()
    };
    let most = CfOptions {
        write_buffer_bytes: 1 << 36,
        max_immutable_memtables: 64,
        block_bytes: 1 << 20,
        restart_interval: 256,
        filter_bits_per_key: 64,
        table_bytes: 1 << 36,
        base_level_bytes: 1 << 50,
        level_multiplier: 100,
        l0_compaction_trigger: 1 << 16,
        l0_slowdown_trigger: 1 << 16,
        l0_stop_trigger: usize::MAX,
        compression: [Compression::Lz4; LEVELS],
        ..CfOptions::default()
    };
    for family in [&least, &most] {
        use_with(nothing, family);
        use_with(endless, family);
    }
}

#[test]
fn keys_at_their_limits_and_bounds_that_contradict_each_other() {
    let disk = SimFs::new();
    let db = open(&disk);
    let cf = db.default_cf();
    let longest = vec![0xff; MAX_KEY_LEN];
    for key in [&b""[..], b"\0", b"k", &longest] {
        db.put(&cf, key, b"", WriteOptions::NO_SYNC)
            .expect("a good disk");
    }
    let too_long = vec![0xff; MAX_KEY_LEN + 1];
    let before = db.last_seq();
    invalid(db.put(&cf, &too_long, b"", WriteOptions::NO_SYNC));
    invalid(db.delete(&cf, &too_long, WriteOptions::NO_SYNC));
    invalid(db.delete_range(&cf, b"a", &too_long, WriteOptions::NO_SYNC));
    assert_eq!(db.last_seq(), before, "nothing was changed");
    for flushed in [false, true] {
        if flushed {
            db.flush(&cf).expect("a good disk");
        }
        assert!(db.get(&cf, &too_long).expect("none has it").is_none());
        assert_eq!(rows(&db, &cf, &ReadOptions::default()).len(), 4);
        let within = |lower: Option<&[u8]>, upper: Option<&[u8]>| ReadOptions {
            lower: lower.map(<[u8]>::to_vec),
            upper: upper.map(<[u8]>::to_vec),
            ..ReadOptions::default()
        };
        for (lower, upper, count) in [
            (Some(&b"k"[..]), Some(&b"a"[..]), 0),
            (Some(b"k"), Some(b"k"), 0),
            (Some(b""), Some(b""), 0),
            (None, Some(b""), 0),
            (Some(&longest), None, 1),
            (Some(&too_long), None, 0),
            (None, Some(&longest), 3),
        ] {
            let bounds = within(lower, upper);
            assert_eq!(rows(&db, &cf, &bounds).len(), count, "{bounds:?}");
            let back = db.range(&cf, &bounds).expect("a good disk").rev();
            assert_eq!(back.count(), count, "{bounds:?}");
            let mut cursor = db.iter(&cf, &bounds).expect("a good disk");
            for key in [&b""[..], b"k", &longest, &too_long] {
                cursor.seek(key).expect("a good disk");
                assert!(count > 0 || !cursor.valid());
                cursor.seek_for_prev(key).expect("a good disk");
                assert!(count > 0 || !cursor.valid());
                cursor.next().expect("past the end is fine");
                cursor.prev().expect("past the end is fine");
            }
        }
        // From both ends, each row once.
        let mut range = db.range(&cf, &ReadOptions::default()).expect("good");
        let mut count = 0;
        while let Some(row) = if count % 2 == 0 {
            range.next()
        } else {
            range.next_back()
        } {
            row.expect("a good disk");
            count += 1;
        }
        assert_eq!(count, 4);
        assert!(range.next().is_none() && range.next_back().is_none());
    }
    db.delete_range(&cf, b"", &longest, WriteOptions::NO_SYNC)
        .expect("a good disk");
    db.delete_range(&cf, b"z", b"a", WriteOptions::NO_SYNC)
        .expect("an empty range is fine");
    assert_eq!(
        rows(&db, &cf, &ReadOptions::default()).len(),
        1,
        "the end stays"
    );
}

#[test]
fn indexes_at_the_end_of_their_numbers() {
    let disk = SimFs::new();
    let db = open(&disk);
    let log = db
        .create_cf("log", CfOptions::append(1))
        .expect("a new name");
    let last = u64::MAX - 1;
    invalid(db.append(&log, b"p", u64::MAX, &[b"v"], WriteOptions::SYNC));
    invalid(db.append(&log, b"p", last, &[b"v", b"v"], WriteOptions::SYNC));
    invalid(db.append(
        &log,
        b"p",
        u64::MAX,
        &[[7; 9000], [7; 9000]],
        WriteOptions::SYNC,
    ));
    invalid(db.append(&log, b"pp", 1, &[b"v"], WriteOptions::SYNC));
    invalid(db.put(&log, b"p", b"v", WriteOptions::SYNC));
    assert_eq!(db.append_range(&log, b"p").expect("none"), None);
    db.append(&log, b"p", last, &[b"v"], WriteOptions::SYNC)
        .expect("the last index there is");
    let check = |db: &Db| {
        let log = db.cf("log").expect("it is kept");
        let range = db.append_range(&log, b"p").expect("an append family");
        assert_eq!(range, Some(last..u64::MAX));
        assert_eq!(rows(db, &log, &ReadOptions::default()).len(), 1);
        let mut cursor = db.iter(&log, &ReadOptions::default()).expect("good");
        cursor.seek(&[0xff; 9]).expect("a good disk");
        assert!(!cursor.valid());
        cursor
            .seek_for_prev(&[&b"p"[..], &[0xff; 8]].concat())
            .expect("a good disk");
        assert_eq!(cursor.value(), b"v");
        cursor.next().expect("a good disk");
        assert!(!cursor.valid());
    };
    check(&db);
    invalid(db.append(&log, b"p", u64::MAX, &[b"v"], WriteOptions::SYNC));
    db.close().expect("a good disk");
    let db = open(&disk);
    check(&db);
    let log = db.cf("log").expect("it is kept");
    let mut batch = WriteBatch::new();
    batch.truncate_back(&log, b"q", 0);
    batch.truncate_front(&log, b"q", u64::MAX);
    batch.truncate_front(&log, b"p", u64::MAX);
    db.write(batch, WriteOptions::SYNC).expect("a good disk");
    assert_eq!(db.append_range(&log, b"p").expect("none"), None);
    db.append(&log, b"p", 0, &[b"again"], WriteOptions::SYNC)
        .expect("an empty prefix begins anywhere");
    db.close().expect("a good disk");
    let db = open(&disk);
    let log = db.cf("log").expect("it is kept");
    assert_eq!(db.append_range(&log, b"p").expect("there"), Some(0..1));
}

#[test]
fn callbacks_and_listeners_may_call_the_database() {
    let disk = SimFs::new();
    let db = open(&disk);
    let cf = db.default_cf();
    let seen = Arc::new(AtomicU64::new(0));
    let (inner, counted) = (db.clone(), Arc::clone(&seen));
    db.on_flush(Arc::new(move |family, _| {
        let got = inner.get(family, b"a").expect("a good disk");
        counted.fetch_add(u64::from(got.is_some()), Ordering::Relaxed);
    }));
    let mut batch = WriteBatch::new();
    batch.put(&cf, b"a", b"1");
    let ticket = db.submit(batch, WriteOptions::SYNC).expect("a good disk");
    let (inner, family) = (db.clone(), cf.clone());
    let wrote = Arc::new(Mutex::new(None));
    let result = Arc::clone(&wrote);
    ticket.on_done(move |done| {
        done.expect("a good disk");
        let again = inner.put(&family, b"b", b"2", WriteOptions::SYNC);
        *result.lock().expect("no panic") = Some(again);
    });
    db.sync().expect("a good disk");
    db.flush(&cf).expect("a good disk");
    let result = wrote.lock().expect("no panic").take();
    result.expect("it was called").expect("and could write");
    assert_eq!(db.get(&cf, b"b").expect("good").as_deref(), Some(&b"2"[..]));
    assert_eq!(seen.load(Ordering::Relaxed), 1, "the listener could read");
}

#[test]
fn what_is_used_after_its_end_is_refused_or_goes_on_as_promised() {
    let disk = SimFs::new();
    let db = open(&disk);
    let (cf, other) = (db.default_cf(), open_other());
    db.put(&cf, b"a", b"1", WriteOptions::SYNC).expect("good");
    invalid(db.put(&other.1, b"a", b"1", WriteOptions::SYNC));
    invalid(db.get_with(&cf, b"a", &ReadOptions::at(&other.0.snapshot())));
    let mut cursor = db.iter(&cf, &ReadOptions::default()).expect("good");
    db.clone().close().expect("a good disk");
    assert!(matches!(
        db.put(&cf, b"b", b"2", WriteOptions::SYNC),
        Err(Error::Closed)
    ));
    cursor.seek_to_first().expect("it sees its moment");
    assert_eq!(cursor.key(), b"a");
    assert!(matches!(
        Db::open(DIR, options(&disk)),
        Err(Error::Locked { .. })
    ));
    drop((db, cf));
    assert!(matches!(
        Db::open(DIR, options(&disk)),
        Err(Error::Locked { .. })
    ));
    drop(cursor);
    drop(open(&disk));
}

/// A database of its own, and its family.
fn open_other() -> (Db, ColumnFamily) {
    let db = open(&SimFs::new());
    let cf = db.default_cf();
    (db, cf)
}

#[test]
fn a_checkpoint_inside_the_database_and_tables_taken_in_twice_harm_nothing() {
    let disk = SimFs::new();
    let db = open(&disk);
    let cf = db.default_cf();
    db.put(&cf, b"a", b"1", WriteOptions::SYNC).expect("good");
    db.flush(&cf).expect("a good disk");
    db.checkpoint("/db/inside").expect("an empty directory");
    invalid(db.checkpoint("/db/inside"));
    invalid(db.checkpoint("/db"));
    let mut table = db.table_writer(&cf, "/t.sst").expect("a good disk");
    table.put(b"b", b"2").expect("a good disk");
    invalid(table.put(b"b", b"3"));
    let table = table.finish().expect("a good disk");
    let mut twice = Ingest::new();
    twice.table(&cf, table.clone()).table(&cf, table.clone());
    invalid(db.ingest(twice));
    for _ in 0..2 {
        let mut once = Ingest::new();
        once.table(&cf, table.clone());
        db.ingest(once).expect("a good disk");
    }
    let empty = db.table_writer(&cf, "/empty.sst").expect("a good disk");
    invalid(empty.finish());
    // Its file is none that could be taken in.
    let fs: Arc<dyn Fs> = disk.clone();
    assert!(TableFile::open(&fs, "/empty.sst".as_ref()).is_err());
    db.compact_range(&cf, None, None).expect("a good disk");
    db.close().expect("a good disk");
    let db = open(&disk);
    let cf = db.default_cf();
    assert_eq!(rows(&db, &cf, &ReadOptions::default()).len(), 2);
    assert!(db.verify().expect("a good disk").damage.is_empty());
    db.close().expect("a good disk");
    let inside = Db::open("/db/inside", options(&disk)).expect("a whole copy");
    let cf = inside.default_cf();
    assert_eq!(rows(&inside, &cf, &ReadOptions::default()).len(), 1);
    assert!(disk.file_len("/db/inside/CURRENT".as_ref()).is_ok());
}
