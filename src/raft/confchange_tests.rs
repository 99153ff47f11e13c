//! Membership changes against two plain sets, over random sequences: where each leads, that the
//! invariants hold on the way, and that the majorities before and after always share a voter.

use std::collections::BTreeSet;

use basalt_testkit::{Replay, Rng, Seeds, long_factor};

use super::*;
use crate::{
    quorum::VoteResult,
    tracker::{ProgressState, Tracker},
};

/// Ids that changes name; 0 is a change that was cancelled.
const IDS: u64 = 7;
const LAST_INDEX: u64 = 40;

type Ids = BTreeSet<u64>;

/// Who votes and who learns; all that a simple membership is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Members {
    voters: Ids,
    learners: Ids,
}

impl Members {
    fn after(&self, changes: &[ConfChangeSingle]) -> Self {
        let mut after = self.clone();
        for change in changes.iter().filter(|change| change.node_id != 0) {
            let id = change.node_id;
            match change.change_type() {
                ConfChangeType::AddNode => {
                    after.learners.remove(&id);
                    after.voters.insert(id);
                }
                ConfChangeType::AddLearnerNode => {
                    after.voters.remove(&id);
                    after.learners.insert(id);
                }
                ConfChangeType::RemoveNode => {
                    after.voters.remove(&id);
                    after.learners.remove(&id);
                }
                ConfChangeType::UpdateNode => {}
            }
        }
        after
    }
}

/// What stands between two memberships, as sets.
#[derive(Clone, Debug)]
struct Model {
    /// Where it leads; where it is, unless joint.
    members: Members,
    /// Who voted before, if joint.
    outgoing: Ids,
    auto_leave: bool,
}

impl Model {
    fn config(&self) -> Configuration {
        let list = |ids: &Ids| ids.iter().copied().collect::<MajorityConfig>();
        let Members { voters, learners } = &self.members;
        let mut config = Configuration::default();
        config.voters.incoming = list(voters);
        config.voters.outgoing = list(&self.outgoing);
        config.learners = list(&(learners - &self.outgoing));
        config.learners_next = list(&(learners & &self.outgoing));
        config.auto_leave = self.auto_leave;
        config
    }

    /// Where `change` leads; `None` where it must be refused.
    fn after(&self, change: &ConfChangeV2) -> Option<Self> {
        let joint = !self.outgoing.is_empty();
        let simple = |members: Members| Self {
            members,
            outgoing: Ids::new(),
            auto_leave: false,
        };
        let members = self.members.after(&change.changes);
        let is_auto = change.transition() == ConfChangeTransition::TransitionAuto;
        if is_auto && change.changes.is_empty() {
            return joint.then(|| simple(members));
        }
        if joint || members.voters.is_empty() {
            return None;
        }
        if is_auto && change.changes.len() == 1 {
            let moved = &members.voters ^ &self.members.voters;
            return (moved.len() <= 1).then(|| simple(members));
        }
        if self.members.voters.is_empty() {
            return None;
        }
        Some(Self {
            members,
            outgoing: self.members.voters.clone(),
            auto_leave: change.transition() != ConfChangeTransition::TransitionJointExplicit,
        })
    }
}

fn single(kind: ConfChangeType, id: u64) -> ConfChangeSingle {
    ConfChangeSingle {
        change_type: kind.into(),
        node_id: id,
    }
}

fn singles(rng: &mut Rng, count: u64) -> Vec<ConfChangeSingle> {
    let kinds = [
        ConfChangeType::AddNode,
        ConfChangeType::AddNode,
        ConfChangeType::AddLearnerNode,
        ConfChangeType::RemoveNode,
        ConfChangeType::RemoveNode,
        ConfChangeType::UpdateNode,
    ];
    let changes = (0..count).map(|_| single(*rng.pick(&kinds), rng.below(IDS + 1)));
    changes.collect()
}

fn change(rng: &mut Rng) -> ConfChangeV2 {
    let transitions = [
        ConfChangeTransition::TransitionAuto,
        ConfChangeTransition::TransitionAuto,
        ConfChangeTransition::TransitionJointImplicit,
        ConfChangeTransition::TransitionJointExplicit,
    ];
    let count = *rng.pick(&[0, 1, 1, 1, 2, 3, 5]);
    ConfChangeV2 {
        transition: (*rng.pick(&transitions)).into(),
        changes: singles(rng, count),
        context: Bytes::new(),
    }
}

/// A membership that changes, with what a leader knows of its members.
#[derive(Clone, Debug, Default)]
struct Group {
    tracker: Tracker,
    /// How many changes there were.
    session: u64,
}

impl Group {
    fn of(ids: &[u64]) -> Self {
        let mut group = Self::default();
        for id in ids {
            let added = single(ConfChangeType::AddNode, *id);
            let config = group.with(|changer| changer.simple(&[added]));
            group.take(config.expect("one voter more"));
        }
        group
    }

    fn with<T>(&self, change: impl FnOnce(Changer<'_>) -> T) -> T {
        change(Changer {
            config: &self.tracker.config,
            progress: &self.tracker.progress,
            last_index: LAST_INDEX,
            session: self.session + 1,
            inflights: &Inflights::new(8, 1 << 20),
        })
    }

    fn take(&mut self, (config, progress): Changed) {
        self.session += 1;
        self.tracker.config = config;
        self.tracker.progress = progress;
        self.tracker.check();
    }

    fn config(&self) -> &Configuration {
        &self.tracker.config
    }

    /// What is known of a member stays while it is one, and a new one begins anew.
    fn check_progress(&self, before: &Self) {
        for (id, now) in self.tracker.progress.iter() {
            match before.tracker.progress.get(id) {
                // Only a learner can leave and come back within one change.
                Some(kept) if now.session == kept.session => {
                    assert_eq!((now.matched, now.next), (kept.matched, kept.next), "{id}");
                }
                was => {
                    assert!(
                        was.is_none_or(|was| was.is_learner),
                        "{id} lost its progress"
                    );
                    assert_eq!(now.session, self.session, "a life of its own for {id}");
                    assert_eq!(now.state, ProgressState::Probe);
                    assert_eq!((now.matched, now.next), (0, LAST_INDEX));
                    assert!(now.recent_active, "{id} had no time to answer");
                }
            }
        }
    }
}

/// Every set of ids that decides in `config`.
fn quorums(config: &Configuration) -> Vec<u64> {
    let decides = |set: &u64| {
        let vote = |id: u64| Some(set >> id & 1 == 1);
        config.voters.vote_result(vote) == VoteResult::Won
    };
    (0..1 << (IDS + 1)).filter(decides).collect()
}

/// The smallest quorums; every other one contains one of them.
fn smallest_quorums(config: &Configuration) -> Vec<u64> {
    let all = quorums(config);
    let least = |set: &&u64| {
        !all.iter()
            .any(|other| other != *set && *set & other == *other)
    };
    all.iter().filter(least).copied().collect()
}

fn always_meet(one: &Configuration, other: &Configuration) -> bool {
    let others = smallest_quorums(other);
    let ones = smallest_quorums(one);
    ones.iter()
        .all(|set| others.iter().all(|other| set & other != 0))
}

#[test]
fn random_changes_lead_where_two_sets_say_and_keep_the_invariants() {
    let test = "random_changes_lead_where_two_sets_say_and_keep_the_invariants";
    let (mut taken, mut refused, mut joint) = (0, 0, 0);
    let seeds = Seeds::new(test, 150 * long_factor());
    let replays = seeds.is_replay();
    for seed in seeds {
        let _replay = Replay::new("-p basalt-raft", test, seed);
        let rng = &mut Rng::new(seed);
        let mut group = Group::of(&[1, 2, 3]);
        let mut model = Model {
            members: Members {
                voters: Ids::from([1, 2, 3]),
                learners: Ids::new(),
            },
            outgoing: Ids::new(),
            auto_leave: false,
        };
        for _ in 0..40 {
            let mut change = change(rng);
            if !model.outgoing.is_empty() && rng.one_in(2) {
                // Little else fits here.
                change = ConfChangeV2::default();
            }
            let result = group.with(|changer| changer.change(&change));
            let wanted = model.after(&change);
            let as_written = MembershipChange::from(change.clone());
            let written = next_conf_state(&group.config().to_conf_state(), &as_written);
            assert_eq!(
                written.ok(),
                wanted.as_ref().map(|next| next.config().to_conf_state()),
                "{change:?} at {model:?}"
            );
            assert_eq!(
                result.is_ok(),
                wanted.is_some(),
                "{change:?} at {model:?}: {result:?}"
            );
            let (Ok(changed), Some(next)) = (result, wanted) else {
                refused += 1;
                continue;
            };
            let before = group.clone();
            group.take(changed);
            group.check_progress(&before);
            assert_eq!(*group.config(), next.config(), "{change:?} at {model:?}");
            assert!(
                always_meet(before.config(), group.config()),
                "quorums of {} and of {} need not meet",
                before.config(),
                group.config()
            );
            let state = group.config().to_conf_state();
            assert_eq!(
                Configuration::from_conf_state(&state).unwrap(),
                next.config()
            );
            taken += 1;
            joint += u64::from(group.config().voters.is_joint());
            model = next;
        }
    }
    println!("{taken} changes taken, {joint} of them into joint ones, {refused} refused");
    assert!(replays || (taken > 1_500 && refused > 1_000 && joint > 400));
}

#[test]
fn the_joint_route_and_the_simple_steps_end_at_the_same_membership() {
    let test = "the_joint_route_and_the_simple_steps_end_at_the_same_membership";
    let (mut compared, mut unsafe_directly) = (0, 0);
    let seeds = Seeds::new(test, 300 * long_factor());
    let replays = seeds.is_replay();
    for seed in seeds {
        let _replay = Replay::new("-p basalt-raft", test, seed);
        let rng = &mut Rng::new(seed);
        let start = Group::of(&[1, 2, 3]);
        let count = 1 + rng.below(5);
        let changes = singles(rng, count);

        let mut stepwise = Some(start.clone());
        for change in &changes {
            stepwise = stepwise.and_then(|mut group| {
                let changed = group.with(|changer| changer.simple(&[*change]));
                group.take(changed.ok()?);
                Some(group)
            });
        }
        let auto_leave = rng.one_in(2);
        let entered = start.with(|changer| changer.enter_joint(auto_leave, &changes));
        // A way without voters is no way, though its end may be one.
        let (Some(stepwise), Ok(entered)) = (stepwise, entered) else {
            continue;
        };
        let mut joint = start.clone();
        joint.take(entered);
        assert_eq!(joint.config().auto_leave, auto_leave);
        assert_eq!(
            joint.config().voters.outgoing,
            start.config().voters.incoming
        );
        let left = joint.with(|changer| changer.leave_joint()).unwrap();
        joint.take(left);
        assert_eq!(joint.config(), stepwise.config(), "{changes:?}");
        compared += 1;
        unsafe_directly += u64::from(!always_meet(start.config(), joint.config()));
    }
    println!("{compared} compared, {unsafe_directly} of them unsafe as one step");
    // Without such cases nothing would have shown that joint configurations are needed.
    assert!(replays || (compared > 150 && unsafe_directly > 10));
}

#[test]
fn a_refused_change_leaves_the_membership_as_it_was() {
    let group = Group::of(&[1, 2, 3]);
    let none_left: Vec<_> = (1..=3)
        .map(|id| single(ConfChangeType::RemoveNode, id))
        .collect();
    let two_at_once = [4, 5].map(|id| single(ConfChangeType::AddNode, id));
    let unknown = ConfChangeSingle {
        change_type: 77,
        node_id: 4,
    };
    let refused = [
        group.with(|changer| changer.simple(&none_left)),
        group.with(|changer| changer.simple(&two_at_once)),
        group.with(|changer| changer.simple(&[unknown])),
        group.with(|changer| changer.enter_joint(true, &none_left)),
        group.with(|changer| changer.leave_joint()),
        Group::default().with(|changer| changer.enter_joint(true, &two_at_once)),
    ];
    for result in refused {
        assert!(matches!(result, Err(Error::ConfChange(_))), "{result:?}");
    }
    let mut joint = group.clone();
    let entered = group.with(|changer| changer.enter_joint(false, &two_at_once));
    joint.take(entered.unwrap());
    let refused = [
        joint.with(|changer| changer.simple(&two_at_once[..1])),
        joint.with(|changer| changer.enter_joint(false, &two_at_once)),
    ];
    for result in refused {
        assert!(matches!(result, Err(Error::ConfChange(_))), "{result:?}");
    }
    assert_eq!(joint.config().to_string(), "voters=(1 2 3 4 5)&&(1 2 3)");
    assert_eq!(group.config().to_string(), "voters=(1 2 3)");
}

#[test]
fn a_change_comes_back_from_its_entry_and_rubbish_is_refused() {
    let test = "a_change_comes_back_from_its_entry_and_rubbish_is_refused";
    for seed in Seeds::new(test, 100 * long_factor()) {
        let _replay = Replay::new("-p basalt-raft", test, seed);
        let rng = &mut Rng::new(seed);
        let wide = MembershipChange::V2(change(rng));
        let one = singles(rng, 1)[0];
        let narrow = MembershipChange::V1(ConfChange {
            change_type: one.change_type,
            node_id: one.node_id,
            context: Bytes::from_static(b"who asked"),
        });
        for change in [wide, narrow.clone()] {
            let (kind, data) = change.encode();
            assert_eq!(MembershipChange::decode(kind, data).unwrap(), change);
        }
        let widened = narrow.into_v2();
        assert_eq!(widened.changes, [one]);
        assert_eq!(widened.context, "who asked");
    }
    let rubbish = Bytes::from_static(&[0xff; 9]);
    for kind in [
        EntryType::EntryConfChange,
        EntryType::EntryConfChangeV2,
        EntryType::EntryNormal,
    ] {
        let decoded = MembershipChange::decode(kind, rubbish.clone());
        assert!(matches!(decoded, Err(Error::ConfChange(_))), "{kind:?}");
    }
}

#[test]
fn a_membership_that_contradicts_itself_is_refused() {
    let state = |nodes: &[u64], outgoing: &[u64], learners: &[u64], next: &[u64]| {
        basalt_proto::eraftpb::ConfState {
            nodes: nodes.to_vec(),
            voters_outgoing: outgoing.to_vec(),
            learners: learners.to_vec(),
            learners_next: next.to_vec(),
            auto_leave: false,
        }
    };
    let good = [
        state(&[], &[], &[], &[]),
        state(&[1, 2], &[], &[3], &[]),
        state(&[1, 2], &[2, 3], &[4], &[3]),
    ];
    for state in good {
        assert!(Configuration::from_conf_state(&state).is_ok(), "{state:?}");
    }
    let mut leaves_nothing = state(&[1], &[], &[], &[]);
    leaves_nothing.auto_leave = true;
    let bad = [
        state(&[0, 1], &[], &[], &[]),
        state(&[1], &[], &[1], &[]),
        state(&[1], &[2], &[2], &[]),
        state(&[], &[], &[1], &[]),
        state(&[], &[1], &[], &[]),
        state(&[1], &[], &[], &[2]),
        state(&[1], &[2], &[], &[3]),
        state(&[1, 2], &[2], &[], &[2]),
        state(&[1], &[2], &[3], &[3]),
        leaves_nothing,
    ];
    for state in bad {
        assert!(Configuration::from_conf_state(&state).is_err(), "{state:?}");
    }
}
