//! The real binary with certificates and tokens: the command line against it, and what its log says.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command},
};

use crate::{
    certificates::Authority,
    support::{assert_refused, basalt, data_dir, ended, run},
};

/// A server whose log is kept.
struct Logging {
    child: Child,
    addr: String,
    line: String,
}

impl Logging {
    fn start(dir: &Path, more: &[&str]) -> Self {
        let (dir, free) = (dir.to_str().unwrap(), "127.0.0.1:0");
        let args = [
            "server",
            "--path",
            dir,
            "--addr",
            free,
            "--status-addr",
            free,
        ];
        let mut command: Command = basalt(&[&args[..], more].concat());
        let log = fs::File::create(Self::log_file(Path::new(dir))).unwrap();
        let mut child = command.stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let addr = line
            .split_once(" on ")
            .unwrap()
            .1
            .split(' ')
            .next()
            .unwrap();
        Self {
            child,
            addr: addr.to_owned(),
            line,
        }
    }

    fn log_file(dir: &Path) -> PathBuf {
        dir.with_extension("log")
    }

    /// Ends it; what it has logged.
    fn end(mut self, dir: &Path) -> String {
        let pid = self.child.id().to_string();
        Command::new("kill")
            .args(["-s", "TERM", &pid])
            .status()
            .unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        let mut text = String::new();
        let mut log = fs::File::open(Self::log_file(dir)).unwrap();
        log.read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        // Gone already, where the test has ended it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn commands_speak_tls_and_say_what_is_wrong_with_it() {
    let (root, dir) = data_dir();
    let stores = Authority::new(root.path(), "stores");
    let clients = Authority::new(root.path(), "clients");
    let [cert, key] = stores.sign("server", &["127.0.0.1"]);
    let [alice, alice_key] = clients.sign("alice", &[]);
    let [mallory, mallory_key] = stores.sign("mallory", &[]);
    let (trusted, known) = (stores.file(), clients.file());
    let server = Logging::start(
        &dir,
        &[
            "--tls-cert",
            &cert,
            "--tls-key",
            &key,
            "--tls-client-ca",
            &known,
        ],
    );
    assert!(server.line.contains("status https://"), "{}", server.line);
    let addr = server.addr.clone();
    let addr = addr.as_str();
    let own = ["--tls-cert", &alice, "--tls-key", &alice_key];
    let tls = [&["--addr", addr, "--tls-ca", &trusted], &own[..]].concat();
    let put = [&["put", "k", "v"], &tls[..]].concat();
    let (code, _, stderr) = run(&put);
    assert_eq!(code, 0, "{stderr}");
    let (code, stdout, _) = run(&[&["get", "k"], &tls[..]].concat());
    assert_eq!((code, stdout.as_str()), (0, "v\n"));
    // The same from the environment.
    let mut command = basalt(&["get", "k"]);
    for (name, value) in [
        ("BASALT_ADDR", addr),
        ("BASALT_TLS_CA", &trusted),
        ("BASALT_TLS_CERT", &alice),
        ("BASALT_TLS_KEY", &alice_key),
    ] {
        command.env(name, value);
    }
    assert_eq!(ended(command.output().unwrap()).1, "v\n");

    let get = ["get", "k", "--addr", addr];
    let with = |more: &[&'static str], files: &[(&'static str, &str)]| {
        let mut args: Vec<String> = get
            .iter()
            .chain(more)
            .map(|arg| (*arg).to_owned())
            .collect();
        for (flag, file) in files {
            args.extend([(*flag).to_owned(), (*file).to_owned()]);
        }
        args
    };
    let ca = ("--tls-ca", trusted.as_str());
    let shown = [
        ("--tls-cert", alice.as_str()),
        ("--tls-key", alice_key.as_str()),
    ];
    let wrong = [
        ("--tls-cert", mallory.as_str()),
        ("--tls-key", mallory_key.as_str()),
    ];
    for (args, code, words) in [
        (
            with(&[], &[]),
            1,
            "speaks TLS; name its authority with --tls-ca",
        ),
        (with(&[], &[ca]), 1, "demands a certificate"),
        (
            with(&[], &[ca, wrong[0], wrong[1]]),
            1,
            "does not trust the authority",
        ),
        (
            with(&[], &[("--tls-ca", &known), shown[0], shown[1]]),
            1,
            "comes from another authority",
        ),
        (
            with(
                &["--tls-server-name", "db.example"],
                &[ca, shown[0], shown[1]],
            ),
            1,
            "for another name",
        ),
        (with(&[], &[ca, shown[0]]), 2, "need each other"),
        (
            with(&[], &[ca, shown[0], wrong[1]]),
            2,
            "does not belong to the certificate",
        ),
        (with(&[], &shown), 2, "TLS needs --tls-ca"),
        (
            with(&[], &[("--tls-ca", "/no/such")]),
            2,
            "cannot read /no/such",
        ),
    ] {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        assert_refused(&args, code, &[words]);
    }
    let log = server.end(&dir);
    for reason in [
        "plain text on a port that speaks TLS",
        "it has shown no certificate",
    ] {
        assert!(log.contains(reason), "{reason:?} is not in {log}");
    }

    let plain = Logging::start(&dir, &[]);
    let args = with(&[], &[ca]);
    let mut args: Vec<&str> = args.iter().map(String::as_str).collect();
    args[3] = &plain.addr;
    assert_refused(&args, 1, &["cannot speak TLS"]);
}

/// Nothing of keys, values and tokens is in the log, whatever happens to them.
#[test]
fn tokens_have_rights_and_the_log_has_refusals_without_user_data() {
    const CANARIES: [&str; 3] = ["canary-key", "canary-value", "canary-denied"];
    let (root, dir) = data_dir();
    let (code, token, entry) = run(&["token", "app-1", "--roles", "app"]);
    assert_eq!(code, 0, "{entry}");
    let rights = root.path().join("rights.toml");
    let role = "[[role]]\nname = \"app\"\ngrants = [{ can = [\"read\", \"write\"], prefix = \"canary-key\" }]\n";
    fs::write(&rights, format!("{role}{entry}")).unwrap();
    let token_file = root.path().join("token");
    fs::write(&token_file, &token).unwrap();
    let stranger = root.path().join("stranger");
    fs::write(&stranger, "canary-stranger\n").unwrap();
    assert!(!entry.contains(token.trim()), "only its hash is kept");

    let rights = rights.to_str().unwrap();
    let more = [
        "--auth-file",
        rights,
        "--log-level",
        "trace",
        "--slow-request-time",
        "1ms",
    ];
    let server = Logging::start(&dir, &more);
    let addr = server.addr.clone();
    let addr = addr.as_str();
    let with = |args: &[&'static str], token: &Path| -> (i32, String, String) {
        let token = token.to_str().unwrap();
        run(&[args, &["--addr", addr, "--token-file", token]].concat())
    };
    assert_eq!(
        with(&["put", "canary-key", "canary-value"], &token_file).0,
        0
    );
    assert_eq!(
        with(&["get", "canary-key"], &token_file).1,
        "canary-value\n"
    );
    assert_eq!(with(&["scan", "canary-key"], &token_file).0, 0);
    for (args, token, words) in [
        (
            &["put", "canary-denied", "canary-value"][..],
            &token_file,
            "NOT_ALLOWED",
        ),
        (&["scan"], &token_file, "NOT_ALLOWED"),
        (&["flush"], &token_file, "NOT_ALLOWED"),
        (&["get", "canary-key"], &stranger, "UNKNOWN_TOKEN"),
    ] {
        let (code, stdout, stderr) = with(args, token);
        assert_eq!((code, stdout.as_str()), (1, ""), "{args:?}");
        assert!(stderr.contains(words), "{stderr}");
    }
    assert_refused(
        &["get", "canary-key", "--addr", addr],
        1,
        &["NOT_AUTHENTICATED"],
    );
    let token_text = token_file.to_str().unwrap();
    let abroad = [
        "get",
        "k",
        "--addr",
        "db.example:1",
        "--token-file",
        token_text,
    ];
    assert_refused(&abroad, 2, &["does not go to db.example:1 in plain text"]);

    let log = server.end(&dir);
    let secrets = [token.trim(), "canary-stranger"];
    for canary in CANARIES.into_iter().chain(secrets) {
        let found = log.lines().find(|line| line.contains(canary));
        assert_eq!(found, None, "{canary}");
    }
    let lines = log.lines().map(|line| serde_json::from_str(line).unwrap());
    let lines: Vec<serde_json::Value> = lines.collect();
    let audit: Vec<_> = lines
        .iter()
        .filter(|line| line["target"] == "basalt::audit")
        .collect();
    assert_eq!(audit.len(), 5, "{audit:?}");
    let expected = [
        ("RawPut", "token app-1", "no write right"),
        ("RawScan", "token app-1", "no read right"),
        ("Flush", "token app-1", "no admin right"),
        ("RawGet", "unknown", "UNKNOWN_TOKEN"),
        ("RawGet", "unknown", "NOT_AUTHENTICATED"),
    ];
    for (line, (method, who, why)) in audit.iter().zip(expected) {
        assert_eq!(
            (&line["method"], &line["who"]),
            (&method.into(), &who.into())
        );
        assert!(line["why"].as_str().unwrap().contains(why), "{line}");
    }
}

/// The commands of a block of the document, each on one line.
fn recipe() -> (String, Vec<String>) {
    let page = include_str!("../../docs/operations/security.md");
    let block = page.split_once("```sh\n").unwrap().1;
    let (certificates, commands) = block.split_once("\n\n").unwrap();
    let commands = commands.split_once("```").unwrap().0;
    let commands = commands.lines().map(str::to_owned).collect();
    (certificates.to_owned(), commands)
}

/// What the document says, done as it says.
#[test]
fn the_certificates_of_the_document_serve_its_commands() {
    let has_openssl = Command::new("openssl").arg("version").output();
    if !has_openssl.is_ok_and(|told| told.stdout.starts_with(b"OpenSSL 3")) {
        eprintln!(
            "SKIPPED: the recipe of docs/operations/security.md needs the command openssl, version 3"
        );
        return;
    }
    let (certificates, commands) = recipe();
    let (root, dir) = data_dir();
    let mut shell = Command::new("sh");
    shell.args(["-e", "-c", &certificates]).current_dir(&root);
    let made = shell.output().unwrap();
    assert!(made.status.success(), "{made:?}");

    // As the document has them, but for this machine's address and full names of files.
    let words = |line: &str| -> Vec<String> {
        let words = line.strip_prefix("basalt ").unwrap().split(' ');
        let words = words.map(
            |word| match word.ends_with(".pem") || word.ends_with(".key") {
                true => root.path().join(word).to_str().unwrap().to_owned(),
                false => word.to_owned(),
            },
        );
        words.collect()
    };
    let [server, put] = &commands[..] else {
        panic!("a server and a command: {commands:?}");
    };
    let server = words(server);
    assert_eq!(
        server[..5],
        [
            "server",
            "--addr",
            "db1.example:20160",
            "--status-addr",
            "db1.example:20180"
        ]
    );
    let more: Vec<&str> = server[5..].iter().map(String::as_str).collect();
    let server = Logging::start(&dir, &more);
    let mut put = words(put);
    let name = put
        .iter()
        .position(|word| word == "db1.example:20160")
        .unwrap();
    put[name].clone_from(&server.addr);
    put.extend(["--tls-server-name".to_owned(), "db1.example".to_owned()]);
    let put: Vec<&str> = put.iter().map(String::as_str).collect();
    let (code, _, stderr) = run(&put);
    assert_eq!(code, 0, "{stderr}");
    server.end(&dir);
}
