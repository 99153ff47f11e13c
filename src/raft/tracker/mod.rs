//! The members of a group as this node sees them: the membership, each follower's progress, and
//! the votes of an election.

mod configuration;
mod inflights;
mod progress;
#[cfg(test)]
mod tests;

pub use configuration::Configuration;
pub use inflights::Inflights;
pub use progress::{Progress, ProgressState};

use crate::quorum::{MajorityConfig, VoteResult};

/// Progress by id, ascending; groups are so small that a sorted list is the fastest map.
#[derive(Clone, Debug, Default)]
pub struct ProgressMap(Vec<(u64, Progress)>);

impl ProgressMap {
    fn place(&self, id: u64) -> Result<usize, usize> {
        // Groups are small and members large: looking at each beats guessing branches.
        let place = self.0.iter().position(|(other, _)| *other >= id);
        match place {
            Some(place) if self.0[place].0 == id => Ok(place),
            Some(place) => Err(place),
            None => Err(self.0.len()),
        }
    }

    /// The progress of the member at `place` in ascending order.
    pub(crate) fn at(&self, place: usize) -> Option<&Progress> {
        self.0.get(place).map(|(_, progress)| progress)
    }

    /// The progress of `id`, if it is a member.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<&Progress> {
        self.place(id).ok().map(|place| &self.0[place].1)
    }

    pub(crate) fn get_mut(&mut self, id: u64) -> Option<&mut Progress> {
        self.place(id).ok().map(|place| &mut self.0[place].1)
    }

    /// Whether `id` is a member.
    #[must_use]
    pub fn contains(&self, id: u64) -> bool {
        self.place(id).is_ok()
    }

    /// Members and their progress by ascending id.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Progress)> {
        self.0.iter().map(|(id, progress)| (*id, progress))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut Progress)> {
        self.0.iter_mut().map(|(id, progress)| (*id, progress))
    }

    pub(crate) fn insert(&mut self, id: u64, progress: Progress) {
        match self.place(id) {
            Ok(place) => self.0[place].1 = progress,
            Err(place) => self.0.insert(place, (id, progress)),
        }
    }

    pub(crate) fn remove(&mut self, id: u64) {
        if let Ok(place) = self.place(id) {
            self.0.remove(place);
        }
    }

    /// How many members there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no member.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The id at `place` in ascending order; for loops that change the rest of the node.
    pub(crate) fn id_at(&self, place: usize) -> Option<u64> {
        self.0.get(place).map(|(id, _)| *id)
    }
}

/// The votes of the running election.
#[derive(Clone, Debug, Default)]
pub(crate) struct Votes(Vec<(u64, bool)>);

impl Votes {
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn get(&self, id: u64) -> Option<bool> {
        let vote = self.0.iter().find(|(voter, _)| *voter == id);
        vote.map(|(_, vote)| *vote)
    }

    /// Takes a vote; the first of each voter counts.
    pub(crate) fn record(&mut self, id: u64, vote: bool) {
        if self.get(id).is_none() {
            self.0.push((id, vote));
        }
    }
}

/// Membership and progress. Invariant: `progress` has exactly the members of `config`, with
/// `is_learner` for exactly its learners.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tracker {
    pub(crate) config: Configuration,
    pub(crate) progress: ProgressMap,
    pub(crate) votes: Votes,
}

impl Tracker {
    /// The only voter is `id`.
    pub(crate) fn is_singleton(&self, id: u64) -> bool {
        !self.config.voters.is_joint() && self.config.voters.incoming.ids() == [id]
    }

    /// The largest index that a quorum has.
    pub(crate) fn committed(&self) -> u64 {
        self.config
            .voters
            .committed_index(|id| self.progress.get(id).map(|progress| progress.matched))
    }

    /// The last round of heartbeats that a quorum has answered, the leader `id` with `own`.
    pub(crate) fn acked_round(&self, id: u64, own: u64) -> u64 {
        let acked = |voter| {
            let progress = self.progress.get(voter)?;
            Some(if voter == id {
                own
            } else {
                progress.acked_round
            })
        };
        self.config.voters.committed_index(acked)
    }

    /// Whether a quorum was heard from lately, the leader `id` by itself.
    pub(crate) fn quorum_active(&self, id: u64) -> bool {
        let active = |voter| {
            let progress = self.progress.get(voter)?;
            Some(voter == id || progress.recent_active)
        };
        self.config.voters.vote_result(active) == VoteResult::Won
    }

    /// Granted votes, refused votes, and what they decide. Votes of learners count for nothing.
    pub(crate) fn tally(&self) -> (usize, usize, VoteResult) {
        let (mut granted, mut refused) = (0, 0);
        for (id, _) in self.progress.iter().filter(|(_, p)| !p.is_learner) {
            match self.votes.get(id) {
                Some(true) => granted += 1,
                Some(false) => refused += 1,
                None => {}
            }
        }
        let result = self.config.voters.vote_result(|id| self.votes.get(id));
        (granted, refused, result)
    }

    pub(crate) fn check(&self) {
        if let Err(error) = self.config.validate() {
            panic!("{}: {error}", self.config);
        }
        let members = self.config.members();
        let tracked: MajorityConfig = self.progress.iter().map(|(id, _)| id).collect();
        assert_eq!(members, tracked, "members and their progress");
        for (id, progress) in self.progress.iter() {
            assert_eq!(
                progress.is_learner,
                self.config.learners.contains(id),
                "role of {id} in {}",
                self.config
            );
            progress.check();
        }
    }
}
