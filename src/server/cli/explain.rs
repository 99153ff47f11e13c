//! `basalt explain KEY`: where a get looks, and what it finds there: in a running server, or in a closed directory.

use std::{fmt::Write as _, path::PathBuf};

use basalt_engine::{Db, Options, ReadOptions};
use basalt_proto::basaltpb::{ExplainRequest, ExplainResponse, ExplainStep};
use clap::Args;
use serde_json::{Value, json};

use super::{
    Done, Failure, ServerAddr, TextArgs,
    client::{Server, block_on},
    output::{OutputArgs, size},
    text,
};
use crate::{
    service::explained,
    storage::{data_dir, explain_open, family},
};

const EXAMPLES: &str = "\
Examples:
  basalt explain user:42                     what a get of it does on a server
  basalt explain user:42 --cf write --json
  basalt explain user:42 --path DATA         in a directory that no server has open";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ExplainArgs {
    /// The key
    #[arg(value_name = "KEY")]
    key: String,
    /// Column family
    #[arg(long, value_name = "NAME", default_value = "default")]
    cf: String,
    /// Data directory of a stopped server, or directory of an engine
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    #[command(flatten)]
    text: TextArgs,
    #[command(flatten)]
    addr: ServerAddr,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) fn run(args: &ExplainArgs) -> Done {
    let key = args.text.parse(&args.key)?;
    let response = match &args.path {
        Some(path) => here(path, &args.cf, &key)?,
        None => {
            let request = ExplainRequest {
                cf: args.cf.clone(),
                key: key.clone().into(),
            };
            let target = args.addr.get()?;
            block_on(async {
                let server = Server::connect_any(&target).await?;
                server.ask(server.admin().explain(request)).await
            })?
        }
    };
    let (name, shown) = text::field("key", args.text.format(), &key);
    let json = json!({
        name: shown, "cf": args.cf, "outcome": response.outcome, "seq": response.seq,
        "value_bytes": response.value_len, "steps": response.steps.iter().map(step_json).collect::<Vec<_>>(),
    });
    args.output.open().document(&json, || as_text(&response))
}

/// In a directory that no server has open.
fn here(path: &std::path::Path, cf: &str, key: &[u8]) -> Result<ExplainResponse, Failure> {
    let dirs = data_dir::locate(path).map_err(Failure::world)?;
    let engine = dirs
        .first()
        .ok_or_else(|| Failure::world("there is no engine"))?;
    let db = Db::open_read_only(engine, Options::default());
    let db = db.map_err(|error| Failure::world(explain_open(&error)))?;
    let world = |error: basalt_engine::Error| Failure::world(error.to_string());
    // A store of a cluster has the families of users under a prefix.
    let found = family(cf)
        .ok()
        .and_then(|name| db.cf(&format!("data-{name}")).ok());
    let found = match found {
        Some(found) => found,
        None => db.cf(cf).map_err(world)?,
    };
    let explanation = db
        .explain(&found, key, &ReadOptions::default())
        .map_err(world)?;
    Ok(explained(&explanation))
}

fn step_json(step: &ExplainStep) -> Value {
    let word = |word: &str| Some(word.to_owned()).filter(|word| !word.is_empty());
    let is_table = step.place == "table";
    json!({
        "place": step.place,
        "level": is_table.then_some(step.level), "table": is_table.then_some(step.number),
        "filter": word(&step.filter), "block": word(&step.block), "block_bytes": step.block_bytes,
        "range_delete_seq": Some(step.range_delete_seq).filter(|seq| *seq != 0),
        "met": word(&step.met), "seq": Some(step.seq).filter(|seq| *seq != 0), "value_bytes": step.value_len,
    })
}

pub(super) fn as_text(response: &ExplainResponse) -> String {
    let mut text = String::new();
    for step in &response.steps {
        let place = match &*step.place {
            "table" => format!("L{} table {:06}", step.level, step.number),
            "frozen memtable" => format!("frozen memtable {}", step.number),
            place => place.to_owned(),
        };
        let mut says = Vec::new();
        match &*step.filter {
            "no" => says.push("filter says no".to_owned()),
            "perhaps" => says.push("filter says perhaps".to_owned()),
            _ => {}
        }
        let bytes = size(step.block_bytes);
        match &*step.block {
            "map" => says.push(format!("block of {bytes} in the map of its file")),
            "cache" => says.push(format!("block of {bytes} in the cache")),
            "file" => says.push(format!("block of {bytes} read")),
            _ => {}
        }
        if step.range_delete_seq != 0 {
            says.push(format!("range delete {}", step.range_delete_seq));
        }
        match &*step.met {
            "value" => says.push(format!("value {} of {}", step.seq, size(step.value_len))),
            "delete" => says.push(format!("delete {}", step.seq)),
            _ if says.is_empty() => says.push("nothing".to_owned()),
            _ => {}
        }
        let _ = writeln!(text, "{place:<18} {}", says.join(", "));
    }
    let end = match &*response.outcome {
        "found" => format!("found, {}", size(response.value_len)),
        "deleted" => "absent: a delete ends the search".to_owned(),
        "range deleted" => "absent: under a range delete".to_owned(),
        "expired" => "absent: past its time".to_owned(),
        _ => "absent: in no place".to_owned(),
    };
    let _ = writeln!(text, "{end} (at sequence number {})", response.seq);
    text
}
