//! Compaction by hand with progress and a way out, and cursors that go on to the newest state.

use std::{
    ops::ControlFlow,
    sync::{Arc, Mutex},
    thread,
};

use basalt_engine::{
    CfOptions, ColumnFamily, Compression, Db, Error, Fault, Faults, LEVELS, Options, Pacing,
    ProgressStep, ReadOptions, WriteBatch, WriteOptions,
    executor::ThreadPool,
    fs::{Fs, SimFs, sim::Survival},
    verify_dir_with,
};
use basalt_testkit::{Rng, Seeds, long_factor};

use crate::simulated;

fn filled(db: &Db) -> ColumnFamily {
    let options = CfOptions {
        compression: [Compression::None; LEVELS],
        l0_compaction_trigger: 50,
        l0_slowdown_trigger: 50,
        l0_stop_trigger: 50,
        ..CfOptions::default()
    };
    let cf = db.open_cf("data", options).expect("created");
    for round in 0..3_u32 {
        for i in 0..3_000_u32 {
            let value = [u8::try_from(round).expect("small"); 1000];
            db.put(
                &cf,
                &(3 * i + round).to_be_bytes(),
                &value,
                WriteOptions::NO_SYNC,
            )
            .expect("written");
        }
        db.flush(&cf).expect("flushed");
    }
    cf
}

#[test]
fn progress_rises_to_its_end_and_the_range_is_compacted() {
    let (_, options) = simulated(51);
    let db = Db::open("db", options).expect("opened");
    let cf = filled(&db);
    let told = Arc::new(Mutex::new(Vec::new()));
    let list = Arc::clone(&told);
    let progress = move |step: ProgressStep| {
        list.lock().expect("sound").push((step.done, step.total));
        ControlFlow::Continue(())
    };
    db.compact_range_with(&cf, None, None, &Pacing::told(Arc::new(progress)))
        .expect("compacted");
    let told = told.lock().expect("sound").clone();
    assert!(told.len() > 8, "{told:?}");
    assert!(
        told.is_sorted() && told.iter().all(|&(done, total)| done <= total),
        "{told:?}"
    );
    let (last, total) = told[told.len() - 1];
    assert!(last == total && total > 9_000_000, "{told:?}");
    let levels = db.stats().families[1].levels;
    assert_eq!(levels.iter().filter(|level| level.tables > 0).count(), 1);
}

#[test]
fn a_cancelled_compaction_leaves_everything_as_it_was_and_readable() {
    let (fs, options) = simulated(52);
    let db = Db::open("db", options).expect("opened");
    let cf = filled(&db);
    let before = (db.stats().families[1].levels, fs.files().len());
    let stop = |step: ProgressStep| {
        if step.done < 3 << 20 {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    };
    let error = db
        .compact_range_with(&cf, None, None, &Pacing::told(Arc::new(stop)))
        .expect_err("cancelled");
    assert!(matches!(error, Error::Cancelled), "{error}");
    assert_eq!(
        (db.stats().families[1].levels, fs.files().len()),
        before,
        "its outputs are gone"
    );
    assert!(db.read_only_cause().is_none(), "that is no failure");
    // From beside, as from another thread.
    let handle = db.clone();
    let cancel = move |_: ProgressStep| {
        handle.cancel_compact_range();
        ControlFlow::Continue(())
    };
    let error = db
        .compact_range_with(&cf, None, None, &Pacing::told(Arc::new(cancel)))
        .expect_err("cancelled");
    assert!(matches!(error, Error::Cancelled), "{error}");
    assert_eq!(
        db.range(&cf, &ReadOptions::default())
            .expect("a cursor")
            .count(),
        9_000
    );
    db.compact_range(&cf, None, None).expect("compacted");
    assert_eq!(db.verify().expect("read").damage.len(), 0);
}

/// A refreshed cursor sees what a new one sees, whatever happened in between; false where it does not.
fn refreshed_agrees(seed: u64, fault: Fault) -> bool {
    {
        let mut rng = Rng::new(seed);
        let (_, mut options) = simulated(seed);
        options.faults = Faults(fault);
        let db = Db::open("db", options).expect("opened");
        let options = if rng.one_in(6) {
            CfOptions::append(1)
        } else {
            CfOptions {
                l0_compaction_trigger: 2,
                ..CfOptions::default()
            }
        };
        let is_append = options.append_prefix_bytes.is_some();
        let cf = db.open_cf("data", options).expect("created");
        let bounds = if rng.one_in(2) {
            ReadOptions::default()
        } else {
            ReadOptions {
                lower: Some(vec![5]),
                upper: Some(vec![30]),
                ..ReadOptions::default()
            }
        };
        let mut iter = db.iter(&cf, &bounds).expect("a cursor");
        let mut next = 1;
        for _ in 0..60 {
            let key = |rng: &mut Rng| [u8::try_from(rng.below(40)).expect("small")];
            for _ in 0..rng.index(4) {
                if is_append {
                    let mut batch = basalt_engine::WriteBatch::new();
                    batch.append(&cf, &[9], next, &[vec![1; 10]]);
                    next += 1;
                    db.write(batch, WriteOptions::NO_SYNC).expect("written");
                    continue;
                }
                match rng.below(10) {
                    0..6 => db.put(
                        &cf,
                        &key(&mut rng),
                        &[u8::try_from(rng.below(200)).expect("small")],
                        WriteOptions::NO_SYNC,
                    ),
                    6 => db.delete(&cf, &key(&mut rng), WriteOptions::NO_SYNC),
                    7 if rng.one_in(4) => {
                        db.delete_range(&cf, &key(&mut rng), &key(&mut rng), WriteOptions::NO_SYNC)
                    }
                    8 => db.flush(&cf),
                    _ => db.compact_range(&cf, None, None),
                }
                .expect("done");
            }
            if rng.one_in(2) {
                iter.seek(&key(&mut rng)).expect("readable");
            }
            iter.refresh().expect("refreshed");
            assert!(!iter.valid());
            let mut seen = Vec::new();
            iter.seek_to_first().expect("readable");
            while iter.valid() {
                seen.push((iter.key().to_vec(), iter.value().to_vec()));
                iter.next().expect("readable");
            }
            let fresh = db
                .range(&cf, &bounds)
                .expect("a cursor")
                .map(|row| row.map(|(key, value)| (key, value.to_vec())));
            let fresh: Result<Vec<_>, _> = fresh.collect();
            if seen != fresh.expect("readable") {
                return false;
            }
        }
    }
    true
}

#[test]
fn a_refreshed_cursor_agrees_with_a_new_one() {
    for seed in Seeds::new("refresh", 80) {
        assert!(refreshed_agrees(seed, Fault::None), "seed {seed:#x}");
    }
}

#[test]
fn the_test_above_sees_a_cursor_that_is_refreshed_in_place_whatever_happened() {
    let seeds = (0..40).filter(|&seed| !refreshed_agrees(seed, Fault::RefreshInPlace));
    assert!(seeds.count() > 20);
}

/// A cursor that is refreshed beside batches of a range delete and a put sees each batch whole or not at all; false where it
/// does not.
fn refreshed_sees_whole_batches(rounds: u64, fault: Fault) -> bool {
    let mut options = Options::with(SimFs::new(), Arc::new(ThreadPool::new(2)));
    options.faults = Faults(fault);
    let db = Db::open("db", options).expect("opened");
    let cf = db.default_cf();
    let put = |key: u64| {
        db.put(&cf, &key.to_be_bytes(), b"v", WriteOptions::NO_SYNC)
            .expect("written");
    };
    put(0);
    let mut agrees = true;
    for round in 0..rounds {
        // A memtable without range deletes, and a cursor that has it.
        db.flush(&cf).expect("flushed");
        put(round);
        let mut iter = db.iter(&cf, &ReadOptions::default()).expect("a cursor");
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut batch = WriteBatch::new();
                batch.delete_range(&cf, &0_u64.to_be_bytes(), &(round + 1).to_be_bytes());
                batch.put(&cf, &(round + 1).to_be_bytes(), b"v");
                db.write(batch, WriteOptions::NO_SYNC).expect("written");
            });
            loop {
                iter.refresh().expect("refreshed");
                iter.seek_to_first().expect("readable");
                let mut seen = Vec::new();
                while iter.valid() {
                    seen.push(iter.key().to_vec());
                    iter.next().expect("readable");
                }
                let is = |key: u64| seen == [key.to_be_bytes()];
                agrees &= is(round) || is(round + 1);
                if !agrees || is(round + 1) {
                    return;
                }
            }
        });
        if !agrees {
            break;
        }
    }
    db.close().expect("closed");
    agrees
}

#[test]
fn a_cursor_that_is_refreshed_beside_range_deletes_sees_batches_whole() {
    assert!(refreshed_sees_whole_batches(
        300 * long_factor(),
        Fault::None
    ));
}

#[test]
fn the_test_above_sees_a_number_that_is_read_too_late() {
    assert!(!refreshed_sees_whole_batches(
        20_000,
        Fault::RefreshNumberLast
    ));
}

#[test]
fn a_cursor_of_a_dropped_family_is_not_refreshed() {
    let (_, options) = simulated(53);
    let db = Db::open("db", options).expect("opened");
    let cf = filled(&db);
    let mut iter = db.iter(&cf, &ReadOptions::default()).expect("a cursor");
    db.drop_cf(&cf).expect("dropped");
    assert!(matches!(iter.refresh(), Err(Error::NoSuchColumnFamily(_))));
    iter.seek_to_first().expect("as it was");
    assert!(iter.valid());
}

#[test]
fn a_check_of_the_log_tells_of_each_megabyte_and_can_be_ended_there() {
    const STEP: u64 = 1 << 20;
    let (_, options) = simulated(57);
    let db = Db::open("db", options.clone()).expect("opened");
    let cf = db.default_cf();
    for n in 0..5_000_u32 {
        db.put(&cf, &n.to_be_bytes(), &[7; 1000], WriteOptions::NO_SYNC)
            .expect("written");
    }
    let told = Arc::new(Mutex::new(Vec::new()));
    let pacing = |until: u64| {
        told.lock().expect("sound").clear();
        let list = Arc::clone(&told);
        Pacing::told(Arc::new(move |step: ProgressStep| {
            list.lock().expect("sound").push((step.what, step.done));
            match step.done < until {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        }))
    };
    let check_steps = || {
        let told = told.lock().expect("sound");
        let log: Vec<u64> = told
            .iter()
            .filter(|(what, _)| *what == "log")
            .map(|(_, done)| *done)
            .collect();
        let longest = log.windows(2).map(|pair| pair[1] - pair[0]).max();
        assert!(
            longest.is_some_and(|longest| longest <= STEP + 2_000),
            "{log:?}"
        );
        assert!(log.last().is_some_and(|&done| done > 5_000_000), "{log:?}");
    };
    let report = db.verify_with(&pacing(u64::MAX)).expect("read");
    assert!(report.damage.is_empty(), "{report:?}");
    assert_eq!(report.log_records, 5_000);
    check_steps();
    let ended = db.verify_with(&pacing(2 * STEP));
    assert!(matches!(ended, Err(Error::Cancelled)), "{ended:?}");
    db.close().expect("closed");
    drop(cf);
    // A close flushes; the log of a database that was not closed is long.
    let (fs, options) = simulated(58);
    let db = Db::open("db", options.clone()).expect("opened");
    let cf = db.default_cf();
    for n in 0..5_000_u32 {
        db.put(&cf, &n.to_be_bytes(), &[7; 1000], WriteOptions::NO_SYNC)
            .expect("written");
    }
    db.sync().expect("synced");
    let cut = fs.crash(Survival::LoseUnsynced);
    let options = Options { fs: cut, ..options };
    let report = verify_dir_with("db", &options, &pacing(u64::MAX)).expect("read");
    assert!(
        report.damage.is_empty() && report.log_records == 5_000,
        "{report:?}"
    );
    check_steps();
    let ended = verify_dir_with("db", &options, &pacing(2 * STEP));
    assert!(matches!(ended, Err(Error::Cancelled)), "{ended:?}");
}

#[test]
fn waiting_for_background_work_leaves_nothing_that_is_due_and_no_large_spare_log_files() {
    let (fs, mut options) = simulated(59);
    options.log_segment_bytes = (8 << 20, 8 << 20);
    let db = Db::open("db", options).expect("opened");
    let setting = CfOptions {
        l0_compaction_trigger: 2,
        write_buffer_bytes: 4 << 20,
        ..CfOptions::default()
    };
    let cf = db.open_cf("data", setting).expect("created");
    let refused = Arc::new(Mutex::new(Vec::new()));
    let (told, inside) = (Arc::clone(&refused), db.clone());
    db.add_listener(Arc::new(move |_: &basalt_engine::Event| {
        told.lock()
            .expect("no panic holds it")
            .push(inside.wait_for_background_work());
    }));
    for i in 0..40_000_u32 {
        let key = (i % 10_000).to_be_bytes();
        db.put(&cf, &key, &[7; 1000], WriteOptions::NO_SYNC)
            .expect("written");
    }
    db.flush_all().expect("flushed");
    db.wait_for_background_work().expect("done");
    let stats = db.stats();
    let l0 = stats.families.last().expect("there").levels[0].tables;
    assert!(l0 < 2, "{l0} tables of L0");
    let names = fs.list_dir("db".as_ref()).expect("a directory");
    let logs = names.iter().filter(|name| name.ends_with(".log")).count();
    assert!(logs <= 2, "written and prepared: {names:?}");
    let refused = refused.lock().expect("no panic holds it");
    assert!(!refused.is_empty());
    for refusal in &*refused {
        assert!(
            matches!(refusal, Err(Error::InvalidArgument(_))),
            "{refusal:?}"
        );
    }
    db.clone().close().expect("closed");
    assert!(matches!(db.wait_for_background_work(), Err(Error::Closed)));
}
