//! The list of planted faults: each is to be found by the invariants that hold for all runs.

use basalt_raft::Fault;

/// Every fault but none.
pub(crate) const FAULTS: [Fault; 24] = [
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
    Fault::LeaseFromReceipt,
    Fault::LeaseForgottenWithTerm,
    Fault::NoQuarantine,
    Fault::SnapshotWithoutConf,
    Fault::TruncateMatching,
    Fault::HeartbeatCommitUnchecked,
    Fault::JointIncomingOnly,
    Fault::LearnersCount,
    Fault::RejectIsAck,
    Fault::NoLogMatching,
];

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
