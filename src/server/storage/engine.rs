//! What every storage over the engine needs: its settings, its figures, its errors in our words.

use basalt_engine::{FamilyStats, LevelStats, RecoveryReport, Stats};
use basalt_proto::basaltpb::{ColumnFamilyStatus, EngineStatus, LevelStatus};

use super::{Error, StoreCode};

/// What of the engine's options a server lets its user set.
#[derive(Clone, Copy, Debug)]
pub struct EngineSettings {
    /// Bytes of decompressed blocks kept in memory.
    pub cache_bytes: usize,
    /// Bytes of a memtable before it is written to a table, in each column family.
    pub write_buffer_bytes: usize,
}

/// Why an engine could not be opened, with the next step where there is one.
pub(crate) fn explain_open(error: &basalt_engine::Error) -> String {
    let hint = if error.is_corruption() {
        "; see: basalt check DIR"
    } else {
        ""
    };
    format!("{error}{hint}")
}

/// Logs what the open of an engine has found.
pub(crate) fn report_recovery(engine: &str, report: &RecoveryReport) {
    tracing::info!(
        engine,
        created = report.created,
        records = report.records,
        operations = report.operations,
        mark = report.mark,
        "opened the store"
    );
    let dropped = report.log_bytes_dropped + report.manifest_bytes_dropped;
    if dropped > 0 {
        tracing::warn!(
            engine,
            log_bytes = report.log_bytes_dropped,
            manifest_bytes = report.manifest_bytes_dropped,
            "cut writes that were not finished, or torn, when the store was last open"
        );
    }
}

/// The figures of an engine, as clients are told them.
pub(crate) fn engine_status(stats: Stats) -> EngineStatus {
    let count = |count: usize| count as u64;
    let level = |(level, stats): (usize, LevelStats)| LevelStatus {
        level: u32::try_from(level).expect("levels are few"),
        table_count: count(stats.tables),
        table_bytes: stats.bytes,
    };
    let family = |family: FamilyStats| ColumnFamilyStatus {
        name: family.name,
        memtable_bytes: count(family.memtable_bytes + family.immutable_bytes),
        immutable_memtable_count: count(family.immutable_memtables),
        flushed_seq: family.flushed_seq.0,
        levels: family.levels.into_iter().enumerate().map(level).collect(),
    };
    EngineStatus {
        column_families: stats.families.into_iter().map(family).collect(),
        last_seq: stats.last_seq.0,
        // Logged writes of a server are synced before they are visible.
        synced_seq: stats.last_seq.0,
        stall_reason: stats.stall.unwrap_or_default(),
    }
}

impl From<basalt_engine::Error> for Error {
    fn from(error: basalt_engine::Error) -> Self {
        use basalt_engine::Error as Engine;
        let code = match &error {
            Engine::InvalidArgument(what) => return Self::InvalidArgument(what.clone()),
            Engine::NoSuchColumnFamily(_) => return Self::InvalidArgument(error.to_string()),
            Engine::Busy(what) => return Self::Busy(what.clone()),
            Engine::Closed => return Self::Stopped,
            Engine::ReadOnly { .. } => StoreCode::ReadOnly,
            Engine::Corruption { .. } => StoreCode::Corruption,
            Engine::Io { .. } if error.is_disk_full() => StoreCode::DiskFull,
            Engine::Io { .. } => StoreCode::Io,
            _ => StoreCode::Internal,
        };
        Self::Store {
            code,
            what: error.to_string(),
        }
    }
}
