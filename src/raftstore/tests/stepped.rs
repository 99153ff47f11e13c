//! Whole stores, stepped by hand: cases that chance rarely makes, in which one loop stands still while the
//! others go on, or one message is lost.

#[path = "stepped/cluster.rs"]
mod cluster;
#[path = "stepped/late.rs"]
mod late;
#[path = "simulation/node.rs"]
#[expect(dead_code, reason = "the simulation uses all of it")]
mod node;
#[path = "stepped/ranges.rs"]
mod ranges;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use basalt_engine::fs::sim::{Failure, OpKind, Survival};
use basalt_proto::{
    metapb::Peer,
    raft_cmdpb::{RaftCmdRequest, RaftRequestHeader},
    raft_serverpb::RaftMessage,
};
use basalt_raft::eraftpb::{ConfChangeType, MessageType};
use basalt_raftstore::{CommandError, StoreMessage, WorkTask, metrics::Value};
use cluster::{Cluster, kind};
use node::peer;

/// Whether a message is from or to a store.
fn concerns(message: &RaftMessage, store_id: u64) -> bool {
    let ends = [message.to_peer, message.from_peer];
    ends.iter().flatten().any(|peer| peer.store_id == store_id)
}

#[test]
fn a_change_that_is_reported_late_does_not_undo_the_membership_of_a_snapshot() {
    let mut cluster = Cluster::new(4, 3, |config| {
        config.log_gc_entries = 4;
        config.log_gc_interval = Duration::from_millis(50);
    });
    cluster.lead(0);
    // Store 3 has the addition of a learner, knows that it is committed, and does not come to apply it.
    let joiner = peer(1004, 4);
    cluster.no_apply = Some(2);
    let added = cluster.change(0, ConfChangeType::AddLearnerNode, joiner);
    cluster.ticks(4);
    assert!(added.is_done());
    // While it is cut off, the learner is made a voter, and the log is truncated.
    cluster.lose(|message| concerns(message, 3));
    let promoted = cluster.change(0, ConfChangeType::AddNode, joiner);
    cluster.ticks(4);
    assert!(promoted.is_done());
    for key in 0..40 {
        cluster.put(0, &[key], b"v");
        cluster.ticks(1);
    }
    let sent = cluster.snapshots_sent;
    cluster.lose(|_| false);
    while cluster.snapshots_sent == sent {
        cluster.ticks(1);
    }
    cluster.ticks(2);
    cluster.no_apply = None;
    cluster.ticks(20);
    // What its node takes for the membership shows when it leads.
    cluster.lead(2);
    let members = cluster
        .region(2)
        .map(|region| region.followers)
        .unwrap_or_default();
    let learners = members.iter().filter(|member| member.is_learner).count();
    assert_eq!((members.len(), learners), (3, 0), "{members:#?}");
}

#[test]
fn a_key_that_kvdb_would_refuse_is_refused_before_it_is_in_a_log() {
    let mut cluster = Cluster::new(3, 3, |_| {});
    cluster.lead(0);
    let answer = cluster.put(0, &[7; 65_536], b"v").get();
    assert!(
        matches!(&answer[..], [Err(CommandError::Invalid(_))]),
        "{answer:?}"
    );
    assert!(cluster.put(0, &[7; 65_535], b"v").is_done());
}

#[test]
fn a_get_in_a_command_sees_the_requests_before_it() {
    let mut cluster = Cluster::new(3, 3, |_| {});
    cluster.lead(0);
    assert!(cluster.put(0, b"a", b"old").is_done());
    let requests = vec![
        cluster::get(b"a"),
        cluster::put(b"a", b"new"),
        cluster::get(b"a"),
        cluster::get(b"b"),
        cluster::put(b"b", b"other"),
    ];
    let request = RaftCmdRequest {
        requests,
        // The greatest term there is: a number from outside, that nobody may stumble over.
        header: Some(RaftRequestHeader {
            region_id: 1,
            term: u64::MAX,
            ..RaftRequestHeader::default()
        }),
        ..RaftCmdRequest::default()
    };
    let answers = cluster.ask(0, request).get();
    let [Ok(response)] = &answers[..] else {
        panic!("{answers:?}");
    };
    let read = response.responses.iter().filter_map(|one| one.get.as_ref());
    let read: Vec<&[u8]> = read.map(|get| &get.value[..]).collect();
    assert_eq!(read, [&b"old"[..], b"new", b""]);
}

#[test]
fn a_peer_that_is_removed_before_its_first_snapshot_goes() {
    let mut cluster = Cluster::new(4, 3, |_| {});
    cluster.lead(0);
    cluster.lose(|message| kind(message) == MessageType::MsgSnapshot);
    let joiner = peer(1004, 4);
    cluster.change(0, ConfChangeType::AddNode, joiner);
    cluster.ticks(300);
    assert!(
        cluster.region(3).is_some(),
        "one that is slow is not removed"
    );
    let removed = cluster.change(0, ConfChangeType::RemoveNode, joiner);
    cluster.ticks(10);
    assert!(removed.is_done());
    cluster.ticks(200);
    assert_eq!(cluster.region(3), None);
}

#[test]
fn a_peer_that_is_being_added_is_not_told_that_it_was_removed() {
    let mut cluster = Cluster::new(4, 3, |_| {});
    cluster.lead(0);
    // Store 3 does not learn of the addition, and store 4 hears of store 3 alone after a while.
    cluster.no_apply = Some(2);
    cluster.lose(|message| kind(message) == MessageType::MsgSnapshot);
    cluster.change(0, ConfChangeType::AddNode, peer(1004, 4));
    cluster.ticks(10);
    assert!(cluster.region(3).is_some());
    cluster.lose(|message| {
        let store_of = |peer: Option<Peer>| peer.map_or(0, |peer| peer.store_id);
        let ends = [store_of(message.from_peer), store_of(message.to_peer)];
        ends.contains(&4) && !ends.contains(&3)
    });
    cluster.ticks(300);
    cluster.lose(|_| false);
    cluster.no_apply = None;
    cluster.ticks(40);
    let joined = cluster.region(3).map(|region| region.applied);
    assert_eq!(joined, cluster.region(0).map(|region| region.applied));
}

/// Three stores, of which the third was away until the log was truncated above what it has.
fn left_behind() -> Cluster {
    let mut cluster = Cluster::new(3, 3, |config| {
        config.log_gc_entries = 20;
        config.log_gc_interval = Duration::from_millis(50);
    });
    cluster.lead(0);
    cluster.lose(|message| concerns(message, 3));
    for key in 0..60 {
        cluster.put(0, &[key], b"v");
        cluster.ticks(1);
    }
    cluster.lose(|_| false);
    cluster
}

#[test]
fn a_snapshot_that_takes_long_to_make_is_of_use_under_load() {
    let mut cluster = left_behind();
    cluster.no_work = Some(0);
    let mut making = None;
    for tick in 0..300_u64 {
        let leader = cluster.running(0).expect("it runs");
        for task in leader.workers.snapshots.inbox().take() {
            let WorkTask::Generate { region_id } = task else {
                panic!("flushes are done elsewhere: {task:?}");
            };
            let made = leader.snapshots.generate(region_id, &mut |_| true);
            making = Some((tick + 20, made.expect("a sound disk")));
        }
        if let Some((_, snapshot)) = making.take_if(|(until, _)| *until <= tick) {
            leader.store.inbox().push(StoreMessage::Generated {
                region_id: 1,
                result: Ok(Box::new(snapshot)),
            });
        }
        // As many writes meanwhile as a log keeps three times over.
        for _ in 0..3 {
            cluster.put(0, b"k", &tick.to_be_bytes());
        }
        cluster.ticks(1);
    }
    let behind = cluster.region(2).map_or(0, |region| region.applied) + 10;
    let leader = cluster.region(0).expect("it leads");
    assert!(behind > leader.applied, "{leader:#?}");
    assert_eq!(cluster.snapshots_sent, 1);
    // What nobody needs any more takes nobody's place.
    let files = cluster.running(0).map(|leader| leader.snapshots.list());
    assert_eq!(files, Some(Vec::new()));
}

#[test]
fn a_snapshot_whose_files_are_gone_is_made_anew() {
    let mut cluster = left_behind();
    cluster.lose(|message| kind(message) == MessageType::MsgSnapshot);
    cluster.ticks(10);
    let leader = cluster.running(0).expect("it runs");
    let removed = leader.snapshots.remove_stale(|_| false);
    assert_eq!(removed.expect("a sound disk"), 1);
    cluster.lose(|_| false);
    cluster.ticks(20);
    let applied = |n| cluster.region(n).map(|region| region.applied);
    assert_eq!(applied(2), applied(0));
}

#[test]
fn a_group_of_two_outlives_a_leader_that_applies_its_own_removal_alone() {
    let mut cluster = Cluster::new(2, 2, |_| {});
    cluster.lead(1);
    // Store 2 proposes the removal of store 1, dies before it hears that store 1 has it, and comes back.
    cluster.lose(|message| kind(message) == MessageType::MsgAppendResponse);
    cluster.change(1, ConfChangeType::RemoveNode, peer(1, 1));
    let last = cluster.region(0).map_or(0, |region| region.last_index);
    assert_eq!(
        Some(last),
        cluster.region(1).map(|region| region.last_index)
    );
    let left = cluster.nodes[1].fs.crash(Survival::LoseUnsynced);
    cluster.nodes[1].running = None;
    cluster.nodes[1].fs = left;
    cluster.start(1);
    // Store 1 leads, commits and applies it, and nobody hears of that.
    cluster.lose(move |message| {
        let inner = message.message.as_ref();
        concerns(message, 2) && inner.is_some_and(|inner| inner.commit >= last)
    });
    for _ in 0..200 {
        cluster.ticks(1);
    }
    assert_eq!(cluster.region(0), None);
    cluster.lose(|_| false);
    cluster.ticks(60);
    assert_eq!(cluster.leader(), Some(1), "{:#?}", cluster.region(1));
    assert!(cluster.put(1, b"k", b"v").is_done());
}

#[test]
fn the_only_voter_is_not_removed_and_told_why() {
    let mut cluster = Cluster::new(2, 1, |_| {});
    cluster.lead(0);
    let learner = peer(1002, 2);
    let added = cluster.change(0, ConfChangeType::AddLearnerNode, learner);
    cluster.ticks(20);
    assert!(added.is_done());
    let answer = cluster
        .change(0, ConfChangeType::RemoveNode, peer(1, 1))
        .get();
    let [Err(CommandError::Invalid(why))] = &answer[..] else {
        panic!("{answer:?}");
    };
    assert!(why.contains("the only one that votes"), "{why}");
    // With another voter it is asked to hand over, and the next leader removes it.
    cluster.change(0, ConfChangeType::AddNode, learner);
    cluster.ticks(10);
    let answer = cluster
        .change(0, ConfChangeType::RemoveNode, peer(1, 1))
        .get();
    assert!(
        matches!(&answer[..], [Err(CommandError::NotLeader { .. })]),
        "{answer:?}"
    );
    cluster.ticks(10);
    assert_eq!(cluster.leader(), Some(1));
    let removed = cluster.change(1, ConfChangeType::RemoveNode, peer(1, 1));
    cluster.ticks(20);
    assert!(removed.is_done());
}

#[test]
fn a_deadline_holds_while_the_apply_loop_stands_still() {
    // Alone, or another store would take over.
    let mut cluster = Cluster::new(1, 1, |_| {});
    cluster.lead(0);
    cluster.no_apply = Some(0);
    let late = cluster.put(0, b"k", b"v");
    cluster.ticks(15);
    let in_time = cluster.put(0, b"k", b"w");
    cluster.ticks(90);
    assert_eq!(late.get(), [Err(CommandError::DeadlineExceeded)]);
    assert_eq!(in_time.get(), []);
    // By now it is known that nothing is applied.
    let refused = cluster.put(0, b"k", b"x").get();
    let [Err(CommandError::Busy(why))] = &refused[..] else {
        panic!("{refused:?}");
    };
    assert!(why.contains("the disk of the data"), "{why}");
    cluster.no_apply = None;
    cluster.settle();
    assert!(in_time.is_done());
    assert_eq!(late.get().len(), 1, "told once");
}

/// A figure of a store; those of one name with labels are added up.
fn figure(cluster: &Cluster, n: usize, name: &str) -> u64 {
    let running = cluster.running(n).expect("it runs");
    let figures = running.handle.metrics().figures();
    let named: Vec<_> = figures.iter().filter(|one| one.name == name).collect();
    assert!(!named.is_empty(), "{name}");
    let of = |value| match value {
        Value::Counter(count) | Value::Gauge(count) => count,
        Value::Sizes(histogram) | Value::Durations(histogram) => histogram.count(),
    };
    named.iter().map(|one| of(one.value)).sum()
}

#[test]
fn a_snapshot_that_cannot_be_made_is_tried_again_less_and_less_often() {
    let mut cluster = left_behind();
    cluster.nodes[0].fs.set_fault_rule(Some(Arc::new(|op| {
        let creates = op.kind == OpKind::Create && op.path.starts_with("/snap");
        creates.then(Failure::device)
    })));
    let tries = |cluster: &Cluster| figure(cluster, 0, "store_snapshots_not_made");
    // Heartbeats go out every other tick.
    cluster.ticks(100);
    let few = tries(&cluster);
    assert!((3..10).contains(&few), "{few} tries in five seconds");
    let region = cluster.region(0).expect("it leads");
    let told = |reason: &String| reason.contains("could not be made: snapshot files: ");
    assert!(region.reasons.iter().any(told), "{region:#?}");
    cluster.ticks(400);
    let more = tries(&cluster) - few;
    assert!((1..6).contains(&more), "{more} tries in twenty seconds");
    // What has ended is soon noticed.
    cluster.nodes[0].fs.set_fault_rule(None);
    cluster.ticks(200);
    let applied = |n| cluster.region(n).map(|region| region.applied);
    assert_eq!(applied(2), applied(0));
    let reasons = cluster.region(0).map(|region| region.reasons);
    assert_eq!(reasons, Some(Vec::new()));
}

#[test]
fn a_snapshot_that_does_not_arrive_is_sent_again_less_and_less_often() {
    let mut cluster = left_behind();
    let tries = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&tries);
    cluster.lose(move |message| {
        let is_snapshot = kind(message) == MessageType::MsgSnapshot;
        counted.fetch_add(u64::from(is_snapshot), Ordering::Relaxed);
        is_snapshot
    });
    cluster.ticks(500);
    let few = tries.load(Ordering::Relaxed);
    assert!((5..15).contains(&few), "{few} tries in twenty-five seconds");
    cluster.lose(|_| false);
    cluster.ticks(200);
    let applied = |n| cluster.region(n).map(|region| region.applied);
    assert_eq!(applied(2), applied(0));
}

#[test]
fn no_snapshot_is_made_for_whom_has_no_room() {
    let mut cluster = left_behind();
    cluster.no_room = Some(2);
    cluster.ticks(500);
    let questions = cluster.questions;
    assert!((5..15).contains(&questions), "{questions} in 25 seconds");
    let made = |cluster: &Cluster| figure(cluster, 0, "store_snapshot_making_seconds");
    assert_eq!(made(&cluster), 0);
    cluster.no_room = None;
    cluster.ticks(200);
    assert_eq!(made(&cluster), 1);
    let applied = |n| cluster.region(n).map(|region| region.applied);
    assert_eq!(applied(2), applied(0));
}

#[test]
fn a_restart_knows_about_how_large_the_log_is() {
    let mut cluster = Cluster::new(1, 1, |config| config.log_gc_bytes = 100_000);
    cluster.lead(0);
    for key in 0..80 {
        cluster.put(0, &[key], &[7; 1_000]);
    }
    let before = cluster.region(0).map_or(0, |region| region.log_bytes);
    let left = cluster.nodes[0].fs.crash(Survival::LoseUnsynced);
    cluster.nodes[0].running = None;
    cluster.nodes[0].fs = left;
    cluster.start(0);
    let after = cluster.region(0).map_or(0, |region| region.log_bytes);
    assert!(
        before > 80_000 && after.abs_diff(before) < before / 10,
        "{before}, {after}"
    );
    // So its limit holds.
    cluster.lead(0);
    for key in 0..30 {
        cluster.put(0, &[key], &[7; 1_000]);
    }
    cluster.ticks(40);
    let region = cluster.region(0).expect("it leads");
    assert!(
        region.truncated > 30 && region.log_bytes < 70_000,
        "{region:#?}"
    );
}

#[test]
fn a_flush_does_not_wait_for_a_snapshot() {
    let mut cluster = left_behind();
    cluster.no_work = Some(0);
    cluster.ticks(4);
    let leader = cluster.running(0).expect("it runs");
    assert_eq!(
        leader.workers.snapshots.inbox().len(),
        1,
        "one is asked for"
    );
    let before = figure(&cluster, 0, "store_kvdb_flush_seconds");
    for key in 0..60 {
        cluster.put(0, &[key], b"v");
        cluster.ticks(1);
    }
    assert!(figure(&cluster, 0, "store_kvdb_flush_seconds") > before);
    assert!(figure(&cluster, 0, "store_queue_waiting") > 0);
}

#[test]
fn a_failure_of_the_disk_is_told_as_the_engine_tells_it() {
    let mut cluster = Cluster::new(1, 1, |_| {});
    cluster.lead(0);
    cluster.nodes[0].fs.set_fault_rule(Some(Arc::new(|op| {
        (op.kind == OpKind::Sync).then(Failure::device)
    })));
    cluster.put(0, b"k", b"v");
    let leader = cluster.running(0).expect("it runs");
    let why = leader.store.fenced().expect("it has stopped");
    assert!(why.starts_with("raftdb: ") && why.contains("sync"), "{why}");
}

#[test]
fn the_status_tells_of_the_last_snapshot_and_of_what_is_flushed() {
    let mut cluster = left_behind();
    assert_eq!(
        cluster.region(0).and_then(|region| region.last_snapshot),
        None
    );
    cluster.ticks(20);
    let (sender, receiver) = (cluster.region(0), cluster.region(2));
    let (sender, receiver) = sender.zip(receiver).expect("both are there");
    let sent = sender.last_snapshot.expect("it was sent");
    let received = receiver.last_snapshot.expect("it was received");
    assert_eq!((sent.what, received.what), ("sent", "received"));
    assert_eq!((sent.index, sent.bytes), (received.index, received.bytes));
    assert!(sent.bytes > 0 && sent.index > 20, "{sent:?}");
    assert_eq!(sent.to, Some(peer(3, 3)));
    assert!(
        sent.age > Duration::ZERO && sent.age <= Duration::from_secs(1),
        "{sent:?}"
    );
    assert!(receiver.flushed_applied >= received.index, "{receiver:?}");

    cluster.put(0, b"more", b"v");
    let region = cluster.region(0).expect("it leads");
    assert!(region.flushed_applied < region.applied, "{region:?}");
    let leader = cluster.running(0).expect("it runs");
    leader.engines.flush_kv().expect("a sound disk");
    cluster.ticks(2);
    let region = cluster.region(0).expect("it leads");
    assert_eq!(region.flushed_applied, region.applied);
    assert_eq!(region.reasons, Vec::<String>::new());
}

#[test]
fn the_status_says_what_is_not_as_it_should_be() {
    let mut cluster = left_behind();
    cluster.no_work = Some(0);
    cluster.ticks(4);
    let has = |cluster: &Cluster, n: usize, what: &str| {
        let region = cluster.region(n).expect("it has a peer");
        let mut reasons = region.reasons.iter();
        assert!(
            reasons.any(|reason| reason.contains(what)),
            "{what}: {region:#?}"
        );
    };
    has(&cluster, 0, "a snapshot is being made");
    cluster.no_work = None;
    cluster.ticks(20);
    cluster.lose(|message| concerns(message, 2));
    cluster.ticks(30);
    has(&cluster, 0, "peer 2 on store 2 has not been heard from");
    has(&cluster, 1, "no leader is known");
    cluster.no_disk = Some(2);
    cluster.put(0, b"k", b"v");
    cluster.ticks(11);
    has(&cluster, 2, "raftdb has not answered for");
}

#[test]
fn requests_of_more_bytes_than_may_wait_are_refused() {
    let mut cluster = Cluster::new(1, 1, |config| config.inbox_bytes = 10_000);
    cluster.lead(0);
    let large = cluster::one_put(b"k", &[7; 6_000]);
    let first = cluster.propose(0, large.clone());
    let second = cluster.propose(0, large.clone());
    let answer = second.get();
    let [Err(CommandError::Busy(why))] = &answer[..] else {
        panic!("{answer:?}");
    };
    assert!(why.contains("10000 bytes"), "{why}");
    assert_eq!(figure(&cluster, 0, "store_queue_refused"), 1);
    assert!(figure(&cluster, 0, "store_queue_waiting_bytes") > 6_000);
    cluster.settle();
    assert!(first.is_done());
    assert!(cluster.ask(0, large).is_done(), "there is room again");
}

#[test]
fn what_happens_is_counted() {
    let mut cluster = Cluster::new(3, 3, |config| {
        config.log_gc_entries = 20;
        config.log_gc_interval = Duration::from_millis(50);
        config.entry_cache_bytes = 1;
    });
    cluster.lead(0);
    cluster.lose(|message| concerns(message, 3));
    let before = figure(&cluster, 0, "store_propose_to_commit_seconds");
    for key in 0..60 {
        cluster.put(0, &[key], b"v");
        cluster.ticks(1);
    }
    cluster.lose(|_| false);
    cluster.ticks(20);
    let leader = |name| figure(&cluster, 0, name);
    let committed = leader("store_propose_to_commit_seconds") - before;
    assert_eq!(committed, 60, "truncations have nobody who waits");
    for name in [
        "store_turn_messages",
        "store_raftdb_batch_bytes",
        "store_raftdb_sync_seconds",
        "store_apply_batch_entries",
        "store_apply_batch_bytes",
        "store_commit_to_apply_seconds",
    ] {
        assert!(leader(name) >= 60, "{name}: {}", leader(name));
    }
    for name in [
        "store_log_truncations",
        "store_log_entries_deleted",
        "store_log_bytes",
        "store_kvdb_flush_seconds",
        "store_log_entries_read",
        "store_snapshot_making_seconds",
    ] {
        assert!(leader(name) > 0, "{name}");
    }
    let all = |name| (0..3).map(|n| figure(&cluster, n, name)).sum::<u64>();
    assert_eq!(all("store_leaders"), 1);
    assert_eq!(all("store_regions"), 3);
    assert_eq!(figure(&cluster, 2, "store_snapshot_installing_seconds"), 1);
    assert!(all("store_campaigns") >= all("store_elections_won"));
    assert!(all("store_elections_won") > 0 && all("store_leader_changes") >= 3);
    assert_eq!(all("store_queue_refused") + all("store_queue_waiting"), 0);
}

#[test]
fn a_leader_whose_disk_does_not_answer_gives_way() {
    for loses_transfer in [false, true] {
        let mut cluster = Cluster::new(3, 3, |_| {});
        cluster.lead(0);
        cluster.no_disk = Some(0);
        cluster.lose(move |message| loses_transfer && kind(message) == MessageType::MsgTimeoutNow);
        cluster.put(0, b"k", b"v");
        cluster.ticks(60);
        let leader = cluster.leader();
        assert!(leader.is_some_and(|leader| leader != 0), "{leader:?}");
        assert!(cluster.put(leader.unwrap_or(1), b"k", b"w").is_done());
        cluster.no_disk = None;
        cluster.ticks(20);
        let applied = |n| cluster.region(n).map(|region| region.applied);
        assert_eq!(applied(0), applied(leader.unwrap_or(1)));
    }
}

#[test]
fn a_leader_whose_data_cannot_be_written_gives_way() {
    for loses_transfer in [false, true] {
        let mut cluster = Cluster::new(3, 3, |_| {});
        cluster.lead(0);
        cluster.no_apply = Some(0);
        cluster.lose(move |message| loses_transfer && kind(message) == MessageType::MsgTimeoutNow);
        let waits = cluster.put(0, b"k", b"v");
        cluster.ticks(9);
        assert_eq!(cluster.leader(), Some(0), "it may be a hiccup");
        cluster.ticks(if loses_transfer { 50 } else { 4 });
        let leader = cluster.leader().expect("somebody leads");
        assert_ne!(leader, 0);
        assert!(cluster.put(leader, b"k", b"w").is_done());
        assert!(figure(&cluster, 0, "store_gave_way") > 0);
        // It does not come to lead again, whatever happens to the others, as it could not serve.
        cluster.ticks(30);
        assert_eq!(cluster.leader(), Some(leader));
        cluster.no_apply = None;
        cluster.ticks(20);
        assert!(waits.is_done());
        let applied = |n| cluster.region(n).map(|region| region.applied);
        assert_eq!(applied(0), applied(leader));
    }
}

#[test]
fn a_leader_whose_disk_is_full_gives_way_before_it_stops() {
    // Of raftdb it is only found out by an entry that the others do not have yet: they have to miss it.
    for (engine, ticks) in [("/kv", 2), ("/raft", 40)] {
        let mut cluster = Cluster::new(3, 3, |_| {});
        cluster.lead(0);
        cluster.put(0, b"k", b"v");
        cluster.nodes[0].fs.set_fault_rule(Some(Arc::new(move |op| {
            let writes = matches!(op.kind, OpKind::Write | OpKind::Create | OpKind::Sync);
            let full = || Failure::of(std::io::ErrorKind::StorageFull);
            (writes && op.path.starts_with(engine)).then(full)
        })));
        let leader = cluster.running(0).expect("it runs");
        // As a full memtable would do by itself.
        let _ = leader.engines.flush_kv();
        cluster.put(0, b"k", b"w");
        cluster.ticks(ticks);
        let next = cluster.leader().expect("somebody leads");
        assert_ne!(next, 0, "{engine}");
        assert!(cluster.put(next, b"k", b"x").is_done());
        let leader = cluster.running(0).expect("it runs");
        assert!(leader.store.fenced().is_some(), "{engine}");
    }
}

#[test]
fn a_leader_whose_data_takes_no_writes_gives_way_also_while_nobody_writes() {
    let mut cluster = Cluster::new(3, 3, |config| {
        config.log_gc_interval = Duration::from_millis(100);
    });
    cluster.lead(0);
    cluster.put(0, b"k", b"v");
    cluster.nodes[0].fs.set_fault_rule(Some(Arc::new(|op| {
        let writes = matches!(op.kind, OpKind::Write | OpKind::Create);
        let full = || Failure::of(std::io::ErrorKind::StorageFull);
        (writes && op.path.starts_with("/kv")).then(full)
    })));
    let leader = cluster.running(0).expect("it runs");
    leader.engines.flush_kv().expect_err("there is no room");
    cluster.ticks(4);
    assert!(cluster.leader().is_some_and(|leader| leader != 0));
}
