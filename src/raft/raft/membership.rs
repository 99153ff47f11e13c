//! Changes of the membership, when they are applied (thesis, chapter 4).
//!
//! As in the reference implementation a change takes effect when its entry is applied, not when it
//! is appended; what makes that safe is that only one is unapplied at a time, and that nobody
//! campaigns with a committed one unapplied.

use basalt_proto::eraftpb::{ConfState, Entry, EntryType};

use super::{Raft, Role};
use crate::{
    Error, MembershipChange, NONE, Result, Storage,
    confchange::Changer,
    logger::{debug, info},
    tracker::{Configuration, Progress, ProgressMap},
};

impl<S: Storage> Raft<S> {
    /// Takes a committed change into effect.
    pub(crate) fn apply_conf_change(&mut self, change: MembershipChange) -> Result<ConfState> {
        // A change on top of nothing would make a group of its own out of a node that joins one.
        if self.tracker.config.voters.incoming.is_empty() {
            return Err(Error::ConfChange(
                "this node was not told the group's first members: it needs a snapshot",
            ));
        }
        let session = self.leadership.last_session + 1;
        let changer = Changer {
            config: &self.tracker.config,
            progress: &self.tracker.progress,
            last_index: self.log.last_index(),
            session,
            inflights: &self.no_inflights(),
        };
        let (config, progress) = changer.change(&change.into_v2())?;
        self.leadership.last_session = session;
        self.switch_to(config, progress);
        if cfg!(debug_assertions) {
            self.check();
        }
        Ok(self.tracker.config.to_conf_state())
    }

    /// Takes over the membership of a storage or a snapshot.
    pub(super) fn restore_configuration(&mut self, config: Configuration) -> Result<()> {
        config.validate()?;
        let (next, inflights) = (self.log.last_index().max(1), self.no_inflights());
        let mut progress = ProgressMap::default();
        for id in config.members().ids() {
            let is_learner = config.learners.contains(*id);
            progress.insert(*id, Progress::new(next, is_learner, 1, inflights.clone()));
        }
        self.leadership.last_session = 1;
        self.switch_to(config, progress);
        Ok(())
    }

    fn switch_to(&mut self, config: Configuration, progress: ProgressMap) {
        self.tracker.config = config;
        self.tracker.progress = progress;
        info!(
            self.logger,
            "{:x} switched to configuration {}",
            self.id(),
            self.tracker.config
        );
        let own = self.tracker.progress.get(self.id());
        let is_member = own.is_some();
        self.is_learner = own.is_some_and(|progress| progress.is_learner);
        if self.role != Role::Leader {
            return;
        }
        if !is_member || self.is_learner {
            if self.config.step_down_on_removal {
                self.become_follower(self.term, NONE);
            }
            return;
        }
        self.tell_members();
        self.release_reads();
        let transferee = self.leadership.transferee;
        if transferee != NONE && !self.tracker.config.voters.contains(transferee) {
            self.abort_transfer();
        }
    }

    /// Another quorum may have committed more; and members that are new need not wait.
    fn tell_members(&mut self) {
        if self.maybe_commit() {
            self.serve_held_reads();
            self.broadcast_append();
            return;
        }
        let mut place = 0;
        while let Some(id) = self.tracker.progress.id_at(place) {
            place += 1;
            if id != self.id() {
                self.send_entries_once(id);
            }
        }
    }

    /// Proposes the end of the joint configuration that asked for it. A transfer refuses it; then it is
    /// proposed again when that has failed, by the next applied entry, or by the next leader.
    pub(super) fn leave_joint_if_due(&mut self) {
        let due = self.tracker.config.auto_leave
            && self.log.applied() >= self.leadership.pending_conf_index
            && self.role == Role::Leader;
        if !due {
            return;
        }
        let leave = Entry {
            entry_type: EntryType::EntryConfChangeV2.into(),
            ..Entry::default()
        };
        match self.propose(self.id(), vec![leave]) {
            Ok(()) => info!(
                self.logger,
                "initiating automatic transition out of joint configuration {}",
                self.tracker.config
            ),
            Err(_) => debug!(
                self.logger,
                "not initiating automatic transition out of joint configuration {}: raft proposal dropped",
                self.tracker.config
            ),
        }
    }
}
