//! Processes of a cluster, and what a test asks of them.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Output, Stdio},
    time::{Duration, Instant},
};

use basaltkv::{
    proto::basaltpb::{RegionStatus, StatusRequest, StatusResponse},
    server::stubs::basaltpb::admin_client::AdminClient,
};
use tempfile::TempDir;

/// Longest wait for something that has to come about.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The binary under test, with no setting from the outside.
pub(crate) fn basalt(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_basalt"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("BASALT_") {
            command.env_remove(name);
        }
    }
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs a command to its end: exit code, standard output, standard error.
pub(crate) fn run(args: &[&str]) -> (i32, String, String) {
    ended(basalt(args).output().unwrap())
}

fn ended(output: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap_or(-1);
    (code, text(output.stdout), text(output.stderr))
}

/// Runs a command that must go well; its output.
#[track_caller]
pub(crate) fn done(args: &[&str]) -> String {
    let (code, stdout, stderr) = run(args);
    assert_eq!(code, 0, "{args:?}: {stderr}");
    stdout
}

/// Looks again and again until there is something.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "not in {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Addresses whose ports were free a moment ago.
pub(crate) fn free_addrs(count: usize) -> Vec<String> {
    let held: Vec<_> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let addr = |held: &TcpListener| held.local_addr().unwrap().to_string();
    held.iter().map(addr).collect()
}

/// A process; killed when dropped.
pub(crate) struct Process {
    child: Child,
    /// Held open: it is not to lose its standard output.
    stdout: BufReader<ChildStdout>,
}

impl Process {
    pub(crate) fn spawn(args: &[&str]) -> Self {
        let mut command = basalt(args);
        // A pipe that nobody reads would hold a talkative process up.
        command.stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout }
    }

    /// Its next line; empty where it has ended.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.unwrap().success());
    }

    /// Waits for it to end by itself: its exit code, and the rest of what it said.
    pub(crate) fn wait(mut self) -> (Option<i32>, String) {
        let began = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Gone already, where the test has ended it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Stores of one cluster, by id from 1 on.
pub(crate) struct Cluster {
    root: TempDir,
    pub(crate) addrs: Vec<String>,
    /// `--initial-cluster`.
    pub(crate) founders: String,
    stores: Vec<Option<Process>>,
    /// Where the founders serve their status pages.
    status_addrs: Vec<String>,
}

impl Cluster {
    /// Three stores that have a leader.
    pub(crate) fn start() -> Self {
        let addrs = free_addrs(3);
        let founders = (1..).zip(&addrs).map(|(id, addr)| format!("{id}={addr}"));
        let founders = founders.collect::<Vec<_>>().join(",");
        let mut cluster = Self {
            root: tempfile::tempdir().unwrap(),
            addrs,
            founders,
            stores: vec![None, None, None],
            status_addrs: Vec::new(),
        };
        for id in 1..=3 {
            let name = id.to_string();
            let founders = cluster.founders.clone();
            cluster.spawn(id, &["--store-id", &name, "--initial-cluster", &founders]);
        }
        for id in 1..=3 {
            let line = cluster.store(id).line();
            assert!(
                line.contains(&format!("as store {id} of cluster")),
                "{line}"
            );
            let status = line.split_once("http://").unwrap().1;
            let status = status.split(['/', ')']).next().unwrap();
            cluster.status_addrs.push(status.to_owned());
        }
        cluster.leader();
        cluster
    }

    /// Where a founder that was not started again serves its status pages.
    pub(crate) fn status_addr(&self, id: usize) -> &str {
        &self.status_addrs[id - 1]
    }

    pub(crate) fn dir(&self, id: usize) -> PathBuf {
        self.root.path().join(format!("store-{id}"))
    }

    pub(crate) fn addr(&self, id: usize) -> &str {
        &self.addrs[id - 1]
    }

    /// All addresses, as the command line takes them.
    pub(crate) fn all(&self) -> String {
        self.addrs.join(",")
    }

    pub(crate) fn store(&mut self, id: usize) -> &mut Process {
        self.stores[id - 1].as_mut().unwrap()
    }

    /// The arguments of a store's server.
    pub(crate) fn args<'a>(dir: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
        let dir = dir.to_str().unwrap();
        let mut args = vec!["server", "--path", dir, "--status-addr", "127.0.0.1:0"];
        args.extend(["--log-level", "off"]);
        args.extend(more);
        args
    }

    /// Starts a store's process.
    pub(crate) fn spawn(&mut self, id: usize, more: &[&str]) {
        let dir = self.dir(id);
        let process = Process::spawn(&Self::args(&dir, more));
        while self.stores.len() < id {
            self.stores.push(None);
        }
        self.stores[id - 1] = Some(process);
    }

    /// Starts a store again, with nothing said but its directory, and waits until it serves.
    pub(crate) fn restart(&mut self, id: usize) {
        self.spawn(id, &[]);
        let line = self.store(id).line();
        assert!(
            line.contains(&format!("as store {id} of cluster")),
            "{line}"
        );
    }

    /// kill -9.
    pub(crate) fn kill(&mut self, id: usize) {
        drop(self.stores[id - 1].take().unwrap());
    }

    /// SIGTERM, and checks that it ends well.
    pub(crate) fn stop(&mut self, id: usize) {
        let process = self.stores[id - 1].take().unwrap();
        process.signal("TERM");
        assert_eq!(process.wait().0, Some(0));
    }

    /// How a store fares, if it answers.
    pub(crate) fn status(&self, id: usize) -> Option<StatusResponse> {
        status(self.addr(id))
    }

    /// The first region as a store has it.
    pub(crate) fn region(&self, id: usize) -> Option<RegionStatus> {
        self.status(id)?.regions.into_iter().next()
    }

    /// The store that leads, once one does.
    #[track_caller]
    pub(crate) fn leader(&self) -> usize {
        eventually("a leader", || {
            let ids = 1..=self.stores.len();
            let alive = ids.filter(|id| self.stores[id - 1].is_some());
            let leads = |id: &usize| self.region(*id).is_some_and(|one| one.role == "leader");
            alive.rev().find(leads)
        })
    }

    /// Waits until a store has applied what the leader has.
    #[track_caller]
    pub(crate) fn catches_up(&self, id: usize) {
        let leader = self.leader();
        let goal = self.region(leader).unwrap().committed;
        eventually("the store catches up", || {
            let region = self.region(id)?;
            (region.applied >= goal).then_some(())
        });
    }
}

/// How the store at an address fares, if it answers.
pub(crate) fn status(addr: &str) -> Option<StatusResponse> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let asking = async {
        let mut admin = AdminClient::connect(format!("http://{addr}")).await.ok()?;
        let status = admin.status(StatusRequest {}).await.ok()?;
        Some(status.into_inner())
    };
    let limited = async { tokio::time::timeout(Duration::from_secs(2), asking).await };
    runtime.unwrap().block_on(limited).ok()?
}
