//! `basalt put | get | delete | delete-range`.

use std::{
    fs,
    io::{self, IsTerminal as _, Read as _},
};

use basalt_client::{Client, KeyRange};
use clap::Args;
use serde_json::json;

use super::{
    Done, Failure, ServerAddr, TextArgs,
    client::block_on,
    confirm,
    output::{Output, OutputArgs},
    print,
    text::{self, Format},
};
use crate::limits::MAX_VALUE_LEN;

/// What every command on keys takes.
#[derive(Debug, Args)]
pub(super) struct Common {
    #[command(flatten)]
    addr: ServerAddr,
    /// Column family: default, write or lock
    #[arg(long, value_name = "NAME", default_value = "default")]
    cf: String,
    #[command(flatten)]
    text: TextArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl Common {
    /// A client of the family that is meant.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        Ok(self.addr.get()?.client()?.family(&self.cf))
    }

    pub(super) fn cf(&self) -> &str {
        &self.cf
    }

    pub(super) fn parse(&self, text: &str) -> Result<Vec<u8>, Failure> {
        self.text.parse(text)
    }

    pub(super) fn format(&self) -> Format {
        self.text.format()
    }

    pub(super) fn open(&self) -> Output {
        self.output.open()
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  basalt put hello world
  basalt put --escaped 'k\\x00' '\\xff\\n'
  basalt put photo --value-file cat.jpg
  date | basalt put now --value-file -")]
pub(super) struct PutArgs {
    /// The key
    #[arg(allow_negative_numbers = true)]
    key: String,
    /// The value
    #[arg(allow_negative_numbers = true, required_unless_present = "value_file")]
    value: Option<String>,
    /// Take the value as it is from a file; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "value")]
    value_file: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  basalt get hello
  basalt get hello --json
  basalt get photo > cat.jpg         the bytes as they are, and a line end")]
pub(super) struct GetArgs {
    /// The key
    #[arg(allow_negative_numbers = true)]
    key: String,
    /// Without the line end behind the value
    #[arg(long)]
    exact: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  basalt delete hello
  basalt delete '\\:user\\x00'           a key that is no text, as it is shown")]
pub(super) struct DeleteArgs {
    /// The key
    #[arg(allow_negative_numbers = true)]
    key: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  basalt delete-range --prefix user/7/
  basalt delete-range a b --yes        from a on, b stays
  basalt delete-range z --to-end       from z to the last key")]
pub(super) struct DeleteRangeArgs {
    /// First key that goes
    #[arg(
        allow_negative_numbers = true,
        required_unless_present = "prefix",
        conflicts_with = "prefix"
    )]
    start: Option<String>,
    /// First key that stays
    #[arg(allow_negative_numbers = true, conflicts_with = "to_end")]
    end: Option<String>,
    /// Every key that begins so
    #[arg(long, value_name = "KEY")]
    prefix: Option<String>,
    /// Up to the last key there is
    #[arg(long, conflicts_with = "prefix")]
    to_end: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    common: Common,
}

pub(super) fn put(args: &PutArgs) -> Done {
    let common = &args.common;
    let key = common.parse(&args.key)?;
    let value = match (&args.value, &args.value_file) {
        (Some(value), _) => common.parse(value)?,
        (None, Some(file)) => read_value(file)?,
        (None, None) => return Err(Failure::usage("a put has a value")),
    };
    let client = common.client()?;
    block_on(async { Ok(client.put(key, value).await?) })?;
    common.open().done(json!({}), "ok")
}

/// The bytes of a file, or of standard input.
fn read_value(file: &str) -> Result<Vec<u8>, Failure> {
    let failed = |error: io::Error| Failure::usage(format!("cannot read {file}: {error}"));
    let mut value = Vec::new();
    let limit = MAX_VALUE_LEN as u64 + 1;
    match file {
        "-" => io::stdin().lock().take(limit).read_to_end(&mut value),
        _ => fs::File::open(file)
            .map_err(failed)?
            .take(limit)
            .read_to_end(&mut value),
    }
    .map_err(failed)?;
    if value.len() > MAX_VALUE_LEN {
        let text = format!("{file} has more than the {MAX_VALUE_LEN} bytes of a value");
        return Err(Failure::usage(text));
    }
    Ok(value)
}

pub(super) fn delete(args: &DeleteArgs) -> Done {
    let common = &args.common;
    let key = common.parse(&args.key)?;
    let client = common.client()?;
    block_on(async { Ok(client.delete(key).await?) })?;
    common.open().done(json!({}), "ok")
}

pub(super) fn get(args: &GetArgs) -> Done {
    let common = &args.common;
    let key = common.parse(&args.key)?;
    let client = common.client()?;
    let value = block_on(async { Ok(client.get(key).await?) })?;
    let output = common.open();
    let Some(value) = value else {
        if output.is_json() {
            output.json(&json!({ "found": false }))?;
        } else if io::stderr().is_terminal() {
            return Err(Failure {
                text: "the key is not there".to_owned(),
                ..Failure::not_found()
            });
        }
        return Err(Failure::not_found());
    };
    if output.is_json() {
        let (name, value) = text::field("value", common.format(), &value);
        return output.json(&json!({ "found": true, name: value }));
    }
    let mut line = match common.format() {
        Format::Text if !output.is_terminal() => value.to_vec(),
        format => text::show(format, &value).into_bytes(),
    };
    if !args.exact {
        line.push(b'\n');
    }
    print(&line)
}

pub(super) fn delete_range(args: &DeleteRangeArgs) -> Done {
    let common = &args.common;
    let parse = |text: &Option<String>| text.as_deref().map(|text| common.parse(text)).transpose();
    let (start, end, prefix) = (parse(&args.start)?, parse(&args.end)?, parse(&args.prefix)?);
    let range = match (prefix, start, end) {
        (Some(prefix), ..) => KeyRange::prefix(prefix),
        (None, Some(start), Some(end)) => {
            // An empty end would be none.
            if end <= start {
                return Err(Failure::usage(
                    "no key is behind the first and before the second",
                ));
            }
            KeyRange::between(start, end)
        }
        (None, Some(start), None) if args.to_end => KeyRange::from(start),
        _ => {
            let text = "a range has an end; to delete up to the last key, say --to-end";
            return Err(Failure::usage(text));
        }
    };
    let client = common.client()?;
    let shown = |key: &[u8]| text::shown(common.format(), key);
    let what = match range.end.is_empty() {
        true => format!("from {} to the last", shown(&range.start)),
        false => format!("from {} up to {}", shown(&range.start), shown(&range.end)),
    };
    let cf = common.cf();
    if !args.yes {
        let counted = range.clone();
        let count = block_on(async { Ok(client.count(counted).await?) })?;
        let keys = if count == 1 { "key" } else { "keys" };
        confirm(
            false,
            &format!("delete {count} {keys} of family {cf}, {what}"),
        )?;
    }
    // A connection belongs to the runtime that it was made on.
    let client = common.client()?;
    block_on(async { Ok(client.delete_range(range).await?) })?;
    common.open().done(
        json!({}),
        &format!("deleted the keys of family {cf} {what}"),
    )
}
