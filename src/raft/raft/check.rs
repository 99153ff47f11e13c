//! The invariants of a node, checked after every step in debug builds.

use super::{Raft, Role};
use crate::{NONE, Storage};

impl<S: Storage> Raft<S> {
    /// Panics where the node contradicts itself.
    pub(crate) fn check(&self) {
        self.log.check();
        self.tracker.check();
        self.leadership.reads.check();
        let own = self.tracker.progress.get(self.id());
        assert_eq!(
            self.is_learner,
            own.is_some_and(|progress| progress.is_learner),
            "own role in {}",
            self.tracker.config
        );
        assert!(
            self.log.last_term() <= self.term || self.term == 0,
            "last term {} in term {}",
            self.log.last_term(),
            self.term
        );
        match self.role {
            Role::Leader => self.check_leader(),
            Role::Candidate => {
                assert_eq!(self.vote, self.id(), "a candidate votes for itself");
                assert_eq!(self.leader, NONE, "a candidate knows no leader");
            }
            Role::PreCandidate => assert_eq!(self.leader, NONE, "a candidate knows no leader"),
            Role::Follower => assert_ne!(self.leader, self.id(), "a follower follows itself"),
        }
        if self.role != Role::Leader {
            assert_eq!(
                self.leadership.own_term_from, 0,
                "{} with a leader's state",
                self.role
            );
        }
    }

    fn check_leader(&self) {
        assert_eq!(self.leader, self.id(), "a leader follows itself");
        let from = self.leadership.own_term_from;
        assert!(
            0 < from && from <= self.log.last_index(),
            "own term from {from}, last index {}",
            self.log.last_index()
        );
        assert_eq!(self.log.last_term(), self.term, "a leader appends");
        for (id, progress) in self.tracker.progress.iter() {
            assert!(
                progress.matched <= self.log.last_index(),
                "{id} matches {} beyond the last index {}",
                progress.matched,
                self.log.last_index()
            );
        }
    }
}
