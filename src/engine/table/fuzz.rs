//! Bodies of the fuzz targets of tables: any bytes for each decoder, and whole tables made of them under right
//! checksums.
//!
//! Hidden from the documentation and no promise to anyone; the engine does not use them. What they demand beside that
//! nothing panics: a structure that is taken is spelled in one way, and a table that [`Table::verify`] finds whole is
//! read alike in both directions and by key.

use std::{path::Path, sync::Arc};

use super::{
    Table, TableIdentity,
    block::{BlockView, Bucket, Place},
    filter::FilterShape,
    format::{
        BlockHandle, FOOTER_LEN, Footer, LZ4, Properties, RAW, decode_tombstones, decompress,
        encode_tombstones, seal_block,
    },
    index::{Index, IndexBuilder},
    key_hash,
};
use crate::{
    cache::BlockCache,
    coding::{Reader, put_u32, put_varint},
    error::Result,
    fs::{Fs, ReadMode, SimFs},
    iter::InternalIterator,
    key::{InternalKey, SequenceNumber},
    table::{SeqRule, file_crc},
    values::testing as values,
};

/// The id of the tables made here.
const TABLE_ID: u64 = 0x1122_3344_5566_7788;

/// A data block, walked and searched.
pub(crate) fn block(data: &[u8]) -> bool {
    let Some((&key_len, data)) = data.split_first() else {
        return false;
    };
    let (key, data) = data.split_at(data.len().min(usize::from(key_len)));
    let Ok(view) = BlockView::parse(data) else {
        return false;
    };
    let rule = SeqRule::new(None);
    let target = InternalKey {
        user_key: key,
        trailer: 7 << 8 | 1,
    };
    let mut well = true;
    for index in 0..view.restarts().min(1000) {
        well &= view.find_from(index, target, rule).is_ok();
        let place = view.restart(index);
        well &= view.restart_below(place).is_ok() || index == 0;
    }
    well &= view.restart_before(target, rule).is_ok();
    well &= view
        .restart_below(Place {
            key: usize::MAX,
            value: 0,
        })
        .is_ok();
    if let Bucket::At(index) = view.bucket(key_hash(key)) {
        assert!(index < view.restarts(), "a bucket names a restart point");
    }
    well
}

/// An index block, each entry of it, and a search.
pub(crate) fn index(data: &[u8]) -> bool {
    let Ok(index) = Index::parse(data) else {
        return false;
    };
    let rule = SeqRule::new(None);
    let mut at = 0;
    for ordinal in 0..index.count() {
        let entry = index
            .entry(data, ordinal)
            .expect("an index that was checked");
        assert_eq!(entry.handle.offset, at, "blocks stand back to back");
        assert_eq!(index.handle(ordinal), entry.handle);
        at = entry.handle.end().expect("within 64 bits");
        let found = index.find(data, entry.separator, rule);
        assert_eq!(found, Ok(Some(ordinal)), "a separator finds its block");
    }
    assert_eq!(index.data_end(), at);
    true
}

/// A filter block, asked for keys.
pub(crate) fn filter(data: &[u8]) -> bool {
    let Some((&offset, data)) = data.split_first() else {
        return false;
    };
    let Ok(shape) = FilterShape::parse(data, u64::from(offset)) else {
        return false;
    };
    for key in data.chunks(3).take(64) {
        shape.may_contain(data, key_hash(key));
    }
    true
}

/// A properties block.
pub(crate) fn properties(data: &[u8]) -> bool {
    let Ok(properties) = Properties::decode(data) else {
        return false;
    };
    assert_eq!(properties.encode(), data, "one spelling");
    true
}

/// A block of range tombstones.
pub(crate) fn tombstones(data: &[u8]) -> bool {
    let Ok((all, stored)) = decode_tombstones(data, None) else {
        return false;
    };
    assert_eq!(all.all().count() as u64, stored);
    assert_eq!(encode_tombstones(&all), data, "one spelling");
    let (one, again) = decode_tombstones(data, Some(SequenceNumber(9))).expect("it was taken");
    assert!(again == stored && one.all().all(|tombstone| tombstone.seq.0 == 9));
    true
}

/// A footer, under a right checksum.
pub(crate) fn footer(data: &[u8]) -> bool {
    let mut reader = Reader::new(data);
    let mut handle = || {
        Some(BlockHandle {
            offset: reader.u64()?,
            len: reader.u32()?,
        })
    };
    let (Some(index), Some(filter), Some(tombstones), Some(properties)) =
        (handle(), handle(), handle(), handle())
    else {
        return false;
    };
    let data_end = reader.u64().unwrap_or(0);
    let end = reader.u64().unwrap_or(0);
    let offset = reader.u64().unwrap_or(0);
    let optional = |handle: BlockHandle| Some(handle).filter(|handle| handle.len > 0);
    let footer = Footer {
        table_id: reader.u64().unwrap_or(0),
        index,
        filter: optional(filter),
        tombstones: optional(tombstones),
        properties,
    };
    let bytes = footer.encode(offset);
    assert_eq!(Footer::decode(&bytes, offset).as_ref(), Ok(&footer));
    let mut other = bytes;
    if let (Some(&at), Some(&mask)) = (data.first(), data.get(1))
        && mask != 0
    {
        other[usize::from(at) % FOOTER_LEN] ^= mask;
        assert!(Footer::decode(&other, offset).is_err(), "a flip is seen");
    }
    footer.check_tiling(data_end, end).is_ok()
}

/// A block stored with LZ4.
pub(crate) fn lz4(data: &[u8]) -> bool {
    decompress(LZ4, data).is_ok()
}

/// A whole table, its blocks made of the bytes, its footer and all checksums right.
pub(crate) fn table(data: &[u8]) -> bool {
    let mut reader = Reader::new(data);
    let Some(file) = make(&mut reader) else {
        return false;
    };
    let mode = if data.len().is_multiple_of(2) {
        ReadMode::Mapped
    } else {
        ReadMode::Pread
    };
    let global = data.first().is_some_and(|first| first & 0x80 != 0);
    read(&file, mode, global.then_some(SequenceNumber(1 << 40))).is_ok_and(|whole| whole)
}

/// The next piece of the bytes: as long as its first two bytes say, or as there is.
fn piece<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let len = usize::from(reader.u8()?) | usize::from(reader.u8()?) << 8;
    reader.bytes(len.min(reader.rest().len()))
}

/// A table of which each block is taken from the bytes, or made from fields in them.
fn make(reader: &mut Reader<'_>) -> Option<Vec<u8>> {
    let shape = reader.u8()?;
    let mut file = Vec::new();
    let mut index = IndexBuilder::default();
    let put = |file: &mut Vec<u8>, bytes: &[u8], kind: u8| {
        let offset = file.len() as u64;
        file.extend_from_slice(bytes);
        let start = file.len() - bytes.len();
        seal_block(file, start, TABLE_ID, offset, kind);
        let len = u32::try_from(bytes.len()).expect("a small piece");
        BlockHandle { offset, len }
    };
    let blocks = shape & 3;
    for _ in 0..blocks {
        let flags = reader.u8()?;
        let kind = if flags & 1 == 0 { RAW } else { LZ4 };
        let block = piece(reader)?;
        let handle = put(&mut file, block, kind);
        let separator = InternalKey {
            user_key: piece(reader)?,
            trailer: if flags & 2 == 0 { 0 } else { reader.u64()? },
        };
        index.add(separator, handle);
    }
    let optional = |file: &mut Vec<u8>, reader: &mut Reader<'_>, bit: u8| {
        if shape & bit == 0 {
            return Some(None);
        }
        let bytes = piece(reader)?;
        Some(Some(put(file, bytes, RAW)).filter(|handle| handle.len > 0))
    };
    let tombstones = optional(&mut file, reader, 4)?;
    let filter = optional(&mut file, reader, 8)?;
    let index = if shape & 16 == 0 {
        index.finish()
    } else {
        piece(reader)?.to_vec()
    };
    let index = put(&mut file, &index, RAW);
    let properties = if shape & 32 == 0 {
        let mut number = || reader.varint();
        Properties {
            data_blocks: u64::from(blocks),
            entries: number()?,
            deletes: number()?,
            tombstones: number()?,
            min_seq: SequenceNumber(number()?),
            max_seq: SequenceNumber(number()?),
            largest_exclusive: reader.u8()? & 1 == 1,
            smallest: piece(reader)?.to_vec(),
            largest: piece(reader)?.to_vec(),
            zstd: false,
            times: None,
        }
        .encode()
    } else {
        piece(reader)?.to_vec()
    };
    let properties = put(&mut file, &properties, RAW);
    let footer = Footer {
        table_id: TABLE_ID,
        index,
        filter,
        tombstones,
        properties,
    };
    let footer = footer.encode(file.len() as u64);
    file.extend_from_slice(&footer);
    Some(file)
}

/// A value file of one record under a right checksum: the first byte says whether it is compressed.
pub(crate) fn value_file(data: &[u8]) -> bool {
    let Some((&kind, stored)) = data.split_first() else {
        return false;
    };
    let kind = if kind & 1 == 0 { RAW } else { LZ4 };
    let (mut file, _) = values::file(TABLE_ID, &[]);
    let start = file.len();
    file.extend_from_slice(stored);
    let crc = seal_block(&mut file, start, TABLE_ID, start as u64, kind);
    let len = match kind {
        RAW => stored.len() as u64,
        _ => Reader::new(stored).u32().map_or(0, u64::from),
    };
    let pointer = |crc| {
        let mut bytes = Vec::new();
        for number in [8, start as u64, (file.len() - start) as u64, len] {
            put_varint(&mut bytes, number);
        }
        put_u32(&mut bytes, crc);
        bytes
    };
    let Some(value) = values::read(TABLE_ID, &file, &pointer(crc)) else {
        return false;
    };
    assert_eq!(value.len() as u64, len);
    let other = values::read(TABLE_ID, &file, &pointer(!crc));
    assert!(other.is_none(), "a pointer to another record");
    true
}

/// Opens a table and uses it in every way; true where it is whole.
fn read(bytes: &[u8], mode: ReadMode, global_seq: Option<SequenceNumber>) -> Result<bool> {
    let path = Path::new("/t.sst");
    let fs = SimFs::new();
    fs.write_raw(path, bytes).expect("an empty disk");
    let file = fs.open(path, mode).expect("it is there");
    let identity = TableIdentity::read(&*file, path)?;
    let crc = file_crc(&*file, path)?;
    let cache = BlockCache::with_pins(1 << 16, 1 << 16);
    let table = Arc::new(Table::open(file, path, 1, &identity, global_seq, cache)?);
    let whole = table.verify(crc).is_ok();

    let mut forward = Vec::new();
    let walked = walk(&table, &mut forward, true);
    let mut backward = Vec::new();
    let back = walk(&table, &mut backward, false);
    backward.reverse();
    if whole {
        walked.expect("a whole table");
        back.expect("a whole table");
        assert!(forward == backward, "a whole table reads alike both ways");
        assert_eq!(forward.len() as u64, table.info(crc).entries);
    }
    for (user_key, trailer, value) in forward.iter().take(100) {
        let key = InternalKey {
            user_key,
            trailer: *trailer,
        };
        let got = table.get(key, key_hash(user_key));
        let mut iter = table.iter();
        let sought = iter.seek(key);
        if whole {
            let (found, there) = got.expect("a whole table").expect("its own key");
            // Under one number for all, the first of the versions of a key is found.
            assert!(
                global_seq.is_some() || (found == *trailer && *there == value[..]),
                "a get of {user_key:?} finds what a scan shows"
            );
            sought.expect("a whole table");
            assert!(iter.valid() && iter.key().user_key == user_key);
        }
    }
    for (start, key) in [(false, &b"k"[..]), (true, b""), (true, &[0xff; 9])] {
        let key = InternalKey::seek_to(key, SequenceNumber(if start { 9 } else { 1 << 50 }));
        let _ = table.get(key, key_hash(key.user_key));
        let mut iter = table.iter();
        if iter.seek_for_prev(key).is_ok() && iter.valid() {
            let _ = iter.next();
        }
    }
    Ok(whole)
}

/// Most steps of a walk: no small file has more entries.
const MOST: usize = 1 << 17;

type Row = (Vec<u8>, u64, Vec<u8>);

fn walk(table: &Arc<Table>, rows: &mut Vec<Row>, forward: bool) -> Result<()> {
    let mut iter = table.iter();
    if forward {
        iter.seek_to_first()?;
    } else {
        iter.seek_to_last()?;
    }
    while iter.valid() {
        let key = iter.key();
        assert!(rows.len() < MOST, "a walk without an end");
        if rows.len() < 1000 {
            rows.push((
                key.user_key.to_vec(),
                key.trailer,
                iter.value()[..iter.value().len().min(64)].to_vec(),
            ));
        }
        if forward {
            iter.next()?;
        } else {
            iter.prev()?;
        }
    }
    Ok(())
}
