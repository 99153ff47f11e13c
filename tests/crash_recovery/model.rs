//! The model: what the write orders and the manifest order of a database were, and how much of each is
//! acknowledged. From it follows what a crash at this moment may leave ([`Expect`]).
//!
//! There are two write orders, of the logged and of the unlogged families; each is a list of states, one
//! for every prefix. The manifest order is a list of sets of families.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use basalt_engine::fs::sim::Survival;

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

/// What may be found after a crash.
#[derive(Clone, Debug)]
pub(crate) struct Expect {
    /// Sets of families in their order, from the newest acknowledged one.
    pub(crate) sets: Vec<Arc<Set>>,
    /// States of the logged families, from what survives a power cut to all that was asked.
    pub(crate) logged: Vec<Arc<State>>,
    /// Index in `logged` of the oldest state that may be found after the death of the process.
    pub(crate) alive: usize,
    /// The same of the unlogged families.
    pub(crate) unlogged: Vec<Arc<State>>,
    /// Lengths of the two orders at the start of the lists.
    pub(crate) from: [usize; 2],
    pub(crate) checkpoints: Vec<Checkpoint>,
    /// The mark beside the log is exact in an image of a dead process.
    pub(crate) exact_mark: bool,
}

/// Which of the allowed states was found: indexes in the lists of [`Expect`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) set: usize,
    pub(crate) logged: usize,
    pub(crate) unlogged: usize,
}

/// What a reopened database holds, by name of the family.
pub(crate) type Recovered = BTreeMap<String, (bool, Arc<Content>)>;

impl Expect {
    /// One state and no other.
    pub(crate) fn exactly(set: &Arc<Set>, logged: &Arc<State>, unlogged: &Arc<State>) -> Self {
        Self {
            sets: vec![Arc::clone(set)],
            logged: vec![Arc::clone(logged)],
            alive: 0,
            unlogged: vec![Arc::clone(unlogged)],
            from: [0, 0],
            checkpoints: Vec::new(),
            exact_mark: false,
        }
    }

    /// The state found and no other.
    pub(crate) fn only(&self, found: Found) -> Self {
        Self {
            from: [
                self.from[LOGGED] + found.logged,
                self.from[UNLOGGED] + found.unlogged,
            ],
            ..Self::exactly(
                &self.sets[found.set],
                &self.logged[found.logged],
                &self.unlogged[found.unlogged],
            )
        }
    }

    /// What may be found after another crash, on a disk that a dead process left as `found` with some of it not
    /// durable yet.
    pub(crate) fn up_to(&self, found: Found) -> Self {
        Self {
            sets: self.sets[..=found.set].to_vec(),
            logged: self.logged[..=found.logged].to_vec(),
            alive: found.logged,
            unlogged: self.unlogged[..=found.unlogged].to_vec(),
            from: self.from,
            checkpoints: Vec::new(),
            exact_mark: false,
        }
    }

    /// Index of the oldest state of the logged families that `how` may leave.
    fn oldest(&self, how: Survival) -> usize {
        match how {
            Survival::ProcessDeath | Survival::KeepAll => self.alive,
            _ => 0,
        }
    }

    /// Which allowed state this is: the newest one that fits.
    pub(crate) fn find(&self, how: Survival, recovered: &Recovered) -> Result<Found, String> {
        let mut why = String::from("the families differ: ");
        for (at, set) in self.sets.iter().enumerate().rev() {
            let same_names = set.len() == recovered.len()
                && set
                    .iter()
                    .zip(recovered)
                    .all(|((name, (_, logged)), (other, (class, _)))| {
                        name == other && logged == class
                    });
            if !same_names {
                continue;
            }
            let logged = newest(&self.logged, self.oldest(how), set, true, recovered);
            let unlogged = newest(&self.unlogged, 0, set, false, recovered);
            match (logged, unlogged) {
                (Some(logged), Some(unlogged)) => {
                    return Ok(Found {
                        set: at,
                        logged,
                        unlogged,
                    });
                }
                (None, _) => {
                    why = self.difference(self.oldest(how), LOGGED, set, recovered);
                }
                (_, None) => why = self.difference(0, UNLOGGED, set, recovered),
            }
        }
        let names: Vec<_> = recovered.keys().collect();
        let sets: Vec<Vec<_>> = self.sets.iter().map(|set| set.keys().collect()).collect();
        Err(format!("{why}; families found {names:?}, allowed {sets:?}"))
    }

    /// How the state found differs from the nearest allowed one.
    fn difference(&self, oldest: usize, class: usize, set: &Set, recovered: &Recovered) -> String {
        let states = if class == LOGGED {
            &self.logged[oldest..]
        } else {
            &self.unlogged[..]
        };
        let first = self.from[class] + if class == LOGGED { oldest } else { 0 };
        let diffs = states.iter().enumerate().map(|(at, state)| {
            let mut lines = Vec::new();
            for (name, &(family, logged)) in set {
                if logged == (class == LOGGED) {
                    let empty = Map::new();
                    let expected = state.get(&family).map_or(&empty, |content| &content.map);
                    compare(name, expected, &recovered[name].1.map, &mut lines);
                }
            }
            (lines, first + at)
        });
        let (lines, prefix) = diffs
            .min_by_key(|(lines, _)| lines.len())
            .expect("at least one state is allowed");
        let mut text = format!(
            "{} families are no allowed prefix ({first}..={} of the write order); nearest is {prefix}:",
            ["the logged", "the unlogged"][class],
            first + states.len() - 1,
        );
        for line in lines.iter().take(6) {
            let _ = write!(text, " [{line}]");
        }
        if lines.len() > 6 {
            let _ = write!(text, " and {} more", lines.len() - 6);
        }
        text
    }
}

fn newest(
    states: &[Arc<State>],
    oldest: usize,
    set: &Set,
    class: bool,
    recovered: &Recovered,
) -> Option<usize> {
    let empty = Content::new(Map::new());
    (oldest..states.len()).rev().find(|&at| {
        set.iter()
            .filter(|(_, (_, logged))| *logged == class)
            .all(|(name, (family, _))| {
                states[at].get(family).unwrap_or(&empty).digest == recovered[name].1.digest
            })
    })
}

fn compare(name: &str, expected: &Map, found: &Map, lines: &mut Vec<String>) {
    let text = |bytes: &[u8]| {
        let short = &bytes[..bytes.len().min(24)];
        String::from_utf8_lossy(short).into_owned()
    };
    for (key, value) in expected {
        match found.get(key) {
            Some(other) if other == value => {}
            Some(other) => lines.push(format!(
                "{name}/{} is {:?}, should be {:?}",
                text(key),
                text(other),
                text(value)
            )),
            None => lines.push(format!("{name}/{} is missing", text(key))),
        }
    }
    for key in found.keys().filter(|key| !expected.contains_key(*key)) {
        lines.push(format!("{name}/{} should not be there", text(key)));
    }
}
