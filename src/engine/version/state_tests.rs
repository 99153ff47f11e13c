//! What a manifest's state accepts, and what it refuses without a trace.

use super::*;
use crate::version::{TableRecord, tests::table};

fn record(level: usize, text: &str) -> TableRecord {
    table(level, text).record()
}

fn added(family: FamilyId, level: usize, text: &str) -> TableAdded {
    TableAdded {
        family,
        level,
        table: record(level, text),
    }
}

fn removed(family: FamilyId, level: usize, number: u64) -> TableRemoved {
    TableRemoved {
        family,
        level,
        number,
    }
}

fn created(id: FamilyId, name: &str) -> FamilyCreated {
    FamilyCreated {
        id,
        name: name.into(),
        options: CfOptions::default(),
    }
}

fn first_edit() -> VersionEdit {
    VersionEdit {
        db_id: Some(42),
        next_file_number: Some(100),
        last_seq: Some(SequenceNumber(1000)),
        log: Some(LogStart {
            segment: 50,
            base: 0,
        }),
        next_family_id: Some(2),
        created: vec![created(0, "default"), created(1, "write")],
        flushed: vec![(0, SequenceNumber(100)), (1, SequenceNumber::ZERO)],
        added: vec![
            added(0, 0, "9[a..f]"),
            added(0, 0, "8[a..m]"),
            added(0, 1, "3[a..c]"),
            added(1, 1, "4[a..c]"),
        ],
        ..VersionEdit::default()
    }
}

fn state() -> ManifestState {
    let mut state = ManifestState::default();
    state.apply(&first_edit()).expect("a good first edit");
    state
}

fn shown(state: &ManifestState) -> String {
    let families: Vec<_> = state
        .families()
        .map(|(id, f)| format!("{id} {} {:?}\n{:?}", f.name, f.flushed_seq, f.version))
        .collect();
    let mut numbers: Vec<_> = state.numbers.iter().collect();
    numbers.sort();
    format!(
        "{:?} {} {:?} {:?} {} {numbers:?}\n{}",
        state.db_id,
        state.next_file_number,
        state.last_seq,
        state.log,
        state.next_family_id,
        families.concat()
    )
}

#[test]
fn a_family_keeps_its_class_and_an_append_family_is_never_flushed() {
    let mut state = state();
    let log = FamilyCreated {
        id: 2,
        name: "log".into(),
        options: CfOptions::append(3),
    };
    state
        .apply(&VersionEdit {
            next_family_id: Some(3),
            created: vec![log],
            ..VersionEdit::default()
        })
        .expect("a good edit");
    for options in [CfOptions::append(4), CfOptions::default()] {
        let edit = VersionEdit {
            options: vec![(2, options)],
            ..VersionEdit::default()
        };
        let error = state.apply(&edit).expect_err("another class");
        assert_eq!(error, "family 2 cannot change its class");
    }
    let edit = VersionEdit {
        flushed: vec![(2, SequenceNumber(1))],
        ..VersionEdit::default()
    };
    let error = state
        .apply(&edit)
        .expect_err("its records would be passed over");
    assert_eq!(error, "append family 2 is said to be flushed");
}

#[test]
fn edits_add_up_and_the_state_survives_as_one_edit() {
    let mut state = state();
    let kept = Arc::clone(&state.family(0).expect("exists").version.level(1)[0]);
    let gone = state
        .apply(&VersionEdit {
            next_file_number: Some(110),
            last_seq: Some(SequenceNumber(1200)),
            log: Some(LogStart {
                segment: 60,
                base: 777,
            }),
            next_family_id: Some(3),
            created: vec![created(2, "lock")],
            dropped: vec![1],
            options: vec![(
                0,
                CfOptions {
                    table_bytes: 5,
                    ..CfOptions::default()
                },
            )],
            flushed: vec![(0, SequenceNumber(1100))],
            removed: vec![removed(0, 0, 9), removed(0, 0, 8), removed(0, 1, 3)],
            added: vec![
                added(0, 2, "3[a..c]"),
                added(0, 1, "105[a..m]"),
                added(2, 0, "106[x..y]"),
            ],
            ..VersionEdit::default()
        })
        .expect("a good edit");
    let mut gone: Vec<_> = gone.iter().map(|table| table.number).collect();
    gone.sort_unstable();
    assert_eq!(gone, [4, 8, 9], "3 moved and is not gone");
    assert!(Arc::ptr_eq(
        &kept,
        &state.family(0).expect("exists").version.level(2)[0]
    ));
    let want = "Some(42) 110 #1200 Some(LogStart { segment: 60, base: 777 }) 3 [3, 105, 106]\n\
        0 default #1100\nL1: 105[a..m]\nL2: 3[a..c]\n2 lock #0\nL0: 106[x..y]\n";
    assert_eq!(shown(&state), want);
    assert_eq!(state.family(0).expect("exists").options.table_bytes, 5);
    assert!(state.has_table(105) && !state.has_table(9));

    let mut again = ManifestState::default();
    let bytes = state.to_edit().encode();
    again
        .apply(&VersionEdit::decode(&bytes).expect("own bytes"))
        .expect("own state");
    assert_eq!(shown(&again), want);
    assert_eq!(again.to_edit(), state.to_edit());
}

#[test]
fn an_edit_that_does_not_fit_is_refused_and_changes_nothing() {
    let base = VersionEdit::default;
    let table_of = |level, text| VersionEdit {
        added: vec![added(0, level, text)],
        ..base()
    };
    let removes = |tables: &[TableRemoved]| VersionEdit {
        removed: tables.to_vec(),
        ..base()
    };
    let creates = |next, families: &[FamilyCreated]| VersionEdit {
        next_family_id: Some(next),
        created: families.to_vec(),
        ..base()
    };
    let flushes = |id, seq| VersionEdit {
        flushed: vec![(id, SequenceNumber(seq))],
        ..base()
    };
    let from_log = |segment| VersionEdit {
        log: Some(LogStart { segment, base: 9 }),
        ..base()
    };
    let changed = added(0, 2, "3[a..d]");
    let to_other_family = added(1, 3, "3[a..c]");
    let twice = vec![added(0, 2, "70[a..c]"), added(1, 2, "70[a..c]")];
    for (edit, reason) in [
        (
            first_edit(),
            "the database id stands in the first edit, and only there",
        ),
        (
            VersionEdit {
                next_file_number: Some(99),
                ..base()
            },
            "next file number goes back",
        ),
        (
            VersionEdit {
                last_seq: Some(SequenceNumber(999)),
                ..base()
            },
            "last sequence number goes back",
        ),
        (from_log(49), "oldest log segment goes back from 50 to 49"),
        (from_log(100), "log segment 100 was never given out"),
        (creates(1, &[]), "next family id goes back from 2 to 1"),
        (creates(3, &[created(1, "x")]), "family id 1 is used again"),
        (
            creates(3, &[created(3, "x")]),
            "family id 3 is not below the next one",
        ),
        (
            creates(3, &[created(2, "write")]),
            "two families are named \"write\"",
        ),
        (
            creates(4, &[created(2, "x"), created(2, "y")]),
            "family id 2 is used again",
        ),
        (
            VersionEdit {
                dropped: vec![7],
                ..base()
            },
            "family 7 does not exist",
        ),
        (
            VersionEdit {
                dropped: vec![1, 1],
                ..base()
            },
            "family 1 does not exist",
        ),
        (
            VersionEdit {
                dropped: vec![0],
                ..flushes(0, 200)
            },
            "family 0 does not exist",
        ),
        (
            VersionEdit {
                options: vec![(1, CfOptions::unlogged())],
                ..base()
            },
            "family 1 cannot change its class",
        ),
        (flushes(7, 1), "family 7 does not exist"),
        (
            flushes(0, 99),
            "family 0 flushed up to #99, was #100, last is #1000",
        ),
        (
            flushes(0, 1001),
            "family 0 flushed up to #1001, was #100, last is #1000",
        ),
        (
            removes(&[removed(0, 1, 9)]),
            "table 9, removed from level 1 of family 0, is not there",
        ),
        (
            removes(&[removed(1, 0, 9)]),
            "table 9, removed from level 0 of family 1, is not there",
        ),
        (
            removes(&[removed(0, 0, 9), removed(0, 0, 9)]),
            "table 9 is removed twice",
        ),
        (removes(&[removed(5, 0, 9)]), "family 5 does not exist"),
        (
            table_of(1, "70[b..d]"),
            "family 0: tables 3 and 70 of level 1 overlap",
        ),
        (table_of(0, "70[b..d]#85-700"), "in sequence numbers"),
        (
            table_of(2, "70[b..d]#1-1001"),
            "table 70 is newer than #1000",
        ),
        (
            table_of(2, "100[b..d]"),
            "table number 100 was never given out",
        ),
        (table_of(2, "3[a..c]"), "table 3 is added twice"),
        (table_of(2, "4[a..c]"), "table 4 is added twice"),
        (
            VersionEdit {
                added: twice,
                ..base()
            },
            "table 70 is added twice",
        ),
        (
            VersionEdit {
                added: vec![changed],
                ..removes(&[removed(0, 1, 3)])
            },
            "table 3 changes as it moves",
        ),
        (
            VersionEdit {
                added: vec![to_other_family],
                ..removes(&[removed(0, 1, 3)])
            },
            "table 3 is added twice",
        ),
    ] {
        let mut state = state();
        let before = shown(&state);
        let got = state.apply(&edit).expect_err(reason);
        assert!(got.contains(reason), "{got:?} does not say {reason:?}");
        assert_eq!(shown(&state), before, "{reason}");
    }
}

#[test]
fn a_first_edit_that_lacks_something_is_refused() {
    for field in 0..5 {
        let mut edit = first_edit();
        match field {
            0 => edit.db_id = None,
            1 => edit.next_file_number = None,
            2 => edit.last_seq = None,
            3 => edit.log = None,
            _ => edit.next_family_id = None,
        }
        let reason = ManifestState::default()
            .apply(&edit)
            .expect_err("lacks a field");
        assert!(reason.contains("first edit"), "{reason}");
    }
}

#[test]
fn sizes_that_no_disk_has_do_not_overflow() {
    let mut edit = first_edit();
    edit.added[2].table.info.size = u64::MAX;
    edit.added.push(added(0, 1, "5[d..f]"));
    let mut state = ManifestState::default();
    state
        .apply(&edit)
        .expect("sizes are compared with the files, not here");
    assert_eq!(
        state.family(0).expect("exists").version.level_bytes(1),
        u64::MAX
    );
}
