//! `basalt doctor`: what is wrong with servers, or with a directory that none has open, and what to do.
//!
//! Not here: the checks of a running server (`crate::doctor`).

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use basalt_engine::{Error, LOST, Options, Pacing, VerifyReport, list_backups, verify_dir_with};
use basalt_proto::basaltpb::{ExamineRequest, ExamineResponse, Finding, Severity};
use clap::Args;
use serde_json::json;

use super::{
    Done, Failure, ServerAddr,
    client::{Server, Target, block_on},
    output::{Output, OutputArgs, Style},
    progress::{ProgressArgs, Unit},
};
use crate::{
    doctor::{CLOCKS_APART, check_backups, check_clock, check_disk, disk_space, finding},
    service::now,
    storage::data_dir,
};

const EXAMPLES: &str = "\
Examples:
  basalt doctor                                 a running server
  basalt doctor --addr 10.0.0.1:20160,10.0.0.2:20160,10.0.0.3:20160
                                                every store of a cluster
  basalt doctor --path DATA                     a directory that no server has open: every byte is read
  basalt doctor --path DATA --backups BACKUPS

Exit code 1 where something is wrong; notes alone are none. docs/operations/doctor.md has a section for each code.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DoctorArgs {
    /// Data directory of a stopped server, or directory of an engine
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// Directory of its backups
    #[arg(long, value_name = "BACKUPS", requires = "path")]
    backups: Option<PathBuf>,
    #[command(flatten)]
    addr: ServerAddr,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    progress: ProgressArgs,
}

/// A finding, and of whom.
struct Found {
    of: String,
    finding: Finding,
}

pub(super) fn run(args: &DoctorArgs) -> Done {
    let (found, checked) = match &args.path {
        Some(path) => closed(args, path),
        None => running(&args.addr.get()?)?,
    };
    let output = args.output.open();
    for found in &found {
        show(&output, found)?;
    }
    let wrong = found
        .iter()
        .filter(|found| is_wrong(&found.finding))
        .count();
    if !output.is_json() && found.is_empty() {
        super::print(format!("nothing is wrong ({})\n", checked.join(", ")).as_bytes())?;
    }
    match wrong {
        0 => Ok(()),
        1 => Err(Failure::world("one thing is wrong")),
        count => Err(Failure::world(format!("{count} things are wrong"))),
    }
}

fn is_wrong(finding: &Finding) -> bool {
    !matches!(finding.severity(), Severity::Note | Severity::Unspecified)
}

fn show(output: &Output, found: &Found) -> Done {
    let Found { of, finding } = found;
    let (word, style) = match finding.severity() {
        Severity::Fault => ("fault", Style::Bad),
        Severity::Warning => ("warning", Style::Warning),
        _ => ("note", Style::Dim),
    };
    let page = format!("docs/operations/doctor.md#{}", finding.code.to_lowercase());
    let json = json!({
        "of": of, "code": finding.code, "severity": word, "what": finding.what, "advice": finding.advice, "page": page,
    });
    output.document(&json, || {
        let word = output.paint(style, word);
        format!(
            "{word} {} {of}: {}\n  -> {}\n",
            finding.code, finding.what, finding.advice
        )
    })
}

/// Every server of the addresses.
fn running(target: &Target) -> Result<(Vec<Found>, Vec<String>), Failure> {
    block_on(async {
        let (mut found, mut checked) = (Vec::new(), Vec::new());
        let mut clocks = Vec::new();
        for addr in &target.addrs {
            let asked = async {
                let server = Server::connect(addr, &target.access).await?;
                let began = Instant::now();
                let answer = server
                    .ask(server.admin().examine(ExamineRequest {}))
                    .await?;
                Ok::<_, Failure>((answer, began.elapsed()))
            };
            match asked.await {
                Ok((answer, took)) => {
                    clocks.push((addr.clone(), apart(&answer, took)));
                    checked = answer.checked;
                    let findings = answer.findings.into_iter();
                    found.extend(findings.map(|finding| Found {
                        of: addr.clone(),
                        finding,
                    }));
                }
                // Its address is no address, or we may not ask: nothing was found out.
                Err(failure) if failure.code == 2 || failure.code == 5 => return Err(failure),
                Err(failure) => found.push(Found {
                    of: addr.clone(),
                    finding: finding(
                        "SERVER-SILENT",
                        Severity::Fault,
                        failure.text,
                        "start it, or look at the network and at its log",
                    ),
                }),
            }
        }
        found.extend(check_clocks(&clocks));
        Ok((found, checked))
    })
}

/// How far the clock of a server is ahead of ours, in milliseconds; half of the way is taken off.
fn apart(answer: &ExamineResponse, took: Duration) -> i128 {
    let ours = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let ours = ours.saturating_sub(took / 2).as_millis();
    i128::from(answer.unix_ms) - i128::try_from(ours).unwrap_or(0)
}

fn check_clocks(clocks: &[(String, i128)]) -> Vec<Found> {
    let limit = i128::try_from(CLOCKS_APART.as_millis()).unwrap_or(0);
    let apart = clocks.iter().filter(|(_, millis)| millis.abs() > limit);
    apart
        .map(|(addr, millis)| Found {
            of: addr.clone(),
            finding: finding(
                "CLOCK-APART",
                Severity::Warning,
                format!(
                    "its clock and that of this machine are {} ms apart",
                    millis.abs()
                ),
                "run NTP on both: certificates, dates of backups and times to live go by the clock",
            ),
        })
        .collect()
}

/// A directory that no server has open. Whatever is in the way is a finding.
fn closed(args: &DoctorArgs, path: &Path) -> (Vec<Found>, Vec<String>) {
    let mut findings = Vec::new();
    let mut checked = vec!["files", "disk", "clock"];
    match data_dir::locate(path) {
        Ok(dirs) => {
            for dir in &dirs {
                findings.extend(check_engine(args, dir));
            }
        }
        Err(error) => findings.push(finding(
            "NO-STORE",
            Severity::Fault,
            error,
            "name the data directory of a server (--path of basalt server); where MODE was lost, restore a backup",
        )),
    }
    if let Some((free, total)) = disk_space(path) {
        findings.extend(check_disk("data directory", path, free, total));
    }
    findings.extend(check_clock(now()));
    if let Some(backups) = &args.backups {
        checked.push("backups");
        let (newest, damaged) = match list_backups(backups, &Options::default()) {
            Ok(list) => (
                list.backups.iter().map(|backup| backup.time).max(),
                list.damage.len(),
            ),
            Err(_) => (None, 0),
        };
        findings.extend(check_backups(newest, damaged, now()));
    }
    let of = path.display().to_string();
    let found = findings.into_iter().map(|finding| Found {
        of: of.clone(),
        finding,
    });
    (
        found.collect(),
        checked.into_iter().map(str::to_owned).collect(),
    )
}

fn check_engine(args: &DoctorArgs, dir: &Path) -> Vec<Finding> {
    let work = args.progress.begin("doctor", Unit::Bytes);
    let report = verify_dir_with(dir, &Options::default(), &Pacing::told(work.engine()));
    work.done();
    let mut found = judge(dir, report);
    if dir.join(LOST).exists() {
        found.push(finding(
            "FILES-ASIDE",
            Severity::Note,
            format!("{} holds what a repair put aside", dir.join(LOST).display()),
            "look at it (`basalt inspect FILE`), then remove it",
        ));
    }
    found
}

fn judge(dir: &Path, report: Result<VerifyReport, Error>) -> Vec<Finding> {
    let advice = "restore a backup, or see what a repair would keep: basalt repair DIR --dry-run";
    let damaged = |what: String| finding("DAMAGED", Severity::Fault, what, advice);
    match report {
        Ok(report) => report
            .damage
            .iter()
            .map(|damage| damaged(damage.to_string()))
            .collect(),
        Err(error @ Error::NotADatabase { .. }) if dir.join("RESTORING").exists() => vec![finding(
            "RESTORE-UNFINISHED",
            Severity::Fault,
            error.to_string(),
            "remove the directory and restore again",
        )],
        Err(error @ Error::Locked { .. }) => vec![finding(
            "NO-STORE",
            Severity::Fault,
            error.to_string(),
            "a server has it open: ask that one, without --path",
        )],
        Err(error) => vec![damaged(error.to_string())],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_apart_in_both_directions_and_not_by_the_way_of_an_answer() {
        let at = |millis| check_clocks(&[("a:1".to_owned(), millis)]).len();
        assert_eq!(
            [at(-1001), at(-1000), at(0), at(1000), at(1001)],
            [1, 0, 0, 0, 1]
        );
        let ours = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let answer = ExamineResponse {
            unix_ms: u64::try_from(ours.as_millis()).unwrap(),
            ..ExamineResponse::default()
        };
        assert!(apart(&answer, Duration::ZERO).abs() < 1000);
    }

    #[test]
    fn a_closed_directory_is_judged_by_what_its_files_are() {
        let dir = tempfile::tempdir().unwrap();
        let db = basalt_engine::Db::open(dir.path(), Options::default()).unwrap();
        db.put(
            &db.default_cf(),
            b"k",
            b"v",
            basalt_engine::WriteOptions::SYNC,
        )
        .unwrap();
        let verify = || {
            judge(
                dir.path(),
                verify_dir_with(dir.path(), &Options::default(), &Pacing::default()),
            )
        };
        assert_eq!(verify()[0].code, "NO-STORE", "it is open");
        db.close().unwrap();
        assert!(verify().is_empty());
        std::fs::write(dir.path().join("RESTORING"), "").unwrap();
        assert_eq!(verify()[0].code, "RESTORE-UNFINISHED");
        std::fs::remove_file(dir.path().join("RESTORING")).unwrap();
        std::fs::write(dir.path().join("CURRENT"), "nonsense").unwrap();
        assert_eq!(verify()[0].code, "DAMAGED");
    }
}
