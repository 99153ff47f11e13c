//! `Inbox`: the queue in front of a loop. Many put in, one takes everything there is.
//!
//! Callers from outside are bounded ([`Inbox::offer`]); what the store says to itself is not
//! ([`Inbox::push`]), since a lost answer of its own threads would leave somebody waiting. The bound is one of
//! items and one of bytes, as their senders count them: few large values fill memory as surely as many small
//! ones. Once closed it takes nothing.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

/// Why an [`Inbox`] did not take something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// So many items wait in it, as many as may; try again later.
    Full(usize),
    /// The bytes of what waits in it would be more than these, as many as may be; try again later.
    TooManyBytes(usize),
    /// Its loop has ended.
    Closed,
}

/// What callers from outside may have wait in an [`Inbox`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InboxLimits {
    /// Items.
    pub items: usize,
    /// Bytes. One item always fits where none waits.
    pub bytes: usize,
}

impl InboxLimits {
    /// For an inbox that nobody from outside puts anything into.
    pub const NONE: Self = Self {
        items: usize::MAX,
        bytes: usize::MAX,
    };

    fn twice(self) -> Self {
        Self {
            items: self.items.saturating_mul(2),
            bytes: self.bytes.saturating_mul(2),
        }
    }
}

/// How full an [`Inbox`] is, and what it refused since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Items that wait.
    pub items: usize,
    /// Their bytes, as far as their senders count any.
    pub bytes: usize,
    /// Items that were refused for want of room.
    pub refused: u64,
}

/// A queue for one loop.
#[derive(Debug)]
pub struct Inbox<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
    /// Called when there is something after there was nothing, or when it is closed.
    wake: OnceLock<Wake>,
    /// Beyond these, callers from outside are refused.
    limits: InboxLimits,
}

/// Wakes a loop that is no thread.
struct Wake(Box<dyn Fn() + Send + Sync>);

impl fmt::Debug for Wake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wake")
    }
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    /// Threads in [`Inbox::wait`].
    waiting: usize,
    bytes: usize,
    refused: u64,
    closed: bool,
}

impl<T> Inbox<T> {
    /// An empty one that takes so much from outside.
    #[must_use]
    pub fn new(limits: InboxLimits) -> Self {
        Self {
            state: Mutex::new(State {
                items: VecDeque::new(),
                waiting: 0,
                bytes: 0,
                refused: 0,
                closed: false,
            }),
            filled: Condvar::new(),
            wake: OnceLock::new(),
            limits,
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        // Nothing panics while it is held, and the queue would be whole if it did.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has `wake` called, beside those who wait, whenever there is something after there was nothing, and when it is
    /// closed. Only the first call counts.
    pub fn on_filled(&self, wake: impl Fn() + Send + Sync + 'static) {
        let _ = self.wake.set(Wake(Box::new(wake)));
    }

    /// `threads` says whether any waits: to tell nobody would be a system call all the same.
    fn notify(&self, threads: bool) {
        if threads {
            self.filled.notify_all();
        }
        if let Some(Wake(wake)) = self.wake.get() {
            wake();
        }
    }

    /// Puts in an item from outside that holds so many bytes.
    ///
    /// # Errors
    ///
    /// The item, where there is no room or nobody to take it.
    pub fn offer(&self, item: T, bytes: usize) -> Result<(), (Refusal, T)> {
        self.put(item, bytes, self.limits)
    }

    /// The same for what the store must hear though callers are many: there is as much room again for it.
    ///
    /// # Errors
    ///
    /// As for [`Inbox::offer`].
    pub fn offer_urgent(&self, item: T, bytes: usize) -> Result<(), (Refusal, T)> {
        self.put(item, bytes, self.limits.twice())
    }

    /// Puts in an item of the store's own; false where nobody will take it.
    pub fn push(&self, item: T) -> bool {
        self.put(item, 0, InboxLimits::NONE).is_ok()
    }

    /// The same, without waking its loop: whoever puts it in takes it out again, or calls [`Inbox::wake`].
    pub(crate) fn push_quietly(&self, item: T) {
        let mut state = self.state();
        if !state.closed {
            state.items.push_back(item);
        }
    }

    /// Wakes its loop, if anything waits.
    pub(crate) fn wake(&self) {
        let state = self.state();
        let (is_empty, threads) = (state.items.is_empty(), state.waiting > 0);
        drop(state);
        if !is_empty {
            self.notify(threads);
        }
    }

    fn put(&self, item: T, bytes: usize, limits: InboxLimits) -> Result<(), (Refusal, T)> {
        let mut state = self.state();
        if state.closed {
            return Err((Refusal::Closed, item));
        }
        let was_empty = state.items.is_empty();
        let sum = state.bytes.saturating_add(bytes);
        let refusal = if state.items.len() >= limits.items {
            Some(Refusal::Full(limits.items))
        } else {
            (sum > limits.bytes && !was_empty).then_some(Refusal::TooManyBytes(limits.bytes))
        };
        if let Some(refusal) = refusal {
            state.refused += 1;
            return Err((refusal, item));
        }
        state.items.push_back(item);
        state.bytes = sum;
        let threads = state.waiting > 0;
        drop(state);
        if was_empty {
            self.notify(threads);
        }
        Ok(())
    }

    /// Takes everything there is, in order.
    #[must_use]
    pub fn take(&self) -> VecDeque<T> {
        let mut state = self.state();
        state.bytes = 0;
        std::mem::take(&mut state.items)
    }

    /// Takes everything there is, if each item of it is such; else nothing.
    pub(crate) fn take_if(&self, is_such: impl Fn(&T) -> bool) -> VecDeque<T> {
        let mut state = self.state();
        if !state.items.iter().all(is_such) {
            return VecDeque::new();
        }
        state.bytes = 0;
        std::mem::take(&mut state.items)
    }

    /// Waits until there is something, it is closed, or `timeout` is over.
    pub fn wait(&self, timeout: Duration) {
        let mut state = self.state();
        state.waiting += 1;
        let idle = |state: &mut State<T>| state.items.is_empty() && !state.closed;
        let waited = self.filled.wait_timeout_while(state, timeout, idle);
        // What there is, is seen by `take`.
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
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

    /// How full it is.
    #[must_use]
    pub fn depth(&self) -> Depth {
        let state = self.state();
        Depth {
            items: state.items.len(),
            bytes: state.bytes,
            refused: state.refused,
        }
    }

    /// Takes nothing from now on, and answers what was left.
    pub fn close(&self) -> VecDeque<T> {
        let mut state = self.state();
        state.closed = true;
        state.bytes = 0;
        let left = std::mem::take(&mut state.items);
        drop(state);
        self.notify(true);
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
        let limits = InboxLimits {
            items: 2,
            bytes: usize::MAX,
        };
        let inbox = Inbox::new(limits);
        assert_eq!(inbox.offer(1, 0), Ok(()));
        assert_eq!(inbox.offer(2, 0), Ok(()));
        assert_eq!(inbox.offer(3, 0), Err((Refusal::Full(2), 3)));
        assert_eq!(inbox.offer_urgent(3, 0), Ok(()));
        assert_eq!(inbox.offer_urgent(4, 0), Ok(()));
        assert_eq!(inbox.offer_urgent(5, 0), Err((Refusal::Full(4), 5)));
        assert!(inbox.push(6));
        assert_eq!(inbox.take(), [1, 2, 3, 4, 6]);
        assert_eq!(inbox.offer(5, 0), Ok(()));
        assert_eq!(inbox.close(), [5]);
        assert_eq!(inbox.offer(6, 0), Err((Refusal::Closed, 6)));
        assert!(!inbox.push(7));
        inbox.wait(Duration::from_secs(600));
    }

    #[test]
    fn bytes_are_bounded_too_but_for_an_item_that_is_alone() {
        let limits = InboxLimits {
            items: 100,
            bytes: 10,
        };
        let inbox = Inbox::new(limits);
        assert_eq!(inbox.offer(1, 11), Ok(()), "else it could never come in");
        assert_eq!(inbox.offer(2, 0), Err((Refusal::TooManyBytes(10), 2)));
        assert_eq!(inbox.offer_urgent(2, 9), Ok(()));
        assert_eq!(
            inbox.offer_urgent(3, 1),
            Err((Refusal::TooManyBytes(20), 3))
        );
        assert!(inbox.push(4));
        let depth = Depth {
            items: 3,
            bytes: 20,
            refused: 2,
        };
        assert_eq!(inbox.depth(), depth);
        assert_eq!(inbox.take(), [1, 2, 4]);
        assert_eq!(inbox.offer(5, 10), Ok(()));
    }
}
