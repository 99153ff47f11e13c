//! The rules of reading back, each by small writes that show it.

use basalt_proto::eraftpb::{ConfState, Entry, EntryType, HardState};
use bytes::Bytes;

use super::{
    Subject,
    model::Plan,
    voters,
    world::{World, entry},
};
use crate::{NO_LIMIT, entry_size};

/// The largest payload that the suite writes.
const LARGE: usize = 1 << 20;

/// All of them.
pub(in crate::storage) fn rules<S: Subject>(open: &mut impl FnMut(&ConfState) -> S) {
    a_new_log(open);
    hard_states(open);
    appends(open);
    ranges(open);
    payloads(open);
    snapshots_taken(open);
    snapshots_made(open);
    compactions(open);
    memberships(open);
}

fn group<S: Subject>(open: &mut impl FnMut(&ConfState) -> S) -> World<S> {
    World::new(open, &voters(&[1, 2, 3]), "in a new log of three voters")
}

/// A log that holds nothing knows its membership, and where it stands.
fn a_new_log<S: Subject>(open: &mut impl FnMut(&ConfState) -> S) {
    let mut world = group(open);
    let first = world.at(1);
    world.model.demand_slice(
        &mut world.subject,
        (first, first),
        NO_LIMIT,
        "in a new log, for an empty range",
    );
    World::new(open, &voters(&[7]), "in a new log of one voter");
    let (index, data) = (world.at(1), Bytes::from_static(b"nothing was applied"));
    world.make_snapshot(
        index,
        &voters(&[1]),
        &data,
        "after a snapshot of an entry that a new log has not",
    );
    world.compact(index, "after compacting an entry that a new log has not");
    world.compact(index - 1, "after compacting what a new log stands at");
}

/// Term, vote and commit index stay until they are written again.
fn hard_states<S: Subject>(open: &mut impl FnMut(&ConfState) -> S) {
    let mut world = group(open);
    let vote = world.hard_state(1, 2, 0);
    world.write(vote, "after a first vote");
    world.append(1, &[1, 1, 1], "after entries without a hard state");
    let commit = world.hard_state(2, 0, 3);
    world.write(commit, "after a new term without a vote, and a commit");
    let plan = Plan {
        hard_state: Some(world.hard_state(3, 1, 3)),
        entries: world.entries(4, &[3]),
        ..Plan::default()
    };
    world.write(plan, "after a hard state with entries");
    let large = HardState {
        term: u64::MAX / 2,
        vote: u64::MAX / 2,
        commit: world.at(4),
    };
    world.write(large, "after a term and a vote of 63 bits");
    world.write(Plan::default(), "after a write of nothing");
}

/// Entries follow, or replace everything from their first index on.
fn appends<S: Subject>(open: &mut impl FnMut(&ConfState) -> S) {
    let mut world = group(open);
    world.append(1, &[1], "after a first entry");
    world.append(2, &[1, 1, 2, 2], "after entries behind the last");
    world.append(6, &[], "after no entries");
    world.append(6, &[2], "after one more entry");
    world.append(
        3,
        &[3, 3],
        "after fewer entries that replace some in the midst",
    );
    world.append(4, &[4], "after an entry that replaces the last");
    world.append(5, &[4, 4, 4], "after entries behind a replaced one");
    world.append(
        2,
        &[5, 5, 5, 5, 6, 6, 7],
        "after more entries than those they replace",
    );
    world.append(1, &[8], "after one entry that replaces all");
    world.append(1, &[9, 9, 9], "after entries that replace the only one");
}

/// A range is cut where it passes the limit, and only there.
fn ranges<S: Subject>(open: &mut impl FnMut(&ConfState) -> S) {
    const SIZES: [usize; 6] = [5, 0, 100, 17, 0, 1];
    let mut world = group(open);
    let indexed = (1..).zip(SIZES);
    let entries: Vec<Entry> = indexed
        .map(|(n, size)| entry(world.at(n), world.term(1), vec![b'x'; size].into()))
        .collect();
    world.write(entries.clone(), "after entries of several sizes");
    let end = world.at(1 + SIZES.len() as u64);
    for low in world.at(1)..=end {
        for high in low..=end {
            let mut sum = 0;
            let mut limits = vec![0, 1, NO_LIMIT - 1, NO_LIMIT];
            for entry in entries.iter().filter(|e| (low..high).contains(&e.index)) {
                sum += entry_size(entry);
                limits.extend([sum - 1, sum, sum + 1]);
            }
            for limit in limits {
                let doing = "in a log of several sizes";
                let World { model, subject, .. } = &mut world;
                model.demand_slice(subject, (low, high), limit, doing);
            }
        }
    }
}

/// Bytes that a store may be tempted to treat in a special way.
fn odd_payloads() -> Vec<Bytes> {
    let every_byte: Vec<u8> = (0..=u8::MAX).collect();
    let mut large = every_byte.repeat(LARGE / every_byte.len());
    // No two parts are alike, so that none can stand in for another.
    for (chunk, number) in large.chunks_mut(4096).zip(0_u64..) {
        chunk[..8].copy_from_slice(&number.to_le_bytes());
    }
    vec![
        Bytes::new(),
        Bytes::from_static(&[0]),
        every_byte.into(),
        large.into(),
        vec![0; 4096].into(),
    ]
}

/// Payloads and kinds of entries, and contents of snapshots, are kept to the byte.
fn payloads<S: Subject>(open: &mut impl FnMut(&ConfState) -> S) {
    const KINDS: [EntryType; 3] = [
        EntryType::EntryNormal,
        EntryType::EntryConfChange,
        EntryType::EntryConfChangeV2,
    ];
    let mut world = group(open);
    let payloads = odd_payloads();
    let mut entries = Vec::new();
    for (payload, n) in payloads.iter().zip(1..) {
        let mut entry = entry(world.at(n), world.term(1), payload.clone());
        entry.entry_type = KINDS[entries.len() % KINDS.len()].into();
        entries.push(entry);
    }
    let count = entries.len() as u64;
    let plan = Plan {
        hard_state: Some(world.hard_state(1, 0, count)),
        entries,
        ..Plan::default()
    };
    world.write(plan, "after payloads from nothing to 1 MiB");
    for (data, n) in payloads.iter().zip(1..) {
        let (index, three) = (world.at(n), voters(&[1, 2, 3]));
        let doing = format!("after a snapshot made with {} bytes", data.len());
        world.make_snapshot(index, &three, data, &doing);
        let plan = world.snapshot(count + n, 1, &three, data);
        let mut other = group(open);
        let doing = format!("after a snapshot taken with {} bytes", data.len());
        other.write(plan, &doing);
    }
}

/// A snapshot from elsewhere is the log from then on.
fn snapshots_taken<S: Subject>(open: &mut impl FnMut(&ConfState) -> S) {
    let mut world = group(open);
    let (two, data) = (voters(&[1, 4]), Bytes::from_static(b"from elsewhere"));
    world.append(1, &[1, 1, 1, 1, 1], "before a snapshot");
    let plan = world.snapshot(9, 3, &two, &data);
    world.write(plan, "after a snapshot beyond the log");
    world.append(10, &[3, 4, 4, 4, 4], "after entries behind a snapshot");

    // What is not newer is refused, together with all that comes with it.
    for stale in [9, 8, 1] {
        let mut plan = world.snapshot(stale, 3, &voters(&[5]), &data);
        plan.hard_state = Some(world.hard_state(9, 9, 9));
        plan.entries = world.entries(stale + 1, &[9, 9]);
        let doing = format!("after a snapshot {} behind the present one", 9 - stale);
        world.write(plan, &doing);
    }

    let plan = world.snapshot(12, 5, &voters(&[1, 4, 6]), &Bytes::new());
    world.write(plan, "after a snapshot within the log");
    let mut plan = world.snapshot(20, 5, &two, &data);
    plan.entries = world.entries(21, &[5, 6]);
    plan.hard_state = Some(world.hard_state(6, 4, 20));
    world.write(plan, "after a snapshot with entries behind it");
    let plan = world.snapshot(22, 6, &two, &data);
    world.write(plan, "after a snapshot at the last index");
    world.append(23, &[6], "after an entry behind it");
}

/// A snapshot of the own state machine leaves the log as it is.
fn snapshots_made<S: Subject>(open: &mut impl FnMut(&ConfState) -> S) {
    let mut world = group(open);
    let (two, data) = (voters(&[2, 3]), Bytes::from_static(b"state"));
    world.append(1, &[1, 1, 2, 2, 2, 3, 3], "before a snapshot");
    let committed = world.hard_state(3, 0, 7);
    world.write(committed, "before a snapshot");
    let (three, five, eight) = (world.at(3), world.at(5), world.at(8));
    world.make_snapshot(three, &two, &data, "after a snapshot in the midst");
    world.make_snapshot(three, &voters(&[9]), &data, "after a second one there");
    world.make_snapshot(eight, &voters(&[9]), &data, "after one above the log");
    world.make_snapshot(five, &voters(&[3]), &Bytes::new(), "after a newer one");
    world.make_snapshot(three, &voters(&[9]), &data, "after one older than that");
    world.append(8, &[3], "after an entry behind the log with a snapshot");
    let plan = world.snapshot(5, 2, &voters(&[9]), &data);
    world.write(plan, "after taking a snapshot as new as the one made");
    let plan = world.snapshot(12, 4, &voters(&[2, 3, 4]), &data);
    world.write(plan, "after taking a snapshot newer than the one made");
}

/// Compaction drops what is before an index, and forgets its term last.
fn compactions<S: Subject>(open: &mut impl FnMut(&ConfState) -> S) {
    let (three, data) = (voters(&[1, 2, 3]), Bytes::from_static(b"state"));
    for n in 1..=6 {
        let mut world = group(open);
        world.append(1, &[1, 2, 2, 3, 4, 4], "before a compaction");
        let committed = world.hard_state(4, 0, n);
        world.write(committed, "before a compaction");
        let index = world.at(n);
        world.make_snapshot(index, &three, &data, "before a compaction");
        world.compact(index, &format!("after compacting {n} of six entries"));
        world.compact(index, "after compacting them again");
        world.compact(index - 1, "after compacting fewer of them");
        world.compact(world.at(7), "after compacting beyond the log");
        world.append(7, &[4, 5], "after entries behind a compacted log");
        // As if an old write came twice: what is compacted stays so, the rest is replaced.
        world.append(n, &[4, 6, 6], "after entries that begin below the log");
        let before: Vec<u64> = (1..=n).map(|_| 1).collect();
        world.append(1, &before, "after entries that are all below the log");
    }
    let mut world = group(open);
    world.append(1, &[1, 2, 3, 4], "before two compactions");
    let committed = world.hard_state(4, 0, 4);
    world.write(committed, "before two compactions");
    let (two, four) = (world.at(2), world.at(4));
    world.make_snapshot(four, &three, &data, "before two compactions");
    world.compact(two, "after the first of two compactions");
    world.compact(four, "after the second of two compactions");
    let plan = world.snapshot(9, 5, &three, &data);
    world.write(plan, "after a snapshot over a compacted log");
}

/// Every role is kept, whichever way a membership came.
fn memberships<S: Subject>(open: &mut impl FnMut(&ConfState) -> S) {
    let mut world = group(open);
    let mut states = vec![voters(&[1]), voters(&[1, 2, 3, 4, 5, u64::MAX / 2])];
    if world.subject.keeps_roles() {
        states.push(ConfState {
            learners: vec![4, 5],
            ..voters(&[1, 2, 3])
        });
        states.push(ConfState {
            voters_outgoing: vec![1, 2, 3],
            auto_leave: true,
            ..voters(&[1, 2, 4])
        });
        states.push(ConfState {
            learners: vec![7],
            voters_outgoing: vec![1, 2, 3],
            learners_next: vec![3],
            auto_leave: false,
            ..voters(&[1, 2, 4])
        });
        // Back to a simple one: nothing of the joint one may stay.
        states.push(voters(&[2]));
    }
    let data = Bytes::from_static(b"members");
    let count = states.len() as u64;
    world.append(1, &vec![1; states.len()], "before memberships");
    let committed = world.hard_state(1, 0, count);
    world.write(committed, "before memberships");
    for (state, n) in states.iter().zip(1..) {
        let index = world.at(n);
        world.make_snapshot(index, state, &data, "after a membership was applied");
    }
    for (state, n) in states.iter().zip(1..) {
        let plan = world.snapshot(count + n, 1, state, &data);
        world.write(plan, "after a membership was taken with a snapshot");
        World::new(open, state, "in a new log of a membership");
    }
}
