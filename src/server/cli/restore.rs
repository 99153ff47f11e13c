//! `basalt restore`: a backup becomes a data directory again, read back and verified.
//!
//! ```text
//! backup of a standalone server   --> standalone
//! backup of a store of a cluster  --> standalone, or the first store of a new cluster; never the member it was
//! backup of any other engine      --> that engine's directory
//! ```
//! Promises: the target is empty or absent, and no server takes it before everything in it is verified: `MODE` comes last.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use basalt_engine::{BackupInfo, Options, Pacing, list_backups, restore_backup, verify_dir_with};
use clap::{Args, ValueEnum};
use serde_json::json;

use super::{
    Done, Failure,
    backup::{date, kind},
    output::{OutputArgs, size},
    progress::{ProgressArgs, Unit, Work},
};
use crate::{
    config::DEFAULT_ADDR,
    replicated::{
        revive::{self, Point},
        setup::DEFAULT_CLUSTER_NAME,
    },
    storage::data_dir::{self, Layout, MAX_CLUSTER_NAME_LEN, Mode},
};

const EXAMPLES: &str = "\
Examples:
  basalt restore --dir BACKUPS --to DATA                       the newest backup
  basalt restore --dir BACKUPS --id 3 --to DATA
  basalt restore --dir BACKUPS --to DATA --as cluster --addr 10.0.0.1:20160
                                                               the first store of a new cluster
  basalt server --path DATA";

/// What the restored data become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum As {
    /// A standalone server's data directory
    Standalone,
    /// The first store of a new cluster; others join it
    Cluster,
    /// The directory of an engine, as it was
    Engine,
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RestoreArgs {
    /// Directory of backups
    #[arg(long, value_name = "BACKUPS")]
    dir: PathBuf,
    /// The backup [default: the newest]
    #[arg(long, value_name = "ID")]
    id: Option<u64>,
    /// Data directory to be made; it must be empty or absent
    #[arg(long, value_name = "DATA")]
    to: PathBuf,
    /// What it becomes [default: what it was, unless that was a store of a cluster]
    #[arg(long = "as", value_name = "KIND", value_enum)]
    form: Option<As>,
    /// Where the new cluster's store will be reached (--as cluster)
    #[arg(long, value_name = "HOST:PORT", default_value = DEFAULT_ADDR)]
    addr: String,
    /// What the new cluster is called (--as cluster)
    #[arg(long, value_name = "NAME", default_value = DEFAULT_CLUSTER_NAME)]
    cluster_name: String,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    progress: ProgressArgs,
}

pub(super) fn run(args: &RestoreArgs) -> Done {
    let info = find(args)?;
    let form = choose(args, &info)?;
    let work = args.progress.begin("restore", Unit::Bytes);
    let points = match form {
        As::Engine => {
            restore(args, &info, &args.to, &work)?;
            Vec::new()
        }
        As::Standalone | As::Cluster => {
            data_dir::claim(&args.to).map_err(Failure::world)?;
            let points = data(args, &info, form, &work);
            points.inspect_err(|_| undo(&args.to))?
        }
    };
    work.done();
    report(args, &info, form, &points)
}

fn world(error: basalt_engine::Error) -> Failure {
    Failure::world(error.to_string())
}

/// The backup that is meant.
fn find(args: &RestoreArgs) -> Result<BackupInfo, Failure> {
    let list = list_backups(&args.dir, &Options::default()).map_err(world)?;
    let shown = args.dir.display();
    let mut backups = list.backups.into_iter();
    match args.id {
        Some(id) => backups.find(|backup| backup.id == id),
        None => backups.next_back(),
    }
    .ok_or_else(|| match (args.id, list.damage.first()) {
        (_, Some(damage)) => Failure::world(damage.to_string()),
        (Some(id), None) => Failure::world(format!(
            "there is no backup {id} in {shown}; see: basalt backup list --dir {shown}"
        )),
        (None, None) => Failure::world(format!("there is no backup in {shown}")),
    })
}

fn choose(args: &RestoreArgs, info: &BackupInfo) -> Result<As, Failure> {
    let was = kind(&info.families);
    match (was, args.form) {
        ("standalone", None | Some(As::Standalone)) => Ok(As::Standalone),
        ("store", Some(form @ (As::Standalone | As::Cluster))) => {
            if form == As::Cluster {
                check_names(args)?;
            }
            Ok(form)
        }
        ("engine", None) | (_, Some(As::Engine)) => Ok(As::Engine),
        ("store", None) => Err(Failure::usage(
            "this is a backup of a store of a cluster, which must not come back as the member it was: its votes since would \
             be forgotten; say --as cluster for the first store of a new cluster, or --as standalone",
        )),
        ("standalone", Some(As::Cluster)) => Err(Failure::usage(
            "this is a backup of a standalone server; it comes back as --as standalone",
        )),
        (_, Some(form)) => Err(Failure::usage(format!(
            "this is a backup of an engine with the families {}, and no server's; it comes back as --as engine, not {form:?}",
            info.families.join(", ")
        ))),
        (_, None) => Ok(As::Engine),
    }
}

fn check_names(args: &RestoreArgs) -> Done {
    let name = &args.cluster_name;
    let is_plain = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    let fits = (1..=MAX_CLUSTER_NAME_LEN).contains(&name.len());
    if !fits || !name.bytes().all(is_plain) || name.trim() != name {
        return Err(Failure::usage(format!(
            "{name:?} is no name of a cluster: 1 to {MAX_CLUSTER_NAME_LEN} plain characters"
        )));
    }
    let port = args
        .addr
        .rsplit_once(':')
        .and_then(|(host, port)| Some(port.parse::<u16>().ok()?).filter(|_| !host.is_empty()));
    match port {
        Some(port) if port != 0 => Ok(()),
        _ => Err(Failure::usage(format!(
            "{:?} is no address that others can reach: HOST:PORT",
            args.addr
        ))),
    }
}

/// Restores the engine, and reads it again.
fn restore(args: &RestoreArgs, info: &BackupInfo, to: &Path, work: &Work) -> Done {
    let (options, pacing) = (Options::default(), Pacing::told(work.engine()));
    restore_backup(&args.dir, Some(info.id), to, &options, &pacing).map_err(world)?;
    verify(to, work)
}

fn verify(dir: &Path, work: &Work) -> Done {
    let told = work.clone();
    let pacing = Pacing::told(std::sync::Arc::new(
        move |step: basalt_engine::ProgressStep| {
            told.at("verifying", step.done, step.total);
            std::ops::ControlFlow::Continue(())
        },
    ));
    let report = verify_dir_with(dir, &Options::default(), &pacing).map_err(world)?;
    match report.damage.first() {
        None => Ok(()),
        Some(damage) => Err(Failure::world(format!(
            "what was restored does not verify: {damage}"
        ))),
    }
}

/// A data directory, all of it but what is not verified.
fn data(
    args: &RestoreArgs,
    info: &BackupInfo,
    form: As,
    work: &Work,
) -> Result<Vec<Point>, Failure> {
    let (dir, layout) = (&*args.to, Layout::of(&args.to));
    if kind(&info.families) == "standalone" {
        restore(args, info, &layout.kv(), work)?;
        data_dir::write_mode(dir, &Mode::Standalone).map_err(Failure::world)?;
        return Ok(Vec::new());
    }
    if form == As::Cluster {
        restore(args, info, &layout.kv(), work)?;
        let status = beside(&args.addr);
        let made = revive::as_cluster(dir, &args.cluster_name, &args.addr, &status);
        let (_, points) = made.map_err(Failure::world)?;
        return Ok(points);
    }
    // The rows have other families there: they are copied out of the restored engine, which goes then.
    let store = dir.join(STORE_DIR);
    restore(args, info, &store, work)?;
    let points = revive::as_standalone(&store, dir, |bytes| work.at("copying rows", bytes, 0));
    let points = points.map_err(Failure::world)?;
    fs::remove_dir_all(&store)
        .map_err(|error| Failure::world(format!("cannot remove {}: {error}", store.display())))?;
    verify(&layout.kv(), work)?;
    data_dir::write_mode(dir, &Mode::Standalone).map_err(Failure::world)?;
    Ok(points)
}

/// Where the engine of a store is restored to, until its rows are copied.
const STORE_DIR: &str = "store.restoring";

/// The status address that goes with an address, as `basalt server` chooses it.
fn beside(addr: &str) -> String {
    let parts = addr.rsplit_once(':');
    let parts = parts.and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    match parts.and_then(|(host, port)| Some((host, port.checked_add(20)?))) {
        Some((host, port)) => format!("{host}:{port}"),
        None => "127.0.0.1:0".to_owned(),
    }
}

/// Takes away what a restore that failed has left, so that it can be tried again. The directory was empty.
fn undo(dir: &Path) {
    let layout = Layout::of(dir);
    for part in [layout.kv(), layout.raft(), dir.join(STORE_DIR)] {
        let _ = fs::remove_dir_all(part);
    }
    for file in [layout.members(), dir.join("restoring.sst.tmp")] {
        let _ = fs::remove_file(file);
    }
}

fn report(args: &RestoreArgs, info: &BackupInfo, form: As, points: &[Point]) -> Done {
    let word = match form {
        As::Standalone => "standalone",
        As::Cluster => "cluster",
        As::Engine => "engine",
    };
    let regions = points
        .iter()
        .map(|point| json!({ "id": point.region, "applied": point.applied }));
    let json = json!({
        "backup": info.id, "time": info.time, "description": info.description, "last_seq": info.seq,
        "restored_bytes": info.bytes, "dir": args.to, "as": word, "regions": regions.collect::<Vec<_>>(),
        "verified": true,
    });
    args.output.open().document(&json, || {
        let mut text = format!(
            "restored backup {} of {} ({}) to {} and verified it\n",
            info.id,
            date(info.time),
            size(info.bytes),
            args.to.display()
        );
        for point in points {
            let _ = writeln!(
                text,
                "region {}: as of index {} of its log",
                point.region, point.applied
            );
        }
        if form != As::Engine {
            let _ = writeln!(
                text,
                "start it with: basalt server --path {}",
                args.to.display()
            );
        }
        text
    })
}
