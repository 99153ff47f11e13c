//! Three stores of `basalt server` beside a three-member etcd at the same work in the same run.
//!
//! ```text
//! stores [--basalt FILE] [--dir DIR] [--rounds N] [--seconds S] [--write FILE]
//!        [--only etcd|Basalt put|get|empty CLIENTS]
//! ```
//! Promises: both have the same clients, on the same machine and disk, in turns; nothing that was started is left running. README.md
//! says what is needed. Not here: power loss, other machines, a full disk.

mod disk;
mod load;
mod report;
mod servers;
mod wire;

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use load::Slice;
use report::{Disk, Measured, Run, Syncs};
use servers::{Servers, Start};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};
use wire::{Kind, Op};

const CLIENTS: [usize; 3] = [1, 16, 256];
/// Seconds that both sides are left alone to see what they cost then.
const IDLE: f64 = 3.0;

struct Arguments {
    basalt: PathBuf,
    dir: PathBuf,
    rounds: usize,
    seconds: f64,
    write: Option<PathBuf>,
    only: Option<(Kind, Op, usize)>,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let Some(arguments) = arguments(&words) else {
        eprintln!(
            "usage: stores [--basalt FILE] [--dir DIR] [--rounds N] [--seconds S] [--write FILE]"
        );
        eprintln!("              [--only etcd|Basalt put|get|empty CLIENTS]");
        return ExitCode::FAILURE;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("an async runtime");
    runtime.block_on(async {
        let mut told = signal(SignalKind::terminate()).expect("a signal");
        tokio::select! {
            () = run(&arguments) => ExitCode::SUCCESS,
            // The servers are killed as the other branch is dropped.
            _ = told.recv() => ExitCode::FAILURE,
            _ = tokio::signal::ctrl_c() => ExitCode::FAILURE,
        }
    })
}

fn arguments(words: &[String]) -> Option<Arguments> {
    let basalt = std::env::var_os("BASALT").map(PathBuf::from);
    let mut arguments = Arguments {
        basalt: basalt.unwrap_or_else(|| PathBuf::from("../../target/release/basalt")),
        dir: PathBuf::from("target/stores"),
        rounds: 5,
        seconds: 2.0,
        write: None,
        only: None,
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--basalt" => arguments.basalt = PathBuf::from(words.next()?),
            "--dir" => arguments.dir = PathBuf::from(words.next()?),
            "--rounds" => arguments.rounds = words.next()?.parse().ok().filter(|n| *n >= 1)?,
            "--seconds" => arguments.seconds = words.next()?.parse().ok().filter(|s| *s > 0.0)?,
            "--write" => arguments.write = Some(PathBuf::from(words.next()?)),
            "--only" => {
                let name = words.next()?;
                let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name)?;
                let name = words.next()?;
                let op = Op::ALL
                    .into_iter()
                    .find(|op| op.name().split(' ').next() == Some(name))?;
                arguments.only = Some((kind, op, words.next()?.parse().ok()?));
            }
            _ => return None,
        }
    }
    Some(arguments)
}

async fn run(arguments: &Arguments) {
    let Arguments { basalt, dir, .. } = arguments;
    std::fs::create_dir_all(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    assert!(
        !disk::is_in_memory(dir),
        "{} is in memory; name a directory on a disk with --dir",
        dir.display()
    );
    if let Some((kind, op, clients)) = arguments.only {
        return only(arguments, kind, op, clients).await;
    }
    let mut kinds = vec![Kind::Basalt];
    let etcd = version("etcd");
    match etcd {
        Some(_) => kinds.insert(0, Kind::Etcd),
        None => eprintln!("etcd: not installed, skipped"),
    }
    let start = Start {
        basalt,
        dir,
        traced: false,
    };
    let mut measured = rows();
    let mut disk = Disk::default();
    let idle = {
        let mut all: Vec<Servers> = kinds
            .iter()
            .map(|kind| Servers::start(*kind, &start))
            .collect();
        for servers in &mut all {
            load::fill(servers).await;
        }
        let idle = idle(&all).await;
        for round in 0..arguments.rounds {
            eprintln!("round {} of {}", round + 1, arguments.rounds);
            disk::measure(dir, &mut disk);
            for row in &mut measured {
                let mut slices = vec![Slice::default(); all.len()];
                for turn in 0..all.len() {
                    let place = (round + turn) % all.len();
                    let (op, clients) = (row.op, row.clients);
                    let servers = &mut all[place];
                    slices[place] =
                        load::slice(servers, op, clients, arguments.seconds, false).await;
                }
                row.slices.push(slices);
            }
        }
        idle
    };
    let syncs = match version("strace") {
        Some(_) => Some(syncs(&kinds, arguments).await),
        None => None,
    };
    let run = Run {
        kinds: &kinds,
        etcd,
        rounds: arguments.rounds,
        seconds: arguments.seconds,
        idle,
        disk,
        syncs,
    };
    let document = report::document(&run, &measured);
    print!("{document}");
    if let Some(file) = &arguments.write {
        std::fs::write(file, document)
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
}

fn rows() -> Vec<Measured> {
    let rows = Op::ALL
        .into_iter()
        .flat_map(|op| CLIENTS.map(|clients| (op, clients)));
    rows.map(|(op, clients)| Measured {
        op,
        clients,
        slices: Vec::new(),
    })
    .collect()
}

/// Share of a core that each takes while nobody asks for anything.
async fn idle(all: &[Servers]) -> Vec<f64> {
    let cpu = || all.iter().map(Servers::cpu).collect::<Vec<f64>>();
    sleep(Duration::from_secs(1)).await;
    let before = cpu();
    sleep(Duration::from_secs_f64(IDLE)).await;
    let pairs = cpu().into_iter().zip(before);
    pairs
        .map(|(after, before)| (after - before) / IDLE)
        .collect()
}

/// Syncs of puts, by servers of their own, since whoever is traced is slower.
async fn syncs(kinds: &[Kind], arguments: &Arguments) -> Vec<Syncs> {
    let mut found = Vec::new();
    for kind in kinds {
        eprintln!("syncs of {}", kind.name());
        let start = Start {
            basalt: &arguments.basalt,
            dir: &arguments.dir,
            traced: true,
        };
        let mut servers = Servers::start(*kind, &start);
        for clients in CLIENTS {
            let slice = load::slice(&mut servers, Op::Put, clients, arguments.seconds, true).await;
            found.push(Syncs {
                kind: *kind,
                clients,
                slice,
            });
        }
    }
    found
}

/// One side at one workload, for a profiler: process ids first, then the rate.
async fn only(arguments: &Arguments, kind: Kind, op: Op, clients: usize) {
    let start = Start {
        basalt: &arguments.basalt,
        dir: &arguments.dir,
        traced: false,
    };
    let mut servers = Servers::start(kind, &start);
    load::fill(&mut servers).await;
    let (leader, _) = servers.leader(1).await;
    println!("pids {:?}, leader first", servers.pids(leader));
    for _ in 0..arguments.rounds {
        let slice = load::slice(&mut servers, op, clients, arguments.seconds, false).await;
        println!(
            "{:.0}/s, median {:.0} us, 99 of 100 {:.0} us, CPU {:.0} us a request",
            slice.rate(),
            slice.median * 1e6,
            slice.high * 1e6,
            slice.server_cpu * 1e6 / slice.requests as f64
        );
    }
}

/// The first line of what `program --version` says; `None` where it is not installed.
fn version(program: &str) -> Option<String> {
    let mut command = Command::new(Path::new(program));
    let output = command
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(text.lines().next().unwrap_or_default().to_owned())
}
