//! `basalt check DIR`: reads and verifies every byte of a store that no server has open, or of a directory of backups.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use basalt_engine::{Options, Pacing, VerifyReport, verify_backups, verify_dir_with};
use clap::Args;
use serde_json::json;

use super::{
    Done, Failure,
    output::size,
    print,
    progress::{ProgressArgs, Unit},
};
use crate::storage::data_dir;

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Data directory of a server, directory of an engine, or directory of backups
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    progress: ProgressArgs,
}

pub(super) fn run(args: &CheckArgs) -> Done {
    let dirs = match data_dir::locate(&args.dir) {
        Ok(dirs) => dirs,
        Err(_) if holds_backups(&args.dir) => return backups(args),
        Err(error) => return Err(Failure::world(error)),
    };
    let mut found = Ok(());
    for dir in &dirs {
        let work = args.progress.begin("check", Unit::Bytes);
        let report = verify_dir_with(dir, &Options::default(), &Pacing::told(work.engine()));
        let report = report.map_err(|error| Failure::world(error.to_string()))?;
        work.done();
        let mut text = if args.json {
            as_json(&report)
        } else {
            as_text(&report)
        };
        if dirs.len() > 1 && !args.json {
            text.insert_str(0, &format!("engine     {}\n", dir.display()));
        }
        print(text.as_bytes())?;
        let places = match report.damage.len() {
            0 => continue,
            1 => "one place".to_owned(),
            count => format!("{count} places"),
        };
        let text = format!("{} is damaged in {places}", dir.display());
        found = found.and(Err(Failure::world(text)));
    }
    found
}

fn holds_backups(dir: &Path) -> bool {
    let names = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names = names.map(|entry| entry.file_name());
    names.any(|name| name.to_string_lossy().starts_with("BACKUP-"))
}

fn backups(args: &CheckArgs) -> Done {
    let work = args.progress.begin("check", Unit::Bytes);
    let pacing = Pacing::told(work.engine());
    let report = verify_backups(&args.dir, None, &Options::default(), &pacing);
    let report = report.map_err(|error| Failure::world(error.to_string()))?;
    work.done();
    let damage: Vec<String> = report.damage.iter().map(ToString::to_string).collect();
    let text = if args.json {
        let json = json!({
            "backups": report.backups, "files": report.files, "bytes": report.bytes, "damage": damage,
        });
        format!("{json}\n")
    } else {
        let mut text = format!(
            "backups    {}, {} files, {}\n",
            report.backups,
            report.files,
            size(report.bytes)
        );
        for damage in &damage {
            let _ = writeln!(text, "damage     {damage}");
        }
        if damage.is_empty() {
            text.push_str("ok\n");
        }
        text
    };
    print(text.as_bytes())?;
    match damage.len() {
        0 => Ok(()),
        count => Err(Failure::world(format!(
            "{} is damaged in {count} places",
            args.dir.display()
        ))),
    }
}

fn as_text(report: &VerifyReport) -> String {
    let mut text = format!(
        "tables     {}, {}, {} entries\nlog        {} segments, {} records\nmanifest   {} edits\n",
        report.tables,
        size(report.table_bytes),
        report.entries,
        report.log_segments,
        report.log_records,
        report.edits
    );
    if report.value_files > 0 {
        let bytes = size(report.value_bytes);
        let _ = writeln!(text, "values     {} files, {bytes}", report.value_files);
    }
    if report.log_bytes_dropped > 0 {
        let dropped = size(report.log_bytes_dropped);
        let _ = writeln!(
            text,
            "unfinished {dropped} of writes behind the end of the log"
        );
    }
    for damage in &report.damage {
        let _ = writeln!(text, "damage     {damage}");
    }
    if report.damage.is_empty() {
        text.push_str("ok\n");
    }
    text
}

fn as_json(report: &VerifyReport) -> String {
    let damage: Vec<String> = report.damage.iter().map(ToString::to_string).collect();
    let json = json!({
        "tables": report.tables, "table_bytes": report.table_bytes, "entries": report.entries,
        "value_files": report.value_files, "value_bytes": report.value_bytes,
        "log_segments": report.log_segments, "log_records": report.log_records,
        "log_bytes_dropped": report.log_bytes_dropped, "manifest_edits": report.edits,
        "damage": damage,
    });
    format!("{json}\n")
}
