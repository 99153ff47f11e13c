//! Keys inside the engine: user key, sequence number, kind, and their one ordering.
//!
//! User keys ascend bytewise; among versions of one user key the newest comes first. In tables an
//! internal key is the user key followed by a trailer of eight bytes, `seq << 8 | kind`, little-endian
//! (FORMAT.md, internal key).

use std::{cmp::Ordering, fmt};

use byteorder::{ByteOrder, LittleEndian};

/// Longest user key in bytes.
pub const MAX_KEY_LEN: usize = 64 * 1024 - 1;
/// Longest value in bytes.
pub const MAX_VALUE_LEN: usize = 512 * 1024 * 1024;
/// Bytes of the trailer of an internal key.
pub const TRAILER_LEN: usize = 8;

/// Position of a write in the engine's single order of writes; 0 is "before any write".
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceNumber(pub u64);

impl SequenceNumber {
    /// The largest number that fits beside the kind in a trailer: 56 bits.
    pub const MAX: Self = Self((1 << 56) - 1);
    /// Before any write.
    pub const ZERO: Self = Self(0);
}

impl fmt::Debug for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// What an entry says about its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ValueKind {
    /// The key is absent from here on.
    Delete = 0,
    /// The key has this value.
    Put = 1,
    // 2 is the range delete, which never appears in an internal key of a data block.
    /// The key has the value that the entry points to (`values`); in tables only.
    Pointer = 7,
    /// The key's value changes by this operand, as the family's merge operator says.
    Merge = 16,
}

impl ValueKind {
    /// The kind a byte stands for.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Delete),
            1 => Some(Self::Put),
            7 => Some(Self::Pointer),
            16 => Some(Self::Merge),
            _ => None,
        }
    }
}

/// Sequence number and kind packed as they stand in a trailer: `seq << 8 | kind`.
#[must_use]
pub fn pack_trailer(seq: SequenceNumber, kind: ValueKind) -> u64 {
    debug_assert!(
        seq <= SequenceNumber::MAX,
        "sequence {seq:?} does not fit in 56 bits"
    );
    seq.0 << 8 | kind as u64
}

/// Sequence number of a packed trailer.
#[must_use]
pub fn trailer_seq(trailer: u64) -> SequenceNumber {
    SequenceNumber(trailer >> 8)
}

/// Kind of a packed trailer; `None` for a kind this version does not know.
#[must_use]
pub fn trailer_kind(trailer: u64) -> Option<ValueKind> {
    ValueKind::from_byte((trailer & 0xff) as u8)
}

/// The first eight bytes of a user key as a number that orders as they do, with zeros behind a shorter
/// key. Unequal numbers order their keys; equal ones say nothing.
pub(crate) fn key_prefix(user_key: &[u8]) -> u64 {
    match user_key.first_chunk() {
        Some(&first) => u64::from_be_bytes(first),
        None => {
            let mut first = [0; 8];
            first[..user_key.len()].copy_from_slice(user_key);
            u64::from_be_bytes(first)
        }
    }
}

/// A key as the engine orders it, borrowed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct InternalKey<'a> {
    /// The caller's key.
    pub user_key: &'a [u8],
    /// `seq << 8 | kind`.
    pub trailer: u64,
}

impl<'a> InternalKey<'a> {
    /// The key of one entry.
    #[must_use]
    pub fn new(user_key: &'a [u8], seq: SequenceNumber, kind: ValueKind) -> Self {
        Self {
            user_key,
            trailer: pack_trailer(seq, kind),
        }
    }

    /// The smallest internal key a reader at `seq` may see for `user_key`: seek here.
    #[must_use]
    pub fn seek_to(user_key: &'a [u8], seq: SequenceNumber) -> Self {
        Self {
            user_key,
            trailer: seq.0 << 8 | 0xff,
        }
    }

    /// Splits an encoded internal key; `None` when it is shorter than its trailer.
    #[must_use]
    pub fn decode(encoded: &'a [u8]) -> Option<Self> {
        let at = encoded.len().checked_sub(TRAILER_LEN)?;
        let (user_key, trailer) = encoded.split_at(at);
        Some(Self {
            user_key,
            trailer: LittleEndian::read_u64(trailer),
        })
    }

    /// Appends the encoded form to `out`.
    pub fn encode_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.user_key);
        let mut trailer = [0; TRAILER_LEN];
        LittleEndian::write_u64(&mut trailer, self.trailer);
        out.extend_from_slice(&trailer);
    }

    /// The same entry as another kind.
    #[must_use]
    pub fn with_kind(self, kind: ValueKind) -> Self {
        Self {
            trailer: self.trailer & !0xff | kind as u64,
            ..self
        }
    }

    /// Sequence number of this entry.
    #[must_use]
    pub fn seq(&self) -> SequenceNumber {
        trailer_seq(self.trailer)
    }

    /// Kind of this entry; `None` for a kind this version does not know.
    #[must_use]
    pub fn kind(&self) -> Option<ValueKind> {
        trailer_kind(self.trailer)
    }
}

impl Ord for InternalKey<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.user_key
            .cmp(other.user_key)
            .then_with(|| other.trailer.cmp(&self.trailer))
    }
}

impl PartialOrd for InternalKey<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for InternalKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind() {
            Some(ValueKind::Put) => "put",
            Some(ValueKind::Delete) => "del",
            Some(ValueKind::Pointer) => "ptr",
            Some(ValueKind::Merge) => "mrg",
            None => "?",
        };
        write!(f, "{}{:?}{kind}", self.user_key.escape_ascii(), self.seq())
    }
}

/// A range delete: every version of a key in `start..end` older than `seq` is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeTombstone {
    /// First key deleted.
    pub start: Vec<u8>,
    /// First key after the range; always greater than `start`.
    pub end: Vec<u8>,
    /// Position of the delete in the order of writes.
    pub seq: SequenceNumber,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_version_of_a_key_comes_first_and_keys_ascend() {
        let mut keys = [
            InternalKey::new(b"b", SequenceNumber(1), ValueKind::Put),
            InternalKey::new(b"a", SequenceNumber(1), ValueKind::Put),
            InternalKey::new(b"a", SequenceNumber(9), ValueKind::Delete),
            InternalKey::new(b"aa", SequenceNumber(3), ValueKind::Put),
        ];
        keys.sort();
        let order: Vec<String> = keys.iter().map(|k| format!("{k:?}")).collect();
        assert_eq!(order, ["a#9del", "a#1put", "aa#3put", "b#1put"]);
    }

    #[test]
    fn a_seek_key_sorts_before_what_it_may_see_and_after_what_it_may_not() {
        let seek = InternalKey::seek_to(b"k", SequenceNumber(5));
        assert!(seek < InternalKey::new(b"k", SequenceNumber(5), ValueKind::Put));
        assert!(seek > InternalKey::new(b"k", SequenceNumber(6), ValueKind::Delete));
    }

    #[test]
    fn encoding_comes_back_and_a_short_key_is_refused() {
        let key = InternalKey::new(b"key", SequenceNumber(0x0102_0304), ValueKind::Put);
        let mut bytes = Vec::new();
        key.encode_to(&mut bytes);
        assert_eq!(InternalKey::decode(&bytes), Some(key));
        assert_eq!(InternalKey::decode(&bytes[..7]), None);
    }
}
