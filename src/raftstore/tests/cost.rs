//! What a write costs, counted on the simulated disk of each store: syncs, and bytes written.

#[path = "stepped/cluster.rs"]
#[expect(dead_code, reason = "the stepped cases use all of it")]
mod cluster;
#[path = "simulation/node.rs"]
#[expect(dead_code, reason = "the simulation uses all of it")]
mod node;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
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
