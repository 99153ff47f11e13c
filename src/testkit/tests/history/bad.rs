//! Histories that are not linearizable, each for the reason in its name, with the operation that is to blame: the
//! time of its invocation.

use basalt_testkit::history::{Limits, Verdict, check};

use crate::{oracle, script::Script};

const BAD: [(&str, u64, &str); 34] = [
    (
        "an acknowledged write is lost",
        3,
        "1 1-2 put k a\n 2 3-4 get k = -",
    ),
    (
        "a value is seen that nobody wrote",
        3,
        "1 1-2 put k a\n 2 3-4 get k = b",
    ),
    (
        "a value is seen before it is written",
        1,
        "1 1-2 get k = a\n 2 3-4 put k a",
    ),
    (
        "an old value is seen",
        5,
        "1 1-2 put k a\n 1 3-4 put k b\n 2 5-6 get k = a",
    ),
    (
        "a second reader is behind the first",
        4,
        "1 1-8 put k a\n 2 2-3 get k = a\n 3 4-5 get k = -",
    ),
    (
        "a reader goes back",
        6,
        "1 1-2 put k a\n 2 3-8 put k b\n 3 4-5 get k = b\n 3 6-7 get k = a",
    ),
    (
        "a deleted key is there",
        5,
        "1 1-2 put k a\n 1 3-4 delete k\n 2 5-6 get k = a",
    ),
    (
        "a deleted key comes back",
        7,
        "1 1-2 put k a\n 1 3-4 delete k\n 2 5-6 get k = -\n 2 7-8 get k = a",
    ),
    (
        "a key disappears while it is written",
        4,
        "1 1-2 put k a\n 2 3-9 put k b\n 3 4-5 get k = -",
    ),
    (
        "a failed write is seen",
        3,
        "1 1-2! put k a\n 2 3-4 get k = a",
    ),
    (
        "a failed delete takes a key",
        5,
        "1 1-2 put k a\n 1 3-4! delete k\n 2 5-6 get k = -",
    ),
    (
        "an unknown write is seen before it is asked for",
        1,
        "1 1-2 get k = a\n 2 3-4? put k a",
    ),
    (
        "an unknown write is seen twice",
        9,
        "1 1-2? put k a\n 2 3-4 put k b\n 2 5-6 get k = a\n 2 7-8 put k c\n 2 9-10 get k = a",
    ),
    (
        "an unknown delete takes a key twice",
        9,
        "1 1-2? delete k\n 2 3-4 put k a\n 2 5-6 get k = -\n 2 7-8 put k b\n 2 9-10 get k = -",
    ),
    (
        "an unknown write goes away again",
        5,
        "1 1-2? put k a\n 2 3-4 get k = a\n 2 5-6 get k = -",
    ),
    (
        "an unknown delete lets a key come back",
        7,
        "1 1-2 put k a\n 1 3-4? delete k\n 2 5-6 get k = -\n 2 7-8 get k = a",
    ),
    (
        "two unknown writes are seen three times",
        12,
        "1 1-2? put k a\n 1 3- put k a\n 2 4-5 get k = a\n 2 6-7 delete k\n 2 8-9 get k = a\n 2 10-11 delete k\n 2 12-13 get k = a",
    ),
    (
        "readers disagree on the order of two writes",
        9,
        "1 1-20 put k a\n 2 2-19 put k b\n 3 3-4 get k = a\n 4 5-6 get k = b\n 3 9-10 get k = a",
    ),
    (
        "two clients write and both see the other's as last",
        7,
        "1 1-2 put k a\n 2 3-4 put k b\n 1 5-6 get k = b\n 2 7-8 get k = a",
    ),
    (
        "a get has the value of another key",
        5,
        "1 1-2 put k a\n 1 3-4 put l b\n 2 5-6 get k = b",
    ),
    (
        "a scan misses a key",
        5,
        "1 1-2 put a 1\n 1 3-4 put b 2\n 2 5-6 scan a - 9 = b:2",
    ),
    (
        "a scan misses the last key",
        5,
        "1 1-2 put a 1\n 1 3-4 put b 2\n 2 5-6 scan a - 9 = a:1",
    ),
    (
        "a scan skips a key before its limit",
        5,
        "1 1-2 put a 1\n 1 3-4 put b 2\n 2 5-6 scan a - 1 = b:2",
    ),
    (
        "a scan has a deleted key",
        5,
        "1 1-2 put a 1\n 1 3-4 delete a\n 2 5-6 scan a - 9 = a:1",
    ),
    (
        "a scan has an old value",
        7,
        "1 1-2 put a 1\n 1 3-4 put b 2\n 1 5-6 put a 3\n 2 7-8 scan a - 9 = a:1 b:2",
    ),
    (
        "a scan is torn: it has the later write and not the earlier",
        1,
        "3 1-10 scan a - 9 = b:2\n 1 2-3 put a 1\n 1 4-5 put b 2",
    ),
    (
        "scans see two writes in opposite orders",
        5,
        "1 1-20 put a 1\n 2 2-19 put b 2\n 3 3-4 scan a - 9 = a:1\n 4 5-6 scan a - 9 = b:2",
    ),
    (
        "a scan and gets disagree",
        5,
        "1 1-20 put a 1\n 2 2-19 put b 2\n 3 3-4 scan a - 9 = b:2\n 4 5-6 get b = -",
    ),
    (
        "a scan misses what an earlier scan of another range had",
        11,
        "1 1-20 put a 1\n 2 2-19 put b 2\n 2 3-18 put c 3\n 3 5-6 scan a c 9 = a:1\n 3 7-8 scan b d 9 = b:2\n 3 9-10 get c = -\n 3 11-12 scan a d 9 = b:2 c:3",
    ),
    (
        "rows are out of order",
        5,
        "1 1-2 put a 1\n 1 3-4 put b 2\n 2 5-6 scan a - 9 = b:2 a:1",
    ),
    (
        "a row comes twice",
        3,
        "1 1-2 put a 1\n 2 3-4 scan a - 9 = a:1 a:1",
    ),
    (
        "there are more rows than the limit",
        5,
        "1 1-2 put a 1\n 1 3-4 put b 2\n 2 5-6 scan a - 1 = a:1 b:2",
    ),
    (
        "a row is behind the range",
        3,
        "1 1-2 put b 1\n 2 3-4 scan a b 9 = b:1",
    ),
    (
        "a row is before the range",
        3,
        "1 1-2 put a 1\n 2 3-4 scan b - 9 = a:1",
    ),
];

#[test]
fn bad_histories_are_refused_and_the_right_operation_is_named() {
    for (name, to_blame, text) in BAD {
        let script = Script::parse(text);
        assert!(!oracle::plain_search(&script), "the oracle accepts: {name}");
        let history = script.history();
        match check(&history, Limits::default()) {
            Verdict::NotLinearizable {
                offender,
                operations,
                explanation,
            } => {
                assert_eq!(
                    history.record(offender).invoked,
                    to_blame,
                    "{name}: {explanation}"
                );
                assert!(operations.contains(&offender), "{name}: {explanation}");
                let marked = explanation.lines().find(|line| line.starts_with(">>"));
                let marked =
                    marked.unwrap_or_else(|| panic!("{name}: none is marked: {explanation}"));
                assert!(
                    marked.contains(&format!(" {to_blame} ..")),
                    "{name}: {explanation}"
                );
            }
            verdict => panic!("{name}: {verdict}"),
        }
    }
    println!("{} bad histories by hand", BAD.len());
}

#[test]
fn an_explanation_has_what_matters_and_nothing_else() {
    let mut text = String::new();
    for n in 0..200 {
        let at = 10 * n;
        text += &format!(
            "1 {}-{} put k v{n}\n 2 {}-{} get k = v{n}\n",
            at + 1,
            at + 2,
            at + 3,
            at + 4
        );
        text += &format!("3 {}-{} put l w{n}\n", at + 5, at + 6);
    }
    text += "2 3001-3002 get k = v7\n 1 3003-3004 put k after\n 1 3005-3006 get k = v9";
    let verdict = check(&Script::parse(&text).history(), Limits::default());
    let Verdict::NotLinearizable {
        explanation,
        operations,
        ..
    } = &verdict
    else {
        panic!("{verdict}");
    };
    println!("{explanation}");
    assert!(
        explanation.starts_with("not linearizable: key \"k\": "),
        "{explanation}"
    );
    assert!(
        explanation.contains(">>        3001 .. 3002          client 2: get \"k\" -> \"v7\""),
        "{explanation}"
    );
    // The value, one that came after it, and the read.
    assert_eq!(operations.len(), 3, "{explanation}");

    for (text, reason) in [
        ("1 1-2 get k = a", "\"k\" = \"a\" was never written"),
        (
            "1 1-2 get k = a\n 1 3-4 put k a",
            "\"k\" = \"a\" is of the future:",
        ),
        (
            "1 1-2! put k a\n 1 3-4 get k = a",
            "\"k\" = \"a\" is of a write that failed:",
        ),
    ] {
        let verdict = check(&Script::parse(text).history(), Limits::default());
        assert!(verdict.to_string().contains(reason), "{verdict}");
    }
}
