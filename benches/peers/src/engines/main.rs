//! Basalt's engine beside fjall, RocksDB, redb and LMDB, and as a store of Raft logs beside raft-engine too, at the same work in the
//! same run.
//!
//! ```text
//! engines [--groups a,b] [--engines a,b] [--entries N] [--seconds S] [--rounds N] [--dir DIR] [--write FILE] [--raw FILE]
//! engines --only ENGINE GROUP STAGE DIR ENTRIES SECONDS       one group in this process, for a profiler
//! ```
//! Promises: every answer of every engine is checked, and a wrong one ends the run; each group has a process and
//! files of its own; losing rows are shown. README.md has the settings. Not here: power loss.

mod basalt;
mod chart;
mod data;
mod files;
mod fjall;
mod limits;
mod lmdb;
mod logs;
mod measure;
mod raft_engine;
mod redb;
mod report;
#[cfg(feature = "rocksdb")]
mod rocks;
mod rows;
mod store;
mod work;
mod ycsb;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use measure::Figure;
use report::{Found, Run};
use store::Kind;
use work::{Group, Size, Work};

struct Arguments {
    kinds: Vec<Kind>,
    groups: Vec<Group>,
    size: Size,
    rounds: usize,
    dir: PathBuf,
    write: Option<PathBuf>,
    /// Figures of earlier runs, to which those of this one are added: a long run in parts.
    raw: Option<PathBuf>,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == "--only") {
        return match only(&words[1..]) {
            Some(()) => ExitCode::SUCCESS,
            None => usage(),
        };
    }
    let Some(arguments) = arguments(&words) else {
        return usage();
    };
    let run = measure(&arguments);
    let text = report::document(&run);
    match &arguments.write {
        Some(path) => {
            fs::write(path, text).expect("the document");
            fs::write(path.with_extension("svg"), chart::draw(&run)).expect("the chart");
        }
        None => print!("{text}"),
    }
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!(
        "usage: engines [--groups a,b] [--engines a,b] [--entries N] [--seconds S] [--rounds N]"
    );
    eprintln!("               [--dir DIR] [--write FILE] [--raw FILE]");
    eprintln!("       engines --only ENGINE GROUP STAGE DIR ENTRIES SECONDS");
    let names = |names: Vec<&str>| names.join(", ");
    eprintln!(
        "engines: {}",
        names(Kind::ALL.iter().map(|kind| kind.name()).collect())
    );
    eprintln!(
        "groups: {}",
        names(Group::ALL.iter().map(|group| group.name()).collect())
    );
    ExitCode::FAILURE
}

fn arguments(words: &[String]) -> Option<Arguments> {
    let mut arguments = Arguments {
        kinds: Kind::ALL.to_vec(),
        groups: Group::ALL.to_vec(),
        size: Size {
            entries: 2_000_000,
            seconds: 1.5,
        },
        rounds: 3,
        dir: PathBuf::from("target/engines"),
        write: None,
        raw: None,
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let value = words.next()?;
        match word.as_str() {
            "--engines" => {
                arguments.kinds = value.split(',').map(Kind::of).collect::<Option<_>>()?
            }
            "--groups" => {
                arguments.groups = value.split(',').map(Group::of).collect::<Option<_>>()?
            }
            "--entries" => arguments.size.entries = value.parse().ok().filter(|n| *n >= 1000)?,
            "--seconds" => arguments.size.seconds = value.parse().ok().filter(|s| *s > 0.0)?,
            "--rounds" => arguments.rounds = value.parse().ok()?,
            "--dir" => arguments.dir = PathBuf::from(value),
            "--raw" => arguments.raw = Some(PathBuf::from(value)),
            "--write" => arguments.write = Some(PathBuf::from(value)),
            _ => return None,
        }
    }
    Some(arguments)
}

/// What a child is told to do: one stage of a group with one engine, or `machine`.
fn only(words: &[String]) -> Option<()> {
    let [kind, group, stage, dir, entries, seconds] = words else {
        return None;
    };
    let size = Size {
        entries: entries.parse().ok()?,
        seconds: seconds.parse().ok()?,
    };
    let dir = Path::new(dir);
    let tell = |figure: Figure| println!("{}", figure.line());
    if kind == "machine" {
        limits::run(dir, &size, &tell);
        return Some(());
    }
    let work = Work {
        kind: Kind::of(kind)?,
        dir,
        size: &size,
        values: data::Values::new(),
        tell: &tell,
    };
    work.run(Group::of(group)?, stage.parse().ok()?);
    Some(())
}

fn measure(arguments: &Arguments) -> Run<'_> {
    let Arguments { kinds, groups, .. } = arguments;
    let mut found = arguments.raw.as_deref().map_or(Vec::new(), read_raw);
    let first = found.iter().map(|found| found.round + 1).max().unwrap_or(0);
    let rounds = |group: &Group| group.rounds(arguments.rounds);
    for turn in 0..groups.iter().map(rounds).max().unwrap_or(0) {
        let round = first + turn;
        eprintln!("round {}", round + 1);
        let mut keep = |kind: Option<Kind>, figures: Vec<Figure>| {
            for figure in figures {
                let name = kind.map_or("machine", Kind::name);
                eprintln!("  {name}, {}: {}", figure.row, report::number(figure.value));
                let one = Found {
                    kind,
                    round,
                    figure,
                };
                if let Some(path) = &arguments.raw {
                    append(path, &one.line());
                }
                found.push(one);
            }
        };
        if turn < arguments.rounds {
            keep(None, child(arguments, "machine", None));
        }
        for group in groups.iter().filter(|group| turn < rounds(group)) {
            // Another one is first in each round.
            for place in 0..kinds.len() {
                let kind = kinds[(round + place) % kinds.len()];
                if kind.is_for_logs_only() && *group != Group::Logs {
                    continue;
                }
                keep(Some(kind), child(arguments, kind.name(), Some(*group)));
            }
        }
    }
    Run {
        kinds,
        size: &arguments.size,
        found,
    }
}

fn read_raw(path: &Path) -> Vec<Found> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(Found::parse).collect()
}

fn append(path: &Path, line: &str) {
    let file = fs::OpenOptions::new().create(true).append(true).open(path);
    let done = file.and_then(|mut file| writeln!(file, "{line}"));
    done.expect("the file of figures");
}

/// Runs a group in processes of its own, with empty files, and gives what they tell.
fn child(arguments: &Arguments, name: &str, group: Option<Group>) -> Vec<Figure> {
    let dir = arguments.dir.join(name);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("a directory");
    rustix::fs::sync();
    let mut figures = Vec::new();
    for stage in group.map_or(&[0][..], |group| group.stages()) {
        let program = std::env::current_exe().expect("this program");
        let output = Command::new(program)
            .args([
                "--only",
                name,
                group.map_or("limits", Group::name),
                &stage.to_string(),
            ])
            .arg(&dir)
            .args([
                arguments.size.entries.to_string(),
                arguments.size.seconds.to_string(),
            ])
            .stderr(Stdio::inherit())
            .output()
            .expect("a process");
        let ends_by_itself = group == Some(Group::Reopen) && *stage == 0;
        assert!(
            output.status.success() || ends_by_itself,
            "{name}, {group:?}: {}",
            output.status
        );
        let text = String::from_utf8_lossy(&output.stdout);
        figures.extend(text.lines().filter_map(Figure::parse));
    }
    let _ = fs::remove_dir_all(&dir);
    figures
}
