//! `ColumnFamily`: the handle of a named key space, with its options and what readers need to read it.
//!
//! Readers take the whole [`ReadState`] by one atomic load; it is replaced, never changed. Who replaces it
//! holds the family's `replacing` lock.

use std::{
    fmt,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use arc_swap::{ArcSwap, ArcSwapOption};

use crate::{
    append::AppendFamily,
    batch::FamilyId,
    key::SequenceNumber,
    memtable::Memtable,
    merge::Merger,
    options::{CfOptions, MemtableKind},
    stats::FamilyCounters,
    version::Version,
};

/// A handle of a column family. Cheap to clone, without a lifetime; a handle of a dropped family
/// answers every call with `NoSuchColumnFamily`.
#[derive(Clone)]
pub struct ColumnFamily {
    pub(crate) inner: Arc<Family>,
}

pub(crate) struct Family {
    pub(crate) id: FamilyId,
    pub(crate) name: String,
    options: ArcSwap<CfOptions>,
    /// Milliseconds that rows live; 0: for ever, which is fixed at creation.
    ttl: AtomicU64,
    /// The newest time in the log, as an open found it.
    pub(crate) newest_time: AtomicU64,
    /// Who merges; of a family that takes merges.
    merger: ArcSwapOption<Merger>,
    /// True for a logged family; fixed at creation.
    pub(crate) logged: bool,
    /// Distinguishes open databases, so that a handle of another one is noticed.
    pub(crate) instance: u64,
    pub(crate) dropped: AtomicBool,
    /// Every write of the family up to here is in tables whose edit is durable.
    pub(crate) flushed_seq: AtomicU64,
    /// What an append family has instead of memtables and tables; its `read` stays empty.
    pub(crate) append: Option<AppendFamily>,
    pub(crate) counters: FamilyCounters,
    read: ArcSwap<ReadState>,
    replacing: Mutex<()>,
}

/// Everything a reader looks at, newest first.
pub(crate) struct ReadState {
    pub(crate) active: Arc<Slot>,
    /// Frozen memtables, newest first.
    pub(crate) frozen: Vec<Arc<Slot>>,
    pub(crate) version: Arc<Version>,
}

/// A memtable and its place in the order of writes.
pub(crate) struct Slot {
    pub(crate) memtable: Arc<Memtable>,
    /// Log position of its first record; `u64::MAX` while it has none. Set under the commit lock.
    first_pos: AtomicU64,
    /// A batch was directed here. Set under the commit lock, before its inserts begin.
    touched: AtomicBool,
    frozen: OnceLock<Frozen>,
}

/// Where in the order of writes a memtable ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frozen {
    /// Last sequence number that can be in it.
    pub(crate) seq: SequenceNumber,
    /// Log position behind its last record.
    pub(crate) pos: u64,
}

impl Slot {
    pub(crate) fn new(kind: MemtableKind) -> Arc<Self> {
        Arc::new(Self {
            memtable: Arc::new(Memtable::new(kind)),
            first_pos: AtomicU64::new(u64::MAX),
            touched: AtomicBool::new(false),
            frozen: OnceLock::new(),
        })
    }

    /// Takes note that a batch goes here, logged at `position` if it is; under the commit lock.
    pub(crate) fn touch(&self, position: Option<u64>) {
        self.touched.store(true, Ordering::Relaxed);
        let Some(position) = position else { return };
        if self.first_pos.load(Ordering::Relaxed) == u64::MAX {
            self.first_pos.store(position, Ordering::Relaxed);
        }
    }

    /// True once a batch was directed here; under the commit lock.
    pub(crate) fn is_touched(&self) -> bool {
        self.touched.load(Ordering::Relaxed)
    }

    /// Log position of its first record; `None` while it has none.
    pub(crate) fn first_pos(&self) -> Option<u64> {
        Some(self.first_pos.load(Ordering::Relaxed)).filter(|&pos| pos != u64::MAX)
    }

    /// Where it ends; `None` while it takes writes.
    pub(crate) fn frozen(&self) -> Option<Frozen> {
        self.frozen.get().copied()
    }
}

impl Family {
    pub(crate) fn new(
        id: FamilyId,
        name: String,
        options: CfOptions,
        instance: u64,
        version: Arc<Version>,
        flushed: SequenceNumber,
    ) -> Self {
        let state = ReadState {
            active: Slot::new(options.memtable),
            frozen: Vec::new(),
            version,
        };
        Self {
            id,
            logged: options.logged,
            append: options
                .append_prefix_bytes
                .map(|bytes| AppendFamily::new(id, bytes)),
            counters: FamilyCounters::default(),
            ttl: AtomicU64::new(options.ttl_millis().unwrap_or(0)),
            newest_time: AtomicU64::new(0),
            merger: ArcSwapOption::new(make_merger(&name, &options)),
            options: ArcSwap::from_pointee(options),
            name,
            instance,
            dropped: AtomicBool::new(false),
            flushed_seq: AtomicU64::new(flushed.0),
            read: ArcSwap::from_pointee(state),
            replacing: Mutex::new(()),
        }
    }

    /// Its options, for a short look.
    pub(crate) fn options(&self) -> arc_swap::Guard<Arc<CfOptions>> {
        self.options.load()
    }

    /// Replaces the options; `logged` is the same.
    pub(crate) fn set_options(&self, options: CfOptions) {
        assert_eq!(
            self.logged, options.logged,
            "the class of a family is fixed at creation"
        );
        self.ttl
            .store(options.ttl_millis().unwrap_or(0), Ordering::Relaxed);
        self.merger.store(make_merger(&self.name, &options));
        self.options.store(Arc::new(options));
    }

    /// Milliseconds that rows live, where they do not for ever.
    #[inline]
    pub(crate) fn ttl(&self) -> Option<u64> {
        Some(self.ttl.load(Ordering::Relaxed)).filter(|&ttl| ttl > 0)
    }

    /// Who merges; `None` where the family takes no merges.
    pub(crate) fn merger(&self) -> Option<Arc<Merger>> {
        self.merger.load_full()
    }

    /// Every write up to here is in tables.
    pub(crate) fn flushed(&self) -> u64 {
        self.flushed_seq.load(Ordering::Acquire)
    }

    /// What there is to read, for a short look.
    pub(crate) fn peek(&self) -> arc_swap::Guard<Arc<ReadState>> {
        self.read.load()
    }

    /// What there is to read, to keep.
    pub(crate) fn read_state(&self) -> Arc<ReadState> {
        self.read.load_full()
    }

    fn replace(&self, with: impl FnOnce(&ReadState) -> ReadState) {
        let _replacing = self
            .replacing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let next = with(&self.read.load());
        self.read.store(Arc::new(next));
    }

    /// Freezes the active memtable at a point of the write order; under the commit lock.
    pub(crate) fn freeze(&self, at: Frozen) {
        self.replace(|state| {
            state
                .active
                .frozen
                .set(at)
                .expect("a memtable is frozen once, when it stops being active");
            let mut frozen = Vec::with_capacity(state.frozen.len() + 1);
            frozen.push(Arc::clone(&state.active));
            frozen.extend(state.frozen.iter().cloned());
            ReadState {
                active: Slot::new(self.options().memtable),
                frozen,
                version: Arc::clone(&state.version),
            }
        });
    }

    /// Has the active memtable be of the kind that the options say, if nothing was directed to it; under the commit
    /// lock.
    pub(crate) fn renew_untouched(&self) {
        self.replace(|state| ReadState {
            active: if state.active.is_touched() {
                Arc::clone(&state.active)
            } else {
                Slot::new(self.options().memtable)
            },
            frozen: state.frozen.clone(),
            version: Arc::clone(&state.version),
        });
    }

    /// Lets go of all it holds, because it was dropped: a handle kept by somebody keeps no memory and no files.
    pub(crate) fn release(&self) {
        assert!(
            self.dropped.load(Ordering::Acquire),
            "readers look for the drop after they have taken the state"
        );
        self.replace(|_| ReadState {
            active: Slot::new(MemtableKind::default()),
            frozen: Vec::new(),
            version: Arc::default(),
        });
    }

    /// Puts a new version in place, and takes away the memtables that it holds now.
    pub(crate) fn install(&self, version: Arc<Version>, flushed: &[Arc<Slot>]) {
        self.replace(|state| {
            let keep = |slot: &&Arc<Slot>| !flushed.iter().any(|gone| Arc::ptr_eq(gone, slot));
            let frozen = state.frozen.iter().filter(keep).cloned().collect();
            ReadState {
                active: Arc::clone(&state.active),
                frozen,
                version,
            }
        });
    }
}

fn make_merger(family: &str, options: &CfOptions) -> Option<Arc<Merger>> {
    let setting = options.merge_operator.as_ref();
    setting.map(|setting| Arc::new(Merger::new(family, setting)))
}

impl ReadState {
    /// The memtables, newest first.
    pub(crate) fn memtables(&self) -> impl Iterator<Item = &Arc<Slot>> {
        std::iter::once(&self.active).chain(&self.frozen)
    }

    /// Log position of the oldest record that is only in memory.
    pub(crate) fn oldest_pos(&self) -> Option<u64> {
        self.memtables().filter_map(|slot| slot.first_pos()).min()
    }

    /// Bytes of all memtables as allocated.
    pub(crate) fn allocated_bytes(&self) -> usize {
        let allocated = |slot: &Arc<Slot>| slot.memtable.allocated();
        self.memtables().map(allocated).sum()
    }

    /// Bytes of all memtables.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.memtables().map(|slot| slot.memtable.bytes()).sum()
    }
}

impl ColumnFamily {
    pub(crate) fn new(family: Family) -> Self {
        Self {
            inner: Arc::new(family),
        }
    }

    /// Number of the family within its database; never reused.
    #[must_use]
    pub fn id(&self) -> FamilyId {
        self.inner.id
    }

    /// Name of the family.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Its options.
    #[must_use]
    pub fn options(&self) -> Arc<CfOptions> {
        self.inner.options.load_full()
    }

    /// True for a logged family.
    #[must_use]
    pub fn is_logged(&self) -> bool {
        self.inner.logged
    }

    /// True for an append family.
    #[must_use]
    pub fn is_append(&self) -> bool {
        self.inner.append.is_some()
    }

    /// True once the family was dropped.
    #[must_use]
    pub fn is_dropped(&self) -> bool {
        self.inner.dropped.load(Ordering::Acquire)
    }

    pub(crate) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

impl fmt::Debug for ColumnFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ColumnFamily({} {:?})", self.inner.id, self.inner.name)
    }
}
