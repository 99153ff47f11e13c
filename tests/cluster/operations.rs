//! Backups, insight and the doctor over three stores.

use std::path::Path;

use serde_json::Value;

use crate::processes::{Cluster, Process, done, eventually, free_addrs, run};

fn json(args: &[&str]) -> Value {
    let text = done(&[args, &["--json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The codes that a doctor finds, and whether any is more than a note; without those of the machine that the tests run on.
fn codes(addrs: &str) -> (bool, Vec<String>) {
    let (code, stdout, _) = run(&["doctor", "--json", "--addr", addrs]);
    let lines = stdout.lines();
    let findings = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
    let all: Vec<_> = findings.collect();
    let is_wrong = |finding: &&Value| finding["severity"] != "note";
    assert_eq!(code == 1, all.iter().any(|finding| is_wrong(&finding)));
    let of_the_machine = ["DISK-FULL-SOON", "OPEN-FILES"].map(Value::from);
    let ours = all
        .iter()
        .filter(|finding| !of_the_machine.contains(&finding["code"]));
    let wrong = ours.clone().any(|finding| is_wrong(&finding));
    let mut codes: Vec<_> = ours
        .map(|finding| finding["code"].as_str().unwrap().to_owned())
        .collect();
    codes.sort();
    codes.dedup();
    (wrong, codes)
}

fn rows(addr: &str) -> usize {
    done(&["scan", "k", "--limit", "1000", "--addr", addr])
        .lines()
        .count()
}

#[test]
fn a_cluster_comes_back_from_its_leaders_backup_as_a_new_cluster_or_a_standalone_server() {
    let root = tempfile::tempdir().unwrap();
    let backups = root.path().join("backups");
    let mut cluster = Cluster::start();
    let all = cluster.all();
    for id in 1..=3 {
        cluster.stop(id);
        cluster.spawn(id, &["--backup-dir", text(&backups)]);
        let line = cluster.store(id).line();
        assert!(line.contains("of cluster"), "{line}");
    }
    cluster.leader();
    for number in 0..30 {
        done(&["put", &format!("k{number:02}"), "v", "--addr", &all]);
    }
    let made = eventually("a leader that is confirmed", || {
        let made = json(&["backup", "create", "--addr", &all]);
        (made["regions"][0]["current"] == true).then_some(made)
    });
    assert_eq!(made["backup"]["kind"], "store");
    let told = made["backup"]["description"].as_str().unwrap();
    assert!(
        told.contains("of cluster") && told.contains("region 1 from index"),
        "{told}"
    );
    done(&["put", "k99", "later", "--addr", &all]);

    // One that follows says that it may be behind.
    let leader = cluster.leader();
    let follower = cluster.addr(leader % 3 + 1).to_owned();
    let other = json(&["backup", "create", "--addr", &follower]);
    assert_eq!(other["regions"][0]["current"], false);
    assert_eq!(other["regions"][0]["leader_store_id"], leader);
    let id = made["backup"]["id"].to_string();

    // What they hold, step by step and in figures.
    let explained = json(&["explain", "k00", "--addr", &follower]);
    assert_eq!(explained["outcome"], "found");
    let stat = json(&["stat", "--addr", &follower]);
    let names: Vec<_> = stat["engines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|engine| engine["engine"].clone())
        .collect();
    assert_eq!(names, ["kv", "raft"]);
    assert_eq!(json(&["compact", "--addr", &follower])["ok"], true);
    let peers = done(&["peer", "list", "--region", "1", "--json", "--addr", &all]);
    assert_eq!(peers.lines().count(), 3, "{peers}");
    assert_eq!(peers.matches("\"role\":\"leader\"").count(), 1, "{peers}");
    assert_eq!(codes(&all), (false, Vec::new()));

    for id in 1..=3 {
        cluster.stop(id);
    }
    restores(root.path(), &backups, &id);
}

/// The old cluster is gone.
fn restores(root: &Path, backups: &Path, id: &str) {
    let restore = |to: &Path, more: &[&str]| {
        let args = [
            "restore",
            "--dir",
            text(backups),
            "--id",
            id,
            "--to",
            text(to),
        ];
        run(&[&args[..], more].concat())
    };
    let (code, _, stderr) = restore(&root.join("refused"), &[]);
    assert!(code == 2 && stderr.contains("--as cluster"), "{stderr}");
    assert!(!root.join("refused").exists());

    let alone = root.join("alone");
    let (code, stdout, stderr) = restore(&alone, &["--as", "standalone"]);
    assert!(
        code == 0 && stdout.contains("region 1: as of index"),
        "{stdout}{stderr}"
    );
    let addr = free_addrs(1).remove(0);
    let mut server = Process::spawn(&Cluster::args(&alone, &["--addr", &addr]));
    assert!(!server.line().is_empty(), "it serves");
    assert_eq!(rows(&addr), 30, "one point: without what came later");
    drop(server);
    assert!(done(&["check", text(&alone)]).ends_with("ok\n"));

    let again = root.join("again");
    let addrs = free_addrs(2);
    let (code, _, stderr) = restore(
        &again,
        &[
            "--as",
            "cluster",
            "--addr",
            &addrs[0],
            "--cluster-name",
            "again",
        ],
    );
    assert_eq!(code, 0, "{stderr}");
    let mut first = Process::spawn(&Cluster::args(&again, &[]));
    let line = first.line();
    assert!(line.contains("as store 1 of cluster again"), "{line}");
    eventually("it leads", || {
        (run(&["get", "k00", "--addr", &addrs[0]]).0 == 0).then_some(())
    });
    assert_eq!(rows(&addrs[0]), 30);
    done(&["put", "k50", "new", "--addr", &addrs[0]]);
    let joined = root.join("joined");
    let mut second = Process::spawn(&Cluster::args(
        &joined,
        &["--join", &addrs[0], "--addr", &addrs[1]],
    ));
    assert!(second.line().contains("and waits"));
    done(&["member", "add", "2", "--addr", &addrs[0]]);
    let both = addrs.join(",");
    assert_eq!(rows(&both), 31);
    done(&["transfer-leader", "2", "--addr", &both]);
    eventually("the second leads", || {
        (run(&["get", "k50", "--addr", &addrs[1]]).0 == 0).then_some(())
    });
    assert_eq!(rows(&addrs[1]), 31);
    // And it starts again, by what its directory states.
    first.signal("TERM");
    assert_eq!(first.wait().0, Some(0));
    let mut first = Process::spawn(&Cluster::args(&again, &[]));
    assert!(first.line().contains("as store 1 of cluster again"));
}

#[test]
fn a_doctor_says_which_store_is_missing_and_what_its_loss_means() {
    let mut cluster = Cluster::start();
    let all = cluster.all();
    let healthy = eventually("all are heard from", || {
        let (wrong, codes) = codes(&all);
        (!wrong).then_some(codes)
    });
    assert_eq!(healthy, ["BACKUP-NONE"]);
    let lost = cluster.leader() % 3 + 1;
    cluster.kill(lost);
    let expected = [
        "BACKUP-NONE",
        "MAJORITY-MISSING",
        "MEMBER-SILENT",
        "SERVER-SILENT",
    ];
    eventually("the loss is noticed", || {
        let (wrong, codes) = codes(&all);
        (wrong && codes == expected).then_some(())
    });
}
