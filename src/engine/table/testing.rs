//! Seams for the tests of the format: a table written and read as a whole.
//!
//! Hidden from the documentation and no promise to anyone; the engine does not use them.

use std::{path::Path, sync::Arc};

use super::{Table, TableBuilder, TableIdentity, file_crc};
use crate::{
    cache::BlockCache,
    error::{Error, Result},
    fs::{Fs, ReadMode},
    iter::InternalIterator,
    key::{InternalKey, RangeTombstone, SequenceNumber, ValueKind},
    options::CfOptions,
};

/// What is in a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// User key, sequence number, value or delete; in order.
    pub entries: Vec<(Vec<u8>, u64, Option<Vec<u8>>)>,
    /// Range tombstones: first key, first key after, sequence number.
    pub tombstones: Vec<(Vec<u8>, Vec<u8>, u64)>,
}

/// Writes a table with a given id, as for level 0.
///
/// # Errors
/// The disk's.
///
/// # Panics
/// When the entries are not in order.
pub fn write(
    fs: &dyn Fs,
    path: &Path,
    table_id: u64,
    options: &CfOptions,
    content: &Content,
) -> Result<()> {
    let file = fs
        .create(path)
        .map_err(|error| Error::io("create", path, error))?;
    let mut builder = TableBuilder::new(file, path.to_owned(), table_id, options, 0);
    for (key, seq, value) in &content.entries {
        let kind = if value.is_some() {
            ValueKind::Put
        } else {
            ValueKind::Delete
        };
        let key = InternalKey::new(key, SequenceNumber(*seq), kind);
        builder.add(key, value.as_deref().unwrap_or_default())?;
    }
    for (start, end, seq) in &content.tombstones {
        builder.add_tombstone(&RangeTombstone {
            start: start.clone(),
            end: end.clone(),
            seq: SequenceNumber(*seq),
        });
    }
    builder.finish().map(drop)
}

/// A block stored in the compressed kind `kind`, without its trailer, decompressed; `None` where it is no such block.
#[must_use]
pub fn decompress(kind: u8, stored: &[u8]) -> Option<Vec<u8>> {
    let block = super::format::decompress(kind, stored).ok()?;
    Some(block.slice.to_vec())
}

/// Reads a table, verifies it, and answers its id and what is in it.
///
/// # Errors
/// The disk's; `Corruption` where the bytes are no table.
pub fn read(fs: &dyn Fs, path: &Path, mode: ReadMode) -> Result<(u64, Content)> {
    let file = fs
        .open(path, mode)
        .map_err(|error| Error::io("open", path, error))?;
    let identity = TableIdentity::read(&*file, path)?;
    let crc = file_crc(&*file, path)?;
    let table = Arc::new(Table::open(
        file,
        path,
        1,
        &identity,
        None,
        BlockCache::with_pins(1 << 20, 1 << 20),
    )?);
    table.verify(crc)?;
    let mut content = Content::default();
    let mut iter = table.iter();
    iter.seek_to_first()?;
    while iter.valid() {
        let key = iter.key();
        let value = (key.kind() == Some(ValueKind::Put)).then(|| iter.value().to_vec());
        content
            .entries
            .push((key.user_key.to_vec(), key.seq().0, value));
        iter.next()?;
    }
    let tombstones = table.tombstones().all();
    content.tombstones = tombstones
        .map(|tombstone| (tombstone.start, tombstone.end, tombstone.seq.0))
        .collect();
    Ok((identity.table_id, content))
}
