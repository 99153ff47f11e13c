//! The server: services, limits and listeners put together, and the order in which they stop.
//!
//! ```text
//! bind --> storage.start --> serve --> (signal) --> health NOT_SERVING --> leadership to others <= 2 s
//!      --> drain <= 5 s --> storage.stop
//! ```
//! Promises: nothing is served before the storage is open (a store of a cluster answers other stores, and says what
//! it waits for); health is NOT_SERVING while the store is fenced; after `serve` returned the storage is
//! closed and everything acknowledged is on disk.
//!
//! Not here: flags and files (`config`), what a terminal shows (`cli`).

use std::{net::SocketAddr, sync::Arc, time::Duration};

use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tonic::service::Routes;
use tonic_health::ServingStatus;

use crate::{
    api::{
        self,
        access::{Access, Remote},
    },
    auth::Auth,
    config::{
        Config,
        live::{Layers, Live, Reload},
    },
    connections::{self, Transport},
    doctor::Examiner,
    insight::{SAMPLE_INTERVAL, rates::Sampler},
    limits,
    listen::{Listener, Silence},
    logging,
    metrics::Metrics,
    replicated::Cluster,
    service::{
        admin::AdminService, admission::Admission, front::Front, gate::Gate, kv::KvService,
        peers::PeersService, tinykv::TinyKvService,
    },
    state::ServerState,
    status_pages,
    storage::{self, Storage},
    stubs::{
        basaltpb::{admin_server::AdminServer, kv_server::KvServer, peers_server::PeersServer},
        tinykvpb::tiny_kv_server::TinyKvServer,
    },
    tls::{SecureListener, Tls},
};

/// Names under which health is told; the empty one is the server as a whole.
const HEALTH_NAMES: [&str; 4] = ["", "tinykvpb.TinyKv", "basaltpb.Admin", "basaltpb.Kv"];

/// Between two looks at whether the store was fenced, or requests are left.
const LOOK: Duration = Duration::from_millis(100);

/// The sockets of a server, bound before anything slow begins.
#[derive(Debug)]
pub struct Sockets {
    grpc: TcpListener,
    status: TcpListener,
}

impl Sockets {
    /// Binds both addresses (`HOST:PORT`; port 0 takes a free one).
    ///
    /// # Errors
    ///
    /// One sentence that names the address.
    pub async fn bind(addr: &str, status_addr: &str) -> Result<Self, String> {
        Ok(Self {
            grpc: bind(addr).await?,
            status: bind(status_addr).await?,
        })
    }

    /// Where gRPC and the status pages are reached.
    ///
    /// # Errors
    ///
    /// As the operating system's.
    pub fn addrs(&self) -> std::io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.grpc.local_addr()?, self.status.local_addr()?))
    }
}

async fn bind(addr: &str) -> Result<TcpListener, String> {
    TcpListener::bind(addr)
        .await
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                format!("{addr} is in use by another process; choose another address or stop it")
            }
            _ => format!("cannot listen on {addr}: {error}"),
        })
}

/// What a server is set up with.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Its settings.
    pub config: Config,
    /// Where they come from.
    pub layers: Layers,
    /// Its certificates, where it has some.
    pub tls: Option<Arc<Tls>>,
    /// Who may do what, where not everybody may everything.
    pub auth: Option<Arc<Auth>>,
}

impl Setup {
    /// Reads the files that the settings name. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// One sentence that names the setting or the file.
    pub fn load(config: Config, layers: Layers) -> Result<Self, String> {
        let tls = Tls::load(&config.tls)?;
        let auth = config.auth_file.as_deref().map(Auth::load).transpose()?;
        Ok(Self {
            config,
            layers,
            tls,
            auth,
        })
    }

    fn kept(&self) -> Vec<Arc<dyn Reload>> {
        let tls = self.tls.clone().map(|tls| tls as Arc<dyn Reload>);
        let auth = self.auth.clone().map(|auth| auth as Arc<dyn Reload>);
        tls.into_iter().chain(auth).collect()
    }
}

/// A server at work.
#[derive(Debug)]
pub struct Server {
    storage: StoragePtr,
    /// Absent in a standalone server.
    cluster: Option<Arc<Cluster>>,
    admission: Arc<Admission>,
    live: Arc<Live>,
    health: tonic_health::server::HealthReporter,
    /// Tells both listeners to stop.
    stop: watch::Sender<bool>,
    grpc: JoinHandle<()>,
    pages: JoinHandle<std::io::Result<()>>,
}

struct StoragePtr(Arc<dyn Storage>);

impl std::fmt::Debug for StoragePtr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Storage")
    }
}

impl Server {
    /// Begins to serve a started `storage` on `sockets`.
    ///
    /// # Panics
    ///
    /// When the committed descriptors are not what they were generated from.
    #[must_use]
    pub fn begin(
        storage: Arc<dyn Storage>,
        cluster: Option<Arc<Cluster>>,
        sockets: Sockets,
        setup: Setup,
    ) -> Self {
        let limits = setup.config.limits.clone();
        // Where it was really bound: a store of a cluster may know its address from its directory.
        let addr = sockets
            .addrs()
            .map_or_else(|_| setup.config.addr.clone(), |(addr, _)| addr.to_string());
        let metrics = Arc::new(Metrics::new(&storage, cluster.as_ref()));
        let knows_peers = setup.tls.as_ref().is_some_and(|tls| tls.knows_peers());
        let gate = Gate::new(setup.auth.clone(), knows_peers);
        let admission = Admission::new(Arc::clone(&metrics), limits.budgets).behind(gate);
        let admission = Arc::new(admission);
        let kept = setup.kept();
        let adjusted = Arc::clone(&admission);
        let live = Live::new(setup.layers, setup.config.clone(), kept, move |config| {
            logging::set_level(config.log_level);
            adjusted.adjust(&config.limits.budgets);
        });
        let live = Arc::new(live);
        let state = Arc::new(ServerState::new(
            Arc::clone(&storage),
            cluster.clone(),
            Arc::clone(&admission),
            setup.tls.clone(),
        ));
        let (stop, stopped) = watch::channel(false);
        let (health, health_service) = tonic_health::server::health_reporter();

        let grpc_listener = Listener::new(
            sockets.grpc,
            limits.connections,
            Silence::BeforeFirstByte(limits::FIRST_BYTE_TIMEOUT),
            metrics.connections.clone(),
            metrics.connections_refused.clone(),
        );
        let tinykv = Arc::new(TinyKvService::new(Arc::clone(&storage), cluster.clone()));
        let admin = AdminService::new(
            Arc::clone(&storage),
            Arc::clone(&state),
            cluster.clone(),
            Arc::clone(&live),
        );
        let has_rights = setup.auth.is_some();
        let whole = Arc::clone(&storage);
        let examiner = Examiner::new(&setup.config, addr, setup.tls.clone(), has_rights, whole);
        let admin = admin.operating(examiner, setup.config.backup_dir.clone());
        let peers = PeersService::new(cluster.clone());
        let kv = KvService::new(Arc::clone(&storage), &tinykv);
        let front = Arc::new(Front::new(
            Arc::clone(&tinykv),
            Arc::clone(&admission),
            routes(tinykv, kv, admin, peers)
                // No budget counts what is asked of health.
                .add_service(health_service.max_decoding_message_size(limits::REQUEST_BASE_LEN)),
        ));
        let transport = Transport {
            streams: limits.streams,
            header_len: limits.header_len,
        };
        let told = stopped.clone();
        // Two kinds of connections, so that plain ones carry nothing of the others.
        let grpc = match setup.tls.clone() {
            None => tokio::spawn(connections::serve(grpc_listener, transport, front, told)),
            Some(tls) => {
                let secure = SecureListener::grpc(grpc_listener, tls);
                tokio::spawn(connections::serve(secure, transport, front, told))
            }
        };

        let pages_listener = Listener::new(
            sockets.status,
            limits::MAX_STATUS_CONNECTIONS,
            Silence::Always(limits::STATUS_IDLE_TIMEOUT),
            Gauge::default(),
            Counter::default(),
        );
        let router = status_pages::router(Arc::clone(&state), Arc::clone(&metrics));
        let router = router.merge(api::router(api::Parts {
            state,
            metrics: Arc::clone(&metrics),
            storage: Arc::clone(&storage),
            cluster: cluster.clone(),
            live: Arc::clone(&live),
            access: Access::new(setup.auth.clone(), &setup.config.status_addr),
        }));
        let router = router.into_make_service_with_connect_info::<Remote>();
        let sampler = Sampler::new(metrics, Arc::clone(&storage));
        tokio::spawn(take_samples(sampler, told_to_stop(stopped.clone())));
        let told = told_to_stop(stopped.clone());
        let pages = match setup.tls.clone().filter(|_| !setup.config.status_plain) {
            None => {
                let pages = axum::serve(pages_listener, router).with_graceful_shutdown(told);
                tokio::spawn(async move { pages.await })
            }
            Some(tls) => {
                let secure = SecureListener::pages(pages_listener, tls);
                let pages = axum::serve(secure, router).with_graceful_shutdown(told);
                tokio::spawn(async move { pages.await })
            }
        };
        if setup.tls.is_some() || setup.auth.is_some() {
            tokio::spawn(watch_files(setup.tls, setup.auth, told_to_stop(stopped)));
        }
        Self {
            storage: StoragePtr(storage),
            cluster,
            admission,
            live,
            health,
            stop,
            grpc,
            pages,
        }
    }

    /// Its settings.
    #[must_use]
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// Tells health that the server serves, and that it does not where its store is fenced later.
    pub async fn announce(&self) {
        self.tell_health(ServingStatus::Serving).await;
        let Some(cluster) = self.cluster.clone() else {
            return;
        };
        let (health, mut stopped) = (self.health.clone(), self.stop.subscribe());
        tokio::spawn(async move {
            while cluster.fenced().is_none() {
                tokio::select! {
                    () = tokio::time::sleep(LOOK) => {}
                    _ = stopped.wait_for(|stop| *stop) => return,
                }
            }
            for name in HEALTH_NAMES {
                health
                    .set_service_status(name, ServingStatus::NotServing)
                    .await;
            }
        });
    }

    async fn tell_health(&self, status: ServingStatus) {
        for name in HEALTH_NAMES {
            self.health.set_service_status(name, status).await;
        }
    }

    /// Hands leadership over, takes no more requests, gives those in flight [`limits::DRAIN_TIMEOUT`],
    /// and closes the storage.
    ///
    /// # Errors
    ///
    /// A failure to write what was still in memory.
    ///
    /// # Panics
    ///
    /// When closing the storage panics.
    pub async fn stop(self) -> storage::Result<()> {
        self.tell_health(ServingStatus::NotServing).await;
        if let Some(cluster) = &self.cluster {
            // Until others lead, nobody serves what is refused here.
            cluster.hand_over(limits::HAND_OVER_TIMEOUT).await;
        }
        self.admission.drain();
        let until = tokio::time::Instant::now() + limits::DRAIN_TIMEOUT;
        if let Some(cluster) = &self.cluster {
            // What is in flight needs the other stores; their streams would never end by themselves.
            while self.admission.in_flight() > 0 && tokio::time::Instant::now() < until {
                tokio::time::sleep(LOOK / 10).await;
            }
            cluster.end_streams();
        }
        self.stop.send_replace(true);
        let both = async { (self.grpc.await, self.pages.await) };
        if tokio::time::timeout_at(until, both).await.is_err() {
            tracing::warn!("requests or connections were left when the time to drain was over");
        }
        let storage = self.storage.0;
        tokio::task::spawn_blocking(move || storage.stop())
            .await
            .expect("closing does not panic")
    }
}

/// Takes a sample each second.
async fn take_samples(mut sampler: Sampler, stopped: impl Future<Output = ()>) {
    let mut stopped = std::pin::pin!(stopped);
    let mut ticks = tokio::time::interval(SAMPLE_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // The first is due at once.
    ticks.tick().await;
    loop {
        tokio::select! {
            _ = ticks.tick() => sampler.take(),
            () = &mut stopped => return,
        }
    }
}

/// Takes over what changes in the files of certificates and rights.
async fn watch_files(
    tls: Option<Arc<Tls>>,
    auth: Option<Arc<Auth>>,
    stopped: impl Future<Output = ()>,
) {
    let mut stopped = std::pin::pin!(stopped);
    loop {
        tokio::select! {
            () = tokio::time::sleep(limits::FILES_LOOK_INTERVAL) => {}
            () = &mut stopped => return,
        }
        let (tls, auth) = (tls.clone(), auth.clone());
        let looking = tokio::task::spawn_blocking(move || {
            let tls = tls.map_or(Ok(None), |tls| tls.look());
            [tls, auth.map_or(Ok(None), |auth| auth.look())]
        });
        for looked in looking.await.into_iter().flatten() {
            match looked {
                Ok(None) => {}
                Ok(Some(what)) => tracing::info!(what, "read again"),
                Err(why) => tracing::error!(why, "files that changed are not taken"),
            }
        }
    }
}

/// The services, but for health.
fn routes(
    tinykv: Arc<TinyKvService>,
    kv: KvService,
    admin: AdminService,
    peers: PeersService,
) -> Routes {
    let tinykv = TinyKvServer::from_arc(tinykv);
    let tinykv = tinykv.max_decoding_message_size(limits::MAX_REQUEST_LEN);
    let decodes = "the committed descriptors decode";
    let kv = KvServer::new(kv).max_decoding_message_size(limits::MAX_REQUEST_LEN);
    Routes::new(tinykv)
        .add_service(kv)
        .add_service(AdminServer::new(admin))
        .add_service(PeersServer::new(peers))
        .add_service(reflection().build_v1().expect(decodes))
        .add_service(reflection().build_v1alpha().expect(decodes))
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(basalt_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name("tinykvpb.TinyKv")
        .with_service_name("basaltpb.Admin")
        .with_service_name("basaltpb.Kv")
        .with_service_name("basaltpb.Peers")
        .with_service_name("grpc.health.v1.Health")
}

pub(crate) async fn told_to_stop(mut stopped: watch::Receiver<bool>) {
    // A sender that is gone means the same.
    let _ = stopped.wait_for(|stop| *stop).await;
}

#[cfg(test)]
mod tests;
