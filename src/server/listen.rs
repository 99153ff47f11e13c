//! Listening: TCP connections within a limit, each with a limit on its silence.
//!
//! Promises: at most so many connections are open at a time, one more is closed at once (a waiting
//! one would hang its client); a connection that sends nothing is closed after its time.

use std::{
    future::Future as _,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep},
};

/// Wait after a failure to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// When a silent connection is closed.
#[derive(Clone, Copy, Debug)]
pub enum Silence {
    /// Only its first byte is waited for; HTTP/2 pings watch over the rest.
    BeforeFirstByte(Duration),
    /// Every read is waited for.
    Always(Duration),
}

/// A listening socket with its limits.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    slots: Arc<Semaphore>,
    silence: Silence,
    open: Gauge,
    refused: Counter,
    /// Set after a failure to accept: out of file descriptors, most of all.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Listener {
    /// Takes connections from `socket`, at most `max_connections` at a time; counts the open ones in
    /// `open`, those closed at once in `refused`.
    #[must_use]
    pub fn new(
        socket: TcpListener,
        max_connections: usize,
        silence: Silence,
        open: Gauge,
        refused: Counter,
    ) -> Self {
        let slots = Arc::new(Semaphore::new(max_connections));
        Self {
            socket,
            slots,
            silence,
            open,
            refused,
            pause: None,
        }
    }

    pub(crate) fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<(Connection, SocketAddr)> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match ready!(self.socket.poll_accept(cx)) {
                Ok((stream, peer)) => {
                    let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
                        self.refused.inc();
                        continue;
                    };
                    // A client that is gone already shows at the first read.
                    let _ = stream.set_nodelay(true);
                    return Poll::Ready((Connection::new(self, stream, slot), peer));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot take a connection");
                    self.pause = Some(Box::pin(tokio::time::sleep(ACCEPT_PAUSE)));
                }
            }
        }
    }
}

impl axum::serve::Listener for Listener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        std::future::poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// A connection that counts against its listener's limit until it is dropped.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    silence: Silence,
    /// Runs while a read is waited for.
    timer: Option<Pin<Box<Sleep>>>,
    open: Gauge,
    _slot: OwnedSemaphorePermit,
}

impl Connection {
    /// The next bytes, which stay to be read.
    pub(crate) async fn peek(&self, bytes: &mut [u8]) -> io::Result<usize> {
        self.stream.peek(bytes).await
    }

    fn new(listener: &Listener, stream: TcpStream, slot: OwnedSemaphorePermit) -> Self {
        let (Silence::BeforeFirstByte(time) | Silence::Always(time)) = listener.silence;
        listener.open.inc();
        Self {
            stream,
            silence: listener.silence,
            timer: Some(Box::pin(tokio::time::sleep(time))),
            open: listener.open.clone(),
            _slot: slot,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.open.dec();
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Poll::Ready(result) = Pin::new(&mut this.stream).poll_read(cx, buffer) {
            match this.silence {
                Silence::BeforeFirstByte(_) => this.timer = None,
                Silence::Always(time) => {
                    if let Some(timer) = &mut this.timer {
                        timer.as_mut().reset(Instant::now() + time);
                    }
                }
            }
            return Poll::Ready(result);
        }
        let Some(timer) = &mut this.timer else {
            return Poll::Pending;
        };
        timer
            .as_mut()
            .poll(cx)
            .map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use axum::serve::Listener as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn listener(max_connections: usize, silence: Silence) -> (Listener, SocketAddr) {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = socket.local_addr().unwrap();
        let listener = Listener::new(
            socket,
            max_connections,
            silence,
            Gauge::default(),
            Counter::default(),
        );
        (listener, addr)
    }

    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn one_connection_too_many_is_closed_at_once_and_a_freed_slot_is_used_again() {
        let (mut listener, addr) = listener(2, Silence::BeforeFirstByte(LONG)).await;
        let (open, refused) = (listener.open.clone(), listener.refused.clone());
        let _clients = [
            TcpStream::connect(addr).await.unwrap(),
            TcpStream::connect(addr).await.unwrap(),
        ];
        let first = listener.accept().await.0;
        let _second = listener.accept().await.0;
        assert_eq!(open.get(), 2);

        let mut third = TcpStream::connect(addr).await.unwrap();
        let accepting = tokio::spawn(async move { listener.accept().await.0 });
        assert_eq!(
            third.read(&mut [0; 1]).await.unwrap_or(0),
            0,
            "closed without a byte"
        );
        assert_eq!(refused.get(), 1);

        drop(first);
        let _fourth = TcpStream::connect(addr).await.unwrap();
        let _served = accepting.await.unwrap();
        assert_eq!(open.get(), 2);
    }

    #[tokio::test]
    async fn a_connection_that_never_speaks_ends_in_a_timeout() {
        let time = Duration::from_millis(20);
        let (mut listener, addr) = listener(2, Silence::BeforeFirstByte(time)).await;
        let _client = TcpStream::connect(addr).await.unwrap();
        let mut served = listener.accept().await.0;
        let error = served.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn after_the_first_byte_silence_is_allowed_unless_it_is_never() {
        let time = Duration::from_millis(20);
        for (silence, patient) in [
            (Silence::BeforeFirstByte(time), true),
            (Silence::Always(time), false),
        ] {
            let (mut listener, addr) = listener(2, silence).await;
            let mut client = TcpStream::connect(addr).await.unwrap();
            let mut served = listener.accept().await.0;
            client.write_all(b"x").await.unwrap();
            served.read_exact(&mut [0; 1]).await.unwrap();
            let next = tokio::time::timeout(time * 5, served.read(&mut [0; 1])).await;
            assert_eq!(next.is_err(), patient, "{silence:?} gave {next:?}");
        }
    }
}
