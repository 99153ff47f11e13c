//! A node of the simulated group: a disk that stays, and a process that comes and goes.

use std::{collections::VecDeque, rc::Rc};

use basalt_raft::{
    RawNode, Ready, Role,
    eraftpb::{Entry, HardState, Message},
};

use super::{
    chain::Chain,
    disk::{Disk, Write},
    machine::Machine,
};

/// A step of a node at which it can be made to die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// Something is written and not synced.
    Written,
    /// Something is synced, and nothing was said of it.
    Synced,
    /// A message has left.
    Sent,
    /// Entries are applied and not acknowledged.
    Applied,
    /// It was elected.
    Elected,
}

/// All of them.
pub(crate) const POINTS: [Point; 5] = [
    Point::Written,
    Point::Synced,
    Point::Sent,
    Point::Applied,
    Point::Elected,
];

/// A node.
pub(crate) struct Node {
    /// Its id; its place among the nodes, plus 1.
    pub(crate) id: u64,
    /// How often it was started.
    pub(crate) life: u32,
    /// How often its disk was replaced by an empty one.
    pub(crate) incarnation: u32,
    /// It runs, or not.
    pub(crate) process: Option<Box<Process>>,
    /// Its disk, while no process has it.
    resting: Disk,
    /// It waits, empty, to be made a member.
    pub(crate) blank: bool,
    /// It was a member, gave its data back, and waits to be made one again.
    pub(crate) reborn: bool,
    /// It stands still.
    pub(crate) paused: bool,
    /// Until then.
    pub(crate) paused_until: u64,
    /// When it will have taken what came while it stood still.
    pub(crate) caught_up_at: u64,
    /// Its disk is slow until then.
    pub(crate) slow_disk_until: u64,
    /// Its state machine is slow until then.
    pub(crate) slow_apply_until: u64,
    /// Where it dies.
    pub(crate) trap: Option<Point>,
    /// The last term in which a `MsgTimeoutNow` reached it.
    pub(crate) told_to_campaign: u64,
}

impl Node {
    /// A node that does not run yet, with its disk.
    pub(crate) fn new(id: u64, disk: Disk, blank: bool) -> Self {
        Self {
            id,
            life: 0,
            incarnation: 0,
            process: None,
            resting: disk,
            blank,
            reborn: false,
            paused: false,
            paused_until: 0,
            caught_up_at: 0,
            slow_disk_until: 0,
            slow_apply_until: 0,
            trap: None,
            told_to_campaign: 0,
        }
    }

    /// Its disk.
    pub(crate) fn disk(&self) -> &Disk {
        match &self.process {
            Some(process) => process.raw.storage(),
            None => &self.resting,
        }
    }

    /// The disk of a node that does not run.
    pub(crate) fn resting(&mut self) -> &mut Disk {
        assert!(self.process.is_none(), "node {} runs", self.id);
        &mut self.resting
    }

    /// The process is gone, its disk is left.
    pub(crate) fn stop(&mut self) {
        self.paused = false;
        if let Some(mut process) = self.process.take() {
            self.resting = std::mem::take(process.raw.storage_mut());
        }
    }

    /// Whether it leads, as far as it knows.
    pub(crate) fn leads(&self) -> bool {
        let process = self.process.as_ref();
        process.is_some_and(|process| process.raw.raft().role() == Role::Leader)
    }
}

/// What a process was seen to be after the last call.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    /// Its term.
    pub(crate) term: u64,
    /// Its vote.
    pub(crate) vote: u64,
    /// Its commit index.
    pub(crate) commit: u64,
    /// What it thinks is applied.
    pub(crate) applied: u64,
    /// Whether it led.
    pub(crate) led: bool,
}

/// A read that was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Read {
    /// The context that it was asked for with.
    pub(crate) context: u64,
    /// What its answer must reflect.
    pub(crate) floor: u64,
    /// Messages that its node had taken by then.
    pub(crate) inputs: u64,
    /// Its node led.
    pub(crate) at_leader: bool,
}

/// A running node.
pub(crate) struct Process {
    /// The node under test.
    pub(crate) raw: RawNode<Disk>,
    /// Its state machine.
    pub(crate) machine: Machine,
    /// Its log, unstable tail included, as it was seen after the last call.
    pub(crate) log: Chain,
    /// What else was seen then.
    pub(crate) seen: Seen,
    /// How it persists.
    pub(crate) driver: Driver,
    /// A poll is on its way.
    pub(crate) polling: bool,
    /// Ticks that passed while it stood still.
    pub(crate) missed_ticks: u64,
    /// Reads without an index.
    pub(crate) asked: Vec<Read>,
    /// Reads that wait until an index is applied.
    pub(crate) granted: Vec<(u64, Read)>,
    /// Messages taken.
    pub(crate) inputs: u64,
}

/// How a node persists.
pub(crate) enum Driver {
    /// Between `ready` and `advance`.
    Sync(SyncDriver),
    /// Through messages.
    Async(Box<AsyncDriver>),
}

/// Where a node stands between `ready` and `advance`.
#[derive(Default)]
pub(crate) enum SyncDriver {
    /// Before `ready`.
    #[default]
    Idle,
    /// The work is written; up to this step it has to be synced.
    Syncing(Box<Ready>, u64),
    /// The work is durable and said; the rest has to be applied.
    Applying(Box<Ready>),
}

/// An append that is written and not synced.
pub(crate) struct Appending {
    /// Which one.
    pub(crate) number: u64,
    /// Its step on the disk, if it writes anything.
    pub(crate) step: Option<u64>,
    /// The state that it restores.
    pub(crate) restores: Option<Rc<Machine>>,
    /// What to deliver then.
    pub(crate) responses: Vec<Message>,
}

/// The storage threads of a node, and what is held back for them.
#[derive(Default)]
pub(crate) struct AsyncDriver {
    /// Appends that are not written.
    pub(crate) appends: VecDeque<Message>,
    /// Appends that are written and not synced.
    pub(crate) unsynced: VecDeque<Appending>,
    /// Appends handed over, ever.
    pub(crate) handed: u64,
    /// Appends written, ever.
    pub(crate) written: u64,
    /// The append thread is about to write.
    pub(crate) writing: bool,
    /// Term and vote as last handed over.
    pub(crate) hard_state: HardState,
    /// The append with which the present term becomes durable.
    pub(crate) term_with: u64,
    /// The append with which the present vote becomes durable.
    pub(crate) vote_with: u64,
    /// All appends up to this one are durable.
    pub(crate) durable: u64,
    /// Messages that wait for an append.
    pub(crate) held: VecDeque<(u64, Message)>,
    /// Work of the apply thread.
    pub(crate) applies: VecDeque<Message>,
    /// The apply thread is about to apply.
    pub(crate) applying: bool,
    /// Answers of the append thread on their way.
    pub(crate) appended: VecDeque<Message>,
    /// Answers of the apply thread on their way.
    pub(crate) applied: VecDeque<Message>,
}

/// The step of a disk that hard state, snapshot and entries make, and the state in the snapshot.
pub(crate) fn step_of(
    hard_state: Option<HardState>,
    snapshot: Option<&basalt_raft::eraftpb::Snapshot>,
    entries: &[Entry],
) -> (Vec<Write>, Option<Rc<Machine>>) {
    let mut step = Vec::new();
    step.extend(hard_state.map(Write::HardState));
    let restored = snapshot.map(|snapshot| Rc::new(Machine::from_snapshot(snapshot)));
    step.extend(restored.clone().map(Write::Restore));
    if !entries.is_empty() {
        step.push(Write::Append(Rc::new(entries.to_vec())));
    }
    (step, restored)
}
