//! How long checks take: the sizes that the tests of the store mean to record.

use std::time::{Duration, Instant};

use basalt_testkit::{
    Rng,
    history::{Effort, Limits, Outcome, Verdict, check, check_counted},
};

use crate::store::{Load, run};

fn timed(name: &str, load: Load, most: Duration) -> Effort {
    let history = run(load, &mut Rng::new(0xB5A1)).history();
    let start = Instant::now();
    let (verdict, effort) = check_counted(&history, Limits::default());
    let took = start.elapsed();
    println!("{name}: {took:?}, {:?}, {effort:?}", history.tally());
    verdict.assert_linearizable();
    assert!(took < most, "{name} took {took:?}, more than {most:?}");
    effort
}

#[test]
fn twenty_thousand_operations_of_fifty_clients_take_less_than_two_seconds() {
    let load = Load::new(50, 100, 20_000);
    let effort = timed("50 clients, 100 keys", load, Duration::from_secs(2));
    assert_eq!(effort.partitions, 100);
}

#[test]
fn ten_clients_on_one_key_take_less_than_two_seconds() {
    let load = Load::new(10, 1, 5000);
    timed("10 clients, 1 key", load, Duration::from_secs(2));
}

#[test]
fn a_hundred_clients_on_ten_keys_take_less_than_two_seconds() {
    let load = Load::new(100, 10, 20_000);
    timed("100 clients, 10 keys", load, Duration::from_secs(2));
}

#[test]
fn short_scans_over_a_hundred_keys_take_less_than_ten_seconds() {
    let load = Load {
        scans: 50,
        ..Load::new(50, 100, 20_000)
    };
    let effort = timed("50 clients, 100 keys, scans", load, Duration::from_secs(10));
    assert_eq!(effort.partitions, 1);
}

#[test]
fn scans_of_everything_take_less_than_ten_seconds() {
    let load = Load {
        scans: 50,
        width: 200,
        ..Load::new(20, 100, 10_000)
    };
    let effort = timed(
        "20 clients, scans of all keys",
        load,
        Duration::from_secs(10),
    );
    assert_eq!(effort.partitions, 1);
}

#[test]
fn few_values_take_less_than_ten_seconds() {
    let load = Load {
        values: 3,
        ..Load::new(10, 10, 10_000)
    };
    timed(
        "10 clients, 10 keys, 3 values",
        load,
        Duration::from_secs(10),
    );
}

/// One get is given what some get of its key, a while before, has seen. Nobody can say so of a busy key but by the
/// zones of values, and of keys that scans connect but by looking at each key alone.
#[test]
fn refusals_take_less_than_five_seconds() {
    let one_key = Load::new(100, 1, 10_000);
    let scans = Load {
        scans: 50,
        ..Load::new(50, 100, 20_000)
    };
    for (name, load) in [("100 clients, 1 key", one_key), ("scans", scans)] {
        let mut script = run(load, &mut Rng::new(0xB5A1));
        let gets: Vec<usize> = (0..script.0.len())
            .filter(|index| {
                script.0[*index]
                    .got()
                    .is_some_and(|(_, seen)| seen.is_some())
            })
            .collect();
        let last = gets[gets.len() - 1];
        let key = script.0[last].got().map(|(key, _)| key.to_vec());
        let old = gets.iter().find_map(|index| {
            let (own, seen) = script.0[*index].got()?;
            (Some(own) == key.as_deref()).then(|| seen.map(<[u8]>::to_vec))
        });
        if let (Some((_, outcome)), Some(old)) = (&mut script.0[last].end, old) {
            *outcome = Outcome::Value(old);
        }
        let history = script.history();
        let start = Instant::now();
        let verdict = check(&history, Limits::default());
        let took = start.elapsed();
        println!("{name}: {took:?}\n{verdict}");
        let Verdict::NotLinearizable { operations, .. } = verdict else {
            panic!("{name}: {verdict}");
        };
        assert!(operations.len() < 10, "{name}: {operations:?}");
        assert!(took < Duration::from_secs(5), "{name} took {took:?}");
    }
}
