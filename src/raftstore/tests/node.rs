//! A store on real threads: it ends when it is told to, whatever has become of its loops.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use basalt_engine::{Db, Options, executor::ThreadPool, fs::SimFs};
use basalt_proto::{
    metapb::{Peer, Region, RegionEpoch},
    raft_serverpb::{RaftMessage, StoreIdent},
};
use basalt_raft::eraftpb::ConfState;
use basalt_raftstore::{
    Callback, Clock, CommandError, Engines, Membership, Node, Parts, StoreConfig, StoreStatus,
    Transport, bootstrap, snapshot::SnapshotStore,
};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct RealClock(Instant);

impl Clock for RealClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Nobody else is there.
struct Alone;

impl Transport for Alone {
    fn send(&mut self, _: RaftMessage) {}
    fn ask_for_room(&mut self, _: RaftMessage) {}
    fn send_snapshot(&mut self, _: RaftMessage) {}
    fn flush(&mut self) {}
}

fn parts() -> Parts {
    let (fs, pool) = (SimFs::new(), Arc::new(ThreadPool::new(2)));
    let open = |path| {
        let options = Options {
            reserve_bytes: 0,
            ..Options::with(fs.clone(), pool.clone())
        };
        Db::open(path, options).expect("a sound disk")
    };
    let engines = Engines::new(open("/kv"), open("/raft")).expect("a sound disk");
    let founding = Membership {
        region: Region {
            id: 1,
            region_epoch: Some(RegionEpoch {
                conf_ver: 1,
                version: 1,
            }),
            peers: vec![Peer { id: 1, store_id: 1 }],
            ..Region::default()
        },
        conf_state: ConfState {
            nodes: vec![1],
            ..ConfState::default()
        },
    };
    let ident = StoreIdent {
        cluster_id: 7,
        store_id: 1,
    };
    bootstrap(&engines, &ident, Some(&founding)).expect("a new store");
    let snapshots = SnapshotStore::open(fs, "/snap", engines.clone());
    Parts {
        config: StoreConfig {
            freshly_formatted: true,
            ..StoreConfig::new(1)
        },
        engines,
        clock: Arc::new(RealClock(Instant::now())),
        transport: Box::new(Alone),
        snapshots: Arc::new(snapshots.expect("a sound disk")),
        logger: None,
    }
}

fn start() -> Node {
    Node::start(parts()).expect("a bootstrapped store")
}

fn status(node: &Node) -> Result<StoreStatus, CommandError> {
    let (tell, told) = mpsc::channel();
    node.handle().status(Callback::new(move |status| {
        // Whoever asked may have gone.
        let _ = tell.send(status);
    }));
    told.recv_timeout(PATIENCE).expect("an answer")
}

fn stop(node: Node) {
    let (tell, told) = mpsc::channel();
    let stopping = thread::spawn(move || {
        node.stop();
        tell.send(()).expect("somebody waits");
    });
    told.recv_timeout(PATIENCE).expect("it ends");
    stopping.join().expect("it has ended");
}

#[test]
fn a_store_that_is_told_to_stop_ends() {
    let node = start();
    assert_eq!(status(&node).map(|status| status.store_id), Ok(1));
    let handle = node.handle();
    stop(node);
    let (tell, told) = mpsc::channel();
    handle.status(Callback::new(move |status| {
        tell.send(status).expect("it waits");
    }));
    assert!(matches!(told.recv(), Ok(Err(CommandError::Fenced(_)))));
}

#[test]
fn a_store_whose_loop_has_panicked_says_so_and_ends() {
    let node = start();
    let defect = Callback::new(|_| panic!("a defect on purpose"));
    node.handle().status(defect);
    let began = Instant::now();
    while node.fenced().is_none() && began.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(1));
    }
    let why = node.fenced().unwrap_or_default();
    assert!(why.contains("a defect on purpose"), "{why}");
    assert!(matches!(status(&node), Err(CommandError::Fenced(_))));
    stop(node);
}

#[test]
fn a_store_loop_that_is_dropped_leaves_nobody_waiting() {
    let (node, mut store_loop) = Node::start_but_store_loop(parts()).expect("a bootstrapped store");
    let woken = Arc::new(AtomicBool::new(false));
    let wake = Arc::clone(&woken);
    store_loop.on_work(move || wake.store(true, Ordering::Relaxed));
    let rest = store_loop.turn().expect("it goes on");
    assert!(rest > Duration::ZERO);
    let (tell, told) = mpsc::channel();
    node.handle().status(Callback::new(move |status| {
        tell.send(status).expect("it waits");
    }));
    assert!(woken.load(Ordering::Relaxed));
    drop(store_loop);
    assert!(told.recv().expect("an answer").is_err());
    assert!(status(&node).is_err());
    stop(node);
}
