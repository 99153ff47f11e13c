//! The counter of file numbers, shared by all kinds of files. It never goes back.

use std::sync::atomic::{AtomicU64, Ordering};

/// Gives out file numbers.
#[derive(Debug)]
pub(crate) struct FileNumbers(AtomicU64);

impl FileNumbers {
    /// The next number given out is `next`.
    pub(crate) fn new(next: u64) -> Self {
        Self(AtomicU64::new(next))
    }

    /// A number that no file has had.
    pub(crate) fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    /// What `next` would answer.
    pub(crate) fn peek(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
