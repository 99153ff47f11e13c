//! The server: services, limits and listeners put together, and the order in which they stop.
//!
//! ```text
//! bind --> storage.start --> serve --> (signal) --> health NOT_SERVING, drain <= 5 s --> storage.stop
//! ```
//! Promises: nothing is served before the storage is open; after `serve` returned the storage is
//! closed and everything acknowledged is on disk.
//!
//! Not here: flags and files (`config`), what a terminal shows (`cli`).

use std::{net::SocketAddr, sync::Arc};

use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tonic_health::ServingStatus;

use crate::{
    limits,
    listen::{Listener, Silence},
    metrics::Metrics,
    service::{
        admin::AdminService,
        admission::{Admission, AdmissionLayer, Budgets},
        tinykv::TinyKvService,
    },
    state::ServerState,
    status_pages,
    storage::{self, Storage},
    stubs::{basaltpb::admin_server::AdminServer, tinykvpb::tiny_kv_server::TinyKvServer},
};

/// Names under which health is told; the empty one is the server as a whole.
const HEALTH_NAMES: [&str; 3] = ["", "tinykvpb.TinyKv", "basaltpb.Admin"];

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

/// A server at work.
#[derive(Debug)]
pub struct Server {
    storage: StoragePtr,
    admission: Arc<Admission>,
    health: tonic_health::server::HealthReporter,
    /// Tells both listeners to stop.
    stop: watch::Sender<bool>,
    grpc: JoinHandle<Result<(), tonic::transport::Error>>,
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
    pub fn begin(storage: Arc<dyn Storage>, sockets: Sockets) -> Self {
        let metrics = Arc::new(Metrics::new(&storage));
        let admission = Arc::new(Admission::new(Arc::clone(&metrics), Budgets::default()));
        Self::begin_with(storage, sockets, metrics, admission)
    }

    fn begin_with(
        storage: Arc<dyn Storage>,
        sockets: Sockets,
        metrics: Arc<Metrics>,
        admission: Arc<Admission>,
    ) -> Self {
        let state = Arc::new(ServerState::new(
            Arc::clone(&storage),
            Arc::clone(&admission),
        ));
        let (stop, stopped) = watch::channel(false);
        let (health, health_service) = tonic_health::server::health_reporter();

        let grpc_listener = Listener::new(
            sockets.grpc,
            limits::MAX_CONNECTIONS,
            Silence::BeforeFirstByte(limits::FIRST_BYTE_TIMEOUT),
            metrics.connections.clone(),
            metrics.connections_refused.clone(),
        );
        let tinykv = TinyKvServer::new(TinyKvService::new(Arc::clone(&storage)))
            .max_decoding_message_size(limits::MAX_REQUEST_LEN);
        let admin = AdminServer::new(AdminService::new(Arc::clone(&storage), Arc::clone(&state)));
        let decodes = "the committed descriptors decode";
        let router = tonic::transport::Server::builder()
            .max_concurrent_streams(limits::MAX_STREAMS_PER_CONNECTION)
            .http2_max_header_list_size(limits::MAX_HEADER_LIST_LEN)
            .http2_max_pending_accept_reset_streams(Some(limits::MAX_PENDING_RESETS))
            .initial_stream_window_size(limits::STREAM_WINDOW_LEN)
            .initial_connection_window_size(limits::CONNECTION_WINDOW_LEN)
            .http2_keepalive_interval(Some(limits::KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(limits::KEEPALIVE_TIMEOUT))
            .layer(AdmissionLayer::new(Arc::clone(&admission)))
            .add_service(tinykv)
            .add_service(admin)
            .add_service(health_service)
            .add_service(reflection().build_v1().expect(decodes))
            .add_service(reflection().build_v1alpha().expect(decodes));
        let grpc = tokio::spawn(
            router.serve_with_incoming_shutdown(grpc_listener, told_to_stop(stopped.clone())),
        );

        let pages_listener = Listener::new(
            sockets.status,
            limits::MAX_STATUS_CONNECTIONS,
            Silence::Always(limits::STATUS_IDLE_TIMEOUT),
            Gauge::default(),
            Counter::default(),
        );
        let pages = axum::serve(pages_listener, status_pages::router(state, metrics))
            .with_graceful_shutdown(told_to_stop(stopped));
        let pages = tokio::spawn(async move { pages.await });
        Self {
            storage: StoragePtr(storage),
            admission,
            health,
            stop,
            grpc,
            pages,
        }
    }

    /// Tells health that the server serves.
    pub async fn announce(&self) {
        self.tell_health(ServingStatus::Serving).await;
    }

    async fn tell_health(&self, status: ServingStatus) {
        for name in HEALTH_NAMES {
            self.health.set_service_status(name, status).await;
        }
    }

    /// Takes no more requests, gives those in flight [`limits::DRAIN_TIMEOUT`], and closes the
    /// storage.
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
        self.admission.drain();
        self.stop.send_replace(true);
        let both = async { (self.grpc.await, self.pages.await) };
        if tokio::time::timeout(limits::DRAIN_TIMEOUT, both)
            .await
            .is_err()
        {
            tracing::warn!("requests or connections were left when the time to drain was over");
        }
        let storage = self.storage.0;
        tokio::task::spawn_blocking(move || storage.stop())
            .await
            .expect("closing does not panic")
    }
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(basalt_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name("tinykvpb.TinyKv")
        .with_service_name("basaltpb.Admin")
        .with_service_name("grpc.health.v1.Health")
}

async fn told_to_stop(mut stopped: watch::Receiver<bool>) {
    // A sender that is gone means the same.
    let _ = stopped.wait_for(|stop| *stop).await;
}

#[cfg(test)]
mod tests;
