//! The index against a plain map: random changes, views that stay as they are, and what an entry costs.

use std::collections::BTreeMap;

use super::*;
use crate::executor::SplitMix64;

type Model = BTreeMap<(Vec<u8>, u64), u64>;

fn entry(pos: u64) -> Entry {
    Entry::new(SequenceNumber(pos + 1), pos, Tag::plain(10))
}

fn content(index: &Index) -> Model {
    let items = index.items().flat_map(|(prefix, log)| {
        let entries = log.entries();
        entries.map(|(at, entry)| ((prefix.to_vec(), at), entry.pos()))
    });
    items.collect()
}

fn check(index: &Index, model: &Model) {
    assert_eq!(content(index), *model);
    assert!(
        index
            .leaves
            .iter()
            .all(|leaf| (1..=LEAF_MAX).contains(&leaf.len())),
        "leaves are neither empty nor too large"
    );
    let mut logs = index.items().map(|(_, log)| log);
    assert!(
        logs.all(|log| !log.is_empty() && log.chunks.iter().all(|c| c.len() > 0)),
        "nothing in it is empty"
    );
}

#[test]
fn random_changes_agree_with_a_map_and_views_stay_as_they_are() {
    for seed in 0..8 {
        let mut random = SplitMix64(seed);
        let mut below = |n: u64| random.next() % n;
        let prefixes = 1 + below(300);
        let (mut index, mut model) = (Index::default(), Model::new());
        let mut views: Vec<(Index, Model)> = Vec::new();
        for step in 0..1500 {
            let prefix = below(prefixes).to_be_bytes();
            let range = index.get(&prefix).map_or(0..0, PrefixLog::range);
            let key = |at: u64| (prefix.to_vec(), at);
            let mut dead = Vec::new();
            let mut expected = Vec::new();
            match below(10) {
                0..5 => {
                    let first = if range.is_empty() {
                        below(1000)
                    } else {
                        range.end - below(10).min(range.end)
                    };
                    let count = 1 + below(200);
                    index.change(&prefix, |log| {
                        log.cut_back(first, &mut |e| dead.push(e.pos()));
                        for at in first..first + count {
                            log.push(at, entry(step * 1000 + at - first));
                        }
                    });
                    for at in first..range.end.max(first) {
                        expected.extend(model.remove(&key(at)));
                    }
                    model.extend(
                        (first..first + count).map(|at| (key(at), step * 1000 + at - first)),
                    );
                }
                5 | 6 => {
                    let cut = range.start + below(400);
                    index.change(&prefix, |log| {
                        log.cut_front(cut, &mut |e| dead.push(e.pos()));
                    });
                    for at in range.start..cut.min(range.end) {
                        expected.extend(model.remove(&key(at)));
                    }
                }
                7 => {
                    let cut = range.start.max(range.end.saturating_sub(below(300)));
                    index.change(&prefix, |log| {
                        log.cut_back(cut, &mut |e| dead.push(e.pos()));
                    });
                    for at in cut..range.end {
                        expected.extend(model.remove(&key(at)));
                    }
                }
                8 if !range.is_empty() => {
                    let at = range.start + below(range.end - range.start);
                    let old =
                        index.change(&prefix, |log| log.put(at, entry(step * 1000), |_| true));
                    dead.extend(old.expect("it may").map(|old| old.pos()));
                    expected.extend(model.insert(key(at), step * 1000));
                }
                _ if views.len() < 5 => views.push((index.clone(), model.clone())),
                _ => views.clear(),
            }
            dead.sort_unstable();
            expected.sort_unstable();
            assert_eq!(
                dead, expected,
                "seed {seed}, step {step}: what is told dead"
            );
            let at = range.start + below(500);
            let found = index
                .get(&prefix)
                .and_then(|log| log.get(at))
                .map(|e| e.pos());
            assert_eq!(found, model.get(&key(at)).copied());
            if step % 100 == 0 {
                check(&index, &model);
            }
        }
        check(&index, &model);
        for (view, model) in views {
            check(&view, &model);
        }
    }
}

#[test]
fn holes_are_filled_in_any_order_and_told_until_then() {
    for seed in 0..60 {
        let mut random = SplitMix64(seed);
        let mut order: Vec<u64> = (100..100 + 1 + random.next() % 400).collect();
        for at in (1..order.len()).rev() {
            let other = usize::try_from(random.next() % (at as u64 + 1)).expect("small");
            order.swap(at, other);
        }
        let mut log = PrefixLog::default();
        let mut model = BTreeMap::new();
        for &at in &order {
            assert!(!model.is_empty() || log.is_empty());
            assert_eq!(log.put(at, entry(at * 2), |_| false), Ok(None));
            model.insert(at, at * 2);
            let (first, last) = (
                *model.keys().next().expect("some"),
                *model.keys().last().expect("some"),
            );
            let is_whole = last - first + 1 == model.len() as u64;
            assert_eq!(log.is_contiguous(), is_whole);
            assert_eq!(log.range(), first..last + 1);
        }
        let found: BTreeMap<u64, u64> = log.entries().map(|(at, e)| (at, e.pos())).collect();
        assert_eq!(found, model);
        let there = log.put(order[0], entry(1), |_| false);
        assert_eq!(there, Err(entry(order[0] * 2)), "what is there stays");
    }
}

#[test]
fn views_within_bounds_have_every_key_within_them() {
    let mut index = Index::default();
    for prefix in 0..1000_u16 {
        index.change(&(prefix * 3).to_be_bytes(), |log| {
            log.push(5, entry(u64::from(prefix)));
        });
    }
    for lower in (0..3100_u16).step_by(37) {
        for upper in [lower, lower + 1, lower + 400, 5000] {
            let (low, high) = (lower.to_be_bytes(), upper.to_be_bytes());
            let view = index.within(Some(&low), Some(&high));
            let found = view
                .items()
                .filter(|(p, _)| p[..] >= low[..] && p[..] < high[..]);
            let all = index
                .items()
                .filter(|(p, _)| p[..] >= low[..] && p[..] < high[..]);
            assert_eq!(found.count(), all.count());
            assert!(view.leaves.len() <= usize::from(upper - lower) / 32 / 3 + 2);
        }
    }
}

#[test]
fn tags_come_back() {
    for len in [0, 1, 4095, 512 << 20] {
        assert_eq!(Tag::plain(len).form(), Form::Plain { len });
    }
    for (at, count, bytes, share) in [(0, 1, 9, 9), (4095, 4096, 100, 1), (7, 8, 1 << 20, 65535)] {
        let at_ = usize::try_from(at).expect("small");
        let form = Tag::packed(at, count, bytes).form();
        assert_eq!(form, Form::Packed { at: at_, share });
    }
}

#[test]
fn an_entry_takes_few_bytes_in_long_logs() {
    assert_eq!(size_of::<Entry>(), 20);
    let mut index = Index::default();
    for prefix in 0..10_u8 {
        index.change(&[prefix], |log| {
            (0..10_000).for_each(|at| log.push(at, entry(at)));
        });
    }
    let sizes = index.sizes();
    assert_eq!((sizes.prefixes, sizes.entries), (10, 100_000));
    assert!(sizes.memory_bytes <= 10 * sizes.entries, "{sizes:?}");
}
