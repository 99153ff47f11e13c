//! The commands on ranges, batches and files, against a standalone server.

use std::{fs, io::Write as _, process::Stdio};

use crate::support::{Running, assert_refused, basalt, data_dir, ended, run};

/// Runs a command that must go well against a server; its output.
#[track_caller]
fn ok(server: &Running, args: &[&str]) -> String {
    let (code, stdout, stderr) = run(&[args, &["--addr", &server.addr]].concat());
    assert_eq!((code, stderr.as_str()), (0, ""), "{args:?}");
    stdout
}

/// A command with something on its standard input.
fn with_input(server: &Running, args: &[&str], input: &str) -> (i32, String, String) {
    let mut command = basalt(&[args, &["--addr", &server.addr]].concat());
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    ended(child.wait_with_output().unwrap())
}

#[test]
fn scans_go_both_ways_within_a_range_and_on_from_a_token() {
    let (_root, dir) = data_dir();
    let server = Running::start(&dir);
    for key in ["a", "b/1", "b/2", "b/3", "c"] {
        ok(&server, &["put", key, "v"]);
    }
    let keys = |args: &[&str]| {
        let args = [&["scan", "--keys-only"], args].concat();
        ok(&server, &args).replace('\n', " ")
    };
    assert_eq!(keys(&[]), "a b/1 b/2 b/3 c ");
    assert_eq!(keys(&["--reverse"]), "c b/3 b/2 b/1 a ");
    assert_eq!(keys(&["--prefix", "b/"]), "b/1 b/2 b/3 ");
    assert_eq!(keys(&["b/2", "--end", "c"]), "b/2 b/3 ");
    assert_eq!(keys(&["b/2", "--end", "c", "--reverse"]), "b/3 b/2 ");
    assert_eq!(
        keys(&["--prefix", "b/", "--reverse", "--limit", "1"]),
        "b/3 "
    );
    assert_eq!(ok(&server, &["scan", "--count"]), "5\n");
    assert_eq!(
        ok(&server, &["scan", "--prefix", "b/", "--count", "--json"]),
        "{\"count\":3}\n"
    );
    for direction in [&[][..], &["--reverse"]] {
        let mut seen = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let mut args = vec!["scan", "--json", "--limit", "2"];
            args.extend(direction);
            if let Some(token) = &token {
                args.extend(["--token", token]);
            }
            let printed = ok(&server, &args);
            token = None;
            for line in printed.lines() {
                let json: serde_json::Value = serde_json::from_str(line).unwrap();
                match json["key"].as_str() {
                    Some(key) => seen.push(key.to_owned()),
                    None => token = Some(json["token"].as_str().unwrap().to_owned()),
                }
            }
            if token.is_none() {
                break;
            }
        }
        if !direction.is_empty() {
            seen.reverse();
        }
        assert_eq!(seen, ["a", "b/1", "b/2", "b/3", "c"], "{direction:?}");
    }
    let addr = ["--addr", server.addr.as_str()];
    let wrong = [&["scan", "--token", "rff"][..], &addr].concat();
    assert_refused(&wrong, 2, &["is no token"]);
    server.stop();
}

#[test]
fn a_range_is_deleted_only_when_that_was_confirmed() {
    let (_root, dir) = data_dir();
    let server = Running::start(&dir);
    for key in ["a", "b/1", "b/2", "c", "d"] {
        ok(&server, &["put", key, "v"]);
    }
    let addr = ["--addr", server.addr.as_str()];
    let args = [&["delete-range", "--prefix", "b/"][..], &addr].concat();
    assert_refused(&args, 6, &["delete 2 keys", "from b/ up to b0", "--yes"]);
    assert_eq!(ok(&server, &["scan", "--count"]), "5\n");
    ok(&server, &["delete-range", "--prefix", "b/", "--yes"]);
    assert_eq!(ok(&server, &["scan", "--keys-only"]), "a\nc\nd\n");
    assert_eq!(
        ok(&server, &["delete-range", "c", "d", "--yes", "--json"]),
        "{\"ok\":true}\n"
    );
    assert_eq!(ok(&server, &["scan", "--keys-only"]), "a\nd\n");
    ok(&server, &["delete-range", "b", "--to-end", "--yes"]);
    assert_eq!(ok(&server, &["scan", "--keys-only"]), "a\n");
    for (wrong, words) in [
        (&["delete-range", "b", "--yes"][..], "--to-end"),
        (&["delete-range", "b", "b", "--yes"], "no key is behind"),
        (&["delete-range", "--yes"], "required"),
    ] {
        assert_refused(&[wrong, &addr].concat(), 2, &[words]);
    }
    server.stop();
}

#[test]
fn a_batch_is_done_whole_or_not_at_all() {
    let (root, dir) = data_dir();
    let server = Running::start(&dir);
    ok(&server, &["put", "old/1", "v"]);
    let input = "# first\nput a 1\nput 'b c' 'it'\\''s'\ndelete-range old/ old0\nput '\\:bin\\x00' ''\n\n\
                 family lock\nput a locked\n";
    let (code, stdout, stderr) = with_input(&server, &["batch", "-", "--json"], input);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(stdout, "{\"batches\":1,\"changes\":5,\"ok\":true}\n");
    assert_eq!(
        ok(&server, &["scan", "--escaped"]),
        "a\t1\nb c\tit's\nbin\\0\t\n"
    );
    assert_eq!(ok(&server, &["get", "a", "--cf", "lock"]), "locked\n");

    // What is wrong is found before anything is sent.
    let addr = server.addr.as_str();
    let file = root.path().join("changes");
    let file = file.to_str().unwrap();
    let refused = |text: &str, code: i32, words: &[&str]| {
        fs::write(file, text).unwrap();
        assert_refused(&["batch", file, "--addr", addr], code, words);
        assert_eq!(run(&["get", "new", "--addr", addr]).0, 3, "{text}");
    };
    refused(
        "put new 1\nputt b 2\n",
        2,
        &["line 2", "\"putt\" is none of"],
    );
    refused("put new 1\nput b\n", 2, &["line 2", "put KEY VALUE"]);
    refused(
        "put new 1\nfamily x\n",
        2,
        &["line 2", "default, write, lock"],
    );
    refused("put new 1\nput 'b 2\n", 2, &["line 2", "no end"]);
    refused(
        "put new 1\nput \\:\\q 2\n",
        2,
        &["line 2", "unknown escape"],
    );
    // And what the server refuses does nothing.
    let long = "k".repeat(70_000);
    refused(
        &format!("put new 1\nput {long} 2\n"),
        1,
        &["nothing is done", "70000 bytes"],
    );
    let large = "v".repeat(5 << 20);
    let text = format!("put new1 {large}\nput new2 {large}\n");
    refused(&text, 2, &["line 2", "--chunk"]);
    ok(&server, &["batch", file, "--chunk", "1"]);
    assert_eq!(ok(&server, &["scan", "--prefix", "new", "--count"]), "2\n");
    let (code, stdout, _) = with_input(
        &server,
        &["batch", "-", "--json"],
        "put x 1\ncommit\nput x 2\nput y 1\n",
    );
    assert_eq!(
        (code, stdout.as_str()),
        (0, "{\"batches\":2,\"changes\":3,\"ok\":true}\n")
    );
    assert_eq!(ok(&server, &["get", "x"]), "2\n");
    server.stop();
}

#[test]
fn what_is_exported_can_be_imported_in_every_form_and_after_a_cut() {
    let (root, dir) = data_dir();
    let server = Running::start(&dir);
    let mut input = String::from("put '\\:bin\\x00\\xff\\n' '\\:\\x80,\"'\nput 'a, b' ''\n");
    for number in 0..3_000 {
        input.push_str(&format!("put k/{number:05} 'value {number}'\n"));
    }
    let (code, _, stderr) = with_input(&server, &["batch", "-"], &input);
    assert_eq!(code, 0, "{stderr}");
    let all = ok(&server, &["scan", "--hex"]);
    let addr = ["--addr", server.addr.as_str()];
    for name in ["all.jsonl", "all.csv", "all.basalt"] {
        let file = root.path().join(name);
        let file = file.to_str().unwrap();
        let done = ok(&server, &["export", file, "--json"]);
        let done: serde_json::Value = serde_json::from_str(&done).unwrap();
        assert_eq!(done["pairs"], 3_002, "{name}");
        let again = [&["export", file][..], &addr].concat();
        assert_refused(&again, 2, &["is there already"]);

        ok(&server, &["delete-range", "", "--to-end", "--yes"]);
        assert_eq!(ok(&server, &["scan", "--count"]), "0\n");
        let done = ok(&server, &["import", file, "--json"]);
        assert_eq!(done, "{\"ok\":true,\"pairs\":3002}\n", "{name}");
        assert_eq!(ok(&server, &["scan", "--hex"]), all, "{name}");

        // A cut file: the binary one is known to be, and each is gone on with.
        let whole = fs::read(file).unwrap();
        fs::write(file, &whole[..whole.len() / 2]).unwrap();
        if name == "all.basalt" {
            let args = [&["import", file][..], &addr].concat();
            assert_refused(&args, 1, &["cut off"]);
        }
        ok(&server, &["export", file, "--resume"]);
        assert!(fs::read(file).unwrap() == whole, "{name}");
    }

    // An import that failed in the middle goes on there.
    let file = root.path().join("broken.csv");
    let text = |wrong: &str| {
        let mut text = String::from("key,value\n");
        for number in 0..2_000 {
            text.push_str(&format!("n/{number},1\n"));
        }
        format!("{text}{wrong}\nn/last,1\n")
    };
    fs::write(&file, text("one,two,three")).unwrap();
    let file = file.to_str().unwrap();
    let args = [&["import", file][..], &addr].concat();
    assert_refused(&args, 1, &["line 2002: 3 fields"]);
    assert_eq!(
        ok(&server, &["scan", "--prefix", "n/", "--count"]),
        "2000\n"
    );
    fs::write(file, text("n/mended,1")).unwrap();
    let done = ok(&server, &["import", file, "--resume", "--json"]);
    assert_eq!(done, "{\"ok\":true,\"pairs\":2}\n");
    assert_eq!(
        ok(&server, &["scan", "--prefix", "n/", "--count"]),
        "2002\n"
    );

    let out = ok(
        &server,
        &["export", "-", "--form", "jsonl", "--prefix", "n/l"],
    );
    assert_eq!(out, "{\"key\":\"n/last\",\"value\":\"1\"}\n");
    server.stop();
}

#[test]
fn values_come_from_files_and_leave_as_they_are() {
    let (root, dir) = data_dir();
    let server = Running::start(&dir);
    let file = root.path().join("value");
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    fs::write(&file, &bytes).unwrap();
    ok(
        &server,
        &["put", "k", "--value-file", file.to_str().unwrap()],
    );
    let args = ["get", "k", "--exact", "--addr", &server.addr];
    assert!(basalt(&args).output().unwrap().stdout == bytes);
    let (code, ..) = with_input(&server, &["put", "k", "--value-file", "-"], "\\:x\n");
    assert_eq!(code, 0);
    assert_eq!(ok(&server, &["get", "k"]), "\\:x\n\n");
    // On the command line it would be the escaped form of another one.
    ok(&server, &["put", "k", "\\:\\x41"]);
    assert_eq!(ok(&server, &["get", "k"]), "A\n");
    server.stop();
}

#[test]
fn a_bench_that_checks_finds_what_somebody_else_wrote_and_draws_what_it_measured() {
    let (root, dir) = data_dir();
    let server = Running::start(&dir);
    let path = |name: &str| root.path().join(name).to_str().unwrap().to_owned();
    let (svg, histogram) = (path("b.svg"), path("b.hgrm"));
    let bench = |more: &[&str]| {
        let args = [
            "bench",
            "mixed",
            "--check",
            "--duration",
            "1",
            "--keys",
            "50",
        ];
        let rest = ["--threads", "4", "--addr", &server.addr];
        run(&[&args, more, &rest].concat())
    };
    let (code, stdout, stderr) = bench(&["--svg", &svg, "--histogram", &histogram]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(
        stdout.contains("every value is what was written"),
        "{stdout}"
    );
    let drawn = fs::read_to_string(&svg).unwrap();
    assert!(
        drawn.starts_with("<svg") && drawn.matches("<polyline").count() == 3,
        "{drawn}"
    );
    assert!(drawn.trim_end().ends_with("</svg>"));
    let told = fs::read_to_string(&histogram).unwrap();
    assert!(told.contains("# put") && told.contains("# read"), "{told}");

    // Another one writes the same keys meanwhile.
    let other = [
        "bench",
        "put",
        "--duration",
        "3",
        "--keys",
        "50",
        "--addr",
        &server.addr,
    ];
    let mut other = basalt(&other).spawn().unwrap();
    let (code, _, stderr) = bench(&[]);
    other.wait().unwrap();
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("not what was written"), "{stderr}");
    server.stop();
}

#[test]
fn every_shell_has_completions_and_every_command_a_page_with_examples_first() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, stdout, _) = run(&["completions", shell]);
        assert!(code == 0 && stdout.contains("delete-range"), "{shell}");
    }
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().to_str().unwrap();
    assert_eq!(run(&["man", dir]).0, 0);
    let page = fs::read_to_string(root.path().join("basalt-delete-range.1")).unwrap();
    assert!(
        page.contains("basalt delete\\-range \\-\\-prefix"),
        "{page}"
    );
    assert!(root.path().join("basalt-member-add.1").exists());
    let (code, help, _) = run(&["scan", "--help"]);
    let (examples, flags) = (
        help.find("Examples:").unwrap(),
        help.find("--keys-only").unwrap(),
    );
    assert!(code == 0 && examples < flags, "{help}");
}
