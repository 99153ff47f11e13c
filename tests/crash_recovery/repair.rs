//! Failing disks: failures are planted, what the database answers is checked, and it is brought back.

use std::sync::{Arc, atomic::Ordering};

use basalt_engine::{
    Error, WriteOptions,
    fs::sim::{FaultRule, Survival},
};

use crate::{
    shared::Event,
    world::{Done, World},
};

impl World {
    /// From now on operations fail as `rule` says.
    pub(crate) fn plant(&mut self, rule: FaultRule) {
        self.failing = true;
        let shared = Arc::downgrade(&self.shared);
        let noticed: FaultRule = Arc::new(move |op| {
            let failure = rule(op);
            if let (Some(shared), Some(_)) = (shared.upgrade(), &failure) {
                if shared.trace {
                    println!("fails: {op}");
                }
                let now = shared.boundary.load(Ordering::Relaxed);
                shared.failed_at.fetch_min(now, Ordering::Relaxed);
            }
            failure
        });
        self.rule = Some(Arc::clone(&noticed));
        self.fs.set_fault_rule(Some(noticed));
    }

    /// From now on the disk has room for so many bytes more.
    pub(crate) fn fill(&mut self, room: u64) {
        self.failing = true;
        self.fs.set_capacity(Some(self.fs.used_bytes() + room));
    }

    /// The disk is well again.
    pub(crate) fn heal(&mut self) {
        self.failing = false;
        self.rule = None;
        self.fs.set_fault_rule(None);
        self.fs.set_capacity(None);
    }

    /// An error is clear: it names the file and the system's reason.
    pub(crate) fn check_error(&self, error: &Error) -> Done {
        let clear = match error {
            Error::Io { path, .. } => !path.as_os_str().is_empty(),
            Error::ReadOnly { cause } => matches!(**cause, Error::Io { .. }),
            _ => false,
        };
        if clear {
            Ok(())
        } else {
            Err(self.broken(format!("an unclear error for a failing disk: {error}")))
        }
    }

    /// An operation failed: right on a failing disk, which is then repaired; else a broken promise.
    pub(crate) fn failed(&mut self, error: &Error, what: &str) -> Done {
        if !self.failing {
            return Err(self.broken(format!("{what} failed: {error}")));
        }
        self.count(Event::Failure);
        self.check_error(error)?;
        let writes = matches!(what, "write" | "sync" | "submit" | "flush" | "flush_all");
        if writes && self.db().read_only_cause().is_none() {
            return Err(self.broken(format!("{what} failed and writing goes on: {error}")));
        }
        self.repair()
    }

    /// Brings a failed database back: reads go on, writes are refused with the cause, `resume` works once the
    /// disk does, and nothing acknowledged is lost on the way.
    pub(crate) fn repair(&mut self) -> Done {
        self.settle();
        let db = self.db().clone();
        let read_only = db.read_only_cause();
        if let Some(cause) = &read_only {
            self.check_error(cause)?;
            self.read()?;
            let default = db.default_cf();
            match self.contain(|| db.put(&default, b"refused", b"", WriteOptions::SYNC))? {
                Err(Error::ReadOnly { cause }) if matches!(*cause, Error::Io { .. }) => {}
                other => {
                    return Err(self.broken(format!("a read-only database answers {other:?}")));
                }
            }
        }
        self.shared.images_now(&self.fs, "while failed");
        // The disk may still be bad: then resume fails, and the next one works.
        if read_only.is_some() && self.rng.one_in(2) {
            match self.contain(|| db.resume())? {
                Ok(()) => {}
                Err(error) => self.check_error(&error)?,
            }
        }
        self.heal();
        self.contain(|| db.resume())?
            .map_err(|e| self.broken(format!("resume failed on a good disk: {e}")))?;
        if db.read_only_cause().is_some() {
            return Err(self.broken("read-only after resume"));
        }
        if read_only.is_none() {
            // `take_over` holds all that is shown for durable; a resume has made it so, and here this does.
            self.contain(|| db.sync().and_then(|()| db.flush_all()))?
                .map_err(|e| self.broken(format!("a good disk still fails: {e}")))?;
        }
        drop(db);
        self.settle();
        self.take_over(Survival::ProcessDeath)?;
        if read_only.is_some() {
            self.count(Event::Resume);
        }
        self.shared.images_now(&self.fs, "after resume");
        Ok(())
    }

    /// True while a planted failure has not been met yet.
    pub(crate) fn is_failing(&self) -> bool {
        self.failing
    }

    /// True once the disk has failed and the database was brought back.
    pub(crate) fn was_resumed(&self) -> bool {
        let events = self.events();
        events.contains_key(&Event::Failure) || events.contains_key(&Event::Resume)
    }

    /// True where background work has met a planted failure.
    pub(crate) fn has_failed(&self) -> bool {
        self.db
            .as_ref()
            .is_some_and(|db| db.read_only_cause().is_some())
    }
}
