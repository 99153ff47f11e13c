//! What a node is told when it starts: who it is, its timeouts in ticks, its limits in bytes and
//! counts, and which of the optional rules it follows.

use std::{fmt, sync::Arc};

use crate::{Error, Faults, Logger, Result};

/// No limit, for every limit in bytes.
pub const NO_LIMIT: u64 = u64::MAX;

/// How a leader makes sure that a read is linearizable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadMode {
    /// A quorum confirms the leader after the read arrived (thesis, section 6.4).
    #[default]
    Safe,
    /// While a quorum has confirmed the leader within three quarters of an election timeout less a
    /// tick, counted from when it was asked, a read is answered at once; otherwise as
    /// [`ReadMode::Safe`]. Wants, of every member: this mode, the same [`Config::election_tick`] (ten
    /// or more), [`Config::check_quorum`], [`Config::quarantine_ticks`] after a restart, and ticks of
    /// about the same length, at most a quarter longer than another's. A node must be given the ticks
    /// of the time that has passed before anything else, and all of them: one that stood still and
    /// then answers reads first answers them under a lease that is over.
    LeaseBased,
}

/// Settings of a node. [`Config::new`] gives the defaults for everything but the id.
#[derive(Clone)]
pub struct Config {
    /// This node; never 0, and never used again with a disk that has lost what it promised, not even
    /// after a removal: it might vote twice in a term. Such a node joins under a new id.
    pub id: u64,
    /// Ticks without a leader before a follower campaigns. The timeout is drawn anew from
    /// `election_tick..2 * election_tick` at each change of role or term. Default 10.
    pub election_tick: u64,
    /// Ticks between heartbeats of a leader; less than `election_tick`. Default 1.
    pub heartbeat_tick: u64,
    /// What the state machine has applied already; entries above it are handed out again. After a
    /// restart first bring the state machine to the stored snapshot, if it is behind it, then give its
    /// index here, with [`crate::InitialState::conf_state`] the membership at that index. The default
    /// 0 means "as far as the log is compacted", and is right only where the membership is that of the
    /// snapshot there.
    pub applied: u64,
    /// Bytes of entries in one append message; one entry always goes. Default 1 MiB.
    pub max_size_per_msg: u64,
    /// Bytes of committed entries handed out and not yet acknowledged as applied; one entry always
    /// goes. Default 16 MiB.
    pub max_committed_size_per_ready: u64,
    /// Bytes of payload that a leader has proposed and not yet applied; beyond it proposals are
    /// refused. One proposal is always taken, and empty ones are. Default 64 MiB.
    pub max_uncommitted_size: u64,
    /// Append messages with entries on the way to one follower. Default 256.
    pub max_inflight_msgs: usize,
    /// Bytes of entries on the way to one follower. Default 32 MiB.
    pub max_inflight_bytes: u64,
    /// Reads that wait for a confirmation at a leader; beyond it they are refused. Default 65,536.
    pub max_pending_reads: usize,
    /// A leader that has not heard from a quorum for an election timeout steps down, and votes are
    /// refused while a leader is heard from. Default on.
    pub check_quorum: bool,
    /// Ask whether an election could be won before disturbing anybody with a higher term
    /// (thesis, section 9.6). Default on.
    pub pre_vote: bool,
    /// How reads are confirmed. Default [`ReadMode::Safe`].
    pub read_mode: ReadMode,
    /// Storage is written through messages ([`crate::LOCAL_APPEND_THREAD`]), with as many on the
    /// way as the caller likes, instead of between `ready` and `advance`. Default off.
    pub async_storage_writes: bool,
    /// Appends to one peer are merged until the next `ready`, which then carries one message a peer
    /// with the latest commit index, and reads share a round of heartbeats. Default on; off, every
    /// proposal is a message of its own, as in the reference implementation.
    pub batch_appends: bool,
    /// What is committed is told with the next append or heartbeat, not by an append of its own: half the messages of a
    /// steady stream of proposals, while the last entries of it are applied elsewhere only at the next heartbeat.
    /// Changes of members are told at once all the same. Raft-rs has it as `skip_bcast_commit`. Default off.
    pub lazy_commits: bool,
    /// A follower refuses proposals instead of passing them on to the leader. Default off.
    pub disable_proposal_forwarding: bool,
    /// Take membership changes that may not fit; whoever applies them checks. Default off.
    pub disable_conf_change_validation: bool,
    /// A leader that applies its own removal or demotion becomes a follower at once instead of
    /// leading on until somebody else is elected. Default on.
    pub step_down_on_removal: bool,
    /// Requests for votes and their refusals tell the commit index. Without it a group can be left
    /// without a leader for good: a leader that commits its own removal and stops before the others
    /// learn of it may be the only one that knows who votes, and have the longer log. The reference
    /// implementation has no such thing. Any peer's word commits entries here that it names by index
    /// and term: that peers are of this group is for the transport to make sure. Default on.
    pub commit_by_vote: bool,
    /// Answer appends, heartbeats and vote requests of a lower term even without `check_quorum` and
    /// `pre_vote`, so that their sender learns the term; the reference implementation answers the
    /// first two only with either, and the last never. Without any of the three a node can be left
    /// out for good once the terms of others are ahead of its own, or its own is ahead: candidates
    /// are ignored by nodes with `check_quorum`, learners hold no election, and one that was removed
    /// may raise the term of some for ever. Default off, for by default both others are on, and a
    /// pre-vote is always answered.
    pub answer_stale_leader: bool,
    /// Ticks after the start in which no vote is granted but those of a transfer: a restarted voter may have promised a
    /// leader its lease. One election timeout for a restarted node that takes part in
    /// [`ReadMode::LeaseBased`], else 0. Default 0.
    pub quarantine_ticks: u64,
    /// Where all randomness of this node comes from; mixed with the id. Default 0.
    pub seed: u64,
    /// Who is told what happens. Default nobody.
    pub logger: Option<Arc<dyn Logger>>,
    /// Rules to break on purpose, for tests of the tests. Default none.
    pub faults: Faults,
}

impl Config {
    /// The defaults for the node `id`.
    #[must_use]
    pub fn new(id: u64) -> Self {
        Self {
            id,
            election_tick: 10,
            heartbeat_tick: 1,
            applied: 0,
            max_size_per_msg: 1 << 20,
            max_committed_size_per_ready: 16 << 20,
            max_uncommitted_size: 64 << 20,
            max_inflight_msgs: 256,
            max_inflight_bytes: 32 << 20,
            max_pending_reads: 65_536,
            check_quorum: true,
            pre_vote: true,
            read_mode: ReadMode::Safe,
            async_storage_writes: false,
            batch_appends: true,
            lazy_commits: false,
            disable_proposal_forwarding: false,
            disable_conf_change_validation: false,
            step_down_on_removal: true,
            commit_by_vote: true,
            answer_stale_leader: false,
            quarantine_ticks: 0,
            seed: 0,
            logger: None,
            faults: Faults::default(),
        }
    }

    /// Whether the settings make sense together.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] with the setting and its bound.
    pub fn validate(&self) -> Result<()> {
        let wrong = |what: &str| Err(Error::InvalidConfig(what.to_owned()));
        if self.id == 0 || self.id >= crate::LOCAL_APPLY_THREAD {
            return wrong("id must be neither 0 nor that of a storage thread");
        }
        if self.heartbeat_tick == 0 {
            return wrong("heartbeat_tick must be at least 1");
        }
        if self.election_tick <= self.heartbeat_tick {
            return wrong("election_tick must be greater than heartbeat_tick");
        }
        if self.election_tick > MAX_ELECTION_TICK {
            return wrong("election_tick must be at most 1,000,000");
        }
        if self.max_committed_size_per_ready == 0 {
            return wrong("max_committed_size_per_ready must be at least 1");
        }
        if self.max_uncommitted_size == 0 {
            return wrong("max_uncommitted_size must be at least 1");
        }
        if self.max_inflight_msgs == 0 {
            return wrong("max_inflight_msgs must be at least 1");
        }
        if self.max_inflight_bytes < self.max_size_per_msg {
            return wrong("max_inflight_bytes must be at least max_size_per_msg");
        }
        if self.read_mode == ReadMode::LeaseBased && !self.check_quorum {
            return wrong("lease-based reads need check_quorum");
        }
        Ok(())
    }
}

/// Longest election timeout in ticks.
pub const MAX_ELECTION_TICK: u64 = 1_000_000;

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("id", &self.id)
            .field("election_tick", &self.election_tick)
            .field("heartbeat_tick", &self.heartbeat_tick)
            .field("check_quorum", &self.check_quorum)
            .field("pre_vote", &self.pre_vote)
            .field("read_mode", &self.read_mode)
            .field("async_storage_writes", &self.async_storage_writes)
            .field("batch_appends", &self.batch_appends)
            .finish_non_exhaustive()
    }
}
