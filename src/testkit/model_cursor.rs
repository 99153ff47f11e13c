//! A cursor over the model: each move is one lookup in the map, so there is nothing in it to be wrong.

use std::{
    ops::Bound::{self, Excluded, Included, Unbounded},
    sync::Arc,
};

use crate::model::{Map, Value};

/// The keys that a cursor is limited to: from `lower` on, before `upper`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// First key.
    pub lower: Option<Vec<u8>>,
    /// First key after the last.
    pub upper: Option<Vec<u8>>,
}

impl Bounds {
    /// The keys that begin with `prefix`.
    #[must_use]
    pub fn prefix(prefix: &[u8]) -> Self {
        // Above every key with the prefix is the prefix with its last byte that can grow grown.
        let upper = (0..prefix.len()).rev().find_map(|at| {
            let grown = prefix[at].checked_add(1)?;
            Some([&prefix[..at], &[grown]].concat())
        });
        Self {
            lower: Some(prefix.to_vec()),
            upper,
        }
    }

    /// True where `key` is within.
    #[must_use]
    pub fn contain(&self, key: &[u8]) -> bool {
        self.lower.as_deref().is_none_or(|lower| lower <= key)
            && self.upper.as_deref().is_none_or(|upper| key < upper)
    }
}

/// Where a cursor stands in one state of a family.
#[derive(Clone, Debug)]
pub struct ModelCursor {
    map: Arc<Map>,
    bounds: Bounds,
    at: Option<Vec<u8>>,
}

impl ModelCursor {
    /// A cursor over `map` within `bounds`, not positioned.
    #[must_use]
    pub fn new(map: Arc<Map>, bounds: Bounds) -> Self {
        Self {
            map,
            bounds,
            at: None,
        }
    }

    /// The entry it stands on.
    #[must_use]
    pub fn entry(&self) -> Option<(&[u8], &Value)> {
        let (key, value) = self.map.get_key_value(self.at.as_ref()?)?;
        Some((key, value))
    }

    /// To the first entry.
    pub fn seek_to_first(&mut self) {
        self.at = self.first(Unbounded);
    }

    /// To the last entry.
    pub fn seek_to_last(&mut self) {
        self.at = self.last(Unbounded);
    }

    /// To the first entry at or after `key`.
    pub fn seek(&mut self, key: &[u8]) {
        self.at = self.first(Included(key));
    }

    /// To the last entry at or before `key`.
    pub fn seek_for_prev(&mut self, key: &[u8]) {
        self.at = self.last(Included(key));
    }

    /// To the next entry, where it stands on one.
    pub fn next(&mut self) {
        if let Some(key) = self.at.take() {
            self.at = self.first(Excluded(&key));
        }
    }

    /// To the previous entry, where it stands on one.
    pub fn prev(&mut self) {
        if let Some(key) = self.at.take() {
            self.at = self.last(Excluded(&key));
        }
    }

    /// All entries within the bounds, in order.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = (&Vec<u8>, &Value)> {
        let from = self.bounds.lower.as_deref().map_or(Unbounded, Included);
        let to = self.bounds.upper.as_deref().map_or(Unbounded, Excluded);
        let is_empty = match (&self.bounds.lower, &self.bounds.upper) {
            (Some(lower), Some(upper)) => lower >= upper,
            _ => false,
        };
        let range = if is_empty {
            (Unbounded, Excluded(&[][..]))
        } else {
            (from, to)
        };
        self.map.range::<[u8], _>(range)
    }

    /// First key from `from` on that is within the bounds.
    fn first(&self, from: Bound<&[u8]>) -> Option<Vec<u8>> {
        let lower = self.bounds.lower.as_deref();
        let from = match from {
            Included(key) | Excluded(key) if lower.is_some_and(|lower| key < lower) => {
                lower.map_or(Unbounded, Included)
            }
            Unbounded => lower.map_or(Unbounded, Included),
            from => from,
        };
        let (key, _) = self.map.range::<[u8], _>((from, Unbounded)).next()?;
        self.bounds.contain(key).then(|| key.clone())
    }

    /// Last key up to `to` that is within the bounds.
    fn last(&self, to: Bound<&[u8]>) -> Option<Vec<u8>> {
        let upper = self.bounds.upper.as_deref();
        let to = match to {
            Included(key) | Excluded(key) if upper.is_some_and(|upper| key >= upper) => {
                upper.map_or(Unbounded, Excluded)
            }
            Unbounded => upper.map_or(Unbounded, Excluded),
            to => to,
        };
        let (key, _) = self.map.range::<[u8], _>((Unbounded, to)).next_back()?;
        self.bounds.contain(key).then(|| key.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(lower: Option<&str>, upper: Option<&str>) -> ModelCursor {
        let keys = ["b", "d", "f", "h"];
        let map = keys
            .iter()
            .map(|k| (k.as_bytes().to_vec(), Value::from([])));
        let bounds = Bounds {
            lower: lower.map(Into::into),
            upper: upper.map(Into::into),
        };
        ModelCursor::new(Arc::new(map.collect()), bounds)
    }

    fn at(cursor: &ModelCursor) -> Option<&str> {
        cursor
            .entry()
            .map(|(key, _)| std::str::from_utf8(key).expect("ASCII"))
    }

    #[test]
    fn seeks_land_within_the_bounds_wherever_they_aim() {
        let mut c = cursor(Some("c"), Some("h"));
        c.seek(b"a");
        assert_eq!(at(&c), Some("d"));
        c.seek(b"g");
        assert_eq!(at(&c), None);
        c.seek_for_prev(b"z");
        assert_eq!(at(&c), Some("f"));
        c.seek_for_prev(b"b");
        assert_eq!(at(&c), None);
        c.seek_to_first();
        c.prev();
        assert_eq!(at(&c), None);
        c.seek_to_last();
        assert_eq!(at(&c), Some("f"));
    }

    #[test]
    fn a_prefix_holds_what_begins_with_it_and_nothing_else() {
        let keys: [&[u8]; 6] = [b"", b"a", b"a\xff", b"a\xff\xff", b"b", b"\xff\xff"];
        for prefix in keys {
            for key in keys {
                let within = Bounds::prefix(prefix).contain(key);
                assert_eq!(within, key.starts_with(prefix), "{prefix:?} {key:?}");
            }
        }
    }

    #[test]
    fn empty_bounds_hold_nothing() {
        for (lower, upper) in [("f", "b"), ("d", "d")] {
            let mut c = cursor(Some(lower), Some(upper));
            c.seek_to_first();
            assert_eq!(at(&c), None);
            c.seek_to_last();
            assert_eq!(at(&c), None);
            c.seek(b"a");
            assert_eq!(at(&c), None);
            c.seek_for_prev(b"z");
            assert_eq!(at(&c), None);
            assert_eq!(c.entries().count(), 0);
        }
    }
}
