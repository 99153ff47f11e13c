//! How what nodes want persisted gets into raftdb, and what happens when it is there.
//!
//! A turn writes one batch, synced. While the disk is quick the loop waits for it itself, which spares two changes of
//! threads; a leader's does so in a turn of its own, so that its appends are on their way meanwhile. Else a thread of the
//! engine waits, and says so with a message.

use std::{sync::Arc, time::Duration};

use basalt_engine::{WriteBatch, WriteOptions};

use super::{Peer, Store, peer::Saved, ready::send};
use crate::{ApplyTask, Error, Result, StoreMessage, faults::Fault};

/// The longest that the last sync may have taken for the loop to wait for the next.
const QUICK_SYNC: Duration = Duration::from_millis(2);

/// A turn's write on its way.
pub(super) struct Writing {
    pub(super) turn: u64,
    pub(super) since: Duration,
    /// False where there was nothing to write, and it only waits for the turns before.
    pub(super) writes: bool,
    pub(super) saved: Vec<Saved>,
}

impl Store {
    /// Whether this loop may wait for the disk: that was quick the last time, and nothing is on its way to it. A disk
    /// that stops answering then holds up the loop: its peers are not heard, and others come to lead.
    fn may_sync_here(&self) -> bool {
        self.config.sync_on_loop
            && self.last_sync <= QUICK_SYNC
            && self.writing.len() == 1
            && !self.config.faults.is(Fault::AckBeforeSync)
    }

    /// Writes what the last turn left to this one.
    pub(super) fn sync_unsynced(&mut self) -> Result<()> {
        match self.unsynced.take() {
            Some((turn, batch)) => self.sync_here(turn, batch),
            None => Ok(()),
        }
    }

    fn sync_here(&mut self, turn: u64, batch: WriteBatch) -> Result<()> {
        let began = self.clock.now();
        let written = self.engines.raft.write(batch, WriteOptions::SYNC);
        if written.is_err() {
            self.give_way_at_last();
        }
        written.map_err(Error::Raftdb)?;
        self.says_first = true;
        self.now = self.clock.now();
        self.last_sync = self.now.saturating_sub(began);
        self.metrics.raftdb_sync.observe(self.last_sync);
        self.persisted(turn, Ok(()))
    }

    /// Submits the turn's write. What it had to save waits for it; true where it is durable already.
    pub(super) fn submit(&mut self) -> Result<bool> {
        if self.batch.is_empty() && self.saved.is_empty() {
            return Ok(false);
        }
        self.turn += 1;
        let turn = self.turn;
        let saved = std::mem::take(&mut self.saved);
        let writes = !self.batch.is_empty();
        self.writing.push_back(Writing {
            turn,
            since: self.now,
            writes,
            saved,
        });
        if !writes {
            // Nothing to write: it waits for what is on its way, if anything is.
            if self.writing.len() == 1 {
                self.inbox.push(StoreMessage::Persisted {
                    turn,
                    result: Ok(()),
                });
            }
            return Ok(false);
        }
        let batch = std::mem::take(&mut self.batch);
        self.metrics
            .raftdb_batch
            .observe(batch.encoded_len() as u64);
        if self.may_sync_here() {
            if self.says_first || self.peers.values().any(Peer::leads) {
                // A leader's appends leave first; and what was said in this turn leaves before a peer is gone for good.
                self.unsynced = Some((turn, batch));
                return Ok(false);
            }
            self.sync_here(turn, batch)?;
            return Ok(true);
        }
        let ticket = self
            .engines
            .raft
            .submit_waiting(batch, WriteOptions::SYNC)
            .map_err(Error::Raftdb)?;
        if self.config.faults.is(Fault::AckBeforeSync) {
            self.inbox.push(StoreMessage::Persisted {
                turn,
                result: Ok(()),
            });
            return Ok(false);
        }
        let (inbox, clock) = (Arc::clone(&self.inbox), Arc::clone(&self.clock));
        let (metrics, since) = (Arc::clone(&self.metrics), self.now);
        ticket.on_done(move |result| {
            let took = clock.now().saturating_sub(since);
            metrics.raftdb_sync.observe(took);
            let result = result.map(drop);
            inbox.push(StoreMessage::Persisted { turn, result });
        });
        Ok(false)
    }

    /// Writes up to a turn are durable.
    pub(super) fn persisted(
        &mut self,
        turn: u64,
        result: Result<(), basalt_engine::Error>,
    ) -> Result<()> {
        result.map_err(Error::Raftdb)?;
        while let Some(writing) = self.writing.front() {
            if writing.turn > turn && writing.writes {
                break;
            }
            let Some(Writing { turn, saved, .. }) = self.writing.pop_front() else {
                break;
            };
            self.persisted = turn;
            for saved in saved {
                self.saved(saved)?;
            }
        }
        // A restart does not ask for their files any more.
        for (_, snapshot) in self.ended.extract_if(.., |(until, _)| *until <= turn) {
            // What is left of them goes with a later sweep.
            let _ = self.snapshots.release(&snapshot);
        }
        Ok(())
    }

    fn saved(&mut self, saved: Saved) -> Result<()> {
        let Some(peer) = self.peers.get_mut(&saved.region_id) else {
            return Ok(());
        };
        if peer.meta.id != saved.peer_id {
            return Ok(());
        }
        peer.is_dirty = true;
        peer.saving -= 1;
        peer.raw.storage_mut().published(saved.save);
        peer.durable += u64::from(saved.promises);
        while let Some((_, to, message)) = peer
            .held
            .pop_front_if(|(promised, ..)| *promised <= peer.durable)
        {
            send(&mut *self.transport, peer, to, message);
        }
        if saved.is_snapshot {
            peer.snapshots_saving -= 1;
            if peer.snapshots_saving > 0 {
                // A newer one has taken its place, and is not durable yet: that one is installed.
                peer.overtaken.extend(saved.responses);
                return Ok(());
            }
            let mut responses = std::mem::take(&mut peer.overtaken);
            responses.extend(saved.responses);
            let installation = peer.raw.storage().installation()?;
            peer.installing
                .push_back((installation.snapshot().clone(), responses));
            self.apply.push(ApplyTask::Install {
                region_id: saved.region_id,
                peer_id: saved.peer_id,
                installation: Box::new(installation),
            });
            return Ok(());
        }
        self.deliver(saved.region_id, saved.responses)
    }
}
