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
//! nothing new, and ends with its last request. Not here: what a request is answered (`service`), connections within
//! limits (`listen`).

use std::{
    convert::Infallible,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
};

use axum::serve::Listener as _;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{mpsc, watch};

use crate::{
    limits,
    listen::{Connection, Listener},
    serve::told_to_stop,
    service::front::Front,
};

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
pub(crate) async fn serve(
    mut listener: Listener,
    front: Arc<Front>,
    stopped: watch::Receiver<bool>,
) {
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
                run(connection, front, stopped).await;
                drop(open);
            });
        }
    }
    drop((listener, open));
    last_closed.recv().await;
}

/// The life of a connection.
async fn run(connection: Connection, front: Arc<Front>, stopped: watch::Receiver<bool>) {
    let begun = Begun::default();
    let service = service_fn(move |request| Arc::clone(&front).answer(Box::new(request)));
    let connection = transport(begun.clone()).serve_connection(TokioIo::new(connection), service);
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

fn transport(begun: Begun) -> http2::Builder<Begun> {
    let mut transport = http2::Builder::new(begun);
    transport
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits::MAX_STREAMS_PER_CONNECTION)
        .max_header_list_size(limits::MAX_HEADER_LIST_LEN)
        .max_pending_accept_reset_streams(limits::MAX_PENDING_RESETS)
        .initial_stream_window_size(limits::STREAM_WINDOW_LEN)
        .initial_connection_window_size(limits::CONNECTION_WINDOW_LEN)
        .keep_alive_interval(limits::KEEPALIVE_INTERVAL)
        .keep_alive_timeout(limits::KEEPALIVE_TIMEOUT)
        // Clients of gRPC have no use for it.
        .auto_date_header(false);
    transport
}
