//! Reads of append families: single entries, cursors, and the views that snapshots hold.

use std::{ops::Range, sync::Arc};

use crate::{
    batch::{FamilyId, WriteBatch},
    column_family::ColumnFamily,
    db::{Db, DbInner},
    error::{Error, Result},
    filename,
    fs::ReadMode,
    iter::{merging::MergingIter, user::UserIter},
    key::SequenceNumber,
    options::{ReadOptions, WriteOptions},
    read::Take,
    snapshot::Snapshot,
    tables::Source,
};

use super::{AppendFamily, AppendIter, Entry, Index, LogReader, LogSegment, Segments, ValueCrc};

/// How often a read looks again for an entry that was gone before its segment was held. Each time the index
/// has moved on.
const LOOKS: usize = 1000;

/// The append families at one moment, as a snapshot holds them.
#[derive(Debug)]
pub(crate) struct View {
    families: Vec<(FamilyId, Arc<Index>)>,
    segments: Arc<Segments>,
}

impl View {
    /// What there was of a family; nothing of one that is younger.
    fn index(&self, family: &ColumnFamily) -> Arc<Index> {
        let found = self.families.iter().find(|(id, _)| *id == family.id());
        found.map_or_else(Arc::default, |(_, index)| Arc::clone(index))
    }
}

impl AppendFamily {
    /// A view of what is published now.
    pub(super) fn view(&self) -> Arc<Index> {
        Arc::new(self.read().index.clone())
    }
}

impl DbInner {
    /// A snapshot of this moment.
    pub(crate) fn snapshot(&self) -> Snapshot {
        if !self.appends.exist() {
            return self.snapshots.acquire(|| self.commit.visible());
        }
        // Publication happens under this lock: sequence number and indexes are of one moment.
        let _queue = self.commit.lock();
        let families = self.families();
        let families = families.iter().filter_map(|family| {
            let append = family.inner.append.as_ref()?;
            Some((family.id(), append.view()))
        });
        let view = View {
            families: families.collect(),
            segments: self.logs.segments(),
        };
        self.snapshots
            .acquire_with(|| self.commit.visible(), Some(view))
    }

    /// Reads every entry of every append family from the device. Damage goes to `note`, which may end it; answers
    /// the number of entries.
    pub(crate) fn verify_appends(&self, mut note: impl FnMut(Error) -> Result<()>) -> Result<u64> {
        let snapshot = self.snapshot();
        let Some(view) = snapshot.view() else {
            return Ok(0);
        };
        // Segments of its own: what others have mapped was read before.
        let again = |segment: &Arc<LogSegment>| {
            let LogSegment { number, base, .. } = **segment;
            let path = filename::log(&self.dir, number);
            let fs = Arc::clone(&self.options.fs);
            Arc::new(LogSegment::new(number, base, path, fs, ReadMode::Pread))
        };
        let segments = view.segments.0.iter().map(again).collect();
        let mut reader = self.log_reader(Arc::new(Segments(segments))).without_tail();
        let mut entries = 0;
        for (id, index) in &view.families {
            for (prefix, log) in index.items() {
                let crc = ValueCrc::new(*id, prefix);
                for (at, entry) in log.entries() {
                    entries += 1;
                    match reader.value(&crc, at, entry) {
                        Ok(Some(_)) => {}
                        Ok(None) => note(lost())?,
                        Err(error) => note(error)?,
                    }
                }
            }
        }
        Ok(entries)
    }

    pub(super) fn log_reader(&self, segments: Arc<Segments>) -> LogReader {
        LogReader::new(segments, Arc::clone(&self.logs))
    }

    /// Waits until everything up to `seq` is visible, also in plain families. The index of an append family is
    /// changed a moment before, in one hold of the commit lock.
    fn wait_for_visible(&self, seq: SequenceNumber) {
        if self.commit.visible() < seq {
            drop(self.commit.lock());
        }
    }

    /// The value at `key` of an append family, at `at` or now.
    pub(crate) fn append_get<T: Take>(
        &self,
        cf: &ColumnFamily,
        append: &AppendFamily,
        key: &[u8],
        at: Option<&Snapshot>,
        take: &mut T,
    ) -> Result<Option<T::Output>> {
        self.check_family(cf)?;
        let Some((prefix, index)) = append.split(key) else {
            return Ok(None);
        };
        let ledger = self.tables.cache.pins();
        if let Some(view) = at.map(Snapshot::view) {
            let Some(view) = view else { return Ok(None) };
            let found = view.index(cf);
            let Some(entry) = found.get(prefix).and_then(|log| log.get(index)) else {
                return Ok(None);
            };
            let value = self.log_reader(Arc::clone(&view.segments)).value(
                &append.value_crc(prefix),
                index,
                entry,
            )?;
            let value = value.ok_or_else(lost)?;
            return Ok(Some(take.log(&value, ledger)));
        }
        for _ in 0..LOOKS {
            let (entry, seq) = append.entry(prefix, index);
            self.wait_for_visible(seq);
            let Some(entry) = entry else {
                return Ok(None);
            };
            if let Some(value) = self.logs.tail.value(entry) {
                return Ok(Some(take.log(&value, ledger)));
            }
            // It may be gone with its segment by now; then there is something else to find, or nothing.
            let mut reader = self.log_reader(self.logs.segments());
            if let Some(value) = reader.value(&append.value_crc(prefix), index, entry)? {
                return Ok(Some(take.log(&value, ledger)));
            }
        }
        Err(lost())
    }

    /// Several values of an append family at one moment.
    pub(crate) fn append_multi_get<K: AsRef<[u8]>, T: Take>(
        &self,
        cf: &ColumnFamily,
        append: &AppendFamily,
        keys: &[K],
        at: Option<&Snapshot>,
        take: &mut T,
    ) -> Result<Vec<Option<T::Output>>> {
        if at.is_some() {
            return keys
                .iter()
                .map(|key| self.append_get(cf, append, key.as_ref(), at, take))
                .collect();
        }
        let split = |key: &K| append.split(key.as_ref()).map(|(p, i)| (p.to_vec(), i));
        let keys: Vec<_> = keys.iter().map(split).collect();
        let (entries, segments) = {
            let _queue = self.commit.lock();
            self.check_family(cf)?;
            let published = append.read();
            let entry = |key: &Option<(Vec<u8>, u64)>| {
                let (prefix, index) = key.as_ref()?;
                published.index.get(prefix)?.get(*index)
            };
            let entries: Vec<_> = keys.iter().map(entry).collect();
            (entries, self.logs.segments())
        };
        let (mut reader, ledger) = (self.log_reader(segments), self.tables.cache.pins());
        let value = |(key, entry): (&Option<(Vec<u8>, u64)>, Option<Entry>)| {
            let (Some((prefix, index)), Some(entry)) = (key, entry) else {
                return Ok(None);
            };
            let value = reader.value(&append.value_crc(prefix), *index, entry)?;
            let value = value.ok_or_else(lost)?;
            Ok(Some(take.log(&value, ledger)))
        };
        keys.iter().zip(entries).map(value).collect()
    }

    /// A cursor over an append family.
    pub(crate) fn append_iter(
        &self,
        cf: &ColumnFamily,
        append: &AppendFamily,
        options: &ReadOptions,
    ) -> Result<UserIter<Source>> {
        let (lower, upper) = (options.lower.as_deref(), options.upper.as_deref());
        let (view, segments) = match &options.snapshot {
            Some(snapshot) => {
                let view = snapshot.view();
                let index = view.map(|view| view.index(cf)).unwrap_or_default();
                let segments = view.map(|view| Arc::clone(&view.segments));
                (index, segments.unwrap_or_default())
            }
            None => {
                // Under this lock no segment is released between the two.
                let _queue = self.commit.lock();
                let index = Arc::new(append.read().index.within(lower, upper));
                (index, self.logs.segments())
            }
        };
        // A family that was dropped shows what was taken before, or nothing.
        self.check_family(cf)?;
        let iter = AppendIter::new(cf, view, self.log_reader(segments));
        let sources = vec![Source::Append(Box::new(iter))];
        Ok(UserIter::new(
            MergingIter::with_max_seqs(sources, vec![SequenceNumber::MAX]),
            Vec::new(),
            SequenceNumber::MAX,
            options.lower.clone(),
            options.upper.clone(),
        ))
    }
}

/// Nothing that is held was there any more: no right engine comes here.
fn lost() -> Error {
    Error::Expired("an entry whose log segment is not there".into())
}

impl Db {
    /// Appends `values` to a prefix of an append family; see [`WriteBatch::append`].
    ///
    /// # Errors
    ///
    /// As for [`Db::write`]; `InvalidArgument` where it would leave a gap.
    pub fn append<V: AsRef<[u8]>>(
        &self,
        cf: &ColumnFamily,
        prefix: &[u8],
        first: u64,
        values: &[V],
        options: WriteOptions,
    ) -> Result<()> {
        let mut batch = WriteBatch::new();
        batch.append(cf, prefix, first, values);
        self.write(batch, options).map(|_| ())
    }

    /// The indexes that a prefix of an append family has now, from its first entry to behind its last; `None`
    /// without entries.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for a family of another class, `NoSuchColumnFamily`.
    pub fn append_range(&self, cf: &ColumnFamily, prefix: &[u8]) -> Result<Option<Range<u64>>> {
        self.inner.check_family(cf)?;
        let Some(append) = &cf.inner.append else {
            return Err(Error::invalid(format!(
                "column family {:?} is not an append family",
                cf.name()
            )));
        };
        let (range, seq) = append.range(prefix);
        self.inner.wait_for_visible(seq);
        Ok(range)
    }
}
