//! Sorted tables: what one holds. (Builder and reader are to be written.)

use crate::key::SequenceNumber;

/// What is known of a finished table; the manifest keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableInfo {
    /// Random; binds every block of the file to it.
    pub(crate) table_id: u64,
    /// Bytes of the file.
    pub(crate) size: u64,
    /// Checksum of the whole file.
    pub(crate) crc: u32,
    /// Smallest user key of its entries and range tombstones.
    pub(crate) smallest: Vec<u8>,
    /// Largest user key of its entries, or the end of a range tombstone.
    pub(crate) largest: Vec<u8>,
    /// True where `largest` is the end of a range tombstone and not itself in the table.
    pub(crate) largest_exclusive: bool,
    /// Entries, deletes included, range tombstones not.
    pub(crate) entries: u64,
    /// Deletes among the entries.
    pub(crate) deletes: u64,
    /// Range tombstones.
    pub(crate) tombstones: u64,
    /// Smallest sequence number in it.
    pub(crate) min_seq: SequenceNumber,
    /// Largest sequence number in it.
    pub(crate) max_seq: SequenceNumber,
}

/// An open table (to be written).
#[derive(Debug)]
pub(crate) struct Table;
