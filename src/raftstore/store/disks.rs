//! Whether the disks of this store answer. A leader whose disk does not gives way to one whose does.
//!
//! raftdb is silent for as long as its oldest write is on its way. kvdb is silent for as long as the apply loop
//! owes something and reports nothing, counted in ticks that were really made: while this process stands still
//! nobody could report. After one election timeout leadership is handed over; after two nobody has taken it, and
//! the leader stops being heard. A peer whose kvdb is silent does not campaign either, as it could not serve.
//! A disk that fails, or is full, fences the store; leadership is handed over in the same turn where a follower
//! has everything, else the others have to miss it.

use std::time::Duration;

use super::{Store, Writing};
use crate::CommandError;

/// What is known of the disks.
#[derive(Debug, Default)]
pub(super) struct Disks {
    /// Since raftdb has stopped answering.
    handed_over: bool,
    /// The apply loop has reported something since the last tick.
    pub(super) has_applied: bool,
    /// Ticks in a row in which it owed something and did not.
    silent_ticks: u64,
}

impl Store {
    /// How long raftdb has not answered.
    pub(super) fn raftdb_silent(&self) -> Duration {
        let first = self.writing.iter().find(|writing| writing.writes);
        first.map_or(Duration::ZERO, |Writing { since, .. }| {
            self.now.saturating_sub(*since)
        })
    }

    /// How long kvdb has not answered.
    pub(super) fn kvdb_silent(&self) -> Duration {
        let ticks = u32::try_from(self.disks.silent_ticks).unwrap_or(u32::MAX);
        self.config.tick.saturating_mul(ticks)
    }

    /// What a client is told where a disk has not answered for so long that this store should lead nothing:
    /// others that come to lead are found by asking them.
    pub(super) fn stalled(&self) -> Option<CommandError> {
        let busy = |what: &str| Some(CommandError::Busy(what.to_owned()));
        let limit = self.election_timeout() * 2;
        if self.raftdb_silent() > limit {
            busy("the disk of the Raft log does not answer")
        } else if self.kvdb_silent() > limit {
            busy("the disk of the data does not answer")
        } else {
            None
        }
    }

    /// Whether a peer is to let time pass instead of ticking: without heartbeats somebody else comes to lead.
    pub(super) fn holds_still(&self) -> (bool, bool) {
        let limit = self.election_timeout() * 2;
        let kvdb = self.kvdb_silent() > limit;
        (kvdb || self.raftdb_silent() > limit, kvdb)
    }

    fn election_timeout(&self) -> Duration {
        let ticks = u32::try_from(self.config.election_ticks).unwrap_or(u32::MAX);
        self.config.tick.saturating_mul(ticks)
    }

    /// Counts a tick, or several that were missed, for the apply loop.
    pub(super) fn watch_kvdb(&mut self) {
        let owes = |peer: &super::Peer| !peer.applying.is_empty() || !peer.installing.is_empty();
        let has_applied = std::mem::take(&mut self.disks.has_applied);
        if has_applied || !self.peers.values().any(owes) {
            self.disks.silent_ticks = 0;
            return;
        }
        self.disks.silent_ticks += 1;
        // Again after each timeout: whom it goes to may be as badly off, and give it back.
        let is_due = self
            .disks
            .silent_ticks
            .is_multiple_of(self.config.election_ticks);
        if is_due && self.hand_over() {
            self.metrics.gave_way_kvdb.count();
        }
    }

    /// Hands over where raftdb has been silent for long.
    pub(super) fn watch_raftdb(&mut self) {
        if self.raftdb_silent() <= self.election_timeout() {
            self.disks.handed_over = false;
        } else if !self.disks.handed_over {
            self.disks.handed_over = true;
            if self.hand_over() {
                self.metrics.gave_way_raftdb.count();
            }
        }
    }

    /// Hands over where kvdb takes no writes: the next one would fence the store.
    pub(super) fn watch_whether_kvdb_is_full(&mut self) {
        if self.engines.kv.read_only_cause().is_some() && self.hand_over() {
            self.metrics.gave_way_kvdb.count();
        }
    }

    /// Hands over at once, as far as the followers have everything: this is the last turn. What nodes hand out
    /// with it may leave without being durable, as always; what they want saved is dropped.
    pub(super) fn give_way_at_last(&mut self) {
        let leads = self.peers.iter().filter(|(_, peer)| peer.leads());
        let leads: Vec<u64> = leads.map(|(region_id, _)| *region_id).collect();
        self.hand_over();
        for region_id in leads {
            // The store is fenced for what came first, whatever follows.
            let _ = self.collect_of(region_id);
        }
        self.transport.flush();
    }
}
