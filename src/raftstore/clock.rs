//! `Clock`: the time that a store loop goes by.
//!
//! It counts on while the machine sleeps, or a lease would outlive the election of another leader. Not
//! here: a real clock; the server has one, and the simulation its own.

use std::{fmt, time::Duration};

/// Time since some fixed start, that never goes back.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Now.
    fn now(&self) -> Duration;
}
