//! Which stripes there are between readers, and which range tombstones some reader can still tell from their absence.
//!
//! Readers stand at boundaries: the sequence numbers of snapshots, and the one visible now. Between
//! two neighbouring boundaries lies a stripe, and of all that a stripe says of a key only the newest can be
//! seen. What is newer than the last boundary will be visible later, to readers not known yet, and is
//! always kept.

use crate::{
    key::{RangeTombstone, SequenceNumber},
    tombstones::Tombstones,
    version::KeySpan,
};

/// The stripes between boundaries.
#[derive(Clone, Debug)]
pub(crate) struct Stripes(Vec<SequenceNumber>);

impl Stripes {
    /// `boundaries` ascend; the last is the number visible now.
    pub(crate) fn new(boundaries: &[SequenceNumber]) -> Self {
        assert!(boundaries.is_sorted(), "boundaries ascend");
        Self(boundaries.to_vec())
    }

    /// Index of the stripe of `seq`, and the boundary that ends it: the first reader that sees it. `None` above
    /// the last boundary.
    pub(super) fn of(&self, seq: SequenceNumber) -> Option<(usize, SequenceNumber)> {
        let index = self.0.partition_point(|&boundary| boundary < seq);
        self.0.get(index).map(|&reader| (index, reader))
    }
}

/// The range tombstones that have to be kept: of each fragment the newest of each stripe, and none of the
/// oldest stripe where `is_bottom` says that nothing older lies below the outputs.
pub(super) fn needed_tombstones(
    all: &Tombstones,
    stripes: &Stripes,
    is_bottom: impl Fn(KeySpan<'_>) -> bool,
) -> Vec<RangeTombstone> {
    let mut kept: Vec<RangeTombstone> = Vec::new();
    let mut last: Option<(Vec<u8>, usize)> = None;
    for tombstone in all.all() {
        let Some((stripe, _)) = stripes.of(tombstone.seq) else {
            kept.push(tombstone);
            continue;
        };
        let place = (tombstone.start.clone(), stripe);
        if last.as_ref() == Some(&place) {
            continue;
        }
        last = Some(place);
        let span = KeySpan {
            start: &tombstone.start,
            end: std::ops::Bound::Excluded(&tombstone.end),
        };
        if stripe > 0 || !is_bottom(span) {
            kept.push(tombstone);
        }
    }
    kept
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
