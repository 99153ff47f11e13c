//! The JSON of the status address: what the web page shows, under `/api/v1/`, and profiles under `/debug/`.
//!
//! ```text
//! request --> Access: whose page asks, who asks, from where --> a handler over what the server has in memory
//! ```
//! Promises: `docs/status-api.md` names every path and field; fields are added, never renamed; answers come from memory, but
//! for the key browser (which reads this store's own copy) and `/api/v1/cluster` (which asks the other stores, at most once
//! a second for all who look); each answer is bounded. Nothing is changed by any of it.
//!
//! Not here: the page itself (`web`), probes and metrics (`status_pages`).

pub mod access;
mod cluster;
mod engine;
mod keys;
mod memory;
mod profile;
mod words;

use std::{sync::Arc, time::Instant};

use axum::{
    Router,
    extract::{RawQuery, State as Shared},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use tokio::sync::{Mutex, Semaphore};

use self::{
    access::{Access, Ask, Refused, Remote},
    cluster::Survey,
    words::Word,
};
use crate::{
    config::live::Live,
    insight::{MAX_SAMPLES, MAX_SLOW, SAMPLE_INTERVAL, SlowRequest, now_ms, rates::Sample},
    logging::recent,
    metrics::Metrics,
    replicated::Cluster,
    state::{ServerState, mode_word, state_word},
    storage::Storage,
};

/// Key browsers at work at a time; others wait.
const MAX_BROWSING: usize = 2;

/// What the handlers stand on.
pub struct Parts {
    /// The facts of the server.
    pub state: Arc<ServerState>,
    /// Its counters.
    pub metrics: Arc<Metrics>,
    /// Its data.
    pub storage: Arc<dyn Storage>,
    /// Absent in a standalone server.
    pub cluster: Option<Arc<Cluster>>,
    /// Its settings.
    pub live: Arc<Live>,
    /// Who may look.
    pub access: Access,
}

struct Api {
    parts: Parts,
    /// What the last look at the cluster came to, and when.
    survey: Mutex<Option<(Instant, Arc<Survey>)>>,
    browsing: Arc<Semaphore>,
    profiling: Arc<Semaphore>,
}

/// An answer in JSON.
struct Json<T>(T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        let mut text = serde_json::to_string(&self.0).expect("plain structs of text and numbers");
        text.push('\n');
        let kind = (header::CONTENT_TYPE, "application/json");
        ([kind, (header::CACHE_CONTROL, "no-store")], text).into_response()
    }
}

type Asked = Shared<Arc<Api>>;
type Answer<T> = Result<Json<T>, Refused>;

/// The paths below `/api/v1/` and `/debug/`.
pub fn router(parts: Parts) -> Router {
    let api = Api {
        parts,
        survey: Mutex::new(None),
        browsing: Arc::new(Semaphore::new(MAX_BROWSING)),
        profiling: Arc::new(Semaphore::new(1)),
    };
    Router::new()
        .route("/api/v1/overview", get(overview))
        .route("/api/v1/cluster", get(whole_cluster))
        .route("/api/v1/engine", get(engines))
        .route("/api/v1/rates", get(rates))
        .route("/api/v1/slow", get(slow))
        .route("/api/v1/log", get(log))
        .route("/api/v1/config", get(config))
        .route("/api/v1/keys", get(keys))
        .route("/api/v1/memory", get(heap))
        .route("/debug/heap", get(heap))
        .route("/debug/profile", get(cpu_profile))
        .with_state(Arc::new(api))
}

/// The values of a query, each decoded.
struct Query(Vec<(String, String)>);

impl Query {
    fn of(raw: Option<&str>) -> Self {
        let pairs = raw.unwrap_or_default().split('&');
        let pairs = pairs.filter_map(|pair| pair.split_once('='));
        Self(
            pairs
                .map(|(name, value)| (decode(name), decode(value)))
                .collect(),
        )
    }

    fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(one, _)| one == name);
        found.map(|(_, value)| value.as_str())
    }

    /// A number, `default` where there is none.
    fn number(&self, name: &str, default: u64) -> Result<u64, Refused> {
        let Some(text) = self.get(name) else {
            return Ok(default);
        };
        let parsed = text.parse();
        parsed.map_err(|_| Refused::wrong(format!("{name} is a number, not {text:?}")))
    }
}

/// Undoes percent-encoding; what is none stays.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let encoded = match (first, after) {
            (b'%', [high, low, ..]) => std::str::from_utf8(&[*high, *low])
                .ok()
                .and_then(|pair| u8::from_str_radix(pair, 16).ok()),
            _ => None,
        };
        bytes.push(match encoded {
            Some(byte) => byte,
            None if *first == b'+' => b' ',
            None => *first,
        });
        rest = &after[if encoded.is_some() { 2 } else { 0 }..];
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Api {
    /// Lets a request in, or does not.
    fn admit(
        &self,
        remote: &Remote,
        headers: &HeaderMap,
        ask: Ask,
    ) -> Result<access::Caller, Refused> {
        self.parts.access.admit(remote, headers, ask)
    }

    /// The cluster as it was at most a second ago.
    async fn survey(&self) -> Arc<Survey> {
        let mut kept = self.survey.lock().await;
        if let Some((at, survey)) = &*kept
            && at.elapsed() < SAMPLE_INTERVAL
        {
            return Arc::clone(survey);
        }
        let own = self.parts.state.status().await;
        let others = match &self.parts.cluster {
            Some(cluster) => cluster.survey().await,
            None => Vec::new(),
        };
        let survey = Arc::new(Survey::of(&own, &others));
        *kept = Some((Instant::now(), Arc::clone(&survey)));
        survey
    }
}

#[derive(Serialize)]
struct Check {
    name: &'static str,
    /// Null where all is well.
    wrong: Option<String>,
}

#[derive(Serialize)]
struct Overview {
    version: String,
    mode: &'static str,
    state: &'static str,
    reason: Option<String>,
    uptime_seconds: u64,
    now_ms: u64,
    store_id: Option<u64>,
    cluster_id: Option<String>,
    cluster_name: Option<String>,
    leads: Option<usize>,
    regions: usize,
    requests_in_flight: i64,
    connections: i64,
    data_bytes: u64,
    memtable_bytes: u64,
    browse: &'static str,
    /// What would be lost now.
    health: Vec<Word>,
    checks: Vec<Check>,
    /// The last second.
    last: Option<Sample>,
}

async fn overview(Shared(api): Asked, remote: Remote, headers: HeaderMap) -> Answer<Overview> {
    api.admit(&remote, &headers, Ask::Look)?;
    let parts = &api.parts;
    let status = parts.state.status().await;
    let checks = parts.state.checks().await.into_iter();
    let survey = api.survey().await;
    let in_flight = parts.metrics.in_flight.get();
    let health = words::health(&status, &survey, in_flight);
    let identity = parts.cluster.as_ref().map(|cluster| cluster.identity());
    let (mut data_bytes, mut memtable_bytes) = (0, 0);
    parts.storage.engines(&mut |view| {
        for family in view.db.stats().families {
            data_bytes += family.levels.iter().map(|level| level.bytes).sum::<u64>();
            data_bytes += family.values.bytes;
            memtable_bytes += (family.memtable_bytes + family.immutable_bytes) as u64;
        }
    });
    let last = parts.metrics.insight.samples_after(0).pop();
    let leads = status.regions.iter().filter(|one| one.role == "leader");
    Ok(Json(Overview {
        mode: mode_word(status.mode()),
        state: state_word(status.state()),
        uptime_seconds: status.uptime_seconds,
        now_ms: now_ms(),
        store_id: identity.as_ref().map(|own| own.store_id),
        cluster_id: identity
            .as_ref()
            .map(|own| format!("{:016x}", own.cluster_id)),
        cluster_name: identity.map(|own| own.cluster_name),
        leads: parts.cluster.is_some().then(|| leads.count()),
        regions: status.regions.len(),
        requests_in_flight: in_flight,
        connections: parts.metrics.connections.get(),
        data_bytes,
        memtable_bytes,
        browse: parts.live.config().browse.word(),
        health,
        checks: checks.map(|(name, wrong)| Check { name, wrong }).collect(),
        last,
        reason: Some(status.reason).filter(|reason| !reason.is_empty()),
        version: status.version,
    }))
}

async fn whole_cluster(
    Shared(api): Asked,
    remote: Remote,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    api.admit(&remote, &headers, Ask::Look)?;
    Ok(Json(&*api.survey().await).into_response())
}

async fn engines(
    Shared(api): Asked,
    remote: Remote,
    headers: HeaderMap,
) -> Answer<engine::Engines> {
    api.admit(&remote, &headers, Ask::Look)?;
    Ok(Json(engine::look(&*api.parts.storage)))
}

#[derive(Serialize)]
struct Rates {
    interval_ms: u128,
    kept: usize,
    samples: Vec<Sample>,
}

async fn rates(
    Shared(api): Asked,
    remote: Remote,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Answer<Rates> {
    api.admit(&remote, &headers, Ask::Look)?;
    let after = Query::of(query.as_deref()).number("after", 0)?;
    Ok(Json(Rates {
        interval_ms: SAMPLE_INTERVAL.as_millis(),
        kept: MAX_SAMPLES,
        samples: api.parts.metrics.insight.samples_after(after),
    }))
}

#[derive(Serialize)]
struct Slow {
    threshold_ms: u128,
    /// Since the start.
    seen: u64,
    kept: usize,
    /// The newest first.
    requests: Vec<SlowRequest>,
}

async fn slow(Shared(api): Asked, remote: Remote, headers: HeaderMap) -> Answer<Slow> {
    api.admit(&remote, &headers, Ask::Look)?;
    let config = api.parts.live.config();
    let (seen, requests) = api.parts.metrics.insight.slow();
    Ok(Json(Slow {
        threshold_ms: config.limits.budgets.slow_time.as_millis(),
        seen,
        kept: MAX_SLOW,
        requests,
    }))
}

#[derive(Serialize)]
struct Log {
    /// What is logged, from the least important on.
    level: String,
    kept: usize,
    lines: Vec<recent::Line>,
}

async fn log(
    Shared(api): Asked,
    remote: Remote,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Answer<Log> {
    api.admit(&remote, &headers, Ask::Settings)?;
    let after = Query::of(query.as_deref()).number("after", 0)?;
    Ok(Json(Log {
        level: api.parts.live.config().log_level.to_string(),
        kept: recent::MAX_LINES,
        lines: recent::after(after),
    }))
}

#[derive(Serialize)]
struct SettingJson {
    name: &'static str,
    group: &'static str,
    value: String,
    default: &'static str,
    origin: String,
    online: bool,
    range: String,
    variable: String,
    meaning: &'static str,
}

#[derive(Serialize)]
struct Settings {
    settings: Vec<SettingJson>,
}

async fn config(Shared(api): Asked, remote: Remote, headers: HeaderMap) -> Answer<Settings> {
    api.admit(&remote, &headers, Ask::Settings)?;
    let settings = api.parts.live.settings().into_iter();
    let settings = settings.map(|(setting, value, origin)| SettingJson {
        name: setting.name,
        group: setting.group.title(),
        value,
        default: setting.default,
        origin: origin.to_string(),
        online: setting.online,
        range: setting.kind.describe(),
        variable: setting.variable(),
        meaning: setting.meaning,
    });
    Ok(Json(Settings {
        settings: settings.collect(),
    }))
}

async fn keys(
    Shared(api): Asked,
    remote: Remote,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Answer<keys::Page> {
    let caller = api.admit(&remote, &headers, Ask::Keys)?;
    let browse = api.parts.live.config().browse;
    let wanted = keys::Wanted::of(&Query::of(query.as_deref()), browse, &caller)?;
    let turn = Arc::clone(&api.browsing).acquire_owned().await;
    let storage = Arc::clone(&api.parts.storage);
    let reading = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        keys::read(&*storage, &wanted)
    });
    let read = reading.await.map_err(|_| Refused::defect())?;
    read.map(Json)
}

async fn heap(Shared(api): Asked, remote: Remote, headers: HeaderMap) -> Answer<memory::Memory> {
    api.admit(&remote, &headers, Ask::Look)?;
    let storage = Arc::clone(&api.parts.storage);
    // The kernel walks over the maps of the process for it.
    let looking = tokio::task::spawn_blocking(move || memory::look(&*storage));
    looking.await.map(Json).map_err(|_| Refused::defect())
}

async fn cpu_profile(
    Shared(api): Asked,
    remote: Remote,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Refused> {
    api.admit(&remote, &headers, Ask::Debug)?;
    let query = Query::of(query.as_deref());
    let wanted = profile::Wanted::of(&query)?;
    let Ok(turn) = Arc::clone(&api.profiling).try_acquire_owned() else {
        let why = "a profile is being taken; one at a time".to_owned();
        return Err(Refused::new(StatusCode::TOO_MANY_REQUESTS, why));
    };
    let taking = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        profile::take(wanted)
    });
    let (kind, text) = taking.await.map_err(|_| Refused::defect())??;
    let csp = "default-src 'none'";
    Ok((
        [
            (header::CONTENT_TYPE, kind),
            (header::CONTENT_SECURITY_POLICY, csp),
        ],
        text,
    )
        .into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded() {
        let query = Query::of(Some("a=%41%20b+c&b=7&=x&flag&c=%zz%4"));
        assert_eq!(query.get("a"), Some("A b c"));
        assert_eq!(query.number("b", 1).ok(), Some(7));
        assert_eq!(query.number("none", 1).ok(), Some(1));
        assert!(query.number("a", 1).is_err());
        assert_eq!(query.get("c"), Some("%zz%4"));
        assert_eq!(query.get("flag"), None);
    }
}
