//! The window of appends on their way to one follower, in messages and in bytes.

use std::collections::VecDeque;

/// Appends that were sent and not acknowledged, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inflights {
    /// Last index and bytes of each message. Invariant: the indexes ascend.
    sent: VecDeque<(u64, u64)>,
    /// Invariant: the sum of the bytes in `sent`.
    bytes: u64,
    max_messages: usize,
    max_bytes: u64,
}

impl Inflights {
    /// An empty window.
    #[must_use]
    pub fn new(max_messages: usize, max_bytes: u64) -> Self {
        Self {
            sent: VecDeque::new(),
            bytes: 0,
            max_messages,
            max_bytes,
        }
    }

    /// Messages in the window.
    #[must_use]
    pub fn count(&self) -> usize {
        self.sent.len()
    }

    /// Bytes of entries in the window.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether nothing may be added. The last message may pass the limit in bytes.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.sent.len() >= self.max_messages || self.bytes >= self.max_bytes
    }

    /// A message up to `index` was sent. The window is not full, and `index` is above those in it.
    pub(crate) fn add(&mut self, index: u64, bytes: u64) {
        assert!(
            !self.is_full(),
            "{} messages, {} bytes in flight: full",
            self.sent.len(),
            self.bytes
        );
        debug_assert!(self.sent.back().is_none_or(|(last, _)| *last < index));
        self.sent.push_back((index, bytes));
        self.bytes += bytes;
    }

    /// Everything up to `index` has arrived.
    pub(crate) fn free_to(&mut self, index: u64) {
        while let Some((last, bytes)) = self.sent.front() {
            if *last > index {
                break;
            }
            self.bytes -= bytes;
            self.sent.pop_front();
        }
    }

    /// Nothing is on its way.
    pub(crate) fn clear(&mut self) {
        self.sent.clear();
        self.bytes = 0;
    }

    pub(crate) fn check(&self) {
        let sum: u64 = self.sent.iter().map(|(_, bytes)| bytes).sum();
        assert_eq!(sum, self.bytes, "bytes in flight");
        assert!(
            self.sent.len() <= self.max_messages,
            "{} messages in flight, {} allowed",
            self.sent.len(),
            self.max_messages
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(max_messages: usize, max_bytes: u64, indexes: &[u64]) -> Inflights {
        let mut window = Inflights::new(max_messages, max_bytes);
        for index in indexes {
            window.add(*index, 10);
        }
        window
    }

    #[test]
    fn the_window_is_full_at_its_messages_or_at_its_bytes() {
        assert!(!filled(3, 1000, &[1, 2]).is_full());
        assert!(filled(3, 1000, &[1, 2, 3]).is_full());
        assert!(!filled(9, 21, &[1, 2]).is_full());
        assert!(filled(9, 20, &[1, 2]).is_full());
    }

    #[test]
    fn an_acknowledgement_frees_all_up_to_it_and_nothing_else() {
        let mut window = filled(5, 1000, &[3, 5, 8]);
        window.free_to(2);
        assert_eq!((window.count(), window.bytes()), (3, 30));
        window.free_to(7);
        assert_eq!((window.count(), window.bytes()), (1, 10));
        window.free_to(8);
        assert_eq!((window.count(), window.bytes()), (0, 0));
        window.check();
    }

    #[test]
    #[should_panic(expected = "full")]
    fn a_full_window_takes_nothing() {
        filled(2, 1000, &[1, 2, 3]);
    }
}
