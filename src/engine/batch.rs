//! `WriteBatch`: operations that become visible and durable all or none, in the bytes the log holds.
//!
//! ```text
//! payload = count u32 | operation*
//! operation = 0 delete        | family varint | key slice
//!           | 1 put           | family varint | key slice | value slice
//!           | 2 range delete  | family varint | start slice | end slice
//!           | 3 append        | family varint | prefix slice | first varint | count varint | (crc u32 | value slice)*
//!           | 4 truncate front | family varint | prefix slice | index varint
//!           | 5 truncate back | family varint | prefix slice | index varint
//!           | 6 rewrite       | family varint | prefix slice | first varint | count varint | (seq varint | crc u32 | value slice)*
//!           | 7 packed append | family varint | prefix slice | first varint | block (`append/pack.rs`)
//!           | 16 merge        | family varint | key slice | operand slice
//! ```
//! 3 to 7 are those of append families, and only theirs; how a batch takes them is in `append/batch.rs`.
//! Operation `i` of a batch has the sequence number `first + i`. FORMAT.md, write batch.

use byteorder::{ByteOrder, LittleEndian};

use crate::{
    append::{AppendOp, Span, Tag, pack, pack::Block},
    clock::TIME_LEN,
    coding::{Reader, put_slice, put_varint},
    column_family::ColumnFamily,
    error::{Error, Result},
    key::{MAX_KEY_LEN, MAX_VALUE_LEN, SequenceNumber},
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
pub(crate) const APPEND: u8 = 3;
pub(crate) const TRUNCATE_FRONT: u8 = 4;
pub(crate) const TRUNCATE_BACK: u8 = 5;
pub(crate) const REWRITE: u8 = 6;
pub(crate) const APPEND_PACKED: u8 = 7;
// 8 to 15 are left to append families.
const MERGE: u8 = 16;

/// Number of a column family; never reused within a database.
pub type FamilyId = u32;

/// Operations to be applied together, across any column families of one class (logged or unlogged).
///
/// Limits (keys, values, the batch as a whole) are checked by the write, which then changes nothing.
#[derive(Clone, Debug)]
pub struct WriteBatch {
    pub(crate) bytes: Vec<u8>,
    pub(crate) count: u32,
    pub(crate) has_puts: bool,
    /// Where in `bytes` the time of the submission is to be put.
    stamps: Vec<usize>,
    /// Families named, each once, in order of first use; the write checks that they are of this database.
    families: Vec<ColumnFamily>,
    /// First broken rule, reported by the write.
    broken: Option<String>,
    /// The operations on append families, their prefixes back to back, and where their values stand in `bytes`.
    pub(crate) appends: Vec<AppendOp>,
    pub(crate) prefixes: Vec<u8>,
    pub(crate) spans: Vec<Span>,
    /// The blocks among them as they were before they were packed, by where they stand in `bytes`.
    pub(crate) blocks: Vec<(usize, Block)>,
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
            stamps: Vec::new(),
            families: Vec::new(),
            broken: None,
            appends: Vec::new(),
            prefixes: Vec::new(),
            spans: Vec::new(),
            blocks: Vec::new(),
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
            stamps: Vec::new(),
            families: Vec::with_capacity(1),
            broken: None,
            appends: Vec::new(),
            prefixes: Vec::new(),
            spans: Vec::new(),
            blocks: Vec::new(),
        }
    }

    /// Sets `key` to `value`; keys up to [`MAX_KEY_LEN`], values up to [`MAX_VALUE_LEN`] bytes (8 less in a family with a time to live).
    pub fn put(&mut self, cf: &ColumnFamily, key: &[u8], value: &[u8]) {
        let time_len = if cf.inner.ttl().is_some() {
            TIME_LEN
        } else {
            0
        };
        let limit = MAX_VALUE_LEN - time_len;
        if value.len() > limit {
            self.break_rule(format!("value of {} bytes, limit {limit}", value.len()));
            return;
        }
        if !self.begin(PUT, cf, key, value.len() + time_len) {
            return;
        }
        self.has_puts = true;
        if time_len == 0 {
            put_slice(&mut self.bytes, value);
        } else {
            put_varint(&mut self.bytes, (value.len() + time_len) as u64);
            self.bytes.extend_from_slice(value);
            self.stamps.push(self.bytes.len());
            self.bytes.extend_from_slice(&[0; TIME_LEN]);
        }
    }

    /// Changes the value of `key` by `operand`, as the merge operator of the family says
    /// ([`CfOptions::merge_operator`](crate::CfOptions::merge_operator)); operands are as long as values may be.
    pub fn merge(&mut self, cf: &ColumnFamily, key: &[u8], operand: &[u8]) {
        let given = cf.inner.merger().map_or_else(
            || {
                Err(format!(
                    "column family {:?} has no merge operator",
                    cf.name()
                ))
            },
            |merger| merger.check_given(),
        );
        if let Err(what) = given {
            self.break_rule(what);
            return;
        }
        if operand.len() > MAX_VALUE_LEN {
            self.break_rule(format!(
                "operand of {} bytes, limit {MAX_VALUE_LEN}",
                operand.len()
            ));
            return;
        }
        if self.begin(MERGE, cf, key, operand.len()) {
            put_slice(&mut self.bytes, operand);
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

    /// Removes every key from `start` on: two operations, as the longest key of the largest bytes ends a range.
    pub fn delete_from(&mut self, cf: &ColumnFamily, start: &[u8]) {
        let last = vec![u8::MAX; MAX_KEY_LEN];
        self.delete_range(cf, start, &last);
        self.delete(cf, &last);
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
        self.stamps.clear();
        self.families.clear();
        self.broken = None;
        self.appends.clear();
        self.prefixes.clear();
        self.spans.clear();
        self.blocks.clear();
    }

    /// Puts the time into rows that have one; `now` is asked only where there are some.
    pub(crate) fn stamp(&mut self, now: impl FnOnce() -> u64) {
        if self.stamps.is_empty() {
            return;
        }
        let now = now().to_le_bytes();
        for &at in &self.stamps {
            self.bytes[at..at + TIME_LEN].copy_from_slice(&now);
        }
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
        if cf.is_append() {
            self.break_rule(format!(
                "column family {:?} is an append family: it takes appends and truncations only",
                cf.name()
            ));
            return false;
        }
        self.begin_any(kind, cf, key, more)
    }

    /// The same for a family of any class.
    pub(crate) fn begin_any(
        &mut self,
        kind: u8,
        cf: &ColumnFamily,
        key: &[u8],
        more: usize,
    ) -> bool {
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

    pub(crate) fn break_rule(&mut self, what: String) {
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
    /// Changes a key by an operand.
    Merge {
        /// The key.
        key: &'a [u8],
        /// What the family's merge operator makes of it.
        operand: &'a [u8],
    },
    /// Removes every key in `start..end`.
    DeleteRange {
        /// First key removed.
        start: &'a [u8],
        /// First key kept.
        end: &'a [u8],
    },
    /// Replaces every entry of `prefix` from index `first` on by `values`.
    Append {
        /// What the keys begin with.
        prefix: &'a [u8],
        /// Index of the first value.
        first: u64,
        /// The values, at least one.
        values: Values<'a>,
    },
    /// Removes every entry of `prefix` below `index`.
    TruncateFront {
        /// What the keys begin with.
        prefix: &'a [u8],
        /// First index kept.
        index: u64,
    },
    /// Removes the entry of `prefix` at `index` and every one above.
    TruncateBack {
        /// What the keys begin with.
        prefix: &'a [u8],
        /// First index removed.
        index: u64,
    },
    /// The same as an append, of values that are stored compressed together.
    AppendPacked {
        /// What the keys begin with.
        prefix: &'a [u8],
        /// Index of the first value.
        first: u64,
        /// The values.
        block: Packed<'a>,
    },
    /// Says where entries stand from now on; they are the same as before.
    Rewrite {
        /// What the keys begin with.
        prefix: &'a [u8],
        /// Index of the first value.
        first: u64,
        /// The values with the sequence numbers of the operations that appended them; at least one.
        values: Values<'a>,
    },
}

impl Operation<'_> {
    /// True for the operations of append families.
    #[must_use]
    pub fn is_append(&self) -> bool {
        !matches!(
            self,
            Self::Delete { .. } | Self::Put { .. } | Self::Merge { .. } | Self::DeleteRange { .. }
        )
    }
}

/// The values of an append or a rewrite, borrowed from an encoded batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Values<'a> {
    bytes: &'a [u8],
    /// Where `bytes` stands in the payload.
    at: usize,
    count: u32,
    has_seqs: bool,
}

/// Values that are stored compressed together, borrowed from an encoded batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed<'a> {
    /// Offset of the block in the payload.
    pub at: usize,
    /// CRC over family, prefix, index of the first value, and `body`.
    pub crc: u32,
    /// Lengths and values.
    pub body: &'a [u8],
    count: u32,
}

impl<'a> Packed<'a> {
    fn decode(reader: &mut Reader<'a>) -> Option<Self> {
        let at = reader.position();
        let crc = reader.u32()?;
        let size = usize::try_from(reader.u32()?).ok()?;
        let body = reader.bytes(size)?;
        let count = pack::count(body).filter(|_| size <= pack::BODY_MAX)?;
        Some(Self {
            at,
            crc,
            body,
            count,
        })
    }

    /// The values, decompressed; `None` where that is not possible.
    #[must_use]
    pub fn values(&self) -> Option<Vec<Vec<u8>>> {
        let block = Block::unpack(self.body)?;
        let values = (0..self.count as usize).map(|at| {
            let range = block.value(at)?;
            Some(block.bytes().slice[range].to_vec())
        });
        values.collect()
    }

    /// How many.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// How its entries stand in it.
    pub(crate) fn tags(&self) -> impl Iterator<Item = Tag> {
        let (count, bytes) = (self.count, pack::HEAD_LEN + self.body.len());
        (0..count).map(move |at| Tag::packed(at, count, bytes))
    }
}

/// One value of an append or a rewrite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a> {
    /// Offset of its checksum in the payload; the value follows as a slice.
    pub at: usize,
    /// Sequence number of the append; zero in an append itself, where it is the operation's own.
    pub seq: SequenceNumber,
    /// CRC over family, prefix, index and the value.
    pub crc: u32,
    /// The value.
    pub bytes: &'a [u8],
}

impl<'a> Values<'a> {
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Never true: no operation without values is accepted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The values, in order of their indexes.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> {
        let (mut reader, at, has_seqs) = (Reader::new(self.bytes), self.at, self.has_seqs);
        std::iter::from_fn(move || Self::next(&mut reader, at, has_seqs))
    }

    fn next(reader: &mut Reader<'a>, base: usize, has_seqs: bool) -> Option<Value<'a>> {
        let seq = if has_seqs { reader.varint()? } else { 0 };
        let at = base + reader.position();
        let value = Value {
            at,
            seq: SequenceNumber(seq),
            crc: reader.u32()?,
            bytes: reader.slice()?,
        };
        let fits = value.bytes.len() <= MAX_VALUE_LEN && value.seq <= SequenceNumber::MAX;
        (fits && has_seqs == (seq > 0)).then_some(value)
    }

    /// Takes the values of an operation whose prefix was read.
    fn decode(reader: &mut Reader<'a>, has_seqs: bool) -> Option<(u64, Self)> {
        let first = reader.varint()?;
        let count = reader.varint_u32()?;
        first.checked_add(u64::from(count))?;
        let (at, rest) = (reader.position(), reader.rest());
        for _ in 0..count {
            Self::next(reader, 0, has_seqs)?;
        }
        let bytes = &rest[..reader.position() - at];
        let values = Self {
            bytes,
            at,
            count,
            has_seqs,
        };
        (count > 0).then_some((first, values))
    }
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
            MERGE => Operation::Merge {
                key,
                operand: self.reader.slice()?,
            },
            DELETE_RANGE => Operation::DeleteRange {
                start: key,
                end: self.reader.slice()?,
            },
            APPEND | REWRITE => {
                let (first, values) = Values::decode(&mut self.reader, kind == REWRITE)?;
                let prefix = key;
                if kind == APPEND {
                    Operation::Append {
                        prefix,
                        first,
                        values,
                    }
                } else {
                    Operation::Rewrite {
                        prefix,
                        first,
                        values,
                    }
                }
            }
            APPEND_PACKED => {
                let first = self.reader.varint()?;
                let block = Packed::decode(&mut self.reader)?;
                first.checked_add(u64::from(block.count))?;
                Operation::AppendPacked {
                    prefix: key,
                    first,
                    block,
                }
            }
            TRUNCATE_FRONT => Operation::TruncateFront {
                prefix: key,
                index: self.reader.varint()?,
            },
            TRUNCATE_BACK => Operation::TruncateBack {
                prefix: key,
                index: self.reader.varint()?,
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
