//! `basalt shell`: against a server and a closed directory, by lines from a pipe and through a pseudo terminal.

use std::{
    io::{Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::support::{Running, assert_refused, basalt, data_dir, ended, run};

/// Exit code, standard output and standard error of a shell that reads `input`.
fn shell(args: &[&str], input: &str) -> (i32, String, String) {
    let mut command = basalt(&[&["shell"], args].concat());
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // One that has ended early reads no more.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    ended(child.wait_with_output().unwrap())
}

/// What a shell that ends well prints.
#[track_caller]
fn ok(args: &[&str], input: &str) -> String {
    let (code, stdout, stderr) = shell(args, input);
    assert_eq!((code, stderr.as_str()), (0, ""), "{input}");
    stdout
}

#[test]
fn lines_from_a_pipe_are_done_in_order() {
    let (_root, dir) = data_dir();
    let server = Running::start(&dir);
    let addr = ["--addr", server.addr.as_str()];
    let script = "# some users\nput user/1 Ada\nput user/2 'Grace Hopper'\n\nput '\\:z\\0' \"it's\"\nget user/2\n\
                  scan --prefix user/\nscan --reverse --keys-only --limit 1\nmore\ncount\ndelete user/1\ncount --prefix user/\n\
                  scan user/2 --end user/3 --keys-only\nfamilies\nquit\nput never reached\n";
    let expected = "Grace Hopper\nuser/1\tAda\nuser/2\tGrace Hopper\nz\0\nuser/2\n3\n1\nuser/2\ndefault\nwrite\nlock\n";
    assert_eq!(ok(&addr, script), expected);
    // Another family is another set of keys.
    let families = "use write\nput k v\ncount\nuse default\ncount\n";
    assert_eq!(ok(&addr, families), "1\n2\n");
    assert_eq!(
        ok(&[&addr[..], &["--cf", "write"]].concat(), "get k\n"),
        "v\n"
    );
    assert_eq!(
        ok(&[&addr[..], &["--hex"]].concat(), "get 7a00\n"),
        "69742773\n"
    );
    let (code, stdout, stderr) = shell(&addr, "get nothing\ntiming on\nget user/2\n");
    assert_eq!((code, stdout.as_str()), (0, "Grace Hopper\n"));
    assert!(
        stderr.contains("nothing is not there") && stderr.contains(" ms\n"),
        "{stderr}"
    );
    let status = ok(&addr, "status\nhelp\nhelp scan\n");
    assert!(
        status.contains("standalone")
            && status.contains("help COMMAND has examples")
            && status.contains("--prefix KEY")
    );
    server.stop();
}

#[test]
fn a_scan_prints_all_and_more_goes_on_both_ways() {
    let (_root, dir) = data_dir();
    let server = Running::start(&dir);
    let addr = ["--addr", server.addr.as_str()];
    let keys = || (0..2100).map(|number| format!("{number:04}"));
    let puts: String = keys().map(|key| format!("put {key} v\n")).collect();
    assert_eq!(ok(&addr, &format!("batch\n{puts}end\n")), "");
    let all: String = keys().map(|key| format!("{key}\n")).collect();
    let shown = ok(&addr, "scan --keys-only\n");
    assert!(shown == all, "{} lines", shown.lines().count());
    let paged = ok(&addr, "scan --keys-only --limit 700\nmore\nmore\n");
    assert!(paged == all, "{} lines", paged.lines().count());
    let back: String = keys().rev().map(|key| format!("{key}\n")).collect();
    let shown = ok(&addr, "scan --keys-only --reverse --limit 1050\nmore\n");
    assert!(shown == back, "{} lines", shown.lines().count());
    let (code, _, stderr) = shell(&addr, "scan --limit 2100\nmore\n");
    assert!(
        code == 1 && stderr.contains("line 2: there is no more"),
        "{stderr}"
    );
    server.stop();

    // The same from the closed directory.
    let dir = ["--dir", dir.to_str().unwrap()];
    assert!(ok(&dir, "scan --keys-only\n") == all);
    assert!(ok(&dir, "scan --keys-only --limit 700\nmore\nmore\n") == all);
    assert!(ok(&dir, "scan --keys-only --reverse --limit 1050\nmore\n") == back);
}

#[test]
fn a_batch_is_done_whole_or_not_at_all() {
    let (_root, dir) = data_dir();
    let server = Running::start(&dir);
    let addr = ["--addr", server.addr.as_str()];
    let fails = |args: &[&str], input: &str, words: &[&str]| {
        let (code, _, stderr) = shell(&[&addr[..], args].concat(), input);
        assert_eq!(code, 1, "{input}: {stderr}");
        for word in words {
            assert!(stderr.contains(word), "{word:?} is not in {stderr:?}");
        }
    };
    let whole = "put old 1\nbatch\nput a 1\nuse write\nput b 2\nuse default\ndelete old\ncount\nend\ncount\n";
    assert_eq!(ok(&addr, whole), "1\n1\n", "nothing is done before its end");
    assert_eq!(ok(&addr, "use write\nget b\n"), "2\n");
    assert_eq!(
        ok(&addr, "batch\nput c 3\nabort\nput d 4\nscan --keys-only\n"),
        "a\nd\n"
    );
    fails(&[], "batch\nput e 5\n", &["batch of line 1 has no end"]);
    fails(
        &[],
        "batch\nput e 5\nptu f 6\nend\n",
        &["line 3:", "did you mean \"put\""],
    );
    let broken = "put x 1\nbatch\nput e 5\nput f\nend\nput g 7\n";
    fails(
        &["--keep-going"],
        broken,
        &[
            "line 4:",
            "line 5: nothing of the batch is done",
            "2 lines failed",
        ],
    );
    fails(&[], "batch\nbatch\n", &["line 2:", "is open"]);
    fails(&[], "end\n", &["line 1:", "no batch"]);
    let range = "batch\ndelete-range a e --yes\nput a new\nend\nscan\n";
    assert_eq!(ok(&addr, range), "a\tnew\ng\t7\nx\t1\n");
    server.stop();
}

#[test]
fn the_first_line_that_fails_ends_a_script_and_is_named() {
    let (_root, dir) = data_dir();
    let server = Running::start(&dir);
    let addr = ["--addr", server.addr.as_str()];
    let (code, stdout, stderr) = shell(&addr, "put a 1\ngte a\nget a\n");
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert_eq!(
        stderr,
        "basalt: line 2: there is no command \"gte\"; did you mean \"get\"?\n"
    );
    let going = [&addr[..], &["--keep-going"]].concat();
    let (code, stdout, stderr) = shell(&going, "gte a\nget a\nuse nowhere\n");
    assert_eq!((code, stdout.as_str()), (1, "1\n"));
    assert!(
        stderr.contains("line 1:") && stderr.contains("line 3: there is no family \"nowhere\""),
        "{stderr}"
    );
    // Nobody can be asked.
    let (code, _, stderr) = shell(&addr, "delete-range --prefix a\n");
    assert!(
        code == 1 && stderr.contains("line 1: delete 1 key") && stderr.contains("--yes"),
        "{stderr}"
    );
    assert_eq!(ok(&addr, "count\n"), "1\n");
    assert_eq!(
        ok(
            &[&addr[..], &["--yes"]].concat(),
            "delete-range --prefix a\ncount\n"
        ),
        "0\n"
    );
    assert!(ok(&addr, "explain a\n").contains("absent: "));
    assert_refused(
        &[&["shell", "--cf", "x"], &addr[..]].concat(),
        2,
        &["no family", "default, write, lock"],
    );
    let addr = server.addr.clone();
    server.stop();
    assert_refused(&["shell", "--addr", &addr], 4, &["refused"]);
}

#[test]
fn a_closed_directory_is_read_and_never_changed() {
    let (_root, dir) = data_dir();
    let shown = dir.to_str().unwrap();
    let server = Running::start(&dir);
    let addr = ["--addr", server.addr.as_str()];
    ok(
        &addr,
        "put a 1\nput b 2\nput c 3\ndelete b\nuse lock\nput l 4\n",
    );
    assert_refused(&["shell", "--dir", shown], 1, &["in use", "--addr"]);
    server.stop();

    let before = listing(&dir);
    let closed = ["--dir", shown];
    assert_eq!(
        ok(&closed, "get a\nscan\ncount\nscan --reverse --limit 1\n"),
        "1\na\t1\nc\t3\n2\nc\t3\n"
    );
    assert_eq!(
        ok(&closed, "use lock\nget l\nfamilies\n"),
        "4\ndefault\nwrite\nlock\n"
    );
    let explained = ok(&closed, "explain a\nexplain b\nexplain nothing\n");
    assert!(
        explained.contains("found, 1 bytes") && explained.contains("absent: deleted"),
        "{explained}"
    );
    assert!(ok(&closed, "status\n").contains("engine kv"));
    for change in ["put a 2", "delete a", "delete-range a b", "batch"] {
        let (code, stdout, stderr) = shell(&closed, &format!("{change}\n"));
        assert_eq!((code, stdout.as_str()), (1, ""), "{change}");
        assert!(
            stderr.contains("line 1: READ_ONLY:") && stderr.contains(shown),
            "{stderr}"
        );
    }
    assert_eq!(listing(&dir), before, "the directory is as it was");
    assert_refused(&["shell", "--dir", "/no/such/dir"], 1, &["/no/such/dir"]);
}

/// Names, lengths and contents of the files below a directory.
fn listing(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(listing(&path)),
            false => files.push((path.display().to_string(), std::fs::read(&path).unwrap())),
        }
    }
    files.sort();
    files
}

/// On a pseudo terminal, which `script` of util-linux makes.
#[test]
fn a_person_at_a_terminal_has_a_prompt_completion_and_a_history() {
    if Command::new("script").arg("--version").output().is_err() {
        eprintln!("SKIPPED: `script` of util-linux is not here, so no terminal was tried");
        return;
    }
    let (root, dir) = data_dir();
    let server = Running::start(&dir);
    assert_eq!(
        run(&["put", "user/ada", "Lovelace", "--addr", &server.addr]).0,
        0
    );
    let binary = env!("CARGO_BIN_EXE_basalt");
    let command = format!("{binary} shell --addr {}", server.addr);
    let mut child = Command::new("script")
        .args(["-q", "-e", "-c", &command, "/dev/null"])
        .env("BASALT_CLIENT_CONFIG", "/no/such/client.toml")
        .env("XDG_STATE_HOME", root.path())
        .env("TERM", "xterm")
        .env("NO_COLOR", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = child.stdout.take().unwrap();
    let (sender, pieces) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(len @ 1..) = output.read(&mut piece) {
            let _ = sender.send(String::from_utf8_lossy(&piece[..len]).into_owned());
        }
    });
    // What came and was not waited for yet.
    let mut seen = String::new();
    let mut wait_for = |word: &str| {
        let began = Instant::now();
        loop {
            if let Some(at) = seen.find(word) {
                seen.drain(..at + word.len());
                return;
            }
            let left = Duration::from_secs(30).saturating_sub(began.elapsed());
            match pieces.recv_timeout(left) {
                Ok(piece) => seen.push_str(&piece),
                Err(_) => panic!("{word:?} did not come: {seen:?}"),
            }
        }
    };
    wait_for("basalt> ");
    // The one key that begins so is completed, with its command.
    input.write_all(b"ge\tus\t\r").unwrap();
    wait_for("Lovelace");
    wait_for("basalt> ");
    // Ctrl-C forgets a line and not the shell.
    input.write_all(b"put user/ada never\x03").unwrap();
    wait_for("basalt> ");
    input.write_all(b"use write\r").unwrap();
    wait_for("basalt:write> ");
    input.write_all(b"delete-range --prefix u\r").unwrap();
    wait_for("? [y/N] ");
    input.write_all(b"n\r").unwrap();
    wait_for("nothing is changed");
    wait_for("basalt:write> ");
    input.write_all(b"\x04").unwrap();
    assert!(child.wait().unwrap().success());
    drop(input);
    reader.join().unwrap();
    let history = root.path().join("basalt").join("history");
    let kept = std::fs::read_to_string(&history).unwrap();
    assert!(
        kept.contains("get user/ada") && !kept.contains("never"),
        "{kept}"
    );
    assert_eq!(
        history.metadata().unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(
        run(&["get", "user/ada", "--addr", &server.addr]).1,
        "Lovelace\n"
    );
    server.stop();
}
