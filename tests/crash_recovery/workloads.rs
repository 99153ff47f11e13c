//! The workloads: each a short program of operations that brings the database through a corner of its life.
//!
//! Stores are tiny (segments of 512 bytes to 4 KiB, memtables of 1 to 4 KiB), so that flush, compaction and
//! rotation come often and an image is cheap. Each says which events it must reach, and how often.

use std::{collections::BTreeMap, sync::Arc};

use basalt_engine::{
    CfOptions, Compression, LEVELS, Options,
    fs::{
        ReadMode,
        sim::{Failure, OpKind, Survival, fail_nth, fail_range},
    },
};

use crate::{
    check::MakeOptions,
    model::{Edit, FamilyId, LOGGED, UNLOGGED},
    world::{Done, Event, World},
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
    reserve: u64,
    read_mode: ReadMode,
}

const SMALL: Setup = Setup {
    segment: (512, 2048),
    recycled: 2,
    max_log: 64 << 10,
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
            options.reserve_bytes = self.reserve;
            options.read_mode = self.read_mode;
            options.block_cache_bytes = 64 << 10;
            options.faults = faults;
            options
        })
    }
}

/// Options of a family whose memtables and tables are tiny.
fn tiny() -> CfOptions {
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

fn tiny_unlogged() -> CfOptions {
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
        reaches: &[(RangeDelete, 6), (Flush, 4), (Compaction, 2)],
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

fn start(world: &mut World) -> Done<FamilyId> {
    world.open(Survival::LoseUnsynced)?;
    world.open_cf("default", &tiny())?;
    Ok(world.family("default"))
}

fn key(world: &mut World, keys: u64) -> String {
    format!("k{:03}", world.rng.below(keys))
}

/// A put of a random key, or now and then a delete.
fn edit(world: &mut World, family: FamilyId, keys: u64) -> Edit {
    let key = key(world, keys);
    if world.rng.one_in(8) {
        Edit::Delete(family, key.into_bytes())
    } else {
        let len = world.rng.len(6..60);
        world.put(family, &key, len)
    }
}

/// A batch of one to three operations over `families`.
fn edits(world: &mut World, families: &[FamilyId], keys: u64) -> Vec<Edit> {
    let count = world.rng.range(1..4);
    (0..count)
        .map(|_| {
            let family = *world.rng.pick(families);
            edit(world, family, keys)
        })
        .collect()
}

fn finish(world: &mut World) -> Done {
    world.read()?;
    if world.has_failed() || world.is_failing() {
        world.repair()?;
    }
    if world.was_resumed() {
        // A failing disk may have kept files from being removed; an open sweeps them up.
        world.reopen()?;
    }
    world.no_leaks()?;
    world.close()
}

fn synced_puts(world: &mut World) -> Done {
    let family = start(world)?;
    for round in 0..90 {
        let batch = edits(world, &[family], 40);
        world.write(&batch, true)?;
        if round % 16 == 15 {
            world.work(4);
        }
    }
    world.compact(family)?;
    finish(world)
}

fn unsynced_puts(world: &mut World) -> Done {
    let family = start(world)?;
    for round in 0..140 {
        let batch = edits(world, &[family], 40);
        world.write(&batch, false)?;
        if round % 40 == 39 {
            world.sync()?;
        }
        if round % 30 == 29 {
            world.flush(family)?;
        }
    }
    world.compact(family)?;
    finish(world)
}

fn mixed_sync(world: &mut World) -> Done {
    let default = start(world)?;
    world.open_cf("a", &tiny())?;
    world.open_cf("b", &tiny())?;
    let all = [default, world.family("a"), world.family("b")];
    for round in 0..120 {
        let batch = edits(world, &all, 30);
        let sync = world.rng.one_in(4);
        world.write(&batch, sync)?;
        if round % 25 == 24 {
            let family = *world.rng.pick(&all);
            world.flush(family)?;
        }
    }
    finish(world)
}

fn rotation(world: &mut World) -> Done {
    let default = start(world)?;
    world.open_cf("a", &tiny())?;
    let all = [default, world.family("a")];
    for round in 0..100 {
        let family = *world.rng.pick(&all);
        let key = key(world, 30);
        let len = world.rng.len(40..200);
        let put = world.put(family, &key, len);
        world.write(&[put], round % 9 == 8)?;
        if round == 50 {
            world.reopen()?;
        }
    }
    world.flush(default)?;
    finish(world)
}

/// Records of one size, so that old ones stand where new ones end.
fn recycling(world: &mut World) -> Done {
    let family = start(world)?;
    for round in 0..120 {
        let key = key(world, 12);
        let put = world.put(family, &key, 40);
        let sync = world.rng.one_in(5);
        world.write(&[put], sync)?;
        if round % 10 == 9 {
            world.flush(family)?;
            world.work(2);
        }
    }
    finish(world)
}

fn oversize(world: &mut World) -> Done {
    let family = start(world)?;
    for round in 0..36 {
        let key = key(world, 10);
        let len = if round % 6 == 2 { 5000 } else { 50 };
        let put = world.put(family, &key, len);
        world.write(&[put], round % 4 == 0)?;
        if round % 12 == 11 {
            world.flush(family)?;
        }
    }
    world.reopen()?;
    finish(world)
}

fn deep_levels(world: &mut World) -> Done {
    let family = start(world)?;
    for round in 0..9 {
        for _ in 0..14 {
            let key = key(world, 120);
            let put = world.put(family, &key, 60);
            world.write(&[put], false)?;
        }
        world.flush(family)?;
        if round % 3 == 2 {
            world.settle();
        }
    }
    world.compact(family)?;
    for _ in 0..20 {
        let batch = edits(world, &[family], 120);
        world.write(&batch, true)?;
    }
    world.compact(family)?;
    finish(world)
}

fn deletes(world: &mut World) -> Done {
    let family = start(world)?;
    for round in 0..80_u64 {
        let batch = if round % 9 == 8 {
            let from = world.rng.below(30);
            let to = from + world.rng.range(1..20);
            vec![Edit::DeleteRange(
                family,
                format!("k{from:03}").into_bytes(),
                format!("k{to:03}").into_bytes(),
            )]
        } else if round % 5 == 4 {
            vec![Edit::Delete(family, key(world, 40).into_bytes())]
        } else {
            edits(world, &[family], 40)
        };
        let sync = world.rng.one_in(3);
        world.write(&batch, sync)?;
        if round % 20 == 19 {
            world.flush(family)?;
            world.settle();
        }
    }
    world.compact(family)?;
    finish(world)
}

fn families(world: &mut World) -> Done {
    let default = start(world)?;
    for round in 0..9 {
        let name = format!("f{}", round % 3);
        if world.has_family(&name) {
            world.drop_cf(&name)?;
        }
        if round % 4 == 3 {
            world.reopen()?;
        }
        world.open_cf(&name, &tiny())?;
        let all = [default, world.family(&name)];
        for _ in 0..8 {
            let batch = edits(world, &all, 20);
            let sync = world.rng.one_in(3);
            world.write(&batch, sync)?;
        }
        if round % 2 == 1 {
            world.flush(all[1])?;
        }
        if round % 3 == 2 {
            world.drop_cf(&name)?;
        }
    }
    world.flush(default)?;
    finish(world)
}

fn unlogged(world: &mut World) -> Done {
    let default = start(world)?;
    for name in ["u", "v"] {
        world.open_cf(name, &tiny_unlogged())?;
    }
    world.open_cf("logged", &tiny())?;
    for round in 0..130 {
        let all = if round % 4 == 0 {
            vec![default, world.family("logged")]
        } else {
            world.families(UNLOGGED)
        };
        let batch = edits(world, &all, 30);
        world.write(&batch, round % 8 == 0)?;
        if round % 40 == 39 {
            let family = world.family("v");
            world.flush(family)?;
        }
        if round == 70 {
            world.reopen()?;
        }
    }
    let family = world.family("u");
    world.compact(family)?;
    finish(world)
}

/// A few ascending entries with fresh values.
fn entries(world: &mut World, from: u64, count: u64) -> BTreeMap<Vec<u8>, Vec<u8>> {
    (from..from + count)
        .map(|n| (format!("k{n:03}").into_bytes(), world.value(20)))
        .collect()
}

fn ingest_one(world: &mut World, all: &[FamilyId]) -> Done {
    let mut puts = BTreeMap::new();
    let mut deletes = Vec::new();
    for &family in all {
        let from = world.rng.below(30);
        if world.rng.one_in(2) {
            deletes.push(Edit::DeleteRange(
                family,
                format!("k{from:03}").into_bytes(),
                format!("k{:03}", from + 6).into_bytes(),
            ));
        }
        if family == all[0] || world.rng.one_in(2) {
            puts.insert(family, entries(world, from, 5));
        }
    }
    let batch = if world.rng.one_in(2) {
        edits(world, all, 30)
    } else {
        Vec::new()
    };
    world.ingest(&deletes, &puts, &batch)
}

fn unlogged_ingest(world: &mut World) -> Done {
    let default = start(world)?;
    for name in ["u", "v"] {
        world.open_cf(name, &tiny_unlogged())?;
    }
    for round in 0..6 {
        let all = world.families(UNLOGGED);
        for _ in 0..6 {
            let batch = edits(world, &all, 30);
            world.write(&batch, false)?;
        }
        let batch = edits(world, &[default], 30);
        world.write(&batch, round % 2 == 0)?;
        let some = if round % 3 == 0 { &all[..] } else { &all[..1] };
        ingest_one(world, some)?;
    }
    finish(world)
}

fn ingest(world: &mut World) -> Done {
    let default = start(world)?;
    world.open_cf("a", &tiny())?;
    let all = [default, world.family("a")];
    for round in 0..8 {
        for _ in 0..6 {
            let batch = edits(world, &all, 30);
            let sync = world.rng.one_in(3);
            world.write(&batch, sync)?;
        }
        let some = if round % 3 == 0 { &all[..] } else { &all[..1] };
        ingest_one(world, some)?;
        if round % 3 == 2 {
            world.settle();
        }
    }
    world.compact(default)?;
    finish(world)
}

fn checkpoint(world: &mut World) -> Done {
    let default = start(world)?;
    world.open_cf("a", &tiny())?;
    world.open_cf("u", &tiny_unlogged())?;
    for _ in 0..3 {
        let all = world.families(LOGGED);
        for _ in 0..10 {
            let batch = edits(world, &all, 30);
            let sync = world.rng.one_in(3);
            world.write(&batch, sync)?;
        }
        for _ in 0..3 {
            let all = world.families(UNLOGGED);
            let batch = edits(world, &all, 30);
            world.write(&batch, false)?;
        }
        world.checkpoint()?;
    }
    world.flush(default)?;
    finish(world)
}

fn tickets(world: &mut World) -> Done {
    let default = start(world)?;
    world.open_cf("a", &tiny())?;
    let all = [default, world.family("a")];
    for round in 0..110 {
        let batch = edits(world, &all, 30);
        let sync = world.rng.one_in(3);
        world.submit(&batch, sync)?;
        if round % 5 == 4 {
            let jobs = world.rng.below(4);
            world.work(jobs);
        }
        if round % 23 == 22 {
            let batch = edits(world, &all, 30);
            world.write(&batch, true)?;
        }
        if round == 60 {
            world.flush(default)?;
        }
    }
    world.settle();
    world.flush(default)?;
    finish(world)
}

fn tickets_over_classes(world: &mut World) -> Done {
    let default = start(world)?;
    world.open_cf("u", &tiny_unlogged())?;
    let other = world.family("u");
    for round in 0..120 {
        let family = if round % 3 == 1 { other } else { default };
        let batch = edits(world, &[family], 30);
        let sync = world.rng.one_in(2);
        world.submit(&batch, sync)?;
        if round % 4 == 3 {
            let jobs = world.rng.below(3);
            world.work(jobs);
        }
        if round % 50 == 49 {
            world.flush(other)?;
            world.flush(default)?;
        }
    }
    world.settle();
    finish(world)
}

fn reopen(world: &mut World) -> Done {
    let family = start(world)?;
    for round in 0..7 {
        for _ in 0..10 {
            let batch = edits(world, &[family], 30);
            let sync = world.rng.one_in(3);
            world.write(&batch, sync)?;
        }
        if round == 3 {
            world.flush(family)?;
        }
        world.reopen()?;
    }
    finish(world)
}

fn process_death(world: &mut World) -> Done {
    start(world)?;
    world.open_cf("a", &tiny())?;
    world.open_cf("u", &tiny_unlogged())?;
    for round in 0..7 {
        for _ in 0..12 {
            let class = if world.rng.one_in(4) {
                UNLOGGED
            } else {
                LOGGED
            };
            let all = world.families(class);
            let batch = edits(world, &all, 30);
            let sync = world.rng.one_in(5);
            world.write(&batch, sync)?;
        }
        if round == 4 {
            world.flush_all()?;
        }
        world.crash(Survival::ProcessDeath)?;
    }
    finish(world)
}

fn power_cuts(world: &mut World) -> Done {
    start(world)?;
    world.open_cf("a", &tiny())?;
    world.open_cf("u", &tiny_unlogged())?;
    for round in 0..9 {
        for _ in 0..9 {
            let class = if world.rng.one_in(4) {
                UNLOGGED
            } else {
                LOGGED
            };
            let all = world.families(class);
            let batch = edits(world, &all, 30);
            let sync = world.rng.one_in(6);
            world.write(&batch, sync)?;
        }
        if round == 5 {
            world.flush_all()?;
        }
        let seed = world.rng.next_u64();
        let how = *world.rng.pick(&[
            Survival::LoseUnsynced,
            Survival::ProcessDeath,
            Survival::Random { seed },
            Survival::Random { seed },
        ]);
        world.crash(how)?;
    }
    finish(world)
}

fn failed_writes(world: &mut World) -> Done {
    let default = start(world)?;
    world.open_cf("a", &tiny())?;
    let all = [default, world.family("a")];
    for round in 0..4_u64 {
        for _ in 0..12 {
            let batch = edits(world, &all, 30);
            let sync = world.rng.one_in(3);
            world.write(&batch, sync)?;
        }
        let nth = world.rng.below(4);
        if round % 2 == 0 {
            world.plant(fail_nth(OpKind::Write, nth));
        } else {
            // Half of the bytes get there.
            let part = || Failure::device().after(70);
            world.plant(fail_range(
                |op| op.kind == OpKind::Write,
                nth,
                nth + 1,
                part,
            ));
        }
        for _ in 0..12 {
            let batch = edits(world, &all, 30);
            let sync = world.rng.one_in(3);
            if world.rng.one_in(3) {
                world.submit(&batch, sync)?;
            } else {
                world.write(&batch, sync)?;
            }
        }
        world.settle();
        if world.has_failed() {
            world.repair()?;
        }
        world.heal();
    }
    world.flush(default)?;
    finish(world)
}

fn failed_syncs(world: &mut World) -> Done {
    let default = start(world)?;
    world.open_cf("a", &tiny())?;
    let all = [default, world.family("a")];
    for _ in 0..4 {
        for _ in 0..10 {
            let batch = edits(world, &all, 30);
            let sync = world.rng.one_in(4);
            world.write(&batch, sync)?;
        }
        let nth = world.rng.below(3);
        world.plant(fail_range(
            |op| op.kind == OpKind::Sync,
            nth,
            nth + 2,
            Failure::device,
        ));
        for _ in 0..10 {
            let batch = edits(world, &all, 30);
            let sync = world.rng.one_in(2);
            world.write(&batch, sync)?;
        }
        world.settle();
        if world.has_failed() {
            world.repair()?;
        }
        world.heal();
    }
    world.flush(default)?;
    finish(world)
}

fn disk_full(world: &mut World) -> Done {
    let default = start(world)?;
    world.open_cf("u", &tiny_unlogged())?;
    let other = world.family("u");
    for _ in 0..3 {
        let room = world.rng.range(500..3000);
        world.fill(room);
        for _ in 0..60 {
            if !world.is_failing() {
                break;
            }
            let family = if world.rng.one_in(4) { other } else { default };
            let batch = edits(world, &[family], 30);
            let sync = world.rng.one_in(3);
            world.write(&batch, sync)?;
        }
        world.settle();
        if world.has_failed() {
            world.repair()?;
        }
        world.heal();
    }
    for _ in 0..20 {
        let batch = edits(world, &[default], 30);
        world.write(&batch, true)?;
    }
    world.flush(default)?;
    finish(world)
}

fn bounded_log(world: &mut World) -> Done {
    let default = start(world)?;
    for name in ["a", "rare"] {
        world.open_cf(name, &tiny())?;
    }
    let (a, rare) = (world.family("a"), world.family("rare"));
    for round in 0..120 {
        let family = if round % 30 == 0 {
            rare
        } else {
            *world.rng.pick(&[default, a])
        };
        let batch = edits(world, &[family], 30);
        let sync = world.rng.one_in(6);
        world.write(&batch, sync)?;
        if round % 10 == 9 {
            world.work(3);
        }
    }
    finish(world)
}

fn compressed(world: &mut World) -> Done {
    world.open(Survival::LoseUnsynced)?;
    let options = CfOptions {
        compression: [Compression::Lz4; LEVELS],
        write_buffer_bytes: 4096,
        ..tiny()
    };
    world.open_cf("default", &options)?;
    let family = world.family("default");
    for round in 0..70_usize {
        let key = key(world, 50);
        let mut value = world.value(10);
        value.resize(120, b'.');
        let put = Edit::Put(family, key.into_bytes(), value);
        world.write(&[put], round.is_multiple_of(4))?;
        if round % 14 == 13 {
            world.flush(family)?;
            world.settle();
        }
    }
    world.compact(family)?;
    world.reopen()?;
    finish(world)
}

fn changed_options(world: &mut World) -> Done {
    let family = start(world)?;
    for round in 0..6_usize {
        let options = CfOptions {
            l0_slowdown_trigger: 2,
            l0_stop_trigger: 2 + round % 3,
            max_immutable_memtables: 1 + round % 2,
            write_buffer_bytes: 1024 << (round % 2),
            filter_bits_per_key: round * 3,
            ..tiny()
        };
        world.open_cf("default", &options)?;
        for _ in 0..16 {
            let batch = edits(world, &[family], 30);
            let sync = world.rng.one_in(4);
            world.write(&batch, sync)?;
        }
        if round == 3 {
            world.reopen()?;
        }
    }
    finish(world)
}

fn everything(world: &mut World) -> Done {
    start(world)?;
    world.open_cf("a", &tiny())?;
    world.open_cf("u", &tiny_unlogged())?;
    for _ in 0..150 {
        let class = if world.rng.one_in(4) {
            UNLOGGED
        } else {
            LOGGED
        };
        let all = world.families(class);
        match world.rng.below(60) {
            0 => world.reopen()?,
            1 => {
                let seed = world.rng.next_u64();
                world.crash(Survival::Random { seed })?;
            }
            2 => world.crash(Survival::ProcessDeath)?,
            3 => ingest_one(world, &all)?,
            4 => world.checkpoint()?,
            5..=8 => {
                let family = *world.rng.pick(&all);
                world.flush(family)?;
            }
            9 => {
                let family = *world.rng.pick(&all);
                world.compact(family)?;
            }
            10 if world.has_family("extra") => world.drop_cf("extra")?,
            10 => world.open_cf("extra", &tiny())?,
            11..=14 => {
                let jobs = world.rng.below(5);
                world.work(jobs);
            }
            15..=17 => {
                let family = all[0];
                let from = world.rng.below(30);
                let range = Edit::DeleteRange(
                    family,
                    format!("k{from:03}").into_bytes(),
                    format!("k{:03}", from + 5).into_bytes(),
                );
                world.write(&[range], false)?;
            }
            18..=29 => {
                let batch = edits(world, &all, 30);
                let sync = world.rng.one_in(3);
                world.submit(&batch, sync)?;
            }
            _ => {
                let batch = edits(world, &all, 30);
                let sync = world.rng.one_in(3);
                world.write(&batch, sync)?;
            }
        }
    }
    world.settle();
    world.flush_all()?;
    let family = world.family("default");
    world.compact(family)?;
    world.reopen()?;
    finish(world)
}

fn tour(world: &mut World) -> Done {
    let default = start(world)?;
    world.open_cf("a", &tiny())?;
    world.open_cf("u", &tiny_unlogged())?;
    let logged = [default, world.family("a")];
    for round in 0..10 {
        let batch = edits(world, &logged, 20);
        world.write(&batch, round % 3 == 0)?;
        let batch = edits(world, &[world.family("u")], 20);
        world.write(&batch, false)?;
    }
    world.flush(default)?;
    ingest_one(world, &logged)?;
    let other = world.family("u");
    world.flush(other)?;
    world.checkpoint()?;
    for round in 0..8 {
        let batch = edits(world, &logged, 20);
        world.write(&batch, round % 3 == 2)?;
    }
    world.compact(default)?;
    if world.has_family("a") {
        world.drop_cf("a")?;
    }
    world.read()?;
    world.reopen()?;
    for round in 0..6 {
        let batch = edits(world, &[default], 20);
        world.write(&batch, round % 2 == 0)?;
    }
    finish(world)
}

fn commits(world: &mut World) -> Done {
    let default = start(world)?;
    world.open_cf("a", &tiny())?;
    let all = [default, world.family("a")];
    for round in 0..50 {
        let batch = edits(world, &all, 20);
        let sync = world.rng.one_in(3);
        if world.rng.one_in(2) {
            world.submit(&batch, sync)?;
        } else {
            world.write(&batch, sync)?;
        }
        if round % 6 == 5 {
            world.work(2);
        }
        if round % 20 == 19 {
            world.flush(default)?;
        }
    }
    world.settle();
    finish(world)
}

fn recoveries(world: &mut World) -> Done {
    let default = start(world)?;
    for how in [
        Some(Survival::ProcessDeath),
        None,
        Some(Survival::Random { seed: 77 }),
    ] {
        for round in 0..5 {
            let batch = edits(world, &[default], 20);
            world.write(&batch, round == 2)?;
        }
        match how {
            Some(how) => world.crash(how)?,
            None => world.reopen()?,
        }
    }
    world.flush(default)?;
    finish(world)
}
