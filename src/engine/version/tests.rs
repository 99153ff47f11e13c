//! Versions written as text, for the tests of this folder and of compaction; and tests of `Version`.
//!
//! ```text
//! L0: 9[a..f]#20-29 8[a..m]#10-19
//! L1: 3[a..c] 4[d..f)x20d50
//! ```
//! A table is `number[smallest..largest]`, with `)` for an exclusive end, then in any order
//! `#min-max` sequence numbers (default in L0: its number times ten and nine more; below: 1-1),
//! `xN` size in KiB (default 10), `dN` deletes among its 100 entries, `tN` range tombstones, `hN` entries hidden by newer ones,
//! `*` being compacted.

use super::*;
use crate::{key::SequenceNumber, table::TableInfo};

/// Parses a version; panics on one that breaks the rules.
pub(crate) fn version(text: &str) -> Version {
    let mut added = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (level, tables) = line.split_once(':').expect("level: tables");
        let level = level[1..].parse().expect("number of a level");
        added.extend(
            tables
                .split_whitespace()
                .map(|text| (level, table(level, text))),
        );
    }
    let version = Version::default()
        .with_changes(&added, &[])
        .expect("text holds a good version");
    version.check().expect("text holds a good version");
    version
}

/// Parses one table.
pub(crate) fn table(level: usize, text: &str) -> Arc<TableMeta> {
    let (number, rest) = text.split_once('[').expect("number[");
    let number: u64 = number.parse().expect("number of a table");
    let close = rest.find([']', ')']).expect("closing bracket");
    let (smallest, largest) = rest[..close].split_once("..").expect("smallest..largest");
    let seqs = if level == 0 {
        (number * 10, number * 10 + 9)
    } else {
        (1, 1)
    };
    let mut info = TableInfo {
        table_id: number + 1000,
        size: 10 << 10,
        crc: 0,
        smallest: smallest.into(),
        largest: largest.into(),
        largest_exclusive: rest[close..].starts_with(')'),
        entries: 100,
        deletes: 0,
        tombstones: 0,
        min_seq: SequenceNumber(seqs.0),
        max_seq: SequenceNumber(seqs.1),
        times: None,
    };
    let mut busy = false;
    let mut hidden = 0;
    let mut rest = &rest[close + 1..];
    while let Some(flag) = rest.chars().next() {
        let end = rest[1..]
            .find(|c: char| !c.is_ascii_digit() && c != '-')
            .map_or(rest.len(), |n| n + 1);
        let value = &rest[1..end];
        let number = || value.parse::<u64>().expect("number after a flag");
        match flag {
            '#' => {
                let (min, max) = value.split_once('-').expect("#min-max");
                info.min_seq = SequenceNumber(min.parse().expect("smallest sequence number"));
                info.max_seq = SequenceNumber(max.parse().expect("largest sequence number"));
            }
            'x' => info.size = number() << 10,
            'd' => info.deletes = number(),
            'h' => hidden = number(),
            't' => info.tombstones = number(),
            '*' => busy = true,
            _ => panic!("unknown flag {flag} in {text}"),
        }
        rest = &rest[end..];
    }
    let meta = TableMeta::new(TableRecord {
        number,
        info,
        hidden,
        global_seq: None,
        values: Vec::new(),
    });
    meta.set_being_compacted(busy);
    Arc::new(meta)
}

fn numbers(tables: &[Arc<TableMeta>]) -> Vec<u64> {
    tables.iter().map(|table| table.number).collect()
}

#[test]
fn a_key_is_found_in_the_table_that_holds_it_and_an_exclusive_end_belongs_to_the_next() {
    let v = version("L2: 1[b..d] 2[f..h) 3[h..k] 4[m..p)");
    for (key, number) in [
        ("a", None),
        ("b", Some(1)),
        ("d", Some(1)),
        ("e", None),
        ("g", Some(2)),
        ("h", Some(3)),
        ("k", Some(3)),
        ("o", Some(4)),
        ("p", None),
        ("z", None),
    ] {
        assert_eq!(
            v.find(2, key.as_bytes()).map(|table| table.number),
            number,
            "{key}"
        );
    }
}

#[test]
fn tables_overlapping_a_span_are_those_that_share_a_key_with_it() {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    let v = version("L0: 9[a..z] 8[c..d]\n L2: 1[b..d] 2[f..h) 3[h..k]");
    let span = |start: &'static str, end| KeySpan {
        start: start.as_bytes(),
        end,
    };
    let run = |s| numbers(&v.tables_overlapping(2, s));
    assert_eq!(run(KeySpan::ALL), [1, 2, 3]);
    assert_eq!(run(span("d", Excluded(&b"f"[..]))), [1]);
    assert_eq!(run(span("e", Excluded(&b"f"[..]))), []);
    assert_eq!(run(span("e", Included(&b"f"[..]))), [2]);
    assert_eq!(run(span("h", Included(&b"h"[..]))), [3]);
    assert_eq!(run(span("d", Unbounded)), [1, 2, 3]);
    assert_eq!(run(span("l", Unbounded)), []);
    assert_eq!(numbers(&v.tables_overlapping(0, span("e", Unbounded))), [9]);
    assert_eq!(numbers(&v.tables_overlapping(0, KeySpan::ALL)), [9, 8]);
    for level in [0, 2] {
        for s in [span("e", Excluded(&b"f"[..])), span("d", Unbounded)] {
            assert_eq!(
                v.overlaps(level, s),
                !v.tables_overlapping(level, s).is_empty()
            );
        }
    }
}

#[test]
fn changes_keep_order_and_bytes_and_refuse_what_breaks_a_rule() {
    let v = version("L0: 9[a..f] 8[a..m]\n L1: 3[a..c] 4[d..f)x20");
    let added = [(1, table(1, "5[f..g]")), (0, table(0, "10[a..b]"))];
    let next = v.with_changes(&added, &[(1, 3)]).expect("good change");
    assert_eq!(
        format!("{next:?}"),
        "L0: 10[a..b] 9[a..f] 8[a..m]\nL1: 4[d..f) 5[f..g]\n"
    );
    assert_eq!(next.level_bytes(1), 30 << 10);
    assert_eq!(
        format!("{v:?}"),
        "L0: 9[a..f] 8[a..m]\nL1: 3[a..c] 4[d..f)\n",
        "unchanged"
    );

    let refused = |added: &[(usize, Arc<TableMeta>)], removed: &[(usize, u64)]| {
        v.with_changes(added, removed)
            .map(|_| ())
            .expect_err("breaks a rule")
    };
    assert_eq!(
        refused(&[], &[(2, 3)]),
        "removed tables [3] are not in level 2"
    );
    assert_eq!(
        refused(&[(1, table(1, "5[e..g]"))], &[]),
        "tables 4 and 5 of level 1 overlap"
    );
    let interleaved = table(0, "11[f..g]#85-95");
    assert!(refused(&[(0, interleaved)], &[]).contains("overlap in keys and in sequence numbers"));
}

#[test]
fn a_table_in_two_levels_is_noticed() {
    let v = version("L1: 3[a..c]");
    let twice = v
        .with_changes(&[(2, table(2, "3[a..c]"))], &[])
        .expect("each level is good");
    assert_eq!(twice.check(), Err("table 3 is in levels 1 and 2".into()));
}

#[test]
fn an_obsolete_table_is_queued_when_its_last_holder_is_gone_and_others_never() {
    let queue = Arc::new(ObsoleteTables::default());
    let v = version("L1: 3[a..c] 4[d..f]");
    let reader = v.clone();
    v.level(1)[0].mark_obsolete(&queue);
    drop(v);
    assert!(queue.take().is_empty(), "the reader still holds it");
    drop(reader);
    assert_eq!(queue.take(), [3]);
    assert!(queue.take().is_empty());
}
