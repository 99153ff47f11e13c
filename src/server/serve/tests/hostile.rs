//! Clients that mean harm, on bare TCP: what they send is legal up to the point where it is not.

use tokio::net::TcpStream;

use super::*;

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// One HTTP/2 connection of a client that never opens its windows: 65,535 bytes of answers pass.
struct Connection {
    stream: TcpStream,
    next_id: u32,
}

impl Connection {
    async fn open(addr: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await
            .unwrap();
        stream.write_all(&frame(4, 0, 0, &[])).await.unwrap();
        Self { stream, next_id: 1 }
    }

    fn id(&mut self) -> u32 {
        self.next_id += 2;
        self.next_id - 2
    }

    /// Sends one unary request and reads nothing.
    async fn request(&mut self, path: &str, message: &[u8]) {
        let id = self.id();
        let mut bytes = frame(HEADERS, END_HEADERS, id, &header_block(path));
        let mut data = vec![0];
        data.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
        data.extend_from_slice(message);
        bytes.extend(frame(0, END_STREAM, id, &data));
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// True once the server has closed the connection.
    async fn is_closed(&mut self) -> bool {
        let mut buffer = vec![0; 1 << 16];
        let read = async { while self.stream.read(&mut buffer).await.is_ok_and(|len| len > 0) {} };
        tokio::time::timeout(Duration::from_secs(10), read)
            .await
            .is_ok()
    }
}

fn frame(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&len[1..], &[kind, flags], &id.to_be_bytes(), payload].concat()
}

/// Headers of a request, each as a literal that is not to be kept.
fn header_block(path: &str) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "x"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        put_header(&mut block, name, value);
    }
    block
}

fn put_header(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0);
    for text in [name, value] {
        block.push(u8::try_from(text.len()).unwrap());
        block.extend_from_slice(text.as_bytes());
    }
}

/// A connection with one request (stream 1), of whose message of nine bytes only the length has come.
pub(super) async fn half_a_request(addr: SocketAddr) -> TcpStream {
    let mut connection = Connection::open(addr).await;
    let id = connection.id();
    let block = header_block("/tinykvpb.TinyKv/RawGet");
    let mut bytes = frame(HEADERS, END_HEADERS, id, &block);
    bytes.extend(frame(0, 0, id, &[0, 0, 0, 0, 9]));
    connection.stream.write_all(&bytes).await.unwrap();
    connection.stream
}

impl Fixture {
    /// Over a connection of its own, as the usual client may have met the attack.
    async fn assert_lives(&self) {
        let channel = Channel::from_shared(format!("http://{}", self.addr)).unwrap();
        let mut client = TinyKvClient::new(channel.connect().await.unwrap());
        let key = Bytes::from_static(b"alive");
        let put = RawPutRequest {
            key: key.clone(),
            value: key.clone(),
            ..Default::default()
        };
        client.raw_put(put).await.unwrap();
        let get = RawGetRequest {
            key: key.clone(),
            ..Default::default()
        };
        assert_eq!(client.raw_get(get).await.unwrap().into_inner().value, key);
    }
}

#[tokio::test]
async fn an_answer_that_nobody_takes_is_given_up_and_its_bytes_come_back() {
    let time = Duration::from_millis(300);
    let budgets = Budgets {
        answer_bytes: 400_000,
        answer_time: time,
        ..usual()
    };
    let server = Fixture::with(budgets).await;
    server.put("", b"k", &[7; 300_000]).await.unwrap();
    assert!(server.raw_get("", b"k").await.is_ok());

    let mut slow = Connection::open(server.addr).await;
    slow.request("/tinykvpb.TinyKv/RawGet", b"\x12\x01k").await;
    let began = Instant::now();
    while server.raw_get("", b"k").await.is_ok() {
        assert!(
            began.elapsed() < time,
            "the answer that waits is not counted"
        );
    }
    while server.raw_get("", b"k").await.is_err() {
        assert!(
            began.elapsed() < 20 * time,
            "the answer that waits is held for ever"
        );
        tokio::time::sleep(time / 20).await;
    }
    drop(slow);
}

#[tokio::test]
async fn many_answers_that_nobody_takes_leave_room_for_those_who_do() {
    let server = Fixture::new().await;
    server
        .put("", b"big", &vec![7; limits::MAX_VALUE_LEN])
        .await
        .unwrap();
    server.put("", b"small", b"v").await.unwrap();
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut connection = Connection::open(server.addr).await;
        for _ in 0..10 {
            connection
                .request("/tinykvpb.TinyKv/RawGet", b"\x12\x03big")
                .await;
        }
        slow.push(connection);
    }
    // 200 answers of 8 MiB are asked for; what may wait is 128 MiB.
    let began = Instant::now();
    loop {
        match server.raw_get("", b"big").await {
            Err(status) => break assert_eq!(status.code(), Code::ResourceExhausted, "{status}"),
            Ok(_) => assert!(began.elapsed() < Duration::from_secs(20), "all of it waits"),
        }
    }
    for _ in 0..100 {
        assert_eq!(server.put("", b"k", b"v").await.unwrap(), "");
        assert_eq!(server.scan("", b"k", 1).await.unwrap().len(), 1);
    }
    drop(slow);
}

#[tokio::test]
async fn requests_that_are_reset_at_once_end_the_connection_and_nothing_else() {
    let server = Fixture::new().await;
    let mut connection = Connection::open(server.addr).await;
    let mut bytes = Vec::new();
    for _ in 0..20_000 {
        let id = connection.id();
        let block = header_block("/tinykvpb.TinyKv/RawGet");
        bytes.extend(frame(HEADERS, END_HEADERS, id, &block));
        bytes.extend(frame(RST_STREAM, 0, id, &8u32.to_be_bytes()));
    }
    // The server may hang up in the middle.
    let _ = connection.stream.write_all(&bytes).await;
    assert!(connection.is_closed().await);
    server.assert_lives().await;
}

#[tokio::test]
async fn headers_without_an_end_are_cut_off() {
    let server = Fixture::new().await;
    let mut connection = Connection::open(server.addr).await;
    let id = connection.id();
    let mut bytes = frame(HEADERS, 0, id, &header_block("/tinykvpb.TinyKv/RawGet"));
    let mut more = Vec::new();
    put_header(&mut more, "x-more", &"m".repeat(100));
    for _ in 0..20_000 {
        bytes.extend(frame(CONTINUATION, 0, id, &more));
    }
    let _ = connection.stream.write_all(&bytes).await;
    assert!(connection.is_closed().await);
    server.assert_lives().await;
}

#[tokio::test]
async fn streams_over_their_limit_are_refused_and_the_connection_goes_on() {
    let streams = 2;
    let mut config = Config::default();
    config.limits.streams = streams;
    let server = Fixture::of(config).await;
    let mut connection = Connection::open(server.addr).await;
    let mut bytes = Vec::new();
    for _ in 0..=streams {
        // Requests whose messages never come.
        let id = connection.id();
        let block = header_block("/tinykvpb.TinyKv/RawPut");
        bytes.extend(frame(HEADERS, END_HEADERS, id, &block));
    }
    connection.stream.write_all(&bytes).await.unwrap();
    // Frames of the server until it refuses the last stream: RST_STREAM with REFUSED_STREAM.
    let refused = async {
        loop {
            let mut head = [0; 9];
            connection.stream.read_exact(&mut head).await.unwrap();
            let len = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; usize::try_from(len).unwrap()];
            connection.stream.read_exact(&mut payload).await.unwrap();
            if head[3] == RST_STREAM {
                return (u32::from_be_bytes(head[5..].try_into().unwrap()), payload);
            }
        }
    };
    let (id, reason) = tokio::time::timeout(Duration::from_secs(10), refused)
        .await
        .unwrap();
    let first_over = 2 * streams + 1;
    assert_eq!((id, reason), (first_over, 7u32.to_be_bytes().to_vec()));
    server.assert_lives().await;
}

#[tokio::test]
async fn a_message_that_never_comes_whole_is_given_up_at_its_deadline() {
    let server = Fixture::new().await;
    let mut slow = Connection::open(server.addr).await;
    let mut block = header_block("/tinykvpb.TinyKv/RawPut");
    put_header(&mut block, "grpc-timeout", "60m");
    let id = slow.id();
    let mut bytes = frame(HEADERS, END_HEADERS, id, &block);
    // A whole message, but not the end of the request.
    bytes.extend(frame(0, 0, id, &[0, 0, 0, 0, 3, 0x12, 1, b'k']));
    slow.stream.write_all(&bytes).await.unwrap();
    let late = "basalt_requests_total{method=\"RawPut\",code=\"DEADLINE_EXCEEDED\"} 1";
    let began = Instant::now();
    while !server.page("/metrics").await.1.contains(late) {
        assert!(began.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(server.get("", b"k").await, None);
}
