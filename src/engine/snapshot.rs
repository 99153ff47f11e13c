//! Snapshots: a sequence number held, so that reads at it stay still and compaction keeps what they see.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    append::View,
    batch::FamilyId,
    clock::Time,
    column_family::{ColumnFamily, ReadState},
    key::SequenceNumber,
};

/// A moment of the database, across all its column families. Cheap to clone; the last clone dropped
/// lets compaction forget what only it could see.
#[derive(Clone)]
pub struct Snapshot {
    inner: Arc<Held>,
}

struct Held {
    seq: SequenceNumber,
    /// Append families keep no old versions, so what they were is held here.
    view: Option<View>,
    /// When it was taken, for rows with a time to live.
    time: u64,
    /// Families whose rows a compaction was filtering then, as they were.
    states: Vec<(FamilyId, Arc<ReadState>)>,
    list: Arc<SnapshotList>,
}

impl Snapshot {
    /// Every write up to this number is seen, none after it.
    #[must_use]
    pub fn seq(&self) -> SequenceNumber {
        self.inner.seq
    }

    /// When it was taken, in milliseconds.
    pub(crate) fn time(&self) -> u64 {
        self.inner.time
    }

    /// What is to be read of a family, where that is not what others read now.
    #[inline]
    pub(crate) fn state_of(&self, family: FamilyId) -> Option<&Arc<ReadState>> {
        let mut states = self.inner.states.iter();
        states.find(|(id, _)| *id == family).map(|(_, state)| state)
    }

    /// The append families at that moment, where there were any.
    pub(crate) fn view(&self) -> Option<&View> {
        self.inner.view.as_ref()
    }

    /// True where this snapshot was taken from the database `list` belongs to.
    pub(crate) fn is_of(&self, list: &Arc<SnapshotList>) -> bool {
        Arc::ptr_eq(&self.inner.list, list)
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Snapshot({:?})", self.inner.seq)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.list.release(self.seq);
    }
}

/// The sequence numbers in use by snapshots and iterators of one database.
#[derive(Debug)]
pub(crate) struct SnapshotList {
    held: Mutex<State>,
    /// The database's time.
    pub(crate) time: Time,
}

#[derive(Debug, Default)]
struct State {
    /// How many snapshots have a number, and the time of the first of them.
    held: BTreeMap<SequenceNumber, (usize, u64)>,
    /// Families of running compactions that filter rows.
    filtering: Vec<ColumnFamily>,
}

/// Who reads a database at a moment.
#[derive(Clone, Debug)]
pub(crate) struct Readers {
    /// Sequence numbers in use by snapshots, ascending, and at the end the one visible now.
    pub(crate) boundaries: Vec<SequenceNumber>,
    /// For each boundary the earliest time of a reader there, in milliseconds.
    pub(crate) times: Vec<u64>,
    /// The newest number that a snapshot has; zero without.
    pub(crate) newest_snapshot: SequenceNumber,
}

/// A compaction that filters rows of a family, until this is dropped.
pub(crate) struct Filtering<'a> {
    list: &'a SnapshotList,
    family: &'a ColumnFamily,
}

impl Filtering<'_> {
    /// Puts the result in place, and ends. A snapshot taken before holds the state before it.
    pub(crate) fn install(self, put_in_place: impl FnOnce()) {
        let mut state = self.list.lock();
        put_in_place();
        state.end_filtering(self.family);
        drop(state);
        std::mem::forget(self);
    }
}

impl Drop for Filtering<'_> {
    fn drop(&mut self) {
        self.list.lock().end_filtering(self.family);
    }
}

impl State {
    fn end_filtering(&mut self, family: &ColumnFamily) {
        if let Some(at) = self.filtering.iter().position(|other| other.same(family)) {
            self.filtering.swap_remove(at);
        }
    }
}

impl SnapshotList {
    pub(crate) fn new(time: Time) -> Self {
        Self {
            held: Mutex::default(),
            time,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a snapshot of what `visible` answers. It is asked under the lock, so that a compaction
    /// that looks at the list next either sees this snapshot or a later visible number.
    pub(crate) fn acquire(self: &Arc<Self>, visible: impl FnOnce() -> SequenceNumber) -> Snapshot {
        self.acquire_with(visible, None)
    }

    /// The same with a view of the append families at that moment.
    pub(crate) fn acquire_with(
        self: &Arc<Self>,
        visible: impl FnOnce() -> SequenceNumber,
        view: Option<View>,
    ) -> Snapshot {
        let mut state = self.lock();
        let seq = visible();
        let time = self.time.now();
        state.held.entry(seq).or_insert((0, time)).0 += 1;
        let mut states: Vec<(FamilyId, Arc<ReadState>)> = Vec::new();
        // The number first, then the state, which so has all up to it.
        for family in &state.filtering {
            if states.iter().all(|(id, _)| *id != family.id()) {
                states.push((family.id(), family.inner.read_state()));
            }
        }
        Snapshot {
            inner: Arc::new(Held {
                seq,
                view,
                time,
                states,
                list: Arc::clone(self),
            }),
        }
    }

    /// Who reads now: what a compaction must keep readable. `visible` answers the number visible now.
    pub(crate) fn readers(&self, visible: impl FnOnce() -> SequenceNumber) -> Readers {
        self.readers_in(&self.lock(), visible)
    }

    /// The same for a compaction that filters rows of `family`: snapshots taken from here on until it ends hold the
    /// state of the family.
    pub(crate) fn begin_filtering<'a>(
        &'a self,
        family: &'a ColumnFamily,
        visible: impl FnOnce() -> SequenceNumber,
    ) -> (Readers, Filtering<'a>) {
        let mut state = self.lock();
        state.filtering.push(family.clone());
        let readers = self.readers_in(&state, visible);
        let list = self;
        (readers, Filtering { list, family })
    }

    fn readers_in(&self, state: &State, visible: impl FnOnce() -> SequenceNumber) -> Readers {
        let held = &state.held;
        let mut boundaries: Vec<_> = held.keys().copied().collect();
        let mut times: Vec<_> = held.values().map(|(_, time)| *time).collect();
        let newest_snapshot = boundaries.last().copied().unwrap_or_default();
        let now = visible();
        if boundaries.last() != Some(&now) {
            boundaries.push(now);
            times.push(self.time.now());
        }
        Readers {
            boundaries,
            times,
            newest_snapshot,
        }
    }

    /// Number of snapshots alive.
    pub(crate) fn len(&self) -> usize {
        self.lock().held.values().map(|(count, _)| count).sum()
    }

    fn release(&self, seq: SequenceNumber) {
        let mut state = self.lock();
        if let Some((count, _)) = state.held.get_mut(&seq) {
            *count -= 1;
            if *count == 0 {
                state.held.remove(&seq);
            }
        }
    }
}
