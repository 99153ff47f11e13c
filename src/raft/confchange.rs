//! Changes of the membership: which one a change leads to, or why it fits not.
//!
//! Simple changes move at most one voter, so that the majorities before and after share a member;
//! everything else goes through a joint configuration (Ongaro's thesis, chapter 4). All functions
//! are pure: they return the new membership, or leave everything as it was.

use std::fmt;

use basalt_proto::eraftpb::{
    ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState,
    EntryType,
};
use bytes::Bytes;
use prost::Message as _;

use crate::{
    Error, Result,
    quorum::MajorityConfig,
    tracker::{Configuration, Inflights, Progress, ProgressMap},
};

/// A change of the membership in either form.
#[derive(Clone, Debug, PartialEq)]
pub enum MembershipChange {
    /// One member; TinyKV's form, an `EntryConfChange`.
    V1(ConfChange),
    /// Any number of members, an `EntryConfChangeV2`.
    V2(ConfChangeV2),
}

impl From<ConfChange> for MembershipChange {
    fn from(change: ConfChange) -> Self {
        Self::V1(change)
    }
}

impl From<ConfChangeV2> for MembershipChange {
    fn from(change: ConfChangeV2) -> Self {
        Self::V2(change)
    }
}

impl MembershipChange {
    /// Reads the data of a log entry.
    ///
    /// # Errors
    ///
    /// [`Error::ConfChange`] where the entry is no membership change, or its data no message.
    pub fn decode(entry_type: EntryType, data: Bytes) -> Result<Self> {
        let broken = |_| Error::ConfChange("the entry's data is no membership change");
        match entry_type {
            EntryType::EntryConfChange => Ok(Self::V1(ConfChange::decode(data).map_err(broken)?)),
            EntryType::EntryConfChangeV2 => {
                Ok(Self::V2(ConfChangeV2::decode(data).map_err(broken)?))
            }
            EntryType::EntryNormal => Err(Error::ConfChange("a normal entry changes no member")),
        }
    }

    /// The type and the data of a log entry.
    #[must_use]
    pub fn encode(&self) -> (EntryType, Bytes) {
        match self {
            Self::V1(change) => (EntryType::EntryConfChange, change.encode_to_vec().into()),
            Self::V2(change) => (EntryType::EntryConfChangeV2, change.encode_to_vec().into()),
        }
    }

    /// Whether no member is named: what remains is the end of a joint configuration.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::V2(change) if change.changes.is_empty())
    }

    /// The same as the wider form.
    #[must_use]
    pub fn into_v2(self) -> ConfChangeV2 {
        match self {
            Self::V1(change) => ConfChangeV2 {
                transition: ConfChangeTransition::TransitionAuto.into(),
                changes: vec![ConfChangeSingle {
                    change_type: change.change_type,
                    node_id: change.node_id,
                }],
                context: change.context,
            },
            Self::V2(change) => change,
        }
    }
}

/// A change as the reference implementation logs it.
pub(crate) struct Described<'a>(pub(crate) &'a MembershipChange);

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = |change_type: i32| match ConfChangeType::try_from(change_type) {
            Ok(ConfChangeType::AddNode) => "ConfChangeAddNode",
            Ok(ConfChangeType::RemoveNode) => "ConfChangeRemoveNode",
            Ok(ConfChangeType::UpdateNode) => "ConfChangeUpdateNode",
            Ok(ConfChangeType::AddLearnerNode) => "ConfChangeAddLearnerNode",
            Err(_) => "unknown",
        };
        match self.0 {
            MembershipChange::V1(change) => write!(
                f,
                "type:{} node_id:{}",
                kind(change.change_type),
                change.node_id
            ),
            MembershipChange::V2(change) => {
                let transition = match change.transition() {
                    ConfChangeTransition::TransitionAuto => "Auto",
                    ConfChangeTransition::TransitionJointImplicit => "JointImplicit",
                    ConfChangeTransition::TransitionJointExplicit => "JointExplicit",
                };
                write!(f, "transition:ConfChangeTransition{transition}")?;
                for single in &change.changes {
                    let (kind, id) = (kind(single.change_type), single.node_id);
                    write!(f, " changes:{{type:{kind} node_id:{id}}}")?;
                }
                Ok(())
            }
        }
    }
}

/// Whether the change says nothing but "leave the joint configuration".
pub(crate) fn leaves_joint(change: &ConfChangeV2) -> bool {
    change.changes.is_empty() && change.transition() == ConfChangeTransition::TransitionAuto
}

/// Whether the change goes through a joint configuration, and then whether that is left by itself.
fn enters_joint(change: &ConfChangeV2) -> Option<bool> {
    match change.transition() {
        ConfChangeTransition::TransitionAuto if change.changes.len() > 1 => Some(true),
        ConfChangeTransition::TransitionAuto => None,
        ConfChangeTransition::TransitionJointImplicit => Some(true),
        ConfChangeTransition::TransitionJointExplicit => Some(false),
    }
}

/// The present membership, from which changes start.
#[derive(Clone, Copy, Debug)]
pub struct Changer<'a> {
    /// The members.
    pub config: &'a Configuration,
    /// What is known of each.
    pub progress: &'a ProgressMap,
    /// The last index of the log: where a new member is probed first.
    pub last_index: u64,
    /// The session of members that are added.
    pub session: u64,
    /// The empty window of members that are added.
    pub inflights: &'a Inflights,
}

/// A membership with the progress of its members.
pub type Changed = (Configuration, ProgressMap);

impl Changer<'_> {
    /// What `change` leads to, whichever way it takes.
    ///
    /// # Errors
    ///
    /// [`Error::ConfChange`] where it does not fit.
    pub fn change(&self, change: &ConfChangeV2) -> Result<Changed> {
        if leaves_joint(change) {
            self.leave_joint()
        } else if let Some(auto_leave) = enters_joint(change) {
            self.enter_joint(auto_leave, &change.changes)
        } else {
            self.simple(&change.changes)
        }
    }

    /// Changes that move at most one voter.
    ///
    /// # Errors
    ///
    /// [`Error::ConfChange`] where they do more, no voter is left, or the present one is joint.
    pub fn simple(&self, changes: &[ConfChangeSingle]) -> Result<Changed> {
        if self.config.voters.is_joint() {
            return Err(Error::ConfChange(
                "can't apply simple config change in joint config",
            ));
        }
        let (config, progress) = self.apply(self.config.clone(), changes)?;
        if difference(&self.config.voters.incoming, &config.voters.incoming) > 1 {
            return Err(Error::ConfChange(
                "more than one voter changed without entering joint config",
            ));
        }
        checked(config, progress)
    }

    /// The joint configuration between the present one and the one with all `changes`.
    ///
    /// # Errors
    ///
    /// [`Error::ConfChange`] where the present one is joint, or no voter is left.
    pub fn enter_joint(&self, auto_leave: bool, changes: &[ConfChangeSingle]) -> Result<Changed> {
        if self.config.voters.is_joint() {
            return Err(Error::ConfChange("config is already joint"));
        }
        if self.config.voters.incoming.is_empty() {
            return Err(Error::ConfChange("can't make a zero-voter config joint"));
        }
        let mut config = self.config.clone();
        config.voters.outgoing = config.voters.incoming.clone();
        let (mut config, progress) = self.apply(config, changes)?;
        config.auto_leave = auto_leave;
        checked(config, progress)
    }

    /// The incoming side of the present joint configuration alone.
    ///
    /// # Errors
    ///
    /// [`Error::ConfChange`] where the present one is not joint.
    pub fn leave_joint(&self) -> Result<Changed> {
        if !self.config.voters.is_joint() {
            return Err(Error::ConfChange("can't leave a non-joint config"));
        }
        let mut config = self.config.clone();
        let mut progress = self.progress.clone();
        for id in std::mem::take(&mut config.learners_next).ids() {
            config.learners.insert(*id);
            if let Some(progress) = progress.get_mut(*id) {
                progress.is_learner = true;
            }
        }
        for id in std::mem::take(&mut config.voters.outgoing).ids() {
            if !config.voters.incoming.contains(*id) && !config.learners.contains(*id) {
                progress.remove(*id);
            }
        }
        config.auto_leave = false;
        checked(config, progress)
    }

    fn apply(&self, mut config: Configuration, changes: &[ConfChangeSingle]) -> Result<Changed> {
        let mut progress = self.progress.clone();
        for change in changes {
            let id = change.node_id;
            if id == 0 {
                continue; // A change that its proposer has cancelled.
            }
            match ConfChangeType::try_from(change.change_type) {
                Ok(ConfChangeType::AddNode) => self.make_voter(&mut config, &mut progress, id),
                Ok(ConfChangeType::AddLearnerNode) => {
                    self.make_learner(&mut config, &mut progress, id);
                }
                Ok(ConfChangeType::RemoveNode) => remove(&mut config, &mut progress, id),
                Ok(ConfChangeType::UpdateNode) => {}
                Err(_) => return Err(Error::ConfChange("unknown kind of membership change")),
            }
        }
        if config.voters.incoming.is_empty() {
            return Err(Error::ConfChange("removed all voters"));
        }
        Ok((config, progress))
    }

    fn make_voter(&self, config: &mut Configuration, progress: &mut ProgressMap, id: u64) {
        match progress.get_mut(id) {
            Some(progress) => progress.is_learner = false,
            None => self.add(progress, id, false),
        }
        config.voters.incoming.insert(id);
        config.learners.remove(id);
        config.learners_next.remove(id);
    }

    fn make_learner(&self, config: &mut Configuration, progress: &mut ProgressMap, id: u64) {
        if config.learners.contains(id) {
            return;
        }
        config.voters.incoming.remove(id);
        // A voter of the outgoing side votes until the joint configuration is left.
        let still_votes = config.voters.outgoing.contains(id);
        if still_votes {
            config.learners_next.insert(id);
        } else {
            config.learners.insert(id);
        }
        match progress.get_mut(id) {
            Some(progress) => progress.is_learner = !still_votes,
            None => self.add(progress, id, !still_votes),
        }
    }

    fn add(&self, progress: &mut ProgressMap, id: u64, is_learner: bool) {
        let next = self.last_index.max(1);
        let mut added = Progress::new(next, is_learner, self.session, self.inflights.clone());
        // It had no time to say anything; the leader must not step down for that.
        added.recent_active = true;
        progress.insert(id, added);
    }
}

/// The membership that `change` leads to from `state`: what [`crate::RawNode::apply_conf_change`] answers
/// on a node whose membership is `state`, for those who write it down elsewhere.
///
/// # Errors
///
/// [`Error::ConfChange`] where it does not fit.
pub fn next_conf_state(state: &ConfState, change: &MembershipChange) -> Result<ConfState> {
    let config = Configuration::from_conf_state(state)?;
    if config.voters.incoming.is_empty() {
        return Err(Error::ConfChange("a change without first members"));
    }
    // What is known of the members plays no part in it.
    let inflights = Inflights::new(1, 0);
    let mut progress = ProgressMap::default();
    for id in config.members().ids() {
        let is_learner = config.learners.contains(*id);
        progress.insert(*id, Progress::new(1, is_learner, 1, inflights.clone()));
    }
    let changer = Changer {
        config: &config,
        progress: &progress,
        last_index: 0,
        session: 1,
        inflights: &inflights,
    };
    let (next, _) = changer.change(&change.clone().into_v2())?;
    Ok(next.to_conf_state())
}

fn remove(config: &mut Configuration, progress: &mut ProgressMap, id: u64) {
    config.voters.incoming.remove(id);
    config.learners.remove(id);
    config.learners_next.remove(id);
    // A voter of the outgoing side is still replicated to.
    if !config.voters.outgoing.contains(id) {
        progress.remove(id);
    }
}

fn checked(config: Configuration, progress: ProgressMap) -> Result<Changed> {
    config.validate()?;
    Ok((config, progress))
}

/// How many ids only one of the sets has.
fn difference(left: &MajorityConfig, right: &MajorityConfig) -> usize {
    let only = |one: &MajorityConfig, other: &MajorityConfig| {
        one.ids().iter().filter(|id| !other.contains(**id)).count()
    };
    only(left, right) + only(right, left)
}

#[cfg(test)]
#[path = "confchange_tests.rs"]
mod tests;
