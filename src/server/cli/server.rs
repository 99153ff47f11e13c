//! `basalt server`: settings, data directory, sockets, then serving until a signal says stop.

use std::{ffi::OsString, fmt::Write as _, net::SocketAddr, path::PathBuf, sync::Arc};

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Done, Failure, print};
use crate::{
    config::{Config, DEFAULT_ADDR},
    limits::BLOCKING_THREADS,
    logging,
    replicated::{
        Cluster,
        setup::{self, Plan, Refused},
    },
    serve::{Server, Sockets},
    state::VERSION,
    storage::{
        EngineSettings, RaftStorage, StandaloneStorage, Storage,
        data_dir::{self, Phase},
    },
};

#[derive(Debug, Args)]
pub(super) struct ServerArgs {
    /// Data directory [default: ./basalt-data]
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// Address of the gRPC services [default: 127.0.0.1:20160]
    #[arg(long, value_name = "HOST:PORT")]
    addr: Option<OsString>,
    /// Address of the HTTP pages /health, /status and /metrics [default: 127.0.0.1:20180]
    #[arg(long, value_name = "HOST:PORT")]
    status_addr: Option<OsString>,
    /// TOML file with any of these settings by the same names
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Least important events that are logged: off, error, warn, info, debug, trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<OsString>,
    /// Memory for decompressed blocks, such as 128MiB [default: 128MiB]
    #[arg(long, value_name = "SIZE")]
    cache_size: Option<OsString>,
    /// Memory of a memtable before it is written to a table, per column family [default: 64MiB]
    #[arg(long, value_name = "SIZE")]
    write_buffer_size: Option<OsString>,
    /// Which store of its cluster this is
    #[arg(long, value_name = "ID", help_heading = "Cluster")]
    store_id: Option<OsString>,
    /// The stores that found the cluster, and where each is reached, as 1=HOST:PORT,2=HOST:PORT,3=HOST:PORT
    #[arg(long, value_name = "STORES", help_heading = "Cluster")]
    initial_cluster: Option<OsString>,
    /// What the founders call their cluster: clusters of different names never mix [default: basalt]
    #[arg(long, value_name = "NAME", help_heading = "Cluster")]
    cluster_name: Option<OsString>,
    /// Where others reach this store, if not at --addr
    #[arg(long, value_name = "HOST:PORT", help_heading = "Cluster")]
    advertise_addr: Option<OsString>,
    /// Join the cluster of this store with an empty directory, and wait to be added
    #[arg(long, value_name = "HOST:PORT", help_heading = "Cluster")]
    join: Option<OsString>,
}

impl ServerArgs {
    fn settings(&self) -> Result<Config, Failure> {
        let path = self.path.as_ref().map(|path| path.clone().into_os_string());
        let flags = [
            ("path", path),
            ("addr", self.addr.clone()),
            ("status-addr", self.status_addr.clone()),
            ("log-level", self.log_level.clone()),
            ("cache-size", self.cache_size.clone()),
            ("write-buffer-size", self.write_buffer_size.clone()),
            ("store-id", self.store_id.clone()),
            ("initial-cluster", self.initial_cluster.clone()),
            ("cluster-name", self.cluster_name.clone()),
            ("advertise-addr", self.advertise_addr.clone()),
            ("join", self.join.clone()),
        ];
        let flags: Vec<_> = flags
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)))
            .collect();
        Config::load(&flags, self.config.as_deref(), |name| {
            std::env::var_os(name)
        })
        .map_err(Failure::usage)
    }
}

pub(super) fn run(args: &ServerArgs) -> Done {
    let config = args.settings()?;
    logging::init(config.log_level);
    allow_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("basalt-async")
        .enable_all()
        .build()
        .map_err(|error| Failure::world(format!("cannot begin: {error}")))?;
    let done = runtime.block_on(serve(config));
    // Whatever still runs on a thread has had its time.
    runtime.shutdown_background();
    done
}

/// Connections and tables are open files, and the usual limit of a shell is a thousand. The system
/// lets a process raise it up to a second one.
pub(super) fn allow_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    ) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

async fn serve(config: Config) -> Done {
    // From here on a signal is ours; before, it ends the process as it always does.
    let mut signals = Signals::new()?;
    let booted = tokio::select! {
        booted = boot(&config) => booted?,
        // Recovery may be long, and nothing has been promised to anybody yet.
        () = signals.next() => return Err(Failure::world("stopped while the store was opened")),
    };
    let Booted {
        server,
        cluster,
        addr,
        status_addr,
    } = booted;
    let mut member = String::new();
    if let Some(cluster) = &cluster {
        let took_part = tokio::select! {
            took_part = cluster.take_part() => took_part,
            () = signals.next() => Err("stopped while it waited for other stores".to_owned()),
        };
        if let Err(what) = took_part {
            // The reason it ends is what counts.
            let _ = server.stop().await;
            return Err(Failure::world(what));
        }
        let identity = cluster.identity();
        let _ = write!(
            member,
            " as store {} of cluster {}",
            identity.store_id, identity.cluster_name
        );
        if identity.phase == Phase::Joining {
            let id = identity.store_id;
            let _ = write!(
                member,
                ", and waits for: basalt member add {id} --addr A-STORE-OF-IT"
            );
        }
    }
    server.announce().await;
    let path = config.path.canonicalize().unwrap_or(config.path);
    let elsewhere = if addr.to_string() == DEFAULT_ADDR {
        String::new()
    } else {
        format!(" --addr {addr}")
    };
    let line = format!(
        "basalt {VERSION} serves {} on {addr} (status http://{status_addr}){member}; try: basalt put hello world{elsewhere}\n",
        path.display()
    );
    tracing::info!(version = VERSION, %addr, %status_addr, path = %path.display(), "serving");
    // A closed standard output stops nobody from serving.
    let _ = print(line.as_bytes());

    signals.next().await;
    tracing::info!("draining");
    let stopped = tokio::select! {
        stopped = server.stop() => stopped,
        () = signals.next() => {
            return Err(Failure::world("stopped at once by a second signal"));
        }
    };
    stopped.map_err(|error| Failure::world(format!("closing the store: {error}")))?;
    tracing::info!("stopped");
    Ok(())
}

/// A server that listens; a store of a cluster does not take part yet.
pub(super) struct Booted {
    pub(super) server: Server,
    pub(super) cluster: Option<Arc<Cluster>>,
    pub(super) addr: SocketAddr,
    pub(super) status_addr: SocketAddr,
}

/// Binds, makes or checks the directory, opens the engines, begins to listen.
pub(super) async fn boot(config: &Config) -> Result<Booted, Failure> {
    let mut planned = setup::plan(config).map_err(refused)?;
    let sockets = Sockets::bind(&planned.addr, &planned.status_addr)
        .await
        .map_err(Failure::world)?;
    let (addr, status_addr) = sockets
        .addrs()
        .map_err(|error| Failure::world(error.to_string()))?;
    if planned.addr.ends_with(":0") {
        // Others have to find it again.
        planned.addr = addr.to_string();
    }
    let (storage, cluster): (Arc<dyn Storage>, _) = match planned.plan {
        Plan::Standalone => {
            let engine_dir = data_dir::prepare(&config.path).map_err(Failure::world)?;
            let settings = EngineSettings {
                cache_bytes: config.cache_bytes,
                write_buffer_bytes: config.write_buffer_bytes,
            };
            (Arc::new(StandaloneStorage::new(engine_dir, settings)), None)
        }
        _ => {
            let cluster = setup::prepare(config, &planned).await.map_err(refused)?;
            (
                Arc::new(RaftStorage::new(Arc::clone(&cluster))),
                Some(cluster),
            )
        }
    };
    let starting = Arc::clone(&storage);
    tokio::task::spawn_blocking(move || starting.start())
        .await
        .map_err(|_| Failure::world("opening the store met a defect of this program"))?
        .map_err(Failure::world)?;
    Ok(Booted {
        server: Server::begin(storage, cluster.clone(), sockets),
        cluster,
        addr,
        status_addr,
    })
}

fn refused(refused: Refused) -> Failure {
    match refused {
        Refused::Setting(what) => Failure::usage(what),
        Refused::World(what) => Failure::world(what),
    }
}

/// SIGTERM and SIGINT, whichever comes first.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| Failure::world(format!("cannot wait for signals: {error}")))
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
