//! Style that a machine can check: how each source file opens, what must not be left in it, and how long it is.
//!
//! Generated code (`gen/`) is not looked at. What formatting and lints see is left to them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Lines of a file that is read in one sitting.
const LONG: usize = 700;

/// Longer files, each with a limit of its own. Only ever lower these, and take a file out once it is short; a new
/// entry needs a reason beside it.
const LONGER: [(&str, usize); 0] = [];

/// How far below its limit a longer file may be before the limit must come down.
const SLACK: usize = 150;

/// What must not be left in a source file. (Spelled so that this file may be looked at too.)
const LEFTOVERS: [&str; 12] = [
    concat!("dbg", "!("),
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("#[ig", "nore"),
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X:"),
    concat!("HA", "CK"),
    concat!("<<<<", "<<<"),
    concat!(">>>>", ">>>"),
    concat!("#[allow(dead", "_code"),
    concat!("#[allow(un", "used"),
];

/// A file of the repository: its path from the root, and its text.
struct Source {
    name: String,
    text: String,
}

fn walk(folder: &Path, ends: &[&str], found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder of this repository") {
        let entry = entry.expect("a folder of this repository");
        let name = entry.file_name().into_string().expect("plain names");
        let kind = entry.file_type().expect("a local file system");
        // Links are somebody's shortcuts; hidden folders and build output are no source.
        if kind.is_dir() && !name.starts_with('.') && !["target", "gen"].contains(&name.as_str()) {
            walk(&entry.path(), ends, found);
        } else if kind.is_file() && ends.iter().any(|end| name.ends_with(end)) {
            found.push(entry.path());
        }
    }
}

fn files(ends: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    walk(root, ends, &mut paths);
    paths.sort();
    let read = |path: PathBuf| Source {
        name: path
            .strip_prefix(root)
            .expect("below the root")
            .display()
            .to_string(),
        text: std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display())),
    };
    paths.into_iter().map(read).collect()
}

fn rust() -> Vec<Source> {
    let sources = files(&[".rs"]);
    assert!(
        sources.len() > 120,
        "{} sources: the tree is not found",
        sources.len()
    );
    sources
}

/// All complaints at once: a test that stops at the first is run ten times.
#[track_caller]
fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn every_source_opens_with_what_it_is_for() {
    let mut complaints = Vec::new();
    for Source { name, text } in rust() {
        let head = text.lines().next().unwrap_or_default();
        if !head.starts_with("//! ") || head.len() < 12 {
            complaints.push(format!(
                "{name} opens with {head:?}, not with `//!` and what it is for"
            ));
        }
    }
    assert_none(&complaints);
}

#[test]
fn sources_are_plain_text_without_leftovers() {
    let mut complaints = Vec::new();
    for Source { name, text } in rust() {
        for (line, number) in text.lines().zip(1..) {
            if !line.is_ascii() {
                complaints.push(format!("{name}:{number}: not ASCII: {line}"));
            }
            if line.contains('\t') || line.ends_with(' ') {
                complaints.push(format!("{name}:{number}: a tab, or a space at the end"));
            }
            for leftover in LEFTOVERS
                .iter()
                .filter(|leftover| line.contains(**leftover))
            {
                complaints.push(format!("{name}:{number}: {leftover}"));
            }
        }
    }
    assert_none(&complaints);
}

#[test]
fn documents_and_manifests_have_no_leftovers() {
    let mut complaints = Vec::new();
    let sources = files(&[".md", ".toml", ".proto"]);
    assert!(
        sources.len() > 12,
        "{} documents: the tree is not found",
        sources.len()
    );
    for Source { name, text } in sources {
        if !text.ends_with('\n') || text.ends_with("\n\n") {
            complaints.push(format!("{name} does not end with one line feed"));
        }
        for (line, number) in text.lines().zip(1..) {
            let left = LEFTOVERS[4..10]
                .iter()
                .any(|leftover| line.contains(*leftover));
            if left || line.trim_end() != line {
                complaints.push(format!("{name}:{number}: {line:?}"));
            }
        }
    }
    assert_none(&complaints);
}

#[test]
fn no_file_outgrows_its_reader() {
    let mut limits: BTreeMap<_, _> = LONGER.into_iter().collect();
    let mut complaints = Vec::new();
    let mut lengths: Vec<(usize, String)> = Vec::new();
    for Source { name, text } in rust() {
        let lines = text.lines().count();
        match limits.remove(name.as_str()) {
            None if lines > LONG => complaints.push(format!(
                "{name} has {lines} lines, more than {LONG}: split it by topic"
            )),
            Some(limit) if lines > limit => {
                complaints.push(format!("{name} has {lines} lines, its limit is {limit}"));
            }
            Some(_) if lines <= LONG => {
                complaints.push(format!("{name} has {lines} lines: take it out of the list"));
            }
            Some(limit) if limit - lines > SLACK => complaints.push(format!(
                "{name} has {lines} lines: lower its limit, {limit}"
            )),
            _ => {}
        }
        lengths.push((lines, name));
    }
    complaints.extend(
        limits
            .keys()
            .map(|name| format!("{name} is in the list and not in the tree")),
    );
    lengths.sort();
    for (lines, name) in lengths.iter().rev().take(10) {
        println!("{lines:5} {name}");
    }
    assert_none(&complaints);
}
