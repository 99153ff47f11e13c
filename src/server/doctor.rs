//! What is wrong with a server or a directory, or soon will be, in words with what to do.
//!
//! ```text
//! facts (a running server: `examine`; a closed directory: `cli::doctor`) --> checks --> findings
//! ```
//! Promises: looking changes nothing; each finding has a code of [`CODES`], whose page is the heading of that name in
//! `docs/operations/doctor.md` (a test compares them).
//!
//! Not here: repairing anything.

use std::{path::Path, time::Duration};

use basalt_engine::Stats;
use basalt_proto::basaltpb::{Finding, RegionStatus, Severity};

mod examine;

pub(crate) use examine::Examiner;

/// Every code there is.
pub(crate) const CODES: [&str; 24] = [
    "BACKUP-DAMAGED",
    "BACKUP-NONE",
    "BACKUP-OLD",
    "CERTIFICATE-ENDS",
    "CLOCK-APART",
    "CLOCK-WRONG",
    "DAMAGED",
    "DISK-FULL-SOON",
    "FENCED",
    "FILES-ASIDE",
    "LEVEL0-DEEP",
    "MAJORITY-MISSING",
    "MEMBER-BEHIND",
    "MEMBER-SILENT",
    "MERGE-FAILS",
    "NO-LEADER",
    "NO-STORE",
    "OPEN-FILES",
    "PLAIN-TEXT",
    "READ-ONLY",
    "RESTORE-UNFINISHED",
    "RIGHTS-OPEN",
    "SERVER-SILENT",
    "STALLED",
];

/// Free parts of a disk, in percent, below which it is warned of, and below which it is a fault.
const DISK_FREE: (u64, u64) = (10, 2);
/// Tables of L0 from which reads suffer.
const DEEP_LEVEL0: usize = 12;
/// File descriptors that a server needs beside its tables and connections.
const SPARE_FILES: u64 = 256;
/// Days before its end from which a certificate is warned of.
const CERTIFICATE_DAYS: u64 = 30;
/// Days after which the newest backup is old.
const BACKUP_DAYS: u64 = 7;
/// Entries of a log by which a member is behind enough to be told.
const BEHIND: u64 = 10_000;
/// Seconds since 1970 before which a clock is surely wrong: the beginning of 2025.
const CLOCK_FLOOR: u64 = 1_735_689_600;
/// How far clocks may be apart.
pub(crate) const CLOCKS_APART: Duration = Duration::from_secs(1);

const DAY: u64 = 24 * 3600;

/// A finding.
pub(crate) fn finding(
    code: &'static str,
    severity: Severity,
    what: impl Into<String>,
    advice: impl Into<String>,
) -> Finding {
    debug_assert!(CODES.contains(&code), "{code} has no page");
    Finding {
        code: code.to_owned(),
        severity: severity.into(),
        what: what.into(),
        advice: advice.into(),
    }
}

/// A disk with so many bytes, of which so many are free.
pub(crate) fn check_disk(what: &str, path: &Path, free: u64, total: u64) -> Option<Finding> {
    let percent = free.saturating_mul(100) / total.max(1);
    let severity = match percent {
        percent if percent < DISK_FREE.1 => Severity::Fault,
        percent if percent < DISK_FREE.0 => Severity::Warning,
        _ => return None,
    };
    Some(finding(
        "DISK-FULL-SOON",
        severity,
        format!(
            "the disk of the {what} {} has {percent} % left: {} MiB",
            path.display(),
            free >> 20
        ),
        "make room or move to a larger disk; `basalt stat` shows what takes it, `basalt backup purge` removes old backups",
    ))
}

/// Free and all bytes of the disk that `path` is on, for those who are not root.
pub(crate) fn disk_space(path: &Path) -> Option<(u64, u64)> {
    let found = rustix::fs::statvfs(path).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Some((bytes(found.f_bavail), bytes(found.f_blocks)))
}

/// The limit of open files against what is open at most.
pub(crate) fn check_open_files(limit: u64, tables: u64, connections: u64) -> Option<Finding> {
    let needed = tables + connections + SPARE_FILES;
    let severity = if limit < tables + SPARE_FILES {
        Severity::Fault
    } else if limit < needed.max(1024) {
        Severity::Warning
    } else {
        return None;
    };
    Some(finding(
        "OPEN-FILES",
        severity,
        format!(
            "this process may open {limit} files; {tables} tables and up to {connections} connections want {needed}"
        ),
        "raise the limit (`ulimit -n`, systemd: LimitNOFILE=), or lower --max-connections",
    ))
}

/// An engine by its figures.
pub(crate) fn check_engine(name: &str, stats: &Stats) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(cause) = &stats.read_only {
        found.push(finding(
            "READ-ONLY",
            Severity::Fault,
            format!("the {name} engine takes no writes: {cause}"),
            "find out what the disk has (dmesg, room), then restart the server; where files are damaged: `basalt check DIR`",
        ));
    }
    if let Some(why) = &stats.stall {
        found.push(finding(
            "STALLED",
            Severity::Warning,
            format!("writes to the {name} engine wait: {why}"),
            "it ends by itself where the load does; else the disk is too slow for it: `basalt stat --watch` shows which level fills",
        ));
    }
    for family in &stats.families {
        let tables = family.levels[0].tables;
        if tables >= DEEP_LEVEL0 {
            found.push(finding(
                "LEVEL0-DEEP",
                Severity::Warning,
                format!(
                    "family {} of the {name} engine has {tables} tables in level 0: each read looks at all of them",
                    family.name
                ),
                "compactions do not keep up: `basalt compact --cf NAME` at a quiet time, or a faster disk",
            ));
        }
    }
    if stats.merge_failures > 0 {
        found.push(finding(
            "MERGE-FAILS",
            Severity::Warning,
            format!(
                "the merge operator of a family of the {name} engine failed {} times; its operands are kept",
                stats.merge_failures
            ),
            "mend the operator; nothing is lost meanwhile",
        ));
    }
    found
}

/// A region as one store sees it. Members are judged by the leader alone.
pub(crate) fn check_region(region: &RegionStatus) -> Vec<Finding> {
    let id = region.region.as_ref().map_or(0, |region| region.id);
    let mut found = Vec::new();
    if region.leader.is_none() {
        found.push(finding(
            "NO-LEADER",
            Severity::Fault,
            format!("region {id} knows no leader: it serves nothing"),
            "start the stores that are down, or look at the network between them; where a majority is lost for good: `basalt force-single`",
        ));
    }
    if region.role != "leader" {
        return found;
    }
    let voters: Vec<_> = region
        .followers
        .iter()
        .filter(|member| !member.is_learner)
        .collect();
    let (all, alive) = (
        voters.len() + 1,
        voters.iter().filter(|member| member.active).count() + 1,
    );
    let majority = all / 2 + 1;
    if alive < majority {
        found.push(finding(
            "MAJORITY-MISSING",
            Severity::Fault,
            format!("region {id} hears from {alive} of {all} voters and needs {majority}"),
            "start the stores that are down; until then nothing can be written",
        ));
    } else if alive == majority && all > 1 && alive < all {
        found.push(finding(
            "MAJORITY-MISSING",
            Severity::Warning,
            format!(
                "region {id} hears from {alive} of {all} voters: the loss of one more stops it"
            ),
            "start the store that is down, or replace it: `basalt member replace OLD NEW`",
        ));
    }
    for member in &region.followers {
        let store = member.peer.map_or(0, |peer| peer.store_id);
        let behind = region.last_index.saturating_sub(member.matched);
        if !member.active {
            found.push(finding(
                "MEMBER-SILENT",
                Severity::Warning,
                format!("store {store} was not heard from lately (region {id})"),
                format!("start it, or remove it for good: `basalt member remove {store}`"),
            ));
        } else if behind > BEHIND {
            found.push(finding(
                "MEMBER-BEHIND",
                Severity::Warning,
                format!(
                    "store {store} is {behind} entries behind in region {id} ({})",
                    member.state
                ),
                "it catches up by itself unless its disk or network is slower than the load",
            ));
        }
    }
    found
}

/// A certificate that ends in so many seconds; negative: it has ended.
pub(crate) fn check_certificate(left_seconds: i64) -> Option<Finding> {
    let advice = "put a new one into the file of --tls-cert; the server takes it without a restart";
    let days = left_seconds.div_euclid(i64::try_from(DAY).unwrap_or(i64::MAX));
    if left_seconds <= 0 {
        let what = "the certificate of the server has ended";
        return Some(finding("CERTIFICATE-ENDS", Severity::Fault, what, advice));
    }
    (days < i64::try_from(CERTIFICATE_DAYS).unwrap_or(0)).then(|| {
        let what = format!("the certificate of the server ends in {days} days");
        finding("CERTIFICATE-ENDS", Severity::Warning, what, advice)
    })
}

/// What an address that others reach lacks.
pub(crate) fn check_exposure(addr: &str, has_tls: bool, has_rights: bool) -> Vec<Finding> {
    let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host);
    let mut found = Vec::new();
    if crate::cli::is_loopback(host) {
        return found;
    }
    if !has_tls {
        found.push(finding(
            "PLAIN-TEXT",
            Severity::Warning,
            format!("{addr} is reached from other machines and speaks plain text"),
            "set --tls-cert and --tls-key (docs/operations/security.md)",
        ));
    }
    if !has_rights {
        found.push(finding(
            "RIGHTS-OPEN",
            Severity::Warning,
            format!("whoever reaches {addr} may do everything"),
            "set --auth-file (docs/operations/security.md)",
        ));
    }
    found
}

/// The newest backup, against the clock; both in seconds since 1970.
pub(crate) fn check_backups(newest: Option<u64>, damaged: usize, now: u64) -> Vec<Finding> {
    let mut found = Vec::new();
    if damaged > 0 {
        found.push(finding(
            "BACKUP-DAMAGED",
            Severity::Fault,
            format!("{damaged} backups cannot be read"),
            "make a new one into another directory; `basalt backup verify` names what is damaged",
        ));
    }
    match newest {
        None => found.push(finding(
            "BACKUP-NONE",
            Severity::Note,
            "there is no backup",
            "start the server with --backup-dir DIR and run `basalt backup create` daily (docs/operations/backup.md)",
        )),
        Some(made) if now.saturating_sub(made) > BACKUP_DAYS * DAY => found.push(finding(
            "BACKUP-OLD",
            Severity::Warning,
            format!("the newest backup is {} days old", (now - made) / DAY),
            "run `basalt backup create`; another one copies only what is new",
        )),
        Some(_) => {}
    }
    found
}

/// A wall clock, in seconds since 1970.
pub(crate) fn check_clock(now: u64) -> Option<Finding> {
    (now < CLOCK_FLOOR).then(|| {
        finding(
            "CLOCK-WRONG",
            Severity::Warning,
            "the clock of this machine stands before 2025",
            "set it (NTP): certificates, dates of backups and times to live go by it",
        )
    })
}

#[cfg(test)]
mod tests;
