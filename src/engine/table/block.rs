//! Reading a data block: entries with shared key prefixes, a hash index, restart points (FORMAT.md, data
//! block).
//!
//! Nothing here allocates: keys are compared with the target where they lie. For each entry it is known
//! how many bytes it shares with the entry before, and for the entry before how many it shares with the
//! target; mostly these two numbers decide without a look at the key.
//!
//! Any bytes may come in; what does not parse is [`Damage`].

use std::{cmp::Ordering, ops::Range};

use byteorder::{ByteOrder, LittleEndian};

use super::{KeyHash, SeqRule, format::Damage, scale};
use crate::{
    coding::Reader,
    key::{InternalKey, MAX_KEY_LEN, TRAILER_LEN, trailer_kind},
};

/// Bytes at the end of a data block: number of buckets, number of restart points.
pub(super) const TAIL_LEN: usize = 6;
/// Bucket of keys in more than one restart interval.
pub(super) const COLLISION: u8 = 254;
/// Bucket of no key.
pub(super) const ABSENT: u8 = 255;
/// Most restart points a block with a hash index has.
pub(super) const MAX_HASHED_RESTARTS: usize = 254;

/// One entry, its key still without the part it shares with the entry before.
#[derive(Clone, Debug)]
pub(super) struct Entry<'a> {
    /// Bytes of the user key that are those of the entry before.
    pub(super) shared: usize,
    /// The rest of the user key.
    pub(super) suffix: &'a [u8],
    /// Trailer as stored.
    pub(super) trailer: u64,
    /// Where the value stands in the block. It ends where the next entry begins.
    pub(super) value: Range<usize>,
}

impl Entry<'_> {
    /// Bytes of the user key.
    pub(super) fn key_len(&self) -> usize {
        self.shared + self.suffix.len()
    }

    /// Checks what only the entry the caller stops at must fulfil.
    pub(super) fn check(&self) -> Result<(), Damage> {
        if trailer_kind(self.trailer).is_none() {
            return Err("entry of an unknown kind");
        }
        if self.key_len() > MAX_KEY_LEN {
            return Err("key beyond the limit");
        }
        Ok(())
    }
}

/// Decodes the entry at `at` of the entries of a block.
#[inline]
pub(super) fn entry_at(entries: &[u8], at: usize) -> Result<Entry<'_>, Damage> {
    const CUT: Damage = "entry is cut short or misspelt";
    let rest = entries.get(at..).ok_or(CUT)?;
    let (shared, unshared, value_len, used) = match *rest {
        [shared, unshared, value_len, ..] if (shared | unshared | value_len) < 0x80 => (
            u32::from(shared),
            u32::from(unshared),
            u32::from(value_len),
            3,
        ),
        _ => {
            let mut reader = Reader::new(rest);
            let shared = reader.varint_u32().ok_or(CUT)?;
            let unshared = reader.varint_u32().ok_or(CUT)?;
            let value_len = reader.varint_u32().ok_or(CUT)?;
            (shared, unshared, value_len, reader.position())
        }
    };
    let (shared, unshared, value_len) = (shared as usize, unshared as usize, value_len as usize);
    let body = &rest[used..];
    if body.len() < TRAILER_LEN || body.len() - TRAILER_LEN < unshared {
        return Err(CUT);
    }
    let (trailer, body) = body.split_at(TRAILER_LEN);
    let (suffix, body) = body.split_at(unshared);
    if body.len() < value_len {
        return Err(CUT);
    }
    let value_at = at + used + TRAILER_LEN + unshared;
    Ok(Entry {
        shared,
        suffix,
        trailer: LittleEndian::read_u64(trailer),
        value: value_at..value_at + value_len,
    })
}

/// What the hash index says about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bucket {
    /// The key is not in the block.
    Absent,
    /// If the key is in the block, it begins in the restart interval at this offset.
    At(usize),
    /// It may be anywhere.
    Unknown,
}

/// The first entry at or after a target.
#[derive(Clone, Debug)]
pub(super) struct Found<'a> {
    /// Where it begins.
    pub(super) at: usize,
    /// The entry. What it shares with the entry before, it shares with the target.
    pub(super) entry: Entry<'a>,
    /// True where its user key is the target's.
    pub(super) same_user_key: bool,
}

/// A data block.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockView<'a> {
    /// The entries, back to back.
    pub(super) entries: &'a [u8],
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
        let buckets = usize::from(LittleEndian::read_u16(tail));
        let restarts = LittleEndian::read_u32(&tail[2..]) as usize;
        let at = restarts
            .checked_mul(4)
            .and_then(|len| rest.len().checked_sub(len))
            .ok_or(CUT)?;
        let (rest, restarts) = rest.split_at(at);
        let at = rest.len().checked_sub(buckets).ok_or(CUT)?;
        let (entries, buckets) = rest.split_at(at);
        if entries.is_empty() || restarts.is_empty() || LittleEndian::read_u32(restarts) != 0 {
            return Err("block without a first entry");
        }
        Ok(Self {
            entries,
            buckets,
            restarts,
        })
    }

    /// Number of restart points, at least one.
    pub(super) fn restarts(&self) -> usize {
        self.restarts.len() / 4
    }

    /// Offset of the restart point `index`, which may be damage.
    pub(super) fn restart(&self, index: usize) -> usize {
        LittleEndian::read_u32(&self.restarts[index * 4..]) as usize
    }

    /// The last restart point that is below the offset `end`.
    pub(super) fn restart_below(&self, end: usize) -> Result<usize, Damage> {
        let (mut low, mut high) = (0, self.restarts());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.restart(middle) < end {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let at = low.checked_sub(1).map(|low| self.restart(low));
        at.filter(|&at| at < end)
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
            index if usize::from(index) < self.restarts() => {
                Bucket::At(self.restart(usize::from(index)))
            }
            _ => Bucket::Unknown,
        }
    }

    /// The last restart point before `target`, or the first: from there on a linear search finds it.
    #[inline]
    pub(super) fn restart_before(
        &self,
        target: InternalKey<'_>,
        rule: SeqRule,
    ) -> Result<usize, Damage> {
        let (mut low, mut high) = (0, self.restarts());
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = entry_at(self.entries, self.restart(middle))?;
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
        Ok(self.restart(low.saturating_sub(1)))
    }

    /// The first entry at or after `target` of those from the restart point `start` on.
    #[inline]
    pub(super) fn find_from(
        &self,
        start: usize,
        target: InternalKey<'_>,
        rule: SeqRule,
    ) -> Result<Option<Found<'a>>, Damage> {
        let key = target.user_key;
        // Bytes that the entry before has in common with the target, and its length.
        let (mut matched, mut len) = (0, 0);
        let mut next = start;
        while next < self.entries.len() {
            let at = next;
            let entry = entry_at(self.entries, at)?;
            if entry.shared > len {
                return Err("entry shares more than there is");
            }
            len = entry.key_len();
            next = entry.value.end;
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
                    entry.check()?;
                    let same_user_key = order == Ordering::Equal;
                    return Ok(Some(Found {
                        at,
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
