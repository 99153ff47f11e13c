//! Admission: what every request passes before its handler, and every answer on its way out.
//!
//! ```text
//! request --> draining? --> known and allowed? --> in flight --> deadline --> handler --> count, log --> answer
//!                 |                |                   |             |
//!            UNAVAILABLE  UNAUTHENTICATED,   RESOURCE_EXHAUSTED  DEADLINE_EXCEEDED
//!                         PERMISSION_DENIED
//! ```
//! Promises: the bytes of requests being read and answers not yet taken stay within two budgets; a
//! request with a deadline is answered by it; bytes that are no protobuf message of the method are
//! the client's mistake (`INVALID_ARGUMENT`), as they can be nothing else.
//!
//! Streams between stores last as long as both do: they have no deadline and no share of the budgets, and they go on
//! while the server drains, as its last writes need them. Their own bounds are those of the store behind them.
//!
//! Without certificates and a file of rights nobody is asked who he is, and it costs one look at that (`Gate`).
//!
//! Not here: limits of keys and values (`tinykv`), connections (`listen`), HTTP/2 (`serve`).

use std::{
    convert::Infallible,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::http;
use tonic::{Code, Status, body::Body};

use super::{
    bodies::{AnswerBody, RequestBody},
    gate::Gate,
    method::Method,
};
use crate::{
    auth::{Refusal, Right, Who},
    limits::{
        ANSWER_TIMEOUT, DEFAULT_DEADLINE, MAX_ANSWER_BYTES_IN_FLIGHT, MAX_REQUEST_BYTES_IN_FLIGHT,
        MAX_REQUESTS_IN_FLIGHT, REQUEST_BASE_LEN, SLOW_REQUEST,
    },
    metrics::{Metrics, code_name},
    storage::BoxFuture,
};

/// Bytes that may be in flight together.
#[derive(Debug)]
struct Budget {
    used: AtomicUsize,
    limit: AtomicUsize,
}

impl Budget {
    fn new(limit: usize) -> Self {
        Self {
            used: AtomicUsize::new(0),
            limit: AtomicUsize::new(limit),
        }
    }

    fn take(&self, len: usize) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        let grown = |used: usize| used.checked_add(len).filter(|sum| *sum <= limit);
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budgets {
    /// Requests of clients.
    pub requests: usize,
    /// Bytes of all requests together.
    pub request_bytes: usize,
    /// Bytes of all answers that clients have not taken.
    pub answer_bytes: usize,
    /// Time for a request that states no deadline.
    pub request_time: Duration,
    /// Time a client has to take an answer of some size.
    pub answer_time: Duration,
    /// Requests that take longer are logged.
    pub slow_time: Duration,
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            requests: MAX_REQUESTS_IN_FLIGHT,
            request_bytes: MAX_REQUEST_BYTES_IN_FLIGHT,
            answer_bytes: MAX_ANSWER_BYTES_IN_FLIGHT,
            request_time: DEFAULT_DEADLINE,
            answer_time: ANSWER_TIMEOUT,
            slow_time: SLOW_REQUEST,
        }
    }
}

/// What all requests of a server share.
#[derive(Debug)]
pub struct Admission {
    draining: AtomicBool,
    requests: Budget,
    answers: Budget,
    max_requests: AtomicUsize,
    request_time: Time,
    answer_time: Time,
    slow_time: Time,
    /// Who is let in; nothing where everybody is.
    gate: Option<Gate>,
    metrics: Arc<Metrics>,
}

/// A duration that may change.
#[derive(Debug)]
struct Time(AtomicU64);

impl Time {
    fn new(time: Duration) -> Self {
        let own = Self(AtomicU64::new(0));
        own.set(time);
        own
    }

    fn set(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.0.store(nanos, Ordering::Relaxed);
    }

    fn get(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

impl Admission {
    /// Counts in `metrics`.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, budgets: Budgets) -> Self {
        Self {
            draining: AtomicBool::new(false),
            requests: Budget::new(budgets.request_bytes),
            answers: Budget::new(budgets.answer_bytes),
            max_requests: AtomicUsize::new(budgets.requests),
            request_time: Time::new(budgets.request_time),
            answer_time: Time::new(budgets.answer_time),
            slow_time: Time::new(budgets.slow_time),
            gate: None,
            metrics,
        }
    }

    /// Lets in whom `gate` does.
    #[must_use]
    pub fn behind(mut self, gate: Option<Gate>) -> Self {
        self.gate = gate;
        self
    }

    /// From now on these are the budgets. What is in flight beyond them ends as it would.
    pub fn adjust(&self, budgets: &Budgets) {
        let set = |budget: &Budget, limit| budget.limit.store(limit, Ordering::Relaxed);
        set(&self.requests, budgets.request_bytes);
        set(&self.answers, budgets.answer_bytes);
        self.max_requests.store(budgets.requests, Ordering::Relaxed);
        self.request_time.set(budgets.request_time);
        self.answer_time.set(budgets.answer_time);
        self.slow_time.set(budgets.slow_time);
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

    /// What is counted.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Lets a request in, and begins to count it. Every way to a handler begins here.
    ///
    /// # Errors
    ///
    /// Why it is refused; that is counted already, and in the audit log where it is for who asks.
    pub(super) fn admit<B>(
        self: &Arc<Self>,
        request: &http::Request<B>,
    ) -> Result<Admitted, Status> {
        let method = Method::of(request.uri().path());
        let mut outcome = Outcome::begin(&method, self);
        let deadline = method.deadline(request.headers(), self.request_time.get());
        match self.take_in(&method, request, deadline) {
            Ok(in_flight) => Ok(Admitted {
                in_flight,
                outcome,
                deadline,
            }),
            Err(status) => {
                outcome.end(status.code(), None);
                Err(status)
            }
        }
    }

    fn take_in<B>(
        self: &Arc<Self>,
        method: &Method,
        request: &http::Request<B>,
        deadline: Option<Instant>,
    ) -> Result<Arc<InFlight>, Status> {
        if method.is_tinykv && !method.is_peer && self.is_draining() {
            return Err(Status::unavailable(
                "the server is draining and takes no more requests",
            ));
        }
        let who = match &self.gate {
            None => None,
            Some(gate) => gate.admit(method.name, method.need(), request)?,
        };
        // A deadline has to be some moment; an hour is none to wait for.
        let deadline = deadline.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
        let in_flight = InFlight {
            admission: Arc::clone(self),
            request_bytes: AtomicUsize::new(0),
            answer_bytes: AtomicUsize::new(0),
            is_peer: method.is_peer,
            method: method.name,
            arrived: OnceLock::new(),
            who,
            deadline,
        };
        if !method.is_peer {
            let before = self.metrics.in_flight.inc();
            let limit = self.max_requests.load(Ordering::Relaxed);
            // Whoever looks what is wrong is let in.
            if method.is_tinykv && usize::try_from(before).is_ok_and(|before| before >= limit) {
                return Err(Status::resource_exhausted(
                    "too many requests in flight; try again later",
                ));
            }
            in_flight.hold_request(REQUEST_BASE_LEN)?;
        }
        Ok(Arc::new(in_flight))
    }
}

/// A request that was let in.
pub(super) struct Admitted {
    /// Its share of the budgets, and who asks.
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
        self.outcome.end(code, Some(&self.in_flight));
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
    /// A name of our own.
    method: &'static str,
    /// When its message was there, whole.
    arrived: OnceLock<Instant>,
    /// Who asks; nothing where nobody is asked that.
    who: Option<Arc<Who>>,
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
        let in_flight = extensions
            .get::<Arc<Self>>()
            .expect("services stand behind `AdmissionLayer`");
        // A handler asks once, when it has the message.
        in_flight.has_arrived();
        Arc::clone(in_flight)
    }

    /// Its message is there, whole.
    pub(super) fn has_arrived(&self) {
        // It arrives once.
        let _ = self.arrived.set(Instant::now());
    }

    /// The method that it was let in to.
    pub(super) fn method(&self) -> &'static str {
        self.method
    }

    /// Whether the caller has a right on a key.
    ///
    /// # Errors
    ///
    /// `PERMISSION_DENIED`, noted in the audit log.
    pub fn allow(&self, right: Right, cf: &str, key: &[u8]) -> Result<(), Status> {
        match &self.who {
            None => Ok(()),
            Some(who) if who.may(right, cf, key) => Ok(()),
            Some(who) => Err(self.refusal(who).right(right, cf)),
        }
    }

    /// Where a scan has to end that begins at `start`; nothing where it may go on.
    ///
    /// # Errors
    ///
    /// `PERMISSION_DENIED` where it begins outside of what the caller may read, noted in the audit log.
    pub fn allow_scan(&self, cf: &str, start: &[u8]) -> Result<Option<Vec<u8>>, Status> {
        let Some(who) = &self.who else {
            return Ok(None);
        };
        let end = who.scan_end(cf, start);
        end.ok_or_else(|| self.refusal(who).right(Right::Read, cf))
    }

    fn refusal<'a>(&self, who: &'a Who) -> Refusal<'a> {
        Refusal {
            method: self.method,
            who: Some(who.name()),
            remote: None,
        }
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
        self.admission.answer_time.get()
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
    slow_time: Duration,
    metrics: Arc<Metrics>,
    ended: bool,
}

impl Outcome {
    fn begin(method: &Method, admission: &Admission) -> Self {
        Self {
            method: method.name,
            is_peer: method.is_peer,
            began: Instant::now(),
            slow_time: admission.slow_time.get(),
            metrics: Arc::clone(&admission.metrics),
            ended: false,
        }
    }

    fn end(&mut self, code: Code, in_flight: Option<&InFlight>) {
        self.ended = true;
        if self.is_peer {
            return;
        }
        let took = self.began.elapsed();
        self.metrics.on_request(self.method, code, took);
        if took >= self.slow_time {
            self.log_slow(code, took, in_flight);
        }
    }
}

impl Outcome {
    #[cold]
    fn log_slow(&self, code: Code, took: Duration, in_flight: Option<&InFlight>) {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let arrived = in_flight.and_then(|request| request.arrived.get());
        let arriving = arrived.map_or(took, |arrived| arrived.duration_since(self.began));
        let request_bytes =
            in_flight.map_or(0, |request| request.request_bytes.load(Ordering::Relaxed));
        let answer_bytes = in_flight.map_or(0, InFlight::answer_bytes);
        tracing::warn!(
            method = self.method,
            code = code_name(code),
            millis = millis(took),
            arriving_millis = millis(arriving),
            working_millis = millis(took.saturating_sub(arriving)),
            request_bytes,
            answer_bytes,
            "slow request"
        );
    }
}

impl Drop for Outcome {
    fn drop(&mut self) {
        if !self.ended {
            self.end(Code::Cancelled, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
