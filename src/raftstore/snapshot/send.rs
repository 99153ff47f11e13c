//! Reading the files of a snapshot to send them.

use std::{collections::VecDeque, fmt, iter, path::PathBuf, sync::Arc};

use basalt_engine::fs::ReadableFile;
use basalt_proto::eraftpb::Snapshot;
use prost::bytes::Bytes;

use super::{
    Origin, SNAPSHOT_CHUNK, SnapshotError, SnapshotKey, SnapshotState, SnapshotStore,
    description::{Description, FileSum},
    error::Result,
    tables,
};

/// The bytes of a snapshot's files, in order, as chunks of at most [`SNAPSHOT_CHUNK`] bytes, none of them
/// empty. After an error it is at its end. As long as it lives the snapshot is in use.
pub struct ChunkReader {
    store: SnapshotStore,
    key: SnapshotKey,
    /// All open from the beginning on.
    files: VecDeque<Source>,
    /// Where in the first of them.
    offset: u64,
    crc: crc32fast::Hasher,
    bytes: u64,
}

struct Source {
    path: PathBuf,
    file: Arc<dyn ReadableFile>,
    sum: FileSum,
}

impl SnapshotStore {
    /// The bytes of the files of a snapshot that [`SnapshotStore::generate`] has given: what follows the
    /// message in the stream.
    ///
    /// A file that is damaged is an error before its last chunk, so that the receiver cannot take it for
    /// whole; then the snapshot is removed, and the next `generate` makes another.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Missing`] for a snapshot that is not here any more, and
    /// [`SnapshotError::Damaged`]: generate another. [`SnapshotError::Refused`], [`SnapshotError::Engine`].
    pub fn chunks(&self, snapshot: &Snapshot) -> Result<ChunkReader> {
        let wanted = Description::of(snapshot)?;
        let id = (Origin::Generated, wanted.key);
        {
            let mut entries = self.entries();
            let state = entries.get_mut(&id).map(|entry| &mut entry.state);
            match state {
                Some(state @ SnapshotState::Ready) => *state = SnapshotState::Sending(1),
                Some(SnapshotState::Sending(senders)) => *senders += 1,
                _ => {
                    let what = format!("the files of {} are not here any more", wanted.key);
                    return Err(SnapshotError::Missing(what));
                }
            }
        }
        let mut reader = ChunkReader {
            store: self.clone(),
            key: wanted.key,
            files: VecDeque::new(),
            offset: 0,
            crc: crc32fast::Hasher::new(),
            bytes: wanted.bytes(),
        };
        for (at, sum) in wanted.present() {
            let path = self.table_path(Origin::Generated, &wanted.key, at);
            let opened = tables::open_file(&*self.inner.fs, &path).and_then(|file| {
                let len = FileSum {
                    bytes: file.len(),
                    ..sum
                };
                tables::demand(&path, &len, sum).map(|()| file)
            });
            let file = opened.map_err(|error| reader.fail(error))?;
            reader.files.push_back(Source { path, file, sum });
        }
        Ok(reader)
    }
}

impl ChunkReader {
    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read(&mut self) -> Result<Option<Bytes>> {
        let Some(source) = self.files.front() else {
            return Ok(None);
        };
        let left = source.sum.bytes - self.offset;
        let len = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(SNAPSHOT_CHUNK);
        let mut buffer = vec![0; len];
        let part = tables::chunk(&*source.file, &source.path, self.offset, &mut buffer)?;
        self.crc.update(part);
        self.offset += len as u64;
        if self.offset == source.sum.bytes {
            let found = FileSum {
                bytes: self.offset,
                checksum: std::mem::take(&mut self.crc).finalize(),
            };
            tables::demand(&source.path, &found, source.sum)?;
            self.files.pop_front();
            self.offset = 0;
        }
        Ok(Some(buffer.into()))
    }

    /// Ends it; files that cannot be sent by anyone go.
    fn fail(&mut self, error: SnapshotError) -> SnapshotError {
        self.files.clear();
        if matches!(error, SnapshotError::Missing(_) | SnapshotError::Damaged(_)) {
            // Others that send them have them open. Left over, they go with the next open.
            let _ = self.store.remove((Origin::Generated, self.key), |_| true);
        }
        error
    }
}

impl Iterator for ChunkReader {
    type Item = Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        let read = self.read();
        read.map_err(|error| self.fail(error)).transpose()
    }
}

impl iter::FusedIterator for ChunkReader {}

impl Drop for ChunkReader {
    fn drop(&mut self) {
        let mut entries = self.store.entries();
        let Some(entry) = entries.get_mut(&(Origin::Generated, self.key)) else {
            return;
        };
        match &mut entry.state {
            SnapshotState::Sending(senders) if *senders > 1 => *senders -= 1,
            state @ SnapshotState::Sending(_) => *state = SnapshotState::Ready,
            _ => {}
        }
    }
}

impl fmt::Debug for ChunkReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunkReader")
            .field("key", &self.key)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}
