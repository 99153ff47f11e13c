//! The index block: for each data block a separator, at or above its last key and below the next block's
//! first, and where the block stands (FORMAT.md, index block).
//!
//! It is checked whole when the table is opened, and then used where it lies. In memory there are sixteen bytes
//! for each block: where it stands, and eight bytes of its separator, behind the part common to all, which decide
//! nearly every comparison.
//!
//! A separator is an internal key. Its trailer is zero, which is behind every version of its user key, except
//! where versions of one key go on in the next block: then it is the trailer of the last entry.

use byteorder::{BigEndian, ByteOrder, LittleEndian};

use super::{
    SeqRule,
    block::common_prefix,
    format::{BLOCK_TRAILER_LEN, BlockHandle, Damage},
};
use crate::{
    coding::{Reader, put_slice, put_u32, put_varint},
    key::{InternalKey, MAX_KEY_LEN},
};

/// Writes an index block.
#[derive(Default)]
pub(super) struct IndexBuilder {
    entries: Vec<u8>,
    offsets: Vec<u32>,
}

impl IndexBuilder {
    /// Adds the next data block. False where the index has no room for it.
    pub(super) fn add(&mut self, separator: InternalKey<'_>, handle: BlockHandle) -> bool {
        let Ok(at) = u32::try_from(self.entries.len()) else {
            return false;
        };
        self.offsets.push(at);
        put_slice(&mut self.entries, separator.user_key);
        put_varint(&mut self.entries, separator.trailer);
        put_varint(&mut self.entries, handle.offset);
        put_varint(&mut self.entries, u64::from(handle.len));
        true
    }

    /// Number of data blocks.
    pub(super) fn count(&self) -> usize {
        self.offsets.len()
    }

    /// Bytes the block would have now.
    pub(super) fn size(&self) -> usize {
        self.entries.len() + self.offsets.len() * 4 + 4
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        let count = u32::try_from(self.offsets.len()).expect("fewer than bytes");
        for &offset in &self.offsets {
            put_u32(&mut self.entries, offset);
        }
        put_u32(&mut self.entries, count);
        self.entries
    }
}

/// Puts into `out` the shortest user key that is at or above `last` and below `next`, where they differ.
pub(super) fn shortest_separator(last: &[u8], next: &[u8], out: &mut Vec<u8>) {
    debug_assert!(last < next, "user keys ascend");
    let common = common_prefix(last, next);
    out.clear();
    // The byte after the common part, one higher, is a shorter key between the two if there is room.
    match (last.get(common), next.get(common)) {
        (Some(&low), Some(&high)) if last.len() > common + 1 && high > low + 1 => {
            out.extend_from_slice(&last[..common]);
            out.push(low + 1);
        }
        _ => out.extend_from_slice(last),
    }
}

/// One entry of the index.
#[derive(Clone, Copy, Debug)]
pub(super) struct IndexEntry<'a> {
    /// At or above all keys of the block.
    pub(super) separator: InternalKey<'a>,
    /// Where the block stands.
    pub(super) handle: BlockHandle,
}

/// An index block that has been checked. The bytes themselves are with the caller.
#[derive(Debug)]
pub(super) struct Index {
    /// End of the entries; the offsets follow.
    entries_end: usize,
    /// Bytes that all separators begin with.
    common: Box<[u8]>,
    /// The eight bytes behind them, zeros where a separator ends, as numbers that compare as the bytes do.
    heads: Box<[u64]>,
    /// Where each data block begins in the file, and the end of the last. They stand back to back.
    offsets: Box<[u64]>,
}

impl Index {
    /// Bytes of memory beside the block.
    pub(super) fn memory_bytes(&self) -> usize {
        self.common.len() + (self.heads.len() + self.offsets.len()) * size_of::<u64>()
    }

    /// Checks a whole index block: entries parse, separators ascend, and data blocks stand back to back from
    /// the start of the file.
    pub(super) fn parse(block: &[u8]) -> Result<Self, Damage> {
        const CUT: Damage = "index is shorter than its parts";
        let at = block.len().checked_sub(4).ok_or(CUT)?;
        let count = LittleEndian::read_u32(&block[at..]) as usize;
        let entries_end = count
            .checked_mul(4)
            .and_then(|len| at.checked_sub(len))
            .ok_or(CUT)?;
        let mut index = Self {
            entries_end,
            common: Box::default(),
            heads: Box::default(),
            offsets: Box::default(),
        };
        index.common = match count.checked_sub(1) {
            Some(last) => {
                let first = index.entry(block, 0)?.separator.user_key;
                let last = index.entry(block, last)?.separator.user_key;
                first[..common_prefix(first, last)].into()
            }
            None => Box::default(),
        };
        let mut heads = Vec::with_capacity(count);
        let mut offsets = Vec::with_capacity(count + 1);
        let mut data_end = 0;
        let mut before: Option<InternalKey<'_>> = None;
        for ordinal in 0..count {
            let IndexEntry { separator, handle } = index.entry(block, ordinal)?;
            if before.is_some_and(|before| before >= separator) {
                return Err("index separators out of order");
            }
            if handle.offset != data_end {
                return Err("data blocks overlap or leave a gap");
            }
            offsets.push(data_end);
            data_end = handle.end().ok_or("data block ends beyond 64 bits")?;
            // All separators lie between the first and the last, and so begin with what these share.
            let rest = separator.user_key.strip_prefix(&*index.common);
            heads.push(head(rest.ok_or("index separators out of order")?));
            before = Some(separator);
        }
        offsets.push(data_end);
        index.heads = heads.into();
        index.offsets = offsets.into();
        Ok(index)
    }

    /// Number of data blocks.
    pub(super) fn count(&self) -> usize {
        self.heads.len()
    }

    /// End of the last data block in the file.
    pub(super) fn data_end(&self) -> u64 {
        self.offsets.last().copied().unwrap_or(0)
    }

    /// Where a data block stands.
    #[inline]
    pub(super) fn handle(&self, ordinal: usize) -> BlockHandle {
        let (offset, end) = (self.offsets[ordinal], self.offsets[ordinal + 1]);
        let len = u32::try_from(end - offset - BLOCK_TRAILER_LEN as u64);
        BlockHandle {
            offset,
            len: len.expect("it was made of a handle"),
        }
    }

    /// The entry of a data block.
    #[inline]
    pub(super) fn entry<'a>(
        &self,
        block: &'a [u8],
        ordinal: usize,
    ) -> Result<IndexEntry<'a>, Damage> {
        const CUT: Damage = "index entry is cut short or misspelt";
        let (entries, offsets) = block.split_at_checked(self.entries_end).ok_or(CUT)?;
        let offset = offsets.get(ordinal * 4..ordinal * 4 + 4).ok_or(CUT)?;
        let at = LittleEndian::read_u32(offset) as usize;
        let mut reader = Reader::new(entries.get(at..).ok_or(CUT)?);
        let user_key = reader.slice().ok_or(CUT)?;
        if user_key.len() > MAX_KEY_LEN {
            return Err("index separator beyond the limit of keys");
        }
        let trailer = reader.varint().ok_or(CUT)?;
        let offset = reader.varint().ok_or(CUT)?;
        let len = reader.varint_u32().ok_or(CUT)?;
        Ok(IndexEntry {
            separator: InternalKey { user_key, trailer },
            handle: BlockHandle { offset, len },
        })
    }

    /// The first data block whose separator is at or above `target`: no other can hold the first entry at or
    /// after it, unless that is the first entry of the next block. `None` behind the last.
    #[inline]
    pub(super) fn find(
        &self,
        block: &[u8],
        target: InternalKey<'_>,
        rule: SeqRule,
    ) -> Result<Option<usize>, Damage> {
        let common = common_prefix(&self.common, target.user_key);
        if common < self.common.len() {
            // Below or above all separators.
            let below = target.user_key.get(common).copied() < Some(self.common[common]);
            return Ok(Some(0).filter(|_| below && self.count() > 0));
        }
        let wanted = head(&target.user_key[common..]);
        let mut low = self.heads.partition_point(|&head| head < wanted);
        let mut high = low
            + self.heads[low..]
                .iter()
                .take(2)
                .filter(|&&head| head == wanted)
                .count();
        if high == low + 2 {
            high = low + self.heads[low..].partition_point(|&head| head == wanted);
        }
        while low < high {
            let middle = low + (high - low) / 2;
            let mut separator = self.entry(block, middle)?.separator;
            if separator.trailer != 0 {
                separator.trailer = rule.apply(separator.trailer);
            }
            if separator < target {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(Some(low).filter(|&low| low < self.count()))
    }
}

/// The first eight bytes as a number, zeros where there are fewer.
#[inline]
fn head(key: &[u8]) -> u64 {
    match key.first_chunk::<8>() {
        Some(head) => BigEndian::read_u64(head),
        None => {
            let mut head = [0; 8];
            head[..key.len()].copy_from_slice(key);
            BigEndian::read_u64(&head)
        }
    }
}
