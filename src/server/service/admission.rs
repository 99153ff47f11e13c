//! Admission: what every request passes before its handler, and every answer on its way out.
//!
//! ```text
//! request --> draining? --> bytes in flight --> deadline --> handler --> count, log --> answer
//!                 |               |                |
//!            UNAVAILABLE  RESOURCE_EXHAUSTED  DEADLINE_EXCEEDED
//! ```
//! Promises: the bytes of requests being read and answers not yet taken stay within two budgets; a
//! request with a deadline is answered by it; bytes that are no protobuf message of the method are
//! the client's mistake (`INVALID_ARGUMENT`), as they can be nothing else.
//!
//! Streams between stores last as long as both do: they have no deadline and no share of the budgets, and they go on
//! while the server drains, as its last writes need them. Their own bounds are those of the store behind them.
//!
//! Not here: limits of keys and values (`tinykv`), connections (`listen`), HTTP/2 (`serve`).

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::http;
use tonic::{Code, Status, body::Body};

use super::bodies::{AnswerBody, RequestBody};
use crate::{
    limits::{
        ANSWER_TIMEOUT, DEFAULT_DEADLINE, MAX_ANSWER_BYTES_IN_FLIGHT, MAX_REQUEST_BYTES_IN_FLIGHT,
        REQUEST_BASE_LEN, SLOW_REQUEST,
    },
    metrics::{Metrics, code_name},
    storage::BoxFuture,
};

/// The transport answers `CANCELLED` at a client's own deadline; ours comes this much earlier.
const DEADLINE_MARGIN: Duration = Duration::from_millis(2);

/// Bytes that may be in flight together.
#[derive(Debug)]
struct Budget {
    used: AtomicUsize,
    limit: usize,
}

impl Budget {
    fn new(limit: usize) -> Self {
        Self {
            used: AtomicUsize::new(0),
            limit,
        }
    }

    fn take(&self, len: usize) -> bool {
        let grown = |used: usize| used.checked_add(len).filter(|sum| *sum <= self.limit);
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown)
            .is_ok()
    }

    fn give_back(&self, len: usize) {
        let before = self.used.fetch_sub(len, Ordering::Relaxed);
        assert!(before >= len, "gave back {len} bytes of {before}");
    }
}

/// How much may be in flight, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Budgets {
    /// Bytes of all requests together.
    pub request_bytes: usize,
    /// Bytes of all answers that clients have not taken.
    pub answer_bytes: usize,
    /// Time a client has to take an answer of some size.
    pub answer_time: Duration,
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            request_bytes: MAX_REQUEST_BYTES_IN_FLIGHT,
            answer_bytes: MAX_ANSWER_BYTES_IN_FLIGHT,
            answer_time: ANSWER_TIMEOUT,
        }
    }
}

/// What all requests of a server share.
#[derive(Debug)]
pub struct Admission {
    draining: AtomicBool,
    requests: Budget,
    answers: Budget,
    answer_time: Duration,
    metrics: Arc<Metrics>,
}

impl Admission {
    /// Counts in `metrics`.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, budgets: Budgets) -> Self {
        Self {
            draining: AtomicBool::new(false),
            requests: Budget::new(budgets.request_bytes),
            answers: Budget::new(budgets.answer_bytes),
            answer_time: budgets.answer_time,
            metrics,
        }
    }

    /// From now on requests of TinyKV's service are refused.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Requests of clients that are being worked on.
    #[must_use]
    pub fn in_flight(&self) -> i64 {
        self.metrics.in_flight.get()
    }

    /// True once [`Admission::drain`] was called.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Lets a request in, and begins to count it.
    ///
    /// # Errors
    ///
    /// Why it is refused; that is counted already.
    pub(super) fn admit<B>(
        self: &Arc<Self>,
        request: &http::Request<B>,
    ) -> Result<Admitted, Status> {
        let method = Method::of(request.uri().path());
        let mut outcome = Outcome::begin(&method, Arc::clone(&self.metrics));
        let deadline = method.deadline(request.headers());
        match self.take_in(&method, deadline) {
            Ok(in_flight) => Ok(Admitted {
                in_flight,
                outcome,
                deadline,
            }),
            Err(status) => {
                outcome.end(status.code());
                Err(status)
            }
        }
    }

    fn take_in(
        self: &Arc<Self>,
        method: &Method,
        deadline: Option<Instant>,
    ) -> Result<Arc<InFlight>, Status> {
        if method.is_tinykv && !method.is_peer && self.is_draining() {
            return Err(Status::unavailable(
                "the server is draining and takes no more requests",
            ));
        }
        // A deadline has to be some moment; an hour is none to wait for.
        let deadline = deadline.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
        let in_flight = InFlight {
            admission: Arc::clone(self),
            request_bytes: AtomicUsize::new(0),
            answer_bytes: AtomicUsize::new(0),
            is_peer: method.is_peer,
            deadline,
        };
        if !method.is_peer {
            self.metrics.in_flight.inc();
            in_flight.hold_request(REQUEST_BASE_LEN)?;
        }
        Ok(Arc::new(in_flight))
    }
}

/// A request that was let in.
pub(super) struct Admitted {
    /// Its share of the budgets.
    pub(super) in_flight: Arc<InFlight>,
    outcome: Outcome,
    deadline: Option<Instant>,
}

impl Admitted {
    /// What `handler` answers, by the deadline at the latest.
    pub(super) async fn in_time<T>(
        &self,
        handler: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        let Some(deadline) = self.deadline else {
            return handler.await;
        };
        let in_time = tokio::time::timeout_at(deadline.into(), handler).await;
        in_time.unwrap_or_else(|_| {
            Err(Status::deadline_exceeded(
                "the deadline passed; whether a write was done is open",
            ))
        })
    }

    /// Counts and logs how it ended; its share of the budgets is held on to until its answer was taken.
    pub(super) fn end(mut self, code: Code) -> Arc<InFlight> {
        self.outcome.end(code);
        self.in_flight
    }
}

/// One request in flight; handlers find it in the request's extensions.
#[derive(Debug)]
pub struct InFlight {
    admission: Arc<Admission>,
    request_bytes: AtomicUsize,
    answer_bytes: AtomicUsize,
    /// A stream of another store.
    is_peer: bool,
    /// When the client stops waiting.
    pub deadline: Instant,
}

impl InFlight {
    /// The request in flight that carries `extensions`.
    ///
    /// # Panics
    ///
    /// When the service stands without the admission layer.
    #[must_use]
    pub fn of(extensions: &http::Extensions) -> Arc<Self> {
        Arc::clone(
            extensions
                .get::<Arc<Self>>()
                .expect("services stand behind `AdmissionLayer`"),
        )
    }

    /// Counts an answer of `len` bytes until the client has taken it. A short one is part of what
    /// its request counts for, so that it goes out although long ones wait.
    ///
    /// # Errors
    ///
    /// `RESOURCE_EXHAUSTED` when too many answers wait for their clients.
    pub fn hold_answer(&self, len: usize) -> Result<(), Status> {
        if len <= REQUEST_BASE_LEN {
            return Ok(());
        }
        if !self.admission.answers.take(len) {
            return Err(Status::resource_exhausted(
                "too many bytes of answers wait for their clients; try again later",
            ));
        }
        self.answer_bytes.fetch_add(len, Ordering::Relaxed);
        Ok(())
    }

    /// Bytes that [`InFlight::hold_answer`] counts.
    pub(super) fn answer_bytes(&self) -> usize {
        self.answer_bytes.load(Ordering::Relaxed)
    }

    /// Time the client has to take the answer.
    pub(super) fn answer_time(&self) -> Duration {
        self.admission.answer_time
    }

    /// Counts `len` bytes of the request until it is answered.
    pub(super) fn hold_request(&self, len: usize) -> Result<(), Status> {
        if !self.admission.requests.take(len) {
            return Err(too_many_requests());
        }
        self.request_bytes.fetch_add(len, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.admission
            .requests
            .give_back(*self.request_bytes.get_mut());
        self.admission
            .answers
            .give_back(*self.answer_bytes.get_mut());
        if !self.is_peer {
            self.admission.metrics.in_flight.dec();
        }
    }
}

fn too_many_requests() -> Status {
    Status::resource_exhausted("too many bytes of requests in flight; try again later")
}

/// Puts [`Admission`] before the services of a server.
#[derive(Clone, Debug)]
pub struct AdmissionLayer(Arc<Admission>);

impl AdmissionLayer {
    /// A layer over shared state.
    #[must_use]
    pub fn new(admission: Arc<Admission>) -> Self {
        Self(admission)
    }
}

impl<S> tower::Layer<S> for AdmissionLayer {
    type Service = AdmissionService<S>;

    fn layer(&self, inner: S) -> AdmissionService<S> {
        AdmissionService {
            inner,
            admission: Arc::clone(&self.0),
        }
    }
}

/// A service behind [`Admission`].
#[derive(Clone, Debug)]
pub struct AdmissionService<S> {
    inner: S,
    admission: Arc<Admission>,
}

impl<S> tower::Service<http::Request<Body>> for AdmissionService<S>
where
    S: tower::Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match self.admission.admit(&request) {
            Ok(admitted) => self.go_on(request, admitted),
            Err(status) => Box::pin(std::future::ready(Ok(status.into_http()))),
        }
    }
}

impl<S> AdmissionService<S>
where
    S: tower::Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    /// The rest of [`tower::Service::call`], for a request that was let in already.
    pub(super) fn go_on(
        &mut self,
        mut request: http::Request<Body>,
        admitted: Admitted,
    ) -> BoxFuture<'static, Result<http::Response<Body>, Infallible>> {
        let in_flight = Arc::clone(&admitted.in_flight);
        request.extensions_mut().insert(Arc::clone(&in_flight));
        if !in_flight.is_peer {
            request = request.map(|inner| RequestBody::wrap(inner, in_flight));
        }
        let handler = self.inner.call(request);
        Box::pin(async move {
            let handled = async {
                let Ok(response) = handler.await;
                Ok(response)
            };
            let response = admitted.in_time(handled).await;
            let response = name_malformed(response.unwrap_or_else(Status::into_http));
            let in_flight = admitted.end(code_of(&response));
            Ok(response.map(|inner| AnswerBody::wrap(inner, in_flight)))
        })
    }
}

/// The method of a request as far as admission cares.
struct Method {
    /// A name of our own, never the client's text.
    name: &'static str,
    is_tinykv: bool,
    /// A stream between stores.
    is_peer: bool,
}

impl Method {
    fn of(path: &str) -> Self {
        let name = |known: &[&'static str], service: &str| {
            let method = path.strip_prefix(service)?;
            known.iter().copied().find(|name| *name == method)
        };
        if let Some(name) = name(&TINYKV_METHODS, "/tinykvpb.TinyKv/") {
            return Self {
                name,
                is_tinykv: true,
                is_peer: PEER_METHODS.contains(&name),
            };
        }
        let ours = name(&ADMIN_METHODS, "/basaltpb.Admin/");
        let ours = ours.or_else(|| name(&["Hello"], "/basaltpb.Peers/"));
        let name = ours.unwrap_or_else(|| {
            if path.starts_with("/grpc.health.") {
                "Health"
            } else if path.starts_with("/grpc.reflection.") {
                "Reflection"
            } else {
                "unknown"
            }
        });
        Self {
            name,
            is_tinykv: false,
            is_peer: false,
        }
    }

    /// When the client stops waiting: what it says, else ours. Maintenance and streams of the
    /// standard services may take as long as they take.
    fn deadline(&self, headers: &http::HeaderMap) -> Option<Instant> {
        if self.is_peer {
            return None;
        }
        let timeout = match headers
            .get("grpc-timeout")
            .and_then(|text| parse_timeout(text.as_bytes()))
        {
            Some(timeout) => timeout.saturating_sub(DEADLINE_MARGIN.min(timeout / 2)),
            None if self.is_tinykv => DEFAULT_DEADLINE,
            None => return None,
        };
        Instant::now().checked_add(timeout)
    }
}

const TINYKV_METHODS: [&str; 14] = [
    "RawGet",
    "RawPut",
    "RawDelete",
    "RawScan",
    "KvGet",
    "KvScan",
    "KvPrewrite",
    "KvCommit",
    "KvCheckTxnStatus",
    "KvBatchRollback",
    "KvResolveLock",
    "Raft",
    "Snapshot",
    "Coprocessor",
];

/// Those of them that other stores call.
const PEER_METHODS: [&str; 2] = ["Raft", "Snapshot"];

const ADMIN_METHODS: [&str; 7] = [
    "Status",
    "Flush",
    "Compact",
    "Members",
    "AddMember",
    "RemoveMember",
    "TransferLeader",
];

/// The time of a `grpc-timeout` header: up to eight digits and a unit. Anything else is no timeout.
fn parse_timeout(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits
        .iter()
        .fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Some(Duration::from_secs(count * 3600)),
        b'M' => Some(Duration::from_secs(count * 60)),
        b'S' => Some(Duration::from_secs(count)),
        b'm' => Some(Duration::from_millis(count)),
        b'u' => Some(Duration::from_micros(count)),
        b'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// The codec answers `INTERNAL` for bytes that are not the method's message; no handler of ours ran.
fn name_malformed(response: http::Response<Body>) -> http::Response<Body> {
    match response.extensions().get::<Status>() {
        Some(status)
            if status.code() == Code::Internal
                && status
                    .message()
                    .starts_with("failed to decode Protobuf message") =>
        {
            Status::invalid_argument(format!("malformed request: {}", status.message())).into_http()
        }
        _ => response,
    }
}

fn code_of(response: &http::Response<Body>) -> Code {
    match response.headers().get("grpc-status") {
        None => Code::Ok,
        Some(code) => Code::from_bytes(code.as_bytes()),
    }
}

/// Counts and logs how a request ended, also when its client went away.
struct Outcome {
    method: &'static str,
    /// It lasts as long as it takes: that is neither slow nor a latency.
    is_peer: bool,
    began: Instant,
    metrics: Arc<Metrics>,
    ended: bool,
}

impl Outcome {
    fn begin(method: &Method, metrics: Arc<Metrics>) -> Self {
        Self {
            method: method.name,
            is_peer: method.is_peer,
            began: Instant::now(),
            metrics,
            ended: false,
        }
    }

    fn end(&mut self, code: Code) {
        self.ended = true;
        if self.is_peer {
            return;
        }
        let took = self.began.elapsed();
        self.metrics.on_request(self.method, code, took);
        if took >= SLOW_REQUEST {
            let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(
                method = self.method,
                code = code_name(code),
                millis,
                "slow request"
            );
        }
    }
}

impl Drop for Outcome {
    fn drop(&mut self) {
        if !self.ended {
            self.end(Code::Cancelled);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_header_is_digits_and_a_unit_and_nothing_else() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("250m", Some(Duration::from_millis(250))),
            ("99999999u", Some(Duration::from_micros(99_999_999))),
            ("7n", Some(Duration::from_nanos(7))),
            ("0S", Some(Duration::ZERO)),
            ("", None),
            ("S", None),
            ("123456789S", None),
            ("-1S", None),
            ("1.5S", None),
            ("1s", None),
        ] {
            assert_eq!(parse_timeout(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn a_budget_gives_no_more_than_its_limit_and_takes_back_what_it_gave() {
        let budget = Budget::new(10);
        assert!(budget.take(7));
        assert!(!budget.take(4));
        assert!(!budget.take(usize::MAX));
        assert!(budget.take(3));
        budget.give_back(7);
        assert!(budget.take(7));
        assert!(!budget.take(1));
    }

    #[test]
    fn a_path_of_the_clients_own_is_counted_as_unknown() {
        assert_eq!(Method::of("/tinykvpb.TinyKv/RawGet").name, "RawGet");
        assert_eq!(Method::of("/basaltpb.Admin/Flush").name, "Flush");
        assert_eq!(Method::of("/grpc.health.v1.Health/Check").name, "Health");
        for path in [
            "/tinykvpb.TinyKv/RawGetx",
            "/tinykvpb.TinyKv/",
            "/x",
            "",
            "/basaltpb.Admin/RawGet",
        ] {
            assert_eq!(Method::of(path).name, "unknown", "{path}");
        }
    }
}
