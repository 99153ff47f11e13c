//! Handing leadership over (thesis, section 3.10). A `MsgTimeoutNow` carries the leader's term and
//! last index, and starts an election only in that term at that index: one that comes late starts
//! none.

use basalt_proto::eraftpb::{Message, MessageType};

use super::{Raft, election::Campaign};
use crate::{
    Error, NONE, Result, Storage,
    logger::{debug, info},
    message::message,
};

impl<S: Storage> Raft<S> {
    /// The leader is asked to hand over to `m.from`.
    pub(super) fn take_transfer(&mut self, m: &Message) {
        let (id, to, term) = (self.id(), m.from, self.term);
        let Some(progress) = self.tracker.progress.get(to) else {
            return;
        };
        let (is_learner, matched) = (progress.is_learner, progress.matched);
        if is_learner {
            debug!(
                self.logger,
                "{id:x} is learner. Ignored transferring leadership"
            );
            return;
        }
        let before = self.leadership.transferee;
        if before == to {
            info!(
                self.logger,
                "{id:x} [term {term}] transfer leadership to {to:x} is in progress, ignores request to same node {to:x}"
            );
            return;
        }
        if before != NONE {
            self.abort_transfer();
            info!(
                self.logger,
                "{id:x} [term {term}] abort previous transferring leadership to {before:x}"
            );
        }
        if to == id {
            debug!(
                self.logger,
                "{id:x} is already leader. Ignored transferring leadership to self"
            );
            return;
        }
        let up_to_date = matched == self.log.last_index();
        info!(
            self.logger,
            "{id:x} [term {term}] starts to transfer leadership to {to:x}"
        );
        self.leadership.transfer_elapsed = 0;
        self.leadership.transferee = to;
        if up_to_date {
            self.send_timeout_now(to);
            info!(
                self.logger,
                "{id:x} sends MsgTimeoutNow to {to:x} immediately as {to:x} already has up-to-date log"
            );
        } else {
            self.send_append(to);
        }
    }

    /// `from` has acknowledged something: the transferee may be up to date now.
    pub(super) fn continue_transfer(&mut self, from: u64) {
        let last = self.log.last_index();
        let progress = self.tracker.progress.get(from);
        if from == self.leadership.transferee
            && progress.is_some_and(|progress| progress.matched == last)
        {
            info!(
                self.logger,
                "{:x} sent MsgTimeoutNow to {from:x} after received MsgAppResp",
                self.id()
            );
            self.send_timeout_now(from);
        }
    }

    fn send_timeout_now(&mut self, to: u64) {
        let last = self.log.last_index();
        if !self.leadership.timeouts_sent.contains(&(to, last)) {
            self.leadership.timeouts_sent.push((to, last));
        }
        let mut now = message(MessageType::MsgTimeoutNow, to);
        now.last_index = last;
        self.send(now);
    }

    /// Proposals are taken again. The lease is not: the transferee may still campaign.
    pub(super) fn abort_transfer(&mut self) {
        self.leadership.transferee = NONE;
        // What the transfer has refused.
        self.leave_joint_if_due();
    }

    /// The leader wants this node to take over.
    pub(super) fn handle_timeout_now(&mut self, m: &Message) -> Result<()> {
        if self.leader != NONE && self.leader != m.from {
            return Err(Error::InvalidMessage {
                from: m.from,
                what: "a transfer by somebody who does not lead",
            });
        }
        let last = self.log.last_index();
        if m.last_index != 0 && m.last_index != last {
            debug!(
                self.logger,
                "{:x} [term {}] ignored MsgTimeoutNow from {:x} at index {}: the last index is {last}",
                self.id(),
                self.term,
                m.from,
                m.last_index
            );
            return Ok(());
        }
        info!(
            self.logger,
            "{:x} [term {}] received MsgTimeoutNow from {:x} and starts an election to get leadership.",
            self.id(),
            self.term,
            m.from
        );
        // No pre-vote: nobody else will take over meanwhile.
        self.start_campaign(Campaign::Transfer)
    }
}
