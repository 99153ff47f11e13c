//! The commit path: how batches get their place in the order of writes, into the log, and published.
//!
//! ```text
//!  submit --lock--> seq, record header, copy --unlock--> memtable inserts (parallel)
//!                              |
//!        driver (one at a time): write pending bytes, sync if anybody asked, mark
//!                              |
//!                 publish from the head of the queue: visible sequence number
//! ```
//! Promises (docs/adr/0002): publication follows log order; an entry is published once its inserts are done
//! and its durability is reached; a failed write or sync publishes nothing more and is kept as
//! the cause. The driver is whoever waits, or a background job for callers that do not.
//!
//! Not here: which memtable a batch goes to and when one is frozen (`db`), files of segments (`log_files`).
//!
//! Lock order: the queue's mutex is taken before a family's read-state lock and before the segment
//! list; none is held across a write or sync of a file. A segment's gate is held across its syncs, and is
//! taken before the queue's mutex, never under it.

use std::{
    collections::VecDeque,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwapOption;

use crate::{
    background::as_a_job,
    error::{Error, Result},
    executor::Executor,
    faults::{Fault, Faults},
    fs::LogFile,
    key::SequenceNumber,
    timing::Timer,
    wal::{
        mark::MarkFile,
        record::{self, FileSeed, RecordKind},
        segment::{HEADER_LEN, SegmentHeader, SegmentKind},
    },
};

mod beside;
mod full_segments;
mod queue;

use queue::Chunk;
pub(crate) use queue::{Callback, Entry, Queue, Segment};

/// Turns around the done flag before a waiting writer blocks: about the time of one buffered write.
const SPINS: usize = 64;

/// How often a background job drives what it finds in the queue before it gives way.
const TURNS_OF_A_JOB: usize = 32;

/// A batch as the queue takes it.
pub(crate) struct Submission<'a> {
    /// Number of operations.
    pub(crate) count: u32,
    pub(crate) sync: bool,
    /// Payload and its checksum; `None` for an unlogged batch.
    pub(crate) payload: Option<(&'a [u8], u32)>,
}

/// The commit queue of a database.
pub(crate) struct Commit {
    db: u64,
    queue: Mutex<Queue>,
    changed: Condvar,
    visible: AtomicU64,
    /// Mirrors `Queue::synced` for readers of the log.
    synced: Arc<AtomicU64>,
    mark: Arc<MarkFile>,
    executor: Arc<dyn Executor>,
    faults: Faults,
    job_scheduled: AtomicBool,
    /// Mirrors `Queue::driving` for waiters that spin a little before they block.
    driving_hint: AtomicBool,
    /// The same as `Queue::failed`, for those who may not take the queue's lock.
    cause: ArcSwapOption<Error>,
    /// Entries whose memtable inserts are under way.
    inserting: Arc<AtomicU64>,
    /// How long syncs of the log took.
    pub(crate) syncs: Timer,
}

impl fmt::Debug for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Commit(visible {})",
            self.visible.load(Ordering::Relaxed)
        )
    }
}

impl Commit {
    /// A queue that goes on in `segment`, whose header is durable and which holds nothing else
    /// beyond `offset`; everything before is durable, and `last_seq` is the last sequence number used.
    pub(crate) fn new(
        db: u64,
        segment: Segment,
        offset: u64,
        last_seq: SequenceNumber,
        mark: Arc<MarkFile>,
        executor: Arc<dyn Executor>,
        faults: Faults,
        synced: Arc<AtomicU64>,
    ) -> Self {
        let position = segment.base + offset - HEADER_LEN as u64;
        synced.store(position, Ordering::Release);
        Self {
            db,
            queue: Mutex::new(Queue {
                next_seq: last_seq.0 + 1,
                segment: segment.clone(),
                offset,
                pending: Vec::new(),
                entries: VecDeque::new(),
                driving: false,
                still_wanted: 0,
                waiting: 0,
                written: position,
                synced: position,
                synced_segment: segment.number,
                unsynced: vec![segment],
                failed: None,
                spare: Vec::new(),
                until_memory_check: 0,
            }),
            changed: Condvar::new(),
            visible: AtomicU64::new(last_seq.0),
            synced,
            mark,
            executor,
            faults,
            job_scheduled: AtomicBool::new(false),
            driving_hint: AtomicBool::new(false),
            cause: ArcSwapOption::empty(),
            inserting: Arc::default(),
            syncs: Timer::default(),
        }
    }

    /// The last published sequence number.
    pub(crate) fn visible(&self) -> SequenceNumber {
        SequenceNumber(self.visible.load(Ordering::Acquire))
    }

    /// The queue, for the steps that must happen at one point of the write order.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a batch its place. The caller has made sure that it fits in the segment's room.
    pub(crate) fn enqueue(&self, queue: &mut Queue, batch: &Submission<'_>) -> Arc<Entry> {
        let (first, start_pos) = (queue.next_seq, queue.end_pos());
        if let Some((payload, payload_crc)) = batch.payload {
            let file = FileSeed::new(self.db, queue.segment.number, self.faults);
            let header = record::encode_header(
                file,
                queue.offset,
                u32::try_from(payload.len()).expect("a batch is limited to less than 4 GiB"),
                payload_crc,
                RecordKind::Batch,
                batch.sync,
                queue.synced,
                SequenceNumber(first),
            );
            queue.push_bytes(&[&header, payload]);
        }
        self.enqueue_from(queue, start_pos, batch.count, batch.sync)
    }

    /// Gives an entry without log bytes its place: an unlogged batch, or an ingest.
    pub(crate) fn enqueue_unwritten(
        &self,
        queue: &mut Queue,
        count: u32,
        sync: bool,
    ) -> Arc<Entry> {
        let start_pos = queue.end_pos();
        self.enqueue_from(queue, start_pos, count, sync)
    }

    fn enqueue_from(
        &self,
        queue: &mut Queue,
        start_pos: u64,
        count: u32,
        sync: bool,
    ) -> Arc<Entry> {
        let first = queue.next_seq;
        queue.next_seq += u64::from(count);
        self.inserting.fetch_add(1, Ordering::Relaxed);
        let entry = Arc::new(Entry {
            first_seq: SequenceNumber(first),
            last_seq: SequenceNumber(queue.next_seq - 1),
            start_pos,
            end_pos: queue.end_pos(),
            sync,
            inserted: AtomicBool::new(false),
            inserting: Arc::clone(&self.inserting),
            result: OnceLock::new(),
            callback: Mutex::new(None),
            delta: Mutex::new(None),
        });
        queue.entries.push_back(Arc::clone(&entry));
        entry
    }

    /// Goes on in a new segment; its header is written with the next bytes.
    pub(crate) fn switch_segment(&self, queue: &mut Queue, number: u64, file: Arc<dyn LogFile>) {
        let base = queue.end_pos();
        // Positions do not count headers: that of a segment left without a record could not be told from a
        // durable one.
        debug_assert!(
            base > queue.segment.base || queue.synced_segment >= queue.segment.number,
            "a segment is begun for a record"
        );
        let header = SegmentHeader {
            db: self.db,
            number,
            base,
            previous: queue.segment.number,
            synced: queue.synced,
        };
        queue.segment = Segment::new(number, base, file);
        queue.offset = 0;
        queue.unsynced.push(queue.segment.clone());
        queue.push_bytes(&[&header.encode(SegmentKind::Log)]);
    }

    /// Waits, and works as the driver meanwhile, until `entry` has an outcome.
    pub(crate) fn wait(&self, entry: &Entry) -> Result<SequenceNumber> {
        for _ in 0..SPINS {
            if let Some(result) = entry.result() {
                return result.clone();
            }
            if !self.driving_hint.load(Ordering::Relaxed) {
                break;
            }
            std::hint::spin_loop();
        }
        self.drive_until(|_| entry.result().is_some());
        entry.result().cloned().unwrap_or(Err(Error::Closed))
    }

    /// Sees to it that the queue is driven although nobody waits: at once when that is only a buffered
    /// write, else by a background job.
    pub(crate) fn kick(self: &Arc<Self>, sync: bool) {
        let mut finished = Vec::new();
        let mut queue = self.lock();
        if !sync
            && queue.failed.is_none()
            && !queue.is_taken()
            && !queue.pending.is_empty()
            && !queue.wants_sync()
        {
            queue = self.round(queue, false);
        }
        // Others may wait for nothing but the inserts that the caller has just finished, or went to
        // sleep before its bytes came; the job may find no thread for long.
        self.publish(&mut queue, &mut finished);
        let left = !queue.entries.is_empty();
        if left && queue.waiting > 0 && !queue.driving {
            self.changed.notify_all();
        }
        drop(queue);
        self.run_callbacks(finished);
        if left {
            self.schedule_job();
        }
    }

    /// Has the queue driven in the background. A job gives way after some turns, so that other background
    /// work does not wait for the last of the writers.
    fn schedule_job(self: &Arc<Self>) {
        if self.job_scheduled.swap(true, Ordering::AcqRel) {
            return;
        }
        let this = Arc::clone(self);
        let job = Box::new(move || {
            this.job_scheduled.store(false, Ordering::Release);
            for _ in 0..TURNS_OF_A_JOB {
                let end = this.lock().next_seq;
                let is_later = |entry: &Arc<Entry>| entry.first_seq.0 >= end;
                this.drive_until(|queue| queue.entries.front().is_none_or(is_later));
                if this.lock().entries.is_empty() {
                    return;
                }
            }
            this.schedule_job();
        });
        self.executor.spawn(crate::executor::Priority::High, job);
    }

    /// Makes everything that has a place by now durable (waiting for its publication too).
    pub(crate) fn sync_all(&self) -> Result<()> {
        let (target, last) = {
            let queue = self.lock();
            (queue.end_pos(), queue.next_seq - 1)
        };
        self.sync_up_to(target, SequenceNumber(last))
    }

    /// Makes the log durable up to `position` and waits until `seq` is published.
    pub(crate) fn sync_up_to(&self, position: u64, seq: SequenceNumber) -> Result<()> {
        let mut forced = None;
        self.drive_until_with(
            |queue| {
                if let Some(cause) = &queue.failed {
                    forced = Some(Arc::clone(cause));
                    return true;
                }
                queue.synced >= position && self.visible() >= seq
            },
            |queue| queue.synced < position,
        );
        forced.map_or(Ok(()), |cause| Err(Error::ReadOnly { cause }))
    }

    /// Drives until `done`.
    pub(crate) fn drive_until(&self, done: impl FnMut(&Queue) -> bool) {
        self.drive_until_with(done, |_| false);
    }

    /// Drives until `done`; `force_sync` asks for a sync although no entry does.
    fn drive_until_with(
        &self,
        mut done: impl FnMut(&Queue) -> bool,
        force_sync: impl Fn(&Queue) -> bool,
    ) {
        let mut finished = Vec::new();
        let mut queue = self.lock();
        loop {
            self.publish(&mut queue, &mut finished);
            if !finished.is_empty() {
                // At once: with others writing all the time, this thread may be busy here for long.
                drop(queue);
                self.run_callbacks(std::mem::take(&mut finished));
                queue = self.lock();
                continue;
            }
            if done(&queue) {
                break;
            }
            let sync = queue.wants_sync() || force_sync(&queue);
            let has_work = queue.failed.is_none() && (sync || !queue.pending.is_empty());
            if queue.is_taken() || !has_work {
                if self.executor.is_simulated() {
                    drop(queue);
                    assert!(
                        self.executor.help(),
                        "a simulated wait that nothing can end"
                    );
                    queue = self.lock();
                } else {
                    queue.waiting += 1;
                    queue = self
                        .changed
                        .wait(queue)
                        .unwrap_or_else(PoisonError::into_inner);
                    queue.waiting -= 1;
                }
                continue;
            }
            queue = self.round(queue, sync);
        }
    }

    /// One round of the driver: writes what is pending, and syncs when asked.
    fn round<'a>(&'a self, mut queue: MutexGuard<'a, Queue>, sync: bool) -> MutexGuard<'a, Queue> {
        self.set_driving(&mut queue, true);
        let mut chunks = std::mem::take(&mut queue.pending);
        let target = queue.end_pos();
        let unsynced = if sync {
            queue.unsynced.clone()
        } else {
            Vec::new()
        };
        let last_seq = queue.next_seq - 1;
        drop(queue);

        let mut outcome = self.write_and_sync(&chunks, &unsynced);
        if outcome.is_ok() && sync {
            let current = unsynced.last().map_or(0, |segment| segment.number);
            outcome = self
                .mark
                .log_synced(current, target, SequenceNumber(last_seq));
        }

        let mut queue = self.lock();
        self.set_driving(&mut queue, false);
        match outcome {
            Ok(()) => {
                queue.written = target;
                if sync {
                    self.note_synced(&mut queue, target, &unsynced);
                }
            }
            Err(error) => self.fail_locked(&mut queue, error),
        }
        for chunk in chunks.drain(..) {
            if queue.spare.len() < 2 && chunk.bytes.capacity() <= 1 << 20 {
                queue.spare.push(chunk.bytes);
            }
        }
        if queue.pending.capacity() == 0 {
            queue.pending = chunks;
        }
        if queue.waiting > 0 {
            self.changed.notify_all();
        }
        queue
    }

    fn set_driving(&self, queue: &mut Queue, driving: bool) {
        queue.driving = driving;
        self.driving_hint.store(driving, Ordering::Relaxed);
    }

    fn write_and_sync(&self, chunks: &[Chunk], unsynced: &[Segment]) -> Result<()> {
        let failed = |op, segment: &Segment, error| {
            Error::io(op, format!("{:06}.log", segment.number), error)
        };
        for chunk in chunks {
            let file = &chunk.segment.file;
            let written = if unsynced.is_empty() {
                file.write_at(chunk.offset, &chunk.bytes)
            } else {
                file.write_before_sync(chunk.offset, &chunk.bytes)
            };
            written.map_err(|error| failed("write", &chunk.segment, error))?;
        }
        if self.faults.is(Fault::EarlyAck) {
            return Ok(());
        }
        let skip = if self.faults.is(Fault::SkipOlderSegmentSync) {
            unsynced.len().saturating_sub(1)
        } else {
            0
        };
        for segment in &unsynced[skip..] {
            let begun = self.executor.now();
            let synced = segment.sync();
            self.syncs.record(self.executor.now().saturating_sub(begun));
            if let Err(error) = synced {
                self.note_failed_sync();
                if !self.faults.is(Fault::IgnoreSyncError) {
                    return Err(failed("sync", segment, error));
                }
            }
        }
        Ok(())
    }

    /// Leaves a note for the next open. It would copy what is not proved durable without it too.
    fn note_failed_sync(&self) {
        let _ = self.mark.sync_failed();
    }

    /// Takes note that the log is durable before `position`, for the segments synced.
    fn note_synced(&self, queue: &mut Queue, position: u64, synced: &[Segment]) {
        queue.synced = queue.synced.max(position);
        self.synced.store(queue.synced, Ordering::Release);
        if let Some(last) = synced.last() {
            queue.synced_segment = queue.synced_segment.max(last.number);
            queue
                .unsynced
                .retain(|segment| segment.number >= last.number);
        }
    }

    /// Publishes what can be published from the head of the queue.
    fn publish(&self, queue: &mut Queue, finished: &mut Vec<(Callback, Result<SequenceNumber>)>) {
        let mut any = false;
        while let Some(head) = queue.entries.front() {
            if let Some(cause) = &queue.failed {
                let error = Error::ReadOnly {
                    cause: Arc::clone(cause),
                };
                let head = queue.entries.pop_front().expect("there is a head");
                if let Some(callback) = head.finish(Err(error.clone())) {
                    finished.push((callback, Err(error)));
                }
                any = true;
                continue;
            }
            let durable = if head.sync {
                queue.synced
            } else {
                queue.written
            };
            let durable = durable.max(queue.synced);
            if !head.inserted.load(Ordering::Acquire) || head.end_pos > durable {
                break;
            }
            let head = queue.entries.pop_front().expect("there is a head");
            head.apply_delta();
            self.visible.store(head.last_seq.0, Ordering::Release);
            let result = Ok(head.last_seq);
            if let Some(callback) = head.finish(result.clone()) {
                finished.push((callback, result));
            }
            any = true;
        }
        if any && queue.waiting > 0 {
            self.changed.notify_all();
        }
    }

    fn run_callbacks(&self, finished: Vec<(Callback, Result<SequenceNumber>)>) {
        for (callback, result) in finished {
            // A panic of the caller's code ends that call, not the driver nor the next callback.
            as_a_job(|| drop(catch_unwind(AssertUnwindSafe(|| callback(result)))));
        }
    }

    /// Takes no more writes, because of `error`; what waits is answered with it.
    pub(crate) fn fail(&self, error: Error) {
        let mut finished = Vec::new();
        let mut queue = self.lock();
        self.fail_locked(&mut queue, error);
        self.publish(&mut queue, &mut finished);
        self.changed.notify_all();
        drop(queue);
        self.run_callbacks(finished);
    }

    fn fail_locked(&self, queue: &mut Queue, error: Error) {
        if queue.failed.is_none() {
            let cause = Arc::new(error);
            self.cause.store(Some(Arc::clone(&cause)));
            queue.failed = Some(cause);
        }
    }

    /// Why the log takes nothing any more. Takes no lock: it is asked under the lock of background work, which
    /// is taken under the queue's.
    pub(crate) fn failure(&self) -> Option<Arc<Error>> {
        self.cause.load_full()
    }

    /// After a failure: waits until nobody inserts and nobody writes the log. Answers the last sequence number
    /// given out, the log position behind the last record that got a place, and its segment.
    pub(crate) fn wait_for_inserts(&self) -> (SequenceNumber, u64, u64) {
        loop {
            let queue = self.lock();
            assert!(queue.failed.is_some(), "only a failed queue comes to rest");
            if !queue.driving && self.inserting.load(Ordering::Acquire) == 0 {
                return (
                    SequenceNumber(queue.next_seq - 1),
                    queue.end_pos(),
                    queue.segment.number,
                );
            }
            drop(queue);
            // At most the length of an insert or of a write that is under way.
            self.executor.sleep(std::time::Duration::from_micros(50));
        }
    }

    /// Goes on after a failure in a new segment whose header is durable. Everything up to `seq` is
    /// in tables, and is published.
    pub(crate) fn restart(&self, segment: Segment, seq: SequenceNumber) {
        let mut queue = self.lock();
        assert!(
            queue.failed.is_some() && queue.entries.is_empty(),
            "a failed queue is at rest"
        );
        queue.pending.clear();
        queue.written = segment.base;
        queue.synced = segment.base;
        queue.synced_segment = segment.number;
        queue.unsynced = vec![segment.clone()];
        queue.segment = segment;
        queue.offset = HEADER_LEN as u64;
        queue.failed = None;
        self.cause.store(None);
        self.visible.store(seq.0, Ordering::Release);
    }

    /// Holds the log still: becomes the driver, writes and syncs all that has a place, waits until
    /// it is published, and runs `work` with an entry of `count` sequence numbers in the queue. Batches
    /// submitted meanwhile wait in memory behind it. `prepare` runs under the lock at the entry's
    /// place in the order.
    pub(crate) fn exclusively<P, R>(
        &self,
        count: u32,
        prepare: impl FnOnce(&mut Queue, &Entry) -> Result<P>,
        work: impl FnOnce(P, &Entry) -> Result<R>,
    ) -> Result<R> {
        let mut queue = self.lock();
        queue.still_wanted += 1;
        while queue.driving {
            if self.executor.is_simulated() {
                drop(queue);
                assert!(
                    self.executor.help(),
                    "a simulated wait that nothing can end"
                );
                queue = self.lock();
            } else {
                queue.waiting += 1;
                queue = self
                    .changed
                    .wait(queue)
                    .unwrap_or_else(PoisonError::into_inner);
                queue.waiting -= 1;
            }
        }
        queue.still_wanted -= 1;
        if let Some(cause) = &queue.failed {
            self.changed.notify_all();
            return Err(Error::ReadOnly {
                cause: Arc::clone(cause),
            });
        }
        // What has a place already is written and synced first, in this thread, as the driver.
        let entry = self.enqueue_unwritten(&mut queue, count, false);
        let prepared = prepare(&mut queue, &entry);
        queue = self.round(queue, true);
        self.set_driving(&mut queue, true);
        let mut finished = Vec::new();
        loop {
            self.publish(&mut queue, &mut finished);
            let at_head = queue
                .entries
                .front()
                .is_some_and(|head| Arc::ptr_eq(head, &entry));
            if at_head || queue.failed.is_some() {
                break;
            }
            assert!(
                !self.executor.is_simulated(),
                "an insert cannot be under way on one thread"
            );
            queue.waiting += 1;
            queue = self
                .changed
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
            queue.waiting -= 1;
        }
        let failed = queue.failed.clone();
        drop(queue);
        self.run_callbacks(std::mem::take(&mut finished));

        let result = match failed {
            Some(cause) => Ok(Err(Error::ReadOnly { cause })),
            None => catch_unwind(AssertUnwindSafe(|| {
                prepared.and_then(|prepared| work(prepared, &entry))
            })),
        };
        let mut queue = self.lock();
        self.set_driving(&mut queue, false);
        entry.mark_inserted();
        self.publish(&mut queue, &mut finished);
        if queue.failed.is_some() && matches!(result, Ok(Ok(_))) {
            // The log failed meanwhile, but all before this entry was published, and what it did is done.
            self.visible.fetch_max(entry.last_seq.0, Ordering::AcqRel);
        }
        self.changed.notify_all();
        drop(queue);
        self.run_callbacks(finished);
        result.unwrap_or_else(|panic| resume_unwind(panic))
    }
}
