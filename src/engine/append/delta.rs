//! The append operations of a batch between submission and publication: they change what readers see when the
//! batch's turn comes in the order of the log.

use std::sync::Arc;

use crate::{batch::WriteBatch, key::SequenceNumber, log_files::LogFiles};

use super::{AppendKind, Entry, Ledger};

/// Append operations that have their place in the log.
pub(crate) struct Delta {
    /// Its bytes are in the log; who, where and how long is for the index, and the rest for the tail.
    batch: WriteBatch,
    first_seq: SequenceNumber,
    /// Log position of the first byte of the batch.
    payload: u64,
    logs: Arc<LogFiles>,
}

impl Delta {
    pub(crate) fn new(
        batch: WriteBatch,
        first_seq: SequenceNumber,
        payload: u64,
        logs: Arc<LogFiles>,
    ) -> Self {
        Self {
            batch,
            first_seq,
            payload,
            logs,
        }
    }

    /// Puts them in place, and the batch's values where they are read from at once; under the commit lock, in the order
    /// of the log.
    pub(crate) fn apply(mut self) {
        self.logs.tail.keep(&mut self.batch, self.payload);
        let segments = self.logs.segments();
        let mut ledger = Ledger::new(&segments);
        for op in &self.batch.appends {
            let (family, prefix, spans) = self.batch.parts(op);
            let own = SequenceNumber(self.first_seq.0 + u64::from(op.operation));
            let mut published = family.write();
            if published.closed {
                continue;
            }
            published.seq = own;
            published.index.change(prefix, |log| match op.kind {
                AppendKind::Append => {
                    log.cut_back(op.first, &mut |entry| ledger.remove(entry));
                    for (span, index) in spans.iter().zip(op.first..) {
                        let entry = Entry::new(own, self.payload + span.at as u64, span.tag);
                        ledger.add(entry);
                        log.push(index, entry);
                    }
                }
                AppendKind::Rewrite => {
                    for (span, index) in spans.iter().zip(op.first..) {
                        let entry = Entry::new(span.seq, self.payload + span.at as u64, span.tag);
                        // Its liveness was checked when it got its place, so it is there.
                        let is_it = |old: Entry| old.seq() == span.seq;
                        if log.get(index).is_some_and(is_it)
                            && let Ok(Some(old)) = log.put(index, entry, is_it)
                        {
                            ledger.remove(old);
                            ledger.add(entry);
                        }
                    }
                }
                AppendKind::TruncateFront => {
                    log.cut_front(op.first, &mut |entry| ledger.remove(entry));
                }
                AppendKind::TruncateBack => {
                    log.cut_back(op.first, &mut |entry| ledger.remove(entry));
                }
            });
            drop(published);
            family.settle(prefix);
        }
    }
}
