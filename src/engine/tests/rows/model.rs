//! What the three families hold, as maps, and the caller's code that they are given.

use std::collections::BTreeMap;

use basalt_engine::{CompactionFilter, FilterDecision, FilterRow, MergeOperator, MergeResult};

/// Milliseconds that rows of the third family live.
pub(crate) const TTL: u64 = 1000;

/// The value of a key that takes merges; `None`: the operator fails.
pub(crate) type Merged = Option<Vec<u8>>;

/// All families after some batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) merge: BTreeMap<Vec<u8>, Merged>,
    pub(crate) filter: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Value and time.
    pub(crate) ttl: BTreeMap<Vec<u8>, (Vec<u8>, u64)>,
}

/// One operation of a batch: the family first.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Put(usize, Vec<u8>, Vec<u8>),
    Merge(Vec<u8>, Vec<u8>),
    Delete(usize, Vec<u8>),
    DeleteRange(usize, Vec<u8>, Vec<u8>),
}

impl State {
    pub(crate) fn apply(&mut self, step: &Step, now: u64) {
        match step {
            Step::Put(0, key, value) => {
                self.merge.insert(key.clone(), Some(value.clone()));
            }
            Step::Put(1, key, value) => {
                self.filter.insert(key.clone(), value.clone());
            }
            Step::Put(_, key, value) => {
                self.ttl.insert(key.clone(), (value.clone(), now));
            }
            Step::Merge(key, operand) => {
                let next = match self.merge.get(key) {
                    _ if operand == b"bad" => None,
                    None => Some(operand.clone()),
                    Some(None) => None,
                    Some(Some(before)) => Some([before, &b","[..], operand].concat()),
                };
                self.merge.insert(key.clone(), next);
            }
            Step::Delete(family, key) => self.retain(*family, |other| other != key),
            Step::DeleteRange(family, start, end) => {
                self.retain(*family, |key| key < start || key >= end);
            }
        }
    }

    fn retain(&mut self, family: usize, keep: impl Fn(&Vec<u8>) -> bool) {
        match family {
            0 => self.merge.retain(|key, _| keep(key)),
            1 => self.filter.retain(|key, _| keep(key)),
            _ => self.ttl.retain(|key, _| keep(key)),
        }
    }

    /// Rows of the third family that are alive at `now`.
    pub(crate) fn alive(&self, now: u64) -> BTreeMap<Vec<u8>, Merged> {
        let rows = self.ttl.iter().filter(|(_, (_, time))| time + TTL > now);
        rows.map(|(key, (value, _))| (key.clone(), Some(value.clone())))
            .collect()
    }
}

/// Joins operands with commas; fails at `bad`; does not put together what begins with `x`.
pub(crate) struct Join;

impl MergeOperator for Join {
    fn name(&self) -> &'static str {
        "test.join"
    }

    fn full_merge(
        &self,
        _key: &[u8],
        existing: Option<&[u8]>,
        operands: &[&[u8]],
        result: &mut Vec<u8>,
    ) -> MergeResult {
        if operands.contains(&&b"bad"[..]) {
            return Err("a bad operand".to_owned());
        }
        let parts: Vec<&[u8]> = existing
            .into_iter()
            .chain(operands.iter().copied())
            .collect();
        result.extend_from_slice(&parts.join(&b","[..]));
        Ok(())
    }

    fn partial_merge(
        &self,
        key: &[u8],
        older: &[u8],
        newer: &[u8],
        result: &mut Vec<u8>,
    ) -> MergeResult<bool> {
        if older == b"bad" {
            panics();
        }
        if newer.starts_with(b"x") {
            return Ok(false);
        }
        self.full_merge(key, Some(older), &[newer], result)?;
        Ok(true)
    }
}

/// Removes what begins with `r`, and changes what begins with `c` to begin with `C`.
pub(crate) struct Sieve;

impl CompactionFilter for Sieve {
    fn filter(&self, row: &FilterRow<'_>, changed: &mut Vec<u8>) -> FilterDecision {
        assert!((1..7).contains(&row.level), "a level below L0");
        match row.value.first() {
            Some(b'r') => FilterDecision::Remove,
            Some(b'c') => {
                changed.extend_from_slice(&sieved(row.value));
                FilterDecision::Change
            }
            Some(b'p') => panics(),
            _ => FilterDecision::Keep,
        }
    }
}

/// Panics without a word on the terminal.
fn panics() -> ! {
    std::panic::resume_unwind(Box::new("the caller's code"))
}

/// A value that the filter has changed.
pub(crate) fn sieved(value: &[u8]) -> Vec<u8> {
    [&b"C"[..], &value[1..]].concat()
}
