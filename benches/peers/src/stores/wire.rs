//! What is said to the servers: etcd's messages, by hand, the health check, and one way to call for all.
//!
//! Promises: both sides are asked through the same code; an answer that is not the right one is an error.
//! Not here: how many ask at once (`load`).

use basalt_proto::kvrpcpb::{RawGetRequest, RawGetResponse, RawPutRequest, RawPutResponse};
use bytes::Bytes;
use prost::Message;
use tonic::{Request, Status, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};
use tonic_prost::ProstCodec;

/// Bytes of a value.
pub const VALUE: usize = 256;
/// Bytes of a key.
pub const KEY: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Etcd,
    Basalt,
}

impl Kind {
    pub const ALL: [Self; 2] = [Self::Etcd, Self::Basalt];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Basalt => "Basalt",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Put,
    Get,
    /// A health check: what a call costs that does nothing.
    Empty,
}

impl Op {
    pub const ALL: [Self; 3] = [Self::Put, Self::Get, Self::Empty];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Empty => "empty call",
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

/// Every answer of etcd begins with it.
#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(uint64, tag = "2")]
    member_id: u64,
}

#[derive(Clone, PartialEq, Message)]
struct PutResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
}

/// Linearizable, as `serializable` (7) is left out.
#[derive(Clone, PartialEq, Message)]
struct RangeRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(bytes = "bytes", tag = "5")]
    value: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct RangeResponse {
    #[prost(message, repeated, tag = "2")]
    kvs: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Empty {}

#[derive(Clone, PartialEq, Message)]
struct Health {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// One client's way to a server.
#[derive(Clone)]
pub struct Client {
    kind: Kind,
    grpc: Grpc<Channel>,
}

impl Client {
    pub fn new(kind: Kind, channel: Channel) -> Self {
        let grpc = Grpc::new(channel);
        Self { kind, grpc }
    }

    /// One request, from sending it to having looked at its answer.
    pub async fn ask(&mut self, op: Op, key: Bytes, value: Bytes) -> Result<(), String> {
        match op {
            Op::Put => self.put(key, value).await,
            Op::Get => self.get(key).await,
            Op::Empty => self.health().await,
        }
    }

    async fn put(&mut self, key: Bytes, value: Bytes) -> Result<(), String> {
        match self.kind {
            Kind::Etcd => {
                let request = PutRequest { key, value };
                let path = "/etcdserverpb.KV/Put";
                self.call::<_, PutResponse>(path, request).await?;
            }
            Kind::Basalt => {
                let request = RawPutRequest {
                    key,
                    value,
                    cf: "default".to_owned(),
                    ..RawPutRequest::default()
                };
                let answer: RawPutResponse = self.call("/tinykvpb.TinyKv/RawPut", request).await?;
                if answer.region_error.is_some() || !answer.error.is_empty() {
                    return Err(format!("{answer:?}"));
                }
            }
        }
        Ok(())
    }

    async fn get(&mut self, key: Bytes) -> Result<(), String> {
        let len = match self.kind {
            Kind::Etcd => {
                let request = RangeRequest { key };
                let answer: RangeResponse = self.call("/etcdserverpb.KV/Range", request).await?;
                answer.kvs.first().map_or(0, |found| found.value.len())
            }
            Kind::Basalt => {
                let request = RawGetRequest {
                    key,
                    cf: "default".to_owned(),
                    ..RawGetRequest::default()
                };
                let answer: RawGetResponse = self.call("/tinykvpb.TinyKv/RawGet", request).await?;
                if answer.region_error.is_some() || !answer.error.is_empty() {
                    return Err(format!("{answer:?}"));
                }
                answer.value.len()
            }
        };
        if len == VALUE {
            return Ok(());
        }
        Err(format!("a value of {len} bytes was read, not of {VALUE}"))
    }

    async fn health(&mut self) -> Result<(), String> {
        let answer: Health = self.call("/grpc.health.v1.Health/Check", Empty {}).await?;
        if answer.status == 1 {
            return Ok(());
        }
        Err(format!("health {}", answer.status))
    }

    /// Whether the server leads; where it is asked by writing, `key` is what is written.
    pub async fn leads(&mut self, key: Bytes, value: Bytes) -> bool {
        if self.kind == Kind::Basalt {
            return self.put(key, value).await.is_ok();
        }
        let path = "/etcdserverpb.Maintenance/Status";
        let status: Result<StatusResponse, _> = self.call(path, Empty {}).await;
        status.is_ok_and(|status| {
            let own = status.header.map_or(0, |header| header.member_id);
            own != 0 && own == status.leader
        })
    }

    async fn call<Q, A>(&mut self, path: &'static str, request: Q) -> Result<A, String>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let ready = self.grpc.ready().await;
        ready.map_err(|error| format!("{path}: {error}"))?;
        let codec = ProstCodec::<Q, A>::default();
        let path_and_query = PathAndQuery::from_static(path);
        let answer = self
            .grpc
            .unary(Request::new(request), path_and_query, codec)
            .await;
        let answer = answer.map_err(|status: Status| format!("{path}: {status}"))?;
        Ok(answer.into_inner())
    }
}
