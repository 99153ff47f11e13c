//! Opening a table: footer, index, filter, range tombstones and properties, verified before anything is read.
//!
//! Every handle is checked against the file, and all blocks together must fill it without a gap.

use std::{path::Path, sync::Arc};

use super::{
    TableIdentity,
    filter::FilterShape,
    format::{
        BlockHandle, FOOTER_LEN, Footer, MAX_BLOCK_LEN, Properties, RAW, check_block,
        decode_tombstones,
    },
    index::Index,
};
use crate::{
    error::{Error, Result},
    fs::ReadableFile,
    key::SequenceNumber,
    tombstones::Tombstones,
};

/// Verified bytes of a block behind the data, where they lie.
#[derive(Clone, Debug)]
pub(super) enum Block {
    /// In the map of the file.
    Mapped { start: usize, len: usize },
    /// In memory of its own.
    Shared(Arc<[u8]>),
}

impl Block {
    /// Bytes of memory, beside the map.
    pub(super) fn memory_bytes(&self) -> usize {
        match self {
            Self::Mapped { .. } => 0,
            Self::Shared(bytes) => bytes.len(),
        }
    }

    /// The bytes of a block of `file`.
    #[inline]
    pub(super) fn bytes<'a>(&'a self, file: &'a dyn ReadableFile) -> &'a [u8] {
        match self {
            Self::Mapped { start, len } => {
                let map = file.map().expect("a file that was mapped stays so");
                &map[*start..*start + *len]
            }
            Self::Shared(bytes) => bytes,
        }
    }
}

/// Everything of a table but its data blocks.
pub(super) struct Meta {
    pub(super) index: Index,
    pub(super) index_block: Block,
    pub(super) filter: Option<(FilterShape, Block)>,
    pub(super) tombstones: Tombstones,
    pub(super) properties: Properties,
}

/// A file, for reading the parts of a table that are verified at once.
pub(super) struct Source<'a> {
    pub(super) file: &'a dyn ReadableFile,
    pub(super) path: &'a Path,
    pub(super) identity: TableIdentity,
    /// Use the map, rather than read.
    pub(super) mapped: bool,
}

impl Source<'_> {
    fn damage(&self, offset: u64, what: impl Into<String>) -> Error {
        Error::corruption(self.path, offset, what)
    }

    /// `len` bytes at `offset`, which lie within the file.
    fn read(&self, offset: u64, len: usize) -> Result<Block> {
        let io = |error| Error::io("read", self.path, error);
        if self.mapped {
            let start =
                usize::try_from(offset).map_err(|_| self.damage(offset, "beyond memory"))?;
            self.file.populate(offset, len).map_err(io)?;
            return Ok(Block::Mapped { start, len });
        }
        let mut bytes = vec![0; len];
        self.file.read_at(offset, &mut bytes).map_err(io)?;
        Ok(Block::Shared(bytes.into()))
    }

    fn footer(&self) -> Result<Footer> {
        let TableIdentity { table_id, size } = self.identity;
        if self.file.len() != size {
            let what = format!("table has {} bytes instead of {size}", self.file.len());
            return Err(self.damage(self.file.len().min(size), what));
        }
        let Some(offset) = size.checked_sub(FOOTER_LEN as u64) else {
            return Err(self.damage(0, "table is shorter than its footer"));
        };
        let block = self.read(offset, FOOTER_LEN)?;
        let bytes = block
            .bytes(self.file)
            .first_chunk()
            .expect("as long as asked for");
        let footer = Footer::decode(bytes, offset).map_err(|what| self.damage(offset, what))?;
        if footer.table_id != table_id {
            return Err(self.damage(offset, "footer of another table"));
        }
        Ok(footer)
    }

    /// A block behind the data, verified.
    fn block(&self, handle: BlockHandle) -> Result<Block> {
        let end = self.identity.size - FOOTER_LEN as u64;
        if handle.len() > MAX_BLOCK_LEN || handle.end().is_none_or(|after| after > end) {
            return Err(self.damage(end, "footer names a block outside of the table"));
        }
        let stored = self.read(handle.offset, handle.stored_len())?;
        let damage = |what| self.damage(handle.offset, what);
        let bytes = stored.bytes(self.file);
        if check_block(self.identity.table_id, handle.offset, bytes).map_err(damage)? != RAW {
            return Err(damage("compressed block where none may be"));
        }
        Ok(match stored {
            Block::Mapped { start, .. } => Block::Mapped {
                start,
                len: handle.len(),
            },
            Block::Shared(bytes) => Block::Shared(bytes[..handle.len()].into()),
        })
    }

    /// Reads and verifies all of it.
    pub(super) fn meta(&self, global_seq: Option<SequenceNumber>) -> Result<Meta> {
        let footer = self.footer()?;
        let footer_at = self.identity.size - FOOTER_LEN as u64;
        let index_block = self.block(footer.index)?;
        let index = Index::parse(index_block.bytes(self.file))
            .map_err(|what| self.damage(footer.index.offset, what))?;
        footer
            .check_tiling(index.data_end(), footer_at)
            .map_err(|what| self.damage(footer_at, what))?;
        let at = footer.properties.offset;
        let properties = Properties::decode(self.block(footer.properties)?.bytes(self.file))
            .map_err(|what| self.damage(at, what))?;
        if properties.data_blocks != index.count() as u64 {
            return Err(self.damage(
                at,
                "properties and index differ in the number of data blocks",
            ));
        }
        let filter = match footer.filter {
            None => None,
            Some(handle) => {
                let block = self.block(handle)?;
                let shape = FilterShape::parse(block.bytes(self.file), handle.offset)
                    .map_err(|what| self.damage(handle.offset, what))?;
                Some((shape, block))
            }
        };
        let (tombstones, stored) = match footer.tombstones {
            None => (Tombstones::default(), 0),
            Some(handle) => decode_tombstones(self.block(handle)?.bytes(self.file), global_seq)
                .map_err(|what| self.damage(handle.offset, what))?,
        };
        if properties.tombstones != stored {
            return Err(self.damage(at, "properties miscount the range tombstones"));
        }
        Ok(Meta {
            index,
            index_block,
            filter,
            tombstones,
            properties,
        })
    }
}

impl TableIdentity {
    /// What a file from outside says of itself. It is a table only if it then opens.
    pub(crate) fn read(file: &dyn ReadableFile, path: &Path) -> Result<Self> {
        let size = file.len();
        let damage = |at, what| Error::corruption(path, at, what);
        let at = size.checked_sub(FOOTER_LEN as u64);
        let at = at.ok_or_else(|| damage(0, "table is shorter than its footer"))?;
        let mut footer = [0; FOOTER_LEN];
        file.read_at(at, &mut footer)
            .map_err(|error| Error::io("read", path, error))?;
        let footer = Footer::decode(&footer, at).map_err(|what| damage(at, what))?;
        Ok(Self {
            table_id: footer.table_id,
            size,
        })
    }
}
