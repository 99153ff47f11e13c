//! Small random histories, good and spoiled, against the oracles.

use std::ops::Range;

use basalt_testkit::{
    Replay, Rng, Seeds,
    history::{Limits, Operation, Outcome, Verdict, check},
    long_factor,
};

use crate::{
    oracle,
    script::{Op, Script},
    store::{Load, key, run},
};

/// How often an oracle said yes, and how often no.
#[derive(Debug, Default)]
struct Counts {
    good: u64,
    bad: u64,
    scans: u64,
    optional: u64,
}

fn some_value(rng: &mut Rng) -> Vec<u8> {
    format!("v{}", rng.below(4)).into()
}

/// Changes what an operation has seen, how it ended, or when.
fn spoil(script: &mut Script, rng: &mut Rng) {
    let index = rng.index(script.0.len());
    let op: &mut Op = &mut script.0[index];
    match &mut op.end {
        Some((_, Outcome::Value(value))) => {
            *value = (!rng.one_in(3)).then(|| some_value(rng));
        }
        Some((_, Outcome::Rows(rows))) if !rows.is_empty() => {
            let row = rng.index(rows.len());
            if rng.one_in(2) {
                rows.remove(row);
            } else {
                rows[row].1 = some_value(rng);
            }
        }
        Some((_, Outcome::Rows(rows))) => {
            if let Operation::Scan { start, .. } = &op.operation {
                rows.push((start.clone(), some_value(rng)));
            }
        }
        Some((time, outcome)) => match rng.below(4) {
            0 => *outcome = Outcome::Failed,
            1 => *outcome = Outcome::Unknown,
            2 => *time = op.call + 1,
            _ => {
                if *time - 1 > op.call {
                    op.call = *time - 1;
                }
            }
        },
        None => op.end = Some((1_000_001, Outcome::Unknown)),
    }
}

/// A small history: few keys, few values, so that the same value comes from several writes. The times of changed
/// events are odd, those of the others even; a clash of two changed ones draws again.
fn small(rng: &mut Rng, operations: Range<usize>) -> Script {
    loop {
        let load = Load {
            clients: rng.range(1..6),
            keys: rng.range(1..4),
            operations: rng.len(operations.clone()),
            puts: *rng.pick(&[300, 500]),
            deletes: *rng.pick(&[0, 100, 200]),
            scans: *rng.pick(&[0, 0, 100, 300]),
            unknown: *rng.pick(&[0, 150, 400]),
            failed: 50,
            width: 3,
            values: *rng.pick(&[0, 2, 3, 4]),
            pause: *rng.pick(&[0, 20, 100]),
        };
        let mut script = run(load, rng);
        for _ in 0..*rng.pick(&[0, 0, 1, 1, 2, 3]) {
            spoil(&mut script, rng);
        }
        let mut times: Vec<u64> = Vec::new();
        for op in &script.0 {
            times.push(op.call);
            times.extend(op.end.as_ref().map(|(time, _)| *time));
        }
        let events = times.len();
        times.sort_unstable();
        times.dedup();
        if times.len() == events {
            return script;
        }
    }
}

/// Compares the checker with an oracle, and what it says about a refusal too.
fn compare(script: &Script, oracle: fn(&Script) -> bool, counts: &mut Counts) {
    let history = script.history();
    let expected = oracle(script);
    let verdict = check(&history, Limits::default());
    assert_eq!(verdict.is_linearizable(), expected, "{script}\n{verdict}");
    counts.good += u64::from(expected);
    counts.bad += u64::from(!expected);
    let has = |what: &dyn Fn(&Op) -> bool| u64::from(script.0.iter().any(what));
    counts.scans += has(&|op| matches!(op.end, Some((_, Outcome::Rows(_)))));
    counts.optional += has(&|op| op.operation.is_write() && op.acked().is_none() && !op.failed());
    if expected {
        return;
    }
    let Verdict::NotLinearizable {
        offender,
        operations,
        ..
    } = &verdict
    else {
        panic!("{script}\n{verdict}");
    };
    // Rows that no store could have are refused wherever they stand.
    let offender = history.record(*offender);
    let (end, outcome) = offender.completed.clone().expect("it is a response");
    let until = script.until(end);
    assert!(!oracle(&until), "good until {end}: {script}\n{verdict}");
    let sane = match (&offender.operation, &outcome) {
        (Operation::Scan { start, end, limit }, Outcome::Rows(rows)) => {
            let inside = |key: &Vec<u8>| key >= start && end.as_ref().is_none_or(|end| key < end);
            rows.len() <= *limit
                && rows.iter().all(|(key, _)| inside(key))
                && rows.windows(2).all(|pair| pair[0].0 < pair[1].0)
        }
        _ => true,
    };
    if sane {
        let before = script.until(end - 1);
        assert!(oracle(&before), "bad before {end}: {script}\n{verdict}");
    }
    // The operations that are shown are refused alone. (Not so with scans: of those, parts may have been enough.)
    let mut few = until;
    let shown: Vec<u64> = operations
        .iter()
        .map(|id| history.record(*id).invoked)
        .collect();
    few.0.retain(|op| shown.contains(&op.call));
    assert_eq!(few.0.len(), shown.len());
    assert!(!oracle(&few), "too few are shown: {script}\n{verdict}");
}

fn compare_many(
    name: &str,
    cases: u64,
    operations: &Range<usize>,
    oracle: fn(&Script) -> bool,
) -> Counts {
    let mut counts = Counts::default();
    let seeds = Seeds::new(name, cases * long_factor());
    let replay = seeds.is_replay();
    let mut first = None;
    for seed in seeds {
        first.get_or_insert(seed);
        let _replay = Replay::new("-p basalt-testkit --test history", name, seed);
        let script = small(&mut Rng::new(seed), operations.clone());
        compare(&script, oracle, &mut counts);
    }
    println!("{name}: from seed {:#x}: {counts:?}", first.expect("cases"));
    if !replay {
        for often in [counts.good, counts.bad, counts.optional, counts.scans] {
            assert!(
                often * 5 > cases * long_factor(),
                "too few of one kind: {counts:?}"
            );
        }
    }
    counts
}

#[test]
fn the_checker_says_what_trying_all_orders_says() {
    let name = "the_checker_says_what_trying_all_orders_says";
    let _ = compare_many(name, 25_000, &(2..8), oracle::brute_force);
}

#[test]
fn the_checker_says_what_a_plain_search_says() {
    let name = "the_checker_says_what_a_plain_search_says";
    let _ = compare_many(name, 10_000, &(8..17), oracle::plain_search);
}

/// Longer than an oracle can judge, but good by their making.
#[test]
fn what_an_atomic_store_did_is_never_refused() {
    let name = "what_an_atomic_store_did_is_never_refused";
    let cases = 10_000 * long_factor();
    let mut given_up = 0;
    for seed in Seeds::new(name, cases) {
        let _replay = Replay::new("-p basalt-testkit --test history", name, seed);
        let mut rng = Rng::new(seed);
        let load = Load {
            clients: rng.range(2..13),
            keys: rng.range(1..4),
            operations: rng.len(20..150),
            puts: *rng.pick(&[200, 400, 600]),
            deletes: *rng.pick(&[0, 100, 300]),
            scans: *rng.pick(&[0, 0, 100, 300]),
            unknown: *rng.pick(&[0, 100, 300, 600]),
            failed: 20,
            width: 3,
            values: *rng.pick(&[0, 1, 2, 3, 5, 10]),
            pause: *rng.pick(&[0, 20, 200]),
        };
        let script = run(load, &mut rng);
        match check(&script.history(), Limits::default()) {
            Verdict::Linearizable => {}
            Verdict::OutOfBudget { .. } => given_up += 1,
            Verdict::NotLinearizable { explanation, .. } => panic!("{explanation}\n{script}"),
        }
    }
    println!("{name}: {given_up} of {cases} out of budget");
    assert!(
        given_up * 100 <= cases,
        "{given_up} of {cases} are too hard"
    );
}

#[test]
fn the_oracles_agree() {
    for seed in Seeds::new("the_oracles_agree", 3000) {
        let script = small(&mut Rng::new(seed), 2..8);
        assert_eq!(
            oracle::brute_force(&script),
            oracle::plain_search(&script),
            "{script}"
        );
    }
    assert_eq!(key(7), "k007", "ranges of scans are ranges of numbers");
}
