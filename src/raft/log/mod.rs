//! A node's log: the stable part in storage, the unstable tail in memory, and how far it is
//! committed, handed out for application, and applied.
//!
//! ```text
//!   compacted | applied | applying | committed | ... last
//!             ^ first_index
//! ```
//!
//! Not here: who decides what is committed, and terms of elections.

#[cfg(test)]
mod tests;
mod unstable;

use std::{fmt, sync::Arc};

use basalt_proto::eraftpb::{Entry, Snapshot};

use crate::{
    Config, Logger, Result, Storage, StorageError,
    logger::info,
    message::{ENTRY_OVERHEAD, entries_size, is_conf_change},
};
use unstable::Unstable;

/// What became of a leader's append.
pub(crate) enum Appended {
    /// The log agrees with the leader's up to this index.
    To(u64),
    /// The log has not the entry before.
    NoMatch,
    /// An entry below the commit index disagrees at this index.
    ConflictsWithCommitted(u64),
}

/// The log. Invariant: `applied <= applying <= committed <= last_index`.
pub struct RaftLog<S> {
    storage: S,
    unstable: Unstable,
    /// Known to be on a quorum.
    committed: u64,
    /// Handed out to be applied.
    applying: u64,
    /// Acknowledged as applied.
    applied: u64,
    /// Index and term of the last entry, or of the snapshot in its place.
    last: (u64, u64),
    /// Bytes handed out and not acknowledged as applied.
    applying_bytes: u64,
    /// Nothing more is handed out until something is acknowledged.
    applying_paused: bool,
    max_applying_bytes: u64,
    logger: Option<Arc<dyn Logger>>,
}

/// The longest prefix of `entries` within `max_bytes`; at least one.
fn limited(entries: &[Entry], max_bytes: u64) -> &[Entry] {
    if max_bytes == u64::MAX || entries.is_empty() {
        return entries;
    }
    let mut bytes = 0;
    let fits = entries.iter().take_while(|entry| {
        bytes += entry.data.len() as u64 + ENTRY_OVERHEAD;
        bytes <= max_bytes
    });
    &entries[..fits.count().max(1)]
}

/// Whether a storage's answer begins with what was asked for, and has not more. A wrong one would
/// be applied, sent on, or asked for again for ever.
fn check_answer(entries: &[Entry], low: u64, high: u64) -> Result<(), StorageError> {
    let first = entries.first().map(|entry| entry.index);
    let last = entries.last().map(|entry| entry.index);
    let count = entries.len() as u64;
    if first == Some(low) && last == Some(low + count - 1) && count <= high - low {
        return Ok(());
    }
    let what = format!(
        "asked for the entries {low}..{high}, the storage gave {count}, from {first:?} to {last:?}"
    );
    Err(StorageError::Other(what.into()))
}

impl<S: Storage> RaftLog<S> {
    /// The log that `storage` has; committed and applied as far as it is compacted.
    pub(crate) fn new(storage: S, config: &Config) -> Result<Self> {
        let first = storage.first_index()?;
        let last = storage.last_index()?;
        if first == 0 || last + 1 < first {
            let what = format!("a log from {first} to {last}");
            return Err(StorageError::Other(what.into()).into());
        }
        let last_term = storage.term(last)?;
        Ok(Self {
            unstable: Unstable::new(last + 1, config.logger.clone()),
            committed: first - 1,
            applying: first - 1,
            applied: first - 1,
            last: (last, last_term),
            applying_bytes: 0,
            applying_paused: false,
            max_applying_bytes: config.max_committed_size_per_ready,
            logger: config.logger.clone(),
            storage,
        })
    }

    pub(crate) fn storage(&self) -> &S {
        &self.storage
    }

    pub(crate) fn into_storage(self) -> S {
        self.storage
    }

    pub(crate) fn storage_mut(&mut self) -> &mut S {
        &mut self.storage
    }

    /// Up to where the log is known to be on a quorum.
    pub fn committed(&self) -> u64 {
        self.committed
    }

    /// Up to where entries were handed out to be applied.
    pub fn applying(&self) -> u64 {
        self.applying
    }

    /// Up to where entries are acknowledged as applied.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// The index of the last entry.
    pub fn last_index(&self) -> u64 {
        self.last.0
    }

    /// The term of the last entry.
    pub fn last_term(&self) -> u64 {
        self.last.1
    }

    /// The index of the first entry that is not compacted.
    ///
    /// # Errors
    ///
    /// Those of [`Storage::first_index`].
    pub fn first_index(&self) -> Result<u64, StorageError> {
        match self.unstable.snapshot_id() {
            Some((index, _)) => Ok(index + 1),
            None => self.storage.first_index(),
        }
    }

    /// The term of the entry at `index`.
    ///
    /// # Errors
    ///
    /// Those of [`Storage::term`].
    pub fn term(&self, index: u64) -> Result<u64, StorageError> {
        if index == self.last.0 {
            return Ok(self.last.1);
        }
        if index > self.last.0 {
            return Err(StorageError::Unavailable);
        }
        if let Some(term) = self.unstable.term(index) {
            return Ok(term);
        }
        if index + 1 < self.first_index()? {
            return Err(StorageError::Compacted);
        }
        self.storage.term(index)
    }

    /// The term at `index`, `None` where the log has no such entry (any more).
    pub(crate) fn known_term(&self, index: u64) -> Result<Option<u64>, StorageError> {
        match self.term(index) {
            Ok(term) => Ok(Some(term)),
            Err(StorageError::Compacted | StorageError::Unavailable) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the log has an entry at `index` of `term`.
    pub(crate) fn matches(&self, index: u64, term: u64) -> Result<bool, StorageError> {
        Ok(self.known_term(index)? == Some(term))
    }

    /// Whether a log that ends in (`index`, `term`) has everything that this one may have committed.
    pub(crate) fn is_up_to_date(&self, index: u64, term: u64) -> bool {
        (term, index) >= (self.last.1, self.last.0)
    }

    /// The entries of `low..high`, cut short at `max_bytes`; at least one.
    ///
    /// # Errors
    ///
    /// Those of [`Storage::entries`].
    pub fn entries(&self, low: u64, high: u64, max_bytes: u64) -> Result<Vec<Entry>, StorageError> {
        if high > self.last.0 + 1 {
            return Err(StorageError::Unavailable);
        }
        if low >= high {
            return Ok(Vec::new());
        }
        let offset = self.unstable.offset;
        if low >= offset {
            return Ok(limited(self.unstable.slice(low, high), max_bytes).to_vec());
        }
        if low < self.first_index()? {
            return Err(StorageError::Compacted);
        }
        let cut = high.min(offset);
        let mut entries = self.storage.entries(low, cut, max_bytes)?;
        check_answer(&entries, low, cut)?;
        if high <= offset || (entries.len() as u64) < cut - low {
            return Ok(entries);
        }
        let bytes = entries_size(&entries);
        if bytes >= max_bytes {
            return Ok(entries);
        }
        let room = max_bytes - bytes;
        let tail = limited(self.unstable.slice(offset, high), room);
        if tail.len() > 1 || entries_size(tail) <= room {
            entries.extend_from_slice(tail);
        }
        Ok(entries)
    }

    /// From `index` downwards the first index whose term is at most `term`, and its term; 0 for a
    /// term that is compacted. Above it the log cannot agree with one that has `term` at `index`.
    /// At `floor` the logs are known to agree: the search ends there.
    pub(crate) fn last_index_of_term_up_to(
        &self,
        index: u64,
        term: u64,
        floor: u64,
    ) -> Result<(u64, u64), StorageError> {
        let mut index = index;
        while index > 0 {
            if index <= floor {
                return Ok((index, self.known_term(index)?.unwrap_or(0)));
            }
            match self.known_term(index)? {
                None => return Ok((index, 0)),
                Some(ours) if ours <= term => return Ok((index, ours)),
                Some(_) => index -= 1,
            }
        }
        Ok((0, 0))
    }

    /// A leader's entries behind (`index`, `term`), and its commit index.
    pub(crate) fn maybe_append(
        &mut self,
        index: u64,
        term: u64,
        mut entries: Vec<Entry>,
        leader_commit: u64,
    ) -> Result<Appended, StorageError> {
        if !self.matches(index, term)? {
            return Ok(Appended::NoMatch);
        }
        let last_new = index + entries.len() as u64;
        if let Some(conflict) = self.find_conflict(&entries)? {
            if conflict <= self.committed {
                return Ok(Appended::ConflictsWithCommitted(conflict));
            }
            let known = usize::try_from(conflict - index - 1).expect("entries in memory");
            if known > 0 {
                entries.drain(..known);
            }
            self.append(entries);
        }
        self.commit_to(leader_commit.min(last_new));
        Ok(Appended::To(last_new))
    }

    /// The index of the first of `entries` that the log has not.
    fn find_conflict(&self, entries: &[Entry]) -> Result<Option<u64>, StorageError> {
        for entry in entries {
            if entry.index > self.last.0 {
                return Ok(Some(entry.index));
            }
            let known = self.known_term(entry.index)?;
            if known != Some(entry.term) {
                info!(
                    self.logger,
                    "found conflict at index {} [existing term: {}, conflicting term: {}]",
                    entry.index,
                    known.unwrap_or(0),
                    entry.term
                );
                return Ok(Some(entry.index));
            }
        }
        Ok(None)
    }

    /// Appends `entries`, which replace everything from the first one's index on.
    pub(crate) fn append(&mut self, entries: Vec<Entry>) {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return;
        };
        assert!(
            first.index > self.committed,
            "entries from {} on would replace committed ones, up to {}",
            first.index,
            self.committed
        );
        self.last = (last.index, last.term);
        self.unstable.truncate_and_append(entries);
    }

    /// Appends one entry behind the last one.
    pub(crate) fn push(&mut self, entry: Entry) {
        debug_assert_eq!(entry.index, self.last.0 + 1);
        self.last = (entry.index, entry.term);
        self.unstable.push(entry);
    }

    /// Everything up to `index`, which the log has, is committed.
    pub(crate) fn commit_to(&mut self, index: u64) {
        if index > self.committed {
            assert!(
                index <= self.last.0,
                "commit of {index} beyond the last index {}",
                self.last.0
            );
            self.committed = index;
        }
    }

    /// The log is replaced by `snapshot` at `index` of `term`.
    pub(crate) fn restore(&mut self, index: u64, term: u64, snapshot: Snapshot) {
        info!(
            self.logger,
            "log [{self}] starts to restore snapshot [index: {index}, term: {term}]"
        );
        self.committed = index;
        self.last = (index, term);
        self.unstable.restore(index, snapshot);
        // What was handed out to be applied is overtaken, and perhaps never acknowledged.
        self.applying_bytes = 0;
        self.applying_paused = false;
    }

    /// Entries to be written that were not handed out.
    pub(crate) fn next_unstable(&self) -> &[Entry] {
        self.unstable.next_entries()
    }

    pub(crate) fn next_snapshot(&self) -> Option<&Snapshot> {
        self.unstable.next_snapshot()
    }

    /// Whether a snapshot waits to be written or applied.
    pub(crate) fn has_snapshot(&self) -> bool {
        self.unstable.snapshot.is_some()
    }

    /// Whether entries wait for storage's acknowledgement.
    pub(crate) fn has_unstable(&self) -> bool {
        !self.unstable.entries.is_empty()
    }

    pub(crate) fn accept_unstable(&mut self) {
        self.unstable.accept_in_progress();
    }

    pub(crate) fn stable_to(&mut self, index: u64, term: u64) {
        self.unstable.stable_to(index, term);
    }

    pub(crate) fn stable_snapshot_to(&mut self, index: u64) {
        self.unstable.stable_snapshot_to(index);
    }

    fn max_appliable(&self, unstable_too: bool) -> u64 {
        if unstable_too {
            self.committed
        } else {
            self.committed.min(self.unstable.offset - 1)
        }
    }

    /// Whether committed entries may be handed out.
    pub(crate) fn has_next_committed(&self, unstable_too: bool) -> bool {
        !self.applying_paused
            && !self.has_snapshot()
            && self.applying < self.max_appliable(unstable_too)
    }

    /// The committed entries to be handed out next.
    pub(crate) fn next_committed(&self, unstable_too: bool) -> Result<Vec<Entry>, StorageError> {
        if !self.has_next_committed(unstable_too) {
            return Ok(Vec::new());
        }
        let room = self.max_applying_bytes - self.applying_bytes;
        assert!(room > 0, "not paused, and no room for entries to apply");
        let high = self.max_appliable(unstable_too) + 1;
        self.entries(self.applying + 1, high, room)
    }

    /// Entries up to `index` of `bytes` bytes were handed out to be applied.
    pub(crate) fn accept_applying(&mut self, index: u64, bytes: u64, unstable_too: bool) {
        assert!(
            index <= self.committed,
            "applying {index}, committed {}",
            self.committed
        );
        self.applying = index;
        self.applying_bytes += bytes;
        // The limit is reached, or the next entry would pass it: what was handed out was cut short.
        self.applying_paused = self.applying_bytes >= self.max_applying_bytes
            || index < self.max_appliable(unstable_too);
    }

    /// Entries up to `index` of `bytes` bytes are applied.
    pub(crate) fn applied_to(&mut self, index: u64, bytes: u64) {
        assert!(
            self.applied <= index && index <= self.committed,
            "applied {index}, before {}, committed {}",
            self.applied,
            self.committed
        );
        self.applied = index;
        self.applying = self.applying.max(index);
        self.applying_bytes = self.applying_bytes.saturating_sub(bytes);
        self.applying_paused = self.applying_bytes >= self.max_applying_bytes;
    }

    /// Whether a membership change is committed and not applied; a snapshot that waits is one.
    pub(crate) fn has_unapplied_conf_change(&self) -> Result<bool, StorageError> {
        if self.has_snapshot() {
            return Ok(true);
        }
        let mut low = self.applied + 1;
        while low <= self.committed {
            let page = self.entries(low, self.committed + 1, self.max_applying_bytes)?;
            if page.iter().any(is_conf_change) {
                return Ok(true);
            }
            low += page.len() as u64;
        }
        Ok(false)
    }

    /// A snapshot for the node `to`.
    pub(crate) fn snapshot(&self, to: u64) -> Result<Snapshot, StorageError> {
        match &self.unstable.snapshot {
            Some(snapshot) => Ok(snapshot.clone()),
            None => self.storage.snapshot(to),
        }
    }

    pub(crate) fn check(&self) {
        let Self {
            applied,
            applying,
            committed,
            last,
            ..
        } = self;
        assert!(
            applied <= applying && applying <= committed && *committed <= last.0,
            "applied {applied}, applying {applying}, committed {committed}, last {}",
            last.0
        );
        self.unstable.check();
        let end = self.unstable.offset + self.unstable.entries.len() as u64;
        assert_eq!(last.0 + 1, end, "last index and the unstable tail");
        if let Some(term) = self.unstable.term(last.0) {
            assert_eq!(last.1, term, "term of the last entry");
        }
    }
}

impl<S> fmt::Display for RaftLog<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "committed={}, applied={}, applying={}, unstable.offset={}, unstable.offsetInProgress={}, len(unstable.Entries)={}",
            self.committed,
            self.applied,
            self.applying,
            self.unstable.offset,
            self.unstable.offset_in_progress,
            self.unstable.entries.len()
        )
    }
}
