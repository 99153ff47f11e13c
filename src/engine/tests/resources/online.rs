//! Options that change while a database is open.

use std::sync::Arc;

use basalt_engine::{
    CfOptions, Compression, Db, Error, LEVELS, Options, RateLimiter, SharedMemory, WriteOptions,
};

use crate::simulated;

fn refused(db: &Db, options: Options) -> String {
    match db.set_options(options) {
        Err(Error::InvalidArgument(what)) => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn options_that_may_change_do_and_others_are_refused_by_name_with_nothing_changed() {
    let (_, options) = simulated(21);
    let db = Db::open("db", options.clone()).expect("opened");
    let cf = db.default_cf();
    let mut wanted = db.options();
    wanted.block_cache_bytes = 1 << 20;
    wanted.read_mode = basalt_engine::fs::ReadMode::Pread;
    wanted.log_segment_bytes = (4096, 8192);
    let what = refused(&db, wanted.clone());
    assert_eq!(
        what,
        "read_mode, log_segment_bytes needs reopening to change"
    );
    assert_eq!(db.stats().cache.capacity, options.block_cache_bytes as u64);
    wanted = db.options();
    wanted.max_compactions = 0;
    wanted.block_cache_bytes = 1 << 20;
    assert!(refused(&db, wanted).contains("max_compactions 0"));
    assert_eq!(db.stats().cache.capacity, options.block_cache_bytes as u64);

    let mut wanted = db.options();
    wanted.block_cache_bytes = 1 << 20;
    wanted.max_log_bytes = 1 << 20;
    wanted.memtable_budget_bytes = 4 << 10;
    wanted.rate_limiter = Some(RateLimiter::new(Arc::clone(&wanted.executor), 0));
    db.set_options(wanted).expect("changed");
    assert_eq!(db.stats().cache.capacity, 1 << 20);
    for i in 0..400_u32 {
        db.put(&cf, &i.to_be_bytes(), &[1; 100], WriteOptions::NO_SYNC)
            .expect("written");
    }
    let stats = db.stats();
    assert!(
        stats.flushes > 2,
        "the small budget is in force: {} flushes",
        stats.flushes
    );
    let limiter = db.options().rate_limiter.expect("the new one");
    assert!(limiter.stats().bytes[0] > 0, "the limiter is in force");
    // None of it is stored.
    db.close().expect("closed");
    let db = Db::open("db", options.clone()).expect("opened");
    assert_eq!(db.options().block_cache_bytes, options.block_cache_bytes);
}

#[test]
fn a_smaller_budget_is_kept_to_without_a_further_write() {
    let (_, options) = simulated(22);
    let db = Db::open("db", options.clone()).expect("opened");
    let cf = db.default_cf();
    for i in 0..20_000_u32 {
        db.put(&cf, &i.to_be_bytes(), &[1; 100], WriteOptions::NO_SYNC)
            .expect("written");
    }
    assert_eq!(db.stats().flushes, 0);
    db.set_options(Options {
        memory_budget_bytes: 2 << 20,
        ..db.options()
    })
    .expect("changed");
    db.flush(&cf).expect("nothing is left to do");
    let memory = db.memory_stats();
    assert!(
        db.stats().flushes > 0 && memory.total() <= 2 << 20,
        "{memory:?}"
    );
}

#[test]
fn the_sizes_of_shared_memory_are_changed_at_its_handle() {
    let (_, mut options) = simulated(23);
    let memory = SharedMemory::new(usize::MAX, 1 << 20, 0);
    options.shared_memory = Some(memory.clone());
    let db = Db::open("db", options.clone()).expect("opened");
    let other = Db::open("other", options).expect("opened");
    let what = refused(
        &db,
        Options {
            block_cache_bytes: 5,
            ..db.options()
        },
    );
    assert!(
        what.contains("block_cache_bytes of shared memory"),
        "{what}"
    );
    memory.set_block_cache_bytes(2 << 20);
    let capacities = [&db, &other].map(|db| db.stats().cache.capacity);
    assert_eq!(capacities, [2 << 20; 2]);
}

#[test]
fn options_of_a_family_are_stored_and_its_class_is_not_changed() {
    let (_, options) = simulated(24);
    let db = Db::open("db", options.clone()).expect("opened");
    let cf = db.open_cf("data", CfOptions::default()).expect("created");
    let error = db.set_cf_options(&cf, CfOptions::unlogged());
    let error = error.expect_err("refused");
    assert!(
        error
            .to_string()
            .contains("logged = true, which cannot change"),
        "{error}"
    );
    let changed = CfOptions {
        l0_slowdown_trigger: 0,
        ..CfOptions::default()
    };
    assert!(db.set_cf_options(&cf, changed).is_err());
    assert_eq!(*cf.options(), CfOptions::default());

    let changed = CfOptions {
        write_buffer_bytes: 8 << 10,
        compression: [Compression::Lz4; LEVELS],
        l0_compaction_trigger: 2,
        ..CfOptions::default()
    };
    db.set_cf_options(&cf, changed.clone()).expect("changed");
    for i in 0..2_000_u32 {
        db.put(&cf, &i.to_be_bytes(), &[1; 50], WriteOptions::NO_SYNC)
            .expect("written");
    }
    db.flush(&cf).expect("flushed");
    let stats = db.stats();
    assert!(stats.flushes > 5, "{} flushes", stats.flushes);
    let family = stats
        .families
        .iter()
        .find(|f| f.name == "data")
        .expect("there");
    let bytes: u64 = family.levels.iter().map(|level| level.bytes).sum();
    assert!(
        bytes < 60_000,
        "{bytes} bytes of 100,000: compressed at the top"
    );
    db.close().expect("closed");
    let db = Db::open("db", options).expect("opened");
    assert_eq!(*db.cf("data").expect("there").options(), changed);
}
