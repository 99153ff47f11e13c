//! What the engine tells about itself: sizes now, and counters since open.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::{
    compaction::pending_bytes,
    db::DbInner,
    error::Error,
    explain::{BlockSource, Explanation, Place},
    key::SequenceNumber,
    limiter::{RateLimiter, RateStats},
    memory::MemoryStats,
    options::LEVELS,
    timing::{Histogram, Nanos},
    values::live_bytes,
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
    pub(crate) stalled: Nanos,
    pub(crate) slowdowns: AtomicU64,
}

/// Counters of one family since open. Relaxed, too.
#[derive(Debug, Default)]
pub(crate) struct FamilyCounters {
    pub(crate) flushes: AtomicU64,
    pub(crate) flushed_bytes: AtomicU64,
    pub(crate) flush_time: Nanos,
    pub(crate) compactions: AtomicU64,
    pub(crate) compacted_bytes_read: AtomicU64,
    pub(crate) compacted_bytes_written: AtomicU64,
    pub(crate) compaction_time: Nanos,
    pub(crate) stalls: AtomicU64,
    pub(crate) stalled: Nanos,
    pub(crate) reads: ReadCounters,
}

/// What sampled gets met.
#[derive(Debug, Default)]
pub(crate) struct ReadCounters {
    samples: AtomicU64,
    gets: AtomicU64,
    tables: AtomicU64,
    filter_absent: AtomicU64,
    filter_found: AtomicU64,
    filter_wrong: AtomicU64,
    in_map: AtomicU64,
    in_cache: AtomicU64,
    from_file: AtomicU64,
}

impl ReadCounters {
    /// True for every second sample: the others are timed.
    pub(crate) fn is_walk(&self) -> bool {
        self.samples.fetch_add(1, Ordering::Relaxed) % 2 == 1
    }

    /// Counts one get.
    pub(crate) fn add(&self, get: &Explanation) {
        let count = |counter: &AtomicU64| {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        count(&self.gets);
        for step in &get.steps {
            if !matches!(step.place, Place::Table { .. }) {
                continue;
            }
            count(&self.tables);
            match step.filter {
                Some(false) => count(&self.filter_absent),
                Some(true) if step.met.is_some() => count(&self.filter_found),
                Some(true) => count(&self.filter_wrong),
                None => {}
            }
            match step.block {
                Some((BlockSource::Map, _)) => count(&self.in_map),
                Some((BlockSource::Cache, _)) => count(&self.in_cache),
                Some((BlockSource::File, _)) => count(&self.from_file),
                None => {}
            }
        }
    }

    fn stats(&self) -> SampledReads {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SampledReads {
            gets: get(&self.gets),
            tables: get(&self.tables),
            filter_absent: get(&self.filter_absent),
            filter_found: get(&self.filter_found),
            filter_wrong: get(&self.filter_wrong),
            in_map: get(&self.in_map),
            in_cache: get(&self.in_cache),
            from_file: get(&self.from_file),
        }
    }
}

/// What gets met, counted at one in twice `Options::stats_sampling` of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SampledReads {
    /// Gets looked at.
    pub gets: u64,
    /// Tables whose keys include the one asked for: looks at filters.
    pub tables: u64,
    /// Filters that said no: a block saved.
    pub filter_absent: u64,
    /// Filters that let through a key that was there.
    pub filter_found: u64,
    /// Filters that let through a key that was not.
    pub filter_wrong: u64,
    /// Blocks used in place in the map of their file.
    pub in_map: u64,
    /// Blocks in the block cache.
    pub in_cache: u64,
    /// Blocks that were read, or decompressed.
    pub from_file: u64,
}

impl SampledReads {
    /// The part of blocks that needed no reading and no decompression; `None` where none was looked at.
    #[must_use]
    pub fn hit_rate(&self) -> Option<f64> {
        let hits = self.in_map + self.in_cache;
        let all = hits + self.from_file;
        (all > 0).then(|| hits as f64 / all as f64)
    }
}

/// How long calls took since open; of gets, writes and seeks one in `Options::stats_sampling` is timed (of gets one in twice).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimeStats {
    /// Gets.
    pub get: Histogram,
    /// Writes that wait for their acknowledgement, with what they waited.
    pub write: Histogram,
    /// Seeks of cursors.
    pub seek: Histogram,
    /// Syncs of log segments that writers wait for, all of them.
    pub sync: Histogram,
    /// Flushes, all of them.
    pub flush: Histogram,
    /// Compactions that merge, all of them.
    pub compaction: Histogram,
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
    /// The value files beside its tables.
    pub values: ValueStats,
    /// Bytes that compaction has to rewrite, about, before every level has the size it should have.
    pub pending_compaction_bytes: u64,
    /// Every write up to here is in tables.
    pub flushed_seq: SequenceNumber,
    /// Sources that a read may have to look at: memtables with entries, tables of L0, levels with tables.
    pub read_amplification: usize,
    /// Bytes of tables per byte of the last level that has any; 0 without tables.
    pub space_amplification: f64,
    /// Bytes that flushes and compactions wrote per byte that flushes wrote, since open; 0 before the first.
    pub write_amplification: f64,
    /// Tables flushed since open.
    pub flushes: u64,
    /// Their bytes.
    pub flushed_bytes: u64,
    /// Time that took.
    pub flush_time: Duration,
    /// Compactions since open that merged.
    pub compactions: u64,
    /// Bytes they read.
    pub compacted_bytes_read: u64,
    /// Bytes they wrote.
    pub compacted_bytes_written: u64,
    /// Time they took.
    pub compaction_time: Duration,
    /// Why writes to it wait now, if they do.
    pub stall: Option<String>,
    /// Writes that had to wait.
    pub stalls: u64,
    /// Time they waited, each for itself.
    pub stalled: Duration,
    /// What sampled gets met.
    pub reads: SampledReads,
    /// What an append family has instead of memtables and levels.
    pub append: Option<AppendStats>,
}

/// The value files of a family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ValueStats {
    /// Number of files.
    pub files: usize,
    /// Bytes of the files.
    pub bytes: u64,
    /// Bytes of the values that tables need, as stored.
    pub live_bytes: u64,
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
    /// Bytes of memory that the newest batches of append families take, for reads.
    pub append_tail_bytes: usize,
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
    /// Time in which some writer waited.
    pub stalled: Duration,
    /// Events that listeners were too slow for.
    pub events_lost: u64,
    /// How long calls took.
    pub times: TimeStats,
    /// Memory by what holds it, of all databases that share it.
    pub memory: MemoryStats,
    /// What the rate limiter let through, if there is one, of all databases that share it.
    pub rate: Option<RateStats>,
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
    /// Blocks that were not in it and were put there.
    pub inserted: u64,
    /// Their bytes.
    pub inserted_bytes: u64,
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
            append_tail_bytes: self.logs.tail.bytes(),
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
            stalled: counters.stalled.get(),
            events_lost: self.events.lost(),
            times: TimeStats {
                get: self.timers.get.histogram(),
                write: self.timers.write.histogram(),
                seek: self.timers.seek.histogram(),
                sync: self.commit.syncs.histogram(),
                flush: self.timers.flush.histogram(),
                compaction: self.timers.compaction.histogram(),
            },
            memory: self.memory_stats(),
            rate: self
                .live
                .load()
                .rate_limiter
                .as_ref()
                .map(RateLimiter::stats),
            pinned_bytes: self.tables.cache.pins().bytes(),
            cache: {
                let cache = self.tables.cache.stats();
                CacheStats {
                    blocks: cache.blocks,
                    bytes: cache.bytes,
                    capacity: cache.capacity,
                    inserted: cache.inserted,
                    inserted_bytes: cache.inserted_bytes,
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
                    let own = &family.inner.counters;
                    let (flushed, written) =
                        (get(&own.flushed_bytes), get(&own.compacted_bytes_written));
                    let ratio = |part: u64, whole: u64| {
                        if whole == 0 {
                            0.0
                        } else {
                            part as f64 / whole as f64
                        }
                    };
                    let mut filled = levels.iter().filter(|level| level.bytes > 0);
                    let bytes: u64 = levels.iter().map(|level| level.bytes).sum();
                    let memtables = state.memtables().filter(|s| !s.memtable.is_empty());
                    let deeper = levels[1..].iter().filter(|level| level.tables > 0);
                    FamilyStats {
                        read_amplification: memtables.count() + levels[0].tables + deeper.count(),
                        space_amplification: ratio(
                            bytes,
                            filled.next_back().map_or(0, |l| l.bytes),
                        ),
                        write_amplification: ratio(flushed + written, flushed),
                        flushes: get(&own.flushes),
                        flushed_bytes: flushed,
                        flush_time: own.flush_time.get(),
                        compactions: get(&own.compactions),
                        compacted_bytes_read: get(&own.compacted_bytes_read),
                        compacted_bytes_written: written,
                        compaction_time: own.compaction_time.get(),
                        stall: self.stall_reason(std::slice::from_ref(family)),
                        stalls: get(&own.stalls),
                        stalled: own.stalled.get(),
                        reads: own.reads.stats(),
                        id: family.id(),
                        name: family.name().to_owned(),
                        logged: family.is_logged(),
                        memtable_bytes: state.active.memtable.bytes(),
                        immutable_memtables: state.frozen.len(),
                        immutable_bytes: state.frozen.iter().map(|s| s.memtable.bytes()).sum(),
                        levels,
                        values: live_bytes(&state.version).values().fold(
                            ValueStats::default(),
                            |sum, (file, live)| ValueStats {
                                files: sum.files + 1,
                                bytes: sum.bytes + file.record.size,
                                live_bytes: sum.live_bytes + live,
                            },
                        ),
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
