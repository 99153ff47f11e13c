//! Small values of a large append, compressed together.
//!
//! ```text
//! block = crc u32 | size u32 | body of `size` bytes
//! body  = raw length u32 | count u32 | length varint * count | values, one LZ4 block
//! ```
//! The checksum is that of a value at the index of the block's first entry: it binds the key. Blocks are
//! bounded, so that one entry costs the decompression of at most 64 KiB; a value of 4 KiB and more stays out
//! of them, so that it can be handed out in place.

use std::{ops::Range, sync::Arc};

use byteorder::{ByteOrder as _, LittleEndian};

use crate::{
    cache::{BlockBytes, share},
    coding::{Reader, put_u32, put_varint},
};

use super::segment::ValueCrc;

/// Bytes of values of one append from which they are packed.
pub(crate) const PACK_FROM: usize = 8 << 10;
/// Values from here on stay out of blocks.
const LARGE: usize = 4 << 10;
/// Most bytes of values in a block.
const RAW_MAX: usize = 64 << 10;
/// Most values in a block.
const COUNT_MAX: usize = 4096;
/// Checksum and size.
pub(crate) const HEAD_LEN: usize = 8;
/// Most bytes of a body: what does not get smaller is not packed.
pub(crate) const BODY_MAX: usize = RAW_MAX;
/// LZ4 cannot do better than this, so a length beyond is damage.
const LZ4_MAX_RATIO: usize = 255;

/// How many of the values go together from the first on, and whether they are to be packed.
pub(crate) fn group<V: AsRef<[u8]>>(values: &[V]) -> (usize, bool) {
    let is_large = |value: &V| value.as_ref().len() >= LARGE;
    let large = values.iter().take_while(|value| is_large(value)).count();
    if large > 0 {
        return (large, false);
    }
    let mut bytes = 0;
    let fits = |value: &&V| {
        bytes += value.as_ref().len();
        bytes <= RAW_MAX && !is_large(value)
    };
    let count = values.iter().take(COUNT_MAX).take_while(fits).count();
    (count, true)
}

/// The block of `values`, the first of which is at index `first`, and the values as they come out of it again; `None` where it
/// saves less than an eighth.
pub(crate) fn pack<V: AsRef<[u8]>>(
    crc: &ValueCrc,
    first: u64,
    values: &[V],
) -> Option<(Vec<u8>, Block)> {
    let lengths = || values.iter().map(|value| value.as_ref().len());
    let mut raw = Vec::with_capacity(lengths().sum());
    for value in values {
        raw.extend_from_slice(value.as_ref());
    }
    let most = lz4_flex::block::get_maximum_output_size(raw.len());
    let mut block = Vec::with_capacity(HEAD_LEN + (2 + values.len()) * 5 + most);
    block.resize(HEAD_LEN, 0);
    put_u32(&mut block, u32::try_from(raw.len()).ok()?);
    put_u32(&mut block, u32::try_from(values.len()).ok()?);
    for len in lengths() {
        put_varint(&mut block, len as u64);
    }
    let at = block.len();
    block.resize(at + most, 0);
    let used = lz4_flex::block::compress_into(&raw, &mut block[at..]).ok()?;
    block.truncate(at + used);
    if block.len() > raw.len() - raw.len() / 8 {
        return None;
    }
    let (head, body) = block.split_at_mut(HEAD_LEN);
    LittleEndian::write_u32(&mut head[..4], crc.of(first, body));
    LittleEndian::write_u32(&mut head[4..], u32::try_from(body.len()).ok()?);
    Some((block, Block::new(&raw, lengths())))
}

/// Raw length and lengths of a body, and where its values begin; `None` where they do not fit together.
fn lengths(body: &[u8]) -> Option<(usize, Vec<usize>, &[u8])> {
    let mut reader = Reader::new(body);
    let raw = usize::try_from(reader.u32()?).ok()?;
    let count = usize::try_from(reader.u32()?).ok()?;
    if raw > RAW_MAX || !(1..=COUNT_MAX).contains(&count) {
        return None;
    }
    let mut lengths = Vec::with_capacity(count);
    for _ in 0..count {
        lengths.push(usize::try_from(reader.varint()?).ok()?);
    }
    let sum = lengths
        .iter()
        .try_fold(0_usize, |sum, &len| sum.checked_add(len));
    let packed = reader.rest();
    let is_possible = raw <= packed.len().saturating_mul(LZ4_MAX_RATIO);
    (sum == Some(raw) && is_possible).then_some((raw, lengths, packed))
}

/// Number of values in a body, if it is one.
pub(crate) fn count(body: &[u8]) -> Option<u32> {
    let (_, lengths, _) = lengths(body)?;
    u32::try_from(lengths.len()).ok()
}

/// The values of a block. Clones share the bytes.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    bytes: BlockBytes,
    /// Where each value ends.
    ends: Arc<[usize]>,
}

impl Block {
    /// Takes a body whose checksum is right.
    pub(crate) fn unpack(body: &[u8]) -> Option<Self> {
        let (raw, lengths, packed) = lengths(body)?;
        let mut bytes = vec![0; raw];
        if lz4_flex::block::decompress_into(packed, &mut bytes).ok()? != raw {
            return None;
        }
        Some(Self::new(&bytes, lengths.into_iter()))
    }

    /// Values back to back, of these lengths.
    fn new(values: &[u8], lengths: impl Iterator<Item = usize>) -> Self {
        let ends = lengths.scan(0, |end, len| {
            *end += len;
            Some(*end)
        });
        Self {
            bytes: share(values),
            ends: ends.collect(),
        }
    }

    /// Bytes of memory that it takes.
    pub(crate) fn held(&self) -> usize {
        size_of::<Self>() + self.bytes.slice.len() + self.ends.len() * size_of::<usize>()
    }

    /// The values, back to back.
    pub(crate) fn bytes(&self) -> &BlockBytes {
        &self.bytes
    }

    /// Where among them a value is.
    pub(crate) fn value(&self, at: usize) -> Option<Range<usize>> {
        let end = *self.ends.get(at)?;
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(start..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crc() -> ValueCrc {
        ValueCrc::new(1, b"p")
    }

    #[test]
    fn values_come_back_from_a_block() {
        let values: Vec<Vec<u8>> = (0..300).map(|at| vec![7; at % 90]).collect();
        let (block, kept) = pack(&crc(), 10, &values).expect("it gets smaller");
        let body = &block[HEAD_LEN..];
        assert_eq!(count(body), Some(300));
        assert_eq!(crc().of(10, body).to_le_bytes(), block[..4]);
        let unpacked = Block::unpack(body).expect("whole");
        for (at, value) in values.iter().enumerate() {
            for block in [&unpacked, &kept] {
                let range = block.value(at).expect("there");
                assert_eq!(block.bytes().slice[range], value[..]);
            }
        }
        assert!(unpacked.value(300).is_none());
    }

    #[test]
    fn no_flipped_bit_or_cut_of_a_body_does_more_than_give_other_values() {
        let values: Vec<Vec<u8>> = (0..40).map(|at| vec![7; at]).collect();
        let (block, _) = pack(&crc(), 10, &values).expect("it gets smaller");
        let body = &block[HEAD_LEN..];
        for bit in 0..body.len() * 8 {
            let mut bytes = body.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(crc().of(10, &bytes), crc().of(10, body));
            if let Some(block) = Block::unpack(&bytes) {
                assert_eq!(block.ends.last(), Some(&block.bytes.slice.len()));
            }
        }
        for len in 0..body.len() {
            assert!(Block::unpack(&body[..len]).is_none(), "{len} bytes");
        }
    }

    #[test]
    fn groups_are_bounded_and_large_values_stay_out() {
        let values = [
            vec![1; 100],
            vec![1; LARGE],
            vec![1; LARGE * 9],
            vec![1; 100],
        ];
        assert_eq!(group(&values), (1, true));
        assert_eq!(group(&values[1..]), (2, false));
        assert_eq!(group(&vec![vec![1; 1000]; 100]), (65, true));
        assert_eq!(group(&vec![vec![]; 5000] as &[Vec<u8>]), (COUNT_MAX, true));
    }

    #[test]
    fn what_does_not_get_smaller_is_not_packed() {
        let mut random = crate::executor::SplitMix64(1);
        let noise: Vec<u8> = (0..9000).map(|_| random.next().to_le_bytes()[0]).collect();
        assert!(pack(&crc(), 0, &[noise]).is_none());
    }
}
