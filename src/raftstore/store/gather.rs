//! Proposals wait for each other, so that a round of the group has several of them.
//!
//! A round costs every member a sync and two messages, however much is in it; where many callers wait, rounds of one
//! command each would keep cores and disks busy with little else. So while one is on its way the next begins
//! [`MAX_GATHERING`] after it at the earliest. One that finds nothing on its way begins at once: a lone caller never
//! waits. (Nagle's algorithm, RFC 896, lets what is small wait for an answer in the same way.)
//!
//! Nobody else wakes the loop for it where what is on its way does not end: see [`Gathering::rest`].

use std::{collections::VecDeque, time::Duration};

use super::Store;
use crate::Proposal;

/// The longest that a proposal waits for others to go with.
const MAX_GATHERING: Duration = Duration::from_millis(1);

/// What is still to be proposed.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    /// In the order in which it came.
    pub(super) waiting: VecDeque<Box<Proposal>>,
    /// When the last round began.
    began: Duration,
}

impl Gathering {
    /// For how long what waits may wait longer, if anything does.
    pub(super) fn rest(&self, now: Duration) -> Option<Duration> {
        let due = self.began.saturating_add(MAX_GATHERING);
        (!self.waiting.is_empty()).then(|| due.saturating_sub(now))
    }
}

impl Store {
    /// Proposes what was gathered, if a round is to begin.
    pub(super) fn propose_gathered(&mut self) {
        if self.gathering.waiting.is_empty() {
            return;
        }
        let is_on_the_way = self.peers.values().any(|peer| !peer.proposals.is_empty());
        if is_on_the_way && self.now.saturating_sub(self.gathering.began) < MAX_GATHERING {
            return;
        }
        self.gathering.began = self.now;
        while let Some(proposal) = self.gathering.waiting.pop_front() {
            self.propose(*proposal);
        }
    }
}
