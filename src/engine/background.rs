//! Background work: what is scheduled, what runs, who waits for it, and what a failure does.
//!
//! One flush at a time, before all else; up to `max_compactions` compactions; one file job. A failure
//! is kept as the cause and closes the database for writing; a panic in a job is such a failure.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, atomic::Ordering},
};

use crate::{
    column_family::ColumnFamily,
    db::DbInner,
    error::{Error, Result},
    events::Event,
    executor::Priority,
    options::LEVELS,
};

/// Log files that are kept for reuse take at most this part of what tables and log take, or `MIN_SPARE_LOG` bytes.
const SPARE_LOG_PART: u64 = 8;
const MIN_SPARE_LOG: u64 = 4 << 20;

/// Which work is queued or running.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    pub(crate) flush: bool,
    /// A flush was asked for while one ran.
    pub(crate) flush_again: bool,
    pub(crate) compactions: usize,
    /// A compaction was asked for while there were as many as may be.
    pub(crate) compact_again: bool,
    pub(crate) files: bool,
    /// Jobs that hold the database, running or queued.
    pub(crate) jobs: usize,
    /// No job begins any more: a close has waited for the last one.
    pub(crate) ended: bool,
    /// The close is done.
    pub(crate) closed: bool,
}

thread_local! {
    /// Jobs of databases that run on this thread, one inside the other.
    static RUNNING_HERE: Cell<usize> = const { Cell::new(0) };
}

/// True on a thread that runs a job of a database: it must not wait for jobs to end.
pub(crate) fn is_in_a_job() -> bool {
    RUNNING_HERE.get() > 0
}

/// Runs `work`, which catches panics, as part of a job, or as what must not wait for jobs either.
pub(crate) fn as_a_job(work: impl FnOnce()) {
    RUNNING_HERE.set(RUNNING_HERE.get() + 1);
    work();
    RUNNING_HERE.set(RUNNING_HERE.get() - 1);
}

/// The state of background work, and where others wait for it.
#[derive(Debug, Default)]
pub(crate) struct Background {
    flags: Mutex<Flags>,
    changed: Condvar,
}

impl Background {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Flags> {
        self.flags.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes everybody who waits for background work.
    pub(crate) fn notify(&self) {
        drop(self.lock());
        self.changed.notify_all();
    }
}

/// Dropped once a close is done, or given up: whoever waits for it goes on.
pub(crate) struct Closing(pub(crate) Arc<Background>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.changed.notify_all();
    }
}

impl crate::Db {
    /// Blocks until no flush, compaction or removal of files runs or is due. What writes meanwhile may prolong it. With
    /// [`flush_all`](crate::Db::flush_all) before it, the files are as small as the settings make them.
    ///
    /// # Errors
    /// `ReadOnly` with the cause where such work has failed; `Closed`; `InvalidArgument` on a thread that does such
    /// work, as a listener's callback is.
    pub fn wait_for_background_work(&self) -> Result<()> {
        if is_in_a_job() {
            let why = "background work that waits for itself never ends";
            return Err(Error::InvalidArgument(why.to_owned()));
        }
        let inner = &self.inner;
        let mut flags = inner.background.lock();
        loop {
            if inner.is_closing() {
                return Err(Error::Closed);
            }
            if let Some(cause) = inner.read_only_cause() {
                return Err(Error::ReadOnly { cause });
            }
            if flags.jobs == 0 {
                return Ok(());
            }
            flags = inner.wait_for_a_job(flags);
        }
    }
}

impl DbInner {
    /// Blocks until `done`, or until no more work will be done: closing, or a failure.
    pub(crate) fn wait_for_background(&self, mut done: impl FnMut() -> bool) {
        let mut flags = self.background.lock();
        while !done() && !self.is_closing() && self.read_only_cause().is_none() {
            flags = self.wait_for_a_job(flags);
        }
    }

    /// Waits until no job holds the database.
    pub(crate) fn wait_for_jobs(&self) {
        drop(self.without_jobs());
    }

    /// The same, and from here on none begins.
    pub(crate) fn end_jobs(&self) {
        self.without_jobs().ended = true;
    }

    fn without_jobs(&self) -> MutexGuard<'_, Flags> {
        let mut flags = self.background.lock();
        while flags.jobs > 0 {
            flags = self.wait_for_a_job(flags);
        }
        flags
    }

    /// Waits until the close that another handle has begun is done.
    pub(crate) fn wait_until_closed(&self) {
        let mut flags = self.background.lock();
        while !flags.closed {
            let (next, helped) = self.wait_for_change(flags);
            if !helped {
                // It goes on below on this thread's stack, or its job was given up.
                return;
            }
            flags = next;
        }
    }

    /// Waits for a change that a job brings about.
    fn wait_for_a_job<'a>(&'a self, flags: MutexGuard<'a, Flags>) -> MutexGuard<'a, Flags> {
        let (flags, helped) = self.wait_for_change(flags);
        assert!(
            helped,
            "a simulated wait for background work that is not queued"
        );
        flags
    }

    /// Gives the lock away until something has changed. On a simulated executor it does a job here; false where there is
    /// none.
    fn wait_for_change<'a>(
        &'a self,
        flags: MutexGuard<'a, Flags>,
    ) -> (MutexGuard<'a, Flags>, bool) {
        let executor = &self.options.executor;
        if executor.is_simulated() {
            drop(flags);
            let helped = executor.help();
            return (self.background.lock(), helped);
        }
        let changed = self.background.changed.wait(flags);
        (changed.unwrap_or_else(PoisonError::into_inner), true)
    }

    /// Runs `work` in the background, unless the database is closed. A panic in it is kept as a failure, and `on_panic`
    /// takes its flags back.
    fn spawn(
        self: &Arc<Self>,
        flags: &mut Flags,
        priority: Priority,
        on_panic: fn(&mut Flags),
        work: impl FnOnce(&Arc<Self>) + Send + 'static,
    ) {
        if flags.ended {
            // Not even one that would do nothing: it would hold the directory after the close has returned.
            on_panic(flags);
            return;
        }
        flags.jobs += 1;
        let this = Arc::clone(self);
        let background = Arc::clone(&self.background);
        let job = Box::new(move || {
            as_a_job(|| {
                let outcome = catch_unwind(AssertUnwindSafe(|| work(&this)));
                if let Err(panic) = outcome {
                    let text = panic
                        .downcast_ref::<String>()
                        .map(String::as_str)
                        .or_else(|| panic.downcast_ref::<&str>().copied())
                        .unwrap_or("no text");
                    let source =
                        std::io::Error::other(format!("a background job panicked: {text}"));
                    this.note_failure(Error::io("run a job on", &this.dir, source));
                    on_panic(&mut background.lock());
                }
                // Before it counts as ended: who waits for the last job may open the directory again at once.
                drop(this);
            });
            background.lock().jobs -= 1;
            background.changed.notify_all();
        });
        self.options.executor.spawn(priority, job);
    }

    /// Has frozen memtables flushed.
    pub(crate) fn schedule_flush(self: &Arc<Self>) {
        let mut flags = self.background.lock();
        if flags.flush {
            flags.flush_again = true;
            return;
        }
        flags.flush = true;
        let on_panic = |flags: &mut Flags| flags.flush = false;
        self.spawn(&mut flags, Priority::High, on_panic, |db| {
            loop {
                db.background.lock().flush_again = false;
                let result = if db.may_work() {
                    db.flush_frozen()
                } else {
                    Ok(())
                };
                let failed = result.is_err();
                if let Err(error) = result {
                    db.note_failure(error);
                }
                let mut flags = db.background.lock();
                if failed || !flags.flush_again || !db.may_work() {
                    flags.flush = false;
                    break;
                }
            }
            db.schedule_compaction();
            // Log files may have become spare.
            db.schedule_file_work();
        });
    }

    /// Has compactions started, if there is something to compact.
    pub(crate) fn schedule_compaction(self: &Arc<Self>) {
        if !self.may_work() {
            return;
        }
        let mut flags = self.background.lock();
        if flags.compactions >= self.live.load().max_compactions {
            // Those that run may have looked before there was something to do.
            flags.compact_again = true;
            return;
        }
        flags.compactions += 1;
        let on_panic = |flags: &mut Flags| flags.compactions -= 1;
        self.spawn(&mut flags, Priority::Low, on_panic, |db| {
            let mut result = Ok(false);
            if db.may_work() {
                result = db.compact_once();
            }
            let again = {
                let mut flags = db.background.lock();
                flags.compactions -= 1;
                std::mem::take(&mut flags.compact_again)
            };
            match result {
                Ok(done) if done || again => db.schedule_compaction(),
                Ok(_) => {}
                Err(error) => {
                    db.note_failure(error);
                }
            }
        });
    }

    /// Sees to it that what writes wait for is under way. A stall ends by nothing else.
    pub(crate) fn see_to_work(self: &Arc<Self>) {
        let (flushing, compacting) = {
            let flags = self.background.lock();
            (flags.flush, flags.compactions > 0)
        };
        let is_waiting = |family: &ColumnFamily| !family.inner.peek().frozen.is_empty();
        if !flushing && self.families().iter().any(is_waiting) {
            self.schedule_flush();
        }
        if !compacting {
            self.schedule_compaction();
        }
    }

    /// Has listeners told what waits for them.
    pub(crate) fn schedule_events(self: &Arc<Self>) {
        let mut flags = self.background.lock();
        // Nothing in it panics but what it contains.
        self.spawn(&mut flags, Priority::High, |_| {}, |db| db.tell_waiting());
    }

    /// Has full segments synced, the next one prepared, and obsolete files removed.
    pub(crate) fn schedule_file_work(self: &Arc<Self>) {
        let mut flags = self.background.lock();
        if flags.files {
            return;
        }
        flags.files = true;
        let on_panic = |flags: &mut Flags| flags.files = false;
        self.spawn(&mut flags, Priority::High, on_panic, |db| {
            db.background.lock().files = false;
            if let Err(error) = db.file_work() {
                db.note_failure(error);
            }
        });
    }

    pub(crate) fn file_work(self: &Arc<Self>) -> Result<()> {
        if self.may_work() {
            self.measure_appends();
            self.relieve_memory();
            self.prepare_segment(0)?;
            self.commit.sync_full_segments();
            self.bound_manifest()?;
            self.release_log()?;
            self.bound_spare_log()?;
            self.rewrite_lagging()?;
        }
        self.remove_obsolete_tables()
    }

    /// Keeps fewer log files for reuse where they are large beside what the database holds.
    fn bound_spare_log(&self) -> Result<()> {
        let tables = |family: &ColumnFamily| -> u64 {
            let version = family.inner.peek().version.clone();
            (0..LEVELS).map(|level| version.level_bytes(level)).sum()
        };
        let held: u64 = self.families().iter().map(tables).sum();
        let end = self.commit.lock().end_pos();
        let held = held.saturating_add(self.logs.live_bytes(end));
        self.logs
            .bound_recyclable((held / SPARE_LOG_PART).max(MIN_SPARE_LOG))
    }

    /// Removes the files of tables that nobody uses any more.
    pub(crate) fn remove_obsolete_tables(&self) -> Result<()> {
        let numbers = self.manifest.obsolete().take();
        let fs = &*self.options.fs;
        crate::manifest::remove_tables(fs, &self.dir, &numbers)?;
        if !numbers.is_empty() {
            self.tell(|| Event::TablesRemoved { numbers });
        }
        // A table that is gone may have been the last that needed a value file.
        let numbers = self.manifest.obsolete().take_values();
        crate::manifest::remove_value_files(fs, &self.dir, &numbers)
    }

    /// Makes room on a full disk, so that deletes and compaction can go on once `resume` is called.
    fn give_up_reserve(&self) {
        if self.is_opened_read_only() {
            return;
        }
        let path = self.dir.join(crate::filename::RESERVE);
        let _ = self.options.fs.remove_file(&path);
    }

    /// False while closing, and while read-only for any other reason than a full disk: then background
    /// work would only fail or be in the way.
    pub(crate) fn may_work(&self) -> bool {
        !self.is_closing() && !self.is_stopped()
    }

    /// True where no work will be done until `resume`.
    fn is_stopped(&self) -> bool {
        self.read_only_cause()
            .is_some_and(|cause| !self.may_free_space(&cause))
    }

    /// Keeps `error` as the reason why writes end here, unless there is one already, or it is none: a wrong
    /// call, say. Answers it back.
    pub(crate) fn note_failure(&self, error: Error) -> Error {
        match error {
            Error::ReadOnly { .. }
            | Error::Closed
            | Error::Cancelled
            | Error::InvalidArgument(_)
            | Error::NoSuchColumnFamily(_)
            | Error::Busy(_) => return error,
            _ => {}
        }
        let cause = Arc::new(error.clone());
        let before = self
            .read_only
            .compare_and_swap(&None::<Arc<Error>>, Some(cause));
        self.tell(|| Event::BackgroundError {
            error: error.clone(),
        });
        if before.is_none() {
            self.tell(|| Event::ReadOnly {
                cause: error.clone(),
            });
        }
        if error.is_disk_full() {
            self.give_up_reserve();
        }
        self.background.notify();
        error
    }

    /// Why the database takes no writes.
    pub(crate) fn read_only_cause(&self) -> Option<Arc<Error>> {
        self.read_only.load_full().or_else(|| self.commit.failure())
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }
}
