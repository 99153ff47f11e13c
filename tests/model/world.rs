//! A database and its model side by side: opening, what is published, and comparing the whole.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::Receiver,
    },
};

use basalt_engine::{
    CfOptions, ColumnFamily, Db, LEVELS, ReadOptions, Result, SequenceNumber, Snapshot, Stats,
    Ticket,
    executor::{Executor, SimExecutor, ThreadPool},
    fs::{Fs, RealFs, SimFs},
};
use basalt_testkit::{Bounds, Change, FamilyId, History, Map, Model, ModelCursor, Rng};

use crate::{choose, choose::Keys, counts::Counts, reads::LiveIter};

/// Disk and threads of a case.
pub(crate) enum Place {
    /// The simulated disk and executor: one thread, the same run for a seed.
    Sim {
        fs: Arc<SimFs>,
        executor: Arc<SimExecutor>,
    },
    /// The real ones.
    Real {
        root: tempfile::TempDir,
        pool: Arc<ThreadPool>,
    },
}

impl Place {
    pub(crate) fn sim(seed: u64) -> Self {
        Self::Sim {
            fs: SimFs::new(),
            executor: Arc::new(SimExecutor::new(seed)),
        }
    }

    pub(crate) fn real() -> Self {
        Self::Real {
            root: tempfile::tempdir().expect("a temporary directory"),
            pool: Arc::new(ThreadPool::new(3)),
        }
    }

    pub(crate) fn fs(&self) -> Arc<dyn Fs> {
        match self {
            Self::Sim { fs, .. } => Arc::clone(fs) as Arc<dyn Fs>,
            Self::Real { .. } => Arc::new(RealFs),
        }
    }

    pub(crate) fn executor(&self) -> Arc<dyn Executor> {
        match self {
            Self::Sim { executor, .. } => Arc::clone(executor) as Arc<dyn Executor>,
            Self::Real { pool, .. } => Arc::clone(pool) as Arc<dyn Executor>,
        }
    }

    pub(crate) fn root(&self) -> PathBuf {
        match self {
            Self::Sim { .. } => PathBuf::from("/"),
            Self::Real { root, .. } => root.path().to_path_buf(),
        }
    }

    pub(crate) fn is_sim(&self) -> bool {
        matches!(self, Self::Sim { .. })
    }
}

/// A submitted batch that no read has seen yet.
pub(crate) struct Pending {
    pub(crate) seq: u64,
    pub(crate) changes: Vec<Change>,
}

/// Who will hear of a submitted batch.
pub(crate) enum Waiting {
    Ticket(Ticket),
    Callback(Receiver<Result<SequenceNumber>>),
}

/// A batch on its way.
pub(crate) struct Submitted {
    pub(crate) seq: u64,
    /// It survives a power cut once it is heard of.
    pub(crate) sync: bool,
    pub(crate) waiting: Waiting,
}

/// A database and what it should hold.
pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) counts: Counts,
    pub(crate) place: Place,
    pub(crate) keys: Keys,
    pub(crate) db: Db,
    /// The families alive, with the options they were given last.
    pub(crate) families: Vec<(ColumnFamily, CfOptions)>,
    /// Handles of dropped families.
    pub(crate) dropped: Vec<ColumnFamily>,
    /// What reads see.
    pub(crate) published: Model,
    /// What has a place in the order of writes and is not in `published`.
    pub(crate) pending: VecDeque<Pending>,
    pub(crate) tickets: Vec<Submitted>,
    /// Last sequence number given out.
    pub(crate) submitted: u64,
    /// The unlogged families since a flush of theirs.
    pub(crate) unlogged: History,
    /// The logged families since a point that is durable.
    pub(crate) logged: History,
    /// Logged writes up to here survive a power cut.
    pub(crate) synced: u64,
    /// An image of the disk is about to be taken in the midst of an operation.
    pub(crate) hunting: bool,
    pub(crate) snapshots: Vec<(Snapshot, Model)>,
    pub(crate) iters: Vec<LiveIter>,
    /// Flushes of this database, as its listener hears of them.
    pub(crate) heard: Arc<AtomicU64>,
    /// Numbers for names.
    pub(crate) made: u64,
}

impl World {
    pub(crate) fn new(mut rng: Rng, place: Place) -> Self {
        let keys = Keys::draw(&mut rng);
        let options = choose::options(&mut rng, place.fs(), place.executor());
        let db = Db::open(place.root().join("db"), options).expect("a new database");
        assert!(db.recovery().created);
        let default = db.default_cf();
        let mut world = Self {
            rng,
            counts: Counts::default(),
            place,
            keys,
            families: vec![(default.clone(), CfOptions::default())],
            dropped: Vec::new(),
            published: Model::new(),
            pending: VecDeque::new(),
            tickets: Vec::new(),
            submitted: db.last_seq().0,
            unlogged: History::default(),
            logged: History::default(),
            synced: 0,
            hunting: false,
            snapshots: Vec::new(),
            iters: Vec::new(),
            heard: Arc::default(),
            made: 0,
            db,
        };
        world.published.create(default.id(), default.name(), true);
        world.logged.create(default.id(), default.name(), true);
        world.listen();
        world.change_options(0);
        for name in ["a", "b", "u", "v"] {
            world.create_family(name, matches!(name, "a" | "b"));
        }
        world
    }

    /// The directory of the database.
    pub(crate) fn dir(&self) -> PathBuf {
        self.place.root().join("db")
    }

    /// A path that was not used before.
    pub(crate) fn new_path(&mut self, kind: &str) -> PathBuf {
        self.made += 1;
        self.place.root().join(format!("{kind}-{}", self.made))
    }

    /// Counts flushes from now on.
    pub(crate) fn listen(&mut self) {
        self.heard = Arc::default();
        let heard = Arc::clone(&self.heard);
        self.db.on_flush(Arc::new(move |_, _| {
            heard.fetch_add(1, Ordering::Relaxed);
        }));
    }

    pub(crate) fn flushes_heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    pub(crate) fn create_family(&mut self, name: &str, logged: bool) {
        let options = choose::cf_options(&mut self.rng, logged);
        let cf = if self.rng.one_in(2) {
            self.db.create_cf(name, options.clone())
        } else {
            self.db.open_cf(name, options.clone())
        };
        let cf = cf.expect("a new family");
        self.published.create(cf.id(), name, logged);
        self.history(logged).create(cf.id(), name, logged);
        self.families.push((cf, options));
        self.counts.families_created += 1;
    }

    /// Gives family `at` other options while it is open.
    pub(crate) fn change_options(&mut self, at: usize) {
        let (cf, options) = &mut self.families[at];
        let drawn = choose::cf_options(&mut self.rng, cf.is_logged());
        let merges = options.merge_operator.is_some();
        *options = CfOptions {
            // Once there, it stays.
            merge_operator: if merges {
                Some(choose::comma())
            } else {
                drawn.merge_operator.clone()
            },
            ..drawn
        };
        let again = self.db.open_cf(cf.name(), options.clone());
        assert_eq!(again.expect("the same class").id(), cf.id());
        self.counts.options_changed += 1;
    }

    /// The order of writes of a class.
    pub(crate) fn history(&mut self, logged: bool) -> &mut History {
        if logged {
            &mut self.logged
        } else {
            &mut self.unlogged
        }
    }

    /// A family alive.
    pub(crate) fn any_family(&mut self) -> ColumnFamily {
        self.rng.pick(&self.families).0.clone()
    }

    /// Some families of one class.
    pub(crate) fn one_class(&mut self) -> Vec<ColumnFamily> {
        let first = self.any_family();
        let fits = |cf: &&ColumnFamily| cf.is_logged() == first.is_logged();
        let all = self.families.iter().map(|(cf, _)| cf);
        all.filter(fits).cloned().collect()
    }

    /// Brings `published` to what reads see now. With threads, that is moving until all tickets are done.
    pub(crate) fn catch_up(&mut self) {
        if !self.place.is_sim() && !self.pending.is_empty() {
            self.settle_all();
        }
        self.catch_up_to(self.db.last_seq().0);
    }

    /// Publishes what has a place up to `visible`.
    pub(crate) fn catch_up_to(&mut self, visible: u64) {
        while self.pending.front().is_some_and(|next| next.seq <= visible) {
            let batch = self.pending.pop_front().expect("there is a first");
            for change in &batch.changes {
                self.published.apply(change);
            }
        }
        if let Some(next) = self.pending.front() {
            assert!(visible < next.seq, "half a batch is visible");
        } else {
            assert_eq!(visible, self.submitted, "all is published");
        }
    }

    /// Waits until every submitted batch is done, and hears of each.
    pub(crate) fn settle_all(&mut self) {
        self.db.sync().expect("a sync");
        self.hear_all();
        self.synced = self.submitted;
        self.catch_up_to(self.db.last_seq().0);
    }

    /// Hears of every submitted batch; all are done.
    pub(crate) fn hear_all(&mut self) {
        for Submitted { seq, waiting, .. } in std::mem::take(&mut self.tickets) {
            let heard = match waiting {
                Waiting::Ticket(ticket) => ticket.poll().expect("it is done"),
                // The thread that published it may be about to call.
                Waiting::Callback(receiver) => receiver.recv().expect("it is called once"),
            };
            assert_eq!(heard.expect("a good disk").0, seq);
            self.counts.tickets += 1;
        }
    }

    /// Entries of a family now.
    pub(crate) fn map(&self, id: FamilyId) -> Arc<Map> {
        Arc::clone(self.published.map(id).expect("alive"))
    }

    /// Compares every entry of every family.
    pub(crate) fn compare_all(&mut self) {
        self.catch_up();
        let backward = self.rng.one_in(2);
        compare(&self.db, &self.published, None, backward);
        self.counts.comparisons += 1;
    }

    /// Adds the counters of the database that is about to be closed.
    pub(crate) fn harvest(&mut self) {
        let stats = self.db.stats();
        self.counts.flushes += stats.flushes;
        self.counts.compactions += stats.compactions;
        self.counts.trivial_moves += stats.trivial_moves;
        self.counts.tables_dropped += stats.tables_dropped;
        self.counts.stalls += stats.stalls;
        for level in 0..LEVELS {
            self.counts.compactions_into[level] += stats.compactions_into[level];
        }
    }
}

/// Compares every entry of every family with `model`, at `snapshot` or now.
pub(crate) fn compare(db: &Db, model: &Model, snapshot: Option<&Snapshot>, backward: bool) {
    let families = db.list_cfs();
    let there: Vec<_> = families
        .iter()
        .map(|cf| (cf.id(), cf.name(), cf.is_logged()))
        .collect();
    let wanted: Vec<_> = model
        .families()
        .map(|(id, family)| (id, family.name.as_str(), family.logged))
        .collect();
    if snapshot.is_none() {
        assert_eq!(there, wanted, "the families");
    }
    let options = snapshot.map_or_else(ReadOptions::default, ReadOptions::at);
    for cf in &families {
        let Some(map) = model.map(cf.id()) else {
            continue;
        };
        let mut iter = db.iter(cf, &options).expect("an iterator");
        let mut cursor = ModelCursor::new(Arc::clone(map), Bounds::default());
        if backward {
            iter.seek_to_last().expect("a good disk");
            cursor.seek_to_last();
        } else {
            iter.seek_to_first().expect("a good disk");
            cursor.seek_to_first();
        }
        loop {
            crate::reads::check_at(&iter, &cursor, cf.name());
            if !iter.valid() {
                break;
            }
            if backward {
                iter.prev().expect("a good disk");
                cursor.prev();
            } else {
                iter.next().expect("a good disk");
                cursor.next();
            }
        }
    }
}

/// Gives the families of a database that was just opened their merge operators.
pub(crate) fn give_operators(db: &Db) {
    for cf in db.list_cfs() {
        let options = CfOptions::clone(&cf.options());
        if options.merge_operator.is_some() {
            let options = CfOptions {
                merge_operator: Some(choose::comma()),
                ..options
            };
            db.open_cf(cf.name(), options).expect("the same operator");
        }
    }
}

/// Removes the files of a directory, and it.
pub(crate) fn remove_dir(fs: &dyn Fs, dir: &Path) {
    for name in fs.list_dir(dir).expect("a directory") {
        fs.remove_file(&dir.join(name)).expect("a file");
    }
    fs.remove_dir(dir).expect("an empty directory");
}

/// Checks that the directory holds what the database needs and no file more.
pub(crate) fn check_files(fs: &dyn Fs, dir: &Path, stats: &Stats) {
    let mut names = fs.list_dir(dir).expect("a directory");
    names.sort();
    let tables: usize = stats
        .families
        .iter()
        .flat_map(|family| family.levels)
        .map(|level| level.tables)
        .sum();
    let ending = |end: &str| names.iter().filter(|name| name.ends_with(end)).count();
    assert_eq!(ending(".sst"), tables, "tables on disk: {names:?}");
    let values: usize = stats
        .families
        .iter()
        .map(|family| family.values.files)
        .sum();
    assert_eq!(ending(".val"), values, "value files on disk: {names:?}");
    let manifests = names.iter().filter(|name| name.starts_with("MANIFEST-"));
    assert_eq!(manifests.count(), 1, "manifests: {names:?}");
    for name in &names {
        let known = ["CURRENT", "LOCK", "MARK", "RESERVE"].contains(&name.as_str())
            || name.starts_with("MANIFEST-")
            || name.ends_with(".log")
            || name.ends_with(".sst")
            || name.ends_with(".val");
        assert!(known, "{name} is left behind: {names:?}");
    }
}
