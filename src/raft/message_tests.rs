//! Sizes and their limit, from both sides, and the sorting of messages into kinds.

use basalt_testkit::{Replay, Rng, Seeds, long_factor};

use super::*;

fn entry(bytes: usize) -> Entry {
    Entry {
        data: vec![7; bytes].into(),
        ..Entry::default()
    }
}

fn kept(entries: &[Entry], max_bytes: u64) -> usize {
    let mut entries = entries.to_vec();
    limit_size(&mut entries, max_bytes);
    entries.len()
}

#[test]
fn an_entry_counts_its_payload_and_a_fixed_overhead() {
    assert_eq!(entry_size(&entry(0)), ENTRY_OVERHEAD);
    assert_eq!(entry_size(&entry(100)), ENTRY_OVERHEAD + 100);
    assert_eq!(
        entries_size(&[entry(1), entry(0), entry(5)]),
        3 * ENTRY_OVERHEAD + 6
    );
    assert_eq!(payload_size(&[entry(1), entry(0), entry(5)]), 6);
}

#[test]
fn a_limit_keeps_what_fits_exactly_and_cuts_what_is_a_byte_larger() {
    let entries = [entry(10), entry(0), entry(30)];
    let two = entries_size(&entries[..2]);
    assert_eq!(kept(&entries, two - 1), 1);
    assert_eq!(kept(&entries, two), 2);
    assert_eq!(kept(&entries, entries_size(&entries) - 1), 2);
    assert_eq!(kept(&entries, entries_size(&entries)), 3);
    assert_eq!(kept(&entries, u64::MAX), 3);
}

#[test]
fn the_first_entry_passes_any_limit_and_no_entry_stays_none() {
    assert_eq!(kept(&[entry(500), entry(0)], 0), 1);
    assert_eq!(kept(&[entry(0)], ENTRY_OVERHEAD - 1), 1);
    assert_eq!(kept(&[], 0), 0);
    assert_eq!(kept(&[], u64::MAX), 0);
}

#[test]
fn a_limit_keeps_the_longest_prefix_within_it() {
    let test = "a_limit_keeps_the_longest_prefix_within_it";
    for seed in Seeds::new(test, 200 * long_factor()) {
        let _replay = Replay::new("-p basalt-raft", test, seed);
        let rng = &mut Rng::new(seed);
        let count = rng.len(0..12);
        let entries: Vec<Entry> = (0..count).map(|_| entry(rng.len(0..60))).collect();
        let limit = rng.below(entries_size(&entries) + 50);
        let fits = |count: &usize| entries_size(&entries[..*count]) <= limit;
        let longest = (0..=count).rev().find(fits).unwrap_or(0);
        assert_eq!(
            kept(&entries, limit),
            longest.max(1).min(count),
            "limit {limit}"
        );
    }
}

/// Every kind of message; what is not one of them decodes as an error.
fn kinds() -> Vec<MessageType> {
    (0..100)
        .filter_map(|kind| MessageType::try_from(kind).ok())
        .collect()
}

#[test]
fn each_kind_of_message_has_a_name_of_its_own() {
    let mut names: Vec<_> = kinds().into_iter().map(reference_name).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!((names.len(), count), (count, 24));
    assert!(names.iter().all(|name| name.starts_with("Msg")));
}

#[test]
fn a_transport_never_carries_what_a_node_says_to_itself() {
    use MessageType as M;
    // What passes between nodes, in the order of its numbers.
    let carried: Vec<_> = kinds()
        .into_iter()
        .filter(|kind| !is_local(*kind))
        .collect();
    let between_nodes = [
        M::MsgPropose,
        M::MsgAppend,
        M::MsgAppendResponse,
        M::MsgRequestVote,
        M::MsgRequestVoteResponse,
        M::MsgSnapshot,
        M::MsgHeartbeat,
        M::MsgHeartbeatResponse,
        M::MsgTransferLeader,
        M::MsgTimeoutNow,
        M::MsgReadIndex,
        M::MsgReadIndexResp,
        M::MsgPreVote,
        M::MsgPreVoteResp,
    ];
    assert_eq!(carried, between_nodes);
    let answers: Vec<_> = carried
        .into_iter()
        .filter(|kind| is_response(*kind))
        .collect();
    assert_eq!(
        answers,
        [
            M::MsgAppendResponse,
            M::MsgRequestVoteResponse,
            M::MsgHeartbeatResponse,
            M::MsgReadIndexResp,
            M::MsgPreVoteResp,
        ]
    );
}

#[test]
fn a_vote_request_is_answered_by_its_own_kind() {
    let answer = vote_response(MessageType::MsgRequestVote);
    assert_eq!(answer, MessageType::MsgRequestVoteResponse);
    assert_eq!(
        vote_response(MessageType::MsgPreVote),
        MessageType::MsgPreVoteResp
    );
    assert!(is_local_thread(LOCAL_APPEND_THREAD) && is_local_thread(LOCAL_APPLY_THREAD));
    assert!(!is_local_thread(NONE) && !is_local_thread(LOCAL_APPLY_THREAD - 1));
}
