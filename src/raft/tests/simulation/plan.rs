//! Everything about a run that is decided before it begins: the nodes and their settings, and how
//! often what goes wrong. A run tries some of the possibilities hard, and leaves others out, so that
//! runs differ from each other more than moments of one run do.

use basalt_raft::{Config, Fault, Faults, NO_LIMIT, ReadMode};
use basalt_testkit::Rng;

use super::network::Weather;

/// Virtual time of a tick whose length is right.
pub(crate) const TICK: u64 = 1_000;

/// What goes wrong in the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mischief {
    /// Two sides that do not hear each other.
    Split,
    /// The leader alone on one side.
    IsolateLeader,
    /// Some node is not heard, or hears nothing.
    OneWay,
    /// Two sides, and one node that hears both.
    Bridge,
    /// One link.
    CutLink,
    /// The ways to a node are slow, or those from it.
    SlowWay,
    /// All links are whole again.
    Mend,
    /// A node dies.
    Crash,
    /// A leader dies.
    CrashLeader,
    /// All nodes die.
    PowerCut,
    /// All nodes but the leader die.
    Upgrade,
    /// A node dies at its next step of some kind.
    Trap,
    /// A node stands still.
    Pause,
    /// A leader stands still.
    PauseLeader,
    /// Messages travel otherwise.
    Weather,
    /// A node's disk is slow.
    SlowDisk,
    /// A node's state machine is slow.
    SlowApply,
    /// A node's snapshots take long.
    SnapshotBusy,
    /// A removed member's data is given back.
    GiveBack,
}

/// All of it.
pub(crate) const MISCHIEF: [Mischief; 19] = [
    Mischief::Split,
    Mischief::IsolateLeader,
    Mischief::OneWay,
    Mischief::Bridge,
    Mischief::CutLink,
    Mischief::SlowWay,
    Mischief::Mend,
    Mischief::Crash,
    Mischief::CrashLeader,
    Mischief::PowerCut,
    Mischief::Upgrade,
    Mischief::Trap,
    Mischief::Pause,
    Mischief::PauseLeader,
    Mischief::Weather,
    Mischief::SlowDisk,
    Mischief::SlowApply,
    Mischief::SnapshotBusy,
    Mischief::GiveBack,
];

impl Mischief {
    fn is_aimed_at_leaders(self) -> bool {
        matches!(
            self,
            Self::IsolateLeader
                | Self::CutLink
                | Self::SlowWay
                | Self::CrashLeader
                | Self::Upgrade
                | Self::PauseLeader
        )
    }
}

/// What callers ask of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// A write.
    Propose,
    /// Several writes.
    ProposeMany,
    /// A read.
    Read,
    /// Another membership.
    Membership,
    /// Another leader.
    Transfer,
    /// To grant votes at once.
    ForgetLeader,
    /// To campaign.
    Campaign,
    /// A follower was not reached.
    Unreachable,
}

/// All of them.
pub(crate) const REQUESTS: [Request; 8] = [
    Request::Propose,
    Request::ProposeMany,
    Request::Read,
    Request::Membership,
    Request::Transfer,
    Request::ForgetLeader,
    Request::Campaign,
    Request::Unreachable,
];

/// A node's settings.
#[derive(Clone, Debug)]
pub(crate) struct NodePlan {
    /// The settings of each of its lives, but for the seed and the applied index.
    pub(crate) config: Config,
    /// Virtual time of its ticks.
    pub(crate) tick: u64,
}

/// How long things usually take, at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// From an input to the `Ready` that it causes.
    pub(crate) poll: u64,
    /// A sync.
    pub(crate) sync: u64,
    /// Applying.
    pub(crate) apply: u64,
    /// From one request to the next.
    pub(crate) request: u64,
    /// From one mischief to the next.
    pub(crate) mischief: u64,
    /// From one save of a state machine to the next.
    pub(crate) save: u64,
}

/// A run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Where all randomness comes from.
    pub(crate) seed: u64,
    /// The nodes that there can be, members or not.
    pub(crate) nodes: Vec<NodePlan>,
    /// The first members.
    pub(crate) voters: u64,
    /// Ticks of an election timeout.
    pub(crate) election_tick: u64,
    /// Reads rely on leases.
    pub(crate) lease: bool,
    /// Messages wait for the vote, too, where only the term matters to them.
    pub(crate) holds_for_vote: bool,
    /// Unsynced appends that a node may have at a time, with asynchronous storage writes.
    pub(crate) depth: usize,
    /// When the world begins to be kind.
    pub(crate) kind_from: u64,
    /// See [`super::network::Network`].
    pub(crate) cuts_lose_all: bool,
}

/// What the world is like for a while; a run goes through several.
#[derive(Clone, Debug)]
pub(crate) struct Mood {
    /// How long things take.
    pub(crate) pace: Pace,
    /// How messages travel at first.
    pub(crate) weather: Weather,
    /// Logs are compacted, of 100 saves.
    pub(crate) compaction: u64,
    /// A new leader gets into trouble at once, of 100.
    pub(crate) harassment: u64,
    /// A node that starts is told to campaign, of 100.
    pub(crate) ambition: u64,
    /// Reads at leaders after each election.
    pub(crate) curiosity: u64,
    /// A member that was removed gives its data back soon, of 100.
    pub(crate) giving_back: u64,
    /// Weights of [`MISCHIEF`].
    pub(crate) mischief: [u64; MISCHIEF.len()],
    /// Weights of [`REQUESTS`].
    pub(crate) requests: [u64; REQUESTS.len()],
}

impl Mood {
    /// Some mood.
    pub(crate) fn some(rng: &mut Rng, election_tick: u64) -> Self {
        let weight = |rng: &mut Rng| if rng.one_in(3) { 0 } else { rng.range(1..11) };
        let mut mischief = [0; MISCHIEF.len()];
        mischief.fill_with(|| weight(rng));
        for (weight, which) in mischief.iter_mut().zip(MISCHIEF) {
            // What happens to leaders leads further than what happens to others.
            *weight *= if which.is_aimed_at_leaders() { 3 } else { 1 };
        }
        let mut requests = [0; REQUESTS.len()];
        requests.fill_with(|| weight(rng));
        if chance(rng, 50) {
            // A mood with a bent: much of one thing.
            mischief[rng.index(MISCHIEF.len())] = 60;
            requests[rng.index(REQUESTS.len())] = 30;
        }
        // Nothing happens without writes.
        requests[0] = requests[0].max(5);
        Self {
            pace: some_pace(rng),
            weather: some_weather(rng, election_tick),
            compaction: *rng.pick(&[0, 30, 90]),
            harassment: *rng.pick(&[0, 20, 60, 90]),
            ambition: *rng.pick(&[0, 0, 30, 60]),
            curiosity: *rng.pick(&[0, 6, 20]),
            giving_back: *rng.pick(&[0, 50, 100]),
            mischief,
            requests,
        }
    }
}

/// One of `weights` by its weight, none where all are 0.
pub(crate) fn weighted(rng: &mut Rng, weights: &[u64]) -> Option<usize> {
    let total: u64 = weights.iter().sum();
    let mut left = if total == 0 { 0 } else { rng.below(total) };
    weights.iter().position(|weight| {
        let found = left < *weight;
        left = left.saturating_sub(*weight);
        found
    })
}

fn chance(rng: &mut Rng, percent: u64) -> bool {
    rng.below(100) < percent
}

/// How messages travel: some kind of weather.
pub(crate) fn some_weather(rng: &mut Rng, election_tick: u64) -> Weather {
    Weather {
        lost: *rng.pick(&[0, 0, 10, 50, 200]),
        twice: *rng.pick(&[0, 0, 20, 100]),
        late: *rng.pick(&[0, 10, 50, 150, 300]),
        delay: *rng.pick(&[TICK / 10, TICK / 3, TICK, 3 * TICK]),
        lateness: rng.range(TICK..3 * election_tick * TICK),
    }
}

fn some_pace(rng: &mut Rng) -> Pace {
    Pace {
        poll: *rng.pick(&[1, TICK / 50, TICK / 10, TICK / 2]),
        sync: *rng.pick(&[TICK / 100, TICK / 10, TICK / 2, 2 * TICK]),
        apply: *rng.pick(&[1, TICK / 50, TICK / 5, TICK, 3 * TICK]),
        request: *rng.pick(&[TICK / 4, TICK / 2, TICK, 2 * TICK]),
        mischief: *rng.pick(&[5 * TICK, 15 * TICK, 40 * TICK, 80 * TICK]),
        save: *rng.pick(&[3 * TICK, 10 * TICK, 40 * TICK, 200 * TICK]),
    }
}

/// Settings that all nodes of a run share.
struct Shared {
    election_tick: u64,
    heartbeat_tick: u64,
    lease: bool,
    quarantine: bool,
    drift: u64,
    asynchronous: u64,
    batching: u64,
    pre_vote: u64,
    check_quorum: u64,
    small_limits: bool,
}

impl Shared {
    fn draw(rng: &mut Rng) -> Self {
        let lease = chance(rng, 45);
        let election_tick = if lease {
            rng.range(10..13)
        } else {
            rng.range(4..11)
        };
        // None, some or all nodes have a switch on.
        let share = |rng: &mut Rng| *rng.pick(&[0, 50, 100]);
        Self {
            election_tick,
            heartbeat_tick: rng.range(1..election_tick / 3 + 1),
            lease,
            quarantine: lease || chance(rng, 20),
            // In percent. A lease of three quarters of an election timeout of ten ticks, begun at
            // the end of a tick and ended at the beginning of one, leaves room for these.
            drift: if lease { 3 } else { *rng.pick(&[0, 10, 40]) },
            asynchronous: *rng.pick(&[0, 50, 100, 100]),
            batching: share(rng),
            pre_vote: share(rng),
            check_quorum: if lease { 100 } else { share(rng) },
            small_limits: chance(rng, 60),
        }
    }

    fn config(&self, rng: &mut Rng, id: u64, fault: Fault) -> Config {
        let mut config = Config::new(id);
        config.election_tick = self.election_tick;
        config.heartbeat_tick = self.heartbeat_tick;
        config.async_storage_writes = chance(rng, self.asynchronous);
        config.batch_appends = chance(rng, self.batching);
        // No draw, so that the rest of a seed's run stays as it was.
        config.lazy_commits = id.is_multiple_of(2);
        config.pre_vote = chance(rng, self.pre_vote);
        config.check_quorum = chance(rng, self.check_quorum);
        config.read_mode = if self.lease {
            ReadMode::LeaseBased
        } else {
            ReadMode::Safe
        };
        config.quarantine_ticks = if self.quarantine {
            self.election_tick
        } else {
            0
        };
        config.step_down_on_removal = !rng.one_in(4);
        // Without pre-vote everywhere terms run away, and whoever is behind, or ahead, must be told.
        let everywhere = self.pre_vote == 100;
        config.answer_stale_leader = !everywhere || rng.one_in(4);
        config.disable_proposal_forwarding = rng.one_in(8);
        config.max_pending_reads = *rng.pick(&[1, 4, 1000]);
        if self.small_limits {
            config.max_size_per_msg = *rng.pick(&[0, 0, 0, 60, 200, NO_LIMIT]);
            config.max_committed_size_per_ready = *rng.pick(&[1, 60, 200, NO_LIMIT]);
            config.max_uncommitted_size = *rng.pick(&[40, 200, 2_000, NO_LIMIT]);
            config.max_inflight_msgs = *rng.pick(&[1, 2, 5, 50]);
            config.max_inflight_bytes = config
                .max_size_per_msg
                .max(*rng.pick(&[1, 100, 1_000, NO_LIMIT]));
        }
        config.faults = Faults(fault);
        config
    }
}

impl Plan {
    /// The run of a seed, with a planted fault or none.
    pub(crate) fn new(seed: u64, fault: Fault) -> Self {
        let mut rng = Rng::new(seed ^ 0x51A2_7E0D);
        let rng = &mut rng;
        let shared = Shared::draw(rng);
        let count = rng.range(3..8);
        let voters = rng.range(1..count + 1).max(rng.range(1..count + 1));
        let node = |rng: &mut Rng, id| NodePlan {
            config: shared.config(rng, id, fault),
            tick: TICK * (100 + rng.below(2 * shared.drift + 1) - shared.drift) / 100,
        };
        let nodes = (1..=count).map(|id| node(rng, id)).collect();
        Self {
            seed,
            nodes,
            voters,
            election_tick: shared.election_tick,
            lease: shared.lease,
            holds_for_vote: chance(rng, 50),
            depth: rng.len(1..8),
            kind_from: rng.range(300..900) * TICK,
            cuts_lose_all: chance(rng, 30),
        }
    }
}
