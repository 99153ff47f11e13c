//! Point reads: a hit in the memtable, a hit in a table in cache (stored and compressed), and an absent key.

#![allow(missing_docs, reason = "criterion's macro makes the functions")]

mod common;
#[path = "common/runs.rs"]
mod runs;

use basalt_engine::{CfOptions, Compression, LEVELS};
use common::{Store, key, mix, value};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use runs::entries;

/// Present keys, in random order.
fn present(c: &mut Criterion, name: &str, store: &Store) {
    let mut group = c.benchmark_group("get");
    group.throughput(Throughput::Elements(1));
    let mut at = 0;
    let mut found = Vec::new();
    group.bench_function(name, |b| {
        b.iter(|| {
            at += 1;
            let index = mix(at) % entries();
            let hit = store.db.get_into(&store.cf, &key(index), &mut found);
            assert!(hit.expect("a readable store"), "entry {index}");
            assert_eq!(found, value(index));
        });
    });
    group.finish();
}

fn memtable(c: &mut Criterion) {
    let store = Store::empty(CfOptions::default()).expect("a store");
    store.load(0..entries()).expect("written");
    present(c, "memtable", &store);
}

fn table(c: &mut Criterion) {
    for (name, compression) in [
        ("table", Compression::None),
        ("table lz4", Compression::Lz4),
    ] {
        let options = CfOptions {
            compression: [compression; LEVELS],
            ..CfOptions::default()
        };
        let store = Store::empty(options).expect("a store");
        store.load(0..entries()).expect("written");
        store
            .db
            .compact_range(&store.cf, None, None)
            .expect("compacted");
        present(c, name, &store);
    }
}

fn missing(c: &mut Criterion) {
    let store = Store::with_runs(4).expect("a store");
    let mut group = c.benchmark_group("get");
    group.throughput(Throughput::Elements(1));
    let mut at = 0;
    let mut found = Vec::new();
    group.bench_function("absent, 4 runs", |b| {
        b.iter(|| {
            at += 1;
            let index = entries() + mix(at) % entries();
            let hit = store.db.get_into(&store.cf, &key(index), &mut found);
            assert!(
                !hit.expect("a readable store"),
                "entry {index} was never written"
            );
        });
    });
    group.finish();
}

criterion_group!(benches, memtable, table, missing);
criterion_main!(benches);
