//! Cursors over internal keys: the trait they share, and the rooms of this folder.

use crate::{error::Result, key::InternalKey};

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
