//! The small store that is damaged: its life, what is in it, and images of its disk.
//!
//! One life reaches every kind of file and block: two logged families (plain and LZ4) and an unlogged one, tables on
//! L0 and at the bottom, range tombstones in tables and in the log, an ingested table, a dropped family, several log
//! segments of which some are reused files, and a value with a segment of its own. Not here: what is done to it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use basalt_engine::{
    CfOptions, ColumnFamily, Compression, Db, Ingest, LEVELS, Options, ReadOptions, WriteBatch,
    WriteOptions,
    executor::SimExecutor,
    fs::{ReadMode, SimFs, sim::Survival},
};

/// Where the store is on each simulated disk.
pub(crate) const DIR: &str = "/db";

/// Rows of one family.
pub(crate) type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// What must be read: the rows of each family, and keys that are in none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Truth {
    /// Rows by family.
    pub(crate) families: BTreeMap<String, Rows>,
    /// Keys that no family has: never written, deleted, or under a range delete.
    pub(crate) absent: Vec<Vec<u8>>,
}

/// The store at the end of its life, and before.
pub(crate) struct Store {
    /// The process died; every write had been acknowledged as synced.
    pub(crate) killed: Arc<SimFs>,
    /// Closed cleanly a moment later.
    pub(crate) closed: Arc<SimFs>,
    /// What both of them hold.
    pub(crate) truth: Truth,
    /// Earlier moments of the same life, oldest first.
    pub(crate) moments: Vec<Arc<SimFs>>,
    /// Log segments alive at the end.
    pub(crate) live_segments: usize,
}

/// Options that cost little to open with.
pub(crate) fn options(disk: &Arc<SimFs>, executor: &Arc<SimExecutor>, mode: ReadMode) -> Options {
    Options {
        read_mode: mode,
        block_cache_bytes: 16 << 10,
        log_segment_bytes: (1024, 2048),
        recycled_segments: 1,
        reserve_bytes: 256,
        ..Options::with(disk.clone(), executor.clone())
    }
}

fn plain() -> CfOptions {
    CfOptions {
        write_buffer_bytes: 1 << 20,
        block_bytes: 256,
        restart_interval: 4,
        compression: [Compression::None; LEVELS],
        table_bytes: 1024,
        l0_compaction_trigger: 16,
        ..CfOptions::default()
    }
}

fn packed() -> CfOptions {
    CfOptions {
        compression: [Compression::Lz4; LEVELS],
        large_value_bytes: Some(64),
        ..plain()
    }
}

/// A life in progress: the database and what it must hold.
struct Life {
    disk: Arc<SimFs>,
    executor: Arc<SimExecutor>,
    db: Db,
    families: BTreeMap<String, ColumnFamily>,
    truth: BTreeMap<String, Rows>,
    moments: Vec<Arc<SimFs>>,
}

/// One operation: the family, and what is done in it.
enum Step {
    Put(&'static str, Vec<u8>, Vec<u8>),
    Delete(&'static str, Vec<u8>),
    DeleteRange(&'static str, &'static str, &'static str),
}

fn put(family: &'static str, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Step {
    Step::Put(family, key.into(), value.into())
}

impl Life {
    fn apply(&mut self, steps: Vec<Step>) -> WriteBatch {
        let mut batch = WriteBatch::new();
        for step in steps {
            match step {
                Step::Put(family, key, value) => {
                    batch.put(&self.families[family], &key, &value);
                    self.rows(family).insert(key, value);
                }
                Step::Delete(family, key) => {
                    batch.delete(&self.families[family], &key);
                    self.rows(family).remove(&key);
                }
                Step::DeleteRange(family, start, end) => {
                    batch.delete_range(&self.families[family], start.as_bytes(), end.as_bytes());
                    self.forget(family, start, end);
                }
            }
        }
        batch
    }

    fn write(&mut self, sync: bool, steps: Vec<Step>) {
        let batch = self.apply(steps);
        self.db
            .write(batch, WriteOptions { sync })
            .expect("the disk is sound");
        self.look();
    }

    fn rows(&mut self, family: &str) -> &mut Rows {
        self.truth.get_mut(family).expect("created before")
    }

    fn forget(&mut self, family: &str, start: &str, end: &str) {
        let dead = |key: &[u8]| key >= start.as_bytes() && key < end.as_bytes();
        self.rows(family).retain(|key, _| !dead(key));
    }

    fn create(&mut self, name: &str, options: CfOptions) {
        let family = self.db.open_cf(name, options).expect("the disk is sound");
        self.families.insert(name.to_owned(), family);
        self.truth.entry(name.to_owned()).or_default();
        self.look();
    }

    fn flush(&mut self, family: &str) {
        self.db
            .flush(&self.families[family])
            .expect("the disk is sound");
        self.look();
    }

    fn compact(&mut self, family: &str) {
        self.db
            .compact_range(&self.families[family], None, None)
            .expect("the disk is sound");
        self.look();
    }

    /// The machine dies in the middle of writes that nobody was promised, and the first of them is torn: the
    /// next open cuts the log there and seals the cut, although what stands behind it can still be recognised.
    fn die_and_reopen(&mut self) {
        for n in 0..3 {
            let family = &self.families["default"];
            let value = format!("torn {n}");
            self.db
                .put(family, b"k98", value.as_bytes(), WriteOptions::NO_SYNC)
                .expect("the disk is sound");
        }
        let disk = self.disk.crash(Survival::ProcessDeath);
        let torn = files(&disk).into_iter().find_map(|(path, bytes)| {
            let at = bytes.windows(6).position(|window| window == b"torn 0")?;
            (kind(&path) == "log").then_some((path, at as u64))
        });
        let (path, at) = torn.expect("the log has the record");
        disk.corrupt(path, at, 1).expect("it was just read");
        self.executor = Arc::new(SimExecutor::new(8));
        self.disk = disk;
        self.db = Db::open(DIR, options(&self.disk, &self.executor, ReadMode::Mapped))
            .expect("a torn tail opens");
        assert!(self.db.recovery().log_bytes_dropped > 0, "the cut is seen");
        for (name, family) in &mut self.families {
            *family = self.db.cf(name).expect("it is there");
        }
        self.look();
    }

    /// Keeps an image of this moment.
    fn look(&mut self) {
        self.moments.push(self.disk.crash(Survival::ProcessDeath));
    }

    /// Takes a table in, with a range delete before it and a batch after it.
    fn ingest(&mut self) {
        let path = Path::new("/outside.sst");
        let family = self.families["default"].clone();
        let mut writer = self
            .db
            .table_writer(&family, path)
            .expect("the disk is sound");
        self.forget("default", "k50", "k54");
        for number in [10, 30, 50, 51, 70, 90] {
            let key = format!("k{number:02}i");
            let value = format!("ingested {number}");
            writer
                .put(key.as_bytes(), value.as_bytes())
                .expect("keys ascend");
            self.rows("default").insert(key.into(), value.into());
        }
        let file = writer.finish().expect("the disk is sound");
        let batch = self.apply(vec![put("default", "k51", "with the ingest")]);
        let mut request = Ingest::new();
        request
            .table(&family, file)
            .delete_range(&family, b"k50", b"k54")
            .batch(batch);
        self.db.ingest(request).expect("the disk is sound");
        self.disk_remove(path);
        self.look();
    }

    fn disk_remove(&self, path: &Path) {
        use basalt_engine::fs::Fs;
        self.disk.remove_file(path).expect("it was written");
    }
}

/// Bytes that do not compress.
fn noise(len: usize, mut seed: u32) -> Vec<u8> {
    let mut next = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        seed.to_be_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

/// Lives the life.
pub(crate) fn live() -> Store {
    let disk = SimFs::new();
    let executor = Arc::new(SimExecutor::new(7));
    let db = Db::open(DIR, options(&disk, &executor, ReadMode::Mapped)).expect("an empty disk");
    let mut life = Life {
        disk,
        executor,
        db,
        families: BTreeMap::new(),
        truth: BTreeMap::new(),
        moments: Vec::new(),
    };
    early(&mut life);
    middle(&mut life);
    middle_log(&mut life);
    life.die_and_reopen();
    late(&mut life);
    assert_shape(&life);
    life.executor.run_until_idle();
    let disk = life.disk;
    let truth = Truth {
        absent: absent(&life.truth),
        families: life.truth,
    };
    let live_segments = life.db.stats().log_segments;
    let killed = disk.crash(Survival::ProcessDeath);
    drop(life.families);
    life.db.close().expect("the disk is sound");
    let closed = disk.crash(Survival::ProcessDeath);
    for image in life.moments.iter().chain([&killed, &closed]) {
        // What the damage is done to is durable; copies of it are then cheap too.
        image.settle();
    }
    Store {
        killed,
        closed,
        truth,
        moments: life.moments,
        live_segments,
    }
}

/// Families, and tables at the bottom.
fn early(life: &mut Life) {
    life.create("default", plain());
    life.create("packed", packed());
    life.create(
        "loose",
        CfOptions {
            logged: false,
            ..plain()
        },
    );
    life.create("gone", plain());
    life.write(true, vec![put("gone", "k01", "in a dropped family")]);
    let gone = life.families.remove("gone").expect("just created");
    life.db.drop_cf(&gone).expect("the disk is sound");
    life.truth.remove("gone");
    let steps = (0..40).map(|n| put("default", format!("k{n:02}"), format!("first {n}")));
    life.write(true, steps.collect());
    life.flush("default");
    let steps = (25..80).map(|n| put("default", format!("k{n:02}"), format!("first {n}")));
    life.write(true, steps.collect());
    life.flush("default");
    life.compact("default");
    let steps = (0..24).map(|n| put("packed", format!("p{n:02}"), vec![b'a' + n % 26; 40]));
    life.write(true, steps.collect());
    life.flush("packed");
    life.compact("packed");
}

/// Tables above them, of every sort.
fn middle(life: &mut Life) {
    let steps = (0..80)
        .step_by(7)
        .map(|n| put("default", format!("k{n:02}"), format!("second {n}")));
    life.write(true, steps.collect());
    life.write(true, vec![Step::Delete("default", b"k33".to_vec())]);
    life.flush("default");
    life.write(true, vec![Step::DeleteRange("default", "k20", "k26")]);
    life.write(
        true,
        vec![
            put("default", "k22", "after the range delete"),
            put("default", "", "the empty key"),
        ],
    );
    life.flush("default");
    life.ingest();
    let steps = (0..12).map(|n| put("packed", format!("p{n:02}"), vec![b'A' + n; 60]));
    life.write(true, steps.collect());
    life.write(
        true,
        vec![
            put("packed", "p50", noise(1100, 3)),
            put("packed", "p51", vec![b'v'; 400]),
            Step::DeleteRange("packed", "p20", "p22"),
        ],
    );
    life.flush("packed");
    let steps = (0..10).map(|n| put("loose", format!("l{n}"), format!("unlogged {n}")));
    life.write(false, steps.collect());
    life.flush("loose");
    life.db.flush_all().expect("the disk is sound");
    life.look();
}

/// Records that only the log has, before a cut in it.
fn middle_log(life: &mut Life) {
    for n in 0..14 {
        let key = format!("k{:02}", n * 5);
        life.write(
            true,
            vec![
                put("default", key, format!("late {n}")),
                put("packed", format!("p{n:02}"), format!("late {n}")),
            ],
        );
    }
}

/// Edits behind the first of the last manifest; records that only the log has, behind the cut, over several segments.
fn late(life: &mut Life) {
    life.create("late", packed());
    life.write(false, vec![put("loose", "l3", "again")]);
    life.flush("loose");
    life.write(true, vec![Step::Delete("default", b"k41".to_vec())]);
    life.write(true, vec![Step::DeleteRange("packed", "p05", "p07")]);
    life.write(true, vec![put("default", "k99", noise(2100, 5))]);
    for n in 0..10 {
        life.write(
            true,
            vec![put("packed", format!("q{n}"), format!("last {n}"))],
        );
    }
}

/// The life must have reached what it is for.
fn assert_shape(life: &Life) {
    let stats = life.db.stats();
    let tables = |name: &str, low: usize, high: usize| -> usize {
        let family = stats
            .families
            .iter()
            .find(|f| f.name == name)
            .expect("exists");
        family.levels[low..high]
            .iter()
            .map(|level| level.tables)
            .sum()
    };
    assert!(tables("default", 0, 1) >= 2, "L0: {stats:?}");
    assert!(tables("default", 1, LEVELS) >= 2, "deeper: {stats:?}");
    assert!(tables("packed", 0, 1) >= 1 && tables("packed", 1, LEVELS) >= 1);
    assert!(tables("loose", 0, 1) >= 1);
    let values = stats.families.iter().map(|family| family.values.files);
    assert!(values.sum::<usize>() >= 1, "{stats:?}");
    assert!(
        stats.log_segments >= 3,
        "{} log segments",
        stats.log_segments
    );
    let range = life
        .db
        .range(&life.families["default"], &ReadOptions::default())
        .expect("sound");
    assert_eq!(range.count(), life.truth["default"].len());
}

/// Keys beside those that are there.
fn absent(truth: &BTreeMap<String, Rows>) -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> = (0..100)
        .step_by(9)
        .map(|n| format!("k{n:02}x").into_bytes())
        .collect();
    for key in [
        "a", "k21", "k24", "k33", "k41", "k52", "l55", "p05", "p06", "p20", "p21", "zz",
    ] {
        keys.push(key.into());
    }
    keys.retain(|key| truth.values().all(|rows| !rows.contains_key(key)));
    assert!(keys.len() >= 18, "{keys:?}");
    keys
}

/// The kind of a file by its name.
pub(crate) fn kind(path: &Path) -> &'static str {
    let name = path.file_name().map_or("", |name| {
        name.to_str().expect("the engine's names are text")
    });
    match name {
        "CURRENT" => "CURRENT",
        "MARK" => "MARK",
        "RESERVE" => "RESERVE",
        "LOCK" => "LOCK",
        _ if name.starts_with("MANIFEST-") => "MANIFEST",
        _ if name.ends_with(".log") => "log",
        _ if name.ends_with(".sst") => "table",
        _ if name.ends_with(".val") => "values",
        _ => panic!("a file of an unknown kind: {name}"),
    }
}

/// Files of the store on a disk, with their bytes.
pub(crate) fn files(disk: &SimFs) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = disk
        .files()
        .into_iter()
        .filter(|path| path.starts_with(DIR));
    paths
        .map(|path| {
            let bytes = disk.read_raw(&path).expect("it is listed");
            (path, bytes)
        })
        .collect()
}
