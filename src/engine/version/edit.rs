//! `VersionEdit`: what one record of a manifest says (FORMAT.md, manifest).
//!
//! An edit is a list of fields, each a tag and a body. The first record of a manifest is an edit that
//! creates everything; see [`ManifestState::to_edit`](super::ManifestState::to_edit). Decoding accepts
//! exactly the bytes that encoding gives, and answers a reason for all others; whether an edit fits
//! the state it is applied to is not decided here.

use std::time::Duration;

use crate::{
    batch::FamilyId,
    coding::{Reader, put_slice, put_u32, put_u64, put_varint},
    key::{MAX_KEY_LEN, SequenceNumber},
    merge::MergeSetting,
    options::{CfOptions, Compression, LEVELS, MemtableKind},
    table::TableInfo,
    values::{ValueFileRecord, ValueUse},
};

const DB_ID: u64 = 1;
const NEXT_FILE_NUMBER: u64 = 2;
const LAST_SEQ: u64 = 3;
const LOG: u64 = 4;
const NEXT_FAMILY_ID: u64 = 5;
const CREATED: u64 = 6;
const DROPPED: u64 = 7;
const OPTIONS: u64 = 8;
const FLUSHED: u64 = 9;
const REMOVED: u64 = 10;
const ADDED: u64 = 11;

const LARGEST_EXCLUSIVE: u8 = 1;
const HAS_GLOBAL_SEQ: u8 = 2;
const HAS_VALUES: u8 = 4;
const HAS_TIMES: u8 = 8;

/// The log segment a recovery starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogStart {
    /// File number of the oldest segment that holds a write no table has.
    pub(crate) segment: u64,
    /// Log position of its first record.
    pub(crate) base: u64,
}

/// A column family that appears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FamilyCreated {
    pub(crate) id: FamilyId,
    pub(crate) name: String,
    pub(crate) options: CfOptions,
}

/// A table that leaves a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TableRemoved {
    pub(crate) family: FamilyId,
    pub(crate) level: usize,
    pub(crate) number: u64,
}

/// A table that joins a level. A table removed and added in one edit is moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableAdded {
    pub(crate) family: FamilyId,
    pub(crate) level: usize,
    pub(crate) table: TableRecord,
}

/// What a manifest keeps of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableRecord {
    /// Number of its file.
    pub(crate) number: u64,
    /// What its builder said of it.
    pub(crate) info: TableInfo,
    /// Entries kept only for snapshots: a newer entry of the table hides them from all other readers.
    pub(crate) hidden: u64,
    /// Ingested tables: the sequence number that stands for all of its entries' own.
    pub(crate) global_seq: Option<SequenceNumber>,
    /// The value files its entries point into, by number.
    pub(crate) values: Vec<ValueUse>,
}

/// A change of the database's state; fields that are `None` or empty change nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct VersionEdit {
    /// The database's random id; only in the first record of a manifest.
    pub(crate) db_id: Option<u64>,
    /// Above every file number given out.
    pub(crate) next_file_number: Option<u64>,
    /// Not below any sequence number in the tables, or in use when the edit was made.
    pub(crate) last_seq: Option<SequenceNumber>,
    /// Where recovery starts from now on.
    pub(crate) log: Option<LogStart>,
    /// Above every family id given out.
    pub(crate) next_family_id: Option<FamilyId>,
    pub(crate) created: Vec<FamilyCreated>,
    /// Dropped families; all their tables go with them.
    pub(crate) dropped: Vec<FamilyId>,
    /// New options of families.
    pub(crate) options: Vec<(FamilyId, CfOptions)>,
    /// Every write of the family up to the number is in tables.
    pub(crate) flushed: Vec<(FamilyId, SequenceNumber)>,
    pub(crate) removed: Vec<TableRemoved>,
    pub(crate) added: Vec<TableAdded>,
}

impl VersionEdit {
    /// Bytes of the record's payload.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(id) = self.db_id {
            put_varint(&mut out, DB_ID);
            put_u64(&mut out, id);
        }
        if let Some(number) = self.next_file_number {
            put_varints(&mut out, [NEXT_FILE_NUMBER, number]);
        }
        if let Some(seq) = self.last_seq {
            put_varints(&mut out, [LAST_SEQ, seq.0]);
        }
        if let Some(log) = self.log {
            put_varints(&mut out, [LOG, log.segment, log.base]);
        }
        if let Some(id) = self.next_family_id {
            put_varints(&mut out, [NEXT_FAMILY_ID, u64::from(id)]);
        }
        for family in &self.created {
            put_varints(&mut out, [CREATED, u64::from(family.id)]);
            put_slice(&mut out, family.name.as_bytes());
            put_slice(&mut out, &encode_options(&family.options));
        }
        for &id in &self.dropped {
            put_varints(&mut out, [DROPPED, u64::from(id)]);
        }
        for (id, options) in &self.options {
            put_varints(&mut out, [OPTIONS, u64::from(*id)]);
            put_slice(&mut out, &encode_options(options));
        }
        for &(id, seq) in &self.flushed {
            put_varints(&mut out, [FLUSHED, u64::from(id), seq.0]);
        }
        for table in &self.removed {
            let TableRemoved {
                family,
                level,
                number,
            } = *table;
            put_varints(&mut out, [REMOVED, u64::from(family), level as u64, number]);
        }
        for added in &self.added {
            put_varints(
                &mut out,
                [ADDED, u64::from(added.family), added.level as u64],
            );
            added.table.encode_to(&mut out);
        }
        out
    }

    /// The edit that `payload` encodes.
    ///
    /// # Errors
    ///
    /// What is wrong and at which byte of the payload; the caller knows the file.
    pub(crate) fn decode(payload: &[u8]) -> Result<Self, String> {
        let mut edit = Self::default();
        let mut reader = Reader::new(payload);
        let mut last_tag = 0;
        while !reader.is_empty() {
            let at = reader.position();
            let bad = |what: &str| format!("version edit, field at byte {at}: {what}");
            let tag = reader.varint().ok_or_else(|| bad("cut"))?;
            if !(DB_ID..=ADDED).contains(&tag) {
                return Err(bad(&format!("unknown tag {tag}")));
            }
            if tag < last_tag || (tag == last_tag && tag <= NEXT_FAMILY_ID) {
                return Err(bad(&format!("tag {tag} after tag {last_tag}")));
            }
            last_tag = tag;
            edit.decode_field(tag, &mut reader)
                .ok_or_else(|| bad(&format!("tag {tag}: cut, or a value out of range")))?;
        }
        Ok(edit)
    }

    fn decode_field(&mut self, tag: u64, reader: &mut Reader<'_>) -> Option<()> {
        match tag {
            DB_ID => self.db_id = Some(reader.u64()?),
            NEXT_FILE_NUMBER => self.next_file_number = Some(reader.varint()?),
            LAST_SEQ => self.last_seq = Some(seq(reader)?),
            LOG => {
                self.log = Some(LogStart {
                    segment: reader.varint()?,
                    base: reader.varint()?,
                });
            }
            NEXT_FAMILY_ID => self.next_family_id = Some(reader.varint_u32()?),
            CREATED => self.created.push(FamilyCreated {
                id: reader.varint_u32()?,
                name: String::from_utf8(reader.slice()?.to_vec()).ok()?,
                options: decode_options(reader.slice()?)?,
            }),
            DROPPED => self.dropped.push(reader.varint_u32()?),
            OPTIONS => {
                self.options
                    .push((reader.varint_u32()?, decode_options(reader.slice()?)?));
            }
            FLUSHED => self.flushed.push((reader.varint_u32()?, seq(reader)?)),
            REMOVED => self.removed.push(TableRemoved {
                family: reader.varint_u32()?,
                level: level(reader)?,
                number: reader.varint()?,
            }),
            ADDED => self.added.push(TableAdded {
                family: reader.varint_u32()?,
                level: level(reader)?,
                table: TableRecord::decode(reader)?,
            }),
            _ => return None,
        }
        Some(())
    }
}

impl TableRecord {
    fn encode_to(&self, out: &mut Vec<u8>) {
        let info = &self.info;
        put_varint(out, self.number);
        put_u64(out, info.table_id);
        put_varint(out, info.size);
        put_u32(out, info.crc);
        let exclusive = if info.largest_exclusive {
            LARGEST_EXCLUSIVE
        } else {
            0
        };
        let global = if self.global_seq.is_some() {
            HAS_GLOBAL_SEQ
        } else {
            0
        };
        let values = if self.values.is_empty() {
            0
        } else {
            HAS_VALUES
        };
        let times = if info.times.is_some() { HAS_TIMES } else { 0 };
        out.push(exclusive | global | values | times);
        put_slice(out, &info.smallest);
        put_slice(out, &info.largest);
        put_varints(out, [info.entries, info.deletes, info.tombstones]);
        put_varints(out, [info.min_seq.0, info.max_seq.0, self.hidden]);
        if let Some(seq) = self.global_seq {
            put_varint(out, seq.0);
        }
        if let Some((oldest, newest)) = info.times {
            put_varints(out, [oldest, newest]);
        }
        if !self.values.is_empty() {
            put_varint(out, self.values.len() as u64);
        }
        for ValueUse { file, bytes } in &self.values {
            put_varint(out, file.number);
            put_u64(out, file.id);
            put_varint(out, file.size);
            put_u32(out, file.crc);
            put_varint(out, *bytes);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let number = reader.varint()?;
        let table_id = reader.u64()?;
        let size = reader.varint()?;
        let crc = reader.u32()?;
        let flags = reader.u8()?;
        if flags & !(LARGEST_EXCLUSIVE | HAS_GLOBAL_SEQ | HAS_VALUES | HAS_TIMES) != 0 {
            return None;
        }
        let mut info = TableInfo {
            table_id,
            size,
            crc,
            smallest: key(reader)?,
            largest: key(reader)?,
            largest_exclusive: flags & LARGEST_EXCLUSIVE != 0,
            entries: reader.varint()?,
            deletes: reader.varint()?,
            tombstones: reader.varint()?,
            min_seq: seq(reader)?,
            max_seq: seq(reader)?,
            times: None,
        };
        let hidden = reader.varint()?;
        let global_seq = if flags & HAS_GLOBAL_SEQ == 0 {
            None
        } else {
            Some(seq(reader)?)
        };
        if flags & HAS_TIMES != 0 {
            let times = (reader.varint()?, reader.varint()?);
            info.times = Some(times).filter(|(oldest, newest)| oldest <= newest);
            info.times?;
        }
        let values = if flags & HAS_VALUES == 0 {
            Vec::new()
        } else {
            decode_values(reader)?
        };
        let keys_ascend = if info.largest_exclusive {
            info.smallest < info.largest
        } else {
            info.smallest <= info.largest
        };
        let counts_fit =
            info.deletes <= info.entries && hidden <= info.entries && info.min_seq <= info.max_seq;
        (keys_ascend && counts_fit).then_some(Self {
            number,
            info,
            hidden,
            global_seq,
            values,
        })
    }
}

/// What follows `HAS_VALUES`: at least one, by ascending numbers.
fn decode_values(reader: &mut Reader<'_>) -> Option<Vec<ValueUse>> {
    let mut values: Vec<ValueUse> = Vec::new();
    for _ in 0..reader.varint()? {
        let file = ValueFileRecord {
            number: reader.varint()?,
            id: reader.u64()?,
            size: reader.varint()?,
            crc: reader.u32()?,
        };
        let bytes = reader.varint()?;
        let ascends = values
            .last()
            .is_none_or(|last| last.file.number < file.number);
        if !ascends || bytes == 0 || bytes > file.size {
            return None;
        }
        values.push(ValueUse { file, bytes });
    }
    (!values.is_empty()).then_some(values)
}

/// The tag of what only append families have.
const APPEND_PREFIX_BYTES: u64 = 14;
/// The tag of a merge operator's name.
const MERGE_OPERATOR: u64 = 32;
/// The tag of a time to live in milliseconds.
const TTL: u64 = 33;

/// Options of a family as they stand in a manifest: every setting that is stored with its tag, in order of tags.
fn encode_options(options: &CfOptions) -> Vec<u8> {
    let mut out = Vec::new();
    for (tag, value) in (1..).zip(option_values(options)) {
        put_varints(&mut out, [tag, value]);
    }
    if let Some(bytes) = options.append_prefix_bytes {
        put_varints(&mut out, [APPEND_PREFIX_BYTES, bytes as u64]);
    }
    if let Some(merge) = &options.merge_operator {
        put_varint(&mut out, MERGE_OPERATOR);
        put_slice(&mut out, merge.name().as_bytes());
    }
    if let Some(ttl) = options.ttl_millis() {
        put_varints(&mut out, [TTL, ttl]);
    }
    out
}

/// The settings with tags 1, 2, 3 ... that every family has.
fn option_values(options: &CfOptions) -> [u64; 13] {
    let compression = options.compression.iter().rev().fold(0, |bits, &codec| {
        bits << 4
            | match codec {
                Compression::None => 0,
                Compression::Lz4 => 1,
                Compression::Zstd => 2,
            }
    });
    [
        u64::from(options.logged),
        options.write_buffer_bytes as u64,
        options.max_immutable_memtables as u64,
        options.block_bytes as u64,
        options.restart_interval as u64,
        options.filter_bits_per_key as u64,
        compression,
        options.table_bytes,
        options.base_level_bytes,
        options.level_multiplier,
        options.l0_compaction_trigger as u64,
        options.l0_slowdown_trigger as u64,
        options.l0_stop_trigger as u64,
    ]
}

fn decode_options(bytes: &[u8]) -> Option<CfOptions> {
    let mut reader = Reader::new(bytes);
    let mut next = |tag: u64| (reader.varint()? == tag).then(|| reader.varint())?;
    let size = |value: u64| usize::try_from(value).ok();
    let mut options = CfOptions {
        append_prefix_bytes: None,
        merge_operator: None,
        compaction_filter: None,
        ttl: None,
        logged: match next(1)? {
            0 => false,
            1 => true,
            _ => return None,
        },
        write_buffer_bytes: size(next(2)?)?,
        memtable: MemtableKind::default(),
        large_value_bytes: CfOptions::default().large_value_bytes,
        max_immutable_memtables: size(next(3)?)?,
        block_bytes: size(next(4)?)?,
        restart_interval: size(next(5)?)?,
        filter_bits_per_key: size(next(6)?)?,
        compression: decode_compression(next(7)?)?,
        table_bytes: next(8)?,
        base_level_bytes: next(9)?,
        level_multiplier: next(10)?,
        l0_compaction_trigger: size(next(11)?)?,
        l0_slowdown_trigger: size(next(12)?)?,
        l0_stop_trigger: size(next(13)?)?,
    };
    let mut last = 0;
    while !reader.is_empty() {
        let tag = reader.varint().filter(|&tag| tag > last)?;
        last = tag;
        match tag {
            APPEND_PREFIX_BYTES => options.append_prefix_bytes = Some(size(reader.varint()?)?),
            MERGE_OPERATOR => {
                let name = std::str::from_utf8(reader.slice()?).ok()?;
                options.merge_operator = Some(MergeSetting::named(name));
            }
            TTL => options.ttl = Some(Duration::from_millis(reader.varint()?)),
            _ => return None,
        }
    }
    Some(options)
}

fn decode_compression(mut bits: u64) -> Option<[Compression; LEVELS]> {
    let mut levels = [Compression::None; LEVELS];
    for codec in &mut levels {
        *codec = match bits & 0xf {
            0 => Compression::None,
            1 => Compression::Lz4,
            2 => Compression::Zstd,
            _ => return None,
        };
        bits >>= 4;
    }
    (bits == 0).then_some(levels)
}

fn put_varints<const N: usize>(out: &mut Vec<u8>, values: [u64; N]) {
    for value in values {
        put_varint(out, value);
    }
}

fn seq(reader: &mut Reader<'_>) -> Option<SequenceNumber> {
    let seq = SequenceNumber(reader.varint()?);
    (seq <= SequenceNumber::MAX).then_some(seq)
}

fn level(reader: &mut Reader<'_>) -> Option<usize> {
    usize::try_from(reader.varint()?)
        .ok()
        .filter(|&level| level < LEVELS)
}

fn key(reader: &mut Reader<'_>) -> Option<Vec<u8>> {
    reader
        .slice()
        .filter(|key| key.len() <= MAX_KEY_LEN)
        .map(<[u8]>::to_vec)
}

#[cfg(test)]
#[path = "edit_tests.rs"]
mod tests;
