//! The protocol: one node of a group, as a function of the messages and ticks that it is given.
//!
//! A room for each topic of the thesis (D. Ongaro, "Consensus: Bridging Theory and Practice", 2014);
//! the messages and their order are those of the etcd/raft library:
//! [`step`] terms and who handles what, `tick` timeouts, `election` campaigns and votes,
//! `replication` the leader's appends, `follower` the other end of them, `snapshot`, `read`
//! linearizable reads, `transfer` of leadership, `membership`, `check` the invariants.
//!
//! Here: the state, the changes of role, and what all rooms use to send.

mod check;
mod election;
mod follower;
mod membership;
mod read;
mod replication;
mod snapshot;
mod step;
mod tick;
mod transfer;

use std::{fmt, sync::Arc};

use basalt_proto::eraftpb::{Entry, HardState, Message, MessageType};

use crate::{
    Config, Fault, Logger, NONE, RaftLog, ReadState, Result, SoftState, Storage,
    log::Appended,
    logger::info,
    rng::Rng,
    tracker::{Configuration, Inflights, Progress, ProgressMap, Tracker},
};
use read::Reads;

/// What a node is in its term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Follows whoever leads.
    #[default]
    Follower,
    /// Asks whether it could win an election; its term is not raised yet.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Follower => "StateFollower",
            Self::PreCandidate => "StatePreCandidate",
            Self::Candidate => "StateCandidate",
            Self::Leader => "StateLeader",
        })
    }
}

/// What only a leader uses; made anew at each change of role.
#[derive(Debug, Default)]
pub(crate) struct Leadership {
    /// The index of the empty entry that this leader's term began with; 0 on others. Everything
    /// from it on is of the leader's own term.
    own_term_from: u64,
    /// Who leadership is being handed to.
    transferee: u64,
    /// Ticks since the transfer began; it has one election timeout. A clock of its own, so that
    /// transfers do not put off the look for a quorum.
    transfer_elapsed: u64,
    /// Each `MsgTimeoutNow` that may still start an election: to whom, and the last index it names.
    /// Void once that node has acknowledged more.
    timeouts_sent: Vec<(u64, u64)>,
    /// No membership change may be proposed until this index is applied.
    pending_conf_index: u64,
    /// Bytes of payload proposed and not applied yet.
    uncommitted_bytes: u64,
    /// The last session given to a member.
    last_session: u64,
    /// Some member's append is due at the next `ready`.
    appends_due: bool,
    /// Reads and rounds of heartbeats.
    reads: Reads,
}

/// What a node has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Campaigns begun: with pre-votes each counts once, whatever follows.
    pub campaigns: u64,
    /// Elections won.
    pub won: u64,
    /// Reads of this leader that were granted at once, by its lease or as the only voter.
    pub reads_by_lease: u64,
    /// Reads of this leader that were granted by a round of heartbeats.
    pub reads_by_round: u64,
}

/// A node.
pub struct Raft<S> {
    config: Config,
    logger: Option<Arc<dyn Logger>>,
    rng: Rng,

    /// Never goes back.
    term: u64,
    /// Who got this node's vote in `term`; set once a term.
    vote: u64,
    /// Who is known to lead in `term`; one node in all the term.
    leader: u64,
    /// The latest session of this node that appends or snapshots of the term's leader named, in this
    /// run of the process; 0 before the first.
    leader_session: u64,
    role: Role,
    log: RaftLog<S>,
    tracker: Tracker,
    is_learner: bool,
    leadership: Leadership,

    /// Ticks of this process; only ever counts up.
    now: u64,
    /// When a leader was last heard from, of whatever term: with leases it may rely for an election
    /// timeout on this node not to vote.
    heard_at: Option<u64>,
    /// Ticks since the leader was heard from, or since the vote; on a leader, since it last looked
    /// for a quorum.
    election_elapsed: u64,
    /// Ticks since the last heartbeat.
    heartbeat_elapsed: u64,
    /// In `election_tick..2 * election_tick`.
    randomized_election_timeout: u64,

    /// To be sent at once.
    messages: Vec<Message>,
    /// To be sent when everything that is handed out, or will be with them, is durable: answers
    /// that promise something, also those to this node itself.
    after_append: Vec<Message>,
    /// Up to where a leader will acknowledge its own entries when they are durable, 0 for nothing:
    /// with batching and `advance`, in the place of a message in `after_append`.
    own_acknowledgement: u64,
    read_states: Vec<ReadState>,
    counts: Counts,
}

impl<S: Storage> Raft<S> {
    /// A node as its storage left it.
    pub(crate) fn new(config: Config, storage: S) -> Result<Self> {
        config.validate()?;
        let initial = storage.initial_state()?;
        let log = RaftLog::new(storage, &config)?;
        let logger = config.logger.clone();
        let mut raft = Self {
            rng: Rng::new(config.seed, config.id),
            logger,
            term: 0,
            vote: NONE,
            leader: NONE,
            leader_session: 0,
            role: Role::Follower,
            log,
            tracker: Tracker::default(),
            is_learner: false,
            leadership: Leadership::default(),
            now: 0,
            heard_at: None,
            election_elapsed: 0,
            heartbeat_elapsed: 0,
            randomized_election_timeout: 0,
            messages: Vec::new(),
            after_append: Vec::new(),
            own_acknowledgement: 0,
            read_states: Vec::new(),
            counts: Counts::default(),
            config,
        };
        let configuration = Configuration::from_conf_state(&initial.conf_state)?;
        raft.restore_configuration(configuration)?;
        raft.load(initial.hard_state)?;
        let (term, leader) = (raft.term, NONE);
        raft.become_follower(term, leader);
        raft.log_start();
        Ok(raft)
    }

    /// Takes over what was durable. A commit index above the log, or an applied index above the
    /// commit index, happen where the commit index was not synced with what follows from it.
    fn load(&mut self, state: HardState) -> Result<()> {
        let wrong = |what: String| Err(crate::Error::InvalidConfig(what));
        let (last, applied) = (self.log.last_index(), self.config.applied);
        if state.commit > last || applied > last {
            return wrong(format!(
                "commit {} or applied {applied} is beyond the last index {last}: the log has lost entries",
                state.commit
            ));
        }
        if state.term != 0 && state.term < self.log.last_term() {
            return wrong(format!(
                "term {} is below that of the last entry, {}: the hard state is lost",
                state.term,
                self.log.last_term()
            ));
        }
        if applied != 0 && applied < self.log.committed() {
            return wrong(format!(
                "applied {applied} is below the compacted index {}",
                self.log.committed()
            ));
        }
        self.term = state.term;
        self.vote = state.vote;
        self.log.commit_to(state.commit.max(applied));
        if applied > 0 {
            self.log.applied_to(applied, 0);
        }
        Ok(())
    }

    fn log_start(&self) {
        let Some(logger) = &self.logger else { return };
        let peers = self.tracker.config.voters.ids();
        let peers: Vec<String> = peers.ids().iter().map(|id| format!("{id:x}")).collect();
        logger.log(
            crate::Level::Info,
            format_args!(
                "newRaft {:x} [peers: [{}], term: {}, commit: {}, applied: {}, lastindex: {}, lastterm: {}]",
                self.config.id,
                peers.join(","),
                self.term,
                self.log.committed(),
                self.log.applied(),
                self.log.last_index(),
                self.log.last_term()
            ),
        );
    }

    // What callers may look at.

    /// This node.
    pub fn id(&self) -> u64 {
        self.config.id
    }

    /// The term.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Who got this node's vote in this term, 0 for nobody.
    pub fn vote(&self) -> u64 {
        self.vote
    }

    /// Who leads, 0 if unknown.
    pub fn leader(&self) -> u64 {
        self.leader
    }

    /// What this node is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The log.
    pub fn log(&self) -> &RaftLog<S> {
        &self.log
    }

    /// The membership as applied.
    pub fn configuration(&self) -> &Configuration {
        &self.tracker.config
    }

    /// The members; what stands in their progress means something on a leader only.
    pub fn progress(&self) -> &ProgressMap {
        &self.tracker.progress
    }

    /// Whether this node is a learner.
    pub fn is_learner(&self) -> bool {
        self.is_learner
    }

    /// Whether this node may campaign: a voter that has no snapshot to apply first.
    pub fn is_promotable(&self) -> bool {
        let own = self.tracker.progress.get(self.id());
        own.is_some_and(|progress| !progress.is_learner) && !self.log.has_snapshot()
    }

    /// Who leadership is being handed to, 0 for nobody.
    pub fn transferee(&self) -> u64 {
        self.leadership.transferee
    }

    pub(crate) fn into_storage(self) -> S {
        self.log.into_storage()
    }

    /// On a leader: no change of the membership is taken before this index is applied.
    pub fn pending_change_at(&self) -> u64 {
        self.leadership.pending_conf_index
    }

    /// Bytes of payload proposed here and not applied yet.
    pub fn uncommitted_bytes(&self) -> u64 {
        self.leadership.uncommitted_bytes
    }

    /// Ticks without a leader after which this node campaigns.
    pub fn randomized_election_timeout(&self) -> u64 {
        self.randomized_election_timeout
    }

    /// Overrides the drawn timeout until the next change of role; for tests.
    pub fn set_randomized_election_timeout(&mut self, ticks: u64) {
        self.randomized_election_timeout = ticks;
    }

    pub(crate) fn hard_state(&self) -> HardState {
        HardState {
            term: self.term,
            vote: self.vote,
            commit: self.log.committed(),
        }
    }

    pub(crate) fn soft_state(&self) -> SoftState {
        SoftState {
            leader: self.leader,
            role: self.role,
        }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn log_mut(&mut self) -> &mut RaftLog<S> {
        &mut self.log
    }

    fn has_fault(&self, fault: Fault) -> bool {
        self.config.faults.is(fault)
    }

    // What the rooms share.

    /// Fills in sender and term, and queues the message: at once, or until this node's promises
    /// are durable.
    #[inline]
    fn send(&mut self, mut message: Message) {
        let kind = message.msg_type();
        if message.from == NONE {
            message.from = self.id();
        }
        match kind {
            MessageType::MsgRequestVote
            | MessageType::MsgRequestVoteResponse
            | MessageType::MsgPreVote
            | MessageType::MsgPreVoteResp => {
                // The term of a campaign may be another than the own one.
                assert!(message.term > 0, "{kind:?} without a term");
            }
            // Passed on for somebody else: they are of no term.
            MessageType::MsgPropose | MessageType::MsgReadIndex => {}
            _ => message.term = self.term,
        }
        let promises = match kind {
            MessageType::MsgAppendResponse => {
                let to_itself = message.to == self.id();
                to_itself || !self.has_fault(Fault::AckBeforeSync)
            }
            MessageType::MsgRequestVoteResponse => {
                let to_itself = message.to == self.id();
                to_itself || !self.has_fault(Fault::VoteBeforeSync)
            }
            MessageType::MsgPreVoteResp => true,
            _ => false,
        };
        if promises {
            self.after_append.push(message);
        } else {
            assert!(message.to != self.id(), "{kind:?} to itself");
            self.messages.push(message);
        }
    }

    /// A new term or a new role: what belonged to the old one ends.
    fn reset(&mut self, term: u64) {
        debug_assert!(term >= self.term, "term {term} after {}", self.term);
        if self.term != term {
            self.term = term;
            self.vote = NONE;
            self.leader_session = 0;
        }
        self.leader = NONE;
        self.own_acknowledgement = 0;
        self.election_elapsed = 0;
        self.heartbeat_elapsed = 0;
        self.draw_election_timeout();
        self.tracker.votes.clear();
        let lease = self.config.read_mode == crate::ReadMode::LeaseBased;
        self.leadership = Leadership {
            last_session: 1,
            reads: Reads::new(lease),
            ..Leadership::default()
        };
        let (last, id, inflights) = (self.log.last_index(), self.id(), self.no_inflights());
        for (member, progress) in self.tracker.progress.iter_mut() {
            let is_learner = progress.is_learner;
            *progress = Progress::new(last + 1, is_learner, 1, inflights.clone());
            if member == id {
                // Also what is not durable yet: nothing is committed before the first entry of the
                // own term is, which is written behind all of it.
                progress.matched = last;
            }
        }
    }

    fn no_inflights(&self) -> Inflights {
        Inflights::new(
            self.config.max_inflight_msgs,
            self.config.max_inflight_bytes,
        )
    }

    fn draw_election_timeout(&mut self) {
        let timeout = self.config.election_tick;
        self.randomized_election_timeout = timeout + self.rng.below(timeout);
    }

    pub(crate) fn become_follower(&mut self, term: u64, leader: u64) {
        self.reset(term);
        self.leader = leader;
        self.role = Role::Follower;
        info!(
            self.logger,
            "{:x} became follower at term {}",
            self.id(),
            self.term
        );
    }

    fn become_pre_candidate(&mut self) {
        assert!(self.role != Role::Leader, "a leader campaigns");
        // Term and vote stay: nothing is promised yet.
        self.tracker.votes.clear();
        self.role = Role::PreCandidate;
        self.leader = NONE;
        info!(
            self.logger,
            "{:x} became pre-candidate at term {}",
            self.id(),
            self.term
        );
    }

    fn become_candidate(&mut self) {
        assert!(self.role != Role::Leader, "a leader campaigns");
        self.reset(self.term + 1);
        self.vote = self.id();
        self.role = Role::Candidate;
        info!(
            self.logger,
            "{:x} became candidate at term {}",
            self.id(),
            self.term
        );
    }

    fn become_leader(&mut self) {
        assert!(
            self.role == Role::Candidate,
            "{} becomes leader without an election",
            self.role
        );
        self.reset(self.term);
        self.leader = self.id();
        self.role = Role::Leader;
        self.counts.won += 1;
        let id = self.id();
        if let Some(own) = self.tracker.progress.get_mut(id) {
            own.become_replicate();
            own.recent_active = true;
        }
        // A membership change may be among the entries that are not committed yet; looking for it
        // would cost more than waiting for them.
        self.leadership.pending_conf_index = self.log.last_index();
        self.leadership.own_term_from = self.log.last_index() + 1;
        let accepted = self.append_entries(vec![Entry::default()]);
        debug_assert!(accepted, "an empty entry is free");
        info!(
            self.logger,
            "{:x} became leader at term {}",
            self.id(),
            self.term
        );
    }

    /// Whether this leader has committed an entry of its own term: from then on its commit index is
    /// at least as high as that of any leader before.
    fn has_committed_in_own_term(&self) -> bool {
        let from = self.leadership.own_term_from;
        from > 0 && self.log.committed() >= from
    }

    /// What may be sent at once.
    pub(crate) fn take_messages(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.messages)
    }

    /// What must wait until everything that is handed out is durable.
    pub(crate) fn take_after_append(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.after_append)
    }

    /// Term and last index of what this leader is to acknowledge with the entries now handed out.
    pub(crate) fn take_own_acknowledgement(&mut self) -> Option<(u64, u64)> {
        let own = std::mem::take(&mut self.own_acknowledgement);
        (own > 0).then_some((self.term, own))
    }

    /// What it has done in this life.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    pub(crate) fn take_read_states(&mut self) -> Vec<ReadState> {
        std::mem::take(&mut self.read_states)
    }

    /// Whether anything is queued, or will be at the next [`Raft::flush_due`].
    pub(crate) fn has_output(&self) -> bool {
        !self.messages.is_empty()
            || !self.after_append.is_empty()
            || self.own_acknowledgement > 0
            || !self.read_states.is_empty()
            || self.leadership.appends_due
            || self.leadership.reads.is_round_due()
    }

    /// With batching: queues what became due since the last call.
    pub(crate) fn flush_due(&mut self) {
        if self.leadership.reads.is_round_due() {
            self.broadcast_heartbeat();
        }
        if self.leadership.appends_due {
            self.send_due_appends();
        }
    }
}
