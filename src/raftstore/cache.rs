//! `EntryCache`: the newest entries of a log in memory, within a budget of bytes.
//!
//! It holds a tail: whatever it has reaches up to the last index. What is not published yet it has
//! in any case, as nobody else does.

use std::collections::VecDeque;

use basalt_raft::{ENTRY_OVERHEAD, eraftpb::Entry};

#[derive(Debug)]
pub(crate) struct EntryCache {
    entries: VecDeque<Entry>,
    bytes: usize,
    budget: usize,
}

impl EntryCache {
    pub(crate) fn new(budget: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            bytes: 0,
            budget,
        }
    }

    /// Index of its oldest entry.
    pub(crate) fn first(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.index)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The entries at hand from `low` on, in order.
    pub(crate) fn from(&self, low: u64) -> impl Iterator<Item = &Entry> {
        let first = self.first().unwrap_or(low);
        let skip = usize::try_from(low.saturating_sub(first)).unwrap_or(usize::MAX);
        self.entries.iter().skip(skip)
    }

    pub(crate) fn get(&self, index: u64) -> Option<&Entry> {
        let place = index.checked_sub(self.first()?)?;
        self.entries.get(usize::try_from(place).ok()?)
    }

    /// Appends entries, which replace everything from the first one's index on.
    pub(crate) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        while let Some(last) = self.entries.pop_back_if(|last| last.index >= first.index) {
            self.bytes -= weight(&last);
        }
        self.bytes += entries.iter().map(weight).sum::<usize>();
        self.entries.extend(entries.iter().cloned());
    }

    /// Drops the oldest entries below `pinned` until the budget is kept.
    pub(crate) fn shrink(&mut self, pinned: u64) {
        while self.bytes > self.budget && self.pop_below(pinned) {}
    }

    /// Drops the entries up to `index`.
    pub(crate) fn compact(&mut self, index: u64) {
        while self.pop_below(index + 1) {}
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }

    fn pop_below(&mut self, end: u64) -> bool {
        let popped = self.entries.pop_front_if(|entry| entry.index < end);
        self.bytes -= popped.as_ref().map_or(0, weight);
        popped.is_some()
    }
}

/// Bytes that an entry takes, about.
fn weight(entry: &Entry) -> usize {
    entry.data.len() + usize::try_from(ENTRY_OVERHEAD).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(indexes: std::ops::Range<u64>) -> Vec<Entry> {
        let entry = |index| Entry {
            index,
            data: vec![0; 76].into(),
            ..Entry::default()
        };
        indexes.map(entry).collect()
    }

    #[test]
    fn the_budget_takes_the_oldest_and_spares_what_is_pinned() {
        let mut cache = EntryCache::new(250);
        cache.append(&entries(6..12));
        assert_eq!(cache.bytes(), 600);
        cache.shrink(8);
        assert_eq!((cache.first(), cache.bytes()), (Some(8), 400));
        cache.shrink(12);
        assert_eq!((cache.first(), cache.bytes()), (Some(10), 200));
    }

    #[test]
    fn a_replaced_tail_is_gone_and_the_count_of_bytes_follows() {
        let mut cache = EntryCache::new(10_000);
        cache.append(&entries(6..12));
        cache.append(&entries(9..10));
        assert_eq!(
            cache.from(0).map(|e| e.index).collect::<Vec<_>>(),
            [6, 7, 8, 9]
        );
        assert_eq!(cache.from(8).map(|e| e.index).collect::<Vec<_>>(), [8, 9]);
        assert!(cache.get(10).is_none() && cache.get(5).is_none() && cache.get(9).is_some());
        cache.append(&entries(4..5));
        assert_eq!((cache.first(), cache.bytes()), (Some(4), 100));
        cache.compact(4);
        assert_eq!((cache.first(), cache.bytes()), (None, 0));
    }
}
