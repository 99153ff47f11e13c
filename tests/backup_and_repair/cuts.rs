//! Backups, their removal and restores, cut at every boundary between two changes of the disk.
//!
//! At each boundary images are taken as a crash there could leave them. In each, every backup that is listed must be whole,
//! every one acknowledged must be listed, the next backup must succeed, and a target of a restore is nothing, refused, or
//! whole. With a rule of the engine broken on purpose, this must be noticed.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use basalt_engine::{
    BackupOptions, Db, Error, Fault, Pacing, delete_backup,
    fs::{Fs, SimFs, sim::Survival},
    list_backups, purge_backups, restore_backup, verify_backups,
};
use basalt_testkit::Seeds;

use crate::store::{DIR, Store, Truth, contents, options};

pub(crate) const BACKUPS: &str = "/backups";
const TARGET: &str = "/target";

/// What must be found in an image.
#[derive(Default)]
struct Expected {
    /// Acknowledged, by id.
    done: BTreeMap<u64, Truth>,
    /// Of these, those that are being removed.
    going: BTreeSet<u64>,
    /// In the making.
    coming: Option<Truth>,
    /// What is restored now, and whether that has been acknowledged.
    restoring: Option<(Truth, bool)>,
    seen: HashSet<u64>,
    images: u64,
    whole_targets: u64,
    refused_targets: u64,
    broken: Option<String>,
}

type Shared = Arc<Mutex<Expected>>;

fn lock(shared: &Shared) -> MutexGuard<'_, Expected> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a panic or an error says.
fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.unwrap_or_else(|| "a panic".to_owned())
    })
}

/// What the database in `dir` shows; it must be sound.
pub(crate) fn sound(disk: &Arc<SimFs>, dir: &str) -> Result<Truth, String> {
    caught(|| {
        let db = Db::open(dir, options(disk, 99, Fault::None)).map_err(|e| e.to_string())?;
        let damage = db.verify().map_err(|e| e.to_string())?.damage;
        match damage.first() {
            None => Ok(contents(&db)),
            Some(damage) => Err(damage.to_string()),
        }
    })?
}

fn text(error: Error) -> String {
    error.to_string()
}

/// Checks the backups in an image.
fn check_backups(disk: &Arc<SimFs>, expected: &Expected, deep: bool) -> Result<(), String> {
    if disk.list_dir(Path::new(BACKUPS)).is_err() {
        return if expected.done.is_empty() {
            Ok(())
        } else {
            Err("the directory of backups is gone".into())
        };
    }
    let with = options(disk, 17, Fault::None);
    let list = list_backups(BACKUPS, &with).map_err(text)?;
    if let Some(damage) = list.damage.first() {
        return Err(format!("listed: {damage}"));
    }
    let ids: BTreeSet<u64> = list.backups.iter().map(|backup| backup.id).collect();
    for id in expected.done.keys() {
        if !ids.contains(id) && !expected.going.contains(id) {
            return Err(format!("backup {id} is gone"));
        }
    }
    let report = verify_backups(BACKUPS, None, &with, &Pacing::default()).map_err(text)?;
    if let Some(damage) = report.damage.first() {
        return Err(format!("verified: {damage}"));
    }
    if !deep {
        return Ok(());
    }
    for id in ids {
        let truth = expected.done.get(&id).or(expected.coming.as_ref());
        let truth = truth.ok_or_else(|| format!("backup {id} was never made"))?;
        let target = format!("/restored-{id}");
        restore_backup(BACKUPS, Some(id), &target, &with, &Pacing::default()).map_err(text)?;
        if sound(disk, &target)? != *truth {
            return Err(format!("backup {id} holds something else"));
        }
    }
    Ok(())
}

/// Life goes on after the crash: the next backup is made, and survives a power cut, with all before it.
fn check_next(disk: &Arc<SimFs>, fault: Fault) -> Result<(), String> {
    let (id, truth) = caught(|| {
        let db = Db::open(DIR, options(disk, 23, fault)).map_err(text)?;
        let made = db
            .backup(BACKUPS, &BackupOptions::default())
            .map_err(text)?;
        Ok::<_, String>((made.id, contents(&db)))
    })??;
    let cut = disk.crash(Survival::LoseUnsynced);
    let with = options(&cut, 29, Fault::None);
    let report = verify_backups(BACKUPS, None, &with, &Pacing::default()).map_err(text)?;
    if let Some(damage) = report.damage.first() {
        return Err(format!("after the next backup: {damage}"));
    }
    restore_backup(BACKUPS, Some(id), "/next", &with, &Pacing::default()).map_err(text)?;
    if sound(&cut, "/next")? == truth {
        Ok(())
    } else {
        Err("the next backup holds something else".into())
    }
}

/// Checks the target of a restore: not begun, refused by name, or whole.
fn check_target(disk: &Arc<SimFs>, expected: &mut Expected) -> Result<(), String> {
    let Some((truth, acknowledged)) = expected.restoring.clone() else {
        return Ok(());
    };
    let names = disk.list_dir(Path::new(TARGET)).unwrap_or_default();
    if names.iter().all(|name| name == "LOCK") {
        return if acknowledged {
            Err("what was restored is gone".into())
        } else {
            Ok(())
        };
    }
    match Db::open_read_only(TARGET, options(disk, 31, Fault::None)) {
        Err(Error::NotADatabase { what, .. }) if what.contains("RESTORING") && !acknowledged => {
            let again = Db::open(TARGET, options(disk, 31, Fault::None)).map(drop);
            expected.refused_targets += 1;
            match again {
                Err(Error::NotADatabase { .. }) => Ok(()),
                other => Err(format!("an open to write answers {other:?}")),
            }
        }
        Err(error) => Err(format!(
            "a target that is neither refused by name nor whole: {error}"
        )),
        Ok(db) => {
            drop(db);
            expected.whole_targets += 1;
            if sound(disk, TARGET)? == truth {
                Ok(())
            } else {
                Err("what was restored is something else".into())
            }
        }
    }
}

/// Takes images at every boundary from now on.
fn watch(disk: &Arc<SimFs>, shared: &Shared, seed: u64, fault: Fault) {
    let shared = Arc::downgrade(shared);
    disk.set_observer(Some(Arc::new(move |disk, index, op| {
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let mut expected = lock(&shared);
        if expected.broken.is_some() {
            return;
        }
        let torn = |n: u64| Survival::Random {
            seed: seed ^ (index * 8 + n),
        };
        let ways = [
            Survival::LoseUnsynced,
            Survival::KeepAll,
            Survival::ProcessDeath,
            torn(1),
            torn(2),
        ];
        for how in ways {
            let image = disk.crash(how);
            if !expected.seen.insert(image.hash()) {
                continue;
            }
            expected.images += 1;
            let deep = expected.images.is_multiple_of(3);
            let copy = || image.crash(Survival::ProcessDeath);
            let checked = check_backups(&copy(), &expected, deep)
                .and_then(|()| {
                    if deep {
                        check_next(&copy(), fault)
                    } else {
                        Ok(())
                    }
                })
                .and_then(|()| check_target(&copy(), &mut expected));
            if let Err(why) = checked {
                expected.broken = Some(format!("seed {seed:#x}, before {op}, {how:?}: {why}"));
                return;
            }
        }
    })));
}

/// What is done, with everything that a crash may leave on the way.
fn run(seed: u64, fault: Fault) -> Shared {
    let mut store = Store::new(seed, fault);
    let shared = Shared::default();
    let told = |change: &dyn Fn(&mut Expected)| {
        let mut expected = lock(&shared);
        change(&mut expected);
        expected.broken.is_none()
    };
    for round in 1..=4_u64 {
        store.work(40);
        store.settle();
        if !told(&|e| e.coming = Some(store.truth.clone())) {
            return shared;
        }
        watch(&store.disk, &shared, seed ^ round, fault);
        let options = BackupOptions {
            flush: round == 3,
            ..BackupOptions::default()
        };
        let made = store.db.backup(BACKUPS, &options).expect("a sound disk");
        told(&|e| {
            let truth = e.coming.take().expect("set before");
            e.done.insert(made.id, truth);
        });
        if round == 3 {
            told(&|e| {
                e.going.insert(1);
            });
            delete_backup(BACKUPS, 1, &store.options()).expect("a sound disk");
            told(&|e| {
                e.done.remove(&1);
            });
        }
        store.disk.set_observer(None);
    }
    let newest = lock(&shared)
        .done
        .last_key_value()
        .map(|(_, truth)| truth.clone());
    told(&|e| e.restoring = newest.clone().map(|truth| (truth, false)));
    watch(&store.disk, &shared, seed ^ 77, fault);
    restore_backup(BACKUPS, None, TARGET, &store.options(), &Pacing::default()).expect("sound");
    told(&|e| {
        if let Some((_, acknowledged)) = &mut e.restoring {
            *acknowledged = true;
        }
        let last = e.done.pop_last().expect("four were made");
        e.going.extend(e.done.keys());
        e.done.insert(last.0, last.1);
    });
    let freed = purge_backups(BACKUPS, 1, &store.options()).expect("a sound disk");
    assert!(
        freed > 0 || fault != Fault::None,
        "seed {seed:#x}: nothing was freed"
    );
    store.disk.set_observer(None);
    shared
}

#[test]
fn a_backup_is_whole_or_absent_and_a_restore_whole_or_refused_at_every_cut() {
    let (mut images, mut whole, mut refused) = (0, 0, 0);
    for seed in Seeds::new("cuts", 3) {
        let shared = run(seed, Fault::None);
        let expected = lock(&shared);
        assert_eq!(expected.broken, None);
        images += expected.images;
        whole += expected.whole_targets;
        refused += expected.refused_targets;
    }
    println!("{images} images, of targets {whole} whole and {refused} refused");
    assert!(
        images > 1000 && whole > 10 && refused > 50,
        "{images}, {whole}, {refused}"
    );
}

#[test]
fn rules_broken_on_purpose_are_noticed() {
    for fault in [
        Fault::BackupUnsyncedCopy,
        Fault::BackupFilesBeforeRecord,
        Fault::BackupRemovesShared,
        Fault::RestoreUnsynced,
        Fault::RestoreUnmarked,
    ] {
        let found = Seeds::new("cuts_planted", 8).find_map(|seed| {
            let shared = run(seed, fault);
            lock(&shared).broken.clone()
        });
        println!("{fault:?}: {found:?}");
        assert!(found.is_some(), "{fault:?} is not noticed");
    }
}
