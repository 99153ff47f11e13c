//! One store of a replicated cluster: what stands between the server's services and `basalt_raftstore`.
//!
//! ```text
//! TinyKv service --> storage::RaftStorage --> Cluster --> StoreHandle --> store loop
//! Admin service  --> members ---------------/    |                            |
//! Peers service  --> hello --> Directory         |                     GrpcTransport
//! Raft, Snapshot streams --> incoming -----------+                            |
//!                                            Links --> queues --> other stores
//! ```
//! [`setup`] decides what a directory and the flags mean, [`Cluster`] is the store at work, [`Directory`] whom it
//! knows, [`Card`] who is who, [`Links`] the ways to others, `hello` how stores meet, `members` how
//! the cluster changes.
//!
//! Not here: Raft, regions, what is in a snapshot (`basalt_raftstore`); gRPC services (`service`).

mod ask;
mod clock;
mod cluster;
mod directory;
pub(crate) mod fuzz;
mod hello;
mod identity;
mod incoming;
mod link;
mod members;
mod point;
mod queue;
pub(crate) mod revive;
pub mod setup;
mod snapshot;
mod survey;
mod watch;

pub(crate) use ask::header;
pub use clock::BootClock;
pub use cluster::Cluster;
pub(crate) use cluster::family_word;
pub use directory::{Directory, MAX_ADDRESS_LEN, MAX_STORES};
pub use identity::{Card, Refusal, checksum, cluster_id, draw};
#[cfg(test)]
pub(crate) use link::root_cause;
pub use link::{Dialer, GrpcTransport, Links, Traffic};
pub(crate) use survey::Seen;
