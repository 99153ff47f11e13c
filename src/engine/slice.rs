//! `PinnedSlice`: a value read from the database, in place where it lives in a mapped table.

use std::{
    fmt,
    ops::{Deref, Range},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{append::Kept, cache::BlockBytes, fs::ReadableFile};

/// Values below this length are copied instead of pinned.
pub const PIN_MIN_LEN: usize = 1024;

/// Copies up to this length need no memory of their own.
const INLINE_LEN: usize = 62;

/// Bytes of a value. It derefs to `[u8]`, and keeps alive what holds the bytes: an own copy, a
/// decompressed block, a batch of an append family, or the map of a table file. How much may be held that way is bounded
/// (`Options::max_pinned_bytes`); beyond, values are copied.
#[derive(Clone)]
pub struct PinnedSlice(Holder);

#[derive(Clone)]
enum Holder {
    Inline(u8, [u8; INLINE_LEN]),
    Owned(Arc<[u8]>),
    Pinned(Arc<Pin>),
}

/// Bytes held in place, counted until the last clone is dropped.
struct Pin {
    place: Place,
    range: Range<usize>,
    ledger: Arc<PinLedger>,
}

enum Place {
    Block(BlockBytes),
    /// The bytes of a batch of an append family, in memory.
    Batch(Arc<Kept>),
    Mapped(Arc<dyn ReadableFile>),
}

impl Pin {
    fn held(&self) -> usize {
        match &self.place {
            Place::Block(block) => block.slice.len(),
            Place::Batch(kept) => kept.held(),
            Place::Mapped(_) => self.range.len(),
        }
    }

    fn bytes(&self) -> &[u8] {
        match &self.place {
            Place::Block(block) => &block.slice[self.range.clone()],
            Place::Batch(kept) => &kept.bytes()[self.range.clone()],
            Place::Mapped(file) => {
                let map = file
                    .map()
                    .expect("checked when it was made; a map never goes away");
                &map[self.range.clone()]
            }
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.ledger.bytes.fetch_sub(self.held(), Ordering::Relaxed);
        if matches!(self.place, Place::Block(_)) {
            let blocks = &self.ledger.block_bytes;
            blocks.fetch_sub(self.held(), Ordering::Relaxed);
        }
    }
}

/// Counts the bytes that slices hold in place, and bounds them.
#[derive(Debug)]
pub(crate) struct PinLedger {
    bytes: AtomicUsize,
    /// The part of it that is in blocks, which are memory, and not in maps.
    block_bytes: AtomicUsize,
    max: AtomicUsize,
}

impl PinLedger {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes: AtomicUsize::new(0),
            block_bytes: AtomicUsize::new(0),
            max: AtomicUsize::new(max),
        })
    }

    /// Bytes held now.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes of blocks held now.
    pub(crate) fn block_bytes(&self) -> usize {
        self.block_bytes.load(Ordering::Relaxed)
    }

    /// Sets the bound. What is held beyond it stays until it is let go.
    pub(crate) fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// Counts `bytes` more; false, and nothing is counted, where that is over the bound.
    fn take(&self, bytes: usize) -> bool {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = before
            .checked_add(bytes)
            .is_some_and(|after| after <= self.max.load(Ordering::Relaxed));
        if !fits {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits
    }
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

    /// A range of a block: in place, or a copy where it is small or too much is held already.
    pub(crate) fn of_block(
        block: &BlockBytes,
        range: Range<usize>,
        ledger: &Arc<PinLedger>,
    ) -> Self {
        if range.len() < PIN_MIN_LEN || !ledger.take(block.slice.len()) {
            return Self::copied(&block.slice[range]);
        }
        let blocks = &ledger.block_bytes;
        blocks.fetch_add(block.slice.len(), Ordering::Relaxed);
        let (place, ledger) = (Place::Block(block.clone()), Arc::clone(ledger));
        Self(Holder::Pinned(Arc::new(Pin {
            place,
            range,
            ledger,
        })))
    }

    /// A range of a batch in memory: as for a block.
    pub(crate) fn of_batch(kept: &Arc<Kept>, range: Range<usize>, ledger: &Arc<PinLedger>) -> Self {
        if range.len() < PIN_MIN_LEN || !ledger.take(kept.held()) {
            return Self::copied(&kept.bytes()[range]);
        }
        let (place, ledger) = (Place::Batch(Arc::clone(kept)), Arc::clone(ledger));
        Self(Holder::Pinned(Arc::new(Pin {
            place,
            range,
            ledger,
        })))
    }

    /// A range of a mapped file that has been verified: in place, or a copy as for a block.
    pub(crate) fn of_map(
        file: &Arc<dyn ReadableFile>,
        range: Range<usize>,
        ledger: &Arc<PinLedger>,
    ) -> Self {
        let map = file.map().expect("only ranges of a map come here");
        if range.len() < PIN_MIN_LEN || !ledger.take(range.len()) {
            return Self::copied(&map[range]);
        }
        assert!(range.end <= map.len(), "range within the map");
        let (place, ledger) = (Place::Mapped(Arc::clone(file)), Arc::clone(ledger));
        Self(Holder::Pinned(Arc::new(Pin {
            place,
            range,
            ledger,
        })))
    }
}

impl PinnedSlice {
    /// Its first `len` bytes; it has so many.
    pub(crate) fn truncated(self, len: usize) -> Self {
        match self.0 {
            Holder::Inline(old, bytes) if len <= usize::from(old) => Self(Holder::Inline(
                u8::try_from(len).expect("not longer than before"),
                bytes,
            )),
            Holder::Pinned(mut pin) if Arc::strong_count(&pin) == 1 => {
                let own = Arc::get_mut(&mut pin).expect("the only holder");
                // What is held is counted as it is let go: the pin of a map holds no more than its range.
                if let Place::Mapped(_) = own.place {
                    let less = own.range.len() - len;
                    own.ledger.bytes.fetch_sub(less, Ordering::Relaxed);
                }
                own.range.end = own.range.start + len;
                Self(Holder::Pinned(pin))
            }
            held => Self::copied(&Self(held)[..len]),
        }
    }
}

impl Deref for PinnedSlice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Holder::Inline(len, bytes) => &bytes[..usize::from(*len)],
            Holder::Owned(bytes) => bytes,
            Holder::Pinned(pin) => pin.bytes(),
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
    use triomphe::ThinArc;

    use super::*;
    use crate::cache::share;

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
    fn a_range_of_a_block_outlives_its_other_holders_and_is_counted_until_the_last_clone_goes() {
        let ledger = PinLedger::new(10_000);
        let bytes: Vec<u8> = (0..=255).cycle().take(4000).collect();
        let expected = bytes[2..2000].to_vec();
        let block = share(&bytes);
        let slice = PinnedSlice::of_block(&block, 2..2000, &ledger);
        drop(block);
        let clone = slice.clone();
        drop(slice);
        assert_eq!(clone, expected[..]);
        assert_eq!(ledger.bytes(), 4000, "the whole block is held");
        drop(clone);
        assert_eq!(ledger.bytes(), 0);
    }

    #[test]
    fn a_slice_cut_short_is_its_first_bytes_and_is_counted_right() {
        let ledger = PinLedger::new(10_000);
        let bytes: Vec<u8> = (0..=255).cycle().take(4000).collect();
        let block = share(&bytes);
        let places = [
            PinnedSlice::copied(&bytes[..20]),
            PinnedSlice::copied(&bytes[..200]),
            PinnedSlice::of_block(&block, 0..2000, &ledger),
        ];
        for slice in places {
            let len = slice.len() - 8;
            let shared = slice.clone();
            assert_eq!(shared.truncated(len), bytes[..len]);
            assert_eq!(slice.truncated(len), bytes[..len]);
        }
        assert_eq!(ledger.bytes(), 0);
    }

    #[test]
    fn small_values_and_those_beyond_the_bound_are_copied() {
        let ledger = PinLedger::new(5000);
        let block = share(&[7; 4000]);
        let small = PinnedSlice::of_block(&block, 0..100, &ledger);
        assert_eq!(ledger.bytes(), 0);
        let first = PinnedSlice::of_block(&block, 0..2000, &ledger);
        let second = PinnedSlice::of_block(&block, 0..2000, &ledger);
        assert_eq!((ledger.bytes(), ThinArc::strong_count(&block)), (4000, 2));
        assert_eq!(second, first[..]);
        assert_eq!(small, [7; 100][..]);
    }
}
