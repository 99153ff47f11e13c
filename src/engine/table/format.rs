//! The fixed parts of a table: block handles, block trailers, footer, properties, range tombstones.
//!
//! Decoders take any bytes: they answer with what is wrong, allocate no more than the bytes justify, and
//! leave it to the caller to say in which file and where.
//!
//! Not here: data blocks (`block`), the index block (`index`), the filter block (`filter`).

use std::cell::RefCell;

use byteorder::{ByteOrder, LittleEndian};

use super::{TableInfo, zstd_block};
use crate::{
    cache::{BlockBytes, share},
    coding::{Reader, put_slice, put_u32, put_u64, put_varint},
    key::{MAX_KEY_LEN, RangeTombstone, SequenceNumber},
    options::Compression,
    tombstones::Tombstones,
};

/// What is wrong with some bytes.
pub(crate) type Damage = &'static str;

/// Bytes of the footer.
pub(super) const FOOTER_LEN: usize = 80;
/// Last bytes of every table.
const MAGIC: &[u8; 8] = b"BSLTSST1";
/// Bytes behind each block: compression and checksum.
pub(super) const BLOCK_TRAILER_LEN: usize = 5;
/// Largest block in bytes, stored or decompressed: the largest entry and room for its frame.
pub(super) const MAX_BLOCK_LEN: usize = 1 << 30;
/// Version of the properties block, and so of the table; and the one of a table with times.
const VERSION: u32 = 1;
/// Bits of the version less one: some blocks are of zstd; values have times behind them.
const HAS_ZSTD: u32 = 1;
const HAS_TIMES: u32 = 2;

/// The block is stored as it is.
pub(crate) const RAW: u8 = 0;
/// The block is stored as its length and LZ4 block format.
pub(super) const LZ4: u8 = 1;
/// The block is stored as its length and one zstd frame.
pub(super) const ZSTD: u8 = 2;
/// LZ4 cannot shrink bytes further than this.
const LZ4_MAX_RATIO: usize = 255;

/// Where a block stands: the bytes without its trailer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockHandle {
    pub(crate) offset: u64,
    pub(super) len: u32,
}

impl BlockHandle {
    /// Bytes of the block without its trailer.
    pub(super) fn len(self) -> usize {
        usize::try_from(self.len).expect("a usize has at least 32 bits")
    }

    /// Bytes of the block with its trailer.
    pub(crate) fn stored_len(self) -> usize {
        self.len() + BLOCK_TRAILER_LEN
    }

    /// Offset of the first byte after the trailer; `None` beyond 64 bits.
    pub(super) fn end(self) -> Option<u64> {
        self.offset
            .checked_add(u64::from(self.len) + BLOCK_TRAILER_LEN as u64)
    }
}

/// Checksum of a block's stored bytes and compression byte, bound to its place.
fn block_crc(table_id: u64, offset: u64, covered: &[u8]) -> u32 {
    let mut seed = [0; 16];
    LittleEndian::write_u64_into(&[table_id, offset], &mut seed);
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&seed);
    hasher.update(covered);
    hasher.finalize()
}

/// Appends the trailer to `out`, whose bytes from `start` on are a block stored at `offset` of the file; answers the
/// checksum in it.
pub(super) fn seal_block(
    out: &mut Vec<u8>,
    start: usize,
    table_id: u64,
    offset: u64,
    kind: u8,
) -> u32 {
    out.push(kind);
    let crc = block_crc(table_id, offset, &out[start..]);
    put_u32(out, crc);
    crc
}

/// Checks the trailer of a block as stored at `offset`; answers how it is compressed.
pub(crate) fn check_block(table_id: u64, offset: u64, stored: &[u8]) -> Result<u8, Damage> {
    let at = stored
        .len()
        .checked_sub(4)
        .filter(|&at| at > 0)
        .ok_or("block without a trailer")?;
    let (covered, crc) = stored.split_at(at);
    if block_crc(table_id, offset, covered) != LittleEndian::read_u32(crc) {
        return Err("block checksum does not fit");
    }
    match covered[at - 1] {
        kind @ (RAW | LZ4 | ZSTD) => Ok(kind),
        _ => Err("unknown compression"),
    }
}

/// Compresses `raw` onto the end of `out`; false, and `out` as it was, where that saves less than an
/// eighth.
pub(super) fn compress(raw: &[u8], out: &mut Vec<u8>) -> bool {
    let Ok(len) = u32::try_from(raw.len()) else {
        return false;
    };
    let start = out.len();
    put_u32(out, len);
    let body = out.len();
    out.resize(
        body + lz4_flex::block::get_maximum_output_size(raw.len()),
        0,
    );
    let saved = match lz4_flex::block::compress_into(raw, &mut out[body..]) {
        Ok(used) if body + used - start <= raw.len() - raw.len() / 8 => Some(used),
        _ => None,
    };
    out.truncate(saved.map_or(start, |used| body + used));
    saved.is_some()
}

/// The same with zstd; false also where LZ4 is to have the block.
pub(super) fn compress_zstd(raw: &[u8], out: &mut Vec<u8>) -> bool {
    let Ok(len) = u32::try_from(raw.len()) else {
        return false;
    };
    let start = out.len();
    put_u32(out, len);
    let body = out.len();
    // No more than is worth it.
    let most = raw.len() - raw.len() / 8;
    out.resize(start + most.max(4), 0);
    let saved = zstd_block::compress_into(raw, &mut out[body..])
        .filter(|used| raw.len() <= used * zstd_block::MAX_RATIO);
    out.truncate(saved.map_or(start, |used| body + used));
    saved.is_some()
}

/// Appends `raw` to `out` with a codec, or as it is where that is not worth it; answers the kind.
pub(super) fn pack(raw: &[u8], codec: Compression, out: &mut Vec<u8>) -> u8 {
    if codec == Compression::Zstd && compress_zstd(raw, out) {
        ZSTD
    } else if codec != Compression::None && compress(raw, out) {
        LZ4
    } else {
        out.extend_from_slice(raw);
        RAW
    }
}

/// The bytes of a block stored in a compressed `kind`.
pub(crate) fn decompress(kind: u8, stored: &[u8]) -> Result<BlockBytes, Damage> {
    let mut reader = Reader::new(stored);
    let len = reader.u32().and_then(|len| usize::try_from(len).ok());
    let len = len.ok_or("compressed block without a length")?;
    let body = reader.rest();
    let max_ratio = if kind == ZSTD {
        zstd_block::MAX_RATIO
    } else {
        LZ4_MAX_RATIO
    };
    if len > MAX_BLOCK_LEN || len > body.len().saturating_mul(max_ratio) {
        return Err("compressed block claims an impossible length");
    }
    SCRATCH.with_borrow_mut(|scratch| {
        if scratch.len() < len {
            scratch.resize(len, 0);
        }
        let used = if kind == ZSTD {
            zstd_block::decompress_into(body, &mut scratch[..len])
        } else {
            lz4_flex::block::decompress_into(body, &mut scratch[..len]).ok()
        };
        let block = match used {
            Some(used) if used == len => Ok(share(&scratch[..len])),
            Some(_) => Err("compressed block is shorter than it claims"),
            None => Err("compressed block cannot be decompressed"),
        };
        if len > MAX_SCRATCH {
            *scratch = Vec::new();
        }
        block
    })
}

/// Most bytes that a thread keeps to decompress into.
const MAX_SCRATCH: usize = 1 << 20;

thread_local! {
    /// Where a block is decompressed before its length of memory is taken: it need not be cleared each time.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The end of a table: where everything else is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) table_id: u64,
    pub(super) index: BlockHandle,
    pub(super) filter: Option<BlockHandle>,
    pub(super) tombstones: Option<BlockHandle>,
    pub(super) properties: BlockHandle,
}

impl Footer {
    /// The footer of a table in which it stands at `offset`.
    pub(super) fn encode(&self, offset: u64) -> [u8; FOOTER_LEN] {
        let mut out = Vec::with_capacity(FOOTER_LEN);
        put_u64(&mut out, self.table_id);
        for handle in [Some(self.index), self.filter, self.tombstones] {
            put_u64(&mut out, handle.map_or(0, |handle| handle.offset));
            put_u64(&mut out, handle.map_or(0, |handle| u64::from(handle.len)));
        }
        put_u64(&mut out, self.properties.offset);
        put_u32(&mut out, self.properties.len);
        let crc = Self::crc(self.table_id, offset, &out, MAGIC);
        put_u32(&mut out, crc);
        out.extend_from_slice(MAGIC);
        out.try_into().expect("the fields fill the footer")
    }

    /// Decodes the footer found at `offset`. The handles are not yet checked against the file.
    pub(super) fn decode(bytes: &[u8; FOOTER_LEN], offset: u64) -> Result<Self, Damage> {
        let (fields, magic) = bytes.split_at(72);
        if magic != MAGIC {
            return Err("footer without the magic of a table of version 1");
        }
        let (fields, crc) = fields.split_at(68);
        let table_id = LittleEndian::read_u64(fields);
        if Self::crc(table_id, offset, fields, magic) != LittleEndian::read_u32(crc) {
            return Err("footer checksum does not fit");
        }
        let handle = |at: usize| {
            let offset = LittleEndian::read_u64(&fields[at..]);
            let len = u32::try_from(LittleEndian::read_u64(&fields[at + 8..]))
                .map_err(|_| "footer names a block longer than 32 bits")?;
            Ok::<_, Damage>(BlockHandle { offset, len })
        };
        let optional =
            |at: usize| Ok::<_, Damage>(Some(handle(at)?).filter(|handle| handle.len > 0));
        Ok(Self {
            table_id,
            index: handle(8)?,
            filter: optional(24)?,
            tombstones: optional(40)?,
            properties: BlockHandle {
                offset: LittleEndian::read_u64(&fields[56..]),
                len: LittleEndian::read_u32(&fields[64..]),
            },
        })
    }

    fn crc(table_id: u64, offset: u64, fields: &[u8], magic: &[u8]) -> u32 {
        let mut covered = fields.to_vec();
        covered.extend_from_slice(magic);
        block_crc(table_id, offset, &covered)
    }

    /// Checks that the blocks stand back to back from `data_end` to the footer at `end`, so that no byte
    /// of the file is outside of them.
    pub(super) fn check_tiling(&self, data_end: u64, end: u64) -> Result<(), Damage> {
        let mut at = data_end;
        let blocks = [
            self.tombstones,
            self.filter,
            Some(self.index),
            Some(self.properties),
        ];
        for handle in blocks.into_iter().flatten() {
            if handle.offset != at {
                return Err("blocks overlap or leave a gap");
            }
            at = handle.end().ok_or("block ends beyond 64 bits")?;
        }
        if at == end {
            Ok(())
        } else {
            Err("blocks do not end at the footer")
        }
    }
}

/// The properties block: what the table holds, but for what is known of the file from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Properties {
    pub(super) data_blocks: u64,
    pub(super) entries: u64,
    pub(super) deletes: u64,
    pub(super) tombstones: u64,
    pub(super) min_seq: SequenceNumber,
    pub(super) max_seq: SequenceNumber,
    pub(super) smallest: Vec<u8>,
    pub(super) largest: Vec<u8>,
    pub(super) largest_exclusive: bool,
    /// Some blocks are of zstd.
    pub(super) zstd: bool,
    /// Smallest and largest time behind a value.
    pub(super) times: Option<(u64, u64)>,
}

impl Properties {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let zstd = if self.zstd { HAS_ZSTD } else { 0 };
        let times = self.times.map_or(0, |_| HAS_TIMES);
        put_u32(&mut out, VERSION + (zstd | times));
        for number in [
            self.data_blocks,
            self.entries,
            self.deletes,
            self.tombstones,
            self.min_seq.0,
            self.max_seq.0,
        ] {
            put_varint(&mut out, number);
        }
        out.push(u8::from(self.largest_exclusive));
        put_slice(&mut out, &self.smallest);
        put_slice(&mut out, &self.largest);
        if let Some((oldest, newest)) = self.times {
            put_varint(&mut out, oldest);
            put_varint(&mut out, newest);
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        const CUT: Damage = "properties are cut short or misspelt";
        let mut reader = Reader::new(bytes);
        let features = reader
            .u32()
            .and_then(|version| version.checked_sub(VERSION));
        let features = features
            .filter(|features| features & !(HAS_ZSTD | HAS_TIMES) == 0)
            .ok_or("properties of an unknown version")?;
        let zstd = features & HAS_ZSTD != 0;
        let mut number = || reader.varint().ok_or(CUT);
        let (data_blocks, entries, deletes) = (number()?, number()?, number()?);
        let tombstones = number()?;
        let (min_seq, max_seq) = (SequenceNumber(number()?), SequenceNumber(number()?));
        let largest_exclusive = match reader.u8() {
            Some(0) => false,
            Some(1) => true,
            _ => return Err(CUT),
        };
        let smallest = reader.slice().ok_or(CUT)?.to_vec();
        let largest = reader.slice().ok_or(CUT)?.to_vec();
        let times = if features & HAS_TIMES != 0 {
            Some((reader.varint().ok_or(CUT)?, reader.varint().ok_or(CUT)?))
        } else {
            None
        };
        if !reader.is_empty() {
            return Err("bytes behind the properties");
        }
        if max_seq > SequenceNumber::MAX
            || min_seq > max_seq
            || deletes > entries
            || smallest > largest
            || times.is_some_and(|(oldest, newest)| oldest > newest)
        {
            return Err("properties contradict each other");
        }
        Ok(Self {
            data_blocks,
            entries,
            deletes,
            tombstones,
            min_seq,
            max_seq,
            smallest,
            largest,
            largest_exclusive,
            zstd,
            times,
        })
    }

    /// The whole of what is known about a table.
    pub(super) fn info(&self, table_id: u64, size: u64, crc: u32) -> TableInfo {
        TableInfo {
            table_id,
            size,
            crc,
            smallest: self.smallest.clone(),
            largest: self.largest.clone(),
            largest_exclusive: self.largest_exclusive,
            entries: self.entries,
            deletes: self.deletes,
            tombstones: self.tombstones,
            min_seq: self.min_seq,
            max_seq: self.max_seq,
            times: self.times,
        }
    }
}

/// The range tombstone block: fragments, each with its sequence numbers.
pub(super) fn encode_tombstones(tombstones: &Tombstones) -> Vec<u8> {
    let mut out = Vec::new();
    let all: Vec<RangeTombstone> = tombstones.all().collect();
    for same in all.chunk_by(|a, b| a.start == b.start) {
        put_slice(&mut out, &same[0].start);
        put_slice(&mut out, &same[0].end);
        put_varint(&mut out, same.len() as u64);
        for tombstone in same {
            put_varint(&mut out, tombstone.seq.0);
        }
    }
    out
}

/// The set of range tombstones of a block, all with the number `global_seq` where one is given.
/// Also how many are stored. Fragments do not overlap and numbers fall, so the set is no larger than
/// the block.
pub(super) fn decode_tombstones(
    bytes: &[u8],
    global_seq: Option<SequenceNumber>,
) -> Result<(Tombstones, u64), Damage> {
    const CUT: Damage = "range tombstones are cut short or misspelt";
    const ORDER: Damage = "range tombstones out of order";
    let mut reader = Reader::new(bytes);
    let mut fragments = Vec::new();
    let mut before: &[u8] = &[];
    let mut stored = 0;
    while !reader.is_empty() {
        let start = reader.slice().ok_or(CUT)?;
        let end = reader.slice().ok_or(CUT)?;
        if start >= end || start < before || start.len().max(end.len()) > MAX_KEY_LEN {
            return Err(ORDER);
        }
        before = end;
        let count = reader.varint().filter(|&count| count > 0).ok_or(CUT)?;
        let mut seqs: Vec<SequenceNumber> = Vec::new();
        for _ in 0..count {
            let seq = SequenceNumber(reader.varint().ok_or(CUT)?);
            if seq > SequenceNumber::MAX || seqs.last().is_some_and(|&newer| seq >= newer) {
                return Err(ORDER);
            }
            seqs.push(seq);
        }
        stored += seqs.len() as u64;
        if let Some(seq) = global_seq {
            seqs = vec![seq];
        }
        fragments.push((start.into(), end.into(), seqs.into()));
    }
    Ok((Tombstones::from_fragments(fragments), stored))
}
