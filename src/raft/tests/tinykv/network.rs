//! Nodes and the network between them, deterministic and in one thread: what the tests of claims
//! run on.
//!
//! A [`Peer`] is a node with its log in memory. After every call it does what its `Ready`s say,
//! write, apply and acknowledge, until there is nothing left; what it wants sent piles up until
//! somebody takes it. A [`Network`] takes it, loses what it was told to lose, and delivers the rest
//! one message after the other until all is quiet. Nothing here waits, and time passes only by
//! [`Peer::tick`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use basalt_raft::eraftpb::{ConfState, Entry, EntryType, Message, MessageType};
use basalt_raft::{
    Config, Error, MemStorage, MembershipChange, NO_LIMIT, Raft, RawNode, ReadState, Role,
};

use crate::parts::{accept, message, tinykv_config};

/// More deliveries than any quiet end needs.
const ENDLESS: usize = 100_000;

/// A node with its storage.
pub(crate) struct Peer {
    pub(crate) raw: RawNode<MemStorage>,
    pub(crate) config: Config,
    sent: Vec<Message>,
    applied: Vec<Entry>,
    reads: Vec<ReadState>,
}

impl Peer {
    pub(crate) fn new(config: Config, storage: MemStorage) -> Self {
        let raw = RawNode::new(config.clone(), storage).expect("a node that can start");
        let mut peer = Self {
            raw,
            config,
            sent: Vec::new(),
            applied: Vec::new(),
            reads: Vec::new(),
        };
        peer.sync();
        peer
    }

    /// A voter of `voters` under TinyKV's rules, with nothing in its log.
    pub(crate) fn of(id: u64, voters: &[u64]) -> Self {
        Self::new(tinykv_config(id), MemStorage::with_voters(voters))
    }

    /// The process ends and starts again; what was written is there.
    pub(crate) fn restart(&mut self) {
        *self = Self::new(self.config.clone(), self.raw.storage().clone());
    }

    /// Does what the node wants done, until it wants nothing.
    pub(crate) fn sync(&mut self) {
        let mut rounds = 0;
        while self.raw.has_ready() {
            rounds += 1;
            assert!(rounds < ENDLESS, "a Ready follows every Ready");
            let ready = self.raw.ready().expect("storage in memory");
            let storage = self.raw.storage_mut();
            if let Some(snapshot) = ready.snapshot {
                let place = snapshot.metadata.as_ref().expect("a place in the log");
                self.config.applied = place.index;
                storage.apply_snapshot(*snapshot).expect("a newer snapshot");
            }
            storage.append(ready.entries);
            if let Some(hard_state) = ready.hard_state {
                storage.set_hard_state(hard_state);
            }
            self.sent.extend(ready.messages);
            for entry in &ready.committed_entries {
                self.apply(entry);
            }
            self.applied.extend(ready.committed_entries);
            self.reads.extend(ready.read_states);
            self.raw.advance().expect("storage in memory");
        }
    }

    /// Applies an entry. The state machine is durable as of the last change of the membership, and the
    /// storage's snapshot is that state.
    fn apply(&mut self, entry: &Entry) {
        if entry.entry_type() != EntryType::EntryNormal {
            let change = MembershipChange::decode(entry.entry_type(), entry.data.clone())
                .expect("a change that was proposed here");
            let members = self.raw.apply_conf_change(change);
            let members = members.expect("a change that fits");
            self.snapshot_at(entry.index, members);
        }
    }

    fn snapshot_at(&mut self, index: u64, members: ConfState) {
        let storage = self.raw.storage_mut();
        let made = storage.create_snapshot(index, Some(members), "state".into());
        made.expect("an index above the last snapshot");
        self.config.applied = index;
    }

    /// Takes a message.
    ///
    /// # Errors
    ///
    /// What the node says to it.
    pub(crate) fn try_step(&mut self, message: Message) -> Result<(), Error> {
        let result = self.raw.step(message);
        self.sync();
        result
    }

    /// Takes a message that nothing is wrong with.
    #[track_caller]
    pub(crate) fn step(&mut self, message: Message) {
        self.try_step(message).expect("a message like any other");
    }

    pub(crate) fn tick(&mut self) {
        self.raw.tick().expect("a tick");
        self.sync();
    }

    #[track_caller]
    pub(crate) fn campaign(&mut self) {
        self.raw.campaign().expect("a campaign");
        self.sync();
    }

    /// Campaigns, and gets as many votes of the others as it needs.
    #[track_caller]
    pub(crate) fn elect(&mut self) {
        self.campaign();
        let id = self.raft().id();
        let voters = self.raft().configuration().voters.ids();
        let others = || voters.ids().iter().filter(|voter| **voter != id);
        let asked = self.raft().term() + 1;
        for voter in others() {
            if self.raft().role() == Role::PreCandidate {
                self.step(message(MessageType::MsgPreVoteResp, *voter, id, asked));
            }
        }
        let term = self.raft().term();
        for voter in others() {
            if self.raft().role() == Role::Candidate {
                let vote = MessageType::MsgRequestVoteResponse;
                self.step(message(vote, *voter, id, term));
            }
        }
        assert_eq!(self.raft().role(), Role::Leader);
        // They have answered.
        self.sent.retain(|request| {
            let kind = request.msg_type();
            kind != MessageType::MsgPreVote && kind != MessageType::MsgRequestVote
        });
    }

    #[track_caller]
    pub(crate) fn propose(&mut self, data: &'static str) {
        self.raw.propose(data.into()).expect("a node that leads");
        self.sync();
    }

    /// Proposes a change of the membership.
    #[track_caller]
    pub(crate) fn change(&mut self, change: impl Into<MembershipChange>) {
        let proposed = self.raw.propose_conf_change(change);
        proposed.expect("a node that leads");
        self.sync();
    }

    /// Asks for an index to read at.
    #[track_caller]
    pub(crate) fn read(&mut self, context: &'static str) {
        self.raw.read_index(context.into()).expect("room for reads");
        self.sync();
    }

    /// Plays followers that take every append, until the leader has nothing to tell them.
    pub(crate) fn acknowledge_all(&mut self) {
        loop {
            let sent = self.take_sent();
            if sent.is_empty() {
                break;
            }
            for append in sent {
                self.step(accept(&append));
            }
        }
    }

    /// What it wanted sent since the last call.
    pub(crate) fn take_sent(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.sent)
    }

    /// What it applied since the last call.
    pub(crate) fn take_applied(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.applied)
    }

    /// The reads that it may answer since the last call.
    pub(crate) fn take_reads(&mut self) -> Vec<ReadState> {
        std::mem::take(&mut self.reads)
    }

    pub(crate) fn raft(&self) -> &Raft<MemStorage> {
        self.raw.raft()
    }

    pub(crate) fn committed(&self) -> u64 {
        self.raft().log().committed()
    }

    /// What stands in its log.
    pub(crate) fn log(&self) -> Vec<Entry> {
        let log = self.raft().log();
        let first = log.first_index().expect("storage in memory");
        log.entries(first, log.last_index() + 1, NO_LIMIT)
            .expect("entries in memory")
    }

    /// The terms of what stands in its log.
    pub(crate) fn log_terms(&self) -> Vec<u64> {
        self.log().iter().map(|entry| entry.term).collect()
    }

    /// Role, term, and who leads.
    pub(crate) fn state(&self) -> (Role, u64, u64) {
        let raft = self.raft();
        (raft.role(), raft.term(), raft.leader())
    }

    /// Makes a snapshot of all that is applied, and forgets the log before it.
    pub(crate) fn compact(&mut self) {
        let applied = self.raft().log().applied();
        if self.config.applied < applied {
            let members = self.raft().configuration().to_conf_state();
            self.snapshot_at(applied, members);
        }
        let storage = self.raw.storage_mut();
        storage.compact(applied).expect("an applied index");
    }
}

/// Peers, and what happens between them. Ids that no peer has are dead nodes.
pub(crate) struct Network {
    peers: BTreeMap<u64, Peer>,
    flying: VecDeque<Message>,
    cut: BTreeSet<(u64, u64)>,
    ignored: BTreeSet<MessageType>,
}

impl Network {
    pub(crate) fn of(peers: impl IntoIterator<Item = Peer>) -> Self {
        let by_id = |peer: Peer| (peer.raft().id(), peer);
        Self {
            peers: peers.into_iter().map(by_id).collect(),
            flying: VecDeque::new(),
            cut: BTreeSet::new(),
            ignored: BTreeSet::new(),
        }
    }

    /// Voters 1 to `size` under TinyKV's rules.
    pub(crate) fn new(size: u64) -> Self {
        Self::with_dead(size, &[])
    }

    /// The same, without some of them.
    pub(crate) fn with_dead(size: u64, dead: &[u64]) -> Self {
        let mut network = Self::with_config(size, tinykv_config);
        network.peers.retain(|id, _| !dead.contains(id));
        network
    }

    /// Voters 1 to `size` with these settings.
    pub(crate) fn with_config(size: u64, config: impl Fn(u64) -> Config) -> Self {
        let voters: Vec<u64> = (1..=size).collect();
        let storage = MemStorage::with_voters(&voters);
        Self::of((1..=size).map(|id| Peer::new(config(id), storage.clone())))
    }

    pub(crate) fn peer(&self, id: u64) -> &Peer {
        &self.peers[&id]
    }

    /// A node, to call it without a delivery.
    pub(crate) fn peer_mut(&mut self, id: u64) -> &mut Peer {
        self.peers.get_mut(&id).expect("a living node")
    }

    pub(crate) fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.peers.values()
    }

    /// A node joins the network; its membership is the log's matter.
    pub(crate) fn add(&mut self, peer: Peer) {
        self.peers.insert(peer.raft().id(), peer);
    }

    /// Nothing passes between these two.
    pub(crate) fn cut(&mut self, one: u64, other: u64) {
        self.cut.insert((one, other));
        self.cut.insert((other, one));
    }

    /// Nothing passes from one to the other; the way back is open.
    pub(crate) fn cut_one_way(&mut self, from: u64, to: u64) {
        self.cut.insert((from, to));
    }

    /// Nothing passes from or to this node.
    pub(crate) fn isolate(&mut self, id: u64) {
        let others: Vec<u64> = self.peers.keys().copied().collect();
        for other in others.into_iter().filter(|other| *other != id) {
            self.cut(id, other);
        }
    }

    /// Messages of this kind get lost.
    pub(crate) fn ignore(&mut self, kind: MessageType) {
        self.ignored.insert(kind);
    }

    /// Everything passes again.
    pub(crate) fn recover(&mut self) {
        self.cut.clear();
        self.ignored.clear();
    }

    fn collect(&mut self) {
        for peer in self.peers.values_mut() {
            for message in peer.take_sent() {
                let lost = self.cut.contains(&(message.from, message.to))
                    || self.ignored.contains(&message.msg_type());
                if !lost {
                    self.flying.push_back(message);
                }
            }
        }
    }

    /// Delivers what was sent, and what is sent because of it, until all is quiet.
    #[track_caller]
    pub(crate) fn deliver(&mut self) {
        for _ in 0..ENDLESS {
            self.collect();
            let Some(message) = self.flying.pop_front() else {
                return;
            };
            let Some(peer) = self.peers.get_mut(&message.to) else {
                continue;
            };
            match peer.try_step(message) {
                // What happens to a message that comes too late.
                Ok(()) | Err(Error::PeerNotFound | Error::ProposalDropped(_)) => {}
                Err(error) => panic!("node {}: {error}", peer.raft().id()),
            }
        }
        panic!("the network does not come to rest");
    }

    /// A message from outside, and all that follows.
    #[track_caller]
    pub(crate) fn send(&mut self, message: Message) {
        self.collect();
        self.flying.push_back(message);
        self.deliver();
    }

    #[track_caller]
    pub(crate) fn campaign(&mut self, id: u64) {
        self.peer_mut(id).campaign();
        self.deliver();
    }

    #[track_caller]
    pub(crate) fn propose(&mut self, id: u64, data: &'static str) {
        self.peer_mut(id).propose(data);
        self.deliver();
    }

    #[track_caller]
    pub(crate) fn change(&mut self, id: u64, change: impl Into<MembershipChange>) {
        self.peer_mut(id).change(change);
        self.deliver();
    }

    /// One tick passes for this node: on a leader, a round of heartbeats.
    #[track_caller]
    pub(crate) fn tick(&mut self, id: u64) {
        self.peer_mut(id).tick();
        self.deliver();
    }

    /// So many ticks pass for everybody.
    #[track_caller]
    pub(crate) fn pass(&mut self, ticks: u64) {
        let ids: Vec<u64> = self.peers.keys().copied().collect();
        for _ in 0..ticks {
            for id in &ids {
                self.tick(*id);
            }
        }
    }

    /// Somebody asks the node `at` to hand leadership to `to`.
    #[track_caller]
    pub(crate) fn transfer(&mut self, at: u64, to: u64) {
        let peer = self.peer_mut(at);
        peer.raw.transfer_leader(to).expect("a request");
        peer.sync();
        self.deliver();
    }

    /// The one node that leads.
    #[track_caller]
    pub(crate) fn leader(&self) -> u64 {
        let leads = |peer: &&Peer| peer.raft().role() == Role::Leader;
        let leaders: Vec<u64> = self.peers().filter(leads).map(|p| p.raft().id()).collect();
        let [leader] = leaders[..] else {
            panic!("leaders: {leaders:?}");
        };
        leader
    }

    /// Role, term and leader of every node by ascending id.
    pub(crate) fn states(&self) -> Vec<(Role, u64, u64)> {
        self.peers().map(Peer::state).collect()
    }
}

#[path = "network_tests.rs"]
mod network_tests;
