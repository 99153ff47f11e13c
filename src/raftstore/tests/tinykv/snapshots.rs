//! TinyKV's cluster tests of project 2C: logs that are shortened, and snapshots.

use basalt_raftstore::{faults::Faults, states};
use basalt_testkit::{Replay, Seeds, long_factor};

use super::{
    cluster::{Cluster, ELECTION},
    scenario::Scenario,
    world::MILLI,
};

/// A store that was cut off gets a snapshot, and keeps what it brought.
pub(crate) fn one_snapshot(seed: u64, faults: Faults) {
    let mut cluster = Cluster::start(seed, 3, Some(10), faults);
    let first = 0;
    for (key, value) in [("k1", "v1"), ("k2", "v2")] {
        cluster.put("lock", key, value);
        cluster.comes_to_store(first, "lock", key, Some(value));
    }
    let initial = states::initial_apply_state(true).truncated_state;
    for n in 0..3 {
        assert_eq!(cluster.apply_state(n).truncated_state, initial);
        assert_eq!(initial.map(|state| (state.index, state.term)), Some((5, 5)));
    }

    cluster.part(&[first], &[1, 2]);
    let had = cluster.apply_state(first).applied_index;
    for number in 100..115 {
        cluster.put("lock", &format!("k{number}"), &format!("v{number}"));
    }
    cluster.delete("lock", b"k2");
    cluster.pass(500 * MILLI);
    for number in 100..115 {
        assert_eq!(cluster.stored(first, "lock", &format!("k{number}")), None);
    }
    assert_eq!(cluster.world.counts.snapshots_sent, 0);
    for n in 1..3 {
        let truncated = cluster.apply_state(n).truncated_state.unwrap_or_default();
        assert!(truncated.index > had, "store {}: {truncated:?}", n + 1);
    }
    cluster.heal();

    cluster.comes_to_store(first, "lock", "k1", Some("v1"));
    cluster.comes_to_store(first, "lock", "k2", None);
    has_all(&mut cluster, first);
    assert!(cluster.world.counts.snapshots_sent > 0, "by a snapshot");

    cluster.cut_power(first);
    cluster.pass(ELECTION);
    // It has nobody to tell it.
    cluster.part(&[first], &[1, 2]);
    cluster.power_on(first);
    has_all(&mut cluster, first);
    cluster.heal();
    cluster.pass(1_000 * MILLI);
    cluster.logs_are_short(10);
    cluster.end();
}

fn has_all(cluster: &mut Cluster, n: usize) {
    cluster.comes_to_store(n, "lock", "k1", Some("v1"));
    cluster.comes_to_store(n, "lock", "k2", None);
    for number in 100..115 {
        let (key, value) = (format!("k{number}"), format!("v{number}"));
        cluster.comes_to_store(n, "lock", &key, Some(&value));
    }
}

#[test]
fn a_store_that_was_cut_off_gets_a_snapshot_and_keeps_it_over_a_power_cut() {
    let test = "a_store_that_was_cut_off_gets_a_snapshot_and_keeps_it_over_a_power_cut";
    for seed in Seeds::new(test, 10 * long_factor()) {
        let _replay = Replay::new("-p basalt-raftstore --test tinykv", test, seed);
        one_snapshot(seed, Faults::default());
    }
}

#[test]
fn logs_stay_short_and_one_clients_data_outlives_a_power_cut() {
    let scenario = Scenario {
        clients: 1,
        restarts: true,
        gc_limit: Some(100),
        ..Scenario::default()
    };
    scenario.holds("logs_stay_short_and_one_clients_data_outlives_a_power_cut");
}

#[test]
fn logs_stay_short_and_the_data_of_twenty_clients_outlives_a_power_cut() {
    let scenario = Scenario {
        clients: 20,
        restarts: true,
        gc_limit: Some(100),
        ..Scenario::default()
    };
    scenario.holds("logs_stay_short_and_the_data_of_twenty_clients_outlives_a_power_cut");
}

#[test]
fn logs_stay_short_over_a_lossy_network() {
    let scenario = Scenario {
        clients: 5,
        unreliable: true,
        gc_limit: Some(100),
        ..Scenario::default()
    };
    scenario.holds("logs_stay_short_over_a_lossy_network");
}

#[test]
fn logs_stay_short_over_a_lossy_network_and_data_outlives_a_power_cut() {
    let scenario = Scenario {
        clients: 5,
        unreliable: true,
        restarts: true,
        gc_limit: Some(100),
        ..Scenario::default()
    };
    scenario.holds("logs_stay_short_over_a_lossy_network_and_data_outlives_a_power_cut");
}

#[test]
fn logs_stay_short_in_partitions_of_a_lossy_network_and_data_outlives_a_power_cut() {
    let scenario = Scenario {
        clients: 5,
        unreliable: true,
        restarts: true,
        partitions: true,
        gc_limit: Some(100),
        ..Scenario::default()
    };
    scenario
        .holds("logs_stay_short_in_partitions_of_a_lossy_network_and_data_outlives_a_power_cut");
}
