//! `basalt scan`: the pairs of a range, from either end, with or without values, or only their number.
//!
//! Pages are asked for one after the other, each of one moment: what is written meanwhile is shown or not.
//! Where `--limit` ends a scan early, a token says where the next one goes on: the direction and a key in hex.

use std::io::Write as _;

use basalt_client::{KeyRange, Pair};
use clap::Args;
use serde_json::{Map, Value, json};

use super::{
    Done, Failure,
    client::block_on,
    kv::Common,
    output::Output,
    print,
    text::{self, Format},
};

/// Bytes of output that are gathered before they are written.
pub(super) const WRITE_LEN: usize = 64 << 10;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  basalt scan                          everything
  basalt scan --prefix user/ --keys-only
  basalt scan a --end b --limit 10     ten pairs from a on, before b
  basalt scan --reverse --limit 1      the last pair there is
  basalt scan --prefix user/ --count   how many there are")]
pub(super) struct ScanArgs {
    /// First key, inclusive; without it the first key there is
    #[arg(allow_negative_numbers = true)]
    start: Option<String>,
    /// First key behind the range
    #[arg(long, value_name = "KEY")]
    end: Option<String>,
    /// Only keys that begin so
    #[arg(long, value_name = "KEY", conflicts_with_all = ["start", "end"])]
    prefix: Option<String>,
    /// From the last key to the first
    #[arg(long)]
    reverse: bool,
    /// Keys without their values
    #[arg(long)]
    keys_only: bool,
    /// Only how many there are
    #[arg(long, conflicts_with_all = ["limit", "keys_only", "reverse", "token"])]
    count: bool,
    /// Most pairs to print [default: all of them]
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Go on where a scan of the same range ended that said so
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(args: &ScanArgs) -> Done {
    let common = &args.common;
    let output = common.open();
    let range = range(args)?;
    let client = common.client()?;
    if args.count {
        let count = block_on(async { Ok(client.count(range).await?) })?;
        return match output.is_json() {
            true => output.json(&json!({ "count": count })),
            false => print(format!("{count}\n").as_bytes()),
        };
    }
    let limit = args.limit.unwrap_or(u64::MAX);
    let lines = Lines {
        format: common.format(),
        keys_only: args.keys_only,
        output,
    };
    block_on(async {
        // One more than is printed says whether there is more.
        let mut scan = client
            .scan(range)
            .reverse(args.reverse)
            .keys_only(args.keys_only)
            .limit(if limit == 0 {
                0
            } else {
                limit.saturating_add(1)
            })
            .start();
        let mut text = Vec::new();
        let mut left = limit;
        let mut rest = scan.rest();
        loop {
            let Some(pair) = scan.next().await? else {
                return print(&text);
            };
            if left == 0 {
                break;
            }
            left -= 1;
            rest = scan.rest();
            lines.put(&mut text, &pair);
            if text.len() >= WRITE_LEN {
                print(&text)?;
                text.clear();
            }
        }
        print(&text)?;
        tell_more(args, &output, &rest)
    })
}

/// There is more than was wanted.
fn tell_more(args: &ScanArgs, output: &Output, rest: &KeyRange) -> Done {
    let token = match args.reverse {
        true => format!("r{}", text::hex(&rest.end)),
        false => format!("f{}", text::hex(&rest.start)),
    };
    if output.is_json() {
        return output.json(&json!({ "more": true, "token": token }));
    }
    if output.is_terminal() {
        // Nobody reads: then nobody goes on.
        let _ = writeln!(
            std::io::stderr(),
            "there is more; the same command goes on with --token {token}"
        );
    }
    Ok(())
}

fn range(args: &ScanArgs) -> Result<KeyRange, Failure> {
    let parse = |text: &Option<String>| {
        let parsed = text.as_deref().map(|text| args.common.parse(text));
        parsed.transpose().map(Option::unwrap_or_default)
    };
    let mut range = match &args.prefix {
        Some(_) => KeyRange::prefix(parse(&args.prefix)?),
        None => KeyRange::between(parse(&args.start)?, parse(&args.end)?),
    };
    if let Some(token) = &args.token {
        let direction = if args.reverse { 'r' } else { 'f' };
        let key = token.strip_prefix(direction);
        let key = key.and_then(|key| text::parse(Format::Hex, key).ok());
        let key = key.ok_or_else(|| {
            Failure::usage(format!("{token:?} is no token of a scan in this direction"))
        })?;
        match args.reverse {
            true => range.end = key.into(),
            false => range.start = key.into(),
        }
        if args.reverse && range.end.is_empty() {
            return Err(Failure::usage(format!("{token:?} is no token of a scan")));
        }
    }
    Ok(range)
}

/// How pairs become lines.
pub(super) struct Lines {
    pub(super) format: Format,
    pub(super) keys_only: bool,
    pub(super) output: Output,
}

impl Lines {
    pub(super) fn put(&self, text: &mut Vec<u8>, pair: &Pair) {
        let format = self.format;
        if self.output.is_json() {
            let mut object = Map::new();
            let mut put = |name: &str, bytes: &[u8]| {
                let (name, text) = text::field(name, format, bytes);
                object.insert(name, Value::String(text));
            };
            put("key", &pair.key);
            if !self.keys_only {
                put("value", &pair.value);
            }
            let line = serde_json::to_vec(&object).expect("a map of texts");
            text.extend_from_slice(&line);
        } else if self.output.is_terminal() {
            let key = text::shown(format, &pair.key);
            text.extend_from_slice(key.as_bytes());
            if !self.keys_only {
                let value = text::show(format, &pair.value);
                let value = self.output.cut(&value, key.chars().count() + 2);
                text.extend_from_slice(b"  ");
                text.extend_from_slice(value.as_bytes());
            }
        } else {
            let put = |text: &mut Vec<u8>, bytes: &[u8]| match format {
                Format::Text => text.extend_from_slice(bytes),
                format => text.extend_from_slice(text::show(format, bytes).as_bytes()),
            };
            put(text, &pair.key);
            if !self.keys_only {
                text.push(b'\t');
                put(text, &pair.value);
            }
        }
        text.push(b'\n');
    }
}
