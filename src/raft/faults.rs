//! Planted faults: run-time switches that make a node wrong on purpose, so that the random tests
//! can show that they would notice. All are off unless a test turns one on.
//!
//! Each is a mistake that real implementations have made.

/// Which rule to break.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// Break none.
    #[default]
    None,
    /// The vote is left out of the hard state that is handed out.
    VoteNotPersisted,
    /// A second vote is granted in a term.
    VoteTwice,
    /// A vote is granted to a candidate whose log is behind.
    VoteForStaleLog,
    /// Entries of older terms are committed by counting replicas.
    CommitOlderTerm,
    /// Reads are answered before an entry of the own term is committed.
    ReadBeforeOwnTermCommit,
    /// Any answer to a heartbeat confirms every read that waits.
    ReadAckOfAnyRound,
    /// A node campaigns with committed and unapplied membership changes.
    CampaignWithUnappliedConf,
    /// Appends are acknowledged before they are durable.
    AckBeforeSync,
    /// A leader counts itself before its own entries are durable.
    SelfAckBeforeSync,
    /// A vote leaves before it is durable.
    VoteBeforeSync,
    /// A late acknowledgement of storage counts although the entries were replaced since.
    LateStorageAck,
    /// Responses of an earlier membership count.
    StaleSession,
    /// A second membership change is taken before the first is applied.
    TwoConfChanges,
    /// The lease goes on while leadership is handed over.
    LeaseThroughTransfer,
    /// The lease counts from when the answer arrives.
    LeaseFromReceipt,
    /// A follower forgets what it promised to a leader when it sees a higher term.
    LeaseForgottenWithTerm,
    /// A restarted voter grants votes at once.
    NoQuarantine,
    /// A snapshot's membership is not taken over.
    SnapshotWithoutConf,
    /// An append cuts the log behind it even where it agrees.
    TruncateMatching,
    /// A heartbeat carries the leader's commit index whatever the follower has.
    HeartbeatCommitUnchecked,
    /// In a joint configuration only the incoming voters are asked.
    JointIncomingOnly,
    /// Learners count as voters.
    LearnersCount,
    /// A rejection of an append is taken for an acknowledgement.
    RejectIsAck,
    /// A follower takes an append without looking at the entry before it.
    NoLogMatching,
}

/// The fault that is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults(pub Fault);

impl Faults {
    /// True where `fault` is on.
    #[must_use]
    pub fn is(self, fault: Fault) -> bool {
        self.0 == fault
    }
}
