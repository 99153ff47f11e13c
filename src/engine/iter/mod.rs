//! Cursors over internal keys: the trait they share, and the rooms of this folder.

use crate::{error::Result, key::InternalKey};

pub(crate) mod concat;
pub(crate) mod covering;
pub(crate) mod merging;
pub(crate) mod user;

#[cfg(test)]
mod model;

pub(crate) use concat::{LevelIter, RunSource};
pub(crate) use merging::MergingIter;

/// A cursor over entries in internal-key order (user keys ascend, newest version first).
///
/// After a call that returned an error the cursor is not valid until it is positioned again.
/// `key` and `value` may be called only while `valid`.
pub(crate) trait InternalIterator {
    /// True while it stands on an entry.
    fn valid(&self) -> bool;
    /// Key of the current entry.
    fn key(&self) -> InternalKey<'_>;
    /// Value of the current entry; empty for a delete.
    fn value(&self) -> &[u8];
    /// To the first entry.
    fn seek_to_first(&mut self) -> Result<()>;
    /// To the last entry.
    fn seek_to_last(&mut self) -> Result<()>;
    /// To the first entry at or after `target`.
    fn seek(&mut self, target: InternalKey<'_>) -> Result<()>;
    /// To the last entry at or before `target`.
    fn seek_for_prev(&mut self, target: InternalKey<'_>) -> Result<()>;
    /// To the next entry; only while `valid`.
    fn next(&mut self) -> Result<()>;
    /// To the previous entry; only while `valid`.
    fn prev(&mut self) -> Result<()>;
}

/// A cursor of any kind.
pub(crate) type BoxedIter = Box<dyn InternalIterator + Send>;

impl InternalIterator for BoxedIter {
    fn valid(&self) -> bool {
        (**self).valid()
    }

    fn key(&self) -> InternalKey<'_> {
        (**self).key()
    }

    fn value(&self) -> &[u8] {
        (**self).value()
    }

    fn seek_to_first(&mut self) -> Result<()> {
        (**self).seek_to_first()
    }

    fn seek_to_last(&mut self) -> Result<()> {
        (**self).seek_to_last()
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        (**self).seek(target)
    }

    fn seek_for_prev(&mut self, target: InternalKey<'_>) -> Result<()> {
        (**self).seek_for_prev(target)
    }

    fn next(&mut self) -> Result<()> {
        (**self).next()
    }

    fn prev(&mut self) -> Result<()> {
        (**self).prev()
    }
}
