//! The tail of the log that storage has not acknowledged yet, and a snapshot that it has not.
//!
//! ```text
//!   storage                unstable.entries
//!   ... o o o | a a a a a a a a | b b b b b
//!             offset            offset_in_progress
//! ```
//!
//! `a` was handed out to be written, `b` not yet. What storage acknowledges leaves from the front,
//! unless it was replaced meanwhile. Not here: what is committed.

use std::sync::Arc;

use basalt_proto::eraftpb::{Entry, Snapshot};

use crate::{Logger, logger::info};

/// Invariants: `entries` are contiguous from `offset` on; `offset <= offset_in_progress <=
/// offset + entries.len()`; with a snapshot, `offset` is at least its index + 1.
pub(crate) struct Unstable {
    /// To be written before any entry.
    pub(crate) snapshot: Option<Snapshot>,
    /// Whether `snapshot` was handed out.
    pub(crate) snapshot_in_progress: bool,
    pub(crate) entries: Vec<Entry>,
    /// The index of the first of `entries`, or the one that a first would get.
    pub(crate) offset: u64,
    /// The index of the first entry that was not handed out.
    pub(crate) offset_in_progress: u64,
    logger: Option<Arc<dyn Logger>>,
}

impl Unstable {
    pub(crate) fn new(offset: u64, logger: Option<Arc<dyn Logger>>) -> Self {
        Self {
            snapshot: None,
            snapshot_in_progress: false,
            entries: Vec::new(),
            offset,
            offset_in_progress: offset,
            logger,
        }
    }

    /// Index and term of the snapshot.
    pub(crate) fn snapshot_id(&self) -> Option<(u64, u64)> {
        let metadata = self.snapshot.as_ref()?.metadata.as_ref()?;
        Some((metadata.index, metadata.term))
    }

    fn place(&self, index: u64) -> usize {
        usize::try_from(index - self.offset).expect("entries in memory")
    }

    /// The term at `index`, if it is known here.
    pub(crate) fn term(&self, index: u64) -> Option<u64> {
        if index < self.offset {
            let (snapshot, term) = self.snapshot_id()?;
            return (snapshot == index).then_some(term);
        }
        self.entries.get(self.place(index)).map(|entry| entry.term)
    }

    /// The entries of `low..high`, which are all here.
    pub(crate) fn slice(&self, low: u64, high: u64) -> &[Entry] {
        &self.entries[self.place(low)..self.place(high)]
    }

    /// The entries that were not handed out.
    pub(crate) fn next_entries(&self) -> &[Entry] {
        &self.entries[self.place(self.offset_in_progress)..]
    }

    /// The snapshot, if it was not handed out.
    pub(crate) fn next_snapshot(&self) -> Option<&Snapshot> {
        let snapshot = self.snapshot.as_ref();
        snapshot.filter(|_| !self.snapshot_in_progress)
    }

    /// Everything is handed out.
    pub(crate) fn accept_in_progress(&mut self) {
        self.offset_in_progress = self.offset + self.entries.len() as u64;
        self.snapshot_in_progress = self.snapshot.is_some();
    }

    /// Storage has acknowledged the entries up to `index`, of `term`. An acknowledgement of entries
    /// that were replaced since counts for nothing.
    pub(crate) fn stable_to(&mut self, index: u64, term: u64) {
        let Some(known) = self.term(index) else {
            info!(
                self.logger,
                "entry at index {index} missing from unstable log; ignoring"
            );
            return;
        };
        if index < self.offset {
            info!(
                self.logger,
                "entry at index {index} matched unstable snapshot; ignoring"
            );
            return;
        }
        if known != term {
            info!(
                self.logger,
                "entry at (index,term)=({index},{term}) mismatched with entry at ({index},{known}) in unstable log; ignoring"
            );
            return;
        }
        if index >= self.offset_in_progress {
            info!(
                self.logger,
                "entry at index {index} was not handed out to be written; ignoring"
            );
            return;
        }
        let stable = self.place(index) + 1;
        if stable == self.entries.len() {
            self.entries.clear();
        } else {
            self.entries.drain(..stable);
        }
        self.offset = index + 1;
        self.offset_in_progress = self.offset_in_progress.max(self.offset);
        self.shrink();
    }

    /// Storage has acknowledged the snapshot at `index`.
    pub(crate) fn stable_snapshot_to(&mut self, index: u64) {
        if self.snapshot_id().is_some_and(|(at, _)| at == index) {
            self.snapshot = None;
            self.snapshot_in_progress = false;
        }
    }

    /// Everything is replaced by `snapshot` at `index`.
    pub(crate) fn restore(&mut self, index: u64, snapshot: Snapshot) {
        self.offset = index + 1;
        self.offset_in_progress = self.offset;
        self.entries.clear();
        self.snapshot = Some(snapshot);
        self.snapshot_in_progress = false;
    }

    /// Appends `entries`, not none, which replace everything from the first one's index on.
    pub(crate) fn truncate_and_append(&mut self, mut entries: Vec<Entry>) {
        let first = entries[0].index;
        let end = self.offset + self.entries.len() as u64;
        if first == end {
            // The usual case: they follow.
        } else if first <= self.offset {
            info!(
                self.logger,
                "replace the unstable entries from index {first}"
            );
            self.entries.clear();
            self.offset = first;
            self.offset_in_progress = first;
        } else {
            info!(
                self.logger,
                "truncate the unstable entries before index {first}"
            );
            let kept = self.place(first);
            self.entries.truncate(kept);
            self.offset_in_progress = self.offset_in_progress.min(first);
        }
        if self.entries.is_empty() && self.entries.capacity() < entries.len() {
            self.entries = entries;
        } else {
            self.entries.append(&mut entries);
        }
    }

    /// Appends one entry behind the last one.
    pub(crate) fn push(&mut self, entry: Entry) {
        debug_assert_eq!(entry.index, self.offset + self.entries.len() as u64);
        self.entries.push(entry);
    }

    /// Gives memory back once a burst is over.
    fn shrink(&mut self) {
        /// Entries that may stay allocated whatever is used.
        const KEPT: usize = 4_096;
        if self.entries.capacity() > KEPT && self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to(KEPT.max(self.entries.len() * 2));
        }
    }

    pub(crate) fn check(&self) {
        let end = self.offset + self.entries.len() as u64;
        assert!(
            self.offset <= self.offset_in_progress && self.offset_in_progress <= end,
            "offset {}, in progress {}, end {end}",
            self.offset,
            self.offset_in_progress
        );
        if let (Some(first), Some(last)) = (self.entries.first(), self.entries.last()) {
            assert_eq!(first.index, self.offset, "first unstable entry");
            assert_eq!(last.index, end - 1, "last unstable entry");
        }
        if let Some((index, _)) = self.snapshot_id() {
            assert!(self.offset > index, "entries at or below the snapshot");
        }
        assert!(
            self.snapshot.is_some() || !self.snapshot_in_progress,
            "a snapshot in progress that is none"
        );
    }
}
