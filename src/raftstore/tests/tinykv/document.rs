//! Holds `docs/tinykv-cluster-tests.md` against the tests: no upstream test is missing in it, what it
//! names is there with the parameters that it gives, and each deviation that it speaks of is explained.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Upstream's cluster tests of these projects, numbered as in the document.
const UPSTREAM: [(u32, &str); 17] = [
    (63, "TestBasic2B"),
    (64, "TestConcurrent2B"),
    (65, "TestUnreliable2B"),
    (66, "TestOnePartition2B"),
    (67, "TestManyPartitionsOneClient2B"),
    (68, "TestManyPartitionsManyClients2B"),
    (69, "TestPersistOneClient2B"),
    (70, "TestPersistConcurrent2B"),
    (71, "TestPersistConcurrentUnreliable2B"),
    (72, "TestPersistPartition2B"),
    (73, "TestPersistPartitionUnreliable2B"),
    (81, "TestOneSnapshot2C"),
    (82, "TestSnapshotRecover2C"),
    (83, "TestSnapshotRecoverManyClients2C"),
    (84, "TestSnapshotUnreliable2C"),
    (85, "TestSnapshotUnreliableRecover2C"),
    (86, "TestSnapshotUnreliableRecoverConcurrentPartition2C"),
];

/// Where the tests are that the document names.
const SOURCES: [&str; 2] = ["replication.rs", "snapshots.rs"];

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: PathBuf) -> String {
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn document() -> String {
    read(package().join("../../docs/tinykv-cluster-tests.md"))
}

fn source(name: &str) -> String {
    read(package().join("tests/tinykv").join(name))
}

/// The cells of the table's rows that begin with a number: number, upstream, file, test, parameters, remark.
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

/// The test functions of a source, each with its text.
fn tests(name: &str) -> Vec<(String, String)> {
    let text = source(name);
    let test = |part: &str| {
        let name = part.strip_prefix("fn ")?.split_once("() {")?.0;
        Some((name.to_owned(), part.split_once("\n}")?.0.to_owned()))
    };
    text.split("#[test]\n").skip(1).filter_map(test).collect()
}

/// The parameters that a test gives to its scenario, as the table writes them.
fn parameters(test: &str) -> String {
    let lines = test.lines().map(str::trim);
    let fields = lines.filter_map(|line| line.strip_suffix(',')?.split_once(": "));
    let mut clients = String::new();
    let mut others = Vec::new();
    for (name, value) in fields {
        match (name, value) {
            ("clients", "1") => clients = "1 client".to_owned(),
            ("clients", _) => clients = format!("{value} clients"),
            ("gc_limit", _) => others.push(format!(
                "limit {}",
                value.trim_start_matches("Some(").trim_end_matches(')')
            )),
            (_, "true") => others.push(name.to_owned()),
            _ => {}
        }
    }
    others.sort();
    others.insert(0, clients);
    others.join(", ")
}

#[test]
fn the_table_has_every_upstream_test_once_and_names_tests_that_exist() {
    let rows = rows(&document());
    let upstream: Vec<(u32, &str)> = rows
        .iter()
        .map(|row| (row[1].parse().expect("a number"), row[2].as_str()))
        .collect();
    assert_eq!(upstream, UPSTREAM);

    let mut named = BTreeSet::new();
    for row in &rows {
        let (source, function) = (&row[3], &row[4]);
        assert!(SOURCES.contains(&source.as_str()), "{row:?}");
        let found = tests(source).into_iter().find(|(name, _)| name == function);
        let (_, text) = found.unwrap_or_else(|| panic!("{row:?}"));
        assert!(named.insert((source, function)), "twice: {row:?}");
        // A failure prints how to replay this test.
        assert!(text.contains(&format!("\"{function}\"")), "{row:?}");
        if row[5] == "script" {
            assert!(!text.contains("Scenario"), "{row:?}");
        } else {
            assert_eq!(parameters(&text), row[5], "{row:?}");
        }
    }
}

#[test]
fn the_table_names_every_test_of_these_sources() {
    let rows = rows(&document());
    let mut count = 0;
    for source in SOURCES {
        for (function, _) in tests(source) {
            count += 1;
            let named = rows
                .iter()
                .any(|row| row[3] == source && row[4] == function);
            assert!(named, "{source}: {function} is not in the table");
        }
    }
    assert_eq!(count, UPSTREAM.len());
}

/// The numbers of a list like `63-65, 67`.
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
    let document = document();
    let mut named: BTreeSet<(String, u32)> = BTreeSet::new();
    for row in rows(&document) {
        let number = row[1].parse().expect("a number");
        named.extend(deviations(&row[6]).into_iter().map(|of| (of, number)));
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
