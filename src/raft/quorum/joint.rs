//! Two sets of voters of which each must agree: what a group is between two memberships
//! (Ongaro's thesis, section 4.3).

use std::fmt;

use super::{MajorityConfig, VoteResult};

/// The incoming voters and, while the membership changes, the outgoing ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JointConfig {
    /// Who votes, and will go on voting.
    pub incoming: MajorityConfig,
    /// Who voted before; empty unless the configuration is joint.
    pub outgoing: MajorityConfig,
}

impl JointConfig {
    /// Whether two sets decide.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether `id` votes on either side.
    #[must_use]
    pub fn contains(&self, id: u64) -> bool {
        self.incoming.contains(id) || self.outgoing.contains(id)
    }

    /// The voters of both sides, ascending, each once.
    #[must_use]
    pub fn ids(&self) -> MajorityConfig {
        let both = self.incoming.ids().iter().chain(self.outgoing.ids());
        both.copied().collect()
    }

    /// The largest index that both sides have acknowledged.
    pub fn committed_index(&self, acked: impl Fn(u64) -> Option<u64>) -> u64 {
        let incoming = self.incoming.committed_index(&acked);
        incoming.min(self.outgoing.committed_index(&acked))
    }

    /// What the votes decide: both sides must win, and one that has lost decides.
    pub fn vote_result(&self, vote: impl Fn(u64) -> Option<bool>) -> VoteResult {
        let incoming = self.incoming.vote_result(&vote);
        let outgoing = self.outgoing.vote_result(&vote);
        match (incoming, outgoing) {
            (VoteResult::Lost, _) | (_, VoteResult::Lost) => VoteResult::Lost,
            (VoteResult::Won, VoteResult::Won) => VoteResult::Won,
            _ => VoteResult::Pending,
        }
    }
}

/// `(1 2 3)`, or `(1 2 4)&&(1 2 3)` with the outgoing voters behind.
impl fmt::Display for JointConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.incoming)?;
        if self.is_joint() {
            write!(f, "&&{}", self.outgoing)?;
        }
        Ok(())
    }
}
