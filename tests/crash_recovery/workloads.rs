//! The workloads: each a short program of operations that brings the database through a corner of its life.
//!
//! Stores are tiny (segments of 512 bytes to 4 KiB, memtables of 1 to 4 KiB), so that flush, compaction and
//! rotation come often and an image is cheap. Each says which events it must reach, and how often.

use std::sync::Arc;

use basalt_engine::{CfOptions, Compression, LEVELS, Options, fs::ReadMode};

use crate::{
    check::MakeOptions,
    programs::{
        bounded_log, changed_options, checkpoint, compressed, deep_levels, deletes, everything,
        families, ingest, large_values, mixed_sync, oversize, recycling, reopen, rotation,
        synced_puts, tickets, tickets_over_classes, unlogged, unlogged_ingest, unsynced_puts,
    },
    programs_of_failure::{
        commits, disk_full, failed_syncs, failed_writes, power_cuts, process_death, recoveries,
        tour,
    },
    shared::Event,
    world::{Done, World},
};

/// One workload.
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    /// Events it must reach, each so often.
    pub(crate) reaches: &'static [(Event, u64)],
    pub(crate) setup: Setup,
    pub(crate) run: fn(&mut World) -> Done,
}

/// Settings of the database.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    segment: (u64, u64),
    recycled: usize,
    max_log: u64,
    max_manifest: u64,
    reserve: u64,
    read_mode: ReadMode,
}

const SMALL: Setup = Setup {
    segment: (512, 2048),
    recycled: 2,
    max_log: 64 << 10,
    max_manifest: 2 << 10,
    reserve: 0,
    read_mode: ReadMode::Mapped,
};

impl Setup {
    pub(crate) fn options(self, faults: basalt_engine::Faults) -> MakeOptions {
        Arc::new(move |fs, executor| {
            let mut options = Options::with(fs, executor);
            options.log_segment_bytes = self.segment;
            options.recycled_segments = self.recycled;
            options.max_log_bytes = self.max_log;
            options.max_manifest_bytes = self.max_manifest;
            options.reserve_bytes = self.reserve;
            options.read_mode = self.read_mode;
            options.block_cache_bytes = 64 << 10;
            options.faults = faults;
            options
        })
    }
}

/// Options of a family whose memtables and tables are tiny.
pub(crate) fn tiny() -> CfOptions {
    CfOptions {
        write_buffer_bytes: 2048,
        block_bytes: 256,
        restart_interval: 4,
        compression: [Compression::None; LEVELS],
        table_bytes: 2048,
        base_level_bytes: 4096,
        level_multiplier: 2,
        l0_compaction_trigger: 2,
        l0_slowdown_trigger: 8,
        l0_stop_trigger: 12,
        ..CfOptions::default()
    }
}

/// The same of a family that is not logged.
pub(crate) fn tiny_unlogged() -> CfOptions {
    CfOptions {
        logged: false,
        ..tiny()
    }
}

use Event::{
    Checkpoint, Compaction, Crash, CreateFamily, DropFamily, Failure as Failed, Flush, Ingest,
    LogRemoval, ManifestSwitch, Oversize, RangeDelete, Recycling, Reopen, Resume, Rotation, Synced,
    Ticket, UnloggedFlush, Unsynced,
};

/// All workloads.
pub(crate) const ALL: &[Workload] = &[
    Workload {
        name: "synced-puts",
        reaches: &[
            (Flush, 3),
            (Compaction, 1),
            (Rotation, 5),
            (Synced, 60),
            (Recycling, 2),
        ],
        setup: SMALL,
        run: synced_puts,
    },
    Workload {
        name: "unsynced-puts",
        reaches: &[(Flush, 3), (Compaction, 1), (Rotation, 5), (Unsynced, 100)],
        setup: SMALL,
        run: unsynced_puts,
    },
    Workload {
        name: "mixed-sync",
        reaches: &[
            (Flush, 4),
            (Synced, 20),
            (Unsynced, 60),
            (CreateFamily, 2),
            (Rotation, 5),
        ],
        setup: SMALL,
        run: mixed_sync,
    },
    Workload {
        name: "rotation",
        reaches: &[(Rotation, 25), (Flush, 1), (ManifestSwitch, 2)],
        setup: Setup {
            segment: (512, 512),
            ..SMALL
        },
        run: rotation,
    },
    Workload {
        name: "recycling",
        reaches: &[(Recycling, 8), (Flush, 8), (Rotation, 10)],
        setup: Setup {
            segment: (512, 1024),
            recycled: 3,
            ..SMALL
        },
        run: recycling,
    },
    Workload {
        name: "no-recycling",
        reaches: &[(LogRemoval, 8), (Flush, 8), (Rotation, 10)],
        setup: Setup {
            recycled: 0,
            segment: (512, 512),
            ..SMALL
        },
        run: recycling,
    },
    Workload {
        name: "oversize",
        reaches: &[(Oversize, 4), (Flush, 2), (Rotation, 6)],
        setup: SMALL,
        run: oversize,
    },
    Workload {
        name: "deep-levels",
        reaches: &[(Flush, 8), (Compaction, 3), (Recycling, 2)],
        setup: Setup {
            segment: (1024, 4096),
            ..SMALL
        },
        run: deep_levels,
    },
    Workload {
        name: "deletes",
        reaches: &[(RangeDelete, 6), (Flush, 3), (Compaction, 1)],
        setup: SMALL,
        run: deletes,
    },
    Workload {
        name: "families",
        reaches: &[
            (CreateFamily, 8),
            (DropFamily, 6),
            (Flush, 4),
            (ManifestSwitch, 2),
        ],
        setup: SMALL,
        run: families,
    },
    Workload {
        name: "manifests",
        reaches: &[
            (ManifestSwitch, 8),
            (Flush, 6),
            (CreateFamily, 4),
            (Compaction, 1),
        ],
        setup: Setup {
            max_manifest: 300,
            ..SMALL
        },
        run: families,
    },
    Workload {
        name: "unlogged",
        reaches: &[
            (UnloggedFlush, 6),
            (Flush, 6),
            (CreateFamily, 3),
            (Compaction, 1),
        ],
        setup: SMALL,
        run: unlogged,
    },
    Workload {
        name: "unlogged-ingest",
        reaches: &[(UnloggedFlush, 4), (Ingest, 4), (CreateFamily, 2)],
        setup: SMALL,
        run: unlogged_ingest,
    },
    Workload {
        name: "ingest",
        reaches: &[(Ingest, 6), (Flush, 4), (RangeDelete, 0), (Compaction, 1)],
        setup: SMALL,
        run: ingest,
    },
    Workload {
        name: "checkpoint",
        reaches: &[(Checkpoint, 3), (Flush, 3), (UnloggedFlush, 1)],
        setup: SMALL,
        run: checkpoint,
    },
    Workload {
        name: "tickets",
        reaches: &[(Ticket, 60), (Flush, 2), (Rotation, 5)],
        setup: SMALL,
        run: tickets,
    },
    Workload {
        name: "tickets-over-classes",
        reaches: &[(Ticket, 60), (UnloggedFlush, 1), (Flush, 2)],
        setup: Setup {
            segment: (512, 1024),
            ..SMALL
        },
        run: tickets_over_classes,
    },
    Workload {
        name: "reopen",
        reaches: &[(Reopen, 6), (ManifestSwitch, 7), (Flush, 1)],
        setup: Setup {
            reserve: 512,
            ..SMALL
        },
        run: reopen,
    },
    Workload {
        name: "process-death",
        reaches: &[(Crash, 6), (ManifestSwitch, 7), (Flush, 1)],
        setup: SMALL,
        run: process_death,
    },
    Workload {
        name: "power-cuts",
        reaches: &[(Crash, 8), (ManifestSwitch, 9), (Flush, 1)],
        setup: SMALL,
        run: power_cuts,
    },
    Workload {
        name: "failed-writes",
        reaches: &[(Resume, 3), (Failed, 3), (Flush, 1), (ManifestSwitch, 4)],
        setup: SMALL,
        run: failed_writes,
    },
    Workload {
        name: "failed-syncs",
        reaches: &[(Resume, 3), (Failed, 3), (Flush, 1), (ManifestSwitch, 4)],
        setup: SMALL,
        run: failed_syncs,
    },
    Workload {
        name: "disk-full",
        reaches: &[(Resume, 2), (Failed, 2), (Flush, 1), (ManifestSwitch, 3)],
        setup: Setup {
            reserve: 2048,
            ..SMALL
        },
        run: disk_full,
    },
    Workload {
        name: "bounded-log",
        reaches: &[(Flush, 4), (Rotation, 10)],
        setup: Setup {
            max_log: 1024,
            segment: (512, 512),
            ..SMALL
        },
        run: bounded_log,
    },
    Workload {
        name: "large-values",
        reaches: &[
            (Flush, 6),
            (Compaction, 3),
            (ManifestSwitch, 1),
            (Reopen, 2),
        ],
        setup: SMALL,
        run: large_values,
    },
    Workload {
        name: "compressed-pread",
        reaches: &[(Flush, 4), (Compaction, 2)],
        setup: Setup {
            read_mode: ReadMode::Pread,
            segment: (1024, 4096),
            ..SMALL
        },
        run: compressed,
    },
    Workload {
        name: "changed-options",
        reaches: &[(Flush, 4), (Compaction, 1), (ManifestSwitch, 2)],
        setup: SMALL,
        run: changed_options,
    },
    Workload {
        name: "everything",
        reaches: &[
            (Flush, 6),
            (Compaction, 1),
            (ManifestSwitch, 3),
            (Rotation, 5),
            (Ticket, 10),
            (UnloggedFlush, 1),
        ],
        setup: SMALL,
        run: everything,
    },
    Workload {
        name: "everything-again",
        reaches: &[
            (Flush, 6),
            (Compaction, 1),
            (ManifestSwitch, 3),
            (Rotation, 5),
            (Ticket, 10),
            (UnloggedFlush, 1),
        ],
        setup: Setup {
            segment: (512, 4096),
            recycled: 1,
            ..SMALL
        },
        run: everything,
    },
];

/// Short workloads that are run once for every operation of the disk that can fail.
pub(crate) const FAILING: &[Workload] = &[
    Workload {
        name: "tour",
        reaches: &[
            (Flush, 2),
            (UnloggedFlush, 1),
            (Ingest, 1),
            (Checkpoint, 1),
            (Compaction, 1),
            (DropFamily, 1),
            (ManifestSwitch, 2),
            (Rotation, 2),
        ],
        setup: SMALL,
        run: tour,
    },
    Workload {
        name: "commits",
        reaches: &[(Ticket, 10), (Rotation, 8), (Flush, 2), (Synced, 10)],
        setup: Setup {
            segment: (512, 512),
            ..SMALL
        },
        run: commits,
    },
    Workload {
        name: "recoveries",
        reaches: &[(Crash, 2), (Reopen, 1), (ManifestSwitch, 4)],
        setup: Setup {
            recycled: 0,
            reserve: 512,
            ..SMALL
        },
        run: recoveries,
    },
];

/// The workload of this name.
pub(crate) fn named(name: &str) -> &'static Workload {
    ALL.iter()
        .chain(FAILING)
        .find(|workload| workload.name == name)
        .unwrap_or_else(|| panic!("there is no workload {name:?}"))
}
