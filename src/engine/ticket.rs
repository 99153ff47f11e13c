//! `Ticket`: a batch on its way through the commit queue, and how its outcome is learned: by waiting, by asking, by a call.

use std::{fmt, sync::Arc};

use crate::{commit::Entry, db::DbInner, error::Result, key::SequenceNumber};

/// A batch on its way. Dropped, the batch goes on all the same.
pub struct Ticket {
    pub(crate) state: TicketState,
    pub(crate) db: Arc<DbInner>,
}

/// What is known of it.
pub(crate) enum TicketState {
    Queued(Arc<Entry>),
    Done(Result<SequenceNumber>),
}

impl Ticket {
    /// Blocks until the batch is acknowledged; answers its last sequence number.
    ///
    /// # Errors
    ///
    /// As for [`Db::write`](crate::Db::write).
    pub fn wait(self) -> Result<SequenceNumber> {
        match self.state {
            TicketState::Queued(entry) => self.db.settle(self.db.commit.wait(&entry)),
            TicketState::Done(result) => result,
        }
    }

    /// The outcome, if there is one yet.
    #[must_use]
    pub fn poll(&self) -> Option<Result<SequenceNumber>> {
        match &self.state {
            TicketState::Queued(entry) => entry.result().cloned(),
            TicketState::Done(result) => Some(result.clone()),
        }
    }

    /// Calls `callback` with the outcome, at once or on the thread that brings it about; it must be
    /// short and must not write to the database.
    pub fn on_done(self, callback: impl FnOnce(Result<SequenceNumber>) + Send + 'static) {
        match self.state {
            TicketState::Queued(entry) => entry.on_done(Box::new(callback)),
            TicketState::Done(result) => callback(result),
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("outcome", &self.poll())
            .finish()
    }
}
