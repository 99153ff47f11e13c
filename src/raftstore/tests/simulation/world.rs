//! `World`: time, events and their order. Everything that happens is an event on one heap, drawn from one
//! seed; between two events nothing happens.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use basalt_proto::{
    metapb::{Region, RegionEpoch},
    raft_serverpb::RaftMessage,
};
use basalt_raft::eraftpb::ConfState;
use basalt_raftstore::{Membership, StoreConfig};
use basalt_testkit::Rng;

use super::{
    clients::Clients,
    counts::Counts,
    invariants::{Oracle, Violation},
    network::Network,
    node::{Node, Outgoing, peer},
    plan::Plan,
};

/// Nanoseconds.
pub(crate) const MICRO: u64 = 1_000;
pub(crate) const MILLI: u64 = 1_000_000;
pub(crate) const SECOND: u64 = 1_000_000_000;

/// Something that happens. Numbers are places of stores and lives in which it makes sense.
#[derive(Debug)]
pub(crate) enum Event {
    Tick(usize, u32),
    Turn(usize, u32),
    Apply(usize, u32),
    Work(usize, u32),
    Flush(usize, u32),
    Disk(usize, u32),
    Deliver(Box<RaftMessage>),
    Question(usize, u32, Box<RaftMessage>),
    Snapshot(usize, u32, Box<RaftMessage>),
    Start(usize, u32),
    Replace(usize, u32),
    Client(usize),
    Mischief,
    Look,
}

struct Queued {
    at: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

pub(crate) struct World {
    pub(crate) now: u64,
    shared_now: Arc<AtomicU64>,
    events: BinaryHeap<Reverse<Queued>>,
    queued: u64,
    pub(crate) rng: Rng,
    pub(crate) plan: Plan,
    pub(crate) nodes: Vec<Node>,
    pub(crate) network: Network,
    pub(crate) clients: Clients,
    pub(crate) oracle: Oracle,
    pub(crate) counts: Counts,
    /// A hash over everything that happened.
    pub(crate) trace: u64,
    pub(crate) verbose: bool,
    /// What was found in the middle of an event.
    pub(crate) found: Option<Violation>,
    /// Nothing goes wrong any more.
    pub(crate) kind: bool,
    pub(crate) rested: bool,
}

pub(crate) type Check<T = ()> = Result<T, Violation>;

impl World {
    pub(crate) fn new(seed: u64, plan: Plan, verbose: bool) -> Self {
        let mut rng = Rng::new(seed);
        let shared_now = Arc::new(AtomicU64::new(0));
        let nodes = (1..=plan.stores as u64)
            .map(|id| Node::new(id, &shared_now, 980 + rng.below(41)))
            .collect();
        let mut world = Self {
            now: 0,
            shared_now,
            events: BinaryHeap::new(),
            queued: 0,
            nodes,
            network: Network::new(plan.stores),
            clients: Clients::new(plan.clients),
            oracle: Oracle::default(),
            counts: Counts::default(),
            trace: seed,
            verbose,
            found: None,
            kind: false,
            rested: false,
            plan,
            rng,
        };
        for n in 0..world.nodes.len() {
            let delay = world.up_to(100 * MILLI);
            world.after(delay, Event::Start(n, 0));
        }
        for client in 0..world.plan.clients {
            let delay = SECOND + world.up_to(SECOND);
            world.after(delay, Event::Client(client));
        }
        world.after(2 * SECOND, Event::Mischief);
        world.after(SECOND, Event::Look);
        world
    }

    /// The first region: founders are the first stores, each with the peer of its number.
    pub(crate) fn founding(&self) -> Membership {
        let ids: Vec<u64> = (1..=self.plan.founders as u64).collect();
        Membership {
            region: Region {
                id: 1,
                region_epoch: Some(RegionEpoch {
                    conf_ver: 1,
                    version: 1,
                }),
                peers: ids.iter().map(|id| peer(*id, *id)).collect(),
                ..Region::default()
            },
            conf_state: ConfState {
                nodes: ids,
                ..ConfState::default()
            },
        }
    }

    pub(crate) fn up_to(&mut self, most: u64) -> u64 {
        self.rng.below(most.max(1)) + 1
    }

    pub(crate) fn after(&mut self, delay: u64, event: Event) {
        self.queued += 1;
        self.events.push(Reverse(Queued {
            at: self.now + delay,
            number: self.queued,
            event,
        }));
    }

    pub(crate) fn note(&mut self, n: usize, code: u64, what: impl FnOnce() -> String) {
        for part in [self.now, n as u64, code] {
            self.trace = (self.trace ^ part)
                .wrapping_mul(0x9E37_79B9_7F4A_7C15)
                .rotate_left(29);
        }
        if self.verbose {
            println!("{:>14} store {}: {}", self.now / MICRO, n + 1, what());
        }
    }

    /// Lets everything happen up to `until`.
    pub(crate) fn run(&mut self, until: u64) -> Check {
        while !self.rested {
            let Some(Reverse(next)) = self.events.peek() else {
                break;
            };
            if next.at > until {
                break;
            }
            let Some(Reverse(Queued { at, event, .. })) = self.events.pop() else {
                break;
            };
            self.now = at;
            self.shared_now.store(at, Ordering::Relaxed);
            self.counts.events += 1;
            self.happen(event)?;
            self.found.take().map_or(Ok(()), Err)?;
        }
        self.now = self.now.max(until);
        Ok(())
    }

    /// Whether a store lives this life and is awake; what comes to one that is paused comes again later.
    fn is_awake(&mut self, n: usize, life: u32, event: impl FnOnce() -> Event) -> bool {
        let node = &self.nodes[n];
        if node.life != life || node.running.is_none() {
            return false;
        }
        if node.paused_until > self.now {
            let delay = node.paused_until - self.now;
            self.after(delay, event());
            return false;
        }
        true
    }

    fn happen(&mut self, event: Event) -> Check {
        match event {
            Event::Tick(n, life) => {
                if self.is_awake(n, life, || Event::Tick(n, life)) {
                    self.turn(n)?;
                    let tick = u64::try_from(self.plan.config.tick.as_nanos()).unwrap_or(MILLI);
                    self.after(tick, Event::Tick(n, life));
                }
            }
            Event::Turn(n, life) => {
                if self.is_awake(n, life, || Event::Turn(n, life)) {
                    self.turn(n)?;
                }
            }
            Event::Apply(n, life) => {
                if self.is_awake(n, life, || Event::Apply(n, life))
                    && let Some(running) = &mut self.nodes[n].running
                {
                    running.scheduled.apply = false;
                    running.applier.turn();
                    self.note(n, 2, || "applies".to_owned());
                    self.wake(n)?;
                }
            }
            Event::Work(n, life) => {
                if self.is_awake(n, life, || Event::Work(n, life))
                    && let Some(running) = &mut self.nodes[n].running
                {
                    running.scheduled.work = false;
                    running.workers.snapshots.turn();
                    self.note(n, 3, || "makes snapshots".to_owned());
                    self.wake(n)?;
                }
            }
            Event::Flush(n, life) => {
                if self.is_awake(n, life, || Event::Flush(n, life))
                    && let Some(running) = &mut self.nodes[n].running
                {
                    running.scheduled.flush = false;
                    running.workers.flushes.turn();
                    self.note(n, 5, || "flushes".to_owned());
                    self.wake(n)?;
                }
            }
            Event::Disk(n, life) => {
                if self.is_awake(n, life, || Event::Disk(n, life)) {
                    if let Some(running) = &mut self.nodes[n].running {
                        running.scheduled.disk = false;
                    }
                    self.nodes[n].help();
                    self.note(n, 4, || "the disk does something".to_owned());
                    self.wake(n)?;
                }
            }
            Event::Deliver(message) => self.deliver(*message)?,
            Event::Question(from, life, message) => self.carry_question(from, life, &message)?,
            Event::Snapshot(from, life, message) => self.carry_snapshot(from, life, *message)?,
            Event::Start(n, life) => self.start(n, life)?,
            Event::Replace(n, life) => {
                if self.nodes[n].life == life && self.nodes[n].disk_fails {
                    self.crash(n);
                }
            }
            Event::Client(client) => self.client_acts(client)?,
            Event::Mischief => self.mischief()?,
            Event::Look => self.look()?,
        }
        Ok(())
    }

    fn turn(&mut self, n: usize) -> Check {
        let Some(running) = &mut self.nodes[n].running else {
            return Ok(());
        };
        running.scheduled.store = false;
        running.store.turn();
        self.note(n, 1, || "takes a turn".to_owned());
        self.wake(n)
    }

    /// After something happened at a store: what it says is on its way, what it wants is scheduled.
    pub(crate) fn wake(&mut self, n: usize) -> Check {
        if let Some(left) = self.nodes[n].sprung() {
            // Power was cut in the middle of it: what was said after that was not.
            self.forget_answers(n);
            self.crash_to(n, left);
            return Ok(());
        }
        let life = self.nodes[n].life;
        let Some(running) = &mut self.nodes[n].running else {
            return Ok(());
        };
        let outgoing = running.take_outgoing();
        let wants = |wanted: bool, scheduled: &mut bool| {
            let new = wanted && !*scheduled;
            *scheduled |= new;
            new
        };
        let store = wants(
            !running.store.inbox().is_empty() || running.store.wants_turn(),
            &mut running.scheduled.store,
        );
        let apply = wants(
            !running.applier.inbox().is_empty(),
            &mut running.scheduled.apply,
        );
        let work = wants(
            !running.workers.snapshots.inbox().is_empty(),
            &mut running.scheduled.work,
        );
        let flush = wants(
            !running.workers.flushes.inbox().is_empty(),
            &mut running.scheduled.flush,
        );
        let disk = wants(running.executor.queued() > 0, &mut running.scheduled.disk);
        let fenced = running.store.fenced().map(str::to_owned);
        for message in outgoing {
            match message {
                Outgoing::Message(message) => {
                    self.may_be_said(n, &message)?;
                    self.send(n, message);
                }
                Outgoing::Question(message) => {
                    let delay = self.up_to(20 * MILLI);
                    self.after(delay, Event::Question(n, life, Box::new(message)));
                }
                Outgoing::Snapshot(message) => {
                    let delay = self.up_to(20 * MILLI);
                    self.after(delay, Event::Snapshot(n, life, Box::new(message)));
                }
            }
        }
        if store {
            let delay = self.up_to(self.plan.pace.turn);
            self.after(delay, Event::Turn(n, life));
        }
        if apply {
            let slow = self.nodes[n].slow_until > self.now;
            let pace = if slow {
                4 * SECOND
            } else {
                self.plan.pace.apply
            };
            let delay = self.up_to(pace);
            self.after(delay, Event::Apply(n, life));
        }
        if work {
            let delay = self.up_to(self.plan.pace.work);
            self.after(delay, Event::Work(n, life));
        }
        if flush {
            let delay = self.up_to(self.plan.pace.work);
            self.after(delay, Event::Flush(n, life));
        }
        if disk {
            let slow = self.nodes[n].slow_until > self.now;
            let pace = if slow {
                200 * MILLI
            } else {
                self.plan.pace.disk
            };
            let delay = self.up_to(pace);
            self.after(delay, Event::Disk(n, life));
        }
        self.take_answers()?;
        if let Some(why) = fenced {
            return self.on_fence(n, why);
        }
        Ok(())
    }

    fn start(&mut self, n: usize, life: u32) -> Check {
        if self.nodes[n].life != life || self.nodes[n].running.is_some() {
            return Ok(());
        }
        let founding = (n < self.plan.founders).then(|| self.founding());
        let seed = self.rng.next_u64();
        let config = StoreConfig {
            store_id: self.nodes[n].id,
            seed,
            ..self.plan.config.clone()
        };
        match self.nodes[n].start(config, founding.as_ref(), seed) {
            Ok(()) => {
                self.note(n, 5, || "starts".to_owned());
                self.counts.starts += 1;
                let life = self.nodes[n].life;
                let delay = self.up_to(50 * MILLI);
                self.after(delay, Event::Tick(n, life));
                self.wake(n)
            }
            Err(why) => self.oracle.cannot_start(n, &why),
        }
    }
}
