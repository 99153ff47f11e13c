//! The front of the crate: a node with its two ways to persist.
//!
//! - **Ready and advance** ([`crate::Config::async_storage_writes`] off): `ready` hands out work, the
//!   caller does it in the order that [`Ready`] states, `advance` acknowledges it. One at a time.
//! - **Asynchronous storage writes**: `ready` hands out messages, among them `MsgStorageAppend` to
//!   [`crate::LOCAL_APPEND_THREAD`] and `MsgStorageApply` to [`crate::LOCAL_APPLY_THREAD`]; the other
//!   fields of [`Ready`] repeat them, except for `soft_state` and `read_states`, which are as always.
//!   Each of the two threads does its messages in their order, any number may be on the way.
//!   - Append: write the hard state (`term`, `vote`, `commit`; none where `term` is 0), `snapshot` and
//!     `entries` in one step, of which a crash keeps all or nothing, and sync. With a snapshot, also
//!     bring the state machine to it, behind everything that was handed out to be applied before.
//!   - Apply: apply `entries`, and give their membership changes to `apply_conf_change`, before the
//!     response is delivered.
//!   - Then deliver the message's `responses`, to this node with `step` or over the network.
//!   - The other messages of a `Ready` may leave when the last hard state with a new term or vote that
//!     was handed out with it, or before it, is durable; entries they need not wait for.
//!
//! Both are drivers of the same core; what a node promises is acknowledged only by what comes back.

use basalt_proto::eraftpb::{
    ConfState, Entry, EntryType, HardState, Message, MessageType, Snapshot,
};
use bytes::Bytes;

use crate::{
    Config, Error, Fault, LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD, MembershipChange, NONE, Raft,
    Ready, Result, Role, SoftState, Status, Storage, StorageError, entries_size, incoming,
    is_local_thread,
    message::{message, payload_size},
};

/// What became of a snapshot that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotStatus {
    /// The member has it.
    Delivered,
    /// It has to be sent again.
    Failed,
}

/// What `advance` acknowledges.
#[derive(Debug, Default)]
struct Accepted {
    /// Term and last index of the leader's own entries, where that is no message.
    own: Option<(u64, u64)>,
    /// This node's own votes and acknowledgements.
    to_itself: Vec<Message>,
    /// Term now, last index and its term.
    appended: Option<(u64, u64, u64)>,
    /// Index of the snapshot.
    snapshot: Option<u64>,
    /// Last index, bytes, bytes of payload.
    applied: Option<(u64, u64, u64)>,
}

/// A node of a Raft group.
pub struct RawNode<S> {
    raft: Raft<S>,
    /// What was handed out last.
    soft_state: SoftState,
    hard_state: HardState,
    /// Handed out and not acknowledged; never with asynchronous storage writes.
    accepted: Option<Accepted>,
    /// Committed entries are still being fetched by the storage: `ready` tries again after the next
    /// tick or message.
    waits_for_log: bool,
}

impl<S: Storage> RawNode<S> {
    /// A node as `storage` left it. For a node of a new group the storage holds its first members
    /// ([`Storage::initial_state`]). One that joins later starts empty and must be sent a snapshot,
    /// since the first members stand in no entry: let the logs of the first members begin behind a
    /// snapshot (a `first_index` above 1). A node that gets entries instead refuses every change of the
    /// membership, and never campaigns.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`], [`Error::ConfChange`] for a membership that contradicts itself, and
    /// what the storage says.
    pub fn new(config: Config, storage: S) -> Result<Self> {
        let raft = Raft::new(config, storage)?;
        Ok(Self {
            soft_state: raft.soft_state(),
            hard_state: raft.hard_state(),
            raft,
            accepted: None,
            waits_for_log: false,
        })
    }

    /// One tick has passed.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`] where a campaign could not look at the log; the next timeout tries again.
    pub fn tick(&mut self) -> Result<()> {
        self.waits_for_log = false;
        self.raft.tick()
    }

    /// Time has passed in which nobody could tick, for this process stood still: `ticks` of it count for
    /// leases and promises, and for no timeout, so that a node does not campaign, or give up leading, for
    /// what it could not hear meanwhile. One `tick` belongs behind it.
    pub fn pass_time(&mut self, ticks: u64) {
        self.raft.pass_time(ticks);
    }

    /// Campaigns now, instead of at the election timeout. A node that may not (a leader, a learner,
    /// one with a membership change to apply) says so in the log and does nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`] where the log could not be read.
    pub fn campaign(&mut self) -> Result<()> {
        self.raft.campaign_by_caller()
    }

    /// Proposes an entry with `data`; a follower passes it on to its leader. It may be lost after
    /// that: whoever proposes must watch what is committed.
    ///
    /// # Errors
    ///
    /// [`Error::ProposalDropped`] where it surely is in no log.
    pub fn propose(&mut self, data: Bytes) -> Result<()> {
        if self.raft.role() == Role::Leader {
            return self.raft.propose_data(data);
        }
        self.propose_entry(EntryType::EntryNormal, data)
    }

    fn propose_entry(&mut self, entry_type: EntryType, data: Bytes) -> Result<()> {
        let mut proposal = message(MessageType::MsgPropose, NONE);
        proposal.from = self.raft.id();
        proposal.entries.push(Entry {
            entry_type: entry_type.into(),
            data,
            ..Entry::default()
        });
        self.raft.step(proposal)
    }

    /// Proposes a change of the membership. Where it does not fit (another one is not applied yet,
    /// the configuration is joint) an empty entry is appended in its place.
    ///
    /// # Errors
    ///
    /// [`Error::ProposalDropped`] where it surely is in no log.
    pub fn propose_conf_change(&mut self, change: impl Into<MembershipChange>) -> Result<()> {
        let (entry_type, data) = change.into().encode();
        self.propose_entry(entry_type, data)
    }

    /// Takes a committed change of the membership into effect, when its entry is applied. In the place
    /// of one that the caller refuses, `ConfChange::default()` is given. Returns the new membership, to be persisted with
    /// the applied index.
    ///
    /// # Errors
    ///
    /// [`Error::ConfChange`] where it does not fit; the membership stays, here as on every node.
    pub fn apply_conf_change(&mut self, change: impl Into<MembershipChange>) -> Result<ConfState> {
        self.raft.apply_conf_change(change.into())
    }

    /// Takes a message from another node, or from one of the storage threads.
    ///
    /// # Errors
    ///
    /// [`Error::LocalMessage`], [`Error::PeerNotFound`], [`Error::InvalidMessage`] and
    /// [`Error::Divergence`] for messages that must not be; [`Error::ProposalDropped`],
    /// [`Error::ConfChange`] and [`Error::ReadsFull`] for requests that a leader cannot take;
    /// [`Error::Storage`].
    pub fn step(&mut self, m: Message) -> Result<()> {
        self.waits_for_log = false;
        if is_local_thread(m.from) {
            // Without asynchronous writes `advance` acknowledges, and nothing else does.
            if !self.raft.config().async_storage_writes {
                return Err(Error::LocalMessage);
            }
            incoming::check_from_thread(&m, self.raft.term(), self.raft.log())?;
        } else {
            let is_member = |id| self.raft.progress().contains(id);
            incoming::check(&m, self.raft.id(), is_member)?;
        }
        self.raft.step(m)
    }

    /// Whether `ready` has something to hand out.
    pub fn has_ready(&self) -> bool {
        let (raft, log) = (&self.raft, self.raft.log());
        let hard_state = raft.hard_state();
        raft.has_output()
            || raft.soft_state() != self.soft_state
            || (hard_state != self.hard_state && hard_state != HardState::default())
            || log.next_snapshot().is_some()
            || !log.next_unstable().is_empty()
            || (!self.waits_for_log && log.has_next_committed(self.applies_unstable()))
    }

    /// Entries may be applied before they are acknowledged where the same `Ready` has them to be
    /// written first.
    fn applies_unstable(&self) -> bool {
        !self.raft.config().async_storage_writes
    }

    /// Takes the work there is. Without asynchronous storage writes it must be acknowledged with
    /// [`RawNode::advance`] before the next is taken.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`] where the log could not be read; nothing was taken.
    ///
    /// # Panics
    ///
    /// Where the last one was not acknowledged.
    pub fn ready(&mut self) -> Result<Ready> {
        assert!(
            self.accepted.is_none(),
            "ready again without advance between"
        );
        let unstable_too = self.applies_unstable();
        let committed_entries = match self.raft.log().next_committed(unstable_too) {
            Ok(entries) => entries,
            Err(StorageError::LogTemporarilyUnavailable) => {
                self.waits_for_log = true;
                Vec::new()
            }
            Err(error) => return Err(error.into()),
        };
        self.raft.flush_due();
        let (soft_state, hard_state) = (self.raft.soft_state(), self.raft.hard_state());
        let log = self.raft.log();
        let mut ready = Ready {
            soft_state: (soft_state != self.soft_state).then_some(soft_state),
            hard_state: (hard_state != self.hard_state).then_some(hard_state),
            read_states: Vec::new(),
            entries: log.next_unstable().to_vec(),
            snapshot: log.next_snapshot().cloned().map(Box::new),
            committed_entries,
            messages: Vec::new(),
            must_sync: false,
        };
        ready.must_sync = !ready.entries.is_empty()
            || hard_state.term != self.hard_state.term
            || hard_state.vote != self.hard_state.vote;
        if self.raft.config().faults.is(Fault::VoteNotPersisted)
            && let Some(state) = &mut ready.hard_state
        {
            state.vote = NONE;
        }
        ready.read_states = self.raft.take_read_states();
        ready.messages = self.raft.take_messages();
        if self.raft.config().async_storage_writes {
            self.queue_storage_messages(&mut ready);
        } else {
            self.accept_to_advance(&mut ready);
        }

        self.soft_state = soft_state;
        self.hard_state = hard_state;
        let applied_bytes = entries_size(&ready.committed_entries);
        let log = self.raft.log_mut();
        log.accept_unstable();
        if let Some(last) = ready.committed_entries.last() {
            log.accept_applying(last.index, applied_bytes, unstable_too);
        }
        Ok(ready)
    }

    /// What the append thread has to say about what was handed out until now, if anything. The last
    /// entry of the log stands for all that are not acknowledged, so that an acknowledgement that is
    /// void after a change of term is made up for by the next.
    fn appended(&self) -> Option<(u64, u64, u64)> {
        let log = self.raft.log();
        let last = (self.raft.term(), log.last_index(), log.last_term());
        log.has_unstable().then_some(last)
    }

    fn queue_storage_messages(&mut self, ready: &mut Ready) {
        let id = self.raft.id();
        let appended = self.appended();
        let responses = self.raft.take_after_append();
        let needed = ready.hard_state.is_some()
            || !ready.entries.is_empty()
            || ready.snapshot.is_some()
            || !responses.is_empty();
        if needed {
            let mut append = message(MessageType::MsgStorageAppend, LOCAL_APPEND_THREAD);
            append.from = id;
            append.entries.clone_from(&ready.entries);
            if let Some(state) = &ready.hard_state {
                (append.term, append.vote) = (state.term, state.vote);
                append.commit = state.commit;
            }
            append.snapshot.clone_from(&ready.snapshot);
            append.responses = responses;
            // Behind the leader's own acknowledgements: those still find the entries in memory.
            if appended.is_some() || ready.snapshot.is_some() {
                let answer = self.append_response(appended, ready.snapshot.as_deref());
                append.responses.push(answer);
            }
            ready.messages.push(append);
        }
        if !ready.committed_entries.is_empty() {
            let mut answer = message(MessageType::MsgStorageApplyResp, id);
            answer.from = LOCAL_APPLY_THREAD;
            answer.entries.clone_from(&ready.committed_entries);
            let mut apply = message(MessageType::MsgStorageApply, LOCAL_APPLY_THREAD);
            apply.from = id;
            apply.entries.clone_from(&ready.committed_entries);
            apply.responses.push(answer);
            ready.messages.push(apply);
        }
    }

    fn append_response(
        &self,
        appended: Option<(u64, u64, u64)>,
        snapshot: Option<&Snapshot>,
    ) -> Message {
        let mut answer = message(MessageType::MsgStorageAppendResp, self.raft.id());
        answer.from = LOCAL_APPEND_THREAD;
        answer.term = self.raft.term();
        if let Some((_, index, log_term)) = appended {
            (answer.index, answer.log_term) = (index, log_term);
        }
        answer.snapshot = snapshot.cloned().map(Box::new);
        answer
    }

    fn accept_to_advance(&mut self, ready: &mut Ready) {
        let id = self.raft.id();
        let mut accepted = Accepted {
            own: self.raft.take_own_acknowledgement(),
            appended: self.appended(),
            ..Accepted::default()
        };
        let after = self.raft.take_after_append();
        if ready.messages.is_empty() && after.iter().all(|message| message.to != id) {
            // A follower's answers: the queue itself is handed on.
            ready.messages = after;
        } else {
            for message in after {
                if message.to == id {
                    accepted.to_itself.push(message);
                } else {
                    ready.messages.push(message);
                }
            }
        }
        let metadata = ready
            .snapshot
            .as_ref()
            .and_then(|snapshot| snapshot.metadata.as_ref());
        accepted.snapshot = metadata.map(|metadata| metadata.index);
        accepted.applied = ready.committed_entries.last().map(|last| {
            let entries = &ready.committed_entries;
            (last.index, entries_size(entries), payload_size(entries))
        });
        self.accepted = Some(accepted);
    }

    /// Acknowledges the last `Ready`: everything in it is written and sent, and its committed
    /// entries are applied.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`] where the log could not be read for what follows; all is acknowledged.
    ///
    /// # Panics
    ///
    /// With asynchronous storage writes.
    pub fn advance(&mut self) -> Result<()> {
        assert!(
            !self.raft.config().async_storage_writes,
            "with asynchronous storage writes the threads' responses acknowledge"
        );
        let Some(accepted) = self.accepted.take() else {
            return Ok(());
        };
        let mut result = Ok(());
        if let Some((term, index)) = accepted.own {
            self.raft.acknowledge_own(term, index);
        }
        for message in accepted.to_itself {
            result = result.and(self.raft.step(message));
        }
        if let Some((term, index, log_term)) = accepted.appended {
            self.raft.on_appended(term, index, log_term);
        }
        if let Some(index) = accepted.snapshot {
            self.raft.on_snapshot_applied(index);
        }
        if let Some((index, bytes, payload)) = accepted.applied {
            self.raft.on_applied(index, bytes, payload);
        }
        result
    }

    /// Asks the leader, through this node, to hand leadership to `to`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidMessage`] for `to` 0. A `to` that cannot lead is ignored.
    pub fn transfer_leader(&mut self, to: u64) -> Result<()> {
        if to == NONE {
            return Err(Error::InvalidMessage {
                from: self.raft.id(),
                what: "a transfer to nobody",
            });
        }
        let mut transfer = message(MessageType::MsgTransferLeader, self.raft.id());
        transfer.from = to;
        self.raft.step(transfer)
    }

    /// Asks for an index at which a read is linearizable; a [`crate::ReadState`] with `context`
    /// answers. It may be lost with a change of leader: ask again after a while.
    ///
    /// # Errors
    ///
    /// [`Error::ReadsFull`] on a leader where too many wait.
    pub fn read_index(&mut self, context: Bytes) -> Result<()> {
        let mut read = message(MessageType::MsgReadIndex, NONE);
        read.entries.push(Entry {
            data: context,
            ..Entry::default()
        });
        self.raft.step(read)
    }

    /// Makes a follower forget its leader, so that it grants votes at once; for callers who know
    /// that the leader is dead. Ignored with [`crate::ReadMode::LeaseBased`].
    ///
    /// # Errors
    ///
    /// None today.
    pub fn forget_leader(&mut self) -> Result<()> {
        self.raft.step(message(MessageType::MsgForgetLeader, NONE))
    }

    /// The last message to `id` was not delivered.
    ///
    /// # Errors
    ///
    /// None today.
    pub fn report_unreachable(&mut self, id: u64) -> Result<()> {
        let mut report = message(MessageType::MsgUnreachable, NONE);
        report.from = id;
        self.raft.step(report)
    }

    /// What became of the snapshot that was sent to `id`. A leader sends nothing else to `id` until
    /// it knows.
    ///
    /// # Errors
    ///
    /// None today.
    pub fn report_snapshot(&mut self, id: u64, status: SnapshotStatus) -> Result<()> {
        let mut report = message(MessageType::MsgSnapStatus, NONE);
        report.from = id;
        report.reject = status == SnapshotStatus::Failed;
        self.raft.step(report)
    }

    /// The node at this moment.
    pub fn status(&self) -> Status {
        let raft = &self.raft;
        let mut progress = Vec::new();
        if raft.role() == Role::Leader {
            progress.extend(raft.progress().iter().map(|(id, one)| (id, one.clone())));
        }
        Status {
            id: raft.id(),
            soft_state: raft.soft_state(),
            hard_state: raft.hard_state(),
            applied: raft.log().applied(),
            last_index: raft.log().last_index(),
            config: raft.configuration().clone(),
            transferee: raft.transferee(),
            uncommitted_bytes: raft.uncommitted_bytes(),
            progress,
        }
    }

    /// The state machine behind.
    pub fn raft(&self) -> &Raft<S> {
        &self.raft
    }

    /// The state machine behind; for tests.
    pub fn raft_mut(&mut self) -> &mut Raft<S> {
        &mut self.raft
    }

    /// The storage.
    pub fn storage(&self) -> &S {
        self.raft.log().storage()
    }

    /// The storage of a node that is given up.
    pub fn into_storage(self) -> S {
        self.raft.into_storage()
    }

    /// The storage, to be written.
    pub fn storage_mut(&mut self) -> &mut S {
        self.raft.log_mut().storage_mut()
    }
}
