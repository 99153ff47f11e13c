//! SIGTERM and SIGINT: drain, close, exit 0.

use std::time::{Duration, Instant};

use basaltkv::proto::kvrpcpb::{RawPutRequest, RawPutResponse};
use tonic_prost::ProstCodec;

use crate::support::{Running, data_dir};

#[tokio::test(flavor = "multi_thread")]
async fn both_signals_end_an_idle_server_at_once_with_code_0() {
    let (_root, dir) = data_dir();
    for signal in ["TERM", "INT"] {
        let server = Running::start(&dir);
        let client = server.client().await;
        client.put("", signal.as_bytes(), b"v").await.unwrap();
        server.signal(signal);
        let began = Instant::now();
        let (status, stderr) = server.wait(Duration::from_secs(10));
        assert_eq!(status.code(), Some(0), "{stderr}");
        assert!(
            began.elapsed() < Duration::from_secs(4),
            "an idle connection holds nothing up"
        );
    }
    let server = Running::start(&dir);
    let client = server.client().await;
    assert_eq!(client.get("", b"TERM").await.unwrap(), b"v");
    assert_eq!(client.get("", b"INT").await.unwrap(), b"v");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_load_loses_no_acknowledged_write_and_ends_in_time() {
    let (_root, dir) = data_dir();
    let server = Running::start(&dir);
    let (acks, mut acked) = tokio::sync::mpsc::unbounded_channel();
    let mut writers = Vec::new();
    for writer in 0..8u32 {
        let (client, acks) = (server.client().await, acks.clone());
        writers.push(tokio::spawn(async move {
            for number in 0u32.. {
                let key = format!("{writer}/{number}");
                match client.put("", key.as_bytes(), key.as_bytes()).await {
                    Ok(error) => {
                        assert_eq!(error, "");
                        acks.send(key).unwrap();
                    }
                    Err(_) => return,
                }
            }
        }));
    }
    drop(acks);
    let mut keys = Vec::new();
    while keys.len() < 200 {
        keys.push(acked.recv().await.unwrap());
    }
    server.signal("TERM");
    let (status, stderr) = server.wait(Duration::from_secs(10));
    assert_eq!(status.code(), Some(0), "{stderr}");
    for writer in writers {
        writer.await.unwrap();
    }
    while let Some(key) = acked.recv().await {
        keys.push(key);
    }
    let server = Running::start(&dir);
    let client = server.client().await;
    for key in &keys {
        assert_eq!(
            client.get("", key.as_bytes()).await.unwrap(),
            key.as_bytes()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_a_server_that_drains() {
    let (_root, dir) = data_dir();
    let server = Running::start(&dir);
    let client = server.client().await;
    // A request whose message never comes keeps the server draining.
    let mut grpc = tonic::client::Grpc::new(client.channel.clone());
    grpc.ready().await.unwrap();
    let hanging = tokio::spawn(async move {
        let codec = ProstCodec::<RawPutRequest, RawPutResponse>::default();
        let path = "/tinykvpb.TinyKv/RawPut".parse().unwrap();
        let never = tonic::Request::new(tokio_stream::pending());
        grpc.client_streaming(never, path, codec).await.map(drop)
    });
    // The request is on its way once the server counts it.
    let began = Instant::now();
    loop {
        let metrics = page(&server.status_addr, "/metrics").await;
        if metrics.contains("basalt_requests_in_flight 1\n") {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{metrics}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.signal("TERM");
    // The first signal has been taken when new connections are refused.
    let began = Instant::now();
    while tokio::net::TcpStream::connect(&server.addr).await.is_ok() {
        assert!(
            began.elapsed() < Duration::from_secs(4),
            "the listener is still open"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.signal("TERM");
    let (status, stderr) = server.wait(Duration::from_secs(2));
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("second signal"), "{stderr}");
    assert!(hanging.await.unwrap().is_err());
}

pub(crate) async fn page(addr: &str, path: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}
