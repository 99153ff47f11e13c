//! Every decoder over its kept corpus, and over mutations of it, on a stable toolchain: no panic, no large piece of memory,
//! and what the bodies of the fuzz targets demand (`src/engine/fuzz.rs` and its kin).
//!
//! `BASALT_LONG=n` runs n times as many mutations; `BASALT_SEED=0x...` replays the mutations of one decoder.
//! `BASALT_DECODER=name` takes one decoder alone. New inputs come from `fuzz/run`.

#![expect(unsafe_code, reason = "an allocator that takes note of sizes")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::Instant,
};

use basalt_testkit::{Rng, Seeds, long_factor};

/// Mutations of each decoder's corpus.
const MUTATIONS: u64 = 4_000;
/// The same of decoders that open a whole database for each.
const SLOW_MUTATIONS: u64 = 400;
/// Largest piece of memory that any decoder may ask for; no input is longer than a few KiB.
const MOST: usize = 4 << 20;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

struct Noting;

fn note(bytes: usize) {
    // Gone only while the thread ends.
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(bytes)));
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Noting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's promise is handed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's promise is handed on.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
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

type Body = fn(&[u8]) -> bool;

fn targets() -> Vec<(&'static str, Body)> {
    let engine = basalt_engine::testing::fuzz::TARGETS.into_iter();
    let all = engine.chain(basalt_raftstore::fuzz::TARGETS);
    let all = all.chain(basalt_server::fuzz::TARGETS);
    let only = std::env::var("BASALT_DECODER").ok();
    all.filter(|(name, _)| only.as_ref().is_none_or(|only| only == name))
        .collect()
}

fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let folder = folder.join(name);
    let files = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<_> = files
        .map(|file| file.expect("a local file system").path())
        .collect();
    paths.sort();
    let read = |path: PathBuf| {
        let bytes = fs::read(&path).expect("a file of this repository");
        (path, bytes)
    };
    paths.into_iter().map(read).collect()
}

/// Runs a body; whether it took the bytes.
fn run(name: &str, body: Body, what: &str, data: &[u8]) -> bool {
    LARGEST.set(0);
    let taken = catch_unwind(AssertUnwindSafe(|| body(data)));
    let Ok(taken) = taken else {
        panic!("decoder {name} panics on {what}: {data:02x?}");
    };
    let largest = LARGEST.get();
    assert!(
        largest <= MOST,
        "decoder {name} takes a piece of {largest} bytes for {what}: {data:02x?}"
    );
    taken
}

/// Changes an input as a fuzzer would.
fn mutate(rng: &mut Rng, data: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..=rng.index(4) {
        let at = rng.index(data.len() + 1);
        match rng.below(9) {
            0 => data.truncate(at),
            1 => data.insert(at, rng.byte()),
            2 if at < data.len() => drop(data.remove(at)),
            3 if at < data.len() => data[at] ^= 1 << rng.below(8),
            4 if at < data.len() => data[at] = *rng.pick(&[0, 1, 0x7f, 0x80, 0xff]),
            5 => {
                let from = rng.index(other.len() + 1);
                data.truncate(at);
                data.extend_from_slice(&other[from..]);
            }
            6 => {
                let end = (at + rng.index(9)).min(data.len());
                let number = *rng.pick(&[0, 1, u64::MAX, 1 << 32, (1 << 56) - 1, 1 << 63]);
                data.splice(at..end, number.to_le_bytes());
            }
            7 => {
                let end = (at + rng.index(16)).min(data.len());
                let again = data[at..end].to_vec();
                data.splice(at..at, again);
            }
            _ => data.push(rng.byte()),
        }
    }
    data.truncate(8 << 10);
}

#[test]
fn every_decoder_takes_its_corpus_and_survives_mutations_of_it() {
    for (name, body) in targets() {
        let begun = Instant::now();
        let corpus = corpus(name);
        assert!(!corpus.is_empty(), "{name} has a corpus");
        let mut taken = 0;
        for (path, data) in &corpus {
            taken += u64::from(run(name, body, &path.display().to_string(), data));
        }
        let kept = taken;
        let each = if name == "directory" {
            SLOW_MUTATIONS
        } else {
            MUTATIONS
        };
        let count = each * long_factor();
        let seed = Seeds::new(&format!("fuzz {name}"), 1).next().expect("one");
        let mut rng = Rng::new(seed);
        for number in 0..count {
            let mut data = rng.pick(&corpus).1.clone();
            let other = rng.pick(&corpus).1.clone();
            mutate(&mut rng, &mut data, &other);
            let what = format!("mutation {number} of seed {seed:#x}");
            taken += u64::from(run(name, body, &what, &data));
        }
        let refused = corpus.len() as u64 + count - taken;
        println!(
            "{name:<14} {:4} kept ({kept} taken), {count} mutations; {taken} taken, {refused} refused; {:.2} s",
            corpus.len(),
            begun.elapsed().as_secs_f64()
        );
        assert!(kept > 0, "{name} takes nothing of its corpus");
        assert!(refused > 0, "{name} refuses nothing");
    }
}
