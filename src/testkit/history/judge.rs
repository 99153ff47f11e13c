//! Judges a partition: first each key alone, as if scans were gets of their keys, and then all together.
//!
//! A linearization of the whole is one of each key, so a key that is refused alone refuses the whole; that is found
//! quickly, and is easier to explain. Only what scans say about several keys at one moment needs the search over all.

use std::collections::BTreeMap;

use super::{
    Limits,
    prepare::{CellName, Effect, Item},
    search::{Answer, Spent, search},
    zones,
};

/// Has this partition a linearization? The arguments are those of `search`.
pub(super) fn judge(
    items: &[Item],
    keys: usize,
    cells: &[CellName<'_>],
    limits: Limits,
) -> (Answer, Spent) {
    let mut by_key: BTreeMap<u32, Vec<Item>> = BTreeMap::new();
    for item in items {
        let wanted = match &item.effect {
            Effect::Write(cell) => std::slice::from_ref(cell),
            Effect::Read(wanted) => wanted,
        };
        for cell in wanted {
            let mut item = item.clone();
            if let Effect::Read(wanted) = &mut item.effect {
                *wanted = vec![*cell];
            }
            let key = cells[*cell as usize].key;
            by_key.entry(key).or_default().push(item);
        }
    }
    if by_key.values().any(|items| zones::refute(items, cells)) {
        return (Answer::NotLinearizable, Spent::default());
    }
    let mut spent = Spent::default();
    let mut all = |items: &[Item]| {
        let (answer, own) = search(items, keys, cells, limits);
        spent.steps += own.steps;
        spent.cache_bytes = spent.cache_bytes.max(own.cache_bytes);
        answer
    };
    if by_key.len() > 1 {
        // A key that is out of budget alone may be refused, or even be clear, by what others say.
        let mut alone = by_key.values();
        if alone.any(|items| all(items) == Answer::NotLinearizable) {
            return (Answer::NotLinearizable, spent);
        }
    }
    (all(items), spent)
}
