//! [`KeyRange`]: which keys a scan or a delete is about.

use bytes::Bytes;

/// Keys from a first one on and before a last one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key, inclusive; empty: the first there is.
    pub start: Bytes,
    /// The first key behind the range; empty: none, it goes on to the last there is.
    pub end: Bytes,
}

impl KeyRange {
    /// Every key.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Keys from `start` on.
    #[must_use]
    pub fn from(start: impl AsRef<[u8]>) -> Self {
        Self::between(start, b"")
    }

    /// Keys from `start` on and before `end`; an empty `end` is none.
    #[must_use]
    pub fn between(start: impl AsRef<[u8]>, end: impl AsRef<[u8]>) -> Self {
        Self {
            start: Bytes::copy_from_slice(start.as_ref()),
            end: Bytes::copy_from_slice(end.as_ref()),
        }
    }

    /// Keys that begin with `prefix`.
    ///
    /// ```
    /// use basalt_client::KeyRange;
    /// assert_eq!(KeyRange::prefix("user/"), KeyRange::between("user/", "user0"));
    /// assert_eq!(KeyRange::prefix([0xff, 0xff]).end, "");
    /// ```
    #[must_use]
    pub fn prefix(prefix: impl AsRef<[u8]>) -> Self {
        let prefix = prefix.as_ref();
        let mut end = Vec::new();
        if let Some(last) = prefix.iter().rposition(|byte| *byte != u8::MAX) {
            end.extend_from_slice(&prefix[..=last]);
            end[last] += 1;
        }
        Self::between(prefix, end)
    }

    /// Whether no key can be in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.end.is_empty() && self.end <= self.start
    }
}
