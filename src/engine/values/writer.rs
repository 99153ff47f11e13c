//! Writing a value file, front to back.
//!
//! Not here: the file as a row of sealed blocks (`table::BlockFile`), and making the directory entry durable, which is
//! the caller's.

use std::path::PathBuf;

use super::{ValueFileRecord, ValuePointer, file::header};
use crate::{error::Result, fs::WritableFile, options::Compression, table::BlockFile};

/// Writes one value file.
pub(crate) struct ValueWriter {
    out: BlockFile,
    number: u64,
    id: u64,
    compression: Compression,
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
            out: BlockFile::new(file, path, id, header(id).to_vec()),
            number,
            id,
            compression,
        }
    }

    /// Bytes of the file so far.
    pub(crate) fn size(&self) -> u64 {
        self.out.offset()
    }

    /// Appends a value; answers where it is.
    ///
    /// # Errors
    /// The disk's; the file is then useless.
    pub(crate) fn add(&mut self, value: &[u8]) -> Result<ValuePointer> {
        let record = self.out.packed_block(value, self.compression)?;
        let len = |bytes: usize| u32::try_from(bytes).expect("values are shorter than 4 GiB");
        Ok(ValuePointer {
            file: self.number,
            offset: record.handle.offset,
            stored: len(record.handle.stored_len()),
            len: len(value.len()),
            crc: record.crc,
        })
    }

    /// Writes what is left and makes the file durable.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn finish(self) -> Result<ValueFileRecord> {
        let (size, crc) = self.out.finish(&[])?;
        Ok(ValueFileRecord {
            number: self.number,
            id: self.id,
            size,
            crc,
        })
    }
}
