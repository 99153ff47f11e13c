//! Time, as ticks: when to campaign, when to send heartbeats, when to give up leading.

use basalt_proto::eraftpb::MessageType;

use super::{Raft, Role};
use crate::{NONE, Result, Storage, logger::warning, message::message};

impl<S: Storage> Raft<S> {
    /// One tick has passed.
    pub(crate) fn tick(&mut self) -> Result<()> {
        self.now += 1;
        match self.role {
            Role::Leader => self.tick_heartbeat(),
            _ => self.tick_election(),
        }
    }

    /// Time in which nobody could tick: it ages leases and promises, and moves no timeout.
    pub(crate) fn pass_time(&mut self, ticks: u64) {
        self.now = self.now.saturating_add(ticks);
    }

    fn tick_election(&mut self) -> Result<()> {
        self.election_elapsed += 1;
        if self.is_promotable() && self.election_elapsed >= self.randomized_election_timeout {
            self.election_elapsed = 0;
            self.step(message(MessageType::MsgHup, self.id()))?;
        }
        Ok(())
    }

    fn tick_heartbeat(&mut self) -> Result<()> {
        self.heartbeat_elapsed += 1;
        self.election_elapsed += 1;
        if self.election_elapsed >= self.config.election_tick {
            self.election_elapsed = 0;
            if self.config.check_quorum {
                self.step(message(MessageType::MsgCheckQuorum, self.id()))?;
            }
        }
        if self.role == Role::Leader && self.leadership.transferee != NONE {
            self.leadership.transfer_elapsed += 1;
            if self.leadership.transfer_elapsed >= self.config.election_tick {
                self.abort_transfer();
            }
        }
        if self.role == Role::Leader && self.heartbeat_elapsed >= self.config.heartbeat_tick {
            self.heartbeat_elapsed = 0;
            self.step(message(MessageType::MsgBeat, self.id()))?;
        }
        Ok(())
    }

    /// Steps down where no quorum was heard from since the last look.
    pub(super) fn look_for_quorum(&mut self) {
        let id = self.id();
        if !self.tracker.quorum_active(id) {
            warning!(
                self.logger,
                "{:x} stepped down to follower since quorum is not active",
                id
            );
            self.become_follower(self.term, NONE);
        }
        for (member, progress) in self.tracker.progress.iter_mut() {
            if member != id {
                progress.recent_active = false;
            }
        }
    }
}
