//! How a write batch takes the operations of append families, and how they get their place together.

use std::ops::Range;

use crate::{
    batch::{APPEND, APPEND_PACKED, REWRITE, TRUNCATE_BACK, TRUNCATE_FRONT, WriteBatch},
    coding::{put_slice, put_u32, put_varint},
    column_family::ColumnFamily,
    error::Result,
    key::{MAX_VALUE_LEN, SequenceNumber},
    options::Compression,
};

use super::{AppendFamily, Submitted, Tag, pack, segment::ValueCrc};

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AppendKind {
    Append,
    TruncateFront,
    TruncateBack,
    Rewrite,
}

/// An operation of a batch on an append family.
#[derive(Clone, Debug)]
pub(crate) struct AppendOp {
    pub(crate) kind: AppendKind,
    /// Which of the batch's families.
    family: usize,
    /// The prefix among the batch's prefixes.
    prefix: Range<usize>,
    /// First index of the values, or the index of the cut.
    pub(crate) first: u64,
    /// Its values among the batch's spans.
    spans: Range<usize>,
    /// Which operation of the batch it is.
    pub(crate) operation: u32,
}

/// A value in a batch's bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// Offset of its checksum, or of its block's.
    pub(crate) at: usize,
    pub(crate) tag: Tag,
    /// In a rewrite: the sequence number that it keeps.
    pub(crate) seq: SequenceNumber,
}

impl WriteBatch {
    /// Replaces every entry of `prefix` from index `first` on by `values`, at consecutive indexes. `cf` is an
    /// append family and `prefix` has its length. The write is refused (`InvalidArgument`, and nothing of the
    /// batch is done) where it would leave a gap: unless the prefix has no entries, `first` is at most the
    /// index behind the last one, as everything submitted before leaves it. Without values it is a
    /// [`WriteBatch::truncate_back`].
    pub fn append<V: AsRef<[u8]>>(
        &mut self,
        cf: &ColumnFamily,
        prefix: &[u8],
        first: u64,
        values: &[V],
    ) {
        if values.is_empty() {
            self.truncate_back(cf, prefix, first);
            return;
        }
        let bytes = values.iter().map(|value| value.as_ref().len());
        let is_large = bytes.fold(0_usize, usize::saturating_add) >= pack::PACK_FROM;
        if !is_large || cf.inner.options().compression[0] == Compression::None {
            self.append_plain(cf, prefix, first, values);
            return;
        }
        let mut at = 0;
        while at < values.len() {
            let (count, may_be_packed) = pack::group(&values[at..]);
            let (index, group) = (first.saturating_add(at as u64), &values[at..at + count]);
            if !may_be_packed || !self.append_packed(cf, prefix, index, group) {
                self.append_plain(cf, prefix, index, group);
            }
            at += count;
        }
    }

    fn append_plain<V: AsRef<[u8]>>(
        &mut self,
        cf: &ColumnFamily,
        prefix: &[u8],
        first: u64,
        values: &[V],
    ) {
        let values = values
            .iter()
            .map(|value| (SequenceNumber::ZERO, value.as_ref()));
        self.put_values(AppendKind::Append, cf, prefix, first, values);
    }

    /// Appends values as one block; false where it would not be smaller, and then nothing is appended.
    pub(crate) fn append_packed<V: AsRef<[u8]>>(
        &mut self,
        cf: &ColumnFamily,
        prefix: &[u8],
        first: u64,
        values: &[V],
    ) -> bool {
        let count = values.len();
        let crc = ValueCrc::new(cf.id(), prefix);
        let Some((block, values)) = pack::pack(&crc, first, values) else {
            return false;
        };
        let count = u32::try_from(count).expect("a group is bounded");
        if first.checked_add(u64::from(count)).is_none() {
            self.break_rule(format!("{count} entries from index {first} on"));
            return true;
        }
        if !self.begin_append(APPEND_PACKED, cf, prefix, block.len()) {
            return true;
        }
        put_varint(&mut self.bytes, first);
        let (at, from) = (self.bytes.len(), self.spans.len());
        self.bytes.extend_from_slice(&block);
        self.blocks.push((at, values));
        let seq = SequenceNumber::ZERO;
        let tags = (0..count).map(|number| Tag::packed(number, count, block.len()));
        self.spans.extend(tags.map(|tag| Span { at, tag, seq }));
        self.has_puts = true;
        self.note(AppendKind::Append, cf, prefix, first, from);
        true
    }

    /// Removes every entry of `prefix` below `index`; those that are absent are fine.
    pub fn truncate_front(&mut self, cf: &ColumnFamily, prefix: &[u8], index: u64) {
        self.cut(AppendKind::TruncateFront, cf, prefix, index);
    }

    /// Removes the entry of `prefix` at `index` and every one above; those that are absent are fine.
    pub fn truncate_back(&mut self, cf: &ColumnFamily, prefix: &[u8], index: u64) {
        self.cut(AppendKind::TruncateBack, cf, prefix, index);
    }

    fn cut(&mut self, kind: AppendKind, cf: &ColumnFamily, prefix: &[u8], index: u64) {
        let tag = match kind {
            AppendKind::TruncateFront => TRUNCATE_FRONT,
            _ => TRUNCATE_BACK,
        };
        if self.begin_append(tag, cf, prefix, 0) {
            put_varint(&mut self.bytes, index);
            self.note(kind, cf, prefix, index, self.spans.len());
        }
    }

    /// Appends an operation with values: those of an append, or of a rewrite with their sequence numbers.
    pub(crate) fn put_values<'v>(
        &mut self,
        kind: AppendKind,
        cf: &ColumnFamily,
        prefix: &[u8],
        first: u64,
        values: impl ExactSizeIterator<Item = (SequenceNumber, &'v [u8])> + Clone,
    ) {
        let is_rewrite = kind == AppendKind::Rewrite;
        let count = values.len() as u64;
        let lengths = values.clone().map(|(_, value)| value.len());
        if let Some(len) = lengths.clone().find(|&len| len > MAX_VALUE_LEN) {
            self.break_rule(format!("value of {len} bytes, limit {MAX_VALUE_LEN}"));
            return;
        }
        if first.checked_add(count).is_none() || u32::try_from(count).is_err() {
            self.break_rule(format!("{count} entries from index {first} on"));
            return;
        }
        // Checksum, length and sequence number take less than 24 bytes.
        let more = lengths.fold(0_usize, |sum, len| sum.saturating_add(len + 24));
        let tag = if is_rewrite { REWRITE } else { APPEND };
        if !self.begin_append(tag, cf, prefix, more) {
            return;
        }
        put_varint(&mut self.bytes, first);
        put_varint(&mut self.bytes, count);
        let crc = ValueCrc::new(cf.id(), prefix);
        let from = self.spans.len();
        self.bytes.reserve(more);
        // Asked for second, the indexes are not asked for one behind the last there is.
        for ((seq, value), index) in values.zip(first..) {
            if is_rewrite {
                put_varint(&mut self.bytes, seq.0);
            }
            let (at, tag) = (self.bytes.len(), Tag::plain(value.len()));
            put_u32(&mut self.bytes, crc.of(index, value));
            put_slice(&mut self.bytes, value);
            self.spans.push(Span { at, tag, seq });
        }
        self.has_puts |= !is_rewrite;
        self.note(kind, cf, prefix, first, from);
    }

    /// Kind, family and prefix; false when a rule is broken.
    fn begin_append(&mut self, tag: u8, cf: &ColumnFamily, prefix: &[u8], more: usize) -> bool {
        let Some(family) = &cf.inner.append else {
            self.break_rule(format!(
                "column family {:?} is not an append family",
                cf.name()
            ));
            return false;
        };
        if prefix.len() != family.prefix_bytes() {
            self.break_rule(format!(
                "prefix of {} bytes, those of column family {:?} have {}",
                prefix.len(),
                cf.name(),
                family.prefix_bytes()
            ));
            return false;
        }
        self.begin_any(tag, cf, prefix, more)
    }

    /// Keeps for submission and publication what was just encoded.
    fn note(
        &mut self,
        kind: AppendKind,
        cf: &ColumnFamily,
        prefix: &[u8],
        first: u64,
        from: usize,
    ) {
        // Kept apart from the payload, so that nothing has to be decoded again.
        let at = self.prefixes.len();
        self.prefixes.extend_from_slice(prefix);
        let known = self.families().iter().position(|known| known.same(cf));
        self.appends.push(AppendOp {
            kind,
            family: known.expect("the operation has named it"),
            prefix: at..self.prefixes.len(),
            first,
            spans: from..self.spans.len(),
            operation: self.count - 1,
        });
    }

    /// True where an operation is on an append family.
    pub(crate) fn has_appends(&self) -> bool {
        !self.appends.is_empty()
    }

    /// True where entries are cut off, and so segments may have become free.
    pub(crate) fn truncates(&self) -> bool {
        let is_cut = |op: &AppendOp| {
            matches!(
                op.kind,
                AppendKind::TruncateFront | AppendKind::TruncateBack
            )
        };
        self.appends.iter().any(is_cut)
    }

    /// The family of an operation, its prefix, and its values.
    pub(crate) fn parts(&self, op: &AppendOp) -> (&AppendFamily, &[u8], &[Span]) {
        let family = self.families()[op.family].inner.append.as_ref();
        (
            family.expect("checked when the operation was taken"),
            &self.prefixes[op.prefix.clone()],
            &self.spans[op.spans.clone()],
        )
    }

    /// Moves the submitted states of its prefixes, all or none; under the commit lock. The batch gets its place
    /// under the same lock, or this is taken back.
    pub(crate) fn submit_appends(&self) -> Result<Undo> {
        let mut undo = Undo(Vec::new());
        for op in &self.appends {
            let (family, prefix, spans) = self.parts(op);
            match family.submit(prefix, op.kind, op.first, spans.len() as u64) {
                Ok(before) => undo.0.push(before),
                Err(error) => {
                    self.unsubmit_appends(undo);
                    return Err(error);
                }
            }
        }
        Ok(undo)
    }

    /// Takes back what was submitted; under the same hold of the commit lock.
    pub(crate) fn unsubmit_appends(&self, undo: Undo) {
        let done: Vec<_> = self.appends.iter().zip(undo.0).collect();
        for (op, before) in done.into_iter().rev() {
            let (family, prefix, _) = self.parts(op);
            family.unsubmit(prefix, before);
        }
    }
}

/// The submitted states before a batch, by its operations.
pub(crate) struct Undo(Vec<Option<Submitted>>);
