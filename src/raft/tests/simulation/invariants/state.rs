//! State machines, memberships and reads.

use basalt_raft::{eraftpb::Entry, tracker::Configuration};

use super::{Check, Invariant, Oracle, Violation};
use crate::{
    machine::Machine,
    node::{Node, Read},
};

fn machine_of(nodes: &[Node], n: usize) -> Option<&Machine> {
    nodes[n].process.as_ref().map(|process| &process.machine)
}

impl Oracle {
    /// A node is about to apply an entry.
    pub(crate) fn applies(&self, nodes: &[Node], n: usize, entry: &Entry) -> Check {
        let Some(machine) = machine_of(nodes, n) else {
            return Ok(());
        };
        let link = machine.applied.then(entry);
        if entry.index != link.index {
            let what = format!(
                "node {} applies {} after {}",
                n + 1,
                entry.index,
                machine.applied.index
            );
            return Err(Violation::new(Invariant::StateMachineSafety, what));
        }
        if self.committed.at(link.index) != Some(link) {
            let what = format!(
                "node {} applies {link:?}, committed is {:?}",
                n + 1,
                self.committed.at(link.index)
            );
            return Err(Violation::new(Invariant::StateMachineSafety, what));
        }
        let chain = &nodes[n].disk().durable().chain;
        if chain.at(link.index) != Some(link) {
            let what = format!(
                "node {} applies {link:?}, durable are {:?} to {:?}",
                n + 1,
                chain.base(),
                chain.last()
            );
            return Err(Violation::new(Invariant::AppliedIsDurable, what));
        }
        Ok(())
    }

    /// A node has applied the entry at `index`: its state is everybody's.
    pub(crate) fn applied(&mut self, n: usize, index: u64, digest: u64) -> Check {
        let place = self.place(index);
        if self.states.len() == place {
            self.states.push(digest);
        }
        if self.states.get(place) == Some(&digest) {
            return Ok(());
        }
        let what = format!("node {} has another state at {index}", n + 1);
        Err(Violation::new(Invariant::StateMachineSafety, what))
    }

    /// A node has restored a snapshot.
    pub(crate) fn restored(&self, nodes: &[Node], n: usize) -> Check {
        let Some(process) = &nodes[n].process else {
            return Ok(());
        };
        let machine = &process.machine;
        let index = machine.applied.index;
        if self.committed.at(index) != Some(machine.applied)
            || self.states.get(self.place(index)) != Some(&machine.digest())
        {
            let what = format!("node {} restores a state that never was at {index}", n + 1);
            return Err(Violation::new(Invariant::StateMachineSafety, what));
        }
        let known = self.memberships.range(..=index).next_back();
        if known.map(|(_, conf)| conf) != Some(&machine.conf) {
            let what = format!(
                "node {} restores {:?} at {index}, which is {known:?}",
                n + 1,
                machine.conf
            );
            return Err(Violation::new(Invariant::SameMembership, what));
        }
        // Unless the node has taken a later snapshot meanwhile.
        let first = process.raw.raft().log().first_index().unwrap_or(0);
        if first == index + 1 {
            agrees(nodes, n)
        } else {
            Ok(())
        }
    }

    /// A node has applied a membership change at `index`; true for the first that does.
    pub(crate) fn membership(&mut self, nodes: &[Node], n: usize, index: u64) -> Check<bool> {
        agrees(nodes, n)?;
        let Some(machine) = machine_of(nodes, n) else {
            return Ok(false);
        };
        match self.memberships.get(&index) {
            Some(known) if *known != machine.conf => {
                let what = format!(
                    "node {} has {:?} at {index}, others {known:?}",
                    n + 1,
                    machine.conf
                );
                Err(Violation::new(Invariant::SameMembership, what))
            }
            Some(_) => Ok(false),
            None => {
                self.memberships.insert(index, machine.conf.clone());
                Ok(true)
            }
        }
    }

    /// A read has got the index at which it may be answered.
    pub(crate) fn granted(&self, n: usize, index: u64, read: &Read) -> Check {
        if index >= read.floor {
            return Ok(());
        }
        let what = format!(
            "node {}: read {} may be answered at {index}, and {} was committed when it began",
            n + 1,
            read.context,
            read.floor
        );
        Err(Violation::new(Invariant::Linearizable, what))
    }

    /// A read is answered from a state machine.
    pub(crate) fn answered(&self, n: usize, machine: &Machine, read: &Read) -> Check {
        let index = machine.applied.index;
        let right = self.states.get(self.place(index)) == Some(&machine.digest());
        if right && index >= read.floor {
            return Ok(());
        }
        let what = format!(
            "node {} answers read {} at {index}, at least {} was asked for; the state is right: {right}",
            n + 1,
            read.context,
            read.floor
        );
        Err(Violation::new(Invariant::Linearizable, what))
    }
}

/// The core's membership is that of the state machine.
fn agrees(nodes: &[Node], n: usize) -> Check {
    let Some(process) = &nodes[n].process else {
        return Ok(());
    };
    let ours: &Configuration = process.raw.raft().configuration();
    if ours.to_conf_state() == process.machine.conf {
        return Ok(());
    }
    let what = format!(
        "node {} goes by {ours}, its state at {} says {:?}",
        n + 1,
        process.machine.applied.index,
        process.machine.conf
    );
    Err(Violation::new(Invariant::SameMembership, what))
}
