//! Recovery of damaged logs: what was proved durable is read whole or refused, each case of the rule by
//! name, then every bit and every cut of a small log.

use super::{
    mark::{Mark, MarkFound},
    segment::{HEADER_LEN, SegmentHeader, SegmentKind},
    test_log::{DB, Entry, Log, Random, place, read},
};
use crate::{
    error::Error,
    faults::{Fault, Faults},
};

/// Segments 5 and 6 with three synced records each, some spare room behind each.
fn two_segments() -> Log {
    let mut log = Log::new(1000);
    for len in [10, 0, 40] {
        log.append(len);
        log.sync();
    }
    log.rotate(6, 400);
    for len in [25, 7, 1] {
        log.append(len);
        log.sync();
    }
    log
}

fn without_mark(mut log: Log) -> Log {
    log.wanted.mark = MarkFound::Absent;
    log
}

/// Log position claimed durable by the last record written.
fn claimed_by_records(log: &Log) -> u64 {
    log.written.last().expect("records").position
}

#[test]
fn a_whole_log_is_read_whole_and_nothing_is_to_be_copied() {
    let log = two_segments();
    let (plan, entries) = log.read().expect("whole");
    assert_eq!(entries, log.written);
    assert_eq!((plan.end, plan.proved), (log.end(), log.end()));
    assert_eq!(
        (plan.previous, plan.dropped_bytes, plan.needs_seal()),
        (6, 0, false)
    );
    assert_eq!(plan.off_chain, [0_u64; 0]);
    assert_eq!(plan.last_seq.0, log.seq);
}

#[test]
fn without_the_mark_the_last_group_is_unproved_and_copied() {
    let log = without_mark(two_segments());
    let (plan, entries) = log.read().expect("whole");
    assert_eq!(entries, log.written);
    assert_eq!(plan.proved, claimed_by_records(&log));
    assert!(plan.needs_seal());
}

#[test]
fn after_a_failed_sync_everything_above_the_marks_position_is_copied() {
    let mut log = two_segments();
    let position = log.written[2].position;
    let mark = Mark {
        db: DB,
        sync_failed: true,
        segment: 5,
        position,
        ..Mark::default()
    };
    log.wanted.mark = MarkFound::Good(mark);
    let (plan, entries) = log.read().expect("whole");
    assert_eq!(entries, log.written);
    assert_eq!((plan.proved, plan.previous), (position, 5));
}

#[test]
fn a_bad_record_below_a_durable_position_is_corruption_and_above_it_the_end() {
    let mut log = two_segments();
    log.append(20);
    log.append(30);
    let at = log.active.2 - 30 - 32 - 20;
    log.bytes(6)[at] ^= 4;
    let (plan, entries) = log.read().expect("a torn tail");
    assert_eq!(entries, log.written[..6]);
    assert_eq!(
        plan.dropped_bytes,
        52 + 62,
        "the damaged record's header is still recognised"
    );
    assert!(plan.needs_seal());
    // The same damage once a later record says that it was durable, mark or not.
    log.sync_without_mark();
    log.append(1);
    log = without_mark(log);
    let error = log.read().expect_err("durable bytes are damaged");
    assert_eq!(place(&error), ("000006.log".into(), at as u64 - 32));
}

#[test]
fn a_claim_in_a_header_counts_even_if_its_payload_is_torn() {
    let mut log = without_mark(two_segments());
    log.append(50);
    let end = log.active.2;
    log.bytes(6)[end - 1] ^= 1;
    // The torn record claims all six before it. Damage one of them.
    let sixth = end - 82 - 1;
    log.bytes(6)[sixth] ^= 1;
    assert!(log.read().expect_err("claimed durable").is_corruption());
}

#[test]
fn a_segment_prepared_and_never_used_is_ignored() {
    for bytes in [vec![], vec![0; 500], vec![0xff; 500]] {
        let mut log = two_segments();
        log.files.0.insert(9, bytes);
        let (plan, entries) = log.read().expect("whole");
        assert_eq!(entries, log.written);
        assert_eq!(
            (plan.off_chain.as_slice(), plan.needs_seal()),
            (&[9][..], false)
        );
    }
}

#[test]
fn a_recycled_file_full_of_good_old_records_is_never_replayed() {
    let mut old = Log::new(1000);
    for _ in 0..30 {
        old.append(10);
        old.sync();
    }
    let former = old.files.0[&5].clone();
    let start = |faults| {
        let mut log = Log::new(old.end());
        log.wanted.faults = faults;
        log.seq = 0;
        log.files.0.clear();
        log.wanted.oldest = 8;
        log.active.0 = 0;
        log.rotate_onto(8, former.clone());
        log.append(10);
        log.sync();
        log
    };
    let log = start(Faults::default());
    let (plan, entries) = log.read().expect("whole");
    assert_eq!((entries, plan.dropped_bytes), (log.written.clone(), 0));
    // Prepared and not yet used, it still has the header of its former life.
    let mut log = two_segments();
    log.wanted.oldest = 6;
    log.wanted.base = log.active.1;
    log.files.0.remove(&5);
    log.files.0.insert(9, former.clone());
    let (plan, entries) = log.read().expect("whole");
    assert_eq!(
        (entries, plan.off_chain),
        (log.written[3..].to_vec(), vec![9])
    );
}

#[test]
fn the_planted_fault_replays_a_former_life() {
    let faults = Faults(Fault::ReplayStaleRecord);
    let mut old = Log::new(1000);
    old.wanted.faults = faults;
    for _ in 0..30 {
        old.append(10);
    }
    let mut log = Log::new(5000);
    log.wanted.faults = faults;
    log.wanted.oldest = 8;
    log.rotate_onto(8, old.files.0[&5].clone());
    log.files.0.remove(&5);
    log.append(10);
    let (_, entries) = log.read().expect("read");
    assert!(entries.len() > 1, "stale records follow the new one");
}

#[test]
fn a_header_lost_before_any_sync_of_its_segment_ends_the_log_there() {
    let mut log = Log::new(0);
    log.append(10);
    log.sync();
    let kept = log.written.clone();
    for number in [6, 7] {
        log.rotate(number, 0);
        log.append(10);
        log.append(10);
    }
    // Segment 7 follows one whose header is gone: neither was ever synced.
    log.bytes(6)[..HEADER_LEN].fill(0);
    let (plan, entries) = log.read().expect("a plain crash");
    assert_eq!(entries, kept);
    assert_eq!(
        (plan.dropped_bytes, plan.off_chain.as_slice()),
        (4 * 42, &[6, 7][..])
    );
    assert_eq!((plan.previous, plan.needs_seal()), (5, true));
}

#[test]
fn a_damaged_header_of_a_segment_with_synced_records_is_corruption() {
    for (victim, mark) in [(5, true), (5, false), (6, true), (6, false)] {
        let mut log = two_segments();
        if !mark {
            log = without_mark(log);
        }
        log.bytes(victim)[20] ^= 1;
        let error = log.read().expect_err("durable records are unreachable");
        assert_eq!(
            place(&error),
            (format!("{victim:06}.log"), 0),
            "mark: {mark}"
        );
    }
}

#[test]
fn a_missing_segment_is_corruption() {
    for victim in [5, 6] {
        let mut log = two_segments();
        log.files.0.remove(&victim);
        assert!(log.read().expect_err("missing").is_corruption(), "{victim}");
    }
    // Without the mark nothing remembers the newest; the others are missed by those that follow.
    let mut log = without_mark(two_segments());
    log.rotate(7, 0);
    for victim in [5, 6] {
        let mut log = log.clone();
        log.files.0.remove(&victim);
        let error = log.read().expect_err("missing");
        assert_eq!(place(&error), (format!("{victim:06}.log"), 0));
    }
}

#[test]
fn the_oldest_segment_may_have_lost_its_header_while_nothing_in_it_was_durable() {
    let mut log = Log::new(1000);
    log.append(10);
    log.bytes(5)[..HEADER_LEN].fill(0);
    let (plan, entries) = log.read().expect("a plain crash");
    assert_eq!((entries.len(), plan.end, plan.previous), (0, 1000, 5));
    assert_eq!((plan.dropped_bytes, plan.needs_seal()), (42, true));
    // The seal begins where the manifest's log begins, and needs nothing of the lost one.
    super::test_log::seal(&mut log.files, &plan, 9);
    let (plan, entries) = log.read().expect("sealed");
    assert_eq!(
        (entries.len(), plan.end, plan.off_chain.as_slice()),
        (0, 1000, &[5][..])
    );
}

#[test]
fn a_successor_above_the_end_of_its_predecessor_is_cut_unless_the_gap_was_durable() {
    let mut log = Log::new(1000);
    log.append(10);
    log.sync();
    log.append(20);
    log.rotate(6, 0);
    log.append(30);
    let torn = |mut log: Log| {
        let len = log.bytes(5).len();
        log.bytes(5)[len - 52..].fill(0);
        log
    };
    let (plan, entries) = torn(log.clone()).read().expect("a plain crash");
    assert_eq!(entries, log.written[..1]);
    assert_eq!(
        (plan.dropped_bytes, plan.previous, plan.needs_seal()),
        (62, 5, true)
    );
    assert_eq!(plan.off_chain, [6]);
    log.sync_without_mark();
    log.append(1);
    let error = torn(log).read().expect_err("the gap was durable");
    assert_eq!(place(&error), ("000005.log".into(), 64 + 42));
}

#[test]
fn a_claim_in_the_header_of_a_segment_that_is_not_reached_counts() {
    let mut log = Log::new(1000);
    log.append(10);
    log.append(20);
    log.sync_without_mark();
    log.rotate(6, 0);
    let torn = log.bytes(5).len() - 1;
    log.bytes(5)[torn] ^= 1;
    let error = log.read().expect_err("segment 6 says that it was durable");
    assert_eq!(place(&error), ("000005.log".into(), 64 + 42));
}

#[test]
fn a_segment_without_proved_bytes_is_not_leaned_on() {
    let mut log = Log::new(1000);
    log.append(10);
    log.sync();
    log.rotate(6, 0);
    let (plan, _) = log.read().expect("whole");
    assert_eq!((plan.segments.len(), plan.previous), (2, 5));
    // The process dies, the next one goes on in segment 10, and then power fails.
    log.active.0 = plan.previous;
    log.rotate(10, 0);
    log.append(10);
    log.sync();
    log.bytes(6).fill(0);
    assert_eq!(log.read().expect("a plain crash").1, log.written);
}

#[test]
fn what_stands_behind_the_base_of_a_successor_was_cut_and_stays_cut() {
    let mut log = Log::new(1000);
    for _ in 0..4 {
        log.append(10);
    }
    // An earlier recovery has cut segment 5 behind its second record.
    let cut = log.written[2].position;
    log.active.1 = cut;
    log.active.2 = HEADER_LEN;
    log.written.truncate(2);
    log.rotate(9, 0);
    log.append(10);
    let (plan, entries) = log.read().expect("sealed");
    assert_eq!(entries, log.written);
    assert_eq!((plan.dropped_bytes, plan.off_chain), (0, vec![]));
}

#[test]
fn a_segment_replaced_by_its_older_self_is_corruption() {
    let mut log = Log::new(1000);
    log.append(10);
    log.sync();
    let older = log.files.clone();
    log.append(10);
    log.sync();
    assert!(log.read().is_ok());
    log.files = older;
    assert!(log.read().expect_err("older than the mark").is_corruption());
}

#[test]
fn swapped_foreign_and_unknown_segments_are_refused() {
    let mut log = without_mark(two_segments());
    let (five, six) = (log.bytes(5).clone(), log.bytes(6).clone());
    *log.bytes(5) = six;
    *log.bytes(6) = five;
    assert!(log.read().expect_err("swapped").is_corruption());

    let mut log = two_segments();
    let foreign = SegmentHeader {
        db: 1,
        number: 9,
        base: 0,
        previous: 6,
        synced: 0,
    };
    log.files
        .0
        .insert(9, foreign.encode(SegmentKind::Log).to_vec());
    assert_eq!(
        place(&log.read().expect_err("foreign")),
        ("000009.log".into(), 0)
    );

    let mut log = two_segments();
    let bytes = log.bytes(6);
    bytes[12] = 2;
    let crc = crc32fast::hash(&bytes[12..HEADER_LEN]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    assert!(matches!(log.read(), Err(Error::NotADatabase { .. })));
}

#[test]
fn the_manifests_idea_of_the_oldest_segment_must_fit() {
    let mut log = two_segments();
    log.wanted.base += 1;
    assert!(log.read().expect_err("another base").is_corruption());
    let mut log = two_segments();
    log.wanted.oldest = 4;
    log.wanted.base = 900;
    assert!(
        log.read()
            .expect_err("an older one is missing")
            .is_corruption()
    );
}

#[test]
fn every_flipped_bit_of_a_durable_log_is_corruption_or_changes_nothing() {
    let good = two_segments();
    let (mut refused, mut unchanged) = (0, 0);
    for number in [5, 6] {
        for bit in 0..good.files.0[&number].len() * 8 {
            let mut log = good.clone();
            log.bytes(number)[bit / 8] ^= 1 << (bit % 8);
            match log.read() {
                Err(Error::NotADatabase { .. } | Error::Corruption { .. }) => refused += 1,
                Err(other) => panic!("bit {bit} of {number}: {other}"),
                Ok((_, entries)) => {
                    assert_eq!(entries, good.written, "bit {bit} of {number}");
                    unchanged += 1;
                }
            }
        }
    }
    let counted: usize = good.written.iter().map(|e| 32 + e.payload.len()).sum();
    assert_eq!(
        refused,
        (2 * HEADER_LEN + counted) * 8,
        "every bit that counts"
    );
    assert!(unchanged > 0, "the spare room does not count");
}

#[test]
fn every_flipped_bit_without_a_mark_loses_at_most_the_last_record() {
    let good = without_mark(two_segments());
    let keep = good.written.len() - 1;
    for number in [5, 6] {
        for bit in 0..good.files.0[&number].len() * 8 {
            let mut log = good.clone();
            log.bytes(number)[bit / 8] ^= 1 << (bit % 8);
            if let Ok((_, entries)) = log.read() {
                assert!(
                    entries.len() >= keep,
                    "bit {bit} of {number}: {}",
                    entries.len()
                );
                assert_eq!(entries, good.written[..entries.len()]);
            }
        }
    }
}

#[test]
fn every_truncation_is_corruption_or_keeps_all_that_is_known_durable() {
    for mark in [true, false] {
        let mut good = two_segments();
        good.append(15);
        if !mark {
            good = without_mark(good);
        }
        let known = if mark {
            good.synced
        } else {
            claimed_by_records(&good)
        };
        for number in [5, 6] {
            for len in 0..good.files.0[&number].len() {
                let mut log = good.clone();
                log.bytes(number).truncate(len);
                match log.read() {
                    Err(error) => assert!(error.is_corruption(), "{number} to {len}: {error}"),
                    Ok((plan, entries)) => {
                        assert!(number == 6, "segment 5 was durable as a whole");
                        // Without a mark the claims are cut off together with what they claim.
                        assert!(
                            !mark || plan.end >= known,
                            "{number} to {len}: {}",
                            plan.end
                        );
                        assert_eq!(entries, good.written[..entries.len()]);
                    }
                }
            }
        }
    }
}

#[test]
fn a_damaged_mark_changes_nothing_that_is_read() {
    let mut log = two_segments();
    let MarkFound::Good(mark) = log.wanted.mark else {
        panic!("synced")
    };
    for bit in 0..64 * 8 {
        let mut bytes = mark.encode();
        bytes[bit / 8] ^= 1 << (bit % 8);
        log.wanted.mark = MarkFound::read(Some(&bytes), DB);
        let (plan, entries) = log.read().expect("the log is whole");
        assert_eq!(
            (plan.mark, entries),
            (MarkFound::Unreadable, log.written.clone())
        );
    }
}

#[test]
fn random_garbage_and_random_damage_never_panic_nor_invent_records() {
    let seed = 0x5eed;
    let mut random = Random(seed);
    let good = two_segments();
    for round in 0..20_000 {
        let mut log = good.clone();
        if round % 2 == 0 {
            log = without_mark(log);
        }
        for _ in 0..=random.below(3) {
            let number = [5, 6, 7][random.below(3)];
            let bytes = log.files.0.entry(number).or_default();
            let at = random.below(bytes.len() + 1);
            let len = random.below(200).min(bytes.len() - at);
            match random.below(4) {
                0 => bytes[at..at + len].fill_with(|| random.byte()),
                1 => bytes[at..at + len].fill(0),
                2 => bytes.truncate(at),
                _ => bytes.extend((0..len).map(|_| random.byte())),
            }
        }
        match log.read() {
            Ok((plan, entries)) => {
                let prefix: &[Entry] = &log.written[..entries.len()];
                assert_eq!(entries, prefix, "seed {seed}, round {round}");
                assert!(log.wanted.mark == MarkFound::Absent || plan.end == good.end());
            }
            Err(Error::Corruption { .. }) => {}
            Err(other) => panic!("seed {seed}, round {round}: {other}"),
        }
    }
}

#[test]
fn the_planted_cut_below_synced_opens_a_damaged_log() {
    let mut log = two_segments();
    log.bytes(5)[HEADER_LEN] ^= 1;
    assert!(log.read().is_err());
    log.wanted.faults = Faults(Fault::CutBelowSynced);
    let (_, entries) = read(&log.files, &log.wanted).expect("the fault opens it");
    assert_eq!(entries.len(), 0);
}
