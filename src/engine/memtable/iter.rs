//! The cursor of a memtable.
//!
//! It copies handles in chunks, each under one epoch pin, so that an idle cursor holds back nobody.
//! An entry that is inserted within a chunk already copied is not seen there. A reader does not miss
//! it: entries at or below a published sequence number were in before the number was published.

#![expect(
    unsafe_code,
    reason = "reads through handles into the arena of the memtable it owns"
)]

use std::{ops::Bound, sync::Arc};

use crossbeam_epoch as epoch;

use super::{Handle, Memtable};
use crate::{error::Result, iter::InternalIterator, key::InternalKey};

/// Handles copied after a seek; each further chunk is twice the last.
const FIRST_CHUNK: usize = 4;
/// Most handles copied forward at a time.
const LAST_CHUNK: usize = 64;
/// Most handles copied backward at a time: each takes a search, because the list has no links back.
const LAST_CHUNK_BACKWARD: usize = 8;

/// A cursor over the entries of a memtable, which it keeps alive.
pub(crate) struct MemtableIter {
    memtable: Arc<Memtable>,
    /// Handles of `memtable.list`, ascending.
    chunk: Vec<Handle>,
    /// Index of the current entry in `chunk`; its length where there is none.
    at: usize,
    /// Handles to copy next time.
    want: usize,
}

impl MemtableIter {
    pub(super) fn new(memtable: Arc<Memtable>) -> Self {
        Self {
            memtable,
            chunk: Vec::new(),
            at: 0,
            want: FIRST_CHUNK,
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
        self.chunk.clear();
        self.at = 0;
        let guard = epoch::pin();
        let mut entry = self.memtable.list.lower_bound(bound, &guard);
        while let Some(found) = entry {
            self.chunk.push(*found.key());
            if self.chunk.len() == self.want {
                break;
            }
            entry = found.next();
        }
        self.want = (self.want * 2).min(LAST_CHUNK);
    }

    /// Copies entries from the last one within `bound` backwards, and stands on that.
    fn copy_backward(&mut self, bound: Bound<&Handle>) {
        self.chunk.clear();
        let guard = epoch::pin();
        let want = self.want.min(LAST_CHUNK_BACKWARD);
        let mut entry = self.memtable.list.upper_bound(bound, &guard);
        while let Some(found) = entry {
            self.chunk.push(*found.key());
            if self.chunk.len() == want {
                break;
            }
            entry = found.prev();
        }
        self.chunk.reverse();
        self.at = self.chunk.len().saturating_sub(1);
        self.want = (self.want * 2).min(LAST_CHUNK);
    }
}

impl InternalIterator for MemtableIter {
    fn valid(&self) -> bool {
        self.at < self.chunk.len()
    }

    fn key(&self) -> InternalKey<'_> {
        // SAFETY: the handle is of the list, and its bytes are in the arena of `memtable`, which
        // `self` keeps for as long as the result borrows it.
        unsafe { self.current().key() }
    }

    fn value(&self) -> &[u8] {
        // SAFETY: as for the key.
        unsafe { self.current().value() }
    }

    fn seek_to_first(&mut self) -> Result<()> {
        self.want = FIRST_CHUNK;
        self.copy_forward(Bound::Unbounded);
        Ok(())
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.want = FIRST_CHUNK;
        self.copy_backward(Bound::Unbounded);
        Ok(())
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.want = FIRST_CHUNK;
        self.copy_forward(Bound::Included(&Handle::lookup(target)));
        Ok(())
    }

    fn seek_for_prev(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.want = FIRST_CHUNK;
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
