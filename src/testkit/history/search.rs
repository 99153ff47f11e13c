//! The search for a linearization of one partition.
//!
//! Words: an operation is *required* when it has a response, and *optional* when it is a write that may or may not
//! take effect. A *candidate* is a required operation that may be linearized next: its call is before the first
//! response of those not linearized. The operation with that first response is the *urgent* one. A cell (a key with
//! a value) is *wanted* while a required read of it is not linearized, and a write of a cell that is not wanted is
//! *dead*. A completion is an order of all remaining required operations, and of some optional ones, that explains
//! everything.
//!
//! It is depth-first over configurations (what is linearized, the state, what optional writes are used), and enters
//! none twice. These rules keep it narrow. Each is sound: where there is a completion, one is left.
//!
//! 1. A candidate read that the state satisfies is linearized at once. It changes nothing, and a completion that
//!    has it later explains as much when it is moved here.
//! 2. An optional write takes effect just before a read of it, or not at all. Moved to just before the next
//!    operation that sees or writes its key, it meets no response of its own on the way; before a write, or where
//!    nothing follows, nobody misses it. So optional writes are no candidates: a read that the state does not
//!    satisfy may be *supplied* by them. One that no read wants is dropped at once.
//! 3. Optional writes of the same cell differ in their calls only, and one that may be used now may be used at any
//!    time after. How many are used is all that counts, and a configuration fails if one with no more used of any
//!    cell, and otherwise the same, has failed.
//! 4. The last state of a wanted cell is not overwritten: where no other write of the cell is left, its readers
//!    would wait for ever.
//! 5. Dead candidates of a key are linearized just before the next write of their key. In a completion that has
//!    them later nothing reads them there, so nothing misses them; here nothing comes between them and the write. A
//!    write need be taken for the sake of a dead one only when that is urgent.
//! 6. A dead candidate is linearized at once when its key's state is not wanted either: one value that nobody asks
//!    for replaces another. So, too, a write when its key's state is not wanted and every other write of the key
//!    that could matter is called after its response: it is the next write of its key in every completion, and
//!    nothing reads the key before it.
//! 7. Of candidate writes of the same cell, only the one with the first response is tried: exchanging the two in a
//!    completion is allowed.
//! 8. Only candidates are tried that are connected with the urgent operation by common keys. All that a completion
//!    has before the urgent operation are candidates now; those that share no key with it, directly or through
//!    others, may as well come after it.
//! 9. All values that nobody wants are the same value, when configurations are compared.

mod build;

use std::collections::HashMap;

use super::{
    Limits,
    prepare::{Cell, CellName, Effect, Item},
};

/// What a search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Linearizable,
    NotLinearizable,
    OutOfBudget,
}

/// What a search cost.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spent {
    pub(super) steps: u64,
    pub(super) cache_bytes: usize,
}

/// Has this partition a linearization? `items` are in the order of their calls; `keys` is the number of keys of
/// the whole history, and `cells` are all its cells.
pub(super) fn search(
    items: &[Item],
    keys: usize,
    cells: &[CellName<'_>],
    limits: Limits,
) -> (Answer, Spent) {
    let Some(mut search) = Search::new(items, keys, cells) else {
        return (Answer::NotLinearizable, Spent::default());
    };
    let answer = search.run(limits);
    (answer, search.spent)
}

/// A required operation; cells and keys are numbered within the partition.
#[derive(Debug)]
struct Required {
    call: u64,
    response: u64,
    /// Of a write: its index in `writes` of its key.
    place: usize,
    effect: Effect,
}

/// How to go on from a configuration.
#[derive(Clone, Copy, Debug)]
enum Choice {
    /// Linearize this write, and the dead ones of its key before it.
    Write(u32),
    /// Linearize the dead writes of the key of this one, which is one of them.
    Dead(u32),
    /// Let optional writes take effect that this read lacks, and linearize it.
    Supply(u32),
}

/// What must be undone when a choice fails, last first.
#[derive(Clone, Copy, Debug)]
enum Undo {
    Lift(u32),
    State(u32, Cell),
    Used(Cell),
}

/// A configuration whose choices are being tried.
#[derive(Clone, Copy, Debug)]
struct Frame {
    trail: usize,
    choices: usize,
    high: usize,
}

/// True when no more is used of any cell in the first than in the second.
fn implies(fewer: &[u32], more: &[u32]) -> bool {
    let mut more = more.chunks_exact(2);
    let covered = |pair: &[u32]| {
        let of_cell = more.find(|other| other[0] >= pair[0]);
        of_cell.is_some_and(|other| other[0] == pair[0] && other[1] >= pair[1])
    };
    fewer.chunks_exact(2).all(covered)
}

/// Configurations, and of each the optional writes used: only such that do not imply each other.
type Memory = HashMap<Box<[u32]>, Vec<Box<[u32]>>>;

/// Of an entry in a map, what does not show in its length. An estimate.
const ENTRY_OVERHEAD: usize = 80;

/// First entry of the list of events: nobody's.
const HEAD: usize = 0;

#[derive(Debug)]
struct Search {
    required: Vec<Required>,
    /// By cell: its key, and the calls of its optional writes.
    key_of: Vec<u32>,
    optional: Vec<Vec<u64>>,
    /// Cells that have optional writes: all, and by key.
    optional_cells: Vec<Cell>,
    optional_of_key: Vec<Vec<Cell>>,
    /// By key: its required writes in the order of their calls.
    writes: Vec<Vec<u32>>,

    /// The calls and responses of what is not linearized, in order, as a list with links both ways. The call of
    /// operation `n` is entry `2n + 1`, its response is entry `2n + 2`.
    next: Vec<u32>,
    previous: Vec<u32>,
    /// By key: the cell that it is in.
    state: Vec<Cell>,
    /// By cell: reads of it that are not linearized, writes that may still come, and optional writes used.
    wanted: Vec<u32>,
    sources: Vec<u32>,
    used: Vec<u32>,
    /// A bit for each linearized operation; all before `low` are, none from `high` on is.
    done: Vec<u32>,
    low: usize,
    high: usize,
    /// By key: index into `writes`, all before which are linearized.
    first_write: Vec<usize>,
    trail: Vec<Undo>,

    /// Candidates that `settle` has left, in the order of their calls.
    candidates: Vec<u32>,
    /// Keys connected with the urgent operation.
    connected: Vec<bool>,
    scratch: Vec<u32>,
    memory: Memory,
    spent: Spent,
}

impl Search {
    fn run(&mut self, limits: Limits) -> Answer {
        let mut frames: Vec<Frame> = Vec::new();
        let mut choices: Vec<Choice> = Vec::new();
        loop {
            if self.spent.steps >= limits.steps || self.spent.cache_bytes > limits.cache_bytes {
                return Answer::OutOfBudget;
            }
            self.spent.steps += 1;
            let Some(urgent) = self.settle() else {
                return Answer::Linearizable;
            };
            if self.is_new() {
                frames.push(Frame {
                    trail: self.trail.len(),
                    choices: choices.len(),
                    high: self.high,
                });
                self.choices(urgent, &mut choices);
            }
            loop {
                let Some(frame) = frames.last().copied() else {
                    return Answer::NotLinearizable;
                };
                self.undo(frame.trail);
                self.high = frame.high;
                if choices.len() > frame.choices {
                    let choice = choices.pop().expect("there are more");
                    self.take(choice);
                    break;
                }
                frames.pop();
            }
        }
    }

    /// Linearizes what needs no choice (rules 1 and 6), and collects the other candidates. The urgent operation, or
    /// `None` when nothing is left.
    fn settle(&mut self) -> Option<u32> {
        loop {
            let mut changed = false;
            self.candidates.clear();
            let mut before = HEAD;
            let urgent = loop {
                let entry = self.next[before] as usize;
                if entry == HEAD {
                    return None;
                }
                let operation = (entry - 1) / 2;
                let number = (self.next[before] - 1) / 2;
                if entry.is_multiple_of(2) {
                    break number;
                }
                let write = match &self.required[operation].effect {
                    Effect::Read(wanted) => {
                        wanted.iter().all(|cell| self.is_in(*cell)).then_some(None)
                    }
                    Effect::Write(cell) => {
                        let (cell, key) = (*cell, self.key_of[*cell as usize]);
                        let state = self.state[key as usize] as usize;
                        let takes = self.wanted[state] == 0
                            && (self.wanted[cell as usize] == 0 || self.is_next(number, key));
                        takes.then_some(Some((key, cell)))
                    }
                };
                match write {
                    Some(write) => {
                        self.lift(number);
                        if let Some((key, cell)) = write {
                            self.set(key, cell);
                        }
                        changed = true;
                    }
                    None => {
                        self.candidates.push(number);
                        before = entry;
                    }
                }
            };
            if !changed {
                return Some(urgent);
            }
        }
    }

    /// True when this is the next write of its key in every completion (rule 6). Dead candidates of the key must be
    /// gone, as they are when its state is not wanted.
    fn is_next(&mut self, write: u32, key: u32) -> bool {
        let key = key as usize;
        let writes = &self.writes[key];
        let first = &mut self.first_write[key];
        while is_set(&self.done, writes[*first] as usize) {
            *first += 1;
        }
        if writes[*first] != write {
            return false;
        }
        let mut others = writes[*first + 1..].iter();
        let response = self.required[write as usize].response;
        let second = others.find(|other| !is_set(&self.done, **other as usize));
        if second.is_some_and(|second| self.required[*second as usize].call < response) {
            return false;
        }
        self.optional_of_key[key].iter().all(|cell| {
            let cell = *cell as usize;
            let unused = self.optional[cell].len() > self.used[cell] as usize;
            self.wanted[cell] == 0 || !unused || self.optional[cell][0] > response
        })
    }

    /// Remembers the configuration. False when it has been entered before, or one that implies it (rule 3).
    fn is_new(&mut self) -> bool {
        self.scratch.clear();
        for cell in &self.state {
            let wanted = self.wanted[*cell as usize] > 0;
            self.scratch.push(if wanted { *cell } else { Cell::MAX }); // rule 9
        }
        // All words before `first` are full, and all behind those that are pushed are zero.
        let first = self.low / 32;
        let end = self.high.div_ceil(32).max(first);
        self.scratch
            .push(u32::try_from(first).expect("histories fit into memory"));
        self.scratch.extend_from_slice(&self.done[first..end]);
        while self.scratch.len() > self.state.len() + 1 && self.scratch.last() == Some(&0) {
            self.scratch.pop();
        }
        // Pairs of a cell and a number. Where nobody wants the cell, it does not matter how many are used.
        let mut used: Vec<u32> = Vec::new();
        for cell in &self.optional_cells {
            let number = self.used[*cell as usize];
            if number > 0 && self.wanted[*cell as usize] > 0 {
                used.extend([*cell, number]);
            }
        }
        let used: Box<[u32]> = used.into();
        if let Some(known) = self.memory.get_mut(self.scratch.as_slice()) {
            if known.iter().any(|known| implies(known, &used)) {
                return false;
            }
            known.retain(|known| !implies(&used, known));
            self.spent.cache_bytes += 4 * used.len() + 16;
            known.push(used);
        } else {
            self.spent.cache_bytes += 4 * (self.scratch.len() + used.len()) + ENTRY_OVERHEAD;
            self.memory
                .insert(self.scratch.as_slice().into(), vec![used]);
        }
        true
    }

    /// Appends the ways to go on, the best last.
    fn choices(&mut self, urgent: u32, choices: &mut Vec<Choice>) {
        self.connect(urgent);
        let from = choices.len();
        let deadline = self.required[urgent as usize].response;
        for index in 0..self.candidates.len() {
            let number = self.candidates[index];
            match &self.required[number as usize].effect {
                Effect::Write(cell) => {
                    let cell = *cell;
                    if !self.connected[self.key_of[cell as usize] as usize] || self.is_stuck(cell) {
                        continue;
                    }
                    if self.wanted[cell as usize] == 0 {
                        // Rule 5.
                        if number == urgent {
                            choices.push(Choice::Dead(number));
                        }
                        continue;
                    }
                    // Rule 7.
                    let same = choices[from..].iter_mut().find_map(|choice| match choice {
                        Choice::Write(other) if self.writes_cell(*other, cell) => Some(other),
                        _ => None,
                    });
                    match same {
                        None => choices.push(Choice::Write(number)),
                        Some(other) => {
                            let response = |number: u32| self.required[number as usize].response;
                            if response(number) < response(*other) {
                                *other = number;
                            }
                        }
                    }
                }
                Effect::Read(wanted) => {
                    let near = wanted
                        .first()
                        .is_some_and(|cell| self.connected[self.key_of[*cell as usize] as usize]);
                    if near && self.can_supply(wanted, deadline) {
                        choices.push(Choice::Supply(number));
                    }
                }
            }
        }
        // First what helps the urgent operation, then what is next to respond.
        let rank = |choice: &Choice| {
            let (Choice::Write(number) | Choice::Dead(number) | Choice::Supply(number)) = *choice;
            let helps = number == urgent
                || match (
                    choice,
                    &self.required[number as usize].effect,
                    &self.required[urgent as usize].effect,
                ) {
                    (Choice::Write(_), Effect::Write(cell), Effect::Read(wanted)) => {
                        wanted.contains(cell)
                    }
                    _ => false,
                };
            (
                helps,
                std::cmp::Reverse(self.required[number as usize].response),
            )
        };
        choices[from..].sort_by_key(rank);
    }

    /// Marks the keys that are connected with the urgent operation through candidates (rule 8).
    fn connect(&mut self, urgent: u32) {
        if self.state.len() == 1 {
            self.connected[0] = true;
            return;
        }
        self.connected.fill(false);
        let key_of = &self.key_of;
        match &self.required[urgent as usize].effect {
            Effect::Write(cell) => self.connected[key_of[*cell as usize] as usize] = true,
            Effect::Read(wanted) => {
                for cell in wanted {
                    self.connected[key_of[*cell as usize] as usize] = true;
                }
            }
        }
        loop {
            let mut changed = false;
            for number in &self.candidates {
                if let Effect::Read(wanted) = &self.required[*number as usize].effect {
                    let keys = || wanted.iter().map(|cell| key_of[*cell as usize] as usize);
                    let near = keys().filter(|key| self.connected[*key]).count();
                    if near > 0 && near < wanted.len() {
                        for key in keys() {
                            self.connected[key] = true;
                        }
                        changed = true;
                    }
                }
            }
            if !changed {
                return;
            }
        }
    }

    fn take(&mut self, choice: Choice) {
        let (Choice::Write(number) | Choice::Dead(number) | Choice::Supply(number)) = choice;
        self.lift_dead_before(number);
        match choice {
            Choice::Dead(_) => {
                debug_assert!(
                    is_set(&self.done, number as usize),
                    "it is a dead candidate"
                );
            }
            Choice::Write(_) => {
                self.lift(number);
                if let Effect::Write(cell) = self.required[number as usize].effect {
                    self.set(self.key_of[cell as usize], cell);
                }
            }
            Choice::Supply(_) => {
                for cell in self.lacking(number) {
                    self.used[cell as usize] += 1;
                    self.sources[cell as usize] -= 1;
                    self.trail.push(Undo::Used(cell));
                    self.set(self.key_of[cell as usize], cell);
                }
                self.lift(number);
            }
        }
    }

    /// Linearizes the dead candidates of the keys that an operation is about to change (rule 5), or of its own key
    /// if it is dead.
    fn lift_dead_before(&mut self, number: u32) {
        let keys: Vec<u32> = match &self.required[number as usize].effect {
            Effect::Write(cell) => vec![self.key_of[*cell as usize]],
            Effect::Read(_) => {
                let cells = self.lacking(number).into_iter();
                cells.map(|cell| self.key_of[cell as usize]).collect()
            }
        };
        let mut before = HEAD;
        loop {
            let entry = self.next[before];
            // The response of the operation itself is an end, if none is before it: what is called behind it cannot
            // be linearized before it. A dead one takes its own response away, and others then may follow it.
            if entry == 0 || entry.is_multiple_of(2) {
                return;
            }
            let other = (entry - 1) / 2;
            match self.required[other as usize].effect {
                Effect::Write(cell)
                    if self.wanted[cell as usize] == 0
                        && keys.contains(&self.key_of[cell as usize]) =>
                {
                    self.lift(other);
                    self.set(self.key_of[cell as usize], cell);
                }
                _ => before = entry as usize,
            }
        }
    }

    /// The cells that a read wants and the state does not have.
    fn lacking(&self, read: u32) -> Vec<Cell> {
        match &self.required[read as usize].effect {
            Effect::Read(wanted) => {
                let lacking = wanted.iter().filter(|cell| !self.is_in(**cell));
                lacking.copied().collect()
            }
            Effect::Write(_) => Vec::new(),
        }
    }

    fn is_in(&self, cell: Cell) -> bool {
        self.state[self.key_of[cell as usize] as usize] == cell
    }

    fn writes_cell(&self, number: u32, cell: Cell) -> bool {
        matches!(self.required[number as usize].effect, Effect::Write(other) if other == cell)
    }

    /// True when the key cannot change to this cell now: what it is in is wanted and would never come back (rule 4).
    /// A write of the same cell would itself bring it back, and is counted.
    fn is_stuck(&self, cell: Cell) -> bool {
        let state = self.state[self.key_of[cell as usize] as usize];
        self.wanted[state as usize] > 0 && self.sources[state as usize] == 0
    }

    /// True when optional writes called before `deadline`, the first response, give a read all that it lacks.
    fn can_supply(&self, wanted: &[Cell], deadline: u64) -> bool {
        wanted.iter().all(|cell| {
            self.is_in(*cell) || {
                let next = self.optional[*cell as usize].get(self.used[*cell as usize] as usize);
                next.is_some_and(|call| *call < deadline) && !self.is_stuck(*cell)
            }
        })
    }

    fn set(&mut self, key: u32, cell: Cell) {
        let old = std::mem::replace(&mut self.state[key as usize], cell);
        self.trail.push(Undo::State(key, old));
    }

    /// Linearizes an operation: takes it out of the list.
    fn lift(&mut self, number: u32) {
        let index = number as usize;
        for entry in [2 * index + 1, 2 * index + 2] {
            let (previous, next) = (self.previous[entry], self.next[entry]);
            self.next[previous as usize] = next;
            self.previous[next as usize] = previous;
        }
        match &self.required[index].effect {
            Effect::Write(cell) => self.sources[*cell as usize] -= 1,
            Effect::Read(wanted) => {
                for cell in wanted {
                    self.wanted[*cell as usize] -= 1;
                }
            }
        }
        self.done[index / 32] |= 1 << (index % 32);
        self.high = self.high.max(index + 1);
        while self.low < self.required.len() && is_set(&self.done, self.low) {
            self.low += 1;
        }
        self.trail.push(Undo::Lift(number));
    }

    /// Goes back to where the trail had this length.
    fn undo(&mut self, len: usize) {
        while self.trail.len() > len {
            match self.trail.pop().expect("it is longer") {
                Undo::Lift(number) => self.put_back(number),
                Undo::State(key, old) => self.state[key as usize] = old,
                Undo::Used(cell) => {
                    self.used[cell as usize] -= 1;
                    self.sources[cell as usize] += 1;
                }
            }
        }
    }

    /// The reverse of `lift`. Entries go back in the reverse order, so that their old neighbours are there again.
    fn put_back(&mut self, number: u32) {
        let index = number as usize;
        for entry in [2 * index + 2, 2 * index + 1] {
            let (previous, next) = (self.previous[entry], self.next[entry]);
            let entry = u32::try_from(entry).expect("an entry");
            self.next[previous as usize] = entry;
            self.previous[next as usize] = entry;
        }
        match &self.required[index].effect {
            Effect::Write(cell) => {
                self.sources[*cell as usize] += 1;
                let first = &mut self.first_write[self.key_of[*cell as usize] as usize];
                *first = self.required[index].place.min(*first);
            }
            Effect::Read(wanted) => {
                for cell in wanted {
                    self.wanted[*cell as usize] += 1;
                }
            }
        }
        self.done[index / 32] &= !(1 << (index % 32));
        self.low = index.min(self.low);
    }
}

fn is_set(bits: &[u32], index: usize) -> bool {
    bits[index / 32] & (1 << (index % 32)) != 0
}
