//! The network: who reaches whom, what is lost, doubled, late; and how snapshots are carried.

use basalt_proto::raft_serverpb::RaftMessage;
use basalt_raftstore::snapshot::Incoming;

use super::world::{Check, Event, MICRO, MILLI, World};

/// What the network does to messages.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    /// Whom each store cannot send to.
    cut: Vec<Vec<bool>>,
    /// Per mille that are lost, that come twice.
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    /// The longest that a message takes.
    pub(crate) delay: u64,
}

impl Network {
    pub(crate) fn new(stores: usize) -> Self {
        Self {
            cut: vec![vec![false; stores]; stores],
            lost: 0,
            doubled: 0,
            delay: 500 * MICRO,
        }
    }

    /// Everybody reaches everybody again.
    pub(crate) fn mend(&mut self) {
        for row in &mut self.cut {
            row.fill(false);
        }
    }

    pub(crate) fn calm(&mut self) {
        (self.lost, self.doubled, self.delay) = (0, 0, 500 * MICRO);
    }

    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        self.cut[from][to] = true;
    }

    pub(crate) fn reaches(&self, from: usize, to: usize) -> bool {
        !self.cut[from][to]
    }
}

impl World {
    fn place_of(&self, store_id: u64) -> Option<usize> {
        let place = usize::try_from(store_id).ok()?.checked_sub(1)?;
        (place < self.nodes.len()).then_some(place)
    }

    /// A message leaves a store.
    pub(crate) fn send(&mut self, from: usize, message: RaftMessage) {
        let store_id = message.to_peer.map_or(0, |peer| peer.store_id);
        let Some(to) = self.place_of(store_id) else {
            return;
        };
        if !self.network.reaches(from, to) || self.rng.below(1_000) < self.network.lost {
            self.counts.lost += 1;
            return;
        }
        if self.rng.below(1_000) < self.network.doubled {
            self.counts.doubled += 1;
            let delay = self.up_to(self.network.delay);
            self.after(delay, Event::Deliver(Box::new(message.clone())));
        }
        self.counts.messages += 1;
        let delay = self.up_to(self.network.delay);
        self.after(delay, Event::Deliver(Box::new(message)));
    }

    /// A message arrives.
    pub(crate) fn deliver(&mut self, message: RaftMessage) -> Check {
        let store_id = message.to_peer.map_or(0, |peer| peer.store_id);
        let Some(n) = self.place_of(store_id) else {
            return Ok(());
        };
        if let Some(running) = &self.nodes[n].running {
            // A full inbox loses it.
            let _ = running.handle.raft_message(message);
        }
        self.wake(n)
    }

    /// Whether a store has room for a snapshot, as far as it is reached.
    pub(crate) fn carry_question(
        &mut self,
        from: usize,
        life: u32,
        message: &RaftMessage,
    ) -> Check {
        let to_peer = message.to_peer.unwrap_or_default();
        if self.nodes[from].life != life {
            return Ok(());
        }
        let to = self.place_of(to_peer.store_id);
        let reached =
            to.filter(|to| self.network.reaches(from, *to) && self.network.reaches(*to, from));
        let receiver = reached.and_then(|to| self.nodes[to].running.as_deref());
        let region_id = message.region_id;
        let granted = receiver.is_some_and(|to| to.snapshots.room_for(region_id).is_ok());
        if let Some(running) = &self.nodes[from].running {
            running.handle.room(region_id, to_peer.id, granted);
        }
        self.wake(from)
    }

    /// A snapshot goes from one store to another, chunk by chunk; anything may end it.
    pub(crate) fn carry_snapshot(&mut self, from: usize, life: u32, message: RaftMessage) -> Check {
        let (Some(to_peer), Some(inner)) = (message.to_peer, &message.message) else {
            return Ok(());
        };
        let Some(to) = self.place_of(to_peer.store_id) else {
            return Ok(());
        };
        if self.nodes[from].life != life || self.nodes[from].running.is_none() {
            return Ok(());
        }
        let reached = self.network.reaches(from, to) && self.network.reaches(to, from);
        let lost = self.rng.below(1_000) < self.network.lost;
        let snapshot = inner.snapshot.as_deref().cloned().unwrap_or_default();
        let breaks_at = lost.then(|| self.rng.below(4));
        let carried = match (&self.nodes[from].running, &self.nodes[to].running) {
            (Some(sender), Some(receiver)) if reached => {
                let chunks = sender.snapshots.chunks(&snapshot);
                let taken = receiver.snapshots.receive(&message);
                match (chunks, taken) {
                    (Ok(_), Ok(Incoming::Present)) => true,
                    (Ok(chunks), Ok(Incoming::Wanted(mut wanted))) => {
                        let mut whole = true;
                        for (number, chunk) in (0..).zip(chunks) {
                            let broken = breaks_at == Some(number);
                            whole = !broken && chunk.is_ok_and(|chunk| wanted.push(&chunk).is_ok());
                            if !whole {
                                break;
                            }
                        }
                        whole && breaks_at != Some(3) && wanted.finish().is_ok()
                    }
                    _ => false,
                }
            }
            _ => false,
        };
        self.counts.snapshots_sent += u64::from(carried);
        self.counts.snapshots_broken += u64::from(!carried);
        self.note(from, 20, || {
            format!("sends a snapshot to store {}: {carried}", to + 1)
        });
        if carried {
            let delay = self.up_to(5 * MILLI);
            self.after(delay, Event::Deliver(Box::new(message.clone())));
        }
        if let Some(running) = &self.nodes[from].running {
            running
                .handle
                .snapshot_sent(message.region_id, to_peer.id, carried);
        }
        self.wake(from)?;
        self.wake(to)
    }
}
