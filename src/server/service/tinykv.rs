//! The service `tinykvpb.TinyKv` over a [`Storage`]: raw reads, writes and scans.
//!
//! Promises: an answer to a write without an error means that it survives power loss; a request over
//! a limit, or for an unknown column family, is refused by name and changes nothing. An empty `cf`
//! means `default`, an empty value is a value, an empty key a key; a scan with limit 0 returns
//! nothing, and one whose answer would pass [`MAX_SCAN_ANSWER_LEN`] is cut short after its first
//! pair at the earliest: the client goes on behind the last key it got.
//!
//! Not here: deadlines, overload, malformed bytes (`admission`). RPCs that are not built yet answer
//! `UNIMPLEMENTED` by their name.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use basalt_proto::{
    coprocessor,
    kvrpcpb::{
        self, BatchRollbackRequest, BatchRollbackResponse, CheckTxnStatusRequest,
        CheckTxnStatusResponse, CommitRequest, CommitResponse, GetRequest, GetResponse, KvPair,
        PrewriteRequest, PrewriteResponse, RawDeleteRequest, RawDeleteResponse, RawGetRequest,
        RawGetResponse, RawPutRequest, RawPutResponse, RawScanRequest, RawScanResponse,
        ResolveLockRequest, ResolveLockResponse, ScanRequest, ScanResponse,
    },
    raft_serverpb,
};
use bytes::Bytes;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, Streaming};

use super::{Told, admission::InFlight, blocking, told};
use crate::{
    auth::Right,
    limits::{MAX_KEY_LEN, MAX_RUNNING_SCANS, MAX_SCAN_ANSWER_LEN, MAX_VALUE_LEN},
    replicated::Cluster,
    storage::{
        BoxFuture, Context, Modify, Result as StorageResult, Storage, StorageReader, family,
    },
    stubs::tinykvpb::tiny_kv_server::TinyKv,
};

/// Steps of a scan between two looks at whether anybody still waits for it.
const STEPS_PER_CHECK: usize = 256;

/// The service.
pub struct TinyKvService {
    storage: Arc<dyn Storage>,
    /// Absent in a standalone server.
    cluster: Option<Arc<Cluster>>,
    /// Scans take long; they must not take every thread that gets need.
    scans: Arc<Semaphore>,
}

impl TinyKvService {
    /// The service over `storage`, as one store of `cluster` where it is one.
    #[must_use]
    pub fn new(storage: Arc<dyn Storage>, cluster: Option<Arc<Cluster>>) -> Self {
        Self {
            storage,
            cluster,
            scans: Arc::new(Semaphore::new(MAX_RUNNING_SCANS)),
        }
    }

    /// The value of a key.
    async fn get(
        &self,
        in_flight: &InFlight,
        request: RawGetRequest,
    ) -> Result<RawGetResponse, Status> {
        match self.get_at_once(in_flight, &request) {
            Some(answer) => answer,
            None => self.get_slowly(in_flight, request).await,
        }
    }

    /// The same for a request of which is known that it cannot be had at once.
    pub(super) async fn get_slowly(
        &self,
        in_flight: &InFlight,
        request: RawGetRequest,
    ) -> Result<RawGetResponse, Status> {
        let RawGetRequest {
            context: region,
            key,
            cf,
        } = request;
        let cf = check(in_flight, Right::Read, &cf, &key)?;
        let found = match self.storage.reader(context(in_flight, region, &key)).await {
            Ok(reader) => blocking(move || reader.get_cf(cf, &key)).await?,
            Err(error) => Err(error),
        };
        found_answer(in_flight, found)
    }

    /// The same where it can be had, or refused, without waiting.
    pub(super) fn get_at_once(
        &self,
        in_flight: &InFlight,
        request: &RawGetRequest,
    ) -> Option<Result<RawGetResponse, Status>> {
        let cf = match check(in_flight, Right::Read, &request.cf, &request.key) {
            Ok(cf) => cf,
            Err(status) => return Some(Err(status)),
        };
        let ctx = context(in_flight, request.context, &request.key);
        let found = self.storage.get_at_once(&ctx, cf, &request.key);
        found.map(|found| found_answer(in_flight, found))
    }

    /// Begins to set a key.
    pub(super) fn put(
        &self,
        in_flight: &InFlight,
        request: RawPutRequest,
    ) -> Result<BoxFuture<'_, StorageResult<()>>, Status> {
        let RawPutRequest {
            context: region,
            key,
            value,
            cf,
        } = request;
        let cf = check(in_flight, Right::Write, &cf, &key)?;
        check_len("value", value.len(), MAX_VALUE_LEN)?;
        let ctx = context(in_flight, region, &key);
        let modify = Modify::Put { cf, key, value };
        Ok(self.storage.write(ctx, vec![modify]))
    }

    /// Begins to remove a key.
    pub(super) fn delete(
        &self,
        in_flight: &InFlight,
        request: RawDeleteRequest,
    ) -> Result<BoxFuture<'_, StorageResult<()>>, Status> {
        let RawDeleteRequest {
            context: region,
            key,
            cf,
        } = request;
        let cf = check(in_flight, Right::Write, &cf, &key)?;
        let ctx = context(in_flight, region, &key);
        Ok(self.storage.write(ctx, vec![Modify::Delete { cf, key }]))
    }

    /// The store of a cluster that streams of other stores are for.
    fn cluster(&self) -> Result<&Arc<Cluster>, Status> {
        self.cluster.as_ref().ok_or_else(|| {
            Status::failed_precondition("this server is standalone; it belongs to no cluster")
        })
    }
}

/// What a get is answered.
fn found_answer(
    in_flight: &InFlight,
    found: StorageResult<Option<Bytes>>,
) -> Result<RawGetResponse, Status> {
    let mut response = RawGetResponse::default();
    match found {
        Ok(Some(value)) => {
            in_flight.hold_answer(value.len())?;
            response.value = value;
        }
        Ok(None) => response.not_found = true,
        Err(error) => {
            let told = told(error)?;
            (response.region_error, response.error) = (told.region_error, told.error);
        }
    }
    Ok(response)
}

/// What a put is answered.
pub(super) fn put_answer(done: StorageResult<()>) -> Result<RawPutResponse, Status> {
    let told = done.map_or_else(told, |()| Ok(Told::default()))?;
    Ok(RawPutResponse {
        region_error: told.region_error,
        error: told.error,
    })
}

/// What a delete is answered.
pub(super) fn delete_answer(done: StorageResult<()>) -> Result<RawDeleteResponse, Status> {
    let told = done.map_or_else(told, |()| Ok(Told::default()))?;
    Ok(RawDeleteResponse {
        region_error: told.region_error,
        error: told.error,
    })
}

fn context(in_flight: &InFlight, region: Option<kvrpcpb::Context>, key: &Bytes) -> Context {
    Context {
        region,
        key: key.clone(),
        deadline: in_flight.deadline,
    }
}

/// The family that a request names, where its caller has a right on its key there.
fn check(in_flight: &InFlight, right: Right, cf: &str, key: &[u8]) -> Result<&'static str, Status> {
    let cf = check_family(cf)?;
    check_key(key)?;
    in_flight.allow(right, cf, key)?;
    Ok(cf)
}

fn check_family(name: &str) -> Result<&'static str, Status> {
    family(name).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn check_key(key: &[u8]) -> Result<(), Status> {
    check_len("key", key.len(), MAX_KEY_LEN)
}

fn check_len(what: &str, len: usize, limit: usize) -> Result<(), Status> {
    if len > limit {
        let text = format!("the {what} has {len} bytes, the limit is {limit}");
        return Err(Status::invalid_argument(text));
    }
    Ok(())
}

/// The error of an RPC that this version does not have.
fn not_built<T>(name: &str) -> Result<T, Status> {
    Err(Status::unimplemented(format!(
        "{name} is not implemented by this version of Basalt"
    )))
}

/// Set when its owner goes away: a client that gave up, or whose deadline passed.
struct Watch(Arc<AtomicBool>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Pairs of `cf` from `start` on and before `end`, if there is one: at most `limit`, and not more than an answer holds.
fn scan(
    reader: &dyn StorageReader,
    cf: &'static str,
    (start, end): (&[u8], Option<&[u8]>),
    limit: usize,
    abandoned: &AtomicBool,
) -> StorageResult<Vec<KvPair>> {
    let mut pairs = Vec::new();
    let mut answer_len = 0;
    let mut iter = reader.iter_cf(cf)?;
    iter.seek(start)?;
    while pairs.len() < limit && iter.valid() {
        if pairs.len() % STEPS_PER_CHECK == 0 && abandoned.load(Ordering::Relaxed) {
            break;
        }
        if end.is_some_and(|end| iter.key() >= end) {
            break;
        }
        answer_len += iter.key().len() + iter.value().len() + PAIR_OVERHEAD;
        if answer_len > MAX_SCAN_ANSWER_LEN && !pairs.is_empty() {
            break;
        }
        pairs.push(KvPair {
            error: None,
            key: Bytes::copy_from_slice(iter.key()),
            value: Bytes::copy_from_slice(iter.value()),
        });
        iter.next()?;
    }
    Ok(pairs)
}

/// Bytes of a pair on the wire beside key and value: three tags and three lengths of at most four bytes.
const PAIR_OVERHEAD: usize = 3 + 3 * 4;

#[tonic::async_trait]
impl TinyKv for TinyKvService {
    async fn raw_get(
        &self,
        request: Request<RawGetRequest>,
    ) -> Result<Response<RawGetResponse>, Status> {
        let in_flight = InFlight::of(request.extensions());
        let answer = self.get(&in_flight, request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    async fn raw_put(
        &self,
        request: Request<RawPutRequest>,
    ) -> Result<Response<RawPutResponse>, Status> {
        let in_flight = InFlight::of(request.extensions());
        let done = self.put(&in_flight, request.into_inner())?.await;
        let answer = put_answer(done)?;
        Ok(Response::new(answer))
    }

    async fn raw_delete(
        &self,
        request: Request<RawDeleteRequest>,
    ) -> Result<Response<RawDeleteResponse>, Status> {
        let in_flight = InFlight::of(request.extensions());
        let done = self.delete(&in_flight, request.into_inner())?.await;
        let answer = delete_answer(done)?;
        Ok(Response::new(answer))
    }

    async fn raw_scan(
        &self,
        request: Request<RawScanRequest>,
    ) -> Result<Response<RawScanResponse>, Status> {
        let in_flight = InFlight::of(request.extensions());
        let RawScanRequest {
            context: region,
            start_key,
            limit,
            cf,
        } = request.into_inner();
        let cf = check_family(&cf)?;
        check_key(&start_key)?;
        let end = in_flight.allow_scan(cf, &start_key)?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let turn = Arc::clone(&self.scans).acquire_owned().await;
        let turn = turn.expect("the semaphore is never closed");
        let abandoned = Arc::new(AtomicBool::new(false));
        let _watch = Watch(Arc::clone(&abandoned));
        let ctx = context(&in_flight, region, &start_key);
        let found = match self.storage.reader(ctx).await {
            Ok(reader) => {
                let work = move || {
                    let _turn = turn;
                    let range = (&start_key[..], end.as_deref());
                    scan(&*reader, cf, range, limit, &abandoned)
                };
                blocking(work).await?
            }
            Err(error) => Err(error),
        };
        let mut response = RawScanResponse::default();
        match found {
            Ok(pairs) => {
                let len = |pair: &KvPair| pair.key.len() + pair.value.len() + PAIR_OVERHEAD;
                in_flight.hold_answer(pairs.iter().map(len).sum())?;
                response.kvs = pairs;
            }
            Err(error) => {
                let told = told(error)?;
                (response.region_error, response.error) = (told.region_error, told.error);
            }
        }
        Ok(Response::new(response))
    }

    async fn kv_get(&self, _: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        not_built("KvGet")
    }

    async fn kv_scan(&self, _: Request<ScanRequest>) -> Result<Response<ScanResponse>, Status> {
        not_built("KvScan")
    }

    async fn kv_prewrite(
        &self,
        _: Request<PrewriteRequest>,
    ) -> Result<Response<PrewriteResponse>, Status> {
        not_built("KvPrewrite")
    }

    async fn kv_commit(
        &self,
        _: Request<CommitRequest>,
    ) -> Result<Response<CommitResponse>, Status> {
        not_built("KvCommit")
    }

    async fn kv_check_txn_status(
        &self,
        _: Request<CheckTxnStatusRequest>,
    ) -> Result<Response<CheckTxnStatusResponse>, Status> {
        not_built("KvCheckTxnStatus")
    }

    async fn kv_batch_rollback(
        &self,
        _: Request<BatchRollbackRequest>,
    ) -> Result<Response<BatchRollbackResponse>, Status> {
        not_built("KvBatchRollback")
    }

    async fn kv_resolve_lock(
        &self,
        _: Request<ResolveLockRequest>,
    ) -> Result<Response<ResolveLockResponse>, Status> {
        not_built("KvResolveLock")
    }

    async fn raft(
        &self,
        request: Request<Streaming<raft_serverpb::RaftMessage>>,
    ) -> Result<Response<raft_serverpb::Done>, Status> {
        let cluster = Arc::clone(self.cluster()?);
        cluster.take_messages(request).await.map(Response::new)
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<raft_serverpb::SnapshotChunk>>,
    ) -> Result<Response<raft_serverpb::Done>, Status> {
        let cluster = Arc::clone(self.cluster()?);
        cluster.take_snapshot(request).await.map(Response::new)
    }

    async fn coprocessor(
        &self,
        _: Request<coprocessor::Request>,
    ) -> Result<Response<coprocessor::Response>, Status> {
        not_built("Coprocessor")
    }
}
