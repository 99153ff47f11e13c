//! `Worker`: what may take long and must not hold up a loop: making snapshots, flushing kvdb.

use std::{fmt, sync::Arc};

use crate::{Engines, Inbox, StoreMessage, WorkTask, snapshot::SnapshotStore};

/// The background worker.
pub struct Worker {
    engines: Engines,
    snapshots: Arc<SnapshotStore>,
    inbox: Arc<Inbox<WorkTask>>,
    store: Arc<Inbox<StoreMessage>>,
}

impl Worker {
    pub(crate) fn new(
        engines: Engines,
        snapshots: Arc<SnapshotStore>,
        inbox: Arc<Inbox<WorkTask>>,
        store: &Arc<Inbox<StoreMessage>>,
    ) -> Self {
        Self {
            engines,
            snapshots,
            inbox,
            store: Arc::clone(store),
        }
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
        let inbox = &self.inbox;
        for task in inbox.take() {
            match task {
                WorkTask::Generate { region_id } => {
                    let result = self
                        .snapshots
                        .generate(region_id, &mut |_| !inbox.is_closed());
                    let result = result.map(Box::new).map_err(|error| error.to_string());
                    self.store
                        .push(StoreMessage::Generated { region_id, result });
                }
                WorkTask::FlushKv => {
                    // Where it fails the log stays as long as it is, and the next look tries again; the
                    // engine itself refuses writes then, which the apply loop meets.
                    let _ = self.engines.flush_kv();
                    self.store.push(StoreMessage::Flushed);
                }
            }
        }
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}
