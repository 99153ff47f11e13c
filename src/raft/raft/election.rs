//! Elections: campaigns, votes asked for, given and counted (thesis, sections 3.4, 3.6.1, 9.6).

use std::fmt;

use basalt_proto::eraftpb::{Message, MessageType};
use bytes::Bytes;

use super::{Raft, Role};
use crate::{
    Fault, NONE, ReadMode, Result, Storage,
    logger::{debug, info, warning},
    message::{CAMPAIGN_TRANSFER, message, reference_name, vote_response},
    quorum::VoteResult,
};

/// Why a node campaigns, and so how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Campaign {
    /// First asks whether it could win.
    PreElection,
    /// Asks for votes.
    Election,
    /// Asks for votes at the leader's wish: leases do not hold it up.
    Transfer,
}

impl<S: Storage> Raft<S> {
    /// The election timeout has passed.
    pub(super) fn campaign_by_timeout(&mut self) -> Result<()> {
        let kind = if self.config.pre_vote {
            Campaign::PreElection
        } else {
            Campaign::Election
        };
        self.start_campaign(kind)
    }

    /// The caller wants this node to lead. With leases nobody may force an election upon a leader
    /// that relies on this node; that is what a transfer is for.
    pub(crate) fn campaign_by_caller(&mut self) -> Result<()> {
        let leases = self.config.read_mode == ReadMode::LeaseBased;
        if leases && self.role != Role::Leader && self.is_bound_to_leader() {
            info!(
                self.logger,
                "{:x} does not campaign at term {}: a leader may rely on it",
                self.id(),
                self.term
            );
            return Ok(());
        }
        self.step(message(MessageType::MsgHup, self.id()))
    }

    pub(super) fn start_campaign(&mut self, kind: Campaign) -> Result<()> {
        if self.role == Role::Leader {
            debug!(
                self.logger,
                "{:x} ignoring MsgHup because already leader",
                self.id()
            );
            return Ok(());
        }
        if !self.is_promotable() {
            warning!(
                self.logger,
                "{:x} is unpromotable and can not campaign",
                self.id()
            );
            return Ok(());
        }
        // Whoever counts votes must count them by the latest committed membership.
        if self.log.has_unapplied_conf_change()?
            && !self.has_fault(Fault::CampaignWithUnappliedConf)
        {
            warning!(
                self.logger,
                "{:x} cannot campaign at term {} since there are still pending configuration changes to apply",
                self.id(),
                self.term
            );
            return Ok(());
        }
        info!(
            self.logger,
            "{:x} is starting a new election at term {}",
            self.id(),
            self.term
        );
        self.counts.campaigns += 1;
        self.campaign(kind);
        Ok(())
    }

    fn campaign(&mut self, kind: Campaign) {
        if !self.is_promotable() {
            warning!(
                self.logger,
                "{:x} is unpromotable; campaign() should have been called",
                self.id()
            );
        }
        let (request, term) = if kind == Campaign::PreElection {
            self.become_pre_candidate();
            (MessageType::MsgPreVote, self.term + 1)
        } else {
            self.become_candidate();
            (MessageType::MsgRequestVote, self.term)
        };
        for voter in self.tracker.config.voters.ids().ids() {
            if *voter == self.id() {
                // The own vote counts when it is durable, like everybody's.
                let mut own = message(vote_response(request), *voter);
                own.term = term;
                self.send(own);
                continue;
            }
            info!(
                self.logger,
                "{:x} [logterm: {}, index: {}] sent {} request to {:x} at term {}",
                self.id(),
                self.log.last_term(),
                self.log.last_index(),
                reference_name(request),
                voter,
                self.term
            );
            let mut question = message(request, *voter);
            question.term = term;
            question.index = self.log.last_index();
            question.log_term = self.log.last_term();
            self.tell_commit(&mut question);
            if kind == Campaign::Transfer {
                question.context = Bytes::from_static(CAMPAIGN_TRANSFER);
            }
            self.send(question);
        }
    }

    /// Somebody asks for this node's vote, in this term or, with pre-vote, in a later one. Every
    /// role answers, and learners do: the candidate may know of their promotion before them.
    pub(super) fn answer_vote_request(&mut self, kind: MessageType, m: &Message) -> Result<()> {
        let promised = self.is_quarantined() || self.is_bound_by_lease();
        if promised && m.context != CAMPAIGN_TRANSFER {
            return Ok(());
        }
        let campaigns = matches!(self.role, Role::Candidate | Role::PreCandidate);
        if self.learn_commit(m)? && campaigns {
            self.become_follower(self.term, NONE);
        }
        let may_vote = self.vote == m.from
            || (self.vote == NONE && self.leader == NONE)
            || (kind == MessageType::MsgPreVote && m.term > self.term)
            || self.has_fault(Fault::VoteTwice);
        let up_to_date =
            self.log.is_up_to_date(m.index, m.log_term) || self.has_fault(Fault::VoteForStaleLog);
        let mut answer = message(vote_response(kind), m.from);
        if may_vote && up_to_date {
            self.log_vote("cast", kind, m, format_args!(""));
            // A pre-vote is for the term asked about, not for the own one.
            answer.term = m.term;
            self.send(answer);
            if kind == MessageType::MsgRequestVote {
                self.election_elapsed = 0;
                self.vote = m.from;
            }
        } else if self.term > 0 {
            self.log_vote("rejected", kind, m, format_args!(""));
            answer.term = self.term;
            answer.reject = true;
            self.tell_commit(&mut answer);
            self.send(answer);
        }
        Ok(())
    }

    /// Tells what this node knows to be committed.
    fn tell_commit(&self, m: &mut Message) {
        let committed = self.log.committed();
        // Right after a snapshot or a restart the term may not be at hand; it is not worth waiting for.
        if self.config.commit_by_vote
            && let Ok(term) = self.log.term(committed)
        {
            (m.known_commit, m.known_commit_term) = (committed, term);
        }
    }

    /// What a peer knows to be committed, and this node has, is committed. True where that is news
    /// which this node must apply before it may go on campaigning.
    fn learn_commit(&mut self, m: &Message) -> Result<bool> {
        let (index, term) = (m.known_commit, m.known_commit_term);
        let news = self.config.commit_by_vote
            && self.role != Role::Leader
            && index > self.log.committed()
            && self.log.matches(index, term)?;
        if !news {
            return Ok(false);
        }
        self.log.commit_to(index);
        self.log.has_unapplied_conf_change().map_err(Into::into)
    }

    /// What became of a request for this node's vote, and why.
    pub(super) fn log_vote(
        &self,
        what: &str,
        kind: MessageType,
        m: &Message,
        why: fmt::Arguments<'_>,
    ) {
        let direction = if what == "cast" { "for" } else { "from" };
        info!(
            self.logger,
            "{:x} [logterm: {}, index: {}, vote: {:x}] {what} {} {direction} {:x} [logterm: {}, index: {}] at term {}{why}",
            self.id(),
            self.log.last_term(),
            self.log.last_index(),
            self.vote,
            reference_name(kind),
            m.from,
            m.log_term,
            m.index,
            self.term
        );
    }

    /// An answer to this candidate's question.
    pub(super) fn count_vote(&mut self, kind: MessageType, m: &Message) -> Result<()> {
        let name = reference_name(kind);
        if m.reject {
            info!(
                self.logger,
                "{:x} received {name} rejection from {:x} at term {}",
                self.id(),
                m.from,
                self.term
            );
        } else {
            info!(
                self.logger,
                "{:x} received {name} from {:x} at term {}",
                self.id(),
                m.from,
                self.term
            );
        }
        if m.reject && self.learn_commit(m)? {
            // The votes would be counted by a membership that is no more.
            self.become_follower(self.term, NONE);
            return Ok(());
        }
        self.tracker.votes.record(m.from, !m.reject);
        let (granted, refused, result) = self.tally();
        info!(
            self.logger,
            "{:x} has received {granted} {name} votes and {refused} vote rejections",
            self.id()
        );
        match result {
            VoteResult::Won if self.role == Role::PreCandidate => self.campaign(Campaign::Election),
            VoteResult::Won => {
                self.become_leader();
                self.broadcast_append();
            }
            // The answer to a pre-vote carries another term: the own one stays.
            VoteResult::Lost => self.become_follower(self.term, NONE),
            VoteResult::Pending => {}
        }
        Ok(())
    }

    fn tally(&self) -> (usize, usize, VoteResult) {
        let (granted, refused, mut result) = self.tracker.tally();
        let votes = |id| self.tracker.votes.get(id);
        if self.has_fault(Fault::JointIncomingOnly) {
            result = self.tracker.config.voters.incoming.vote_result(votes);
        }
        (granted, refused, result)
    }
}
