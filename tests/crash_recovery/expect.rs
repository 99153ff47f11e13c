//! What a crash may leave, and whether a database that was opened on it is one of that.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use basalt_engine::fs::sim::Survival;

use crate::model::{Checkpoint, Content, LOGGED, Map, Set, State, UNLOGGED};

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
