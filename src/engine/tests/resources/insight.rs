//! What the engine tells: counters of families, times, why a read is as it is, what a range is spread over.

use std::{sync::Arc, time::Duration};

use basalt_engine::{
    AppendWithDelimiter, BlockSource, CfOptions, ColumnFamily, Compression, Db, LEVELS,
    ManualClock, Options, Outcome, Place, ReadOptions, WriteOptions, fs::ReadMode,
};
use basalt_testkit::{Rng, Seeds};

use crate::simulated;

fn put(db: &Db, cf: &ColumnFamily, key: &[u8], value: &[u8]) {
    db.put(cf, key, value, WriteOptions::NO_SYNC)
        .expect("written");
}

fn delete(db: &Db, cf: &ColumnFamily, key: &[u8]) {
    db.delete(cf, key, WriteOptions::NO_SYNC).expect("written");
}

fn explain(db: &Db, cf: &ColumnFamily, key: &[u8]) -> basalt_engine::Explanation {
    db.explain(cf, key, &ReadOptions::default())
        .expect("readable")
}

/// A family whose tables stay where they are flushed to.
fn quiet() -> CfOptions {
    CfOptions {
        l0_compaction_trigger: 100,
        l0_slowdown_trigger: 100,
        l0_stop_trigger: 100,
        ..CfOptions::default()
    }
}

#[test]
fn an_explanation_names_each_place_and_why_the_walk_ended() {
    let (_, options) = simulated(31);
    let db = Db::open("db", options).expect("opened");
    let cf = db.open_cf("data", quiet()).expect("created");
    for i in 0..100_u32 {
        put(&db, &cf, &i.to_be_bytes(), &[5; 2000]);
    }
    db.compact_range(&cf, None, None).expect("compacted");
    delete(&db, &cf, &7_u32.to_be_bytes());
    db.delete_range(
        &cf,
        &20_u32.to_be_bytes(),
        &30_u32.to_be_bytes(),
        WriteOptions::NO_SYNC,
    )
    .expect("written");
    db.flush(&cf).expect("flushed");
    put(&db, &cf, &8_u32.to_be_bytes(), b"new");

    let new = explain(&db, &cf, &8_u32.to_be_bytes());
    assert_eq!(new.outcome, Outcome::Found(3));
    assert_eq!(new.steps.len(), 1);
    assert_eq!(new.steps[0].place, Place::Memtable);

    let old = explain(&db, &cf, &9_u32.to_be_bytes());
    assert_eq!(old.outcome, Outcome::Found(2000));
    let last = old.steps.last().expect("a step");
    assert!(matches!(last.place, Place::Table { level: 6, .. }), "{old}");
    assert_eq!(last.filter, Some(true));
    assert!(last.block.is_some() && last.met.expect("met").value_len == Some(2000));
    // The table of the flush has the key in its range, and its filter knows better.
    let top = &old.steps[1];
    assert!(matches!(top.place, Place::Table { level: 0, .. }), "{old}");
    assert_eq!((top.filter, top.block, top.met), (Some(false), None, None));

    assert_eq!(
        explain(&db, &cf, &7_u32.to_be_bytes()).outcome,
        Outcome::Deleted
    );
    let covered = explain(&db, &cf, &25_u32.to_be_bytes());
    assert_eq!(covered.outcome, Outcome::RangeDeleted);
    assert!(covered.steps.last().expect("a step").range_delete.is_some());
    assert_eq!(
        explain(&db, &cf, &1000_u32.to_be_bytes()).outcome,
        Outcome::Absent
    );
    let text = old.to_string();
    assert!(
        text.contains("L6 table") && text.ends_with("found, 2000 bytes"),
        "{text}"
    );
}

#[test]
fn the_size_of_a_range_has_its_large_values_in_it() {
    let (_, options) = simulated(33);
    let db = Db::open("db", options).expect("opened");
    let options = CfOptions {
        compression: [Compression::None; LEVELS],
        ..CfOptions::default()
    };
    let cf = db.open_cf("data", options).expect("created");
    let key = |n: u32| n.to_be_bytes();
    for n in 0..2_000 {
        put(&db, &cf, &key(n), &[5; 8_000]);
    }
    db.flush(&cf).expect("flushed");
    let size = |from: u32, to: u32| {
        let size = db.approximate_size(&cf, Some(&key(from)), Some(&key(to)));
        size.expect("an estimate")
    };
    let whole = size(0, 2_000);
    assert!((16_000_000..16_500_000).contains(&whole), "{whole}");
    let half = size(500, 1_500);
    assert!((7_000_000..9_000_000).contains(&half), "{half}");
    assert_eq!(size(2_000, 3_000), 0);
    let told = db.explain_range(&cf, None, None).expect("an estimate");
    assert!(
        told.tables[0].value_bytes >= 16_000_000 && told.tables[0].bytes < 500_000,
        "{told:?}"
    );
}

#[test]
fn a_block_is_told_to_come_from_the_file_then_from_the_cache_or_from_the_map() {
    for (mode, compression, first, then) in [
        (
            ReadMode::Mapped,
            Compression::None,
            BlockSource::Map,
            BlockSource::Map,
        ),
        (
            ReadMode::Mapped,
            Compression::Lz4,
            BlockSource::File,
            BlockSource::Cache,
        ),
        (
            ReadMode::Pread,
            Compression::None,
            BlockSource::File,
            BlockSource::Cache,
        ),
    ] {
        let (_, mut options) = simulated(32);
        options.read_mode = mode;
        let db = Db::open("db", options).expect("opened");
        let options = CfOptions {
            compression: [compression; LEVELS],
            ..CfOptions::default()
        };
        let cf = db.open_cf("data", options).expect("created");
        put(&db, &cf, b"key", &[5; 2000]);
        db.flush(&cf).expect("flushed");
        for wanted in [first, then] {
            let told = explain(&db, &cf, b"key").steps[1].block.expect("a block");
            assert_eq!(told.0, wanted, "{mode:?} {compression:?}");
        }
    }
}

/// What explain says is what get does, in whatever state.
#[test]
fn explanations_agree_with_gets_in_random_databases() {
    let seeds = Seeds::new("explain", 60);
    let is_replay = seeds.is_replay();
    let mut expired = 0;
    for seed in seeds {
        let mut rng = Rng::new(seed);
        let (_, mut options) = simulated(seed);
        let clock = Arc::new(ManualClock::new(1));
        options.clock = clock.clone();
        let db = Db::open("db", options).expect("opened");
        let options = CfOptions {
            write_buffer_bytes: 1 << 10,
            l0_compaction_trigger: 2,
            large_value_bytes: Some(64),
            ..CfOptions::default()
        };
        let merges = seed % 3 == 1;
        let options = match seed % 3 {
            0 => options,
            1 => options.merge_operator(Arc::new(AppendWithDelimiter::new(b","))),
            _ => options.ttl(Duration::from_millis(20)),
        };
        let cf = db.open_cf("data", options).expect("created");
        let key = |rng: &mut Rng| [u8::try_from(rng.below(40)).expect("small")];
        let mut outcomes = [0; 4];
        for _ in 0..600 {
            match rng.below(10) {
                0..5 => put(&db, &cf, &key(&mut rng), &vec![1; rng.index(100)]),
                5 => delete(&db, &cf, &key(&mut rng)),
                6 => {
                    let (a, b) = (key(&mut rng), key(&mut rng));
                    db.delete_range(&cf, &a, &b, WriteOptions::NO_SYNC)
                        .expect("written");
                }
                7 if rng.one_in(5) => db.flush(&cf).expect("flushed"),
                7 if merges => {
                    let (key, operand) = (key(&mut rng), vec![2; rng.index(9)]);
                    db.merge(&cf, &key, &operand, WriteOptions::NO_SYNC)
                        .expect("written");
                }
                7 => clock.advance(rng.below(10)),
                _ => {
                    let key = key(&mut rng);
                    let value = db.get(&cf, &key).expect("readable");
                    let told = explain(&db, &cf, &key).outcome;
                    match (value, told) {
                        (Some(value), Outcome::Found(len)) if value.len() == len => {
                            outcomes[0] += 1;
                        }
                        (None, Outcome::Absent) => outcomes[1] += 1,
                        (None, Outcome::Deleted | Outcome::RangeDeleted) => outcomes[2] += 1,
                        (None, Outcome::Expired) => outcomes[3] += 1,
                        (value, told) => panic!("seed {seed:#x}: {value:?} and {told:?}"),
                    }
                }
            }
        }
        assert!(
            outcomes[0] > 0 && outcomes[2] > 0,
            "seed {seed:#x}: {outcomes:?}"
        );
        expired += outcomes[3];
    }
    assert!(is_replay || expired > 20, "{expired} rows past their time");
}

#[test]
fn a_range_is_estimated_from_indexes_within_a_block_at_each_end() {
    let (_, options) = simulated(33);
    let db = Db::open("db", options).expect("opened");
    let none = CfOptions {
        compression: [Compression::None; LEVELS],
        ..quiet()
    };
    let cf = db.open_cf("data", none).expect("created");
    for i in 0..20_000_u32 {
        put(&db, &cf, &i.to_be_bytes(), &[5; 100]);
    }
    db.compact_range(&cf, None, None).expect("compacted");
    for i in 5_000..5_100_u32 {
        put(&db, &cf, &i.to_be_bytes(), &[6; 50]);
    }
    let at = |i: u32| i.to_be_bytes();
    let count = |from: u32, to: u32| {
        db.approximate_count(&cf, Some(&at(from)), Some(&at(to)))
            .expect("told")
    };
    for (from, to) in [(0, 20_000), (100, 200), (5_000, 15_000), (19_990, 30_000)] {
        let new = u64::from(5_100_u32.clamp(from, to) - 5_000_u32.clamp(from, to));
        let exact = u64::from(to.min(20_000) - from) + new;
        let told = count(from, to);
        // A block has some 35 entries.
        assert!(
            told.abs_diff(exact) <= 80,
            "{from}..{to}: {told}, and it is {exact}"
        );
    }
    assert_eq!((count(30_000, 40_000), count(7, 7), count(9, 7)), (0, 0, 0));
    let bytes = db.approximate_size(&cf, None, None).expect("told");
    let file: u64 = db.stats().families[1]
        .levels
        .iter()
        .map(|level| level.bytes)
        .sum();
    assert!(
        bytes > file / 10 * 9 && bytes < file + 20_000,
        "{bytes} of {file}"
    );
    let range = db
        .explain_range(&cf, Some(&at(5_050)), Some(&at(5_060)))
        .expect("told");
    assert_eq!(
        (
            range.memtables,
            range.memtable_entries,
            range.tables.len(),
            range.runs()
        ),
        (1, 10, 1, 2)
    );
    let append = db.open_cf("log", CfOptions::append(0)).expect("created");
    assert!(db.approximate_count(&append, None, None).is_err());
}

#[test]
fn families_tell_their_amplification_work_and_stalls() {
    let (_, options) = simulated(34);
    let db = Db::open("db", options).expect("opened");
    let options = CfOptions {
        write_buffer_bytes: 4 << 10,
        max_immutable_memtables: 1,
        l0_compaction_trigger: 2,
        l0_slowdown_trigger: 3,
        l0_stop_trigger: 3,
        compression: [Compression::None; LEVELS],
        ..CfOptions::default()
    };
    let cf = db.open_cf("data", options).expect("created");
    for i in 0..4_000_u32 {
        put(&db, &cf, &(i * 7_919 % 1_000).to_be_bytes(), &[5; 50]);
    }
    db.compact_range(&cf, None, None).expect("compacted");
    db.put(&db.default_cf(), b"key", b"value", WriteOptions::SYNC)
        .expect("written");
    let stats = db.stats();
    let family = stats
        .families
        .iter()
        .find(|f| f.name == "data")
        .expect("there");
    assert!(
        family.flushes > 20 && family.flushed_bytes > 100_000,
        "{family:?}"
    );
    assert!(
        family.compactions > 5 && family.compacted_bytes_written > 50_000,
        "{family:?}"
    );
    assert!(
        family.write_amplification > 1.2,
        "{}",
        family.write_amplification
    );
    assert!(
        (family.space_amplification - 1.0).abs() < 1e-9,
        "{}",
        family.space_amplification
    );
    assert_eq!(family.read_amplification, 1);
    assert!(
        family.stalls > 0 && family.stalled > Duration::ZERO,
        "{family:?}"
    );
    assert!(stats.stalled > Duration::ZERO && stats.stalled <= family.stalled);
    assert_eq!(family.stall, None);
    let times = &stats.times;
    assert!(times.flush.count() > 5 && times.compaction.count() > 5 && times.sync.count() > 0);
    let other = stats
        .families
        .iter()
        .find(|f| f.name == "default")
        .expect("there");
    assert_eq!((other.flushes, other.stalls), (0, 0));
}

#[test]
fn sampled_gets_tell_filters_caches_and_times() {
    let (_, options) = simulated(35);
    let options = Options {
        stats_sampling: 1,
        ..options
    };
    let db = Db::open("db", options).expect("opened");
    let cf = db.open_cf("data", quiet()).expect("created");
    for i in 0..1_000_u32 {
        put(&db, &cf, &(2 * i).to_be_bytes(), &[5; 50]);
    }
    db.compact_range(&cf, None, None).expect("compacted");
    for i in 0..2_000_u32 {
        let found = db.get(&cf, &i.to_be_bytes()).expect("readable");
        assert_eq!(found.is_some(), i % 2 == 0);
    }
    let mut iter = db.iter(&cf, &ReadOptions::default()).expect("a cursor");
    iter.seek(&5_u32.to_be_bytes()).expect("readable");
    let stats = db.stats();
    let reads = stats
        .families
        .iter()
        .find(|f| f.name == "data")
        .expect("there")
        .reads;
    // Every second get is looked at, and those are the odd, absent ones.
    assert_eq!(reads.gets, 1_000);
    assert!(
        reads.filter_absent > 950 && reads.filter_absent + reads.filter_wrong == reads.tables,
        "{reads:?}"
    );
    assert_eq!(
        (
            stats.times.get.count(),
            stats.times.write.count(),
            stats.times.seek.count()
        ),
        (1_000, 1_000, 1)
    );
    for i in 0..500_u32 {
        db.get(&cf, &0_u32.to_be_bytes()).expect("readable");
        db.get(&cf, &(4 * i).to_be_bytes()).expect("readable");
    }
    let reads = db.stats().families[1].reads;
    assert!(reads.filter_found >= 400, "{reads:?}");
    assert!(
        reads.hit_rate().expect("blocks were looked at") > 0.5,
        "{reads:?}"
    );
}
