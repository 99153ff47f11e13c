//! Refusals: the operation that cannot be explained, few operations that rule it out, and the text.
//!
//! Every step down to fewer operations is confirmed by another judgement, and takes only what a linearizable history could
//! spare as well. So what is left is refused for the same reason, and not because something was taken away.

use std::{collections::BTreeSet, fmt::Write as _};

use super::{
    History, Limits, Operation, OperationId, Outcome, Record, Verdict,
    judge::judge,
    prepare::{Cell, CellName, Effect, Item, Prepared},
    search::{Answer, Spent},
    text,
};

/// Searches for one explanation at most.
const SEARCHES: u32 = 400;
/// Operations that are printed at most.
const LINES: usize = 40;

/// A refusal of the first scan whose rows could be no answer of any store.
pub(super) fn malformed(history: &History) -> Option<Verdict> {
    for (id, record) in history.records() {
        let (Operation::Scan { start, end, limit }, Some((_, Outcome::Rows(rows)))) =
            (&record.operation, &record.completed)
        else {
            continue;
        };
        let outside = |key: &Vec<u8>| key < start || end.as_ref().is_some_and(|end| key >= end);
        let problem = if rows.len() > *limit {
            "has more rows than its limit"
        } else if rows.iter().any(|(key, _)| outside(key)) {
            "has a row outside its range"
        } else if rows.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
            "has rows out of order"
        } else {
            continue;
        };
        return Some(Verdict::NotLinearizable {
            offender: id,
            operations: vec![id],
            explanation: format!("not linearizable: a scan {problem}\n>>{record}"),
        });
    }
    None
}

/// That the search of a partition was given up.
pub(super) fn out_of_budget(
    history: &History,
    prepared: &Prepared<'_>,
    items: &[Item],
    limits: Limits,
    spent: Spent,
) -> Verdict {
    let keys = keys(prepared, items);
    let span = items.iter().map(|item| &history.records[item.record]);
    let first = span.map(|record| record.invoked).min().unwrap_or_default();
    Verdict::OutOfBudget {
        limits,
        explanation: format!(
            "not known: {} operations from {first} on, of {}, took {} steps of {} and {} bytes of {}",
            items.len(),
            keys_text(prepared, &keys),
            spent.steps,
            limits.steps,
            spent.cache_bytes,
            limits.cache_bytes,
        ),
    }
}

/// The refusal of partitions that have no linearization: for the first response that cannot be explained.
pub(super) fn refusal(
    history: &History,
    prepared: &Prepared<'_>,
    refused: &[&[Item]],
    limits: Limits,
) -> Verdict {
    let mut shrink = Shrink {
        keys: prepared.keys.len(),
        cells: &prepared.cells,
        limits,
        searches: 0,
    };
    let prefixes = refused.iter().map(|items| {
        shrink.searches = SEARCHES;
        shrink.limits = limits;
        let few = shrink.shortest_prefix(items);
        let last = few
            .iter()
            .max_by_key(|item| item.response)
            .expect("a partition without operations is linearizable");
        (last.response, last.record, few, *items)
    });
    let (_, offender, mut few, items) = prefixes
        .min_by_key(|(response, ..)| *response)
        .expect("there is something to refuse");
    // Fewer reads leave fewer values that matter, and the other way round.
    shrink.values(&mut few);
    shrink.reads(&mut few, offender);
    shrink.values(&mut few);
    shrink.writes(&mut few);

    let record = &history.records[offender];
    let mut explanation = format!(
        "not linearizable: {}: no order of the operations below explains the response of the marked one",
        keys_text(prepared, &keys(prepared, &few))
    );
    for reason in reasons(history, prepared, items, &few, offender) {
        let _ = write!(explanation, "\n  {reason}");
    }
    let hidden = few.len().saturating_sub(LINES);
    if hidden > 0 {
        let _ = write!(explanation, "\n  ({hidden} earlier ones)");
    }
    for item in &few[hidden..] {
        let mark = if item.record == offender { ">>" } else { "  " };
        let _ = write!(explanation, "\n{mark}{}", history.records[item.record]);
    }
    if few[..hidden].iter().any(|item| item.record == offender) {
        let _ = write!(explanation, "\n>>{record}");
    }
    Verdict::NotLinearizable {
        offender: OperationId(offender),
        operations: few.iter().map(|item| OperationId(item.record)).collect(),
        explanation,
    }
}

fn cells_of(effect: &Effect) -> &[Cell] {
    match effect {
        Effect::Write(cell) => std::slice::from_ref(cell),
        Effect::Read(wanted) => wanted,
    }
}

fn keys(prepared: &Prepared<'_>, items: &[Item]) -> BTreeSet<u32> {
    let cells = items.iter().flat_map(|item| cells_of(&item.effect));
    cells
        .map(|cell| prepared.cells[*cell as usize].key)
        .collect()
}

fn keys_text(prepared: &Prepared<'_>, keys: &BTreeSet<u32>) -> String {
    let quoted = |key: Option<&u32>| {
        key.map_or_else(String::new, |key| {
            text::quoted(prepared.keys[*key as usize])
        })
    };
    match keys.len() {
        1 => format!("key {}", quoted(keys.first())),
        n => format!(
            "{n} keys from {} to {}",
            quoted(keys.first()),
            quoted(keys.last())
        ),
    }
}

/// Of what the offender saw: what was never written, or not yet, or by a write that failed.
fn reasons(
    history: &History,
    prepared: &Prepared<'_>,
    items: &[Item],
    few: &[Item],
    offender: usize,
) -> Vec<String> {
    let mut reasons = Vec::new();
    let Some(item) = few.iter().find(|item| item.record == offender) else {
        return reasons;
    };
    for cell in cells_of(&item.effect) {
        let CellName { key, value } = prepared.cells[*cell as usize];
        let key = prepared.keys[key as usize];
        let Some(seen) = value else { continue };
        let named = format!("{} = {}", text::quoted(key), text::quoted(seen));
        let writes =
            |item: &&Item| matches!(item.effect, Effect::Write(written) if written == *cell);
        let first = items.iter().find(writes).map(|item| item.record);
        let failed = history.records.iter().find(|record| {
            let ended = record.completed.as_ref().map(|(_, outcome)| outcome);
            let writes = |operation: &Operation| matches!(operation, Operation::Put { key: k, value: v } if k == key && v == seen);
            ended == Some(&Outcome::Failed) && writes(&record.operation)
        });
        let before = |record: &Record| record.call < item.response.unwrap_or(u64::MAX);
        match (first, failed) {
            (Some(first), _) if before(&history.records[first]) => {}
            (_, Some(failed)) => {
                reasons.push(format!("{named} is of a write that failed:{failed}"));
            }
            (Some(first), None) => reasons.push(format!(
                "{named} is of the future:{}",
                history.records[first]
            )),
            (None, None) => reasons.push(format!("{named} was never written")),
        }
    }
    reasons
}

/// Makes refused partitions smaller.
struct Shrink<'a> {
    keys: usize,
    cells: &'a [CellName<'a>],
    limits: Limits,
    searches: u32,
}

impl Shrink<'_> {
    /// True when it is sure that `items` have no linearization.
    fn is_refused(&mut self, items: &[Item]) -> bool {
        let Some(left) = self.searches.checked_sub(1) else {
            return false;
        };
        self.searches = left;
        let (answer, spent) = judge(items, self.keys, self.cells, self.limits);
        // All of it together may take as many steps as one search. Then only what is seen at a glance is refused.
        self.limits.steps = self.limits.steps.saturating_sub(spent.steps);
        answer == Answer::NotLinearizable
    }

    /// The partition as it was just after a response: the first one at which it was refused. A prefix of a
    /// linearizable history is linearizable, so that bisection finds it.
    fn shortest_prefix(&mut self, items: &[Item]) -> Vec<Item> {
        let mut responses: Vec<u64> = items.iter().filter_map(|item| item.response).collect();
        responses.sort_unstable();
        let (mut good, mut bad) = (0, responses.len().saturating_sub(1));
        let mut refused = prefix(items, responses.get(bad).copied().unwrap_or_default());
        while good < bad {
            let middle = usize::midpoint(good, bad);
            let shorter = prefix(items, responses[middle]);
            if self.is_refused(&shorter) {
                bad = middle;
                refused = shorter;
            } else {
                good = middle + 1;
            }
        }
        refused
    }

    /// Takes out values of keys: all writes of a cell, and from each read that it wants the cell. In a linearization
    /// of the rest the keys then keep their former values for longer, which nobody sees.
    fn values(&mut self, items: &mut Vec<Item>) {
        let mut cells: Vec<Cell> = items
            .iter()
            .flat_map(|item| cells_of(&item.effect).to_vec())
            .collect();
        cells.sort_unstable();
        cells.dedup();
        self.without(items, cells, |items, gone| {
            let gone: BTreeSet<Cell> = gone.iter().copied().collect();
            let mut left = Vec::new();
            for item in items {
                let mut item = item.clone();
                match &mut item.effect {
                    Effect::Write(cell) if gone.contains(cell) => continue,
                    Effect::Write(_) => {}
                    Effect::Read(wanted) => {
                        wanted.retain(|cell| !gone.contains(cell));
                        if wanted.is_empty() {
                            continue;
                        }
                    }
                }
                left.push(item);
            }
            left
        });
    }

    /// Takes out reads.
    fn reads(&mut self, items: &mut Vec<Item>, offender: usize) {
        let reads = items
            .iter()
            .filter(|item| matches!(item.effect, Effect::Read(_)) && item.record != offender);
        let reads: Vec<usize> = reads.map(|item| item.record).collect();
        self.without(items, reads, without_records);
    }

    /// Takes out writes of values that none of the reads wants.
    fn writes(&mut self, items: &mut Vec<Item>) {
        let reads = items
            .iter()
            .filter(|item| matches!(item.effect, Effect::Read(_)));
        let wanted: BTreeSet<Cell> = reads
            .flat_map(|item| cells_of(&item.effect).to_vec())
            .collect();
        let dead = items
            .iter()
            .filter(|item| matches!(&item.effect, Effect::Write(cell) if !wanted.contains(cell)));
        let dead: Vec<usize> = dead.map(|item| item.record).collect();
        self.without(items, dead, without_records);
    }

    /// Takes out as many of `parts` as it can, by halves at first.
    fn without<P>(
        &mut self,
        items: &mut Vec<Item>,
        mut parts: Vec<P>,
        take_out: impl Fn(&[Item], &[P]) -> Vec<Item>,
    ) {
        let mut size = parts.len().div_ceil(2);
        while size > 0 && self.searches > 0 {
            let mut at = 0;
            while at < parts.len() {
                let end = parts.len().min(at + size);
                let fewer = take_out(items, &parts[at..end]);
                if self.is_refused(&fewer) {
                    *items = fewer;
                    parts.drain(at..end);
                } else {
                    at = end;
                }
            }
            size = if size == 1 { 0 } else { size.div_ceil(2) };
        }
    }
}

fn without_records(items: &[Item], gone: &[usize]) -> Vec<Item> {
    let gone: BTreeSet<usize> = gone.iter().copied().collect();
    let left = items.iter().filter(|item| !gone.contains(&item.record));
    left.cloned().collect()
}

/// What had happened up to the event at this place: of operations that had no response yet, writes may have taken
/// effect, and reads say nothing.
fn prefix(items: &[Item], event: u64) -> Vec<Item> {
    let mut left = Vec::new();
    for item in items.iter().filter(|item| item.call <= event) {
        let mut item = item.clone();
        if item.response.is_some_and(|response| response > event) {
            if matches!(item.effect, Effect::Read(_)) {
                continue;
            }
            item.response = None;
        }
        left.push(item);
    }
    left
}
