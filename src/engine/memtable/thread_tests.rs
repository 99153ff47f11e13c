//! The memtable while threads insert beside readers: what was published is there, in order, in both directions. And
//! what the tree takes of memory by the order of the inserts.

use std::{
    cmp::Reverse,
    sync::{
        Barrier,
        atomic::{AtomicBool, AtomicUsize},
    },
    thread,
};

use super::{leaf::LEAF, *};
use crate::{
    iter::InternalIterator,
    key::{ValueKind, pack_trailer},
};

/// Each thread's part is small, so that all of them together take a part of a second.
const COUNT: usize = 3000;

/// The number in the key of the insert of that index; its sequence number is one above the index.
type Order = fn(usize) -> usize;

const ORDERS: [(&str, Order); 8] = [
    ("ascending", |i| i),
    ("descending", |i| COUNT - i),
    ("scattered", |i| i * 1709 % 4999),
    ("few keys, many versions", |i| i * 1709 % 7),
    ("one key", |_| 0),
    ("ascending, then descending behind that", |i| {
        if i < LEAF { i } else { 2 * COUNT - i }
    }),
    ("ascending, then versions of a last key", |i| {
        if i < LEAF { i } else { COUNT }
    }),
    ("two runs that meet", |i| {
        if i % 2 == 0 { i } else { 2 * COUNT - i }
    }),
];

fn user_key(number: usize) -> Vec<u8> {
    let mut key = b"a common start/".to_vec();
    key.extend_from_slice(&number.to_be_bytes());
    // Of several lengths.
    key.extend_from_slice(&[0; 3][..number % 4]);
    key
}

fn trailer(index: usize) -> u64 {
    pack_trailer(SequenceNumber(1 + index as u64), ValueKind::Put)
}

fn insert(memtable: &Memtable, order: Order, index: usize) {
    let user_key = &user_key(order(index));
    let trailer = trailer(index);
    memtable.insert(InternalKey { user_key, trailer }, &index.to_be_bytes());
}

/// What writers have in, as readers learn of it.
struct Board {
    next: AtomicUsize,
    is_in: Vec<AtomicBool>,
    over: AtomicBool,
}

impl Board {
    /// Number of inserts from the first on that are all in.
    fn published(&self) -> usize {
        let is_in = |is_in: &&AtomicBool| is_in.load(atomic::Ordering::Acquire);
        self.is_in.iter().take_while(is_in).count()
    }

    fn write(&self, memtable: &Memtable, order: Order) {
        loop {
            let index = self.next.fetch_add(1, atomic::Ordering::Relaxed);
            let Some(is_in) = self.is_in.get(index) else {
                return;
            };
            insert(memtable, order, index);
            is_in.store(true, atomic::Ordering::Release);
        }
    }

    fn read(&self, memtable: &Arc<Memtable>, order: Order, what: &str) {
        loop {
            let over = self.over.load(atomic::Ordering::Acquire);
            let published = self.published();
            find_each(memtable, order, published, what);
            for forward in [true, false] {
                let published = self.published();
                walk(memtable, order, published, forward, what);
            }
            if over {
                return;
            }
        }
    }
}

/// Looks some of the published entries up.
fn find_each(memtable: &Arc<Memtable>, order: Order, published: usize, what: &str) {
    let mut iter = memtable.iter();
    for index in (0..published).rev().step_by(1 + published / 200) {
        let (user_key, trailer) = (&user_key(order(index))[..], trailer(index));
        let target = InternalKey { user_key, trailer };
        let found = memtable.get(target);
        let expected = Some((trailer, &index.to_be_bytes()[..]));
        assert_eq!(found, expected, "{what}: {index}");
        iter.seek(target).unwrap();
        assert!(iter.valid() && iter.key() == target, "{what}: to {index}");
        iter.seek_for_prev(target).unwrap();
        assert!(
            iter.valid() && iter.key() == target,
            "{what}: back to {index}"
        );
    }
}

/// Walks over all: in order, none twice, and none of the published ones missing.
fn walk(memtable: &Arc<Memtable>, order: Order, published: usize, forward: bool, what: &str) {
    let mut iter = memtable.iter();
    let mut seen = vec![false; COUNT];
    let mut before: Option<(Vec<u8>, Reverse<u64>)> = None;
    if forward {
        iter.seek_to_first().unwrap();
    } else {
        iter.seek_to_last().unwrap();
    }
    while iter.valid() {
        let index = usize::from_be_bytes(iter.value().try_into().unwrap());
        let here = (iter.key().user_key.to_vec(), Reverse(iter.key().trailer));
        assert_eq!(
            here,
            (user_key(order(index)), Reverse(trailer(index))),
            "{what}"
        );
        let in_order = before.is_none_or(|before| before != here && (before < here) == forward);
        assert!(in_order, "{what}: {index} out of order");
        before = Some(here);
        seen[index] = true;
        if forward {
            iter.next().unwrap();
        } else {
            iter.prev().unwrap();
        }
    }
    let missing = seen[..published].iter().position(|seen| !seen);
    assert_eq!(
        missing, None,
        "{what}: of {published} published, forward: {forward}"
    );
}

#[test]
fn what_was_published_is_found_in_order_while_leaves_are_split() {
    for (what, order) in ORDERS {
        for (writers, readers) in [(3, 1), (2, 3)] {
            let memtable = Arc::new(Memtable::new(MemtableKind::Tree));
            let board = Board {
                next: AtomicUsize::new(0),
                is_in: (0..COUNT).map(|_| AtomicBool::new(false)).collect(),
                over: AtomicBool::new(false),
            };
            let start = Barrier::new(writers + readers);
            let write = || {
                start.wait();
                board.write(&memtable, order);
            };
            let read = || {
                start.wait();
                board.read(&memtable, order, what);
            };
            thread::scope(|scope| {
                for _ in 0..readers {
                    scope.spawn(read);
                }
                let writing: Vec<_> = (0..writers).map(|_| scope.spawn(write)).collect();
                let ends: Vec<_> = writing
                    .into_iter()
                    .map(thread::ScopedJoinHandle::join)
                    .collect();
                // Also where one failed: readers wait for this.
                board.over.store(true, atomic::Ordering::Release);
                assert!(ends.iter().all(Result::is_ok), "{what}");
            });
            assert_eq!(memtable.len(), COUNT);
        }
    }
}

#[test]
fn leaves_are_filled_well_by_inserts_in_any_order() {
    for (what, order) in ORDERS {
        let memtable = Memtable::new(MemtableKind::Tree);
        for index in 0..COUNT {
            insert(&memtable, order, index);
        }
        let super::order::Order::Tree(tree) = &memtable.order else {
            panic!("a tree was asked for")
        };
        let leaves = tree.leaves();
        assert!(
            leaves * LEAF < 3 * COUNT,
            "{what}: {leaves} leaves for {COUNT} entries"
        );
    }
}
