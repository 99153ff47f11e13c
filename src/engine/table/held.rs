//! A data block in the hands of a reader: in the map of its file, or in memory that the cache has a part in.

use std::{ops::Range, sync::Arc};

use arc_swap::Guard;

use crate::{
    cache::{BlockBytes, Glance},
    fs::ReadableFile,
    slice::{PinLedger, PinnedSlice},
};

/// Verified, decompressed bytes of a data block.
pub(super) enum Held {
    /// In the map of the file.
    Mapped { start: usize, len: usize },
    /// In the cache, seen without being counted: for a short look.
    Seen(Glance),
    /// Counted.
    Counted(BlockBytes),
}

impl Held {
    /// No block: to be read by nobody.
    pub(super) const NONE: Self = Self::Mapped { start: 0, len: 0 };

    /// The bytes of a block of `file`.
    #[inline]
    pub(super) fn bytes<'a>(&'a self, file: &'a dyn ReadableFile) -> &'a [u8] {
        match self {
            Self::Mapped { start, len } => {
                let map = file.map().expect("a file that was mapped stays so");
                &map[*start..*start + *len]
            }
            Self::Seen(block) => block.as_ref().map_or(&[], |block| &block.slice),
            Self::Counted(block) => &block.slice,
        }
    }

    /// The same to keep.
    pub(super) fn counted(self) -> Self {
        match self {
            Self::Seen(block) => Guard::into_inner(block).map_or(Self::NONE, Self::Counted),
            held => held,
        }
    }

    /// A value of the block: in place where it is long.
    pub(super) fn pin(
        &self,
        file: &Arc<dyn ReadableFile>,
        value: Range<usize>,
        ledger: &Arc<PinLedger>,
    ) -> PinnedSlice {
        match self {
            Self::Mapped { start, .. } => {
                PinnedSlice::of_map(file, start + value.start..start + value.end, ledger)
            }
            Self::Counted(block) => PinnedSlice::of_block(block, value, ledger),
            Self::Seen(block) => match &**block {
                Some(block) => PinnedSlice::of_block(block, value, ledger),
                None => PinnedSlice::copied(&[]),
            },
        }
    }
}
