//! Every claim of TinyKV's cluster tests of projects 2B and 2C, as tests in our words over whole stores.
//!
//! The stores are those of the simulation: one thread, a virtual clock, everything from one seed. Nothing
//! goes wrong but what a scenario says: messages that are lost, partitions, and power cuts where TinyKV
//! only restarts. Beside TinyKV's checks the whole history of all clients must be linearizable, the
//! simulation's invariants hold all the time, and at the end all stores have the same.
//! `docs/tinykv-cluster-tests.md` maps each upstream test to its test here, with every deviation.
//!
//! `BASALT_LONG=N` runs N times as many seeds; `BASALT_VERBOSE=1` prints all that happens.

#[path = "simulation/clients.rs"]
mod clients;
#[path = "simulation/counts.rs"]
#[expect(dead_code, reason = "the simulation needs more of it")]
mod counts;
#[path = "simulation/invariants.rs"]
#[expect(dead_code, reason = "the simulation needs more of it")]
mod invariants;
#[path = "simulation/mischief.rs"]
mod mischief;
#[path = "simulation/network.rs"]
mod network;
#[path = "simulation/node.rs"]
mod node;
#[path = "simulation/plan.rs"]
#[expect(dead_code, reason = "the simulation needs more of it")]
mod plan;
#[path = "simulation/world.rs"]
mod world;

#[path = "tinykv/cluster.rs"]
mod cluster;
#[path = "tinykv/document.rs"]
mod document;
#[path = "tinykv/planted.rs"]
mod planted;
#[path = "tinykv/replication.rs"]
mod replication;
#[path = "tinykv/scenario.rs"]
mod scenario;
#[path = "tinykv/snapshots.rs"]
mod snapshots;
#[path = "tinykv/wish.rs"]
mod wish;
