//! What a server is and how it fares: one set of facts for gRPC, HTTP and the command line.

use std::{
    fmt::{self, Write as _},
    sync::Arc,
    time::Instant,
};

use basalt_proto::{
    basaltpb::{
        EngineStatus, Engines, FollowerStatus, LastSnapshot, Mode, RegionStatus, State,
        StatsResponse, StatusResponse,
    },
    metapb::Peer,
};
use prometheus_client::metrics::gauge::Gauge;
use serde::Serialize;

use crate::{replicated::Cluster, service::admission::Admission, storage::Storage, tls::Tls};

/// Version of this server.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The facts of one running server.
pub struct ServerState {
    storage: Arc<dyn Storage>,
    /// Absent in a standalone server.
    cluster: Option<Arc<Cluster>>,
    admission: Arc<Admission>,
    /// Absent where plain text is served.
    tls: Option<Arc<Tls>>,
    began: Instant,
}

impl ServerState {
    /// The facts of a server that begins now.
    #[must_use]
    pub fn new(
        storage: Arc<dyn Storage>,
        cluster: Option<Arc<Cluster>>,
        admission: Arc<Admission>,
        tls: Option<Arc<Tls>>,
    ) -> Self {
        Self {
            storage,
            cluster,
            admission,
            tls,
            began: Instant::now(),
        }
    }

    /// What has to be right for requests to be served, each by its name, and what is wrong with it, if so.
    pub async fn checks(&self) -> Vec<(&'static str, Option<String>)> {
        let storage = self.storage.status();
        let draining = self.admission.is_draining();
        let draining = draining.then(|| "the server was told to stop".to_owned());
        let certificate = self.tls.as_ref().and_then(|tls| tls.expired());
        let mut checks = vec![
            ("started", storage.starting),
            ("not-draining", draining),
            ("not-fenced", storage.fenced),
            ("writable", storage.read_only),
            ("certificate", certificate),
        ];
        if let Some(cluster) = &self.cluster {
            let regions = cluster.status().await.map(|status| status.regions);
            let without = regions.as_ref().and_then(|regions| {
                let lost = regions.iter().find(|region| region.leader.is_none())?;
                Some(format!("region {} knows no leader", lost.region.id))
            });
            checks.push(("leader", without));
            let answers = regions.is_none() && checks.iter().all(|(_, wrong)| wrong.is_none());
            let silent = "the store loop does not answer".to_owned();
            checks.push(("store-loop", answers.then_some(silent)));
        }
        checks
    }

    /// True once the server was told to stop.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.admission.is_draining()
    }

    /// What its methods have counted.
    #[must_use]
    pub fn stats(&self) -> StatsResponse {
        let metrics = self.admission.metrics();
        let gauge = |gauge: &Gauge| u64::try_from(gauge.get()).unwrap_or(0);
        StatsResponse {
            methods: metrics.methods(),
            uptime_ms: u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            in_flight: gauge(&metrics.in_flight),
            connections: gauge(&metrics.connections),
            ..StatsResponse::default()
        }
    }

    /// The facts of this moment.
    pub async fn status(&self) -> StatusResponse {
        let storage = self.storage.status();
        let (state, reason) = match (storage.fenced, storage.starting, storage.read_only) {
            (Some(cause), ..) => (State::Fenced, cause),
            _ if self.admission.is_draining() => {
                (State::Draining, "the server was told to stop".to_owned())
            }
            (_, Some(what), _) => (State::Starting, what),
            (_, _, Some(cause)) => (State::ReadOnly, cause),
            _ => (State::Serving, String::new()),
        };
        let mut status = StatusResponse {
            version: VERSION.to_owned(),
            mode: Mode::Standalone.into(),
            state: state.into(),
            reason,
            uptime_seconds: self.began.elapsed().as_secs(),
            engine: Some(Engines {
                kv: Some(storage.kv),
                raft: storage.raft,
            }),
            ..StatusResponse::default()
        };
        if let Some(cluster) = &self.cluster {
            let identity = cluster.identity();
            status.set_mode(Mode::Replicated);
            status.store_id = identity.store_id;
            status.cluster_id = identity.cluster_id;
            let regions = cluster.status().await.map(|status| status.regions);
            let regions = regions.into_iter().flatten();
            status.regions = regions.map(region_status).collect();
        }
        status
    }
}

fn region_status(region: basalt_raftstore::RegionStatus) -> RegionStatus {
    let followers = region.followers.into_iter().map(|follower| FollowerStatus {
        peer: Some(follower.peer),
        matched: follower.matched,
        state: follower.state.to_owned(),
        active: follower.active,
        is_learner: follower.is_learner,
    });
    RegionStatus {
        region: Some(region.region),
        peer: Some(region.peer),
        leader: region.leader,
        role: region.role.to_owned(),
        is_learner: region.is_learner,
        term: region.term,
        committed: region.committed,
        applied: region.applied,
        flushed_truncated: region.flushed_truncated,
        truncated: region.truncated,
        last_index: region.last_index,
        log_bytes: region.log_bytes,
        followers: followers.collect(),
        reasons: region.reasons,
        flushed_applied: region.flushed_applied,
        last_snapshot: region.last_snapshot.map(|snapshot| LastSnapshot {
            what: snapshot.what.to_owned(),
            index: snapshot.index,
            bytes: snapshot.bytes,
            to: snapshot.to,
            age_seconds: snapshot.age.as_secs(),
        }),
    }
}

impl fmt::Debug for ServerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerState")
            .field("began", &self.began)
            .finish_non_exhaustive()
    }
}

/// The word for a mode, in JSON and on the command line.
#[must_use]
pub fn mode_word(mode: Mode) -> &'static str {
    match mode {
        Mode::Unspecified => "unknown",
        Mode::Standalone => "standalone",
        Mode::Replicated => "replicated",
    }
}

/// The word for a state, in JSON and on the command line.
#[must_use]
pub fn state_word(state: State) -> &'static str {
    match state {
        State::Unspecified => "unknown",
        State::Serving => "serving",
        State::Draining => "draining",
        State::ReadOnly => "read_only",
        State::Fenced => "fenced",
        State::Starting => "starting",
    }
}

/// The JSON of `/status` and of `basalt status --json`. Fields are added, never renamed.
#[derive(Debug, Serialize)]
pub struct StatusJson {
    version: String,
    mode: &'static str,
    state: &'static str,
    reason: Option<String>,
    uptime_seconds: u64,
    engine: EnginesJson,
    /// One entry a region; a standalone server has none.
    regions: Vec<RegionJson>,
    /// Null in a standalone server.
    store_id: Option<u64>,
    /// Sixteen hex digits; null in a standalone server.
    cluster_id: Option<String>,
}

/// A region with a peer on this store.
#[derive(Debug, Serialize)]
pub struct RegionJson {
    id: u64,
    /// Hex digits; empty: from the first key on.
    start_key: String,
    /// Hex digits; empty: to the last key.
    end_key: String,
    conf_ver: u64,
    version: u64,
    peers: Vec<PeerJson>,
    peer: PeerJson,
    leader: Option<PeerJson>,
    role: String,
    learner: bool,
    term: u64,
    committed: u64,
    applied: u64,
    truncated: u64,
    flushed_truncated: u64,
    last_index: u64,
    log_bytes: u64,
    followers: Vec<FollowerJson>,
    reasons: Vec<String>,
    flushed_applied: u64,
    /// Null where there was none since the store began.
    last_snapshot: Option<SnapshotJson>,
}

#[derive(Debug, Serialize)]
struct SnapshotJson {
    /// `made`, `sent` or `received`.
    what: String,
    index: u64,
    bytes: u64,
    /// To whom it was sent.
    to: Option<PeerJson>,
    age_seconds: u64,
}

#[derive(Debug, Serialize)]
struct PeerJson {
    id: u64,
    store_id: u64,
}

#[derive(Debug, Serialize)]
struct FollowerJson {
    id: u64,
    store_id: u64,
    matched: u64,
    /// Entries that the leader has and it is not known to have.
    lag: u64,
    state: String,
    active: bool,
    learner: bool,
}

impl From<Peer> for PeerJson {
    fn from(peer: Peer) -> Self {
        Self {
            id: peer.id,
            store_id: peer.store_id,
        }
    }
}

impl From<RegionStatus> for RegionJson {
    fn from(status: RegionStatus) -> Self {
        let region = status.region.unwrap_or_default();
        let epoch = region.region_epoch.unwrap_or_default();
        let last = status.last_index;
        let followers = status.followers.into_iter().map(|follower| {
            let peer = follower.peer.unwrap_or_default();
            FollowerJson {
                id: peer.id,
                store_id: peer.store_id,
                matched: follower.matched,
                lag: last.saturating_sub(follower.matched),
                state: follower.state,
                active: follower.active,
                learner: follower.is_learner,
            }
        });
        Self {
            id: region.id,
            start_key: hex(&region.start_key),
            end_key: hex(&region.end_key),
            conf_ver: epoch.conf_ver,
            version: epoch.version,
            peers: region.peers.into_iter().map(Into::into).collect(),
            peer: status.peer.unwrap_or_default().into(),
            leader: status.leader.map(Into::into),
            role: status.role,
            learner: status.is_learner,
            term: status.term,
            committed: status.committed,
            applied: status.applied,
            truncated: status.truncated,
            flushed_truncated: status.flushed_truncated,
            last_index: last,
            log_bytes: status.log_bytes,
            followers: followers.collect(),
            reasons: status.reasons,
            flushed_applied: status.flushed_applied,
            last_snapshot: status.last_snapshot.map(|snapshot| SnapshotJson {
                what: snapshot.what,
                index: snapshot.index,
                bytes: snapshot.bytes,
                to: snapshot.to.map(Into::into),
                age_seconds: snapshot.age_seconds,
            }),
        }
    }
}

/// Two hex digits a byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[derive(Debug, Serialize)]
struct EnginesJson {
    kv: Option<EngineJson>,
    raft: Option<EngineJson>,
}

#[derive(Debug, Serialize)]
struct EngineJson {
    last_seq: u64,
    synced_seq: u64,
    stall_reason: Option<String>,
    column_families: Vec<FamilyJson>,
}

#[derive(Debug, Serialize)]
struct FamilyJson {
    name: String,
    memtable_bytes: u64,
    immutable_memtable_count: u64,
    flushed_seq: u64,
    levels: Vec<LevelJson>,
}

#[derive(Debug, Serialize)]
struct LevelJson {
    level: u32,
    table_count: u64,
    table_bytes: u64,
}

impl From<StatusResponse> for StatusJson {
    fn from(status: StatusResponse) -> Self {
        let (mode, state) = (status.mode(), status.state());
        let engine = status.engine.unwrap_or_default();
        Self {
            version: status.version,
            mode: mode_word(mode),
            state: state_word(state),
            reason: present(status.reason),
            uptime_seconds: status.uptime_seconds,
            engine: EnginesJson {
                kv: engine.kv.map(Into::into),
                raft: engine.raft.map(Into::into),
            },
            regions: status.regions.into_iter().map(Into::into).collect(),
            store_id: Some(status.store_id).filter(|id| *id != 0),
            cluster_id: Some(status.cluster_id)
                .filter(|id| *id != 0)
                .map(|id| format!("{id:016x}")),
        }
    }
}

impl From<EngineStatus> for EngineJson {
    fn from(engine: EngineStatus) -> Self {
        let families = engine.column_families.into_iter().map(|family| FamilyJson {
            name: family.name,
            memtable_bytes: family.memtable_bytes,
            immutable_memtable_count: family.immutable_memtable_count,
            flushed_seq: family.flushed_seq,
            levels: family
                .levels
                .into_iter()
                .map(|level| LevelJson {
                    level: level.level,
                    table_count: level.table_count,
                    table_bytes: level.table_bytes,
                })
                .collect(),
        });
        Self {
            last_seq: engine.last_seq,
            synced_seq: engine.synced_seq,
            stall_reason: present(engine.stall_reason),
            column_families: families.collect(),
        }
    }
}

fn present(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}
