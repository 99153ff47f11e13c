//! What a node wants done: written, sent, applied.

use basalt_proto::eraftpb::{Entry, HardState, Message, Snapshot};
use bytes::Bytes;

use crate::Role;

/// What others may want to know and nobody persists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SoftState {
    /// Who leads, 0 if unknown.
    pub leader: u64,
    /// What this node is.
    pub role: Role,
}

/// A read that may be answered: once the state machine has applied `index`, what it says is
/// linearizable for everything that was asked before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadState {
    /// What must be applied first.
    pub index: u64,
    /// What the caller gave to [`crate::RawNode::read_index`].
    pub context: Bytes,
}

/// Work for the caller, taken from a node by [`crate::RawNode::ready`].
///
/// In the order of the duties:
///
/// 1. Write `hard_state`, `snapshot` and `entries` to stable storage in one step, of which a crash
///    keeps all or nothing: the snapshot replaces the log, the entries everything from their first
///    index on. Sync, if `must_sync` is set or there is a snapshot.
/// 2. Send `messages`, after the writes of 1 are durable.
/// 3. Apply `snapshot` and `committed_entries` to the state machine; give each membership change to
///    [`crate::RawNode::apply_conf_change`], in the place of one that is refused
///    `ConfChange::default()`.
///    Entries that a snapshot has overtaken meanwhile (`raft().log().first_index()` is above them) must
///    not be applied any more, for their changes are in it; they are acknowledged all the same.
/// 4. Call [`crate::RawNode::advance`].
///
/// Beside these: keep each of `read_states` until its index is applied, then answer the read. Of each
/// `MsgSnapshot` that was sent, say what became of it ([`crate::RawNode::report_snapshot`]): nothing
/// else is sent to that member until it has answered or failed. Say when a member could not be reached
/// ([`crate::RawNode::report_unreachable`]).
///
/// With [`crate::Config::async_storage_writes`] the fields before `messages` are for information,
/// `advance` is not called, and the duties are messages themselves: see [`crate::RawNode`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ready {
    /// Leader and role, if they changed.
    pub soft_state: Option<SoftState>,
    /// Term, vote and commit index, if they changed.
    pub hard_state: Option<HardState>,
    /// Reads that may be answered.
    pub read_states: Vec<ReadState>,
    /// To be appended to the log.
    pub entries: Vec<Entry>,
    /// To replace log and state machine.
    pub snapshot: Option<Box<Snapshot>>,
    /// To be applied to the state machine; persisted before, or in `entries` of the same `Ready`.
    pub committed_entries: Vec<Entry>,
    /// To be sent.
    pub messages: Vec<Message>,
    /// Whether term, vote or entries are new. A change of the commit index alone needs no sync.
    pub must_sync: bool,
}

impl Ready {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
