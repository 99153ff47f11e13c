//! `basalt stat | top | latency`: what engines hold and do, who is busy, and how long an answer takes.
//!
//! Promises: rates are of what was counted between two looks; a server that began again in between shows none.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use basalt_engine::{Db, Options};
use basalt_proto::{
    basaltpb::{EngineStats, FamilyFigures, Figure, StatsRequest, StatsResponse},
    kvrpcpb::RawGetRequest,
};
use clap::Args;
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::{
    Done, Failure, ServerAddr,
    client::{Server, block_on},
    output::{Cell, OutputArgs, size},
    progress::{ProgressArgs, Unit},
};
use crate::{
    service::engine_figures,
    storage::{data_dir, explain_open},
};

const STAT_EXAMPLES: &str = "\
Examples:
  basalt stat                        levels, memory, cache and stalls of a server
  basalt stat --watch                the same with rates, every two seconds
  basalt stat --path DATA --json     of a directory that no server has open

The figures are those of docs/metrics.md without `basalt_engine_`.";

#[derive(Debug, Args)]
#[command(after_help = STAT_EXAMPLES)]
pub(super) struct StatArgs {
    /// Data directory of a stopped server, or directory of an engine
    #[arg(long, value_name = "DIR", conflicts_with = "watch")]
    path: Option<PathBuf>,
    #[command(flatten)]
    watch: WatchArgs,
    #[command(flatten)]
    addr: ServerAddr,
    #[command(flatten)]
    output: OutputArgs,
}

/// Looking again and again.
#[derive(Debug, Args)]
struct WatchArgs {
    /// Look again until it is ended
    #[arg(long)]
    watch: bool,
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    /// End after so many looks
    #[arg(long, value_name = "LOOKS", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  basalt top                    methods and regions by what they do a second
  basalt top --count 1 --json   one look, for scripts")]
pub(super) struct TopArgs {
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    /// End after so many looks
    #[arg(long, value_name = "LOOKS", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    #[command(flatten)]
    addr: ServerAddr,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  basalt latency                  a thousand gets of a key that is not there, one after another
  basalt latency --count 100 --json")]
pub(super) struct LatencyArgs {
    /// How many requests
    #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    count: u64,
    #[command(flatten)]
    addr: ServerAddr,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    progress: ProgressArgs,
}

pub(super) fn stat(args: &StatArgs) -> Done {
    let output = args.output.open();
    if let Some(path) = &args.path {
        let engines = here(path)?;
        let stats = StatsResponse {
            engines,
            ..StatsResponse::default()
        };
        return output.document(&stat_json(&stats, None), || stat_text(&stats, None));
    }
    let target = args.addr.get()?;
    let interval = Duration::from_secs(args.watch.interval);
    let mut before: Option<StatsResponse> = None;
    let looks = args.watch.count.or((!args.watch.watch).then_some(1));
    for look in 0.. {
        if looks.is_some_and(|looks| look >= looks) {
            break;
        }
        if look > 0 {
            thread::sleep(interval);
        }
        let now = ask(&target)?;
        if output.is_terminal() && look > 0 {
            // To the upper left corner, and clear.
            super::print(b"\x1b[H\x1b[2J")?;
        }
        let since = before
            .as_ref()
            .filter(|before| before.uptime_ms < now.uptime_ms);
        output.document(&stat_json(&now, since), || stat_text(&now, since))?;
        before = Some(now);
    }
    Ok(())
}

fn ask(target: &super::client::Target) -> Result<StatsResponse, Failure> {
    block_on(async {
        let server = Server::connect_any(target).await?;
        server.ask(server.admin().stats(StatsRequest {})).await
    })
}

/// The engines of a directory that no server has open.
fn here(path: &std::path::Path) -> Result<Vec<EngineStats>, Failure> {
    let dirs = data_dir::locate(path).map_err(Failure::world)?;
    let names = ["kv", "raft"];
    dirs.iter()
        .zip(names)
        .map(|(dir, name)| {
            let db = Db::open_read_only(dir, Options::default());
            let db = db.map_err(|error| Failure::world(explain_open(&error)))?;
            Ok(engine_figures(name, &db.stats()))
        })
        .collect()
}

fn get(figures: &[Figure], name: &str) -> u64 {
    figures
        .iter()
        .find(|figure| figure.name == name)
        .map_or(0, |figure| figure.value)
}

/// How fast a counter of an engine grows, a second.
fn rate(now: u64, before: u64, millis: u64) -> f64 {
    tenths(now, before, millis) as f64 / 10.0
}

/// Ten times that, whole.
fn tenths(now: u64, before: u64, millis: u64) -> u64 {
    let grown = u128::from(now.saturating_sub(before)) * 10_000;
    u64::try_from(grown / u128::from(millis.max(1))).unwrap_or(u64::MAX)
}

/// Counters whose rates are shown.
const RATES: [&str; 7] = [
    "flushed_bytes",
    "compacted_read_bytes",
    "compacted_written_bytes",
    "cache_inserted_bytes",
    "stalls",
    "slowdowns",
    "syncs",
];

/// Counters of an engine, ten times what they grew by a second.
fn rates(
    now: &EngineStats,
    since: Option<&StatsResponse>,
    uptime: u64,
) -> Vec<(&'static str, u64)> {
    let Some(since) = since else {
        return Vec::new();
    };
    let Some(before) = since.engines.iter().find(|engine| engine.name == now.name) else {
        return Vec::new();
    };
    let millis = uptime - since.uptime_ms;
    let each = RATES.iter().map(|name| {
        let (now, before) = (get(&now.figures, name), get(&before.figures, name));
        (*name, tenths(now, before, millis))
    });
    each.collect()
}

fn figures_json(figures: &[Figure]) -> Map<String, Value> {
    let each = figures
        .iter()
        .map(|figure| (figure.name.clone(), json!(figure.value)));
    each.collect()
}

fn stat_json(stats: &StatsResponse, since: Option<&StatsResponse>) -> Value {
    let engines = stats.engines.iter().map(|engine| {
        let families = engine.families.iter().map(|family| {
            let mut object = figures_json(&family.figures);
            let levels = family.levels.iter().map(|level| {
                json!({ "level": level.level, "tables": level.table_count, "table_bytes": level.table_bytes })
            });
            object.insert("cf".into(), json!(shown(&family.name)));
            object.insert("levels".into(), levels.collect());
            object.insert("stall".into(), json!(word(&family.stall)));
            Value::Object(object)
        });
        let per_second: Map<_, _> = rates(engine, since, stats.uptime_ms)
            .into_iter()
            .map(|(name, tenths)| (name.to_owned(), json!(tenths as f64 / 10.0)))
            .collect();
        let mut object = figures_json(&engine.figures);
        object.insert("engine".into(), json!(engine.name));
        object.insert("families".into(), families.collect());
        object.insert("stall".into(), json!(word(&engine.stall)));
        object.insert("read_only".into(), json!(word(&engine.read_only)));
        object.insert("per_second".into(), per_second.into());
        Value::Object(object)
    });
    json!({
        "engines": engines.collect::<Vec<_>>(), "uptime_ms": stats.uptime_ms,
        "requests_in_flight": stats.in_flight, "connections": stats.connections,
    })
}

fn word(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// A family by the name that its users know.
fn shown(name: &str) -> &str {
    name.strip_prefix("data-").unwrap_or(name)
}

fn stat_text(stats: &StatsResponse, since: Option<&StatsResponse>) -> String {
    let mut text = String::new();
    for engine in &stats.engines {
        put_engine(&mut text, engine);
        let rates = rates(engine, since, stats.uptime_ms);
        if !rates.is_empty() {
            let shown = rates
                .iter()
                .map(|(name, tenths)| match name.strip_suffix("_bytes") {
                    Some(name) => format!("{name} {}", size(tenths / 10)),
                    None => format!("{name} {}.{}", tenths / 10, tenths % 10),
                });
            let _ = writeln!(
                text,
                "{:<10} {}",
                "a second",
                shown.collect::<Vec<_>>().join(", ")
            );
        }
    }
    text
}

fn put_engine(text: &mut String, engine: &EngineStats) {
    let of = |name: &str| get(&engine.figures, name);
    let bytes = |name: &str| size(of(name));
    let mut line = |name: &str, what: String| {
        let _ = writeln!(text, "{name:<10} {what}");
    };
    line(
        "engine",
        format!("{}, sequence {}", engine.name, of("last_sequence")),
    );
    if let Some(why) = word(&engine.read_only) {
        line("read-only", why.to_owned());
    }
    if let Some(why) = word(&engine.stall) {
        line("stalled", why.to_owned());
    }
    line(
        "memory",
        format!(
            "{} (memtables {}, cache {} of {}, open tables {}, pinned {})",
            bytes("memory_bytes"),
            bytes("memory_memtable_bytes"),
            bytes("cache_bytes"),
            bytes("cache_capacity_bytes"),
            bytes("memory_table_bytes"),
            bytes("memory_pinned_bytes"),
        ),
    );
    line(
        "log",
        format!(
            "{} in {} segments, {} held by readers alone",
            bytes("log_bytes"),
            of("log_segments"),
            bytes("log_pinned_bytes")
        ),
    );
    line(
        "flushed",
        format!(
            "{} in {} flushes; compactions read {} and wrote {}",
            bytes("flushed_bytes"),
            of("flushes"),
            bytes("compacted_read_bytes"),
            bytes("compacted_written_bytes")
        ),
    );
    line(
        "waited",
        format!(
            "{} stalls, {} slowdowns, {} ms",
            of("stalls"),
            of("slowdowns"),
            of("stalled_microseconds") / 1000
        ),
    );
    for family in &engine.families {
        put_family(text, family);
    }
}

fn put_family(text: &mut String, family: &FamilyFigures) {
    let of = |name: &str| get(&family.figures, name);
    let _ = writeln!(
        text,
        "{:<10} memtables {}, {} to compact, reads look at {} places",
        shown(&family.name),
        size(of("memtable_bytes")),
        size(of("pending_compaction_bytes")),
        of("read_amplification")
    );
    for level in family.levels.iter().filter(|level| level.table_count > 0) {
        let _ = writeln!(
            text,
            "{:<10} L{} {} tables, {}",
            "",
            level.level,
            level.table_count,
            size(level.table_bytes)
        );
    }
    if of("value_files") > 0 {
        let (all, live) = (of("value_bytes"), of("value_live_bytes"));
        let _ = writeln!(
            text,
            "{:<10} {} value files, {}, {} of it live",
            "",
            of("value_files"),
            size(all),
            size(live)
        );
    }
    if of("append_entries") > 0 {
        let _ = writeln!(
            text,
            "{:<10} {} entries in {} prefixes",
            "",
            of("append_entries"),
            of("append_prefixes")
        );
    }
    if let Some(why) = word(&family.stall) {
        let _ = writeln!(text, "{:<10} stalled: {why}", "");
    }
}

pub(super) fn top(args: &TopArgs) -> Done {
    let output = args.output.open();
    let target = args.addr.get()?;
    let mut before = ask(&target)?;
    for look in 1.. {
        thread::sleep(Duration::from_secs(args.interval));
        let now = ask(&target)?;
        if now.uptime_ms > before.uptime_ms {
            if output.is_terminal() && look > 1 {
                super::print(b"\x1b[H\x1b[2J")?;
            }
            let columns = [
                "what",
                "name",
                "per_second",
                "failures_per_second",
                "mean_us",
            ];
            output.table(&columns, &busiest(&before, &now), Some(1))?;
        }
        before = now;
        if args.count.is_some_and(|count| look >= count) {
            break;
        }
    }
    Ok(())
}

/// Methods and regions that did something, the busiest first.
fn busiest(before: &StatsResponse, now: &StatsResponse) -> Vec<Vec<Cell>> {
    let millis = now.uptime_ms - before.uptime_ms;
    let old: BTreeMap<_, _> = before
        .methods
        .iter()
        .map(|old| (&old.method, old))
        .collect();
    let mut rows = Vec::new();
    for method in &now.methods {
        let old = old.get(&method.method);
        let grown = |now: u64, of: fn(&basalt_proto::basaltpb::MethodStats) -> u64| {
            now.saturating_sub(old.map_or(0, |old| of(old)))
        };
        let requests = grown(method.requests, |old| old.requests);
        let failures = grown(method.failures, |old| old.failures);
        let micros = grown(method.micros, |old| old.micros);
        // Our own look is no load.
        if requests == 0 || (method.method == "Stats" && requests <= 1) {
            continue;
        }
        rows.push((
            rate(requests, 0, millis),
            vec![
                "method".into(),
                method.method.clone().into(),
                Cell::Real(rate(requests, 0, millis)),
                Cell::Real(rate(failures, 0, millis)),
                Cell::Number(micros / requests),
            ],
        ));
    }
    let old: BTreeMap<_, _> = before
        .regions
        .iter()
        .map(|old| (old.region_id, old.applied))
        .collect();
    for region in &now.regions {
        let applied = old
            .get(&region.region_id)
            .copied()
            .unwrap_or(region.applied);
        let applied = region.applied.saturating_sub(applied);
        if applied > 0 {
            let name = format!("{} (entries applied)", region.region_id);
            let rate = rate(applied, 0, millis);
            rows.push((
                rate,
                vec![
                    "region".into(),
                    name.into(),
                    Cell::Real(rate),
                    Cell::None,
                    Cell::None,
                ],
            ));
        }
    }
    rows.sort_by(|one, other| other.0.total_cmp(&one.0));
    rows.into_iter().map(|(_, row)| row).collect()
}

/// A key that nobody has, so that an answer is short whatever is stored.
const PROBE: &[u8] = b"\0basalt latency";

pub(super) fn latency(args: &LatencyArgs) -> Done {
    let target = args.addr.get()?;
    let work = args.progress.begin("latency", Unit::Items);
    let mut times = Histogram::<u64>::new(3).expect("three digits are allowed");
    let mut failures = 0_u64;
    let mut first_failure = None;
    let addr = block_on(async {
        let server = Server::connect_any(&target).await?;
        let mut tinykv = server.tinykv();
        for done in 0..args.count {
            let request = RawGetRequest {
                key: PROBE.into(),
                cf: "default".to_owned(),
                ..RawGetRequest::default()
            };
            let began = Instant::now();
            let answer = server.ask(tinykv.raw_get(request)).await;
            let took = began.elapsed();
            let refused = answer.and_then(|answer| match answer.region_error {
                None => Ok(()),
                Some(error) => Err(Failure::world(format!(
                    "{} does not serve the key: {}",
                    server.addr(),
                    error.message
                ))),
            });
            match refused {
                Ok(()) => {
                    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
                    times.saturating_record(micros.max(1));
                }
                Err(failure) => {
                    failures += 1;
                    first_failure.get_or_insert(failure);
                }
            }
            work.at("requests", done + 1, args.count);
        }
        Ok(server.addr().to_owned())
    })?;
    work.done();
    if let Some(failure) = first_failure.filter(|_| failures == args.count) {
        return Err(failure);
    }
    let at = |share: f64| times.value_at_quantile(share);
    let buckets = buckets(&times);
    let json = json!({
        "addr": addr, "requests": args.count, "failures": failures, "min_us": times.min(), "mean_us": times.mean().round(),
        "p50_us": at(0.5), "p90_us": at(0.9), "p99_us": at(0.99), "p999_us": at(0.999), "max_us": times.max(),
        "histogram": buckets.iter().map(|(below, count)| json!({ "below_us": below, "count": count })).collect::<Vec<_>>(),
    });
    args.output.open().document(&json, || {
        let mut text = format!(
            "{} requests to {addr}, {failures} failed: min {} us, p50 {}, p90 {}, p99 {}, p99.9 {}, max {}\n",
            args.count, times.min(), at(0.5), at(0.9), at(0.99), at(0.999), times.max()
        );
        let most = buckets.iter().map(|(_, count)| *count).max().unwrap_or(1).max(1);
        for (below, count) in &buckets {
            let bar = "#".repeat(usize::try_from(count * 40 / most).unwrap_or(0));
            let _ = writeln!(text, "{:>10} us {count:>9} {bar}", format!("< {below}"));
        }
        text
    })
}

/// Counts below each power of two, from the first to the last that has any.
fn buckets(times: &Histogram<u64>) -> Vec<(u64, u64)> {
    let mut buckets = Vec::new();
    let (mut low, mut below) = (0, 1_u64);
    while low <= times.max() && !times.is_empty() {
        let count = times.count_between(low, below - 1);
        if count > 0 || !buckets.is_empty() {
            buckets.push((below, count));
        }
        low = below;
        below = below.saturating_mul(2);
        if low == below {
            break;
        }
    }
    buckets
}

#[cfg(test)]
mod tests {
    use basalt_proto::basaltpb::{MethodStats, RegionRate};

    use super::*;

    #[test]
    fn the_busiest_come_first_and_those_at_rest_do_not_come() {
        let method = |name: &str, requests, failures, micros| MethodStats {
            method: name.to_owned(),
            requests,
            failures,
            micros,
        };
        let region = |applied| RegionRate {
            region_id: 7,
            applied,
            leader_store_id: 1,
        };
        let before = StatsResponse {
            uptime_ms: 1000,
            methods: vec![method("RawGet", 10, 0, 100), method("RawPut", 5, 0, 50)],
            regions: vec![region(100)],
            ..StatsResponse::default()
        };
        let now = StatsResponse {
            uptime_ms: 3000,
            methods: vec![
                method("RawGet", 30, 2, 500),
                method("RawPut", 5, 0, 50),
                method("Stats", 1, 0, 9),
            ],
            regions: vec![region(500)],
            ..StatsResponse::default()
        };
        let rows = busiest(&before, &now);
        let expected = [
            vec![
                "region".into(),
                "7 (entries applied)".into(),
                Cell::Real(200.0),
                Cell::None,
                Cell::None,
            ],
            vec![
                "method".into(),
                "RawGet".into(),
                Cell::Real(10.0),
                Cell::Real(1.0),
                Cell::Number(20),
            ],
        ];
        assert_eq!(rows, expected);
    }

    #[test]
    fn buckets_are_powers_of_two_and_hold_everything() {
        let mut times = Histogram::<u64>::new(3).unwrap();
        for micros in [3, 5, 6, 100] {
            times.record(micros).unwrap();
        }
        let buckets = buckets(&times);
        assert_eq!(buckets[0], (4, 1));
        assert_eq!(buckets[1], (8, 2));
        assert_eq!(buckets.last(), Some(&(128, 1)));
        assert_eq!(buckets.iter().map(|(_, count)| count).sum::<u64>(), 4);
    }
}
