//! The world of one workload: a simulated disk, a database on it, and the model. Here: its lives and its families;
//! what is done in them is in `operations`, what a failing disk takes in `repair`.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use basalt_engine::{
    CfOptions, ColumnFamily, Db, SequenceNumber,
    executor::SimExecutor,
    fs::{
        Fs, SimFs,
        sim::{FaultRule, Survival},
    },
};
use basalt_testkit::Rng;

use crate::{
    check::{Broken, Checker, DIR, panic_text},
    model::{FamilyId, LOGGED, Model, UNLOGGED},
    shared::{Event, Images, Shared, lock},
};

/// What came of an operation, where a broken promise ends the workload.
pub(crate) type Done<T = ()> = Result<T, Broken>;

/// One run of one workload.
pub(crate) struct World {
    pub(crate) shared: Arc<Shared>,
    pub(crate) fs: Arc<SimFs>,
    pub(crate) executor: Arc<SimExecutor>,
    pub(crate) db: Option<Db>,
    pub(crate) families: BTreeMap<FamilyId, ColumnFamily>,
    pub(crate) rng: Rng,
    /// A disk failure was planted: operations may fail, and then [`World::repair`] takes over.
    pub(crate) failing: bool,
    pub(crate) rule: Option<FaultRule>,
    pub(crate) counter: u64,
    pub(crate) lives: u64,
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

    pub(crate) fn model(&self) -> MutexGuard<'_, Model> {
        lock(&self.shared.model)
    }

    pub(crate) fn count(&self, event: Event) {
        self.shared.count(event);
    }

    pub(crate) fn broken(&self, why: impl std::fmt::Display) -> Broken {
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
    pub(crate) fn take_over(&mut self, how: Survival) -> Done {
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

    pub(crate) fn forget(&mut self) {
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
    pub(crate) fn contain<T>(&self, work: impl FnOnce() -> T) -> Done<T> {
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
}
