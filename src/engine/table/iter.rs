//! A cursor over the entries of a table.
//!
//! It owns what it stands on: the table and the current block. Keys are put together in one buffer; values
//! are read where they lie. Going back, it decodes a restart interval once and remembers for each step only what
//! the step forward took away.

use std::sync::Arc;

use super::{
    Table,
    block::{BlockView, Entry, Place},
    format::{BlockHandle, Damage},
    held::Held,
    reader::Access,
};
use crate::{
    error::{Error, Result},
    iter::InternalIterator,
    key::InternalKey,
};

/// Bytes brought into memory at a time when blocks of a map are walked over in order.
const READ_AHEAD: usize = 256 << 10;

/// A cursor over one table.
pub(crate) struct TableIter {
    table: Arc<Table>,
    /// Keep blocks in the cache.
    keep: bool,
    valid: bool,
    /// Number of the current block, and where it stands in the file.
    ordinal: Option<usize>,
    handle: BlockHandle,
    block: Held,
    /// Where its key parts end, and its values.
    end: Place,
    /// Where the current entry begins, and the next.
    at: Place,
    next: Place,
    key: Vec<u8>,
    trailer: u64,
    /// Steps back within the current restart interval, the nearest last.
    back: Vec<StepBack>,
    /// Ends of keys that the steps back put on again, one after the other.
    tails: Vec<u8>,
    /// Blocks of the map before this offset of the file have been brought into memory.
    populated: u64,
}

/// How to go back by one entry.
struct StepBack {
    /// Bytes of the key that stay.
    shared: usize,
    /// Where the bytes begin that come behind them.
    tail: usize,
    at: Place,
    trailer: u64,
}

/// No place: no block is loaded.
const NOWHERE: Place = Place { key: 0, value: 0 };

impl TableIter {
    pub(super) fn new(table: Arc<Table>, keep: bool) -> Self {
        Self {
            table,
            keep,
            valid: false,
            ordinal: None,
            handle: BlockHandle { offset: 0, len: 0 },
            block: Held::NONE,
            end: NOWHERE,
            at: NOWHERE,
            next: NOWHERE,
            key: Vec::new(),
            trailer: 0,
            back: Vec::new(),
            tails: Vec::new(),
            populated: 0,
        }
    }

    fn damage(&self, what: Damage) -> Error {
        self.table.damage(self.handle.offset, what)
    }

    fn forget_steps(&mut self) {
        self.back.clear();
        self.tails.clear();
    }

    /// Makes a block the current one.
    fn load(&mut self, ordinal: usize) -> Result<()> {
        if self.ordinal == Some(ordinal) {
            return Ok(());
        }
        let sequential = self.ordinal.is_some_and(|before| before + 1 == ordinal);
        self.ordinal = None;
        self.handle = self.table.handle(ordinal);
        let populated = sequential && self.populate_ahead(ordinal)?;
        let access = Access {
            populated,
            keep: self.keep,
            wait: true,
        };
        self.block = self
            .table
            .data_block(ordinal, self.handle, access)?
            .counted();
        let view = BlockView::parse(self.block.bytes(&*self.table.file));
        let view = view.map_err(|what| self.damage(what))?;
        self.end = Place {
            key: view.keys.len(),
            value: view.values_end,
        };
        self.ordinal = Some(ordinal);
        Ok(())
    }

    /// Brings the current block and some after it into memory; true where it is there.
    fn populate_ahead(&mut self, ordinal: usize) -> Result<bool> {
        if !self.table.wants_populate(ordinal) {
            return Ok(false);
        }
        let end = self.handle.end().expect("checked with the handle");
        if end > self.populated {
            let ahead = (self.handle.offset + READ_AHEAD as u64)
                .max(end)
                .min(self.table.data_end());
            let len = usize::try_from(ahead - self.handle.offset).expect("a block or READ_AHEAD");
            self.table
                .file
                .populate(self.handle.offset, len)
                .map_err(|error| Error::io("read", &self.table.path, error))?;
            self.populated = ahead;
        }
        Ok(true)
    }

    /// To the entry at `at` of the block, of which the key buffer holds the one before; `remember` the way
    /// back to that.
    #[inline]
    fn step(&mut self, at: Place, remember: bool) -> Result<(), Damage> {
        let block = self.block.bytes(&*self.table.file);
        let entry = Entry::decode(&block[..self.end.key], at)?;
        if entry.shared > self.key.len() {
            return Err("entry shares more than there is");
        }
        entry.check(self.end.value)?;
        if remember {
            self.back.push(StepBack {
                shared: entry.shared,
                tail: self.tails.len(),
                at: self.at,
                trailer: self.trailer,
            });
            self.tails.extend_from_slice(&self.key[entry.shared..]);
        }
        self.key.truncate(entry.shared);
        self.key.extend_from_slice(entry.suffix);
        self.trailer = self.table.rule.apply(entry.trailer);
        self.at = at;
        self.next = entry.next;
        Ok(())
    }

    /// To the first entry of a block; not valid behind the last block.
    fn first_of(&mut self, ordinal: usize) -> Result<()> {
        self.valid = false;
        self.forget_steps();
        if ordinal >= self.table.data_blocks() {
            return Ok(());
        }
        self.load(ordinal)?;
        self.key.clear();
        let first = Place {
            key: 0,
            value: self.end.key,
        };
        self.step(first, false).map_err(|what| self.damage(what))?;
        self.valid = true;
        Ok(())
    }

    /// To the last entry of a block; not valid before the first block.
    fn last_of(&mut self, ordinal: Option<usize>) -> Result<()> {
        self.valid = false;
        let Some(ordinal) = ordinal else {
            return Ok(());
        };
        self.load(ordinal)?;
        self.last_before(self.end)
            .map_err(|what| self.damage(what))?;
        self.valid = true;
        Ok(())
    }

    /// To the entry before the one at `end`, from the restart point before it.
    fn last_before(&mut self, end: Place) -> Result<(), Damage> {
        self.forget_steps();
        let view = BlockView::parse(self.block.bytes(&*self.table.file))?;
        let restart = view.restart_below(end)?;
        self.key.clear();
        self.step(restart, false)?;
        while self.next.key < end.key {
            self.step(self.next, true)?;
        }
        if self.next == end {
            Ok(())
        } else {
            Err("entry runs over a restart point")
        }
    }

    /// To the first entry of the current block at or after `target`; false if there is none.
    fn find(&mut self, target: InternalKey<'_>) -> Result<bool, Damage> {
        let view = BlockView::parse(self.block.bytes(&*self.table.file))?;
        let restart = view.restart_before(target, self.table.rule)?;
        let Some(found) = view.find_from(restart, target, self.table.rule)? else {
            return Ok(false);
        };
        let entry = found.entry;
        self.key.clear();
        self.key.extend_from_slice(&target.user_key[..entry.shared]);
        self.key.extend_from_slice(entry.suffix);
        self.trailer = self.table.rule.apply(entry.trailer);
        self.at = entry.at;
        self.next = entry.next;
        Ok(true)
    }
}

impl InternalIterator for TableIter {
    fn valid(&self) -> bool {
        self.valid
    }

    fn key(&self) -> InternalKey<'_> {
        InternalKey {
            user_key: &self.key,
            trailer: self.trailer,
        }
    }

    fn value(&self) -> &[u8] {
        &self.block.bytes(&*self.table.file)[self.at.value..self.next.value]
    }

    fn seek_to_first(&mut self) -> Result<()> {
        self.first_of(0)
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.last_of(self.table.data_blocks().checked_sub(1))
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.valid = false;
        self.forget_steps();
        let Some(ordinal) = self.table.find_block(target)? else {
            return Ok(());
        };
        self.load(ordinal)?;
        if self.find(target).map_err(|what| self.damage(what))? {
            self.valid = true;
            return Ok(());
        }
        self.first_of(ordinal + 1)
    }

    fn seek_for_prev(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.seek(target)?;
        if !self.valid {
            return self.seek_to_last();
        }
        if self.key() == target {
            Ok(())
        } else {
            self.prev()
        }
    }

    fn next(&mut self) -> Result<()> {
        debug_assert!(self.valid, "a cursor on an entry");
        self.forget_steps();
        if self.next.key == self.end.key {
            return self.first_of(self.ordinal.map_or(0, |ordinal| ordinal + 1));
        }
        let result = self.step(self.next, false);
        self.valid = result.is_ok();
        result.map_err(|what| self.damage(what))
    }

    fn prev(&mut self) -> Result<()> {
        debug_assert!(self.valid, "a cursor on an entry");
        if let Some(step) = self.back.pop() {
            self.key.truncate(step.shared);
            self.key.extend_from_slice(&self.tails[step.tail..]);
            self.tails.truncate(step.tail);
            self.next = self.at;
            self.at = step.at;
            self.trailer = step.trailer;
            return Ok(());
        }
        if self.at.key == 0 {
            return self.last_of(self.ordinal.and_then(|ordinal| ordinal.checked_sub(1)));
        }
        let result = self.last_before(self.at);
        self.valid = result.is_ok();
        result.map_err(|what| self.damage(what))
    }
}
