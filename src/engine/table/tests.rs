//! Tables against a sorted list, over all options.

use std::sync::Arc;

use super::{
    test_files::{MemFile, Random, Row, Sink, TABLE_ID, build, key_of, open, path},
    *,
};
use crate::{
    error::Error,
    iter::InternalIterator,
    key::{InternalKey, RangeTombstone, ValueKind, pack_trailer},
    options::{CfOptions, Compression, LEVELS},
    slice::PinnedSlice,
    tombstones::Tombstones,
};

/// A key that is likely to have something to do with other such keys.
fn random_key(random: &mut Random, style: usize) -> Vec<u8> {
    match style {
        0 => format!("key{:06}", random.below(3000)).into_bytes(),
        1 => {
            let len = random.below(12);
            (0..len).map(|_| random.pick(&[0, 1, 0x7f, 0xff])).collect()
        }
        2 => {
            let mut key = vec![b'p'; random.pick(&[0, 1, 8, 300])];
            let len = random.below(20);
            key.extend(random.bytes(len));
            key
        }
        _ => random.bytes(8),
    }
}

fn random_value(random: &mut Random) -> Vec<u8> {
    let len = match random.below(40) {
        0 => random.below(9000),
        1..4 => random.below(1500),
        _ => random.below(60),
    };
    if random.below(2) == 0 {
        vec![b'v'; len]
    } else {
        random.bytes(len)
    }
}

/// Rows in order; sequence numbers are zero where the table is to be ingested.
fn random_rows(random: &mut Random, ingested: bool) -> Vec<Row> {
    let style = random.below(4);
    let keys = random.pick(&[1, 3, 40, 400]);
    let mut rows = Vec::new();
    for _ in 0..keys {
        let key = random_key(random, style);
        let versions = match random.below(30) {
            0 => 120,
            1..5 => 4,
            _ => 1,
        };
        for _ in 0..if ingested { 1 } else { versions } {
            let seq = if ingested {
                0
            } else {
                random.next() >> random.pick(&[8, 30, 58])
            };
            let kind = if random.below(5) == 0 {
                ValueKind::Delete
            } else {
                ValueKind::Put
            };
            let value = if kind == ValueKind::Delete {
                Vec::new()
            } else {
                random_value(random)
            };
            rows.push((key.clone(), pack_trailer(SequenceNumber(seq), kind), value));
        }
    }
    rows.sort_by(|a, b| key_of(a).cmp(&key_of(b)));
    rows.dedup_by(|a, b| a.0 == b.0 && (ingested || a.1 == b.1));
    rows
}

fn random_tombstones(random: &mut Random, ingested: bool) -> Vec<RangeTombstone> {
    let count = random.pick(&[0, 0, 1, 5, 40]);
    let style = random.below(4);
    let mut all = Vec::new();
    while all.len() < count {
        let (a, b) = (random_key(random, style), random_key(random, style));
        let seq = SequenceNumber(if ingested { 0 } else { random.next() >> 20 });
        if a < b {
            all.push(RangeTombstone {
                start: a,
                end: b,
                seq,
            });
        }
    }
    all
}

fn random_options(random: &mut Random) -> CfOptions {
    CfOptions {
        block_bytes: random.pick(&[1, 64, 200, 1000, 4096, 65_536]),
        restart_interval: random.pick(&[0, 1, 2, 3, 16, 1000]),
        filter_bits_per_key: random.pick(&[0, 1, 10, 20]),
        compression: [random.pick(&[Compression::None, Compression::Lz4]); LEVELS],
        ..CfOptions::default()
    }
}

/// Rows as readers of a table with this sequence number see them.
fn seen(rows: &[Row], global_seq: Option<SequenceNumber>) -> Vec<Row> {
    let rule = SeqRule::new(global_seq);
    rows.iter()
        .map(|(key, trailer, value)| (key.clone(), rule.apply(*trailer), value.clone()))
        .collect()
}

fn current(iter: &TableIter) -> Option<Row> {
    iter.valid().then(|| {
        (
            iter.key().user_key.to_vec(),
            iter.key().trailer,
            iter.value().to_vec(),
        )
    })
}

fn check_get(table: &Table, rows: &[Row], seek: InternalKey<'_>) {
    let at = rows.partition_point(|row| key_of(row) < seek);
    let expected = rows.get(at).filter(|row| row.0 == seek.user_key);
    let hash = key_hash(seek.user_key);
    let got = table.get(seek, hash).expect("sound table");
    let got = got.as_ref().map(|(trailer, value)| (*trailer, &**value));
    assert_eq!(got, expected.map(|row| (row.1, &*row.2)), "{seek:?}");
    let with = table.get_with(seek, hash, |trailer, value| (trailer, value.to_vec()));
    let with = with.expect("sound table");
    assert_eq!(with, expected.map(|row| (row.1, row.2.clone())), "{seek:?}");
}

/// A target near the rows.
fn random_target(random: &mut Random, rows: &[Row]) -> (Vec<u8>, u64) {
    let mut key = match rows.len() {
        0 => Vec::new(),
        n => rows[random.below(n)].0.clone(),
    };
    let mut trailer = match rows.len() {
        0 => 0,
        n => rows[random.below(n)].1,
    };
    match random.below(8) {
        0 => key.push(0),
        1 => drop(key.pop()),
        2 => {
            if let Some(last) = key.last_mut() {
                *last = last.wrapping_add(1);
            }
        }
        3 => {
            let style = random.below(4);
            key = random_key(random, style);
        }
        _ => {}
    }
    if random.below(2) == 0 {
        trailer = random.next() >> random.pick(&[0, 22, 50]) | 0xff;
    }
    (key, trailer)
}

fn check_walk(random: &mut Random, table: &Arc<Table>, rows: &[Row]) {
    let mut iter = if random.below(2) == 0 {
        table.iter()
    } else {
        table.iter_once()
    };
    for _ in 0..30 {
        let (key, trailer) = random_target(random, rows);
        let target = InternalKey {
            user_key: &key,
            trailer,
        };
        // Position in `rows`; `None` is "not valid".
        let mut at = match random.below(6) {
            0 => {
                iter.seek_to_first().expect("sound table");
                (!rows.is_empty()).then_some(0)
            }
            1 => {
                iter.seek_to_last().expect("sound table");
                rows.len().checked_sub(1)
            }
            2 | 3 => {
                iter.seek(target).expect("sound table");
                Some(rows.partition_point(|row| key_of(row) < target)).filter(|&at| at < rows.len())
            }
            _ => {
                iter.seek_for_prev(target).expect("sound table");
                rows.partition_point(|row| key_of(row) <= target)
                    .checked_sub(1)
            }
        };
        assert_eq!(
            current(&iter).as_ref(),
            at.map(|at| &rows[at]),
            "{target:?}"
        );
        let forward_in_ten = random.pick(&[0, 3, 5, 7, 10]);
        for _ in 0..random.pick(&[3, 60]) {
            let Some(here) = at else { break };
            at = if random.below(10) < forward_in_ten {
                iter.next().expect("sound table");
                Some(here + 1).filter(|&at| at < rows.len())
            } else {
                iter.prev().expect("sound table");
                here.checked_sub(1)
            };
            assert_eq!(current(&iter).as_ref(), at.map(|at| &rows[at]));
        }
    }
}

fn check_scans(table: &Arc<Table>, rows: &[Row]) {
    let mut iter = table.iter();
    iter.seek_to_first().expect("sound table");
    for row in rows {
        assert_eq!(current(&iter).as_ref(), Some(row));
        iter.next().expect("sound table");
    }
    assert!(!iter.valid());
    iter.seek_to_last().expect("sound table");
    for row in rows.iter().rev() {
        assert_eq!(current(&iter).as_ref(), Some(row));
        iter.prev().expect("sound table");
    }
    assert!(!iter.valid());
}

fn check_info(info: &TableInfo, rows: &[Row], tombstones: &Tombstones, bytes: &[u8]) {
    let seqs = || {
        let points = rows.iter().map(|row| key_of(row).seq());
        points.chain(tombstones.all().map(|tombstone| tombstone.seq))
    };
    let first = rows.first().map(|row| row.0.clone());
    let last = rows.last().map(|row| row.0.clone());
    let start = tombstones.all().map(|tombstone| tombstone.start).min();
    let end = tombstones.all().map(|tombstone| tombstone.end).max();
    let smallest = first.iter().chain(&start).min().expect("not empty").clone();
    let exclusive = end > last;
    let expected = TableInfo {
        table_id: TABLE_ID,
        size: bytes.len() as u64,
        crc: crc32fast::hash(bytes),
        smallest,
        largest: last.max(end).expect("not empty"),
        largest_exclusive: exclusive,
        entries: rows.len() as u64,
        deletes: rows.iter().filter(|row| row.1 & 0xff == 0).count() as u64,
        tombstones: tombstones.all().count() as u64,
        min_seq: seqs().min().expect("not empty"),
        max_seq: seqs().max().expect("not empty"),
        times: None,
    };
    assert_eq!(*info, expected);
}

fn check_random_table(seed: u64) {
    let random = &mut Random(seed);
    let ingested = random.below(4) == 0;
    let global_seq = ingested.then(|| SequenceNumber(random.next() >> random.pick(&[8, 40])));
    let stored = random_rows(random, ingested);
    let given = random_tombstones(random, ingested);
    let options = random_options(random);
    let (bytes, info) = build(&stored, &given, &options, random.below(9)).expect("memory");
    check_info(&info, &stored, &Tombstones::new(given.clone()), &bytes);
    let rows = seen(&stored, global_seq);
    let mut tombstones = given;
    for tombstone in &mut tombstones {
        tombstone.seq = global_seq.unwrap_or(tombstone.seq);
    }
    for mapped in [true, false] {
        let table = open(bytes.clone(), info.identity(), mapped, global_seq).expect("sound table");
        assert_eq!(table.info(info.crc), info);
        assert_eq!(**table.tombstones(), Tombstones::new(tombstones.clone()));
        for _ in 0..200 {
            let (key, trailer) = random_target(random, &rows);
            check_get(
                &table,
                &rows,
                InternalKey {
                    user_key: &key,
                    trailer,
                },
            );
        }
        for row in &rows {
            check_get(&table, &rows, key_of(row));
            check_get(
                &table,
                &rows,
                InternalKey::seek_to(&row.0, SequenceNumber::MAX),
            );
        }
        check_walk(random, &table, &rows);
        check_scans(&table, &rows);
        table.verify(info.crc).expect("sound table");
        assert!(table.verify(info.crc ^ 1).is_err());
    }
}

#[test]
fn random_tables_answer_as_a_sorted_list_does() {
    for seed in 0..300 {
        let outcome = std::panic::catch_unwind(|| check_random_table(seed));
        assert!(outcome.is_ok(), "seed {seed}");
    }
}

/// One row with a value of `len` bytes in a table, and a shorter row.
fn table_with_a_value(len: usize, compression: Compression, mapped: bool) -> Arc<Table> {
    let trailer = pack_trailer(SequenceNumber(1), ValueKind::Put);
    let rows = [
        (b"a".to_vec(), trailer, vec![1; len]),
        (b"b".to_vec(), trailer, vec![2; 3]),
    ];
    let options = CfOptions {
        compression: [compression; LEVELS],
        ..CfOptions::default()
    };
    let (bytes, info) = build(&rows, &[], &options, 0).expect("memory");
    open(bytes, info.identity(), mapped, None).expect("sound table")
}

#[test]
fn only_a_long_value_of_an_uncompressed_mapped_table_is_used_in_place() {
    let cases = [
        (crate::PIN_MIN_LEN, Compression::None, true, true),
        (crate::PIN_MIN_LEN - 1, Compression::None, true, false),
        (crate::PIN_MIN_LEN, Compression::Lz4, true, false),
        (crate::PIN_MIN_LEN, Compression::None, false, false),
    ];
    for (len, compression, mapped, in_place) in cases {
        let table = table_with_a_value(len, compression, mapped);
        let seek = InternalKey::seek_to(b"a", SequenceNumber::MAX);
        let (_, value) = table
            .get(seek, key_hash(b"a"))
            .expect("sound")
            .expect("there");
        assert_eq!(value, vec![1; len][..]);
        let address = value.as_ptr();
        let within = table
            .file
            .map()
            .is_some_and(|map| map.as_ptr_range().contains(&address));
        assert_eq!(within, in_place, "{len} {compression:?} {mapped}");
        drop(table);
        assert_eq!(value, vec![1; len][..], "a value outlives its table");
    }
}

#[test]
fn blocks_of_mapped_uncompressed_tables_stay_out_of_the_cache_and_others_go_in() {
    for (compression, mapped, cached) in [
        (Compression::None, true, 0),
        (Compression::Lz4, true, 1),
        (Compression::None, false, 1),
    ] {
        let trailer = pack_trailer(SequenceNumber(1), ValueKind::Put);
        let rows = [(b"a".to_vec(), trailer, vec![1; 100])];
        let options = CfOptions {
            compression: [compression; LEVELS],
            ..CfOptions::default()
        };
        let (bytes, info) = build(&rows, &[], &options, 0).expect("memory");
        let cache = crate::cache::BlockCache::with_pins(1 << 20, 1 << 20);
        let file = Arc::new(MemFile::new(bytes, mapped));
        let table = Table::open(file, &path(), 7, &info.identity(), None, Arc::clone(&cache));
        let table = Arc::new(table.expect("sound table"));
        let mut once = table.iter_once();
        once.seek_to_first().expect("sound table");
        assert_eq!(cache.stats().blocks, 0, "reading once keeps nothing");
        check_get(
            &table,
            &rows,
            InternalKey::seek_to(b"a", SequenceNumber::MAX),
        );
        assert_eq!(cache.stats().blocks, cached, "{compression:?} {mapped}");
    }
}

#[test]
fn a_table_without_an_entry_is_refused_and_one_of_range_tombstones_alone_is_not() {
    let options = CfOptions::default();
    assert!(matches!(
        build(&[], &[], &options, 0),
        Err(Error::InvalidArgument(_))
    ));
    let tombstone = RangeTombstone {
        start: b"a".to_vec(),
        end: b"b".to_vec(),
        seq: SequenceNumber(3),
    };
    let (bytes, info) = build(&[], std::slice::from_ref(&tombstone), &options, 0).expect("memory");
    assert_eq!((&*info.smallest, &*info.largest), (&b"a"[..], &b"b"[..]));
    assert!(info.largest_exclusive);
    let table = open(bytes, info.identity(), true, None).expect("sound table");
    check_scans(&table, &[]);
    check_get(&table, &[], InternalKey::seek_to(b"a", SequenceNumber::MAX));
    assert_eq!(
        table.tombstones().covering_seq(b"a", SequenceNumber::MAX),
        SequenceNumber(3)
    );
    table.verify(info.crc).expect("sound table");
}

#[test]
fn a_key_ending_where_a_range_tombstone_ends_makes_the_bound_inclusive() {
    let trailer = pack_trailer(SequenceNumber(9), ValueKind::Put);
    let rows = [(b"b".to_vec(), trailer, Vec::new())];
    let tombstone = RangeTombstone {
        start: b"a".to_vec(),
        end: b"b".to_vec(),
        seq: SequenceNumber(3),
    };
    let (_, info) = build(&rows, &[tombstone], &CfOptions::default(), 0).expect("memory");
    assert_eq!((&*info.largest, info.largest_exclusive), (&b"b"[..], false));
    assert_eq!(
        (info.min_seq, info.max_seq),
        (SequenceNumber(3), SequenceNumber(9))
    );
}

#[test]
#[should_panic(expected = "before")]
fn keys_out_of_order_are_a_defect_of_the_caller() {
    let trailer = pack_trailer(SequenceNumber(1), ValueKind::Put);
    let file = Box::new(Sink::default());
    let mut builder = TableBuilder::new(file, path(), 1, &CfOptions::default(), 0);
    builder
        .add(
            InternalKey {
                user_key: b"b",
                trailer,
            },
            b"",
        )
        .expect("memory");
    builder
        .add(
            InternalKey {
                user_key: b"a",
                trailer,
            },
            b"",
        )
        .expect("memory");
}

#[test]
fn what_a_file_says_of_itself_is_what_its_builder_said() {
    let trailer = pack_trailer(SequenceNumber(1), ValueKind::Put);
    let rows = [(b"b".to_vec(), trailer, Vec::new())];
    let (bytes, info) = build(&rows, &[], &CfOptions::default(), 0).expect("memory");
    let file = MemFile::new(bytes, false);
    assert_eq!(
        TableIdentity::read(&file, &path()).expect("sound table"),
        info.identity()
    );
    assert_eq!(file_crc(&file, &path()).expect("memory"), info.crc);
}

#[test]
fn size_so_far_is_near_the_size_of_the_file() {
    let file = Box::new(Sink::default());
    let mut builder = TableBuilder::new(file, path(), 1, &CfOptions::default(), 0);
    let trailer = pack_trailer(SequenceNumber(1), ValueKind::Put);
    for i in 0..20_000_u32 {
        builder
            .add(
                InternalKey {
                    user_key: &i.to_be_bytes(),
                    trailer,
                },
                &[7; 50],
            )
            .expect("memory");
    }
    let so_far = builder.size_so_far();
    let size = builder.finish().expect("memory").size;
    assert!(so_far.abs_diff(size) < size / 50, "{so_far} {size}");
}

/// A table of many blocks over a file that can be asked what it was asked for.
fn watched(compression: Compression, mapped: bool) -> (Arc<MemFile>, Arc<Table>, Vec<Row>) {
    let trailer = pack_trailer(SequenceNumber(1), ValueKind::Put);
    let rows: Vec<Row> = (0..100_u32)
        .map(|i| (i.to_be_bytes().to_vec(), trailer, vec![7; 50]))
        .collect();
    let options = CfOptions {
        block_bytes: 300,
        compression: [compression; LEVELS],
        ..CfOptions::default()
    };
    let (bytes, info) = build(&rows, &[], &options, 0).expect("memory");
    let file = Arc::new(MemFile::new(bytes, mapped));
    let cache = crate::cache::BlockCache::with_pins(1 << 20, 1 << 20);
    let table = Table::open(
        Arc::clone(&file) as _,
        &path(),
        7,
        &info.identity(),
        None,
        cache,
    );
    file.asked.lock().expect("one thread").clear();
    (file, Arc::new(table.expect("sound table")), rows)
}

#[test]
fn a_block_is_asked_of_the_disk_once_however_often_it_is_used() {
    for (compression, mapped) in [
        (Compression::None, true),
        (Compression::Lz4, true),
        (Compression::Lz4, false),
    ] {
        let (file, table, rows) = watched(compression, mapped);
        assert!(table.data_blocks() > 20);
        for row in rows.iter().chain(&rows) {
            check_get(&table, &rows, key_of(row));
        }
        check_scans(&table, &rows);
        let asked = std::mem::take(&mut *file.asked.lock().expect("one thread"));
        assert_eq!(asked.len(), table.data_blocks(), "{compression:?} {mapped}");
        assert!(asked.is_sorted_by(|a, b| a.end == b.start), "{asked:?}");
    }
}

#[test]
fn a_walk_in_order_asks_for_many_blocks_of_a_map_at_once() {
    let (file, table, rows) = watched(Compression::None, true);
    check_scans(&table, &rows);
    let asked = file.asked.lock().expect("one thread").len();
    assert_eq!(asked, 2, "the first block, and then all others");
}

#[test]
fn a_failing_disk_is_an_error_with_the_file_and_the_table_works_again_when_it_recovers() {
    for mapped in [true, false] {
        let (file, table, rows) = watched(Compression::None, mapped);
        file.failing
            .store(true, std::sync::atomic::Ordering::Relaxed);
        let mut iter = table.iter();
        let errors = [
            table
                .get(key_of(&rows[5]), key_hash(&rows[5].0))
                .expect_err("bad sector"),
            iter.seek_to_first().expect_err("bad sector"),
            iter.seek_to_last().expect_err("bad sector"),
            table.verify(0).expect_err("bad sector"),
        ];
        for error in errors {
            assert_eq!(error.to_string(), "read /db/000007.sst: bad sector");
        }
        assert!(!iter.valid());
        file.failing
            .store(false, std::sync::atomic::Ordering::Relaxed);
        check_scans(&table, &rows);
    }
}

#[test]
fn a_lookup_that_may_not_wait_answers_from_memory_alone() {
    use std::sync::atomic::Ordering::Relaxed;
    for (compression, mapped) in [
        (Compression::None, true),
        (Compression::Lz4, true),
        (Compression::Lz4, false),
    ] {
        let (file, table, rows) = watched(compression, mapped);
        let row = &rows[5];
        let look = || table.try_get(key_of(row), key_hash(&row.0));
        let value = |found: Option<(u64, PinnedSlice)>| found.expect("there").1.to_vec();
        file.resident.store(false, Relaxed);
        assert!(
            matches!(look(), Err(Error::Busy(_))),
            "{compression:?} {mapped}"
        );
        assert_eq!(
            file.asked.lock().expect("one thread").len(),
            0,
            "the disk was asked"
        );
        file.resident.store(true, Relaxed);
        match look() {
            Ok(found) => assert_eq!((mapped, value(found)), (true, row.2.clone())),
            Err(error) => assert!(!mapped && matches!(error, Error::Busy(_)), "{error}"),
        }
        // Once somebody has waited for it, what is kept in the cache is there whatever the system keeps.
        table.get(key_of(row), key_hash(&row.0)).expect("sound");
        file.resident.store(false, Relaxed);
        let is_cached = compression != Compression::None || !mapped;
        match look() {
            Ok(found) => assert_eq!((is_cached, value(found)), (true, row.2.clone())),
            Err(error) => assert!(!is_cached && matches!(error, Error::Busy(_)), "{error}"),
        }
        let (absent, hash) = (
            InternalKey::seek_to(b"absent", SequenceNumber::MAX),
            key_hash(b"absent"),
        );
        assert!(
            matches!(table.try_get(absent, hash), Ok(None)),
            "the filter knows"
        );
    }
}
