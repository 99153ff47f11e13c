//! How often each operation was done, and how long the slowest took.

use std::{
    fmt,
    time::{Duration, Instant},
};

/// An operation that is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Put,
    SyncedPut,
    Delete,
    RangeDelete,
    Batch,
    Get,
    GetAtSnapshot,
    ScanForward,
    ScanBackward,
    Snapshot,
    Append,
    TruncateFront,
    TruncateBack,
    GetEntry,
    Flush,
    Compact,
    Checkpoint,
    Verify,
}

const KINDS: [(Kind, &str, u64); 18] = [
    (Kind::Put, "put", 2000),
    (Kind::SyncedPut, "put, synced", 5),
    (Kind::Delete, "delete", 500),
    (Kind::RangeDelete, "range delete", 10),
    (Kind::Batch, "batch over families", 100),
    (Kind::Get, "get", 2000),
    (Kind::GetAtSnapshot, "get at a snapshot", 50),
    (Kind::ScanForward, "scan of 100 forward", 50),
    (Kind::ScanBackward, "scan of 100 backward", 50),
    (Kind::Snapshot, "snapshot", 10),
    (Kind::Append, "append", 200),
    (Kind::TruncateFront, "truncate front", 20),
    (Kind::TruncateBack, "truncate back", 5),
    (Kind::GetEntry, "get of an entry", 100),
    (Kind::Flush, "flush of all", 0),
    (Kind::Compact, "compact range", 0),
    (Kind::Checkpoint, "checkpoint and its check", 0),
    (Kind::Verify, "verify", 0),
];

/// The first kind that waits by contract.
const MAINTENANCE: usize = Kind::Flush as usize;

/// Counts and longest times by kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    kinds: [(u64, Duration, Duration); KINDS.len()],
}

impl Figures {
    /// Does `work` and takes note of its time.
    pub(crate) fn time<R>(&mut self, kind: Kind, work: impl FnOnce() -> R) -> R {
        let begun = Instant::now();
        let result = work();
        let took = begun.elapsed();
        let (count, longest, sum) = &mut self.kinds[kind as usize];
        *count += 1;
        *longest = (*longest).max(took);
        *sum += took;
        result
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (own, more) in self.kinds.iter_mut().zip(&other.kinds) {
            own.0 += more.0;
            own.1 = own.1.max(more.1);
            own.2 += more.2;
        }
    }

    /// The longest of those that do not wait by contract.
    pub(crate) fn longest(&self) -> Duration {
        let own = self.kinds[..MAINTENANCE].iter();
        own.map(|kind| kind.1).max().unwrap_or_default()
    }

    /// What happened too seldom to mean anything.
    pub(crate) fn too_few(&self) -> Vec<String> {
        let all = KINDS.iter().zip(&self.kinds);
        let few = all.filter(|((_, _, least), (count, ..))| count < least);
        few.map(|((_, name, least), (count, ..))| format!("{name}: {count}, at least {least}"))
            .collect()
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((kind, name, _), (count, longest, sum)) in KINDS.iter().zip(&self.kinds) {
            debug_assert_eq!(KINDS[*kind as usize].1, *name, "in the order of the kinds");
            let mean = sum.as_secs_f64() * 1e6
                / f64::from(u32::try_from(*count).unwrap_or(u32::MAX).max(1));
            writeln!(
                f,
                "{count:>10}  {name:<26} mean {mean:>10.1} us, longest {:>9.3} ms",
                longest.as_secs_f64() * 1e3
            )?;
        }
        Ok(())
    }
}
