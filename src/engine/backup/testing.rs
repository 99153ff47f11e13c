//! Seams for the tests of the format: the bytes of a `BACKUP-` file, and back. No promise to anyone.

use super::record::{BackupRecord, CopiedSegment};

/// Fields of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number.
    pub id: u64,
    /// Seconds since 1970.
    pub time: u64,
    /// The caller's words.
    pub description: String,
    /// The database's random id.
    pub db: u64,
    /// Last sequence number.
    pub seq: u64,
    /// Log position behind the last record.
    pub end: u64,
    /// Bytes copied for it.
    pub new_bytes: u64,
    /// Number of the manifest.
    pub manifest_number: u64,
    /// Bytes of the manifest.
    pub manifest: Vec<u8>,
    /// Number, base, length and hash of each log segment.
    pub segments: Vec<(u64, u64, u64, u128)>,
}

/// Bytes of the file.
#[must_use]
pub fn encode(record: &Record) -> Vec<u8> {
    let segments = record.segments.iter();
    let record = record.clone();
    BackupRecord {
        id: record.id,
        time: record.time,
        description: record.description,
        db: record.db,
        seq: record.seq,
        end: record.end,
        new_bytes: record.new_bytes,
        manifest_number: record.manifest_number,
        manifest: record.manifest,
        segments: segments
            .map(|&(number, base, len, hash)| CopiedSegment {
                number,
                base,
                len,
                hash,
            })
            .collect(),
    }
    .encode()
}

/// The fields in a file's bytes; `None` where they are not those of a backup.
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<Record> {
    let record = BackupRecord::decode(bytes, "BACKUP".as_ref()).ok()?;
    let segments = record.segments.iter();
    let segments = segments.map(|s| (s.number, s.base, s.len, s.hash));
    Some(Record {
        id: record.id,
        time: record.time,
        description: record.description.clone(),
        db: record.db,
        seq: record.seq,
        end: record.end,
        new_bytes: record.new_bytes,
        manifest_number: record.manifest_number,
        segments: segments.collect(),
        manifest: record.manifest,
    })
}

/// Whether the manifest in a file's bytes, and what it lists, can be read.
#[must_use]
pub fn has_state(bytes: &[u8]) -> bool {
    let path = "BACKUP".as_ref();
    BackupRecord::decode(bytes, path).is_ok_and(|record| record.state(path).is_ok())
}
