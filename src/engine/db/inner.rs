//! What the front's calls share inside: finding families, being writable, creating and dropping families, closing.

use std::sync::{Arc, PoisonError, atomic::Ordering};

use super::{DEFAULT_CF, DbInner, MAX_CF_NAME_LEN, MAX_CFS};
use crate::{
    batch::{FamilyId, WriteBatch},
    column_family::{ColumnFamily, Family},
    error::{Error, Result},
    key::SequenceNumber,
    options::{CfOptions, WriteOptions},
    version::{FamilyCreated, VersionEdit},
};

impl DbInner {
    pub(crate) fn families(&self) -> Vec<ColumnFamily> {
        self.families
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn find_family(&self, name: &str) -> Option<ColumnFamily> {
        let families = self.families.read().unwrap_or_else(PoisonError::into_inner);
        families
            .iter()
            .find(|family| family.name() == name)
            .cloned()
    }

    pub(crate) fn family_by_id(&self, id: FamilyId) -> Option<ColumnFamily> {
        let families = self.families.read().unwrap_or_else(PoisonError::into_inner);
        families.iter().find(|family| family.id() == id).cloned()
    }

    /// Checks that `cf` is of this database and alive.
    pub(crate) fn check_family(&self, cf: &ColumnFamily) -> Result<()> {
        if cf.inner.instance != self.instance {
            return Err(Error::invalid("a column family handle of another database"));
        }
        if cf.is_dropped() {
            return Err(Error::NoSuchColumnFamily(cf.name().to_owned()));
        }
        Ok(())
    }

    /// True where the database was opened only to be read.
    pub(crate) fn is_opened_read_only(&self) -> bool {
        let cause = self.read_only.load();
        matches!(cause.as_deref(), Some(Error::OpenedReadOnly { .. }))
    }

    /// Checks that the database was opened to be written too.
    pub(crate) fn check_opened_to_write(&self) -> Result<()> {
        match self.read_only.load_full() {
            Some(cause) if self.is_opened_read_only() => Err(Error::ReadOnly { cause }),
            _ => Ok(()),
        }
    }

    /// Checks that writes are taken; `deletes_only` may pass on a full disk whose reserve was given up.
    pub(crate) fn check_writable(&self, deletes_only: bool) -> Result<()> {
        if self.is_closing() {
            return Err(Error::Closed);
        }
        match self.read_only_cause() {
            Some(cause) if deletes_only && self.may_free_space(&cause) => Ok(()),
            Some(cause) => Err(Error::ReadOnly { cause }),
            None => Ok(()),
        }
    }

    /// True where only space is missing: then deletes, flushes and compactions go on, with what the
    /// reserve gave.
    pub(crate) fn may_free_space(&self, cause: &Error) -> bool {
        cause.is_disk_full() && self.commit.failure().is_none()
    }

    /// Keeps the failure of a commit as the cause of being read-only.
    pub(crate) fn settle<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(Error::ReadOnly { cause }) = &result
            && self.read_only.load().is_none()
        {
            self.note_failure(Error::clone(cause));
        }
        result
    }

    /// An empty batch: a valid call that changes nothing; with `sync` it makes durable what was before.
    pub(super) fn write_nothing(
        &self,
        batch: &WriteBatch,
        options: WriteOptions,
    ) -> Result<SequenceNumber> {
        batch.validate()?;
        self.check_writable(false)?;
        if options.sync {
            self.settle(self.commit.sync_all())?;
        }
        Ok(self.commit.visible())
    }

    pub(super) fn create_cf(
        self: &Arc<Self>,
        name: &str,
        options: &CfOptions,
    ) -> Result<ColumnFamily> {
        check_name(name)?;
        options.validate()?;
        options.check_build()?;
        self.check_writable(false)?;
        let mut manifest = self.manifest.lock();
        if self.find_family(name).is_some() {
            return Err(Error::invalid(format!("column family {name:?} exists")));
        }
        if self.families().len() >= MAX_CFS {
            return Err(Error::invalid(format!(
                "{MAX_CFS} column families, which is the limit"
            )));
        }
        if options.append_prefix_bytes.is_some() {
            self.begin_appends(&mut manifest)?;
        }
        self.raise_format(&mut manifest, options.least_format())?;
        let id = manifest.state.next_family_id;
        let edit = VersionEdit {
            next_family_id: Some(id + 1),
            created: vec![FamilyCreated {
                id,
                name: name.to_owned(),
                options: options.stored(),
            }],
            ..VersionEdit::default()
        };
        self.apply_locked(&mut manifest, edit)?;
        let state = manifest.state.family(id).expect("just created");
        let family = ColumnFamily::new(Family::new(
            id,
            name.to_owned(),
            options.clone(),
            self.instance,
            Arc::clone(&state.version),
            SequenceNumber::ZERO,
        ));
        self.families
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .push(family.clone());
        Ok(family)
    }

    pub(super) fn open_cf(
        self: &Arc<Self>,
        name: &str,
        options: &CfOptions,
    ) -> Result<ColumnFamily> {
        let Some(family) = self.find_family(name) else {
            return self.create_cf(name, options);
        };
        self.change_cf_options(&family, options)?;
        Ok(family)
    }

    /// Gives `family` new options: in the manifest, and for what is begun from now on.
    pub(crate) fn change_cf_options(
        self: &Arc<Self>,
        family: &ColumnFamily,
        options: &CfOptions,
    ) -> Result<()> {
        if *family.options() == *options {
            return Ok(());
        }
        let name = family.name();
        options.validate()?;
        options.check_build()?;
        if family.is_logged() != options.logged {
            return Err(Error::invalid(format!(
                "column family {name:?} was created with logged = {}, which cannot change",
                family.is_logged()
            )));
        }
        let prefix_bytes = family.options().append_prefix_bytes;
        if prefix_bytes != options.append_prefix_bytes {
            return Err(Error::invalid(format!(
                "column family {name:?} was created with append_prefix_bytes = {prefix_bytes:?}, which cannot change"
            )));
        }
        if family.options().ttl.is_some() != options.ttl.is_some() {
            return Err(Error::invalid(format!(
                "column family {name:?} was created with ttl = {:?}; its length may change, but not whether it has one",
                family.options().ttl
            )));
        }
        check_same_operator(name, &family.options(), options)?;
        self.check_writable(false)?;
        let mut manifest = self.manifest.lock();
        self.check_family(family)?;
        // Again, now that nobody changes them: two that give a first operator must give the same.
        check_same_operator(family.name(), &family.options(), options)?;
        self.raise_format(&mut manifest, options.least_format())?;
        let stored = options.stored();
        let state = manifest.state.family(family.id());
        if state.is_none_or(|state| state.options != stored) {
            let edit = VersionEdit {
                options: vec![(family.id(), stored)],
                ..VersionEdit::default()
            };
            self.apply_locked(&mut manifest, edit)?;
        }
        let renew = family.options().memtable != options.memtable;
        family.inner.set_options(options.clone());
        drop(manifest);
        if renew {
            let _queue = self.commit.lock();
            family.inner.renew_untouched();
        }
        // What waits may not have to any more, and there may be something to compact.
        self.background.notify();
        self.schedule_compaction();
        Ok(())
    }

    pub(super) fn drop_cf(self: &Arc<Self>, cf: &ColumnFamily) -> Result<()> {
        self.check_family(cf)?;
        if cf.name() == DEFAULT_CF {
            return Err(Error::invalid(
                "the default column family cannot be dropped",
            ));
        }
        self.check_writable(false)?;
        let mut manifest = self.manifest.lock();
        self.check_family(cf)?;
        let edit = VersionEdit {
            dropped: vec![cf.id()],
            ..VersionEdit::default()
        };
        self.apply_locked(&mut manifest, edit)?;
        cf.inner.dropped.store(true, Ordering::Release);
        cf.inner.release();
        if let Some(append) = &cf.inner.append {
            // Nothing is published, and no segment begun, between the look at the segments and the count.
            let queue = self.commit.lock();
            let index = append.close(&self.logs.segments());
            drop(queue);
            drop(index);
        }
        self.families
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|family| !family.same(cf));
        drop(manifest);
        self.background.notify();
        self.schedule_file_work();
        Ok(())
    }

    pub(super) fn close(self: &Arc<Self>) -> Result<()> {
        let synced = if self.read_only_cause().is_none() {
            self.commit.sync_all()
        } else {
            Ok(())
        };
        self.closing.store(true, Ordering::Release);
        self.background.notify();
        self.wait_for_jobs();
        // Nobody drives the log from here on; batches that came in between are answered.
        let late = if synced.is_ok() && self.read_only_cause().is_none() {
            self.commit.sync_all()
        } else {
            Ok(())
        };
        self.commit.fail(Error::Closed);
        // A job may still be writing what came in between; the directory is free once this returns.
        self.commit.wait_for_inserts();
        let removed = self
            .remove_obsolete_tables()
            .and(self.logs.release_retired());
        // Those too that others, or what was done here, have had scheduled since.
        self.end_visits();
        self.end_jobs();
        let marked = if self.read_only.load().is_none() {
            self.mark.sync()
        } else {
            Ok(())
        };
        synced.and(late).and(marked).and(removed)
    }
}

/// Checks that a family which has a merge operator is opened with one of its name.
fn check_same_operator(name: &str, there: &CfOptions, given: &CfOptions) -> Result<()> {
    let operator = |options: &CfOptions| {
        let setting = options.merge_operator.as_ref();
        setting.map(|setting| setting.name().to_owned())
    };
    match (operator(there), operator(given)) {
        (Some(there), given) if given.as_ref() != Some(&there) => {
            let given = given.map_or("none".to_owned(), |name| format!("{name:?}"));
            Err(Error::invalid(format!(
                "column family {name:?} has the merge operator {there:?}, and was opened with {given}"
            )))
        }
        _ => Ok(()),
    }
}

fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > MAX_CF_NAME_LEN {
        return Err(Error::invalid(format!(
            "a column family name has 1 to {MAX_CF_NAME_LEN} bytes, not {}",
            name.len()
        )));
    }
    Ok(())
}
