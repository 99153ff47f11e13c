//! A peer's life by claims: whose state it is, what it refuses, restarts of a node on it, the order
//! between the two engines, and what a save costs.

#[expect(dead_code, reason = "each test takes its part of what they share")]
mod support;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use basalt_engine::{
    WriteBatch, WriteOptions,
    fs::{
        SimFs,
        sim::{Op, OpKind, Survival},
    },
};
use basalt_proto::raft_serverpb::PeerState;
use basalt_raft::{
    Config, LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD, RawNode, Storage, StorageError,
};
use basalt_raftstore::{Error, PeerStorage, Save, keys, states};
use support::{
    Store, apply, entries, hard_state, install, membership, snapshot, voters, write_applied,
};

/// Saves, synced and published.
fn save(store: &Store, peer: &mut PeerStorage, save: Save<'_>) {
    let mut batch = WriteBatch::new();
    let number = peer.save(&save, &mut batch).expect("it fits");
    store.write_raft(batch, WriteOptions::SYNC);
    peer.published(number);
}

/// Saves entries and a hard state that commits them.
fn fill(store: &Store, peer: &mut PeerStorage, indexes: std::ops::Range<u64>) {
    let hard_state = hard_state(6, 1, indexes.end - 1);
    let entries = entries(indexes, 6);
    save(
        store,
        peer,
        Save {
            hard_state,
            entries: &entries,
            ..Save::default()
        },
    );
}

fn truncate(store: &Store, peer: &mut PeerStorage, index: u64) {
    support::truncate(store, peer, index).expect("an applied index");
}

fn compact(store: &Store, peer: &mut PeerStorage) -> bool {
    let mut batch = WriteBatch::new();
    let any = peer.compact_log(&mut batch);
    store.write_raft(batch, WriteOptions::SYNC);
    any
}

fn open_error(store: &Store, region: u64, peer: u64) -> Error {
    PeerStorage::open(store.engines.clone(), region, peer, 0).expect_err("not to be opened")
}

#[test]
fn the_saves_of_many_regions_are_one_batch_and_one_sync() {
    const REGIONS: u64 = 100;
    let store = Store::new();
    let mut peers: Vec<_> = (1..=REGIONS).map(|region| store.create(region)).collect();
    let (syncs, kv) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let counted = (Arc::clone(&syncs), Arc::clone(&kv));
    store
        .fs
        .set_observer(Some(Arc::new(move |_: &SimFs, _, op: &Op| {
            if op.path.starts_with("/kv") {
                counted.1.fetch_add(1, Ordering::Relaxed);
            }
            counted
                .0
                .fetch_add(u64::from(op.kind == OpKind::Sync), Ordering::Relaxed);
        })));
    let mut batch = WriteBatch::new();
    let (hard_state, entries) = (hard_state(6, 1, 5), entries(6..9, 6));
    let save = Save {
        hard_state,
        entries: &entries,
        ..Save::default()
    };
    let numbers: Vec<_> = peers
        .iter_mut()
        .map(|peer| peer.save(&save, &mut batch).unwrap())
        .collect();
    assert_eq!(
        batch.len() as u64,
        REGIONS * 2,
        "an append of three entries and a state each"
    );
    let before = store.engines.raft.last_seq().0;
    store
        .engines
        .raft
        .submit(batch, WriteOptions::SYNC)
        .unwrap()
        .wait()
        .unwrap();
    assert_eq!(store.engines.raft.last_seq().0 - before, REGIONS * 2);
    for (peer, number) in peers.iter_mut().zip(numbers) {
        peer.published(number);
    }
    assert_eq!(syncs.load(Ordering::Relaxed), 1, "syncs");
    assert_eq!(kv.load(Ordering::Relaxed), 0, "changes below kvdb");
    let store = store.crash(Survival::LoseUnsynced);
    for region in 1..=REGIONS {
        let peer = store.open(region, 1);
        assert_eq!((peer.hard_state().term, peer.last_index().unwrap()), (6, 8));
    }
}

#[test]
fn what_is_not_published_is_read_from_memory_whatever_the_budget() {
    let store = Store::new();
    store.create(1);
    let mut peer = PeerStorage::open(store.engines.clone(), 1, 1, 0).unwrap();
    let (hard_state, entries) = (hard_state(6, 1, 5), entries(6..20, 6));
    let mut batch = WriteBatch::new();
    let save = Save {
        hard_state,
        entries: &entries,
        ..Save::default()
    };
    let number = peer.save(&save, &mut batch).unwrap();
    assert_eq!(peer.entries(6, 20, u64::MAX).unwrap(), entries);
    store.write_raft(batch, WriteOptions::SYNC);
    assert!(peer.cached_bytes() > 0);
    peer.published(number);
    assert_eq!(peer.cached_bytes(), 0);
    assert_eq!(peer.entries(6, 20, u64::MAX).unwrap(), entries);
}

#[test]
fn a_save_that_does_not_fit_is_refused_and_changes_nothing() {
    let store = Store::new();
    let mut peer = store.create(1);
    fill(&store, &mut peer, 6..9);
    let mut batch = WriteBatch::new();
    let gap = entries(10..12, 7);
    let holes = [entries(9..10, 7), entries(11..12, 7)].concat();
    let hard_state = hard_state(9, 3, 5);
    for entries in [&gap, &holes] {
        let save = Save {
            hard_state,
            entries,
            ..Save::default()
        };
        let refused = peer.save(&save, &mut batch);
        assert!(
            matches!(refused, Err(Error::Misuse { region: 1, .. })),
            "{refused:?}"
        );
    }
    let foreign = snapshot(2, 30, 7, "foreign");
    let save = Save {
        hard_state,
        snapshot: Some(&foreign),
        ..Save::default()
    };
    let refused = peer.save(&save, &mut batch);
    assert!(
        matches!(refused, Err(Error::Misuse { region: 1, .. })),
        "{refused:?}"
    );
    assert!(batch.is_empty());
    assert_eq!((peer.hard_state().term, peer.last_index().unwrap()), (6, 8));
}

#[test]
fn the_same_peer_keeps_its_vote_and_a_later_one_starts_without_it() {
    let store = Store::new();
    // Peers that messages have made: kvdb knows nothing of them.
    let mut peer = store.open(1, 4);
    assert_eq!(
        peer.initial_state().unwrap(),
        basalt_raft::InitialState::default()
    );
    save(
        &store,
        &mut peer,
        Save {
            hard_state: hard_state(7, 2, 0),
            ..Save::default()
        },
    );
    let store = store.crash(Survival::LoseUnsynced);
    assert_eq!(store.open(1, 4).hard_state(), hard_state(7, 2, 0).unwrap());
    let error = open_error(&store, 1, 3);
    assert!(
        matches!(
            error,
            Error::OtherPeer {
                asked: 3,
                present: 4,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(store.open(1, 5).hard_state(), hard_state(0, 0, 0).unwrap());
    // The clearing is durable before anything is read.
    let store = store.crash(Survival::LoseUnsynced);
    assert_eq!(states::raft_state(&store.engines, 1).unwrap(), None);
}

#[test]
fn a_created_peer_is_there_after_a_loss_of_power_and_only_once() {
    let store = Store::new();
    store.create(1);
    let store = store.crash(Survival::LoseUnsynced);
    let peer = store.open(1, 1);
    assert_eq!(
        (peer.first_index().unwrap(), peer.last_index().unwrap()),
        (6, 5)
    );
    assert_eq!(peer.term(5).unwrap(), 5);
    assert_eq!(peer.initial_state().unwrap().conf_state, voters(&[1, 2, 3]));
    let members = membership(1, &voters(&[1, 2, 3]));
    let again = PeerStorage::create(&store.engines, &members, 1);
    assert!(matches!(again, Err(Error::Misuse { .. })), "{again:?}");
    let stranger = PeerStorage::create(&store.engines, &membership(2, &voters(&[2])), 1);
    assert!(
        matches!(stranger, Err(Error::Misuse { .. })),
        "{stranger:?}"
    );
    let error = open_error(&store, 1, 9);
    assert!(
        matches!(
            error,
            Error::OtherPeer {
                asked: 9,
                present: 1,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn the_log_is_deleted_only_up_to_what_a_flushed_apply_state_has_truncated() {
    let store = Store::new();
    let mut peer = store.create(1);
    fill(&store, &mut peer, 6..30);
    apply(&store, &mut peer, 25, b"25");
    truncate(&store, &mut peer, 20);
    assert_eq!(peer.first_index().unwrap(), 21);
    assert!(!compact(&store, &mut peer), "nothing is flushed");
    assert_eq!(peer.held_back(), 15);
    let survivor = store.crash(Survival::LoseUnsynced);
    let old = survivor.open(1, 1);
    assert_eq!(
        (old.first_index().unwrap(), old.apply_state().applied_index),
        (6, 5)
    );
    assert_eq!(old.entries(6, 30, u64::MAX).unwrap().len(), 24);

    store.engines.flush_kv().unwrap();
    truncate(&store, &mut peer, 23);
    assert!(compact(&store, &mut peer));
    let stored = |index| {
        let key = keys::log(1, index);
        store
            .engines
            .raft
            .get(&store.engines.log, &key)
            .unwrap()
            .is_some()
    };
    assert!(!stored(20) && stored(21), "up to 20, not to 23");
    assert!(!compact(&store, &mut peer), "once");
    let survivor = store.crash(Survival::LoseUnsynced);
    assert_eq!(survivor.open(1, 1).first_index().unwrap(), 21);
}

#[test]
fn what_is_applied_must_be_in_the_log_and_may_not_move_back() {
    let store = Store::new();
    let mut peer = store.create(1);
    fill(&store, &mut peer, 6..10);
    apply(&store, &mut peer, 8, b"8");
    let seq = store.engines.kv.last_seq();
    for index in [7, 10] {
        let mut state = *peer.apply_state();
        state.applied_index = index;
        let applied = basalt_raftstore::Applied {
            state,
            membership: None,
            seq,
        };
        let refused = peer.applied(applied);
        assert!(
            matches!(refused, Err(Error::Misuse { .. })),
            "{index}: {refused:?}"
        );
    }
    assert!(matches!(
        peer.truncation_at(9),
        Err(StorageError::Unavailable)
    ));
    assert!(matches!(
        peer.truncation_at(5),
        Err(StorageError::Compacted)
    ));
}

#[test]
fn records_that_do_not_fit_together_are_corruption() {
    let broken = |harm: fn(&Store, &mut WriteBatch)| {
        let store = Store::new();
        let mut peer = store.create(1);
        fill(&store, &mut peer, 6..12);
        apply(&store, &mut peer, 8, b"8");
        truncate(&store, &mut peer, 7);
        store.engines.flush_kv().unwrap();
        drop(peer);
        let mut batch = WriteBatch::new();
        harm(&store, &mut batch);
        store.write_raft(batch, WriteOptions::SYNC);
        let error = open_error(&store, 1, 1);
        assert!(
            matches!(error, Error::Corruption { region: 1, .. }),
            "{error}"
        );
        error.to_string()
    };
    let lost = broken(|store, batch| batch.delete(&store.engines.states, &keys::raft_state(1)));
    assert!(lost.contains("no raft state"), "{lost}");
    let hole = broken(|store, batch| {
        batch.truncate_front(&store.engines.log, &keys::log_prefix(1), 9);
    });
    assert!(hole.contains("the log begins at 9"), "{hole}");
    let cut = broken(|store, batch| {
        batch.truncate_back(&store.engines.log, &keys::log_prefix(1), 11);
    });
    assert!(cut.contains("ends at 10"), "{cut}");
    let empty = broken(|store, batch| {
        batch.truncate_back(&store.engines.log, &keys::log_prefix(1), 0);
    });
    assert!(empty.contains("the log begins at"), "{empty}");
    let noise = broken(|store, batch| {
        batch.put(&store.engines.states, &keys::raft_state(1), &[0xff; 9]);
    });
    assert!(noise.contains("does not decode"), "{noise}");
    let short = broken(|store, batch| {
        let state = states::initial_raft_state(1, true);
        states::put_raft_state(&store.engines, batch, 1, &state);
    });
    assert!(short.contains("applied up to 8"), "{short}");
}

#[test]
fn entries_that_are_not_there_are_corruption_for_who_reads_them() {
    let store = Store::new();
    let mut peer = store.create(1);
    fill(&store, &mut peer, 6..12);
    let peer = store.open(1, 1);
    // Behind the back of who has it open: a hole is nothing that the family would take.
    let mut batch = WriteBatch::new();
    batch.truncate_front(&store.engines.log, &keys::log_prefix(1), 9);
    store.write_raft(batch, WriteOptions::SYNC);
    let read = peer.entries(6, 12, u64::MAX);
    assert!(matches!(read, Err(StorageError::Other(_))), "{read:?}");
    let term = peer.term(8);
    assert!(matches!(term, Err(StorageError::Other(_))), "{term:?}");
    assert_eq!(peer.entries(9, 12, u64::MAX).unwrap().len(), 3);
}

/// A node of a group of one, which does all that it is told.
struct Node {
    store: Store,
    node: RawNode<PeerStorage>,
    /// Indexes applied in this life.
    applied: Vec<u64>,
}

impl Node {
    fn on(store: Store, asynchronous: bool) -> Self {
        let storage = store.open(1, 1);
        let mut config = Config::new(1);
        config.applied = storage.apply_state().applied_index;
        config.async_storage_writes = asynchronous;
        let node = RawNode::new(config, storage).expect("a good start");
        Self {
            store,
            node,
            applied: Vec::new(),
        }
    }

    fn write(&mut self, what: Save<'_>) {
        save(&self.store, self.node.storage_mut(), what);
    }

    fn apply(&mut self, entries: &[basalt_raft::eraftpb::Entry]) {
        let Some(last) = entries.last() else { return };
        self.applied.extend(entries.iter().map(|entry| entry.index));
        apply(&self.store, self.node.storage_mut(), last.index, &last.data);
    }

    fn run(&mut self) {
        while self.node.has_ready() {
            let ready = self.node.ready().expect("a sound disk");
            if ready
                .messages
                .iter()
                .any(|m| m.to == LOCAL_APPEND_THREAD || m.to == LOCAL_APPLY_THREAD)
            {
                for message in ready.messages {
                    if message.to == LOCAL_APPEND_THREAD {
                        self.write(Save::from(&message));
                    } else {
                        self.apply(&message.entries);
                    }
                    for response in message.responses {
                        self.node.step(response).expect("its own answer");
                    }
                }
                continue;
            }
            self.write(Save::from(&ready));
            self.apply(&ready.committed_entries);
            self.node.advance().expect("what was asked is done");
        }
    }
}

#[test]
fn a_node_goes_on_after_a_loss_of_power_and_applies_again_what_was_not_flushed() {
    for asynchronous in [false, true] {
        let store = Store::new();
        let members = membership(1, &voters(&[1]));
        PeerStorage::create(&store.engines, &members, 1).unwrap();
        let mut node = Node::on(store, asynchronous);
        node.node.campaign().unwrap();
        node.run();
        for n in 0..10 {
            node.node.propose(format!("value {n}").into()).unwrap();
            node.run();
            if n == 4 {
                node.store.engines.flush_kv().unwrap();
            }
        }
        let flushed = 6 + 5;
        let last = 6 + 10;
        assert_eq!(node.applied, (6..=last).collect::<Vec<_>>());
        assert_eq!(node.store.row().unwrap(), "value 9");

        let store = node.store.crash(Survival::LoseUnsynced);
        assert_eq!(store.row().unwrap(), "value 4");
        let mut node = Node::on(store, asynchronous);
        let applied = node.node.storage().apply_state().applied_index;
        assert_eq!(
            (applied, node.node.storage().last_index().unwrap()),
            (flushed, last)
        );
        assert!(node.node.storage().hard_state().term >= 6);
        node.run();
        node.node.campaign().unwrap();
        node.run();
        assert_eq!(node.applied.first(), Some(&(flushed + 1)));
        assert!(node.applied.is_sorted());
        node.node.propose("after".into()).unwrap();
        node.run();
        assert_eq!(node.store.row().unwrap(), "after");
    }
}

/// Runs `work` on `before`, and gives each state that a crash on the way could leave to `check`; how
/// many there were.
fn at_every_change(before: Store, work: impl FnOnce(&Store), check: impl Fn(Store)) -> usize {
    let images = Arc::new(std::sync::Mutex::new(Vec::new()));
    let taken = Arc::clone(&images);
    before
        .fs
        .set_observer(Some(Arc::new(move |fs: &SimFs, at, _: &Op| {
            let mut images = taken.lock().expect("no thread panics under it");
            images.push(fs.crash(Survival::LoseUnsynced));
            images.push(fs.crash(Survival::KeepAll));
            images.push(fs.crash(Survival::Random { seed: at }));
            images.push(fs.crash(Survival::Random { seed: !at }));
        })));
    work(&before);
    before.fs.set_observer(None);
    let images = std::mem::take(&mut *images.lock().expect("no thread panics under it"));
    let count = images.len();
    for image in images {
        check(Store::on(image));
    }
    count
}

#[test]
fn a_snapshot_is_installed_whole_whenever_the_power_is_cut() {
    let store = Store::new();
    let mut peer = store.create(1);
    fill(&store, &mut peer, 6..12);
    apply(&store, &mut peer, 10, b"old");
    store.engines.flush_kv().unwrap();
    let new = snapshot(1, 40, 8, "new");
    let outcomes = std::sync::Mutex::new([0_u32; 3]);
    let work = |store: &Store| {
        let hard_state = hard_state(8, 0, 40);
        let entries = entries(41..44, 8);
        save(
            store,
            &mut peer,
            Save {
                hard_state,
                snapshot: Some(&new),
                entries: &entries,
            },
        );
        assert_eq!(peer.first_index().unwrap(), 41);
        install(store, &mut peer);
        store.engines.raft.sync().unwrap();
    };
    let images = at_every_change(store, work, |store| {
        let mut peer = store.open(1, 1);
        let pending = peer.pending_snapshot().is_some();
        let taken = peer.first_index().unwrap() == 41;
        let outcome = match (taken, pending) {
            (false, _) => 0,
            (true, true) => 1,
            (true, false) => 2,
        };
        outcomes.lock().unwrap()[outcome] += 1;
        let row = store.row().unwrap();
        if !taken {
            assert_eq!((row, peer.apply_state().applied_index), ("old".into(), 10));
            assert_eq!(
                (peer.last_index().unwrap(), peer.hard_state().term),
                (11, 6)
            );
            return;
        }
        assert_eq!(
            (peer.last_index().unwrap(), peer.hard_state().term),
            (43, 8)
        );
        assert_eq!(peer.initial_state().unwrap().conf_state, voters(&[1, 2]));
        if pending {
            assert_eq!((row, peer.apply_state().applied_index), ("old".into(), 10));
            install(&store, &mut peer);
        }
        let store = store.crash(Survival::LoseUnsynced);
        let peer = store.open(1, 1);
        assert_eq!(
            (store.row().unwrap(), peer.apply_state().applied_index),
            ("new".into(), 40)
        );
        assert_eq!(peer.entries(41, 44, u64::MAX).unwrap(), entries(41..44, 8));
        assert!(peer.pending_snapshot().is_none());
    });
    let outcomes = outcomes.into_inner().unwrap();
    println!("{images} crashes: {outcomes:?} not taken, pending, installed");
    assert!(outcomes.iter().all(|&count| count > 0), "{outcomes:?}");
}

#[test]
fn a_snapshot_is_installed_only_when_its_intent_is_durable_and_nothing_is_applied_before() {
    let store = Store::new();
    let mut peer = store.create(1);
    let none = peer.install(Vec::new(), &mut WriteBatch::new());
    assert!(matches!(none, Err(Error::Misuse { .. })), "{none:?}");
    let new = snapshot(1, 40, 8, "new");
    let mut batch = WriteBatch::new();
    let save = Save {
        hard_state: hard_state(8, 0, 40),
        snapshot: Some(&new),
        entries: &[],
    };
    let number = peer.save(&save, &mut batch).unwrap();
    let early = peer.install(Vec::new(), &mut WriteBatch::new());
    assert!(matches!(early, Err(Error::Misuse { .. })), "{early:?}");
    store.write_raft(batch, WriteOptions::SYNC);
    peer.published(number);
    let mut state = *peer.apply_state();
    state.applied_index = 40;
    let seq = store.engines.kv.last_seq();
    let applied = peer.applied(basalt_raftstore::Applied {
        state,
        membership: None,
        seq,
    });
    assert!(matches!(applied, Err(Error::Misuse { .. })), "{applied:?}");
    let again = peer.save(&save, &mut WriteBatch::new());
    assert!(matches!(again, Err(Error::SnapshotOutOfDate)), "{again:?}");
    install(&store, &mut peer);
    assert_eq!(store.row().unwrap(), "new");
}

#[test]
fn a_destroyed_peer_is_there_or_gone_whenever_the_power_is_cut_and_a_later_one_starts_clean() {
    let store = Store::new();
    let mut peer = store.create(1);
    fill(&store, &mut peer, 6..12);
    apply(&store, &mut peer, 10, b"old");
    store.engines.flush_kv().unwrap();
    let outcomes = std::sync::Mutex::new([0_u32; 2]);
    let rest = membership(1, &voters(&[2, 3])).region;
    let work = |store: &Store| {
        let mut batch = WriteBatch::new();
        peer.destroy(&rest, &mut batch).expect("a sound disk");
        store.write_raft(batch, WriteOptions::SYNC);
    };
    let images = at_every_change(store, work, |store| {
        let state = states::region_state(&store.engines, 1).unwrap().unwrap();
        let gone = state.state() == PeerState::Tombstone;
        outcomes.lock().unwrap()[usize::from(gone)] += 1;
        if !gone {
            assert_eq!(store.open(1, 1).last_index().unwrap(), 11);
            assert_eq!(store.row().unwrap(), "old");
            return;
        }
        assert_eq!(store.row(), None);
        let error = open_error(&store, 1, 1);
        assert!(
            matches!(error, Error::Tombstone { region: 1, peer: 1 }),
            "{error}"
        );
        let later = store.open(1, 4);
        assert_eq!(
            (later.last_index().unwrap(), later.hard_state().term),
            (0, 0)
        );
    });
    let outcomes = outcomes.into_inner().unwrap();
    println!("{images} crashes: {outcomes:?} there, gone");
    assert!(outcomes.iter().all(|&count| count > 0), "{outcomes:?}");
}

#[test]
fn an_installed_snapshot_leaves_nothing_of_the_old_data_and_no_intent() {
    let store = Store::new();
    let mut peer = store.create(1);
    fill(&store, &mut peer, 6..12);
    apply(&store, &mut peer, 10, b"old");
    let greatest = vec![0xff; 300];
    let mut batch = WriteBatch::new();
    for family in &store.engines.data {
        batch.put(family, b"another", b"old");
        batch.put(family, &greatest, b"old");
    }
    let state = *peer.apply_state();
    write_applied(&store, &mut peer, batch, state, None);
    let new = snapshot(1, 40, 8, "new");
    let taken = Save {
        hard_state: hard_state(8, 0, 40),
        snapshot: Some(&new),
        entries: &[],
    };
    save(&store, &mut peer, taken);
    assert!(states::intent(&store.engines, 1).unwrap().is_some());
    install(&store, &mut peer);
    assert_eq!(states::intent(&store.engines, 1).unwrap(), None);
    assert_eq!(store.row().unwrap(), "new");
    for family in &store.engines.data {
        for key in [&b"another"[..], &greatest] {
            assert!(store.engines.kv.get(family, key).unwrap().is_none());
        }
    }
}

#[test]
fn what_is_applied_is_committed_after_a_restart() {
    let store = Store::new();
    let mut peer = store.create(1);
    let entries = entries(6..12, 6);
    let unaware = Save {
        hard_state: hard_state(6, 1, 5),
        entries: &entries,
        ..Save::default()
    };
    save(&store, &mut peer, unaware);
    // The commit index came later, and was not synced.
    let mut batch = WriteBatch::new();
    let commit = Save {
        hard_state: hard_state(6, 1, 9),
        ..Save::default()
    };
    peer.save(&commit, &mut batch).unwrap();
    store.write_raft(batch, WriteOptions::NO_SYNC);
    apply(&store, &mut peer, 8, b"8");
    store.engines.flush_kv().unwrap();
    let store = store.crash(Survival::LoseUnsynced);
    let stored = states::raft_state(&store.engines, 1).unwrap().unwrap();
    assert_eq!(stored.hard_state, hard_state(6, 1, 5));
    assert_eq!(store.open(1, 1).hard_state(), hard_state(6, 1, 8).unwrap());
}
