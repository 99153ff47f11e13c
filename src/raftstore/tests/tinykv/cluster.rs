//! `Cluster`: stores of the simulation to which nothing happens but what a scenario does to them.

use basalt_engine::fs::sim::Survival;
use basalt_proto::raft_serverpb::RaftApplyState;
use basalt_raftstore::{RegionStatus, StoreConfig, faults::Faults, states};
use basalt_testkit::{
    Rng,
    history::{Limits, Operation, Outcome, Row, check},
};

use super::{
    invariants::Violation,
    plan::{Mischief, Pace, Plan},
    wish::Asked,
    world::{Check, Event, MICRO, MILLI, SECOND, World},
};

/// The base election timeout, by which TinyKV's tests count.
pub(crate) const ELECTION: u64 = 500 * MILLI;

/// How often clients look for answers. An answer is written down up to that much late, which only makes
/// the history a little easier to explain.
const SLICE: u64 = 250 * MICRO;

/// The first region, the only one.
const REGION: u64 = 1;

/// Who asks where a test itself does.
pub(crate) const TEST: u64 = 1_000;

/// As long as TinyKV's tests look at an engine for what must come to be there.
const SOON: u64 = 6 * SECOND;

pub(crate) struct Cluster {
    pub(crate) world: World,
    pub(crate) rng: Rng,
    pub(crate) asked: Asked,
}

/// What holds, or the test fails.
pub(crate) fn sound<T>(check: Check<T>) -> T {
    match check {
        Ok(found) => found,
        Err(Violation { invariant, what }) => panic!("{invariant}: {what}"),
    }
}

impl Cluster {
    /// TinyKV's test settings, in a world without mischief and without clients of its own; log GC at
    /// `gc_limit` entries.
    pub(crate) fn start(seed: u64, stores: usize, gc_limit: Option<u64>, faults: Faults) -> Self {
        let mut rng = Rng::new(seed ^ 0x71);
        let drawn = Plan::draw(seed, faults);
        let config = StoreConfig {
            tick: std::time::Duration::from_millis(50),
            election_ticks: 10,
            heartbeat_ticks: 2,
            log_gc_interval: std::time::Duration::from_millis(50),
            log_gc_entries: gc_limit.unwrap_or(128_000),
            faults,
            ..StoreConfig::new(1)
        };
        let plan = Plan {
            stores,
            founders: stores,
            clients: 0,
            // Mischief has one look, at the start, which does nothing here, and never another.
            every: u64::MAX / 4,
            pace: Pace {
                turn: 100 * MICRO,
                apply: *rng.pick(&[100 * MICRO, MILLI]),
                work: 5 * MILLI,
                disk: *rng.pick(&[200 * MICRO, MILLI]),
            },
            mischief: Mischief::default(),
            config,
            ..drawn
        };
        let verbose = std::env::var_os("BASALT_VERBOSE").is_some();
        let mut cluster = Self {
            world: World::new(seed, plan, verbose),
            rng,
            asked: Asked::default(),
        };
        // Stores start within 100 ms, and the look of mischief is over.
        cluster.pass(2 * SECOND + 2 * ELECTION);
        cluster
    }

    /// A moment passes.
    pub(crate) fn step(&mut self) {
        sound(self.world.run(self.world.now + SLICE));
        self.take_answers();
    }

    pub(crate) fn pass(&mut self, time: u64) {
        sound(self.world.run(self.world.now + time));
        self.take_answers();
    }

    /// The test itself asks, and waits until it is done.
    pub(crate) fn ask(&mut self, family: &'static str, operation: Operation) -> Outcome {
        let mut wish = self.wish(TEST, family, operation);
        loop {
            if let Some(outcome) = self.pursue(&mut wish) {
                return outcome;
            }
            self.step();
        }
    }

    pub(crate) fn put(&mut self, family: &'static str, key: &str, value: &str) {
        self.ask(family, Operation::put(key, value));
    }

    pub(crate) fn delete(&mut self, family: &'static str, key: &[u8]) {
        self.ask(family, Operation::delete(key));
    }

    pub(crate) fn get(&mut self, family: &'static str, key: &str) -> Option<Vec<u8>> {
        match self.ask(family, Operation::get(key)) {
            Outcome::Value(value) => value,
            other => panic!("a get ends with {other:?}"),
        }
    }

    pub(crate) fn scan(&mut self, start: &str, end: &str) -> Vec<Row> {
        match self.ask("default", Operation::scan(start, end, usize::MAX)) {
            Outcome::Rows(rows) => rows,
            other => panic!("a scan ends with {other:?}"),
        }
    }

    /// Nobody on one side hears anybody on the other.
    pub(crate) fn part(&mut self, one: &[usize], other: &[usize]) {
        self.world.counts.partitions += 1;
        for a in one {
            for b in other {
                self.world.network.cut(*a, *b);
                self.world.network.cut(*b, *a);
            }
        }
        let sides = (one.to_vec(), other.to_vec());
        self.world.note(0, 60, || format!("a partition: {sides:?}"));
    }

    /// The network is whole again, and loses nothing.
    pub(crate) fn heal(&mut self) {
        self.world.network.mend();
        self.world.network.calm();
        self.world.note(0, 61, || "the network is whole".to_owned());
    }

    /// Power is cut at a store, which stays off.
    pub(crate) fn cut_power(&mut self, n: usize) {
        let how = match self.rng.below(5) {
            0 => Survival::KeepAll,
            1 => Survival::ProcessDeath,
            2 => Survival::LoseUnsynced,
            _ => Survival::Random {
                seed: self.rng.next_u64(),
            },
        };
        let node = &mut self.world.nodes[n];
        let left = node.fs.crash(how);
        node.running = None;
        node.fs = left;
        node.life += 1;
        self.world.counts.crashes += 1;
        self.world
            .note(n, 62, || format!("loses its power: {how:?}"));
        self.take_answers();
    }

    /// A store that is off starts with what its disk has.
    pub(crate) fn power_on(&mut self, n: usize) {
        let life = self.world.nodes[n].life;
        self.world.after(0, Event::Start(n, life));
        self.step();
        let runs = self.world.nodes[n].running.is_some();
        assert!(runs, "store {} does not start", n + 1);
    }

    /// All lose their power, one after the other, and start again.
    pub(crate) fn restart_all(&mut self) {
        for n in 0..self.world.nodes.len() {
            self.cut_power(n);
            let gap = self.rng.below(5 * MILLI);
            self.pass(gap);
        }
        self.pass(ELECTION);
        for n in 0..self.world.nodes.len() {
            self.power_on(n);
        }
    }

    /// The value of a key as a store's engine has it, whoever leads.
    pub(crate) fn stored(&self, n: usize, family: &str, key: &str) -> Option<Vec<u8>> {
        let running = self.world.nodes[n].running.as_ref();
        let engines = &running.expect("a store that runs").engines;
        let place = basalt_raftstore::DATA_FAMILIES;
        let place = place.iter().position(|known| *known == family);
        let family = &engines.data[place.expect("a family of users")];
        let found = engines.kv.get(family, key.as_bytes());
        found
            .expect("a disk that works")
            .map(|value| value.to_vec())
    }

    /// Waits until a store's engine has this value of a key, or none.
    pub(crate) fn comes_to_store(
        &mut self,
        n: usize,
        family: &str,
        key: &str,
        value: Option<&str>,
    ) {
        let until = self.world.now + SOON;
        while self.stored(n, family, key).as_deref() != value.map(str::as_bytes) {
            let found = self.stored(n, family, key);
            let found = found.map(|found| String::from_utf8_lossy(&found).into_owned());
            assert!(
                self.world.now < until,
                "store {} has {found:?} for {key:?}, not {value:?}",
                n + 1
            );
            self.pass(20 * MILLI);
        }
    }

    /// What a store's engine says is applied and truncated.
    pub(crate) fn apply_state(&self, n: usize) -> RaftApplyState {
        let running = self.world.nodes[n].running.as_ref();
        let engines = &running.expect("a store that runs").engines;
        let state = states::apply_state(engines, REGION).expect("a state that can be read");
        state.expect("a state")
    }

    /// Every store keeps at most twice the limit of applied entries.
    pub(crate) fn logs_are_short(&self, limit: u64) {
        for n in 0..self.world.nodes.len() {
            let state = self.apply_state(n);
            let truncated = state.truncated_state.unwrap_or_default().index;
            let kept = state.applied_index - truncated;
            assert!(
                kept <= 2 * limit,
                "store {} keeps {kept} applied entries, limit {limit}: {state:?}",
                n + 1
            );
        }
    }

    /// Which store leads, in the highest term, as long as there is one.
    pub(crate) fn leader(&mut self) -> usize {
        let until = self.world.now + 10 * SECOND;
        loop {
            let statuses = self.world.statuses();
            let regions = statuses
                .iter()
                .flat_map(|(n, status)| status.regions.iter().map(move |region| (*n, region)));
            let leaders =
                regions.filter(|(_, region): &(usize, &RegionStatus)| region.role == "leader");
            if let Some((n, _)) = leaders.max_by_key(|(_, region)| region.term) {
                return n;
            }
            assert!(self.world.now < until, "nobody leads");
            self.pass(50 * MILLI);
        }
    }

    /// It is over: all come to have the same, and what clients saw has an explanation.
    pub(crate) fn end(&mut self) {
        self.world.be_kind();
        sound(self.world.run(u64::MAX));
        check(&self.asked.history, Limits::default()).assert_linearizable();
        self.world.counts.terms = self.world.oracle.terms();
    }
}
