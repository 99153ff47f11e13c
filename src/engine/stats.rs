//! What the engine tells about itself: sizes now, and counters since open.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{
    compaction::pending_bytes, db::DbInner, error::Error, key::SequenceNumber, options::LEVELS,
};

/// Counters since open. Relaxed: they order nothing.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) flushes: AtomicU64,
    pub(crate) flushed_bytes: AtomicU64,
    pub(crate) compactions: AtomicU64,
    pub(crate) trivial_moves: AtomicU64,
    pub(crate) dropped_whole: AtomicU64,
    /// Compactions by the level their output went to.
    pub(crate) compactions_into: [AtomicU64; LEVELS],
    pub(crate) compacted_bytes_read: AtomicU64,
    pub(crate) compacted_bytes_written: AtomicU64,
    pub(crate) compaction_turns: AtomicU64,
    pub(crate) rewritten_bytes: AtomicU64,
    pub(crate) merge_failures: AtomicU64,
    pub(crate) stalls: AtomicU64,
    pub(crate) slowdowns: AtomicU64,
}

/// One level of a family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LevelStats {
    /// Number of tables.
    pub tables: usize,
    /// Bytes of their files.
    pub bytes: u64,
}

/// One column family.
#[derive(Clone, Debug)]
pub struct FamilyStats {
    /// Its id.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// True for a logged family.
    pub logged: bool,
    /// Bytes of the memtable that takes writes.
    pub memtable_bytes: usize,
    /// Frozen memtables waiting for flush, and their bytes.
    pub immutable_memtables: usize,
    /// Bytes of the frozen memtables.
    pub immutable_bytes: usize,
    /// Its levels, from the top.
    pub levels: [LevelStats; LEVELS],
    /// Bytes that compaction has to rewrite, about, before every level has the size it should have.
    pub pending_compaction_bytes: u64,
    /// Every write up to here is in tables.
    pub flushed_seq: SequenceNumber,
    /// What an append family has instead of memtables and levels.
    pub append: Option<AppendStats>,
}

/// The index of an append family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppendStats {
    /// Prefixes that have entries.
    pub prefixes: usize,
    /// Entries.
    pub entries: usize,
    /// Bytes of memory, about.
    pub index_bytes: usize,
}

/// A database at one moment.
#[derive(Clone, Debug)]
pub struct Stats {
    /// The families alive, by id.
    pub families: Vec<FamilyStats>,
    /// Last published sequence number.
    pub last_seq: SequenceNumber,
    /// Bytes of log between the oldest record needed and the newest.
    pub log_bytes: u64,
    /// Log segments alive.
    pub log_segments: usize,
    /// Bytes of the log that entries of append families take, about.
    pub log_live_bytes: u64,
    /// Bytes of log that entries of append families took when they were written forward, since open.
    pub log_rewritten_bytes: u64,
    /// Bytes of log that only snapshots, iterators and slices hold.
    pub log_pinned_bytes: u64,
    /// Snapshots and their clones counted once each.
    pub snapshots: usize,
    /// Why writes wait now, if they do.
    pub stall: Option<String>,
    /// Why the database takes no writes, if so.
    pub read_only: Option<Error>,
    /// Flushes done since open.
    pub flushes: u64,
    /// Bytes of the tables they wrote.
    pub flushed_bytes: u64,
    /// Compactions done since open, trivial moves not counted.
    pub compactions: u64,
    /// Tables moved down a level as they were.
    pub trivial_moves: u64,
    /// Tables removed whole, because a range delete covers all of them.
    pub tables_dropped: u64,
    /// Compactions and moves by the level their output went to.
    pub compactions_into: [u64; LEVELS],
    /// Bytes compactions read.
    pub compacted_bytes_read: u64,
    /// Bytes compactions wrote.
    pub compacted_bytes_written: u64,
    /// Operands of merges that flush and compaction could not put together, because the operator failed: they are kept.
    pub merge_failures: u64,
    /// Writes that had to wait for background work.
    pub stalls: u64,
    /// Writes that were slowed.
    pub slowdowns: u64,
    /// Bytes that values handed out hold in place.
    pub pinned_bytes: usize,
    /// The block cache.
    pub cache: CacheStats,
}

/// The block cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Blocks held.
    pub blocks: usize,
    /// Bytes charged.
    pub bytes: u64,
    /// Most bytes held.
    pub capacity: u64,
}

impl DbInner {
    pub(crate) fn stats(&self) -> Stats {
        let families = self.families();
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let live = self.logs.live();
        let end = self.commit.lock().end_pos();
        let counters = &self.counters;
        let mut compactions_into = [0; LEVELS];
        for (into, counter) in compactions_into.iter_mut().zip(&counters.compactions_into) {
            *into = get(counter);
        }
        Stats {
            last_seq: self.commit.visible(),
            log_bytes: live
                .first()
                .map_or(0, |oldest| end.saturating_sub(oldest.base)),
            log_segments: live.len(),
            log_live_bytes: self.logs.segments().0.iter().map(|s| s.live_bytes()).sum(),
            log_rewritten_bytes: get(&counters.rewritten_bytes),
            log_pinned_bytes: self.logs.pinned_bytes(),
            snapshots: self.snapshots.len(),
            stall: self.stall_reason(&families),
            read_only: self.read_only_cause().map(|cause| Error::clone(&cause)),
            flushes: get(&counters.flushes),
            flushed_bytes: get(&counters.flushed_bytes),
            compactions: get(&counters.compactions),
            trivial_moves: get(&counters.trivial_moves),
            tables_dropped: get(&counters.dropped_whole),
            compactions_into,
            compacted_bytes_read: get(&counters.compacted_bytes_read),
            compacted_bytes_written: get(&counters.compacted_bytes_written),
            merge_failures: get(&counters.merge_failures),
            stalls: get(&counters.stalls),
            slowdowns: get(&counters.slowdowns),
            pinned_bytes: self.tables.cache.pins().bytes(),
            cache: {
                let cache = self.tables.cache.stats();
                CacheStats {
                    blocks: cache.blocks,
                    bytes: cache.bytes,
                    capacity: cache.capacity,
                }
            },
            families: families
                .iter()
                .map(|family| {
                    let state = family.inner.peek();
                    let mut levels = [LevelStats::default(); LEVELS];
                    for (level, stats) in levels.iter_mut().enumerate() {
                        stats.tables = state.version.level(level).len();
                        stats.bytes = state.version.level_bytes(level);
                    }
                    FamilyStats {
                        id: family.id(),
                        name: family.name().to_owned(),
                        logged: family.is_logged(),
                        memtable_bytes: state.active.memtable.bytes(),
                        immutable_memtables: state.frozen.len(),
                        immutable_bytes: state.frozen.iter().map(|s| s.memtable.bytes()).sum(),
                        levels,
                        pending_compaction_bytes: pending_bytes(
                            &state.version,
                            &family.inner.options(),
                        ),
                        flushed_seq: SequenceNumber(
                            family.inner.flushed_seq.load(Ordering::Acquire),
                        ),
                        append: family.inner.append.as_ref().map(|append| {
                            let sizes = append.sizes();
                            AppendStats {
                                prefixes: sizes.prefixes,
                                entries: sizes.entries,
                                index_bytes: sizes.memory_bytes,
                            }
                        }),
                    }
                })
                .collect(),
        }
    }
}
