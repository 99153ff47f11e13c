//! Reading a data block: keys with shared prefixes, values, a hash index, restart points (FORMAT.md, data
//! block).
//!
//! Keys stand apart from values, so that a search walks over few cache lines. Nothing here allocates: keys
//! are compared with the target where they lie. For each entry it is known how many bytes it shares with the
//! entry before, and for the entry before how many it shares with the target; mostly these two numbers decide
//! without a look at the key.
//!
//! Any bytes may come in; what does not parse is [`Damage`].

use std::{cmp::Ordering, ops::Range};

use byteorder::{ByteOrder, LittleEndian};

use super::{KeyHash, SeqRule, format::Damage, scale};
use crate::{
    coding::Reader,
    key::{InternalKey, MAX_KEY_LEN, TRAILER_LEN, trailer_kind},
};

/// Bytes at the end of a data block: lengths of its parts.
pub(super) const TAIL_LEN: usize = 10;
/// Bytes of a restart point.
pub(super) const RESTART_LEN: usize = 8;
/// Bucket of keys in more than one restart interval.
pub(super) const COLLISION: u8 = 254;
/// Bucket of no key.
pub(super) const ABSENT: u8 = 255;
/// Most restart points a block with a hash index has.
pub(super) const MAX_HASHED_RESTARTS: usize = 254;

/// Where an entry begins in a block: its key part, and its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) key: usize,
    pub(super) value: usize,
}

/// One entry, its key still without the part it shares with the entry before.
#[derive(Clone, Debug)]
pub(super) struct Entry<'a> {
    /// Bytes of the user key that are those of the entry before.
    pub(super) shared: usize,
    /// The rest of the user key.
    pub(super) suffix: &'a [u8],
    /// Trailer as stored.
    pub(super) trailer: u64,
    /// Where it begins.
    pub(super) at: Place,
    /// Where the next one begins; the value ends there.
    pub(super) next: Place,
}

impl<'a> Entry<'a> {
    /// Decodes the entry at `at` of a block whose key parts are `keys`. Nothing says yet that the block
    /// has all of the value.
    #[inline]
    pub(super) fn decode(keys: &'a [u8], at: Place) -> Result<Self, Damage> {
        const CUT: Damage = "entry is cut short or misspelt";
        let rest = keys.get(at.key..).ok_or(CUT)?;
        let (shared, unshared, value_len, used) = match *rest {
            [shared, unshared, value_len, ..] if (shared | unshared | value_len) < 0x80 => (
                usize::from(shared),
                usize::from(unshared),
                usize::from(value_len),
                3,
            ),
            _ => {
                let mut reader = Reader::new(rest);
                let mut number = || Some(reader.varint_u32()? as usize);
                let shared = number().ok_or(CUT)?;
                let unshared = number().ok_or(CUT)?;
                let value_len = number().ok_or(CUT)?;
                (shared, unshared, value_len, reader.position())
            }
        };
        let body = &rest[used..];
        if body.len() < TRAILER_LEN || body.len() - TRAILER_LEN < unshared {
            return Err(CUT);
        }
        let (trailer, body) = body.split_at(TRAILER_LEN);
        let next = Place {
            key: at.key + used + TRAILER_LEN + unshared,
            value: at.value.saturating_add(value_len),
        };
        let trailer = LittleEndian::read_u64(trailer);
        Ok(Self {
            shared,
            suffix: &body[..unshared],
            trailer,
            at,
            next,
        })
    }

    /// Bytes of the user key.
    pub(super) fn key_len(&self) -> usize {
        self.shared + self.suffix.len()
    }

    /// Where the value stands in the block.
    pub(super) fn value(&self) -> Range<usize> {
        self.at.value..self.next.value
    }

    /// Checks what only the entry the caller stops at must fulfil; values end at `values_end`.
    #[inline]
    pub(super) fn check(&self, values_end: usize) -> Result<(), Damage> {
        if self.next.value > values_end {
            return Err("value runs out of its block");
        }
        if trailer_kind(self.trailer).is_none() {
            return Err("entry of an unknown kind");
        }
        if self.key_len() > MAX_KEY_LEN {
            return Err("key beyond the limit");
        }
        Ok(())
    }
}

/// What the hash index says about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bucket {
    /// The key is not in the block.
    Absent,
    /// If the key is in the block, it is in the restart interval of this number.
    At(usize),
    /// It may be anywhere.
    Unknown,
}

/// The first entry at or after a target.
#[derive(Clone, Debug)]
pub(super) struct Found<'a> {
    /// The entry. What it shares with the entry before, it shares with the target.
    pub(super) entry: Entry<'a>,
    /// True where its user key is the target's.
    pub(super) same_user_key: bool,
}

/// A data block.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockView<'a> {
    /// The key parts of the entries, back to back.
    pub(super) keys: &'a [u8],
    /// Where the values end in the block.
    pub(super) values_end: usize,
    buckets: &'a [u8],
    restarts: &'a [u8],
}

impl<'a> BlockView<'a> {
    /// Finds the parts of a block.
    #[inline]
    pub(super) fn parse(block: &'a [u8]) -> Result<Self, Damage> {
        const CUT: Damage = "block is shorter than its parts";
        let at = block.len().checked_sub(TAIL_LEN).ok_or(CUT)?;
        let (rest, tail) = block.split_at(at);
        let keys = LittleEndian::read_u32(tail) as usize;
        let restarts = LittleEndian::read_u32(&tail[4..]) as usize;
        let buckets = usize::from(LittleEndian::read_u16(&tail[8..]));
        let at = restarts
            .checked_mul(RESTART_LEN)
            .and_then(|len| rest.len().checked_sub(len));
        let (rest, restarts) = rest.split_at(at.ok_or(CUT)?);
        let values_end = rest.len().checked_sub(buckets).ok_or(CUT)?;
        let (rest, buckets) = rest.split_at(values_end);
        let keys = rest.get(..keys).ok_or(CUT)?;
        if keys.is_empty() || restarts.is_empty() || LittleEndian::read_u64(restarts) != 0 {
            return Err("block without a first entry");
        }
        Ok(Self {
            keys,
            values_end,
            buckets,
            restarts,
        })
    }

    /// Number of restart points, at least one.
    pub(super) fn restarts(&self) -> usize {
        self.restarts.len() / RESTART_LEN
    }

    /// Where the entry at the restart point `index` begins, if that is not damage.
    #[inline]
    pub(super) fn restart(&self, index: usize) -> Place {
        let restart = &self.restarts[index * RESTART_LEN..];
        Place {
            key: LittleEndian::read_u32(restart) as usize,
            value: self.keys.len() + LittleEndian::read_u32(&restart[4..]) as usize,
        }
    }

    /// The last restart point that is before the entry at `end`.
    pub(super) fn restart_below(&self, end: Place) -> Result<Place, Damage> {
        let (mut low, mut high) = (0, self.restarts());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.restart(middle).key < end.key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let at = low.checked_sub(1).map(|low| self.restart(low));
        at.filter(|at| at.key < end.key)
            .ok_or("restart points out of order")
    }

    /// Asks the hash index.
    #[inline]
    pub(super) fn bucket(&self, hash: KeyHash) -> Bucket {
        let Ok(buckets @ 1..) = u32::try_from(self.buckets.len()) else {
            return Bucket::Unknown;
        };
        match self.buckets[scale(hash.low(), buckets)] {
            ABSENT => Bucket::Absent,
            COLLISION => Bucket::Unknown,
            index if usize::from(index) < self.restarts() => Bucket::At(usize::from(index)),
            _ => Bucket::Unknown,
        }
    }

    /// Number of the last restart point before `target`, or the first: from there on a linear search
    /// finds it.
    #[inline]
    pub(super) fn restart_before(
        &self,
        target: InternalKey<'_>,
        rule: SeqRule,
    ) -> Result<usize, Damage> {
        let (mut low, mut high) = (0, self.restarts());
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = Entry::decode(self.keys, self.restart(middle))?;
            if entry.shared != 0 {
                return Err("restart point shares a prefix");
            }
            let key = InternalKey {
                user_key: entry.suffix,
                trailer: rule.apply(entry.trailer),
            };
            if key < target {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low.saturating_sub(1))
    }

    /// The first entry at or after `target` of those from the restart point `index` on.
    #[inline]
    pub(super) fn find_from(
        &self,
        index: usize,
        target: InternalKey<'_>,
        rule: SeqRule,
    ) -> Result<Option<Found<'a>>, Damage> {
        let key = target.user_key;
        // Bytes that the entry before has in common with the target, and its length.
        let (mut matched, mut len) = (0, 0);
        let mut at = self.restart(index);
        while at.key < self.keys.len() {
            let entry = Entry::decode(self.keys, at)?;
            if entry.shared > len {
                return Err("entry shares more than there is");
            }
            len = entry.key_len();
            at = entry.next;
            // Where less is shared than matched, the entry is above the target; where more is, below,
            // as the entry before was. A restart point shares nothing, whatever it is.
            let order = if entry.shared == matched || entry.shared == 0 {
                let rest = &key[entry.shared..];
                let common = common_prefix(entry.suffix, rest);
                matched = entry.shared + common;
                entry.suffix.get(common).cmp(&rest.get(common))
            } else {
                matched.cmp(&entry.shared)
            };
            match order {
                Ordering::Less => {}
                Ordering::Equal if rule.apply(entry.trailer) > target.trailer => {}
                _ => {
                    entry.check(self.values_end)?;
                    let same_user_key = order == Ordering::Equal;
                    return Ok(Some(Found {
                        entry,
                        same_user_key,
                    }));
                }
            }
        }
        Ok(None)
    }
}

/// Number of first bytes that are the same.
#[inline]
pub(super) fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let len = a.len().min(b.len());
    let mut at = 0;
    while at + 8 <= len {
        let differ = LittleEndian::read_u64(&a[at..]) ^ LittleEndian::read_u64(&b[at..]);
        if differ != 0 {
            return at + differ.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while at < len && a[at] == b[at] {
        at += 1;
    }
    at
}
