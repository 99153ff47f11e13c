//! Repairs: each kind of file is removed, flipped and cut, and what can be read comes back.
//!
//! After each: nothing was changed by the dry run, whose plan is the one that is carried out; the database opens and
//! verifies; no row is there that was never written; what the report does not doubt is as it was; every file is kept or in
//! `lost/`.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use basalt_engine::{
    ByteOrderOf, CfOptions, Db, Error, Fate, Fault, RepairOptions, RepairReport, U64Add,
    WriteOptions,
    fs::{
        Fs, SimFs,
        sim::{Failure, OpKind, Survival, fail_range},
    },
    repair_dir, verify_dir,
};
use basalt_testkit::Seeds;

use crate::store::{DIR, LARGE, LOG, Store, Truth, contents, options};

fn dry() -> RepairOptions {
    RepairOptions {
        dry_run: true,
        ..RepairOptions::default()
    }
}

fn repaired(disk: &Arc<SimFs>, how: &RepairOptions) -> RepairReport {
    repair_dir(DIR, &options(disk, 51, Fault::None), how).expect("a database")
}

/// What is there after a repair; it opens and is sound.
fn sound(disk: &Arc<SimFs>, case: &str) -> Truth {
    let with = options(disk, 52, Fault::None);
    let report = verify_dir(DIR, &with).unwrap_or_else(|error| panic!("{case}: {error}"));
    assert!(report.damage.is_empty(), "{case}: {:?}", report.damage);
    let db = Db::open(DIR, with).unwrap_or_else(|error| panic!("{case}: {error}"));
    let report = db.verify().expect("read");
    assert!(report.damage.is_empty(), "{case}: {:?}", report.damage);
    let rows = contents(&db);
    // It goes on as any database.
    let default = db.default_cf();
    db.put(&default, b"after", b"it", WriteOptions::SYNC)
        .unwrap_or_else(|error| panic!("{case}: {error}"));
    db.flush_all().expect("written");
    db.compact_range(&default, None, None).expect("compacted");
    db.close().expect("closed");
    rows
}

/// Keys that are not as they were, by family.
fn different(is: &Truth, was: &Truth) -> BTreeMap<String, usize> {
    let mut count = BTreeMap::new();
    for (name, rows) in was {
        let found = is.get(name);
        let get = |key: &Vec<u8>| found.and_then(|found| found.get(key));
        let lost = rows
            .iter()
            .filter(|(key, value)| get(key) != Some(value))
            .count();
        let more = found.map_or(0, |found| {
            found.keys().filter(|key| !rows.contains_key(*key)).count()
        });
        count.insert(name.clone(), lost + more);
    }
    count
}

/// One case of damage.
fn check(store: &Store, disk: &Arc<SimFs>, case: &str) -> (RepairReport, Truth) {
    let before = disk.hash();
    let names = |dir: &str| disk.list_dir(Path::new(dir)).unwrap_or_default();
    let plan = repaired(disk, &dry());
    assert_eq!(disk.hash(), before, "{case}: a dry run changes nothing");
    let had = names(DIR);
    let report = repaired(disk, &RepairOptions::default());
    assert_eq!(report.to_string(), plan.to_string(), "{case}");
    if report.sound && had.iter().any(|name| name == "LOCK") {
        assert_eq!(
            disk.hash(),
            before,
            "{case}: a sound database is left alone"
        );
    }
    let (has, lost) = (names(DIR), names("/db/lost"));
    for name in &had {
        assert!(
            has.contains(name) || lost.contains(name),
            "{case}: {name} is gone"
        );
    }
    for file in &report.files {
        let is_aside = matches!(file.fate, Fate::PutAside { .. } | Fate::Salvaged { .. });
        assert!(!is_aside || lost.contains(&file.name), "{case}: {file}");
    }
    let rows = sound(disk, case);
    let again = repaired(disk, &RepairOptions::default());
    assert!(again.sound, "{case}: {again}");
    for (name, rows) in &rows {
        for (key, value) in rows {
            let is_known = store.written.iter().any(|(family, written, was)| {
                let is_family = family == name || name.starts_with("recovered-");
                is_family && written == key && was == value
            });
            assert!(is_known, "{case}: {name} has a row that was never written");
        }
    }
    if report.doubts.is_empty() {
        let off: usize = different(&rows, &store.truth).values().sum();
        assert_eq!(off, 0, "{case}: no doubt is told of\n{report}");
    }
    (report, rows)
}

fn kind(name: &str) -> &'static str {
    match name {
        "CURRENT" | "LOCK" | "MARK" | "RESERVE" => "small",
        name if name.starts_with("MANIFEST") => "manifest",
        name if name.ends_with(".log") => "log",
        name if name.ends_with(".val") => "values",
        _ => "table",
    }
}

/// False for a file that the manifest does not list (any more), and the next open removes.
fn is_listed(image: &Arc<SimFs>, path: &Path) -> bool {
    let disk = image.crash(Survival::ProcessDeath);
    disk.truncate(path, 0).expect("there");
    let report = verify_dir(DIR, &options(&disk, 53, Fault::None)).expect("read");
    !report.damage.is_empty()
}

fn damaged_store(seed: u64) -> (Store, Arc<SimFs>) {
    let mut store = Store::new(seed, Fault::None);
    store.work(220);
    store.settle();
    let image = store.disk.crash(Survival::ProcessDeath);
    (store, image)
}

#[test]
fn flipped_bits_cost_no_more_than_what_they_hit() {
    let mut cases: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for seed in Seeds::new("repair_flips", 2) {
        let (store, image) = damaged_store(seed);
        for path in image.files() {
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .expect("plain");
            let len = image.read_raw(&path).expect("there").len() as u64;
            let count = if kind(name) == "log" { 14 } else { 24 };
            let step = usize::try_from((len / count).max(1)).expect("small");
            for at in (0..len).step_by(step) {
                let disk = image.crash(Survival::ProcessDeath);
                disk.corrupt(&path, at, 1 << (at % 8)).expect("within");
                let case = format!("seed {seed:#x}: {name} flipped at {at} of {len}");
                let (report, rows) = check(&store, &disk, &case);
                let (all, repaired) = cases.entry(kind(name)).or_default();
                *all += 1;
                *repaired += u64::from(!report.sound);
                let off = different(&rows, &store.truth);
                for (family, off) in off {
                    // One bit is put right in tables and manifests; a record of the log has four operations, and a hole in an
                    // append family takes what is before it.
                    let is_cut = family == LOG && report.to_string().contains("are missing; kept");
                    let most = match kind(name) {
                        "log" if is_cut => usize::MAX,
                        "log" => 40,
                        _ => 0,
                    };
                    assert!(off <= most, "{case}: {off} rows of {family}\n{report}");
                }
            }
        }
    }
    println!("{cases:?}");
    for kind in ["manifest", "log", "table", "values", "small"] {
        assert!(
            cases[kind].0 > 40 && cases[kind].1 > 15,
            "{kind}: {:?}",
            cases[kind]
        );
    }
}

/// Runs of zeros, which cannot be put right, cost the block that they hit, or two; where that is one of range deletes, what
/// they hid is back.
#[test]
fn overwritten_bytes_cost_no_more_than_the_blocks_they_hit() {
    let (mut cases, mut lost) = (0, 0);
    let (store, image) = damaged_store(17);
    for path in image.files() {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .expect("plain");
        let bytes = image.read_raw(&path).expect("there");
        let is_kind = matches!(kind(name), "table" | "values");
        if !is_kind || bytes.len() < 200 || !is_listed(&image, &path) {
            continue;
        }
        for at in (0..bytes.len() - 64).step_by(97) {
            let disk = image.crash(Survival::ProcessDeath);
            let mut zeroed = bytes.clone();
            zeroed[at..at + 64].fill(0);
            disk.write_raw(&path, &zeroed).expect("room");
            let case = format!("{name} zeroed at {at} of {}", bytes.len());
            let (report, rows) = check(&store, &disk, &case);
            assert!(!report.sound, "{case}");
            let off: usize = different(&rows, &store.truth).values().sum();
            assert!(off <= 60, "{case}: {off} rows\n{report}");
            cases += 1;
            lost += off;
        }
    }
    println!("{cases} cases, {lost} rows not as they were");
    assert!(cases > 50 && lost > 0, "{cases}, {lost}");
}

#[test]
fn files_that_are_cut_or_missing_leave_the_rest() {
    let mut cases = 0;
    for seed in Seeds::new("repair_cuts", 3) {
        let (store, image) = damaged_store(seed);
        for path in image.files() {
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .expect("plain");
            let len = image.read_raw(&path).expect("there").len() as u64;
            for cut in [
                None,
                Some(0),
                Some(len / 3),
                Some(len / 2),
                Some(len.saturating_sub(1)),
            ] {
                let disk = image.crash(Survival::ProcessDeath);
                match cut {
                    None => disk.remove_file(&path).expect("there"),
                    Some(len) => disk.truncate(&path, len).expect("there"),
                }
                disk.settle();
                let case = format!("seed {seed:#x}: {name} cut to {cut:?} of {len}");
                let (report, rows) = check(&store, &disk, &case);
                cases += 1;
                let off = different(&rows, &store.truth);
                if name == "CURRENT" || name == "LOCK" || name == "RESERVE" {
                    assert_eq!(off.values().sum::<usize>(), 0, "{case}\n{report}");
                }
                if kind(name) == "table" && !report.sound {
                    let hit = off.values().filter(|off| **off > 0).count();
                    assert!(hit <= 1, "{case}: {off:?}\n{report}");
                }
            }
        }
    }
    println!("{cases} cases");
    assert!(cases > 150);
}

/// What the device does not give is damage like any other.
#[test]
fn bad_sectors_are_read_past() {
    let (store, image) = damaged_store(23);
    let mut cases = 0;
    for path in image.files() {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .expect("plain");
        let len = image.read_raw(&path).expect("there").len() as u64;
        let is_kind = matches!(kind(name), "log" | "table" | "manifest" | "values");
        if !is_kind || len < 500 || !is_listed(&image, &path) {
            continue;
        }
        let disk = image.crash(Survival::ProcessDeath);
        let (bad, at) = (path.clone(), len / 3);
        let fails = move |op: &basalt_engine::fs::sim::Op| {
            let covers = op.offset <= at && (op.len == 0 || at < op.offset + op.len);
            op.kind == OpKind::Read && op.path == bad && covers
        };
        disk.set_fault_rule(Some(fail_range(fails, 0, u64::MAX, Failure::device)));
        let report = repaired(&disk, &RepairOptions::default());
        disk.set_fault_rule(None);
        let case = format!("{name}, bad at {at} of {len}");
        assert!(!report.sound, "{case}");
        let rows = sound(&disk, &case);
        let off: usize = different(&rows, &store.truth).values().sum();
        assert!(off == 0 || !report.doubts.is_empty(), "{case}\n{report}");
        cases += 1;
    }
    assert!(cases > 8, "{cases}");
}

/// Several files at once, anywhere.
#[test]
fn much_damage_at_once_is_survived() {
    let mut changed = 0;
    for seed in Seeds::new("repair_much", 40) {
        let (mut store, image) = damaged_store(seed % 5);
        store.rng = basalt_testkit::Rng::new(seed);
        let files = image.files();
        let hits = 1 + store.rng.below(8);
        let mut case = format!("seed {seed:#x}:");
        for _ in 0..hits {
            let path = store.rng.pick(&files).clone();
            let len = image.read_raw(&path).map_or(0, |bytes| bytes.len() as u64);
            match store.rng.below(6) {
                0 => drop(image.remove_file(&path)),
                1 => drop(image.truncate(&path, store.rng.below(len + 1))),
                _ => drop(image.corrupt(&path, store.rng.below(len.max(1)), store.rng.byte())),
            }
            case += &format!(" {}", path.display());
        }
        image.settle();
        let has_data = image.files().iter().any(|path| {
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .expect("plain");
            path.starts_with(DIR) && matches!(kind(name), "manifest" | "log" | "table" | "values")
        });
        assert!(has_data, "{case}");
        let (report, _) = check(&store, &image, &case);
        changed += u64::from(!report.sound);
    }
    assert!(changed > 20, "{changed}");
}

/// What a repair comes to does not depend on being cut off, however often.
#[test]
fn a_repair_that_is_cut_off_is_begun_again() {
    let (store, image) = damaged_store(9);
    for (suffix, flips) in [(".sst", 2), (".val", 2), (".log", 1), ("manifest", 1)] {
        let disk = image.crash(Survival::ProcessDeath);
        let files = disk.files();
        let mut hits = 0;
        for path in files.iter().filter(|path| {
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .expect("plain");
            name.ends_with(suffix) || kind(name) == suffix
        }) {
            let len = disk.read_raw(path).expect("there").len() as u64;
            if len > 400 && hits < flips {
                disk.corrupt(path, len / 4, 4).expect("within");
                hits += 1;
            }
        }
        assert_eq!(hits, flips, "{suffix}");
        let whole = disk.crash(Survival::ProcessDeath);
        let (_, expected) = check(&store, &whole, suffix);
        let images = Arc::new(std::sync::Mutex::new(Vec::new()));
        let list = Arc::clone(&images);
        disk.set_observer(Some(Arc::new(move |disk, index, _| {
            let mut list = list.lock().expect("sound");
            for how in [
                Survival::LoseUnsynced,
                Survival::KeepAll,
                Survival::Random { seed: index },
                Survival::Random { seed: !index },
            ] {
                list.push(disk.crash(how));
            }
        })));
        let report = repaired(&disk, &RepairOptions::default());
        assert!(!report.sound);
        disk.set_observer(None);
        let done = disk.crash(Survival::LoseUnsynced);
        assert_eq!(sound(&done, suffix), expected, "durable when it returns");
        let images = std::mem::take(&mut *images.lock().expect("sound"));
        assert!(images.len() > 60, "{}", images.len());
        for (number, image) in images.into_iter().enumerate() {
            let case = format!("{suffix}, image {number}");
            repaired(&image, &RepairOptions::default());
            assert_eq!(sound(&image, &case), expected, "{case}");
        }
    }
}

#[test]
fn without_a_manifest_the_caller_may_name_the_family_of_all_tables() {
    let mut store = Store::on(&SimFs::new(), 12, Fault::None, &[]);
    // Puts alone: no deleted row can show again.
    let default = store.db.default_cf();
    for n in 0..600_u32 {
        let (key, value) = (format!("key{:03}", n % 250), format!("value {n}"));
        store
            .db
            .put(
                &default,
                key.as_bytes(),
                value.as_bytes(),
                WriteOptions::NO_SYNC,
            )
            .expect("written");
        let row = (
            "default".to_owned(),
            key.clone().into_bytes(),
            value.clone().into_bytes(),
        );
        store.written.insert(row);
        store
            .truth
            .get_mut("default")
            .expect("there")
            .insert(key.into(), value.into());
        if n % 100 == 99 {
            store.db.flush(&default).expect("written");
        }
        if n == 350 {
            store
                .db
                .compact_range(&default, None, None)
                .expect("written");
        }
    }
    store.settle();
    let image = store.disk.crash(Survival::ProcessDeath);
    for path in image.files() {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .expect("plain");
        if name.starts_with("MANIFEST") || name == "CURRENT" {
            image.remove_file(&path).expect("there");
        }
    }
    image.settle();
    let blind = image.crash(Survival::ProcessDeath);
    let report = repaired(&blind, &RepairOptions::default());
    assert!(report.to_string().contains("name their family"), "{report}");
    let rows = sound(&blind, "blind");
    assert!(rows["default"].len() < store.truth["default"].len());
    let named = RepairOptions {
        family_of_strays: Some("default".to_owned()),
        ..RepairOptions::default()
    };
    let report = repaired(&image, &named);
    assert!(
        report.to_string().contains("merged into \"default\""),
        "{report}"
    );
    assert_eq!(sound(&image, "named"), store.truth);
}

/// Which operator a family has is in the manifest alone: without that, operands are kept until it is given again.
#[test]
fn operands_outlive_the_loss_of_the_manifest() {
    let disk = SimFs::new();
    let add = || CfOptions::default().merge_operator(Arc::new(U64Add(ByteOrderOf::LittleEndian)));
    let db = Db::open(DIR, options(&disk, 15, Fault::None)).expect("an empty disk");
    let sums = db.open_cf("default", add()).expect("a family");
    for n in 1..=20_u64 {
        db.merge(&sums, b"sum", &n.to_le_bytes(), WriteOptions::SYNC)
            .expect("written");
        if n == 10 {
            db.flush(&sums).expect("written");
        }
    }
    let image = disk.crash(Survival::ProcessDeath);
    drop(sums);
    drop(db);
    let lost = |name: &str| name.starts_with("MANIFEST") || name == "CURRENT";
    for path in image.files() {
        let name = path.file_name().and_then(|name| name.to_str());
        if lost(name.expect("plain")) {
            image.remove_file(&path).expect("there");
        }
    }
    image.settle();
    let named = RepairOptions {
        family_of_strays: Some("default".to_owned()),
        ..RepairOptions::default()
    };
    repaired(&image, &named);
    let db = Db::open(DIR, options(&image, 16, Fault::None)).expect("it opens");
    assert!(
        db.get(&db.default_cf(), b"sum").is_err(),
        "nobody can add yet"
    );
    let sums = db.open_cf("default", add()).expect("an operator is given");
    let sum = db.get(&sums, b"sum").expect("readable").expect("there");
    assert_eq!(sum, &210_u64.to_le_bytes());
}

/// Rows whose values are beside the tables come back whole from tables of which no manifest tells, and without those that
/// cannot be read.
#[test]
fn values_of_stray_tables_are_put_back_into_them() {
    let mut store = Store::on(&SimFs::new(), 14, Fault::None, &[LARGE]);
    let large = store.family(LARGE);
    for n in 0..120_u32 {
        let (key, value) = (
            format!("key{n:03}").into_bytes(),
            vec![n.to_le_bytes()[0]; 90],
        );
        store
            .db
            .put(&large, &key, &value, WriteOptions::NO_SYNC)
            .expect("written");
        let row = (LARGE.to_owned(), key.clone(), value.clone());
        store.written.insert(row);
        store
            .truth
            .get_mut(LARGE)
            .expect("there")
            .insert(key, value);
        if n % 40 == 39 {
            store.db.flush(&large).expect("written");
        }
    }
    store.settle();
    let image = store.disk.crash(Survival::ProcessDeath);
    let is = |path: &std::path::PathBuf, what: &str| path.to_string_lossy().contains(what);
    let files = image.files();
    for path in files
        .iter()
        .filter(|f| is(f, "MANIFEST") || is(f, "CURRENT"))
    {
        image.remove_file(path).expect("there");
    }
    // Flushed segments are reused, so that the tables alone have the rows.
    for path in files.iter().filter(|path| is(path, ".log")) {
        image.remove_file(path).expect("there");
    }
    image.settle();
    let named = RepairOptions {
        family_of_strays: Some(LARGE.to_owned()),
        ..RepairOptions::default()
    };
    let whole = image.crash(Survival::ProcessDeath);
    repaired(&whole, &named);
    assert_eq!(sound(&whole, "whole")[LARGE], store.truth[LARGE]);
    let values: Vec<_> = files.iter().filter(|path| is(path, ".val")).collect();
    assert_eq!(values.len(), 3);
    image.remove_file(values[1]).expect("there");
    image.settle();
    let report = repaired(&image, &named);
    assert!(report.to_string().contains("40 of 40 rows"), "{report}");
    assert_eq!(sound(&image, "one is missing")[LARGE].len(), 80);
}

#[test]
fn what_is_no_database_is_refused_and_a_sound_one_left_alone() {
    let disk = SimFs::new();
    let with = options(&disk, 1, Fault::None);
    disk.create_dir_all(Path::new(DIR)).expect("room");
    let answer = repair_dir(DIR, &with, &RepairOptions::default());
    assert!(
        matches!(answer, Err(Error::NotADatabase { .. })),
        "{answer:?}"
    );
    disk.write_raw("/db/RESTORING", b"").expect("room");
    disk.write_raw("/db/000007.sst", b"").expect("room");
    let answer = repair_dir(DIR, &with, &RepairOptions::default());
    assert!(
        matches!(answer, Err(Error::NotADatabase { .. })),
        "{answer:?}"
    );

    for seed in Seeds::new("repair_sound", 6) {
        let mut store = Store::new(seed, Fault::None);
        store.work(120);
        let open = repair_dir(DIR, &store.options(), &RepairOptions::default());
        assert!(matches!(open, Err(Error::Locked { .. })), "{open:?}");
        for how in [
            Survival::ProcessDeath,
            Survival::LoseUnsynced,
            Survival::Random { seed },
        ] {
            let image = store.disk.crash(how);
            image.settle();
            let before = image.hash();
            for options in [dry(), RepairOptions::default()] {
                let report = repaired(&image, &options);
                assert!(report.sound, "{how:?}: {report}");
            }
            assert_eq!(image.hash(), before);
        }
    }
}

/// A format that is not known is not damage.
#[test]
fn a_later_format_is_not_repaired() {
    let (_, image) = damaged_store(4);
    let manifest = image
        .files()
        .into_iter()
        .find(|path| path.to_string_lossy().contains("MANIFEST"));
    let manifest = manifest.expect("there");
    let mut bytes = image.read_raw(&manifest).expect("there");
    bytes[12] = 99;
    let crc = crc(&bytes[12..64]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    image.write_raw(&manifest, &bytes).expect("room");
    let before = image.hash();
    let answer = repair_dir(
        DIR,
        &options(&image, 1, Fault::None),
        &RepairOptions::default(),
    );
    assert!(
        matches!(answer, Err(Error::NotADatabase { .. })),
        "{answer:?}"
    );
    assert_eq!(image.hash(), before);
}

/// CRC-32 (IEEE).
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(crc & 1))
        })
    })
}
