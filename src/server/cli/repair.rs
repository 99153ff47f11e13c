//! `basalt repair DIR`: a damaged store becomes one again, of everything in it that can be read.
//!
//! Promises: `--dry-run` changes nothing and prints the plan; nothing is deleted, what is not kept goes to `lost/`
//! beside it; a store that verifies is left as it is. Not here: the repair itself (`basalt_engine::repair_dir`).

use std::{fmt::Write as _, path::PathBuf};

use basalt_engine::{Fate, Options, Pacing, RepairOptions, RepairReport, repair_dir};
use clap::Args;
use serde_json::{Value, json};

use super::{
    Done, Failure, confirm,
    output::OutputArgs,
    progress::{ProgressArgs, Unit},
};
use crate::storage::data_dir;

const EXAMPLES: &str = "\
Examples:
  basalt check DATA                     is it damaged?
  basalt repair DATA --dry-run          what would be kept and what put aside
  basalt repair DATA --yes
  basalt repair DATA/kv --family-of-strays default --yes
                                        without any manifest: whose the tables are

A store of a cluster is better replaced than repaired: basalt member replace OLD NEW";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RepairArgs {
    /// Data directory of a server, or directory of an engine
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Only print the plan
    #[arg(long)]
    dry_run: bool,
    /// The family of tables that no manifest tells of; without it they are put aside
    #[arg(long, value_name = "NAME")]
    family_of_strays: Option<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    progress: ProgressArgs,
}

pub(super) fn run(args: &RepairArgs) -> Done {
    let dirs = engines(args)?;
    if !args.dry_run {
        let question = format!(
            "repair {}; what cannot be kept goes to lost/",
            args.dir.display()
        );
        confirm(args.yes, &question)?;
    }
    let output = args.output.open();
    for dir in &dirs {
        let work = args.progress.begin("repair", Unit::Bytes);
        let repair = RepairOptions {
            dry_run: args.dry_run,
            family_of_strays: args.family_of_strays.clone(),
            pacing: Pacing::told(work.engine()),
        };
        let report = repair_dir(dir, &Options::default(), &repair);
        let report = report.map_err(|error| Failure::world(error.to_string()))?;
        work.done();
        let json = json!({
            "dir": dir, "dry_run": args.dry_run, "sound": report.sound,
            "files": report.files.iter().map(file_json).collect::<Vec<_>>(), "doubts": report.doubts,
        });
        output.document(&json, || {
            let head = if dirs.len() > 1 {
                format!("engine {}\n", dir.display())
            } else {
                String::new()
            };
            head + &as_text(&report, args.dry_run)
        })?;
    }
    Ok(())
}

/// The engines' directories, also where a file of the server's is what is missing.
fn engines(args: &RepairArgs) -> Result<Vec<PathBuf>, Failure> {
    match data_dir::locate(&args.dir) {
        Ok(dirs) => Ok(dirs),
        // Without CURRENT it may be an engine's all the same; the engine knows.
        Err(_) if !args.dir.join("MODE").exists() && args.dir.is_dir() => {
            Ok(vec![args.dir.clone()])
        }
        Err(error) => Err(Failure::world(error)),
    }
}

fn file_json(file: &basalt_engine::FileReport) -> Value {
    let (fate, why, good, of) = match &file.fate {
        Fate::Kept => ("kept", None, None, None),
        Fate::Salvaged { good, of } => ("salvaged", None, Some(*good), *of),
        Fate::PutAside { why } => ("put_aside", Some(why.clone()), None, None),
        _ => ("missing", None, None, None),
    };
    json!({ "name": file.name, "fate": fate, "why": why, "good_parts": good, "parts": of })
}

fn as_text(report: &RepairReport, dry_run: bool) -> String {
    if report.sound {
        return "sound: nothing to repair\n".to_owned();
    }
    let mut text = String::new();
    let kept = report
        .files
        .iter()
        .filter(|file| file.fate == Fate::Kept)
        .count();
    let _ = writeln!(text, "{kept} files are kept as they are");
    for file in report.files.iter().filter(|file| file.fate != Fate::Kept) {
        let _ = writeln!(text, "{file}");
    }
    for doubt in &report.doubts {
        let _ = writeln!(text, "note: {doubt}");
    }
    text.push_str(if dry_run {
        "nothing was changed: this is the plan\n"
    } else {
        "repaired; what was not kept is in lost/\n"
    });
    text
}
