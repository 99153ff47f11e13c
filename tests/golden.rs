//! Databases that earlier engines wrote, kept as files under `tests/golden/`: each opens, holds what its list of rows
//! says, takes writes, and opens again. A format version that is not known is refused, with its number.
//!
//! To keep one of the present engine, after a change of the format that old engines refuse: add a line to [`KEPT`] with
//! a name of its own and the life that uses the new thing, and run
//! `BASALT_WRITE_GOLDEN=name cargo test -p basaltkv --test golden`. A directory that is there is never written again: it
//! is what an engine of its time wrote, and the present one need not write the same.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use basalt_engine::{
    ByteOrderOf, CfOptions, ColumnFamily, Compression, Db, Error, Ingest, KeyValue, LEVELS,
    ManualClock, Options, ReadOptions, U64Add, WriteBatch, WriteOptions,
    executor::SimExecutor,
    fs::{Fs, ReadMode, SimFs, sim::Survival},
    testing::wal::encode_current,
    verify_dir,
};

/// Where a database is on its simulated disk.
const DIR: &str = "/db";

/// The file that lists the rows, in each kept directory: family, key and value in hex, one row a line.
const ROWS: &str = "ROWS";

/// A kept directory: its name, the format version of its manifest, and the life that wrote it.
type Kept = (&'static str, u32, fn(&mut Life));

const KEPT: [Kept; 3] = [
    ("v1", 1, Life::plain),
    ("v2", 2, Life::plain_and_appends),
    ("v3", 3, Life::of_version_3),
];

/// Milliseconds: when a life begins, and when it ends and what is kept is read.
const BEGUN: u64 = 1_000_000_000;
const READ: u64 = BEGUN + 7_200_000;
/// How long rows of the family `short` live: of those written at the beginning none is left.
const TTL: Duration = Duration::from_secs(3600);

type Rows = BTreeMap<(String, Vec<u8>), Vec<u8>>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn options(disk: &Arc<SimFs>, mode: ReadMode) -> Options {
    Options {
        read_mode: mode,
        log_segment_bytes: (1024, 4096),
        reserve_bytes: 0,
        clock: Arc::new(ManualClock::new(READ)),
        ..Options::with(disk.clone(), Arc::new(SimExecutor::new(1)))
    }
}

fn small(compression: Compression) -> CfOptions {
    CfOptions {
        block_bytes: 256,
        restart_interval: 4,
        compression: [compression; LEVELS],
        table_bytes: 2048,
        ..CfOptions::default()
    }
}

/// A family that adds numbers.
fn sums() -> CfOptions {
    small(Compression::Lz4).merge_operator(Arc::new(U64Add(ByteOrderOf::BigEndian)))
}

/// A family whose values are large from 200 bytes on.
fn large() -> CfOptions {
    CfOptions {
        large_value_bytes: Some(200),
        ..small(Compression::Lz4)
    }
}

/// Gives a family that has a merge operator its operator, as each open must.
fn give_operators(db: &Db) {
    if db.cf("sums").is_ok() {
        db.open_cf("sums", sums()).expect("the operator it had");
    }
}

/// A database that is being written, and its rows.
struct Life {
    disk: Arc<SimFs>,
    clock: Arc<ManualClock>,
    db: Db,
    rows: Rows,
}

impl Life {
    fn new() -> Self {
        let disk = SimFs::new();
        let clock = Arc::new(ManualClock::new(BEGUN));
        let options = Options {
            clock: clock.clone(),
            ..options(&disk, ReadMode::Mapped)
        };
        let db = Db::open(DIR, options).expect("a new database");
        Self {
            disk,
            clock,
            db,
            rows: Rows::new(),
        }
    }

    fn write(&self, batch: WriteBatch) {
        self.db
            .write(batch, WriteOptions::SYNC)
            .expect("a good disk");
    }

    fn put(&mut self, cf: &ColumnFamily, numbers: std::ops::Range<u32>, word: &str) {
        let mut batch = WriteBatch::new();
        for number in numbers {
            let (key, value) = (
                format!("key-{number:04}"),
                format!("{word} {number} {word}"),
            );
            batch.put(cf, key.as_bytes(), value.as_bytes());
            self.rows
                .insert((cf.name().into(), key.into()), value.into());
        }
        let options = WriteOptions {
            sync: cf.is_logged(),
        };
        self.db.write(batch, options).expect("a good disk");
    }

    fn delete(&mut self, cf: &ColumnFamily, number: u32) {
        let key = format!("key-{number:04}");
        let options = WriteOptions {
            sync: cf.is_logged(),
        };
        self.db
            .delete(cf, key.as_bytes(), options)
            .expect("a good disk");
        self.rows.remove(&(cf.name().into(), key.into()));
    }

    fn delete_range(&mut self, cf: &ColumnFamily, numbers: std::ops::Range<u32>) {
        let (start, end) = (
            format!("key-{:04}", numbers.start),
            format!("key-{:04}", numbers.end),
        );
        let mut batch = WriteBatch::new();
        batch.delete_range(cf, start.as_bytes(), end.as_bytes());
        self.write(batch);
        self.rows.retain(|(family, key), _| {
            family != cf.name() || !(start.as_bytes()..end.as_bytes()).contains(&key.as_slice())
        });
    }

    fn ingest(&mut self, cf: &ColumnFamily, numbers: std::ops::Range<u32>) {
        let mut table = self
            .db
            .table_writer(cf, "/made.sst")
            .expect("a file of its own");
        for number in numbers {
            let (key, value) = (format!("key-{number:04}"), format!("ingested {number}"));
            table
                .put(key.as_bytes(), value.as_bytes())
                .expect("a good disk");
            self.rows
                .insert((cf.name().into(), key.into()), value.into());
        }
        let mut request = Ingest::new();
        request.table(cf, table.finish().expect("a good disk"));
        self.db.ingest(request).expect("a good disk");
    }

    /// Every kind of file, block, record and edit that version 1 has.
    fn plain(&mut self) {
        let plain = self.db.default_cf();
        let options = small(Compression::Lz4);
        let packed = self
            .db
            .create_cf("packed", options.clone())
            .expect("a new name");
        let unlogged = self.db.create_cf("unlogged", CfOptions::unlogged());
        let unlogged = unlogged.expect("a new name");
        let dropped = self
            .db
            .create_cf("dropped", small(Compression::None))
            .expect("a new name");
        for cf in [&plain, &packed, &unlogged, &dropped] {
            self.put(cf, 0..60, "first");
        }
        let held = self.db.snapshot();
        for cf in [&plain, &packed] {
            self.put(cf, 20..40, "second");
            self.delete(cf, 33);
        }
        self.delete_range(&packed, 5..12);
        self.db.flush_all().expect("a good disk");
        self.db
            .compact_range(&packed, None, None)
            .expect("a good disk");
        drop(held);
        self.put(&packed, 8..10, "third");
        self.delete_range(&plain, 50..55);
        self.db.flush(&plain).expect("a good disk");
        self.ingest(&packed, 55..70);
        self.db.drop_cf(&dropped).expect("not the default family");
        self.rows.retain(|(family, _), _| family != "dropped");
        let wider = CfOptions {
            block_bytes: 512,
            ..options
        };
        self.db.open_cf("packed", wider).expect("the same class");
        // What stays in the log, over several segments.
        for round in 0..4 {
            self.put(&plain, 100..130, &format!("logged {round}"));
        }
        self.delete(&plain, 110);
        self.delete_range(&plain, 120..125);
        self.put(&packed, 3..4, "last");
    }

    fn append(&mut self, cf: &ColumnFamily, prefix: &[u8], first: u64, values: &[Vec<u8>]) {
        let mut batch = WriteBatch::new();
        batch.append(cf, prefix, first, values);
        self.write(batch);
        self.cut(cf, prefix, |index| index < first);
        for (index, value) in (first..).zip(values) {
            let key = [prefix, &index.to_be_bytes()].concat();
            self.rows.insert((cf.name().into(), key), value.clone());
        }
    }

    fn cut(&mut self, cf: &ColumnFamily, prefix: &[u8], keep: impl Fn(u64) -> bool) {
        self.rows.retain(|(family, key), _| {
            if family != cf.name() || !key.starts_with(prefix) {
                return true;
            }
            let index = key[prefix.len()..].try_into().expect("an index");
            keep(u64::from_be_bytes(index))
        });
    }

    /// The same, and append families: what version 2 of the manifest is for.
    fn plain_and_appends(&mut self) {
        self.plain();
        let log = self
            .db
            .create_cf("log", CfOptions::append(4))
            .expect("a new name");
        let plain = self.db.default_cf();
        for round in 0..6 {
            let first = 1 + round * 5;
            let values: Vec<_> = (first..first + 7)
                .map(|i| format!("entry {i} of {round}").into_bytes())
                .collect();
            self.append(&log, b"aaaa", first, &values);
            self.append(&log, b"bbbb", first, &values[..5]);
        }
        // Small values of many bytes together: a packed append.
        let values: Vec<_> = (0..100u8).map(|i| vec![i; 100]).collect();
        self.append(&log, b"cccc", 1, &values);
        let mut batch = WriteBatch::new();
        batch.truncate_front(&log, b"aaaa", 9);
        batch.truncate_back(&log, b"bbbb", 20);
        batch.put(&plain, b"key-9999", b"of the same batch");
        self.rows.insert(
            ("default".into(), b"key-9999".to_vec()),
            b"of the same batch".to_vec(),
        );
        self.write(batch);
        self.cut(&log, b"aaaa", |index| index >= 9);
        self.cut(&log, b"bbbb", |index| index < 20);
    }
}

impl Life {
    fn add(&mut self, cf: &ColumnFamily, key: &str, number: u64) {
        let operand = number.to_be_bytes();
        self.db
            .merge(cf, key.as_bytes(), &operand, WriteOptions::SYNC)
            .expect("a good disk");
        let row = self.rows.entry((cf.name().into(), key.into()));
        let sum = row.or_insert_with(|| vec![0; 8]);
        let old = u64::from_be_bytes(sum[..].try_into().expect("eight bytes"));
        *sum = (old + number).to_be_bytes().to_vec();
    }

    fn put_large(&mut self, cf: &ColumnFamily, number: u32, len: usize) {
        let (key, byte) = (format!("large-{number:02}"), number.to_le_bytes()[0]);
        // Half of it does not compress.
        let value: Vec<u8> = (0..len)
            .map(|at| match at < len / 2 {
                true => (at * at % 251).to_le_bytes()[0] ^ byte,
                false => byte,
            })
            .collect();
        self.db
            .put(cf, key.as_bytes(), &value, WriteOptions::SYNC)
            .expect("a good disk");
        self.rows.insert((cf.name().into(), key.into()), value);
    }

    /// The same, and what version 3 of the manifest is for: operands, rows with a time, values in files of their own; each in
    /// tables and in the log.
    fn of_version_3(&mut self) {
        self.plain_and_appends();
        let sums = self.db.create_cf("sums", sums()).expect("a new name");
        let large = self.db.create_cf("large", large()).expect("a new name");
        let short = small(Compression::None).ttl(TTL);
        let short = self.db.create_cf("short", short).expect("a new name");
        self.put(&short, 0..20, "over by the end");
        for number in 0..10_u8 {
            self.add(&sums, &format!("sum-{number}"), 1 << number);
            self.put_large(&large, number.into(), 150 + 40 * usize::from(number));
        }
        // A snapshot tells operands apart, so that the table has them one by one.
        let held = self.db.snapshot();
        for number in 5..15 {
            self.add(&sums, &format!("sum-{number}"), 1_000_000);
        }
        self.db.flush_all().expect("a good disk");
        for number in 3..8 {
            self.put_large(&large, number, 500);
        }
        self.delete_range_of(&large, "large-08", "large-09");
        self.db.flush(&large).expect("a good disk");
        self.db
            .compact_range(&large, None, None)
            .expect("a good disk");
        drop(held);
        self.clock.set(READ);
        self.rows.retain(|(family, _), _| family != "short");
        self.put(&short, 10..40, "alive");
        self.db.flush(&short).expect("a good disk");
        // What stays in the log.
        self.put(&short, 35..45, "alive in the log");
        self.add(&sums, "sum-3", 7);
        self.add(&sums, "sum-new", 9);
        self.put_large(&large, 20, 700);
    }

    fn delete_range_of(&mut self, cf: &ColumnFamily, start: &str, end: &str) {
        let mut batch = WriteBatch::new();
        batch.delete_range(cf, start.as_bytes(), end.as_bytes());
        self.write(batch);
        self.rows.retain(|(family, key), _| {
            family != cf.name() || !(start.as_bytes()..end.as_bytes()).contains(&key.as_slice())
        });
    }
}

fn list(rows: &Rows) -> String {
    let hex = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    };
    let mut text = String::new();
    for ((family, key), value) in rows {
        let _ = writeln!(text, "{family} {} {}", hex(key), hex(value));
    }
    text
}

fn rows_of(db: &Db) -> Rows {
    let mut rows = Rows::new();
    for cf in db.list_cfs() {
        let range = || db.range(&cf, &ReadOptions::default()).expect("a good disk");
        let row = |row: Result<KeyValue, Error>| {
            let (key, value) = row.expect("a good row");
            (key, value.to_vec())
        };
        let forward: Vec<_> = range().map(row).collect();
        let mut backward: Vec<_> = range().rev().map(row).collect();
        backward.reverse();
        assert!(forward == backward, "{} differs from behind", cf.name());
        for (key, value) in forward {
            let got = db.get(&cf, &key).expect("a good row");
            assert_eq!(got.as_deref(), Some(&value[..]), "{} {key:?}", cf.name());
            rows.insert((cf.name().to_owned(), key), value);
        }
    }
    rows
}

/// The files of a kept directory on a simulated disk of their own.
fn load(name: &str) -> Arc<SimFs> {
    let disk = SimFs::new();
    disk.create_dir_all(Path::new(DIR)).expect("an empty disk");
    let folder = root().join(name);
    let files = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for file in files {
        let file = file.expect("a local file system");
        if file.file_name() != ROWS {
            let bytes = fs::read(file.path()).expect("a file of this repository");
            let path = Path::new(DIR).join(file.file_name());
            disk.create(&path)
                .and_then(|mut to| to.append(&bytes).and_then(|()| to.sync()))
                .expect("an empty disk");
        }
    }
    disk.settle();
    disk
}

/// The path of the newest manifest. The one before may be there still: its removal need not be durable.
fn manifest(disk: &SimFs) -> PathBuf {
    let files = disk.files().into_iter();
    let manifests = files.filter(|path| path.to_string_lossy().contains("MANIFEST-"));
    manifests.max().expect("there is a manifest")
}

fn version_of(header: &[u8]) -> u32 {
    u32::from_le_bytes(header[12..16].try_into().expect("a header"))
}

/// Writes another version into a header of 64 bytes, under a right checksum.
fn set_version(header: &mut [u8], version: u32) {
    header[12..16].copy_from_slice(&version.to_le_bytes());
    let crc = crc32fast::hash(&header[12..64]);
    header[8..12].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn databases_of_earlier_engines_open_hold_their_rows_and_go_on() {
    for (name, version, _) in KEPT {
        let expected = fs::read_to_string(root().join(name).join(ROWS)).expect("a list of rows");
        assert!(expected.lines().count() > 150, "{name} says much");
        let disk = load(name);
        let header = disk.read_raw(manifest(&disk)).expect("a file");
        assert_eq!(version_of(&header), version, "{name}");
        for mode in [ReadMode::Mapped, ReadMode::Pread] {
            let disk = disk.crash(Survival::LoseUnsynced);
            let report = verify_dir(DIR, &options(&disk, mode)).expect("a good disk");
            assert!(report.damage.is_empty(), "{name}: {:?}", report.damage);
            let db = Db::open(DIR, options(&disk, mode)).expect("it opens");
            give_operators(&db);
            assert!(db.recovery().operations > 0, "{name} had much in its log");
            let mut rows = rows_of(&db);
            assert!(list(&rows) == expected, "{name} holds other rows");

            let plain = db.default_cf();
            db.put(&plain, b"new", b"row", WriteOptions::SYNC)
                .expect("a good disk");
            rows.insert(("default".into(), b"new".to_vec()), b"row".to_vec());
            if let Ok(log) = db.cf("log") {
                let end = db.append_range(&log, b"aaaa").expect("an append family");
                let end = end.expect("it has entries").end;
                let mut batch = WriteBatch::new();
                batch.append(&log, b"aaaa", end, &[b"new entry"]);
                db.write(batch, WriteOptions::SYNC).expect("a good disk");
                let key = [&b"aaaa"[..], &end.to_be_bytes()].concat();
                rows.insert(("log".into(), key), b"new entry".to_vec());
            }
            db.flush_all().expect("a good disk");
            for cf in db.list_cfs() {
                if !cf.is_append() {
                    db.compact_range(&cf, None, None).expect("a good disk");
                }
            }
            assert!(rows_of(&db) == rows, "{name} after compactions");
            db.close().expect("a good disk");
            let disk = disk.crash(Survival::LoseUnsynced);
            let db = Db::open(DIR, options(&disk, mode)).expect("it opens again");
            give_operators(&db);
            assert!(rows_of(&db) == rows, "{name} after a reopening");
            assert!(db.verify().expect("a good disk").damage.is_empty());
        }
    }
}

#[test]
fn a_format_version_of_the_future_is_refused_with_its_number() {
    for (name, ..) in KEPT {
        let disk = load(name);
        let path = manifest(&disk);
        let mut bytes = disk.read_raw(&path).expect("a file");
        set_version(&mut bytes, 77);
        disk.write_raw(&path, &bytes).expect("a file");
        let before = disk.hash();
        let refused = Db::open(DIR, options(&disk, ReadMode::Mapped)).expect_err("it is unknown");
        assert!(matches!(refused, Error::NotADatabase { .. }), "{refused:?}");
        assert!(refused.to_string().contains("version 77"), "{refused}");
        assert_eq!(
            disk.crash(Survival::KeepAll).hash(),
            before,
            "{name} is left as it was"
        );
    }
}

#[test]
fn a_log_segment_or_a_table_of_the_future_is_refused_with_its_number() {
    for (name, ..) in KEPT {
        let logs = |path: &PathBuf| path.extension().is_some_and(|end| end == "log");
        let mut refusals = 0;
        for path in load(name).files().into_iter().filter(logs) {
            let disk = load(name);
            let mut bytes = disk.read_raw(&path).expect("a file");
            if !bytes.starts_with(b"BSLTLOG1") {
                continue;
            }
            set_version(&mut bytes, 77);
            disk.write_raw(&path, &bytes).expect("a file");
            // A segment that is kept for reuse only may be passed over.
            if let Err(refused) = Db::open(DIR, options(&disk, ReadMode::Mapped)) {
                assert!(refused.to_string().contains("version 77"), "{refused}");
                refusals += 1;
            }
        }
        assert!(refusals > 0, "{name} has segments that are needed");
    }
}

#[test]
fn what_is_to_be_kept_of_the_present_engine_is_written() {
    let wanted = std::env::var("BASALT_WRITE_GOLDEN").unwrap_or_default();
    for (name, version, live) in KEPT {
        let mut life = Life::new();
        live(&mut life);
        // That old files are gone is durable with the next name that is.
        let synced = life.disk.sync_dir(Path::new(DIR));
        synced.expect("a good disk");
        let image = life.disk.crash(Survival::LoseUnsynced);
        give_operators(&life.db);
        assert!(
            rows_of(&life.db) == life.rows,
            "{name}: the life and its list of rows differ"
        );
        assert!(
            version_of(&image.read_raw(manifest(&image)).expect("a file")) >= version,
            "{name}: what this life uses needs that version"
        );
        if wanted != name {
            continue;
        }
        let folder = root().join(name);
        fs::create_dir(&folder).expect("a directory that is there is never written again");
        fs::write(folder.join(ROWS), list(&life.rows)).expect("a local file system");
        for path in image.files() {
            let Ok(file) = path.strip_prefix(DIR) else {
                continue;
            };
            let bytes = image.read_raw(&path).expect("a file");
            fs::write(folder.join(file), bytes).expect("a local file system");
        }
    }
    assert_eq!(encode_current(1).len(), 25, "CURRENT is as it was");
}
