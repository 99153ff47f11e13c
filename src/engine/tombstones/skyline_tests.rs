//! Skylines against a list of all range deletes.

use super::*;
use crate::{executor::SplitMix64, tombstones::Tombstones};

fn key(n: u64) -> Vec<u8> {
    format!("{n:03}").into_bytes()
}

/// The newest at or below `at` over `user_key`.
fn plain(all: &[RangeTombstone], user_key: &[u8], at: u64) -> SequenceNumber {
    let over = |t: &&RangeTombstone| t.seq.0 <= at && *t.start <= *user_key && *user_key < *t.end;
    let seqs = all.iter().filter(over).map(|t| t.seq);
    seqs.max().unwrap_or_default()
}

#[test]
fn every_reader_sees_the_newest_that_it_is_old_enough_for_in_whatever_order_they_came() {
    let mut random = SplitMix64(7);
    let mut below = |n: u64| random.next() % n;
    for _ in 0..60 {
        let mut seqs: Vec<u64> = (1..=150).collect();
        // Writers beside each other: numbers near their place.
        for at in 1..seqs.len() {
            if below(4) == 0 {
                let back = usize::try_from(below(5)).expect("small").min(at);
                seqs.swap(at, at - back);
            }
        }
        let mut lines = Skylines::default();
        let mut all = Vec::new();
        for seq in seqs {
            let (a, b) = (below(60), below(60));
            let (start, end) = (key(a.min(b)), key(a.max(b) + 1));
            lines = lines.with(&start, &end, SequenceNumber(seq)).0;
            all.push(RangeTombstone {
                start,
                end,
                seq: SequenceNumber(seq),
            });
        }
        for at in [0, 1, 40, 75, 149, 150, 9999] {
            let line = lines.at(SequenceNumber(at));
            let mut cursor = SkylineCursor::new(line.cloned().unwrap_or_default());
            for n in 0..62 {
                let wanted = plain(&all, &key(n), at);
                let found = line.and_then(|line| line.cover(&key(n)));
                assert_eq!(
                    found.map_or(SequenceNumber::ZERO, |c| c.seq),
                    wanted,
                    "{n} at {at}"
                );
                if let Some(cover) = found {
                    assert!(cover.start <= &*key(n) && &*key(n) < cover.end);
                }
                let again = if n % 7 == 0 { 61 - n } else { n };
                let found = cursor.covering(&key(again)).map(|cover| cover.seq);
                assert_eq!(found.unwrap_or_default(), plain(&all, &key(again), at));
            }
        }
        all.sort_by_key(|tombstone| tombstone.seq);
        assert_eq!(lines.all().collect::<Vec<_>>(), all);
        let made = Tombstones::new_for(lines.all().collect(), &[SequenceNumber(75)]);
        for at in [75, 9999] {
            for n in 0..62 {
                let wanted = plain(&all, &key(n), at);
                assert_eq!(made.covering_seq(&key(n), SequenceNumber(at)), wanted);
            }
        }
    }
}

#[test]
fn thousands_nested_in_each_other_take_memory_by_their_number() {
    let mut lines = Skylines::default();
    let mut bytes = 0;
    for seq in 1..=4000_u64 {
        let (next, more) = lines.with(&key(seq), &key(9999 - seq), SequenceNumber(seq));
        (lines, bytes) = (next, bytes + more);
    }
    assert!(bytes < 4000 * 12_000, "{bytes} bytes");
    let line = lines
        .at(SequenceNumber(2000))
        .expect("there are older ones");
    assert_eq!(
        line.cover(&key(5000)).expect("nested").seq,
        SequenceNumber(2000)
    );
}
