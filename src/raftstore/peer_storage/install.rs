//! Installing a snapshot that was saved: everything of it in one step of kvdb, under the intent in
//! raftdb.

use basalt_engine::{
    ColumnFamily, Ingest, MAX_KEY_LEN, ReadOptions, SequenceNumber, TableFile, WriteBatch,
    WriteOptions, prefix_end,
};
use basalt_proto::{
    metapb::Region,
    raft_serverpb::{RaftApplyState, RaftSnapshotData, RaftTruncatedState},
};
use basalt_raft::eraftpb::Snapshot;
use prost::Message;

use super::{Membership, PeerStorage, Pending, life::living};
use crate::{
    Engines, Error, Result,
    faults::{Fault, Faults},
    keys, states,
};

/// A family and a range of its keys.
type FamilyRange = (ColumnFamily, Vec<u8>, Vec<u8>);

impl PeerStorage {
    /// The snapshot that is saved and not installed; nothing behind it is applied before it is.
    #[must_use]
    pub fn pending_snapshot(&self) -> Option<&Snapshot> {
        self.pending.as_ref().map(|pending| &pending.snapshot)
    }

    /// Replaces the data by that of the pending snapshot, durably; then puts the end of the intent into a
    /// batch for raftdb. Keep the table files until that batch is synced: a restart before it may ask for
    /// them again. The save of the snapshot must be durable and [`PeerStorage::published`].
    ///
    /// `tables` are of the families of [`crate::Engines::data`], and hold keys of the region alone.
    ///
    /// It is [`PeerStorage::installation`], [`Installation::run`] and [`PeerStorage::installed`] at once:
    /// for who does not apply entries elsewhere, as at a start.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Misuse`] without a pending snapshot, or before its save is published;
    /// [`crate::Error::Engine`]: the snapshot is still pending.
    pub fn install(
        &mut self,
        tables: Vec<(ColumnFamily, TableFile)>,
        batch: &mut WriteBatch,
    ) -> Result<()> {
        let installed = self.installation()?.run(tables)?;
        self.installed(installed, batch)
    }

    /// What is to be done in kvdb for the pending snapshot, to be run where this peer's entries are
    /// applied, behind all that were handed out before.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Misuse`] without a pending snapshot, or before its save is published.
    pub fn installation(&self) -> Result<Installation> {
        let Some(pending) = self.pending.clone() else {
            return Err(self.misuse("no snapshot is pending"));
        };
        let flying = self.in_flight.front().map(|(save, _)| *save);
        if pending
            .save
            .is_some_and(|save| flying.is_some_and(|flying| flying <= save))
        {
            return Err(self.misuse("a snapshot is installed before its intent is durable"));
        }
        Ok(Installation {
            engines: self.engines.clone(),
            region_id: self.region_id,
            peer_id: self.peer_id,
            pending,
        })
    }

    /// Takes note of an installation that has run, and puts the end of the intent into a batch for raftdb.
    /// Where a newer snapshot has come meanwhile, that one is still pending, and the intent is its.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Misuse`] for one that is not of the pending snapshot or an older one.
    pub fn installed(&mut self, installed: Installed, batch: &mut WriteBatch) -> Result<()> {
        let Installed {
            truncated,
            membership,
        } = installed;
        let pending = self.pending.as_ref().map_or(0, |p| p.truncated.index);
        if pending < truncated.index || truncated.index <= self.apply_state.applied_index {
            return Err(self.misuse(format!(
                "a snapshot at {} is installed, at {pending} there is one pending",
                truncated.index
            )));
        }
        if pending == truncated.index {
            batch.delete(&self.engines.states, &keys::intent(self.region_id));
            self.pending = None;
        }
        self.apply_state = states::installed(truncated);
        self.membership = Some(membership);
        self.unflushed.clear();
        self.flushed_truncated = truncated.index;
        // The step that installs it is durable whatever is flushed.
        self.last_seq = SequenceNumber::ZERO;
        self.applied_at.clear();
        self.applied_at.push_back((self.last_seq, truncated.index));
        Ok(())
    }

    /// The region that a snapshot is of, and the roles of its peers.
    pub(super) fn membership_of(&self, snapshot: &Snapshot) -> Result<Membership> {
        let data = RaftSnapshotData::decode(snapshot.data.clone());
        let data = data.map_err(|error| self.misuse(format!("data of a snapshot: {error}")))?;
        let region = data.region.unwrap_or_default();
        if region.id != self.region_id {
            return Err(self.misuse(format!("a snapshot of region {}", region.id)));
        }
        let metadata = snapshot.metadata.clone().unwrap_or_default();
        let conf_state = metadata.conf_state;
        Ok(Membership {
            conf_state: conf_state.unwrap_or_else(|| states::all_vote(&region)),
            region,
        })
    }
}

/// A snapshot's way into kvdb, apart from the peer's storage.
#[derive(Clone, Debug)]
pub struct Installation {
    engines: Engines,
    region_id: u64,
    peer_id: u64,
    pending: Pending,
}

/// That a snapshot is in kvdb.
#[derive(Debug)]
pub struct Installed {
    truncated: RaftTruncatedState,
    membership: Membership,
}

impl Installed {
    /// How far the data is now.
    #[must_use]
    pub fn apply_state(&self) -> RaftApplyState {
        states::installed(self.truncated)
    }

    /// The region now.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        &self.membership
    }
}

impl Installation {
    /// The snapshot, whose tables are to be brought.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.pending.snapshot
    }

    /// Replaces the data of the region by `tables`, durably. What the region's range was is read from
    /// kvdb, as all that was applied has left it.
    ///
    /// # Errors
    ///
    /// [`Error::Engine`]: it may be run again, and does nothing where it was done. [`Error::Tombstone`]
    /// and [`Error::OtherPeer`] where the peer was removed meanwhile.
    pub fn run(&self, tables: Vec<(ColumnFamily, TableFile)>) -> Result<Installed> {
        self.run_with(tables, Faults::default())
    }

    pub(crate) fn run_with(
        &self,
        tables: Vec<(ColumnFamily, TableFile)>,
        faults: Faults,
    ) -> Result<Installed> {
        let (engines, pending) = (&self.engines, &self.pending);
        // In case that the caller has published a save that was not synced.
        engines.raft.sync()?;
        let old = living(engines, self.region_id, self.peer_id)?;
        let installed = Installed {
            truncated: pending.truncated,
            membership: pending.membership.clone(),
        };
        let before = states::apply_state(engines, self.region_id)?;
        // Of an older peer it says nothing.
        let before = before.filter(|_| old.is_some()).unwrap_or_default();
        if before.applied_index >= pending.truncated.index {
            // It has run; what was applied since stays.
            return Ok(installed);
        }
        let old = old.and_then(|state| state.region);
        let region = &pending.membership.region;
        let mut ingest = Ingest::new();
        for region in old.iter().chain([region]) {
            for (family, start, end) in data_ranges(engines, region)? {
                if !faults.is(Fault::SnapshotWithoutDelete) {
                    ingest.delete_range(&family, &start, &end);
                }
            }
        }
        for (family, table) in tables {
            ingest.table(&family, table);
        }
        let mut batch = WriteBatch::new();
        let apply_state = states::installed(pending.truncated);
        states::put_apply_state(engines, &mut batch, self.region_id, &apply_state);
        let state = states::normal(region, &pending.membership.conf_state, self.peer_id);
        states::put_region_state(engines, &mut batch, self.region_id, &state);
        if faults.is(Fault::SnapshotInTwoSteps) {
            engines.kv.write(batch, WriteOptions::NO_SYNC)?;
            engines.flush_kv()?;
        } else {
            ingest.batch(batch);
        }
        engines.kv.ingest(ingest)?;
        Ok(installed)
    }
}

/// What the users' families hold of a region, to be deleted.
pub(super) fn data_ranges(engines: &Engines, region: &Region) -> Result<Vec<FamilyRange>> {
    let mut ranges = Vec::new();
    for family in &engines.data {
        let start = region.start_key.to_vec();
        let end = if region.end_key.is_empty() {
            behind_all(engines, family, region)?
        } else {
            Some(region.end_key.to_vec())
        };
        ranges.extend(end.map(|end| (family.clone(), start, end)));
    }
    Ok(ranges)
}

/// A key behind all that a family has from the region's start on; `None` where it has nothing.
fn behind_all(
    engines: &Engines,
    family: &ColumnFamily,
    region: &Region,
) -> Result<Option<Vec<u8>>> {
    let options = ReadOptions {
        lower: Some(region.start_key.to_vec()),
        ..ReadOptions::default()
    };
    let mut iter = engines.kv.iter(family, &options)?;
    iter.seek_to_last()?;
    if !iter.valid() {
        return Ok(None);
    }
    let last = iter.key();
    if last.len() < MAX_KEY_LEN {
        return Ok(Some([last, &[0]].concat()));
    }
    let what = "the greatest key there can be is in use: no range holds it";
    let none = || Error::misuse(region.id, what);
    prefix_end(last).map(Some).ok_or_else(none)
}
