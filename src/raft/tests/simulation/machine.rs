//! The replicated state machine: a few registers, and the membership at the applied index. It also
//! carries a hash over the log that it has applied, so that a state tells where it comes from.

use basalt_raft::eraftpb::{ConfState, Entry, Snapshot, SnapshotMetadata};
use bytes::Bytes;

use super::{chain::Link, trace::mix};

/// Registers.
pub(crate) const KEYS: usize = 4;

/// A state.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Machine {
    /// What is applied: the last place of the log that this state comes from.
    pub(crate) applied: Link,
    /// The last value written to each key.
    pub(crate) registers: [u64; KEYS],
    /// The membership.
    pub(crate) conf: ConfState,
}

/// The data of a proposal that writes `value`, which names the key too.
pub(crate) fn write(value: u64, padding: usize) -> Bytes {
    let mut data = value.to_le_bytes().to_vec();
    data.resize(8 + padding, 0xA5);
    data.into()
}

/// The key that `value` is written to.
pub(crate) fn key_of(value: u64) -> usize {
    usize::try_from(value).unwrap_or(0) % KEYS
}

fn word(data: &[u8], place: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&data[place * 8..place * 8 + 8]);
    u64::from_le_bytes(word)
}

impl Machine {
    /// The state after `entry`, which follows the applied ones; membership is the caller's.
    pub(crate) fn apply(&mut self, entry: &Entry) {
        self.applied = self.applied.then(entry);
        if entry.data.len() >= 8 && entry.entry_type == 0 {
            let value = word(&entry.data, 0);
            self.registers[key_of(value)] = value;
        }
    }

    /// A hash over the state, but for the membership.
    pub(crate) fn digest(&self) -> u64 {
        let registers = self.registers.iter();
        registers.fold(self.applied.hash, |hash, value| mix(hash, *value))
    }

    /// The state as a snapshot.
    pub(crate) fn to_snapshot(&self) -> Snapshot {
        let words = self.registers.iter().chain([&self.applied.hash]);
        let data: Vec<u8> = words.flat_map(|word| word.to_le_bytes()).collect();
        Snapshot {
            data: data.into(),
            metadata: Some(SnapshotMetadata {
                conf_state: Some(self.conf.clone()),
                index: self.applied.index,
                term: self.applied.term,
            }),
        }
    }

    /// The state that a snapshot holds.
    pub(crate) fn from_snapshot(snapshot: &Snapshot) -> Self {
        let metadata = snapshot.metadata.clone().unwrap_or_default();
        let mut registers = [0; KEYS];
        for (place, register) in registers.iter_mut().enumerate() {
            *register = word(&snapshot.data, place);
        }
        Self {
            applied: Link {
                index: metadata.index,
                term: metadata.term,
                hash: word(&snapshot.data, KEYS),
            },
            registers,
            conf: metadata.conf_state.unwrap_or_default(),
        }
    }
}
