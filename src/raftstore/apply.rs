//! `Applier`: the apply loop. It turns committed entries into writes of kvdb, and answers who proposed
//! them.
//!
//! One turn: everything that waits goes into one batch (or several, where it is large), with the apply
//! state of each region that it touches inside, so that what a flush saves is a state at one applied index.
//! The batch is not synced: the Raft log is its log. Answers leave when it is visible. What an entry does
//! depends on nothing but the entries before it: every replica does the same.

mod change;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use basalt_engine::{SequenceNumber, WriteBatch, WriteOptions};
use basalt_proto::{
    raft_cmdpb::{
        AdminCmdType, AdminResponse, CmdType, CompactLogRequest, CompactLogResponse,
        DeleteRangeResponse, DeleteResponse, GetResponse, PutResponse, RaftCmdRequest,
        RaftCmdResponse, RaftResponseHeader, Request, Response,
    },
    raft_serverpb::{RaftApplyState, RaftTruncatedState},
};
use basalt_raft::{
    MembershipChange,
    eraftpb::{Entry, EntryType},
};
use bytes::Bytes;

use crate::{
    AppliedEntries, ApplyTask, Callback, Clock, CommandError, Engines, Error, Inbox, Installation,
    Membership, Result, StoreConfig, StoreMessage,
    command::{self, data_family},
    faults::{Fault, Faults},
    metrics::StoreMetrics,
    snapshot::SnapshotStore,
    states,
    store::{Shared, check_epoch, check_request, key_of},
};

/// What an entry answers; a response only where somebody looks at it.
type Answer = Result<Option<Box<RaftCmdResponse>>, CommandError>;

/// A state machine here.
#[derive(Debug)]
struct Applying {
    peer_id: u64,
    state: RaftApplyState,
    membership: Membership,
}

/// The apply loop. The store loop takes its turns where that cannot take long: a thread less between a commit
/// and its answer.
pub struct Applier {
    machines: Arc<Mutex<Machines>>,
    inbox: Arc<Inbox<ApplyTask>>,
}

/// The state machines of a store.
struct Machines {
    engines: Engines,
    snapshots: Arc<SnapshotStore>,
    clock: Arc<dyn Clock>,
    metrics: Arc<StoreMetrics>,
    inbox: Arc<Inbox<ApplyTask>>,
    store: Arc<Inbox<StoreMessage>>,
    batch_bytes: usize,
    faults: Faults,

    regions: BTreeMap<u64, Applying>,
    batch: WriteBatch,
    /// Regions whose apply state belongs into the batch.
    touched: BTreeSet<u64>,
    /// Told when the batch is written.
    answers: Vec<(Callback<RaftCmdResponse>, Answer)>,
    done: Vec<AppliedEntries>,
    /// When what is in `done` was handed out.
    handed_out: Vec<Duration>,
    /// Entries that the batch applies.
    entries: u64,
    /// Of the last write.
    last_seq: SequenceNumber,
    failed: bool,
}

impl Applier {
    pub(crate) fn new(config: &StoreConfig, shared: Shared, inbox: Arc<Inbox<ApplyTask>>) -> Self {
        let machines = Machines::new(config, shared, Arc::clone(&inbox));
        Self {
            machines: Arc::new(Mutex::new(machines)),
            inbox,
        }
    }

    /// The same loop in other hands. Whoever finds it at work leaves it to the other.
    pub(crate) fn share(&self) -> Self {
        Self {
            machines: Arc::clone(&self.machines),
            inbox: Arc::clone(&self.inbox),
        }
    }

    /// What wakes it.
    #[must_use]
    pub fn inbox(&self) -> Arc<Inbox<ApplyTask>> {
        Arc::clone(&self.inbox)
    }

    /// Whether it has ended: the store has, or what it did failed.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.machines.is_poisoned() || self.inbox.is_closed()
    }

    /// Does everything that waits. A failure is told to the store, which must stop.
    pub fn turn(&mut self) {
        // What a panic has left half done is nobody's to go on with.
        if let Ok(mut machines) = self.machines.lock() {
            let tasks = self.inbox.take();
            machines.turn(tasks);
        }
    }

    /// The same on the store loop: only where nobody else is at it, nothing waits but entries, and kvdb takes
    /// writes without delay. What is left is for [`Applier::turn`].
    pub(crate) fn turn_at_once(&self) {
        let Ok(mut machines) = self.machines.try_lock() else {
            return;
        };
        if machines.would_wait() {
            return;
        }
        let is_entries = |task: &ApplyTask| matches!(task, ApplyTask::Entries { .. });
        let tasks = self.inbox.take_if(is_entries);
        if !tasks.is_empty() {
            machines.turn(tasks);
        }
    }
}

impl Machines {
    fn new(config: &StoreConfig, shared: Shared, inbox: Arc<Inbox<ApplyTask>>) -> Self {
        Self {
            engines: shared.engines,
            snapshots: shared.snapshots,
            clock: shared.clock,
            metrics: shared.metrics,
            inbox,
            store: shared.store,
            batch_bytes: config.apply_batch_bytes,
            faults: config.faults,
            regions: BTreeMap::new(),
            batch: WriteBatch::new(),
            touched: BTreeSet::new(),
            answers: Vec::new(),
            done: Vec::new(),
            handed_out: Vec::new(),
            entries: 0,
            last_seq: SequenceNumber::ZERO,
            failed: false,
        }
    }

    fn turn(&mut self, tasks: VecDeque<ApplyTask>) {
        if self.failed || self.inbox.is_closed() {
            return;
        }
        for task in tasks {
            if let Err(error) = self.run(task) {
                return self.fail(&error);
            }
        }
        if let Err(error) = self.write() {
            self.fail(&error);
        }
    }

    /// Whether kvdb would hold up a write, or stop it.
    fn would_wait(&self) -> bool {
        let kv = &self.engines.kv;
        kv.would_wait(&self.engines.data)
            || kv.would_wait(std::slice::from_ref(&self.engines.local))
    }

    /// Who waits is told by the drop of what is left: nobody knows what became of it.
    fn fail(&mut self, error: &Error) {
        self.failed = true;
        self.answers.clear();
        drop(self.inbox.close());
        let why = format!("what is committed cannot be applied: {error}");
        self.store.push(StoreMessage::Failed(why));
    }

    fn run(&mut self, task: ApplyTask) -> Result<()> {
        match task {
            ApplyTask::Register {
                peer_id,
                state,
                membership,
            } => {
                self.write()?;
                let region_id = membership.region.id;
                let applying = Applying {
                    peer_id,
                    state,
                    membership: *membership,
                };
                self.regions.insert(region_id, applying);
                Ok(())
            }
            ApplyTask::Install {
                region_id,
                peer_id,
                installation,
            } => self.install(region_id, peer_id, &installation),
            ApplyTask::Forget { region_id } => {
                self.write()?;
                self.regions.remove(&region_id);
                Ok(())
            }
            ApplyTask::Entries {
                region_id,
                peer_id,
                since,
                entries,
                callbacks,
            } => {
                self.handed_out.push(since);
                self.apply(region_id, peer_id, entries, callbacks)
            }
        }
    }

    /// A snapshot takes the place of what a region has. Everything before it is written first, as the range
    /// to be replaced is what that has left.
    fn install(&mut self, region_id: u64, peer_id: u64, installation: &Installation) -> Result<()> {
        self.write()?;
        let began = self.clock.now();
        let tables = self.snapshots.tables(installation.snapshot())?;
        let installed = installation.run_with(tables, self.faults)?;
        let took = self.clock.now().saturating_sub(began);
        self.metrics.snapshot_installing.observe(took);
        let applying = Applying {
            peer_id,
            state: installed.apply_state(),
            membership: installed.membership().clone(),
        };
        self.regions.insert(region_id, applying);
        self.store.push(StoreMessage::Installed {
            region_id,
            peer_id,
            installed: Box::new(installed),
        });
        Ok(())
    }

    fn apply(
        &mut self,
        region_id: u64,
        peer_id: u64,
        entries: Vec<Entry>,
        callbacks: Vec<(u64, Callback<RaftCmdResponse>)>,
    ) -> Result<()> {
        let known = self.regions.get(&region_id);
        if known.is_none_or(|applying| applying.peer_id != peer_id) {
            return Err(Error::misuse(
                region_id,
                "entries of a peer that was not registered",
            ));
        }
        let mut callbacks = callbacks.into_iter().peekable();
        let (mut changes, mut new_membership) = (Vec::new(), None);
        for entry in entries {
            let callback = callbacks.next_if(|(index, _)| *index == entry.index);
            let callback = callback.map_or_else(Callback::none, |(_, callback)| callback);
            let answer = match entry.entry_type() {
                EntryType::EntryNormal => {
                    self.apply_command(region_id, &entry, callback.is_looked_at())?
                }
                EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
                    let (change, answer) = self.apply_change(region_id, &entry)?;
                    changes.push((entry.index, change));
                    let applying = self.regions.get(&region_id);
                    new_membership = applying.map(|applying| applying.membership.clone());
                    answer.map(|response| Some(Box::new(response)))
                }
            };
            if let Some(applying) = self.regions.get_mut(&region_id) {
                applying.state.applied_index = entry.index;
            }
            self.touched.insert(region_id);
            self.entries += 1;
            if !callback.is_none() {
                self.answers.push((callback, answer));
            }
            if self.batch.encoded_len() >= self.batch_bytes {
                self.write_batch()?;
            }
        }
        let Some(applying) = self.regions.get(&region_id) else {
            return Ok(());
        };
        self.done.push(AppliedEntries {
            region_id,
            peer_id,
            state: applying.state,
            membership: new_membership,
            changes,
            seq: SequenceNumber::ZERO,
        });
        Ok(())
    }

    /// Its answer has a response where that is looked at.
    fn apply_command(
        &mut self,
        region_id: u64,
        entry: &Entry,
        is_looked_at: bool,
    ) -> Result<Answer> {
        if entry.data.is_empty() {
            // How a leader begins its term, or what became of a change that did not fit.
            return Ok(Err(CommandError::StaleCommand));
        }
        let request = decode(region_id, entry.index, entry.data.clone())?;
        let Some(applying) = self.regions.get_mut(&region_id) else {
            return Err(Error::misuse(region_id, "no such region"));
        };
        let region = &applying.membership.region;
        let header = request.header.unwrap_or_default();
        let fits = check_epoch(region, &header, request.admin_request.as_ref());
        if let Err(error) = fits {
            return Ok(Err(error));
        }
        let mut response = is_looked_at.then(|| {
            Box::new(RaftCmdResponse {
                header: Some(RaftResponseHeader {
                    current_term: entry.term,
                    ..RaftResponseHeader::default()
                }),
                ..RaftCmdResponse::default()
            })
        });
        if let Some(admin) = &request.admin_request {
            if let (AdminCmdType::CompactLog, Some(compact)) =
                (admin.cmd_type(), &admin.compact_log)
            {
                truncate(&mut applying.state, *compact);
                if let Some(response) = &mut response {
                    response.admin_response = Some(AdminResponse {
                        cmd_type: AdminCmdType::CompactLog.into(),
                        compact_log: Some(CompactLogResponse {}),
                        ..AdminResponse::default()
                    });
                }
            }
            return Ok(Ok(response));
        }
        // All or nothing of it: what does not fit is found before anything is done.
        for request in &request.requests {
            if let Err(error) = check_request(region, request) {
                return Ok(Err(error));
            }
        }
        let reads = |request: &Request| request.cmd_type() == CmdType::Get;
        if request.requests.iter().any(reads) {
            // What is read is what the entries before this one have left, and nobody may see a part of this
            // one: it is written behind its last request.
            self.write_unanswered()?;
        }
        for (at, one) in request.requests.iter().enumerate() {
            let done = self.apply_request(&request.requests[..at], one)?;
            if let Some(response) = &mut response {
                response.responses.push(done);
            }
        }
        Ok(Ok(response))
    }

    /// Applies a request that was checked, behind those `before` it in the same entry.
    fn apply_request(&mut self, before: &[Request], request: &Request) -> Result<Response> {
        let mut response = Response {
            cmd_type: request.cmd_type,
            ..Response::default()
        };
        let family = data_family(&self.engines, family_of(request));
        let family = family.map_err(|error| Error::misuse(0, error.to_string()))?;
        match (&request.put, &request.delete, &request.get) {
            (Some(put), ..) if request.cmd_type() == CmdType::Put => {
                self.batch.put(family, &put.key, &put.value);
                response.put = Some(PutResponse {});
            }
            (_, Some(delete), _) if request.cmd_type() == CmdType::Delete => {
                self.batch.delete(family, &delete.key);
                response.delete = Some(DeleteResponse {});
            }
            _ if request.cmd_type() == CmdType::DeleteRange => {
                if let Some(range) = &request.delete_range {
                    match range.end_key.is_empty() {
                        true => self.batch.delete_from(family, &range.start_key),
                        false => {
                            let (start, end) = (&range.start_key, &range.end_key);
                            self.batch.delete_range(family, start, end);
                        }
                    }
                }
                response.delete_range = Some(DeleteRangeResponse {});
            }
            (.., Some(get)) => {
                let same = |other: &&Request| {
                    let there = data_family(&self.engines, family_of(other));
                    changes(other, &get.key) && there.is_ok_and(|there| there.id() == family.id())
                };
                let value = match before.iter().rev().find(same) {
                    Some(last) if last.cmd_type() == CmdType::Put => {
                        last.put.as_ref().map(|put| put.value.clone())
                    }
                    Some(_) => None,
                    None => {
                        let value = self.engines.kv.get(family, &get.key)?;
                        value.map(|value| Bytes::copy_from_slice(&value))
                    }
                };
                response.get = Some(GetResponse {
                    value: value.unwrap_or_default(),
                });
            }
            _ => {}
        }
        Ok(response)
    }

    /// Writes the batch, tells who waits, and tells the store.
    fn write(&mut self) -> Result<()> {
        self.write_batch()?;
        if !self.done.is_empty() {
            let mut done = std::mem::take(&mut self.done);
            for done in &mut done {
                // It was written by then, with this write or before.
                done.seq = self.last_seq;
            }
            let now = self.clock.now();
            for since in self.handed_out.drain(..) {
                let took = now.saturating_sub(since);
                self.metrics.commit_to_apply.observe(took);
            }
            self.store.push(StoreMessage::Applied(done));
        }
        Ok(())
    }

    fn write_batch(&mut self) -> Result<()> {
        self.write_unanswered()?;
        for (callback, answer) in self.answers.drain(..) {
            let answer = answer.map(|response| response.map_or_else(Default::default, |r| *r));
            callback.tell(answer);
        }
        Ok(())
    }

    fn write_unanswered(&mut self) -> Result<()> {
        let apart = self.faults.is(Fault::AppliedApart);
        let mut states = WriteBatch::new();
        for region_id in std::mem::take(&mut self.touched) {
            if let Some(applying) = self.regions.get(&region_id) {
                let batch = if apart { &mut states } else { &mut self.batch };
                states::put_apply_state(&self.engines, batch, region_id, &applying.state);
            }
        }
        if !states.is_empty() {
            self.engines.kv.write(states, WriteOptions::NO_SYNC)?;
            self.engines.flush_kv()?;
        }
        if !self.batch.is_empty() {
            let batch = std::mem::take(&mut self.batch);
            let entries = std::mem::take(&mut self.entries);
            self.metrics.apply_entries.observe(entries);
            self.metrics.apply_batch.observe(batch.encoded_len() as u64);
            self.last_seq = self.engines.kv.write(batch, WriteOptions::NO_SYNC)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Applier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Applier").finish_non_exhaustive()
    }
}

/// The family that a request names; an empty name is `default`.
pub(crate) fn family_of(request: &Request) -> &str {
    match request.cmd_type() {
        CmdType::Get => request.get.as_ref().map_or("", |get| &get.cf),
        CmdType::Put => request.put.as_ref().map_or("", |put| &put.cf),
        CmdType::Delete => request.delete.as_ref().map_or("", |delete| &delete.cf),
        CmdType::DeleteRange => request.delete_range.as_ref().map_or("", |range| &range.cf),
        CmdType::Snap | CmdType::Invalid => "",
    }
}

/// Whether a request changes a key.
fn changes(request: &Request, key: &[u8]) -> bool {
    match (request.cmd_type(), &request.delete_range) {
        (CmdType::DeleteRange, Some(range)) => {
            key >= &range.start_key[..] && (range.end_key.is_empty() || key < &range.end_key[..])
        }
        (CmdType::Put | CmdType::Delete, _) => key_of(request) == Some(key),
        _ => false,
    }
}

fn decode(region_id: u64, index: u64, data: Bytes) -> Result<RaftCmdRequest> {
    let wrong = |error: String| {
        let what = format!("the entry at index {index} is no command: {error}");
        Error::corruption(region_id, what)
    };
    command::decode(data).map_err(wrong)
}

/// Moves the log's start up; one that lies behind was overtaken.
fn truncate(state: &mut RaftApplyState, compact: CompactLogRequest) {
    let now = states::truncated(state);
    if compact.compact_index > now.index && compact.compact_index <= state.applied_index {
        state.truncated_state = Some(RaftTruncatedState {
            index: compact.compact_index,
            term: compact.compact_term,
        });
    }
}

/// Says of a change that was refused that it names nobody.
fn refused_change() -> MembershipChange {
    MembershipChange::V1(basalt_raft::eraftpb::ConfChange::default())
}
