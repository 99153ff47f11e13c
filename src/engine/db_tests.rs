//! Meetings of calls, jobs and failures that tests from outside can hardly bring about.

use std::{
    io,
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use super::*;
use crate::{
    MemtableKind, TableFile,
    executor::{Executor, Job, SimExecutor, ThreadPool},
    fs::{
        SimFs,
        sim::{Failure, OpKind, Survival},
    },
};

/// More than any of this takes on a busy machine; what waits longer waits for ever.
const PATIENCE: Duration = Duration::from_secs(60);

fn simulated() -> (Arc<SimFs>, Options) {
    let fs = SimFs::new();
    let options = Options::with(Arc::clone(&fs) as _, Arc::new(SimExecutor::new(7)));
    (fs, options)
}

fn threaded() -> (Arc<SimFs>, Options) {
    let fs = SimFs::new();
    let options = Options::with(Arc::clone(&fs) as _, Arc::new(ThreadPool::new(4)));
    (fs, options)
}

/// Runs `work` on a thread of its own; what it answers comes through the channel.
fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let _ = sender.send(work());
    });
    receiver
}

fn put(db: &Db, key: &[u8], value: &[u8]) {
    db.put(&db.default_cf(), key, value, WriteOptions::NO_SYNC)
        .expect("written");
}

#[test]
fn a_checkpoint_leaves_out_a_segment_begun_behind_its_point() {
    let (_, mut options) = threaded();
    options.log_segment_bytes = (512, 512);
    let db = Db::open("db", options.clone()).expect("opened");
    put(&db, b"before", b"1");
    // The checkpoint waits for the manifest with the log held still.
    let manifest = db.inner.manifest.lock();
    let copy = db.clone();
    let done = aside(move || copy.checkpoint("copy"));
    let begun = Instant::now();
    while !db.inner.commit.lock().is_held_still() {
        assert!(begun.elapsed() < PATIENCE, "the checkpoint never came");
        thread::yield_now();
    }
    let mut batch = WriteBatch::new();
    batch.put(&db.default_cf(), b"behind", &[7; 400]);
    let before = db.inner.commit.lock().segment_number();
    let ticket = db.submit(batch, WriteOptions::NO_SYNC).expect("room");
    assert_ne!(db.inner.commit.lock().segment_number(), before);
    drop(manifest);
    done.recv_timeout(PATIENCE)
        .expect("it ends")
        .expect("copied");
    ticket.wait().expect("written");
    assert!(db.verify().expect("read").damage.is_empty());

    let copy = Db::open("copy", options).expect("a checkpoint opens");
    let get = |key: &[u8]| copy.get(&copy.default_cf(), key).expect("read");
    assert_eq!(get(b"before").as_deref(), Some(&b"1"[..]));
    assert!(get(b"behind").is_none());
}

#[test]
fn an_ingest_that_is_durable_stays_whatever_becomes_of_old_segments() {
    let (fs, mut options) = simulated();
    options.log_segment_bytes = (512, 512);
    options.recycled_segments = 0;
    let db = Db::open("db", options.clone()).expect("opened");
    let cf = db.default_cf();
    let mut writer = db.table_writer(&cf, "outside").expect("created");
    writer.put(b"k", b"ingested").expect("added");
    let table = writer.finish().expect("finished");
    // Its records keep segments until an edit after its drop: that of the ingest.
    let other = db
        .create_cf("other", CfOptions::default())
        .expect("created");
    for key in [b"x", b"y"] {
        db.put(&other, key, &[1; 400], WriteOptions::NO_SYNC)
            .expect("written");
    }
    db.drop_cf(&other).expect("dropped");
    fs.set_fault_rule(Some(Arc::new(|op| {
        let is_log = op.path.extension().is_some_and(|ext| ext == "log");
        (op.kind == OpKind::Remove && is_log).then(Failure::device)
    })));
    let mut request = Ingest::new();
    request.table(&cf, table);
    db.ingest(request).expect("durable");
    fs.set_fault_rule(None);
    assert!(db.read_only_cause().is_some(), "a segment was not removed");
    let value = db.get(&cf, b"k").expect("read");
    assert_eq!(value.as_deref(), Some(&b"ingested"[..]));
    drop((db, cf, other));
    let db = Db::open("db", options).expect("opened again");
    let value = db.get(&db.default_cf(), b"k").expect("no table is missing");
    assert_eq!(value.as_deref(), Some(&b"ingested"[..]));
    assert!(db.verify().expect("read").damage.is_empty());
}

#[test]
fn writes_go_on_after_an_ingest_that_fills_l0() {
    let (_, options) = threaded();
    let db = Db::open("db", options).expect("opened");
    let full_at_two = CfOptions {
        l0_compaction_trigger: 2,
        l0_slowdown_trigger: 2,
        l0_stop_trigger: 2,
        ..CfOptions::default()
    };
    let cf = db.create_cf("narrow", full_at_two).expect("created");
    db.put(&cf, b"k", b"old", WriteOptions::NO_SYNC)
        .expect("written");
    db.flush(&cf).expect("flushed");
    let mut writer = db.table_writer(&cf, "outside").expect("created");
    writer.put(b"k", b"new").expect("added");
    let mut request = Ingest::new();
    request.table(&cf, writer.finish().expect("finished"));
    db.ingest(request).expect("ingested");
    let done = aside(move || db.put(&cf, b"l", b"1", WriteOptions::NO_SYNC));
    done.recv_timeout(PATIENCE)
        .expect("a compaction makes room")
        .expect("written");
}

#[test]
fn a_table_that_is_gone_or_a_databases_own_is_refused_and_changes_nothing() {
    let (fs, options) = simulated();
    let db = Db::open("db", options.clone()).expect("opened");
    let cf = db.default_cf();
    let mut writer = db.table_writer(&cf, "outside").expect("created");
    writer.put(b"k", b"1").expect("added");
    let mut request = Ingest::new();
    request.table(&cf, writer.finish().expect("finished"));
    options.fs.remove_file(Path::new("outside")).expect("there");
    let error = db.ingest(request).expect_err("there is no such file");
    assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
    assert!(fs.read_raw("outside").is_err(), "nothing was created");
    put(&db, b"own", b"1");
    db.flush(&cf).expect("flushed");
    let own = fs
        .files()
        .into_iter()
        .find(|path| path.extension().is_some_and(|ext| ext == "sst"))
        .expect("one was flushed");
    let error = TableFile::open(&options.fs, &own).expect_err("it has numbers of its own");
    assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
    assert!(db.read_only_cause().is_none());
    put(&db, b"next", b"1");
}

#[test]
fn an_iterator_keeps_the_directory_until_it_is_dropped() {
    let (_, options) = simulated();
    let db = Db::open("db", options.clone()).expect("opened");
    put(&db, b"k", b"1");
    db.flush_all().expect("flushed");
    let mut iter = db
        .iter(&db.default_cf(), &ReadOptions::default())
        .expect("a cursor");
    db.close().expect("closed");
    let again = Db::open("db", options.clone()).map(|_| ());
    assert!(matches!(again, Err(Error::Locked { .. })), "{again:?}");
    iter.seek_to_first().expect("read");
    assert_eq!(iter.value(), b"1");
    drop(iter);
    Db::open("db", options).expect("free again");
}

#[test]
fn the_directory_is_free_when_close_returns() {
    let (_, options) = threaded();
    for round in 0..100_u32 {
        let db = Db::open("db", options.clone()).expect("the lock is free");
        put(&db, &round.to_le_bytes(), b"1");
        db.inner.freeze(&db.inner.commit.lock(), &db.default_cf());
        db.close().expect("closed");
    }
}

#[test]
fn what_a_close_itself_tells_holds_the_directory_no_longer_than_the_close() {
    let (_, options) = simulated();
    let db = Db::open("db", options.clone()).expect("opened");
    let cf = db.default_cf();
    let removed = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&removed);
    db.add_listener(Arc::new(move |event: &crate::Event| {
        let is_removal = matches!(event, crate::Event::TablesRemoved { .. });
        told.fetch_or(is_removal, Ordering::Relaxed);
    }));
    for _ in 0..2 {
        put(&db, b"k", b"1");
        db.flush(&cf).expect("flushed");
    }
    // The compaction's inputs are held until right before the close.
    let held = cf.inner.read_state();
    db.compact_range(&cf, None, None).expect("compacted");
    while options.executor.help() {}
    assert!(!removed.load(Ordering::Relaxed), "they are held");
    drop((held, cf));
    db.close().expect("closed");
    assert!(removed.load(Ordering::Relaxed), "listeners were told");
    let db = Db::open("db", options).expect("the lock is free");
    assert!(db.get(&db.default_cf(), b"k").expect("read").is_some());
}

#[test]
fn no_job_begins_after_a_close() {
    let (fs, mut options) = simulated();
    let executor = Arc::new(SimExecutor::new(7));
    options.executor = Arc::clone(&executor) as _;
    let db = Db::open("db", options.clone()).expect("opened");
    put(&db, b"k", b"1");
    let late = db.clone();
    db.close().expect("closed");
    let before = fs.hash();
    let inner = &late.inner;
    // As by calls that had seen the database open.
    inner.schedule_flush();
    inner.schedule_compaction();
    inner.schedule_file_work();
    inner.schedule_events();
    drop(late);
    assert_eq!(executor.queued(), 0, "nothing is scheduled");
    assert_eq!(fs.hash(), before, "nothing is written");
    Db::open("db", options).expect("the lock is free");
}

#[test]
fn whoever_closes_second_waits_for_the_first() {
    let (fs, options) = threaded();
    let db = Db::open("db", options.clone()).expect("opened");
    put(&db, b"k", b"1");
    let other = db.clone();
    // The first one is held up at its last step.
    let (reached, at_last_step) = channel();
    let (go_on, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    fs.set_observer(Some(Arc::new(move |_, _, op| {
        if op.kind == OpKind::Sync && op.path.ends_with("MARK") {
            let _ = reached.send(());
            let _ = gate.lock().expect("not poisoned").recv();
        }
    })));
    let first = aside(move || db.close());
    at_last_step.recv_timeout(PATIENCE).expect("it comes there");
    let second = aside(move || other.close());
    let early = second.recv_timeout(Duration::from_millis(20));
    assert!(early.is_err(), "it answers before the database is closed");
    drop(go_on);
    for done in [second, first] {
        done.recv_timeout(PATIENCE)
            .expect("it ends")
            .expect("closed");
    }
    fs.set_observer(None);
    Db::open("db", options).expect("the lock is free");
}

#[test]
fn a_listener_that_drops_the_last_handle_closes_the_database() {
    let (_, options) = threaded();
    let db = Db::open("db", options.clone()).expect("opened");
    put(&db, b"k", b"1");
    let inner = Arc::clone(&db.inner);
    let last = Mutex::new(None::<Db>);
    let last = Arc::new(last);
    let taken = Arc::clone(&last);
    db.on_flush(Arc::new(move |_, _| {
        drop(taken.lock().expect("not poisoned").take());
    }));
    let family = db.default_cf();
    *last.lock().expect("not poisoned") = Some(db);
    inner.freeze(&inner.commit.lock(), &family);
    drop((inner, family));
    let begun = Instant::now();
    while let Err(error) = Db::open("db", options.clone()) {
        assert!(matches!(error, Error::Locked { .. }), "{error}");
        assert!(begun.elapsed() < PATIENCE, "it never closed");
        thread::yield_now();
    }
}

#[test]
fn two_resumes_at_a_time_both_succeed() {
    let (_, options) = threaded();
    let db = Db::open("db", options).expect("opened");
    put(&db, b"k", b"1");
    let failure = Error::io("write", "000002.log", io::Error::other("planted"));
    db.inner.commit.fail(failure);
    assert!(db.read_only_cause().is_some());
    let other = db.clone();
    let done = aside(move || other.resume());
    db.resume().expect("resumed");
    done.recv_timeout(PATIENCE)
        .expect("it ends")
        .expect("resumed");
    put(&db, b"l", b"1");
    let value = db.get(&db.default_cf(), b"k").expect("read");
    assert_eq!(value.as_deref(), Some(&b"1"[..]));
}

#[test]
fn the_cause_of_a_failure_is_told_while_others_hold_the_queue() {
    let (_, options) = simulated();
    let db = Db::open("db", options).expect("opened");
    let failure = Error::io("write", "000002.log", io::Error::other("planted"));
    db.inner.commit.fail(failure);
    let inner = Arc::clone(&db.inner);
    let queue = db.inner.commit.lock();
    let cause = aside(move || inner.read_only_cause());
    assert!(cause.recv_timeout(PATIENCE).expect("no lock").is_some());
    drop(queue);
}

/// Threads that never find time for a job.
#[derive(Debug)]
struct NoTime(ThreadPool);

impl Executor for NoTime {
    fn spawn(&self, _: Priority, _: Job) {}
    fn help(&self) -> bool {
        false
    }
    fn is_simulated(&self) -> bool {
        false
    }
    fn now(&self) -> Duration {
        self.0.now()
    }
    fn sleep(&self, duration: Duration) {
        self.0.sleep(duration);
    }
    fn random(&self) -> u64 {
        self.0.random()
    }
}

#[test]
fn a_submit_wakes_who_waited_for_its_inserts_although_no_thread_is_free() {
    let (_, mut options) = simulated();
    options.executor = Arc::new(NoTime(ThreadPool::new(2)));
    let db = Db::open("db", options).expect("opened");
    let entry = {
        let mut queue = db.inner.commit.lock();
        db.inner.commit.enqueue_unwritten(&mut queue, 1, false)
    };
    let inner = Arc::clone(&db.inner);
    let done = aside(move || inner.commit.sync_all());
    let begun = Instant::now();
    while !db.inner.commit.lock().has_waiters() {
        assert!(begun.elapsed() < PATIENCE, "nobody waits");
        thread::yield_now();
    }
    entry.mark_inserted();
    db.inner.commit.kick(true);
    done.recv_timeout(PATIENCE)
        .expect("it is woken")
        .expect("all is durable");
    // The jobs that never run count as under way: nobody may wait for them.
    std::mem::forget(db);
}

#[test]
fn a_callback_is_called_before_its_driver_goes_on() {
    let (_, options) = simulated();
    let db = Db::open("db", options).expect("opened");
    let mut batch = WriteBatch::new();
    batch.put(&db.default_cf(), b"k", b"1");
    let entry = db
        .inner
        .submit_batch(batch, WriteOptions::SYNC, false)
        .expect("room");
    let called = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&called);
    entry.on_done(Box::new(move |result| {
        flag.store(result.is_ok(), Ordering::Relaxed);
    }));
    let mut looks = 0;
    db.inner.commit.drive_until(|_| {
        looks += 1;
        // First nothing is written; then it is, and a driver with more to do would go on.
        called.load(Ordering::Relaxed) || looks > 1
    });
    assert!(called.load(Ordering::Relaxed));
    assert_eq!(looks, 2);
}

#[test]
fn deletes_go_on_after_a_resume_that_found_the_disk_still_full() {
    let (fs, options) = simulated();
    let db = Db::open("db", options).expect("opened");
    let cf = db.default_cf();
    put(&db, b"k", b"1");
    put(&db, b"l", b"1");
    fs.set_fault_rule(Some(Arc::new(|op| {
        let is_table = op.path.extension().is_some_and(|ext| ext == "sst");
        (op.kind == OpKind::Create && is_table).then(|| Failure::of(io::ErrorKind::StorageFull))
    })));
    db.flush(&cf).expect_err("no room");
    for _ in 0..2 {
        db.resume().expect_err("no room still");
        db.delete(&cf, b"k", WriteOptions::SYNC)
            .expect("a delete is taken");
        db.put(&cf, b"m", b"1", WriteOptions::SYNC)
            .expect_err("a put is not");
    }
    fs.set_fault_rule(None);
    db.resume().expect("resumed");
    put(&db, b"m", b"1");
    assert!(db.get(&cf, b"k").expect("read").is_none());
    assert!(db.get(&cf, b"l").expect("read").is_some());
}

#[test]
fn a_database_below_new_directories_survives_power_loss() {
    let (fs, options) = simulated();
    let db = Db::open("a/b/db", options).expect("opened");
    db.put(&db.default_cf(), b"k", b"1", WriteOptions::SYNC)
        .expect("durable");
    let after = fs.crash(Survival::LoseUnsynced);
    let options = Options::with(after, Arc::new(SimExecutor::new(8)));
    let db = Db::open("a/b/db", options).expect("opened");
    assert!(db.get(&db.default_cf(), b"k").expect("read").is_some());
}

#[test]
fn a_log_without_current_and_mark_is_not_wiped() {
    let (fs, options) = simulated();
    let db = Db::open("db", options.clone()).expect("opened");
    put(&db, b"k", b"1");
    db.close().expect("closed");
    let current = fs.read_raw("db/CURRENT").expect("there");
    for name in ["db/CURRENT", "db/MARK"] {
        options.fs.remove_file(Path::new(name)).expect("there");
    }
    let error = Db::open("db", options.clone()).expect_err("it is not empty");
    assert!(error.is_corruption(), "{error}");
    fs.write_raw("db/CURRENT", &current).expect("put back");
    let db = Db::open("db", options).expect("opened");
    assert!(db.get(&db.default_cf(), b"k").expect("read").is_some());
}

#[test]
fn the_kind_of_memtable_is_chosen_while_open_and_is_not_stored() {
    let (_, options) = simulated();
    let of = |kind| CfOptions {
        memtable: kind,
        ..CfOptions::default()
    };
    let kind = |cf: &ColumnFamily| cf.inner.peek().active.memtable.kind();
    let db = Db::open("db", options.clone()).expect("opened");
    let cf = db
        .create_cf("list", of(MemtableKind::SkipList))
        .expect("new");
    assert_eq!(kind(&cf), MemtableKind::SkipList);
    // The memtable that has nothing changes at once, and the manifest has nothing new to say.
    let manifest = |db: &Db| db.inner.manifest.lock().writer.synced();
    let before = manifest(&db);
    for chosen in [MemtableKind::Tree, MemtableKind::SkipList] {
        db.open_cf("list", of(chosen)).expect("there");
        assert_eq!(kind(&cf), chosen);
    }
    assert_eq!(manifest(&db), before);
    // One that has something stays as it is until it is frozen.
    db.put(&cf, b"k", b"1", WriteOptions::SYNC)
        .expect("written");
    db.open_cf("list", of(MemtableKind::Tree)).expect("there");
    assert_eq!(kind(&cf), MemtableKind::SkipList);
    assert_eq!(db.get(&cf, b"k").expect("read").as_deref(), Some(&b"1"[..]));
    db.flush(&cf).expect("flushed");
    assert_eq!(kind(&cf), MemtableKind::Tree);
    assert_eq!(db.get(&cf, b"k").expect("read").as_deref(), Some(&b"1"[..]));
    db.open_cf("list", of(MemtableKind::SkipList))
        .expect("there");
    db.close().expect("closed");
    let db = Db::open("db", options).expect("opened");
    let cf = db.cf("list").expect("kept");
    assert_eq!(*cf.options(), CfOptions::default());
    db.open_cf("list", of(MemtableKind::SkipList))
        .expect("there");
    assert_eq!(kind(&cf), MemtableKind::SkipList);
}

#[test]
fn an_ingest_lets_writers_go_on_and_holds_the_log_still_for_little() {
    const BEFORE: usize = 4 << 20;
    let (fs, options) = threaded();
    let db = Db::open("db", options).expect("opened");
    let default = db.default_cf();
    let value = [7; 1024];
    let fill = |from: u32| {
        for n in 0..4096 {
            put(&db, &(from + n).to_be_bytes(), &value);
        }
    };
    fill(0);
    let mut table = db.table_writer(&default, "table").expect("room");
    table.put(b"taken in", b"1").expect("room");
    let table = table.finish().expect("room");

    // The ingest stands at the link of its file until writers have written as much again.
    let (at_link, linking) = channel();
    let (go_on, may_go_on) = channel::<()>();
    let may_go_on = Mutex::new(may_go_on);
    let held_bytes = Arc::new(AtomicU64::new(0));
    let (seen, held) = (db.clone(), Arc::clone(&held_bytes));
    fs.set_fault_rule(Some(Arc::new(move |op| {
        if op.kind == OpKind::Link {
            at_link.send(()).expect("somebody waits");
            let may_go_on = may_go_on.lock().expect("sound");
            may_go_on
                .recv_timeout(PATIENCE)
                .expect("writers are let go on");
        }
        let is_table = op.path.extension().is_some_and(|end| end == "sst");
        if op.kind == OpKind::Write && is_table && seen.inner.commit.lock().is_held_still() {
            held.fetch_add(op.len, Ordering::Relaxed);
        }
        None
    })));
    let taking = db.clone();
    let cf = default.clone();
    let done = aside(move || {
        let mut ingest = Ingest::new();
        ingest.table(&cf, table);
        taking.ingest(ingest)
    });
    linking
        .recv_timeout(PATIENCE)
        .expect("it comes to the link");
    fill(10_000);
    assert!(db.inner.commit.lock().end_pos() > 2 * BEFORE as u64);
    go_on.send(()).expect("it waits");
    let seq = done
        .recv_timeout(PATIENCE)
        .expect("it ends")
        .expect("taken in");
    fs.set_fault_rule(None);
    assert!(seq > SequenceNumber(8192));
    let held = held_bytes.load(Ordering::Relaxed);
    println!("{held} bytes of tables written with the log held still");
    assert!(
        held < 2 << 20,
        "{held} bytes of tables with the log held still"
    );
    assert_eq!(
        db.get(&default, b"taken in").expect("read").as_deref(),
        Some(&b"1"[..])
    );
    db.close().expect("closed");
}
