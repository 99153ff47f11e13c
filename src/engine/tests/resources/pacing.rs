//! The rate limiter around real flushes and compactions, by the simulated clock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use basalt_engine::{
    CfOptions, Db, ExportOptions, Options, RateLimiter, ReadOptions, WriteOptions,
    fs::sim::{Op, OpKind},
};

use crate::simulated;

const VALUE: [u8; 1000] = [9; 1000];

/// A database of some 4 MB in tables; the simulated time that took.
fn fill(options: &Options, path: &str) -> (Db, Duration) {
    let db = Db::open(path, options.clone()).expect("opened");
    let cf = db
        .open_cf(
            "data",
            CfOptions {
                compression: [basalt_engine::Compression::None; basalt_engine::LEVELS],
                ..CfOptions::default()
            },
        )
        .expect("created");
    let begun = options.executor.now();
    for i in 0..4_000_u32 {
        db.put(&cf, &i.to_be_bytes(), &VALUE, WriteOptions::NO_SYNC)
            .expect("written");
    }
    db.flush(&cf).expect("flushed");
    let took = options.executor.now() - begun;
    (db, took)
}

#[test]
fn flushes_compactions_and_checkpoints_go_at_the_rate_and_a_new_rate_is_taken_online() {
    let (_, mut options) = simulated(11);
    let (_, free) = fill(&options, "free");
    assert!(free < Duration::from_millis(500), "{free:?}");
    let limiter = RateLimiter::new(Arc::clone(&options.executor), 1 << 20);
    options.rate_limiter = Some(limiter.clone());
    let (db, took) = fill(&options, "slow");
    assert!(
        (3.0..5.0).contains(&took.as_secs_f64()),
        "4 MB at 1 MiB/s: {took:?}"
    );
    let stats = limiter.stats();
    assert!(
        stats.bytes[0] > 4_000_000 && stats.bytes[1..] == [0, 0],
        "{stats:?}"
    );
    assert!(
        stats.waits[0] > 10 && stats.waited[0] > Duration::from_secs(2),
        "{stats:?}"
    );

    // A second table, so that there is something to merge.
    let cf = db.cf("data").expect("there");
    db.put(&cf, &5_u32.to_be_bytes(), &VALUE, WriteOptions::NO_SYNC)
        .expect("written");
    limiter.set_bytes_per_second(8 << 20);
    let begun = options.executor.now();
    db.compact_range(&cf, None, None).expect("compacted");
    let took = (options.executor.now() - begun).as_secs_f64();
    assert!((0.25..1.2).contains(&took), "4 MB at 8 MiB/s: {took} s");
    assert!(
        limiter.stats().bytes[1] > 4_000_000,
        "{:?}",
        limiter.stats()
    );

    // The log that a checkpoint copies is of the last class.
    db.put(&cf, b"last", &VALUE, WriteOptions::NO_SYNC)
        .expect("written");
    db.checkpoint("copy").expect("copied");
    assert!(limiter.stats().bytes[2] > 1_000, "{:?}", limiter.stats());

    // So is an export; a table that the caller writes is the caller's.
    let before = limiter.stats().bytes[2];
    let files = db.export(
        &cf,
        &ReadOptions::default(),
        "out",
        &ExportOptions::default(),
    );
    assert_eq!(files.expect("exported").len(), 1);
    let written = limiter.stats().bytes[2] - before;
    assert!(written > 4_000_000, "{written}");
    let mut table = db.table_writer(&cf, "own.sst").expect("begun");
    table.put(b"k", &VALUE).expect("written");
    table.finish().expect("durable");
    assert_eq!(limiter.stats().bytes[2] - before, written);

    // Two databases by one limiter; a close is not held up by it.
    limiter.set_bytes_per_second(1);
    let (_, other) = simulated(11);
    let other = Db::open(
        "other",
        Options {
            rate_limiter: Some(limiter),
            ..other
        },
    )
    .expect("opened");
    other.close().expect("closed");
    db.close().expect("closed");
}

#[test]
fn tables_are_synced_in_steps_where_that_is_asked_for() {
    let syncs = |bytes_per_sync| {
        let (fs, mut options) = simulated(12);
        options.bytes_per_sync = bytes_per_sync;
        let syncs = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&syncs);
        fs.set_observer(Some(Arc::new(move |_, _, op: &Op| {
            if op.kind == OpKind::Sync && op.path.extension().is_some_and(|end| end == "sst") {
                count.fetch_add(1, Ordering::Relaxed);
            }
        })));
        let (db, _) = fill(&options, "db");
        db.close().expect("closed");
        syncs.load(Ordering::Relaxed)
    };
    let (whole, steps) = (syncs(0), syncs(1 << 20));
    assert_eq!(whole, 1);
    assert!((4..=5).contains(&steps), "{steps} steps");
}
