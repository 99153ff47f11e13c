//! `basalt demo`: three stores in one process, to see a replicated store at work without setting one up.

use std::{
    fmt::Write as _,
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use clap::Args;
use tokio::task::JoinSet;

use super::{
    Done, Failure, print,
    server::{Booted, Signals, allow_open_files, boot},
};
use crate::{config::Config, limits::BLOCKING_THREADS, logging, replicated::draw, serve::Setup};

/// Stores of a demo: the fewest that survive the loss of one.
const STORES: u64 = 3;

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Directory of the stores, which is kept [default: a temporary one, removed at the end]
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// Least important events that are logged
    #[arg(long, value_name = "LEVEL", default_value = "warn")]
    log_level: tracing::level_filters::LevelFilter,
}

pub(super) fn run(args: &DemoArgs) -> Done {
    logging::init(args.log_level);
    allow_open_files();
    let root = Root::new(args.path.as_deref())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("basalt-async")
        .enable_all()
        .build()
        .map_err(|error| Failure::world(format!("cannot begin: {error}")))?;
    let done = runtime.block_on(serve(&root.dir));
    runtime.shutdown_background();
    done
}

/// Where the stores are; a temporary directory goes with it.
struct Root {
    dir: PathBuf,
    is_temporary: bool,
}

impl Root {
    fn new(given: Option<&Path>) -> Result<Self, Failure> {
        if let Some(dir) = given {
            return Ok(Self {
                dir: dir.to_path_buf(),
                is_temporary: false,
            });
        }
        let drawn = draw().map_err(Failure::world)?;
        let dir = std::env::temp_dir().join(format!("basalt-demo-{drawn:016x}"));
        fs::create_dir(&dir)
            .map_err(|error| Failure::world(format!("cannot create {}: {error}", dir.display())))?;
        Ok(Self {
            dir,
            is_temporary: true,
        })
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        if self.is_temporary {
            // What cannot be removed is the system's to clean.
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// Ports that were free a moment ago.
fn free_addrs() -> Result<Vec<SocketAddr>, Failure> {
    let cannot =
        |error: std::io::Error| Failure::world(format!("cannot find a free port: {error}"));
    let held = (0..STORES).map(|_| TcpListener::bind("127.0.0.1:0"));
    let held: Vec<TcpListener> = held.collect::<Result<_, _>>().map_err(cannot)?;
    let addrs = held.iter().map(TcpListener::local_addr);
    addrs.collect::<Result<_, _>>().map_err(cannot)
}

/// The settings of each store. A directory that was used before says itself who it is.
fn configs(root: &Path) -> Result<Vec<Config>, Failure> {
    let addrs = free_addrs()?;
    let members = (1..=STORES)
        .zip(&addrs)
        .map(|(id, addr)| format!("{id}={addr}"));
    let members = members.collect::<Vec<_>>().join(",");
    let config = |id: u64| {
        let path = root.join(format!("store-{id}"));
        let mut flags = vec![
            ("path", path.clone().into_os_string()),
            ("status-addr", "127.0.0.1:0".into()),
            // Whose data it is, is clear, and it is there to be looked at.
            ("status-browse", "values".into()),
        ];
        if !path.join("MODE").exists() {
            flags.push(("store-id", id.to_string().into()));
            flags.push(("initial-cluster", members.clone().into()));
            flags.push(("cluster-name", "demo".into()));
        }
        Config::load(&flags, None, |_| None).map_err(Failure::usage)
    };
    (1..=STORES).map(config).collect()
}

async fn serve(root: &Path) -> Done {
    let mut signals = Signals::new()?;
    let mut stores = Vec::new();
    for config in configs(root)? {
        let setup = Setup {
            config,
            ..Setup::default()
        };
        stores.push(boot(setup).await?);
    }
    let mut forming = JoinSet::new();
    for cluster in stores.iter().filter_map(|store| store.cluster.clone()) {
        forming.spawn(async move { cluster.take_part().await });
    }
    while let Some(one) = tokio::select! {
        one = forming.join_next() => one,
        () = signals.next() => None,
    } {
        one.map_err(|_| Failure::world("a store met a defect of this program"))?
            .map_err(Failure::world)?;
    }
    if forming.is_empty() {
        for store in &stores {
            store.server.announce().await;
        }
        print(greeting(root, &stores).as_bytes())?;
        signals.next().await;
    }
    stop(stores, signals).await
}

fn greeting(root: &Path, stores: &[Booted]) -> String {
    let shown = root.canonicalize().unwrap_or_else(|_| root.to_path_buf());
    let mut text = format!("three stores of one cluster, in {}\n", shown.display());
    for (id, store) in (1..).zip(stores) {
        let (addr, status) = (store.addr, store.status_addr);
        let _ = writeln!(text, "  store {id} on {addr} (status http://{status}/)");
    }
    if let Some(first) = stores.first() {
        let _ = writeln!(text, "web page http://{}/", first.status_addr);
    }
    let addrs: Vec<String> = stores.iter().map(|store| store.addr.to_string()).collect();
    let addrs = addrs.join(",");
    let _ = write!(
        text,
        "try, in another terminal:\n  basalt put hello world --addr {addrs}\n  \
         basalt get hello --addr {addrs}\n  basalt region list --addr {addrs}\nCtrl-C ends it\n"
    );
    text
}

/// Stops all stores at once: one after the other, the last ones would wait for a majority.
async fn stop(stores: Vec<Booted>, mut signals: Signals) -> Done {
    let mut stopping = JoinSet::new();
    for store in stores {
        stopping.spawn(store.server.stop());
    }
    loop {
        let stopped = tokio::select! {
            stopped = stopping.join_next() => stopped,
            () = signals.next() => {
                return Err(Failure::world("stopped at once by a second signal"));
            }
        };
        match stopped {
            None => return Ok(()),
            Some(Ok(Ok(()))) => {}
            Some(Ok(Err(error))) => {
                return Err(Failure::world(format!("closing a store: {error}")));
            }
            Some(Err(_)) => return Err(Failure::world("a store met a defect of this program")),
        }
    }
}
