//! HTTP/2 connections, each a task that also runs the requests that came in on it.
//!
//! ```text
//! socket --> hyper --> Front --> running --> hyper --> socket
//!               (one task, polled by whichever thread has it)
//! ```
//! With a task for each request the store loop, which answers a hundred of them in a row, would wake a hundred: each is queued,
//! some are taken over by other threads, and what they say leaves in as many system calls as the connection's
//! task finds moments between them. Here the first one wakes the connection, and all that were answered leave together.
//!
//! Promises: a handler that panics ends its own request; handlers end with their connection; once told to stop, a connection takes
//! nothing new, and ends with its last request; each request carries who is at the other end, where that is known. Not here:
//! what a request is answered (`service`), connections within limits (`listen`), TLS (`tls`), which shakes hands when a
//! connection is first read.

use std::{
    convert::Infallible,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, watch},
};

use crate::{
    limits,
    listen::Connection,
    serve::told_to_stop,
    service::front::Front,
    tls::{Caller, SecureConnection},
};

/// A connection that requests come in on.
pub(crate) trait Incoming: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// Who is at the other end; nothing where nobody can tell.
    fn caller(&self) -> Option<Arc<Caller>>;
}

impl Incoming for Connection {
    fn caller(&self) -> Option<Arc<Caller>> {
        None
    }
}

impl Incoming for SecureConnection {
    fn caller(&self) -> Option<Arc<Caller>> {
        Some(Arc::clone(self.caller()))
    }
}

/// Limits of a connection that are settings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transport {
    /// Requests at a time.
    pub(crate) streams: u32,
    /// Bytes of the headers of one of them.
    pub(crate) header_len: u32,
}

/// A request with everything that is to be done for it, up to the last byte of its answer.
type Request = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where hyper puts what it would have run elsewhere: requests that have begun.
#[derive(Clone, Default)]
struct Begun(Arc<Mutex<Vec<Request>>>);

impl Begun {
    fn take(&self) -> Vec<Request> {
        // Nothing panics while the lock is held.
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Begun {
    fn execute(&self, request: F) {
        let mut begun = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        begun.push(Box::pin(request));
    }
}

/// Serves the connections of `listener` until it is told to stop and the last of them has ended.
pub(crate) async fn serve<L>(
    mut listener: L,
    transport: Transport,
    front: Arc<Front>,
    stopped: watch::Receiver<bool>,
) where
    L: axum::serve::Listener<Io: Incoming>,
{
    // Nothing is ever sent: it ends with the last sender.
    let (open, mut last_closed) = mpsc::channel::<Infallible>(1);
    {
        let mut stop = pin!(told_to_stop(stopped.clone()));
        loop {
            let connection = tokio::select! {
                () = &mut stop => break,
                (connection, _) = listener.accept() => connection,
            };
            let (front, stopped, open) = (Arc::clone(&front), stopped.clone(), open.clone());
            tokio::spawn(async move {
                run(connection, transport, front, stopped).await;
                drop(open);
            });
        }
    }
    drop((listener, open));
    last_closed.recv().await;
}

/// The life of a connection.
async fn run<C: Incoming>(
    connection: C,
    transport: Transport,
    front: Arc<Front>,
    stopped: watch::Receiver<bool>,
) {
    let begun = Begun::default();
    let caller = connection.caller();
    let service = service_fn(move |request| {
        let mut request = Box::new(request);
        if let Some(caller) = &caller {
            request.extensions_mut().insert(Arc::clone(caller));
        }
        Arc::clone(&front).answer(request)
    });
    let transport = transport.over(begun.clone());
    let connection = transport.serve_connection(TokioIo::new(connection), service);
    let mut connection = pin!(connection);
    let mut running = FuturesUnordered::<Request>::new();
    let mut stop = pin!(told_to_stop(stopped));
    let mut is_stopping = false;
    std::future::poll_fn(move |cx| {
        if !is_stopping && stop.as_mut().poll(cx).is_ready() {
            is_stopping = true;
            connection.as_mut().graceful_shutdown();
        }
        loop {
            // It reads what there is, and writes what there is.
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection failed");
                }
                return Poll::Ready(());
            }
            running.extend(begun.take());
            let mut has_ended = false;
            // The set lets go of a request that panics; so its stream is reset.
            while let Ok(Poll::Ready(Some(()))) | Err(_) =
                catch_unwind(AssertUnwindSafe(|| running.poll_next_unpin(cx)))
            {
                has_ended = true;
            }
            if !has_ended {
                return Poll::Pending;
            }
        }
    })
    .await;
}

impl Transport {
    fn over(self, begun: Begun) -> http2::Builder<Begun> {
        let mut transport = http2::Builder::new(begun);
        transport
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.streams)
            .max_header_list_size(self.header_len)
            .max_pending_accept_reset_streams(limits::MAX_PENDING_RESETS)
            .initial_stream_window_size(limits::STREAM_WINDOW_LEN)
            .initial_connection_window_size(limits::CONNECTION_WINDOW_LEN)
            .keep_alive_interval(limits::KEEPALIVE_INTERVAL)
            .keep_alive_timeout(limits::KEEPALIVE_TIMEOUT)
            // Clients of gRPC have no use for it.
            .auto_date_header(false);
        transport
    }
}
