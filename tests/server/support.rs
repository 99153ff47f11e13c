//! A `basalt` process to talk to, and the calls the tests make.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use basaltkv::{
    proto::kvrpcpb::{RawDeleteRequest, RawGetRequest, RawPutRequest, RawScanRequest},
    server::{limits, stubs::tinykvpb::tiny_kv_client::TinyKvClient},
};
use tempfile::TempDir;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

/// The binary under test, with no setting from the outside.
pub(crate) fn basalt(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_basalt"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("BASALT_") {
            command.env_remove(name);
        }
    }
    command
        .env("BASALT_CLIENT_CONFIG", "/no/such/client.toml")
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

pub(crate) fn ended(output: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap_or(-1),
        text(output.stdout),
        text(output.stderr),
    )
}

/// Checks that a command ended with `code` and one line on standard error that has `words`.
#[track_caller]
pub(crate) fn assert_refused(args: &[&str], code: i32, words: &[&str]) {
    let (got, stdout, stderr) = run(args);
    assert_eq!(got, code, "{args:?}: {stderr}");
    assert_eq!(stdout, "", "{args:?}");
    assert_eq!(stderr.trim_end().lines().count(), 1, "{args:?}: {stderr:?}");
    for word in words {
        assert!(
            stderr.contains(word),
            "{args:?}: {word:?} is not in {stderr:?}"
        );
    }
    assert!(!stderr.contains("panicked"), "{stderr}");
}

/// A server at work; killed when dropped.
pub(crate) struct Running {
    child: Child,
    /// Held open: the server is not to lose its standard output.
    _stdout: BufReader<ChildStdout>,
    pub(crate) addr: String,
    pub(crate) status_addr: String,
    pub(crate) start_line: String,
}

impl Running {
    /// Serves `dir` on free ports; returns once it says that it serves.
    pub(crate) fn start(dir: &Path) -> Self {
        Self::start_with(dir, &[])
    }

    pub(crate) fn start_with(dir: &Path, more: &[&str]) -> Self {
        let dir = dir.to_str().unwrap();
        let free = "127.0.0.1:0";
        let mut args = vec![
            "server",
            "--path",
            dir,
            "--addr",
            free,
            "--status-addr",
            free,
            "--log-level",
            "off",
        ];
        args.extend_from_slice(more);
        let mut child = basalt(&args).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut start_line = String::new();
        stdout.read_line(&mut start_line).unwrap();
        if start_line.is_empty() {
            let (_, _, stderr) = ended(child.wait_with_output().unwrap());
            panic!("the server did not start: {stderr}");
        }
        let between = |from: &str, to: char| {
            let rest = start_line.split_once(from).unwrap().1;
            rest.split(to).next().unwrap().to_owned()
        };
        let (addr, status_addr) = (between(" on ", ' '), between("status http://", ')'));
        Self {
            child,
            _stdout: stdout,
            addr,
            status_addr,
            start_line,
        }
    }

    /// Sends a signal by its name (`TERM`, `INT`).
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// kill -9, and waits until the process is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for the process to end by itself: its exit status and what it said.
    pub(crate) fn wait(mut self, limit: Duration) -> (ExitStatus, String) {
        let began = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(
                began.elapsed() < limit,
                "the server did not end within {limit:?}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut stderr = String::new();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut stderr)
            .unwrap();
        (self.child.wait().unwrap(), stderr)
    }

    /// SIGTERM, and checks that it ends well.
    pub(crate) fn stop(self) {
        self.signal("TERM");
        let (status, stderr) = self.wait(Duration::from_secs(20));
        assert_eq!(status.code(), Some(0), "{stderr}");
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(&self.addr).await.unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Gone already, where the test has ended it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client of TinyKV's service.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) channel: Channel,
}

impl Client {
    pub(crate) async fn connect(addr: &str) -> Result<Self, tonic::transport::Error> {
        let channel = Endpoint::from_shared(format!("http://{addr}"))
            .unwrap()
            .connect()
            .await?;
        Ok(Self { channel })
    }

    pub(crate) fn tinykv(&self) -> TinyKvClient<Channel> {
        TinyKvClient::new(self.channel.clone())
            .max_decoding_message_size(limits::MAX_ANSWER_LEN)
            .max_encoding_message_size(usize::MAX)
    }

    /// The text of the answer's error; empty when the write is acknowledged.
    pub(crate) async fn put(&self, cf: &str, key: &[u8], value: &[u8]) -> Result<String, Status> {
        let (key, value) = (key.to_vec().into(), value.to_vec().into());
        let request = RawPutRequest {
            context: None,
            key,
            value,
            cf: cf.into(),
        };
        let answer = self.tinykv().raw_put(request).await?.into_inner();
        assert_eq!(answer.region_error, None);
        Ok(answer.error)
    }

    pub(crate) async fn delete(&self, cf: &str, key: &[u8]) -> Result<String, Status> {
        let request = RawDeleteRequest {
            context: None,
            key: key.to_vec().into(),
            cf: cf.into(),
        };
        Ok(self.tinykv().raw_delete(request).await?.into_inner().error)
    }

    /// The value, or the text of the answer's error.
    pub(crate) async fn read(
        &self,
        cf: &str,
        key: &[u8],
    ) -> Result<Result<Option<Vec<u8>>, String>, Status> {
        let request = RawGetRequest {
            context: None,
            key: key.to_vec().into(),
            cf: cf.into(),
        };
        let answer = self.tinykv().raw_get(request).await?.into_inner();
        if !answer.error.is_empty() {
            return Ok(Err(answer.error));
        }
        Ok(Ok((!answer.not_found).then(|| answer.value.to_vec())))
    }

    pub(crate) async fn get(&self, cf: &str, key: &[u8]) -> Option<Vec<u8>> {
        self.read(cf, key).await.unwrap().unwrap()
    }

    pub(crate) async fn scan(
        &self,
        cf: &str,
        start: &[u8],
        limit: u32,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, Status> {
        let start_key = start.to_vec().into();
        let request = RawScanRequest {
            context: None,
            start_key,
            limit,
            cf: cf.into(),
        };
        let answer = self.tinykv().raw_scan(request).await?.into_inner();
        assert_eq!(answer.error, "");
        Ok(answer
            .kvs
            .into_iter()
            .map(|pair| (pair.key.to_vec(), pair.value.to_vec()))
            .collect())
    }

    /// Every pair of a family, page by page.
    pub(crate) async fn all(&self, cf: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
        let (mut start, mut pairs) = (Vec::new(), Vec::new());
        loop {
            let page = self.scan(cf, &start, 1000).await.unwrap();
            let Some((last, _)) = page.last() else {
                return pairs;
            };
            start = [last.as_slice(), &[0]].concat();
            pairs.extend(page);
        }
    }
}

/// A data directory for one test.
pub(crate) fn data_dir() -> (TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("data");
    (root, dir)
}
