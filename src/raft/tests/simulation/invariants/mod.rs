//! What must hold after every event, whatever the schedule: the properties of Raft (Ongaro's thesis,
//! figure 3.2), the rules of durability, linearizable reads, and that nothing panics, fails or stops.
//!
//! The oracle sees everything: all processes, all disks, all messages. It knows no scenario and no
//! planted fault; each property is stated once, over the state that it speaks of.

mod committed;
mod log;
mod promises;
mod state;

use promises::believes;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use basalt_raft::{Role, eraftpb::ConfState};

use super::{
    chain::{Chain, Link},
    machine::Machine,
    node::{Node, Seen},
};

/// A property.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Invariant {
    /// At most one process leads in a term.
    OneLeader,
    /// A node votes for one candidate a term.
    OneVote,
    /// Two logs with the same term at an index agree up to it, and a leader only appends.
    LogMatching,
    /// A leader has everything that was committed in earlier terms.
    LeaderCompleteness,
    /// All nodes commit and apply the same entry at an index.
    StateMachineSafety,
    /// What is committed is durable on a quorum of the membership in force.
    DurableQuorum,
    /// No message of a term leaves before that term, and for votes that vote, is durable.
    DurableBeforeSent,
    /// What was acknowledged is durable, and stays until a later term overwrites it.
    Acknowledged,
    /// What the latest leader takes for acknowledged is durable at that member.
    Believed,
    /// What is applied is durable.
    AppliedIsDurable,
    /// Term, commit and applied index never go back, and a vote stays.
    Monotonic,
    /// Reads reflect everything that was committed before they began.
    Linearizable,
    /// At an index all nodes have the same membership.
    SameMembership,
    /// A node never fails.
    NoError,
    /// A node never panics.
    NoPanic,
    /// When the world is kind, the group comes to rest and makes progress.
    Converges,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OneLeader => "one leader a term",
            Self::OneVote => "one vote a term",
            Self::LogMatching => "log matching",
            Self::LeaderCompleteness => "leader completeness",
            Self::StateMachineSafety => "state-machine safety",
            Self::DurableQuorum => "commit only on a durable quorum",
            Self::DurableBeforeSent => "term and vote durable before a message",
            Self::Acknowledged => "acknowledged entries stay",
            Self::Believed => "what the leader counts is durable",
            Self::AppliedIsDurable => "applied entries are durable",
            Self::Monotonic => "term, vote, commit and applied never go back",
            Self::Linearizable => "linearizable reads",
            Self::SameMembership => "same membership at an index",
            Self::NoError => "no error",
            Self::NoPanic => "no panic",
            Self::Converges => "convergence",
        })
    }
}

/// A property that does not hold.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    /// Which.
    pub(crate) invariant: Invariant,
    /// How it is broken.
    pub(crate) what: String,
}

impl Violation {
    /// `what` breaks `invariant`.
    pub(crate) fn new(invariant: Invariant, what: impl Into<String>) -> Self {
        Self {
            invariant,
            what: what.into(),
        }
    }
}

/// The outcome of something that must keep all properties.
pub(crate) type Check<T = ()> = Result<T, Violation>;

/// What a call has led to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Observed {
    /// Entries that nobody had committed before.
    pub(crate) committed: u64,
    /// The node was elected.
    pub(crate) elected: bool,
    /// Nobody had committed anything in its term before.
    pub(crate) first_of_term: bool,
}

/// Everything that is known of a run, from which the properties follow.
pub(crate) struct Oracle {
    /// Who led in each term: node and life.
    leaders: BTreeMap<u64, (usize, u32)>,
    /// Who got each node's vote in each term.
    votes: HashMap<(usize, u64), u64>,
    /// The hash that each index has in each term, from the first index on.
    known: Vec<Vec<Link>>,
    /// Everything that somebody has known to be committed.
    committed: Chain,
    /// The term of who knew it first, for each of them.
    committed_in: Vec<u64>,
    /// The hash of the state at each applied index, from the first index on.
    states: Vec<u64>,
    /// The membership from each index on, until the next.
    memberships: BTreeMap<u64, ConfState>,
    /// The highest acknowledgement of each node in its term.
    promises: Vec<Option<(u64, Link)>>,
    /// Calls so far.
    calls: u64,
}

impl Oracle {
    /// What is known before the first event of `count` nodes that begin with `machine`.
    pub(crate) fn new(count: usize, machine: &Machine) -> Self {
        let start = machine.applied;
        Self {
            leaders: BTreeMap::new(),
            votes: HashMap::new(),
            known: Vec::new(),
            committed: Chain::new(start),
            committed_in: Vec::new(),
            states: vec![machine.digest()],
            memberships: BTreeMap::from([(start.index, machine.conf.clone())]),
            promises: vec![None; count],
            calls: 0,
        }
    }

    /// The last entry that somebody has known to be committed.
    pub(crate) fn last_committed(&self) -> Link {
        self.committed.last()
    }

    /// The highest term that anybody has led in.
    pub(crate) fn last_term(&self) -> u64 {
        self.leaders.last_key_value().map_or(0, |(term, _)| *term)
    }

    /// The latest membership that somebody has applied, and since which index.
    pub(crate) fn membership_now(&self) -> (u64, &ConfState) {
        let (index, conf) = self.memberships.last_key_value().expect("the first one");
        (*index, conf)
    }

    fn place(&self, index: u64) -> usize {
        usize::try_from(index - self.committed.base().index).expect("a short log")
    }

    /// A process has started: it is what its disk says.
    pub(crate) fn started(&mut self, nodes: &mut [Node], n: usize) -> Check {
        let Some(process) = nodes[n].process.as_deref_mut() else {
            return Ok(());
        };
        let raft = process.raw.raft();
        let disk = process.raw.storage().view();
        let (state, log) = (disk.hard_state, raft.log());
        let applied = process.machine.applied.index;
        let wrong = |what| {
            let what = format!("node {} after a restart: {what}", n + 1);
            Err(Violation::new(Invariant::Monotonic, what))
        };
        if (raft.term(), raft.vote()) != (state.term, state.vote) {
            return wrong(format!("term {} vote {}", raft.term(), raft.vote()));
        }
        if log.committed() < state.commit.max(applied) || log.applied() != applied {
            return wrong(format!(
                "commit {} of {}, applied {} of {applied}",
                log.committed(),
                state.commit,
                log.applied(),
            ));
        }
        process.seen = Seen {
            term: raft.term(),
            vote: raft.vote(),
            commit: log.committed(),
            applied,
            led: false,
        };
        self.check_commit_at(nodes, n)?;
        self.synced(nodes, n)
    }

    /// A node was called: everything about it is looked at.
    pub(crate) fn observe(&mut self, nodes: &mut [Node], n: usize) -> Check<Observed> {
        self.calls += 1;
        let life = nodes[n].life;
        let Some(process) = nodes[n].process.as_deref_mut() else {
            return Ok(Observed::default());
        };
        let raft = process.raw.raft();
        let now = Seen {
            term: raft.term(),
            vote: raft.vote(),
            commit: raft.log().committed(),
            applied: raft.log().applied(),
            led: raft.role() == Role::Leader,
        };
        let before = std::mem::replace(&mut process.seen, now);
        monotonic(n, before, now)?;
        self.follow_log(process, n, before)?;
        let mut observed = Observed::default();
        if now.led && !(before.led && before.term == now.term) {
            observed.elected = true;
            self.elected(nodes, n, life)?;
        }
        if now.commit > before.commit {
            let before = self.committed_in.last().copied();
            observed.committed = self.commits(nodes, n)?;
            observed.first_of_term = self.committed_in.last().copied() > before;
        }
        if now.led && now.term == self.last_term() {
            believes(nodes, n)?;
        }
        Ok(observed)
    }
}

fn monotonic(n: usize, before: Seen, now: Seen) -> Check {
    let vote_stays = before.vote == 0 || before.vote == now.vote || before.term != now.term;
    let ascends =
        before.term <= now.term && before.commit <= now.commit && before.applied <= now.applied;
    if ascends && vote_stays {
        return Ok(());
    }
    let what = format!("node {}: from {before:?} to {now:?}", n + 1);
    Err(Violation::new(Invariant::Monotonic, what))
}
