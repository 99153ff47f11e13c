//! How a server starts, and what it says when it cannot.

use std::fs;

use crate::support::{Running, assert_refused, basalt, data_dir, ended, run};

const FREE: &str = "127.0.0.1:0";

#[tokio::test(flavor = "multi_thread")]
async fn the_start_line_says_version_directory_addresses_and_a_first_command() {
    let (_root, dir) = data_dir();
    let server = Running::start(&dir);
    let line = &server.start_line;
    let shown = dir.canonicalize().unwrap();
    for word in [
        env!("CARGO_PKG_VERSION"),
        shown.to_str().unwrap(),
        &server.addr,
        &format!("http://{}", server.status_addr),
    ] {
        assert!(line.contains(word), "{word:?} is not in {line:?}");
    }
    // As it was called: whoever has no `basalt` on the PATH can paste it all the same.
    let command = line.trim_end().split_once("try: ").unwrap().1;
    let (program, command) = command.split_once(' ').unwrap();
    assert_eq!(program, env!("CARGO_BIN_EXE_basalt"));
    let args: Vec<_> = command.split(' ').collect();
    let (code, _, stderr) = run(&args);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(
        server
            .client()
            .await
            .get("", args[1].as_bytes())
            .await
            .unwrap(),
        args[2].as_bytes()
    );
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_on_the_directory_is_refused_and_the_first_goes_on() {
    let (_root, dir) = data_dir();
    let server = Running::start(&dir);
    let client = server.client().await;
    client.put("", b"k", b"v").await.unwrap();
    let path = dir.to_str().unwrap();
    let second = [
        "server",
        "--path",
        path,
        "--addr",
        FREE,
        "--status-addr",
        FREE,
    ];
    let quiet = [&second[..], &["--log-level", "off"]].concat();
    assert_refused(&quiet, 1, &["in use", path]);
    assert_refused(&["check", path], 1, &["in use", path]);
    assert_eq!(client.get("", b"k").await.unwrap(), b"v");
    assert_eq!(client.put("", b"k", b"w").await.unwrap(), "");
    server.stop();
}

#[test]
fn a_taken_port_is_named() {
    let taken = std::net::TcpListener::bind(FREE).unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let (_root, dir) = data_dir();
    let path = dir.to_str().unwrap();
    assert_refused(
        &[
            "server",
            "--path",
            path,
            "--addr",
            &addr,
            "--status-addr",
            FREE,
        ],
        1,
        &[&addr, "in use"],
    );
    assert_refused(
        &[
            "server",
            "--path",
            path,
            "--addr",
            FREE,
            "--status-addr",
            &addr,
        ],
        1,
        &[&addr, "in use"],
    );
    assert!(!dir.exists(), "nothing is made before the ports are ours");
}

#[test]
fn a_foreign_or_unusable_directory_is_refused_and_left_alone() {
    let (root, dir) = data_dir();
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("novel.txt"), "chapter one").unwrap();
    let path = dir.to_str().unwrap();
    let server = |path| {
        [
            "server",
            "--path",
            path,
            "--addr",
            FREE,
            "--status-addr",
            FREE,
        ]
    };
    assert_refused(
        &server(path),
        1,
        &[path, "not a Basalt data directory", "novel.txt"],
    );
    let names: Vec<_> = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["novel.txt"]);

    let file = dir.join("novel.txt");
    let file = file.to_str().unwrap();
    assert_refused(&server(file), 1, &[file]);
    assert_refused(
        &["check", root.path().join("missing").to_str().unwrap()],
        1,
        &["missing"],
    );
    assert_refused(&["check", path], 1, &[path]);
    assert_eq!(
        fs::read_dir(&dir).unwrap().count(),
        1,
        "still only the novel"
    );

    fs::remove_file(file).unwrap();
    fs::write(dir.join("MODE"), "format 1\nmode mirrored\n").unwrap();
    assert_refused(&server(path), 1, &["mirrored"]);
}

#[test]
fn a_wrong_flag_setting_or_config_file_is_one_sentence_and_code_2() {
    let (root, _) = data_dir();
    assert_refused(&["server", "--pth", "x"], 2, &["'--pth'", "'--path'"]);
    assert_refused(
        &["server", "--addr", "nowhere"],
        2,
        &["--addr", "nowhere", "HOST:PORT"],
    );
    assert_refused(
        &["server", "--log-level", "loud"],
        2,
        &["--log-level", "loud"],
    );
    assert_refused(
        &["server", "--cache-size", "1MB"],
        2,
        &["--cache-size", "1MB"],
    );
    assert_refused(
        &["server", "--config", "/no/such/file"],
        2,
        &["/no/such/file"],
    );
    assert_refused(&["serve"], 2, &["serve", "server"]);

    let file = root.path().join("basalt.toml");
    let config = ["server", "--config", file.to_str().unwrap()];
    for (text, words) in [
        (
            "adr = \"127.0.0.1:1\"\n",
            &["basalt.toml", "\"adr\"", "\"addr\""][..],
        ),
        ("path = 1.5\n", &["basalt.toml", "path", "float"]),
        ("path = \n", &["basalt.toml", "line 1"]),
        (
            "cache-size = \"much\"\n",
            &["basalt.toml", "cache-size", "much"],
        ),
    ] {
        fs::write(&file, text).unwrap();
        assert_refused(&config, 2, words);
    }

    let mut command = basalt(&["server"]);
    command.env("BASALT_STATUS_ADDR", "nowhere");
    let (code, _, stderr) = ended(command.output().unwrap());
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("BASALT_STATUS_ADDR"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_come_from_the_file_the_environment_and_the_flags() {
    let (root, dir) = data_dir();
    let file = root.path().join("basalt.toml");
    let elsewhere = root.path().join("elsewhere");
    let text = format!("path = {elsewhere:?}\nwrite-buffer-size = \"64KiB\"\n");
    fs::write(&file, text).unwrap();
    // The flag `--path` of the fixture wins over the file.
    let server = Running::start_with(&dir, &["--config", file.to_str().unwrap()]);
    assert!(
        server.start_line.contains(dir.to_str().unwrap()),
        "{}",
        server.start_line
    );
    assert!(!elsewhere.exists());
    let client = server.client().await;
    for key in 0..64u8 {
        client.put("", &[key], &[7; 4096]).await.unwrap();
    }
    // 256 KiB went through buffers of 64 KiB: some of it is in tables, or soon will be.
    let began = std::time::Instant::now();
    loop {
        let (_, status, _) = run(&["status", "--addr", &server.addr]);
        if status.contains("tables") {
            break;
        }
        assert!(began.elapsed().as_secs() < 10, "{status}");
    }
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_size_of_memtables_reaches_the_families_of_a_store_of_a_cluster() {
    let (_root, dir) = data_dir();
    let free = std::net::TcpListener::bind(FREE).unwrap();
    let founder = format!("1={}", free.local_addr().unwrap());
    let more = ["--store-id", "1", "--initial-cluster", &founder];
    let server = Running::start_with(
        &dir,
        &[&more[..], &["--write-buffer-size", "64KiB"]].concat(),
    );
    // It waits until somebody leads.
    let (code, _, stderr) = run(&["put", "k", "v", "--addr", &server.addr]);
    assert_eq!(code, 0, "{stderr}");
    let client = server.client().await;
    for key in 0..8_u8 {
        assert_eq!(client.put("", &[key], &[7; 20_000]).await.unwrap(), "");
    }
    let began = std::time::Instant::now();
    loop {
        let (code, status, stderr) = run(&["status", "--json", "--addr", &server.addr]);
        assert_eq!(code, 0, "{stderr}");
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        let families = status["engine"]["kv"]["column_families"]
            .as_array()
            .unwrap();
        let tables = families
            .iter()
            .flat_map(|family| family["levels"].as_array().unwrap())
            .filter_map(|level| level["table_count"].as_u64());
        if tables.sum::<u64>() > 0 {
            break;
        }
        assert!(began.elapsed().as_secs() < 20, "no memtable was written");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    server.stop();
}
