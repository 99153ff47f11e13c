//! Backups of a running server: made, listed, verified and removed in the one directory that its settings name.
//!
//! Promises: no path comes from a client; a backup of a store of a cluster says of each region how far it goes, and
//! whether anything that was acknowledged before may be missing (`docs/adr/0019`).
//!
//! Not here: what a backup is (`basalt_engine`), how one comes back (`cli::restore`).

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use basalt_engine::{
    BackupInfo, BackupOptions, Db, Error, Options, Pacing, Progress, delete_backup, list_backups,
    purge_backups, verify_backups,
};
use basalt_proto::basaltpb::{
    self, BackedUpRegion, BackupAction, BackupDone, BackupEvent, BackupRequest, backup_event::Event,
};
use tonic::Status;

use super::streams::{EventStream, watched};

/// What a backup request is about.
pub(super) struct Job {
    pub(super) dir: PathBuf,
    pub(super) request: BackupRequest,
    /// The engine of user data.
    pub(super) db: Db,
    /// The regions, of a store of a cluster.
    pub(super) regions: Vec<BackedUpRegion>,
    /// Who the store is, in words; empty for a standalone one.
    pub(super) who: String,
}

impl Job {
    /// Does it; `stop` says when the server is to stop.
    pub(super) fn start(
        self,
        stop: impl Fn() -> bool + Send + Sync + 'static,
    ) -> EventStream<BackupEvent> {
        let step = |step| BackupEvent {
            event: Some(Event::Step(step)),
        };
        watched(step, stop, move |progress| {
            let done = self.run(progress).map_err(|error| refused(&error))?;
            Ok(BackupEvent {
                event: Some(Event::Done(done)),
            })
        })
    }

    fn run(self, progress: Arc<dyn Progress>) -> Result<BackupDone, Error> {
        let (dir, request) = (&*self.dir, &self.request);
        let options = Options::default();
        let mut done = BackupDone {
            dir: dir.display().to_string(),
            ..BackupDone::default()
        };
        match request.action() {
            BackupAction::Unspecified => {
                return Err(Error::InvalidArgument("the request names no action".into()));
            }
            BackupAction::Create => {
                let made = self.create(progress)?;
                done.backups.push(describe(made));
                done.regions = self.regions;
            }
            BackupAction::List => {
                let list = list_backups(dir, &options).or_else(none_yet)?;
                done.backups = list.backups.into_iter().map(describe).collect();
                done.damage = list.damage.iter().map(ToString::to_string).collect();
            }
            BackupAction::Verify => {
                let id = Some(request.id).filter(|id| *id != 0);
                let report = verify_backups(dir, id, &options, &Pacing::told(progress))?;
                (done.files, done.bytes) = (report.files, report.bytes);
                done.damage = report.damage.iter().map(ToString::to_string).collect();
            }
            BackupAction::Delete => done.freed_bytes = delete_backup(dir, request.id, &options)?,
            BackupAction::Purge => {
                let keep = usize::try_from(request.keep).unwrap_or(usize::MAX);
                done.freed_bytes = purge_backups(dir, keep, &options)?;
            }
        }
        Ok(done)
    }

    fn create(&self, progress: Arc<dyn Progress>) -> Result<BackupInfo, Error> {
        let request = &self.request;
        let description = if request.description.is_empty() {
            self.described()
        } else {
            request.description.clone()
        };
        let options = BackupOptions {
            description,
            flush: request.flush,
            pacing: Pacing {
                bytes_per_second: Some(request.bytes_per_second).filter(|rate| *rate != 0),
                ..Pacing::told(progress)
            },
            ..BackupOptions::dated(now())
        };
        self.db.backup(&self.dir, &options)
    }

    /// What the server knows of a backup that is made now.
    fn described(&self) -> String {
        let regions = self.regions.iter().map(|region| {
            let behind = if region.is_current {
                ""
            } else {
                ", may be behind"
            };
            format!(
                "region {} from index {}{behind}",
                region.region_id, region.applied
            )
        });
        let parts: Vec<String> = [self.who.clone()].into_iter().chain(regions).collect();
        parts.join("; ")
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// A directory that nobody has made yet holds no backups.
fn none_yet(error: Error) -> Result<basalt_engine::BackupList, Error> {
    match &error {
        Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(basalt_engine::BackupList::default())
        }
        _ => Err(error),
    }
}

/// A backup as it is told.
pub(crate) fn describe(info: BackupInfo) -> basaltpb::BackupInfo {
    basaltpb::BackupInfo {
        id: info.id,
        time: info.time,
        description: info.description,
        seq: info.seq,
        bytes: info.bytes,
        new_bytes: info.new_bytes,
        tables: info.tables,
        value_files: info.value_files,
        log_segments: info.log_segments,
        families: info.families,
    }
}

/// Where backups go, or what a client is told that may not have any.
pub(super) fn directory(setting: Option<&Path>) -> Result<PathBuf, Status> {
    setting.map(Path::to_path_buf).ok_or_else(|| {
        Status::failed_precondition(
            "the server has no directory for backups; start it with --backup-dir DIR",
        )
    })
}

fn refused(error: &Error) -> Status {
    let text = error.to_string();
    match error {
        Error::InvalidArgument(_) => Status::invalid_argument(text),
        Error::Cancelled => Status::cancelled("the backup was broken off; there is none"),
        Error::Closed => Status::unavailable("the store is stopping"),
        _ => Status::failed_precondition(text),
    }
}
