//! The service `basaltpb.Kv` over a [`Storage`]: what TinyKV's API has no call for. Several changes as one, ranges of
//! deletes, scans both ways that skip values or only count.
//!
//! Promises: a batch is done whole or not at all, also by the store of a cluster, where it is one command of the log;
//! an answer without an error means that it survives power loss. A page of a scan is one moment, not older than any
//! write acknowledged before it was asked for. Admission, limits, rights and errors are those of TinyKV's raw calls.
//!
//! A delete of a range needs the right to write on all of it, by one grant; a scan is cut where the right to read ends
//! that its start has.
//! Refused: a batch of more than [`MAX_BATCH_LEN`] bytes, and one whose keys are not all of one region.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use basalt_proto::basaltpb::{
    BatchRequest, BatchResponse, Change, ScanPair, ScanRequest, ScanResponse, change::Kind,
};
use bytes::Bytes;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use super::{
    admission::InFlight,
    blocking,
    tinykv::{
        PAIR_OVERHEAD, STEPS_PER_CHECK, TinyKvService, Watch, check, check_family, check_key,
        check_len, context,
    },
    told,
};
use crate::{
    auth::Right,
    limits::{CHANGE_BASE_LEN, MAX_BATCH_LEN, MAX_COUNTED, MAX_SCAN_ANSWER_LEN, MAX_VALUE_LEN},
    storage::{Modify, Result as StorageResult, Storage, StorageReader},
    stubs::basaltpb::kv_server::Kv,
};

/// The service.
pub struct KvService {
    storage: Arc<dyn Storage>,
    /// The same scans as TinyKV's.
    scans: Arc<Semaphore>,
}

impl KvService {
    /// The service over `storage`; its scans take turns with those of `tinykv`.
    #[must_use]
    pub fn new(storage: Arc<dyn Storage>, tinykv: &TinyKvService) -> Self {
        Self {
            storage,
            scans: Arc::clone(&tinykv.scans),
        }
    }
}

/// One change, where its caller has the right to it.
fn modify(in_flight: &InFlight, change: Change) -> Result<Modify, Status> {
    let kind = change.kind();
    let (key, end) = (change.key, change.end_key);
    let cf = match kind {
        Kind::DeleteRange => {
            let cf = check_family(&change.cf)?;
            check_key(&key)?;
            check_key(&end)?;
            in_flight.allow_range(Right::Write, cf, (&key, &end))?;
            cf
        }
        _ => check(in_flight, Right::Write, &change.cf, &key)?,
    };
    match kind {
        Kind::Put => {
            check_len("value", change.value.len(), MAX_VALUE_LEN)?;
            let value = change.value;
            Ok(Modify::Put { cf, key, value })
        }
        Kind::Delete => Ok(Modify::Delete { cf, key }),
        Kind::DeleteRange => Ok(Modify::DeleteRange {
            cf,
            start: key,
            end,
        }),
        Kind::Unspecified => Err(Status::invalid_argument(
            "a change is of no kind that this version of Basalt knows",
        )),
    }
}

/// What of a range is wanted.
struct Wanted {
    cf: &'static str,
    start: Bytes,
    /// Empty: none.
    end: Bytes,
    reverse: bool,
    limit: u64,
    keys_only: bool,
    count_only: bool,
}

impl Wanted {
    /// Where the cursor begins.
    fn begin(&self, iter: &mut dyn crate::storage::StorageIter) -> StorageResult<()> {
        match self.reverse {
            true => iter.seek_before(Some(&self.end[..]).filter(|end| !end.is_empty())),
            false => iter.seek(&self.start),
        }
    }

    fn has(&self, key: &[u8]) -> bool {
        match self.reverse {
            true => key >= &self.start[..],
            false => self.end.is_empty() || key < &self.end[..],
        }
    }

    /// Where the next page goes on: at the first key behind `last`, or before it.
    fn next_key(&self, last: &[u8]) -> Bytes {
        match self.reverse {
            true => Bytes::copy_from_slice(last),
            false => [last, &[0]].concat().into(),
        }
    }

    /// A page of it, and the bytes of its pairs.
    fn page(
        &self,
        reader: &dyn StorageReader,
        abandoned: &AtomicBool,
    ) -> StorageResult<(ScanResponse, usize)> {
        let mut page = ScanResponse::default();
        let mut len = 0;
        let mut last: Option<Vec<u8>> = None;
        let mut iter = reader.iter_cf(self.cf)?;
        self.begin(&mut *iter)?;
        while iter.valid() && self.has(iter.key()) {
            let is_looked_at = page.count.is_multiple_of(STEPS_PER_CHECK as u64);
            let is_given_up = is_looked_at && abandoned.load(Ordering::Relaxed);
            let value_len = if self.keys_only {
                0
            } else {
                iter.value().len()
            };
            let pair_len = iter.key().len() + value_len + PAIR_OVERHEAD;
            let is_full = match self.count_only {
                true => page.count >= MAX_COUNTED,
                false => len + pair_len > MAX_SCAN_ANSWER_LEN && !page.pairs.is_empty(),
            };
            if page.count >= self.limit || is_full || is_given_up {
                page.more = true;
                break;
            }
            page.count += 1;
            if self.count_only {
                let key = last.get_or_insert_default();
                key.clear();
                key.extend_from_slice(iter.key());
            } else {
                len += pair_len;
                page.pairs.push(ScanPair {
                    key: Bytes::copy_from_slice(iter.key()),
                    value: match self.keys_only {
                        true => Bytes::new(),
                        false => Bytes::copy_from_slice(iter.value()),
                    },
                });
            }
            match self.reverse {
                true => iter.prev()?,
                false => iter.next()?,
            }
        }
        if page.more {
            let last = last.as_deref();
            let last = last.or_else(|| page.pairs.last().map(|pair| &pair.key[..]));
            page.next_key = match last {
                Some(last) => self.next_key(last),
                // Nothing was taken: the same again.
                None if self.reverse => self.end.clone(),
                None => self.start.clone(),
            };
        }
        Ok((page, len))
    }
}

#[tonic::async_trait]
impl Kv for KvService {
    async fn batch(
        &self,
        request: Request<BatchRequest>,
    ) -> Result<Response<BatchResponse>, Status> {
        let in_flight = InFlight::of(request.extensions());
        let changes = request.into_inner().changes;
        let Some(first) = changes.first() else {
            return Err(Status::invalid_argument("a batch without changes"));
        };
        let key = first.key.clone();
        let len = |change: &Change| {
            change.key.len() + change.value.len() + change.end_key.len() + CHANGE_BASE_LEN
        };
        check_len("batch", changes.iter().map(len).sum(), MAX_BATCH_LEN)?;
        let changes = changes.into_iter().map(|change| modify(&in_flight, change));
        let changes = changes.collect::<Result<Vec<_>, Status>>()?;
        let ctx = context(&in_flight, None, &key);
        let mut response = BatchResponse::default();
        if let Err(error) = self.storage.write(ctx, changes).await {
            let told = told(error)?;
            (response.region_error, response.error) = (told.region_error, told.error);
        }
        Ok(Response::new(response))
    }

    async fn scan(&self, request: Request<ScanRequest>) -> Result<Response<ScanResponse>, Status> {
        let in_flight = InFlight::of(request.extensions());
        let request = request.into_inner();
        let cf = check_family(&request.cf)?;
        check_key(&request.start_key)?;
        check_key(&request.end_key)?;
        let cut = in_flight.allow_scan(cf, &request.start_key)?;
        let end = match cut.map(Bytes::from) {
            Some(cut) if request.end_key.is_empty() || cut < request.end_key => cut,
            _ => request.end_key,
        };
        let wanted = Wanted {
            cf,
            start: request.start_key,
            end,
            reverse: request.reverse,
            limit: match request.limit {
                0 => u64::MAX,
                limit => limit.into(),
            },
            keys_only: request.keys_only,
            count_only: request.count_only,
        };
        let turn = Arc::clone(&self.scans).acquire_owned().await;
        let turn = turn.expect("the semaphore is never closed");
        let abandoned = Arc::new(AtomicBool::new(false));
        let _watch = Watch(Arc::clone(&abandoned));
        let ctx = context(&in_flight, None, &wanted.start);
        let found = match self.storage.reader(ctx).await {
            Ok(reader) => {
                let work = move || {
                    let _turn = turn;
                    wanted.page(&*reader, &abandoned)
                };
                blocking(work).await?
            }
            Err(error) => Err(error),
        };
        match found {
            Ok((page, len)) => {
                in_flight.hold_answer(len)?;
                Ok(Response::new(page))
            }
            Err(error) => {
                let told = told(error)?;
                Ok(Response::new(ScanResponse {
                    region_error: told.region_error,
                    error: told.error,
                    ..ScanResponse::default()
                }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::storage::{Context, MemStorage};

    async fn pages(wanted: &mut Wanted) -> (Vec<String>, u64, u64) {
        let storage = MemStorage::new();
        let ctx = Context {
            region: None,
            key: Bytes::new(),
            deadline: Instant::now() + Duration::from_secs(10),
        };
        let put = |key: &'static str| Modify::Put {
            cf: "default",
            key: key.into(),
            value: "v".into(),
        };
        let batch = ["a", "b", "b1", "c", "d"].map(put).to_vec();
        storage.write(ctx.clone(), batch).await.unwrap();
        let (mut keys, mut count, mut pages) = (Vec::new(), 0, 0);
        loop {
            let reader = storage.reader(ctx.clone()).await.unwrap();
            let (page, _) = wanted.page(&*reader, &AtomicBool::new(false)).unwrap();
            let shown = |pair: &ScanPair| String::from_utf8(pair.key.to_vec()).unwrap();
            keys.extend(page.pairs.iter().map(shown));
            count += page.count;
            pages += 1;
            match (page.more, wanted.reverse) {
                (false, _) => return (keys, count, pages),
                (true, true) => wanted.end = page.next_key,
                (true, false) => wanted.start = page.next_key,
            }
        }
    }

    fn range(start: &'static str, end: &'static str, reverse: bool) -> Wanted {
        Wanted {
            cf: "default",
            start: start.into(),
            end: end.into(),
            reverse,
            limit: 2,
            keys_only: true,
            count_only: false,
        }
    }

    #[tokio::test]
    async fn pages_go_on_where_the_one_before_ended_both_ways() {
        for (start, end, expected) in [
            ("", "", &["a", "b", "b1", "c", "d"][..]),
            ("b", "c", &["b", "b1"]),
            ("b", "c1", &["b", "b1", "c"]),
            ("e", "", &[]),
            ("c", "b", &[]),
        ] {
            let (keys, count, _) = pages(&mut range(start, end, false)).await;
            assert_eq!(
                (&keys[..], count),
                (
                    &expected
                        .iter()
                        .map(|key| (*key).to_owned())
                        .collect::<Vec<_>>()[..],
                    expected.len() as u64
                )
            );
            let (mut keys, ..) = pages(&mut range(start, end, true)).await;
            keys.reverse();
            assert_eq!(keys, expected, "{start}..{end} in reverse");
            let mut counting = Wanted {
                count_only: true,
                ..range(start, end, false)
            };
            let (keys, count, pages) = pages(&mut counting).await;
            assert!(keys.is_empty() && count == expected.len() as u64);
            assert!(pages > count.saturating_sub(1) / 2, "the limit holds");
        }
    }
}
