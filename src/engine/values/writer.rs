//! Writing a value file, front to back.
//!
//! Not here: making the directory entry durable, which is the caller's.

use std::path::PathBuf;

use super::{
    ValueFileRecord, ValuePointer,
    file::{HEADER_LEN, header, record_crc},
};
use crate::{
    error::{Error, Result},
    fs::WritableFile,
    options::Compression,
    table::{pack, seal_block},
};

/// Bytes collected before they are handed to the file.
const WRITE_BYTES: usize = 256 << 10;

/// Writes one value file.
pub(crate) struct ValueWriter {
    file: Box<dyn WritableFile>,
    path: PathBuf,
    number: u64,
    id: u64,
    compression: Compression,
    /// Bytes not yet handed to the file.
    buffer: Vec<u8>,
    /// Bytes handed to the file.
    written: u64,
    crc: crc32fast::Hasher,
}

impl ValueWriter {
    /// Begins value file `number` in an empty file. `id` is random.
    pub(crate) fn new(
        file: Box<dyn WritableFile>,
        path: PathBuf,
        number: u64,
        id: u64,
        compression: Compression,
    ) -> Self {
        Self {
            file,
            path,
            number,
            id,
            compression,
            buffer: header(id).to_vec(),
            written: 0,
            crc: crc32fast::Hasher::new(),
        }
    }

    /// Bytes of the file so far.
    pub(crate) fn size(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Appends a value; answers where it is.
    ///
    /// # Errors
    /// The disk's; the file is then useless.
    pub(crate) fn add(&mut self, value: &[u8]) -> Result<ValuePointer> {
        let (start, offset) = (self.buffer.len(), self.size());
        let codec = pack(value, self.compression, &mut self.buffer);
        seal_block(&mut self.buffer, start, self.id, offset, codec);
        let record = &self.buffer[start..];
        let len = |bytes: usize| u32::try_from(bytes).expect("values are shorter than 4 GiB");
        let pointer = ValuePointer {
            file: self.number,
            offset,
            stored: len(record.len()),
            len: len(value.len()),
            crc: record_crc(record),
        };
        debug_assert!(offset >= HEADER_LEN as u64, "the header comes first");
        if self.buffer.len() >= WRITE_BYTES {
            self.write()?;
        }
        Ok(pointer)
    }

    /// Writes what is left and makes the file durable.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn finish(mut self) -> Result<ValueFileRecord> {
        self.write()?;
        self.file
            .sync()
            .map_err(|error| Error::io("sync", &self.path, error))?;
        Ok(ValueFileRecord {
            number: self.number,
            id: self.id,
            size: self.written,
            crc: self.crc.finalize(),
        })
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
}
