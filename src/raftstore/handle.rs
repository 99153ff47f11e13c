//! `StoreHandle`: how everybody else speaks to a store.
//!
//! Every callback is called once, whatever happens: with an answer, at its deadline, or because the store
//! has stopped. Reads may be tried here first, on the caller's own thread: under a leader's lease the store loop
//! need not be asked.

use std::{sync::Arc, time::Duration};

use basalt_engine::{PinnedSlice, ReadOptions};
use basalt_proto::{
    raft_cmdpb::{RaftCmdRequest, RaftCmdResponse},
    raft_serverpb::RaftMessage,
};

use prost::Message as _;

use crate::{
    Callback, Clock, CommandError, Engines, Inbox, Proposal, Read, Refusal, RegionSnapshot,
    StoreMessage, StoreStatus, Target,
    command::{contains, data_family},
    leases::Leases,
    metrics::StoreMetrics,
};

/// Bytes that a read counts for while it waits: of its key and header, about.
const READ_BYTES: usize = 128;

/// Speaks to a store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct StoreHandle {
    inbox: Arc<Inbox<StoreMessage>>,
    clock: Arc<dyn Clock>,
    metrics: Arc<StoreMetrics>,
    leases: Arc<Leases>,
    engines: Engines,
}

impl StoreHandle {
    pub(crate) fn new(
        inbox: Arc<Inbox<StoreMessage>>,
        clock: Arc<dyn Clock>,
        metrics: Arc<StoreMetrics>,
        leases: Arc<Leases>,
        engines: Engines,
    ) -> Self {
        Self {
            inbox,
            clock,
            metrics,
            leases,
            engines,
        }
    }

    /// What the store counts.
    #[must_use]
    pub fn metrics(&self) -> &StoreMetrics {
        &self.metrics
    }

    /// Asks for a write or an admin command. It is answered within `timeout`, or shortly after.
    pub fn propose(
        &self,
        request: RaftCmdRequest,
        timeout: Duration,
        callback: Callback<RaftCmdResponse>,
    ) {
        let since = self.clock.now();
        let proposal = Proposal {
            request,
            since,
            deadline: since.saturating_add(timeout),
            callback,
        };
        let bytes = proposal.request.encoded_len();
        let message = StoreMessage::Propose(Box::new(proposal));
        let offered = self.inbox.offer(message, bytes);
        if let Err((refusal, StoreMessage::Propose(proposal))) = offered {
            proposal.callback.fail(refused(refusal));
        }
    }

    /// Asks for a linearizable view of a region: everything that was acknowledged before the call is in it.
    pub fn read(&self, target: Target, timeout: Duration, callback: Callback<RegionSnapshot>) {
        let read = Read {
            target,
            deadline: self.clock.now().saturating_add(timeout),
            callback,
        };
        let message = StoreMessage::Read(Box::new(read));
        let offered = self.inbox.offer(message, READ_BYTES);
        if let Err((refusal, StoreMessage::Read(read))) = offered {
            read.callback.fail(refused(refusal));
        }
    }

    /// The value of `key` in `target`, linearizable as by [`StoreHandle::read`], where that takes neither the
    /// store loop nor a disk: this store leads under a lease, and the value is in memory. `None` where it does not,
    /// or where anything speaks against the request: then [`StoreHandle::read`] has the answer.
    ///
    /// # Errors
    ///
    /// What the engine says, as [`CommandError::Fenced`].
    #[must_use]
    pub fn try_get(
        &self,
        target: &Target,
        cf: &str,
        key: &[u8],
    ) -> Option<Result<Option<PinnedSlice>, CommandError>> {
        let lease = self.leases.of(target)?;
        if !contains(lease.region(), key) || !lease.holds(self.clock.now()) {
            return None;
        }
        let family = data_family(&self.engines, cf).ok()?;
        let found = self
            .engines
            .kv
            .try_get(family, key, &ReadOptions::default());
        // Behind the read, see `leases`.
        if !lease.holds(self.clock.now()) {
            return None;
        }
        let found = match found {
            Err(basalt_engine::Error::Busy(_)) => return None,
            found => found.map_err(|error| CommandError::Fenced(error.to_string())),
        };
        self.metrics.reads_at_once.count();
        Some(found)
    }

    /// A view of `target`, linearizable as by [`StoreHandle::read`], where this store leads it under a lease.
    /// Looks at nothing but memory.
    #[must_use]
    pub fn try_read(&self, target: &Target) -> Option<RegionSnapshot> {
        let lease = self.leases.of(target)?;
        let view = RegionSnapshot::new(Arc::clone(lease.region()), self.engines.clone());
        // Behind the read, see `leases`.
        lease.holds(self.clock.now()).then(|| {
            self.metrics.reads_at_once.count();
            view
        })
    }

    /// Hands over a message of another store; false where it was dropped. Of a `MsgSnapshot` the files must
    /// be complete.
    #[must_use]
    pub fn raft_message(&self, message: RaftMessage) -> bool {
        let bytes = message.encoded_len();
        let message = StoreMessage::Raft(Box::new(message));
        self.inbox.offer_urgent(message, bytes).is_ok()
    }

    /// Says that messages to a peer were not delivered.
    pub fn unreachable(&self, region_id: u64, peer_id: u64) {
        // It is only a hint.
        let message = StoreMessage::Unreachable { region_id, peer_id };
        let _ = self.inbox.offer(message, 0);
    }

    /// Says what became of a snapshot. Must be said of each.
    pub fn snapshot_sent(&self, region_id: u64, peer_id: u64, delivered: bool) {
        self.inbox.push(StoreMessage::SnapshotSent {
            region_id,
            peer_id,
            delivered,
        });
    }

    /// Says whether a store would take a snapshot. Must be said of each question.
    pub fn room(&self, region_id: u64, peer_id: u64, granted: bool) {
        self.inbox.push(StoreMessage::Room {
            region_id,
            peer_id,
            granted,
        });
    }

    /// Asks how the store fares.
    pub fn status(&self, callback: Callback<StoreStatus>) {
        let message = StoreMessage::Status(callback);
        let offered = self.inbox.offer_urgent(message, 0);
        if let Err((refusal, StoreMessage::Status(callback))) = offered {
            callback.fail(refused(refusal));
        }
    }

    /// Has leadership handed to others, as far as it can be: before a stop.
    pub fn hand_over(&self) {
        self.inbox.push(StoreMessage::HandOver);
    }
}

fn refused(refusal: Refusal) -> CommandError {
    match refusal {
        Refusal::Full(limit) => {
            let what = format!("{limit} requests wait for the store, as many as may");
            CommandError::Busy(what)
        }
        Refusal::TooManyBytes(limit) => {
            let what = format!("requests of {limit} bytes wait for the store, as many as may");
            CommandError::Busy(what)
        }
        Refusal::Closed => CommandError::Fenced("it is stopped".to_owned()),
    }
}
