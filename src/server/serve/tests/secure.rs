//! A server with certificates and rights: who is let in, who is refused, and what each is told.

use std::fs;

use basalt_proto::{
    basaltpb::{
        BackupRequest, ConfigureRequest, ExamineRequest, ExplainRequest, HelloRequest,
        MembersRequest, StatsRequest,
    },
    kvrpcpb::{GetRequest, RawScanResponse},
};
use rcgen::CertificateParams;
use tokio::net::TcpStream;
use tonic::{Request, transport::Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::*;
use crate::{
    stubs::basaltpb::peers_client::PeersClient,
    tls::{
        self, Connector,
        tests::{Authority, Pair, files},
    },
};

/// Authorities of stores and of clients, and a server that knows both.
pub(super) struct Secure {
    pub(super) stores: Authority,
    pub(super) clients: Authority,
    pub(super) own: Pair,
    pub(super) server: Fixture,
}

/// A token as a request carries it, and the hash by which a file of rights knows it.
fn bearer<T>(token: &str, body: T) -> Request<T> {
    let mut request = Request::new(body);
    if !token.is_empty() {
        let value = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    request
}

fn hash_of(token: &str) -> String {
    let bytes = crate::auth::hash(token.as_bytes());
    bytes.map(|byte| format!("{byte:02x}")).concat()
}

impl Secure {
    async fn new() -> Self {
        Self::with(|_, _| ()).await
    }

    pub(super) async fn with(change: impl FnOnce(&mut Config, &Authority)) -> Self {
        let (stores, clients) = (Authority::new(), Authority::new());
        let own = stores.sign("store", &["localhost", "127.0.0.1"]);
        let mut config = Config::default();
        config.tls = crate::config::TlsFiles {
            client_ca: Some(clients.file()),
            peer_ca: Some(stores.file()),
            ..files(&own)
        };
        change(&mut config, &clients);
        let server = Fixture::of(config).await;
        Self {
            stores,
            clients,
            own,
            server,
        }
    }

    /// A connection of somebody who trusts `authority` and shows `own`.
    pub(super) async fn connect(
        &self,
        authority: &Authority,
        own: Option<&Pair>,
    ) -> Result<Channel, String> {
        connect(self.server.addr, authority, own, None).await
    }

    /// A connection of a client with a certificate for `name`.
    async fn client(&self, name: &str) -> TinyKvClient<Channel> {
        let pair = self.clients.sign(name, &[]);
        let channel = self.connect(&self.stores, Some(&pair)).await;
        TinyKvClient::new(channel.unwrap())
    }
}

async fn connect(
    addr: SocketAddr,
    authority: &Authority,
    own: Option<&Pair>,
    name: Option<&str>,
) -> Result<Channel, String> {
    let roots = tls::read_roots(&authority.file()).unwrap();
    let own = own.map(|own| tls::read_chain(&own.cert, &own.key).unwrap());
    let config = tls::client(roots, own).unwrap();
    let connector = Connector::new(config, name.map(str::to_owned));
    let endpoint = Endpoint::from_shared(format!("https://{addr}")).unwrap();
    let connecting = endpoint.connect_with_connector(connector);
    let connected = tokio::time::timeout(Duration::from_secs(10), connecting).await;
    let connected = connected.expect("an answer, good or bad");
    connected.map_err(|error| crate::replicated::root_cause(&error))
}

fn put(key: &[u8]) -> RawPutRequest {
    RawPutRequest {
        key: Bytes::copy_from_slice(key),
        value: Bytes::from_static(b"v"),
        ..RawPutRequest::default()
    }
}

fn get(key: &[u8]) -> RawGetRequest {
    RawGetRequest {
        key: Bytes::copy_from_slice(key),
        ..RawGetRequest::default()
    }
}

#[tokio::test]
async fn whoever_has_a_right_certificate_is_served() {
    let secure = Secure::new().await;
    let mut client = secure.client("alice").await;
    client.raw_put(put(b"k")).await.unwrap();
    let answer = client.raw_get(get(b"k")).await.unwrap().into_inner();
    assert_eq!(&answer.value[..], b"v");
    let big = RawPutRequest {
        value: vec![7; limits::MAX_VALUE_LEN].into(),
        ..put(b"big")
    };
    let mut client = client
        .max_decoding_message_size(limits::MAX_ANSWER_LEN)
        .max_encoding_message_size(usize::MAX);
    client.raw_put(big).await.unwrap();
    let answer = client.raw_get(get(b"big")).await.unwrap().into_inner();
    assert_eq!(answer.value.len(), limits::MAX_VALUE_LEN);
}

#[tokio::test]
async fn whoever_has_a_wrong_certificate_or_none_is_refused_with_a_reason() {
    let secure = Secure::new().await;
    let (stores, clients, strangers) = (&secure.stores, &secure.clients, Authority::new());
    let expired = |params: &mut CertificateParams| {
        params.not_before = rcgen::date_time_ymd(2019, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    };
    let future = |params: &mut CertificateParams| {
        params.not_before = rcgen::date_time_ymd(2100, 1, 1);
    };
    let alice = clients.sign("alice", &[]);
    for (what, trusted, own, words) in [
        ("no certificate", stores, None, "demands a certificate"),
        (
            "another authority",
            stores,
            Some(strangers.sign("alice", &[])),
            "does not trust the authority",
        ),
        (
            "expired",
            stores,
            Some(clients.sign_with("late", &[], expired)),
            "has expired",
        ),
        (
            "not valid yet",
            stores,
            Some(clients.sign_with("early", &[], future)),
            "other side",
        ),
        (
            "a server of another authority",
            &strangers,
            Some(alice.clone()),
            "comes from another authority",
        ),
    ] {
        let refusal = secure.connect(trusted, own.as_ref()).await;
        let refusal = refusal.expect_err(what);
        assert!(refusal.contains(words), "{what}: {refusal}");
    }
    let named = connect(
        secure.server.addr,
        stores,
        Some(&alice),
        Some("elsewhere.example"),
    )
    .await;
    let refusal = named.unwrap_err();
    assert!(refusal.contains("for another name"), "{refusal}");
    // And the server lives.
    secure.client("bob").await.raw_put(put(b"k")).await.unwrap();
}

#[tokio::test]
async fn the_certificate_of_a_server_that_has_expired_is_refused_by_its_clients() {
    // A server does not start with one; this one is of somebody else.
    let (authority, listener) = (Authority::new(), TcpListener::bind("127.0.0.1:0").await);
    let listener = listener.unwrap();
    let addr = listener.local_addr().unwrap();
    let pair = authority.sign_with("old", &["127.0.0.1"], |params| {
        params.not_before = rcgen::date_time_ymd(2019, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    });
    let (chain, key) = tls::read_chain(&pair.cert, &pair.key).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    tokio::spawn(async move {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let (socket, _) = listener.accept().await.unwrap();
        let _ = acceptor.accept(socket).await;
    });
    let refusal = connect(addr, &authority, None, None).await.unwrap_err();
    assert!(refusal.contains("its certificate has expired"), "{refusal}");
}

#[tokio::test]
async fn plain_text_to_a_port_that_speaks_tls_is_told_so_and_the_reverse_too() {
    let secure = Secure::new().await;
    let channel = Channel::from_shared(format!("http://{}", secure.server.addr)).unwrap();
    let told = match channel.connect().await {
        Ok(channel) => {
            let status = TinyKvClient::new(channel)
                .raw_put(put(b"k"))
                .await
                .unwrap_err();
            format!("{status:?}")
        }
        Err(error) => format!("{error:?}"),
    };
    assert!(told.contains("this port speaks TLS"), "{told}");
    let (head, body) = secure.server.page("/livez").await;
    assert!(head.starts_with("HTTP/1.1 400"), "{head}");
    assert!(body.contains("this port speaks TLS"), "{body}");

    let plain = Fixture::new().await;
    let alice = secure.clients.sign("alice", &[]);
    let refusal = connect(plain.addr, &secure.stores, Some(&alice), None).await;
    let refusal = refusal.unwrap_err();
    assert!(
        refusal.contains("speaks plain text") || refusal.contains("closed"),
        "{refusal}"
    );
}

/// The first flight of a client of an older TLS, as bytes: no extension says that it could do more.
#[tokio::test]
async fn an_older_tls_is_refused() {
    let secure = Secure::new().await;
    for version in [1u8, 2, 3] {
        let mut hello = vec![3, version];
        hello.extend([7; 32]);
        // No session, one suite of that time, no compression.
        hello.extend([0, 0, 2, 0xc0, 0x2f, 1, 0]);
        let len = u8::try_from(hello.len()).unwrap();
        let mut bytes = vec![22, 3, 1, 0, len + 4, 1, 0, 0, len];
        bytes.extend(hello);
        let mut socket = TcpStream::connect(secure.server.addr).await.unwrap();
        socket.write_all(&bytes).await.unwrap();
        let mut answer = Vec::new();
        let reading = socket.read_to_end(&mut answer);
        let _ = tokio::time::timeout(Duration::from_secs(10), reading)
            .await
            .expect("the connection is closed");
        // A fatal alert, and nothing else.
        assert_eq!(
            answer.first(),
            Some(&21),
            "TLS 1.{}: {answer:?}",
            version - 1
        );
    }
}

#[tokio::test]
async fn only_a_store_may_call_what_stores_call() {
    let secure = Secure::new().await;
    let alice = secure.clients.sign("alice", &["127.0.0.1"]);
    for (own, expected) in [
        (&alice, Code::PermissionDenied),
        // Let in, and told that there is no cluster here.
        (&secure.own, Code::FailedPrecondition),
    ] {
        let channel = secure.connect(&secure.stores, Some(own)).await.unwrap();
        let mut peers = PeersClient::new(channel.clone());
        let hello = peers.hello(HelloRequest::default()).await;
        assert_eq!(hello.unwrap_err().code(), expected);
        let mut client = TinyKvClient::new(channel);
        let raft = client.raft(tokio_stream::empty()).await;
        assert_eq!(raft.unwrap_err().code(), expected);
        let snapshot = client.snapshot(tokio_stream::empty()).await;
        assert_eq!(snapshot.unwrap_err().code(), expected);
    }
}

#[tokio::test]
async fn new_certificates_are_used_and_connections_that_stand_go_on() {
    let secure = Secure::new().await;
    let mut old = secure.client("alice").await;
    old.raw_put(put(b"k")).await.unwrap();

    let others = Authority::new();
    let next = others.sign("next", &["127.0.0.1"]);
    fs::copy(&next.cert, &secure.own.cert).unwrap();
    // The key does not fit yet.
    let live = secure.server.server.live();
    let why = live.reread().unwrap_err();
    assert!(why.contains("does not belong to"), "{why}");
    secure.client("bob").await.raw_get(get(b"k")).await.unwrap();

    fs::copy(&next.key, &secure.own.key).unwrap();
    assert_eq!(live.reread().unwrap().changed, ["certificates"]);
    let bob = secure.clients.sign("bob", &[]);
    let refusal = secure
        .connect(&secure.stores, Some(&bob))
        .await
        .unwrap_err();
    assert!(refusal.contains("another authority"), "{refusal}");
    let channel = secure.connect(&others, Some(&bob)).await.unwrap();
    TinyKvClient::new(channel).raw_get(get(b"k")).await.unwrap();
    old.raw_get(get(b"k")).await.unwrap();
}

#[tokio::test]
async fn the_status_pages_speak_tls_too_unless_they_are_to_be_plain() {
    let secure = Secure::new().await;
    let addr = secure.server.status_addr;
    let alice = secure.clients.sign("alice", &[]);
    let roots = tls::read_roots(&secure.stores.file()).unwrap();
    let own = tls::read_chain(&alice.cert, &alice.key).unwrap();
    let mut config = (*tls::client(roots, Some(own)).unwrap()).clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let socket = TcpStream::connect(addr).await.unwrap();
    let mut stream = connector.connect(name, socket).await.unwrap();
    let request = b"GET /readyz?verbose HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    // The end may come without a farewell.
    let _ = stream.read_to_string(&mut answer).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("[+] certificate ok"), "{answer}");

    let secure = Secure::with(|config, _| config.status_plain = true).await;
    let (head, _) = secure.server.page("/livez").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
}

const RIGHTS: &str = r#"
[[role]]
name = "app"
grants = [{ can = ["read", "write"], cf = "default", prefix = "app/" }]
[[role]]
name = "reader"
grants = [{ can = ["read"] }]
[[role]]
name = "operator"
grants = [{ can = ["admin"] }]
[[role]]
name = "all"
grants = [{ can = ["read", "write"] }]
"#;

/// A file of rights with a token for each role, named as it is; and a certificate for `alice`, who has the role `app`.
pub(super) fn rights_in(dir: &tempfile::TempDir) -> std::path::PathBuf {
    let mut text = RIGHTS.to_owned();
    text += "[[certificate]]\nname = \"alice\"\nroles = [\"app\"]\n";
    for role in ["app", "reader", "operator", "all"] {
        let hash = hash_of(&format!("token-{role}"));
        text +=
            &format!("[[token]]\nname = \"{role}\"\nsha256 = \"{hash}\"\nroles = [\"{role}\"]\n");
    }
    let file = dir.path().join("rights.toml");
    fs::write(&file, text).unwrap();
    file
}

/// A plain server with these rights.
pub(super) async fn with_rights() -> (Fixture, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.auth_file = Some(rights_in(&dir));
    (Fixture::of(config).await, dir)
}

/// Each RPC with each caller.
#[tokio::test]
async fn every_method_is_denied_to_whoever_has_no_right_to_it() {
    let (server, _dir) = with_rights().await;
    let keys: [&[u8]; 2] = [b"app/k", b"other"];
    for (caller, token) in [
        ("nobody", ""),
        ("stranger", "token-x"),
        ("app", "token-app"),
        ("reader", "token-reader"),
        ("operator", "token-operator"),
        ("all", "token-all"),
    ] {
        let is_known = !matches!(caller, "nobody" | "stranger");
        let refused = match is_known {
            true => Code::PermissionDenied,
            false => Code::Unauthenticated,
        };
        let check = |method: &str, got: Code, is_allowed: bool, otherwise: Code| {
            let expected = if is_allowed { otherwise } else { refused };
            assert_eq!(got, expected, "{caller} calls {method}");
        };
        let mut client = server.client();
        let mut admin = server.admin();
        for key in keys {
            let in_app = key.starts_with(b"app/");
            let may_read = matches!(caller, "reader" | "all") || caller == "app" && in_app;
            let may_write = caller == "all" || caller == "app" && in_app;
            let code =
                |done: Result<(), Status>| done.map_or_else(|status| status.code(), |()| Code::Ok);
            let done = client.raw_put(bearer(token, put(key))).await.map(drop);
            check("RawPut", code(done), may_write, Code::Ok);
            let done = client.raw_get(bearer(token, get(key))).await.map(drop);
            check("RawGet", code(done), may_read, Code::Ok);
            let delete = RawDeleteRequest {
                key: Bytes::copy_from_slice(key),
                ..RawDeleteRequest::default()
            };
            let done = client.raw_delete(bearer(token, delete)).await.map(drop);
            check("RawDelete", code(done), may_write, Code::Ok);
            let scan = RawScanRequest {
                start_key: Bytes::copy_from_slice(key),
                limit: 1,
                ..RawScanRequest::default()
            };
            let done = client.raw_scan(bearer(token, scan)).await.map(drop);
            check("RawScan", code(done), may_read, Code::Ok);
        }
        let code =
            |done: Result<(), Status>| done.map_or_else(|status| status.code(), |()| Code::Ok);
        let done = client.kv_get(bearer(token, GetRequest::default())).await;
        let is_all = caller == "all";
        check("KvGet", code(done.map(drop)), is_all, Code::Unimplemented);
        let is_operator = caller == "operator";
        let done = admin.status(bearer(token, StatusRequest {})).await;
        check("Status", code(done.map(drop)), is_operator, Code::Ok);
        let done = admin.flush(bearer(token, FlushRequest::default())).await;
        check("Flush", code(done.map(drop)), is_operator, Code::Ok);
        let done = admin
            .configure(bearer(token, ConfigureRequest::default()))
            .await;
        check("Configure", code(done.map(drop)), is_operator, Code::Ok);
        let done = admin.stats(bearer(token, StatsRequest {})).await;
        check("Stats", code(done.map(drop)), is_operator, Code::Ok);
        let done = admin.examine(bearer(token, ExamineRequest {})).await;
        check("Examine", code(done.map(drop)), is_operator, Code::Ok);
        // The storage of this test has no engine, and the server no directory of backups.
        let none = Code::Unavailable;
        let done = admin
            .explain(bearer(token, ExplainRequest::default()))
            .await;
        check("Explain", code(done.map(drop)), is_operator, none);
        let compact = CompactRequest::default();
        let done = admin.compact_watched(bearer(token, compact)).await;
        check("CompactWatched", code(done.map(drop)), is_operator, none);
        let done = admin.backup(bearer(token, BackupRequest::default())).await;
        check(
            "Backup",
            code(done.map(drop)),
            is_operator,
            Code::FailedPrecondition,
        );
        let done = admin.members(bearer(token, MembersRequest {})).await;
        check(
            "Members",
            code(done.map(drop)),
            is_known,
            Code::FailedPrecondition,
        );
        let mut peers = PeersClient::new(server.channel.clone());
        let hello = peers.hello(bearer(token, HelloRequest::default())).await;
        let raft = client.raft(bearer(token, tokio_stream::empty())).await;
        for (method, status) in [("Hello", hello.unwrap_err()), ("Raft", raft.unwrap_err())] {
            assert_eq!(status.code(), refused, "{caller} calls {method}");
            let is_told = status.message().starts_with("NOT_A_STORE: ");
            assert_eq!(is_told, is_known, "{caller} calls {method}: {status}");
        }
        let mut health = HealthClient::new(server.channel.clone());
        let done = health
            .check(bearer(token, HealthCheckRequest::default()))
            .await;
        assert!(done.is_ok(), "{caller} asks for health");
    }
}

#[tokio::test]
async fn a_scan_shows_nothing_beyond_the_prefix_and_does_not_begin_before_it() {
    let (server, _dir) = with_rights().await;
    let mut client = server.client();
    for key in [&b"aaa"[..], b"app/1", b"app/2", b"app0", b"zzz"] {
        client.raw_put(bearer("token-all", put(key))).await.unwrap();
    }
    let mut scan = async |start: &'static [u8]| -> Result<RawScanResponse, Status> {
        let request = RawScanRequest {
            start_key: Bytes::from_static(start),
            limit: 100,
            ..RawScanRequest::default()
        };
        let answer = client.raw_scan(bearer("token-app", request)).await;
        answer.map(tonic::Response::into_inner)
    };
    let keys = |answer: RawScanResponse| -> Vec<Bytes> {
        answer.kvs.into_iter().map(|pair| pair.key).collect()
    };
    assert_eq!(
        keys(scan(b"app/").await.unwrap()),
        [&b"app/1"[..], b"app/2"]
    );
    assert_eq!(keys(scan(b"app/11").await.unwrap()), [&b"app/2"[..]]);
    for start in [&b""[..], b"app", b"app0", b"zzz"] {
        let status = scan(start).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied);
        assert!(status.message().starts_with("NOT_ALLOWED"), "{status}");
    }
}

#[tokio::test]
async fn rights_that_change_hold_from_the_next_request_on() {
    let (server, dir) = with_rights().await;
    let mut client = server.client();
    client
        .raw_put(bearer("token-app", put(b"app/k")))
        .await
        .unwrap();
    fs::write(dir.path().join("rights.toml"), RIGHTS).unwrap();
    assert_eq!(server.server.live().reread().unwrap().changed, ["rights"]);
    let status = client.raw_put(bearer("token-app", put(b"app/k"))).await;
    assert_eq!(status.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_certificate_has_the_rights_of_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = rights_in(&dir);
    let secure = Secure::with(|config, _| config.auth_file = Some(file)).await;
    let mut alice = secure.client("alice").await;
    alice.raw_put(put(b"app/k")).await.unwrap();
    let status = alice.raw_put(put(b"other")).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    let mut mallory = secure.client("mallory").await;
    let status = mallory.raw_get(get(b"app/k")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(
        status.message().starts_with("UNKNOWN_CERTIFICATE"),
        "{status}"
    );
    // A store may look who is there, and has no right to data.
    let store = secure
        .connect(&secure.stores, Some(&secure.own))
        .await
        .unwrap();
    let members = AdminClient::new(store.clone())
        .members(MembersRequest {})
        .await;
    assert_eq!(members.unwrap_err().code(), Code::FailedPrecondition);
    let status = TinyKvClient::new(store).raw_get(get(b"app/k")).await;
    assert_eq!(status.unwrap_err().code(), Code::PermissionDenied);
}
