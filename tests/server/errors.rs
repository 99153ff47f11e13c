//! What a client can do wrong, each followed by a look at whether the server lives.

use basaltkv::{
    proto::kvrpcpb::{GetRequest, RawGetResponse, ScanRequest},
    server::limits::{MAX_KEY_LEN, MAX_REQUEST_LEN, MAX_VALUE_LEN},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use crate::support::{Client, Running, data_dir};

/// Writes, reads and counts: nothing but our own key is there.
async fn assert_lives(client: &Client, after: &str) {
    assert_eq!(
        client.put("", b"alive", after.as_bytes()).await.unwrap(),
        "",
        "after {after}"
    );
    assert_eq!(client.get("", b"alive").await.unwrap(), after.as_bytes());
    assert_eq!(
        client.scan("", b"", 10).await.unwrap().len(),
        1,
        "after {after}"
    );
}

#[track_caller]
fn assert_status<T: std::fmt::Debug>(outcome: Result<T, Status>, codes: &[Code], word: &str) {
    let status = outcome.unwrap_err();
    assert!(codes.contains(&status.code()), "{status}");
    assert!(
        status.message().contains(word),
        "{word:?} is not in {status}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_error_has_its_status_and_the_server_lives_on() {
    let (_root, dir) = data_dir();
    let server = Running::start(&dir);
    let client = server.client().await;
    assert_lives(&client, "the start").await;

    let invalid = &[Code::InvalidArgument];
    for cf in ["x", "Default", "default ", "raft"] {
        assert_status(
            client.put(cf, b"k", b"v").await,
            invalid,
            "default, write, lock",
        );
        assert_status(client.read(cf, b"k").await, invalid, "default, write, lock");
        assert_status(
            client.scan(cf, b"", 1).await,
            invalid,
            "default, write, lock",
        );
        assert_status(
            client.delete(cf, b"alive").await,
            invalid,
            "default, write, lock",
        );
        assert_lives(&client, "an unknown family").await;
    }

    let key = vec![0; MAX_KEY_LEN + 1];
    assert_status(client.put("", &key, b"v").await, invalid, "65535");
    assert_status(client.read("", &key).await, invalid, "65535");
    assert_status(client.scan("", &key, 1).await, invalid, "65535");
    assert_status(client.delete("", &key).await, invalid, "65535");
    assert_lives(&client, "a long key").await;

    let value = vec![0; MAX_VALUE_LEN + 1];
    assert_status(client.put("", b"k", &value).await, invalid, "8388608");
    assert_lives(&client, "a long value").await;

    let too_large = &[Code::OutOfRange, Code::ResourceExhausted];
    for len in [MAX_REQUEST_LEN + 1, 100 << 20] {
        assert_status(client.put("", b"k", &vec![0; len]).await, too_large, "");
        assert_lives(&client, "a long message").await;
    }

    // A number where the method has a text: no message of the method.
    let mut grpc = tonic::client::Grpc::new(client.channel.clone());
    grpc.ready().await.unwrap();
    let wrong = GetRequest {
        version: 1,
        ..GetRequest::default()
    };
    let path = "/tinykvpb.TinyKv/RawGet".parse().unwrap();
    let codec = ProstCodec::<GetRequest, RawGetResponse>::default();
    let answer = grpc.unary(tonic::Request::new(wrong), path, codec).await;
    assert_status(answer.map(drop), invalid, "malformed");
    assert_lives(&client, "a malformed message").await;

    let unimplemented = &[Code::Unimplemented];
    let answer = client.tinykv().kv_get(GetRequest::default()).await;
    assert_status(answer.map(drop), unimplemented, "KvGet");
    let answer = client.tinykv().kv_scan(ScanRequest::default()).await;
    assert_status(answer.map(drop), unimplemented, "KvScan");
    let mut grpc = tonic::client::Grpc::new(client.channel.clone());
    for path in ["/tinykvpb.TinyKv/Nonsense", "/no.such.Service/Call"] {
        grpc.ready().await.unwrap();
        let codec = ProstCodec::<GetRequest, RawGetResponse>::default();
        let request = tonic::Request::new(GetRequest::default());
        let answer = grpc.unary(request, path.parse().unwrap(), codec).await;
        assert_status(answer.map(drop), unimplemented, "");
    }
    assert_lives(&client, "what is not there").await;
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_http_end_only_their_own_connection() {
    let (_root, dir) = data_dir();
    let server = Running::start(&dir);
    let client = server.client().await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    // A header block that says 16 MiB and holds nothing.
    let bomb = [0xff, 0xff, 0xff, 1, 4, 0, 0, 0, 1];
    let stray_data = [0, 0, 1, 0, 0, 0, 0, 0, 7, 42];
    for (name, parts) in [
        (
            "noise",
            vec![&b"\x16\x03\x01garbage that is no protocol at all"[..]],
        ),
        ("HTTP/1", vec![b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"]),
        ("a cut preface", vec![&preface[..10]]),
        ("an oversized frame", vec![preface, &settings, &bomb]),
        ("a stray frame", vec![preface, &settings, &stray_data]),
    ] {
        let mut stream = TcpStream::connect(&server.addr).await.unwrap();
        stream.write_all(&parts.concat()).await.unwrap();
        stream.shutdown().await.unwrap();
        // The server answers in its own way, or resets; it does not keep the connection.
        let _ = stream.read_to_end(&mut Vec::new()).await;
        assert_lives(&client, name).await;
    }
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_over_their_limit_are_refused_and_the_server_lives_on() {
    let (_root, dir) = data_dir();
    let server = Running::start(&dir);
    let client = server.client().await;
    let mut request = tonic::Request::new(basaltkv::proto::kvrpcpb::RawGetRequest::default());
    let long = "x".repeat(1 << 20);
    request
        .metadata_mut()
        .insert("x-long", long.parse().unwrap());
    let outcome = client.tinykv().raw_get(request).await;
    assert!(outcome.is_err(), "{outcome:?}");
    let client = server.client().await;
    assert_lives(&client, "long headers").await;
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_a_table_is_an_error_of_its_reads_and_of_check() {
    let (_root, dir) = data_dir();
    let server = Running::start(&dir);
    let client = server.client().await;
    client.put("write", b"k", b"the only value").await.unwrap();
    client.put("lock", b"k", b"sound").await.unwrap();
    let (code, _, stderr) =
        crate::support::run(&["flush", "--addr", &server.addr, "--cf", "write"]);
    assert_eq!(code, 0, "{stderr}");
    server.stop();
    let check = ["check", dir.to_str().unwrap()];
    let (code, stdout, _) = crate::support::run(&check);
    assert!(code == 0 && stdout.ends_with("ok\n"), "{stdout}");

    let tables = std::fs::read_dir(dir.join("kv"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let tables: Vec<_> = tables
        .filter(|path| path.extension().is_some_and(|end| end == "sst"))
        .collect();
    let [table] = &tables[..] else {
        panic!("one table expected: {tables:?}")
    };
    let mut bytes = std::fs::read(table).unwrap();
    let at = bytes
        .windows(8)
        .position(|window| window == b"the only")
        .unwrap();
    bytes[at] ^= 1;
    std::fs::write(table, bytes).unwrap();

    let name = table.file_name().unwrap().to_str().unwrap();
    let (code, stdout, stderr) = crate::support::run(&check);
    assert_eq!(code, 1, "{stdout}");
    assert!(
        stdout.contains("damage") && stdout.contains(name),
        "{stdout}"
    );
    assert!(stderr.contains("is damaged"), "{stderr}");

    let server = Running::start(&dir);
    let client = server.client().await;
    let error = client.read("write", b"k").await.unwrap().unwrap_err();
    assert!(
        error.starts_with("CORRUPTION: ") && error.contains(name),
        "{error}"
    );
    assert_eq!(
        client.get("lock", b"k").await.unwrap(),
        b"sound",
        "the rest is served"
    );
    server.stop();
}
