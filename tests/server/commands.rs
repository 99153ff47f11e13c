//! The command line against a running server.

use crate::support::{Running, assert_refused, basalt, data_dir, run};

#[test]
fn put_get_delete_and_scan_print_nothing_but_data() {
    let (_root, dir) = data_dir();
    let server = Running::start(&dir);
    let addr = server.addr.as_str();
    let ok = |args: &[&str]| {
        let (code, stdout, stderr) = run(&[args, &["--addr", addr]].concat());
        assert_eq!((code, stderr.as_str()), (0, ""), "{args:?}");
        stdout
    };
    assert_eq!(ok(&["put", "hello", "world"]), "");
    assert_eq!(ok(&["get", "hello"]), "world\n");
    assert_eq!(ok(&["get", "68656c6c6f", "--hex"]), "776f726c64\n");
    assert_eq!(ok(&["put", "--escaped", "a\\x00", "\\xff\\n"]), "");
    assert_eq!(ok(&["get", "--escaped", "a\\0"]), "\\xff\\n\n");
    assert_eq!(ok(&["put", "hello", "in lock", "--cf", "lock"]), "");
    assert_eq!(ok(&["get", "hello", "--cf", "lock"]), "in lock\n");
    assert_eq!(ok(&["scan", "--escaped"]), "a\\0\t\\xff\\n\nhello\tworld\n");
    assert_eq!(ok(&["scan", "b"]), "hello\tworld\n");
    assert_eq!(ok(&["scan", "--limit", "1", "--hex"]), "6100\tff0a\n");
    assert_eq!(ok(&["scan", "--limit", "0"]), "");
    assert_eq!(
        ok(&["scan", "--json"]),
        "{\"key\":\"a\\u0000\",\"value_hex\":\"ff0a\"}\n{\"key\":\"hello\",\"value\":\"world\"}\n"
    );
    assert_eq!(
        ok(&["get", "hello", "--json"]),
        "{\"found\":true,\"value\":\"world\"}\n"
    );
    assert_eq!(ok(&["delete", "hello"]), "");
    assert_eq!(
        run(&["get", "hello", "--addr", addr]),
        (3, String::new(), String::new())
    );
    let missing = run(&["get", "hello", "--addr", addr, "--json"]);
    assert_eq!(missing, (3, "{\"found\":false}\n".into(), String::new()));
    assert_eq!(ok(&["delete", "hello"]), "", "a missing key deletes well");
    assert_eq!(ok(&["put", "balance", "-12"]), "");
    assert_eq!(ok(&["get", "balance"]), "-12\n");
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_goes_on_over_more_than_one_answer() {
    let (_root, dir) = data_dir();
    let server = Running::start(&dir);
    let client = server.client().await;
    let writers: Vec<_> = (0..25u32)
        .map(|part| {
            let client = client.clone();
            tokio::spawn(async move {
                for number in part * 100..(part + 1) * 100 {
                    client
                        .put("", format!("{number:05}").as_bytes(), b"v")
                        .await
                        .unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let (code, stdout, _) = run(&["scan", "--addr", &server.addr]);
    assert_eq!(code, 0);
    let expected: String = (0..2500)
        .map(|number| format!("{number:05}\tv\n"))
        .collect();
    assert!(stdout == expected, "{} lines", stdout.lines().count());
    let (_, stdout, _) = run(&["scan", "00100", "--limit", "1234", "--addr", &server.addr]);
    assert_eq!(stdout.lines().count(), 1234);
    assert!(stdout.starts_with("00100\t") && stdout.ends_with("01333\tv\n"));
    server.stop();
}

#[test]
fn status_flush_and_compact_look_into_the_server() {
    let (_root, dir) = data_dir();
    let server = Running::start(&dir);
    let addr = ["--addr", server.addr.as_str()];
    assert_eq!(run(&[&["put", "k", "v"][..], &addr].concat()).0, 0);
    let tables = || {
        let (code, stdout, _) = run(&[&["status", "--json"][..], &addr].concat());
        assert_eq!(code, 0);
        let json: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(
            (&json["state"], &json["mode"]),
            (&"serving".into(), &"standalone".into())
        );
        let levels = json["engine"]["kv"]["column_families"][0]["levels"].clone();
        let counts = levels
            .as_array()
            .unwrap()
            .iter()
            .map(|level| level["table_count"].as_u64());
        counts.collect::<Option<Vec<_>>>().unwrap()
    };
    assert_eq!(tables().iter().sum::<u64>(), 0);
    assert_eq!(
        run(&[&["flush"][..], &addr].concat()),
        (0, String::new(), String::new())
    );
    assert_eq!(tables()[0], 1);
    assert_eq!(run(&[&["compact"][..], &addr].concat()).0, 0);
    assert_eq!((tables()[0], tables().iter().sum::<u64>()), (0, 1));
    assert_refused(
        &[&["flush", "--cf", "x"][..], &addr].concat(),
        1,
        &["default, write, lock"],
    );
    let (_, text, _) = run(&[&["status"][..], &addr].concat());
    assert!(
        text.contains("serving") && text.contains("1 tables"),
        "{text}"
    );
    server.stop();
}

#[test]
fn a_server_that_is_not_there_is_said_to_be_so_with_what_to_do() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = free.local_addr().unwrap().to_string();
    drop(free);
    for command in [
        &["put", "k", "v"][..],
        &["get", "k"],
        &["delete", "k"],
        &["scan"],
        &["status"],
    ] {
        let args = [command, &["--addr", &addr]].concat();
        assert_refused(&args, 4, &[&addr, "refused", "basalt server"]);
    }
    assert_refused(
        &["get", "k", "--addr", "nowhere"],
        2,
        &["nowhere", "HOST:PORT"],
    );
    assert_refused(&["get", "zz", "--hex"], 2, &["zz", "hex"]);
}

#[test]
fn bench_measures_and_says_so_in_json() {
    let (_root, dir) = data_dir();
    let server = Running::start(&dir);
    let short = [
        "--duration",
        "1",
        "--keys",
        "300",
        "--threads",
        "2",
        "--addr",
        &server.addr,
    ];
    for (workload, rows) in [
        ("put", &["put"][..]),
        ("get", &["get"]),
        ("scan", &["scan"]),
        ("mixed", &["put", "get"]),
    ] {
        let (code, stdout, stderr) = run(&[&["bench", workload, "--json"][..], &short].concat());
        assert_eq!((code, stderr.as_str()), (0, ""), "{workload}");
        let lines: Vec<serde_json::Value> = stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let ops: Vec<_> = lines
            .iter()
            .map(|line| line["op"].as_str().unwrap())
            .collect();
        assert_eq!(ops, rows, "{stdout}");
        for line in &lines {
            let at = |name: &str| line[name].as_u64().unwrap();
            assert!(at("count") > 0 && at("errors") == 0, "{line}");
            assert!(
                at("p50_us") <= at("p99_us") && at("p99_us") <= at("p999_us"),
                "{line}"
            );
            assert!(
                at("p999_us") <= at("max_us") + at("max_us") / 500 + 1,
                "{line}"
            );
        }
    }
    let (code, stdout, _) = run(&[&["bench", "get"][..], &short].concat());
    assert!(
        code == 0 && stdout.starts_with("op ") && stdout.lines().count() == 2,
        "{stdout}"
    );
    server.stop();
}

#[test]
fn a_reader_that_has_enough_ends_a_command_quietly() {
    let (_root, dir) = data_dir();
    let server = Running::start(&dir);
    for key in ["a", "b"] {
        run(&["put", key, &"v".repeat(100_000), "--addr", &server.addr]);
    }
    let mut child = basalt(&["scan", "--addr", &server.addr]).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty(), "{output:?}");
    server.stop();
}
