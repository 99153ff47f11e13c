//! What a Raft snapshot says of its files, checked: which snapshot, of which region, which sums.

use std::fmt;

use basalt_engine::MAX_KEY_LEN;
use basalt_proto::{
    eraftpb::Snapshot,
    metapb::Region,
    raft_serverpb::{RaftSnapshotData, SnapshotCfFile},
};
use prost::Message;

use super::{MAX_SNAPSHOT_BYTES, SnapshotError, error::Result};
use crate::DATA_FAMILIES;

/// Which snapshot. The state of a region at an index is the same wherever it is made, but not the bytes
/// of its files, so that the key says which ones it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotKey {
    /// The region.
    pub region: u64,
    /// Term of the entry at `index`.
    pub term: u64,
    /// The last entry whose effect is in it.
    pub index: u64,
    /// CRC-32 (IEEE) of the snapshot's data, which has the sums of the files in it.
    pub checksum: u32,
}

impl SnapshotKey {
    /// The key of a snapshot.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Refused`] for one that names no files.
    pub fn of(snapshot: &Snapshot) -> Result<Self> {
        Description::of(snapshot).map(|description| description.key)
    }
}

impl fmt::Display for SnapshotKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            region,
            term,
            index,
            checksum,
        } = self;
        write!(
            f,
            "the snapshot of region {region} at index {index} of term {term} ({checksum:08x})"
        )
    }
}

/// Length and CRC-32 (IEEE) of a file. A family without rows has none, and both are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FileSum {
    pub(super) bytes: u64,
    pub(super) checksum: u32,
}

/// A snapshot, and what it says.
#[derive(Clone, Debug)]
pub(super) struct Description {
    pub(super) key: SnapshotKey,
    pub(super) region: Region,
    /// In the order of [`DATA_FAMILIES`].
    pub(super) files: [FileSum; 3],
    pub(super) snapshot: Snapshot,
}

impl Description {
    /// Reads a snapshot; nothing that it says is believed yet, but all of it makes sense.
    pub(super) fn of(snapshot: &Snapshot) -> Result<Self> {
        let refused = |what: String| SnapshotError::Refused(format!("a snapshot {what}"));
        let metadata = snapshot.metadata.as_ref();
        let metadata = metadata.ok_or_else(|| refused("without metadata".into()))?;
        if metadata.index == 0 || metadata.term == 0 {
            return Err(refused("without index or term".into()));
        }
        let data = RaftSnapshotData::decode(snapshot.data.clone());
        let data = data.map_err(|error| refused(format!("whose data does not decode: {error}")))?;
        if !data.data.is_empty() {
            return Err(refused("with pairs in its data".into()));
        }
        let region = data
            .region
            .ok_or_else(|| refused("without a region".into()))?;
        check_region(&region).map_err(&refused)?;
        let files = data.meta.unwrap_or_default().cf_files;
        let files = check_files(&files, data.file_size).map_err(&refused)?;
        Ok(Self {
            key: SnapshotKey {
                region: region.id,
                term: metadata.term,
                index: metadata.index,
                checksum: crc32fast::hash(&snapshot.data),
            },
            region,
            files,
            snapshot: snapshot.clone(),
        })
    }

    /// The files that there are: families and sums, in order.
    pub(super) fn present(&self) -> impl Iterator<Item = (usize, FileSum)> {
        let files = self.files.into_iter().enumerate();
        files.filter(|(_, sum)| sum.bytes > 0)
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        // Checked: they are together within the limit.
        self.files.iter().map(|sum| sum.bytes).sum()
    }
}

/// What is said of files, in the form that is sent.
pub(super) fn cf_files(files: &[FileSum; 3]) -> Vec<SnapshotCfFile> {
    let file = |(name, sum): (&str, &FileSum)| SnapshotCfFile {
        cf: name.to_owned(),
        size: sum.bytes,
        checksum: sum.checksum,
    };
    DATA_FAMILIES.into_iter().zip(files).map(file).collect()
}

fn check_region(region: &Region) -> Result<(), String> {
    let Region {
        id,
        start_key,
        end_key,
        peers,
        ..
    } = region;
    if *id == 0 || peers.is_empty() {
        return Err("of a region without an id or peers".into());
    }
    if !end_key.is_empty() && start_key >= end_key {
        return Err(format!("of region {id}, whose range is empty"));
    }
    if start_key.len().max(end_key.len()) > MAX_KEY_LEN {
        return Err(format!(
            "of region {id}, whose range has a key of more than {MAX_KEY_LEN} bytes"
        ));
    }
    Ok(())
}

fn check_files(files: &[SnapshotCfFile], all: u64) -> Result<[FileSum; 3], String> {
    if !files.iter().map(|file| &*file.cf).eq(DATA_FAMILIES) {
        return Err(format!("whose files are not those of {DATA_FAMILIES:?}"));
    }
    let mut sums = [FileSum::default(); 3];
    let mut total = 0_u64;
    for (sum, file) in sums.iter_mut().zip(files) {
        if file.size == 0 && file.checksum != 0 {
            return Err("with a checksum of no file".into());
        }
        total = total.saturating_add(file.size);
        *sum = FileSum {
            bytes: file.size,
            checksum: file.checksum,
        };
    }
    if total > MAX_SNAPSHOT_BYTES {
        return Err(format!("of {total} bytes, limit {MAX_SNAPSHOT_BYTES}"));
    }
    if total != all {
        return Err(format!("of {all} bytes with files of {total}"));
    }
    Ok(sums)
}
