//! Snapshots: sent where the log does not reach back far enough, and taken in the place of the log
//! (thesis, chapter 5).

use basalt_proto::eraftpb::{ConfState, Message, MessageType, Snapshot};

use super::{Raft, Role};
use crate::{
    Error, Fault, NONE, Result, Storage, StorageError,
    logger::{debug, info, warning},
    message::message,
    tracker::{Configuration, ProgressState},
};

impl<S: Storage> Raft<S> {
    /// Sends a snapshot to `to`, if it is in contact and there is one.
    pub(super) fn try_send_snapshot(&mut self, to: u64) -> Result<bool> {
        let Some(progress) = self.tracker.progress.get(to) else {
            return Ok(false);
        };
        if !progress.recent_active {
            debug!(
                self.logger,
                "ignore sending snapshot to {to:x} since it is not recently active"
            );
            return Ok(false);
        }
        let snapshot = match self.log.snapshot(to) {
            Ok(snapshot) => snapshot,
            Err(StorageError::SnapshotTemporarilyUnavailable) => {
                debug!(
                    self.logger,
                    "{:x} failed to send snapshot to {to:x} because snapshot is temporarily unavailable",
                    self.id()
                );
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        };
        let metadata = snapshot.metadata.as_ref();
        let (index, term) = metadata.map_or((0, 0), |metadata| (metadata.index, metadata.term));
        let members = metadata.and_then(|metadata| metadata.conf_state.as_ref());
        let lacks = |state: &ConfState| !Configuration::members_of(state).contains(to);
        if members.is_some_and(lacks) {
            // It would be refused there: wait for one that was made after the addition.
            warning!(
                self.logger,
                "{:x} has no snapshot yet of a membership with {to:x}",
                self.id()
            );
            return Ok(false);
        }
        if index == 0 {
            return Err(StorageError::Other("the storage gave an empty snapshot".into()).into());
        }
        self.queue_snapshot(to, index, term, snapshot)?;
        Ok(true)
    }

    fn queue_snapshot(&mut self, to: u64, index: u64, term: u64, snapshot: Snapshot) -> Result<()> {
        let (id, first, committed) = (self.id(), self.log.first_index()?, self.log.committed());
        let Some(progress) = self.tracker.progress.get_mut(to) else {
            return Ok(());
        };
        if index + 1 < first || index <= progress.matched {
            let what = format!("the storage gave a snapshot at {index}, the log begins at {first}");
            return Err(StorageError::Other(what.into()).into());
        }
        debug!(
            self.logger,
            "{id:x} [firstindex: {first}, commit: {committed}] sent snapshot[index: {index}, term: {term}] to {to:x} [{progress}]"
        );
        progress.become_snapshot(index);
        debug!(
            self.logger,
            "{id:x} paused sending replication messages to {to:x} [{progress}]"
        );
        let session = progress.session;
        self.send(Message {
            snapshot: Some(Box::new(snapshot)),
            session,
            ..message(MessageType::MsgSnapshot, to)
        });
        Ok(())
    }

    /// The caller knows what became of the snapshot to a member.
    pub(super) fn handle_snapshot_status(&mut self, m: &Message) {
        let id = self.id();
        let Some(progress) = self.tracker.progress.get_mut(m.from) else {
            return;
        };
        if progress.state != ProgressState::Snapshot {
            return;
        }
        let outcome = if m.reject {
            // Nothing stands behind the snapshot's index: go on from what is known.
            progress.pending_snapshot = 0;
            "failed"
        } else {
            "succeeded"
        };
        progress.become_probe();
        debug!(
            self.logger,
            "{id:x} snapshot {outcome}, resumed sending replication messages to {:x} [{progress}]",
            m.from
        );
        // After a delivery its answer comes first; after a failure the next try waits for the answer
        // to a heartbeat.
        progress.paused = true;
    }

    /// A leader sends the state in the place of the log.
    pub(super) fn handle_snapshot(&mut self, m: Message) -> Result<()> {
        let Message {
            from,
            session,
            snapshot,
            ..
        } = m;
        self.leader_session = self.leader_session.max(session);
        let snapshot = snapshot.map(|boxed| *boxed).unwrap_or_default();
        let Some(metadata) = &snapshot.metadata else {
            return Err(Error::InvalidMessage {
                from,
                what: "a snapshot without its place in the log",
            });
        };
        let (index, term) = (metadata.index, metadata.term);
        if term > self.term || (index == 0) != (term == 0) {
            return Err(Error::InvalidMessage {
                from,
                what: "a snapshot of an impossible term",
            });
        }
        let mut answer = Message {
            session,
            ..message(MessageType::MsgAppendResponse, from)
        };
        if self.restore(from, snapshot)? {
            info!(
                self.logger,
                "{:x} [commit: {}] restored snapshot [index: {index}, term: {term}]",
                self.id(),
                self.log.committed()
            );
            answer.index = self.log.last_index();
        } else {
            info!(
                self.logger,
                "{:x} [commit: {}] ignored snapshot [index: {index}, term: {term}]",
                self.id(),
                self.log.committed()
            );
            answer.index = self.log.committed();
        }
        self.send(answer);
        Ok(())
    }

    /// Replaces log and membership by a snapshot; false where it brings nothing new.
    fn restore(&mut self, from: u64, snapshot: Snapshot) -> Result<bool> {
        let metadata = snapshot.metadata.clone().unwrap_or_default();
        let (index, term) = (metadata.index, metadata.term);
        if index <= self.log.committed() {
            return Ok(false);
        }
        if self.role != Role::Follower {
            warning!(
                self.logger,
                "{:x} attempted to restore snapshot as leader; should never happen",
                self.id()
            );
            self.become_follower(self.term + 1, NONE);
            return Ok(false);
        }
        let committed = self.log.committed();
        let before = self.log.known_term(committed)?;
        if before.is_some_and(|before| before > term) {
            return Err(Error::Divergence {
                from,
                index,
                committed,
            });
        }
        let state = metadata.conf_state.unwrap_or_default();
        let configuration = Configuration::from_conf_state(&state)?;
        if !configuration.members().contains(self.id()) {
            warning!(
                self.logger,
                "{:x} attempted to restore snapshot but it is not in the ConfState {configuration}; should never happen",
                self.id()
            );
            return Ok(false);
        }
        if self.log.matches(index, term)? {
            info!(
                self.logger,
                "{:x} [commit: {}, lastindex: {}, lastterm: {}] fast-forwarded commit to snapshot [index: {index}, term: {term}]",
                self.id(),
                self.log.committed(),
                self.log.last_index(),
                self.log.last_term()
            );
            self.log.commit_to(index);
            return Ok(false);
        }
        self.log.restore(index, term, snapshot);
        if !self.has_fault(Fault::SnapshotWithoutConf) {
            self.restore_configuration(configuration)?;
        }
        info!(
            self.logger,
            "{:x} [commit: {}, lastindex: {}, lastterm: {}] restored snapshot [index: {index}, term: {term}]",
            self.id(),
            self.log.committed(),
            self.log.last_index(),
            self.log.last_term()
        );
        Ok(true)
    }

    /// The snapshot at `index` is durable and applied.
    pub(crate) fn on_snapshot_applied(&mut self, index: u64) {
        self.log.stable_snapshot_to(index);
        if index <= self.log.committed() {
            self.on_applied(index, 0, 0);
        }
    }
}
