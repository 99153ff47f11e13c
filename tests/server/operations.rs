//! The commands of operation, against the real binary: each example of their help, on a running server and on a
//! directory that none has open.

use std::{fs, path::Path};

use serde_json::Value;

use crate::support::{Running, assert_refused, data_dir, run};

/// Runs a command that succeeds; its standard output.
#[track_caller]
fn done(args: &[&str]) -> String {
    let (code, stdout, stderr) = run(args);
    assert_eq!(code, 0, "{args:?}: {stderr}");
    stdout
}

/// The same with `--json`: its only document.
#[track_caller]
fn json(args: &[&str]) -> Value {
    let text = done(&[args, &["--json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn put(server: &Running, range: std::ops::Range<u32>) {
    for number in range {
        let key = format!("user:{number:03}");
        let value = format!("{number}").repeat(200);
        done(&["put", &key, &value, "--addr", &server.addr]);
    }
}

/// A file of the engine that ends in `end`.
fn file(dir: &Path, end: &str) -> std::path::PathBuf {
    let names = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = names.filter(|path| text(path).ends_with(end)).collect();
    found.sort();
    found
        .pop()
        .unwrap_or_else(|| panic!("no {end} in {}", dir.display()))
}

#[test]
fn a_running_server_is_backed_up_incrementally_and_restored() {
    let (root, dir) = data_dir();
    let backups = root.path().join("backups");
    let server = Running::start_with(&dir, &["--backup-dir", text(&backups)]);
    let addr = ["--addr", &server.addr];
    let with = |args: &[&'static str]| [args, &addr].concat();
    assert_eq!(done(&with(&["backup", "list"])), "", "no directory yet");
    put(&server, 0..20);
    let first = json(&with(&["backup", "create", "--description", "before"]));
    assert_eq!(
        (&first["backup"]["id"], &first["backup"]["kind"]),
        (&1.into(), &"standalone".into())
    );
    done(&with(&["flush"]));
    put(&server, 20..25);
    done(&with(&["backup", "create", "--flush"]));
    let third = json(&with(&["backup", "create"]));
    let (new, all) = (
        &third["backup"]["new_bytes"],
        &third["backup"]["restored_bytes"],
    );
    assert!(
        new.as_u64() < all.as_u64(),
        "what is there is not copied again: {third}"
    );
    put(&server, 25..26);

    let list = done(&with(&["backup", "list"]));
    assert_eq!(list.lines().count(), 3, "{list}");
    assert!(
        list.starts_with("1\t") && list.contains("\tbefore\n"),
        "{list}"
    );
    let report = json(&with(&["backup", "verify"]));
    assert_eq!(report["damage"], Value::Array(Vec::new()));
    let (code, _, stderr) = run(&with(&["backup", "create", "--progress=json"]));
    assert_eq!(code, 0, "{stderr}");
    let last: Value = serde_json::from_str(stderr.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&last["task"], &last["state"]),
        (&"backup create".into(), &"done".into())
    );

    // Nobody can be asked here.
    assert_refused(&with(&["backup", "delete", "1"]), 6, &["--yes"]);
    done(&with(&["backup", "delete", "4", "--yes"]));
    done(&with(&["backup", "purge", "--keep", "2", "--yes"]));
    assert_eq!(done(&with(&["backup", "list"])).lines().count(), 2);
    assert_refused(
        &with(&["backup", "delete", "1", "--yes"]),
        1,
        &["no backup 1"],
    );
    server.stop();

    let to = root.path().join("again");
    let restored = json(&["restore", "--dir", text(&backups), "--to", text(&to)]);
    assert_eq!(
        (&restored["backup"], &restored["as"]),
        (&3.into(), &"standalone".into())
    );
    assert_refused(
        &["restore", "--dir", text(&backups), "--to", text(&to)],
        1,
        &["MODE"],
    );
    let older = root.path().join("older");
    assert_refused(
        &[
            "restore",
            "--dir",
            text(&backups),
            "--id",
            "1",
            "--to",
            text(&older),
        ],
        1,
        &["no backup 1"],
    );
    done(&["check", text(&to)]);
    let server = Running::start(&to);
    let keys = done(&["scan", "user:", "--limit", "100", "--addr", &server.addr]);
    assert_eq!(
        keys.lines().count(),
        25,
        "one point: not what came after it"
    );
    server.stop();
}

#[test]
fn a_closed_directory_is_backed_up_and_damage_in_a_backup_is_found() {
    let (root, dir) = data_dir();
    let backups = root.path().join("backups");
    let server = Running::start(&dir);
    put(&server, 0..10);
    let create = [
        "backup",
        "create",
        "--path",
        text(&dir),
        "--dir",
        text(&backups),
    ];
    assert_refused(&create, 1, &["in use"]);
    assert_refused(
        &["backup", "create", "--addr", &server.addr],
        1,
        &["--backup-dir"],
    );
    server.stop();
    let made = done(&create);
    assert!(made.contains("backup 1 in "), "{made}");
    assert_refused(
        &["backup", "create", "--dir", text(&backups)],
        2,
        &["--path"],
    );
    let list = json(&["backup", "list", "--dir", text(&backups)]);
    assert_eq!(list["kind"], "standalone");
    assert!(done(&["backup", "verify", "1", "--dir", text(&backups)]).ends_with("ok\n"));
    assert!(done(&["check", text(&backups)]).ends_with("ok\n"));
    let backup = json(&[
        "inspect",
        text(&file(&backups, "BACKUP-000001")),
        "--records",
        "10",
    ]);
    assert_eq!(backup["type"], "backup");

    let victim = file(&backups, ".log");
    let mut bytes = fs::read(&victim).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&victim, bytes).unwrap();
    for args in [
        &["backup", "verify", "--dir", text(&backups)][..],
        &["check", text(&backups)],
    ] {
        let (code, stdout, stderr) = run(args);
        assert_eq!(code, 1);
        assert!(
            stdout.contains("damage") && stderr.contains("damaged in 1 places"),
            "{stdout}{stderr}"
        );
    }
    let to = root.path().join("again");
    assert_refused(
        &["restore", "--dir", text(&backups), "--to", text(&to)],
        1,
        &[".log"],
    );
    assert!(
        !to.join("MODE").exists() && !to.join("kv").exists(),
        "it can be tried again"
    );
    assert_refused(
        &["restore", "--dir", text(&dir), "--to", text(&to)],
        1,
        &["no backup"],
    );
}

#[test]
fn a_damaged_store_shows_its_plan_and_is_repaired() {
    let (_root, dir) = data_dir();
    let server = Running::start(&dir);
    put(&server, 0..30);
    done(&["flush", "--addr", &server.addr]);
    server.stop();
    assert_eq!(
        done(&["repair", text(&dir), "--dry-run"]),
        "sound: nothing to repair\n"
    );
    let kv = dir.join("kv");
    let table = file(&kv, ".sst");
    let mut bytes = fs::read(&table).unwrap();
    for byte in &mut bytes[10..40] {
        *byte ^= 0xff;
    }
    fs::write(&table, &bytes).unwrap();
    assert_eq!(run(&["check", text(&dir)]).0, 1);
    let (code, out, _) = run(&["doctor", "--path", text(&dir), "--json"]);
    let finding: Value = serde_json::from_str(out.lines().next().unwrap()).unwrap();
    assert_eq!((code, &finding["code"]), (1, &"DAMAGED".into()));
    let (code, out, stderr) = run(&["inspect", text(&table)]);
    assert!(
        code == 1 && out.contains("reading ended") && stderr.contains("checksum"),
        "{out}{stderr}"
    );

    let plan = json(&["repair", text(&dir), "--dry-run"]);
    assert_eq!(
        (&plan["sound"], &plan["dry_run"]),
        (&false.into(), &true.into())
    );
    assert_eq!(fs::read(&table).unwrap(), bytes, "a plan changes nothing");
    assert_refused(&["repair", text(&dir)], 6, &["--yes"]);
    let repaired = done(&["repair", text(&dir), "--yes"]);
    assert!(repaired.contains("lost/"), "{repaired}");
    assert!(done(&["check", text(&dir)]).ends_with("ok\n"));
    let (_, notes, _) = run(&["doctor", "--path", text(&dir), "--json"]);
    let mut notes = notes
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let aside = notes.find(|note| note["code"] == "FILES-ASIDE");
    assert_eq!(aside.unwrap()["severity"], "note");
    Running::start(&dir).stop();
}

#[test]
fn files_are_inspected_by_their_magic() {
    let (_root, dir) = data_dir();
    let server = Running::start(&dir);
    put(&server, 0..3);
    done(&["flush", "--addr", &server.addr]);
    put(&server, 3..4);
    server.stop();
    let kv = dir.join("kv");
    for (end, kind) in [
        (".sst", "table"),
        (".log", "log segment"),
        ("CURRENT", "current"),
        ("MARK", "mark"),
    ] {
        let found = json(&["inspect", text(&file(&kv, end)), "--records", "5"]);
        assert_eq!(
            (&found["type"], &found["broken"]),
            (&kind.into(), &Value::Null),
            "{found}"
        );
    }
    let table = json(&[
        "inspect",
        text(&file(&kv, ".sst")),
        "--records",
        "2",
        "--value-bytes",
        "3",
    ]);
    assert_eq!(table["records"][1]["key"], "user:001");
    assert_eq!(table["records"][1]["value"], "111");
    assert_eq!(table["record_count"], 3);
    let shown = done(&[
        "inspect",
        text(&file(&kv, ".sst")),
        "--records",
        "1",
        "--hex",
    ]);
    assert!(shown.contains("key=757365723a303030"), "{shown}");
    let foreign = dir.join("MODE");
    assert_refused_with_output(&["inspect", text(&foreign)], "no magic");
    assert_refused(&["inspect", text(&dir.join("missing"))], 1, &["missing"]);
}

#[track_caller]
fn assert_refused_with_output(args: &[&str], word: &str) {
    let (code, _, stderr) = run(args);
    assert!(code == 1 && stderr.contains(word), "{args:?}: {stderr}");
}

#[test]
fn a_get_is_explained_on_a_server_and_in_a_directory() {
    let (_root, dir) = data_dir();
    let server = Running::start(&dir);
    put(&server, 0..5);
    let found = json(&["explain", "user:003", "--addr", &server.addr]);
    assert_eq!(
        (&found["outcome"], &found["value_bytes"]),
        (&"found".into(), &200.into())
    );
    assert_eq!(found["steps"][0]["place"], "memtable");
    done(&["flush", "--addr", &server.addr]);
    let text_form = done(&["explain", "user:003", "--addr", &server.addr]);
    assert!(
        text_form.contains("L0 table") && text_form.contains("found, 200 B"),
        "{text_form}"
    );
    let absent = json(&["explain", "nobody", "--cf", "write", "--addr", &server.addr]);
    assert_eq!(absent["outcome"], "absent");
    assert_refused(
        &["explain", "k", "--cf", "nonsense", "--addr", &server.addr],
        1,
        &["nonsense"],
    );
    server.stop();
    let found = json(&["explain", "user:003", "--path", text(&dir)]);
    assert_eq!(
        (&found["outcome"], &found["key"]),
        (&"found".into(), &"user:003".into())
    );
}

#[test]
fn stat_top_and_latency_tell_what_a_server_does() {
    let (_root, dir) = data_dir();
    let server = Running::start(&dir);
    put(&server, 0..5);
    done(&["flush", "--addr", &server.addr, "--json"]);
    let stat = json(&["stat", "--addr", &server.addr]);
    let engine = &stat["engines"][0];
    assert_eq!(
        (&engine["engine"], &engine["flushes"]),
        (&"kv".into(), &1.into())
    );
    let families = engine["families"].as_array().unwrap();
    let default = families
        .iter()
        .find(|family| family["cf"] == "default")
        .unwrap();
    assert_eq!(default["levels"][0]["tables"], 1);
    let watched = done(&[
        "stat",
        "--watch",
        "--interval",
        "1",
        "--count",
        "2",
        "--addr",
        &server.addr,
    ]);
    assert!(
        watched.matches("engine     kv").count() == 2 && watched.contains("a second"),
        "{watched}"
    );

    let latency = json(&["latency", "--count", "50", "--addr", &server.addr]);
    assert_eq!(
        (&latency["requests"], &latency["failures"]),
        (&50.into(), &0.into())
    );
    let counted: u64 = latency["histogram"]
        .as_array()
        .unwrap()
        .iter()
        .map(|bucket| bucket["count"].as_u64().unwrap())
        .sum();
    assert_eq!(counted, 50);
    assert!(latency["p50_us"].as_u64() <= latency["max_us"].as_u64());

    let busy = std::thread::scope(|scope| {
        let busy = scope.spawn(|| {
            done(&[
                "top",
                "--interval",
                "1",
                "--count",
                "1",
                "--addr",
                &server.addr,
                "--json",
            ])
        });
        std::thread::sleep(std::time::Duration::from_millis(400));
        put(&server, 5..8);
        busy.join().unwrap()
    });
    assert!(busy.contains("\"name\":\"RawPut\""), "{busy}");

    let compacted = json(&["compact", "--addr", &server.addr]);
    assert_eq!(compacted["ok"], true);
    server.stop();
    let stat = json(&["stat", "--path", text(&dir)]);
    assert_eq!(stat["engines"][0]["engine"], "kv");
}

#[test]
fn a_doctor_finds_nothing_wrong_with_a_healthy_server_and_a_silent_one() {
    let (root, dir) = data_dir();
    let backups = root.path().join("backups");
    let server = Running::start_with(&dir, &["--backup-dir", text(&backups)]);
    let (_, stdout, _) = run(&["doctor", "--addr", &server.addr, "--json"]);
    let codes = |text: &str| -> Vec<String> {
        let lines = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines
            .map(|line| line["code"].as_str().unwrap().to_owned())
            .collect()
    };
    // What the machine is short of is none of the test's business.
    let of_the_machine = ["DISK-FULL-SOON", "OPEN-FILES"];
    let ours = |text: &str| -> Vec<String> {
        let mut codes = codes(text);
        codes.retain(|code| !of_the_machine.contains(&code.as_str()));
        codes
    };
    assert_eq!(ours(&stdout), ["BACKUP-NONE"]);
    done(&["backup", "create", "--addr", &server.addr]);
    let (_, stdout, _) = run(&["doctor", "--addr", &server.addr, "--json"]);
    assert_eq!(ours(&stdout), [""; 0]);
    let gone = server.addr.clone();
    server.stop();
    let (code, stdout, stderr) = run(&["doctor", "--addr", &gone, "--json"]);
    assert_eq!(
        (code, ours(&stdout)),
        (1, vec!["SERVER-SILENT".to_owned()]),
        "{stderr}"
    );
    let (code, stdout, _) = run(&["doctor", "--path", text(&backups), "--json"]);
    assert_eq!((code, ours(&stdout)), (1, vec!["NO-STORE".to_owned()]));
}
