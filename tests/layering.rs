//! Who may know whom (ARCHITECTURE.md, section 1): the arrows between the crates, what each may stand on, and that
//! disk, threads and time come into the engine by parameter only.
//!
//! It asks cargo and reads the manifests and sources; nothing is built. A new crate fails here until it has its place.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

/// The crates, and those of the workspace that each may stand on. Test kits are for tests alone.
const ARROWS: [(&str, &[&str]); 8] = [
    (
        "basaltkv",
        &[
            "basalt-client",
            "basalt-engine",
            "basalt-proto",
            "basalt-raft",
            "basalt-server",
        ],
    ),
    (
        "basalt-server",
        &[
            "basalt-client",
            "basalt-engine",
            "basalt-proto",
            "basalt-raft",
            "basalt-raftstore",
        ],
    ),
    (
        "basalt-raftstore",
        &["basalt-engine", "basalt-proto", "basalt-raft"],
    ),
    ("basalt-client", &["basalt-proto"]),
    ("basalt-engine", &[]),
    ("basalt-raft", &["basalt-proto"]),
    ("basalt-proto", &[]),
    ("basalt-testkit", &[]),
];

/// Of those below what the client may stand on too: a runtime and the wire, no command line and no server.
const CLIENT_TOO: [&str; 8] = [
    "futures-core",
    "http",
    "hyper-util",
    "rustls",
    "tokio",
    "tokio-rustls",
    "tonic",
    "tower",
];

/// What only the server stands on, but for the client's part: runtimes, the wire, command lines.
const SERVER_ONLY: [&str; 22] = [
    "async-trait",
    "axum",
    "clap",
    "futures",
    "futures-core",
    "futures-util",
    "h2",
    "http",
    "hyper",
    "hyper-util",
    "indicatif",
    "mio",
    "ring",
    "rustls",
    "rustyline",
    "tokio",
    "tokio-rustls",
    "toml",
    "tonic",
    "tower",
    "tracing",
    "x509-cert",
];

/// Cargo features there may be.
const FEATURES: [&str; 2] = ["default", "zstd"];

/// The engine's files that meet the operating system: its disk and its threads.
const REAL: [&str; 3] = [
    "src/engine/fs/real",
    "src/engine/executor/pool",
    "src/engine/clock/system",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(root())
        .output()
        .expect("cargo runs this test");
    assert!(
        output.status.success(),
        "cargo {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("cargo writes text")
}

/// A crate of the workspace.
struct Member {
    manifest: PathBuf,
    /// Dependencies of the product, not of tests.
    needs: BTreeSet<String>,
    features: BTreeSet<String>,
}

fn members() -> BTreeMap<String, Member> {
    let text = cargo(&["metadata", "--format-version=1", "--no-deps", "--locked"]);
    let metadata: serde_json::Value = serde_json::from_str(&text).expect("cargo writes JSON");
    let list = |value: &serde_json::Value| value.as_array().expect("a list").clone();
    let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
    let packages = list(&metadata["packages"]).into_iter().map(|package| {
        let dependencies = list(&package["dependencies"]).into_iter();
        let needs = dependencies
            .filter(|need| need["kind"] != "dev")
            .map(|need| text(&need["name"]));
        let features = package["features"].as_object().expect("a map");
        let member = Member {
            manifest: text(&package["manifest_path"]).into(),
            needs: needs.collect(),
            features: features.keys().cloned().collect(),
        };
        (text(&package["name"]), member)
    });
    packages.collect()
}

/// Everything that `package` stands on in the product's build, however far down; names only.
fn closure(package: &str, edges: &str) -> BTreeSet<String> {
    let text = cargo(&[
        "tree",
        "--locked",
        "-p",
        package,
        "-e",
        edges,
        "--prefix=none",
        "--format={p}",
    ]);
    let names = text
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    names
        .map(str::to_owned)
        .filter(|name| name != package)
        .collect()
}

#[test]
fn the_crates_know_only_those_below_them() {
    let members = members();
    let placed: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    let there: BTreeSet<&str> = members.keys().map(String::as_str).collect();
    assert_eq!(
        placed, there,
        "the crates with a place, and those of the workspace"
    );
    for (name, may) in ARROWS {
        let knows = members[name]
            .needs
            .iter()
            .map(String::as_str)
            .filter(|need| there.contains(need));
        for known in knows {
            assert!(may.contains(&known), "{name} knows {known}");
        }
    }
}

#[test]
fn each_crate_stands_on_what_is_its_own() {
    let members = members();
    for name in SERVER_ONLY {
        for (crate_name, member) in &members {
            let is_client = crate_name == "basalt-client";
            let may = crate_name == "basalt-server" || (is_client && CLIENT_TOO.contains(&name));
            assert!(
                may || !member.needs.contains(name),
                "{crate_name} stands on {name}"
            );
        }
    }
    let engine = closure("basalt-engine", "normal,build");
    assert!(engine.contains("crc32fast"), "the list is read: {engine:?}");
    for name in &engine {
        let foreign = SERVER_ONLY.contains(&name.as_str())
            || ["prost", "futures", "tokio", "async-", "basalt"]
                .iter()
                .any(|start| name.starts_with(start));
        assert!(!foreign, "the engine stands on {name}");
        // Code in C comes through a compiler or a library of the system.
        let native = ["cc", "cmake", "pkg-config", "bindgen"].contains(&name.as_str())
            || (name.ends_with("-sys") && name != "linux-raw-sys" && name != "windows-sys");
        assert!(
            !native,
            "the engine's default build is pure Rust, not {name}"
        );
    }
    let proto: BTreeSet<&str> = members["basalt-proto"]
        .needs
        .iter()
        .map(String::as_str)
        .collect();
    assert!(
        proto.iter().all(|name| ["prost", "bytes"].contains(name)),
        "the messages stand on {proto:?}"
    );
    let below = closure("basalt-proto", "normal");
    for name in SERVER_ONLY {
        assert!(!below.contains(name), "the messages stand on {name}");
    }
    for (name, member) in &members {
        for feature in &member.features {
            assert!(
                FEATURES.contains(&feature.as_str()),
                "{name} has the feature {feature}"
            );
        }
    }
}

#[test]
fn each_dependency_has_its_reason_and_each_crate_the_lints() {
    for (name, member) in members() {
        let text = std::fs::read_to_string(&member.manifest).expect("cargo has read it");
        let mut section = "";
        let mut before = "";
        let mut lines = 0;
        for line in text.lines() {
            if let Some(head) = line.strip_prefix('[') {
                section = head.trim_end_matches(']');
            } else if section.ends_with("dependencies") && line.contains('=') {
                lines += 1;
                let reason =
                    |line: &str| line.split_once("# ").is_some_and(|(_, why)| why.len() >= 8);
                let above = before.starts_with('#') && reason(before);
                assert!(reason(line) || above, "{name}: no reason for {line}");
            }
            before = line;
        }
        assert!(
            lines > 0 || name == "basalt-testkit",
            "{name}: the manifest is read"
        );
        assert!(
            text.contains("\n[lints]\nworkspace = true\n"),
            "{name}: without the workspace's lints"
        );
    }
}

/// Rust sources in a folder, with their text; links (somebody's shortcuts) are no part of it.
fn sources(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).expect("a folder of this repository") {
        let entry = entry.expect("a folder of this repository");
        let (path, kind) = (
            entry.path(),
            entry.file_type().expect("a local file system"),
        );
        if kind.is_dir() {
            sources(&path, found);
        } else if kind.is_file() && path.extension().is_some_and(|end| end == "rs") {
            let name = path.strip_prefix(root()).expect("below the root");
            let text = std::fs::read_to_string(&path).expect("sources are text");
            found.push((name.to_str().expect("plain names").to_owned(), text));
        }
    }
}

/// Lines of code: no comments, and nothing from the first test module on.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let lines = text
        .lines()
        .take_while(|line| !line.starts_with("mod tests {"));
    lines.filter(|line| !line.trim_start().starts_with("//"))
}

/// What the world gives, as code spells it: disk, network, processes, clocks, threads.
const WORLD: [&str; 14] = [
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    " File::open",
    "fs::File::open",
    "File::create",
    "OpenOptions",
    "fs::read",
    "fs::write(",
    "fs::remove",
    "Instant",
    "SystemTime",
    "thread::",
];

/// Whether a file is there for tests or shows only.
fn is_test(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    name.contains("/tests/")
        || name.contains("/examples/")
        || name.contains("/benches/")
        || file.contains("test")
}

/// Checks the product's files below `folder`, but those that begin with one of `real`, for words of
/// the world and of async; the number of files seen.
fn assert_pure(folder: &str, real: &[&str], more: &[&str]) -> usize {
    let mut files = Vec::new();
    sources(&root().join(folder), &mut files);
    let mut seen = 0;
    for (name, text) in files.iter().filter(|(name, _)| !is_test(name)) {
        seen += 1;
        let real = real.iter().any(|place| name.starts_with(place));
        for line in code(text) {
            for word in WORLD.iter().chain(more) {
                assert!(
                    real || !line.contains(word),
                    "{name} takes {word} for itself: {line}"
                );
            }
            for word in ["async fn", ".await", "async move", "async {"] {
                assert!(!line.contains(word), "{name} awaits: {line}");
            }
        }
    }
    seen
}

#[test]
fn disk_threads_and_time_come_into_the_engine_by_parameter() {
    let seen = assert_pure("src/engine", &REAL, &[]);
    assert!(seen >= 60, "{seen} files of the engine");
}

#[test]
fn the_replicated_store_takes_disk_threads_and_time_by_parameter_and_awaits_nothing() {
    // The loops' threads are the one place that is real.
    let real = ["src/raftstore/node.rs"];
    let seen = assert_pure("src/raftstore", &real, &["unsafe "]);
    assert!(seen >= 30, "{seen} files of the replicated store");
}

#[test]
fn the_raft_core_knows_nothing_of_the_world_and_needs_no_unsafe_code() {
    let more = [
        "std::io",
        "Mutex",
        "unsafe ",
        "rand::",
        "static mut",
        "thread_local!",
    ];
    let seen = assert_pure("src/raft", &[], &more);
    assert!(seen >= 30, "{seen} files of the Raft core");
    let members = members();
    let needs = &members["basalt-raft"].needs;
    let may = ["basalt-proto", "bytes", "prost"];
    assert!(
        needs.iter().all(|name| may.contains(&name.as_str())),
        "the Raft core stands on {needs:?}"
    );
}
