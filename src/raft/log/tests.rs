//! Tests of the log: what a leader's entries do to it, what storage's acknowledgements do, and what
//! is handed out, against a plain list of terms.

use basalt_proto::eraftpb::{Entry, Snapshot, SnapshotMetadata};
use basalt_testkit::{Replay, Rng, Seeds};
use bytes::Bytes;

use super::{Appended, RaftLog};
use crate::{Config, MemStorage, StorageError, entry_size};

fn entry(index: u64, term: u64) -> Entry {
    Entry {
        index,
        term,
        data: Bytes::from(vec![b'x'; 10]),
        ..Entry::default()
    }
}

fn entries(first: u64, terms: &[u64]) -> Vec<Entry> {
    let indexes = first..;
    indexes
        .zip(terms)
        .map(|(index, term)| entry(index, *term))
        .collect()
}

/// A log whose entries 1.. have `terms`, the first `stable` of them in storage.
fn log(terms: &[u64], stable: usize) -> RaftLog<MemStorage> {
    let mut storage = MemStorage::new();
    storage.append(entries(1, &terms[..stable]));
    let mut log = RaftLog::new(storage, &Config::new(1)).expect("a log in memory");
    log.append(entries(stable as u64 + 1, &terms[stable..]));
    log
}

fn terms(log: &RaftLog<MemStorage>) -> Vec<u64> {
    let first = log.first_index().expect("in memory");
    let indexes = first..=log.last_index();
    indexes
        .map(|index| log.term(index).expect("between first and last"))
        .collect()
}

#[test]
fn an_append_keeps_what_agrees_and_cuts_what_does_not() {
    // Log, index and term before, terms of the entries; the log after, or None for a mismatch.
    type Case = (
        &'static [u64],
        u64,
        u64,
        &'static [u64],
        Option<&'static [u64]>,
    );
    let cases: [Case; 9] = [
        (&[1, 2, 3], 3, 2, &[4], None),
        (&[1, 2, 3], 4, 3, &[4], None),
        (&[1, 2, 3], 3, 3, &[4, 4], Some(&[1, 2, 3, 4, 4])),
        (&[1, 2, 3], 3, 3, &[], Some(&[1, 2, 3])),
        (&[1, 2, 3], 1, 1, &[2], Some(&[1, 2, 3])),
        (&[1, 2, 3], 0, 0, &[1, 2, 3], Some(&[1, 2, 3])),
        (&[1, 2, 3], 1, 1, &[4], Some(&[1, 4])),
        (&[1, 2, 3], 1, 1, &[2, 4, 4], Some(&[1, 2, 4, 4])),
        (&[1, 1, 1, 1], 2, 1, &[1, 2], Some(&[1, 1, 1, 2])),
    ];
    for (have, index, term, new, want) in cases {
        for stable in 0..=have.len() {
            let mut log = log(have, stable);
            let answer = log
                .maybe_append(index, term, entries(index + 1, new), 0)
                .expect("in memory");
            match want {
                None => assert!(matches!(answer, Appended::NoMatch), "{have:?} {index}"),
                Some(want) => {
                    let last = index + new.len() as u64;
                    assert!(matches!(answer, Appended::To(to) if to == last));
                    assert_eq!(terms(&log), want, "{have:?}, {new:?} behind {index}");
                }
            }
            log.check();
        }
    }
}

#[test]
fn the_commit_index_follows_the_leader_only_as_far_as_the_logs_agree() {
    let mut log = log(&[1, 1, 1, 1, 1], 2);
    let append = log.maybe_append(1, 1, entries(2, &[1]), 9);
    assert!(matches!(append, Ok(Appended::To(2))));
    assert_eq!(log.committed(), 2);
    let append = log.maybe_append(4, 1, Vec::new(), 3);
    assert!(matches!(append, Ok(Appended::To(4))));
    assert_eq!(log.committed(), 3);
    // It never goes back.
    assert!(log.maybe_append(4, 1, Vec::new(), 1).is_ok());
    assert_eq!(log.committed(), 3);
}

#[test]
fn an_entry_against_a_committed_one_changes_nothing() {
    let mut log = log(&[1, 1, 2], 3);
    log.commit_to(2);
    let answer = log.maybe_append(1, 1, entries(2, &[3]), 3);
    assert!(matches!(answer, Ok(Appended::ConflictsWithCommitted(2))));
    assert_eq!((terms(&log), log.committed()), (vec![1, 1, 2], 2));
}

#[test]
fn an_acknowledgement_of_replaced_entries_counts_for_nothing() {
    let mut log = log(&[1, 1], 0);
    log.accept_unstable();
    log.append(entries(2, &[2]));
    log.stable_to(2, 1);
    assert!(log.has_unstable(), "index 2 is of another term now");
    log.stable_to(1, 1);
    assert_eq!(log.unstable.offset, 2);
    log.stable_to(1, 1); // Once more, late.
    log.stable_to(7, 2); // Never given.
    assert_eq!(
        log.next_unstable().len(),
        1,
        "the new entry was not handed out"
    );
    log.check();
}

#[test]
fn a_snapshot_takes_the_place_of_everything_and_holds_back_what_is_to_apply() {
    let mut log = log(&[1, 1, 1], 1);
    log.commit_to(2);
    let snapshot = Snapshot {
        metadata: Some(SnapshotMetadata {
            index: 9,
            term: 2,
            ..SnapshotMetadata::default()
        }),
        ..Snapshot::default()
    };
    log.restore(9, 2, snapshot);
    assert_eq!(
        (log.committed(), log.last_index(), log.last_term()),
        (9, 9, 2)
    );
    assert_eq!(log.first_index().expect("in memory"), 10);
    assert!(matches!(log.term(8), Err(StorageError::Compacted)));
    assert!(matches!(log.term(9), Ok(2)));
    log.append(entries(10, &[2]));
    log.commit_to(10);
    assert!(!log.has_next_committed(true), "the snapshot comes first");
    log.accept_unstable();
    assert!(log.next_snapshot().is_none(), "handed out once");
    log.stable_snapshot_to(8);
    assert!(log.has_snapshot(), "another one");
    log.stable_snapshot_to(9);
    log.applied_to(9, 0);
    assert_eq!(
        log.next_committed(true).expect("in memory"),
        entries(10, &[2])
    );
    log.check();
}

#[test]
fn entries_come_from_storage_and_memory_as_from_one_list_and_within_the_limit() {
    let size = entry_size(&entry(1, 1));
    for stable in 0..=6 {
        let log = log(&[1; 6], stable);
        for low in 1..=7 {
            for high in low..=7 {
                for fit in 0..=7 {
                    for more in [0, size - 1] {
                        let got = log.entries(low, high, fit * size + more);
                        let count = (high - low).min(fit.max(1));
                        let last = low + count;
                        let want: Vec<u64> = (low..last).collect();
                        let got: Vec<u64> =
                            got.expect("in memory").iter().map(|e| e.index).collect();
                        assert_eq!(got, want, "{low}..{high}, {fit} fit, {stable} stable");
                    }
                }
            }
        }
        assert!(matches!(
            log.entries(6, 8, u64::MAX),
            Err(StorageError::Unavailable)
        ));
    }
}

#[test]
fn what_is_committed_is_handed_out_once_in_order_and_within_the_bytes() {
    for seed in Seeds::new("committed entries", 300) {
        let _replay = Replay::new("-p basalt-raft", "what_is_committed", seed);
        let mut rng = Rng::new(seed);
        let count = rng.range(1..30);
        let stable = rng.below(count + 1);
        let terms = vec![1; usize::try_from(count).expect("small")];
        let mut log = log(&terms, usize::try_from(stable).expect("small"));
        let size = entry_size(&entry(1, 1));
        log.max_applying_bytes = rng.range(1..5 * size);
        let unstable_too = rng.one_in(2);
        let (mut handed, mut outstanding) = (0, Vec::new());
        while log.applied() < count {
            match rng.below(4) {
                0 => log.commit_to(log.committed() + rng.below(count - log.committed() + 1)),
                1 => {
                    log.accept_unstable();
                    let from = log.unstable.offset;
                    let to = from + rng.below(count + 2 - from);
                    let written = log.unstable.slice(from, to).to_vec();
                    log.storage_mut().append(written);
                    if to > from {
                        log.stable_to(to - 1, 1);
                    }
                }
                2 => {
                    let next = log.next_committed(unstable_too).expect("in memory");
                    assert_eq!(next.is_empty(), !log.has_next_committed(unstable_too));
                    if let Some(last) = next.last() {
                        assert_eq!(next[0].index, handed + 1, "in order, once");
                        assert!(last.index <= log.committed());
                        assert!(unstable_too || last.index < log.unstable.offset);
                        handed = last.index;
                        let bytes = crate::entries_size(&next);
                        log.accept_applying(handed, bytes, unstable_too);
                        outstanding.push((handed, bytes));
                    }
                    let sum: u64 = outstanding.iter().map(|(_, bytes)| bytes).sum();
                    let limit = log.max_applying_bytes;
                    assert!(sum < limit + size, "{sum} bytes out, the limit is {limit}");
                }
                _ if !outstanding.is_empty() => {
                    let (index, bytes) = outstanding.remove(0);
                    log.applied_to(index, bytes);
                }
                _ => {}
            }
            log.check();
        }
    }
}

#[test]
fn the_hint_is_the_last_place_where_the_logs_may_agree() {
    for seed in Seeds::new("hints", 300) {
        let _replay = Replay::new("-p basalt-raft", "the_hint_is_the_last", seed);
        let mut rng = Rng::new(seed);
        let mut term = 1;
        let count = rng.len(1..20);
        let terms: Vec<u64> = (0..count)
            .map(|_| {
                term += rng.below(3);
                term
            })
            .collect();
        let log = log(&terms, rng.index(count + 1));
        for index in 0..=count as u64 + 2 {
            for term in 0..term + 2 {
                let got = log
                    .last_index_of_term_up_to(index, term, 0)
                    .expect("in memory");
                let want = if index > count as u64 {
                    (index, 0)
                } else {
                    let below = (1..=index).rev();
                    let of = |at: u64| terms[usize::try_from(at - 1).expect("small")];
                    let found = below.map(|at| (at, of(at))).find(|(_, of)| *of <= term);
                    found.unwrap_or((0, 0))
                };
                assert_eq!(got, want, "{terms:?} from {index} for term {term}");
            }
        }
    }
}

#[test]
fn random_appends_leave_what_a_list_of_terms_would_hold() {
    for seed in Seeds::new("appends", 500) {
        let _replay = Replay::new("-p basalt-raft", "random_appends", seed);
        let mut rng = Rng::new(seed);
        let mut log = log(&[], 0);
        let mut model: Vec<u64> = Vec::new();
        let mut term = 1;
        for _ in 0..40 {
            term += rng.below(2);
            let before = rng.below(model.len() as u64 + 1);
            if before >= log.committed() {
                let place = usize::try_from(before).expect("small");
                let new = vec![term; rng.len(1..4)];
                model.truncate(place);
                model.extend(&new);
                log.append(entries(before + 1, &new));
            }
            if rng.one_in(3) {
                let pending = log.next_unstable().to_vec();
                log.accept_unstable();
                if let Some(last) = pending.last().cloned() {
                    log.storage_mut().append(pending);
                    // Perhaps late, or never.
                    if rng.one_in(2) {
                        log.stable_to(last.index, last.term);
                    }
                }
            }
            if rng.one_in(4) {
                let committed = log.committed();
                log.commit_to(committed + rng.below(log.last_index() - committed + 1));
            }
            log.check();
            assert_eq!(terms(&log), model);
        }
    }
}
