//! A snapshot that is installed where entries are applied, while the peer's storage is used on.

#[expect(dead_code, reason = "each test takes its part of what they share")]
mod support;

use basalt_engine::{WriteBatch, WriteOptions, fs::sim::Survival};
use basalt_raft::Storage;
use basalt_raftstore::{Error, PeerStorage, Save, states};
use support::{Store, entries, hard_state, install, membership, snapshot, voters};

fn take(store: &Store, peer: &mut PeerStorage, index: u64, content: &str) {
    let taken = snapshot(1, index, 8, content);
    let save = Save {
        hard_state: hard_state(8, 0, index),
        snapshot: Some(&taken),
        entries: &[],
    };
    let mut batch = WriteBatch::new();
    let number = peer.save(&save, &mut batch).expect("it fits");
    store.write_raft(batch, WriteOptions::SYNC);
    peer.published(number);
}

#[test]
fn a_snapshot_is_installed_on_another_thread_while_the_log_goes_on() {
    let store = Store::new();
    let mut peer = store.create(1);
    take(&store, &mut peer, 40, "one");
    let installation = peer.installation().unwrap();
    let running = std::thread::spawn(move || installation.run(Vec::new()));
    let log = entries(41..44, 8);
    let save = Save {
        entries: &log,
        ..Save::default()
    };
    let mut batch = WriteBatch::new();
    peer.save(&save, &mut batch).unwrap();
    let done = running.join().unwrap().unwrap();
    assert!(peer.pending_snapshot().is_some());
    peer.installed(done, &mut batch).unwrap();
    store.write_raft(batch, WriteOptions::SYNC);
    assert_eq!(peer.apply_state().applied_index, 40);
    let store = store.crash(Survival::LoseUnsynced);
    let peer = store.open(1, 1);
    assert_eq!(
        (peer.first_index().unwrap(), peer.last_index().unwrap()),
        (41, 43)
    );
    assert!(peer.pending_snapshot().is_none());
}

#[test]
fn a_newer_snapshot_that_comes_during_an_installation_keeps_its_intent() {
    let store = Store::new();
    let mut peer = store.create(1);
    take(&store, &mut peer, 40, "one");
    let first = peer.installation().unwrap();
    take(&store, &mut peer, 60, "two");
    let done = first.run(Vec::new()).unwrap();
    let mut batch = WriteBatch::new();
    peer.installed(done, &mut batch).unwrap();
    assert!(batch.is_empty());
    assert_eq!(peer.apply_state().applied_index, 40);
    let again = first.run(Vec::new()).unwrap();
    let again = peer.installed(again, &mut batch);
    assert!(matches!(again, Err(Error::Misuse { .. })), "{again:?}");

    for (store, mut peer) in [
        {
            let crashed = store.crash(Survival::LoseUnsynced);
            let peer = crashed.open(1, 1);
            (crashed, peer)
        },
        (store, peer),
    ] {
        assert_eq!(peer.first_index().unwrap(), 61);
        install(&store, &mut peer);
        assert_eq!(store.row().unwrap(), "two");
        assert_eq!(states::intent(&store.engines, 1).unwrap(), None);
    }
}

#[test]
fn nothing_is_installed_for_a_peer_that_was_removed_meanwhile() {
    let store = Store::new();
    let mut peer = store.create(1);
    take(&store, &mut peer, 40, "one");
    let installation = peer.installation().unwrap();
    let rest = membership(1, &voters(&[2, 3])).region;
    peer.destroy(&rest, &mut WriteBatch::new()).unwrap();
    let refused = installation.run(Vec::new());
    assert!(
        matches!(refused, Err(Error::Tombstone { region: 1, peer: 1 })),
        "{refused:?}"
    );
    assert_eq!(states::apply_state(&store.engines, 1).unwrap(), None);
}
