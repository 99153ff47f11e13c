//! Memory: what the kernel says of the process, and what the engines account for.
//!
//! The allocator is the system's, and tells nobody what is held by whom: there are no call stacks of allocations here. What
//! the engines count and what the kernel counts are shown side by side; the difference is runtime, connections, buffers and
//! what the allocator keeps.

use std::fs;

use serde::Serialize;

use super::engine::MemoryJson;
use crate::storage::Storage;

const NOTE: &str = "The system's allocator does not tell who holds what: anonymous memory less what the engines account for \
                    is the runtime, connections, buffers of running work, and what the allocator keeps for later.";

#[derive(Debug, Serialize)]
pub(super) struct Memory {
    /// What the kernel says, in bytes; null where it does not.
    process: Process,
    engines: Vec<EngineMemory>,
    note: &'static str,
}

#[derive(Debug, Default, Serialize)]
struct Process {
    /// Pages in memory, of files or not.
    resident: Option<u64>,
    /// Of these, pages that are no file's: what the process has allocated.
    anonymous: Option<u64>,
    /// Of these, pages of mapped files; the kernel takes them back when it needs room.
    file: Option<u64>,
    swapped: Option<u64>,
    /// Most that was resident.
    peak: Option<u64>,
    threads: Option<u64>,
    open_files: Option<usize>,
}

#[derive(Debug, Serialize)]
struct EngineMemory {
    name: &'static str,
    memory: MemoryJson,
}

/// As it is now. Blocks while the kernel counts.
pub(super) fn look(storage: &dyn Storage) -> Memory {
    let mut engines = Vec::new();
    storage.engines(&mut |view| {
        engines.push(EngineMemory {
            name: view.name,
            memory: view.db.memory_stats().into(),
        });
    });
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    Memory {
        process: process(&status, &rollup),
        engines,
        note: NOTE,
    }
}

/// The number behind `name:`; the kernel's `kB` are KiB.
fn field(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines();
    let rest = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let mut words = rest.split_whitespace();
    let number: u64 = words.next()?.parse().ok()?;
    Some(match words.next() {
        Some("kB") => number * 1024,
        _ => number,
    })
}

fn process(status: &str, rollup: &str) -> Process {
    Process {
        resident: field(status, "VmRSS"),
        anonymous: field(rollup, "Anonymous").or_else(|| field(status, "RssAnon")),
        file: field(status, "RssFile"),
        swapped: field(status, "VmSwap"),
        peak: field(status, "VmHWM"),
        threads: field(status, "Threads"),
        open_files: fs::read_dir("/proc/self/fd").ok().map(Iterator::count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_read() {
        let status =
            "Name:\tbasalt\nVmHWM:\t  200 kB\nVmRSS:\t  100 kB\nRssAnon:\t  60 kB\nThreads:\t7\n";
        let process = process(status, "55aa rollup\nRss: 100 kB\nAnonymous:     64 kB\n");
        assert_eq!(process.anonymous, Some(64 * 1024));
        assert_eq!(
            (process.resident, process.peak),
            (Some(102_400), Some(204_800))
        );
        assert_eq!((process.threads, process.swapped), (Some(7), None));
        assert_eq!(super::process(status, "").anonymous, Some(60 * 1024));
    }
}
