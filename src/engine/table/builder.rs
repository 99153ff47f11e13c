//! Writing a table, front to back.
//!
//! Not here: the file as a row of sealed blocks (`block_file`), the layout of a block (`block_builder`, `index`, `filter`, `format`), and making the directory
//! entry durable, which is the caller's.

use std::path::PathBuf;

use super::{
    TableInfo,
    block_builder::{BlockBuilder, ENTRY_OVERHEAD},
    block_file::BlockFile,
    filter::FilterBuilder,
    format::{BlockHandle, Footer, MAX_BLOCK_LEN, Properties, ZSTD, encode_tombstones},
    index::{IndexBuilder, shortest_separator},
    key_hash,
};
use crate::{
    clock::split_time,
    error::{Error, Result},
    fs::WritableFile,
    key::{InternalKey, MAX_KEY_LEN, MAX_VALUE_LEN, RangeTombstone, SequenceNumber, ValueKind},
    options::{CfOptions, Compression, LEVELS},
    tombstones::Tombstones,
};

/// Largest data block that is filled up with several entries, whatever the options say.
const MAX_FILL: usize = 64 << 20;

// The largest entry in a block of its own stays below the limit.
const _: () =
    assert!(MAX_FILL + MAX_KEY_LEN + MAX_VALUE_LEN + ENTRY_OVERHEAD < MAX_BLOCK_LEN / 4 * 3);

/// Writes one table.
pub(crate) struct TableBuilder {
    out: BlockFile,
    compression: Compression,
    block_bytes: usize,
    filter_bits: usize,
    block: BlockBuilder,
    /// A block before its compression.
    raw: Vec<u8>,
    index: IndexBuilder,
    filter: FilterBuilder,
    /// The block that was written last, while its separator waits for the next key.
    pending: Option<BlockHandle>,
    tombstones: Vec<RangeTombstone>,
    /// Last key added.
    last: Vec<u8>,
    last_trailer: u64,
    separator: Vec<u8>,
    properties: Properties,
    /// Values have a time behind them.
    has_times: bool,
}

impl TableBuilder {
    /// Begins a table in an empty file. `table_id` is random; `level` chooses the compression.
    pub(crate) fn new(
        file: Box<dyn WritableFile>,
        path: PathBuf,
        table_id: u64,
        options: &CfOptions,
        level: usize,
    ) -> Self {
        Self {
            out: BlockFile::new(file, path, table_id, Vec::new()),
            compression: options.compression[level.min(LEVELS - 1)],
            block_bytes: options.block_bytes.clamp(1, MAX_FILL),
            filter_bits: options.filter_bits_per_key,
            block: BlockBuilder::new(options.restart_interval),
            raw: Vec::new(),
            index: IndexBuilder::default(),
            filter: FilterBuilder::default(),
            pending: None,
            tombstones: Vec::new(),
            last: Vec::new(),
            last_trailer: 0,
            separator: Vec::new(),
            properties: Properties {
                data_blocks: 0,
                entries: 0,
                deletes: 0,
                tombstones: 0,
                min_seq: SequenceNumber::MAX,
                max_seq: SequenceNumber::ZERO,
                smallest: Vec::new(),
                largest: Vec::new(),
                largest_exclusive: false,
                zstd: false,
                times: None,
            },
            has_times: options.ttl.is_some(),
        }
    }

    /// True where `key` is above the last one added.
    pub(crate) fn may_follow(&self, key: InternalKey<'_>) -> bool {
        let last = InternalKey {
            user_key: &self.last,
            trailer: self.last_trailer,
        };
        self.properties.entries == 0 || last < key
    }

    /// Adds an entry. Internal keys ascend.
    ///
    /// # Errors
    /// The disk's; the table is then useless.
    ///
    /// # Panics
    /// When the key is not above the one before.
    pub(crate) fn add(&mut self, key: InternalKey<'_>, value: &[u8]) -> Result<()> {
        assert!(
            key.user_key.len() <= MAX_KEY_LEN && value.len() <= MAX_VALUE_LEN,
            "checked on entry"
        );
        debug_assert!(self.may_follow(key), "the last key is not before {key:?}");
        if self.properties.entries == 0 {
            self.properties.smallest = key.user_key.to_vec();
        }
        let more = key.user_key.len() + value.len() + ENTRY_OVERHEAD;
        if !self.block.is_empty() && self.block.size() + more > self.block_bytes {
            self.finish_block()?;
        }
        self.index_pending(Some(key))?;
        let hash = key_hash(key.user_key);
        if self.filter_bits > 0 {
            self.filter.add(hash);
        }
        self.block.add(key, hash, value);
        self.last.clear();
        self.last.extend_from_slice(key.user_key);
        self.last_trailer = key.trailer;
        self.properties.entries += 1;
        self.properties.deletes += u64::from(key.kind() == Some(ValueKind::Delete));
        self.note_seq(key.seq());
        if self.has_times && key.kind() == Some(ValueKind::Put) {
            self.note_time(value)?;
        }
        Ok(())
    }

    /// Adds a range tombstone, in any order, at any time.
    pub(crate) fn add_tombstone(&mut self, tombstone: &RangeTombstone) {
        self.tombstones.push(tombstone.clone());
    }

    /// Says that some block is of zstd.
    #[cfg(test)]
    pub(super) fn claim_zstd(&mut self) {
        self.properties.zstd = true;
    }

    /// True where a block may be of zstd.
    pub(crate) fn may_use_zstd(&self) -> bool {
        self.compression == Compression::Zstd
    }

    /// Bytes the file would have now, about.
    pub(crate) fn size_so_far(&self) -> u64 {
        let rest = self.block.size() + self.index.size() + self.filter.size(self.filter_bits);
        self.out.offset() + rest as u64
    }

    /// Writes what is left and makes the file durable; its directory entry is not.
    ///
    /// # Errors
    /// The disk's. `InvalidArgument` for a table without an entry or range tombstone.
    pub(crate) fn finish(mut self) -> Result<TableInfo> {
        self.finish_block()?;
        self.index_pending(None)?;
        let tombstones = Tombstones::new(std::mem::take(&mut self.tombstones));
        self.properties.data_blocks = self.index.count() as u64;
        self.properties.largest = std::mem::take(&mut self.last);
        self.note_tombstones(&tombstones);
        if self.properties.entries == 0 && self.properties.tombstones == 0 {
            return Err(Error::invalid("a table without an entry"));
        }
        let block = encode_tombstones(&tombstones);
        let tombstones = if block.is_empty() {
            None
        } else {
            Some(self.out.block(&block)?)
        };
        let filter = if self.filter_bits > 0 && self.properties.entries > 0 {
            Some(
                self.out
                    .block(&self.filter.finish(self.filter_bits, self.out.offset()))?,
            )
        } else {
            None
        };
        let index = self.out.block(&std::mem::take(&mut self.index).finish())?;
        let properties = self.out.block(&self.properties.encode())?;
        let table_id = self.out.id();
        let footer = Footer {
            table_id,
            index,
            filter,
            tombstones,
            properties,
        };
        let footer = footer.encode(self.out.offset());
        let (size, crc) = self.out.finish(&footer)?;
        Ok(self.properties.info(table_id, size, crc))
    }

    /// Writes the current block; its index entry follows when the next key is known.
    fn finish_block(&mut self) -> Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        self.pending = Some(match self.compression {
            Compression::None => self.out.filled_block(|buffer| self.block.finish(buffer))?,
            Compression::Lz4 | Compression::Zstd => {
                self.raw.clear();
                self.block.finish(&mut self.raw);
                let sealed = self.out.packed_block(&self.raw, self.compression)?;
                self.properties.zstd |= sealed.kind == ZSTD;
                sealed.handle
            }
        });
        self.block.clear();
        Ok(())
    }

    /// Puts the block that waits into the index, `next` being the first key behind it.
    fn index_pending(&mut self, next: Option<InternalKey<'_>>) -> Result<()> {
        let Some(handle) = self.pending.take() else {
            return Ok(());
        };
        let separator = match next {
            Some(next) if next.user_key == self.last => InternalKey {
                user_key: &self.last,
                trailer: self.last_trailer,
            },
            Some(next) => {
                shortest_separator(&self.last, next.user_key, &mut self.separator);
                InternalKey {
                    user_key: &self.separator,
                    trailer: 0,
                }
            }
            None => InternalKey {
                user_key: &self.last,
                trailer: 0,
            },
        };
        if self.index.add(separator, handle) {
            Ok(())
        } else {
            Err(Error::invalid("a table with an index of more than 4 GiB"))
        }
    }

    fn note_time(&mut self, value: &[u8]) -> Result<()> {
        let Some((_, time)) = split_time(value) else {
            let what = "a value without a time in a table of a family with a time to live";
            return Err(Error::corruption(self.out.path(), self.out.offset(), what));
        };
        let (oldest, newest) = self.properties.times.unwrap_or((time, time));
        self.properties.times = Some((oldest.min(time), newest.max(time)));
        Ok(())
    }

    fn note_seq(&mut self, seq: SequenceNumber) {
        self.properties.min_seq = self.properties.min_seq.min(seq);
        self.properties.max_seq = self.properties.max_seq.max(seq);
    }

    /// Widens the properties to the range tombstones.
    fn note_tombstones(&mut self, tombstones: &Tombstones) {
        for tombstone in tombstones.all() {
            self.note_seq(tombstone.seq);
            let first = self.properties.entries == 0 && self.properties.tombstones == 0;
            self.properties.tombstones += 1;
            if first || tombstone.start < self.properties.smallest {
                self.properties.smallest = tombstone.start;
            }
            if first || tombstone.end > self.properties.largest {
                self.properties.largest = tombstone.end;
                self.properties.largest_exclusive = true;
            }
        }
    }
}
