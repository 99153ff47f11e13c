//! What a leader knows of one follower, and how it therefore sends.
//!
//! ```text
//!            rejected, unreachable             snapshot needed
//!      +-----------------------------+   +------------------------+
//!      v                             |   |                        v
//!    Probe --- acknowledged ---> Replicate                    Snapshot
//!      ^                                                          |
//!      +------------- snapshot arrived, or failed ----------------+
//! ```
//!
//! Probe sends one append and waits for its answer; Replicate sends on without waiting, within a
//! window; Snapshot sends nothing.

use std::fmt;

use super::Inflights;

/// How a leader sends to a follower.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProgressState {
    /// One append at a time, until it is known where the logs agree.
    #[default]
    Probe,
    /// As fast as the window allows.
    Replicate,
    /// Nothing, until the snapshot has arrived or failed.
    Snapshot,
}

impl fmt::Display for ProgressState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Probe => "StateProbe",
            Self::Replicate => "StateReplicate",
            Self::Snapshot => "StateSnapshot",
        })
    }
}

/// A follower as its leader sees it.
#[derive(Clone, Debug)]
pub struct Progress {
    /// The follower's log is durable, and the leader's own, up to here. Never moves back in a term.
    pub matched: u64,
    /// The first index of the next append. Invariant: `matched < next`.
    pub next: u64,
    /// How to send.
    pub state: ProgressState,
    /// The index of the snapshot on its way; 0 but in [`ProgressState::Snapshot`].
    pub pending_snapshot: u64,
    /// Heard from since the last look whether a quorum is in contact.
    pub recent_active: bool,
    /// Receives the log and counts for nothing.
    pub is_learner: bool,
    /// Which life of this member the leader speaks to: unique among the additions that this leader
    /// has seen in this term, never 0. Sent with each append, echoed in each answer; an answer with
    /// another one is from before a removal.
    pub session: u64,
    /// Appends on their way. Empty but in [`ProgressState::Replicate`].
    pub inflights: Inflights,
    /// The commit index that was sent last; set back to what the follower can have made of it where
    /// what was sent with it is lost.
    pub(crate) sent_commit: u64,
    /// Nothing more is sent until something is heard: the probe is out, or the window is full.
    pub(crate) paused: bool,
    /// With batching: an append is due at the next `ready`; true sends even an empty one.
    pub(crate) due: Option<bool>,
    /// The last round of heartbeats that this follower has answered.
    pub(crate) acked_round: u64,
}

impl Progress {
    pub(crate) fn new(next: u64, is_learner: bool, session: u64, inflights: Inflights) -> Self {
        Self {
            matched: 0,
            next,
            state: ProgressState::Probe,
            pending_snapshot: 0,
            recent_active: false,
            is_learner,
            session,
            inflights,
            sent_commit: 0,
            paused: false,
            due: None,
            acked_round: 0,
        }
    }

    fn enter(&mut self, state: ProgressState) {
        self.paused = false;
        self.pending_snapshot = 0;
        self.state = state;
        self.inflights.clear();
    }

    /// One append at a time from now on.
    pub(crate) fn become_probe(&mut self) {
        // Where a snapshot was sent, the log goes on behind it.
        let behind_snapshot = self.pending_snapshot + 1;
        self.enter(ProgressState::Probe);
        self.next = behind_snapshot.max(self.matched + 1);
        self.sent_commit = self.sent_commit.min(self.next - 1);
    }

    /// Appends without waiting from now on.
    pub(crate) fn become_replicate(&mut self) {
        self.enter(ProgressState::Replicate);
        self.next = self.matched + 1;
        self.sent_commit = self.sent_commit.min(self.next - 1);
    }

    /// A snapshot at `index` was sent.
    pub(crate) fn become_snapshot(&mut self, index: u64) {
        self.enter(ProgressState::Snapshot);
        self.pending_snapshot = index;
        self.next = index + 1;
        self.sent_commit = index;
    }

    /// An append with `count` entries of `bytes` bytes from `next` on was sent.
    pub(crate) fn sent_entries(&mut self, count: u64, bytes: u64) {
        match self.state {
            ProgressState::Replicate => {
                if count > 0 {
                    self.next += count;
                    self.inflights.add(self.next - 1, bytes);
                }
                self.paused = self.inflights.is_full();
            }
            ProgressState::Probe => {
                if count > 0 {
                    self.paused = true;
                }
            }
            ProgressState::Snapshot => unreachable!("no append is sent beside a snapshot"),
        }
    }

    /// Whether sending `commit` would tell the follower something it can use.
    pub(crate) fn can_bump_commit(&self, commit: u64) -> bool {
        commit > self.sent_commit && self.sent_commit < self.next - 1
    }

    /// The follower has acknowledged `index`; false where that is no news.
    pub(crate) fn maybe_update(&mut self, index: u64) -> bool {
        if index <= self.matched {
            return false;
        }
        self.matched = index;
        self.next = self.next.max(index + 1);
        self.paused = false;
        true
    }

    /// The follower has rejected an append behind `rejected` and says that the logs may agree up to
    /// `hint`; false where that is no news.
    pub(crate) fn maybe_decrease_to(&mut self, rejected: u64, hint: u64) -> bool {
        if self.state == ProgressState::Replicate {
            if rejected <= self.matched {
                return false;
            }
            self.next = self.matched + 1;
        } else {
            // A probe is out; an answer to anything else is late. One that rejects what was
            // acknowledged comes from a node that has lost it: asking again at once would never end.
            if self.next - 1 != rejected || rejected <= self.matched && self.matched > 0 {
                return false;
            }
            self.next = rejected.min(hint + 1).max(self.matched + 1);
            self.paused = false;
        }
        self.sent_commit = self.sent_commit.min(self.next - 1);
        true
    }

    /// Whether nothing may be sent but what was.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused || self.state == ProgressState::Snapshot
    }

    pub(crate) fn check(&self) {
        let Self { matched, next, .. } = self;
        assert!(matched < next, "match {matched}, next {next}");
        assert!(self.session > 0, "a member without a session");
        assert_eq!(
            self.pending_snapshot > 0,
            self.state == ProgressState::Snapshot,
            "a pending snapshot exactly where one was sent"
        );
        assert!(
            self.inflights.count() == 0 || self.state == ProgressState::Replicate,
            "appends in flight but not replicating"
        );
        self.inflights.check();
    }
}

/// `StateReplicate match=4 next=6 learner paused pendingSnap=3 inactive inflight=2[full]`
impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} match={} next={}",
            self.state, self.matched, self.next
        )?;
        if self.is_learner {
            f.write_str(" learner")?;
        }
        if self.is_paused() {
            f.write_str(" paused")?;
        }
        if self.pending_snapshot > 0 {
            write!(f, " pendingSnap={}", self.pending_snapshot)?;
        }
        if !self.recent_active {
            f.write_str(" inactive")?;
        }
        if self.inflights.count() > 0 {
            write!(f, " inflight={}", self.inflights.count())?;
            if self.inflights.is_full() {
                f.write_str("[full]")?;
            }
        }
        Ok(())
    }
}
