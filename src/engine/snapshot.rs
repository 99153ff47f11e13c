//! Snapshots: a sequence number held, so that reads at it stay still and compaction keeps what they see.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{append::View, key::SequenceNumber};

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
    list: Arc<SnapshotList>,
}

impl Snapshot {
    /// Every write up to this number is seen, none after it.
    #[must_use]
    pub fn seq(&self) -> SequenceNumber {
        self.inner.seq
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
#[derive(Debug, Default)]
pub(crate) struct SnapshotList {
    held: Mutex<BTreeMap<SequenceNumber, usize>>,
}

impl SnapshotList {
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
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let seq = visible();
        *held.entry(seq).or_default() += 1;
        Snapshot {
            inner: Arc::new(Held {
                seq,
                view,
                list: Arc::clone(self),
            }),
        }
    }

    /// Every number in use, ascending, followed by what `visible` answers: what a compaction must keep readable.
    pub(crate) fn boundaries(
        &self,
        visible: impl FnOnce() -> SequenceNumber,
    ) -> Vec<SequenceNumber> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = held.keys().copied().collect();
        let now = visible();
        if all.last() != Some(&now) {
            all.push(now);
        }
        all
    }

    /// Number of snapshots and iterators alive.
    pub(crate) fn len(&self) -> usize {
        self.held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .sum()
    }

    fn release(&self, seq: SequenceNumber) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&seq) {
            *count -= 1;
            if *count == 0 {
                held.remove(&seq);
            }
        }
    }
}
