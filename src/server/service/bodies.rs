//! Bodies on their way in and out: counted against the budgets of `admission`.
//!
//! Promises: what a request's body brings is counted before anybody keeps it; an answer leaves in
//! pieces, each taken when the client has room for it, so that what waits for a slow client stays
//! where it is counted; an answer that is not taken in its time is given up; one without an end ends when the server drains.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::http::HeaderMap;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::task::AbortHandle;
use tonic::{Status, body::Body};

use super::admission::InFlight;

/// Bytes of one piece of an answer.
const PIECE_LEN: usize = 64 * 1024;

/// The body of a request, counted while it is read.
pub(super) struct RequestBody {
    inner: Body,
    in_flight: Arc<InFlight>,
}

impl RequestBody {
    /// Counts `inner` as part of `in_flight`.
    pub(super) fn wrap(inner: Body, in_flight: Arc<InFlight>) -> Body {
        Body::new(Self { inner, in_flight })
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && let Err(status) = self.in_flight.hold_request(data.len())
        {
            return Poll::Ready(Some(Err(status)));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The body of an answer that has no end of its own. It ends when the server drains, behind what is there to be said.
pub(super) struct LastingBody {
    inner: Body,
    /// Resolves when it is to end; nothing once it has resolved.
    drains: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    has_ended: bool,
}

impl LastingBody {
    /// Sends `inner` until `drains` resolves.
    pub(super) fn wrap(inner: Body, drains: impl Future<Output = ()> + Send + 'static) -> Body {
        Body::new(Self {
            inner,
            drains: Some(Box::pin(drains)),
            has_ended: false,
        })
    }
}

impl HttpBody for LastingBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        self.drains
            .take_if(|drains| drains.as_mut().poll(cx).is_ready());
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Pending if self.drains.is_none() => self.has_ended = true,
            polled => return polled,
        }
        let mut trailers = HeaderMap::new();
        Status::unavailable("the server is draining").add_header(&mut trailers)?;
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended || self.inner.is_end_stream()
    }
}

/// What is left of an answer. It keeps its request in flight.
struct Answer {
    inner: Body,
    rest: Bytes,
    _in_flight: Arc<InFlight>,
}

/// The answer, until it is given up.
type Slot = Mutex<Option<Answer>>;

/// The body of an answer.
pub(super) struct AnswerBody {
    slot: Arc<Slot>,
    /// The task that gives it up, for an answer that is worth one.
    watch: Option<AbortHandle>,
}

impl AnswerBody {
    /// Sends `inner` in pieces; keeps `in_flight` until the last one is taken.
    pub(super) fn wrap(inner: Body, in_flight: Arc<InFlight>) -> Body {
        let (held, time) = (in_flight.answer_bytes(), in_flight.answer_time());
        let answer = Answer {
            inner,
            rest: Bytes::new(),
            _in_flight: in_flight,
        };
        let slot = Arc::new(Mutex::new(Some(answer)));
        // One piece is the transport's: only longer answers wait here.
        let watch = (held > PIECE_LEN)
            .then(|| tokio::spawn(give_up(Arc::downgrade(&slot), time)).abort_handle());
        Body::new(Self { slot, watch })
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        if let Some(watch) = &self.watch {
            watch.abort();
        }
    }
}

fn lock(slot: &Slot) -> MutexGuard<'_, Option<Answer>> {
    // An answer whose encoding panicked is as good as its next piece.
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Drops an answer that has not been taken after `time`. Nobody else would: the transport does not
/// ask for more while the client has no room.
async fn give_up(slot: Weak<Slot>, time: Duration) {
    tokio::time::sleep(time).await;
    if let Some(slot) = slot.upgrade() {
        lock(&slot).take();
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut slot = lock(&self.slot);
        let Some(answer) = slot.as_mut() else {
            let status = Status::deadline_exceeded("the answer was not taken in time");
            return Poll::Ready(Some(Err(status)));
        };
        if answer.rest.is_empty() {
            let frame = ready!(Pin::new(&mut answer.inner).poll_frame(cx));
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => answer.rest = data,
                Some(Ok(Err(trailers))) => return Poll::Ready(Some(Ok(trailers))),
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                None => return Poll::Ready(None),
            }
        }
        let piece_len = PIECE_LEN.min(answer.rest.len());
        Poll::Ready(Some(Ok(Frame::data(answer.rest.split_to(piece_len)))))
    }

    fn is_end_stream(&self) -> bool {
        let slot = lock(&self.slot);
        slot.as_ref()
            .is_some_and(|answer| answer.rest.is_empty() && answer.inner.is_end_stream())
    }
}
