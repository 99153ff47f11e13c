//! A leader's view of one follower, against a follower that loses, repeats and reorders what it is
//! sent; windows, maps and votes against plain ones.

use std::collections::{BTreeMap, VecDeque};

use basalt_testkit::{Replay, Rng, Seeds, long_factor};

use super::*;

fn progress(next: u64) -> Progress {
    Progress::new(next, false, 1, Inflights::new(4, 1_000))
}

/// In `Replicate`, having acknowledged `matched`.
fn replicating(matched: u64) -> Progress {
    let mut progress = progress(matched + 1);
    progress.maybe_update(matched);
    progress.become_replicate();
    progress.check();
    progress
}

/// Everything that can be seen from outside.
fn seen(progress: &Progress) -> (String, u64, u64, Inflights) {
    let Progress { matched, next, .. } = *progress;
    (
        progress.to_string(),
        matched,
        next,
        progress.inflights.clone(),
    )
}

#[test]
fn a_probe_goes_out_once_and_then_waits() {
    let mut probe = progress(5);
    assert!(!probe.is_paused());
    probe.sent_entries(3, 30);
    assert!(probe.is_paused());
    // It is not known yet whether they fit.
    assert_eq!((probe.next, probe.inflights.count()), (5, 0));
    probe.check();
}

#[test]
fn an_empty_probe_holds_nothing_up() {
    let mut probe = progress(5);
    probe.sent_entries(0, 0);
    assert!(!probe.is_paused());
}

#[test]
fn replication_goes_on_until_the_window_is_full_and_again_when_it_is_not() {
    let mut follower = replicating(4);
    for sent in 1..=4 {
        assert!(!follower.is_paused(), "{sent}");
        follower.sent_entries(2, 20);
        follower.check();
    }
    assert_eq!(follower.next, 13);
    assert!(follower.is_paused());
    assert!(follower.maybe_update(6));
    follower.inflights.free_to(6);
    assert!(!follower.is_paused());
    assert_eq!(
        (follower.matched, follower.next, follower.inflights.count()),
        (6, 13, 3)
    );
}

#[test]
fn the_window_is_full_by_bytes_too() {
    let mut follower = replicating(4);
    follower.sent_entries(1, 999);
    assert!(!follower.is_paused());
    follower.sent_entries(1, 1);
    assert!(follower.is_paused());
}

#[test]
fn an_acknowledgement_of_what_is_known_changes_nothing() {
    let mut follower = replicating(7);
    follower.sent_entries(3, 30);
    let before = seen(&follower);
    for stale in [0, 3, 7] {
        assert!(!follower.maybe_update(stale));
        assert_eq!(seen(&follower), before);
    }
    assert!(follower.maybe_update(8));
    assert_eq!((follower.matched, follower.next), (8, 11));
}

#[test]
fn an_acknowledgement_beyond_what_was_sent_moves_the_next_index() {
    let mut follower = progress(5);
    assert!(follower.maybe_update(9));
    assert_eq!((follower.matched, follower.next), (9, 10));
    follower.check();
}

#[test]
fn a_rejection_of_what_was_acknowledged_since_changes_nothing() {
    let mut follower = replicating(7);
    follower.sent_entries(3, 30);
    let before = seen(&follower);
    assert!(!follower.maybe_decrease_to(5, 2));
    assert!(!follower.maybe_decrease_to(7, 7));
    assert_eq!(seen(&follower), before);
    // One of what is in flight sends again from where the logs are known to agree.
    assert!(follower.maybe_decrease_to(9, 8));
    assert_eq!(follower.next, 8);
}

#[test]
fn a_probe_is_answered_by_a_rejection_of_itself_only() {
    let mut probe = progress(10);
    probe.sent_entries(1, 10);
    let before = seen(&probe);
    for late in [0, 8, 10, 30] {
        assert!(!probe.maybe_decrease_to(late, 3));
        assert_eq!(seen(&probe), before);
    }
    assert!(probe.maybe_decrease_to(9, 3));
    assert_eq!(probe.next, 4);
    assert!(!probe.is_paused());
    // A hint above the rejected index is no hint.
    assert!(probe.maybe_decrease_to(3, 50));
    assert_eq!(probe.next, 3);
    // Nor does one lead below what is acknowledged, or to index 0.
    assert!(probe.maybe_update(1));
    assert!(probe.maybe_decrease_to(2, 0));
    assert_eq!(probe.next, 2);
    let mut first = progress(1);
    assert!(first.maybe_decrease_to(0, 0));
    assert_eq!(first.next, 1);
    first.check();
}

#[test]
fn a_snapshot_on_its_way_stops_appends_and_the_log_goes_on_behind_it() {
    let mut follower = replicating(3);
    follower.sent_entries(2, 20);
    follower.become_snapshot(20);
    follower.check();
    assert!(follower.is_paused());
    assert_eq!((follower.next, follower.inflights.count()), (21, 0));
    let mut delivered = follower.clone();
    delivered.become_probe();
    delivered.check();
    assert_eq!((delivered.matched, delivered.next), (3, 21));
    let mut failed = follower.clone();
    failed.pending_snapshot = 0;
    failed.become_probe();
    failed.check();
    assert_eq!((failed.matched, failed.next), (3, 4));
    let mut overtaken = follower;
    assert!(overtaken.maybe_update(25));
    overtaken.become_probe();
    overtaken.become_replicate();
    overtaken.check();
    assert_eq!((overtaken.matched, overtaken.next), (25, 26));
}

#[test]
fn a_commit_index_is_worth_telling_where_the_follower_can_use_it() {
    let mut follower = replicating(4);
    follower.sent_entries(4, 40);
    assert_eq!(follower.next, 9);
    assert!(!follower.can_bump_commit(0), "nothing is committed");
    assert!(follower.can_bump_commit(3));
    follower.sent_commit = 3;
    assert!(!follower.can_bump_commit(3), "it was told");
    assert!(follower.can_bump_commit(6));
    follower.sent_commit = 8;
    assert!(!follower.can_bump_commit(20), "it was told all it has");
    // What was in flight may be lost: then it has to be told again.
    follower.become_probe();
    follower.check();
    assert!(follower.sent_commit < follower.next);
}

/// What is on its way to the follower.
#[derive(Clone, Copy, Debug)]
enum Sent {
    /// `count` entries behind `prev`.
    Append {
        prev: u64,
        count: u64,
    },
    Snapshot(u64),
}

/// What is on its way back.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Acked(u64),
    Rejected { index: u64, hint: u64 },
}

/// A leader's log, its view of a follower, the follower, and a bad network between.
struct Link {
    rng: Rng,
    view: Progress,
    /// The leader's log is `first..=last`.
    first: u64,
    last: u64,
    /// The follower's log agrees with the leader's up to here, durably.
    agrees: u64,
    /// It is that long; what is above `agrees` is from another leader.
    length: u64,
    to_follower: VecDeque<Sent>,
    to_leader: VecDeque<Answer>,
    snapshots: u64,
    rejections: u64,
}

impl Link {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let last = 1 + rng.below(40);
        let agrees = rng.below(last + 1);
        let length = agrees + rng.below(30);
        Self {
            view: progress(last + 1),
            first: 1,
            last,
            agrees,
            length,
            to_follower: VecDeque::new(),
            to_leader: VecDeque::new(),
            snapshots: 0,
            rejections: 0,
            rng,
        }
    }

    /// As the leader: appends while something may be sent, a snapshot where the log is compacted.
    fn send(&mut self, mut if_empty: bool) {
        while !self.view.is_paused() {
            let next = self.view.next;
            if next < self.first {
                let index = self.rng.range(self.first - 1..self.last + 1);
                self.view.become_snapshot(index);
                self.to_follower.push_back(Sent::Snapshot(index));
                return;
            }
            let room =
                !self.view.inflights.is_full() || self.view.state != ProgressState::Replicate;
            let most = if room { self.last + 1 - next } else { 0 };
            if most == 0 && !if_empty {
                return;
            }
            if_empty = false;
            let count = most.min(1 + self.rng.below(5));
            self.view.sent_entries(count, count * 100);
            self.view.sent_commit = self.agrees.min(self.view.next - 1);
            self.to_follower.push_back(Sent::Append {
                prev: next - 1,
                count,
            });
        }
    }

    /// As the follower: everything that it answers is durable.
    fn receive(&mut self, sent: Sent) {
        let answer = match sent {
            Sent::Snapshot(index) => {
                if index > self.agrees {
                    (self.agrees, self.length) = (index, index);
                }
                Answer::Acked(self.agrees)
            }
            Sent::Append { prev, count } if prev <= self.agrees => {
                if prev + count > self.agrees {
                    (self.agrees, self.length) = (prev + count, prev + count);
                }
                Answer::Acked(prev + count)
            }
            Sent::Append { prev, .. } => {
                // Some index up to which the logs may agree, as far as the follower can know.
                let high = prev.min(self.length).max(self.agrees);
                let hint = self.rng.range(self.agrees..high + 1);
                Answer::Rejected { index: prev, hint }
            }
        };
        self.to_leader.push_back(answer);
    }

    /// As the leader.
    fn hear(&mut self, answer: Answer) {
        let view = &mut self.view;
        match answer {
            Answer::Acked(index) => {
                let answers_probe = view.state == ProgressState::Probe && view.matched == index;
                if !view.maybe_update(index) && !answers_probe {
                    return;
                }
                match view.state {
                    ProgressState::Probe => view.become_replicate(),
                    ProgressState::Replicate => view.inflights.free_to(index),
                    ProgressState::Snapshot if view.matched + 1 >= self.first => {
                        view.become_probe();
                        view.become_replicate();
                    }
                    ProgressState::Snapshot => {}
                }
                self.send(false);
            }
            Answer::Rejected { index, hint } => {
                self.rejections += 1;
                if view.maybe_decrease_to(index, hint) {
                    if view.state == ProgressState::Replicate {
                        view.become_probe();
                    }
                    self.send(true);
                }
            }
        }
    }

    fn answer_to_heartbeat(&mut self) {
        self.view.paused = false;
        if self.view.matched < self.last || self.view.state == ProgressState::Probe {
            self.send(true);
        }
    }

    /// What became of the snapshot, as the caller tells.
    fn report_snapshot(&mut self, arrived: bool) {
        if self.view.state == ProgressState::Snapshot {
            self.snapshots += 1;
            if !arrived {
                self.view.pending_snapshot = 0;
            }
            self.view.become_probe();
            self.view.paused = true;
        }
    }

    fn any_event(&mut self) {
        match self.rng.below(16) {
            0 => self.last += self.rng.below(4),
            1 => {
                let high = (self.last + 1).min(self.first + 5);
                self.first = self.rng.range(self.first..high + 1);
            }
            2 => self.answer_to_heartbeat(),
            3 if self.view.state == ProgressState::Replicate => self.view.become_probe(),
            4 => {
                let arrived = self.rng.one_in(2);
                self.report_snapshot(arrived);
            }
            5 | 6 => self.send(false),
            7..=10 => {
                if let Some(sent) = any(&mut self.rng, &mut self.to_follower) {
                    self.receive(sent);
                }
            }
            _ => {
                if let Some(answer) = any(&mut self.rng, &mut self.to_leader) {
                    self.hear(answer);
                }
            }
        }
    }

    fn check(&self, matched_before: u64) {
        let view = &self.view;
        view.check();
        assert!(
            view.matched >= matched_before,
            "{view} forgot {matched_before}"
        );
        assert!(
            view.matched <= self.agrees,
            "{view}, but the follower agrees up to {} only",
            self.agrees
        );
        assert!(
            view.matched < view.next && view.next <= self.last + 1,
            "{view} of {}",
            self.last
        );
        assert!(
            view.inflights.count() <= 4,
            "{view} has more in flight than it may"
        );
    }
}

/// Takes one of `queue`: mostly the oldest, sometimes another, sometimes to drop or to repeat it.
fn any<T: Copy>(rng: &mut Rng, queue: &mut VecDeque<T>) -> Option<T> {
    let place = match rng.below(4) {
        0 if !queue.is_empty() => rng.index(queue.len()),
        _ => 0,
    };
    let one = *queue.get(place)?;
    if !rng.one_in(8) {
        queue.remove(place);
    }
    (!rng.one_in(8)).then_some(one)
}

#[test]
fn a_leader_never_believes_more_than_the_follower_has_and_catches_it_up_in_the_end() {
    let test = "a_leader_never_believes_more_than_the_follower_has_and_catches_it_up_in_the_end";
    let (mut snapshots, mut rejections) = (0, 0);
    let seeds = Seeds::new(test, 400 * long_factor());
    let replays = seeds.is_replay();
    for seed in seeds {
        let _replay = Replay::new("-p basalt-raft", test, seed);
        let mut link = Link::new(seed);
        link.send(true);
        for _ in 0..400 {
            let before = link.view.matched;
            link.any_event();
            link.check(before);
        }
        // The network is healed: everything arrives, in order.
        for _ in 0..200 {
            let before = link.view.matched;
            if let Some(sent) = link.to_follower.pop_front() {
                link.receive(sent);
            } else if let Some(answer) = link.to_leader.pop_front() {
                link.hear(answer);
            } else {
                link.report_snapshot(true);
                link.answer_to_heartbeat();
            }
            link.check(before);
        }
        let Link {
            view, last, agrees, ..
        } = &link;
        assert_eq!((view.matched, *agrees), (*last, *last), "{view}");
        assert_eq!(view.state, ProgressState::Replicate);
        snapshots += link.snapshots;
        rejections += link.rejections;
    }
    println!("{snapshots} snapshots, {rejections} rejections");
    assert!(replays || (snapshots > 400 && rejections > 400));
}

#[test]
fn a_window_holds_what_was_sent_and_not_acknowledged() {
    let test = "a_window_holds_what_was_sent_and_not_acknowledged";
    for seed in Seeds::new(test, 100 * long_factor()) {
        let _replay = Replay::new("-p basalt-raft", test, seed);
        let rng = &mut Rng::new(seed);
        let (most, bytes) = (rng.len(1..6), rng.range(1..300));
        let mut window = Inflights::new(most, bytes);
        let (mut model, mut last) = (Vec::<(u64, u64)>::new(), 0);
        for _ in 0..80 {
            let full = model.len() >= most || model.iter().map(|(_, b)| b).sum::<u64>() >= bytes;
            assert_eq!(window.is_full(), full);
            match rng.below(8) {
                0 => {
                    window.clear();
                    model.clear();
                }
                1..=4 if !full => {
                    last += 1 + rng.below(4);
                    let size = rng.below(100);
                    window.add(last, size);
                    model.push((last, size));
                }
                _ => {
                    let acked = rng.below(last + 3);
                    window.free_to(acked);
                    model.retain(|(index, _)| *index > acked);
                }
            }
            window.check();
            assert_eq!(window.count(), model.len());
            assert_eq!(window.bytes(), model.iter().map(|(_, b)| b).sum::<u64>());
        }
    }
}

#[test]
fn progress_is_found_by_id_as_in_an_ordered_map() {
    let test = "progress_is_found_by_id_as_in_an_ordered_map";
    for seed in Seeds::new(test, 50 * long_factor()) {
        let _replay = Replay::new("-p basalt-raft", test, seed);
        let rng = &mut Rng::new(seed);
        let (mut map, mut model) = (ProgressMap::default(), BTreeMap::new());
        for step in 1..60 {
            let id = rng.below(10);
            if rng.one_in(3) {
                map.remove(id);
                model.remove(&id);
            } else {
                map.insert(id, progress(step));
                model.insert(id, step);
            }
            let listed = map.iter().map(|(id, progress)| (id, progress.next));
            assert!(listed.eq(model.iter().map(|(id, next)| (*id, *next))));
            assert_eq!((map.len(), map.is_empty()), (model.len(), model.is_empty()));
            for id in 0..10 {
                assert_eq!(map.get(id).map(|found| found.next), model.get(&id).copied());
                assert_eq!(map.contains(id), model.contains_key(&id));
            }
            let by_place = (0..).map_while(|place| map.id_at(place));
            assert!(by_place.eq(model.keys().copied()));
        }
    }
}

/// Voters 1 to 3 and the learner 4.
fn tracker() -> Tracker {
    let mut tracker = Tracker::default();
    tracker.config.voters.incoming = (1..=3).collect();
    tracker.config.learners = [4].into_iter().collect();
    for id in 1..=4 {
        let mut member = progress(1);
        member.is_learner = id == 4;
        tracker.progress.insert(id, member);
    }
    tracker.check();
    tracker
}

#[test]
fn the_first_vote_of_a_voter_counts_and_a_learner_has_none() {
    let mut tracker = tracker();
    tracker.votes.record(1, true);
    tracker.votes.record(4, true);
    assert_eq!(tracker.tally(), (1, 0, VoteResult::Pending));
    tracker.votes.record(2, false);
    tracker.votes.record(2, true);
    assert_eq!(tracker.tally(), (1, 1, VoteResult::Pending));
    tracker.votes.record(3, true);
    assert_eq!(tracker.tally(), (2, 1, VoteResult::Won));
    tracker.votes.clear();
    assert_eq!(tracker.tally(), (0, 0, VoteResult::Pending));
}

#[test]
fn a_quorum_has_what_two_of_three_voters_have_whatever_the_learner_has() {
    let mut tracker = tracker();
    let matched = [(1, 9), (2, 5), (3, 2), (4, 30)];
    for (id, index) in matched {
        let member = tracker.progress.get_mut(id).unwrap();
        member.maybe_update(index);
        member.acked_round = index;
        member.recent_active = id == 4;
    }
    tracker.check();
    assert_eq!(tracker.committed(), 5);
    // The leader counts its own round, and itself as heard from.
    assert_eq!(tracker.acked_round(3, 12), 9);
    assert!(!tracker.quorum_active(1));
    tracker.progress.get_mut(2).unwrap().recent_active = true;
    assert!(tracker.quorum_active(1));
    assert!(!tracker.is_singleton(1));
    tracker.config.voters.incoming = [1].into_iter().collect();
    assert!(tracker.is_singleton(1) && !tracker.is_singleton(2));
    tracker.config.voters.outgoing = [1, 2].into_iter().collect();
    assert!(!tracker.is_singleton(1));
}

#[test]
#[should_panic(expected = "match 5, next 5")]
fn a_next_index_that_is_acknowledged_is_found_out() {
    let mut broken = replicating(5);
    broken.next = 5;
    broken.check();
}

#[test]
#[should_panic(expected = "role of 4")]
fn a_learner_that_counts_as_a_voter_is_found_out() {
    let mut broken = tracker();
    broken.progress.get_mut(4).unwrap().is_learner = false;
    broken.check();
}
