//! A storage beside the model of what it should hold: each step is done on both, then they are
//! compared.

use std::mem::discriminant;

use basalt_proto::eraftpb::{ConfState, Entry, EntryType, HardState, Snapshot, SnapshotMetadata};
use bytes::Bytes;

use super::{
    Subject, Write, demand,
    model::{Model, Plan, Step},
};
use crate::StorageError;

const DONE: &str = "what a node or a state machine may ask for is done";
const REFUSED: &str = "what does not fit is refused, by its name";

/// The storage and its model.
pub(super) struct World<S> {
    pub(super) subject: S,
    pub(super) model: Model,
    /// Index and term that the new log stood at.
    start: (u64, u64),
}

impl<S: Subject> World<S> {
    /// A new storage, which must be like a new model.
    pub(super) fn new(
        open: &mut impl FnMut(&ConfState) -> S,
        conf_state: &ConfState,
        doing: &str,
    ) -> Self {
        let subject = open(conf_state);
        let start = subject.start();
        let mut world = Self {
            subject,
            model: Model::new(start, conf_state.clone()),
            start,
        };
        world.verify(doing);
        world
    }

    /// The `n`th index of the log.
    pub(super) fn at(&self, n: u64) -> u64 {
        self.start.0 + n
    }

    /// The `n`th term in which something happens.
    pub(super) fn term(&self, n: u64) -> u64 {
        self.start.1 + n
    }

    /// Demands that the storage answers as the model does.
    pub(super) fn verify(&mut self, doing: &str) {
        let seen = Model::read(&mut self.subject, doing);
        self.model.demand(&seen, doing);
    }

    /// A step on both sides; true if it was done.
    pub(super) fn step(&mut self, step: Step, doing: &str) -> bool {
        let wanted = self.model.step(&step);
        let got = match step {
            Step::Write(plan) => {
                let pack = |(metadata, data)| Snapshot {
                    data: self.subject.pack(data),
                    metadata: Some(metadata),
                };
                let write = Write {
                    hard_state: plan.hard_state,
                    snapshot: plan.snapshot.map(pack),
                    entries: plan.entries,
                };
                self.subject.write(write)
            }
            Step::MakeSnapshot(index, conf_state, data) => {
                self.subject.make_snapshot(index, &conf_state, data)
            }
            Step::Compact(index) => self.subject.compact(index),
        };
        self.agree(&wanted, &got, doing)
    }

    pub(super) fn write(&mut self, plan: impl Into<Plan>, doing: &str) {
        self.step(Step::Write(plan.into()), doing);
    }

    pub(super) fn make_snapshot(
        &mut self,
        index: u64,
        conf_state: &ConfState,
        data: &Bytes,
        doing: &str,
    ) {
        let step = Step::MakeSnapshot(index, conf_state.clone(), data.clone());
        self.step(step, doing);
    }

    pub(super) fn compact(&mut self, index: u64, doing: &str) {
        self.step(Step::Compact(index), doing);
    }

    fn agree(
        &mut self,
        wanted: &Result<(), StorageError>,
        got: &Result<(), StorageError>,
        doing: &str,
    ) -> bool {
        match (wanted, got) {
            (Ok(()), _) => demand(got.is_ok(), DONE, format_args!("{got:?} {doing}")),
            (Err(wanted), Err(got)) if discriminant(wanted) == discriminant(got) => {}
            (Err(_), _) => demand(
                false,
                REFUSED,
                format_args!("{got:?}, not {wanted:?} {doing}"),
            ),
        }
        self.verify(doing);
        wanted.is_ok()
    }

    /// Appends an entry of each of `terms` from the `n`th index on, with the hard state of their
    /// last term if that is new.
    pub(super) fn append(&mut self, n: u64, terms: &[u64], doing: &str) {
        let entries = self.entries(n, terms);
        let term = entries.last().map_or(0, |last| last.term);
        let HardState {
            term: present,
            commit,
            ..
        } = self.model.hard_state;
        let plan = Plan {
            hard_state: (term > present).then_some(HardState {
                term,
                vote: 0,
                commit,
            }),
            entries,
            ..Plan::default()
        };
        self.write(plan, doing);
    }

    /// Entries of each of `terms` from the `n`th index on.
    pub(super) fn entries(&self, n: u64, terms: &[u64]) -> Vec<Entry> {
        let entry = |(index, term): (u64, &u64)| {
            let (index, term) = (self.at(index), self.term(*term));
            entry(index, term, format!("{index} of {term}").into())
        };
        (n..).zip(terms).map(entry).collect()
    }

    /// A snapshot at the `n`th index, with the hard state that says so.
    pub(super) fn snapshot(&self, n: u64, term: u64, conf_state: &ConfState, data: &Bytes) -> Plan {
        let metadata = SnapshotMetadata {
            conf_state: Some(conf_state.clone()),
            index: self.at(n),
            term: self.term(term),
        };
        Plan {
            hard_state: Some(self.hard_state(term, 0, n)),
            snapshot: Some((metadata, data.clone())),
            ..Plan::default()
        }
    }

    /// A hard state with the `term`th term, and committed up to the `commit`th index.
    pub(super) fn hard_state(&self, term: u64, vote: u64, commit: u64) -> HardState {
        HardState {
            term: self.term(term),
            vote,
            commit: self.at(commit),
        }
    }
}

/// A normal entry.
pub(super) fn entry(index: u64, term: u64, data: Bytes) -> Entry {
    Entry {
        entry_type: EntryType::EntryNormal.into(),
        term,
        index,
        data,
    }
}

impl From<HardState> for Plan {
    fn from(hard_state: HardState) -> Self {
        Self {
            hard_state: Some(hard_state),
            ..Self::default()
        }
    }
}

impl From<Vec<Entry>> for Plan {
    fn from(entries: Vec<Entry>) -> Self {
        Self {
            entries,
            ..Self::default()
        }
    }
}
