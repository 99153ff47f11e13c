//! Making the files of a snapshot from what kvdb has.

use std::sync::Arc;

use basalt_engine::{ReadOptions, TableWriter};
use basalt_proto::{
    eraftpb::{Entry as LogEntry, Snapshot, SnapshotMetadata},
    metapb::Region,
    raft_serverpb::{PeerState, RaftApplyState, RaftSnapshotData, RegionLocalState, SnapshotMeta},
};
use prost::Message;

use super::{
    Entry, MAX_GENERATED, MAX_SNAPSHOT_BYTES, Origin, SNAPSHOT_CHUNK, SnapshotError, SnapshotKey,
    SnapshotState, SnapshotStore, Unfinished,
    description::{Description, FileSum, cf_files},
    error::Result,
    names, tables,
};
use crate::{keys, states};

impl SnapshotStore {
    /// Makes a snapshot of a region as kvdb has it now, for `PeerStorage::offer_snapshot`. One of the same
    /// index that is here already is given again.
    ///
    /// After each [`SNAPSHOT_CHUNK`] of rows it calls `pace` with the number of bytes, to be slowed down by
    /// it; false ends it. The rows stay readable in kvdb until it is done: a slow one holds back what
    /// compaction may forget.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Busy`] where one of the region is being made, [`MAX_GENERATED`] are here, the log
    /// was truncated meanwhile, or `pace` said no; [`SnapshotError::Refused`] for a region that does not
    /// live here, or beyond [`MAX_SNAPSHOT_BYTES`]; [`SnapshotError::Corruption`];
    /// [`SnapshotError::Engine`].
    pub fn generate(&self, region_id: u64, pace: &mut dyn FnMut(u64) -> bool) -> Result<Snapshot> {
        let moment = self.moment(region_id)?;
        let mut unfinished = match self.begin(&moment)? {
            Begun::Here(snapshot) => return Ok(snapshot),
            Begun::New(unfinished) => unfinished,
        };
        let mut files = [FileSum::default(); 3];
        for (at, sum) in files.iter_mut().enumerate() {
            *sum = self.write_family(&moment, at, &mut unfinished, pace)?;
        }
        let bytes = files.iter().map(|sum| sum.bytes).sum();
        if bytes > MAX_SNAPSHOT_BYTES {
            let what = format!("a snapshot of {bytes} bytes, limit {MAX_SNAPSHOT_BYTES}");
            return Err(SnapshotError::Refused(what));
        }
        let conf_state = moment.state.conf_state.clone();
        let conf_state = conf_state.unwrap_or_else(|| states::all_vote(&moment.region));
        let data = RaftSnapshotData {
            region: Some(moment.region),
            file_size: bytes,
            data: Vec::new(),
            meta: Some(SnapshotMeta {
                cf_files: cf_files(&files),
            }),
        };
        let snapshot = Snapshot {
            data: data.encode_to_vec().into(),
            metadata: Some(SnapshotMetadata {
                conf_state: Some(conf_state),
                index: moment.key.index,
                term: moment.key.term,
            }),
        };
        let description = Arc::new(Description::of(&snapshot)?);
        let key = description.key;
        for (at, _) in description.present() {
            let from = self.table_path(Origin::Generated, &moment.key, at);
            let to = self.table_path(Origin::Generated, &key, at);
            unfinished.rename(&names::temporary(&from), &to)?;
        }
        unfinished.complete(key, Entry::new(SnapshotState::Ready, Some(description)));
        Ok(snapshot)
    }

    /// What kvdb has of a region now.
    fn moment(&self, region_id: u64) -> Result<Moment> {
        let engines = &self.inner.engines;
        let at = ReadOptions::at(&engines.kv.snapshot());
        let corruption = |what: String| SnapshotError::Corruption {
            region: region_id,
            what,
        };
        let refused = |what| SnapshotError::Refused(format!("region {region_id} {what}"));
        let key = keys::region_state(region_id);
        let Some(bytes) = engines.kv.get_with(&engines.local, &key, &at)? else {
            return Err(refused("is not on this store"));
        };
        let state = RegionLocalState::decode(&bytes[..]);
        let state = state
            .map_err(|error| corruption(format!("the region state does not decode: {error}")))?;
        if state.state() != PeerState::Normal {
            return Err(refused("does not live on this store any more"));
        }
        let key = keys::apply_state(region_id);
        let bytes = engines.kv.get_with(&engines.local, &key, &at)?;
        let bytes = bytes.ok_or_else(|| corruption("a region without an apply state".into()))?;
        let apply = RaftApplyState::decode(&bytes[..]);
        let apply = apply
            .map_err(|error| corruption(format!("the apply state does not decode: {error}")))?;
        let region = state.region.clone().unwrap_or_default();
        if region.id != region_id {
            let what = format!("its region state is that of region {}", region.id);
            return Err(corruption(what));
        }
        let key = SnapshotKey {
            region: region_id,
            term: self.applied_term(region_id, &apply)?,
            index: apply.applied_index,
            checksum: 0, // of files that are not there yet
        };
        Ok(Moment {
            key,
            at,
            state,
            region,
        })
    }

    /// The term of the last applied entry.
    fn applied_term(&self, region_id: u64, apply: &RaftApplyState) -> Result<u64> {
        let truncated = states::truncated(apply);
        let index = apply.applied_index;
        if truncated.index == index {
            return Ok(truncated.term);
        }
        let engines = &self.inner.engines;
        // raftdb is read later than kvdb, and its log may be shorter by now.
        let Some(bytes) = engines
            .raft
            .get(&engines.log, &keys::log(region_id, index))?
        else {
            return Err(SnapshotError::Busy(format!(
                "the log of region {region_id} is truncated above index {index} by now"
            )));
        };
        let entry = LogEntry::decode(&bytes[..]);
        let entry = entry.map_err(|error| SnapshotError::Corruption {
            region: region_id,
            what: format!("entry {index} does not decode: {error}"),
        })?;
        Ok(entry.term)
    }

    /// Takes note of a snapshot that is being made, or finds that it is here.
    fn begin(&self, moment: &Moment) -> Result<Begun> {
        let SnapshotKey {
            region,
            term,
            index,
            ..
        } = moment.key;
        let busy = |what| Err(SnapshotError::Busy(what));
        let mut entries = self.entries();
        let generated = entries
            .iter()
            .filter(|((origin, _), _)| *origin == Origin::Generated);
        for ((_, key), entry) in generated
            .clone()
            .filter(|((_, key), _)| key.region == region)
        {
            if entry.state == SnapshotState::Generating {
                return busy(format!("a snapshot of region {region} is being made"));
            }
            if (key.term, key.index) != (term, index) {
                continue;
            }
            match &entry.description {
                Some(description) if entry.state != SnapshotState::Removing => {
                    return Ok(Begun::Here(description.snapshot.clone()));
                }
                _ => return busy(format!("{key} is being removed")),
            }
        }
        if generated.count() >= MAX_GENERATED {
            return busy(format!(
                "{MAX_GENERATED} snapshots that were made are here, as many as may be"
            ));
        }
        let id = (Origin::Generated, moment.key);
        entries.insert(id, Entry::new(SnapshotState::Generating, None));
        drop(entries);
        Ok(Begun::New(Unfinished::new(self, id)))
    }

    /// Writes the rows of a family to a file that has no checksum in its name yet.
    fn write_family(
        &self,
        moment: &Moment,
        at: usize,
        unfinished: &mut Unfinished,
        pace: &mut dyn FnMut(u64) -> bool,
    ) -> Result<FileSum> {
        let engines = &self.inner.engines;
        let family = &engines.data[at];
        let Region {
            start_key, end_key, ..
        } = &moment.region;
        let options = ReadOptions {
            lower: Some(start_key.to_vec()),
            upper: (!end_key.is_empty()).then(|| end_key.to_vec()),
            ..moment.at.clone()
        };
        let mut iter = engines.kv.iter(family, &options)?;
        iter.seek_to_first()?;
        if !iter.valid() {
            return Ok(FileSum::default());
        }
        let path = self.table_path(Origin::Generated, &moment.key, at);
        let path = unfinished.temporary(&path);
        let mut writer: TableWriter = engines.kv.table_writer(family, &path)?;
        let mut unpaced = 0;
        while iter.valid() {
            writer.put(iter.key(), iter.value())?;
            unpaced += iter.key().len() + iter.value().len();
            if unpaced >= SNAPSHOT_CHUNK {
                if !pace(unpaced as u64) {
                    let what = format!("a snapshot of region {} was stopped", moment.region.id);
                    return Err(SnapshotError::Busy(what));
                }
                unpaced = 0;
            }
            iter.next()?;
        }
        writer.finish()?;
        tables::checksum(&*self.inner.fs, &path)
    }
}

/// A region at one moment of kvdb.
struct Moment {
    /// Without a checksum.
    key: SnapshotKey,
    at: ReadOptions,
    state: RegionLocalState,
    region: Region,
}

enum Begun {
    Here(Snapshot),
    New(Unfinished),
}
