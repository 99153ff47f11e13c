//! What a node refuses to look at: messages that no correct peer, and no storage thread that does
//! what it was told, would send to it. Pure checks, before anything is changed.
//!
//! A peer is trusted to follow the protocol, not to be free of faults: one that is mistaken about
//! addresses, has lost its disk or runs broken software must not take this node down with it.

use basalt_proto::eraftpb::{EntryType, Message, MessageType};

use crate::{Error, NONE, RaftLog, Result, is_local, is_local_thread, is_response};

/// The highest term that a message may carry: half of all numbers, so that no number of further
/// elections overflows.
pub const MAX_TERM: u64 = u64::MAX / 2;

/// The highest index that a message may carry, for the same reason.
pub const MAX_INDEX: u64 = u64::MAX / 2;

/// Whether a message that is no storage thread's may be taken by the node `id`; what it is.
pub(crate) fn check(m: &Message, id: u64, is_member: impl Fn(u64) -> bool) -> Result<MessageType> {
    let invalid = |what| Err(Error::InvalidMessage { from: m.from, what });
    let Ok(kind) = MessageType::try_from(m.msg_type) else {
        return invalid("an unknown kind of message");
    };
    if is_local(kind) || is_local_thread(m.from) {
        return Err(Error::LocalMessage);
    }
    if m.to != NONE && m.to != id {
        return invalid("a message for another node");
    }
    if is_response(kind) && !is_member(m.from) {
        return Err(Error::PeerNotFound);
    }
    // A proposal or a read may come before anybody leads; it carries no term then.
    let asks_leader = matches!(
        kind,
        MessageType::MsgPropose | MessageType::MsgReadIndex | MessageType::MsgTransferLeader
    );
    if m.term == 0 && !asks_leader {
        return invalid("a message without a term");
    }
    if m.from == NONE && kind != MessageType::MsgPropose {
        return invalid("a message without a sender");
    }
    if m.from == id && !may_come_from_itself(kind, m.reject) {
        return invalid("a message of a peer that comes from this node itself");
    }
    if m.term > MAX_TERM {
        return invalid("a term that leaves no room for elections");
    }
    let snapshot = m
        .snapshot
        .as_ref()
        .and_then(|snapshot| snapshot.metadata.as_ref());
    let indexes = [
        m.index,
        m.commit,
        m.known_commit,
        snapshot.map_or(0, |at| at.index),
    ];
    if indexes.iter().any(|index| *index > MAX_INDEX) {
        return invalid("an index that leaves no room for entries");
    }
    if kind == MessageType::MsgAppend {
        check_entries(m)?;
    }
    let known = |entry_type| EntryType::try_from(entry_type).is_ok();
    if !m.entries.iter().all(|entry| known(entry.entry_type)) {
        return invalid("an entry of an unknown type");
    }
    Ok(kind)
}

/// Requests that a node makes to itself, and its own promises once they are durable.
fn may_come_from_itself(kind: MessageType, reject: bool) -> bool {
    match kind {
        MessageType::MsgPropose
        | MessageType::MsgReadIndex
        | MessageType::MsgTransferLeader
        | MessageType::MsgReadIndexResp => true,
        MessageType::MsgAppendResponse
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgPreVoteResp => !reject,
        _ => false,
    }
}

/// Whether a storage thread may say this, `term` being the node's.
pub(crate) fn check_from_thread<S: crate::Storage>(
    m: &Message,
    term: u64,
    log: &RaftLog<S>,
) -> Result<()> {
    let given = match MessageType::try_from(m.msg_type) {
        Ok(MessageType::MsgStorageAppendResp) => {
            let snapshot = m
                .snapshot
                .as_ref()
                .and_then(|snapshot| snapshot.metadata.as_ref());
            m.term <= term && snapshot.is_none_or(|at| at.index <= log.committed())
        }
        Ok(MessageType::MsgStorageApplyResp) => {
            let last = m.entries.last();
            last.is_none_or(|entry| entry.index <= log.applying())
        }
        _ => return Err(Error::LocalMessage),
    };
    if given {
        return Ok(());
    }
    Err(Error::InvalidMessage {
        from: m.from,
        what: "a storage thread acknowledges what it was never given",
    })
}

/// A leader's entries follow each other behind (`m.index`, `m.log_term`), and no term goes back or
/// is above the leader's.
fn check_entries(m: &Message) -> Result<()> {
    let (mut index, mut term) = (m.index, m.log_term);
    for entry in &m.entries {
        let what = if index + 1 != entry.index {
            "entries of an append do not follow each other"
        } else if entry.term < term || entry.term > m.term {
            "terms of an append's entries are out of order"
        } else {
            (index, term) = (entry.index, entry.term);
            continue;
        };
        return Err(Error::InvalidMessage { from: m.from, what });
    }
    Ok(())
}
