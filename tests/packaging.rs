//! What is in `packaging/`, as far as it can be checked without a container engine: the server takes the commands that
//! stand there, systemd the unit (where `systemd-analyze` is), and a store tells a service manager that it is ready.
//!
//! Not checked: that an image builds and runs.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader},
    os::unix::net::UnixDatagram,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

fn file(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("packaging");
    fs::read_to_string(path.join(name)).unwrap()
}

fn basalt(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_basalt"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("BASALT_") {
            command.env_remove(name);
        }
    }
    command.args(args).stdin(Stdio::null());
    command
}

/// Whether the server would take these arguments.
#[track_caller]
fn assert_taken(args: &[String]) {
    assert_eq!(args[0], "server");
    let args = args[1..].iter().map(String::as_str);
    let check: Vec<&str> = ["config", "check"].into_iter().chain(args).collect();
    let output = basalt(&check).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{check:?}: {told}");
}

/// The list behind `word` on a line of its own.
fn list(line: &str, word: &str) -> Option<Vec<String>> {
    let text = line.trim_start().strip_prefix(word)?.trim_start();
    Some(serde_json::from_str(text).unwrap_or_else(|error| panic!("{line}: {error}")))
}

#[test]
fn the_unit_starts_what_the_server_takes_and_systemd_takes_the_unit() {
    let unit = file("basalt.service");
    let start = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="));
    let start = start.unwrap().strip_prefix("/usr/bin/basalt ").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let settings = dir.path().join("basalt.toml");
    let defaults = basalt(&["config", "default"]).output().unwrap();
    fs::write(&settings, defaults.stdout).unwrap();
    let words = start.split(' ').map(|word| match word {
        "/etc/basalt/basalt.toml" => settings.to_str().unwrap().to_owned(),
        word => word.to_owned(),
    });
    assert_taken(&words.collect::<Vec<_>>());

    // It wants programs that are there.
    let here = unit.replace("/usr/bin/basalt", env!("CARGO_BIN_EXE_basalt"));
    let path = dir.path().join("basalt.service");
    fs::write(&path, here).unwrap();
    let verify = Command::new("systemd-analyze")
        .arg("verify")
        .arg(&path)
        .output();
    let Ok(output) = verify else {
        println!("systemd-analyze is not here: the unit was not verified");
        return;
    };
    let told = String::from_utf8_lossy(&output.stderr);
    let ours: Vec<_> = told
        .lines()
        .filter(|line| line.contains("basalt.service"))
        .collect();
    assert!(ours.is_empty(), "{told}");
}

#[test]
fn the_stores_of_the_compose_file_are_one_cluster_that_the_server_takes() {
    let text = file("compose.yaml");
    assert!(!text.contains('\t'), "YAML has no tabs");
    let mut ids = BTreeSet::new();
    let mut clusters = BTreeSet::new();
    for line in text.lines() {
        let Some(args) = list(line, "command:") else {
            continue;
        };
        assert_taken(&args);
        let after = |flag: &str| {
            let at = args.iter().position(|arg| arg == flag).unwrap();
            args[at + 1].clone()
        };
        ids.insert(after("--store-id"));
        clusters.insert(after("--initial-cluster"));
    }
    assert_eq!(ids.into_iter().collect::<Vec<_>>(), ["1", "2", "3"]);
    assert_eq!(clusters.len(), 1);
    for founder in clusters.first().unwrap().split(',') {
        let (id, addr) = founder.split_once('=').unwrap();
        let service = format!("  store-{id}:\n");
        assert!(
            text.contains(&service) && addr == format!("store-{id}:20160"),
            "{founder}"
        );
    }
}

#[test]
fn the_container_starts_what_the_server_takes_once_it_is_said_to_be_meant() {
    let text = file("Containerfile");
    let known = [
        "FROM",
        "WORKDIR",
        "COPY",
        "RUN",
        "USER",
        "VOLUME",
        "EXPOSE",
        "STOPSIGNAL",
        "ENTRYPOINT",
        "CMD",
    ];
    for line in text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let word = line.split(' ').next().unwrap();
        assert!(known.contains(&word), "{line}");
    }
    let mut args = text.lines().find_map(|line| list(line, "CMD")).unwrap();
    let entry = text
        .lines()
        .find_map(|line| list(line, "ENTRYPOINT"))
        .unwrap();
    assert_eq!(entry, ["/usr/bin/basalt"]);
    assert!(text.contains("/usr/bin/basalt\n"), "it is copied there");
    assert_taken(&args);
    // On an address that others reach it does not start by an oversight.
    let dir = tempfile::tempdir().unwrap();
    for arg in &mut args {
        *arg = arg.replace("/data", dir.path().to_str().unwrap());
        *arg = arg.replace(":20160", ":0").replace(":20180", ":0");
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let output = basalt(&args).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--insecure"));
}

#[test]
fn a_server_tells_the_service_manager_that_it_is_ready_and_that_it_stops() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let data = dir.path().join("data");
    let free = "127.0.0.1:0";
    let args = [
        "server",
        "--path",
        data.to_str().unwrap(),
        "--addr",
        free,
        "--status-addr",
        free,
    ];
    let mut command = basalt(&args);
    command
        .env("NOTIFY_SOCKET", &socket)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut server = command.spawn().unwrap();
    let mut line = String::new();
    let mut stdout = BufReader::new(server.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    let told = || {
        let mut bytes = [0; 64];
        let len = manager.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..len].to_vec()).unwrap()
    };
    assert_eq!(told(), "READY=1");
    let pid = server.id().to_string();
    let sent = Command::new("kill")
        .args(["-s", "TERM", &pid])
        .status()
        .unwrap();
    assert!(sent.success());
    assert_eq!(told(), "STOPPING=1");
    assert_eq!(server.wait().unwrap().code(), Some(0));
}

/// Every figure that is named in a query, without the end that a histogram's parts have.
fn figures(text: &str) -> BTreeSet<String> {
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let words = text.split(|letter| !is_word(letter));
    let words = words.filter(|word| word.starts_with("basalt_"));
    let name = |word: &str| {
        let ends = ["_bucket", "_sum", "_count"].iter();
        let bare = ends.clone().find_map(|end| word.strip_suffix(end));
        bare.unwrap_or(word).to_owned()
    };
    words.map(name).collect()
}

#[test]
fn the_dashboard_and_the_alerts_ask_for_figures_that_there_are() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let metrics = fs::read_to_string(root.join("docs/metrics.md")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&file("grafana.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut asked = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "an id twice");
        for target in panel["targets"].as_array().unwrap() {
            asked.extend(figures(target["expr"].as_str().unwrap()));
        }
    }
    let alerts = file("alerts.yaml");
    assert!(!alerts.contains('\t'), "YAML has no tabs");
    let in_dashboard = asked.len();
    asked.extend(
        alerts
            .lines()
            .filter(|line| line.contains("expr:"))
            .flat_map(figures),
    );
    assert!(in_dashboard > 15 && asked.len() > in_dashboard, "{asked:?}");
    for figure in asked {
        assert!(
            metrics.contains(&format!("| `{figure}` |")),
            "{figure} is not in docs/metrics.md"
        );
    }

    let alarms = fs::read_to_string(root.join("docs/operations/alarms.md")).unwrap();
    let headings = alarms.lines().filter_map(|line| line.strip_prefix("## "));
    let headings: BTreeSet<_> = headings.map(str::to_owned).collect();
    let names = alerts
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("- alert: "));
    let names: BTreeSet<_> = names.map(str::to_owned).collect();
    assert!(names.len() > 10);
    assert_eq!(
        headings, names,
        "each rule has its part of the document, and each part its rule"
    );
    for name in names {
        let link = format!("docs/operations/alarms.md#{}\"", name.to_lowercase());
        assert!(alerts.contains(&link), "{name} does not link to its part");
    }
}
