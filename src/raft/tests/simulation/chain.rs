//! A log as the invariants see it: for each index the term, and a hash over the entry and all
//! before it. Two logs that have the same hash at an index agree on everything up to it.

use basalt_raft::eraftpb::Entry;

use super::trace::{hash_bytes, mix};

/// A place in a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    /// The index.
    pub(crate) index: u64,
    /// The term of the entry.
    pub(crate) term: u64,
    /// The entry and everything before it.
    pub(crate) hash: u64,
}

impl Link {
    /// The place of `entry` behind this one.
    pub(crate) fn then(self, entry: &Entry) -> Self {
        let hash = mix(self.hash, entry.term);
        let hash = mix(hash, entry.entry_type.unsigned_abs().into());
        Self {
            index: self.index + 1,
            term: entry.term,
            hash: hash_bytes(hash, &entry.data),
        }
    }
}

/// A log without its entries. Everything before its base is compacted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chain {
    base: Link,
    tail: Vec<Link>,
}

impl Chain {
    /// An empty log behind `base`.
    pub(crate) fn new(base: Link) -> Self {
        Self {
            base,
            tail: Vec::new(),
        }
    }

    /// The place before the first entry.
    pub(crate) fn base(&self) -> Link {
        self.base
    }

    /// The last place.
    pub(crate) fn last(&self) -> Link {
        self.tail.last().copied().unwrap_or(self.base)
    }

    /// What is at `index`; `None` where it is compacted, or not there yet.
    pub(crate) fn at(&self, index: u64) -> Option<Link> {
        let place = index.checked_sub(self.base.index)?;
        match place {
            0 => Some(self.base),
            place => self.tail.get(usize::try_from(place - 1).ok()?).copied(),
        }
    }

    /// Removes everything above `index`, which is not below the base.
    pub(crate) fn truncate(&mut self, index: u64) {
        let kept = index.saturating_sub(self.base.index);
        self.tail
            .truncate(usize::try_from(kept).unwrap_or(usize::MAX));
    }

    /// Appends a place, which follows the last one.
    pub(crate) fn push(&mut self, link: Link) {
        debug_assert_eq!(link.index, self.last().index + 1);
        self.tail.push(link);
    }

    /// Moves the base up to `index`, which is there.
    pub(crate) fn compact(&mut self, index: u64) {
        let Some(base) = self.at(index) else { return };
        let gone = usize::try_from(index - self.base.index).unwrap_or(usize::MAX);
        self.tail.drain(..gone.min(self.tail.len()));
        self.base = base;
    }
}
