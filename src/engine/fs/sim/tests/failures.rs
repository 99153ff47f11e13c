//! Planted failures and a full disk.

use super::*;

#[test]
fn any_kind_of_operation_can_be_made_to_fail_and_then_does_nothing() {
    let fs = disk();
    put(&fs, "/db/a", b"a", true);
    let before = fs.hash();
    let mut writer = fs.create(p("/db/w")).unwrap();
    let reader = fs.open(p("/db/a"), ReadMode::Mapped).unwrap();
    fs.remove_file(p("/db/w")).unwrap();
    type Call<'a> = (OpKind, Box<dyn FnMut() -> io::Result<()> + 'a>);
    let fs = &*fs;
    let calls: Vec<Call<'_>> = vec![
        (
            OpKind::CreateDir,
            Box::new(|| fs.create_dir_all(p("/db/d"))),
        ),
        (OpKind::Create, Box::new(|| fs.create(p("/db/b")).map(drop))),
        (
            OpKind::Create,
            Box::new(|| fs.lock(p("/db/LOCK")).map(drop)),
        ),
        (
            OpKind::Create,
            Box::new(|| fs.open_log(p("/db/1.log"), 10).map(drop)),
        ),
        (
            OpKind::Grow,
            Box::new(|| fs.open_log(p("/db/a"), 10).map(drop)),
        ),
        (OpKind::Write, Box::new(|| writer.append(b"x"))),
        (OpKind::SyncDir, Box::new(|| fs.sync_dir(p("/db")))),
        (
            OpKind::Rename,
            Box::new(|| fs.rename(p("/db/a"), p("/db/b"))),
        ),
        (
            OpKind::Link,
            Box::new(|| fs.hard_link(p("/db/a"), p("/db/b"))),
        ),
        (OpKind::Remove, Box::new(|| fs.remove_file(p("/db/a")))),
        (OpKind::RemoveDir, Box::new(|| fs.remove_dir(p("/db")))),
        (OpKind::Lock, Box::new(|| fs.lock(p("/db/a")).map(drop))),
        (OpKind::List, Box::new(|| fs.list_dir(p("/db")).map(drop))),
        (OpKind::Len, Box::new(|| fs.file_len(p("/db/a")).map(drop))),
        (
            OpKind::Open,
            Box::new(|| fs.open(p("/db/a"), ReadMode::Pread).map(drop)),
        ),
        (OpKind::Read, Box::new(|| fs.read(p("/db/a")).map(drop))),
        (OpKind::Read, Box::new(|| reader.read_at(0, &mut [0]))),
        (OpKind::Populate, Box::new(|| reader.populate(0, 1))),
    ];
    for (kind, mut call) in calls {
        fs.set_fault_rule(Some(fail_nth(kind, 0)));
        let error = call().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(5), "{kind:?}");
        fs.set_fault_rule(None);
        assert_eq!(fs.hash(), before, "{kind:?}");
    }
}

#[test]
fn a_rule_picks_operations_by_name_number_and_error() {
    let fs = disk();
    let full = || Failure::of(io::ErrorKind::StorageFull);
    let of_b = |op: &Op| op.kind == OpKind::Write && op.path.ends_with("b");
    fs.set_fault_rule(Some(fail_range(of_b, 1, 3, full)));
    let mut a = fs.create(p("/db/a")).unwrap();
    let mut b = fs.create(p("/db/b")).unwrap();
    let mut results = Vec::new();
    for _ in 0..4 {
        a.append(b"a").unwrap();
        results.push(b.append(b"b").map_err(|error| error.kind()));
    }
    let full = Err(io::ErrorKind::StorageFull);
    assert_eq!(results, [Ok(()), full, full, Ok(())]);
}

#[test]
fn a_failing_write_may_have_done_a_part() {
    let fs = disk();
    let log = fs.open_log(p("/db/1.log"), 10).unwrap();
    fs.set_fault_rule(Some(fail_range(
        |op| op.kind == OpKind::Write,
        0,
        1,
        || Failure::device().after(2),
    )));
    log.write_at(1, b"abcd").unwrap_err();
    assert_eq!(get(&fs, "/db/1.log").unwrap(), b"\0ab\0\0\0\0\0\0\0");
}

#[test]
fn after_a_failed_sync_no_later_sync_makes_those_bytes_durable() {
    let fs = disk();
    let log = fs.open_log(p("/db/1.log"), 2048).unwrap();
    log.sync().unwrap();
    fs.sync_dir(p("/db")).unwrap();
    log.write_at(0, &[1; 1024]).unwrap();
    fs.set_fault_rule(Some(fail_nth(OpKind::Sync, 0)));
    log.sync().unwrap_err();
    assert_eq!(
        get(&fs, "/db/1.log").unwrap()[..1024],
        [1; 1024],
        "still readable"
    );
    log.sync().expect("a later sync says that all is well");
    log.write_at(1024, &[2; 512]).unwrap();
    log.sync().unwrap();

    let mut seen = BTreeSet::new();
    for (seed, image) in images(&fs) {
        let content = get(&image, "/db/1.log").unwrap();
        assert_eq!(
            content[1024..1536],
            [2; 512],
            "seed {seed}: written after the failure"
        );
        seen.insert((content[0], content[512]));
    }
    assert_eq!(seen, BTreeSet::from([(0, 0), (0, 1), (1, 0), (1, 1)]));
    assert_eq!(
        get(&fs.crash(Survival::LoseUnsynced), "/db/1.log").unwrap()[..1024],
        [0; 1024]
    );

    // Written again, a sector is dirty again, and the next sync counts for it: for all of it.
    log.write_at(0, &[3; 10]).unwrap();
    log.sync().unwrap();
    for (seed, image) in images(&fs) {
        let content = get(&image, "/db/1.log").unwrap();
        assert_eq!((content[0], content[100]), (3, 1), "seed {seed}");
    }
    let lost = get(&fs.crash(Survival::LoseUnsynced), "/db/1.log").unwrap();
    assert_eq!((lost[0], lost[512]), (3, 0));
}

#[test]
fn after_a_failed_sync_the_length_is_unknown_too() {
    let fs = disk();
    let mut file = fs.create(p("/db/a")).unwrap();
    fs.sync_dir(p("/db")).unwrap();
    file.append(b"abc").unwrap();
    fs.set_fault_rule(Some(fail_nth(OpKind::Sync, 0)));
    file.sync().unwrap_err();
    file.sync().unwrap();
    let lens: BTreeSet<usize> = images(&fs)
        .map(|(_, image)| get(&image, "/db/a").unwrap().len())
        .collect();
    assert_eq!(lens, BTreeSet::from([0, 3]));
    file.append(b"d").unwrap();
    file.sync().unwrap();
    assert_eq!(
        get(&fs.crash(Survival::LoseUnsynced), "/db/a").unwrap(),
        b"abcd",
        "one sector"
    );
}

#[test]
fn after_a_failed_directory_sync_no_later_sync_makes_those_entries_durable() {
    let fs = disk();
    put(&fs, "/db/a", b"a", true);
    fs.set_fault_rule(Some(fail_nth(OpKind::SyncDir, 0)));
    fs.sync_dir(p("/db")).unwrap_err();
    put(&fs, "/db/b", b"b", true);
    fs.sync_dir(p("/db")).unwrap();
    assert_eq!(fs.crash(Survival::LoseUnsynced).files(), [p("/db/b")]);
    let both = images(&fs)
        .filter(|(_, image)| image.files().len() == 2)
        .count();
    assert!((50..350).contains(&both), "{both} of 400");
}

#[test]
fn a_full_disk_takes_what_fits_keeps_preallocated_room_and_recovers_when_files_go() {
    let fs = disk();
    fs.set_capacity(Some(1000));
    let log = fs.open_log(p("/db/1.log"), 600).unwrap();
    let mut file = fs.create(p("/db/a")).unwrap();
    file.append(&[1; 300]).unwrap();
    assert_eq!(
        file.append(&[2; 300]).unwrap_err().kind(),
        io::ErrorKind::StorageFull
    );
    assert_eq!(fs.file_len(p("/db/a")).unwrap(), 400, "a part was written");
    assert_eq!(fs.used_bytes(), 1000);
    log.write_at(0, &[3; 600]).expect("its room is its own");
    assert_eq!(
        fs.open_log(p("/db/2.log"), 1).unwrap_err().kind(),
        io::ErrorKind::StorageFull
    );

    // A removed file gives its room back with its last handle.
    fs.remove_file(p("/db/1.log")).unwrap();
    assert_eq!(
        fs.open_log(p("/db/2.log"), 1).unwrap_err().kind(),
        io::ErrorKind::StorageFull
    );
    drop(log);
    assert_eq!(fs.used_bytes(), 400);
    fs.open_log(p("/db/2.log"), 600).unwrap();
    assert_eq!(
        fs.crash(Survival::KeepAll)
            .open_log(p("/db/3.log"), 1)
            .unwrap_err()
            .kind(),
        io::ErrorKind::StorageFull
    );
    fs.set_capacity(None);
    fs.open_log(p("/db/3.log"), 5000).unwrap();
}
