//! The Raft consensus algorithm as a pure state machine: messages and ticks go in, work comes out.
//! It knows no file, socket, thread or clock, and draws random numbers from a seed.
//!
//! In the words and with the behaviour of the etcd/raft library, on TinyKV's messages
//! ([`eraftpb`], extended by new numbers only): elections with pre-vote and check-quorum,
//! replication with flow control, snapshots, linearizable reads by index and by lease, leadership
//! transfer, learners, simple and joint changes of the membership, and two ways to persist.
//!
//! A group of one, driven by hand:
//!
//! ```
//! use basalt_raft::{Config, MemStorage, RawNode};
//!
//! let mut node = RawNode::new(Config::new(1), MemStorage::with_voters(&[1]))?;
//! node.campaign()?;
//! let mut applied = Vec::new();
//! for proposal in [None, Some("hello")] {
//!     if let Some(data) = proposal {
//!         node.propose(data.into())?;
//!     }
//!     while node.has_ready() {
//!         let ready = node.ready()?;
//!         // 1. Persist hard state, snapshot and entries in one step; sync them.
//!         if let Some(state) = ready.hard_state {
//!             node.storage_mut().set_hard_state(state);
//!         }
//!         node.storage_mut().append(ready.entries);
//!         // 2. Send `ready.messages`; there is nobody to send to here.
//!         // 3. Apply what is committed; the empty entry is how a leader begins its term.
//!         applied.extend(ready.committed_entries.into_iter().map(|entry| entry.data));
//!         // 4. Acknowledge.
//!         node.advance()?;
//!     }
//! }
//! assert_eq!(applied, ["", "hello"]);
//! # Ok::<(), basalt_raft::Error>(())
//! ```
//!
//! [`Ready`] states the caller's duties in their order, [`RawNode`] the other way to persist, with
//! storage written behind the node's back. [`Storage`] is what a node reads back;
//! [`storage::conformance`] checks an implementation of it.
//!
//! What is not here: a log on disk, a network, a clock; who the members should be; snapshots of a
//! state machine. Quiet by default: give [`Config::logger`] to be told what happens.
//!
//! Limits: messages, windows, proposals, reads and what is handed out to be applied have theirs in
//! [`Config`]; what is queued to be written or sent grows until the caller takes it with `ready`. An id is neither 0 nor one of the
//! two largest numbers, which name the storage threads.

pub mod confchange;
mod config;
mod error;
mod faults;
mod incoming;
mod log;
mod logger;
mod message;
pub mod quorum;
mod raft;
mod raw_node;
mod ready;
mod rng;
mod status;
pub mod storage;
pub mod tracker;

pub use basalt_proto::eraftpb;

pub use confchange::MembershipChange;
pub use config::{Config, MAX_ELECTION_TICK, NO_LIMIT, ReadMode};
pub use error::{DropReason, Error, Result, StorageError};
pub use faults::{Fault, Faults};
pub use incoming::{MAX_INDEX, MAX_TERM};
pub use log::RaftLog;
pub use logger::{Level, Logger};
pub use message::{
    ENTRY_OVERHEAD, LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD, NONE, entries_size, entry_size,
    is_local, is_local_thread, is_response, limit_size, reference_name,
};
pub use raft::{Counts, Raft, Role};
pub use raw_node::{RawNode, SnapshotStatus};
pub use ready::{ReadState, Ready, SoftState};
pub use status::Status;
pub use storage::{InitialState, MemStorage, Storage};
