//! The end of a run: nothing goes wrong any more, and the group must come to rest: one leader, the
//! same log on all members, everything applied, and a write that was made meanwhile among it.

use basalt_raft::{RawNode, eraftpb::ConfState};

use super::{
    invariants::{Check, Invariant, Violation},
    mischief::members,
    network::Weather,
    node::Process,
    plan::TICK,
    requests::leave,
    world::{Event, World},
};

/// Election timeouts without headway after which the group must have come to rest.
const PATIENCE: u64 = 100;

/// Election timeouts after which it must have, whatever is still to be sent through its windows.
const LONGEST: u64 = 5_000;

impl World {
    /// Nothing goes wrong from now on.
    pub(crate) fn be_kind(&mut self) -> Check {
        let now = self.now;
        self.trace
            .event(&[now, 50], || format!("t={now} the world is kind"));
        self.kind = true;
        self.network.mend();
        self.network.weather = Weather::FINE;
        let pace = &mut self.mood.pace;
        pace.poll = pace.poll.min(TICK / 50);
        pace.sync = pace.sync.min(TICK / 50);
        pace.apply = pace.apply.min(TICK / 50);
        for n in 0..self.nodes.len() {
            let node = &mut self.nodes[n];
            node.trap = None;
            // A node whose clock runs twice as fast would campaign before all others for ever.
            self.plan.nodes[n].tick = TICK;
            node.slow_disk_until = 0;
            node.slow_apply_until = 0;
            node.disk().snapshot_busy.set(false);
            if node.process.is_none() && !node.blank {
                let delay = self.up_to(TICK);
                self.after(delay, Event::Start(n, self.nodes[n].life));
            }
        }
        self.after(self.plan.election_tick * TICK, Event::Look);
        Ok(())
    }

    /// Looks whether the group has come to rest, and helps where only a caller can.
    pub(crate) fn look(&mut self) -> Check {
        let (since, conf) = self.oracle.membership_now();
        let conf = conf.clone();
        let ids: Vec<u64> = members(&conf).collect();
        self.start_and_stop(since, &ids);
        let Some(restless) = self.restless(&conf, &ids) else {
            self.rested = true;
            return Ok(());
        };
        let timeout = self.plan.election_tick * TICK;
        // Entries that arrive are headway too: thousands may go through a window of one message
        // before the next is committed.
        let processes = self.nodes.iter().filter_map(|node| node.process.as_ref());
        let done =
            processes.map(|process| process.machine.applied.index + process.log.last().index);
        let done = done.sum();
        if done > self.headway.0 {
            self.headway = (done, self.now);
        }
        let from = self.headway.1.max(self.plan.kind_from);
        if self.now > from + PATIENCE * timeout
            || self.now > self.plan.kind_from + LONGEST * timeout
        {
            return Err(Violation::new(
                Invariant::Converges,
                restless + &self.summary(),
            ));
        }
        self.after(timeout / 2, Event::Look);
        let Some(leader) = self.latest_leader() else {
            return Ok(());
        };
        if !conf.voters_outgoing.is_empty() && !conf.auto_leave {
            self.note(leader, 51, || {
                "is to leave the joint configuration".to_owned()
            });
            self.call(leader, |raw| raw.propose_conf_change(leave()))?;
        }
        let written = self.nodes[leader].process.as_ref();
        if written.is_none_or(|process| !has(process, self.marker)) {
            let (value, data) = self.new_value();
            self.marker = value;
            self.note(leader, 52, || format!("is to write {value} for all to see"));
            self.call(leader, |raw| raw.propose(data))?;
        }
        Ok(())
    }

    /// Who leads in the highest term.
    fn latest_leader(&self) -> Option<usize> {
        let leaders = self
            .nodes
            .iter()
            .enumerate()
            .filter(|(_, node)| node.leads());
        let term = |node: &super::node::Node| node.process.as_ref().map(|p| p.seen.term);
        leaders.max_by_key(|(_, node)| term(node)).map(|(n, _)| n)
    }

    /// Members run. Who is none is stopped, once all members know.
    fn start_and_stop(&mut self, since: u64, ids: &[u64]) {
        let knows = |id: &u64| {
            let node = self.nodes.iter().find(|node| node.id == *id);
            let process = node.and_then(|node| node.process.as_ref());
            process.is_some_and(|process| process.machine.applied.index >= since)
        };
        let all_know = ids.iter().all(knows);
        for n in 0..self.nodes.len() {
            let (id, runs) = (self.nodes[n].id, self.nodes[n].process.is_some());
            let is_member = ids.contains(&id);
            if is_member && !runs {
                self.after(1, Event::Start(n, self.nodes[n].life));
            } else if !is_member && runs && all_know {
                self.note(n, 53, || "is no member, and stopped".to_owned());
                self.nodes[n].stop();
                self.nodes[n].life += 1;
            }
        }
    }

    /// Why the group has not come to rest; `None` if it has.
    fn restless(&self, conf: &ConfState, ids: &[u64]) -> Option<String> {
        let Some(leader) = self.latest_leader() else {
            return Some("nobody leads".to_owned());
        };
        let id = self.nodes[leader].id;
        let Some(ours) = self.nodes[leader].process.as_deref() else {
            return Some("the leader is gone".to_owned());
        };
        if !conf.voters_outgoing.is_empty() {
            return Some("the membership is joint".to_owned());
        }
        if !ids.contains(&id) {
            return Some(format!("{id} leads and is no member"));
        }
        if ours.raw.raft().configuration().to_conf_state() != *conf {
            return Some(format!("the leader {id} goes by another membership"));
        }
        if !has(ours, self.marker) {
            return Some(format!("the leader {id} makes no progress"));
        }
        let last = ours.log.last();
        for member in ids {
            let node = self.nodes.iter().find(|node| node.id == *member);
            let Some(process) = node.and_then(|node| node.process.as_deref()) else {
                return Some(format!("{member} does not run"));
            };
            let raft = process.raw.raft();
            if (raft.term(), raft.leader()) != (ours.seen.term, id) {
                return Some(format!("{member} does not follow {id}"));
            }
            if process.log.last() != last || process.machine.applied != last {
                return Some(format!("{member} is behind {id}"));
            }
        }
        None
    }

    /// Every node in a line.
    fn summary(&self) -> String {
        let mut text = String::new();
        let (since, conf) = self.oracle.membership_now();
        text += &format!("\nmembership since {since}: {conf:?}");
        for node in &self.nodes {
            match &node.process {
                None => text += &format!("\nnode {} does not run, blank: {}", node.id, node.blank),
                Some(process) => text += &format!("\nnode {}: {}", node.id, line(process)),
            }
        }
        text
    }
}

fn has(process: &Process, marker: u64) -> bool {
    marker > 0 && process.machine.registers[super::machine::key_of(marker)] == marker
}

fn line(process: &Process) -> String {
    let raft = process.raw.raft();
    let log = raft.log();
    let mut text = format!(
        "{} term {} vote {} leader {} commit {} applying {} applied {} machine {} last {}/{} {}",
        raft.role(),
        raft.term(),
        raft.vote(),
        raft.leader(),
        log.committed(),
        log.applying(),
        log.applied(),
        process.machine.applied.index,
        log.last_term(),
        log.last_index(),
        raft.configuration()
    );
    let status = RawNode::status(&process.raw);
    for (id, progress) in status.progress {
        text += &format!("\n    {id}: {progress}");
    }
    text
}
