//! Damage: every single bit of every file of a small store is flipped, every file is cut at every length, and files,
//! blocks and records are swapped, repeated, removed, or replaced by their older selves.
//!
//! Whatever is done, the answer is an error that names the file, or everything read is right: never a wrong or
//! missing row, a panic, a hang, or a huge allocation. In both states of the store (killed, closed) everything
//! was durable and the mark written, so for most damage it is known which of the two must come, and that is demanded.
//! The run prints what it did, by kind of file. Everything is in memory and deterministic.
//!
//! Not here: damage of what was never durable, which cannot be told from tearing (`crash_recovery`).

#![expect(unsafe_code, reason = "an allocator that takes note of sizes")]

#[path = "corruption/cases.rs"]
mod cases;
#[path = "corruption/damage.rs"]
mod damage;
#[path = "corruption/examine.rs"]
mod examine;
#[path = "corruption/hostile.rs"]
mod hostile;
#[path = "corruption/run.rs"]
mod run;
#[path = "corruption/store.rs"]
mod store;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicU64, Ordering},
};

use basalt_engine::{Fault, fs::ReadMode};
use cases::{Case, Change, Image};
use examine::{Depth, Outcome, examine};
use run::Tally;

struct Noting;

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Noting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        examine::note_allocation(layout.size());
        // SAFETY: the caller's promise is handed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        examine::note_allocation(layout.size());
        // SAFETY: the caller's promise is handed on.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        examine::note_allocation(size);
        // SAFETY: the caller's promise is handed on.
        unsafe { System.realloc(ptr, layout, size) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is handed on.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Noting = Noting;

const MODES: [ReadMode; 2] = [ReadMode::Mapped, ReadMode::Pread];

/// Reading in `mode`; every `offline`th case is checked by `verify_dir` too, every `go_on`th goes through flush,
/// compaction and a reopen.
fn depth(mode: ReadMode, index: usize, offline: usize, go_on: usize) -> Depth {
    Depth {
        mode,
        fault: Fault::None,
        offline: index.is_multiple_of(offline),
        go_on: index.is_multiple_of(go_on),
    }
}

/// Runs listed cases, in both read modes and deep.
fn run_list(name: &str, image: &Image<'_>, cases: &[Case]) -> Tally {
    let mut tally = Tally::default();
    for mode in MODES {
        let go_on = if cases.len() > 2000 { 7 } else { 1 };
        let deep = |index| depth(mode, index, 1, go_on);
        tally.add(&run::run(name, image, cases.len(), deep, |index| {
            cases[index].clone()
        }));
    }
    tally
}

fn images(store: &store::Store) -> [Image<'_>; 2] {
    examine::watch_panics();
    let images = [
        Image::new("killed", &store.killed, store),
        Image::new("closed", &store.closed, store),
    ];
    for image in &images {
        assert!(image.total() <= 64 << 10, "the store is small");
        let outcome = examine(
            &image.damaged(&Change::All(Vec::new())),
            image.truth,
            depth(ReadMode::Mapped, 0, 1, 1),
        );
        assert!(
            matches!(outcome, Ok(Outcome::NoEffect)),
            "undamaged: {outcome:?}"
        );
    }
    images
}

/// Demands that every kind of file was reached, and that of each kind that matters every case was noticed.
fn assert_reached(tally: &Tally, kinds: &[&str]) {
    for state in ["killed", "closed"] {
        for kind in kinds {
            let count = tally.0.get(&(state, *kind)).copied().unwrap_or_default();
            assert!(count.cases > 0, "no case of {kind}, {state}");
        }
    }
}

/// Every bit of every file, in both states. Tables are read in both modes; what open alone reads is read the same
/// way in both.
#[test]
fn every_flipped_bit_is_noticed_or_does_no_harm() {
    let store = store::live();
    let mut all = Tally::default();
    for image in images(&store) {
        let mut places = Vec::new();
        for (file, (_, bytes)) in image.files.iter().enumerate() {
            places.extend((0..bytes.len()).map(|at| (file, at)));
        }
        let tables: Vec<_> = places
            .iter()
            .copied()
            .filter(|(file, _)| image.kind(*file) == "table")
            .collect();
        for (mode, places) in [(ReadMode::Mapped, &places), (ReadMode::Pread, &tables)] {
            let deep = |index| depth(mode, index, 53, 331);
            let tally = run::run("flips", &image, places.len() * 8, deep, |index| {
                let (file, at) = places[index / 8];
                let mask = 1 << (index % 8);
                Case::new(&image, file, Change::Flip { file, at, mask }, at)
            });
            let done: u64 = tally.0.values().map(|count| count.cases).sum();
            assert_eq!(done, places.len() as u64 * 8, "no bit is left out");
            all.add(&tally);
        }
        println!(
            "{}: {} files, {} bytes, {} bits, each flipped",
            image.name,
            image.files.len(),
            image.total(),
            image.total() * 8
        );
    }
    println!("{all}");
    assert_reached(
        &all,
        &["CURRENT", "MANIFEST", "MARK", "RESERVE", "log", "table"],
    );
    let sum = all.total();
    assert!(sum.cases >= 400_000 && sum.refused >= 80_000 && sum.read + sum.verified >= 200_000);
}

#[test]
fn every_cut_of_every_file_is_noticed_or_does_no_harm() {
    let store = store::live();
    let mut all = Tally::default();
    for image in images(&store) {
        let mut places = Vec::new();
        for (file, (_, bytes)) in image.files.iter().enumerate() {
            places.extend((0..bytes.len()).map(|len| (file, len)));
        }
        for mode in MODES {
            let deep = |index| depth(mode, index, 7, 31);
            all.add(&run::run("cuts", &image, places.len(), deep, |index| {
                let (file, len) = places[index];
                Case::new(&image, file, Change::Cut { file, len }, len)
            }));
        }
    }
    println!("{all}");
    assert_reached(
        &all,
        &["CURRENT", "MANIFEST", "MARK", "RESERVE", "log", "table"],
    );
}

#[test]
fn whole_files_removed_lengthened_swapped_or_older_are_noticed_or_do_no_harm() {
    let store = store::live();
    let mut all = Tally::default();
    for image in images(&store) {
        for (name, cases) in [
            ("removed", damage::removed(&image)),
            ("lengthened", damage::lengthened(&image)),
            ("swapped", damage::swapped(&image)),
            ("older", damage::older(&image, &store)),
        ] {
            assert!(cases.len() >= image.files.len(), "{name}: {}", cases.len());
            all.add(&run_list(name, &image, &cases));
        }
    }
    println!("{all}");
    assert_reached(
        &all,
        &[
            "CURRENT", "LOCK", "MANIFEST", "MARK", "RESERVE", "log", "table",
        ],
    );
}

#[test]
fn blocks_records_and_sectors_out_of_place_are_noticed() {
    let store = store::live();
    let mut all = Tally::default();
    for image in images(&store) {
        for (name, least, cases) in [
            ("blocks", 400, damage::blocks(&image)),
            ("records", 400, damage::records(&image)),
            ("sectors", 100, damage::sectors(&image)),
            ("stale areas", 100, damage::stale(&image)),
        ] {
            assert!(cases.len() >= least, "{name}: {}", cases.len());
            all.add(&run_list(name, &image, &cases));
        }
    }
    println!("{all}");
    assert_reached(
        &all,
        &["CURRENT", "MANIFEST", "MARK", "RESERVE", "log", "table"],
    );
}

/// An engine that takes any bad record as the end of the log loses rows here, and the examination says so.
#[test]
fn an_engine_that_cuts_the_log_at_any_bad_record_is_found_out() {
    let store = store::live();
    for image in images(&store) {
        let mut lies = 0;
        let mut cases = 0;
        for (file, (path, _)) in image.files.iter().enumerate() {
            let end = image.live.get(path).copied().unwrap_or(0);
            for at in (0..end).step_by(97) {
                let disk = image.damaged(&Change::Flip { file, at, mask: 4 });
                let depth = Depth {
                    fault: Fault::CutBelowSynced,
                    ..depth(ReadMode::Mapped, 1, 2, 2)
                };
                cases += 1;
                lies += u32::from(examine(&disk, image.truth, depth).is_err());
            }
        }
        println!("{}: {lies} lies of {cases}", image.name);
        assert!(cases >= 40 && lies * 2 > cases, "{lies} lies of {cases}");
    }
}

/// Wrong bytes under right checksums: nothing to tell them by, and nothing breaks.
#[test]
fn wrong_bytes_under_right_checksums_break_nothing() {
    let store = store::live();
    let [image, _] = images(&store);
    {
        for (name, least, cases) in [
            ("hostile headers", 200, hostile::headers(&image)),
            ("hostile records", 10_000, hostile::records(&image)),
            ("hostile tables", 15_000, hostile::tables(&image)),
        ] {
            assert!(cases.len() >= least, "{name}: {}", cases.len());
            let noticed = AtomicU64::new(0);
            run::run_with(
                name,
                &image,
                cases.len(),
                |index| cases[index].clone(),
                |index, case| {
                    let well = hostile::endure(&image.damaged(&case.change), MODES[index % 2])?;
                    noticed.fetch_add(u64::from(!well), Ordering::Relaxed);
                    Ok(Outcome::NoEffect)
                },
            );
            println!("  {} noticed", noticed.into_inner());
        }
    }
}
