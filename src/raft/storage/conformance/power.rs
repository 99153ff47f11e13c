//! What must be left after a loss of power: rules by small writes, then random ones.

use basalt_proto::eraftpb::ConfState;
use bytes::Bytes;

use super::{
    Counts, PowerLoss, demand,
    model::{Model, Plan, Step},
    random::Source,
    voters,
    world::{World, entry},
};

const SYNC_CHANGES_NOTHING: &str = "a sync changes nothing of what is read";
const HARD_STATE: &str =
    "after a loss of power the hard state is the last one synced, or a later one as it was written";
const SYNCED: &str = "what was synced is there after a loss of power";
const IN_ORDER: &str =
    "after a loss of power the writes up to some point are there, each whole, and none after it";
const FOR_GOOD: &str = "what was found after a loss of power is there after the next one";

/// Losses of power that each written-out rule is shown by.
const LOSSES: u64 = 24;
/// Steps after which a new storage is taken.
const STEPS_OF_A_LIFE: u64 = 150;

/// A storage, its model, and how much of the model is durable.
struct Powered<S> {
    world: World<S>,
    /// As of the last sync.
    synced: Model,
    /// What was done since, without what was refused.
    since: Vec<Step>,
}

/// A state that a loss of power may leave.
struct Left {
    model: Model,
    /// How many steps since the last sync are not in it.
    lost: usize,
    /// How many are.
    kept: usize,
}

impl<S: PowerLoss> Powered<S> {
    fn new(open: &mut impl FnMut(&ConfState) -> S) -> Self {
        let mut world = World::new(open, &voters(&[1, 2, 3]), "in a new log");
        // Nobody relies on a log before its first write is synced.
        world.subject.sync();
        Self {
            synced: world.model.clone(),
            since: Vec::new(),
            world,
        }
    }

    /// True if the step was done.
    fn step(&mut self, step: Step, doing: &str) -> bool {
        let done = self.world.step(step.clone(), doing);
        if done {
            self.since.push(step);
        }
        done
    }

    fn write(&mut self, plan: impl Into<Plan>, doing: &str) {
        self.step(Step::Write(plan.into()), doing);
    }

    /// Entries of each of `terms` from the `n`th index on, in one write with their term.
    fn append(&mut self, n: u64, terms: &[u64], doing: &str) {
        let (entries, mut hard_state) = (self.world.entries(n, terms), self.world.model.hard_state);
        if let Some(last) = entries.last().filter(|last| last.term > hard_state.term) {
            (hard_state.term, hard_state.vote) = (last.term, 0);
        }
        let plan = Plan {
            hard_state: Some(hard_state),
            entries,
            ..Plan::default()
        };
        self.write(plan, doing);
    }

    fn sync(&mut self, doing: &str) {
        self.world.subject.sync();
        let seen = Model::read(&mut self.world.subject, doing);
        if let Some((_, how)) = self.world.model.difference(&seen) {
            demand(false, SYNC_CHANGES_NOTHING, format_args!("{how} {doing}"));
        }
        self.synced = seen;
        self.since.clear();
    }

    /// All states that a loss of power may leave, those with the most first.
    fn possible(&self) -> Vec<Left> {
        let is_write = |step: &&Step| matches!(step, Step::Write(_));
        let writes = self.since.iter().filter(is_write).count();
        let others = self.since.len() - writes;
        let mut possible = Vec::new();
        for kept_writes in (0..=writes).rev() {
            for kept_others in (0..=others).rev() {
                possible.push(self.left(kept_writes, kept_others));
            }
        }
        possible
    }

    /// The state with that many writes, and that many steps of the state machine.
    fn left(&self, writes: usize, others: usize) -> Left {
        let mut model = self.synced.clone();
        let (mut writes_left, mut others_left) = (writes, others);
        for step in &self.since {
            let left = match step {
                Step::Write(_) => &mut writes_left,
                Step::MakeSnapshot(..) | Step::Compact(_) => &mut others_left,
            };
            if *left > 0 {
                *left -= 1;
                let done = model.step(step);
                debug_assert!(done.is_ok(), "{step:?} cannot be done alone");
            }
        }
        let kept = writes + others;
        Left {
            model,
            lost: self.since.len() - kept,
            kept,
        }
    }

    /// Cuts the power; what is left must be possible. How many steps were lost, and how many kept.
    fn lose_power(&mut self, fate: u64, doing: &str) -> (usize, usize) {
        self.world.subject.lose_power(fate);
        let seen = Model::read(&mut self.world.subject, doing);
        let possible = self.possible();
        let Some(left) = possible.iter().find(|left| left.model == seen) else {
            self.complain(&possible, &seen, doing);
        };
        let counts = (left.lost, left.kept);
        self.world.model = seen.clone();
        self.synced = seen;
        self.since.clear();
        counts
    }

    /// Cuts the power twice, with nothing between.
    fn lose_power_twice(&mut self, fate: u64, again: u64, doing: &str) -> (usize, usize) {
        let counts = self.lose_power(fate, doing);
        self.world.subject.lose_power(again);
        let seen = Model::read(&mut self.world.subject, doing);
        if let Some((_, how)) = self.synced.difference(&seen) {
            demand(false, FOR_GOOD, format_args!("{how} {doing}"));
        }
        counts
    }

    /// Names the rule by which `seen` is none of the `possible` states.
    #[track_caller]
    fn complain(&self, possible: &[Left], seen: &Model, doing: &str) -> ! {
        let hard_states: Vec<_> = possible.iter().map(|left| left.model.hard_state).collect();
        demand(
            hard_states.contains(&seen.hard_state),
            HARD_STATE,
            format_args!("{:?} is none of {hard_states:?} {doing}", seen.hard_state),
        );
        let (what, how) = self.synced.difference(seen).unwrap_or_default();
        let known_machine = possible.iter().any(|Left { model, .. }| {
            model.conf_state == seen.conf_state && model.snapshot == seen.snapshot
        });
        let rule = if self.since.is_empty() || !self.has_synced(seen) || !known_machine {
            SYNCED
        } else {
            IN_ORDER
        };
        let terms = |model: &Model| model.entries.values().map(|e| e.term).collect::<Vec<_>>();
        panic!(
            "{rule}: against the last sync, {what}: {how}; {} steps since; the log is behind {:?} \
             with terms {:?}, was synced behind {:?} with terms {:?}, {doing}",
            self.since.len(),
            seen.base,
            terms(seen),
            self.synced.base,
            terms(&self.synced)
        );
    }

    /// Whether `seen` has each synced entry that no later write has touched.
    fn has_synced(&self, seen: &Model) -> bool {
        let touched = self.since.iter().filter_map(|step| match step {
            Step::Write(plan) if plan.snapshot.is_some() => Some(0),
            Step::Write(plan) => plan.entries.first().map(|entry| entry.index),
            Step::MakeSnapshot(..) | Step::Compact(_) => None,
        });
        let end = touched.min().unwrap_or(u64::MAX);
        let mut untouched = self.synced.entries.range(..end);
        untouched
            .all(|(index, entry)| *index <= seen.base.0 || seen.entries.get(index) == Some(entry))
    }
}

/// The rules, each by small writes that show it.
pub(in crate::storage) fn power_rules<S: PowerLoss>(
    open: &mut impl FnMut(&ConfState) -> S,
    seed: u64,
) {
    let mut source = Source::new(seed, false);
    for _ in 0..LOSSES {
        let fates = [(); 3].map(|()| source.below(u64::MAX));
        synced_writes_stay(open, fates);
        synced_machines_stay(open, fates);
        unsynced_writes_leave_from_the_back(open, fates);
        a_write_is_whole(open, fates);
    }
}

fn synced_writes_stay<S: PowerLoss>(open: &mut impl FnMut(&ConfState) -> S, fates: [u64; 3]) {
    let mut powered = Powered::new(open);
    powered.lose_power(fates[0], "after a loss of power in a new log");
    let vote = powered.world.hard_state(1, 2, 0);
    powered.write(vote, "after a vote");
    powered.sync("after a vote");
    powered.lose_power(fates[1], "after a synced vote and a loss of power");
    powered.append(1, &[1, 1, 1, 1, 1, 1], "after entries");
    powered.sync("after entries");
    powered.lose_power(fates[2], "after synced entries and a loss of power");
    powered.append(3, &[2, 2], "after entries that replace others");
    powered.sync("after entries that replace others");
    powered.lose_power(
        fates[0],
        "after synced entries that replace others, and a loss of power",
    );
    let data = Bytes::from_static(b"from elsewhere");
    let mut plan = powered.world.snapshot(9, 3, &voters(&[1, 4]), &data);
    plan.entries = powered.world.entries(10, &[3]);
    powered.write(plan, "after a snapshot");
    powered.sync("after a snapshot");
    powered.lose_power(fates[1], "after a synced snapshot and a loss of power");
}

fn synced_machines_stay<S: PowerLoss>(open: &mut impl FnMut(&ConfState) -> S, fates: [u64; 3]) {
    let mut powered = Powered::new(open);
    powered.append(1, &[1, 2, 3, 4], "after entries");
    let committed = powered.world.hard_state(4, 0, 3);
    powered.write(committed, "after a commit");
    powered.sync("after a commit");
    let (two, three, data) = (powered.world.at(2), powered.world.at(3), Bytes::new());
    let made = Step::MakeSnapshot(three, voters(&[1, 2]), data);
    powered.step(made, "after a snapshot is made");
    powered.step(Step::Compact(two), "after a compaction");
    powered.append(5, &[4], "after an entry");
    powered.lose_power_twice(
        fates[0],
        fates[1],
        "after a snapshot, a compaction and an entry, and two losses of power",
    );
    powered.sync("after a loss of power");
    powered.lose_power(
        fates[2],
        "after a loss of power, a sync, and a loss of power",
    );
}

fn unsynced_writes_leave_from_the_back<S: PowerLoss>(
    open: &mut impl FnMut(&ConfState) -> S,
    fates: [u64; 3],
) {
    let mut powered = Powered::new(open);
    powered.append(1, &[1, 1, 1, 1, 1, 1], "after entries");
    powered.sync("after entries");
    powered.append(7, &[1, 1], "after entries behind synced ones");
    powered.append(4, &[2], "after an entry that replaces synced ones");
    let vote = powered.world.hard_state(3, 2, 4);
    powered.write(vote, "after a vote");
    powered.append(5, &[3, 3], "after entries of a new term");
    powered.lose_power_twice(
        fates[0],
        fates[1],
        "after writes without a sync, and two losses of power",
    );
    // Life goes on from whatever is left.
    let next = powered.world.model.last() + 1 - powered.world.at(0);
    powered.append(next, &[4, 4], "after entries behind what was left");
    powered.sync("after entries behind what was left");
    powered.lose_power(
        fates[2],
        "after synced entries behind what was left, and a loss of power",
    );
}

fn a_write_is_whole<S: PowerLoss>(open: &mut impl FnMut(&ConfState) -> S, fates: [u64; 3]) {
    /// So large that no page or buffer takes the whole write.
    const PAYLOAD: usize = 40_000;
    let mut powered = Powered::new(open);
    powered.append(1, &[1, 1], "after entries");
    powered.sync("after entries");
    let world = &powered.world;
    let payload = Bytes::from(vec![b'p'; PAYLOAD]);
    let large = |n| entry(world.at(n), world.term(2), payload.clone());
    let plan = Plan {
        hard_state: Some(world.hard_state(2, 3, 5)),
        entries: (2..=6).map(large).collect(),
        ..Plan::default()
    };
    powered.write(plan, "after a large write");
    powered.lose_power(fates[0], "after a large write and a loss of power");
    let data = Bytes::from(vec![b'd'; PAYLOAD]);
    let mut plan = powered.world.snapshot(8, 3, &voters(&[1, 5]), &data);
    plan.entries = powered.world.entries(9, &[3, 3]);
    powered.write(plan, "after a snapshot with entries behind it");
    powered.lose_power(
        fates[1],
        "after a snapshot with entries behind it and a loss of power",
    );
}

/// `steps` random steps, syncs and losses of power.
pub(in crate::storage) fn random_power_losses<S: PowerLoss>(
    open: &mut impl FnMut(&ConfState) -> S,
    seed: u64,
    steps: u64,
) -> Counts {
    let mut counts = Counts::default();
    let mut powered = Powered::new(open);
    let mut source = Source::new(seed, powered.world.subject.keeps_roles());
    for number in 1..=steps {
        if number % STEPS_OF_A_LIFE == 0 {
            powered = Powered::new(open);
        }
        let at = format!("step {number} of seed {seed:#x}");
        match source.below(12) {
            0..3 => powered.sync(&format!("after a sync, {at}")),
            3 | 4 => {
                let (fate, again) = (source.below(u64::MAX), source.below(u64::MAX));
                let doing = format!("after a loss of power, {at}");
                let (lost, kept) = powered.lose_power_twice(fate, again, &doing);
                counts.power_losses += 1;
                counts.losses_of_writes += u64::from(lost > 0);
                counts.unsynced_kept += u64::from(kept > 0);
            }
            _ => {
                // A state machine applies what is committed and durable.
                let applied = powered.synced.hard_state.commit;
                let model = powered.world.model.clone();
                let step = source.step(&model, applied);
                let done = powered.step(step.clone(), &format!("after {step}, {at}"));
                counts.count(&step, &model, done);
            }
        }
    }
    counts
}
