//! Random writes such as nodes and state machines make, and the run of them beside the model.

use std::collections::BTreeSet;

use basalt_proto::eraftpb::{ConfState, Entry, EntryType, HardState, SnapshotMetadata};
use bytes::Bytes;

use super::{
    Counts, Subject,
    model::{Model, Plan, Step},
    voters,
    world::{World, entry},
};
use crate::{NO_LIMIT, rng::Rng};

/// Members are drawn from `1..=MEMBERS`.
const MEMBERS: u64 = 7;
/// Steps after which a new storage is taken, so that young logs are seen often.
const STEPS_OF_A_LIFE: u64 = 60;

/// Where random steps come from.
pub(super) struct Source {
    rng: Rng,
    /// Whether memberships have more than voters.
    roles: bool,
}

impl Source {
    pub(super) fn new(seed: u64, roles: bool) -> Self {
        Self {
            rng: Rng::new(seed, 0),
            roles,
        }
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.rng.below(bound)
    }

    /// A number from `low` to `high`, both included.
    fn within(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    fn payload(&mut self) -> Bytes {
        let len = match self.below(8) {
            0 | 1 => 0,
            2 => 300,
            _ => self.below(40),
        };
        let bytes = (0..len).map(|_| self.below(256).to_le_bytes()[0]);
        bytes.collect::<Vec<u8>>().into()
    }

    fn members(&mut self, one_in: u64) -> BTreeSet<u64> {
        (1..=MEMBERS).filter(|_| self.below(one_in) == 0).collect()
    }

    /// A membership that keeps its own rules.
    fn conf_state(&mut self) -> ConfState {
        let mut incoming = self.members(2);
        incoming.insert(1);
        let list = |ids: BTreeSet<u64>| ids.into_iter().collect::<Vec<u64>>();
        if !self.roles {
            return voters(&list(incoming));
        }
        let joint = self.below(3) == 0;
        let outgoing = if joint {
            self.members(2)
        } else {
            BTreeSet::new()
        };
        let leaving: BTreeSet<u64> = &outgoing - &incoming;
        let next = leaving.into_iter().filter(|_| self.below(2) == 0).collect();
        let learners: BTreeSet<u64> = &(&self.members(3) - &incoming) - &outgoing;
        ConfState {
            auto_leave: !outgoing.is_empty() && self.below(2) == 0,
            nodes: list(incoming),
            learners: list(learners),
            voters_outgoing: list(outgoing),
            learners_next: list(next),
        }
    }

    /// Up to `most` entries from `first` on, whose terms go up from `low` to at most `high`.
    fn entries(&mut self, first: u64, most: u64, low: u64, high: u64) -> Vec<Entry> {
        let mut term = low;
        let count = self.below(most + 1);
        let entry = |index| {
            if self.below(3) == 0 {
                term = self.within(term, high);
            }
            let kinds = [
                EntryType::EntryNormal,
                EntryType::EntryConfChange,
                EntryType::EntryConfChangeV2,
            ];
            let kind = kinds.into_iter().find(|_| self.below(3) > 0);
            Entry {
                entry_type: kind.unwrap_or(EntryType::EntryNormal).into(),
                term,
                index,
                data: self.payload(),
            }
        };
        (first..first + count).map(entry).collect()
    }

    /// The hard state that follows `present`; committed up to `commit`.
    fn hard_state(&mut self, present: HardState, commit: u64) -> HardState {
        let term = (present.term + self.below(3)).max(1);
        let undecided = term > present.term || present.vote == 0;
        HardState {
            term,
            vote: if undecided {
                self.below(MEMBERS + 1)
            } else {
                present.vote
            },
            commit,
        }
    }

    /// A write without a snapshot: entries above what is committed, a hard state, or both.
    pub(super) fn write(&mut self, model: &Model) -> Plan {
        let present = model.hard_state;
        // A first write brings a first term.
        let kind = self.below(4).max(u64::from(present.term == 0));
        let mut hard_state = present;
        if kind > 0 {
            hard_state = self.hard_state(present, present.commit);
        }
        let mut entries = Vec::new();
        if kind < 3 {
            let last = model.last();
            let first = if self.below(3) > 0 {
                last + 1
            } else {
                self.within(present.commit + 1, last + 1)
            };
            let low = model.term(first - 1).unwrap_or(hard_state.term).max(1);
            entries = self.entries(first, 6, low, hard_state.term.max(low));
        }
        let last = entries.last().map_or(model.last(), |entry| entry.index);
        if kind > 0 && self.below(2) == 0 {
            hard_state.commit = self.within(present.commit, last);
        }
        Plan {
            hard_state: (kind > 0).then_some(hard_state),
            snapshot: None,
            entries,
        }
    }

    /// An old write that comes again and changes nothing: all of it is compacted, or in the log.
    fn old_write(&mut self, model: &Model) -> Plan {
        let count = self.below(4).min(model.base.0);
        let first = model.base.0 + 1 - count;
        let compacted = first..=model.base.0;
        let mut entries: Vec<Entry> = compacted.map(|i| entry(i, 1, self.payload())).collect();
        if self.below(2) == 0 {
            entries.extend(model.entries.values().cloned());
        }
        entries.into()
    }

    /// A write with a snapshot above what is committed, perhaps with entries behind it.
    pub(super) fn snapshot(&mut self, model: &Model) -> Plan {
        let present = model.hard_state;
        let above = model.last().max(present.commit) + 4;
        let index = self.within(present.commit + 1, above);
        let hard_state = self.hard_state(present, index);
        let term = self.within(model.base.1.max(1), hard_state.term);
        let metadata = SnapshotMetadata {
            conf_state: Some(self.conf_state()),
            index,
            term,
        };
        let most = 3 * self.below(2);
        Plan {
            hard_state: Some(hard_state),
            snapshot: Some((metadata, self.payload())),
            entries: self.entries(index + 1, most, term, hard_state.term),
        }
    }

    /// A snapshot or a compaction of the state machine, which has applied up to `applied`; `None`
    /// where there is nothing new.
    pub(super) fn machine(&mut self, model: &Model, applied: u64) -> Option<Step> {
        let made = model.snapshot_index();
        if self.below(2) == 0 && made < applied {
            let index = self.within(made + 1, applied);
            let (conf_state, data) = (self.conf_state(), self.payload());
            return Some(Step::MakeSnapshot(index, conf_state, data));
        }
        let high = made.min(applied);
        (model.base.0 < high).then(|| Step::Compact(self.within(model.base.0 + 1, high)))
    }

    /// Something that changes nothing, as it comes too late or too early.
    pub(super) fn misfit(&mut self, model: &Model) -> Step {
        let above = model.last() + 1 + self.below(3);
        let compacted = self.below(model.base.0 + 1);
        let made = self.within(0, model.snapshot_index());
        match self.below(5) {
            0 => Step::Compact(compacted),
            1 => Step::Compact(above),
            2 => Step::MakeSnapshot(made, self.conf_state(), self.payload()),
            3 => Step::MakeSnapshot(above, self.conf_state(), self.payload()),
            _ => {
                let mut plan = self.snapshot(model);
                if let Some((metadata, _)) = &mut plan.snapshot {
                    metadata.index = made;
                }
                plan.entries = self.entries(made + 1, 3, 1, 1);
                Step::Write(plan)
            }
        }
    }

    /// Any step. The state machine has applied up to `applied`.
    pub(super) fn step(&mut self, model: &Model, applied: u64) -> Step {
        match self.below(16) {
            0 => Step::Write(self.snapshot(model)),
            1 | 2 => self.misfit(model),
            3..6 => match self.machine(model, applied) {
                Some(step) => step,
                None => Step::Write(self.write(model)),
            },
            _ => Step::Write(self.write(model)),
        }
    }

    /// A range within the log, and a limit for it.
    fn range(&mut self, model: &Model) -> ((u64, u64), u64) {
        let (first, end) = (model.base.0 + 1, model.last() + 1);
        let low = self.within(first, end);
        let high = self.within(low, end);
        let limit = match self.below(4) {
            0 => NO_LIMIT,
            _ => self.below(400),
        };
        ((low, high), limit)
    }
}

impl Counts {
    /// Counts `step`, which was done beside `before` if it is `done`.
    pub(super) fn count(&mut self, step: &Step, before: &Model, done: bool) {
        match step {
            _ if !done => self.refusals += 1,
            Step::Write(plan) if plan.snapshot.is_some() => self.snapshots_applied += 1,
            Step::Write(plan) => {
                self.writes += 1;
                let first = plan.entries.first();
                let overwrites = first.is_some_and(|first| first.index <= before.last());
                self.overwrites += u64::from(overwrites);
            }
            Step::MakeSnapshot(..) => self.snapshots_made += 1,
            Step::Compact(_) => self.compactions += 1,
        }
    }
}

/// `steps` random steps on storages beside their models.
pub(in crate::storage) fn random_writes<S: Subject>(
    open: &mut impl FnMut(&ConfState) -> S,
    seed: u64,
    steps: u64,
) -> Counts {
    let mut counts = Counts::default();
    let three = voters(&[1, 2, 3]);
    let mut world = World::new(open, &three, "in a new log");
    let mut source = Source::new(seed, world.subject.keeps_roles());
    for number in 1..=steps {
        if number % STEPS_OF_A_LIFE == 0 {
            world = World::new(open, &three, "in a new log");
        }
        let step = match source.below(12) {
            0 => Step::Write(source.old_write(&world.model)),
            _ => source.step(&world.model, world.model.hard_state.commit),
        };
        let doing = format!("after {step}, step {number} of seed {seed:#x}");
        let before = world.model.clone();
        let done = world.step(step.clone(), &doing);
        counts.count(&step, &before, done);
        let (range, limit) = source.range(&world.model);
        let World { model, subject, .. } = &mut world;
        counts.cuts += u64::from(model.demand_slice(subject, range, limit, &doing));
    }
    counts
}
