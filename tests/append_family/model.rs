//! What the families hold, as maps; and random batches over them.

use std::collections::BTreeMap;

use basalt_engine::{ColumnFamily, WriteBatch};
use basalt_testkit::Rng;

/// Bytes of prefix of the two append families.
pub(crate) const PREFIX_BYTES: [usize; 2] = [2, 5];
/// Prefixes that are used of each.
const PREFIXES: u64 = 5;

/// Entries by index.
pub(crate) type Log = BTreeMap<u64, Vec<u8>>;

/// All families at one point of the write order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// Of the append families: by family and prefix. None is empty.
    pub(crate) logs: BTreeMap<(usize, Vec<u8>), Log>,
    pub(crate) plain: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// One operation of a batch.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Append(usize, Vec<u8>, u64, Vec<Vec<u8>>),
    Front(usize, Vec<u8>, u64),
    Back(usize, Vec<u8>, u64),
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
}

impl State {
    /// Takes a step; false where it would leave a gap.
    pub(crate) fn apply(&mut self, step: &Step) -> bool {
        match step {
            Step::Append(family, prefix, first, values) => {
                let log = self.logs.entry((*family, prefix.clone())).or_default();
                let end = log.keys().last().map_or(*first, |last| last + 1);
                // Without values it is a truncation, which leaves no gap.
                if *first > end && !values.is_empty() {
                    return false;
                }
                log.split_off(first);
                log.extend((*first..).zip(values.iter().cloned()));
            }
            Step::Front(family, prefix, index) => {
                let log = self.logs.entry((*family, prefix.clone())).or_default();
                *log = log.split_off(index);
            }
            Step::Back(family, prefix, index) => {
                let log = self.logs.entry((*family, prefix.clone())).or_default();
                log.split_off(index);
            }
            Step::Put(key, value) => {
                self.plain.insert(key.clone(), value.clone());
            }
            Step::Delete(key) => {
                self.plain.remove(key);
            }
        }
        self.logs.retain(|_, log| !log.is_empty());
        true
    }

    /// The keys and values of an append family in order.
    pub(crate) fn rows(&self, family: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        let logs = self.logs.iter().filter(|((of, _), _)| *of == family);
        logs.flat_map(|((_, prefix), log)| {
            log.iter()
                .map(|(index, value)| (key(prefix, *index), value.clone()))
        })
        .collect()
    }
}

/// The key of an entry.
pub(crate) fn key(prefix: &[u8], index: u64) -> Vec<u8> {
    [prefix, &index.to_be_bytes()].concat()
}

/// A prefix of a family.
pub(crate) fn prefix(rng: &mut Rng, family: usize) -> Vec<u8> {
    let mut prefix = vec![0xff; PREFIX_BYTES[family]];
    prefix[0] = u8::try_from(rng.below(PREFIXES)).expect("few");
    prefix
}

fn value(rng: &mut Rng) -> Vec<u8> {
    let len = match rng.below(20) {
        0 => 0,
        1..16 => rng.below(60),
        16..19 => rng.below(900),
        _ => 1000 + rng.below(4000),
    };
    let compressible = rng.below(2) == 0;
    (0..len)
        .map(|_| u8::try_from(if compressible { 7 } else { rng.below(256) }).expect("a byte"))
        .collect()
}

/// A batch for a database in `state`; it may be one that leaves a gap.
pub(crate) fn batch(rng: &mut Rng, state: &State) -> Vec<Step> {
    let mut state = state.clone();
    let count = if rng.below(3) == 0 {
        1 + rng.below(6)
    } else {
        1
    };
    let mut steps = Vec::new();
    for _ in 0..count {
        let family = usize::try_from(rng.below(2)).expect("two");
        let prefix = prefix(rng, family);
        let log = state.logs.get(&(family, prefix.clone()));
        let first = log.and_then(|log| log.keys().next()).copied().unwrap_or(0);
        let end = log.map_or_else(|| rng.below(50), |log| log.keys().last().expect("some") + 1);
        // The higher prefixes lag behind: they are seldom cut.
        let lags = prefix[0] >= 3 && rng.below(8) > 0;
        let step = match rng.below(20) {
            0..8 => {
                let count = rng.below(12);
                let values = (0..count).map(|_| value(rng)).collect();
                Step::Append(family, prefix, end, values)
            }
            8 if rng.below(3) == 0 => {
                // Large enough to be compressed, some values too large to take part.
                let count = 20 + rng.below(40);
                let values = (0..count).map(|at| {
                    let len = if at % 17 == 3 {
                        5000
                    } else {
                        150 + rng.below(300)
                    };
                    let byte = u8::try_from(at).expect("few");
                    vec![byte; usize::try_from(len).expect("small")]
                });
                let values = values.collect();
                Step::Append(family, prefix, end.saturating_sub(rng.below(3)), values)
            }
            8 | 9 => {
                let first = end.saturating_sub(rng.below(6));
                Step::Append(family, prefix, first, vec![value(rng)])
            }
            10 if log.is_some() && rng.below(4) == 0 => {
                Step::Append(family, prefix, end + 1 + rng.below(3), vec![value(rng)])
            }
            10..14 if !lags || rng.below(3) == 0 => {
                let index = first + rng.below(end - first.min(end) + 2);
                Step::Front(family, prefix, index)
            }
            14 if !lags => Step::Back(family, prefix, end.saturating_sub(rng.below(6))),
            15..19 => {
                let key = vec![u8::try_from(rng.below(30)).expect("few")];
                Step::Put(key, value(rng))
            }
            19 => Step::Delete(vec![u8::try_from(rng.below(30)).expect("few")]),
            _ => Step::Append(family, prefix, end, vec![value(rng)]),
        };
        // A batch with a gap is refused as a whole, and what stands after it does not matter.
        let goes_on = state.apply(&step);
        steps.push(step);
        if !goes_on {
            break;
        }
    }
    steps
}

/// The steps as the engine takes them.
pub(crate) fn encode(steps: &[Step], appends: &[ColumnFamily], plain: &ColumnFamily) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for step in steps {
        match step {
            Step::Append(family, prefix, first, values) => {
                batch.append(&appends[*family], prefix, *first, values);
            }
            Step::Front(family, prefix, index) => {
                batch.truncate_front(&appends[*family], prefix, *index);
            }
            Step::Back(family, prefix, index) => {
                batch.truncate_back(&appends[*family], prefix, *index);
            }
            Step::Put(key, value) => batch.put(plain, key, value),
            Step::Delete(key) => batch.delete(plain, key),
        }
    }
    batch
}
