//! The only place that spells and parses the names of the engine's files (FORMAT.md, directory).

use std::path::{Path, PathBuf};

/// Name of the lock file.
pub(crate) const LOCK: &str = "LOCK";
/// Name of the pointer to the manifest in use.
pub(crate) const CURRENT: &str = "CURRENT";
/// Name of the file of acknowledged positions.
pub(crate) const MARK: &str = "MARK";
/// Name of the file that is given up on a full disk.
pub(crate) const RESERVE: &str = "RESERVE";

/// Name of the file that says that a restore into the directory was not finished.
pub(crate) const RESTORING: &str = "RESTORING";

/// A file of the engine, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    Lock,
    Current,
    Mark,
    Reserve,
    Restoring,
    /// A manifest and its number.
    Manifest(u64),
    /// A log segment and its number.
    Log(u64),
    /// A table and its number.
    Table(u64),
    /// A value file and its number.
    Values(u64),
    /// An unfinished file.
    Temporary,
}

pub(crate) fn manifest_name(number: u64) -> String {
    format!("MANIFEST-{number:06}")
}

pub(crate) fn manifest(dir: &Path, number: u64) -> PathBuf {
    dir.join(manifest_name(number))
}

pub(crate) fn log(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:06}.log"))
}

pub(crate) fn table(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:06}.sst"))
}

pub(crate) fn values(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:06}.val"))
}

/// The name `path` has until it is whole.
pub(crate) fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    PathBuf::from(name)
}

/// What a name stands for; `None` for a name the engine never gives.
pub(crate) fn parse(name: &str) -> Option<FileKind> {
    match name {
        LOCK => return Some(FileKind::Lock),
        CURRENT => return Some(FileKind::Current),
        MARK => return Some(FileKind::Mark),
        RESERVE => return Some(FileKind::Reserve),
        RESTORING => return Some(FileKind::Restoring),
        _ => {}
    }
    if name
        .strip_suffix(".tmp")
        .is_some_and(|rest| parse(rest).is_some())
    {
        return Some(FileKind::Temporary);
    }
    if let Some(digits) = name.strip_prefix("MANIFEST-") {
        return number(digits).map(FileKind::Manifest);
    }
    if let Some(digits) = name.strip_suffix(".log") {
        return number(digits).map(FileKind::Log);
    }
    if let Some(digits) = name.strip_suffix(".val") {
        return number(digits).map(FileKind::Values);
    }
    name.strip_suffix(".sst")
        .and_then(number)
        .map(FileKind::Table)
}

/// A file number as it is spelled: at least six digits, and no more zeros in front than that takes.
pub(crate) fn number(digits: &str) -> Option<u64> {
    let value: u64 = digits
        .bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| digits.parse().ok())??;
    (format!("{value:06}") == digits).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_parses_back_to_its_kind() {
        let dir = Path::new("/d");
        for (path, kind) in [
            (manifest(dir, 7), FileKind::Manifest(7)),
            (log(dir, 12), FileKind::Log(12)),
            (table(dir, 1_234_567), FileKind::Table(1_234_567)),
            (values(dir, 8), FileKind::Values(8)),
            (temporary(&log(dir, 3)), FileKind::Temporary),
            (dir.join("CURRENT.tmp"), FileKind::Temporary),
            (dir.join("MARK"), FileKind::Mark),
        ] {
            let name = path
                .file_name()
                .and_then(|n| n.to_str())
                .expect("plain name");
            assert_eq!(parse(name), Some(kind), "{name}");
        }
    }

    #[test]
    fn foreign_names_are_not_ours() {
        for name in [
            "7.sst",
            "0000007.sst",
            "x.log",
            "MANIFEST-",
            "MANIFEST-+00007",
            "a.tmp",
            ".tmp",
            "000001.sst2",
        ] {
            assert_eq!(parse(name), None, "{name}");
        }
    }
}
