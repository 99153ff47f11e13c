//! What the loss of a store costs, and what survives it.

use std::time::{Duration, Instant};

use crate::{
    clients::Load,
    processes::{Cluster, done, eventually},
};

/// The most time without service after a leader's death. The aim is three seconds; the rest is for a machine that
/// does other things.
const SERVICE_GAP: Duration = Duration::from_secs(5);

/// Demands that writes go on after a fault at `then`; prints how long it took.
#[track_caller]
fn assert_back(load: &Load, then: Instant, what: &str) {
    let took = eventually("writes go on", || load.back_after(then));
    println!("{what}: writes went on after {} ms", took.as_millis());
    assert!(took < SERVICE_GAP, "{what}: {took:?}");
    go_on(load, then);
}

/// Lets the clients see something of what came after a fault.
#[track_caller]
fn go_on(load: &Load, then: Instant) {
    eventually("many writes", || {
        (load.written_after(then) >= 150).then_some(())
    });
}

#[test]
fn kills_and_pauses_of_leaders_cost_seconds_and_no_client_sees_a_contradiction() {
    let mut cluster = Cluster::start();
    let load = Load::begin(&cluster.addrs);
    assert_back(&load, Instant::now(), "undisturbed");

    let killed = cluster.leader();
    let then = Instant::now();
    cluster.kill(killed);
    assert_back(&load, then, "leader killed");
    cluster.restart(killed);
    cluster.catches_up(killed);

    let paused = cluster.leader();
    let then = Instant::now();
    cluster.store(paused).signal("STOP");
    assert_back(&load, then, "leader paused");
    cluster.store(paused).signal("CONT");
    cluster.catches_up(paused);

    let follower = cluster.leader() % 3 + 1;
    let then = Instant::now();
    cluster.kill(follower);
    assert_back(&load, then, "follower killed");
    cluster.restart(follower);
    cluster.catches_up(follower);
    load.end();
}

#[test]
fn a_leader_that_is_told_to_stop_hands_over_first() {
    let mut cluster = Cluster::start();
    let load = Load::begin(&cluster.addrs);
    assert_back(&load, Instant::now(), "undisturbed");
    let leader = cluster.leader();
    let then = Instant::now();
    cluster.stop(leader);
    let took = eventually("writes go on", || load.back_after(then));
    println!(
        "leader stopped: writes went on after {} ms",
        took.as_millis()
    );
    // An election would take a second at the least.
    assert!(took < Duration::from_millis(900), "{took:?}");
    go_on(&load, then);
    load.end();
}

#[test]
fn all_at_once_killed_stores_come_back_with_everything() {
    let mut cluster = Cluster::start();
    let all = cluster.all();
    for number in 0..20 {
        let (key, value) = (format!("k{number}"), format!("v{number}"));
        done(&["put", &key, &value, "--addr", &all]);
    }
    for id in 1..=3 {
        cluster.kill(id);
    }
    for id in 1..=3 {
        cluster.restart(id);
    }
    let pairs = done(&["scan", "--addr", &all]);
    assert_eq!(pairs.lines().count(), 20, "{pairs}");
    assert_eq!(done(&["get", "k7", "--addr", &all]), "v7\n");
}

#[test]
fn a_follower_that_was_away_past_log_gc_comes_back_by_a_snapshot() {
    let mut cluster = Cluster::start();
    let all = cluster.all();
    done(&["put", "before", "v", "--addr", &all]);
    let leader = cluster.leader();
    let away = leader % 3 + 1;
    cluster.catches_up(away);
    let had = cluster.region(away).unwrap().last_index;
    cluster.kill(away);
    let at = cluster.addr(leader).to_owned();
    eventually("the leader deletes what the follower needs", || {
        let load = "bench put --threads 8 --duration 2 --value-size 1000000 --keys 50 --addr";
        let mut args: Vec<&str> = load.split(' ').collect();
        args.push(&at);
        done(&args);
        (cluster.region(leader)?.truncated > had).then_some(())
    });
    cluster.restart(away);
    cluster.catches_up(away);
    let region = cluster.region(away).unwrap();
    assert!(region.truncated > had, "{region:?}");
    let name = away.to_string();
    done(&["transfer-leader", &name, "--addr", &all]);
    assert_eq!(
        done(&["get", "before", "--addr", cluster.addr(away)]),
        "v\n"
    );
}
