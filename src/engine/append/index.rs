//! The index of an append family: where each entry stands, by prefix and index. Copies share what they can.
//!
//! ```text
//! Index -> leaves of up to 64 prefixes -> prefix -> chunks of up to 512 entries -> entry (20 bytes, packed 3 to 7)
//! ```
//! The newest chunks of a prefix are as they are, the others packed (`chunk`).
//!
//! Every arrow is an `Arc`: a clone of an index is a view that stays as it is, and a change copies only what
//! a view still shares. Order is that of keys, because all prefixes of a family have one length.
//!
//! During replay there may be holes between chunks; afterwards, and in all that readers see, there are none.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use crate::key::SequenceNumber;

use super::chunk::Chunk;

/// Prefixes of a leaf.
const LEAF_MAX: usize = 64;
/// Entries of a chunk.
const CHUNK_MAX: usize = if cfg!(test) { 48 } else { 512 };
/// Chunks at the end of a prefix that stay as they are: what is read most, and cut off from the back.
const OPEN_CHUNKS: usize = if cfg!(test) { 1 } else { 4 };

/// What an entry takes in the log beside its value, about: more in a batch of its own, less in a large one.
const FRAME_BYTES: u64 = 32;

/// Where an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(Rust, packed(4))]
pub(crate) struct Entry {
    /// Sequence number of the operation that appended it; a rewrite keeps it.
    seq: u64,
    /// Log position of its checksum, before the value; of its block's, where it is packed.
    pos: u64,
    tag: Tag,
}

impl Entry {
    pub(crate) fn new(seq: SequenceNumber, pos: u64, tag: Tag) -> Self {
        Self {
            seq: seq.0,
            pos,
            tag,
        }
    }

    pub(crate) fn seq(&self) -> SequenceNumber {
        SequenceNumber(self.seq)
    }

    pub(crate) fn pos(&self) -> u64 {
        self.pos
    }

    pub(crate) fn tag(&self) -> Tag {
        self.tag
    }

    /// Bytes of the log that it takes, about: the value, and a share of what its record has beside values.
    pub(crate) fn log_bytes(&self) -> u64 {
        match self.tag.form() {
            Form::Plain { len } => len as u64 + FRAME_BYTES,
            Form::Packed { share, .. } => u64::from(share),
        }
    }
}

/// How an entry stands where it stands, in 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag(u32);

/// What a tag says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A value of so many bytes, of its own.
    Plain { len: usize },
    /// The value `at` in a block of packed ones, of which it takes about `share` bytes.
    Packed { at: usize, share: u16 },
}

impl Tag {
    const PACKED: u32 = 1 << 31;

    /// The tag as a number, and back.
    pub(super) fn bits(self) -> u32 {
        self.0
    }

    pub(super) fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The bits of the next value's tag in a block.
    pub(super) fn bits_of_next(bits: u32) -> u32 {
        bits.wrapping_add(1 << 16)
    }

    pub(crate) fn plain(len: usize) -> Self {
        Self(u32::try_from(len).expect("a value is limited to 512 MiB"))
    }

    /// The value `at` in a block of `count`, which takes `bytes` of the log.
    pub(crate) fn packed(at: u32, count: u32, bytes: usize) -> Self {
        assert!(at < 1 << 15, "a block has at most 4096 values");
        let share = (bytes / count.max(1) as usize).clamp(1, usize::from(u16::MAX));
        let share = u32::try_from(share).expect("16 bits");
        Self(Self::PACKED | at << 16 | share)
    }

    pub(crate) fn form(self) -> Form {
        if self.0 & Self::PACKED == 0 {
            return Form::Plain {
                len: self.0 as usize,
            };
        }
        let share = u16::try_from(self.0 & 0xffff).expect("16 bits");
        Form::Packed {
            at: (self.0 >> 16 & 0x7fff) as usize,
            share,
        }
    }
}

/// The entries of one prefix, ascending.
#[derive(Clone, Debug, Default)]
pub(crate) struct PrefixLog {
    /// None of them is empty.
    chunks: VecDeque<Arc<Chunk>>,
}

impl PrefixLog {
    /// Indexes from the first entry to behind the last; 0..0 without entries.
    pub(crate) fn range(&self) -> Range<u64> {
        match (self.chunks.front(), self.chunks.back()) {
            (Some(first), Some(last)) => first.first..last.end(),
            _ => 0..0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// True without holes.
    pub(crate) fn is_contiguous(&self) -> bool {
        let mut next = self.range().start;
        self.chunks.iter().all(|chunk| {
            let fits = chunk.first == next;
            next = chunk.end();
            fits
        })
    }

    pub(crate) fn get(&self, index: u64) -> Option<Entry> {
        self.chunk(index)?.get(index)
    }

    /// The chunk that an entry is in.
    pub(crate) fn chunk(&self, index: u64) -> Option<&Arc<Chunk>> {
        let at = self.chunks.partition_point(|chunk| chunk.end() <= index);
        self.chunks.get(at)
    }

    /// Every entry with its index, ascending.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (u64, Entry)> {
        self.chunks.iter().flat_map(|chunk| {
            // The entries end it: the number behind the last index there can be is none.
            let indexed = chunk.entries(0..chunk.len()).zip(chunk.first..);
            indexed.map(|(entry, index)| (index, entry))
        })
    }

    /// Removes `index` and all above; `dead` is told of each entry removed.
    pub(crate) fn cut_back(&mut self, index: u64, dead: &mut impl FnMut(Entry)) {
        while let Some(last) = self.chunks.back_mut() {
            if last.end() <= index {
                return;
            }
            let keep = usize::try_from(index.saturating_sub(last.first)).unwrap_or(usize::MAX);
            last.entries(keep..last.len()).for_each(&mut *dead);
            if keep > 0 {
                Arc::make_mut(last).open().truncate(keep);
                return;
            }
            self.chunks.pop_back();
        }
    }

    /// Removes all below `index`.
    pub(crate) fn cut_front(&mut self, index: u64, dead: &mut impl FnMut(Entry)) {
        while let Some(first) = self.chunks.front_mut() {
            if first.first >= index {
                return;
            }
            let gone = usize::try_from(index - first.first).unwrap_or(usize::MAX);
            let gone = gone.min(first.len());
            first.entries(0..gone).for_each(&mut *dead);
            if gone < first.len() {
                let first = Arc::make_mut(first);
                first.open().drain(..gone);
                first.first = index;
                return;
            }
            self.chunks.pop_front();
        }
    }

    /// Adds an entry behind all others.
    pub(crate) fn push(&mut self, index: u64, entry: Entry) {
        match self.chunks.back_mut() {
            Some(last) if last.end() == index && last.len() < CHUNK_MAX => {
                Arc::make_mut(last).open().push(entry);
            }
            last => {
                debug_assert!(
                    last.is_none_or(|last| last.end() <= index),
                    "entries ascend"
                );
                self.chunks.push_back(Arc::new(Chunk::new(index, entry)));
                let behind = self.chunks.len().checked_sub(OPEN_CHUNKS + 1);
                if let Some(chunk) = behind.and_then(|at| self.chunks.get_mut(at))
                    && let Some(packed) = chunk.packed()
                {
                    *chunk = Arc::new(packed);
                }
            }
        }
    }

    /// Puts an entry at any index: replaces the one there if `may_replace` it, or fills a hole. Answers what was
    /// replaced; `Err` with what is there and stays.
    pub(crate) fn put(
        &mut self,
        index: u64,
        entry: Entry,
        may_replace: impl FnOnce(Entry) -> bool,
    ) -> Result<Option<Entry>, Entry> {
        let at = self.chunks.partition_point(|chunk| chunk.end() <= index);
        if let Some(chunk) = self.chunks.get_mut(at)
            && index >= chunk.first
        {
            let within = usize::try_from(index - chunk.first).expect("within a chunk");
            let old = chunk.get(index).expect("within a chunk");
            if !may_replace(old) {
                return Err(old);
            }
            Arc::make_mut(chunk).open()[within] = entry;
            return Ok(Some(old));
        }
        if let Some(before) = at.checked_sub(1).and_then(|at| self.chunks.get_mut(at))
            && before.end() == index
            && before.len() < CHUNK_MAX
        {
            Arc::make_mut(before).open().push(entry);
            return Ok(None);
        }
        self.chunks.insert(at, Arc::new(Chunk::new(index, entry)));
        Ok(None)
    }

    /// Bytes of memory, about.
    fn memory_bytes(&self) -> usize {
        let chunks = self.chunks.iter().map(|chunk| chunk.memory_bytes() + 8);
        size_of::<Self>() + 16 + chunks.sum::<usize>()
    }
}

/// A prefix and its entries.
pub(crate) type Item = (Arc<[u8]>, Arc<PrefixLog>);

/// The entries of a family.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    /// None of them is empty; prefixes ascend over all.
    leaves: Vec<Arc<Vec<Item>>>,
}

impl Index {
    /// Leaf and place in it of the first prefix at or after `prefix`; the leaf is one too far where there is none.
    pub(crate) fn lower_bound(&self, prefix: &[u8]) -> (usize, usize) {
        let leaf = self
            .leaves
            .partition_point(|leaf| leaf.last().is_some_and(|(last, _)| **last < *prefix));
        let at = self
            .leaves
            .get(leaf)
            .map_or(0, |leaf| leaf.partition_point(|(p, _)| **p < *prefix));
        (leaf, at)
    }

    /// The prefix at a place, with its entries.
    pub(crate) fn item(&self, (leaf, at): (usize, usize)) -> Option<&Item> {
        self.leaves.get(leaf)?.get(at)
    }

    /// The place after one where there is a prefix.
    pub(crate) fn next(&self, (leaf, at): (usize, usize)) -> (usize, usize) {
        match self.leaves.get(leaf) {
            Some(items) if at + 1 < items.len() => (leaf, at + 1),
            _ => (leaf + 1, 0),
        }
    }

    /// The place before another, which may be the one behind all; `None` at the first.
    pub(crate) fn before(&self, (leaf, at): (usize, usize)) -> Option<(usize, usize)> {
        if at > 0 {
            return Some((leaf, at - 1));
        }
        let leaf = leaf.checked_sub(1)?;
        Some((leaf, self.leaves.get(leaf)?.len() - 1))
    }

    /// The place behind all prefixes.
    pub(crate) fn end(&self) -> (usize, usize) {
        (self.leaves.len(), 0)
    }

    /// The entries of a prefix.
    pub(crate) fn get(&self, prefix: &[u8]) -> Option<&PrefixLog> {
        let (found, log) = self.item(self.lower_bound(prefix))?;
        (**found == *prefix).then_some(log)
    }

    /// Every prefix with its entries, ascending.
    pub(crate) fn items(&self) -> impl Iterator<Item = &Item> {
        self.leaves.iter().flat_map(|leaf| leaf.iter())
    }

    /// A view of the leaves that can have keys in `lower..upper`.
    pub(crate) fn within(&self, lower: Option<&[u8]>, upper: Option<&[u8]>) -> Self {
        // A prefix that is itself above the bound has only keys above it; one below may have keys on both sides.
        let from = lower.map_or(0, |lower| {
            self.leaves.partition_point(|leaf| {
                leaf.last()
                    .is_some_and(|(last, _)| **last < lower[..lower.len().min(last.len())])
            })
        });
        let to = upper.map_or(self.leaves.len(), |upper| {
            self.leaves
                .partition_point(|leaf| leaf.first().is_some_and(|(first, _)| **first < *upper))
        });
        Self {
            leaves: self.leaves.get(from..to).unwrap_or_default().to_vec(),
        }
    }

    /// Changes the entries of a prefix, which is there from the first entry to the last.
    pub(crate) fn change<R>(
        &mut self,
        prefix: &[u8],
        change: impl FnOnce(&mut PrefixLog) -> R,
    ) -> R {
        let (mut leaf, mut at) = self.lower_bound(prefix);
        if leaf == self.leaves.len() {
            // Behind all: it goes to the end of the last leaf.
            match leaf.checked_sub(1) {
                Some(last) => (leaf, at) = (last, self.leaves[last].len()),
                None => self.leaves.push(Arc::default()),
            }
        }
        let is_there = self.leaves[leaf]
            .get(at)
            .is_some_and(|(found, _)| **found == *prefix);
        if !is_there {
            let mut log = PrefixLog::default();
            let result = change(&mut log);
            if log.is_empty() {
                if self.leaves[leaf].is_empty() {
                    self.leaves.remove(leaf);
                }
                return result;
            }
            let items = Arc::make_mut(&mut self.leaves[leaf]);
            items.insert(at, (Arc::from(prefix), Arc::new(log)));
            if items.len() > LEAF_MAX {
                let rest = items.split_off(items.len() / 2);
                self.leaves.insert(leaf + 1, Arc::new(rest));
            }
            return result;
        }
        let items = Arc::make_mut(&mut self.leaves[leaf]);
        let log = Arc::make_mut(&mut items[at].1);
        let result = change(log);
        if log.is_empty() {
            items.remove(at);
            if items.is_empty() {
                self.leaves.remove(leaf);
            }
        }
        result
    }

    /// Prefixes, entries, and bytes of memory, about.
    pub(crate) fn sizes(&self) -> Sizes {
        let mut sizes = Sizes::default();
        for (prefix, log) in self.items() {
            sizes.prefixes += 1;
            sizes.memory_bytes += prefix.len() + 16 + size_of::<Item>() + log.memory_bytes();
            for chunk in &log.chunks {
                sizes.entries += chunk.len();
            }
        }
        sizes
    }
}

/// What an index holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) prefixes: usize,
    pub(crate) entries: usize,
    pub(crate) memory_bytes: usize,
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
