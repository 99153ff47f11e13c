//! What callers ask of nodes: writes, reads, memberships, other leaders.

use basalt_raft::{
    MembershipChange, RawNode,
    eraftpb::{ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2},
    tracker::Configuration,
};
use basalt_testkit::Rng;
use bytes::Bytes;

use super::{
    invariants::Check,
    machine,
    node::Read,
    plan::{REQUESTS, Request, TICK, weighted},
    world::{Event, World},
};

/// Reads that a node may owe; older ones are given up.
const OWED: usize = 30;

impl World {
    /// Somebody asks for something, unless the world is kind and looks for rest.
    pub(crate) fn request(&mut self) -> Check {
        if self.kind {
            return Ok(());
        }
        let next = self.up_to(self.mood.pace.request);
        self.after(next, Event::Request);
        let Some(which) = weighted(&mut self.rng, &self.mood.requests) else {
            return Ok(());
        };
        let leader = self.some_leader();
        let any = self.some_running();
        let asked = if self.rng.one_in(4) {
            any
        } else {
            leader.or(any)
        };
        let Some(n) = asked.filter(|n| !self.nodes[*n].paused) else {
            return Ok(());
        };
        match REQUESTS[which] {
            Request::Propose => self.propose(n),
            Request::ProposeMany => {
                for _ in 0..self.rng.range(2..9) {
                    self.propose(n)?;
                }
                Ok(())
            }
            Request::Read => {
                self.read_at_leaders()?;
                self.read(n)
            }
            Request::Membership => {
                let hasty = self.rng.one_in(3);
                for _ in 0..if hasty { 3 } else { 1 } {
                    self.change_membership(n)?;
                }
                Ok(())
            }
            Request::Transfer => self.transfer(n),
            Request::ForgetLeader => {
                self.note(n, 40, || "is told to forget its leader".to_owned());
                self.call(n, RawNode::forget_leader)?;
                Ok(())
            }
            Request::Campaign => self.campaign(n),
            Request::Unreachable => {
                let id = self.some_id();
                self.note(n, 42, || format!("is told that {id} is not reached"));
                self.call(n, |raw| raw.report_unreachable(id))?;
                Ok(())
            }
        }
    }

    /// Tells a node to campaign.
    pub(crate) fn campaign(&mut self, n: usize) -> Check {
        self.note(n, 41, || "is told to campaign".to_owned());
        self.call(n, RawNode::campaign)?;
        Ok(())
    }

    fn some_id(&mut self) -> u64 {
        self.rng.range(1..self.nodes.len() as u64 + 1)
    }

    /// A value that was never written, in a proposal.
    pub(crate) fn new_value(&mut self) -> (u64, Bytes) {
        self.serial += 1;
        let padding = if self.rng.one_in(4) {
            self.rng.len(0..150)
        } else {
            0
        };
        (self.serial, machine::write(self.serial, padding))
    }

    /// Writes at a node.
    pub(crate) fn propose(&mut self, n: usize) -> Check {
        let (value, data) = self.new_value();
        self.note(n, 43, || format!("is to write {value}"));
        self.call(n, |raw| raw.propose(data))?;
        Ok(())
    }

    /// Reads at a node.
    pub(crate) fn read(&mut self, n: usize) -> Check {
        self.serial += 1;
        let context = self.serial;
        let floor = self.oracle.last_committed().index;
        let at_leader = self.nodes[n].leads();
        let Some(process) = self.nodes[n].process.as_deref_mut() else {
            return Ok(());
        };
        if process.asked.len() == OWED {
            process.asked.remove(0);
        }
        let deposed = at_leader && process.seen.term < self.oracle.last_term();
        self.counts.reads_at_deposed_leaders += u64::from(deposed);
        process.asked.push(Read {
            context,
            floor,
            inputs: process.inputs,
            at_leader,
        });
        self.note(n, 44, || {
            format!("is to answer read {context}, at least at {floor}")
        });
        let context = Bytes::copy_from_slice(&context.to_le_bytes());
        self.call(n, |raw| raw.read_index(context))?;
        Ok(())
    }

    /// Several reads within the time `most` at whoever leads: there may be two who think so.
    pub(crate) fn read_soon(&mut self, most: u64) {
        if !self.kind {
            for read in 0..self.mood.curiosity {
                let delay = self.up_to(if read % 2 == 0 { TICK } else { most });
                self.after(delay, Event::ReadAtLeaders);
            }
        }
    }

    /// Reads at all nodes that think that they lead.
    pub(crate) fn read_at_leaders(&mut self) -> Check {
        for n in 0..self.nodes.len() {
            if self.nodes[n].leads() && !self.nodes[n].paused {
                self.read(n)?;
            }
        }
        Ok(())
    }

    /// Hands leadership to somebody.
    pub(crate) fn transfer(&mut self, n: usize) -> Check {
        let to = self.some_id();
        self.note(n, 45, || format!("is to hand leadership to {to}"));
        self.call(n, |raw| raw.transfer_leader(to))?;
        Ok(())
    }

    /// Asks a node for another membership than the one it goes by.
    pub(crate) fn change_membership(&mut self, n: usize) -> Check {
        let count = self.nodes.len() as u64;
        let Some(process) = self.nodes[n].process.as_deref() else {
            return Ok(());
        };
        let config = process.raw.raft().configuration();
        let change = some_change(&mut self.rng, config, count);
        self.note(n, 46, || format!("is to change the membership: {change:?}"));
        self.call(n, |raw| raw.propose_conf_change(change))?;
        Ok(())
    }
}

fn single(kind: ConfChangeType, id: u64) -> ConfChangeSingle {
    ConfChangeSingle {
        change_type: kind.into(),
        node_id: id,
    }
}

/// A change that leaves the joint configuration.
pub(crate) fn leave() -> MembershipChange {
    ConfChangeV2::default().into()
}

/// A change of one member that fits `config`, or something harmless.
fn some_single(rng: &mut Rng, config: &Configuration, count: u64) -> ConfChangeSingle {
    let voters = config.voters.incoming.ids();
    let members = config.members();
    let others: Vec<u64> = (1..=count).filter(|id| !members.contains(*id)).collect();
    let few = voters.len() < 3;
    let roll = if few && rng.one_in(2) {
        0
    } else {
        rng.below(12)
    };
    match roll {
        0..3 if !others.is_empty() => single(ConfChangeType::AddNode, *rng.pick(&others)),
        3 | 4 if !others.is_empty() => single(ConfChangeType::AddLearnerNode, *rng.pick(&others)),
        5 | 6 if !config.learners.is_empty() => {
            single(ConfChangeType::AddNode, *rng.pick(config.learners.ids()))
        }
        7 if voters.len() > 1 => single(ConfChangeType::AddLearnerNode, *rng.pick(voters)),
        8..10 if voters.len() > 1 => single(ConfChangeType::RemoveNode, *rng.pick(voters)),
        10 if !config.learners.is_empty() => {
            single(ConfChangeType::RemoveNode, *rng.pick(config.learners.ids()))
        }
        11 => single(ConfChangeType::UpdateNode, rng.range(1..count + 1)),
        _ => {
            let kinds = [
                ConfChangeType::AddNode,
                ConfChangeType::AddLearnerNode,
                ConfChangeType::RemoveNode,
            ];
            // Perhaps of nobody: a change that was cancelled.
            single(*rng.pick(&kinds), rng.range(0..count + 1))
        }
    }
}

fn some_change(rng: &mut Rng, config: &Configuration, count: u64) -> MembershipChange {
    if config.voters.is_joint() && !rng.one_in(5) {
        return leave();
    }
    let first = some_single(rng, config, count);
    match rng.below(5) {
        0 => ConfChange {
            change_type: first.change_type,
            node_id: first.node_id,
            context: Bytes::from_static(b"why"),
        }
        .into(),
        1 => ConfChangeV2 {
            changes: vec![first],
            ..ConfChangeV2::default()
        }
        .into(),
        _ => {
            let mut changes = vec![first];
            for _ in 0..rng.below(4) {
                changes.push(some_single(rng, config, count));
            }
            let transitions = [
                ConfChangeTransition::TransitionAuto,
                ConfChangeTransition::TransitionJointImplicit,
                ConfChangeTransition::TransitionJointExplicit,
            ];
            ConfChangeV2 {
                transition: (*rng.pick(&transitions)).into(),
                changes,
                context: Bytes::new(),
            }
            .into()
        }
    }
}
