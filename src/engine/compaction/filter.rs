//! Which entries and range tombstones some reader, now or later, can still tell from their absence.
//!
//! Readers stand at boundaries: the sequence numbers of snapshots, and the one visible now. Between
//! two neighbouring boundaries lies a stripe, and of all that a stripe says of a key only the newest can be
//! seen. What is newer than the last boundary will be visible later, to readers not known yet, and is
//! always kept.

use crate::{
    key::{InternalKey, RangeTombstone, SequenceNumber, ValueKind},
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
    fn of(&self, seq: SequenceNumber) -> Option<(usize, SequenceNumber)> {
        let index = self.0.partition_point(|&boundary| boundary < seq);
        self.0.get(index).map(|&reader| (index, reader))
    }
}

/// Decides entry by entry, in the order of internal keys.
pub(super) struct EntryFilter<'a> {
    stripes: &'a Stripes,
    /// Every range tombstone of the inputs.
    tombstones: &'a Tombstones,
    user_key: Vec<u8>,
    /// Stripe of the version of `user_key` seen last.
    stripe: Option<usize>,
    started: bool,
}

impl<'a> EntryFilter<'a> {
    pub(super) fn new(stripes: &'a Stripes, tombstones: &'a Tombstones) -> Self {
        Self {
            stripes,
            tombstones,
            user_key: Vec::new(),
            stripe: None,
            started: false,
        }
    }

    /// True where `key` belongs to another user key than the one before.
    pub(super) fn is_new_key(&mut self, key: InternalKey<'_>) -> bool {
        if self.started && self.user_key == key.user_key {
            return false;
        }
        self.started = true;
        self.user_key.clear();
        self.user_key.extend_from_slice(key.user_key);
        self.stripe = None;
        true
    }

    /// True where the entry has to be kept. `is_bottom` answers whether nothing older of its user key lies
    /// below the outputs; it is asked only where that decides.
    pub(super) fn is_needed(
        &mut self,
        key: InternalKey<'_>,
        is_bottom: impl FnOnce() -> bool,
    ) -> bool {
        let Some((stripe, reader)) = self.stripes.of(key.seq()) else {
            return true;
        };
        if self.stripe == Some(stripe) {
            return false; // hidden by a newer version in the same stripe
        }
        self.stripe = Some(stripe);
        if !self.tombstones.is_empty()
            && self.tombstones.covering_seq(key.user_key, reader) > key.seq()
        {
            return false;
        }
        let is_dead_delete = key.kind() == Some(ValueKind::Delete) && stripe == 0 && is_bottom();
        !is_dead_delete
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
