//! Crash recovery: a simulated disk is cut at every boundary between two changes, and what is left must open to
//! what was promised (README, what survives what).
//!
//! Each workload (`crash_recovery/workloads.rs`) runs once on a simulated disk. Before every write, sync,
//! rename, create, grow, link, removal and directory sync, images are taken as a crash there could leave them: all
//! unsynced data lost, all kept, the process dead and the system alive, and random torn subsets of sectors, lengths
//! and directory entries. Each image not met before (by the hash of the disk) is opened and checked:
//! - it opens, and `verify` finds nothing;
//! - the logged families are together one prefix of the write order, which holds every write that was
//!   acknowledged as durable by then, and after the death of the process every acknowledged write; the
//!   unlogged ones are one prefix that holds everything up to the last flush; the families are a state of the
//!   order of the manifest;
//! - writing goes on, what was shown survives the next crash, a clean close leaves nothing to copy and no file
//!   that nobody needs;
//! - for a share of images: crashes at every boundary inside that reopening, and inside the reopening after that.
//!
//! Replay: a failure prints `BASALT_CRASH=workload/seed/boundary/survival`, which runs just that image.
//! `BASALT_TRACE=1` prints every change of the disk on the way there.
//! `BASALT_BASE=n` draws other seeds, `BASALT_LONG=n` takes n times as many torn images.

#[path = "crash_recovery/check.rs"]
mod check;
#[path = "crash_recovery/model.rs"]
mod model;
#[path = "crash_recovery/workloads.rs"]
mod workloads;
#[path = "crash_recovery/world.rs"]
mod world;

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use basalt_engine::{
    Fault, Faults,
    fs::sim::{Failure, FaultRule, OpKind, Survival, fail_range},
};
use basalt_testkit::{Seeds, long_factor};

use check::{Broken, Checker, Counts, Effort};
use workloads::{ALL, FAILING, Workload, named};
use world::{Event, Images, World};

/// Distinct crash states that a run of all workloads must reach.
const STATES: u64 = 100_000;

/// Threads that take workloads from the list.
const THREADS: usize = 2;

/// What one run of a workload came to.
struct Outcome {
    broken: Option<Broken>,
    events: BTreeMap<Event, u64>,
    boundaries: u64,
    checker: Arc<Checker>,
}

fn effort() -> Effort {
    Effort {
        torn: 9 * long_factor(),
        nested: 80,
        nested_again: 50,
        after: 4,
        flip: 4,
    }
}

fn run(workload: &Workload, seed: u64, faults: Faults, effort: Effort, images: Images) -> Outcome {
    let checker = Arc::new(Checker::new(workload.setup.options(faults), effort));
    let mut world = World::new(workload.name, seed, Arc::clone(&checker), images);
    if let Err(broken) = (workload.run)(&mut world) {
        checker.report(Broken(format!(
            "workload {}, seed {seed:#x}: {broken}\n  replay: BASALT_CRASH='{}/{seed:#x}' cargo test --test crash_recovery -- --nocapture",
            workload.name, workload.name
        )));
        // Closing it would wait for what is broken.
        let outcome = Outcome {
            broken: checker.broken(),
            events: world.events(),
            boundaries: world.boundaries(),
            checker,
        };
        std::mem::forget(world);
        return outcome;
    }
    Outcome {
        broken: checker.broken(),
        events: world.events(),
        boundaries: world.boundaries(),
        checker,
    }
}

/// `BASALT_CRASH`: workload, seed, and what follows.
fn replayed() -> Option<(String, u64, Vec<String>)> {
    let text = std::env::var("BASALT_CRASH").ok()?;
    let mut parts = text.split('/').map(str::to_owned);
    let name = parts.next().expect("a split has a first part");
    let seed = hex(&parts.next().expect("BASALT_CRASH names a seed"));
    Some((name, seed, parts.collect()))
}

fn hex(text: &str) -> u64 {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).expect("a number in hex")
}

fn survival(text: &str) -> Survival {
    match text {
        "lose" => Survival::LoseUnsynced,
        "keep" => Survival::KeepAll,
        "death" => Survival::ProcessDeath,
        seed => Survival::Random { seed: hex(seed) },
    }
}

/// Runs `work` for every index below `count`, on two threads.
fn on_threads(count: usize, work: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= count {
                        return;
                    }
                    work(at);
                }
            });
        }
    });
}

#[test]
fn every_crash_state_opens_to_what_was_promised() {
    if let Some((name, seed, rest)) = replayed() {
        if name.contains('@') {
            return;
        }
        let images = replayed_images(&rest).unwrap_or(Images::All);
        let outcome = run(named(&name), seed, Faults::default(), effort(), images);
        if let Some(broken) = outcome.broken {
            panic!("{broken}");
        }
        return;
    }
    let begun = Instant::now();
    let seeds: Vec<u64> = Seeds::new("crash_recovery", ALL.len() as u64).collect();
    let outcomes: Vec<Mutex<Option<Outcome>>> = ALL.iter().map(|_| Mutex::default()).collect();
    let all_hashes = Mutex::new(HashSet::new());
    on_threads(ALL.len(), |at| {
        let workload = &ALL[at];
        let started = Instant::now();
        let outcome = run(
            workload,
            seeds[at],
            Faults::default(),
            effort(),
            Images::All,
        );
        let get = Counts::get;
        let counts = &outcome.checker.counts;
        println!(
            "{:22} {:5} boundaries, {:6} states, {:6} distinct, {:6} nested, {:5} nested twice, {:7} opened, {:5.1} s",
            workload.name,
            outcome.boundaries,
            get(&counts.states),
            get(&counts.distinct),
            get(&counts.nested),
            get(&counts.nested_again),
            get(&counts.opened),
            started.elapsed().as_secs_f64()
        );
        all_hashes
            .lock()
            .expect("no thread panics under it")
            .extend(outcome.checker.hashes());
        *outcomes[at].lock().expect("no thread panics under it") = Some(outcome);
    });
    let outcomes: Vec<Outcome> = outcomes
        .into_iter()
        .filter_map(|outcome| outcome.into_inner().expect("no thread panicked"))
        .collect();
    let broken: Vec<String> = outcomes
        .iter()
        .filter_map(|outcome| outcome.broken.as_ref().map(ToString::to_string))
        .collect();
    assert!(
        broken.is_empty(),
        "{} broken promises:\n{}",
        broken.len(),
        broken.join("\n")
    );
    let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
    let distinct = all_hashes.into_inner().expect("no thread panicked").len() as u64;
    println!(
        "{} workloads, {} boundaries, {} states, {distinct} distinct, {} reopenings, {} nested, {} nested twice, {} flips, {} checkpoints opened, {:.1} s",
        outcomes.len(),
        sum(|o| o.boundaries),
        sum(|o| Counts::get(&o.checker.counts.states)),
        sum(|o| Counts::get(&o.checker.counts.opened)),
        sum(|o| Counts::get(&o.checker.counts.nested)),
        sum(|o| Counts::get(&o.checker.counts.nested_again)),
        sum(|o| Counts::get(&o.checker.counts.flips)),
        sum(|o| Counts::get(&o.checker.counts.checkpoints)),
        begun.elapsed().as_secs_f64()
    );
    let mut missed = Vec::new();
    for (workload, outcome) in ALL.iter().zip(&outcomes) {
        for &(event, least) in workload.reaches {
            let reached = outcome.events.get(&event).copied().unwrap_or(0);
            if reached < least {
                missed.push(format!(
                    "{} reached {event:?} {reached} times, not {least}",
                    workload.name
                ));
            }
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
    assert!(outcomes.len() >= 20, "at least 20 workloads");
    assert!(
        distinct >= STATES,
        "{distinct} distinct crash states, not {STATES}"
    );
}

/// Each planted bug of the engine, and the workloads that meet it soonest.
const PLANTED: &[(Fault, &[&str])] = &[
    (Fault::NoDirSyncForTable, &["deletes", "no-recycling"]),
    (Fault::NoDirSyncForLog, &["rotation"]),
    (Fault::EarlyAck, &["synced-puts"]),
    (Fault::EditBeforeTable, &["synced-puts"]),
    (Fault::ReplayStaleRecord, &["recycling", "no-recycling"]),
    (Fault::NoSealOfCut, &["unsynced-puts", "power-cuts"]),
    (Fault::DeleteLogBeforeEdit, &["no-recycling", "recycling"]),
    (Fault::UnsyncedManifest, &["reopen"]),
    (Fault::SkipOlderSegmentSync, &["rotation", "tickets"]),
    (Fault::FlushBeforeLogSync, &["mixed-sync"]),
    (Fault::IgnoreSyncError, &["failed-syncs"]),
    (Fault::CutBelowSynced, &["synced-puts", "rotation"]),
];

#[test]
fn planted_engine_bugs_are_found() {
    if replayed().is_some() {
        return;
    }
    let seeds: Vec<u64> = Seeds::new("planted", PLANTED.len() as u64).collect();
    let missed = Mutex::new(Vec::new());
    on_threads(PLANTED.len(), |at| {
        let (fault, soonest) = PLANTED[at];
        let others = ALL.iter().map(|workload| workload.name);
        let others = others.filter(|name| !soonest.contains(name));
        let mut tried = 0;
        let started = Instant::now();
        for name in soonest.iter().copied().chain(others) {
            let outcome = run(named(name), seeds[at], Faults(fault), effort(), Images::All);
            tried += Counts::get(&outcome.checker.counts.distinct);
            if let Some(broken) = outcome.broken {
                let text: String = broken.to_string().chars().take(260).collect();
                println!(
                    "{fault:?} is found in {name} after {tried} distinct states, {:.1} s: {text}",
                    started.elapsed().as_secs_f64()
                );
                return;
            }
            println!("{fault:?} is not found in {name}");
        }
        missed
            .lock()
            .expect("no thread panics under it")
            .push(format!(
                "{fault:?} was not found in {tried} distinct states"
            ));
    });
    let missed = missed.into_inner().expect("no thread panicked");
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

/// How a planted failure of the disk looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Looks {
    /// One operation fails with EIO.
    Device,
    /// One fails for lack of room, and half of a write gets there.
    Full,
    /// From there on all of the kind fail for lack of room, until the disk is repaired.
    FullFromNow,
}

/// A failure of the disk: the `nth` operation of a kind.
#[derive(Clone, Copy, Debug)]
struct Plant {
    kind: OpKind,
    nth: u64,
    looks: Looks,
}

const KINDS: &[OpKind] = &[
    OpKind::CreateDir,
    OpKind::Create,
    OpKind::Grow,
    OpKind::Write,
    OpKind::Sync,
    OpKind::SyncDir,
    OpKind::Rename,
    OpKind::Link,
    OpKind::Remove,
    OpKind::RemoveDir,
    OpKind::List,
    OpKind::Len,
    OpKind::Open,
    OpKind::Read,
    OpKind::Populate,
];

const LOOKS: &[Looks] = &[Looks::Device, Looks::Full, Looks::FullFromNow];

impl Plant {
    fn rule(self) -> FaultRule {
        let Self { kind, nth, looks } = self;
        let end = if looks == Looks::FullFromNow {
            u64::MAX
        } else {
            nth + 1
        };
        fail_range(
            move |op| op.kind == kind,
            nth,
            end,
            move || match looks {
                Looks::Device => Failure::device(),
                Looks::Full => Failure::of(std::io::ErrorKind::StorageFull).after(33),
                Looks::FullFromNow => Failure::of(std::io::ErrorKind::StorageFull),
            },
        )
    }

    /// The name of a run: workload and failure, as `BASALT_CRASH` takes it.
    fn name(self, workload: &str) -> String {
        format!("{workload}@{:?}.{}.{:?}", self.kind, self.nth, self.looks)
    }

    fn parse(text: &str) -> Self {
        let mut parts = text.split('.');
        let mut next = || parts.next().expect("kind.nth.looks");
        let kind = next();
        let nth = next().parse().expect("a number");
        let looks = next();
        Self {
            kind: *KINDS
                .iter()
                .find(|known| format!("{known:?}") == kind)
                .expect("a kind of operation"),
            nth,
            looks: *LOOKS
                .iter()
                .find(|known| format!("{known:?}") == looks)
                .expect("a kind of failure"),
        }
    }
}

/// How many operations of each kind a workload does on a good disk.
fn operations(workload: &Workload, seed: u64) -> BTreeMap<OpKind, u64> {
    let counts: Arc<Mutex<BTreeMap<OpKind, u64>>> = Arc::default();
    let into = Arc::clone(&counts);
    let rule: FaultRule = Arc::new(move |op| {
        *into
            .lock()
            .expect("no thread panics under it")
            .entry(op.kind)
            .or_default() += 1;
        None
    });
    let checker = Arc::new(Checker::new(
        workload.setup.options(Faults::default()),
        effort(),
    ));
    let mut world = World::new(workload.name, seed, checker, Images::AfterFailure(0));
    world.plant(rule);
    (workload.run)(&mut world).expect("a good disk");
    counts.lock().expect("no thread panics under it").clone()
}

#[test]
fn a_failing_disk_loses_nothing_that_was_acknowledged() {
    if let Some((name, seed, rest)) = replayed() {
        let Some((name, plant)) = name.split_once('@') else {
            return;
        };
        let (workload, plant) = (named(name), Plant::parse(plant));
        let images = replayed_images(&rest).unwrap_or(Images::AfterFailure(40));
        let checker = Arc::new(Checker::new(
            workload.setup.options(Faults::default()),
            effort(),
        ));
        if let Some(broken) = run_failing(workload, seed, plant, images, &checker) {
            panic!("{broken}");
        }
        return;
    }
    let begun = Instant::now();
    let seeds: Vec<u64> = Seeds::new("failing", FAILING.len() as u64).collect();
    let mut plants = Vec::new();
    let mut checkers = Vec::new();
    for (workload, &seed) in FAILING.iter().zip(&seeds) {
        let counts = operations(workload, seed);
        println!("{}: {counts:?}", workload.name);
        let effort = Effort {
            torn: 2 * long_factor(),
            nested: 1000,
            after: 16,
            // A failed write may leave half a mark, which proves nothing.
            flip: u64::MAX,
            ..effort()
        };
        let checker = Arc::new(Checker::new(
            workload.setup.options(Faults::default()),
            effort,
        ));
        for &kind in KINDS {
            for nth in 0..counts.get(&kind).copied().unwrap_or(0) {
                for &looks in LOOKS {
                    plants.push((workload, seed, checkers.len(), Plant { kind, nth, looks }));
                }
            }
        }
        checkers.push(checker);
    }
    let broken: Mutex<Vec<Broken>> = Mutex::default();
    on_threads(plants.len(), |at| {
        let (workload, seed, checker, plant) = plants[at];
        let images = Images::AfterFailure(40);
        let outcome = run_failing(workload, seed, plant, images, &checkers[checker]);
        broken
            .lock()
            .expect("no thread panics under it")
            .extend(outcome);
    });
    let broken = broken.into_inner().expect("no thread panicked");
    let list: Vec<String> = broken.iter().take(10).map(ToString::to_string).collect();
    assert!(
        broken.is_empty(),
        "{} broken promises:\n{}",
        broken.len(),
        list.join("\n")
    );
    let sum = |of: fn(&Counts) -> &AtomicU64| -> u64 {
        checkers
            .iter()
            .map(|checker| Counts::get(of(&checker.counts)))
            .sum()
    };
    println!(
        "{} planted failures, {} states, {} distinct, {} reopenings, {:.1} s",
        plants.len(),
        sum(|c| &c.states),
        sum(|c| &c.distinct),
        sum(|c| &c.opened),
        begun.elapsed().as_secs_f64()
    );
}

fn run_failing(
    workload: &Workload,
    seed: u64,
    plant: Plant,
    images: Images,
    checker: &Arc<Checker>,
) -> Option<Broken> {
    let name = plant.name(workload.name);
    let mut world = World::new(&name, seed, Arc::clone(checker), images);
    world.plant(plant.rule());
    let outcome = (workload.run)(&mut world);
    let broken = match outcome {
        Ok(()) => checker.take_broken(),
        Err(broken) => Some(Broken(format!(
            "workload {name}, seed {seed:#x}: {broken}\n  replay: BASALT_CRASH='{name}/{seed:#x}' cargo test --test crash_recovery -- --nocapture"
        ))),
    };
    if broken.is_some() {
        // Closing it would wait for what is broken.
        std::mem::forget(world);
    }
    broken
}

/// What follows workload and seed in `BASALT_CRASH`: boundary and survival.
fn replayed_images(rest: &[String]) -> Option<Images> {
    let (boundary, how) = rest.split_first()?;
    Some(Images::Only(
        boundary.parse().expect("the boundary is a number"),
        how.first().map(|how| survival(how)),
    ))
}
