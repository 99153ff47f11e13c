//! Histories that are linearizable, each for the reason in its name.

use basalt_testkit::history::{Limits, check};

use crate::{oracle, script::Script};

const GOOD: [(&str, &str); 40] = [
    ("nothing", ""),
    ("a store starts empty", "1 1-2 get k = -"),
    (
        "a read sees the write before it",
        "1 1-2 put k a\n 2 3-4 get k = a",
    ),
    (
        "a read during a write may see it",
        "1 1-4 put k a\n 2 2-3 get k = a",
    ),
    (
        "a read during a write may miss it",
        "1 1-4 put k a\n 2 2-3 get k = -",
    ),
    (
        "a second read sees what the first missed",
        "1 1-6 put k a\n 2 2-3 get k = -\n 2 4-5 get k = a",
    ),
    (
        "the last of two writes counts",
        "1 1-2 put k a\n 1 3-4 put k b\n 2 5-6 get k = b",
    ),
    (
        "of writes at once either is last",
        "1 1-4 put k a\n 2 2-3 put k b\n 3 5-6 get k = a",
    ),
    (
        "of writes at once either is last, the other way",
        "1 1-4 put k a\n 2 2-3 put k b\n 3 5-6 get k = b",
    ),
    (
        "a write may be seen long before its response",
        "1 1-9 put k a\n 2 2-3 get k = a\n 3 4-5 put k b\n 2 6-7 get k = b",
    ),
    (
        "a deleted key is gone",
        "1 1-2 put k a\n 1 3-4 delete k\n 2 5-6 get k = -",
    ),
    (
        "a deleted key comes back by a write",
        "1 1-2 delete k\n 1 3-4 put k a\n 2 5-6 get k = a",
    ),
    (
        "deleting nothing is fine",
        "1 1-2 delete k\n 2 3-4 get k = -",
    ),
    (
        "a write of unknown fate may be seen",
        "1 1-2? put k a\n 2 3-4 get k = a",
    ),
    (
        "a write of unknown fate may be missed",
        "1 1-2? put k a\n 2 3-4 get k = -",
    ),
    (
        "a write of unknown fate may come late",
        "1 1-2? put k a\n 2 3-4 get k = -\n 2 5-6 get k = a",
    ),
    (
        "a write without response may come after others",
        "1 1- put k a\n 2 3-4 put k b\n 2 5-6 get k = b\n 2 7-8 get k = a",
    ),
    (
        "a delete of unknown fate may come late",
        "1 1-2 put k a\n 2 3-4? delete k\n 1 5-6 get k = a\n 1 7-8 get k = -",
    ),
    (
        "two deletes of unknown fate take a key twice",
        "1 1-2? delete k\n 1 3- delete k\n 2 4-5 put k a\n 2 6-7 get k = -\n 2 8-9 put k b\n 2 10-11 get k = -",
    ),
    (
        "two writes of one value, of unknown fate, count twice",
        "1 1-2? put k a\n 1 3-4? put k a\n 2 5-6 get k = a\n 2 7-8 delete k\n 2 9-10 get k = a",
    ),
    (
        "an unknown write may go under between two others",
        "1 1-2? put k a\n 2 3-4 put k b\n 2 5-6 put k c\n 2 7-8 get k = c",
    ),
    (
        "a failed write is not seen",
        "1 1-2! put k a\n 2 3-4 get k = -",
    ),
    (
        "a failed delete takes nothing",
        "1 1-2 put k a\n 1 3-4! delete k\n 2 5-6 get k = a",
    ),
    ("a failed read says nothing", "1 1-2 put k a\n 2 3-4! get k"),
    (
        "a read without result says nothing",
        "1 1-2 put k a\n 2 3-4? get k\n 2 5- get k",
    ),
    (
        "the same value may be written again",
        "1 1-2 put k a\n 1 3-4 put k b\n 1 5-6 put k a\n 2 7-8 get k = a",
    ),
    (
        "readers may see two writes at once in the same order",
        "1 1-20 put k a\n 2 2-19 put k b\n 3 3-4 get k = b\n 4 5-6 get k = b\n 3 7-8 get k = a\n 4 9-10 get k = a",
    ),
    (
        "keys do not matter to each other",
        "1 1-2 put k a\n 1 3-4 put l b\n 2 5-6 get l = b\n 2 7-8 get k = a",
    ),
    (
        "a scan before the first row and after it",
        "1 1-2 scan a - 5 =\n 1 3-4 put a a\n 1 5-6 scan a - 5 = a:a",
    ),
    (
        "a scan sees its range alone",
        "1 1-2 put a 1\n 1 3-4 put b 2\n 1 5-6 put c 3\n 2 7-8 scan b c 9 = b:2",
    ),
    (
        "a scan stops at its limit",
        "1 1-2 put a 1\n 1 3-4 put b 2\n 2 5-6 scan a - 1 = a:1",
    ),
    (
        "a limit of nothing finds nothing",
        "1 1-2 put a 1\n 2 5-6 scan a - 0 =",
    ),
    (
        "a range of nothing finds nothing",
        "1 1-2 put a 1\n 2 5-6 scan b a 9 =",
    ),
    (
        "a scan may see the one write at once and miss the other",
        "1 1-4 put a 1\n 2 2-5 put b 2\n 3 3-6 scan a - 9 = b:2",
    ),
    (
        "a scan takes unknown writes of several keys",
        "1 1-2? put a 1\n 1 3-4? put b 2\n 1 5-6? put c 3\n 2 7-8 scan a - 9 = a:1 c:3",
    ),
    (
        "a scan skips a deleted row",
        "1 1-2 put a 1\n 1 3-4 put b 2\n 1 5-6 delete a\n 2 7-8 scan a - 1 = b:2",
    ),
    (
        "what a scan did not reach may be anything",
        "1 1-2 put a 1\n 1 3-4? put c 3\n 2 5-6 scan a - 1 = a:1\n 2 7-8 scan a - 9 = a:1 c:3",
    ),
    (
        "scans in order with writes",
        "1 1-8 put a 1\n 2 2-9 put b 2\n 3 3-4 scan a - 9 = a:1\n 3 5-6 scan a - 9 = a:1 b:2",
    ),
    (
        "writes that nobody reads may be in any order",
        "1 1-9 put k a\n 2 2-8 put k b\n 3 3-7 put k c\n 4 4-6 put k d\n 5 10-11 get k = b",
    ),
    (
        "writes of one value at once serve readers in turn",
        "1 1-9 put k a\n 2 2-12 put k a\n 3 3-4 get k = a\n 4 5-6 delete k\n 3 7-8 get k = -\n 3 10-11 get k = a",
    ),
];

#[test]
fn good_histories_are_accepted() {
    for (name, text) in GOOD {
        let script = Script::parse(text);
        assert!(oracle::plain_search(&script), "the oracle refuses: {name}");
        let verdict = check(&script.history(), Limits::default());
        assert!(verdict.is_linearizable(), "{name}: {verdict}");
    }
    println!("{} good histories by hand", GOOD.len());
}
