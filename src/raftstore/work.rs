//! `Worker`: what may take long and must not hold up a loop: making snapshots, flushing kvdb.
//!
//! A store has one of each kind, so that a flush, which logs wait for, does not wait for a snapshot.

use std::{fmt, sync::Arc};

use crate::{Inbox, StoreMessage, WorkTask, store::Shared};

/// The background workers of a store, each a loop of its own.
#[derive(Debug)]
pub struct Workers {
    /// Makes snapshots.
    pub snapshots: Worker,
    /// Flushes kvdb.
    pub flushes: Worker,
}

/// A background worker.
pub struct Worker {
    shared: Shared,
    inbox: Arc<Inbox<WorkTask>>,
}

impl Worker {
    pub(crate) fn new(shared: Shared, inbox: Arc<Inbox<WorkTask>>) -> Self {
        Self { shared, inbox }
    }

    /// What wakes it.
    #[must_use]
    pub fn inbox(&self) -> Arc<Inbox<WorkTask>> {
        Arc::clone(&self.inbox)
    }

    /// Whether the store has ended, and this with it.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.inbox.is_closed()
    }

    /// Does everything that waits.
    pub fn turn(&mut self) {
        for task in self.inbox.take() {
            let done = match task {
                WorkTask::Generate { region_id } => self.generate(region_id),
                WorkTask::FlushKv => self.flush(),
            };
            self.shared.store.push(done);
        }
    }

    fn generate(&self, region_id: u64) -> StoreMessage {
        let Shared { clock, metrics, .. } = &self.shared;
        let (began, mut bytes) = (clock.now(), 0);
        let made = self.shared.snapshots.generate(region_id, &mut |more| {
            bytes += more;
            !self.inbox.is_closed()
        });
        match &made {
            Ok(_) => {
                let took = clock.now().saturating_sub(began);
                metrics.snapshot_making.observe(took);
                metrics.snapshot_made_bytes.add(bytes);
            }
            Err(_) => metrics.snapshots_not_made.count(),
        }
        let result = made.map(Box::new).map_err(|error| error.to_string());
        StoreMessage::Generated { region_id, result }
    }

    fn flush(&self) -> StoreMessage {
        let Shared { clock, metrics, .. } = &self.shared;
        let began = clock.now();
        // Where it fails the log stays as long as it is, and the next look tries again; the engine itself
        // refuses writes then, which the apply loop meets.
        match self.shared.engines.flush_kv() {
            Ok(()) => {
                let took = clock.now().saturating_sub(began);
                metrics.kvdb_flush.observe(took);
            }
            Err(_) => metrics.kvdb_not_flushed.count(),
        }
        StoreMessage::Flushed
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}
