//! A whole server over `MemStorage`, spoken to over gRPC and HTTP on loopback.

use std::time::{Duration, Instant};

use basalt_proto::{
    basaltpb::{CompactRequest, FlushRequest, State, StatusRequest},
    coprocessor,
    kvrpcpb::{
        self, RawDeleteRequest, RawGetRequest, RawGetResponse, RawPutRequest, RawScanRequest,
    },
};
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::{Code, Status, transport::Channel};

use super::*;

mod hostile;
mod overload;
mod quick;
mod refused;
mod secure;
use crate::{
    service::admission::Budgets,
    storage::{Error, MemStorage, StoreCode},
    stubs::{basaltpb::admin_client::AdminClient, tinykvpb::tiny_kv_client::TinyKvClient},
};

struct Fixture {
    storage: Arc<MemStorage>,
    server: Server,
    channel: Channel,
    addr: SocketAddr,
    status_addr: SocketAddr,
}

/// The budgets of a server to which nothing is said.
fn usual() -> Budgets {
    Config::default().limits.budgets
}

impl Fixture {
    async fn new() -> Self {
        Self::of(Config::default()).await
    }

    async fn with(budgets: Budgets) -> Self {
        let mut config = Config::default();
        config.limits.budgets = budgets;
        Self::of(config).await
    }

    async fn of(config: Config) -> Self {
        let storage = Arc::new(MemStorage::new());
        let shared: Arc<dyn Storage> = storage.clone();
        let sockets = Sockets::bind("127.0.0.1:0", "127.0.0.1:0").await.unwrap();
        let (addr, status_addr) = sockets.addrs().unwrap();
        let setup = Setup::load(config, Layers::default()).unwrap();
        let server = Server::begin(shared, None, sockets, setup);
        server.announce().await;
        // One that speaks TLS is reached by its own tests.
        let channel = Channel::from_shared(format!("http://{addr}")).unwrap();
        Self {
            storage,
            server,
            channel: channel.connect_lazy(),
            addr,
            status_addr,
        }
    }

    fn client(&self) -> TinyKvClient<Channel> {
        TinyKvClient::new(self.channel.clone())
            .max_decoding_message_size(limits::MAX_ANSWER_LEN)
            .max_encoding_message_size(usize::MAX)
    }

    fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel.clone())
    }

    async fn put(&self, cf: &str, key: &[u8], value: &[u8]) -> Result<String, Status> {
        let request = RawPutRequest {
            context: None,
            key: Bytes::copy_from_slice(key),
            value: Bytes::copy_from_slice(value),
            cf: cf.into(),
        };
        Ok(self.client().raw_put(request).await?.into_inner().error)
    }

    async fn delete(&self, cf: &str, key: &[u8]) -> Result<String, Status> {
        let request = RawDeleteRequest {
            context: None,
            key: Bytes::copy_from_slice(key),
            cf: cf.into(),
        };
        Ok(self.client().raw_delete(request).await?.into_inner().error)
    }

    async fn raw_get(&self, cf: &str, key: &[u8]) -> Result<RawGetResponse, Status> {
        let request = RawGetRequest {
            context: None,
            key: Bytes::copy_from_slice(key),
            cf: cf.into(),
        };
        Ok(self.client().raw_get(request).await?.into_inner())
    }

    /// `None` when the key is missing; an error in the answer fails the test.
    async fn get(&self, cf: &str, key: &[u8]) -> Option<Vec<u8>> {
        let answer = self.raw_get(cf, key).await.unwrap();
        assert_eq!((answer.error.as_str(), &answer.region_error), ("", &None));
        assert!(!answer.not_found || answer.value.is_empty());
        (!answer.not_found).then(|| answer.value.to_vec())
    }

    async fn scan(
        &self,
        cf: &str,
        start: &[u8],
        limit: u32,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, Status> {
        let start_key = Bytes::copy_from_slice(start);
        let request = RawScanRequest {
            context: None,
            start_key,
            limit,
            cf: cf.into(),
        };
        let answer = self.client().raw_scan(request).await?.into_inner();
        assert_eq!(answer.error, "");
        Ok(answer
            .kvs
            .into_iter()
            .map(|pair| (pair.key.to_vec(), pair.value.to_vec()))
            .collect())
    }

    async fn keys(&self, cf: &str, start: &[u8], limit: u32) -> Vec<String> {
        let pairs = self.scan(cf, start, limit).await.unwrap();
        pairs
            .into_iter()
            .map(|(key, _)| String::from_utf8(key).unwrap())
            .collect()
    }

    /// The head and the body of a status page.
    async fn page(&self, path: &str) -> (String, String) {
        let mut stream = tokio::net::TcpStream::connect(self.status_addr)
            .await
            .unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }
}

#[tokio::test]
async fn a_value_is_read_back_until_it_is_overwritten_or_deleted() {
    let server = Fixture::new().await;
    assert_eq!(server.get("default", b"k").await, None);
    assert_eq!(server.put("default", b"k", b"one").await.unwrap(), "");
    assert_eq!(server.get("default", b"k").await.unwrap(), b"one");
    assert_eq!(server.put("default", b"k", b"two").await.unwrap(), "");
    assert_eq!(server.get("default", b"k").await.unwrap(), b"two");
    assert_eq!(server.delete("default", b"k").await.unwrap(), "");
    assert_eq!(server.get("default", b"k").await, None);
    assert_eq!(
        server.delete("default", b"k").await.unwrap(),
        "",
        "a missing key deletes well"
    );
}

#[tokio::test]
async fn families_are_independent_and_an_empty_name_is_default() {
    let server = Fixture::new().await;
    for cf in ["", "write", "lock"] {
        server
            .put(cf, b"k", format!("in {cf}").as_bytes())
            .await
            .unwrap();
    }
    assert_eq!(server.get("default", b"k").await.unwrap(), b"in ");
    assert_eq!(server.get("write", b"k").await.unwrap(), b"in write");
    server.delete("default", b"k").await.unwrap();
    assert_eq!(server.get("", b"k").await, None);
    assert_eq!(server.get("lock", b"k").await.unwrap(), b"in lock");
    assert_eq!(server.keys("write", b"", 10).await, ["k"]);
}

#[tokio::test]
async fn an_empty_value_is_a_value_and_an_empty_key_is_a_key() {
    let server = Fixture::new().await;
    server.put("", b"", b"").await.unwrap();
    assert_eq!(server.get("", b"").await.unwrap(), b"");
    assert_eq!(server.scan("", b"", 10).await.unwrap(), [(vec![], vec![])]);
    server.delete("", b"").await.unwrap();
    assert_eq!(server.get("", b"").await, None);
}

#[tokio::test]
async fn a_scan_begins_at_its_start_goes_up_and_stops_at_its_limit() {
    let server = Fixture::new().await;
    for key in ["d", "b", "a", "c", "e"] {
        server.put("", key.as_bytes(), b"v").await.unwrap();
    }
    server.delete("", b"d").await.unwrap();
    assert_eq!(server.keys("", b"", 100).await, ["a", "b", "c", "e"]);
    assert_eq!(server.keys("", b"b", 2).await, ["b", "c"]);
    assert_eq!(
        server.keys("", b"bb", 1).await,
        ["c"],
        "an absent start begins at the next key"
    );
    assert_eq!(server.keys("", b"f", 100).await, [""; 0]);
    assert_eq!(server.keys("", b"", 0).await, [""; 0]);
    assert_eq!(server.keys("", b"", u32::MAX).await.len(), 4);
}

#[tokio::test]
async fn a_scan_is_cut_at_its_bytes_and_can_be_continued() {
    let server = Fixture::new().await;
    let value = vec![7u8; limits::MAX_VALUE_LEN / 4];
    for index in 0..9u8 {
        server.put("", &[index], &value).await.unwrap();
    }
    let (mut start, mut seen, mut answers) = (Vec::new(), Vec::new(), 0);
    loop {
        let pairs = server.scan("", &start, 100).await.unwrap();
        let Some((last, _)) = pairs.last() else { break };
        assert!(pairs.len() < 4, "{} pairs of 2 MiB", pairs.len());
        assert!(pairs.iter().all(|(_, got)| *got == value));
        start = [last.as_slice(), &[0]].concat();
        seen.extend(pairs.into_iter().map(|(key, _)| key[0]));
        answers += 1;
    }
    assert_eq!(seen, (0..9).collect::<Vec<_>>());
    assert_eq!(answers, 3);
}

#[tokio::test]
async fn one_pair_of_the_longest_key_and_value_is_answered_whole() {
    let server = Fixture::new().await;
    let key = vec![b'k'; limits::MAX_KEY_LEN];
    let value: Vec<u8> = (0..limits::MAX_VALUE_LEN)
        .map(|at| (at % 251).to_le_bytes()[0])
        .collect();
    server.put("", &key, &value).await.unwrap();
    assert!(server.get("", &key).await.unwrap() == value);
    let pairs = server.scan("", b"", 2).await.unwrap();
    assert_eq!(pairs.len(), 1);
    assert!(pairs[0].0 == key && pairs[0].1 == value);
}

#[tokio::test]
async fn what_is_over_a_limit_is_refused_by_name_and_the_server_lives() {
    let server = Fixture::new().await;
    let long_key = vec![0u8; limits::MAX_KEY_LEN + 1];
    let long_value = vec![0u8; limits::MAX_VALUE_LEN + 1];
    let refusals = [
        (server.put("", &long_key, b"").await.unwrap_err(), "65535"),
        (server.delete("", &long_key).await.unwrap_err(), "65535"),
        (server.raw_get("", &long_key).await.unwrap_err(), "65535"),
        (server.scan("", &long_key, 1).await.unwrap_err(), "65535"),
        (
            server.put("", b"k", &long_value).await.unwrap_err(),
            "8388608",
        ),
        (
            server.put("nope", b"k", b"v").await.unwrap_err(),
            "default, write, lock",
        ),
        (
            server.delete("nope", b"k").await.unwrap_err(),
            "default, write, lock",
        ),
        (
            server.raw_get("nope", b"k").await.unwrap_err(),
            "default, write, lock",
        ),
        (
            server.scan("nope", b"k", 1).await.unwrap_err(),
            "default, write, lock",
        ),
    ];
    for (status, named) in refusals {
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(named), "{status}");
    }
    assert_eq!(server.keys("", b"", 10).await, [""; 0]);
    assert_eq!(server.put("", &long_key[1..], b"").await.unwrap(), "");
}

#[tokio::test]
async fn a_message_over_its_limit_is_refused_and_the_server_lives() {
    let server = Fixture::new().await;
    for len in [limits::MAX_REQUEST_LEN + 1, 3 * limits::MAX_REQUEST_LEN] {
        let status = server.put("", b"k", &vec![0; len]).await.unwrap_err();
        let named = matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted);
        assert!(named, "{status}");
        assert_eq!(server.get("", b"k").await, None);
    }
}

#[tokio::test]
async fn bytes_that_are_no_message_of_the_method_are_the_clients_mistake() {
    let server = Fixture::new().await;
    let mut grpc = tonic::client::Grpc::new(server.channel.clone());
    grpc.ready().await.unwrap();
    // Field 3 is a number here and a text in the message that the method takes.
    let wrong = kvrpcpb::GetRequest {
        version: 5,
        ..Default::default()
    };
    let path = axum::http::uri::PathAndQuery::from_static("/tinykvpb.TinyKv/RawGet");
    let codec = tonic_prost::ProstCodec::<kvrpcpb::GetRequest, RawGetResponse>::default();
    let status = grpc
        .unary(tonic::Request::new(wrong), path, codec)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(status.message().contains("malformed"), "{status}");
    assert_eq!(server.get("", b"k").await, None);
}

#[tokio::test]
async fn what_is_not_built_says_so_by_its_name() {
    let server = Fixture::new().await;
    let mut client = server.client();
    let refusals = [
        (
            "KvGet",
            client
                .kv_get(kvrpcpb::GetRequest::default())
                .await
                .map(drop),
        ),
        (
            "KvScan",
            client
                .kv_scan(kvrpcpb::ScanRequest::default())
                .await
                .map(drop),
        ),
        (
            "KvPrewrite",
            client
                .kv_prewrite(kvrpcpb::PrewriteRequest::default())
                .await
                .map(drop),
        ),
        (
            "KvCommit",
            client
                .kv_commit(kvrpcpb::CommitRequest::default())
                .await
                .map(drop),
        ),
        (
            "KvCheckTxnStatus",
            client
                .kv_check_txn_status(kvrpcpb::CheckTxnStatusRequest::default())
                .await
                .map(drop),
        ),
        (
            "KvBatchRollback",
            client
                .kv_batch_rollback(kvrpcpb::BatchRollbackRequest::default())
                .await
                .map(drop),
        ),
        (
            "KvResolveLock",
            client
                .kv_resolve_lock(kvrpcpb::ResolveLockRequest::default())
                .await
                .map(drop),
        ),
        (
            "Coprocessor",
            client
                .coprocessor(coprocessor::Request::default())
                .await
                .map(drop),
        ),
    ];
    for (name, outcome) in refusals {
        let status = outcome.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{name}");
        assert!(status.message().starts_with(name), "{name}: {status}");
    }
    let streams = [
        client.raft(tokio_stream::empty()).await.map(drop),
        client.snapshot(tokio_stream::empty()).await.map(drop),
    ];
    for outcome in streams {
        let status = outcome.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert!(status.message().contains("standalone"), "{status}");
    }
    assert_eq!(server.get("", b"k").await, None);
}

#[tokio::test]
async fn a_store_that_cannot_says_so_in_the_answer_with_a_code_word_first() {
    let server = Fixture::new().await;
    server.put("", b"k", b"v").await.unwrap();
    let failure = Error::Store {
        code: StoreCode::ReadOnly,
        what: "the disk is gone".into(),
    };
    server.storage.fail_writes(Some(failure));
    assert_eq!(
        server.put("", b"k", b"w").await.unwrap(),
        "READ_ONLY: the disk is gone"
    );
    assert_eq!(
        server.delete("", b"k").await.unwrap(),
        "READ_ONLY: the disk is gone"
    );
    assert_eq!(server.get("", b"k").await.unwrap(), b"v", "reads go on");
    let flush = server
        .admin()
        .flush(FlushRequest::default())
        .await
        .unwrap_err();
    assert_eq!(flush.code(), Code::FailedPrecondition);
    assert!(flush.message().starts_with("READ_ONLY: "));

    let failure = Error::Store {
        code: StoreCode::Corruption,
        what: "000007.sst at 4096".into(),
    };
    server.storage.fail_reads(Some(failure));
    let answer = server.raw_get("", b"k").await.unwrap();
    assert_eq!(answer.error, "CORRUPTION: 000007.sst at 4096");
    assert!(!answer.not_found, "an error is not a missing key");

    server
        .storage
        .fail_writes(Some(Error::Busy("flush".into())));
    assert_eq!(
        server.put("", b"k", b"w").await.unwrap_err().code(),
        Code::ResourceExhausted
    );
    server.storage.fail_writes(Some(Error::Stopped));
    assert_eq!(
        server.put("", b"k", b"w").await.unwrap_err().code(),
        Code::Unavailable
    );

    server.storage.fail_writes(None);
    server.storage.fail_reads(None);
    assert_eq!(server.put("", b"k", b"w").await.unwrap(), "");
    assert_eq!(server.get("", b"k").await.unwrap(), b"w");
}

#[tokio::test]
async fn requests_over_their_budget_are_refused_and_given_back() {
    let base = limits::REQUEST_BASE_LEN;
    let server = Fixture::with(Budgets {
        request_bytes: base + 100_000,
        ..usual()
    })
    .await;
    for _ in 0..3 {
        let status = server.put("", b"k", &[0; 200_000]).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert_eq!(server.put("", b"k", &[0; 50_000]).await.unwrap(), "");
    }
}

#[tokio::test]
async fn answers_over_their_budget_are_refused_and_given_back() {
    let server = Fixture::with(Budgets {
        answer_bytes: 100_000,
        ..usual()
    })
    .await;
    server.put("", b"big", &[0; 200_000]).await.unwrap();
    server.put("", b"small", &[0; 90_000]).await.unwrap();
    for _ in 0..3 {
        let status = server.raw_get("", b"big").await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        let status = server.scan("", b"", 10).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert_eq!(server.get("", b"small").await.unwrap().len(), 90_000);
    }
}

#[tokio::test]
async fn the_admin_service_and_the_pages_tell_the_same_state() {
    let server = Fixture::new().await;
    let status = server
        .admin()
        .status(StatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(status.state(), State::Serving);
    assert_eq!(status.version, env!("CARGO_PKG_VERSION"));
    let (head, body) = server.page("/status").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let json: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(json["mode"], "standalone");
    assert_eq!(json["state"], "serving");
    assert_eq!(json["version"], status.version);
    for field in ["reason", "uptime_seconds", "engine", "regions"] {
        assert!(json.get(field).is_some(), "{field} is missing in {body}");
    }
    assert!(server.page("/health").await.0.starts_with("HTTP/1.1 200"));

    server.storage.fail_writes(Some(Error::Stopped));
    let json: serde_json::Value = serde_json::from_str(&server.page("/status").await.1).unwrap();
    assert_eq!(json["state"], "read_only");
    assert_eq!(json["reason"], "the store is stopping");
    assert!(
        server.page("/health").await.0.starts_with("HTTP/1.1 200"),
        "reads are served"
    );
    assert!(server.page("/nope").await.0.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn maintenance_names_an_unknown_family() {
    let server = Fixture::new().await;
    server.admin().flush(FlushRequest::default()).await.unwrap();
    server
        .admin()
        .compact(CompactRequest {
            cf: "write".into(),
            ..Default::default()
        })
        .await
        .unwrap();
    let status = server
        .admin()
        .flush(FlushRequest { cf: "x".into() })
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn the_metrics_count_requests_by_method_and_code() {
    let server = Fixture::new().await;
    server.put("", b"k", b"v").await.unwrap();
    server.get("", b"k").await;
    server.get("", b"k").await;
    server.raw_get("nope", b"k").await.unwrap_err();
    let (head, text) = server.page("/metrics").await;
    assert!(head.contains("openmetrics"), "{head}");
    for line in [
        "basalt_requests_total{method=\"RawPut\",code=\"OK\"} 1",
        "basalt_requests_total{method=\"RawGet\",code=\"OK\"} 2",
        "basalt_requests_total{method=\"RawGet\",code=\"INVALID_ARGUMENT\"} 1",
        "basalt_request_duration_seconds_count{method=\"RawGet\"} 3",
        "basalt_requests_in_flight 0",
        "basalt_connections 1",
        "basalt_engine_read_only 0",
        "# EOF",
    ] {
        assert!(
            text.lines().any(|found| found.starts_with(line)),
            "{line} is missing in\n{text}"
        );
    }
    let strangers = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.starts_with("basalt_"));
    assert_eq!(strangers.count(), 0, "{text}");
}

#[tokio::test]
async fn reflection_lists_the_services() {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let server = Fixture::new().await;
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(server.channel.clone());
    let answers = client
        .server_reflection_info(tokio_stream::once(request))
        .await
        .unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("no list in {answer:?}");
    };
    let names: Vec<_> = list
        .service
        .into_iter()
        .map(|service| service.name)
        .collect();
    for name in ["tinykvpb.TinyKv", "basaltpb.Admin", "grpc.health.v1.Health"] {
        assert!(
            names.iter().any(|known| known == name),
            "{name} is not in {names:?}"
        );
    }
}

#[tokio::test]
async fn a_server_that_stops_says_so_refuses_and_closes_its_storage() {
    use tonic_health::pb::{
        HealthCheckRequest, health_check_response::ServingStatus as Told,
        health_client::HealthClient,
    };
    let server = Fixture::new().await;
    let mut health = HealthClient::new(server.channel.clone());
    let request = HealthCheckRequest {
        service: "tinykvpb.TinyKv".into(),
    };
    let told = health.check(request.clone()).await.unwrap().into_inner();
    assert_eq!(told.status(), Told::Serving);

    // What `stop` does first, without closing the listeners under the questions.
    server.server.tell_health(ServingStatus::NotServing).await;
    server.server.admission.drain();
    let told = health.check(request).await.unwrap().into_inner();
    assert_eq!(told.status(), Told::NotServing);
    let status = server.put("", b"k", b"v").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(server.page("/health").await.0.starts_with("HTTP/1.1 503"));
    let told = server
        .admin()
        .status(StatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(told.state(), State::Draining);

    let began = Instant::now();
    server.server.stop().await.unwrap();
    assert!(
        began.elapsed() < limits::DRAIN_TIMEOUT,
        "an idle client holds nothing up"
    );
    assert_eq!(server.storage.flush(None), Err(Error::Stopped));
}

#[tokio::test]
async fn a_taken_address_is_named_in_one_sentence() {
    let first = Sockets::bind("127.0.0.1:0", "127.0.0.1:0").await.unwrap();
    let addr = first.addrs().unwrap().0.to_string();
    for refusal in [
        Sockets::bind(&addr, "127.0.0.1:0").await.unwrap_err(),
        Sockets::bind("127.0.0.1:0", &addr).await.unwrap_err(),
    ] {
        assert!(
            refusal.starts_with(&format!("{addr} is in use")),
            "{refusal}"
        );
    }
    let refusal = Sockets::bind("nonsense", "127.0.0.1:0").await.unwrap_err();
    assert!(
        refusal.starts_with("cannot listen on nonsense"),
        "{refusal}"
    );
}

#[tokio::test]
async fn a_request_is_answered_by_its_deadline() {
    let storage: Arc<dyn Storage> = Arc::new(MemStorage::new());
    let admission = Arc::new(Admission::new(
        Arc::new(Metrics::new(&storage, None)),
        usual(),
    ));
    let never = tower::service_fn(|_: axum::http::Request<tonic::body::Body>| {
        std::future::pending::<
            Result<axum::http::Response<tonic::body::Body>, std::convert::Infallible>,
        >()
    });
    let request = axum::http::Request::post("/tinykvpb.TinyKv/RawPut")
        .header("grpc-timeout", "30m")
        .body(tonic::body::Body::empty())
        .unwrap();
    let admitted = admission.admit(&request).unwrap();
    let answer = admitted.through(never, request);
    let answer = tokio::time::timeout(Duration::from_secs(5), answer).await;
    let answer = answer.expect("answered by the deadline");
    assert_eq!(answer.headers()["grpc-status"], "4");
}
