//! Options that change while the database is open: validated as a whole, then in force, or nothing is changed.
//!
//! Options of a family are stored with it (`CfOptions`); those of the database never are, so that the next open says its own.

use std::sync::{Arc, atomic::Ordering};

use crate::{
    column_family::ColumnFamily,
    db::{Db, DbInner},
    error::{Error, Result},
    limiter::IoPriority,
    options::{CfOptions, Options},
    paced::WritePace,
};

impl Db {
    /// The options in force.
    #[must_use]
    pub fn options(&self) -> Options {
        Options::clone(&self.inner.live.load())
    }

    /// Changes options of the open database; `options` are all of them, as [`Db::options`] gives them, with changes. In force
    /// from now on, and until it is closed: `block_cache_bytes`, `max_pinned_bytes`, `memory_budget_bytes` (unless
    /// `shared_memory` has them), `memtable_budget_bytes`, `max_log_bytes`, `max_manifest_bytes`, `max_compactions`,
    /// `max_log_garbage_bytes`, `max_pinned_log_bytes`, `rate_limiter`, `bytes_per_sync`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` with the name of a setting that is out of range, or that needs reopening; nothing is changed then.
    pub fn set_options(&self, options: Options) -> Result<()> {
        self.inner.set_options(options)
    }

    /// Changes the options of a family, in force for what is begun from now on and stored with the family: all but `logged`
    /// and `append_prefix_bytes`, which are fixed at creation (and `memtable`, which is not stored). Tables that exist stay
    /// as they were written until a compaction takes them.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` with the name of a setting that is out of range or cannot change; as for [`Db::write`] else. Nothing
    /// is changed then.
    pub fn set_cf_options(&self, cf: &ColumnFamily, options: CfOptions) -> Result<()> {
        self.inner.check_family(cf)?;
        self.inner.change_cf_options(cf, &options)
    }
}

/// Names of settings that differ and cannot change while the database is open.
fn needs_reopening(old: &Options, new: &Options) -> Vec<&'static str> {
    let shared = |options: &Options| {
        let memory = options.shared_memory.as_ref();
        memory.map(|memory| Arc::as_ptr(&memory.pool))
    };
    let of_shared = new.shared_memory.is_some();
    let pairs = [
        (
            "create_if_missing",
            old.create_if_missing != new.create_if_missing,
        ),
        (
            "error_if_exists",
            old.error_if_exists != new.error_if_exists,
        ),
        ("read_mode", old.read_mode != new.read_mode),
        (
            "log_segment_bytes",
            old.log_segment_bytes != new.log_segment_bytes,
        ),
        (
            "recycled_segments",
            old.recycled_segments != new.recycled_segments,
        ),
        ("stats_sampling", old.stats_sampling != new.stats_sampling),
        ("reserve_bytes", old.reserve_bytes != new.reserve_bytes),
        ("shared_memory", shared(old) != shared(new)),
        (
            "append_tail_bytes",
            old.append_tail_bytes != new.append_tail_bytes,
        ),
        ("clock", !Arc::ptr_eq(&old.clock, &new.clock)),
        ("fs", !Arc::ptr_eq(&old.fs, &new.fs)),
        ("executor", !Arc::ptr_eq(&old.executor, &new.executor)),
        ("faults", old.faults != new.faults),
        (
            "block_cache_bytes of shared memory",
            of_shared && old.block_cache_bytes != new.block_cache_bytes,
        ),
        (
            "max_pinned_bytes of shared memory",
            of_shared && old.max_pinned_bytes != new.max_pinned_bytes,
        ),
        (
            "memory_budget_bytes of shared memory",
            of_shared && old.memory_budget_bytes != new.memory_budget_bytes,
        ),
    ];
    pairs
        .into_iter()
        .filter_map(|(name, differs)| differs.then_some(name))
        .collect()
}

impl DbInner {
    fn set_options(self: &Arc<Self>, options: Options) -> Result<()> {
        options.validate()?;
        if self.is_closing() {
            return Err(Error::Closed);
        }
        let fixed = needs_reopening(&self.live.load(), &options);
        if !fixed.is_empty() {
            return Err(Error::invalid(format!(
                "{} needs reopening to change",
                fixed.join(", ")
            )));
        }
        // Of two at a time one is in force whole.
        let manifest = self.manifest.lock();
        if options.shared_memory.is_none() {
            let memory = &self.memory.memory;
            memory.set_max_pinned_bytes(options.max_pinned_bytes);
            memory.set_block_cache_bytes(options.block_cache_bytes);
            memory.set_budget_bytes(options.memory_budget_bytes);
        }
        self.logs.set_max_pinned(options.max_pinned_log_bytes);
        self.live.store(Arc::new(options));
        drop(manifest);
        {
            // What is over a new bound is flushed without waiting for the next write.
            let mut queue = self.commit.lock();
            queue.check_memory_soon();
            self.look_at_memory(&queue);
        }
        self.background.notify();
        self.schedule_compaction();
        self.schedule_file_work();
        Ok(())
    }

    /// How fast a job writes.
    pub(crate) fn pace(&self, priority: IoPriority) -> WritePace {
        let live = self.live.load();
        WritePace {
            limiter: live.rate_limiter.clone(),
            priority: Some(priority),
            bytes_per_sync: live.bytes_per_sync,
            stop: Arc::clone(&self.closing),
        }
    }
}

impl crate::log_files::LogFiles {
    fn set_max_pinned(&self, bytes: u64) {
        self.max_pinned.store(bytes, Ordering::Relaxed);
    }
}
