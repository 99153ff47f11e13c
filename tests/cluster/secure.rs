//! Three stores that know each other by their certificates: they serve, survive the loss of one, take new certificates
//! while they run, and let nobody in who only looks like a store.

use std::path::Path;

use tempfile::TempDir;

use crate::{
    certificates::Authority,
    processes::{Cluster, Process, basalt, eventually, free_addrs, run},
};

struct Secure {
    root: TempDir,
    stores: Authority,
    clients: Authority,
    addrs: Vec<String>,
    running: Vec<Option<Process>>,
}

impl Secure {
    /// Three stores that serve.
    fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        let mut cluster = Self {
            stores: Authority::new(root.path(), "stores"),
            clients: Authority::new(root.path(), "clients"),
            addrs: free_addrs(3),
            running: Vec::new(),
            root,
        };
        let founders = (1..).zip(&cluster.addrs);
        let founders: Vec<String> = founders.map(|(id, addr)| format!("{id}={addr}")).collect();
        let founders = founders.join(",");
        for id in 1..=3 {
            let name = id.to_string();
            let own = cluster.stores.sign(&format!("store-{id}"), &["127.0.0.1"]);
            let more = ["--store-id", &name, "--initial-cluster", &founders];
            let process = cluster.spawn(&format!("store-{id}"), &own, &more);
            cluster.running.push(Some(process));
        }
        for process in cluster.running.iter_mut().flatten() {
            let line = process.line();
            assert!(line.contains("of cluster"), "{line}");
        }
        cluster
    }

    fn spawn(&self, name: &str, own: &[String; 2], more: &[&str]) -> Process {
        let dir = self.root.path().join(name);
        let (stores, clients) = (self.stores.file(), self.clients.file());
        let tls = self.tls(own, &stores, &clients);
        Process::spawn(&Cluster::args(&dir, &[&tls, more].concat()))
    }

    fn tls<'a>(&self, own: &'a [String; 2], stores: &'a str, clients: &'a str) -> Vec<&'a str> {
        let [cert, key] = own;
        vec![
            "--tls-cert",
            cert,
            "--tls-key",
            key,
            "--tls-peer-ca",
            stores,
            "--tls-client-ca",
            clients,
        ]
    }

    /// Runs a command of a client; the whole cluster is its address.
    fn ask(&self, args: &[&str]) -> (i32, String, String) {
        let [cert, key] = self.clients.sign("alice", &[]);
        let (ca, addrs) = (self.stores.file(), self.addrs.join(","));
        let access = [
            "--addr",
            &addrs,
            "--tls-ca",
            &ca,
            "--tls-cert",
            &cert,
            "--tls-key",
            &key,
        ];
        run(&[args, &access].concat())
    }

    fn get(&self, key: &str) -> Option<String> {
        let (code, stdout, _) = self.ask(&["get", key]);
        (code == 0).then_some(stdout)
    }
}

#[test]
fn stores_with_certificates_serve_and_survive_the_loss_of_one_and_a_change_of_certificates() {
    let mut cluster = Secure::start();
    let (code, _, stderr) = cluster.ask(&["put", "k", "v"]);
    assert_eq!(code, 0, "{stderr}");
    let (_, stdout, stderr) = cluster.ask(&["member", "list"]);
    assert_eq!(stdout.matches(" serving ").count(), 3, "{stdout}{stderr}");

    // A new certificate for the second, taken while it runs; then the first goes, and the two that are left have to
    // find each other by it.
    cluster.stores.sign("store-2", &["127.0.0.1"]);
    cluster.running[1].as_ref().unwrap().signal("HUP");
    drop(cluster.running[0].take());
    eventually("the others serve", || {
        cluster.get("k").filter(|value| value == "v\n")
    });
    eventually("the others take writes", || {
        let (code, ..) = cluster.ask(&["put", "k", "w"]);
        (code == 0).then_some(())
    });
    // What was killed comes back, and is let in again.
    let own = cluster.stores.sign("store-1", &["127.0.0.1"]);
    cluster.running[0] = Some(cluster.spawn("store-1", &own, &[]));
    let line = cluster.running[0].as_mut().unwrap().line();
    assert!(line.contains("as store 1 of cluster"), "{line}");
    eventually("three serve again", || {
        let (_, stdout, _) = cluster.ask(&["member", "list"]);
        (stdout.matches(" serving ").count() == 3).then_some(())
    });
    assert_eq!(cluster.get("k").as_deref(), Some("w\n"));
}

#[test]
fn nobody_joins_without_the_certificate_of_a_store() {
    let cluster = Secure::start();
    let strangers = Authority::new(cluster.root.path(), "strangers");
    let through = cluster.addrs[0].as_str();
    let free = free_addrs(1).remove(0);
    let (stores, clients) = (cluster.stores.file(), cluster.clients.file());
    let dir = cluster.root.path().join("new");
    let join = |own: &[String; 2]| -> (i32, String) {
        let tls = cluster.tls(own, &stores, &clients);
        let args = [&tls[..], &["--addr", &free, "--join", through]].concat();
        let output = basalt(&Cluster::args(Path::new(&dir), &args))
            .output()
            .unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), told)
    };
    for (own, words) in [
        (
            strangers.sign("stranger", &["127.0.0.1"]),
            "does not trust the authority",
        ),
        // A client's, stolen: it opens the connection and nothing that stores do.
        (
            cluster.clients.sign("stolen", &["127.0.0.1"]),
            "only stores of the cluster",
        ),
    ] {
        // A machine that is busy answers late, and that is another reason.
        eventually(words, || {
            let (code, told) = join(&own);
            assert_eq!(code, 1, "{told}");
            told.contains(words).then_some(())
        });
    }
    // In plain text neither.
    let args = ["--addr", &free, "--join", through];
    let output = basalt(&Cluster::args(&dir, &args)).output().unwrap();
    assert_eq!(output.status.code(), Some(1));

    // And what a cluster with certificates lacks is said at once.
    let own = cluster.stores.sign("half", &["127.0.0.1"]);
    let half = [
        "--tls-cert",
        &own[0],
        "--tls-key",
        &own[1],
        "--addr",
        &free,
        "--join",
        through,
    ];
    let output = basalt(&Cluster::args(&dir, &half)).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("needs --tls-peer-ca"), "{told}");

    let own = cluster.stores.sign("store-4", &["127.0.0.1"]);
    let mut fourth = cluster.spawn("new", &own, &["--addr", &free, "--join", through]);
    let line = fourth.line();
    assert!(line.contains("basalt member add 4"), "{line}");
    let (code, _, stderr) = cluster.ask(&["member", "add", "4"]);
    assert_eq!(code, 0, "{stderr}");
    let (_, stdout, _) = cluster.ask(&["member", "list"]);
    assert_eq!(stdout.matches(" serving ").count(), 4, "{stdout}");
}
