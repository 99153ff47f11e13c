//! Snapshot files on disks that lose power, fill up, fail and rot: a received snapshot is there whole or not
//! at all, and what fails removes its files.

#[expect(dead_code, reason = "each test takes its part of what they share")]
mod support;
#[expect(dead_code, reason = "each test takes its part of what they share")]
#[path = "snapshot/transfer.rs"]
mod transfer;

use std::sync::{Arc, Mutex};

use basalt_engine::fs::{
    Fs, ReadMode, SimFs,
    sim::{Failure, FaultRule, Op, OpKind, Survival, fail_range},
};
use basalt_proto::eraftpb::Snapshot;
use basalt_raft::Storage;
use basalt_raftstore::snapshot::{SnapshotError, SnapshotKey, SnapshotState};
use bytes::Bytes;
use support::Store;
use transfer::{DIR, Side, chunks, incompressible, rows, transfer, unhurried};

/// A sender, and a snapshot of it: rows in two families, none in the third.
fn sender() -> (Side, Snapshot) {
    let side = Side::with_region(1);
    let mut peer = side.store.open(1, 1);
    side.apply(
        &mut peer,
        10,
        &[("default", "b", "new"), ("write", "w", "new")],
    );
    let snapshot = side
        .files
        .generate(1, &mut unhurried)
        .expect("a sound disk");
    (side, snapshot)
}

/// A receiver whose peer 2 has other data, durably.
fn receiver() -> Side {
    let side = Side::with_region(2);
    let mut peer = side.store.open(1, 2);
    side.apply(
        &mut peer,
        8,
        &[("default", "b", "old"), ("lock", "k", "old")],
    );
    side.put(&[("lock", "z", "other")]);
    side.store.engines.flush_kv().expect("a sound disk");
    side
}

fn old_rows() -> [transfer::Rows; 3] {
    [
        rows(&[("b", "old")]),
        rows(&[]),
        rows(&[("k", "old"), ("z", "other")]),
    ]
}

fn new_rows() -> [transfer::Rows; 3] {
    [
        rows(&[("b", "new")]),
        rows(&[("w", "new")]),
        rows(&[("z", "other")]),
    ]
}

#[test]
fn power_loss_anywhere_leaves_a_received_snapshot_whole_or_not_at_all() {
    let (sender, snapshot) = sender();
    let receiver = receiver();
    let mut peer = receiver.store.open(1, 2);
    // None, complete, pending, installed.
    let mut outcomes = [0_u32; 4];
    let images = Arc::new(Mutex::new(Vec::new()));
    let (taken, finished) = (Arc::clone(&images), Arc::new(Mutex::new(false)));
    let finished_then = Arc::clone(&finished);
    receiver
        .store
        .fs
        .set_observer(Some(Arc::new(move |fs: &SimFs, at, _: &Op| {
            let finished = *finished_then.lock().expect("no thread panics under it");
            let how = [
                Survival::LoseUnsynced,
                Survival::KeepAll,
                Survival::ProcessDeath,
                Survival::Random { seed: at },
                Survival::Random { seed: !at },
            ];
            let mut images = taken.lock().expect("no thread panics under it");
            images.extend(how.map(|how| (fs.crash(how), finished)));
        })));
    transfer(&sender, &receiver, &snapshot).expect("a sound disk");
    *finished.lock().expect("no thread panics under it") = true;
    receiver.install(&mut peer, &snapshot);
    receiver.store.fs.set_observer(None);
    assert!(receiver.names().is_empty());

    let images = std::mem::take(&mut *images.lock().expect("no thread panics under it"));
    let count = images.len();
    for (image, finished) in images {
        let side = Side::on(Store::on(image));
        let mut peer = side.store.open(1, 2);
        let list = side.files.list();
        let pending = peer.pending_snapshot().is_some();
        let installed = !pending && peer.apply_state().applied_index == 10;
        let here = list.iter().any(|info| info.state == SnapshotState::Ready);
        assert_eq!(
            side.names().len(),
            if here { 3 } else { 0 },
            "{:?}",
            side.names()
        );
        assert!(here || !finished || installed, "a finished one is gone");
        if installed {
            outcomes[3] += 1;
            assert_eq!(side.dump(), new_rows());
            // Its intent is gone; that of files may be too late.
            side.files
                .remove_stale(|info| info.key.index > 10)
                .expect("a sound disk");
            assert!(side.names().is_empty());
            continue;
        }
        assert_eq!(side.dump(), old_rows());
        if !here {
            outcomes[0] += 1;
            assert!(!pending, "an intent without files");
            transfer(&sender, &side, &snapshot).expect("a sound disk");
        } else {
            outcomes[usize::from(pending) + 1] += 1;
        }
        // What the open has seen is relied on.
        let side = Side::on(side.store.crash(Survival::LoseUnsynced));
        peer = side.store.open(1, 2);
        if pending {
            side.resume(&mut peer);
        } else {
            side.install(&mut peer, &snapshot);
        }
        let side = Side::on(side.store.crash(Survival::LoseUnsynced));
        assert_eq!(side.dump(), new_rows());
        assert_eq!(side.store.open(1, 2).last_index().unwrap(), 10);
    }
    println!("{count} crashes: {outcomes:?} nothing, complete, pending, installed");
    assert!(outcomes.iter().all(|&count| count > 0), "{outcomes:?}");
}

#[test]
fn a_sender_that_loses_power_starts_without_files() {
    let (side, snapshot) = sender();
    for how in [
        Survival::LoseUnsynced,
        Survival::KeepAll,
        Survival::Random { seed: 3 },
    ] {
        let side = Side::on(side.store.crash(how));
        assert!(side.names().is_empty() && side.files.list().is_empty());
        let gone = side.files.chunks(&snapshot);
        assert!(matches!(gone, Err(SnapshotError::Missing(_))), "{gone:?}");
    }
}

/// Runs `work` with the first operation on snapshot files failing, then the second, and so on until all
/// went well; how many there were. `work` answers whether it did.
fn with_each_failing(
    fs: &SimFs,
    failure: impl Fn() -> Failure + Copy + Send + Sync + 'static,
    mut work: impl FnMut(FaultGuard<'_>) -> bool,
) -> u64 {
    for n in 0.. {
        let in_dir = |op: &Op| op.path.starts_with(DIR) && op.kind != OpKind::Remove;
        let rule = fail_range(in_dir, n, n + 1, failure);
        fs.set_fault_rule(Some(rule));
        if work(FaultGuard(fs)) {
            return n;
        }
    }
    unreachable!("there are not so many operations")
}

/// Ends the failing.
struct FaultGuard<'a>(&'a SimFs);

impl FaultGuard<'_> {
    fn end(self) {
        self.0.set_fault_rule(None::<FaultRule>);
    }
}

#[test]
fn an_operation_that_fails_while_receiving_leaves_nothing_and_the_next_try_succeeds() {
    let (sender, snapshot) = sender();
    let receiver = receiver();
    let failed = with_each_failing(&receiver.store.fs, Failure::device, |fault| {
        let result = transfer(&sender, &receiver, &snapshot);
        fault.end();
        match result {
            Err(SnapshotError::Engine(_)) => {
                assert!(receiver.names().is_empty(), "{:?}", receiver.names());
                assert!(receiver.files.list().is_empty());
                // Nor after a restart, unless the directory came to be synced by chance.
                let side = Side::on(receiver.store.crash(Survival::LoseUnsynced));
                assert!(side.names().is_empty());
                false
            }
            result => result
                .map(|()| true)
                .expect("the disk's errors are the disk's"),
        }
    });
    println!("{failed} operations failed");
    assert!(failed > 12, "{failed}");
    assert_eq!(receiver.names().len(), 3);
    assert_eq!(receiver.dump(), old_rows());
    receiver.install(&mut receiver.store.open(1, 2), &snapshot);
    assert_eq!(receiver.dump(), new_rows());
}

#[test]
fn an_operation_that_fails_while_generating_leaves_nothing_and_the_next_try_succeeds() {
    let side = receiver();
    let failed = with_each_failing(&side.store.fs, Failure::device, |fault| {
        let result = side.files.generate(1, &mut unhurried);
        fault.end();
        match result {
            Err(SnapshotError::Engine(_)) => {
                assert!(side.names().is_empty(), "{:?}", side.names());
                assert!(side.files.list().is_empty());
                side.put(&[("lock", "z", "other")]);
                false
            }
            result => result
                .map(|_| true)
                .expect("the disk's errors are the disk's"),
        }
    });
    println!("{failed} operations failed");
    assert!(failed > 8, "{failed}");
    assert_eq!(side.dump(), old_rows());
}

#[test]
fn a_full_disk_is_an_error_that_says_so_and_gives_its_room_back() {
    let sender = Side::with_region(1);
    let mut peer = sender.store.open(1, 1);
    let value = incompressible(300 << 10);
    sender.apply_bytes(
        &mut peer,
        10,
        &[("default", "b", &value), ("lock", "k", &value)],
    );
    sender.store.engines.flush_kv().unwrap();
    let full = |side: &Side, room: u64| {
        let used = side.store.fs.used_bytes();
        side.store.fs.set_capacity(Some(used + room));
        used
    };
    for room in [0, 1, 100 << 10, 500 << 10] {
        let used = full(&sender, room);
        let result = sender.files.generate(1, &mut unhurried);
        let error = result.expect_err("no room");
        assert!(error.is_disk_full(), "{error}");
        assert!(sender.names().is_empty() && sender.files.list().is_empty());
        assert_eq!(sender.store.fs.used_bytes(), used);
    }
    sender.store.fs.set_capacity(None);
    let snapshot = sender.files.generate(1, &mut unhurried).unwrap();
    let receiver = receiver();
    let files: u64 = sender.files.list()[0].bytes;
    for room in [0, 1, 100 << 10, 500 << 10, files, files + 20] {
        let used = full(&receiver, room);
        let error = transfer(&sender, &receiver, &snapshot).expect_err("no room");
        assert!(error.is_disk_full(), "{error}");
        assert!(receiver.names().is_empty() && receiver.files.list().is_empty());
        assert_eq!(receiver.store.fs.used_bytes(), used);
    }
    receiver.store.fs.set_capacity(None);
    assert_eq!(receiver.dump(), old_rows());
    transfer(&sender, &receiver, &snapshot).unwrap();
}

#[test]
fn a_file_damaged_on_the_sender_is_not_sent_to_its_end_and_another_is_made() {
    let side = Side::with_region(1);
    let mut peer = side.store.open(1, 1);
    let value = incompressible(3 << 20);
    side.apply_bytes(
        &mut peer,
        10,
        &[("default", "b", &value), ("lock", "k", b"8")],
    );
    let snapshot = side.files.generate(1, &mut unhurried).unwrap();
    let name = &side.names()[0];
    let len = side.store.fs.read_raw(side.path(name)).unwrap().len();
    side.store.fs.corrupt(side.path(name), 1000, 1).unwrap();
    let receiver = receiver();
    let sent: Vec<_> = side.files.chunks(&snapshot).unwrap().collect();
    let good = sent.iter().map_while(|chunk| chunk.as_ref().ok());
    assert!(good.map(Bytes::len).sum::<usize>() < len);
    let damage = sent.last().unwrap().as_ref().unwrap_err();
    assert!(matches!(damage, SnapshotError::Damaged(_)), "{damage}");
    let result = transfer(&side, &receiver, &snapshot);
    assert!(
        matches!(result, Err(SnapshotError::Missing(_))),
        "{result:?}"
    );
    assert!(side.names().is_empty());
    let second = side.files.generate(1, &mut unhurried).unwrap();
    assert_ne!(second, snapshot);
    assert_eq!(second.metadata, snapshot.metadata);
    transfer(&side, &receiver, &second).unwrap();
    // Cut short, or gone: known before the first chunk.
    let name = &side.names()[0];
    side.store.fs.truncate(side.path(name), 1000).unwrap();
    let cut = side.files.chunks(&second);
    assert!(matches!(cut, Err(SnapshotError::Damaged(_))), "{cut:?}");
    let third = side.files.generate(1, &mut unhurried).unwrap();
    let name = &side.names()[0];
    side.store.fs.remove_file(&side.path(name)).unwrap();
    let lost = side.files.chunks(&third);
    assert!(matches!(lost, Err(SnapshotError::Missing(_))), "{lost:?}");
    assert!(side.files.list().is_empty());
}

#[test]
fn a_received_file_that_rots_before_it_is_installed_is_not_and_can_be_received_again() {
    let (sender, snapshot) = sender();
    let receiver = receiver();
    transfer(&sender, &receiver, &snapshot).unwrap();
    let path = receiver.path(&receiver.names()[1]);
    let len = receiver
        .store
        .fs
        .open(&path, ReadMode::Pread)
        .unwrap()
        .len();
    for offset in (0..len).step_by(7) {
        let side = Side::on(receiver.store.crash(Survival::KeepAll));
        assert_eq!(side.names().len(), 3);
        side.store.fs.corrupt(&path, offset, 0x10).unwrap();
        let result = side.files.tables(&snapshot);
        assert!(
            matches!(result, Err(SnapshotError::Damaged(_))),
            "{offset}: {result:?}"
        );
        assert!(side.names().is_empty());
        let result = side.files.tables(&snapshot);
        assert!(
            matches!(result, Err(SnapshotError::Missing(_))),
            "{offset}: {result:?}"
        );
    }
    // A good table of another snapshot is no better.
    let side = Side::on(receiver.store.crash(Survival::KeepAll));
    let other = sender
        .store
        .fs
        .read_raw(sender.path(&sender.names()[1]))
        .unwrap();
    side.store.fs.write_raw(&path, &other).unwrap();
    let result = side.files.tables(&snapshot);
    assert!(
        matches!(result, Err(SnapshotError::Damaged(_))),
        "{result:?}"
    );

    let side = Side::on(receiver.store.crash(Survival::KeepAll));
    side.store.fs.corrupt(&path, 5, 1).unwrap();
    side.files.tables(&snapshot).unwrap_err();
    transfer(&sender, &side, &snapshot).unwrap();
    side.install(&mut side.store.open(1, 2), &snapshot);
    assert_eq!(side.dump(), new_rows());
}

#[test]
fn files_that_a_disk_does_not_remove_go_later() {
    let (sender, snapshot) = sender();
    let receiver = receiver();
    transfer(&sender, &receiver, &snapshot).unwrap();
    let stubborn = |op: &Op| op.path.starts_with(DIR) && op.kind == OpKind::Remove;
    let rule = fail_range(stubborn, 0, u64::MAX, Failure::device);
    receiver.store.fs.set_fault_rule(Some(rule));
    receiver.files.release(&snapshot).unwrap_err();
    assert_eq!(receiver.files.list()[0].state, SnapshotState::Removing);
    let busy = transfer(&sender, &receiver, &snapshot);
    assert!(matches!(busy, Err(SnapshotError::Busy(_))), "{busy:?}");
    receiver.files.remove_stale(|_| true).unwrap_err();
    receiver.store.fs.set_fault_rule(None);
    assert_eq!(receiver.files.remove_stale(|_| true).unwrap(), 1);
    assert!(receiver.names().is_empty());
    transfer(&sender, &receiver, &snapshot).unwrap();
    assert_eq!(
        receiver.files.list()[0].key,
        SnapshotKey::of(&snapshot).unwrap()
    );
    assert_eq!(chunks(&sender, &snapshot).len(), 2);
}
