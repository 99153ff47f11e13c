//! Seams for the tests of the format: the payload of a manifest's record, and back.
//!
//! Hidden from the documentation and no promise to anyone; the engine does not use them.

use super::{FamilyCreated, LogStart, TableAdded, TableRecord, TableRemoved, VersionEdit};
use crate::{
    key::SequenceNumber,
    options::CfOptions,
    table::TableInfo,
    values::{ValueFileRecord, ValueUse},
};

/// Fields of a version edit, in the order of their tags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edit {
    /// The database's random id.
    pub db_id: Option<u64>,
    /// Next file number.
    pub next_file_number: Option<u64>,
    /// Last sequence number.
    pub last_seq: Option<u64>,
    /// Oldest log segment needed, and the log position of its first record.
    pub log: Option<(u64, u64)>,
    /// Next family id.
    pub next_family_id: Option<u32>,
    /// Families created: id, name, options.
    pub created: Vec<(u32, String, CfOptions)>,
    /// Families dropped.
    pub dropped: Vec<u32>,
    /// Options changed: id, options.
    pub options: Vec<(u32, CfOptions)>,
    /// Families flushed: id, sequence number.
    pub flushed: Vec<(u32, u64)>,
    /// Tables removed: family, level, number.
    pub removed: Vec<(u32, usize, u64)>,
    /// Tables added: family, level, table.
    pub added: Vec<(u32, usize, TableFields)>,
}

/// Fields of a table in a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableFields {
    /// Number of the file.
    pub number: u64,
    /// Table id.
    pub table_id: u64,
    /// Bytes of the file.
    pub size: u64,
    /// CRC of the whole file.
    pub crc: u32,
    /// Smallest user key.
    pub smallest: Vec<u8>,
    /// Largest user key.
    pub largest: Vec<u8>,
    /// True where `largest` is the end of a range tombstone.
    pub largest_exclusive: bool,
    /// Entries, deletes among them, range tombstones.
    pub counts: [u64; 3],
    /// Smallest and largest sequence number stored.
    pub seqs: [u64; 2],
    /// Entries kept only for snapshots.
    pub hidden: u64,
    /// The sequence number that stands for all stored ones.
    pub global_seq: Option<u64>,
    /// Value files: number, id, size, CRC of each, and the bytes the table needs of it.
    pub values: Vec<(u64, u64, u64, u32, u64)>,
    /// Smallest and largest time behind a value.
    pub times: Option<(u64, u64)>,
}

impl From<&TableFields> for TableRecord {
    fn from(fields: &TableFields) -> Self {
        let [entries, deletes, tombstones] = fields.counts;
        let [min_seq, max_seq] = fields.seqs.map(SequenceNumber);
        Self {
            number: fields.number,
            info: TableInfo {
                table_id: fields.table_id,
                size: fields.size,
                crc: fields.crc,
                smallest: fields.smallest.clone(),
                largest: fields.largest.clone(),
                largest_exclusive: fields.largest_exclusive,
                entries,
                deletes,
                tombstones,
                min_seq,
                max_seq,
                times: fields.times,
            },
            hidden: fields.hidden,
            global_seq: fields.global_seq.map(SequenceNumber),
            values: (fields.values.iter())
                .map(|&(number, id, size, crc, bytes)| ValueUse {
                    file: ValueFileRecord {
                        number,
                        id,
                        size,
                        crc,
                    },
                    bytes,
                })
                .collect(),
        }
    }
}

impl From<TableRecord> for TableFields {
    fn from(record: TableRecord) -> Self {
        let TableRecord {
            number,
            info,
            hidden,
            global_seq,
            values,
        } = record;
        Self {
            number,
            table_id: info.table_id,
            size: info.size,
            crc: info.crc,
            smallest: info.smallest,
            largest: info.largest,
            largest_exclusive: info.largest_exclusive,
            counts: [info.entries, info.deletes, info.tombstones],
            seqs: [info.min_seq.0, info.max_seq.0],
            hidden,
            global_seq: global_seq.map(|seq| seq.0),
            values: (values.iter())
                .map(|used| {
                    let file = used.file;
                    (file.number, file.id, file.size, file.crc, used.bytes)
                })
                .collect(),
            times: info.times,
        }
    }
}

/// Encodes a version edit.
#[must_use]
pub fn encode_edit(edit: &Edit) -> Vec<u8> {
    let log = |(segment, base)| LogStart { segment, base };
    let created = edit
        .created
        .iter()
        .map(|(id, name, options)| FamilyCreated {
            id: *id,
            name: name.clone(),
            options: options.clone(),
        });
    let removed = edit
        .removed
        .iter()
        .map(|&(family, level, number)| TableRemoved {
            family,
            level,
            number,
        });
    let added = edit.added.iter().map(|(family, level, table)| TableAdded {
        family: *family,
        level: *level,
        table: table.into(),
    });
    let flushed = edit.flushed.iter();
    VersionEdit {
        db_id: edit.db_id,
        next_file_number: edit.next_file_number,
        last_seq: edit.last_seq.map(SequenceNumber),
        log: edit.log.map(log),
        next_family_id: edit.next_family_id,
        created: created.collect(),
        dropped: edit.dropped.clone(),
        options: edit.options.clone(),
        flushed: flushed
            .map(|&(id, seq)| (id, SequenceNumber(seq)))
            .collect(),
        removed: removed.collect(),
        added: added.collect(),
    }
    .encode()
}

/// Decodes a version edit.
#[must_use]
pub fn decode_edit(payload: &[u8]) -> Option<Edit> {
    let edit = VersionEdit::decode(payload).ok()?;
    let created = edit.created.into_iter();
    let flushed = edit.flushed.into_iter();
    let removed = edit.removed.into_iter();
    let added = edit.added.into_iter();
    Some(Edit {
        db_id: edit.db_id,
        next_file_number: edit.next_file_number,
        last_seq: edit.last_seq.map(|seq| seq.0),
        log: edit.log.map(|log| (log.segment, log.base)),
        next_family_id: edit.next_family_id,
        created: created
            .map(|family| (family.id, family.name, family.options))
            .collect(),
        dropped: edit.dropped,
        options: edit.options,
        flushed: flushed.map(|(id, seq)| (id, seq.0)).collect(),
        removed: removed
            .map(|table| (table.family, table.level, table.number))
            .collect(),
        added: added
            .map(|added| (added.family, added.level, added.table.into()))
            .collect(),
    })
}
