//! Entries that were handed out to be applied when a snapshot overtakes them.

#[expect(dead_code, reason = "each test takes its part of what they share")]
mod support;

use basalt_engine::{WriteBatch, WriteOptions, fs::sim::Survival};
use basalt_raftstore::Save;
use prost::Message;
use support::{
    Store, apply, entries, hard_state, install, membership, snapshot, unpack, voters, write_applied,
};

#[test]
fn what_was_handed_out_before_a_snapshot_is_applied_behind_its_save_and_before_its_installation() {
    let store = Store::new();
    let mut peer = store.create(1);
    let entries = entries(6..12, 6);
    // Since entry 10 what is behind "m" belongs to another region.
    let mut members = membership(1, &voters(&[1, 2, 3]));
    members.region.end_key = "m".into();
    let mut new = snapshot(1, 40, 8, "new");
    let mut data = unpack(&new.data);
    data.region = Some(members.region.clone());
    new.data = data.encode_to_vec().into();
    for save in [
        Save {
            hard_state: hard_state(6, 1, 11),
            entries: &entries,
            ..Save::default()
        },
        Save {
            hard_state: hard_state(8, 0, 40),
            snapshot: Some(&new),
            entries: &[],
        },
    ] {
        let mut batch = WriteBatch::new();
        let number = peer.save(&save, &mut batch).expect("it fits");
        store.write_raft(batch, WriteOptions::SYNC);
        peer.published(number);
    }
    apply(&store, &mut peer, 9, b"9");
    let mut state = *peer.apply_state();
    state.applied_index = 10;
    let mut batch = WriteBatch::new();
    let family = store.engines.data[0].clone();
    batch.put(&family, b"neighbour", b"its own");
    write_applied(&store, &mut peer, batch, state, Some(members));
    assert_eq!(peer.apply_state().applied_index, 10);

    install(&store, &mut peer);
    assert_eq!(peer.apply_state().applied_index, 40);
    assert_eq!(store.row().unwrap(), "new");
    let neighbour = store.engines.kv.get(&family, b"neighbour").unwrap();
    assert_eq!(
        neighbour.as_deref(),
        Some(&b"its own"[..]),
        "not the range of before"
    );
    let store = store.crash(Survival::LoseUnsynced);
    assert_eq!(store.open(1, 1).apply_state().applied_index, 40);
}
