//! Exports of ranges, and ingests that hold nobody up.

use std::{
    ops::ControlFlow,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use basalt_engine::{
    Db, Error, ExportOptions, Fault, Ingest, Pacing, ReadOptions, TableFile, exported_files,
    fs::{Fs, SimFs, sim::Survival},
};
use basalt_testkit::Seeds;

use crate::store::{DIR, LOG, PACKED, Rows, Store, contents, options};

const OUT: &str = "/out";

fn small() -> ExportOptions {
    ExportOptions {
        file_bytes: 1000,
        ..ExportOptions::default()
    }
}

fn ingested(disk: &Arc<SimFs>, dir: &str, files: Vec<TableFile>) -> Rows {
    let db = Db::open(dir, options(disk, 4, Fault::None)).expect("an empty directory");
    let mut ingest = Ingest::new();
    for file in files {
        ingest.table(&db.default_cf(), file);
    }
    db.ingest(ingest).expect("taken in");
    assert!(db.verify().expect("read").damage.is_empty());
    contents(&db).remove("default").expect("there")
}

#[test]
fn a_range_as_of_a_snapshot_goes_out_and_comes_in_somewhere_else() {
    let mut files_seen = 0;
    for seed in Seeds::new("export", 6) {
        let mut store = Store::new(seed, Fault::None);
        store.work(200);
        let (lower, upper) = (b"key050".to_vec(), b"key250".to_vec());
        for name in ["default", PACKED] {
            let family = store.family(name);
            let mut expected = store.truth[name].clone();
            expected.retain(|key, _| (&lower..&upper).contains(&key));
            let range = ReadOptions {
                snapshot: Some(store.db.snapshot()),
                lower: Some(lower.clone()),
                upper: Some(upper.clone()),
            };
            store.work(60);
            let out = format!("{OUT}/{name}");
            let files = store
                .db
                .export(&family, &range, &out, &small())
                .expect("written");
            let entries: u64 = files.iter().map(TableFile::entries).sum();
            assert_eq!(entries, expected.len() as u64);
            files_seen += files.len();
            let fs = Arc::clone(&store.disk) as Arc<dyn Fs>;
            let found = exported_files(&fs, &out).expect("sound");
            assert_eq!(found.len(), files.len());
            assert_eq!(
                ingested(&store.disk, &format!("/in/{name}"), found),
                expected,
                "{seed:#x}"
            );
            let again = store.db.export(&family, &range, &out, &small());
            assert!(matches!(again, Err(Error::InvalidArgument(_))), "{again:?}");
        }
        let nothing = ReadOptions {
            lower: Some(b"zzz".to_vec()),
            ..ReadOptions::default()
        };
        let default = store.db.default_cf();
        let files = store
            .db
            .export(&default, &nothing, "/none", &small())
            .expect("nothing");
        assert!(files.is_empty());
        let log = store.family(LOG);
        let refused = store
            .db
            .export(&log, &ReadOptions::default(), "/log", &small());
        assert!(
            matches!(refused, Err(Error::InvalidArgument(_))),
            "{refused:?}"
        );
    }
    assert!(files_seen > 15, "{files_seen}");
}

#[test]
fn an_export_is_complete_or_not_taken_for_one_at_every_cut() {
    let mut store = Store::new(77, Fault::None);
    store.work(250);
    store.settle();
    let expected = store.truth["default"].clone();
    let (whole, absent) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (count_whole, count_absent, truth) =
        (Arc::clone(&whole), Arc::clone(&absent), expected.clone());
    store
        .disk
        .set_observer(Some(Arc::new(move |disk, index, _| {
            for how in [
                Survival::LoseUnsynced,
                Survival::KeepAll,
                Survival::Random { seed: index },
                Survival::Random { seed: !index },
            ] {
                let image = disk.crash(how);
                let fs = Arc::clone(&image) as Arc<dyn Fs>;
                match exported_files(&fs, OUT) {
                    Ok(files) if !files.is_empty() => {
                        count_whole.fetch_add(1, Ordering::Relaxed);
                        assert_eq!(ingested(&image, "/in", files), truth);
                    }
                    Ok(_) => {
                        count_absent.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(Error::Io { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        })));
    let default = store.db.default_cf();
    let range = ReadOptions::default();
    let files = store
        .db
        .export(&default, &range, OUT, &small())
        .expect("written");
    store.disk.set_observer(None);
    let cut = store.disk.crash(Survival::LoseUnsynced);
    let fs = Arc::clone(&cut) as Arc<dyn Fs>;
    let found = exported_files(&fs, OUT).expect("sound");
    assert_eq!(found.len(), files.len(), "durable when it returns");
    assert_eq!(ingested(&cut, "/in", found), expected);
    let counts = (
        whole.load(Ordering::Relaxed),
        absent.load(Ordering::Relaxed),
    );
    assert!(counts.0 > 0 && counts.1 > 20, "{counts:?}");
}

#[test]
fn an_export_can_be_broken_off_and_begun_again() {
    let mut store = Store::new(78, Fault::None);
    store.work(300);
    let default = store.db.default_cf();
    let told = |at: u64| {
        let count = AtomicU64::new(0);
        ExportOptions {
            pacing: Pacing {
                bytes_per_second: Some(20_000),
                ..Pacing::told(Arc::new(move |_| {
                    if count.fetch_add(1, Ordering::Relaxed) == at {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                }))
            },
            ..small()
        }
    };
    let range = ReadOptions::default();
    let mut cancelled = 0;
    for at in 0..1000 {
        match store.db.export(&default, &range, OUT, &told(at)) {
            Err(Error::Cancelled) => {
                cancelled += 1;
                let left = store.disk.list_dir(Path::new(OUT)).expect("there");
                assert!(left.is_empty(), "{left:?}");
            }
            Ok(files) => {
                let rows = ingested(&store.disk, "/in", files);
                assert_eq!(rows, store.truth["default"]);
                break;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(cancelled > 1, "{cancelled}");
    assert_eq!(store.db.path(), Path::new(DIR));
}
