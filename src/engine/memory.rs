//! Memory: one bound over what open databases hold, and the handle by which several of them share it.
//!
//! What is counted: memtables as allocated, those also that were flushed and are still read; the block cache; what open
//! tables keep beside it (index and filter where they are not mapped, slots and heads of blocks, range deletes); blocks that
//! values handed out keep alive; the indexes and the newest batches of append families. What moves is the cache, which gives way at once, and then
//! memtables, of which the largest is flushed; writers wait only for that. What cannot move (the rest) takes from both,
//! but memtables keep [`LEAST_SHARE`] of the budget, else nothing could be written.
//!
//! Not counted: buffers of a running flush or compaction, cursors, batches on their way, and maps of files.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use crate::{cache::BlockCache, column_family::Slot, db::DbInner, memtable::Memtable};

/// Memtables may always have the budget divided by this.
const LEAST_SHARE: usize = 8;
/// Writers wait from this part on, in sixteenths, of what memtables may have: the rest is what arrives until it is seen.
const STALL_SIXTEENTHS: usize = 15;
/// The newest batches of append families take at most the budget divided by this, in each database.
const TAIL_PART: usize = 16;

/// Bytes in use by things that each know their size.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gauge(Arc<AtomicUsize>);

/// Some bytes in use, until this is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    gauge: Gauge,
    bytes: usize,
}

impl Gauge {
    pub(crate) fn charge(&self, bytes: usize) -> Charge {
        self.0.fetch_add(bytes, Ordering::Relaxed);
        Charge {
            gauge: self.clone(),
            bytes,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.gauge.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A block cache and a bound of memory for the databases that are opened with it
/// (`Options::shared_memory`). Cheap to clone.
#[derive(Clone)]
pub struct SharedMemory {
    pub(crate) pool: Arc<Pool>,
}

impl SharedMemory {
    /// Memory for databases that hold at most `budget_bytes` together (`usize::MAX`: no bound), of that at most
    /// `block_cache_bytes` of decompressed blocks, and `max_pinned_bytes` by values handed out. See
    /// [`Options::memory_budget_bytes`](crate::Options::memory_budget_bytes).
    #[must_use]
    pub fn new(budget_bytes: usize, block_cache_bytes: usize, max_pinned_bytes: usize) -> Self {
        let cache = BlockCache::with_pins(block_cache_bytes.min(budget_bytes), max_pinned_bytes);
        Self {
            pool: Arc::new(Pool {
                cache,
                budget: AtomicUsize::new(budget_bytes),
                cache_wanted: AtomicUsize::new(block_cache_bytes),
                members: Mutex::default(),
            }),
        }
    }

    /// Changes the bound. What is held beyond it goes as soon as it can.
    pub fn set_budget_bytes(&self, bytes: usize) {
        self.pool.budget.store(bytes, Ordering::Relaxed);
        self.pool.balance();
    }

    /// Changes how much the block cache may hold.
    pub fn set_block_cache_bytes(&self, bytes: usize) {
        self.pool.cache_wanted.store(bytes, Ordering::Relaxed);
        self.pool.balance();
    }

    /// Changes how much values handed out may hold in place; beyond, they are copies.
    pub fn set_max_pinned_bytes(&self, bytes: usize) {
        self.pool.cache.pins().set_max(bytes);
    }

    /// What is in use.
    #[must_use]
    pub fn stats(&self) -> MemoryStats {
        self.pool.stats()
    }
}

impl fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedMemory({:?})", self.stats())
    }
}

/// Bytes of memory by what holds them, of all databases that share it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// The bound; `usize::MAX` where there is none.
    pub budget: usize,
    /// Memtables as allocated, as of the last look (every 64 batches, or sooner where batches are large).
    pub memtables: usize,
    /// The block cache.
    pub block_cache: usize,
    /// What open tables keep beside it.
    pub tables: usize,
    /// Blocks kept alive by values handed out; some may be in the cache too.
    pub pinned: usize,
    /// Indexes of append families, as of the last log segment begun.
    pub append_indexes: usize,
    /// The newest batches of append families, as of the last look.
    pub append_tails: usize,
}

impl MemoryStats {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> usize {
        let appends = self.append_indexes + self.append_tails;
        self.memtables + self.block_cache + self.tables + self.pinned + appends
    }
}

/// What one database holds, as it last said.
#[derive(Debug, Default)]
struct Usage {
    memtables: AtomicUsize,
    append_indexes: AtomicUsize,
    append_tails: AtomicUsize,
    /// Other databases that hold this one, to have it flush.
    visitors: AtomicUsize,
}

/// Another database of the pool, held for a moment: its close waits for that.
struct Visit {
    db: Arc<DbInner>,
    /// Let go of after `db`, as fields are dropped in their order.
    _visitor: Visitor,
}

struct Visitor(Arc<Usage>);

impl Drop for Visitor {
    fn drop(&mut self) {
        self.0.visitors.fetch_sub(1, Ordering::Release);
    }
}

struct Member {
    usage: Arc<Usage>,
    /// Nothing once it closes.
    db: Weak<DbInner>,
}

impl Member {
    /// Under the lock of the members, so that a close sees it.
    fn visit(&self) -> Option<Visit> {
        self.usage.visitors.fetch_add(1, Ordering::Relaxed);
        let visitor = Visitor(Arc::clone(&self.usage));
        let db = self.db.upgrade()?;
        Some(Visit {
            db,
            _visitor: visitor,
        })
    }
}

/// Shared by all handles.
pub(crate) struct Pool {
    pub(crate) cache: Arc<BlockCache>,
    budget: AtomicUsize,
    /// Bytes the cache may have while there is room.
    cache_wanted: AtomicUsize,
    members: Mutex<Vec<Member>>,
}

/// What a look at the memory says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The largest memtable should be flushed.
    pub(crate) flush: bool,
    /// Nothing should come in before that is done: bytes in use and the bound, for people.
    pub(crate) stall: Option<(usize, usize)>,
}

impl Pool {
    fn members(&self) -> MutexGuard<'_, Vec<Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stats(&self) -> MemoryStats {
        let (mut memtables, mut append_indexes, mut append_tails) = (0, 0, 0);
        for member in self.members().iter() {
            memtables += member.usage.memtables.load(Ordering::Relaxed);
            append_indexes += member.usage.append_indexes.load(Ordering::Relaxed);
            append_tails += member.usage.append_tails.load(Ordering::Relaxed);
        }
        MemoryStats {
            budget: self.budget.load(Ordering::Relaxed),
            memtables,
            block_cache: self.cache.bytes(),
            tables: self.cache.tables().bytes(),
            pinned: self.cache.pins().block_bytes(),
            append_indexes,
            append_tails,
        }
    }

    /// Gives the cache what the others leave, and tells whether that is enough.
    fn balance(&self) -> Verdict {
        let budget = self.budget.load(Ordering::Relaxed);
        let wanted = self.cache_wanted.load(Ordering::Relaxed);
        if budget == usize::MAX {
            self.cache.set_capacity(wanted);
            return Verdict::default();
        }
        let stats = self.stats();
        let fixed = stats.tables + stats.pinned + stats.append_indexes + stats.append_tails;
        let room = budget.saturating_sub(fixed).max(budget / LEAST_SHARE);
        self.cache
            .set_capacity(wanted.min(room.saturating_sub(stats.memtables)));
        let easy = room.saturating_sub(wanted).max(room / 2);
        let full = room / 16 * STALL_SIXTEENTHS;
        Verdict {
            flush: stats.memtables > easy,
            stall: (stats.memtables > full).then_some((stats.total(), budget)),
        }
    }
}

/// The part of one open database.
pub(crate) struct MemoryShare {
    pub(crate) memory: SharedMemory,
    usage: Arc<Usage>,
    /// Memtables that are in tables, and that readers held when they went.
    held: Mutex<Vec<Weak<Memtable>>>,
    /// Others hold the memory that is missing: writers slow down until those have flushed.
    pub(crate) slow: AtomicBool,
}

impl MemoryShare {
    pub(crate) fn new(memory: SharedMemory) -> Self {
        Self {
            memory,
            usage: Arc::default(),
            held: Mutex::default(),
            slow: AtomicBool::new(false),
        }
    }

    /// True where other databases take part.
    pub(crate) fn is_shared(&self) -> bool {
        self.memory.pool.members().len() > 1
    }

    fn held(&self) -> MutexGuard<'_, Vec<Weak<Memtable>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps account of memtables that are flushed, while somebody reads them.
    pub(crate) fn flushed(&self, slots: &[Arc<Slot>]) {
        let weak = slots.iter().map(|slot| Arc::downgrade(&slot.memtable));
        self.held().extend(weak);
    }

    fn held_bytes(&self) -> usize {
        let mut held = self.held();
        let mut bytes = 0;
        held.retain(|memtable| match memtable.upgrade() {
            Some(memtable) => {
                bytes += memtable.allocated();
                true
            }
            None => false,
        });
        bytes
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        let mut members = self.memory.pool.members();
        members.retain(|member| !Arc::ptr_eq(&member.usage, &self.usage));
    }
}

impl crate::Db {
    /// Bytes of memory by what holds them, of all databases that share it with this one.
    #[must_use]
    pub fn memory_stats(&self) -> MemoryStats {
        self.inner.memory_stats()
    }
}

impl DbInner {
    /// Takes part in the memory of its pool.
    pub(crate) fn join_memory(self: &Arc<Self>) {
        self.memory.memory.pool.members().push(Member {
            usage: Arc::clone(&self.memory.usage),
            db: Arc::downgrade(self),
        });
        self.measure_appends();
        self.balance_memory();
    }

    /// Has no other database of the pool hold this one any more. What it has in memory still counts.
    pub(crate) fn end_visits(&self) {
        let MemoryShare { memory, usage, .. } = &self.memory;
        for member in memory.pool.members().iter_mut() {
            if Arc::ptr_eq(&member.usage, usage) {
                member.db = Weak::new();
            }
        }
        while usage.visitors.load(Ordering::Acquire) > 0 {
            // The time to freeze a memtable.
            let pause = std::time::Duration::from_micros(50);
            self.options.executor.rest(pause);
        }
    }

    /// Says what this database holds, and looks whether that is too much. May be called under the commit lock.
    pub(crate) fn balance_memory(&self) -> Verdict {
        let pool = &self.memory.memory.pool;
        self.bound_tail();
        // Without a bound nobody needs it but those who ask.
        if pool.budget.load(Ordering::Relaxed) != usize::MAX {
            self.measure_memory();
        }
        pool.balance()
    }

    /// Has the newest batches of append families take no more than their part.
    fn bound_tail(&self) {
        let budget = self.memory.memory.pool.budget.load(Ordering::Relaxed);
        let most = self.options.append_tail_bytes;
        self.logs.tail.set_max(most.min(budget / TAIL_PART));
    }

    /// Says what memtables and the newest batches of append families hold.
    fn measure_memory(&self) {
        let allocated = |family: &crate::ColumnFamily| family.inner.peek().allocated_bytes();
        let active: usize = self.families().iter().map(allocated).sum();
        let bytes = active + self.memory.held_bytes();
        let usage = &self.memory.usage;
        usage.memtables.store(bytes, Ordering::Relaxed);
        let tail = self.logs.tail.bytes();
        usage.append_tails.store(tail, Ordering::Relaxed);
    }

    /// What all databases of the pool hold; this one is looked at for it.
    pub(crate) fn memory_stats(&self) -> MemoryStats {
        self.bound_tail();
        self.measure_memory();
        let memory = &self.memory.memory;
        memory.pool.balance();
        memory.stats()
    }

    /// Says what the indexes of append families hold. They are walked for it, so this is for now and then.
    pub(crate) fn measure_appends(&self) {
        let families = self.families();
        let appends = families.iter().filter_map(|f| f.inner.append.as_ref());
        let bytes = appends.map(|append| append.sizes().memory_bytes).sum();
        let usage = &self.memory.usage;
        usage.append_indexes.store(bytes, Ordering::Relaxed);
    }

    /// Has the database of the pool flush that holds the most, where this one holds less and memory is short. Not under a
    /// lock.
    pub(crate) fn relieve_memory(&self) {
        if !self.balance_memory().flush {
            return;
        }
        let bytes = |usage: &Usage| usage.memtables.load(Ordering::Relaxed);
        let own = bytes(&self.memory.usage);
        let largest = {
            let members = self.memory.memory.pool.members();
            let others = members.iter().filter(|member| bytes(&member.usage) > own);
            others
                .max_by_key(|member| bytes(&member.usage))
                .and_then(Member::visit)
        };
        if let Some(Visit { db, .. }) = largest.as_ref().filter(|visit| visit.db.may_work()) {
            let queue = db.commit.lock();
            db.freeze_largest(&queue);
        }
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
