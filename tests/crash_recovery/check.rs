//! The check of one crash image: it is opened, compared with what the model allows, written to, crashed
//! again, closed, and opened again.
//!
//! Nothing in here panics over a broken promise: it is an answer, so that the planted faults can count it.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use basalt_engine::{
    Db, Options, ReadOptions, WriteBatch, WriteOptions,
    executor::SimExecutor,
    fs::{
        Fs, SimFs,
        sim::{Op, Survival},
    },
};
use basalt_testkit::Rng;

use crate::{
    expect::{Expect, Recovered},
    model::{Content, Edit, Map, apply},
};

/// Directory of the database on every simulated disk; the engine makes both.
pub(crate) const DIR: &str = "/data/db";

/// A broken promise: what was found, and how to come there again.
#[derive(Clone, Debug)]
pub(crate) struct Broken(pub(crate) String);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How often the dear parts of a check are done: for one image in so many.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Random torn images at each boundary.
    pub(crate) torn: u64,
    /// Crash again at every boundary inside the reopening.
    pub(crate) nested: u64,
    /// The same inside such a reopening.
    pub(crate) nested_again: u64,
    /// Crash again right after the open, write and crash, close and open again.
    pub(crate) after: u64,
    /// Flip a bit of the log.
    pub(crate) flip: u64,
}

/// Numbers of what was done.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) states: AtomicU64,
    pub(crate) distinct: AtomicU64,
    pub(crate) opened: AtomicU64,
    pub(crate) nested: AtomicU64,
    pub(crate) nested_again: AtomicU64,
    pub(crate) flips: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
    pub(crate) after: AtomicU64,
}

impl Counts {
    pub(crate) fn add(counter: &AtomicU64, by: u64) {
        counter.fetch_add(by, Ordering::Relaxed);
    }

    pub(crate) fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}

/// How a database of this workload is opened.
pub(crate) type MakeOptions = Arc<dyn Fn(Arc<dyn Fs>, Arc<SimExecutor>) -> Options + Send + Sync>;

/// Checks the images of one workload.
pub(crate) struct Checker {
    pub(crate) options: MakeOptions,
    pub(crate) effort: Effort,
    pub(crate) counts: Counts,
    /// What each image opened before held, by the hash of the disk.
    seen: Mutex<HashMap<u64, Arc<Recovered>>>,
    broken: Mutex<Option<Broken>>,
    is_broken: AtomicBool,
}

/// An image inside a reopening, to be checked when that is over.
struct Inner {
    boundary: u64,
    how: Survival,
    op: String,
    image: Arc<SimFs>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Checker {
    pub(crate) fn new(options: MakeOptions, effort: Effort) -> Self {
        Self {
            options,
            effort,
            counts: Counts::default(),
            seen: Mutex::default(),
            broken: Mutex::default(),
            is_broken: AtomicBool::new(false),
        }
    }

    /// Keeps the first broken promise.
    pub(crate) fn report(&self, broken: Broken) {
        self.is_broken.store(true, Ordering::Release);
        lock(&self.broken).get_or_insert(broken);
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Acquire)
    }

    pub(crate) fn broken(&self) -> Option<Broken> {
        lock(&self.broken).clone()
    }

    /// The broken promise, for one of several runs that share this; the next may break one too.
    pub(crate) fn take_broken(&self) -> Option<Broken> {
        self.is_broken.store(false, Ordering::Release);
        lock(&self.broken).take()
    }

    /// Hashes of all images opened.
    pub(crate) fn hashes(&self) -> Vec<u64> {
        lock(&self.seen).keys().copied().collect()
    }

    /// Checks an image of the disk: what it holds is an allowed state, also where the same image was
    /// opened before under weaker demands. `trail` names the image.
    pub(crate) fn image(
        &self,
        image: &Arc<SimFs>,
        how: Survival,
        expect: &Expect,
        trail: &str,
        depth: u32,
    ) -> Result<(), Broken> {
        Counts::add(&self.counts.states, 1);
        let hash = image.hash();
        let known = lock(&self.seen).get(&hash).cloned();
        // What was found further along the trail says so itself.
        let broken = |why: String| {
            if why.starts_with(trail) {
                Broken(why)
            } else {
                Broken(format!("{trail}: {why}"))
            }
        };
        if let Some(recovered) = known {
            return expect
                .find(how, &recovered)
                .map(|_| ())
                .map_err(|why| broken(format!("(an image like one opened before) {why}")));
        }
        Counts::add(&self.counts.distinct, 1);
        let flipped = if depth == 0 {
            self.flip(image, how, expect, hash)
        } else {
            Ok(())
        };
        let recovered = catch_unwind(AssertUnwindSafe(|| {
            flipped?;
            self.open_and_check(image, how, expect, hash, trail, depth)
        }))
        .unwrap_or_else(|panic| Err(format!("panic: {}", panic_text(&*panic))))
        .map_err(broken)?;
        lock(&self.seen).insert(hash, Arc::new(recovered));
        Ok(())
    }

    fn open(
        &self,
        fs: &Arc<SimFs>,
        seed: u64,
        dir: &str,
    ) -> Result<(Db, Arc<SimExecutor>), String> {
        Counts::add(&self.counts.opened, 1);
        let executor = Arc::new(SimExecutor::new(seed));
        let disk: Arc<dyn Fs> = Arc::clone(fs) as _;
        let options = (self.options)(disk, Arc::clone(&executor));
        match Db::open(dir, options) {
            Ok(db) => Ok((db, executor)),
            Err(error) => {
                executor.abandon();
                Err(format!("open failed: {error}"))
            }
        }
    }

    fn open_and_check(
        &self,
        image: &Arc<SimFs>,
        how: Survival,
        expect: &Expect,
        hash: u64,
        trail: &str,
        depth: u32,
    ) -> Result<Recovered, String> {
        let mut dice = Rng::new(hash ^ (u64::from(depth) << 32));
        let nest = match depth {
            0 => dice.one_in(self.effort.nested),
            1 => dice.one_in(self.effort.nested_again),
            _ => false,
        };
        let after = depth == 0 && dice.one_in(self.effort.after);
        let inner = nest.then(|| self.watch(image, hash));
        let (db, executor) = self.open(image, hash, DIR)?;
        image.set_observer(None);
        let recycled =
            (self.options)(Arc::clone(image) as _, Arc::clone(&executor)).recycled_segments;
        let recovered = read_all(&db, hash)?;
        let found = expect.find(how, &recovered)?;
        let shown = expect.only(found);
        if after {
            // What a reader was shown is not taken back by a crash right after the open.
            for again in [Survival::LoseUnsynced, Survival::Random { seed: hash }] {
                let crashed = image.crash(again);
                self.image(
                    &crashed,
                    again,
                    &shown,
                    &format!("{trail} / after the open, {again:?}"),
                    2,
                )
                .map_err(|broken| broken.0)?;
            }
        }
        let report = db.verify().map_err(|e| format!("verify failed: {e}"))?;
        if let Some(damage) = report.damage.first() {
            return Err(format!("verify found damage: {damage}"));
        }
        if db.read_only_cause().is_some() {
            return Err(format!("read-only after open: {:?}", db.read_only_cause()));
        }
        let shown = if after {
            self.write_and_crash(image, &db, &shown, hash, trail)?
        } else {
            shown
        };
        executor.run_until_idle();
        check_leaks(image, &db, recycled)?;
        db.close().map_err(|e| format!("close failed: {e}"))?;
        executor.abandon();
        if after {
            self.reopen_closed(image, &shown, hash)?;
        }
        self.check_checkpoints(image, expect, hash)?;
        for at in inner
            .map(|list| std::mem::take(&mut *lock(&list)))
            .unwrap_or_default()
        {
            let counter = if depth == 0 {
                &self.counts.nested
            } else {
                &self.counts.nested_again
            };
            Counts::add(counter, 1);
            // Where everything in the image was durable, recovery may find only the same again.
            let again = if how == Survival::ProcessDeath {
                expect.up_to(found)
            } else {
                expect.only(found)
            };
            let trail = format!("{trail} / in the reopening before {}: {:?}", at.op, at.how);
            let _ = at.boundary;
            self.image(&at.image, at.how, &again, &trail, depth + 1)
                .map_err(|broken| broken.0)?;
        }
        Ok(recovered)
    }

    /// Collects images at every boundary from now on.
    fn watch(&self, fs: &Arc<SimFs>, seed: u64) -> Arc<Mutex<Vec<Inner>>> {
        let list: Arc<Mutex<Vec<Inner>>> = Arc::default();
        let into = Arc::clone(&list);
        // Before the first change the image is still the one that is being checked.
        let hashes = Mutex::new(HashSet::from([seed]));
        let torn = self.effort.torn.div_ceil(2);
        fs.set_observer(Some(Arc::new(move |fs: &SimFs, boundary, op: &Op| {
            let random = (0..torn).map(|n| Survival::Random {
                seed: seed ^ (boundary << 8) ^ n,
            });
            let hows = [Survival::LoseUnsynced, Survival::ProcessDeath];
            for how in hows.into_iter().chain(random) {
                let image = fs.crash(how);
                if lock(&hashes).insert(image.hash()) {
                    lock(&into).push(Inner {
                        boundary,
                        how,
                        op: op.to_string(),
                        image,
                    });
                }
            }
        })));
        list
    }

    /// Writing goes on after the recovery, and a synced write stands for all before it.
    fn write_and_crash(
        &self,
        image: &Arc<SimFs>,
        db: &Db,
        shown: &Expect,
        hash: u64,
        trail: &str,
    ) -> Result<Expect, String> {
        Counts::add(&self.counts.after, 1);
        let mut batch = WriteBatch::new();
        let mut edits = Vec::new();
        for cf in db.list_cfs().iter().filter(|cf| cf.is_logged()) {
            let (family, _) = shown.sets[0][cf.name()];
            let (key, value) = (b"~after".to_vec(), hash.to_le_bytes().to_vec());
            batch.put(cf, &key, &value);
            edits.push(Edit::Put(family, key, value));
        }
        db.write(batch, WriteOptions::SYNC)
            .map_err(|e| format!("a write after the open failed: {e}"))?;
        let logged = Arc::new(apply(&shown.logged[0], &edits));
        let expect = Expect::exactly(&shown.sets[0], &logged, &shown.unlogged[0]);
        for again in [Survival::LoseUnsynced, Survival::Random { seed: hash ^ 1 }] {
            let crashed = image.crash(again);
            let trail = format!("{trail} / after a synced write, {again:?}");
            self.image(&crashed, again, &expect, &trail, 2)
                .map_err(|broken| broken.0)?;
        }
        if hash.is_multiple_of(2) {
            db.flush_all()
                .map_err(|e| format!("a flush after the open failed: {e}"))?;
        }
        Ok(expect)
    }

    /// A database that was closed opens to the same, with nothing to be copied.
    fn reopen_closed(&self, image: &Arc<SimFs>, shown: &Expect, hash: u64) -> Result<(), String> {
        let (db, executor) = self.open(image, hash ^ 2, DIR)?;
        let recovered = read_all(&db, hash)?;
        shown
            .find(Survival::LoseUnsynced, &recovered)
            .map_err(|why| format!("after a clean close: {why}"))?;
        let report = db.recovery().clone();
        if report.log_bytes_copied > 0 || report.log_bytes_dropped > 0 {
            return Err(format!("after a clean close the open had work: {report:?}"));
        }
        db.close()
            .map_err(|e| format!("second close failed: {e}"))?;
        executor.abandon();
        Ok(())
    }

    /// Checkpoints open to what they were made of; one that is not done has no `CURRENT`, or is whole.
    fn check_checkpoints(
        &self,
        image: &Arc<SimFs>,
        expect: &Expect,
        hash: u64,
    ) -> Result<(), String> {
        for (at, checkpoint) in expect.checkpoints.iter().enumerate() {
            let path = Path::new(&checkpoint.path);
            let begun = image.file_len(&path.join("CURRENT")).is_ok();
            if checkpoint.done && !begun {
                return Err(format!("checkpoint {} is lost", checkpoint.path));
            }
            let dear = checkpoint.done && (hash >> 8) % 8 != at as u64 % 8;
            if !begun || dear {
                continue;
            }
            Counts::add(&self.counts.checkpoints, 1);
            let in_it = |why: String| format!("checkpoint {}: {why}", checkpoint.path);
            let (db, executor) = self.open(image, hash, &checkpoint.path).map_err(in_it)?;
            let recovered = read_all(&db, hash).map_err(in_it)?;
            checkpoint
                .expect
                .find(Survival::LoseUnsynced, &recovered)
                .map_err(in_it)?;
            db.close()
                .map_err(|e| in_it(format!("close failed: {e}")))?;
            executor.abandon();
        }
        Ok(())
    }

    /// One bit of the log flipped: an error, or an allowed state; never the loss of what was durable. Only where
    /// the process died, because then the mark beside the log is exact.
    fn flip(
        &self,
        image: &Arc<SimFs>,
        how: Survival,
        expect: &Expect,
        hash: u64,
    ) -> Result<(), String> {
        let mut dice = Rng::new(hash ^ 0xF11B);
        if how != Survival::ProcessDeath || !expect.exact_mark || !dice.one_in(self.effort.flip) {
            return Ok(());
        }
        let damaged = image.crash(Survival::ProcessDeath);
        let logs: Vec<_> = damaged
            .files()
            .into_iter()
            .filter(|path| path.starts_with(DIR) && path.extension().is_some_and(|e| e == "log"))
            .collect();
        if logs.is_empty() {
            return Ok(());
        }
        let path = dice.pick(&logs);
        let bytes = damaged.read_raw(path).map_err(|e| e.to_string())?;
        let used = bytes.iter().rposition(|&byte| byte != 0).unwrap_or(0);
        let offset = dice.below(used as u64 + 1);
        if bytes.is_empty() {
            return Ok(());
        }
        let mask = 1 << dice.below(8);
        damaged
            .corrupt(path, offset, mask)
            .map_err(|e| e.to_string())?;
        Counts::add(&self.counts.flips, 1);
        let what = format!("with {} flipped by {mask:#x} at {offset}", path.display());
        match self.open(&damaged, hash, DIR) {
            Err(why) if why.contains("corruption") => Ok(()),
            Err(why) => Err(format!("{what}: {why}")),
            Ok((db, executor)) => {
                let recovered = read_all(&db, hash)?;
                // Only what was synced is sure to be told from tearing.
                let found = expect
                    .find(Survival::LoseUnsynced, &recovered)
                    .map(|_| ())
                    .map_err(|why| format!("{what}: {why}"));
                drop(db);
                executor.abandon();
                found
            }
        }
    }
}

/// Everything a database holds, read forward or backward, with a few point reads beside.
pub(crate) fn read_all(db: &Db, dice: u64) -> Result<Recovered, String> {
    let mut recovered = Recovered::new();
    for cf in db.list_cfs() {
        let fail = |e| format!("reading {:?} failed: {e}", cf.name());
        let mut map = Map::new();
        let range = db.range(&cf, &ReadOptions::default()).map_err(fail)?;
        let mut keep = |item: basalt_engine::Result<(Vec<u8>, basalt_engine::PinnedSlice)>| {
            let (key, value) = item.map_err(fail)?;
            map.insert(key, value.to_vec());
            Ok::<(), String>(())
        };
        if dice.is_multiple_of(3) {
            for item in range.rev() {
                keep(item)?;
            }
        } else {
            for item in range {
                keep(item)?;
            }
        }
        for (key, value) in map.iter().take(2).chain(map.iter().next_back()) {
            let got = db.get(&cf, key).map_err(fail)?;
            if got.as_deref() != Some(&value[..]) {
                return Err(format!(
                    "{:?}: get and iterator differ on {}",
                    cf.name(),
                    String::from_utf8_lossy(key)
                ));
            }
        }
        recovered.insert(cf.name().to_owned(), (cf.is_logged(), Content::new(map)));
    }
    Ok(recovered)
}

/// After all background work is done, the directory holds what the database needs and nothing else.
pub(crate) fn check_leaks(fs: &SimFs, db: &Db, recycled: usize) -> Result<(), String> {
    // The next segment is prepared in advance.
    let spare = 1 + recycled;
    let stats = db.stats();
    let tables: usize = stats
        .families
        .iter()
        .flat_map(|family| &family.levels)
        .map(|level| level.tables)
        .sum();
    let mut names = fs.list_dir(Path::new(DIR)).map_err(|e| e.to_string())?;
    names.sort();
    let count = |test: &dyn Fn(&str) -> bool| names.iter().filter(|name| test(name)).count();
    let found_tables = count(&|name| name.ends_with(".sst"));
    let manifests = count(&|name| name.starts_with("MANIFEST-"));
    let temporary = count(&|name| name.ends_with(".tmp"));
    let logs = count(&|name| name.ends_with(".log"));
    if found_tables != tables
        || manifests != 1
        || temporary != 0
        || logs > stats.log_segments + spare
    {
        return Err(format!(
            "leaked files: {tables} tables and {} log segments (and {spare} spare) are needed, there are {names:?}",
            stats.log_segments
        ));
    }
    Ok(())
}

/// The text of a panic.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
        .unwrap_or_else(|| "no text".to_owned())
}
