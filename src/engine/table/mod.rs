//! Sorted tables: immutable files of entries in internal-key order (FORMAT.md, table).
//!
//! Written once by [`TableBuilder`], read through [`Table`] by point lookup and [`TableIter`]. Every
//! byte is under a checksum bound to the table's random id and the byte's place; whatever does not fit is
//! [`crate::Error::Corruption`] with the offset of the block, never a panic and never a wrong row.
//!
//! Not here: which tables there are (`version`), and names of files.

mod block;
mod block_builder;
mod block_file;
mod builder;
mod describe;
mod filter;
mod format;
pub(crate) mod fuzz;
mod held;
mod index;
mod iter;
mod open;
mod reader;
mod salvage;
#[cfg(test)]
mod test_files;
pub mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_damage;
mod verify;
mod zstd_block;

pub(crate) use block_file::BlockFile;
pub(crate) use builder::TableBuilder;
pub(crate) use describe::{Described, describe};
pub(crate) use format::{RAW, check_block, decompress};
pub(crate) use iter::TableIter;
pub(crate) use reader::Table;
pub(crate) use salvage::{find_block, salvage, walk};
pub(crate) use verify::file_crc;

use crate::key::SequenceNumber;

/// What a table holds, as its builder saw it and the manifest keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableInfo {
    /// Random number that binds the checksums to this table.
    pub(crate) table_id: u64,
    /// Length of the file in bytes.
    pub(crate) size: u64,
    /// CRC of the whole file.
    pub(crate) crc: u32,
    /// Smallest user key of an entry or a range tombstone.
    pub(crate) smallest: Vec<u8>,
    /// Largest user key of an entry, or the end of a range tombstone where that is larger.
    pub(crate) largest: Vec<u8>,
    /// True where `largest` is the end of a range tombstone, which is no key of the table.
    pub(crate) largest_exclusive: bool,
    /// Entries in data blocks.
    pub(crate) entries: u64,
    /// Entries that are deletes.
    pub(crate) deletes: u64,
    /// Range tombstones: one for each fragment and sequence number.
    pub(crate) tombstones: u64,
    /// Smallest sequence number of an entry or a range tombstone, as stored.
    pub(crate) min_seq: SequenceNumber,
    /// Largest sequence number of an entry or a range tombstone, as stored.
    pub(crate) max_seq: SequenceNumber,
    /// Smallest and largest time behind a value, of a table with values of a family with a time to live.
    pub(crate) times: Option<(u64, u64)>,
}

/// What the owner of a table knows about its file before it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TableIdentity {
    /// Random number that binds the checksums to this table.
    pub(crate) table_id: u64,
    /// Length of the file in bytes.
    pub(crate) size: u64,
}

/// Hash of a user key: computed once for each lookup, used by the filters and blocks of all tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyHash(u64);

impl KeyHash {
    /// The half that picks the line of a filter.
    fn high(self) -> u32 {
        u32::try_from(self.0 >> 32).expect("32 bits are left")
    }

    /// The half that picks the bits in a line, and the bucket in a block.
    fn low(self) -> u32 {
        u32::try_from(self.0 & 0xffff_ffff).expect("32 bits are left")
    }
}

/// The hash of a user key. It is part of the format.
pub(crate) fn key_hash(user_key: &[u8]) -> KeyHash {
    KeyHash(xxhash_rust::xxh3::xxh3_64(user_key))
}

/// Maps a hash evenly to `0..n` without a division.
fn scale(hash: u32, n: u32) -> usize {
    usize::try_from((u64::from(hash) * u64::from(n)) >> 32).expect("smaller than n")
}

/// Sequence numbers of a table as readers see them: as stored, or one for all of an ingested table.
#[derive(Clone, Copy, Debug)]
struct SeqRule {
    keep: u64,
    set: u64,
}

impl SeqRule {
    fn new(global_seq: Option<SequenceNumber>) -> Self {
        match global_seq {
            None => Self {
                keep: u64::MAX,
                set: 0,
            },
            Some(seq) => Self {
                keep: 0xff,
                set: seq.0 << 8,
            },
        }
    }

    /// The trailer readers see for a stored one.
    fn apply(self, trailer: u64) -> u64 {
        trailer & self.keep | self.set
    }
}
