//! `basalt status | flush | compact`.

use std::fmt::Write as _;

use basalt_proto::basaltpb::{
    CompactRequest, EngineStatus, FlushRequest, RegionStatus, StatusRequest, StatusResponse,
    work_event::Event,
};
use clap::Args;
use serde_json::json;

use super::{
    Done, Failure, ServerAddr, TextArgs,
    client::{Server, block_on},
    output::{OutputArgs, size},
    print,
    progress::{ProgressArgs, Unit},
};
use crate::state::{StatusJson, mode_word, state_word};

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    addr: ServerAddr,
    /// Print JSON, as the page /status
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct FlushArgs {
    #[command(flatten)]
    addr: ServerAddr,
    /// Column family [default: all of them]
    #[arg(long, value_name = "NAME")]
    cf: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct CompactArgs {
    #[command(flatten)]
    addr: ServerAddr,
    /// Column family
    #[arg(long, value_name = "NAME", default_value = "default")]
    cf: String,
    /// First key, inclusive [default: the first there is]
    #[arg(long, value_name = "KEY")]
    start: Option<String>,
    /// First key not compacted [default: none]
    #[arg(long, value_name = "KEY")]
    end: Option<String>,
    #[command(flatten)]
    text: TextArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    progress: ProgressArgs,
}

pub(super) fn status(args: &StatusArgs) -> Done {
    let target = args.addr.get()?;
    let (addr, status) = block_on(async {
        let server = Server::connect_any(&target).await?;
        let status = server.ask(server.admin().status(StatusRequest {})).await?;
        Ok((server.addr().to_owned(), status))
    })?;
    if args.json {
        let json = serde_json::to_string(&StatusJson::from(status));
        return print(format!("{}\n", json.expect("plain structs of text and numbers")).as_bytes());
    }
    print(table(&addr, &status).as_bytes())
}

pub(super) fn flush(args: &FlushArgs) -> Done {
    block_on(async {
        let server = Server::connect_any(&args.addr.get()?).await?;
        let request = FlushRequest {
            cf: args.cf.clone().unwrap_or_default(),
        };
        // It takes as long as it takes.
        server.answer(server.admin().flush(request).await).map(drop)
    })?;
    let facts = json!({ "cf": args.cf });
    args.output
        .open()
        .done(facts, "memtables are written to tables")
}

pub(super) fn compact(args: &CompactArgs) -> Done {
    let start_key = args
        .text
        .parse(args.start.as_deref().unwrap_or_default())?
        .into();
    let end_key = args
        .text
        .parse(args.end.as_deref().unwrap_or_default())?
        .into();
    let work = args.progress.begin("compact", Unit::Bytes);
    block_on(async {
        let server = Server::connect_any(&args.addr.get()?).await?;
        let request = CompactRequest {
            cf: args.cf.clone(),
            start_key,
            end_key,
        };
        let mut events = server.answer(server.admin().compact_watched(request).await)?;
        loop {
            let message = events.message().await.map(tonic::Response::new);
            match server.answer(message)?.and_then(|event| event.event) {
                Some(Event::Step(step)) => work.at(&step.what, step.done, step.total),
                Some(Event::Done(_)) => return Ok(()),
                None => {
                    let text = format!("{} broke the compaction off", server.addr());
                    return Err(Failure::world(text));
                }
            }
        }
    })?;
    work.done();
    args.output
        .open()
        .done(json!({ "cf": args.cf }), "compacted")
}

/// A status for a person: a word and its value a line, then the levels of each column family.
pub(super) fn table(addr: &str, status: &StatusResponse) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(text, "{name:<10} {value}");
        }
    };
    line("server", addr);
    line("version", &status.version);
    line("mode", mode_word(status.mode()));
    line("state", state_word(status.state()));
    line("reason", &status.reason);
    line("uptime", &format!("{} s", status.uptime_seconds));
    if status.store_id != 0 {
        line("store", &status.store_id.to_string());
        line("cluster", &format!("{:016x}", status.cluster_id));
    }
    let engines = status.engine.as_ref();
    for (name, engine) in [
        ("kv", engines.and_then(|engines| engines.kv.as_ref())),
        ("raft", engines.and_then(|engines| engines.raft.as_ref())),
    ] {
        if let Some(engine) = engine {
            put_engine(&mut text, name, engine);
        }
    }
    for region in &status.regions {
        put_region(&mut text, region);
    }
    text
}

/// How a region fares on one store.
pub(super) fn put_region(text: &mut String, status: &RegionStatus) {
    let region = status.region.clone().unwrap_or_default();
    let leader = match status.leader {
        Some(leader) => format!("led by store {}", leader.store_id),
        None => "without a leader".to_owned(),
    };
    let learner = if status.is_learner { ", learner" } else { "" };
    let _ = writeln!(
        text,
        "\nregion {}: {}{learner} of term {}, {leader}",
        region.id, status.role, status.term
    );
    let _ = writeln!(
        text,
        "{:<10} committed {}, applied {} (durable up to {}), last {}",
        "log", status.committed, status.applied, status.flushed_applied, status.last_index
    );
    let _ = writeln!(
        text,
        "{:<10} {}, truncated {}, may be deleted up to {}",
        "",
        size(status.log_bytes),
        status.truncated,
        status.flushed_truncated
    );
    if let Some(snapshot) = &status.last_snapshot {
        let to = snapshot.to.map(|to| format!(" to store {}", to.store_id));
        let _ = writeln!(
            text,
            "{:<10} {}{} at index {}, {}, {} s ago",
            "snapshot",
            snapshot.what,
            to.unwrap_or_default(),
            snapshot.index,
            size(snapshot.bytes),
            snapshot.age_seconds
        );
    }
    for follower in &status.followers {
        let peer = follower.peer.unwrap_or_default();
        let _ = writeln!(
            text,
            "{:<10} store {}: {} behind, {}{}{}",
            "follower",
            peer.store_id,
            status.last_index.saturating_sub(follower.matched),
            follower.state,
            if follower.is_learner { ", learner" } else { "" },
            if follower.active {
                ""
            } else {
                ", not heard from"
            },
        );
    }
    for reason in &status.reasons {
        let _ = writeln!(text, "{:<10} {reason}", "attention");
    }
}

pub(super) fn put_engine(text: &mut String, name: &str, engine: &EngineStatus) {
    let _ = writeln!(
        text,
        "\nengine {name}: sequence {}, synced {}",
        engine.last_seq, engine.synced_seq
    );
    if !engine.stall_reason.is_empty() {
        let _ = writeln!(text, "writes are slowed: {}", engine.stall_reason);
    }
    for family in &engine.column_families {
        let _ = writeln!(
            text,
            "{:<10} memtables {}, waiting for flush {}",
            family.name,
            size(family.memtable_bytes),
            family.immutable_memtable_count
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
    }
}
