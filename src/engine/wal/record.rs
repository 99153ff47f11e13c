//! A record: header of 32 bytes and payload (FORMAT.md, section 3.2).
//!
//! A header's checksum is seeded with its file and its offset, so a record that is found in another
//! place than it was written to (a recycled segment's former life, a swapped file) is bad.

use byteorder::{ByteOrder, LittleEndian};

use crate::{
    faults::{Fault, Faults},
    key::SequenceNumber,
};

/// Bytes of a record's header.
pub(crate) const HEADER_LEN: usize = 32;

/// Flag: the writer asked for `sync: true`.
const FLAG_SYNC: u8 = 1;

/// What binds checksums to one file of one database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileSeed {
    seed: u64,
    /// The planted fault is on: records of a former life are believed.
    believes_stale: bool,
}

impl FileSeed {
    /// The seed of file `number` of database `db`.
    pub(crate) fn new(db: u64, number: u64, faults: Faults) -> Self {
        // The planted fault takes the file number out of every checksum, written and read, so that the
        // former life of a recycled segment is believed.
        let believes_stale = faults.is(Fault::ReplayStaleRecord);
        Self {
            seed: if believes_stale { db } else { db ^ number },
            believes_stale,
        }
    }

    /// True where only the planted fault would look over sequence numbers that do not ascend.
    pub(crate) fn believes_stale(self) -> bool {
        self.believes_stale
    }
}

/// What a payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum RecordKind {
    /// A write batch: records of the log.
    Batch = 1,
    /// A version edit: records of a manifest.
    Edit = 2,
}

/// All that a record says besides its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    /// Bytes of the payload.
    pub(crate) len: u32,
    /// CRC of the payload.
    pub(crate) payload_crc: u32,
    /// What the payload is.
    pub(crate) kind: RecordKind,
    /// The writer asked for `sync: true`.
    pub(crate) sync: bool,
    /// Position known durable when the record was made: log position, in a manifest file offset.
    pub(crate) synced: u64,
    /// Sequence number of the first operation; zero in a manifest.
    pub(crate) seq: SequenceNumber,
}

impl RecordHeader {
    /// Bytes of the whole record.
    pub(crate) fn record_len(&self) -> u64 {
        HEADER_LEN as u64 + u64::from(self.len)
    }
}

/// A whole, checked record, borrowed from its file's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    /// Its header.
    pub(crate) header: RecordHeader,
    /// Offset of the header in the file.
    pub(crate) offset: u64,
    /// Its payload.
    pub(crate) payload: &'a [u8],
}

impl Record<'_> {
    /// Offset of the first byte behind the record.
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.header.record_len()
    }
}

/// Why no record can be taken from a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bad {
    /// The file ends before the record does.
    Cut,
    /// The header is not what was written here (also: nothing was ever written here).
    HeaderChecksum,
    /// The header is right, the payload is not.
    PayloadChecksum,
    /// Kind, flags or reserved bytes this version does not know, under a right checksum.
    Reserved,
    /// The record is of the other kind of file.
    Kind,
    /// The sequence number is not above that of the record before.
    Sequence,
    /// The record reaches over the place where the next segment begins.
    Crosses,
}

impl Bad {
    /// The reason, for an error's text.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Cut => "record is cut short",
            Self::HeaderChecksum => "record header fails its checksum",
            Self::PayloadChecksum => "record payload fails its checksum",
            Self::Reserved => "record has unknown kind, flags or reserved bytes",
            Self::Kind => "record is of the wrong kind for this file",
            Self::Sequence => "record's sequence number does not ascend",
            Self::Crosses => "record reaches into the next segment",
        }
    }
}

/// Header bytes of a record that will stand at `offset`. Takes the payload's length and CRC, so that the
/// commit path can compute the CRC before it takes its lock.
pub(crate) fn encode_header(
    file: FileSeed,
    offset: u64,
    len: u32,
    payload_crc: u32,
    kind: RecordKind,
    sync: bool,
    synced: u64,
    seq: SequenceNumber,
) -> [u8; HEADER_LEN] {
    debug_assert!(
        seq <= SequenceNumber::MAX,
        "sequence {seq:?} does not fit in 56 bits"
    );
    let mut header = [0; HEADER_LEN];
    LittleEndian::write_u32(&mut header[4..8], len);
    LittleEndian::write_u32(&mut header[8..12], payload_crc);
    header[12] = kind as u8;
    header[13] = u8::from(sync) * FLAG_SYNC;
    LittleEndian::write_u64(&mut header[16..24], synced);
    LittleEndian::write_u64(&mut header[24..32], seq.0);
    let crc = header_crc(file, offset, &header);
    LittleEndian::write_u32(&mut header[..4], crc);
    header
}

/// Appends the record that will stand at `offset` of its file.
pub(crate) fn encode_record(
    out: &mut Vec<u8>,
    file: FileSeed,
    offset: u64,
    kind: RecordKind,
    sync: bool,
    synced: u64,
    seq: SequenceNumber,
    payload: &[u8],
) {
    let len = u32::try_from(payload.len()).expect("batches and edits are limited to 1 GiB");
    let crc = crc32fast::hash(payload);
    out.extend_from_slice(&encode_header(
        file, offset, len, crc, kind, sync, synced, seq,
    ));
    out.extend_from_slice(payload);
}

/// Decodes the header at `offset`; the payload is not looked at.
pub(crate) fn decode_header(
    bytes: &[u8],
    offset: usize,
    file: FileSeed,
) -> Result<RecordHeader, Bad> {
    let header = bytes
        .get(offset..)
        .and_then(<[u8]>::first_chunk::<HEADER_LEN>);
    let header = header.ok_or(Bad::Cut)?;
    if LittleEndian::read_u32(&header[..4]) != header_crc(file, offset as u64, header) {
        return Err(Bad::HeaderChecksum);
    }
    let kind = match header[12] {
        1 => RecordKind::Batch,
        2 => RecordKind::Edit,
        _ => return Err(Bad::Reserved),
    };
    let seq = SequenceNumber(LittleEndian::read_u64(&header[24..32]));
    if header[13] & !FLAG_SYNC != 0 || header[14..16] != [0, 0] || seq > SequenceNumber::MAX {
        return Err(Bad::Reserved);
    }
    Ok(RecordHeader {
        len: LittleEndian::read_u32(&header[4..8]),
        payload_crc: LittleEndian::read_u32(&header[8..12]),
        kind,
        sync: header[13] & FLAG_SYNC != 0,
        synced: LittleEndian::read_u64(&header[16..24]),
        seq,
    })
}

/// Decodes the record at `offset` of a file's bytes, checking header and payload.
pub(crate) fn decode_at(bytes: &[u8], offset: usize, file: FileSeed) -> Result<Record<'_>, Bad> {
    let header = decode_header(bytes, offset, file)?;
    let len = usize::try_from(header.len).map_err(|_| Bad::Cut)?;
    let payload = bytes[offset + HEADER_LEN..].get(..len).ok_or(Bad::Cut)?;
    if crc32fast::hash(payload) != header.payload_crc {
        return Err(Bad::PayloadChecksum);
    }
    Ok(Record {
        header,
        offset: offset as u64,
        payload,
    })
}

/// False for most places where no header stands, without computing a checksum: kind, flags and
/// reserved bytes are among the few that a header has, and the sequence number has 56 bits.
pub(crate) fn is_plausible(header: &[u8; HEADER_LEN]) -> bool {
    matches!(header[12], 1 | 2)
        && header[13] <= FLAG_SYNC
        && header[14..16] == [0, 0]
        && header[31] == 0
}

fn header_crc(file: FileSeed, offset: u64, header: &[u8; HEADER_LEN]) -> u32 {
    let mut covered = [0; 16 + HEADER_LEN - 4];
    LittleEndian::write_u64(&mut covered[..8], file.seed);
    LittleEndian::write_u64(&mut covered[8..16], offset);
    covered[16..].copy_from_slice(&header[4..]);
    crc32fast::hash(&covered)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed(number: u64) -> FileSeed {
        FileSeed::new(0xdb, number, Faults::default())
    }

    fn record(payload: &[u8]) -> Vec<u8> {
        let mut out = vec![0; 100];
        let seq = SequenceNumber(9);
        encode_record(
            &mut out,
            seed(7),
            100,
            RecordKind::Batch,
            true,
            55,
            seq,
            payload,
        );
        out
    }

    #[test]
    fn a_record_comes_back_from_its_place() {
        let bytes = record(b"payload");
        let record = decode_at(&bytes, 100, seed(7)).expect("good");
        assert_eq!(record.payload, b"payload");
        assert_eq!((record.offset, record.end()), (100, 139));
        let header = record.header;
        assert_eq!(
            (header.sync, header.synced, header.seq),
            (true, 55, SequenceNumber(9))
        );
    }

    #[test]
    fn a_record_moved_to_another_offset_file_or_database_is_bad() {
        let bytes = record(b"payload");
        assert_eq!(
            decode_at(&bytes[1..], 99, seed(7)),
            Err(Bad::HeaderChecksum)
        );
        assert_eq!(decode_at(&bytes, 100, seed(8)), Err(Bad::HeaderChecksum));
        let foreign = FileSeed::new(0xdc, 7, Faults::default());
        assert_eq!(decode_at(&bytes, 100, foreign), Err(Bad::HeaderChecksum));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_a_record_is_noticed() {
        let good = record(b"some payload");
        for bit in 100 * 8..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_at(&bytes, 100, seed(7)).is_err(), "bit {bit}");
        }
        for len in 0..good.len() {
            assert_eq!(
                decode_at(&good[..len], 100, seed(7)),
                Err(Bad::Cut),
                "{len} bytes"
            );
        }
    }

    #[test]
    fn unknown_kind_flags_and_reserved_bytes_are_refused_under_a_right_checksum() {
        for (at, value) in [(12, 0), (12, 3), (13, 2), (14, 1), (15, 1), (31, 1)] {
            let mut bytes = record(b"");
            bytes[100 + at] = value;
            let header = bytes[100..].first_chunk().expect("whole header");
            let crc = header_crc(seed(7), 100, header);
            LittleEndian::write_u32(&mut bytes[100..104], crc);
            assert_eq!(
                decode_at(&bytes, 100, seed(7)),
                Err(Bad::Reserved),
                "byte {at}"
            );
        }
    }

    #[test]
    fn every_header_that_decodes_is_plausible() {
        for (kind, sync, seq) in [
            (RecordKind::Batch, true, SequenceNumber::MAX),
            (RecordKind::Edit, false, SequenceNumber::ZERO),
        ] {
            let header = encode_header(seed(1), 64, u32::MAX, 1, kind, sync, u64::MAX, seq);
            assert!(decode_header(&[&[0; 64][..], &header].concat(), 64, seed(1)).is_ok());
            assert!(is_plausible(&header));
        }
        assert!(!is_plausible(&[0; HEADER_LEN]));
    }

    #[test]
    fn the_planted_fault_takes_the_file_number_out_of_the_checksum() {
        let faults = Faults(Fault::ReplayStaleRecord);
        let mut bytes = Vec::new();
        let old = FileSeed::new(1, 5, faults);
        encode_record(
            &mut bytes,
            old,
            0,
            RecordKind::Batch,
            false,
            0,
            SequenceNumber(1),
            b"x",
        );
        assert!(decode_at(&bytes, 0, FileSeed::new(1, 6, faults)).is_ok());
    }
}
