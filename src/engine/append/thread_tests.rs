//! Append families under threads, on the real disk: writers that append and cut, readers beside them, segments
//! that come and go.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use crate::{CfOptions, ColumnFamily, Db, Error, Options, ReadOptions, WriteBatch, WriteOptions};

const WRITERS: u8 = 3;
const BATCHES: u64 = 3000;

/// The value at an index says where it belongs; it is as long as it takes to be handed out in place at times.
fn value(prefix: u8, index: u64) -> Vec<u8> {
    let len = if index.is_multiple_of(7) { 1500 } else { 40 };
    let mut value = vec![prefix; len];
    value[..8].copy_from_slice(&index.to_le_bytes());
    value
}

fn key(prefix: u8, index: u64) -> Vec<u8> {
    [&[prefix][..], &index.to_be_bytes()].concat()
}

/// Appends, cuts, and keeps in a plain family what there must be after each batch.
fn write(db: &Db, log: &ColumnFamily, states: &ColumnFamily, prefix: u8) {
    let (mut first, mut end) = (0, 0);
    for batch_number in 0..BATCHES {
        let mut batch = WriteBatch::new();
        let values: Vec<_> = (end..end + batch_number % 5)
            .map(|i| value(prefix, i))
            .collect();
        batch.append(log, &[prefix], end, &values);
        end += values.len() as u64;
        // The last prefix lags: it keeps what the others have long cut.
        let kept = if prefix + 1 == WRITERS { 2000 } else { 40 };
        if end - first > kept {
            first = end - kept / 2;
            batch.truncate_front(log, &[prefix], first);
        }
        if batch_number % 11 == 0 && end > first + 3 {
            end -= 2;
            batch.truncate_back(log, &[prefix], end);
        }
        let state = [first.to_le_bytes(), end.to_le_bytes()].concat();
        batch.put(states, &[prefix], &state);
        let options = WriteOptions {
            sync: batch_number % 40 == 0,
        };
        db.write(batch, options).expect("written");
    }
}

fn state(bytes: &[u8]) -> (u64, u64) {
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight"));
    (number(0), number(8))
}

/// A snapshot is one moment of both families; single reads never show half of a batch.
fn read(db: &Db, log: &ColumnFamily, states: &ColumnFamily, prefix: u8) {
    let snapshot = db.snapshot();
    let at = ReadOptions::at(&snapshot);
    let Some(bytes) = db.get_with(states, &[prefix], &at).expect("read") else {
        return;
    };
    let (first, end) = state(&bytes);
    let mut cursor = db
        .iter(log, &at.clone().prefix(&[prefix]))
        .expect("a cursor");
    cursor.seek_to_first().expect("read");
    for index in first..end {
        assert!(cursor.valid(), "{index} of {first}..{end}");
        assert_eq!(cursor.key(), key(prefix, index));
        assert_eq!(cursor.value(), value(prefix, index));
        cursor.next().expect("read");
    }
    assert!(!cursor.valid(), "nothing behind {end}");
    // What the log shows is never ahead of the state that came with it.
    if let Some(range) = db.append_range(log, &[prefix]).expect("asked") {
        let now = db.get(states, &[prefix]).expect("read").expect("there");
        let (now_first, _) = state(&now);
        assert!(now_first >= range.start, "{now_first} {range:?}");
        match db.get(log, &key(prefix, range.start)).expect("read") {
            Some(found) => assert_eq!(*found, *value(prefix, range.start)),
            None => {
                let later = db.append_range(log, &[prefix]).expect("asked");
                assert!(later.is_none_or(|later| later.start > range.start));
            }
        }
    }
}

#[test]
fn readers_beside_writers_see_whole_batches_while_segments_come_and_go() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = || Options {
        log_segment_bytes: (8 << 10, 32 << 10),
        max_log_garbage_bytes: 64 << 10,
        max_log_bytes: 128 << 10,
        recycled_segments: 3,
        ..Options::default()
    };
    let db = Db::open(dir.path(), options()).expect("opened");
    let log = db.create_cf("log", CfOptions::append(1)).expect("created");
    let states = db
        .create_cf("states", CfOptions::default())
        .expect("created");
    let (done, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|reader| {
                let (db, log, states, done, reads) = (&db, &log, &states, &done, &reads);
                scope.spawn(move || {
                    let mut prefix = reader;
                    while !done.load(Ordering::Relaxed) {
                        prefix = (prefix + 1) % WRITERS;
                        read(db, log, states, prefix);
                        reads.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let writers: Vec<_> = (0..WRITERS)
            .map(|prefix| {
                let (db, log, states) = (&db, &log, &states);
                scope.spawn(move || write(db, log, states, prefix))
            })
            .collect();
        let outcomes: Vec<_> = writers
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect();
        done.store(true, Ordering::Relaxed);
        let outcomes = outcomes
            .into_iter()
            .chain(readers.into_iter().map(thread::ScopedJoinHandle::join));
        assert!(
            outcomes.into_iter().all(|outcome| outcome.is_ok()),
            "all went well"
        );
    });
    let stats = db.stats();
    println!(
        "{} reads, {} segments, {} bytes rewritten, {} flushes",
        reads.load(Ordering::Relaxed),
        stats.log_segments,
        stats.log_rewritten_bytes,
        stats.flushes
    );
    assert!(
        stats.log_rewritten_bytes > 0,
        "what lags was written forward"
    );
    assert!(db.verify().expect("read").damage.is_empty());
    let all = |db: &Db, log: &ColumnFamily| {
        let rows = db.range(log, &ReadOptions::default()).expect("a range");
        let rows = rows.map(|row| row.map(|(key, value)| (key, value.to_vec())));
        rows.collect::<Result<Vec<_>, Error>>().expect("read")
    };
    let before = all(&db, &log);
    drop((log, states));
    db.close().expect("closed");
    let db = Db::open(dir.path(), options()).expect("opened again");
    assert!(
        all(&db, &db.cf("log").expect("there")) == before,
        "it is as it was"
    );
}
