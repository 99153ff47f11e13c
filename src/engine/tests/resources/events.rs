//! Listeners: what they are told, in what order, and what they cannot break.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use basalt_engine::{
    CfOptions, Db, Event, EventListener, Options, WriteOptions,
    executor::SimExecutor,
    fs::{
        SimFs,
        sim::{Failure, OpKind},
    },
};

/// Keeps what it is told.
#[derive(Default)]
struct Log(Mutex<Vec<Event>>);

impl EventListener for Log {
    fn on_event(&self, event: &Event) {
        self.0
            .lock()
            .expect("no panic holds it")
            .push(event.clone());
    }
}

impl Log {
    fn names(&self) -> Vec<String> {
        let name = |event: &Event| {
            let text = format!("{event:?}");
            let end = text.find([' ', '{']).unwrap_or(text.len());
            text[..end].to_owned()
        };
        self.0
            .lock()
            .expect("no panic holds it")
            .iter()
            .map(name)
            .collect()
    }

    fn count(&self, name: &str) -> usize {
        self.names().iter().filter(|is| *is == name).count()
    }
}

fn simulated(seed: u64) -> (Arc<SimFs>, Arc<SimExecutor>, Options) {
    let (fs, executor) = (SimFs::new(), Arc::new(SimExecutor::new(seed)));
    let options = Options::with(Arc::clone(&fs) as _, Arc::clone(&executor) as _);
    (fs, executor, options)
}

fn small() -> CfOptions {
    CfOptions {
        write_buffer_bytes: 4 << 10,
        max_immutable_memtables: 1,
        l0_compaction_trigger: 2,
        l0_slowdown_trigger: 3,
        l0_stop_trigger: 3,
        ..CfOptions::default()
    }
}

fn write(db: &Db, cf: &basalt_engine::ColumnFamily, count: u32) {
    for i in 0..count {
        db.put(cf, &i.to_be_bytes(), &[5; 50], WriteOptions::NO_SYNC)
            .expect("written");
    }
}

#[test]
fn listeners_are_told_in_order_what_begins_and_ends_and_a_panic_is_their_own() {
    let (_, executor, options) = simulated(41);
    let db = Db::open("db", options).expect("opened");
    let (log, panics) = (Arc::new(Log::default()), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&panics);
    db.add_listener(Arc::new(move |_: &Event| {
        count.fetch_add(1, Ordering::Relaxed);
        panic!("a listener's own");
    }));
    db.add_listener(Arc::clone(&log) as _);
    let cf = db.open_cf("data", small()).expect("created");
    write(&db, &cf, 2_000);
    db.compact_range(&cf, None, None).expect("compacted");
    executor.run_until_idle();
    let names = log.names();
    assert_eq!(panics.load(Ordering::Relaxed), names.len());
    for name in ["Flush", "Compaction", "Stall"] {
        let (begun, ended) = (
            log.count(&format!("{name}Begin")),
            log.count(&format!("{name}End")),
        );
        assert!(
            begun == ended && begun > 0,
            "{name}: {begun} begun, {ended} ended"
        );
    }
    assert!(log.count("TableCreated") > 5 && log.count("TablesRemoved") > 0);
    // Flushes do not overlap, and each tells of its table in between.
    let mut open = false;
    for event in log.0.lock().expect("no panic holds it").iter() {
        match event {
            Event::FlushBegin { families } => {
                assert!(!open && families == &["data"]);
                open = true;
            }
            Event::FlushEnd { tables, bytes, .. } => {
                assert!(open && tables.len() == 1 && *bytes > 0);
                open = false;
            }
            Event::CompactionEnd {
                inputs, outputs, ..
            } => {
                assert!(!inputs.is_empty() && !outputs.is_empty());
            }
            _ => {}
        }
    }
    assert_eq!(db.stats().events_lost, 0);
    // Nothing was held against the database.
    db.put(&cf, b"key", b"value", WriteOptions::SYNC)
        .expect("written");
    db.close().expect("closed");
}

#[test]
fn a_failure_is_told_with_its_cause_and_so_is_the_resumption() {
    let (fs, executor, options) = simulated(42);
    let db = Db::open("db", options).expect("opened");
    let log = Arc::new(Log::default());
    db.add_listener(Arc::clone(&log) as _);
    let cf = db.default_cf();
    write(&db, &cf, 10);
    fs.set_fault_rule(Some(Arc::new(|op: &basalt_engine::fs::sim::Op| {
        let is_table = op.path.extension().is_some_and(|end| end == "sst");
        (op.kind == OpKind::Sync && is_table).then(|| Failure {
            error: std::io::Error::other("planted"),
            written: 0,
        })
    })));
    assert!(db.flush(&cf).is_err());
    executor.run_until_idle();
    let is_told = |log: &Log| {
        let events = log.0.lock().expect("no panic holds it");
        events.iter().any(|event| matches!(event, Event::ReadOnly { cause } if cause.to_string().contains("planted")))
    };
    assert!(is_told(&log), "{:?}", log.names());
    assert!(log.count("BackgroundError") > 0 && log.count("Resumed") == 0);
    fs.set_fault_rule(None);
    db.resume().expect("resumed");
    executor.run_until_idle();
    assert_eq!(log.count("Resumed"), 1);
    db.close().expect("closed");
}
