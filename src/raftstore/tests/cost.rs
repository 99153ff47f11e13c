//! What a write costs, counted on the simulated disk of each store: syncs, and bytes written.

#[path = "stepped/cluster.rs"]
#[expect(dead_code, reason = "the stepped cases use all of it")]
mod cluster;
#[path = "simulation/node.rs"]
#[expect(dead_code, reason = "the simulation uses all of it")]
mod node;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use basalt_engine::fs::sim::OpKind;
use cluster::{Answer, Cluster, one_put};

/// What a disk was asked to do.
#[derive(Default)]
struct Counted {
    /// Syncs of files below `/raft`, and of all others.
    raft_syncs: AtomicU64,
    other_syncs: AtomicU64,
    /// Bytes written.
    bytes: AtomicU64,
    /// Those of files below `/raft`.
    raft_bytes: AtomicU64,
}

impl Counted {
    fn of(cluster: &Cluster, n: usize) -> Arc<Self> {
        let counted = Arc::new(Self::default());
        let seen = Arc::clone(&counted);
        cluster.nodes[n]
            .fs
            .set_observer(Some(Arc::new(move |_, _, op| {
                let is_raft = op.path.starts_with("/raft");
                match op.kind {
                    OpKind::Sync | OpKind::SyncDir if is_raft => &seen.raft_syncs,
                    OpKind::Sync | OpKind::SyncDir => &seen.other_syncs,
                    OpKind::Write => {
                        seen.bytes.fetch_add(op.len, Ordering::Relaxed);
                        let of_raft = op.len * u64::from(is_raft);
                        seen.raft_bytes.fetch_add(of_raft, Ordering::Relaxed);
                        return;
                    }
                    _ => return,
                }
                .fetch_add(1, Ordering::Relaxed);
            })));
        counted
    }

    fn take(&self) -> (u64, u64, u64) {
        let take = |count: &AtomicU64| count.swap(0, Ordering::Relaxed);
        (
            take(&self.raft_syncs),
            take(&self.other_syncs),
            take(&self.bytes),
        )
    }
}

/// Bytes of a value.
const VALUE: usize = 256;

#[test]
fn a_put_is_one_sync_on_each_store_and_its_bytes_are_written_once() {
    let mut cluster = Cluster::new(3, 3, |_| {});
    cluster.lead(0);
    let counted: Vec<_> = (0..3).map(|n| Counted::of(&cluster, n)).collect();
    const PUTS: u64 = 100;
    for number in 0..PUTS {
        let key = number.to_be_bytes();
        assert!(cluster.put(0, &key, &[7; VALUE]).is_done());
    }
    for (n, counted) in counted.iter().enumerate() {
        let (raft, other, bytes) = counted.take();
        let user = PUTS * (VALUE as u64 + 8);
        println!(
            "store {}: {raft} syncs of raftdb, {other} of others for {PUTS} puts; {bytes} bytes written for {user}: {:.2}",
            n + 1,
            bytes as f64 / user as f64
        );
        assert_eq!(other, 0, "kvdb is not synced for a put");
        // One for the entry; the commit index comes with the next one.
        assert!(raft <= PUTS + 5, "{raft} syncs of raftdb for {PUTS} puts");
        assert!(bytes < 2 * user, "{bytes} bytes written for {user}");
    }
}

#[test]
fn puts_that_come_together_share_a_sync() {
    let mut cluster = Cluster::new(3, 3, |_| {});
    cluster.lead(0);
    let counted: Vec<_> = (0..3).map(|n| Counted::of(&cluster, n)).collect();
    const PUTS: u64 = 64;
    let answers: Vec<_> = (0..PUTS)
        .map(|number| cluster.propose(0, one_put(&number.to_be_bytes(), &[7; VALUE])))
        .collect();
    cluster.settle();
    assert!(answers.iter().all(Answer::is_done));
    for (n, counted) in counted.iter().enumerate() {
        let (raft, other, bytes) = counted.take();
        println!(
            "store {}: {raft} syncs of raftdb, {other} of others, {bytes} bytes for {PUTS} puts",
            n + 1
        );
        assert_eq!(other, 0, "kvdb is not synced for a put");
        assert!(
            raft <= 4,
            "{raft} syncs of raftdb for {PUTS} puts that came together"
        );
    }
}

#[test]
fn over_the_life_of_a_log_its_bytes_are_written_once() {
    let mut cluster = Cluster::new(1, 1, |config| {
        config.log_gc_entries = 100;
        config.log_gc_interval = Duration::from_millis(50);
    });
    cluster.lead(0);
    let counted = Counted::of(&cluster, 0);
    const PUTS: u64 = 2_000;
    for number in 0..PUTS {
        let key = (number % 50).to_be_bytes();
        assert!(cluster.put(0, &key, &[7; 4 * VALUE]).is_done());
        if number % 10 == 0 {
            cluster.ticks(1);
        }
    }
    let user = PUTS * (4 * VALUE as u64 + 8);
    let bytes = counted.raft_bytes.load(Ordering::Relaxed);
    let stats = cluster.running(0).expect("it runs").engines.raft.stats();
    println!(
        "{bytes} bytes of raftdb for {user}: {:.2}; {} flushes of {} bytes, {} bytes written forward, {} bytes of log",
        bytes as f64 / user as f64,
        stats.flushes,
        stats.flushed_bytes,
        stats.log_rewritten_bytes,
        stats.log_bytes
    );
    assert!(bytes < user * 5 / 4, "{bytes} bytes written for {user}");
    assert!(stats.flushes > 5, "states hold the log back: {stats:?}");
    // 100 to 200 entries are kept, segments have up to 256 KiB, and states may hold 64 KiB back.
    assert!(stats.log_bytes < 1 << 20, "{stats:?}");
}
