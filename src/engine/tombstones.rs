//! Range deletes, cut into pieces that do not overlap.
//!
//! A [`Tombstones`] never changes once made. Its fragments ascend and do not overlap; each keeps the
//! sequence numbers of all the range deletes over it, newest first, so that one binary search answers
//! a reader at any snapshot. Fragments that touch and carry the same numbers are one, so equal
//! coverage has one form however the deletes were cut before.
//!
//! Not here: what the deletes apply to. An entry is gone where `covering_seq` is above its own number.

use std::{
    cmp::{Ordering, Reverse},
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use crate::key::{RangeTombstone, SequenceNumber, key_prefix};

mod skyline;

pub(crate) use skyline::{Skyline, SkylineCursor, Skylines};

/// An immutable set of range deletes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tombstones {
    fragments: Vec<Fragment>,
    /// What all ends of fragments begin with, and of each the eight bytes behind that ([`key_prefix`]): a search looks at
    /// these, and at the fragments themselves only where they do not decide.
    common: Box<[u8]>,
    tails: Box<[u64]>,
}

/// The keys `start..end`, and the numbers of every range delete over all of them, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fragment {
    start: Box<[u8]>,
    end: Box<[u8]>,
    seqs: Box<[SequenceNumber]>,
}

impl Fragment {
    /// The newest range delete a reader at `at` sees.
    fn newest(&self, at: SequenceNumber) -> Option<SequenceNumber> {
        let visible = self.seqs.partition_point(|&seq| seq > at);
        self.seqs.get(visible).copied()
    }
}

/// A fragment as a reader at one sequence number sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cover<'a> {
    /// First key deleted.
    pub(crate) start: &'a [u8],
    /// First key after the fragment. A neighbour that begins here may go on deleting.
    pub(crate) end: &'a [u8],
    /// Newest visible range delete: older entries are gone.
    pub(crate) seq: SequenceNumber,
}

impl Tombstones {
    /// Cuts range deletes of any order and overlap into fragments. Empty ranges are left out.
    pub(crate) fn new(all: Vec<RangeTombstone>) -> Self {
        Self::cut(all, all_of)
    }

    /// The same for readers at `boundaries`, as [`merge_for`](Self::merge_for).
    pub(crate) fn new_for(all: Vec<RangeTombstone>, boundaries: &[SequenceNumber]) -> Self {
        assert!(boundaries.is_sorted(), "boundaries ascend");
        Self::cut(all, |open| told_apart(open, boundaries))
    }

    fn cut(mut all: Vec<RangeTombstone>, keep: impl Fn(&Open) -> Box<[SequenceNumber]>) -> Self {
        all.retain(|tombstone| tombstone.start < tombstone.end);
        let mut edges = Vec::with_capacity(all.len() * 2);
        for tombstone in &all {
            edges.push((tombstone.start.as_slice(), true, tombstone.seq));
            edges.push((tombstone.end.as_slice(), false, tombstone.seq));
        }
        edges.sort_unstable_by_key(|&(key, ..)| key);
        Self::of(sweep(&edges, keep))
    }

    fn of(fragments: Vec<Fragment>) -> Self {
        // Ends ascend: what the first and the last have in common, all have.
        let common: Box<[u8]> = match (fragments.first(), fragments.last()) {
            (Some(first), Some(last)) => {
                let same = first.end.iter().zip(&last.end).take_while(|(a, b)| a == b);
                first.end[..same.count()].into()
            }
            _ => Box::default(),
        };
        let tail = |fragment: &Fragment| key_prefix(&fragment.end[common.len()..]);
        Self {
            tails: fragments.iter().map(tail).collect(),
            fragments,
            common,
        }
    }

    /// The set of fragments that ascend, do not overlap, and have falling numbers, as a table stores
    /// them.
    pub(crate) fn from_fragments(
        given: impl IntoIterator<Item = (Box<[u8]>, Box<[u8]>, Box<[SequenceNumber]>)>,
    ) -> Self {
        let mut fragments: Vec<Fragment> = Vec::new();
        for (start, end, seqs) in given {
            debug_assert!(start < end && seqs.is_sorted_by(|a, b| a > b), "a fragment");
            match fragments.last_mut() {
                Some(last) if last.end == start && last.seqs == seqs => last.end = end,
                last => {
                    debug_assert!(
                        last.is_none_or(|last| last.end <= start),
                        "fragments ascend"
                    );
                    fragments.push(Fragment { start, end, seqs });
                }
            }
        }
        Self::of(fragments)
    }

    /// The set without a range delete, shared.
    pub(crate) fn empty() -> Arc<Self> {
        static EMPTY: LazyLock<Arc<Tombstones>> = LazyLock::new(Arc::default);
        Arc::clone(&EMPTY)
    }

    /// True where it deletes nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.fragments.is_empty()
    }

    /// Number of range deletes that [`all`](Self::all) gives.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.fragments.iter().map(|f| f.seqs.len()).sum()
    }

    /// Bytes of memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        let keys = self.fragments.iter().map(|f| f.start.len() + f.end.len());
        let fragments = self.fragments.len() * size_of::<Fragment>();
        let numbers: usize = self.fragments.iter().map(|f| f.seqs.len()).sum();
        fragments
            + numbers * size_of::<SequenceNumber>()
            + self.tails.len() * size_of::<u64>()
            + self.common.len()
            + keys.sum::<usize>()
    }

    /// The largest number at or below `at` of a range delete over `user_key`; zero if there is none.
    pub(crate) fn covering_seq(&self, user_key: &[u8], at: SequenceNumber) -> SequenceNumber {
        let Some(fragment) = self.fragments.get(self.first_ending_after(user_key)) else {
            return SequenceNumber::ZERO;
        };
        if user_key < &*fragment.start {
            return SequenceNumber::ZERO;
        }
        fragment.newest(at).unwrap_or(SequenceNumber::ZERO)
    }

    /// Every fragment once for each of its numbers: starts ascend, and within one the newest comes first.
    pub(crate) fn all(&self) -> impl Iterator<Item = RangeTombstone> {
        self.fragments.iter().flat_map(|fragment| {
            fragment.seqs.iter().map(|&seq| RangeTombstone {
                start: fragment.start.to_vec(),
                end: fragment.end.to_vec(),
                seq,
            })
        })
    }

    /// One set that deletes what any of `sets` deletes.
    #[cfg(test)]
    pub(crate) fn merge<'a>(sets: impl IntoIterator<Item = &'a Self>) -> Self {
        Self::of(sweep(&edges_of(sets), all_of))
    }

    /// As [`merge`](Self::merge), for readers at `boundaries`, which ascend, and above the last of
    /// them only. Of the numbers over one key that the same readers see, it keeps the newest, so that
    /// many deletes over each other cost no more than few.
    pub(crate) fn merge_for<'a>(
        sets: impl IntoIterator<Item = &'a Self>,
        boundaries: &[SequenceNumber],
    ) -> Self {
        assert!(boundaries.is_sorted(), "boundaries ascend");
        Self::of(sweep(&edges_of(sets), |open| told_apart(open, boundaries)))
    }

    /// Index of the first fragment that ends after `user_key`: the one over it, or the next.
    fn first_ending_after(&self, user_key: &[u8]) -> usize {
        let shared = self.common.len().min(user_key.len());
        match user_key[..shared].cmp(&self.common[..shared]) {
            Ordering::Less => return 0,
            Ordering::Greater => return self.fragments.len(),
            Ordering::Equal if shared < self.common.len() => return 0,
            Ordering::Equal => {}
        }
        let wanted = key_prefix(&user_key[shared..]);
        let from = self.tails.partition_point(|&tail| tail < wanted);
        let equal = self.tails[from..].partition_point(|&tail| tail == wanted);
        let same = &self.fragments[from..from + equal];
        from + same.partition_point(|fragment| &*fragment.end <= user_key)
    }

    /// The fragment over `user_key` with the newest number that a reader at `at` sees.
    pub(crate) fn cover(&self, user_key: &[u8], at: SequenceNumber) -> Option<Cover<'_>> {
        let fragment = self.fragments.get(self.first_ending_after(user_key))?;
        if user_key < &*fragment.start {
            return None;
        }
        let seq = fragment.newest(at)?;
        Some(Cover {
            start: &fragment.start,
            end: &fragment.end,
            seq,
        })
    }
}

/// Where a range delete starts (true) or ends.
type Edge<'a> = (&'a [u8], bool, SequenceNumber);

/// How many range deletes of each number are open at a place; newest first.
type Open = BTreeMap<Reverse<SequenceNumber>, usize>;

fn edges_of<'a>(sets: impl IntoIterator<Item = &'a Tombstones>) -> Vec<Edge<'a>> {
    let mut edges = Vec::new();
    for fragment in sets.into_iter().flat_map(|set| &set.fragments) {
        for &seq in &fragment.seqs {
            edges.push((&*fragment.start, true, seq));
            edges.push((&*fragment.end, false, seq));
        }
    }
    // The sets are each in order, which the stable sort finds and merges.
    edges.sort_by_key(|&(key, ..)| key);
    edges
}

/// Walks over starts and ends in key order, and emits a fragment with the numbers that `keep` takes of
/// the open ones wherever something is open.
fn sweep(edges: &[Edge<'_>], keep: impl Fn(&Open) -> Box<[SequenceNumber]>) -> Vec<Fragment> {
    let mut fragments: Vec<Fragment> = Vec::new();
    let mut open = Open::new();
    let mut rest = edges;
    while let Some(&(key, ..)) = rest.first() {
        let here = rest.iter().take_while(|&&(edge, ..)| edge == key).count();
        let (now, later) = rest.split_at(here);
        rest = later;
        for &(_, opens, seq) in now {
            let count = open.entry(Reverse(seq)).or_default();
            // Never below zero: what ends here started at an earlier edge.
            *count = if opens { *count + 1 } else { *count - 1 };
            if *count == 0 {
                open.remove(&Reverse(seq));
            }
        }
        if open.is_empty() {
            continue;
        }
        let &(end, ..) = rest.first().expect("what is open ends at a later edge");
        let seqs = keep(&open);
        match fragments.last_mut() {
            Some(last) if &*last.end == key && last.seqs == seqs => last.end = end.into(),
            _ => fragments.push(Fragment {
                start: key.into(),
                end: end.into(),
                seqs,
            }),
        }
    }
    fragments
}

/// All open numbers.
fn all_of(open: &Open) -> Box<[SequenceNumber]> {
    open.keys().map(|&Reverse(seq)| seq).collect()
}

/// The open numbers that some reader at a boundary, or any above the last, sees as the newest.
fn told_apart(open: &Open, boundaries: &[SequenceNumber]) -> Box<[SequenceNumber]> {
    let (&last, _) = boundaries
        .split_last()
        .unwrap_or((&SequenceNumber::ZERO, &[]));
    let above = open.range(..Reverse(last));
    let mut seqs: Vec<_> = above.map(|(&Reverse(seq), _)| seq).collect();
    let mut readers = boundaries;
    while let Some((&reader, older)) = readers.split_last()
        && let Some((&Reverse(seq), _)) = open.range(Reverse(reader)..).next()
    {
        seqs.push(seq);
        // The next to see another number are those below this one.
        readers = &older[..older.partition_point(|&older| older < seq)];
    }
    seqs.into()
}

/// Answers which fragment is over a key, for a reader at one sequence number. Cheap where the keys
/// asked for are near each other, as an iterator's are.
pub(crate) struct TombstoneCursor {
    set: Arc<Tombstones>,
    at: SequenceNumber,
    /// First fragment that ends after the last key asked for.
    here: usize,
}

impl TombstoneCursor {
    /// A cursor over what a reader at `at` sees of `set`.
    pub(crate) fn new(set: Arc<Tombstones>, at: SequenceNumber) -> Self {
        Self { set, at, here: 0 }
    }

    /// The fragment over `user_key` with its newest visible number; `None` where no visible range
    /// delete covers the key.
    pub(crate) fn covering(&mut self, user_key: &[u8]) -> Option<Cover<'_>> {
        let fragments = &self.set.fragments;
        if fragments.is_empty() {
            return None;
        }
        let ends_after = |index: usize| {
            fragments
                .get(index)
                .is_none_or(|fragment| user_key < &*fragment.end)
        };
        let first = |index: usize| index == 0 || !ends_after(index - 1);
        // The fragment of the last key, its neighbours, or else a search.
        let near = [self.here, self.here + 1, self.here.saturating_sub(1)];
        self.here = near
            .into_iter()
            .find(|&index| index <= fragments.len() && ends_after(index) && first(index))
            .unwrap_or_else(|| self.set.first_ending_after(user_key));
        let fragment = fragments.get(self.here)?;
        if user_key < &*fragment.start {
            return None;
        }
        let seq = fragment.newest(self.at)?;
        Some(Cover {
            start: &fragment.start,
            end: &fragment.end,
            seq,
        })
    }
}

#[cfg(test)]
mod tests;
