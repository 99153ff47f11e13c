//! Three servers of one kind as processes on this machine: started, asked for their costs, killed.
//!
//! Promises: whatever was started is killed when its `Servers` goes, and its data are removed. Not here: requests (`load`).

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{sleep, timeout};
use tonic::transport::{Channel, Endpoint};

use crate::wire::{Client, KEY, Kind, VALUE};

/// What stands between a file and the disk.
const SYNCS: &str = "fsync,fdatasync,msync,sync_file_range";

struct Member {
    addr: String,
    child: Child,
    /// Of the server; the child may be its tracer.
    pid: u32,
    /// Where its syncs are noted, if they are.
    trace: Option<PathBuf>,
}

pub struct Servers {
    pub kind: Kind,
    members: Vec<Member>,
    dir: PathBuf,
}

/// How servers are started.
pub struct Start<'a> {
    pub basalt: &'a Path,
    pub dir: &'a Path,
    /// Under strace, which stops them at syncs and nowhere else.
    pub traced: bool,
}

impl Servers {
    /// Three of them with empty directories.
    pub fn start(kind: Kind, start: &Start) -> Self {
        let name = kind.name().to_ascii_lowercase();
        let dir = start
            .dir
            .join(name + if start.traced { "-traced" } else { "" });
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        let ports = free_ports(6);
        let mut servers = Self {
            kind,
            members: Vec::new(),
            dir,
        };
        for number in 1..=3 {
            let data = servers.dir.join(number.to_string());
            let arguments = match kind {
                Kind::Etcd => etcd_arguments(number, &data, &ports),
                Kind::Basalt => basalt_arguments(number, &data, &ports),
            };
            let program = match kind {
                Kind::Etcd => Path::new("etcd"),
                Kind::Basalt => start.basalt,
            };
            let trace = start
                .traced
                .then(|| servers.dir.join(format!("{number}.trace")));
            let mut command = match &trace {
                None => Command::new(program),
                Some(file) => {
                    let mut command = Command::new("strace");
                    command.args(["-f", "--seccomp-bpf", "-qq", "-e", "signal=none"]);
                    command.arg("-e").arg(format!("trace={SYNCS}"));
                    command.arg("-o").arg(file).arg("--").arg(program);
                    command
                }
            };
            command.args(arguments).stdin(Stdio::null());
            let log = fs::File::create(servers.dir.join(format!("{number}.log")));
            let log = log.expect("a log file");
            command.stdout(log.try_clone().expect("a log file"));
            command.stderr(log);
            let child = command.spawn();
            let child = child.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
            let pid = child.id();
            servers.members.push(Member {
                addr: format!("127.0.0.1:{}", ports[number - 1]),
                child,
                pid,
                trace,
            });
        }
        servers
    }

    /// Channels to the one that leads, `count` connections; waits until there is one.
    pub async fn leader(&mut self, count: usize) -> (usize, Vec<Channel>) {
        for _ in 0..600 {
            for place in 0..self.members.len() {
                let endpoint = self.endpoint(place);
                let Ok(channel) = endpoint.connect().await else {
                    continue;
                };
                let mut client = Client::new(self.kind, channel.clone());
                let (key, value) = (vec![b'0'; KEY], vec![0; VALUE]);
                let asked = client.leads(Bytes::from(key), Bytes::from(value));
                let leads = timeout(Duration::from_secs(2), asked).await;
                if leads != Ok(true) {
                    continue;
                }
                let mut channels = vec![channel];
                while channels.len() < count {
                    channels.push(endpoint.connect().await.expect("another connection"));
                }
                self.find_traced();
                return (place, channels);
            }
            sleep(Duration::from_millis(100)).await;
        }
        panic!("{} has no leader after a minute", self.kind.name());
    }

    fn endpoint(&self, place: usize) -> Endpoint {
        let uri = format!("http://{}", self.members[place].addr);
        let endpoint = Endpoint::from_shared(uri).expect("an address");
        endpoint.tcp_nodelay(true)
    }

    fn find_traced(&mut self) {
        for member in &mut self.members {
            if member.trace.is_some() {
                member.pid = child_of(member.child.id()).unwrap_or(member.pid);
            }
        }
    }

    /// Process ids, that of `first` first.
    pub fn pids(&self, first: usize) -> Vec<u32> {
        let order = [first, (first + 1) % 3, (first + 2) % 3];
        order.map(|place| self.members[place].pid).to_vec()
    }

    /// Seconds of CPU of all three since they started.
    pub fn cpu(&self) -> f64 {
        self.members.iter().map(|member| cpu_of(member.pid)).sum()
    }

    /// Syncs that each has begun since it started.
    pub fn syncs(&self) -> Vec<u64> {
        let count = |member: &Member| {
            let file = member.trace.as_ref().expect("a traced server");
            let text = fs::read_to_string(file).unwrap_or_default();
            let begun = text.lines().filter(|line| !line.contains(" resumed>"));
            begun.count() as u64
        };
        self.members.iter().map(count).collect()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.find_traced();
        for member in &mut self.members {
            if member.trace.is_some() && member.pid != member.child.id() {
                // The tracer ends with it.
                let _ = Command::new("kill")
                    .args(["-9", &member.pid.to_string()])
                    .status();
            } else {
                let _ = member.child.kill();
            }
        }
        for member in &mut self.members {
            let _ = member.child.wait();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn basalt_arguments(number: usize, data: &Path, ports: &[u16]) -> Vec<String> {
    let members = (1..=3).map(|id| format!("{id}=127.0.0.1:{}", ports[id - 1]));
    let members: Vec<String> = members.collect();
    let words = [
        "server",
        "--path",
        &data.display().to_string(),
        "--store-id",
        &number.to_string(),
        "--initial-cluster",
        &members.join(","),
        "--status-addr",
        &format!("127.0.0.1:{}", ports[number + 2]),
        "--log-level",
        "warn",
    ];
    words.map(str::to_owned).to_vec()
}

fn etcd_arguments(number: usize, data: &Path, ports: &[u16]) -> Vec<String> {
    let members = (1..=3).map(|id| format!("m{id}=http://127.0.0.1:{}", ports[id + 2]));
    let members: Vec<String> = members.collect();
    let client = format!("http://127.0.0.1:{}", ports[number - 1]);
    let peer = format!("http://127.0.0.1:{}", ports[number + 2]);
    let words = [
        "--name",
        &format!("m{number}"),
        "--data-dir",
        &data.display().to_string(),
        "--listen-client-urls",
        &client,
        "--advertise-client-urls",
        &client,
        "--listen-peer-urls",
        &peer,
        "--initial-advertise-peer-urls",
        &peer,
        "--initial-cluster",
        &members.join(","),
        "--initial-cluster-state",
        "new",
        "--logger",
        "zap",
        "--log-level",
        "error",
    ];
    words.map(str::to_owned).to_vec()
}

/// Ports that nobody listened on a moment ago.
fn free_ports(count: usize) -> Vec<u16> {
    let listen = |_| TcpListener::bind("127.0.0.1:0").expect("a free port");
    let listeners: Vec<TcpListener> = (0..count).map(listen).collect();
    let port = |listener: &TcpListener| listener.local_addr().expect("its address").port();
    listeners.iter().map(port).collect()
}

/// Seconds of CPU that a process has had.
pub fn cpu_of(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"));
    let text = text.unwrap_or_else(|error| panic!("a server has ended: {error}"));
    // The name is in brackets and may hold anything.
    let (_, fields) = text.rsplit_once(')').expect("a name in brackets");
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

fn child_of(pid: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    text.split_whitespace().next()?.parse().ok()
}
