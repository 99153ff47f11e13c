//! `basalt server`: settings, data directory, sockets, then serving until a signal says stop.

use std::{ffi::OsString, fmt::Write as _, net::SocketAddr, path::PathBuf, sync::Arc};

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, value_parser};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Done, Failure, client::is_loopback, notify, print};
use crate::{
    config::{
        Config, DEFAULT_ADDR, Kind, SETTINGS,
        live::{Layers, Live},
    },
    limits::BLOCKING_THREADS,
    logging,
    replicated::{
        Cluster, Dialer,
        setup::{self, Plan, Planned, Refused},
    },
    serve::{Server, Setup, Sockets},
    state::VERSION,
    storage::{
        EngineSettings, RaftStorage, StandaloneStorage, Storage,
        data_dir::{self, Phase},
    },
};

/// The settings of the command line: a flag for each of the table, and `--config`.
#[derive(Clone, Debug, Default)]
pub(super) struct ServerArgs(Layers);

impl Args for ServerArgs {
    fn augment_args(command: Command) -> Command {
        let file = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .help(
                "TOML file with any of these settings by the same names [default: $BASALT_CONFIG]",
            )
            .value_parser(value_parser!(PathBuf));
        let flags = SETTINGS.iter().map(|setting| {
            let default = match setting.default {
                "" | "false" => String::new(),
                default => format!(" [default: {default}]"),
            };
            let flag = Arg::new(setting.name)
                .long(setting.name)
                .value_name(setting.kind.placeholder())
                .help(format!("{}{default}", setting.meaning))
                .help_heading(setting.group.title())
                .value_parser(value_parser!(OsString));
            match setting.kind {
                Kind::Switch => flag
                    .num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("true"),
                _ => flag,
            }
        });
        command.arg(file).args(flags)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ServerArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let flags = SETTINGS.iter().filter_map(|setting| {
            let value = matches.get_one::<OsString>(setting.name)?;
            Some((setting.name, value.clone()))
        });
        Ok(Self(Layers {
            flags: flags.collect(),
            file: matches.get_one::<PathBuf>("config").cloned(),
        }))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl ServerArgs {
    /// Puts the layers together and reads the files that they name.
    pub(super) fn setup(&self) -> Result<Setup, Failure> {
        let config = self.0.load().map_err(Failure::usage)?;
        Setup::load(config, self.0.clone()).map_err(Failure::usage)
    }

    /// Checks everything that a start would before it binds or writes: also what the directory states, and what would be
    /// open to everybody.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let setup = self.setup()?;
        let planned = setup::plan(&setup.config).map_err(refused)?;
        check_exposure(&setup, &planned)
    }

    /// The settings alone.
    pub(super) fn config(&self) -> Result<Config, Failure> {
        self.0.load().map_err(Failure::usage)
    }
}

pub(super) fn run(args: &ServerArgs) -> Done {
    logging::init(args.config()?.log_level);
    let setup = args.setup()?;
    allow_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("basalt-async")
        .enable_all()
        .build()
        .map_err(|error| Failure::world(format!("cannot begin: {error}")))?;
    let done = runtime.block_on(serve(setup));
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

async fn serve(setup: Setup) -> Done {
    let config = setup.config.clone();
    // From here on a signal is ours; before, it ends the process as it always does.
    let mut signals = Signals::new()?;
    let hangups = signal(SignalKind::hangup());
    let mut hangups =
        hangups.map_err(|error| Failure::world(format!("cannot wait for signals: {error}")))?;
    let booted = tokio::select! {
        booted = boot(setup) => booted?,
        // Recovery may be long, and nothing has been promised to anybody yet.
        () = signals.next() => return Err(Failure::world("stopped while the store was opened")),
    };
    let Booted {
        server,
        cluster,
        addr,
        status_addr,
    } = booted;
    let scheme = match config.tls.cert.is_some() && !config.status_plain {
        true => "https",
        false => "http",
    };
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
        "basalt {VERSION} serves {} on {addr} (status {scheme}://{status_addr}){member}; try: basalt put hello world{elsewhere}\n",
        path.display()
    );
    tracing::info!(version = VERSION, %addr, %status_addr, path = %path.display(), "serving");
    // A closed standard output stops nobody from serving.
    let _ = print(line.as_bytes());
    notify::tell("READY=1");

    loop {
        tokio::select! {
            () = signals.next() => break,
            _ = hangups.recv() => reread(server.live()).await,
        }
    }
    notify::tell("STOPPING=1");
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

/// Reads all files again, as SIGHUP asks.
async fn reread(live: &Arc<Live>) {
    let live = Arc::clone(live);
    match tokio::task::spawn_blocking(move || live.reread()).await {
        Ok(Ok(told)) => {
            let (changed, waits) = (told.changed.join(", "), told.needs_restart.join(", "));
            tracing::info!(changed, "settings were read again");
            if !waits.is_empty() {
                tracing::warn!(settings = waits, "changed settings need a restart");
            }
        }
        Ok(Err(why)) => tracing::error!(why, "settings that were read again are not taken"),
        Err(_) => tracing::error!("reading the settings again met a defect of this program"),
    }
}

/// Refuses what would be open to everybody by an oversight.
fn check_exposure(setup: &Setup, planned: &Planned) -> Result<(), Failure> {
    let (config, tls) = (&setup.config, setup.tls.as_ref());
    let is_open = |addr: &str| {
        let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host);
        !is_loopback(host)
    };
    for (name, addr, is_plain) in [
        ("addr", &planned.addr, tls.is_none()),
        // `--status-plain` says it of a server whose other port is not.
        ("status-addr", &planned.status_addr, tls.is_none()),
    ] {
        if is_plain && is_open(addr) && !config.insecure {
            return Err(Failure::usage(format!(
                "--{name} {addr} is reached by other machines and would be plain text: set --tls-cert and --tls-key, \
                 or --insecure if that is meant"
            )));
        }
    }
    if planned.plan == Plan::Standalone {
        return Ok(());
    }
    if setup.auth.is_some() && tls.is_none() {
        return Err(Failure::usage(
            "--auth-file in a cluster needs TLS: without certificates anybody could speak as a store",
        ));
    }
    if tls.is_some_and(|tls| !tls.knows_peers()) {
        return Err(Failure::usage(
            "a cluster with TLS needs --tls-peer-ca: which authorities sign the certificates of its stores",
        ));
    }
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
pub(super) async fn boot(setup: Setup) -> Result<Booted, Failure> {
    let config = &setup.config;
    let mut planned = setup::plan(config).map_err(refused)?;
    check_exposure(&setup, &planned)?;
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
            let dialer = Dialer::new(setup.tls.clone());
            let cluster = setup::prepare(config, &planned, dialer);
            let cluster = cluster.await.map_err(refused)?;
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
        server: Server::begin(storage, cluster.clone(), sockets, setup),
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
