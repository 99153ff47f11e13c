//! `StandaloneStorage`: one engine on one machine, its families logged, every write synced.
//!
//! ```text
//! write --submit--> engine --Ticket::on_done--> oneshot --> handler
//! ```
//! Many requests wait for the same fsync (group commit); none of them holds a thread. A write that
//! meets a stall is tried again for a while, then answered `Busy`.
//!
//! Not here: what the engine promises (`basalt_engine`), the directory around it (`data_dir`).

use std::{
    future::ready,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use basalt_engine::{
    CfOptions, ColumnFamily, Db, DbIter, Options, ReadOptions, Snapshot, Ticket, WriteBatch,
    WriteOptions,
};
use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    BoxFuture, Context, EngineSettings, EngineView, Error, FAMILIES, Modify, Result, Status,
    Storage, StorageIter, StorageReader, engine_status, explain_open, report_recovery,
};
use crate::limits::MAX_BUSY_WAIT;

/// First and longest pause before a write is tried again.
const BUSY_PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// An open engine and its families, in the order of [`FAMILIES`].
struct Open {
    db: Db,
    families: [ColumnFamily; FAMILIES.len()],
}

impl Open {
    fn family(&self, name: &str) -> &ColumnFamily {
        let position = FAMILIES.iter().position(|known| *known == name);
        &self.families[position.expect("callers resolve names with `family`")]
    }

    fn encode(&self, batch: &[Modify]) -> WriteBatch {
        let mut encoded = WriteBatch::new();
        for modify in batch {
            match modify {
                Modify::Put { cf, key, value } => encoded.put(self.family(cf), key, value),
                Modify::Delete { cf, key } => encoded.delete(self.family(cf), key),
            }
        }
        encoded
    }
}

/// The storage of `basalt server` alone on its machine.
pub struct StandaloneStorage {
    dir: PathBuf,
    settings: EngineSettings,
    /// `None` before the start and after the stop.
    open: RwLock<Option<Arc<Open>>>,
}

impl StandaloneStorage {
    /// A storage whose engine lives in `dir`; [`Storage::start`] opens it.
    #[must_use]
    pub fn new(dir: PathBuf, settings: EngineSettings) -> Self {
        Self {
            dir,
            settings,
            open: RwLock::new(None),
        }
    }

    fn open(&self) -> Result<Arc<Open>> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.clone().ok_or(Error::Stopped)
    }

    /// Hands a batch to the engine; waits while the engine is behind, within its bounds.
    async fn submit(&self, ctx: &Context, batch: &[Modify]) -> Result<Ticket> {
        let open = self.open()?;
        let began = Instant::now();
        // Some of the client's time is left for the answer.
        let patience = MAX_BUSY_WAIT.min(ctx.deadline.saturating_duration_since(began) / 2);
        let mut pause = BUSY_PAUSE.0;
        loop {
            match open.db.submit(open.encode(batch), WriteOptions::SYNC) {
                Ok(ticket) => return Ok(ticket),
                Err(basalt_engine::Error::Busy(what)) if began.elapsed() >= patience => {
                    return Err(Error::Busy(what));
                }
                Err(basalt_engine::Error::Busy(_)) => {}
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BUSY_PAUSE.1);
        }
    }
}

impl Storage for StandaloneStorage {
    fn start(&self) -> Result<(), String> {
        let defaults = Options::default();
        let options = Options {
            block_cache_bytes: self.settings.cache_bytes,
            memtable_budget_bytes: defaults.memtable_budget_bytes.max(
                self.settings
                    .write_buffer_bytes
                    .saturating_mul(2 * FAMILIES.len()),
            ),
            ..defaults
        };
        let cf_options = CfOptions {
            write_buffer_bytes: self.settings.write_buffer_bytes,
            ..CfOptions::default()
        };
        let db = Db::open(&self.dir, options).map_err(|error| explain_open(&error))?;
        report_recovery("kv", db.recovery());
        let open_family = |name| {
            db.open_cf(name, cf_options.clone())
                .map_err(|error| error.to_string())
        };
        let [default, write, lock] = FAMILIES.map(open_family);
        let families = [default?, write?, lock?];
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        *open = Some(Arc::new(Open { db, families }));
        Ok(())
    }

    fn stop(&self) -> Result<()> {
        let open = self
            .open
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match open {
            // Requests that are still on their way hold the engine too; it fails their writes.
            Some(open) => Ok(open.db.clone().close()?),
            None => Ok(()),
        }
    }

    fn write(&self, ctx: Context, batch: Vec<Modify>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let ticket = self.submit(&ctx, &batch).await?;
            drop(batch);
            let (tell, told) = oneshot::channel();
            // A handler that no longer listens has left the outcome open.
            ticket.on_done(move |outcome| drop(tell.send(outcome)));
            // The engine answers every ticket; a callback lost all the same means an unknown outcome.
            told.await.map_err(|_| Error::Stopped)??;
            Ok(())
        })
    }

    fn get_at_once(
        &self,
        _: &Context,
        cf: &'static str,
        key: &[u8],
    ) -> Option<Result<Option<Bytes>>> {
        let open = match self.open() {
            Ok(open) => open,
            Err(error) => return Some(Err(error)),
        };
        match open
            .db
            .try_get(open.family(cf), key, &ReadOptions::default())
        {
            Err(basalt_engine::Error::Busy(_)) => None,
            // Copied, lest a slow client hold a table.
            Ok(value) => Some(Ok(value.map(|value| Bytes::copy_from_slice(&value)))),
            Err(error) => Some(Err(error.into())),
        }
    }

    fn reader(&self, _: Context) -> BoxFuture<'_, Result<Box<dyn StorageReader>>> {
        let reader = self.open().map(|open| {
            let snapshot = open.db.snapshot();
            Box::new(EngineReader { open, snapshot }) as Box<dyn StorageReader>
        });
        Box::pin(ready(reader))
    }

    fn status(&self) -> Status {
        let Ok(open) = self.open() else {
            return Status::default();
        };
        let stats = open.db.stats();
        let read_only = stats.read_only.as_ref().map(ToString::to_string);
        Status {
            read_only,
            kv: engine_status(stats),
            ..Status::default()
        }
    }

    fn engines(&self, see: &mut dyn FnMut(EngineView<'_>)) {
        if let Ok(open) = self.open() {
            see(EngineView {
                name: "kv",
                db: &open.db,
                word: |name| Some(name),
            });
        }
    }

    fn flush(&self, cf: Option<&'static str>) -> Result<()> {
        let open = self.open()?;
        match cf {
            Some(cf) => open.db.flush(open.family(cf))?,
            None => open.db.flush_all()?,
        }
        Ok(())
    }

    fn compact(&self, cf: &'static str, start: Option<&[u8]>, end: Option<&[u8]>) -> Result<()> {
        let open = self.open()?;
        Ok(open.db.compact_range(open.family(cf), start, end)?)
    }
}

/// The engine at one moment.
struct EngineReader {
    open: Arc<Open>,
    snapshot: Snapshot,
}

impl StorageReader for EngineReader {
    fn get_cf(&self, cf: &'static str, key: &[u8]) -> Result<Option<Bytes>> {
        let options = ReadOptions::at(&self.snapshot);
        let value = self.open.db.get_with(self.open.family(cf), key, &options)?;
        // Copied here, off the async runtime: a page of a mapped table may have to be read again.
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn iter_cf(&self, cf: &'static str) -> Result<Box<dyn StorageIter + '_>> {
        let options = ReadOptions::at(&self.snapshot);
        Ok(Box::new(EngineIter(
            self.open.db.iter(self.open.family(cf), &options)?,
        )))
    }
}

struct EngineIter(DbIter);

impl StorageIter for EngineIter {
    fn seek(&mut self, key: &[u8]) -> Result<()> {
        Ok(self.0.seek(key)?)
    }

    fn valid(&self) -> bool {
        self.0.valid()
    }

    fn next(&mut self) -> Result<()> {
        Ok(self.0.next()?)
    }

    fn key(&self) -> &[u8] {
        self.0.key()
    }

    fn value(&self) -> &[u8] {
        self.0.value()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage(dir: &tempfile::TempDir) -> StandaloneStorage {
        let settings = EngineSettings {
            cache_bytes: 1 << 20,
            write_buffer_bytes: 1 << 20,
        };
        StandaloneStorage::new(dir.path().join("kv"), settings)
    }

    fn ctx() -> Context {
        Context {
            region: None,
            key: Bytes::new(),
            deadline: Instant::now() + Duration::from_secs(10),
        }
    }

    fn put(cf: &'static str, key: &'static str, value: &'static str) -> Modify {
        Modify::Put {
            cf,
            key: key.into(),
            value: value.into(),
        }
    }

    #[tokio::test]
    async fn a_batch_is_read_back_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..2 {
            let storage = storage(&dir);
            storage.start().unwrap();
            if round == 0 {
                let batch = vec![
                    put("default", "k", "1"),
                    put("write", "k", "2"),
                    put("default", "gone", "x"),
                    Modify::Delete {
                        cf: "default",
                        key: "gone".into(),
                    },
                ];
                storage.write(ctx(), batch).await.unwrap();
            }
            let reader = storage.reader(ctx()).await.unwrap();
            assert_eq!(reader.get_cf("default", b"k").unwrap().unwrap(), "1");
            assert_eq!(reader.get_cf("write", b"k").unwrap().unwrap(), "2");
            assert_eq!(reader.get_cf("lock", b"k").unwrap(), None);
            assert_eq!(reader.get_cf("default", b"gone").unwrap(), None);
            drop(reader);
            storage.stop().unwrap();
        }
    }

    #[tokio::test]
    async fn a_reader_and_its_iterator_see_one_moment() {
        let dir = tempfile::tempdir().unwrap();
        let storage = storage(&dir);
        storage.start().unwrap();
        let batch = ["a", "b", "c"]
            .map(|key| put("default", key, "old"))
            .to_vec();
        storage.write(ctx(), batch).await.unwrap();
        let reader = storage.reader(ctx()).await.unwrap();
        let batch = vec![
            Modify::Delete {
                cf: "default",
                key: "b".into(),
            },
            put("default", "c", "new"),
            put("default", "d", "new"),
        ];
        storage.write(ctx(), batch).await.unwrap();
        storage.flush(None).unwrap();
        storage.compact("default", None, None).unwrap();

        let mut iter = reader.iter_cf("default").unwrap();
        assert!(!iter.valid(), "no position before the first seek");
        iter.seek(b"").unwrap();
        let mut seen = Vec::new();
        while iter.valid() {
            seen.push((iter.key().to_vec(), iter.value().to_vec()));
            iter.next().unwrap();
        }
        let expected = [b"a", b"b", b"c"].map(|key| (key.to_vec(), b"old".to_vec()));
        assert_eq!(seen, expected);
        assert_eq!(reader.get_cf("default", b"b").unwrap().unwrap(), "old");
        drop(iter);
        drop(reader);
        let reader = storage.reader(ctx()).await.unwrap();
        assert_eq!(reader.get_cf("default", b"b").unwrap(), None);
        assert_eq!(reader.get_cf("default", b"c").unwrap().unwrap(), "new");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 8)]
    async fn every_one_of_many_writes_in_flight_is_answered() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Arc::new(storage(&dir));
        storage.start().unwrap();
        let writers: Vec<_> = (0..64u32)
            .map(|writer| {
                let storage = Arc::clone(&storage);
                tokio::spawn(async move {
                    for number in 0..300u32 {
                        // Some batches take long to insert: others wait for them in the queue.
                        let puts = if number % 10 == 0 { 500 } else { 1 };
                        let put = |part: u32| {
                            let key = Bytes::from(format!("{writer}/{number}/{part}"));
                            Modify::Put {
                                cf: "default",
                                value: key.clone(),
                                key,
                            }
                        };
                        let batch = (0..puts).map(put).collect();
                        let write = storage.write(ctx(), batch);
                        let outcome = tokio::time::timeout(Duration::from_secs(30), write).await;
                        outcome.expect("a write is answered").unwrap();
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
        assert_eq!(storage.status().kv.last_seq, 64 * (270 + 30 * 500));
        storage.stop().unwrap();
    }

    #[tokio::test]
    async fn a_second_storage_on_the_directory_is_refused_until_the_first_stops() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (storage(&dir), storage(&dir));
        first.start().unwrap();
        let refusal = second.start().unwrap_err();
        assert!(refusal.contains("in use"), "{refusal}");
        assert_eq!(
            second.write(ctx(), vec![put("default", "k", "v")]).await,
            Err(Error::Stopped)
        );
        first.stop().unwrap();
        second.start().unwrap();
    }

    #[tokio::test]
    async fn a_stopped_storage_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let storage = storage(&dir);
        storage.start().unwrap();
        let reader = storage.reader(ctx()).await.unwrap();
        storage.stop().unwrap();
        assert_eq!(
            storage.write(ctx(), vec![put("default", "k", "v")]).await,
            Err(Error::Stopped)
        );
        assert_eq!(storage.flush(None), Err(Error::Stopped));
        assert!(storage.reader(ctx()).await.is_err());
        assert_eq!(
            reader.get_cf("default", b"k").unwrap(),
            None,
            "old readers still read"
        );
        storage.stop().unwrap();
    }

    #[tokio::test]
    async fn the_status_counts_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let storage = storage(&dir);
        storage.start().unwrap();
        storage
            .write(ctx(), vec![put("lock", "k", "v")])
            .await
            .unwrap();
        let before = storage.status();
        assert_eq!(before.read_only, None);
        assert_eq!(before.kv.last_seq, before.kv.synced_seq);
        storage.flush(Some("lock")).unwrap();
        let after = storage.status().kv;
        let names: Vec<_> = after
            .column_families
            .iter()
            .map(|one| one.name.as_str())
            .collect();
        assert_eq!(names, FAMILIES);
        let lock = &after.column_families[2];
        assert_eq!(lock.levels[0].table_count, 1);
        assert!(lock.levels[0].table_bytes > 0 && lock.flushed_seq >= after.last_seq);
    }

    #[test]
    fn engine_errors_get_the_code_word_of_what_the_client_can_do() {
        use basalt_engine::Error as Engine;
        let full = || Engine::io("write", "log", std::io::ErrorKind::StorageFull.into());
        let read_only = Engine::ReadOnly {
            cause: Arc::new(full()),
        };
        for (error, expected) in [
            (full(), "DISK_FULL: write log: "),
            (
                Engine::io("sync", "log", std::io::ErrorKind::Other.into()),
                "IO: sync log: ",
            ),
            (read_only, "READ_ONLY: read-only since: write log: "),
            (
                Engine::corruption("f", 7, "checksum"),
                "CORRUPTION: corruption in f at byte 7",
            ),
        ] {
            let text = Error::from(error).to_string();
            assert!(text.starts_with(expected), "{text}");
        }
        assert_eq!(Error::from(Engine::Closed), Error::Stopped);
        assert!(matches!(
            Error::from(Engine::Busy("x".into())),
            Error::Busy(_)
        ));
        assert!(matches!(
            Error::from(Engine::invalid("x")),
            Error::InvalidArgument(_)
        ));
    }
}
