//! The replicated store: regions of the key space, each a Raft group, whose peers live in two engines.
//!
//! So far it is what a peer keeps ([`PeerStorage`]): its log and hard state in raftdb, its region,
//! its progress and its data in kvdb ([`Engines`]). [`keys`] owns the bytes of all keys, [`states`]
//! the records and what a new peer starts with.
//!
//! # What is promised
//!
//! - A save is whole and in order: a power cut leaves the saves up to some point, not before the
//!   last sync.
//! - What raftdb relies on is flushed in kvdb before; raftdb deletes only what a flushed apply state
//!   has truncated (docs/adr/0006).
//! - Records that do not fit together are an error that names the region, not a guess.
//!
//! # What it is not
//!
//! No store loop, apply thread, transport or snapshot worker yet; no thread, clock or async runtime.

mod cache;
mod engines;
mod error;
pub mod keys;
mod peer_storage;
mod save;
pub mod states;

pub use engines::{DATA_FAMILIES, Engines};
pub use error::{Error, Result};
pub use peer_storage::{Applied, Membership, PeerStorage};
pub use save::{Save, SaveNumber};
