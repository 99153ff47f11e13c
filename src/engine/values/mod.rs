//! Large values beside the tables: value files, and the pointers to them that tables hold in their place.
//!
//! A flush or a compaction that writes an entry whose value is larger than `CfOptions::large_value_bytes` appends the
//! value to a value file and puts a pointer into the table. Later compactions move the pointer and leave the value where
//! it lies, so that a large value is written twice in all: to the log, and here (WiscKey, FAST 2016; RocksDB's BlobDB).
//!
//! - What a table's entries point to is in the manifest's record of the table: each value file with the bytes of
//!   it that this table needs. A value file lives as long as a table that needs it ([`ValueFile`]).
//! - What no table of a version needs is garbage. A compaction that meets a pointer into a file that is more than half
//!   garbage writes the value anew ([`crowded`]), and the picker gives such files' tables a compaction of their own.
//! - Memtables and the log hold values whole, as do tables that are ingested: those are separated when they are compacted.

mod file;
mod salvage;
pub mod testing;
mod writer;

pub(crate) use file::{HEADER_LEN as FILE_HEADER_LEN, Place, ValueFile, ValueFiles, id_of};
pub(crate) use salvage::salvage_value;
pub(crate) use writer::ValueWriter;

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    coding::{Reader, put_u32, put_varint},
    version::{ManifestState, Version},
};

/// Bytes after which a job goes on in another value file.
pub(crate) const VALUE_FILE_BYTES: u64 = 256 << 20;

/// What an entry of kind `Pointer` holds in place of its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ValuePointer {
    /// Number of the value file.
    pub(crate) file: u64,
    /// Where the record begins.
    pub(crate) offset: u64,
    /// Bytes of the record with its trailer.
    pub(crate) stored: u32,
    /// Bytes of the value.
    pub(crate) len: u32,
    /// The record's checksum: a pointer fits one record only.
    pub(crate) crc: u32,
}

impl ValuePointer {
    /// Appends the encoded form to `out`.
    pub(crate) fn encode_to(self, out: &mut Vec<u8>) {
        put_varint(out, self.file);
        put_varint(out, self.offset);
        put_varint(out, u64::from(self.stored));
        put_varint(out, u64::from(self.len));
        put_u32(out, self.crc);
    }

    /// Bytes of the value.
    pub(crate) fn value_len(self) -> usize {
        usize::try_from(self.len).unwrap_or(usize::MAX)
    }

    /// The pointer that `bytes` are; `None` for any other bytes.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let pointer = Self {
            file: reader.varint()?,
            offset: reader.varint()?,
            stored: reader.varint_u32()?,
            len: reader.varint_u32()?,
            crc: reader.u32()?,
        };
        reader.is_empty().then_some(pointer)
    }
}

/// A finished value file, as the manifest keeps it with each table that needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ValueFileRecord {
    /// Number of the file.
    pub(crate) number: u64,
    /// Random number that binds the checksums to this file.
    pub(crate) id: u64,
    /// Length in bytes.
    pub(crate) size: u64,
    /// CRC of the whole file.
    pub(crate) crc: u32,
}

impl ValueFileRecord {
    /// Bytes of its records.
    pub(crate) fn records(&self) -> u64 {
        self.size.saturating_sub(file::HEADER_LEN as u64)
    }
}

/// A value file, and the bytes of its records that one table's entries point to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ValueUse {
    pub(crate) file: ValueFileRecord,
    pub(crate) bytes: u64,
}

/// The value files of a version: each with the bytes that its tables need.
pub(crate) fn live_bytes(version: &Version) -> BTreeMap<u64, (Arc<ValueFile>, u64)> {
    let mut live = BTreeMap::new();
    for (_, table) in version.tables() {
        for (file, bytes) in &table.values {
            let (_, sum) = live
                .entry(file.record.number)
                .or_insert_with(|| (Arc::clone(file), 0_u64));
            *sum = sum.saturating_add(*bytes);
        }
    }
    live
}

/// The value files that the tables of `state` need, by number.
pub(crate) fn needed_by(state: &ManifestState) -> BTreeMap<u64, Arc<ValueFile>> {
    let tables = state
        .families()
        .flat_map(|(_, family)| family.version.tables());
    let files = tables.flat_map(|(_, table)| &table.values);
    files
        .map(|(file, _)| (file.record.number, Arc::clone(file)))
        .collect()
}

/// The value files of a version that are more than half garbage, with the garbage in bytes: what a compaction meets of
/// them it writes anew.
pub(crate) fn crowded(version: &Version) -> BTreeMap<u64, u64> {
    let live = live_bytes(version);
    let garbage = live.into_iter().map(|(number, (file, live))| {
        let records = file.record.records();
        (number, records, records.saturating_sub(live))
    });
    garbage
        .filter(|&(_, records, garbage)| garbage > records / 2)
        .map(|(number, _, garbage)| (number, garbage))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_comes_back_and_any_other_bytes_are_refused() {
        let pointer = ValuePointer {
            file: 300,
            offset: 1 << 33,
            stored: 5000,
            len: 70_000,
            crc: 0xdead_beef,
        };
        let mut bytes = Vec::new();
        pointer.encode_to(&mut bytes);
        assert_eq!(ValuePointer::decode(&bytes), Some(pointer));
        for cut in 0..bytes.len() {
            assert_eq!(ValuePointer::decode(&bytes[..cut]), None, "{cut} bytes");
        }
        bytes.push(0);
        assert_eq!(ValuePointer::decode(&bytes), None, "a byte too many");
    }
}
