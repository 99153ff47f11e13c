//! Bodies of the fuzz targets: what each decoder is asked to do with any bytes.
//!
//! Hidden from the documentation and no promise to anyone; the engine does not use them. `fuzz/` hands them to a fuzzer,
//! `tests/fuzz_corpus.rs` runs the kept corpus, and mutations of it, on a stable toolchain. A body answers whether the
//! decoder took the bytes, and panics where a promise is broken: what is taken has one spelling, what is shown is the
//! same each time, and what opened once opens again.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use byteorder::{ByteOrder, LittleEndian};

use crate::{
    CfOptions, Db, Options, ReadOptions, WriteBatch, WriteOptions,
    backup::testing as backup,
    batch::{Operation, Operations, Values},
    coding::{Reader, put_slice, put_u32, put_varint},
    error::Result,
    executor::SimExecutor,
    fs::{SimFs, sim::Survival},
    key::InternalKey,
    table::fuzz as table,
    values::ValuePointer,
    verify::verify_dir,
    version::testing as version,
    wal::testing as wal,
};

/// What a target does with bytes: true where they were taken for what they claim to be.
pub type Body = fn(&[u8]) -> bool;

/// Every target of the engine, by name.
pub const TARGETS: [(&str, Body); 20] = [
    ("coding", coding),
    ("key", key),
    ("batch", batch),
    ("header", header),
    ("record", record),
    ("mark", mark),
    ("current", current),
    ("edit", edit),
    ("block", table::block),
    ("index", table::index),
    ("filter", table::filter),
    ("properties", table::properties),
    ("tombstones", table::tombstones),
    ("footer", table::footer),
    ("lz4", table::lz4),
    ("table", table::table),
    ("value-pointer", value_pointer),
    ("value-file", table::value_file),
    ("backup", backup),
    ("directory", directory),
];

/// Varints and slices: the first byte of each pair says which to read.
fn coding(data: &[u8]) -> bool {
    let mut reader = Reader::new(data);
    while let Some(kind) = reader.u8() {
        let before = reader.position();
        let mut again = Vec::new();
        let taken = if kind & 1 == 0 {
            reader.varint().map(|value| put_varint(&mut again, value))
        } else {
            reader.slice().map(|bytes| put_slice(&mut again, bytes))
        };
        if taken.is_none() {
            return false;
        }
        assert_eq!(again, data[before..reader.position()], "one spelling");
    }
    true
}

fn key(data: &[u8]) -> bool {
    let Some(key) = InternalKey::decode(data) else {
        return false;
    };
    let again = [key.user_key, &key.trailer.to_le_bytes()].concat();
    assert_eq!(again, data, "one spelling");
    key.kind().is_some()
}

/// The payload of a write batch, each operation and value of it.
fn batch(data: &[u8]) -> bool {
    let Some(operations) = Operations::new(data) else {
        return false;
    };
    let mut again = data[..4].to_vec();
    let mut count = 0_u32;
    for operation in operations {
        let Ok((family, operation)) = operation else {
            return false;
        };
        count += 1;
        spell(&mut again, family, &operation);
    }
    assert_eq!(count.to_le_bytes(), data[..4], "as many as it says");
    assert!(again == data, "one spelling");
    true
}

fn spell(out: &mut Vec<u8>, family: u32, operation: &Operation<'_>) {
    let mut head = |kind: u8, key: &[u8]| {
        out.push(kind);
        put_varint(out, u64::from(family));
        put_slice(out, key);
    };
    let values = |out: &mut Vec<u8>, first: u64, values: &Values<'_>, has_seqs: bool| {
        put_varint(out, first);
        put_varint(out, values.len() as u64);
        assert_eq!(values.iter().count(), values.len(), "each is there");
        for value in values.iter() {
            if has_seqs {
                put_varint(out, value.seq.0);
            }
            put_u32(out, value.crc);
            put_slice(out, value.bytes);
        }
    };
    match *operation {
        Operation::Delete { key } => head(0, key),
        Operation::Put { key, value } => {
            head(1, key);
            put_slice(out, value);
        }
        Operation::Merge { key, operand } => {
            head(16, key);
            put_slice(out, operand);
        }
        Operation::DeleteRange { start, end } => {
            head(2, start);
            put_slice(out, end);
        }
        Operation::Append {
            prefix,
            first,
            values: ref all,
        } => {
            head(3, prefix);
            values(out, first, all, false);
        }
        Operation::TruncateFront { prefix, index } => {
            head(4, prefix);
            put_varint(out, index);
        }
        Operation::TruncateBack { prefix, index } => {
            head(5, prefix);
            put_varint(out, index);
        }
        Operation::Rewrite {
            prefix,
            first,
            values: ref all,
        } => {
            head(6, prefix);
            values(out, first, all, true);
        }
        Operation::AppendPacked {
            prefix,
            first,
            ref block,
        } => {
            head(7, prefix);
            put_varint(out, first);
            put_u32(out, block.crc);
            put_u32(out, u32::try_from(block.body.len()).expect("64 KiB"));
            out.extend_from_slice(block.body);
            if let Some(values) = block.values() {
                assert_eq!(values.len(), block.tags().count(), "each has a place");
                let bytes: usize = values.iter().map(Vec::len).sum();
                assert!(bytes <= 64 << 10, "{bytes} bytes in one block");
            }
        }
    }
}

/// A header of 64 bytes, under a right checksum.
fn header(data: &[u8]) -> bool {
    let Some(bytes) = data.first_chunk::<64>() else {
        return false;
    };
    let mut bytes = *bytes;
    seal_header(&mut bytes);
    let mut taken = false;
    for manifest in [false, true] {
        bytes[..8].copy_from_slice(if manifest { b"BSLTMAN1" } else { b"BSLTLOG1" });
        if let Some(header) = wal::decode_header(&bytes, manifest) {
            let again = wal::encode_header(&header);
            // The format version is not among the fields.
            assert_eq!(again[16..], bytes[16..], "one spelling");
            assert!(wal::decode_header(&bytes, !manifest).is_none());
            taken = true;
        }
    }
    taken
}

fn seal_header(bytes: &mut [u8]) {
    let crc = crc32fast::hash(&bytes[12..64]);
    LittleEndian::write_u32(&mut bytes[8..12], crc);
}

/// Gives the record at `at` right checksums, where it has room for a header.
fn seal_record(db: u64, number: u64, at: usize, file: &mut [u8]) {
    let Some(record) = file.get_mut(at..).filter(|record| record.len() >= 32) else {
        return;
    };
    let len = LittleEndian::read_u32(&record[4..8]) as usize;
    if let Some(payload) = record[32..].get(..len) {
        let crc = crc32fast::hash(payload);
        LittleEndian::write_u32(&mut record[8..12], crc);
    }
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&(db ^ number).to_le_bytes());
    hasher.update(&(at as u64).to_le_bytes());
    hasher.update(&record[4..32]);
    LittleEndian::write_u32(&mut record[..4], hasher.finalize());
}

/// A record of a log or a manifest, under right checksums.
fn record(data: &[u8]) -> bool {
    let Some((&at, data)) = data.split_first() else {
        return false;
    };
    let (db, number, at) = (7, 9, usize::from(at));
    let mut file = vec![0; at];
    file.extend_from_slice(data);
    if let Some(length) = file.get_mut(at + 4..at + 8)
        && data.first().is_some_and(|first| first & 1 == 0)
    {
        let len = u32::try_from(data.len().saturating_sub(32)).unwrap_or(u32::MAX);
        LittleEndian::write_u32(length, len);
    }
    seal_record(db, number, at, &mut file);
    let Some(record) = wal::decode_record(db, number, at, &file) else {
        return false;
    };
    let again = wal::encode_record(db, number, at as u64, &record);
    assert!(file[at..].starts_with(&again), "one spelling");
    for (db, number, at) in [(db + 1, number, at), (db, number + 1, at)] {
        let other = wal::decode_record(db, number, at, &file);
        assert!(other.is_none(), "a record of another file");
    }
    true
}

/// The mark; bytes that are none give the fields of one, which must come back.
fn mark(data: &[u8]) -> bool {
    let Some(mark) = wal::decode_mark(data) else {
        let mut reader = Reader::new(data);
        let mut number = || reader.u64().unwrap_or(0);
        let mark = wal::Mark {
            db: number(),
            sync_failed: number() & 1 == 1,
            segment: number(),
            position: number(),
            seq: number() >> 8,
            manifest: number(),
            manifest_offset: number(),
        };
        let bytes = wal::encode_mark(&mark);
        assert_eq!(wal::decode_mark(&bytes), Some(mark));
        return false;
    };
    let again = wal::encode_mark(&mark);
    assert!(data.starts_with(&again), "one spelling");
    true
}

fn current(data: &[u8]) -> bool {
    if let Some(number) = wal::decode_current(data) {
        assert_eq!(wal::encode_current(number).as_bytes(), data, "one spelling");
        return true;
    }
    let number = data.iter().fold(0_u64, |n, &b| n << 8 | u64::from(b));
    let text = wal::encode_current(number);
    assert_eq!(wal::decode_current(text.as_bytes()), Some(number));
    false
}

/// A version edit.
fn edit(data: &[u8]) -> bool {
    let Some(edit) = version::decode_edit(data) else {
        return false;
    };
    let again = version::encode_edit(&edit);
    assert_eq!(version::decode_edit(&again), Some(edit), "the same fields");
    true
}

/// A pointer into a value file.
fn value_pointer(data: &[u8]) -> bool {
    let Some(pointer) = ValuePointer::decode(data) else {
        return false;
    };
    let mut again = Vec::new();
    pointer.encode_to(&mut again);
    assert_eq!(again, data, "one spelling");
    true
}

/// A `BACKUP-` file behind its magic, under a right checksum.
fn backup(data: &[u8]) -> bool {
    let crc = crc32fast::hash(data).to_le_bytes();
    let bytes = [b"BSLTBAK1", &crc[..], data].concat();
    let Some(record) = backup::decode(&bytes) else {
        return false;
    };
    assert!(backup::encode(&record) == bytes, "one spelling");
    let _ = backup::has_state(&bytes);
    true
}

/// Where the database of [`directory`] is on its disk.
const DIR: &str = "/db";

/// Options of that database: everything small, one thread.
fn options(disk: &Arc<SimFs>) -> Options {
    Options {
        log_segment_bytes: (512, 1024),
        reserve_bytes: 0,
        block_cache_bytes: 1 << 16,
        ..Options::with(Arc::clone(disk) as _, Arc::new(SimExecutor::new(1)))
    }
}

/// A small database with each kind of file that version 2 of the format has.
fn small() -> &'static (Arc<SimFs>, Vec<PathBuf>) {
    static SMALL: OnceLock<(Arc<SimFs>, Vec<PathBuf>)> = OnceLock::new();
    SMALL.get_or_init(|| {
        let disk = SimFs::new();
        live(&disk).expect("a good disk");
        let image = disk.crash(Survival::ProcessDeath);
        let files = image.files();
        (image, files)
    })
}

fn live(disk: &Arc<SimFs>) -> Result<()> {
    let db = Db::open(DIR, options(disk))?;
    let plain = db.default_cf();
    let log = db.create_cf("log", CfOptions::append(1))?;
    let unlogged = db.create_cf("u", CfOptions::unlogged())?;
    for round in 0..3_u8 {
        let mut batch = WriteBatch::new();
        for key in 0..8 {
            batch.put(&plain, &[b'k', key], &[round; 20]);
        }
        batch.delete_range(&plain, &[b'k', round], &[b'k', round + 1]);
        let first = 1 + 2 * u64::from(round);
        batch.append(&log, b"p", first, &[[round; 9], [round; 9], [round; 9]]);
        db.write(batch, WriteOptions::SYNC)?;
        db.put(&unlogged, &[round], b"u", WriteOptions::NO_SYNC)?;
        if round < 2 {
            db.flush_all()?;
        }
    }
    let mut batch = WriteBatch::new();
    batch.truncate_front(&log, b"p", 2);
    db.write(batch, WriteOptions::NO_SYNC)?;
    Ok(())
}

/// Rows by family.
type Rows = Vec<(String, Vec<(Vec<u8>, Vec<u8>)>)>;

/// A whole database directory with bytes changed, under right checksums where the bytes say so: opened, read in every
/// way, written to, and opened again.
fn directory(data: &[u8]) -> bool {
    let (image, files) = small();
    let disk = image.crash(Survival::KeepAll);
    let mut reader = Reader::new(data);
    while let Some(change) = change(&mut reader, files) {
        change(&disk);
    }
    let _ = verify_dir(DIR, &options(&disk));
    let Ok(db) = Db::open(DIR, options(&disk)) else {
        return false;
    };
    let Some(rows) = rows(&db) else {
        return false;
    };
    for cf in db.list_cfs() {
        let _ = db.multi_get(
            &cf,
            &[b"k".to_vec(), vec![b'k', 1]],
            &ReadOptions::default(),
        );
        if cf.is_append() {
            let _ = db.append_range(&cf, b"p");
        }
    }
    let wrote = db.put(&db.default_cf(), b"zz", b"new", WriteOptions::SYNC);
    let whole = db.verify().is_ok_and(|report| report.damage.is_empty());
    if wrote.is_err() || !whole || db.close().is_err() {
        return false;
    }
    // Nothing in it is damaged, so all of it is there again.
    let disk = disk.crash(Survival::LoseUnsynced);
    let db = Db::open(DIR, options(&disk)).expect("what opened whole opens again");
    let again = self::rows(&db).expect("and is read again");
    let mut logged = rows;
    for (name, rows) in &mut logged {
        if name == "default" {
            rows.retain(|(key, _)| key != b"zz");
            let at = rows.partition_point(|(key, _)| key.as_slice() < b"zz");
            rows.insert(at, (b"zz".to_vec(), b"new".to_vec()));
        }
    }
    // Closing flushes nothing: an unlogged family is what its tables have.
    let is_logged = |name: &str| db.cf(name).is_ok_and(|cf| cf.is_logged());
    logged.retain(|(name, _)| is_logged(name));
    let again: Rows = again
        .into_iter()
        .filter(|(name, _)| is_logged(name))
        .collect();
    assert!(logged == again, "{logged:?} became {again:?}");
    true
}

/// A change of a disk.
type Change<'a> = Box<dyn FnOnce(&SimFs) + 'a>;

/// The next change of a disk that the bytes ask for.
fn change<'a>(reader: &mut Reader<'a>, files: &'a [PathBuf]) -> Option<Change<'a>> {
    let path = &files[usize::from(reader.u8()?) % files.len()];
    let kind = reader.u8()?;
    let at = usize::from(reader.u8()?) | usize::from(reader.u8()?) << 8;
    let len = usize::from(reader.u8()?);
    let bytes = reader.bytes(len.min(reader.rest().len()))?;
    Some(Box::new(move |disk| {
        let Ok(mut file) = disk.read_raw(path) else {
            return;
        };
        let at = at % (file.len() + 1);
        match kind & 7 {
            0 => file.truncate(at),
            1 => drop(file.splice(at..at, bytes.iter().copied())),
            _ => {
                let end = file.len().min(at + bytes.len());
                file[at..end].copy_from_slice(&bytes[..end - at]);
            }
        }
        if kind & 8 != 0 {
            seal_all(path, &mut file);
        }
        let _ = disk.write_raw(path, &file);
    }))
}

/// Right checksums for a header and the records behind it, as far as their lengths lead.
fn seal_all(path: &Path, file: &mut [u8]) {
    let is_framed = file.starts_with(b"BSLTLOG1") || file.starts_with(b"BSLTMAN1");
    if !is_framed || file.len() < 64 || path.ends_with("MARK") {
        return;
    }
    seal_header(file);
    let (db, number) = (
        LittleEndian::read_u64(&file[16..24]),
        LittleEndian::read_u64(&file[24..32]),
    );
    let mut at = 64;
    while at + 32 <= file.len() && file[at + 12] != 0 {
        seal_record(db, number, at, file);
        let len = LittleEndian::read_u32(&file[at + 4..at + 8]) as usize;
        at = at.saturating_add(32).saturating_add(len);
    }
}

/// Most rows of a family: no small directory has more.
const MOST: usize = 1 << 17;

/// All rows, if they can be read; alike in both directions.
fn rows(db: &Db) -> Option<Rows> {
    let mut all = Vec::new();
    for cf in db.list_cfs() {
        let walk = |forward: bool| {
            let mut range = db.range(&cf, &ReadOptions::default()).ok()?;
            let mut rows = Vec::new();
            while let Some(row) = if forward {
                range.next()
            } else {
                range.next_back()
            } {
                let (key, value) = row.ok()?;
                rows.push((key, value.to_vec()));
                assert!(rows.len() < MOST, "a scan without an end");
            }
            Some(rows)
        };
        let (forward, backward) = (walk(true), walk(false));
        for (key, _) in forward.iter().flatten().take(16) {
            let _ = db.get(&cf, key);
        }
        backward?;
        all.push((cf.name().to_owned(), forward?));
    }
    Some(all)
}
