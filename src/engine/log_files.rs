//! The files of the log: which segments live, the next one prepared off the write path, old ones reused.
//!
//! Not here: what is in a segment (`wal`), when it is full (`db`), when it is synced (`commit`).

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering, fence},
    },
};

use arc_swap::ArcSwap;

use crate::{
    append::{LogSegment, Segments, Tail},
    error::{Error, Result},
    faults::{Fault, Faults},
    filename,
    fs::{Fs, LogFile, ReadMode},
    numbers::FileNumbers,
    options::Options,
};

/// Times that a new segment is larger than the one before: each change of segments may wait for the disk, so that a
/// database that is written much should have few soon.
const GROWTH: u64 = 4;

/// A segment that recovery may need.
#[derive(Clone, Debug)]
pub(crate) struct LiveSegment {
    pub(crate) number: u64,
    /// Log position of its first record.
    pub(crate) base: u64,
    /// Absent for segments of an earlier life, which are not written any more.
    pub(crate) file: Option<Arc<dyn LogFile>>,
}

/// The segments of one database, and spare files for the next ones.
#[derive(Debug)]
pub(crate) struct LogFiles {
    dir: PathBuf,
    fs: Arc<dyn Fs>,
    numbers: Arc<FileNumbers>,
    faults: Faults,
    recycle_max: usize,
    capacity_max: u64,
    mode: ReadMode,
    /// Log position before which everything is durable.
    synced: Arc<AtomicU64>,
    /// The live segments for readers.
    segments: ArcSwap<Segments>,
    pub(crate) max_pinned: AtomicU64,
    /// The newest batches of append families.
    pub(crate) tail: Tail,
    /// Held while a file is made, so that files become ready in the order of their numbers. Taken before `state`.
    making: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Oldest first; the last one is written.
    live: VecDeque<LiveSegment>,
    /// No part of the log any more, but held by readers of append families; oldest first.
    retired: VecDeque<Retired>,
    prepared: Option<(u64, Arc<dyn LogFile>)>,
    recyclable: Vec<(u64, Arc<dyn LogFile>)>,
    /// Capacity of the next new segment.
    capacity: u64,
    /// Copies under way (checkpoints): nothing is removed or reused meanwhile.
    pins: usize,
}

/// A segment that was released while somebody held it.
#[derive(Debug)]
struct Retired {
    segment: Arc<LogSegment>,
    file: Option<Arc<dyn LogFile>>,
    /// Bytes of the log it holds.
    bytes: u64,
}

impl Retired {
    /// True while a snapshot or iterator holds it, or a slice its map.
    fn is_held(&self) -> bool {
        let is_held = Arc::strong_count(&self.segment) > 1 || self.segment.is_mapped_by_others();
        // Whoever let go of it last has read it before it is written again.
        fence(Ordering::Acquire);
        is_held
    }
}

impl LogFiles {
    pub(crate) fn new(dir: &Path, options: &Options, numbers: Arc<FileNumbers>) -> Self {
        let capacity = options.log_segment_bytes;
        Self {
            dir: dir.to_path_buf(),
            fs: Arc::clone(&options.fs),
            numbers,
            faults: options.faults,
            recycle_max: options.recycled_segments,
            capacity_max: capacity.1.max(capacity.0),
            mode: options.read_mode,
            synced: Arc::default(),
            segments: ArcSwap::default(),
            max_pinned: AtomicU64::new(options.max_pinned_log_bytes),
            tail: Tail::new(options.append_tail_bytes),
            making: Mutex::default(),
            state: Mutex::new(State {
                live: VecDeque::new(),
                retired: VecDeque::new(),
                prepared: None,
                recyclable: Vec::new(),
                capacity: capacity.0,
                pins: 0,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file prepared for the next segment, when there is one of at least `need` bytes.
    pub(crate) fn take_prepared(&self, need: u64) -> Option<(u64, Arc<dyn LogFile>)> {
        let mut state = self.lock();
        match &state.prepared {
            Some((_, file)) if file.capacity() >= need => state.prepared.take(),
            _ => None,
        }
    }

    /// Prepares a file of at least `need` bytes for the next segment, with its name durable, unless
    /// one is ready.
    pub(crate) fn prepare(&self, need: u64) -> Result<()> {
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if self
            .lock()
            .prepared
            .as_ref()
            .is_some_and(|(_, file)| file.capacity() >= need)
        {
            return Ok(());
        }
        let made = self.make(need)?;
        let mut state = self.lock();
        // Segments must be used in the order of their numbers, so the newest file is the one prepared.
        if let Some(older) = state.prepared.replace(made) {
            state.recyclable.push(older);
        }
        Ok(())
    }

    /// Takes no prepared file and reuses none, now or once it is released: after a failure nothing is known of
    /// them, and a sync that failed once proves nothing for that file ever after. Answers the numbers of those
    /// that are of no use any more.
    pub(crate) fn forget_files(&self) -> Vec<u64> {
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.lock();
        for segment in &mut state.live {
            segment.file = None;
        }
        for segment in &mut state.retired {
            segment.file = None;
        }
        let prepared = state.prepared.take();
        let spare = state.recyclable.drain(..).chain(prepared);
        spare.map(|(number, _)| number).collect()
    }

    /// Reuses an old file, or makes one, of at least `need` bytes.
    fn make(&self, need: u64) -> Result<(u64, Arc<dyn LogFile>)> {
        let number = self.numbers.next();
        let path = filename::log(&self.dir, number);
        let (reused, capacity) = {
            let mut state = self.lock();
            let fits = state
                .recyclable
                .iter()
                .position(|(_, file)| file.capacity() >= need);
            let reused = if state.pins == 0 {
                fits.map(|at| state.recyclable.remove(at))
            } else {
                None
            };
            let capacity = state.capacity.max(need);
            if reused.is_none() {
                state.capacity = (state.capacity * GROWTH).min(self.capacity_max);
            }
            (reused, capacity)
        };
        let file = if let Some((old, file)) = reused {
            let old = filename::log(&self.dir, old);
            self.fs
                .rename(&old, &path)
                .map_err(|e| Error::io("rename", old, e))?;
            file
        } else {
            self.fs.open_log(&path, capacity).map_err(|e| {
                // Begun and of no use: on a full disk its room may be what is missing.
                let _ = self.fs.remove_file(&path);
                Error::io("create", &path, e)
            })?
        };
        if !self.faults.is(Fault::NoDirSyncForLog) {
            self.fs
                .sync_dir(&self.dir)
                .map_err(|e| Error::io("sync", &self.dir, e))?;
        }
        Ok((number, file))
    }

    /// Takes note of a segment in use.
    pub(crate) fn push_live(&self, segment: LiveSegment) {
        let mut state = self.lock();
        if let Some(last) = state.live.back() {
            assert!(
                last.number < segment.number && last.base <= segment.base,
                "segments ascend"
            );
        }
        let LiveSegment { number, base, .. } = segment;
        state.live.push_back(segment);
        let path = filename::log(&self.dir, number);
        let mut segments = self.segments.load().0.clone();
        let fs = Arc::clone(&self.fs);
        segments.push(Arc::new(LogSegment::new(number, base, path, fs, self.mode)));
        self.segments.store(Arc::new(Segments(segments)));
    }

    /// The live segments for readers; held, they stay as they are.
    pub(crate) fn segments(&self) -> Arc<Segments> {
        self.segments.load_full()
    }

    /// Log position before which everything is durable.
    pub(crate) fn synced(&self) -> u64 {
        self.synced.load(Ordering::Acquire)
    }

    /// The same, for who moves it.
    pub(crate) fn synced_mirror(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.synced)
    }

    /// The live segments, oldest first.
    pub(crate) fn live(&self) -> Vec<LiveSegment> {
        self.lock().live.iter().cloned().collect()
    }

    /// The segment that recovery has to start from to read log position `position`: number and base.
    /// Never one after `newest`, whose header may not be durable.
    pub(crate) fn segment_of(&self, position: u64, newest: u64) -> (u64, u64) {
        let state = self.lock();
        let fits = |segment: &&LiveSegment| segment.base <= position && segment.number <= newest;
        let holder = state.live.iter().rev().find(fits);
        let holder = holder
            .or(state.live.front())
            .expect("there is always a current segment");
        (holder.number, holder.base)
    }

    /// Drops the segments before `number`: kept for reuse, or removed, once nobody reads them. The manifest must
    /// not need them.
    pub(crate) fn release_before(&self, number: u64) -> Result<()> {
        {
            let mut state = self.lock();
            if state.pins > 0 {
                return Ok(());
            }
            let mut segments = self.segments.load().0.clone();
            while state
                .live
                .front()
                .is_some_and(|segment| segment.number < number)
            {
                let old = state.live.pop_front().expect("there is a first");
                let next = state.live.front().map_or(old.base, |next| next.base);
                state.retired.push_back(Retired {
                    segment: segments.remove(0),
                    file: old.file,
                    bytes: next - old.base,
                });
            }
            self.segments.store(Arc::new(Segments(segments)));
        }
        self.release_retired()
    }

    /// Reuses or removes the files that were released and that nobody holds any more. Those that are held beyond
    /// the bound are removed all the same, oldest first; what holds them reads them no more.
    pub(crate) fn release_retired(&self) -> Result<()> {
        let mut remove = Vec::new();
        {
            let mut state = self.lock();
            if state.pins > 0 {
                return Ok(());
            }
            let mut bytes: u64 = state.retired.iter().map(|old| old.bytes).sum();
            for old in std::mem::take(&mut state.retired) {
                let is_held = old.is_held() && !self.faults.is(Fault::ReuseHeldSegment);
                if is_held && bytes <= self.max_pinned.load(Ordering::Relaxed) {
                    state.retired.push_back(old);
                    continue;
                }
                bytes -= old.bytes;
                if is_held {
                    old.segment.give_up();
                }
                match old.file {
                    Some(file)
                        if !is_held
                            && state.recyclable.len() < self.recycle_max
                            && file.capacity() <= self.capacity_max =>
                    {
                        state.recyclable.push((old.segment.number, file));
                    }
                    _ => remove.push(old.segment.number),
                }
            }
        }
        for number in remove {
            let path = filename::log(&self.dir, number);
            self.fs
                .remove_file(&path)
                .map_err(|e| Error::io("remove", path, e))?;
        }
        Ok(())
    }

    /// Removes files that are kept for reuse, oldest first, until they have at most so many bytes.
    pub(crate) fn bound_recyclable(&self, max_bytes: u64) -> Result<()> {
        let remove: Vec<u64> = {
            let mut state = self.lock();
            let bytes = |files: &[(u64, Arc<dyn LogFile>)]| -> u64 {
                files.iter().map(|(_, file)| file.capacity()).sum()
            };
            let spare = &mut state.recyclable;
            let is_within = |&skipped: &usize| bytes(&spare[skipped..]) <= max_bytes;
            let skipped = (0..spare.len()).find(is_within).unwrap_or(spare.len());
            spare.drain(..skipped).map(|(number, _)| number).collect()
        };
        remove.into_iter().try_for_each(|number| {
            let path = filename::log(&self.dir, number);
            self.fs
                .remove_file(&path)
                .map_err(|e| Error::io("remove", path, e))
        })
    }

    /// Bytes of the log that recovery needs or readers hold, up to where `end` says that it ends.
    pub(crate) fn live_bytes(&self, end: u64) -> u64 {
        let state = self.lock();
        let first = state.live.front().map_or(end, |segment| segment.base);
        let retired: u64 = state.retired.iter().map(|old| old.bytes).sum();
        // What was asked for `end` may have gone on since, and its segments away.
        end.saturating_sub(first) + retired
    }

    /// Bytes of log that only readers hold.
    pub(crate) fn pinned_bytes(&self) -> u64 {
        self.lock().retired.iter().map(|old| old.bytes).sum()
    }

    /// Keeps every segment as it is until the pin is dropped.
    pub(crate) fn pin(self: &Arc<Self>) -> SegmentPin {
        self.lock().pins += 1;
        SegmentPin(Arc::clone(self))
    }
}

/// Keeps log segments from being removed or reused.
pub(crate) struct SegmentPin(Arc<LogFiles>);

impl Drop for SegmentPin {
    fn drop(&mut self) {
        self.0.lock().pins -= 1;
    }
}
