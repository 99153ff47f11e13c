//! Range-delete sets against plain lists of range deletes.

use super::*;

/// A small generator, so that a failure is replayed from its seed alone.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    /// Keys of few bytes over few values: prefixes of each other and zero bytes are frequent.
    fn key(&mut self) -> Vec<u8> {
        let len = self.below(4);
        (0..len)
            .map(|_| [0, 1, b'a', 0xff][usize::try_from(self.below(4)).unwrap()])
            .collect()
    }

    fn tombstones(&mut self, count: u64) -> Vec<RangeTombstone> {
        (0..count)
            .map(|_| {
                let (start, end, seq) =
                    (self.key(), self.key(), SequenceNumber(1 + self.below(30)));
                RangeTombstone { start, end, seq }
            })
            .collect()
    }
}

fn tombstone(start: &str, end: &str, seq: u64) -> RangeTombstone {
    RangeTombstone {
        start: start.into(),
        end: end.into(),
        seq: SequenceNumber(seq),
    }
}

fn shown(set: &Tombstones) -> Vec<String> {
    set.all()
        .map(|t| {
            format!(
                "{}..{}{:?}",
                t.start.escape_ascii(),
                t.end.escape_ascii(),
                t.seq
            )
        })
        .collect()
}

fn naive_covering(list: &[RangeTombstone], key: &[u8], at: SequenceNumber) -> SequenceNumber {
    list.iter()
        .filter(|t| *t.start <= *key && *key < *t.end && t.seq <= at)
        .map(|t| t.seq)
        .max()
        .unwrap_or_default()
}

#[test]
fn overlapping_deletes_become_fragments_with_the_newest_number_first() {
    let set = Tombstones::new(vec![tombstone("a", "m", 3), tombstone("g", "z", 7)]);
    assert_eq!(shown(&set), ["a..g#3", "g..m#7", "g..m#3", "m..z#7"]);
}

#[test]
fn deletes_that_touch_become_one_only_with_the_same_numbers() {
    let set = Tombstones::new(vec![
        tombstone("d", "f", 2),
        tombstone("a", "b", 1),
        tombstone("b", "d", 1),
        tombstone("c", "c", 9),
        tombstone("x", "b", 9),
    ]);
    assert_eq!(shown(&set), ["a..d#1", "d..f#2"]);
}

#[test]
fn a_reader_sees_the_newest_delete_at_or_below_its_number() {
    let set = Tombstones::new(vec![tombstone("a", "m", 3), tombstone("g", "z", 7)]);
    let seq = |key: &str, at| set.covering_seq(key.as_bytes(), SequenceNumber(at)).0;
    assert_eq!(
        [seq("g", 7), seq("g", 6), seq("g", 3), seq("g", 2)],
        [7, 3, 3, 0]
    );
    assert_eq!(
        [
            seq("", 9),
            seq("a", 9),
            seq("f", 9),
            seq("m", 6),
            seq("z", 9)
        ],
        [0, 3, 3, 0, 0]
    );
}

#[test]
fn the_cursor_gives_the_bounds_of_the_fragment_over_a_key() {
    let set = Tombstones::new(vec![tombstone("a", "m", 3), tombstone("g", "z", 7)]);
    let mut cursor = TombstoneCursor::new(Arc::new(set), SequenceNumber(5));
    let cover = |start, end| {
        Some(Cover {
            start,
            end,
            seq: SequenceNumber(3),
        })
    };
    assert_eq!(cursor.covering(b"b"), cover(b"a", b"g"));
    assert_eq!(cursor.covering(b"h"), cover(b"g", b"m"));
    assert_eq!(
        cursor.covering(b"n"),
        None,
        "the newer delete is not visible"
    );
    assert_eq!(cursor.covering(b"a"), cover(b"a", b"g"));
}

#[test]
fn sets_cursors_and_merged_sets_agree_with_the_plain_list() {
    for seed in 1..400_u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let count = random.below(12);
        let list = random.tombstones(count);
        let whole = Arc::new(Tombstones::new(list.clone()));
        let parts: Vec<_> = list
            .chunks(3)
            .map(|part| Tombstones::new(part.to_vec()))
            .collect();
        assert_eq!(Tombstones::merge(&parts), *whole, "seed {seed}: {list:?}");
        assert_eq!(
            Tombstones::new(whole.all().collect()),
            *whole,
            "seed {seed}: {list:?}"
        );

        let at = SequenceNumber(random.below(32));
        let mut cursor = TombstoneCursor::new(Arc::clone(&whole), at);
        for _ in 0..50 {
            let key = random.key();
            let expected = naive_covering(&list, &key, at);
            assert_eq!(
                whole.covering_seq(&key, at),
                expected,
                "seed {seed}: {key:?} in {list:?}"
            );
            assert_eq!(
                cursor
                    .covering(&key)
                    .map_or(SequenceNumber::ZERO, |cover| cover.seq),
                expected,
                "seed {seed}: {key:?} in {list:?}"
            );
        }
    }
}

#[test]
fn a_merge_for_readers_answers_them_as_the_plain_list_and_holds_no_more_than_they_tell_apart() {
    let mut dropped = 0;
    for seed in 1..400_u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let count = random.below(30);
        let list = random.tombstones(count);
        let sets: Vec<_> = list
            .chunks(7)
            .map(|part| Tombstones::new(part.to_vec()))
            .collect();
        let mut boundaries: Vec<_> = (0..random.below(4))
            .map(|_| SequenceNumber(random.below(32)))
            .collect();
        boundaries.sort_unstable();
        let merged = Tombstones::merge_for(&sets, &boundaries);
        dropped += Tombstones::merge(&sets).len() - merged.len();
        let newest = boundaries.last().copied().unwrap_or_default();
        let later = (newest.0..=32).map(SequenceNumber);
        for at in boundaries.iter().copied().chain(later) {
            let key = random.key();
            let expected = naive_covering(&list, &key, at);
            assert_eq!(
                merged.covering_seq(&key, at),
                expected,
                "seed {seed}, {at:?}: {list:?}"
            );
        }
        for fragment in &merged.fragments {
            let below = fragment.seqs.iter().filter(|&&seq| seq <= newest).count();
            assert!(
                !fragment.seqs.is_empty() && below <= boundaries.len(),
                "seed {seed}"
            );
        }
    }
    assert!(
        dropped > 1000,
        "the lists leave too little to drop: {dropped}"
    );
}

#[test]
fn deletes_nested_in_each_other_become_one_for_readers_that_see_them_all() {
    let nested = (1..=50)
        .map(|seq| tombstone("a", &format!("b{seq:02}"), seq))
        .collect();
    let merged = Tombstones::merge_for([&Tombstones::new(nested)], &[SequenceNumber(50)]);
    assert_eq!(shown(&merged), ["a..b50#50"]);
}

#[test]
fn fragments_ascend_without_overlap_and_without_equal_neighbours() {
    for seed in 1..200_u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let set = Tombstones::new(random.tombstones(20));
        for fragment in &set.fragments {
            assert!(
                fragment.start < fragment.end && !fragment.seqs.is_empty(),
                "seed {seed}"
            );
            assert!(
                fragment.seqs.is_sorted_by(|newer, older| newer > older),
                "seed {seed}"
            );
        }
        for pair in set.fragments.windows(2) {
            assert!(pair[0].end <= pair[1].start, "seed {seed}");
            assert!(
                pair[0].end < pair[1].start || pair[0].seqs != pair[1].seqs,
                "seed {seed}"
            );
        }
    }
}

#[test]
fn an_empty_set_deletes_nothing_and_is_shared() {
    let empty = Tombstones::empty();
    assert!(empty.is_empty() && Tombstones::merge([&*empty, &*empty]).is_empty());
    assert!(Arc::ptr_eq(&empty, &Tombstones::empty()));
    assert_eq!(
        empty.covering_seq(b"k", SequenceNumber::MAX),
        SequenceNumber::ZERO
    );
    let mut cursor = TombstoneCursor::new(empty, SequenceNumber::MAX);
    assert!(cursor.covering(b"k").is_none());
}
