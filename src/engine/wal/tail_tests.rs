//! Torn tails and their seals: every crash opens with a prefix that has all that was durable, and what
//! was once shown stays, crash after crash.

use super::{
    mark::{Mark, MarkFound},
    segment::HEADER_LEN,
    test_log::{DB, Entry, Log, Random, seal},
};

const SECTOR: usize = 512;

#[test]
fn every_prefix_of_the_last_unsynced_record_opens_with_all_before_it() {
    let mut log = Log::new(1000);
    log.append(10);
    log.sync();
    log.append(20);
    log.append(300);
    let whole = log.bytes(5).clone();
    for stale in [0x00, 0xa5] {
        for kept in 0..332 {
            let mut torn = log.clone();
            let from = whole.len() - 332 + kept;
            torn.bytes(5)[from..].fill(stale);
            let (plan, entries) = torn.read().expect("a torn tail");
            assert_eq!(entries, log.written[..2], "{kept} bytes kept");
            assert_eq!((plan.proved, plan.needs_seal()), (log.synced, true));
        }
    }
}

#[test]
fn the_sealed_tail_is_read_from_the_new_segment_alone() {
    let mut log = Log::new(1000);
    log.append(10);
    log.sync();
    for _ in 0..3 {
        log.append(20);
    }
    log.rotate(6, 50);
    log.append(30);
    let (plan, _) = log.read().expect("whole");
    seal(&mut log.files, &plan, 9);
    let (plan, entries) = log.read().expect("sealed");
    assert_eq!(entries, log.written);
    let taken: Vec<u64> = plan.segments.iter().map(|s| s.number).collect();
    assert_eq!((taken, plan.off_chain.as_slice()), (vec![5, 9], &[6][..]));
    assert_eq!(
        (plan.proved, plan.needs_seal()),
        (plan.end, false),
        "copied once, durable since"
    );
    // The old copies of the tail no longer count, damaged or not.
    log.bytes(6).fill(0xee);
    let cut = HEADER_LEN + 42;
    log.bytes(5)[cut..].fill(0xee);
    assert_eq!(log.read().expect("sealed").1, log.written);
    // The sealed copy does: every bit of its records, and of its header, even without a mark.
    log.wanted.mark = MarkFound::Absent;
    for bit in 0..log.files.0[&9].len() * 8 {
        let mut log = log.clone();
        log.bytes(9)[bit / 8] ^= 1 << (bit % 8);
        assert!(
            log.read().expect_err("durable").is_corruption(),
            "bit {bit}"
        );
    }
}

#[test]
fn every_bit_of_a_sealed_tail_of_one_record_is_known_to_be_durable() {
    let mut log = Log::new(1000);
    log.append(10);
    log.wanted.mark = MarkFound::Absent;
    let (plan, _) = log.read().expect("whole");
    seal(&mut log.files, &plan, 9);
    for bit in HEADER_LEN * 8..log.files.0[&9].len() * 8 {
        let mut log = log.clone();
        log.bytes(9)[bit / 8] ^= 1 << (bit % 8);
        assert!(log.read().is_err(), "bit {bit}");
    }
}

#[test]
fn a_seal_without_records_still_closes_the_cut() {
    let mut log = Log::new(1000);
    log.append(10);
    log.sync();
    log.append(20);
    log.append(30);
    log.bytes(5)[64 + 42] ^= 1;
    let (plan, entries) = log.read().expect("a torn tail");
    assert_eq!(
        (entries, plan.dropped_bytes),
        (log.written[..1].to_vec(), 62)
    );
    seal(&mut log.files, &plan, 9);
    // Even if the torn record became whole again, the cut stands.
    log.bytes(5)[64 + 42] ^= 1;
    let (plan, entries) = log.read().expect("sealed");
    assert_eq!(entries, log.written[..1]);
    assert_eq!(
        (plan.dropped_bytes, plan.needs_seal(), plan.previous),
        (0, false, 5)
    );
}

#[test]
fn a_damaged_header_of_the_seal_is_corruption_once_the_mark_names_it() {
    let mut log = Log::new(1000);
    log.append(10);
    log.append(20);
    let (plan, _) = log.read().expect("whole");
    seal(&mut log.files, &plan, 9);
    let mark = Mark {
        db: DB,
        segment: 9,
        position: plan.end,
        ..Mark::default()
    };
    log.wanted.mark = MarkFound::Good(mark);
    assert!(log.read().is_ok());
    // The old segment would still give every record, but then writes behind them would be lost.
    for bit in 0..HEADER_LEN * 8 {
        let mut log = log.clone();
        log.bytes(9)[bit / 8] ^= 1 << (bit % 8);
        assert!(log.read().is_err(), "bit {bit}");
    }
}

/// What a power cut leaves of `log`, of which `before` is the last synced state: every sector written
/// since then is new or old, and the mark is any that was written.
fn power_cut(log: &Log, before: &Log, marks: &[MarkFound], random: &mut Random) -> Log {
    let mut cut = log.clone();
    for (number, bytes) in &mut cut.files.0 {
        let old = before.files.0.get(number).or(log.former.0.get(number));
        let old = old.map_or(&[][..], Vec::as_slice);
        let keep_all = random.below(4) == 0;
        for (index, sector) in bytes.chunks_mut(SECTOR).enumerate() {
            if keep_all || random.below(2) == 0 {
                continue;
            }
            let old = old.get(index * SECTOR..).unwrap_or(&[]);
            for (at, byte) in sector.iter_mut().enumerate() {
                *byte = old.get(at).copied().unwrap_or(0);
            }
        }
    }
    if random.below(2) == 0 {
        cut.wanted.mark = marks[random.below(marks.len())];
    }
    cut
}

/// Goes on in a new segment made of zeros, of noise, or of good records of a segment long obsolete.
fn rotate(log: &mut Log, number: u64, random: &mut Random) {
    let spare = HEADER_LEN + random.below(1500);
    let bytes = match random.below(3) {
        0 => vec![0; spare],
        1 => (0..spare).map(|_| random.byte()).collect(),
        _ => {
            let mut old = Log::new(100);
            old.rotate(3, 0);
            while old.bytes(3).len() < spare {
                old.append(random.below(60));
                old.sync();
            }
            old.bytes(3).clone()
        }
    };
    log.former.0.insert(number, bytes.clone());
    log.rotate_onto(number, bytes);
}

fn assert_prefix(entries: &[Entry], of: &[Entry], at_least: usize, context: &str) {
    let count = entries.len();
    assert!(
        count >= at_least,
        "{context}: {count} of {at_least} durable"
    );
    assert_eq!(entries, &of[..count], "{context}");
}

/// Flips one bit anywhere: what is still read has all that the mark proves, and nothing else.
fn assert_flip_is_noticed(cut: &Log, whole: &[Entry], random: &mut Random, context: &str) {
    let mut flipped = cut.clone();
    let index = random.below(flipped.files.0.len());
    let (number, bytes) = flipped
        .files
        .0
        .iter_mut()
        .nth(index)
        .expect("below the length");
    let bit = random.below(bytes.len() * 8);
    bytes[bit / 8] ^= 1 << (bit % 8);
    let context = format!("{context}, bit {bit} of {number}");
    match flipped.read() {
        Err(error) => assert!(error.is_corruption(), "{context}: {error}"),
        Ok((plan, entries)) => {
            assert_prefix(&entries, whole, 0, &context);
            if let MarkFound::Good(mark) = flipped.wanted.mark {
                assert!(plan.end >= mark.position, "{context}");
            }
        }
    }
}

#[test]
fn any_torn_tail_opens_with_all_that_was_durable_and_keeps_what_it_showed() {
    let (mut torn, mut sealed, mut dropped) = (0, 0, 0);
    for seed in 0..3_000 {
        let mut random = Random(seed);
        let mut log = Log::new(random.below(5000) as u64);
        let mut marks = vec![MarkFound::Absent, MarkFound::Unreadable, log.wanted.mark];
        let mut number = 10;
        for life in 0..4 {
            let context = format!("seed {seed}, life {life}");
            for _ in 0..random.below(4) {
                log.append(random.below(700));
                if random.below(2) == 0 {
                    log.sync();
                    marks.push(log.wanted.mark);
                }
            }
            log.sync();
            marks.push(log.wanted.mark);
            let (durable, durable_count) = (log.clone(), log.written.len());
            for _ in 0..random.below(8) {
                if random.below(3) == 0 {
                    number += 1;
                    rotate(&mut log, number, &mut random);
                }
                log.append(random.below(700));
            }
            let killed = random.below(3) == 0;
            let mut cut = if killed {
                log.clone()
            } else {
                power_cut(&log, &durable, &marks, &mut random)
            };
            let (plan, entries) = cut.read().unwrap_or_else(|e| panic!("{context}: {e}"));
            assert_prefix(&entries, &log.written, durable_count, &context);
            assert_flip_is_noticed(&cut, &log.written, &mut random, &context);
            torn += usize::from(entries.len() < log.written.len());
            sealed += usize::from(plan.needs_seal());
            dropped += usize::from(plan.dropped_bytes > 0);
            // Another crash may come right after the seal; then the next open finds it sealed.
            for _ in 0..random.below(3) {
                let again = cut.read().expect("as before").0;
                number += 1;
                seal(&mut cut.files, &again, number);
                assert_eq!(cut.read().expect("sealed").1, entries, "{context}");
            }
            let again = cut.read().expect("as before").0;
            if again.needs_seal() {
                number += 1;
                seal(&mut cut.files, &again, number);
            }
            let (plan, shown) = cut.read().expect("sealed");
            assert_eq!(shown, entries, "{context}");
            assert_eq!(
                (plan.proved, plan.needs_seal()),
                (plan.end, false),
                "{context}"
            );
            assert_flip_is_noticed(&cut, &entries, &mut random, &context);
            // Go on in a new segment, as the engine does.
            cut.written = entries;
            cut.synced = plan.proved;
            cut.active = (plan.previous, plan.end, HEADER_LEN);
            let survivors: Vec<u64> = log.files.0.keys().copied().collect();
            log = cut;
            number += 1;
            rotate(&mut log, number, &mut random);
            if killed {
                // Power fails now: what the dead process had not synced may go, what was shown may not.
                let mut durable = durable;
                let made_since = log.files.0.iter().filter(|(n, _)| !survivors.contains(n));
                durable
                    .files
                    .0
                    .extend(made_since.map(|(n, bytes)| (*n, bytes.clone())));
                let mut cut = power_cut(&log, &durable, &marks, &mut random);
                let read = cut.read().unwrap_or_else(|e| panic!("{context}: {e}"));
                assert_eq!(read.1, shown, "{context}, power cut after the open");
                cut.wanted.mark = log.wanted.mark;
                log = cut;
            }
        }
    }
    assert!(
        torn > 1000 && sealed > 1000 && dropped > 1000,
        "{torn}, {sealed}, {dropped}"
    );
}
