//! What chains of operands become, as text: keys, numbers and kinds in, the same out.

use super::*;
use crate::{
    key::RangeTombstone,
    merge::{MergeOperator, MergeResult, MergeSetting},
};

/// Joins operands with commas; fails at `bad`, panics at `boom`, and puts together what does not begin with `x`.
struct Join;

impl MergeOperator for Join {
    fn name(&self) -> &'static str {
        "join"
    }

    fn full_merge(
        &self,
        _key: &[u8],
        existing: Option<&[u8]>,
        operands: &[&[u8]],
        result: &mut Vec<u8>,
    ) -> MergeResult {
        let parts: Vec<&[u8]> = existing
            .into_iter()
            .chain(operands.iter().copied())
            .collect();
        assert!(!parts.contains(&&b"boom"[..]), "boom");
        if parts.contains(&&b"bad"[..]) {
            return Err("bad".to_owned());
        }
        result.extend_from_slice(&parts.join(&b","[..]));
        Ok(())
    }

    fn partial_merge(
        &self,
        key: &[u8],
        older: &[u8],
        newer: &[u8],
        result: &mut Vec<u8>,
    ) -> MergeResult<bool> {
        if newer.starts_with(b"x") {
            return Ok(false);
        }
        self.full_merge(key, Some(older), &[newer], result)?;
        Ok(true)
    }
}

#[derive(Default)]
struct Texts {
    kept: Vec<String>,
    stuck: usize,
}

impl Sink for Texts {
    fn new_key(&mut self) {}

    fn keep(&mut self, entry: Kept<'_>, _: &mut dyn FnMut(&[u8]) -> bool) -> Result<()> {
        let value = String::from_utf8(entry.value.to_vec()).expect("text");
        self.kept.push(format!("{:?}={value}", entry.key));
        self.stuck += usize::from(!entry.may_go);
        Ok(())
    }
}

fn merger(given: bool) -> Option<Arc<Merger>> {
    let setting = if given {
        MergeSetting::new(Arc::new(Join))
    } else {
        MergeSetting::named("join")
    };
    Some(Arc::new(Merger::new("f", &setting)))
}

struct Case<'a> {
    boundaries: &'a [u64],
    tombstones: &'a [(&'a str, &'a str, u64)],
    bottom: bool,
    given: bool,
}

const PLAIN: Case<'_> = Case {
    boundaries: &[99],
    tombstones: &[],
    bottom: false,
    given: true,
};

/// `k#9mrg=a`, newest first within a key; what is kept, how many entries are stuck, and how often it failed.
fn folded(case: &Case<'_>, entries: &[&str]) -> (Vec<String>, usize, u64) {
    let numbers: Vec<_> = case
        .boundaries
        .iter()
        .copied()
        .map(SequenceNumber)
        .collect();
    let stripes = Stripes::new(&numbers);
    let one = |&(start, end, seq): &(&str, &str, u64)| RangeTombstone {
        start: start.into(),
        end: end.into(),
        seq: SequenceNumber(seq),
    };
    let tombstones = Tombstones::new(case.tombstones.iter().map(one).collect());
    let faults = Faults::default();
    let mut folder = Folder::new(&stripes, &tombstones, merger(case.given), faults);
    let mut sink = Texts::default();
    for entry in entries {
        let (key, rest) = entry.split_once('#').expect("key#seq");
        let (rest, value) = rest.split_once('=').expect("a value");
        let (seq, kind) = rest.split_at(rest.len() - 3);
        let kind = match kind {
            "del" => ValueKind::Delete,
            "put" => ValueKind::Put,
            _ => ValueKind::Merge,
        };
        let seq = SequenceNumber(seq.parse().expect("a number"));
        let key = InternalKey::new(key.as_bytes(), seq, kind);
        let taken = folder.take(key, value.as_bytes(), &mut |_| case.bottom, &mut sink);
        taken.expect("nothing fails");
    }
    let ended = folder.end_key(&mut |_| case.bottom, &mut sink);
    ended.expect("nothing fails");
    (sink.kept, sink.stuck, folder.failures)
}

#[test]
fn operands_over_a_base_of_their_stripe_become_a_value_with_the_newest_number() {
    let chain = ["k#9mrg=c", "k#8mrg=b", "k#5put=a", "k#4mrg=0", "l#3put=z"];
    let kept = folded(&PLAIN, &chain).0;
    assert_eq!(kept, ["k#9put=a,b,c", "l#3put=z"]);
    let deleted = ["k#9mrg=c", "k#8mrg=b", "k#5del=", "k#4put=0"];
    assert_eq!(folded(&PLAIN, &deleted).0, ["k#9put=b,c"]);
}

#[test]
fn without_a_base_they_are_put_together_and_at_the_bottom_become_a_value() {
    let chain = ["k#9mrg=c", "k#8mrg=b", "k#7mrg=x", "k#6mrg=a"];
    let kept = folded(&PLAIN, &chain).0;
    assert_eq!(kept, ["k#9mrg=x,b,c", "k#6mrg=a"]);
    let bottom = Case {
        bottom: true,
        ..PLAIN
    };
    assert_eq!(folded(&bottom, &chain).0, ["k#9put=a,x,b,c"]);
}

#[test]
fn a_snapshot_between_two_operands_keeps_them_apart() {
    let case = Case {
        boundaries: &[7, 99],
        bottom: true,
        ..PLAIN
    };
    let chain = ["k#9mrg=c", "k#8mrg=b", "k#6mrg=a", "k#5put=0"];
    assert_eq!(folded(&case, &chain).0, ["k#9mrg=b,c", "k#6put=0,a"]);
    // What is not visible yet is not touched at all.
    let case = Case {
        boundaries: &[7],
        ..case
    };
    assert_eq!(
        folded(&case, &chain).0,
        ["k#9mrg=c", "k#8mrg=b", "k#6put=0,a"]
    );
}

#[test]
fn below_a_range_delete_there_is_no_base() {
    let case = Case {
        tombstones: &[("a", "z", 7)],
        ..PLAIN
    };
    let chain = ["k#9mrg=c", "k#8mrg=b", "k#6mrg=a", "k#5put=0"];
    assert_eq!(folded(&case, &chain).0, ["k#9put=b,c"]);
    assert_eq!(folded(&case, &chain[..2]).0, ["k#9put=b,c"]);
    // A snapshot below the range delete sees what it hides from others.
    let case = Case {
        boundaries: &[6, 99],
        ..case
    };
    assert_eq!(folded(&case, &chain).0, ["k#9put=b,c", "k#6put=0,a"]);
    // A range delete between two snapshots' stripes, beneath the operands of the newer one.
    let case = Case {
        boundaries: &[7, 99],
        ..case
    };
    assert_eq!(folded(&case, &chain).0, ["k#9put=b,c"]);
}

#[test]
fn what_an_operator_cannot_merge_stays_as_it_was_and_the_rest_goes_on() {
    let entries = [
        "a#9mrg=bad",
        "a#8mrg=b",
        "a#7put=0",
        "a#6put=hidden",
        "b#5mrg=boom",
        "b#4del=",
        "c#3mrg=q",
        "c#2put=p",
    ];
    let (kept, stuck, failures) = folded(&PLAIN, &entries);
    assert_eq!(
        kept,
        [
            "a#9mrg=bad",
            "a#8mrg=b",
            "a#7put=0",
            "b#5mrg=boom",
            "b#4del=",
            "c#3put=p,q"
        ]
    );
    assert_eq!((stuck, failures), (5, 2));
    let bottom = Case {
        bottom: true,
        ..PLAIN
    };
    let (kept, stuck, _) = folded(&bottom, &entries);
    assert_eq!(
        kept[3..],
        ["b#5mrg=boom", "c#3put=p,q"],
        "no delete is left there"
    );
    assert_eq!(stuck, 4);
    let absent = Case {
        given: false,
        ..PLAIN
    };
    let (kept, stuck, failures) = folded(&absent, &entries);
    assert_eq!(kept[5..], ["c#3mrg=q", "c#2put=p"]);
    assert_eq!((kept.len(), stuck, failures), (7, 7, 0));
}
