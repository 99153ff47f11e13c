//! Events: what the engine does in the background and why writers wait, told to listeners.
//!
//! Told soon after, one after the other and in the order in which they came about, by a background job that holds no lock
//! of the engine. A listener that panics loses that event and nothing else; one that is slow holds up other events, and
//! nothing else until there are [`MAX_WAITING`] of them: then the oldest are given up, and counted.

use std::{
    collections::VecDeque,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    db::{Db, DbInner},
    error::Error,
    key::SequenceNumber,
};

/// Most events that wait for listeners.
const MAX_WAITING: usize = 10_000;

/// What happened. Sizes are in bytes; a family goes by its name.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// Memtables are being written to tables.
    FlushBegin {
        /// Their families.
        families: Vec<String>,
    },
    /// They are in tables, and the manifest says so.
    FlushEnd {
        /// Their families.
        families: Vec<String>,
        /// Numbers of the tables.
        tables: Vec<u64>,
        /// Bytes of the tables.
        bytes: u64,
        /// From the beginning on.
        took: Duration,
    },
    /// Tables are being compacted.
    CompactionBegin {
        /// The family.
        family: String,
        /// Level of the first inputs.
        level: usize,
        /// Level of the outputs.
        output_level: usize,
        /// Numbers of the inputs.
        inputs: Vec<u64>,
        /// Bytes of the inputs.
        bytes: u64,
    },
    /// That compaction is done.
    CompactionEnd {
        /// The family.
        family: String,
        /// Level of the outputs.
        output_level: usize,
        /// Numbers of the inputs.
        inputs: Vec<u64>,
        /// Numbers of the outputs; those of the inputs where they only moved.
        outputs: Vec<u64>,
        /// Bytes written.
        bytes: u64,
        /// From the beginning on.
        took: Duration,
    },
    /// Writers wait.
    StallBegin {
        /// For what.
        reason: String,
    },
    /// No writer waits any more.
    StallEnd {
        /// What the first of them waited for.
        reason: String,
        /// Since it began.
        took: Duration,
    },
    /// Tables from outside were taken in.
    Ingested {
        /// Families that took part.
        families: Vec<String>,
        /// Bytes of the tables.
        bytes: u64,
        /// The last sequence number of it.
        seq: SequenceNumber,
    },
    /// Something failed that no caller waits for, or that the database cannot go on after.
    BackgroundError {
        /// What it was.
        error: Error,
    },
    /// The database takes no writes from here on.
    ReadOnly {
        /// Why.
        cause: Error,
    },
    /// It takes writes again.
    Resumed,
    /// A table file is complete.
    TableCreated {
        /// Its number.
        number: u64,
        /// Its bytes.
        bytes: u64,
    },
    /// Table files that nobody needs any more are gone.
    TablesRemoved {
        /// Their numbers.
        numbers: Vec<u64>,
    },
}

/// Is told what happens. Closures over an [`Event`] are listeners too.
pub trait EventListener: Send + Sync {
    /// Called on a background thread without a lock of the engine. It should be short, and may call the database, but not
    /// wait for background work: no flush, no `compact_range`, no writes that wait.
    fn on_event(&self, event: &Event);
}

impl<F: Fn(&Event) + Send + Sync> EventListener for F {
    fn on_event(&self, event: &Event) {
        self(event);
    }
}

/// Listeners, and what they are not yet told.
#[derive(Default)]
pub(crate) struct Events {
    home: OnceLock<Weak<DbInner>>,
    listeners: RwLock<Vec<Arc<dyn EventListener>>>,
    /// Somebody listens.
    any: AtomicBool,
    waiting: Mutex<VecDeque<Event>>,
    /// A job that tells is on its way.
    scheduled: AtomicBool,
    lost: AtomicU64,
    /// Writers that wait now, and what the first of them waits for, since when.
    stall: Mutex<(usize, String, Duration)>,
}

impl Events {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Events that were given up because listeners were too slow.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Db {
    /// Has `listener` told of what happens from now on.
    pub fn add_listener(&self, listener: Arc<dyn EventListener>) {
        let events = &self.inner.events;
        events.home.get_or_init(|| Arc::downgrade(&self.inner));
        events
            .listeners
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .push(listener);
        events.any.store(true, Ordering::Release);
    }
}

impl DbInner {
    /// Has listeners told. What is told is made only where somebody listens.
    pub(crate) fn tell(&self, event: impl FnOnce() -> Event) {
        let events = &self.events;
        if !events.any.load(Ordering::Acquire) {
            return;
        }
        let Some(this) = events.home.get().and_then(Weak::upgrade) else {
            return;
        };
        {
            let mut waiting = events.waiting();
            if waiting.len() == MAX_WAITING {
                waiting.pop_front();
                events.lost.fetch_add(1, Ordering::Relaxed);
            }
            waiting.push_back(event());
        }
        if !events.scheduled.swap(true, Ordering::AcqRel) {
            this.schedule_events();
        }
    }

    /// Tells listeners all that waits.
    pub(crate) fn tell_waiting(&self) {
        let events = &self.events;
        let listeners = events
            .listeners
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        loop {
            let next = events.waiting().pop_front();
            let Some(event) = next else {
                events.scheduled.store(false, Ordering::Release);
                // What came in between has seen that a job is on its way.
                if events.waiting().is_empty() || events.scheduled.swap(true, Ordering::AcqRel) {
                    return;
                }
                continue;
            };
            for listener in &listeners {
                let _ = catch_unwind(AssertUnwindSafe(|| listener.on_event(&event)));
            }
        }
    }

    /// A writer begins to wait for `reason`.
    pub(crate) fn begin_stall(&self, reason: &str) {
        let now = self.options.executor.now();
        let mut stall = self.stall();
        stall.0 += 1;
        if stall.0 > 1 {
            return;
        }
        (stall.1, stall.2) = (reason.to_owned(), now);
        drop(stall);
        let reason = reason.to_owned();
        self.tell(|| Event::StallBegin { reason });
    }

    /// A writer waits no longer.
    pub(crate) fn end_stall_of_one(&self) {
        let now = self.options.executor.now();
        let mut stall = self.stall();
        stall.0 -= 1;
        if stall.0 > 0 {
            return;
        }
        let (reason, took) = (stall.1.clone(), now.saturating_sub(stall.2));
        drop(stall);
        self.counters.stalled.add(took);
        self.tell(|| Event::StallEnd { reason, took });
    }

    fn stall(&self) -> MutexGuard<'_, (usize, String, Duration)> {
        let stall = &self.events.stall;
        stall.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events")
            .field("waiting", &self.waiting().len())
            .field("lost", &self.lost())
            .finish_non_exhaustive()
    }
}
