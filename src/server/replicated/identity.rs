//! Who is who: the id of a cluster, incarnations, and how a store that is not who it should be is refused.
//!
//! ```text
//! basalt-cluster, basalt-store, basalt-incarnation, basalt-target    metadata of each Raft and Snapshot stream
//! basalt-refusal                                                     metadata of a FAILED_PRECONDITION
//! ```
//! TinyKV's messages stay as they are. Not here: what a store does when it is refused (`cluster`).

use std::{collections::BTreeMap, fs::File, io::Read as _};

use tonic::{
    Status,
    metadata::{MetadataMap, MetadataValue},
};

use crate::storage::data_dir::parse_hex;

const CLUSTER: &str = "basalt-cluster";
const STORE: &str = "basalt-store";
const INCARNATION: &str = "basalt-incarnation";
const TARGET: &str = "basalt-target";
const REFUSAL: &str = "basalt-refusal";

/// FNV-1a of 64 bits: of what is compared, never of what an enemy chooses. Stable for ever: ids of clusters and
/// checks of files are made of it.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The id of the cluster of this name with these founders; not 0.
#[must_use]
pub fn cluster_id(name: &str, founders: &BTreeMap<u64, String>) -> u64 {
    let founders = founders.iter().map(|(id, addr)| format!("{id}={addr}\n"));
    let text = format!("{name}\n{}", founders.collect::<String>());
    checksum(text.as_bytes()).max(1)
}

/// A number that nobody else has drawn; not 0.
///
/// # Errors
///
/// One sentence when the system gives no random bytes.
pub fn draw() -> Result<u64, String> {
    let mut bytes = [0; 8];
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|error| format!("cannot read random bytes from /dev/urandom: {error}"))?;
    Ok(u64::from_be_bytes(bytes).max(1))
}

/// Why a store is not spoken with; each with its sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It comes with another disk than before.
    Wiped(String),
    /// It is of another cluster.
    Foreign(String),
    /// It was removed from the cluster.
    Removed(String),
    /// It means another store, or makes no sense.
    Target(String),
    /// What it said could not be written down.
    Disk(String),
}

impl Refusal {
    /// A store whose incarnation has changed.
    #[must_use]
    pub fn wiped(store_id: u64) -> Self {
        Self::Wiped(format!(
            "store {store_id} is known with another disk: what it promised is lost with that, so it must not vote \
             again; start it with an empty directory and --join, then run: basalt member replace {store_id} NEW-ID"
        ))
    }

    /// A store of another cluster.
    #[must_use]
    pub fn foreign(theirs: u64, ours: u64) -> Self {
        Self::Foreign(format!(
            "the cluster here is {ours:016x}, not {theirs:016x}; --initial-cluster and --cluster-name must be the \
             same on all founders"
        ))
    }

    /// A store that was removed.
    #[must_use]
    pub fn removed(store_id: u64) -> Self {
        Self::Removed(format!(
            "store {store_id} was removed from the cluster; to come back it needs an empty directory and --join"
        ))
    }

    /// A store that means another one.
    #[must_use]
    pub fn target(asked: u64, actual: u64) -> Self {
        Self::Target(format!("this is store {actual}, not store {asked}"))
    }

    /// The sentence.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Wiped(text)
            | Self::Foreign(text)
            | Self::Removed(text)
            | Self::Target(text)
            | Self::Disk(text) => text,
        }
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Wiped(_) => "wiped",
            Self::Foreign(_) => "foreign",
            Self::Removed(_) => "removed",
            Self::Target(_) => "target",
            Self::Disk(_) => "disk",
        }
    }

    /// As it is told.
    #[must_use]
    pub fn to_status(&self) -> Status {
        let mut status = match self {
            Self::Disk(text) => Status::unavailable(text),
            other => Status::failed_precondition(other.text()),
        };
        let word = MetadataValue::from_static(self.word());
        status.metadata_mut().insert(REFUSAL, word);
        status
    }

    /// As it was told.
    #[must_use]
    pub fn of_status(status: &Status) -> Option<Self> {
        let text = status.message().to_owned();
        let word = status.metadata().get(REFUSAL)?;
        Some(match word.to_str().ok()? {
            "wiped" => Self::Wiped(text),
            "foreign" => Self::Foreign(text),
            "removed" => Self::Removed(text),
            "target" => Self::Target(text),
            _ => return None,
        })
    }
}

/// What a stream says of who sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Card {
    /// The sender's cluster.
    pub cluster_id: u64,
    /// The sender.
    pub store_id: u64,
    /// The sender's disk.
    pub incarnation: u64,
    /// Who shall get it.
    pub target: u64,
}

impl Card {
    /// Puts it into the metadata of a stream.
    pub fn write(&self, metadata: &mut MetadataMap) {
        let hex = |number: u64| format!("{number:016x}");
        for (name, value) in [
            (CLUSTER, hex(self.cluster_id)),
            (STORE, self.store_id.to_string()),
            (INCARNATION, hex(self.incarnation)),
            (TARGET, self.target.to_string()),
        ] {
            if let Ok(value) = value.parse() {
                metadata.insert(name, value);
            }
        }
    }

    /// Takes it from the metadata of a stream; `None` where it is not whole.
    #[must_use]
    pub fn read(metadata: &MetadataMap) -> Option<Self> {
        let text = |name: &str| metadata.get(name)?.to_str().ok();
        Some(Self {
            cluster_id: parse_hex(text(CLUSTER)?)?,
            store_id: text(STORE)?.parse().ok()?,
            incarnation: parse_hex(text(INCARNATION)?)?,
            target: text(TARGET)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn founders(text: &[(u64, &str)]) -> BTreeMap<u64, String> {
        text.iter()
            .map(|(id, addr)| (*id, (*addr).into()))
            .collect()
    }

    #[test]
    fn the_id_of_a_cluster_is_the_same_for_ever_and_differs_with_any_part() {
        let three = founders(&[(1, "a:1"), (2, "b:2"), (3, "c:3")]);
        let id = cluster_id("basalt", &three);
        assert_eq!(id, 0x66d5_05e7_b8c0_9ccd, "{id:016x}");
        assert_ne!(id, cluster_id("other", &three));
        assert_ne!(
            id,
            cluster_id("basalt", &founders(&[(1, "a:1"), (2, "b:2")]))
        );
        let swapped = founders(&[(1, "b:2"), (2, "a:1"), (3, "c:3")]);
        assert_ne!(id, cluster_id("basalt", &swapped));
    }

    #[test]
    fn a_card_is_read_as_it_was_written_and_never_in_part() {
        let card = Card {
            cluster_id: u64::MAX,
            store_id: 3,
            incarnation: 1,
            target: 2,
        };
        let mut metadata = MetadataMap::new();
        card.write(&mut metadata);
        assert_eq!(Card::read(&metadata), Some(card));
        for name in [CLUSTER, STORE, INCARNATION, TARGET] {
            let mut cut = metadata.clone();
            cut.remove(name);
            assert_eq!(Card::read(&cut), None, "{name}");
        }
    }

    #[test]
    fn a_refusal_survives_the_wire() {
        for refusal in [
            Refusal::wiped(2),
            Refusal::foreign(1, 2),
            Refusal::removed(3),
            Refusal::target(4, 5),
        ] {
            assert_eq!(Refusal::of_status(&refusal.to_status()), Some(refusal));
        }
        assert_eq!(Refusal::of_status(&Status::failed_precondition("x")), None);
        assert_eq!(
            Refusal::of_status(&Refusal::Disk("x".into()).to_status()),
            None
        );
    }

    #[test]
    fn drawn_numbers_differ() {
        assert_ne!(draw().unwrap(), draw().unwrap());
    }
}
