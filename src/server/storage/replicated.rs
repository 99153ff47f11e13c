//! `RaftStorage`: one store of a cluster: writes go through the log of a region, reads ask its leader who leads.
//!
//! ```text
//! write  --[Put, Delete]--> RaftCmdRequest --> propose --> committed, applied --> callback --> handler
//! reader --> read --> (lease, else a round of heartbeats) --> RegionSnapshot --> handler
//! ```
//! A request that names a region is checked against it; one that does not goes to the region that has its key.
//! Promises: an acknowledged write is on the disks of a majority; a reader shows everything that was acknowledged
//! before it was asked for; a request that cannot be done is answered by its deadline.
//!
//! Not here: the store at work (`replicated::Cluster`).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use basalt_engine::{DbRange, PinnedSlice};
use basalt_proto::raft_cmdpb::{
    CmdType, DeleteRequest, PutRequest, RaftCmdRequest, RaftRequestHeader, Request,
};
use basalt_raftstore::{CommandError, DATA_FAMILIES, RegionSnapshot, Target};
use bytes::Bytes;

use super::{
    BoxFuture, Context, EngineView, Error, Modify, Result, Status, Storage, StorageIter,
    StorageReader, StoreCode,
};
use crate::{
    limits::MAX_BUSY_WAIT,
    replicated::{Cluster, family_word},
};

/// First and longest pause before a write is tried again.
const BUSY_PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// The storage of a store of a cluster.
#[derive(Debug)]
pub struct RaftStorage(Arc<Cluster>);

impl RaftStorage {
    /// The storage that `cluster` stands for.
    #[must_use]
    pub fn new(cluster: Arc<Cluster>) -> Self {
        Self(cluster)
    }
}

/// The region that the client names, if it names one.
fn named(ctx: &Context) -> Option<RaftRequestHeader> {
    let region = ctx.region.filter(|region| region.region_id != 0)?;
    Some(crate::replicated::header(region))
}

/// What the client wants to read.
fn target(ctx: &Context) -> Target {
    match named(ctx) {
        Some(header) => Target::Region(header),
        None => Target::Key(ctx.key.clone()),
    }
}

fn request(modify: &Modify) -> Request {
    match modify {
        Modify::Put { cf, key, value } => Request {
            cmd_type: CmdType::Put.into(),
            put: Some(PutRequest {
                cf: (*cf).to_owned(),
                key: key.clone(),
                value: value.clone(),
            }),
            ..Request::default()
        },
        Modify::Delete { cf, key } => Request {
            cmd_type: CmdType::Delete.into(),
            delete: Some(DeleteRequest {
                cf: (*cf).to_owned(),
                key: key.clone(),
            }),
            ..Request::default()
        },
    }
}

impl Storage for RaftStorage {
    fn start(&self) -> Result<(), String> {
        self.0.open()
    }

    fn stop(&self) -> Result<()> {
        self.0.shut_down()
    }

    fn write(&self, ctx: Context, batch: Vec<Modify>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let header = named(&ctx);
            let command = |requests| RaftCmdRequest {
                header,
                requests,
                admin_request: None,
            };
            let began = Instant::now();
            // Some of the client's time is left for the answer.
            let patience = MAX_BUSY_WAIT.min(ctx.deadline.saturating_duration_since(began) / 2);
            let mut pause = BUSY_PAUSE.0;
            loop {
                let requests = batch.iter().map(request).collect();
                match self.0.propose(command(requests), ctx.deadline).await {
                    // It surely was not taken.
                    Err(Error::Busy(_)) if began.elapsed() < patience => {}
                    done => return done,
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(BUSY_PAUSE.1);
            }
        })
    }

    fn get_at_once(
        &self,
        ctx: &Context,
        cf: &'static str,
        key: &[u8],
    ) -> Option<Result<Option<Bytes>>> {
        let handle = self.0.handle().ok()?;
        let found = handle.try_get(&target(ctx), cf, key)?.map_err(read_error);
        // Copied, lest a slow client hold a table.
        Some(found.map(|value| value.map(|value| Bytes::copy_from_slice(&value))))
    }

    fn reader(&self, ctx: Context) -> BoxFuture<'_, Result<Box<dyn StorageReader>>> {
        Box::pin(async move {
            let target = target(&ctx);
            let at_once = self.0.handle()?.try_read(&target);
            let snapshot = match at_once {
                Some(snapshot) => snapshot,
                None => self.0.read(target, ctx.deadline).await?,
            };
            Ok(Box::new(RegionReader(snapshot)) as Box<dyn StorageReader>)
        })
    }

    fn status(&self) -> Status {
        self.0.storage_status()
    }

    fn engines(&self, see: &mut dyn FnMut(EngineView<'_>)) {
        let Ok(engines) = self.0.engines() else {
            return;
        };
        for (name, db) in [("kv", &engines.kv), ("raft", &engines.raft)] {
            let word = family_word;
            see(EngineView { name, db, word });
        }
    }

    fn flush(&self, _: Option<&'static str>) -> Result<()> {
        // Unlogged families are flushed together.
        let engines = self.0.engines()?;
        let flushed = engines.kv.flush(&engines.local);
        flushed.map_err(Error::from)
    }

    fn compact(&self, cf: &'static str, start: Option<&[u8]>, end: Option<&[u8]>) -> Result<()> {
        let engines = self.0.engines()?;
        let place = DATA_FAMILIES.iter().position(|known| *known == cf);
        let family = place.map(|place| &engines.data[place]);
        let family = family.ok_or_else(|| Error::InvalidArgument(format!("no family {cf:?}")))?;
        Ok(engines.kv.compact_range(family, start, end)?)
    }
}

/// A region at one moment.
struct RegionReader(RegionSnapshot);

impl StorageReader for RegionReader {
    fn get_cf(&self, cf: &'static str, key: &[u8]) -> Result<Option<Bytes>> {
        let value = self.0.get(cf, key).map_err(read_error)?;
        // Copied here, off the async runtime: a page of a mapped table may have to be read again.
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn iter_cf(&self, cf: &'static str) -> Result<Box<dyn StorageIter + '_>> {
        Ok(Box::new(RegionIter {
            snapshot: &self.0,
            cf,
            range: None,
            at: None,
        }))
    }
}

/// An engine that cannot read says so as if the store were fenced; it is not, only this read has failed.
fn read_error(error: CommandError) -> Error {
    match error {
        CommandError::Fenced(what) => Error::Store {
            code: StoreCode::Io,
            what,
        },
        error => error.into(),
    }
}

/// A cursor over a family of a region. It ends with the region; the client goes on at its end.
struct RegionIter<'a> {
    snapshot: &'a RegionSnapshot,
    cf: &'static str,
    range: Option<DbRange>,
    at: Option<(Vec<u8>, PinnedSlice)>,
}

impl StorageIter for RegionIter<'_> {
    fn seek(&mut self, key: &[u8]) -> Result<()> {
        let range = self.snapshot.range(self.cf, key).map_err(read_error)?;
        self.range = Some(range);
        self.next()
    }

    fn valid(&self) -> bool {
        self.at.is_some()
    }

    fn next(&mut self) -> Result<()> {
        let next = self.range.as_mut().and_then(Iterator::next);
        self.at = next.transpose()?;
        Ok(())
    }

    fn key(&self) -> &[u8] {
        self.at.as_ref().map_or(&[], |(key, _)| key)
    }

    fn value(&self) -> &[u8] {
        self.at.as_ref().map_or(&[], |(_, value)| value)
    }
}
