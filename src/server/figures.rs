//! The figures of an engine by name: one table for `/metrics`, for the call `Stats` and for `basalt stat`.
//!
//! A figure `NAME` is `basalt_engine_NAME` in `docs/metrics.md` (with `_total` where it counts), with the label `engine`;
//! one of a family has `cf` too.
//!
//! Promises: names stay. Not here: what is counted (`basalt_engine`), the figures that were shown before there was
//! this table (`metrics`).

use std::time::Duration;

use basalt_engine::{FamilyStats, IoPriority, Stats};

/// A figure of an engine or of a family of it.
pub(crate) struct Shape<T: 'static> {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    /// It only grows.
    pub(crate) counts: bool,
    pub(crate) of: fn(&T) -> u64,
}

const fn now<T>(name: &'static str, help: &'static str, of: fn(&T) -> u64) -> Shape<T> {
    Shape {
        name,
        help,
        counts: false,
        of,
    }
}

const fn count<T>(name: &'static str, help: &'static str, of: fn(&T) -> u64) -> Shape<T> {
    Shape {
        name,
        help,
        counts: true,
        of,
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn written(stats: &Stats, class: IoPriority) -> u64 {
    stats.rate.map_or(0, |rate| rate.bytes[class as usize])
}

/// Of a whole engine.
pub(crate) const ENGINE: &[Shape<Stats>] = &[
    now(
        "log_bytes",
        "Bytes of log between the oldest record needed and the newest",
        |s| s.log_bytes,
    ),
    now("log_segments", "Log segments", |s| s.log_segments as u64),
    now(
        "log_live_bytes",
        "Bytes of log that entries of append families take",
        |s| s.log_live_bytes,
    ),
    now(
        "log_pinned_bytes",
        "Bytes of log that only readers hold",
        |s| s.log_pinned_bytes,
    ),
    now("snapshots", "Snapshots held", |s| s.snapshots as u64),
    now(
        "memory_budget_bytes",
        "Bound of the memory of the engine; 0: none",
        |s| {
            Some(s.memory.budget)
                .filter(|budget| *budget != usize::MAX)
                .unwrap_or(0) as u64
        },
    ),
    now("memory_bytes", "Memory that counts for the budget", |s| {
        s.memory.total() as u64
    }),
    now(
        "memory_memtable_bytes",
        "Memory of memtables as allocated",
        |s| s.memory.memtables as u64,
    ),
    now(
        "memory_table_bytes",
        "Memory of what open tables keep",
        |s| s.memory.tables as u64,
    ),
    now(
        "memory_pinned_bytes",
        "Memory of blocks that values handed out hold",
        |s| s.memory.pinned as u64,
    ),
    now(
        "memory_append_index_bytes",
        "Memory of indexes of append families",
        |s| s.memory.append_indexes as u64,
    ),
    now(
        "memory_append_tail_bytes",
        "Memory of the newest batches of append families",
        |s| s.memory.append_tails as u64,
    ),
    now("cache_blocks", "Blocks in the block cache", |s| {
        s.cache.blocks as u64
    }),
    now("cache_bytes", "Bytes in the block cache", |s| s.cache.bytes),
    now(
        "cache_capacity_bytes",
        "Most bytes in the block cache",
        |s| s.cache.capacity,
    ),
    count(
        "cache_inserted",
        "Blocks that were not in the block cache and were put there",
        |s| s.cache.inserted,
    ),
    count("cache_inserted_bytes", "Bytes of them", |s| {
        s.cache.inserted_bytes
    }),
    now(
        "rate_limit_bytes",
        "Most bytes a second that background work writes; 0: no limit",
        |s| s.rate.map_or(0, |rate| rate.bytes_per_second),
    ),
    count(
        "rate_flush_bytes",
        "Bytes that flushes wrote through the rate limiter",
        |s| written(s, IoPriority::Flush),
    ),
    count(
        "rate_compaction_bytes",
        "Bytes that compactions wrote through the rate limiter",
        |s| written(s, IoPriority::Compaction),
    ),
    count(
        "rate_backup_bytes",
        "Bytes that backups and exports wrote through the rate limiter",
        |s| written(s, IoPriority::Backup),
    ),
    count(
        "rate_waited_microseconds",
        "Time that writes waited for the rate limiter",
        |s| {
            s.rate
                .map_or(0, |rate| rate.waited.iter().map(|time| micros(*time)).sum())
        },
    ),
    count("flushes", "Flushes", |s| s.flushes),
    count("flushed_bytes", "Bytes of the tables they wrote", |s| {
        s.flushed_bytes
    }),
    count("compactions", "Compactions that merged", |s| s.compactions),
    count("compacted_read_bytes", "Bytes that compactions read", |s| {
        s.compacted_bytes_read
    }),
    count(
        "compacted_written_bytes",
        "Bytes that compactions wrote",
        |s| s.compacted_bytes_written,
    ),
    count(
        "trivial_moves",
        "Tables moved down a level as they were",
        |s| s.trivial_moves,
    ),
    count(
        "tables_dropped",
        "Tables removed whole under a range delete",
        |s| s.tables_dropped,
    ),
    count(
        "log_rewritten_bytes",
        "Bytes of entries of append families that were written forward",
        |s| s.log_rewritten_bytes,
    ),
    count(
        "merge_failures",
        "Operands that their operator could not put together",
        |s| s.merge_failures,
    ),
    count(
        "stalls",
        "Writes that had to wait for background work",
        |s| s.stalls,
    ),
    count("slowdowns", "Writes that were slowed", |s| s.slowdowns),
    count(
        "stalled_microseconds",
        "Time in which some writer waited",
        |s| micros(s.stalled),
    ),
    count(
        "events_lost",
        "Events that listeners were too slow for",
        |s| s.events_lost,
    ),
    now("get_p50_microseconds", "Median of sampled gets", |s| {
        micros(s.times.get.percentile(0.5))
    }),
    now(
        "get_p99_microseconds",
        "99th percentile of sampled gets",
        |s| micros(s.times.get.percentile(0.99)),
    ),
    now(
        "write_p50_microseconds",
        "Median of sampled writes that wait",
        |s| micros(s.times.write.percentile(0.5)),
    ),
    now(
        "write_p99_microseconds",
        "99th percentile of sampled writes that wait",
        |s| micros(s.times.write.percentile(0.99)),
    ),
    now(
        "sync_p50_microseconds",
        "Median of syncs of the log that writers wait for",
        |s| micros(s.times.sync.percentile(0.5)),
    ),
    now(
        "sync_p99_microseconds",
        "99th percentile of syncs of the log that writers wait for",
        |s| micros(s.times.sync.percentile(0.99)),
    ),
    count("syncs", "Syncs of the log that writers wait for", |s| {
        s.times.sync.count()
    }),
];

/// Of one family.
pub(crate) const FAMILY: &[Shape<FamilyStats>] = &[
    now("value_files", "Value files", |f| f.values.files as u64),
    now("value_bytes", "Bytes of value files", |f| f.values.bytes),
    now(
        "value_live_bytes",
        "Bytes of values in them that tables need",
        |f| f.values.live_bytes,
    ),
    now(
        "pending_compaction_bytes",
        "Bytes that compactions have to rewrite before each level has its size",
        |f| f.pending_compaction_bytes,
    ),
    now(
        "read_amplification",
        "Sources that a read may have to look at",
        |f| f.read_amplification as u64,
    ),
    count("family_flushed_bytes", "Bytes that flushes wrote", |f| {
        f.flushed_bytes
    }),
    count(
        "family_compacted_bytes",
        "Bytes that compactions wrote",
        |f| f.compacted_bytes_written,
    ),
    count("family_stalls", "Writes that had to wait", |f| f.stalls),
    count(
        "family_stalled_microseconds",
        "Time they waited, each for itself",
        |f| micros(f.stalled),
    ),
    count("sampled_gets", "Gets looked at by sampling", |f| {
        f.reads.gets
    }),
    count(
        "sampled_filter_absent",
        "Filters that saved a block, in sampled gets",
        |f| f.reads.filter_absent,
    ),
    count(
        "sampled_filter_wrong",
        "Filters that let a key through that was not there, in sampled gets",
        |f| f.reads.filter_wrong,
    ),
    count(
        "sampled_blocks_mapped",
        "Blocks used in place in a map, in sampled gets",
        |f| f.reads.in_map,
    ),
    count(
        "sampled_blocks_cached",
        "Blocks in the block cache, in sampled gets",
        |f| f.reads.in_cache,
    ),
    count(
        "sampled_blocks_read",
        "Blocks read or decompressed, in sampled gets",
        |f| f.reads.from_file,
    ),
    now("append_prefixes", "Prefixes of an append family", |f| {
        f.append.map_or(0, |append| append.prefixes as u64)
    }),
    now("append_entries", "Entries of an append family", |f| {
        f.append.map_or(0, |append| append.entries as u64)
    }),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_plain() {
        let names = ENGINE.iter().map(|shape| shape.name);
        let names: Vec<_> = names.chain(FAMILY.iter().map(|shape| shape.name)).collect();
        let unique: BTreeSet<_> = names.iter().collect();
        assert_eq!(unique.len(), names.len());
        let is_plain = |name: &&str| {
            name.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        assert!(names.iter().all(is_plain), "{names:?}");
    }
}
