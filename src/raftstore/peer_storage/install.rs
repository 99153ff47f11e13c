//! Installing a snapshot that was saved: everything of it in one step of kvdb, under the intent in
//! raftdb.

use basalt_engine::{
    ColumnFamily, Ingest, MAX_KEY_LEN, ReadOptions, TableFile, WriteBatch, prefix_end,
};
use basalt_proto::{
    metapb::Region,
    raft_serverpb::{RaftApplyState, RaftSnapshotData},
};
use basalt_raft::eraftpb::Snapshot;
use prost::Message;

use super::{Membership, PeerStorage};
use crate::{Result, keys, states};

/// A family and a range of its keys.
type FamilyRange = (ColumnFamily, Vec<u8>, Vec<u8>);

impl PeerStorage {
    /// The snapshot that is saved and not installed; nothing is applied before it is.
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
    /// # Errors
    ///
    /// [`crate::Error::Misuse`] without a pending snapshot, or before its save is published;
    /// [`crate::Error::Engine`]: the snapshot is still pending.
    pub fn install(
        &mut self,
        tables: Vec<(ColumnFamily, TableFile)>,
        batch: &mut WriteBatch,
    ) -> Result<()> {
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
        // In case that the caller has published a save that was not synced.
        self.engines.raft.sync()?;
        let region = &pending.membership.region;
        let mut ingest = Ingest::new();
        let old = self
            .membership
            .as_ref()
            .map(|membership| &membership.region);
        for region in old.into_iter().chain([region]) {
            for (family, start, end) in self.data_ranges(region)? {
                ingest.delete_range(&family, &start, &end);
            }
        }
        for (family, table) in tables {
            ingest.table(&family, table);
        }
        let apply_state = RaftApplyState {
            applied_index: pending.truncated.index,
            truncated_state: Some(pending.truncated),
        };
        let mut states = WriteBatch::new();
        states::put_apply_state(&self.engines, &mut states, self.region_id, &apply_state);
        let state = states::normal(region, &pending.membership.conf_state, self.peer_id);
        states::put_region_state(&self.engines, &mut states, self.region_id, &state);
        ingest.batch(states);
        self.engines.kv.ingest(ingest)?;

        batch.delete(&self.engines.states, &keys::intent(self.region_id));
        self.apply_state = apply_state;
        self.membership = Some(pending.membership);
        self.unflushed.clear();
        self.flushed_truncated = pending.truncated.index;
        self.pending = None;
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

    /// What the users' families hold of a region, to be deleted.
    pub(super) fn data_ranges(&self, region: &Region) -> Result<Vec<FamilyRange>> {
        let mut ranges = Vec::new();
        for family in &self.engines.data {
            let start = region.start_key.to_vec();
            let end = if region.end_key.is_empty() {
                self.behind_all(family, &start)?
            } else {
                Some(region.end_key.to_vec())
            };
            ranges.extend(end.map(|end| (family.clone(), start, end)));
        }
        Ok(ranges)
    }

    /// A key behind all that a family has from `start` on; `None` where it has nothing.
    fn behind_all(&self, family: &ColumnFamily, start: &[u8]) -> Result<Option<Vec<u8>>> {
        let options = ReadOptions {
            lower: Some(start.to_vec()),
            ..ReadOptions::default()
        };
        let mut iter = self.engines.kv.iter(family, &options)?;
        iter.seek_to_last()?;
        if !iter.valid() {
            return Ok(None);
        }
        let last = iter.key();
        if last.len() < MAX_KEY_LEN {
            return Ok(Some([last, &[0]].concat()));
        }
        let none = || self.misuse("the greatest key there can be is in use: no range holds it");
        prefix_end(last).map(Some).ok_or_else(none)
    }
}
