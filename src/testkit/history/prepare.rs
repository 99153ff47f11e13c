//! Turns a history into partitions of plain operations: writes of one cell, and reads that want some cells.
//!
//! A cell is a key with one of its values, or with none. Operations that say nothing are left out: those that
//! failed, and reads whose result nobody saw.

use std::collections::{BTreeMap, HashMap};

use super::{History, Operation, Outcome, Record, Row};

/// Number of a cell. The first numbers are those of absent keys: the cell `k` is "key `k` is not there".
pub(super) type Cell = u32;

/// What an operation does.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    /// Its key changes to this.
    Write(Cell),
    /// At one moment the store held all of these, which are of different keys.
    Read(Vec<Cell>),
}

/// An operation that matters.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// Its index in the history.
    pub(super) record: usize,
    /// Place of its invocation among all events.
    pub(super) call: u64,
    /// Place of its response; `None` for a write that may or may not take effect, at any time after its call.
    pub(super) response: Option<u64>,
    /// What it does.
    pub(super) effect: Effect,
}

/// What a cell stands for.
#[derive(Clone, Copy, Debug)]
pub(super) struct CellName<'a> {
    /// Its key, as an index into the sorted keys.
    pub(super) key: u32,
    /// The key's value, or that it has none.
    pub(super) value: Option<&'a [u8]>,
}

/// A history by partitions.
#[derive(Debug)]
pub(super) struct Prepared<'a> {
    /// All keys that a write or a result names, sorted.
    pub(super) keys: Vec<&'a [u8]>,
    /// All cells.
    pub(super) cells: Vec<CellName<'a>>,
    /// Operations that share no key with those of another partition, by their calls; small partitions first.
    pub(super) partitions: Vec<Vec<Item>>,
}

impl<'a> Prepared<'a> {
    pub(super) fn new(history: &'a History) -> Self {
        let mut names = BTreeMap::new();
        for record in history.records.iter().filter(|record| !is_empty(record)) {
            match (&record.operation, &record.completed) {
                (Operation::Scan { .. }, Some((_, Outcome::Rows(rows)))) => {
                    names.extend(rows.iter().map(|(key, _)| (key.as_slice(), 0)));
                }
                (Operation::Scan { .. }, _) => {}
                (
                    Operation::Put { key, .. } | Operation::Delete { key } | Operation::Get { key },
                    _,
                ) => {
                    names.insert(key.as_slice(), 0);
                }
            }
        }
        for (number, name) in names.values_mut().zip(0..) {
            *number = name;
        }
        let mut cells = Cells {
            numbers: HashMap::new(),
            names: Vec::new(),
        };
        for key in names.values() {
            let _ = cells.number(*key, None);
        }
        let items = history.records.iter().enumerate();
        let items: Vec<Item> = items
            .filter(|(_, record)| !is_empty(record))
            .map(|(index, record)| Item {
                record: index,
                call: record.call,
                response: match &record.completed {
                    Some((_, Outcome::Unknown)) => None,
                    _ => record.response,
                },
                effect: effect(record, &names, &mut cells),
            })
            .collect();
        let partitions = partitions(items, names.len(), &cells.names);
        Self {
            keys: names.into_keys().collect(),
            cells: cells.names,
            partitions,
        }
    }
}

/// True for an operation that says nothing about the store.
fn is_empty(record: &Record) -> bool {
    match &record.completed {
        Some((_, Outcome::Failed)) => true,
        Some((_, Outcome::Unknown)) | None => !record.operation.is_write(),
        Some(_) => false,
    }
}

struct Cells<'a> {
    numbers: HashMap<(u32, Option<&'a [u8]>), Cell>,
    names: Vec<CellName<'a>>,
}

impl<'a> Cells<'a> {
    fn number(&mut self, key: u32, value: Option<&'a [u8]>) -> Cell {
        *self.numbers.entry((key, value)).or_insert_with(|| {
            let number = u32::try_from(self.names.len()).expect("histories fit into memory");
            self.names.push(CellName { key, value });
            number
        })
    }
}

fn effect<'a>(
    record: &'a Record,
    names: &BTreeMap<&'a [u8], u32>,
    cells: &mut Cells<'a>,
) -> Effect {
    match (&record.operation, &record.completed) {
        (Operation::Put { key, value }, _) => {
            Effect::Write(cells.number(names[key.as_slice()], Some(value)))
        }
        (Operation::Delete { key }, _) => Effect::Write(cells.number(names[key.as_slice()], None)),
        (Operation::Get { key }, Some((_, Outcome::Value(value)))) => {
            Effect::Read(vec![cells.number(names[key.as_slice()], value.as_deref())])
        }
        (Operation::Scan { start, end, limit }, Some((_, Outcome::Rows(rows)))) => {
            let range = scanned(start, end.as_deref(), *limit, rows, names);
            let mut found: HashMap<&[u8], &[u8]> = HashMap::new();
            found.extend(rows.iter().map(|(key, value)| (&key[..], &value[..])));
            let wanted = range.map(|(key, number)| cells.number(number, found.get(key).copied()));
            Effect::Read(wanted.collect())
        }
        (operation, completed) => unreachable!("{operation:?} ended with {completed:?}"),
    }
}

/// The keys whose state a scan has seen: those of its range, but none behind the last row when the limit cut it
/// off there. A scan is so a read of single keys, at one moment.
fn scanned<'n, 'a>(
    start: &[u8],
    end: Option<&[u8]>,
    limit: usize,
    rows: &[Row],
    names: &'n BTreeMap<&'a [u8], u32>,
) -> impl Iterator<Item = (&'a [u8], u32)> + use<'n, 'a> {
    let last = rows.last().filter(|_| rows.len() == limit);
    let keys = if limit == 0 || end.is_some_and(|end| start >= end) {
        None // saw nothing; and the map does not take such a range
    } else {
        let range = (
            std::ops::Bound::Included(start),
            match (last, end) {
                (Some((key, _)), _) => std::ops::Bound::Included(key.as_slice()),
                (None, Some(end)) => std::ops::Bound::Excluded(end),
                (None, None) => std::ops::Bound::Unbounded,
            },
        );
        Some(names.range::<[u8], _>(range))
    };
    keys.into_iter()
        .flatten()
        .map(|(key, number)| (*key, *number))
}

/// Puts operations into one partition that share a key, directly or through others.
fn partitions(items: Vec<Item>, keys: usize, cells: &[CellName<'_>]) -> Vec<Vec<Item>> {
    let key_of = |cell: Cell| cells[cell as usize].key as usize;
    let mut parents: Vec<usize> = (0..keys).collect();
    for item in &items {
        if let Effect::Read(wanted) = &item.effect {
            for pair in wanted.windows(2) {
                let (a, b) = (
                    root(&mut parents, key_of(pair[0])),
                    root(&mut parents, key_of(pair[1])),
                );
                parents[a] = b;
            }
        }
    }
    let mut by_root: BTreeMap<usize, Vec<Item>> = BTreeMap::new();
    for item in items {
        let first = match &item.effect {
            Effect::Write(cell) => Some(*cell),
            Effect::Read(wanted) => wanted.first().copied(), // none: it has seen nothing
        };
        if let Some(cell) = first {
            let home = root(&mut parents, key_of(cell));
            by_root.entry(home).or_default().push(item);
        }
    }
    let mut partitions: Vec<Vec<Item>> = by_root.into_values().collect();
    partitions.sort_by_key(Vec::len);
    partitions
}

/// The root of a key's tree; the path to it is halved on the way.
fn root(parents: &mut [usize], key: usize) -> usize {
    let mut at = key;
    while parents[at] != at {
        parents[at] = parents[parents[at]];
        at = parents[at];
    }
    at
}
