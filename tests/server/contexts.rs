//! Clusters by name, in the client's file.

use std::fs;

use crate::support::{Running, basalt, data_dir, ended};

#[test]
fn a_command_goes_to_the_context_that_is_meant() {
    let (root, dir) = data_dir();
    let server = Running::start(&dir);
    let file = root.path().join("client.toml");
    let text = format!(
        "# two\ncurrent = \"gone\"\n\n[context.gone]\nendpoints = [\"127.0.0.1:1\"]\n\n\
         [context.here]\nendpoints = [\"{}\"]\n",
        server.addr
    );
    fs::write(&file, &text).unwrap();
    let run = |args: &[&str], variable: Option<(&str, &str)>| {
        let mut command = basalt(args);
        command.env("BASALT_CLIENT_CONFIG", &file).envs(variable);
        ended(command.output().unwrap())
    };
    let (code, _, stderr) = run(&["put", "k", "v"], None);
    assert!(code == 4 && stderr.contains("127.0.0.1:1"), "{stderr}");
    assert_eq!(run(&["put", "k", "v", "--context", "here"], None).0, 0);
    assert_eq!(
        run(&["get", "k"], Some(("BASALT_CONTEXT", "here"))).1,
        "v\n"
    );
    // A flag and a variable go before the current one.
    assert_eq!(run(&["get", "k", "--addr", &server.addr], None).1, "v\n");
    assert_eq!(
        run(&["get", "k"], Some(("BASALT_ADDR", &server.addr))).1,
        "v\n"
    );

    assert_eq!(run(&["context", "use", "here"], None).0, 0);
    assert_eq!(run(&["get", "k"], None).1, "v\n");
    let changed = fs::read_to_string(&file).unwrap();
    assert_eq!(
        changed,
        text.replace("\"gone\"\n", "\"here\"\n"),
        "one line has changed"
    );
    let (_, listed, _) = run(&["context", "list"], None);
    let here = format!(
        "gone\tfalse\t127.0.0.1:1\tfalse\nhere\ttrue\t{}\tfalse\n",
        server.addr
    );
    assert_eq!(listed, here);
    let (_, shown, _) = run(&["context", "show", "--json"], None);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["endpoints"][0], server.addr.as_str());

    let (code, _, stderr) = run(&["get", "k", "--context", "hree"], None);
    assert!(
        code == 2 && stderr.contains("there are gone, here"),
        "{stderr}"
    );
    fs::write(&file, "[context.x]\nendpoint = \"a:1\"\n").unwrap();
    let (code, _, stderr) = run(&["get", "k"], None);
    assert!(code == 2 && stderr.contains("endpoint"), "{stderr}");
    server.stop();
}
