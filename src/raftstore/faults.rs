//! Rules that tests may have a store break, so that the simulation proves that it would notice.
//!
//! Set at run time and only by tests; a store of a server has none.

/// A rule to break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The apply state is written behind the data, in a batch of its own.
    AppliedApart,
    /// What waits for a sync leaves before it.
    AckBeforeSync,
    /// Entries are deleted up to what is truncated, flushed or not.
    GcPastFlushed,
    /// Time that the process stood still is not counted.
    LeaseOverPause,
    /// Whoever reads without asking the store loop takes its lease for longer than it is.
    LocalLeaseTooLong,
    /// What ends a lease early is not told to those who read without asking the store loop.
    LocalLeaseNotEnded,
    /// A snapshot's states are written before its data, in a step of their own.
    SnapshotInTwoSteps,
    /// A proposal whose leader is deposed is answered `NotLeader`.
    NotLeaderForPending,
    /// A read is answered without asking who leads.
    ReadWithoutIndex,
    /// A read does not wait for its index to be applied.
    ReadBeforeApplied,
    /// A write is answered when it is proposed.
    AnswerBeforeCommit,
    /// Proposals are matched by index alone.
    MatchByIndexOnly,
    /// A restarted voter votes at once.
    NoQuarantine,
    /// A message of a new term leaves before that term is durable.
    TermBeforeSync,
    /// A snapshot replaces what is there and leaves old keys behind.
    SnapshotWithoutDelete,
    /// The family that entries were in before is dropped before what was copied is durable.
    MigrationUnsynced,
    /// A store that has lost its disk takes part again under its old identity. (It is the server that keeps
    /// such a store out, so it is the simulation that lets it in.)
    WipedStoreVotes,
}

/// A set of [`Fault`]s, of which at most one is planted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults(Option<Fault>);

impl Faults {
    /// Just this one.
    #[must_use]
    pub fn only(fault: Fault) -> Self {
        Self(Some(fault))
    }

    /// Whether it is planted.
    #[must_use]
    pub fn is(self, fault: Fault) -> bool {
        self.0 == Some(fault)
    }
}
