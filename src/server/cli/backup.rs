//! `basalt backup create | list | verify | delete | purge`: of a running server, or of a directory on this machine.
//!
//! With `--dir` the directory of backups is one on this machine, and the work is done here; without it a server does it
//! in the directory that its setting `backup-dir` names. Not here: the way back (`restore`).

use std::{fmt::Write as _, path::PathBuf};

use basalt_engine::{
    BackupOptions, Db, Options, Pacing, delete_backup, list_backups, purge_backups, verify_backups,
};
use basalt_proto::basaltpb::{
    BackupAction, BackupDone, BackupInfo, BackupRequest, State, StatusRequest, backup_event::Event,
};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    Done, Failure, ServerAddr,
    client::{Server, Target, block_on},
    confirm,
    output::{Cell, OutputArgs, size},
    progress::{ProgressArgs, Unit, Work},
};
use crate::{
    service::{describe, now},
    storage::{data_dir, explain_open},
};

const EXAMPLES: &str = "\
Examples:
  basalt backup create                               of a running server, into its --backup-dir
  basalt backup create --path DATA --dir BACKUPS     of a stopped one
  basalt backup list --dir BACKUPS
  basalt backup verify                               read every byte of all of them
  basalt backup purge --keep 7 --yes
  basalt restore --dir BACKUPS --to DATA             the way back";

#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(super) enum BackupCommand {
    /// Make a backup; what earlier ones in the directory have is not copied again
    Create(CreateArgs),
    /// List backups, oldest first
    List(ListArgs),
    /// Read and check every byte of backups; exit code 1 on damage
    Verify(VerifyArgs),
    /// Remove one backup
    Delete(DeleteArgs),
    /// Remove all but the newest backups
    Purge(PurgeArgs),
}

/// Where the backups are.
#[derive(Debug, Args)]
struct Place {
    /// Directory of backups on this machine [default: that of the server]
    #[arg(long, value_name = "BACKUPS")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    addr: ServerAddr,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CreateArgs {
    /// Data directory of a stopped server, or directory of an engine; it goes with --dir
    #[arg(long, value_name = "DATA", requires = "dir")]
    path: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
    /// What it is for
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    description: String,
    /// Most MiB a second [default: as fast as it goes]
    #[arg(long, value_name = "MIB")]
    rate: Option<u64>,
    /// Write memtables to tables first, so that less log is copied (a running server only)
    #[arg(long)]
    flush: bool,
    #[command(flatten)]
    progress: ProgressArgs,
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// Only this backup
    #[arg(value_name = "ID")]
    id: Option<u64>,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    progress: ProgressArgs,
}

#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    /// The backup
    #[arg(value_name = "ID", value_parser = clap::value_parser!(u64).range(1..))]
    id: u64,
    #[command(flatten)]
    place: Place,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
pub(super) struct PurgeArgs {
    /// How many are left
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    keep: u64,
    #[command(flatten)]
    place: Place,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub(super) fn run(command: &BackupCommand) -> Done {
    match command {
        BackupCommand::Create(args) => create(args),
        BackupCommand::List(args) => list(args),
        BackupCommand::Verify(args) => verify(args),
        BackupCommand::Delete(args) => {
            confirm(args.yes, &format!("remove backup {}", args.id))?;
            remove(&args.place, Removal::One(args.id))
        }
        BackupCommand::Purge(args) => {
            let question = format!("remove all backups but the newest {}", args.keep);
            confirm(args.yes, &question)?;
            remove(&args.place, Removal::AllBut(args.keep))
        }
    }
}

fn world(error: basalt_engine::Error) -> Failure {
    Failure::world(error.to_string())
}

fn create(args: &CreateArgs) -> Done {
    let work = args.progress.begin("backup create", Unit::Bytes);
    let rate = args.rate.map(|mib| mib.max(1) << 20);
    let done = match (&args.path, &args.place.dir) {
        (Some(path), Some(dir)) => create_here(args, path, dir, rate, &work)?,
        (None, Some(_)) => {
            return Err(Failure::usage(
                "--dir needs --path, the data directory to back up; a running server writes into its own --backup-dir",
            ));
        }
        _ => {
            let request = BackupRequest {
                action: BackupAction::Create.into(),
                description: args.description.clone(),
                bytes_per_second: rate.unwrap_or(0),
                flush: args.flush,
                ..BackupRequest::default()
            };
            ask(&args.place, request, &work)?
        }
    };
    work.done();
    let info = done.backups.first().cloned().unwrap_or_default();
    args.place
        .output
        .open()
        .document(&made_json(&done, &info), || made_text(&done, &info))
}

/// Of a directory that no server has open.
fn create_here(
    args: &CreateArgs,
    path: &std::path::Path,
    dir: &std::path::Path,
    rate: Option<u64>,
    work: &Work,
) -> Result<BackupDone, Failure> {
    let dirs = data_dir::locate(path).map_err(Failure::world)?;
    // Of a store of a cluster the state machine: its log and votes are promises that a copy must not repeat.
    let engine = dirs
        .first()
        .ok_or_else(|| Failure::world("there is no engine"))?;
    let db = Db::open_read_only(engine, Options::default());
    let db = db.map_err(|error| Failure::world(explain_open(&error)))?;
    let options = BackupOptions {
        description: args.description.clone(),
        pacing: Pacing {
            bytes_per_second: rate,
            ..Pacing::told(work.engine())
        },
        ..BackupOptions::dated(now())
    };
    let info = db.backup(dir, &options).map_err(world)?;
    Ok(BackupDone {
        dir: dir.display().to_string(),
        backups: vec![describe(info)],
        ..BackupDone::default()
    })
}

fn made_json(done: &BackupDone, info: &BackupInfo) -> Value {
    let regions = done.regions.iter().map(|region| {
        json!({
            "id": region.region_id, "applied": region.applied, "current": region.is_current,
            "leader_store_id": region.leader_store_id,
        })
    });
    json!({
        "dir": done.dir, "backup": info_json(info), "regions": regions.collect::<Vec<_>>(),
    })
}

fn info_json(info: &BackupInfo) -> Value {
    json!({
        "id": info.id, "time": info.time, "description": info.description, "last_seq": info.seq,
        "restored_bytes": info.bytes, "new_bytes": info.new_bytes, "tables": info.tables,
        "value_files": info.value_files, "log_segments": info.log_segments, "families": info.families,
        "kind": kind(&info.families),
    })
}

/// What a backup is of, by its families.
pub(super) fn kind(families: &[String]) -> &'static str {
    let has = |name: &str| families.iter().any(|family| family == name);
    if has("data-default") {
        "store"
    } else if crate::storage::FAMILIES.iter().all(|name| has(name)) {
        "standalone"
    } else {
        "engine"
    }
}

fn made_text(done: &BackupDone, info: &BackupInfo) -> String {
    let mut text = format!(
        "backup {} in {}: {} to restore, {} of them copied now\n",
        info.id,
        done.dir,
        size(info.bytes),
        size(info.new_bytes)
    );
    for region in &done.regions {
        let how = if region.is_current {
            "with everything that was acknowledged before".to_owned()
        } else {
            match region.leader_store_id {
                0 => "as this store has it; nobody is known to lead it".to_owned(),
                store => format!("as this store has it; store {store} leads it and may have more"),
            }
        };
        let _ = writeln!(
            text,
            "region {}: applied up to index {} or later, {how}",
            region.region_id, region.applied
        );
    }
    text
}

fn list(args: &ListArgs) -> Done {
    let done = match &args.place.dir {
        Some(dir) => {
            let list = list_backups(dir, &Options::default()).map_err(world)?;
            BackupDone {
                dir: dir.display().to_string(),
                backups: list.backups.into_iter().map(describe).collect(),
                damage: list.damage.iter().map(ToString::to_string).collect(),
                ..BackupDone::default()
            }
        }
        None => ask(&args.place, plain(BackupAction::List), &quiet())?,
    };
    let columns = [
        "id",
        "time",
        "restored_bytes",
        "new_bytes",
        "kind",
        "description",
    ];
    let output = args.place.output.open();
    let rows = done.backups.iter().map(|info| {
        let time = if output.is_terminal() {
            Cell::from(date(info.time))
        } else {
            Cell::Number(info.time)
        };
        vec![
            Cell::Number(info.id),
            time,
            Cell::Size(info.bytes),
            Cell::Size(info.new_bytes),
            kind(&info.families).into(),
            info.description.clone().into(),
        ]
    });
    output.table(&columns, &rows.collect::<Vec<_>>(), Some(5))?;
    damaged(&done)
}

fn damaged(done: &BackupDone) -> Done {
    match &done.damage[..] {
        [] => Ok(()),
        [one] => Err(Failure::world(one.clone())),
        [first, rest @ ..] => Err(Failure::world(format!(
            "{first} (and {} more places)",
            rest.len()
        ))),
    }
}

fn verify(args: &VerifyArgs) -> Done {
    let work = args.progress.begin("backup verify", Unit::Bytes);
    let done = match &args.place.dir {
        Some(dir) => {
            let pacing = Pacing::told(work.engine());
            let report =
                verify_backups(dir, args.id, &Options::default(), &pacing).map_err(world)?;
            BackupDone {
                dir: dir.display().to_string(),
                files: report.files,
                bytes: report.bytes,
                damage: report.damage.iter().map(ToString::to_string).collect(),
                ..BackupDone::default()
            }
        }
        None => {
            let request = BackupRequest {
                id: args.id.unwrap_or(0),
                ..plain(BackupAction::Verify)
            };
            ask(&args.place, request, &work)?
        }
    };
    work.done();
    let json = json!({
        "dir": done.dir, "files": done.files, "bytes": done.bytes, "damage": done.damage,
    });
    args.place.output.open().document(&json, || {
        let mut text = format!("{} files, {}\n", done.files, size(done.bytes));
        for damage in &done.damage {
            let _ = writeln!(text, "damage: {damage}");
        }
        if done.damage.is_empty() {
            text.push_str("ok\n");
        }
        text
    })?;
    match done.damage.len() {
        0 => Ok(()),
        count => Err(Failure::world(format!(
            "{} is damaged in {count} places",
            done.dir
        ))),
    }
}

enum Removal {
    One(u64),
    AllBut(u64),
}

fn remove(place: &Place, removal: Removal) -> Done {
    let freed = match &place.dir {
        Some(dir) => {
            let options = Options::default();
            match removal {
                Removal::One(id) => delete_backup(dir, id, &options),
                Removal::AllBut(keep) => {
                    purge_backups(dir, usize::try_from(keep).unwrap_or(usize::MAX), &options)
                }
            }
            .map_err(world)?
        }
        None => {
            let request = match removal {
                Removal::One(id) => BackupRequest {
                    id,
                    ..plain(BackupAction::Delete)
                },
                Removal::AllBut(keep) => BackupRequest {
                    keep,
                    ..plain(BackupAction::Purge)
                },
            };
            ask(place, request, &quiet())?.freed_bytes
        }
    };
    let text = format!("freed {}", size(freed));
    place
        .output
        .open()
        .done(json!({ "freed_bytes": freed }), &text)
}

fn plain(action: BackupAction) -> BackupRequest {
    BackupRequest {
        action: action.into(),
        ..BackupRequest::default()
    }
}

/// Work that is done at once.
fn quiet() -> Work {
    ProgressArgs::none().begin("backup", Unit::Bytes)
}

/// Has a server do it. Of several addresses it is the store that leads most regions.
fn ask(place: &Place, request: BackupRequest, work: &Work) -> Result<BackupDone, Failure> {
    let target = place.addr.get()?;
    block_on(async {
        let server = match request.action() {
            BackupAction::Create => leading(&target).await?,
            _ => Server::connect_any(&target).await?,
        };
        let mut events = server.answer(server.admin().backup(request).await)?;
        loop {
            let message = events.message().await.map(tonic::Response::new);
            match server.answer(message)?.and_then(|event| event.event) {
                Some(Event::Step(step)) => work.at(&step.what, step.done, step.total),
                Some(Event::Done(done)) => return Ok(done),
                None => {
                    let text = format!("{} broke the work off", server.addr());
                    return Err(Failure::world(text));
                }
            }
        }
    })
}

/// The server that leads most regions; the first that answers, where there is one only.
async fn leading(target: &Target) -> Result<Server, Failure> {
    if target.addrs.len() < 2 {
        return Server::connect_any(target).await;
    }
    let mut best: Option<(usize, Server)> = None;
    for addr in &target.addrs {
        let Ok(server) = Server::connect(addr, &target.access).await else {
            continue;
        };
        let Ok(status) = server.ask(server.admin().status(StatusRequest {})).await else {
            continue;
        };
        if status.state() != State::Serving {
            continue;
        }
        let led = status
            .regions
            .iter()
            .filter(|region| region.role == "leader")
            .count();
        if best.as_ref().is_none_or(|(most, _)| led > *most) {
            best = Some((led, server));
        }
    }
    let all = target.addrs.join(", ");
    let (_, server) =
        best.ok_or_else(|| Failure::world(format!("no server answers at any of {all}")))?;
    Ok(server)
}

/// Seconds since 1970 as a date and time of UTC.
pub(super) fn date(time: u64) -> String {
    let (days, seconds) = (time / 86_400, time % 86_400);
    // Days since the first of March of the year 0, in eras of 400 years, as the calendar repeats.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute) = (seconds / 3600, seconds / 60 % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (time, expected) in [
            (0, "1970-01-01 00:00Z"),
            (951_782_400, "2000-02-29 00:00Z"),
            (1_735_689_599, "2024-12-31 23:59Z"),
            (4_107_542_400, "2100-03-01 00:00Z"),
        ] {
            assert_eq!(date(time), expected);
        }
    }

    #[test]
    fn a_backup_says_what_it_is_of_by_its_families() {
        let kind_of = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            kind(&names)
        };
        assert_eq!(kind_of(&["default", "write", "lock"]), "standalone");
        assert_eq!(kind_of(&["default", "local", "data-default"]), "store");
        assert_eq!(kind_of(&["default", "users"]), "engine");
    }
}
