//! Batches, ranges and files against three stores, through the client and the command line.

use std::time::Duration;

use basaltkv::client::{Batch, Client, Config, Error, KeyRange};

use crate::processes::{Cluster, PATIENCE, done, eventually, run};

#[test]
fn commands_on_ranges_and_files_go_to_whoever_leads() {
    let mut cluster = Cluster::start();
    let all = cluster.all();
    let follower = cluster.leader() % 3 + 1;
    // Through a store that does not lead.
    let addr = cluster.addr(follower).to_owned();
    let ok = |args: &[&str]| done(&[args, &["--addr", &addr]].concat());
    for key in ["a", "b/1", "b/2", "c"] {
        ok(&["put", key, "v"]);
    }
    assert_eq!(
        ok(&["scan", "--reverse", "--keys-only"]),
        "c\nb/2\nb/1\na\n"
    );
    let (code, _, stderr) = run(&["delete-range", "--prefix", "b/", "--addr", &addr]);
    assert!(code == 6 && stderr.contains("delete 2 keys"), "{stderr}");
    ok(&["delete-range", "--prefix", "b/", "--yes"]);
    assert_eq!(ok(&["scan", "--count"]), "2\n");
    let file = cluster.dir(1).with_file_name("changes");
    std::fs::write(&file, "put x 1\ndelete-range a b\nput y 2\n").unwrap();
    ok(&["batch", file.to_str().unwrap()]);
    assert_eq!(ok(&["scan", "--keys-only"]), "c\nx\ny\n");
    let export = cluster.dir(1).with_file_name("all.basalt");
    let export = export.to_str().unwrap();
    ok(&["export", export]);
    ok(&["delete-range", "", "--to-end", "--yes"]);
    assert_eq!(ok(&["scan", "--count"]), "0\n");
    ok(&["import", export]);
    assert_eq!(ok(&["scan"]), "c\tv\nx\t1\ny\t2\n");
    // The others have the same: whoever leads next shows it.
    let leader = cluster.leader();
    cluster.kill(leader);
    eventually("another one leads", || {
        let (code, stdout, _) = run(&["scan", "--addr", &all]);
        (code == 0).then(|| assert_eq!(stdout, "c\tv\nx\t1\ny\t2\n"))
    });
}

#[test]
fn a_client_follows_the_leader_and_says_of_a_write_whether_it_may_be_done() {
    let mut cluster = Cluster::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = Config::new(cluster.addrs.clone()).deadline(PATIENCE);
    let client = Client::new(config.patience(PATIENCE));
    let mut written = Vec::new();
    let mut open = Vec::new();
    for round in 0..4 {
        let leader = cluster.leader();
        let writer = {
            let client = client.clone();
            runtime.spawn(async move {
                let mut outcomes = Vec::new();
                for number in 0..150 {
                    let key = format!("{round}/{number:03}");
                    let batch = Batch::new()
                        .put(key.clone(), "v")
                        .put(format!("{key}+"), "v");
                    outcomes.push((key, client.write(batch).await));
                    tokio::time::sleep(Duration::from_millis(4)).await;
                }
                outcomes
            })
        };
        std::thread::sleep(Duration::from_millis(150));
        match round {
            0 => {}
            1 => cluster.stop(leader),
            _ => cluster.kill(leader),
        }
        for (key, outcome) in runtime.block_on(writer).unwrap() {
            match outcome {
                Ok(()) => written.push(key),
                Err(error @ (Error::Open(_) | Error::Deadline { .. })) => {
                    assert!(error.may_be_done());
                    open.push(key);
                }
                Err(error) => panic!("{key}: {error}"),
            }
        }
        if round > 0 {
            cluster.restart(leader);
            cluster.catches_up(leader);
        }
    }
    println!("{} written, {} open", written.len(), open.len());
    assert!(open.len() <= 8, "only what was on its way: {open:?}");
    let keys = runtime.block_on(async {
        let mut scan = client.scan(KeyRange::all()).keys_only(true).start();
        let mut keys = std::collections::BTreeSet::new();
        while let Some(pair) = scan.next().await.unwrap() {
            keys.insert(String::from_utf8(pair.key.to_vec()).unwrap());
        }
        keys
    });
    for key in written.iter().chain(&open) {
        let both = format!("{key}+");
        assert_eq!(
            keys.contains(key),
            keys.contains(&both),
            "{key}: whole or not at all"
        );
    }
    for key in &written {
        assert!(keys.contains(key), "{key} was acknowledged");
    }
    let members = runtime.block_on(client.members()).unwrap();
    assert_eq!(members.len(), 3);
}
