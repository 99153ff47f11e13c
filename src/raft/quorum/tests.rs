//! Votes and commit indexes against the definition of a majority, by trying every subset.

use std::collections::{BTreeMap, BTreeSet};

use basalt_testkit::{Replay, Rng, Seeds, long_factor};

use super::*;

type Acked = BTreeMap<u64, u64>;
type Said = BTreeMap<u64, bool>;

/// Every set of more than half of `ids`; for no ids the empty set, which then decides.
fn majorities(ids: &[u64]) -> Vec<BTreeSet<u64>> {
    let subset = |bits: u64| -> BTreeSet<u64> {
        let members = ids
            .iter()
            .zip(0..)
            .filter(|(_, place)| bits >> place & 1 == 1);
        members.map(|(id, _)| *id).collect()
    };
    let all = (0..1 << ids.len()).map(subset);
    all.filter(|set| set.len() * 2 > ids.len() || ids.is_empty())
        .collect()
}

/// The largest index that all of some majority have, on each of `sides`.
fn committed_by_subsets(sides: &[&[u64]], acked: &Acked) -> u64 {
    let has = |side: &[u64], index: u64| {
        let reached = |id: &u64| acked.get(id).copied().unwrap_or(0) >= index;
        majorities(side)
            .iter()
            .any(|majority| majority.iter().all(reached))
    };
    let mut candidates: BTreeSet<u64> = acked.values().copied().collect();
    candidates.extend([0, u64::MAX]);
    let committed = |index: &u64| sides.iter().all(|side| has(side, *index));
    candidates.into_iter().rev().find(committed).expect("zero")
}

/// What is decided, by trying every way in which the missing votes may come.
fn result_by_outcomes(sides: &[&[u64]], said: &Said) -> VoteResult {
    let voters: BTreeSet<u64> = sides.iter().flat_map(|side| side.iter().copied()).collect();
    let missing: Vec<u64> = voters
        .into_iter()
        .filter(|id| !said.contains_key(id))
        .collect();
    let wins = |bits: u64| {
        let mut all = said.clone();
        all.extend(
            missing
                .iter()
                .zip(0..)
                .map(|(id, place)| (*id, bits >> place & 1 == 1)),
        );
        let agrees = |side: &&[u64]| {
            let mut sets = majorities(side).into_iter();
            sets.any(|majority| majority.iter().all(|id| all[id]))
        };
        sides.iter().all(agrees)
    };
    let outcomes: BTreeSet<bool> = (0..1 << missing.len()).map(wins).collect();
    match (outcomes.contains(&true), outcomes.contains(&false)) {
        (true, false) => VoteResult::Won,
        (false, _) => VoteResult::Lost,
        (true, true) => VoteResult::Pending,
    }
}

fn config(ids: &[u64]) -> MajorityConfig {
    ids.iter().copied().collect()
}

#[test]
fn up_to_five_voters_commit_what_some_majority_has_in_every_case() {
    // Each voter has said nothing, or one of 0 to 3.
    for count in 0..=5_u32 {
        let ids: Vec<u64> = (1..=u64::from(count)).collect();
        for case in 0..5_u64.pow(count) {
            let said = |id: &u64| case / 5_u64.pow(u32::try_from(*id).unwrap() - 1) % 5;
            let acked: Acked = ids
                .iter()
                .map(|id| (*id, said(id)))
                .filter(|(_, n)| *n < 4)
                .collect();
            let got = config(&ids).committed_index(|id| acked.get(&id).copied());
            assert_eq!(
                got,
                committed_by_subsets(&[&ids], &acked),
                "{ids:?} {acked:?}"
            );
        }
    }
}

#[test]
fn up_to_six_voters_decide_as_soon_as_no_missing_vote_matters_in_every_case() {
    for count in 0..=6_u32 {
        let ids: Vec<u64> = (1..=u64::from(count)).collect();
        for case in 0..3_u64.pow(count) {
            let vote = |id: &u64| case / 3_u64.pow(u32::try_from(*id).unwrap() - 1) % 3;
            let voted = ids.iter().filter(|id| vote(id) < 2);
            let said: Said = voted.map(|id| (*id, vote(id) == 1)).collect();
            let got = config(&ids).vote_result(|id| said.get(&id).copied());
            assert_eq!(got, result_by_outcomes(&[&ids], &said), "{ids:?} {said:?}");
        }
    }
}

/// A side of up to `most` voters among 1 to 14; sometimes nobody.
fn side(rng: &mut Rng, most: u64) -> Vec<u64> {
    let count = rng.below(most + 1);
    let ids: BTreeSet<u64> = (0..count).map(|_| 1 + rng.below(14)).collect();
    ids.into_iter().collect()
}

fn acked(rng: &mut Rng) -> Acked {
    let highest = *rng.pick(&[3, 20, u64::MAX]);
    let known = (1..=14).filter(|_| rng.below(8) > 0).collect::<Vec<_>>();
    known
        .into_iter()
        .map(|id| (id, rng.below(highest)))
        .collect()
}

fn said(rng: &mut Rng) -> Said {
    let (missing, no) = (2 + rng.below(4), 2 + rng.below(4));
    let known = (1..=14)
        .filter(|_| !rng.one_in(missing))
        .collect::<Vec<_>>();
    known.into_iter().map(|id| (id, !rng.one_in(no))).collect()
}

#[test]
fn joint_voters_decide_as_both_of_their_sides_do_by_the_definition() {
    let test = "joint_voters_decide_as_both_of_their_sides_do_by_the_definition";
    let mut decided = BTreeMap::new();
    let seeds = Seeds::new(test, 600 * long_factor());
    let replays = seeds.is_replay();
    for seed in seeds {
        let _replay = Replay::new("-p basalt-raft", test, seed);
        let rng = &mut Rng::new(seed);
        let (incoming, outgoing) = (side(rng, 7), side(rng, 7));
        let joint = JointConfig {
            incoming: config(&incoming),
            outgoing: config(&outgoing),
        };
        let (acked, said) = (acked(rng), said(rng));
        let sides = [incoming.as_slice(), outgoing.as_slice()];
        let got = joint.committed_index(|id| acked.get(&id).copied());
        assert_eq!(
            got,
            committed_by_subsets(&sides, &acked),
            "{joint} {acked:?}"
        );
        let got = joint.vote_result(|id| said.get(&id).copied());
        assert_eq!(got, result_by_outcomes(&sides, &said), "{joint} {said:?}");
        *decided.entry(got.to_string()).or_insert(0) += 1;
        assert_eq!(joint.is_joint(), !outgoing.is_empty());
        for id in 1..=14 {
            let votes = incoming.contains(&id) || outgoing.contains(&id);
            assert_eq!(joint.contains(id), votes);
            assert_eq!(joint.ids().contains(id), votes);
        }
    }
    println!("{decided:?}");
    let each = ["VoteWon", "VoteLost", "VotePending"].map(|result| decided.get(result));
    assert!(
        replays || each.iter().all(|n| n > &Some(&50)),
        "{decided:?}"
    );
}

#[test]
fn more_voters_than_fit_on_the_stack_commit_by_the_definition_too() {
    let test = "more_voters_than_fit_on_the_stack_commit_by_the_definition_too";
    for seed in Seeds::new(test, 40 * long_factor()) {
        let _replay = Replay::new("-p basalt-raft", test, seed);
        let rng = &mut Rng::new(seed);
        let ids: Vec<u64> = (1..=8 + rng.below(5)).collect();
        let acked = acked(rng);
        let got = config(&ids).committed_index(|id| acked.get(&id).copied());
        assert_eq!(
            got,
            committed_by_subsets(&[&ids], &acked),
            "{ids:?} {acked:?}"
        );
    }
}

#[test]
fn a_set_of_voters_changes_like_an_ordered_set() {
    let test = "a_set_of_voters_changes_like_an_ordered_set";
    for seed in Seeds::new(test, 50 * long_factor()) {
        let _replay = Replay::new("-p basalt-raft", test, seed);
        let rng = &mut Rng::new(seed);
        let (mut voters, mut model) = (MajorityConfig::default(), BTreeSet::new());
        for _ in 0..60 {
            let id = rng.below(12);
            if rng.one_in(2) {
                assert_eq!(voters.insert(id), model.insert(id));
            } else {
                assert_eq!(voters.remove(id), model.remove(&id));
            }
            assert!(voters.ids().iter().eq(&model), "{voters} {model:?}");
            assert_eq!(
                (voters.len(), voters.is_empty()),
                (model.len(), model.is_empty())
            );
            assert!((0..12).all(|id| voters.contains(id) == model.contains(&id)));
        }
        let again: MajorityConfig = voters
            .ids()
            .iter()
            .rev()
            .chain(voters.ids())
            .copied()
            .collect();
        assert_eq!(again, voters, "collected in another order, and twice");
    }
}

#[test]
fn voters_print_as_the_reference_prints_them() {
    let mut joint = JointConfig {
        incoming: config(&[3, 1, 2]),
        ..JointConfig::default()
    };
    assert_eq!(joint.to_string(), "(1 2 3)");
    joint.outgoing = config(&[2, 11]);
    assert_eq!(joint.to_string(), "(1 2 3)&&(2 11)");
    assert_eq!(JointConfig::default().to_string(), "()");
}
