//! What the tests of cursors share: a cursor over a sorted vector, random histories of writes, and
//! what a reader must see of them, found the slow and plain way.

use std::{collections::BTreeSet, sync::Arc};

use super::InternalIterator;
use crate::{
    error::{Error, Result},
    key::{InternalKey, RangeTombstone, SequenceNumber, ValueKind},
    tombstones::Tombstones,
};

/// A small generator, so that a failure is replayed from its seed alone.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }

    pub(super) fn one_in(&mut self, chance: usize) -> bool {
        self.below(chance) == 0
    }

    /// One of few keys, some of which differ only behind the eighth byte.
    pub(super) fn key(&mut self, keys: usize) -> Vec<u8> {
        let number = self.below(keys);
        match number % 4 {
            0 => vec![b'k'; number / 4],
            1 => format!("k{:02}", number / 4).into_bytes(),
            2 => format!("kkkkkkkk{:02}", number / 4).into_bytes(),
            _ => [b"k\0".as_slice(), &vec![0; number / 4]].concat(),
        }
    }
}

/// One write, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) user_key: Vec<u8>,
    pub(super) trailer: u64,
    pub(super) value: Vec<u8>,
}

impl Entry {
    pub(super) fn new(user_key: &[u8], seq: usize, kind: ValueKind) -> Self {
        let trailer = InternalKey::new(user_key, SequenceNumber(seq as u64), kind).trailer;
        let value = match kind {
            ValueKind::Put | ValueKind::Merge => format!("value {seq}").into_bytes(),
            ValueKind::Delete => Vec::new(),
            ValueKind::Pointer => unreachable!("the model has no value files"),
        };
        Self {
            user_key: user_key.to_vec(),
            trailer,
            value,
        }
    }

    pub(super) fn key(&self) -> InternalKey<'_> {
        InternalKey {
            user_key: &self.user_key,
            trailer: self.trailer,
        }
    }
}

/// The entry a cursor stands on.
pub(super) fn shown(iter: &impl InternalIterator) -> Option<Entry> {
    iter.valid().then(|| Entry {
        user_key: iter.key().user_key.to_vec(),
        trailer: iter.key().trailer,
        value: iter.value().to_vec(),
    })
}

/// A cursor over entries in order.
#[derive(Clone, Debug, Default)]
pub(super) struct VecIter {
    entries: Vec<Entry>,
    /// Index of the current entry; no entry has it where the cursor is not valid.
    at: usize,
    /// Calls until one fails, if any is to.
    pub(super) fails_in: Option<usize>,
    /// Calls to `seek` and `seek_for_prev`.
    pub(super) seeks: usize,
    /// Calls to `next` and `prev`.
    pub(super) steps: usize,
}

impl VecIter {
    pub(super) fn new(mut entries: Vec<Entry>) -> Self {
        entries.sort_by(|a, b| a.key().cmp(&b.key()));
        let at = entries.len();
        Self {
            entries,
            at,
            ..Self::default()
        }
    }

    fn go(&mut self, to: usize) -> Result<()> {
        self.at = to;
        if let Some(left) = &mut self.fails_in {
            if *left == 0 {
                self.at = usize::MAX;
                return Err(Error::corruption("vector", to as u64, "planted"));
            }
            *left -= 1;
        }
        Ok(())
    }
}

impl InternalIterator for VecIter {
    fn valid(&self) -> bool {
        self.at < self.entries.len()
    }

    fn key(&self) -> InternalKey<'_> {
        self.entries[self.at].key()
    }

    fn value(&self) -> &[u8] {
        &self.entries[self.at].value
    }

    fn seek_to_first(&mut self) -> Result<()> {
        self.go(0)
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.go(self.entries.len().wrapping_sub(1))
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.seeks += 1;
        self.go(self.entries.partition_point(|entry| entry.key() < target))
    }

    fn seek_for_prev(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.seeks += 1;
        self.go(self
            .entries
            .partition_point(|entry| entry.key() <= target)
            .wrapping_sub(1))
    }

    fn next(&mut self) -> Result<()> {
        assert!(self.valid(), "moved while not valid");
        self.steps += 1;
        self.go(self.at + 1)
    }

    fn prev(&mut self) -> Result<()> {
        assert!(self.valid(), "moved while not valid");
        self.steps += 1;
        self.go(self.at.wrapping_sub(1))
    }
}

/// Random calls on an internal cursor, each compared with the index it must stand on in `all`.
pub(super) fn walk(
    iter: &mut impl InternalIterator,
    all: &[Entry],
    random: &mut Random,
    steps: usize,
    context: &str,
) {
    let mut at = usize::MAX;
    for step in 0..steps {
        let call = if at < all.len() {
            random.below(24)
        } else {
            random.below(4)
        };
        match call {
            0 => {
                iter.seek_to_first().unwrap();
                at = 0;
            }
            1 => {
                iter.seek_to_last().unwrap();
                at = all.len().wrapping_sub(1);
            }
            2 | 3 => {
                let user_key = random.key(60);
                let target = InternalKey {
                    user_key: &user_key,
                    trailer: match random.below(4) {
                        0 => 0,
                        1 => u64::MAX,
                        _ => random.below(300 << 8) as u64,
                    },
                };
                if call == 2 {
                    iter.seek(target).unwrap();
                    at = all.partition_point(|entry| entry.key() < target);
                } else {
                    iter.seek_for_prev(target).unwrap();
                    at = all
                        .partition_point(|entry| entry.key() <= target)
                        .wrapping_sub(1);
                }
            }
            _ if step % 50 < 25 || call == 4 => {
                iter.next().unwrap();
                at += 1;
            }
            _ => {
                iter.prev().unwrap();
                at = at.wrapping_sub(1);
            }
        }
        assert_eq!(
            shown(iter),
            all.get(at).cloned(),
            "{context}, step {step}, call {call}"
        );
    }
}

/// A random history: entries in order of their sequence numbers, and range deletes.
pub(super) struct History {
    pub(super) entries: Vec<Entry>,
    pub(super) tombstones: Vec<RangeTombstone>,
    keys: usize,
}

impl History {
    pub(super) fn new(random: &mut Random, writes: usize) -> Self {
        let keys = 1 + random.below(60);
        // Some histories have many range deletes, some none.
        let range_chance = [3, 20, usize::MAX][random.below(3)];
        let mut history = Self {
            entries: Vec::new(),
            tombstones: Vec::new(),
            keys,
        };
        for seq in 1..=writes {
            let key = random.key(keys);
            if random.one_in(range_chance) {
                let (end, seq) = (random.key(keys), SequenceNumber(seq as u64));
                history.tombstones.push(RangeTombstone {
                    start: key,
                    end,
                    seq,
                });
            } else {
                let kind = if random.one_in(4) {
                    ValueKind::Delete
                } else {
                    ValueKind::Put
                };
                history.entries.push(Entry::new(&key, seq, kind));
            }
        }
        history
    }

    pub(super) fn key(&self, random: &mut Random) -> Vec<u8> {
        random.key(self.keys + 4)
    }

    /// The range deletes, dealt out to up to three sets.
    pub(super) fn tombstone_sets(&self, random: &mut Random) -> Vec<Arc<Tombstones>> {
        let mut sets = vec![Vec::new(); 1 + random.below(3)];
        for tombstone in &self.tombstones {
            let set = random.below(sets.len());
            sets[set].push(tombstone.clone());
        }
        sets.into_iter()
            .map(|set| Arc::new(Tombstones::new(set)))
            .collect()
    }

    /// What a reader at `at` sees, in order of keys: for each key its newest write, if that is a put
    /// with no newer range delete over it.
    pub(super) fn visible(&self, at: SequenceNumber) -> Vec<(Vec<u8>, Vec<u8>)> {
        let keys: BTreeSet<_> = self.entries.iter().map(|entry| &entry.user_key).collect();
        let newest = |key: &Vec<u8>| {
            let of_key = |entry: &&Entry| entry.user_key == *key && entry.key().seq() <= at;
            self.entries
                .iter()
                .filter(of_key)
                .max_by_key(|entry| entry.key().seq())
        };
        let dead = |entry: &Entry| {
            self.tombstones.iter().any(|t| {
                (entry.key().seq()..=at).contains(&t.seq)
                    && t.start <= entry.user_key
                    && entry.user_key < t.end
            })
        };
        keys.into_iter()
            .filter_map(newest)
            .filter(|entry| entry.key().kind() == Some(ValueKind::Put) && !dead(entry))
            .map(|entry| (entry.user_key.clone(), entry.value.clone()))
            .collect()
    }
}
