//! The rule of what gives way to what, in numbers.

use std::{
    sync::{Arc, atomic::Ordering, mpsc::channel},
    time::Duration,
};

use super::*;
use crate::{Db, Options, executor::ThreadPool, fs::SimFs};

/// A pool of 1,600 bytes with a cache of 1,000, and one member.
fn pool() -> (SharedMemory, Arc<Usage>) {
    let memory = SharedMemory::new(1600, 1000, 100);
    let usage = Arc::new(Usage::default());
    memory.pool.members().push(Member {
        usage: Arc::clone(&usage),
        db: Weak::new(),
    });
    (memory, usage)
}

#[test]
fn the_cache_gives_way_first_then_a_memtable_is_flushed_and_then_writes_wait() {
    let (memory, usage) = pool();
    for (memtables, capacity, flush, stall) in [
        (0, 1000, false, false),
        (600, 1000, false, false),
        (700, 900, false, false),
        (800, 800, false, false),
        (801, 799, true, false),
        (1500, 100, true, false),
        (1501, 99, true, true),
        (2000, 0, true, true),
        (100, 1000, false, false),
    ] {
        usage.memtables.store(memtables, Ordering::Relaxed);
        let verdict = memory.pool.balance();
        let is = (
            memory.pool.cache.capacity(),
            verdict.flush,
            verdict.stall.is_some(),
        );
        assert_eq!(
            is,
            (capacity, flush, stall),
            "{memtables} bytes of memtables"
        );
    }
}

#[test]
fn what_cannot_give_way_leaves_memtables_an_eighth() {
    let (memory, usage) = pool();
    let charge = memory.pool.cache.tables().charge(5000);
    usage.memtables.store(100, Ordering::Relaxed);
    assert_eq!(memory.pool.balance(), Verdict::default());
    assert_eq!(memory.pool.cache.capacity(), 100);
    usage.memtables.store(101, Ordering::Relaxed);
    assert!(memory.pool.balance().flush);
    drop(charge);
    assert!(!memory.pool.balance().flush);
    assert_eq!(memory.stats().total(), 101);
}

#[test]
fn a_smaller_cache_gives_up_what_it_holds_at_once() {
    let memory = SharedMemory::new(usize::MAX, 1 << 20, 0);
    let cache = &memory.pool.cache;
    let slots = cache.slots(1000);
    (0..900).for_each(|at| cache.insert(&slots, at, crate::cache::share(&[0; 1000])));
    assert!(memory.stats().block_cache > 700 << 10);
    memory.set_block_cache_bytes(100 << 10);
    let held = memory.stats().block_cache;
    assert!((50 << 10..=100 << 10).contains(&held), "{held}");
    memory.set_budget_bytes(0);
    assert_eq!(memory.stats().block_cache, 0);
}

#[test]
fn a_close_waits_for_a_database_that_has_this_one_flush() {
    let executor = Arc::new(ThreadPool::new(2));
    let options = Options::with(SimFs::new(), executor);
    let db = Db::open("db", options.clone()).expect("opened");
    let pool = Arc::clone(&db.inner.memory.memory.pool);
    let visit = pool.members()[0].visit().expect("it is open");
    let (sender, done) = channel();
    std::thread::spawn(move || sender.send(db.close()));
    let early = done.recv_timeout(Duration::from_millis(20));
    assert!(early.is_err(), "another database holds this one");
    assert!(pool.members()[0].visit().is_none(), "no other comes");
    drop(visit);
    done.recv_timeout(Duration::from_secs(60))
        .expect("it ends")
        .expect("closed");
    Db::open("db", options).expect("the lock is free");
}
