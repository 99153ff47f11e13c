//! Histories that tests write down or change: operations with the times of their events, in any order. Recording
//! one sorts its events by time.
//!
//! The notation, an operation a line:
//!
//! ```text
//! 1 10-20  put k a             client 1 sets k to a, from 10 to 20, acknowledged
//! 1 10-    delete k            without response
//! 1 10-20? put k a             Unknown at 20
//! 1 10-20! put k a             Failed at 20
//! 2 30-40  get k = a           found a; `= -` found nothing
//! 2 30-40  scan a c 9 = a:x    range a..c, limit 9, the rows; `-` for c is no end; `=` alone is no rows
//! ```

use std::fmt;

use basalt_testkit::history::{History, Operation, Outcome};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Op {
    pub(crate) client: u64,
    pub(crate) call: u64,
    pub(crate) end: Option<(u64, Outcome)>,
    pub(crate) operation: Operation,
}

impl Op {
    /// The time of the response of an operation that surely has had its effect, or was surely answered.
    pub(crate) fn acked(&self) -> Option<u64> {
        match &self.end {
            Some((time, Outcome::Written | Outcome::Value(_) | Outcome::Rows(_))) => Some(*time),
            _ => None,
        }
    }

    pub(crate) fn failed(&self) -> bool {
        matches!(self.end, Some((_, Outcome::Failed)))
    }

    pub(crate) fn put(&self) -> Option<(&[u8], &[u8])> {
        match &self.operation {
            Operation::Put { key, value } => Some((key, value)),
            _ => None,
        }
    }

    /// The key and the result of a get that was answered.
    pub(crate) fn got(&self) -> Option<(&[u8], Option<&[u8]>)> {
        match (&self.operation, &self.end) {
            (Operation::Get { key }, Some((_, Outcome::Value(value)))) => {
                Some((key, value.as_deref()))
            }
            _ => None,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Script(pub(crate) Vec<Op>);

impl Script {
    pub(crate) fn history(&self) -> History {
        let mut events = Vec::new();
        for (index, op) in self.0.iter().enumerate() {
            events.push((op.call, index, None));
            if let Some((time, outcome)) = &op.end {
                assert!(*time > op.call, "{op:?}");
                events.push((*time, index, Some(outcome)));
            }
        }
        events.sort_by_key(|(time, ..)| *time);
        assert!(
            events.windows(2).all(|pair| pair[0].0 < pair[1].0),
            "two events at one time in {self:?}"
        );
        let mut history = History::new();
        let mut ids = vec![None; self.0.len()];
        for (time, index, outcome) in events {
            let op = &self.0[index];
            match outcome {
                None => {
                    ids[index] = Some(history.invoke(op.client, time, op.operation.clone()));
                }
                Some(outcome) => {
                    let id = ids[index].expect("calls are before responses");
                    history.complete(id, time, outcome.clone());
                }
            }
        }
        history
    }

    /// What had happened up to this time, without what is known to have failed, then or later.
    pub(crate) fn until(&self, time: u64) -> Self {
        let mut ops = self.0.clone();
        ops.retain(|op| op.call <= time && !op.failed());
        for op in &mut ops {
            if op.end.as_ref().is_some_and(|(end, _)| *end > time) {
                op.end = None;
            }
        }
        Self(ops)
    }

    pub(crate) fn parse(text: &str) -> Self {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        Self(lines.map(parse).collect())
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let history = self.history();
        history
            .records()
            .try_for_each(|(_, record)| writeln!(f, "{record}"))
    }
}

fn parse(line: &str) -> Op {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (client, span) = (words[0].parse().expect(line), words[1]);
    let (call, end) = span.split_once('-').expect(line);
    let value = |word: &str| (word != "-").then(|| word.as_bytes().to_vec());
    let (operation, good) = match words[2..] {
        ["put", key, value] => (Operation::put(key, value), Outcome::Written),
        ["delete", key] => (Operation::delete(key), Outcome::Written),
        ["get", key] => (Operation::get(key), Outcome::Unknown),
        ["get", key, "=", found] => (Operation::get(key), Outcome::Value(value(found))),
        ["scan", start, end, limit, "=", ref rows @ ..] => {
            let row = |row: &&str| {
                let (key, value) = row.split_once(':').expect(line);
                (key.into(), value.into())
            };
            let scan = Operation::Scan {
                start: start.into(),
                end: value(end),
                limit: limit.parse().expect(line),
            };
            (scan, Outcome::Rows(rows.iter().map(row).collect()))
        }
        _ => panic!("{line}"),
    };
    let outcome = match end.chars().last() {
        Some('?') => Outcome::Unknown,
        Some('!') => Outcome::Failed,
        _ => good,
    };
    let time = end.trim_end_matches(['?', '!']);
    Op {
        client,
        call: call.parse().expect(line),
        end: (!time.is_empty()).then(|| (time.parse().expect(line), outcome)),
        operation,
    }
}
