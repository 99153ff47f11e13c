//! One case: a database on a simulated disk, the history of its states, and what is done with it.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard},
};

use basalt_engine::{
    Db, Error, Faults, ReadOptions, Snapshot, Ticket, WriteOptions,
    executor::SimExecutor,
    fs::{
        Fs, SimFs,
        sim::{Failure, Op, OpKind, Survival},
    },
};
use basalt_testkit::Rng;

use crate::{
    image::{DIR, Image, Settings, Store},
    model::{PREFIX_BYTES, State, batch, encode, key, prefix},
};

/// How much is done in a case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Batches.
    pub(crate) batches: u64,
    /// One in so many boundaries gives images; 0: none.
    pub(crate) one_in: u64,
    /// Most batches are only submitted and wait for a sync, so that background work meets them on their way.
    pub(crate) holds: bool,
}

impl Effort {
    pub(crate) const MODEL: Self = Self {
        batches: 700,
        one_in: 0,
        holds: false,
    };
    pub(crate) const MEETINGS: Self = Self {
        holds: true,
        ..Self::MODEL
    };
    pub(crate) const CRASH: Self = Self {
        batches: 120,
        one_in: 2,
        holds: false,
    };
}

/// What happened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) batches: u64,
    pub(crate) refused: u64,
    pub(crate) reopened: u64,
    pub(crate) snapshots: u64,
    /// How often the oldest log segment has gone.
    pub(crate) released: u64,
    /// Bytes of log written forward in the last life of each case.
    pub(crate) rewritten: u64,
    /// Failed syncs of the log.
    pub(crate) fenced: u64,
    /// Images opened, those of crashes inside a reopening too.
    pub(crate) images: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Self) {
        self.batches += other.batches;
        self.refused += other.refused;
        self.reopened += other.reopened;
        self.snapshots += other.snapshots;
        self.released += other.released;
        self.rewritten += other.rewritten;
        self.fenced += other.fenced;
        self.images += other.images;
    }
}

/// What the observer of the disk shares with the case.
struct Watch {
    images: Vec<Image>,
    seen: HashSet<u64>,
    rng: Rng,
    one_in: u64,
    /// The last state acknowledged as durable, and the last acknowledged.
    durable: usize,
    acknowledged: usize,
}

pub(crate) struct World {
    rng: Rng,
    settings: Settings,
    effort: Effort,
    fs: Arc<SimFs>,
    executor: Arc<SimExecutor>,
    store: Option<Store>,
    /// The state after each batch; the first is empty.
    history: Vec<State>,
    snapshots: Vec<(Snapshot, State)>,
    /// Batches on their way, with the state after each and whether it asked for a sync.
    tickets: Vec<(Ticket, usize, bool)>,
    oldest: u64,
    watch: Arc<Mutex<Watch>>,
    counts: Counts,
    lives: u64,
}

type Done<T = ()> = Result<T, String>;

impl World {
    pub(crate) fn new(seed: u64, faults: Faults, effort: Effort) -> Self {
        let mut rng = Rng::new(seed);
        let watch = Watch {
            images: Vec::new(),
            seen: HashSet::new(),
            rng: Rng::new(rng.next_u64()),
            one_in: effort.one_in,
            durable: 0,
            acknowledged: 0,
        };
        Self {
            settings: Settings::draw(&mut rng, faults),
            rng,
            effort,
            fs: SimFs::new(),
            executor: Arc::new(SimExecutor::new(0)),
            store: None,
            history: vec![State::default()],
            snapshots: Vec::new(),
            tickets: Vec::new(),
            oldest: 0,
            watch: Arc::new(Mutex::new(watch)),
            counts: Counts::default(),
            lives: 0,
        }
    }

    /// Runs the case; `Err` is a broken promise.
    pub(crate) fn run(mut self) -> Done<Counts> {
        self.open()?;
        // The families are there from here on; a crash before is the other crash test's.
        self.fs.settle();
        let watch = Arc::clone(&self.watch);
        if self.effort.one_in > 0 {
            self.fs.set_observer(Some(Arc::new(move |fs, index, _| {
                lock(&watch).take_images(fs, index);
            })));
        }
        for _ in 0..self.effort.batches {
            self.step()?;
            self.poll();
            self.count_released();
            self.check_images()?;
        }
        self.fs.set_observer(None);
        self.compare()?;
        let stats = self.store().db.stats();
        self.counts.rewritten += stats.log_rewritten_bytes;
        Ok(self.counts)
    }

    fn store(&self) -> &Store {
        self.store.as_ref().expect("open between two steps")
    }

    fn state(&self) -> &State {
        self.history.last().expect("it begins with the empty one")
    }

    fn open(&mut self) -> Done {
        self.lives += 1;
        self.executor = Arc::new(SimExecutor::new(self.lives));
        let executor = Arc::clone(&self.executor);
        let options = self.settings.options_with(&self.fs, executor);
        self.store = Some(Store::open(options).map_err(|e| format!("open: {e}"))?);
        Ok(())
    }

    fn step(&mut self) -> Done {
        match self.rng.below(40) {
            0 => self.reopen()?,
            1 => self.flush()?,
            2..5 | 12..18 => self.idle(),
            5 => self.compare()?,
            6 | 7 => self.look_at_snapshots()?,
            8 if self.snapshots.len() < 3 => {
                self.settle()?;
                let snapshot = self.store().db.snapshot();
                self.snapshots.push((snapshot, self.state().clone()));
            }
            8 => self.snapshots.clear(),
            9 if self.rng.below(6) == 0 => self.checkpoint()?,
            10 if self.rng.below(4) == 0 => self.fail_a_sync()?,
            _ => self.write()?,
        }
        Ok(())
    }

    /// One batch, which the engine takes or refuses as the model does.
    fn write(&mut self) -> Done {
        let steps = batch(&mut self.rng, self.history.last().expect("some"));
        let mut next = self.state().clone();
        let goes = steps.iter().all(|step| next.apply(step));
        let holds = self.effort.holds && self.rng.below(5) > 0;
        let options = WriteOptions {
            sync: holds || self.rng.below(3) == 0,
        };
        let store = self.store.as_ref().expect("open");
        let encoded = encode(&steps, &store.appends, &store.plain);
        if goes {
            // It may be on the disk before it is acknowledged.
            self.history.push(next);
        }
        let last = self.history.len() - 1;
        let store = self.store.as_ref().expect("open");
        // Some are only submitted: their turn comes with a later write, or with a job.
        let written = if holds || self.rng.below(3) == 0 {
            store.db.submit_waiting(encoded, options).map(Some)
        } else {
            store.db.write(encoded, options).map(|_| None)
        };
        match written {
            Ok(ticket) if goes => {
                self.counts.batches += 1;
                match ticket {
                    Some(ticket) => self.tickets.push((ticket, last, options.sync)),
                    None => self.acknowledge(last, options.sync),
                }
                self.poll();
                Ok(())
            }
            Err(Error::InvalidArgument(_)) if !goes => {
                self.counts.refused += 1;
                Ok(())
            }
            other => Err(format!("{steps:?} on {:?}: {other:?}", self.state())),
        }
    }

    fn acknowledge(&self, state: usize, is_durable: bool) {
        let mut watch = lock(&self.watch);
        watch.acknowledged = watch.acknowledged.max(state);
        if is_durable {
            watch.durable = watch.durable.max(state);
        }
    }

    /// Takes note of the tickets that are done.
    fn poll(&mut self) {
        for (ticket, state, sync) in std::mem::take(&mut self.tickets) {
            match ticket.poll() {
                Some(Ok(_)) => self.acknowledge(state, sync),
                Some(Err(error)) => panic!("a ticket failed: {error}"),
                None => self.tickets.push((ticket, state, sync)),
            }
        }
    }

    /// Waits for all tickets: what is read next is the last state.
    fn settle(&mut self) -> Done {
        for (ticket, state, sync) in std::mem::take(&mut self.tickets) {
            ticket.wait().map_err(|e| format!("a ticket: {e}"))?;
            self.acknowledge(state, sync);
        }
        Ok(())
    }

    /// Counts how often the oldest log segment has gone.
    fn count_released(&mut self) {
        let names = self.fs.list_dir(DIR.as_ref()).unwrap_or_default();
        let logs = names.iter().filter_map(|name| name.strip_suffix(".log"));
        let oldest = logs.filter_map(|number| number.parse::<u64>().ok()).min();
        let oldest = oldest.unwrap_or(0);
        self.counts.released += u64::from(oldest > self.oldest);
        self.oldest = oldest;
    }

    /// Lets background work be done.
    fn idle(&mut self) {
        self.executor.run_until_idle();
    }

    fn flush(&mut self) -> Done {
        self.store()
            .db
            .flush_all()
            .map_err(|e| format!("flush: {e}"))
    }

    fn reopen(&mut self) -> Done {
        self.counts.reopened += 1;
        self.snapshots.clear();
        let rewritten = self.store().db.stats().log_rewritten_bytes;
        self.counts.rewritten += rewritten;
        if self.rng.below(2) == 0 {
            self.settle()?;
        }
        self.tickets.clear();
        let store = self.store.take().expect("open");
        let Store { db, appends, plain } = store;
        drop((appends, plain));
        if self.rng.below(2) == 0 {
            // Also what was only submitted is written.
            db.close().map_err(|e| format!("close: {e}"))?;
            let last = self.history.len() - 1;
            lock(&self.watch).durable = last;
            self.open()?;
            return self.reopened();
        }
        self.crash(db)
    }

    /// Goes on with what a crash leaves.
    fn crash(&mut self, db: Db) -> Done {
        if self.rng.below(2) == 0 {
            // The process dies: everything acknowledged is there.
            let fs = self.fs.crash(Survival::ProcessDeath);
            self.fs.set_observer(None);
            drop(db);
            self.follow(fs)?;
            let acknowledged = lock(&self.watch).acknowledged;
            self.find_state(acknowledged)?;
        } else {
            // Power is cut: a prefix is left.
            let seed = self.rng.next_u64();
            let how = *self
                .rng
                .pick(&[Survival::LoseUnsynced, Survival::Random { seed }]);
            let fs = self.fs.crash(how);
            self.fs.set_observer(None);
            drop(db);
            self.follow(fs)?;
            let durable = lock(&self.watch).durable;
            self.find_state(durable)
                .map_err(|what| format!("after {how:?} {what}"))?;
        }
        self.reopened()
    }

    fn reopened(&mut self) -> Done {
        let last = self.history.len() - 1;
        let mut watch = lock(&self.watch);
        // What an open has shown is not taken back.
        watch.acknowledged = last;
        drop(watch);
        self.compare()
    }

    /// A sync of the log fails under a batch: nothing is taken from there on, what was acknowledged is still read, and
    /// the next open finds a promised state.
    fn fail_a_sync(&mut self) -> Done {
        self.settle()?;
        let steps = batch(&mut self.rng, self.history.last().expect("some"));
        let mut next = self.state().clone();
        if !steps.iter().all(|step| next.apply(step)) {
            return Ok(());
        }
        self.counts.fenced += 1;
        self.snapshots.clear();
        // It may be found by the next open, or not.
        self.history.push(next);
        let is_log = |op: &Op| op.path.extension().is_some_and(|ext| ext == "log");
        let rule = move |op: &Op| (op.kind == OpKind::Sync && is_log(op)).then(Failure::device);
        self.fs.set_fault_rule(Some(Arc::new(rule)));
        let store = self.store.as_ref().expect("open");
        let encoded = encode(&steps, &store.appends, &store.plain);
        let written = store.db.write(encoded, WriteOptions::SYNC);
        self.fs.set_fault_rule(None);
        if written.is_ok() {
            return Err("a batch was acknowledged whose sync had failed".into());
        }
        let before = self.history.len() - 2;
        if self.store().db.resume().is_ok() {
            // Only with a planted fault: then it goes on, and what is lost shows at the next power cut.
            return self.find_state(before);
        }
        let shown = self.store().state()?;
        if shown != self.history[before] {
            return Err(format!("after a failed sync it holds {shown:?}"));
        }
        let store = self.store.take().expect("open");
        let Store { db, appends, plain } = store;
        drop((appends, plain));
        self.crash(db)
    }

    /// Which state an open has found, not before `low`: the history goes on from there.
    fn find_state(&mut self, low: usize) -> Done {
        let state = self.store().state()?;
        let at = self.history[low..].iter().rposition(|old| *old == state);
        let at = at.ok_or_else(|| format!("it holds no promised state: {state:?}"))?;
        self.history.truncate(low + at + 1);
        Ok(())
    }

    /// Goes on with another disk.
    fn follow(&mut self, fs: Arc<SimFs>) -> Done {
        self.check_images()?;
        self.fs = fs;
        self.open()?;
        let watch = Arc::clone(&self.watch);
        if self.effort.one_in > 0 {
            self.fs.set_observer(Some(Arc::new(move |fs, index, _| {
                lock(&watch).take_images(fs, index);
            })));
        }
        Ok(())
    }

    /// Compares everything with the model.
    fn compare(&mut self) -> Done {
        self.settle()?;
        let store = self.store.as_ref().expect("open");
        let state = self.history.last().expect("some");
        if store.state()? != *state {
            return Err(format!("it holds {:?}, not {state:?}", store.state()?));
        }
        let text = |e: Error| e.to_string();
        for family in 0..PREFIX_BYTES.len() {
            let cf = &store.appends[family];
            let rows = state.rows(family);
            compare_cursor(&mut self.rng, store, family, &rows, &ReadOptions::default())?;
            let prefix = prefix(&mut self.rng, family);
            let log = state.logs.get(&(family, prefix.clone()));
            let range = store.db.append_range(cf, &prefix).map_err(text)?;
            let expected = log.map(|log| {
                let first = *log.keys().next().expect("not empty");
                first..first + log.len() as u64
            });
            if range != expected {
                return Err(format!(
                    "range of {prefix:?} is {range:?}, not {expected:?}"
                ));
            }
            let from = expected.map_or(0, |range| range.start);
            let keys: Vec<_> = (0..6)
                .map(|_| key(&prefix, (from + self.rng.below(20)).saturating_sub(2)))
                .chain([vec![], vec![0; 3], vec![0xff; 20]])
                .collect();
            let options = ReadOptions::default();
            let values = store.db.multi_get(cf, &keys, &options).map_err(text)?;
            for (key, value) in keys.iter().zip(values) {
                let expected = rows
                    .iter()
                    .find(|(k, _)| k == key)
                    .map(|(_, v)| v.as_slice());
                let got = store.db.get(cf, key).map_err(text)?;
                if value.as_deref() != expected || got.as_deref() != expected {
                    return Err(format!(
                        "get of {key:?}: {value:?}, {got:?}, not {expected:?}"
                    ));
                }
            }
        }
        Ok(())
    }

    fn look_at_snapshots(&mut self) -> Done {
        for (snapshot, state) in &self.snapshots {
            self.counts.snapshots += 1;
            let store = self.store.as_ref().expect("open");
            let options = ReadOptions::at(snapshot);
            for family in 0..PREFIX_BYTES.len() {
                let rows = state.rows(family);
                compare_cursor(&mut self.rng, store, family, &rows, &options)
                    .map_err(|what| format!("in a snapshot: {what}"))?;
                if let Some((key, value)) = rows.first() {
                    let got = store.db.get_with(&store.appends[family], key, &options);
                    if got.map_err(|e| e.to_string())?.as_deref() != Some(value) {
                        return Err(format!("get of {key:?} in a snapshot"));
                    }
                }
            }
        }
        Ok(())
    }

    fn checkpoint(&mut self) -> Done {
        self.settle()?;
        let path = format!("copy-{}", self.counts.batches);
        if self.fs.list_dir(path.as_ref()).is_ok() {
            return Ok(());
        }
        self.store()
            .db
            .checkpoint(&path)
            .map_err(|e| format!("checkpoint: {e}"))?;
        let copy = self.fs.crash(Survival::LoseUnsynced);
        for name in copy.list_dir(DIR.as_ref()).map_err(|e| e.to_string())? {
            let _ = copy.remove_file(&std::path::Path::new(DIR).join(name));
        }
        for name in copy.list_dir(path.as_ref()).map_err(|e| e.to_string())? {
            let (from, to) = (
                std::path::Path::new(&path).join(&name),
                std::path::Path::new(DIR).join(&name),
            );
            copy.rename(&from, &to).map_err(|e| e.to_string())?;
        }
        let opened =
            Store::open(self.settings.options(&copy, 5)).map_err(|e| format!("checkpoint: {e}"))?;
        // Everything is durable in a checkpoint, and at the point everything had been published.
        if opened.state()? != *self.state() {
            return Err("the checkpoint is not the state that there was".into());
        }
        let damage = opened.db.verify().map_err(|e| e.to_string())?.damage;
        if !damage.is_empty() {
            return Err(format!("the checkpoint is damaged: {damage:?}"));
        }
        let last = self.history.len() - 1;
        lock(&self.watch).durable = last;
        drop(opened);
        for name in self.fs.list_dir(path.as_ref()).map_err(|e| e.to_string())? {
            let _ = self.fs.remove_file(&std::path::Path::new(&path).join(name));
        }
        Ok(())
    }

    fn check_images(&mut self) -> Done {
        let images = std::mem::take(&mut lock(&self.watch).images);
        for image in images {
            self.counts.images += image.check(&self.settings, &self.history)?;
        }
        Ok(())
    }
}

/// Moves a cursor at random beside the rows it must show.
fn compare_cursor(
    rng: &mut Rng,
    store: &Store,
    family: usize,
    rows: &[(Vec<u8>, Vec<u8>)],
    options: &ReadOptions,
) -> Done {
    let bound = |rng: &mut Rng| {
        let prefix = prefix(rng, family);
        let mut key = match rows.len() {
            0 => key(&prefix, rng.below(50)),
            len => rows[rng.index(len)].0.clone(),
        };
        match rng.below(6) {
            0 => key.truncate(rng.index(key.len() + 1)),
            1 => key.push(rng.byte()),
            2 => key = prefix,
            _ => {}
        }
        key
    };
    let mut options = options.clone();
    options.lower = (rng.below(2) == 0).then(|| bound(rng));
    options.upper = (rng.below(2) == 0).then(|| bound(rng));
    let rows: Vec<_> = rows
        .iter()
        .filter(|(key, _)| options.lower.as_ref().is_none_or(|lower| lower <= key))
        .filter(|(key, _)| options.upper.as_ref().is_none_or(|upper| key < upper))
        .collect();
    let text = |e: Error| e.to_string();
    let mut cursor = store
        .db
        .iter(&store.appends[family], &options)
        .map_err(text)?;
    let mut at: Option<usize> = None;
    for _ in 0..20 {
        match rng.below(7) {
            0 => {
                cursor.seek_to_first().map_err(text)?;
                at = (!rows.is_empty()).then_some(0);
            }
            1 => {
                cursor.seek_to_last().map_err(text)?;
                at = rows.len().checked_sub(1);
            }
            2 => {
                let key = bound(rng);
                cursor.seek(&key).map_err(text)?;
                at = Some(rows.partition_point(|(k, _)| *k < key)).filter(|&at| at < rows.len());
            }
            3 => {
                let key = bound(rng);
                cursor.seek_for_prev(&key).map_err(text)?;
                at = rows.partition_point(|(k, _)| *k <= key).checked_sub(1);
            }
            4 | 5 => {
                cursor.next().map_err(text)?;
                at = at.map(|at| at + 1).filter(|&at| at < rows.len());
            }
            _ => {
                cursor.prev().map_err(text)?;
                at = at.and_then(|at| at.checked_sub(1));
            }
        }
        let shown = cursor.valid().then(|| (cursor.key(), cursor.value()));
        let expected = at.map(|at| (rows[at].0.as_slice(), rows[at].1.as_slice()));
        if shown != expected {
            return Err(format!(
                "a cursor within {options:?} shows {shown:?}, not {expected:?}"
            ));
        }
    }
    Ok(())
}

impl Watch {
    fn take_images(&mut self, fs: &SimFs, boundary: u64) {
        if self.rng.below(self.one_in) > 0 {
            return;
        }
        let seeds = [self.rng.next_u64(), self.rng.next_u64()];
        let ways = [
            (Survival::LoseUnsynced, self.durable),
            (Survival::KeepAll, self.durable),
            (Survival::ProcessDeath, self.acknowledged),
            (Survival::Random { seed: seeds[0] }, self.durable),
            (Survival::Random { seed: seeds[1] }, self.durable),
        ];
        for (how, low) in ways {
            let image = fs.crash(how);
            // The same bytes may hold the same states, unless more was promised since.
            if self.seen.insert(image.hash() ^ (low as u64) << 1) {
                let nested = self.rng.below(40) == 0;
                self.images.push(Image {
                    fs: image,
                    how,
                    boundary,
                    low,
                    durable: self.durable,
                    nested,
                });
            }
        }
    }
}

fn lock(watch: &Mutex<Watch>) -> MutexGuard<'_, Watch> {
    watch.lock().expect("no panic holds it")
}
