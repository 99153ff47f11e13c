//! Which versions and range deletes are kept, as text.

use super::*;
use crate::{
    compaction::fold::{Folder, Kept, Sink},
    error::Result,
    faults::Faults,
    key::{InternalKey, ValueKind},
};

/// The entries kept, as numbers.
struct Numbers(Vec<u64>);

impl Sink for Numbers {
    fn new_key(&mut self) {}

    fn keep(&mut self, entry: Kept<'_>, _: &mut dyn FnMut(&[u8]) -> bool) -> Result<()> {
        self.0.push(u64::from_le_bytes(
            entry.value.try_into().expect("a number"),
        ));
        Ok(())
    }
}

/// `a#9del` or `a#9put`, newest first within a key; what is kept of them.
fn kept(
    boundaries: &[u64],
    tombstones: &[(&str, &str, u64)],
    entries: &[&'static str],
    bottom: bool,
) -> Vec<&'static str> {
    let stripes = stripes(boundaries);
    let tombstones = set(tombstones);
    let mut folder = Folder::new(&stripes, &tombstones, None, Faults::default());
    let mut kept = Numbers(Vec::new());
    for (at, entry) in (0_u64..).zip(entries) {
        let (key, rest) = entry.split_once('#').expect("key#seq");
        let (seq, kind) = rest.split_at(rest.len() - 3);
        let kind = if kind == "del" {
            ValueKind::Delete
        } else {
            ValueKind::Put
        };
        let seq = SequenceNumber(seq.parse().expect("sequence number"));
        let key = InternalKey::new(key.as_bytes(), seq, kind);
        folder
            .take(key, &at.to_le_bytes(), &mut |_| bottom, &mut kept)
            .expect("nothing fails");
    }
    let at = |at: u64| entries[usize::try_from(at).expect("few")];
    kept.0.into_iter().map(at).collect()
}

fn stripes(boundaries: &[u64]) -> Stripes {
    Stripes::new(
        &boundaries
            .iter()
            .copied()
            .map(SequenceNumber)
            .collect::<Vec<_>>(),
    )
}

fn set(tombstones: &[(&str, &str, u64)]) -> Tombstones {
    let one = |&(start, end, seq): &(&str, &str, u64)| RangeTombstone {
        start: start.into(),
        end: end.into(),
        seq: SequenceNumber(seq),
    };
    Tombstones::new(tombstones.iter().map(one).collect())
}

#[test]
fn the_newest_version_of_each_stripe_is_kept_and_all_above_the_last() {
    let versions = [
        "a#9put", "a#8put", "a#7put", "a#6del", "a#5put", "a#3put", "a#2put", "b#1put",
    ];
    assert_eq!(kept(&[9], &[], &versions, false), ["a#9put", "b#1put"]);
    assert_eq!(
        kept(&[3, 6, 7], &[], &versions, false),
        ["a#9put", "a#8put", "a#7put", "a#6del", "a#3put", "b#1put"]
    );
    assert_eq!(
        kept(&[4, 20], &[], &versions, true),
        ["a#9put", "a#3put", "b#1put"]
    );
    assert_eq!(
        kept(&[0], &[], &versions, true),
        versions,
        "nothing is visible yet"
    );
}

#[test]
fn a_delete_goes_only_at_the_bottom_and_in_the_oldest_stripe() {
    let versions = ["a#9del", "a#8put", "b#5del", "c#3put"];
    assert_eq!(
        kept(&[9], &[], &versions, false),
        ["a#9del", "b#5del", "c#3put"]
    );
    assert_eq!(kept(&[9], &[], &versions, true), ["c#3put"]);
    assert_eq!(
        kept(&[8, 9], &[], &versions, true),
        ["a#9del", "a#8put", "c#3put"]
    );
    assert_eq!(
        kept(&[8], &[], &versions, true),
        ["a#9del", "a#8put", "c#3put"]
    );
}

#[test]
fn a_range_delete_takes_what_is_older_in_its_stripe() {
    let versions = ["a#9put", "a#4put", "c#4put", "e#4put"];
    let cover = [("a", "d", 6)];
    assert_eq!(kept(&[9], &cover, &versions, false), ["a#9put", "e#4put"]);
    assert_eq!(
        kept(&[6, 9], &cover, &versions, false),
        ["a#9put", "e#4put"]
    );
    assert_eq!(
        kept(&[5, 9], &cover, &versions, false),
        ["a#9put", "a#4put", "c#4put", "e#4put"]
    );
    assert_eq!(
        kept(&[5], &cover, &versions, false),
        versions,
        "not visible yet"
    );
    assert_eq!(
        kept(&[9], &[("a", "d", 4)], &["c#4put"], false),
        ["c#4put"],
        "equal is not older"
    );
    // The newest range delete is of another stripe, an older one is not.
    assert_eq!(
        kept(&[6, 9], &[("a", "d", 8), ("a", "d", 5)], &["c#4put"], false),
        Vec::<&str>::new()
    );
}

#[test]
fn range_deletes_are_kept_once_for_each_stripe_and_not_at_the_bottom() {
    let all = [
        ("a", "f", 9),
        ("a", "f", 7),
        ("a", "f", 5),
        ("a", "f", 3),
        ("k", "m", 4),
    ];
    let needed = |boundaries: &[u64], bottom: bool| -> Vec<String> {
        let kept = needed_tombstones(&set(&all), &stripes(boundaries), |_| bottom);
        let text = |key: &[u8]| String::from_utf8(key.to_vec()).expect("text");
        kept.iter()
            .map(|t| format!("{}-{}#{}", text(&t.start), text(&t.end), t.seq.0))
            .collect()
    };
    assert_eq!(needed(&[9], false), ["a-f#9", "k-m#4"]);
    assert_eq!(needed(&[9], true), Vec::<String>::new());
    assert_eq!(
        needed(&[4, 6], false),
        ["a-f#9", "a-f#7", "a-f#5", "a-f#3", "k-m#4"]
    );
    assert_eq!(needed(&[4, 6], true), ["a-f#9", "a-f#7", "a-f#5"]);
    assert_eq!(needed(&[5, 20], true), ["a-f#9"]);
}
