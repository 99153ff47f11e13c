//! A peer that is removed, and a later one of its region, while saves of the first are on their way.

#[expect(dead_code, reason = "each test takes its part of what they share")]
mod support;

use basalt_engine::{WriteBatch, WriteOptions, fs::sim::Survival};
use basalt_raft::Storage;
use basalt_raftstore::{Save, keys, states};
use support::{Store, entries, hard_state, membership, voters};

#[test]
fn nothing_of_a_removed_peer_comes_back_with_saves_that_were_collected_before() {
    for later in [false, true] {
        let store = Store::new();
        let mut peer = store.create(1);
        let log = entries(6..9, 6);
        let last = Save {
            hard_state: hard_state(6, 1, 5),
            entries: &log,
            ..Save::default()
        };
        let mut turn = WriteBatch::new();
        peer.save(&last, &mut turn).unwrap();
        let rest = membership(1, &voters(&[2, 3])).region;
        peer.destroy(&rest, &mut turn).unwrap();
        if later {
            let vote = Save {
                hard_state: hard_state(7, 2, 0),
                ..Save::default()
            };
            store.open(1, 4).save(&vote, &mut turn).unwrap();
        }
        store.write_raft(turn, WriteOptions::SYNC);
        let store = store.crash(Survival::LoseUnsynced);
        let kept = states::raft_state(&store.engines, 1).unwrap();
        assert_eq!(kept.map(|state| state.peer_id), later.then_some(4));
        let entry = store.engines.raft.get(&store.engines.log, &keys::log(1, 8));
        assert!(entry.unwrap().is_none());
        let peer = store.open(1, 4);
        let term = if later { 7 } else { 0 };
        assert_eq!(
            (peer.last_index().unwrap(), peer.hard_state().term),
            (0, term)
        );
    }
}
