//! A search before its first step: what is required and what is optional, in numbers of the partition's own.

use std::collections::HashMap;

use super::{
    super::prepare::{Cell, CellName, Effect, Item},
    HEAD, Memory, Required, Search, Spent,
};

impl Search {
    /// `None` when a read wants what is never there.
    pub(super) fn new(items: &[Item], keys: usize, names: &[CellName<'_>]) -> Option<Self> {
        // Rule 2: an optional write called after the last read of its cell is of no use to any.
        let mut last_read: HashMap<Cell, u64> = HashMap::new();
        for item in items {
            if let (Effect::Read(cells), Some(response)) = (&item.effect, item.response) {
                for cell in cells {
                    let last = last_read.entry(*cell).or_default();
                    *last = response.max(*last);
                }
            }
        }
        let useful = |item: &&Item| {
            item.response.is_some()
                || match &item.effect {
                    Effect::Write(cell) => {
                        last_read.get(cell).is_some_and(|last| item.call < *last)
                    }
                    Effect::Read(_) => false,
                }
        };
        let items: Vec<&Item> = items.iter().filter(useful).collect();
        let (cells, key_of, absent) = localize(&items, keys, names);
        let local = |cell: &Cell| cells.binary_search(cell).expect("collected");
        let as_cell = |index: usize| Cell::try_from(index).expect("fewer than all cells");

        let mut new = Self {
            required: Vec::new(),
            optional: vec![Vec::new(); cells.len()],
            optional_cells: Vec::new(),
            optional_of_key: vec![Vec::new(); absent.len()],
            writes: vec![Vec::new(); absent.len()],
            next: Vec::new(),
            previous: Vec::new(),
            state: absent,
            wanted: vec![0; cells.len()],
            sources: vec![0; cells.len()],
            used: vec![0; cells.len()],
            done: Vec::new(),
            low: 0,
            high: 0,
            first_write: Vec::new(),
            trail: Vec::new(),
            candidates: Vec::new(),
            connected: Vec::new(),
            scratch: Vec::new(),
            memory: Memory::new(),
            spent: Spent::default(),
            key_of,
        };
        let mut events: Vec<(u64, u32)> = Vec::new();
        for item in items {
            let number = u32::try_from(new.required.len()).expect("histories fit into memory");
            let mut place = 0;
            let effect = match &item.effect {
                Effect::Write(cell) => {
                    let cell = local(cell);
                    new.sources[cell] += 1;
                    if item.response.is_some() {
                        let writes = &mut new.writes[new.key_of[cell] as usize];
                        place = writes.len();
                        writes.push(number);
                    } else {
                        new.optional[cell].push(item.call);
                    }
                    Effect::Write(as_cell(cell))
                }
                Effect::Read(wanted) => {
                    let wanted: Vec<Cell> =
                        wanted.iter().map(|cell| as_cell(local(cell))).collect();
                    for cell in &wanted {
                        new.wanted[*cell as usize] += 1;
                    }
                    Effect::Read(wanted)
                }
            };
            if let Some(response) = item.response {
                events.push((item.call, 2 * number + 1));
                events.push((response, 2 * number + 2));
                new.required.push(Required {
                    call: item.call,
                    response,
                    place,
                    effect,
                });
            }
        }
        for (cell, calls) in new.optional.iter().enumerate() {
            debug_assert!(calls.is_sorted(), "items come in the order of their calls");
            if !calls.is_empty() {
                new.optional_cells.push(as_cell(cell));
                new.optional_of_key[new.key_of[cell] as usize].push(as_cell(cell));
            }
        }
        events.sort_unstable();
        new.link(&events);
        new.done = vec![0; new.required.len().div_ceil(32)];
        new.first_write = vec![0; new.state.len()];
        new.connected = vec![false; new.state.len()];

        let never = |cell: usize| {
            new.wanted[cell] > 0
                && new.sources[cell] == 0
                && new.state[new.key_of[cell] as usize] as usize != cell
        };
        (0..new.wanted.len())
            .all(|cell| !never(cell))
            .then_some(new)
    }

    fn link(&mut self, events: &[(u64, u32)]) {
        let len = events.len() + 1;
        (self.next, self.previous) = (vec![0; len], vec![0; len]);
        let mut last = HEAD;
        for (_, entry) in events {
            self.next[last] = *entry;
            self.previous[*entry as usize] = u32::try_from(last).expect("an entry");
            last = *entry as usize;
        }
        self.next[last] = 0;
        self.previous[HEAD] = u32::try_from(last).expect("an entry");
    }
}

/// The cells of a partition, sorted, with the cells of their absent keys; the key of each, numbered within the
/// partition; and by key, the cell of its absence.
fn localize(
    items: &[&Item],
    keys: usize,
    names: &[CellName<'_>],
) -> (Vec<Cell>, Vec<u32>, Vec<Cell>) {
    let mut cells: Vec<Cell> = Vec::new();
    for item in items {
        match &item.effect {
            Effect::Write(cell) => cells.push(*cell),
            Effect::Read(wanted) => cells.extend(wanted),
        }
    }
    cells.sort_unstable();
    cells.dedup();
    let mut absent: Vec<Cell> = cells.iter().map(|cell| names[*cell as usize].key).collect();
    absent.sort_unstable();
    absent.dedup();
    debug_assert!(
        absent.iter().all(|cell| (*cell as usize) < keys),
        "first come absent keys"
    );
    cells.extend(&absent);
    cells.sort_unstable();
    cells.dedup();
    // A key's number is also the number of its absence, and both lists are sorted: the absent come first in `cells`.
    let key_of = cells.iter().map(|cell| {
        let key = absent.binary_search(&names[*cell as usize].key);
        u32::try_from(key.expect("collected")).expect("fewer than all cells")
    });
    let key_of = key_of.collect();
    let absent = (0..absent.len()).map(|key| u32::try_from(key).expect("fewer than all cells"));
    (cells, key_of, absent.collect())
}
