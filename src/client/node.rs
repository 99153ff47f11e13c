//! [`Node`]: a connection to one server.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, Request, header::AUTHORIZATION, uri::PathAndQuery};
use tonic::{
    Code, IntoRequest as _, Response, Status,
    body::Body,
    client::Grpc,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use crate::{Config, Error, Result, tls::explain};

/// Longest answer that is taken: a full page of a scan and some.
const MAX_ANSWER_LEN: usize = 16 * 1024 * 1024;

/// A channel whose requests carry the token, if there is one; for stubs of other services.
#[derive(Clone, Debug)]
pub struct Carrier {
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

/// A server that was reached. It is cheap to clone, and reconnects by itself.
#[derive(Clone, Debug)]
pub struct Node {
    addr: Arc<str>,
    channel: Carrier,
}

impl Node {
    /// Connects to `addr`, `HOST:PORT`.
    ///
    /// # Errors
    ///
    /// [`Error::Config`], [`Error::Tls`] or [`Error::Unavailable`].
    pub async fn connect(addr: &str, config: &Config) -> Result<Self> {
        let scheme = match config.tls {
            Some(_) => "https",
            None => "http",
        };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{addr}")).ok();
        let endpoint = endpoint.filter(|endpoint| endpoint.uri().port().is_some());
        let endpoint = endpoint.ok_or_else(|| {
            Error::Config(format!("{addr:?} is not an address of the form HOST:PORT"))
        })?;
        let host = endpoint.uri().host().unwrap_or_default();
        if config.token.is_some() && config.tls.is_none() && !is_loopback(host) {
            return Err(Error::Config(format!(
                "a token does not go to {addr} in plain text; name the authority of the server with --tls-ca"
            )));
        }
        let timeout = config.connect_timeout;
        let mut endpoint = endpoint.connect_timeout(timeout).tcp_nodelay(true);
        if let Some((interval, answer)) = config.keepalive {
            endpoint = endpoint
                .http2_keep_alive_interval(interval)
                .keep_alive_timeout(answer);
        }
        let connecting = async {
            match &config.tls {
                None => endpoint.connect().await,
                Some(tls) => endpoint.connect_with_connector(tls.clone()).await,
            }
        };
        let unavailable = |reason: String| Error::Unavailable {
            addrs: addr.to_owned(),
            reason,
        };
        let connected = tokio::time::timeout(timeout, connecting).await;
        let connected = connected.map_err(|_| {
            let seconds = timeout.as_secs();
            unavailable(format!("it takes no connection in {seconds} s"))
        })?;
        let channel = connected.map_err(|error| {
            let reason = root_cause(&error);
            match config.tls.is_some() && !reason.contains("refused (os error") {
                true => Error::Tls {
                    addr: addr.to_owned(),
                    reason,
                },
                false => unavailable(reason),
            }
        })?;
        Ok(Self {
            addr: addr.into(),
            channel: Carrier {
                channel,
                token: config.token.clone(),
            },
        })
    }

    /// Where it is.
    #[must_use]
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// Its channel, for stubs of services that this crate has no calls of.
    #[must_use]
    pub fn channel(&self) -> Carrier {
        self.channel.clone()
    }

    /// One call of a method that takes one message and answers one; the server learns how long it is waited for.
    ///
    /// Boxed: it is long, and handed on.
    pub(crate) fn unary<M, A>(
        &self,
        path: &'static str,
        message: M,
        within: Option<Duration>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<A>, Status>> + Send>>
    where
        M: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let channel = self.channel.clone();
        Box::pin(async move {
            let mut grpc = Grpc::new(channel).max_decoding_message_size(MAX_ANSWER_LEN);
            let ready = grpc.ready().await;
            ready.map_err(|error| Status::from_error(error.into()))?;
            let mut request = message.into_request();
            if let Some(within) = within {
                request.set_timeout(within);
            }
            let codec = ProstCodec::<M, A>::default();
            grpc.unary(request, PathAndQuery::from_static(path), codec)
                .await
        })
    }

    /// What a call ended in that did not answer.
    #[must_use]
    pub fn error(&self, status: &Status) -> Error {
        let addr = self.addr.to_string();
        let text = status.message().to_owned();
        // What has a cause comes of the way to the server, whatever its code.
        let is_said = std::error::Error::source(status).is_none();
        match status.code() {
            Code::DeadlineExceeded | Code::Cancelled => Error::Deadline {
                addr,
                after: Duration::ZERO,
            },
            _ if wants_tls(status) => Error::WantsTls { addr },
            _ if !is_said => Error::Unavailable {
                addrs: addr,
                reason: explain(&root_cause(status)).to_owned(),
            },
            Code::Unavailable => Error::Unavailable {
                addrs: addr,
                reason: text,
            },
            Code::InvalidArgument | Code::OutOfRange => Error::InvalidArgument(text),
            Code::Unauthenticated => Error::Unauthenticated(text),
            Code::PermissionDenied => Error::PermissionDenied(text),
            Code::ResourceExhausted => Error::Overloaded(text),
            Code::Unimplemented => Error::Unimplemented { addr, reason: text },
            code => Error::Other {
                addr,
                reason: format!("{}: {}", code_name(code), explain(&text)),
            },
        }
    }
}

/// Whether a status comes of a connection that did not come about: nothing was sent.
pub(crate) fn is_unsent(status: &Status) -> bool {
    causes(status).any(<dyn std::error::Error>::is::<tonic::ConnectError>)
}

/// Whether a server that was spoken to in plain text says that it speaks TLS.
fn wants_tls(status: &Status) -> bool {
    causes(status).any(|cause| cause.to_string().contains("this port speaks TLS"))
}

fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

/// What lies at the bottom of an error: `Connection refused`, rather than `transport error`.
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let last = causes(error).last();
    last.map_or_else(String::new, ToString::to_string)
}

/// Whether a host is this machine.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let ip = host.parse::<std::net::IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

/// A code as gRPC writes it.
fn code_name(code: Code) -> String {
    let name = format!("{code:?}");
    let mut text = String::new();
    for (index, letter) in name.chars().enumerate() {
        if index > 0 && letter.is_uppercase() {
            text.push('_');
        }
        text.extend(letter.to_uppercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_names_that_grpc_gives_them() {
        assert_eq!(code_name(Code::FailedPrecondition), "FAILED_PRECONDITION");
        assert_eq!(code_name(Code::Internal), "INTERNAL");
    }

    #[tokio::test]
    async fn what_is_no_address_and_what_would_give_a_token_away_is_refused() {
        let config = Config::new(["x"]);
        for wrong in ["nowhere", "", "a b:1", "host:port"] {
            let error = Node::connect(wrong, &config).await.unwrap_err();
            assert!(error.to_string().contains("HOST:PORT"), "{error}");
        }
        let config = config.token("secret").unwrap();
        let error = Node::connect("192.0.2.1:1", &config).await.unwrap_err();
        assert!(error.to_string().contains("plain text"), "{error}");
    }
}
