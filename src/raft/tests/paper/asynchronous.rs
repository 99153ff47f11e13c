//! Asynchronous storage writes: appends and applications on their way, acknowledged in any rhythm, and
//! late ones that must not count.

use std::collections::VecDeque;

use basalt_raft::eraftpb::{Entry, HardState, Message, MessageType};
use basalt_raft::{
    Config, Error, LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD, MemStorage, RawNode, Role, entry_size,
};

use crate::parts::{accept, entry, entry_with, message, snapshot};

fn config(id: u64) -> Config {
    Config {
        async_storage_writes: true,
        pre_vote: false,
        ..Config::new(id)
    }
}

/// A node with the queues of its two storage threads, which do one message when they are told to.
struct Node {
    raw: RawNode<MemStorage>,
    to_append: VecDeque<Message>,
    to_apply: VecDeque<Message>,
    sent: Vec<Message>,
}

impl Node {
    fn new(config: Config, voters: &[u64]) -> Self {
        let raw = RawNode::new(config, MemStorage::with_voters(voters));
        Self {
            raw: raw.expect("a node that can start"),
            to_append: VecDeque::new(),
            to_apply: VecDeque::new(),
            sent: Vec::new(),
        }
    }

    /// A leader of term 1 of three, with its first entry on everybody's disk.
    fn leader(config: Config) -> Self {
        let mut node = Self::new(config, &[1, 2, 3]);
        node.raw.campaign().expect("a voter");
        node.work();
        node.append_all();
        node.step(message(MessageType::MsgRequestVoteResponse, 2, 1, 1));
        assert_eq!(node.raw.raft().role(), Role::Leader);
        node.append_all();
        for append in node.appends() {
            node.step(accept(&append));
        }
        node.append_all();
        node.apply_all();
        assert_eq!(node.raw.raft().log().applied(), 1);
        node.sent.clear();
        node
    }

    fn step(&mut self, message: Message) {
        self.raw.step(message).expect("a message like any other");
        self.work();
    }

    fn propose(&mut self, data: &'static str) {
        self.raw.propose(data.into()).expect("a leader");
        self.work();
    }

    /// Takes what there is to do, and does nothing of it.
    fn work(&mut self) {
        while self.raw.has_ready() {
            for message in self.raw.ready().expect("storage in memory").messages {
                match message.to {
                    LOCAL_APPEND_THREAD => self.to_append.push_back(message),
                    LOCAL_APPLY_THREAD => self.to_apply.push_back(message),
                    _ => self.sent.push(message),
                }
            }
        }
    }

    /// The append thread writes the oldest of its messages; what follows from it is returned.
    fn write_one(&mut self) -> Vec<Message> {
        let message = self.to_append.pop_front().expect("something to append");
        assert_eq!(message.msg_type(), MessageType::MsgStorageAppend);
        let storage = self.raw.storage_mut();
        if message.term != 0 {
            storage.set_hard_state(HardState {
                term: message.term,
                vote: message.vote,
                commit: message.commit,
            });
        }
        storage.append(message.entries);
        message.responses
    }

    fn deliver(&mut self, responses: Vec<Message>) {
        for response in responses {
            if response.to == self.raw.raft().id() {
                self.step(response);
            } else {
                self.sent.push(response);
            }
        }
    }

    fn append_one(&mut self) {
        let responses = self.write_one();
        self.deliver(responses);
    }

    fn append_all(&mut self) {
        while !self.to_append.is_empty() {
            self.append_one();
        }
    }

    /// The apply thread does the oldest of its messages: the entries.
    fn apply_one(&mut self) -> Vec<Entry> {
        let message = self.to_apply.pop_front().expect("something to apply");
        assert_eq!(message.msg_type(), MessageType::MsgStorageApply);
        self.deliver(message.responses);
        message.entries
    }

    fn apply_all(&mut self) {
        while !self.to_apply.is_empty() {
            self.apply_one();
        }
    }

    /// The appends that were sent since the last call.
    fn appends(&mut self) -> Vec<Message> {
        let mut appends = std::mem::take(&mut self.sent);
        appends.retain(|m| m.msg_type() == MessageType::MsgAppend);
        appends
    }

    fn committed(&self) -> u64 {
        self.raw.raft().log().committed()
    }
}

/// An append of node 1 in this term to node 2, behind the entry at `index` of `log_term`.
fn append(term: u64, (index, log_term): (u64, u64), entries: Vec<Entry>, commit: u64) -> Message {
    Message {
        index,
        log_term,
        entries,
        commit,
        ..message(MessageType::MsgAppend, 1, 2, term)
    }
}

#[test]
fn a_leader_sends_while_it_writes_and_followers_can_commit_without_it() {
    let mut leader = Node::leader(config(1));
    leader.propose("data");
    assert_eq!(leader.to_append.len(), 1);
    let appends = leader.appends();
    assert_eq!(appends.len(), 2);
    for append in &appends {
        leader.step(accept(append));
    }
    assert_eq!(leader.committed(), 2);
}

#[test]
fn a_leader_counts_itself_when_its_write_is_acknowledged() {
    let mut leader = Node::leader(config(1));
    leader.propose("data");
    let appends = leader.appends();
    leader.step(accept(&appends[0]));
    assert_eq!(leader.committed(), 1);
    let responses = leader.write_one();
    assert_eq!(leader.committed(), 1);
    leader.deliver(responses);
    assert_eq!(leader.committed(), 2);
}

#[test]
fn a_lone_voter_commits_nothing_that_is_not_durable() {
    let mut lone = Node::new(config(1), &[1]);
    lone.raw.campaign().expect("a voter");
    lone.work();
    assert_eq!(lone.raw.raft().role(), Role::Candidate);
    lone.append_one();
    assert_eq!(lone.raw.raft().role(), Role::Leader);
    lone.propose("data");
    assert_eq!(lone.committed(), 0);
    assert_eq!(lone.to_apply.len(), 0);
    lone.append_one();
    assert_eq!(lone.committed(), 1);
    lone.append_all();
    assert_eq!(lone.committed(), 2);
    assert_eq!(lone.apply_one(), [entry(1, 1)]);
    assert_eq!(lone.apply_one(), [entry_with(2, 1, "data")]);
}

#[test]
fn promises_ride_with_the_write_that_makes_them_durable() {
    let mut follower = Node::new(config(2), &[1, 2, 3]);
    follower.step(append(1, (0, 0), vec![entry(1, 1)], 0));
    assert_eq!(follower.sent, []);
    follower.append_one();
    let taken = Message {
        index: 1,
        ..message(MessageType::MsgAppendResponse, 2, 1, 1)
    };
    assert_eq!(follower.sent, [taken]);

    let mut voter = Node::new(config(2), &[1, 2, 3]);
    voter.step(message(MessageType::MsgRequestVote, 3, 2, 4));
    assert_eq!(voter.sent, []);
    voter.append_one();
    assert_eq!(
        voter.sent,
        [message(MessageType::MsgRequestVoteResponse, 2, 3, 4)]
    );
    let kept = HardState {
        term: 4,
        vote: 3,
        commit: 0,
    };
    assert_eq!(voter.raw.storage().hard_state(), &kept);
}

#[test]
fn many_writes_are_on_their_way_and_each_acknowledges_up_to_itself() {
    let mut leader = Node::leader(config(1));
    for data in ["a", "b", "c"] {
        leader.propose(data);
    }
    assert_eq!(leader.to_append.len(), 3);
    for append in leader.appends() {
        if append.to == 2 {
            leader.step(accept(&append));
        }
    }
    for written in 2..=4 {
        leader.append_one();
        assert_eq!(leader.committed(), written);
    }
}

#[test]
fn only_what_is_durable_here_is_handed_out_to_be_applied() {
    let mut follower = Node::new(config(2), &[1, 2, 3]);
    follower.step(append(1, (0, 0), vec![entry(1, 1)], 1));
    follower.step(append(1, (1, 1), vec![entry(2, 1)], 2));
    assert_eq!(follower.committed(), 2);
    assert!(follower.to_apply.is_empty());
    // The first acknowledgement stands for the first entry, the second for both.
    follower.append_one();
    assert_eq!(follower.apply_one(), [entry(1, 1)]);
    assert!(follower.to_apply.is_empty());
    follower.append_all();
    assert_eq!(follower.apply_one(), [entry(2, 1)]);
    assert_eq!(follower.raw.raft().log().applied(), 2);
}

#[test]
fn a_late_acknowledgement_of_an_entry_that_was_replaced_does_not_count() {
    let mut follower = Node::new(config(2), &[1, 2, 3]);
    follower.step(append(1, (0, 0), vec![entry(1, 1)], 0));
    let late = follower.write_one();
    // A leader of term 2 has another entry there, and it is committed.
    follower.step(append(2, (0, 0), vec![entry(1, 2)], 1));
    follower.deliver(late);
    assert_eq!(follower.committed(), 1);
    assert!(follower.to_apply.is_empty(), "applied before it is durable");
    follower.append_all();
    assert_eq!(follower.apply_one(), [entry(1, 2)]);
}

#[test]
fn a_late_acknowledgement_does_not_count_for_the_same_entry_written_again() {
    // Entry (1, 1) is handed out, replaced by (1, 2), and comes back by a leader of term 3. The disk
    // has only the first write so far, and the second is about to destroy it.
    let mut follower = Node::new(config(2), &[1, 2, 3]);
    follower.step(append(1, (0, 0), vec![entry(1, 1)], 0));
    let first = follower.write_one();
    follower.step(append(2, (0, 0), vec![entry(1, 2)], 0));
    follower.step(append(3, (0, 0), vec![entry(1, 1), entry(2, 3)], 2));
    follower.deliver(first);
    assert_eq!(follower.committed(), 2);
    assert!(follower.to_apply.is_empty(), "the first write counted");
    follower.append_one();
    assert!(follower.to_apply.is_empty(), "the second write counted");
    follower.append_one();
    assert_eq!(follower.apply_one(), [entry(1, 1), entry(2, 3)]);
    // Answers of all three writes have left, each in the term in which it was promised.
    let answers: Vec<_> = follower.sent.iter().map(|m| (m.term, m.index)).collect();
    assert_eq!(answers, [(1, 1), (2, 1), (3, 2)]);
}

#[test]
fn an_acknowledgement_that_comes_in_a_later_term_commits_nothing() {
    let mut leader = Node::leader(config(1));
    leader.propose("data");
    let appends = leader.appends();
    // Another term begins before the write and the answer of a follower are there.
    leader.step(message(MessageType::MsgHeartbeat, 2, 1, 2));
    leader.append_all();
    leader.step(accept(&appends[0]));
    assert_eq!(leader.committed(), 1);
    assert_eq!(leader.raw.raft().role(), Role::Follower);
}

#[test]
fn no_more_bytes_are_applied_at_once_than_allowed() {
    let size = entry_size(&entry_with(1, 1, "data"));
    // Also where the limit is not met exactly.
    for max_committed_size_per_ready in [2 * size, 3 * size - 1] {
        let config = Config {
            max_committed_size_per_ready,
            ..config(2)
        };
        let mut follower = Node::new(config, &[1, 2, 3]);
        let log = (1..=5).map(|index| entry_with(index, 1, "data")).collect();
        follower.step(append(1, (0, 0), log, 5));
        follower.append_all();
        // Two are with the apply thread; the rest waits for it.
        let mut pages = Vec::new();
        while !follower.to_apply.is_empty() {
            assert_eq!(follower.to_apply.len(), 1);
            pages.push(follower.apply_one().len());
        }
        assert_eq!(pages, [2, 2, 1]);
        assert_eq!(follower.raw.raft().log().applied(), 5);
    }
}

#[test]
fn nobody_campaigns_with_a_membership_change_at_the_apply_thread() {
    let add = crate::parts::change(basalt_raft::eraftpb::ConfChangeType::AddNode, 4);
    let add = basalt_raft::MembershipChange::from(add);
    let (entry_type, data) = add.encode();
    let change = Entry {
        entry_type: entry_type.into(),
        index: 1,
        term: 1,
        data,
    };
    let mut follower = Node::new(config(2), &[1, 2, 3]);
    follower.step(append(1, (0, 0), vec![change], 1));
    follower.append_all();
    assert_eq!(follower.to_apply.len(), 1);
    follower.raw.campaign().expect("a call");
    assert_eq!(follower.raw.raft().role(), Role::Follower);
    follower
        .raw
        .apply_conf_change(add)
        .expect("a change that fits");
    follower.apply_all();
    follower.raw.campaign().expect("a call");
    assert_eq!(follower.raw.raft().role(), Role::Candidate);
}

#[test]
fn the_threads_acknowledge_nothing_that_they_were_not_given() {
    let mut follower = Node::new(config(2), &[1, 2, 3]);
    follower.step(append(1, (0, 0), vec![entry(1, 1)], 0));
    follower.append_all();
    let unknown = |from, kind, term, index, entries| Message {
        index,
        log_term: term,
        entries,
        ..message(kind, from, 2, term)
    };
    let (appended, applied) = (
        MessageType::MsgStorageAppendResp,
        MessageType::MsgStorageApplyResp,
    );
    let (append, apply) = (LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD);
    for acknowledgement in [
        unknown(append, appended, 2, 1, vec![]),
        unknown(apply, applied, 0, 0, vec![entry(1, 1)]),
        Message {
            snapshot: Some(Box::new(snapshot(9, 1, &[1, 2, 3]))),
            ..unknown(append, appended, 1, 0, vec![])
        },
    ] {
        let result = follower.raw.step(acknowledgement);
        assert!(
            matches!(result, Err(Error::InvalidMessage { .. })),
            "{result:?}"
        );
    }
    // And they say nothing else.
    let other = message(MessageType::MsgAppend, append, 2, 1);
    let result = follower.raw.step(other);
    assert!(matches!(result, Err(Error::LocalMessage)), "{result:?}");
    assert_eq!(follower.raw.raft().log().applied(), 0);
    assert_eq!(follower.raw.raft().term(), 1);
}

#[test]
fn an_acknowledgement_does_not_count_for_what_was_not_handed_out() {
    let mut follower = Node::new(config(2), &[1, 2, 3]);
    follower.step(append(1, (0, 0), vec![entry(1, 1)], 0));
    follower.append_all();
    let second = append(1, (1, 1), vec![entry(2, 1)], 2);
    follower.raw.step(second).expect("a leader's append");
    let early = Message {
        index: 2,
        log_term: 1,
        ..message(MessageType::MsgStorageAppendResp, LOCAL_APPEND_THREAD, 2, 1)
    };
    // An error or not: the entry is still to be written, and applied after that.
    let _ = follower.raw.step(early);
    follower.work();
    assert_eq!(follower.to_append[0].entries, [entry(2, 1)]);
    assert_eq!(follower.apply_one(), [entry(1, 1)]);
    assert!(follower.to_apply.is_empty());
    follower.append_all();
    assert_eq!(follower.apply_one(), [entry(2, 1)]);
}

#[test]
fn both_ways_to_persist_promise_the_same() {
    // One group of each kind is given the same: what they say to each other is the same, too.
    let mut waiting = crate::network::Peer::new(
        Config {
            async_storage_writes: false,
            ..config(2)
        },
        MemStorage::with_voters(&[1, 2, 3]),
    );
    let mut async_node = Node::new(config(2), &[1, 2, 3]);
    let script = [
        message(MessageType::MsgRequestVote, 1, 2, 1),
        append(1, (0, 0), vec![entry(1, 1), entry(2, 1)], 1),
        append(1, (5, 1), vec![entry(6, 1)], 1),
        append(2, (1, 1), vec![entry(2, 2)], 2),
        message(MessageType::MsgHeartbeat, 1, 2, 2),
        message(MessageType::MsgRequestVote, 3, 2, 3),
    ];
    for step in script {
        waiting.step(step.clone());
        async_node.step(step);
        async_node.append_all();
        async_node.apply_all();
        assert_eq!(waiting.take_sent(), std::mem::take(&mut async_node.sent));
    }
    assert_eq!(
        waiting.raw.storage().hard_state(),
        async_node.raw.storage().hard_state()
    );
    assert_eq!(waiting.take_applied(), [entry(1, 1), entry(2, 2)]);
    assert_eq!(async_node.raw.raft().log().applied(), 2);
}
