//! An atomic store in virtual time, and random clients at once: where histories come from that are surely
//! linearizable, because each operation takes effect at one moment of its interval.

use std::{cmp::Reverse, collections::BTreeMap, collections::BinaryHeap};

use basalt_testkit::{
    Rng,
    history::{Operation, Outcome},
};

use crate::script::{Op, Script};

/// What clients do. Chances are in thousandths.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) clients: u64,
    pub(crate) keys: u64,
    pub(crate) operations: usize,
    pub(crate) puts: u64,
    pub(crate) deletes: u64,
    pub(crate) scans: u64,
    pub(crate) unknown: u64,
    pub(crate) failed: u64,
    /// The longest range that a scan asks for, and its largest limit.
    pub(crate) width: u64,
    /// Each put has one of so many values; 0: each has a value of its own.
    pub(crate) values: u64,
    /// The mean pause of a client between operations; one takes about 100.
    pub(crate) pause: u64,
}

impl Load {
    /// Clients that are nearly always waiting for an answer, and values that tell which put they are of.
    pub(crate) fn new(clients: u64, keys: u64, operations: usize) -> Self {
        Self {
            clients,
            keys,
            operations,
            puts: 400,
            deletes: 80,
            scans: 0,
            unknown: 50,
            failed: 20,
            width: 4,
            values: 0,
            pause: 20,
        }
    }
}

pub(crate) fn key(number: u64) -> String {
    format!("k{number:03}")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Invoke(u64),
    Effect(usize),
    Respond(usize),
}

/// A history of `load`. All events have even times of their own, so that a test has room to move one.
pub(crate) fn run(load: Load, rng: &mut Rng) -> Script {
    let mut events = BinaryHeap::new();
    for client in 0..load.clients {
        events.push(Reverse((rng.below(100), Event::Invoke(client))));
    }
    let mut map: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut ops: Vec<Op> = Vec::new();
    let mut fates: Vec<Option<Outcome>> = Vec::new();
    let mut now = 0;
    while let Some(Reverse((time, event))) = events.pop() {
        now = time.max(now + 1);
        match event {
            Event::Invoke(_) if ops.len() == load.operations => {}
            Event::Invoke(client) => {
                let number = ops.len();
                ops.push(Op {
                    client,
                    call: 2 * now,
                    end: None,
                    operation: operation(load, number, rng),
                });
                fates.push(None);
                let luck = rng.below(1000);
                let ends = now + rng.range(20..160);
                let effect = rng.range(now + 1..ends);
                if luck < load.unknown {
                    fates[number] = Some(Outcome::Unknown);
                    // Lost, or in time, or long after the client gave up.
                    match rng.below(3) {
                        0 => {}
                        1 => events.push(Reverse((effect, Event::Effect(number)))),
                        _ => {
                            let late = ends + rng.below(2000);
                            events.push(Reverse((late, Event::Effect(number))));
                        }
                    }
                } else if luck < load.unknown + load.failed {
                    fates[number] = Some(Outcome::Failed);
                } else {
                    events.push(Reverse((effect, Event::Effect(number))));
                }
                // A crashed client never hears; its next life has the same name.
                if fates[number] != Some(Outcome::Unknown) || !rng.one_in(3) {
                    events.push(Reverse((ends, Event::Respond(number))));
                }
                let next = ends + 1 + rng.below(2 * load.pause + 1);
                events.push(Reverse((next, Event::Invoke(client))));
            }
            Event::Effect(number) => {
                let outcome = effect(&mut map, &ops[number].operation);
                fates[number].get_or_insert(outcome);
            }
            Event::Respond(number) => {
                let outcome = fates[number].clone().expect("its effect was before");
                ops[number].end = Some((2 * now, outcome));
            }
        }
    }
    Script(ops)
}

fn operation(load: Load, number: usize, rng: &mut Rng) -> Operation {
    let first = rng.below(load.keys);
    let name = key(first);
    let kind = rng.below(1000);
    if kind < load.puts {
        let value = match load.values {
            0 => format!("v{number}"),
            values => format!("v{}", rng.below(values)),
        };
        Operation::put(name, value)
    } else if kind < load.puts + load.deletes {
        Operation::delete(name)
    } else if kind < load.puts + load.deletes + load.scans {
        let limit = usize::try_from(rng.range(1..load.width + 1)).expect("small");
        let end = first + rng.range(1..load.width + 1);
        Operation::scan(name, key(end), limit)
    } else {
        Operation::get(name)
    }
}

fn effect(map: &mut BTreeMap<Vec<u8>, Vec<u8>>, operation: &Operation) -> Outcome {
    match operation {
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
            let rows = map.range(start.clone()..);
            let rows = rows.take_while(|(key, _)| end.as_ref().is_none_or(|end| *key < end));
            let rows = rows.map(|(key, value)| (key.clone(), value.clone()));
            Outcome::Rows(rows.take(*limit).collect())
        }
    }
}
