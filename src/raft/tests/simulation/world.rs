//! The world: nodes, network and virtual time, and one event after the other. One thread and one
//! generator; a run follows from its plan.

use std::{cmp::Reverse, collections::BinaryHeap};

use basalt_raft::{
    Error, RawNode, SnapshotStatus,
    eraftpb::{ConfState, Message, MessageType},
};
use basalt_testkit::Rng;

use super::{
    chain::Link,
    counts::Counts,
    disk::Disk,
    invariants::{Check, Invariant, Oracle, Violation},
    machine::Machine,
    network::{Envelope, Network},
    node::{AsyncDriver, Driver, Node, Point, Process, Seen, SyncDriver},
    plan::{Mood, Plan, TICK},
    trace::{Trace, message_numbers, message_text},
};

/// Where the log of each first member begins: everything before is a snapshot, so that members that
/// come later need one.
const START: Link = Link {
    index: 10,
    term: 1,
    hash: 0x57A7,
};

/// Something that happens at its time. Numbers are places of nodes and their lives.
#[derive(Debug)]
pub(crate) enum Event {
    /// A node starts.
    Start(usize, u32),
    /// A node's clock ticks.
    Tick(usize, u32),
    /// A node that stood still goes on.
    Resume(usize, u32),
    /// A message arrives.
    Deliver(Box<Envelope>),
    /// A node's work is taken.
    Poll(usize, u32),
    /// The next step between `ready` and `advance`.
    SyncStep(usize, u32),
    /// The append thread writes.
    AppendWrite(usize, u32),
    /// The append thread has synced everything up to an append.
    AppendSync(usize, u32, u64),
    /// The apply thread applies.
    Apply(usize, u32),
    /// An answer of the append thread reaches the node.
    Appended(usize, u32),
    /// An answer of the apply thread reaches the node.
    Applied(usize, u32),
    /// What became of a snapshot is known.
    SnapshotStatus(usize, u32, u64, bool),
    /// A node saves its state machine, and perhaps compacts its log.
    Save(usize, u32),
    /// A node is told to campaign.
    Campaign(usize, u32),
    /// Somebody asks for something.
    Request,
    /// Somebody reads at whoever thinks that he leads.
    ReadAtLeaders,
    /// Something goes wrong.
    Mischief,
    /// A node's links break.
    Isolate(usize),
    /// The world gets into another mood.
    Mood,
    /// A removed member's data is given back.
    GiveBack,
    /// The links are mended, if nothing was cut since.
    Mend(u64),
    /// The world is kind from now on.
    Kindness,
    /// Somebody looks whether the group has come to rest.
    Look,
}

struct Scheduled {
    at: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// A run at one moment.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) mood: Mood,
    pub(crate) rng: Rng,
    pub(crate) now: u64,
    queue: BinaryHeap<Reverse<Scheduled>>,
    scheduled: u64,
    pub(crate) nodes: Vec<Node>,
    pub(crate) network: Network,
    pub(crate) oracle: Oracle,
    pub(crate) counts: Counts,
    pub(crate) trace: Trace,
    /// The world is kind.
    pub(crate) kind: bool,
    /// The sum of what all nodes have applied, and when it was last seen to grow.
    pub(crate) headway: (u64, u64),
    /// The group has come to rest after that.
    pub(crate) rested: bool,
    /// Partitions so far.
    pub(crate) cuts: u64,
    /// Values written and contexts of reads so far.
    pub(crate) serial: u64,
    /// What was written to see whether the group makes progress.
    pub(crate) marker: u64,
}

impl World {
    /// The world before its first event; keeps the text of the last `kept` events.
    pub(crate) fn new(plan: Plan, kept: usize) -> Self {
        let conf = ConfState {
            nodes: (1..=plan.voters).collect(),
            ..ConfState::default()
        };
        let machine = Machine {
            applied: START,
            conf,
            ..Machine::default()
        };
        let node = |id: u64| {
            let first = id <= plan.voters;
            let disk = if first {
                Disk::with(machine.clone())
            } else {
                Disk::default()
            };
            Node::new(id, disk, !first)
        };
        let count = plan.nodes.len();
        let mut rng = Rng::new(plan.seed);
        let mood = Mood::some(&mut rng, plan.election_tick);
        let mut world = Self {
            rng,
            now: 0,
            queue: BinaryHeap::new(),
            scheduled: 0,
            nodes: (1..=count as u64).map(node).collect(),
            network: Network::new(count, mood.weather, plan.cuts_lose_all),
            oracle: Oracle::new(count, &machine),
            counts: Counts {
                runs: 1,
                ..Counts::default()
            },
            trace: Trace::new(kept),
            kind: false,
            headway: (0, 0),
            rested: false,
            cuts: 0,
            serial: 0,
            marker: 0,
            mood,
            plan,
        };
        for n in 0..count {
            if !world.nodes[n].blank {
                world.after(0, Event::Start(n, 0));
            }
        }
        world.after(TICK, Event::Request);
        world.after(TICK, Event::Mischief);
        world.after(100 * TICK, Event::Mood);
        world.at(world.plan.kind_from, Event::Kindness);
        world
    }

    /// Runs until the group has come to rest.
    pub(crate) fn run(&mut self) -> Check {
        while !self.rested {
            let Some(Reverse(next)) = self.queue.pop() else {
                return Err(Violation::new(
                    Invariant::Converges,
                    "nothing happens any more",
                ));
            };
            self.now = next.at;
            self.happen(next.event)?;
        }
        self.counts.ticks = self.now / TICK;
        self.counts.events = self.trace.events();
        Ok(())
    }

    /// `event` happens at the time `at`.
    pub(crate) fn at(&mut self, at: u64, event: Event) {
        self.scheduled += 1;
        let number = self.scheduled;
        self.queue.push(Reverse(Scheduled { at, number, event }));
    }

    /// `event` happens after `delay`.
    pub(crate) fn after(&mut self, delay: u64, event: Event) {
        self.at(self.now + delay, event);
    }

    /// Something that usually takes up to `most`.
    pub(crate) fn up_to(&mut self, most: u64) -> u64 {
        self.rng.range(1..most.max(1) + 1)
    }

    /// Notes an event of the node at place `n`.
    pub(crate) fn note(&mut self, n: usize, kind: u64, text: impl FnOnce() -> String) {
        let (now, id) = (self.now, n as u64 + 1);
        self.trace.event(&[now, id, kind], || {
            format!("t={now} node {id}: {}", text())
        });
    }

    /// The process of the node at place `n`, if it is still in this life.
    pub(crate) fn living(&mut self, n: usize, life: u32) -> Option<&mut Process> {
        let node = &mut self.nodes[n];
        if node.life == life {
            node.process.as_deref_mut()
        } else {
            None
        }
    }

    fn happen(&mut self, event: Event) -> Check {
        match &event {
            Event::Tick(n, life) => return self.tick(*n, *life),
            Event::Resume(n, life) => return self.resume(*n, *life),
            Event::Start(n, life) => return self.start(*n, *life),
            Event::Request => return self.request(),
            Event::ReadAtLeaders => return self.read_at_leaders(),
            Event::Mischief => return self.mischief(),
            Event::Isolate(n) => {
                self.isolate_unless_kind(*n);
                return Ok(());
            }
            Event::Mood => {
                self.change_mood();
                return Ok(());
            }
            Event::GiveBack => {
                self.give_back();
                return Ok(());
            }
            Event::Mend(cut) => {
                self.mend(*cut);
                return Ok(());
            }
            Event::Kindness => return self.be_kind(),
            Event::Look => return self.look(),
            _ => {}
        }
        let n = match &event {
            Event::Deliver(envelope) => envelope.to,
            Event::Poll(n, life)
            | Event::SyncStep(n, life)
            | Event::AppendWrite(n, life)
            | Event::AppendSync(n, life, _)
            | Event::Apply(n, life)
            | Event::Appended(n, life)
            | Event::Applied(n, life)
            | Event::SnapshotStatus(n, life, _, _)
            | Event::Campaign(n, life)
            | Event::Save(n, life) => {
                if self.living(*n, *life).is_none() {
                    return Ok(());
                }
                *n
            }
            _ => unreachable!("handled above"),
        };
        if self.nodes[n].paused {
            // It goes on with what came meanwhile, one after the other.
            let gap = self.up_to(TICK / 5);
            let node = &mut self.nodes[n];
            node.caught_up_at = node.caught_up_at.max(node.paused_until).max(self.now) + gap;
            let turn = node.caught_up_at;
            self.at(turn, event);
            return Ok(());
        }
        match event {
            Event::Deliver(envelope) => self.deliver(*envelope),
            Event::Poll(n, _) => self.poll(n),
            Event::SyncStep(n, _) => self.sync_step(n),
            Event::AppendWrite(n, _) => self.append_write(n),
            Event::AppendSync(n, _, number) => self.append_sync(n, number),
            Event::Apply(n, _) => self.apply_next(n),
            Event::Appended(n, _) => self.answer_appended(n),
            Event::Applied(n, _) => self.answer_applied(n),
            Event::SnapshotStatus(n, _, to, arrived) => self.report_snapshot(n, to, arrived),
            Event::Save(n, _) => self.save(n),
            Event::Campaign(n, _) => self.campaign(n),
            _ => unreachable!("handled above"),
        }
    }

    // Lives.

    /// Starts a node, unless it runs or was started since.
    fn start(&mut self, n: usize, life: u32) -> Check {
        let node = &mut self.nodes[n];
        if node.process.is_some() || node.life != life {
            return Ok(());
        }
        node.life += 1;
        node.trap = None;
        node.paused = false;
        let life = node.life;
        if node.reborn {
            node.reborn = false;
            self.counts.members_reborn += 1;
        }
        let fresh = node.blank && node.incarnation == 0;
        node.blank = false;
        let disk = std::mem::take(node.resting());
        let machine = (*disk.view().machine).clone();
        let log = disk.view().chain.clone();
        let mut config = self.plan.nodes[n].config.clone();
        config.seed = self.rng.next_u64();
        config.applied = machine.applied.index;
        if fresh {
            config.quarantine_ticks = 0;
        }
        let driver = if config.async_storage_writes {
            let hard_state = disk.view().hard_state;
            Driver::Async(Box::new(AsyncDriver {
                hard_state,
                ..AsyncDriver::default()
            }))
        } else {
            Driver::Sync(SyncDriver::Idle)
        };
        let raw = RawNode::new(config, disk).map_err(|error| {
            let what = format!("node {} does not start: {error}", n + 1);
            Violation::new(Invariant::NoError, what)
        })?;
        self.note(n, 1, || {
            let raft = raw.raft();
            format!(
                "starts life {life}: term {} vote {} commit {} applied {} last {}/{} {}",
                raft.term(),
                raft.vote(),
                raft.log().committed(),
                raft.log().applied(),
                raft.log().last_term(),
                raft.log().last_index(),
                raft.configuration()
            )
        });
        self.nodes[n].process = Some(Box::new(Process {
            raw,
            machine,
            log,
            seen: Seen::default(),
            driver,
            polling: false,
            missed_ticks: 0,
            asked: Vec::new(),
            granted: Vec::new(),
            inputs: 0,
        }));
        self.oracle.started(&mut self.nodes, n)?;
        let first_tick = self.up_to(self.plan.nodes[n].tick);
        self.after(first_tick, Event::Tick(n, life));
        let first_save = self.up_to(self.mood.pace.save);
        self.after(first_save, Event::Save(n, life));
        self.observe(n)?;
        if !self.kind && self.rng.below(100) < self.mood.ambition {
            let delay = self.up_to(2 * TICK);
            self.after(delay, Event::Campaign(n, life));
        }
        Ok(())
    }

    fn tick(&mut self, n: usize, life: u32) -> Check {
        let paused = self.nodes[n].paused;
        let Some(process) = self.living(n, life) else {
            return Ok(());
        };
        process.missed_ticks += u64::from(paused);
        self.after(self.plan.nodes[n].tick, Event::Tick(n, life));
        if paused {
            return Ok(());
        }
        self.note(n, 2, || "tick".to_owned());
        self.call(n, RawNode::tick)?;
        Ok(())
    }

    /// A node that stood still looks at its clock first: where leases count, time that it missed
    /// has passed.
    fn resume(&mut self, n: usize, life: u32) -> Check {
        let lease = self.plan.lease;
        let (now, until) = (self.now, self.nodes[n].paused_until);
        let Some(process) = self.living(n, life) else {
            return Ok(());
        };
        if until > now {
            return Ok(());
        }
        let missed = std::mem::take(&mut process.missed_ticks);
        self.nodes[n].paused = false;
        let ticks = if lease { missed } else { missed.min(1) };
        self.note(n, 3, || format!("goes on, {missed} ticks later"));
        for _ in 0..ticks {
            self.call(n, RawNode::tick)?;
        }
        self.read_soon(TICK);
        Ok(())
    }

    // Calls.

    /// Calls a node, and looks at what became of it. `None` where it refused a request.
    pub(crate) fn call<T>(
        &mut self,
        n: usize,
        call: impl FnOnce(&mut RawNode<Disk>) -> basalt_raft::Result<T>,
    ) -> Check<Option<T>> {
        let Some(process) = self.nodes[n].process.as_deref_mut() else {
            return Ok(None);
        };
        let result = match call(&mut process.raw) {
            Ok(value) => Some(value),
            Err(Error::ProposalDropped(_) | Error::ReadsFull | Error::PeerNotFound) => None,
            Err(error) => {
                let what = format!("node {}: {error}", n + 1);
                return Err(Violation::new(Invariant::NoError, what));
            }
        };
        self.observe(n)?;
        Ok(result)
    }

    /// Checks what a node has become, and sees to it that its work is taken.
    fn observe(&mut self, n: usize) -> Check {
        let seen = self.oracle.observe(&mut self.nodes, n)?;
        self.counts.commits += seen.committed;
        let Some(process) = self.nodes[n].process.as_deref_mut() else {
            return Ok(());
        };
        let busy = matches!(
            process.driver,
            Driver::Sync(SyncDriver::Syncing(..) | SyncDriver::Applying(_))
        );
        if !process.polling && !busy && process.raw.has_ready() {
            process.polling = true;
            let delay = self.up_to(self.mood.pace.poll);
            self.after(delay, Event::Poll(n, self.nodes[n].life));
        }
        if seen.first_of_term {
            self.read_soon(self.plan.election_tick * TICK / 2);
        }
        if seen.elected {
            self.on_elected(n)?;
        }
        Ok(())
    }

    fn on_elected(&mut self, n: usize) -> Check {
        self.counts.elections += 1;
        let term = self.nodes[n]
            .process
            .as_ref()
            .map_or(0, |process| process.seen.term);
        if self.nodes[n].told_to_campaign + 1 == term {
            self.counts.transfers += 1;
        }
        self.note(n, 4, || format!("is elected in term {term}"));
        self.read_soon(TICK);
        if self.springs(n, Point::Elected) {
            return Ok(());
        }
        self.harass(n)
    }

    /// Whether the trap at `point` springs: then the node is dead.
    pub(crate) fn springs(&mut self, n: usize, point: Point) -> bool {
        let springs = self.nodes[n].trap == Some(point);
        if springs {
            self.crash(n);
        }
        springs
    }

    // Messages.

    /// Sends what a node says.
    pub(crate) fn send(&mut self, n: usize, message: Message) -> Check {
        self.oracle.sent(&self.nodes, n, &message)?;
        let Some(to) = usize::try_from(message.to)
            .ok()
            .and_then(|to| to.checked_sub(1))
        else {
            let what = format!("node {} sends to nobody: {message:?}", n + 1);
            return Err(Violation::new(Invariant::NoError, what));
        };
        let (now, numbers) = (self.now, message_numbers(&message));
        self.trace.event(&numbers, || {
            format!("t={now} node {} sends {}", n + 1, message_text(&message))
        });
        let large = message.msg_type() == MessageType::MsgSnapshot;
        let fate = self.network.fate(&mut self.rng, n, to, large);
        if fate.is_empty() {
            self.counts.lost += 1;
            self.lose(n, self.nodes[n].life, &message);
            return Ok(());
        }
        self.counts.duplicated += fate.len() as u64 - 1;
        let life = self.nodes[n].life;
        let incarnation = self.nodes[to].incarnation;
        for delay in fate {
            let envelope = Envelope {
                from: n,
                to,
                incarnation,
                life,
                message: message.clone(),
            };
            self.after(delay.max(1), Event::Deliver(Box::new(envelope)));
        }
        Ok(())
    }

    /// A message does not arrive; of a snapshot its sender is told so.
    fn lose(&mut self, from: usize, life: u32, message: &Message) {
        if message.msg_type() == MessageType::MsgSnapshot {
            let later = self.up_to(self.plan.election_tick * TICK);
            self.after(later, Event::SnapshotStatus(from, life, message.to, false));
        }
    }

    fn deliver(&mut self, envelope: Envelope) -> Check {
        let Envelope {
            from,
            to,
            incarnation,
            life,
            message,
        } = envelope;
        let cut = self.network.cuts_lose_all && self.network.is_cut(from, to);
        let node = &self.nodes[to];
        if cut || node.process.is_none() || node.incarnation != incarnation {
            self.counts.lost += 1;
            self.lose(from, life, &message);
            return Ok(());
        }
        self.counts.delivered += 1;
        let now = self.now;
        self.trace.event(&[now, to as u64, 5], || {
            format!(
                "t={now} node {} receives {}",
                to + 1,
                message_text(&message)
            )
        });
        match message.msg_type() {
            MessageType::MsgSnapshot => {
                let later = self.up_to(TICK);
                self.after(later, Event::SnapshotStatus(from, life, message.to, true));
            }
            MessageType::MsgTimeoutNow => self.nodes[to].told_to_campaign = message.term,
            _ => {}
        }
        if let Some(process) = self.nodes[to].process.as_deref_mut() {
            process.inputs += 1;
        }
        self.call(to, |raw| raw.step(message))?;
        Ok(())
    }

    fn report_snapshot(&mut self, n: usize, to: u64, arrived: bool) -> Check {
        self.note(n, 6, || {
            format!("learns that the snapshot to {to} arrived: {arrived}")
        });
        let status = if arrived {
            SnapshotStatus::Delivered
        } else {
            self.counts.snapshots_failed += 1;
            SnapshotStatus::Failed
        };
        self.call(n, |raw| raw.report_snapshot(to, status))?;
        Ok(())
    }
}
