//! Merged cursors against one sorted list.

use super::*;
use crate::{
    iter::model::{Entry, History, Random, VecIter, shown, walk},
    key::ValueKind,
    memtable::Memtable,
    options::MemtableKind,
};
use std::sync::Arc;

/// Deals entries out to `count` runs, some of which stay empty.
fn deal(random: &mut Random, entries: &[Entry], count: usize) -> Vec<VecIter> {
    let mut runs = vec![Vec::new(); count];
    for entry in entries {
        // Sometimes long stretches from one run.
        let run = if random.one_in(3) {
            0
        } else {
            random.below(count)
        };
        runs[run].push(entry.clone());
    }
    runs.into_iter().map(VecIter::new).collect()
}

fn sorted(mut entries: Vec<Entry>) -> Vec<Entry> {
    entries.sort_by(|a, b| a.key().cmp(&b.key()));
    entries
}

#[test]
fn merged_runs_walk_as_one_sorted_list_in_both_directions() {
    for seed in 1..300 {
        let random = &mut Random::new(seed);
        let writes = random.below(200);
        let entries = History::new(random, writes).entries;
        let count = 1 + random.below(12);
        let mut merged = MergingIter::new(deal(random, &entries, count));
        walk(
            &mut merged,
            &sorted(entries),
            random,
            200,
            &format!("seed {seed}, {count} runs"),
        );
    }
}

#[test]
fn a_merge_of_no_runs_is_empty() {
    let mut merged = MergingIter::<VecIter>::new(Vec::new());
    merged.seek_to_first().unwrap();
    assert!(!merged.valid());
    merged.seek_to_last().unwrap();
    assert!(!merged.valid());
}

#[test]
fn a_failing_run_makes_the_merge_fail_and_not_valid_until_it_is_placed_again() {
    for count in [1, 3, 9] {
        for fails_in in 0..30 {
            let random = &mut Random::new(7);
            let entries: Vec<_> = (1..60)
                .map(|seq| Entry::new(&random.key(60), seq, ValueKind::Put))
                .collect();
            let mut runs = deal(random, &entries, count);
            runs[0].fails_in = Some(fails_in);
            let mut merged = MergingIter::new(runs);
            let mut failed = merged.seek_to_first().is_err();
            for call in 0..200 {
                if failed {
                    break;
                }
                if !merged.valid() {
                    merged.seek_to_first().unwrap_or_else(|_| failed = true);
                } else if call % 40 < 30 {
                    merged.next().unwrap_or_else(|_| failed = true);
                } else {
                    merged.prev().unwrap_or_else(|_| failed = true);
                }
            }
            assert!(
                failed && !merged.valid(),
                "{count} runs, fails in {fails_in}"
            );
            merged.runs[0].fails_in = None;
            merged.seek_to_first().unwrap();
            assert_eq!(shown(&merged), sorted(entries).first().cloned());
        }
    }
}

#[test]
fn old_runs_are_moved_over_a_dead_range_and_newer_ones_are_not() {
    let run = |first: usize| {
        let entry = |n: usize| Entry::new(format!("{n:02}").as_bytes(), first + n, ValueKind::Put);
        VecIter::new((0..20).map(entry).collect())
    };
    let seq = SequenceNumber;
    let runs = vec![
        (run(0), seq(20)),
        (run(100), seq(120)),
        (run(200), seq(220)),
    ];
    let mut merged = with_max_seqs(runs);
    merged.seek_to_first().unwrap();
    merged.skip_dead(b"10", seq(200)).unwrap();
    let mut newest_first = Vec::new();
    while merged.valid() && merged.key().user_key < &b"11"[..] {
        newest_first.push(merged.key().seq().0);
        merged.next().unwrap();
    }
    assert_eq!(
        newest_first,
        [
            200, 201, 202, 203, 204, 205, 206, 207, 208, 209, 210, 110, 10
        ]
    );

    merged.seek_to_last().unwrap();
    merged.skip_dead(b"17", seq(20)).unwrap();
    assert_eq!(
        merged.key().seq(),
        seq(19),
        "a run as new as the delete is not moved"
    );
    merged.skip_dead(b"17", seq(120)).unwrap();
    let mut oldest_first = Vec::new();
    while merged.valid() && merged.key().user_key >= &b"16"[..] {
        oldest_first.push(merged.key().seq().0);
        merged.prev().unwrap();
    }
    assert_eq!(oldest_first, [119, 219, 118, 218, 117, 217, 16, 116, 216]);
}

#[test]
fn turning_after_a_dead_range_gives_the_neighbours_of_the_current_entry() {
    let entry = |key: &str, seq| Entry::new(key.as_bytes(), seq, ValueKind::Put);
    let old = VecIter::new(vec![
        entry("a", 1),
        entry("c", 2),
        entry("e", 3),
        entry("g", 4),
    ]);
    let new = VecIter::new(vec![entry("b", 11), entry("d", 12), entry("f", 13)]);
    let runs = vec![(old, SequenceNumber(4)), (new, SequenceNumber(13))];
    let mut merged = with_max_seqs(runs);
    merged.seek_to_first().unwrap();
    merged.skip_dead(b"z", SequenceNumber(5)).unwrap();
    assert_eq!(shown(&merged), Some(entry("b", 11)));
    merged.next().unwrap();
    assert_eq!(shown(&merged), Some(entry("d", 12)));
    merged.prev().unwrap();
    assert_eq!(shown(&merged), Some(entry("c", 2)));
}

#[test]
fn entries_a_memtable_takes_between_two_steps_do_not_turn_the_order_around() {
    let memtable = Arc::new(Memtable::new(MemtableKind::default()));
    let insert = |key: &str, seq| {
        let key = InternalKey::new(key.as_bytes(), SequenceNumber(seq), ValueKind::Put);
        memtable.insert(key, b"");
    };
    let other = Arc::new(Memtable::new(MemtableKind::default()));
    other.insert(
        InternalKey::new(b"m", SequenceNumber(1), ValueKind::Put),
        b"",
    );
    insert("a", 2);
    insert("z", 3);
    let mut merged = MergingIter::new(vec![memtable.iter(), other.iter()]);
    merged
        .seek(InternalKey::seek_to(b"m", SequenceNumber::MAX))
        .unwrap();
    assert_eq!(merged.key().user_key, b"m");
    for (seq, key) in ["n", "o", "p", "q", "r", "s"].into_iter().enumerate() {
        insert(key, 10 + seq as u64);
    }
    merged.prev().unwrap();
    assert_eq!(
        merged.key().user_key,
        b"a",
        "not one of the new entries behind m"
    );
    merged.next().unwrap();
    assert_eq!(merged.key().user_key, b"m");
}

fn with_max_seqs(runs: Vec<(VecIter, SequenceNumber)>) -> MergingIter<VecIter> {
    let (runs, max_seqs) = runs.into_iter().unzip();
    MergingIter::with_max_seqs(runs, max_seqs)
}
