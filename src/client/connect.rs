//! The client's end of a TLS connection: how a server is reached, by clients and by other stores.
//!
//! Promises: the server's certificate comes from an authority that is trusted and is for the name that it is reached
//! by; a connection is answered for only once the server has spoken in it, so that a refusal of our certificate is
//! an error of connecting, with a reason.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{io::AsyncBufReadExt as _, net::TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::explain;

/// Time for the server's first bytes after the handshake. Basalt sends them at once; other ends may wait for ours.
const FIRST_BYTES_TIMEOUT: Duration = Duration::from_secs(1);

/// Makes connections to one server.
#[derive(Clone, Debug)]
pub struct Connector {
    config: Arc<ClientConfig>,
    /// The name in the server's certificate, where it is not the one of the address.
    name: Option<String>,
}

impl Connector {
    /// Connections by `config`; the server's certificate is for `name`, else for the host of its address.
    #[must_use]
    pub fn new(config: Arc<ClientConfig>, name: Option<String>) -> Self {
        Self { config, name }
    }

    async fn connect(self, uri: Uri) -> io::Result<TokioIo<TlsStream<TcpStream>>> {
        let host = uri.host().unwrap_or_default();
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let port = uri.port_u16().unwrap_or_default();
        let name = self.name.unwrap_or_else(|| host.clone());
        let name = ServerName::try_from(name.clone())
            .map_err(|_| io::Error::other(format!("{name:?} is no name of a server")))?;
        let socket = TcpStream::connect((host.as_str(), port)).await?;
        socket.set_nodelay(true)?;
        let said = |error: io::Error| io::Error::other(explain(&error.to_string()).to_owned());
        let shaken = TlsConnector::from(self.config).connect(name, socket).await;
        let mut stream = shaken.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
                io::Error::other("it closed the connection instead of speaking TLS")
            }
            _ => said(error),
        })?;
        // In TLS 1.3 the server judges our certificate after the handshake is over for us.
        match tokio::time::timeout(FIRST_BYTES_TIMEOUT, stream.fill_buf()).await {
            Ok(Err(error)) => Err(said(error)),
            Ok(Ok([])) => Err(io::Error::other("it closed the connection")),
            Ok(Ok(_)) | Err(_) => Ok(TokioIo::new(stream)),
        }
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}
