//! Compression by level: what each build takes, and what a database with zstd asks of who opens it.

use basalt_engine::{
    CfOptions, Compression, Db, Error, Ingest, LEVELS, Options, ReadOptions, WriteOptions, fs::Fs,
};

use crate::simulated;

/// None at the top, LZ4 in the middle, zstd at the bottom.
fn three_codecs() -> CfOptions {
    let mut options = CfOptions::default();
    options.compression[LEVELS - 1] = Compression::Zstd;
    options
}

/// Format version of the newest manifest.
fn manifest_version(fs: &dyn Fs) -> u8 {
    let mut names = fs.list_dir("db".as_ref()).expect("a directory");
    names.retain(|name| name.starts_with("MANIFEST-"));
    names.sort();
    let path = format!("db/{}", names.last().expect("a manifest"));
    fs.read(path.as_ref()).expect("readable")[12]
}

fn fill(db: &Db, cf: &basalt_engine::ColumnFamily) {
    for i in 0..2_000_u32 {
        let key = format!("key{i:06}");
        let value = format!("value {i} of many that are much alike");
        db.put(cf, key.as_bytes(), value.as_bytes(), WriteOptions::NO_SYNC)
            .expect("written");
    }
    db.compact_range(cf, None, None).expect("compacted");
}

fn bytes_of(db: &Db, name: &str) -> u64 {
    let stats = db.stats();
    let family = stats.families.iter().find(|family| family.name == name);
    let family = family.expect("the family");
    family.levels.iter().map(|level| level.bytes).sum()
}

#[test]
fn zstd_is_there_with_the_feature_and_refused_by_name_without() {
    let (fs, options) = simulated(1);
    let db = Db::open("db", options.clone()).expect("opened");
    assert_eq!(manifest_version(&*fs), 1);
    let opened = db.open_cf("small", three_codecs());
    if !cfg!(feature = "zstd") {
        let error = opened.expect_err("refused");
        assert!(matches!(&error, Error::InvalidArgument(what) if what.contains("feature `zstd`")));
        assert_eq!(manifest_version(&*fs), 1);
        return;
    }
    let small = opened.expect("created");
    assert_eq!(
        manifest_version(&*fs),
        3,
        "older engines refuse it from here on"
    );
    let plain = db.open_cf("plain", CfOptions::default()).expect("created");
    fill(&db, &small);
    fill(&db, &plain);
    let (zstd, lz4) = (bytes_of(&db, "small"), bytes_of(&db, "plain"));
    assert!(zstd < lz4 * 9 / 10, "zstd {zstd}, LZ4 {lz4}");
    assert_eq!(db.verify().expect("read").damage.len(), 0);
    db.checkpoint("copy").expect("copied");
    // For good, whatever becomes of the option.
    db.open_cf("small", CfOptions::default()).expect("changed");
    db.close().expect("closed");
    let db = Db::open("db", options.clone()).expect("opened");
    assert_eq!(manifest_version(&*fs), 3);
    let small = db.cf("small").expect("there");
    let rows = db.range(&small, &ReadOptions::default()).expect("a cursor");
    let rows: Result<Vec<_>, _> = rows.collect();
    assert_eq!(rows.expect("readable").len(), 2_000);
    db.close().expect("closed");
    let copy = Db::open("copy", options).expect("opened");
    let value = copy.get(&copy.cf("small").expect("there"), b"key000001");
    assert_eq!(
        value.expect("readable").as_deref(),
        Some(&b"value 1 of many that are much alike"[..])
    );
}

#[test]
fn an_ingested_table_of_zstd_raises_the_format_too() {
    if !cfg!(feature = "zstd") {
        return;
    }
    let (fs, options) = simulated(2);
    let maker = Db::open("maker", options.clone()).expect("opened");
    let cf = maker.open_cf("small", three_codecs()).expect("created");
    let mut writer = maker.table_writer(&cf, "table").expect("begun");
    writer.put(b"key", &[b'x'; 500]).expect("added");
    writer.finish().expect("finished");
    let db = Db::open("db", options).expect("opened");
    assert_eq!(manifest_version(&*fs), 1);
    let file: std::sync::Arc<dyn Fs> = fs.clone();
    let table = basalt_engine::TableFile::open(&file, "table".as_ref()).expect("a table");
    let mut request = Ingest::new();
    request.table(&db.default_cf(), table);
    db.ingest(request).expect("taken in");
    assert_eq!(manifest_version(&*fs), 3);
    let value = db.get(&db.default_cf(), b"key").expect("readable");
    assert_eq!(value.as_deref(), Some(&[b'x'; 500][..]));
}

#[test]
fn an_append_family_takes_no_zstd() {
    let (_, options) = simulated(3);
    let db = Db::open("db", Options { ..options }).expect("opened");
    let mut append = CfOptions::append(8);
    append.compression[0] = Compression::Zstd;
    let error = db.create_cf("log", append).expect_err("refused");
    assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
}
