//! `inspect_file`: every kind of file as it is written, cut at every length, and with flipped bytes.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use basalt_engine::{
    BackupOptions, CfOptions, Db, Options, WriteBatch, WriteOptions,
    executor::SimExecutor,
    fs::{Fs as _, SimFs},
    inspect::{Fact, Facts, FileType, InspectOptions, Inspection, inspect_file},
};

const DIR: &str = "/db";
const BACKUPS: &str = "/backups";

/// A database with a file of each kind, closed, and a backup of it.
fn disk() -> Arc<SimFs> {
    let fs = SimFs::new();
    let options = Options {
        fs: Arc::<SimFs>::clone(&fs),
        executor: Arc::new(SimExecutor::new(1)),
        ..Options::default()
    };
    let db = Db::open(DIR, options).expect("opens");
    let users = db
        .open_cf(
            "users",
            CfOptions {
                large_value_bytes: Some(1000),
                ..CfOptions::default()
            },
        )
        .expect("a family");
    let log = db.open_cf("log", CfOptions::append(4)).expect("a family");
    for number in 0..40_u32 {
        let key = format!("user:{number:03}");
        db.put(&users, key.as_bytes(), &[7; 50], WriteOptions::NO_SYNC)
            .expect("room");
    }
    db.put(&users, b"large", &[8; 3000], WriteOptions::NO_SYNC)
        .expect("room");
    db.delete(&users, b"user:001", WriteOptions::NO_SYNC)
        .expect("room");
    db.delete_range(&users, b"user:030", b"user:035", WriteOptions::NO_SYNC)
        .expect("room");
    db.flush(&users).expect("flushes");
    let mut batch = WriteBatch::new();
    batch.append(&log, b"reg1", 5, &[&b"one"[..], b"two"]);
    db.write(batch, WriteOptions::SYNC).expect("room");
    db.put(&users, b"last", b"value", WriteOptions::SYNC)
        .expect("room");
    db.backup(BACKUPS, &BackupOptions::dated(77))
        .expect("a backup");
    db.close().expect("closes");
    fs
}

fn options() -> InspectOptions {
    InspectOptions {
        records: 1000,
        value_bytes: 4,
    }
}

/// The files that there are, by what they are.
fn files(fs: &SimFs) -> Vec<(FileType, PathBuf)> {
    let mut files = Vec::new();
    for dir in [DIR, BACKUPS] {
        for name in fs.list_dir(Path::new(dir)).expect("a directory") {
            let path = Path::new(dir).join(name);
            let found = inspect_file(fs, &path, options()).expect("the disk reads");
            if found.file_type != FileType::Unknown {
                files.push((found.file_type, path));
            }
        }
    }
    files
}

fn first(fs: &SimFs, kind: FileType) -> Inspection {
    let files = files(fs);
    let (_, path) = files
        .iter()
        .find(|(found, _)| *found == kind)
        .expect("one of each");
    inspect_file(fs, path, options()).expect("the disk reads")
}

fn fact<'a>(facts: &'a Facts, name: &str) -> Option<&'a Fact> {
    facts
        .iter()
        .find(|(found, _)| *found == name)
        .map(|(_, fact)| fact)
}

#[test]
fn each_kind_of_file_says_what_was_written() {
    let fs = disk();
    for (kind, path) in files(&fs) {
        let found = inspect_file(&*fs, &path, options()).expect("the disk reads");
        assert_eq!(found.broken, None, "{kind:?} {path:?} {:?}", found.facts);
    }
    let table = first(&fs, FileType::Table);
    assert_eq!(fact(&table.facts, "deletes"), Some(&Fact::Number(1)));
    assert_eq!(fact(&table.facts, "range_deletes"), Some(&Fact::Number(1)));
    assert_eq!(
        fact(&table.facts, "smallest_key"),
        Some(&Fact::Bytes(b"large".to_vec()))
    );
    let row = &table.records[1].facts;
    assert_eq!(fact(row, "key"), Some(&Fact::Bytes(b"user:000".to_vec())));
    assert_eq!(
        fact(row, "value"),
        Some(&Fact::Bytes(vec![7; 4])),
        "no more than asked for"
    );
    assert_eq!(fact(row, "value_bytes"), Some(&Fact::Number(50)));
    let values = first(&fs, FileType::ValueFile);
    assert_eq!(values.record_count, 1);
    assert_eq!(
        fact(&values.records[0].facts, "value_bytes"),
        Some(&Fact::Number(3000))
    );
    let manifest = first(&fs, FileType::Manifest);
    let family = manifest
        .facts
        .iter()
        .filter(|(name, _)| *name == "family")
        .count();
    assert_eq!(family, 3);
    let backup = first(&fs, FileType::Backup);
    assert_eq!(fact(&backup.facts, "time"), Some(&Fact::Number(77)));
    assert!(backup.record_count >= 3, "{:?}", backup.records);
    assert_ne!(
        fact(&first(&fs, FileType::Mark).facts, "last_synced_seq"),
        None
    );
    assert_ne!(fact(&first(&fs, FileType::Current).facts, "manifest"), None);
}

#[test]
fn a_log_segment_shows_batches_of_both_classes() {
    let fs = disk();
    let all: Vec<Facts> = files(&fs)
        .into_iter()
        .filter(|(kind, _)| *kind == FileType::LogSegment)
        .flat_map(|(_, path)| inspect_file(&*fs, &path, options()).expect("reads").records)
        .map(|record| record.facts)
        .collect();
    let has = |word: &str| {
        let wanted = Fact::Text(word.to_owned());
        all.iter()
            .any(|facts| fact(facts, "operation") == Some(&wanted))
    };
    for word in ["put", "delete", "delete_range", "append"] {
        assert!(has(word), "{word}");
    }
}

#[test]
fn the_number_of_records_told_is_bounded_and_all_are_counted() {
    let fs = disk();
    let files = files(&fs);
    let (_, path) = files
        .iter()
        .find(|(kind, _)| *kind == FileType::Table)
        .expect("a table");
    let few = InspectOptions {
        records: 3,
        ..options()
    };
    let found = inspect_file(&*fs, path, few).expect("reads");
    assert_eq!(found.records.len(), 3);
    assert!(found.record_count > 30);
}

/// Writes `bytes` to a file of their own and inspects it.
fn look(fs: &SimFs, name: &str, bytes: &[u8]) -> Inspection {
    let path = Path::new("/look").join(name);
    let mut file = fs.create(&path).expect("a file");
    file.append(bytes).expect("room");
    drop(file);
    inspect_file(fs, &path, options()).expect("the disk reads")
}

#[test]
fn a_file_cut_at_any_length_says_where_it_ends_and_shows_no_other_rows() {
    let fs = disk();
    fs.create_dir_all(Path::new("/look")).expect("a directory");
    for (kind, path) in files(&fs) {
        let bytes = fs.read(&path).expect("reads");
        let whole = inspect_file(&*fs, &path, options()).expect("reads");
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        // The tail of a log is zeros, whose loss is none.
        let used = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1);
        let step = (used / 600).max(1);
        for len in (0..used).step_by(step) {
            let cut = look(&fs, &name, &bytes[..len]);
            let same = cut
                .records
                .iter()
                .zip(&whole.records)
                .filter(|(one, other)| one == other);
            assert!(
                same.count() >= cut.records.len().min(whole.records.len()),
                "{kind:?} at {len}"
            );
            let is_end = [
                FileType::LogSegment,
                FileType::Manifest,
                FileType::ValueFile,
            ]
            .contains(&kind);
            // One that is cut between two records is whole as far as it goes.
            assert!(
                cut.broken.is_some() || (is_end && cut.record_count < whole.record_count),
                "{kind:?} at {len}"
            );
        }
    }
}

#[test]
fn a_flipped_byte_is_noticed_or_hides_nothing() {
    let fs = disk();
    fs.create_dir_all(Path::new("/look")).expect("a directory");
    for (kind, path) in files(&fs) {
        let bytes = fs.read(&path).expect("reads");
        let whole = inspect_file(&*fs, &path, options()).expect("reads");
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let used = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1);
        let step = (used / 400).max(1);
        for at in (0..used).step_by(step) {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            let found = look(&fs, &name, &bad);
            let is_same =
                found.records == whole.records && found.record_count == whole.record_count;
            // The last record of a log looks like a write that was not finished.
            let is_end = kind == FileType::LogSegment
                && fact(&found.facts, "unknown_bytes_behind_the_end").is_some();
            assert!(
                found.broken.is_some() || is_same || is_end,
                "{kind:?}: byte {at} changes what is told, and is not said"
            );
        }
    }
}

#[test]
fn a_prepared_segment_and_a_strangers_file_are_told_apart() {
    let fs = disk();
    fs.create_dir_all(Path::new("/look")).expect("a directory");
    let prepared = look(&fs, "000009.log", &[0; 4096]);
    assert_eq!(
        (prepared.file_type, prepared.broken),
        (FileType::LogSegment, None)
    );
    for (name, bytes) in [
        ("000009.log", &b"hello"[..]),
        ("notes.txt", &[0; 100]),
        ("empty", &[]),
    ] {
        let found = look(&fs, name, bytes);
        assert_eq!(found.file_type, FileType::Unknown, "{name}");
        assert!(found.broken.is_some());
    }
}

#[test]
fn a_segment_that_is_used_again_shows_its_present_life_alone() {
    let fs = disk();
    fs.create_dir_all(Path::new("/look")).expect("a directory");
    let files = files(&fs);
    let logs = files
        .iter()
        .filter(|(kind, _)| *kind == FileType::LogSegment);
    let (_, path) = logs
        .max_by_key(|(_, path)| {
            inspect_file(&*fs, path, options())
                .expect("reads")
                .record_count
        })
        .expect("a segment");
    let mut bytes = fs.read(path).expect("reads");
    let whole = inspect_file(&*fs, path, options()).expect("reads");
    assert_eq!(fact(&whole.facts, "unknown_bytes_behind_the_end"), None);
    let Some(Fact::Number(end)) = fact(&whole.facts, "end") else {
        panic!("an end");
    };
    let end = usize::try_from(*end).expect("in memory");
    // Records of the same database, in a place that they were not written to.
    let stale = bytes[64..end].to_vec();
    bytes.resize(end + 3 + stale.len(), 0);
    bytes[end + 3..].copy_from_slice(&stale);
    let again = look(&fs, "000007.log", &bytes);
    assert_eq!(
        (again.broken, again.record_count),
        (None, whole.record_count)
    );
    assert!(fact(&again.facts, "unknown_bytes_behind_the_end").is_some());
    // A damaged record with others behind it is a break.
    bytes.truncate(end);
    bytes[64 + 40] ^= 1;
    let broken = look(&fs, "000008.log", &bytes);
    assert_eq!(broken.broken.map(|(offset, _)| offset), Some(64));
    assert!(fact(&broken.facts, "records_behind_the_end").is_some());
}
