//! What a reader sees: the newest visible version of each key, as of one sequence number.
//!
//! Hides versions above the number, older versions, deleted keys, and what a range delete covers; keeps
//! within bounds. Where hidden entries are many it seeks past them instead of stepping: versions of one
//! key, and the ranges of range deletes in runs that hold only older entries.
//!
//! Not here: what keeps memtables and tables alive, and the choice of the sequence number.

use std::{mem, path::PathBuf, sync::Arc};

use super::{
    InternalIterator, MergingIter,
    covering::{Covering, covering},
    merging::before_all_versions,
};
use crate::{
    clock::{Life, TIME_LEN, split_time},
    error::{Error, Result},
    key::{InternalKey, SequenceNumber, ValueKind, key_prefix, trailer_kind, trailer_seq},
    merge::{Chain, Merger},
    read::NO_TIME,
    slice::PinnedSlice,
    tombstones::Tombstones,
    version::{TableOpener, Version},
};

/// Entries passed one by one before a seek past all of their kind is worth it.
const MAX_STEPS: usize = 8;

/// A cursor over user keys and their values.
pub(crate) struct UserIter<I> {
    inner: MergingIter<I>,
    /// One for each set that deletes anything.
    tombstones: Vec<Covering>,
    at: SequenceNumber,
    lower: Option<Vec<u8>>,
    upper: Option<Vec<u8>>,
    state: State,
    /// Backward and merged: the current key. Forward: the key whose versions are being passed.
    key: Vec<u8>,
    /// Backward and merged: the current value.
    value: Vec<u8>,
    /// Reads the values that entries point to; and the version whose tables hold the value files.
    pointers: Option<(Arc<dyn TableOpener>, Arc<Version>)>,
    /// The current value, where the entry points to it.
    pointed: Option<PinnedSlice>,
    /// Who makes a value of operands.
    merger: Option<Arc<Merger>>,
    /// Which rows are past their time, where they have one behind their values.
    life: Option<Life>,
    /// Bytes behind each value.
    behind: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Invalid,
    /// `inner` stands on the current entry.
    Forward,
    /// The current entry is in `key` and `value`; `inner` stands before all versions of the key.
    Backward,
    /// The current entry is in `key` and `value`; `inner` stands behind what it was made of, on another version of the key
    /// or behind all of them.
    Merged,
}

/// Which versions of `UserIter::key` do not count.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    None,
    /// Those the reader is too old to see.
    Newer,
    /// All, because the newest visible one was dealt with.
    All,
}

impl<I: InternalIterator> UserIter<I> {
    /// A cursor over what a reader at `at` sees of `inner` under all `tombstones`, within `lower..upper`;
    /// not valid until positioned.
    pub(crate) fn new(
        inner: MergingIter<I>,
        tombstones: Vec<Arc<Tombstones>>,
        at: SequenceNumber,
        lower: Option<Vec<u8>>,
        upper: Option<Vec<u8>>,
    ) -> Self {
        let cursor = |set: Arc<Tombstones>| (!set.is_empty()).then(|| Covering::set(set, at));
        let tombstones = tombstones.into_iter().filter_map(cursor).collect();
        let (key, value) = (Vec::new(), Vec::new());
        Self {
            inner,
            tombstones,
            at,
            lower,
            upper,
            state: State::Invalid,
            key,
            value,
            pointers: None,
            pointed: None,
            merger: None,
            life: None,
            behind: 0,
        }
    }

    /// The same, with entries of tables of `version` that point to their values.
    pub(crate) fn reading(mut self, pointers: Arc<dyn TableOpener>, version: Arc<Version>) -> Self {
        self.pointers = Some((pointers, version));
        self
    }

    /// Reads as of `at` from now on, unpositioned; false, and nothing is changed, where range deletes are among what it
    /// reads: those it would have to look at anew; or where rows have a time to live.
    pub(crate) fn refresh(&mut self, at: SequenceNumber) -> bool {
        if !self.tombstones.is_empty() || self.life.is_some() {
            return false;
        }
        self.at = at;
        self.state = State::Invalid;
        true
    }

    /// The bounds.
    pub(crate) fn bounds(&self) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
        (self.lower.clone(), self.upper.clone())
    }

    /// The same under more range deletes, as a reader at the same number sees them.
    pub(crate) fn under(mut self, more: Vec<Covering>) -> Self {
        self.tombstones.extend(more);
        self
    }

    /// The same for a family whose rows have a time to live.
    pub(crate) fn living(mut self, life: Option<Life>) -> Self {
        self.behind = life.map_or(0, |_| TIME_LEN);
        self.life = life;
        self
    }

    /// The same for a family that takes merges.
    pub(crate) fn merging(mut self, merger: Option<Arc<Merger>>) -> Self {
        self.merger = merger;
        self
    }

    /// True while it stands on an entry.
    pub(crate) fn valid(&self) -> bool {
        self.state != State::Invalid
    }

    /// The current key; only while `valid`.
    pub(crate) fn key(&self) -> &[u8] {
        match self.state {
            State::Forward => self.inner.key().user_key,
            State::Backward | State::Merged => &self.key,
            State::Invalid => panic!("key of a cursor that stands on no entry"),
        }
    }

    /// The current value; only while `valid`.
    pub(crate) fn value(&self) -> &[u8] {
        match self.state {
            State::Forward | State::Backward if self.pointed.is_some() => {
                self.pointed.as_deref().unwrap_or_default()
            }
            State::Forward => {
                let value = self.inner.value();
                // Looked at when it came to stand here.
                &value[..value.len() - self.behind]
            }
            State::Backward | State::Merged => &self.value[..self.value.len() - self.behind],
            State::Invalid => panic!("value of a cursor that stands on no entry"),
        }
    }

    /// To the first key within the bounds.
    pub(crate) fn seek_to_first(&mut self) -> Result<()> {
        self.seek(b"")
    }

    /// To the last key within the bounds.
    pub(crate) fn seek_to_last(&mut self) -> Result<()> {
        self.state = State::Invalid;
        match &self.upper {
            Some(upper) => self.inner.seek_for_prev(before_all_versions(upper))?,
            None => self.inner.seek_to_last()?,
        }
        self.find_backward()
    }

    /// To the first key at or after `key` within the bounds.
    pub(crate) fn seek(&mut self, key: &[u8]) -> Result<()> {
        self.state = State::Invalid;
        let from = self.lower.as_deref().map_or(key, |lower| lower.max(key));
        if self.upper.as_deref().is_some_and(|upper| upper <= from) {
            return Ok(());
        }
        self.inner.seek(InternalKey::seek_to(from, self.at))?;
        self.find_forward(Pass::None)
    }

    /// To the last key at or before `key` within the bounds.
    pub(crate) fn seek_for_prev(&mut self, key: &[u8]) -> Result<()> {
        if self.upper.as_deref().is_some_and(|upper| upper <= key) {
            return self.seek_to_last();
        }
        self.state = State::Invalid;
        self.inner.seek_for_prev(last_version(key))?;
        self.find_backward()
    }

    /// To the next key; nothing happens where it is not valid.
    pub(crate) fn next(&mut self) -> Result<()> {
        match mem::replace(&mut self.state, State::Invalid) {
            State::Invalid => return Ok(()),
            State::Forward => {
                copy_to(&mut self.key, self.inner.key().user_key);
                self.inner.next()?;
            }
            State::Backward => self.inner.seek(last_version(&self.key))?,
            State::Merged => {}
        }
        self.find_forward(Pass::All)
    }

    /// To the previous key; nothing happens where it is not valid.
    pub(crate) fn prev(&mut self) -> Result<()> {
        match mem::replace(&mut self.state, State::Invalid) {
            State::Invalid => return Ok(()),
            State::Forward => {
                copy_to(&mut self.key, self.inner.key().user_key);
                self.leave_key_backward()?;
            }
            State::Backward => {}
            State::Merged => self.inner.seek_for_prev(before_all_versions(&self.key))?,
        }
        self.find_backward()
    }

    /// From where `inner` stands, forward to an entry to show. `pass` says what of `key` to pass over.
    fn find_forward(&mut self, mut pass: Pass) -> Result<()> {
        let (mut passed, mut dead) = (0, 0_usize);
        while self.inner.valid() {
            let InternalKey { user_key, trailer } = self.inner.key();
            if self.upper.as_deref().is_some_and(|upper| upper <= user_key) {
                return Ok(());
            }
            let newer = trailer_seq(trailer) > self.at;
            if pass != Pass::None && (newer || pass == Pass::All) && is_same(user_key, &self.key) {
                passed += 1;
                self.pass_version(pass, passed)?;
                continue;
            }
            let kind = kind(trailer)?;
            if newer || kind == ValueKind::Delete {
                copy_to(&mut self.key, user_key);
                (pass, passed) = (if newer { Pass::Newer } else { Pass::All }, 0);
                self.inner.next()?;
                continue;
            }
            match covering(&mut self.tombstones, user_key)? {
                Some(cover) if cover.seq > trailer_seq(trailer) => {
                    dead += 1;
                    if dead.is_multiple_of(MAX_STEPS) {
                        self.inner.skip_dead(cover.end, cover.seq)?;
                    } else {
                        self.inner.next()?;
                    }
                }
                cover if kind == ValueKind::Merge => {
                    let covered = cover.map_or(SequenceNumber::ZERO, |cover| cover.seq);
                    copy_to(&mut self.key, user_key);
                    self.merge(covered)?;
                    self.state = State::Merged;
                    return Ok(());
                }
                _ if self.life.is_some() && is_over(self.life, self.inner.value())? => {
                    copy_to(&mut self.key, user_key);
                    (pass, passed) = (Pass::All, 0);
                    self.inner.next()?;
                }
                _ => {
                    self.follow(trailer, true)?;
                    self.state = State::Forward;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The current value, in place where it can be held there.
    pub(crate) fn value_slice(&self) -> PinnedSlice {
        match (&self.pointed, self.state) {
            (Some(value), State::Forward | State::Backward) => value.clone(),
            _ => PinnedSlice::copied(self.value()),
        }
    }

    /// Reads the value of the entry to be shown, whose trailer is given, where it only points to it.
    #[inline]
    fn follow(&mut self, trailer: u64, forward: bool) -> Result<()> {
        if trailer_kind(trailer) == Some(ValueKind::Pointer) {
            let pointer = if forward {
                self.inner.value()
            } else {
                &self.value
            };
            self.pointed = Some(self.read_pointed(pointer)?);
        } else if self.pointed.is_some() {
            self.pointed = None;
        }
        Ok(())
    }

    /// The value that a pointer stands for.
    fn read_pointed(&self, pointer: &[u8]) -> Result<PinnedSlice> {
        let (pointers, _) = self.pointers.as_ref().ok_or_else(|| {
            let what = "an entry points to a value where none can";
            Error::corruption(PathBuf::new(), 0, what)
        })?;
        pointers.value(pointer)
    }

    /// Makes `value` of the operands of `key` from the current one on, where range deletes hide what is below `covered`,
    /// and leaves `inner` behind what it took.
    #[cold]
    fn merge(&mut self, covered: SequenceNumber) -> Result<()> {
        let Some(merger) = self.merger.clone() else {
            let what = "an operand in a family without a merge operator";
            return Err(Error::corruption(PathBuf::new(), 0, what));
        };
        merger.check_given().map_err(Error::invalid)?;
        let mut chain = Chain::default();
        let mut base = None;
        let mut pointed = None;
        while self.inner.valid() && is_same(self.inner.key().user_key, &self.key) {
            let trailer = self.inner.key().trailer;
            if trailer_seq(trailer) < covered {
                break;
            }
            match kind(trailer)? {
                ValueKind::Merge => chain.push(trailer, self.inner.value()),
                ValueKind::Put => {
                    base = Some(self.inner.value());
                    break;
                }
                ValueKind::Pointer => {
                    pointed = Some(self.read_pointed(self.inner.value())?);
                    break;
                }
                ValueKind::Delete => break,
            }
            self.inner.next()?;
        }
        let base = base.or(pointed.as_deref());
        merger.full(&self.key, base, &chain, &mut self.value)
    }

    /// Leaves a version of `key` that does not count, the `passed`-th in a row.
    fn pass_version(&mut self, pass: Pass, passed: usize) -> Result<()> {
        if !passed.is_multiple_of(MAX_STEPS) {
            return self.inner.next();
        }
        let past = match pass {
            Pass::Newer => InternalKey::seek_to(&self.key, self.at),
            Pass::All | Pass::None => last_version(&self.key),
        };
        // The target may itself be an entry that is to be passed: it is stepped over next.
        self.inner.seek(past)
    }

    /// From where `inner` stands, at the oldest version of a key, backward to an entry to show.
    fn find_backward(&mut self) -> Result<()> {
        let mut dead = 0_usize;
        while self.inner.valid() {
            let user_key = self.inner.key().user_key;
            if self.lower.as_deref().is_some_and(|lower| user_key < lower) {
                return Ok(());
            }
            copy_to(&mut self.key, user_key);
            let Some(trailer) = self.take_newest_visible()? else {
                continue;
            };
            let kind = kind(trailer)?;
            if kind == ValueKind::Delete {
                continue;
            }
            match covering(&mut self.tombstones, &self.key)? {
                Some(cover) if cover.seq > trailer_seq(trailer) => {
                    dead += 1;
                    if dead.is_multiple_of(MAX_STEPS) {
                        self.inner.skip_dead(cover.start, cover.seq)?;
                    }
                }
                cover => {
                    if self.life.is_some() && is_over(self.life, &self.value)? {
                        continue;
                    }
                    let covered = cover.map_or(SequenceNumber::ZERO, |cover| cover.seq);
                    self.follow(trailer, false)?;
                    if kind == ValueKind::Merge {
                        self.inner.seek(InternalKey::seek_to(&self.key, self.at))?;
                        self.merge(covered)?;
                        self.inner.seek_for_prev(before_all_versions(&self.key))?;
                    }
                    self.state = State::Backward;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Walks from the oldest version of `key` to before all of them. Gives the trailer of the newest
    /// visible one and keeps its value.
    fn take_newest_visible(&mut self) -> Result<Option<u64>> {
        let mut newest = None;
        for _ in 0..MAX_STEPS {
            if !self.inner.valid() || !is_same(self.inner.key().user_key, &self.key) {
                return Ok(newest);
            }
            let trailer = self.inner.key().trailer;
            if trailer_seq(trailer) <= self.at {
                newest = Some(trailer);
                copy_to(&mut self.value, self.inner.value());
            }
            self.inner.prev()?;
        }
        self.inner.seek(InternalKey::seek_to(&self.key, self.at))?;
        if self.inner.valid() && is_same(self.inner.key().user_key, &self.key) {
            newest = Some(self.inner.key().trailer);
            copy_to(&mut self.value, self.inner.value());
        }
        self.inner.seek_for_prev(before_all_versions(&self.key))?;
        Ok(newest)
    }

    /// Moves `inner` from a version of `key` to before all of them.
    fn leave_key_backward(&mut self) -> Result<()> {
        for _ in 0..MAX_STEPS {
            self.inner.prev()?;
            if !self.inner.valid() || !is_same(self.inner.key().user_key, &self.key) {
                return Ok(());
            }
        }
        self.inner.seek_for_prev(before_all_versions(&self.key))
    }
}

/// The internal key at or after all versions of a user key.
fn last_version(user_key: &[u8]) -> InternalKey<'_> {
    InternalKey {
        user_key,
        trailer: 0,
    }
}

/// What an entry says; runs check it when they read, so that only damage in memory gets here.
fn kind(trailer: u64) -> Result<ValueKind> {
    trailer_kind(trailer).ok_or_else(|| {
        Error::corruption(
            PathBuf::new(),
            0,
            format!("entry of unknown kind {}", trailer & 0xff),
        )
    })
}

/// True for a row that is past its time.
fn is_over(life: Option<Life>, value: &[u8]) -> Result<bool> {
    let (_, time) =
        split_time(value).ok_or_else(|| Error::corruption(PathBuf::new(), 0, NO_TIME))?;
    Ok(life.is_some_and(|life| life.is_over(time)))
}

/// True for equal keys. Unequal ones mostly differ in their prefixes, which are compared without a call.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && key_prefix(a) == key_prefix(b) && a == b
}

fn copy_to(buffer: &mut Vec<u8>, bytes: &[u8]) {
    buffer.clear();
    buffer.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests;
