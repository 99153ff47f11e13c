//! `basalt export | import`: the pairs of a family into a file and out of one.
//!
//! An export reads pages, each of one moment, from the first key to the last: what is written meanwhile is in it or not,
//! key by key. (A backup is of one moment.) An import writes batches, several at a time, each whole or not at all; it may
//! be run again, as a put that is done twice leads to the same.
//!
//! Promises: an export that ended well has a file that is whole on the disk; a binary file says itself whether it is whole
//! and undamaged, and an import of one writes no pair that is not. With `--resume` an export that was cut off goes on
//! behind the last whole pair of its file, and an import at the first pair that may not be in.
//!
//! Not here: the forms of files (`form`).

mod form;

use std::{
    fs,
    io::{self, BufReader, Read, Seek as _},
    path::PathBuf,
};

use basalt_client::{Batch, Client, KeyRange, Pair};
use clap::{Args, ValueEnum};
use serde_json::json;
use tokio::task::JoinSet;

use super::{Done, Failure, client::block_on, kv::Common, output::size};
use form::{Form, Reader, Writer};

/// Pairs of a batch of an import.
const CHUNK: usize = 500;
/// Bytes of a batch of an import, about.
const CHUNK_BYTES: usize = 1 << 20;
/// Batches at a time.
const DEPTH: usize = 8;

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// An object a line, as scan --json prints it
    Jsonl,
    /// Key and value between a comma, as scan shows them
    Csv,
    /// Bytes with checksums
    Binary,
}

#[derive(Debug, Args)]
struct Shape {
    /// Form of the file [default: by its name: .jsonl, .csv, else binary]
    #[arg(long, value_name = "FORM")]
    form: Option<Format>,
}

impl Shape {
    fn form(&self, file: &str) -> Form {
        let format =
            self.form
                .unwrap_or_else(|| match file.rsplit_once('.').map_or("", |(_, end)| end) {
                    "jsonl" | "ndjson" | "json" => Format::Jsonl,
                    "csv" => Format::Csv,
                    _ => Format::Binary,
                });
        match format {
            Format::Jsonl => Form::Jsonl,
            Format::Csv => Form::Csv,
            Format::Binary => Form::Binary,
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  basalt export all.basalt                  everything of family default, with checksums
  basalt export users.jsonl --prefix user/
  basalt export - --form csv | head")]
pub(super) struct ExportArgs {
    /// File to write, which must not be there; - is standard output
    #[arg(value_name = "FILE")]
    file: String,
    #[command(flatten)]
    shape: Shape,
    /// Only keys that begin so
    #[arg(long, value_name = "KEY")]
    prefix: Option<String>,
    /// Go on with a file that an export of the same keys has left unfinished
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  basalt import all.basalt
  basalt import users.csv --cf write
  basalt import all.basalt --resume         go on after a failure")]
pub(super) struct ImportArgs {
    /// File to read; - is standard input
    #[arg(value_name = "FILE")]
    file: String,
    #[command(flatten)]
    shape: Shape,
    /// Go on where an import of this file ended that failed (FILE.imported says where)
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    common: Common,
}

pub(super) fn export(args: &ExportArgs) -> Done {
    let common = &args.common;
    let form = args.shape.form(&args.file);
    let prefix = args.prefix.as_deref().map(|text| common.parse(text));
    let mut range = prefix
        .transpose()?
        .map_or_else(KeyRange::all, KeyRange::prefix);
    let client = common.client()?;
    let failed = |error: io::Error| Failure::world(format!("cannot write {}: {error}", args.file));
    if args.file == "-" {
        if args.resume {
            return Err(Failure::usage("standard output cannot be gone on with"));
        }
        let stdout = io::stdout().lock();
        let writer = Writer::begin(form, stdout).map_err(failed)?;
        let (_, writer) = copy(&client, range, writer, &failed)?;
        return match writer.finish() {
            // Whoever reads has enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            done => done.map(drop).map_err(failed),
        };
    }
    let mut options = fs::OpenOptions::new();
    let options = options.read(true).write(true);
    let open = match args.resume {
        true => options.open(&args.file),
        false => options.create_new(true).open(&args.file),
    };
    let mut file = open.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::usage(format!(
            "{} is there already; remove it, or go on with it by --resume",
            args.file
        )),
        _ => failed(error),
    })?;
    let is_empty = file.metadata().map_err(failed)?.len() == 0;
    let writer = if args.resume && !is_empty {
        let found = form::find_end(form, BufReader::new(&mut file));
        let found = found.map_err(|what| Failure::world(format!("{}: {what}", args.file)))?;
        if found.is_whole {
            let text = format!("{} is whole already", args.file);
            return common.open().done(json!({ "pairs": 0 }), &text);
        }
        file.set_len(found.end).map_err(failed)?;
        file.seek(io::SeekFrom::End(0)).map_err(failed)?;
        if let Some(last) = &found.last {
            range.start = [&last[..], &[0]].concat().into();
        }
        match found.end {
            0 => Writer::begin(form, io::BufWriter::new(file)).map_err(failed)?,
            _ => Writer::go_on(form, io::BufWriter::new(file), found.pairs),
        }
    } else {
        Writer::begin(form, io::BufWriter::new(file)).map_err(failed)?
    };
    let (pairs, writer) = copy(&client, range, writer, &failed)?;
    let file = writer.finish().map_err(failed)?;
    let file = file
        .into_inner()
        .map_err(|error| failed(error.into_error()))?;
    file.sync_all().map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    let facts = json!({ "pairs": pairs, "file_bytes": bytes });
    let text = format!("{pairs} pairs, {} are in {}", size(bytes), args.file);
    common.open().done(facts, &text)
}

/// Copies the pairs of a range; how many there were.
fn copy<W: io::Write>(
    client: &Client,
    range: KeyRange,
    mut writer: Writer<W>,
    failed: &impl Fn(io::Error) -> Failure,
) -> Result<(u64, Writer<W>), Failure> {
    block_on(async {
        let mut scan = client.scan(range).start();
        let mut pairs = 0;
        while let Some(pair) = scan.next().await? {
            match writer.put(&pair) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    return Err(Failure {
                        code: 0,
                        text: String::new(),
                    });
                }
                done => done.map_err(failed)?,
            }
            pairs += 1;
        }
        Ok((pairs, writer))
    })
}

pub(super) fn import(args: &ImportArgs) -> Done {
    let form = args.shape.form(&args.file);
    let client = args.common.client()?.repeating_writes();
    let done = match args.file.as_str() {
        "-" if args.resume => {
            return Err(Failure::usage("standard input cannot be gone on with"));
        }
        "-" => {
            let input: Box<dyn Read> = Box::new(io::stdin());
            take_in(
                &client,
                args,
                Reader::new(form, BufReader::new(input)),
                0,
                None,
            )?
        }
        name => {
            let failed = |error: io::Error| Failure::usage(format!("cannot read {name}: {error}"));
            let input: Box<dyn Read> = Box::new(fs::File::open(name).map_err(failed)?);
            let marks = Marks(PathBuf::from(format!("{name}.imported")));
            let skip = if args.resume { marks.read() } else { 0 };
            let reader = Reader::new(form, BufReader::new(input));
            take_in(&client, args, reader, skip, Some(&marks))?
        }
    };
    let facts = json!({ "pairs": done });
    args.common
        .open()
        .done(facts, &format!("{done} pairs are in"))
}

/// How many pairs of a file surely are in.
struct Marks(PathBuf);

impl Marks {
    fn read(&self) -> u64 {
        let text = fs::read_to_string(&self.0).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }

    fn write(&self, pairs: u64) {
        // Without it more is written again than has to be.
        let _ = fs::write(&self.0, format!("{pairs}\n"));
    }

    fn remove(&self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn take_in(
    client: &Client,
    args: &ImportArgs,
    mut reader: Reader<BufReader<Box<dyn Read>>>,
    skip: u64,
    marks: Option<&Marks>,
) -> Result<u64, Failure> {
    let at = |what: String| Failure::world(format!("{}: {what}", args.file));
    block_on(async {
        let mut read = 0;
        let mut is_over = false;
        while !is_over {
            let mut writing = JoinSet::new();
            let mut wrong = None;
            for _ in 0..DEPTH {
                let mut batch = Batch::new().family(args.common.cf());
                while batch.len() < CHUNK && batch.bytes() < CHUNK_BYTES {
                    match reader.next() {
                        Ok(Some(Pair { key, value })) => {
                            read += 1;
                            if read > skip {
                                batch.add_put(key, value);
                            }
                        }
                        Ok(None) => is_over = true,
                        // What stands before it is written all the same.
                        Err(what) => wrong = Some(at(what)),
                    }
                    if is_over || wrong.is_some() {
                        break;
                    }
                }
                let client = client.clone();
                writing.spawn(async move { client.write(batch).await });
                if is_over || wrong.is_some() {
                    break;
                }
            }
            while let Some(one) = writing.join_next().await {
                one.map_err(|error| Failure::world(format!("a writer broke: {error}")))??;
            }
            if let Some(marks) = marks {
                marks.write(read);
            }
            if let Some(wrong) = wrong {
                return Err(wrong);
            }
        }
        if let Some(marks) = marks {
            marks.remove();
        }
        Ok(read.saturating_sub(skip))
    })
}
