//! What a storage should hold, as plainly as it can be said, and the same read back from one.

use std::{collections::BTreeMap, fmt};

use basalt_proto::eraftpb::{ConfState, Entry, HardState, Snapshot, SnapshotMetadata};
use bytes::Bytes;

use super::{Subject, demand};
use crate::{NO_LIMIT, Storage, StorageError, entry_size};

/// How often a storage may answer "later" to one question.
const PATIENCE: usize = 10_000;

const AT_LAST: &str = "a storage that answers \"later\" has an answer in the end";
const READS: &str = "a storage in order can be read";
const FIRST: &str = "first_index() is one above the snapshot or compaction that the log starts at";
const LAST: &str = "last_index() is that of the last entry, or of the snapshot without one";
const BASE_TERM: &str = "the term at first_index() - 1 is kept";
const TERMS: &str = "term() is that of the entry";
const BELOW: &str = "what is below the log is Compacted";
const ABOVE: &str = "what is above the log is Unavailable";
const ENTRIES: &str = "entries come back as they were written";
const SIZES: &str = "entries() gives as many entries as fit into max_bytes, and at least one";
const HARD_STATE: &str = "the hard state is the one written last";
const CONF_STATE: &str = "the membership is that of the newest snapshot, taken or made";
const SNAPSHOT: &str = "a snapshot comes back as it was taken or made";
const SNAPSHOT_PLACE: &str = "a snapshot stands for at least all that is compacted";

/// A write of a node, with the content of its snapshot unpacked.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    pub(super) hard_state: Option<HardState>,
    pub(super) snapshot: Option<(SnapshotMetadata, Bytes)>,
    pub(super) entries: Vec<Entry>,
}

/// What is done to a storage.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Write(Plan),
    MakeSnapshot(u64, ConfState, Bytes),
    Compact(u64),
}

/// Without payloads.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MakeSnapshot(index, ..) => write!(f, "a snapshot is made at {index}"),
            Self::Compact(index) => write!(f, "a compaction up to {index}"),
            Self::Write(plan) => {
                f.write_str("a write of")?;
                if let Some(HardState { term, vote, commit }) = plan.hard_state {
                    write!(f, " (term {term}, vote {vote}, commit {commit})")?;
                }
                if let Some((metadata, _)) = &plan.snapshot {
                    write!(f, " snapshot ({}, {})", metadata.index, metadata.term)?;
                }
                if let Some(first) = plan.entries.first() {
                    let terms: Vec<u64> = plan.entries.iter().map(|e| e.term).collect();
                    write!(f, " entries from {} on of terms {terms:?}", first.index)?;
                }
                Ok(())
            }
        }
    }
}

/// A log with everything around it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Model {
    pub(super) hard_state: HardState,
    pub(super) conf_state: ConfState,
    /// Index and term of what the log starts at.
    pub(super) base: (u64, u64),
    pub(super) entries: BTreeMap<u64, Entry>,
    /// Where the newest snapshot stands, and its membership and content; none in a new log.
    pub(super) snapshot: Option<(SnapshotMetadata, Bytes)>,
}

impl Model {
    pub(super) fn new(start: (u64, u64), conf_state: ConfState) -> Self {
        Self {
            hard_state: HardState {
                term: start.1,
                vote: 0,
                commit: start.0,
            },
            conf_state,
            base: start,
            entries: BTreeMap::new(),
            snapshot: None,
        }
    }

    pub(super) fn last(&self) -> u64 {
        let last = self.entries.last_key_value();
        last.map_or(self.base.0, |(index, _)| *index)
    }

    pub(super) fn term(&self, index: u64) -> Option<u64> {
        if index == self.base.0 {
            return Some(self.base.1);
        }
        self.entries.get(&index).map(|entry| entry.term)
    }

    /// Where the newest snapshot stands; what the log starts at where there is none.
    pub(super) fn snapshot_index(&self) -> u64 {
        let snapshot = self.snapshot.as_ref();
        snapshot.map_or(self.base.0, |(metadata, _)| metadata.index)
    }

    /// What a step leads to, or why it has to be refused.
    pub(super) fn step(&mut self, step: &Step) -> Result<(), StorageError> {
        match step {
            Step::Write(plan) => self.write(plan),
            Step::MakeSnapshot(index, conf_state, data) => {
                self.make_snapshot(*index, conf_state, data)
            }
            Step::Compact(index) => self.compact(*index),
        }
    }

    fn write(&mut self, plan: &Plan) -> Result<(), StorageError> {
        if let Some((metadata, data)) = &plan.snapshot {
            if metadata.index <= self.snapshot_index() {
                return Err(StorageError::SnapshotOutOfDate);
            }
            self.base = (metadata.index, metadata.term);
            self.entries.clear();
            self.conf_state = metadata.conf_state.clone().unwrap_or_default();
            self.snapshot = Some((metadata.clone(), data.clone()));
        }
        if let Some(hard_state) = plan.hard_state {
            self.hard_state = hard_state;
        }
        let mut new = plan.entries.iter();
        let new = new.by_ref().skip_while(|entry| entry.index <= self.base.0);
        let new: Vec<_> = new.map(|entry| (entry.index, entry.clone())).collect();
        if let Some((first, _)) = new.first() {
            self.entries.split_off(first);
            self.entries.extend(new);
        }
        Ok(())
    }

    fn make_snapshot(
        &mut self,
        index: u64,
        conf_state: &ConfState,
        data: &Bytes,
    ) -> Result<(), StorageError> {
        if index <= self.snapshot_index() {
            return Err(StorageError::SnapshotOutOfDate);
        }
        let metadata = SnapshotMetadata {
            conf_state: Some(conf_state.clone()),
            index,
            term: self.term(index).ok_or(StorageError::Unavailable)?,
        };
        self.conf_state = conf_state.clone();
        self.snapshot = Some((metadata, data.clone()));
        Ok(())
    }

    fn compact(&mut self, index: u64) -> Result<(), StorageError> {
        if index <= self.base.0 {
            return Err(StorageError::Compacted);
        }
        let term = self.term(index).ok_or(StorageError::Unavailable)?;
        self.entries.retain(|other, _| *other > index);
        self.base = (index, term);
        Ok(())
    }

    /// How many entries from `low` on `entries(low, high, max_bytes)` has to give.
    pub(super) fn fitting(&self, low: u64, high: u64, max_bytes: u64) -> usize {
        let (mut count, mut bytes) = (0, 0_u64);
        for (_, entry) in self.entries.range(low..high) {
            bytes = bytes.saturating_add(entry_size(entry));
            if count > 0 && bytes > max_bytes {
                break;
            }
            count += 1;
        }
        count
    }

    /// What `subject`'s storage says that it holds. All its answers must agree with each other.
    pub(super) fn read<S: Subject>(subject: &mut S, doing: &str) -> Self {
        let storage = subject.storage();
        let initial = read(storage.initial_state(), "initial_state()", doing);
        let first = read(storage.first_index(), "first_index()", doing);
        let last = read(storage.last_index(), "last_index()", doing);
        demand(
            first > 0 && last + 1 >= first,
            LAST,
            format_args!("first_index() {first}, last_index() {last} {doing}"),
        );
        let base_term = storage.term(first - 1);
        demand(
            base_term.is_ok(),
            BASE_TERM,
            format_args!("term({}) is {base_term:?} {doing}", first - 1),
        );
        let all = slice(subject, first, last + 1, NO_LIMIT, doing);
        let indexes = all.iter().map(|entry| entry.index);
        demand(
            indexes.clone().eq(first..=last),
            ENTRIES,
            format_args!(
                "entries({first}, {}) gives the indexes {:?} {doing}",
                last + 1,
                indexes.collect::<Vec<_>>()
            ),
        );
        let storage = subject.storage();
        for entry in &all {
            let term = storage.term(entry.index);
            demand(
                matches!(term, Ok(term) if term == entry.term),
                TERMS,
                format_args!(
                    "term({}) is {term:?}, the entry's {} {doing}",
                    entry.index, entry.term
                ),
            );
        }
        check_bounds(storage, first, last, doing);
        Self {
            hard_state: initial.hard_state,
            conf_state: initial.conf_state,
            base: (first - 1, base_term.unwrap_or_default()),
            entries: all.into_iter().map(|entry| (entry.index, entry)).collect(),
            snapshot: read_snapshot(subject, first, doing),
        }
    }

    /// The first rule by which `seen` is not this, and how.
    pub(super) fn difference(&self, seen: &Self) -> Option<(&'static str, String)> {
        let differ = |rule, wanted: &dyn fmt::Debug, got: &dyn fmt::Debug| {
            Some((rule, format!("{got:?}, not {wanted:?}")))
        };
        if self.hard_state != seen.hard_state {
            return differ(HARD_STATE, &self.hard_state, &seen.hard_state);
        }
        if self.base.0 != seen.base.0 {
            return differ(FIRST, &(self.base.0 + 1), &(seen.base.0 + 1));
        }
        if self.base.1 != seen.base.1 {
            return differ(BASE_TERM, &self.base.1, &seen.base.1);
        }
        if self.last() != seen.last() {
            return differ(LAST, &self.last(), &seen.last());
        }
        let mut both = self.entries.values().zip(seen.entries.values());
        if let Some((wanted, got)) = both.find(|(wanted, got)| wanted != got) {
            return differ(ENTRIES, &brief(wanted), &brief(got));
        }
        if self.conf_state != seen.conf_state {
            return differ(CONF_STATE, &self.conf_state, &seen.conf_state);
        }
        if self.snapshot != seen.snapshot {
            let part = |(metadata, data): &(SnapshotMetadata, Bytes)| {
                (metadata.clone(), data.len(), head(data))
            };
            let (wanted, got) = (self.snapshot.as_ref(), seen.snapshot.as_ref());
            return differ(SNAPSHOT, &wanted.map(part), &got.map(part));
        }
        None
    }

    /// Demands that `seen` is this.
    pub(super) fn demand(&self, seen: &Self, doing: &str) {
        if let Some((rule, how)) = self.difference(seen) {
            demand(false, rule, format_args!("{how} {doing}"));
        }
    }

    /// Demands that `entries` answers as it has to; true where the limit has cut the range.
    pub(super) fn demand_slice<S: Subject>(
        &self,
        subject: &mut S,
        range: (u64, u64),
        max_bytes: u64,
        doing: &str,
    ) -> bool {
        let (low, high) = range;
        let got = slice(subject, low, high, max_bytes, doing);
        let wanted = self.fitting(low, high, max_bytes);
        demand(
            got.len() == wanted,
            SIZES,
            format_args!(
                "entries({low}, {high}, {max_bytes}) gives {} entries, not {wanted} {doing}",
                got.len()
            ),
        );
        let differing = got
            .iter()
            .zip(self.entries.range(low..high))
            .find(|(got, (_, wanted))| got != wanted);
        if let Some((got, (_, wanted))) = differing {
            let (got, wanted) = (brief(got), brief(wanted));
            demand(
                false,
                ENTRIES,
                format_args!("{got:?}, not {wanted:?} in entries({low}, {high}) {doing}"),
            );
        }
        (wanted as u64) < high.saturating_sub(low)
    }
}

/// An entry without the whole of its payload.
fn brief(entry: &Entry) -> (u64, u64, i32, usize, Bytes) {
    let Entry {
        entry_type,
        term,
        index,
        data,
    } = entry;
    (*index, *term, *entry_type, data.len(), head(data))
}

fn head(data: &Bytes) -> Bytes {
    data.slice(..data.len().min(16))
}

fn read<T>(answer: Result<T, StorageError>, call: &str, doing: &str) -> T {
    match answer {
        Ok(answer) => answer,
        Err(error) => panic!("{READS}: {call} fails with {error:?} {doing}"),
    }
}

/// The entries, when the storage has them at hand.
fn slice<S: Subject>(subject: &mut S, low: u64, high: u64, max: u64, doing: &str) -> Vec<Entry> {
    for _ in 0..PATIENCE {
        match subject.storage().entries(low, high, max) {
            Err(StorageError::LogTemporarilyUnavailable) => subject.wait(),
            answer => return read(answer, &format!("entries({low}, {high}, {max})"), doing),
        }
    }
    panic!("{AT_LAST}: entries({low}, {high}, {max}) {doing}");
}

/// What lies outside of the log is refused with the right word.
fn check_bounds(storage: &impl Storage, first: u64, last: u64, doing: &str) {
    for above in [last + 1, last + 2, u64::MAX] {
        let term = storage.term(above);
        demand(
            matches!(term, Err(StorageError::Unavailable)),
            ABOVE,
            format_args!("term({above}) is {term:?}, last_index() {last} {doing}"),
        );
    }
    for high in [last + 2, last + 3] {
        let entries = storage.entries(first, high, NO_LIMIT).map(|e| e.len());
        demand(
            matches!(entries, Err(StorageError::Unavailable)),
            ABOVE,
            format_args!("entries({first}, {high}) is {entries:?}, last_index() {last} {doing}"),
        );
    }
    for below in [first.checked_sub(2), (first > 2).then_some(0)] {
        let Some(below) = below else { continue };
        let term = storage.term(below);
        demand(
            matches!(term, Err(StorageError::Compacted)),
            BELOW,
            format_args!("term({below}) is {term:?}, first_index() {first} {doing}"),
        );
    }
    for low in [first - 1, 0] {
        if low > last {
            continue;
        }
        let entries = storage.entries(low, last + 1, NO_LIMIT).map(|e| e.len());
        demand(
            matches!(entries, Err(StorageError::Compacted)),
            BELOW,
            format_args!(
                "entries({low}, {}) is {entries:?}, first_index() {first} {doing}",
                last + 1
            ),
        );
    }
}

/// The snapshot for others; none where nothing was ever taken or made.
fn read_snapshot<S: Subject>(
    subject: &mut S,
    first: u64,
    doing: &str,
) -> Option<(SnapshotMetadata, Bytes)> {
    let snapshot = snapshot(subject, doing);
    let metadata = snapshot.metadata.unwrap_or_default();
    demand(
        metadata.index + 1 >= first,
        SNAPSHOT_PLACE,
        format_args!(
            "the snapshot's index is {}, first_index() {first} {doing}",
            metadata.index
        ),
    );
    (metadata.index > subject.start().0).then(|| (metadata, subject.unpack(&snapshot.data)))
}

fn snapshot<S: Subject>(subject: &mut S, doing: &str) -> Snapshot {
    /// Any node that asks.
    const TO: u64 = 2;
    for _ in 0..PATIENCE {
        match subject.storage().snapshot(TO) {
            Err(StorageError::SnapshotTemporarilyUnavailable) => subject.wait(),
            answer => return read(answer, "snapshot()", doing),
        }
    }
    panic!("{AT_LAST}: snapshot() {doing}");
}
