//! A region that a split makes, on a store where a message has made its peer before.

#[expect(dead_code, reason = "each test takes its part of what they share")]
mod support;

use basalt_engine::{WriteBatch, WriteOptions, fs::sim::Survival};
use basalt_raft::{Config, RawNode, Storage};
use basalt_raftstore::{Error, PeerStorage, Save, states};
use support::{Store, apply, entries, hard_state, membership, voters};

fn save(store: &Store, peer: &mut PeerStorage, save: &Save<'_>) {
    let mut batch = WriteBatch::new();
    let number = peer.save(save, &mut batch).expect("it fits");
    store.write_raft(batch, WriteOptions::SYNC);
    peer.published(number);
}

/// A peer that a message has made, and that has promised something.
fn promise(store: &Store, peer: u64, term: u64, vote: u64) {
    let promise = Save {
        hard_state: hard_state(term, vote, 0),
        ..Save::default()
    };
    save(store, &mut store.open(1, peer), &promise);
}

#[test]
fn a_peer_that_has_voted_before_its_region_was_split_off_keeps_its_vote() {
    let members = membership(1, &voters(&[1, 2, 3]));
    for (promised, kept) in [
        ((7, 2), (7, 2)),
        ((5, 3), (5, 3)),
        // A term before that of the new log: nobody counts votes in it any more.
        ((4, 3), (5, 0)),
    ] {
        let store = Store::new();
        promise(&store, 1, promised.0, promised.1);
        PeerStorage::create(&store.engines, &members, 1).unwrap();
        let store = store.crash(Survival::LoseUnsynced);
        let peer = store.open(1, 1);
        assert_eq!(peer.hard_state(), hard_state(kept.0, kept.1, 5).unwrap());
        assert_eq!(
            (peer.first_index().unwrap(), peer.last_index().unwrap()),
            (6, 5)
        );
        assert_eq!(peer.term(5).unwrap(), 5);
        let mut config = Config::new(1);
        config.applied = peer.apply_state().applied_index;
        RawNode::new(config, peer).expect("a good start");
    }
}

#[test]
fn a_new_region_and_what_it_was_split_from_are_there_together_or_not_at_all() {
    let store = Store::new();
    store.create(1);
    let mut parent = membership(1, &voters(&[1, 2, 3]));
    parent.region.end_key = "m".into();
    let mut child = membership(2, &voters(&[1, 2, 3]));
    child.region.start_key = "m".into();
    let mut batch = WriteBatch::new();
    let state = states::normal(&parent.region, &parent.conf_state, 1);
    states::put_region_state(&store.engines, &mut batch, 1, &state);
    PeerStorage::create_in(&store.engines, &child, 1, &mut batch).unwrap();
    assert_eq!(batch.len(), 3);
    let options = WriteOptions::NO_SYNC;
    store.engines.kv.write(batch, options).unwrap();
    let before = store.crash(Survival::LoseUnsynced);
    store.engines.flush_kv().unwrap();
    let after = store.crash(Survival::LoseUnsynced);
    for (store, split) in [(before, false), (after, true)] {
        let parent = store.open(1, 1).membership().unwrap().region.clone();
        assert_eq!(parent.end_key.is_empty(), !split);
        assert_eq!(store.open(2, 1).membership().is_some(), split);
    }
}

#[test]
fn an_older_peer_is_not_made_where_a_message_has_made_a_later_one() {
    let store = Store::new();
    promise(&store, 9, 7, 2);
    let members = membership(1, &voters(&[1, 2, 3]));
    let refused = PeerStorage::create(&store.engines, &members, 1);
    assert!(
        matches!(
            refused,
            Err(Error::OtherPeer {
                asked: 1,
                present: 9,
                ..
            })
        ),
        "{refused:?}"
    );
    assert_eq!(states::region_state(&store.engines, 1).unwrap(), None);
    assert_eq!(store.open(1, 9).hard_state(), hard_state(7, 2, 0).unwrap());
}

#[test]
fn the_state_of_another_peer_beside_applied_entries_is_corruption_and_stays_to_be_looked_at() {
    let store = Store::new();
    let mut peer = store.create(1);
    let all = entries(6..12, 6);
    let log = Save {
        hard_state: hard_state(6, 1, 11),
        entries: &all,
        ..Save::default()
    };
    save(&store, &mut peer, &log);
    apply(&store, &mut peer, 8, b"8");
    let mut state = states::raft_state(&store.engines, 1).unwrap().unwrap();
    state.peer_id = 0;
    let mut batch = WriteBatch::new();
    states::put_raft_state(&store.engines, &mut batch, 1, &state);
    store.write_raft(batch, WriteOptions::SYNC);
    let error = PeerStorage::open(store.engines.clone(), 1, 1, 0).expect_err("not to be opened");
    assert!(
        matches!(error, Error::Corruption { region: 1, .. }),
        "{error}"
    );
    assert_eq!(states::raft_state(&store.engines, 1).unwrap(), Some(state));
}
