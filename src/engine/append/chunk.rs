//! A chunk of an index: entries at consecutive indexes, as they are or packed.
//!
//! ```text
//! packed = group*, each of up to 32 entries; group = entry as it is, then what each is more than was expected of it
//! entry = seq varint | position varint | tag varint
//! ```
//! An entry is expected to have the sequence number of the one before, to stand behind it in the log, and to be as
//! long; in a block of packed values, to be the next one there. So most entries take three to seven bytes, where they take
//! twenty as they are. Nothing of this is on disk.

use std::{ops::Range, sync::Arc};

use crate::{
    coding::{Reader, put_varint},
    key::SequenceNumber,
};

use super::{Entry, Form, Tag, fetch::before_value};

/// Entries of a group: what a get of a packed one decodes at most.
const GROUP: usize = 32;

/// Entries at consecutive indexes.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    pub(super) first: u64,
    body: Body,
}

#[derive(Clone, Debug)]
enum Body {
    Open(Vec<Entry>),
    Packed(Packed),
}

#[derive(Clone, Debug)]
struct Packed {
    count: usize,
    /// Where each group begins.
    groups: Box<[u16]>,
    bytes: Box<[u8]>,
}

impl Chunk {
    /// A chunk of one entry.
    pub(super) fn new(first: u64, entry: Entry) -> Self {
        Self {
            first,
            body: Body::Open(vec![entry]),
        }
    }

    pub(super) fn len(&self) -> usize {
        match &self.body {
            Body::Open(entries) => entries.len(),
            Body::Packed(packed) => packed.count,
        }
    }

    pub(super) fn end(&self) -> u64 {
        self.first + self.len() as u64
    }

    /// The entry at an index.
    #[inline]
    pub(crate) fn get(&self, index: u64) -> Option<Entry> {
        let within = usize::try_from(index.checked_sub(self.first)?).ok()?;
        match &self.body {
            Body::Open(entries) => entries.get(within).copied(),
            Body::Packed(packed) => packed.get(within),
        }
    }

    /// Entries of a range of places in it, ascending.
    pub(super) fn entries(&self, places: Range<usize>) -> Box<dyn Iterator<Item = Entry> + '_> {
        match &self.body {
            Body::Open(entries) => Box::new(entries[places].iter().copied()),
            Body::Packed(packed) => Box::new(
                packed
                    .unpack()
                    .into_iter()
                    .skip(places.start)
                    .take(places.len()),
            ),
        }
    }

    /// The entries, to be changed; they are not packed from then on.
    pub(super) fn open(&mut self) -> &mut Vec<Entry> {
        if let Body::Packed(packed) = &self.body {
            self.body = Body::Open(packed.unpack());
        }
        match &mut self.body {
            Body::Open(entries) => entries,
            Body::Packed(_) => unreachable!("just unpacked"),
        }
    }

    /// The same chunk for who walks along it: not packed.
    pub(super) fn opened(self: &Arc<Self>) -> Arc<Self> {
        match &self.body {
            Body::Open(_) => Arc::clone(self),
            Body::Packed(packed) => Arc::new(Self {
                first: self.first,
                body: Body::Open(packed.unpack()),
            }),
        }
    }

    /// The same chunk in less memory; `None` where it is packed, or is not worth it.
    pub(super) fn packed(&self) -> Option<Self> {
        let Body::Open(entries) = &self.body else {
            return None;
        };
        let packed = Packed::new(entries)?;
        let is_less = packed.memory_bytes() < entries.capacity() * size_of::<Entry>();
        is_less.then_some(Self {
            first: self.first,
            body: Body::Packed(packed),
        })
    }

    /// Bytes of memory, about.
    pub(super) fn memory_bytes(&self) -> usize {
        let body = match &self.body {
            Body::Open(entries) => entries.capacity() * size_of::<Entry>(),
            Body::Packed(packed) => packed.memory_bytes(),
        };
        size_of::<Self>() + 16 + body
    }
}

/// What is expected behind an entry.
fn expected(before: Entry) -> (u64, u64, u32) {
    let tag = before.tag().bits();
    match before.tag().form() {
        Form::Plain { len } => {
            let end = before.pos().wrapping_add((before_value(len) + len) as u64);
            (before.seq().0, end, tag)
        }
        Form::Packed { .. } => (before.seq().0, before.pos(), Tag::bits_of_next(tag)),
    }
}

/// A difference, small where it is near zero on either side.
fn fold(difference: u64) -> u64 {
    difference << 1 ^ if difference >> 63 == 0 { 0 } else { u64::MAX }
}

fn unfold(folded: u64) -> u64 {
    folded >> 1 ^ if folded & 1 == 0 { 0 } else { u64::MAX }
}

impl Packed {
    /// `None` where it does not fit.
    fn new(entries: &[Entry]) -> Option<Self> {
        let (mut bytes, mut groups) = (Vec::new(), Vec::new());
        for group in entries.chunks(GROUP) {
            groups.push(u16::try_from(bytes.len()).ok()?);
            let mut wanted = (0, 0, 0);
            for &entry in group {
                let (seq, pos, tag) = wanted;
                put_varint(&mut bytes, fold(entry.seq().0.wrapping_sub(seq)));
                put_varint(&mut bytes, fold(entry.pos().wrapping_sub(pos)));
                let tag = u64::from(entry.tag().bits()).wrapping_sub(u64::from(tag));
                put_varint(&mut bytes, fold(tag));
                wanted = expected(entry);
            }
        }
        Some(Self {
            count: entries.len(),
            groups: groups.into(),
            bytes: bytes.into(),
        })
    }

    /// The entries of a group, as far as there are some.
    fn group(&self, group: usize) -> Option<impl Iterator<Item = Entry> + '_> {
        let at = usize::from(*self.groups.get(group)?);
        let mut reader = Reader::new(&self.bytes[at..]);
        let mut wanted = (0, 0, 0);
        let count = GROUP.min(self.count - group * GROUP);
        Some((0..count).map(move |_| {
            let mut next = |wanted: u64| {
                let folded = reader.varint().expect("packed here, in memory");
                wanted.wrapping_add(unfold(folded))
            };
            let (seq, pos) = (next(wanted.0), next(wanted.1));
            let tag = next(u64::from(wanted.2));
            let tag = u32::try_from(tag).expect("packed from 32 bits");
            let entry = Entry::new(SequenceNumber(seq), pos, Tag::from_bits(tag));
            wanted = expected(entry);
            entry
        }))
    }

    fn get(&self, within: usize) -> Option<Entry> {
        self.group(within / GROUP)?.nth(within % GROUP)
    }

    fn unpack(&self) -> Vec<Entry> {
        let mut entries = Vec::with_capacity(self.count);
        for group in 0..self.groups.len() {
            entries.extend(self.group(group).into_iter().flatten());
        }
        entries
    }

    fn memory_bytes(&self) -> usize {
        self.bytes.len() + self.groups.len() * size_of::<u16>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::SplitMix64;

    fn check(entries: &[Entry]) -> usize {
        let mut chunk = Chunk::new(100, entries[0]);
        chunk.open().extend_from_slice(&entries[1..]);
        let packed = Chunk {
            first: 100,
            body: Body::Packed(Packed::new(entries).expect("it fits")),
        };
        assert_eq!((packed.len(), packed.end()), (chunk.len(), chunk.end()));
        for index in 99..=packed.end() {
            assert_eq!(packed.get(index), chunk.get(index), "entry {index}");
        }
        assert_eq!(packed.clone().open(), entries);
        let part = entries.len() / 3..entries.len();
        assert!(
            packed
                .entries(part.clone())
                .eq(entries[part].iter().copied())
        );
        packed.memory_bytes()
    }

    #[test]
    fn packed_entries_come_back_whatever_they_are() {
        let mut random = SplitMix64(7);
        let below = |random: &mut SplitMix64, end: u64| {
            u32::try_from(random.next() % end).expect("within 32 bits")
        };
        for count in [1, 2, 31, 32, 33, 64, 500, 512] {
            let wild = |random: &mut SplitMix64| {
                let tag = match random.next() % 3 {
                    0 => Tag::packed(below(random, 4096), 4096, 65_000),
                    1 => Tag::plain(below(random, 512 << 20) as usize),
                    _ => Tag::plain(0),
                };
                let seq = random.next() >> 8 >> (random.next() % 56);
                Entry::new(
                    SequenceNumber(seq),
                    random.next() >> (random.next() % 64),
                    tag,
                )
            };
            let entries: Vec<_> = (0..count).map(|_| wild(&mut random)).collect();
            check(&entries);
        }
    }

    #[test]
    fn entries_of_a_log_take_few_bytes() {
        let (mut seq, mut pos) = (1 << 40, 1 << 45);
        let mut random = SplitMix64(9);
        let mut entry = |of_others: u64, len: usize| {
            let entry = Entry::new(SequenceNumber(seq), pos, Tag::plain(len));
            pos += (before_value(len) + len) as u64 + 45 + of_others * 300;
            seq += 1 + of_others;
            entry
        };
        // Alone, and beside 99 other prefixes.
        let alone: Vec<_> = (0..512).map(|_| entry(0, 256)).collect();
        assert!(check(&alone) <= 512 * 4, "{} bytes", check(&alone));
        let beside: Vec<_> = (0..512)
            .map(|at| entry(random.next() % 99, 200 + at * 37 % 100))
            .collect();
        assert!(check(&beside) <= 512 * 8, "{} bytes", check(&beside));
        let block: Vec<_> = (0..512_u32)
            .map(|at| Entry::new(SequenceNumber(5), 1000, Tag::packed(at, 512, 30_000)))
            .collect();
        assert!(check(&block) <= 512 * 4, "{} bytes", check(&block));
    }
}
