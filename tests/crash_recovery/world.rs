//! The world of one workload: a simulated disk, a database on it, and the model; each operation is done to
//! both. Before every change of the disk, images of it as after a crash are handed to the checker.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use basalt_engine::{
    CfOptions, ColumnFamily, Db, Error, Ingest, SequenceNumber, WriteBatch, WriteOptions,
    executor::SimExecutor,
    fs::{
        Fs, SimFs,
        sim::{FaultRule, Op, OpKind, Survival},
    },
};
use basalt_testkit::Rng;

use crate::{
    check::{Broken, Checker, DIR, check_leaks, panic_text, read_all},
    model::{Edit, Expect, FamilyId, LOGGED, Model, Recovered, UNLOGGED},
};

/// What came of an operation, where a broken promise ends the workload.
pub(crate) type Done<T = ()> = Result<T, Broken>;

/// What a workload reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    Flush,
    Compaction,
    ManifestSwitch,
    Rotation,
    Recycling,
    LogRemoval,
    Ingest,
    Checkpoint,
    CreateFamily,
    DropFamily,
    UnloggedFlush,
    Resume,
    Oversize,
    Synced,
    Unsynced,
    Ticket,
    Reopen,
    Crash,
    RangeDelete,
    Failure,
}

/// Which images of which boundaries are taken.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Images {
    /// All.
    All,
    /// One, to replay a failure.
    Only(u64, Option<Survival>),
    /// Those after a planted failure: at so many boundaries, then at every sixteenth.
    AfterFailure(u64),
}

/// What the observer and the callbacks of the engine share with the workload.
struct Shared {
    model: Mutex<Model>,
    checker: Arc<Checker>,
    /// Changes of the disk so far, over all lives of the database.
    boundary: AtomicU64,
    events: Mutex<BTreeMap<Event, u64>>,
    /// The database, to ask what readers see.
    db: Mutex<Option<Db>>,
    /// The life of the database; callbacks of an earlier one do not count.
    life: AtomicU64,
    /// The boundary of the first planted failure that was met.
    failed_at: Arc<AtomicU64>,
    images: Images,
    /// Every change of the disk is printed.
    trace: bool,
    name: String,
    seed: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One run of one workload.
pub(crate) struct World {
    shared: Arc<Shared>,
    pub(crate) fs: Arc<SimFs>,
    executor: Arc<SimExecutor>,
    db: Option<Db>,
    families: BTreeMap<FamilyId, ColumnFamily>,
    pub(crate) rng: Rng,
    /// A disk failure was planted: operations may fail, and then [`World::repair`] takes over.
    failing: bool,
    rule: Option<FaultRule>,
    counter: u64,
    lives: u64,
}

impl World {
    pub(crate) fn new(name: &str, seed: u64, checker: Arc<Checker>, images: Images) -> Self {
        let fs = SimFs::new();
        fs.create_dir_all("/ext".as_ref())
            .expect("an empty disk takes a directory");
        fs.settle();
        Self {
            shared: Arc::new(Shared {
                model: Mutex::new(Model::new()),
                checker,
                boundary: AtomicU64::new(0),
                events: Mutex::default(),
                db: Mutex::default(),
                life: AtomicU64::new(0),
                failed_at: Arc::new(AtomicU64::new(u64::MAX)),
                images,
                trace: std::env::var_os("BASALT_TRACE").is_some(),
                name: name.to_owned(),
                seed,
            }),
            fs,
            executor: Arc::new(SimExecutor::new(seed)),
            db: None,
            families: BTreeMap::new(),
            rng: Rng::new(seed ^ 0xD1CE),
            failing: false,
            rule: None,
            counter: 0,
            lives: 0,
        }
    }

    pub(crate) fn events(&self) -> BTreeMap<Event, u64> {
        lock(&self.shared.events).clone()
    }

    pub(crate) fn boundaries(&self) -> u64 {
        self.shared.boundary.load(Ordering::Relaxed)
    }

    fn model(&self) -> MutexGuard<'_, Model> {
        lock(&self.shared.model)
    }

    fn count(&self, event: Event) {
        self.shared.count(event);
    }

    fn broken(&self, why: impl std::fmt::Display) -> Broken {
        self.shared.broken(why)
    }

    pub(crate) fn db(&self) -> &Db {
        self.db.as_ref().expect("the workload has it open")
    }

    // ---- opening, closing, dying

    /// Opens the database, which must then hold what the model allows.
    pub(crate) fn open(&mut self, how: Survival) -> Done {
        self.lives += 1;
        self.shared.watch(&self.fs);
        self.executor = Arc::new(SimExecutor::new(self.shared.seed ^ self.lives));
        loop {
            let options = (self.shared.checker.options)(
                Arc::clone(&self.fs) as _,
                Arc::clone(&self.executor),
            );
            match self.contain(|| Db::open(DIR, options))? {
                Ok(db) => {
                    self.db = Some(db);
                    break;
                }
                Err(error) if self.failing => {
                    self.count(Event::Failure);
                    self.check_error(&error)?;
                    self.heal();
                }
                Err(error) => return Err(self.broken(format!("open failed: {error}"))),
            }
        }
        self.take_over(how)?;
        let model = Arc::downgrade(&self.shared);
        let life = self.shared.life.load(Ordering::Relaxed);
        self.db().on_flush(Arc::new(move |cf, seq: SequenceNumber| {
            if let Some(shared) = model.upgrade()
                && shared.life.load(Ordering::Relaxed) == life
            {
                let class = usize::from(!cf.is_logged());
                lock(&shared.model).flushed(class, seq.0);
                shared.count(Event::Flush);
                if class == UNLOGGED {
                    shared.count(Event::UnloggedFlush);
                }
            }
        }));
        Ok(())
    }

    /// The model becomes what the database shows now; all of that is durable.
    fn take_over(&mut self, how: Survival) -> Done {
        let db = self.db().clone();
        let recovered = self.read_back()?;
        let mut model = self.model();
        let found = model
            .expect()
            .find(how, &recovered)
            .map_err(|why| self.broken(why))?;
        model.came_back(found, db.last_seq().0);
        let set = Arc::clone(model.set());
        drop(model);
        self.families = set
            .iter()
            .map(|(name, (family, _))| (*family, db.cf(name).expect("it was just listed")))
            .collect();
        *lock(&self.shared.db) = Some(db);
        Ok(())
    }

    fn forget(&mut self) {
        self.families.clear();
        // Dropped outside the lock: the last handle closes the database, and the observer asks for it.
        let last = lock(&self.shared.db).take();
        drop(last);
    }

    /// Closes the database cleanly.
    pub(crate) fn close(&mut self) -> Done {
        self.settle();
        if self.has_failed() {
            self.repair()?;
        }
        self.note_compactions();
        let db = self.db.take().expect("the workload has it open");
        let result = self.contain(|| db.close())?;
        match result {
            Ok(()) => self.model().all_durable(LOGGED),
            Err(error) if self.failing => {
                self.count(Event::Failure);
                self.check_error(&error)?;
                self.heal();
            }
            Err(error) => return Err(self.broken(format!("close failed: {error}"))),
        }
        // The lock of the directory is free once the last handle is gone.
        self.forget();
        self.executor.abandon();
        Ok(())
    }

    /// Closes and opens.
    pub(crate) fn reopen(&mut self) -> Done {
        self.count(Event::Reopen);
        self.close()?;
        self.open(Survival::LoseUnsynced)
    }

    /// The process dies, or power is cut; the database is opened on what is left.
    pub(crate) fn crash(&mut self, how: Survival) -> Done {
        self.count(Event::Crash);
        self.note_compactions();
        let left = self.fs.crash(how);
        self.fs.set_observer(None);
        self.shared.life.fetch_add(1, Ordering::Relaxed);
        let old = self.db.take();
        self.forget();
        // On its old disk, which nobody will see again.
        let _ = self.contain(|| old.map(Db::close));
        self.executor.abandon();
        self.fs = left;
        self.fs.set_fault_rule(self.rule.clone());
        if !matches!(how, Survival::ProcessDeath | Survival::KeepAll) {
            self.model().power_cut();
        }
        self.open(how)
    }

    /// Runs all background work.
    pub(crate) fn settle(&self) {
        let ran = catch_unwind(AssertUnwindSafe(|| self.executor.run_until_idle()));
        if let Err(panic) = ran {
            let why = format!("background work panicked: {}", panic_text(&*panic));
            self.shared.checker.report(self.broken(why));
        }
    }

    /// Runs a few background jobs.
    pub(crate) fn work(&self, jobs: u64) {
        use basalt_engine::executor::Executor as _;
        for _ in 0..jobs {
            let ran = catch_unwind(AssertUnwindSafe(|| self.executor.help()));
            match ran {
                Ok(true) => {}
                Ok(false) => return,
                Err(panic) => {
                    let why = format!("background work panicked: {}", panic_text(&*panic));
                    self.shared.checker.report(self.broken(why));
                    return;
                }
            }
        }
    }

    /// A panic of the engine is a broken promise too.
    fn contain<T>(&self, work: impl FnOnce() -> T) -> Done<T> {
        catch_unwind(AssertUnwindSafe(work))
            .map_err(|panic| self.broken(format!("panic: {}", panic_text(&*panic))))
    }

    // ---- families

    pub(crate) fn family(&self, name: &str) -> FamilyId {
        self.model().set()[name].0
    }

    pub(crate) fn has_family(&self, name: &str) -> bool {
        self.model().set().contains_key(name)
    }

    /// Numbers of the families of a class.
    pub(crate) fn families(&self, class: usize) -> Vec<FamilyId> {
        let model = self.model();
        let of_class = model
            .set()
            .values()
            .filter(|(_, logged)| *logged == (class == LOGGED));
        of_class.map(|(family, _)| *family).collect()
    }

    /// Opens a family, which is created when there is none.
    pub(crate) fn open_cf(&mut self, name: &str, options: &CfOptions) -> Done {
        let exists = self.has_family(name);
        if exists {
            let db = self.db().clone();
            return match self.contain(|| db.open_cf(name, options.clone()))? {
                Ok(_) => Ok(()),
                Err(error) => self.failed(&error, "open_cf"),
            };
        }
        let family = self.model().create(name, options.logged);
        let db = self.db().clone();
        match self.contain(|| db.create_cf(name, options.clone()))? {
            Ok(handle) => {
                self.model().set_acknowledged();
                self.families.insert(family, handle);
                self.count(Event::CreateFamily);
                Ok(())
            }
            Err(error) => {
                self.failed(&error, "create_cf")?;
                // The disk is well now; the family is there or not.
                self.open_cf(name, options)
            }
        }
    }

    pub(crate) fn drop_cf(&mut self, name: &str) -> Done {
        let family = self.family(name);
        self.model().drop_family(name);
        let (db, handle) = (self.db().clone(), self.families[&family].clone());
        match self.contain(|| db.drop_cf(&handle))? {
            Ok(()) => {
                self.model().set_acknowledged();
                self.families.remove(&family);
                self.count(Event::DropFamily);
                Ok(())
            }
            Err(error) => self.failed(&error, "drop_cf"),
        }
    }

    // ---- writing

    /// A value no other write has, of `len` bytes at least.
    pub(crate) fn value(&mut self, len: usize) -> Vec<u8> {
        self.counter += 1;
        let mut value = format!("{:06}", self.counter).into_bytes();
        while value.len() < len {
            value.push(self.rng.byte() % 64 + 32);
        }
        value
    }

    pub(crate) fn put(&mut self, family: FamilyId, key: &str, len: usize) -> Edit {
        let value = self.value(len);
        Edit::Put(family, key.as_bytes().to_vec(), value)
    }

    fn batch(&self, edits: &[Edit]) -> WriteBatch {
        let mut batch = WriteBatch::new();
        for edit in edits {
            let cf = &self.families[&edit.family()];
            match edit {
                Edit::Put(_, key, value) => batch.put(cf, key, value),
                Edit::Delete(_, key) => batch.delete(cf, key),
                Edit::DeleteRange(_, start, end) => {
                    self.count(Event::RangeDelete);
                    batch.delete_range(cf, start, end);
                }
            }
        }
        batch
    }

    fn class_of(&self, edits: &[Edit]) -> usize {
        usize::from(!self.families[&edits[0].family()].is_logged())
    }

    /// Writes a batch and waits for it.
    pub(crate) fn write(&mut self, edits: &[Edit], sync: bool) -> Done {
        let (class, batch) = (self.class_of(edits), self.batch(edits));
        let sync = sync && class == LOGGED;
        self.count(if sync { Event::Synced } else { Event::Unsynced });
        let (len, seq) = self.model().submit(class, edits, edits.len() as u64, sync);
        let db = self.db().clone();
        match self.contain(|| db.write(batch, WriteOptions { sync }))? {
            Ok(got) if got.0 == seq => {
                let mut model = self.model();
                model.acknowledged(class, len, sync);
                model.published(db.last_seq().0);
                Ok(())
            }
            Ok(got) => Err(self.broken(format!("sequence number {got:?}, should be {seq}"))),
            Err(error) => self.failed(&error, "write"),
        }
    }

    /// Hands a batch in without waiting for it.
    pub(crate) fn submit(&mut self, edits: &[Edit], sync: bool) -> Done {
        let (class, batch) = (self.class_of(edits), self.batch(edits));
        let sync = sync && class == LOGGED;
        self.count(if sync { Event::Synced } else { Event::Unsynced });
        let count = edits.len() as u64;
        let (len, seq) = self.model().submit(class, edits, count, sync);
        let db = self.db().clone();
        let ticket = match self.contain(|| db.submit(batch, WriteOptions { sync }))? {
            Ok(ticket) => ticket,
            Err(Error::Busy(_)) => {
                self.model().retract(class, count);
                self.settle();
                return Ok(());
            }
            Err(error) => return self.failed(&error, "submit"),
        };
        self.count(Event::Ticket);
        let shared = Arc::clone(&self.shared);
        let life = shared.life.load(Ordering::Relaxed);
        let failing = self.failing;
        self.contain(|| {
            ticket.on_done(move |result| {
                if shared.life.load(Ordering::Relaxed) != life {
                    return;
                }
                match result {
                    Ok(got) if got.0 == seq => {
                        lock(&shared.model).acknowledged(class, len, sync);
                    }
                    Ok(got) => shared
                        .checker
                        .report(shared.broken(format!("a ticket's number {got:?}, not {seq}"))),
                    Err(_) if failing => {}
                    Err(error) => shared
                        .checker
                        .report(shared.broken(format!("a ticket failed: {error}"))),
                }
            });
        })
    }

    /// Makes everything written so far durable.
    pub(crate) fn sync(&mut self) -> Done {
        let db = self.db().clone();
        match self.contain(|| db.sync())? {
            Ok(()) => {
                self.model().all_durable(LOGGED);
                Ok(())
            }
            Err(error) => self.failed(&error, "sync"),
        }
    }

    // ---- tables

    pub(crate) fn flush(&mut self, family: FamilyId) -> Done {
        let (db, handle) = (self.db().clone(), self.families[&family].clone());
        match self.contain(|| db.flush(&handle))? {
            Ok(()) => {
                let class = usize::from(!handle.is_logged());
                self.model().flushed(class, db.flushed_seq(&handle).0);
                Ok(())
            }
            Err(error) => self.failed(&error, "flush"),
        }
    }

    pub(crate) fn flush_all(&mut self) -> Done {
        let db = self.db().clone();
        match self.contain(|| db.flush_all())? {
            Ok(()) => {
                let mut model = self.model();
                model.all_durable(LOGGED);
                model.all_durable(UNLOGGED);
                Ok(())
            }
            Err(error) => self.failed(&error, "flush_all"),
        }
    }

    pub(crate) fn compact(&mut self, family: FamilyId) -> Done {
        let (db, handle) = (self.db().clone(), self.families[&family].clone());
        match self.contain(|| db.compact_range(&handle, None, None))? {
            Ok(()) => Ok(()),
            Err(error) => self.failed(&error, "compact_range"),
        }
    }

    /// Counts the compactions of a life, at its end.
    fn note_compactions(&self) {
        let stats = self.db().stats();
        let compactions = stats.compactions + stats.trivial_moves + stats.tables_dropped;
        *lock(&self.shared.events)
            .entry(Event::Compaction)
            .or_default() += compactions;
    }

    /// Takes in a table for each of `puts`' families, after range deletes and before a batch.
    pub(crate) fn ingest(
        &mut self,
        deletes: &[Edit],
        puts: &BTreeMap<FamilyId, BTreeMap<Vec<u8>, Vec<u8>>>,
        edits: &[Edit],
    ) -> Done {
        let db = self.db().clone();
        let mut request = Ingest::new();
        for edit in deletes {
            if let Edit::DeleteRange(family, start, end) = edit {
                request.delete_range(&self.families[family], start, end);
            }
        }
        let mut all = deletes.to_vec();
        for (family, entries) in puts {
            self.counter += 1;
            let path = format!("/ext/{}.sst", self.counter);
            let handle = self.families[family].clone();
            let made = self.contain(|| {
                let mut writer = db.table_writer(&handle, &path)?;
                for (key, value) in entries {
                    writer.put(key, value)?;
                }
                writer.finish()
            })?;
            match made {
                Ok(table) => request.table(&handle, table),
                Err(error) => return self.failed(&error, "table_writer"),
            };
            let puts = entries
                .iter()
                .map(|(k, v)| Edit::Put(*family, k.clone(), v.clone()));
            all.extend(puts);
        }
        all.extend(edits.iter().cloned());
        request.batch(self.batch(edits));
        let class = self.class_of(&all);
        // The ingest flushes first; its own place in the order comes after what that waits for.
        let (len, seq) = {
            let mut model = self.model();
            model.submit_ingest(class, &all, (deletes.len() + edits.len() + 1) as u64)
        };
        match self.contain(|| db.ingest(request))? {
            Ok(got) if got.0 == seq => {
                self.model().acknowledged(class, len, true);
                self.count(Event::Ingest);
                Ok(())
            }
            Ok(got) => Err(self.broken(format!("ingest got {got:?}, should be {seq}"))),
            Err(error) => self.failed(&error, "ingest"),
        }
    }

    pub(crate) fn checkpoint(&mut self) -> Done {
        self.settle();
        self.counter += 1;
        let path = format!("/checkpoint-{}", self.counter);
        self.model().begin_checkpoint(&path);
        let db = self.db().clone();
        match self.contain(|| db.checkpoint(&path))? {
            Ok(()) => {
                self.model().end_checkpoint(true);
                self.count(Event::Checkpoint);
                Ok(())
            }
            Err(error) => {
                self.model().end_checkpoint(false);
                self.failed(&error, "checkpoint")
            }
        }
    }

    /// All that readers see now. A disk that fails to read is healed, and then it reads.
    fn read_back(&mut self) -> Done<Recovered> {
        let db = self.db().clone();
        match self.contain(|| read_all(&db, self.counter))? {
            Ok(recovered) => return Ok(recovered),
            Err(_) if self.failing => {
                self.count(Event::Failure);
                self.heal();
            }
            Err(why) => return Err(self.broken(why)),
        }
        self.contain(|| read_all(&db, self.counter))?
            .map_err(|why| self.broken(why))
    }

    /// Checks what readers see now.
    pub(crate) fn read(&mut self) -> Done {
        self.settle();
        let recovered = self.read_back()?;
        self.model()
            .expect()
            .find(Survival::ProcessDeath, &recovered)
            .map(|_| ())
            .map_err(|why| self.broken(format!("a reader: {why}")))
    }

    /// Checks for files nobody needs.
    pub(crate) fn no_leaks(&self) -> Done {
        self.settle();
        let options =
            (self.shared.checker.options)(Arc::clone(&self.fs) as _, Arc::clone(&self.executor));
        check_leaks(&self.fs, self.db(), options.recycled_segments).map_err(|why| self.broken(why))
    }

    // ---- failing disks

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
    fn check_error(&self, error: &Error) -> Done {
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
    fn failed(&mut self, error: &Error, what: &str) -> Done {
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

impl Shared {
    fn count(&self, event: Event) {
        *lock(&self.events).entry(event).or_default() += 1;
    }

    fn broken(&self, why: impl std::fmt::Display) -> Broken {
        let boundary = self.boundary.load(Ordering::Relaxed);
        Broken(format!("at boundary {boundary}: {why}"))
    }

    /// Watches every change of `fs` from now on.
    fn watch(self: &Arc<Self>, fs: &SimFs) {
        let shared = Arc::downgrade(self);
        fs.set_observer(Some(Arc::new(move |fs: &SimFs, _, op: &Op| {
            if let Some(shared) = shared.upgrade() {
                shared.note(op);
                let boundary = shared.boundary.fetch_add(1, Ordering::Relaxed);
                if shared.trace {
                    println!("boundary {boundary}: {op}");
                }
                shared.cut(fs, boundary, &op.to_string());
            }
        })));
    }

    /// Takes images between two operations.
    fn images_now(&self, fs: &SimFs, what: &str) {
        let boundary = self.boundary.fetch_add(1, Ordering::Relaxed);
        self.cut(fs, boundary, what);
    }

    fn note(&self, op: &Op) {
        let name = |path: &std::path::Path| {
            path.file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default()
        };
        let inside = op.path.starts_with(DIR);
        let is_log = name(&op.path).ends_with(".log");
        match op.kind {
            OpKind::Rename
                if op.to.as_deref().is_some_and(|to| name(to) == "CURRENT") && inside =>
            {
                self.count(Event::ManifestSwitch);
            }
            OpKind::Rename if is_log && inside => self.count(Event::Recycling),
            OpKind::Remove if is_log => self.count(Event::LogRemoval),
            // A header with records behind it; an open writes one alone.
            OpKind::Write if is_log && inside && op.offset == 0 && op.len > 64 => {
                self.count(Event::Rotation);
                // One record that no usual segment has room for.
                if op.len > 4096 {
                    self.count(Event::Oversize);
                }
            }
            _ => {}
        }
    }

    /// Checks what a crash now would leave.
    fn cut(&self, fs: &SimFs, boundary: u64, op: &str) {
        if self.checker.is_broken() {
            return;
        }
        let visible = lock(&self.db).as_ref().map(|db| db.last_seq().0);
        let expect = {
            let mut model = lock(&self.model);
            if let Some(seq) = visible {
                model.published(seq);
            }
            Expect {
                // While it is being opened the mark may still be the one a power cut left.
                exact_mark: visible.is_some(),
                ..model.expect()
            }
        };
        let failed_at = self.failed_at.load(Ordering::Relaxed);
        let wanted = match self.images {
            Images::All => true,
            Images::Only(wanted, _) => wanted == boundary,
            Images::AfterFailure(count) => {
                let since = boundary.checked_sub(failed_at);
                since.is_some_and(|since| since < count || boundary.is_multiple_of(16))
            }
        };
        if !wanted {
            return;
        }
        let whole = if boundary % 8 == 7 {
            Survival::KeepAll
        } else {
            Survival::ProcessDeath
        };
        let torn = (0..self.checker.effort.torn).map(|n| Survival::Random {
            seed: Rng::new(self.seed ^ (boundary << 8) ^ n).next_u64(),
        });
        let (mut lost_hash, mut whole_hash) = (1, 2);
        for how in [whole, Survival::LoseUnsynced].into_iter().chain(torn) {
            if let Images::Only(_, Some(wanted)) = self.images
                && wanted != how
            {
                continue;
            }
            let is_torn = matches!(how, Survival::Random { .. });
            if is_torn && lost_hash == whole_hash {
                // Nothing is unsynced.
                continue;
            }
            let image = fs.crash(how);
            // Whoever opens a store on a full disk makes room first.
            image.set_capacity(None);
            match how {
                Survival::LoseUnsynced => lost_hash = image.hash(),
                Survival::Random { .. } => {}
                _ => whole_hash = image.hash(),
            }
            let trail = format!(
                "workload {}, seed {:#x}, boundary {boundary} (before {op}), {how:?}",
                self.name, self.seed
            );
            if let Err(broken) = self.checker.image(&image, how, &expect, &trail, 0) {
                let replay = format!(
                    "{broken}\n  replay: BASALT_CRASH='{}/{:#x}/{boundary}/{}' cargo test --test crash_recovery -- --nocapture",
                    self.name,
                    self.seed,
                    spell(how)
                );
                self.checker.report(Broken(replay));
                return;
            }
        }
    }
}

/// How a survival is spelled in `BASALT_CRASH`.
pub(crate) fn spell(how: Survival) -> String {
    match how {
        Survival::LoseUnsynced => "lose".to_owned(),
        Survival::KeepAll => "keep".to_owned(),
        Survival::ProcessDeath => "death".to_owned(),
        Survival::Random { seed } => format!("{seed:#x}"),
    }
}
