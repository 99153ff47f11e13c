//! A store whose Raft log failed to reach the disk: it rests until it is opened again.

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

use basalt_engine::fs::sim::{Failure, OpKind, Survival};
use basalt_proto::raft_cmdpb::RaftCmdRequest;
use basalt_raftstore::CommandError;
use cluster::Cluster;

#[test]
fn a_store_whose_log_was_not_synced_rests_until_it_is_opened_again_and_then_lacks_nothing() {
    for how in [
        Survival::LoseUnsynced,
        Survival::KeepAll,
        Survival::ProcessDeath,
    ] {
        let mut cluster = Cluster::new(1, 1, |_| {});
        cluster.lead(0);
        assert!(cluster.put(0, b"a", b"old").is_done());
        let syncs = AtomicU64::new(0);
        cluster.nodes[0].fs.set_fault_rule(Some(Arc::new(move |op| {
            let is_one = op.kind == OpKind::Sync && op.path.starts_with("/raft");
            let is_first = is_one && syncs.fetch_add(1, Ordering::Relaxed) == 0;
            is_first.then(Failure::device)
        })));
        assert!(!cluster.put(0, b"a", b"new").is_done());
        // The disk is sound again: the pages that were the only copy are not trusted all the same.
        cluster.ticks(5);
        let leader = cluster.running(0).expect("it runs");
        let why = leader.store.fenced().expect("it rests").to_owned();
        assert!(why.starts_with("raftdb: ") && why.contains("sync"), "{why}");
        leader
            .engines
            .raft
            .resume()
            .expect_err("until it is opened again");
        let refused = cluster.put(0, b"b", b"v").get();
        assert!(
            matches!(&refused[..], [Err(CommandError::Fenced(said))] if *said == why),
            "{refused:?}"
        );
        let left = cluster.nodes[0].fs.crash(how);
        cluster.nodes[0].running = None;
        cluster.nodes[0].fs = left;
        cluster.start(0);
        cluster.lead(0);
        let request = RaftCmdRequest {
            requests: vec![cluster::get(b"a")],
            ..RaftCmdRequest::default()
        };
        let answers = cluster.ask(0, request).get();
        let [Ok(response)] = &answers[..] else {
            panic!("{answers:?}");
        };
        let read = response.responses.iter().filter_map(|one| one.get.as_ref());
        let read: Vec<&[u8]> = read.map(|get| &get.value[..]).collect();
        assert!(read == [&b"old"[..]] || read == [&b"new"[..]], "{read:?}");
        assert!(cluster.put(0, b"b", b"v").is_done());
    }
}
