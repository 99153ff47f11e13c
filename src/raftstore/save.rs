//! `Save`: what a node asks to be made durable, from either of its two ways to ask.

use basalt_raft::{
    Ready,
    eraftpb::{Entry, HardState, Message, Snapshot},
};

/// Numbers a peer's saves, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SaveNumber(pub u64);

/// What one save writes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Save<'a> {
    /// Replaces term, vote and commit index.
    pub hard_state: Option<HardState>,
    /// Replaces the log, before `entries`, and is to replace the data.
    pub snapshot: Option<&'a Snapshot>,
    /// Contiguous; they replace everything from the first one's index on.
    pub entries: &'a [Entry],
}

impl Save<'_> {
    /// True where there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hard_state.is_none() && self.snapshot.is_none() && self.entries.is_empty()
    }
}

impl<'a> From<&'a Ready> for Save<'a> {
    fn from(ready: &'a Ready) -> Self {
        Self {
            hard_state: ready.hard_state,
            snapshot: ready.snapshot.as_deref(),
            entries: &ready.entries,
        }
    }
}

/// From a `MsgStorageAppend`.
impl<'a> From<&'a Message> for Save<'a> {
    fn from(append: &'a Message) -> Self {
        // Without a term there is no hard state in it.
        let hard_state = (append.term != 0).then_some(HardState {
            term: append.term,
            vote: append.vote,
            commit: append.commit,
        });
        Self {
            hard_state,
            snapshot: append.snapshot.as_deref(),
            entries: &append.entries,
        }
    }
}
