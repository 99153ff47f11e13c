//! `WriteBatch`: operations that become visible and durable all or none, in the bytes the log holds.
//!
//! ```text
//! payload = count u32 | operation*
//! operation = 0 delete        | family varint | key slice
//!           | 1 put           | family varint | key slice | value slice
//!           | 2 range delete  | family varint | start slice | end slice
//! ```
//! Operation `i` of a batch has the sequence number `first + i`. FORMAT.md, write batch.

use byteorder::{ByteOrder, LittleEndian};

use crate::{
    coding::{Reader, put_slice, put_varint},
    column_family::ColumnFamily,
    error::{Error, Result},
    key::{MAX_KEY_LEN, MAX_VALUE_LEN},
};

/// Most bytes a batch may hold once encoded.
pub const MAX_BATCH_BYTES: usize = 1024 * 1024 * 1024;
/// Bytes before the first operation.
const HEADER_LEN: usize = 4;

/// Most bytes an operation takes beside its keys and value.
const OPERATION_OVERHEAD: usize = 32;

const DELETE: u8 = 0;
const PUT: u8 = 1;
const DELETE_RANGE: u8 = 2;

/// Number of a column family; never reused within a database.
pub type FamilyId = u32;

/// Operations to be applied together, across any column families of one class (logged or unlogged).
///
/// Limits (keys, values, the batch as a whole) are checked by the write, which then changes nothing.
#[derive(Clone, Debug)]
pub struct WriteBatch {
    bytes: Vec<u8>,
    count: u32,
    has_puts: bool,
    /// Families named, each once, in order of first use; the write checks that they are of this database.
    families: Vec<ColumnFamily>,
    /// First broken rule, reported by the write.
    broken: Option<String>,
}

impl Default for WriteBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl WriteBatch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self {
            bytes: vec![0; HEADER_LEN],
            count: 0,
            has_puts: false,
            families: Vec::new(),
            broken: None,
        }
    }

    /// An empty batch with memory for one operation of `len` bytes.
    pub(crate) fn with_room(len: usize) -> Self {
        // More than that is refused, and needs no memory.
        let room = HEADER_LEN + len.min(MAX_BATCH_BYTES) + OPERATION_OVERHEAD;
        let mut bytes = Vec::with_capacity(room);
        bytes.resize(HEADER_LEN, 0);
        Self {
            bytes,
            count: 0,
            has_puts: false,
            families: Vec::with_capacity(1),
            broken: None,
        }
    }

    /// Sets `key` to `value`; keys up to [`MAX_KEY_LEN`], values up to [`MAX_VALUE_LEN`] bytes.
    pub fn put(&mut self, cf: &ColumnFamily, key: &[u8], value: &[u8]) {
        if value.len() > MAX_VALUE_LEN {
            self.break_rule(format!(
                "value of {} bytes, limit {MAX_VALUE_LEN}",
                value.len()
            ));
            return;
        }
        if self.begin(PUT, cf, key, value.len()) {
            put_slice(&mut self.bytes, value);
            self.has_puts = true;
        }
    }

    /// Removes `key`; one that is absent is fine.
    pub fn delete(&mut self, cf: &ColumnFamily, key: &[u8]) {
        self.begin(DELETE, cf, key, 0);
    }

    /// Removes every key in `start..end`. An empty range (`end <= start`) does nothing.
    pub fn delete_range(&mut self, cf: &ColumnFamily, start: &[u8], end: &[u8]) {
        if start >= end {
            return;
        }
        if end.len() > MAX_KEY_LEN {
            self.break_rule(format!("key of {} bytes, limit {MAX_KEY_LEN}", end.len()));
            return;
        }
        if self.begin(DELETE_RANGE, cf, start, end.len()) {
            put_slice(&mut self.bytes, end);
        }
    }

    /// Number of operations.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// True without operations.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes the batch takes in the log, without the record's header.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        self.bytes.len()
    }

    /// Removes all operations and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.truncate(HEADER_LEN);
        self.count = 0;
        self.has_puts = false;
        self.families.clear();
        self.broken = None;
    }

    /// Completes the encoded form.
    pub(crate) fn finish(&mut self) {
        LittleEndian::write_u32(&mut self.bytes[..HEADER_LEN], self.count);
    }

    /// The encoded form, once finished.
    pub(crate) fn encoded(&self) -> &[u8] {
        &self.bytes
    }

    /// True where no operation takes up room for long: such batches may pass on a full disk.
    pub(crate) fn deletes_only(&self) -> bool {
        !self.has_puts
    }

    /// Families named in the batch.
    pub(crate) fn families(&self) -> &[ColumnFamily] {
        &self.families
    }

    /// The first rule an operation broke.
    pub(crate) fn validate(&self) -> Result<()> {
        self.broken
            .as_ref()
            .map_or(Ok(()), |what| Err(Error::invalid(what.clone())))
    }

    /// Appends kind, family and first key; false when a rule is broken (and then nothing is appended).
    fn begin(&mut self, kind: u8, cf: &ColumnFamily, key: &[u8], more: usize) -> bool {
        if key.len() > MAX_KEY_LEN {
            self.break_rule(format!("key of {} bytes, limit {MAX_KEY_LEN}", key.len()));
            return false;
        }
        if self.bytes.len() + key.len() + more + OPERATION_OVERHEAD > MAX_BATCH_BYTES
            || self.count == u32::MAX
        {
            self.break_rule(format!("batch over its limit of {MAX_BATCH_BYTES} bytes"));
            return false;
        }
        if !self.families.iter().any(|known| known.same(cf)) {
            self.families.push(cf.clone());
        }
        self.bytes.push(kind);
        put_varint(&mut self.bytes, u64::from(cf.id()));
        put_slice(&mut self.bytes, key);
        self.count += 1;
        true
    }

    fn break_rule(&mut self, what: String) {
        self.broken.get_or_insert(what);
    }
}

/// One operation, borrowed from an encoded batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation<'a> {
    /// Removes a key.
    Delete {
        /// The key.
        key: &'a [u8],
    },
    /// Sets a key.
    Put {
        /// The key.
        key: &'a [u8],
        /// Its new value.
        value: &'a [u8],
    },
    /// Removes every key in `start..end`.
    DeleteRange {
        /// First key removed.
        start: &'a [u8],
        /// First key kept.
        end: &'a [u8],
    },
}

/// Walks the operations of an encoded batch; yields `Err(what is wrong)` once for damaged bytes.
#[derive(Clone, Debug)]
pub struct Operations<'a> {
    reader: Reader<'a>,
    left: u32,
}

impl<'a> Operations<'a> {
    /// The operations of `payload`; `None` when it is shorter than its header.
    #[must_use]
    pub fn new(payload: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(payload);
        let left = reader.u32()?;
        Some(Self { reader, left })
    }

    /// Number of operations not yet taken.
    #[must_use]
    pub fn remaining(&self) -> u32 {
        self.left
    }

    fn decode(&mut self) -> Option<(FamilyId, Operation<'a>)> {
        let kind = self.reader.u8()?;
        let family = self.reader.varint_u32()?;
        let key = self.reader.slice()?;
        let operation = match kind {
            DELETE => Operation::Delete { key },
            PUT => Operation::Put {
                key,
                value: self.reader.slice()?,
            },
            DELETE_RANGE => Operation::DeleteRange {
                start: key,
                end: self.reader.slice()?,
            },
            _ => return None,
        };
        Some((family, operation))
    }
}

impl<'a> Iterator for Operations<'a> {
    type Item = Result<(FamilyId, Operation<'a>), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            if self.reader.is_empty() {
                return None;
            }
            self.reader = Reader::new(&[]);
            return Some(Err("bytes after the last operation of a batch"));
        }
        self.left -= 1;
        let Some(item) = self.decode() else {
            self.left = 0;
            self.reader = Reader::new(&[]);
            return Some(Err("operation of a batch is cut or of unknown kind"));
        };
        Some(Ok(item))
    }
}
