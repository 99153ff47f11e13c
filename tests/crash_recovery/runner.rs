//! Running workloads: effort, seeds, threads, and the replay of one image.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use basalt_engine::{Faults, fs::sim::Survival};
use basalt_testkit::long_factor;

use crate::{
    check::{Broken, Checker, Effort},
    shared::{Event, Images},
    workloads::Workload,
    world::World,
};

/// Threads that take workloads from the list.
pub(crate) const THREADS: usize = 2;

/// What one run of a workload came to.
pub(crate) struct Outcome {
    pub(crate) broken: Option<Broken>,
    pub(crate) events: BTreeMap<Event, u64>,
    pub(crate) boundaries: u64,
    pub(crate) checker: Arc<Checker>,
}

pub(crate) fn effort() -> Effort {
    Effort {
        torn: 9 * long_factor(),
        nested: 80,
        nested_again: 50,
        after: 4,
        flip: 4,
    }
}

pub(crate) fn run(
    workload: &Workload,
    seed: u64,
    faults: Faults,
    effort: Effort,
    images: Images,
) -> Outcome {
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
pub(crate) fn replayed() -> Option<(String, u64, Vec<String>)> {
    let text = std::env::var("BASALT_CRASH").ok()?;
    let mut parts = text.split('/').map(str::to_owned);
    let name = parts.next().expect("a split has a first part");
    let seed = hex(&parts.next().expect("BASALT_CRASH names a seed"));
    Some((name, seed, parts.collect()))
}

pub(crate) fn hex(text: &str) -> u64 {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).expect("a number in hex")
}

pub(crate) fn survival(text: &str) -> Survival {
    match text {
        "lose" => Survival::LoseUnsynced,
        "keep" => Survival::KeepAll,
        "death" => Survival::ProcessDeath,
        seed => Survival::Random { seed: hex(seed) },
    }
}

/// Runs `work` for every index below `count`, on two threads.
pub(crate) fn on_threads(count: usize, work: impl Fn(usize) + Sync) {
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

/// What follows workload and seed in `BASALT_CRASH`: boundary and survival.
pub(crate) fn replayed_images(rest: &[String]) -> Option<Images> {
    let (boundary, how) = rest.split_first()?;
    Some(Images::Only(
        boundary.parse().expect("the boundary is a number"),
        how.first().map(|how| survival(how)),
    ))
}
