//! Histories of the atomic store with one event changed, so that they are surely not linearizable any more. Each
//! put has a value of its own, so what a read saw names the write that it saw; each kind of change says why no
//! order is left.

use basalt_testkit::{
    Replay, Rng, Seeds,
    history::{Limits, Operation, Outcome, Verdict, check},
    long_factor,
};

use crate::{
    oracle,
    script::{Op, Script},
    store::{Load, run},
};

/// Makes one change to the script, if there is an operation that it suits.
type Change = fn(&Script, &mut Rng) -> Option<Script>;

const CHANGES: [(&str, Change); 21] = [
    ("a get has a value that was overwritten", old_value),
    ("a get has a value that nobody wrote", ghost),
    ("a get finds nothing after an acknowledged put", lost),
    ("a get is behind that of another client", behind_another),
    ("a get has a value of before a delete", resurrected),
    ("a get goes back to the first of two values", back_and_forth),
    ("a get responds before its value is written", answered_early),
    ("a get starts after its value was overwritten", asked_late),
    (
        "a put responds before a get of an older value",
        acknowledged_early,
    ),
    ("a put starts after its value was seen", written_late),
    ("a put failed and was seen", failed_put),
    ("a delete failed and was seen", failed_delete),
    ("a put wrote something else than was seen", corrupted),
    ("an unknown put took effect twice", twice),
    ("a scan misses a row", missing_row),
    ("a scan has a row of before a delete", deleted_row),
    ("a scan has a row that was overwritten", old_row),
    ("a scan has a later write and not an earlier one", torn),
    ("a scan has rows out of order", swapped_rows),
    ("a scan has a row outside its range", outside),
    ("a scan has more rows than its limit", over_limit),
];

/// All that suits, of which one is drawn.
fn draw<T>(found: Vec<T>, rng: &mut Rng) -> Option<T> {
    let mut found = found;
    (!found.is_empty()).then(|| found.swap_remove(rng.index(found.len())))
}

fn changed(script: &Script, index: usize, change: impl FnOnce(&mut Op)) -> Script {
    let mut script = script.clone();
    change(&mut script.0[index]);
    script
}

fn before(first: &Op, second: &Op) -> bool {
    first.acked().is_some_and(|end| end < second.call)
}

fn key_of(op: &Op) -> Option<&[u8]> {
    match &op.operation {
        Operation::Put { key, .. } | Operation::Delete { key } | Operation::Get { key } => {
            Some(key)
        }
        Operation::Scan { .. } => None,
    }
}

fn is_delete(op: &Op) -> bool {
    matches!(op.operation, Operation::Delete { .. })
}

fn writes(script: &Script, key: &[u8]) -> Vec<usize> {
    let all = script.0.iter().enumerate();
    let own = all.filter(|(_, op)| op.operation.is_write() && key_of(op) == Some(key));
    own.filter(|(_, op)| !op.failed())
        .map(|(index, _)| index)
        .collect()
}

/// Pairs of writes of a key, with the first acknowledged before the second was asked for.
fn in_order<'a>(script: &'a Script, key: &[u8]) -> Vec<(&'a Op, &'a Op)> {
    let writes = writes(script, key);
    let all = writes.iter().flat_map(|first| {
        let pair = |second: &usize| (&script.0[*first], &script.0[*second]);
        writes.iter().map(pair).collect::<Vec<_>>()
    });
    all.filter(|(first, second)| before(first, second))
        .collect()
}

/// A get that was answered, with its index, its key, and what it saw.
type Get<'a> = (usize, &'a Op, &'a [u8], Option<&'a [u8]>);

fn gets(script: &Script) -> Vec<Get<'_>> {
    let all = script.0.iter().enumerate();
    let gets = all.filter_map(|(index, op)| op.got().map(|(key, value)| (index, op, key, value)));
    gets.collect()
}

fn writer<'a>(script: &'a Script, key: &[u8], value: &[u8]) -> Option<(usize, &'a Op)> {
    let all = script.0.iter().enumerate();
    let mut puts = all.filter(|(_, op)| op.put() == Some((key, value)));
    puts.next()
}

fn see(script: &Script, get: usize, value: Option<&[u8]>) -> Script {
    changed(script, get, |op| {
        if let Some((_, outcome)) = &mut op.end {
            *outcome = Outcome::Value(value.map(<[u8]>::to_vec));
        }
    })
}

fn end_at(script: &Script, index: usize, at: u64) -> Script {
    changed(script, index, |op| {
        if let Some((time, _)) = &mut op.end {
            *time = at;
        }
    })
}

fn fail(script: &Script, index: usize) -> Script {
    let unknown_end = script.0[index].call + 1;
    changed(script, index, |op| {
        let time = op.end.as_ref().map_or(unknown_end, |(time, _)| *time);
        op.end = Some((time, Outcome::Failed));
    })
}

/// put old < put new < get: the get cannot have the old value.
fn old_value(script: &Script, rng: &mut Rng) -> Option<Script> {
    let mut found = Vec::new();
    for (index, get, key, _) in gets(script) {
        for (old, new) in in_order(script, key) {
            if let Some((_, value)) = old.put()
                && new.put().is_some()
                && before(new, get)
            {
                found.push((index, value));
            }
        }
    }
    draw(found, rng).map(|(get, value)| see(script, get, Some(value)))
}

fn ghost(script: &Script, rng: &mut Rng) -> Option<Script> {
    draw(gets(script), rng).map(|(get, ..)| see(script, get, Some(b"ghost")))
}

/// put < end of `op`, and no delete of the key that could be between.
fn surely_there(script: &Script, key: &[u8], put: &Op, op: &Op, spared: Option<usize>) -> bool {
    let end = op.acked().unwrap_or(u64::MAX);
    before(put, op)
        && writes(script, key)
            .into_iter()
            .filter(|index| Some(*index) != spared && is_delete(&script.0[*index]))
            .all(|index| script.0[index].call > end || before(&script.0[index], put))
}

fn lost(script: &Script, rng: &mut Rng) -> Option<Script> {
    let mut found = Vec::new();
    for (index, get, key, _) in gets(script) {
        for put in writes(script, key) {
            let put = &script.0[put];
            if !is_delete(put) && surely_there(script, key, put, get, None) {
                found.push(index);
            }
        }
    }
    draw(found, rng).map(|get| see(script, get, None))
}

/// put old < put new, get of new < get: the last cannot have the old value, though the new one's put may be open.
fn behind_another(script: &Script, rng: &mut Rng) -> Option<Script> {
    let mut found = Vec::new();
    for (_, ahead, key, seen) in gets(script) {
        let Some((_, new)) = seen.and_then(|value| writer(script, key, value)) else {
            continue;
        };
        for (index, get, other, _) in gets(script) {
            if other != key || get.client == ahead.client {
                continue;
            }
            if !before(ahead, get) || before(new, get) {
                continue;
            }
            for old in writes(script, key) {
                let old = &script.0[old];
                if let Some((_, value)) = old.put()
                    && before(old, new)
                {
                    found.push((index, value));
                }
            }
        }
    }
    draw(found, rng).map(|(get, value)| see(script, get, Some(value)))
}

/// put < delete < get: the get cannot have the value of the put.
fn resurrected(script: &Script, rng: &mut Rng) -> Option<Script> {
    let mut found = Vec::new();
    for (index, get, key, _) in gets(script) {
        for (put, delete) in in_order(script, key) {
            if let Some((_, value)) = put.put()
                && is_delete(delete)
                && before(delete, get)
            {
                found.push((index, value));
            }
        }
    }
    draw(found, rng).map(|(get, value)| see(script, get, Some(value)))
}

/// get a < get b < get: the last cannot have a, which is written once.
fn back_and_forth(script: &Script, rng: &mut Rng) -> Option<Script> {
    let mut found = Vec::new();
    let gets = gets(script);
    for (_, first, key, a) in &gets {
        for (_, second, other, b) in &gets {
            if key == other && a.is_some() && a != b && before(first, second) {
                let last = gets
                    .iter()
                    .filter(|(_, get, other, _)| other == key && before(second, get));
                found.extend(last.map(|(index, ..)| (*index, *a)));
            }
        }
    }
    draw(found, rng).map(|(get, value)| see(script, get, value))
}

/// get < put of what it saw.
fn answered_early(script: &Script, rng: &mut Rng) -> Option<Script> {
    let mut found = Vec::new();
    for (index, get, key, seen) in gets(script) {
        if let Some((_, put)) = seen.and_then(|value| writer(script, key, value))
            && get.call < put.call
        {
            found.push((index, put.call - 1));
        }
    }
    draw(found, rng).map(|(get, at)| end_at(script, get, at))
}

/// put of what it saw < write < get.
fn asked_late(script: &Script, rng: &mut Rng) -> Option<Script> {
    let mut found = Vec::new();
    for (index, get, key, seen) in gets(script) {
        let Some((_, put)) = seen.and_then(|value| writer(script, key, value)) else {
            continue;
        };
        for next in writes(script, key) {
            let next = &script.0[next];
            if let (Some(over), Some(end)) = (next.acked(), get.acked())
                && before(put, next)
                && over + 1 < end
            {
                found.push((index, over + 1));
            }
        }
    }
    draw(found, rng).map(|(get, at)| changed(script, get, |op| op.call = at))
}

/// put old < put new < get of old, when the new one's response is moved to just after its call.
fn acknowledged_early(script: &Script, rng: &mut Rng) -> Option<Script> {
    let mut found = Vec::new();
    for (_, get, key, seen) in gets(script) {
        let Some((_, old)) = seen.and_then(|value| writer(script, key, value)) else {
            continue;
        };
        for index in writes(script, key) {
            let new = &script.0[index];
            if new.acked().is_some() && before(old, new) && new.call + 1 < get.call {
                found.push((index, new.call + 1));
            }
        }
    }
    draw(found, rng).map(|(put, at)| end_at(script, put, at))
}

/// get of a value < put of it.
fn written_late(script: &Script, rng: &mut Rng) -> Option<Script> {
    let mut found = Vec::new();
    for (_, get, key, seen) in gets(script) {
        if let Some((index, put)) = seen.and_then(|value| writer(script, key, value))
            && let Some(seen_at) = get.acked()
            && put.end.as_ref().is_none_or(|(end, _)| *end > seen_at + 1)
        {
            found.push((index, seen_at + 1));
        }
    }
    draw(found, rng).map(|(put, at)| changed(script, put, |op| op.call = at))
}

fn failed_put(script: &Script, rng: &mut Rng) -> Option<Script> {
    let seen = seen_puts(script);
    draw(seen, rng).map(|put| fail(script, put))
}

fn seen_puts(script: &Script) -> Vec<usize> {
    let gets = gets(script).into_iter();
    gets.filter_map(|(_, _, key, seen)| seen.and_then(|value| writer(script, key, value)))
        .map(|(index, _)| index)
        .collect()
}

/// put < get of nothing, and no delete could be between but the one that is now said to have failed.
fn failed_delete(script: &Script, rng: &mut Rng) -> Option<Script> {
    let mut found = Vec::new();
    for (_, get, key, seen) in gets(script) {
        if seen.is_some() {
            continue;
        }
        let writes = writes(script, key);
        for delete in writes.iter().filter(|index| is_delete(&script.0[**index])) {
            let is_needed = |put: &usize| {
                let put = &script.0[*put];
                put.put().is_some() && surely_there(script, key, put, get, Some(*delete))
            };
            if writes.iter().any(is_needed) {
                found.push(*delete);
            }
        }
    }
    draw(found, rng).map(|delete| fail(script, delete))
}

fn corrupted(script: &Script, rng: &mut Rng) -> Option<Script> {
    draw(seen_puts(script), rng).map(|put| {
        changed(script, put, |op| {
            if let Operation::Put { value, .. } = &mut op.operation {
                value.push(b'?');
            }
        })
    })
}

/// unknown put, get of it < write < get: the last cannot see the put again.
fn twice(script: &Script, rng: &mut Rng) -> Option<Script> {
    let mut found = Vec::new();
    for (_, first, key, seen) in gets(script) {
        let Some((_, put)) = seen.and_then(|value| writer(script, key, value)) else {
            continue;
        };
        if put.acked().is_some() {
            continue;
        }
        for write in writes(script, key) {
            let write = &script.0[write];
            for (index, get, other, _) in gets(script) {
                if other == key && before(first, write) && before(write, get) {
                    found.push((index, seen));
                }
            }
        }
    }
    draw(found, rng).map(|(get, value)| see(script, get, value))
}

/// A scan with what it was answered.
struct Scan<'a> {
    index: usize,
    op: &'a Op,
    start: &'a [u8],
    end: &'a [u8],
    limit: usize,
    rows: &'a [(Vec<u8>, Vec<u8>)],
}

fn scans(script: &Script) -> Vec<Scan<'_>> {
    let all = script.0.iter().enumerate();
    let scans = all.filter_map(|(index, op)| match (&op.operation, &op.end) {
        (Operation::Scan { start, end, limit }, Some((_, Outcome::Rows(rows)))) => Some(Scan {
            index,
            op,
            start,
            end: end.as_ref()?,
            limit: *limit,
            rows,
        }),
        _ => None,
    });
    scans.collect()
}

fn with_rows(
    script: &Script,
    index: usize,
    change: impl FnOnce(&mut Vec<(Vec<u8>, Vec<u8>)>),
) -> Script {
    changed(script, index, |op| {
        if let Some((_, Outcome::Rows(rows))) = &mut op.end {
            change(rows);
        }
    })
}

/// put of the row < scan, and no delete that could be between. Without the row there are fewer than the limit, so
/// that the scan has looked for it.
fn missing_row(script: &Script, rng: &mut Rng) -> Option<Script> {
    let mut found = Vec::new();
    for scan in scans(script) {
        for (row, (key, _)) in scan.rows.iter().enumerate() {
            let there = |put: &usize| {
                let put = &script.0[*put];
                put.put().is_some() && surely_there(script, key, put, scan.op, None)
            };
            if writes(script, key).iter().any(there) {
                found.push((scan.index, row));
            }
        }
    }
    draw(found, rng).map(|(index, row)| {
        with_rows(script, index, |rows| {
            rows.remove(row);
        })
    })
}

/// put < delete < scan.
fn deleted_row(script: &Script, rng: &mut Rng) -> Option<Script> {
    let mut found = Vec::new();
    for scan in scans(script) {
        if scan.rows.len() == scan.limit {
            continue;
        }
        let mut keys: Vec<&[u8]> = script.0.iter().filter_map(key_of).collect();
        keys.retain(|key| (scan.start..scan.end).contains(key));
        keys.sort_unstable();
        keys.dedup();
        keys.retain(|key| scan.rows.iter().all(|(other, _)| other != key));
        for key in keys {
            for (put, delete) in in_order(script, key) {
                if let Some((_, value)) = put.put()
                    && is_delete(delete)
                    && before(delete, scan.op)
                {
                    found.push((scan.index, (key.to_vec(), value.to_vec())));
                }
            }
        }
    }
    draw(found, rng).map(|(index, row)| {
        with_rows(script, index, |rows| {
            rows.push(row);
            rows.sort();
        })
    })
}

/// put old < write < scan.
fn old_row(script: &Script, rng: &mut Rng) -> Option<Script> {
    let mut found = Vec::new();
    for scan in scans(script) {
        for (row, (key, _)) in scan.rows.iter().enumerate() {
            for (old, new) in in_order(script, key) {
                if let Some((_, value)) = old.put()
                    && before(new, scan.op)
                {
                    found.push((scan.index, row, value.to_vec()));
                }
            }
        }
    }
    draw(found, rng).map(|(index, row, value)| with_rows(script, index, |rows| rows[row].1 = value))
}

/// put a old < put a new < put b, and b was seen: the scan cannot have the old a. The new one may be seen by nobody
/// else yet.
fn torn(script: &Script, rng: &mut Rng) -> Option<Script> {
    let mut found = Vec::new();
    for scan in scans(script) {
        for (row, (key, _)) in scan.rows.iter().enumerate() {
            for (other, seen) in scan.rows.iter().filter(|(other, _)| other != key) {
                let Some((_, later)) = writer(script, other, seen) else {
                    continue;
                };
                for (old, new) in in_order(script, key) {
                    if let Some((_, value)) = old.put()
                        && before(new, later)
                        && !before(new, scan.op)
                    {
                        found.push((scan.index, row, value.to_vec()));
                    }
                }
            }
        }
    }
    draw(found, rng).map(|(index, row, value)| with_rows(script, index, |rows| rows[row].1 = value))
}

fn swapped_rows(script: &Script, rng: &mut Rng) -> Option<Script> {
    let mut scans = scans(script);
    scans.retain(|scan| scan.rows.len() > 1);
    draw(scans, rng).map(|scan| with_rows(script, scan.index, |rows| rows.swap(0, 1)))
}

fn outside(script: &Script, rng: &mut Rng) -> Option<Script> {
    let mut scans = scans(script);
    scans.retain(|scan| scan.rows.len() < scan.limit);
    draw(scans, rng).map(|scan| {
        let row = (scan.end.to_vec(), b"v0".to_vec());
        with_rows(script, scan.index, |rows| rows.push(row))
    })
}

fn over_limit(script: &Script, rng: &mut Rng) -> Option<Script> {
    let mut scans = scans(script);
    scans.retain(|scan| !scan.rows.is_empty());
    draw(scans, rng).map(|scan| {
        changed(script, scan.index, |op| {
            if let Operation::Scan { limit, .. } = &mut op.operation {
                *limit = scan.rows.len() - 1;
            }
        })
    })
}

/// Makes every change to a history of every seed; how many of each kind suited one.
fn change_all(name: &str, cases: u64, load: Load, judge: impl Fn(&str, &Script, bool)) -> Vec<u64> {
    let mut counts = vec![0; CHANGES.len()];
    for seed in Seeds::new(name, cases) {
        let _replay = Replay::new("-p basalt-testkit --test history", name, seed);
        let mut rng = Rng::new(seed);
        let script = run(load, &mut rng);
        judge("nothing is changed", &script, true);
        for ((what, change), count) in CHANGES.iter().zip(&mut counts) {
            if let Some(changed) = change(&script, &mut rng) {
                assert_ne!(script, changed, "{what}");
                judge(what, &changed, false);
                *count += 1;
            }
        }
    }
    for ((what, _), count) in CHANGES.iter().zip(&counts) {
        println!("{count:5} {what}");
    }
    let bad: u64 = counts.iter().sum();
    println!("{bad:5} bad histories from {cases} good ones");
    counts
}

fn load(clients: u64, keys: u64, operations: usize) -> Load {
    Load {
        scans: 150,
        unknown: 80,
        ..Load::new(clients, keys, operations)
    }
}

#[test]
fn a_history_with_one_event_changed_is_refused() {
    let name = "a_history_with_one_event_changed_is_refused";
    let cases = 40 * long_factor();
    let counts = change_all(
        name,
        cases,
        load(8, 4, 250),
        |what, script, good| match check(&script.history(), Limits::default()) {
            Verdict::Linearizable => assert!(good, "accepted: {what}\n{script}"),
            Verdict::NotLinearizable { explanation, .. } => {
                assert!(!good, "refused: {what}\n{explanation}");
            }
            verdict @ Verdict::OutOfBudget { .. } => panic!("{what}: {verdict}"),
        },
    );
    if !Seeds::new(name, 1).is_replay() {
        for ((what, _), count) in CHANGES.iter().zip(&counts) {
            assert!(5 * count >= cases, "in {count} of {cases} only: {what}");
        }
    }
}

/// That the changes are what they say: small histories of the same kinds, judged without the checker.
#[test]
fn a_change_leaves_no_order_at_all() {
    let name = "a_change_leaves_no_order_at_all";
    let cases = 1500 * long_factor();
    let counts = change_all(name, cases, load(3, 2, 14), |what, script, good| {
        assert_eq!(oracle::plain_search(script), good, "{what}\n{script}");
    });
    if !Seeds::new(name, 1).is_replay() {
        assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    }
}
