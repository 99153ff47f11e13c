//! Every local key of a store, in the bytes of TinyKV (FORMAT.md, section 9).
//!
//! The only place that knows them. Integers are big-endian, so that keys sort as their numbers do.
//! Not here: users' keys, which have families of their own and no prefix; what the values are
//! ([`crate::states`]).

use std::ops::Range;

/// First byte of every local key.
const LOCAL: u8 = 0x01;
/// Second byte of a key of a region's Raft group.
const RAFT: u8 = 0x02;
/// Second byte of a key of a region's own state.
const REGION: u8 = 0x03;

const LOG: u8 = 0x01;
const RAFT_STATE: u8 = 0x02;
const APPLY_STATE: u8 = 0x03;
const INTENT: u8 = 0x04;
const REGION_STATE: u8 = 0x01;

/// The region being bootstrapped; kvdb.
pub const PREPARE_BOOTSTRAP: [u8; 2] = [LOCAL, 0x01];
/// Who the store is; kvdb.
pub const STORE_IDENT: [u8; 2] = [LOCAL, 0x02];

/// Length of a log entry's key.
pub const LOG_KEY_LEN: usize = 19;
/// Length of the key of a region's state, and of what a log entry's key begins with.
pub const STATE_KEY_LEN: usize = 11;

/// What a local key is the key of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// [`PREPARE_BOOTSTRAP`].
    PrepareBootstrap,
    /// [`STORE_IDENT`].
    StoreIdent,
    /// An entry of a region's log; raftdb.
    Log {
        /// The region.
        region: u64,
        /// The entry's index.
        index: u64,
    },
    /// A region's RaftLocalState; raftdb.
    RaftState(u64),
    /// A region's RaftApplyState; kvdb.
    ApplyState(u64),
    /// A region's SnapshotIntent; raftdb. TinyKV has no such key.
    Intent(u64),
    /// A region's RegionLocalState; kvdb.
    RegionState(u64),
}

impl Key {
    /// The bytes.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        match self {
            Self::PrepareBootstrap => PREPARE_BOOTSTRAP.to_vec(),
            Self::StoreIdent => STORE_IDENT.to_vec(),
            Self::Log { region, index } => log(region, index).to_vec(),
            Self::RaftState(region) => raft_state(region).to_vec(),
            Self::ApplyState(region) => apply_state(region).to_vec(),
            Self::Intent(region) => intent(region).to_vec(),
            Self::RegionState(region) => region_state(region).to_vec(),
        }
    }

    /// What `key` is the key of; `None` for bytes that [`Key::encode`] does not give.
    #[must_use]
    pub fn decode(key: &[u8]) -> Option<Self> {
        let (&LOCAL, rest) = key.split_first()? else {
            return None;
        };
        let (&group, rest) = rest.split_first()?;
        let Some((region, rest)) = rest.split_first_chunk::<8>() else {
            return match (group, rest) {
                (0x01, []) => Some(Self::PrepareBootstrap),
                (0x02, []) => Some(Self::StoreIdent),
                _ => None,
            };
        };
        let region = u64::from_be_bytes(*region);
        match (group, rest) {
            (RAFT, [LOG, index @ ..]) => Some(Self::Log {
                region,
                index: u64::from_be_bytes(index.try_into().ok()?),
            }),
            (RAFT, [RAFT_STATE]) => Some(Self::RaftState(region)),
            (RAFT, [APPLY_STATE]) => Some(Self::ApplyState(region)),
            (RAFT, [INTENT]) => Some(Self::Intent(region)),
            (REGION, [REGION_STATE]) => Some(Self::RegionState(region)),
            _ => None,
        }
    }
}

fn state(group: u8, region: u64, suffix: u8) -> [u8; STATE_KEY_LEN] {
    let mut key = [0; STATE_KEY_LEN];
    (key[0], key[1]) = (LOCAL, group);
    key[2..10].copy_from_slice(&region.to_be_bytes());
    key[10] = suffix;
    key
}

/// The key of an entry.
#[must_use]
pub fn log(region: u64, index: u64) -> [u8; LOG_KEY_LEN] {
    let mut key = [0; LOG_KEY_LEN];
    key[..STATE_KEY_LEN].copy_from_slice(&log_prefix(region));
    key[STATE_KEY_LEN..].copy_from_slice(&index.to_be_bytes());
    key
}

/// What the keys of a region's entries begin with: all but the index.
#[must_use]
pub fn log_prefix(region: u64) -> [u8; STATE_KEY_LEN] {
    state(RAFT, region, LOG)
}

/// The keys of a region's entries, whatever their index.
#[must_use]
pub fn log_range(region: u64) -> Range<[u8; STATE_KEY_LEN]> {
    log_prefix(region)..state(RAFT, region, RAFT_STATE)
}

/// The key of a region's RaftLocalState.
#[must_use]
pub fn raft_state(region: u64) -> [u8; STATE_KEY_LEN] {
    state(RAFT, region, RAFT_STATE)
}

/// The key of a region's RaftApplyState.
#[must_use]
pub fn apply_state(region: u64) -> [u8; STATE_KEY_LEN] {
    state(RAFT, region, APPLY_STATE)
}

/// The key of a region's SnapshotIntent.
#[must_use]
pub fn intent(region: u64) -> [u8; STATE_KEY_LEN] {
    state(RAFT, region, INTENT)
}

/// The key of a region's RegionLocalState.
#[must_use]
pub fn region_state(region: u64) -> [u8; STATE_KEY_LEN] {
    state(REGION, region, REGION_STATE)
}

/// The keys of all RegionLocalStates: a store's peers.
#[must_use]
pub fn region_states() -> Range<[u8; 2]> {
    [LOCAL, REGION]..[LOCAL, REGION + 1]
}

/// All local keys.
#[must_use]
pub fn local() -> Range<[u8; 1]> {
    [LOCAL]..[LOCAL + 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each kind, for a few regions and indexes.
    fn all() -> Vec<Key> {
        let numbers = [0, 1, 0xff, 0x100, u64::MAX - 1, u64::MAX];
        let mut all = vec![Key::PrepareBootstrap, Key::StoreIdent];
        for region in numbers {
            all.extend(numbers.map(|index| Key::Log { region, index }));
            all.extend([Key::RaftState(region), Key::ApplyState(region)]);
            all.extend([Key::Intent(region), Key::RegionState(region)]);
        }
        all
    }

    #[test]
    fn keys_have_the_bytes_of_tinykv() {
        assert_eq!(Key::PrepareBootstrap.encode(), [1, 1]);
        assert_eq!(Key::StoreIdent.encode(), [1, 2]);
        let region = 0x0102_0304_0506_0708;
        let log = log(region, 0x1112_1314_1516_1718);
        let wanted = [
            1, 2, 1, 2, 3, 4, 5, 6, 7, 8, 1, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18,
        ];
        assert_eq!(log, wanted);
        assert_eq!(raft_state(region), [1, 2, 1, 2, 3, 4, 5, 6, 7, 8, 2]);
        assert_eq!(apply_state(region), [1, 2, 1, 2, 3, 4, 5, 6, 7, 8, 3]);
        assert_eq!(region_state(region), [1, 3, 1, 2, 3, 4, 5, 6, 7, 8, 1]);
    }

    #[test]
    fn each_key_decodes_to_what_it_was_made_of_and_no_cut_or_longer_one_does() {
        let all = all();
        let mut encoded: Vec<_> = all.iter().map(|key| key.encode()).collect();
        for (key, bytes) in all.iter().zip(&encoded) {
            assert_eq!(Key::decode(bytes), Some(*key));
            assert_eq!(Key::decode(&[bytes, &[0][..]].concat()), None, "{key:?}");
            for len in 0..bytes.len() {
                // The only keys that begin others are those of two bytes.
                let cut = Key::decode(&bytes[..len]);
                assert!(cut.is_none() || len == 2, "{key:?} cut to {len}: {cut:?}");
            }
        }
        encoded.sort();
        encoded.dedup();
        assert_eq!(encoded.len(), all.len(), "no two kinds share a key");
    }

    #[test]
    fn foreign_bytes_are_no_key() {
        let mut other = raft_state(7);
        other[10] = 5;
        assert_eq!(Key::decode(&other), None);
        let mut other = region_state(7);
        other[10] = 2;
        assert_eq!(Key::decode(&other), None);
        for foreign in [
            &b""[..],
            b"k",
            b"default_k",
            &[1],
            &[1, 3],
            &[2, 2],
            &[1, 4],
        ] {
            assert_eq!(Key::decode(foreign), None, "{foreign:?}");
        }
    }

    #[test]
    fn entries_sort_by_region_and_index() {
        let pairs = [(1, 255), (1, 256), (1, u64::MAX), (2, 0), (256, 0)];
        let keys = pairs.map(|(region, index)| log(region, index));
        assert!(keys.is_sorted());
    }

    #[test]
    fn a_range_holds_what_it_is_named_after_and_nothing_else() {
        for key in all() {
            let bytes = key.encode();
            let within = |start: &[u8], end: &[u8]| (start..end).contains(&&bytes[..]);
            let range = log_range(1);
            let is_log = matches!(key, Key::Log { region: 1, .. });
            assert_eq!(within(&range.start, &range.end), is_log, "{key:?}");
            let range = region_states();
            let is_region = matches!(key, Key::RegionState(_));
            assert_eq!(within(&range.start, &range.end), is_region, "{key:?}");
            assert!(within(&local().start, &local().end), "{key:?}");
        }
    }
}
