//! The cursor of a memtable.
//!
//! It copies some neighbouring handles at a time, as of a leaf of the tree, so that an idle cursor holds back nobody.
//! An entry that is inserted within what was copied already is not seen there. A reader does not miss
//! it: entries at or below a published sequence number were in before the number was published.

#![expect(
    unsafe_code,
    reason = "reads through handles into the arena of the memtable it owns"
)]

use std::{ops::Bound, sync::Arc};

use super::{Handle, Memtable};
use crate::{error::Result, iter::InternalIterator, key::InternalKey};

/// A cursor over the entries of a memtable, which it keeps alive.
pub(crate) struct MemtableIter {
    memtable: Arc<Memtable>,
    /// Neighbours in `memtable.order`, ascending.
    chunk: Vec<Handle>,
    /// Index of the current entry in `chunk`; its length where there is none.
    at: usize,
}

impl MemtableIter {
    pub(super) fn new(memtable: Arc<Memtable>) -> Self {
        Self {
            memtable,
            chunk: Vec::new(),
            at: 0,
        }
    }

    fn current(&self) -> Handle {
        assert!(
            self.valid(),
            "a cursor is read only while it stands on an entry"
        );
        self.chunk[self.at]
    }

    /// Copies entries from the first one within `bound` on, and stands on that.
    fn copy_forward(&mut self, bound: Bound<&Handle>) {
        self.memtable.order.copy_forward(bound, &mut self.chunk);
        self.at = 0;
    }

    /// Copies entries up to the last one within `bound`, and stands on that.
    fn copy_backward(&mut self, bound: Bound<&Handle>) {
        self.memtable.order.copy_backward(bound, &mut self.chunk);
        self.at = self.chunk.len().saturating_sub(1);
    }
}

impl InternalIterator for MemtableIter {
    fn valid(&self) -> bool {
        self.at < self.chunk.len()
    }

    fn key(&self) -> InternalKey<'_> {
        // SAFETY: the handle is of `order`, and its bytes are in the arena of `memtable`, which
        // `self` keeps for as long as the result borrows it.
        unsafe { self.current().key() }
    }

    fn value(&self) -> &[u8] {
        // SAFETY: as for the key.
        unsafe { self.current().value() }
    }

    fn seek_to_first(&mut self) -> Result<()> {
        self.copy_forward(Bound::Unbounded);
        Ok(())
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.copy_backward(Bound::Unbounded);
        Ok(())
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.copy_forward(Bound::Included(&Handle::lookup(target)));
        Ok(())
    }

    fn seek_for_prev(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.copy_backward(Bound::Included(&Handle::lookup(target)));
        Ok(())
    }

    fn next(&mut self) -> Result<()> {
        let last = self.current();
        self.at += 1;
        if self.at == self.chunk.len() {
            self.copy_forward(Bound::Excluded(&last));
        }
        Ok(())
    }

    fn prev(&mut self) -> Result<()> {
        let first = self.current();
        if self.at == 0 {
            self.copy_backward(Bound::Excluded(&first));
        } else {
            self.at -= 1;
        }
        Ok(())
    }
}
