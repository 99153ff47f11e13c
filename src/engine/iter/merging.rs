//! One cursor over many: the entries of several runs in one order.
//!
//! Up to four runs the next entry is found by looking at all of them; above, by a loser tree, which
//! takes one comparison for each doubling of the runs. Both compare the first eight bytes of the keys,
//! kept beside each other, and go to the keys themselves only where these are equal.
//!
//! No entry is in two runs: sequence numbers are unique within a key.

use std::{cmp::Ordering, mem};

use super::InternalIterator;
use crate::{
    error::Result,
    key::{InternalKey, SequenceNumber, key_prefix},
};

/// Most runs that are compared one by one.
const LINEAR_RUNS: usize = 4;

/// The union of several cursors.
pub(crate) struct MergingIter<I> {
    runs: Vec<I>,
    /// For each run, a number that none of its entries exceeds.
    max_seqs: Vec<SequenceNumber>,
    /// For each run, what decides most comparisons.
    heads: Vec<Head>,
    /// The loser of the match at each inner node of a tree whose leaves are the runs: node `n` has the
    /// children `2n` and `2n + 1`, run `i` is node `runs + i`, and node 1 is the root. Not used up to
    /// `LINEAR_RUNS` runs.
    losers: Vec<usize>,
    /// The run that holds the current entry.
    current: Option<usize>,
    /// Where the runs stand: each at its first entry at or after the current one, or each at its last
    /// entry at or before it.
    forward: bool,
    /// User key to turn around at, kept for its memory.
    pivot: Vec<u8>,
}

/// Where a run stands in the order of the current direction.
#[derive(Clone, Copy)]
struct Head {
    /// The key's prefix, inverted backward, so that the smaller is the nearer. The largest number for
    /// a run at its end.
    rank: u64,
    live: bool,
}

impl Head {
    fn of(run: &impl InternalIterator, forward: bool) -> Self {
        if !run.valid() {
            return Self {
                rank: u64::MAX,
                live: false,
            };
        }
        let prefix = key_prefix(run.key().user_key);
        Self {
            rank: if forward { prefix } else { !prefix },
            live: true,
        }
    }
}

impl<I: InternalIterator> MergingIter<I> {
    /// A cursor over the entries of all `runs`; not valid until positioned.
    pub(crate) fn new(runs: Vec<I>) -> Self {
        let max_seqs = vec![SequenceNumber::MAX; runs.len()];
        Self::with_max_seqs(runs, max_seqs)
    }

    /// As [`new`](Self::new), with a number for each run that none of its entries exceeds, so that
    /// [`skip_dead`](Self::skip_dead) can pass over old runs.
    pub(crate) fn with_max_seqs(runs: Vec<I>, max_seqs: Vec<SequenceNumber>) -> Self {
        assert_eq!(runs.len(), max_seqs.len(), "a number for each run");
        let heads = vec![
            Head {
                rank: u64::MAX,
                live: false
            };
            runs.len()
        ];
        let losers = if runs.len() > LINEAR_RUNS {
            vec![0; runs.len()]
        } else {
            Vec::new()
        };
        let pivot = Vec::new();
        Self {
            runs,
            max_seqs,
            heads,
            losers,
            current: None,
            forward: true,
            pivot,
        }
    }

    /// Moves the runs that hold only entries older than `seq` over what they have up to `bound`:
    /// forward to their first key at or after it, backward to their last key before it. The caller
    /// vouches that entries older than `seq` do not count on the way.
    pub(crate) fn skip_dead(&mut self, bound: &[u8], seq: SequenceNumber) -> Result<()> {
        let target = before_all_versions(bound);
        let forward = self.forward;
        self.current = None;
        for (run, max_seq) in self.runs.iter_mut().zip(&self.max_seqs) {
            let older = *max_seq < seq && run.valid();
            if older && forward && run.key().user_key < bound {
                run.seek(target)?;
            } else if older && !forward && run.key().user_key >= bound {
                run.seek_for_prev(target)?;
            }
        }
        self.choose_among_all();
        Ok(())
    }

    /// One of the runs, for what a test wants to know of it.
    #[cfg(test)]
    pub(super) fn run(&self, index: usize) -> &I {
        &self.runs[index]
    }

    fn current(&self) -> usize {
        self.current
            .expect("a cursor is read and moved only while it stands on an entry")
    }

    /// Positions every run, then stands on the nearest entry.
    fn position(
        &mut self,
        forward: bool,
        mut place: impl FnMut(&mut I) -> Result<()>,
    ) -> Result<()> {
        self.current = None;
        self.forward = forward;
        self.runs.iter_mut().try_for_each(&mut place)?;
        self.choose_among_all();
        Ok(())
    }

    /// Moves to the neighbour of the current entry.
    fn step(&mut self, forward: bool) -> Result<()> {
        let current = self.current();
        // Not valid should a run fail.
        self.current = None;
        let turn = self.forward != forward;
        if turn {
            self.turn(current, forward)?;
        }
        let only = self.runs.len() == 1;
        let run = &mut self.runs[current];
        if forward {
            run.next()?;
        } else {
            run.prev()?;
        }
        if turn {
            self.choose_among_all();
        } else if only {
            // Nothing to compare with; heads are looked at only by those who do.
            self.current = run.valid().then_some(0);
        } else {
            self.heads[current] = Head::of(run, forward);
            self.choose_after(current);
        }
        Ok(())
    }

    /// Places all runs but the current one on the other side of its entry.
    fn turn(&mut self, current: usize, forward: bool) -> Result<()> {
        let mut pivot = mem::take(&mut self.pivot);
        let InternalKey { user_key, trailer } = self.runs[current].key();
        pivot.clear();
        pivot.extend_from_slice(user_key);
        let key = InternalKey {
            user_key: &pivot,
            trailer,
        };
        for (index, run) in self.runs.iter_mut().enumerate() {
            if index != current {
                turn_run(run, key, forward)?;
            }
        }
        self.pivot = pivot;
        self.forward = forward;
        Ok(())
    }

    /// True where run `a` comes before run `b` in the current direction.
    fn before(&self, a: usize, b: usize) -> bool {
        match self.heads[a].rank.cmp(&self.heads[b].rank) {
            Ordering::Less => true,
            Ordering::Greater => false,
            Ordering::Equal => self.before_by_key(a, b),
        }
    }

    fn before_by_key(&self, a: usize, b: usize) -> bool {
        if !self.heads[a].live || !self.heads[b].live {
            return self.heads[a].live;
        }
        let order = self.runs[a].key().cmp(&self.runs[b].key());
        if self.forward {
            order.is_lt()
        } else {
            order.is_gt()
        }
    }

    /// Finds the current entry after any run may have moved.
    fn choose_among_all(&mut self) {
        for (head, run) in self.heads.iter_mut().zip(&self.runs) {
            *head = Head::of(run, self.forward);
        }
        let winner = if self.losers.is_empty() {
            self.nearest()
        } else {
            self.play_all(1)
        };
        self.current = Some(winner).filter(|&run| self.is_live(run));
    }

    /// Finds the current entry after only `moved` moved, which was the current run.
    fn choose_after(&mut self, moved: usize) {
        let winner = if self.losers.is_empty() {
            self.nearest()
        } else {
            self.replay(moved)
        };
        self.current = Some(winner).filter(|&run| self.is_live(run));
    }

    fn is_live(&self, run: usize) -> bool {
        self.heads.get(run).is_some_and(|head| head.live)
    }

    /// The run with the nearest entry; 0 where there is no run.
    fn nearest(&self) -> usize {
        (1..self.runs.len()).fold(
            0,
            |best, run| if self.before(run, best) { run } else { best },
        )
    }

    /// Plays the matches at and below `node`, and gives the winner.
    fn play_all(&mut self, node: usize) -> usize {
        if node >= self.runs.len() {
            return node - self.runs.len();
        }
        let (left, right) = (self.play_all(2 * node), self.play_all(2 * node + 1));
        let (winner, loser) = if self.before(right, left) {
            (right, left)
        } else {
            (left, right)
        };
        self.losers[node] = loser;
        winner
    }

    /// Plays the matches from `run`, which won the last time, up to the root, and gives the winner.
    fn replay(&mut self, run: usize) -> usize {
        let mut winner = run;
        let mut node = (self.runs.len() + run) / 2;
        while node > 0 {
            if self.before(self.losers[node], winner) {
                mem::swap(&mut self.losers[node], &mut winner);
            }
            node /= 2;
        }
        winner
    }
}

/// The internal key before all versions of a user key.
pub(super) fn before_all_versions(user_key: &[u8]) -> InternalKey<'_> {
    InternalKey {
        user_key,
        trailer: u64::MAX,
    }
}

/// Moves a run that stands at its nearest entry on one side of `key` to the nearest on the other.
fn turn_run(run: &mut impl InternalIterator, key: InternalKey<'_>, forward: bool) -> Result<()> {
    if run.valid() {
        if forward { run.next()? } else { run.prev()? }
    }
    // One step does it, unless the run was at its end, or is a memtable that took an entry in between.
    let order = if run.valid() {
        run.key().cmp(&key)
    } else {
        Ordering::Equal
    };
    match (order, forward) {
        (Ordering::Greater, true) | (Ordering::Less, false) => Ok(()),
        (_, true) => run.seek(key),
        (_, false) => run.seek_for_prev(key),
    }
}

impl<I: InternalIterator> InternalIterator for MergingIter<I> {
    fn valid(&self) -> bool {
        self.current.is_some()
    }

    fn key(&self) -> InternalKey<'_> {
        self.runs[self.current()].key()
    }

    fn value(&self) -> &[u8] {
        self.runs[self.current()].value()
    }

    fn seek_to_first(&mut self) -> Result<()> {
        self.position(true, I::seek_to_first)
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.position(false, I::seek_to_last)
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.position(true, |run| run.seek(target))
    }

    fn seek_for_prev(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.position(false, |run| run.seek_for_prev(target))
    }

    fn next(&mut self) -> Result<()> {
        self.step(true)
    }

    fn prev(&mut self) -> Result<()> {
        self.step(false)
    }
}

#[cfg(test)]
mod tests;
