//! Ranges of user keys whose end may be in or out, borrowed and owned.

use std::{cmp::Ordering, ops::Bound};

/// The user keys from `start` to `end`; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeySpan<'a> {
    /// First key; empty: from the first one on.
    pub(crate) start: &'a [u8],
    /// Last key, or the first one after.
    pub(crate) end: Bound<&'a [u8]>,
}

impl<'a> KeySpan<'a> {
    /// Every key.
    #[cfg(test)]
    pub(crate) const ALL: KeySpan<'static> = KeySpan {
        start: &[],
        end: Bound::Unbounded,
    };

    /// True where all of the span lies before `key`.
    pub(crate) fn ends_before(self, key: &[u8]) -> bool {
        match self.end {
            Bound::Included(end) => end < key,
            Bound::Excluded(end) => end <= key,
            Bound::Unbounded => false,
        }
    }

    /// True where `key` is in it.
    pub(crate) fn contains(self, key: &[u8]) -> bool {
        self.start <= key && !self.ends_before(key)
    }

    /// True where the two have a key in common (as far as their ends tell).
    pub(crate) fn overlaps(self, other: KeySpan<'_>) -> bool {
        !self.ends_before(other.start) && !other.ends_before(self.start)
    }

    /// The same, owned.
    pub(crate) fn to_range(self) -> KeyRange {
        KeyRange {
            start: self.start.to_vec(),
            end: self.end.map(<[u8]>::to_vec),
        }
    }

    /// The smallest span that covers all of `spans`; `None` for none.
    pub(crate) fn hull(spans: impl IntoIterator<Item = KeySpan<'a>>) -> Option<KeySpan<'a>> {
        spans.into_iter().reduce(|a, b| KeySpan {
            start: a.start.min(b.start),
            end: if cmp_ends(a.end, b.end).is_ge() {
                a.end
            } else {
                b.end
            },
        })
    }
}

/// Which end is further: an excluded key ends just before the same key included.
fn cmp_ends(a: Bound<&[u8]>, b: Bound<&[u8]>) -> Ordering {
    let rank = |end| match end {
        Bound::Excluded(key) => (0, key, 0),
        Bound::Included(key) => (0, key, 1),
        Bound::Unbounded => (1, &[][..], 0),
    };
    rank(a).cmp(&rank(b))
}

/// A [`KeySpan`] that owns its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyRange {
    pub(crate) start: Vec<u8>,
    pub(crate) end: Bound<Vec<u8>>,
}

impl KeyRange {
    /// The same, borrowed.
    pub(crate) fn span(&self) -> KeySpan<'_> {
        KeySpan {
            start: &self.start,
            end: self.end.as_ref().map(Vec::as_slice),
        }
    }
}
