//! The JSON of the status address and the page's files: what they say, to whom, and that the document has every field.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
};

use serde_json::Value;

use crate::support::{Running, basalt, data_dir, run};

/// An answer: its status, its headers in lower case, its body.
struct Answer {
    code: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

fn get(server: &Running, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut stream = TcpStream::connect(&server.status_addr).unwrap();
    let mut request = format!("GET {path} HTTP/1.0\r\n");
    if !headers.iter().any(|(name, _)| *name == "host") {
        request.push_str(&format!("host: {}\r\n", server.status_addr));
    }
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    stream
        .write_all(format!("{request}\r\n").as_bytes())
        .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    Answer {
        code: head[9..12].parse().unwrap(),
        head: head.to_lowercase(),
        body: body.to_owned(),
    }
}

const PATHS: [&str; 9] = [
    "overview", "cluster", "engine", "rates", "slow", "log", "config", "keys", "memory",
];

fn names(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                into.insert(name.clone());
                names(value, into);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| names(value, into)),
        _ => {}
    }
}

#[test]
fn every_field_is_in_the_document() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/status-api.md");
    let document = fs::read_to_string(document).unwrap();
    let (_root, dir) = data_dir();
    let server = Running::start_with(
        &dir,
        &["--slow-request-time", "1ms", "--status-browse", "values"],
    );
    let (code, _, stderr) = run(&["put", "k", "v", "--addr", &server.addr]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(run(&["flush", "--addr", &server.addr]).0, 0);
    std::thread::sleep(std::time::Duration::from_millis(1200));
    let mut known = BTreeSet::new();
    for path in PATHS {
        let answer = get(&server, &format!("/api/v1/{path}"), &[]);
        assert_eq!(answer.code, 200, "{path}: {}", answer.body);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        names(&answer.json(), &mut known);
    }
    assert!(known.len() > 100, "{known:?}");
    for name in known {
        assert!(
            document.contains(&format!("`{name}`")),
            "{name} is not in docs/status-api.md"
        );
    }
    for path in PATHS {
        assert!(document.contains(path), "{path}");
    }
    let keys = get(&server, "/api/v1/keys?prefix=6b", &[]).json();
    assert_eq!(keys["keys"][0]["key"], "6b");
    assert_eq!(keys["keys"][0]["value"], "76");
    assert_eq!(keys["next"], Value::Null);
    let engine = get(&server, "/api/v1/engine", &[]).json();
    let family = &engine["engines"][0]["families"][0];
    assert_eq!(
        (&family["name"], &family["tables"][0]["entries"]),
        (&Value::from("default"), &Value::from(1))
    );
    let rates = get(&server, "/api/v1/rates", &[]).json();
    let samples = rates["samples"].as_array().unwrap();
    let writes: u64 = samples
        .iter()
        .map(|one| one["write"]["count"].as_u64().unwrap())
        .sum();
    assert_eq!(writes, 1);
    server.stop();
}

#[test]
fn pages_of_keys_follow_each_other_and_wrong_requests_are_refused_by_name() {
    let (_root, dir) = data_dir();
    let server = Running::start(&dir);
    for key in ["a", "b", "c"] {
        assert_eq!(run(&["put", key, "v", "--addr", &server.addr]).0, 0);
    }
    let mut from = String::new();
    let mut seen = Vec::new();
    loop {
        let page = get(&server, &format!("/api/v1/keys?limit=1&from={from}"), &[]).json();
        assert_eq!(page["keys"].as_array().unwrap().len(), 1);
        assert_eq!(
            page["keys"][0]["value"],
            Value::Null,
            "by default values are not shown"
        );
        seen.push(page["keys"][0]["key"].as_str().unwrap().to_owned());
        match page["next"].as_str() {
            Some(next) => from = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, ["61", "62", "63"]);
    for (path, code, words) in [
        ("/api/v1/keys?cf=none", 400, "unknown column family"),
        ("/api/v1/keys?from=6", 400, "hex"),
        ("/api/v1/keys?limit=x", 400, "limit is a number"),
        ("/api/v1/rates?after=-1", 400, "after is a number"),
        ("/debug/profile?seconds=0", 400, "1 to 60"),
        ("/debug/profile?format=png", 400, "svg or folded"),
    ] {
        let answer = get(&server, path, &[]);
        assert_eq!(answer.code, code, "{path}: {}", answer.body);
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(words), "{path}: {error}");
    }
    for headers in [
        [("host", "evil.example"), ("accept", "*/*")],
        [("sec-fetch-site", "cross-site"), ("accept", "*/*")],
    ] {
        for path in ["overview", "keys", "log"] {
            let answer = get(&server, &format!("/api/v1/{path}"), &headers);
            assert_eq!(answer.code, 403, "{path}");
        }
    }
    server.stop();
}

#[test]
fn the_page_is_text_for_programs_and_is_not_sent_twice_to_browsers() {
    let (_root, dir) = data_dir();
    let server = Running::start(&dir);
    let text = get(&server, "/", &[("accept", "*/*")]);
    assert!(
        text.body.starts_with("Basalt: ") && !text.body.contains('<'),
        "{}",
        text.body
    );
    let html = ("accept", "text/html,*/*;q=0.8");
    for path in ["/", "/style.css", "/app.js", "/icon.svg"] {
        let first = get(&server, path, &[html]);
        assert_eq!(first.code, 200, "{path}");
        assert_eq!(first.header("x-content-type-options"), Some("nosniff"));
        let policy = first.header("content-security-policy").unwrap();
        assert!(
            policy.starts_with("default-src 'self'; frame-ancestors 'none'"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"), "{policy}");
        for word in ["http://", "https://"] {
            let elsewhere = first.body.replace("http://www.w3.org/", "");
            assert!(
                !elsewhere.contains(word),
                "{path} names something elsewhere"
            );
        }
        for word in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
        ] {
            assert!(!first.body.contains(word), "{path}: {word}");
        }
        let tag = first.header("etag").unwrap();
        let again = get(&server, path, &[html, ("if-none-match", tag)]);
        assert_eq!((again.code, again.body.as_str()), (304, ""), "{path}");
    }
    server.stop();
}

#[test]
fn a_profile_names_what_runs_and_memory_is_what_the_kernel_says() {
    let (_root, dir) = data_dir();
    let server = Running::start(&dir);
    let addr = server.addr.clone();
    let load =
        std::thread::spawn(move || run(&["bench", "put", "--addr", &addr, "--duration", "3"]));
    std::thread::sleep(std::time::Duration::from_millis(500));
    let profile = get(&server, "/debug/profile?seconds=2&format=folded", &[]);
    assert_eq!(profile.code, 200, "{}", profile.body);
    let lines: Vec<_> = profile.body.lines().collect();
    let is_folded = |line: &&str| {
        let (stack, count) = line.rsplit_once(' ').unwrap();
        stack.contains(';') && count.parse::<u64>().is_ok_and(|count| count > 0)
    };
    assert!(
        !lines.is_empty() && lines.iter().all(|line| is_folded(line)),
        "{lines:?}"
    );
    assert!(
        profile.body.contains("basalt-async"),
        "threads are named: {lines:?}"
    );
    let (code, _, stderr) = load.join().unwrap();
    assert_eq!(code, 0, "{stderr}");
    let memory = get(&server, "/debug/heap", &[]).json();
    let process = &memory["process"];
    let anonymous = process["anonymous"].as_u64().unwrap();
    assert!(
        anonymous > 1 << 20 && anonymous <= process["resident"].as_u64().unwrap(),
        "{memory}"
    );
    assert!(memory["engines"][0]["memory"]["total"].as_u64().unwrap() > 0);
    server.stop();
}

#[test]
fn where_there_are_rights_they_hold_for_the_page_too() {
    let (root, dir) = data_dir();
    let rights = root.path().join("rights.toml");
    let mut text =
        "[[role]]\nname = \"app\"\ngrants = [{ can = [\"read\", \"write\"], prefix = \"app/\" }]\n\
                    [[role]]\nname = \"chief\"\ngrants = [{ can = [\"admin\"] }]\n"
            .to_owned();
    let mut token = |name: &str| {
        let made = basalt(&["token", name, "--roles", name]).output().unwrap();
        text.push_str(&String::from_utf8(made.stderr).unwrap());
        format!("Bearer {}", String::from_utf8(made.stdout).unwrap().trim())
    };
    let (app, chief) = (token("app"), token("chief"));
    fs::write(&rights, text).unwrap();
    let file = root.path().join("token");
    fs::write(&file, app.strip_prefix("Bearer ").unwrap()).unwrap();
    let server = Running::start_with(&dir, &["--auth-file", rights.to_str().unwrap()]);
    let put = [
        "put",
        "app/k",
        "v",
        "--addr",
        &server.addr,
        "--token-file",
        file.to_str().unwrap(),
    ];
    let (code, _, stderr) = run(&put);
    assert_eq!(code, 0, "{stderr}");
    let code = |path: &str, token: &str| {
        let answer = get(
            &server,
            path,
            &[("authorization", token), ("host", "any.name.will.do")],
        );
        (answer.code, answer.body)
    };
    for path in PATHS {
        let path = format!("/api/v1/{path}");
        assert_eq!(get(&server, &path, &[]).code, 401, "{path}");
        assert_eq!(code(&path, "Bearer wrong").0, 401, "{path}");
    }
    assert_eq!(get(&server, "/debug/profile?seconds=1", &[]).code, 401);
    for (path, of_app, of_chief) in [
        ("/api/v1/overview", 200, 200),
        ("/api/v1/log", 403, 200),
        ("/api/v1/config", 403, 200),
        ("/debug/profile?seconds=1", 403, 200),
        ("/api/v1/keys", 403, 403),
        ("/api/v1/keys?prefix=6170702f", 200, 403),
    ] {
        assert_eq!(code(path, &app).0, of_app, "{path}");
        assert_eq!(code(path, &chief).0, of_chief, "{path}");
    }
    let (_, body) = code("/api/v1/keys?prefix=6170702f", &app);
    assert!(body.contains("6170702f6b"), "{body}");
    server.stop();
}
