//! Runs of many seeds on all cores, and of one again to tell what happened in it.

use std::{
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex, Once,
        atomic::{AtomicUsize, Ordering},
    },
};

use basalt_raft::Fault;

use super::{
    counts::Counts,
    invariants::{Invariant, Violation},
    plan::Plan,
    world::World,
};

/// Events that a failure prints.
const SHOWN: usize = 100;

/// A run that is over.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// What did not hold.
    pub(crate) violation: Option<Violation>,
    /// A hash over all events.
    pub(crate) hash: u64,
    /// What happened.
    pub(crate) counts: Counts,
    /// The last events, if they were kept.
    pub(crate) text: String,
}

thread_local! {
    static RUNNING: Cell<bool> = const { Cell::new(false) };
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A panic within a run is a finding, told with the run's events, and not a failure of its own.
fn keep_panics_of_runs() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if RUNNING.get() {
                PANIC.set(info.to_string());
            } else {
                usual(info);
            }
        }));
    });
}

/// The run of a seed; keeps the text of the last `kept` events.
pub(crate) fn run(seed: u64, fault: Fault, kept: usize) -> Outcome {
    keep_panics_of_runs();
    let mut world = World::new(Plan::new(seed, fault), kept);
    RUNNING.set(true);
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    RUNNING.set(false);
    let violation = match result {
        Ok(result) => result.err(),
        Err(_) => {
            let what = PANIC.take();
            Some(Violation::new(Invariant::NoPanic, what))
        }
    };
    Outcome {
        violation,
        hash: world.trace.hash(),
        counts: world.counts,
        text: world.trace.text(),
    }
}

/// Runs all seeds, in order, until one breaks something. Returns the sums over the runs, and the
/// first seed that does, with its place.
pub(crate) fn run_all(seeds: &[u64], fault: Fault) -> (Counts, Option<(usize, Violation)>) {
    let next = AtomicUsize::new(0);
    let limit = AtomicUsize::new(seeds.len());
    let sums = Mutex::new((Counts::default(), Option::<(usize, Violation)>::None));
    let work = || {
        let mut counts = Counts::default();
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            // Whatever comes before the first one found so far is still looked at.
            if place >= limit.load(Ordering::Relaxed) {
                break;
            }
            let outcome = run(seeds[place], fault, 0);
            counts.add(&outcome.counts);
            if let Some(violation) = outcome.violation {
                limit.fetch_min(place, Ordering::Relaxed);
                let mut sums = sums.lock().expect("no run panics here");
                if sums.1.as_ref().is_none_or(|(first, _)| place < *first) {
                    sums.1 = Some((place, violation));
                }
            }
        }
        sums.lock().expect("no run panics here").0.add(&counts);
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    sums.into_inner().expect("no run panics here")
}

/// What happened in the run of a seed that breaks something.
pub(crate) fn story(seed: u64, fault: Fault) -> String {
    let shown = std::env::var("BASALT_EVENTS").ok();
    let shown = shown.and_then(|shown| shown.parse().ok()).unwrap_or(SHOWN);
    let Outcome {
        violation, text, ..
    } = run(seed, fault, shown);
    let plan = Plan::new(seed, fault);
    let configs: Vec<String> = plan.nodes.iter().map(|node| format!("{node:?}")).collect();
    let Some(Violation { invariant, what }) = violation else {
        return format!("seed {seed:#x}: nothing is broken\n{text}");
    };
    format!(
        "seed {seed:#x} breaks: {invariant}\n{what}\n\nthe last events:\n{text}\n\nthe nodes:\n{}\n{plan:?}",
        configs.join("\n")
    )
}
