//! `PinnedSlice`: a value read from the database, in place where it lives in a mapped table.

use std::{fmt, ops::Deref, ops::Range, sync::Arc};

use crate::fs::ReadableFile;

/// Values up to this length are copied instead of pinned.
pub const PIN_MIN_LEN: usize = 1024;

/// Copies up to this length need no memory of their own.
const INLINE_LEN: usize = 62;

/// Bytes of a value. It derefs to `[u8]`, and keeps alive what holds the bytes: an own copy, a
/// decompressed block, or the map of a table file.
#[derive(Clone)]
pub struct PinnedSlice(Holder);

#[derive(Clone)]
enum Holder {
    Inline(u8, [u8; INLINE_LEN]),
    Owned(Arc<[u8]>),
    Block(Arc<[u8]>, Range<usize>),
    Mapped(Arc<dyn ReadableFile>, Range<usize>),
}

impl PinnedSlice {
    /// A copy of `bytes`.
    #[must_use]
    pub fn copied(bytes: &[u8]) -> Self {
        match u8::try_from(bytes.len()) {
            Ok(len) if bytes.len() <= INLINE_LEN => {
                let mut inline = [0; INLINE_LEN];
                inline[..bytes.len()].copy_from_slice(bytes);
                Self(Holder::Inline(len, inline))
            }
            _ => Self(Holder::Owned(Arc::from(bytes))),
        }
    }

    /// A range of a block.
    pub(crate) fn of_block(block: Arc<[u8]>, range: Range<usize>) -> Self {
        assert!(
            range.start <= range.end && range.end <= block.len(),
            "range within the block"
        );
        Self(Holder::Block(block, range))
    }

    /// A range of a mapped file that has been verified.
    pub(crate) fn of_map(file: Arc<dyn ReadableFile>, range: Range<usize>) -> Self {
        assert!(
            file.map()
                .is_some_and(|map| map.get(range.clone()).is_some()),
            "range within the map"
        );
        Self(Holder::Mapped(file, range))
    }
}

impl Deref for PinnedSlice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Holder::Inline(len, bytes) => &bytes[..usize::from(*len)],
            Holder::Owned(bytes) => bytes,
            Holder::Block(block, range) => &block[range.clone()],
            Holder::Mapped(file, range) => {
                let map = file
                    .map()
                    .expect("checked when the slice was made; a map never goes away");
                &map[range.clone()]
            }
        }
    }
}

impl AsRef<[u8]> for PinnedSlice {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for PinnedSlice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.escape_ascii())
    }
}

impl PartialEq<[u8]> for PinnedSlice {
    fn eq(&self, other: &[u8]) -> bool {
        **self == *other
    }
}

impl<const N: usize> PartialEq<&[u8; N]> for PinnedSlice {
    fn eq(&self, other: &&[u8; N]) -> bool {
        **self == other[..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_every_length_around_the_inline_one_are_whole() {
        for len in 0..=INLINE_LEN + 2 {
            let bytes: Vec<u8> = (0..=255).cycle().take(len).collect();
            let slice = PinnedSlice::copied(&bytes);
            assert_eq!(slice, bytes[..]);
            assert_eq!(slice.clone(), bytes[..]);
        }
        assert!(size_of::<PinnedSlice>() <= 64, "one cache line");
    }

    #[test]
    fn a_range_of_a_block_outlives_its_other_holders() {
        let block: Arc<[u8]> = Arc::from(&b"0123456789"[..]);
        let slice = PinnedSlice::of_block(Arc::clone(&block), 2..5);
        drop(block);
        assert_eq!(slice, b"234");
    }
}
