//! Two slow answers to the same question, which know nothing of how the checker goes about it: they apply whole
//! operations to a map, in every order that the times allow.

use std::collections::{BTreeMap, HashSet};

use basalt_testkit::history::{Operation, Outcome};

use crate::script::{Op, Script};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// The map after `op`; `None` when it could not have ended as it did.
fn apply(map: &Map, op: &Op) -> Option<Map> {
    let mut map = map.clone();
    let seen = match &op.operation {
        Operation::Put { key, value } => {
            map.insert(key.clone(), value.clone());
            Outcome::Written
        }
        Operation::Delete { key } => {
            map.remove(key);
            Outcome::Written
        }
        Operation::Get { key } => Outcome::Value(map.get(key).cloned()),
        Operation::Scan { start, end, limit } => {
            let rows = map
                .iter()
                .filter(|(key, _)| *key >= start && end.as_ref().is_none_or(|end| *key < end));
            let rows = rows.map(|(key, value)| (key.clone(), value.clone()));
            Outcome::Rows(rows.take(*limit).collect())
        }
    };
    match &op.end {
        None | Some((_, Outcome::Unknown)) => Some(map),
        Some((_, outcome)) => (*outcome == seen).then_some(map),
    }
}

/// The operations that may have had an effect, and of each, which others must be before it.
struct Orders<'a> {
    ops: Vec<&'a Op>,
    before: Vec<u32>,
    required: u32,
}

impl<'a> Orders<'a> {
    fn new(script: &'a Script) -> Self {
        let ops: Vec<&Op> = script.0.iter().filter(|op| !op.failed()).collect();
        assert!(ops.len() <= 32, "too long for an oracle");
        let set = |belongs: &dyn Fn(&Op) -> bool| {
            let all = ops.iter().zip(0..);
            all.filter(|(op, _)| belongs(op))
                .fold(0, |bits, (_, bit)| bits | 1 << bit)
        };
        let is_before = |call: u64| move |op: &Op| op.acked().is_some_and(|end| end < call);
        Self {
            before: ops.iter().map(|op| set(&is_before(op.call))).collect(),
            required: set(&|op| op.acked().is_some()),
            ops,
        }
    }

    fn search(&self, done: u32, map: &Map, seen: &mut Option<HashSet<(u32, Map)>>) -> bool {
        if done & self.required == self.required {
            return true;
        }
        if let Some(seen) = seen
            && !seen.insert((done, map.clone()))
        {
            return false;
        }
        (0..self.ops.len()).any(|next| {
            done & 1 << next == 0
                && self.before[next] & !done == 0
                && apply(map, self.ops[next])
                    .is_some_and(|map| self.search(done | 1 << next, &map, seen))
        })
    }
}

/// Tries all orders of all choices of operations. For up to about seven.
pub(crate) fn brute_force(script: &Script) -> bool {
    Orders::new(script).search(0, &Map::new(), &mut None)
}

/// The same without trying anything twice: the plain search with memory. For up to about twenty.
pub(crate) fn plain_search(script: &Script) -> bool {
    Orders::new(script).search(0, &Map::new(), &mut Some(HashSet::new()))
}
