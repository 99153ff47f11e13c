//! The only place that spells and parses the names of snapshot files (FORMAT.md, snapshot files).

use std::{
    fmt,
    path::{Path, PathBuf},
};

use super::{Origin, SnapshotKey};
use crate::DATA_FAMILIES;

const TEMPORARY: &str = ".tmp";
const TABLE: &str = ".sst";
const META: &str = ".meta";
const GENERATED: &str = "gen";
const RECEIVED: &str = "rev"; // TinyKV's word

/// A file of the directory, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// The rows of a family, numbered as in [`DATA_FAMILIES`].
    Table(Origin, SnapshotKey, usize),
    /// What says that a received set is complete.
    Meta(SnapshotKey),
    /// Unfinished.
    Temporary,
}

impl Name {
    /// What a name stands for; `None` for one that is never given here.
    pub(super) fn parse(name: &str) -> Option<Self> {
        if let Some(finished) = name.strip_suffix(TEMPORARY) {
            return (Self::parse(finished)? != Self::Temporary).then_some(Self::Temporary);
        }
        let parsed = if let Some(stem) = name.strip_suffix(META) {
            match parts(stem)? {
                (Origin::Received, key, None) => Self::Meta(key),
                _ => return None,
            }
        } else {
            let (origin, key, family) = parts(name.strip_suffix(TABLE)?)?;
            let family = family?;
            let family = DATA_FAMILIES.iter().position(|known| *known == family)?;
            Self::Table(origin, key, family)
        };
        // Other spellings of the numbers are not ours.
        (parsed.to_string() == name).then_some(parsed)
    }
}

fn parts(stem: &str) -> Option<(Origin, SnapshotKey, Option<&str>)> {
    let mut parts = stem.split('_');
    let origin = match parts.next()? {
        GENERATED => Origin::Generated,
        RECEIVED => Origin::Received,
        _ => return None,
    };
    let mut number = || parts.next()?.parse().ok();
    let (region, term, index) = (number()?, number()?, number()?);
    let checksum = u32::from_str_radix(parts.next()?, 16).ok()?;
    let family = parts.next();
    let key = SnapshotKey {
        region,
        term,
        index,
        checksum,
    };
    parts.next().is_none().then_some((origin, key, family))
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (origin, key) = match self {
            Self::Table(origin, key, _) => (*origin, key),
            Self::Meta(key) => (Origin::Received, key),
            Self::Temporary => return f.write_str(TEMPORARY),
        };
        let origin = match origin {
            Origin::Generated => GENERATED,
            Origin::Received => RECEIVED,
        };
        let SnapshotKey {
            region,
            term,
            index,
            checksum,
        } = key;
        write!(f, "{origin}_{region}_{term}_{index}_{checksum:08x}")?;
        match self {
            Self::Table(.., family) => write!(f, "_{}{TABLE}", DATA_FAMILIES[*family]),
            _ => f.write_str(META),
        }
    }
}

/// The name `path` has until it is whole.
pub(super) fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TEMPORARY);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_as_they_are_spelled_and_no_others() {
        let key = SnapshotKey {
            region: 9,
            term: 6,
            index: 300,
            checksum: 0xab,
        };
        let table = Name::Table(Origin::Generated, key, 1);
        assert_eq!(table.to_string(), "gen_9_6_300_000000ab_write.sst");
        let meta = Name::Meta(key);
        assert_eq!(meta.to_string(), "rev_9_6_300_000000ab.meta");
        for name in [table, meta, Name::Table(Origin::Received, key, 2)] {
            assert_eq!(Name::parse(&name.to_string()), Some(name));
            let unfinished = format!("{name}.tmp");
            assert_eq!(Name::parse(&unfinished), Some(Name::Temporary));
        }
        for other in [
            "",
            ".tmp",
            "LOCK",
            "000001.sst",
            "gen_9_6_300_000000ab.meta",
            "rev_9_6_300_ab.meta",
            "rev_09_6_300_000000ab.meta",
            "rev_+9_6_300_000000ab.meta",
            "rev_9_6_300_000000AB.meta",
            "rev_9_6_300_000000ab_write.meta",
            "rev_9_6_300_000000ab.sst",
            "rev_9_6_300_000000ab_other.sst",
            "rev_9_6_300_000000ab_write_.sst",
            "rev_9_6_300_000000ab.meta.tmp.tmp",
        ] {
            assert_eq!(Name::parse(other), None, "{other}");
        }
    }
}
