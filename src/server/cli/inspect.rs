//! `basalt inspect FILE`: what one file of a store says, by its magic, whatever state it is in.
//!
//! Not here: how files are read (`basalt_engine::inspect`).

use std::{fmt::Write as _, path::PathBuf};

use basalt_engine::{
    fs::RealFs,
    inspect::{Fact, Facts, InspectOptions, Inspection, inspect_file},
};
use clap::Args;
use serde_json::{Map, Value, json};

use super::{
    Done, Failure,
    output::OutputArgs,
    text::{self, Format},
};

const EXAMPLES: &str = "\
Examples:
  basalt inspect DATA/kv/000012.sst                what a table is
  basalt inspect DATA/kv/000012.sst --records 10   and its first rows
  basalt inspect DATA/raft/000003.log --records 5 --json
  basalt inspect BACKUPS/BACKUP-000001

Log segments, tables, value files, manifests, MARK, CURRENT and BACKUP- files are known by their magic. What stands
behind the end of a log segment may be an unfinished write or a former life of the file; basalt check tells. Exit code 1
where a file breaks off.";

/// Most records that are shown.
const MAX_RECORDS: u64 = 1_000_000;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct InspectArgs {
    /// The file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Show the first so many records or rows
    #[arg(long, value_name = "COUNT", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=MAX_RECORDS))]
    records: u64,
    /// Most bytes of each value
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    value_bytes: usize,
    /// Keys and values as hex digits
    #[arg(long)]
    hex: bool,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) fn run(args: &InspectArgs) -> Done {
    let options = InspectOptions {
        records: usize::try_from(args.records).unwrap_or(usize::MAX),
        value_bytes: args.value_bytes,
    };
    let found = inspect_file(&RealFs, &args.file, options);
    let found = found.map_err(|error| Failure::world(error.to_string()))?;
    let format = if args.hex {
        Format::Hex
    } else {
        Format::Escaped
    };
    args.output
        .open()
        .document(&as_json(&found, format), || as_text(&found, format))?;
    match &found.broken {
        None => Ok(()),
        Some((offset, what)) => Err(Failure::world(format!(
            "{}: {what} (at offset {offset})",
            args.file.display()
        ))),
    }
}

fn shown(fact: &Fact, format: Format) -> String {
    match fact {
        Fact::Number(number) => number.to_string(),
        Fact::Id(id) => format!("{id:016x}"),
        Fact::Text(what) => text::harmless(what),
        Fact::Bytes(bytes) => text::show(format, bytes),
    }
}

/// Facts as fields; of those that come more than once, a list.
fn fields(facts: &Facts, format: Format) -> Map<String, Value> {
    let mut fields = Map::new();
    for (name, fact) in facts {
        let value = match fact {
            Fact::Number(number) => json!(number),
            fact => json!(shown(fact, format)),
        };
        match fields.get_mut(*name) {
            None => {
                fields.insert((*name).to_owned(), value);
            }
            Some(Value::Array(list)) => list.push(value),
            Some(first) => *first = json!([first.take(), value]),
        }
    }
    fields
}

fn as_json(found: &Inspection, format: Format) -> Value {
    let records = found.records.iter().map(|record| {
        let mut fields = fields(&record.facts, format);
        fields.insert("at".to_owned(), json!(record.at));
        Value::Object(fields)
    });
    let broken = found.broken.as_ref();
    json!({
        "type": found.file_type.word(), "file_bytes": found.bytes, "facts": fields(&found.facts, format),
        "record_count": found.record_count, "records": records.collect::<Vec<_>>(),
        "broken": broken.map(|(offset, what)| json!({ "offset": offset, "what": what })),
        "bytes_format": if format == Format::Hex { "hex" } else { "escaped" },
    })
}

fn as_text(found: &Inspection, format: Format) -> String {
    let mut text = format!(
        "{:<22} {}\n{:<22} {}\n",
        "type",
        found.file_type.word(),
        "file bytes",
        found.bytes
    );
    for (name, fact) in &found.facts {
        let _ = writeln!(
            text,
            "{:<22} {}",
            name.replace('_', " "),
            shown(fact, format)
        );
    }
    if found.record_count > 0 {
        let _ = writeln!(text, "{:<22} {}", "records", found.record_count);
    }
    for record in &found.records {
        let facts = record.facts.iter();
        let facts = facts.map(|(name, fact)| format!("{name}={}", shown(fact, format)));
        let _ = writeln!(
            text,
            "{:>8} {}",
            record.at,
            facts.collect::<Vec<_>>().join(" ")
        );
    }
    if let Some((offset, what)) = &found.broken {
        let _ = writeln!(text, "{:<22} at offset {offset}: {what}", "reading ended");
    }
    text
}
