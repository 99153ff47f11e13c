//! What readers see, against the plain model.

use super::*;
use crate::iter::model::{Entry, History, Random, VecIter};

type Row = (Vec<u8>, Vec<u8>);

fn shown<I: InternalIterator>(iter: &UserIter<I>) -> Option<Row> {
    iter.valid()
        .then(|| (iter.key().to_vec(), iter.value().to_vec()))
}

/// Deals the entries out to runs: at random, or as an engine would, the newest in the first run.
fn runs(random: &mut Random, entries: &[Entry]) -> Vec<(VecIter, SequenceNumber)> {
    let count = 1 + random.below(12);
    let by_age = random.one_in(2);
    let mut runs = vec![Vec::new(); count];
    for (index, entry) in entries.iter().enumerate() {
        let run = if by_age {
            index * count / entries.len()
        } else {
            random.below(count)
        };
        runs[run].push(entry.clone());
    }
    let with_max = |run: Vec<Entry>| {
        let max = run
            .iter()
            .map(|entry| entry.key().seq())
            .max()
            .unwrap_or_default();
        (VecIter::new(run), max)
    };
    runs.into_iter().map(with_max).collect()
}

struct Bounds {
    lower: Option<Vec<u8>>,
    upper: Option<Vec<u8>>,
}

impl Bounds {
    fn hold(&self, key: &[u8]) -> bool {
        self.lower.as_deref().is_none_or(|lower| lower <= key)
            && self.upper.as_deref().is_none_or(|upper| key < upper)
    }
}

/// Random calls on one cursor, each compared with the index it must stand on in `rows`.
fn walk(
    iter: &mut UserIter<VecIter>,
    rows: &[Row],
    random: &mut Random,
    history: &History,
    context: &str,
) {
    let mut at = usize::MAX;
    for step in 0..120 {
        let call = if at < rows.len() {
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
                at = rows.len().wrapping_sub(1);
            }
            2 => {
                let key = history.key(random);
                iter.seek(&key).unwrap();
                at = rows.partition_point(|(row, _)| *row < key);
            }
            3 => {
                let key = history.key(random);
                iter.seek_for_prev(&key).unwrap();
                at = rows.partition_point(|(row, _)| *row <= key).wrapping_sub(1);
            }
            _ if step % 30 < 15 || call == 4 => {
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
            rows.get(at).cloned(),
            "{context}, step {step}, call {call}"
        );
    }
}

#[test]
fn readers_at_every_age_see_what_the_model_says_in_both_directions() {
    let mut rows_seen = 0;
    for seed in 1..600 {
        let random = &mut Random::new(seed);
        let writes = 1 + random.below(250);
        let history = History::new(random, writes);
        let tombstones = history.tombstone_sets(random);
        let runs = runs(random, &history.entries);
        for _ in 0..4 {
            let at = SequenceNumber(random.below(writes + 2) as u64);
            let mut bound = || (!random.one_in(3)).then(|| history.key(random));
            let (lower, upper) = (bound(), bound());
            let bounds = if random.one_in(2) {
                Bounds { lower, upper }
            } else {
                Bounds {
                    lower: None,
                    upper: None,
                }
            };
            let mut rows = history.visible(at);
            rows.retain(|(key, _)| bounds.hold(key));
            rows_seen += rows.len();
            let context = format!("seed {seed}, at {at:?}, {} runs", runs.len());
            let mut iter = UserIter::new(
                {
                    let (runs, max_seqs) = runs.iter().cloned().unzip();
                    MergingIter::with_max_seqs(runs, max_seqs)
                },
                tombstones.clone(),
                at,
                bounds.lower,
                bounds.upper,
            );
            walk(&mut iter, &rows, random, &history, &context);
        }
    }
    assert!(
        rows_seen > 5000,
        "the histories leave too little to see: {rows_seen}"
    );
}

fn reader(entries: Vec<Entry>, tombstones: Tombstones, at: u64) -> UserIter<VecIter> {
    let max = entries
        .iter()
        .map(|entry| entry.key().seq())
        .max()
        .unwrap_or_default();
    let inner = MergingIter::with_max_seqs(vec![VecIter::new(entries)], vec![max]);
    UserIter::new(
        inner,
        vec![Arc::new(tombstones)],
        SequenceNumber(at),
        None,
        None,
    )
}

fn tombstone(start: &str, end: &str, seq: u64) -> crate::key::RangeTombstone {
    let seq = SequenceNumber(seq);
    crate::key::RangeTombstone {
        start: start.into(),
        end: end.into(),
        seq,
    }
}

#[test]
fn many_versions_of_a_key_are_left_by_a_seek_and_not_by_steps() {
    let mut entries: Vec<_> = (1..=1000)
        .map(|seq| Entry::new(b"b", seq, ValueKind::Put))
        .collect();
    entries.push(Entry::new(b"a", 1, ValueKind::Put));
    entries.push(Entry::new(b"c", 1, ValueKind::Put));
    let mut iter = reader(entries, Tombstones::default(), 500);
    let mut keys = Vec::new();
    iter.seek_to_first().unwrap();
    while let Some((key, value)) = shown(&iter) {
        keys.push((key, value));
        iter.next().unwrap();
    }
    iter.seek_to_last().unwrap();
    while let Some((key, value)) = shown(&iter) {
        keys.push((key, value));
        iter.prev().unwrap();
    }
    let row = |key: &str, value: &str| (key.as_bytes().to_vec(), value.as_bytes().to_vec());
    let forward = [
        row("a", "value 1"),
        row("b", "value 500"),
        row("c", "value 1"),
    ];
    assert_eq!(keys[..3], forward);
    assert!(keys[3..].iter().eq(forward.iter().rev()));
    let steps = iter.inner.run(0).steps;
    assert!(steps < 60, "{steps} steps over 2000 hidden versions");
}

#[test]
fn a_dead_range_of_older_entries_is_left_by_a_seek_in_both_directions() {
    let key = |n: usize| format!("{n:04}").into_bytes();
    let entries = (0..1000)
        .map(|n| Entry::new(&key(n), n + 1, ValueKind::Put))
        .collect();
    let dead = Tombstones::new(vec![tombstone("0010", "0990", 2000)]);
    let mut iter = reader(entries, dead, 5000);
    iter.seek(b"0009").unwrap();
    iter.next().unwrap();
    assert_eq!(iter.key(), b"0990");
    iter.prev().unwrap();
    assert_eq!(iter.key(), b"0009");
    let steps = iter.inner.run(0).steps;
    assert!(steps < 40, "{steps} steps over 1960 dead entries");
}

#[test]
fn a_put_after_a_range_delete_is_seen_and_a_reader_before_the_delete_sees_the_range() {
    let entries =
        |from: usize| (0..50).map(move |n| Entry::new(&[n], from + n as usize, ValueKind::Put));
    let mut all: Vec<_> = entries(1).collect();
    all.push(Entry::new(&[20], 200, ValueKind::Put));
    let dead = Tombstones::new(vec![crate::key::RangeTombstone {
        start: vec![0],
        end: vec![50],
        seq: SequenceNumber(100),
    }]);
    let count = |at| {
        let mut iter = reader(all.clone(), dead.clone(), at);
        let mut count = 0;
        iter.seek_to_first().unwrap();
        while iter.valid() {
            count += 1;
            iter.next().unwrap();
        }
        count
    };
    assert_eq!(
        [count(99), count(100), count(199), count(200)],
        [50, 0, 0, 1]
    );
}

#[test]
fn a_failing_run_is_an_error_and_the_cursor_is_not_valid_after_it() {
    for fails_in in 0..40 {
        let entries: Vec<_> = (1..40)
            .map(|seq| Entry::new(&[b"abcdefghijklm"[seq % 13]], seq, ValueKind::Put))
            .collect();
        let mut run = VecIter::new(entries);
        run.fails_in = Some(fails_in);
        let inner = MergingIter::new(vec![run]);
        let at = SequenceNumber(30);
        let mut iter = UserIter::new(inner, Vec::new(), at, None, None);
        let mut result = iter.seek_to_first();
        let mut calls = 0;
        while result.is_ok() && calls < 100 {
            calls += 1;
            result = match calls % 5 {
                _ if !iter.valid() => iter.seek_to_last(),
                0..3 => iter.next(),
                _ => iter.prev(),
            };
        }
        assert!(
            result.is_err_and(|error| error.is_corruption()),
            "fails in {fails_in}"
        );
        assert!(!iter.valid());
        iter.next().unwrap();
        iter.prev().unwrap();
        assert!(!iter.valid(), "stays so until it is placed");
    }
}

#[test]
fn an_entry_of_unknown_kind_is_an_error() {
    let mut entry = Entry::new(b"k", 1, ValueKind::Put);
    entry.trailer |= 0x70;
    let mut iter = reader(vec![entry], Tombstones::default(), 9);
    assert!(iter.seek_to_first().unwrap_err().is_corruption());
    assert!(iter.seek_to_last().unwrap_err().is_corruption());
}
