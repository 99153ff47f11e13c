//! Blocks compressed with zstd, in builds with the feature `zstd`; without it nothing is compressed so, and what was is
//! refused by name.

/// A block that shrinks further than this is left to LZ4, so that a reader need not believe in any length.
pub(super) const MAX_RATIO: usize = 1 << 12;

#[cfg(feature = "zstd")]
mod with {
    use std::cell::RefCell;

    use zstd::bulk::{Compressor, Decompressor};

    /// zstd's own default: beyond it a compaction takes a multiple of the time for a few percent.
    const LEVEL: i32 = 3;

    thread_local! {
        /// What zstd needs to work: hundreds of kilobytes, made once a thread.
        static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
        static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
    }

    /// Compresses `raw` into the start of `out`; answers the bytes used, or nothing where that is not possible.
    pub(in crate::table) fn compress_into(raw: &[u8], out: &mut [u8]) -> Option<usize> {
        COMPRESSOR.with_borrow_mut(|kept| {
            let compressor = match kept {
                Some(compressor) => compressor,
                None => kept.insert(Compressor::new(LEVEL).ok()?),
            };
            compressor.compress_to_buffer(raw, out).ok()
        })
    }

    /// Decompresses `body` into `out`; answers the bytes used, or nothing where it is not what was written.
    pub(in crate::table) fn decompress_into(body: &[u8], out: &mut [u8]) -> Option<usize> {
        DECOMPRESSOR.with_borrow_mut(|kept| {
            let decompressor = match kept {
                Some(decompressor) => decompressor,
                None => kept.insert(Decompressor::new().ok()?),
            };
            decompressor.decompress_to_buffer(body, out).ok()
        })
    }
}

#[cfg(not(feature = "zstd"))]
mod with {
    /// Nothing.
    pub(in crate::table) fn compress_into(_raw: &[u8], _out: &mut [u8]) -> Option<usize> {
        None
    }

    /// Nothing: tables with such blocks are refused before one is read.
    pub(in crate::table) fn decompress_into(_body: &[u8], _out: &mut [u8]) -> Option<usize> {
        None
    }
}

pub(super) use with::{compress_into, decompress_into};
