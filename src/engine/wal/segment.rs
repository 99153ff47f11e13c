//! The header at the start of a log segment or a manifest (FORMAT.md, section 3.1).

use std::path::Path;

use byteorder::{ByteOrder, LittleEndian};

use crate::error::Error;

/// Bytes of a segment's header; its first record stands here.
pub(crate) const HEADER_LEN: usize = 64;
/// Format version of log segments, and of the manifests of databases with nothing of what follows.
pub(crate) const VERSION: u32 = 1;
/// Format version of the manifest of a database that has append families, or had.
pub(crate) const VERSION_APPEND: u32 = 2;
/// Format version of manifests of databases that have, or had once, tables that point into value files or have blocks of
/// zstd, or a family with a merge operator or a time to live; they may have append families too.
pub(crate) const VERSION_TABLES: u32 = 3;

/// What kind of file a header opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SegmentKind {
    /// A segment of the write-ahead log.
    Log,
    /// A manifest.
    Manifest,
}

impl SegmentKind {
    pub(crate) fn magic(self) -> &'static [u8; 8] {
        match self {
            Self::Log => b"BSLTLOG1",
            Self::Manifest => b"BSLTMAN1",
        }
    }
}

/// All that a segment says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// The database's random id.
    pub(crate) db: u64,
    /// Number of this file.
    pub(crate) number: u64,
    /// Log position of the first record; 0 in a manifest.
    pub(crate) base: u64,
    /// File number of the segment before; 0: none.
    pub(crate) previous: u64,
    /// Log position known durable when the header was written.
    pub(crate) synced: u64,
}

/// Why a file's first bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadHeader {
    /// The file is shorter than a header.
    Cut,
    /// The magic is not that of this kind of file (also: nothing was ever written here).
    Magic,
    /// The checksum differs.
    Checksum,
    /// A format version this engine does not know, under a right checksum.
    Version(u32),
    /// Reserved bytes are set, under a right checksum.
    Reserved,
}

impl BadHeader {
    /// The reason, for an error's text.
    pub(crate) fn text(self) -> String {
        match self {
            Self::Cut => "file header is cut short".into(),
            Self::Magic => "file header has no magic".into(),
            Self::Checksum => "file header fails its checksum".into(),
            Self::Version(version) => format!(
                "format version {version}, known are {VERSION} and, of manifests, up to {VERSION_TABLES}"
            ),
            Self::Reserved => "file header has reserved bytes set".into(),
        }
    }

    /// The error for a file that must have a header.
    pub(crate) fn error(self, path: &Path) -> Error {
        match self {
            Self::Version(_) => Error::NotADatabase {
                path: path.into(),
                what: self.text(),
            },
            _ => Error::corruption(path, 0, self.text()),
        }
    }
}

impl SegmentHeader {
    /// Bytes of the header, of format version 1.
    pub(crate) fn encode(&self, kind: SegmentKind) -> [u8; HEADER_LEN] {
        self.encode_version(kind, VERSION)
    }

    /// Bytes of the header in a given format version.
    pub(crate) fn encode_version(&self, kind: SegmentKind, version: u32) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..8].copy_from_slice(kind.magic());
        LittleEndian::write_u32(&mut bytes[12..16], version);
        LittleEndian::write_u64(&mut bytes[16..24], self.db);
        LittleEndian::write_u64(&mut bytes[24..32], self.number);
        LittleEndian::write_u64(&mut bytes[32..40], self.base);
        LittleEndian::write_u64(&mut bytes[40..48], self.previous);
        LittleEndian::write_u64(&mut bytes[48..56], self.synced);
        let crc = crc32fast::hash(&bytes[12..]);
        LittleEndian::write_u32(&mut bytes[8..12], crc);
        bytes
    }

    /// Format version in the bytes of a header.
    pub(crate) fn version(header: &[u8; HEADER_LEN]) -> u32 {
        LittleEndian::read_u32(&header[12..16])
    }

    /// The header at the start of a file's bytes. Database and file number are the caller's to compare.
    pub(crate) fn decode(bytes: &[u8], kind: SegmentKind) -> Result<Self, BadHeader> {
        let bytes = bytes.first_chunk::<HEADER_LEN>().ok_or(BadHeader::Cut)?;
        if &bytes[..8] != kind.magic() {
            return Err(BadHeader::Magic);
        }
        if LittleEndian::read_u32(&bytes[8..12]) != crc32fast::hash(&bytes[12..]) {
            return Err(BadHeader::Checksum);
        }
        let version = Self::version(bytes);
        let newest = match kind {
            SegmentKind::Log => VERSION,
            SegmentKind::Manifest => VERSION_TABLES,
        };
        let known = (VERSION..=newest).contains(&version);
        if !known {
            return Err(BadHeader::Version(version));
        }
        if bytes[56..] != [0; 8] {
            return Err(BadHeader::Reserved);
        }
        Ok(Self {
            db: LittleEndian::read_u64(&bytes[16..24]),
            number: LittleEndian::read_u64(&bytes[24..32]),
            base: LittleEndian::read_u64(&bytes[32..40]),
            previous: LittleEndian::read_u64(&bytes[40..48]),
            synced: LittleEndian::read_u64(&bytes[48..56]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: SegmentHeader = SegmentHeader {
        db: 1 << 63 | 5,
        number: 7,
        base: 1000,
        previous: 3,
        synced: 900,
    };

    #[test]
    fn a_header_comes_back_and_is_not_taken_for_the_other_kind() {
        let bytes = HEADER.encode(SegmentKind::Log);
        assert_eq!(SegmentHeader::decode(&bytes, SegmentKind::Log), Ok(HEADER));
        assert_eq!(
            SegmentHeader::decode(&bytes, SegmentKind::Manifest),
            Err(BadHeader::Magic)
        );
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_a_header_is_noticed() {
        let good = HEADER.encode(SegmentKind::Manifest);
        for bit in 0..HEADER_LEN * 8 {
            let mut bytes = good;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(
                SegmentHeader::decode(&bytes, SegmentKind::Manifest).is_err(),
                "bit {bit}"
            );
        }
        for len in 0..HEADER_LEN {
            let cut = SegmentHeader::decode(&good[..len], SegmentKind::Manifest);
            assert_eq!(cut, Err(BadHeader::Cut));
        }
    }

    #[test]
    fn unknown_version_and_reserved_bytes_are_refused_under_a_right_checksum() {
        for (at, bad) in [(12, BadHeader::Version(2)), (60, BadHeader::Reserved)] {
            let mut bytes = HEADER.encode(SegmentKind::Log);
            bytes[at] = 2;
            let crc = crc32fast::hash(&bytes[12..]);
            LittleEndian::write_u32(&mut bytes[8..12], crc);
            assert_eq!(SegmentHeader::decode(&bytes, SegmentKind::Log), Err(bad));
        }
    }
}
