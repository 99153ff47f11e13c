//! The facts of a running server, and what the checks say of them.

use std::{
    fmt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use basalt_engine::{Options, list_backups};
use basalt_proto::basaltpb::{ExamineResponse, Finding, Severity, State, StatusResponse};

use super::{
    check_backups, check_certificate, check_clock, check_disk, check_engine, check_exposure,
    check_open_files, check_region, disk_space, finding,
};
use crate::{
    config::Config,
    storage::{Storage, open_engines},
    tls::Tls,
};

/// What a server has to look at beside its status.
pub(crate) struct Examiner {
    path: PathBuf,
    backup_dir: Option<PathBuf>,
    addr: String,
    has_rights: bool,
    connections: u64,
    tls: Option<Arc<Tls>>,
    storage: Arc<dyn Storage>,
}

impl fmt::Debug for Examiner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Examiner")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Examiner {
    pub(crate) fn new(
        config: &Config,
        addr: String,
        tls: Option<Arc<Tls>>,
        has_rights: bool,
        storage: Arc<dyn Storage>,
    ) -> Self {
        Self {
            path: config.path.clone(),
            backup_dir: config.backup_dir.clone(),
            addr,
            has_rights,
            connections: config.limits.connections as u64,
            tls,
            storage,
        }
    }

    /// Looks at everything. Blocks on the disk: of backups it reads the lists.
    pub(crate) fn examine(&self, status: &StatusResponse) -> ExamineResponse {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let now = since.as_secs();
        let mut findings: Vec<Finding> = check_state(status).into_iter().collect();
        let mut checked = vec![
            "state",
            "disk",
            "open files",
            "engines",
            "clock",
            "exposure",
            "backups",
        ];
        findings.extend(self.check_disks());
        let engines = open_engines(&*self.storage);
        let mut tables = 0;
        for engine in &engines {
            let stats = engine.db.stats();
            let levels = stats.families.iter().flat_map(|family| &family.levels);
            tables += levels.map(|level| level.tables as u64).sum::<u64>();
            findings.extend(check_engine(engine.name, &stats));
        }
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        findings.extend(limit.and_then(|limit| check_open_files(limit, tables, self.connections)));
        findings.extend(check_clock(now));
        let has_tls = self.tls.is_some();
        findings.extend(check_exposure(&self.addr, has_tls, self.has_rights));
        findings.extend(self.check_backups(now));
        if let Some(tls) = &self.tls {
            checked.push("certificate");
            findings.extend(check_certificate(left_seconds(tls.ends())));
        }
        if !status.regions.is_empty() {
            checked.push("regions");
            findings.extend(status.regions.iter().flat_map(check_region));
        }
        ExamineResponse {
            findings,
            checked: checked.into_iter().map(str::to_owned).collect(),
            unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        }
    }

    fn check_disks(&self) -> Vec<Finding> {
        let backups = self.backup_dir.iter().map(|dir| ("backups", dir));
        let all = [("data directory", &self.path)].into_iter().chain(backups);
        all.filter_map(|(what, path)| {
            let (free, total) = disk_space(path)?;
            check_disk(what, path, free, total)
        })
        .collect()
    }

    fn check_backups(&self, now: u64) -> Vec<Finding> {
        let Some(dir) = &self.backup_dir else {
            return check_backups(None, 0, now);
        };
        match list_backups(dir, &Options::default()) {
            Ok(list) => {
                let newest = list.backups.iter().map(|backup| backup.time).max();
                check_backups(newest, list.damage.len(), now)
            }
            // One is being made.
            Err(basalt_engine::Error::Locked { .. }) => Vec::new(),
            Err(_) => check_backups(None, 0, now),
        }
    }
}

/// Seconds until `when`; negative: it has passed.
fn left_seconds(when: SystemTime) -> i64 {
    let whole = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    match when.duration_since(SystemTime::now()) {
        Ok(left) => whole(left),
        Err(past) => -whole(past.duration()),
    }
}

/// What the server says of itself.
fn check_state(status: &StatusResponse) -> Option<Finding> {
    match status.state() {
        State::Fenced => Some(finding(
            "FENCED",
            Severity::Fault,
            format!(
                "the store serves nothing until it is restarted: {}",
                status.reason
            ),
            "mend the cause, then restart it; a store that was removed needs an empty directory and --join",
        )),
        _ => None,
    }
}
