//! A cursor over an append family: over a view of its index, with the value of the current entry read ahead.

use std::{cmp::Ordering, sync::Arc};

use crate::{
    column_family::ColumnFamily,
    error::{Error, Result},
    iter::InternalIterator,
    key::{InternalKey, ValueKind, pack_trailer},
};

use super::{AppendFamily, INDEX_LEN, Index, LogReader, Place, ValueCrc, chunk::Chunk};

/// Where a prefix stands in a view, and an index under it.
type At = ((usize, usize), u64);

/// A cursor over a view.
pub(crate) struct AppendIter {
    family: ColumnFamily,
    view: Arc<Index>,
    reader: LogReader,
    /// The prefix it is at; behind all where it is not valid.
    place: (usize, usize),
    /// Of that prefix: what its checksums begin with, and the entries around the current one.
    crc: Option<ValueCrc>,
    chunk: Option<Arc<Chunk>>,
    index: u64,
    is_valid: bool,
    key: Vec<u8>,
    trailer: u64,
    value: Place,
}

impl AppendIter {
    pub(crate) fn new(family: &ColumnFamily, view: Arc<Index>, reader: LogReader) -> Self {
        Self {
            family: family.clone(),
            view,
            reader,
            place: (0, 0),
            crc: None,
            chunk: None,
            index: 0,
            is_valid: false,
            key: Vec::new(),
            trailer: 0,
            value: Place::default(),
        }
    }

    fn append_family(&self) -> &AppendFamily {
        let family = self.family.inner.append.as_ref();
        family.expect("a cursor over an append family is made for one")
    }

    /// To a place and an index, or to nowhere.
    fn go(&mut self, to: Option<At>) -> Result<()> {
        self.is_valid = false;
        let Some((place, index)) = to else {
            return Ok(());
        };
        let Some((prefix, log)) = self.view.item(place) else {
            return Ok(());
        };
        if self.crc.is_none() || place != self.place {
            self.crc = Some(self.append_family().value_crc(prefix));
            self.key.clear();
            self.key.extend_from_slice(prefix);
            self.key.extend_from_slice(&index.to_be_bytes());
            self.place = place;
        }
        self.chunk = log.chunk(index).map(Chunk::opened);
        self.load(index)
    }

    /// To an index in the chunk that it is at.
    fn load(&mut self, index: u64) -> Result<()> {
        self.is_valid = false;
        let lost = || Error::Expired("an entry of the view has no place".into());
        let entry = self.chunk.as_ref().and_then(|chunk| chunk.get(index));
        let (entry, crc) = (entry.ok_or_else(lost)?, self.crc.as_ref());
        let crc = crc.expect("it stands at a prefix");
        self.value = self.reader.locate(crc, index, entry)?.ok_or_else(lost)?;
        let at = self.key.len() - INDEX_LEN;
        self.key[at..].copy_from_slice(&index.to_be_bytes());
        self.trailer = pack_trailer(entry.seq(), ValueKind::Put);
        self.index = index;
        self.is_valid = true;
        Ok(())
    }

    /// True where an index is in the chunk that it is at.
    fn is_near(&self, index: u64) -> bool {
        let chunk = self.chunk.as_ref();
        chunk.is_some_and(|chunk| chunk.get(index).is_some())
    }

    /// First index of the prefix at a place, if there is one.
    fn first_at(&self, place: (usize, usize)) -> Option<At> {
        let (_, log) = self.view.item(place)?;
        Some((place, log.range().start))
    }

    /// Last index of the prefix before a place.
    fn last_before(&self, place: (usize, usize)) -> Option<At> {
        let place = self.view.before(place)?;
        let (_, log) = self.view.item(place)?;
        Some((place, log.range().end - 1))
    }

    fn after(&self, place: (usize, usize), index: u64) -> Option<At> {
        let (_, log) = self.view.item(place)?;
        match index.checked_add(1) {
            Some(next) if next < log.range().end => Some((place, next)),
            _ => self.first_at(self.view.next(place)),
        }
    }

    fn before(&self, place: (usize, usize), index: u64) -> Option<At> {
        match self.view.item(place) {
            Some((_, log)) if index > log.range().start => Some((place, index - 1)),
            _ => self.last_before(place),
        }
    }

    /// The first entry whose key is at or after `key`, which may have any length; and whether it is that key.
    fn lower_bound(&self, key: &[u8]) -> (Option<At>, bool) {
        let bytes = self.append_family().prefix_bytes();
        let (prefix, rest) = key.split_at(bytes.min(key.len()));
        let place = self.view.lower_bound(prefix);
        let Some((found, log)) = self.view.item(place) else {
            return (None, false);
        };
        if **found != *prefix || prefix.len() < bytes {
            return (self.first_at(place), false);
        }
        let mut padded = [0; INDEX_LEN];
        let known = rest.len().min(INDEX_LEN);
        padded[..known].copy_from_slice(&rest[..known]);
        let index = u64::from_be_bytes(padded);
        let range = log.range();
        // A longer key comes after the entry that it begins with.
        let Some(index) = index.checked_add(u64::from(rest.len() > INDEX_LEN)) else {
            return (self.first_at(self.view.next(place)), false);
        };
        if index >= range.end {
            return (self.first_at(self.view.next(place)), false);
        }
        let is_it = rest.len() == INDEX_LEN && index >= range.start;
        (Some((place, index.max(range.start))), is_it)
    }

    /// How the entry there, whose user key is that of `target`, sorts beside it.
    fn order(&self, at: At, target: InternalKey<'_>) -> Ordering {
        let entry = self.view.item(at.0).and_then(|(_, log)| log.get(at.1));
        // Of one key the newer sorts first.
        entry.map_or(Ordering::Equal, |entry| {
            let trailer = pack_trailer(entry.seq(), ValueKind::Put);
            target.trailer.cmp(&trailer)
        })
    }
}

impl InternalIterator for AppendIter {
    fn valid(&self) -> bool {
        self.is_valid
    }

    fn key(&self) -> InternalKey<'_> {
        InternalKey {
            user_key: &self.key,
            trailer: self.trailer,
        }
    }

    fn value(&self) -> &[u8] {
        self.reader.at(&self.value)
    }

    fn seek_to_first(&mut self) -> Result<()> {
        self.go(self.first_at((0, 0)))
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.go(self.last_before(self.view.end()))
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        let (mut to, is_it) = self.lower_bound(target.user_key);
        if let Some(at) = to
            && is_it
            && self.order(at, target).is_lt()
        {
            to = self.after(at.0, at.1);
        }
        self.go(to)
    }

    fn seek_for_prev(&mut self, target: InternalKey<'_>) -> Result<()> {
        let (to, is_it) = self.lower_bound(target.user_key);
        let to = match to {
            Some(at) if is_it && self.order(at, target).is_le() => Some(at),
            Some((place, index)) => self.before(place, index),
            None => self.last_before(self.view.end()),
        };
        self.go(to)
    }

    fn next(&mut self) -> Result<()> {
        if let Some(next) = self.index.checked_add(1)
            && self.is_near(next)
        {
            return self.load(next);
        }
        self.go(self.after(self.place, self.index))
    }

    fn prev(&mut self) -> Result<()> {
        if let Some(prev) = self.index.checked_sub(1)
            && self.is_near(prev)
        {
            return self.load(prev);
        }
        self.go(self.before(self.place, self.index))
    }
}
