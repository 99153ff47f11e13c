//! The model: what the write orders and the manifest order of a database were, and how much of each is
//! acknowledged. From it follows what a crash at this moment may leave ([`Expect`]).
//!
//! There are two write orders, of the logged and of the unlogged families; each is a list of states, one
//! for every prefix. The manifest order is a list of sets of families.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use crate::expect::{Expect, Found};

/// Keys and values of one family.
pub(crate) type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// Number of a family in the model; a name used again gets another one.
pub(crate) type FamilyId = usize;

/// Keys and values of one family, with a digest to compare them by.
#[derive(Debug, Default)]
pub(crate) struct Content {
    pub(crate) map: Map,
    pub(crate) digest: u64,
}

impl Content {
    pub(crate) fn new(map: Map) -> Arc<Self> {
        let mut hasher = DefaultHasher::new();
        map.hash(&mut hasher);
        Arc::new(Self {
            digest: hasher.finish(),
            map,
        })
    }
}

/// What all families of one class hold after a prefix of their write order. An absent one is empty.
pub(crate) type State = BTreeMap<FamilyId, Arc<Content>>;

/// The families alive: number and class (logged or not) by name.
pub(crate) type Set = BTreeMap<String, (FamilyId, bool)>;

/// One operation of a batch.
#[derive(Clone, Debug)]
pub(crate) enum Edit {
    Put(FamilyId, Vec<u8>, Vec<u8>),
    Delete(FamilyId, Vec<u8>),
    DeleteRange(FamilyId, Vec<u8>, Vec<u8>),
}

impl Edit {
    pub(crate) fn family(&self) -> FamilyId {
        match self {
            Self::Put(family, ..) | Self::Delete(family, _) | Self::DeleteRange(family, ..) => {
                *family
            }
        }
    }

    fn apply(&self, map: &mut Map) {
        match self {
            Self::Put(_, key, value) => {
                map.insert(key.clone(), value.clone());
            }
            Self::Delete(_, key) => {
                map.remove(key);
            }
            Self::DeleteRange(_, start, end) => {
                map.retain(|key, _| key < start || key >= end);
            }
        }
    }
}

/// `state` with a batch applied.
pub(crate) fn apply(state: &State, edits: &[Edit]) -> State {
    let mut maps: BTreeMap<FamilyId, Map> = BTreeMap::new();
    for edit in edits {
        let family = edit.family();
        let map = maps.entry(family).or_insert_with(|| {
            state
                .get(&family)
                .map(|c| c.map.clone())
                .unwrap_or_default()
        });
        edit.apply(map);
    }
    let mut next = state.clone();
    next.extend(
        maps.into_iter()
            .map(|(family, map)| (family, Content::new(map))),
    );
    next
}

/// The classes, as indexes of the two orders.
pub(crate) const LOGGED: usize = 0;
pub(crate) const UNLOGGED: usize = 1;

struct Write {
    last_seq: u64,
    sync: bool,
    /// An ingest: its place is passed also when it fails, so that proves nothing.
    ingest: bool,
}

/// One write order.
struct Order {
    /// State after each prefix; one more than `writes`.
    states: Vec<Arc<State>>,
    writes: Vec<Write>,
    /// Writes acknowledged as surviving a power cut, and the death of the process.
    durable: usize,
    alive: usize,
}

impl Order {
    fn new() -> Self {
        Self {
            states: vec![Arc::default()],
            writes: Vec::new(),
            durable: 0,
            alive: 0,
        }
    }

    fn cut(&mut self, len: usize) {
        self.states.truncate(len + 1);
        self.writes.truncate(len);
        self.durable = len;
        self.alive = len;
    }

    fn len(&self) -> usize {
        self.writes.len()
    }

    /// Writes up to sequence number `seq` that must be there once that is published or flushed.
    fn up_to(&self, seq: u64) -> usize {
        let len = self.writes.partition_point(|write| write.last_seq <= seq);
        match self.writes[..len].last() {
            Some(last) if last.ingest && self.durable < len => len - 1,
            _ => len,
        }
    }
}

/// A checkpoint made or in the making, and exactly what it holds.
#[derive(Clone, Debug)]
pub(crate) struct Checkpoint {
    pub(crate) path: String,
    pub(crate) done: bool,
    pub(crate) expect: Arc<Expect>,
}

/// All that was asked of a database, and what was answered.
pub(crate) struct Model {
    orders: [Order; 2],
    sets: Vec<Arc<Set>>,
    /// Index of the newest acknowledged set.
    set_durable: usize,
    families: usize,
    /// Last sequence number given out.
    last_seq: u64,
    checkpoints: Vec<Checkpoint>,
}

impl Model {
    /// A new database, with its one family.
    pub(crate) fn new() -> Self {
        let default = Set::from([("default".to_owned(), (0, true))]);
        Self {
            orders: [Order::new(), Order::new()],
            sets: vec![Arc::new(default)],
            set_durable: 0,
            families: 1,
            last_seq: 0,
            checkpoints: Vec::new(),
        }
    }

    /// A batch of `count` sequence numbers gets its place; answers the length of its order with it, and
    /// its last sequence number.
    pub(crate) fn submit(
        &mut self,
        class: usize,
        edits: &[Edit],
        count: u64,
        sync: bool,
    ) -> (usize, u64) {
        self.last_seq += count;
        let order = &mut self.orders[class];
        let last = order.states.last().expect("there is the empty prefix");
        let next = Arc::new(apply(last, edits));
        order.states.push(next);
        order.writes.push(Write {
            last_seq: self.last_seq,
            sync,
            ingest: false,
        });
        (order.len(), self.last_seq)
    }

    /// The same for an ingest, whose sequence numbers are one more than its range deletes and its batch.
    pub(crate) fn submit_ingest(
        &mut self,
        class: usize,
        edits: &[Edit],
        count: u64,
    ) -> (usize, u64) {
        let place = self.submit(class, edits, count, true);
        let newest = self.orders[class].writes.last_mut();
        newest.expect("just submitted").ingest = true;
        place
    }

    /// The last batch got no place after all.
    pub(crate) fn retract(&mut self, class: usize, count: u64) {
        let order = &mut self.orders[class];
        order.states.pop();
        order.writes.pop();
        self.last_seq -= count;
    }

    /// The first `len` batches of an order are acknowledged; `durable` where they survive a power cut.
    pub(crate) fn acknowledged(&mut self, class: usize, len: usize, durable: bool) {
        let order = &mut self.orders[class];
        order.alive = order.alive.max(len);
        if durable {
            order.durable = order.durable.max(len);
        }
    }

    /// Every batch of a class up to sequence number `seq` is in tables.
    pub(crate) fn flushed(&mut self, class: usize, seq: u64) {
        let len = self.orders[class].up_to(seq);
        self.acknowledged(class, len, true);
    }

    /// Readers see everything up to sequence number `seq`: of the logged order, all that survives the
    /// death of the process, and up to the last synced batch all that survives a power cut.
    pub(crate) fn published(&mut self, seq: u64) {
        let order = &self.orders[LOGGED];
        let len = order.up_to(seq);
        let synced = order.writes[..len].iter().rposition(|write| write.sync);
        self.acknowledged(LOGGED, len, false);
        if let Some(last) = synced {
            self.acknowledged(LOGGED, last + 1, true);
        }
    }

    /// Power was cut: what was only written is in doubt.
    pub(crate) fn power_cut(&mut self) {
        for order in &mut self.orders {
            order.alive = order.durable;
        }
    }

    /// Everything written to a class is durable.
    pub(crate) fn all_durable(&mut self, class: usize) {
        let len = self.orders[class].len();
        self.acknowledged(class, len, true);
    }

    /// A family is about to be created.
    pub(crate) fn create(&mut self, name: &str, logged: bool) -> FamilyId {
        let id = self.families;
        self.families += 1;
        let mut set = self.set().as_ref().clone();
        set.insert(name.to_owned(), (id, logged));
        self.sets.push(Arc::new(set));
        id
    }

    /// A family is about to be dropped.
    pub(crate) fn drop_family(&mut self, name: &str) {
        let mut set = self.set().as_ref().clone();
        set.remove(name);
        self.sets.push(Arc::new(set));
    }

    /// The newest set of families is acknowledged.
    pub(crate) fn set_acknowledged(&mut self) {
        self.set_durable = self.sets.len() - 1;
    }

    /// The newest set of families.
    pub(crate) fn set(&self) -> &Arc<Set> {
        self.sets.last().expect("there is a first set")
    }

    /// What a class holds once all that was asked is done.
    pub(crate) fn newest(&self, class: usize) -> &Arc<State> {
        self.orders[class].states.last().expect("there is a state")
    }

    /// A checkpoint of everything asked so far is about to be made.
    pub(crate) fn begin_checkpoint(&mut self, path: &str) {
        let expect = Arc::new(Expect::exactly(
            self.set(),
            self.newest(LOGGED),
            self.newest(UNLOGGED),
        ));
        self.checkpoints.push(Checkpoint {
            path: path.to_owned(),
            done: false,
            expect,
        });
    }

    /// The newest checkpoint is done, or was given up.
    pub(crate) fn end_checkpoint(&mut self, done: bool) {
        if done {
            let newest = self.checkpoints.last_mut().expect("one was begun");
            newest.done = true;
        } else {
            self.checkpoints.pop();
        }
    }

    /// What a crash at this moment may leave.
    pub(crate) fn expect(&self) -> Expect {
        let [logged, unlogged] = &self.orders;
        Expect {
            sets: self.sets[self.set_durable..].to_vec(),
            logged: logged.states[logged.durable..].to_vec(),
            alive: logged.alive - logged.durable,
            unlogged: unlogged.states[unlogged.durable..].to_vec(),
            from: [logged.durable, unlogged.durable],
            checkpoints: self.checkpoints.clone(),
            exact_mark: false,
        }
    }

    /// The database came back as `found` (an answer to [`Model::expect`] now) and shows it to readers: the
    /// rest is forgotten, and this is durable.
    pub(crate) fn came_back(&mut self, found: Found, last_seq: u64) {
        let [logged, unlogged] = &mut self.orders;
        let keep = logged.durable + found.logged;
        logged.cut(keep);
        let keep = unlogged.durable + found.unlogged;
        unlogged.cut(keep);
        self.sets.truncate(self.set_durable + found.set + 1);
        self.set_durable = self.sets.len() - 1;
        self.last_seq = last_seq;
        self.checkpoints.retain(|checkpoint| checkpoint.done);
    }
}
