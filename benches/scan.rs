//! Scans: seek and the next 100, forward and backward, and whole passes, over 1, 4 and 8 sorted runs.

#![allow(missing_docs, reason = "criterion's macro makes the functions")]

mod common;
#[path = "common/runs.rs"]
mod runs;

use basalt_engine::ReadOptions;
use common::{Store, key, mix};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use runs::entries;

/// Entries of a short scan.
const SHORT: u64 = 100;

/// From a random key `limit` entries one way; answers how many there were.
fn scan(store: &Store, start: Option<u64>, limit: u64, forward: bool) -> u64 {
    let mut cursor = store
        .db
        .iter(&store.cf, &ReadOptions::default())
        .expect("a cursor");
    match (start, forward) {
        (Some(index), true) => cursor.seek(&key(index)),
        (Some(index), false) => cursor.seek_for_prev(&key(index)),
        (None, true) => cursor.seek_to_first(),
        (None, false) => cursor.seek_to_last(),
    }
    .expect("a readable store");
    let mut count = 0;
    let mut last = [0; 16];
    while cursor.valid() && count < limit {
        let at: [u8; 16] = cursor.key().try_into().expect("keys of 16 bytes");
        assert!(count == 0 || (last < at) == forward, "keys in order");
        assert_eq!(cursor.value().len(), common::VALUE_LEN);
        (last, count) = (at, count + 1);
        if forward {
            cursor.next()
        } else {
            cursor.prev()
        }
        .expect("a readable store");
    }
    count
}

fn scans(c: &mut Criterion) {
    for runs in [1, 4, 8] {
        let store = Store::with_runs(runs).expect("a store");
        let mut group = c.benchmark_group(format!("scan, runs = {runs}"));
        for (way, forward) in [("forward", true), ("backward", false)] {
            let mut at = 0;
            group.throughput(Throughput::Elements(SHORT));
            group.bench_function(format!("seek + {SHORT} {way}"), |b| {
                b.iter(|| {
                    at += 1;
                    // Near the end of the key space a short scan is shorter.
                    let count = scan(&store, Some(mix(at) % entries()), SHORT, forward);
                    assert!((1..=SHORT).contains(&count), "{count} entries");
                });
            });
            group.throughput(Throughput::Elements(entries()));
            group.sample_size(20);
            group.bench_function(format!("all {way}"), |b| {
                b.iter(|| assert_eq!(scan(&store, None, u64::MAX, forward), entries()));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, scans);
criterion_main!(benches);
