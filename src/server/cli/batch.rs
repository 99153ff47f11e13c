//! `basalt batch`: changes from a file or standard input, done together.
//!
//! A change a line:
//!
//! ```text
//! # whole lines that begin with # and empty ones say nothing
//! put KEY VALUE
//! delete KEY
//! delete-range START END
//! family NAME             what follows is of this family
//! commit                  what stands above is done, whole or not at all, before anything below
//! ```
//! Words are between spaces; one with spaces stands in single quotes, where `'\''` is a quote, as a shell writes it and
//! as keys are shown. Keys and values are in the syntax of the command line (`text`).
//!
//! Promises: the whole input is read and checked before anything is sent. Without `commit` lines and `--chunk` it is one
//! batch, whole or not at all; one that is too large for that is refused. A failure says after which line it came.

use std::{
    fs,
    io::{self, Read as _},
};

use basalt_client::{Batch, KeyRange};
use clap::Args;
use serde_json::json;

use super::{Done, Failure, client::block_on, kv::Common};
use crate::storage::family;

/// Bytes of an input; what is larger is for `basalt import`.
const MAX_INPUT_LEN: u64 = 256 << 20;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  basalt batch changes.txt
  printf 'put a 1\\nput b 2\\ndelete c\\n' | basalt batch -
  basalt batch big.txt --chunk 1000    each thousand changes are one batch")]
pub(super) struct BatchArgs {
    /// File with a change a line: put KEY VALUE, delete KEY, delete-range START END, family NAME, commit; - is standard
    /// input
    #[arg(value_name = "FILE")]
    file: String,
    /// Changes that are done together, where not all are [default: all up to a line `commit`]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    chunk: Option<u64>,
    #[command(flatten)]
    common: Common,
}

/// Changes that are done together, and the line after which they are.
struct Part {
    batch: Batch,
    line: usize,
}

pub(super) fn run(args: &BatchArgs) -> Done {
    let text = read(&args.file)?;
    let parts = parse(&text, args)?;
    let changes: usize = parts.iter().map(|part| part.batch.len()).sum();
    let batches = parts.len();
    let client = args.common.client()?;
    block_on(async {
        let mut done = 0;
        for part in parts {
            let line = part.line;
            client.write(part.batch).await.map_err(|error| {
                let mut failure = Failure::from(error);
                failure.text = match done {
                    0 => format!("nothing is done: {failure}"),
                    done => format!("done up to line {done}, not up to line {line}: {failure}"),
                };
                failure
            })?;
            done = line;
        }
        Ok(())
    })?;
    let facts = json!({ "changes": changes, "batches": batches });
    let text = format!("{changes} changes in {batches} batches");
    args.common.open().done(facts, &text)
}

fn read(file: &str) -> Result<String, Failure> {
    let failed = |error: io::Error| Failure::usage(format!("cannot read {file}: {error}"));
    let mut text = String::new();
    let len = match file {
        "-" => io::stdin()
            .lock()
            .take(MAX_INPUT_LEN + 1)
            .read_to_string(&mut text),
        _ => fs::File::open(file)
            .map_err(failed)?
            .take(MAX_INPUT_LEN + 1)
            .read_to_string(&mut text),
    };
    if len.map_err(failed)? as u64 > MAX_INPUT_LEN {
        let text = format!("{file} has more than {MAX_INPUT_LEN} bytes; basalt import takes more");
        return Err(Failure::usage(text));
    }
    Ok(text)
}

fn parse(text: &str, args: &BatchArgs) -> Result<Vec<Part>, Failure> {
    let mut parts = Vec::new();
    let mut cf = args.common.cf().to_owned();
    let mut batch = Batch::new().family(&cf);
    let chunk = args.chunk.and_then(|chunk| usize::try_from(chunk).ok());
    let mut last = 0;
    for (line, number) in text.lines().zip(1..) {
        let at = |what: String| Failure::usage(format!("{}, line {number}: {what}", args.file));
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        last = number;
        let words = words(line).map_err(at)?;
        let parsed = words[1..].iter().map(|word| args.common.parse(word));
        let parsed = parsed.collect::<Result<Vec<_>, _>>();
        let parsed = parsed.map_err(|failure| at(failure.text))?;
        match (words[0].as_str(), &parsed[..]) {
            ("put", [key, value]) => batch.add_put(key.clone(), value.clone()),
            ("delete", [key]) => batch.add_delete(key.clone()),
            ("delete-range", [start, end]) if start < end => {
                batch.add_delete_range(KeyRange::between(start, end));
            }
            ("delete-range", [_, _]) => {
                return Err(at(
                    "no key is behind the first and before the second".to_owned()
                ));
            }
            ("family", [_]) => {
                cf.clone_from(&words[1]);
                family(&cf).map_err(|error| at(error.to_string()))?;
                batch.set_family(&cf);
            }
            ("commit", []) => {
                let done = std::mem::replace(&mut batch, Batch::new().family(&cf));
                parts.push(Part {
                    batch: done,
                    line: number,
                });
            }
            (other, _) => {
                let known =
                    "put KEY VALUE, delete KEY, delete-range START END, family NAME, commit";
                return Err(at(format!("{other:?} is none of {known}")));
            }
        }
        if batch.bytes() > Batch::MAX_BYTES {
            return Err(at(format!(
                "what is done together has more than {} bytes; --chunk N, or lines `commit`, make parts of it",
                Batch::MAX_BYTES
            )));
        }
        if chunk.is_some_and(|chunk| batch.len() >= chunk) {
            let done = std::mem::replace(&mut batch, Batch::new().family(&cf));
            parts.push(Part {
                batch: done,
                line: number,
            });
        }
    }
    parts.push(Part { batch, line: last });
    parts.retain(|part| !part.batch.is_empty());
    Ok(parts)
}

/// The words of a line, of which there is one at least.
fn words(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            ' ' | '\t' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next() {
                        None => return Err("a quote has no end".to_owned()),
                        Some('\'') => break,
                        Some(letter) => word.push(letter),
                    }
                }
            }
            // A quote outside of quotes; any other backslash is itself.
            '\\' if letters.as_str().starts_with('\'') => {
                letters.next();
                word.get_or_insert_default().push('\'');
            }
            letter => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::text::{Format, parse, shown};

    #[test]
    fn words_are_between_spaces_and_quotes_hold_them_together() {
        let split = |line: &str| words(line).unwrap();
        assert_eq!(split("put  a\t1"), ["put", "a", "1"]);
        assert_eq!(split("put 'a b' ''"), ["put", "a b", ""]);
        assert_eq!(split(r"put 'it'\''s' C:\temp"), ["put", "it's", r"C:\temp"]);
        assert!(words("put 'a").is_err());
    }

    #[test]
    fn keys_are_read_as_they_are_shown() {
        for key in [&b"a b"[..], b"it's", b"\\:x", b"\0\xff\n", b"", b"#", b"'"] {
            let line = format!("delete {}", shown(Format::Text, key));
            let words = words(&line).unwrap();
            assert_eq!(parse(Format::Text, &words[1]).unwrap(), key, "{line}");
        }
    }
}
