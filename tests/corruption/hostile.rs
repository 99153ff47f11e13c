//! Bytes that are wrong under right checksums: what a careless tool or another version might write.
//!
//! No checksum can tell here, so an answer may be wrong. What must not happen: a panic, a hang, a huge allocation,
//! a scan without an end.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use basalt_engine::{
    ColumnFamily, Db, ReadOptions, Result, WriteOptions,
    executor::SimExecutor,
    fs::{ReadMode, SimFs},
    testing::wal::{
        Header, Mark, Record, decode_header, decode_mark, decode_record, encode_current,
        encode_header, encode_mark, encode_record,
    },
    verify_dir,
};

use super::{
    cases::{Case, Change, Expect, Image, blocks_of, records_of},
    examine,
    store::{DIR, options},
};

/// No scan of the small store is longer, whatever its bytes say.
const MOST_ROWS: usize = 10_000;

/// Numbers at which arithmetic may break.
const EXTREMES: [u64; 9] = [
    0,
    1,
    63,
    64,
    1 << 32,
    (1 << 56) - 1,
    1 << 56,
    u64::MAX - 1,
    u64::MAX,
];

/// Opens and uses a store of any content; `Err` tells what must not happen.
pub(crate) fn endure(disk: &Arc<SimFs>, mode: ReadMode) -> Result<bool, String> {
    examine::watched(|| catch_unwind(AssertUnwindSafe(|| use_it(disk, mode))))?
        .map_err(|_| "a panic that said nothing".to_owned())?
}

/// True where all went well.
fn use_it(disk: &Arc<SimFs>, mode: ReadMode) -> Result<bool, String> {
    let executor = Arc::new(SimExecutor::new(3));
    let offline = verify_dir(DIR, &options(disk, &executor, mode));
    let mut well = offline.is_ok_and(|report| report.damage.is_empty());
    for _ in 0..2 {
        let Ok(db) = Db::open(DIR, options(disk, &executor, mode)) else {
            return Ok(false);
        };
        for cf in db.list_cfs() {
            well &= scan(&db, &cf, true)?;
            well &= scan(&db, &cf, false)?;
            for key in [&b"k33"[..], b"p05", b"l3", b"", b"\xff"] {
                well &= db.get(&cf, key).is_ok();
            }
        }
        well &= db.verify().is_ok_and(|report| report.damage.is_empty());
        well &= db
            .put(&db.default_cf(), b"zzz", b"z", WriteOptions::SYNC)
            .is_ok();
        well &= db.flush_all().is_ok();
        for cf in db.list_cfs() {
            well &= db.compact_range(&cf, None, None).is_ok();
        }
        well &= db.close().is_ok();
    }
    executor.run_until_idle();
    Ok(well)
}

fn scan(db: &Db, cf: &ColumnFamily, forward: bool) -> Result<bool, String> {
    let Ok(range) = db.range(cf, &ReadOptions::default()) else {
        return Ok(false);
    };
    let rows: Box<dyn Iterator<Item = _>> = if forward {
        Box::new(range)
    } else {
        Box::new(range.rev())
    };
    for (count, row) in rows.enumerate() {
        if row.is_err() {
            return Ok(false);
        }
        if count > MOST_ROWS {
            return Err(format!("a scan of {} without an end", cf.name()));
        }
    }
    Ok(true)
}

fn case(image: &Image<'_>, file: usize, bytes: Vec<u8>, why: String) -> Case {
    Case {
        change: Change::Put {
            path: image.path(file).to_owned(),
            bytes,
            why,
        },
        kind: image.kind(file),
        expect: Expect::Either,
    }
}

/// Every way in which one byte of `bytes` is wrong, a few of them for each byte.
fn wrong(bytes: &[u8]) -> impl Iterator<Item = (usize, Vec<u8>)> {
    (0..bytes.len()).flat_map(move |at| {
        let old = bytes[at];
        let mut values = vec![0, 0xff, old ^ (1 << (at % 8))];
        values.retain(|&value| value != old);
        values.dedup();
        values.into_iter().map(move |value| {
            let mut bytes = bytes.to_vec();
            bytes[at] = value;
            (at, bytes)
        })
    })
}

/// Payloads and headers of records, of the log and of the manifest.
pub(crate) fn records(image: &Image<'_>) -> Vec<Case> {
    let mut cases = Vec::new();
    for file in 0..image.files.len() {
        if !matches!(image.kind(file), "log" | "MANIFEST") {
            continue;
        }
        let old = image.bytes(file);
        let Some(header) = decode_header(old, image.kind(file) == "MANIFEST") else {
            continue;
        };
        for (start, end) in records_of(image.path(file), old) {
            let record = decode_record(header.db, header.number, start, old).expect("it is one");
            let mut add = |record: &Record<'_>, why: String| {
                let bytes = encode_record(header.db, header.number, start as u64, record);
                let bytes = [&old[..start], &bytes, &old[end..]].concat();
                cases.push(case(image, file, bytes, why));
            };
            for (at, payload) in wrong(record.payload) {
                let why = format!(
                    "with payload byte {at} of the record at {start} {}",
                    payload[at]
                );
                add(
                    &Record {
                        payload: &payload,
                        ..record
                    },
                    why,
                );
            }
            for len in 0..record.payload.len() {
                let payload = &record.payload[..len];
                add(
                    &Record { payload, ..record },
                    format!("with {len} bytes in the record at {start}"),
                );
            }
            for value in EXTREMES {
                add(
                    &Record {
                        synced: value,
                        ..record
                    },
                    format!("with synced {value} at {start}"),
                );
                if value < 1 << 56 {
                    add(
                        &Record {
                            seq: value,
                            ..record
                        },
                        format!("with seq {value} at {start}"),
                    );
                }
            }
            add(
                &Record {
                    edit: !record.edit,
                    ..record
                },
                format!("with another kind at {start}"),
            );
        }
    }
    cases
}

/// Headers of segments and manifests, the mark, and CURRENT.
pub(crate) fn headers(image: &Image<'_>) -> Vec<Case> {
    let mut cases = Vec::new();
    for file in 0..image.files.len() {
        let old = image.bytes(file);
        let mut put = |head: &[u8], why: String| {
            let rest = old.get(head.len()..).unwrap_or_default();
            cases.push(case(image, file, [head, rest].concat(), why));
        };
        match image.kind(file) {
            kind @ ("log" | "MANIFEST") => {
                let Some(header) = decode_header(old, kind == "MANIFEST") else {
                    continue;
                };
                for value in EXTREMES {
                    for (field, header) in [
                        (
                            "db",
                            Header {
                                db: value,
                                ..header
                            },
                        ),
                        (
                            "number",
                            Header {
                                number: value,
                                ..header
                            },
                        ),
                        (
                            "base",
                            Header {
                                base: value,
                                ..header
                            },
                        ),
                        (
                            "previous",
                            Header {
                                previous: value,
                                ..header
                            },
                        ),
                        (
                            "synced",
                            Header {
                                synced: value,
                                ..header
                            },
                        ),
                    ] {
                        put(&encode_header(&header), format!("with {field} {value}"));
                    }
                }
            }
            "MARK" => {
                let mark = decode_mark(old).expect("written");
                for value in EXTREMES {
                    for (field, mark) in [
                        ("db", Mark { db: value, ..mark }),
                        (
                            "segment",
                            Mark {
                                segment: value,
                                ..mark
                            },
                        ),
                        (
                            "position",
                            Mark {
                                position: value,
                                ..mark
                            },
                        ),
                        ("seq", Mark { seq: value, ..mark }),
                        (
                            "manifest",
                            Mark {
                                manifest: value,
                                ..mark
                            },
                        ),
                        (
                            "offset",
                            Mark {
                                manifest_offset: value,
                                ..mark
                            },
                        ),
                        (
                            "a failed sync",
                            Mark {
                                sync_failed: true,
                                position: value,
                                ..mark
                            },
                        ),
                    ] {
                        put(&encode_mark(&mark), format!("with {field} {value}"));
                    }
                }
            }
            "CURRENT" => {
                for value in EXTREMES {
                    let bytes = encode_current(value).into_bytes();
                    cases.push(case(image, file, bytes, format!("naming {value}")));
                }
            }
            _ => {}
        }
    }
    cases
}

/// Checksum of a table's block or footer: bound to table and place.
fn table_crc(table_id: &[u8], offset: usize, parts: [&[u8]; 2]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(table_id);
    hasher.update(&(offset as u64).to_le_bytes());
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().to_le_bytes()
}

/// Blocks and footers of tables.
pub(crate) fn tables(image: &Image<'_>) -> Vec<Case> {
    let mut cases = Vec::new();
    for file in (0..image.files.len()).filter(|&file| image.kind(file) == "table") {
        let old = image.bytes(file);
        let footer_at = old.len() - 80;
        let id = &old[footer_at..footer_at + 8];
        for (start, end) in blocks_of(old) {
            for (at, mut block) in wrong(&old[start..end - 4]) {
                let why = format!("with byte {at} of block {start}..{end} {}", block[at]);
                let crc = table_crc(id, start, [&block, &[]]);
                block.extend(crc);
                cases.push(case(
                    image,
                    file,
                    [&old[..start], &block, &old[end..]].concat(),
                    why,
                ));
            }
        }
        for (at, mut footer) in wrong(&old[footer_at..]).filter(|(at, _)| !(68..72).contains(at)) {
            let (id, why) = (
                footer[..8].to_vec(),
                format!("with footer byte {at} {}", footer[at]),
            );
            let crc = table_crc(&id, footer_at, [&footer[..68], &footer[72..]]);
            footer[68..72].copy_from_slice(&crc);
            cases.push(case(
                image,
                file,
                [&old[..footer_at], &footer].concat(),
                why,
            ));
        }
    }
    cases
}
