//! Each limit of the settings, provoked: what is over it is refused at once and by name, and what is under it served.

use tokio::net::TcpStream;
use tonic::{Request, Streaming, metadata::MetadataValue};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_client::HealthClient,
};

use super::*;
use crate::config::Limits;

async fn limited(change: impl FnOnce(&mut Limits)) -> Fixture {
    let mut config = Config::default();
    change(&mut config.limits);
    Fixture::of(config).await
}

#[tokio::test]
async fn one_connection_too_many_is_closed_at_once() {
    let server = limited(|limits| limits.connections = 3).await;
    server.put("", b"k", b"v").await.unwrap();
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(TcpStream::connect(server.addr).await.unwrap());
    }
    // The listener takes connections in their order.
    let mut fourth = TcpStream::connect(server.addr).await.unwrap();
    let mut byte = [0];
    let read = tokio::time::timeout(Duration::from_secs(10), fourth.read(&mut byte)).await;
    assert_eq!(read.expect("closed").unwrap_or(0), 0);
    assert_eq!(
        server.get("", b"k").await.unwrap(),
        b"v",
        "the first goes on"
    );
}

#[tokio::test]
async fn headers_over_their_limit_are_refused_and_the_connection_lives() {
    let server = limited(|limits| limits.header_len = 4096).await;
    let ask = |len: usize| {
        let mut client = server.client();
        async move {
            let mut request = Request::new(RawGetRequest::default());
            let value = MetadataValue::try_from("x".repeat(len)).unwrap();
            request.metadata_mut().insert("x-long", value);
            client.raw_get(request).await
        }
    };
    assert!(ask(3000).await.is_ok());
    assert!(ask(5000).await.is_err());
    assert!(ask(3000).await.is_ok());
}

/// Requests whose messages do not end.
async fn hold(server: &Fixture, count: usize) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for _ in 0..count {
        held.push(super::hostile::half_a_request(server.addr).await);
    }
    held
}

#[tokio::test]
async fn one_request_too_many_is_refused_early_and_whoever_looks_is_let_in() {
    let server = limited(|limits| limits.budgets.requests = 4).await;
    let held = hold(&server, 4).await;
    let admission = &server.server.admission;
    while admission.in_flight() < 4 {
        tokio::task::yield_now().await;
    }
    let began = Instant::now();
    let status = server.raw_get("", b"k").await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("too many requests"), "{status}");
    assert!(began.elapsed() < Duration::from_secs(5), "it does not wait");
    server.admin().status(StatusRequest {}).await.unwrap();
    drop(held);
    while server.raw_get("", b"k").await.is_err() {
        tokio::task::yield_now().await;
    }
}

/// Streams of health that stay open.
async fn watch(server: &Fixture, count: usize) -> Vec<Streaming<HealthCheckResponse>> {
    let mut health = HealthClient::new(server.channel.clone());
    let mut watches = Vec::new();
    for _ in 0..count {
        let watch = health.watch(HealthCheckRequest::default()).await.unwrap();
        let mut watch = watch.into_inner();
        let told = watch.message().await.unwrap().unwrap();
        assert_eq!(told.status(), ServingStatus::Serving);
        watches.push(watch);
    }
    watches
}

#[tokio::test]
async fn those_who_watch_health_take_no_room_from_requests() {
    let server = limited(|limits| {
        limits.budgets.requests = 2;
        limits.budgets.request_bytes = 3 * limits::REQUEST_BASE_LEN;
    })
    .await;
    let watches = watch(&server, 8).await;
    assert_eq!(server.server.admission.in_flight(), 0);
    assert_eq!(server.put("", b"k", b"v").await.unwrap(), "");
    assert_eq!(server.get("", b"k").await.unwrap(), b"v");
    drop(watches);
}

#[tokio::test]
async fn watches_of_health_have_a_limit_of_their_own_and_questions_go_on() {
    let server = Fixture::new().await;
    let admission = &server.server.admission;
    let request = |method: &str| {
        let request = axum::http::Request::post(format!("/grpc.health.v1.Health/{method}"));
        request.body(()).unwrap()
    };
    let mut open = Vec::new();
    for _ in 0..limits::MAX_HEALTH_WATCHES {
        open.push(admission.admit(&request("Watch")).unwrap());
    }
    let refused = admission.admit(&request("Watch")).err().unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(admission.admit(&request("Check")).is_ok());
    open.pop();
    assert!(admission.admit(&request("Watch")).is_ok());
}

#[tokio::test]
async fn a_message_to_health_is_short() {
    let server = Fixture::new().await;
    let mut health = HealthClient::new(server.channel.clone());
    let service = "x".repeat(limits::REQUEST_BASE_LEN);
    let status = health.check(HealthCheckRequest { service }).await;
    assert_eq!(status.unwrap_err().code(), Code::OutOfRange);
}

#[tokio::test]
async fn a_watch_of_health_hears_of_the_end_and_does_not_hold_it_up() {
    let server = Fixture::new().await;
    let mut watch = watch(&server, 1).await.remove(0);
    let began = Instant::now();
    server.server.stop().await.unwrap();
    assert!(began.elapsed() < limits::DRAIN_TIMEOUT);
    let told = watch.message().await.unwrap().unwrap();
    assert_eq!(told.status(), ServingStatus::NotServing);
    let status = watch.message().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
}

#[tokio::test]
async fn the_limits_of_a_running_server_change_for_the_next_request() {
    let server = Fixture::new().await;
    let held = hold(&server, 2).await;
    while server.server.admission.in_flight() < 2 {
        tokio::task::yield_now().await;
    }
    assert!(server.raw_get("", b"k").await.is_ok());
    let change = |value: &str| {
        let pair = ("max-requests-in-flight".to_owned(), value.to_owned());
        server.server.live().change(&[pair])
    };
    change("2").unwrap();
    let status = server.raw_get("", b"k").await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    change("3").unwrap();
    assert!(server.raw_get("", b"k").await.is_ok());
    assert!(change("0").is_err());
    drop(held);
}

#[tokio::test]
async fn readiness_names_what_is_wrong_and_leaves_out_what_it_is_told_to() {
    let server = Fixture::new().await;
    let (head, body) = server.page("/readyz").await;
    assert!(
        head.starts_with("HTTP/1.1 200") && body == "ready\n",
        "{head} {body}"
    );
    let (_, body) = server.page("/readyz?verbose").await;
    for name in [
        "started",
        "not-draining",
        "not-fenced",
        "writable",
        "certificate",
    ] {
        assert!(body.contains(&format!("[+] {name} ok\n")), "{body}");
    }
    server.storage.fail_writes(Some(Error::Store {
        code: StoreCode::ReadOnly,
        what: "the disk is gone".to_owned(),
    }));
    let (head, body) = server.page("/readyz").await;
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    assert!(
        body.contains("[-] writable failed: ") && body.ends_with("not ready\n"),
        "{body}"
    );
    let (head, body) = server.page("/readyz?exclude=writable").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(body.contains("[ ] writable excluded"), "{body}");
    let (head, _) = server.page("/livez").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
}

/// Where a test keeps what is logged on its thread.
#[derive(Clone, Default)]
pub(super) struct Kept(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Kept {
    /// Keeps what is logged on this thread from now on, as lines of JSON, until the guard is dropped.
    pub(super) fn begin(&self) -> tracing::subscriber::DefaultGuard {
        let writer = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::set_default(subscriber)
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

#[tokio::test]
async fn a_slow_request_is_logged_with_its_stages_and_without_its_key() {
    let kept = Kept::default();
    // The server runs on this thread.
    let _guard = kept.begin();
    let server = limited(|limits| limits.budgets.slow_time = Duration::from_millis(50)).await;
    server.put("", b"a-fast-one", b"v").await.unwrap();

    let mut slow = super::hostile::half_a_request(server.addr).await;
    while server.server.admission.in_flight() < 1 {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(60)).await;
    // The rest of the message, the end of the stream: a key of seven bytes.
    let mut rest = vec![0, 0, 9, 0, 1, 0, 0, 0, 1];
    rest.extend(b"\x12\x07a-canar");
    slow.write_all(&rest).await.unwrap();
    while server.server.admission.in_flight() > 0 {
        tokio::task::yield_now().await;
    }
    let text = kept.text();
    let lines = text.lines().filter(|line| line.contains("slow request"));
    let lines: Vec<serde_json::Value> = lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 1, "{text}");
    let line = &lines[0];
    assert_eq!(line["method"], "RawGet");
    assert!(line["arriving_millis"].as_u64().unwrap() >= 50, "{line}");
    assert!(
        line["working_millis"].as_u64().unwrap() < line["millis"].as_u64().unwrap(),
        "{line}"
    );
    assert!(!text.contains("a-canar"), "{text}");
}
