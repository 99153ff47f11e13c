//! From a batch to its place in the order of writes: checks, room, memtables, and waiting.
//!
//! Not here: the queue itself (`commit`), what a batch is (`batch`).

use std::sync::{Arc, atomic::Ordering};

use crate::{
    append::Delta,
    batch::{Operation, Operations, WriteBatch},
    column_family::{ColumnFamily, Frozen, Slot},
    commit::{Entry, Queue, Submission},
    db::DbInner,
    error::{Error, Result},
    key::{InternalKey, SequenceNumber, ValueKind},
    log_files::LiveSegment,
    options::WriteOptions,
    wal::{record, segment::HEADER_LEN},
};

/// Why a batch must wait before it gets its place.
pub(crate) enum Stall {
    /// For a flush or a compaction, with the reason for people.
    Work(String),
    /// For a log segment of at least this many bytes.
    Segment(u64),
}

/// The memtables of a batch, by family; of most batches it is one, which takes no memory.
enum Slots {
    One([(u32, Arc<Slot>); 1]),
    Many(Vec<(u32, Arc<Slot>)>),
}

impl Slots {
    fn as_slice(&self) -> &[(u32, Arc<Slot>)] {
        match self {
            Self::One(one) => one,
            Self::Many(many) => many,
        }
    }
}

impl DbInner {
    /// Gives `batch` its place and inserts it; durability and publication are still to come.
    /// With `wait` it blocks while writes are stalled; without, a stall is `Busy`.
    pub(crate) fn submit_batch(
        self: &Arc<Self>,
        mut batch: WriteBatch,
        options: WriteOptions,
        wait: bool,
    ) -> Result<Arc<Entry>> {
        batch.validate()?;
        let logged = self.check_families(batch.families())?;
        if options.sync && !logged {
            return Err(Error::invalid(
                "sync: true on an unlogged column family, which is durable from its flush on",
            ));
        }
        let count = u32::try_from(batch.len()).expect("a batch counts its operations in 32 bits");
        batch.stamp(|| self.snapshots.time.now());
        batch.finish();
        let payload = batch.encoded();
        let crc = if logged { crc32fast::hash(payload) } else { 0 };
        if wait {
            self.slow_down(batch.families());
        }
        let (entry, slots, position) = loop {
            self.check_writable(batch.deletes_only())?;
            self.check_families(batch.families())?;
            let mut queue = self.commit.lock();
            if let Some(cause) = queue.failed() {
                return Err(Error::ReadOnly {
                    cause: Arc::clone(cause),
                });
            }
            if payload.len() >= LARGE_BATCH {
                queue.check_memory_soon();
            }
            let need = if logged {
                (record::HEADER_LEN + payload.len()) as u64
            } else {
                0
            };
            // Against everything that has a place, and before a segment is begun for this.
            let undo = batch.submit_appends()?;
            match self.make_room(&mut queue, batch.families(), logged, need) {
                Ok(()) => {
                    let position = queue.end_pos();
                    let slots = self.touch_memtables(batch.families(), logged, position);
                    let submission = Submission {
                        count,
                        sync: options.sync,
                        payload: logged.then_some((payload, crc)),
                    };
                    let entry = self.commit.enqueue(&mut queue, &submission);
                    break (entry, slots, position);
                }
                Err(stall) => {
                    batch.unsubmit_appends(undo);
                    drop(queue);
                    self.end_stall(stall, batch.families(), wait)?;
                }
            }
        };
        if !slots.as_slice().is_empty() {
            insert(payload, entry.first_seq(), slots.as_slice());
        }
        if batch.has_appends() {
            let truncates = batch.truncates();
            let payload = position + record::HEADER_LEN as u64;
            let logs = Arc::clone(&self.logs);
            entry.carry(Delta::new(batch, entry.first_seq(), payload, logs));
            if truncates && self.is_floor_behind() {
                self.schedule_file_work();
            }
        }
        entry.mark_inserted();
        Ok(entry)
    }

    /// Checks that the families are of this database, alive, and of one class; true for logged.
    pub(crate) fn check_families(&self, families: &[ColumnFamily]) -> Result<bool> {
        let mut class = None;
        for family in families {
            self.check_family(family)?;
            let logged = family.is_logged();
            if *class.get_or_insert(logged) != logged {
                return Err(Error::invalid(
                    "a batch over both logged and unlogged column families cannot be atomic",
                ));
            }
        }
        Ok(class.unwrap_or(true))
    }

    /// Makes sure that every family can take the batch and that the log has room for it.
    pub(crate) fn make_room(
        self: &Arc<Self>,
        queue: &mut Queue,
        families: &[ColumnFamily],
        logged: bool,
        need: u64,
    ) -> Result<(), Stall> {
        if queue.memory_check_is_due() {
            self.look_at_memory(queue);
        }
        if let Some(reason) = self.memory_stall() {
            return Err(Stall::Work(reason));
        }
        let mut any_full = false;
        for family in families {
            any_full |= is_full(family).map_err(Stall::Work)?;
        }
        if any_full && logged {
            // Of all families it is known by now that they need not wait.
            for family in families.iter().filter(|family| is_full(family) == Ok(true)) {
                self.freeze(queue, family);
            }
        } else if any_full {
            self.freeze_unlogged(queue);
        }
        if need > queue.room() {
            let segment = need + HEADER_LEN as u64;
            let Some((number, file)) = self.logs.take_prepared(segment) else {
                return Err(Stall::Segment(segment));
            };
            self.commit.switch_segment(queue, number, Arc::clone(&file));
            self.logs.push_live(LiveSegment {
                number,
                base: queue.end_pos(),
                file: Some(file),
            });
            self.schedule_file_work();
            self.bound_log(queue);
        }
        Ok(())
    }

    /// Has the memtable flushed that holds the oldest segment, when the log has grown too large.
    fn bound_log(self: &Arc<Self>, queue: &Queue) {
        let families = self.families();
        let oldest = families
            .iter()
            .filter_map(|family| Some((family.inner.peek().oldest_pos()?, family)))
            .min_by_key(|(position, _)| *position);
        let Some((position, family)) = oldest else {
            return;
        };
        if queue.end_pos() - position > self.live.load().max_log_bytes {
            if family.inner.peek().frozen.is_empty() {
                self.freeze(queue, family);
            } else {
                self.schedule_flush();
            }
        }
    }

    /// Has the largest memtable flushed where memory is short.
    pub(crate) fn look_at_memory(self: &Arc<Self>, queue: &Queue) {
        let verdict = self.balance_memory();
        if self.over_budget().is_some() || verdict.flush {
            self.memory_over.store(true, Ordering::Relaxed);
            self.freeze_largest(queue);
        }
        // Another database of the pool may hold what is missing: it is asked in the background.
        let elsewhere = verdict.stall.is_some() && !self.has_frozen();
        self.memory.slow.store(elsewhere, Ordering::Relaxed);
        if verdict.flush && self.memory.is_shared() {
            self.schedule_file_work();
        }
    }

    /// True where a memtable waits for flush.
    fn has_frozen(&self) -> bool {
        let waits = |family: &ColumnFamily| !family.inner.peek().frozen.is_empty();
        self.families().iter().any(waits)
    }

    /// Bytes of all memtables, when that is more than allowed.
    fn over_budget(&self) -> Option<usize> {
        let families = self.families();
        let bytes: usize = families.iter().map(|f| f.inner.peek().memory_bytes()).sum();
        (bytes > self.live.load().memtable_budget_bytes).then_some(bytes)
    }

    /// Freezes the largest memtable, if none is waiting for flush already.
    pub(crate) fn freeze_largest(self: &Arc<Self>, queue: &Queue) {
        let families = self.families();
        if self.has_frozen() {
            return;
        }
        let largest = families
            .iter()
            .max_by_key(|f| f.inner.peek().active.memtable.bytes());
        match largest {
            Some(family) if family.is_logged() => self.freeze(queue, family),
            Some(_) => self.freeze_unlogged(queue),
            None => {}
        }
    }

    /// Why writes wait for memory, if they do: only while there is something to flush.
    fn memory_stall(&self) -> Option<String> {
        if !self.memory_over.load(Ordering::Relaxed) {
            return None;
        }
        let waiting = self.has_frozen();
        let over = self
            .over_budget()
            .map(|bytes| (bytes, self.live.load().memtable_budget_bytes));
        if let Some((bytes, budget)) = over.filter(|_| waiting) {
            return Some(format!(
                "memtables hold {bytes} bytes, budget {budget}, and wait for flush"
            ));
        }
        if let Some((bytes, budget)) = self.balance_memory().stall.filter(|_| waiting) {
            return Some(format!(
                "memory holds {bytes} bytes, budget {budget}, and memtables wait for flush"
            ));
        }
        self.memory_over.store(false, Ordering::Relaxed);
        None
    }

    /// The active memtables of a batch's families, which from now on need the log from `position`.
    fn touch_memtables(&self, families: &[ColumnFamily], logged: bool, position: u64) -> Slots {
        let slot = |family: &ColumnFamily| {
            let slot = Arc::clone(&family.inner.peek().active);
            slot.touch(logged.then_some(position));
            (family.id(), slot)
        };
        match families {
            [family] if !family.is_append() => Slots::One([slot(family)]),
            families => {
                let has_memtable = |family: &&ColumnFamily| !family.is_append();
                Slots::Many(families.iter().filter(has_memtable).map(slot).collect())
            }
        }
    }

    /// Freezes a family's memtable at this point of the write order, if it has anything, and has it
    /// flushed.
    pub(crate) fn freeze(self: &Arc<Self>, queue: &Queue, family: &ColumnFamily) {
        if self.freeze_only(queue, family) {
            self.schedule_flush();
        }
    }

    /// Freezes a family's memtable at this point of the write order; false when it has nothing.
    pub(crate) fn freeze_only(&self, queue: &Queue, family: &ColumnFamily) -> bool {
        if !family.inner.peek().active.is_touched() {
            return false;
        }
        let seq = SequenceNumber(queue.next_seq().0 - 1);
        family.inner.freeze(Frozen {
            seq,
            pos: queue.end_pos(),
        });
        true
    }

    /// Freezes all unlogged families at one point of the write order.
    pub(crate) fn freeze_unlogged(self: &Arc<Self>, queue: &Queue) {
        for family in self.families().iter().filter(|family| !family.is_logged()) {
            self.freeze(queue, family);
        }
    }

    pub(crate) fn end_stall(
        self: &Arc<Self>,
        stall: Stall,
        families: &[ColumnFamily],
        wait: bool,
    ) -> Result<()> {
        match stall {
            Stall::Segment(bytes) => {
                let prepared = self.prepare_segment(bytes);
                prepared.map_err(|error| self.note_failure(error))
            }
            Stall::Work(reason) => {
                self.see_to_work();
                if !wait {
                    return Err(Error::Busy(reason));
                }
                self.counters.stalls.fetch_add(1, Ordering::Relaxed);
                let begun = self.options.executor.now();
                self.begin_stall(&reason);
                self.wait_for_background(|| self.stall_reason(families).is_none());
                self.end_stall_of_one();
                let took = self.options.executor.now().saturating_sub(begun);
                for family in families {
                    let counters = &family.inner.counters;
                    counters.stalls.fetch_add(1, Ordering::Relaxed);
                    counters.stalled.add(took);
                }
                match self.read_only_cause() {
                    // What ends the stall may never be done, also where deletes are still taken.
                    Some(cause) if self.stall_reason(families).is_some() => {
                        Err(Error::ReadOnly { cause })
                    }
                    _ => Ok(()),
                }
            }
        }
    }

    /// Why writes to `families` must wait for background work, if they must.
    pub(crate) fn stall_reason(&self, families: &[ColumnFamily]) -> Option<String> {
        if let Some(reason) = self.memory_stall() {
            return Some(reason);
        }
        families.iter().find_map(|family| is_full(family).err())
    }

    /// Whether a write to `families` would be stopped, or slowed down.
    pub(crate) fn would_wait(&self, families: &[ColumnFamily]) -> bool {
        families.iter().any(Self::is_behind) || self.stall_reason(families).is_some()
    }

    /// Whether compaction of a family falls behind.
    fn is_behind(family: &ColumnFamily) -> bool {
        let trigger = family.inner.options().l0_slowdown_trigger;
        family.inner.peek().version.level(0).len() >= trigger
    }

    /// Lets a little time pass while compaction falls behind, so that writers need not stop.
    fn slow_down(&self, families: &[ColumnFamily]) {
        if families.iter().any(Self::is_behind) || self.memory.slow.load(Ordering::Relaxed) {
            self.counters.slowdowns.fetch_add(1, Ordering::Relaxed);
            self.options.executor.sleep(SLOWDOWN);
        }
    }
}

/// True where the memtable of a family is full; the reason where writes to it must wait for background work.
fn is_full(family: &ColumnFamily) -> Result<bool, String> {
    let options = family.inner.options();
    let state = family.inner.peek();
    let full = state.active.memtable.bytes() >= options.write_buffer_bytes;
    if full && state.frozen.len() >= options.max_immutable_memtables.max(1) {
        return Err(format!(
            "{} memtables of column family {:?} wait for flush",
            state.frozen.len(),
            family.name()
        ));
    }
    let l0 = state.version.level(0).len();
    if l0 >= options.l0_stop_trigger {
        return Err(format!(
            "{l0} L0 tables of column family {:?} wait for compaction",
            family.name()
        ));
    }
    Ok(full)
}

/// Bytes of a batch whose memory is looked at at once.
const LARGE_BATCH: usize = 16 << 10;

/// Pause of one write while there are many L0 tables.
const SLOWDOWN: std::time::Duration = std::time::Duration::from_millis(1);

/// Inserts the operations of a batch whose first sequence number is `first`.
pub(crate) fn insert(payload: &[u8], first: SequenceNumber, slots: &[(u32, Arc<Slot>)]) {
    let operations = Operations::new(payload).expect("a batch made here has its header");
    for (seq, operation) in (first.0..).zip(operations) {
        let (family, operation) = operation.expect("a batch made here decodes");
        if operation.is_append() {
            continue;
        }
        let slot = slots
            .iter()
            .find(|(id, _)| *id == family)
            .map(|(_, slot)| slot);
        let slot = slot.expect("every family of the batch has its memtable here");
        insert_one(slot, operation, SequenceNumber(seq));
    }
}

/// Inserts one operation.
pub(crate) fn insert_one(slot: &Slot, operation: Operation<'_>, seq: SequenceNumber) {
    match operation {
        Operation::Put { key, value } => {
            slot.memtable
                .insert(InternalKey::new(key, seq, ValueKind::Put), value);
        }
        Operation::Merge { key, operand } => {
            slot.memtable
                .insert(InternalKey::new(key, seq, ValueKind::Merge), operand);
        }
        Operation::Delete { key } => {
            slot.memtable
                .insert(InternalKey::new(key, seq, ValueKind::Delete), &[]);
        }
        Operation::DeleteRange { start, end } => {
            slot.memtable.insert_range_tombstone(start, end, seq);
        }
        Operation::Append { .. }
        | Operation::AppendPacked { .. }
        | Operation::TruncateFront { .. }
        | Operation::TruncateBack { .. }
        | Operation::Rewrite { .. } => {
            unreachable!("operations of append families go to no memtable")
        }
    }
}
