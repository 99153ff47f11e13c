//! The newest batches of append families, in memory: what is read most is read without a call, a copy or a checksum.
//!
//! A batch comes here when it is published, with the bytes that its writer made: nothing is copied, and nothing is
//! read back. So what is here is what was acknowledged, also after a failure of the log; what failed never comes here. Batches stand
//! in the order of the log and are found by log position. Beyond `max_bytes` the oldest go.
//!
//! ```text
//! Tail -> blocks of up to 256 batches (the list is replaced when one begins) -> batch
//! ```
//! Readers take no lock: the list is an atomic pointer, and a slot of a block is set once.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;

use crate::batch::WriteBatch;

use super::{AppendKind, Entry, Form, LogBytes, fetch::before_value, pack::Block};

/// Batches of a block.
const SLOTS: usize = 256;
/// Most bytes of batches after which a block is full, and the part of what may be kept that one block is at most: whole
/// blocks go.
const BLOCK_BYTES: usize = 512 << 10;
const MIN_BLOCKS: usize = 8;
/// Bytes that a batch takes beside its own.
const SLOT_BYTES: usize = size_of::<Slot>() + size_of::<Kept>() + 16;
/// Slots that a cursor looks at, behind the one it was at, before it searches.
const NEAR: usize = 4;

/// A published batch.
#[derive(Debug)]
pub(crate) struct Kept {
    /// Log position of its first byte, and behind its last.
    start: u64,
    end: u64,
    /// Its bytes; none where all its values are in blocks.
    bytes: Vec<u8>,
    /// The blocks of values that are packed in the log, as they were before, by where they stand in the batch.
    blocks: Vec<(usize, Block)>,
}

impl Kept {
    /// Where in [`Kept::bytes`] the value of `len` bytes stands whose checksum has a log position.
    pub(crate) fn value(&self, position: u64, len: usize) -> Option<Range<usize>> {
        let at = usize::try_from(position.checked_sub(self.start)?).ok()?;
        let start = at + before_value(len);
        let range = start..start.checked_add(len)?;
        (range.end <= self.bytes.len()).then_some(range)
    }

    /// The block of packed values that stands at a log position.
    pub(crate) fn block(&self, position: u64) -> Option<&Block> {
        let at = usize::try_from(position.checked_sub(self.start)?).ok()?;
        let found = self.blocks.binary_search_by_key(&at, |(at, _)| *at).ok()?;
        Some(&self.blocks[found].1)
    }

    /// Bytes of the batch.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes of memory that it takes.
    pub(crate) fn held(&self) -> usize {
        let blocks = self.blocks.iter().map(|(_, block)| block.held());
        SLOT_BYTES + self.bytes.capacity() + blocks.sum::<usize>()
    }

    /// True where a log position is within it.
    pub(crate) fn holds(&self, position: u64) -> bool {
        (self.start..self.end).contains(&position)
    }
}

/// A batch, and the log position of its first byte beside it for the search.
type Slot = OnceLock<(u64, Arc<Kept>)>;

#[derive(Debug)]
struct TailBlock {
    /// Log position of the first batch.
    start: u64,
    slots: Box<[Slot]>,
    /// Slots that are set.
    len: AtomicUsize,
    bytes: AtomicUsize,
}

impl TailBlock {
    fn new(start: u64) -> Self {
        Self {
            start,
            slots: (0..SLOTS).map(|_| Slot::new()).collect(),
            len: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        }
    }

    fn slot(&self, at: usize) -> Option<&(u64, Arc<Kept>)> {
        self.slots.get(at)?.get()
    }

    /// The last slot that begins at or before a log position.
    fn search(&self, position: u64) -> Option<usize> {
        let set = &self.slots[..self.len.load(Ordering::Acquire)];
        let is_before = |slot: &Slot| slot.get().is_some_and(|(start, _)| *start <= position);
        set.partition_point(is_before).checked_sub(1)
    }
}

/// The newest batches.
#[derive(Debug)]
pub(crate) struct Tail {
    max_bytes: AtomicUsize,
    /// Ascending.
    blocks: ArcSwap<VecDeque<Arc<TailBlock>>>,
    /// Bytes of all blocks; held by who adds to them, one at a time.
    bytes: Mutex<usize>,
}

/// Lets the oldest blocks go until the others have `max` bytes, or one is left; whether any went.
fn trim(blocks: &mut VecDeque<Arc<TailBlock>>, total: &mut usize, max: usize) -> bool {
    let before = blocks.len();
    while *total > max
        && blocks.len() > 1
        && let Some(oldest) = blocks.pop_front()
    {
        *total -= oldest.bytes.load(Ordering::Relaxed);
    }
    blocks.len() < before
}

/// Where a cursor was in the tail: the next batch it wants is mostly near.
#[derive(Debug, Default)]
pub(crate) struct TailPlace(Option<(Arc<TailBlock>, usize)>);

impl Tail {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes: AtomicUsize::new(max_bytes),
            blocks: ArcSwap::default(),
            bytes: Mutex::new(0),
        }
    }

    /// From now on it keeps so many bytes; what is over goes, but for the block that is being filled.
    pub(crate) fn set_max(&self, bytes: usize) {
        if self.max_bytes.swap(bytes, Ordering::Relaxed) <= bytes {
            return;
        }
        let mut total = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = VecDeque::clone(&self.blocks.load());
        if trim(&mut all, &mut total, bytes) {
            self.blocks.store(Arc::new(all));
        }
    }

    /// Bytes of memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        *self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a batch whose first byte has a log position, if it appends anything; under the commit lock, in the order of the log.
    pub(crate) fn keep(&self, batch: &mut WriteBatch, start: u64) {
        // What is written forward is old: it would only push out what is read.
        let appends = |kind| kind == AppendKind::Append;
        if self.max_bytes.load(Ordering::Relaxed) == 0
            || !batch.appends.iter().any(|op| appends(op.kind))
        {
            return;
        }
        let end = start + batch.bytes.len() as u64;
        let is_plain = |form| matches!(form, Form::Plain { .. });
        let mut bytes = std::mem::take(&mut batch.bytes);
        if !batch.spans.iter().any(|span| is_plain(span.tag.form())) {
            bytes = Vec::new();
        }
        let blocks = std::mem::take(&mut batch.blocks);
        self.push(Kept {
            start,
            end,
            bytes,
            blocks,
        });
    }

    fn push(&self, kept: Kept) {
        let mut total = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let (start, held) = (kept.start, kept.held());
        let max = self.max_bytes.load(Ordering::Relaxed);
        let block_bytes = BLOCK_BYTES.min(max / MIN_BLOCKS);
        let blocks = self.blocks.load();
        let open = blocks.back().filter(|block| {
            block.len.load(Ordering::Relaxed) < SLOTS
                && block.bytes.load(Ordering::Relaxed) < block_bytes
        });
        let block = if let Some(open) = open {
            Arc::clone(open)
        } else {
            let mut all = VecDeque::clone(&blocks);
            let begun = Arc::new(TailBlock::new(start));
            all.push_back(Arc::clone(&begun));
            trim(&mut all, &mut total, max.saturating_sub(held));
            self.blocks.store(Arc::new(all));
            begun
        };
        let at = block.len.load(Ordering::Relaxed);
        let set = block.slots[at].set((start, Arc::new(kept)));
        debug_assert!(set.is_ok(), "a slot is set once");
        block.bytes.fetch_add(held, Ordering::Relaxed);
        block.len.store(at + 1, Ordering::Release);
        *total += held;
    }

    /// The value of an entry.
    pub(crate) fn value(&self, entry: Entry) -> Option<LogBytes> {
        let pos = entry.pos();
        let kept = self.find(pos, &mut TailPlace::default())?;
        match entry.tag().form() {
            Form::Plain { len } => {
                let range = kept.value(pos, len)?;
                Some(LogBytes::Kept(kept, range))
            }
            Form::Packed { at, .. } => {
                let block = kept.block(pos)?;
                let range = block.value(at)?;
                Some(LogBytes::Block(block.bytes().clone(), range))
            }
        }
    }

    /// The batch that holds a log position. `near` is where the last one was found.
    pub(crate) fn find(&self, position: u64, near: &mut TailPlace) -> Option<Arc<Kept>> {
        if let Some((block, at)) = &mut near.0 {
            for next in *at..*at + NEAR {
                match block.slot(next) {
                    Some((_, kept)) if kept.holds(position) => {
                        *at = next;
                        return Some(Arc::clone(kept));
                    }
                    _ => {}
                }
            }
        }
        let blocks = self.blocks.load();
        let behind = blocks.partition_point(|block| block.start <= position);
        let block = blocks.get(behind.checked_sub(1)?)?;
        let at = block.search(position)?;
        let (_, kept) = block.slot(at)?;
        if !kept.holds(position) {
            return None;
        }
        let kept = Arc::clone(kept);
        near.0 = Some((Arc::clone(block), at));
        Some(kept)
    }
}
