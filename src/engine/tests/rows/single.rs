//! Single promises, each by itself.

use std::{
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use basalt_engine::{
    AppendWithDelimiter, ByteOrderOf, CfOptions, CompactionFilter, Db, Error, FilterDecision,
    FilterRow, Ingest, ManualClock, Options, ReadOptions, Snapshot, U64Add, WriteBatch,
    WriteOptions, executor::SimExecutor, fs::SimFs,
};

const NO_SYNC: WriteOptions = WriteOptions::NO_SYNC;

fn options(fs: &Arc<SimFs>, clock: &Arc<ManualClock>) -> Options {
    let mut options = Options::with(Arc::clone(fs) as _, Arc::new(SimExecutor::new(1)));
    options.clock = Arc::clone(clock) as _;
    options
}

fn open(fs: &Arc<SimFs>) -> Db {
    Db::open("/db", options(fs, &Arc::default())).expect("it opens")
}

fn counter() -> CfOptions {
    CfOptions::default().merge_operator(Arc::new(U64Add(ByteOrderOf::LittleEndian)))
}

/// Format version in the header of the manifest in use.
fn format_version(fs: &SimFs) -> u8 {
    use basalt_engine::fs::Fs;
    let current = fs.read("/db/CURRENT".as_ref()).expect("there");
    let name = std::str::from_utf8(&current[..15]).expect("text");
    fs.read(format!("/db/{name}").as_ref()).expect("there")[12]
}

#[test]
fn the_operators_name_stays_with_the_family_and_its_code_is_to_be_given_again() {
    let fs = SimFs::new();
    let db = open(&fs);
    let plain = db.create_cf("plain", CfOptions::default()).expect("new");
    assert_eq!(format_version(&fs), 1, "nothing new is used");
    let refused = db.merge(&plain, b"k", b"v", NO_SYNC);
    assert!(
        matches!(refused, Err(Error::InvalidArgument(_))),
        "{refused:?}"
    );
    let cf = db.create_cf("counts", counter()).expect("new");
    assert_eq!(
        format_version(&fs),
        3,
        "an engine before this one refuses it by name"
    );
    let one = 1_u64.to_le_bytes();
    db.put(&cf, b"value", b"as it is", NO_SYNC).expect("a put");
    for _ in 0..3 {
        db.merge(&cf, b"sum", &one, NO_SYNC).expect("a merge");
    }
    db.close().expect("closed");

    let db = open(&fs);
    let cf = db.cf("counts").expect("kept");
    assert_eq!(
        db.get(&cf, b"value").expect("no operand").as_deref(),
        Some(&b"as it is"[..])
    );
    for refused in [
        db.get(&cf, b"sum").map(|_| ()),
        db.merge(&cf, b"sum", &one, NO_SYNC),
        db.open_cf("counts", CfOptions::default()).map(|_| ()),
        db.open_cf(
            "counts",
            CfOptions::default().merge_operator(Arc::new(AppendWithDelimiter::new(b","))),
        )
        .map(|_| ()),
        db.create_cf(
            "x",
            CfOptions::append(2).merge_operator(Arc::new(AppendWithDelimiter::new(b","))),
        )
        .map(|_| ()),
        db.create_cf("x", counter().ttl(Duration::from_secs(1)))
            .map(|_| ()),
    ] {
        assert!(
            matches!(refused, Err(Error::InvalidArgument(_))),
            "{refused:?}"
        );
    }
    // Flush and compaction keep operands without the operator, and an end of compaction is reached.
    db.compact_range(&cf, None, None).expect("compacted");
    assert_eq!(db.stats().merge_failures, 0, "nobody was asked");
    let cf = db.open_cf("counts", counter()).expect("the same name");
    let sum = db.get(&cf, b"sum").expect("merged");
    assert_eq!(sum.as_deref(), Some(&3_u64.to_le_bytes()[..]));
    // A family without an operator may be given one.
    let plain = db.open_cf("plain", counter()).expect("a first one");
    db.merge(&plain, b"k", &one, NO_SYNC).expect("a merge");
}

#[test]
fn merges_above_and_beneath_an_ingest_and_in_its_batch() {
    let fs = SimFs::new();
    let db = open(&fs);
    let cf = db.create_cf("counts", counter()).expect("new");
    let number = |n: u64| n.to_le_bytes();
    for key in [b"a", b"b"] {
        db.merge(&cf, key, &number(5), NO_SYNC).expect("a merge");
    }
    let mut writer = db.table_writer(&cf, "/table").expect("a writer");
    writer.put(b"a", &number(100)).expect("in order");
    let mut batch = WriteBatch::new();
    batch.merge(&cf, b"a", &number(1));
    batch.merge(&cf, b"b", &number(1));
    let mut request = Ingest::new();
    request.table(&cf, writer.finish().expect("a table"));
    request.batch(batch);
    db.ingest(request).expect("taken in");
    db.merge(&cf, b"a", &number(7), NO_SYNC).expect("a merge");
    for _ in 0..2 {
        let found = |key: &[u8]| {
            db.get(&cf, key)
                .expect("merged")
                .map(|value| value.to_vec())
        };
        assert_eq!(found(b"a"), Some(number(108).to_vec()));
        assert_eq!(found(b"b"), Some(number(6).to_vec()));
        db.compact_range(&cf, None, None).expect("compacted");
    }
}

/// Takes a snapshot in the midst of the compaction that calls it, and removes every row.
#[derive(Default)]
struct Meddler {
    db: OnceLock<Db>,
    taken: Mutex<Option<Snapshot>>,
}

impl CompactionFilter for Meddler {
    fn filter(&self, _: &FilterRow<'_>, _: &mut Vec<u8>) -> FilterDecision {
        let mut taken = self.taken.lock().expect("no panic holds it");
        if taken.is_none() {
            *taken = self.db.get().map(Db::snapshot);
        }
        FilterDecision::Remove
    }
}

#[test]
fn a_snapshot_taken_while_a_compaction_filters_keeps_what_it_sees() {
    let fs = SimFs::new();
    let db = open(&fs);
    let meddler = Arc::new(Meddler::default());
    let filtered = CfOptions::default().compaction_filter(Arc::clone(&meddler) as _);
    let cf = db.create_cf("filtered", filtered).expect("new");
    for key in [b"a", b"b"] {
        db.put(&cf, key, b"old", NO_SYNC).expect("a put");
        db.put(&cf, key, b"row", NO_SYNC).expect("a put");
    }
    meddler.db.set(db.clone()).expect("once");
    db.compact_range(&cf, None, None).expect("compacted");
    assert_eq!(
        db.get(&cf, b"a").expect("read").as_deref(),
        None,
        "removed, and nothing older comes back"
    );
    let snapshot = meddler.taken.lock().expect("no panic holds it").take();
    let at = ReadOptions::at(&snapshot.expect("it was called"));
    for key in [b"a", b"b"] {
        let found = db.get_with(&cf, key, &at).expect("read");
        assert_eq!(found.as_deref(), Some(&b"row"[..]));
    }
    let rows = db.range(&cf, &at).expect("a range").count();
    let many = db.multi_get(&cf, &[b"a", b"b"], &at).expect("read");
    assert_eq!((rows, many.iter().flatten().count()), (2, 2));
}

#[test]
fn a_clock_set_back_and_a_longer_life_bring_back_nothing_that_reads_saw_gone() {
    let fs = SimFs::new();
    let clock = Arc::new(ManualClock::new(1_000));
    let rows = |millis| CfOptions::default().ttl(Duration::from_millis(millis));
    let db = Db::open("/db", options(&fs, &clock)).expect("it opens");
    let cf = db.create_cf("rows", rows(100)).expect("new");
    db.put(&cf, b"k", b"old", NO_SYNC).expect("a put");
    db.compact_range(&cf, None, None).expect("compacted");
    clock.advance(50);
    db.put(&cf, b"k", b"new", NO_SYNC).expect("a put");
    db.flush(&cf).expect("flushed");
    assert_eq!(
        db.get(&cf, b"k").expect("read").as_deref(),
        Some(&b"new"[..])
    );
    clock.set(1_150);
    assert_eq!(
        db.get(&cf, b"k").expect("read").as_deref(),
        None,
        "its time is over"
    );
    clock.set(1_060);
    assert_eq!(
        db.get(&cf, b"k").expect("read").as_deref(),
        None,
        "time does not go back"
    );
    let refused = db.open_cf("rows", CfOptions::default());
    assert!(
        matches!(refused, Err(Error::InvalidArgument(_))),
        "{refused:?}"
    );
    db.compact_range(&cf, None, None).expect("compacted");
    let cf = db.open_cf("rows", rows(10_000)).expect("another length");
    assert_eq!(
        db.get(&cf, b"k").expect("read").as_deref(),
        None,
        "not the older version either"
    );
    assert_eq!(
        db.stats().families[1].levels[6].tables,
        0,
        "nothing is left of it"
    );
    // The newest time in the log is where the next open begins.
    db.put(&cf, b"k", b"again", NO_SYNC).expect("a put");
    db.close().expect("closed");
    clock.set(3);
    let db = Db::open("/db", options(&fs, &clock)).expect("it opens");
    let cf = db.open_cf("rows", rows(100)).expect("another length");
    assert_eq!(
        db.get(&cf, b"k").expect("read").as_deref(),
        Some(&b"again"[..])
    );
    clock.set(1_250);
    assert_eq!(
        db.get(&cf, b"k").expect("read").as_deref(),
        None,
        "its time is over"
    );
}

/// A family that has large values in files of their own when it is given an operator: operands stand on what is pointed to.
#[test]
fn operands_over_values_in_files_of_their_own_are_folded_and_read_in_every_way() {
    let fs = SimFs::new();
    let db = open(&fs);
    let family = CfOptions {
        large_value_bytes: Some(64),
        l0_compaction_trigger: 100,
        l0_slowdown_trigger: 100,
        l0_stop_trigger: 100,
        ..CfOptions::default()
    };
    let cf = db.create_cf("text", family.clone()).expect("new");
    let key = |n: u8| [b'k', n];
    let value = |n: u8| vec![b'a' + n; 100];
    for n in 0..6 {
        db.put(&cf, &key(n), &value(n), NO_SYNC).expect("a put");
    }
    db.flush(&cf).expect("flushed");
    let files = |db: &Db| {
        db.stats()
            .families
            .iter()
            .map(|f| f.values.files)
            .sum::<usize>()
    };
    assert_eq!(files(&db), 1);
    let with = family.merge_operator(Arc::new(AppendWithDelimiter::new(b",")));
    let cf = db.open_cf("text", with.clone()).expect("given one");
    let old = db.snapshot();
    db.merge(&cf, &key(0), b"x", NO_SYNC).expect("a merge");
    db.merge(&cf, &key(1), b"x", NO_SYNC).expect("a merge");
    db.delete_range(&cf, &key(1), &key(3), NO_SYNC)
        .expect("a delete");
    db.merge(&cf, &key(1), b"y", NO_SYNC).expect("a merge");
    let middle = db.snapshot();
    db.merge(&cf, &key(0), b"z", NO_SYNC).expect("a merge");
    db.merge(&cf, &key(3), b"z", NO_SYNC).expect("a merge");
    db.delete(&cf, &key(4), NO_SYNC).expect("a delete");

    type Rows = Vec<(Vec<u8>, Vec<u8>)>;
    let joined = |n: u8, more: &str| (key(n).to_vec(), [&value(n)[..], more.as_bytes()].concat());
    let plain = |n: u8| (key(n).to_vec(), value(n));
    let first: Rows = (0..6).map(plain).collect();
    let second: Rows = vec![
        joined(0, ",x"),
        (key(1).to_vec(), b"y".to_vec()),
        plain(3),
        plain(4),
        plain(5),
    ];
    let third: Rows = vec![
        joined(0, ",x,z"),
        (key(1).to_vec(), b"y".to_vec()),
        joined(3, ",z"),
        plain(5),
    ];
    let check =
        |db: &Db, cf: &basalt_engine::ColumnFamily, at: Option<&Snapshot>, wanted: &Rows| {
            let options = at.map_or_else(ReadOptions::default, ReadOptions::at);
            let range = || db.range(cf, &options).expect("a cursor");
            let row = |row: basalt_engine::Result<basalt_engine::KeyValue>| {
                let (key, value) = row.expect("a row");
                (key, value.to_vec())
            };
            assert_eq!(range().map(row).collect::<Rows>(), *wanted);
            let mut behind: Rows = range().rev().map(row).collect();
            behind.reverse();
            assert_eq!(behind, *wanted);
            for n in 0..6 {
                let found = db.get_with(cf, &key(n), &options).expect("a read");
                let wanted = wanted.iter().find(|(of, _)| of[..] == key(n));
                assert_eq!(
                    found.as_deref(),
                    wanted.map(|(_, value)| &value[..]),
                    "key {n}"
                );
            }
            // There and back on each row.
            let mut iter = db.iter(cf, &options).expect("a cursor");
            iter.seek_to_first().expect("a row");
            for pair in wanted.windows(2) {
                iter.next().expect("a row");
                assert_eq!((iter.key(), iter.value()), (&pair[1].0[..], &pair[1].1[..]));
                iter.prev().expect("a row");
                assert_eq!((iter.key(), iter.value()), (&pair[0].0[..], &pair[0].1[..]));
                iter.next().expect("a row");
            }
        };
    let check_all = |db: &Db| {
        check(db, &cf, Some(&old), &first);
        check(db, &cf, Some(&middle), &second);
        check(db, &cf, None, &third);
    };
    check_all(&db);
    db.flush(&cf).expect("flushed");
    check_all(&db);
    db.compact_range(&cf, None, None).expect("compacted");
    check_all(&db);
    drop((old, middle));
    db.compact_range(&cf, None, None).expect("compacted");
    check(&db, &cf, None, &third);
    assert!(db.verify().expect("read").damage.is_empty());
    db.close().expect("closed");
    drop(cf);
    let db = open(&fs);
    let cf = db.open_cf("text", with).expect("given again");
    check(&db, &cf, None, &third);
}
