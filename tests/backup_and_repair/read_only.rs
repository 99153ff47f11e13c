//! Read-only opens: nothing is written, all is read, and who may be beside whom.

use std::{os::unix::process::CommandExt, path::Path, process::Command, sync::Arc};

use basalt_engine::{
    CfOptions, Db, Error, Fault, Ingest, Options, ReadOptions, WriteBatch, WriteOptions,
    fs::{
        SimFs,
        sim::{Failure, Survival},
    },
    verify_dir,
};
use basalt_testkit::Seeds;

use crate::store::{DIR, FREE, LOG, PACKED, Store, contents, family_options, opened, options};

/// From now on every change of the disk fails.
fn freeze(disk: &Arc<SimFs>) {
    disk.set_fault_rule(Some(Arc::new(|op| {
        op.kind.is_change().then(Failure::device)
    })));
}

fn read_only(disk: &Arc<SimFs>, dir: &str) -> Db {
    Db::open_read_only(dir, options(disk, 5, Fault::None)).expect("it opens to be read")
}

#[test]
fn what_a_crash_leaves_is_read_on_a_disk_that_takes_no_write() {
    let mut states = 0;
    for seed in Seeds::new("read_only", 12) {
        let mut store = Store::new(seed, Fault::None);
        for round in 0..6 {
            store.work(60);
            for how in [
                Survival::ProcessDeath,
                Survival::LoseUnsynced,
                Survival::Random { seed: seed ^ round },
            ] {
                let image = store.disk.crash(how);
                let expected = opened(&image, DIR);
                if how == Survival::ProcessDeath {
                    for (name, rows) in &store.truth {
                        let is_free = name == FREE;
                        assert!(is_free || expected[name] == *rows, "seed {seed:#x}: {name}");
                    }
                }
                let before = image.hash();
                freeze(&image);
                let (one, two) = (read_only(&image, DIR), read_only(&image, DIR));
                assert_eq!(contents(&one), expected, "seed {seed:#x}, {how:?}");
                assert_eq!(contents(&two), expected, "seed {seed:#x}, {how:?}");
                let snapshot = one.snapshot();
                let at = ReadOptions {
                    snapshot: Some(snapshot),
                    ..ReadOptions::default()
                };
                for family in one.list_cfs() {
                    let count = one.range(&family, &at).expect("read").count();
                    assert_eq!(count, expected[family.name()].len());
                }
                let report = one.verify().expect("read");
                assert!(report.damage.is_empty(), "{:?}", report.damage);
                drop(at);
                two.close().expect("nothing to do");
                drop(one);
                let report = verify_dir(DIR, &options(&image, 6, Fault::None)).expect("read");
                assert!(report.damage.is_empty(), "{:?}", report.damage);
                assert_eq!(image.hash(), before, "not a byte is changed");
                states += 1;
            }
        }
    }
    assert_eq!(states, 12 * 6 * 3);
}

#[test]
fn every_write_is_refused_by_name() {
    let mut store = Store::new(3, Fault::None);
    store.work(50);
    store.settle();
    let image = store.disk.crash(Survival::ProcessDeath);
    let before = image.hash();
    let db = read_only(&image, DIR);
    let (default, log) = (db.default_cf(), db.cf(LOG).expect("there"));
    let no_sync = WriteOptions::NO_SYNC;
    let mut batch = WriteBatch::new();
    batch.put(&default, b"k", b"v");
    let answers = [
        ("put", db.put(&default, b"k", b"v", WriteOptions::SYNC)),
        ("delete", db.delete(&default, b"k", no_sync)),
        ("range", db.delete_range(&default, b"a", b"b", no_sync)),
        ("append", db.append(&log, b"z", 1, &[b"v"], no_sync)),
        ("submit", db.submit(batch.clone(), no_sync).map(drop)),
        ("nothing", db.write(WriteBatch::new(), no_sync).map(drop)),
        ("flush", db.flush(&default)),
        ("flush_all", db.flush_all()),
        ("compact", db.compact_range(&default, None, None)),
        (
            "create",
            db.create_cf("more", CfOptions::default()).map(drop),
        ),
        (
            "options",
            db.open_cf(PACKED, CfOptions::default()).map(drop),
        ),
        ("drop", db.drop_cf(&db.cf(PACKED).expect("there"))),
        ("ingest", db.ingest(batch_alone(batch)).map(drop)),
        ("sync", db.sync()),
        ("resume", db.resume()),
        (
            "set_cf_options",
            db.set_cf_options(&default, CfOptions::default()),
        ),
    ];
    for (what, answer) in answers {
        let Err(Error::ReadOnly { cause }) = answer else {
            panic!("{what} answers {answer:?}");
        };
        assert!(
            matches!(&*cause, Error::OpenedReadOnly { path } if path == Path::new(DIR)),
            "{what} is refused because of {cause}"
        );
    }
    db.open_cf(PACKED, family_options(PACKED))
        .expect("as it is");
    db.close().expect("nothing to do");
    assert_eq!(image.hash(), before);
}

fn batch_alone(batch: WriteBatch) -> Ingest {
    let mut ingest = Ingest::new();
    ingest.batch(batch);
    ingest
}

#[test]
fn readers_stand_beside_each_other_and_not_beside_a_writer() {
    let mut store = Store::new(4, Fault::None);
    store.work(30);
    store.settle();
    let refused = Db::open_read_only(DIR, store.options());
    assert!(matches!(refused, Err(Error::Locked { .. })), "{refused:?}");
    store.db.checkpoint("/copy").expect("a sound disk");
    let copy = [
        read_only(&store.disk, "/copy"),
        read_only(&store.disk, "/copy"),
    ];
    assert_eq!(contents(&copy[0]), store.truth);
    let refused = Db::open("/copy", store.options());
    assert!(matches!(refused, Err(Error::Locked { .. })), "{refused:?}");
    let [one, two] = copy;
    drop(one);
    let refused = Db::open("/copy", store.options());
    assert!(matches!(refused, Err(Error::Locked { .. })), "{refused:?}");
    // A checkpoint of what is only read.
    two.checkpoint("/again").expect("a sound disk");
    drop(two);
    let db = Db::open("/copy", store.options()).expect("nobody reads it any more");
    let refused = Db::open_read_only("/copy", store.options());
    assert!(matches!(refused, Err(Error::Locked { .. })), "{refused:?}");
    drop(db);
    assert_eq!(opened(&store.disk, "/again"), store.truth);
}

#[test]
fn what_is_no_database_or_damaged_is_refused_as_by_an_open() {
    let disk = SimFs::new();
    let missing = Db::open_read_only("/nowhere", options(&disk, 1, Fault::None));
    assert!(matches!(missing, Err(Error::Io { .. })), "{missing:?}");
    disk.write_raw("/notes", b"").expect("room");
    let foreign = Db::open_read_only("/", options(&disk, 1, Fault::None));
    assert!(
        matches!(foreign, Err(Error::NotADatabase { .. })),
        "{foreign:?}"
    );

    let mut store = Store::new(8, Fault::None);
    store.work(80);
    store.settle();
    let image = store.disk.crash(Survival::ProcessDeath);
    for path in image.files() {
        let bytes = image.read_raw(&path).expect("there").len() as u64;
        for at in (0..bytes).step_by(37) {
            let damaged = image.crash(Survival::ProcessDeath);
            damaged.corrupt(&path, at, 4).expect("within the file");
            let copy = damaged.crash(Survival::ProcessDeath);
            let wrote = Db::open(DIR, options(&copy, 1, Fault::None)).map(|_| ());
            let read = Db::open_read_only(DIR, options(&damaged, 1, Fault::None)).map(|_| ());
            let text = |answer: Result<(), Error>| answer.map_err(|error| error.to_string());
            assert_eq!(text(read), text(wrote), "{} at {at}", path.display());
        }
    }
}

/// Says where the child of the next test finds the database.
const AS_NOBODY: &str = "BASALT_READ_AS_NOBODY";

#[test]
fn a_directory_without_permission_to_write_is_read() {
    if let Ok(dir) = std::env::var(AS_NOBODY) {
        let put = std::fs::write(Path::new(&dir).join("new"), b"");
        assert!(put.is_err(), "this user may write");
        let db = Db::open_read_only(&dir, Options::default()).expect("it opens to be read");
        let value = db.get(&db.default_cf(), b"in the log").expect("read");
        assert_eq!(value.as_deref(), Some(&b"2"[..]));
        let value = db.get(&db.default_cf(), b"in a table").expect("read");
        assert_eq!(value.as_deref(), Some(&b"1"[..]));
        println!("read as another user");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("db");
    let db = Db::open(&path, Options::default()).expect("opened");
    let default = db.default_cf();
    db.put(&default, b"in a table", b"1", WriteOptions::SYNC)
        .expect("written");
    db.flush(&default).expect("written");
    db.put(&default, b"in the log", b"2", WriteOptions::SYNC)
        .expect("written");
    db.close().expect("closed");
    let mode = |path: &Path, mode: u32| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(path, mode).expect("it is ours");
    };
    for file in std::fs::read_dir(&path).expect("listed") {
        mode(&file.expect("listed").path(), 0o444);
    }
    mode(&path, 0o555);
    mode(dir.path(), 0o755);
    // Whoever runs everything may write anywhere: somebody else reads then. The program is copied to where he may go.
    let program = dir.path().join("program");
    std::fs::copy(std::env::current_exe().expect("it runs"), &program).expect("room");
    mode(&program, 0o755);
    let mut child = Command::new(&program);
    child.args(["--exact", "--nocapture"]);
    child.arg("read_only::a_directory_without_permission_to_write_is_read");
    child.env(AS_NOBODY, &path).current_dir("/");
    let is_root = std::fs::write(path.join("probe"), b"").is_ok();
    if is_root {
        std::fs::remove_file(path.join("probe")).expect("it is ours");
        child.uid(65_534).gid(65_534);
    }
    let output = child.output().expect("it starts");
    mode(&path, 0o755);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("read as another user"),
        "{output:?}"
    );
}
