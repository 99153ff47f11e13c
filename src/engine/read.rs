//! The read path: memtables, then L0, then the levels; the first hit wins.
//!
//! A deeper place holds only older versions of a key, so a hit or a covering range delete ends the search.

use std::{ops::Bound, sync::Arc};

use crate::{
    append::LogBytes,
    clock::{Life, split_time},
    column_family::{ColumnFamily, ReadState},
    db::DbInner,
    error::{Error, Result},
    iter::{covering::Covering, merging::MergingIter, user::UserIter},
    key::{InternalKey, SequenceNumber, ValueKind, trailer_kind, trailer_seq},
    options::{LEVELS, ReadOptions},
    slice::{PinLedger, PinnedSlice},
    snapshot::Snapshot,
    table::{KeyHash, Table, key_hash},
    tables::{Source, Tables},
    timing::{Sampled, is_sample},
    version::{KeySpan, TableOpener},
};

/// What an iterator reads: cursors, for each a number that none of its entries exceeds, and the range
/// tombstones over all of them.
type Sources = (Vec<Source>, Vec<SequenceNumber>, Vec<Covering>);

/// What a place says about a key.
enum Hit<T> {
    /// Nothing: look deeper.
    None,
    /// The key is absent.
    Deleted,
    /// Its value.
    Value(T),
    /// What points to its value.
    Pointer(T),
    /// It changes by operands, of which the newest stands here.
    Merge,
}

/// In which form a lookup hands over the value.
pub(crate) trait Take {
    type Output;
    /// Whether the lookup may wait for a disk.
    const WAITS: bool = true;
    /// From bytes that live only for the call.
    fn bytes(&mut self, value: &[u8]) -> Self::Output;
    /// From a table: trailer and value of the newest entry at or after `seek`.
    fn table(
        &mut self,
        table: &Table,
        seek: InternalKey<'_>,
        hash: KeyHash,
    ) -> Result<Option<(u64, Self::Output)>>;
    /// From a value file, in the place of the pointer that was taken.
    fn pointed(&mut self, pointer: Self::Output, tables: &Tables) -> Result<Self::Output>;
    /// Value and time of what was taken from a family with a time to live; `None` where it is too short for both.
    fn split_time(&mut self, taken: Self::Output) -> Option<(Self::Output, u64)>;
    /// From the log.
    fn log(&mut self, value: &LogBytes, _ledger: &Arc<PinLedger>) -> Self::Output {
        self.bytes(value)
    }
}

/// Hands over a slice that keeps alive what holds it. Without `WAITS`, rather than wait for a disk the lookup ends with
/// [`Error::Busy`].
pub(crate) struct Pin<const WAITS: bool>;

impl<const WAITS: bool> Take for Pin<WAITS> {
    type Output = PinnedSlice;
    const WAITS: bool = WAITS;

    fn bytes(&mut self, value: &[u8]) -> PinnedSlice {
        PinnedSlice::copied(value)
    }

    fn table(
        &mut self,
        table: &Table,
        seek: InternalKey<'_>,
        hash: KeyHash,
    ) -> Result<Option<(u64, PinnedSlice)>> {
        if WAITS {
            table.get(seek, hash)
        } else {
            table.try_get(seek, hash)
        }
    }

    fn pointed(&mut self, pointer: PinnedSlice, tables: &Tables) -> Result<PinnedSlice> {
        if WAITS {
            tables.value(&pointer)
        } else {
            Err(Error::Busy("a value file may have to be read".to_owned()))
        }
    }

    fn split_time(&mut self, taken: PinnedSlice) -> Option<(PinnedSlice, u64)> {
        let (value, time) = split_time(&taken)?;
        let len = value.len();
        Some((taken.truncated(len), time))
    }

    fn log(&mut self, value: &LogBytes, ledger: &Arc<PinLedger>) -> PinnedSlice {
        match value {
            LogBytes::Mapped(file, range) => PinnedSlice::of_map(file, range.clone(), ledger),
            LogBytes::Block(block, range) => PinnedSlice::of_block(block, range.clone(), ledger),
            LogBytes::Kept(kept, range) => PinnedSlice::of_batch(kept, range.clone(), ledger),
            LogBytes::Owned(bytes) => PinnedSlice::copied(bytes),
        }
    }
}

/// Copies into the caller's buffer, without writing a cache line that other readers read.
pub(crate) struct CopyInto<'a>(pub(crate) &'a mut Vec<u8>);

impl Take for CopyInto<'_> {
    type Output = ();

    fn bytes(&mut self, value: &[u8]) {
        self.0.clear();
        self.0.extend_from_slice(value);
    }

    fn table(
        &mut self,
        table: &Table,
        seek: InternalKey<'_>,
        hash: KeyHash,
    ) -> Result<Option<(u64, ())>> {
        table.get_with(seek, hash, |trailer, value| {
            self.0.clear();
            self.0.extend_from_slice(value);
            (trailer, ())
        })
    }

    fn pointed(&mut self, (): (), tables: &Tables) -> Result<()> {
        let value = tables.value(self.0)?;
        self.bytes(&value);
        Ok(())
    }

    fn split_time(&mut self, (): ()) -> Option<((), u64)> {
        let (value, time) = split_time(self.0)?;
        let len = value.len();
        self.0.truncate(len);
        Some(((), time))
    }
}

impl DbInner {
    /// The value of `key` as of `options`.
    pub(crate) fn get_as_of<T: Take>(
        &self,
        cf: &ColumnFamily,
        key: &[u8],
        options: &ReadOptions,
        take: T,
    ) -> Result<Option<T::Output>> {
        self.check_snapshot(options)?;
        self.get(cf, key, options.snapshot.as_ref(), take)
    }

    /// The value of `key` at `at`, or now.
    #[inline]
    pub(crate) fn get<T: Take>(
        &self,
        cf: &ColumnFamily,
        key: &[u8],
        at: Option<&Snapshot>,
        take: T,
    ) -> Result<Option<T::Output>> {
        if is_sample(Sampled::Get, self.options.stats_sampling) {
            return self.get_sampled(cf, key, at, take);
        }
        self.get_plain(cf, key, at, take)
    }

    /// The same, timed, or looked at for what filters and blocks had to say: not both, as the one is warm after the other.
    #[cold]
    fn get_sampled<T: Take>(
        &self,
        cf: &ColumnFamily,
        key: &[u8],
        at: Option<&Snapshot>,
        take: T,
    ) -> Result<Option<T::Output>> {
        if cf.inner.counters.reads.is_walk() && T::WAITS && !cf.is_append() {
            if let Ok(explanation) = self.explain(cf, key, at) {
                cf.inner.counters.reads.add(&explanation);
            }
            return self.get_plain(cf, key, at, take);
        }
        let begun = self.options.executor.now();
        let got = self.get_plain(cf, key, at, take);
        let took = self.options.executor.now().saturating_sub(begun);
        self.timers.get.record(took);
        got
    }

    #[inline]
    fn get_plain<T: Take>(
        &self,
        cf: &ColumnFamily,
        key: &[u8],
        at: Option<&Snapshot>,
        mut take: T,
    ) -> Result<Option<T::Output>> {
        if let Some(append) = &cf.inner.append {
            if !T::WAITS {
                return Err(Error::Busy("the log may have to be read".to_owned()));
            }
            return self.append_get(cf, append, key, at, &mut take);
        }
        if let Some(state) = at.and_then(|at| at.state_of(cf.id())) {
            self.check_family(cf)?;
            let seq = at.map_or(SequenceNumber::ZERO, Snapshot::seq);
            let found = self.get_in(cf, state, key, seq, &mut take)?;
            return self.alive(cf, found, at, &mut take);
        }
        // The state first, then the number: what this state lacks was written after the number.
        let state = cf.inner.peek();
        // Of a family that is dropped the state is empty.
        self.check_family(cf)?;
        let seq = at.map_or_else(|| self.commit.visible(), Snapshot::seq);
        self.get_at(cf, &state, key, (seq, at), &mut take)
    }

    /// The value of `key` in `state` at a number, alive at the time of its snapshot or now.
    #[inline]
    pub(crate) fn get_at<T: Take>(
        &self,
        cf: &ColumnFamily,
        state: &ReadState,
        key: &[u8],
        (seq, at): (SequenceNumber, Option<&Snapshot>),
        take: &mut T,
    ) -> Result<Option<T::Output>> {
        let found = self.get_in(cf, state, key, seq, take)?;
        self.alive(cf, found, at, take)
    }

    /// What was found, unless it is past its time.
    #[inline]
    fn alive<T: Take>(
        &self,
        cf: &ColumnFamily,
        found: Option<T::Output>,
        at: Option<&Snapshot>,
        take: &mut T,
    ) -> Result<Option<T::Output>> {
        match (found, cf.inner.ttl()) {
            (Some(taken), Some(ttl)) => {
                let (value, time) = take
                    .split_time(taken)
                    .ok_or_else(|| Error::corruption(&self.dir, 0, NO_TIME))?;
                Ok((!self.life(ttl, at).is_over(time)).then_some(value))
            }
            (found, _) => Ok(found),
        }
    }

    /// Which rows of a family are past their time, where they live for `ttl` milliseconds.
    fn life(&self, ttl: u64, at: Option<&Snapshot>) -> Life {
        let now = at.map_or_else(|| self.snapshots.time.now(), Snapshot::time);
        Life::at(now, ttl)
    }

    fn get_in<T: Take>(
        &self,
        cf: &ColumnFamily,
        state: &ReadState,
        key: &[u8],
        seq: SequenceNumber,
        take: &mut T,
    ) -> Result<Option<T::Output>> {
        let seek = InternalKey::seek_to(key, seq);
        let mut covered = SequenceNumber::ZERO;
        for slot in state.memtables() {
            let memtable = &slot.memtable;
            covered = covered.max(memtable.covering_seq(key, seq));
            let found = memtable
                .get(seek)
                .map(|(trailer, value)| (trailer, take.bytes(value)));
            match judge(found, covered)? {
                Hit::None => {}
                Hit::Deleted => return Ok(None),
                Hit::Value(value) | Hit::Pointer(value) => return Ok(Some(value)),
                Hit::Merge => return self.get_merged(cf, state, key, seq, take).map(Some),
            }
        }
        let hash = key_hash(key);
        let version = &state.version;
        let overlapping = version.newest_with(key);
        let deeper = (1..LEVELS).filter_map(|level| version.find(level, key));
        for meta in overlapping.chain(deeper) {
            let table = match meta.open_table() {
                Some(table) => table,
                None if T::WAITS => meta.table(&*self.tables)?,
                None => return Err(Error::Busy("a table is not open yet".to_owned())),
            };
            if !table.tombstones().is_empty() {
                covered = covered.max(table.tombstones().covering_seq(key, seq));
            }
            match judge(take.table(table, seek, hash)?, covered)? {
                Hit::None => {}
                Hit::Deleted => return Ok(None),
                Hit::Value(value) => return Ok(Some(value)),
                Hit::Pointer(pointer) => return take.pointed(pointer, &self.tables).map(Some),
                Hit::Merge => return self.get_merged(cf, state, key, seq, take).map(Some),
            }
        }
        Ok(None)
    }

    /// A cursor over what is visible in `cf` as of `options`.
    pub(crate) fn user_iter(
        &self,
        cf: &ColumnFamily,
        options: &ReadOptions,
    ) -> Result<UserIter<Source>> {
        if let Some(append) = &cf.inner.append {
            return self.append_iter(cf, append, options);
        }
        self.user_iter_in(cf, &state_for(cf, options), options)
    }

    /// The same over what there is to read, of a plain family.
    #[inline]
    pub(crate) fn user_iter_in(
        &self,
        cf: &ColumnFamily,
        state: &ReadState,
        options: &ReadOptions,
    ) -> Result<UserIter<Source>> {
        // The state first, then the number, as for `get`.
        self.check_family(cf)?;
        let seq = options
            .snapshot
            .as_ref()
            .map_or_else(|| self.commit.visible(), Snapshot::seq);
        let (runs, max_seqs, tombstones) = self.sources(state, options, seq)?;
        Ok(UserIter::new(
            MergingIter::with_max_seqs(runs, max_seqs),
            Vec::new(),
            seq,
            options.lower.clone(),
            options.upper.clone(),
        )
        .reading(Arc::clone(&self.tables) as _, Arc::clone(&state.version))
        .under(tombstones)
        .merging(cf.inner.merger())
        .living(
            cf.inner
                .ttl()
                .map(|ttl| self.life(ttl, options.snapshot.as_ref())),
        ))
    }

    /// Every source of `state` that can have keys within the bounds, newest first, each with a number
    /// that none of its entries exceeds; and the range tombstones of all of them.
    fn sources(
        &self,
        state: &ReadState,
        options: &ReadOptions,
        at: SequenceNumber,
    ) -> Result<Sources> {
        // Cursors are large: there is memory for as many as there can be, and no more.
        let levels = (1..LEVELS).filter(|&level| !state.version.level(level).is_empty());
        let most = state.memtables().count() + state.version.level(0).len() + levels.count();
        let (mut runs, mut max_seqs) = (Vec::with_capacity(most), Vec::with_capacity(most));
        let mut sets: Vec<Covering> = Vec::new();
        for slot in state.memtables() {
            sets.extend(slot.memtable.skyline(at).map(Covering::skyline));
            if !slot.memtable.is_empty() {
                let max = slot
                    .frozen()
                    .map_or(SequenceNumber::MAX, |frozen| frozen.seq);
                runs.push(Source::Memtable(slot.memtable.iter()));
                max_seqs.push(max);
            }
        }
        let span = KeySpan {
            start: options.lower.as_deref().unwrap_or_default(),
            end: options
                .upper
                .as_deref()
                .map_or(Bound::Unbounded, Bound::Excluded),
        };
        for meta in state
            .version
            .level(0)
            .iter()
            .filter(|meta| meta.span().overlaps(span))
        {
            let table = meta.table(&*self.tables)?;
            if !table.tombstones().is_empty() {
                sets.push(Covering::set(Arc::clone(table.tombstones()), at));
            }
            runs.push(Source::Table(table.iter()));
            max_seqs.push(meta.max_seq());
        }
        for level in 1..LEVELS {
            let range = state.version.run_range(level, span);
            if range.is_empty() {
                continue;
            }
            if state.version.level_has_tombstones(level) {
                let covers = self.tables.covers(&state.version, level, range.clone(), at);
                sets.push(Covering::Level(Box::new(covers)));
            }
            runs.push(self.tables.run(&state.version, level, range));
            max_seqs.push(state.version.level_max_seq(level));
        }
        Ok((runs, max_seqs, sets))
    }

    /// Several keys of one family at one moment.
    pub(crate) fn multi_get<K: AsRef<[u8]>>(
        &self,
        cf: &ColumnFamily,
        keys: &[K],
        options: &ReadOptions,
    ) -> Result<Vec<Option<PinnedSlice>>> {
        if let Some(append) = &cf.inner.append {
            return self.append_multi_get(
                cf,
                append,
                keys,
                options.snapshot.as_ref(),
                &mut Pin::<true>,
            );
        }
        let state = state_for(cf, options);
        self.check_family(cf)?;
        let at = options.snapshot.as_ref();
        let seq = at.map_or_else(|| self.commit.visible(), Snapshot::seq);
        let get = |key: &K| {
            let found = self.get_in(cf, &state, key.as_ref(), seq, &mut Pin::<true>)?;
            self.alive(cf, found, at, &mut Pin::<true>)
        };
        keys.iter().map(get).collect()
    }

    /// Checks that `snapshot` is of this database.
    pub(crate) fn check_snapshot(&self, options: &ReadOptions) -> Result<()> {
        match &options.snapshot {
            Some(snapshot) if !snapshot.is_of(&self.snapshots) => {
                Err(Error::invalid("a snapshot of another database"))
            }
            _ => Ok(()),
        }
    }
}

/// What is wrong with a value of a family with a time to live that has none.
pub(crate) const NO_TIME: &str = "a value without a time in a family with a time to live";

/// What there is to read of a family.
pub(crate) fn state_for(cf: &ColumnFamily, options: &ReadOptions) -> Arc<ReadState> {
    let snapshot = options.snapshot.as_ref();
    let state = snapshot.and_then(|snapshot| snapshot.state_of(cf.id()));
    state.map_or_else(|| cf.inner.read_state(), Arc::clone)
}

/// What an entry, or its absence, means below a range delete at `covered`.
fn judge<T>(found: Option<(u64, T)>, covered: SequenceNumber) -> Result<Hit<T>> {
    let Some((trailer, value)) = found else {
        // Deeper places are older than the range delete too.
        return Ok(if covered > SequenceNumber::ZERO {
            Hit::Deleted
        } else {
            Hit::None
        });
    };
    if trailer_seq(trailer) < covered {
        return Ok(Hit::Deleted);
    }
    match trailer_kind(trailer) {
        Some(ValueKind::Put) => Ok(Hit::Value(value)),
        Some(ValueKind::Pointer) => Ok(Hit::Pointer(value)),
        Some(ValueKind::Delete) => Ok(Hit::Deleted),
        Some(ValueKind::Merge) => Ok(Hit::Merge),
        None => Err(Error::invalid(
            "an entry of a kind this version does not know",
        )),
    }
}
