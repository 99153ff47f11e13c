//! Who the members of a group are, and in which role.

use std::fmt;

use basalt_proto::eraftpb::ConfState;

use crate::{
    Error, LOCAL_APPLY_THREAD, NONE, Result,
    quorum::{JointConfig, MajorityConfig},
};

/// A membership. Invariants, checked by [`Configuration::validate`]: nobody is voter and learner;
/// `learners_next` are outgoing voters and neither incoming voters nor learners; only a joint one
/// has `learners_next` or `auto_leave`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// Who votes.
    pub voters: JointConfig,
    /// Who receives the log and does not count.
    pub learners: MajorityConfig,
    /// Outgoing voters that become learners when the joint configuration is left: until then they
    /// still vote on the outgoing side.
    pub learners_next: MajorityConfig,
    /// Whether the leader leaves the joint configuration by itself.
    pub auto_leave: bool,
}

impl Configuration {
    /// The membership that a snapshot or a storage states.
    ///
    /// # Errors
    ///
    /// [`Error::ConfChange`] where it contradicts itself.
    pub fn from_conf_state(state: &ConfState) -> Result<Self> {
        let set = |ids: &[u64]| ids.iter().copied().collect::<MajorityConfig>();
        let configuration = Self {
            voters: JointConfig {
                incoming: set(&state.nodes),
                outgoing: set(&state.voters_outgoing),
            },
            learners: set(&state.learners),
            learners_next: set(&state.learners_next),
            auto_leave: state.auto_leave,
        };
        let has_members = configuration.voters.is_joint() || !configuration.learners.is_empty();
        if has_members && configuration.voters.incoming.is_empty() {
            return Err(Error::ConfChange("a membership without voters"));
        }
        configuration.validate()?;
        Ok(configuration)
    }

    /// The same as a message; ids ascend.
    #[must_use]
    pub fn to_conf_state(&self) -> ConfState {
        ConfState {
            nodes: self.voters.incoming.ids().to_vec(),
            learners: self.learners.ids().to_vec(),
            voters_outgoing: self.voters.outgoing.ids().to_vec(),
            learners_next: self.learners_next.ids().to_vec(),
            auto_leave: self.auto_leave,
        }
    }

    /// All members, ascending.
    #[must_use]
    pub fn members(&self) -> MajorityConfig {
        let voters = self.voters.ids();
        let both = voters.ids().iter().chain(self.learners.ids());
        both.copied().collect()
    }

    /// All members that a message names, ascending; in a joint configuration of both sides.
    #[must_use]
    pub fn members_of(state: &ConfState) -> MajorityConfig {
        let voters = state.nodes.iter().chain(&state.voters_outgoing);
        voters.chain(&state.learners).copied().collect()
    }

    /// Whether the invariants hold.
    ///
    /// # Errors
    ///
    /// [`Error::ConfChange`] with the one that does not.
    pub fn validate(&self) -> Result<()> {
        let wrong = |what| Err(Error::ConfChange(what));
        let all = [
            &self.voters.incoming,
            &self.voters.outgoing,
            &self.learners,
            &self.learners_next,
        ];
        let reserved = |id: &u64| *id == NONE || *id >= LOCAL_APPLY_THREAD;
        if all.iter().any(|set| set.ids().iter().any(reserved)) {
            return wrong("a member with a reserved id");
        }
        for id in self.learners_next.ids() {
            if !self.voters.outgoing.contains(*id) {
                return wrong("a next learner is no outgoing voter");
            }
            if self.voters.incoming.contains(*id) || self.learners.contains(*id) {
                return wrong("a next learner is voter or learner already");
            }
        }
        for id in self.learners.ids() {
            if self.voters.contains(*id) {
                return wrong("a member is voter and learner");
            }
        }
        if !self.voters.is_joint() && (self.auto_leave || !self.learners_next.is_empty()) {
            return wrong("a simple configuration has nothing to leave");
        }
        Ok(())
    }
}

/// `voters=(1 2)&&(1 3) learners=(4) learners_next=(3) autoleave`
impl fmt::Display for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "voters={}", self.voters)?;
        if !self.learners.is_empty() {
            write!(f, " learners={}", self.learners)?;
        }
        if !self.learners_next.is_empty() {
            write!(f, " learners_next={}", self.learners_next)?;
        }
        if self.auto_leave {
            f.write_str(" autoleave")?;
        }
        Ok(())
    }
}
