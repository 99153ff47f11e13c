//! Deletes of ranges: one command of the log, the same on every store, however often it is applied again.

use std::collections::BTreeMap;

use basalt_engine::{fs::sim::Survival, key::MAX_KEY_LEN};
use basalt_proto::raft_cmdpb::{CmdType, DeleteRangeRequest, RaftCmdRequest, Request};
use basalt_raftstore::CommandError;

use super::cluster::{Cluster, get, put};

fn range(start: &[u8], end: &[u8]) -> Request {
    Request {
        cmd_type: CmdType::DeleteRange.into(),
        delete_range: Some(DeleteRangeRequest {
            start_key: start.to_vec().into(),
            end_key: end.to_vec().into(),
            ..DeleteRangeRequest::default()
        }),
        ..Request::default()
    }
}

fn command(requests: Vec<Request>) -> RaftCmdRequest {
    RaftCmdRequest {
        requests,
        ..RaftCmdRequest::default()
    }
}

type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

fn pairs(cluster: &Cluster, n: usize) -> Pairs {
    let engines = &cluster.running(n).expect("it runs").engines;
    let range = engines.kv.range(&engines.data[0], &Default::default());
    let pairs = range.expect("a sound disk").map(|pair| {
        let (key, value) = pair.expect("a sound disk");
        (key, value.to_vec())
    });
    pairs.collect()
}

#[test]
fn every_store_has_the_same_after_ranges_were_deleted_and_entries_applied_again() {
    for flushed_after in 0..4 {
        let mut cluster = Cluster::new(3, 3, |_| {});
        cluster.lead(0);
        let mut model: Pairs = (0..40u8).map(|key| (vec![key], vec![1])).collect();
        for key in model.keys() {
            assert!(cluster.put(0, key, &[1]).is_done());
        }
        let flush = |cluster: &Cluster, at: u32| {
            if at == flushed_after {
                let store = cluster.running(2).expect("it runs");
                store.engines.flush_kv().expect("a sound disk");
            }
        };
        cluster.ticks(4);
        flush(&cluster, 0);
        // In one command: what stands before the range goes with it, what stands behind it stays.
        let asked = cluster.ask(
            0,
            command(vec![
                put(&[11], &[2]),
                range(&[10], &[20]),
                put(&[15], &[3]),
                get(&[11]),
                get(&[15]),
            ]),
        );
        cluster.ticks(4);
        let [Ok(answer)] = &asked.get()[..] else {
            panic!("{:?}", asked.get());
        };
        let value = |at: usize| answer.responses[at].get.clone().unwrap_or_default().value;
        assert_eq!((&value(3)[..], &value(4)[..]), (&[][..], &[3][..]));
        model.retain(|key, _| !(10..20).contains(&key[0]));
        model.insert(vec![15], vec![3]);
        flush(&cluster, 1);
        assert!(cluster.put(0, &[12], &[4]).is_done());
        model.insert(vec![12], vec![4]);
        cluster.ticks(4);
        flush(&cluster, 2);
        // The last key that there can be goes too.
        assert!(cluster.put(0, &[u8::MAX; MAX_KEY_LEN], &[9]).is_done());
        let asked = cluster.ask(0, command(vec![range(&[30], &[])]));
        assert!(asked.is_done());
        model.retain(|key, _| key[0] < 30);
        assert!(cluster.put(0, &[35], &[5]).is_done());
        model.insert(vec![35], vec![5]);
        cluster.ticks(4);

        // One loses what it has not flushed, and applies it again.
        let left = cluster.nodes[2].fs.crash(Survival::LoseUnsynced);
        cluster.nodes[2].running = None;
        cluster.nodes[2].fs = left;
        cluster.start(2);
        cluster.ticks(40);
        for n in 0..3 {
            assert_eq!(pairs(&cluster, n), model, "store {n}, {flushed_after}");
        }
    }
}

#[test]
fn a_range_with_a_key_that_is_too_long_is_refused_before_it_is_in_the_log() {
    let mut cluster = Cluster::new(1, 1, |_| {});
    cluster.lead(0);
    let long = vec![1; MAX_KEY_LEN + 1];
    for wrong in [range(&long, b""), range(b"a", &long)] {
        let asked = cluster.ask(0, command(vec![wrong]));
        let [Err(CommandError::Invalid(what))] = &asked.get()[..] else {
            panic!("{:?}", asked.get());
        };
        assert!(what.contains("limit"), "{what}");
    }
    assert!(cluster.put(0, b"k", b"v").is_done());
}
