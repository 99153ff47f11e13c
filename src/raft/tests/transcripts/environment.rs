//! A small network of nodes, driven step by step by commands: what each has stored, applied and still to do, and the
//! messages on the way between them.

use std::{collections::VecDeque, sync::Arc};

use basalt_raft::{
    Config, InitialState, MemStorage, MembershipChange, RawNode, Result as RaftResult, Storage,
    StorageError,
    eraftpb::{ConfState, Entry, EntryType, HardState, Message, MessageType, Snapshot},
    is_local_thread,
};

use crate::{describe, output::Output};

/// What a command answers: nothing but what it printed, or an error.
pub(crate) type Answer = Result<(), String>;

fn answer<T>(result: RaftResult<T>) -> Result<T, String> {
    result.map_err(|error| describe::error(&error))
}

fn storage_answer<T>(result: Result<T, StorageError>) -> Result<T, String> {
    result.map_err(|error| describe::storage_error(&error))
}

/// A log in memory beside a state machine that appends each payload to its state. A snapshot is always that of the
/// last applied entry.
#[derive(Default)]
pub(crate) struct Disk {
    log: MemStorage,
    state: Snapshot,
}

impl Storage for Disk {
    fn initial_state(&self) -> Result<InitialState, StorageError> {
        self.log.initial_state()
    }

    fn entries(&self, low: u64, high: u64, max_bytes: u64) -> Result<Vec<Entry>, StorageError> {
        self.log.entries(low, high, max_bytes)
    }

    fn term(&self, index: u64) -> Result<u64, StorageError> {
        self.log.term(index)
    }

    fn first_index(&self) -> Result<u64, StorageError> {
        self.log.first_index()
    }

    fn last_index(&self) -> Result<u64, StorageError> {
        self.log.last_index()
    }

    fn snapshot(&self, _to: u64) -> Result<Snapshot, StorageError> {
        Ok(self.state.clone())
    }
}

/// A node with what it stored and what its storage threads have to do.
pub(crate) struct Node {
    pub(crate) raw: RawNode<Disk>,
    config: Config,
    append_work: VecDeque<Message>,
    apply_work: VecDeque<Message>,
}

impl Node {
    fn new(config: Config, disk: Disk) -> Result<Self, String> {
        Ok(Self {
            raw: answer(RawNode::new(config.clone(), disk))?,
            config,
            append_work: VecDeque::new(),
            apply_work: VecDeque::new(),
        })
    }

    fn append(
        &mut self,
        state: HardState,
        entries: &[Entry],
        snapshot: Option<&Snapshot>,
    ) -> Answer {
        let disk = self.raw.storage_mut();
        if state != HardState::default() {
            disk.log.set_hard_state(state);
        }
        let Some(snapshot) = snapshot.filter(|one| describe::metadata(one).is_some()) else {
            disk.log.append(entries.to_vec());
            return Ok(());
        };
        if !entries.is_empty() {
            return Err("can't apply snapshot and entries at the same time".to_owned());
        }
        storage_answer(disk.log.apply_snapshot(snapshot.clone()))?;
        disk.state = snapshot.clone();
        Ok(())
    }

    fn apply(&mut self, entries: &[Entry]) -> Answer {
        for entry in entries {
            let mut update = entry.data.clone();
            let mut members: Option<ConfState> = None;
            if entry.entry_type() != EntryType::EntryNormal {
                let change = MembershipChange::decode(entry.entry_type(), update);
                let change = answer(change)?;
                update = change.clone().into_v2().context;
                members = Some(answer(self.raw.apply_conf_change(change))?);
            }
            let state = &mut self.raw.storage_mut().state;
            state.data = [&state.data[..], &update[..]].concat().into();
            let metadata = state.metadata.get_or_insert_default();
            (metadata.index, metadata.term) = (entry.index, entry.term);
            if members.is_some() {
                metadata.conf_state = members;
            }
        }
        Ok(())
    }
}

/// Which messages a command is about: what is not `None` must fit.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Filter {
    pub(crate) kind: Option<MessageType>,
    pub(crate) from: Option<u64>,
}

/// A target of messages, and whether they are lost on their way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recipient {
    pub(crate) id: u64,
    pub(crate) drop: bool,
}

impl Recipient {
    fn takes(self, m: &Message, filter: Filter) -> bool {
        // What a node says to itself or its storage is no network's to lose.
        let kept =
            self.drop && (m.from == m.to || is_local_thread(m.from) || is_local_thread(m.to));
        m.to == self.id
            && !kept
            && filter.kind.is_none_or(|kind| kind == m.msg_type())
            && filter.from.is_none_or(|from| from == m.from)
    }
}

/// The network.
#[derive(Default)]
pub(crate) struct Environment {
    pub(crate) output: Output,
    pub(crate) nodes: Vec<Node>,
    messages: Vec<Message>,
}

impl Environment {
    /// Adds `count` nodes with the next ids, which start from `snapshot`, or from nothing.
    pub(crate) fn add_nodes(
        &mut self,
        count: usize,
        config: &Config,
        snapshot: &Snapshot,
    ) -> Answer {
        for _ in 0..count {
            let id = self.nodes.len() as u64 + 1;
            let mut disk = Disk::default();
            if *snapshot != Snapshot::default() {
                let mut snapshot = snapshot.clone();
                let metadata = snapshot.metadata.get_or_insert_default();
                if metadata.index <= 1 {
                    return Err("index must be specified as > 1 due to bootstrap".to_owned());
                }
                metadata.term = 1;
                storage_answer(disk.log.apply_snapshot(snapshot.clone()))?;
                disk.state = snapshot;
            }
            let config = Config {
                id,
                logger: Some(Arc::new(self.output.clone())),
                ..config.clone()
            };
            self.nodes.push(Node::new(config, disk)?);
        }
        Ok(())
    }

    /// Starts `id` anew after it has lost all that it had.
    pub(crate) fn wipe_node(&mut self, id: u64) -> Answer {
        let node = self.node(id);
        let config = Config {
            applied: 0,
            ..node.config.clone()
        };
        *node = Node::new(config, Disk::default())?;
        Ok(())
    }

    /// The node `id`, which must be there.
    pub(crate) fn node(&mut self, id: u64) -> &mut Node {
        let place = usize::try_from(id).expect("a small id");
        let node = place
            .checked_sub(1)
            .and_then(|place| self.nodes.get_mut(place));
        node.unwrap_or_else(|| panic!("there is no node {id}"))
    }

    /// Runs `f` on the node `id`.
    pub(crate) fn on<T>(
        &mut self,
        id: u64,
        f: impl FnOnce(&mut RawNode<Disk>) -> RaftResult<T>,
    ) -> Answer {
        answer(f(&mut self.node(id).raw)).map(|_| ())
    }

    /// Ticks the node `id` an election timeout or a heartbeat interval long.
    pub(crate) fn tick(&mut self, id: u64, election: bool) -> Answer {
        let node = self.node(id);
        let ticks = if election {
            node.config.election_tick
        } else {
            node.config.heartbeat_tick
        };
        for _ in 0..ticks {
            answer(node.raw.tick())?;
        }
        Ok(())
    }

    /// Cuts the log of `id` so that `index` is the last one that is gone, and prints what remains.
    pub(crate) fn compact(&mut self, id: u64, index: u64) -> Answer {
        let disk = self.node(id).raw.storage_mut();
        storage_answer(disk.log.compact(index))?;
        self.print_log(id)
    }

    /// Prints the log that `id` has stored.
    pub(crate) fn print_log(&mut self, id: u64) -> Answer {
        let log = &self.node(id).raw.storage().log;
        let (first, last) = (
            storage_answer(log.first_index())?,
            storage_answer(log.last_index())?,
        );
        let text = if last < first {
            format!("log is empty: first index={first}, last index={last}")
        } else {
            describe::entries(&storage_answer(log.entries(first, last + 1, u64::MAX))?)
        };
        self.output.write(&text);
        Ok(())
    }

    /// Puts the newest snapshot of `from` on its way to `to`, and prints it.
    pub(crate) fn send_snapshot(&mut self, from: u64, to: u64) -> Answer {
        let node = self.node(from);
        let message = Message {
            msg_type: MessageType::MsgSnapshot.into(),
            term: node.raw.raft().term(),
            from,
            to,
            snapshot: Some(Box::new(node.raw.storage().state.clone())),
            ..Message::default()
        };
        self.output.write(&describe::message(&message));
        self.messages.push(message);
        Ok(())
    }

    /// Does the work that `id` has: prints it, and stores, applies and sends, or leaves that to the node's threads.
    pub(crate) fn process_ready(&mut self, id: u64) -> Answer {
        let output = self.output.clone();
        let node = self.node(id);
        let ready = answer(node.raw.ready())?;
        output.write(&describe::ready(&ready));
        let by_threads = node.config.async_storage_writes;
        if !by_threads {
            let state = ready.hard_state.unwrap_or_default();
            node.append(state, &ready.entries, ready.snapshot.as_deref())?;
            node.apply(&ready.committed_entries)?;
        }
        let mut on_their_way = Vec::new();
        for message in ready.messages {
            match message.msg_type() {
                MessageType::MsgStorageAppend => node.append_work.push_back(message),
                MessageType::MsgStorageApply => node.apply_work.push_back(message),
                _ => on_their_way.push(message),
            }
        }
        let result = if by_threads {
            Ok(())
        } else {
            assert!(node.append_work.is_empty() && node.apply_work.is_empty());
            answer(node.raw.advance())
        };
        self.messages.append(&mut on_their_way);
        result
    }

    /// Does the oldest piece of work that one of the threads of `id` has.
    pub(crate) fn process_thread(&mut self, id: u64, thread: Thread) -> Answer {
        let output = self.output.clone();
        let node = self.node(id);
        let Some(mut work) = thread.work(node).pop_front() else {
            output.write(&format!("no {} work to perform", thread.name()));
            return Ok(());
        };
        let responses = std::mem::take(&mut work.responses);
        output.write(&format!("Processing:\n{}\n", describe::message(&work)));
        match thread {
            Thread::Append => {
                let state = HardState {
                    term: work.term,
                    vote: work.vote,
                    commit: work.commit,
                };
                node.append(state, &work.entries, work.snapshot.as_deref())?;
            }
            Thread::Apply => node.apply(&work.entries)?,
        }
        output.write("Responses:\n");
        for response in &responses {
            output.write(&format!("{}\n", describe::message(response)));
        }
        self.messages.extend(responses);
        Ok(())
    }

    /// Delivers or drops, and prints, the messages to these recipients in this order. Returns how many there were.
    pub(crate) fn deliver(&mut self, filter: Filter, recipients: &[Recipient]) -> usize {
        let mut handled = 0;
        for recipient in recipients {
            let (taken, rest) = std::mem::take(&mut self.messages)
                .into_iter()
                .partition::<Vec<_>, _>(|message| recipient.takes(message, filter));
            self.messages = rest;
            handled += taken.len();
            for message in taken {
                let mark = if recipient.drop { "dropped: " } else { "" };
                let line = format!("{mark}{}\n", describe::message(&message));
                self.output.write(&line);
                if recipient.drop {
                    continue;
                }
                if let Err(error) = answer(self.node(message.to).raw.step(message)) {
                    self.output.write(&format!("{error}\n"));
                }
            }
        }
        handled
    }

    /// Does everything that these nodes, or all, have to do, round by round, until there is nothing more.
    pub(crate) fn stabilize(&mut self, ids: &[u64]) -> Answer {
        let all: Vec<u64> = (1..=self.nodes.len() as u64).collect();
        let ids = if ids.is_empty() { &all } else { ids };
        loop {
            let mut idle = true;
            for id in ids {
                if self.node(*id).raw.has_ready() {
                    self.headed(*id, "handling Ready", |env| env.process_ready(*id))?;
                    idle = false;
                }
            }
            for id in ids {
                let recipient = Recipient {
                    id: *id,
                    drop: false,
                };
                if self
                    .messages
                    .iter()
                    .any(|m| recipient.takes(m, Filter::default()))
                {
                    self.headed(*id, "receiving messages", |env| {
                        env.deliver(Filter::default(), &[recipient]);
                        Ok(())
                    })?;
                    idle = false;
                }
            }
            for thread in [Thread::Append, Thread::Apply] {
                for id in ids {
                    if thread.work(self.node(*id)).is_empty() {
                        continue;
                    }
                    self.headed(*id, thread.heading(), |env| {
                        while !thread.work(env.node(*id)).is_empty() {
                            env.process_thread(*id, thread)?;
                        }
                        Ok(())
                    })?;
                    idle = false;
                }
            }
            if idle {
                return Ok(());
            }
        }
    }

    /// Runs `f` with its output indented under `> id what`.
    pub(crate) fn headed(
        &mut self,
        id: u64,
        what: &str,
        f: impl FnOnce(&mut Self) -> Answer,
    ) -> Answer {
        let output = self.output.clone();
        output.write(&format!("> {id} {what}\n"));
        output.indented(|| f(self))
    }
}

/// Who does a node's storage work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Thread {
    Append,
    Apply,
}

impl Thread {
    fn name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Apply => "apply",
        }
    }

    /// What stands above its output.
    pub(crate) fn heading(self) -> &'static str {
        match self {
            Self::Append => "processing append thread",
            Self::Apply => "processing apply thread",
        }
    }

    fn work(self, node: &mut Node) -> &mut VecDeque<Message> {
        match self {
            Self::Append => &mut node.append_work,
            Self::Apply => &mut node.apply_work,
        }
    }
}
