//! `MemStorage`: the obvious storage, for tests of what stands on one. Nothing is durable.
//!
//! A reader shares the maps of its moment; the next write copies a map that a reader still holds.

use std::{
    collections::BTreeMap,
    future::ready,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use super::{
    BoxFuture, Context, Error, FAMILIES, Modify, Result, Status, Storage, StorageIter,
    StorageReader,
};

type Map = BTreeMap<Bytes, Bytes>;

/// One map a family, in the order of [`FAMILIES`].
#[derive(Clone, Debug, Default)]
struct Maps([Arc<Map>; FAMILIES.len()]);

impl Maps {
    fn position(cf: &str) -> usize {
        FAMILIES
            .iter()
            .position(|name| *name == cf)
            .expect("callers resolve names with `family`")
    }

    fn of(&self, cf: &str) -> &Map {
        &self.0[Self::position(cf)]
    }

    fn of_mut(&mut self, cf: &str) -> &mut Map {
        Arc::make_mut(&mut self.0[Self::position(cf)])
    }
}

#[derive(Debug, Default)]
struct State {
    maps: Maps,
    stopped: bool,
    /// What every write answers, when set.
    write_failure: Option<Error>,
    /// What every read answers, when set.
    read_failure: Option<Error>,
}

/// Column families in memory.
#[derive(Debug, Default)]
pub struct MemStorage {
    state: Mutex<State>,
}

impl MemStorage {
    /// An empty storage.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets every write from now on answer `failure`; `None` heals it.
    pub fn fail_writes(&self, failure: Option<Error>) {
        self.lock().write_failure = failure;
    }

    /// Lets every read from now on answer `failure`; `None` heals it.
    pub fn fail_reads(&self, failure: Option<Error>) {
        self.lock().read_failure = failure;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while the lock is held leaves maps that are whole: every change is one map call.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, batch: Vec<Modify>) -> Result<()> {
        let mut state = self.lock();
        if state.stopped {
            return Err(Error::Stopped);
        }
        if let Some(failure) = &state.write_failure {
            return Err(failure.clone());
        }
        for modify in batch {
            match modify {
                Modify::Put { cf, key, value } => {
                    state.maps.of_mut(cf).insert(key, value);
                }
                Modify::Delete { cf, key } => {
                    state.maps.of_mut(cf).remove(&key);
                }
                Modify::DeleteRange { cf, start, end } => {
                    let goes = |key: &Bytes| *key >= start && (end.is_empty() || *key < end);
                    state.maps.of_mut(cf).retain(|key, _| !goes(key));
                }
            }
        }
        Ok(())
    }

    fn view(&self) -> Result<Box<dyn StorageReader>> {
        let state = self.lock();
        if state.stopped {
            return Err(Error::Stopped);
        }
        if let Some(failure) = &state.read_failure {
            return Err(failure.clone());
        }
        Ok(Box::new(MemReader(state.maps.clone())))
    }
}

impl Storage for MemStorage {
    fn start(&self) -> Result<(), String> {
        self.lock().stopped = false;
        Ok(())
    }

    fn stop(&self) -> Result<()> {
        self.lock().stopped = true;
        Ok(())
    }

    fn write(&self, _: Context, batch: Vec<Modify>) -> BoxFuture<'_, Result<()>> {
        Box::pin(ready(self.apply(batch)))
    }

    fn get_at_once(
        &self,
        _: &Context,
        cf: &'static str,
        key: &[u8],
    ) -> Option<Result<Option<Bytes>>> {
        Some(self.view().and_then(|view| view.get_cf(cf, key)))
    }

    fn reader(&self, _: Context) -> BoxFuture<'_, Result<Box<dyn StorageReader>>> {
        Box::pin(ready(self.view()))
    }

    fn status(&self) -> Status {
        let read_only = self.lock().write_failure.as_ref().map(ToString::to_string);
        Status {
            read_only,
            ..Status::default()
        }
    }

    fn flush(&self, _: Option<&'static str>) -> Result<()> {
        self.apply(Vec::new())
    }

    fn compact(&self, _: &'static str, _: Option<&[u8]>, _: Option<&[u8]>) -> Result<()> {
        self.apply(Vec::new())
    }
}

struct MemReader(Maps);

impl StorageReader for MemReader {
    fn get_cf(&self, cf: &'static str, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.0.of(cf).get(key).cloned())
    }

    fn iter_cf(&self, cf: &'static str) -> Result<Box<dyn StorageIter + '_>> {
        Ok(Box::new(MemIter {
            map: self.0.of(cf),
            at: None,
        }))
    }
}

struct MemIter<'a> {
    map: &'a Map,
    at: Option<(&'a Bytes, &'a Bytes)>,
}

impl MemIter<'_> {
    fn pair(&self) -> (&Bytes, &Bytes) {
        self.at.expect("a cursor that is asked is valid")
    }
}

impl StorageIter for MemIter<'_> {
    fn seek(&mut self, key: &[u8]) -> Result<()> {
        let from = (Bound::Included(key), Bound::Unbounded);
        self.at = self.map.range::<[u8], _>(from).next();
        Ok(())
    }

    fn seek_before(&mut self, key: Option<&[u8]>) -> Result<()> {
        let end = key.map_or(Bound::Unbounded, Bound::Excluded);
        let before = (Bound::Unbounded, end);
        self.at = self.map.range::<[u8], _>(before).next_back();
        Ok(())
    }

    fn valid(&self) -> bool {
        self.at.is_some()
    }

    fn next(&mut self) -> Result<()> {
        let behind = (Bound::Excluded(&self.pair().0[..]), Bound::Unbounded);
        self.at = self.map.range::<[u8], _>(behind).next();
        Ok(())
    }

    fn prev(&mut self) -> Result<()> {
        let key = self.pair().0.clone();
        self.seek_before(Some(&key))
    }

    fn key(&self) -> &[u8] {
        self.pair().0
    }

    fn value(&self) -> &[u8] {
        self.pair().1
    }
}
