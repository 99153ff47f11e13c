//! What a server is and how it fares: one set of facts for gRPC, HTTP and the command line.

use std::{fmt, sync::Arc, time::Instant};

use basalt_proto::basaltpb::{EngineStatus, Engines, Mode, State, StatusResponse};
use serde::Serialize;

use crate::{service::admission::Admission, storage::Storage};

/// Version of this server.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The facts of one running server.
pub struct ServerState {
    storage: Arc<dyn Storage>,
    admission: Arc<Admission>,
    began: Instant,
}

impl ServerState {
    /// The facts of a server that begins now.
    #[must_use]
    pub fn new(storage: Arc<dyn Storage>, admission: Arc<Admission>) -> Self {
        Self {
            storage,
            admission,
            began: Instant::now(),
        }
    }

    /// The facts of this moment.
    #[must_use]
    pub fn status(&self) -> StatusResponse {
        let storage = self.storage.status();
        let (state, reason) = match storage.read_only {
            _ if self.admission.is_draining() => {
                (State::Draining, "the server was told to stop".to_owned())
            }
            Some(cause) => (State::ReadOnly, cause),
            None => (State::Serving, String::new()),
        };
        StatusResponse {
            version: VERSION.to_owned(),
            mode: Mode::Standalone.into(),
            state: state.into(),
            reason,
            uptime_seconds: self.began.elapsed().as_secs(),
            engine: Some(Engines {
                kv: Some(storage.kv),
                raft: None,
            }),
        }
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
    regions: Vec<()>,
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
            regions: Vec::new(),
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
