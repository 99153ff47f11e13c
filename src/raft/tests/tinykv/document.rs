//! Holds `docs/tinykv-raft-tests.md` against the tests: no upstream test is missing in it, what it
//! names is there, and each deviation that it speaks of is explained.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Upstream's tests of these projects, numbered as in the document.
const UPSTREAM: [(u32, &str); 75] = [
    (11, "TestFollowerUpdateTermFromMessage2AA"),
    (12, "TestCandidateUpdateTermFromMessage2AA"),
    (13, "TestLeaderUpdateTermFromMessage2AA"),
    (14, "TestStartAsFollower2AA"),
    (15, "TestLeaderBcastBeat2AA"),
    (16, "TestFollowerStartElection2AA"),
    (17, "TestCandidateStartNewElection2AA"),
    (18, "TestLeaderElectionInOneRoundRPC2AA"),
    (19, "TestFollowerVote2AA"),
    (20, "TestCandidateFallback2AA"),
    (21, "TestFollowerElectionTimeoutRandomized2AA"),
    (22, "TestCandidateElectionTimeoutRandomized2AA"),
    (23, "TestFollowersElectionTimeoutNonconflict2AA"),
    (24, "TestCandidatesElectionTimeoutNonconflict2AA"),
    (25, "TestLeaderElection2AA"),
    (26, "TestLeaderCycle2AA"),
    (27, "TestVoteFromAnyState2AA"),
    (28, "TestSingleNodeCandidate2AA"),
    (29, "TestCandidateResetTermMessageType_MsgHeartbeat2AA"),
    (30, "TestCandidateResetTermMessageType_MsgAppend2AA"),
    (31, "TestDisruptiveFollower2AA"),
    (32, "TestRecvMessageType_MsgBeat2AA"),
    (33, "TestCampaignWhileLeader2AA"),
    (34, "TestSplitVote2AA"),
    (35, "TestLeaderStartReplication2AB"),
    (36, "TestLeaderCommitEntry2AB"),
    (37, "TestLeaderAcknowledgeCommit2AB"),
    (38, "TestLeaderCommitPrecedingEntries2AB"),
    (39, "TestFollowerCommitEntry2AB"),
    (40, "TestFollowerCheckMessageType_MsgAppend2AB"),
    (41, "TestFollowerAppendEntries2AB"),
    (42, "TestLeaderSyncFollowerLog2AB"),
    (43, "TestVoteRequest2AB"),
    (44, "TestVoter2AB"),
    (45, "TestLeaderOnlyCommitsLogFromCurrentTerm2AB"),
    (46, "TestProgressLeader2AB"),
    (47, "TestLeaderElectionOverwriteNewerLogs2AB"),
    (48, "TestLogReplication2AB"),
    (49, "TestSingleNodeCommit2AB"),
    (50, "TestCommitWithoutNewTermEntry2AB"),
    (51, "TestCommitWithHeartbeat2AB"),
    (52, "TestDuelingCandidates2AB"),
    (53, "TestCandidateConcede2AB"),
    (54, "TestOldMessages2AB"),
    (55, "TestProposal2AB"),
    (56, "TestHandleMessageType_MsgAppend2AB"),
    (57, "TestRecvMessageType_MsgRequestVote2AB"),
    (58, "TestAllServerStepdown2AB"),
    (59, "TestHeartbeatUpdateCommit2AB"),
    (60, "TestLeaderIncreaseNext2AB"),
    (61, "TestRawNodeStart2AC"),
    (62, "TestRawNodeRestart2AC"),
    (74, "TestRawNodeRestartFromSnapshot2C"),
    (75, "TestRestoreSnapshot2C"),
    (76, "TestRestoreIgnoreSnapshot2C"),
    (77, "TestProvideSnap2C"),
    (78, "TestRestoreFromSnapMsg2C"),
    (79, "TestRestoreFromSnapWithOverlapingPeersMsg2C"),
    (80, "TestSlowNodeRestore2C"),
    (87, "TestRawNodeProposeAndConfChange3A"),
    (88, "TestRawNodeProposeAddDuplicateNode3A"),
    (89, "TestAddNode3A"),
    (90, "TestRemoveNode3A"),
    (91, "TestCommitAfterRemoveNode3A"),
    (92, "TestLeaderTransferToUpToDateNode3A"),
    (93, "TestLeaderTransferToUpToDateNodeFromFollower3A"),
    (94, "TestLeaderTransferToSlowFollower3A"),
    (95, "TestLeaderTransferAfterSnapshot3A"),
    (96, "TestLeaderTransferToSelf3A"),
    (97, "TestLeaderTransferToNonExistingNode3A"),
    (98, "TestLeaderTransferReceiveHigherTermVote3A"),
    (99, "TestLeaderTransferRemoveNode3A"),
    (100, "TestLeaderTransferBack3A"),
    (101, "TestLeaderTransferSecondTransferToAnotherNode3A"),
    (102, "TestTransferNonMember3A"),
];

/// Where the tests are that the document names.
const SOURCES: [&str; 7] = [
    "elections.rs",
    "membership.rs",
    "raw_node.rs",
    "replication.rs",
    "snapshots.rs",
    "transfer.rs",
    "voting.rs",
];

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: PathBuf) -> String {
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The cells of the table's rows that begin with a number.
fn rows(document: &str) -> Vec<Vec<String>> {
    let is_row = |line: &&str| {
        let mut cells = line.split('|').map(str::trim);
        cells.next() == Some("") && cells.next().is_some_and(|cell| cell.parse::<u32>().is_ok())
    };
    let cells = |line: &str| {
        let cells = line
            .split('|')
            .map(|cell| cell.trim().trim_matches('`').to_owned());
        cells.collect()
    };
    document.lines().filter(is_row).map(cells).collect()
}

/// The deviations, `D1` and so on, that a text names.
fn deviations(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    let is_label = |word: &&str| {
        let number = word.strip_prefix('D');
        number.is_some_and(|number| number.parse::<u32>().is_ok())
    };
    words.filter(is_label).map(str::to_owned).collect()
}

/// The test functions of a source.
fn tests(source: &str) -> BTreeSet<String> {
    let text = read(package().join("tests/tinykv").join(source));
    let lines: Vec<&str> = text.lines().collect();
    let name = |pair: &[&str]| {
        let is_test = pair[0] == "#[test]";
        let name = pair[1].strip_prefix("fn ")?.strip_suffix("() {")?;
        is_test.then(|| name.to_owned())
    };
    lines.windows(2).filter_map(name).collect()
}

#[test]
fn the_table_has_every_upstream_test_once_and_names_tests_that_exist() {
    let document = read(package().join("../../docs/tinykv-raft-tests.md"));
    let rows = rows(&document);
    let upstream: Vec<(u32, &str)> = rows
        .iter()
        .map(|row| (row[1].parse().expect("a number"), row[2].as_str()))
        .collect();
    assert_eq!(upstream, UPSTREAM);

    let mut named = BTreeSet::new();
    for row in &rows {
        let (source, function) = (&row[3], &row[4]);
        assert!(SOURCES.contains(&source.as_str()), "{row:?}");
        assert!(tests(source).contains(function), "{row:?}");
        assert!(named.insert((source, function)), "twice: {row:?}");
    }
}

#[test]
fn the_table_names_every_test_of_these_sources() {
    let document = read(package().join("../../docs/tinykv-raft-tests.md"));
    let rows = rows(&document);
    let mut count = 0;
    for source in SOURCES {
        for function in tests(source) {
            count += 1;
            let named = rows
                .iter()
                .any(|row| row[3] == source && row[4] == function);
            assert!(named, "{source}: {function} is not in the table");
        }
    }
    assert_eq!(count, UPSTREAM.len());
}

/// The numbers of a list like `11-13, 16`.
fn numbers(list: &str) -> Vec<u32> {
    let number = |text: &str| text.parse::<u32>().expect("a number of a test");
    let range = |item: &str| match item.split_once('-') {
        Some((first, last)) => number(first)..=number(last),
        None => number(item)..=number(item),
    };
    list.split(", ").flat_map(range).collect()
}

#[test]
fn each_deviation_is_explained_and_names_the_tests_that_name_it() {
    let document = read(package().join("../../docs/tinykv-raft-tests.md"));
    let mut named: BTreeSet<(String, u32)> = BTreeSet::new();
    for row in rows(&document) {
        let number = row[1].parse().expect("a number");
        named.extend(deviations(&row[5]).into_iter().map(|of| (of, number)));
    }
    let mut explained = BTreeSet::new();
    for line in document.lines().filter(|line| line.starts_with("| D")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        assert!(cells[3].len() > 20 && cells[4].len() > 20, "{line}");
        let numbers = numbers(cells[2]).into_iter();
        explained.extend(numbers.map(|number| (cells[1].to_owned(), number)));
    }
    assert_eq!(explained, named);
    assert!(!named.is_empty());
}
