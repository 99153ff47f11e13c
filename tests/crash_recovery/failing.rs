//! Failing disks: a short workload is run once for every operation of the disk that can fail, and it does.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::Instant,
};

use basalt_engine::{
    Faults,
    fs::sim::{Failure, FaultRule, OpKind, fail_range},
};
use basalt_testkit::{Seeds, long_factor};

use crate::{
    check::{Broken, Checker, Counts, Effort},
    runner::{effort, on_threads, replayed, replayed_images},
    shared::Images,
    workloads::{FAILING, Workload, named},
    world::World,
};

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

/// Broken promises after which no more are looked for.
const ENOUGH: usize = 10;

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
        if broken.lock().expect("no thread panics under it").len() >= ENOUGH {
            return;
        }
        let (workload, seed, checker, plant) = plants[at];
        let images = Images::AfterFailure(40);
        let outcome = run_failing(workload, seed, plant, images, &checkers[checker]);
        broken
            .lock()
            .expect("no thread panics under it")
            .extend(outcome);
    });
    let broken = broken.into_inner().expect("no thread panicked");
    let list: Vec<String> = broken.iter().map(ToString::to_string).collect();
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
