//! One image of a disk after a crash: opened, compared with the states it may hold, and gone on with.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
};

use basalt_engine::{
    CfOptions, ColumnFamily, Db, Faults, Options, ReadOptions, WriteBatch, WriteOptions,
    executor::SimExecutor,
    fs::{ReadMode, SimFs, sim::Survival},
};
use basalt_testkit::Rng;

use crate::model::{PREFIX_BYTES, State, key};

/// Where the database is on each disk.
pub(crate) const DIR: &str = "db";

/// Settings of a case, drawn once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) segment_bytes: (u64, u64),
    pub(crate) recycled: usize,
    pub(crate) read_mode: ReadMode,
    pub(crate) max_log_bytes: u64,
    pub(crate) max_garbage: u64,
    pub(crate) tail_bytes: usize,
    pub(crate) faults: Faults,
}

impl Settings {
    pub(crate) fn draw(rng: &mut Rng, faults: Faults) -> Self {
        let small = *rng.pick(&[512, 1024, 2048]);
        Self {
            segment_bytes: (small, small * rng.range(1..4)),
            recycled: rng.index(4),
            read_mode: *rng.pick(&[ReadMode::Mapped, ReadMode::Pread]),
            max_log_bytes: *rng.pick(&[4 << 10, 16 << 10]),
            max_garbage: *rng.pick(&[1 << 10, 4 << 10, 1 << 30]),
            // Often none, so that files are read; few bytes, so that batches leave it; more than there ever are.
            tail_bytes: *rng.pick(&[0, 0, 2 << 10, 1 << 20]),
            faults,
        }
    }

    pub(crate) fn options(&self, fs: &Arc<SimFs>, seed: u64) -> Options {
        self.options_with(fs, Arc::new(SimExecutor::new(seed)))
    }

    pub(crate) fn options_with(&self, fs: &Arc<SimFs>, executor: Arc<SimExecutor>) -> Options {
        let mut options = Options::with(Arc::clone(fs) as _, executor);
        options.log_segment_bytes = self.segment_bytes;
        options.recycled_segments = self.recycled;
        options.read_mode = self.read_mode;
        options.max_log_bytes = self.max_log_bytes;
        options.max_log_garbage_bytes = self.max_garbage;
        options.append_tail_bytes = self.tail_bytes;
        options.max_manifest_bytes = 4096;
        options.reserve_bytes = 0;
        options.faults = self.faults;
        options
    }
}

/// Key and value.
type Row = (Vec<u8>, Vec<u8>);

/// An image taken inside a reopening, and the change of the disk before which it was.
type Inner = (Arc<SimFs>, u64);

/// An open database and its families.
pub(crate) struct Store {
    pub(crate) db: Db,
    pub(crate) appends: Vec<ColumnFamily>,
    pub(crate) plain: ColumnFamily,
}

impl Store {
    /// Opens the database; makes the families that are missing.
    pub(crate) fn open(options: Options) -> Result<Self, String> {
        let text = |error: basalt_engine::Error| error.to_string();
        let db = Db::open(DIR, options).map_err(text)?;
        let plain = CfOptions {
            write_buffer_bytes: 4096,
            ..CfOptions::default()
        };
        let plain = db.open_cf("plain", plain).map_err(text)?;
        let appends = PREFIX_BYTES
            .iter()
            .map(|&bytes| db.open_cf(&format!("append-{bytes}"), CfOptions::append(bytes)));
        let appends = appends.collect::<Result<_, _>>().map_err(text)?;
        Ok(Self { db, appends, plain })
    }

    fn rows(&self, cf: &ColumnFamily) -> Result<Vec<Row>, String> {
        let options = ReadOptions::default();
        let range = self.db.range(cf, &options).map_err(|e| e.to_string())?;
        let rows = range.map(|row| row.map(|(key, value)| (key, value.to_vec())));
        rows.collect::<Result<_, _>>().map_err(|e| e.to_string())
    }

    /// All it holds, by its cursors.
    pub(crate) fn state(&self) -> Result<State, String> {
        let mut state = State {
            plain: self.rows(&self.plain)?.into_iter().collect(),
            ..State::default()
        };
        for (family, cf) in self.appends.iter().enumerate() {
            for (key, value) in self.rows(cf)? {
                let (prefix, index) = key.split_at(PREFIX_BYTES[family]);
                let index = u64::from_be_bytes(index.try_into().map_err(|_| "a key's length")?);
                let log: &mut BTreeMap<_, _> =
                    state.logs.entry((family, prefix.to_vec())).or_default();
                log.insert(index, value);
            }
        }
        Ok(state)
    }
}

/// An image, and what it may hold.
pub(crate) struct Image {
    pub(crate) fs: Arc<SimFs>,
    pub(crate) how: Survival,
    /// The change of the disk before which it was taken.
    pub(crate) boundary: u64,
    /// The first state that it may hold, and that it may hold after a power cut.
    pub(crate) low: usize,
    pub(crate) durable: usize,
    /// Crashes inside the reopening are looked at too.
    pub(crate) nested: bool,
}

impl Image {
    /// Opens it and checks that it holds one of `states`; `Err` is a broken promise.
    pub(crate) fn check(&self, settings: &Settings, states: &[State]) -> Result<u64, String> {
        let checked = catch_unwind(AssertUnwindSafe(|| self.try_check(settings, states)));
        let checked = checked.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            Err(format!("a panic: {}", text.unwrap_or_default()))
        });
        checked.map_err(|what| {
            format!(
                "image at boundary {} {:?}, states {} to {}: {what}",
                self.boundary,
                self.how,
                self.low,
                states.len() - 1
            )
        })
    }

    fn try_check(&self, settings: &Settings, states: &[State]) -> Result<u64, String> {
        let inner: Arc<Mutex<Vec<Inner>>> = Arc::default();
        if self.nested {
            let inner = Arc::clone(&inner);
            self.fs.set_observer(Some(Arc::new(move |fs, index, _| {
                let how = match index % 4 {
                    0 => Survival::LoseUnsynced,
                    1 => Survival::ProcessDeath,
                    _ => Survival::Random { seed: index },
                };
                let mut images = inner.lock().expect("no panic holds it");
                images.push((fs.crash(how), index));
            })));
        }
        let store = Store::open(settings.options(&self.fs, self.boundary))?;
        self.fs.set_observer(None);
        let state = self.examine(&store, &states[self.low..])?;
        self.go_on(settings, store, state.clone())?;
        let mut opened = 1;
        for (fs, index) in std::mem::take(&mut *inner.lock().expect("no panic holds it")) {
            let nested = |what: String| format!("crash at {index} inside its reopening: {what}");
            let store = Store::open(settings.options(&fs, index)).map_err(nested)?;
            // What was shown may or may not have been durable before: any state that was allowed is, still.
            self.examine(&store, &states[self.durable..])
                .map_err(nested)?;
            opened += 1;
        }
        Ok(opened)
    }

    /// Checks all there is against the states, and answers the one that it is.
    fn examine(&self, store: &Store, states: &[State]) -> Result<State, String> {
        let damage = store.db.verify().map_err(|e| e.to_string())?.damage;
        if !damage.is_empty() {
            return Err(format!("verify finds {damage:?}"));
        }
        let state = store.state()?;
        if !states.contains(&state) {
            let nearest = states.last().expect("at least one");
            return Err(format!(
                "holds no state that was promised\n  it: {state:?}\n  last: {nearest:?}"
            ));
        }
        for ((family, prefix), log) in &state.logs {
            let cf = &store.appends[*family];
            let range = store
                .db
                .append_range(cf, prefix)
                .map_err(|e| e.to_string())?;
            let first = *log.keys().next().expect("not empty");
            if range != Some(first..first + log.len() as u64) {
                return Err(format!("range {range:?} of {prefix:?}"));
            }
            let value = store
                .db
                .get(cf, &key(prefix, first))
                .map_err(|e| e.to_string())?;
            if value.as_deref() != log.get(&first).map(Vec::as_slice) {
                return Err(format!("get of {prefix:?} {first}"));
            }
        }
        Ok(state)
    }

    /// Writes on, and sees that it is there after the next power cut.
    fn go_on(&self, settings: &Settings, store: Store, mut state: State) -> Result<(), String> {
        let prefix = vec![9; PREFIX_BYTES[0]];
        let end = state
            .logs
            .keys()
            .filter(|(family, _)| *family == 0)
            .map(|(_, prefix)| prefix.clone())
            .next()
            .map_or((prefix, 1), |prefix| {
                let log = &state.logs[&(0, prefix.clone())];
                (prefix, log.keys().last().expect("not empty") + 1)
            });
        let (prefix, end) = end;
        let value = vec![3; 300];
        let mut batch = WriteBatch::new();
        batch.append(
            &store.appends[0],
            &prefix,
            end,
            std::slice::from_ref(&value),
        );
        store
            .db
            .write(batch, WriteOptions::SYNC)
            .map_err(|e| format!("cannot write on: {e}"))?;
        let log = state.logs.entry((0, prefix)).or_default();
        log.insert(end, value);
        let after = self.fs.crash(Survival::LoseUnsynced);
        drop(store);
        let store = Store::open(settings.options(&after, 1))
            .map_err(|e| format!("after writing on: {e}"))?;
        if store.state()? != state {
            return Err("what was written on is not there".into());
        }
        Ok(())
    }
}
