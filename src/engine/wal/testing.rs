//! Seams for the tests of the format: the bytes of each structure of the log, and back.
//!
//! Hidden from the documentation and no promise to anyone; the engine does not use them.

use super::{
    current, mark, record,
    segment::{SegmentHeader, SegmentKind},
};
use crate::{faults::Faults, key::SequenceNumber};

/// Fields of a segment's header: database, number, base, previous, synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// True: of a manifest; false: of a log segment.
    pub manifest: bool,
    /// The database's random id.
    pub db: u64,
    /// Number of the file.
    pub number: u64,
    /// Log position of the first record.
    pub base: u64,
    /// Number of the segment before.
    pub previous: u64,
    /// Log position known durable.
    pub synced: u64,
}

/// A record and the place it is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// True: a version edit; false: a write batch.
    pub edit: bool,
    /// `sync: true` was asked for.
    pub sync: bool,
    /// Position known durable.
    pub synced: u64,
    /// Sequence number of the first operation.
    pub seq: u64,
    /// The payload.
    pub payload: &'a [u8],
}

/// Fields of a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The database's random id.
    pub db: u64,
    /// A sync failed.
    pub sync_failed: bool,
    /// Number of the log segment.
    pub segment: u64,
    /// Log position known durable.
    pub position: u64,
    /// Last acknowledged synced sequence number.
    pub seq: u64,
    /// Number of the manifest.
    pub manifest: u64,
    /// Bytes of it known durable.
    pub manifest_offset: u64,
}

/// Encodes a segment's or manifest's header.
#[must_use]
pub fn encode_header(header: &Header) -> Vec<u8> {
    let Header {
        manifest,
        db,
        number,
        base,
        previous,
        synced,
    } = *header;
    let kind = if manifest {
        SegmentKind::Manifest
    } else {
        SegmentKind::Log
    };
    SegmentHeader {
        db,
        number,
        base,
        previous,
        synced,
    }
    .encode(kind)
    .to_vec()
}

/// Decodes a segment's or manifest's header.
#[must_use]
pub fn decode_header(bytes: &[u8], manifest: bool) -> Option<Header> {
    let kind = if manifest {
        SegmentKind::Manifest
    } else {
        SegmentKind::Log
    };
    let SegmentHeader {
        db,
        number,
        base,
        previous,
        synced,
    } = SegmentHeader::decode(bytes, kind).ok()?;
    Some(Header {
        manifest,
        db,
        number,
        base,
        previous,
        synced,
    })
}

/// Encodes a record that stands at `offset` of file `number` of database `db`.
///
/// # Panics
/// When `seq` has more than 56 bits or the payload 4 GiB.
#[must_use]
pub fn encode_record(db: u64, number: u64, offset: u64, record: &Record<'_>) -> Vec<u8> {
    let file = record::FileSeed::new(db, number, Faults::default());
    let Record {
        edit,
        sync,
        synced,
        seq,
        payload,
    } = *record;
    let kind = if edit {
        record::RecordKind::Edit
    } else {
        record::RecordKind::Batch
    };
    let mut out = Vec::new();
    let seq = SequenceNumber(seq);
    record::encode_record(&mut out, file, offset, kind, sync, synced, seq, payload);
    out
}

/// Decodes the record at `offset` of the bytes of file `number` of database `db`.
#[must_use]
pub fn decode_record(db: u64, number: u64, offset: usize, file: &[u8]) -> Option<Record<'_>> {
    let seed = record::FileSeed::new(db, number, Faults::default());
    let record::Record {
        header, payload, ..
    } = record::decode_at(file, offset, seed).ok()?;
    Some(Record {
        edit: header.kind == record::RecordKind::Edit,
        sync: header.sync,
        synced: header.synced,
        seq: header.seq.0,
        payload,
    })
}

/// Encodes a mark.
#[must_use]
pub fn encode_mark(mark: &Mark) -> Vec<u8> {
    let Mark {
        db,
        sync_failed,
        segment,
        position,
        seq,
        manifest,
        manifest_offset,
    } = *mark;
    let seq = SequenceNumber(seq);
    mark::Mark {
        db,
        sync_failed,
        segment,
        position,
        seq,
        manifest,
        manifest_offset,
    }
    .encode()
    .to_vec()
}

/// Decodes a mark.
#[must_use]
pub fn decode_mark(bytes: &[u8]) -> Option<Mark> {
    let mark::Mark {
        db,
        sync_failed,
        segment,
        position,
        seq,
        manifest,
        manifest_offset,
    } = mark::Mark::decode(bytes)?;
    Some(Mark {
        db,
        sync_failed,
        segment,
        position,
        seq: seq.0,
        manifest,
        manifest_offset,
    })
}

/// The text of `CURRENT` for manifest `number`.
#[must_use]
pub fn encode_current(number: u64) -> String {
    current::encode(number)
}

/// The manifest that a text of `CURRENT` names.
#[must_use]
pub fn decode_current(text: &[u8]) -> Option<u64> {
    current::decode(text)
}
