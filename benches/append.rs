//! Appends: batches of 1, 10 and 100 entries of 100 bytes in random key order, acknowledged once they survive the death of the
//! process, or once they survive power loss; the latter also from 16 threads, which share syncs.
//!
//! A lone synced writer measures the device, and on a virtual machine its timer: read that row beside the others.

#![allow(missing_docs, reason = "criterion's macro makes the functions")]

mod common;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use basalt_engine::{CfOptions, WriteBatch, WriteOptions};
use common::{Store, key, value};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Threads of the shared row.
const THREADS: u64 = 16;

/// Writes batch number `number` of `len` entries.
fn append(store: &Store, number: u64, len: u64, options: WriteOptions) {
    let mut batch = WriteBatch::new();
    for index in number * len..(number + 1) * len {
        batch.put(&store.cf, &key(index), &value(index));
    }
    store.db.write(batch, options).expect("written");
}

fn lone_writer(c: &mut Criterion) {
    for (mode, options) in [
        ("no sync", WriteOptions::NO_SYNC),
        ("sync", WriteOptions::SYNC),
    ] {
        let mut group = c.benchmark_group(format!("append, {mode}"));
        for len in [1, 10, 100] {
            let store = Store::empty(CfOptions::default()).expect("a store");
            let mut number = 0;
            group.throughput(Throughput::Elements(len));
            group.bench_function(format!("batch of {len}"), |b| {
                b.iter(|| {
                    append(&store, number, len, options);
                    number += 1;
                });
            });
            let last = number * len - 1;
            let found = store
                .db
                .get(&store.cf, &key(last))
                .expect("a readable store");
            assert_eq!(
                found.as_deref(),
                Some(&value(last)[..]),
                "the last entry is there"
            );
        }
        group.finish();
    }
}

fn many_writers(c: &mut Criterion) {
    let store = Store::empty(CfOptions::default()).expect("a store");
    let mut group = c.benchmark_group("append, sync");
    group.throughput(Throughput::Elements(1));
    let number = AtomicU64::new(0);
    group.bench_function(format!("{THREADS} threads, batch of 1"), |b| {
        b.iter_custom(|rounds| share(&store, &number, rounds));
    });
    group.finish();
}

/// `rounds` appends shared among the threads; the time from the first to the last.
fn share(store: &Store, number: &AtomicU64, rounds: u64) -> Duration {
    let start = Instant::now();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let mine = rounds / THREADS + u64::from(thread < rounds % THREADS);
            scope.spawn(move || {
                for _ in 0..mine {
                    let next = number.fetch_add(1, Ordering::Relaxed);
                    append(store, next, 1, WriteOptions::SYNC);
                }
            });
        }
    });
    start.elapsed()
}

criterion_group!(benches, lone_writer, many_writers);
criterion_main!(benches);
