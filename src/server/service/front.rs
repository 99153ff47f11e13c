//! `Front`: what a request meets first. Gets, puts and deletes of one key go the quick way, all others through tonic.
//!
//! ```text
//! request --> admission --> one whole message, and its end? --yes--> TinyKvService --> one frame, trailers
//!                                     |
//!                                     no --> what was read is put back --> tonic's routes
//! ```
//! tonic's way takes a request through a dozen layers, each with a future and most with an allocation, and two buffers of 8 KiB: more
//! than a put costs otherwise. The quick way takes what every client sends: an uncompressed message in one frame, and
//! its end. Whatever is long, compressed, malformed or otherwise odd is tonic's to answer.
//!
//! Promises: both ways answer alike; both pass the same admission, once, before anything of a request is looked at: who is
//! refused there is refused on both. What goes the quick way is what admission let in under that name, and the handlers
//! that ask for rights on keys are the same.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::http::{self, HeaderMap, HeaderValue, header::CONTENT_TYPE};
use basalt_proto::kvrpcpb::{RawDeleteRequest, RawGetRequest, RawPutRequest};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use hyper::body::Incoming;
use prost::Message;
use tonic::{Code, Status, body::Body, service::Routes};

use super::{
    admission::{Admission, Admitted, InFlight},
    bodies::AnswerBody,
    tinykv::{TinyKvService, delete_answer, put_answer},
};
use crate::{limits::REQUEST_BASE_LEN, storage::BoxFuture};

/// Bytes before a message: whether it is compressed, and its length.
const PREFIX_LEN: usize = 5;

/// Answers requests.
pub(crate) struct Front {
    tinykv: Arc<TinyKvService>,
    admission: Arc<Admission>,
    routes: Routes,
}

impl Front {
    /// The quick way to `tinykv`, and the other one to all `routes`.
    pub(crate) fn new(
        tinykv: Arc<TinyKvService>,
        admission: Arc<Admission>,
        routes: Routes,
    ) -> Self {
        Self {
            tinykv,
            routes: routes.prepare(),
            admission,
        }
    }

    /// What a request is answered. It is boxed, as a request is long, and a future has what it is handed more than once.
    pub(crate) async fn answer(
        self: Arc<Self>,
        request: Box<http::Request<Incoming>>,
    ) -> Result<http::Response<FrontBody>, Infallible> {
        let admitted = match self.admission.admit(&request) {
            Ok(admitted) => admitted,
            Err(status) => return Ok(status.into_http()),
        };
        let Some(method) = Quick::of(&admitted.in_flight, &request) else {
            return self.by_routes(request.map(Body::new), admitted).await;
        };
        let handled = self.quickly(method, request, &admitted.in_flight);
        match admitted.in_time(handled).await {
            Ok(Done::Answer(data)) => {
                let in_flight = admitted.end(Code::Ok);
                let mut response = http::Response::new(FrontBody::of(data, in_flight));
                let kind = HeaderValue::from_static("application/grpc");
                response.headers_mut().insert(CONTENT_TYPE, kind);
                Ok(response)
            }
            Ok(Done::Odd(request)) => self.by_routes(*request, admitted).await,
            Err(status) => {
                admitted.end(status.code());
                Ok(status.into_http())
            }
        }
    }

    /// Boxed: it is larger by far than what the quick way needs.
    fn by_routes(
        &self,
        request: http::Request<Body>,
        admitted: Admitted,
    ) -> BoxFuture<'static, Result<http::Response<FrontBody>, Infallible>> {
        let answer = admitted.through(self.routes.clone(), request);
        Box::pin(async move { Ok(answer.await.map(FrontBody::Routes)) })
    }

    async fn quickly(
        &self,
        method: Quick,
        mut request: Box<http::Request<Incoming>>,
        in_flight: &InFlight,
    ) -> Result<Done, Status> {
        let mut read = Read::default();
        std::future::poll_fn(|cx| read.poll(request.body_mut(), cx)).await;
        let Some(asked) = read.message().and_then(|message| method.decode(message)) else {
            let request = request.map(|rest| Body::new(Whole { read, rest }));
            return Ok(Done::Odd(Box::new(request)));
        };
        in_flight.has_arrived();
        in_flight.hold_request(read.first.as_ref().map_or(0, Bytes::len))?;
        drop((request, read));
        let writing = match asked {
            Asked::Get(request) => {
                let answer = match self.tinykv.get_at_once(in_flight, &request) {
                    Some(answer) => answer?,
                    None => Box::pin(self.tinykv.get_slowly(in_flight, request)).await?,
                };
                return Ok(Done::Answer(framed(&answer)));
            }
            Asked::Put(request) => self.tinykv.put(in_flight, request)?,
            Asked::Delete(request) => self.tinykv.delete(in_flight, request)?,
        };
        let done = writing.await;
        Ok(Done::Answer(match method {
            Quick::Delete => framed(&delete_answer(done)?),
            _ => framed(&put_answer(done)?),
        }))
    }
}

/// A message as it goes on the wire.
fn framed(message: &impl Message) -> Bytes {
    let len = message.encoded_len();
    if len == 0 {
        return Bytes::from_static(&[0; PREFIX_LEN]);
    }
    let mut bytes = Vec::with_capacity(PREFIX_LEN + len);
    let len = u32::try_from(len).expect("answers are shorter than 4 GiB");
    bytes.push(0);
    bytes.extend_from_slice(&len.to_be_bytes());
    message
        .encode(&mut bytes)
        .expect("a vector takes everything");
    Bytes::from(bytes)
}

/// What has become of a request on the quick way.
enum Done {
    /// Its answer, as it goes on the wire.
    Answer(Bytes),
    /// It is tonic's to answer, and whole again.
    Odd(Box<http::Request<Body>>),
}

/// What goes the quick way.
#[derive(Clone, Copy)]
enum Quick {
    Get,
    Put,
    Delete,
}

impl Quick {
    /// `None` for everything that is tonic's: other methods, and headers that say something special.
    fn of<B>(in_flight: &InFlight, request: &http::Request<B>) -> Option<Self> {
        let method = match in_flight.method() {
            "RawGet" => Self::Get,
            "RawPut" => Self::Put,
            "RawDelete" => Self::Delete,
            _ => return None,
        };
        let headers = request.headers();
        let is_grpc = headers.get(CONTENT_TYPE)?.as_bytes() == b"application/grpc";
        let is_plain = !headers.contains_key("grpc-encoding");
        (is_grpc && is_plain && request.method() == http::Method::POST).then_some(method)
    }

    fn decode(self, message: Bytes) -> Option<Asked> {
        match self {
            Self::Get => RawGetRequest::decode(message).ok().map(Asked::Get),
            Self::Put => RawPutRequest::decode(message).ok().map(Asked::Put),
            Self::Delete => RawDeleteRequest::decode(message).ok().map(Asked::Delete),
        }
    }
}

/// A request's message.
enum Asked {
    Get(RawGetRequest),
    Put(RawPutRequest),
    Delete(RawDeleteRequest),
}

/// What was read of a body.
#[derive(Default)]
struct Read {
    /// Its first bytes.
    first: Option<Bytes>,
    /// What came behind them that was neither nothing nor the end.
    odd: Option<Box<Result<Frame<Bytes>, hyper::Error>>>,
    has_ended: bool,
}

impl Read {
    /// Reads up to the end, or to anything odd.
    fn poll(&mut self, body: &mut Incoming, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                None => self.has_ended = true,
                Some(Ok(frame)) if frame.data_ref().is_some_and(Bytes::is_empty) => continue,
                Some(Ok(frame)) if self.first.is_none() && frame.is_data() => {
                    self.first = frame.into_data().ok();
                    if self.whole().is_some() {
                        continue;
                    }
                }
                Some(odd) => self.odd = Some(Box::new(odd)),
            }
            return Poll::Ready(());
        }
    }

    /// The message, where it is all there is.
    fn message(&self) -> Option<Bytes> {
        self.whole().filter(|_| self.has_ended)
    }

    /// The message, where the first bytes are one, uncompressed.
    fn whole(&self) -> Option<Bytes> {
        let first = self.first.as_ref()?;
        let (prefix, message) = first.split_first_chunk::<PREFIX_LEN>()?;
        let [0, length @ ..] = *prefix else {
            return None;
        };
        let is_whole = usize::try_from(u32::from_be_bytes(length)) == Ok(message.len());
        is_whole.then(|| first.slice(PREFIX_LEN..))
    }
}

/// A body of which some was read, as if nothing had been.
struct Whole {
    read: Read,
    rest: Incoming,
}

impl HttpBody for Whole {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(first) = self.read.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if let Some(odd) = self.read.odd.take() {
            return Poll::Ready(Some(*odd));
        }
        if self.read.has_ended {
            return Poll::Ready(None);
        }
        Pin::new(&mut self.rest).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        let is_told = self.read.first.is_none() && self.read.odd.is_none();
        is_told && (self.read.has_ended || self.rest.is_end_stream())
    }
}

/// The body of an answer.
pub(crate) enum FrontBody {
    /// A message and its trailers. It keeps its request in flight.
    Quick {
        data: Option<Bytes>,
        has_ended: bool,
        _in_flight: Arc<InFlight>,
    },
    /// tonic's, or a long one.
    Routes(Body),
}

impl FrontBody {
    fn of(data: Bytes, in_flight: Arc<InFlight>) -> Self {
        let is_long = data.len() > REQUEST_BASE_LEN;
        let quick = Self::Quick {
            data: Some(data),
            has_ended: false,
            _in_flight: Arc::clone(&in_flight),
        };
        if is_long {
            // In pieces, and given up where nobody takes it.
            return Self::Routes(AnswerBody::wrap(Body::new(quick), in_flight));
        }
        quick
    }
}

impl Default for FrontBody {
    /// Of an answer that is all headers.
    fn default() -> Self {
        Self::Routes(Body::default())
    }
}

impl HttpBody for FrontBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match &mut *self {
            Self::Quick {
                data, has_ended, ..
            } => Poll::Ready(if let Some(data) = data.take() {
                Some(Ok(Frame::data(data)))
            } else if std::mem::replace(has_ended, true) {
                None
            } else {
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
                Some(Ok(Frame::trailers(trailers)))
            }),
            Self::Routes(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Quick { has_ended, .. } => *has_ended,
            Self::Routes(body) => body.is_end_stream(),
        }
    }
}
