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
//! Nor has health a share of the budgets: whoever is let in to nothing else may ask for it, and would lock all others out. Its
//! streams are counted for themselves. They, and those of reflection, end when the server drains.
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
    time::{Duration, Instant},
};

use axum::http;
use tokio::sync::watch;
use tonic::{Code, Status, body::Body};

use super::{
    bodies::{AnswerBody, LastingBody, RequestBody},
    gate::Gate,
    method::{Kind, Method},
};
use crate::{
    auth::{Refusal, Right, Who},
    insight::{SlowRequest, now_ms},
    limits::{MAX_HEALTH_WATCHES, REQUEST_BASE_LEN},
    metrics::{Metrics, code_name},
    serve::told_to_stop,
};

/// Bytes, or what else there is, that may be in flight together.
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

/// How much may be in flight, and for how long: by default nothing, as the table of settings says how much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

/// What all requests of a server share.
#[derive(Debug)]
pub struct Admission {
    draining: AtomicBool,
    /// The same for those who wait for it.
    drains: watch::Sender<bool>,
    requests: Budget,
    answers: Budget,
    /// Streams of health.
    watches: Budget,
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
            drains: watch::Sender::new(false),
            requests: Budget::new(budgets.request_bytes),
            answers: Budget::new(budgets.answer_bytes),
            watches: Budget::new(MAX_HEALTH_WATCHES),
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

    /// From now on requests of TinyKV's service are refused, and streams that would last are ended.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.drains.send_replace(true);
    }

    /// Requests of clients that are being worked on, but for those of health.
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
    pub(crate) fn admit<B>(
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
        if method.is_tinykv && method.kind != Kind::Peer && self.is_draining() {
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
        if method.kind == Kind::Watch && !self.watches.take(1) {
            return Err(Status::resource_exhausted(
                "too many watches of health; ask with Check",
            ));
        }
        let in_flight = InFlight {
            admission: Arc::clone(self),
            request_bytes: AtomicUsize::new(0),
            answer_bytes: AtomicUsize::new(0),
            kind: method.kind,
            method: method.name,
            arrived: OnceLock::new(),
            who,
            deadline,
        };
        if method.kind.is_in_flight() {
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
pub(crate) struct Admitted {
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

    /// What `service` answers, with everything that is to be done for a request before and after.
    pub(crate) async fn through<S>(
        self,
        mut service: S,
        mut request: http::Request<Body>,
    ) -> http::Response<Body>
    where
        S: tower::Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    {
        let in_flight = Arc::clone(&self.in_flight);
        let kind = in_flight.kind;
        let drains = in_flight.admission.drains.subscribe();
        request.extensions_mut().insert(Arc::clone(&in_flight));
        if kind.is_in_flight() {
            request = request.map(|inner| RequestBody::wrap(inner, in_flight));
        }
        let handled = async {
            let Ok(response) = service.call(request).await;
            Ok(response)
        };
        let response = self.in_time(handled).await;
        let response = name_malformed(response.unwrap_or_else(Status::into_http));
        let in_flight = self.end(code_of(&response));
        response.map(|inner| {
            let inner = match kind.lasts() {
                true => LastingBody::wrap(inner, told_to_stop(drains)),
                false => inner,
            };
            AnswerBody::wrap(inner, in_flight)
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
    kind: Kind,
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
    /// When the service stands without admission before it.
    #[must_use]
    pub fn of(extensions: &http::Extensions) -> Arc<Self> {
        let in_flight = extensions
            .get::<Arc<Self>>()
            .expect("services stand behind `Admission`");
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

    /// Whether the caller has a right on every key of a range, `end` excluded (empty: to the last key).
    ///
    /// # Errors
    ///
    /// `PERMISSION_DENIED`, noted in the audit log.
    pub fn allow_range(
        &self,
        right: Right,
        cf: &str,
        (start, end): (&[u8], &[u8]),
    ) -> Result<(), Status> {
        match &self.who {
            Some(who) if !who.may_range(right, cf, start, end) => {
                Err(self.refusal(who).right(right, cf))
            }
            _ => Ok(()),
        }
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
        if self.kind.is_in_flight() {
            self.admission.metrics.in_flight.dec();
        }
        if self.kind == Kind::Watch {
            self.admission.watches.give_back(1);
        }
    }
}

fn too_many_requests() -> Status {
    Status::resource_exhausted("too many bytes of requests in flight; try again later")
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
            is_peer: method.kind == Kind::Peer,
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
        self.metrics.insight.on_slow(SlowRequest {
            at_ms: now_ms(),
            method: self.method,
            code: code_name(code),
            took_ms: millis(took),
            arriving_ms: millis(arriving),
            working_ms: millis(took.saturating_sub(arriving)),
            request_bytes,
            answer_bytes,
        });
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
