//! How a cluster begins, and who is refused.

use std::fs;

use crate::processes::{Cluster, Process, done, free_addrs, run};

#[test]
fn what_is_written_through_one_store_is_read_through_any_other() {
    let cluster = Cluster::start();
    for (writer, reader) in [(1, 2), (2, 3), (3, 1)] {
        let value = format!("by {writer}");
        done(&["put", "greeting", &value, "--addr", cluster.addr(writer)]);
        let read = done(&["get", "greeting", "--addr", cluster.addr(reader)]);
        assert_eq!(read, format!("{value}\n"));
    }
    let members = done(&["member", "list", "--addr", cluster.addr(2)]);
    assert_eq!(members.matches(" serving ").count(), 3, "{members}");
    let status = done(&["status", "--json", "--addr", cluster.addr(1)]);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["mode"], "replicated");
    assert_eq!(status["store_id"], 1);
    assert_eq!(status["regions"][0]["peers"].as_array().unwrap().len(), 3);
}

#[test]
fn a_store_with_a_wiped_directory_is_refused_by_the_others() {
    let mut cluster = Cluster::start();
    cluster.stop(2);
    fs::remove_dir_all(cluster.dir(2)).unwrap();
    let (dir, founders) = (cluster.dir(2), cluster.founders.clone());
    let args = Cluster::args(&dir, &["--store-id", "2", "--initial-cluster", &founders]);
    let (code, stdout, stderr) = run(&args);
    assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
    assert!(
        stderr.contains("store 2 is known with another disk"),
        "{stderr}"
    );
    assert_eq!(stderr.trim_end().lines().count(), 1, "{stderr}");
    // Those that are left serve on.
    done(&["put", "k", "v", "--addr", cluster.addr(1)]);

    // Half a directory is as bad as none.
    cluster.stop(3);
    fs::remove_dir_all(cluster.dir(3).join("raft")).unwrap();
    let (code, _, stderr) = run(&Cluster::args(&cluster.dir(3), &[]));
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("what store 3 has promised"), "{stderr}");
}

#[test]
fn a_store_of_another_cluster_is_refused() {
    let cluster = Cluster::start();
    let other = free_addrs(1).remove(0);
    let root = tempfile::tempdir().unwrap();
    let founders = format!("1={},9={other}", cluster.addr(1));
    let dir = root.path().join("data");
    let args = Cluster::args(&dir, &["--store-id", "9", "--initial-cluster", &founders]);
    let (code, _, stderr) = run(&args);
    assert_eq!(code, 1, "{stderr}");
    assert!(
        stderr.contains("store 1 refuses this one: the cluster here is"),
        "{stderr}"
    );
    done(&["put", "k", "v", "--addr", cluster.addr(1)]);
}

#[test]
fn a_directory_of_one_mode_is_not_used_in_the_other() {
    let mut cluster = Cluster::start();
    cluster.stop(1);
    let dir = cluster.dir(1);
    let (code, _, stderr) = run(&Cluster::args(&dir, &["--store-id", "2"]));
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("holds store 1, not store 2"), "{stderr}");
    done(&["check", dir.to_str().unwrap()]);
    cluster.restart(1);
    cluster.catches_up(1);
}

#[test]
fn a_demo_says_what_to_try_and_that_works() {
    let mut demo = Process::spawn(&["demo"]);
    let first = demo.line();
    assert!(
        first.starts_with("three stores of one cluster, in "),
        "{first}"
    );
    let dir = first.trim_end().rsplit_once(" in ").unwrap().1.to_owned();
    let stores: Vec<String> = (0..3).map(|_| demo.line()).collect();
    assert!(
        stores.iter().all(|line| line.contains(" on 127.0.0.1:")),
        "{stores:?}"
    );
    let page = demo.line();
    assert!(page.starts_with("web page http://127.0.0.1:"), "{page}");
    assert!(demo.line().starts_with("try"));
    let outputs = ["", "world\n"].map(Some).into_iter().chain([None]);
    for expected in outputs {
        let command = demo.line();
        // First the program, as it was called.
        let (program, args) = command.trim().split_once(' ').unwrap();
        assert!(program.ends_with("basalt"), "{command}");
        let args: Vec<&str> = args.split(' ').collect();
        let output = done(&args);
        if let Some(expected) = expected {
            assert_eq!(output, expected, "{command}");
        }
    }
    demo.signal("INT");
    assert_eq!(demo.wait().0, Some(0));
    assert!(!std::path::Path::new(&dir).exists(), "{dir} is left");
}
