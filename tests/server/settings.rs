//! Settings: what `basalt config` says of them, and how they change in a running server.

use std::fs;

use crate::support::{Running, assert_refused, basalt, data_dir, ended, run};

#[test]
fn what_is_wrong_is_said_before_anything_is_opened_with_exit_code_2() {
    let (root, dir) = data_dir();
    let file = root.path().join("basalt.toml");
    let (file, dir_text) = (file.to_str().unwrap(), dir.to_str().unwrap());
    for (text, words) in [
        ("cache-sise = 1", "did you mean \"cache-size\"?"),
        ("cache-size = \"64MB\"", "is not a size such as"),
        ("request-timeout = \"10 s\"", "is not a time such as"),
        ("max-connections = 0", "outside of 1 to 65536"),
        ("tls-cert = \"/no/such\"", "--tls-cert needs --tls-key"),
        ("auth-file = \"/no/such\"", "cannot read /no/such"),
        ("addr = ", "line 1"),
    ] {
        fs::write(file, text).unwrap();
        for command in [&["config", "check"][..], &["server"]] {
            let args = [command, &["--config", file, "--path", dir_text]].concat();
            assert_refused(&args, 2, &[words]);
        }
    }
    assert_refused(
        &["config", "check", "--cache-size", "x"],
        2,
        &["flag --cache-size"],
    );
    assert!(!dir.exists(), "nothing was made");
    fs::write(file, "cache-size = \"1MiB\"").unwrap();
    let (code, stdout, _) = run(&["config", "check", "--config", file]);
    assert_eq!((code, stdout.as_str()), (0, "the settings are fine\n"));
}

#[test]
fn each_value_is_shown_with_the_layer_it_comes_from() {
    let (root, _) = data_dir();
    let file = root.path().join("basalt.toml");
    fs::write(&file, "cache-size = 1048576\nrequest-timeout = \"90s\"\n").unwrap();
    let file = file.to_str().unwrap();
    let args = ["config", "show", "--config", file, "--insecure", "--json"];
    let mut command = basalt(&args);
    command.env("BASALT_REQUEST_TIMEOUT", "3m");
    let (code, stdout, stderr) = ended(command.output().unwrap());
    assert_eq!(code, 0, "{stderr}");
    let rows = stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let rows: Vec<serde_json::Value> = rows.collect();
    let from_file = format!("file {file}");
    for (name, value, origin) in [
        ("cache-size", "1MiB", from_file.as_str()),
        ("request-timeout", "3m", "environment"),
        ("insecure", "true", "flag"),
        ("addr", "127.0.0.1:20160", "default"),
    ] {
        let row = rows.iter().find(|row| row["name"] == name).unwrap();
        assert_eq!(
            (row["value"].as_str(), row["origin"].as_str()),
            (Some(value), Some(origin))
        );
    }
}

#[test]
fn an_address_that_others_reach_is_not_plain_text_by_an_oversight() {
    let (_root, dir) = data_dir();
    let path = dir.to_str().unwrap();
    let (open, own) = ("0.0.0.0:0", "127.0.0.1:0");
    for (addr, status_addr, named) in [
        (open, own, "--addr 0.0.0.0:0"),
        (own, open, "--status-addr"),
    ] {
        let flags = [
            "--path",
            path,
            "--addr",
            addr,
            "--status-addr",
            status_addr,
            // It says nothing of a server that has no certificate.
            "--status-plain",
        ];
        for command in [&["config", "check"][..], &["server"]] {
            let args = [command, &flags].concat();
            assert_refused(&args, 2, &[named, "plain text", "--tls-cert", "--insecure"]);
        }
    }
    assert!(!dir.exists());
    let server = Running::start_with(&dir, &["--insecure"]);
    server.stop();
    let founders = "1=0.0.0.0:1,2=127.0.0.1:2,3=127.0.0.1:3";
    let args = [
        "server",
        "--path",
        path,
        "--store-id",
        "1",
        "--initial-cluster",
        founders,
    ];
    let (other, _) = (args, ());
    let fresh = dir.with_extension("fresh");
    let mut args = other;
    args[2] = fresh.to_str().unwrap();
    assert_refused(&args, 2, &["--addr 0.0.0.0:1", "--insecure"]);
}

#[test]
fn a_check_of_the_settings_looks_at_what_the_directory_states() {
    let (_root, dir) = data_dir();
    Running::start(&dir).stop();
    let path = dir.to_str().unwrap();
    let check = ["config", "check", "--path", path];
    assert_eq!(run(&check).0, 0);
    let contrary = [
        &check[..],
        &["--store-id", "1", "--initial-cluster", "1=127.0.0.1:1"],
    ]
    .concat();
    assert_refused(&contrary, 1, &["holds a standalone store"]);
}

#[test]
fn a_running_server_changes_what_it_can_and_names_the_rest() {
    let (root, dir) = data_dir();
    let file = root.path().join("basalt.toml");
    fs::write(&file, "slow-request-time = \"2s\"\n").unwrap();
    let server = Running::start_with(&dir, &["--config", file.to_str().unwrap()]);
    let addr = server.addr.clone();
    let config = |args: &[&str]| {
        let args = [&["config"], args, &["--addr", &addr]].concat();
        run(&args)
    };
    let shown = |name: &str| {
        let (code, stdout, stderr) = config(&["get"]);
        assert_eq!(code, 0, "{stderr}");
        let mut lines = stdout.lines();
        lines
            .find(|line| line.starts_with(name))
            .unwrap()
            .to_owned()
    };
    assert!(shown("slow-request-time").contains("2s"));
    let (code, stdout, _) = config(&["set", "max-requests-in-flight=7", "answer-timeout=5s"]);
    assert_eq!(
        (code, stdout.as_str()),
        (0, "changed: max-requests-in-flight, answer-timeout\n")
    );
    let line = shown("max-requests-in-flight");
    assert!(line.contains(" 7 ") && line.ends_with("online"), "{line}");

    for (change, words) in [
        ("cache-size=1MiB", "cache-size needs a restart"),
        ("cash=1", "unknown key"),
        ("log-level=loud", "is not a level"),
    ] {
        let (code, _, stderr) = config(&["set", "request-timeout=1s", change]);
        assert_eq!(code, 1, "{change}");
        assert!(stderr.contains(words), "{stderr}");
    }
    assert!(shown("request-timeout").contains("10s"), "all or nothing");

    fs::write(&file, "slow-request-time = \"3s\"\ncache-size = \"9MiB\"\n").unwrap();
    let (code, stdout, _) = config(&["reload"]);
    let told = "changed: slow-request-time\nneeds a restart: cache-size\n";
    assert_eq!((code, stdout.as_str()), (0, told));

    fs::write(&file, "slow-request-time = \"4s\"\n").unwrap();
    server.signal("HUP");
    let began = std::time::Instant::now();
    while !shown("slow-request-time").contains("4s") {
        assert!(
            began.elapsed() < std::time::Duration::from_secs(20),
            "SIGHUP is not heard"
        );
    }
    fs::write(&file, "slow-request-time = \n").unwrap();
    let (code, _, stderr) = config(&["reload"]);
    assert!(code == 1 && stderr.contains("line 1"), "{stderr}");
    assert!(shown("slow-request-time").contains("4s"));
    server.stop();
}
