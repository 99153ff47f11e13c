//! `basalt put | get | delete | scan`.

use std::io::IsTerminal as _;

use basalt_proto::kvrpcpb::{
    KvPair, RawDeleteRequest, RawDeleteResponse, RawGetRequest, RawGetResponse, RawPutRequest,
    RawPutResponse, RawScanRequest, RawScanResponse,
};
use clap::Args;
use serde_json::json;

use super::{
    Done, Failure, ServerAddr, TextArgs,
    client::{Server, block_on, check_answer},
    leader::{Kind, Leader},
    print,
    text::{self, Format},
};

/// Pairs asked for at a time; the server cuts an answer by its bytes too.
const PAGE: u32 = 1000;

/// What every command on keys takes.
#[derive(Debug, Args)]
struct Common {
    #[command(flatten)]
    addr: ServerAddr,
    /// Column family: default, write or lock
    #[arg(long, value_name = "NAME", default_value = "default")]
    cf: String,
    #[command(flatten)]
    text: TextArgs,
    /// Print JSON, an object a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct PutArgs {
    /// The key
    #[arg(allow_negative_numbers = true)]
    key: String,
    /// The value
    #[arg(allow_negative_numbers = true)]
    value: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct GetArgs {
    /// The key
    #[arg(allow_negative_numbers = true)]
    key: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    /// The key
    #[arg(allow_negative_numbers = true)]
    key: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct ScanArgs {
    /// First key, inclusive; without it the first key there is
    #[arg(allow_negative_numbers = true)]
    start: Option<String>,
    /// Most pairs to print [default: all of them]
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    #[command(flatten)]
    common: Common,
}

pub(super) fn put(args: &PutArgs) -> Done {
    let common = &args.common;
    let key = common.text.parse(&args.key)?.into();
    let value = common.text.parse(&args.value)?.into();
    block_on(async {
        let mut leader = Leader::find(&common.addr.get()?).await?;
        let request = RawPutRequest {
            context: None,
            key,
            value,
            cf: common.cf.clone(),
        };
        let send = |server: &Server| {
            let (mut client, request) = (server.tinykv(), request.clone());
            async move { client.raw_put(request).await }
        };
        let answer = leader.ask_soon(Kind::Once, send, |answer: &mut RawPutResponse| {
            answer.region_error.take()
        });
        let answer = answer.await?;
        check_answer(&answer.error)
    })?;
    done(common)
}

pub(super) fn delete(args: &DeleteArgs) -> Done {
    let common = &args.common;
    let key = common.text.parse(&args.key)?.into();
    block_on(async {
        let mut leader = Leader::find(&common.addr.get()?).await?;
        let request = RawDeleteRequest {
            context: None,
            key,
            cf: common.cf.clone(),
        };
        let send = |server: &Server| {
            let (mut client, request) = (server.tinykv(), request.clone());
            async move { client.raw_delete(request).await }
        };
        let answer = leader.ask_soon(Kind::Once, send, |answer: &mut RawDeleteResponse| {
            answer.region_error.take()
        });
        let answer = answer.await?;
        check_answer(&answer.error)
    })?;
    done(common)
}

/// A write that went well has no data: a word for a person, an object for a program, else nothing.
fn done(common: &Common) -> Done {
    if common.json {
        print(b"{\"ok\":true}\n")
    } else if std::io::stdout().is_terminal() {
        print(b"ok\n")
    } else {
        Ok(())
    }
}

pub(super) fn get(args: &GetArgs) -> Done {
    let common = &args.common;
    let key = common.text.parse(&args.key)?.into();
    let answer = block_on(async {
        let mut leader = Leader::find(&common.addr.get()?).await?;
        let request = RawGetRequest {
            context: None,
            key,
            cf: common.cf.clone(),
        };
        let send = |server: &Server| {
            let (mut client, request) = (server.tinykv(), request.clone());
            async move { client.raw_get(request).await }
        };
        let answer = leader.ask_soon(Kind::Repeatable, send, |answer: &mut RawGetResponse| {
            answer.region_error.take()
        });
        let answer = answer.await?;
        check_answer(&answer.error)?;
        Ok(answer)
    })?;
    if answer.not_found {
        if common.json {
            print(b"{\"found\":false}\n")?;
        } else if std::io::stderr().is_terminal() {
            return Err(Failure {
                text: "the key is not there".to_owned(),
                ..Failure::not_found()
            });
        }
        return Err(Failure::not_found());
    }
    if common.json {
        let (name, value) = text::field("value", common.text.format(), &answer.value);
        return print(format!("{}\n", json!({ "found": true, name: value })).as_bytes());
    }
    let mut line = shown(common.text.format(), &answer.value);
    line.push(b'\n');
    print(&line)
}

pub(super) fn scan(args: &ScanArgs) -> Done {
    let common = &args.common;
    let mut start = common
        .text
        .parse(args.start.as_deref().unwrap_or_default())?;
    let mut left = args.limit.unwrap_or(u64::MAX);
    block_on(async {
        let mut leader = Leader::find(&common.addr.get()?).await?;
        while left > 0 {
            let limit = u32::try_from(left).unwrap_or(PAGE).min(PAGE);
            let request = RawScanRequest {
                context: None,
                start_key: start.into(),
                limit,
                cf: common.cf.clone(),
            };
            let send = |server: &Server| {
                let (mut client, request) = (server.tinykv(), request.clone());
                async move { client.raw_scan(request).await }
            };
            let answer = leader.ask_soon(Kind::Repeatable, send, |answer: &mut RawScanResponse| {
                answer.region_error.take()
            });
            let answer = answer.await?;
            check_answer(&answer.error)?;
            // A short answer may have been cut; only an empty one is the end.
            let Some(last) = answer.kvs.last() else { break };
            start = [&last.key[..], &[0]].concat();
            left = left.saturating_sub(answer.kvs.len() as u64);
            let mut lines = Vec::new();
            for pair in &answer.kvs {
                put_line(&mut lines, common, pair);
            }
            print(&lines)?;
        }
        Ok(())
    })
}

fn put_line(lines: &mut Vec<u8>, common: &Common, pair: &KvPair) {
    let format = common.text.format();
    if common.json {
        let (key_name, key) = text::field("key", format, &pair.key);
        let (value_name, value) = text::field("value", format, &pair.value);
        lines.extend_from_slice(
            json!({ key_name: key, value_name: value })
                .to_string()
                .as_bytes(),
        );
    } else {
        lines.extend_from_slice(&shown(format, &pair.key));
        lines.push(b'\t');
        lines.extend_from_slice(&shown(format, &pair.value));
    }
    lines.push(b'\n');
}

/// Bytes as they go to standard output: bare in a pipe, harmless on a terminal.
fn shown(format: Format, bytes: &[u8]) -> Vec<u8> {
    if format == Format::Text && !std::io::stdout().is_terminal() {
        return bytes.to_vec();
    }
    text::show(format, bytes).into_bytes()
}
