//! The engine against a model: a million random operations over random options.
//!
//! Each case is a database from its creation to its last check, with every operation there is drawn at random and
//! each answer compared with plain maps. Most cases run on the simulated disk and executor, where a seed gives
//! the same run; some on the real disk with threads; and one test lets threads of writers and readers loose.
//! Afterwards the counts of what happened must reach their minima, so that a run that says little fails.
//!
//! `BASALT_SEED=0x...` replays one case, as a failure prints it; `BASALT_LONG=n` runs `n` times as many.

#[path = "model/choose.rs"]
mod choose;
#[path = "model/counts.rs"]
mod counts;
#[path = "model/reads.rs"]
mod reads;
#[path = "model/restart.rs"]
mod restart;
#[path = "model/threads.rs"]
mod threads;
#[path = "model/whole.rs"]
mod whole;
#[path = "model/world.rs"]
mod world;
#[path = "model/writes.rs"]
mod writes;

use std::{sync::Mutex, thread, time::Instant};

use basalt_testkit::{Replay, Rng, Seeds, long_factor};
use counts::Counts;
use world::{Place, World};

/// Databases on the simulated disk, and operations of each.
const SIM_CASES: u64 = 320;
const SIM_OPERATIONS: u64 = 4_000;
/// The same on the real disk.
const REAL_CASES: u64 = 12;
const REAL_OPERATIONS: u64 = 1_500;
/// Databases under threads, and writes of each of three writers.
const THREAD_CASES: u64 = 8;
const THREAD_WRITES: u64 = 2_000;

#[test]
fn a_million_random_operations_agree_with_the_model() {
    let start = Instant::now();
    let sim = Seeds::new("model sim", SIM_CASES * long_factor());
    let real = Seeds::new("model real", REAL_CASES * long_factor());
    let is_replay = sim.is_replay();
    // The lowest bit says which disk, so that a seed is all that a replay needs.
    let cases: Vec<u64> = if is_replay {
        sim.collect()
    } else {
        sim.map(|seed| seed & !1)
            .chain(real.map(|seed| seed | 1))
            .collect()
    };
    let cases = Mutex::new(cases);
    let total = Mutex::new(Counts::default());
    let work = || {
        loop {
            let next = cases.lock().expect("no panic holds it").pop();
            let Some(seed) = next else { break };
            let begun = Instant::now();
            let counts = run_case(seed);
            if std::env::var_os("BASALT_VERBOSE").is_some() {
                let took = begun.elapsed().as_secs_f64();
                println!("case {seed:#x}: {took:.2} s, {} flushes", counts.flushes);
            }
            total.lock().expect("no panic holds it").add(&counts);
        }
    };
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(work);
        }
    });
    let total = total.into_inner().expect("no panic holds it");
    println!("{total}{:>12.1}  seconds", start.elapsed().as_secs_f64());
    if !is_replay {
        let few = total.too_few();
        assert!(few.is_empty(), "too little happened: {few:#?}");
    }
}

#[test]
fn readers_beside_writers_flush_and_compaction_see_one_moment_and_never_go_back() {
    let start = Instant::now();
    let seeds = Seeds::new("model threads", THREAD_CASES * long_factor());
    let is_replay = seeds.is_replay();
    let mut total = threads::Report::default();
    for seed in seeds {
        let test = "readers_beside_writers_flush_and_compaction_see_one_moment_and_never_go_back";
        let _replay = Replay::new("--test model", test, seed);
        let report = threads::run(seed, seed & 1 == 0, THREAD_WRITES);
        if std::env::var_os("BASALT_VERBOSE").is_some() {
            println!("case {seed:#x}: {report:?}");
        }
        total.add(&report);
    }
    println!("{total:?}, {:.1} seconds", start.elapsed().as_secs_f64());
    if !is_replay {
        let threads::Report {
            writes,
            reads,
            snapshots,
            iterators,
            copies,
            drops,
            flushes,
            compactions,
        } = total;
        assert_eq!(writes, 3 * THREAD_WRITES * THREAD_CASES * long_factor());
        assert!(
            reads >= 5_000 && snapshots >= 100 && iterators >= 100,
            "few reads"
        );
        assert!(
            flushes >= 100 && compactions >= 100,
            "little happened beside them"
        );
        assert!(copies >= 5 && drops >= 5, "little was maintained");
    }
}

/// One database from its creation to its last check.
fn run_case(seed: u64) -> Counts {
    let test = "a_million_random_operations_agree_with_the_model";
    let _replay = Replay::new("--test model", test, seed);
    let mut rng = Rng::new(seed);
    let (place, operations) = if seed & 1 == 0 {
        (Place::sim(rng.next_u64()), SIM_OPERATIONS)
    } else {
        (Place::real(), REAL_OPERATIONS)
    };
    let mut world = World::new(rng, place);
    for _ in 0..operations {
        operation(&mut world);
        world.counts.operations += 1;
    }
    world.finish()
}

/// Draws an operation and does it.
fn operation(world: &mut World) {
    match world.rng.below(10_000) {
        0..20 => world.create_or_drop(),
        20..35 => {
            let at = world.rng.index(world.families.len());
            world.change_options(at);
        }
        35..55 => world.refusals(),
        55..72 => world.restart(),
        72..77 => world.verify(),
        77..82 => world.compare_all(),
        82..88 => world.checkpoint(),
        88..100 => world.settle_all(),
        _ => plain_operation(world),
    }
}

/// The same without those that end a database or change its families.
fn plain_operation(world: &mut World) {
    match world.rng.below(1_000) {
        0..250 => world.put(),
        250..300 => world.merge(),
        300..380 => world.delete(),
        380..400 => world.delete_range(),
        400..460 => world.write_batch(),
        460..500 => world.submit(),
        500..540 => world.settle_one(),
        540..680 => world.get(),
        680..740 => world.get_at(),
        740..770 => world.multi_get(),
        770..790 => world.iterator(),
        790..905 => world.move_iterator(),
        905..920 => world.range(),
        920..940 => world.snapshot(),
        940..989 => world.run_jobs(),
        989..993 => world.flush(),
        993..995 => world.compact_range(),
        _ => world.ingest(),
    }
}
