//! What range deletes cost: blocks that are read, and tables that are opened.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use basalt_engine::{
    CfOptions, Compression, Db, Options, ReadOptions, Result, WriteOptions,
    executor::SimExecutor,
    fs::{ReadMode, SimFs, sim::OpKind},
};

const NO_SYNC: WriteOptions = WriteOptions::NO_SYNC;
const KEYS: u64 = 4_000;

fn key(at: u64) -> Vec<u8> {
    format!("key{at:08}").into_bytes()
}

/// A database of many tables in its last level.
fn filled(
    fs: &Arc<SimFs>,
    executor: &Arc<SimExecutor>,
) -> Result<(Db, basalt_engine::ColumnFamily)> {
    let mut options = Options::with(Arc::clone(fs) as _, Arc::clone(executor) as _);
    options.read_mode = ReadMode::Pread;
    options.block_cache_bytes = 0;
    let db = Db::open("/db", options)?;
    let mut family = CfOptions {
        table_bytes: 4 << 10,
        ..CfOptions::default()
    };
    // So that a table is not moved out of L0 as it is, in one piece.
    family.compression[0] = Compression::None;
    let cf = db.create_cf("many", family)?;
    for at in 0..KEYS {
        db.put(&cf, &key(at), &[7; 40], NO_SYNC)?;
    }
    db.compact_range(&cf, None, None)?;
    Ok((db, cf))
}

fn tables(db: &Db) -> usize {
    let stats = db.stats();
    stats.families[1]
        .levels
        .iter()
        .map(|level| level.tables)
        .sum()
}

/// Counts what is read of table files while `work` is done: bytes.
fn bytes_read(fs: &Arc<SimFs>, work: impl FnOnce() -> Result<()>) -> Result<u64> {
    let read = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&read);
    fs.set_fault_rule(Some(Arc::new(move |op| {
        if op.kind == OpKind::Read && op.path.extension().is_some_and(|end| end == "sst") {
            counter.fetch_add(op.len, Ordering::Relaxed);
        }
        None
    })));
    let done = work();
    fs.set_fault_rule(None);
    done.map(|()| read.load(Ordering::Relaxed))
}

#[test]
fn whole_tables_go_unread_under_a_range_delete_unless_a_snapshot_needs_them() -> Result<()> {
    let fs = SimFs::new();
    let executor = Arc::new(SimExecutor::new(1));
    let (db, cf) = filled(&fs, &executor)?;
    let before = tables(&db);
    assert!(before > 40, "{before} tables");
    let held = db.snapshot();
    db.delete_range(&cf, &key(0), &key(KEYS), NO_SYNC)?;
    db.put(&cf, &key(7), b"new", NO_SYNC)?;
    db.flush(&cf)?;
    executor.run_until_idle();
    assert!(tables(&db) > before, "the snapshot needs them");
    let at = ReadOptions::at(&held);
    assert_eq!(db.range(&cf, &at)?.count() as u64, KEYS);
    drop((held, at));
    let read = bytes_read(&fs, || {
        db.put(&cf, &key(8), b"new", NO_SYNC)?;
        db.flush(&cf)?;
        executor.run_until_idle();
        Ok(())
    })?;
    assert!(db.stats().tables_dropped >= before as u64, "dropped whole");
    assert!(read < 16 << 10, "{read} bytes were read");
    assert_eq!(db.range(&cf, &ReadOptions::default())?.count(), 2);
    assert!(db.verify()?.damage.is_empty());
    Ok(())
}

#[test]
fn an_iterator_opens_the_tables_it_comes_to_and_a_seek_reads_the_same_beside_many_range_deletes()
-> Result<()> {
    let fs = SimFs::new();
    let executor = Arc::new(SimExecutor::new(1));
    let (db, cf) = filled(&fs, &executor)?;
    let one_seek = |db: &Db, cf: &basalt_engine::ColumnFamily| {
        let mut iter = db.iter(cf, &ReadOptions::default())?;
        iter.seek(&key(2001))?;
        assert_eq!(iter.key(), key(2001));
        Ok(())
    };
    // Range deletes over every second key, in many tables of a level, held there by a snapshot.
    let _held = db.snapshot();
    for at in (0..KEYS).step_by(2) {
        db.delete_range(&cf, &key(at), &key(at + 1), NO_SYNC)?;
    }
    one_seek(&db, &cf)?;
    db.compact_range(&cf, None, None)?;
    assert!(tables(&db) > 40);
    db.close()?;

    let mut options = Options::with(Arc::clone(&fs) as _, Arc::new(SimExecutor::new(2)));
    options.read_mode = ReadMode::Pread;
    options.block_cache_bytes = 0;
    let db = Db::open("/db", options)?;
    let cf = db.cf("many")?;
    let read = bytes_read(&fs, || one_seek(&db, &cf))?;
    assert!(read < 16 << 10, "{read} bytes were read for one seek");
    assert_eq!(
        db.range(&cf, &ReadOptions::default())?.count() as u64,
        KEYS / 2
    );
    assert_eq!(
        db.range(&cf, &ReadOptions::default())?.rev().count() as u64,
        KEYS / 2
    );
    Ok(())
}
