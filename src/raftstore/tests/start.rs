//! What a store finds when it starts.

#[expect(dead_code, reason = "each test takes its part of what they share")]
mod support;

use basalt_engine::{WriteBatch, WriteOptions, fs::sim::Survival};
use basalt_raftstore::{Engines, Error, PeerAt, Save, SaveNumber, keys, peers, states};
use support::{Store, hard_state, membership, snapshot, voters};

fn save(store: &Store, region: u64, peer: u64, save: &Save<'_>) -> SaveNumber {
    let mut batch = WriteBatch::new();
    let number = store
        .open(region, peer)
        .save(save, &mut batch)
        .expect("it fits");
    store.write_raft(batch, WriteOptions::SYNC);
    number
}

#[test]
fn a_store_starts_with_its_peers_and_those_whose_first_snapshot_waits_and_clears_what_was_removed()
{
    let store = Store::new();
    let vote = Save {
        hard_state: hard_state(7, 2, 0),
        ..Save::default()
    };
    store.create(1);
    for region in [2, 3] {
        let peer = store.create(region);
        save(&store, region, 1, &vote);
        let rest = membership(region, &voters(&[2, 3])).region;
        // Its end in raftdb is lost in the crash.
        peer.destroy(&rest, &mut WriteBatch::new()).unwrap();
    }
    let taken = snapshot(3, 40, 8, "new");
    let taken = Save {
        hard_state: hard_state(8, 0, 40),
        snapshot: Some(&taken),
        entries: &[],
    };
    save(&store, 3, 7, &taken);
    save(&store, 4, 9, &vote);

    let store = store.crash(Survival::LoseUnsynced);
    assert!(states::raft_state(&store.engines, 2).unwrap().is_some());
    let found = peers(&store.engines).unwrap();
    let wanted = [(1, 1), (3, 7)].map(|(region, peer)| PeerAt { region, peer });
    assert_eq!(found, wanted);
    let store = store.crash(Survival::LoseUnsynced);
    assert_eq!(states::raft_state(&store.engines, 2).unwrap(), None);
    assert!(store.open(3, 7).pending_snapshot().is_some());
    assert_eq!(store.open(4, 9).hard_state(), hard_state(7, 2, 0).unwrap());
}

#[test]
fn an_intent_without_the_raft_state_of_its_peer_is_corruption() {
    let store = Store::new();
    let taken = snapshot(3, 40, 8, "new");
    let taken = Save {
        hard_state: hard_state(8, 0, 40),
        snapshot: Some(&taken),
        entries: &[],
    };
    save(&store, 3, 7, &taken);
    let mut batch = WriteBatch::new();
    batch.delete(&store.engines.states, &keys::raft_state(3));
    store.write_raft(batch, WriteOptions::SYNC);
    let error = peers(&store.engines).expect_err("half of two records that belong together");
    assert!(
        matches!(error, Error::Corruption { region: 3, .. }),
        "{error}"
    );
}

#[test]
fn the_memtables_of_kvdb_are_as_large_as_was_said_last() {
    let bytes = |engines: &Engines| {
        let all = engines.data.iter().chain([&engines.local]);
        let mut all = all.map(|family| family.options().write_buffer_bytes);
        let first = all.next().expect("there are some");
        assert!(all.all(|other| other == first));
        first
    };
    let store = Store::new();
    assert_eq!(bytes(&store.engines), 64 << 20);
    let (kv, raft) = (store.engines.kv.clone(), store.engines.raft.clone());
    let small = Engines::with_write_buffer(kv, raft, 64 << 10).expect("a sound disk");
    assert_eq!(bytes(&small), 64 << 10);
    let again = store.crash(Survival::LoseUnsynced);
    assert_eq!(bytes(&again.engines), 64 << 10);
}
