//! Messages that are bytes of any kind: mutated from good ones, cut, grown, and drawn at random, sent to
//! every method of the server. Each gets a status that fits, and the server lives.

use basalt_testkit::{Replay, Rng, Seeds, long_factor};
use basaltkv::{
    proto::kvrpcpb::{KvPair, Mutation, RawPutRequest, RawScanRequest},
    server::limits::{MAX_KEY_LEN, MAX_VALUE_LEN},
};
use prost::Message as _;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use crate::support::{Client, Running, data_dir};

/// Messages of all connections together.
const MESSAGES: u64 = 100_000;
/// Connections that send them.
const CLIENTS: u64 = 8;

const METHODS: [&str; 29] = [
    "/tinykvpb.TinyKv/RawGet",
    "/tinykvpb.TinyKv/RawPut",
    "/tinykvpb.TinyKv/RawDelete",
    "/tinykvpb.TinyKv/RawScan",
    "/tinykvpb.TinyKv/KvGet",
    "/tinykvpb.TinyKv/KvScan",
    "/tinykvpb.TinyKv/KvPrewrite",
    "/tinykvpb.TinyKv/KvCommit",
    "/tinykvpb.TinyKv/KvCheckTxnStatus",
    "/tinykvpb.TinyKv/KvBatchRollback",
    "/tinykvpb.TinyKv/KvResolveLock",
    "/tinykvpb.TinyKv/Raft",
    "/tinykvpb.TinyKv/Snapshot",
    "/tinykvpb.TinyKv/Coprocessor",
    "/basaltpb.Kv/Batch",
    "/basaltpb.Kv/Scan",
    "/basaltpb.Admin/Status",
    "/basaltpb.Admin/Compact",
    "/basaltpb.Admin/Members",
    "/basaltpb.Admin/AddMember",
    "/basaltpb.Admin/RemoveMember",
    "/basaltpb.Admin/TransferLeader",
    "/basaltpb.Admin/Configure",
    "/basaltpb.Admin/Backup",
    "/basaltpb.Admin/Explain",
    "/basaltpb.Admin/Stats",
    "/basaltpb.Admin/Examine",
    "/basaltpb.Peers/Hello",
    "/grpc.health.v1.Health/Check",
];

/// Takes a message as the bytes it is on the wire, and the answer likewise.
#[derive(Clone, Copy, Default)]
struct Bare;

impl Codec for Bare {
    type Encode = Vec<u8>;
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Bare {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(buffer, &item);
        Ok(())
    }
}

impl Decoder for Bare {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        let left = bytes::Buf::remaining(buffer);
        bytes::Buf::advance(buffer, left);
        Ok(Some(()))
    }
}

/// A message to begin with.
fn good(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = |most: usize| {
        let mut bytes = vec![0; rng.len(0..most)];
        rng.fill(&mut bytes);
        bytes
    };
    let (key, value) = (bytes(40), bytes(200));
    match rng.below(4) {
        0 => {
            let cf = rng
                .pick(&["", "default", "write", "lock", "nope"])
                .to_string();
            RawPutRequest {
                context: None,
                key: key.into(),
                value: value.into(),
                cf,
            }
            .encode_to_vec()
        }
        1 => {
            let limit = u32::try_from(rng.below(20)).unwrap();
            let start_key = key.into();
            RawScanRequest {
                context: None,
                start_key,
                limit,
                cf: String::new(),
            }
            .encode_to_vec()
        }
        2 => KvPair {
            error: None,
            key: key.into(),
            value: value.into(),
        }
        .encode_to_vec(),
        _ => Mutation {
            op: 1,
            key: key.into(),
            value: value.into(),
        }
        .encode_to_vec(),
    }
}

fn mutated(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = good(rng);
    for _ in 0..rng.below(4) {
        if bytes.is_empty() {
            bytes.push(rng.byte());
        }
        let at = rng.index(bytes.len());
        match rng.below(6) {
            0 => bytes[at] ^= 1 << rng.below(8),
            1 => bytes[at] = *rng.pick(&[0, 1, 0x7f, 0x80, 0xff]),
            2 => bytes.truncate(at),
            3 => bytes.insert(at, rng.byte()),
            4 => bytes.extend_from_within(..at),
            _ => rng.fill(&mut bytes[at..]),
        }
    }
    // Rarely one near a limit.
    if rng.one_in(2000) {
        let len = *rng.pick(&[
            MAX_KEY_LEN,
            MAX_KEY_LEN + 1,
            MAX_VALUE_LEN,
            MAX_VALUE_LEN + 1,
        ]);
        let key = if len <= MAX_KEY_LEN + 1 { len } else { 1 };
        let (key, value) = (vec![b'k'; key], vec![b'v'; len - key.min(len)]);
        let put = RawPutRequest {
            key: key.into(),
            value: value.into(),
            ..Default::default()
        };
        bytes = put.encode_to_vec();
    }
    bytes
}

/// True where `status` is one that this request may get.
fn fits(path: &str, status: &Status) -> bool {
    match status.code() {
        Code::InvalidArgument => true,
        // The server is standalone, and has no directory of backups.
        Code::FailedPrecondition => {
            let words = [
                "Raft",
                "Snapshot",
                "Member",
                "TransferLeader",
                "Hello",
                "Backup",
            ];
            words.iter().any(|word| path.contains(word))
        }
        Code::Unimplemented => !path.contains("/Raw") && path.contains("TinyKv"),
        // TinyKV's service takes everything drawn here; the others have a lower limit.
        Code::OutOfRange => !path.contains("TinyKv"),
        // The library's own services have the library's own manners.
        Code::Internal | Code::NotFound => path.contains("health"),
        _ => false,
    }
}

async fn send(client: Client, mut rng: Rng, count: u64) -> u64 {
    let mut done = 0;
    for _ in 0..count {
        let path = *rng.pick(&METHODS);
        let message = mutated(&mut rng);
        let mut grpc = Grpc::new(client.channel.clone()).max_decoding_message_size(usize::MAX);
        grpc.ready().await.unwrap();
        let shown = message.escape_ascii().to_string();
        let answer = grpc
            .unary(Request::new(message), path.parse().unwrap(), Bare)
            .await;
        match answer {
            Ok(_) => done += 1,
            Err(status) => assert!(fits(path, &status), "{path} {shown:.200}: {status}"),
        }
    }
    done
}

#[tokio::test(flavor = "multi_thread")]
async fn mutated_messages_get_a_status_that_fits_and_the_server_lives() {
    let (_root, dir) = data_dir();
    let server = Running::start(&dir);
    for seed in Seeds::new("mutated messages", 1) {
        let _replay = Replay::new("--test server", "mutated_messages", seed);
        let mut rng = Rng::new(seed);
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let rng = Rng::new(rng.next_u64());
            let count = MESSAGES / CLIENTS * long_factor();
            clients.push(tokio::spawn(send(server.client().await, rng, count)));
        }
        let mut done = 0;
        for client in clients {
            done += client.await.unwrap();
        }
        let all = MESSAGES * long_factor();
        // Both must occur, or nothing was tried.
        assert!(
            done > all / 20 && done < all * 19 / 20,
            "{done} of {all} were taken"
        );
    }
    let client = server.client().await;
    assert_eq!(client.put("", b"alive", b"yes").await.unwrap(), "");
    assert_eq!(client.get("", b"alive").await.unwrap(), b"yes");
    server.signal("TERM");
    let (status, stderr) = server.wait(std::time::Duration::from_secs(20));
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
}
