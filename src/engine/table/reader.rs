//! An open table: point lookups, and the blocks that iterators walk over.
//!
//! Index, filter, range tombstones and properties are verified when the table is opened, and kept or used in
//! place. A data block of a mapped table is verified at its first touch since then; one that is read through read
//! calls, each time it comes from the device. A lookup whose block is in a map or in the cache allocates nothing and
//! writes to nothing that is shared.
//!
//! Not here: the walk over the entries (`iter`), and reading everything again (`verify`).

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    KeyHash, SeqRule, TableIdentity, TableInfo, TableIter,
    block::{BlockView, Bucket},
    filter::FilterShape,
    format::{BlockHandle, Damage, Properties, RAW, check_block, decompress},
    held::Held,
    index::Index,
    open::{Block, Meta, Source},
};
use crate::{
    cache::{BlockBytes, BlockCache, Slots, share},
    error::{Error, Result},
    explain::BlockSource,
    fs::ReadableFile,
    key::{InternalKey, SequenceNumber, ValueKind, trailer_kind},
    memory::Charge,
    options::NO_ZSTD,
    slice::PinnedSlice,
    tombstones::Tombstones,
    values::ValuePointer,
};

/// Blocks whose two bits are in one word.
const BLOCKS_PER_WORD: usize = 32;
/// The two bits.
const VERIFIED: u64 = 1;
const COMPRESSED: u64 = 2;

/// How an iterator or a lookup wants a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Access {
    /// The range is in memory already.
    pub(super) populated: bool,
    /// Keep a copy in the cache.
    pub(super) keep: bool,
    /// The device may be waited for; else what it would have to be asked for is [`Error::Busy`].
    pub(super) wait: bool,
}

/// Stored bytes of a block beyond which a lookup that may not wait does not look whether they are in memory.
const MAX_PROBED_BLOCK: usize = 64 << 10;

/// What a lookup met on its way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Look {
    /// Whether the filter let the key through, where there is one.
    pub(crate) filter: Option<bool>,
    /// Where the data block was, and its stored bytes.
    pub(crate) block: Option<(BlockSource, usize)>,
    /// Trailer and length of the value.
    pub(crate) found: Option<(u64, usize)>,
}

/// An open table. Shared by its readers.
pub(crate) struct Table {
    pub(super) file: Arc<dyn ReadableFile>,
    pub(super) path: PathBuf,
    pub(super) identity: TableIdentity,
    pub(super) rule: SeqRule,
    number: u64,
    index: Index,
    index_block: Block,
    filter: Option<(FilterShape, Block)>,
    tombstones: Arc<Tombstones>,
    properties: Properties,
    /// Two bits for each data block of a mapped table: it has been verified; it is compressed, as was seen then.
    verified: Box<[AtomicU64]>,
    cache: Arc<BlockCache>,
    /// Its blocks in the cache; made with the first.
    slots: OnceLock<Arc<Slots>>,
    /// What it holds in memory beside its blocks.
    _charge: Charge,
}

impl Table {
    /// Opens the table in `file`, which must be what `expect` says. With `global_seq`, that is the sequence
    /// number of every entry and range tombstone.
    ///
    /// # Errors
    /// The disk's; `Corruption` where anything but a data block is not what was written.
    pub(crate) fn open(
        file: Arc<dyn ReadableFile>,
        path: &Path,
        number: u64,
        expect: &TableIdentity,
        global_seq: Option<SequenceNumber>,
        cache: Arc<BlockCache>,
    ) -> Result<Self> {
        let mapped = file.map().is_some();
        let source = Source {
            file: &*file,
            path,
            identity: *expect,
            mapped,
        };
        let Meta {
            index,
            index_block,
            filter,
            tombstones,
            properties,
        } = source.meta(global_seq)?;
        if properties.zstd && !cfg!(feature = "zstd") {
            return Err(Error::NotADatabase {
                path: path.to_owned(),
                what: NO_ZSTD.to_owned(),
            });
        }
        let bits = if mapped {
            index.count().div_ceil(BLOCKS_PER_WORD)
        } else {
            0
        };
        let tombstones = if tombstones.is_empty() {
            Tombstones::empty()
        } else {
            Arc::new(tombstones)
        };
        let held = size_of::<Self>()
            + index.memory_bytes()
            + index_block.memory_bytes()
            + filter.as_ref().map_or(0, |(_, block)| block.memory_bytes())
            + tombstones.memory_bytes()
            + bits * size_of::<AtomicU64>();
        let charge = cache.tables().charge(held);
        Ok(Self {
            _charge: charge,
            path: path.to_owned(),
            identity: *expect,
            rule: SeqRule::new(global_seq),
            number,
            index,
            index_block,
            filter,
            tombstones,
            properties,
            verified: (0..bits).map(|_| AtomicU64::new(0)).collect(),
            cache,
            slots: OnceLock::new(),
            file,
        })
    }

    /// The newest entry of the user key that is at or after `seek`: its trailer and its value, empty for a
    /// delete.
    ///
    /// # Errors
    /// The disk's; `Corruption`.
    pub(crate) fn get(
        &self,
        seek: InternalKey<'_>,
        hash: KeyHash,
    ) -> Result<Option<(u64, PinnedSlice)>> {
        self.pinned(seek, hash, true)
    }

    /// As [`Table::get`], but does not wait for the device. Index and filter are taken to be in memory.
    ///
    /// # Errors
    /// As [`Table::get`]; `Busy` where the block is not in memory.
    pub(crate) fn try_get(
        &self,
        seek: InternalKey<'_>,
        hash: KeyHash,
    ) -> Result<Option<(u64, PinnedSlice)>> {
        self.pinned(seek, hash, false)
    }

    fn pinned(
        &self,
        seek: InternalKey<'_>,
        hash: KeyHash,
        wait: bool,
    ) -> Result<Option<(u64, PinnedSlice)>> {
        self.lookup(seek, hash, wait, |block, trailer, value| {
            (trailer, block.pin(&self.file, value, self.cache.pins()))
        })
    }

    /// As [`Table::get`], but hands trailer and value to `found`, and copies nothing.
    ///
    /// # Errors
    /// The disk's; `Corruption`.
    pub(crate) fn get_with<R>(
        &self,
        seek: InternalKey<'_>,
        hash: KeyHash,
        found: impl FnOnce(u64, &[u8]) -> R,
    ) -> Result<Option<R>> {
        self.lookup(seek, hash, true, |block, trailer, value| {
            found(trailer, &block.bytes(&*self.file)[value])
        })
    }

    /// A cursor over the entries.
    pub(crate) fn iter(self: &Arc<Self>) -> TableIter {
        TableIter::new(Arc::clone(self), true)
    }

    /// A cursor whose blocks are not kept in the cache: for reading a whole table once.
    pub(crate) fn iter_once(self: &Arc<Self>) -> TableIter {
        TableIter::new(Arc::clone(self), false)
    }

    /// The range tombstones.
    pub(crate) fn tombstones(&self) -> &Arc<Tombstones> {
        &self.tombstones
    }

    /// True where some blocks are of zstd.
    pub(crate) fn has_zstd(&self) -> bool {
        self.properties.zstd
    }

    /// What the table says of itself; `crc` is that of the whole file.
    pub(crate) fn info(&self, crc: u32) -> TableInfo {
        self.properties
            .info(self.identity.table_id, self.identity.size, crc)
    }

    /// Everything but the data blocks, read once more, with sequence numbers as stored.
    pub(super) fn read_meta(&self) -> Result<Meta> {
        let (file, path) = (&*self.file, &*self.path);
        Source {
            file,
            path,
            identity: self.identity,
            mapped: false,
        }
        .meta(None)
    }

    pub(super) fn damage(&self, offset: u64, what: impl Into<String>) -> Error {
        Error::corruption(&self.path, offset, what)
    }

    /// Number of data blocks.
    pub(super) fn data_blocks(&self) -> usize {
        self.index.count()
    }

    /// The first data block that can hold an entry at or after `target`.
    #[inline]
    pub(super) fn find_block(&self, target: InternalKey<'_>) -> Result<Option<usize>> {
        let index = self.index_block.bytes(&*self.file);
        self.index
            .find(index, target, self.rule)
            .map_err(|what| self.index_damage(what))
    }

    /// Where a data block stands.
    #[inline]
    pub(super) fn handle(&self, ordinal: usize) -> BlockHandle {
        self.index.handle(ordinal)
    }

    /// End of the data blocks in the file.
    pub(super) fn data_end(&self) -> u64 {
        self.index.data_end()
    }

    fn index_damage(&self, what: Damage) -> Error {
        // The index was good when the table was opened: it has changed under the map.
        let at = match self.index_block {
            Block::Mapped { start, .. } => start as u64,
            Block::Shared(_) => self.index.data_end(),
        };
        self.damage(at, what)
    }

    /// The lookup of [`Table::get`], told step by step.
    ///
    /// # Errors
    /// As [`Table::get`].
    pub(crate) fn look(&self, seek: InternalKey<'_>, hash: KeyHash) -> Result<Look> {
        let filter = self.filter.as_ref();
        let passes = filter.map(|(shape, block)| shape.may_contain(block.bytes(&*self.file), hash));
        let mut look = Look {
            filter: passes,
            ..Look::default()
        };
        if passes == Some(false) {
            return Ok(look);
        }
        let Some(ordinal) = self.find_block(seek)? else {
            return Ok(look);
        };
        let handle = self.handle(ordinal);
        let was_cached = self
            .slots
            .get()
            .is_some_and(|slots| slots.get(ordinal).is_some());
        let access = Access {
            populated: false,
            keep: true,
            wait: true,
        };
        let block = self.data_block(ordinal, handle, access)?;
        let found = find_in(block.bytes(&*self.file), seek, hash, self.rule)
            .map_err(|what| self.damage(handle.offset, what))?;
        let in_map = matches!(block, Held::Mapped { .. });
        let source = match (in_map, was_cached) {
            (true, _) => BlockSource::Map,
            (false, true) => BlockSource::Cache,
            (false, false) => BlockSource::File,
        };
        look.block = Some((source, handle.stored_len()));
        let bytes = block.bytes(&*self.file);
        look.found = found.map(|(trailer, value)| {
            let pointer = (trailer_kind(trailer) == Some(ValueKind::Pointer))
                .then(|| ValuePointer::decode(&bytes[value.clone()]))
                .flatten();
            let len = pointer.map_or(value.len(), ValuePointer::value_len);
            (trailer, len)
        });
        Ok(look)
    }

    /// Bytes of the data blocks.
    pub(crate) fn data_bytes(&self) -> u64 {
        self.index.data_end()
    }

    /// Where the data block begins that has the first entry at or after `user_key`.
    ///
    /// # Errors
    /// `Corruption`.
    pub(crate) fn offset_of(&self, user_key: &[u8]) -> Result<u64> {
        let block = self.find_block(InternalKey::seek_to(user_key, SequenceNumber::MAX))?;
        Ok(block.map_or(self.data_bytes(), |ordinal| self.handle(ordinal).offset))
    }

    /// Where the data block ends that has the first entry at or after `user_key`, if an entry before may be in it.
    ///
    /// # Errors
    /// `Corruption`.
    pub(crate) fn offset_behind(&self, user_key: &[u8]) -> Result<u64> {
        if *user_key <= *self.properties.smallest {
            return Ok(0);
        }
        let block = self.find_block(InternalKey::seek_to(user_key, SequenceNumber::MAX))?;
        let end = |ordinal| self.handle(ordinal).end();
        Ok(block.and_then(end).unwrap_or(self.data_bytes()))
    }

    /// Finds the entry, and hands its block, trailer and place of the value to `found`.
    fn lookup<R>(
        &self,
        seek: InternalKey<'_>,
        hash: KeyHash,
        wait: bool,
        found: impl FnOnce(&Held, u64, Range<usize>) -> R,
    ) -> Result<Option<R>> {
        if let Some((shape, block)) = &self.filter
            && !shape.may_contain(block.bytes(&*self.file), hash)
        {
            return Ok(None);
        }
        let Some(ordinal) = self.find_block(seek)? else {
            return Ok(None);
        };
        let handle = self.handle(ordinal);
        let block = self.data_block(
            ordinal,
            handle,
            Access {
                populated: false,
                keep: true,
                wait,
            },
        )?;
        let entry = find_in(block.bytes(&*self.file), seek, hash, self.rule)
            .map_err(|what| self.damage(handle.offset, what))?;
        // The entry is in this block or nowhere: where versions of a key go on in the next block, the
        // separator between the two is the last entry of this one.
        Ok(entry.map(|(trailer, value)| found(&block, trailer, value)))
    }

    /// A data block, verified and decompressed, for a short look.
    #[inline]
    pub(super) fn data_block(
        &self,
        ordinal: usize,
        handle: BlockHandle,
        access: Access,
    ) -> Result<Held> {
        if !access.wait {
            let seen = self.slots.get().map(|slots| slots.get(ordinal));
            if let Some(seen) = seen.filter(|seen| seen.is_some()) {
                return Ok(Held::Seen(seen));
            }
            let may_touch = self.file.map().is_some()
                && handle.stored_len() <= MAX_PROBED_BLOCK
                && self.file.is_resident(handle.offset, handle.stored_len());
            if !may_touch {
                return Err(Error::Busy("the block is not in memory".to_owned()));
            }
        }
        let Some(map) = self.file.map() else {
            return self.cached(ordinal, access.keep, || self.read_block(handle));
        };
        let damage = |what| self.damage(handle.offset, what);
        let range = usize::try_from(handle.offset)
            .ok()
            .and_then(|start| Some(start..start.checked_add(handle.stored_len())?));
        let range = range.ok_or_else(|| damage("data block beyond memory"))?;
        let stored = map
            .get(range.clone())
            .ok_or_else(|| damage("data block outside of the table"))?;
        let mut state = self.state(ordinal);
        if state & VERIFIED == 0 {
            state = self.verify_mapped(ordinal, handle, stored, access)?;
        }
        // Nothing of the map is touched where the block is in the cache.
        if state & COMPRESSED == 0 {
            return Ok(Held::Mapped {
                start: range.start,
                len: handle.len(),
            });
        }
        self.cached(ordinal, access.keep, || {
            decompress(stored[handle.len()], &stored[..handle.len()]).map_err(damage)
        })
    }

    /// A block out of the cache, or made and put there.
    #[inline]
    fn cached(
        &self,
        ordinal: usize,
        keep: bool,
        make: impl FnOnce() -> Result<BlockBytes>,
    ) -> Result<Held> {
        if let Some(slots) = self.slots.get() {
            let seen = slots.get(ordinal);
            if seen.is_some() {
                return Ok(Held::Seen(seen));
            }
        }
        let block = make()?;
        if keep {
            let slots = || self.cache.slots(self.data_blocks());
            let slots = self.slots.get_or_init(slots);
            self.cache.insert(slots, ordinal, block.clone());
        }
        Ok(Held::Counted(block))
    }

    /// Reads a data block from the device and verifies it.
    fn read_block(&self, handle: BlockHandle) -> Result<BlockBytes> {
        let damage = |what| self.damage(handle.offset, what);
        let mut stored = vec![0; handle.stored_len()];
        self.file
            .read_at(handle.offset, &mut stored)
            .map_err(|error| Error::io("read", &self.path, error))?;
        let kind = check_block(self.identity.table_id, handle.offset, &stored).map_err(damage)?;
        let raw = &stored[..handle.len()];
        if kind == RAW {
            Ok(share(raw))
        } else {
            decompress(kind, raw).map_err(damage)
        }
    }

    /// What is known of a block of a mapped table.
    #[inline]
    fn state(&self, ordinal: usize) -> u64 {
        // The bytes do not change, so no order with their reading is needed.
        let word = self.verified[ordinal / BLOCKS_PER_WORD].load(Ordering::Relaxed);
        word >> (2 * (ordinal % BLOCKS_PER_WORD))
    }

    #[cold]
    fn verify_mapped(
        &self,
        ordinal: usize,
        handle: BlockHandle,
        stored: &[u8],
        access: Access,
    ) -> Result<u64> {
        if !access.populated {
            self.file
                .populate(handle.offset, stored.len())
                .map_err(|error| Error::io("read", &self.path, error))?;
        }
        let kind = check_block(self.identity.table_id, handle.offset, stored)
            .map_err(|what| self.damage(handle.offset, what))?;
        let state = if kind == RAW {
            VERIFIED
        } else {
            VERIFIED | COMPRESSED
        };
        let bits = state << (2 * (ordinal % BLOCKS_PER_WORD));
        self.verified[ordinal / BLOCKS_PER_WORD].fetch_or(bits, Ordering::Relaxed);
        Ok(state)
    }

    /// True where reading a block ahead of its use makes sense: it lies in a map, and was not touched.
    pub(super) fn wants_populate(&self, ordinal: usize) -> bool {
        !self.verified.is_empty() && self.state(ordinal) & VERIFIED == 0
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table({}, {:?})", self.number, self.path)
    }
}

/// Trailer and place of the value of the newest entry of a user key at or after `seek`.
// A call of its own would cost each lookup thirty instructions.
#[inline(always)]
fn find_in(
    block: &[u8],
    seek: InternalKey<'_>,
    hash: KeyHash,
    rule: SeqRule,
) -> Result<Option<(u64, Range<usize>)>, Damage> {
    let view = BlockView::parse(block)?;
    let start = match view.bucket(hash) {
        Bucket::Absent => return Ok(None),
        Bucket::At(start) => start,
        Bucket::Unknown => view.restart_before(seek, rule)?,
    };
    let found = view
        .find_from(start, seek, rule)?
        .filter(|found| found.same_user_key);
    Ok(found.map(|found| (rule.apply(found.entry.trailer), found.entry.value())))
}
