//! Recording: the order of events, what fits together, what is counted, and limits on both sides.

use basalt_testkit::history::{
    History, Limits, Operation, Outcome, Tally, Verdict, check, check_counted,
};

use crate::script::Script;

fn found(value: &str) -> Outcome {
    Outcome::Value(Some(value.into()))
}

#[test]
fn events_of_one_time_are_in_the_order_in_which_they_were_recorded() {
    let mut history = History::new();
    let put = history.invoke(1, 5, Operation::put("k", "a"));
    history.complete(put, 5, Outcome::Written);
    let get = history.invoke(2, 5, Operation::get("k"));
    history.complete(get, 5, Outcome::Value(None));
    assert!(!check(&history, Limits::default()).is_linearizable());

    let mut history = History::new();
    let put = history.invoke(1, 5, Operation::put("k", "a"));
    let get = history.invoke(2, 5, Operation::get("k"));
    history.complete(put, 5, Outcome::Written);
    history.complete(get, 5, Outcome::Value(None));
    check(&history, Limits::default()).assert_linearizable();
}

#[test]
fn outcomes_are_counted_by_what_they_tell() {
    let script = Script::parse(
        "1 1-2 put k a\n 1 3-4 delete k\n 1 5-6 get k = -\n 1 7-8 scan a - 9 =
         1 9-10! put k b\n 1 11-12? put k c\n 1 13- put k d\n 1 14- get k",
    );
    let history = script.history();
    let tally = Tally {
        written: 2,
        read: 2,
        failed: 1,
        unknown: 3,
    };
    assert_eq!(history.tally(), tally);
    assert_eq!((history.len(), history.is_empty()), (8, false));
    assert_eq!(history.records().len(), 8);
    let last = history.records().last().expect("eight").1;
    assert_eq!((last.client, last.invoked, &last.completed), (1, 14, &None));
}

#[test]
#[should_panic(expected = "an event at 4 is recorded after one at 5")]
fn time_does_not_go_back() {
    let mut history = History::new();
    let id = history.invoke(1, 5, Operation::get("k"));
    history.complete(id, 4, Outcome::Value(None));
}

#[test]
#[should_panic(expected = "ends a second time, at 3, with Value(Some([97]))")]
fn an_operation_ends_once() {
    let mut history = History::new();
    let id = history.invoke(1, 1, Operation::get("k"));
    history.complete(id, 2, Outcome::Unknown);
    history.complete(id, 3, found("a"));
}

#[test]
#[should_panic(expected = "put \"k\" = \"a\" cannot end with Value(None)")]
fn an_outcome_fits_its_operation() {
    let mut history = History::new();
    let id = history.invoke(1, 1, Operation::put("k", "a"));
    history.complete(id, 2, Outcome::Value(None));
}

#[test]
#[should_panic(expected = "key \"k\": no order of the operations below explains")]
fn an_assertion_tells_why() {
    let script = Script::parse("1 1-2 get k = a");
    check(&script.history(), Limits::default()).assert_linearizable();
}

/// Puts at once of two values by turns, and readers that see them by turns: no linearization without a search.
fn hard() -> History {
    let mut history = History::new();
    let mut puts = Vec::new();
    for n in 0..12_u64 {
        let value = if n.is_multiple_of(2) { "a" } else { "b" };
        puts.push(history.invoke(n, n, Operation::put("k", value)));
    }
    for n in 0..12_u64 {
        let get = history.invoke(20, 100 + n, Operation::get("k"));
        let value = if n.is_multiple_of(2) { "a" } else { "b" };
        history.complete(get, 100 + n, found(value));
    }
    for put in puts {
        history.complete(put, 200, Outcome::Written);
    }
    history
}

#[test]
fn the_step_limit_is_kept_to_the_step_and_is_no_pass() {
    let history = hard();
    let (verdict, effort) = check_counted(&history, Limits::default());
    verdict.assert_linearizable();
    assert!(effort.steps > 2, "{effort:?}");
    assert_eq!((effort.partitions, effort.largest), (1, 24));

    let enough = Limits {
        steps: effort.steps,
        ..Limits::default()
    };
    check(&history, enough).assert_linearizable();
    let short = Limits {
        steps: effort.steps - 1,
        ..enough
    };
    let verdict = check(&history, short);
    assert!(matches!(verdict, Verdict::OutOfBudget { limits, .. } if limits == short));
    assert!(!verdict.is_linearizable());
    let said = format!("took {0} steps of {0}", short.steps);
    assert!(verdict.to_string().contains(&said), "{verdict}");
    assert!(verdict.to_string().contains("of key \"k\""), "{verdict}");

    let cramped = Limits {
        cache_bytes: effort.cache_bytes - 1,
        ..Limits::default()
    };
    let ample = Limits {
        cache_bytes: effort.cache_bytes,
        ..Limits::default()
    };
    check(&history, ample).assert_linearizable();
    assert!(matches!(
        check(&history, cramped),
        Verdict::OutOfBudget { .. }
    ));
}

#[test]
fn a_refusal_of_one_key_is_heard_though_another_is_out_of_budget() {
    let mut history = hard();
    // Longer than the hard key, so that it is looked at later.
    for n in 0..40 {
        let put = history.invoke(1, 1000 + n, Operation::put("l", "a"));
        history.complete(put, 1000 + n, Outcome::Written);
    }
    let get = history.invoke(1, 2000, Operation::get("l"));
    history.complete(get, 2000, Outcome::Value(None));
    let limits = Limits {
        steps: 1,
        ..Limits::default()
    };
    let verdict = check(&hard(), limits);
    assert!(matches!(verdict, Verdict::OutOfBudget { .. }), "{verdict}");
    let verdict = check(&history, limits);
    assert!(
        matches!(verdict, Verdict::NotLinearizable { offender, .. } if offender == get),
        "{verdict}"
    );
}
