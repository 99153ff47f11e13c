//! How commands speak with servers: the client of `basalt_client`, on a runtime of one thread, and errors a person can
//! act on.
//!
//! Not here: finding the leader, retries, deadlines (`basalt_client`); flags and files (`access`, `contexts`).

use std::{future::Future, time::Duration};

use basalt_client::{Carrier, Client, Config, Error, Node};
use tonic::Status;

use super::{Failure, program};
use crate::{
    stubs::{basaltpb::admin_client::AdminClient, tinykvpb::tiny_kv_client::TinyKvClient},
    tls::Connector,
};

pub(crate) use basalt_client::is_loopback;

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
    pub(super) token: Option<String>,
}

impl Access {
    fn config(&self, addrs: &[String]) -> Result<Config, Failure> {
        let mut config = Config::new(addrs.iter().cloned()).deadline(ANSWER_TIMEOUT);
        if let Some(tls) = &self.tls {
            config = config.tls(tls.clone());
        }
        if let Some(token) = &self.token {
            config = config.token(token).map_err(Failure::from)?;
        }
        Ok(config)
    }
}

/// Which servers are meant, and how they are spoken to.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) addrs: Vec<String>,
    pub(super) access: Access,
}

impl Target {
    /// A client of them that has not spoken with anybody yet.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        Ok(Client::new(self.access.config(&self.addrs)?))
    }
}

/// A server that was reached.
#[derive(Clone, Debug)]
pub(super) struct Server(Node);

impl From<Node> for Server {
    fn from(node: Node) -> Self {
        Self(node)
    }
}

impl Server {
    /// Connects to `addr`, `HOST:PORT`.
    pub(super) async fn connect(addr: &str, access: &Access) -> Result<Self, Failure> {
        let node = Node::connect(addr, &access.config(&[])?).await?;
        Ok(Self(node))
    }

    /// Connects to the first of the addresses that answers.
    pub(super) async fn connect_any(target: &Target) -> Result<Self, Failure> {
        Ok(Self(target.client()?.node().await?))
    }

    /// Where it is.
    pub(super) fn addr(&self) -> &str {
        self.0.addr()
    }

    /// Basalt's administration.
    pub(super) fn admin(&self) -> AdminClient<Carrier> {
        AdminClient::new(self.0.channel())
    }

    /// TinyKV's calls at this server alone.
    pub(super) fn tinykv(&self) -> TinyKvClient<Carrier> {
        TinyKvClient::new(self.0.channel())
    }

    /// Waits for the answer of one request.
    pub(super) async fn ask<T>(
        &self,
        request: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(ANSWER_TIMEOUT, request).await {
            Ok(answer) => self.answer(answer),
            Err(_) => Err(Failure::from(Error::Deadline {
                addr: self.addr().to_owned(),
                after: ANSWER_TIMEOUT,
            })),
        }
    }

    /// Unpacks the answer of one request.
    pub(super) fn answer<T>(
        &self,
        answer: Result<tonic::Response<T>, Status>,
    ) -> Result<T, Failure> {
        let answer = answer.map(tonic::Response::into_inner);
        answer.map_err(|status| Failure::from(self.0.error(&status)))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::Config(_) => Self::usage(text),
            Error::Unauthenticated(_) | Error::PermissionDenied(_) => Self::denied(text),
            Error::Unavailable { reason, .. } if reason.contains("refused (os error") => {
                let hint = format!("start one with: {} server", program());
                Self::unreachable(format!("{text}; {hint}"))
            }
            Error::Unavailable { .. }
            | Error::NoLeader { .. }
            | Error::Deadline { .. }
            | Error::Overloaded(_) => Self::unreachable(text),
            Error::WantsTls { .. } => {
                Self::world(format!("{text}; name its authority with --tls-ca"))
            }
            _ => Self::world(text),
        }
    }
}
