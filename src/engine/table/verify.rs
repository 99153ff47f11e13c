//! Reading a whole table again, and checking every promise of the format.
//!
//! Bytes come through read calls, also where the table is mapped, and nothing verified earlier is trusted.

use std::path::Path;

use super::{
    Table,
    block::{BlockView, Bucket, Entry, Place, common_prefix},
    format::{Damage, MAX_BLOCK_LEN, RAW, check_block, decompress},
    index::IndexEntry,
    key_hash,
    open::Meta,
};
use crate::{
    clock::split_time,
    error::{Error, Result},
    fs::ReadableFile,
    key::{InternalKey, MAX_VALUE_LEN, SequenceNumber, ValueKind},
};

/// Bytes read at a time.
const CHUNK: usize = 1 << 20;

/// CRC of a whole file, read from its start to its end.
///
/// # Errors
/// The disk's.
pub(crate) fn file_crc(file: &dyn ReadableFile, path: &Path) -> Result<u32> {
    let mut chunks = Chunks::new(file, path);
    chunks.rest()?;
    Ok(chunks.crc.finalize())
}

impl Table {
    /// Reads every byte from the device, and checks it: checksums of file and blocks, order of keys,
    /// separators, filter, hash indexes, and what the properties say.
    ///
    /// # Errors
    /// The disk's; `Corruption` with the first damage found.
    pub(crate) fn verify(&self, whole_file_crc: u32) -> Result<()> {
        self.verify_told(whole_file_crc, |_| Ok(()))
    }

    /// The same; tells of bytes read as they are, and ends where that answers an error.
    pub(crate) fn verify_told(
        &self,
        whole_file_crc: u32,
        mut tell: impl FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let mut told = 0;
        let meta = self.read_meta()?;
        let index = meta.index_block.bytes(&*self.file);
        let mut chunks = Chunks::new(&*self.file, &self.path);
        let mut seen = Seen::new(&meta, &*self.file);
        for ordinal in 0..meta.index.count() {
            let IndexEntry { separator, handle } = meta
                .index
                .entry(index, ordinal)
                .map_err(|what| self.damage(meta.index.data_end(), what))?;
            let damage = |what| self.damage(handle.offset, what);
            if handle.len() > MAX_BLOCK_LEN {
                return Err(damage("data block beyond the limit"));
            }
            if chunks.read > told {
                tell(chunks.read - told)?;
                told = chunks.read;
            }
            let stored = chunks.take(handle.stored_len())?;
            let kind =
                check_block(self.identity.table_id, handle.offset, stored).map_err(damage)?;
            let raw = &stored[..handle.len()];
            if kind == RAW {
                seen.block(raw, separator).map_err(damage)?;
            } else {
                seen.block(&decompress(kind, raw).map_err(damage)?.slice, separator)
                    .map_err(damage)?;
            }
        }
        seen.finish()
            .map_err(|what| self.damage(meta.index.data_end(), what))?;
        chunks.rest()?;
        tell(chunks.read - told)?;
        if chunks.crc.finalize() != whole_file_crc {
            return Err(self.damage(0, "checksum of the whole table does not fit"));
        }
        Ok(())
    }
}

/// What the entries so far add up to.
struct Seen<'a> {
    meta: &'a Meta,
    filter: Option<&'a [u8]>,
    /// The last key, and the trailer of its entry.
    key: Vec<u8>,
    trailer: u64,
    /// The separator of the block before.
    separator: Option<InternalKey<'a>>,
    first: Vec<u8>,
    entries: u64,
    deletes: u64,
    min_seq: SequenceNumber,
    max_seq: SequenceNumber,
    times: Option<(u64, u64)>,
}

impl<'a> Seen<'a> {
    fn new(meta: &'a Meta, file: &'a dyn ReadableFile) -> Self {
        Self {
            meta,
            filter: meta.filter.as_ref().map(|(_, block)| block.bytes(file)),
            key: Vec::new(),
            trailer: 0,
            separator: None,
            first: Vec::new(),
            entries: 0,
            deletes: 0,
            min_seq: SequenceNumber::MAX,
            max_seq: SequenceNumber::ZERO,
            times: None,
        }
    }

    /// Checks a data block and the separator behind it.
    fn block(&mut self, block: &[u8], separator: InternalKey<'a>) -> Result<(), Damage> {
        let view = BlockView::parse(block)?;
        let mut at = Place {
            key: 0,
            value: view.keys.len(),
        };
        let mut restarts = 0;
        while at.key < view.keys.len() {
            let restart = restarts < view.restarts() && view.restart(restarts) == at;
            restarts += usize::from(restart);
            at = self.entry(block, &view, at, restart, restarts)?;
        }
        if restarts != view.restarts() {
            return Err("restart point where no entry begins");
        }
        if at.value != view.values_end {
            return Err("bytes between the values and the hash index");
        }
        if self.last() > separator {
            return Err("separator below its block");
        }
        self.separator = Some(separator);
        Ok(())
    }

    fn last(&self) -> InternalKey<'_> {
        InternalKey {
            user_key: &self.key,
            trailer: self.trailer,
        }
    }

    /// Checks one entry; answers where the next begins.
    fn entry(
        &mut self,
        block: &[u8],
        view: &BlockView<'_>,
        at: Place,
        restart: bool,
        restarts: usize,
    ) -> Result<Place, Damage> {
        let entry = Entry::decode(view.keys, at)?;
        entry.check(view.values_end)?;
        if entry.shared > self.key.len() || (restart && entry.shared != 0) {
            return Err("entry shares more than there is");
        }
        if !restart && common_prefix(&self.key[entry.shared..], entry.suffix) != 0 {
            return Err("entry shares less than it must");
        }
        let before = (self.entries > 0).then(|| (self.key.clone(), self.trailer));
        self.key.truncate(entry.shared);
        self.key.extend_from_slice(entry.suffix);
        self.trailer = entry.trailer;
        if let Some((user_key, trailer)) = before {
            if (InternalKey {
                user_key: &user_key,
                trailer,
            }) >= self.last()
            {
                return Err("keys out of order");
            }
        } else {
            self.first.clone_from(&self.key);
        }
        if self
            .separator
            .is_some_and(|separator| separator >= self.last())
        {
            return Err("separator above the next block");
        }
        self.count(&block[entry.value()])?;
        let hash = key_hash(&self.key);
        if let (Some((shape, _)), Some(filter)) = (&self.meta.filter, self.filter)
            && !shape.may_contain(filter, hash)
        {
            return Err("key is not in the filter");
        }
        match view.bucket(hash) {
            Bucket::Absent => return Err("key is not in the hash index"),
            Bucket::At(interval) if interval != restarts - 1 => {
                return Err("hash index points past a key");
            }
            Bucket::At(_) | Bucket::Unknown => {}
        }
        Ok(entry.next)
    }

    /// Adds the current entry to the sums.
    fn count(&mut self, value: &[u8]) -> Result<(), Damage> {
        let seq = self.last().seq();
        self.entries += 1;
        self.min_seq = self.min_seq.min(seq);
        self.max_seq = self.max_seq.max(seq);
        if self.last().kind() == Some(ValueKind::Delete) {
            self.deletes += 1;
            if !value.is_empty() {
                return Err("delete with a value");
            }
        }
        if value.len() > MAX_VALUE_LEN {
            return Err("value beyond the limit");
        }
        if self.meta.properties.times.is_some() && self.last().kind() == Some(ValueKind::Put) {
            let (_, time) = split_time(value).ok_or("value without a time")?;
            let (oldest, newest) = self.times.unwrap_or((time, time));
            self.times = Some((oldest.min(time), newest.max(time)));
        }
        Ok(())
    }

    /// Compares the sums with the properties.
    fn finish(&self) -> Result<(), Damage> {
        let properties = &self.meta.properties;
        if (self.entries, self.deletes) != (properties.entries, properties.deletes) {
            return Err("properties miscount the entries");
        }
        let mut bounds = (self.entries > 0).then(|| (self.first.clone(), self.key.clone(), false));
        let (mut min_seq, mut max_seq) = (self.min_seq, self.max_seq);
        for tombstone in self.meta.tombstones.all() {
            min_seq = min_seq.min(tombstone.seq);
            max_seq = max_seq.max(tombstone.seq);
            let (smallest, largest, exclusive) = bounds
                .get_or_insert_with(|| (tombstone.start.clone(), tombstone.end.clone(), true));
            if tombstone.start < *smallest {
                *smallest = tombstone.start;
            }
            if tombstone.end > *largest {
                (*largest, *exclusive) = (tombstone.end, true);
            }
        }
        let stated = (
            &properties.smallest,
            &properties.largest,
            properties.largest_exclusive,
        );
        match &bounds {
            Some((smallest, largest, exclusive)) if (smallest, largest, *exclusive) == stated => {}
            _ => return Err("properties misstate the bounds"),
        }
        if (min_seq, max_seq) != (properties.min_seq, properties.max_seq) {
            return Err("properties misstate the sequence numbers");
        }
        if self.times != properties.times {
            return Err("properties misstate the times");
        }
        Ok(())
    }
}

/// A file read in order, in large pieces, with its checksum.
struct Chunks<'a> {
    file: &'a dyn ReadableFile,
    path: &'a Path,
    /// Bytes of the file read so far.
    read: u64,
    buffer: Vec<u8>,
    /// Where the bytes not yet taken begin in `buffer`.
    taken: usize,
    crc: crc32fast::Hasher,
}

impl<'a> Chunks<'a> {
    fn new(file: &'a dyn ReadableFile, path: &'a Path) -> Self {
        Self {
            file,
            path,
            read: 0,
            buffer: Vec::new(),
            taken: 0,
            crc: crc32fast::Hasher::new(),
        }
    }

    /// The next `len` bytes, which the caller knows to be in the file.
    fn take(&mut self, len: usize) -> Result<&[u8]> {
        let have = self.buffer.len() - self.taken;
        if have < len {
            self.buffer.drain(..self.taken);
            self.taken = 0;
            let left = usize::try_from(self.file.len() - self.read).unwrap_or(usize::MAX);
            let more = CHUNK.max(len - have).min(left);
            self.buffer.resize(have + more, 0);
            let new = &mut self.buffer[have..];
            self.file
                .read_at(self.read, new)
                .map_err(|error| Error::io("read", self.path, error))?;
            self.crc.update(new);
            self.read += more as u64;
        }
        let bytes = self
            .buffer
            .get(self.taken..self.taken + len)
            .ok_or_else(|| Error::corruption(self.path, self.read, "table ends within a block"))?;
        self.taken += len;
        Ok(bytes)
    }

    /// Reads to the end of the file.
    fn rest(&mut self) -> Result<()> {
        self.taken = self.buffer.len();
        while self.read < self.file.len() {
            self.take(1)?;
            self.taken = self.buffer.len();
        }
        Ok(())
    }
}
