//! A raftdb whose entries are in the plain family of before: the first open moves them, whatever it is cut short by.

#[expect(dead_code, reason = "each test takes its part of what they share")]
mod support;

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use basalt_engine::{
    CfOptions, Db, Options, WriteBatch, WriteOptions,
    executor::SimExecutor,
    fs::{
        SimFs,
        sim::{Failure, Survival},
    },
};
use basalt_proto::raft_serverpb::{RaftLocalState, SnapshotIntent};
use basalt_raft::{NO_LIMIT, Storage, eraftpb::Entry};
use basalt_raftstore::{
    Engines, Error, PeerStorage, Save,
    faults::{Fault, Faults},
    keys, states,
};
use basalt_testkit::Rng;
use prost::Message;
use support::{Store, entries, hard_state, membership, snapshot, voters};

/// The regions of an old raftdb, and the entries of each.
type Logs = Vec<(u64, Vec<Entry>)>;

fn open(fs: &Arc<SimFs>, path: &str) -> Result<Db, basalt_engine::Error> {
    let options = Options {
        log_segment_bytes: (16 << 10, 256 << 10),
        block_cache_bytes: 1 << 20,
        reserve_bytes: 0,
        ..Options::with(fs.clone(), Arc::new(SimExecutor::new(7)))
    };
    Db::open(path, options)
}

/// The two engines of a store in the directories of a disk.
fn engines(fs: &Arc<SimFs>, faults: Faults) -> basalt_raftstore::Result<Engines> {
    Engines::with_faults(open(fs, "/kv")?, open(fs, "/raft")?, 64 << 20, faults)
}

/// A log of more than one of the migration's batches, between others: one is empty, one short, and one begins behind
/// a snapshot that is not installed.
fn logs() -> Logs {
    let mut long = entries(6..120, 6);
    for (entry, seed) in long.iter_mut().skip(50).zip(0..) {
        let mut rng = Rng::new(seed);
        entry.data = (0..20_000).map(|_| rng.byte()).collect::<Vec<_>>().into();
    }
    vec![
        (1, entries(6..9, 6)),
        (2, long),
        (3, Vec::new()),
        (4, entries(41..50, 8)),
    ]
}

/// A disk with a raftdb as it was before.
fn old_disk(logs: &Logs) -> Arc<SimFs> {
    let fs = SimFs::new();
    let raft = open(&fs, "/raft").expect("a sound disk");
    {
        // kvdb is what it always was.
        let engines = Engines::new(
            open(&fs, "/kv").expect("a sound disk"),
            open(&fs, "/other").expect("a sound disk"),
        );
        let engines = engines.expect("a sound disk");
        for (region, _) in logs.iter().filter(|(region, _)| *region != 4) {
            let members = membership(*region, &voters(&[1, 2, 3]));
            PeerStorage::create(&engines, &members, 1).expect("a sound disk");
        }
        engines.kv.close().expect("a sound disk");
        engines.raft.close().expect("a sound disk");
    }
    let old = raft
        .create_cf("log", CfOptions::default())
        .expect("a sound disk");
    let states = raft
        .create_cf("states", CfOptions::default())
        .expect("a sound disk");
    for (region, log) in logs {
        let mut batch = WriteBatch::new();
        let state = RaftLocalState {
            hard_state: hard_state(8, 1, 5),
            last_index: log.last().map_or(5, |entry| entry.index),
            last_term: log.last().map_or(5, |entry| entry.term),
            peer_id: 1,
        };
        batch.put(&states, &keys::raft_state(*region), &state.encode_to_vec());
        if *region == 4 {
            let intent = SnapshotIntent {
                peer_id: 1,
                snapshot: Some(snapshot(4, 40, 8, "new")),
            };
            batch.put(&states, &keys::intent(4), &intent.encode_to_vec());
        }
        // What was truncated, and what was replaced.
        for index in 1..6 {
            batch.put(&old, &keys::log(*region, index), b"gone");
        }
        batch.delete_range(&old, &keys::log(*region, 0), &keys::log(*region, 6));
        raft.write(batch, WriteOptions::SYNC).expect("a sound disk");
        for (number, entry) in log.iter().enumerate() {
            let key = keys::log(*region, entry.index);
            raft.put(&old, &key, b"replaced", WriteOptions::NO_SYNC)
                .expect("a sound disk");
            raft.put(&old, &key, &entry.encode_to_vec(), WriteOptions::NO_SYNC)
                .expect("a sound disk");
            if number == 60 {
                // A part of it is in tables.
                raft.flush(&old).expect("a sound disk");
            }
        }
    }
    raft.sync().expect("a sound disk");
    raft.close().expect("a sound disk");
    fs
}

/// Whether the log of each region is what it was; how it is not.
fn differs(engines: &Engines, logs: &Logs) -> Option<String> {
    for (region, log) in logs {
        let peer = match PeerStorage::open(engines.clone(), *region, 1, 0) {
            Ok(peer) => peer,
            Err(error) => return Some(error.to_string()),
        };
        let (first, end) = (
            peer.first_index().expect("a sound disk"),
            peer.last_index().expect("a sound disk") + 1,
        );
        let wanted = if *region == 4 { 41 } else { 6 };
        assert_eq!((first, end), (wanted, wanted + log.len() as u64));
        assert_eq!(peer.pending_snapshot().is_some(), *region == 4);
        assert_eq!(peer.hard_state().term, 8);
        match peer.entries(first, end, NO_LIMIT) {
            Ok(read) if read == *log => {}
            read => return Some(format!("region {region}: {:?}", read.map(|r| r.len()))),
        }
    }
    None
}

/// Opens what is left of a disk, as a store would, and demands that nothing is missing and that it goes on from there.
fn check(fs: Arc<SimFs>, logs: &Logs) {
    let store = Store::on(fs);
    assert_eq!(differs(&store.engines, logs), None);
    assert!(store.engines.raft.cf("log").is_err());
    let mut more = WriteBatch::new();
    let mut longer = logs.clone();
    for (region, log) in &mut longer {
        let mut peer = store.open(*region, 1);
        let last = peer.last_index().expect("a sound disk");
        let next = entries(last + 1..last + 3, 9);
        let save = Save {
            hard_state: hard_state(8, 1, 5),
            entries: &next,
            ..Save::default()
        };
        peer.save(&save, &mut more).expect("a sound disk");
        log.extend(next);
    }
    store.write_raft(more, WriteOptions::SYNC);
    let again = store.crash(Survival::LoseUnsynced);
    assert_eq!(differs(&again.engines, &longer), None);
}

/// What power cuts before each change of a disk leave while `work` is done; some of the ways at each.
fn images(fs: &Arc<SimFs>, work: impl FnOnce()) -> Vec<Arc<SimFs>> {
    let images = Arc::new(Mutex::new(Vec::new()));
    let (taken, number) = (Arc::clone(&images), AtomicU64::new(0));
    fs.set_observer(Some(Arc::new(move |fs: &SimFs, _, _: &_| {
        let number = number.fetch_add(1, Ordering::Relaxed);
        let how = match number % 4 {
            0 | 2 => Survival::LoseUnsynced,
            1 => Survival::Random { seed: number },
            _ => Survival::KeepAll,
        };
        let both = [how, Survival::Random { seed: !number }].map(|how| fs.crash(how));
        let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.extend(both);
    })));
    work();
    fs.set_observer(None);
    let mut taken = images.lock().unwrap_or_else(PoisonError::into_inner);
    std::mem::take(&mut *taken)
}

#[test]
fn entries_of_before_are_moved_whatever_cuts_it_short() {
    let logs = logs();
    let fs = old_disk(&logs);
    let cut = images(&fs, || {
        let engines = engines(&fs, Faults::default()).expect("a sound disk");
        assert_eq!(differs(&engines, &logs), None);
    });
    println!("{} images", cut.len());
    assert!(cut.len() > 60, "{}", cut.len());
    let mut again = 0;
    for (number, image) in cut.into_iter().enumerate() {
        if number % 8 == 0 {
            // It is cut short again.
            let cut = images(&image, || drop(engines(&image, Faults::default())));
            for image in cut.into_iter().skip(number % 7).step_by(9) {
                check(image, &logs);
                again += 1;
            }
        } else {
            check(image, &logs);
        }
    }
    println!("{again} images of a second try");
    assert!(again > 40, "{again}");
}

#[test]
fn a_disk_that_fails_in_between_leaves_the_entries_of_before() {
    let logs = logs();
    let changes = |fs: &SimFs| {
        let seen = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&seen);
        fs.set_observer(Some(Arc::new(move |_: &SimFs, _, _: &_| {
            count.fetch_add(1, Ordering::Relaxed);
        })));
        seen
    };
    let fs = old_disk(&logs);
    let whole = fs.crash(Survival::LoseUnsynced);
    let seen = changes(&whole);
    drop(engines(&whole, Faults::default()).expect("a sound disk"));
    let all = seen.load(Ordering::Relaxed);
    let mut failed = 0;
    for at in (0..all).step_by(3) {
        let fs = fs.crash(Survival::LoseUnsynced);
        let left = AtomicU64::new(at);
        let full = at % 2 == 0;
        fs.set_fault_rule(Some(Arc::new(move |op| {
            if !op.kind.is_change() {
                return None;
            }
            // From then on all do.
            let left = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            });
            left.err().map(|_| match full {
                true => Failure::of(std::io::ErrorKind::StorageFull),
                false => Failure::device(),
            })
        })));
        failed += u64::from(engines(&fs, Faults::default()).is_err());
        fs.set_fault_rule(None);
        check(fs.crash(Survival::KeepAll), &logs);
        check(fs.crash(Survival::LoseUnsynced), &logs);
    }
    assert!(failed > all / 6, "{failed} of {all} were noticed");
}

#[test]
fn what_is_no_log_is_named_and_left_as_it_is() {
    let harmed = |harm: fn(&Db, &mut WriteBatch)| {
        let fs = old_disk(&logs());
        let raft = open(&fs, "/raft").unwrap();
        let mut batch = WriteBatch::new();
        harm(&raft, &mut batch);
        raft.write(batch, WriteOptions::SYNC).unwrap();
        raft.close().unwrap();
        let error = engines(&fs, Faults::default()).expect_err("it does not fit");
        assert!(matches!(error, Error::Corruption { .. }), "{error}");
        let raft = open(&fs, "/raft").unwrap();
        let old = raft.cf("log").expect("it is left");
        assert!(raft.get(&old, &keys::log(2, 119)).unwrap().is_some());
        error.to_string()
    };
    let hole = harmed(|raft, batch| batch.delete(&raft.cf("log").unwrap(), &keys::log(2, 8)));
    assert!(
        hole.contains("region 2") && hole.contains("no entry at index 8"),
        "{hole}"
    );
    let state = harmed(|raft, batch| {
        batch.put(&raft.cf("log").unwrap(), &keys::raft_state(2), b"x");
    });
    assert!(state.contains("that of no entry"), "{state}");
    let last = harmed(|raft, batch| {
        batch.put(&raft.cf("log").unwrap(), &keys::log(9, u64::MAX), b"x");
    });
    assert!(last.contains("that of no entry"), "{last}");
}

#[test]
fn a_region_that_the_old_family_does_not_have_is_left_alone() {
    let store = Store::new();
    let mut peer = store.create(1);
    let log = entries(6..12, 6);
    let save = Save {
        hard_state: hard_state(6, 1, 5),
        entries: &log,
        ..Save::default()
    };
    let mut batch = WriteBatch::new();
    peer.save(&save, &mut batch).unwrap();
    store.write_raft(batch, WriteOptions::SYNC);
    // As an older version would, which finds no log and goes no further.
    let raft = &store.engines.raft;
    raft.create_cf("log", CfOptions::default()).unwrap();
    let store = store.crash(Survival::LoseUnsynced);
    assert!(store.engines.raft.cf("log").is_err());
    assert_eq!(store.open(1, 1).entries(6, 12, NO_LIMIT).unwrap(), log);
    assert!(states::raft_state(&store.engines, 1).unwrap().is_some());
}

#[test]
fn a_migration_that_does_not_sync_is_found_out() {
    let logs = logs();
    let fs = old_disk(&logs);
    let faults = Faults::only(Fault::MigrationUnsynced);
    let cut = images(&fs, || drop(engines(&fs, faults)));
    let lost = |image: &Arc<SimFs>| match engines(image, Faults::default()) {
        Ok(engines) => differs(&engines, &logs).is_some(),
        Err(_) => true,
    };
    assert!(cut.iter().any(lost), "no image shows it");
}
