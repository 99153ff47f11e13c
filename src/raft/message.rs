//! Helpers over the generated messages: which are local, which are answers, how large entries are,
//! and the names by which the reference implementation logs them.

use basalt_proto::eraftpb::{Entry, EntryType, Message, MessageType};
use bytes::Bytes;

/// No node: an unknown leader, an unused vote.
pub const NONE: u64 = 0;

/// Where messages to the storage's append thread go.
pub const LOCAL_APPEND_THREAD: u64 = u64::MAX;

/// Where messages to the state machine's apply thread go.
pub const LOCAL_APPLY_THREAD: u64 = u64::MAX - 1;

/// What [`entry_size`] counts for an entry beside its payload: about its other fields on the wire.
pub const ENTRY_OVERHEAD: u64 = 24;

/// The context of a vote request that a leader asked for: it overrides leases.
pub(crate) const CAMPAIGN_TRANSFER: &[u8] = b"CampaignTransfer";

/// Bytes that an entry counts against limits of messages and windows.
#[must_use]
pub fn entry_size(entry: &Entry) -> u64 {
    entry.data.len() as u64 + ENTRY_OVERHEAD
}

/// [`entry_size`] of all of them.
#[must_use]
pub fn entries_size(entries: &[Entry]) -> u64 {
    entries.iter().map(entry_size).sum()
}

/// Bytes of payload; empty entries are free.
pub(crate) fn payload_size(entries: &[Entry]) -> u64 {
    entries.iter().map(|entry| entry.data.len() as u64).sum()
}

/// Cuts `entries` where they pass `max_bytes`; the first one always stays.
pub fn limit_size(entries: &mut Vec<Entry>, max_bytes: u64) {
    if max_bytes == u64::MAX {
        return;
    }
    let mut bytes = 0;
    let fits = entries.iter().take_while(|entry| {
        bytes += entry_size(entry);
        bytes <= max_bytes
    });
    let fits = fits.count().max(1);
    entries.truncate(fits);
}

/// Whether the entry changes the membership.
pub(crate) fn is_conf_change(entry: &Entry) -> bool {
    entry.entry_type() != EntryType::EntryNormal
}

/// Whether only a node itself, its caller or its storage threads send such messages. A transport
/// must not deliver them; [`crate::RawNode::step`] refuses those that do not come from a storage
/// thread.
#[must_use]
pub fn is_local(kind: MessageType) -> bool {
    matches!(
        kind,
        MessageType::MsgHup
            | MessageType::MsgBeat
            | MessageType::MsgUnreachable
            | MessageType::MsgSnapStatus
            | MessageType::MsgCheckQuorum
            | MessageType::MsgForgetLeader
            | MessageType::MsgStorageAppend
            | MessageType::MsgStorageAppendResp
            | MessageType::MsgStorageApply
            | MessageType::MsgStorageApplyResp
    )
}

/// Whether the message answers another one.
#[must_use]
pub fn is_response(kind: MessageType) -> bool {
    matches!(
        kind,
        MessageType::MsgAppendResponse
            | MessageType::MsgRequestVoteResponse
            | MessageType::MsgHeartbeatResponse
            | MessageType::MsgUnreachable
            | MessageType::MsgReadIndexResp
            | MessageType::MsgPreVoteResp
            | MessageType::MsgStorageAppendResp
            | MessageType::MsgStorageApplyResp
    )
}

/// Whether `id` is one of the storage threads.
#[must_use]
pub fn is_local_thread(id: u64) -> bool {
    id == LOCAL_APPEND_THREAD || id == LOCAL_APPLY_THREAD
}

/// The reference implementation's name of a message, as its logs and transcripts spell it.
#[must_use]
pub fn reference_name(kind: MessageType) -> &'static str {
    match kind {
        MessageType::MsgHup => "MsgHup",
        MessageType::MsgBeat => "MsgBeat",
        MessageType::MsgPropose => "MsgProp",
        MessageType::MsgAppend => "MsgApp",
        MessageType::MsgAppendResponse => "MsgAppResp",
        MessageType::MsgRequestVote => "MsgVote",
        MessageType::MsgRequestVoteResponse => "MsgVoteResp",
        MessageType::MsgSnapshot => "MsgSnap",
        MessageType::MsgHeartbeat => "MsgHeartbeat",
        MessageType::MsgHeartbeatResponse => "MsgHeartbeatResp",
        MessageType::MsgTransferLeader => "MsgTransferLeader",
        MessageType::MsgTimeoutNow => "MsgTimeoutNow",
        MessageType::MsgReadIndex => "MsgReadIndex",
        MessageType::MsgReadIndexResp => "MsgReadIndexResp",
        MessageType::MsgPreVote => "MsgPreVote",
        MessageType::MsgPreVoteResp => "MsgPreVoteResp",
        MessageType::MsgStorageAppend => "MsgStorageAppend",
        MessageType::MsgStorageAppendResp => "MsgStorageAppendResp",
        MessageType::MsgStorageApply => "MsgStorageApply",
        MessageType::MsgStorageApplyResp => "MsgStorageApplyResp",
        MessageType::MsgForgetLeader => "MsgForgetLeader",
        MessageType::MsgUnreachable => "MsgUnreachable",
        MessageType::MsgSnapStatus => "MsgSnapStatus",
        MessageType::MsgCheckQuorum => "MsgCheckQuorum",
    }
}

/// A message of a kind to a node; everything else is filled in by the caller and by `send`. Each
/// field is spelled, and the call inlined, so that the callers build theirs in place: a default
/// message to copy from is the larger part of the cost of a small one.
#[inline(always)]
pub(crate) fn message(kind: MessageType, to: u64) -> Message {
    Message {
        msg_type: kind as i32,
        to,
        from: NONE,
        term: 0,
        log_term: 0,
        index: 0,
        entries: Vec::new(),
        commit: 0,
        snapshot: None,
        reject: false,
        reject_hint: 0,
        context: Bytes::new(),
        vote: 0,
        responses: Vec::new(),
        session: 0,
        last_index: 0,
        known_commit: 0,
        known_commit_term: 0,
        needs_no_answer: false,
    }
}

/// The kind of the answer to a vote request.
pub(crate) fn vote_response(kind: MessageType) -> MessageType {
    match kind {
        MessageType::MsgRequestVote => MessageType::MsgRequestVoteResponse,
        MessageType::MsgPreVote => MessageType::MsgPreVoteResp,
        _ => unreachable!("{kind:?} asks for no vote"),
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
