//! What can be read of a damaged table: the rows of every block that checks.
//!
//! With a good footer and index each block is looked at by its place. Without them blocks are found from the start of the
//! file by their checksums, up to the first that does not check. In a small block one flipped bit is put right. A row is handed out only under a right checksum that
//! binds it to the table and its place, and above the row before.

use byteorder::{ByteOrder, LittleEndian};

use super::{
    block::{BlockView, Entry, Place},
    format::{
        BLOCK_TRAILER_LEN, BlockHandle, FOOTER_LEN, Footer, MAX_BLOCK_LEN, RAW, ZSTD, check_block,
        decode_tombstones, decompress,
    },
    index::Index,
};
use crate::{
    error::Result,
    fs::ReadableFile,
    key::InternalKey,
    tombstones::Tombstones,
    wal::reader::{MAX_MENDED, flip_one},
};

/// Longest block that is looked for by its checksum, in bytes.
const MAX_SOUGHT: usize = 4 << 20;

/// Most damaged blocks of a table in which a flipped bit is looked for: each takes some hundredths of a second.
const MAX_MENDS: u32 = 64;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Salvaged {
    /// Data blocks that check.
    pub(crate) good: u64,
    /// Data blocks there are; `None`: nobody knows.
    pub(crate) blocks: Option<u64>,
    /// Where the first data block stands that does not check, if that is known.
    pub(crate) first_bad: Option<u64>,
    /// The range tombstones; `None` where they are damaged, or not found.
    pub(crate) tombstones: Option<Tombstones>,
}

/// Hands the rows of table `table_id` in `file` that can be read to `take`, in order and with sequence numbers as stored.
///
/// # Errors
/// Those of `take`. What cannot be read is not there.
pub(crate) fn salvage(
    file: &dyn ReadableFile,
    table_id: u64,
    take: impl FnMut(InternalKey<'_>, &[u8]) -> Result<()>,
) -> Result<Salvaged> {
    mending(file, table_id, MAX_MENDS, take)
}

/// The same with the bytes as they are: nothing is put right.
///
/// # Errors
/// Those of `take`.
pub(crate) fn walk(
    file: &dyn ReadableFile,
    table_id: u64,
    take: impl FnMut(InternalKey<'_>, &[u8]) -> Result<()>,
) -> Result<Salvaged> {
    mending(file, table_id, 0, take)
}

fn mending(
    file: &dyn ReadableFile,
    table_id: u64,
    mut mends: u32,
    mut take: impl FnMut(InternalKey<'_>, &[u8]) -> Result<()>,
) -> Result<Salvaged> {
    let mut rows = Rows::default();
    let footer = read_footer(file).filter(|footer| footer.table_id == table_id);
    let indexed = footer.and_then(|footer| {
        let block = read_block(file, table_id, footer.index, &mut mends)?;
        let index = Index::parse(&block).ok()?;
        Some((footer, index))
    });
    let Some((footer, index)) = indexed else {
        return seek_blocks(file, table_id, &mut rows, &mut take);
    };
    let mut found = Salvaged {
        blocks: Some(index.count() as u64),
        tombstones: match footer.tombstones {
            None => Some(Tombstones::default()),
            Some(handle) => read_block(file, table_id, handle, &mut mends)
                .and_then(|block| decode_tombstones(&block, None).ok())
                .map(|(tombstones, _)| tombstones),
        },
        ..Salvaged::default()
    };
    for ordinal in 0..index.count() {
        let handle = index.handle(ordinal);
        let block = read_block(file, table_id, handle, &mut mends);
        let is_good = match block {
            Some(block) => rows.of_block(&block, &mut take)?,
            None => false,
        };
        found.good += u64::from(is_good);
        if !is_good {
            found.first_bad.get_or_insert(handle.offset);
        }
    }
    Ok(found)
}

fn read(file: &dyn ReadableFile, offset: u64, len: usize) -> Option<Vec<u8>> {
    let end = offset.checked_add(len as u64)?;
    if end > file.len() {
        return None;
    }
    let mut bytes = vec![0; len];
    file.read_at(offset, &mut bytes).ok().map(|()| bytes)
}

pub(super) fn read_footer(file: &dyn ReadableFile) -> Option<Footer> {
    let offset = file.len().checked_sub(FOOTER_LEN as u64)?;
    let bytes = read(file, offset, FOOTER_LEN)?;
    Footer::decode(bytes.first_chunk()?, offset).ok()
}

/// The bytes of a block, decompressed; `None` where they do not check.
///
/// One flipped bit is put right, in as many blocks as `mends` says.
pub(super) fn read_block(
    file: &dyn ReadableFile,
    table_id: u64,
    handle: BlockHandle,
    mends: &mut u32,
) -> Option<Vec<u8>> {
    if handle.len() > MAX_BLOCK_LEN {
        return None;
    }
    let mut stored = read(file, handle.offset, handle.stored_len())?;
    let block = unpack(table_id, handle.offset, &stored);
    if block.is_some() || stored.len() > MAX_MENDED || *mends == 0 {
        return block;
    }
    *mends -= 1;
    let is_right = |bytes: &[u8]| check_block(table_id, handle.offset, bytes).is_ok();
    let all = 0..stored.len();
    if !flip_one(&mut stored, all, is_right) {
        return None;
    }
    unpack(table_id, handle.offset, &stored)
}

fn unpack(table_id: u64, offset: u64, stored: &[u8]) -> Option<Vec<u8>> {
    let kind = check_block(table_id, offset, stored).ok()?;
    let raw = &stored[..stored.len() - BLOCK_TRAILER_LEN];
    if kind == RAW {
        return Some(raw.to_vec());
    }
    decompress(kind, raw).ok().map(|block| block.slice.to_vec())
}

/// Takes block after block from the start of the file, each found by its checksum.
fn seek_blocks(
    file: &dyn ReadableFile,
    table_id: u64,
    rows: &mut Rows,
    take: &mut impl FnMut(InternalKey<'_>, &[u8]) -> Result<()>,
) -> Result<Salvaged> {
    let mut found = Salvaged::default();
    let mut offset = 0;
    while offset < file.len() {
        let left = usize::try_from(file.len() - offset).unwrap_or(usize::MAX);
        let Some(bytes) = read(file, offset, left.min(MAX_SOUGHT)) else {
            break;
        };
        let Some(len) = block_at(table_id, offset, &bytes) else {
            break;
        };
        let Some(block) = unpack(table_id, offset, &bytes[..len]) else {
            break;
        };
        if rows.of_block(&block, take)? {
            found.good += 1;
        } else {
            // The first block behind the data: range tombstones, or the filter or index, and then there are none.
            let tombstones = decode_tombstones(&block, None);
            found.tombstones = tombstones.ok().map(|(tombstones, _)| tombstones);
            break;
        }
        offset += len as u64;
    }
    Ok(found)
}

/// Bytes, with its trailer, of the block that begins at `offset`, with the first of `bytes`.
fn block_at(table_id: u64, offset: u64, bytes: &[u8]) -> Option<usize> {
    let mut seed = [0; 16];
    LittleEndian::write_u64_into(&[table_id, offset], &mut seed);
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&seed);
    let mut hashed = 0;
    for at in 0..bytes.len().saturating_sub(4) {
        // The last byte that is covered says how the block is compressed.
        if bytes[at] > ZSTD {
            continue;
        }
        hasher.update(&bytes[hashed..=at]);
        hashed = at + 1;
        let crc = LittleEndian::read_u32(&bytes[hashed..]);
        if hasher.clone().finalize() == crc {
            return Some(hashed + 4);
        }
    }
    None
}

/// The block, or the record of a value file, at the start of `bytes`, which stand at `offset` of file `id`: its bytes
/// with its trailer, and what it holds.
pub(crate) fn find_block(id: u64, offset: u64, bytes: &[u8]) -> Option<(usize, Vec<u8>)> {
    let len = block_at(id, offset, bytes)?;
    Some((len, unpack(id, offset, &bytes[..len])?))
}

/// User key, trailer, and where the value stands in the block.
type Row = (Vec<u8>, u64, std::ops::Range<usize>);

/// The rows so far.
#[derive(Default)]
struct Rows {
    key: Vec<u8>,
    last: Option<(Vec<u8>, u64)>,
}

impl Rows {
    /// Hands out the rows of a block; false where it is no data block, or its rows are not above those before.
    fn of_block(
        &mut self,
        block: &[u8],
        take: &mut impl FnMut(InternalKey<'_>, &[u8]) -> Result<()>,
    ) -> Result<bool> {
        let Some(entries) = self.entries(block) else {
            return Ok(false);
        };
        for (key, trailer, value) in entries {
            let key = InternalKey {
                user_key: &key,
                trailer,
            };
            take(key, &block[value])?;
            self.last = Some((key.user_key.to_vec(), trailer));
        }
        Ok(true)
    }

    fn entries(&mut self, block: &[u8]) -> Option<Vec<Row>> {
        let view = BlockView::parse(block).ok()?;
        let mut at = Place {
            key: 0,
            value: view.keys.len(),
        };
        let mut entries: Vec<Row> = Vec::new();
        self.key.clear();
        while at.key < view.keys.len() {
            let entry = Entry::decode(view.keys, at).ok()?;
            entry.check(view.values_end).ok()?;
            if entry.shared > self.key.len() {
                return None;
            }
            self.key.truncate(entry.shared);
            self.key.extend_from_slice(entry.suffix);
            let key = InternalKey {
                user_key: &self.key,
                trailer: entry.trailer,
            };
            let before = entries.last().map(|(key, trailer, _)| (key, *trailer));
            let before = before.or(self.last.as_ref().map(|(key, trailer)| (key, *trailer)));
            if before.is_some_and(|(user_key, trailer)| InternalKey { user_key, trailer } >= key) {
                return None;
            }
            entries.push((self.key.clone(), entry.trailer, entry.value()));
            at = entry.next;
        }
        (!entries.is_empty()).then_some(entries)
    }
}
