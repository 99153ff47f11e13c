//! Iterators as the user sees them: a cursor, and a Rust iterator that can be taken from both ends.

use std::{
    ptr,
    sync::{Arc, Weak},
    time::Duration,
};

use crate::{
    column_family::{ColumnFamily, ReadState},
    db::DbInner,
    error::Result,
    faults::Fault,
    iter::user::UserIter,
    options::ReadOptions,
    read::state_for,
    slice::PinnedSlice,
    tables::Source,
    timing::{Sampled, is_sample},
};

/// A cursor over the entries of one family at one moment, in key order.
///
/// It is not positioned at first. After an error it is not valid until it is positioned again.
pub struct DbIter {
    inner: UserIter<Source>,
    cf: ColumnFamily,
    /// What was there to read when it was made, to be known again; empty for an append family.
    state: Weak<ReadState>,
    /// The memtable that took writes then is among its sources.
    has_active: bool,
    /// Holds the directory, so that nobody removes tables that are still to be opened.
    db: Arc<DbInner>,
}

impl DbIter {
    #[inline]
    pub(crate) fn open(
        db: &Arc<DbInner>,
        cf: &ColumnFamily,
        options: &ReadOptions,
    ) -> Result<Self> {
        if cf.is_append() {
            return Ok(Self {
                inner: db.user_iter(cf, options)?,
                cf: cf.clone(),
                state: Weak::new(),
                has_active: false,
                db: Arc::clone(db),
            });
        }
        let state = state_for(cf, options);
        let has_active = !state.active.memtable.is_empty();
        Ok(Self {
            inner: db.user_iter_in(cf, &state, options)?,
            cf: cf.clone(),
            state: Arc::downgrade(&state),
            has_active,
            db: Arc::clone(db),
        })
    }

    /// Goes on to the newest state, with the same bounds; a snapshot it was made with counts no more. Not positioned
    /// afterwards. Where nothing was flushed or compacted meanwhile that is a matter of nanoseconds, else what a new cursor
    /// costs; and what was held for the old state is let go.
    ///
    /// # Errors
    ///
    /// As for [`Db::iter`](crate::Db::iter); the cursor stays as it was then.
    pub fn refresh(&mut self) -> Result<()> {
        {
            // The state first, then the number, as for `get`; and then what the number makes visible: a range delete up to it
            // is in the memtable by now, and would not be seen.
            let now = self.cf.inner.peek();
            let active = &now.active.memtable;
            let mut seq = self.db.commit.visible();
            let is_same = ptr::eq(self.state.as_ptr(), Arc::as_ptr(&now))
                && (self.has_active || active.is_empty())
                && !active.has_tombstones();
            let is_same = is_same || self.db.options.faults.is(Fault::RefreshInPlace);
            if is_same && !self.cf.is_append() && !self.cf.is_dropped() {
                if self.db.options.faults.is(Fault::RefreshNumberLast) {
                    self.db.options.executor.rest(Duration::from_micros(20));
                    seq = self.db.commit.visible();
                }
                if self.inner.refresh(seq) {
                    return Ok(());
                }
            }
        }
        let (lower, upper) = self.inner.bounds();
        let options = ReadOptions {
            snapshot: None,
            lower,
            upper,
        };
        *self = Self::open(&self.db, &self.cf, &options)?;
        Ok(())
    }

    /// Seeks, timed if this one is a sample.
    fn sought(&mut self, seek: impl FnOnce(&mut UserIter<Source>) -> Result<()>) -> Result<()> {
        if !is_sample(Sampled::Seek, self.db.options.stats_sampling) {
            return seek(&mut self.inner);
        }
        let begun = self.db.options.executor.now();
        let result = seek(&mut self.inner);
        let took = self.db.options.executor.now().saturating_sub(begun);
        self.db.timers.seek.record(took);
        result
    }

    /// True while it stands on an entry.
    #[must_use]
    pub fn valid(&self) -> bool {
        self.inner.valid()
    }

    /// Key of the entry it stands on; to be asked only while `valid`.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.inner.key()
    }

    /// Value of the entry it stands on; to be asked only while `valid`.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        self.inner.value()
    }

    /// To the first entry within the bounds.
    ///
    /// # Errors
    ///
    /// `Corruption` or `Io` from a table on the way, here and in all moves.
    pub fn seek_to_first(&mut self) -> Result<()> {
        self.sought(UserIter::seek_to_first)
    }

    /// To the last entry within the bounds.
    ///
    /// # Errors
    ///
    /// As for [`DbIter::seek_to_first`].
    pub fn seek_to_last(&mut self) -> Result<()> {
        self.sought(UserIter::seek_to_last)
    }

    /// To the first entry at or after `key`.
    ///
    /// # Errors
    ///
    /// As for [`DbIter::seek_to_first`].
    pub fn seek(&mut self, key: &[u8]) -> Result<()> {
        self.sought(|inner| inner.seek(key))
    }

    /// To the last entry at or before `key`.
    ///
    /// # Errors
    ///
    /// As for [`DbIter::seek_to_first`].
    pub fn seek_for_prev(&mut self, key: &[u8]) -> Result<()> {
        self.sought(|inner| inner.seek_for_prev(key))
    }

    /// To the next entry; nothing happens where it is not valid.
    ///
    /// # Errors
    ///
    /// As for [`DbIter::seek_to_first`].
    #[expect(
        clippy::should_implement_trait,
        reason = "a cursor moves; it does not hand out items"
    )]
    pub fn next(&mut self) -> Result<()> {
        if self.valid() {
            self.inner.next()
        } else {
            Ok(())
        }
    }

    /// To the previous entry; nothing happens where it is not valid.
    ///
    /// # Errors
    ///
    /// As for [`DbIter::seek_to_first`].
    pub fn prev(&mut self) -> Result<()> {
        if self.valid() {
            self.inner.prev()
        } else {
            Ok(())
        }
    }
}

impl std::fmt::Debug for DbIter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = self.valid().then(|| self.key().escape_ascii().to_string());
        f.debug_struct("DbIter").field("at", &key).finish()
    }
}

/// The entries of a range at one moment, as a Rust iterator that can be taken from both ends.
///
/// Taking from one end for long is as cheap as a cursor; each change of the end costs a seek.
pub struct DbRange {
    iter: UserIter<Source>,
    /// Last key given out at each end.
    front: Option<Vec<u8>>,
    back: Option<Vec<u8>>,
    /// Which end the cursor stands at.
    at: End,
    done: bool,
    /// Holds the directory, as for [`DbIter`].
    _db: Arc<DbInner>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Nowhere,
    Front,
    Back,
}

/// Key and value of an entry.
pub type KeyValue = (Vec<u8>, PinnedSlice);

impl DbRange {
    pub(crate) fn new(iter: UserIter<Source>, db: Arc<DbInner>) -> Self {
        Self {
            iter,
            _db: db,
            front: None,
            back: None,
            at: End::Nowhere,
            done: false,
        }
    }

    fn forward(&mut self) -> Result<()> {
        match (self.at, &self.front) {
            (End::Front, _) => self.iter.next()?,
            (_, None) => self.iter.seek_to_first()?,
            (_, Some(key)) => {
                self.iter.seek(key)?;
                if self.iter.valid() && self.iter.key() == key.as_slice() {
                    self.iter.next()?;
                }
            }
        }
        self.at = End::Front;
        Ok(())
    }

    fn backward(&mut self) -> Result<()> {
        match (self.at, &self.back) {
            (End::Back, _) => self.iter.prev()?,
            (_, None) => self.iter.seek_to_last()?,
            (_, Some(key)) => {
                self.iter.seek_for_prev(key)?;
                if self.iter.valid() && self.iter.key() == key.as_slice() {
                    self.iter.prev()?;
                }
            }
        }
        self.at = End::Back;
        Ok(())
    }

    /// What the move came to: an entry, the end (the other end's last one), or an error.
    fn take(&mut self, moved: Result<()>) -> Option<Result<KeyValue>> {
        if let Err(error) = moved {
            self.done = true;
            return Some(Err(error));
        }
        let met = self
            .iter
            .valid()
            .then(|| self.iter.key())
            .is_none_or(|key| match self.at {
                End::Front => self.back.as_deref().is_some_and(|back| key >= back),
                _ => self.front.as_deref().is_some_and(|front| key <= front),
            });
        if met {
            self.done = true;
            return None;
        }
        let key = self.iter.key().to_vec();
        let value = self.iter.value_slice();
        let last = if self.at == End::Front {
            &mut self.front
        } else {
            &mut self.back
        };
        last.get_or_insert_default().clone_from(&key);
        Some(Ok((key, value)))
    }
}

impl Iterator for DbRange {
    type Item = Result<KeyValue>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let moved = self.forward();
        self.take(moved)
    }
}

impl DoubleEndedIterator for DbRange {
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let moved = self.backward();
        self.take(moved)
    }
}

impl std::fmt::Debug for DbRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DbRange").field("done", &self.done).finish()
    }
}
