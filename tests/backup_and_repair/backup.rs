//! Backups as they are used: shared, listed, verified, removed, restored; of a damaged store, on a failing disk, beside writers.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use basalt_engine::{
    BackupOptions, Db, Error, Fault, Options, Pacing, ProgressStep, WriteOptions, delete_backup,
    executor::{Executor, SimExecutor, ThreadPool},
    fs::{
        Fs, SimFs,
        sim::{Failure, Survival},
    },
    list_backups, purge_backups, restore_backup, verify_backups,
};
use basalt_testkit::Seeds;

use crate::{
    cuts::{BACKUPS, sound},
    store::{DIR, LOG, Store, Truth, contents, opened, options},
};

fn told() -> Pacing {
    Pacing::default()
}

fn dated(time: u64) -> BackupOptions {
    BackupOptions {
        description: format!("the one of {time}"),
        ..BackupOptions::dated(time)
    }
}

#[test]
fn backups_share_what_did_not_change_and_come_back_as_they_were() {
    for seed in Seeds::new("backups", 4) {
        let mut store = Store::new(seed, Fault::None);
        let mut truths: BTreeMap<u64, Truth> = BTreeMap::new();
        let with = store.options();
        let mut shared = 0;
        for time in 1..=7 {
            store.work(70);
            store.settle();
            let made = store.db.backup(BACKUPS, &dated(time)).expect("made");
            assert_eq!((made.id, made.time), (time, time));
            assert!(made.new_bytes <= made.bytes, "{made:?}");
            shared += made.bytes - made.new_bytes;
            truths.insert(made.id, store.truth.clone());
            if time == 4 {
                // The flush of unlogged families has nothing to do: nothing at all is new.
                let again = store.db.backup(BACKUPS, &dated(99)).expect("made");
                assert_eq!(again.new_bytes, 0, "{again:?}");
                assert_eq!(again.bytes, made.bytes);
                delete_backup(BACKUPS, again.id, &with).expect("there");
            }
        }
        assert!(shared > 0, "seed {seed:#x}: nothing was shared");
        let list = list_backups(BACKUPS, &with).expect("read");
        assert!(list.damage.is_empty());
        let times: Vec<u64> = list.backups.iter().map(|backup| backup.time).collect();
        assert_eq!(times, [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(list.backups[2].description, "the one of 3");
        let names: Vec<&str> = list.backups[0]
            .families
            .iter()
            .map(String::as_str)
            .collect();
        assert_eq!(names, ["default", "packed", "free", "log", "large"]);
        let newest = &list.backups[6];
        let there = store.disk.list_dir(Path::new(BACKUPS)).expect("there");
        let values = there.iter().filter(|name| name.ends_with(".val")).count();
        assert!(newest.value_files > 0 && values as u64 >= newest.value_files);
        delete_backup(BACKUPS, 3, &with).expect("there");
        truths.remove(&3);
        let gone = delete_backup(BACKUPS, 3, &with);
        assert!(matches!(gone, Err(Error::InvalidArgument(_))), "{gone:?}");
        let report = verify_backups(BACKUPS, None, &with, &told()).expect("read");
        assert!(
            report.damage.is_empty() && report.backups == 6,
            "{report:?}"
        );
        for (id, truth) in &truths {
            let target = format!("/restored/{id}");
            let info = restore_backup(BACKUPS, Some(*id), &target, &with, &told()).expect("whole");
            assert_eq!(info.id, *id);
            assert_eq!(
                opened(&store.disk, &target),
                *truth,
                "seed {seed:#x}, backup {id}"
            );
            // What is restored may be read, and backed up, as any database; it shares all it can.
            let db = Db::open_read_only(&target, store.options()).expect("it opens");
            let twin = db.backup(BACKUPS, &dated(50)).expect("made");
            assert_eq!(twin.new_bytes, 0, "{twin:?}");
            delete_backup(BACKUPS, twin.id, &with).expect("there");
        }
        let freed = purge_backups(BACKUPS, 2, &with).expect("removed");
        assert!(freed > 0);
        let left = list_backups(BACKUPS, &with).expect("read").backups;
        assert_eq!(left.iter().map(|b| b.id).collect::<Vec<_>>(), [6, 7]);
        restore_backup(BACKUPS, None, "/newest", &with, &told()).expect("whole");
        assert_eq!(opened(&store.disk, "/newest"), truths[&7]);
        purge_backups(BACKUPS, 0, &with).expect("removed");
        let rest = store.disk.list_dir(Path::new(BACKUPS)).expect("there");
        assert_eq!(rest, ["LOCK"], "nothing stays behind");
    }
}

#[test]
fn a_restored_twin_shares_one_directory_of_backups_with_the_original() {
    let mut store = Store::new(11, Fault::None);
    store.work(120);
    store.settle();
    store.db.backup(BACKUPS, &dated(1)).expect("made");
    restore_backup(BACKUPS, None, "/twin", &store.options(), &told()).expect("whole");
    // Both go on under the same ids and numbers, with other rows.
    let twin = Db::open("/twin", options(&store.disk, 1234, Fault::None)).expect("it opens");
    for n in 0..60_u32 {
        let key = n.to_be_bytes();
        let (one, two) = (store.db.default_cf(), twin.default_cf());
        twin.put(&two, &key, b"of the twin", WriteOptions::SYNC)
            .expect("written");
        store
            .db
            .put(&one, &key, b"of the first", WriteOptions::SYNC)
            .expect("written");
    }
    let first = contents(&store.db);
    let second = contents(&twin);
    assert_ne!(first, second);
    let a = store.db.backup(BACKUPS, &dated(2)).expect("made");
    let b = twin.backup(BACKUPS, &dated(3)).expect("made");
    for (id, truth) in [(a.id, first), (b.id, second)] {
        let target = format!("/restored/{id}");
        restore_backup(BACKUPS, Some(id), &target, &store.options(), &told()).expect("whole");
        assert_eq!(opened(&store.disk, &target), truth);
    }
}

#[test]
fn damage_in_a_backup_is_named_refused_and_hurts_no_other() {
    let mut store = Store::new(5, Fault::None);
    let mut truths = BTreeMap::new();
    for time in 1..=3 {
        store.work(60);
        store.settle();
        let made = store.db.backup(BACKUPS, &dated(time)).expect("made");
        truths.insert(made.id, store.truth.clone());
    }
    let image = store.disk.crash(Survival::ProcessDeath);
    let files: Vec<_> = image
        .files()
        .into_iter()
        .filter(|path| path.starts_with(BACKUPS) && !path.ends_with("LOCK"))
        .collect();
    let (mut cases, mut refused, mut whole) = (0, 0, 0);
    for path in &files {
        let len = image.read_raw(path).expect("there").len() as u64;
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .expect("plain");
        let is_record = name.starts_with("BACKUP-");
        let step = if is_record { 7 } else { len / 3 + 1 };
        let flips = (0..len)
            .step_by(usize::try_from(step).expect("small"))
            .map(Some);
        for at in flips.chain([None]) {
            let disk = image.crash(Survival::ProcessDeath);
            match at {
                Some(at) => disk.corrupt(path, at, 1 << (at % 8)).expect("within"),
                None => disk.truncate(path, len - 1).expect("there"),
            }
            cases += 1;
            let with = options(&disk, 3, Fault::None);
            let report = verify_backups(BACKUPS, None, &with, &told()).expect("read");
            let named = report
                .damage
                .iter()
                .any(|damage| damage.to_string().contains(name));
            assert!(named, "{name} at {at:?}: {:?}", report.damage);
            let list = list_backups(BACKUPS, &with).expect("read");
            assert_eq!(list.damage.len(), usize::from(is_record), "{name}");
            for (id, truth) in &truths {
                let target = format!("/restored-{id}");
                match restore_backup(BACKUPS, Some(*id), &target, &with, &told()) {
                    Ok(_) => {
                        whole += 1;
                        assert_eq!(
                            sound(&disk, &target).as_ref(),
                            Ok(truth),
                            "{name} at {at:?}"
                        );
                    }
                    Err(Error::Corruption { path, .. } | Error::NotADatabase { path, .. }) => {
                        refused += 1;
                        assert!(path.ends_with(name), "{} for {name}", path.display());
                        let left = disk.list_dir(target.as_ref()).unwrap_or_default();
                        assert!(left.iter().all(|name| name == "LOCK"), "{left:?}");
                    }
                    Err(error) => panic!("{name}: {error}"),
                }
            }
            if is_record {
                // Nobody knows what it names: nothing is removed with another one, and it can be removed itself.
                let files = |disk: &SimFs| disk.list_dir(Path::new(BACKUPS)).expect("there").len();
                let before = files(&disk);
                let bad: u64 = name["BACKUP-".len()..].parse().expect("a number");
                let other = if bad == 1 { 2 } else { 1 };
                assert_eq!(delete_backup(BACKUPS, other, &with).expect("there"), 0);
                assert_eq!(files(&disk), before - 1);
                delete_backup(BACKUPS, bad, &with).expect("there");
                let report = verify_backups(BACKUPS, None, &with, &told()).expect("read");
                assert!(report.damage.is_empty() && report.backups == 1);
            } else {
                // The next backup copies anew what has another length; what is only rotten it cannot see.
                let db = Db::open(DIR, options(&disk, 4, Fault::None)).expect("it opens");
                db.backup(BACKUPS, &dated(9)).expect("made");
            }
        }
    }
    println!(
        "{cases} cases over {} files, {refused} refused, {whole} whole",
        files.len()
    );
    assert!(cases > 60 && refused > 30 && whole > 30);
}

#[test]
fn nothing_damaged_is_taken_into_a_backup() {
    let mut store = Store::new(21, Fault::None);
    store.work(200);
    store.settle();
    store.db.checkpoint("/source").expect("a sound disk");
    let image = store.disk.crash(Survival::ProcessDeath);
    let mut refused = 0;
    for path in image.files() {
        let is_data = path
            .extension()
            .is_some_and(|end| end == "sst" || end == "log" || end == "val");
        if !path.starts_with("/source") || !is_data {
            continue;
        }
        let len = image.read_raw(&path).expect("there").len() as u64;
        for at in [1, len / 2, len - 1] {
            let disk = image.crash(Survival::ProcessDeath);
            let db = Db::open_read_only("/source", options(&disk, 3, Fault::None)).expect("sound");
            disk.corrupt(&path, at, 16).expect("within");
            let made = db.backup(BACKUPS, &dated(1));
            assert!(
                made.as_ref().is_err_and(Error::is_corruption),
                "{}: {made:?}",
                path.display()
            );
            let list = list_backups(BACKUPS, &options(&disk, 4, Fault::None)).expect("read");
            assert!(list.backups.is_empty() && list.damage.is_empty());
            refused += 1;
        }
    }
    assert!(refused >= 12, "{refused}");
}

#[test]
fn directories_of_something_else_are_refused() {
    let mut store = Store::new(6, Fault::None);
    store.work(20);
    store.settle();
    let with = store.options();
    let made = store.db.backup(DIR, &dated(1));
    assert!(matches!(made, Err(Error::InvalidArgument(_))), "{made:?}");
    store
        .disk
        .create_dir_all(Path::new("/notes"))
        .expect("room");
    store.disk.write_raw("/notes/mine", b"dear").expect("room");
    let made = store.db.backup("/notes", &dated(1));
    assert!(matches!(made, Err(Error::InvalidArgument(_))), "{made:?}");
    assert_eq!(
        store.disk.list_dir(Path::new("/notes")).expect("there"),
        ["mine"]
    );
    store.db.backup(BACKUPS, &dated(1)).expect("made");
    for target in ["/notes", DIR, BACKUPS] {
        let before = store.disk.hash();
        let answer = restore_backup(BACKUPS, None, target, &with, &told());
        let is_refused = matches!(
            answer,
            Err(Error::InvalidArgument(_) | Error::Locked { .. })
        );
        assert!(is_refused, "{target}: {answer:?}");
        assert_eq!(store.disk.hash(), before);
    }
    for id in [0, 2, u64::MAX] {
        let answer = restore_backup(BACKUPS, Some(id), "/t", &with, &told());
        assert!(
            matches!(answer, Err(Error::InvalidArgument(_))),
            "{answer:?}"
        );
    }
    let long = BackupOptions {
        description: "x".repeat(5000),
        ..BackupOptions::default()
    };
    let made = store.db.backup(BACKUPS, &long);
    assert!(matches!(made, Err(Error::InvalidArgument(_))), "{made:?}");
    // One at a time, and none while one is read.
    let held = store
        .disk
        .lock_shared(&Path::new(BACKUPS).join("LOCK"))
        .expect("there");
    let made = store.db.backup(BACKUPS, &dated(2));
    assert!(matches!(made, Err(Error::Locked { .. })), "{made:?}");
    drop(held);
    store.db.backup(BACKUPS, &dated(2)).expect("made");
}

#[test]
fn progress_ascends_to_its_total_a_break_leaves_nothing_and_a_rate_holds() {
    let mut store = Store::new(9, Fault::None);
    store.work(150);
    store.settle();
    let seen: Arc<Mutex<Vec<ProgressStep>>> = Arc::default();
    let stop_at = Arc::new(AtomicU64::new(u64::MAX));
    let (list, stop) = (Arc::clone(&seen), Arc::clone(&stop_at));
    let pacing = Pacing::told(Arc::new(move |step: ProgressStep| {
        let mut list = list.lock().expect("sound");
        list.push(step);
        if list.len() as u64 >= stop.load(Ordering::Relaxed) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }));
    let options = BackupOptions {
        pacing: pacing.clone(),
        ..dated(1)
    };
    let with = store.options();
    let steps = {
        let made = store.db.backup("/first", &options).expect("made");
        let steps = std::mem::take(&mut *seen.lock().expect("sound"));
        assert!(steps.is_sorted_by_key(|step| step.done));
        let last = steps.last().expect("told");
        assert_eq!((last.done, last.total), (made.bytes, made.bytes));
        assert!(steps.iter().any(|step| step.what == "tables"));
        assert!(steps.iter().any(|step| step.what == "log"));
        steps.len() as u64
    };
    for at in 1..=steps {
        seen.lock().expect("sound").clear();
        stop_at.store(at, Ordering::Relaxed);
        let dir = format!("/broken-off/{at}");
        let made = store.db.backup(&dir, &options);
        assert!(matches!(made, Err(Error::Cancelled)), "at {at}: {made:?}");
        assert!(store.db.read_only_cause().is_none());
        assert!(list_backups(&dir, &with).expect("read").backups.is_empty());
        seen.lock().expect("sound").clear();
        let restored = restore_backup("/first", None, "/target", &with, &pacing);
        assert!(
            matches!(restored, Err(Error::Cancelled)),
            "at {at}: {restored:?}"
        );
        let left = store.disk.list_dir(Path::new("/target")).expect("there");
        assert_eq!(left, ["LOCK"]);
    }
    stop_at.store(u64::MAX, Ordering::Relaxed);
    seen.lock().expect("sound").clear();
    restore_backup("/first", None, "/target", &with, &pacing).expect("whole");
    let last = seen.lock().expect("sound").pop().expect("told");
    assert_eq!(last.done, last.total);

    let executor = Arc::new(SimExecutor::new(3));
    let with = Options {
        executor: Arc::clone(&executor) as _,
        ..with
    };
    let slow = Pacing {
        bytes_per_second: Some(10_000),
        ..Pacing::default()
    };
    let begun = executor.now();
    let report = verify_backups("/first", None, &with, &slow).expect("read");
    let seconds = (executor.now() - begun).as_secs_f64();
    let due = report.bytes as f64 / 10_000.0;
    assert!(
        report.bytes > 20_000 && (due * 0.95..due * 1.3).contains(&seconds),
        "{seconds} s of {due}"
    );
}

/// Every operation of the disk fails once. Answers the failures, and what was found broken.
fn fail_each(fault: Fault) -> (u64, Option<String>) {
    let mut failed = 0;
    for at in 0.. {
        let mut store = Store::new(31, fault);
        store.work(60);
        store.settle();
        store.db.backup(BACKUPS, &dated(1)).expect("made");
        let first = store.truth.clone();
        store.work(30);
        store.settle();
        let (count, met) = (AtomicU64::new(0), Arc::new(AtomicBool::new(false)));
        let is_met = Arc::clone(&met);
        store.disk.set_fault_rule(Some(Arc::new(move |op| {
            let of_backup = op.path.starts_with(BACKUPS);
            let fails = of_backup && count.fetch_add(1, Ordering::Relaxed) == at;
            is_met.fetch_or(fails, Ordering::Relaxed);
            fails.then(Failure::device)
        })));
        let made = store.db.backup(BACKUPS, &dated(2));
        store.disk.set_fault_rule(None);
        assert!(store.db.read_only_cause().is_none(), "operation {at}");
        let whole = |disk: &Arc<SimFs>| {
            let cut = disk.crash(Survival::LoseUnsynced);
            let with = options(&cut, 3, Fault::None);
            let list = list_backups(BACKUPS, &with).expect("read");
            assert!(
                list.damage.is_empty() && !list.backups.is_empty(),
                "{list:?}"
            );
            let report = verify_backups(BACKUPS, None, &with, &told()).expect("read");
            let damage = report.damage.first();
            damage
                .map(|damage| format!("operation {at}: {damage}"))
                .or_else(|| {
                    restore_backup(BACKUPS, Some(1), "/r", &with, &told()).expect("whole");
                    (sound(&cut, "/r").as_ref() != Ok(&first))
                        .then(|| format!("operation {at}: other rows"))
                })
        };
        if let Some(broken) = whole(&store.disk) {
            return (failed, Some(broken));
        }
        let again = store
            .db
            .backup(BACKUPS, &dated(3))
            .expect("the disk is well again");
        if let Some(broken) = whole(&store.disk) {
            return (failed, Some(broken));
        }
        restore_backup(BACKUPS, Some(again.id), "/r", &store.options(), &told()).expect("whole");
        assert_eq!(opened(&store.disk, "/r"), store.truth, "operation {at}");
        match made {
            Ok(_) if !met.load(Ordering::Relaxed) => break,
            // Asking for a length may fail unnoticed: the file is copied anew.
            Ok(_) => {}
            Err(error) => {
                assert!(matches!(error, Error::Io { .. }), "operation {at}: {error}");
                failed += 1;
            }
        }
        assert!(at < 1000);
    }
    (failed, None)
}

#[test]
fn a_failing_disk_fails_the_backup_and_not_the_database() {
    let (failed, broken) = fail_each(Fault::None);
    assert_eq!(broken, None);
    assert!(failed > 20, "{failed} failures");
}

#[test]
fn a_name_whose_sync_has_failed_is_not_believed() {
    let (_, broken) = fail_each(Fault::BackupSharesLeftovers);
    println!("{broken:?}");
    assert!(broken.is_some(), "the planted fault is not noticed");
}

#[test]
fn a_backup_goes_on_where_one_was_broken_off() {
    let mut store = Store::new(14, Fault::None);
    store.work(250);
    store.settle();
    let count = AtomicU64::new(0);
    let stop = Pacing::told(Arc::new(move |_| {
        if count.fetch_add(1, Ordering::Relaxed) < 6 {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    }));
    let options = BackupOptions {
        pacing: stop,
        ..dated(1)
    };
    let broken_off = store.db.backup(BACKUPS, &options);
    assert!(
        matches!(broken_off, Err(Error::Cancelled)),
        "{broken_off:?}"
    );
    let made = store.db.backup(BACKUPS, &dated(2)).expect("made");
    assert!(
        made.new_bytes > 0 && made.new_bytes < made.bytes,
        "{made:?}"
    );
    let cut = store.disk.crash(Survival::LoseUnsynced);
    restore_backup(
        BACKUPS,
        None,
        "/r",
        &self::options(&cut, 1, Fault::None),
        &told(),
    )
    .expect("whole");
    assert_eq!(sound(&cut, "/r").as_ref(), Ok(&store.truth));
}

/// Writers on threads of their own; each backup is one moment: what a writer wrote is a prefix, in every family the same.
#[test]
fn a_backup_of_a_busy_database_is_one_moment() {
    let disk = SimFs::new();
    let with = Options {
        log_segment_bytes: (4096, 16 << 10),
        ..Options::with(disk.clone(), Arc::new(ThreadPool::new(4)))
    };
    let db = Db::open(DIR, with.clone()).expect("opened");
    let names = ["default", "packed", LOG];
    for name in names {
        db.open_cf(name, crate::store::family_options(name))
            .expect("created");
    }
    let stop = AtomicBool::new(false);
    // Batches of each writer that may be written by now: a machine that is busy elsewhere makes no huge database.
    let allowed = AtomicU64::new(100);
    let mut made = Vec::new();
    thread::scope(|scope| {
        for writer in 0..2_u8 {
            let (db, stop, allowed) = (db.clone(), &stop, &allowed);
            scope.spawn(move || {
                let (plain, packed, log) = (db.default_cf(), db.cf("packed"), db.cf(LOG));
                let (packed, log) = (packed.expect("there"), log.expect("there"));
                for n in 1_u64.. {
                    while n > allowed.load(Ordering::Relaxed) && !stop.load(Ordering::Relaxed) {
                        thread::yield_now();
                    }
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let mut batch = basalt_engine::WriteBatch::new();
                    let key = [&[writer][..], &n.to_be_bytes()].concat();
                    batch.put(&plain, &key, &[7; 60]);
                    batch.put(&packed, &[writer], &n.to_be_bytes());
                    batch.append(&log, &[writer], n, &[[9; 30]]);
                    let sync = n % 16 == 0;
                    db.write(batch, WriteOptions { sync }).expect("written");
                }
            });
        }
        for time in 1..=8 {
            let before = made
                .last()
                .map_or(0, |made: &basalt_engine::BackupInfo| made.seq);
            allowed.fetch_add(100, Ordering::Relaxed);
            while db.last_seq().0 < before + 20 {
                thread::yield_now();
            }
            let seq = db.last_seq();
            let backup = db.backup(BACKUPS, &dated(time)).expect("made");
            assert!(backup.seq >= seq.0, "all that was written before is in it");
            made.push(backup);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(db.verify().expect("read").damage.is_empty());
    assert!(
        made.windows(2).all(|pair| pair[0].seq < pair[1].seq),
        "writers went on"
    );
    for backup in made {
        let target = format!("/restored/{}", backup.id);
        restore_backup(BACKUPS, Some(backup.id), &target, &with, &told()).expect("whole");
        let rows = opened(&disk, &target);
        for (writer, last) in &rows["packed"] {
            let last = u64::from_be_bytes(last[..].try_into().expect("eight bytes"));
            for name in ["default", LOG] {
                let of_writer = rows[name].keys().filter(|key| key[0] == writer[0]);
                let indexes =
                    of_writer.map(|key| u64::from_be_bytes(key[1..].try_into().expect("eight")));
                assert!(indexes.eq(1..=last), "{name} of writer {writer:?}");
            }
        }
    }
}
