//! What both ways to persist share: applying, reads, saving the state machine; and the one between
//! `ready` and `advance`.

use std::rc::Rc;

use basalt_raft::{
    Error, MembershipChange, RawNode, ReadState,
    eraftpb::{ConfState, Entry, EntryType},
};

use super::{
    disk::Write,
    invariants::{Check, Invariant, Violation},
    machine::Machine,
    node::{Driver, Point, Process, SyncDriver, step_of},
    plan::TICK,
    world::{Event, World},
};

impl World {
    /// The process of a node that runs.
    pub(crate) fn process(&mut self, n: usize) -> &mut Process {
        let process = self.nodes[n].process.as_deref_mut();
        process.expect("an event of a living process")
    }

    /// Takes a node's work.
    pub(crate) fn poll(&mut self, n: usize) -> Check {
        let process = self.process(n);
        process.polling = false;
        if !process.raw.has_ready() {
            return Ok(());
        }
        match &process.driver {
            Driver::Sync(SyncDriver::Idle) => self.poll_sync(n),
            // Its next poll comes with `advance`.
            Driver::Sync(_) => Ok(()),
            Driver::Async(_) => self.poll_async(n),
        }
    }

    fn poll_sync(&mut self, n: usize) -> Check {
        let Some(ready) = self.call(n, RawNode::ready)? else {
            return Ok(());
        };
        self.note(n, 10, || {
            format!(
                "ready: {:?}, {} entries, snapshot {}, {} committed, {} messages, must sync: {}",
                ready.hard_state,
                ready.entries.len(),
                ready.snapshot.is_some(),
                ready.committed_entries.len(),
                ready.messages.len(),
                ready.must_sync
            )
        });
        self.grant_reads(n, &ready.read_states)?;
        let (step, _) = step_of(ready.hard_state, ready.snapshot.as_deref(), &ready.entries);
        let syncs = ready.must_sync || ready.snapshot.is_some();
        let writes = !step.is_empty();
        let disk = self.process(n).raw.storage_mut();
        let number = if writes {
            disk.write(step)
        } else {
            disk.written()
        };
        self.process(n).driver = Driver::Sync(SyncDriver::Syncing(Box::new(ready), number));
        if writes && self.springs(n, Point::Written) {
            return Ok(());
        }
        let delay = if syncs { self.sync_time(n) } else { 1 };
        self.after(delay, Event::SyncStep(n, self.nodes[n].life));
        Ok(())
    }

    /// How long a sync of this node takes now.
    pub(crate) fn sync_time(&mut self, n: usize) -> u64 {
        let slow = self.nodes[n].slow_disk_until > self.now;
        let stall = if slow {
            self.plan.election_tick * TICK / 2
        } else {
            0
        };
        self.up_to(self.mood.pace.sync + stall)
    }

    /// How long applying takes this node now.
    pub(crate) fn apply_time(&mut self, n: usize) -> u64 {
        let slow = self.nodes[n].slow_apply_until > self.now;
        let stall = if slow {
            3 * self.plan.election_tick * TICK
        } else {
            0
        };
        self.up_to(self.mood.pace.apply + stall)
    }

    pub(crate) fn sync_step(&mut self, n: usize) -> Check {
        let Driver::Sync(driver) = &mut self.process(n).driver else {
            unreachable!("a step of the other driver");
        };
        match std::mem::take(driver) {
            SyncDriver::Idle => unreachable!("a step without work"),
            SyncDriver::Syncing(mut ready, number) => {
                if ready.must_sync || ready.snapshot.is_some() {
                    self.process(n).raw.storage_mut().sync(number);
                    self.oracle.synced(&self.nodes, n)?;
                }
                self.note(n, 11, || format!("has written step {number}"));
                let messages = std::mem::take(&mut ready.messages);
                self.process(n).driver = Driver::Sync(SyncDriver::Applying(ready));
                if self.springs(n, Point::Synced) {
                    return Ok(());
                }
                for message in messages {
                    self.send(n, message)?;
                    if self.springs(n, Point::Sent) {
                        return Ok(());
                    }
                }
                let delay = self.apply_time(n);
                self.after(delay, Event::SyncStep(n, self.nodes[n].life));
                Ok(())
            }
            SyncDriver::Applying(ready) => {
                self.process(n).driver = Driver::Sync(SyncDriver::Applying(Box::default()));
                if let Some(snapshot) = &ready.snapshot {
                    self.restore(n, &Rc::new(Machine::from_snapshot(snapshot)))?;
                }
                self.apply(n, &ready.committed_entries)?;
                if self.springs(n, Point::Applied) {
                    return Ok(());
                }
                self.process(n).driver = Driver::Sync(SyncDriver::Idle);
                self.call(n, RawNode::advance)?;
                Ok(())
            }
        }
    }

    // The state machine.

    /// A snapshot takes the place of a state machine.
    pub(crate) fn restore(&mut self, n: usize, machine: &Rc<Machine>) -> Check {
        self.counts.snapshots_restored += 1;
        self.note(n, 12, || {
            format!("restores the state at {:?}", machine.applied)
        });
        self.process(n).machine = (**machine).clone();
        self.oracle.restored(&self.nodes, n)?;
        self.answer_reads(n)
    }

    /// Committed entries change a state machine.
    pub(crate) fn apply(&mut self, n: usize, entries: &[Entry]) -> Check {
        for entry in entries {
            let process = self.process(n);
            let first = process.raw.raft().log().first_index().unwrap_or(0);
            // A snapshot has overtaken them: it will bring what they do.
            if entry.index <= process.machine.applied.index || entry.index < first {
                continue;
            }
            self.oracle.applies(&self.nodes, n, entry)?;
            if entry.entry_type() == EntryType::EntryNormal {
                self.process(n).machine.apply(entry);
            } else {
                self.apply_conf_change(n, entry)?;
            }
            let process = self.process(n);
            let (index, digest) = (process.machine.applied.index, process.machine.digest());
            self.oracle.applied(n, index, digest)?;
        }
        if let Some(last) = entries.last() {
            self.note(n, 13, || format!("has applied {}", last.index));
        }
        self.answer_reads(n)
    }

    fn apply_conf_change(&mut self, n: usize, entry: &Entry) -> Check {
        let change = MembershipChange::decode(entry.entry_type(), entry.data.clone());
        let change = change.map_err(|error| {
            let what = format!("node {}: entry {}: {error}", n + 1, entry.index);
            Violation::new(Invariant::NoError, what)
        })?;
        let before = self.process(n).machine.conf.clone();
        // A change that does not fit changes nothing, on no node.
        let after = self.call(n, |raw| match raw.apply_conf_change(change) {
            Err(Error::ConfChange(_)) => Ok(None),
            other => other.map(Some),
        })?;
        let refused = after.as_ref().is_some_and(Option::is_none);
        let after = after.flatten().unwrap_or_else(|| before.clone());
        let machine = &mut self.process(n).machine;
        machine.apply(entry);
        machine.conf = after.clone();
        self.note(n, 14, || {
            format!(
                "has applied the membership change {}: {after:?}",
                entry.index
            )
        });
        if self.oracle.membership(&self.nodes, n, entry.index)? {
            self.counts.changes_refused += u64::from(refused);
            if after != before {
                self.counts.membership_changes += 1;
                let joint = |conf: &ConfState| !conf.voters_outgoing.is_empty();
                self.counts.joint_configurations += u64::from(joint(&after) && !joint(&before));
            }
            self.on_membership(&after);
        }
        Ok(())
    }

    /// Saves a state machine, and perhaps compacts the log.
    pub(crate) fn save(&mut self, n: usize) -> Check {
        let later = self.up_to(self.mood.pace.save);
        self.after(later, Event::Save(n, self.nodes[n].life));
        let past_queue = self.rng.one_in(2);
        let compacts = self.rng.below(100) < self.mood.compaction;
        let cut = self.rng.below(4);
        let process = self.process(n);
        let machine = Rc::new(process.machine.clone());
        let saved = process.raw.storage().view().machine.applied.index;
        // Never beyond what the node knows to be applied.
        let known = process.raw.raft().log().applied();
        let disk = process.raw.storage_mut();
        let mut step = Vec::new();
        let newer = machine.applied.index > saved;
        if newer && !(past_queue && disk.save_durably(&machine)) {
            step.push(Write::Save(Rc::clone(&machine)));
        }
        let base = disk.view().chain.base().index;
        let most = machine.applied.index.max(saved).min(known);
        let to = most.saturating_sub(cut * cut);
        let compacts = compacts && to > base;
        if compacts {
            step.push(Write::Compact(to));
        }
        if !step.is_empty() {
            disk.write(step);
        }
        self.counts.compactions += u64::from(compacts);
        self.note(n, 15, || {
            format!(
                "saves its state at {}, compacts to {to}: {compacts}",
                machine.applied.index
            )
        });
        self.oracle.synced(&self.nodes, n)
    }

    // Reads.

    /// Reads have an index.
    pub(crate) fn grant_reads(&mut self, n: usize, states: &[ReadState]) -> Check {
        for state in states {
            let mut context = [0; 8];
            let length = state.context.len().min(8);
            context[..length].copy_from_slice(&state.context[..length]);
            let context = u64::from_le_bytes(context);
            let process = self.process(n);
            // Not one of this life, or asked twice.
            let Some(place) = process
                .asked
                .iter()
                .position(|read| read.context == context)
            else {
                continue;
            };
            let read = process.asked.swap_remove(place);
            process.granted.push((state.index, read));
            let at_once = read.at_leader && read.inputs == process.inputs;
            self.counts.lease_reads += u64::from(at_once && self.plan.lease);
            self.note(n, 16, || {
                format!("may answer read {context} at index {}", state.index)
            });
            self.oracle.granted(n, state.index, &read)?;
        }
        self.answer_reads(n)
    }

    fn answer_reads(&mut self, n: usize) -> Check {
        let process = self.process(n);
        let applied = process.machine.applied.index;
        let mut place = 0;
        while let Some((index, read)) = process.granted.get(place).copied() {
            if index > applied {
                place += 1;
                continue;
            }
            process.granted.swap_remove(place);
            self.counts.reads += 1;
            self.counts.follower_reads += u64::from(!read.at_leader);
            self.oracle
                .answered(n, &process_machine(&self.nodes[n]), &read)?;
            return self.answer_reads(n);
        }
        Ok(())
    }
}

fn process_machine(node: &super::node::Node) -> Machine {
    node.process
        .as_ref()
        .map_or_else(Machine::default, |process| process.machine.clone())
}
