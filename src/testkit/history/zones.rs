//! A quick refutation of one key, however many clients overlap: by the zones of values that have one writer.
//!
//! After Gibbons and Korach ("Testing shared memories", 1997). Where a value can come from one write only, the key
//! has it from the first response of those that wrote or saw it to the last of their invocations, if that is later.
//! That is the value's zone. In the zone of one value no other has its zone, and no operation that writes or sees
//! another begins and ends. This refutes; what it does not refute is left to the search.

use std::collections::HashMap;

use super::prepare::{Cell, CellName, Effect, Item};

/// What is known of a cell.
#[derive(Clone, Copy, Debug)]
struct Value {
    writers: u32,
    /// The call of the last of the writers.
    written: u64,
    seen: bool,
    first_response: u64,
    last_call: u64,
}

/// True when these operations, which are all of one key, surely have no linearization.
pub(super) fn refute(items: &[Item], cells: &[CellName<'_>]) -> bool {
    let mut values: HashMap<Cell, Value> = HashMap::new();
    for item in items {
        let (cell, reads) = cell_of(item);
        let initial = u32::from(cells[cell as usize].value.is_none());
        let value = values.entry(cell).or_insert(Value {
            writers: initial,
            written: 0,
            seen: false,
            // Events are counted from 1; the store starts without the key.
            first_response: if initial == 1 { 0 } else { u64::MAX },
            last_call: 0,
        });
        if reads {
            value.seen = true;
        } else {
            value.writers += 1;
            value.written = value.written.max(item.call);
        }
        // A write that may not have happened has happened if its value was seen; if not, the value has no zone.
        value.last_call = value.last_call.max(item.call);
        let response = item.response.unwrap_or(u64::MAX);
        value.first_response = value.first_response.min(response);
    }
    let mut zones = Vec::new();
    for (cell, value) in values {
        if value.seen
            && (value.writers == 0 || value.first_response < value.written && value.writers == 1)
        {
            return true; // never written, or seen before it was
        }
        if value.seen && value.writers == 1 && value.first_response < value.last_call {
            zones.push((value.first_response, value.last_call, cell));
        }
    }
    zones.sort_unstable();
    if zones.windows(2).any(|pair| pair[1].0 < pair[0].1) {
        return true;
    }
    items.iter().any(|item| {
        let (cell, _) = cell_of(item);
        let behind = zones.partition_point(|(start, ..)| *start < item.call);
        behind.checked_sub(1).is_some_and(|zone| {
            let (_, end, of) = zones[zone];
            of != cell && item.response.is_some_and(|response| response < end)
        })
    })
}

/// The cell that an operation writes or sees, and whether it sees it.
fn cell_of(item: &Item) -> (Cell, bool) {
    match &item.effect {
        Effect::Write(cell) => (*cell, false),
        Effect::Read(wanted) => (wanted[0], true),
    }
}
