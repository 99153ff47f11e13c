//! Snapshots for others: who gets which, and when a new one is asked for.

#[expect(dead_code, reason = "each test takes its part of what they share")]
mod support;

use basalt_engine::{WriteBatch, WriteOptions};
use basalt_raft::{Storage, StorageError};
use basalt_raftstore::Save;
use support::{
    Store, apply, entries, hard_state, make_snapshot, membership, voters, write_applied,
};

#[test]
fn a_snapshot_begun_before_a_member_was_added_is_not_for_it_and_another_one_is_asked_for() {
    let store = Store::new();
    let mut peer = store.create(1);
    let log = entries(6..12, 6);
    let save = Save {
        hard_state: hard_state(6, 1, 11),
        entries: &log,
        ..Save::default()
    };
    let mut batch = WriteBatch::new();
    let number = peer.save(&save, &mut batch).unwrap();
    store.write_raft(batch, WriteOptions::SYNC);
    peer.published(number);
    apply(&store, &mut peer, 8, b"8");

    let unavailable =
        |answer: &Result<_, _>| matches!(answer, Err(StorageError::SnapshotTemporarilyUnavailable));
    assert!(unavailable(&peer.snapshot(3)));
    assert_eq!(peer.take_snapshot_request(), Some(3));
    let made = make_snapshot(&store, &peer);
    let mut state = *peer.apply_state();
    state.applied_index = 9;
    let four = membership(1, &voters(&[1, 2, 3, 4]));
    write_applied(&store, &mut peer, WriteBatch::new(), state, Some(four));
    peer.offer_snapshot(made.clone());
    assert_eq!(peer.snapshot(3).unwrap(), made);
    assert_eq!(peer.take_snapshot_request(), None);
    assert!(unavailable(&peer.snapshot(4)));
    assert_eq!(peer.take_snapshot_request(), Some(4));
    let newer = make_snapshot(&store, &peer);
    peer.offer_snapshot(newer.clone());
    assert_eq!(peer.snapshot(4).unwrap(), newer);
    peer.withdraw_snapshot();
    assert!(unavailable(&peer.snapshot(3)));
}
