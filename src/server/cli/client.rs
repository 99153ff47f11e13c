//! Speaking to a server: one connection, one deadline, and errors a person can act on.

use std::{
    future::Future,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::http::{HeaderValue, Request, header::AUTHORIZATION};
use tonic::{
    Code, Status,
    body::Body,
    transport::{Channel, Endpoint},
};

use super::Failure;
use crate::{
    limits::MAX_ANSWER_LEN,
    metrics::code_name,
    replicated::root_cause,
    stubs::{basaltpb::admin_client::AdminClient, tinykvpb::tiny_kv_client::TinyKvClient},
    tls::{Connector, explain},
};

/// Time for a connection to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for one answer; the server's own deadline of a request is shorter.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// Runs the body of a command that speaks to a server.
pub(super) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| Failure::world(format!("cannot begin: {error}")))?;
    runtime.block_on(work)
}

/// How servers are spoken to.
#[derive(Clone, Debug, Default)]
pub(super) struct Access {
    /// Plain text without it.
    pub(super) tls: Option<Connector>,
    /// What goes with every request.
    pub(super) token: Option<Arc<HeaderValue>>,
}

/// Which servers are meant, and how they are spoken to.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) addrs: Vec<String>,
    pub(super) access: Access,
}

/// A channel whose requests carry the token, if there is one.
#[derive(Clone, Debug)]
pub(super) struct Carrier {
    channel: Channel,
    token: Option<Arc<HeaderValue>>,
}

impl tower::Service<Request<Body>> for Carrier {
    type Response = <Channel as tower::Service<Request<Body>>>::Response;
    type Error = <Channel as tower::Service<Request<Body>>>::Error;
    type Future = <Channel as tower::Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        tower::Service::poll_ready(&mut self.channel, cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if let Some(token) = &self.token {
            let header = HeaderValue::clone(token);
            request.headers_mut().insert(AUTHORIZATION, header);
        }
        tower::Service::call(&mut self.channel, request)
    }
}

/// A server that was reached.
#[derive(Clone, Debug)]
pub(super) struct Server {
    addr: String,
    channel: Carrier,
}

impl Server {
    /// Connects to `addr`, `HOST:PORT`.
    pub(super) async fn connect(addr: &str, access: &Access) -> Result<Self, Failure> {
        let scheme = if access.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{addr}")).ok();
        let endpoint = endpoint.filter(|endpoint| endpoint.uri().port().is_some());
        let endpoint = endpoint.ok_or_else(|| {
            Failure::usage(format!("{addr:?} is not an address of the form HOST:PORT"))
        })?;
        let host = endpoint.uri().host().unwrap_or_default();
        if access.token.is_some() && access.tls.is_none() && !is_loopback(host) {
            return Err(Failure::usage(format!(
                "a token does not go to {addr} in plain text; name the authority of the server with --tls-ca"
            )));
        }
        let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true);
        let connecting = async {
            match &access.tls {
                None => endpoint.connect().await,
                Some(tls) => endpoint.connect_with_connector(tls.clone()).await,
            }
        };
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
        let connected = connected.map_err(|_| {
            let seconds = CONNECT_TIMEOUT.as_secs();
            Failure::world(format!("{addr} takes no connection in {seconds} s"))
        })?;
        let channel = connected.map_err(|error| {
            let reason = root_cause(&error);
            if access.tls.is_some() && !reason.contains("refused (os error") {
                return Failure::world(format!("cannot speak TLS with {addr}: {reason}"));
            }
            let hint = "start one with: basalt server";
            Failure::world(format!("no server answers at {addr} ({reason}); {hint}"))
        })?;
        Ok(Self {
            addr: addr.to_owned(),
            channel: Carrier {
                channel,
                token: access.token.clone(),
            },
        })
    }

    /// Connects to the first of the addresses that answers.
    pub(super) async fn connect_any(target: &Target) -> Result<Self, Failure> {
        let addrs = &target.addrs;
        let mut failure = Failure::usage("no address is given");
        for addr in addrs {
            match Self::connect(addr, &target.access).await {
                Ok(server) => return Ok(server),
                Err(error) if error.code == 2 || addrs.len() == 1 => return Err(error),
                // A certificate that is not taken is no dead server.
                Err(error) if error.text.contains(" TLS ") => failure = error,
                Err(_) => {
                    let all = addrs.join(", ");
                    failure = Failure::world(format!("no server answers at any of {all}"));
                }
            }
        }
        Err(failure)
    }

    /// Where it is.
    pub(super) fn addr(&self) -> &str {
        &self.addr
    }

    /// TinyKV's service.
    pub(super) fn tinykv(&self) -> TinyKvClient<Carrier> {
        TinyKvClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_LEN)
    }

    /// Basalt's administration.
    pub(super) fn admin(&self) -> AdminClient<Carrier> {
        AdminClient::new(self.channel.clone())
    }

    /// Waits for the answer of one request.
    pub(super) async fn ask<T>(
        &self,
        request: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(ANSWER_TIMEOUT, request).await {
            Ok(answer) => self.answer(answer),
            Err(_) => Err(self.silent(ANSWER_TIMEOUT)),
        }
    }

    /// It gave no answer in its time.
    pub(super) fn silent(&self, time: Duration) -> Failure {
        let seconds = time.as_secs();
        Failure::world(format!("{} gave no answer in {seconds} s", self.addr))
    }

    /// Unpacks the answer of one request.
    pub(super) fn answer<T>(
        &self,
        answer: Result<tonic::Response<T>, Status>,
    ) -> Result<T, Failure> {
        answer.map(tonic::Response::into_inner).map_err(|status| {
            let (addr, code) = (&self.addr, code_name(status.code()));
            Failure::world(match status.code() {
                Code::InvalidArgument => format!("the server refuses this: {}", status.message()),
                Code::Unimplemented => format!(
                    "{addr} is no Basalt server of this version: {}",
                    status.message()
                ),
                _ => match wants_tls(&status) {
                    true => format!("{addr} speaks TLS; name its authority with --tls-ca"),
                    false => format!("{addr} answers {code}: {}", explain(status.message())),
                },
            })
        })
    }
}

/// Whether a server that was spoken to in plain text says that it speaks TLS (`tls::accept`).
fn wants_tls(status: &Status) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(status);
    while let Some(error) = cause {
        if error.to_string().contains("this port speaks TLS") {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Whether a host is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let ip = host.parse::<std::net::IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

/// The error that an answer carries in its field, if any. Errors of regions were followed before.
pub(super) fn check_answer(error: &str) -> Result<(), Failure> {
    if error.is_empty() {
        return Ok(());
    }
    Err(Failure::world(error))
}
