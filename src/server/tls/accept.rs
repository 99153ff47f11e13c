//! The server's end of TLS: a listener whose connections shake hands when they are first read.
//!
//! Promises: a handshake holds up no other connection and has its time; whoever speaks plain text is told so in plain
//! text, and nothing else is done for him; the reason of each failure is in the log.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
    time::Duration,
};

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{Loaded, Subject, Tls, explain, is_peer};
use crate::{
    limits::HANDSHAKE_TIMEOUT,
    listen::{Connection, Listener},
};

/// The first byte of a TLS connection: a record of a handshake.
const HANDSHAKE: u8 = 0x16;

/// Bytes and time that a client has which was told that it speaks the wrong protocol.
const FAREWELL_LEN: usize = 16 * 1024;
/// See [`FAREWELL_LEN`].
const FAREWELL_TIME: Duration = Duration::from_secs(1);

/// Who is at the other end of a connection.
#[derive(Debug)]
pub struct Caller {
    /// Where from.
    pub remote: SocketAddr,
    identity: OnceLock<Identity>,
}

/// What a certificate has shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Names of the caller; none where it has shown no certificate.
    pub names: Vec<String>,
    /// It is a store.
    pub is_peer: bool,
}

impl Caller {
    /// What its certificate has shown; nothing before the handshake.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.get()
    }
}

/// Which pages are spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Grpc,
    Pages,
}

/// A [`Listener`] with TLS.
#[derive(Debug)]
pub struct SecureListener {
    inner: Listener,
    tls: Arc<Tls>,
    protocol: Protocol,
}

impl SecureListener {
    /// Takes gRPC connections.
    #[must_use]
    pub fn grpc(inner: Listener, tls: Arc<Tls>) -> Self {
        let protocol = Protocol::Grpc;
        Self {
            inner,
            tls,
            protocol,
        }
    }

    /// Takes connections of status pages.
    #[must_use]
    pub fn pages(inner: Listener, tls: Arc<Tls>) -> Self {
        let protocol = Protocol::Pages;
        Self {
            inner,
            tls,
            protocol,
        }
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<(SecureConnection, SocketAddr)> {
        let (connection, remote) = ready!(self.inner.poll_accept(cx));
        let caller = Arc::new(Caller {
            remote,
            identity: OnceLock::new(),
        });
        let loaded = self.tls.now();
        let protocol = self.protocol;
        let shaking = shake(connection, loaded, protocol, Arc::clone(&caller));
        let connection = SecureConnection {
            state: State::Shaking(Box::pin(shaking)),
            caller,
        };
        Poll::Ready((connection, remote))
    }
}

impl axum::serve::Listener for SecureListener {
    type Io = SecureConnection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (SecureConnection, SocketAddr) {
        std::future::poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        axum::serve::Listener::local_addr(&self.inner)
    }
}

type Shaking = dyn Future<Output = io::Result<TlsStream<Connection>>> + Send;

enum State {
    Shaking(Pin<Box<Shaking>>),
    Open(Box<TlsStream<Connection>>),
    Failed,
}

/// A connection over TLS.
pub struct SecureConnection {
    state: State,
    caller: Arc<Caller>,
}

impl SecureConnection {
    /// Who is at the other end.
    pub(crate) fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&mut TlsStream<Connection>>> {
        if let State::Shaking(shaking) = &mut self.state {
            match ready!(shaking.as_mut().poll(cx)) {
                Ok(stream) => self.state = State::Open(Box::new(stream)),
                Err(error) => {
                    self.state = State::Failed;
                    return Poll::Ready(Err(error));
                }
            }
        }
        Poll::Ready(match &mut self.state {
            State::Open(stream) => Ok(stream),
            _ => Err(io::ErrorKind::ConnectionAborted.into()),
        })
    }
}

impl std::fmt::Debug for SecureConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecureConnection")
            .field("caller", &self.caller)
            .finish_non_exhaustive()
    }
}

async fn shake(
    mut connection: Connection,
    loaded: Arc<Loaded>,
    protocol: Protocol,
    caller: Arc<Caller>,
) -> io::Result<TlsStream<Connection>> {
    let config = match protocol {
        Protocol::Grpc => Arc::clone(&loaded.grpc),
        Protocol::Pages => Arc::clone(&loaded.pages),
    };
    let shaking = async {
        let mut first = [0];
        if connection.peek(&mut first).await? == 0 {
            // Whoever looks whether the port is open.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if first[0] != HANDSHAKE {
            // Best effort: who speaks so may not listen.
            let _ = connection.write_all(&plain_answer(protocol)).await;
            let _ = connection.shutdown().await;
            drain(&mut connection).await;
            return Err(io::Error::other("plain text on a port that speaks TLS"));
        }
        accept(config, connection).await
    };
    let shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, shaking).await;
    let shaken = shaken.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    match &shaken {
        Ok(stream) => {
            let identity = identify(&loaded, stream);
            // A handshake ends once.
            let _ = caller.identity.set(identity);
        }
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
        Err(error) => {
            let text = error.to_string();
            let why = explain(&text);
            let remote = caller.remote;
            tracing::warn!(%remote, why, "refused a connection");
        }
    }
    shaken
}

/// Takes what a client still sends, within bounds: a socket closed before would throw away the answer with it.
async fn drain(connection: &mut Connection) {
    let mut rest = vec![0; FAREWELL_LEN];
    let draining = async {
        let mut len = 0;
        while len < FAREWELL_LEN {
            match connection.read(&mut rest).await {
                Ok(0) | Err(_) => return,
                Ok(read) => len += read,
            }
        }
    };
    // Whoever sends more is cut off.
    let _ = tokio::time::timeout(FAREWELL_TIME, draining).await;
}

async fn accept(
    config: Arc<ServerConfig>,
    connection: Connection,
) -> io::Result<TlsStream<Connection>> {
    TlsAcceptor::from(config).accept(connection).await
}

fn identify(loaded: &Loaded, stream: &TlsStream<Connection>) -> Identity {
    let (_, tls) = stream.get_ref();
    let chain = tls.peer_certificates().unwrap_or_default();
    let names = chain.first().and_then(|own| Subject::of(own).ok());
    Identity {
        names: names.into_iter().flat_map(|own| own.names).collect(),
        is_peer: is_peer(loaded, chain),
    }
}

/// What somebody is told who speaks plain text, in his protocol.
fn plain_answer(protocol: Protocol) -> Vec<u8> {
    let text =
        "this port speaks TLS; give the certificate authority of the server (basalt: --tls-ca)";
    match protocol {
        Protocol::Pages => {
            let len = text.len() + 1;
            format!(
                "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: {len}\r\n\
                 Connection: close\r\n\r\n{text}\n"
            )
            .into_bytes()
        }
        Protocol::Grpc => {
            // Empty SETTINGS, then GOAWAY: no stream was taken, INADEQUATE_SECURITY, and the text.
            let len = u8::try_from(8 + text.len()).expect("a short sentence");
            let mut frames = vec![0, 0, 0, 4, 0, 0, 0, 0, 0];
            frames.extend([0, 0, len, 7, 0, 0, 0, 0, 0]);
            frames.extend([0, 0, 0, 0, 0, 0, 0, 12]);
            frames.extend(text.as_bytes());
            frames
        }
    }
}

impl AsyncRead for SecureConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = ready!(self.poll_open(cx))?;
        Pin::new(stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for SecureConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let stream = ready!(self.poll_open(cx))?;
        Pin::new(stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = ready!(self.poll_open(cx))?;
        Pin::new(stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = ready!(self.poll_open(cx))?;
        Pin::new(stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.state {
            State::Open(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
            // Nothing was said yet: dropping the socket says it all.
            State::Shaking(_) | State::Failed => Poll::Ready(Ok(())),
        }
    }
}
