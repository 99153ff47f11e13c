//! What the commit queue is made of: its entries, the segments it writes, and the state its mutex guards.
//!
//! Not here: what is done with it (`commit`).

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use crate::{
    append::Delta,
    error::{Error, Result},
    fs::LogFile,
    key::SequenceNumber,
    wal::segment::HEADER_LEN,
};

/// How often the memory of all memtables is added up.
const BATCHES_PER_MEMORY_CHECK: u32 = 64;

/// What is called when a batch is acknowledged or has failed.
pub(crate) type Callback = Box<dyn FnOnce(Result<SequenceNumber>) + Send + 'static>;

/// One batch (or ingest) in the queue.
pub(crate) struct Entry {
    pub(super) first_seq: SequenceNumber,
    pub(super) last_seq: SequenceNumber,
    /// Log positions before and behind its record; both behind the record before it when it has none.
    pub(super) start_pos: u64,
    pub(super) end_pos: u64,
    pub(super) sync: bool,
    pub(super) inserted: AtomicBool,
    /// The queue's count of entries whose inserts are under way.
    pub(super) inserting: Arc<AtomicU64>,
    pub(super) result: OnceLock<Result<SequenceNumber>>,
    pub(super) callback: Mutex<Option<Callback>>,
    /// What it changes in append families once it is published.
    pub(super) delta: Mutex<Option<Delta>>,
}

impl Entry {
    /// Takes along what is to change in append families; before its inserts are said to be done.
    pub(crate) fn carry(&self, delta: Delta) {
        *self.delta.lock().unwrap_or_else(PoisonError::into_inner) = Some(delta);
    }

    /// Makes those changes: its turn has come.
    pub(super) fn apply_delta(&self) {
        let delta = self
            .delta
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(delta) = delta {
            delta.apply();
        }
    }

    /// Sequence number of the first operation.
    pub(crate) fn first_seq(&self) -> SequenceNumber {
        self.first_seq
    }

    /// Sequence number of the last operation.
    pub(crate) fn last_seq(&self) -> SequenceNumber {
        self.last_seq
    }

    /// The outcome, once there is one.
    pub(crate) fn result(&self) -> Option<&Result<SequenceNumber>> {
        self.result.get()
    }

    /// To be called once every memtable insert of the entry is done.
    pub(crate) fn mark_inserted(&self) {
        self.inserted.store(true, Ordering::Release);
        self.inserting.fetch_sub(1, Ordering::Release);
    }

    /// Calls `callback` with the outcome: now, when there is one, else when it comes.
    pub(crate) fn on_done(&self, callback: Callback) {
        let mut slot = self.callback.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(result) = self.result.get() {
            drop(slot);
            callback(result.clone());
        } else {
            *slot = Some(callback);
        }
    }

    /// Sets the outcome; returns the callback to run outside the locks.
    pub(super) fn finish(&self, result: Result<SequenceNumber>) -> Option<Callback> {
        let mut slot = self.callback.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.result.set(result);
        slot.take()
    }
}

/// An open segment of the log.
#[derive(Clone)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    /// Log position of its first record.
    pub(crate) base: u64,
    pub(crate) file: Arc<dyn LogFile>,
    gate: Arc<Mutex<SyncGate>>,
}

/// Whether a sync of the file has failed. The system tells a write-back error to one caller only, so
/// syncs of one file take turns, and after a failure none of them succeeds.
#[derive(Debug, Default)]
struct SyncGate {
    failed: Option<io::ErrorKind>,
}

impl Segment {
    pub(crate) fn new(number: u64, base: u64, file: Arc<dyn LogFile>) -> Self {
        Self {
            number,
            base,
            file,
            gate: Arc::default(),
        }
    }

    /// Makes everything written to the file durable, unless that ever failed. The gate is held across the
    /// sync on purpose: who comes second must learn what became of the first.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.sync_if(|| true)
    }

    /// The same, if `is_wanted` still, once it is this one's turn.
    pub(super) fn sync_if(&self, is_wanted: impl FnOnce() -> bool) -> io::Result<()> {
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kind) = gate.failed {
            return Err(io::Error::new(kind, "an earlier sync of this file failed"));
        }
        if !is_wanted() {
            return Ok(());
        }
        let result = self.file.sync();
        if let Err(error) = &result {
            gate.failed = Some(error.kind());
        }
        result
    }
}

/// Bytes for one place of one segment, not yet written.
pub(super) struct Chunk {
    pub(super) segment: Segment,
    pub(super) offset: u64,
    pub(super) bytes: Vec<u8>,
}

/// What the queue's mutex guards.
pub(crate) struct Queue {
    pub(super) next_seq: u64,
    /// The segment that takes the next record, and where in it.
    pub(super) segment: Segment,
    pub(super) offset: u64,
    pub(super) pending: Vec<Chunk>,
    pub(super) entries: VecDeque<Arc<Entry>>,
    /// Somebody writes, syncs, or holds the log still.
    pub(super) driving: bool,
    /// Callers that want to hold the log still, next: nobody else becomes the driver before them.
    pub(super) still_wanted: usize,
    pub(super) waiting: usize,
    /// Log positions: everything before `written` has been handed to the system, before `synced` is durable.
    pub(super) written: u64,
    pub(super) synced: u64,
    /// Segments with bytes that may not be durable, oldest first; the last one is the current.
    pub(super) unsynced: Vec<Segment>,
    /// Newest segment whose header is known to be durable.
    pub(super) synced_segment: u64,
    pub(super) failed: Option<Arc<Error>>,
    /// Buffers to be used again.
    pub(super) spare: Vec<Vec<u8>>,
    /// Batches until the memory of all memtables is looked at again.
    pub(super) until_memory_check: u32,
}

impl Queue {
    /// Log position behind the last record that has a place.
    pub(crate) fn end_pos(&self) -> u64 {
        self.segment.base + self.offset - HEADER_LEN as u64
    }

    /// Log position up to which everything is published.
    pub(crate) fn published_pos(&self) -> u64 {
        self.entries
            .front()
            .map_or_else(|| self.end_pos(), |head| head.start_pos)
    }

    /// Sequence number the next operation will get.
    pub(crate) fn next_seq(&self) -> SequenceNumber {
        SequenceNumber(self.next_seq)
    }

    /// Why the log takes nothing any more.
    pub(crate) fn failed(&self) -> Option<&Arc<Error>> {
        self.failed.as_ref()
    }

    /// Bytes left in the current segment.
    pub(crate) fn room(&self) -> u64 {
        self.segment.file.capacity().saturating_sub(self.offset)
    }

    /// Newest segment whose header is known to be durable.
    pub(crate) fn synced_segment(&self) -> u64 {
        self.synced_segment
    }

    /// Number of the segment that takes the next record.
    pub(crate) fn segment_number(&self) -> u64 {
        self.segment.number
    }

    /// Has the memory looked at with the next batch.
    pub(crate) fn check_memory_soon(&mut self) {
        self.until_memory_check = 0;
    }

    /// True once every [`BATCHES_PER_MEMORY_CHECK`] calls.
    pub(crate) fn memory_check_is_due(&mut self) -> bool {
        let due = self.until_memory_check == 0;
        self.until_memory_check = if due {
            BATCHES_PER_MEMORY_CHECK
        } else {
            self.until_memory_check
        } - 1;
        due
    }

    /// True while somebody writes, syncs, or holds the log still.
    #[cfg(test)]
    pub(crate) fn is_held_still(&self) -> bool {
        self.driving
    }

    /// True while somebody sleeps until something changes.
    #[cfg(test)]
    pub(crate) fn has_waiters(&self) -> bool {
        self.waiting > 0
    }

    /// True where nobody may become the driver now.
    pub(super) fn is_taken(&self) -> bool {
        self.driving || self.still_wanted > 0
    }

    pub(super) fn wants_sync(&self) -> bool {
        self.entries
            .iter()
            .any(|entry| entry.sync && entry.end_pos > self.synced)
    }

    pub(super) fn push_bytes(&mut self, parts: &[&[u8]]) {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let continues = self.pending.last().is_some_and(|chunk| {
            chunk.segment.number == self.segment.number
                && chunk.offset + chunk.bytes.len() as u64 == self.offset
        });
        if !continues {
            let mut bytes = self.spare.pop().unwrap_or_default();
            bytes.clear();
            self.pending.push(Chunk {
                segment: self.segment.clone(),
                offset: self.offset,
                bytes,
            });
        }
        let chunk = self
            .pending
            .last_mut()
            .expect("there is a chunk: just pushed");
        for part in parts {
            chunk.bytes.extend_from_slice(part);
        }
        self.offset += len as u64;
    }
}
