//! What a node says, against what its disk would still know after a crash.

use basalt_raft::eraftpb::{Message, MessageType};

use super::{Check, Invariant, Oracle, Violation, committed::is_durable_on};
use crate::{chain::Link, node::Node, trace::message_text};

fn broken<T>(invariant: Invariant, n: usize, m: &Message, what: &str) -> Check<T> {
    let what = format!("node {} sends {}: {what}", n + 1, message_text(m));
    Err(Violation::new(invariant, what))
}

/// What the leader of the latest term counts as acknowledged, the member has: nobody can have
/// overwritten it, and who has given its data back is no member by then, or has a new progress.
pub(super) fn believes(nodes: &[Node], n: usize) -> Check {
    let Some(process) = &nodes[n].process else {
        return Ok(());
    };
    for (id, progress) in process.raw.raft().progress().iter() {
        if id == nodes[n].id || progress.matched == 0 {
            continue; // Its own entries count when they are durable, which commits look at.
        }
        let known = process.log.at(progress.matched);
        if known.is_none_or(|link| is_durable_on(nodes, id, link)) {
            continue;
        }
        let what = format!(
            "node {} leads term {} and takes {known:?} for acknowledged by {id}",
            n + 1,
            process.seen.term
        );
        return Err(Violation::new(Invariant::Believed, what));
    }
    Ok(())
}

impl Oracle {
    /// A message leaves a node.
    pub(crate) fn sent(&mut self, nodes: &[Node], n: usize, m: &Message) -> Check {
        let kind = m.msg_type();
        // Questions about a term that does not exist yet, and requests, which have none.
        let of_no_term = kind == MessageType::MsgPreVote
            || (kind == MessageType::MsgPreVoteResp && !m.reject)
            || m.term == 0;
        if of_no_term {
            return Ok(());
        }
        let durable = nodes[n].disk().durable().hard_state;
        if durable.term < m.term {
            let what = format!("term {} is durable", durable.term);
            return broken(Invariant::DurableBeforeSent, n, m, &what);
        }
        let vote = match kind {
            MessageType::MsgRequestVote => nodes[n].id,
            MessageType::MsgRequestVoteResponse if !m.reject => m.to,
            MessageType::MsgAppendResponse if !m.reject => return self.acknowledged(nodes, n, m),
            _ => return Ok(()),
        };
        if durable.term == m.term && durable.vote != vote {
            let what = format!("the vote for {} is durable", durable.vote);
            return broken(Invariant::DurableBeforeSent, n, m, &what);
        }
        let given = *self.votes.entry((n, m.term)).or_insert(vote);
        if given != vote {
            let what = format!("it has voted for {given} in that term");
            return broken(Invariant::OneVote, n, m, &what);
        }
        Ok(())
    }

    /// An acknowledgement leaves a node.
    fn acknowledged(&mut self, nodes: &[Node], n: usize, m: &Message) -> Check {
        let durable = nodes[n].disk().durable();
        if durable.hard_state.term > m.term {
            return Ok(()); // It is late, and a later term may have overwritten what it speaks of.
        }
        let (base, last) = (durable.chain.base().index, durable.chain.last().index);
        if m.index > last {
            let what = format!("the log is durable up to {last}");
            return broken(Invariant::Acknowledged, n, m, &what);
        }
        let Some(link) = durable.chain.at(m.index) else {
            debug_assert!(m.index < base, "neither compacted nor there");
            return Ok(());
        };
        if let Some(leader) = self.leader_has(nodes, m, link)? {
            let what = format!("{link:?} is durable, the leader has {leader:?}");
            return broken(Invariant::Acknowledged, n, m, &what);
        }
        let promise = &mut self.promises[n];
        if promise.is_none_or(|(term, before)| term < m.term || before.index < link.index) {
            *promise = Some((m.term, link));
        }
        Ok(())
    }

    /// What the leader of the message's term has in the place of `link`, if it still leads and that
    /// is something else.
    fn leader_has(&self, nodes: &[Node], m: &Message, link: Link) -> Check<Option<Link>> {
        let Some((leader, life)) = self.leaders.get(&m.term).copied() else {
            return Ok(None);
        };
        let node = &nodes[leader];
        let Some(process) = node.process.as_deref().filter(|_| node.life == life) else {
            return Ok(None);
        };
        if process.seen.term != m.term {
            return Ok(None);
        }
        Ok(process.log.at(link.index).filter(|other| *other != link))
    }

    /// A disk has changed: what its node has acknowledged in this term is still there.
    pub(crate) fn synced(&mut self, nodes: &[Node], n: usize) -> Check {
        let durable = nodes[n].disk().durable();
        let Some((term, link)) = self.promises[n] else {
            return Ok(());
        };
        let overwritten = durable.hard_state.term > term;
        if overwritten || link.index < durable.chain.base().index {
            self.promises[n] = None;
            return Ok(());
        }
        if durable.chain.at(link.index) == Some(link) {
            return Ok(());
        }
        let what = format!(
            "node {} has acknowledged {}/{} in term {term}: its disk has {:?} there, and ends in {:?}",
            n + 1,
            link.term,
            link.index,
            durable.chain.at(link.index),
            durable.chain.last()
        );
        Err(Violation::new(Invariant::Acknowledged, what))
    }

    /// The data of a node was given back: it acknowledges from the beginning.
    pub(crate) fn given_back(&mut self, n: usize) {
        self.promises[n] = None;
    }
}
