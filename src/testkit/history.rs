//! Histories of clients of a key-value store, and the check that a history is linearizable: that every operation
//! seems to take effect at one moment between its invocation and its response, on one store that starts empty.
//!
//! ```
//! use basalt_testkit::history::{History, Limits, Operation, Outcome, Verdict, check};
//!
//! let mut history = History::new();
//! let put = history.invoke(1, 100, Operation::put("k", "a"));
//! history.complete(put, 200, Outcome::Written);
//! let get = history.invoke(2, 300, Operation::get("k"));
//! history.complete(get, 400, Outcome::Value(None));
//! let verdict = check(&history, Limits::default());
//! assert!(matches!(verdict, Verdict::NotLinearizable { offender, .. } if offender == get));
//! ```
//!
//! # What is promised
//!
//! - `Linearizable` and `NotLinearizable` are exact: no hash stands for what it was made from, and nothing is cut
//!   off. What is too hard for the limits is `OutOfBudget`, never a pass.
//! - A refusal names the operation whose response cannot be explained: the one that ends the shortest bad prefix
//!   (in which operations that fail later are none). With it come the operations that rule it out, made few. A scan
//!   whose rows no store could have found, out of order for instance, is refused before anything else is looked at.
//!
//! # How it works
//!
//! The search is that of Wing and Gong ("Testing and verifying concurrent objects", 1993) with Lowe's memory of
//! configurations ("Testing for linearizability", 2017), in the arrangement of Horn and Kroening ("Faster
//! linearizability checking via P-compositionality", 2015) and of Athalye's porcupine: a list of invocations and
//! responses from which linearized operations are lifted. `history/search.rs` adds rules that hold for registers;
//! each has its argument there.
//!
//! Each key is checked alone (P-compositionality). Keys that one scan reads together make one partition, and so on
//! transitively: scans over everything make everything one partition. Its keys are checked alone too, and then
//! together: there the search must order all clients against each other, which may take more than the limits allow
//! when a torn scan is refused, or when many operations are unknown.
//!
//! Give each put a value of its own: then it is clear for most reads which write they saw, and also the history of
//! a hundred clients at one key is quick to judge. With a few dozen values in turn on a busy key it may not be.

mod explain;
mod judge;
mod prepare;
mod search;
mod text;
mod zones;

use std::fmt;

/// Names an operation within its history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId(usize);

/// A row that a scan found: its key and its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// What a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Sets a key.
    Put {
        /// The key.
        key: Vec<u8>,
        /// What it is set to.
        value: Vec<u8>,
    },
    /// Removes a key, whether it is there or not.
    Delete {
        /// The key.
        key: Vec<u8>,
    },
    /// Reads a key.
    Get {
        /// The key.
        key: Vec<u8>,
    },
    /// Reads the first rows of a range, all at one moment.
    Scan {
        /// The first key of the range.
        start: Vec<u8>,
        /// The first key behind the range; `None` for a range without end.
        end: Option<Vec<u8>>,
        /// How many rows at most.
        limit: usize,
    },
}

impl Operation {
    /// Sets `key` to `value`.
    #[must_use]
    pub fn put(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        let (key, value) = (key.into(), value.into());
        Self::Put { key, value }
    }

    /// Removes `key`.
    #[must_use]
    pub fn delete(key: impl Into<Vec<u8>>) -> Self {
        Self::Delete { key: key.into() }
    }

    /// Reads `key`.
    #[must_use]
    pub fn get(key: impl Into<Vec<u8>>) -> Self {
        Self::Get { key: key.into() }
    }

    /// Reads up to `limit` rows from `start` to before `end`.
    #[must_use]
    pub fn scan(start: impl Into<Vec<u8>>, end: impl Into<Vec<u8>>, limit: usize) -> Self {
        Self::Scan {
            start: start.into(),
            end: Some(end.into()),
            limit,
        }
    }

    /// True for a put and for a delete.
    #[must_use]
    pub fn is_write(&self) -> bool {
        matches!(self, Self::Put { .. } | Self::Delete { .. })
    }
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A put or a delete was acknowledged.
    Written,
    /// A get found this value, or no key.
    Value(Option<Vec<u8>>),
    /// A scan found these rows, in this order.
    Rows(Vec<Row>),
    /// It surely has had no effect and never will: it was turned away, by a routing error for instance.
    Failed,
    /// Nobody knows: a timeout, a lost leader. A write may take effect at any time after its invocation, even
    /// after this response, or never.
    Unknown,
}

/// An operation of a history, with its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Who asked.
    pub client: u64,
    /// What for.
    pub operation: Operation,
    /// When.
    pub invoked: u64,
    /// When it ended, and how; `None` counts as `Unknown`.
    pub completed: Option<(u64, Outcome)>,
    /// Place of the invocation and of the response among all events.
    call: u64,
    response: Option<u64>,
}

/// How many operations ended in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Writes that were acknowledged.
    pub written: u64,
    /// Gets and scans that were answered.
    pub read: u64,
    /// `Outcome::Failed`.
    pub failed: u64,
    /// `Outcome::Unknown`, and those without an end.
    pub unknown: u64,
}

/// What clients did and saw.
///
/// Events are recorded in the order in which they happen: that order is the real-time order, also between events of
/// the same time, so a response that is recorded before an invocation precedes it. (One recorder under a lock is
/// right for real threads too, when invocations are recorded before the request leaves, and responses after they
/// arrive.) Times are for people, except that they never go back.
#[derive(Clone, Debug, Default)]
pub struct History {
    records: Vec<Record>,
    events: u64,
    now: u64,
}

impl History {
    /// Nothing has happened.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Records that `client` asks for `operation` at `time`, in virtual nanoseconds. A client may leave an
    /// operation open and ask for another: it gave up, or crashed and came back.
    ///
    /// # Panics
    ///
    /// When `time` is before that of the last event.
    pub fn invoke(&mut self, client: u64, time: u64, operation: Operation) -> OperationId {
        let call = self.event(time);
        self.records.push(Record {
            client,
            operation,
            invoked: time,
            completed: None,
            call,
            response: None,
        });
        OperationId(self.records.len() - 1)
    }

    /// Records that an operation ended at `time`. A late answer to an operation that has ended as `Unknown` is not
    /// to be recorded.
    ///
    /// # Panics
    ///
    /// When `time` is before that of the last event, when the operation has ended before, and when the outcome is
    /// none of this kind of operation.
    pub fn complete(&mut self, id: OperationId, time: u64, outcome: Outcome) {
        let response = self.event(time);
        let record = &mut self.records[id.0];
        let fits = match &outcome {
            Outcome::Written => record.operation.is_write(),
            Outcome::Value(_) => matches!(record.operation, Operation::Get { .. }),
            Outcome::Rows(_) => matches!(record.operation, Operation::Scan { .. }),
            Outcome::Failed | Outcome::Unknown => true,
        };
        assert!(fits, "{} cannot end with {outcome:?}", record.operation);
        assert!(
            record.completed.is_none(),
            "{record} ends a second time, at {time}, with {outcome:?}"
        );
        record.completed = Some((time, outcome));
        record.response = Some(response);
    }

    fn event(&mut self, time: u64) -> u64 {
        assert!(
            time >= self.now,
            "an event at {time} is recorded after one at {}",
            self.now
        );
        self.now = time;
        self.events += 1;
        self.events
    }

    /// The operations, in the order of their invocations.
    pub fn records(&self) -> impl ExactSizeIterator<Item = (OperationId, &Record)> {
        let all = self.records.iter().enumerate();
        all.map(|(index, record)| (OperationId(index), record))
    }

    /// An operation.
    #[must_use]
    pub fn record(&self, id: OperationId) -> &Record {
        &self.records[id.0]
    }

    /// Number of operations.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// True without operations.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// How the operations ended. A test should look at it: a history of failures is linearizable and says nothing.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for record in &self.records {
            let counter = match &record.completed {
                Some((_, Outcome::Written)) => &mut tally.written,
                Some((_, Outcome::Value(_) | Outcome::Rows(_))) => &mut tally.read,
                Some((_, Outcome::Failed)) => &mut tally.failed,
                Some((_, Outcome::Unknown)) | None => &mut tally.unknown,
            };
            *counter += 1;
        }
        tally
    }
}

/// How much each search may cost: of a key, and of keys that scans read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Configurations that the search enters.
    pub steps: u64,
    /// Bytes of remembered configurations, to within the overhead of a hash map.
    pub cache_bytes: usize,
}

impl Default for Limits {
    /// Two million steps and 256 MiB: some seconds for a partition of usual width.
    fn default() -> Self {
        Self {
            steps: 2_000_000,
            cache_bytes: 256 << 20,
        }
    }
}

/// What the check found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// There is an order of the operations that explains all that was seen.
    Linearizable,
    /// There is none.
    NotLinearizable {
        /// The operation whose response has no explanation, while everything before it has one.
        offender: OperationId,
        /// The offender and the operations that rule it out.
        operations: Vec<OperationId>,
        /// All of this to read, with times.
        explanation: String,
    },
    /// It is not known: a partition's search reached its limit, and no other partition was refused.
    OutOfBudget {
        /// The limits that were set.
        limits: Limits,
        /// How far the search came, and in which partition.
        explanation: String,
    },
}

impl Verdict {
    /// True for `Linearizable` alone.
    #[must_use]
    pub fn is_linearizable(&self) -> bool {
        matches!(self, Self::Linearizable)
    }

    /// Panics with the explanation, unless the history is linearizable.
    ///
    /// # Panics
    ///
    /// When it is not, and when that is not known.
    #[track_caller]
    pub fn assert_linearizable(&self) {
        assert!(self.is_linearizable(), "{self}");
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linearizable => f.write_str("linearizable"),
            Self::NotLinearizable { explanation, .. } | Self::OutOfBudget { explanation, .. } => {
                f.write_str(explanation)
            }
        }
    }
}

/// What a check cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effort {
    /// Keys, or groups of keys that scans read together.
    pub partitions: usize,
    /// Operations of the largest partition, without those that say nothing.
    pub largest: usize,
    /// Configurations that the searches entered.
    pub steps: u64,
    /// The most bytes that one search remembered.
    pub cache_bytes: usize,
}

/// Is `history` linearizable?
pub fn check(history: &History, limits: Limits) -> Verdict {
    check_counted(history, limits).0
}

/// Is `history` linearizable, and what did it cost to know? (The cost of shrinking a refusal is not counted.)
pub fn check_counted(history: &History, limits: Limits) -> (Verdict, Effort) {
    let mut effort = Effort::default();
    if let Some(refusal) = explain::malformed(history) {
        return (refusal, effort);
    }
    let prepared = prepare::Prepared::new(history);
    let mut unknown = None;
    let mut refused = Vec::new();
    for items in &prepared.partitions {
        let (answer, spent) = judge::judge(items, prepared.keys.len(), &prepared.cells, limits);
        effort.partitions += 1;
        effort.largest = effort.largest.max(items.len());
        effort.steps += spent.steps;
        effort.cache_bytes = effort.cache_bytes.max(spent.cache_bytes);
        match answer {
            search::Answer::Linearizable => {}
            search::Answer::NotLinearizable => refused.push(items.as_slice()),
            search::Answer::OutOfBudget => unknown = unknown.or(Some((items.as_slice(), spent))),
        }
    }
    // A refusal says more than that something is not known.
    let verdict = if !refused.is_empty() {
        explain::refusal(history, &prepared, &refused, limits)
    } else if let Some((items, spent)) = unknown {
        explain::out_of_budget(history, &prepared, items, limits, spent)
    } else {
        Verdict::Linearizable
    };
    (verdict, effort)
}
