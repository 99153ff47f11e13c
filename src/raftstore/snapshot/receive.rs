//! Receiving the files of a snapshot, and knowing afterwards that they are complete.
//!
//! Table files are written, synced, named and verified; then the meta file, synced and named, says that
//! they are complete; then the directory is synced. A meta file without all its tables counts for nothing.

use std::{io::ErrorKind::NotFound, path::Path, sync::Arc};

use basalt_engine::{
    coding::Reader,
    fs::{Fs, WritableFile},
};
use basalt_proto::{
    eraftpb::{MessageType, Snapshot},
    raft_serverpb::RaftMessage,
};
use prost::Message;

use super::{
    Entries, Entry, MAX_RECEIVED, MAX_RECEIVING, Name, Origin, SnapshotError, SnapshotKey,
    SnapshotState, SnapshotStore, Unfinished,
    description::{Description, FileSum},
    error::{Result, io},
    names, tables,
};

pub(super) const META_MAGIC: &[u8; 8] = b"BSLTSNP1";
/// Bytes of the largest meta file that is read; a message is smaller.
const MAX_META_BYTES: u64 = 64 << 20;

/// What becomes of a snapshot that another store offers.
#[derive(Debug)]
pub enum Incoming {
    /// Push its chunks, finish it, then give its message to the peer.
    Wanted(Receiver),
    /// All of it is here: read no chunk, and give its message to the peer.
    Present,
}

/// Takes the files of a snapshot. Dropped before [`Receiver::finish`], it removes what it has written.
pub struct Receiver {
    unfinished: Unfinished,
    description: Arc<Description>,
    /// The family whose file comes next, or is coming.
    at: usize,
    file: Option<Part>,
    /// Bytes that are still to come.
    missing: u64,
    failed: bool,
}

/// A file that is coming in.
struct Part {
    file: Box<dyn WritableFile>,
    crc: crc32fast::Hasher,
    bytes: u64,
}

impl SnapshotStore {
    /// Begins to receive the snapshot of a message, which is the first element of its stream.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Refused`] for a message that is no snapshot of files in the one accepted form, or
    /// whose receiver is no peer of the region; [`SnapshotError::Busy`] where one of the region is coming
    /// in, or being removed, or a limit is reached ([`MAX_RECEIVING`], [`MAX_RECEIVED`]).
    pub fn receive(&self, message: &RaftMessage) -> Result<Incoming> {
        let description = Arc::new(announced(message)?);
        let key = description.key;
        let mut entries = self.entries();
        let id = (Origin::Received, key);
        match entries.get(&id).map(|entry| entry.state) {
            Some(SnapshotState::Removing) => {
                return Err(SnapshotError::Busy(format!("{key} is being removed")));
            }
            None | Some(SnapshotState::Receiving) => {}
            Some(_) => return Ok(Incoming::Present),
        }
        demand_room(&entries, key.region)?;
        let entry = Entry::new(SnapshotState::Receiving, Some(Arc::clone(&description)));
        entries.insert(id, entry);
        drop(entries);
        Ok(Incoming::Wanted(Receiver {
            unfinished: Unfinished::new(self, id),
            missing: description.bytes(),
            description,
            at: 0,
            file: None,
            failed: false,
        }))
    }
}

impl SnapshotStore {
    /// Whether a snapshot of a region would be taken in now, before it is made.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Busy`], as [`SnapshotStore::receive`] would say.
    pub fn room_for(&self, region_id: u64) -> Result<()> {
        demand_room(&self.entries(), region_id)
    }
}

/// Whether one more may come in.
fn demand_room(entries: &Entries, region_id: u64) -> Result<()> {
    let busy = |what| Err(SnapshotError::Busy(what));
    let received = entries
        .iter()
        .filter(|((origin, _), _)| *origin == Origin::Received);
    let (mut receiving, mut complete) = (0, 0);
    for ((_, other), entry) in received {
        match entry.state {
            SnapshotState::Receiving if other.region == region_id => {
                return busy(format!("{other} is being received"));
            }
            SnapshotState::Receiving => receiving += 1,
            _ => complete += 1,
        }
    }
    if receiving >= MAX_RECEIVING {
        return busy(format!("{MAX_RECEIVING} snapshots are being received"));
    }
    if complete >= MAX_RECEIVED {
        return busy(format!(
            "{MAX_RECEIVED} received snapshots are waiting for their peers"
        ));
    }
    Ok(())
}

impl Receiver {
    /// Which snapshot.
    #[must_use]
    pub fn key(&self) -> SnapshotKey {
        self.description.key
    }

    /// Bytes that are still to come.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.missing
    }

    /// Takes the next bytes of the files, in order; where one chunk ends and the next begins does not
    /// matter.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Refused`] for an empty chunk, or one after an error;
    /// [`SnapshotError::Damaged`] for bytes beyond the announced ones, or a file that ends with another
    /// checksum than announced; [`SnapshotError::Engine`]. Each of them ends it: drop it.
    pub fn push(&mut self, chunk: &[u8]) -> Result<()> {
        let pushed = self.take(chunk);
        self.failed |= pushed.is_err();
        pushed
    }

    fn take(&mut self, mut chunk: &[u8]) -> Result<()> {
        let key = self.description.key;
        if self.failed {
            return Err(SnapshotError::Refused(format!(
                "{key}: a chunk after an error"
            )));
        }
        if chunk.is_empty() {
            return Err(SnapshotError::Refused(format!("{key}: an empty chunk")));
        }
        if chunk.len() as u64 > self.missing {
            let what = format!("{key}: bytes behind the end of its files");
            return Err(SnapshotError::Damaged(what));
        }
        self.missing -= chunk.len() as u64;
        while !chunk.is_empty() {
            chunk = self.write(chunk)?;
        }
        Ok(())
    }

    /// Writes what belongs to the file that is coming in; answers the rest.
    fn write<'a>(&mut self, chunk: &'a [u8]) -> Result<&'a [u8]> {
        let store = self.unfinished.store.clone();
        while self.sum().bytes == 0 {
            self.at += 1; // Not beyond the last: bytes are missing.
        }
        let path = store.table_path(Origin::Received, &self.description.key, self.at);
        let sum = self.sum();
        let mut part = match self.file.take() {
            Some(part) => part,
            None => {
                let path = self.unfinished.temporary(&path);
                let file = self.unfinished.fs().create(&path);
                Part {
                    file: file.map_err(io("create", &path))?,
                    crc: crc32fast::Hasher::new(),
                    bytes: 0,
                }
            }
        };
        let path = names::temporary(&path);
        let left = usize::try_from(sum.bytes - part.bytes).unwrap_or(usize::MAX);
        let (mine, rest) = chunk.split_at(left.min(chunk.len()));
        part.file.append(mine).map_err(io("write", &path))?;
        part.crc.update(mine);
        part.bytes += mine.len() as u64;
        if part.bytes < sum.bytes {
            self.file = Some(part);
            return Ok(rest);
        }
        let found = FileSum {
            bytes: part.bytes,
            checksum: part.crc.finalize(),
        };
        tables::demand(&path, &found, sum)?;
        part.file.sync().map_err(io("sync", &path))?;
        self.at += 1;
        Ok(rest)
    }

    fn sum(&self) -> FileSum {
        self.description.files[self.at]
    }

    /// Makes the snapshot complete and durable; then its message may be given to the peer.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Damaged`] where bytes are missing, or a file is no table of rows of the region;
    /// [`SnapshotError::Refused`] after an error; [`SnapshotError::Engine`].
    pub fn finish(mut self) -> Result<()> {
        let key = self.description.key;
        if self.failed {
            return Err(SnapshotError::Refused(format!(
                "{key}: its end after an error"
            )));
        }
        if self.missing > 0 {
            let what = format!("{key}: its last {} bytes did not come", self.missing);
            return Err(SnapshotError::Damaged(what));
        }
        let store = self.unfinished.store.clone();
        let fs = &store.inner.fs;
        let mut opened = Vec::new();
        for (at, _) in self.description.present() {
            let path = store.table_path(Origin::Received, &key, at);
            self.unfinished.rename(&names::temporary(&path), &path)?;
            opened.push((at, tables::open(fs, &path, &self.description.region)?));
        }
        let path = store.path(&Name::Meta(key));
        let temporary = self.unfinished.temporary(&path);
        write_meta(&**fs, &temporary, &self.description.snapshot)?;
        self.unfinished.rename(&temporary, &path)?;
        let dir = &store.inner.dir;
        fs.sync_dir(dir).map_err(io("sync directory", dir))?;
        let mut entry = Entry::new(SnapshotState::Ready, Some(self.description));
        entry.tables = Some(opened);
        self.unfinished.complete(key, entry);
        Ok(())
    }
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver")
            .field("key", &self.description.key)
            .field("missing", &self.missing)
            .finish_non_exhaustive()
    }
}

/// What a message announces.
fn announced(message: &RaftMessage) -> Result<Description> {
    let refused = |what: &str| Err(SnapshotError::Refused(format!("a message {what}")));
    let Some(raft) = &message.message else {
        return refused("without a Raft message");
    };
    let snapshot = raft.snapshot.as_ref();
    let snapshot = snapshot.filter(|_| raft.msg_type() == MessageType::MsgSnapshot);
    let Some(snapshot) = snapshot else {
        return refused("that is no snapshot");
    };
    let description = Description::of(snapshot)?;
    let region = &description.region;
    if message.region_id != region.id {
        return refused("of another region than its snapshot");
    }
    let to = message.to_peer.unwrap_or_default();
    if !region.peers.contains(&to) {
        return refused("to no peer of its snapshot's region");
    }
    Ok(description)
}

fn write_meta(fs: &dyn Fs, path: &Path, snapshot: &Snapshot) -> Result<()> {
    let snapshot = snapshot.encode_to_vec();
    let crc = crc32fast::hash(&snapshot);
    let bytes = [&META_MAGIC[..], &crc.to_le_bytes(), &snapshot].concat();
    let mut file = fs.create(path).map_err(io("create", path))?;
    file.append(&bytes).map_err(io("write", path))?;
    file.sync().map_err(io("sync", path))
}

/// The snapshot of which the directory has a meta file and all tables, by their lengths; `None` where
/// it has not, and what is there is to be removed.
pub(super) fn complete(fs: &dyn Fs, dir: &Path, key: SnapshotKey) -> Result<Option<Description>> {
    let path = dir.join(Name::Meta(key).to_string());
    let len = fs.file_len(&path).map_err(io("ask the length of", &path))?;
    if len > MAX_META_BYTES {
        return Ok(None);
    }
    let bytes = fs.read(&path).map_err(io("read", &path))?;
    let Some(description) = read_meta(&bytes).filter(|description| description.key == key) else {
        return Ok(None);
    };
    for (at, sum) in description.present() {
        let path = dir.join(Name::Table(Origin::Received, key, at).to_string());
        match fs.file_len(&path) {
            Ok(len) if len == sum.bytes => {}
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == NotFound => return Ok(None),
            Err(error) => return Err(io("ask the length of", &path)(error)),
        }
    }
    Ok(Some(description))
}

pub(super) fn read_meta(bytes: &[u8]) -> Option<Description> {
    let mut reader = Reader::new(bytes);
    let magic = reader.bytes(META_MAGIC.len())?;
    let crc = reader.u32()?;
    let sound = magic == META_MAGIC && crc == crc32fast::hash(reader.rest());
    let snapshot = Snapshot::decode(reader.rest()).ok().filter(|_| sound)?;
    Description::of(&snapshot).ok()
}
