//! The list of planted faults: each is to be found by the invariants that hold for all runs.

use basalt_raft::Fault;

/// The faults that random schedules find.
pub(crate) const FAULTS: [Fault; 22] = [
    Fault::VoteNotPersisted,
    Fault::VoteTwice,
    Fault::VoteForStaleLog,
    Fault::CommitOlderTerm,
    Fault::ReadBeforeOwnTermCommit,
    Fault::ReadAckOfAnyRound,
    Fault::CampaignWithUnappliedConf,
    Fault::AckBeforeSync,
    Fault::SelfAckBeforeSync,
    Fault::VoteBeforeSync,
    Fault::LateStorageAck,
    Fault::StaleSession,
    Fault::TwoConfChanges,
    Fault::LeaseThroughTransfer,
    Fault::NoQuarantine,
    Fault::SnapshotWithoutConf,
    Fault::TruncateMatching,
    Fault::HeartbeatCommitUnchecked,
    Fault::JointIncomingOnly,
    Fault::LearnersCount,
    Fault::RejectIsAck,
    Fault::NoLogMatching,
];

/// The faults that no schedule of the usual number finds: both want a lease that is over by a tick or
/// two while another leader has just committed, and a reader at that moment. `tests/paper/leases.rs`
/// has each as a claim of its own.
pub(crate) const NOT_FOUND: [Fault; 2] = [Fault::LeaseFromReceipt, Fault::LeaseForgottenWithTerm];

/// The names of the variants in the source of the enum.
pub(crate) fn names_in_source() -> Vec<&'static str> {
    let source = include_str!("../../faults.rs");
    let body = source
        .split_once("pub enum Fault {")
        .map_or("", |(_, rest)| rest);
    let body = body.split_once("\n}").map_or("", |(body, _)| body);
    let names = body
        .lines()
        .filter_map(|line| line.trim().strip_suffix(','));
    names.collect()
}
