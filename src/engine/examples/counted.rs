//! Work to count instructions of: gets and seeks beside range deletes of several shapes and places.
//!
//! `valgrind --tool=callgrind target/release/examples/counted PLACE SHAPE DELETES OPERATION COUNT`, once with a count of 0:
//! the difference is that of the operations. PLACE: `memtable`, `table` (one) or `tables` (many, in a level below
//! L0); SHAPE: `disjoint`, `nested`, `overlapping`; OPERATION: `get` or `seek`.

use basalt_engine::{CfOptions, Db, Options, ReadOptions, Result, WriteOptions};

/// Keys in all; those in `LIVE` steps are written after the range deletes.
const KEYS: u64 = 40_000;
const LIVE: u64 = 8;

fn key(at: u64) -> Vec<u8> {
    format!("key{at:013}").into_bytes()
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [place, shape, deletes, operation, count] = arguments.as_slice() else {
        panic!("PLACE SHAPE DELETES OPERATION COUNT");
    };
    let number = |text: &str| text.parse::<u64>().expect("a number");
    let (deletes, count) = (number(deletes), number(count));
    let dir = tempfile::tempdir().expect("a directory");
    let db = Db::open(dir.path(), Options::default())?;
    let mut options = CfOptions::default();
    if place == "tables" {
        options.table_bytes = 4 << 10;
    }
    let cf = db.open_cf("counted", options)?;
    for at in 0..KEYS / LIVE {
        db.put(&cf, &key(at * LIVE + 1), b"old", WriteOptions::NO_SYNC)?;
    }
    // Holds what the range deletes cover, so that they stay in tables.
    let held = db.snapshot();
    if place != "memtable" {
        db.compact_range(&cf, None, None)?;
    }
    for at in 0..deletes {
        let step = KEYS / deletes.max(1);
        let (from, to) = match shape.as_str() {
            "disjoint" => (at * step, at * step + step / 2 + 1),
            "nested" => (at, 2 * KEYS - at),
            "overlapping" => (at * step, at * step + 100 * step),
            _ => panic!("no such shape"),
        };
        db.delete_range(&cf, &key(from), &key(to), WriteOptions::NO_SYNC)?;
    }
    for at in 0..KEYS / LIVE {
        db.put(&cf, &key(at * LIVE), b"live value", WriteOptions::NO_SYNC)?;
    }
    match place.as_str() {
        "memtable" => {}
        "table" => db.flush(&cf)?,
        _ => db.compact_range(&cf, None, None)?,
    }
    let mut found = Vec::new();
    let mut iter = db.iter(&cf, &ReadOptions::default())?;
    let mut sum = 0;
    for at in 0..count {
        let index = at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        let index = index % (KEYS / LIVE) * LIVE;
        if operation == "get" {
            assert!(db.get_into(&cf, &key(index), &mut found)?);
        } else {
            iter.seek(&key(index))?;
            assert!(iter.valid());
            iter.next()?;
        }
        sum += found.len();
    }
    drop(held);
    println!("{sum}");
    Ok(())
}
