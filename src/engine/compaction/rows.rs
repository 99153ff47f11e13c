//! What a compaction does to single rows: those past their time go, and the caller's filter is asked.
//!
//! Both act on values alone, and a removal is a delete with the row's own number, which goes only where a delete would. A
//! row that is past its time is so for the first reader that sees it, and so for all; a row that is filtered is seen by no
//! snapshot.

use std::path::Path;

use super::fold::Kept;
use crate::{
    clock::{Life, TIME_LEN, split_time},
    compaction_filter::{CompactionFilter, FilterDecision, FilterRow},
    error::{Error, Result},
    faults::{Fault, Faults},
    key::{MAX_VALUE_LEN, SequenceNumber, ValueKind},
    merge::contained,
};

/// What is to be done to rows.
#[derive(Clone, Copy)]
pub(crate) struct RowRules<'a> {
    /// Milliseconds that rows live.
    pub(crate) ttl: Option<u64>,
    /// For each boundary the earliest time of a reader there.
    pub(crate) times: &'a [u64],
    pub(crate) filter: Option<&'a dyn CompactionFilter>,
    /// The newest number that a snapshot has; rows above are filtered.
    pub(crate) newest_snapshot: SequenceNumber,
    pub(crate) faults: Faults,
}

/// What becomes of a row.
pub(super) enum Judged<'a> {
    Keep,
    Remove,
    Change(&'a [u8]),
}

/// Applies the rules.
pub(super) struct Rows<'a> {
    rules: RowRules<'a>,
    level: usize,
    dir: &'a Path,
    changed: Vec<u8>,
}

impl<'a> Rows<'a> {
    /// For rows written to `level`; `None` where there is nothing to do to any.
    pub(super) fn new(rules: RowRules<'a>, level: usize, dir: &'a Path) -> Option<Self> {
        let idle = rules.ttl.is_none() && rules.filter.is_none();
        (!idle).then(|| Self {
            rules,
            level,
            dir,
            changed: Vec::new(),
        })
    }

    /// Whether a filter is asked about an entry that has a value.
    pub(super) fn asks(&self, entry: &Kept<'_>) -> bool {
        let is_held = entry.key.seq() <= self.rules.newest_snapshot;
        let is_held = is_held && !self.rules.faults.is(Fault::FilterSeenBySnapshot);
        self.rules.filter.is_some() && entry.stripe.is_some() && !is_held
    }

    /// What becomes of an entry.
    pub(super) fn judge(&mut self, entry: &Kept<'_>) -> Result<Judged<'_>> {
        let rules = &self.rules;
        let (Some(stripe), Some(ValueKind::Put)) = (entry.stripe, entry.key.kind()) else {
            return Ok(Judged::Keep);
        };
        let mut value = entry.value;
        if let Some(ttl) = rules.ttl {
            let (user_value, time) = split_time(entry.value).ok_or_else(|| {
                let what = format!("{:?} has no time behind its value", entry.key);
                Error::corruption(self.dir, 0, what)
            })?;
            let reader = if rules.faults.is(Fault::FilterSeenBySnapshot) {
                rules.times.last()
            } else {
                rules.times.get(stripe)
            };
            let now = *reader.expect("a time for each boundary");
            if Life::at(now, ttl).is_over(time) {
                return Ok(Judged::Remove);
            }
            value = user_value;
        }
        let Some(filter) = rules.filter.filter(|_| self.asks(entry)) else {
            return Ok(Judged::Keep);
        };
        let row = FilterRow {
            key: entry.key.user_key,
            value,
            level: self.level,
        };
        let time = &entry.value[value.len()..];
        let changed = &mut self.changed;
        changed.clear();
        match contained(|| Ok(filter.filter(&row, changed))) {
            Ok(FilterDecision::Remove) => Ok(Judged::Remove),
            Ok(FilterDecision::Change) if changed.len() <= MAX_VALUE_LEN - TIME_LEN => {
                changed.extend_from_slice(time);
                Ok(Judged::Change(changed))
            }
            // A panic, and a value that none may have, change nothing.
            Ok(FilterDecision::Keep | FilterDecision::Change) | Err(_) => Ok(Judged::Keep),
        }
    }
}
