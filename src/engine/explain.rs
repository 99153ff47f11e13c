//! Why a read is as it is: every place a get looks at, and what a range is spread over.
//!
//! The walk is the one of `read`, step by step, with what filters and blocks had to say. Estimates of ranges come from the
//! indexes of tables: a range that begins or ends within a block counts that block whole.

use std::{fmt, ops::Bound};

use crate::{
    column_family::{ColumnFamily, ReadState},
    db::{Db, DbInner},
    error::{Error, Result},
    iter::InternalIterator,
    key::{InternalKey, SequenceNumber, ValueKind, trailer_kind, trailer_seq},
    options::{LEVELS, ReadOptions},
    read::Pin,
    snapshot::Snapshot,
    table::key_hash,
    version::KeySpan,
};

/// Entries of a memtable that are counted one by one for an estimate; beyond, all of it counts as within the range.
const MAX_COUNTED: usize = 10_000;

/// A place that a get looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// The memtable that takes writes.
    Memtable,
    /// A memtable that waits for flush; 0 is the newest.
    Frozen(usize),
    /// A table.
    Table {
        /// Its level.
        level: usize,
        /// Number of its file.
        number: u64,
    },
    /// The log, of an append family.
    Log,
}

/// Where a data block was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BlockSource {
    /// Used in place in the map of its file.
    Map,
    /// In the block cache.
    Cache,
    /// Read, or decompressed out of the map.
    File,
}

/// An entry that was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Met {
    /// Its sequence number.
    pub seq: SequenceNumber,
    /// Bytes of its value, wherever that lies, or of its operand; `None` for a delete.
    pub value_len: Option<usize>,
}

/// What one place said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The place.
    pub place: Place,
    /// Whether its filter let the key through; `None` where there is no filter.
    pub filter: Option<bool>,
    /// The data block that was looked at, if one was: where it was, and its bytes in the file.
    pub block: Option<(BlockSource, usize)>,
    /// The newest visible range delete of this place over the key.
    pub range_delete: Option<SequenceNumber>,
    /// The newest visible entry of the key here.
    pub met: Option<Met>,
}

/// What became of a get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The value, of so many bytes.
    Found(usize),
    /// A delete of the key ended the walk.
    Deleted,
    /// A range delete over the key did.
    RangeDeleted,
    /// The row that was found is past its time.
    Expired,
    /// No place has the key.
    Absent,
}

/// A get, step by step. Shown as text it has a line for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The moment it reads at.
    pub seq: SequenceNumber,
    /// The places, in the order of the walk.
    pub steps: Vec<Step>,
    /// How it ended.
    pub outcome: Outcome,
}

/// A table under a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeTable {
    /// Its level.
    pub level: usize,
    /// Number of its file.
    pub number: u64,
    /// Bytes of its file.
    pub file_bytes: u64,
    /// Bytes of its data blocks in the range, as stored, about.
    pub bytes: u64,
    /// Bytes of its large values in the range, in value files, as stored, about.
    pub value_bytes: u64,
    /// Entries in the range, about: versions and deletes are entries too.
    pub entries: u64,
    /// Range deletes of the whole table.
    pub range_deletes: u64,
}

/// What a range of keys is spread over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeExplanation {
    /// Memtables that have keys there.
    pub memtables: usize,
    /// Bytes of keys and values in them.
    pub memtable_bytes: u64,
    /// Entries in them.
    pub memtable_entries: u64,
    /// Tables that overlap the range, by level and key.
    pub tables: Vec<RangeTable>,
}

impl RangeExplanation {
    /// Bytes of the range in memtables, tables and value files, as stored.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let bytes = |table: &RangeTable| table.bytes + table.value_bytes;
        self.memtable_bytes + self.tables.iter().map(bytes).sum::<u64>()
    }

    /// Entries of the range.
    #[must_use]
    pub fn entries(&self) -> u64 {
        let tables = self.tables.iter().map(|table| table.entries);
        self.memtable_entries + tables.sum::<u64>()
    }

    /// Sources that a scan of the range merges: memtables, tables of L0, and levels.
    #[must_use]
    pub fn runs(&self) -> usize {
        let level = |level| self.tables.iter().filter(move |table| table.level == level);
        let deeper = (1..LEVELS).filter(|&at| level(at).count() > 0).count();
        self.memtables + level(0).count() + deeper
    }
}

impl Db {
    /// How a get of `key` as of `options` goes. It reads what that get would read.
    ///
    /// # Errors
    ///
    /// As for [`Db::get_with`].
    pub fn explain(
        &self,
        cf: &ColumnFamily,
        key: &[u8],
        options: &ReadOptions,
    ) -> Result<Explanation> {
        self.inner.check_snapshot(options)?;
        self.inner.explain(cf, key, options.snapshot.as_ref())
    }

    /// What the keys `start..end` (`None`: no bound) are spread over. Nothing but indexes of tables is read.
    ///
    /// # Errors
    ///
    /// `Corruption` or `Io` from a table; `InvalidArgument` for an append family.
    pub fn explain_range(
        &self,
        cf: &ColumnFamily,
        start: Option<&[u8]>,
        end: Option<&[u8]>,
    ) -> Result<RangeExplanation> {
        self.inner.explain_range(cf, start, end)
    }

    /// Bytes of the keys `start..end`, about, as stored.
    ///
    /// # Errors
    ///
    /// As for [`Db::explain_range`].
    pub fn approximate_size(
        &self,
        cf: &ColumnFamily,
        start: Option<&[u8]>,
        end: Option<&[u8]>,
    ) -> Result<u64> {
        Ok(self.explain_range(cf, start, end)?.bytes())
    }

    /// Entries of the keys `start..end`, about: old versions and deletes that are not compacted away count too.
    ///
    /// # Errors
    ///
    /// As for [`Db::explain_range`].
    pub fn approximate_count(
        &self,
        cf: &ColumnFamily,
        start: Option<&[u8]>,
        end: Option<&[u8]>,
    ) -> Result<u64> {
        Ok(self.explain_range(cf, start, end)?.entries())
    }
}

/// The end of a walk.
fn judge(met: Option<Met>, covered: SequenceNumber) -> Option<Outcome> {
    match met {
        Some(met) if met.seq < covered => Some(Outcome::RangeDeleted),
        Some(met) => Some(met.value_len.map_or(Outcome::Deleted, Outcome::Found)),
        None if covered > SequenceNumber::ZERO => Some(Outcome::RangeDeleted),
        None => None,
    }
}

fn met(trailer: u64, len: usize) -> Met {
    let is_delete = trailer_kind(trailer) == Some(ValueKind::Delete);
    Met {
        seq: trailer_seq(trailer),
        value_len: (!is_delete).then_some(len),
    }
}

impl DbInner {
    pub(crate) fn explain(
        &self,
        cf: &ColumnFamily,
        key: &[u8],
        at: Option<&Snapshot>,
    ) -> Result<Explanation> {
        if let Some(append) = &cf.inner.append {
            self.check_family(cf)?;
            let found = self.append_get(cf, append, key, at, &mut Pin::<true>)?;
            let seq = at.map_or_else(|| self.commit.visible(), Snapshot::seq);
            let outcome = found.map_or(Outcome::Absent, |value| Outcome::Found(value.len()));
            let steps = vec![Step {
                place: Place::Log,
                filter: None,
                block: None,
                range_delete: None,
                met: None,
            }];
            return Ok(Explanation {
                seq,
                steps,
                outcome,
            });
        }
        // The state first, then the number, as for `get`.
        let state = cf.inner.peek();
        self.check_family(cf)?;
        let seq = at.map_or_else(|| self.commit.visible(), Snapshot::seq);
        let mut steps = Vec::new();
        let outcome = match self.walk(&state, key, seq, &mut steps)? {
            // What operands come to, and whether a row is past its time, is for the get to say.
            Outcome::Found(_) if cf.inner.merger().is_some() || cf.inner.ttl().is_some() => {
                let value = self.get_at(cf, &state, key, (seq, at), &mut Pin::<true>)?;
                value.map_or(Outcome::Expired, |value| Outcome::Found(value.len()))
            }
            outcome => outcome,
        };
        Ok(Explanation {
            seq,
            steps,
            outcome,
        })
    }

    fn walk(
        &self,
        state: &ReadState,
        key: &[u8],
        seq: SequenceNumber,
        steps: &mut Vec<Step>,
    ) -> Result<Outcome> {
        let seek = InternalKey::seek_to(key, seq);
        let mut covered = SequenceNumber::ZERO;
        let delete = |seq: SequenceNumber| Some(seq).filter(|&seq| seq > SequenceNumber::ZERO);
        for (at, slot) in state.memtables().enumerate() {
            let here = slot.memtable.covering_seq(key, seq);
            covered = covered.max(here);
            let found = slot.memtable.get(seek);
            let found = found.map(|(trailer, value)| met(trailer, value.len()));
            steps.push(Step {
                place: at.checked_sub(1).map_or(Place::Memtable, Place::Frozen),
                filter: None,
                block: None,
                range_delete: delete(here),
                met: found,
            });
            if let Some(outcome) = judge(found, covered) {
                return Ok(outcome);
            }
        }
        let (hash, version) = (key_hash(key), &state.version);
        let top = version.newest_with(key).map(|meta| (0, meta));
        let deeper = (1..LEVELS).filter_map(|level| Some((level, version.find(level, key)?)));
        for (level, meta) in top.chain(deeper) {
            let table = meta.table(&*self.tables)?;
            let here = table.tombstones().covering_seq(key, seq);
            covered = covered.max(here);
            let look = table.look(seek, hash)?;
            let found = look.found.map(|(trailer, len)| met(trailer, len));
            steps.push(Step {
                place: Place::Table {
                    level,
                    number: meta.number,
                },
                filter: look.filter,
                block: look.block,
                range_delete: delete(here),
                met: found,
            });
            if let Some(outcome) = judge(found, covered) {
                return Ok(outcome);
            }
        }
        Ok(Outcome::Absent)
    }

    pub(crate) fn explain_range(
        &self,
        cf: &ColumnFamily,
        start: Option<&[u8]>,
        end: Option<&[u8]>,
    ) -> Result<RangeExplanation> {
        if cf.is_append() {
            return Err(Error::invalid("an append family has no tables"));
        }
        let state = cf.inner.read_state();
        self.check_family(cf)?;
        let start = start.unwrap_or_default();
        let mut all = RangeExplanation::default();
        if end.is_some_and(|end| end <= start) {
            return Ok(all);
        }
        for slot in state.memtables() {
            let (mut entries, mut bytes) = (0, 0);
            let mut iter = slot.memtable.iter();
            iter.seek(InternalKey::seek_to(start, SequenceNumber::MAX))?;
            while iter.valid() && end.is_none_or(|end| iter.key().user_key < end) {
                entries += 1;
                bytes += iter.key().user_key.len() + iter.value().len();
                if entries == MAX_COUNTED {
                    (entries, bytes) = (slot.memtable.len(), slot.memtable.bytes());
                    break;
                }
                iter.next()?;
            }
            all.memtables += usize::from(entries > 0);
            all.memtable_entries += entries as u64;
            all.memtable_bytes += bytes as u64;
        }
        let span = KeySpan {
            start,
            end: end.map_or(Bound::Unbounded, Bound::Excluded),
        };
        for level in 0..LEVELS {
            for meta in state.version.tables_overlapping(level, span) {
                let table = meta.table(&*self.tables)?;
                let (first, data) = (table.offset_of(start)?, table.data_bytes());
                let last = end.map_or(Ok(data), |end| table.offset_behind(end))?;
                let bytes = last.saturating_sub(first);
                let share = |of: u64| {
                    let share = u128::from(of) * u128::from(bytes) / u128::from(data.max(1));
                    u64::try_from(share).unwrap_or(u64::MAX)
                };
                let values = meta.values.iter().map(|(_, bytes)| bytes);
                all.tables.push(RangeTable {
                    level,
                    number: meta.number,
                    file_bytes: meta.info.size,
                    bytes,
                    value_bytes: share(values.sum()),
                    entries: share(meta.info.entries),
                    range_deletes: meta.info.tombstones,
                });
            }
        }
        Ok(all)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::Memtable => write!(f, "memtable")?,
            Place::Frozen(at) => write!(f, "frozen memtable {at}")?,
            Place::Table { level, number } => write!(f, "L{level} table {number}")?,
            Place::Log => write!(f, "log")?,
        }
        match self.filter {
            Some(true) => write!(f, ", filter: perhaps")?,
            Some(false) => write!(f, ", filter: no")?,
            None => {}
        }
        match self.block {
            Some((BlockSource::Map, len)) => write!(f, ", block of {len} bytes in the map")?,
            Some((BlockSource::Cache, len)) => write!(f, ", block of {len} bytes in the cache")?,
            Some((BlockSource::File, len)) => write!(f, ", block of {len} bytes read")?,
            None => {}
        }
        if let Some(seq) = self.range_delete {
            write!(f, ", range delete {}", seq.0)?;
        }
        match self.met {
            Some(Met {
                seq,
                value_len: Some(len),
            }) => write!(f, ", value {} of {len} bytes", seq.0),
            Some(Met { seq, .. }) => write!(f, ", delete {}", seq.0),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        match self.outcome {
            Outcome::Found(len) => write!(f, "found, {len} bytes"),
            Outcome::Deleted => write!(f, "absent: deleted"),
            Outcome::RangeDeleted => write!(f, "absent: under a range delete"),
            Outcome::Expired => write!(f, "absent: past its time"),
            Outcome::Absent => write!(f, "absent: in no place"),
        }
    }
}
