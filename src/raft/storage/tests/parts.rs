//! A log in memory taken apart, so that tests can put it together in another, wrong way.

use bytes::Bytes;

use super::super::*;
use crate::{NO_LIMIT, eraftpb::SnapshotMetadata};

/// The parts of a log in memory, to be put together in another way.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) hard_state: HardState,
    pub(super) conf_state: ConfState,
    pub(super) base: (u64, u64),
    pub(super) entries: Vec<Entry>,
    pub(super) snapshot: Option<Snapshot>,
}

impl Parts {
    pub(super) fn of(log: &MemStorage) -> Self {
        let state = log.initial_state().expect("memory");
        let first = log.first_index().expect("memory");
        let end = log.last_index().expect("memory") + 1;
        let snapshot = log.snapshot(1).expect("memory");
        Self {
            hard_state: state.hard_state,
            conf_state: state.conf_state,
            base: (first - 1, log.term(first - 1).expect("memory")),
            entries: log.entries(first, end, NO_LIMIT).expect("memory"),
            snapshot: Some(snapshot).filter(|snapshot| index_of(snapshot) > 0),
        }
    }

    pub(super) fn build(self) -> MemStorage {
        let mut log = MemStorage::new();
        log.set_hard_state(self.hard_state);
        let place = |index, term| SnapshotMetadata {
            conf_state: Some(self.conf_state.clone()),
            index,
            term,
        };
        let at = self.snapshot.as_ref().map_or(0, index_of);
        if self.base.0 > 0 {
            let data = match &self.snapshot {
                Some(snapshot) if at == self.base.0 => snapshot.data.clone(),
                _ => Bytes::new(),
            };
            let metadata = Some(place(self.base.0, self.base.1));
            let applied = log.apply_snapshot(Snapshot { data, metadata });
            applied.expect("the first snapshot");
        } else {
            log.set_conf_state(self.conf_state.clone());
        }
        log.append(self.entries);
        if let Some(snapshot) = self.snapshot.filter(|_| at > self.base.0) {
            // A snapshot above the entries is a mistake that the caller wants to make.
            let _ = log.create_snapshot(at, Some(self.conf_state), snapshot.data);
        }
        log
    }
}

pub(super) fn index_of(snapshot: &Snapshot) -> u64 {
    snapshot
        .metadata
        .as_ref()
        .map_or(0, |metadata| metadata.index)
}
