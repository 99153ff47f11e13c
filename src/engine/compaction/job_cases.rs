//! Cases over the world of `job_tests`: random lives, failures, what is durable when a job returns.

use super::*;

#[test]
fn reads_stay_the_same_at_every_snapshot_and_garbage_goes() {
    let mut total = Counts::default();
    for seed in 0..80 {
        println!("seed {seed}");
        let mut world = World::new(seed);
        for _ in 0..150 {
            world.step();
        }
        while !world.running.is_empty() {
            world.install_one();
        }
        while world.start_picked() {
            world.install_one();
        }
        let targets = crate::compaction::levels::LevelTargets::of(&world.version(), &world.options);
        assert!(world.version().level(0).len() < world.options.l0_compaction_trigger);
        for level in 1..LEVELS - 1 {
            assert!(world.version().level_bytes(level) <= targets.bytes[level]);
        }
        world.check_tables();

        world.snapshots.clear();
        world.compact_everything();
        let live = world.history.last().expect("never empty").len() as u64;
        for (level, table) in world.version().tables() {
            assert_eq!(level, LEVELS - 1, "{table:?}");
            assert_eq!(
                (table.info.deletes, table.info.tombstones),
                (0, 0),
                "{table:?}"
            );
        }
        assert_eq!(world.entries(), live, "exactly what can be read is left");
        while world.start_picked() {
            let reason = world.running.last().expect("just begun").0.reason;
            assert_eq!(reason, Reason::Values, "nothing else is left to do");
            world.install_one();
        }
        world.check_tables();
        world.check_values();

        let Counts {
            merges,
            moves,
            drops,
            cut,
            deep,
            together,
            ingested_below,
            split_tombstones,
            pointers,
            values_removed,
            values_left,
        } = world.counts;
        total.merges += merges;
        total.moves += moves;
        total.drops += drops;
        total.cut += cut;
        total.deep += deep;
        total.together = total.together.max(together);
        total.ingested_below += ingested_below;
        total.split_tombstones += split_tombstones;
        total.pointers += pointers;
        total.values_removed += values_removed;
        total.values_left += values_left;
    }
    println!("{total:?}");
    assert!(
        total.merges >= 500 && total.moves >= 5 && total.drops >= 100,
        "{total:?}"
    );
    assert!(
        total.cut >= 200 && total.split_tombstones >= 100,
        "{total:?}"
    );
    assert!(
        total.deep >= 50 && total.together >= 3 && total.ingested_below >= 50,
        "{total:?}"
    );
    assert!(
        total.pointers >= 300 && total.values_removed >= 300 && total.values_left >= 20,
        "{total:?}"
    );
}

#[test]
fn a_table_that_forgets_which_value_files_it_needs_is_noticed() {
    let notices = |seed| {
        let life = std::panic::AssertUnwindSafe(|| {
            let mut world = World::new(seed);
            world.faults = Faults(Fault::ForgetValueUse);
            for _ in 0..150 {
                world.step();
            }
        });
        std::panic::catch_unwind(life).is_err()
    };
    assert!((0..20).any(notices));
}

#[test]
fn a_job_that_fails_or_is_stopped_leaves_no_file() {
    let mut world = World::new(7);
    while world.version().level(0).len() < 6 {
        world.flush();
    }
    let before = world.fs.files();
    let compaction = world
        .with_pick(|version, context| pick(version, &world.options, context))
        .expect("L0 is full");
    let mut failed = 0;
    for kind in [OpKind::Create, OpKind::Write, OpKind::Sync, OpKind::SyncDir] {
        for n in 0..20 {
            world.fs.set_fault_rule(Some(fail_nth(kind, n)));
            let result = world.with_job(|job| run(&compaction, job));
            world.fs.set_fault_rule(None);
            let Err(error) = result else { break };
            assert!(matches!(error, Error::Io { .. }), "{error}");
            assert_eq!(world.fs.files(), before, "{kind:?} {n}");
            failed += 1;
        }
        for path in world
            .fs
            .files()
            .into_iter()
            .filter(|path| !before.contains(path))
        {
            world.fs.remove_file(&path).expect("what the good run made");
        }
    }
    assert!(failed >= 4, "each kind failed at least once");
    world.stop.store(true, Ordering::Release);
    let stopped = world.with_job(|job| run(&compaction, job));
    assert!(matches!(stopped, Err(Error::Closed)));
    assert_eq!(world.fs.files(), before);
}

#[test]
fn outputs_and_their_names_are_durable_when_a_job_returns_and_not_under_the_fault() {
    for (fault, durable) in [(Fault::None, true), (Fault::NoDirSyncForTable, false)] {
        let world = World::new(1);
        world.fs.sync_dir(Path::new("/")).expect("no faults");
        let memtable = Arc::new(Memtable::new(MemtableKind::default()));
        let key = InternalKey::new(b"k", SequenceNumber(1), ValueKind::Put);
        memtable.insert(key, b"v");
        let made = world.with_job(|job| {
            let boundaries = [SequenceNumber(1)];
            let job = JobContext {
                faults: Faults(fault),
                boundaries: &boundaries,
                ..*job
            };
            flush_to_table(vec![memtable.iter()], &memtable.tombstones(), &job)
        });
        let table = made.expect("no faults").expect("an entry");
        let survivor = world.fs.crash(crate::fs::sim::Survival::LoseUnsynced);
        let path = filename::table(dir(), table.number);
        assert_eq!(survivor.file_len(&path).is_ok(), durable, "{fault:?}");
        if durable {
            assert_eq!(survivor.file_len(&path).expect("there"), table.info.size);
        }
    }
}

#[test]
fn a_flush_of_nothing_makes_no_table() {
    let world = World::new(1);
    let memtable = Arc::new(Memtable::new(MemtableKind::default()));
    let made = world
        .with_job(|job| flush_to_table(vec![memtable.iter()], &Tombstones::default(), job))
        .expect("no faults");
    assert!(made.is_none());
    assert!(world.fs.files().is_empty());
}

/// Merges a table of `k000` to `k099`, about 10 KB, into L4 over the grandparents `l5`; the first key
/// of each output.
fn cuts(table_bytes: u64, l5: &[&str]) -> Vec<String> {
    let mut world = World::new(1);
    world.options = CfOptions {
        table_bytes,
        compression: [Compression::None; LEVELS],
        ..CfOptions::default()
    };
    let memtable = Arc::new(Memtable::new(MemtableKind::default()));
    for number in 0..100 {
        let key = format!("k{number:03}");
        let key = InternalKey::new(key.as_bytes(), SequenceNumber(1 + number), ValueKind::Put);
        memtable.insert(key, &[b'v'; 80]);
        world.history.push(Model::new());
    }
    let flushed = world
        .with_job(|job| flush_to_table(vec![memtable.iter()], &Tombstones::default(), job))
        .expect("no faults")
        .expect("entries");
    let input = Arc::new(TableMeta::new(flushed));
    let mut tables = vec![(0, Arc::clone(&input))];
    tables.extend(
        l5.iter()
            .map(|text| (5, crate::version::tests::table(5, text))),
    );
    let compaction = Compaction {
        kind: Kind::Merge,
        reason: Reason::L0Full,
        level: 0,
        output_level: 4,
        inputs: vec![(0, input)],
        version: Arc::new(Version::default().with_changes(&tables, &[]).expect("good")),
        claimed: false,
    };
    let output = world
        .with_job(|job| run(&compaction, job))
        .expect("no faults");
    assert_eq!(
        (output.stats.entries_read, output.stats.entries_written),
        (100, 100)
    );
    assert_eq!(
        output
            .tables
            .iter()
            .map(|table| table.info.entries)
            .sum::<u64>(),
        100
    );
    let first = |table: &TableRecord| String::from_utf8(table.info.smallest.clone()).expect("text");
    output.tables.iter().map(first).collect()
}

#[test]
fn outputs_end_where_tables_below_end_once_they_are_half_full_or_overlap_too_much() {
    assert_eq!(cuts(1 << 20, &[]), ["k000"]);
    let by_size = cuts(4000, &[]);
    assert!((3..=4).contains(&by_size.len()), "{by_size:?}");
    let below = [
        "91[k000..k009]",
        "92[k010..k024]",
        "93[k025..k049)",
        "94[k050..k079]",
    ];
    assert_eq!(cuts(4000, &below), ["k000", "k025", "k049", "k080"]);
    // 200 KiB, ten tables' bytes, may lie below one output; the outputs are not half full.
    let heavy = |kib: u64| {
        let below = [
            "91[k000..k009]",
            "92[k010..k024]",
            "93[k025..k049]",
            "94[k050..k079]",
        ];
        let texts = below.map(|text| format!("{text}x{kib}"));
        cuts(20 << 10, &texts.each_ref().map(String::as_str))
    };
    assert_eq!(heavy(30), ["k000"]);
    assert_eq!(heavy(120), ["k000", "k025", "k080"]);
}
