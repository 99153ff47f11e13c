//! `Cluster`: stores whose loops move only when a test says so; messages arrive at once, or never.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use basalt_engine::executor::Executor as _;
use basalt_proto::{
    metapb::{Peer, Region, RegionEpoch},
    raft_cmdpb::{
        AdminCmdType, AdminRequest, ChangePeerRequest, CmdType, GetRequest, PutRequest,
        RaftCmdRequest, RaftCmdResponse, RaftRequestHeader, Request, TransferLeaderRequest,
    },
    raft_serverpb::RaftMessage,
};
use basalt_raft::eraftpb::{ConfChangeType, ConfState, Message, MessageType};
use basalt_raftstore::{
    Callback, CommandError, Membership, RegionStatus, StoreConfig, snapshot::Incoming,
};

use super::node::{Node, Outgoing, Running, peer};

/// Whether a message is lost.
type Loses = Box<dyn Fn(&RaftMessage) -> bool>;

/// What became of a command.
#[derive(Clone, Default)]
pub(crate) struct Answer(Arc<Mutex<Vec<Result<RaftCmdResponse, CommandError>>>>);

impl Answer {
    pub(crate) fn get(&self) -> Vec<Result<RaftCmdResponse, CommandError>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self.get()[..], [Ok(_)])
    }
}

pub(crate) struct Cluster {
    now: Arc<AtomicU64>,
    pub(crate) nodes: Vec<Node>,
    config: StoreConfig,
    founders: u64,
    net: VecDeque<RaftMessage>,
    loses: Loses,
    /// The store whose apply loop stands still.
    pub(crate) no_apply: Option<usize>,
    /// The store whose maker of snapshots does.
    pub(crate) no_work: Option<usize>,
    /// The store that takes no snapshot.
    pub(crate) no_room: Option<usize>,
    /// The store whose disk does not answer.
    pub(crate) no_disk: Option<usize>,
    pub(crate) snapshots_sent: u64,
    pub(crate) questions: u64,
}

impl Cluster {
    pub(crate) fn new(stores: u64, founders: u64, tune: impl FnOnce(&mut StoreConfig)) -> Self {
        let now = Arc::new(AtomicU64::new(0));
        let mut config = StoreConfig::new(1);
        config.election_ticks = 10;
        // When entries are applied is for the test to say.
        config.apply_on_loop = false;
        // And when the disk answers.
        config.sync_on_loop = false;
        tune(&mut config);
        let mut cluster = Self {
            nodes: (1..=stores).map(|id| Node::new(id, &now, 1_000)).collect(),
            now,
            config,
            founders,
            net: VecDeque::new(),
            loses: Box::new(|_| false),
            no_apply: None,
            no_work: None,
            no_room: None,
            no_disk: None,
            snapshots_sent: 0,
            questions: 0,
        };
        for n in 0..cluster.nodes.len() {
            cluster.start(n);
        }
        cluster
    }

    /// Starts a store with what its disk has.
    pub(crate) fn start(&mut self, n: usize) {
        let ids: Vec<u64> = (1..=self.founders).collect();
        let founding = Membership {
            region: Region {
                id: 1,
                region_epoch: Some(RegionEpoch {
                    conf_ver: 1,
                    version: 1,
                }),
                peers: ids.iter().map(|id| peer(*id, *id)).collect(),
                ..Region::default()
            },
            conf_state: ConfState {
                nodes: ids,
                ..ConfState::default()
            },
        };
        let store_id = self.nodes[n].id;
        let config = StoreConfig {
            store_id,
            seed: store_id,
            ..self.config.clone()
        };
        let founding = (store_id <= self.founders).then_some(&founding);
        self.nodes[n]
            .start(config, founding, 5)
            .expect("a sound disk");
    }

    /// Messages of which `loses` says so are lost from now on.
    pub(crate) fn lose(&mut self, loses: impl Fn(&RaftMessage) -> bool + 'static) {
        self.loses = Box::new(loses);
    }

    /// Lets everything happen that waits for nothing but its turn.
    pub(crate) fn settle(&mut self) {
        for _ in 0..1_000 {
            let mut rests = true;
            for n in 0..self.nodes.len() {
                let (applies, works) = (self.no_apply != Some(n), self.no_work != Some(n));
                if let Some(running) = &mut self.nodes[n].running {
                    rests &= !step(running, applies, works);
                    while self.no_disk != Some(n) && running.executor.queued() > 0 {
                        running.executor.help();
                        rests = false;
                    }
                }
                let outgoing = self.running(n).map(Running::take_outgoing);
                for outgoing in outgoing.into_iter().flatten() {
                    rests = false;
                    match outgoing {
                        Outgoing::Message(message) => self.net.push_back(message),
                        Outgoing::Question(message) => self.answer(n, &message),
                        Outgoing::Snapshot(message) => self.carry_snapshot(n, message),
                    }
                }
            }
            while let Some(message) = self.net.pop_front() {
                if !(self.loses)(&message)
                    && let Some(to) = self.running(place(message.to_peer))
                {
                    assert!(to.handle.raft_message(message), "there is room");
                }
            }
            if rests {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    /// Says whether there is room for a snapshot; the question arrives where a heartbeat would.
    fn answer(&mut self, from: usize, message: &RaftMessage) {
        self.questions += 1;
        let mut heartbeat = message.clone();
        if let Some(inner) = &mut heartbeat.message {
            inner.msg_type = MessageType::MsgHeartbeat.into();
        }
        let to = place(message.to_peer);
        let receiver = self.running(to).filter(|_| !(self.loses)(&heartbeat));
        let region_id = message.region_id;
        let granted = self.no_room != Some(to)
            && receiver.is_some_and(|to| to.snapshots.room_for(region_id).is_ok());
        let peer_id = message.to_peer.map_or(0, |peer| peer.id);
        let sender = self.running(from).expect("it asks");
        sender.handle.room(region_id, peer_id, granted);
    }

    fn carry_snapshot(&mut self, from: usize, message: RaftMessage) {
        let inner = message.message.as_ref();
        let snapshot = inner.and_then(|inner| inner.snapshot.as_deref().cloned());
        let snapshot = snapshot.expect("one is in it");
        let peer_id = message.to_peer.map_or(0, |peer| peer.id);
        let sender = self.running(from).expect("it sends");
        let receiver = self.running(place(message.to_peer));
        let arrived = receiver
            .filter(|_| !(self.loses)(&message))
            .is_some_and(|to| {
                let Ok(chunks) = sender.snapshots.chunks(&snapshot) else {
                    return false;
                };
                match to.snapshots.receive(&message) {
                    Ok(Incoming::Present) => true,
                    Ok(Incoming::Wanted(mut wanted)) => {
                        for chunk in chunks {
                            wanted
                                .push(&chunk.expect("a sound disk"))
                                .expect("a sound disk");
                        }
                        wanted.finish().is_ok()
                    }
                    Err(_) => false,
                }
            });
        sender
            .handle
            .snapshot_sent(message.region_id, peer_id, arrived);
        if arrived {
            self.snapshots_sent += 1;
            self.net.push_back(message);
        }
    }

    /// So many ticks, and what follows from each.
    pub(crate) fn ticks(&mut self, count: u64) {
        let tick = u64::try_from(self.config.tick.as_nanos()).unwrap_or(u64::MAX);
        for _ in 0..count {
            self.now.fetch_add(tick, Ordering::Relaxed);
            for node in &mut self.nodes {
                if let Some(running) = &mut node.running {
                    running.store.turn();
                }
            }
            self.settle();
        }
    }

    pub(crate) fn running(&self, n: usize) -> Option<&Running> {
        self.nodes[n].running.as_deref()
    }

    /// The region as a store tells it; `None` where it has no peer.
    pub(crate) fn region(&self, n: usize) -> Option<RegionStatus> {
        self.running(n)?.store.status().regions.into_iter().next()
    }

    pub(crate) fn leader(&self) -> Option<usize> {
        let leads = |n: &usize| {
            self.region(*n)
                .is_some_and(|region| region.role == "leader")
        };
        let leaders = (0..self.nodes.len()).filter(leads);
        leaders.max_by_key(|n| self.region(*n).map(|region| region.term))
    }

    /// Makes a store the leader, and lets it apply everything.
    pub(crate) fn lead(&mut self, n: usize) {
        for _ in 0..200 {
            self.ticks(3);
            let (Some(leader), Some(region)) = (self.leader(), self.region(n)) else {
                continue;
            };
            if leader == n && region.applied == region.last_index {
                return;
            }
            if leader != n {
                let admin = AdminRequest {
                    cmd_type: AdminCmdType::TransferLeader.into(),
                    transfer_leader: Some(TransferLeaderRequest {
                        peer: Some(region.peer),
                    }),
                    ..AdminRequest::default()
                };
                self.admin(leader, admin);
            }
        }
        panic!("it does not come to lead");
    }

    pub(crate) fn ask(&mut self, n: usize, request: RaftCmdRequest) -> Answer {
        let answer = self.propose(n, request);
        self.settle();
        answer
    }

    /// Asks, and lets nothing happen yet.
    pub(crate) fn propose(&mut self, n: usize, request: RaftCmdRequest) -> Answer {
        let answer = Answer::default();
        let told = answer.clone();
        let callback = Callback::new(move |result| {
            told.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(result);
        });
        let running = self.running(n).expect("it runs");
        running
            .handle
            .propose(request, Duration::from_secs(5), callback);
        answer
    }

    fn admin(&mut self, n: usize, admin: AdminRequest) -> Answer {
        let region = self.region(n).expect("it has a peer");
        let request = RaftCmdRequest {
            header: Some(RaftRequestHeader {
                region_id: region.region.id,
                region_epoch: region.region.region_epoch,
                ..RaftRequestHeader::default()
            }),
            admin_request: Some(admin),
            ..RaftCmdRequest::default()
        };
        self.ask(n, request)
    }

    /// Asks for one member more or less.
    pub(crate) fn change(&mut self, n: usize, kind: ConfChangeType, target: Peer) -> Answer {
        let admin = AdminRequest {
            cmd_type: AdminCmdType::ChangePeer.into(),
            change_peer: Some(ChangePeerRequest {
                change_type: kind.into(),
                peer: Some(target),
            }),
            ..AdminRequest::default()
        };
        self.admin(n, admin)
    }

    pub(crate) fn put(&mut self, n: usize, key: &[u8], value: &[u8]) -> Answer {
        self.ask(n, one_put(key, value))
    }
}

/// A command of one put.
pub(crate) fn one_put(key: &[u8], value: &[u8]) -> RaftCmdRequest {
    RaftCmdRequest {
        requests: vec![put(key, value)],
        ..RaftCmdRequest::default()
    }
}

pub(crate) fn kind(message: &RaftMessage) -> MessageType {
    let inner = message.message.as_ref();
    inner.map_or(MessageType::MsgHup, Message::msg_type)
}

pub(crate) fn put(key: &[u8], value: &[u8]) -> Request {
    Request {
        cmd_type: CmdType::Put.into(),
        put: Some(PutRequest {
            key: key.to_vec().into(),
            value: value.to_vec().into(),
            ..PutRequest::default()
        }),
        ..Request::default()
    }
}

pub(crate) fn get(key: &[u8]) -> Request {
    Request {
        cmd_type: CmdType::Get.into(),
        get: Some(GetRequest {
            key: key.to_vec().into(),
            ..GetRequest::default()
        }),
        ..Request::default()
    }
}

/// A turn of each loop that has something to do; whether any had.
fn step(running: &mut Running, applies: bool, works: bool) -> bool {
    let mut moved = false;
    if !running.store.inbox().is_empty() || running.store.wants_turn() {
        running.store.turn();
        moved = true;
    }
    if applies && !running.applier.inbox().is_empty() {
        running.applier.turn();
        moved = true;
    }
    if works && !running.workers.snapshots.inbox().is_empty() {
        running.workers.snapshots.turn();
        moved = true;
    }
    if !running.workers.flushes.inbox().is_empty() {
        running.workers.flushes.turn();
        moved = true;
    }
    moved
}

/// The place of a peer's store.
fn place(peer: Option<Peer>) -> usize {
    let store_id = peer.map_or(1, |peer| peer.store_id);
    usize::try_from(store_id).map_or(0, |id| id - 1)
}
