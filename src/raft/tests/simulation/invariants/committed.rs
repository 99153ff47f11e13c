//! What is committed: by whom, where it is durable then, and who must have it from then on.

use basalt_raft::quorum::MajorityConfig;

use super::{Check, Invariant, Oracle, Violation};
use crate::{chain::Link, node::Node};

/// Whether the disk of the node with this id holds `link`, whatever happens to it.
pub(super) fn is_durable_on(nodes: &[Node], id: u64, link: Link) -> bool {
    let node = nodes.iter().find(|node| node.id == id);
    node.is_some_and(|node| {
        let chain = &node.disk().durable().chain;
        // What is compacted was committed, and so the same.
        link.index < chain.base().index || chain.at(link.index) == Some(link)
    })
}

fn majority(voters: &MajorityConfig, has: impl Fn(u64) -> bool) -> bool {
    let having = voters.ids().iter().filter(|id| has(**id)).count();
    voters.is_empty() || having > voters.len() / 2
}

impl Oracle {
    /// A node leads in a term in which it did not lead before.
    pub(super) fn elected(&mut self, nodes: &[Node], n: usize, life: u32) -> Check {
        let Some(process) = &nodes[n].process else {
            return Ok(());
        };
        let term = process.seen.term;
        let leader = *self.leaders.entry(term).or_insert((n, life));
        if leader != (n, life) {
            let what = format!(
                "node {} leads in term {term}, in which node {} of life {} has led",
                n + 1,
                leader.0 + 1,
                leader.1
            );
            return Err(Violation::new(Invariant::OneLeader, what));
        }
        // It may have won late: what later terms have committed meanwhile is not its concern.
        let earlier = self.committed_in.partition_point(|of| *of < term) as u64;
        match self.committed.at(self.committed.base().index + earlier) {
            Some(link) => self.must_have(nodes, n, link),
            None => Ok(()),
        }
    }

    /// A leader must have what is committed.
    fn must_have(&self, nodes: &[Node], n: usize, link: Link) -> Check {
        let Some(process) = &nodes[n].process else {
            return Ok(());
        };
        let log = &process.log;
        if link.index < log.base().index || log.at(link.index) == Some(link) {
            return Ok(());
        }
        let what = format!(
            "node {} leads in term {} without the committed entry {}/{}: its log ends in {}/{}",
            n + 1,
            process.seen.term,
            link.term,
            link.index,
            log.last().term,
            log.last().index
        );
        Err(Violation::new(Invariant::LeaderCompleteness, what))
    }

    /// What a node takes for committed is what is committed; `None` where that is news.
    fn known_committed(&self, nodes: &[Node], n: usize) -> Check<Option<Link>> {
        let Some(process) = &nodes[n].process else {
            return Ok(None);
        };
        let commit = process.seen.commit;
        let last = self.committed.last();
        let compared = commit.min(last.index);
        let ours = process.log.at(compared);
        // Nothing was ever committed below the first index: a node that is still empty.
        let known = self.committed.at(compared);
        if ours != known && known.is_some() && compared >= process.log.base().index {
            let what = format!(
                "node {} takes {ours:?} for committed, which is {known:?}",
                n + 1
            );
            return Err(Violation::new(Invariant::StateMachineSafety, what));
        }
        Ok(process
            .log
            .at(commit)
            .filter(|link| link.index > last.index))
    }

    /// What a process starts with is committed.
    pub(super) fn check_commit_at(&self, nodes: &[Node], n: usize) -> Check {
        match self.known_committed(nodes, n)? {
            None => Ok(()),
            Some(link) => {
                let what = format!("node {} starts with {link:?} committed", n + 1);
                Err(Violation::new(Invariant::StateMachineSafety, what))
            }
        }
    }

    /// The commit index of a node has moved; returns how many entries nobody had committed before.
    pub(super) fn commits(&mut self, nodes: &[Node], n: usize) -> Check<u64> {
        let before = self.committed.last();
        let Some(link) = self.known_committed(nodes, n)? else {
            return Ok(0);
        };
        let Some(process) = &nodes[n].process else {
            return Ok(0);
        };
        let config = process.raw.raft().configuration();
        let has = |id| is_durable_on(nodes, id, link);
        let decided = |voters: &MajorityConfig| majority(voters, has);
        if !decided(&config.voters.incoming) || !decided(&config.voters.outgoing) {
            let held: Vec<u64> = (1..=nodes.len() as u64).filter(|id| has(*id)).collect();
            let what = format!(
                "node {} commits {}/{} in term {}: durable on {held:?}, membership {config}",
                n + 1,
                link.term,
                link.index,
                process.seen.term
            );
            return Err(Violation::new(Invariant::DurableQuorum, what));
        }
        for index in before.index + 1..=link.index {
            match process.log.at(index) {
                Some(link) => {
                    self.committed.push(link);
                    self.committed_in.push(process.seen.term);
                }
                None => {
                    let what = format!("node {} commits {index}, which nobody has", n + 1);
                    return Err(Violation::new(Invariant::StateMachineSafety, what));
                }
            }
        }
        // Whoever leads in a later term already has it too.
        for other in 0..nodes.len() {
            let later = |seen: super::Seen| seen.led && seen.term > process.seen.term;
            if nodes[other]
                .process
                .as_ref()
                .is_some_and(|other| later(other.seen))
            {
                self.must_have(nodes, other, link)?;
            }
        }
        Ok(link.index - before.index)
    }
}
