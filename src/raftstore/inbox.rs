//! `Inbox`: the queue in front of a loop. Many put in, one takes everything there is.
//!
//! Callers from outside are bounded ([`Inbox::offer`]); what the store says to itself is not
//! ([`Inbox::push`]), since a lost answer of its own threads would leave somebody waiting. Once closed it
//! takes nothing.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Why an [`Inbox`] did not take something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Too much waits in it; try again later.
    Full,
    /// Its loop has ended.
    Closed,
}

/// A queue for one loop.
#[derive(Debug)]
pub struct Inbox<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
    /// Items beyond which callers from outside are refused.
    limit: usize,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    closed: bool,
}

impl<T> Inbox<T> {
    /// An empty one that takes up to `limit` items from outside.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            state: Mutex::new(State {
                items: VecDeque::new(),
                closed: false,
            }),
            filled: Condvar::new(),
            limit,
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        // Nothing panics while it is held, and the queue would be whole if it did.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts in an item from outside.
    ///
    /// # Errors
    ///
    /// The item, where there is no room or nobody to take it.
    pub fn offer(&self, item: T) -> Result<(), (Refusal, T)> {
        self.put(item, self.limit)
    }

    /// The same for what the store must hear though callers are many: there is as much room again for it.
    ///
    /// # Errors
    ///
    /// As for [`Inbox::offer`].
    pub fn offer_urgent(&self, item: T) -> Result<(), (Refusal, T)> {
        self.put(item, self.limit.saturating_mul(2))
    }

    /// Puts in an item of the store's own; false where nobody will take it.
    pub fn push(&self, item: T) -> bool {
        self.put(item, usize::MAX).is_ok()
    }

    fn put(&self, item: T, limit: usize) -> Result<(), (Refusal, T)> {
        let mut state = self.state();
        if state.closed {
            return Err((Refusal::Closed, item));
        }
        if state.items.len() >= limit {
            return Err((Refusal::Full, item));
        }
        let was_empty = state.items.is_empty();
        state.items.push_back(item);
        drop(state);
        if was_empty {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Takes everything there is, in order.
    #[must_use]
    pub fn take(&self) -> VecDeque<T> {
        std::mem::take(&mut self.state().items)
    }

    /// Waits until there is something, it is closed, or `timeout` is over.
    pub fn wait(&self, timeout: Duration) {
        let state = self.state();
        let idle = |state: &mut State<T>| state.items.is_empty() && !state.closed;
        // The outcome is seen by `take`.
        drop(self.filled.wait_timeout_while(state, timeout, idle));
    }

    /// How much waits in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state().items.len()
    }

    /// Whether nothing waits in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes nothing from now on, and answers what was left.
    pub fn close(&self) -> VecDeque<T> {
        let mut state = self.state();
        state.closed = true;
        let left = std::mem::take(&mut state.items);
        drop(state);
        self.filled.notify_all();
        left
    }

    /// Whether it is closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state().closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outsiders_are_bounded_and_the_store_itself_is_not() {
        let inbox = Inbox::new(2);
        assert_eq!(inbox.offer(1), Ok(()));
        assert_eq!(inbox.offer(2), Ok(()));
        assert_eq!(inbox.offer(3), Err((Refusal::Full, 3)));
        assert_eq!(inbox.offer_urgent(3), Ok(()));
        assert_eq!(inbox.offer_urgent(4), Ok(()));
        assert_eq!(inbox.offer_urgent(5), Err((Refusal::Full, 5)));
        assert!(inbox.push(6));
        assert_eq!(inbox.take(), [1, 2, 3, 4, 6]);
        assert_eq!(inbox.offer(5), Ok(()));
        assert_eq!(inbox.close(), [5]);
        assert_eq!(inbox.offer(6), Err((Refusal::Closed, 6)));
        assert!(!inbox.push(7));
        inbox.wait(Duration::from_secs(600));
    }
}
