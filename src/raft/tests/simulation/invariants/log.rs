//! Log matching: the log of each process is followed as it changes, and each entry is held against
//! what any other log has, or had, at that index in that term.

use basalt_raft::StorageError;

use super::{Check, Invariant, Oracle, Violation};
use crate::{
    chain::{Chain, Link},
    node::{Process, Seen},
};

fn broken<T>(n: usize, what: String) -> Check<T> {
    let what = format!("node {}: {what}", n + 1);
    Err(Violation::new(Invariant::LogMatching, what))
}

fn unreadable(n: usize, error: &StorageError) -> Violation {
    let what = format!("node {} cannot read its log: {error}", n + 1);
    Violation::new(Invariant::NoError, what)
}

impl Oracle {
    /// The log of a process may have changed.
    pub(super) fn follow_log(&mut self, process: &mut Process, n: usize, before: Seen) -> Check {
        let log = process.raw.raft().log();
        let last = (log.last_index(), log.last_term());
        let seen = process.log.last();
        if last == (seen.index, seen.term) {
            return self.spot_check(process, n);
        }
        let first = log.first_index().map_err(|error| unreadable(n, &error))?;
        let mut agreed = last.0.min(seen.index);
        let lowest = first.saturating_sub(1).max(process.log.base().index);
        let agrees = |index| {
            let ours = log.term(index).ok();
            ours.is_some() && ours == process.log.at(index).map(|link| link.term)
        };
        while agreed >= lowest && !agrees(agreed) {
            if agreed == 0 {
                break;
            }
            agreed -= 1;
        }
        if agreed < lowest || !agrees(agreed) {
            return self.log_replaced(process, n, first);
        }
        if agreed < seen.index {
            if agreed < before.commit {
                let what = format!("truncates its log to {agreed}, committed {}", before.commit);
                return broken(n, what);
            }
            let leads = process.seen.led && before.led && before.term == process.seen.term;
            if leads {
                return broken(n, format!("truncates its log to {agreed} while it leads"));
            }
            process.log.truncate(agreed);
        }
        self.log_grew(process, n)
    }

    /// A snapshot has taken the place of the log.
    fn log_replaced(&mut self, process: &mut Process, n: usize, first: u64) -> Check {
        let log = process.raw.raft().log();
        let index = first - 1;
        let term = log.term(index).map_err(|error| unreadable(n, &error))?;
        match self.committed.at(index) {
            Some(link) if link.term == term => {
                process.log = Chain::new(link);
                self.log_grew(process, n)
            }
            known => {
                let what = format!("its log begins with {term}/{index}, committed is {known:?}");
                broken(n, what)
            }
        }
    }

    /// There are entries behind those that were seen.
    fn log_grew(&mut self, process: &mut Process, n: usize) -> Check {
        let log = process.raw.raft().log();
        let next = process.log.last().index + 1;
        let entries = log.entries(next, log.last_index() + 1, u64::MAX);
        for entry in entries.map_err(|error| unreadable(n, &error))? {
            let link = process.log.last().then(&entry);
            if entry.index != link.index {
                return broken(n, format!("entry {} stands at {}", entry.index, link.index));
            }
            self.known_as(n, link)?;
            process.log.push(link);
        }
        Ok(())
    }

    /// An entry was seen in a log.
    fn known_as(&mut self, n: usize, link: Link) -> Check {
        let place = self.place(link.index);
        if self.known.len() <= place {
            self.known.resize(place + 1, Vec::new());
        }
        let terms = &mut self.known[place];
        match terms.iter().find(|known| known.term == link.term) {
            Some(known) if known.hash != link.hash => {
                let what = format!("entry {}/{} differs from others'", link.term, link.index);
                broken(n, what)
            }
            Some(_) => Ok(()),
            None => {
                terms.push(link);
                Ok(())
            }
        }
    }

    /// Nothing seems to have changed; one index a call is looked at all the same.
    fn spot_check(&self, process: &Process, n: usize) -> Check {
        let log = process.raw.raft().log();
        let (base, last) = (process.log.base().index, process.log.last().index);
        let index = last - self.calls % (last - base + 1).min(8);
        let seen = process.log.at(index).map(|link| link.term);
        match log.term(index) {
            Ok(term) if Some(term) == seen => Ok(()),
            Err(StorageError::Compacted) => Ok(()),
            other => broken(
                n,
                format!("entry {index} was of term {seen:?}, now {other:?}"),
            ),
        }
    }
}
