//! The engines for the web page: the levels of each family with their tables, what runs, and what was counted.
//!
//! No key is in it: tables are placed by rank (`basalt_engine::Layout`).

use std::time::Duration;

use basalt_engine::{FamilyStats, Histogram, Layout, MemoryStats, Stats};
use serde::Serialize;

use crate::storage::{EngineView, Storage};

/// Tables of one family that are shown; the levels tell of all.
const MAX_TABLES: usize = 400;

#[derive(Debug, Serialize)]
pub(super) struct Engines {
    engines: Vec<Engine>,
}

#[derive(Debug, Serialize)]
struct Engine {
    /// `kv` or `raft`.
    name: &'static str,
    last_seq: u64,
    stall: Option<String>,
    read_only: Option<String>,
    log_bytes: u64,
    log_segments: usize,
    snapshots: usize,
    flushes: u64,
    flushed_bytes: u64,
    compactions: u64,
    trivial_moves: u64,
    compacted_bytes_read: u64,
    compacted_bytes_written: u64,
    stalls: u64,
    slowdowns: u64,
    stalled_seconds: f64,
    cache: Cache,
    memory: MemoryJson,
    times: Times,
    families: Vec<Family>,
}

#[derive(Debug, Serialize)]
struct Cache {
    blocks: usize,
    bytes: u64,
    capacity: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct MemoryJson {
    /// Null where there is no bound.
    budget: Option<usize>,
    memtables: usize,
    block_cache: usize,
    tables: usize,
    pinned: usize,
    append_indexes: usize,
    append_tails: usize,
    total: usize,
}

impl From<MemoryStats> for MemoryJson {
    fn from(memory: MemoryStats) -> Self {
        Self {
            budget: Some(memory.budget).filter(|bytes| *bytes != usize::MAX),
            memtables: memory.memtables,
            block_cache: memory.block_cache,
            tables: memory.tables,
            pinned: memory.pinned,
            append_indexes: memory.append_indexes,
            append_tails: memory.append_tails,
            total: memory.total(),
        }
    }
}

#[derive(Debug, Serialize)]
struct Times {
    get: Time,
    write: Time,
    seek: Time,
    sync: Time,
    flush: Time,
    compaction: Time,
}

/// Times in microseconds; 0 where nothing was timed.
#[derive(Debug, Serialize)]
struct Time {
    count: u64,
    mean_us: u128,
    p50_us: u128,
    p99_us: u128,
    max_us: u128,
}

impl From<&Histogram> for Time {
    fn from(times: &Histogram) -> Self {
        let share = |share| Duration::as_micros(&times.percentile(share));
        Self {
            count: times.count(),
            mean_us: times.mean().as_micros(),
            p50_us: share(0.5),
            p99_us: share(0.99),
            max_us: share(1.0),
        }
    }
}

#[derive(Debug, Serialize)]
struct Family {
    name: String,
    logged: bool,
    memtable_bytes: usize,
    immutable_memtables: usize,
    immutable_bytes: usize,
    levels: Vec<Level>,
    value_files: usize,
    value_bytes: u64,
    value_live_bytes: u64,
    pending_compaction_bytes: u64,
    read_amplification: usize,
    space_amplification: f64,
    write_amplification: f64,
    flushes: u64,
    flushed_bytes: u64,
    compactions: u64,
    compacted_bytes_written: u64,
    stall: Option<String>,
    stalls: u64,
    /// Null for a family of memtables and levels.
    append: Option<Append>,
    tables: Vec<Table>,
    tables_left_out: usize,
    ranks: usize,
    /// Levels that running compactions write into.
    running_into: Vec<usize>,
}

#[derive(Debug, Serialize)]
struct Level {
    level: usize,
    tables: usize,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct Append {
    prefixes: usize,
    entries: usize,
    index_bytes: usize,
}

#[derive(Debug, Serialize)]
struct Table {
    number: u64,
    level: usize,
    bytes: u64,
    entries: u64,
    first: usize,
    last: usize,
    compacting: bool,
}

/// The engines as they are now.
pub(super) fn look(storage: &dyn Storage) -> Engines {
    let mut engines = Vec::new();
    storage.engines(&mut |view| engines.push(engine(view)));
    Engines { engines }
}

fn engine(view: EngineView<'_>) -> Engine {
    let stats: Stats = view.db.stats();
    let families = stats.families.into_iter().filter_map(|family| {
        let word = (view.word)(&family.name)?.to_owned();
        // One that is dropped meanwhile is shown empty.
        let layout = view.db.cf(&family.name);
        let layout = layout.and_then(|cf| view.db.layout(&cf, MAX_TABLES));
        Some(family_json(word, family, layout.unwrap_or_default()))
    });
    Engine {
        families: families.collect(),
        name: view.name,
        last_seq: stats.last_seq.0,
        stall: stats.stall,
        read_only: stats.read_only.map(|error| error.to_string()),
        log_bytes: stats.log_bytes,
        log_segments: stats.log_segments,
        snapshots: stats.snapshots,
        flushes: stats.flushes,
        flushed_bytes: stats.flushed_bytes,
        compactions: stats.compactions,
        trivial_moves: stats.trivial_moves,
        compacted_bytes_read: stats.compacted_bytes_read,
        compacted_bytes_written: stats.compacted_bytes_written,
        stalls: stats.stalls,
        slowdowns: stats.slowdowns,
        stalled_seconds: stats.stalled.as_secs_f64(),
        cache: Cache {
            blocks: stats.cache.blocks,
            bytes: stats.cache.bytes,
            capacity: stats.cache.capacity,
        },
        memory: stats.memory.into(),
        times: Times {
            get: (&stats.times.get).into(),
            write: (&stats.times.write).into(),
            seek: (&stats.times.seek).into(),
            sync: (&stats.times.sync).into(),
            flush: (&stats.times.flush).into(),
            compaction: (&stats.times.compaction).into(),
        },
    }
}

fn family_json(name: String, family: FamilyStats, layout: Layout) -> Family {
    let levels = family.levels.iter().enumerate();
    let levels = levels.map(|(level, stats)| Level {
        level,
        tables: stats.tables,
        bytes: stats.bytes,
    });
    let tables = layout.tables.into_iter().map(|table| Table {
        number: table.number,
        level: table.level,
        bytes: table.bytes,
        entries: table.entries,
        first: table.first,
        last: table.last,
        compacting: table.compacting,
    });
    Family {
        name,
        logged: family.logged,
        memtable_bytes: family.memtable_bytes,
        immutable_memtables: family.immutable_memtables,
        immutable_bytes: family.immutable_bytes,
        levels: levels.collect(),
        value_files: family.values.files,
        value_bytes: family.values.bytes,
        value_live_bytes: family.values.live_bytes,
        pending_compaction_bytes: family.pending_compaction_bytes,
        read_amplification: family.read_amplification,
        space_amplification: family.space_amplification,
        write_amplification: family.write_amplification,
        flushes: family.flushes,
        flushed_bytes: family.flushed_bytes,
        compactions: family.compactions,
        compacted_bytes_written: family.compacted_bytes_written,
        stall: family.stall,
        stalls: family.stalls,
        append: family.append.map(|append| Append {
            prefixes: append.prefixes,
            entries: append.entries,
            index_bytes: append.index_bytes,
        }),
        tables: tables.collect(),
        tables_left_out: layout.left_out,
        ranks: layout.ranks,
        running_into: layout.running,
    }
}
