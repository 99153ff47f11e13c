//! Meetings of append families with failures, full disks, snapshots and rewrites that tests from outside can
//! hardly bring about.

use std::sync::Arc;

use crate::{
    CfOptions, ColumnFamily, Db, Error, Fault, Faults, Options, ReadOptions, WriteBatch,
    WriteOptions,
    executor::SimExecutor,
    fs::{
        Fs, ReadMode, SimFs,
        sim::{Failure, OpKind, Survival},
    },
};

const DIR: &str = "db";

fn options(fs: &Arc<SimFs>) -> Options {
    let mut options = Options::with(Arc::clone(fs) as _, Arc::new(SimExecutor::new(7)));
    options.log_segment_bytes = (4096, 4096);
    options.reserve_bytes = 0;
    // What is in the files is what is looked at here.
    options.append_tail_bytes = 0;
    options
}

fn open(options: Options) -> (Db, ColumnFamily) {
    let db = Db::open(DIR, options).expect("opened");
    let cf = db.open_cf("log", CfOptions::append(1)).expect("a family");
    (db, cf)
}

fn append(db: &Db, cf: &ColumnFamily, prefix: &[u8], first: u64, values: &[&[u8]]) {
    db.append(cf, prefix, first, values, WriteOptions::NO_SYNC)
        .expect("appended");
}

fn truncate_front(db: &Db, cf: &ColumnFamily, prefix: &[u8], index: u64) {
    let mut batch = WriteBatch::new();
    batch.truncate_front(cf, prefix, index);
    db.write(batch, WriteOptions::NO_SYNC).expect("truncated");
}

fn key(prefix: &[u8], index: u64) -> Vec<u8> {
    [prefix, &index.to_be_bytes()].concat()
}

fn values(db: &Db, cf: &ColumnFamily) -> Vec<(Vec<u8>, Vec<u8>)> {
    let rows = db.range(cf, &ReadOptions::default()).expect("a range");
    rows.map(|row| row.map(|(key, value)| (key, value.to_vec())).expect("read"))
        .collect()
}

/// Fills segments with entries of prefix `b` that are dead at the end.
fn fill(db: &Db, cf: &ColumnFamily, bytes: usize) {
    let first = db
        .append_range(cf, b"b")
        .expect("asked")
        .map_or(0, |range| range.end);
    let count = bytes as u64 / 1000;
    for index in first..first + count {
        append(db, cf, b"b", index, &[&[3; 1000]]);
    }
    truncate_front(db, cf, b"b", first + count);
}

#[test]
fn a_rewrite_leaves_out_what_a_truncation_on_its_way_has_cut() {
    for fault in [Fault::None, Fault::RewriteUnchecked] {
        let fs = SimFs::new();
        let mut options = options(&fs);
        options.faults = Faults(fault);
        let (db, cf) = open(options.clone());
        append(
            &db,
            &cf,
            b"a",
            10,
            &[b"ten", b"eleven", b"twelve", b"thirteen"],
        );
        fill(&db, &cf, 40_000);
        let mut batch = WriteBatch::new();
        batch.truncate_front(&cf, b"a", 11);
        batch.truncate_back(&cf, b"a", 13);
        // It has its place and waits for its sync: readers see the entries still.
        let ticket = db.submit(batch, WriteOptions::SYNC).expect("submitted");
        assert_eq!(db.append_range(&cf, b"a").expect("asked"), Some(10..14));
        let written = db.inner.write_forward(u64::MAX).expect("written");
        let expected = if fault == Fault::None { 2 } else { 4 };
        assert_eq!(written, expected, "entries written forward");
        ticket.wait().expect("synced");
        db.sync().expect("synced");
        let content = values(&db, &cf);
        assert_eq!(
            content,
            [
                (key(b"a", 11), b"eleven".to_vec()),
                (key(b"a", 12), b"twelve".to_vec())
            ],
            "in memory it is right either way"
        );
        drop((db, cf));
        let (db, cf) = open(options);
        let is_right = values(&db, &cf) == content;
        assert_eq!(
            is_right,
            fault == Fault::None,
            "the planted fault shows when it is opened again"
        );
    }
}

#[test]
fn a_rewrite_frees_the_segments_and_keeps_sequence_numbers() {
    for fault in [Fault::None, Fault::RewriteRenumbered] {
        let fs = SimFs::new();
        let mut options = options(&fs);
        options.max_log_garbage_bytes = 10_000;
        options.faults = Faults(fault);
        let (db, cf) = open(options.clone());
        append(&db, &cf, b"a", 7, &[b"seven", b"eight"]);
        let seq = |cf: &ColumnFamily| {
            let family = cf.inner.append.as_ref().expect("an append family");
            let (entry, _) = family.entry(b"a", 8);
            entry.expect("there").seq()
        };
        let before = seq(&cf);
        fill(&db, &cf, 60_000);
        db.inner.file_work().expect("worked");
        assert!(db.stats().log_rewritten_bytes > 0);
        if fault == Fault::None {
            assert_eq!(before, seq(&cf));
            let segments = db.stats().log_segments;
            assert!(segments <= 4, "{segments} segments");
        }
        assert!(db.verify().expect("read").damage.is_empty());
        drop((db, cf));
        let (db, cf) = open(options);
        let is_kept = seq(&cf) == before;
        assert_eq!(is_kept, fault == Fault::None, "when it is opened again");
        assert_eq!(values(&db, &cf).len(), 2);
    }
}

#[test]
fn a_segment_of_a_batch_on_its_way_is_not_given_up() {
    for fault in [Fault::None, Fault::FloorAbovePending] {
        let fs = SimFs::new();
        let mut options = options(&fs);
        options.faults = Faults(fault);
        let (db, cf) = open(options.clone());
        fill(&db, &cf, 6_000);
        let submit = |value: &[u8], first| {
            let mut batch = WriteBatch::new();
            batch.append(&cf, b"a", first, &[value]);
            db.submit_waiting(batch, WriteOptions::SYNC)
                .expect("submitted")
        };
        // The first waits for its sync, and the others, in later segments, behind it.
        let tickets = [
            submit(b"first", 1),
            submit(&[1; 3000], 2),
            submit(&[2; 3000], 3),
        ];
        assert_eq!(db.append_range(&cf, b"a").expect("asked"), None);
        db.inner.release_log().expect("released");
        for ticket in tickets {
            ticket.wait().expect("synced");
        }
        drop((db, cf));
        let opened = Db::open(DIR, options).map(|db| {
            let cf = db.cf("log").expect("it is there");
            values(&db, &cf).len()
        });
        let is_right = opened.is_ok_and(|found| found == 3);
        assert_eq!(
            is_right,
            fault == Fault::None,
            "the planted fault loses an entry"
        );
    }
}

#[test]
fn the_file_of_a_held_segment_is_not_written_again() {
    for fault in [Fault::None, Fault::ReuseHeldSegment] {
        let fs = SimFs::new();
        let mut options = options(&fs);
        options.faults = Faults(fault);
        options.read_mode = ReadMode::Pread;
        let (db, cf) = open(options);
        append(&db, &cf, b"a", 1, &[&[5; 2000]]);
        let snapshot = db.snapshot();
        let at = ReadOptions::at(&snapshot);
        let get = || db.get_with(&cf, &key(b"a", 1), &at);
        assert!(get().is_ok(), "its file is open from here on");
        truncate_front(&db, &cf, b"a", 2);
        for _ in 0..5 {
            fill(&db, &cf, 8_000);
            db.inner.file_work().expect("worked");
        }
        let value = get();
        let is_right = matches!(&value, Ok(Some(value)) if **value == [5; 2000]);
        assert_eq!(is_right, fault == Fault::None, "{value:?}");
    }
}

#[test]
fn a_failed_sync_fences_until_the_next_open() {
    for fault in [Fault::None, Fault::ResumeUnfenced] {
        let fs = SimFs::new();
        let mut options = options(&fs);
        options.faults = Faults(fault);
        let (db, cf) = open(options.clone());
        db.append(&cf, b"a", 1, &[b"one"], WriteOptions::SYNC)
            .expect("durable");
        fs.set_fault_rule(Some(Arc::new(|op| {
            let is_log = op.path.extension().is_some_and(|ext| ext == "log");
            (op.kind == OpKind::Sync && is_log).then(Failure::device)
        })));
        let failed = db.append(&cf, b"a", 2, &[b"two"], WriteOptions::SYNC);
        assert!(failed.is_err());
        fs.set_fault_rule(None);
        let resumed = db.resume();
        if fault == Fault::None {
            assert!(
                matches!(resumed, Err(Error::ReadOnly { .. })),
                "{resumed:?}"
            );
            let again = db.append(&cf, b"a", 2, &[b"two"], WriteOptions::SYNC);
            assert!(matches!(again, Err(Error::ReadOnly { .. })), "{again:?}");
        }
        // What was acknowledged is read meanwhile.
        if fault == Fault::None {
            let one = db.get(&cf, &key(b"a", 1)).expect("read");
            assert_eq!(one.as_deref(), Some(&b"one"[..]));
        }
        drop((db, cf));
        let opened = Db::open(DIR, options.clone()).map(|db| {
            let cf = db.cf("log").expect("it is there");
            (db.get(&cf, &key(b"a", 1)).expect("read"), db)
        });
        let kept = opened.is_ok_and(|(value, _)| value.as_deref() == Some(b"one"));
        assert_eq!(
            kept,
            fault == Fault::None,
            "the planted fault loses what was durable"
        );
    }
}

#[test]
fn truncations_on_a_full_disk_give_room_to_go_on_with() {
    let fs = SimFs::new();
    let mut options = options(&fs);
    options.reserve_bytes = 8192;
    let (db, cf) = open(options.clone());
    append(&db, &cf, b"a", 1, &[b"kept"]);
    fs.set_capacity(Some(fs.used_bytes() + 60_000));
    let mut index = 0;
    let error = loop {
        match db.append(&cf, b"b", index, &[&[1; 1000]], WriteOptions::NO_SYNC) {
            Ok(()) => index += 1,
            Err(error) => break error,
        }
        assert!(index < 1000, "the disk is never full");
    };
    assert!(error.is_disk_full(), "{error}");
    // The entry that lags holds the first segment; it goes first.
    truncate_front(&db, &cf, b"a", 2);
    truncate_front(&db, &cf, b"b", index);
    db.resume().expect("there is room again");
    for more in 0..20 {
        db.append(&cf, b"b", index + more, &[&[2; 1000]], WriteOptions::SYNC)
            .expect("goes on");
        if more % 5 == 4 {
            truncate_front(&db, &cf, b"b", index + more);
        }
    }
    drop((db, cf));
    let (db, cf) = open(options);
    assert_eq!(
        db.append_range(&cf, b"b").expect("asked"),
        Some(index + 19..index + 20)
    );
}

#[test]
fn what_snapshots_hold_is_bounded_and_beyond_it_they_expire() {
    let fs = SimFs::new();
    let mut options = options(&fs);
    options.max_pinned_log_bytes = 20_000;
    options.recycled_segments = 0;
    let (db, cf) = open(options);
    append(&db, &cf, b"a", 1, &[&[5; 2000]]);
    let snapshot = db.snapshot();
    let at = ReadOptions::at(&snapshot);
    let get = || db.get_with(&cf, &key(b"a", 1), &at);
    truncate_front(&db, &cf, b"a", 2);
    fill(&db, &cf, 8_000);
    db.inner.file_work().expect("worked");
    let slice = get().expect("held").expect("it was there");
    assert!(
        db.stats().log_pinned_bytes > 0,
        "its segment is no part of the log"
    );
    assert!(db.get(&cf, &key(b"a", 1)).expect("read").is_none());
    for _ in 0..5 {
        let _another = db.snapshot();
        fill(&db, &cf, 8_000);
        let held = db.iter(&cf, &ReadOptions::default()).expect("a cursor");
        db.inner.file_work().expect("worked");
        drop(held);
    }
    let many: Vec<_> = (0..6)
        .map(|_| {
            fill(&db, &cf, 8_000);
            let held = db.snapshot();
            db.inner.file_work().expect("worked");
            held
        })
        .collect();
    let expired = get();
    assert!(matches!(expired, Err(Error::Expired(_))), "{expired:?}");
    assert_eq!(
        slice,
        [5; 2000][..],
        "a slice has its bytes as long as it lives"
    );
    assert!(db.stats().log_pinned_bytes <= 20_000 + 2 * 4096);
    drop((many, slice, snapshot));
    db.inner.file_work().expect("worked");
    assert_eq!(db.stats().log_pinned_bytes, 0);
}

#[test]
fn a_flipped_bit_is_an_error_that_names_file_and_offset() {
    for read_mode in [ReadMode::Mapped, ReadMode::Pread] {
        let fs = SimFs::new();
        let mut options = options(&fs);
        options.read_mode = read_mode;
        let (db, cf) = open(options);
        let needle = [0xab; 500];
        append(&db, &cf, b"a", 1, &[b"first", &needle, b"third"]);
        let log = fs
            .files()
            .into_iter()
            .filter(|path| path.extension().is_some_and(|ext| ext == "log"))
            .find_map(|path| {
                let bytes = fs.read_raw(&path).expect("read");
                let at = bytes.windows(500).position(|window| window == needle)?;
                Some((path, at as u64))
            });
        let (path, at) = log.expect("it is in the log");
        fs.corrupt(&path, at + 77, 4).expect("flipped");
        let error = db.get(&cf, &key(b"a", 2)).expect_err("damaged");
        match &error {
            Error::Corruption {
                path: named,
                offset,
                ..
            } => {
                assert!(
                    named.ends_with(path.file_name().expect("a file")),
                    "{error}"
                );
                assert!((at - 6..=at).contains(offset), "{error}, not {at}");
            }
            _ => panic!("{error}"),
        }
        assert!(db.get(&cf, &key(b"a", 1)).expect("read").is_some());
        let damage = db.verify().expect("read").damage;
        assert_eq!(damage.len(), 2, "the record and the entry: {damage:?}");
    }
}

#[test]
fn values_of_durable_segments_are_handed_out_in_place_on_the_real_disk() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = Options {
        log_segment_bytes: (16 << 10, 16 << 10),
        recycled_segments: 4,
        append_tail_bytes: 0,
        ..Options::default()
    };
    let db = Db::open(dir.path(), options).expect("opened");
    let cf = db.create_cf("log", CfOptions::append(1)).expect("created");
    append(&db, &cf, b"a", 1, &[&[9; 4000]]);
    let copied = db.get(&cf, &key(b"a", 1)).expect("read").expect("there");
    assert_eq!(db.stats().pinned_bytes, 0, "the segment is written to");
    fill(&db, &cf, 40_000);
    db.sync().expect("synced");
    let pinned = db.get(&cf, &key(b"a", 1)).expect("read").expect("there");
    assert_eq!(db.stats().pinned_bytes, 4000);
    // Its segment goes; as long as the slice is held its file is not written again.
    truncate_front(&db, &cf, b"a", 2);
    for _ in 0..5 {
        fill(&db, &cf, 40_000);
        db.sync().expect("synced");
        db.inner.file_work().expect("worked");
    }
    assert_eq!((&*pinned, &*copied), (&[9; 4000][..], &[9; 4000][..]));
    drop(pinned);
    assert_eq!(db.stats().pinned_bytes, 0);
    db.close().expect("closed");
}

#[test]
fn a_dropped_family_frees_the_log_and_what_is_on_its_way_comes_to_nothing() {
    let fs = SimFs::new();
    let (db, cf) = open(options(&fs));
    let other = db
        .create_cf("other", CfOptions::append(0))
        .expect("created");
    append(&db, &other, b"", 5, &[b"stays"]);
    for index in 0..40 {
        append(&db, &cf, b"a", index, &[&[1; 1000]]);
    }
    let mut batch = WriteBatch::new();
    batch.append(&cf, b"a", 40, &[b"late"]);
    batch.append(&other, b"", 6, &[b"late"]);
    let ticket = db.submit(batch, WriteOptions::SYNC).expect("submitted");
    db.drop_cf(&cf).expect("dropped");
    ticket.wait().expect("synced");
    assert!(matches!(
        db.get(&cf, b"a"),
        Err(Error::NoSuchColumnFamily(_))
    ));
    assert_eq!(db.append_range(&other, b"").expect("asked"), Some(5..7));
    truncate_front(&db, &other, b"", 6);
    db.inner.file_work().expect("worked");
    assert!(
        db.stats().log_segments <= 2,
        "{:?}",
        db.stats().log_segments
    );
    drop((db, cf, other));
    let db = Db::open(DIR, options(&fs.crash(Survival::ProcessDeath))).expect("opened");
    let other = db.cf("other").expect("there");
    assert_eq!(
        values(&db, &other),
        [(6_u64.to_be_bytes().to_vec(), b"late".to_vec())]
    );
}

#[test]
fn everything_else_is_a_wrong_call_and_changes_nothing() {
    let fs = SimFs::new();
    let (db, cf) = open(options(&fs));
    let plain = db.default_cf();
    append(&db, &cf, b"a", 5, &[b"five"]);
    let refused = |fill: &dyn Fn(&mut WriteBatch)| {
        let mut batch = WriteBatch::new();
        batch.put(&plain, b"k", b"v");
        fill(&mut batch);
        let error = db.write(batch, WriteOptions::SYNC).expect_err("refused");
        assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
    };
    refused(&|batch| batch.put(&cf, &key(b"a", 6), b"six"));
    refused(&|batch| batch.delete(&cf, &key(b"a", 5)));
    refused(&|batch| batch.delete_range(&cf, b"a", b"b"));
    refused(&|batch| batch.append(&plain, b"a", 6, &[b"six"]));
    refused(&|batch| batch.truncate_front(&plain, b"a", 6));
    refused(&|batch| batch.append(&cf, b"long", 6, &[b"six"]));
    refused(&|batch| batch.append(&cf, b"a", 7, &[b"a gap"]));
    refused(&|batch| batch.append(&cf, b"a", u64::MAX, &[b"too high"]));
    refused(&|batch| {
        // Each alone would do; the first is taken back with the second.
        batch.append(&cf, b"a", 6, &[b"six"]);
        batch.append(&cf, b"c", 1, &[b"one"]);
        batch.append(&cf, b"c", 3, &[b"three"]);
    });
    append(&db, &cf, b"a", 6, &[b"no gap: the range was not moved"]);
    append(&db, &cf, b"c", 9, &[b"nor begun"]);
    assert!(db.get(&plain, b"k").expect("read").is_none());

    let unlogged = CfOptions {
        logged: false,
        ..CfOptions::append(1)
    };
    for options in [unlogged, CfOptions::append(1025)] {
        let error = db.create_cf("x", options).expect_err("out of range");
        assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
    }
    for (name, options) in [
        ("log", CfOptions::default()),
        ("log", CfOptions::append(2)),
        ("default", CfOptions::append(2)),
    ] {
        let error = db.open_cf(name, options).expect_err("another class");
        assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
    }
    assert!(matches!(
        db.table_writer(&cf, "t"),
        Err(Error::InvalidArgument(_))
    ));
    assert!(db.append_range(&plain, b"a").is_err());
    db.flush(&cf).expect("nothing to do");
    db.compact_range(&cf, None, None).expect("nothing to do");
    assert_eq!(values(&db, &cf).len(), 3);
}

#[test]
fn only_a_database_that_had_append_families_has_the_new_format_and_keeps_it() {
    let fs = SimFs::new();
    let version = || {
        let manifest = fs.files().into_iter().find(|path| {
            let name = path.file_name().expect("a file").to_string_lossy();
            name.starts_with("MANIFEST")
        });
        fs.read_raw(manifest.expect("one")).expect("read")[12]
    };
    let db = Db::open(DIR, options(&fs)).expect("opened");
    db.create_cf("plain", CfOptions::default())
        .expect("created");
    assert_eq!(version(), 1);
    let cf = db.create_cf("log", CfOptions::append(3)).expect("created");
    assert_eq!(version(), 2);
    db.drop_cf(&cf).expect("dropped");
    drop((db, cf));
    drop(Db::open(DIR, options(&fs)).expect("opened"));
    assert_eq!(version(), 2, "the log may still have its records");
    assert!(fs.list_dir(DIR.as_ref()).is_ok());
}
