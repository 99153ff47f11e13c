//! One set of voters that decides by majority.

use std::fmt;

use super::VoteResult;

/// Voters up to which the commit index is found without an allocation.
const SMALL: usize = 9;

/// A set of voters, ascending. Empty, it agrees to everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MajorityConfig(Vec<u64>);

impl MajorityConfig {
    /// Whether `id` is a voter.
    #[must_use]
    pub fn contains(&self, id: u64) -> bool {
        self.0.binary_search(&id).is_ok()
    }

    /// The voters, ascending.
    #[must_use]
    pub fn ids(&self) -> &[u64] {
        &self.0
    }

    /// Adds a voter; false if it was one.
    pub fn insert(&mut self, id: u64) -> bool {
        let place = self.0.binary_search(&id);
        if let Err(place) = place {
            self.0.insert(place, id);
        }
        place.is_err()
    }

    /// Removes a voter; false if it was none.
    pub fn remove(&mut self, id: u64) -> bool {
        let place = self.0.binary_search(&id);
        if let Ok(place) = place {
            self.0.remove(place);
        }
        place.is_ok()
    }

    /// How many voters there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no voter.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The largest index that a majority has acknowledged; `acked` gives a voter's, if it is known.
    /// `u64::MAX` for no voters, so that a joint configuration with nobody on one side is decided
    /// by the other.
    pub fn committed_index(&self, acked: impl Fn(u64) -> Option<u64>) -> u64 {
        let count = self.0.len();
        if count == 0 {
            return u64::MAX;
        }
        let mut small = [0; SMALL];
        let mut large = Vec::new();
        let indexes = if count <= SMALL {
            &mut small[..count]
        } else {
            large.resize(count, 0);
            &mut large[..]
        };
        for (index, id) in indexes.iter_mut().zip(&self.0) {
            *index = acked(*id).unwrap_or(0);
        }
        indexes.sort_unstable();
        // Of n ascending indexes, those from here on are a bare majority.
        indexes[count - (count / 2 + 1)]
    }

    /// What the votes decide; `vote` gives a voter's, if it is known.
    pub fn vote_result(&self, vote: impl Fn(u64) -> Option<bool>) -> VoteResult {
        let (mut yes, mut missing) = (0, 0);
        for id in &self.0 {
            match vote(*id) {
                Some(true) => yes += 1,
                Some(false) => {}
                None => missing += 1,
            }
        }
        let majority = self.0.len() / 2 + 1;
        if self.0.is_empty() || yes >= majority {
            VoteResult::Won
        } else if yes + missing >= majority {
            VoteResult::Pending
        } else {
            VoteResult::Lost
        }
    }
}

impl FromIterator<u64> for MajorityConfig {
    fn from_iter<I: IntoIterator<Item = u64>>(ids: I) -> Self {
        let mut ids: Vec<u64> = ids.into_iter().collect();
        ids.sort_unstable();
        ids.dedup();
        Self(ids)
    }
}

/// `(1 2 3)`
impl fmt::Display for MajorityConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(")?;
        for (place, id) in self.0.iter().enumerate() {
            write!(f, "{}{id}", if place == 0 { "" } else { " " })?;
        }
        f.write_str(")")
    }
}
