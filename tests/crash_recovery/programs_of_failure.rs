//! The programs of the workloads with crashes and failing disks inside, and those that are run once for each
//! operation that can fail.

use basalt_engine::fs::sim::{Failure, OpKind, Survival, fail_nth, fail_range};

use crate::{
    model::{LOGGED, UNLOGGED},
    programs::{edits, finish, ingest_one, start},
    workloads::{tiny, tiny_unlogged},
    world::{Done, World},
};

pub(crate) fn process_death(world: &mut World) -> Done {
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

pub(crate) fn power_cuts(world: &mut World) -> Done {
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

pub(crate) fn failed_writes(world: &mut World) -> Done {
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

pub(crate) fn failed_syncs(world: &mut World) -> Done {
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

pub(crate) fn disk_full(world: &mut World) -> Done {
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

pub(crate) fn tour(world: &mut World) -> Done {
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

pub(crate) fn commits(world: &mut World) -> Done {
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

pub(crate) fn recoveries(world: &mut World) -> Done {
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
