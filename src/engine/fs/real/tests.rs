//! The real disk, in temporary directories.

use std::cell::Cell;

use tempfile::TempDir;

use super::{log::RealLog, *};

fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn write_file(path: &Path, data: &[u8]) {
    let mut file = RealFs.create(path).unwrap();
    file.append(data).unwrap();
    file.sync().unwrap();
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect()
}

#[test]
fn a_created_file_is_read_back_in_both_modes() {
    let dir = dir();
    let path = dir.path().join("t");
    let data = bytes(100_000);
    write_file(&path, &data);
    assert_eq!(RealFs.file_len(&path).unwrap(), 100_000);
    assert_eq!(RealFs.read(&path).unwrap(), data);
    for mode in [ReadMode::Mapped, ReadMode::Pread] {
        let file = RealFs.open(&path, mode).unwrap();
        assert_eq!(file.len(), 100_000);
        assert_eq!(file.map().is_some(), mode == ReadMode::Mapped);
        for (offset, len) in [(0, 1), (4095, 2), (8192, 50_000), (99_999, 1), (100_000, 0)] {
            let mut buf = vec![0; len];
            file.read_at(offset as u64, &mut buf).unwrap();
            assert_eq!(buf, data[offset..offset + len]);
            file.populate(offset as u64, len).unwrap();
            if let Some(map) = file.map() {
                assert_eq!(map[offset..offset + len], buf);
            }
        }
    }
}

#[test]
fn creating_an_existing_file_empties_it() {
    let dir = dir();
    let path = dir.path().join("t");
    write_file(&path, b"old content");
    write_file(&path, b"new");
    assert_eq!(RealFs.read(&path).unwrap(), b"new");
}

#[test]
fn reading_past_the_end_is_an_unexpected_eof() {
    let dir = dir();
    let path = dir.path().join("t");
    write_file(&path, &bytes(10));
    for mode in [ReadMode::Mapped, ReadMode::Pread] {
        let file = RealFs.open(&path, mode).unwrap();
        let error = file.read_at(8, &mut [0; 3]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
    let mapped = RealFs.open(&path, ReadMode::Mapped).unwrap();
    for (offset, len) in [(8, 3), (11, 0), (u64::MAX, 2)] {
        let error = mapped.populate(offset, len).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{offset} {len}");
    }
}

#[test]
fn a_file_cut_short_under_its_map_is_an_error_of_populate_and_not_a_signal() {
    let dir = dir();
    let path = dir.path().join("t");
    write_file(&path, &bytes(64 << 10));
    let file = RealFs.open(&path, ReadMode::Mapped).unwrap();
    OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(4096)
        .unwrap();
    file.populate(0, 4096).unwrap();
    let error = file.populate(32 << 10, 4096).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn populating_falls_back_to_reading_where_the_kernel_does_not_know_it() {
    let dir = dir();
    let path = dir.path().join("t");
    write_file(&path, &bytes(40_000));
    let file = File::open(&path).unwrap();
    let unknown = AtomicBool::new(false);
    let asked = Cell::new(0);
    let advise = |_, _| {
        asked.set(asked.get() + 1);
        Err(io::ErrorKind::InvalidInput.into())
    };
    populate(&file, 1, 39_999, &unknown, advise).unwrap();
    populate(&file, 0, 40_000, &unknown, advise).unwrap();
    assert_eq!(asked.get(), 1, "a kernel is asked once");
    let error = populate(&file, 1, 40_000, &unknown, advise).unwrap_err();
    assert_eq!(
        error.kind(),
        io::ErrorKind::UnexpectedEof,
        "the range was read"
    );
}

#[test]
fn a_page_that_cannot_come_in_is_an_error_unless_reading_it_helps() {
    const EFAULT: i32 = 14;
    let dir = dir();
    let path = dir.path().join("t");
    write_file(&path, &bytes(4096));
    let file = File::open(&path).unwrap();
    let unknown = AtomicBool::new(false);
    for failures in [1, 2] {
        let asked = Cell::new(0);
        let result = populate(&file, 0, 4096, &unknown, |_, _| {
            asked.set(asked.get() + 1);
            if asked.get() <= failures {
                Err(io::Error::from_raw_os_error(EFAULT))
            } else {
                Ok(())
            }
        });
        assert_eq!(result.is_ok(), failures == 1);
        assert_eq!(asked.get(), 2);
    }
    assert!(!unknown.into_inner());
}

#[test]
fn an_empty_file_has_no_map_and_reads_nothing() {
    let dir = dir();
    let path = dir.path().join("t");
    write_file(&path, b"");
    let file = RealFs.open(&path, ReadMode::Mapped).unwrap();
    assert!(file.is_empty());
    assert!(file.map().is_none());
    file.read_at(0, &mut []).unwrap();
}

#[test]
fn a_removed_file_stays_readable_through_its_handle_and_map() {
    let dir = dir();
    let path = dir.path().join("t");
    let data = bytes(9000);
    write_file(&path, &data);
    let file = RealFs.open(&path, ReadMode::Mapped).unwrap();
    RealFs.remove_file(&path).unwrap();
    RealFs.sync_dir(dir.path()).unwrap();
    assert_eq!(
        RealFs.file_len(&path).unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
    file.populate(0, 9000).unwrap();
    assert_eq!(file.map().unwrap(), data);
}

#[test]
fn a_lock_is_refused_to_a_second_handle_until_the_first_is_dropped() {
    let dir = dir();
    let path = dir.path().join("LOCK");
    let lock = RealFs.lock(&path).unwrap();
    assert_eq!(
        RealFs.lock(&path).unwrap_err().kind(),
        io::ErrorKind::WouldBlock
    );
    drop(lock);
    RealFs.lock(&path).unwrap();
}

#[test]
fn links_renames_and_directories_do_as_the_trait_says() {
    let dir = dir();
    let (a, b, c) = (
        dir.path().join("a"),
        dir.path().join("b"),
        dir.path().join("c"),
    );
    write_file(&a, b"1");
    write_file(&c, b"2");
    RealFs.hard_link(&a, &b).unwrap();
    assert_eq!(
        RealFs.hard_link(&a, &b).unwrap_err().kind(),
        io::ErrorKind::AlreadyExists
    );
    RealFs.rename(&a, &c).unwrap();
    let mut names = RealFs.list_dir(dir.path()).unwrap();
    names.sort();
    assert_eq!(names, ["b", "c"]);
    assert_eq!(RealFs.read(&c).unwrap(), b"1");

    let deep = dir.path().join("x/y");
    RealFs.create_dir_all(&deep).unwrap();
    RealFs.create_dir_all(&deep).unwrap();
    RealFs.sync_dir(&deep).unwrap();
    RealFs.remove_dir(&deep).unwrap();
    assert_eq!(
        RealFs.remove_dir(&deep).unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
    assert_eq!(
        RealFs.list_dir(&deep).unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
}

#[test]
fn a_log_file_reads_back_what_was_written_mapped_and_not() {
    let dir = dir();
    for (name, open) in [
        (
            "mapped",
            RealLog::open as fn(&Path, u64) -> io::Result<RealLog>,
        ),
        ("calls", RealLog::open_unmapped),
    ] {
        let path = dir.path().join(name);
        // Not a multiple of a page or of a populated chunk.
        let capacity = (600 << 10) + 77;
        let log = open(&path, capacity).unwrap();
        assert_eq!(log.capacity(), capacity);
        assert_eq!(
            RealFs.read(&path).unwrap(),
            vec![0; usize::try_from(capacity).unwrap()]
        );

        let mut expected = vec![0; usize::try_from(capacity).unwrap()];
        let data = bytes(300 << 10);
        for (offset, len) in [
            (0, 64),
            (64, 130),
            (4000, 200),
            (200 << 10, 300 << 10),
            (0, 0),
        ] {
            log.write_at(offset as u64, &data[..len]).unwrap();
            expected[offset..offset + len].copy_from_slice(&data[..len]);
            log.rest();
        }
        log.write_at(capacity - 5, b"12345").unwrap();
        expected.truncate(expected.len() - 5);
        expected.extend_from_slice(b"12345");
        // Before any sync, through another handle: what a new process would see.
        assert_eq!(RealFs.read(&path).unwrap(), expected, "{name}");
        log.sync().unwrap();
        assert_eq!(RealFs.read(&path).unwrap(), expected, "{name}");
    }
}

#[test]
fn a_write_beyond_the_capacity_is_refused_and_changes_nothing() {
    let dir = dir();
    let path = dir.path().join("log");
    let log = RealFs.open_log(&path, 100).unwrap();
    for offset in [97, 101, u64::MAX] {
        let error = log.write_at(offset, b"1234").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
    log.write_at(100, b"").unwrap();
    assert_eq!(RealFs.read(&path).unwrap(), [0; 100]);
}

#[test]
fn reopening_a_log_keeps_its_content_and_grows_it_with_zeros() {
    let dir = dir();
    let path = dir.path().join("log");
    RealFs
        .open_log(&path, 1000)
        .unwrap()
        .write_at(990, b"0123456789")
        .unwrap();
    assert_eq!(
        RealFs.open_log(&path, 10).unwrap().capacity(),
        1000,
        "never shrinks"
    );
    let log = RealFs.open_log(&path, 5000).unwrap();
    assert_eq!(log.capacity(), 5000);
    log.write_at(4999, b"x").unwrap();
    let content = RealFs.read(&path).unwrap();
    assert_eq!(content.len(), 5000);
    assert_eq!(&content[990..1000], b"0123456789");
    assert!(content[1000..4999].iter().all(|byte| *byte == 0));
}

#[test]
#[cfg(target_os = "linux")]
fn a_log_is_mapped_exactly_where_its_space_is_real() {
    use std::os::unix::fs::MetadataExt;
    let dir = dir();
    let path = dir.path().join("log");
    // A sparse file, as a copy may be: the hole is filled before the map is trusted.
    File::create(&path).unwrap().set_len(1 << 20).unwrap();
    let log = RealLog::open(&path, 1 << 20).unwrap();
    let magic = rustix::fs::fstatfs(File::open(&path).unwrap())
        .unwrap()
        .f_type;
    let in_place = [0xEF53, 0x5846_5342, 0x0102_1994].contains(&magic);
    assert!(!log.is_mapped(), "before anything is written");
    log.write_at(3, b"abc").unwrap();
    assert_eq!(log.is_mapped(), in_place, "file system {magic:#x}");
    log.rest();
    assert!(!log.is_mapped());
    log.write_at(6, b"def").unwrap();
    assert_eq!(log.is_mapped(), in_place, "it is written again");
    assert_eq!(RealFs.read(&path).unwrap()[..9], *b"\0\0\0abcdef");
    if in_place {
        assert!(std::fs::metadata(&path).unwrap().blocks() * 512 >= 1 << 20);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_log_that_does_not_fit_the_disk_is_refused_at_open() {
    let dir = dir();
    let error = RealFs
        .open_log(&dir.path().join("log"), 1 << 60)
        .unwrap_err();
    assert!(
        matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::FileTooLarge
        ),
        "{error}"
    );
}

#[test]
fn what_the_page_cache_has_lost_is_not_resident_until_it_is_read() {
    let dir = dir();
    let path = dir.path().join("t");
    write_file(&path, &bytes(100_000));
    let file = RealFs.open(&path, ReadMode::Mapped).unwrap();
    assert!(!file.is_resident(102_400, 1), "behind the end");
    let raw = File::open(&path).unwrap();
    // The system drops pages when it can: not those that it has just written, nor any of a file system in memory.
    let was_dropped = (0..100).any(|_| {
        rustix::fs::fadvise(&raw, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(1));
        !file.is_resident(0, 100_000)
    });
    if !was_dropped {
        eprintln!("the system keeps the pages: that they are missed is not tested here");
    }
    let mut buf = vec![0; 100_000];
    file.read_at(0, &mut buf).unwrap();
    assert!(file.is_resident(0, 100_000));
    assert!(file.is_resident(4095, 2));
}
