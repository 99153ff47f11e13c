//! What the server counts, and the page that shows it in the text format of Prometheus.
//!
//! Every name begins with `basalt_`; units are in the names. Counters of requests are kept as they
//! happen; figures of the engine and of a replicated store (`store`) are taken when the page is asked for.
//! `/docs/metrics.md` has every name.
//!
//! Not here: the HTTP server (`status`), what the engine counts (`basalt_engine`).

mod store;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use basalt_engine::Stats;
use basalt_proto::basaltpb::{ColumnFamilyStatus, LevelStatus, MethodStats};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder, text::encode},
    metrics::{
        MetricType,
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};
use tonic::Code;

use self::store::{LoopCollector, PeerCollector};
use crate::{
    figures::{ENGINE, FAMILY},
    insight::Insight,
    replicated::Cluster,
    storage::{Storage, open_engines},
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabels {
    method: &'static str,
}

/// The counters of one server.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    latency: Family<MethodLabels, Histogram, fn() -> Histogram>,
    /// Requests being worked on.
    pub in_flight: Gauge,
    /// Open gRPC connections.
    pub connections: Gauge,
    /// Connections closed at once because there were too many.
    pub connections_refused: Counter,
    /// What is remembered of the last minutes.
    pub insight: Insight,
}

/// From 50 us to 26 s, each twice the one before.
fn latency_histogram() -> Histogram {
    Histogram::new(exponential_buckets(50e-6, 2.0, 20))
}

impl Metrics {
    /// The counters of a server over `storage`; the page shows the engine while it lives.
    #[must_use]
    pub fn new(storage: &Arc<dyn Storage>, cluster: Option<&Arc<Cluster>>) -> Self {
        let mut registry = Registry::with_prefix("basalt");
        let requests = Family::default();
        let latency: Family<_, _, fn() -> Histogram> =
            Family::new_with_constructor(latency_histogram as fn() -> Histogram);
        let in_flight = Gauge::default();
        let connections = Gauge::default();
        let connections_refused = Counter::default();
        registry.register(
            "requests",
            "Requests by method and gRPC code",
            requests.clone(),
        );
        registry.register_with_unit(
            "request_duration",
            "Time from the headers of a request to those of its answer",
            Unit::Seconds,
            latency.clone(),
        );
        registry.register(
            "requests_in_flight",
            "Requests being worked on",
            in_flight.clone(),
        );
        registry.register("connections", "Open gRPC connections", connections.clone());
        registry.register(
            "connections_refused",
            "Connections closed at once because there were too many",
            connections_refused.clone(),
        );
        registry.register_collector(Box::new(EngineCollector(Arc::downgrade(storage))));
        if let Some(cluster) = cluster {
            registry.register_collector(Box::new(PeerCollector(Arc::downgrade(cluster))));
            registry.register_collector(Box::new(LoopCollector(Arc::downgrade(cluster))));
        }
        Self {
            registry,
            requests,
            latency,
            in_flight,
            connections,
            connections_refused,
            insight: Insight::default(),
        }
    }

    /// Counts a request that was answered.
    pub fn on_request(&self, method: &'static str, code: Code, took: Duration) {
        self.insight.on_request(method, code == Code::Ok, took);
        self.requests
            .get_or_create(&RequestLabels {
                method,
                code: code_name(code),
            })
            .inc();
        self.latency
            .get_or_create(&MethodLabels { method })
            .observe(took.as_secs_f64());
    }

    /// What each method has counted, in the order of their names.
    ///
    /// Read from the page: the library gives sums of histograms to nothing else.
    #[must_use]
    pub fn methods(&self) -> Vec<MethodStats> {
        methods_of(&self.text())
    }

    /// The page.
    ///
    /// # Panics
    ///
    /// Never: a `String` takes everything.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a String takes everything");
        text
    }
}

/// The value of a label in a line of the page; ours need no quoting.
fn label<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(&format!("{name}=\""))?;
    Some(rest.split_once('"')?.0)
}

fn methods_of(page: &str) -> Vec<MethodStats> {
    let mut methods: BTreeMap<&str, MethodStats> = BTreeMap::new();
    for line in page.lines() {
        let Some((method, (_, value))) = label(line, "method").zip(line.rsplit_once(' ')) else {
            continue;
        };
        let stats = methods.entry(method).or_default();
        if line.starts_with("basalt_requests_total") {
            let count: u64 = value.parse().unwrap_or(0);
            stats.requests += count;
            if label(line, "code") != Some("OK") {
                stats.failures += count;
            }
        } else if line.starts_with("basalt_request_duration_seconds_sum") {
            let seconds: f64 = value.parse().unwrap_or(0.0);
            let time = Duration::try_from_secs_f64(seconds).unwrap_or_default();
            stats.micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        }
    }
    let named = methods.into_iter();
    named
        .map(|(method, stats)| MethodStats {
            method: method.to_owned(),
            ..stats
        })
        .collect()
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// The name of a code as the gRPC documents spell it.
#[must_use]
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// Shows a storage's status as gauges.
struct EngineCollector(Weak<dyn Storage>);

impl fmt::Debug for EngineCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EngineCollector")
    }
}

/// A gauge's value; the text format knows signed integers.
fn value(value: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}

/// Shows one number.
fn number(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, of: u64) -> fmt::Result {
    value(of).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

/// Shows one number for each set of labels.
fn numbers<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    of: impl IntoIterator<Item = (L, u64)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, one) in of {
        value(one).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

fn per_family(
    families: &[ColumnFamilyStatus],
    of: fn(&ColumnFamilyStatus) -> u64,
) -> impl Iterator<Item = ([(&'static str, String); 1], u64)> {
    families
        .iter()
        .map(move |family| ([("cf", family.name.clone())], of(family)))
}

fn per_level(
    families: &[ColumnFamilyStatus],
    of: fn(&LevelStatus) -> u64,
) -> impl Iterator<Item = ([(&'static str, String); 2], u64)> {
    families.iter().flat_map(move |family| {
        family.levels.iter().map(move |level| {
            (
                [
                    ("cf", family.name.clone()),
                    ("level", level.level.to_string()),
                ],
                of(level),
            )
        })
    })
}

impl Collector for EngineCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(storage) = self.0.upgrade() else {
            return Ok(());
        };
        let status = storage.status();
        let encoder = &mut encoder;
        let families = &status.kv.column_families;
        number(
            encoder,
            "engine_read_only",
            "1 while no write is taken",
            u64::from(status.read_only.is_some()),
        )?;
        number(
            encoder,
            "engine_stalled",
            "1 while writes are slowed or stopped",
            u64::from(!status.kv.stall_reason.is_empty()),
        )?;
        number(
            encoder,
            "engine_last_sequence",
            "Sequence number of the newest visible write",
            status.kv.last_seq,
        )?;
        number(
            encoder,
            "engine_synced_sequence",
            "Every logged write up to this sequence number survives power loss",
            status.kv.synced_seq,
        )?;
        numbers(
            encoder,
            "engine_memtable_bytes",
            "Bytes of memtables",
            per_family(families, |family| family.memtable_bytes),
        )?;
        numbers(
            encoder,
            "engine_immutable_memtables",
            "Memtables waiting for flush",
            per_family(families, |family| family.immutable_memtable_count),
        )?;
        numbers(
            encoder,
            "engine_tables",
            "Table files",
            per_level(families, |level| level.table_count),
        )?;
        numbers(
            encoder,
            "engine_table_bytes",
            "Bytes of table files",
            per_level(families, |level| level.table_bytes),
        )?;
        let engines = open_engines(&*storage);
        let stats: Vec<_> = engines
            .iter()
            .map(|engine| (engine.name, engine.db.stats()))
            .collect();
        put_engines(encoder, &stats)
    }
}

/// The figures of the table that engines and metrics share.
fn put_engines(encoder: &mut DescriptorEncoder<'_>, engines: &[(&str, Stats)]) -> fmt::Result {
    for shape in ENGINE {
        let name = format!("engine_{}", shape.name);
        let mut metric = encoder.encode_descriptor(&name, shape.help, None, kind(shape.counts))?;
        for (engine, stats) in engines {
            put(
                metric.encode_family(&[("engine", *engine)])?,
                shape.counts,
                (shape.of)(stats),
            )?;
        }
    }
    for shape in FAMILY {
        let name = format!("engine_{}", shape.name);
        let mut metric = encoder.encode_descriptor(&name, shape.help, None, kind(shape.counts))?;
        for (engine, stats) in engines {
            for family in &stats.families {
                // Users know theirs without the engine's prefix, as in the figures above.
                let cf = family.name.strip_prefix("data-").unwrap_or(&family.name);
                let labels = [("engine", *engine), ("cf", cf)];
                put(
                    metric.encode_family(&labels)?,
                    shape.counts,
                    (shape.of)(family),
                )?;
            }
        }
    }
    Ok(())
}

fn kind(counts: bool) -> MetricType {
    if counts {
        MetricType::Counter
    } else {
        MetricType::Gauge
    }
}

fn put(encoder: MetricEncoder<'_>, counts: bool, of: u64) -> fmt::Result {
    if counts {
        ConstCounter::new(of).encode(encoder)
    } else {
        value(of).encode(encoder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_read_from_the_page_as_they_were_counted() {
        let storage: Arc<dyn Storage> = Arc::new(crate::storage::MemStorage::new());
        let metrics = Metrics::new(&storage, None);
        metrics.on_request("RawGet", Code::Ok, Duration::from_millis(2));
        metrics.on_request("RawGet", Code::Unavailable, Duration::from_millis(3));
        metrics.on_request("Status", Code::Ok, Duration::from_millis(1));
        let told = |method: &str, requests, failures, micros| MethodStats {
            method: method.to_owned(),
            requests,
            failures,
            micros,
        };
        let expected = [told("RawGet", 2, 1, 5000), told("Status", 1, 0, 1000)];
        assert_eq!(metrics.methods(), expected);
    }
}
