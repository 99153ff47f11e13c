//! The memtable of each kind against a `BTreeMap`, and with several threads at once.

use std::{cmp::Reverse, collections::BTreeMap, sync::atomic::AtomicU64, thread};

use super::*;
use crate::{
    iter::InternalIterator,
    key::{MAX_KEY_LEN, ValueKind, pack_trailer},
};

/// Tests of every kind.
macro_rules! of_each_kind {
    ($($test:ident)*) => {
        mod of_tree {
            $(#[test]
            fn $test() {
                super::$test(super::MemtableKind::Tree);
            })*
        }

        mod of_skip_list {
            $(#[test]
            fn $test() {
                super::$test(super::MemtableKind::SkipList);
            })*
        }
    };
}

of_each_kind! {
    get_gives_what_an_ordered_map_gives
    the_cursor_walks_as_an_ordered_map_does_in_both_directions
    keys_that_differ_only_in_length_and_zeros_keep_their_order
    the_longest_keys_are_told_apart_by_their_last_byte
    readers_see_every_published_entry_while_threads_insert
    a_memtable_counts_its_bytes_and_an_idle_cursor_keeps_it_alive
    any_order_of_inserts_gives_the_same_walk
}

type Model = BTreeMap<(Vec<u8>, Reverse<u64>), Vec<u8>>;

/// A small generator, so that a failure is replayed from its seed alone.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).unwrap()
    }

    /// Lengths around the eight bytes of a prefix, few byte values with zero among them.
    fn key(&mut self) -> Vec<u8> {
        let len = match self.below(20) {
            0 => 0,
            1 => MAX_KEY_LEN - self.index(2),
            2..8 => self.index(3),
            _ => 6 + self.index(5),
        };
        let common = [0, b'a'][self.index(2)];
        let mut key = vec![common; len];
        for _ in 0..self.below(3).min(len as u64) {
            let last = len.min(12);
            let at = len - 1 - self.index(last);
            key[at] = [0, 1, b'a', 0xff][self.index(4)];
        }
        key
    }
}

fn filled(kind: MemtableKind, random: &mut Random, count: u64) -> (Arc<Memtable>, Model) {
    let memtable = Arc::new(Memtable::new(kind));
    let mut model = Model::new();
    for seq in 1..=count {
        let key = random.key();
        let kind = if random.below(4) == 0 {
            ValueKind::Delete
        } else {
            ValueKind::Put
        };
        let internal = InternalKey::new(&key, SequenceNumber(seq), kind);
        let value = vec![seq.to_le_bytes()[0]; random.index(40)];
        memtable.insert(internal, &value);
        model.insert((key.clone(), Reverse(internal.trailer)), value);
    }
    (memtable, model)
}

fn shown(iter: &MemtableIter) -> Option<(Vec<u8>, u64, Vec<u8>)> {
    iter.valid().then(|| {
        (
            iter.key().user_key.to_vec(),
            iter.key().trailer,
            iter.value().to_vec(),
        )
    })
}

fn get_gives_what_an_ordered_map_gives(kind: MemtableKind) {
    for seed in 1..60 {
        let random = &mut Random::new(seed);
        let count = random.below(150);
        let (memtable, model) = filled(kind, random, count);
        assert_eq!(memtable.len(), model.len());
        let present: Vec<_> = model.keys().map(|(key, _)| key.clone()).collect();
        for _ in 0..200 {
            let key = match present.len() {
                0 => random.key(),
                len if random.below(2) == 0 => present[random.index(len)].clone(),
                _ => random.key(),
            };
            let seek = InternalKey::seek_to(&key, SequenceNumber(random.below(count + 2)));
            let expected = model
                .range((key.clone(), Reverse(seek.trailer))..)
                .next()
                .filter(|((found, _), _)| *found == key)
                .map(|((_, Reverse(trailer)), value)| (*trailer, value.as_slice()));
            assert_eq!(
                memtable.get(seek),
                expected,
                "seed {seed}, {} bytes",
                key.len()
            );
        }
    }
}

fn the_cursor_walks_as_an_ordered_map_does_in_both_directions(kind: MemtableKind) {
    for seed in 1..60 {
        let random = &mut Random::new(seed);
        let count = random.below(250);
        let (memtable, model) = filled(kind, random, count);
        let entries: Vec<_> = model
            .iter()
            .map(|((key, Reverse(trailer)), value)| (key.clone(), *trailer, value.clone()))
            .collect();
        let mut iter = memtable.iter();
        let mut at = usize::MAX;
        for step in 0..300 {
            let towards = random.below(if at < entries.len() { 40 } else { 4 });
            match towards {
                0 => {
                    iter.seek_to_first().unwrap();
                    at = 0;
                }
                1 => {
                    iter.seek_to_last().unwrap();
                    at = entries.len().wrapping_sub(1);
                }
                2 | 3 => {
                    let key = random.key();
                    let target = InternalKey::seek_to(&key, SequenceNumber(random.below(300)));
                    let first = entries.partition_point(|(key, trailer, _)| {
                        InternalKey {
                            user_key: key,
                            trailer: *trailer,
                        } < target
                    });
                    if towards == 2 {
                        iter.seek(target).unwrap();
                        at = first;
                    } else {
                        iter.seek_for_prev(target).unwrap();
                        at = first.wrapping_sub(1);
                    }
                }
                // Long runs one way, so that chunks of every size are crossed.
                _ if step % 100 < 60 => {
                    iter.next().unwrap();
                    at += 1;
                }
                _ => {
                    iter.prev().unwrap();
                    at = at.wrapping_sub(1);
                }
            }
            let same = shown(&iter) == entries.get(at).cloned();
            assert!(
                same,
                "seed {seed}, step {step} ({towards}), at {at} of {}",
                entries.len()
            );
        }
    }
}

fn keys_that_differ_only_in_length_and_zeros_keep_their_order(kind: MemtableKind) {
    let keys: [&[u8]; 9] = [
        b"",
        b"\0",
        b"\0\0",
        b"a",
        b"a\0",
        b"a\0\0\0\0\0\0\0",
        b"a\0\0\0\0\0\0\0\0",
        b"a\0\0\0\0\0\0\0\x01",
        b"b",
    ];
    let memtable = Arc::new(Memtable::new(kind));
    for (seq, key) in [3, 7, 0, 8, 4, 1, 6, 2, 5]
        .map(|at| keys[at])
        .into_iter()
        .enumerate()
    {
        let key = InternalKey::new(key, SequenceNumber(seq as u64), ValueKind::Put);
        memtable.insert(key, key.user_key);
    }
    let mut iter = memtable.iter();
    iter.seek_to_first().unwrap();
    for key in keys {
        assert_eq!((iter.key().user_key, iter.value()), (key, key));
        iter.next().unwrap();
    }
    assert!(!iter.valid());
}

fn the_longest_keys_are_told_apart_by_their_last_byte(kind: MemtableKind) {
    let memtable = Memtable::new(kind);
    let mut key = vec![b'k'; MAX_KEY_LEN];
    for last in 0..40 {
        key[MAX_KEY_LEN - 1] = last;
        memtable.insert(
            InternalKey::new(&key, SequenceNumber(1), ValueKind::Put),
            &[last],
        );
    }
    for last in 0..40 {
        key[MAX_KEY_LEN - 1] = last;
        let found = memtable.get(InternalKey::seek_to(&key, SequenceNumber(1)));
        assert_eq!(
            found,
            Some((pack_trailer(SequenceNumber(1), ValueKind::Put), &[last][..]))
        );
    }
    assert_eq!(
        memtable.get(InternalKey::seek_to(&key[1..], SequenceNumber(1))),
        None
    );
}

fn readers_see_every_published_entry_while_threads_insert(kind: MemtableKind) {
    const THREADS: usize = 4;
    const EACH: u64 = 4000;
    let memtable = Arc::new(Memtable::new(kind));
    // How many entries each thread has in: entry `i` of thread `t` is published once `done[t] > i`.
    let done: [AtomicU64; THREADS] = Default::default();
    let number = |thread: usize, i: u64| i * THREADS as u64 + thread as u64;
    let key_of = |thread: usize, i: u64| {
        // Spread over the key space, so that threads insert between each other's entries.
        let spread = number(thread, i).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        [
            &spread.to_be_bytes()[..],
            &(thread as u64).to_be_bytes(),
            &i.to_be_bytes(),
        ]
        .concat()
    };
    let counts = || {
        done.each_ref()
            .map(|count| count.load(atomic::Ordering::Acquire))
    };
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (memtable, done) = (&memtable, &done);
            scope.spawn(move || {
                for i in 0..EACH {
                    let key = key_of(thread, i);
                    let seq = SequenceNumber(1 + number(thread, i));
                    memtable.insert(InternalKey::new(&key, seq, ValueKind::Put), &key[8..]);
                    done[thread].store(i + 1, atomic::Ordering::Release);
                }
            });
        }
        loop {
            let before = counts();
            let mut seen = [0; THREADS];
            let mut iter = memtable.iter();
            iter.seek_to_first().unwrap();
            let mut last = Vec::new();
            while iter.valid() {
                let key = iter.key().user_key;
                assert!(last.is_empty() || *last < *key, "keys ascend");
                assert_eq!(iter.value(), &key[8..], "value of its own key");
                let [thread, i] =
                    [8, 16].map(|at| u64::from_be_bytes(*key[at..].first_chunk().unwrap()));
                let thread = usize::try_from(thread).unwrap();
                seen[thread] += u64::from(i < before[thread]);
                last = key.to_vec();
                iter.next().unwrap();
            }
            assert_eq!(seen, before, "every entry published before the walk");
            for (thread, count) in (0..).zip(before).filter(|&(_, count)| count > 0) {
                let key = key_of(thread, count - 1);
                let found = memtable.get(InternalKey::seek_to(&key, SequenceNumber::MAX));
                assert_eq!(found.map(|(_, value)| value), Some(&key[8..]));
            }
            if before == [EACH; THREADS] {
                break;
            }
        }
    });
    assert_eq!(memtable.len() as u64, THREADS as u64 * EACH);
}

#[test]
fn range_deletes_are_seen_by_key_and_as_one_set() {
    let memtable = Memtable::new(MemtableKind::default());
    assert!(memtable.is_empty() && memtable.skyline(SequenceNumber::MAX).is_none());
    let mut list = Vec::new();
    for seq in 1..200_u8 {
        // Neighbours, nested ones and repeated ones.
        let (start, end) = (vec![seq % 16, seq % 7], vec![16 + seq % 5]);
        memtable.insert_range_tombstone(&start, &end, SequenceNumber(seq.into()));
        list.push(RangeTombstone {
            start,
            end,
            seq: SequenceNumber(seq.into()),
        });
        let expected = Tombstones::new(list.clone());
        for key in [&[0][..], &[3], &[15, 9], &[18], &[20]] {
            for at in [1, u64::from(seq) / 2, u64::MAX >> 8].map(SequenceNumber) {
                assert_eq!(
                    memtable.covering_seq(key, at),
                    expected.covering_seq(key, at)
                );
            }
        }
        assert!(
            seq % 10 > 0 || memtable.tombstones() == expected,
            "after {seq}"
        );
    }
    assert!(!memtable.is_empty() && memtable.len() == 199 && memtable.bytes() > 199 * 3);
}

#[test]
fn range_deletes_nested_in_each_other_do_not_take_memory_by_their_square() {
    const DELETES: u32 = 3000;
    let memtable = Memtable::new(MemtableKind::default());
    for seq in 1..=DELETES {
        memtable.insert_range_tombstone(b"", &seq.to_be_bytes(), SequenceNumber(seq.into()));
    }
    assert!(
        memtable.bytes() < 12_000 * DELETES as usize,
        "{} bytes",
        memtable.bytes()
    );
    for (key, at) in [
        (0, 7),
        (6, 7),
        (7, 7),
        (100, 2000),
        (2999, 3000),
        (3000, 3000),
    ] {
        let seq = memtable.covering_seq(&u32::to_be_bytes(key), SequenceNumber(at));
        let expected = if u64::from(key) < at { at } else { 0 };
        assert_eq!(seq, SequenceNumber(expected), "{key} at {at}");
    }
}

/// Nodes are counted as they are: half full where keys come downwards, and until they are freed.
#[test]
fn nodes_of_a_tree_are_counted_as_allocated_however_they_were_filled() {
    const KEYS: u64 = 5_000;
    for order in [|at| KEYS - at, |at| at, |at| at * 7_919 % KEYS] {
        let memtable = Memtable::new(MemtableKind::Tree);
        let mut before = 0;
        for at in 0..KEYS {
            let key = u64::to_be_bytes(order(at));
            memtable.insert(
                InternalKey::new(&key, SequenceNumber(at), ValueKind::Put),
                b"",
            );
            assert!(memtable.bytes() > before, "it only grows");
            before = memtable.bytes();
        }
        let Order::Tree(tree) = &memtable.order else {
            panic!("a tree was asked for")
        };
        let leaves = tree.leaves() * size_of::<leaf::Leaf>();
        assert!(
            memtable.bytes() >= leaves,
            "{} of {leaves}",
            memtable.bytes()
        );
        assert!(memtable.allocated() >= memtable.bytes());
        // What was replaced goes once nobody is pinned who may stand in it; other tests may be for a while.
        let replaced = || tree.allocated() > 2 * leaves;
        for _ in 0..1_000_000 {
            if !replaced() {
                break;
            }
            crossbeam_epoch::pin().flush();
            std::thread::yield_now();
        }
        assert!(!replaced(), "{} for leaves of {leaves}", tree.allocated());
    }
}

fn a_memtable_counts_its_bytes_and_an_idle_cursor_keeps_it_alive(kind: MemtableKind) {
    let memtable = Arc::new(Memtable::new(kind));
    assert_eq!(memtable.bytes(), 0);
    memtable.insert(
        InternalKey::new(b"key", SequenceNumber(1), ValueKind::Put),
        b"value",
    );
    let node = match kind {
        MemtableKind::Tree => tree::Tree::NODE_BYTES,
        MemtableKind::SkipList => skip_list::SkipList::NODE_BYTES,
    };
    assert_eq!(memtable.bytes(), 8 + node);
    let mut iter = memtable.iter();
    iter.seek_to_last().unwrap();
    drop(memtable);
    assert_eq!(
        (iter.key().user_key, iter.value()),
        (&b"key"[..], &b"value"[..])
    );
}

fn any_order_of_inserts_gives_the_same_walk(kind: MemtableKind) {
    const COUNT: u64 = 5000;
    // The factor shares none with the count, so that each number comes once.
    let orders: [fn(u64) -> u64; 4] = [
        |i| i,
        |i| COUNT - 1 - i,
        |i| i * 1709 % COUNT,
        // Two runs, each in order.
        |i| i / 2 + (i % 2) * (COUNT / 2),
    ];
    for order in orders {
        for keys in [COUNT, 7, 1] {
            let memtable = Arc::new(Memtable::new(kind));
            let mut expected = Vec::new();
            for number in (0..COUNT).map(order) {
                // Keys with a long common start, of several lengths, and many versions of each where they are few.
                let key = format!("a long common start/{}", number % keys).into_bytes();
                let key = InternalKey::new(&key, SequenceNumber(1 + number), ValueKind::Put);
                memtable.insert(key, &number.to_be_bytes());
                expected.push((key.user_key.to_vec(), Reverse(key.trailer), number));
            }
            expected.sort_unstable();
            let mut iter = memtable.iter();
            iter.seek_to_first().unwrap();
            for (key, Reverse(trailer), number) in &expected {
                let found = (iter.key().user_key, iter.key().trailer, iter.value());
                assert_eq!(found, (&key[..], *trailer, &number.to_be_bytes()[..]));
                iter.next().unwrap();
            }
            assert!(!iter.valid());
            iter.seek_to_last().unwrap();
            for (key, Reverse(trailer), _) in expected.iter().rev() {
                assert_eq!(
                    (iter.key().user_key, iter.key().trailer),
                    (&key[..], *trailer)
                );
                iter.prev().unwrap();
            }
            assert!(!iter.valid());
        }
    }
}
