//! Writing forward: the few live entries of prefixes that lag behind are written again at the log's end, so
//! that the old segments they stand in can be given up.
//!
//! A rewrite changes where entries stand and nothing else; it keeps their sequence numbers. It is prepared
//! without a lock, so under the commit lock, when it takes its place in the log, it is checked once more that
//! its entries are still live after everything that has a place before it. What comes later wins by the order
//! of the log.

use std::{
    ops::Range,
    sync::{Arc, atomic::Ordering},
};

use crate::{
    batch::WriteBatch,
    column_family::ColumnFamily,
    commit::Submission,
    db::DbInner,
    error::{Error, Result},
    faults::Fault,
    key::SequenceNumber,
    wal::record,
};

use super::{AppendFamily, AppendKind, Delta, Entry, LogBytes, Segments};

/// Bytes and entries of one batch: what others may have to wait for behind it.
const PIECE_BYTES: usize = 1 << 20;
const PIECE_ENTRIES: usize = 4096;

/// Segments are worth emptying together when at most one part in so many of them is live.
const WORTH: u64 = 4;

/// Entries at consecutive indexes of one prefix, to be written again.
struct Run {
    family: ColumnFamily,
    prefix: Arc<[u8]>,
    first: u64,
    entries: Vec<(Entry, LogBytes)>,
}

impl Run {
    fn append_family(&self) -> &AppendFamily {
        let family = self.family.inner.append.as_ref();
        family.expect("entries are taken from append families")
    }

    fn put_into(&self, batch: &mut WriteBatch, planted: Option<SequenceNumber>) {
        let values = self.entries.iter();
        let values = values.map(|(entry, value)| (planted.unwrap_or(entry.seq()), &**value));
        let kind = AppendKind::Rewrite;
        batch.put_values(kind, &self.family, &self.prefix, self.first, values);
    }

    /// Keeps what is live.
    fn trim(&mut self, live: &Range<usize>) {
        self.entries.truncate(live.end);
        self.entries.drain(..live.start);
        self.first += live.start as u64;
    }
}

impl AppendFamily {
    /// Which of a run's entries are live after everything that has a place in the log; under the commit lock.
    fn live_part(&self, run: &Run) -> Range<usize> {
        let submitted = self.lock_submitted();
        let Some(state) = submitted.get(&*run.prefix) else {
            return 0..0;
        };
        let len = run.entries.len();
        let within = |index: u64| {
            let at = usize::try_from(index.saturating_sub(run.first));
            at.map_or(len, |at| at.min(len))
        };
        let end = within(state.range.end.min(state.low));
        let mut live = within(state.range.start).min(end)..end;
        let published = self.read();
        let log = published.index.get(&run.prefix);
        let is_there = |at: &usize| {
            let entry = log.and_then(|log| log.get(run.first + *at as u64));
            entry.is_some_and(|entry| entry.pos() == run.entries[*at].0.pos())
        };
        live.start = live.clone().find(is_there).unwrap_or(live.end);
        live.end = live.clone().find(|at| !is_there(at)).unwrap_or(live.end);
        live
    }
}

/// The log position up to which segments are worth emptying: those before it are at most a quarter live
/// together. `None` while there is less than `max_garbage` to be had, or nothing is worth it.
fn boundary(segments: &Segments, max_garbage: u64) -> Option<u64> {
    let sealed = segments.0.windows(2).map(|pair| {
        let bytes = pair[1].base - pair[0].base;
        (pair[1].base, bytes, pair[0].live_bytes().min(bytes))
    });
    let garbage: u64 = sealed.clone().map(|(_, bytes, live)| bytes - live).sum();
    if garbage <= max_garbage {
        return None;
    }
    let (mut bytes_before, mut live_before, mut boundary) = (0, 0, None);
    for (end, bytes, live) in sealed {
        bytes_before += bytes;
        live_before += live;
        if live_before.saturating_mul(WORTH) <= bytes_before {
            boundary = Some(end);
        }
    }
    boundary
}

impl DbInner {
    /// Writes live entries forward when too much of the log is dead, and has the plain memtables flushed that
    /// hold the same segments.
    pub(crate) fn rewrite_lagging(self: &Arc<Self>) -> Result<()> {
        if !self.appends.exist() || self.read_only_cause().is_some() {
            return Ok(());
        }
        // One at a time; whoever comes meanwhile would find the same entries.
        let Ok(_rewriting) = self.appends.rewriting.try_lock() else {
            return Ok(());
        };
        let max_garbage = self.live.load().max_log_garbage_bytes;
        let Some(boundary) = boundary(&self.logs.segments(), max_garbage) else {
            return Ok(());
        };
        self.flush_before(boundary);
        let written = self.write_forward(boundary);
        match written {
            // Writes are stalled: another time.
            Err(Error::Busy(_)) => Ok(()),
            Ok(0) => Ok(()),
            Ok(_) => {
                self.commit.sync_all()?;
                self.release_log()
            }
            Err(error) => Err(error),
        }
    }

    /// Has the memtables flushed whose records stand before a log position.
    fn flush_before(self: &Arc<Self>, position: u64) {
        let queue = self.commit.lock();
        for family in self.families() {
            let state = family.inner.peek();
            if state.oldest_pos().is_some_and(|oldest| oldest < position) {
                if state.frozen.is_empty() {
                    self.freeze(&queue, &family);
                } else {
                    self.schedule_flush();
                }
            }
        }
    }

    /// Writes every live entry before a log position again; answers how many.
    pub(super) fn write_forward(self: &Arc<Self>, boundary: u64) -> Result<usize> {
        let mut reader = self.log_reader(self.logs.segments());
        let (mut runs, mut bytes, mut count, mut written) = (Vec::<Run>::new(), 0, 0, 0);
        for family in self.families() {
            let Some(append) = &family.inner.append else {
                continue;
            };
            let view = append.view();
            for (prefix, log) in view.items() {
                let crc = append.value_crc(prefix);
                for (index, entry) in log.entries() {
                    if entry.pos() >= boundary {
                        continue;
                    }
                    // Gone with its segment since the view was taken: nothing to save.
                    let Some(value) = reader.value(&crc, index, entry)? else {
                        continue;
                    };
                    bytes += value.len();
                    count += 1;
                    match runs.last_mut() {
                        Some(run)
                            if run.family.same(&family)
                                && run.prefix == *prefix
                                && run.first + run.entries.len() as u64 == index =>
                        {
                            run.entries.push((entry, value));
                        }
                        _ => runs.push(Run {
                            family: family.clone(),
                            prefix: Arc::clone(prefix),
                            first: index,
                            entries: vec![(entry, value)],
                        }),
                    }
                    if bytes >= PIECE_BYTES || count >= PIECE_ENTRIES {
                        written += self.submit_rewrite(std::mem::take(&mut runs))?;
                        (bytes, count) = (0, 0);
                    }
                }
            }
        }
        Ok(written + self.submit_rewrite(runs)?)
    }

    /// Gives a rewrite its place, of what is live there; answers the number of entries.
    fn submit_rewrite(self: &Arc<Self>, mut runs: Vec<Run>) -> Result<usize> {
        loop {
            runs.retain(|run| !run.entries.is_empty());
            if runs.is_empty() {
                return Ok(0);
            }
            let mut batch = WriteBatch::new();
            let is_renumbered = self.options.faults.is(Fault::RewriteRenumbered);
            let planted = is_renumbered.then(|| self.commit.visible());
            runs.iter()
                .for_each(|run| run.put_into(&mut batch, planted));
            batch.validate()?;
            batch.finish();
            let crc = crc32fast::hash(batch.encoded());
            let need = (record::HEADER_LEN + batch.encoded().len()) as u64;

            self.check_writable(false)?;
            let mut queue = self.commit.lock();
            if let Some(cause) = queue.failed() {
                let cause = Arc::clone(cause);
                return Err(Error::ReadOnly { cause });
            }
            let mut is_whole = true;
            if !self.options.faults.is(Fault::RewriteUnchecked) {
                for run in &mut runs {
                    let live = run.append_family().live_part(run);
                    if live != (0..run.entries.len()) {
                        is_whole = false;
                        run.trim(&live);
                    }
                }
            }
            if !is_whole {
                continue;
            }
            // A segment is begun only for what is written into it.
            if let Err(stall) = self.make_room(&mut queue, &[], true, need) {
                drop(queue);
                self.end_stall(stall, &[], false)?;
                continue;
            }
            let _undo = batch.submit_appends()?;
            let position = queue.end_pos();
            let submission = Submission {
                count: u32::try_from(batch.len()).expect("a batch counts in 32 bits"),
                sync: false,
                payload: Some((batch.encoded(), crc)),
            };
            let entry = self.commit.enqueue(&mut queue, &submission);
            drop(queue);
            self.counters
                .rewritten_bytes
                .fetch_add(need, Ordering::Relaxed);
            let payload = position + record::HEADER_LEN as u64;
            let logs = Arc::clone(&self.logs);
            entry.carry(Delta::new(batch, entry.first_seq(), payload, logs));
            entry.mark_inserted();
            self.commit.kick(false);
            return Ok(runs.iter().map(|run| run.entries.len()).sum());
        }
    }
}
