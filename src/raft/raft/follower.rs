//! The follower's side: appends and heartbeats of a leader, and what is passed on to it.

use std::mem;

use basalt_proto::eraftpb::{Message, MessageType};

use super::{Appended, Raft};
use crate::{
    DropReason, Error, Fault, NONE, ReadMode, Result, Storage,
    logger::{debug, error, info},
    message::message,
};

impl<S: Storage> Raft<S> {
    /// A leader's entries.
    pub(super) fn handle_append(&mut self, m: &mut Message) -> Result<()> {
        let (from, index, log_term) = (m.from, m.index, m.log_term);
        let (session, commit) = (m.session, m.commit);
        self.leader_session = self.leader_session.max(session);
        let answers = !(m.needs_no_answer && m.entries.is_empty());
        if index < self.log.committed() {
            // It is behind what this node knows: tell it how far it may go on.
            if answers {
                self.acknowledge(from, session, self.log.committed());
            }
            return Ok(());
        }
        let entries = mem::take(&mut m.entries);
        if self.has_fault(Fault::NoLogMatching) && index <= self.log.last_index() {
            let last = index + entries.len() as u64;
            self.log.append(entries);
            self.log.commit_to(commit.min(self.log.last_index()));
            self.acknowledge(from, session, last);
            return Ok(());
        }
        if self.has_fault(Fault::TruncateMatching)
            && !entries.is_empty()
            && self.log.matches(index, log_term)?
        {
            self.log.append(entries.clone());
        }
        match self.log.maybe_append(index, log_term, entries, commit)? {
            Appended::To(last) => {
                if answers {
                    self.acknowledge(from, session, last);
                }
                return Ok(());
            }
            Appended::ConflictsWithCommitted(index) => {
                return Err(Error::Divergence {
                    from,
                    index,
                    committed: self.log.committed(),
                });
            }
            Appended::NoMatch => {}
        }
        let known = self.log.known_term(index)?;
        debug!(
            self.logger,
            "{:x} [logterm: {}, index: {index}] rejected MsgApp [logterm: {log_term}, index: {index}] from {from:x}",
            self.id(),
            known.unwrap_or(0),
        );
        // The logs cannot agree where this one has a higher term than the leader's entry before:
        // skip all of that.
        let hint = index.min(self.log.last_index());
        let (hint, hint_term) =
            self.log
                .last_index_of_term_up_to(hint, log_term, self.log.committed())?;
        self.send(Message {
            index,
            session,
            reject: true,
            reject_hint: hint,
            log_term: hint_term,
            ..message(MessageType::MsgAppendResponse, from)
        });
        Ok(())
    }

    /// What is committed here is in every later leader's log, however late its message comes: a
    /// leader that has something else there must not be followed, let alone told that it agrees.
    pub(super) fn check_committed(&self, m: &Message) -> Result<()> {
        let committed = self.log.committed();
        let place = std::iter::once((m.index, m.log_term));
        let entries = m.entries.iter().map(|entry| (entry.index, entry.term));
        let below = place
            .chain(entries)
            .take_while(|(index, _)| *index <= committed);
        for (index, term) in below {
            let known = self.log.known_term(index)?;
            if known.is_some_and(|ours| ours != term) {
                return Err(Error::Divergence {
                    from: m.from,
                    index,
                    committed,
                });
            }
        }
        Ok(())
    }

    /// The log agrees with the leader's up to `index`.
    fn acknowledge(&mut self, to: u64, session: u64, index: u64) {
        if !self.merge_into_last_answer(to, session, index) {
            self.send(Message {
                index,
                session,
                ..message(MessageType::MsgAppendResponse, to)
            });
        }
    }

    /// A leader lives, and says what is committed of what this node has acknowledged.
    pub(super) fn handle_heartbeat(&mut self, m: &mut Message) -> Result<()> {
        if m.commit <= self.log.last_index() {
            self.log.commit_to(m.commit);
        } else if self.has_acknowledged_to(m.session) {
            return Err(Error::Divergence {
                from: m.from,
                index: m.commit,
                committed: self.log.committed(),
            });
        } else {
            info!(
                self.logger,
                "{:x} [lastindex: {}] ignored the commit index {} of session {} from {:x}",
                self.id(),
                self.log.last_index(),
                m.commit,
                m.session,
                m.from
            );
        }
        let mut answer = message(MessageType::MsgHeartbeatResponse, m.from);
        answer.context = mem::take(&mut m.context);
        self.send(answer);
        Ok(())
    }

    /// What a leader commits by a heartbeat, this node has acknowledged in that session, so its log
    /// must have it. A late heartbeat of an earlier membership says nothing of a log that was
    /// cleared since: it names another session, or no configuration has come yet.
    fn has_acknowledged_to(&self, session: u64) -> bool {
        let is_present = session == 0 || session == self.leader_session;
        is_present && !self.tracker.config.members().is_empty()
    }

    pub(super) fn forward_proposal(&mut self, mut m: Message) -> Result<()> {
        if self.leader == NONE {
            return Err(self.drop_proposal_without_leader());
        }
        if self.config.disable_proposal_forwarding {
            info!(
                self.logger,
                "{:x} not forwarding to leader {:x} at term {}; dropping proposal",
                self.id(),
                self.leader,
                self.term
            );
            return Err(Error::ProposalDropped(DropReason::NotForwarding));
        }
        m.to = self.leader;
        self.send(m);
        Ok(())
    }

    pub(super) fn drop_proposal_without_leader(&self) -> Error {
        info!(
            self.logger,
            "{:x} no leader at term {}; dropping proposal",
            self.id(),
            self.term
        );
        Error::ProposalDropped(DropReason::NoLeader)
    }

    /// Passes a request on to the leader, and drops it where none is known.
    pub(super) fn forward_to_leader(&mut self, mut m: Message, what: &str) {
        if self.leader == NONE {
            info!(
                self.logger,
                "{:x} no leader at term {}; dropping {what} msg",
                self.id(),
                self.term
            );
            return;
        }
        m.to = self.leader;
        self.send(m);
    }

    /// From now on this node grants votes as if it had not heard from the leader.
    pub(super) fn handle_forget_leader(&mut self) {
        if self.config.read_mode == ReadMode::LeaseBased {
            error!(
                self.logger,
                "ignoring MsgForgetLeader due to ReadOnlyLeaseBased"
            );
            return;
        }
        if self.leader != NONE {
            info!(
                self.logger,
                "{:x} forgetting leader {:x} at term {}",
                self.id(),
                self.leader,
                self.term
            );
            self.leader = NONE;
        }
    }
}
