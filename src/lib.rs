//! Basalt: a key-value store on its own log-structured engine, wire-compatible with TinyKV.
//!
//! The front door: [`client`] speaks with servers, [`engine`] is the embeddable storage engine, [`proto`] the messages of the wire,
//! [`raft`] the consensus core, [`server`] the process behind the binary `basalt`.

pub use basalt_client as client;
pub use basalt_engine as engine;
pub use basalt_proto as proto;
pub use basalt_raft as raft;
pub use basalt_server as server;
