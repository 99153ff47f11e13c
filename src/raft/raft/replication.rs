//! The leader's side of replication: proposals, appends to each member, and what their answers
//! commit (thesis, sections 3.5 and 3.6).
//!
//! With [`crate::Config::batch_appends`] an append is only marked as due; `ready` sends one message
//! a member with everything that is new by then. Without, it is sent where it becomes due.

use basalt_proto::eraftpb::{Entry, EntryType, Message, MessageType};

use super::{Raft, Role};
use crate::{
    DropReason, Error, Fault, MembershipChange, NONE, Result, Storage, StorageError,
    confchange::Described,
    entries_size,
    logger::{debug, info, warning},
    message::{is_conf_change, message, payload_size},
    tracker::ProgressState,
};

impl<S: Storage> Raft<S> {
    // Proposals.

    /// Takes entries for the log of this leader.
    pub(super) fn propose(&mut self, from: u64, entries: Vec<Entry>) -> Result<()> {
        if entries.is_empty() {
            return Err(Error::InvalidMessage {
                from,
                what: "a proposal without entries",
            });
        }
        if let Some(reason) = self.refuses_proposals() {
            return Err(Error::ProposalDropped(reason));
        }
        let mut entries = entries;
        let mut pending = self.leadership.pending_conf_index;
        let next = self.log.last_index() + 1;
        for (index, entry) in (next..).zip(&mut entries) {
            if !is_conf_change(entry) {
                continue;
            }
            let change = MembershipChange::decode(entry.entry_type(), entry.data.clone())?;
            if self.fits_now(&change, pending) {
                pending = index;
            } else {
                // The place in the log stays, so that whoever waits for it learns of the outcome.
                *entry = Entry::default();
            }
        }
        if !self.append_entries(entries) {
            return Err(Error::ProposalDropped(DropReason::QuotaExceeded));
        }
        self.leadership.pending_conf_index = pending;
        self.broadcast_append();
        Ok(())
    }

    /// Takes the data of one normal entry for the log of this leader.
    pub(crate) fn propose_data(&mut self, data: bytes::Bytes) -> Result<()> {
        if let Some(reason) = self.refuses_proposals() {
            return Err(Error::ProposalDropped(reason));
        }
        let bytes = data.len() as u64;
        if !self.take_from_quota(bytes) {
            return Err(Error::ProposalDropped(DropReason::QuotaExceeded));
        }
        self.log.push(Entry {
            entry_type: EntryType::EntryNormal.into(),
            term: self.term,
            index: self.log.last_index() + 1,
            data,
        });
        self.queue_own_acknowledgement();
        self.broadcast_append();
        if cfg!(debug_assertions) {
            self.check();
        }
        Ok(())
    }

    fn refuses_proposals(&self) -> Option<DropReason> {
        if !self.tracker.progress.contains(self.id()) {
            return Some(DropReason::NotMember);
        }
        if self.leadership.transferee != NONE {
            debug!(
                self.logger,
                "{:x} [term {}] transfer leadership to {:x} is in progress; dropping proposal",
                self.id(),
                self.term,
                self.leadership.transferee
            );
            return Some(DropReason::Transferring);
        }
        None
    }

    /// Whether a membership change may follow the one at index `pending`.
    fn fits_now(&self, change: &MembershipChange, pending: u64) -> bool {
        let applied = self.log.applied();
        let joint = self.tracker.config.voters.is_joint();
        let leaves = change.is_empty();
        let one_at_a_time = !self.has_fault(Fault::TwoConfChanges);
        let why = if pending > applied && one_at_a_time {
            format!("possible unapplied conf change at index {pending} (applied to {applied})")
        } else if joint && !leaves {
            "must transition out of joint config first".to_owned()
        } else if !joint && leaves {
            "not in joint state; refusing empty conf change".to_owned()
        } else {
            return true;
        };
        if self.config.disable_conf_change_validation {
            return true;
        }
        info!(
            self.logger,
            "{:x} ignoring conf change {} at config {}: {why}",
            self.id(),
            Described(change),
            self.tracker.config
        );
        false
    }

    /// Appends entries to the own log, with term and index; false where the quota refuses them.
    pub(super) fn append_entries(&mut self, mut entries: Vec<Entry>) -> bool {
        let next = self.log.last_index() + 1;
        for (index, entry) in (next..).zip(&mut entries) {
            entry.term = self.term;
            entry.index = index;
        }
        if !self.take_from_quota(payload_size(&entries)) {
            return false;
        }
        self.log.append(entries);
        self.queue_own_acknowledgement();
        true
    }

    /// Counts `bytes` of payload as uncommitted. Empty entries are always taken, so that elections
    /// and the end of a joint configuration cannot starve; so is anything while nothing is out.
    fn take_from_quota(&mut self, bytes: u64) -> bool {
        let taken = self.leadership.uncommitted_bytes;
        if taken > 0 && bytes > 0 && taken.saturating_add(bytes) > self.config.max_uncommitted_size
        {
            warning!(
                self.logger,
                "{:x} appending new entries to log would exceed uncommitted entry size limit; dropping proposal",
                self.id()
            );
            return false;
        }
        self.leadership.uncommitted_bytes = taken + bytes;
        true
    }

    /// The leader's own acknowledgement, which waits until the entries are durable.
    fn queue_own_acknowledgement(&mut self) {
        let (id, last) = (self.id(), self.log.last_index());
        if self.has_fault(Fault::SelfAckBeforeSync) {
            if let Some(own) = self.tracker.progress.get_mut(id) {
                own.maybe_update(last);
            }
            self.maybe_commit();
        }
        if self.config.batch_appends && !self.config.async_storage_writes {
            self.own_acknowledgement = last;
        } else if !self.merge_into_last_answer(id, 0, last) {
            let mut own = message(MessageType::MsgAppendResponse, id);
            own.index = last;
            self.send(own);
        }
    }

    /// The own entries up to `index` of `term` are durable.
    pub(crate) fn acknowledge_own(&mut self, term: u64, index: u64) {
        if self.role != Role::Leader || self.term != term {
            return;
        }
        let id = self.id();
        let own = self.tracker.progress.get_mut(id);
        let news = own.is_some_and(|own| own.maybe_update(index));
        if news && self.maybe_commit() {
            self.serve_held_reads();
            self.tell_commits();
        }
        if cfg!(debug_assertions) {
            self.check();
        }
    }

    /// With batching: acknowledgements are cumulative, so one can take the place of the one before.
    pub(super) fn merge_into_last_answer(&mut self, to: u64, session: u64, index: u64) -> bool {
        let term = self.term;
        if !self.config.batch_appends {
            return false;
        }
        let Some(last) = self.after_append.last_mut() else {
            return false;
        };
        let same = last.msg_type() == MessageType::MsgAppendResponse
            && last.to == to
            && last.term == term
            && last.session == session
            && !last.reject;
        if same {
            last.index = last.index.max(index);
        }
        same
    }

    // Appends.

    /// More is committed than before: whoever should know at once is told.
    fn tell_commits(&mut self) {
        if !self.config.lazy_commits {
            return self.broadcast_append();
        }
        let mut place = 0;
        while let Some(member) = self.tracker.progress.id_at(place) {
            place += 1;
            if member != self.id() {
                self.tell_commit_to(member);
            }
        }
    }

    /// An append is due to `to`, be it empty, if that tells it of commits that it should know at once.
    fn tell_commit_to(&mut self, to: u64) {
        let mut urgent = self.log.committed();
        if self.config.lazy_commits {
            urgent = urgent.min(self.leadership.pending_conf_index);
        }
        let progress = self.tracker.progress.get(to);
        if progress.is_some_and(|progress| progress.can_bump_commit(urgent)) {
            self.send_append(to);
        }
    }

    /// An append is due to every other member, be it empty.
    pub(super) fn broadcast_append(&mut self) {
        let mut place = 0;
        while let Some(member) = self.tracker.progress.id_at(place) {
            place += 1;
            if member != self.id() {
                self.send_append(member);
            }
        }
    }

    /// An append is due to `to`, be it empty.
    pub(super) fn send_append(&mut self, to: u64) {
        if !self.config.batch_appends {
            self.send_or_log(to, true);
        } else if let Some(progress) = self.tracker.progress.get_mut(to)
            && !progress.is_paused()
        {
            progress.due = Some(true);
            self.leadership.appends_due = true;
        }
    }

    /// Appends are due to `to` as far as there are entries and room in its window.
    pub(super) fn send_entries(&mut self, to: u64) {
        if self.config.batch_appends {
            self.send_entries_once(to);
        } else {
            while self.send_or_log(to, false) {}
        }
    }

    /// One append is due to `to` if there are entries for it.
    pub(super) fn send_entries_once(&mut self, to: u64) {
        let last = self.log.last_index();
        if !self.config.batch_appends {
            self.send_or_log(to, false);
        } else if let Some(progress) = self.tracker.progress.get_mut(to)
            && !progress.is_paused()
            && progress.next <= last
        {
            progress.due = progress.due.or(Some(false));
            self.leadership.appends_due = true;
        }
    }

    /// Sends what is due.
    pub(super) fn send_due_appends(&mut self) {
        self.leadership.appends_due = false;
        let mut place = 0;
        while let Some(to) = self.tracker.progress.id_at(place) {
            place += 1;
            let Some(progress) = self.tracker.progress.get_mut(to) else {
                continue;
            };
            let Some(if_empty) = progress.due.take() else {
                continue;
            };
            let mut sent = self.send_or_log(to, if_empty);
            while sent && self.has_entries_for(place - 1) {
                sent = self.send_or_log(to, false);
            }
        }
    }

    /// Whether the member at `place` may be sent more entries.
    fn has_entries_for(&self, place: usize) -> bool {
        let progress = self.tracker.progress.at(place);
        progress.is_some_and(|progress| progress.next <= self.log.last_index())
    }

    /// Sends one append or snapshot to `to`. What cannot be read for one member must not hold up the
    /// others, nor undo what led here: the answer to its next heartbeat tries again.
    fn send_or_log(&mut self, to: u64, if_empty: bool) -> bool {
        self.try_send_append(to, if_empty).unwrap_or_else(|error| {
            warning!(
                self.logger,
                "{:x} could not read what to send to {to:x}: {error}",
                self.id()
            );
            false
        })
    }

    /// Sends one append to `to`, or a snapshot where the log does not reach back far enough; false
    /// where nothing may or need be sent.
    fn try_send_append(&mut self, to: u64, if_empty: bool) -> Result<bool> {
        let Some(progress) = self.tracker.progress.get(to) else {
            return Ok(false);
        };
        if progress.is_paused() {
            return Ok(false);
        }
        let (next, session) = (progress.next, progress.session);
        // It has acknowledged everything that was sent: its answer would say nothing.
        let is_abreast = self.config.batch_appends
            && progress.state == ProgressState::Replicate
            && progress.matched + 1 == next;
        // Through a full window empty appends still go, as answers to heartbeats prompt them: were
        // everything in the window lost, nothing else would ever empty it.
        let has_room = progress.state != ProgressState::Replicate || !progress.inflights.is_full();
        let last = self.log.last_index();
        if !if_empty && next > last {
            return Ok(false);
        }
        let read = self.log.term(next - 1).and_then(|term| {
            let high = if has_room { last + 1 } else { next };
            let entries = self.log.entries(next, high, self.config.max_size_per_msg)?;
            Ok((term, entries))
        });
        let (log_term, entries) = match read {
            Ok(read) => read,
            Err(StorageError::Compacted | StorageError::Unavailable) => {
                return self.try_send_snapshot(to);
            }
            // They are on their way; the answer to a heartbeat will ask again.
            Err(StorageError::LogTemporarilyUnavailable) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        if entries.is_empty() && !if_empty {
            return Ok(false);
        }
        let (count, bytes) = (entries.len() as u64, entries_size(&entries));
        let commit = self.log.committed();
        if let Some(progress) = self.tracker.progress.get_mut(to) {
            progress.sent_entries(count, bytes);
            progress.sent_commit = commit;
        }
        self.send(Message {
            index: next - 1,
            log_term,
            entries,
            commit,
            session,
            needs_no_answer: is_abreast && count == 0,
            ..message(MessageType::MsgAppend, to)
        });
        Ok(true)
    }

    // Answers.

    /// A member has taken an append or a snapshot, or has rejected an append.
    pub(super) fn handle_append_response(&mut self, m: &Message) -> Result<()> {
        let (id, from, last) = (self.id(), m.from, self.log.last_index());
        let Some(progress) = self.tracker.progress.get_mut(from) else {
            return Ok(());
        };
        let stale = m.session != 0 && m.session != progress.session;
        if stale && !self.config.faults.is(Fault::StaleSession) {
            debug!(
                self.logger,
                "{:x} ignored a MsgAppResp of session {} from {:x}, which is in session {}",
                id,
                m.session,
                from,
                progress.session
            );
            return Ok(());
        }
        if m.index > last {
            return Err(Error::InvalidMessage {
                from,
                what: "an append response beyond the leader's log",
            });
        }
        progress.recent_active = true;
        if m.reject && !self.config.faults.is(Fault::RejectIsAck) {
            return self.handle_rejection(m);
        }
        // Whatever has to be read is read before anything changes.
        let first = match progress.state {
            ProgressState::Snapshot => self.log.first_index()?,
            _ => 0,
        };
        // A probe is answered by what was known already when it found the follower up to date; an
        // answer that does not reach the probe is one to something else.
        let answers_probe = progress.state == ProgressState::Probe
            && progress.matched == m.index
            && m.index + 1 >= progress.next;
        if !progress.maybe_update(m.index) && !answers_probe {
            return Ok(());
        }
        if progress.state == ProgressState::Replicate {
            progress.inflights.free_to(m.index);
        } else {
            self.resume_after_acknowledgement(from, first);
        }
        let still_obeyed = |sent: &(u64, u64)| sent.0 != from || sent.1 >= m.index;
        self.leadership.timeouts_sent.retain(still_obeyed);

        // What is committed already commits nothing.
        if m.index > self.log.committed() && self.maybe_commit() {
            self.serve_held_reads();
            self.tell_commits();
        } else if from != id {
            self.tell_commit_to(from);
        }
        if from != id {
            self.send_entries(from);
        }
        self.continue_transfer(from);
        Ok(())
    }

    /// The follower that was probed, or sent a snapshot, is replicated to from now on, if the log,
    /// which begins at `first`, goes on where it is.
    fn resume_after_acknowledgement(&mut self, from: u64, first: u64) {
        let id = self.id();
        let Some(progress) = self.tracker.progress.get_mut(from) else {
            return;
        };
        match progress.state {
            ProgressState::Probe => progress.become_replicate(),
            // Whichever snapshot it was that arrived, the log goes on from it.
            ProgressState::Snapshot if progress.matched + 1 >= first => {
                debug!(
                    self.logger,
                    "{:x} recovered from needing snapshot, resumed sending replication messages to {:x} [{}]",
                    id,
                    from,
                    progress
                );
                progress.become_probe();
                progress.become_replicate();
            }
            ProgressState::Snapshot | ProgressState::Replicate => {}
        }
    }

    /// A follower's log does not agree at `m.index`; up to `m.reject_hint`, of term `m.log_term`, it
    /// may. Skipping whole terms on both sides bounds the round trips by the number of terms that
    /// differ (thesis, section 3.5, end).
    fn handle_rejection(&mut self, m: &Message) -> Result<()> {
        debug!(
            self.logger,
            "{:x} received MsgAppResp(rejected, hint: (index {}, term {})) from {:x} for index {}",
            self.id(),
            m.reject_hint,
            m.log_term,
            m.from,
            m.index
        );
        let (id, progress) = (self.id(), self.tracker.progress.get(m.from));
        let matched = progress.map_or(0, |progress| progress.matched);
        let mut hint = m.reject_hint.min(m.index);
        if m.session == 0 && m.reject_hint == 0 && m.log_term == 0 {
            // A peer that knows no hints: one step back, as its own kind does.
            hint = m.index.saturating_sub(1);
        }
        if m.log_term > 0 {
            let of_term = self.log.last_index_of_term_up_to(hint, m.log_term, matched);
            (hint, _) = of_term?;
        }
        let Some(progress) = self.tracker.progress.get_mut(m.from) else {
            return Ok(());
        };
        if !progress.maybe_decrease_to(m.index, hint) {
            return Ok(());
        }
        debug!(
            self.logger,
            "{:x} decreased progress of {:x} to [{}]", id, m.from, progress
        );
        if progress.state == ProgressState::Replicate {
            progress.become_probe();
        }
        self.send_append(m.from);
        Ok(())
    }

    /// Commits what a quorum has; true if that is news. Entries of older terms are committed only
    /// together with one of the own term (thesis, section 3.6.2).
    pub(super) fn maybe_commit(&mut self) -> bool {
        let mut index = self.tracker.committed();
        if self.has_fault(Fault::JointIncomingOnly) {
            let matched = |id| self.tracker.progress.get(id).map(|member| member.matched);
            index = self.tracker.config.voters.incoming.committed_index(matched);
        }
        if self.has_fault(Fault::LearnersCount) {
            let members = self.tracker.config.members();
            let matched = |id| self.tracker.progress.get(id).map(|member| member.matched);
            index = members.committed_index(matched);
        }
        let own_term =
            index >= self.leadership.own_term_from || self.has_fault(Fault::CommitOlderTerm);
        // Without voters there is nothing to count.
        if index == u64::MAX || index <= self.log.committed() || !own_term {
            return false;
        }
        self.log.commit_to(index);
        true
    }

    /// The last message to a member was lost; more may have been.
    pub(super) fn handle_unreachable(&mut self, m: &Message) {
        let id = self.id();
        let Some(progress) = self.tracker.progress.get_mut(m.from) else {
            return;
        };
        if progress.state == ProgressState::Replicate {
            progress.become_probe();
        }
        debug!(
            self.logger,
            "{:x} failed to send message to {:x} because it is unreachable [{}]",
            id,
            m.from,
            progress
        );
    }

    // Storage and state machine.

    /// Storage has the entries up to `index` of `log_term`, handed out in `term`. In a later term
    /// the same place may have been overwritten, by an entry that only looks the same.
    pub(crate) fn on_appended(&mut self, term: u64, index: u64, log_term: u64) {
        if index == 0 {
            return;
        }
        if self.has_fault(Fault::LateStorageAck) {
            let present = self.log.term(index).unwrap_or(log_term);
            self.log.stable_to(index, present);
        } else if term == self.term {
            self.log.stable_to(index, log_term);
        }
    }

    /// The state machine has applied the entries up to `index`.
    pub(crate) fn on_applied(&mut self, index: u64, bytes: u64, payload: u64) {
        let index = index.max(self.log.applied());
        self.log.applied_to(index, bytes);
        self.leave_joint_if_due();
        let uncommitted = &mut self.leadership.uncommitted_bytes;
        *uncommitted = uncommitted.saturating_sub(payload);
    }
}
