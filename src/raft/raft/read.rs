//! Linearizable reads without log entries (thesis, section 6.4), and the heartbeats that confirm
//! them.
//!
//! The leader numbers its rounds of heartbeats; a follower echoes the number, and its highest one
//! is kept. A read takes the commit index and waits for a quorum to answer a round that began after
//! it. Nothing is held back until an entry of the own term is committed: before, the commit index
//! may lie below what an earlier leader has acknowledged.
//!
//! The lease: a quorum that has answered a round grants no vote for an election timeout from when
//! it heard of it. The first of its ticks may follow at once, so that is one tick less in time; of
//! the rest the leader takes three quarters, counted from when the round was sent, and a quarter is
//! left for clocks that drift. A transfer overrides promises of that kind, so from the sending of a
//! `MsgTimeoutNow` there is no lease until its target has acknowledged a later entry: with that
//! the target ignores the message, however late it comes.

use std::collections::VecDeque;

use basalt_proto::eraftpb::{Message, MessageType};
use bytes::Bytes;

use super::{Raft, Role};
use crate::{
    Error, Fault, NONE, ReadState, Result, Storage,
    logger::{debug, error},
    message::message,
    tracker::ProgressState,
};

/// A read that waits for its round.
#[derive(Debug)]
struct Pending {
    /// The first round that began after the read.
    round: u64,
    /// The commit index when the read came.
    index: u64,
    request: Message,
}

/// A leader's reads and rounds.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Came before an entry of the own term was committed.
    held: Vec<Message>,
    /// Ascending by round.
    pending: VecDeque<Pending>,
    /// The last round that was sent.
    round: u64,
    /// With batching: the next `ready` begins a round.
    round_due: bool,
    /// Whether rounds are numbered and timed even when nobody reads.
    lease: bool,
    /// When each round was sent that may still extend the lease: round, tick.
    sent: VecDeque<(u64, u64)>,
    /// When the last round was sent that a quorum has answered.
    confirmed_at: Option<u64>,
}

impl Reads {
    pub(super) fn new(lease: bool) -> Self {
        Self {
            lease,
            ..Self::default()
        }
    }

    pub(super) fn is_round_due(&self) -> bool {
        self.round_due
    }

    fn waiting(&self) -> usize {
        self.held.len() + self.pending.len()
    }

    pub(super) fn check(&self) {
        let rounds = self.pending.iter().map(|pending| pending.round);
        assert!(rounds.is_sorted(), "reads out of order");
        let last = self.pending.back().map_or(0, |pending| pending.round);
        assert!(
            last <= self.round || (last == self.round + 1 && self.round_due),
            "a read waits for round {last}, the last was {}",
            self.round
        );
    }
}

impl<S: Storage> Raft<S> {
    /// A read reaches the leader.
    pub(super) fn take_read(&mut self, m: Message) -> Result<()> {
        if m.entries.len() != 1 {
            return Err(Error::InvalidMessage {
                from: m.from,
                what: "a read without exactly one context",
            });
        }
        if self.leadership.reads.waiting() >= self.config.max_pending_reads {
            return Err(Error::ReadsFull);
        }
        if !self.has_committed_in_own_term() && !self.has_fault(Fault::ReadBeforeOwnTermCommit) {
            self.leadership.reads.held.push(m);
            return Ok(());
        }
        self.serve_read(m);
        Ok(())
    }

    /// An entry of the own term is committed: reads that waited for it go on.
    pub(super) fn serve_held_reads(&mut self) {
        if self.leadership.reads.held.is_empty() {
            return;
        }
        if !self.has_committed_in_own_term() {
            error!(
                self.logger,
                "pending MsgReadIndex should be released only after first commit in current term"
            );
            return;
        }
        for m in std::mem::take(&mut self.leadership.reads.held) {
            self.serve_read(m);
        }
    }

    fn serve_read(&mut self, request: Message) {
        let index = self.log.committed();
        if self.tracker.is_singleton(self.id()) || self.has_lease() {
            self.counts.reads_by_lease += 1;
            self.answer_read(index, &request);
            return;
        }
        let reads = &mut self.leadership.reads;
        reads.pending.push_back(Pending {
            round: reads.round + 1,
            index,
            request,
        });
        reads.round_due = true;
        if !self.config.batch_appends {
            self.broadcast_heartbeat();
        }
    }

    fn answer_read(&mut self, index: u64, request: &Message) {
        if request.from == NONE || request.from == self.id() {
            let context = request.entries.first().map(|entry| entry.data.clone());
            self.read_states.push(ReadState {
                index,
                context: context.unwrap_or_default(),
            });
            return;
        }
        let mut answer = message(MessageType::MsgReadIndexResp, request.from);
        answer.index = index;
        answer.entries.clone_from(&request.entries);
        self.send(answer);
    }

    /// Whether this node leads, and no other leader can have been elected since a quorum was heard from.
    pub fn has_lease(&self) -> bool {
        self.lease_left() > 0
    }

    /// Ticks after which the lease is over, if nothing renews or ends it before; 0 where there is none.
    pub fn lease_left(&self) -> u64 {
        let reads = &self.leadership.reads;
        let through_transfer = self.has_fault(Fault::LeaseThroughTransfer);
        match reads.confirmed_at {
            Some(sent)
                if reads.lease
                    && (self.leadership.timeouts_sent.is_empty() || through_transfer) =>
            {
                self.lease_ticks().saturating_sub(self.now - sent)
            }
            _ => 0,
        }
    }

    /// Length of a lease.
    fn lease_ticks(&self) -> u64 {
        (self.config.election_tick - 1) * 3 / 4
    }

    /// Ticks for which the state of an applied entry of the own term may be read without asking anybody, if
    /// nothing renews or ends that before: a lease's, or those of one where this node is the group.
    pub fn local_reads_left(&self) -> u64 {
        if self.role != Role::Leader {
            return 0;
        }
        let applied = self.log.term(self.log.applied());
        if !applied.is_ok_and(|term| term == self.term) {
            return 0;
        }
        if self.tracker.is_singleton(self.id()) {
            return self.lease_ticks();
        }
        self.lease_left()
    }

    /// Heartbeats to every other member, as a numbered round if somebody waits for one.
    pub(super) fn broadcast_heartbeat(&mut self) {
        let (id, now) = (self.id(), self.now);
        let reads = &mut self.leadership.reads;
        reads.round_due = false;
        let mut context = Bytes::new();
        if reads.lease || !reads.pending.is_empty() {
            reads.round += 1;
            context = Bytes::copy_from_slice(&reads.round.to_be_bytes());
        }
        // A later round of the same tick extends the lease no further.
        let first_of_tick = reads.sent.back().is_none_or(|(_, sent)| *sent < now);
        if reads.lease && first_of_tick {
            reads.sent.push_back((reads.round, now));
            // What is older than an election timeout gives no lease any more.
            while reads
                .sent
                .front()
                .is_some_and(|(_, sent)| now - sent > self.config.election_tick)
            {
                reads.sent.pop_front();
            }
        }
        let committed = self.log.committed();
        let unchecked = self.has_fault(Fault::HeartbeatCommitUnchecked);
        let mut place = 0;
        while let Some(to) = self.tracker.progress.id_at(place) {
            place += 1;
            let Some(progress) = self.tracker.progress.get_mut(to) else {
                continue;
            };
            if to == id {
                continue;
            }
            // Never more than the follower has acknowledged: beyond it the logs may differ.
            let commit = if unchecked {
                committed
            } else {
                committed.min(progress.matched)
            };
            progress.sent_commit = commit;
            let mut beat = message(MessageType::MsgHeartbeat, to);
            beat.session = progress.session;
            beat.commit = commit;
            beat.context = context.clone();
            self.send(beat);
        }
    }

    /// A follower lives.
    pub(super) fn handle_heartbeat_response(&mut self, m: &Message) -> Result<()> {
        let round = match <[u8; 8]>::try_from(m.context.as_ref()) {
            Ok(bytes) => u64::from_be_bytes(bytes),
            // It answers no round.
            Err(_) => 0,
        };
        let last_round = self.leadership.reads.round;
        if round > last_round {
            return Err(Error::InvalidMessage {
                from: m.from,
                what: "an answer to a round of heartbeats that never was",
            });
        }
        let any_round = self.has_fault(Fault::ReadAckOfAnyRound);
        let last = self.log.last_index();
        let Some(progress) = self.tracker.progress.get_mut(m.from) else {
            return Ok(());
        };
        progress.recent_active = true;
        progress.paused = false;
        progress.acked_round = progress.acked_round.max(round);
        if any_round {
            progress.acked_round = last_round;
        }
        // Lost appends are sent again, and a probe goes out even to a follower that has everything,
        // so that it can be replicated to again.
        if progress.matched < last || progress.state == ProgressState::Probe {
            self.send_append(m.from);
        }
        self.release_reads();
        Ok(())
    }

    /// Answers the reads whose round a quorum has answered, and extends the lease.
    pub(super) fn release_reads(&mut self) {
        let id = self.id();
        let own = self.leadership.reads.round;
        let mut acked = self.tracker.acked_round(id, own).min(own);
        if self.has_fault(Fault::JointIncomingOnly) {
            acked = self.acked_by_incoming(own);
        }
        let from_receipt = self.has_fault(Fault::LeaseFromReceipt);
        let now = self.now;
        let reads = &mut self.leadership.reads;
        while let Some((round, sent)) = reads.sent.front().copied() {
            if round > acked {
                break;
            }
            reads.sent.pop_front();
            reads.confirmed_at = Some(if from_receipt { now } else { sent });
        }
        while let Some(pending) = self.leadership.reads.pending.front() {
            if pending.round > acked {
                break;
            }
            if let Some(Pending { index, request, .. }) = self.leadership.reads.pending.pop_front()
            {
                debug!(self.logger, "{id:x} answers a read at index {index}");
                self.counts.reads_by_round += 1;
                self.answer_read(index, &request);
            }
        }
    }

    fn acked_by_incoming(&self, own: u64) -> u64 {
        let acked = |voter| {
            let progress = self.tracker.progress.get(voter)?;
            Some(if voter == self.id() {
                own
            } else {
                progress.acked_round
            })
        };
        let voters = &self.tracker.config.voters.incoming;
        voters.committed_index(acked).min(own)
    }
}
