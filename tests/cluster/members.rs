//! Stores that join, are replaced, and are removed.

use basaltkv::proto::basaltpb::State;

use crate::processes::{Cluster, done, eventually, free_addrs, run};

/// Starts the store 4, which joins the cluster and waits.
fn join(cluster: &mut Cluster) {
    let addr = free_addrs(1).remove(0);
    let through = cluster.addr(1).to_owned();
    cluster.addrs.push(addr.clone());
    cluster.spawn(4, &["--join", &through, "--addr", &addr]);
    let line = cluster.store(4).line();
    assert!(
        line.contains("as store 4 of cluster basalt, and waits"),
        "{line}"
    );
}

#[test]
fn a_lost_store_is_replaced_by_an_empty_one_that_gets_everything() {
    let mut cluster = Cluster::start();
    let all = cluster.all();
    for number in 0..50 {
        done(&["put", &format!("k{number:02}"), "v", "--addr", &all]);
    }
    let lost = cluster.leader();
    cluster.kill(lost);
    join_through_a_living_one(&mut cluster, lost);
    let alive = cluster.addr(lost % 3 + 1).to_owned();
    let text = done(&[
        "member",
        "replace",
        &lost.to_string(),
        "4",
        "--addr",
        &alive,
    ]);
    for words in ["store 4 learns", "store 4 votes", "is removed"] {
        assert!(text.contains(words), "{words:?} is not in {text:?}");
    }
    let pairs = done(&["scan", "--addr", cluster.addr(4)]);
    assert_eq!(pairs.lines().count(), 50);
    let members = done(&["member", "list", "--addr", &alive]);
    assert!(members.contains(" removed "), "{members}");

    let status = done(&["status", "--addr", cluster.addr(4)]);
    assert!(status.contains("snapshot   received at index "), "{status}");
    let regions = done(&["region", "show", "1", "--json", "--addr", &alive]);
    let regions = regions
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let told: Vec<_> = regions
        .map(|line| line["region"]["last_snapshot"].clone())
        .filter(|snapshot| !snapshot.is_null())
        .collect();
    assert_eq!(told.len(), 2, "{told:?}");
    for what in ["sent", "received"] {
        let has = |one: &serde_json::Value| one["what"] == what && one["bytes"] != 0;
        assert!(told.iter().any(has), "{what}: {told:?}");
    }

    // The new one counts: with one more lost there is still a majority.
    let next = lost % 3 + 1;
    let rest = next % 3 + 1;
    cluster.kill(next);
    let left = format!("{},{}", cluster.addr(rest), cluster.addr(4));
    done(&["put", "k", "v", "--addr", &left]);

    // And the lost one, should it come back, is told.
    let (code, _, stderr) = comes_back(&mut cluster, lost);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("was removed from the cluster"), "{stderr}");
}

fn join_through_a_living_one(cluster: &mut Cluster, lost: usize) {
    let addr = free_addrs(1).remove(0);
    let through = cluster.addr(lost % 3 + 1).to_owned();
    cluster.addrs.push(addr.clone());
    cluster.spawn(4, &["--join", &through, "--addr", &addr]);
    let line = cluster.store(4).line();
    assert!(
        line.contains("as store 4 of cluster basalt, and waits"),
        "{line}"
    );
}

/// Starts a removed store again: it serves until it hears that it was removed, and refuses to start from then on.
fn comes_back(cluster: &mut Cluster, id: usize) -> (i32, String, String) {
    cluster.spawn(id, &[]);
    eventually("it hears that it was removed", || {
        let status = cluster.status(id)?;
        (status.state() == State::Fenced).then_some(())
    });
    cluster.stop(id);
    run(&Cluster::args(&cluster.dir(id), &[]))
}

#[test]
fn the_leader_hands_over_before_it_is_removed_and_then_says_so() {
    let mut cluster = Cluster::start();
    join(&mut cluster);
    let leader = cluster.leader();
    let at = cluster.addr(leader).to_owned();
    done(&["put", "k", "v", "--addr", &at]);
    done(&["member", "add", "4", "--addr", &at]);
    done(&["member", "remove", &leader.to_string(), "--addr", &at]);
    let status = eventually("the removed store is fenced", || {
        let status = cluster.status(leader)?;
        (status.state() == State::Fenced).then_some(status)
    });
    assert!(
        status.reason.contains("was removed from the cluster"),
        "{}",
        status.reason
    );
    let (code, _, stderr) = run(&["get", "k", "--addr", &at]);
    assert_eq!(code, 1);
    assert!(stderr.contains("FENCED"), "{stderr}");
    assert_eq!(done(&["get", "k", "--addr", cluster.addr(4)]), "v\n");
    // Three are left, and one of them may be lost.
    let next = cluster.leader();
    assert_ne!(next, leader);
    let to = (1..=4).find(|id| *id != leader && *id != next).unwrap();
    let text = done(&[
        "transfer-leader",
        &to.to_string(),
        "--addr",
        cluster.addr(4),
    ]);
    assert!(text.contains(&format!("store {to} leads")), "{text}");
    assert_eq!(cluster.leader(), to);
}

#[test]
fn a_removal_that_would_leave_no_living_majority_is_refused() {
    let mut cluster = Cluster::start();
    let leader = cluster.leader();
    let dead = leader % 3 + 1;
    let alive = dead % 3 + 1;
    cluster.kill(dead);
    let at = cluster.addr(leader).to_owned();
    eventually("the leader misses it", || {
        let region = cluster.region(leader)?;
        let mut followers = region.followers.iter();
        followers.any(|one| !one.active).then_some(())
    });
    let (code, _, stderr) = run(&["member", "remove", &alive.to_string(), "--addr", &at]);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("no majority"), "{stderr}");
    done(&["member", "remove", &dead.to_string(), "--addr", &at]);
    done(&["put", "k", "v", "--addr", &at]);
}

#[test]
fn the_last_store_of_a_lost_majority_is_made_to_serve_alone_and_grows_again() {
    let mut cluster = Cluster::start();
    let all = cluster.all();
    for number in 0..10 {
        done(&["put", &format!("k{number}"), "v", "--addr", &all]);
    }
    cluster.catches_up(1);
    for id in [2, 3] {
        cluster.kill(id);
    }
    let dir = cluster.dir(1);
    let path = dir.to_str().unwrap();
    let (code, _, stderr) = run(&["force-single", "--path", path, "--yes"]);
    assert_eq!(code, 1, "a running store: {stderr}");
    cluster.stop(1);
    let (code, _, stderr) = run(&["force-single", "--path", path]);
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("may lose the newest"), "{stderr}");
    let text = done(&["force-single", "--path", path, "--yes"]);
    assert_eq!(text, "region 1: store 1 is its only member\n");
    cluster.restart(1);
    cluster.leader();
    let at = cluster.addr(1).to_owned();
    assert_eq!(done(&["scan", "--addr", &at]).lines().count(), 10);
    done(&["put", "k", "alone", "--addr", &at]);
    join(&mut cluster);
    done(&["member", "add", "4", "--addr", &at]);
    assert_eq!(done(&["get", "k", "--addr", cluster.addr(4)]), "alone\n");
    // A lost one that comes back all the same is told that it is none of them.
    cluster.spawn(2, &[]);
    eventually("it hears that it was removed", || {
        let status = cluster.status(2)?;
        (status.state() == State::Fenced).then_some(())
    });
}
