//! A cursor over an append family: over a view of its index, with the value of the current entry read ahead.

use std::{cmp::Ordering, sync::Arc};

use crate::{
    column_family::ColumnFamily,
    error::{Error, Result},
    iter::InternalIterator,
    key::{InternalKey, ValueKind, pack_trailer},
};

use super::{
    AppendFamily, INDEX_LEN, Index,
    segment::{LogBytes, LogReader},
};

/// Where a prefix stands in a view, and an index under it.
type Place = ((usize, usize), u64);

/// A cursor over a view.
pub(crate) struct AppendIter {
    family: ColumnFamily,
    view: Arc<Index>,
    reader: LogReader,
    /// The prefix it is at; behind all where it is not valid.
    place: (usize, usize),
    index: u64,
    is_valid: bool,
    key: Vec<u8>,
    trailer: u64,
    value: LogBytes,
}

impl AppendIter {
    pub(crate) fn new(family: &ColumnFamily, view: Arc<Index>, reader: LogReader) -> Self {
        Self {
            family: family.clone(),
            view,
            reader,
            place: (0, 0),
            index: 0,
            is_valid: false,
            key: Vec::new(),
            trailer: 0,
            value: LogBytes::default(),
        }
    }

    fn append_family(&self) -> &AppendFamily {
        let family = self.family.inner.append.as_ref();
        family.expect("a cursor over an append family is made for one")
    }

    /// To a place and an index, or to nowhere.
    fn go(&mut self, to: Option<Place>) -> Result<()> {
        self.is_valid = false;
        let Some((place, index)) = to else {
            return Ok(());
        };
        let Some((prefix, log)) = self.view.item(place) else {
            return Ok(());
        };
        let lost = || Error::Expired("an entry of the view has no place".into());
        let entry = log.get(index).ok_or_else(lost)?;
        let crc = self.append_family().value_crc(prefix);
        let value = self.reader.value(&crc, index, entry)?.ok_or_else(lost)?;
        self.key.clear();
        self.key.extend_from_slice(prefix);
        self.key.extend_from_slice(&index.to_be_bytes());
        self.trailer = pack_trailer(entry.seq(), ValueKind::Put);
        self.value = value;
        (self.place, self.index) = (place, index);
        self.is_valid = true;
        Ok(())
    }

    /// First index of the prefix at a place, if there is one.
    fn first_at(&self, place: (usize, usize)) -> Option<Place> {
        let (_, log) = self.view.item(place)?;
        Some((place, log.range().start))
    }

    /// Last index of the prefix before a place.
    fn last_before(&self, place: (usize, usize)) -> Option<Place> {
        let place = self.view.before(place)?;
        let (_, log) = self.view.item(place)?;
        Some((place, log.range().end - 1))
    }

    fn after(&self, place: (usize, usize), index: u64) -> Option<Place> {
        let (_, log) = self.view.item(place)?;
        match index.checked_add(1) {
            Some(next) if next < log.range().end => Some((place, next)),
            _ => self.first_at(self.view.next(place)),
        }
    }

    fn before(&self, place: (usize, usize), index: u64) -> Option<Place> {
        match self.view.item(place) {
            Some((_, log)) if index > log.range().start => Some((place, index - 1)),
            _ => self.last_before(place),
        }
    }

    /// The first entry whose key is at or after `key`, which may have any length; and whether it is that key.
    fn lower_bound(&self, key: &[u8]) -> (Option<Place>, bool) {
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
    fn order(&self, at: Place, target: InternalKey<'_>) -> Ordering {
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
        &self.value
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
        self.go(self.after(self.place, self.index))
    }

    fn prev(&mut self) -> Result<()> {
        self.go(self.before(self.place, self.index))
    }
}
