//! The programs of the workloads on a good disk.

use std::collections::BTreeMap;

use basalt_engine::{CfOptions, Compression, LEVELS, fs::sim::Survival};

use crate::{
    model::{Edit, FamilyId, LOGGED, UNLOGGED},
    workloads::{tiny, tiny_unlogged},
    world::{Done, World},
};

pub(crate) fn start(world: &mut World) -> Done<FamilyId> {
    world.open(Survival::LoseUnsynced)?;
    world.open_cf("default", &tiny())?;
    Ok(world.family("default"))
}

pub(crate) fn key(world: &mut World, keys: u64) -> String {
    format!("k{:03}", world.rng.below(keys))
}

/// A put of a random key, or now and then a delete.
pub(crate) fn edit(world: &mut World, family: FamilyId, keys: u64) -> Edit {
    let key = key(world, keys);
    if world.rng.one_in(8) {
        Edit::Delete(family, key.into_bytes())
    } else {
        let len = world.rng.len(6..60);
        world.put(family, &key, len)
    }
}

/// A batch of one to three operations over `families`.
pub(crate) fn edits(world: &mut World, families: &[FamilyId], keys: u64) -> Vec<Edit> {
    let count = world.rng.range(1..4);
    (0..count)
        .map(|_| {
            let family = *world.rng.pick(families);
            edit(world, family, keys)
        })
        .collect()
}

pub(crate) fn finish(world: &mut World) -> Done {
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

pub(crate) fn synced_puts(world: &mut World) -> Done {
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

pub(crate) fn unsynced_puts(world: &mut World) -> Done {
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

pub(crate) fn mixed_sync(world: &mut World) -> Done {
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

pub(crate) fn rotation(world: &mut World) -> Done {
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
pub(crate) fn recycling(world: &mut World) -> Done {
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

pub(crate) fn oversize(world: &mut World) -> Done {
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

pub(crate) fn deep_levels(world: &mut World) -> Done {
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

pub(crate) fn deletes(world: &mut World) -> Done {
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

pub(crate) fn families(world: &mut World) -> Done {
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

pub(crate) fn unlogged(world: &mut World) -> Done {
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
pub(crate) fn entries(world: &mut World, from: u64, count: u64) -> BTreeMap<Vec<u8>, Vec<u8>> {
    (from..from + count)
        .map(|n| (format!("k{n:03}").into_bytes(), world.value(20)))
        .collect()
}

pub(crate) fn ingest_one(world: &mut World, all: &[FamilyId]) -> Done {
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

pub(crate) fn unlogged_ingest(world: &mut World) -> Done {
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

pub(crate) fn ingest(world: &mut World) -> Done {
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

pub(crate) fn checkpoint(world: &mut World) -> Done {
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

pub(crate) fn tickets(world: &mut World) -> Done {
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

pub(crate) fn tickets_over_classes(world: &mut World) -> Done {
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

pub(crate) fn reopen(world: &mut World) -> Done {
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

pub(crate) fn bounded_log(world: &mut World) -> Done {
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

pub(crate) fn compressed(world: &mut World) -> Done {
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

pub(crate) fn large_values(world: &mut World) -> Done {
    world.open(Survival::LoseUnsynced)?;
    let options = CfOptions {
        large_value_bytes: Some(64),
        write_buffer_bytes: 4096,
        ..tiny()
    };
    world.open_cf("default", &options)?;
    let family = world.family("default");
    for round in 0..80_usize {
        let key = key(world, 12);
        let mut value = world.value(10);
        if world.rng.one_in(3) {
            value.resize(40, b',');
        } else {
            value.resize(150, b';');
        }
        let put = Edit::Put(family, key.into_bytes(), value);
        world.write(&[put], round.is_multiple_of(4))?;
        if round % 10 == 9 {
            world.flush(family)?;
            world.settle();
        }
        if round == 50 {
            world.reopen()?;
            world.open_cf("default", &options)?;
        }
    }
    world.compact(family)?;
    world.reopen()?;
    finish(world)
}

pub(crate) fn changed_options(world: &mut World) -> Done {
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

pub(crate) fn everything(world: &mut World) -> Done {
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
