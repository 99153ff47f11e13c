//! Every message passes here: first its term is held against the own one, then the role handles it.

use std::mem;

use basalt_proto::eraftpb::{Message, MessageType};

use super::{Raft, Role};
use crate::{
    Error, Fault, NONE, ReadMode, Result, Storage,
    logger::{debug, error, info},
    message::{CAMPAIGN_TRANSFER, message, reference_name},
};

impl<S: Storage> Raft<S> {
    /// Takes a message. The rooms get it by reference, since it is large, and take out what they keep.
    pub(crate) fn step(&mut self, mut m: Message) -> Result<()> {
        let result = self.step_unchecked(&mut m);
        if cfg!(debug_assertions) {
            self.check();
        }
        result
    }

    fn step_unchecked(&mut self, m: &mut Message) -> Result<()> {
        let kind = m.msg_type();
        if kind == MessageType::MsgAppend && m.term >= self.term {
            self.check_committed(m)?;
        }
        if m.term > self.term {
            if !self.meet_higher_term(kind, m) {
                return Ok(());
            }
        } else if m.term != 0 && m.term < self.term {
            self.meet_lower_term(kind, m);
            return Ok(());
        }
        match kind {
            MessageType::MsgHup => self.campaign_by_timeout(),
            MessageType::MsgStorageAppendResp => {
                self.on_appended(m.term, m.index, m.log_term);
                if let Some(metadata) = m.snapshot.take().and_then(|snapshot| snapshot.metadata) {
                    self.on_snapshot_applied(metadata.index);
                }
                Ok(())
            }
            MessageType::MsgStorageApplyResp => {
                if let Some(last) = m.entries.last() {
                    let bytes = crate::entries_size(&m.entries);
                    let payload = crate::message::payload_size(&m.entries);
                    self.on_applied(last.index, bytes, payload);
                }
                Ok(())
            }
            MessageType::MsgRequestVote | MessageType::MsgPreVote => {
                self.answer_vote_request(kind, m)
            }
            _ => match self.role {
                Role::Leader => self.step_leader(kind, m),
                Role::Candidate | Role::PreCandidate => self.step_candidate(kind, m),
                Role::Follower => self.step_follower(kind, m),
            },
        }
    }

    /// Takes over a higher term, if the message is one that shows it; false if nobody cares for the
    /// message.
    fn meet_higher_term(&mut self, kind: MessageType, m: &Message) -> bool {
        match kind {
            MessageType::MsgRequestVote | MessageType::MsgPreVote
                if self.is_bound_to_leader() && m.context != CAMPAIGN_TRANSFER =>
            {
                // Thesis, section 4.2.3: whoever hears from a leader does not help to depose it.
                let remaining = self
                    .config
                    .election_tick
                    .saturating_sub(self.election_elapsed);
                let why = format_args!(": lease is not expired (remaining ticks: {remaining})");
                self.log_vote("ignored", kind, m, why);
                return false;
            }
            // A question about a term that does not exist yet.
            MessageType::MsgPreVote => {}
            // Granted for the term asked about. A refusal instead carries the term of who refuses.
            MessageType::MsgPreVoteResp if !m.reject => {}
            _ => {
                info!(
                    self.logger,
                    "{:x} [term: {}] received a {} message with higher term from {:x} [term: {}]",
                    self.id(),
                    self.term,
                    reference_name(kind),
                    m.from,
                    m.term
                );
                let from_leader = matches!(
                    kind,
                    MessageType::MsgAppend | MessageType::MsgHeartbeat | MessageType::MsgSnapshot
                );
                self.become_follower(m.term, if from_leader { m.from } else { NONE });
            }
        }
        true
    }

    /// Whether votes are refused because a leader may rely on this node. With leases the promise to
    /// a leader outlives this node's opinion of who leads: a message of a higher term may change that
    /// at any time, and the leader goes on reading.
    pub(super) fn is_bound_to_leader(&self) -> bool {
        let timeout = self.config.election_tick;
        let knows_leader =
            self.config.check_quorum && self.leader != NONE && self.election_elapsed < timeout;
        self.is_quarantined() || knows_leader || self.is_bound_by_lease()
    }

    /// Whether a leader's lease may rest on this node.
    pub(super) fn is_bound_by_lease(&self) -> bool {
        self.config.read_mode == ReadMode::LeaseBased
            && !self.has_fault(Fault::LeaseForgottenWithTerm)
            && self
                .heard_at
                .is_some_and(|heard| self.now - heard < self.config.election_tick)
    }

    /// Whether this process may have promised something to a leader before it was restarted.
    pub(super) fn is_quarantined(&self) -> bool {
        self.now < self.config.quarantine_ticks && !self.has_fault(Fault::NoQuarantine)
    }

    fn meet_lower_term(&mut self, kind: MessageType, m: &Message) {
        match kind {
            MessageType::MsgHeartbeat | MessageType::MsgAppend
                if self.config.check_quorum
                    || self.config.pre_vote
                    || self.config.answer_stale_leader =>
            {
                // Its sender must learn the term: with leases nobody else would tell it, and a node
                // whose campaign was ignored could never come back.
                self.send(message(MessageType::MsgAppendResponse, m.from));
            }
            MessageType::MsgRequestVote if self.config.answer_stale_leader => {
                // Nor can a candidate win that nobody tells how far the terms have come.
                self.log_vote("rejected", kind, m, format_args!(""));
                let mut answer = message(MessageType::MsgRequestVoteResponse, m.from);
                answer.term = self.term;
                answer.reject = true;
                self.send(answer);
            }
            MessageType::MsgPreVote => {
                // Nodes without pre-vote may have raised the term; silence would leave the group
                // without a leader.
                self.log_vote("rejected", kind, m, format_args!(""));
                let mut answer = message(MessageType::MsgPreVoteResp, m.from);
                answer.term = self.term;
                answer.reject = true;
                self.send(answer);
            }
            MessageType::MsgStorageAppendResp => {
                if m.index != 0 {
                    // The entries may have been replaced since, and later ones acknowledged wrongly.
                    info!(
                        self.logger,
                        "{:x} [term: {}] ignored entry appends from a {} message with lower term [term: {}]",
                        self.id(),
                        self.term,
                        reference_name(kind),
                        m.term
                    );
                    self.on_appended(m.term, m.index, m.log_term);
                }
                // What is in a snapshot is committed, whatever the term.
                let metadata = m
                    .snapshot
                    .as_ref()
                    .and_then(|snapshot| snapshot.metadata.as_ref());
                if let Some(metadata) = metadata {
                    self.on_snapshot_applied(metadata.index);
                }
            }
            _ => {
                info!(
                    self.logger,
                    "{:x} [term: {}] ignored a {} message with lower term from {:x} [term: {}]",
                    self.id(),
                    self.term,
                    reference_name(kind),
                    m.from,
                    m.term
                );
            }
        }
    }

    fn step_leader(&mut self, kind: MessageType, m: &mut Message) -> Result<()> {
        match kind {
            MessageType::MsgAppend | MessageType::MsgHeartbeat | MessageType::MsgSnapshot => {
                return Err(two_leaders(m.from));
            }
            MessageType::MsgBeat => {
                self.broadcast_heartbeat();
                return Ok(());
            }
            MessageType::MsgCheckQuorum => {
                self.look_for_quorum();
                return Ok(());
            }
            MessageType::MsgPropose => return self.propose(m.from, mem::take(&mut m.entries)),
            MessageType::MsgReadIndex => return self.take_read(mem::take(m)),
            MessageType::MsgForgetLeader => return Ok(()),
            _ => {}
        }
        if kind == MessageType::MsgAppendResponse {
            return self.handle_append_response(m);
        }
        if !self.tracker.progress.contains(m.from) {
            debug!(
                self.logger,
                "{:x} no progress available for {:x}",
                self.id(),
                m.from
            );
            return Ok(());
        }
        match kind {
            MessageType::MsgHeartbeatResponse => self.handle_heartbeat_response(m),
            MessageType::MsgSnapStatus => {
                self.handle_snapshot_status(m);
                Ok(())
            }
            MessageType::MsgUnreachable => {
                self.handle_unreachable(m);
                Ok(())
            }
            MessageType::MsgTransferLeader => {
                self.take_transfer(m);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn step_candidate(&mut self, kind: MessageType, m: &mut Message) -> Result<()> {
        let own_answer = match self.role {
            Role::PreCandidate => MessageType::MsgPreVoteResp,
            _ => MessageType::MsgRequestVoteResponse,
        };
        match kind {
            MessageType::MsgPropose => Err(self.drop_proposal_without_leader()),
            MessageType::MsgAppend | MessageType::MsgHeartbeat | MessageType::MsgSnapshot => {
                // Somebody has won the election.
                self.become_follower(m.term, m.from);
                self.step_follower(kind, m)
            }
            kind if kind == own_answer => self.count_vote(kind, m),
            MessageType::MsgTimeoutNow => {
                debug!(
                    self.logger,
                    "{:x} [term {} state {}] ignored MsgTimeoutNow from {:x}",
                    self.id(),
                    self.term,
                    self.role,
                    m.from
                );
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn step_follower(&mut self, kind: MessageType, m: &mut Message) -> Result<()> {
        match kind {
            MessageType::MsgPropose => self.forward_proposal(mem::take(m)),
            MessageType::MsgAppend => {
                self.hear_from_leader(m.from)?;
                self.handle_append(m)
            }
            MessageType::MsgHeartbeat => {
                self.hear_from_leader(m.from)?;
                self.handle_heartbeat(m)
            }
            MessageType::MsgSnapshot => {
                self.hear_from_leader(m.from)?;
                self.handle_snapshot(mem::take(m))
            }
            MessageType::MsgTransferLeader => {
                self.forward_to_leader(mem::take(m), "leader transfer");
                Ok(())
            }
            MessageType::MsgForgetLeader => {
                self.handle_forget_leader();
                Ok(())
            }
            MessageType::MsgTimeoutNow => self.handle_timeout_now(m),
            MessageType::MsgReadIndex => {
                self.forward_to_leader(mem::take(m), "index reading");
                Ok(())
            }
            MessageType::MsgReadIndexResp => {
                match m.entries.as_slice() {
                    [entry] => self.read_states.push(crate::ReadState {
                        index: m.index,
                        context: entry.data.clone(),
                    }),
                    entries => error!(
                        self.logger,
                        "{:x} invalid format of MsgReadIndexResp from {:x}, entries count: {}",
                        self.id(),
                        m.from,
                        entries.len()
                    ),
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn hear_from_leader(&mut self, from: u64) -> Result<()> {
        if self.leader != NONE && self.leader != from {
            return Err(two_leaders(from));
        }
        self.election_elapsed = 0;
        self.heard_at = Some(self.now);
        self.leader = from;
        Ok(())
    }
}

/// The one thing that must never be; whatever follows from it, it must not pass in silence.
fn two_leaders(from: u64) -> Error {
    Error::InvalidMessage {
        from,
        what: "a second leader in this term",
    }
}
