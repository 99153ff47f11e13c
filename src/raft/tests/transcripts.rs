//! Transcripts: data files of commands to small groups of nodes and of every message, log line and piece of work that
//! must come of them (`interaction/`), of quorums (`quorum/`) and of changes of the membership (`confchange/`).
//!
//! - The project's own are in `testdata/`. `REWRITE=1` writes their outputs anew, to be read and judged before they
//!   are committed.
//! - Those of the reference implementation are read in place from `../shared/raft-transcripts` beside the workspace,
//!   if that is there.
//! - `RAFT_TRANSCRIPTS=folder` names further ones, with the same three subfolders, of which some may be missing.
//!
//! A transcript holds byte for byte. Not here: what chance brings about.

#[path = "transcripts/commands.rs"]
mod commands;
#[path = "transcripts/confchange.rs"]
mod confchange;
#[path = "transcripts/datadriven.rs"]
mod datadriven;
#[path = "transcripts/describe.rs"]
mod describe;
#[path = "transcripts/environment.rs"]
mod environment;
#[path = "transcripts/output.rs"]
mod output;
#[path = "transcripts/quorum.rs"]
mod quorum;

use std::path::{Path, PathBuf};

use confchange::Membership;
use datadriven::{Outcome, run_file};
use environment::Environment;

/// Subfolders, by what their files command.
const KINDS: [&str; 3] = ["interaction", "quorum", "confchange"];

fn run(kind: &str, file: &Path, rewrite: bool) -> Outcome {
    match kind {
        "interaction" => {
            let mut env = Environment::default();
            run_file(file, rewrite, |step| commands::run(&mut env, step))
        }
        "quorum" => run_file(file, rewrite, quorum::run),
        _ => {
            let mut membership = Membership::default();
            run_file(file, rewrite, |step| membership.run(step))
        }
    }
}

/// The data files of a folder, sorted; none where it is missing: not every collection has all three kinds.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(found) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let paths = found.map(|entry| entry.expect("a readable folder").path());
    let mut paths: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "txt"))
        .collect();
    paths.sort();
    paths
}

/// Runs all transcripts under `folder`; returns how many there were.
fn run_all(folder: &Path, rewrite: bool) -> usize {
    let (mut count, mut steps, mut failures) = (0, 0, Vec::new());
    for kind in KINDS {
        for file in files(&folder.join(kind)) {
            let outcome = run(kind, &file, rewrite);
            let name = file.file_name().unwrap_or_default().display();
            let failed = outcome.failures.len();
            println!("{kind}/{name}: {} steps, {failed} failed", outcome.steps);
            (count, steps) = (count + 1, steps + outcome.steps);
            failures.extend(outcome.failures);
        }
    }
    println!(
        "{}: {count} files, {steps} steps, {} failed",
        folder.display(),
        failures.len()
    );
    for failure in &failures {
        println!("\n{failure}");
    }
    assert!(
        failures.is_empty(),
        "{} of {steps} steps failed",
        failures.len()
    );
    count
}

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_transcripts_of_this_project_hold() {
    let rewrite = std::env::var_os("REWRITE").is_some();
    let count = run_all(&package().join("testdata"), rewrite);
    assert!(count > 0, "no transcript of our own was found");
}

#[test]
fn the_transcripts_of_the_reference_hold() {
    let folder = package().join("../../../shared/raft-transcripts");
    if !folder.exists() {
        println!("skipped: there is no {}", folder.display());
        return;
    }
    assert!(
        run_all(&folder, false) > 0,
        "no transcript in {}",
        folder.display()
    );
}

#[test]
fn the_transcripts_of_a_named_folder_hold() {
    let Some(folder) = std::env::var_os("RAFT_TRANSCRIPTS") else {
        println!("skipped: RAFT_TRANSCRIPTS names no folder");
        return;
    };
    let mut folder = PathBuf::from(folder);
    if !folder.exists() {
        // Tests run in their package's folder; the name may have been given from the workspace's.
        folder = package().join("../..").join(folder);
    }
    assert!(
        run_all(&folder, false) > 0,
        "no transcript in {}",
        folder.display()
    );
}
