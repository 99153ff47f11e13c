//! The log of a peer: saving entries and hard states, and reading them back from cache and raftdb.

use basalt_engine::{ReadOptions, WriteBatch};
use basalt_proto::raft_serverpb::{RaftTruncatedState, SnapshotIntent};
use basalt_raft::{
    StorageError, entry_size,
    eraftpb::{Entry, Snapshot},
};
use prost::Message;

use super::{PeerStorage, Pending};
use crate::{Error, Result, Save, SaveNumber, keys, states};

impl PeerStorage {
    /// Puts a node's write into a batch for raftdb, as one step, and answers reads from it at once.
    /// Entries that are truncated already are skipped.
    ///
    /// # Errors
    ///
    /// Nothing is changed then. [`Error::SnapshotOutOfDate`] for a snapshot at or below what is applied or
    /// pending; [`Error::Misuse`] for a gap before or between entries, or a snapshot of nothing or of
    /// another region.
    pub fn save(&mut self, save: &Save<'_>, batch: &mut WriteBatch) -> Result<SaveNumber> {
        let taken = save.snapshot.map(|snapshot| self.check(snapshot));
        let mut taken = taken.transpose()?;
        let base = taken
            .as_ref()
            .map_or(self.truncated(), |taken| taken.truncated);
        let last = taken
            .as_ref()
            .map_or(self.raft_state.last_index, |_| base.index);
        let entries = self.check_entries(save.entries, base.index, last)?;
        if save.is_empty() {
            return Ok(self.last_save);
        }
        self.last_save.0 += 1;
        let number = self.last_save;
        if let Some(pending) = &mut taken {
            pending.save = Some(number);
        }
        if let Some(pending) = taken {
            self.replace_log(pending, batch);
        }
        if let Some(hard_state) = save.hard_state {
            self.raft_state.hard_state = Some(hard_state);
        }
        self.append(entries, batch);
        if !entries.is_empty() || save.snapshot.is_some() {
            let first = entries.first().map_or(base.index + 1, |entry| entry.index);
            self.in_flight.push_back((number, first));
        }
        states::put_raft_state(&self.engines, batch, self.region_id, &self.raft_state);
        self.cache.shrink(self.unpublished());
        Ok(number)
    }

    /// Puts term, vote and commit index as they are known here into a batch for raftdb: for when the commit
    /// index is to be durable without a save that needs it.
    pub fn save_commit(&self, batch: &mut WriteBatch) {
        states::put_raft_state(&self.engines, batch, self.region_id, &self.raft_state);
    }

    /// A snapshot that may be taken, in its parts.
    fn check(&self, snapshot: &Snapshot) -> Result<Pending> {
        let pending = self.pending.as_ref().map_or(0, |p| p.truncated.index);
        let metadata = snapshot.metadata.as_ref();
        let metadata = metadata.ok_or_else(|| self.misuse("a snapshot without metadata"))?;
        if metadata.index <= self.apply_state.applied_index.max(pending) {
            return Err(Error::SnapshotOutOfDate);
        }
        Ok(Pending {
            snapshot: snapshot.clone(),
            truncated: RaftTruncatedState {
                index: metadata.index,
                term: metadata.term,
            },
            membership: self.membership_of(snapshot)?,
            save: None,
        })
    }

    /// The part of `entries` above `base`, which must follow the log that ends at `last`.
    fn check_entries<'a>(&self, entries: &'a [Entry], base: u64, last: u64) -> Result<&'a [Entry]> {
        let Some(first) = entries.first().map(|entry| entry.index) else {
            return Ok(entries);
        };
        if first > last + 1 {
            return Err(self.misuse(format!("entries from {first} on behind a log up to {last}")));
        }
        let contiguous = entries
            .iter()
            .map(|entry| entry.index)
            .eq(first..first + entries.len() as u64);
        if !contiguous {
            return Err(self.misuse(format!("entries from {first} on that are not contiguous")));
        }
        let truncated = entries.partition_point(|entry| entry.index <= base);
        Ok(&entries[truncated..])
    }

    fn replace_log(&mut self, pending: Pending, batch: &mut WriteBatch) {
        // An empty prefix takes any index: the log begins behind the snapshot.
        batch.truncate_back(&self.engines.log, &keys::log_prefix(self.region_id), 0);
        let intent = SnapshotIntent {
            peer_id: self.peer_id,
            snapshot: Some(pending.snapshot.clone()),
        };
        let key = keys::intent(self.region_id);
        batch.put(&self.engines.states, &key, &intent.encode_to_vec());
        self.cache.clear();
        self.raft_state.last_index = pending.truncated.index;
        self.raft_state.last_term = pending.truncated.term;
        self.first_stored = pending.truncated.index + 1;
        self.offered = None;
        self.pending = Some(pending);
    }

    /// Entries that follow the log, or replace its end.
    fn append(&mut self, entries: &[Entry], batch: &mut WriteBatch) {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return;
        };
        let (log, prefix) = (&self.engines.log, keys::log_prefix(self.region_id));
        if let [only] = entries {
            batch.append(log, &prefix, only.index, &[only.encode_to_vec()]);
        } else {
            let (bytes, ends) = encode(entries);
            let starts = std::iter::once(&0).chain(&ends);
            let values = starts.zip(&ends).map(|(start, end)| &bytes[*start..*end]);
            batch.append(log, &prefix, first.index, &values.collect::<Vec<_>>());
        }
        (self.raft_state.last_index, self.raft_state.last_term) = (last.index, last.term);
        self.cache.append(entries);
    }

    pub(super) fn read_entries(
        &self,
        low: u64,
        high: u64,
        max_bytes: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        let end = self.raft_state.last_index + 1;
        if low <= self.truncated().index {
            return Err(StorageError::Compacted);
        }
        if high > end {
            return Err(StorageError::Unavailable);
        }
        let mut taken = Taken::new(max_bytes);
        let cached = self.cache.first().unwrap_or(end).clamp(low, high.max(low));
        self.read_stored(low, cached, &mut taken)?;
        let stored = taken.entries.len();
        let cached = cached.max(low);
        for entry in self.cache.from(cached) {
            if entry.index >= high || !taken.take(entry.clone()) {
                break;
            }
        }
        self.count_reads(taken.entries.len() - stored, stored);
        Ok(taken.entries)
    }

    fn count_reads(&self, cached: usize, stored: usize) {
        let mut reads = self.reads.get();
        reads.cached += cached as u64;
        reads.stored += stored as u64;
        self.reads.set(reads);
    }

    /// Reads the entries of `low..high` from raftdb, which has all of them.
    fn read_stored(&self, low: u64, high: u64, taken: &mut Taken) -> Result<()> {
        let mut next = low;
        again_where_expired(|| {
            let before = next;
            let read = self.read_view(&mut next, high, taken);
            (read, next > before)
        })
    }

    /// Reads the entries of `next..high` as one view of raftdb shows them, and moves `next` behind each that is read.
    fn read_view(&self, next: &mut u64, high: u64, taken: &mut Taken) -> Result<()> {
        if *next >= high {
            return Ok(());
        }
        let options = ReadOptions {
            lower: Some(keys::log(self.region_id, *next).to_vec()),
            upper: Some(keys::log(self.region_id, high).to_vec()),
            ..ReadOptions::default()
        };
        let mut iter = self.engines.raft.iter(&self.engines.log, &options)?;
        iter.seek_to_first()?;
        loop {
            let index = *next;
            if !iter.valid() || iter.key() != keys::log(self.region_id, index) {
                return Err(self.corruption(format!("no entry at index {index} of the log")));
            }
            let fits = taken.take(self.decode(iter.value(), index)?);
            *next += 1;
            if !fits || *next == high {
                return Ok(());
            }
            iter.next()?;
        }
    }

    /// Bytes of the entries that are not truncated, from the sizes of a few of them.
    ///
    /// # Errors
    ///
    /// [`Error::Engine`], [`Error::Corruption`].
    pub(crate) fn estimated_log_bytes(&self) -> Result<u64> {
        let (first, last) = (self.truncated().index + 1, self.raft_state.last_index);
        let count = (last + 1).saturating_sub(first);
        let samples = count.min(SIZE_SAMPLES);
        let mut bytes = 0;
        for sample in 0..samples {
            // Spread over the log: the last one is among them.
            let index = last - sample * count / samples;
            bytes += entry_size(&self.stored_entry(index)?);
        }
        Ok(bytes.saturating_mul(count) / samples.max(1))
    }

    /// The stored entry at `index`, which must be there.
    pub(super) fn stored_entry(&self, index: u64) -> Result<Entry> {
        let key = keys::log(self.region_id, index);
        let value = self.engines.raft.get(&self.engines.log, &key)?;
        let missing = || self.corruption(format!("no entry at index {index} of the log"));
        self.decode(&value.ok_or_else(missing)?, index)
    }

    fn decode(&self, value: &[u8], index: u64) -> Result<Entry> {
        match Entry::decode(value) {
            Ok(entry) if entry.index == index => Ok(entry),
            Ok(entry) => Err(self.corruption(format!(
                "the entry at index {index} says that it is at {}",
                entry.index
            ))),
            Err(error) => Err(self.corruption(format!(
                "the entry at index {index} does not decode: {error}"
            ))),
        }
    }

    pub(super) fn read_term(&self, index: u64) -> Result<u64, StorageError> {
        let truncated = self.truncated();
        if index == truncated.index {
            Ok(truncated.term)
        } else if index < truncated.index {
            Err(StorageError::Compacted)
        } else if index > self.raft_state.last_index {
            Err(StorageError::Unavailable)
        } else if index == self.raft_state.last_index {
            Ok(self.raft_state.last_term)
        } else if let Some(entry) = self.cache.get(index) {
            Ok(entry.term)
        } else {
            self.count_reads(0, 1);
            Ok(self.stored_entry(index)?.term)
        }
    }
}

/// The bytes of entries, one behind the other, and where each ends: one piece of memory for all.
fn encode(entries: &[Entry]) -> (Vec<u8>, Vec<usize>) {
    let bytes = entries.iter().map(Message::encoded_len).sum();
    let mut bytes = Vec::with_capacity(bytes);
    let ends = entries.iter().map(|entry| {
        entry.encode(&mut bytes).expect("a vector takes all");
        bytes.len()
    });
    let ends = ends.collect();
    (bytes, ends)
}

/// How often a read begins a new view of raftdb without having come further.
const MAX_VIEWS: u32 = 8;

/// Reads on with a new view where the engine has given one up, because it held too much of the log. `read` says also
/// whether it has come further.
fn again_where_expired(mut read: impl FnMut() -> (Result<()>, bool)) -> Result<()> {
    let mut views = MAX_VIEWS;
    loop {
        match read() {
            (Err(Error::Engine(basalt_engine::Error::Expired(_))), is_further)
                if is_further || views > 1 =>
            {
                views = if is_further { MAX_VIEWS } else { views - 1 };
            }
            (done, _) => return done,
        }
    }
}

/// Entries whose sizes are looked at for an estimate of a log's.
const SIZE_SAMPLES: u64 = 32;

/// Entries that fit into a limit.
struct Taken {
    entries: Vec<Entry>,
    bytes: u64,
    max_bytes: u64,
    full: bool,
}

impl Taken {
    fn new(max_bytes: u64) -> Self {
        Self {
            entries: Vec::new(),
            bytes: 0,
            max_bytes,
            full: false,
        }
    }

    /// False where it does not fit; then nothing behind it may be taken either. The first one fits.
    fn take(&mut self, entry: Entry) -> bool {
        self.bytes = self.bytes.saturating_add(entry_size(&entry));
        self.full |= !self.entries.is_empty() && self.bytes > self.max_bytes;
        if !self.full {
            self.entries.push(entry);
        }
        !self.full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_that_is_given_up_is_followed_by_another_as_long_as_that_helps() {
        let expired = || Error::Engine(basalt_engine::Error::Expired("held too much".into()));
        // Further each time, then to the end.
        let mut left = 40;
        let done = again_where_expired(|| {
            left -= 1;
            let read = if left == 0 { Ok(()) } else { Err(expired()) };
            (read, true)
        });
        assert!(done.is_ok() && left == 0, "{done:?}, {left}");
        // No further: it ends, and says why.
        let mut views = 0;
        let done = again_where_expired(|| {
            views += 1;
            (Err(expired()), false)
        });
        let gave_up = matches!(done, Err(Error::Engine(basalt_engine::Error::Expired(_))));
        assert!(gave_up && views == MAX_VIEWS, "{done:?}, {views}");
        // Anything else is not tried again.
        let mut views = 0;
        let done = again_where_expired(|| {
            views += 1;
            (Err(Error::corruption(1, "damage")), true)
        });
        assert!(matches!(done, Err(Error::Corruption { .. })) && views == 1);
    }
}
