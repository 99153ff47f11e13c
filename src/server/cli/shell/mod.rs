//! `basalt shell`: the commands on keys at a prompt, against a server, a cluster, or a directory that no server has open.
//!
//! ```text
//! line --words--> command --session--> source: server, cluster (client) | directory (engine, read only)
//!  ^--editor: history, hints, complete --keys within 100 ms--^
//! ```
//! Promises: what is printed on a terminal can be pasted back as a word; a batch is done whole or not at all; nothing is
//! deleted by range without a question or `--yes`; a directory is never changed. Where standard input or output is no
//! terminal, lines are read without a prompt, and the first one that fails ends the run with exit code 1 and its number.
//!
//! Not here: the client (`basalt_client`), the forms of a result (`output`, `text`).

use std::{
    io::{self, BufRead, IsTerminal as _, Read as _, Write as _},
    path::PathBuf,
    rc::Rc,
};

use clap::Args;

use super::{Done, Failure, ServerAddr, TextArgs, output::Output};

mod command;
mod complete;
mod editor;
mod session;
mod source;
mod words;

use editor::{LineEditor, Typed};
use session::{Next, Session, Settings};
use source::{Directory, Remote, Source};

/// Bytes of a line of a script: the largest value that there is, in hex, and some room.
const MAX_LINE_LEN: u64 = 32 << 20;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  basalt shell                         a prompt; help lists the commands, Tab completes them and keys
  basalt shell --dir basalt-data       a directory that no server has open, to read it
  printf 'batch\\nput a 1\\nput b 2\\nend\\ncount\\n' | basalt shell
  basalt shell --yes --keep-going < changes.txt")]
pub(super) struct ShellArgs {
    #[command(flatten)]
    addr: ServerAddr,
    /// Read a directory that no server has open, in place of a server
    #[arg(long, value_name = "DIR", conflicts_with_all = ["addr", "context"])]
    dir: Option<PathBuf>,
    /// Column family to begin with
    #[arg(long, value_name = "NAME", default_value = "default")]
    cf: String,
    /// Do not ask before a range is deleted
    #[arg(long)]
    yes: bool,
    /// Go on behind a line that failed, where lines come from a pipe; the exit code is 1 all the same
    #[arg(long)]
    keep_going: bool,
    #[command(flatten)]
    text: TextArgs,
}

pub(super) fn run(args: &ShellArgs) -> Done {
    let is_interactive = io::stdin().is_terminal() && io::stdout().is_terminal();
    let source: Rc<dyn Source> = match &args.dir {
        Some(dir) => Rc::new(Directory::open(dir)?),
        None => Rc::new(Remote::open(&args.addr.get()?, is_interactive)?),
    };
    let settings = Settings {
        format: args.text.format(),
        output: Output::new(false),
        is_interactive,
        yes: args.yes,
    };
    let session = Session::new(Rc::clone(&source), &args.cf, settings)?;
    if is_interactive {
        talk(source, session, settings)
    } else {
        script(io::stdin().lock(), session, args.keep_going)
    }
}

/// A person types.
fn talk(source: Rc<dyn Source>, mut session: Session, settings: Settings) -> Done {
    let name = source.name();
    let mut editor = LineEditor::new(source, settings.format, settings.output)?;
    say(&format!(
        "{name}: help lists the commands, Tab completes, Ctrl-D ends"
    ));
    for number in 1.. {
        let line = match editor.read(&session.prompt(), session.family())? {
            Typed::Line(line) => line,
            Typed::Cancelled => continue,
            Typed::End => break,
        };
        match session.run(&line, number) {
            Ok(Next::GoOn) => {}
            Ok(Next::Quit) => break,
            Err(failure) => say(&failure.text),
        }
    }
    session.end()
}

/// Lines come from a pipe or a file.
fn script(mut input: impl BufRead, mut session: Session, keep_going: bool) -> Done {
    let (mut line, mut failed) = (Vec::new(), 0);
    for number in 1.. {
        line.clear();
        let wrong = |text: &str| Failure::world(format!("line {number}: {text}"));
        let read = input
            .by_ref()
            .take(MAX_LINE_LEN)
            .read_until(b'\n', &mut line);
        let read = read.map_err(|error| wrong(&format!("cannot read it: {error}")))?;
        if read == 0 {
            break;
        }
        if read as u64 == MAX_LINE_LEN && !line.ends_with(b"\n") {
            return Err(wrong(&format!("it has more than {MAX_LINE_LEN} bytes")));
        }
        let text = std::str::from_utf8(&line);
        let done = match text {
            Ok(text) => session.run(text.trim_end_matches(['\n', '\r']), number),
            Err(_) => session.refuse("it is no UTF-8", number),
        };
        match done {
            Ok(Next::GoOn) => {}
            Ok(Next::Quit) => break,
            // Whoever reads has enough.
            Err(failure) if failure.code == 0 => return Err(failure),
            Err(failure) if keep_going => {
                say(&wrong(&failure.text).text);
                failed += 1;
            }
            Err(failure) => return Err(wrong(&failure.text)),
        }
    }
    session.end()?;
    match failed {
        0 => Ok(()),
        1 => Err(Failure::world("1 line failed")),
        failed => Err(Failure::world(format!("{failed} lines failed"))),
    }
}

/// Talk beside the data.
fn say(text: &str) {
    // Nobody reads: then nobody misses it.
    let _ = writeln!(io::stderr(), "{text}");
}
