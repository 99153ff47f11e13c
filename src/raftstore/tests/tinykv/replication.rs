//! TinyKV's cluster tests of project 2B: replication, without snapshots.

use basalt_raftstore::faults::Faults;
use basalt_testkit::{Replay, Seeds, history::Operation, long_factor};

use super::{cluster::Cluster, scenario::Scenario};

#[test]
fn one_client_finds_all_that_it_has_put() {
    let scenario = Scenario {
        clients: 1,
        ..Scenario::default()
    };
    scenario.holds("one_client_finds_all_that_it_has_put");
}

#[test]
fn five_clients_find_all_that_they_have_put() {
    let scenario = Scenario {
        clients: 5,
        ..Scenario::default()
    };
    scenario.holds("five_clients_find_all_that_they_have_put");
}

#[test]
fn a_network_that_loses_ever_more_messages_loses_no_write() {
    let scenario = Scenario {
        clients: 5,
        unreliable: true,
        ..Scenario::default()
    };
    scenario.holds("a_network_that_loses_ever_more_messages_loses_no_write");
}

/// The leader with two others goes on; with one other it does not, the rest does, and it catches up.
pub(crate) fn one_partition(seed: u64, faults: Faults) {
    let mut cluster = Cluster::start(seed, 5, None, faults);
    let leader = cluster.leader();
    let others: Vec<usize> = (0..5).filter(|n| *n != leader).collect();

    let (major, minor) = ([leader, others[0], others[1]], [others[2], others[3]]);
    cluster.part(&major, &minor);
    cluster.put("default", "k1", "v1");
    assert_eq!(cluster.get("default", "k1"), Some(b"v1".to_vec()));
    for n in minor {
        assert_eq!(cluster.stored(n, "default", "k1"), None, "store {}", n + 1);
    }
    assert_eq!(cluster.leader(), leader);
    cluster.heal();

    let (old, new) = ([leader, others[0]], [others[1], others[2], others[3]]);
    cluster.part(&old, &new);
    assert_eq!(cluster.get("default", "k1"), Some(b"v1".to_vec()));
    cluster.put("default", "k1", "changed");
    let stale = cluster.ask_at(leader, "default", Operation::get("k1"));
    assert!(stale.is_err(), "the old leader answers {stale:?}");
    for n in old {
        cluster.comes_to_store(n, "default", "k1", Some("v1"));
    }
    assert!(new.contains(&cluster.leader()), "a new leader");
    cluster.heal();

    cluster.put("default", "k2", "v2");
    for n in 0..5 {
        cluster.comes_to_store(n, "default", "k2", Some("v2"));
        cluster.comes_to_store(n, "default", "k1", Some("changed"));
    }
    cluster.end();
}

#[test]
fn the_side_of_a_partition_with_most_stores_goes_on_and_the_other_catches_up_later() {
    let test = "the_side_of_a_partition_with_most_stores_goes_on_and_the_other_catches_up_later";
    for seed in Seeds::new(test, 5 * long_factor()) {
        let _replay = Replay::new("-p basalt-raftstore --test tinykv", test, seed);
        one_partition(seed, Faults::default());
    }
}

#[test]
fn one_client_finds_all_that_it_has_put_in_ever_new_partitions() {
    let scenario = Scenario {
        clients: 1,
        partitions: true,
        ..Scenario::default()
    };
    scenario.holds("one_client_finds_all_that_it_has_put_in_ever_new_partitions");
}

#[test]
fn five_clients_find_all_that_they_have_put_in_ever_new_partitions() {
    let scenario = Scenario {
        clients: 5,
        partitions: true,
        ..Scenario::default()
    };
    scenario.holds("five_clients_find_all_that_they_have_put_in_ever_new_partitions");
}

#[test]
fn what_one_client_has_put_outlives_a_power_cut_everywhere() {
    let scenario = Scenario {
        clients: 1,
        restarts: true,
        ..Scenario::default()
    };
    scenario.holds("what_one_client_has_put_outlives_a_power_cut_everywhere");
}

#[test]
fn what_five_clients_have_put_outlives_a_power_cut_everywhere() {
    let scenario = Scenario {
        clients: 5,
        restarts: true,
        ..Scenario::default()
    };
    scenario.holds("what_five_clients_have_put_outlives_a_power_cut_everywhere");
}

#[test]
fn what_was_put_over_a_lossy_network_outlives_a_power_cut_everywhere() {
    let scenario = Scenario {
        clients: 5,
        unreliable: true,
        restarts: true,
        ..Scenario::default()
    };
    scenario.holds("what_was_put_over_a_lossy_network_outlives_a_power_cut_everywhere");
}

#[test]
fn what_was_put_in_partitions_outlives_a_power_cut_everywhere() {
    let scenario = Scenario {
        clients: 5,
        partitions: true,
        restarts: true,
        ..Scenario::default()
    };
    scenario.holds("what_was_put_in_partitions_outlives_a_power_cut_everywhere");
}

#[test]
fn what_was_put_in_partitions_of_a_lossy_network_outlives_a_power_cut_everywhere() {
    let scenario = Scenario {
        clients: 5,
        unreliable: true,
        partitions: true,
        restarts: true,
        ..Scenario::default()
    };
    scenario.holds("what_was_put_in_partitions_of_a_lossy_network_outlives_a_power_cut_everywhere");
}
