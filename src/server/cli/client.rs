//! Speaking to a server: one connection, one deadline, and errors a person can act on.

use std::{future::Future, time::Duration};

use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use super::Failure;
use crate::{
    limits::MAX_ANSWER_LEN,
    metrics::code_name,
    replicated::root_cause,
    stubs::{basaltpb::admin_client::AdminClient, tinykvpb::tiny_kv_client::TinyKvClient},
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

/// A server that was reached.
#[derive(Clone, Debug)]
pub(super) struct Server {
    addr: String,
    channel: Channel,
}

impl Server {
    /// Connects to `addr`, `HOST:PORT`.
    pub(super) async fn connect(addr: &str) -> Result<Self, Failure> {
        let endpoint = Endpoint::from_shared(format!("http://{addr}")).ok();
        let endpoint = endpoint.filter(|endpoint| endpoint.uri().port().is_some());
        let endpoint = endpoint.ok_or_else(|| {
            Failure::usage(format!("{addr:?} is not an address of the form HOST:PORT"))
        })?;
        let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true);
        let channel = endpoint.connect().await.map_err(|error| {
            let reason = root_cause(&error);
            let hint = "start one with: basalt server";
            Failure::world(format!("no server answers at {addr} ({reason}); {hint}"))
        })?;
        Ok(Self {
            addr: addr.to_owned(),
            channel,
        })
    }

    /// Connects to the first of `addrs` that answers.
    pub(super) async fn connect_any(addrs: &[String]) -> Result<Self, Failure> {
        let mut failure = Failure::usage("no address is given");
        for addr in addrs {
            match Self::connect(addr).await {
                Ok(server) => return Ok(server),
                Err(error) if error.code == 2 || addrs.len() == 1 => return Err(error),
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
    pub(super) fn tinykv(&self) -> TinyKvClient<Channel> {
        TinyKvClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_LEN)
    }

    /// Basalt's administration.
    pub(super) fn admin(&self) -> AdminClient<Channel> {
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
                _ => format!("{addr} answers {code}: {}", status.message()),
            })
        })
    }
}

/// The error that an answer carries in its field, if any. Errors of regions were followed before.
pub(super) fn check_answer(error: &str) -> Result<(), Failure> {
    if error.is_empty() {
        return Ok(());
    }
    Err(Failure::world(error))
}
