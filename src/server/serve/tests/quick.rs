//! The quick way of gets, puts and deletes beside tonic's: both answer alike whatever a request looks like; and what a
//! connection does with requests that wait, or panic.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context as TaskContext, Poll},
};

use axum::http::{HeaderMap, HeaderValue, Request};
use http_body::{Body as HttpBody, Frame};
use prost::Message as _;
use tonic::body::Body;
use tower::Service as _;

use super::*;
use crate::storage::{BoxFuture, Context, Modify, Result as StorageResult, StorageReader};

/// A body of these frames; each leaves by itself.
struct Frames {
    frames: VecDeque<Frame<Bytes>>,
    pause: Pin<Box<tokio::time::Sleep>>,
}

/// Longer than the transport takes to send what it has.
const PAUSE: Duration = Duration::from_millis(2);

impl HttpBody for Frames {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.pause.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.pause = Box::pin(tokio::time::sleep(PAUSE));
        Poll::Ready(self.frames.pop_front().map(Ok))
    }
}

fn body(frames: Vec<Frame<Bytes>>) -> Body {
    Body::new(Frames {
        frames: frames.into(),
        pause: Box::pin(tokio::time::sleep(PAUSE)),
    })
}

/// A header that says what is so anyway, and sends a request the way of tonic.
pub(super) const ROUTED: (&str, &str) = ("grpc-encoding", "identity");

/// What a request was answered: status, its message, the message in the answer.
pub(super) type Told = (Option<String>, Option<String>, Vec<u8>);

pub(super) async fn ask(
    channel: &Channel,
    method: &str,
    headers: &[(&str, &str)],
    frames: Vec<Frame<Bytes>>,
) -> Told {
    let mut request = Request::post(format!("http://x/tinykvpb.TinyKv/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(body(frames)).unwrap();
    let mut channel = channel.clone();
    std::future::poll_fn(|cx| channel.poll_ready(cx))
        .await
        .unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(20), channel.call(request)).await;
    let (head, mut body) = answer.expect("an answer").unwrap().into_parts();
    assert_eq!(head.headers["content-type"], "application/grpc");
    let (mut data, mut last) = (Vec::new(), head.headers);
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        match frame.unwrap().into_data() {
            Ok(more) => data.extend_from_slice(&more),
            Err(frame) => last = frame.into_trailers().unwrap(),
        }
    }
    let text = |name| last.get(name).map(|value| value.to_str().unwrap().into());
    (text("grpc-status"), text("grpc-message"), data)
}

fn data(bytes: &[u8]) -> Frame<Bytes> {
    Frame::data(Bytes::copy_from_slice(bytes))
}

fn trailers() -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-more", HeaderValue::from_static("y"));
    Frame::trailers(trailers)
}

pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    let len = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &len[..], message].concat()
}

fn put_of(key: &[u8], value: &[u8]) -> Vec<u8> {
    let request = RawPutRequest {
        key: Bytes::copy_from_slice(key),
        value: Bytes::copy_from_slice(value),
        ..RawPutRequest::default()
    };
    framed(&request.encode_to_vec())
}

/// Bodies of a request, by what is special about them.
pub(super) fn shapes(whole: &[u8]) -> Vec<(&'static str, Vec<Frame<Bytes>>)> {
    let (prefix, message) = whole.split_at(5);
    let middle = whole.len() / 2;
    let compressed = [&[1], &whole[1..]].concat();
    let longer = [&[0, 0, 0, 1, 0], message].concat();
    vec![
        ("whole", vec![data(whole)]),
        ("nothing", vec![]),
        ("nothing in a frame", vec![data(&[])]),
        ("nothing before it", vec![data(&[]), data(whole)]),
        ("nothing behind it", vec![data(whole), data(&[])]),
        ("prefix apart", vec![data(prefix), data(message)]),
        (
            "in the middle",
            vec![data(&whole[..middle]), data(&whole[middle..])],
        ),
        (
            "byte by byte",
            whole.chunks(1).map(data).collect::<Vec<_>>(),
        ),
        ("trailers", vec![data(whole), trailers()]),
        ("trailers alone", vec![trailers()]),
        ("twice", vec![data(whole), data(whole)]),
        ("twice in a frame", vec![data(&[whole, whole].concat())]),
        ("a prefix alone", vec![data(prefix)]),
        ("cut", vec![data(&whole[..whole.len() - 1])]),
        ("longer than it says", vec![data(&[whole, b"x"].concat())]),
        ("shorter than it says", vec![data(&longer)]),
        ("compressed, it says", vec![data(&compressed)]),
        ("no message", vec![data(&framed(b"\xff\xff\xff"))]),
        ("flags of nobody", vec![data(&[&[7], &whole[1..]].concat())]),
    ]
}

#[tokio::test]
async fn both_ways_answer_alike_whatever_a_request_looks_like() {
    let server = Fixture::new().await;
    let long = vec![7; 40_000];
    server.put("", b"k", b"v").await.unwrap();
    server.put("", b"long", &long).await.unwrap();
    let get = |key: &[u8]| {
        let key = Bytes::copy_from_slice(key);
        let request = RawGetRequest {
            key,
            ..RawGetRequest::default()
        };
        framed(&request.encode_to_vec())
    };
    let unknown = RawGetRequest {
        cf: "nope".to_owned(),
        ..RawGetRequest::default()
    };
    let mut taken = 0;
    for (method, whole) in [
        ("RawGet", get(b"k")),
        ("RawGet", get(b"long")),
        ("RawGet", get(b"missing")),
        ("RawGet", framed(&unknown.encode_to_vec())),
        ("RawGet", get(&vec![b'k'; limits::MAX_KEY_LEN + 1])),
        ("RawPut", put_of(b"k2", b"v")),
        ("RawPut", put_of(b"k3", &[3; 15_000])),
        ("RawDelete", get(b"k2")),
    ] {
        // Byte by byte takes as many pauses.
        let few = |shape: &str| shape != "byte by byte" || whole.len() < 20;
        let kinds = shapes(&whole).into_iter().map(|(shape, _)| shape);
        for (at, shape) in kinds.enumerate().filter(|(_, shape)| few(shape)) {
            let frames = || shapes(&whole).swap_remove(at).1;
            let quick = ask(&server.channel, method, &[], frames()).await;
            let routed = ask(&server.channel, method, &[ROUTED], frames()).await;
            assert_eq!(quick, routed, "{method}, {shape}");
            taken += usize::from(quick.0.as_deref() == Some("0"));
        }
    }
    assert!(taken > 20, "{taken}");
    assert_eq!(server.get("", b"k3").await.unwrap(), [3; 15_000]);
    let (_, text) = server.page("/metrics").await;
    assert!(text.contains("\nbasalt_requests_in_flight 0\n"), "{text}");
}

/// Of a key `wait` a write never ends, of a key `panic` it panics.
struct Stubborn(MemStorage);

impl Storage for Stubborn {
    fn start(&self) -> Result<(), String> {
        self.0.start()
    }

    fn stop(&self) -> StorageResult<()> {
        self.0.stop()
    }

    fn write(&self, ctx: Context, batch: Vec<Modify>) -> BoxFuture<'_, StorageResult<()>> {
        match &ctx.key[..] {
            b"wait" => Box::pin(std::future::pending()),
            b"panic" => Box::pin(async { panic!("as it was told to") }),
            _ => self.0.write(ctx, batch),
        }
    }

    fn get_at_once(
        &self,
        ctx: &Context,
        cf: &'static str,
        key: &[u8],
    ) -> Option<StorageResult<Option<Bytes>>> {
        self.0.get_at_once(ctx, cf, key)
    }

    fn reader(&self, ctx: Context) -> BoxFuture<'_, StorageResult<Box<dyn StorageReader>>> {
        self.0.reader(ctx)
    }

    fn status(&self) -> storage::Status {
        self.0.status()
    }

    fn flush(&self, cf: Option<&'static str>) -> StorageResult<()> {
        self.0.flush(cf)
    }

    fn compact(
        &self,
        cf: &'static str,
        start: Option<&[u8]>,
        end: Option<&[u8]>,
    ) -> StorageResult<()> {
        self.0.compact(cf, start, end)
    }
}

async fn stubborn() -> (Server, TinyKvClient<Channel>) {
    let storage: Arc<dyn Storage> = Arc::new(Stubborn(MemStorage::new()));
    let sockets = Sockets::bind("127.0.0.1:0", "127.0.0.1:0").await.unwrap();
    let (addr, _) = sockets.addrs().unwrap();
    let server = Server::begin(storage, None, sockets, Setup::default());
    let channel = Channel::from_shared(format!("http://{addr}")).unwrap();
    let channel = channel.connect().await.unwrap();
    (server, TinyKvClient::new(channel))
}

fn put(key: &'static [u8]) -> RawPutRequest {
    RawPutRequest {
        key: Bytes::from_static(key),
        ..RawPutRequest::default()
    }
}

async fn in_flight_is(server: &Server, count: i64) {
    let until = Instant::now() + Duration::from_secs(10);
    while server.admission.in_flight() != count {
        assert!(Instant::now() < until, "{}", server.admission.in_flight());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_handler_that_panics_ends_its_request_and_no_other_of_its_connection() {
    let (server, mut client) = stubborn().await;
    let mut other = client.clone();
    let waits = tokio::spawn(async move { other.raw_put(put(b"wait")).await });
    in_flight_is(&server, 1).await;
    for _ in 0..3 {
        let status = client.raw_put(put(b"panic")).await.unwrap_err();
        assert_ne!(status.code(), Code::Unavailable, "{status}");
        client.raw_put(put(b"fine")).await.unwrap();
    }
    in_flight_is(&server, 1).await;
    // A client that waits no longer takes its request with it.
    waits.abort();
    in_flight_is(&server, 0).await;
}

/// The client gives up by itself shortly after the server does, and may be the first where the machine is busy.
fn assert_late(status: &Status) {
    let code = status.code();
    assert!(
        matches!(code, Code::DeadlineExceeded | Code::Cancelled),
        "{status}"
    );
}

#[tokio::test]
async fn a_write_that_never_ends_is_let_go_at_its_deadline() {
    let (server, mut client) = stubborn().await;
    let mut request = tonic::Request::new(put(b"wait"));
    request.set_timeout(Duration::from_millis(60));
    assert_late(&client.raw_put(request).await.unwrap_err());
    in_flight_is(&server, 0).await;
}

#[tokio::test]
async fn a_server_that_stops_lets_its_connections_end_what_they_have() {
    let (server, client) = stubborn().await;
    let mut waiting = client.clone();
    let mut request = tonic::Request::new(put(b"wait"));
    request.set_timeout(Duration::from_millis(500));
    let waits = tokio::spawn(async move { waiting.raw_put(request).await });
    in_flight_is(&server, 1).await;
    let began = Instant::now();
    server.stop().await.unwrap();
    assert!(began.elapsed() < limits::DRAIN_TIMEOUT);
    assert_late(&waits.await.unwrap().unwrap_err());
}
