//! Each check: what it finds, and that it is silent where all is well.

use basalt_engine::{Db, Options};
use basalt_proto::{basaltpb::FollowerStatus, metapb::Peer};

use super::*;

fn codes(found: impl IntoIterator<Item = Finding>) -> Vec<(String, Severity)> {
    let found = found.into_iter();
    found
        .map(|finding| (finding.code.clone(), finding.severity()))
        .collect()
}

fn one(code: &str, severity: Severity) -> Vec<(String, Severity)> {
    vec![(code.to_owned(), severity)]
}

#[test]
fn every_code_has_its_heading_in_the_document_and_every_heading_its_code() {
    let document = include_str!("../../../docs/operations/doctor.md");
    let headings = document.lines().filter_map(|line| line.strip_prefix("## "));
    let mut headings: Vec<_> = headings
        .filter(|name| name.to_uppercase() == *name)
        .collect();
    headings.sort_unstable();
    assert_eq!(headings, CODES);
}

#[test]
fn a_disk_is_a_warning_below_a_tenth_and_a_fault_below_a_fiftieth() {
    let check = |free| codes(check_disk("data directory", Path::new("/d"), free, 1000));
    assert_eq!(check(100), []);
    assert_eq!(check(99), one("DISK-FULL-SOON", Severity::Warning));
    assert_eq!(check(20), one("DISK-FULL-SOON", Severity::Warning));
    assert_eq!(check(19), one("DISK-FULL-SOON", Severity::Fault));
    assert!(disk_space(Path::new("/")).is_some_and(|(free, all)| free <= all && all > 0));
}

#[test]
fn a_limit_of_open_files_must_hold_tables_and_connections() {
    let check = |limit| codes(check_open_files(limit, 1000, 4096));
    assert_eq!(check(1000 + 4096 + 256), []);
    assert_eq!(check(5000), one("OPEN-FILES", Severity::Warning));
    assert_eq!(check(1024), one("OPEN-FILES", Severity::Fault));
}

#[test]
fn an_engine_that_fares_well_has_no_findings_and_one_in_trouble_has() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path(), Options::default()).unwrap();
    let mut stats = db.stats();
    assert_eq!(codes(check_engine("kv", &stats)), []);
    stats.stall = Some("level 0".to_owned());
    assert_eq!(
        codes(check_engine("kv", &stats)),
        one("STALLED", Severity::Warning)
    );
    stats.stall = None;
    stats.read_only = Some(basalt_engine::Error::Closed);
    assert_eq!(
        codes(check_engine("kv", &stats)),
        one("READ-ONLY", Severity::Fault)
    );
    stats.read_only = None;
    stats.families[0].levels[0].tables = DEEP_LEVEL0;
    assert_eq!(
        codes(check_engine("kv", &stats)),
        one("LEVEL0-DEEP", Severity::Warning)
    );
    stats.families[0].levels[0].tables = 0;
    stats.merge_failures = 1;
    assert_eq!(
        codes(check_engine("kv", &stats)),
        one("MERGE-FAILS", Severity::Warning)
    );
}

fn region(active: &[bool]) -> RegionStatus {
    let followers = (2..).zip(active).map(|(store, active)| FollowerStatus {
        peer: Some(Peer {
            id: store,
            store_id: store,
        }),
        matched: 5,
        state: "replicate".to_owned(),
        active: *active,
        is_learner: false,
    });
    RegionStatus {
        role: "leader".to_owned(),
        leader: Some(Peer { id: 1, store_id: 1 }),
        last_index: 5,
        followers: followers.collect(),
        ..RegionStatus::default()
    }
}

#[test]
fn a_leader_tells_of_members_that_are_silent_or_behind() {
    assert_eq!(codes(check_region(&region(&[true, true]))), []);
    assert_eq!(codes(check_region(&region(&[]))), [], "alone is a choice");
    let warned = codes(check_region(&region(&[true, false])));
    let expected = [
        ("MAJORITY-MISSING".to_owned(), Severity::Warning),
        ("MEMBER-SILENT".to_owned(), Severity::Warning),
    ];
    assert_eq!(warned, expected);
    let lost = codes(check_region(&region(&[false, false])));
    assert_eq!(lost[0], ("MAJORITY-MISSING".to_owned(), Severity::Fault));
    let mut behind = region(&[true, true]);
    behind.last_index = 5 + BEHIND + 1;
    behind.followers[1].matched = behind.last_index;
    assert_eq!(
        codes(check_region(&behind)),
        one("MEMBER-BEHIND", Severity::Warning)
    );
    let follower = RegionStatus {
        role: "follower".to_owned(),
        leader: None,
        ..region(&[false, false])
    };
    assert_eq!(
        codes(check_region(&follower)),
        one("NO-LEADER", Severity::Fault)
    );
}

#[test]
fn certificates_clocks_and_addresses_are_judged() {
    let day = i64::try_from(DAY).unwrap();
    assert_eq!(codes(check_certificate(30 * day)), []);
    assert_eq!(
        codes(check_certificate(30 * day - 1)),
        one("CERTIFICATE-ENDS", Severity::Warning)
    );
    assert_eq!(
        codes(check_certificate(0)),
        one("CERTIFICATE-ENDS", Severity::Fault)
    );
    assert_eq!(codes(check_clock(CLOCK_FLOOR)), []);
    assert_eq!(
        codes(check_clock(CLOCK_FLOOR - 1)),
        one("CLOCK-WRONG", Severity::Warning)
    );
    assert_eq!(codes(check_exposure("127.0.0.1:1", false, false)), []);
    assert_eq!(codes(check_exposure("[::1]:1", false, false)), []);
    assert_eq!(codes(check_exposure("10.0.0.1:1", true, true)), []);
    assert_eq!(
        codes(check_exposure("10.0.0.1:1", true, false)),
        one("RIGHTS-OPEN", Severity::Warning)
    );
    assert_eq!(
        codes(check_exposure("0.0.0.0:1", false, true)),
        one("PLAIN-TEXT", Severity::Warning)
    );
}

#[test]
fn backups_are_missed_when_old_absent_or_damaged() {
    let now = 100 * DAY;
    assert_eq!(codes(check_backups(Some(now - 7 * DAY), 0, now)), []);
    assert_eq!(
        codes(check_backups(Some(now + 5), 0, now)),
        [],
        "another clock"
    );
    assert_eq!(
        codes(check_backups(Some(now - 8 * DAY), 0, now)),
        one("BACKUP-OLD", Severity::Warning)
    );
    assert_eq!(
        codes(check_backups(None, 0, now)),
        one("BACKUP-NONE", Severity::Note)
    );
    assert_eq!(
        codes(check_backups(Some(now), 1, now)),
        one("BACKUP-DAMAGED", Severity::Fault)
    );
}
