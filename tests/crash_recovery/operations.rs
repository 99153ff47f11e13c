//! What a workload does with its database; each operation is done to the model too.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use basalt_engine::{Error, Ingest, WriteBatch, WriteOptions, fs::sim::Survival};

use crate::{
    check::{check_leaks, read_all},
    expect::Recovered,
    model::{Edit, FamilyId, LOGGED, UNLOGGED},
    shared::{Event, lock},
    world::{Done, World},
};

impl World {
    /// A value no other write has, of `len` bytes at least.
    pub(crate) fn value(&mut self, len: usize) -> Vec<u8> {
        self.counter += 1;
        let mut value = format!("{:06}", self.counter).into_bytes();
        while value.len() < len {
            value.push(self.rng.byte() % 64 + 32);
        }
        value
    }

    pub(crate) fn put(&mut self, family: FamilyId, key: &str, len: usize) -> Edit {
        let value = self.value(len);
        Edit::Put(family, key.as_bytes().to_vec(), value)
    }

    pub(crate) fn batch(&self, edits: &[Edit]) -> WriteBatch {
        let mut batch = WriteBatch::new();
        for edit in edits {
            let cf = &self.families[&edit.family()];
            match edit {
                Edit::Put(_, key, value) => batch.put(cf, key, value),
                Edit::Delete(_, key) => batch.delete(cf, key),
                Edit::DeleteRange(_, start, end) => {
                    self.count(Event::RangeDelete);
                    batch.delete_range(cf, start, end);
                }
            }
        }
        batch
    }

    pub(crate) fn class_of(&self, edits: &[Edit]) -> usize {
        usize::from(!self.families[&edits[0].family()].is_logged())
    }

    /// Writes a batch and waits for it.
    pub(crate) fn write(&mut self, edits: &[Edit], sync: bool) -> Done {
        let (class, batch) = (self.class_of(edits), self.batch(edits));
        let sync = sync && class == LOGGED;
        self.count(if sync { Event::Synced } else { Event::Unsynced });
        let (len, seq) = self.model().submit(class, edits, edits.len() as u64, sync);
        let db = self.db().clone();
        match self.contain(|| db.write(batch, WriteOptions { sync }))? {
            Ok(got) if got.0 == seq => {
                let mut model = self.model();
                model.acknowledged(class, len, sync);
                model.published(db.last_seq().0);
                Ok(())
            }
            Ok(got) => Err(self.broken(format!("sequence number {got:?}, should be {seq}"))),
            Err(error) => self.failed(&error, "write"),
        }
    }

    /// Hands a batch in without waiting for it.
    pub(crate) fn submit(&mut self, edits: &[Edit], sync: bool) -> Done {
        let (class, batch) = (self.class_of(edits), self.batch(edits));
        let sync = sync && class == LOGGED;
        self.count(if sync { Event::Synced } else { Event::Unsynced });
        let count = edits.len() as u64;
        let (len, seq) = self.model().submit(class, edits, count, sync);
        let db = self.db().clone();
        let ticket = match self.contain(|| db.submit(batch, WriteOptions { sync }))? {
            Ok(ticket) => ticket,
            Err(Error::Busy(_)) => {
                self.model().retract(class, count);
                self.settle();
                return Ok(());
            }
            Err(error) => return self.failed(&error, "submit"),
        };
        self.count(Event::Ticket);
        let shared = Arc::clone(&self.shared);
        let life = shared.life.load(Ordering::Relaxed);
        let failing = self.failing;
        self.contain(|| {
            ticket.on_done(move |result| {
                if shared.life.load(Ordering::Relaxed) != life {
                    return;
                }
                match result {
                    Ok(got) if got.0 == seq => {
                        lock(&shared.model).acknowledged(class, len, sync);
                    }
                    Ok(got) => shared
                        .checker
                        .report(shared.broken(format!("a ticket's number {got:?}, not {seq}"))),
                    Err(_) if failing => {}
                    Err(error) => shared
                        .checker
                        .report(shared.broken(format!("a ticket failed: {error}"))),
                }
            });
        })
    }

    /// Makes everything written so far durable.
    pub(crate) fn sync(&mut self) -> Done {
        let db = self.db().clone();
        match self.contain(|| db.sync())? {
            Ok(()) => {
                self.model().all_durable(LOGGED);
                Ok(())
            }
            Err(error) => self.failed(&error, "sync"),
        }
    }

    // ---- tables

    pub(crate) fn flush(&mut self, family: FamilyId) -> Done {
        let (db, handle) = (self.db().clone(), self.families[&family].clone());
        match self.contain(|| db.flush(&handle))? {
            Ok(()) => {
                let class = usize::from(!handle.is_logged());
                self.model().flushed(class, db.flushed_seq(&handle).0);
                Ok(())
            }
            Err(error) => self.failed(&error, "flush"),
        }
    }

    pub(crate) fn flush_all(&mut self) -> Done {
        let db = self.db().clone();
        match self.contain(|| db.flush_all())? {
            Ok(()) => {
                let mut model = self.model();
                model.all_durable(LOGGED);
                model.all_durable(UNLOGGED);
                Ok(())
            }
            Err(error) => self.failed(&error, "flush_all"),
        }
    }

    pub(crate) fn compact(&mut self, family: FamilyId) -> Done {
        let (db, handle) = (self.db().clone(), self.families[&family].clone());
        match self.contain(|| db.compact_range(&handle, None, None))? {
            Ok(()) => Ok(()),
            Err(error) => self.failed(&error, "compact_range"),
        }
    }

    /// Counts the compactions of a life, at its end.
    pub(crate) fn note_compactions(&self) {
        let stats = self.db().stats();
        let compactions = stats.compactions + stats.trivial_moves + stats.tables_dropped;
        *lock(&self.shared.events)
            .entry(Event::Compaction)
            .or_default() += compactions;
    }

    /// Takes in a table for each of `puts`' families, after range deletes and before a batch.
    pub(crate) fn ingest(
        &mut self,
        deletes: &[Edit],
        puts: &BTreeMap<FamilyId, BTreeMap<Vec<u8>, Vec<u8>>>,
        edits: &[Edit],
    ) -> Done {
        let db = self.db().clone();
        let mut request = Ingest::new();
        for edit in deletes {
            if let Edit::DeleteRange(family, start, end) = edit {
                request.delete_range(&self.families[family], start, end);
            }
        }
        let mut all = deletes.to_vec();
        for (family, entries) in puts {
            self.counter += 1;
            let path = format!("/ext/{}.sst", self.counter);
            let handle = self.families[family].clone();
            let made = self.contain(|| {
                let mut writer = db.table_writer(&handle, &path)?;
                for (key, value) in entries {
                    writer.put(key, value)?;
                }
                writer.finish()
            })?;
            match made {
                Ok(table) => request.table(&handle, table),
                Err(error) => return self.failed(&error, "table_writer"),
            };
            let puts = entries
                .iter()
                .map(|(k, v)| Edit::Put(*family, k.clone(), v.clone()));
            all.extend(puts);
        }
        all.extend(edits.iter().cloned());
        request.batch(self.batch(edits));
        let class = self.class_of(&all);
        // The ingest flushes first; its own place in the order comes after what that waits for.
        let (len, seq) = {
            let mut model = self.model();
            model.submit_ingest(class, &all, (deletes.len() + edits.len() + 1) as u64)
        };
        match self.contain(|| db.ingest(request))? {
            Ok(got) if got.0 == seq => {
                self.model().acknowledged(class, len, true);
                self.count(Event::Ingest);
                Ok(())
            }
            Ok(got) => Err(self.broken(format!("ingest got {got:?}, should be {seq}"))),
            Err(error) => self.failed(&error, "ingest"),
        }
    }

    pub(crate) fn checkpoint(&mut self) -> Done {
        self.settle();
        self.counter += 1;
        let path = format!("/checkpoint-{}", self.counter);
        self.model().begin_checkpoint(&path);
        let db = self.db().clone();
        match self.contain(|| db.checkpoint(&path))? {
            Ok(()) => {
                self.model().end_checkpoint(true);
                self.count(Event::Checkpoint);
                Ok(())
            }
            Err(error) => {
                self.model().end_checkpoint(false);
                self.failed(&error, "checkpoint")
            }
        }
    }

    /// All that readers see now. A disk that fails to read is healed, and then it reads.
    pub(crate) fn read_back(&mut self) -> Done<Recovered> {
        let db = self.db().clone();
        match self.contain(|| read_all(&db, self.counter))? {
            Ok(recovered) => return Ok(recovered),
            Err(_) if self.failing => {
                self.count(Event::Failure);
                self.heal();
            }
            Err(why) => return Err(self.broken(why)),
        }
        self.contain(|| read_all(&db, self.counter))?
            .map_err(|why| self.broken(why))
    }

    /// Checks what readers see now.
    pub(crate) fn read(&mut self) -> Done {
        self.settle();
        let recovered = self.read_back()?;
        self.model()
            .expect()
            .find(Survival::ProcessDeath, &recovered)
            .map(|_| ())
            .map_err(|why| self.broken(format!("a reader: {why}")))
    }

    /// Checks for files nobody needs.
    pub(crate) fn no_leaks(&self) -> Done {
        self.settle();
        let options =
            (self.shared.checker.options)(Arc::clone(&self.fs) as _, Arc::clone(&self.executor));
        check_leaks(&self.fs, self.db(), options.recycled_segments).map_err(|why| self.broken(why))
    }
}
