//! A cursor over one sorted run: tables that follow each other without overlap.
//!
//! At most one table of the run is open at a time, and none before the first seek.

use super::InternalIterator;
use crate::{error::Result, key::InternalKey};

/// The tables of a sorted run, ascending. Give only those a reader's bounds touch: the others are
/// then never opened.
pub(crate) trait RunSource {
    /// A cursor over one table.
    type Iter: InternalIterator;

    /// Number of tables.
    fn len(&self) -> usize;
    /// User key that none in table `index` is below.
    fn smallest(&self, index: usize) -> &[u8];
    /// User key that none in table `index` is above. The next table may begin with it, where this one
    /// only has a range delete that ends there.
    fn largest(&self, index: usize) -> &[u8];
    /// Number of tables at the start that end below `user_key`. Not counted may be one whose end it is.
    fn ending_below(&self, user_key: &[u8]) -> usize {
        first_not(self.len(), |index| self.largest(index) < user_key)
    }
    /// Number of tables that start at or before `user_key`.
    fn starting_by(&self, user_key: &[u8]) -> usize {
        first_not(self.len(), |index| self.smallest(index) <= user_key)
    }
    /// A cursor over table `index`.
    fn open(&self, index: usize) -> Result<Self::Iter>;
}

/// The entries of all tables of a run.
pub(crate) struct LevelIter<S: RunSource> {
    run: S,
    /// The open table and its index.
    open: Option<(usize, S::Iter)>,
}

impl<S: RunSource> LevelIter<S> {
    /// A cursor over `run`; it opens nothing until positioned.
    pub(crate) fn new(run: S) -> Self {
        Self { run, open: None }
    }

    /// Places the cursor of table `index`, opening it first if it is not the open one; no table where
    /// there is none of that index.
    fn place(
        &mut self,
        index: Option<usize>,
        place: impl FnOnce(&mut S::Iter) -> Result<()>,
    ) -> Result<()> {
        let open = self.open.take();
        let Some(index) = index.filter(|&index| index < self.run.len()) else {
            return Ok(());
        };
        let mut table = match open {
            Some((was, table)) if was == index => table,
            _ => self.run.open(index)?,
        };
        place(&mut table)?;
        self.open = Some((index, table));
        Ok(())
    }

    /// Goes on to further tables while the open one is at its end. A table may hold nothing but range
    /// deletes, or nothing at or after the target.
    fn settle_forward(&mut self, place: impl Fn(&mut S::Iter) -> Result<()>) -> Result<()> {
        while let Some((index, table)) = &self.open
            && !table.valid()
        {
            self.place(index.checked_add(1), &place)?;
        }
        Ok(())
    }

    fn settle_backward(&mut self, place: impl Fn(&mut S::Iter) -> Result<()>) -> Result<()> {
        while let Some((index, table)) = &self.open
            && !table.valid()
        {
            self.place(index.checked_sub(1), &place)?;
        }
        Ok(())
    }

    fn table(&self) -> &S::Iter {
        let (_, table) = self
            .open
            .as_ref()
            .expect("a cursor is read only while valid");
        table
    }

    fn table_mut(&mut self) -> &mut S::Iter {
        let (_, table) = self
            .open
            .as_mut()
            .expect("a cursor is moved only while valid");
        table
    }
}

/// The first of `len` indices for which `holds` is not true; it is true of a first part of them.
fn first_not(len: usize, holds: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, len);
    while low < high {
        let middle = low.midpoint(high);
        if holds(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

impl<S: RunSource> InternalIterator for LevelIter<S> {
    fn valid(&self) -> bool {
        self.open.as_ref().is_some_and(|(_, table)| table.valid())
    }

    fn key(&self) -> InternalKey<'_> {
        self.table().key()
    }

    fn value(&self) -> &[u8] {
        self.table().value()
    }

    fn seek_to_first(&mut self) -> Result<()> {
        self.place(Some(0), S::Iter::seek_to_first)?;
        self.settle_forward(S::Iter::seek_to_first)
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.place(self.run.len().checked_sub(1), S::Iter::seek_to_last)?;
        self.settle_backward(S::Iter::seek_to_last)
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        let index = self.run.ending_below(target.user_key);
        // The table after this one may begin with the target's user key: seek there too.
        self.place(Some(index), |table| table.seek(target))?;
        self.settle_forward(|table| table.seek(target))
    }

    fn seek_for_prev(&mut self, target: InternalKey<'_>) -> Result<()> {
        let after = self.run.starting_by(target.user_key);
        self.place(after.checked_sub(1), |table| table.seek_for_prev(target))?;
        self.settle_backward(|table| table.seek_for_prev(target))
    }

    fn next(&mut self) -> Result<()> {
        self.table_mut().next()?;
        self.settle_forward(S::Iter::seek_to_first)
    }

    fn prev(&mut self) -> Result<()> {
        self.table_mut().prev()?;
        self.settle_backward(S::Iter::seek_to_last)
    }
}

#[cfg(test)]
mod tests;
