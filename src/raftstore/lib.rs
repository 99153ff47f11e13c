//! The replicated store: regions of the key space, each a Raft group, whose peers live in two engines.
//!
//! Loops, each a value with a `turn` that real threads ([`Node`]) or a simulator call:
//!
//! - [`Store`] owns the peers, steps their Raft nodes, and persists what all of them want in one synced
//!   write of raftdb a turn;
//! - [`Applier`] turns committed entries into kvdb's writes, and answers who proposed them;
//! - [`Workers`] make snapshots and flush kvdb, a loop for each.
//!
//! Others speak to a store through a [`StoreHandle`]; it reaches other stores through a [`Transport`].
//!
//! # What is promised
//!
//! - A write that was answered is durable on a quorum, and in every later read, whoever leads.
//! - A read costs no log entry, and is linearizable.
//! - Every command is answered exactly once, within its deadline or shortly after; an error says whether the
//!   command may have been applied ([`CommandError`]).
//! - A save is whole and in order: a power cut leaves the saves up to some point, not before the
//!   last sync.
//! - What raftdb relies on is flushed in kvdb before; raftdb deletes only what a flushed apply state
//!   has truncated (docs/adr/0006).
//! - Records that do not fit together are an error that names the region, not a guess. A store that meets
//!   one, or whose disk fails, stops serving and says why.
//!
//! # What it is not
//!
//! No sockets, no clock of its own, no async runtime; no split or merge of regions yet.

mod apply;
mod cache;
mod clock;
mod command;
mod config;
mod engines;
mod error;
pub mod faults;
#[doc(hidden)]
pub mod fuzz;
mod handle;
mod inbox;
pub mod keys;
mod leases;
mod message;
pub mod metrics;
mod migrate;
mod node;
mod peer_storage;
mod save;
pub mod snapshot;
mod start;
pub mod states;
pub mod store;
mod transport;
mod work;

pub use apply::Applier;
pub use clock::Clock;
pub use command::{Callback, CommandError, RegionSnapshot, Target};
pub use config::StoreConfig;
pub use engines::{DATA_FAMILIES, Engines};
pub use error::{Error, Result};
pub use handle::StoreHandle;
pub use inbox::{Depth, Inbox, InboxLimits, Refusal};
pub use message::{
    AppliedEntries, ApplyTask, FollowerStatus, LastSnapshot, Proposal, Read, RegionStatus,
    StoreMessage, StoreStatus, WorkTask,
};
pub use node::{Node, StoreLoop};
pub use peer_storage::{Applied, Installation, Installed, Membership, PeerStorage};
pub use save::{Save, SaveNumber};
pub use start::{PeerAt, peers};
pub use store::{Parts, Store, bootstrap, store_ident};
pub use transport::Transport;
pub use work::{Worker, Workers};
