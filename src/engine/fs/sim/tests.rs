//! The simulated disk: what it keeps, what it loses, and how it fails.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

mod failures;
mod survival;

fn p(path: &str) -> &Path {
    Path::new(path)
}

/// A disk with a durable directory `/db`.
fn disk() -> Arc<SimFs> {
    let fs = SimFs::new();
    fs.create_dir_all(p("/db")).unwrap();
    fs.sync_dir(p("/")).unwrap();
    fs
}

/// Creates a file; synced or not.
fn put(fs: &SimFs, path: &str, data: &[u8], sync: bool) {
    let mut file = fs.create(p(path)).unwrap();
    file.append(data).unwrap();
    if sync {
        file.sync().unwrap();
    }
}

/// The content of a file, or `None` where there is none.
fn get(fs: &SimFs, path: &str) -> Option<Vec<u8>> {
    match fs.read(p(path)) {
        Ok(content) => Some(content),
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
            None
        }
    }
}

/// The images of many random survivals.
fn images(fs: &SimFs) -> impl Iterator<Item = (u64, Arc<SimFs>)> {
    (0..400).map(|seed| (seed, fs.crash(Survival::Random { seed })))
}

#[test]
fn files_behave_as_on_a_real_disk() {
    let fs = disk();
    let data: Vec<u8> = (0..10_000)
        .map(|i| u8::try_from(i % 251).unwrap())
        .collect();
    put(&fs, "/db/a", &data, false);
    assert_eq!(fs.file_len(p("/db/a")).unwrap(), 10_000);
    assert_eq!(
        get(&fs, "db/a").unwrap(),
        data,
        "a relative path starts at /"
    );
    for mode in [ReadMode::Mapped, ReadMode::Pread] {
        let file = fs.open(p("/db/a"), mode).unwrap();
        let mut buf = [0; 300];
        file.read_at(4000, &mut buf).unwrap();
        assert_eq!(buf, data[4000..4300]);
        assert_eq!(
            file.map().map(<[u8]>::len),
            (mode == ReadMode::Mapped).then_some(10_000)
        );
        file.populate(9_999, 1).unwrap();
        assert_eq!(
            file.read_at(9_999, &mut [0; 2]).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }

    fs.hard_link(p("/db/a"), p("/db/b")).unwrap();
    assert_eq!(
        fs.hard_link(p("/db/a"), p("/db/b")).unwrap_err().kind(),
        io::ErrorKind::AlreadyExists
    );
    put(&fs, "/db/c", b"c", false);
    fs.rename(p("/db/c"), p("/db/a")).unwrap();
    assert_eq!(get(&fs, "/db/a").unwrap(), b"c");
    assert_eq!(get(&fs, "/db/b").unwrap(), data);
    assert_eq!(fs.list_dir(p("/db")).unwrap(), ["a", "b"]);
    assert_eq!(fs.files(), [p("/db/a"), p("/db/b")]);

    put(&fs, "/db/a", b"", false);
    assert_eq!(
        get(&fs, "/db/a").unwrap(),
        b"",
        "created again, it is emptied"
    );
    fs.create_dir_all(p("/db/x/y")).unwrap();
    fs.create_dir_all(p("/db/x/y")).unwrap();
    assert_eq!(
        fs.remove_dir(p("/db/x")).unwrap_err().kind(),
        io::ErrorKind::DirectoryNotEmpty
    );
    fs.remove_dir(p("/db/x/y")).unwrap();
    fs.remove_dir(p("/db/x")).unwrap();
}

#[test]
fn calls_on_what_is_missing_or_of_the_wrong_kind_fail_as_the_system_does() {
    let fs = disk();
    put(&fs, "/db/a", b"a", false);
    let kind = |result: io::Result<()>| result.unwrap_err().kind();
    assert_eq!(kind(fs.remove_file(p("/db/b"))), io::ErrorKind::NotFound);
    assert_eq!(
        kind(fs.rename(p("/db/b"), p("/db/c"))),
        io::ErrorKind::NotFound
    );
    assert_eq!(
        kind(fs.open(p("/no/a"), ReadMode::Pread).map(drop)),
        io::ErrorKind::NotFound
    );
    assert_eq!(
        kind(fs.create(p("/no/a")).map(drop)),
        io::ErrorKind::NotFound
    );
    assert_eq!(
        kind(fs.create(p("/db")).map(drop)),
        io::ErrorKind::IsADirectory
    );
    assert_eq!(
        kind(fs.read(p("/db")).map(drop)),
        io::ErrorKind::IsADirectory
    );
    assert_eq!(
        kind(fs.list_dir(p("/db/a")).map(drop)),
        io::ErrorKind::NotADirectory
    );
    assert_eq!(kind(fs.sync_dir(p(""))), io::ErrorKind::NotFound);
    assert_eq!(
        kind(fs.create_dir_all(p("/db/a"))),
        io::ErrorKind::AlreadyExists
    );
}

#[test]
fn a_removed_file_stays_readable_through_its_handles() {
    let fs = disk();
    put(&fs, "/db/a", b"abc", true);
    let mapped = fs.open(p("/db/a"), ReadMode::Mapped).unwrap();
    let called = fs.open(p("/db/a"), ReadMode::Pread).unwrap();
    fs.remove_file(p("/db/a")).unwrap();
    fs.sync_dir(p("/db")).unwrap();
    let mut buf = [0; 3];
    called.read_at(0, &mut buf).unwrap();
    assert_eq!(&buf, b"abc");
    assert_eq!(mapped.map().unwrap(), b"abc");
    assert_eq!(get(&fs.crash(Survival::ProcessDeath), "/db/a"), None);
}

#[test]
fn a_lock_has_one_holder_and_dies_with_a_crash() {
    let fs = disk();
    let lock = fs.lock(p("/db/LOCK")).unwrap();
    assert_eq!(
        fs.lock(p("/db/LOCK")).unwrap_err().kind(),
        io::ErrorKind::WouldBlock
    );
    fs.crash(Survival::ProcessDeath)
        .lock(p("/db/LOCK"))
        .unwrap();
    drop(lock);
    fs.lock(p("/db/LOCK")).unwrap();
}

#[test]
fn a_log_file_keeps_content_grows_with_zeros_and_has_an_end() {
    let fs = disk();
    let log = fs.open_log(p("/db/1.log"), 1000).unwrap();
    log.write_at(990, b"0123456789").unwrap();
    assert_eq!(
        log.write_at(991, b"0123456789").unwrap_err().kind(),
        io::ErrorKind::InvalidInput
    );
    assert_eq!(fs.open_log(p("/db/1.log"), 10).unwrap().capacity(), 1000);
    let log = fs.open_log(p("/db/1.log"), 3000).unwrap();
    assert_eq!(log.capacity(), 3000);
    let content = get(&fs, "/db/1.log").unwrap();
    assert_eq!(&content[990..1000], b"0123456789");
    assert!(content.len() == 3000 && content[1000..].iter().all(|byte| *byte == 0));
}

#[test]
fn damage_is_seen_by_read_calls_and_not_by_older_maps() {
    let fs = disk();
    put(&fs, "/db/a", b"abc", true);
    fs.sync_dir(p("/db")).unwrap();
    let called = fs.open(p("/db/a"), ReadMode::Pread).unwrap();
    let mapped = fs.open(p("/db/a"), ReadMode::Mapped).unwrap();
    fs.corrupt("/db/a", 1, 0x03).unwrap();
    assert_eq!(
        fs.corrupt("/db/a", 3, 1).unwrap_err().kind(),
        io::ErrorKind::UnexpectedEof
    );
    let mut buf = [0; 3];
    called.read_at(0, &mut buf).unwrap();
    assert_eq!((&buf, mapped.map().unwrap()), (b"aac", &b"abc"[..]));
    assert_eq!(
        get(&fs.crash(Survival::LoseUnsynced), "/db/a").unwrap(),
        b"aac"
    );
    fs.truncate("/db/a", 2).unwrap();
    assert_eq!(
        get(&fs.crash(Survival::LoseUnsynced), "/db/a").unwrap(),
        b"aa"
    );
    fs.write_raw("/db/b", b"whole").unwrap();
    fs.write_raw("/db/b", b"new").unwrap();
    assert_eq!(
        get(&fs.crash(Survival::LoseUnsynced), "/db/b").unwrap(),
        b"new"
    );
    assert_eq!(fs.read_raw("/db/b").unwrap(), b"new");
}

#[test]
fn the_hash_follows_from_names_and_contents_alone() {
    let (one, two) = (disk(), disk());
    put(&one, "/db/a", b"1", true);
    put(&one, "/db/b", b"2", true);
    put(&two, "/db/b", b"x", false);
    put(&two, "/db/b", b"2", false);
    assert_ne!(one.hash(), two.hash());
    put(&two, "/db/c", b"1", false);
    assert_ne!(one.hash(), two.hash(), "the names differ");
    two.rename(p("/db/c"), p("/db/a")).unwrap();
    assert_eq!(one.hash(), two.hash());
    assert_eq!(one.hash(), one.crash(Survival::KeepAll).hash());
    two.corrupt("/db/a", 0, 1).unwrap();
    assert_ne!(one.hash(), two.hash());
}

#[test]
fn images_and_their_disk_do_not_touch_each_other() {
    let fs = disk();
    put(&fs, "/db/a", &[1; 5000], true);
    fs.sync_dir(p("/db")).unwrap();
    let image = fs.crash(Survival::LoseUnsynced);
    let before = (fs.hash(), image.hash());
    assert_eq!(before.0, before.1);
    put(&image, "/db/a", b"image", true);
    assert_eq!(fs.hash(), before.0);
    fs.open_log(p("/db/a"), 0)
        .unwrap()
        .write_at(4000, b"disk")
        .unwrap();
    assert_eq!(get(&image, "/db/a").unwrap(), b"image");
}

#[test]
fn an_observer_sees_every_change_before_it_happens_and_may_take_images() {
    let fs = disk();
    assert_eq!(fs.op_count(), 2);
    let seen: Arc<Mutex<Vec<(String, usize, u64)>>> = Arc::default();
    let notes = Arc::clone(&seen);
    fs.set_observer(Some(Arc::new(move |fs, index, op| {
        assert_eq!((index, fs.op_count()), (op.index, op.index + 1));
        let image = fs.crash(Survival::KeepAll);
        notes
            .lock()
            .unwrap()
            .push((op.to_string(), image.files().len(), image.used_bytes()));
    })));
    put(&fs, "/db/a", b"abc", true);
    fs.rename(p("/db/a"), p("/db/b")).unwrap();
    fs.sync_dir(p("/db")).unwrap();
    drop(fs.open_log(p("/db/1.log"), 100).unwrap());
    get(&fs, "/db/b").unwrap();
    fs.remove_file(p("/db/b")).unwrap();
    fs.set_observer(None);
    fs.remove_file(p("/db/1.log")).unwrap();
    let seen: Vec<String> = seen
        .lock()
        .unwrap()
        .iter()
        .map(|(op, files, bytes)| format!("{op}: {files} files, {bytes} bytes"))
        .collect();
    assert_eq!(
        seen,
        [
            "#2 Create /db/a: 0 files, 0 bytes",
            "#3 Write /db/a 0+3: 1 files, 0 bytes",
            "#4 Sync /db/a: 1 files, 3 bytes",
            "#5 Rename /db/a to /db/b: 1 files, 3 bytes",
            "#6 SyncDir /db: 1 files, 3 bytes",
            "#7 Create /db/1.log: 1 files, 3 bytes",
            "#8 Grow /db/1.log 0+100: 2 files, 3 bytes",
            "#9 Remove /db/b: 2 files, 103 bytes",
        ]
    );
}
