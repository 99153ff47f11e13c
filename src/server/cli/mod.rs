//! The command line: `basalt server`, the commands that speak to it, and the ones that need none.
//!
//! Promises: data goes to standard output, talk to standard error; the exit code says what kind of failure it was
//! (`docs/cli-json.md`): 0 success, 1 what the world did, 2 a wrong flag or setting, 3 (`get` only) a missing key,
//! 4 no server answers (in time), 5 not allowed, 6 not confirmed; an error is one line. A reader of our output that
//! goes away ends a command quietly.
//!
//! Not here: what the server does with a request (`service`).

use std::{
    ffi::OsString,
    fmt,
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, error::ErrorKind};

use crate::config::DEFAULT_ADDR;
pub(crate) use client::is_loopback;

mod access;
mod admin;
mod backup;
mod batch;
mod bench;
mod check;
mod client;
mod cluster;
mod completions;
mod config;
mod contexts;
mod demo;
mod doctor;
mod explain;
pub(crate) mod fuzz;
mod inspect;
mod kv;
mod leader;
mod notify;
mod output;
mod peers;
mod progress;
mod recover;
mod repair;
mod restore;
mod scan;
mod server;
mod shell;
mod stat;
mod text;
mod token;
mod transfer;

/// Why a command ended without success.
#[derive(Debug, PartialEq, Eq)]
struct Failure {
    code: u8,
    /// One line for standard error; none where the exit code says it all.
    text: String,
}

impl Failure {
    /// The world did it.
    fn world(text: impl Into<String>) -> Self {
        Self {
            code: 1,
            text: text.into(),
        }
    }

    /// A flag or a setting is wrong.
    fn usage(text: impl Into<String>) -> Self {
        Self {
            code: 2,
            text: text.into(),
        }
    }

    /// No server can be reached, or none answers in time: later it may go well.
    fn unreachable(text: impl Into<String>) -> Self {
        Self {
            code: 4,
            text: text.into(),
        }
    }

    /// Who asks may not do it, or is not known.
    fn denied(text: impl Into<String>) -> Self {
        Self {
            code: 5,
            text: text.into(),
        }
    }

    /// The user did not confirm it; nothing is changed.
    fn unconfirmed(text: impl Into<String>) -> Self {
        Self {
            code: 6,
            text: text.into(),
        }
    }

    /// The key is not there.
    fn not_found() -> Self {
        Self {
            code: 3,
            text: String::new(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

type Done = Result<(), Failure>;

/// Writes `bytes` to standard output.
fn print(bytes: &[u8]) -> Done {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        // Whoever reads has enough; `basalt scan | head` is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure {
            code: 0,
            text: String::new(),
        }),
        other => other.map_err(|error| Failure::world(format!("cannot write the output: {error}"))),
    }
}

/// A key-value store on its own log-structured engine, with TinyKV's gRPC API.
#[derive(Debug, Parser)]
#[command(name = "basalt", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  basalt server                        serve ./basalt-data on 127.0.0.1:20160
  basalt put hello world               write a key
  basalt get hello                     read it; exit code 3 when it is missing
  basalt scan --prefix h --limit 10    ten pairs whose keys begin with h
  basalt demo                          three stores in one process, to try things out
  basalt bench mixed --duration 10     measure a running server";

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a data directory over gRPC
    Server(server::ServerArgs),
    /// Write a key
    Put(kv::PutArgs),
    /// Read a key; exit code 3 when it is missing
    Get(kv::GetArgs),
    /// Delete a key; one that is missing is fine
    Delete(kv::DeleteArgs),
    /// Delete every key of a range
    DeleteRange(kv::DeleteRangeArgs),
    /// List pairs in the order of their keys, or count them
    Scan(scan::ScanArgs),
    /// Do many changes together, from a file or standard input
    Batch(batch::BatchArgs),
    /// Write pairs into a file
    Export(transfer::ExportArgs),
    /// Read pairs from a file
    Import(transfer::ImportArgs),
    /// Commands at a prompt, with history and completion; or from a pipe
    Shell(shell::ShellArgs),
    /// Clusters by name: list them, choose one
    #[command(subcommand)]
    Context(contexts::ContextCommand),
    /// Show how a server fares
    Status(admin::StatusArgs),
    /// Write memtables to tables
    Flush(admin::FlushArgs),
    /// Compact a range of keys
    Compact(admin::CompactArgs),
    /// Verify every file of a store that no server has open; exit code 1 on damage
    Check(check::CheckArgs),
    /// Make a damaged store whole again, of everything in it that can be read
    Repair(repair::RepairArgs),
    /// Show what one file of a store says: table, log segment, manifest, value file, backup
    Inspect(inspect::InspectArgs),
    /// Make, list, verify and remove backups, of a running server or of a directory
    #[command(subcommand)]
    Backup(backup::BackupCommand),
    /// Make a backup a data directory again
    Restore(restore::RestoreArgs),
    /// Show where a get of a key looks, and what it finds
    Explain(explain::ExplainArgs),
    /// Show what the engines hold and do: levels, memory, cache, stalls
    Stat(stat::StatArgs),
    /// Show the busiest methods and regions
    Top(stat::TopArgs),
    /// Measure how long answers take, one request after another
    Latency(stat::LatencyArgs),
    /// Say what is wrong with servers or with a directory, and what to do
    Doctor(doctor::DoctorArgs),
    /// Check the settings of a server, show them, change those of a running one
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Make a token for a client, and what the file of rights says of it
    Token(token::TokenArgs),
    /// Measure a running server
    Bench(bench::BenchArgs),
    /// Start three stores in one process, to try things out
    Demo(demo::DemoArgs),
    /// List the stores of a cluster, add one, remove one, replace one
    #[command(subcommand)]
    Member(cluster::MemberCommand),
    /// Show the regions of a cluster
    #[command(subcommand)]
    Region(cluster::RegionCommand),
    /// Show the peers of a cluster: each replica of each region
    #[command(subcommand)]
    Peer(peers::PeerCommand),
    /// Hand leadership to a store
    TransferLeader(cluster::TransferArgs),
    /// Last resort where a majority is lost for good: make a stopped store the only member
    ForceSingle(recover::ForceSingleArgs),
    /// Print what a shell needs to complete commands and flags
    Completions(completions::CompletionsArgs),
    /// Write manual pages
    Man(completions::ManArgs),
}

/// Asks before something is destroyed that cannot be had back: `question` says what, with its count. `yes` is the
/// flag `--yes`; without it and without a terminal nothing is done.
fn confirm(yes: bool, question: &str) -> Done {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::unconfirmed(format!(
            "{question}: not done without --yes, because nobody can be asked here"
        )));
    }
    // Nobody reads: then the answer will not be yes.
    let _ = write!(io::stderr(), "{question}? [y/N] ");
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer);
    read.map_err(|error| Failure::world(format!("cannot read the answer: {error}")))?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::unconfirmed("not confirmed; nothing is changed")),
    }
}

/// Where the server is, and how it is spoken to.
#[derive(Debug, Args)]
struct ServerAddr {
    /// Address of the server, or several of a cluster with commas [default: $BASALT_ADDR, else those of the context,
    /// else 127.0.0.1:20160]
    #[arg(long, value_name = "HOST:PORT")]
    addr: Option<String>,
    /// Cluster by its name (basalt context list) [default: $BASALT_CONTEXT, else the current one]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    #[command(flatten)]
    access: access::AccessArgs,
}

impl ServerAddr {
    fn get(&self) -> Result<client::Target, Failure> {
        let context = contexts::of(self.context.as_deref())?;
        let variable = || std::env::var("BASALT_ADDR").ok();
        // A context that is named goes before a variable for all commands.
        let text = match (&self.addr, &self.context) {
            (Some(addr), _) => Some(addr.clone()),
            (None, Some(_)) if !context.endpoints.is_empty() => None,
            (None, _) => variable(),
        };
        let addrs = match text {
            Some(text) => text.split(',').map(|addr| addr.trim().to_owned()).collect(),
            None if context.endpoints.is_empty() => vec![DEFAULT_ADDR.to_owned()],
            None => context.endpoints.clone(),
        };
        Ok(client::Target {
            addrs,
            access: self.access.get(&context)?,
        })
    }
}

/// How keys and values are written.
#[derive(Debug, Args)]
struct TextArgs {
    /// Keys and values are hex digits
    #[arg(long, conflicts_with = "escaped")]
    hex: bool,
    /// Keys and values may hold \xNN, \n, \r, \t, \0 and \\
    #[arg(long)]
    escaped: bool,
}

impl TextArgs {
    fn format(&self) -> text::Format {
        match (self.hex, self.escaped) {
            (true, _) => text::Format::Hex,
            (_, true) => text::Format::Escaped,
            _ => text::Format::Text,
        }
    }

    fn parse(&self, what: &str) -> Result<Vec<u8>, Failure> {
        text::parse(self.format(), what).map_err(Failure::usage)
    }
}

/// Runs the command that the process was started with and answers its exit code.
#[must_use]
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

/// This program as it was called: what a hint has to say where it is not on the PATH.
fn program() -> String {
    let name = std::env::args_os().next();
    let name = name.map(|name| name.to_string_lossy().into_owned());
    name.filter(|name| !name.is_empty())
        .unwrap_or_else(|| "basalt".to_owned())
}

/// The whole command line, with examples before flags in each command's help.
fn command() -> clap::Command {
    fn with_examples_first(command: clap::Command) -> clap::Command {
        let command = command.mut_subcommands(with_examples_first);
        match command.get_after_help() {
            Some(_) => command.help_template(
                "{about-with-newline}\n{usage-heading} {usage}\n\n{after-help}\n\n{all-args}",
            ),
            None => command,
        }
    }
    with_examples_first(Cli::command())
}

fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let mut matches = command().try_get_matches_from(args)?;
    Cli::from_arg_matches_mut(&mut matches)
}

fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let done = match parse(args) {
        Ok(cli) => dispatch(cli.command),
        Err(error) => explain(&error),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.text.is_empty() {
                // Nobody reads: the exit code remains.
                let _ = writeln!(io::stderr(), "basalt: {failure}");
            }
            ExitCode::from(failure.code)
        }
    }
}

fn dispatch(command: Command) -> Done {
    match command {
        Command::Server(args) => server::run(&args),
        Command::Put(args) => kv::put(&args),
        Command::Get(args) => kv::get(&args),
        Command::Delete(args) => kv::delete(&args),
        Command::DeleteRange(args) => kv::delete_range(&args),
        Command::Scan(args) => scan::run(&args),
        Command::Batch(args) => batch::run(&args),
        Command::Export(args) => transfer::export(&args),
        Command::Import(args) => transfer::import(&args),
        Command::Shell(args) => shell::run(&args),
        Command::Context(command) => contexts::run(&command),
        Command::Status(args) => admin::status(&args),
        Command::Flush(args) => admin::flush(&args),
        Command::Compact(args) => admin::compact(&args),
        Command::Check(args) => check::run(&args),
        Command::Repair(args) => repair::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Backup(command) => backup::run(&command),
        Command::Restore(args) => restore::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Stat(args) => stat::stat(&args),
        Command::Top(args) => stat::top(&args),
        Command::Latency(args) => stat::latency(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Config(command) => config::run(&command),
        Command::Token(args) => token::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Member(command) => cluster::member(&command),
        Command::Region(command) => cluster::region(&command),
        Command::Peer(command) => peers::run(&command),
        Command::TransferLeader(args) => cluster::transfer(&args),
        Command::ForceSingle(args) => recover::run(&args),
        Command::Completions(args) => completions::completions(&args),
        Command::Man(args) => completions::man(&args),
    }
}

/// Help goes to where it was asked for; anything else becomes one line.
fn explain(error: &clap::Error) -> Done {
    let text = error.render().to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => print(text.as_bytes()),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => Err(
            Failure::usage(format!("a command is missing\n\n{}", text.trim_end())),
        ),
        _ => Err(Failure::usage(one_line(&text))),
    }
}

/// The message and the tips of clap's text, without its usage.
fn one_line(text: &str) -> String {
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let wanted = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut line = String::new();
    for part in
        wanted.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"))
    {
        match part.strip_prefix("tip: ") {
            Some(tip) => {
                line.push_str("; ");
                line.push_str(tip);
            }
            None => {
                if !line.is_empty() {
                    line.push(' ');
                }
                line.push_str(part);
            }
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(args: &[&str]) -> Failure {
        let error = Cli::try_parse_from(args).unwrap_err();
        explain(&error).unwrap_err()
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_wrong_flag_is_one_line_with_the_nearest_name() {
        let failure = refusal(&["basalt", "server", "--pth", "x"]);
        assert_eq!(failure.code, 2);
        assert!(
            failure.text.contains("'--pth'") && failure.text.contains("'--path'"),
            "{failure}"
        );
        assert!(!failure.text.contains('\n'), "{failure:?}");

        let failure = refusal(&["basalt", "put", "k"]);
        assert!(
            failure.text.contains("<VALUE>") && !failure.text.contains('\n'),
            "{failure:?}"
        );
        let failure = refusal(&["basalt", "scna", "k"]);
        assert!(
            failure.text.contains("'scan'") && !failure.text.contains('\n'),
            "{failure:?}"
        );
        let failure = refusal(&["basalt", "scan", "--hex", "--escaped"]);
        assert!(
            failure.code == 2 && !failure.text.contains('\n'),
            "{failure:?}"
        );
    }

    #[test]
    fn a_command_line_without_a_command_shows_the_help() {
        let failure = refusal(&["basalt"]);
        assert_eq!(failure.code, 2);
        assert!(failure.text.contains("Examples:"), "{failure}");
    }

    #[test]
    fn values_may_begin_with_a_minus_when_they_are_numbers() {
        assert!(Cli::try_parse_from(["basalt", "put", "balance", "-12"]).is_ok());
        assert!(Cli::try_parse_from(["basalt", "put", "--", "-k", "-v"]).is_ok());
    }
}
