//! A node's disk: what its process reads, what is durable, and the writes between the two. A crash
//! keeps the durable part and a prefix of the rest.

use std::{cell::Cell, collections::VecDeque, rc::Rc};

use basalt_raft::{
    InitialState, Storage, StorageError,
    eraftpb::{Entry, HardState, Snapshot},
    limit_size,
};

use super::{chain::Chain, machine::Machine};

/// A change of a disk.
#[derive(Clone, Debug)]
pub(crate) enum Write {
    /// Term, vote and commit index.
    HardState(HardState),
    /// A state in the place of the log.
    Restore(Rc<Machine>),
    /// Entries, which replace everything from the first one on.
    Append(Rc<Vec<Entry>>),
    /// The state of the state machine.
    Save(Rc<Machine>),
    /// The log goes up to this index, which the saved state has applied.
    Compact(u64),
}

/// What a disk holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Image {
    /// Term, vote and commit index.
    pub(crate) hard_state: HardState,
    /// The log's places.
    pub(crate) chain: Chain,
    entries: VecDeque<Entry>,
    /// The saved state; never below the base of the log.
    pub(crate) machine: Rc<Machine>,
}

impl Image {
    fn place(&self, index: u64) -> usize {
        usize::try_from(index - self.chain.base().index - 1).expect("a short log")
    }

    fn apply(&mut self, write: &Write) {
        match write {
            Write::HardState(state) => self.hard_state = *state,
            Write::Restore(machine) => {
                self.chain = Chain::new(machine.applied);
                self.entries.clear();
                self.machine = Rc::clone(machine);
            }
            Write::Append(entries) => self.append(entries),
            Write::Save(machine) => {
                // A state that a snapshot has overtaken meanwhile is of no use any more.
                if machine.applied.index > self.machine.applied.index {
                    self.machine = Rc::clone(machine);
                }
            }
            Write::Compact(index) => {
                if *index > self.chain.base().index && *index <= self.chain.last().index {
                    self.entries.drain(..=self.place(*index));
                    self.chain.compact(*index);
                }
            }
        }
    }

    fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        let (base, last) = (self.chain.base().index, self.chain.last().index);
        assert!(
            base < first.index && first.index <= last + 1,
            "entries from {} on written to a log of {base}..={last}",
            first.index
        );
        self.entries.truncate(self.place(first.index));
        self.chain.truncate(first.index - 1);
        for entry in entries {
            self.chain.push(self.chain.last().then(entry));
            self.entries.push_back(entry.clone());
        }
    }
}

/// How much of the unsynced writes a crash keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Survival {
    /// Nothing.
    Nothing,
    /// Everything: only the process died.
    Everything,
    /// As many steps.
    Steps(u64),
}

/// A disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    view: Image,
    durable: Image,
    /// Steps that are written and not synced, each kept or lost as a whole.
    pending: VecDeque<Vec<Write>>,
    /// Steps written, ever.
    written: u64,
    /// Snapshots are being made, for as long as anybody can tell.
    pub(crate) snapshot_busy: Cell<bool>,
}

impl Disk {
    /// The disk of a first member.
    pub(crate) fn with(machine: Machine) -> Self {
        let image = Image {
            hard_state: HardState {
                term: machine.applied.term,
                vote: 0,
                commit: machine.applied.index,
            },
            chain: Chain::new(machine.applied),
            entries: VecDeque::new(),
            machine: Rc::new(machine),
        };
        Self {
            view: image.clone(),
            durable: image,
            ..Self::default()
        }
    }

    /// The disk of a member whose data was given back: term and vote are kept, in a term not below
    /// `term`.
    pub(crate) fn emptied(&self, term: u64) -> Self {
        let kept = self.durable.hard_state;
        let vote = if kept.term >= term { kept.vote } else { 0 };
        let hard_state = HardState {
            term: term.max(kept.term),
            vote,
            commit: 0,
        };
        let mut disk = Self::default();
        disk.view.hard_state = hard_state;
        disk.durable.hard_state = hard_state;
        disk
    }

    /// What the process sees.
    pub(crate) fn view(&self) -> &Image {
        &self.view
    }

    /// What survives everything.
    pub(crate) fn durable(&self) -> &Image {
        &self.durable
    }

    /// Writes one step; returns its number, for [`Disk::sync`].
    pub(crate) fn write(&mut self, step: Vec<Write>) -> u64 {
        for write in &step {
            self.view.apply(write);
        }
        self.pending.push_back(step);
        self.written += 1;
        self.written
    }

    /// Steps written, ever.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Everything up to the step `number` is durable.
    pub(crate) fn sync(&mut self, number: u64) {
        let first = self.written - self.pending.len() as u64 + 1;
        for _ in first..=number {
            for write in self.pending.pop_front().into_iter().flatten() {
                self.durable.apply(&write);
            }
        }
    }

    /// Saves a state past the queue of writes, as a store of its own would: durable at once. Only
    /// where the log that it comes from is durable.
    pub(crate) fn save_durably(&mut self, machine: &Rc<Machine>) -> bool {
        let covered = self.durable.chain.at(machine.applied.index) == Some(machine.applied);
        if covered {
            let write = Write::Save(Rc::clone(machine));
            self.view.apply(&write);
            self.durable.apply(&write);
        }
        covered
    }

    /// The process is gone, and unsynced steps with it; returns how many were lost.
    pub(crate) fn crash(&mut self, survival: Survival) -> u64 {
        let steps = self.pending.len() as u64;
        let kept = match survival {
            Survival::Nothing => 0,
            Survival::Everything => steps,
            Survival::Steps(kept) => kept.min(steps),
        };
        self.sync(self.written - steps + kept);
        self.pending.clear();
        self.view = self.durable.clone();
        self.snapshot_busy.set(false);
        steps - kept
    }

    /// Steps that a crash may lose.
    pub(crate) fn unsynced(&self) -> u64 {
        self.pending.len() as u64
    }
}

impl Storage for Disk {
    fn initial_state(&self) -> Result<InitialState, StorageError> {
        Ok(InitialState {
            hard_state: self.view.hard_state,
            conf_state: self.view.machine.conf.clone(),
        })
    }

    fn entries(&self, low: u64, high: u64, max_bytes: u64) -> Result<Vec<Entry>, StorageError> {
        if low <= self.view.chain.base().index {
            return Err(StorageError::Compacted);
        }
        if high > self.view.chain.last().index + 1 {
            return Err(StorageError::Unavailable);
        }
        if low >= high {
            return Ok(Vec::new());
        }
        let range = self.view.place(low)..=self.view.place(high - 1);
        let mut entries: Vec<Entry> = self.view.entries.range(range).cloned().collect();
        limit_size(&mut entries, max_bytes);
        Ok(entries)
    }

    fn term(&self, index: u64) -> Result<u64, StorageError> {
        match self.view.chain.at(index) {
            Some(link) => Ok(link.term),
            None if index < self.view.chain.base().index => Err(StorageError::Compacted),
            None => Err(StorageError::Unavailable),
        }
    }

    fn first_index(&self) -> Result<u64, StorageError> {
        Ok(self.view.chain.base().index + 1)
    }

    fn last_index(&self) -> Result<u64, StorageError> {
        Ok(self.view.chain.last().index)
    }

    fn snapshot(&self, _to: u64) -> Result<Snapshot, StorageError> {
        if self.snapshot_busy.get() {
            return Err(StorageError::SnapshotTemporarilyUnavailable);
        }
        Ok(self.view.machine.to_snapshot())
    }
}
