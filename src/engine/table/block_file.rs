//! A file of sealed blocks, written from its start to its end: tables and value files are such.
//!
//! Bytes are collected and handed to the file in large pieces; the whole-file checksum runs along. Each block's checksum
//! binds it to the file's random id and to its place.

use std::path::{Path, PathBuf};

use super::format::{BLOCK_TRAILER_LEN, BlockHandle, MAX_BLOCK_LEN, RAW, pack, seal_block};
use crate::{
    error::{Error, Result},
    fs::WritableFile,
    options::Compression,
};

/// Bytes collected before they are handed to the file.
const WRITE_BYTES: usize = 256 << 10;

/// The file, and what was put into it so far.
pub(crate) struct BlockFile {
    file: Box<dyn WritableFile>,
    path: PathBuf,
    id: u64,
    /// Bytes not yet handed to the file.
    pub(super) buffer: Vec<u8>,
    /// Bytes handed to the file.
    written: u64,
    crc: crc32fast::Hasher,
}

/// A block that was written.
pub(crate) struct Sealed {
    pub(crate) handle: BlockHandle,
    /// How it is compressed.
    pub(super) kind: u8,
    /// The checksum in its trailer.
    pub(crate) crc: u32,
}

impl BlockFile {
    /// Begins an empty file with the bytes `head`.
    pub(crate) fn new(file: Box<dyn WritableFile>, path: PathBuf, id: u64, head: Vec<u8>) -> Self {
        Self {
            file,
            path,
            id,
            buffer: head,
            written: 0,
            crc: crc32fast::Hasher::new(),
        }
    }

    /// The random number that its checksums are bound to.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file so far.
    pub(crate) fn offset(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Writes a block as it is.
    pub(super) fn block(&mut self, raw: &[u8]) -> Result<BlockHandle> {
        Ok(self.packed_block(raw, Compression::None)?.handle)
    }

    /// Writes a block compressed where that is worth it.
    ///
    /// # Errors
    /// The disk's; `InvalidArgument` for a block that is too large. The file is then useless.
    pub(crate) fn packed_block(&mut self, raw: &[u8], codec: Compression) -> Result<Sealed> {
        let start = self.buffer.len();
        let kind = pack(raw, codec, &mut self.buffer);
        self.seal(start, kind)
    }

    /// Writes a block as it is, as `fill` appends it.
    pub(super) fn filled_block(&mut self, fill: impl FnOnce(&mut Vec<u8>)) -> Result<BlockHandle> {
        let start = self.buffer.len();
        fill(&mut self.buffer);
        Ok(self.seal(start, RAW)?.handle)
    }

    /// Puts the trailer behind the block that begins at `start` of the buffer.
    fn seal(&mut self, start: usize, kind: u8) -> Result<Sealed> {
        let len = self.buffer.len() - start;
        if len > MAX_BLOCK_LEN {
            return Err(Error::invalid("a table with a block of more than 1 GiB"));
        }
        let len = u32::try_from(len).expect("at most MAX_BLOCK_LEN");
        let offset = self.written + start as u64;
        let crc = seal_block(&mut self.buffer, start, self.id, offset, kind);
        debug_assert_eq!(
            self.offset(),
            offset + u64::from(len) + BLOCK_TRAILER_LEN as u64
        );
        if self.buffer.len() >= WRITE_BYTES {
            self.write()?;
        }
        let handle = BlockHandle { offset, len };
        Ok(Sealed { handle, kind, crc })
    }

    fn write(&mut self) -> Result<()> {
        self.crc.update(&self.buffer);
        self.file
            .append(&self.buffer)
            .map_err(|error| Error::io("write", &self.path, error))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Writes the bytes `tail` and syncs; answers size and checksum of the file.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn finish(mut self, tail: &[u8]) -> Result<(u64, u32)> {
        self.buffer.extend_from_slice(tail);
        self.write()?;
        self.file
            .sync()
            .map_err(|error| Error::io("sync", &self.path, error))?;
        Ok((self.written, self.crc.finalize()))
    }
}
