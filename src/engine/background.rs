//! Background work: what is scheduled, what runs, who waits for it, and what a failure does.
//!
//! One flush at a time, before all else; up to `max_compactions` compactions; one file job. A failure
//! is kept as the cause and closes the database for writing; a panic in a job is such a failure.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, atomic::Ordering},
};

use crate::{
    db::DbInner,
    error::{Error, Result},
    executor::Priority,
};

/// Which work is queued or running.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    pub(crate) flush: bool,
    /// A flush was asked for while one ran.
    pub(crate) flush_again: bool,
    pub(crate) compactions: usize,
    pub(crate) files: bool,
    /// Jobs that hold the database, running or queued.
    pub(crate) jobs: usize,
    /// Manual work holds automatic compaction off.
    pub(crate) manual: usize,
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

impl DbInner {
    /// Blocks until `done`, or until no more work will be done: closing, or a failure.
    pub(crate) fn wait_for_background(&self, mut done: impl FnMut() -> bool) {
        let executor = &self.options.executor;
        let mut flags = self.background.lock();
        while !done() && !self.is_closing() && self.read_only_cause().is_none() {
            if executor.is_simulated() {
                drop(flags);
                assert!(
                    executor.help(),
                    "a simulated wait for background work that is not queued"
                );
                flags = self.background.lock();
            } else {
                flags = self
                    .background
                    .changed
                    .wait(flags)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Waits until no job holds the database.
    pub(crate) fn wait_for_jobs(&self) {
        let executor = &self.options.executor;
        let mut flags = self.background.lock();
        while flags.jobs > 0 {
            if executor.is_simulated() {
                drop(flags);
                assert!(
                    executor.help(),
                    "a simulated wait for background work that is not queued"
                );
                flags = self.background.lock();
            } else {
                flags = self
                    .background
                    .changed
                    .wait(flags)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Runs `work` in the background. A panic in it is kept as a failure.
    fn spawn(
        self: &Arc<Self>,
        flags: &mut Flags,
        priority: Priority,
        work: impl FnOnce(&Arc<Self>) + Send + 'static,
    ) {
        flags.jobs += 1;
        let this = Arc::clone(self);
        let job = Box::new(move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| work(&this)));
            if let Err(panic) = outcome {
                let text = panic
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or_else(|| panic.downcast_ref::<&str>().copied())
                    .unwrap_or("no text");
                let source = std::io::Error::other(format!("a background job panicked: {text}"));
                this.note_failure(Error::io("run a job on", &this.dir, source));
            }
            this.background.lock().jobs -= 1;
            this.background.changed.notify_all();
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
        self.spawn(&mut flags, Priority::High, |db| {
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
        });
    }

    /// Has compactions started, if there is something to compact.
    pub(crate) fn schedule_compaction(self: &Arc<Self>) {
        if !self.may_work() {
            return;
        }
        let mut flags = self.background.lock();
        if flags.manual > 0 || flags.compactions >= self.options.max_compactions {
            return;
        }
        flags.compactions += 1;
        self.spawn(&mut flags, Priority::Low, |db| {
            let mut result = Ok(false);
            if db.may_work() {
                result = db.compact_once();
            }
            db.background.lock().compactions -= 1;
            match result {
                Ok(true) => db.schedule_compaction(),
                Ok(false) => {}
                Err(error) => {
                    db.note_failure(error);
                }
            }
        });
    }

    /// Has full segments synced, the next one prepared, and obsolete files removed.
    pub(crate) fn schedule_file_work(self: &Arc<Self>) {
        let mut flags = self.background.lock();
        if flags.files {
            return;
        }
        flags.files = true;
        self.spawn(&mut flags, Priority::High, |db| {
            db.background.lock().files = false;
            if let Err(error) = db.file_work() {
                db.note_failure(error);
            }
        });
    }

    fn file_work(self: &Arc<Self>) -> Result<()> {
        if self.may_work() {
            self.logs.prepare(0)?;
            self.commit.sync_full_segments();
            self.bound_manifest()?;
        }
        self.remove_obsolete_tables()
    }

    /// Removes the files of tables that nobody uses any more.
    pub(crate) fn remove_obsolete_tables(&self) -> Result<()> {
        let numbers = self.manifest.obsolete().take();
        crate::manifest::remove_tables(&*self.options.fs, &self.dir, &numbers)
    }

    /// Makes room on a full disk, so that deletes and compaction can go on once `resume` is called.
    fn give_up_reserve(&self) {
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

    /// Keeps `error` as the reason why writes end here, unless there is one already; answers it back.
    pub(crate) fn note_failure(&self, error: Error) -> Error {
        if matches!(error, Error::ReadOnly { .. } | Error::Closed) {
            return error;
        }
        let cause = Arc::new(error.clone());
        self.read_only
            .compare_and_swap(&None::<Arc<Error>>, Some(cause));
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
